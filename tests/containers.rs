#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "tests"
)]
//! Sidecars as they are deployed: the image of the `Dockerfile`, without root, without capabilities, over a read-only
//! root, on a network with a web server (nginx) that holds the publications. Needs a Docker engine, so it runs when it is
//! asked for: `scripts/containers.sh`.
//!
//! The tests speak to a sidecar through its Unix socket in a directory that it shares with them, so that a network can be
//! taken away without taking away the questions.

mod common;
#[allow(dead_code, reason = "others use the rest")]
#[path = "common/containers.rs"]
mod containers;
#[allow(dead_code, reason = "others use the rest")]
#[path = "common/publisher.rs"]
mod publisher;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::*;
use containers::*;
use jiff::Timestamp;
use postern::proto::v1;
use postern::repository::{Lifetimes, Recover};
use publisher::{Publisher, denies};
use testcontainers::ImageExt;
use testcontainers::core::{AccessMode, Mount};
use testcontainers::runners::AsyncRunner;

/// How often a sidecar is killed.
const KILLS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Docker: scripts/containers.sh"]
async fn each_sidecar_moves_with_each_publication() {
    let mut place = Place::new().await;
    let mut sidecars = Vec::new();
    // Before there is a source.
    for interval in ["200ms", "1s", "5s"] {
        let desk = Desk::new();
        let sidecar = place.sidecar(&desk, &["--poll-interval", interval]).start().await.unwrap();
        let client = desk.client().await;
        assert_eq!(decision(&client).await.unwrap_err().code(), tonic::Code::Unavailable);
        tells(&client, &place.host).await;
        sidecars.push((interval, client, desk, sidecar, Vec::new()));
    }
    let web = place.web().await;
    for (_, client, ..) in &sidecars {
        eventually("the first policy", async || decision(client).await.is_ok()).await;
        assert_eq!(decision(client).await.unwrap(), v1::Decision::Allowed);
    }
    for round in 0..4 {
        // Alice loses her role and gets it back: what counts is when the answer is another one.
        let wanted = if round % 2 == 0 {
            revoke_alice(place.publisher.policy.path());
            v1::Decision::NotAllowed
        } else {
            write_policy(place.publisher.policy.path());
            v1::Decision::Allowed
        };
        place.publisher.publish().await;
        let published = Instant::now();
        let waits = sidecars.iter_mut().map(async |(_, client, _, _, times)| {
            eventually("the answer", async || decision(client).await.unwrap() == wanted).await;
            times.push(published.elapsed());
        });
        futures_util::future::join_all(waits).await;
    }
    println!("from published to enforced, by poll interval:");
    for (interval, _, _, sidecar, times) in &mut sidecars {
        times.sort();
        let told: Vec<String> = times.iter().map(|time| format!("{} ms", time.as_millis())).collect();
        println!("  {interval:>5}  {}", told.join("  "));
        let user =
            docker(&["inspect", "--format", "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}}", sidecar.id()]);
        assert_eq!(user, "65532:65532 true");
    }
    drop(web);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Docker: scripts/containers.sh"]
async fn cut_off_for_long_and_back_again() {
    let mut place = Place::new().await;
    let web = place.web().await;
    let desk = Desk::new();
    let more = ["--poll-interval", "200ms", "--max-age", "2s", "--when-stale", "control=read-only,data=deny"];
    let sidecar = place.sidecar(&desk, &more).start().await.unwrap();
    let client = desk.client().await;
    eventually("the policy", async || decision(&client).await.is_ok()).await;
    let first = serial(&status(&client).await);

    place.cut(&sidecar);
    let freshness = async |client| status(client).await.policy.unwrap().freshness();
    eventually("staleness", async || freshness(&client).await == v1::PolicyFreshness::Stale).await;
    tells(&client, &place.host).await;
    assert_eq!(decision(&client).await.unwrap(), v1::Decision::Allowed, "reading is still answered");
    for action in [DELETE, GET_SECRET] {
        let refused = client.clone().check(request(ALICE, action, &vault("app"))).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable, "{action}");
    }
    revoke_alice(place.publisher.policy.path());
    let second = place.publisher.publish().await.serial;

    // Killed and started again, with nobody there: the disk serves it.
    kill(&sidecar);
    start(&sidecar);
    let client = desk.client().await;
    eventually("the policy that was kept", async || serial(&status(&client).await) == first).await;
    assert_eq!(decision(&client).await.unwrap(), v1::Decision::Allowed);
    assert_eq!(status(&client).await.publication.unwrap().source, "state");

    place.mend(&sidecar);
    reaches(&client, second).await;
    assert_eq!(decision(&client).await.unwrap(), v1::Decision::NotAllowed);
    eventually("freshness", async || freshness(&client).await == v1::PolicyFreshness::Fresh).await;

    // The other way of being gone: the server itself.
    docker(&["pause", web.id()]);
    eventually("staleness", async || freshness(&client).await == v1::PolicyFreshness::Stale).await;
    assert_eq!(decision(&client).await.unwrap(), v1::Decision::NotAllowed);
    docker(&["unpause", web.id()]);
    eventually("freshness", async || freshness(&client).await == v1::PolicyFreshness::Fresh).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Docker: scripts/containers.sh"]
async fn what_is_not_as_it_was_signed_changes_nothing() {
    let mut place = Place::new().await;
    let web = place.web().await;
    let desk = Desk::new();
    let limit = (largest_bundle(&place.publisher) + 4_000).to_string();
    let more = ["--poll-interval", "200ms", "--max-bundle-bytes", &limit];
    let _sidecar = place.sidecar(&desk, &more).start().await.unwrap();
    let client = desk.client().await;
    eventually("the policy", async || decision(&client).await.is_ok()).await;
    let first = serial(&status(&client).await);
    let still = async |serial_wanted: u64, wanted: &str| {
        tells(&client, wanted).await;
        assert_eq!(serial(&status(&client).await), serial_wanted, "{wanted}");
        assert_eq!(decision(&client).await.unwrap(), v1::Decision::Allowed);
    };
    let put = |files: &[(PathBuf, Vec<u8>)]| {
        for (path, bytes) in files {
            std::fs::write(path, bytes).unwrap();
        }
    };
    let yesterday = place.publisher.metadata();

    // The server is stopped while a bundle is spoilt, or the sidecar might be faster.
    type Spoil = fn(&mut Vec<u8>);
    let flip: Spoil = |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    };
    let cut: Spoil = |bytes| bytes.truncate(bytes.len() / 2);
    let grow: Spoil = |bytes| bytes.extend_from_slice(&[0; 64]);
    let mut good = first;
    for (number, (spoil, wanted)) in
        [(flip, "its hash"), (cut, "its length"), (grow, "its length")].into_iter().enumerate()
    {
        docker(&["pause", web.id()]);
        good += 1;
        assert_eq!(place.publisher.publish_another(number).await.serial, good);
        let path = newest_bundle(&place.publisher);
        let whole = std::fs::read(&path).unwrap();
        let mut spoilt = whole.clone();
        spoil(&mut spoilt);
        std::fs::write(&path, &spoilt).unwrap();
        docker(&["unpause", web.id()]);
        still(good - 1, wanted).await;
        std::fs::write(&path, &whole).unwrap();
        recovers(&client).await;
        reaches(&client, good).await;
    }

    // Yesterday's metadata, each file of which was signed.
    let today = place.publisher.metadata();
    put(&yesterday);
    still(good, "`timestamp` was rolled back").await;
    put(&today);
    recovers(&client).await;

    // Something else than what was signed.
    let timestamp = place.publisher.repository().join("timestamp.json");
    let text = std::fs::read_to_string(&timestamp).unwrap();
    std::fs::write(&timestamp, text.replacen("\"expires\": \"2", "\"expires\": \"3", 1)).unwrap();
    still(good, "the signature of `timestamp` is wrong").await;
    put(&today);
    recovers(&client).await;

    // Signed by somebody else's keys.
    let stranger = Publisher::new().await;
    std::fs::copy(stranger.repository().join("timestamp.json"), &timestamp).unwrap();
    still(good, "does not name for it").await;
    put(&today);
    recovers(&client).await;

    // Frozen: what is shown is past its expiry.
    let short = Lifetimes { timestamp: "2s".parse().unwrap(), ..Lifetimes::default() };
    place.publisher.repository.refresh(short, Recover::No, Timestamp::now()).await.unwrap();
    tells(&client, "`timestamp` is frozen").await;
    let refused = decision(&client).await.unwrap_err();
    assert!(refused.message().contains("expired"), "{refused:?}");
    place.publisher.repository.refresh(Lifetimes::default(), Recover::No, Timestamp::now()).await.unwrap();
    recovers(&client).await;
    assert_eq!(decision(&client).await.unwrap(), v1::Decision::Allowed);

    // Larger than the setting: refused by what is signed, before anything is read.
    std::fs::write(place.publisher.policy.path().join("large.json"), denies(1_000..1_060)).unwrap();
    place.publisher.publish().await;
    still(good, "is larger than").await;
}

fn bundles(publisher: &Publisher) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(publisher.repository().join("targets")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn largest_bundle(publisher: &Publisher) -> u64 {
    bundles(publisher).iter().map(|path| std::fs::metadata(path).unwrap().len()).max().unwrap()
}

fn newest_bundle(publisher: &Publisher) -> PathBuf {
    let written = |path: &PathBuf| std::fs::metadata(path).unwrap().modified().unwrap();
    bundles(publisher).into_iter().max_by_key(written).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Docker: scripts/containers.sh"]
async fn killed_at_any_moment_it_goes_on_with_a_whole_policy() {
    let mut place = Place::new().await;
    // Over a thin line this takes a quarter of a second, so that a download is often cut in the middle.
    std::fs::write(place.publisher.policy.path().join("many.json"), denies(0..250)).unwrap();
    place.publisher.publish().await;
    let _web = place.web().await;
    let desk = Desk::new();
    let thin = format!("{}slow/", place.url());
    let online = place.sidecar_at(&thin, &desk, &["--poll-interval", "100ms"]).with_network(&place.network);
    let online = online.start().await.unwrap();
    let client = desk.client().await;
    eventually("the policy", async || decision(&client).await.is_ok()).await;
    let mut last = serial(&status(&client).await);
    kill(&online);
    // The same sidecar without any network.
    let offline = place.sidecar_at(&thin, &desk, &["--poll-interval", "100ms"]).with_network("none");
    let offline = offline.start().await.unwrap();
    kill(&offline);

    let (mut moved, mut downloading) = (0, 0);
    for round in 0..KILLS {
        start(&online);
        let before = desk.client().await;
        eventually("the policy that was kept", async || decision(&before).await.is_ok()).await;
        let newest = place.publisher.publish_another(10_000 + round).await.serial;
        // Spread over what noticing, a download and an activation take.
        tokio::time::sleep(Duration::from_millis((round as u64 * 79) % 500)).await;
        kill(&online);
        downloading += usize::from(has_files(&desk.state().join("incoming")));

        start(&offline);
        let client = desk.client().await;
        eventually("a policy", async || decision(&client).await.is_ok()).await;
        let now = serial(&status(&client).await);
        assert!(now >= last && now <= newest, "round {round}: {now} after {last}");
        assert_eq!(decision(&client).await.unwrap(), v1::Decision::Allowed);
        moved += usize::from(now == newest);
        last = now;
        kill(&offline);
        let told = log(&offline);
        assert!(!told.contains("is not used"), "round {round}: {told}");
    }
    println!("of {KILLS} kills, {downloading} cut a download and {moved} came after the activation");
    assert!(moved > 0 && moved < KILLS && downloading > 0, "killed too early or too late each time");
}

fn has_files(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Docker: scripts/containers.sh"]
async fn a_state_directory_that_cannot_be_written() {
    let mut place = Place::new().await;
    let _web = place.web().await;

    // Full: a file system with less room than a bundle.
    let desk = Desk::new();
    let large = denies(0..400);
    std::fs::write(place.publisher.policy.path().join("large.json"), large).unwrap();
    let volume = unique("state");
    let size = "o=size=64k,mode=0777";
    docker(&["volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", size, &volume]);
    let full = place.sidecar(&desk, &["--poll-interval", "200ms", "--state-dir", "/full"]);
    let full = full.with_mount(Mount::volume_mount(&volume, "/full")).start().await.unwrap();
    let client = desk.client().await;
    eventually("the first policy", async || decision(&client).await.is_ok()).await;
    let second = place.publisher.publish().await.serial;
    reaches(&client, second).await;
    assert_eq!(decision(&client).await.unwrap(), v1::Decision::Allowed);
    eventually("what the log says", async || log(&full).contains("held in memory instead")).await;
    assert!(log(&full).contains("No space left on device"), "{}", log(&full));
    drop(full);
    docker(&["volume", "rm", "--force", &volume]);

    // Read-only: what is kept serves a start, what comes is held in memory.
    let desk = Desk::new();
    let writable = place.sidecar(&desk, &["--poll-interval", "200ms"]).start().await.unwrap();
    let client = desk.client().await;
    eventually("the policy", async || decision(&client).await.is_ok()).await;
    eventually("what is kept", async || has_files(&desk.state().join("bundles"))).await;
    drop((client, writable));
    let kept =
        Mount::bind_mount(desk.state().to_str().unwrap(), "/kept").with_access_mode(AccessMode::ReadOnly);
    let more = ["--poll-interval", "200ms", "--state-dir", "/kept"];
    let reading = place.sidecar(&desk, &more).with_mount(kept).start().await.unwrap();
    let client = desk.client().await;
    reaches(&client, second).await;
    revoke_alice(place.publisher.policy.path());
    let third = place.publisher.publish().await.serial;
    reaches(&client, third).await;
    assert_eq!(decision(&client).await.unwrap(), v1::Decision::NotAllowed);
    let told = log(&reading);
    assert!(told.contains("Read-only file system") && told.contains("held in memory instead"), "{told}");
    drop(reading);
}
