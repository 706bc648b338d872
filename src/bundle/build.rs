//! Building a bundle: the parts laid behind each other, then the header in front of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::manifest::{Manifest, Options, sources_digest, write_sources};
use super::{BundleError, FORMAT, Header, MAGIC, PAGE, Part};
use crate::model::SourceFile;
use crate::policy::Policy;

/// What is said of a policy beside what it says itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    /// The name of the policy.
    pub name: &'a str,
    /// When it was made; not taken from a clock, so that equal input gives equal bytes.
    pub created: Option<Timestamp>,
    /// Whether inconsistencies of real exports were warnings.
    pub lenient: bool,
    /// The documents that it was compiled from.
    pub sources: &'a [SourceFile],
    /// Whether they are kept.
    pub keep_sources: bool,
}

/// Builds a bundle: equal policies, and equal words about them, give equal bytes.
///
/// # Errors
///
/// [`BundleError::Io`], if the manifest cannot be written as JSON.
pub fn build(policy: &Policy, about: &About<'_>) -> Result<Vec<u8>, BundleError> {
    let manifest = Manifest {
        format: FORMAT,
        name: about.name.to_owned(),
        created: about.created,
        // Without the commit: two builds of one version make the same.
        tool: concat!("postern ", env!("CARGO_PKG_VERSION")).to_owned(),
        counts: policy.counts(),
        sources_digest: sources_digest(about.sources),
        policy_digest: policy.digest().to_owned(),
        with_sources: about.keep_sources,
        options: Options::of(policy.options(), about.lenient),
    };
    // Ends with its brace: a length that lies takes something away from it or adds what is no part of it.
    let manifest = serde_json::to_vec_pretty(&manifest).map_err(io::Error::from)?;

    let page = usize::try_from(PAGE).unwrap_or(usize::MAX);
    let header_length = size_of::<Header>();
    let policy_start = header_length.saturating_add(manifest.len()).next_multiple_of(page);
    let mut file = Vec::with_capacity(policy_start.saturating_add(policy.bytes().len()));
    file.resize(header_length, 0);
    file.extend_from_slice(&manifest);
    file.resize(policy_start, 0);
    file.extend_from_slice(policy.bytes());
    let sources_start = file.len();
    if about.keep_sources {
        write_sources(about.sources, &mut file)?;
    }

    let part =
        |start: usize, length: usize| Part { start: U64::new(start as u64), length: U64::new(length as u64) };
    let content = file.get(header_length..).unwrap_or_default();
    let header = Header {
        magic: MAGIC,
        format: U32::new(FORMAT),
        #[expect(clippy::cast_possible_truncation, reason = "a header of about a hundred bytes")]
        length: U32::new(header_length as u32),
        manifest: part(header_length, manifest.len()),
        policy: part(policy_start, policy.bytes().len()),
        sources: part(sources_start, file.len().saturating_sub(sources_start)),
        total: U64::new(file.len() as u64),
        digest: Sha256::digest(content).into(),
    };
    if let Some(front) = file.get_mut(..header_length) {
        front.copy_from_slice(header.as_bytes());
    }
    Ok(file)
}

/// Writes a file as a whole or not at all: under another name in the same folder, synced, then renamed. Whoever has the
/// old one open or mapped keeps it as it was.
///
/// # Errors
///
/// What the file system says; the other name is gone then.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().ok_or(io::Error::from(io::ErrorKind::InvalidFilename))?;
    let mut other = std::ffi::OsString::from(".");
    other.push(name);
    other.push(format!(".{}.tmp", std::process::id()));
    let other = folder.join(other);
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&other)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&other, path)?;
        // The new name is there after a crash too.
        File::open(folder)?.sync_all()
    };
    written().inspect_err(|error| {
        if error.kind() != io::ErrorKind::AlreadyExists {
            let _gone = fs::remove_file(&other);
        }
    })
}
