//! Writes a repository. Whatever is built upon was verified first, by the same client that readers have.
//!
//! The order of writes is what makes it atomic. The bundle and the numbered metadata are put where nothing was
//! before, and no reader looks at them yet; the targets of the next number can be put only once, so of two publishers
//! one loses there and is told. The timestamp is replaced last and all at once. A publisher that dies on the way
//! leaves files that nothing refers to, and a number that is taken.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::path::PathBuf;

use aws_lc_rs::rand::SystemRandom;
use bytes::Bytes;
use jiff::Timestamp as Time;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tough::TargetName;
use tough::editor::signed::SignedRole;
use tough::schema::{
    Hashes, KeyHolder, Metafile, Role, RoleKeys, RoleType, Root, Snapshot, Target, Targets, Timestamp,
};

use super::client::{Client, Limits, PollError};
use super::keys::{KeyError, Keys, ROLES};
use super::lifetime::{Lifetime, Lifetimes};
use super::store::{Downloaded, Fetched, Put, Store, StoreError};
use super::trust::{
    self, Note, Previous, Publication, Refused, SNAPSHOT_META, TARGET_NAME, TARGETS_META, TrustedState,
    Verified,
};

const SPEC_VERSION: &str = "1.0.0";
const TOOL: &str = concat!("postern ", env!("CARGO_PKG_VERSION"));
const TIMESTAMP: &str = "timestamp.json";
/// How many numbers that dead publishers took are passed over.
const MOST_TAKEN: u64 = 1000;
/// A number that no honest publisher reaches. A thief may have signed a higher one; see [`Repository::rotate_key`].
const IMPLAUSIBLE: u64 = 1 << 40;
/// How often a timestamp that somebody else replaced is tried again.
const TRIES: u32 = 8;
/// A machine that renews the timestamp and has the key of the snapshot renews that, too, this long before its end.
const SNAPSHOT_LEFT_DAYS: i32 = 30;

/// A repository as its publisher sees it.
#[derive(Debug)]
pub struct Repository {
    store: Store,
    keys: Keys,
    client: Client,
    base: Base,
}

/// What the next metadata is built upon.
#[derive(Clone, Debug)]
struct Base {
    snapshot: Verified<Snapshot>,
    targets: Verified<Targets>,
    timestamp: u64,
    etag: Option<String>,
}

/// What a publisher says of a bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The name of the policy.
    pub policy_name: String,
    /// The digest of the compiled policy.
    pub policy_digest: String,
    /// Why it is published.
    pub message: String,
    /// Who publishes it.
    pub by: String,
}

/// How something is published.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How long the metadata holds.
    pub lifetimes: Lifetimes,
    /// Publish even what is published already.
    pub force: bool,
    /// Pass over numbers that a publisher took and never finished.
    pub take_over: bool,
}

/// What was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The publication, as readers see it.
    pub publication: Publication,
    /// The numbers that were passed over.
    pub passed_over: Vec<u64>,
}

/// What was renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The version of the timestamp.
    pub timestamp: u64,
    /// When it ends.
    pub expires: Time,
    /// The version of the snapshot, if it was renewed, too.
    pub snapshot: Option<u64>,
}

/// A key that was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    /// The version of the root that says so.
    pub root: u64,
    /// The file of the new key.
    pub key: PathBuf,
    /// Keys that no role needs any more, put aside.
    pub retired: Vec<PathBuf>,
    /// The serial, if the targets were signed again.
    pub serial: Option<u64>,
}

/// Whether to trust the timestamp that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recover {
    /// Yes, as every reader does.
    No,
    /// No: somebody else may have its key, or a rotation was cut short. The newest snapshot that verifies counts.
    Yes,
}

/// One role of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleStatus {
    /// Which role.
    pub role: RoleType,
    /// The version of its metadata.
    pub version: u64,
    /// When that ends.
    pub expires: Time,
    /// How many keys must sign it.
    pub threshold: u64,
    /// The ids of its keys.
    pub key_ids: Vec<String>,
    /// Whether the directory of keys has one of them.
    pub can_sign: bool,
}

/// How a repository stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The current publication, if something was published.
    pub publication: Option<Publication>,
    /// Its four roles.
    pub roles: Vec<RoleStatus>,
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// What is there cannot be read or is not believed.
    #[error(transparent)]
    Poll(#[from] PollError),
    /// The store cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key is missing.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Nothing could be signed.
    #[error("cannot sign: {0}")]
    Sign(String),
    /// Somebody else was faster.
    #[error(
        "{by} has published {what} {number} meanwhile, at {at}; look at it with `postern repo history`, then \
         publish again"
    )]
    Conflict {
        /// What: a serial, a root.
        what: &'static str,
        /// Its number.
        number: u64,
        /// Who.
        by: String,
        /// When.
        at: String,
    },
    /// Somebody else has begun and not finished.
    #[error(
        "serial {serial} was taken by {by} at {at} ({age} ago), and is not published: they are at it, or died; wait \
         and try again, or pass over it with `--take-over`"
    )]
    Taken {
        /// The number.
        serial: u64,
        /// Who.
        by: String,
        /// When.
        at: String,
        /// How long ago.
        age: String,
    },
    /// It is published already.
    #[error("serial {serial} has the same bundle; publish it again, with a new expiry, with `--force`")]
    Same {
        /// The number.
        serial: u64,
    },
    /// There is a repository already.
    #[error("there is a repository in `{store}` already; choose another place")]
    Exists {
        /// Where.
        store: String,
    },
    /// Nothing was published yet.
    #[error("nothing was published yet; begin with `postern publish`")]
    Nothing,
    /// A publication cannot be found.
    #[error("there is no publication {serial}; `postern repo history` lists them")]
    NoSuchSerial {
        /// The number.
        serial: u64,
    },
    /// A bundle in the store is not what its name says.
    #[error("`{path}` in the store is damaged: {why}; remove it and publish again")]
    Damaged {
        /// Which file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The numbers or the calendar are at their end.
    #[error("{0} is at its end")]
    Exhausted(&'static str),
    /// Nothing in the store verifies.
    #[error("no snapshot in `{store}` verifies under the trusted root")]
    Beyond {
        /// Where.
        store: String,
    },
}

impl PublishError {
    /// A short name that does not change, for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Poll(PollError::Refused(refused)) => refused.code(),
            Self::Poll(PollError::Store(_)) | Self::Store(_) => "UNREACHABLE",
            Self::Poll(PollError::Missing { .. }) => "NO_REPOSITORY",
            Self::Key(_) => "KEY",
            Self::Sign(_) => "SIGN",
            Self::Conflict { .. } | Self::Taken { .. } => "CONFLICT",
            Self::Same { .. } => "UNCHANGED",
            Self::Exists { .. } => "EXISTS",
            Self::Nothing | Self::NoSuchSerial { .. } => "NOT_FOUND",
            Self::Damaged { .. } => "DAMAGED",
            Self::Exhausted(_) => "EXHAUSTED",
            Self::Beyond { .. } => "BEYOND_RECOVERY",
        }
    }
}

impl From<Refused> for PublishError {
    fn from(refused: Refused) -> Self {
        Self::Poll(refused.into())
    }
}

impl Repository {
    /// Begins a repository: root, empty targets, snapshot and timestamp, each of version 1.
    ///
    /// # Errors
    ///
    /// There is one already, or the store cannot be written.
    pub async fn init(
        store: Store,
        keys: Keys,
        lifetimes: Lifetimes,
        now: Time,
    ) -> Result<Self, PublishError> {
        let root = first_root(&keys, lifetimes, now)?;
        let signed = sign(&keys, &root, root.clone()).await?;
        keys.set_root(signed.buffer())?;
        if put_new(&store, "1.root.json", &signed).await? == Put::Lost {
            return Err(PublishError::Exists { store: store.to_string() });
        }
        let one = NonZeroU64::MIN;
        let mut targets = Targets::new(SPEC_VERSION.to_owned(), one, end(lifetimes.targets, now)?);
        targets.delegations = None;
        let targets = sign(&keys, &root, targets).await?;
        let mut snapshot = Snapshot::new(SPEC_VERSION.to_owned(), one, end(lifetimes.snapshot, now)?);
        snapshot.meta.insert(TARGETS_META.to_owned(), meta_of(&targets));
        let snapshot = sign(&keys, &root, snapshot).await?;
        let timestamp = sign(&keys, &root, timestamp_of(one, &meta_of(&snapshot), lifetimes, now)?).await?;
        put_new(&store, "1.targets.json", &targets).await?;
        put_new(&store, "1.snapshot.json", &snapshot).await?;
        put_new(&store, TIMESTAMP, &timestamp).await?;
        Self::open(store, keys, Recover::No).await
    }

    /// Opens a repository to publish to it: reads and verifies everything, from the root that lies with the keys on.
    /// Expiry is not looked at, because renewing what has expired is a publisher's business.
    ///
    /// # Errors
    ///
    /// There is none, or it is not believed.
    pub async fn open(store: Store, keys: Keys, recover: Recover) -> Result<Self, PublishError> {
        let mut client = Client::new(store.clone(), keys.root()?, Limits::default())?;
        let base = load(&store, &mut client, recover).await?;
        Ok(Self { store, keys, client, base })
    }

    /// The keys.
    pub const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The store.
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The targets of the current publication.
    pub(super) const fn targets(&self) -> &Verified<Targets> {
        &self.base.targets
    }

    /// How it stands.
    ///
    /// # Errors
    ///
    /// What the publisher wrote cannot be read.
    pub fn status(&self) -> Result<Status, PublishError> {
        let root = self.root();
        let timestamp = self.client.trusted().timestamp().map(Verified::role);
        let of = |role| match role {
            RoleType::Root => Some((root.version, root.expires)),
            RoleType::Targets => {
                let targets = self.base.targets.role();
                Some((targets.version, targets.expires))
            }
            RoleType::Snapshot => {
                let snapshot = self.base.snapshot.role();
                Some((snapshot.version, snapshot.expires))
            }
            _ => timestamp.map(|timestamp| (timestamp.version, timestamp.expires)),
        };
        let roles = ROLES.into_iter().filter_map(|role| {
            let (version, expires) = of(role)?;
            Some(RoleStatus {
                role,
                version: version.get(),
                expires,
                threshold: root.roles.get(&role).map_or(0, |keys| keys.threshold.get()),
                key_ids: trust::key_ids(root, role).iter().map(hex::encode).collect(),
                can_sign: self.keys.has(root, role),
            })
        });
        Ok(Status { roles: roles.collect(), publication: self.client.trusted().publication()? })
    }

    /// Publishes a bundle.
    ///
    /// # Errors
    ///
    /// Somebody else was faster, the bundle is published already, a key is missing, or the store fails.
    pub async fn publish(
        &mut self,
        bytes: Bytes,
        about: About,
        options: Options,
        now: Time,
    ) -> Result<Published, PublishError> {
        self.reload().await?;
        let sha256 = trust::sha256(&bytes);
        if let Some(current) = self.client.trusted().publication()?
            && current.bundle_sha256 == sha256
            && !options.force
        {
            return Err(PublishError::Same { serial: current.serial });
        }
        self.need_for_targets()?;
        let length = bytes.len() as u64;
        let path = trust::bundle_path(&sha256);
        if self.store.put_if_absent(&path, bytes).await? == Put::Lost {
            self.check_bundle(&path, length, &sha256).await?;
        }
        let target = target(length, &sha256)?;
        self.publish_target(target, about, None, options, now).await
    }

    /// Publishes the content of an earlier serial again, as a new publication.
    ///
    /// # Errors
    ///
    /// There is no such serial, its bundle is gone, or the publication fails as [`publish`](Self::publish) does.
    pub async fn rollback(
        &mut self,
        serial: u64,
        about: About,
        options: Options,
        now: Time,
    ) -> Result<Published, PublishError> {
        self.reload().await?;
        self.need_for_targets()?;
        let found = self.find(serial).await?.ok_or(PublishError::NoSuchSerial { serial })?;
        let current = self.client.trusted().publication()?;
        if current.is_some_and(|current| current.bundle_sha256 == found.bundle_sha256) && !options.force {
            return Err(PublishError::Same { serial });
        }
        let path = trust::bundle_path(&found.bundle_sha256);
        self.check_bundle(&path, found.bundle_length, &found.bundle_sha256).await?;
        let target = target(found.bundle_length, &found.bundle_sha256)?;
        let about = About { policy_name: found.policy_name, policy_digest: found.policy_digest, ..about };
        self.publish_target(target, about, Some(serial), options, now).await
    }

    /// Signs a new timestamp, so that what is published holds for longer; and the snapshot, when it ends within a
    /// month and its key is at hand.
    ///
    /// # Errors
    ///
    /// The key of the timestamp is missing, or the store fails.
    pub async fn refresh(
        &mut self,
        lifetimes: Lifetimes,
        recover: Recover,
        now: Time,
    ) -> Result<Renewed, PublishError> {
        let guard = self.store.lock().await?;
        for _try in 0..TRIES {
            if recover == Recover::No {
                self.reload().await?;
            }
            let root = self.root().clone();
            self.keys.need(&root, RoleType::Timestamp)?;
            let soon = end(Lifetime::days(SNAPSHOT_LEFT_DAYS), now)?;
            let ends = self.base.snapshot.role().expires <= soon;
            let (meta, snapshot) = if ends && self.keys.has(&root, RoleType::Snapshot) {
                let targets = file_meta(&self.base.targets);
                let meta = self.write_snapshot(&root, targets, lifetimes, now).await?;
                let version = meta.version.get();
                (meta, Some(version))
            } else {
                (file_meta(&self.base.snapshot), None)
            };
            let version = next(self.last_timestamp(recover, now), "the version of the timestamp")?;
            let signed = sign(&self.keys, &root, timestamp_of(version, &meta, lifetimes, now)?).await?;
            let bytes = Bytes::from(signed.buffer().clone());
            if self.store.put(TIMESTAMP, bytes, self.base.etag.as_deref()).await? == Put::Done {
                drop(guard);
                let expires = signed.signed().signed.expires;
                return Ok(Renewed { timestamp: version.get(), expires, snapshot });
            }
        }
        Err(self.conflict("timestamp", self.base.timestamp.saturating_add(1)))
    }

    /// Replaces the key of a role by a new one: a new root, signed with the old and the new keys of the root, and
    /// everything that the role has signed, signed again.
    ///
    /// Readers forget the numbers of the timestamp and the snapshot with their keys. So a number that only a thief can
    /// have signed is not counted on from: there would be none left.
    ///
    /// # Errors
    ///
    /// A key is missing, or the store fails.
    pub async fn rotate_key(
        &mut self,
        role: RoleType,
        by: &str,
        lifetimes: Lifetimes,
        recover: Recover,
        now: Time,
    ) -> Result<Rotated, PublishError> {
        let guard = self.store.lock().await?;
        if recover == Recover::No {
            self.reload().await?;
        }
        let old = self.root().clone();
        self.keys.need(&old, RoleType::Root)?;
        for needed in below(role) {
            self.keys.need(&old, *needed)?;
        }
        let version = next(old.version.get(), "the version of the root")?;
        let (key, public) = self.keys.generate(&format!("{role}.{version}"))?;
        let mut root = old.clone();
        root.version = version;
        root.expires = end(lifetimes.root, now)?;
        replace_key(&mut root, role, public)?;
        let new_keys = sign(&self.keys, &root, root.clone()).await?;
        let old_keys = sign(&self.keys, &old, root.clone()).await?;
        let signed = new_keys
            .add_old_signatures(old_keys.signed().signatures.clone())
            .map_err(|error| PublishError::Sign(error.to_string()))?;

        if matches!(role, RoleType::Timestamp | RoleType::Snapshot) && self.base.timestamp > IMPLAUSIBLE {
            self.base.timestamp = 0;
        }
        // What the new keys sign comes first: as long as nothing refers to it, nobody looks.
        let mut serial = None;
        let mut targets = file_meta(&self.base.targets);
        if role == RoleType::Targets {
            let (number, meta) = self.resign_targets(&root, by, lifetimes, now).await?;
            (serial, targets) = (Some(number), meta);
        }
        let snapshot = match role {
            RoleType::Targets | RoleType::Snapshot => {
                Some(self.write_snapshot(&root, targets, lifetimes, now).await?)
            }
            RoleType::Timestamp => Some(file_meta(&self.base.snapshot)),
            _ => None,
        };
        let timestamp = match snapshot {
            Some(meta) => {
                let version = next(self.last_timestamp(recover, now), "the version of the timestamp")?;
                Some(sign(&self.keys, &root, timestamp_of(version, &meta, lifetimes, now)?).await?)
            }
            None => None,
        };
        let name = format!("{version}.root.json");
        if put_new(&self.store, &name, &signed).await? == Put::Lost {
            return Err(self.conflict("root", version.get()));
        }
        if let Some(signed) = timestamp {
            let version = signed.signed().signed.version.get();
            let bytes = Bytes::from(signed.buffer().clone());
            if self.store.put(TIMESTAMP, bytes, self.base.etag.as_deref()).await? == Put::Lost {
                // Somebody has published or renewed meanwhile. What of it fits the new root is not to be lost.
                self.base = recovered(&self.store, &mut self.client).await?;
                let version = next(self.base.timestamp.max(version), "the version of the timestamp")?;
                let timestamp = timestamp_of(version, &file_meta(&self.base.snapshot), lifetimes, now)?;
                let signed = sign(&self.keys, &root, timestamp).await?;
                self.store.put(TIMESTAMP, Bytes::from(signed.buffer().clone()), None).await?;
            }
        }
        drop(guard);
        self.keys.set_root(signed.buffer())?;
        let retired = self.keys.retire(&root)?;
        self.reload().await?;
        Ok(Rotated { root: version.get(), key, retired, serial })
    }

    // === the steps ===

    pub(super) fn root(&self) -> &Root {
        self.client.trusted().root().role()
    }

    fn need_for_targets(&self) -> Result<(), PublishError> {
        for role in [RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp] {
            self.keys.need(self.root(), role)?;
        }
        Ok(())
    }

    pub(super) async fn reload(&mut self) -> Result<(), PublishError> {
        self.base = load(&self.store, &mut self.client, Recover::No).await?;
        Ok(())
    }

    /// From the lock to the timestamp.
    async fn publish_target(
        &mut self,
        target: Target,
        about: About,
        rolled_back_to: Option<u64>,
        options: Options,
        now: Time,
    ) -> Result<Published, PublishError> {
        let root = self.root().clone();
        let built_on = self.base.targets.bytes().clone();
        let mut serial = self.base.targets.role().version;
        let mut passed_over = Vec::new();
        let targets = loop {
            serial = next(serial.get(), "the serial")?;
            let note = Note {
                serial: serial.get(),
                published_at: now,
                published_by: about.by.clone(),
                message: about.message.clone(),
                rolled_back_to,
                policy_name: about.policy_name.clone(),
                policy_digest: about.policy_digest.clone(),
                tool: TOOL.to_owned(),
                previous: Some(self.previous()),
            };
            let targets = targets(serial, Some((target.clone(), note)), options.lifetimes, now)?;
            let targets = sign(&self.keys, &root, targets).await?;
            if put_new(&self.store, &format!("{serial}.targets.json"), &targets).await? == Put::Done {
                break targets;
            }
            self.taken(serial.get(), options.take_over, now).await?;
            passed_over.push(serial.get());
            if passed_over.len() as u64 > MOST_TAKEN {
                return Err(PublishError::Exhausted("the patience with numbers that were taken"));
            }
        };
        let guard = self.store.lock().await?;
        let mut snapshot: Option<Metafile> = None;
        for _try in 0..TRIES {
            self.reload().await?;
            if *self.base.targets.bytes() != built_on {
                return Err(self.conflict("serial", self.base.targets.role().version.get()));
            }
            if self.root().version != root.version {
                return Err(self.conflict("root", self.root().version.get()));
            }
            // The snapshot may have been renewed meanwhile; ours must be the later one.
            let current = self.base.snapshot.role().version;
            let meta = match snapshot.take().filter(|meta| meta.version > current) {
                Some(meta) => meta,
                None => self.write_snapshot(&root, meta_of(&targets), options.lifetimes, now).await?,
            };
            let version = next(self.base.timestamp, "the version of the timestamp")?;
            let signed =
                sign(&self.keys, &root, timestamp_of(version, &meta, options.lifetimes, now)?).await?;
            let bytes = Bytes::from(signed.buffer().clone());
            if self.store.put(TIMESTAMP, bytes, self.base.etag.as_deref()).await? == Put::Done {
                drop(guard);
                self.reload().await?;
                let publication = self.client.trusted().publication()?.ok_or(PublishError::Nothing)?;
                return Ok(Published { publication, passed_over });
            }
            snapshot = Some(meta);
        }
        Err(self.conflict("serial", serial.get()))
    }

    /// The number that the next timestamp must be higher than. When the one that is there does not count, nobody knows
    /// what readers have seen; the seconds since 1970 are more than any that were counted one by one.
    fn last_timestamp(&self, recover: Recover, now: Time) -> u64 {
        match recover {
            Recover::No => self.base.timestamp,
            Recover::Yes => self.base.timestamp.max(u64::try_from(now.as_second()).unwrap_or(0)),
        }
    }

    /// Signs a snapshot and puts it under the next number that is free. A number is no lock here: what counts is the
    /// snapshot that the timestamp names.
    async fn write_snapshot(
        &self,
        root: &Root,
        targets: Metafile,
        lifetimes: Lifetimes,
        now: Time,
    ) -> Result<Metafile, PublishError> {
        let mut version = self.base.snapshot.role().version.get();
        if version > IMPLAUSIBLE
            && trust::key_ids(root, RoleType::Snapshot) != trust::key_ids(self.root(), RoleType::Snapshot)
        {
            version = 0;
        }
        for _taken in 0..MOST_TAKEN {
            let number = next(version, "the version of the snapshot")?;
            version = number.get();
            let expires = end(lifetimes.snapshot, now)?;
            let mut snapshot = Snapshot::new(SPEC_VERSION.to_owned(), number, expires);
            snapshot.meta.insert(TARGETS_META.to_owned(), targets.clone());
            let signed = sign(&self.keys, root, snapshot).await?;
            if put_new(&self.store, &format!("{version}.snapshot.json"), &signed).await? == Put::Done {
                return Ok(meta_of(&signed));
            }
        }
        Err(PublishError::Exhausted("the patience with numbers that were taken"))
    }

    /// Signs the current targets with a new key, under the next serial that is free.
    async fn resign_targets(
        &self,
        root: &Root,
        by: &str,
        lifetimes: Lifetimes,
        now: Time,
    ) -> Result<(u64, Metafile), PublishError> {
        let current = trust::check_targets(self.base.targets.role())?;
        let mut serial = self.base.targets.role().version;
        for _taken in 0..MOST_TAKEN {
            serial = next(serial.get(), "the serial")?;
            let content = current.as_ref().map(|(target, note)| {
                let note = Note {
                    serial: serial.get(),
                    published_at: now,
                    published_by: by.to_owned(),
                    message: "the key of targets was replaced".to_owned(),
                    rolled_back_to: None,
                    tool: TOOL.to_owned(),
                    previous: Some(self.previous()),
                    ..note.clone()
                };
                ((*target).clone(), note)
            });
            let signed = sign(&self.keys, root, targets(serial, content, lifetimes, now)?).await?;
            if put_new(&self.store, &format!("{serial}.targets.json"), &signed).await? == Put::Done {
                return Ok((serial.get(), meta_of(&signed)));
            }
        }
        Err(PublishError::Exhausted("the patience with numbers that were taken"))
    }

    fn previous(&self) -> Previous {
        let targets = &self.base.targets;
        Previous { serial: targets.role().version.get(), sha256: trust::sha256(targets.bytes()) }
    }

    /// The number of a publication exists already: whether somebody was faster, or began and did not finish.
    async fn taken(&mut self, serial: u64, take_over: bool, now: Time) -> Result<(), PublishError> {
        self.reload().await?;
        if self.base.targets.role().version.get() >= serial {
            return Err(self.conflict("serial", self.base.targets.role().version.get()));
        }
        if take_over {
            return Ok(());
        }
        let (by, at) = match self.store.get(&format!("{serial}.targets.json"), 1 << 20, None).await? {
            Fetched::Found { bytes, .. } => who(self.root(), &bytes),
            Fetched::NotFound | Fetched::NotModified => None,
        }
        .map_or_else(|| ("somebody".to_owned(), None), |(by, at)| (by, Some(at)));
        let age = at.map(|at| format!("{:#}", rounded(now.duration_since(at))));
        let unknown = || "an unknown time".to_owned();
        Err(PublishError::Taken {
            serial,
            by,
            at: at.map_or_else(unknown, |at| at.to_string()),
            age: age.unwrap_or_else(unknown),
        })
    }

    fn conflict(&self, what: &'static str, number: u64) -> PublishError {
        let note = trust::check_targets(self.base.targets.role()).ok().flatten().map(|(_, note)| note);
        let (by, at) = match note {
            Some(note) if what == "serial" && note.serial == number => {
                (note.published_by, note.published_at.to_string())
            }
            _ => ("somebody".to_owned(), "an unknown time".to_owned()),
        };
        PublishError::Conflict { what, number, by, at }
    }

    /// What lies under the name of a bundle is that bundle.
    async fn check_bundle(&self, path: &str, length: u64, sha256: &str) -> Result<(), PublishError> {
        let why = match self.store.download(path, length, sha256, &mut tokio::io::sink()).await? {
            Downloaded::Done => return Ok(()),
            Downloaded::NotFound => "it does not exist".to_owned(),
            Downloaded::WrongLength { found } => format!("it has {found} bytes and not {length}"),
            Downloaded::WrongHash { found } => format!("its SHA-256 is {found}"),
        };
        Err(PublishError::Damaged { path: path.to_owned(), why })
    }
}

/// Reads and verifies what the next metadata is built upon.
async fn load(store: &Store, client: &mut Client, recover: Recover) -> Result<Base, PublishError> {
    if recover == Recover::Yes {
        return recovered(store, client).await;
    }
    // Nothing has expired at the beginning of time; `Repository::open` says why.
    client.poll(Time::MIN).await?;
    let trusted = client.trusted();
    let missing = || Refused::TargetMissing { role: RoleType::Timestamp, name: SNAPSHOT_META.to_owned() };
    let (Some(timestamp), Some(snapshot), Some(targets)) =
        (trusted.timestamp(), trusted.snapshot(), trusted.targets())
    else {
        return Err(missing().into());
    };
    Ok(Base {
        timestamp: timestamp.role().version.get(),
        snapshot: snapshot.clone(),
        targets: targets.clone(),
        etag: client.timestamp_etag().map(str::to_owned),
    })
}

/// The newest snapshot that verifies under the newest root, whatever the timestamp says.
async fn recovered(store: &Store, client: &mut Client) -> Result<Base, PublishError> {
    client.update_roots().await?;
    let root = client.trusted().root().bytes().clone();
    let number = |name: &String| name.strip_suffix(".snapshot.json")?.parse::<u64>().ok();
    let mut numbers: Vec<u64> = store.names().await?.iter().filter_map(number).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    let limits = Limits::default();
    // The timestamp is believed in nothing but that the next one must have a higher number, and only if it is signed.
    let timestamp = match store.get(TIMESTAMP, limits.timestamp, None).await {
        Ok(Fetched::Found { bytes, .. }) => {
            let state = TrustedState::restore(root.clone(), Some(bytes), None, None).ok();
            let timestamp = state.as_ref().and_then(TrustedState::timestamp);
            timestamp.map_or(0, |timestamp| timestamp.role().version.get())
        }
        _ => 0,
    };
    for number in numbers {
        let snapshot = match store.get(&format!("{number}.snapshot.json"), limits.snapshot, None).await {
            Ok(Fetched::Found { bytes, .. }) => bytes,
            _ => continue,
        };
        let Ok(state) = TrustedState::restore(root.clone(), None, Some(snapshot.clone()), None) else {
            continue;
        };
        let Ok(Some(meta)) = state.wanted_targets() else { continue };
        let path = format!("{}.targets.json", meta.version);
        let Ok(Fetched::Found { bytes, .. }) = store.get(&path, limits.targets, None).await else { continue };
        let state = TrustedState::restore(root.clone(), None, Some(snapshot), Some(bytes));
        let Ok(state) = state else { continue };
        let (Some(snapshot), Some(targets), Ok(None)) =
            (state.snapshot(), state.targets(), state.wanted_targets())
        else {
            continue;
        };
        return Ok(Base { snapshot: snapshot.clone(), targets: targets.clone(), timestamp, etag: None });
    }
    Err(PublishError::Beyond { store: store.to_string() })
}

/// Who signed targets that nothing refers to, if anybody did.
fn who(root: &Root, bytes: &[u8]) -> Option<(String, Time)> {
    let signed = trust::parse::<Targets>(bytes).ok()?;
    trust::verify(root, &signed).ok()?;
    let (_, note) = trust::check_targets(&signed.signed).ok()??;
    Some((note.published_by, note.published_at))
}

fn rounded(age: jiff::SignedDuration) -> jiff::SignedDuration {
    jiff::SignedDuration::from_secs(age.as_secs())
}

/// The roles that must sign again when a role has a new key, beside the role itself.
const fn below(role: RoleType) -> &'static [RoleType] {
    match role {
        RoleType::Targets => &[RoleType::Snapshot, RoleType::Timestamp],
        RoleType::Snapshot => &[RoleType::Timestamp],
        _ => &[],
    }
}

fn first_root(keys: &Keys, lifetimes: Lifetimes, now: Time) -> Result<Root, PublishError> {
    let mut root = Root {
        spec_version: SPEC_VERSION.to_owned(),
        consistent_snapshot: true,
        version: NonZeroU64::MIN,
        expires: end(lifetimes.root, now)?,
        keys: HashMap::new(),
        roles: HashMap::new(),
        _extra: HashMap::new(),
    };
    for role in ROLES {
        let name = role.to_string();
        // One key for everything, or one that is named like the role.
        let key = keys.public().find(|(path, _)| {
            path.file_stem().is_some_and(|stem| stem == "dev" || stem.to_str() == Some(name.as_str()))
        });
        let (_, public) =
            key.ok_or_else(|| KeyError::Missing { role, directory: keys.directory().to_owned() })?;
        replace_key(&mut root, role, public.clone())?;
    }
    Ok(root)
}

/// Lets a role have this key and no other, and forgets the keys that no role has any more.
fn replace_key(root: &mut Root, role: RoleType, public: tough::schema::key::Key) -> Result<(), PublishError> {
    let id = public.key_id().map_err(|error| PublishError::Sign(error.to_string()))?;
    root.keys.insert(id.clone(), public);
    let keys = RoleKeys { keyids: vec![id], threshold: NonZeroU64::MIN, _extra: HashMap::new() };
    root.roles.insert(role, keys);
    let Root { keys, roles, .. } = root;
    keys.retain(|id, _| roles.values().any(|role| role.keyids.contains(id)));
    Ok(())
}

fn targets(
    version: NonZeroU64,
    content: Option<(Target, Note)>,
    lifetimes: Lifetimes,
    now: Time,
) -> Result<Targets, PublishError> {
    let mut targets = Targets::new(SPEC_VERSION.to_owned(), version, end(lifetimes.targets, now)?);
    targets.delegations = None;
    if let Some((mut target, note)) = content {
        let failed = |error: &dyn std::fmt::Display| PublishError::Sign(error.to_string());
        if let Value::Object(fields) = serde_json::to_value(note).map_err(|error| failed(&error))? {
            target.custom = fields.into_iter().collect();
        }
        targets.targets.insert(TargetName::new(TARGET_NAME).map_err(|error| failed(&error))?, target);
    }
    Ok(targets)
}

fn target(length: u64, sha256: &str) -> Result<Target, PublishError> {
    let hash = hex::decode(sha256).map_err(|error| PublishError::Sign(error.to_string()))?;
    let hashes = Hashes { sha256: hash.into(), _extra: HashMap::new() };
    Ok(Target { length, hashes, custom: HashMap::new(), _extra: HashMap::new() })
}

fn timestamp_of(
    version: NonZeroU64,
    snapshot: &Metafile,
    lifetimes: Lifetimes,
    now: Time,
) -> Result<Timestamp, PublishError> {
    let mut timestamp = Timestamp::new(SPEC_VERSION.to_owned(), version, end(lifetimes.timestamp, now)?);
    timestamp.meta.insert(SNAPSHOT_META.to_owned(), snapshot.clone());
    Ok(timestamp)
}

async fn sign<T: Role>(keys: &Keys, root: &Root, role: T) -> Result<SignedRole<T>, PublishError> {
    // The editor of `tough` takes the keys that it finds and says of none which is missing.
    keys.need(root, T::TYPE)?;
    SignedRole::new(role, &KeyHolder::Root(root.clone()), &keys.sources(), &SystemRandom::new())
        .await
        .map_err(|error| PublishError::Sign(error.to_string()))
}

async fn put_new<T: Role>(store: &Store, path: &str, signed: &SignedRole<T>) -> Result<Put, PublishError> {
    Ok(store.put_if_absent(path, Bytes::from(signed.buffer().clone())).await?)
}

/// What a file says of one that was just signed.
fn meta_of<T: Role>(signed: &SignedRole<T>) -> Metafile {
    metafile(signed.signed().signed.version(), *signed.length(), signed.sha256().to_vec())
}

/// What a file says of one that was verified.
fn file_meta<T: Role>(file: &Verified<T>) -> Metafile {
    let bytes = file.bytes();
    metafile(file.role().version(), bytes.len() as u64, Sha256::digest(bytes).to_vec())
}

fn metafile(version: NonZeroU64, length: u64, sha256: Vec<u8>) -> Metafile {
    Metafile {
        version,
        length: Some(length),
        hashes: Some(Hashes { sha256: sha256.into(), _extra: HashMap::new() }),
        _extra: HashMap::new(),
    }
}

fn next(version: u64, what: &'static str) -> Result<NonZeroU64, PublishError> {
    version.checked_add(1).and_then(NonZeroU64::new).ok_or(PublishError::Exhausted(what))
}

fn end(lifetime: Lifetime, now: Time) -> Result<Time, PublishError> {
    lifetime.after(now).ok_or(PublishError::Exhausted("the calendar"))
}
