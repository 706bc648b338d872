//! One server span for each call, and for each message of a stream of questions, joined to the caller's W3C trace context. It is made when the call ends, for only
//! then is it known whether a rule keeps it: a call that becomes no span costs a look at one header. Without a
//! receiver of traces none of this runs.

use std::cell::OnceCell;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Span, SpanContext, SpanKind, Status, Tracer};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use opentelemetry_sdk::trace::Span as SdkSpan;
use sha2::{Digest, Sha256};
use tonic::Code;
use tonic::metadata::MetadataMap;

use crate::authorizer::{Answer, Authorizer};
use crate::model::{
    Action, AgentMode, CheckRequest, Decision, Plane, PrincipalId, Scope, StepKind, Undecided,
};
use crate::snapshot::Snapshot;
use crate::telemetry::names::attribute::{self, BAGGAGE_PREFIX};
use crate::telemetry::names::event;
use crate::telemetry::sampling::{Ending, Kept};
use crate::telemetry::{Principals, TraceOptions, Traces};

use super::Transport;
use super::answer;
use super::convert::{Asked, undecided_code, undecided_reason};

/// The methods that have spans.
#[derive(Clone, Copy, Debug)]
pub(super) enum Method {
    Check,
    BatchCheck,
    CheckStream,
    Explain,
    ListPermissions,
    ListPrincipals,
}

/// Makes spans.
#[derive(Debug)]
pub(super) struct Tracing {
    traces: Traces,
    options: TraceOptions,
    transport: Transport,
    authorizer: Authorizer,
    trace_context: TraceContextPropagator,
    baggage: BaggagePropagator,
}

/// A call that may become a span when it ends.
pub(super) struct Call<'a> {
    tracing: &'a Tracing,
    method: Method,
    metadata: &'a MetadataMap,
    began: Instant,
    /// What the caller's flag says, where there is a caller with one.
    sampled: Option<bool>,
    /// The one question of a message of a stream.
    question: Option<u64>,
    /// The place in the trace of the span that it became.
    became: OnceCell<SpanContext>,
}

/// A decision, and how it came about.
pub(super) struct Decided<'a> {
    pub(super) asked: &'a Asked<'a>,
    pub(super) answer: &'a Answer,
    pub(super) took: Duration,
}

/// What became of an item of a batch, or of a question of a message.
pub(super) struct Item<'a> {
    /// Of a question.
    pub(super) id: Option<u64>,
    /// `None` where it was malformed.
    pub(super) outcome: Option<(Asked<'a>, Result<Answer, Undecided>)>,
    pub(super) ended: Instant,
    pub(super) took: Duration,
}

struct Metadata<'a>(&'a MetadataMap);

// === impls ===

impl Method {
    /// The name in the contract, and with its service.
    pub(super) const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Check => ("Check", "postern.v1.AuthorizationService/Check"),
            Self::BatchCheck => ("BatchCheck", "postern.v1.AuthorizationService/BatchCheck"),
            Self::CheckStream => ("CheckStream", "postern.v1.AuthorizationService/CheckStream"),
            Self::Explain => ("Explain", "postern.v1.AuthorizationService/Explain"),
            Self::ListPermissions => ("ListPermissions", "postern.v1.AuthorizationService/ListPermissions"),
            Self::ListPrincipals => ("ListPrincipals", "postern.v1.AuthorizationService/ListPrincipals"),
        }
    }
}

impl Tracing {
    pub(super) fn new(
        traces: Traces,
        options: TraceOptions,
        transport: Transport,
        authorizer: Authorizer,
    ) -> Self {
        let (trace_context, baggage) = (TraceContextPropagator::new(), BaggagePropagator::new());
        Self { traces, options, transport, authorizer, trace_context, baggage }
    }

    pub(super) fn call<'a>(&'a self, method: Method, metadata: &'a MetadataMap, began: Instant) -> Call<'a> {
        let header = metadata.get("traceparent").filter(|_| self.traces.propagators.trace_context);
        let sampled = header.and_then(|header| sampled(header.as_bytes()));
        Call { tracing: self, method, metadata, began, sampled, question: None, became: OnceCell::new() }
    }
}

impl Call<'_> {
    /// The same, about one question of a stream.
    pub(super) fn about(self, question: u64) -> Self {
        Self { question: Some(question), ..self }
    }

    /// The place in the trace of the span that it became, if it did.
    pub(super) fn into_context(self) -> Option<SpanContext> {
        self.became.into_inner()
    }

    /// Whether a span may come of it, so that what it would say has to be kept until the end.
    pub(super) fn may_be_told(&self) -> bool {
        !self.tracing.options.keep.is_empty() || !self.tracing.traces.sampling.never(self.sampled)
    }

    /// What was asked, decided, and by which policy.
    pub(super) fn answered(&self, request_id: &str, snapshot: &Snapshot, decided: &Decided<'_>) {
        let Some((mut span, mut said)) = self.open(ending(decided.answer)) else { return };
        self.policy(&mut said, Some(snapshot), request_id);
        self.asked(&mut said, decided.asked);
        self.decided(&mut said, snapshot, decided.asked, decided.answer);
        let mut reason = String::new();
        answer::reason(snapshot, decided.asked, decided.answer, &mut reason);
        said.push(KeyValue::new(attribute::REASON, reason));
        said.push(KeyValue::new(attribute::EVALUATION, microseconds(decided.took)));
        end(&mut span, said, Code::Ok);
    }

    /// What was asked, and why there is no answer.
    pub(super) fn undecided(
        &self,
        request_id: &str,
        asked: &Asked<'_>,
        snapshot: Option<&Snapshot>,
        undecided: &Undecided,
    ) {
        let Some((mut span, mut said)) = self.open(UNDECIDED) else { return };
        self.policy(&mut said, snapshot, request_id);
        self.asked(&mut said, asked);
        without_answer(&mut span, said, undecided);
    }

    /// There is no answer, by no fault of this service: the request was malformed, or there are too many.
    pub(super) fn refused(&self, code: Code) {
        let Some((mut span, said)) = self.open(Ending::default()) else { return };
        end(&mut span, said, code);
    }

    /// What a list is of, and how it ended.
    pub(super) fn listed(
        &self,
        request_id: &str,
        (action, scope): (Option<(Action<'_>, Plane)>, Scope<'_>),
        snapshot: Option<&Snapshot>,
        outcome: Result<(), &Undecided>,
    ) {
        let ending = if outcome.is_err() { UNDECIDED } else { Ending::default() };
        let Some((mut span, mut said)) = self.open(ending) else { return };
        self.policy(&mut said, snapshot, request_id);
        if let Some((action, plane)) = action {
            said.push(KeyValue::new(attribute::ACTION, action.as_str().to_owned()));
            said.push(KeyValue::new(attribute::PLANE, plane.name()));
        }
        said.push(KeyValue::new(attribute::SCOPE, scope.as_str().to_owned()));
        match outcome {
            Ok(()) => end(&mut span, said, Code::Ok),
            Err(undecided) => without_answer(&mut span, said, undecided),
        }
    }

    /// A batch, with an event for each item: a span each would cost more than the decisions.
    pub(super) fn batch(
        &self,
        request_id: &str,
        snapshot: Option<&Snapshot>,
        size: usize,
        items: &[Item<'_>],
    ) {
        let mut ending = if snapshot.is_none() { UNDECIDED } else { Ending::default() };
        for item in items {
            let one = match &item.outcome {
                Some((_, Ok(answer))) => self::ending(answer),
                Some((_, Err(_))) => UNDECIDED,
                None => Ending::default(),
            };
            ending.denied |= one.denied;
            ending.not_allowed |= one.not_allowed;
            ending.undecided |= one.undecided;
            ending.agent_steps |= one.agent_steps;
        }
        let Some((mut span, mut said)) = self.open(ending) else { return };
        self.policy(&mut said, snapshot, request_id);
        said.push(KeyValue::new(attribute::BATCH_SIZE, signed(size)));
        let Some(snapshot) = snapshot else { return without_answer(&mut span, said, &Undecided::NoPolicy) };
        let allowed = items.iter().filter(|item| item.is_allowed()).count();
        said.push(KeyValue::new(attribute::BATCH_NOT_ALLOWED, signed(items.len().saturating_sub(allowed))));
        let (now, ended) = (SystemTime::now(), Instant::now());
        let limit = self.tracing.traces.events;
        let mut told: Vec<(usize, &Item<'_>)> = items.iter().enumerate().collect();
        // A span holds only so many events: what is refused is what somebody will look for.
        if told.len() > limit {
            told.sort_by_key(|(_, item)| item.is_allowed());
            told.truncate(limit);
        }
        for (index, item) in told {
            let at = now.checked_sub(ended.saturating_duration_since(item.ended)).unwrap_or(now);
            let attributes = self.item(snapshot, index, item);
            span.add_event_with_timestamp(event::BATCH_ITEM, at, attributes);
        }
        end(&mut span, said, Code::Ok);
    }

    fn item(&self, snapshot: &Snapshot, index: usize, item: &Item<'_>) -> Vec<KeyValue> {
        let mut said = Vec::with_capacity(16);
        said.push(KeyValue::new(attribute::BATCH_INDEX, signed(index)));
        said.extend(item.id.map(|id| KeyValue::new(attribute::QUESTION_ID, signed(id))));
        said.push(KeyValue::new(attribute::BATCH_ITEM_DURATION, microseconds(item.took)));
        match &item.outcome {
            Some((asked, Ok(answer))) => {
                self.asked(&mut said, asked);
                self.decided(&mut said, snapshot, asked, answer);
            }
            Some((asked, Err(undecided))) => {
                self.asked(&mut said, asked);
                said.push(KeyValue::new(attribute::UNDECIDED, undecided_reason(undecided)));
            }
            None => said.push(KeyValue::new(attribute::ERROR_TYPE, code_name(Code::InvalidArgument))),
        }
        said
    }

    /// The span, if there is to be one, and what every span says.
    fn open(&self, ending: Ending) -> Option<(SdkSpan, Vec<KeyValue>)> {
        let Tracing { traces, options, transport, .. } = self.tracing;
        let took = self.began.elapsed();
        let kept = options.keep.rule(ending, took);
        if kept.is_none() && traces.sampling.never(self.sampled) {
            return None;
        }
        let metadata = Metadata(self.metadata);
        let parent = if self.sampled.is_some() {
            self.tracing.trace_context.extract_with_context(&Context::new(), &metadata)
        } else {
            Context::new()
        };
        // A rule is told where it was needed: the share of all calls that the others stand for is known.
        let needed = kept.filter(|_| self.sampled != Some(true));
        let parent = if needed.is_some() { Kept::mark(&parent) } else { parent };
        let now = SystemTime::now();
        let (_, name) = self.method.names();
        let span = traces
            .tracer
            .span_builder(name)
            .with_kind(SpanKind::Server)
            .with_start_time(now.checked_sub(took).unwrap_or(now))
            .start_with_context(&traces.tracer, &parent);
        if !span.is_recording() {
            return None;
        }
        // A call ends once, so this is the first.
        let _first = self.became.set(span.span_context().clone());
        let mut said = Vec::with_capacity(32);
        said.push(KeyValue::new(attribute::RPC_SYSTEM_NAME, "grpc"));
        said.push(KeyValue::new(attribute::RPC_METHOD, name));
        said.push(KeyValue::new(attribute::NETWORK_TRANSPORT, transport.name()));
        said.extend(self.question.map(|id| KeyValue::new(attribute::QUESTION_ID, signed(id))));
        said.extend(needed.map(|rule| KeyValue::new(attribute::KEPT, rule.name())));
        if traces.propagators.baggage && !options.baggage.is_empty() {
            let carried = self.tracing.baggage.extract_with_context(&Context::new(), &metadata);
            said.extend(options.baggage.iter().filter_map(|key| {
                let value = carried.baggage().get(key)?.as_str().to_owned();
                Some(KeyValue::new(format!("{BAGGAGE_PREFIX}{key}"), value))
            }));
        }
        Some((span, said))
    }

    fn policy(&self, said: &mut Vec<KeyValue>, snapshot: Option<&Snapshot>, request_id: &str) {
        if let Some(snapshot) = snapshot {
            let now = self.tracing.authorizer.now();
            let age = snapshot
                .lease()
                .map_or(0, |lease| now.as_second().saturating_sub(lease.confirmed().as_second()));
            said.extend([
                KeyValue::new(attribute::POLICY_SERIAL, signed(snapshot.serial)),
                KeyValue::new(attribute::POLICY_DIGEST, snapshot.policy.digest().to_owned()),
                KeyValue::new(attribute::POLICY_GENERATION, signed(snapshot.generation)),
                KeyValue::new(attribute::POLICY_AGE, age.max(0)),
                KeyValue::new(attribute::POLICY_FRESHNESS, snapshot.freshness(now).name()),
            ]);
        }
        if !request_id.is_empty() {
            said.push(KeyValue::new(attribute::REQUEST_ID, request_id.to_owned()));
        }
    }

    fn asked(&self, said: &mut Vec<KeyValue>, asked: &Asked<'_>) {
        let request = &asked.request;
        said.extend([
            KeyValue::new(attribute::ACTION, request.action.as_str().to_owned()),
            KeyValue::new(attribute::PLANE, request.plane.name()),
            KeyValue::new(attribute::SCOPE, request.scope.as_str().to_owned()),
            KeyValue::new(attribute::GROUPS, signed(request.subject.groups.len())),
        ]);
        said.extend(self.principal(attribute::PRINCIPAL, request.subject.principal));
        let user = asked.agent.as_ref().and_then(|agent| agent.on_behalf_of);
        said.extend(user.and_then(|user| self.principal(attribute::ON_BEHALF_OF, user.principal)));
    }

    fn principal(&self, name: &'static str, id: PrincipalId<'_>) -> Option<KeyValue> {
        let told = match self.tracing.options.principals {
            Principals::Hashed => format!("sha256:{}", hex::encode(Sha256::digest(id.to_string()))),
            Principals::Plain => id.to_string(),
            Principals::None => return None,
        };
        Some(KeyValue::new(name, told))
    }

    fn decided(&self, said: &mut Vec<KeyValue>, snapshot: &Snapshot, asked: &Asked<'_>, answer: &Answer) {
        let (evaluation, policy) = (&answer.evaluation, &snapshot.policy);
        let decision = evaluation.decision;
        said.extend([
            KeyValue::new(attribute::DECISION, decision.name()),
            KeyValue::new(attribute::REASON_CODE, decision.reason_code().name()),
            KeyValue::new(attribute::CACHE, answer.cache_name()),
        ]);
        match decision {
            Decision::Allowed(grant) => said.extend([
                KeyValue::new(attribute::ROLE_ASSIGNMENT_ID, policy.role_assignment_id(grant)),
                KeyValue::new(attribute::ROLE_DEFINITION_ID, policy.role_definition_id(grant)),
            ]),
            Decision::NotAllowed(_) => {}
            Decision::Denied(hit) => {
                said.push(KeyValue::new(attribute::DENY_ASSIGNMENT_ID, policy.deny_assignment_id(hit)));
            }
        }
        if !evaluation.audited.is_empty() {
            let ids = evaluation.audited.iter().map(|hit| policy.deny_assignment_id(*hit));
            said.push(KeyValue::new(attribute::AUDITED_DENY_ASSIGNMENT_IDS, texts(ids)));
        }
        if let Some(until) = evaluation.valid_until {
            let left = until.duration_since(self.tracing.authorizer.now()).as_secs_f64();
            said.push(KeyValue::new(attribute::VALID_FOR, left.max(0.0)));
        }
        if !answer.steps.is_empty() {
            let steps = answer.steps.iter().map(|step| format!("{}:{}", step.kind.name(), step.state.name()));
            said.push(KeyValue::new(attribute::AGENT_STEPS, texts(steps)));
        }
        said.extend(answer.executed_as.map(|whose| KeyValue::new(attribute::EXECUTED_AS, whose.name())));
        let Some(mode) = agent_mode(snapshot, &asked.request, asked) else { return };
        said.push(KeyValue::new(attribute::AGENT_MODE, mode));
        if self.tracing.options.gen_ai {
            let waits = answer.steps.iter().any(|step| step.is_prompt_to_come());
            let verdict = match decision {
                Decision::Allowed(_) => "allow",
                // Somebody can still say yes.
                Decision::NotAllowed(_) if waits => "escalate",
                Decision::NotAllowed(_) | Decision::Denied(_) => "deny",
            };
            let name = snapshot.publication.as_ref().map(|publication| publication.policy_name.clone());
            said.extend([
                KeyValue::new(attribute::GEN_AI_DECISION, verdict),
                KeyValue::new(attribute::GEN_AI_REASON, decision.reason_code().name()),
                KeyValue::new(attribute::GEN_AI_POLICY_VERSION, policy.digest().to_owned()),
            ]);
            said.extend(name.map(|name| KeyValue::new(attribute::GEN_AI_POLICY_NAME, name)));
        }
    }
}

impl<'a> Item<'a> {
    /// A question of a stream, decided just now.
    pub(super) fn decided(
        id: u64,
        asked: Asked<'a>,
        outcome: Result<Answer, Undecided>,
        took: Duration,
    ) -> Self {
        Self { id: Some(id), outcome: Some((asked, outcome)), ended: Instant::now(), took }
    }

    /// A question of a stream that cannot be read.
    pub(super) fn malformed(id: u64) -> Self {
        Self { id: Some(id), outcome: None, ended: Instant::now(), took: Duration::ZERO }
    }

    fn is_allowed(&self) -> bool {
        let Some((_, Ok(answer))) = &self.outcome else { return false };
        matches!(answer.evaluation.decision, Decision::Allowed(_))
    }
}

const UNDECIDED: Ending = Ending { denied: false, not_allowed: false, undecided: true, agent_steps: false };

fn ending(answer: &Answer) -> Ending {
    let decision = answer.evaluation.decision;
    let of_agent = |kind: &StepKind| !matches!(kind, StepKind::ActivateRole(_));
    Ending {
        denied: matches!(decision, Decision::Denied(_)),
        not_allowed: matches!(decision, Decision::NotAllowed(_)),
        undecided: false,
        agent_steps: answer.steps.iter().any(|step| of_agent(&step.kind)),
    }
}

/// The mode that an agent is held to; `None` where nobody speaks of an agent.
fn agent_mode(snapshot: &Snapshot, request: &CheckRequest<'_>, asked: &Asked<'_>) -> Option<&'static str> {
    let described = snapshot.policy.agent(request.subject.principal).ok().flatten();
    let said = asked.agent.as_ref().and_then(|agent| agent.mode);
    if described.is_none() && asked.agent.is_none() {
        return None;
    }
    let modes = [described.map(|described| described.agent.mode), said];
    let review = modes.contains(&Some(AgentMode::Review));
    Some(if review || modes == [None, None] { "review" } else { "auto" })
}

fn without_answer(span: &mut SdkSpan, mut said: Vec<KeyValue>, undecided: &Undecided) {
    said.push(KeyValue::new(attribute::UNDECIDED, undecided_reason(undecided)));
    said.push(KeyValue::new(attribute::ERROR_TYPE, undecided_reason(undecided)));
    span.set_status(Status::error(undecided.to_string()));
    said.push(KeyValue::new(attribute::RPC_RESPONSE_STATUS_CODE, code_name(undecided_code(undecided))));
    span.set_attributes(said);
    span.end();
}

fn end(span: &mut SdkSpan, mut said: Vec<KeyValue>, code: Code) {
    said.push(KeyValue::new(attribute::RPC_RESPONSE_STATUS_CODE, code_name(code)));
    // Of a server's span the caller's mistakes are no errors.
    let ours = matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    );
    if code != Code::Ok {
        said.push(KeyValue::new(attribute::ERROR_TYPE, code_name(code)));
    }
    if ours {
        span.set_status(Status::error(code.description()));
    }
    span.set_attributes(said);
    span.end();
}

/// The flag of a `traceparent`; `None` for a header that is none.
fn sampled(header: &[u8]) -> Option<bool> {
    let (fields, rest) = header.split_first_chunk::<55>()?;
    let [version @ .., _, _] = fields.first_chunk::<4>()?;
    let lower = |text: &[u8]| text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let (trace, parent, flags) = (fields.get(3..35)?, fields.get(36..52)?, fields.get(53..55)?);
    let dashes = [2, 35, 52].iter().all(|at| fields.get(*at) == Some(&b'-'));
    let zeros = |text: &[u8]| text.iter().all(|byte| *byte == b'0');
    let whole = dashes && [version, trace, parent, flags].into_iter().all(lower);
    // Of versions to come only the beginning is known.
    let length = rest.is_empty() || (version != b"00" && rest.first() == Some(&b'-'));
    if !whole || !length || version == b"ff" || zeros(trace) || zeros(parent) {
        return None;
    }
    let low = flags.get(1)?;
    let value = if low.is_ascii_digit() { low - b'0' } else { low - b'a' + 10 };
    Some(value & 1 == 1)
}

fn texts(texts: impl Iterator<Item = String>) -> Value {
    Value::Array(Array::String(texts.map(StringValue::from).collect()))
}

/// As the protocol writes it.
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

fn microseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

/// OpenTelemetry knows signed numbers only.
fn signed(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

impl Extractor for Metadata<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        // The propagators ask for their headers by name.
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_of_the_caller() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        for (header, said) in [
            (format!("00-{trace}-01"), Some(true)),
            (format!("00-{trace}-00"), Some(false)),
            (format!("00-{trace}-0b"), Some(true)),
            (format!("cc-{trace}-01-more"), Some(true)),
            (format!("00-{trace}-01-more"), None),
            (format!("ff-{trace}-01"), None),
            (format!("00-{}-01", trace.to_uppercase()), None),
            (format!("00-{trace}_01"), None),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), None),
            (String::new(), None),
        ] {
            assert_eq!(sampled(header.as_bytes()), said, "{header}");
            // The library that reads the rest must not see it otherwise.
            let mut metadata = MetadataMap::new();
            metadata.insert("traceparent", header.parse().unwrap());
            let read =
                TraceContextPropagator::new().extract_with_context(&Context::new(), &Metadata(&metadata));
            let read = opentelemetry::trace::TraceContextExt::span(&read).span_context().clone();
            assert_eq!(read.is_valid().then(|| read.is_sampled()), said, "{header}");
        }
    }
}
