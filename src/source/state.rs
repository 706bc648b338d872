//! What a sidecar keeps on disk, so that a restart without any network serves the last good policy at once and still
//! refuses a rollback.
//!
//! ```text
//! STATE/lock                one process at a time
//! STATE/latest.json         the newest metadata that was verified, verbatim: the high-water mark
//! STATE/active.json         the metadata of the publication that was activated last, verbatim
//! STATE/bundles/SHA256      bundles, named by their content; written once, then only mapped
//! STATE/incoming/           what is being written; emptied at start
//! ```
//!
//! Every file is written beside its place, flushed, and renamed, so that a process that is killed leaves the old file
//! or the new one. Metadata is verified again when it is read; the directory itself is trusted like the configuration.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// More than any metadata is.
const MAX_KEPT_BYTES: u64 = 64 << 20;

/// A state directory that this process holds.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Held for as long as the process uses the directory; `None` where it cannot be written.
    lock: Option<File>,
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
    /// Two processes would overwrite each other's high-water mark.
    #[error("the state directory `{}` is in use by another process: give each sidecar its own", .0.display())]
    InUse(PathBuf),
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
    /// Takes the directory, and removes what an earlier process did not finish. A directory that cannot be written is
    /// good for reading; then every attempt to keep something says so.
    ///
    /// # Errors
    ///
    /// It is in use, or neither there nor to be made.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let made = ["bundles", "incoming"].iter().try_for_each(|name| fs::create_dir_all(path.join(name)));
        if let Err(source) = made
            && !path.is_dir()
        {
            return Err(StateError::Io { what: "making", path: path.to_owned(), source });
        }
        let mut state = Self { path: path.to_owned(), lock: None };
        match OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock")) {
            Ok(lock) => {
                match lock.try_lock() {
                    Ok(()) => state.lock = Some(lock),
                    Err(TryLockError::WouldBlock) => return Err(StateError::InUse(path.to_owned())),
                    Err(TryLockError::Error(source)) => {
                        return Err(StateError::Io { what: "locking", path: path.to_owned(), source });
                    }
                }
                state.empty(&path.join("incoming"), &[]);
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the state directory cannot be written");
            }
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

    /// Keeps it: all of it or what was there before.
    ///
    /// # Errors
    ///
    /// The directory cannot be written, or is full.
    pub fn keep(&self, which: Which, metadata: &Metadata) -> Result<(), StateError> {
        let text = serde_json::to_vec(metadata).map_err(|error| StateError::Malformed {
            path: self.path.join(which.file_name()),
            reason: error.to_string(),
        })?;
        let mut incoming = self.incoming()?;
        let written = incoming.file.write_all(&text);
        written.map_err(|source| StateError::Io { what: "writing", path: incoming.path.clone(), source })?;
        self.place(incoming, &self.path.join(which.file_name()))
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
        match OpenOptions::new().create_new(true).read(true).write(true).open(&path) {
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
        self.place(incoming, &place)?;
        Ok(place)
    }

    /// Removes every bundle but these. A mapped file stays readable to who has it.
    pub fn sweep(&self, but: &[&str]) {
        if self.lock.is_some() {
            self.empty(&self.path.join("bundles"), but);
        }
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

    /// Removes the files of a directory but some. What cannot be removed is left: it costs room only.
    fn empty(&self, directory: &Path, but: &[&str]) {
        let Ok(entries) = fs::read_dir(directory) else { return };
        for entry in entries.flatten() {
            let keep = entry.file_name().to_str().is_some_and(|name| but.contains(&name));
            if !keep && let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!(path = %entry.path().display(), %error, "cannot be removed");
            }
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Where it was put in its place there is nothing left to remove.
        let _gone = fs::remove_file(&self.path);
    }
}

/// A name that no other file of this process has; the lock keeps other processes away.
fn unique_name() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
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
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open(dir.path()).unwrap();
        assert!(matches!(StateDir::open(dir.path()), Err(StateError::InUse(_))));
        drop(first);
        StateDir::open(dir.path()).unwrap();
    }

    #[test]
    fn bundles_come_whole_and_go_when_nobody_needs_them() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let mut incoming = state.incoming().unwrap();
        incoming.file.write_all(b"bundle").unwrap();
        let place = state.admit(incoming, "aa").unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"bundle");
        // Given up in the middle, and left behind by a process that was killed.
        drop(state.incoming().unwrap());
        fs::write(dir.path().join("incoming/left"), "half").unwrap();
        drop(state);
        let state = StateDir::open(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("incoming")).unwrap().count(), 0);
        state.sweep(&["aa"]);
        assert!(place.exists());
        state.sweep(&[]);
        assert!(!place.exists());
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
