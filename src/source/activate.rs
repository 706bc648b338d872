//! The one way a policy becomes active: swap the pointer, tell everybody, free the old one where nobody waits.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::Span;
use tracing::field::Empty;

use crate::clock::Clock;
use crate::metrics::{ActivePolicy, PolicyMetrics};
use crate::policy::Policy;
use crate::readiness::{Block, PolicyDetail, Readiness, ReloadFailure};
use crate::snapshot::{PolicyWriter, Publication, Snapshot};
use crate::telemetry::BRIDGED;
use crate::telemetry::names::{attribute, span};

/// How often a replaced policy is asked whether its last reader has gone.
const RETIRE_POLL: Duration = Duration::from_millis(50);

/// Holds the only [`PolicyWriter`], and whom to tell.
#[derive(Debug)]
pub struct Activator {
    /// The only one.
    pub writer: PolicyWriter,
    /// The time of activations.
    pub clock: Clock,
    /// Told what is active.
    pub readiness: Readiness,
    /// Dropped at the first activation.
    pub waiting: Option<Block>,
    /// Told what is active.
    pub metrics: PolicyMetrics,
    /// Sends the generation at each activation.
    pub activated: watch::Sender<u64>,
}

/// One look at a source, as a span; what is done in it are its steps.
#[derive(Clone, Debug)]
pub(super) struct Update(pub(super) Span);

impl Update {
    pub(super) fn begin(source: impl Display) -> Self {
        Self(tracing::info_span!(
            target: BRIDGED,
            parent: None,
            span::POLICY_UPDATE,
            { attribute::POLICY_SOURCE } = %source,
            { attribute::UPDATE_OUTCOME } = Empty,
            otel.status_code = Empty,
        ))
    }

    /// `unchanged` or `activated`.
    pub(super) fn ended(&self, outcome: &'static str) {
        self.0.record(attribute::UPDATE_OUTCOME, outcome);
    }

    pub(super) fn failed(&self) {
        self.0.record(attribute::UPDATE_OUTCOME, "failed");
        self.0.record("otel.status_code", "ERROR");
    }
}

/// The step of getting what is new.
pub(super) fn fetching() -> Span {
    tracing::info_span!(target: BRIDGED, span::POLICY_FETCH)
}

/// The step of checking it.
pub(super) fn verifying() -> Span {
    tracing::info_span!(target: BRIDGED, span::POLICY_VERIFY)
}

impl Activator {
    /// Makes a policy the active one; without a publication it is that of a directory.
    pub fn activate(&mut self, policy: Policy, publication: Option<Arc<Publication>>) -> Arc<Snapshot> {
        let _step = tracing::info_span!(target: BRIDGED, span::POLICY_ACTIVATE).entered();
        let now = self.clock.now();
        let counts = policy.counts();
        let (snapshot, previous) = match publication {
            Some(publication) => self.writer.activate_published(policy, publication, now),
            // What was never published has no serial.
            None => self.writer.activate(policy, 0, now),
        };
        let digest = snapshot.policy.digest();
        self.metrics.activated(&ActivePolicy {
            generation: snapshot.generation,
            serial: snapshot.serial,
            digest,
            activated_at: now.as_duration().as_secs_f64(),
            objects: &[
                ("role_definition", counts.role_definitions),
                ("role_assignment", counts.role_assignments),
                ("deny_assignment", counts.deny_assignments),
                ("principal", counts.principals),
                ("scope", counts.scopes),
            ],
            bytes: counts.bytes,
        });
        self.readiness.policy_activated(PolicyDetail {
            generation: snapshot.generation,
            serial: snapshot.serial,
            digest: digest.to_owned(),
            activated_at: now,
        });
        self.activated.send_replace(snapshot.generation);
        self.waiting = None;
        tracing::info!(
            generation = snapshot.generation,
            serial = snapshot.serial,
            digest,
            role_definitions = counts.role_definitions,
            role_assignments = counts.role_assignments,
            deny_assignments = counts.deny_assignments,
            bytes = counts.bytes,
            "policy active"
        );
        if let Some(previous) = previous {
            tokio::spawn(retire(previous));
        }
        snapshot
    }

    /// What is newest is what is active.
    pub fn unchanged(&self) {
        self.metrics.unchanged(self.clock.now().as_duration().as_secs_f64());
        self.readiness.reload_unchanged();
    }

    /// What is newest is refused; the active policy stays. One line for each reason.
    pub fn refused(&self, problems: Vec<String>) {
        self.metrics.refused();
        self.readiness.reload_failed(ReloadFailure { at: self.clock.now(), problems });
    }
}

/// SIGHUP: look now.
pub(super) struct Hangup(Option<Signal>);

impl Hangup {
    /// From now on; where it cannot be caught, it never comes.
    pub(super) fn catch() -> Self {
        let caught = signal(SignalKind::hangup());
        Self(caught.inspect_err(|error| tracing::warn!(%error, "SIGHUP cannot be caught")).ok())
    }

    pub(super) async fn next(&mut self) {
        match &mut self.0 {
            Some(signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    }
}

/// Whoever drops the last reference of a large policy pays for it: not a thread that answers requests.
async fn retire(snapshot: Arc<Snapshot>) {
    while Arc::strong_count(&snapshot) > 1 {
        sleep(RETIRE_POLL).await;
    }
    tokio::task::spawn_blocking(move || drop(snapshot));
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::model::Documents;
    use crate::policy::CompileOptions;

    #[tokio::test]
    async fn a_replaced_policy_is_freed_when_its_last_reader_has_gone() {
        let policy = || Policy::compile(&Documents::default(), CompileOptions::default()).unwrap();
        let (mut writer, reader) = crate::snapshot::cell();
        writer.activate(policy(), 0, jiff::Timestamp::UNIX_EPOCH);
        let kept = reader.load_full().unwrap();
        let (_, previous) = writer.activate(policy(), 0, jiff::Timestamp::UNIX_EPOCH);
        let freed = Arc::downgrade(&kept);
        let mut retiring = std::pin::pin!(retire(previous.unwrap()));
        assert!(timeout(Duration::from_millis(100), &mut retiring).await.is_err(), "somebody reads it");
        drop(kept);
        retiring.await;
        let start = Instant::now();
        while freed.upgrade().is_some() {
            assert!(start.elapsed() < Duration::from_secs(10));
            tokio::task::yield_now().await;
        }
    }
}
