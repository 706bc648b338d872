//! What a bundle says of itself, and the documents that it may keep, both as JSON.

use std::borrow::Cow;
use std::io;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::{BundleError, FORMAT, corrupt, shown_digest};
use crate::model::{SourceFile, Wildcards};
use crate::policy::{CompileOptions, Counts};

/// What a bundle says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: u32,
    /// Of the policy.
    pub name: String,
    /// When, as whoever built it says; nothing takes it from a clock.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_time",
        deserialize_with = "read_time"
    )]
    pub created: Option<Timestamp>,
    /// What built it, with its version.
    pub tool: String,
    /// What is in the policy.
    pub counts: Counts,
    /// SHA-256 of the documents, as [`sources_digest`] has it.
    pub sources_digest: String,
    /// [`Policy::digest`](crate::policy::Policy::digest).
    pub policy_digest: String,
    /// Whether the documents are kept.
    pub with_sources: bool,
    /// How it was compiled.
    pub options: Options,
}

/// How a policy was read and compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Options {
    /// Inconsistencies of real exports were warnings.
    pub lenient: bool,
    /// `/*/` in patterns is literal.
    pub strict_wildcards: bool,
    /// Conditions may use operators that Azure has not.
    pub condition_extensions: bool,
}

/// A document as it is kept.
#[derive(Serialize, Deserialize)]
struct Source<'a> {
    #[serde(borrow)]
    path: Cow<'a, str>,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

impl Manifest {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, BundleError> {
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| corrupt(format!("its manifest cannot be read: {error}")))?;
        if manifest.format != FORMAT {
            return Err(corrupt(format!(
                "its manifest says format {}, and its header says {FORMAT}",
                manifest.format
            )));
        }
        Ok(manifest)
    }
}

impl Options {
    /// What the policy itself says of them.
    pub fn compile(self) -> CompileOptions {
        CompileOptions {
            wildcards: if self.strict_wildcards { Wildcards::Strict } else { Wildcards::Collapse },
            condition_extensions: self.condition_extensions,
        }
    }

    /// Of a policy.
    pub(super) fn of(compile: CompileOptions, lenient: bool) -> Self {
        Self {
            lenient,
            strict_wildcards: compile.wildcards == Wildcards::Strict,
            condition_extensions: compile.condition_extensions,
        }
    }
}

/// `sha256:` and 64 hexadecimal digits over documents: over the JSON that a bundle keeps them as, an array of objects
/// with `path` and `text` in the order of the paths.
pub fn sources_digest(sources: &[SourceFile]) -> String {
    let mut hashing = Hashing(Sha256::new());
    // Nothing in there fails, and a digest of a part would be one that fits nothing.
    let _infallible = write_sources(sources, &mut hashing);
    shown_digest(&hashing.0.finalize())
}

/// Writes documents as a bundle keeps them.
pub(super) fn write_sources(sources: &[SourceFile], out: impl io::Write) -> io::Result<()> {
    let mut all: Vec<Source<'_>> = sources
        .iter()
        .map(|source| Source { path: Cow::Borrowed(&source.path), text: Cow::Borrowed(&source.text) })
        .collect();
    all.sort_by(|one, other| one.path.cmp(&other.path));
    serde_json::to_writer(out, &all)?;
    Ok(())
}

/// Reads them again; there are none in an empty part.
pub(super) fn read_sources(bytes: &[u8]) -> Result<Option<Vec<SourceFile>>, BundleError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let all: Vec<Source<'_>> = serde_json::from_slice(bytes)
        .map_err(|error| corrupt(format!("its sources cannot be read: {error}")))?;
    let owned =
        |source: Source<'_>| SourceFile { path: source.path.into_owned(), text: source.text.into_owned() };
    Ok(Some(all.into_iter().map(owned).collect()))
}

struct Hashing(Sha256);

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[expect(clippy::ref_option, reason = "as serde wants it")]
fn write_time<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(time),
        None => serializer.serialize_none(),
    }
}

fn read_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text: Option<Cow<'de, str>> = Deserialize::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
}
