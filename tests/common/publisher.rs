//! Whoever publishes: a repository in a directory, its keys, and the small policy, which changes.

use std::ops::Range;
use std::path::PathBuf;

use postern::bundle;
use postern::clock::Clock;
use postern::documents::{self, ReadOptions};
use postern::policy::{CompileOptions, Policy};
use postern::repository::{About, Keys, Lifetimes, Location, Opening, Options, Publication, Repository};
use tempfile::TempDir;

use crate::common::{BOB, SUBSCRIPTION, policy};

/// A repository in a directory, its keys, and the policy that is published there.
pub(crate) struct Publisher {
    pub(crate) dir: TempDir,
    pub(crate) policy: TempDir,
    pub(crate) repository: Repository,
    /// When it publishes.
    pub(crate) clock: Clock,
}

impl Publisher {
    /// With one publication: that of the small policy.
    pub(crate) async fn new() -> Self {
        let mut publisher = Self::empty().await;
        publisher.publish().await;
        publisher
    }

    pub(crate) async fn empty() -> Self {
        Self::at(Clock::system()).await
    }

    /// Without a publication, and by another clock.
    pub(crate) async fn at(clock: Clock) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::create(&dir.path().join("keys"), false).unwrap();
        let opening = Opening { create: true, ..Opening::default() };
        let at = dir.path().join("repository");
        let store = Location::parse(at.to_str().unwrap()).unwrap().open(opening).unwrap();
        let repository = Repository::init(store, keys, Lifetimes::default(), clock.now()).await.unwrap();
        Self { dir, policy: policy(), repository, clock }
    }

    /// Publishes what the directory says now.
    pub(crate) async fn publish(&mut self) -> Publication {
        self.publish_for(Lifetimes::default()).await
    }

    pub(crate) async fn publish_for(&mut self, lifetimes: Lifetimes) -> Publication {
        let (documents, problems) = documents::load(self.policy.path(), ReadOptions::default());
        assert!(!problems.has_errors(), "{problems:?}");
        let policy = Policy::compile(&documents, CompileOptions::default()).unwrap();
        let name = bundle::About { name: "vaults", ..bundle::About::default() };
        let bytes = bundle::build(&policy, &name).unwrap();
        let about = About {
            policy_name: "vaults".into(),
            policy_digest: policy.digest().to_owned(),
            message: "for the test".into(),
            by: "the tests".into(),
        };
        let options = Options { lifetimes, force: true, ..Options::default() };
        self.repository.publish(bytes.into(), about, options, self.clock.now()).await.unwrap().publication
    }

    /// Publishes a policy that is not the one before.
    pub(crate) async fn publish_another(&mut self, number: usize) -> Publication {
        std::fs::write(self.policy.path().join("another.json"), denies(number..number + 1)).unwrap();
        self.publish().await
    }

    pub(crate) fn repository(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    pub(crate) fn root(&self) -> String {
        self.dir.path().join("keys/root.json").to_str().unwrap().to_owned()
    }

    /// Everything but the bundles, to be put back later.
    pub(crate) fn metadata(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let entries = std::fs::read_dir(self.repository()).unwrap().map(|entry| entry.unwrap().path());
        entries
            .filter(|path| path.is_file())
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect()
    }
}

/// Deny assignments that hit nothing here, each with a name of its own.
pub(crate) fn denies(numbers: Range<usize>) -> String {
    let deny = |number: usize| {
        serde_json::json!({
            "name": format!("e0000000-0000-4000-8001-{number:012}"),
            "scope": SUBSCRIPTION,
            "denyAssignmentName": format!("Number {number} {}", "x".repeat(150)),
            "permissions": [{ "actions": ["Contoso.Other/*"] }],
            "principals": [BOB],
        })
    };
    serde_json::Value::from(numbers.map(deny).collect::<Vec<_>>()).to_string()
}
