//! Readiness as tokens: whatever the process still waits for holds a named [`Block`], and dropping the last one
//! makes it ready. Beside the answer stand details for people: the active policy and what went wrong with the
//! last reload. A leaf: imports nothing of the crate.
//!
//! ```text
//! updater ── Block("policy") dropped at the first activation ──┐
//! app ────── Block("drain") taken at SIGTERM ──────────────────┴──▶ /readyz
//! ```

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

/// Waited for until the first policy is active.
pub const POLICY: &str = "policy";
/// Waited for from the beginning of the end.
pub const DRAIN: &str = "drain";
/// Waited for while the serving runtime does not run.
pub const SERVING_RUNTIME: &str = "serving-runtime";
/// The freshness that needs no word.
const FRESH: &str = "fresh";

/// Who is still waited for, and the details. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<State>>);

/// Not ready while this lives.
#[must_use = "readiness is blocked for as long as this value lives"]
#[derive(Debug)]
pub struct Block {
    readiness: Readiness,
    id: u64,
}

/// The active policy, for people and for comparing replicas.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyDetail {
    /// Activations of this process so far.
    pub generation: u64,
    /// Serial of the publication.
    pub serial: u64,
    /// Digest of the compiled policy.
    pub digest: String,
    /// When it was activated.
    #[serde(serialize_with = "rfc3339")]
    pub activated_at: Timestamp,
}

/// Why the last reload kept the old policy.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReloadFailure {
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub at: Timestamp,
    /// One line for each reason.
    pub problems: Vec<String>,
}

/// How the process is, in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Not ready yet.
    #[default]
    Starting,
    /// Ready, and nothing is wrong.
    Serving,
    /// Ready, by a policy that is not the newest or not confirmed.
    Degraded,
    /// Not ready any more.
    Draining,
}

/// What `/readyz` says.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Whether nothing is pending.
    pub ready: bool,
    /// How the process is.
    pub state: Health,
    /// Why it is not simply serving, one sentence each.
    pub reasons: Vec<String>,
    /// The names that are waited for.
    pub pending: Vec<&'static str>,
    /// The active policy.
    pub policy: Option<PolicyDetail>,
    /// How current the active policy is; filled in by who knows the time.
    pub freshness: Option<&'static str>,
    /// Set while the newest documents are not the active policy.
    pub last_reload_failure: Option<ReloadFailure>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    pending: Vec<(u64, &'static str)>,
    policy: Option<PolicyDetail>,
    failure: Option<ReloadFailure>,
}

fn rfc3339<S: serde::Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(at)
}

// === impls ===

impl Readiness {
    /// Ready, until somebody blocks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Not ready until the token is dropped; the name is what `/readyz` shows.
    pub fn block(&self, name: &'static str) -> Block {
        let mut state = self.state();
        let id = state.next;
        state.next = id.wrapping_add(1);
        state.pending.push((id, name));
        Block { readiness: self.clone(), id }
    }

    /// The policy that is active from now on.
    pub fn policy_activated(&self, policy: PolicyDetail) {
        let mut state = self.state();
        state.policy = Some(policy);
        state.failure = None;
    }

    /// A reload that kept the old policy.
    pub fn reload_failed(&self, failure: ReloadFailure) {
        self.state().failure = Some(failure);
    }

    /// The documents are again those of the active policy.
    pub fn reload_unchanged(&self) {
        self.state().failure = None;
    }

    /// What to answer now.
    pub fn report(&self) -> Report {
        let state = self.state();
        let mut pending: Vec<_> = state.pending.iter().map(|(_, name)| *name).collect();
        pending.sort_unstable();
        pending.dedup();
        let mut report = Report {
            ready: pending.is_empty(),
            state: Health::Starting,
            reasons: Vec::new(),
            pending,
            policy: state.policy.clone(),
            freshness: None,
            last_reload_failure: state.failure.clone(),
        };
        drop(state);
        report.judge();
        report
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health {
    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
        }
    }
}

impl Report {
    /// Says state and reasons anew; for whoever has changed the rest.
    pub fn judge(&mut self) {
        self.reasons.clear();
        for name in &self.pending {
            self.reasons.push(match *name {
                POLICY => "no policy has become active yet".to_owned(),
                DRAIN => "the process is ending".to_owned(),
                SERVING_RUNTIME => "the threads that answer requests do not run".to_owned(),
                other => format!("waiting for {other}"),
            });
        }
        if let Some(failure) = &self.last_reload_failure {
            let first = failure.problems.first().map_or("", String::as_str);
            self.reasons.push(format!("what is newest was refused at {}: {first}", failure.at));
        }
        if let Some(freshness) = self.freshness.filter(|freshness| *freshness != FRESH) {
            self.reasons.push(format!("the active policy is {freshness}"));
        }
        self.state = if self.pending.contains(&DRAIN) {
            Health::Draining
        } else if !self.ready {
            Health::Starting
        } else if self.reasons.is_empty() {
            Health::Serving
        } else {
            Health::Degraded
        };
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.readiness.state().pending.retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_token_is_dropped() {
        let readiness = Readiness::new();
        let (policy, other, twice) =
            (readiness.block("policy"), readiness.block("listener"), readiness.block("policy"));
        assert_eq!(readiness.report().pending, ["listener", "policy"]);
        drop(policy);
        assert_eq!(readiness.report().pending, ["listener", "policy"], "two tokens of one name");
        drop(twice);
        assert_eq!(readiness.report().pending, ["listener"]);
        assert!(!readiness.report().ready);
        drop(other);
        assert!(readiness.report().ready);
    }

    #[test]
    fn state_and_reasons() {
        let readiness = Readiness::new();
        let policy = readiness.block(POLICY);
        let report = readiness.report();
        assert_eq!((report.state, report.reasons.len()), (Health::Starting, 1));
        drop(policy);
        assert_eq!(readiness.report().state, Health::Serving);
        let mut stale = readiness.report();
        stale.freshness = Some("stale");
        stale.judge();
        assert_eq!(
            (stale.state, stale.reasons),
            (Health::Degraded, vec!["the active policy is stale".into()])
        );
        let _ending = readiness.block(DRAIN);
        assert_eq!(readiness.report().state, Health::Draining);
    }

    #[test]
    fn a_failure_stays_until_the_documents_are_good_again() {
        let readiness = Readiness::new();
        let failure = ReloadFailure { at: Timestamp::UNIX_EPOCH, problems: vec!["bad".into()] };
        readiness.reload_failed(failure.clone());
        assert_eq!(readiness.report().last_reload_failure, Some(failure));
        let report = readiness.report();
        assert!(report.ready, "an older policy may be active");
        assert_eq!(report.state, Health::Degraded);
        assert_eq!(report.reasons, ["what is newest was refused at 1970-01-01T00:00:00Z: bad"]);
        readiness.reload_unchanged();
        assert_eq!(readiness.report().last_reload_failure, None);
    }
}
