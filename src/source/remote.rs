//! Signed publications: polled, verified, kept, activated.
//!
//! ```text
//! start ─▶ state directory: verified again, mapped, active at once ─┐
//!                                                                   ▼
//!     ┌─────────────── wait for the interval, with jitter ◀── every outcome
//!     ▼                                                             ▲
//! ask the sources in turn ─▶ nothing newer: the lease is renewed ───┤
//!     │ something newer, verified                                   │
//!     ▼                                                             │
//! keep the metadata ─▶ read the bundle, hashing ─▶ map ─▶ activate ─┤
//!     └── any failure: the active policy stays, the reason is told ─┘
//! ```
//!
//! One task does all of it and holds the only writer. A source that is down or lies never stops a start that another
//! source or the disk can serve, and never makes an active policy go away.

use std::fmt::Display;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::time::{sleep, timeout};
use tracing::Instrument;

use crate::bundle::{self, Bundle, BundleError, Check, Limits};
use crate::repository::{self, Client, Location, LocationError, Opening, PollError, Store, StoreError};
use crate::snapshot::{Lease, Publication};

use super::activate::{Activator, Hangup, Update, fetching, verifying};
use super::state::{Metadata, StateDir, StateError, Which};

/// A source that fails is asked less often, up to this many intervals apart.
const MOST_RESTS: u32 = 6;
/// The source that an answer names when the policy came from the state directory.
const FROM_STATE: &str = "state";
/// A look reads a few kilobytes: a source that takes longer is passed over for the next one.
const LOOK: Duration = Duration::from_secs(20);
/// A bundle may be large and the way to it slow.
const PATIENCE: Duration = Duration::from_secs(300);

/// Where publications come from, and how they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSettings {
    /// Mirrors of one repository, in the order they are asked.
    pub sources: Vec<String>,
    /// The root of trust.
    pub trusted_root: PathBuf,
    /// Where publications are kept.
    pub state_dir: Option<PathBuf>,
    /// Between two polls.
    pub poll_interval: Duration,
    /// Until a publication that is not confirmed counts as stale.
    pub max_age: Duration,
    /// The largest bundle that is read.
    pub max_bundle_bytes: u64,
}

/// Why a sidecar cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The root of trust.
    #[error("the trusted root `{}` cannot be used: {reason}", path.display())]
    TrustedRoot {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A source that is none.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Polls sources and keeps the active policy that of the newest publication.
#[derive(Debug)]
pub struct RemoteUpdater {
    settings: RemoteSettings,
    activator: Activator,
    root: Vec<u8>,
    state: Option<StateDir>,
    mirrors: Vec<Mirror>,
    /// The newest metadata that was verified, whoever brought it: the high-water mark of all mirrors.
    latest: Option<Metadata>,
    active: Option<Active>,
}

/// What decides.
#[derive(Debug)]
struct Active {
    publication: Arc<Publication>,
    /// A root that ends the keys of publications may begin their count again, so the number alone does not tell.
    bundle_sha256: String,
}

/// A source, and what it said last.
#[derive(Debug)]
struct Mirror {
    label: String,
    store: Store,
    client: Client,
    /// What the client was last brought to.
    knows: Option<Metadata>,
    /// Asks in a row that came to nothing.
    failures: u32,
    /// How many asks it is still left out of.
    resting: u32,
}

impl RemoteUpdater {
    /// Reads the root of trust, takes the state directory, finds the sources. Asks nobody yet.
    ///
    /// # Errors
    ///
    /// What no retry would mend.
    pub fn new(settings: RemoteSettings, activator: Activator) -> Result<Self, StartError> {
        let unusable =
            |reason: String| StartError::TrustedRoot { path: settings.trusted_root.clone(), reason };
        let root = std::fs::read(&settings.trusted_root).map_err(|error| unusable(error.to_string()))?;
        let mut mirrors = Vec::new();
        for label in &settings.sources {
            let opening = Opening { timeout: PATIENCE, ..Opening::default() };
            let store = Location::parse(label)?.open(opening)?;
            let client = Client::new(store.clone(), root.clone(), repository::Limits::default())
                .map_err(|refused| unusable(refused.to_string()))?;
            let label = label.clone();
            mirrors.push(Mirror { label, store, client, knows: None, failures: 0, resting: 0 });
        }
        let state = settings.state_dir.as_deref().map(StateDir::open).transpose()?;
        Ok(Self { settings, activator, root, state, mirrors, latest: None, active: None })
    }

    /// Serves what is on disk, then follows the sources for ever.
    pub async fn run(mut self) {
        let mut hangup = Hangup::catch();
        let mut failures: u32 = 0;
        self.restore();
        loop {
            // A source that everybody fails at is not asked harder than one that answers.
            let answered = AssertUnwindSafe(self.ask()).catch_unwind().await.unwrap_or_else(|_| {
                // A mistake in reading what somebody else wrote must not take the decisions with it.
                self.activator.refused(vec!["the updater has failed; this is a bug".to_owned()]);
                false
            });
            failures = if answered { 0 } else { MOST_RESTS.min(failures.saturating_add(1)) };
            self.tell_lease();
            tokio::select! {
                () = sleep(around(self.settings.poll_interval.saturating_mul(failures.max(1)))) => {}
                () = hangup.next() => self.mirrors.iter_mut().for_each(|mirror| mirror.resting = 0),
            }
        }
    }

    /// What the state directory has, verified again and active at once. Trouble with it is told and costs the start
    /// nothing but time.
    fn restore(&mut self) {
        let Some(state) = &self.state else { return };
        let kept = |which| match state.read(which) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(%error, "what was kept is not used");
                None
            }
        };
        let kept = [Which::Latest, Which::Active].map(|which| (which, kept(which)));
        let Some(mirror) = self.mirrors.first() else { return };
        let (mut latest, mut found) = (None, None);
        for (which, kept) in kept {
            let Some(kept) = kept else { continue };
            let client = match restored(&mirror.store, &self.root, &kept) {
                Ok(client) => client,
                Err(error) => {
                    tracing::warn!(%error, "what was kept is not used");
                    continue;
                }
            };
            // The first that can be read is the high-water mark.
            latest.get_or_insert_with(|| kept.clone());
            let Some(publication) = client.current().cloned() else { continue };
            match open(&state.bundle(&publication.bundle_sha256), &publication.bundle_sha256) {
                Ok(bundle) => {
                    let confirmed = state.written(which).unwrap_or(Timestamp::UNIX_EPOCH);
                    found = Some((bundle, publication, confirmed, (which == Which::Latest).then_some(kept)));
                    break;
                }
                // The last process learnt of it and had no time to read it.
                Err(BundleError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                    tracing::info!(
                        serial = publication.serial,
                        "the newest bundle that is known of is not here"
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, serial = publication.serial, "the kept bundle is not used")
                }
            }
        }
        self.latest = latest;
        if let Some((bundle, publication, confirmed, newest)) = found {
            // The last process may have been killed before it could say so. The next metadata that is kept must not
            // leave only an older bundle to begin with.
            if let Some(metadata) = newest
                && state.read(Which::Active).ok().flatten().as_ref() != Some(&metadata)
            {
                self.keep(Which::Active, &metadata);
            }
            self.activate(bundle, &publication, FROM_STATE, confirmed);
        }
    }

    /// Asks the sources in turn until one says where things stand; whether one did.
    async fn ask(&mut self) -> bool {
        let mut problems = Vec::new();
        // Where all of them rest, the first is asked all the same.
        let all_rest = self.mirrors.iter().all(|mirror| mirror.resting > 0);
        for number in 0..self.mirrors.len() {
            let Some(mirror) = self.mirrors.get_mut(number) else { continue };
            if mirror.resting > 0 && !(all_rest && number == 0) {
                mirror.resting -= 1;
                continue;
            }
            let label = mirror.label.clone();
            let update = Update::begin(&label);
            let before =
                self.active.as_ref().map(|active| (active.publication.serial, active.bundle_sha256.clone()));
            let outcome = self.ask_one(number).instrument(update.0.clone()).await;
            match &outcome {
                Ok(())
                    if self
                        .active
                        .as_ref()
                        .map(|active| (active.publication.serial, active.bundle_sha256.clone()))
                        == before =>
                {
                    update.ended("unchanged");
                }
                Ok(()) => update.ended("activated"),
                Err(_) => update.failed(),
            }
            let Some(mirror) = self.mirrors.get_mut(number) else { continue };
            match outcome {
                Ok(()) => {
                    (mirror.failures, mirror.resting) = (0, 0);
                    for problem in &problems {
                        tracing::warn!(
                            problem,
                            answered = label,
                            "a source cannot be followed, another one can"
                        );
                    }
                    self.activator.unchanged();
                    return true;
                }
                Err(failure) => {
                    mirror.failures = mirror.failures.saturating_add(1);
                    mirror.resting = mirror.failures.min(MOST_RESTS).saturating_sub(1);
                    self.activator.metrics.failed(failure.step);
                    problems.push(format!("{label}: {}", failure.reason));
                }
            }
        }
        for problem in &problems {
            tracing::warn!(problem, "no source can be followed; what is active stays");
        }
        self.activator.refused(problems);
        false
    }

    /// Asks one source, and follows it where it is newer.
    async fn ask_one(&mut self, number: usize) -> Result<(), Failure> {
        let now = self.activator.clock.now();
        let Some(mirror) = self.mirrors.get_mut(number) else { return Ok(()) };
        // What another source has shown holds for this one, too: an older one must not undo it.
        if let Some(latest) = &self.latest
            && mirror.knows.as_ref() != Some(latest)
        {
            let known = restored(&mirror.store, &self.root, latest);
            mirror.client = known.map_err(|refused| Failure::new("metadata", &refused))?;
            mirror.knows = Some(latest.clone());
        }
        // What was verified before the time is over stays verified.
        let polled = timeout(LOOK, mirror.client.poll(now)).instrument(fetching()).await;
        let metadata = persisted(&mirror.client);
        let publication = mirror.client.current().cloned();
        let (label, client) = (mirror.label.clone(), mirror.client.clone());
        // Steps that were verified count, even where a later one was refused.
        if mirror.knows.as_ref() != Some(&metadata) {
            mirror.knows = Some(metadata.clone());
            self.keep(Which::Latest, &metadata);
            self.latest = Some(metadata.clone());
        }
        polled
            .map_err(|_| Failure::new("metadata", &format_args!("no answer within {LOOK:?}")))?
            .map_err(|error| Failure::new("metadata", &error))?;
        let Some(publication) = publication else {
            return Err(Failure::new("metadata", &"nothing has been published there yet"));
        };
        if let Some(active) = &self.active
            && active.publication.serial == publication.serial
            && active.bundle_sha256 == publication.bundle_sha256
        {
            active.publication.lease.renew(now, publication.expires);
            return Ok(());
        }
        let bundle = timeout(PATIENCE, self.bring(&client, &publication))
            .instrument(fetching())
            .await
            .map_err(|_| Failure::new("bundle", &format_args!("not read within {PATIENCE:?}")))??;
        // Before it decides anything: whoever is killed from here on begins with what has been decided by, or with
        // something newer.
        if self.state.as_ref().is_some_and(|state| state.bundle(&publication.bundle_sha256).exists()) {
            self.keep(Which::Active, &metadata);
        }
        self.activate(bundle, &publication, &label, now);
        if let Some(state) = &self.state {
            let bundle = |metadata: &Metadata| {
                let known = restored(client.store(), &self.root, metadata).ok()?;
                known.current().map(|publication| publication.bundle_sha256.clone())
            };
            state.sweep(&publication.bundle_sha256, bundle);
        }
        Ok(())
    }

    /// The bundle of a publication: from the disk where it is there already, else from the source to the disk, and
    /// where the disk refuses, to memory: trouble with a disk keeps no policy from being followed.
    async fn bring(&self, client: &Client, publication: &repository::Publication) -> Result<Bundle, Failure> {
        if let Some(state) = &self.state {
            let (place, sha256) =
                (state.bundle(&publication.bundle_sha256), publication.bundle_sha256.clone());
            // Hashing a large file takes as long as an answer to thousands.
            let kept =
                tokio::task::spawn_blocking(move || place.exists().then(|| open(&place, &sha256))).await;
            match kept {
                Ok(Some(Ok(bundle))) => return Ok(bundle),
                Ok(Some(Err(error))) => tracing::warn!(%error, "the kept bundle is read again"),
                _ => {}
            }
            match self.to_disk(state, client, publication).await {
                Ok(bundle) => return Ok(bundle),
                Err(Brought::Failed(failure)) => return Err(failure),
                Err(Brought::NoRoom(error)) => {
                    tracing::warn!(error, "the bundle cannot be kept and is held in memory instead");
                }
            }
        }
        let mut bytes = Vec::new();
        client
            .download_bundle(publication, self.settings.max_bundle_bytes, &mut bytes)
            .await
            .map_err(|error| Failure::new("bundle", &error))?;
        let check = Check::Bounds { digest: digest(&publication.bundle_sha256) };
        verifying()
            .in_scope(|| bundle::from_bytes_verified(bytes, check))
            .map_err(|error| Failure::new("bundle", &error))
    }

    async fn to_disk(
        &self,
        state: &StateDir,
        client: &Client,
        publication: &repository::Publication,
    ) -> Result<Bundle, Brought> {
        let no_room = |error: &dyn Display| Brought::NoRoom(error.to_string());
        let incoming = state.incoming().map_err(|error| no_room(&error))?;
        let file = incoming.file.try_clone().map_err(|error| no_room(&error))?;
        let mut to = tokio::io::BufWriter::with_capacity(1 << 20, tokio::fs::File::from_std(file));
        let sha256 = &publication.bundle_sha256;
        client.download_bundle(publication, self.settings.max_bundle_bytes, &mut to).await.map_err(
            |error| match error {
                PollError::Store(error @ StoreError::Output { .. }) => no_room(&error),
                error => Brought::Failed(Failure::new("bundle", &error)),
            },
        )?;
        let place = state.admit(incoming, sha256).map_err(|error| no_room(&error))?;
        // It was hashed while it came in.
        let check = Check::Bounds { digest: digest(sha256) };
        verifying()
            .in_scope(|| bundle::open_verified(&place, Limits::default(), check))
            .map_err(|error| Brought::Failed(Failure::new("bundle", &error)))
    }

    fn activate(
        &mut self,
        bundle: Bundle,
        found: &repository::Publication,
        source: &str,
        confirmed: Timestamp,
    ) {
        let publication = Arc::new(Publication {
            serial: found.serial,
            source: source.to_owned(),
            policy_name: found.policy_name.clone(),
            published_at: Some(found.published_at),
            published_by: found.published_by.clone(),
            message: found.message.clone(),
            lease: Lease::new(confirmed, found.expires, self.settings.max_age),
        });
        self.activator.activate(bundle.policy, Some(Arc::clone(&publication)));
        self.active = Some(Active { publication, bundle_sha256: found.bundle_sha256.clone() });
    }

    fn tell_lease(&self) {
        if let Some(Active { publication, .. }) = &self.active {
            let (now, lease) = (self.activator.clock.now(), &publication.lease);
            self.activator.metrics.lease(
                lease.confirmed().as_second(),
                lease.expires().as_second(),
                lease.freshness(now),
            );
        }
    }

    fn keep(&self, which: Which, metadata: &Metadata) {
        let Some(state) = &self.state else { return };
        if let Err(error) = state.keep(which, metadata) {
            self.activator.metrics.failed("state");
            tracing::warn!(%error, "a restart will not know of what is newest");
        }
    }
}

/// Why a source is not followed.
struct Failure {
    /// The step, for the metric.
    step: &'static str,
    reason: String,
}

impl Failure {
    fn new(step: &'static str, reason: &dyn Display) -> Self {
        Self { step, reason: reason.to_string() }
    }
}

/// Why a bundle is not on disk.
enum Brought {
    /// The source is at fault.
    Failed(Failure),
    /// The disk is.
    NoRoom(String),
}

/// A client that knows what was verified before.
fn restored(store: &Store, root: &[u8], known: &Metadata) -> Result<Client, repository::Refused> {
    let known = known.iter().map(|(name, text)| (name, text.clone().into_bytes()));
    Client::restore(store.clone(), root.to_vec(), known, repository::Limits::default())
}

/// Everything that a client has verified. Metadata is JSON, and so it is text.
fn persisted(client: &Client) -> Metadata {
    let text =
        |(name, bytes): (&'static str, Vec<u8>)| Some((name.to_owned(), String::from_utf8(bytes).ok()?));
    client.persist().into_iter().filter_map(text).collect()
}

fn digest(sha256: &str) -> String {
    format!("sha256:{sha256}")
}

/// Opens a kept bundle if it is the one.
fn open(path: &Path, sha256: &str) -> Result<Bundle, BundleError> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => hash.update(buffer.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    let found = hex::encode(hash.finalize());
    if found != sha256 {
        return Err(BundleError::DigestMismatch {
            part: "file",
            expected: digest(sha256),
            found: digest(&found),
        });
    }
    bundle::open_verified(path, Limits::default(), Check::Bounds { digest: digest(sha256) })
}

/// Between 80 and 120 % of an interval, so that a fleet that was started together does not ask together. Chance is
/// drawn from the keys of the standard hasher: it need not be a secret.
fn around(interval: Duration) -> Duration {
    let percent = u32::try_from(RandomState::new().hash_one(0_u8) % 41).unwrap_or(20) + 80;
    interval.saturating_mul(percent) / 100
}
