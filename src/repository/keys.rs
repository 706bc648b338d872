//! The keys of publishers: Ed25519, one PEM file each (PKCS #8, readable by `openssl pkey`), in a directory with the
//! newest root. Which role a key is for is said by the root and not by the name of its file, so keys can be moved
//! apart: a machine that renews the timestamp needs that key and the root, and nothing else.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::Ed25519KeyPair;
use bytes::Bytes;
use tough::key_source::KeySource;
use tough::schema::key::Key;
use tough::schema::{RoleType, Root};
use tough::sign::Sign;

/// What PEM calls a PKCS #8 key.
const TAG: &str = "PRIVATE KEY";
const ROOT: &str = "root.json";

/// The four roles, in the order in which people read them.
pub(super) const ROLES: [RoleType; 4] =
    [RoleType::Root, RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp];

/// A directory of keys.
#[derive(Debug)]
pub struct Keys {
    directory: PathBuf,
    keys: Vec<LocalKey>,
}

/// One key.
#[derive(Clone)]
struct LocalKey {
    path: PathBuf,
    pkcs8: Vec<u8>,
    public: Key,
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file that would be written is there already.
    #[error("`{}` is there already, and keys are never overwritten; choose another directory", path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// A file is no key.
    #[error("`{}` is no Ed25519 key in PEM (PKCS #8)", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
    },
    /// No key could be made.
    #[error("no key could be made: the system has no randomness")]
    NotMade,
    /// The directory has no key that the root names for a role.
    #[error("`{}` has no key that the root names for `{role}`; bring it there and try again", directory.display())]
    Missing {
        /// Which role.
        role: RoleType,
        /// Which directory.
        directory: PathBuf,
    },
}

impl Keys {
    /// Makes the keys of a new repository: one for each role, or a single one for development.
    ///
    /// # Errors
    ///
    /// The directory has keys or a root already, or cannot be written.
    pub fn create(directory: &Path, single: bool) -> Result<Self, KeyError> {
        make_directory(directory).map_err(|error| KeyError::File { path: directory.to_owned(), error })?;
        let mut keys = Self { directory: directory.to_owned(), keys: Vec::new() };
        let found = keys.pem_files()?;
        let root = directory.join(ROOT);
        if let Some(path) = found.into_iter().next().or_else(|| root.exists().then_some(root)) {
            return Err(KeyError::Exists { path });
        }
        if single {
            keys.generate("dev")?;
        } else {
            for role in ROLES {
                keys.generate(&role.to_string())?;
            }
        }
        Ok(keys)
    }

    /// Reads every `*.pem` of a directory.
    ///
    /// # Errors
    ///
    /// One cannot be read, or is no key.
    pub fn open(directory: &Path) -> Result<Self, KeyError> {
        let mut keys = Self { directory: directory.to_owned(), keys: Vec::new() };
        for path in keys.pem_files()? {
            let text = fs::read(&path).map_err(|error| KeyError::File { path: path.clone(), error })?;
            let pem = pem::parse(text).ok().filter(|pem| pem.tag() == TAG);
            let pkcs8 = pem.ok_or_else(|| KeyError::Unreadable { path: path.clone() })?.into_contents();
            keys.keys.push(LocalKey::new(path, pkcs8)?);
        }
        Ok(keys)
    }

    /// Where they lie.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the newest root lies, which sidecars are given.
    pub fn root_path(&self) -> PathBuf {
        self.directory.join(ROOT)
    }

    /// The root that lies with the keys.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn root(&self) -> Result<Bytes, KeyError> {
        let path = self.root_path();
        fs::read(&path).map(Bytes::from).map_err(|error| KeyError::File { path, error })
    }

    /// Replaces the root in one step.
    pub(super) fn set_root(&self, bytes: &[u8]) -> Result<(), KeyError> {
        let path = self.root_path();
        let aside = self.directory.join(".root.json.next");
        fs::write(&aside, bytes)
            .and_then(|()| fs::rename(&aside, &path))
            .map_err(|error| KeyError::File { path, error })
    }

    /// Makes a key and writes it to a file of this name, or one with a number if that is taken.
    pub(super) fn generate(&mut self, name: &str) -> Result<(PathBuf, Key), KeyError> {
        let document =
            Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(|_| KeyError::NotMade)?;
        let pkcs8 = document.as_ref().to_vec();
        let text = pem::encode(&pem::Pem::new(TAG, pkcs8.clone()));
        let mut path = self.directory.join(format!("{name}.pem"));
        for number in 2_u32.. {
            match create_secret(&path, text.as_bytes()) {
                Ok(()) => break,
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    path = self.directory.join(format!("{name}.{number}.pem"));
                }
                Err(error) => return Err(KeyError::File { path, error }),
            }
        }
        let key = LocalKey::new(path.clone(), pkcs8)?;
        let public = key.public.clone();
        self.keys.push(key);
        Ok((path, public))
    }

    /// The keys of these ones that no role needs any more are put aside: their files are renamed, not removed.
    pub(super) fn retire(&mut self, root: &Root) -> Result<Vec<PathBuf>, KeyError> {
        let mut retired = Vec::new();
        let (kept, unused): (Vec<_>, Vec<_>) = std::mem::take(&mut self.keys)
            .into_iter()
            .partition(|key| root.keys.values().any(|other| *other == key.public));
        self.keys = kept;
        for key in unused {
            let to = key.path.with_extension("pem.retired");
            fs::rename(&key.path, &to).map_err(|error| KeyError::File { path: key.path.clone(), error })?;
            retired.push(to);
        }
        Ok(retired)
    }

    /// The public halves, with the name of the file of each.
    pub(super) fn public(&self) -> impl Iterator<Item = (&Path, &Key)> {
        self.keys.iter().map(|key| (key.path.as_path(), &key.public))
    }

    /// Whether something can be signed for a role.
    pub(super) fn has(&self, root: &Root, role: RoleType) -> bool {
        root.keys(role).any(|public| self.keys.iter().any(|key| key.public == *public))
    }

    /// Whether something can be signed for a role, as an error if not.
    pub(super) fn need(&self, root: &Root, role: RoleType) -> Result<(), KeyError> {
        if self.has(root, role) {
            Ok(())
        } else {
            Err(KeyError::Missing { role, directory: self.directory.clone() })
        }
    }

    /// The keys as the editor of `tough` wants them.
    pub(super) fn sources(&self) -> Vec<Box<dyn KeySource>> {
        self.keys.iter().map(|key| Box::new(key.clone()) as Box<dyn KeySource>).collect()
    }

    fn pem_files(&self) -> Result<Vec<PathBuf>, KeyError> {
        let failed = |error| KeyError::File { path: self.directory.clone(), error };
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "pem") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

impl LocalKey {
    fn new(path: PathBuf, pkcs8: Vec<u8>) -> Result<Self, KeyError> {
        match Ed25519KeyPair::from_pkcs8(&pkcs8) {
            Ok(pair) => Ok(Self { path, pkcs8, public: pair.tuf_key() }),
            Err(_) => Err(KeyError::Unreadable { path }),
        }
    }
}

/// Without the key itself: it ends up in logs.
impl fmt::Debug for LocalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync + 'static>;

#[tough::async_trait]
impl KeySource for LocalKey {
    async fn as_sign(&self) -> Result<Box<dyn Sign>, AnyError> {
        Ok(Box::new(Ed25519KeyPair::from_pkcs8(&self.pkcs8)?))
    }

    async fn write(&self, _value: &str, _key_id: &str) -> Result<(), AnyError> {
        Err("keys are never overwritten".into())
    }
}

#[cfg(unix)]
fn make_directory(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn make_directory(path: &Path) -> std::io::Result<()> {
    fs::create_dir_all(path)
}

/// A file that only its owner can read, and that did not exist.
fn create_secret(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
