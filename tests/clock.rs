#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]
//! A clock that is set forth and back under a sidecar that follows publications. The clock is the test's; the
//! repository, its signatures, the updater, the state directory and the decisions are real.

mod common;
#[allow(dead_code, reason = "others use the rest")]
#[path = "common/files.rs"]
mod files;
#[allow(dead_code, reason = "others use the rest")]
#[path = "common/publisher.rs"]
mod publisher;

use std::path::PathBuf;
use std::time::Duration;

use common::{ALICE, READ, eventually, vault};
use files::{FileServer, Mood};
use jiff::{SignedDuration, Timestamp};
use postern::authorizer::{Authorizer, ByPlane, CacheSettings, FreshnessRules, WhenOld};
use postern::cache::CachePolicy;
use postern::clock::Clock;
use postern::metrics::Metrics;
use postern::model::{
    Action, CheckRequest, Decision, Freshness, Groups, Plane, PrincipalId, Scope, Subject, Undecided,
};
use postern::readiness::Readiness;
use postern::snapshot;
use postern::source::activate::Activator;
use postern::source::remote::{RemoteSettings, RemoteUpdater};
use publisher::Publisher;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// A sidecar without its listeners, under a clock of the test.
struct Follower {
    authorizer: Authorizer,
    readiness: Readiness,
    updater: JoinHandle<()>,
}

impl Follower {
    fn start(source: &str, root: String, state: &TempDir, clock: &Clock) -> Self {
        let (writer, reader) = snapshot::cell();
        let readiness = Readiness::new();
        let cache = CacheSettings { policy: CachePolicy::Off, max_bytes: 0 };
        let deny = ByPlane { control: WhenOld::Deny, data: WhenOld::Deny };
        let rules = FreshnessRules { expired: deny, ..FreshnessRules::default() };
        let authorizer = Authorizer::new(reader, cache, clock.clone()).with_freshness(rules);
        let activator = Activator {
            writer,
            clock: clock.clone(),
            readiness: readiness.clone(),
            waiting: None,
            metrics: Metrics::new("test", "test").policy(),
            activated: watch::channel(0).0,
        };
        let settings = RemoteSettings {
            sources: vec![source.to_owned()],
            trusted_root: PathBuf::from(root),
            state_dir: Some(state.path().to_owned()),
            poll_interval: Duration::from_millis(20),
            max_age: Duration::from_secs(3600),
            max_bundle_bytes: 1 << 20,
        };
        let updater = RemoteUpdater::new(settings, activator).unwrap();
        Self { authorizer, readiness, updater: tokio::spawn(updater.run()) }
    }

    fn serial(&self) -> u64 {
        self.authorizer.snapshot().get().map_or(0, |snapshot| snapshot.serial)
    }

    fn freshness(&self) -> Freshness {
        self.authorizer.snapshot().get().unwrap().freshness(self.authorizer.now())
    }

    async fn becomes(&self, wanted: Freshness) {
        eventually(wanted.name(), async || self.freshness() == wanted).await;
    }

    fn may_alice_read(&self) -> Result<bool, Undecided> {
        let (principal, scope) = (PrincipalId::new(ALICE), vault("app"));
        let subject = Subject { principal, groups: Groups::NONE };
        let scope = Scope::parse(&scope).unwrap();
        let request = CheckRequest::new(subject, Action::parse(READ).unwrap(), Plane::Control, scope);
        let active = self.authorizer.snapshot();
        let answer = self.authorizer.check(active.get().unwrap(), &request, None)?;
        Ok(matches!(answer.evaluation.decision, Decision::Allowed(_)))
    }

    /// What the last look came to.
    fn problems(&self) -> String {
        self.readiness
            .report()
            .last_reload_failure
            .map_or(String::new(), |failure| failure.problems.join("; "))
    }

    async fn refuses(&self, wanted: &str) {
        eventually(wanted, async || self.problems().contains(wanted)).await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.updater.abort();
    }
}

#[tokio::test]
async fn a_clock_set_forth_and_back_never_makes_old_signatures_good() {
    let start: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
    let clock = Clock::manual(start);
    let mut publisher = Publisher::at(clock.clone()).await;
    let first = publisher.publish().await.serial;
    let server = FileServer::start(publisher.repository()).await;
    let state = tempfile::tempdir().unwrap();
    let follower = Follower::start(&server.url(), publisher.root(), &state, &clock);
    eventually("the policy", async || follower.serial() == first).await;
    assert_eq!(follower.freshness(), Freshness::Fresh);

    // An hour and a minute forth, with nobody to confirm: stale, served. And back: as fresh as it was.
    server.set(Mood::Down);
    follower.refuses("503").await;
    clock.set(start + HOUR + MINUTE);
    assert_eq!((follower.freshness(), follower.may_alice_read()), (Freshness::Stale, Ok(true)));
    clock.set(start + MINUTE);
    assert_eq!(follower.freshness(), Freshness::Fresh);

    // Days back: nobody knows how old it is, until a source says.
    clock.set(start - DAY);
    assert_eq!((follower.freshness(), follower.may_alice_read()), (Freshness::Stale, Ok(true)));
    server.set(Mood::Well);
    follower.becomes(Freshness::Fresh).await;

    // Eight days forth: past what the timestamp was signed for, and the same file does not mend it.
    clock.set(start + DAY * 8);
    assert_eq!(follower.freshness(), Freshness::Expired);
    assert_eq!(follower.may_alice_read(), Err(Undecided::PolicyOutdated(Freshness::Expired)));
    follower.refuses("`timestamp` is frozen").await;
    assert_eq!(follower.freshness(), Freshness::Expired);

    // A publisher whose clock is that far ahead publishes; then all clocks go back.
    let second = publisher.publish_another(2).await.serial;
    eventually("the next policy", async || follower.serial() == second).await;
    assert_eq!((follower.freshness(), follower.may_alice_read()), (Freshness::Fresh, Ok(true)));
    clock.set(start);
    follower.becomes(Freshness::Fresh).await;
    assert_eq!(follower.serial(), second);

    // The older publication, which is good at this time, is a rollback all the same, also after a restart.
    let third = publisher.publish_another(3).await.serial;
    eventually("the last policy", async || follower.serial() == third).await;
    drop(follower);
    clock.set(start - DAY);
    server.set(Mood::Down);
    let follower = Follower::start(&server.url(), publisher.root(), &state, &clock);
    eventually("what was kept", async || follower.serial() == third).await;
    assert_eq!((follower.freshness(), follower.may_alice_read()), (Freshness::Stale, Ok(true)));
    server.set(Mood::Well);
    follower.becomes(Freshness::Fresh).await;
}

#[tokio::test]
async fn a_start_after_expiry_answers_nothing_until_a_source_renews() {
    let start: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
    let clock = Clock::manual(start);
    let mut publisher = Publisher::at(clock.clone()).await;
    let first = publisher.publish().await.serial;
    let server = FileServer::start(publisher.repository()).await;
    let state = tempfile::tempdir().unwrap();
    let follower = Follower::start(&server.url(), publisher.root(), &state, &clock);
    eventually("the policy", async || follower.serial() == first).await;
    drop(follower);

    clock.set(start + DAY * 30);
    let follower = Follower::start(&server.url(), publisher.root(), &state, &clock);
    eventually("what was kept", async || follower.serial() == first).await;
    assert_eq!(follower.may_alice_read(), Err(Undecided::PolicyOutdated(Freshness::Expired)));
    follower.refuses("`timestamp` is frozen").await;
    assert_eq!(follower.may_alice_read(), Err(Undecided::PolicyOutdated(Freshness::Expired)));

    let second = publisher.publish_another(2).await.serial;
    eventually("the renewal", async || follower.serial() == second).await;
    assert_eq!((follower.freshness(), follower.may_alice_read()), (Freshness::Fresh, Ok(true)));
}
