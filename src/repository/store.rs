//! A place with files: what of an object store a repository needs, and no more. Every read has a cap that holds while
//! the bytes come in, so that nobody can fill the memory of a sidecar; every write is one atomic step.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{
    Error as ObjectError, GetOptions, ObjectStore, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// What kind of place it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A directory of this machine.
    Directory(PathBuf),
    /// A bucket or container.
    Cloud,
    /// A web server.
    ReadOnly,
}

/// A place with files, below which a repository lies.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    prefix: Path,
    kind: Kind,
    name: String,
}

/// What became of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// It is what the entity tag stands for.
    NotModified,
    /// There is none.
    NotFound,
    /// Here it is.
    Found {
        /// All of it.
        bytes: Bytes,
        /// What to ask with the next time, where the store has such.
        etag: Option<String>,
    },
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// Written.
    Done,
    /// Somebody was faster: it exists, or is not what it was.
    Lost,
}

/// What became of a download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Downloaded {
    /// All of it, and it is the right one.
    Done,
    /// There is none.
    NotFound,
    /// It is shorter or longer than it must be.
    WrongLength {
        /// As far as it was read.
        found: u64,
    },
    /// Its hash is another.
    WrongHash {
        /// The SHA-256 that it has, in hex.
        found: String,
    },
}

/// Why nothing was read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store cannot be reached, or does not let us.
    #[error("{place}: {error}")]
    Unavailable {
        /// Which store and file.
        place: String,
        /// What it said.
        error: String,
        /// The store refused for want of a permission; some say so of what does not exist, too.
        forbidden: bool,
    },
    /// The file is larger than what will be read.
    #[error("{place} is larger than {limit} bytes")]
    TooLarge {
        /// Which store and file.
        place: String,
        /// The most that is read.
        limit: u64,
    },
    /// A web server takes no files.
    #[error("{place} can only be read; publish to a directory, `s3://`, `az://` or `gs://`")]
    ReadOnly {
        /// Which store.
        place: String,
    },
    /// What was read cannot be kept.
    #[error("cannot write what was read from {place}: {source}")]
    Output {
        /// Which store and file.
        place: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Holds other publishers of this machine back while it lives.
#[derive(Debug)]
pub struct WriteGuard(Option<File>);

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Store {
    pub(super) const fn new(inner: Arc<dyn ObjectStore>, prefix: Path, kind: Kind, name: String) -> Self {
        Self { inner, prefix, kind, name }
    }

    /// Whether an entity tag is another one for every content. Those of web servers often are not.
    pub(super) const fn tags_tell_all(&self) -> bool {
        !matches!(self.kind, Kind::ReadOnly)
    }

    /// Reads a file of at most `max_bytes`, unless it is still the one of `if_none_match`.
    ///
    /// # Errors
    ///
    /// The store cannot be reached, or the file is too large.
    pub async fn get(
        &self,
        path: &str,
        max_bytes: u64,
        if_none_match: Option<&str>,
    ) -> Result<Fetched, StoreError> {
        let options = GetOptions { if_none_match: if_none_match.map(str::to_owned), ..GetOptions::default() };
        let result = match self.inner.get_opts(&self.at(path), options).await {
            Ok(result) => result,
            Err(ObjectError::NotFound { .. }) => return Ok(Fetched::NotFound),
            Err(ObjectError::NotModified { .. }) => return Ok(Fetched::NotModified),
            Err(error) => return Err(self.unavailable(path, &error)),
        };
        let too_large = || StoreError::TooLarge { place: self.place(path), limit: max_bytes };
        if result.meta.size > max_bytes {
            return Err(too_large());
        }
        let etag = result.meta.e_tag.clone();
        let mut stream = result.into_stream();
        let mut bytes = BytesMut::new();
        while let Some(chunk) = stream.try_next().await.map_err(|error| self.unavailable(path, &error))? {
            // The size that the store named before is a promise and no more.
            if (bytes.len() as u64).saturating_add(chunk.len() as u64) > max_bytes {
                return Err(too_large());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Fetched::Found { bytes: bytes.freeze(), etag })
    }

    /// Copies a file whose length and SHA-256 are known to `to`, and stops as soon as it is longer. What was written
    /// is to be thrown away unless it ends in [`Downloaded::Done`].
    ///
    /// # Errors
    ///
    /// The store cannot be reached, or `to` cannot be written.
    pub async fn download(
        &self,
        path: &str,
        length: u64,
        sha256: &str,
        to: &mut (dyn AsyncWrite + Unpin + Send),
    ) -> Result<Downloaded, StoreError> {
        let result = match self.inner.get_opts(&self.at(path), GetOptions::default()).await {
            Ok(result) => result,
            Err(ObjectError::NotFound { .. }) => return Ok(Downloaded::NotFound),
            Err(error) => return Err(self.unavailable(path, &error)),
        };
        if result.meta.size != length {
            return Ok(Downloaded::WrongLength { found: result.meta.size });
        }
        let output = |source| StoreError::Output { place: self.place(path), source };
        let (mut found, mut hash) = (0_u64, Sha256::new());
        let mut stream = result.into_stream();
        while let Some(chunk) = stream.try_next().await.map_err(|error| self.unavailable(path, &error))? {
            found = found.saturating_add(chunk.len() as u64);
            if found > length {
                return Ok(Downloaded::WrongLength { found });
            }
            hash.update(&chunk);
            to.write_all(&chunk).await.map_err(output)?;
        }
        to.flush().await.map_err(output)?;
        if found != length {
            return Ok(Downloaded::WrongLength { found });
        }
        let found = hex::encode(hash.finalize());
        Ok(if found == sha256 { Downloaded::Done } else { Downloaded::WrongHash { found } })
    }

    /// Writes a file that does not exist yet.
    ///
    /// # Errors
    ///
    /// The store cannot be reached, or cannot be written.
    pub async fn put_if_absent(&self, path: &str, bytes: Bytes) -> Result<Put, StoreError> {
        self.writable()?;
        match self.put_mode(path, bytes, PutMode::Create).await {
            Ok(()) => Ok(Put::Done),
            Err(ObjectError::AlreadyExists { .. } | ObjectError::Precondition { .. }) => Ok(Put::Lost),
            Err(error) => Err(self.unavailable(path, &error)),
        }
    }

    /// Replaces a file; where the store can, only if it is still the one of `etag`.
    ///
    /// # Errors
    ///
    /// The store cannot be reached, or cannot be written.
    pub async fn put(&self, path: &str, bytes: Bytes, etag: Option<&str>) -> Result<Put, StoreError> {
        self.writable()?;
        if let Some(etag) = etag {
            let version = UpdateVersion { e_tag: Some(etag.to_owned()), version: None };
            match self.put_mode(path, bytes.clone(), PutMode::Update(version)).await {
                Ok(()) => return Ok(Put::Done),
                Err(
                    ObjectError::Precondition { .. }
                    | ObjectError::AlreadyExists { .. }
                    | ObjectError::NotFound { .. },
                ) => return Ok(Put::Lost),
                // Directories cannot. There, the guard keeps the other publishers out.
                Err(ObjectError::NotImplemented { .. } | ObjectError::NotSupported { .. }) => {}
                Err(error) => return Err(self.unavailable(path, &error)),
            }
        }
        match self.put_mode(path, bytes, PutMode::Overwrite).await {
            Ok(()) => Ok(Put::Done),
            Err(error) => Err(self.unavailable(path, &error)),
        }
    }

    /// The names of the files that lie directly below the repository.
    ///
    /// # Errors
    ///
    /// The store cannot be reached, or cannot list.
    pub async fn names(&self) -> Result<Vec<String>, StoreError> {
        let prefix = (!self.prefix.as_ref().is_empty()).then_some(&self.prefix);
        let listed = self.inner.list_with_delimiter(prefix).await;
        let listed = listed.map_err(|error| self.unavailable("", &error))?;
        let name = |path: &Path| path.filename().map(str::to_owned);
        Ok(listed.objects.iter().filter_map(|object| name(&object.location)).collect())
    }

    /// Keeps other publishers of this machine waiting, where the store is a directory and has no conditional writes.
    ///
    /// # Errors
    ///
    /// The lock file cannot be written.
    pub async fn lock(&self) -> Result<WriteGuard, StoreError> {
        let Kind::Directory(directory) = &self.kind else { return Ok(WriteGuard(None)) };
        let path = directory.join(".postern.lock");
        let locked = tokio::task::spawn_blocking(move || {
            let file = File::options().create(true).truncate(false).write(true).open(path)?;
            file.lock()?;
            Ok::<_, std::io::Error>(file)
        });
        let unavailable = |error: String| StoreError::Unavailable {
            place: self.place(".postern.lock"),
            error,
            forbidden: false,
        };
        match locked.await {
            Ok(Ok(file)) => Ok(WriteGuard(Some(file))),
            Ok(Err(error)) => Err(unavailable(error.to_string())),
            Err(error) => Err(unavailable(error.to_string())),
        }
    }

    async fn put_mode(&self, path: &str, bytes: Bytes, mode: PutMode) -> Result<(), ObjectError> {
        let options = PutOptions { mode, ..PutOptions::default() };
        self.inner.put_opts(&self.at(path), PutPayload::from(bytes), options).await.map(|_written| ())
    }

    fn writable(&self) -> Result<(), StoreError> {
        match self.kind {
            Kind::ReadOnly => Err(StoreError::ReadOnly { place: format!("`{}`", self.name) }),
            Kind::Directory(_) | Kind::Cloud => Ok(()),
        }
    }

    fn at(&self, path: &str) -> Path {
        self.prefix.parts().chain(Path::from(path).parts()).collect()
    }

    fn place(&self, path: &str) -> String {
        format!("`{}` in `{}`", path, self.name)
    }

    fn unavailable(&self, path: &str, error: &ObjectError) -> StoreError {
        let forbidden =
            matches!(error, ObjectError::PermissionDenied { .. } | ObjectError::Unauthenticated { .. });
        let text = with_causes(error);
        StoreError::Unavailable { place: self.place(path), error: text, forbidden }
    }
}

/// An error and its causes: the message alone often says `builder error`, and often repeats the next cause.
pub(super) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(&format!(": {more}"));
        }
        cause = error.source();
    }
    text
}

impl Drop for WriteGuard {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            // Closing the file does the same; nothing is left to do about an error.
            let _closed = file.unlock();
        }
    }
}
