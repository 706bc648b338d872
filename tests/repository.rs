//! Publishing and reading publications: over directories, over HTTP, and against whoever would have a reader believe
//! what was not published.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "tests"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use postern::repository::{
    About, Client, EntryState, KeyError, Keys, Lifetime, Lifetimes, Limits, Location, Opening, Options, Poll,
    PollError, Publication, PublishError, Published, Recover, Refused, Repository, RoleType, Store,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[path = "common/files.rs"]
#[allow(dead_code, reason = "others use the rest")]
mod files;

use files::FileServer;

const DAY: SignedDuration = SignedDuration::from_hours(24);
const ROLES: [RoleType; 4] = [RoleType::Root, RoleType::Targets, RoleType::Snapshot, RoleType::Timestamp];

/// Where a publisher works.
struct World {
    dir: TempDir,
    now: Timestamp,
}

impl World {
    async fn new(dev: bool) -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap(), now: Timestamp::now() };
        let keys = Keys::create(&world.keys(), dev).unwrap();
        Repository::init(world.store(), keys, Lifetimes::default(), world.now).await.unwrap();
        world
    }

    fn at(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    fn keys(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    fn store(&self) -> Store {
        open(self.at().to_str().unwrap(), true)
    }

    async fn publisher(&self) -> Repository {
        Repository::open(self.store(), Keys::open(&self.keys()).unwrap(), Recover::No).await.unwrap()
    }

    async fn publish(&self, content: &str) -> Published {
        publish(&mut self.publisher().await, content, "ops", Options::default(), self.now).await.unwrap()
    }

    /// A reader that was given the first root.
    fn client(&self) -> Client {
        Client::new(self.store(), self.first_root(), Limits::default()).unwrap()
    }

    fn first_root(&self) -> Vec<u8> {
        self.read("1.root.json")
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.at().join(name)).unwrap()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        // Another inode, so that the entity tag of a directory changes.
        fs::remove_file(self.at().join(name)).ok();
        fs::write(self.at().join(name), bytes).unwrap();
    }
}

fn open(text: &str, create: bool) -> Store {
    Location::parse(text).unwrap().open(Opening { create, ..Opening::default() }).unwrap()
}

async fn publish(
    repository: &mut Repository,
    content: &str,
    by: &str,
    options: Options,
    now: Timestamp,
) -> Result<Published, PublishError> {
    let about = About {
        policy_name: "contoso".into(),
        policy_digest: format!("sha256:{content}"),
        message: format!("publish {content}"),
        by: by.into(),
    };
    repository.publish(Bytes::from(content.to_owned()), about, options, now).await
}

async fn changed(client: &mut Client, now: Timestamp) -> Publication {
    match client.poll(now).await.unwrap() {
        Poll::Changed(publication) => publication,
        other => panic!("nothing changed: {other:?}"),
    }
}

async fn refused(client: &mut Client, now: Timestamp) -> Refused {
    match client.poll(now).await {
        Err(PollError::Refused(refused)) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

async fn bundle(client: &Client, publication: &Publication) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.download_bundle(publication, 1 << 20, &mut bytes).await.unwrap();
    bytes
}

/// Lets the loader of `tough` read the repository, and gives the bundle that it gets.
async fn loaded_by_tough(world: &World, root: &[u8]) -> Option<Vec<u8>> {
    let base = url::Url::from_directory_path(world.at()).unwrap();
    let targets = base.join("targets/").unwrap();
    let repository = tough::RepositoryLoader::new(&root, base, targets).load().await.unwrap();
    let name = tough::TargetName::new("policy.bundle").unwrap();
    let stream = repository.read_target(&name).await.unwrap()?;
    Some(tough::IntoVec::into_vec(stream).await.unwrap())
}

// === what honest people do ===

#[tokio::test]
async fn a_publication_is_read() {
    let world = World::new(false).await;
    let mut client = world.client();
    assert_eq!(client.poll(world.now).await.unwrap(), Poll::Empty);
    assert_eq!(client.current(), None);

    let published = world.publish("one").await.publication;
    assert_eq!(published.serial, 2, "the empty beginning was 1");
    let seen = changed(&mut client, world.now).await;
    assert_eq!(seen, published);
    assert_eq!((seen.published_by.as_str(), seen.message.as_str()), ("ops", "publish one"));
    assert_eq!((seen.policy_name.as_str(), seen.policy_digest.as_str()), ("contoso", "sha256:one"));
    assert_eq!(seen.expires_role, RoleType::Timestamp);
    assert_eq!(bundle(&client, &seen).await, b"one");
    assert_eq!(client.poll(world.now).await.unwrap(), Poll::Unchanged);
    assert_eq!(client.current(), Some(&seen));

    // The same bundle is no news unless it is meant to be.
    let mut publisher = world.publisher().await;
    let again = publish(&mut publisher, "one", "ops", Options::default(), world.now).await.unwrap_err();
    assert!(matches!(again, PublishError::Same { serial: 2 }), "{again}");
    let force = Options { force: true, ..Options::default() };
    let forced = publish(&mut publisher, "one", "ops", force, world.now).await.unwrap();
    assert_eq!(forced.publication.serial, 3);
}

#[tokio::test]
async fn the_loader_of_tough_reads_it() {
    let world = World::new(false).await;
    assert_eq!(loaded_by_tough(&world, &world.first_root()).await, None);
    world.publish("one").await;
    assert_eq!(loaded_by_tough(&world, &world.first_root()).await, Some(b"one".to_vec()));
    for role in ROLES {
        let mut publisher = world.publisher().await;
        publisher.rotate_key(role, "ops", Lifetimes::default(), Recover::No, world.now).await.unwrap();
        assert_eq!(loaded_by_tough(&world, &world.first_root()).await, Some(b"one".to_vec()), "{role}");
    }
    world.publish("two").await;
    assert_eq!(loaded_by_tough(&world, &world.first_root()).await, Some(b"two".to_vec()));
}

#[tokio::test]
async fn a_refreshed_timestamp_holds_for_longer() {
    let world = World::new(true).await;
    world.publish("one").await;
    let mut client = world.client();
    let first = changed(&mut client, world.now).await;

    let later = world.now + DAY * 8;
    assert!(matches!(refused(&mut client, later).await, Refused::Expired { role: RoleType::Timestamp, .. }));
    let renewed = world.publisher().await.refresh(Lifetimes::default(), Recover::No, later).await.unwrap();
    assert_eq!(renewed.snapshot, None, "it holds for long");
    match client.poll(later).await.unwrap() {
        Poll::Refreshed(publication) => {
            assert_eq!(publication.serial, first.serial);
            assert_eq!(publication.expires, renewed.expires);
        }
        other => panic!("{other:?}"),
    }

    // Near its end the snapshot is renewed, too.
    let near = world.now + DAY * 70;
    let renewed = world.publisher().await.refresh(Lifetimes::default(), Recover::No, near).await.unwrap();
    assert_eq!(renewed.snapshot, Some(3));
    assert!(matches!(client.poll(near).await.unwrap(), Poll::Refreshed(_)));
    // The content itself ends all the same: only whoever has its key says that it still holds.
    let end = world.now + DAY * 91;
    world.publisher().await.refresh(Lifetimes::default(), Recover::No, end).await.unwrap();
    assert!(matches!(refused(&mut client, end).await, Refused::Expired { role: RoleType::Targets, .. }));
}

#[tokio::test]
async fn a_refresh_needs_one_key() {
    let world = World::new(false).await;
    world.publish("one").await;
    let online = world.dir.path().join("online");
    fs::create_dir(&online).unwrap();
    for name in ["timestamp.pem", "root.json"] {
        fs::copy(world.keys().join(name), online.join(name)).unwrap();
    }
    let keys = Keys::open(&online).unwrap();
    let mut cron = Repository::open(world.store(), keys, Recover::No).await.unwrap();
    cron.refresh(Lifetimes::default(), Recover::No, world.now).await.unwrap();
    let error = publish(&mut cron, "two", "cron", Options::default(), world.now).await.unwrap_err();
    assert!(matches!(error, PublishError::Key(KeyError::Missing { role: RoleType::Targets, .. })), "{error}");
    // It has written nothing.
    assert!(!world.at().join("3.targets.json").exists());
}

#[tokio::test]
async fn a_rollback_is_a_publication() {
    let world = World::new(false).await;
    for content in ["one", "two", "three"] {
        world.publish(content).await;
    }
    let mut client = world.client();
    assert_eq!(changed(&mut client, world.now).await.serial, 4);
    let mut publisher = world.publisher().await;
    let about = About { message: "three locked us out".into(), by: "eve".into(), ..About::default() };
    let back = publisher.rollback(2, about.clone(), Options::default(), world.now).await.unwrap();
    assert_eq!(back.publication.serial, 5);
    let seen = changed(&mut client, world.now).await;
    assert_eq!((seen.serial, seen.rolled_back_to), (5, Some(2)));
    assert_eq!(seen.policy_digest, "sha256:one", "it is told what it is");
    assert_eq!(bundle(&client, &seen).await, b"one");
    for serial in [1, 9] {
        let error = publisher.rollback(serial, about.clone(), Options::default(), world.now).await;
        assert!(matches!(error, Err(PublishError::NoSuchSerial { .. })), "{serial}");
    }

    let history = publisher.history(10).await.unwrap();
    let lines: Vec<_> = history
        .iter()
        .map(|entry| (entry.serial, entry.state, entry.note.as_ref().unwrap().published_by.as_str()))
        .collect();
    assert_eq!(
        lines,
        [
            (5, EntryState::Current, "eve"),
            (4, EntryState::Superseded, "ops"),
            (3, EntryState::Superseded, "ops"),
            (2, EntryState::Superseded, "ops"),
        ]
    );
    assert_eq!(publisher.history(2).await.unwrap().len(), 2);

    // The past cannot be rewritten: each publication knows the hash of the one before it.
    let text = String::from_utf8(world.read("3.targets.json")).unwrap();
    world.write("3.targets.json", text.replace("\"ops\"", "\"bob\""));
    let history = publisher.history(10).await.unwrap();
    assert_eq!(history.last().unwrap().state, EntryState::Broken);
    let error = publisher.rollback(2, about, Options::default(), world.now).await.unwrap_err();
    assert!(matches!(error, PublishError::NoSuchSerial { serial: 2 }), "{error}");
}

#[tokio::test]
async fn keys_rotate_and_readers_follow() {
    for dev in [false, true] {
        let world = World::new(dev).await;
        world.publish("one").await;
        let mut client = world.client();
        let mut serial = changed(&mut client, world.now).await.serial;
        for (number, role) in ROLES.into_iter().enumerate() {
            let mut publisher = world.publisher().await;
            let rotated = publisher
                .rotate_key(role, "ops", Lifetimes::default(), Recover::No, world.now)
                .await
                .unwrap();
            assert_eq!(rotated.root, number as u64 + 2);
            assert!(rotated.key.exists());
            if !dev {
                assert_eq!(rotated.retired.len(), 1, "{role}");
            }
            let poll = client.poll(world.now).await.unwrap();
            match role {
                RoleType::Root => assert_eq!(poll, Poll::Unchanged),
                RoleType::Targets => {
                    serial += 1;
                    assert!(matches!(poll, Poll::Changed(now) if now.serial == serial));
                }
                _ => assert!(matches!(poll, Poll::Refreshed(_)), "{role}: {poll:?}"),
            }
        }
        let published = world.publish("two").await.publication;
        assert_eq!(changed(&mut client, world.now).await, published);
        // One that slept through all of it follows, too, and so does one with the newest root.
        assert_eq!(changed(&mut world.client(), world.now).await, published);
        let newest = fs::read(world.keys().join("root.json")).unwrap();
        let mut client = Client::new(world.store(), newest, Limits::default()).unwrap();
        assert_eq!(changed(&mut client, world.now).await, published);
        assert_eq!(client.trusted().root().role().version.get(), 5);
    }
}

#[tokio::test]
async fn a_stolen_timestamp_key_is_recovered_from() {
    let world = World::new(false).await;
    world.publish("one").await;
    let mut client = world.client();
    changed(&mut client, world.now).await;

    // The thief signs the highest version there is, of a snapshot that does not exist.
    let root: tough::schema::Signed<tough::schema::Root> =
        serde_json::from_slice(&world.first_root()).unwrap();
    let mut stolen: tough::schema::Signed<tough::schema::Timestamp> =
        serde_json::from_slice(&world.read("timestamp.json")).unwrap();
    stolen.signed.version = std::num::NonZeroU64::new(u64::MAX - 9).unwrap();
    let pem = pem::parse(fs::read(world.keys().join("timestamp.pem")).unwrap()).unwrap();
    let pair = aws_lc_rs::signature::Ed25519KeyPair::from_pkcs8(pem.contents()).unwrap();
    let message = tough::schema::Role::canonical_form(&stolen.signed).unwrap();
    stolen.signatures[0].sig = pair.sign(&message).as_ref().to_vec().into();
    root.signed.verify_role(&stolen).unwrap();
    world.write("timestamp.json", serde_json::to_vec(&stolen).unwrap());
    assert!(matches!(client.poll(world.now).await.unwrap(), Poll::Refreshed(_)), "it is signed");

    // Afterwards nothing that the honest publisher could sign would count, but for a new key.
    let keys = Keys::open(&world.keys()).unwrap();
    let mut publisher = Repository::open(world.store(), keys, Recover::Yes).await.unwrap();
    publisher
        .rotate_key(RoleType::Timestamp, "ops", Lifetimes::default(), Recover::Yes, world.now)
        .await
        .unwrap();
    assert!(matches!(client.poll(world.now).await.unwrap(), Poll::Refreshed(_)));
    let published = world.publish("two").await.publication;
    assert_eq!(changed(&mut client, world.now).await, published);
    // What the thief signs now is signed with a stranger's key.
    world.write("timestamp.json", serde_json::to_vec(&stolen).unwrap());
    assert!(matches!(
        refused(&mut client, world.now).await,
        Refused::SwappedKey { role: RoleType::Timestamp, .. }
    ));
    // And the publisher mends what the thief has overwritten.
    let keys = Keys::open(&world.keys()).unwrap();
    let mut publisher = Repository::open(world.store(), keys, Recover::Yes).await.unwrap();
    let later = world.now + SignedDuration::from_mins(1);
    publisher.refresh(Lifetimes::default(), Recover::Yes, later).await.unwrap();
    assert!(matches!(client.poll(later).await.unwrap(), Poll::Refreshed(_)));
    assert_eq!(client.current().unwrap().serial, published.serial);
}

// === two publishers ===

#[tokio::test]
async fn of_two_publishers_one_is_told() {
    let world = World::new(false).await;
    let (mut one, mut two) = (world.publisher().await, world.publisher().await);
    let (one, two) = tokio::join!(
        publish(&mut one, "one", "alice", Options::default(), world.now),
        publish(&mut two, "two", "bob", Options::default(), world.now),
    );
    let (won, lost) = match (one, two) {
        (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
        other => panic!("not one of them: {other:?}"),
    };
    assert_eq!(lost.code(), "CONFLICT", "{lost}");
    assert!(lost.to_string().contains(&won.publication.published_by), "{lost}");
    assert_eq!(changed(&mut world.client(), world.now).await, won.publication);
}

#[tokio::test]
async fn a_publisher_that_died_is_passed_over() {
    let world = World::new(false).await;
    world.publish("one").await;
    let before = world.read("timestamp.json");
    world.publish("two").await;
    // It died before the last write.
    world.write("timestamp.json", before);
    fs::remove_file(world.at().join("3.snapshot.json")).unwrap();
    let mut client = world.client();
    assert_eq!(changed(&mut client, world.now).await.serial, 2, "readers have never seen it");

    let mut publisher = world.publisher().await;
    let later = world.now + SignedDuration::from_mins(10);
    let error = publish(&mut publisher, "three", "bob", Options::default(), later).await.unwrap_err();
    let PublishError::Taken { serial, by, age, .. } = &error else { panic!("{error}") };
    assert_eq!((*serial, by.as_str(), age.as_str()), (3, "ops", "10m"));
    assert_eq!(error.code(), "CONFLICT");
    let take_over = Options { take_over: true, ..Options::default() };
    let published = publish(&mut publisher, "three", "bob", take_over, later).await.unwrap();
    assert_eq!((published.publication.serial, published.passed_over), (4, vec![3]));
    assert_eq!(changed(&mut client, later).await.serial, 4);
    let history = publisher.history(10).await.unwrap();
    let states: Vec<_> = history.iter().map(|entry| (entry.serial, entry.state)).collect();
    let (current, superseded) = (EntryState::Current, EntryState::Superseded);
    assert_eq!(states, [(4, current), (3, EntryState::Abandoned), (2, superseded)]);
}

#[tokio::test]
async fn a_rotation_cut_short_is_finished() {
    let world = World::new(false).await;
    world.publish("one").await;
    let before = world.read("timestamp.json");
    let mut publisher = world.publisher().await;
    publisher
        .rotate_key(RoleType::Snapshot, "ops", Lifetimes::default(), Recover::No, world.now)
        .await
        .unwrap();
    world.write("timestamp.json", before);
    assert!(matches!(
        refused(&mut world.client(), world.now).await,
        Refused::SwappedKey { role: RoleType::Snapshot, .. }
    ));
    let keys = Keys::open(&world.keys()).unwrap();
    let mut publisher = Repository::open(world.store(), keys, Recover::Yes).await.unwrap();
    publisher.refresh(Lifetimes::default(), Recover::Yes, world.now).await.unwrap();
    assert_eq!(changed(&mut world.client(), world.now).await.serial, 2);
}

/// Everything below a directory, by name.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            let below = contents(&path).into_iter();
            files.extend(below.map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
        } else {
            files.insert(name, fs::read(path).unwrap());
        }
    }
    files
}

fn lay_out(directory: &Path, files: &BTreeMap<String, Vec<u8>>) {
    fs::remove_dir_all(directory).unwrap();
    for (name, bytes) in files {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// What a publisher leaves when it dies after each of its writes, which come in this order.
fn deaths(
    before: &BTreeMap<String, Vec<u8>>,
    after: &BTreeMap<String, Vec<u8>>,
) -> Vec<BTreeMap<String, Vec<u8>>> {
    let order = [".policy.bundle", ".targets.json", ".snapshot.json", ".root.json", "timestamp.json"];
    let mut states = vec![before.clone()];
    for kind in order {
        let written =
            after.iter().filter(|(name, bytes)| name.ends_with(kind) && before.get(*name) != Some(bytes));
        for (name, bytes) in written {
            let mut state = states.last().unwrap().clone();
            state.insert(name.clone(), bytes.clone());
            states.push(state);
        }
    }
    states
}

#[tokio::test]
async fn a_publisher_may_die_at_any_time() {
    let world = World::new(false).await;
    world.publish("one").await;
    let before = contents(&world.at());
    world.publish("two").await;
    let states = deaths(&before, &contents(&world.at()));
    assert_eq!(states.len(), 5);
    let last = states.len() - 1;
    for (number, state) in states.iter().enumerate() {
        lay_out(&world.at(), state);
        let seen = changed(&mut world.client(), world.now).await;
        assert_eq!(seen.serial, if number == last { 3 } else { 2 }, "after {number} writes");
        let mut publisher = world.publisher().await;
        let mut next = publish(&mut publisher, "three", "bob", Options::default(), world.now).await;
        if matches!(next, Err(PublishError::Taken { serial: 3, .. })) {
            let take_over = Options { take_over: true, ..Options::default() };
            next = publish(&mut publisher, "three", "bob", take_over, world.now).await;
        }
        let published = next.unwrap().publication;
        assert_eq!(changed(&mut world.client(), world.now).await, published, "after {number} writes");
        assert_eq!(bundle(&world.client(), &published).await, b"three");
    }
}

#[tokio::test]
async fn a_rotation_may_die_at_any_time() {
    for role in ROLES {
        let world = World::new(false).await;
        world.publish("one").await;
        let (before, keys_before) = (contents(&world.at()), contents(&world.keys()));
        let mut publisher = world.publisher().await;
        let rotated =
            publisher.rotate_key(role, "ops", Lifetimes::default(), Recover::No, world.now).await.unwrap();
        let key = rotated.key.file_name().unwrap().to_str().unwrap().to_owned();
        let mut keys = keys_before;
        keys.insert(key, fs::read(&rotated.key).unwrap());
        for (number, state) in deaths(&before, &contents(&world.at())).iter().enumerate() {
            let said = format!("{role} after {number} writes");
            lay_out(&world.at(), state);
            lay_out(&world.keys(), &keys);
            let mut client = world.client();
            if client.poll(world.now).await.is_err() {
                let keys = Keys::open(&world.keys()).unwrap();
                let mut publisher = Repository::open(world.store(), keys, Recover::Yes).await.unwrap();
                publisher.refresh(Lifetimes::default(), Recover::Yes, world.now).await.unwrap();
                assert!(matches!(client.poll(world.now).await, Ok(Poll::Changed(_))), "{said}");
            }
            assert!(client.current().is_some(), "{said}");
            // Once more, to its end.
            let mut publisher = world.publisher().await;
            publisher
                .rotate_key(role, "ops", Lifetimes::default(), Recover::No, world.now)
                .await
                .unwrap_or_else(|error| panic!("{said}: {error}"));
            client.poll(world.now).await.unwrap();
            assert_eq!(bundle(&client, client.current().unwrap()).await, b"one", "{said}");
        }
    }
}

#[tokio::test]
async fn a_place_is_begun_once() {
    let world = World::new(false).await;
    let keys = Keys::create(&world.dir.path().join("others"), true).unwrap();
    let error = Repository::init(world.store(), keys, Lifetimes::default(), world.now).await.unwrap_err();
    assert!(matches!(error, PublishError::Exists { .. }), "{error}");
    assert!(matches!(Keys::create(&world.keys(), true), Err(KeyError::Exists { .. })));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(world.keys().join("root.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

// === what dishonest people do ===

#[tokio::test]
async fn edited_metadata_has_a_wrong_signature() {
    let world = World::new(false).await;
    world.publish("one").await;
    let text = String::from_utf8(world.read("timestamp.json")).unwrap();
    let version = text.replace("\"version\": 2,\n    \"expires\"", "\"version\": 7,\n    \"expires\"");
    assert_ne!(text, version);
    world.write("timestamp.json", version);
    let refused = refused(&mut world.client(), world.now).await;
    let wanted = Refused::WrongSignature { role: RoleType::Timestamp, valid: 0, threshold: 1 };
    assert_eq!((refused.code(), &refused), ("WRONG_SIGNATURE", &wanted));
}

#[tokio::test]
async fn an_attackers_key_is_named() {
    let (world, other) = (World::new(false).await, World::new(false).await);
    world.publish("one").await;
    other.publish("evil").await;
    let mut client = world.client();
    let seen = changed(&mut client, world.now).await;
    let before = client.persist();
    for name in ["timestamp.json", "2.snapshot.json", "2.targets.json"] {
        world.write(name, other.read(name));
    }
    let named = refused(&mut client, world.now).await;
    assert!(
        matches!(&named, Refused::SwappedKey { role: RoleType::Timestamp, keys } if keys.len() == 1),
        "{named}"
    );
    // A root of theirs does not help.
    world.write("2.root.json", other.first_root());
    let named = refused(&mut client, world.now).await;
    assert!(matches!(named, Refused::SwappedKey { role: RoleType::Root, .. }), "{named}");
    assert_eq!(client.persist(), before, "nothing of it stays");
    assert_eq!(client.current(), Some(&seen));
}

#[tokio::test]
async fn older_metadata_is_a_rollback() {
    let world = World::new(false).await;
    world.publish("one").await;
    let old = world.read("timestamp.json");
    world.publish("two").await;
    let mut client = world.client();
    let seen = changed(&mut client, world.now).await;
    world.write("timestamp.json", old);
    let wanted = Refused::Rollback { role: RoleType::Timestamp, trusted: 3, offered: 2 };
    assert_eq!(refused(&mut client, world.now).await, wanted);
    assert_eq!(client.current(), Some(&seen));

    // A start from disk remembers.
    let mut restored =
        Client::restore(world.store(), world.first_root(), client.persist(), Limits::default()).unwrap();
    assert_eq!(restored.current(), Some(&seen));
    assert_eq!(refused(&mut restored, world.now).await, wanted);
}

#[tokio::test]
async fn a_timestamp_that_points_back_is_a_rollback() {
    let world = World::new(false).await;
    world.publish("one").await;
    let snapshot = world.read("2.snapshot.json");
    world.publish("two").await;
    let mut client = world.client();
    changed(&mut client, world.now).await;
    // Somebody has the key of the timestamp and refers to the snapshot of the first publication.
    let mut timestamp: tough::schema::Signed<tough::schema::Timestamp> =
        serde_json::from_slice(&world.read("timestamp.json")).unwrap();
    let meta = timestamp.signed.meta.get_mut("snapshot.json").unwrap();
    meta.version = std::num::NonZeroU64::new(2).unwrap();
    meta.length = Some(snapshot.len() as u64);
    timestamp.signed.version = std::num::NonZeroU64::new(9).unwrap();
    let pem = pem::parse(fs::read(world.keys().join("timestamp.pem")).unwrap()).unwrap();
    let pair = aws_lc_rs::signature::Ed25519KeyPair::from_pkcs8(pem.contents()).unwrap();
    let message = tough::schema::Role::canonical_form(&timestamp.signed).unwrap();
    timestamp.signatures[0].sig = pair.sign(&message).as_ref().to_vec().into();
    world.write("timestamp.json", serde_json::to_vec(&timestamp).unwrap());
    let wanted = Refused::Rollback { role: RoleType::Snapshot, trusted: 3, offered: 2 };
    assert_eq!(refused(&mut client, world.now).await, wanted);
}

#[tokio::test]
async fn withheld_news_show_as_frozen() {
    let world = World::new(false).await;
    world.publish("one").await;
    let mut client = world.client();
    let seen = changed(&mut client, world.now).await;
    let end = seen.expires;
    assert_eq!(client.poll(end - SignedDuration::from_secs(1)).await.unwrap(), Poll::Unchanged);
    let wanted = Refused::Expired { role: RoleType::Timestamp, expires: end };
    assert_eq!(refused(&mut client, end).await, wanted);
    assert_eq!(refused(&mut world.client(), end).await, wanted, "to a new reader, too");
    assert_eq!(client.current(), Some(&seen), "what is known stays known");
    // The root ends as well.
    let later = world.now + DAY * 400;
    let wanted = refused(&mut world.client(), later).await;
    assert!(matches!(wanted, Refused::Expired { role: RoleType::Root, .. }), "{wanted}");
}

#[tokio::test]
async fn metadata_of_two_publications_is_mixed() {
    for (name, from, role) in [
        ("3.snapshot.json", "2.snapshot.json", RoleType::Snapshot),
        ("3.targets.json", "2.targets.json", RoleType::Targets),
    ] {
        let world = World::new(false).await;
        world.publish("one").await;
        world.publish("two").await;
        let honest = world.read(name);
        world.write(name, world.read(from));
        let mut client = world.client();
        let named = refused(&mut client, world.now).await;
        assert!(matches!(named, Refused::Mixed { role: found, .. } if found == role), "{named}");
        assert_eq!(client.current(), None);
        // Longer than what was signed for is no better.
        let mut longer = honest.clone();
        longer.extend_from_slice(b"\n\n");
        world.write(name, longer);
        let named = refused(&mut client, world.now).await;
        assert!(matches!(named, Refused::Mixed { role: found, .. } if found == role), "{named}");
        // And once it is mended, the look goes on, though the timestamp has not changed.
        world.write(name, honest);
        assert_eq!(changed(&mut client, world.now).await.serial, 3);
    }
}

#[tokio::test]
async fn large_files_are_not_read() {
    let world = World::new(false).await;
    let published = world.publish("one").await.publication;
    let root = world.first_root();
    let poll = async |limits| Client::new(world.store(), root.clone(), limits).unwrap().poll(world.now).await;
    for limits in [
        Limits { timestamp: 100, ..Limits::default() },
        Limits { snapshot: 100, ..Limits::default() },
        Limits { targets: 100, ..Limits::default() },
    ] {
        let named = poll(limits).await.unwrap_err();
        assert!(
            matches!(&named, PollError::Refused(Refused::TooLarge { limit: 100, .. })),
            "{limits:?}: {named}"
        );
    }
    let mut out = Vec::new();
    let named = world.client().download_bundle(&published, 2, &mut out).await.unwrap_err();
    assert!(matches!(named, PollError::Refused(Refused::TooLarge { limit: 2, .. })), "{named}");
    assert!(out.is_empty());
}

#[tokio::test]
async fn a_damaged_bundle_is_refused() {
    let world = World::new(false).await;
    let published = world.publish("the bundle").await.publication;
    let client = world.client();
    for (bytes, what) in [
        (b"the bund".to_vec(), "its length"),
        (b"the bundle and more".to_vec(), "its length"),
        (b"the bumble".to_vec(), "its hash"),
    ] {
        world.write(&published.bundle_path, &bytes);
        let named = client.download_bundle(&published, 1 << 20, &mut Vec::new()).await.unwrap_err();
        let PollError::Refused(Refused::Corrupted { what: found, .. }) = &named else { panic!("{named}") };
        assert_eq!(*found, what, "{named}");
        // Nor does a publisher point to it.
        let force = Options { force: true, ..Options::default() };
        let mut publisher = world.publisher().await;
        let error = publish(&mut publisher, "the bundle", "ops", force, world.now).await.unwrap_err();
        assert_eq!(error.code(), "DAMAGED", "{error}");
    }
    fs::remove_file(world.at().join(&published.bundle_path)).unwrap();
    let named = client.download_bundle(&published, 1 << 20, &mut Vec::new()).await.unwrap_err();
    assert!(matches!(named, PollError::Missing { .. }), "{named}");
}

#[tokio::test]
async fn roots_follow_one_another() {
    let world = World::new(false).await;
    world.publish("one").await;
    for _ in 0..2 {
        let mut publisher = world.publisher().await;
        publisher
            .rotate_key(RoleType::Timestamp, "ops", Lifetimes::default(), Recover::No, world.now)
            .await
            .unwrap();
    }
    // Root 3 where root 2 should be: signed all right, but not the next one.
    let second = world.read("2.root.json");
    world.write("2.root.json", world.read("3.root.json"));
    let wanted = Refused::RootNotConsecutive { trusted: 1, offered: 3 };
    assert_eq!(refused(&mut world.client(), world.now).await, wanted);
    // A gap in the chain is its end, and the timestamp is signed with a key of which nobody knows there.
    fs::remove_file(world.at().join("2.root.json")).unwrap();
    let named = refused(&mut world.client(), world.now).await;
    assert!(matches!(named, Refused::SwappedKey { role: RoleType::Timestamp, .. }), "{named}");
    world.write("2.root.json", second);
    assert_eq!(changed(&mut world.client(), world.now).await.serial, 2);
}

// === a start from disk ===

#[tokio::test]
async fn what_was_kept_is_verified() {
    let (world, other) = (World::new(false).await, World::new(false).await);
    world.publish("one").await;
    let mut client = world.client();
    let seen = changed(&mut client, world.now).await;
    let kept = client.persist();
    let restore = |root: Vec<u8>, kept: Vec<(&'static str, Vec<u8>)>| {
        Client::restore(world.store(), root, kept, Limits::default())
    };
    let mut restored = restore(world.first_root(), kept.clone()).unwrap();
    assert_eq!(restored.current(), Some(&seen));
    assert_eq!(restored.persist(), kept);
    assert_eq!(restored.poll(world.now).await.unwrap(), Poll::Unchanged);

    // Each file edited, and each cut short: never passed over in silence.
    for index in 0..kept.len() {
        let mut edited = kept.clone();
        let text = String::from_utf8(edited[index].1.clone()).unwrap();
        edited[index].1 = text.replace("\"version\": ", "\"version\": 1").into_bytes();
        let mut short = kept.clone();
        short[index].1.truncate(40);
        for bad in [edited, short] {
            let name = bad[index].0;
            // The anchor only says whether the root is the same as before; the root itself vouches then.
            if name != "anchor.json" {
                assert!(restore(world.first_root(), bad).is_err(), "{name}");
            }
        }
    }
    // Another repository's root does not take over what was seen in this one.
    let error = restore(other.first_root(), kept.clone()).unwrap_err();
    assert!(matches!(error, Refused::SwappedKey { role: RoleType::Root, .. }), "{error}");

    // A newer root that the operator hands over is followed, and ends what its keys no longer sign.
    let mut publisher = world.publisher().await;
    publisher
        .rotate_key(RoleType::Timestamp, "ops", Lifetimes::default(), Recover::No, world.now)
        .await
        .unwrap();
    let newest = fs::read(world.keys().join("root.json")).unwrap();
    let mut restored = restore(newest, kept.clone()).unwrap();
    assert!(restored.poll(world.now).await.is_ok());
    assert_eq!(restored.current().unwrap().serial, 2);
    // And one that was kept is newer than the one that was handed over.
    client.poll(world.now).await.unwrap();
    let restored = restore(world.first_root(), client.persist()).unwrap();
    assert_eq!(restored.trusted().root().role().version.get(), 2);
}

// === over HTTP ===

#[tokio::test]
async fn two_publications_in_one_second_are_both_seen() {
    let world = World::new(false).await;
    world.publish("one").await;
    let server = FileServer::start(world.at()).await;
    server.set(files::Mood::CoarseTags);
    let mut client = Client::new(open(&server.url(), false), world.first_root(), Limits::default()).unwrap();
    let tag = async || std::fs::metadata(world.at().join("timestamp.json")).unwrap().len();
    let (first, before) = (changed(&mut client, world.now).await, tag().await);
    world.publish("two").await;
    assert_eq!(tag().await, before, "or this shows nothing");
    assert_eq!(changed(&mut client, world.now).await.serial, first.serial + 1);
}

#[tokio::test]
async fn an_unchanged_poll_is_one_request() {
    let world = World::new(false).await;
    world.publish("one").await;
    let server = FileServer::start(world.at()).await;
    let mut client = Client::new(open(&server.url(), false), world.first_root(), Limits::default()).unwrap();
    let seen = changed(&mut client, world.now).await;
    assert_eq!(bundle(&client, &seen).await, b"one");
    let asked: Vec<_> = server.asked().into_iter().map(|(what, status)| format!("{what} {status}")).collect();
    assert_eq!(
        asked,
        [
            "GET /timestamp.json 200".to_owned(),
            "GET /2.root.json 404".to_owned(),
            "GET /2.snapshot.json 200".to_owned(),
            "GET /2.targets.json 200".to_owned(),
            format!("GET /{} 200", seen.bundle_path),
        ]
    );
    // Until its second is over, another timestamp could come to have the same tag.
    for (after, status) in [(0, 200), (1, 200), (2, 200), (3, 304), (4, 304)] {
        let now = world.now + jiff::SignedDuration::from_secs(after);
        assert_eq!(client.poll(now).await.unwrap(), Poll::Unchanged);
        assert_eq!(server.asked(), [("GET /timestamp.json".to_owned(), status)], "after {after} s");
    }
    world.publish("two").await;
    assert_eq!(changed(&mut client, world.now).await.serial, 3);

    // A web server is for reading.
    let keys = Keys::open(&world.keys()).unwrap();
    let mut publisher = Repository::open(open(&server.url(), false), keys, Recover::No).await.unwrap();
    let error = publish(&mut publisher, "three", "ops", Options::default(), world.now).await.unwrap_err();
    assert!(error.to_string().contains("can only be read"), "{error}");
}

/// As in an image that holds the binary and nothing else.
#[tokio::test]
async fn plain_http_needs_no_certificates() {
    let world = World::new(false).await;
    world.publish("one").await;
    let server = FileServer::start(world.at()).await;
    let status = |at: String| {
        let keys = world.keys();
        tokio::task::spawn_blocking(move || {
            let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_postern"));
            command.env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", "/nonexistent");
            command.args(["repo", "status", "--at", at.as_str(), "--keys"]).arg(keys).output().unwrap()
        })
    };
    let output = status(server.url()).await.unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("serial 2 of contoso"));
    let output = status("https://127.0.0.1:1/".to_owned()).await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("CA certificates"), "{error}");
}

#[tokio::test]
async fn a_connection_cut_short_is_no_bundle() {
    let world = World::new(false).await;
    let published = world.publish("one").await.publication;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 2048];
            let _read = stream.read(&mut request).await;
            let _sent =
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nETag: \"x\"\r\n\r\non").await;
        }
    });
    let opening = Opening { timeout: std::time::Duration::from_secs(2), ..Opening::default() };
    let store = Location::parse(&url).unwrap().open(opening).unwrap();
    let client = Client::new(store, world.first_root(), Limits::default()).unwrap();
    let start = std::time::Instant::now();
    let error = client.download_bundle(&published, 1 << 20, &mut Vec::new()).await.unwrap_err();
    assert!(matches!(error, PollError::Store(_)), "{error}");
    assert!(start.elapsed() < std::time::Duration::from_secs(10));
    server.abort();
}

#[tokio::test]
async fn a_server_that_is_gone_is_no_refusal() {
    let world = World::new(false).await;
    let server = FileServer::start(world.at()).await;
    let url = server.url();
    drop(server);
    let mut client = Client::new(open(&url, false), world.first_root(), Limits::default()).unwrap();
    let error = client.poll(world.now).await.unwrap_err();
    assert!(matches!(&error, PollError::Store(_)), "{error}");
    assert!(error.to_string().contains(&url), "{error}");
    let empty = tempfile::tempdir().unwrap();
    let store = open(empty.path().to_str().unwrap(), false);
    let error = Client::new(store, world.first_root(), Limits::default()).unwrap().poll(world.now).await;
    assert!(matches!(error, Err(PollError::Missing { .. })));
}

// === a bucket ===

/// Against a server that speaks S3, when there is one: `scripts/s3-test.sh` starts it.
#[tokio::test]
async fn a_bucket_has_conditional_writes() {
    let Ok(bucket) = std::env::var("POSTERN_S3_URL") else { return };
    let dir = tempfile::tempdir().unwrap();
    let now = Timestamp::now();
    let at = format!("{bucket}/run-{}", now.as_nanosecond());
    let keys = Keys::create(&dir.path().join("keys"), false).unwrap();
    let mut one = Repository::init(open(&at, false), keys, Lifetimes::default(), now).await.unwrap();
    let root = one.keys().root().unwrap();
    let keys = Keys::open(&dir.path().join("keys")).unwrap();
    let mut two = Repository::open(open(&at, false), keys, Recover::No).await.unwrap();
    let (first, second) = tokio::join!(
        publish(&mut one, "one", "alice", Options::default(), now),
        publish(&mut two, "two", "bob", Options::default(), now),
    );
    let (won, lost) = match (first, second) {
        (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
        other => panic!("not one of them: {other:?}"),
    };
    assert_eq!(lost.code(), "CONFLICT", "{lost}");
    let mut client = Client::new(open(&at, false), root, Limits::default()).unwrap();
    let seen = changed(&mut client, now).await;
    assert_eq!(seen, won.publication);
    bundle(&client, &seen).await;
    assert_eq!(client.poll(now).await.unwrap(), Poll::Unchanged);
    two.refresh(Lifetimes { timestamp: Lifetime::days(2), ..Lifetimes::default() }, Recover::No, now)
        .await
        .unwrap();
    assert!(matches!(client.poll(now).await.unwrap(), Poll::Refreshed(_)));
    two.rotate_key(RoleType::Timestamp, "bob", Lifetimes::default(), Recover::No, now).await.unwrap();
    assert!(matches!(client.poll(now).await.unwrap(), Poll::Refreshed(_)));
    let keys = Keys::open(&dir.path().join("keys")).unwrap();
    let mut again = Repository::open(open(&at, false), keys, Recover::Yes).await.unwrap();
    again.refresh(Lifetimes::default(), Recover::Yes, now).await.unwrap();
    assert!(matches!(client.poll(now).await.unwrap(), Poll::Refreshed(_)));
}

// === the commands ===

fn postern(arguments: &[&str]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_postern"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("POSTERN_") {
            command.env_remove(name);
        }
    }
    command.env("USER", "ops").args(arguments).output().unwrap()
}

fn run(code: i32, arguments: &[&str]) -> String {
    let output = postern(arguments);
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{text}{errors}");
    text + &errors
}

fn run_json(code: i32, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.push("--json");
    serde_json::from_str(&run(code, &all)).unwrap()
}

#[test]
fn the_commands_do_it_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (at, keys, bundle) = (path("repo"), path("keys"), path("contoso"));
    let place = ["--at", at.as_str(), "--keys", keys.as_str()];
    let repo = |command: &[&str]| -> Vec<String> {
        ["repo"].iter().chain(command).chain(&place).map(|text| (*text).to_owned()).collect()
    };
    let told = |code: i32, command: &[&str]| {
        let all = repo(command);
        run_json(code, &all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let said = |code: i32, command: &[&str]| {
        let all = repo(command);
        run(code, &all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let text = said(0, &["init"]);
    assert!(text.contains(&format!("postern publish DIR --to {at} --keys {keys}")), "{text}");
    assert!(text.contains(&format!("postern serve --source {at} --trusted-root {keys}/root.json")), "{text}");
    assert_eq!(told(1, &["init"])["error"]["code"], "KEY");
    assert!(said(0, &["history"]).contains("nothing was published yet"));

    let publish = |content: &str, code: i32, more: &[&str]| {
        // A policy of its own for each content: its name is part of the bundle.
        fs::create_dir_all(&bundle).unwrap();
        let role = serde_json::json!({
            "id": "c0000000-0000-4000-8000-000000000001",
            "roleName": content,
            "roleType": "CustomRole",
            "assignableScopes": ["/subscriptions/50000000-0000-4000-8000-000000000001"],
            "permissions": [{ "actions": ["A.B/c/read"] }],
        });
        fs::write(Path::new(&bundle).join("role.json"), role.to_string()).unwrap();
        let mut all = vec!["publish", bundle.as_str(), "--to", at.as_str(), "--keys", keys.as_str()];
        all.extend(more);
        run_json(code, &all)
    };
    let first = publish("one", 0, &["--message", "first"]);
    assert_eq!((first["serial"].as_u64(), first["publishedBy"].as_str()), (Some(2), Some("ops")));
    assert_eq!(first["policyName"], "contoso");
    assert_eq!(publish("one", 1, &[])["error"]["code"], "UNCHANGED");
    let again = publish("one", 0, &["--if-changed"]);
    assert_eq!((again["serial"].as_u64(), again["unchanged"].as_bool()), (Some(2), Some(true)));
    assert_eq!(publish("two", 0, &["--by", "eve"])["serial"], 3);
    assert_eq!(told(0, &["rollback", "2", "--message", "back"])["rolledBackTo"], 2);
    assert_eq!(told(1, &["rollback", "9"])["error"]["code"], "NOT_FOUND");

    let history = told(0, &["history"]);
    let serials: Vec<_> = history["publications"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["serial"].as_u64().unwrap())
        .collect();
    assert_eq!(serials, [4, 3, 2]);
    let text = said(0, &["history"]);
    assert!(text.contains("(back to 2)") && text.contains("eve"), "{text}");

    assert_eq!(told(0, &["rotate-key", "timestamp"])["root"], 2);
    assert_eq!(told(0, &["refresh", "--timestamp-expires", "12h"])["timestamp"], 6);
    let status = told(0, &["status"]);
    assert_eq!(status["publication"]["serial"], 4);
    assert_eq!(status["warnings"].as_array().unwrap().len(), 0, "{status}");
    said(0, &["refresh", "--timestamp-expires", "1h"]);
    let text = said(0, &["status"]);
    assert!(text.contains("warning: timestamp ends soon") && text.contains(" days)"), "{text}");

    // A number that somebody has taken.
    fs::copy(format!("{at}/4.targets.json"), format!("{at}/5.targets.json")).unwrap();
    assert_eq!(publish("three", 1, &[])["error"]["code"], "CONFLICT");
    assert_eq!(publish("three", 0, &["--take-over"])["passedOver"], serde_json::json!([5]));

    // A policy with a mistake is told with its place, and nothing is published; so is a bundle with a flipped bit.
    fs::write(Path::new(&bundle).join("bad.json"), "{ \"not\": ").unwrap();
    let text = run(1, &["publish", &bundle, "--to", &at, "--keys", &keys]);
    assert!(text.contains("bad.json:1:"), "{text}");
    fs::remove_file(Path::new(&bundle).join("bad.json")).unwrap();
    let file = path("contoso.bundle");
    run(0, &["bundle", "build", &bundle, "-o", &file]);
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    let text = run(1, &["publish", &file, "--to", &at, "--keys", &keys]);
    assert!(text.contains("the bundle is damaged"), "{text}");

    // Wrong usage.
    assert!(run(2, &["repo", "status", "--at", "ftp://x", "--keys", &keys]).contains("wanted a directory"));
    assert!(run(2, &["publish", &bundle, "--to", &at, "--keys", &keys, "--expires", "soon"]).contains("90d"));
    assert!(
        run(1, &["repo", "status", "--at", &path("none"), "--keys", &keys]).contains("no such directory")
    );
    assert!(Path::new(&format!("{keys}/timestamp.pem.retired")).exists());
}
