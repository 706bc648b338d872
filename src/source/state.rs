//! What a sidecar keeps on disk, so that a restart without any network serves the last good policy at once and still
//! refuses a rollback.
//!
//! ```text
//! STATE/lock                held for the length of one change
//! STATE/latest.json         the newest metadata that was verified, verbatim: the high-water mark
//! STATE/active.json         the metadata of the publication that was activated last, verbatim
//! STATE/bundles/SHA256      bundles, named by their content; written once, then only mapped
//! STATE/incoming/           what is being written, each file locked by who writes it
//! ```
//!
//! Every file is written beside its place, flushed, and renamed, so that a process that is killed leaves the old file
//! or the new one. Metadata is verified again when it is read; the directory itself is trusted like the configuration.
//! Sidecars of one repository on one machine may share a directory: then they share the mapped pages of the bundle,
//! and none sets the high-water mark of another back.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// More than any metadata is.
const MAX_KEPT_BYTES: u64 = 64 << 20;
/// The root of trust among the documents.
const ANCHOR: &str = "anchor.json";

/// A state directory.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// Verified metadata, as it was received: each document by its name.
pub type Metadata = BTreeMap<String, String>;

/// Which metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The newest that was verified.
    Latest,
    /// That of the publication that was activated last.
    Active,
}

/// What cannot be done with a state directory.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system says no.
    #[error("the state directory: {what} `{}`: {source}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A file that is no metadata.
    #[error("the state directory: `{}` cannot be read: {reason}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// A bundle on its way to disk.
#[derive(Debug)]
pub struct Incoming {
    /// Where it is written.
    pub file: File,
    path: PathBuf,
}

impl Which {
    const fn file_name(self) -> &'static str {
        match self {
            Self::Latest => "latest.json",
            Self::Active => "active.json",
        }
    }
}

impl StateDir {
    /// Makes the directory where there is none, and removes what an earlier process did not finish. One that cannot be
    /// written is good for reading; then every attempt to keep something says so.
    ///
    /// # Errors
    ///
    /// It is neither there nor to be made.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let made = ["bundles", "incoming"].iter().try_for_each(|name| fs::create_dir_all(path.join(name)));
        if let Err(source) = made
            && !path.is_dir()
        {
            return Err(StateError::Io { what: "making", path: path.to_owned(), source });
        }
        let state = Self { path: path.to_owned() };
        match state.locked() {
            Ok(_lock) => remove(&path.join("incoming"), abandoned),
            Err(error) => tracing::warn!(%error, "nothing new can be kept"),
        }
        Ok(state)
    }

    /// What was kept.
    ///
    /// # Errors
    ///
    /// It cannot be read. Nothing kept is no error.
    pub fn read(&self, which: Which) -> Result<Option<Metadata>, StateError> {
        let path = self.path.join(which.file_name());
        let io = |source| StateError::Io { what: "reading", path: path.clone(), source };
        let malformed = |reason: String| StateError::Malformed { path: path.clone(), reason };
        match fs::metadata(&path) {
            Ok(found) if found.len() > MAX_KEPT_BYTES => {
                return Err(malformed(format!("{} bytes are more than metadata ever is", found.len())));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        }
        let text = fs::read(&path).map_err(io)?;
        serde_json::from_slice(&text).map(Some).map_err(|error| malformed(error.to_string()))
    }

    /// Keeps it, all of it or what was there before; a newer one that another process kept meanwhile stays.
    ///
    /// # Errors
    ///
    /// The directory cannot be written, or is full.
    pub fn keep(&self, which: Which, metadata: &Metadata) -> Result<(), StateError> {
        let path = self.path.join(which.file_name());
        let malformed = |error: serde_json::Error| StateError::Malformed {
            path: path.clone(),
            reason: error.to_string(),
        };
        let text = serde_json::to_vec(metadata).map_err(malformed)?;
        let mut incoming = self.incoming()?;
        let written = incoming.file.write_all(&text);
        written.map_err(|source| StateError::Io { what: "writing", path: incoming.path.clone(), source })?;
        let _lock = self.locked()?;
        // What cannot be read is worth less than what can.
        if let Ok(Some(there)) = self.read(which)
            && there.get(ANCHOR) == metadata.get(ANCHOR)
            && age(&there) > age(metadata)
        {
            return Ok(());
        }
        self.place(incoming, &path)
    }

    /// When it was written: a source has confirmed what it says at that time, if not later.
    pub fn written(&self, which: Which) -> Option<Timestamp> {
        let written = fs::metadata(self.path.join(which.file_name())).ok()?.modified().ok()?;
        Timestamp::try_from(written).ok()
    }

    /// Where a bundle is, or would be.
    pub fn bundle(&self, sha256: &str) -> PathBuf {
        self.path.join("bundles").join(sha256)
    }

    /// A new file to write to.
    ///
    /// # Errors
    ///
    /// The directory cannot be written.
    pub fn incoming(&self) -> Result<Incoming, StateError> {
        let path = self.path.join("incoming").join(unique_name());
        let made = OpenOptions::new().create_new(true).read(true).write(true).open(&path);
        match made.and_then(|file| file.lock().map(|()| file)) {
            Ok(file) => Ok(Incoming { file, path }),
            Err(source) => Err(StateError::Io { what: "making", path, source }),
        }
    }

    /// Puts a bundle that was read whole, and has this digest, where it belongs.
    ///
    /// # Errors
    ///
    /// The directory cannot be written.
    pub fn admit(&self, incoming: Incoming, sha256: &str) -> Result<PathBuf, StateError> {
        let place = self.bundle(sha256);
        let _lock = self.locked()?;
        // Another process was faster: its file is the one that others have mapped.
        if !place.exists() {
            self.place(incoming, &place)?;
        }
        Ok(place)
    }

    /// Removes every bundle but this and those that the metadata on disk needs, whoever wrote it: `of` tells the bundle
    /// of metadata. A mapped file stays readable to who has it.
    pub fn sweep(&self, but: &str, of: impl Fn(&Metadata) -> Option<String>) {
        let Ok(_lock) = self.locked() else { return };
        let mut needed = vec![but.to_owned()];
        for which in [Which::Latest, Which::Active] {
            match self.read(which) {
                Ok(Some(metadata)) => needed.extend(of(&metadata)),
                Ok(None) => {}
                // Nobody knows what it needs.
                Err(_) => return,
            }
        }
        let gone = |path: &Path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_none_or(|name| !needed.iter().any(|kept| kept == name))
        };
        remove(&self.path.join("bundles"), gone);
    }

    /// Keeps other processes out while it lives.
    fn locked(&self) -> Result<File, StateError> {
        let path = self.path.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        lock.and_then(|lock| lock.lock().map(|()| lock)).map_err(|source| StateError::Io {
            what: "locking",
            path,
            source,
        })
    }

    fn place(&self, incoming: Incoming, place: &Path) -> Result<(), StateError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { what, path, source }
        };
        incoming.file.sync_all().map_err(io("flushing", &incoming.path))?;
        fs::rename(&incoming.path, place).map_err(io("renaming to", place))?;
        // The name is as durable as the content only after the directory is flushed, too.
        let directory = place.parent().unwrap_or(&self.path);
        File::open(directory).and_then(|dir| dir.sync_all()).map_err(io("flushing", directory))
    }
}

/// Removes files of a directory. What cannot be removed is left: it costs room only.
fn remove(directory: &Path, unwanted: impl Fn(&Path) -> bool) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| unwanted(path)) {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "cannot be removed");
        }
    }
}

/// Whoever wrote it has ended: a lock does not outlive its process.
fn abandoned(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

/// The versions of root and timestamp, which only grow; a new root may begin the count of timestamps again.
fn age(metadata: &Metadata) -> (u64, u64) {
    let version = |name: &str| {
        let document: serde_json::Value = serde_json::from_str(metadata.get(name)?).ok()?;
        document.get("signed")?.get("version")?.as_u64()
    };
    (version("root.json").unwrap_or(0), version("timestamp.json").unwrap_or(0))
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Where it was put in its place there is nothing left to remove.
        let _gone = fs::remove_file(&self.path);
    }
}

/// A name that nobody else has: processes that share a directory may have the same number in their containers.
fn unique_name() -> String {
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str) -> Metadata {
        [("root.json".to_owned(), text.to_owned())].into()
    }

    #[test]
    fn what_is_kept_is_read_again_verbatim() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("new/state")).unwrap();
        assert_eq!(state.read(Which::Latest).unwrap(), None);
        state.keep(Which::Latest, &kept("{ \"odd\":\t\"white\\u0020space\" }\n")).unwrap();
        state.keep(Which::Active, &kept("older")).unwrap();
        state.keep(Which::Latest, &kept("newer")).unwrap();
        assert_eq!(state.read(Which::Latest).unwrap(), Some(kept("newer")));
        assert_eq!(state.read(Which::Active).unwrap(), Some(kept("older")));
    }

    #[test]
    fn nobody_is_set_back() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (StateDir::open(dir.path()).unwrap(), StateDir::open(dir.path()).unwrap());
        let at = |anchor: &str, root: u64, timestamp: u64| -> Metadata {
            let signed = |version: u64| format!("{{\"signed\":{{\"version\":{version}}}}}");
            let documents =
                [("root.json", signed(root)), ("timestamp.json", signed(timestamp)), (ANCHOR, anchor.into())];
            documents.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
        };
        one.keep(Which::Latest, &at("a", 1, 7)).unwrap();
        other.keep(Which::Latest, &at("a", 1, 6)).unwrap();
        assert_eq!(one.read(Which::Latest).unwrap(), Some(at("a", 1, 7)));
        other.keep(Which::Latest, &at("a", 2, 1)).unwrap();
        assert_eq!(one.read(Which::Latest).unwrap(), Some(at("a", 2, 1)), "the count began again");
        other.keep(Which::Latest, &at("b", 1, 1)).unwrap();
        assert_eq!(one.read(Which::Latest).unwrap(), Some(at("b", 1, 1)), "another repository");
    }

    #[test]
    fn bundles_come_whole_and_go_when_nobody_needs_them() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let mut incoming = state.incoming().unwrap();
        incoming.file.write_all(b"bundle").unwrap();
        let place = state.admit(incoming, "aa").unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"bundle");
        // Given up in the middle, left behind by a process that was killed, and on its way.
        drop(state.incoming().unwrap());
        fs::write(dir.path().join("incoming/left"), "half").unwrap();
        let on_its_way = state.incoming().unwrap();
        let other = StateDir::open(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("incoming")).unwrap().count(), 1);
        other.admit(on_its_way, "bb").unwrap();
        other.keep(Which::Active, &kept("aa")).unwrap();
        let of = |metadata: &Metadata| metadata.get("root.json").cloned();
        state.sweep("bb", of);
        assert!(place.exists() && state.bundle("bb").exists());
        other.keep(Which::Active, &kept("bb")).unwrap();
        state.sweep("bb", of);
        assert!(!place.exists() && state.bundle("bb").exists());
    }

    #[test]
    fn what_is_no_metadata_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        fs::write(dir.path().join("latest.json"), "{\"root.json\":").unwrap();
        let error = state.read(Which::Latest).unwrap_err().to_string();
        assert!(error.contains("latest.json` cannot be read: EOF"), "{error}");
    }
}
