//! Every name of a record, in one place: the fields of the JSON object, the words they hold, and the names over OTLP.
//! They are a promise to whoever reads records; README.md lists them.

pub use crate::telemetry::names::{attribute as attributes, event};

/// Instrumentation scope over OTLP.
pub const SCOPE_NAME: &str = crate::telemetry::names::RECORDS;

/// Fields of the JSON object.
pub mod field {
    /// When it was decided.
    pub const TIME: &str = "time";
    /// `decision` or `difference`.
    pub const KIND: &str = "kind";
    /// The caller's id of the call.
    pub const REQUEST_ID: &str = "request_id";
    /// Of the span of the call.
    pub const TRACE_ID: &str = "trace_id";
    /// Of the span of the call.
    pub const SPAN_ID: &str = "span_id";
    /// Whether that span was sampled.
    pub const SAMPLED: &str = "sampled";
    /// `unix` or `tcp`.
    pub const TRANSPORT: &str = "transport";
    /// `Check`, `BatchCheck` or `CheckStream`.
    pub const METHOD: &str = "method";
    /// The same for all items of a batch.
    pub const BATCH_ID: &str = "batch_id";
    /// Position in the batch, from 0.
    pub const BATCH_INDEX: &str = "batch_index";
    /// How many items it has.
    pub const BATCH_ITEMS: &str = "batch_items";
    /// The same for all questions of a stream.
    pub const STREAM_ID: &str = "stream_id";
    /// The question's id on its stream.
    pub const QUESTION_ID: &str = "question_id";
    /// The question.
    pub const REQUEST: &str = "request";
    /// Paths of the question that were hashed or dropped.
    pub const MASKED: &str = "masked";
    /// `Allowed`, `NotAllowed`, `Denied` or `Undecided`.
    pub const DECISION: &str = "decision";
    /// Why, for programs.
    pub const REASON_CODE: &str = "reason_code";
    /// Why there is no decision, for people.
    pub const MESSAGE: &str = "message";
    /// What granted.
    pub const ROLE_ASSIGNMENT_ID: &str = "role_assignment_id";
    /// The role that granted.
    pub const ROLE_DEFINITION_ID: &str = "role_definition_id";
    /// What denied.
    pub const DENY_ASSIGNMENT_ID: &str = "deny_assignment_id";
    /// What would have denied.
    pub const AUDITED_DENY_ASSIGNMENT_IDS: &str = "audited_deny_assignment_ids";
    /// What could be activated.
    pub const ELIGIBILITY_ID: &str = "eligibility_id";
    /// The way to the action.
    pub const STEPS: &str = "steps";
    /// Of a step.
    pub const STEP_KIND: &str = "kind";
    /// Of a step.
    pub const STEP_STATE: &str = "state";
    /// `agent` or `user`.
    pub const EXECUTED_AS: &str = "executed_as";
    /// Until when the decision holds under its policy.
    pub const VALID_UNTIL: &str = "valid_until";
    /// Whether it came from the cache.
    pub const CACHED: &str = "cached";
    /// Which policy decided.
    pub const POLICY: &str = "policy";
    /// Of a policy.
    pub const SERIAL: &str = "serial";
    /// Of a policy.
    pub const DIGEST: &str = "digest";
    /// Of a policy.
    pub const GENERATION: &str = "generation";
    /// Of a policy.
    pub const FRESHNESS: &str = "freshness";
    /// Nanoseconds of the evaluation.
    pub const DURATION_NS: &str = "duration_ns";
    /// What the candidate says.
    pub const CANDIDATE: &str = "candidate";
}
