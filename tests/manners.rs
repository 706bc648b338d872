//! How a sidecar behaves towards who comes, how many and how late, and on which machine: real processes, real sockets,
//! real users.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::*;
use tempfile::TempDir;

/// A socket that every user of the machine may connect to.
struct Socket {
    _dir: TempDir,
    path: PathBuf,
}

fn open_socket() -> Socket {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let path = dir.path().join("postern.sock");
    Socket { _dir: dir, path }
}

/// A number of the metrics, 0 when there is none of this name and labels.
async fn number(process: &Process, line: &str) -> u64 {
    let (_, metrics) = http(process.admin, "/metrics").await;
    let value = metrics.lines().find_map(|found| found.strip_prefix(line));
    value.map_or(0, |value| value.trim().parse().unwrap())
}

/// `postern status` over the socket, by this user and group.
fn status_as(socket: &Path, who: Option<(u32, u32)>) -> Output {
    let mut command = postern();
    command.args(["status", "--connect"]).arg(format!("unix://{}", socket.display()));
    if let Some((uid, gid)) = who {
        command.uid(uid).gid(gid);
    }
    command.output().unwrap()
}

/// Only root can be somebody else.
fn is_root() -> bool {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        eprintln!("SKIPPED: only root can start clients of other users");
    }
    root
}

// === who may ask ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_answers_those_who_are_listed() {
    let (policy, socket) = (policy(), open_socket());
    let own = fs::metadata("/proc/self").unwrap();
    let own = (own.uid(), own.gid());
    let start = |lists: &[&str]| {
        let base = ["--uds", socket.path.to_str().unwrap(), "--uds-mode", "0666"];
        Process::start(policy.path(), &[&base, lists].concat(), &[])
    };
    let refused = "postern_connections_refused_total{reason=\"peer\",transport=\"unix\"}";

    let (uid, gid) = (own.0.to_string(), own.1.to_string());
    for list in [["--uds-allow-uids", &uid], ["--uds-allow-gids", &gid]] {
        let process = start(&list);
        process.ready().await;
        let output = status_as(&socket.path, None);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(number(&process, refused).await, 0);
    }

    let process = start(&["--uds-allow-uids", "54321", "--uds-allow-gids", "54322"]);
    process.ready().await;
    for _ in 0..3 {
        let output = status_as(&socket.path, None);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
    // A client may try again by itself.
    assert!(number(&process, refused).await >= 3);
    let told = format!("uid {}, gid {}, pid ", own.0, own.1);
    assert_eq!(process.log().matches(&told).count(), 1, "once, not each time: {}", process.log());
    assert_eq!(number(&process, "postern_connections{transport=\"unix\"}").await, 0);

    if is_root() {
        for (who, may) in [((54321, 9), true), ((9, 54322), true), ((9, 9), false), ((54322, 54321), false)] {
            let output = status_as(&socket.path, Some(who));
            assert_eq!(output.status.success(), may, "{who:?}: {output:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_lists_the_mode_decides() {
    if !is_root() {
        return;
    }
    let (policy, socket) = (policy(), open_socket());
    let process =
        Process::start(policy.path(), &["--uds", socket.path.to_str().unwrap(), "--uds-mode", "0660"], &[]);
    process.ready().await;
    let output = status_as(&socket.path, Some((9, 9)));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"), "{output:?}");
    fs::set_permissions(&socket.path, Permissions::from_mode(0o666)).unwrap();
    assert!(status_as(&socket.path, Some((9, 9))).status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_is_closed() {
    let (policy, socket) = (policy(), open_socket());
    let arguments = ["--uds", socket.path.to_str().unwrap(), "--max-connections", "1"];
    let process = Process::start(policy.path(), &arguments, &[]);
    process.ready().await;
    let first = connect_uds(&socket.path).await;
    // The greeting is answered, so it is the one that is open.
    let open = "postern_connections{transport=\"unix\"}";
    eventually("the first", async || number(&process, open).await == 1).await;
    assert!(!status_as(&socket.path, None).status.success());
    let refused = "postern_connections_refused_total{reason=\"limit\",transport=\"unix\"}";
    assert!(number(&process, refused).await > 0);
    // The other listener has places of its own.
    connect_tcp(process.tcp).await;
    drop(first);
    eventually("a place", async || status_as(&socket.path, None).status.success()).await;
}
