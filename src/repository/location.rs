//! Where a repository lies, as people write it: a directory or a URL. Credentials never stand in it; each cloud's
//! own variables and workload identity are asked for them.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

use super::store::{Kind, Store, with_causes};

/// Reaching a server takes no longer.
const CONNECT: Duration = Duration::from_secs(5);
/// Whoever polls asks again soon, so a server that fails is not asked for minutes.
const RETRIES: usize = 2;

/// A directory or URL that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    text: String,
    at: At,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Directory(PathBuf),
    Web(Url),
    Amazon(Url, Path),
    Azure(Url, Path),
    Google(Url, Path),
}

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// How long one request may take, its answer included.
    pub timeout: Duration,
    /// Whether a directory that does not exist is made.
    pub create: bool,
}

impl Default for Opening {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), create: false }
    }
}

/// Why a text is no place for a repository, or the place cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// The text names none.
    #[error(
        "`{text}` is no place of a repository; wanted a directory, `http(s)://`, `s3://bucket/path`, \
         `az://container/path` or `gs://bucket/path`{}",
        hint(why)
    )]
    NotUnderstood {
        /// What was given.
        text: String,
        /// What is wrong with it, where there is more to say.
        why: String,
    },
    /// It cannot be opened.
    #[error("cannot open `{text}`: {why}")]
    NotOpened {
        /// What was given.
        text: String,
        /// Why.
        why: String,
    },
}

fn hint(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(": {why}") }
}

impl Location {
    /// Reads a directory or a URL.
    ///
    /// # Errors
    ///
    /// It is neither, or a URL of another kind.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        let wrong = |why: &str| LocationError::NotUnderstood { text: text.to_owned(), why: why.to_owned() };
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        let at = if text.contains("://") {
            let mut url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
            if url.password().is_some() {
                // Errors end up in logs, where a password has no business.
                let _hidden = url.set_password(None);
                return Err(LocationError::NotUnderstood {
                    text: url.to_string(),
                    why: "credentials come from the environment, not from the URL".to_owned(),
                });
            }
            match url.scheme() {
                "file" => {
                    let path = url.to_file_path();
                    At::Directory(path.map_err(|()| wrong("`file://` wants an absolute path"))?)
                }
                "http" | "https" => At::Web(url),
                "s3" | "az" | "gs" => {
                    let (scheme, path) =
                        ObjectStoreScheme::parse(&url).map_err(|error| wrong(&error.to_string()))?;
                    match scheme {
                        ObjectStoreScheme::AmazonS3 => At::Amazon(url, path),
                        ObjectStoreScheme::MicrosoftAzure => At::Azure(url, path),
                        ObjectStoreScheme::GoogleCloudStorage => At::Google(url, path),
                        _ => return Err(wrong("")),
                    }
                }
                other => return Err(wrong(&format!("`{other}://` is not supported"))),
            }
        } else {
            At::Directory(PathBuf::from(text))
        };
        Ok(Self { text: text.to_owned(), at })
    }

    /// The directory, if it is one of this machine.
    pub fn directory(&self) -> Option<&FilePath> {
        match &self.at {
            At::Directory(path) => Some(path),
            _ => None,
        }
    }

    /// Opens it. Nothing is asked yet, but a directory must exist.
    ///
    /// # Errors
    ///
    /// The directory does not exist, or the environment does not say what the cloud's client needs.
    pub fn open(&self, opening: Opening) -> Result<Store, LocationError> {
        let failed = |why: String| LocationError::NotOpened { text: self.text.clone(), why };
        let client = ClientOptions::new()
            .with_connect_timeout(CONNECT)
            .with_timeout(opening.timeout)
            // Metadata and bundles are signed and hashed; a mirror inside of a cluster often has no certificate.
            .with_allow_http(true);
        let retry =
            RetryConfig { max_retries: RETRIES, retry_timeout: opening.timeout, ..RetryConfig::default() };
        let text = |error: object_store::Error| failed(with_causes(&error));
        let (inner, prefix, kind): (Arc<dyn ObjectStore>, Path, Kind) = match &self.at {
            At::Directory(path) => {
                if opening.create {
                    std::fs::create_dir_all(path).map_err(|error| failed(error.to_string()))?;
                }
                if !path.is_dir() {
                    return Err(failed("there is no such directory".to_owned()));
                }
                let store = LocalFileSystem::new_with_prefix(path).map_err(text)?.with_fsync(true);
                (Arc::new(store), Path::default(), Kind::Directory(path.clone()))
            }
            At::Web(url) => {
                let build = |client| {
                    let builder = HttpBuilder::new().with_url(url.as_str());
                    builder.with_client_options(client).with_retry(retry.clone()).build()
                };
                let store = build(client.clone()).or_else(|error| {
                    // An image with nothing but the binary has no certificates of authorities, and the client will
                    // not be built without, not even to use none.
                    let plain = url.scheme() == "http";
                    if plain { build(client.with_allow_invalid_certificates(true)) } else { Err(error) }
                });
                let store = store.map_err(text)?;
                (Arc::new(store), Path::default(), Kind::ReadOnly)
            }
            At::Amazon(url, path) => {
                let builder = AmazonS3Builder::from_env().with_url(url.as_str());
                let store = builder.with_client_options(client).with_retry(retry).build().map_err(text)?;
                (Arc::new(store), path.clone(), Kind::Cloud)
            }
            At::Azure(url, path) => {
                let builder = MicrosoftAzureBuilder::from_env().with_url(url.as_str());
                let store = builder.with_client_options(client).with_retry(retry).build().map_err(text)?;
                (Arc::new(store), path.clone(), Kind::Cloud)
            }
            At::Google(url, path) => {
                let builder = GoogleCloudStorageBuilder::from_env().with_url(url.as_str());
                let store = builder.with_client_options(client).with_retry(retry).build().map_err(text)?;
                (Arc::new(store), path.clone(), Kind::Cloud)
            }
        };
        Ok(Store::new(inner, prefix, kind, self.text.clone()))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for text in [
            "/tmp/repo",
            "repo",
            "file:///tmp/repo",
            "https://policies.example.com/contoso/",
            "http://127.0.0.1:8080",
            "s3://bucket/contoso",
            "az://container/contoso",
            "gs://bucket",
        ] {
            assert_eq!(Location::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(
            Location::parse("file:///tmp/repo").unwrap().directory(),
            Some(FilePath::new("/tmp/repo"))
        );
    }

    #[test]
    fn no_places() {
        for text in ["", "ftp://host/x", "https://", "s3://"] {
            let error = Location::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("wanted a directory"), "{error}");
        }
        let error = Location::parse("https://user:secret@host/").unwrap_err().to_string();
        assert!(error.contains("environment") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn a_directory_must_exist() {
        let at = tempfile::tempdir().unwrap();
        let place = at.path().join("new");
        let location = Location::parse(place.to_str().unwrap()).unwrap();
        assert!(
            location.open(Opening::default()).unwrap_err().to_string().contains("there is no such directory")
        );
        location.open(Opening { create: true, ..Opening::default() }).unwrap();
        assert!(place.is_dir());
    }
}
