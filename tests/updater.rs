#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    reason = "tests"
)]
//! Sidecars that follow signed publications: real processes, a real repository in a directory and behind a web
//! server, real keys.

mod common;
#[allow(dead_code, reason = "others use the rest")]
#[path = "common/files.rs"]
mod files;
#[allow(dead_code, reason = "others use the rest")]
#[path = "common/publisher.rs"]
mod publisher;

use std::path::Path;
use std::time::Duration;

use common::*;
use files::{FileServer, Mood};
use jiff::Timestamp;
use postern::proto::v1;
use postern::proto::v1::authorization_service_client::AuthorizationServiceClient;
use postern::repository::{
    About, Keys, Lifetimes, Location, Opening, Options, Recover, Repository, RoleType,
};
use publisher::{Publisher, denies};
use tokio_stream::StreamExt;
use tonic::transport::Channel;

fn serve(source: &str, root: &str, more: &[&str]) -> Process {
    let arguments = ["--source", source, "--trusted-root", root, "--poll-interval", "100ms"];
    Process::serve(&[&arguments, more].concat(), &[])
}

async fn client(process: &Process) -> AuthorizationServiceClient<Channel> {
    AuthorizationServiceClient::new(connect_tcp(process.tcp).await)
}

async fn status(client: &AuthorizationServiceClient<Channel>) -> v1::PolicyStatus {
    let answer = client.clone().get_policy_status(v1::GetPolicyStatusRequest {}).await.unwrap();
    answer.into_inner().status.unwrap()
}

fn serial(status: &v1::PolicyStatus) -> u64 {
    status.policy.as_ref().map_or(0, |policy| policy.serial)
}

async fn reaches(client: &AuthorizationServiceClient<Channel>, wanted: u64) {
    eventually(&format!("serial {wanted}"), async || serial(&status(client).await) == wanted).await;
}

/// The problem that is told, once one is.
async fn problem(client: &AuthorizationServiceClient<Channel>) -> String {
    eventually("a problem", async || !status(client).await.update_problems.is_empty()).await;
    status(client).await.update_problems.join("; ")
}

async fn may_alice_read(
    client: &AuthorizationServiceClient<Channel>,
) -> Result<v1::CheckResponse, tonic::Status> {
    client.clone().check(request(ALICE, READ, &vault("app"))).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_moves_with_each_publication() {
    let mut publisher = Publisher::new().await;
    let process = serve(publisher.repository().to_str().unwrap(), &publisher.root(), &[]);
    process.ready().await;
    let client = client(&process).await;
    let mut watch = client.clone().watch_policy(v1::WatchPolicyRequest {}).await.unwrap().into_inner();
    let first = watch.next().await.unwrap().unwrap().status.unwrap();
    let publication = first.publication.unwrap();
    assert_eq!(
        (publication.policy_name.as_str(), publication.published_by.as_str()),
        ("vaults", "the tests")
    );
    let answer = may_alice_read(&client).await.unwrap();
    assert_eq!(answer.result.as_ref().unwrap().decision(), v1::Decision::Allowed);
    let identity = answer.policy.unwrap();
    assert_eq!(identity.freshness(), v1::PolicyFreshness::Fresh);
    // What expiry ends may not be kept by who asked.
    let until = answer.result.unwrap().valid_until.unwrap();
    assert_eq!(Some(until), publication.expires_at);

    revoke_alice(publisher.policy.path());
    let second = publisher.publish().await;
    assert_eq!(second.serial, identity.serial + 1);
    let told = watch.next().await.unwrap().unwrap().status.unwrap();
    assert_eq!(serial(&told), second.serial);
    assert_eq!(told.policy.unwrap().digest, second.policy_digest);
    let answer = may_alice_read(&client).await.unwrap();
    assert_eq!(answer.result.unwrap().decision(), v1::Decision::NotAllowed);

    // Back is forward: older content is a new publication.
    let options = Options::default();
    let rolled = publisher.repository.rollback(identity.serial, About::default(), options, Timestamp::now());
    let rolled = rolled.await.unwrap().publication;
    assert_eq!((rolled.serial, rolled.rolled_back_to), (second.serial + 1, Some(identity.serial)));
    reaches(&client, rolled.serial).await;
    let answer = may_alice_read(&client).await.unwrap();
    assert_eq!(answer.result.unwrap().decision(), v1::Decision::Allowed);
    assert_eq!(answer.policy.unwrap().digest, identity.digest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_waits_for_its_source_and_an_unchanged_one_costs_one_small_request() {
    let publisher = Publisher::new().await;
    let server = FileServer::start(publisher.repository()).await;
    server.set(Mood::Down);
    let process = serve(&server.url(), &publisher.root(), &[]);
    let client = client(&process).await;
    assert!(problem(&client).await.contains("503"), "{}", problem(&client).await);
    assert_eq!(http(process.admin, "/readyz").await.0, 503);
    assert_eq!(may_alice_read(&client).await.unwrap_err().code(), tonic::Code::Unavailable);
    server.set(Mood::Well);
    process.ready().await;

    // The first seconds of a timestamp are read whole, since its entity tag need not be its own yet.
    eventually("an answer without a body", async || {
        server.answers().iter().any(|(_, status, _)| *status == 304)
    })
    .await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let answers = server.answers();
    assert!(answers.len() > 2, "{answers:?}");
    let small = |(path, status, bytes): &(String, u16, usize)| {
        (path.as_str(), *status, *bytes) == ("timestamp.json", 304, 0)
    };
    assert!(answers.iter().all(small), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_as_it_was_signed_changes_nothing() {
    let mut publisher = Publisher::new().await;
    let before = publisher.metadata();
    let server = FileServer::start(publisher.repository()).await;
    let state = tempfile::tempdir().unwrap();
    let limit = std::fs::metadata(bundle_file(&publisher)).unwrap().len() + 2_000;
    let limit = limit.to_string();
    let more = ["--state-dir", state.path().to_str().unwrap(), "--max-bundle-bytes", &limit];
    let process = serve(&server.url(), &publisher.root(), &more);
    process.ready().await;
    let client = client(&process).await;
    let first = serial(&status(&client).await);
    let still = async |wanted: &str| {
        eventually(wanted, async || problem(&client).await.contains(wanted)).await;
        assert_eq!(serial(&status(&client).await), first, "{wanted}");
        assert_eq!(may_alice_read(&client).await.unwrap().result.unwrap().decision(), v1::Decision::Allowed);
    };

    for (mood, wanted) in [(Mood::CutShort, "its length"), (Mood::Corrupt, "its hash")] {
        server.set(mood);
        publisher.publish_another(wanted.len()).await;
        still(wanted).await;
    }
    server.set(Mood::Well);
    let good = serial(&wait_for_recovery(&client).await);
    assert!(good > first);

    // Somebody who can write to the source puts yesterday back.
    let now = publisher.metadata();
    let put = |files: &[(std::path::PathBuf, Vec<u8>)]| {
        for (path, bytes) in files {
            std::fs::write(path, bytes).unwrap();
        }
    };
    put(&before);
    eventually("the refusal", async || problem(&client).await.contains("`timestamp` was rolled back")).await;
    assert_eq!(serial(&status(&client).await), good);
    put(&now);
    wait_for_recovery(&client).await;

    // Or edits what is signed.
    let timestamp = publisher.repository().join("timestamp.json");
    let text = std::fs::read_to_string(&timestamp).unwrap();
    let edited = text.replacen("\"expires\": \"2", "\"expires\": \"3", 1);
    assert_ne!(edited, text);
    std::fs::write(&timestamp, edited).unwrap();
    eventually("the refusal", async || {
        problem(&client).await.contains("the signature of `timestamp` is wrong")
    })
    .await;
    put(&now);
    wait_for_recovery(&client).await;

    // Too large for the setting: refused by what is signed, before anything is read.
    std::fs::write(publisher.policy.path().join("large.json"), denies(1_000..1_050)).unwrap();
    server.answers();
    publisher.publish().await;
    eventually("the refusal", async || problem(&client).await.contains("is larger than")).await;
    assert_eq!(serial(&status(&client).await), good);
    assert!(!server.answers().iter().any(|(path, ..)| path.ends_with(".bundle")));
}

async fn wait_for_recovery(client: &AuthorizationServiceClient<Channel>) -> v1::PolicyStatus {
    eventually("the recovery", async || status(client).await.update_problems.is_empty()).await;
    status(client).await
}

fn bundle_file(publisher: &Publisher) -> std::path::PathBuf {
    fn find(directory: &Path) -> Option<std::path::PathBuf> {
        let mut entries: Vec<_> =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries.into_iter().find_map(|path| {
            if path.is_dir() {
                find(&path)
            } else {
                path.extension().is_some_and(|extension| extension == "bundle").then_some(path)
            }
        })
    }
    find(&publisher.repository()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_needs_no_network_and_forgets_no_serial() {
    let mut publisher = Publisher::new().await;
    let before = publisher.metadata();
    let second = publisher.publish_another(1).await;
    let server = FileServer::start(publisher.repository()).await;
    let state = tempfile::tempdir().unwrap();
    let more = ["--state-dir", state.path().to_str().unwrap()];
    let process = serve(&server.url(), &publisher.root(), &more);
    process.ready().await;

    drop(process.kill());

    server.set(Mood::Down);
    let process = serve(&server.url(), &publisher.root(), &more);
    process.ready().await;
    let there = client(&process).await;
    let told = status(&there).await;
    assert_eq!((serial(&told), told.publication.unwrap().source.as_str()), (second.serial, "state"));
    assert!(problem(&there).await.contains("503"));

    // The source comes back with what it had before.
    for (path, bytes) in &before {
        std::fs::write(path, bytes).unwrap();
    }
    server.set(Mood::Well);
    eventually("the refusal", async || problem(&there).await.contains("rolled back")).await;
    assert_eq!(serial(&status(&there).await), second.serial);

    // What was kept by another root of trust is not used.
    let other = Publisher::new().await;
    drop(process.kill());
    let process = serve(other.repository().to_str().unwrap(), &other.root(), &more);
    process.ready().await;
    assert_eq!(
        status(&client(&process).await).await.publication.unwrap().source,
        other.repository().to_str().unwrap()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_needs_no_name_service() {
    let mut publisher = Publisher::new().await;
    let published = publisher.publish_another(1).await;
    let state = tempfile::tempdir().unwrap();
    let more = ["--state-dir", state.path().to_str().unwrap()];
    let process = serve(publisher.repository().to_str().unwrap(), &publisher.root(), &more);
    process.ready().await;
    drop(process.kill());

    // A name that the standard keeps from ever existing.
    let source = "http://repository.invalid/vaults";
    let process = serve(source, &publisher.root(), &more);
    process.ready().await;
    let client = client(&process).await;
    let answer = may_alice_read(&client).await.unwrap();
    assert_eq!(answer.result.unwrap().decision(), v1::Decision::Allowed);
    assert_eq!(answer.policy.unwrap().serial, published.serial);
    assert!(problem(&client).await.contains("repository.invalid"));
    assert!(may_alice_read(&client).await.is_ok(), "the failure changed nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_thief_published_goes_with_the_keys_though_its_number_comes_again() {
    let mut publisher = Publisher::new().await;
    let process = serve(publisher.repository().to_str().unwrap(), &publisher.root(), &[]);
    process.ready().await;
    let client = client(&process).await;
    let honest = status(&client).await.policy.unwrap();
    let before = publisher.metadata();

    // Whoever has the keys of all but the root takes Alice's right away.
    revoke_alice(publisher.policy.path());
    let stolen = publisher.publish().await;
    reaches(&client, stolen.serial).await;
    assert_eq!(may_alice_read(&client).await.unwrap().result.unwrap().decision(), v1::Decision::NotAllowed);

    // The owner goes on from a copy of the day before, with new keys: the next number is the thief's once more.
    for (path, bytes) in &before {
        std::fs::write(path, bytes).unwrap();
    }
    for entry in std::fs::read_dir(publisher.repository()).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_file() && !before.iter().any(|(kept, _)| *kept == entry) {
            std::fs::remove_file(entry).unwrap();
        }
    }
    let keys = Keys::open(&publisher.dir.path().join("keys")).unwrap();
    let store = Location::parse(publisher.repository().to_str().unwrap()).unwrap();
    let store = store.open(Opening::default()).unwrap();
    let mut owner = Repository::open(store, keys, Recover::Yes).await.unwrap();
    for role in [RoleType::Timestamp, RoleType::Snapshot, RoleType::Targets] {
        let (lifetimes, now) = (Lifetimes::default(), Timestamp::now());
        owner.rotate_key(role, "the owner", lifetimes, Recover::Yes, now).await.unwrap();
    }
    eventually("the honest policy", async || {
        status(&client).await.policy.is_some_and(|policy| policy.digest == honest.digest)
    })
    .await;
    assert_eq!(serial(&status(&client).await), stolen.serial, "or this shows nothing");
    assert_eq!(may_alice_read(&client).await.unwrap().result.unwrap().decision(), v1::Decision::Allowed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_source_does_not_stop_another() {
    let mut publisher = Publisher::new().await;
    let server = FileServer::start(publisher.repository()).await;
    server.set(Mood::Down);
    let mirror = publisher.repository();
    let sources = format!("{},{}", server.url(), mirror.display());
    let process = serve(&sources, &publisher.root(), &[]);
    process.ready().await;
    let client = client(&process).await;
    let told = status(&client).await;
    assert_eq!(told.publication.unwrap().source, mirror.to_str().unwrap());
    assert!(wait_for_recovery(&client).await.update_problems.is_empty(), "one of them answers");
    let second = publisher.publish_another(1).await;
    reaches(&client, second.serial).await;
    // The first is preferred when it is back.
    server.set(Mood::Well);
    for _ in 0..100 {
        let third = publisher.publish_another(3).await;
        reaches(&client, third.serial).await;
        if status(&client).await.publication.unwrap().source == server.url() {
            return;
        }
    }
    panic!("the first source is never asked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_old_is_told_and_answers_by_the_rules() {
    let mut publisher = Publisher::empty().await;
    let short = Lifetimes { timestamp: "4s".parse().unwrap(), ..Lifetimes::default() };
    publisher.publish_for(short).await;
    let server = FileServer::start(publisher.repository()).await;
    let more = ["--max-age", "1s", "--when-expired", "control=read-only,data=deny"];
    let process = serve(&server.url(), &publisher.root(), &more);
    process.ready().await;
    let client = client(&process).await;
    let freshness = async || status(&client).await.policy.unwrap().freshness();
    assert_eq!(freshness().await, v1::PolicyFreshness::Fresh);
    server.set(Mood::Down);
    eventually("staleness", async || freshness().await == v1::PolicyFreshness::Stale).await;
    let answer = may_alice_read(&client).await.unwrap();
    assert_eq!(answer.result.unwrap().decision(), v1::Decision::Allowed, "served and reported");
    assert_eq!(answer.policy.unwrap().freshness(), v1::PolicyFreshness::Stale);
    eventually("the metric", async || {
        let (_, text) = http(process.admin, "/metrics").await;
        text.contains("postern_policy_freshness{state=\"stale\"} 1\n")
    })
    .await;
    let (code, text) = http(process.admin, "/readyz").await;
    assert!(code == 200 && text.contains(", stale\n"), "{text}");

    eventually("expiry", async || freshness().await == v1::PolicyFreshness::Expired).await;
    assert_eq!(may_alice_read(&client).await.unwrap().result.unwrap().decision(), v1::Decision::Allowed);
    for action in [DELETE, GET_SECRET] {
        let refused = client.clone().check(request(ALICE, action, &vault("app"))).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unavailable);
        assert!(refused.message().contains("the active policy is expired"), "{refused:?}");
    }
    // Frozen metadata does not become believable by being there again.
    server.set(Mood::Well);
    eventually("the refusal", async || problem(&client).await.contains("`timestamp` is frozen")).await;
    assert_eq!(freshness().await, v1::PolicyFreshness::Expired);

    publisher.repository.refresh(Lifetimes::default(), Recover::No, Timestamp::now()).await.unwrap();
    eventually("freshness", async || freshness().await == v1::PolicyFreshness::Fresh).await;
    let answer = client.clone().check(request(ALICE, DELETE, &vault("app"))).await.unwrap().into_inner();
    assert_eq!(answer.policy.unwrap().generation, 1, "a renewed signature is no activation");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_it_goes_on_with_a_whole_policy() {
    let mut publisher = Publisher::new().await;
    let server = FileServer::start(publisher.repository()).await;
    let state = tempfile::tempdir().unwrap();
    let more = ["--state-dir", state.path().to_str().unwrap()];
    let first = serve(&server.url(), &publisher.root(), &more);
    first.ready().await;
    drop(first.kill());
    let (mut last, mut moved) = (0, 0);
    for round in 0..KILLS {
        server.set(Mood::Well);
        let newest = publisher.publish_another(round).await.serial;
        let process = serve(&server.url(), &publisher.root(), &more);
        // Spread over what a start, a download and an activation take.
        tokio::time::sleep(Duration::from_micros((round as u64 * 7919) % 40_000)).await;
        drop(process.kill());

        // Without a source there is only what it kept.
        server.set(Mood::Down);
        let process = serve(&server.url(), &publisher.root(), &more);
        process.ready().await;
        let client = client(&process).await;
        let now = serial(&status(&client).await);
        assert!(now >= last && now <= newest, "round {round}: {now} after {last}");
        moved += usize::from(now == newest);
        last = now;
        assert_eq!(may_alice_read(&client).await.unwrap().result.unwrap().decision(), v1::Decision::Allowed);
        let log = process.kill();
        assert!(!log.contains("is not used"), "round {round}: {log}");
    }
    println!("{moved} of {KILLS} were killed after they had moved");
    assert!(moved > 0 && moved < KILLS, "killed too early or too late each time: {moved}");
}

const KILLS: usize = 100;
