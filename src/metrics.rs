//! Metrics, bound at start: whoever counts holds the counter itself, so that a request costs one atomic
//! addition and no look-up of labels. All labels are closed sets. A leaf: imports nothing of the crate.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::model::Freshness;

/// What `/metrics` answers with.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type FloatGauge = Gauge<f64, AtomicU64>;

/// All metrics of the process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    checks: Family<CheckLabels, Counter>,
    undecided: Family<CodeLabels, Counter>,
    invalid: Counter,
    batch_items: Counter,
    queries: Family<QueryLabels, Counter>,
    policy: PolicyMetrics,
    records: RecordMetrics,
    cache_entries: Gauge,
    cache_bytes: Gauge,
}

/// The labels of one decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CheckLabels {
    /// `Allowed`, `NotAllowed` or `Denied`.
    pub decision: &'static str,
    /// The reason code.
    pub reason: &'static str,
    /// `control` or `data`.
    pub plane: &'static str,
    /// `true` or `false`.
    pub cached: &'static str,
    /// `unix` or `tcp`.
    pub transport: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: &'static str,
}

/// The labels of one call that explains or lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QueryLabels {
    /// The method of the contract.
    pub method: &'static str,
    /// `answered`, `undecided`, `invalid`, `aborted`, `busy` or `failed`.
    pub outcome: &'static str,
    /// `unix` or `tcp`.
    pub transport: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IdentityLabels {
    serial: u64,
    digest: String,
}

/// What the updater sets.
#[derive(Clone, Debug, Default)]
pub struct PolicyMetrics {
    generation: Gauge,
    activated: FloatGauge,
    identity: Family<IdentityLabels, Gauge>,
    objects: Family<KindLabels, Gauge>,
    bytes: Gauge,
    reload_ok: Gauge,
    reload_failures: Counter,
    update_failures: Family<StepLabels, Counter>,
    confirmed: Gauge,
    expires: Gauge,
    freshness: Family<StateLabels, Gauge>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    step: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

/// What the recorder counts. Every label is a closed set: kinds, reasons, outcomes and sinks.
#[derive(Clone, Debug, Default)]
pub struct RecordMetrics {
    written: Family<WrittenLabels, Counter>,
    lost: Family<LostLabels, Counter>,
    not_kept: Family<OutcomeLabels, Counter>,
    depth: Gauge,
    candidate: Family<CandidateLabels, Counter>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WrittenLabels {
    sink: &'static str,
    kind: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LostLabels {
    kind: &'static str,
    reason: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CandidateLabels {
    outcome: &'static str,
}

/// A policy as the metrics tell it.
#[derive(Clone, Debug)]
pub struct ActivePolicy<'a> {
    /// Activations so far.
    pub generation: u64,
    /// Serial of the publication.
    pub serial: u64,
    /// Digest of the compiled policy.
    pub digest: &'a str,
    /// When, in seconds since 1970.
    pub activated_at: f64,
    /// How many of each kind.
    pub objects: &'a [(&'static str, usize)],
    /// Bytes of the compiled form.
    pub bytes: usize,
}

// === impls ===

impl Metrics {
    /// Registers everything, with what was built and from which commit.
    pub fn new(version: &'static str, commit: &'static str) -> Self {
        let mut registry = Registry::default();
        let (checks, undecided) = (Family::default(), Family::default());
        let (invalid, batch_items) = (Counter::default(), Counter::default());
        let queries = Family::default();
        let (cache_entries, cache_bytes) = (Gauge::default(), Gauge::default());
        let policy = PolicyMetrics::default();
        registry.register(
            "postern_build",
            "What is running",
            Info::new(vec![("version", version), ("commit", commit)]),
        );
        registry.register("postern_checks", "Decisions, those in batches included", checks.clone());
        registry.register(
            "postern_undecided",
            "Requests that could not be decided, by reason",
            undecided.clone(),
        );
        registry.register(
            "postern_invalid_requests",
            "Requests and batch items refused as malformed",
            invalid.clone(),
        );
        registry.register("postern_batch_items", "Items of all batches", batch_items.clone());
        registry.register("postern_queries", "Calls that explain or list, by method", queries.clone());
        registry.register("postern_cache_entries", "Entries in the decision cache", cache_entries.clone());
        registry.register(
            "postern_cache_bytes",
            "Bytes in the decision cache, keys included",
            cache_bytes.clone(),
        );
        registry.register(
            "postern_policy_generation",
            "Activations of this process so far",
            policy.generation.clone(),
        );
        registry.register(
            "postern_policy_activated_timestamp_seconds",
            "When the active policy was activated",
            policy.activated.clone(),
        );
        registry.register(
            "postern_policy_identity",
            "1 for the serial and digest of the active policy",
            policy.identity.clone(),
        );
        registry.register(
            "postern_policy_objects",
            "What the active policy holds, by kind",
            policy.objects.clone(),
        );
        registry.register(
            "postern_policy_bytes",
            "Bytes of the active policy in compiled form",
            policy.bytes.clone(),
        );
        registry.register(
            "postern_policy_reload_ok",
            "1 when the newest documents are the active policy, 0 when they were refused",
            policy.reload_ok.clone(),
        );
        registry.register(
            "postern_policy_reload_failures",
            "Reloads that kept the older policy",
            policy.reload_failures.clone(),
        );
        registry.register(
            "postern_policy_update_failures",
            "Steps of following a source that failed: metadata, bundle, state",
            policy.update_failures.clone(),
        );
        registry.register(
            "postern_policy_confirmed_timestamp_seconds",
            "When a source last confirmed the active publication; 0 for a policy directory",
            policy.confirmed.clone(),
        );
        registry.register(
            "postern_policy_expires_timestamp_seconds",
            "Until when the active publication is signed; 0 for a policy directory",
            policy.expires.clone(),
        );
        registry.register(
            "postern_policy_freshness",
            "1 for the state of the active publication at the last look: fresh, stale or expired",
            policy.freshness.clone(),
        );
        let records = RecordMetrics::default();
        records.register(&mut registry);
        Self {
            registry: Arc::new(registry),
            checks,
            undecided,
            invalid,
            batch_items,
            queries,
            policy,
            records,
            cache_entries,
            cache_bytes,
        }
    }

    /// The counter of one kind of decision.
    pub fn checks(&self, labels: CheckLabels) -> Counter {
        self.checks.get_or_create_owned(&labels)
    }

    /// The counter of one reason for not deciding.
    pub fn undecided(&self, code: &'static str) -> Counter {
        self.undecided.get_or_create_owned(&CodeLabels { code })
    }

    /// The counter of malformed requests.
    pub fn invalid(&self) -> Counter {
        self.invalid.clone()
    }

    /// The counter of batch items.
    pub fn batch_items(&self) -> Counter {
        self.batch_items.clone()
    }

    /// The counter of one kind of call that explains or lists.
    pub fn queries(&self, labels: QueryLabels) -> Counter {
        self.queries.get_or_create_owned(&labels)
    }

    /// What the updater sets.
    pub fn policy(&self) -> PolicyMetrics {
        self.policy.clone()
    }

    /// What the recorder counts.
    pub fn records(&self) -> RecordMetrics {
        self.records.clone()
    }

    /// The size of the cache, read when somebody looks.
    pub fn set_cache_size(&self, entries: u64, bytes: u64) {
        self.cache_entries.set(signed(entries));
        self.cache_bytes.set(signed(bytes));
    }

    /// Everything as text.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl RecordMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "postern_records_written",
            "Records that a sink has taken, by sink and kind: decision, or difference of the candidate",
            self.written.clone(),
        );
        registry.register("postern_records_lost", "Records that were lost, by reason", self.lost.clone());
        registry.register(
            "postern_records_not_kept",
            "Decisions that the rules of records-keep leave out",
            self.not_kept.clone(),
        );
        registry.register(
            "postern_record_queue_depth",
            "Records that wait to be written",
            self.depth.clone(),
        );
        registry.register(
            "postern_candidate_checks",
            "Checks that were asked again of the candidate policy",
            self.candidate.clone(),
        );
    }

    /// The counter of one sink and kind.
    pub fn written(&self, sink: &'static str, kind: &'static str) -> Counter {
        self.written.get_or_create_owned(&WrittenLabels { sink, kind })
    }

    /// The counter of one kind, reason and outcome.
    pub fn lost(&self, kind: &'static str, reason: &'static str, outcome: &'static str) -> Counter {
        self.lost.get_or_create_owned(&LostLabels { kind, reason, outcome })
    }

    /// The counter of what the rules leave out.
    pub fn not_kept(&self, outcome: &'static str) -> Counter {
        self.not_kept.get_or_create_owned(&OutcomeLabels { outcome })
    }

    /// What waits. The recorder counts with this very number, so it is exact whenever somebody looks.
    pub fn depth(&self) -> Gauge {
        self.depth.clone()
    }

    /// The counter of what the candidate said.
    pub fn candidate(&self, outcome: &'static str) -> Counter {
        self.candidate.get_or_create_owned(&CandidateLabels { outcome })
    }
}

impl PolicyMetrics {
    /// A policy became active.
    pub fn activated(&self, policy: &ActivePolicy<'_>) {
        self.generation.set(signed(policy.generation));
        self.activated.set(policy.activated_at);
        // One series, that of the active policy: a stale digest must not stay beside it.
        self.identity.clear();
        let identity = IdentityLabels { serial: policy.serial, digest: policy.digest.to_owned() };
        self.identity.get_or_create_owned(&identity).set(1);
        for (kind, count) in policy.objects {
            self.objects.get_or_create_owned(&KindLabels { kind }).set(signed(*count));
        }
        self.bytes.set(signed(policy.bytes));
        self.reload_ok.set(1);
    }

    /// The documents are those of the active policy.
    pub fn unchanged(&self) {
        self.reload_ok.set(1);
    }

    /// A step of following a source failed.
    pub fn failed(&self, step: &'static str) {
        self.update_failures.get_or_create_owned(&StepLabels { step }).inc();
    }

    /// How current the active publication is; times in seconds since 1970.
    pub fn lease(&self, confirmed: i64, expires: i64, freshness: Freshness) {
        self.confirmed.set(confirmed);
        self.expires.set(expires);
        for state in Freshness::ALL {
            let state = StateLabels { state: state.name() };
            self.freshness.get_or_create_owned(&state).set(i64::from(state.state == freshness.name()));
        }
    }

    /// The documents were refused.
    pub fn refused(&self) {
        self.reload_ok.set(0);
        self.reload_failures.inc();
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Gauges are signed; nothing that is counted here comes near the limit.
fn signed(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_types_are_those_of_the_documentation() {
        let metrics = Metrics::new("1.2.3", "abc");
        let labels = CheckLabels {
            decision: "Allowed",
            reason: "ROLE_ASSIGNMENT",
            plane: "control",
            cached: "false",
            transport: "tcp",
        };
        metrics.checks(labels).inc();
        metrics.undecided("NO_POLICY").inc();
        let policy = metrics.policy();
        for digest in ["old", "new"] {
            policy.activated(&ActivePolicy {
                generation: 2,
                serial: 0,
                digest,
                activated_at: 1.5,
                objects: &[("role_assignment", 7)],
                bytes: 9,
            });
        }
        policy.refused();
        metrics.set_cache_size(3, u64::MAX);
        let text = metrics.encode().unwrap();
        for line in [
            "postern_build_info{version=\"1.2.3\",commit=\"abc\"} 1",
            "postern_checks_total{decision=\"Allowed\",reason=\"ROLE_ASSIGNMENT\",plane=\"control\",cached=\"false\",transport=\"tcp\"} 1",
            "postern_undecided_total{code=\"NO_POLICY\"} 1",
            "postern_invalid_requests_total 0",
            "postern_policy_generation 2",
            "postern_policy_activated_timestamp_seconds 1.5",
            "postern_policy_identity{serial=\"0\",digest=\"new\"} 1",
            "postern_policy_objects{kind=\"role_assignment\"} 7",
            "postern_policy_reload_ok 0",
            "postern_policy_reload_failures_total 1",
            "postern_cache_entries 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} not in\n{text}");
        }
        assert!(!text.contains("digest=\"old\""));
    }
}
