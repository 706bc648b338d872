//! Fetches what [`TrustedState`] asks for, as little as it can: when nothing was published, one conditional request
//! that the server answers without a body.
//!
//! Trust in metadata advances with each file that was verified, whether or not its bundle is fetched or activated
//! afterwards: that a newer version exists is known from then on, and an older one is a rollback. What a sidecar
//! decides by is another matter, and its own.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp as Time};
use tokio::io::AsyncWrite;

use super::store::{Downloaded, Fetched, Store, StoreError};
use super::trust::{Publication, Refused, RoleType, Step, TrustedState, key_ids, vouches};

const TIMESTAMP: &str = "timestamp.json";

/// The most that is read of each file.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A root, in bytes.
    pub root: u64,
    /// The timestamp, in bytes.
    pub timestamp: u64,
    /// A snapshot, in bytes.
    pub snapshot: u64,
    /// Targets, in bytes.
    pub targets: u64,
    /// How many roots are followed in one go.
    pub roots: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { root: 512 << 10, timestamp: 64 << 10, snapshot: 256 << 10, targets: 1 << 20, roots: 256 }
    }
}

/// What a look brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Nothing was published yet.
    Empty,
    /// Everything is as it was.
    Unchanged,
    /// The same publication, signed again: it holds for longer.
    Refreshed(Publication),
    /// Another publication.
    Changed(Publication),
}

/// Why a look brought nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PollError {
    /// What was found is not believed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store cannot be reached.
    #[error(transparent)]
    Store(StoreError),
    /// A file that must be there is not.
    #[error("there is no `{path}` in `{store}`")]
    Missing {
        /// Which store.
        store: String,
        /// Which file.
        path: String,
    },
}

impl From<StoreError> for PollError {
    fn from(error: StoreError) -> Self {
        match error {
            // Too much of it is a reason to distrust it, not a fault of the store.
            StoreError::TooLarge { place, limit } => {
                Self::Refused(Refused::TooLarge { what: place.trim_matches('`').to_owned(), limit })
            }
            other => Self::Store(other),
        }
    }
}

/// An entity tag, and whether another file could still come to have it.
///
/// Web servers commonly make tags of the length and the second of the last change. Two timestamps of one second have
/// one length, so a tag stands for its file only when the file was read once more after that second.
#[derive(Clone, Debug)]
struct Tag {
    etag: String,
    /// When the file was first read.
    since: Time,
    settled: bool,
}

/// After this nothing more is written in the second of the first read, with one to spare for its rounding.
const SETTLES: SignedDuration = SignedDuration::from_secs(2);

/// One repository as one reader sees it.
#[derive(Clone, Debug)]
pub struct Client {
    store: Store,
    /// The root that was handed over, which tells whether what was kept belongs to this repository.
    anchor: Bytes,
    trusted: TrustedState,
    /// The entity tag of the timestamp after which everything was fetched and found good.
    tag: Option<Tag>,
    /// The last publication whose metadata was complete.
    current: Option<Publication>,
    limits: Limits,
}

impl Client {
    /// Begins with the root that the operator trusts.
    ///
    /// # Errors
    ///
    /// The root cannot be read, or is not signed by its own keys.
    pub fn new(store: Store, trusted_root: impl Into<Bytes>, limits: Limits) -> Result<Self, Refused> {
        let anchor = trusted_root.into();
        let trusted = TrustedState::new(anchor.clone())?;
        Ok(Self { store, anchor, trusted, tag: None, current: None, limits })
    }

    /// Begins with what [`persist`](Self::persist) gave, by name, and the root that the operator trusts. Without
    /// any it is [`new`](Self::new). Expiry is not looked at here; see [`TrustedState::expires`].
    ///
    /// # Errors
    ///
    /// What was kept does not verify, or belongs to another repository than the trusted root does.
    pub fn restore(
        store: Store,
        trusted_root: impl Into<Bytes>,
        persisted: impl IntoIterator<Item = (impl AsRef<str>, Vec<u8>)>,
        limits: Limits,
    ) -> Result<Self, Refused> {
        let given = trusted_root.into();
        let (mut anchor, mut root, mut timestamp, mut snapshot, mut targets) = (None, None, None, None, None);
        for (name, bytes) in persisted {
            let place = match name.as_ref() {
                "anchor.json" => &mut anchor,
                "root.json" => &mut root,
                "timestamp.json" => &mut timestamp,
                "snapshot.json" => &mut snapshot,
                "targets.json" => &mut targets,
                _ => continue,
            };
            *place = Some(Bytes::from(bytes));
        }
        if let Some(kept) = &root {
            // A newer root that the operator handed over may end a key, and with it what was seen by that key.
            let lost = keys_lost(kept, &given)?;
            if lost.timestamp_or_snapshot {
                (timestamp, snapshot) = (None, None);
            }
            if lost.targets {
                targets = None;
            }
        }
        let root = newest_root(&given, anchor.as_ref(), root)?;
        let trusted = TrustedState::restore(root, timestamp, snapshot, targets)?;
        let current = trusted.publication()?;
        Ok(Self { store, anchor: given, trusted, tag: None, current, limits })
    }

    /// What is to be kept on disk so that [`restore`](Self::restore) knows what was seen: names and bytes. They are
    /// to be replaced together; a timestamp beside a root that no longer knows its key does not verify.
    pub fn persist(&self) -> Vec<(&'static str, Vec<u8>)> {
        let mut files =
            vec![("anchor.json", self.anchor.to_vec()), ("root.json", self.trusted.root().bytes().to_vec())];
        files.extend(self.trusted.timestamp().map(|file| ("timestamp.json", file.bytes().to_vec())));
        files.extend(self.trusted.snapshot().map(|file| ("snapshot.json", file.bytes().to_vec())));
        files.extend(self.trusted.targets().map(|file| ("targets.json", file.bytes().to_vec())));
        files
    }

    /// The last publication that was verified.
    pub const fn current(&self) -> Option<&Publication> {
        self.current.as_ref()
    }

    /// What is trusted.
    pub const fn trusted(&self) -> &TrustedState {
        &self.trusted
    }

    /// Where it looks.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The entity tag of the timestamp, for a publisher that replaces it.
    pub(super) fn timestamp_etag(&self) -> Option<&str> {
        self.tag.as_ref().map(|tag| tag.etag.as_str())
    }

    /// What to ask with: nothing while the tag may come to stand for another file.
    fn settled_etag(&self) -> Option<&str> {
        self.tag.as_ref().filter(|tag| tag.settled).map(|tag| tag.etag.as_str())
    }

    /// The tag of the known timestamp, which was read once more.
    fn tagged(&self, etag: String, now: Time) -> Tag {
        match &self.tag {
            // A clock that was set back begins anew.
            Some(tag) if tag.etag == etag && now >= tag.since => Tag {
                etag,
                since: tag.since,
                settled: tag.settled || now.duration_since(tag.since) >= SETTLES,
            },
            _ => Tag { etag, since: now, settled: self.store.tags_tell_all() },
        }
    }

    /// Looks once. A change is told once: whoever cannot fetch or use its bundle keeps it in mind and tries again,
    /// with [`current`](Self::current).
    ///
    /// # Errors
    ///
    /// The store cannot be reached, or what is there is refused. What was trusted before still is, and the next
    /// look goes on from there.
    pub async fn poll(&mut self, now: Time) -> Result<Poll, PollError> {
        let mut fetched = self.fetch_timestamp(self.settled_etag()).await?;
        if fetched.is_none() && self.trusted.fresh(now).is_ok() {
            return Ok(Poll::Unchanged);
        }
        // Read whole for the sake of its tag, and still the one after which everything was found good.
        if let (Some((bytes, Some(etag))), Some(_)) = (&fetched, &self.tag)
            && self.trusted.timestamp().is_some_and(|kept| kept.bytes() == bytes)
            && self.trusted.fresh(now).is_ok()
        {
            self.tag = Some(self.tagged(etag.clone(), now));
            return Ok(Poll::Unchanged);
        }
        // Either there is news, or what there is has expired: only a new root could mend that without news.
        if self.update_roots().await? || fetched.is_none() {
            // What was fetched before the root may be signed with the keys of yesterday.
            self.tag = None;
            fetched = self.fetch_timestamp(None).await?;
        }
        let Some((bytes, etag)) = fetched else { return Ok(Poll::Unchanged) };
        let step = self.trusted.update_timestamp(bytes, now)?;
        if let Some((version, cap)) = wanted(self.trusted.wanted_snapshot()?, self.limits.snapshot) {
            let bytes = self.fetch(RoleType::Snapshot, &format!("{version}.snapshot.json"), cap).await?;
            self.trusted.update_snapshot(bytes, now)?;
        }
        if let Some((version, cap)) = wanted(self.trusted.wanted_targets()?, self.limits.targets) {
            let bytes = self.fetch(RoleType::Targets, &format!("{version}.targets.json"), cap).await?;
            self.trusted.update_targets(bytes, now)?;
        }
        // What was seen before was fresh then.
        self.trusted.fresh(now)?;
        // Only now: a look that fails half way must not find everything unchanged the next time.
        self.tag = etag.map(|etag| Tag { etag, since: now, settled: self.store.tags_tell_all() });
        let before = std::mem::replace(&mut self.current, self.trusted.publication()?);
        Ok(match (&before, &self.current) {
            (_, None) => Poll::Empty,
            (Some(before), Some(now)) if same(before, now) => match step {
                Step::Unchanged => Poll::Unchanged,
                Step::Updated => Poll::Refreshed(now.clone()),
            },
            (_, Some(now)) => Poll::Changed(now.clone()),
        })
    }

    /// Fetches the bundle of a publication. What was written to `to` is to be thrown away unless this succeeds.
    ///
    /// # Errors
    ///
    /// It is larger than `max_bytes` (which is told before anything is read), not there, or not the one that was
    /// signed.
    pub async fn download_bundle(
        &self,
        publication: &Publication,
        max_bytes: u64,
        to: &mut (dyn AsyncWrite + Unpin + Send),
    ) -> Result<(), PollError> {
        let Publication { bundle_path: path, bundle_length: length, bundle_sha256: sha256, .. } = publication;
        if *length > max_bytes {
            let refused = Refused::TooLarge { what: path.clone(), limit: max_bytes };
            return Err(refused.into());
        }
        let (what, found, wanted) = match self.store.download(path, *length, sha256, to).await? {
            Downloaded::Done => return Ok(()),
            Downloaded::NotFound => return Err(self.missing(path)),
            Downloaded::WrongLength { found } => ("its length", found.to_string(), length.to_string()),
            Downloaded::WrongHash { found } => ("its hash", found, sha256.clone()),
        };
        Err(Refused::Corrupted { what, found, wanted }.into())
    }

    /// Follows the chain of roots to its end; whether there was one.
    pub(super) async fn update_roots(&mut self) -> Result<bool, PollError> {
        for followed in 0..self.limits.roots {
            let next = self.trusted.root().role().version.get().saturating_add(1);
            let path = format!("{next}.root.json");
            match self.store.get(&path, self.limits.root, None).await {
                Ok(Fetched::Found { bytes, .. }) => self.trusted.update_root(bytes)?,
                Ok(Fetched::NotFound | Fetched::NotModified) => return Ok(followed > 0),
                // A bucket that may not be listed says so of every file that does not exist.
                Err(StoreError::Unavailable { forbidden: true, .. }) => return Ok(followed > 0),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Reads the timestamp; `None` when it is the one of the entity tag.
    async fn fetch_timestamp(
        &self,
        etag: Option<&str>,
    ) -> Result<Option<(Bytes, Option<String>)>, PollError> {
        match self.store.get(TIMESTAMP, self.limits.timestamp, etag).await? {
            Fetched::NotModified => Ok(None),
            Fetched::NotFound => Err(self.missing(TIMESTAMP)),
            Fetched::Found { bytes, etag } => Ok(Some((bytes, etag))),
        }
    }

    async fn fetch(&self, role: RoleType, path: &str, cap: Cap) -> Result<Bytes, PollError> {
        match self.store.get(path, cap.bytes, None).await {
            Ok(Fetched::Found { bytes, .. }) => Ok(bytes),
            Ok(Fetched::NotFound | Fetched::NotModified) => Err(self.missing(path)),
            // It is longer than what was signed for, so it is another file.
            Err(StoreError::TooLarge { limit, .. }) if cap.signed => Err(Refused::Mixed {
                role,
                what: "its length",
                found: format!("more than {limit}"),
                wanted: limit.to_string(),
            }
            .into()),
            Err(error) => Err(error.into()),
        }
    }

    fn missing(&self, path: &str) -> PollError {
        PollError::Missing { store: self.store.to_string(), path: path.to_owned() }
    }
}

/// The most that is read of a file, and whether that is the length that was signed for.
#[derive(Clone, Copy)]
struct Cap {
    bytes: u64,
    signed: bool,
}

fn wanted(meta: Option<&tough::schema::Metafile>, limit: u64) -> Option<(u64, Cap)> {
    meta.map(|meta| {
        let bytes = meta.length.unwrap_or(limit).min(limit);
        (meta.version.get(), Cap { bytes, signed: meta.length == Some(bytes) })
    })
}

/// The same content under the same number.
fn same(before: &Publication, now: &Publication) -> bool {
    before.serial == now.serial && before.bundle_sha256 == now.bundle_sha256
}

/// Which root to begin with: the one that the operator gave, or the one that was kept, if a chain led to it from
/// there.
fn newest_root(given: &Bytes, anchor: Option<&Bytes>, kept: Option<Bytes>) -> Result<Bytes, Refused> {
    let Some(kept) = kept else { return Ok(given.clone()) };
    let ours = TrustedState::new(given.clone())?;
    let theirs = TrustedState::new(kept.clone())?;
    let (our_version, their_version) = (ours.root().role().version, theirs.root().role().version);
    if anchor == Some(given) || *given == kept {
        return Ok(if their_version >= our_version { kept } else { given.clone() });
    }
    // The operator gave another root than last time: a newer one of the same repository, or that of another one.
    if our_version > their_version {
        return Ok(given.clone());
    }
    vouches(ours.root(), theirs.root())?;
    Ok(kept)
}

/// Which keys a root ends that was handed over after another one was kept.
#[derive(Clone, Copy)]
struct Lost {
    timestamp_or_snapshot: bool,
    targets: bool,
}

fn keys_lost(kept: &Bytes, given: &Bytes) -> Result<Lost, Refused> {
    let (kept, given) = (TrustedState::new(kept.clone())?, TrustedState::new(given.clone())?);
    let (kept, given) = (kept.root().role(), given.root().role());
    let changed = |role| given.version > kept.version && key_ids(kept, role) != key_ids(given, role);
    Ok(Lost {
        timestamp_or_snapshot: changed(RoleType::Timestamp) || changed(RoleType::Snapshot),
        targets: changed(RoleType::Targets),
    })
}
