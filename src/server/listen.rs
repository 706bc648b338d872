//! Listeners: bound before anything serves, so that a conflict fails the start and nothing is half up.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener, UnixStream};

/// Longer than a live process on the same machine takes to accept.
const PROBE: Duration = Duration::from_secs(1);

/// Why a listener cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A TCP address.
    #[error("cannot listen on `{address}` (`--{setting}`): {source}")]
    Tcp {
        /// The setting that names it.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
    /// Somebody answers on the socket.
    #[error(
        "cannot listen on `{}` (`--uds`): another process listens there; stop it or choose another path",
        .0.display()
    )]
    SocketInUse(PathBuf),
    /// The path is something that must not be removed.
    #[error(
        "cannot listen on `{}` (`--uds`): the file exists and is no socket; remove it or choose another path",
        .0.display()
    )]
    NotASocket(PathBuf),
    /// Anything else about the socket.
    #[error("cannot listen on `{}` (`--uds`): {step}: {source}", .path.display())]
    Socket {
        /// The path.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// The system's word.
        source: io::Error,
    },
}

/// A socket file of ours: removed when dropped, unless another process has put its own in the place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

/// Binds a TCP listener; the setting is named when it fails.
pub async fn tcp(setting: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError::Tcp { setting, address, source })
}

/// Binds a Unix socket. A file that a dead process left behind is replaced; a live one is left alone.
pub async fn unix(path: &Path, mode: u32) -> Result<(UnixListener, SocketFile), ListenError> {
    let failed = |step: &'static str| {
        move |source: io::Error| ListenError::Socket { path: path.to_owned(), step, source }
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("looking for the file")(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(ListenError::NotASocket(path.to_owned())),
        Ok(_) => {
            // Whoever refuses is dead. A full backlog or a slow answer is somebody alive.
            let probe = tokio::time::timeout(PROBE, UnixStream::connect(path)).await;
            match probe {
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(failed("removing the socket of a dead process"))?;
                    tracing::info!(path = %path.display(), "removed the socket of a dead process");
                }
                // Gone in the meantime.
                Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(failed("asking whether the socket is in use")(error));
                }
                _ => return Err(ListenError::SocketInUse(path.to_owned())),
            }
        }
    }
    let listener = UnixListener::bind(path).map_err(failed("binding"))?;
    let identity = identity(path).map_err(failed("reading the new socket file"))?;
    // From here on the file goes away with the guard, also when the mode cannot be set.
    let file = SocketFile { path: path.to_owned(), identity };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed("setting the mode"))?;
    Ok((listener, file))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

impl SocketFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // What stays behind is found dead by the next start.
            let _ignored = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_ours_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind");
        let (_listener, file) = unix(&path, 0o600).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(file);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_live_socket_and_other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (live, file) = (dir.path().join("live"), dir.path().join("file"));
        let _listener = std::os::unix::net::UnixListener::bind(&live).unwrap();
        fs::write(&file, "precious").unwrap();
        assert!(matches!(unix(&live, 0o600).await, Err(ListenError::SocketInUse(_))));
        assert!(matches!(unix(&file, 0o600).await, Err(ListenError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }

    #[tokio::test]
    async fn the_socket_of_a_successor_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (listener, file) = unix(&path, 0o600).await.unwrap();
        // Rename keeps the old inode in use, so that the successor's differs.
        fs::rename(&path, dir.path().join("old")).unwrap();
        let _successor = std::os::unix::net::UnixListener::bind(&path).unwrap();
        drop((listener, file));
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_missing_directory_is_named() {
        let error = unix(Path::new("/nonexistent/dir/s"), 0o600).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot listen on `/nonexistent/dir/s` (`--uds`): binding: "), "{error}");
    }
}
