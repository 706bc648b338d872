//! Every name that leaves the process: attributes, events and spans of traces, metrics and their labels. In one
//! place, because dashboards, alerts and queries are built on them; a test finds such a literal anywhere else.

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Always 1; what it says is in its labels.
    Info,
    /// How long something took, in seconds.
    Histogram,
}

/// A metric: the same name, labels and meaning where it is scraped and where it is pushed.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// The unit as OTLP writes it.
    pub unit: &'static str,
    /// What it counts, for people.
    pub help: &'static str,
    /// The names of its labels. Their values are closed sets; only the identity of the active policy is not, of
    /// which there is one at a time.
    pub labels: &'static [&'static str],
}

macro_rules! names {
    ($($(#[doc = $doc:literal])+ $constant:ident = $name:literal;)+) => {
        $($(#[doc = $doc])+ pub const $constant: &str = $name;)+
        /// All of them, with what they say.
        pub const ALL: &[(&str, &str)] = &[$(($name, concat!($($doc),+))),+];
    };
}

macro_rules! metrics {
    ($($constant:ident: $kind:ident $name:literal in $unit:literal, $help:literal, [$($label:ident),*];)+) => {
        $(
            #[doc = $help]
            pub const $constant: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                unit: $unit,
                help: $help,
                labels: &[$(super::label::$label),*],
            };
        )+
        /// All of them, in the order in which they are shown.
        pub const ALL: &[&Metric] = &[$(&$constant),+];
    };
}

/// Attributes of spans and of the events of batches.
pub mod attribute {
    names! {
        /// `grpc`.
        RPC_SYSTEM_NAME = "rpc.system.name";
        /// The method of a request to the admin endpoint.
        HTTP_REQUEST_METHOD = "http.request.method";
        /// Its path.
        HTTP_ROUTE = "http.route";
        /// What it was answered.
        HTTP_RESPONSE_STATUS_CODE = "http.response.status_code";
        /// The method with its service.
        RPC_METHOD = "rpc.method";
        /// The status of the call, as its name in capitals.
        RPC_RESPONSE_STATUS_CODE = "rpc.response.status_code";
        /// Set where there is no answer: the reason, or the status.
        ERROR_TYPE = "error.type";
        /// `unix` or `tcp`.
        NETWORK_TRANSPORT = "network.transport";
        /// `Allowed`, `NotAllowed` or `Denied`; missing where there is no decision.
        DECISION = "postern.decision";
        /// The reason code of the decision.
        REASON_CODE = "postern.reason_code";
        /// The reason in words, as the answer has it.
        REASON = "postern.reason";
        /// Why there is no decision.
        UNDECIDED = "postern.undecided";
        /// The action that was asked for.
        ACTION = "postern.action";
        /// `control` or `data`.
        PLANE = "postern.plane";
        /// The scope that was asked about.
        SCOPE = "postern.scope";
        /// Who asks: hashed, as it came, or not at all, as `trace-principals` says.
        PRINCIPAL = "postern.principal";
        /// The user for whom an agent asks, in the same form.
        ON_BEHALF_OF = "postern.on_behalf_of";
        /// How many groups the caller vouches for.
        GROUPS = "postern.groups";
        /// The caller's request id.
        REQUEST_ID = "postern.request_id";
        /// The id of a question on its stream.
        QUESTION_ID = "postern.question_id";
        /// The role assignment that grants.
        ROLE_ASSIGNMENT_ID = "postern.role_assignment.id";
        /// The role that it assigns.
        ROLE_DEFINITION_ID = "postern.role_definition.id";
        /// The deny assignment that blocks.
        DENY_ASSIGNMENT_ID = "postern.deny_assignment.id";
        /// Deny assignments that would block if they were enforced.
        AUDITED_DENY_ASSIGNMENT_IDS = "postern.audited_deny_assignment.ids";
        /// `hit`, `miss` or `bypass`.
        CACHE = "postern.cache";
        /// For how many seconds the answer holds; missing where nothing limits it.
        VALID_FOR = "postern.valid_for_seconds";
        /// How long the evaluation took, in microseconds.
        EVALUATION = "postern.evaluation_microseconds";
        /// `review` or `auto`, the stricter of what the agent says and what its document says.
        AGENT_MODE = "postern.agent.mode";
        /// The steps in their order, each with its state: `approval_prompt:next`.
        AGENT_STEPS = "postern.agent.steps";
        /// With whose rights an agent's action is done: `agent` or `user`.
        EXECUTED_AS = "postern.executed_as";
        /// Serial of the publication that decided; 0 for a policy directory.
        POLICY_SERIAL = "postern.policy.serial";
        /// Digest of the policy that decided.
        POLICY_DIGEST = "postern.policy.digest";
        /// How many policies this process had activated when it decided.
        POLICY_GENERATION = "postern.policy.generation";
        /// Seconds since a source last confirmed the policy; 0 for a policy directory.
        POLICY_AGE = "postern.policy.age_seconds";
        /// `fresh`, `stale` or `expired`.
        POLICY_FRESHNESS = "postern.policy.freshness";
        /// How many items a batch has.
        BATCH_SIZE = "postern.batch.size";
        /// Position of an item in its batch.
        BATCH_INDEX = "postern.batch.index";
        /// How many items of a batch are not allowed, denied, undecided or malformed.
        BATCH_NOT_ALLOWED = "postern.batch.not_allowed";
        /// How long an item took, in microseconds.
        BATCH_ITEM_DURATION = "postern.batch.item_microseconds";
        /// The rule of `trace-keep` by which a span is here that was not sampled.
        KEPT = "postern.trace.kept";
        /// Where the updater looked for something newer.
        POLICY_SOURCE = "postern.policy.source";
        /// What came of a look at a source: `unchanged`, `activated` or `failed`.
        UPDATE_OUTCOME = "postern.policy.update.outcome";
        /// Draft of OpenTelemetry: the decision about an agent's action, `allow`, `deny` or `escalate`.
        GEN_AI_DECISION = "gen_ai.agent.authorization.decision";
        /// Draft of OpenTelemetry: the reason code.
        GEN_AI_REASON = "gen_ai.agent.authorization.reason";
        /// Draft of OpenTelemetry: what decided, by name.
        GEN_AI_POLICY_NAME = "gen_ai.agent.authorization.policy.name";
        /// Draft of OpenTelemetry: the digest of the policy that decided.
        GEN_AI_POLICY_VERSION = "gen_ai.agent.authorization.policy.version";
    }

    /// What a baggage key is called as an attribute begins with this; the key follows as it came.
    pub const BAGGAGE_PREFIX: &str = "baggage.";
}

/// Events of spans, and of the log.
pub mod event {
    names! {
        /// One item of a batch.
        BATCH_ITEM = "postern.batch.item";
        /// A decision record: a log record, not an event of a span.
        DECISION = "postern.decision";
        /// The record of a difference that the candidate makes.
        DIFFERENCE = "postern.candidate.difference";
    }
}

/// Spans of what is slower than a call; the spans of calls have the names of their methods.
pub mod span {
    names! {
        /// One look at the source of the policy.
        POLICY_UPDATE = "policy.update";
        /// Getting what is new: metadata, a bundle, the documents of a directory.
        POLICY_FETCH = "policy.fetch";
        /// Checking it: signatures, digests, documents.
        POLICY_VERIFY = "policy.verify";
        /// Making it the active policy.
        POLICY_ACTIVATE = "policy.activate";
        /// A request to the admin endpoint that belongs to a trace; called by its method and path.
        ADMIN = "admin.request";
        /// `postern publish`.
        POLICY_PUBLISH = "policy.publish";
        /// Making a bundle of the policy that is published.
        POLICY_COMPILE = "policy.compile";
        /// `postern repo init`.
        REPOSITORY_INIT = "repository.init";
        /// `postern repo refresh`.
        REPOSITORY_REFRESH = "repository.refresh";
        /// `postern repo rollback`.
        REPOSITORY_ROLLBACK = "repository.rollback";
        /// `postern repo rotate-key`.
        REPOSITORY_ROTATE_KEY = "repository.rotate_key";
        /// Reading and verifying what a repository holds, before writing to it.
        REPOSITORY_OPEN = "repository.open";
        /// Signing and writing.
        REPOSITORY_WRITE = "repository.write";
    }
}

/// Metadata of answers of the gRPC health service.
pub mod metadata {
    names! {
        /// `starting`, `serving`, `degraded` or `draining`.
        STATE = "postern-state";
        /// Why it is not simply serving, separated by semicolons; missing where it is.
        REASONS = "postern-reasons";
    }
}

/// What the scope of instrumentation is called.
pub const INSTRUMENTATION: &str = "postern";

/// What the scope of instrumentation of decision records is called.
pub const RECORDS: &str = "postern.records";

/// Metrics of the injector, a process of its own: families of counters, with what came of it as `outcome`.
pub mod injector {
    names! {
        /// Pods that were reviewed.
        REVIEWS = "postern_injector_reviews";
        /// Certificates that were read again.
        CERTIFICATE_RELOADS = "postern_injector_certificate_reloads";
    }
}

/// Labels of metrics.
pub mod label {
    names! {
        /// What was decided: `Allowed`, `NotAllowed`, `Denied` or `Undecided`, and `Unknown` of a record that a
        /// receiver has rejected without saying which; or how a call ended.
        OUTCOME = "outcome";
        /// The reason code; for `Undecided` why there is no decision; or why something was lost.
        REASON = "reason";
        /// `control` or `data`.
        PLANE = "plane";
        /// `hit`, `miss`, or `bypass` where the cache was not asked.
        CACHE = "cache";
        /// `unix` or `tcp`.
        TRANSPORT = "transport";
        /// The method of the contract.
        METHOD = "method";
        /// What is counted, of which kind.
        KIND = "kind";
        /// Where records go: `stdout`, `file` or `otlp`.
        SINK = "sink";
        /// The step that failed.
        STEP = "step";
        /// `fresh`, `stale` or `expired`.
        STATE = "state";
        /// The version of the program.
        VERSION = "version";
        /// The commit that it was built from.
        COMMIT = "commit";
        /// Of the active publication.
        SERIAL = "serial";
        /// Of the active policy.
        DIGEST = "digest";
    }
}

/// Metrics.
pub mod metric {
    use super::{Kind, Metric};

    metrics! {
        BUILD_INFO: Info "postern_build_info" in "", "What is running", [VERSION, COMMIT];
        DECISIONS: Counter "postern_decisions_total" in "{decision}",
            "Decisions, those in batches included, and requests that could not be decided",
            [OUTCOME, REASON, PLANE, CACHE, TRANSPORT];
        INVALID_REQUESTS: Counter "postern_invalid_requests_total" in "{request}",
            "Requests, batch items and questions of streams refused as malformed", [];
        BATCH_ITEMS: Counter "postern_batch_items_total" in "{item}", "Items of all batches", [];
        STREAMS: Gauge "postern_check_streams" in "{stream}", "Open streams of questions", [TRANSPORT];
        STREAM_QUESTIONS: Counter "postern_stream_questions_total" in "{question}",
            "Questions that were asked over streams", [TRANSPORT];
        QUERIES: Counter "postern_queries_total" in "{call}",
            "Calls that explain or list, by how they ended", [METHOD, OUTCOME, TRANSPORT];
        CHECK_DURATION: Histogram "postern_check_duration_seconds" in "s",
            "From the decoded request to the answer", [METHOD, TRANSPORT];
        BATCH_ITEM_DURATION: Histogram "postern_batch_item_duration_seconds" in "s",
            "One item of a batch", [TRANSPORT];
        EVALUATION_DURATION: Histogram "postern_evaluation_duration_seconds" in "s",
            "Cache and evaluation of one decision, without reading the request and writing the answer",
            [PLANE, CACHE];
        CONNECTIONS: Gauge "postern_connections" in "{connection}", "Open connections", [TRANSPORT];
        CONNECTIONS_REFUSED: Counter "postern_connections_refused_total" in "{connection}",
            "Connections that were closed before a call, by reason: peer, limit, handshake, identity or timeout",
            [REASON, TRANSPORT];
        REQUESTS_SHED: Counter "postern_requests_shed_total" in "{request}",
            "Requests that were not looked at: there were too many, or the deadline had passed (limit, deadline)",
            [REASON, TRANSPORT];
        TLS_RELOADS: Counter "postern_tls_reloads_total" in "{reload}",
            "Changes of the certificate files, by what came of them: taken or refused", [OUTCOME];
        CACHE_ENTRIES: Gauge "postern_cache_entries" in "{entry}", "Entries in the decision cache", [];
        CACHE_BYTES: Gauge "postern_cache_bytes" in "By", "Bytes in the decision cache, keys included", [];
        POLICY_SERIAL: Gauge "postern_policy_serial" in "",
            "Serial of the active publication; 0 for a policy directory", [];
        POLICY_IDENTITY: Info "postern_policy_identity" in "",
            "1 for the serial and digest of the active policy", [SERIAL, DIGEST];
        POLICY_GENERATION: Gauge "postern_policy_generation" in "", "Activations of this process so far", [];
        POLICY_ACTIVATIONS: Counter "postern_policy_activations_total" in "{activation}",
            "Policies that became active", [];
        POLICY_ACTIVATED: Gauge "postern_policy_activated_timestamp_seconds" in "s",
            "When the active policy was activated", [];
        POLICY_AGE: Gauge "postern_policy_age_seconds" in "s",
            "Seconds since a source last confirmed the active policy; 0 for a policy directory", [];
        POLICY_LAST_SUCCESS: Gauge "postern_policy_last_success_timestamp_seconds" in "s",
            "When the newest policy was last found to be the active one, or became it", [];
        POLICY_OBJECTS: Gauge "postern_policy_objects" in "{object}",
            "What the active policy holds, by kind", [KIND];
        POLICY_BYTES: Gauge "postern_policy_bytes" in "By", "Bytes of the active policy in compiled form", [];
        POLICY_RELOAD_OK: Gauge "postern_policy_reload_ok" in "",
            "1 when the newest documents are the active policy, 0 when they were refused", [];
        POLICY_RELOAD_FAILURES: Counter "postern_policy_reload_failures_total" in "{reload}",
            "Reloads that kept the older policy", [];
        POLICY_UPDATE_FAILURES: Counter "postern_policy_update_failures_total" in "{failure}",
            "Steps of following a source that failed", [STEP];
        POLICY_CONFIRMED: Gauge "postern_policy_confirmed_timestamp_seconds" in "s",
            "When a source last confirmed the active publication; 0 for a policy directory", [];
        POLICY_EXPIRES: Gauge "postern_policy_expires_timestamp_seconds" in "s",
            "Until when the active publication is signed; 0 for a policy directory", [];
        POLICY_FRESHNESS: Gauge "postern_policy_freshness" in "",
            "1 for the state of the active publication: fresh, stale or expired", [STATE];
        SPANS_EXPORTED: Counter "postern_spans_exported_total" in "{span}",
            "Spans that the receiver of traces has taken", [];
        SPANS_LOST: Counter "postern_spans_lost_total" in "{span}",
            "Spans that never arrived: the queue was full, the receiver refused them, it could not be reached, \
             or the process ended first", [REASON];
        RECORDS_WRITTEN: Counter "postern_records_written_total" in "{record}",
            "Records that a sink has taken, by sink and kind: decision, or difference of the candidate", [SINK, KIND];
        RECORDS_LOST: Counter "postern_records_lost_total" in "{record}",
            "Records that were lost, by reason", [KIND, REASON, OUTCOME];
        RECORDS_NOT_KEPT: Counter "postern_records_not_kept_total" in "{record}",
            "Decisions that the rules of records-keep leave out", [OUTCOME];
        RECORD_QUEUE_DEPTH: Gauge "postern_record_queue_depth" in "{record}", "Records that wait to be written", [];
        CANDIDATE_CHECKS: Counter "postern_candidate_checks_total" in "{check}",
            "Checks that were asked again of the candidate policy, by whether it says the same", [OUTCOME];
        METRIC_PUSHES: Counter "postern_metric_pushes_total" in "{push}",
            "Pushes of metrics to their receiver, by how they ended", [OUTCOME];
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_labels_known() {
        let names: Vec<&str> = metric::ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        for metric in metric::ALL {
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            assert!(metric.name.starts_with("postern_"), "{}", metric.name);
        }
        let attributes: Vec<&str> = attribute::ALL.iter().map(|(name, _)| *name).collect();
        assert_eq!(attributes.iter().collect::<BTreeSet<_>>().len(), attributes.len());
    }
}
