//! What was published, from the newest on. Each publication carries the hash of the one before it, so the past is as
//! trustworthy as the present, however often keys were replaced since.

use super::publish::{PublishError, Repository};
use super::store::Fetched;
use super::trust::{self, Note, Previous};
use tough::schema::Targets;

/// The most that is read of the metadata of one publication.
const MOST_BYTES: u64 = 1 << 20;

/// One publication of the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub serial: u64,
    /// What became of it.
    pub state: EntryState,
    /// What its publisher said; of an abandoned one only if it is signed with a key of today.
    pub note: Option<Note>,
    /// The SHA-256 of its bundle, in hex.
    pub bundle_sha256: String,
    /// The length of its bundle.
    pub bundle_length: u64,
}

/// What became of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// It is the one that readers get.
    Current,
    /// Another one came after it.
    Superseded,
    /// Its publisher took the number and never finished; no reader ever saw it.
    Abandoned,
    /// Its metadata is gone, or is not what the publication after it says; nothing before it is known.
    Broken,
}

/// What a rollback needs to know.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) bundle_sha256: String,
    pub(super) bundle_length: u64,
    pub(super) policy_name: String,
    pub(super) policy_digest: String,
}

impl Repository {
    /// The last publications, newest first, `limit` at most.
    ///
    /// # Errors
    ///
    /// The store cannot be reached, or something of it is larger than metadata ever is.
    pub async fn history(&self, limit: usize) -> Result<Vec<Entry>, PublishError> {
        self.walk(limit, |_| false).await
    }

    /// One publication of the past.
    pub(super) async fn find(&self, serial: u64) -> Result<Option<Found>, PublishError> {
        let entries = self.walk(usize::MAX, |entry| entry.serial <= serial).await?;
        let known = |entry: &Entry| {
            entry.serial == serial && matches!(entry.state, EntryState::Current | EntryState::Superseded)
        };
        Ok(entries.into_iter().find(known).and_then(|entry| {
            let note = entry.note?;
            Some(Found {
                bundle_sha256: entry.bundle_sha256,
                bundle_length: entry.bundle_length,
                policy_name: note.policy_name,
                policy_digest: note.policy_digest,
            })
        }))
    }

    async fn walk(&self, limit: usize, enough: impl Fn(&Entry) -> bool) -> Result<Vec<Entry>, PublishError> {
        let mut entries = Vec::new();
        let mut targets = self.targets().role().clone();
        let mut state = EntryState::Current;
        while let Some((target, note)) = trust::check_targets(&targets)? {
            let serial = note.serial;
            let previous = note.previous.clone();
            let entry = Entry {
                serial,
                state,
                note: Some(note),
                bundle_sha256: hex::encode(&*target.hashes.sha256),
                bundle_length: target.length,
            };
            let done = enough(&entry);
            entries.push(entry);
            let Some(previous) = previous.filter(|previous| !done && previous.serial < serial) else { break };
            for number in (previous.serial.saturating_add(1)..serial).rev() {
                if entries.len() >= limit {
                    break;
                }
                entries.push(self.abandoned(number).await?);
            }
            if entries.len() >= limit {
                break;
            }
            match self.before(&previous).await? {
                Some(before) => targets = before,
                None => {
                    entries.push(Entry::without(previous.serial, EntryState::Broken));
                    break;
                }
            }
            state = EntryState::Superseded;
        }
        entries.truncate(limit);
        Ok(entries)
    }

    /// The targets that the ones after them name by their hash.
    async fn before(&self, previous: &Previous) -> Result<Option<Targets>, PublishError> {
        let path = format!("{}.targets.json", previous.serial);
        let Fetched::Found { bytes, .. } = self.store().get(&path, MOST_BYTES, None).await? else {
            return Ok(None);
        };
        if trust::sha256(&bytes) != previous.sha256 {
            return Ok(None);
        }
        Ok(trust::parse::<Targets>(&bytes).ok().map(|signed| signed.signed))
    }

    async fn abandoned(&self, serial: u64) -> Result<Entry, PublishError> {
        let none = Entry::without(serial, EntryState::Abandoned);
        let path = format!("{serial}.targets.json");
        let Fetched::Found { bytes, .. } = self.store().get(&path, MOST_BYTES, None).await? else {
            return Ok(none);
        };
        let Some(signed) = self.signed_today(&bytes) else { return Ok(none) };
        Ok(match trust::check_targets(&signed) {
            Ok(Some((target, note))) => Entry {
                note: Some(note),
                bundle_sha256: hex::encode(&*target.hashes.sha256),
                bundle_length: target.length,
                ..none
            },
            _ => none,
        })
    }

    fn signed_today(&self, bytes: &[u8]) -> Option<Targets> {
        let signed = trust::parse::<Targets>(bytes).ok()?;
        trust::verify(self.root(), &signed).ok()?;
        Some(signed.signed)
    }
}

impl Entry {
    const fn without(serial: u64, state: EntryState) -> Self {
        Self { serial, state, note: None, bundle_sha256: String::new(), bundle_length: 0 }
    }
}

impl EntryState {
    /// As text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Superseded => "superseded",
            Self::Abandoned => "abandoned",
            Self::Broken => "broken",
        }
    }
}
