//! The bundle: a compiled policy as one file that is mapped and used in place.
//!
//! ```text
//! Header │ manifest (JSON) │ … │ policy, at a page │ sources (JSON), where they are kept
//! ```
//!
//! The parts lie behind each other without a choice: each begins where the one before ends (the policy at the next
//! multiple of [`PAGE`]), and the last ends the file. So every number of the header is checked, once and without
//! looking into a part; [`Check::Full`] adds the SHA-256 of everything behind the header. What is in the policy is
//! checked where it is followed, as in every policy.
//!
//! Nothing in the file depends on when or where it was made: equal input gives equal bytes. The serial of a publication
//! is given when it is published, in the metadata that is signed then, and is not in here.
//!
//! Imports `model`, `policy`, and `agent` for what a policy says of agents.

mod build;
mod diff;
mod impact;
mod manifest;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use self::build::{About, build, write};
pub use self::diff::{Access, Change, ChangeKind, Difference, Impact, ImpactKind, diff};
pub use self::manifest::{Manifest, Options, sources_digest};
use crate::model::SourceFile;
use crate::policy::{self, Policy};

/// Which form of the file this is. Another form of compiled policies is another form of the file.
pub const FORMAT: u32 = 2;
const _: () = assert!(policy::FORMAT == 3, "policies have a new form: raise the format of bundles too");

/// The first bytes of every bundle, of whatever format.
pub const MAGIC: [u8; 8] = *b"PSTNBNDL";

/// Where the policy begins is a multiple of this: the page of every machine in use.
const PAGE: u64 = 4096;

/// Larger than any manifest.
const MAX_MANIFEST: u64 = 1 << 20;

/// Where a part lies.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Part {
    start: U64,
    length: U64,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    format: U32,
    /// Of this header.
    length: U32,
    manifest: Part,
    policy: Part,
    /// Of length 0 without sources.
    sources: Part,
    /// Length of the file.
    total: U64,
    /// SHA-256 of everything behind the header.
    digest: [u8; 32],
}

/// What a bundle may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A larger file is refused before it is mapped.
    pub max_bytes: u64,
}

impl Default for Limits {
    /// 4 GiB: more than the compiled form can count.
    fn default() -> Self {
        Self { max_bytes: 4 << 30 }
    }
}

/// What is checked beside the bounds of every part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// That the content has the digest that the header gives, and the policy the one that the manifest gives. Reads
    /// every byte.
    #[default]
    Full,
    /// Nothing: the caller has verified the whole file, and this is its digest. Reads the header and the manifest.
    Bounds {
        /// `sha256:` and 64 hexadecimal digits.
        digest: String,
    },
}

/// A bundle that was opened.
pub struct Bundle {
    /// What it says of itself.
    pub manifest: Manifest,
    /// What decides, where it lies in the file.
    pub policy: Policy,
    /// `sha256:` and 64 hexadecimal digits over the whole file.
    pub digest: String,
    bytes: u64,
    sources: Bytes,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It does not begin as one.
    #[error("the file is no bundle: it does not begin with `PSTNBNDL`")]
    NotABundle,
    /// Of an older or newer version.
    #[error("the bundle has format {found}, and this version reads format {wanted}; build it again")]
    OtherFormat {
        /// What the file says.
        found: u32,
        /// What would do.
        wanted: u32,
    },
    /// It ends too early.
    #[error("the bundle is truncated: it says that it has {expected} bytes, and the file has {found}")]
    Truncated {
        /// How many bytes it says that it has.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// Larger than allowed.
    #[error("the bundle has {bytes} bytes, and the limit is {limit}")]
    TooLarge {
        /// How large it is.
        bytes: u64,
        /// How large it may be.
        limit: u64,
    },
    /// It contradicts itself.
    #[error("the bundle is damaged: {what}")]
    Corrupt {
        /// Which part says what, and what was wanted.
        what: String,
    },
    /// The content is not what it was built with.
    #[error("the bundle is damaged: the {part} has the digest {found}, and the bundle says {expected}")]
    DigestMismatch {
        /// Of what: the content or the policy.
        part: &'static str,
        /// What the bundle says.
        expected: String,
        /// What it is.
        found: String,
    },
    /// It could not be read.
    #[error("cannot read the bundle: {0}")]
    Io(#[from] io::Error),
}

/// Maps a bundle read-only and checks all of it.
///
/// # Errors
///
/// [`BundleError`]; then nothing of it is used.
pub fn open(path: &Path, limits: Limits) -> Result<Bundle, BundleError> {
    open_verified(path, limits, Check::Full)
}

/// Maps a bundle read-only and checks what is asked for.
///
/// Whoever can write to the file can change what was checked, and whoever cuts it short ends the process: files in a
/// state directory are written once, under another name, and renamed.
///
/// # Errors
///
/// [`BundleError`]; then nothing of it is used.
pub fn open_verified(path: &Path, limits: Limits, check: Check) -> Result<Bundle, BundleError> {
    let (file, length) = open_file(path, limits)?;
    from_bytes_verified(map(&file, length)?, check)
}

/// Reads a bundle into memory and checks all of it: for a file that somebody may write to.
///
/// # Errors
///
/// [`BundleError`]; then nothing of it is used.
pub fn read(path: &Path, limits: Limits) -> Result<Bundle, BundleError> {
    let (file, length) = open_file(path, limits)?;
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
    // One byte more tells a file that has grown since from a whole one.
    file.take(length.saturating_add(1)).read_to_end(&mut bytes)?;
    from_bytes(bytes)
}

/// A file within the limits, and its length.
fn open_file(path: &Path, limits: Limits) -> Result<(File, u64), BundleError> {
    // Opening a pipe would wait for its other end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(BundleError::NotABundle);
    }
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > limits.max_bytes {
        return Err(BundleError::TooLarge { bytes: length, limit: limits.max_bytes });
    }
    if length == 0 {
        return Err(BundleError::NotABundle);
    }
    Ok((file, length))
}

/// Whether a file begins as a bundle does; what cannot be read does not.
pub fn is_bundle(path: &Path) -> bool {
    let begins = || -> io::Result<bool> {
        if !std::fs::metadata(path)?.is_file() {
            return Ok(false);
        }
        let mut magic = [0; MAGIC.len()];
        File::open(path)?.read_exact(&mut magic)?;
        Ok(magic == MAGIC)
    };
    begins().unwrap_or(false)
}

/// Opens a bundle in memory and checks all of it.
///
/// # Errors
///
/// [`BundleError`].
pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Bundle, BundleError> {
    from_bytes_verified(bytes, Check::Full)
}

/// Opens a bundle in memory and checks what is asked for.
///
/// # Errors
///
/// [`BundleError`].
pub fn from_bytes_verified(bytes: impl Into<Bytes>, check: Check) -> Result<Bundle, BundleError> {
    let bytes: Bytes = bytes.into();
    let header = header(&bytes)?;
    let [manifest, policy, sources] = parts(&header, bytes.len() as u64)?.map(|(start, end)| {
        // Within the file, as `parts` says; a part that is not there is empty, and refused below.
        if bytes.get(start..end).is_some() { bytes.slice(start..end) } else { Bytes::new() }
    });
    let full = check == Check::Full;
    let digest = match check {
        Check::Bounds { digest } => digest,
        Check::Full => verified(&bytes, &header)?,
    };
    let manifest = Manifest::read(&manifest)?;
    let known = (!full).then(|| manifest.policy_digest.clone());
    let policy = Policy::open(policy, known).map_err(|_| corrupt("its policy is no compiled policy"))?;
    same_digest("policy", &manifest.policy_digest, policy.digest())?;
    let bundle = Bundle { manifest, policy, digest, bytes: bytes.len() as u64, sources };
    bundle.agrees()?;
    Ok(bundle)
}

#[expect(unsafe_code, reason = "mapping a file is unsafe: whoever writes to it changes memory")]
fn map(file: &File, length: u64) -> Result<Bytes, BundleError> {
    let length = usize::try_from(length)
        .map_err(|_| BundleError::TooLarge { bytes: length, limit: usize::MAX as u64 })?;
    // SAFETY: the bytes must not change while they are mapped. Bundles are written once under another name and
    // renamed, by this program and as the manual says, so the file behind the mapping is never written again. A
    // change that happens all the same changes what is decided, or ends the process where the file was cut; it makes
    // no reference invalid, since the mapping stays and every record is plain bytes that are checked when followed.
    let map = unsafe { memmap2::MmapOptions::new().len(length).map(file)? };
    // The first questions should not wait for the disk page by page. That it may be refused is no reason to.
    let _hint = map.advise(memmap2::Advice::WillNeed);
    Ok(Bytes::from_owner(map))
}

fn corrupt(what: impl Into<String>) -> BundleError {
    BundleError::Corrupt { what: what.into() }
}

/// Reads the header, of this format only.
fn header(bytes: &[u8]) -> Result<Header, BundleError> {
    let behind = bytes.strip_prefix(&MAGIC).ok_or(BundleError::NotABundle)?;
    let found = bytes.len() as u64;
    let truncated = || BundleError::Truncated { expected: size_of::<Header>() as u64, found };
    // The format stands at the same place in all formats.
    let (format, _) = U32::read_from_prefix(behind).map_err(|_| truncated())?;
    if format.get() != FORMAT {
        return Err(BundleError::OtherFormat { found: format.get(), wanted: FORMAT });
    }
    let (header, _) = Header::read_from_prefix(bytes).map_err(|_| truncated())?;
    Ok(header)
}

/// Where the parts lie, beginning and end, in a file of so many bytes.
fn parts(header: &Header, found: u64) -> Result<[(usize, usize); 3], BundleError> {
    let total = header.total.get();
    if found < total {
        return Err(BundleError::Truncated { expected: total, found });
    }
    let is = |what: &str, value: u64, wanted: u64| {
        if value == wanted { Ok(()) } else { Err(corrupt(format!("{what} is {value}, wanted {wanted}"))) }
    };
    let length = size_of::<Header>() as u64;
    is("the length of its header", header.length.get().into(), length)?;
    let mut before = length;
    let mut places = [(0, 0); 3];
    let parts = [("manifest", header.manifest), ("policy", header.policy), ("sources", header.sources)];
    for (place, (name, part)) in places.iter_mut().zip(parts) {
        let (start, length) = (part.start.get(), part.length.get());
        let wanted = if name == "policy" { before.checked_next_multiple_of(PAGE) } else { Some(before) };
        is(&format!("the start of its {name}"), start, wanted.unwrap_or(u64::MAX))?;
        if name == "manifest" && length > MAX_MANIFEST {
            return Err(corrupt(format!("its manifest has {length} bytes, wanted at most {MAX_MANIFEST}")));
        }
        before = start
            .checked_add(length)
            .filter(|end| *end <= total)
            .ok_or_else(|| corrupt(format!("the {length} bytes of its {name} do not lie within it")))?;
        let offset = |value| usize::try_from(value).map_err(|_| corrupt(format!("its {name} is too large")));
        *place = (offset(start)?, offset(before)?);
    }
    is("the end of its last part", before, total)?;
    is("the length of the file", found, total)?;
    Ok(places)
}

/// Reads every byte: the digest of the whole, if the content has the digest that the header gives.
fn verified(bytes: &[u8], header: &Header) -> Result<String, BundleError> {
    let (front, content) = bytes.split_at_checked(size_of::<Header>()).unwrap_or_default();
    let mut whole = Sha256::new();
    let mut inner = Sha256::new();
    whole.update(front);
    // Both from one walk through memory.
    for piece in content.chunks(1 << 16) {
        whole.update(piece);
        inner.update(piece);
    }
    same_digest("content", &shown_digest(&header.digest), &shown_digest(&inner.finalize()))?;
    Ok(shown_digest(&whole.finalize()))
}

fn same_digest(part: &'static str, expected: &str, found: &str) -> Result<(), BundleError> {
    if expected == found {
        return Ok(());
    }
    Err(BundleError::DigestMismatch { part, expected: expected.to_owned(), found: found.to_owned() })
}

/// `sha256:` and hexadecimal digits.
fn shown_digest(digest: &[u8]) -> String {
    format!("sha256:{}", hex::encode(digest))
}

// === impl Bundle ===

impl Bundle {
    /// How large the file is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The documents that it was built from, where they are kept.
    ///
    /// # Errors
    ///
    /// [`BundleError::Corrupt`].
    pub fn sources(&self) -> Result<Option<Vec<SourceFile>>, BundleError> {
        manifest::read_sources(&self.sources)
    }

    /// Reads everything once more and looks whether the parts are what the manifest says of them: the policy has its
    /// digest, and the sources, where they are kept, have theirs.
    ///
    /// # Errors
    ///
    /// [`BundleError::DigestMismatch`], and what reading the sources gives.
    pub fn verify(&self) -> Result<(), BundleError> {
        let found = shown_digest(&Sha256::digest(self.policy.bytes()));
        same_digest("policy", &self.manifest.policy_digest, &found)?;
        if let Some(sources) = self.sources()? {
            same_digest("sources", &self.manifest.sources_digest, &sources_digest(&sources))?;
        }
        Ok(())
    }

    /// Whether the manifest speaks of the policy that is there, as far as that can be seen at once.
    fn agrees(&self) -> Result<(), BundleError> {
        let (said, is) = (&self.manifest.counts, self.policy.counts());
        if *said != is {
            return Err(corrupt(format!("its manifest counts {said:?}, and its policy has {is:?}")));
        }
        let options = self.policy.options();
        if self.manifest.options.compile() != options {
            return Err(corrupt("its manifest and its policy say different options"));
        }
        if self.manifest.with_sources == self.sources.is_empty() {
            return Err(corrupt("its manifest and its header differ on whether it keeps its sources"));
        }
        Ok(())
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bundle").field("digest", &self.digest).field("manifest", &self.manifest).finish()
    }
}
