//! What a client of a repository believes, and how it comes to believe more: the workflow of The Update Framework
//! (5.3 to 5.6) as a state that knows neither network nor disk nor clock. Each step takes the bytes of one file,
//! checks everything, and only then replaces what was trusted; a refused step changes nothing.

use std::collections::{BTreeSet, HashMap};
use std::fmt;

use bytes::Bytes;
use jiff::Timestamp as Time;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tough::schema::{
    Error as SchemaError, Metafile, Role, Root, Signed, Snapshot, Target, Targets, Timestamp,
};

pub(super) use tough::schema::RoleType;

/// The name of the only target: the bundle of the policy.
pub const TARGET_NAME: &str = "policy.bundle";

/// What `snapshot.json` calls the metadata of the targets, and `timestamp.json` that of the snapshot.
pub(super) const TARGETS_META: &str = "targets.json";
pub(super) const SNAPSHOT_META: &str = "snapshot.json";

/// Metadata or a bundle that was not believed. Each says which file it was and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The keys are the right ones, the signatures are not: the file was edited, or too few have signed it.
    #[error("the signature of `{role}` is wrong: {valid} valid of {threshold} that are needed")]
    WrongSignature {
        /// Whose metadata.
        role: RoleType,
        /// How many of its signatures are valid.
        valid: u64,
        /// How many must be.
        threshold: u64,
    },
    /// It is signed with keys that the root does not name for this role.
    #[error("`{role}` is signed with keys that the trusted root does not name for it: {}", keys.join(", "))]
    SwappedKey {
        /// Whose metadata.
        role: RoleType,
        /// The ids of the keys that signed.
        keys: Vec<String>,
    },
    /// It is older than what was seen before.
    #[error("`{role}` was rolled back: version {offered} is offered, version {trusted} was seen before")]
    Rollback {
        /// Whose metadata.
        role: RoleType,
        /// The version that is trusted.
        trusted: u64,
        /// The version that is offered.
        offered: u64,
    },
    /// Its time is over, so that nobody can tell whether something newer is withheld.
    #[error("`{role}` is frozen: it expired at {expires}; a newer one is withheld or was not published")]
    Expired {
        /// Whose metadata.
        role: RoleType,
        /// When it ended.
        expires: Time,
    },
    /// It belongs to another publication than the metadata that points to it.
    #[error("`{role}` does not fit the rest of the metadata: {what} is {found}, signed was {wanted}")]
    Mixed {
        /// Whose metadata.
        role: RoleType,
        /// What differs: its version, length or hash.
        what: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        wanted: String,
    },
    /// A root does not follow the one before it.
    #[error("root {offered} does not follow root {trusted}")]
    RootNotConsecutive {
        /// The version that is trusted.
        trusted: u64,
        /// The version that is offered.
        offered: u64,
    },
    /// It is larger than what will be read.
    #[error("`{what}` is larger than {limit} bytes")]
    TooLarge {
        /// The file.
        what: String,
        /// The most that is read.
        limit: u64,
    },
    /// It cannot be understood.
    #[error("`{role}` cannot be read: {error}")]
    Malformed {
        /// Whose metadata.
        role: RoleType,
        /// Why.
        error: String,
    },
    /// Something that was listed before is not listed any more.
    #[error("`{role}` does not list `{name}`")]
    TargetMissing {
        /// Whose metadata.
        role: RoleType,
        /// What it should list.
        name: String,
    },
    /// The bundle is not the one that was signed.
    #[error("the bundle is not the one that was signed: {what} is {found}, signed was {wanted}")]
    Corrupted {
        /// What differs: its length or hash.
        what: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        wanted: String,
    },
}

impl Refused {
    /// A short name that does not change, for logs, metrics and programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::WrongSignature { .. } => "WRONG_SIGNATURE",
            Self::SwappedKey { .. } => "SWAPPED_KEY",
            Self::Rollback { .. } => "ROLLBACK",
            Self::Expired { .. } => "EXPIRED",
            Self::Mixed { .. } => "MIXED",
            Self::RootNotConsecutive { .. } => "ROOT_NOT_CONSECUTIVE",
            Self::TooLarge { .. } => "TOO_LARGE",
            Self::Malformed { .. } => "MALFORMED",
            Self::TargetMissing { .. } => "TARGET_MISSING",
            Self::Corrupted { .. } => "CORRUPTED",
        }
    }
}

/// Whether a step brought something new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is what is trusted already.
    Unchanged,
    /// It is trusted from now on.
    Updated,
}

/// What a publisher writes beside the hash of a bundle: who, when and why, and what came before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// The number of the publication: the version of the targets metadata.
    pub serial: u64,
    /// When it was published.
    #[serde(with = "time")]
    pub published_at: Time,
    /// Who published it, as they say.
    pub published_by: String,
    /// Why.
    pub message: String,
    /// The serial whose content this publication brings back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_to: Option<u64>,
    /// The name of the policy.
    pub policy_name: String,
    /// The digest of the compiled policy.
    pub policy_digest: String,
    /// What wrote it.
    pub tool: String,
    /// The publication before: the hash makes the past a chain that nobody can rewrite, whatever becomes of keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
}

/// The targets metadata before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Previous {
    /// Its version.
    pub serial: u64,
    /// The SHA-256 of its bytes, in hex.
    pub sha256: String,
}

/// jiff's own serde support is a feature of jiff; text is all that is needed here.
mod time {
    use jiff::Timestamp;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(at)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A policy that somebody published: which bundle it is, and what is said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The number of the publication; it only ever grows.
    pub serial: u64,
    /// The SHA-256 of the bundle, in hex.
    pub bundle_sha256: String,
    /// The length of the bundle in bytes.
    pub bundle_length: u64,
    /// Where the bundle lies in the repository.
    pub bundle_path: String,
    /// When it was published.
    pub published_at: Time,
    /// Who published it, as they say.
    pub published_by: String,
    /// Why.
    pub message: String,
    /// The serial whose content this publication brings back.
    pub rolled_back_to: Option<u64>,
    /// The name of the policy.
    pub policy_name: String,
    /// The digest of the compiled policy.
    pub policy_digest: String,
    /// When the first of the four metadata files ends.
    pub expires: Time,
    /// Which one that is.
    pub expires_role: RoleType,
}

/// A file whose signatures were verified, as it was and as it was understood.
#[derive(Clone)]
pub struct Verified<T> {
    bytes: Bytes,
    signed: Signed<T>,
}

impl<T> Verified<T> {
    /// The file, byte by byte.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What it says.
    pub const fn role(&self) -> &T {
        &self.signed.signed
    }
}

impl<T: Role> fmt::Debug for Verified<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", T::TYPE, self.role().version())
    }
}

/// What is trusted at a time. A root always; the rest as far as it was seen.
#[derive(Clone, Debug)]
pub struct TrustedState {
    root: Verified<Root>,
    timestamp: Option<Verified<Timestamp>>,
    snapshot: Option<Verified<Snapshot>>,
    targets: Option<Verified<Targets>>,
}

impl TrustedState {
    /// Begins with a root that was handed over in a way that can be trusted.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is not signed by its own keys.
    pub fn new(root: Bytes) -> Result<Self, Refused> {
        let signed = parse::<Root>(&root)?;
        check_root(&signed.signed)?;
        verify(&signed.signed, &signed)?;
        Ok(Self { root: Verified { bytes: root, signed }, timestamp: None, snapshot: None, targets: None })
    }

    /// Takes back what was kept on disk. Signatures and versions are checked as ever, expiry is not: whoever starts
    /// from disk decides by [`expires`](Self::expires) how fresh it must be.
    ///
    /// The files may be of different ages, because each becomes trusted on its own, but none may be newer than what
    /// the file above it names.
    ///
    /// # Errors
    ///
    /// One of them is not signed as it must be, or they contradict each other. Nothing is skipped: a memory of what
    /// was seen that does not verify is no reason to forget it.
    pub fn restore(
        root: Bytes,
        timestamp: Option<Bytes>,
        snapshot: Option<Bytes>,
        targets: Option<Bytes>,
    ) -> Result<Self, Refused> {
        let mut state = Self::new(root)?;
        state.timestamp = timestamp.map(|bytes| state.verified::<Timestamp>(bytes)).transpose()?;
        state.snapshot = snapshot.map(|bytes| state.verified::<Snapshot>(bytes)).transpose()?;
        state.targets = targets.map(|bytes| state.verified::<Targets>(bytes)).transpose()?;
        if let (Some(timestamp), Some(snapshot)) = (&state.timestamp, &state.snapshot) {
            fits_or_older(snapshot_meta(timestamp.role())?, snapshot)?;
        }
        if let (Some(snapshot), Some(targets)) = (&state.snapshot, &state.targets) {
            fits_or_older(targets_meta(snapshot.role())?, targets)?;
        }
        if let Some(targets) = &state.targets {
            check_targets(targets.role())?;
        }
        Ok(state)
    }

    /// The root.
    pub const fn root(&self) -> &Verified<Root> {
        &self.root
    }

    /// The timestamp, once there is one.
    pub const fn timestamp(&self) -> Option<&Verified<Timestamp>> {
        self.timestamp.as_ref()
    }

    /// The snapshot, once there is one.
    pub const fn snapshot(&self) -> Option<&Verified<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// The targets, once there are any.
    pub const fn targets(&self) -> Option<&Verified<Targets>> {
        self.targets.as_ref()
    }

    /// Takes the root that follows the trusted one: signed by the keys of both, and one version higher.
    ///
    /// When the keys of the timestamp or the snapshot change, what was seen of them is forgotten: whoever stole such
    /// a key could have signed the highest version there is, and nothing would be newer ever again. The same goes
    /// for the targets and their keys.
    ///
    /// # Errors
    ///
    /// It does not follow, or is not signed as it must be.
    pub fn update_root(&mut self, bytes: Bytes) -> Result<(), Refused> {
        let signed = parse::<Root>(&bytes)?;
        verify(self.root.role(), &signed)?;
        verify(&signed.signed, &signed)?;
        check_root(&signed.signed)?;
        let (trusted, offered) = (version(self.root.role()), version(&signed.signed));
        if trusted.checked_add(1) != Some(offered) {
            return Err(Refused::RootNotConsecutive { trusted, offered });
        }
        let changed = |role| key_ids(self.root.role(), role) != key_ids(&signed.signed, role);
        if changed(RoleType::Timestamp) || changed(RoleType::Snapshot) {
            self.timestamp = None;
            self.snapshot = None;
        }
        if changed(RoleType::Targets) {
            self.targets = None;
        }
        self.root = Verified { bytes, signed };
        Ok(())
    }

    /// Takes a timestamp: signed, not older than the trusted one, pointing to no older snapshot, not expired.
    ///
    /// # Errors
    ///
    /// One of these does not hold, or the root itself has expired.
    pub fn update_timestamp(&mut self, bytes: Bytes, now: Time) -> Result<Step, Refused> {
        fresh(self.root.role(), now)?;
        let new = self.verified::<Timestamp>(bytes)?;
        let meta = snapshot_meta(new.role())?;
        if let Some(old) = &self.timestamp {
            not_older(old.role(), new.role())?;
            let trusted = snapshot_meta(old.role())?.version.get();
            if meta.version.get() < trusted {
                let offered = meta.version.get();
                return Err(Refused::Rollback { role: RoleType::Snapshot, trusted, offered });
            }
            if old.role().version() == new.role().version() {
                // The same version says the same thing. Should it not, the first one stands.
                return Ok(Step::Unchanged);
            }
        }
        fresh(new.role(), now)?;
        self.timestamp = Some(new);
        Ok(Step::Updated)
    }

    /// Which snapshot the timestamp points to, unless that is the trusted one.
    ///
    /// # Errors
    ///
    /// The timestamp points to none.
    pub fn wanted_snapshot(&self) -> Result<Option<&Metafile>, Refused> {
        let Some(timestamp) = &self.timestamp else { return Ok(None) };
        let meta = snapshot_meta(timestamp.role())?;
        let trusted = self.snapshot.as_ref().is_some_and(|snapshot| fits(meta, snapshot).is_ok());
        Ok((!trusted).then_some(meta))
    }

    /// Takes the snapshot that the timestamp points to: its length, hash and version; signed; listing everything
    /// that the trusted one lists, nothing of it older; not expired.
    ///
    /// # Errors
    ///
    /// One of these does not hold.
    pub fn update_snapshot(&mut self, bytes: Bytes, now: Time) -> Result<(), Refused> {
        let timestamp = self.timestamp.as_ref().ok_or_else(|| missing(RoleType::Timestamp, SNAPSHOT_META))?;
        let meta = snapshot_meta(timestamp.role())?;
        same_file(RoleType::Snapshot, meta, &bytes)?;
        let new = self.verified::<Snapshot>(bytes)?;
        fits(meta, &new)?;
        targets_meta(new.role())?;
        if let Some(old) = &self.snapshot {
            not_older(old.role(), new.role())?;
            for (name, trusted) in &old.role().meta {
                let offered = new.role().meta.get(name).ok_or_else(|| missing(RoleType::Snapshot, name))?;
                if offered.version < trusted.version {
                    return Err(Refused::Rollback {
                        role: RoleType::Targets,
                        trusted: trusted.version.get(),
                        offered: offered.version.get(),
                    });
                }
            }
        }
        fresh(new.role(), now)?;
        self.snapshot = Some(new);
        Ok(())
    }

    /// Which targets the snapshot lists, unless these are the trusted ones.
    ///
    /// # Errors
    ///
    /// The snapshot lists none.
    pub fn wanted_targets(&self) -> Result<Option<&Metafile>, Refused> {
        let Some(snapshot) = &self.snapshot else { return Ok(None) };
        let meta = targets_meta(snapshot.role())?;
        let trusted = self.targets.as_ref().is_some_and(|targets| fits(meta, targets).is_ok());
        Ok((!trusted).then_some(meta))
    }

    /// Takes the targets that the snapshot lists: their length, hash and version; signed; not older than the
    /// trusted ones; still with a bundle if there was one; not expired.
    ///
    /// # Errors
    ///
    /// One of these does not hold.
    pub fn update_targets(&mut self, bytes: Bytes, now: Time) -> Result<(), Refused> {
        let snapshot = self.snapshot.as_ref().ok_or_else(|| missing(RoleType::Snapshot, TARGETS_META))?;
        let meta = targets_meta(snapshot.role())?;
        same_file(RoleType::Targets, meta, &bytes)?;
        let new = self.verified::<Targets>(bytes)?;
        fits(meta, &new)?;
        let published = check_targets(new.role())?.is_some();
        if let Some(old) = &self.targets {
            not_older(old.role(), new.role())?;
            if !published && check_targets(old.role())?.is_some() {
                return Err(missing(RoleType::Targets, TARGET_NAME));
            }
        }
        fresh(new.role(), now)?;
        self.targets = Some(new);
        Ok(())
    }

    /// The first of the trusted files to end, and when.
    pub fn expires(&self) -> (RoleType, Time) {
        let of = |role, expires: Option<Time>| expires.map(|expires| (role, expires));
        [
            of(RoleType::Timestamp, self.timestamp.as_ref().map(|file| file.role().expires)),
            of(RoleType::Snapshot, self.snapshot.as_ref().map(|file| file.role().expires)),
            of(RoleType::Targets, self.targets.as_ref().map(|file| file.role().expires)),
        ]
        .into_iter()
        .flatten()
        .fold((RoleType::Root, self.root.role().expires), |first, next| {
            if next.1 < first.1 { next } else { first }
        })
    }

    /// Whether everything that is trusted still holds.
    ///
    /// # Errors
    ///
    /// [`Refused::Expired`], naming the file that ended first.
    pub fn fresh(&self, now: Time) -> Result<(), Refused> {
        let (role, expires) = self.expires();
        if expires <= now { Err(Refused::Expired { role, expires }) } else { Ok(()) }
    }

    /// The publication that the trusted metadata describes, when it is complete and not the empty beginning.
    ///
    /// # Errors
    ///
    /// What the publisher wrote beside the bundle cannot be read.
    pub fn publication(&self) -> Result<Option<Publication>, Refused> {
        if self.timestamp.is_none() || self.wanted_snapshot()?.is_some() || self.wanted_targets()?.is_some() {
            return Ok(None);
        }
        let Some(targets) = &self.targets else { return Ok(None) };
        let Some((target, note)) = check_targets(targets.role())? else { return Ok(None) };
        let bundle_sha256 = hex::encode(&*target.hashes.sha256);
        let (expires_role, expires) = self.expires();
        Ok(Some(Publication {
            serial: note.serial,
            bundle_path: bundle_path(&bundle_sha256),
            bundle_sha256,
            bundle_length: target.length,
            published_at: note.published_at,
            published_by: note.published_by,
            message: note.message,
            rolled_back_to: note.rolled_back_to,
            policy_name: note.policy_name,
            policy_digest: note.policy_digest,
            expires,
            expires_role,
        }))
    }

    /// Reads a file and verifies its signatures against the trusted root.
    fn verified<T: Role + DeserializeOwned>(&self, bytes: Bytes) -> Result<Verified<T>, Refused> {
        let signed = parse::<T>(&bytes)?;
        verify(self.root.role(), &signed)?;
        Ok(Verified { bytes, signed })
    }
}

/// Where a bundle lies: what a client of TUF with consistent snapshots asks for below `targets/`.
pub(super) fn bundle_path(sha256: &str) -> String {
    format!("targets/{sha256}.{TARGET_NAME}")
}

/// The SHA-256 of bytes, in hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The bundle that the targets list and what is said of it; `None` for the empty beginning.
pub(super) fn check_targets(targets: &Targets) -> Result<Option<(&Target, Note)>, Refused> {
    let malformed = |error: String| Refused::Malformed { role: RoleType::Targets, error };
    if targets.targets.is_empty() {
        return Ok(None);
    }
    let (_, target) = targets
        .targets
        .iter()
        .find(|(name, _)| name.raw() == TARGET_NAME)
        .ok_or_else(|| missing(RoleType::Targets, TARGET_NAME))?;
    let fields = target.custom.clone().into_iter().collect();
    let note: Note = serde_json::from_value(serde_json::Value::Object(fields))
        .map_err(|error| malformed(error.to_string()))?;
    let version = targets.version.get();
    if note.serial != version {
        return Err(malformed(format!("it says serial {} in version {version}", note.serial)));
    }
    if target.hashes.sha256.len() != 32 {
        return Err(malformed("the hash of the bundle is no SHA-256".to_owned()));
    }
    Ok(Some((target, note)))
}

// === the checks, one by one ===

pub(super) fn parse<T: Role + DeserializeOwned>(bytes: &[u8]) -> Result<Signed<T>, Refused> {
    serde_json::from_slice(bytes)
        .map_err(|error| Refused::Malformed { role: T::TYPE, error: error.to_string() })
}

/// Enough valid signatures of the keys that `root` names for the role.
pub(super) fn verify<T: Role>(root: &Root, file: &Signed<T>) -> Result<(), Refused> {
    let Err(error) = root.verify_role(file) else { return Ok(()) };
    let SchemaError::SignatureThreshold { threshold, valid, .. } = error else {
        return Err(Refused::Malformed { role: T::TYPE, error: error.to_string() });
    };
    let known = key_ids(root, T::TYPE);
    let stranger = |id: &Vec<u8>| !known.contains(id);
    let signers: Vec<Vec<u8>> = file.signatures.iter().map(|signature| signature.keyid.to_vec()).collect();
    if !signers.is_empty() && signers.iter().all(stranger) {
        let keys = signers.iter().take(4).map(hex::encode).collect();
        return Err(Refused::SwappedKey { role: T::TYPE, keys });
    }
    Err(Refused::WrongSignature { role: T::TYPE, valid, threshold })
}

/// Whether the keys of one root have signed the other, so that both are of one repository.
pub(super) fn vouches(root: &Verified<Root>, other: &Verified<Root>) -> Result<(), Refused> {
    verify(root.role(), &other.signed)
}

fn check_root(root: &Root) -> Result<(), Refused> {
    // Without it, files would be replaced in place, and a reader could catch a mixture.
    if !root.consistent_snapshot {
        let error = "`consistent_snapshot` must be true".to_owned();
        return Err(Refused::Malformed { role: RoleType::Root, error });
    }
    Ok(())
}

pub(super) fn key_ids(root: &Root, role: RoleType) -> BTreeSet<Vec<u8>> {
    let keys = root.roles.get(&role).map(|keys| keys.keyids.iter().map(|id| id.to_vec()).collect());
    keys.unwrap_or_default()
}

fn version(role: &impl Role) -> u64 {
    role.version().get()
}

fn not_older<T: Role>(trusted: &T, offered: &T) -> Result<(), Refused> {
    let (trusted, offered) = (version(trusted), version(offered));
    if offered < trusted { Err(Refused::Rollback { role: T::TYPE, trusted, offered }) } else { Ok(()) }
}

fn fresh<T: Role>(role: &T, now: Time) -> Result<(), Refused> {
    let expires = role.expires();
    if expires <= now { Err(Refused::Expired { role: T::TYPE, expires }) } else { Ok(()) }
}

fn missing(role: RoleType, name: &str) -> Refused {
    Refused::TargetMissing { role, name: name.to_owned() }
}

fn listed<'a>(
    role: RoleType,
    meta: &'a HashMap<String, Metafile>,
    name: &str,
) -> Result<&'a Metafile, Refused> {
    meta.get(name).ok_or_else(|| missing(role, name))
}

/// A timestamp speaks of the snapshot and of nothing else.
fn snapshot_meta(timestamp: &Timestamp) -> Result<&Metafile, Refused> {
    let meta = listed(RoleType::Timestamp, &timestamp.meta, SNAPSHOT_META)?;
    if timestamp.meta.len() > 1 {
        let error = format!("it lists more than `{SNAPSHOT_META}`");
        return Err(Refused::Malformed { role: RoleType::Timestamp, error });
    }
    Ok(meta)
}

fn targets_meta(snapshot: &Snapshot) -> Result<&Metafile, Refused> {
    listed(RoleType::Snapshot, &snapshot.meta, TARGETS_META)
}

/// The bytes are those that were signed for above.
fn same_file(role: RoleType, meta: &Metafile, bytes: &[u8]) -> Result<(), Refused> {
    let length = bytes.len() as u64;
    if let Some(wanted) = meta.length.filter(|wanted| *wanted != length) {
        let (found, wanted) = (length.to_string(), wanted.to_string());
        return Err(Refused::Mixed { role, what: "its length", found, wanted });
    }
    let Some(hashes) = &meta.hashes else { return Ok(()) };
    let (found, wanted) = (sha256(bytes), hex::encode(&*hashes.sha256));
    if found == wanted { Ok(()) } else { Err(Refused::Mixed { role, what: "its hash", found, wanted }) }
}

/// The file is the one that was signed for above, its version included.
fn fits<T: Role>(meta: &Metafile, file: &Verified<T>) -> Result<(), Refused> {
    same_file(T::TYPE, meta, &file.bytes)?;
    let (found, wanted) = (version(file.role()), meta.version.get());
    if found == wanted {
        return Ok(());
    }
    let (found, wanted) = (found.to_string(), wanted.to_string());
    Err(Refused::Mixed { role: T::TYPE, what: "its version", found, wanted })
}

/// The same for a file of an earlier day.
fn fits_or_older<T: Role>(meta: &Metafile, file: &Verified<T>) -> Result<(), Refused> {
    if version(file.role()) < meta.version.get() { Ok(()) } else { fits(meta, file) }
}
