//! One server span for each call, joined to the caller's W3C trace context. What it says is set only when the
//! span is recorded; without a receiver of traces none of this runs.

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Span, SpanContext, SpanKind, Status, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, Span as SdkSpan};
use tonic::Code;
use tonic::metadata::MetadataMap;

use crate::authorizer::Answer;
use crate::model::{Action, CheckRequest, Decision, ExecutedAs, Plane, Scope, Undecided};
use crate::snapshot::Snapshot;
use crate::telemetry::attributes;

use super::convert::{undecided_code, undecided_reason};

const SERVICE: &str = "postern.v1.AuthorizationService";

/// The methods that have spans.
#[derive(Clone, Copy, Debug)]
pub(super) enum Method {
    Check,
    BatchCheck,
    Explain,
    ListPermissions,
    ListPrincipals,
}

/// Makes spans.
#[derive(Debug)]
pub(super) struct Tracing {
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
}

/// The span of one call; it ends when dropped, also when the caller goes away.
pub(super) struct CallSpan(SdkSpan);

struct Metadata<'a>(&'a MetadataMap);

// === impls ===

impl Method {
    /// The name in the contract, and with its service.
    pub(super) const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Check => ("Check", "postern.v1.AuthorizationService/Check"),
            Self::BatchCheck => ("BatchCheck", "postern.v1.AuthorizationService/BatchCheck"),
            Self::Explain => ("Explain", "postern.v1.AuthorizationService/Explain"),
            Self::ListPermissions => ("ListPermissions", "postern.v1.AuthorizationService/ListPermissions"),
            Self::ListPrincipals => ("ListPrincipals", "postern.v1.AuthorizationService/ListPrincipals"),
        }
    }
}

impl Tracing {
    pub(super) fn new(tracer: SdkTracer) -> Self {
        Self { tracer, propagator: TraceContextPropagator::new() }
    }

    pub(super) fn start(&self, method: Method, metadata: &MetadataMap) -> CallSpan {
        let parent = self.propagator.extract_with_context(&Context::new(), &Metadata(metadata));
        let (short, name) = method.names();
        let mut span = self
            .tracer
            .span_builder(name)
            .with_kind(SpanKind::Server)
            .start_with_context(&self.tracer, &parent);
        if span.is_recording() {
            span.set_attributes([
                KeyValue::new(attributes::RPC_SYSTEM, "grpc"),
                KeyValue::new(attributes::RPC_SERVICE, SERVICE),
                KeyValue::new(attributes::RPC_METHOD, short),
            ]);
        }
        CallSpan(span)
    }
}

impl CallSpan {
    /// Its place in the trace, sampled or not.
    pub(super) fn context(&self) -> &SpanContext {
        self.0.span_context()
    }

    /// What was asked, decided, and by which policy.
    pub(super) fn answered(
        &mut self,
        request_id: &str,
        request: &CheckRequest<'_>,
        snapshot: &Snapshot,
        answer: &Answer,
    ) {
        if !self.0.is_recording() {
            return;
        }
        self.policy(snapshot, request_id);
        self.0.set_attributes(asked(request));
        self.0.set_attributes(decided(snapshot, answer));
        self.ended(Code::Ok);
    }

    /// What was asked, and why there is no answer.
    pub(super) fn undecided(
        &mut self,
        request_id: &str,
        request: &CheckRequest<'_>,
        snapshot: Option<&Snapshot>,
        undecided: &Undecided,
    ) {
        if !self.0.is_recording() {
            return;
        }
        if let Some(snapshot) = snapshot {
            self.policy(snapshot, request_id);
        }
        self.0.set_attributes(asked(request));
        self.without_answer(undecided);
    }

    /// The request was malformed: the caller's error, not this service's.
    pub(super) fn invalid(&mut self) {
        self.refused(Code::InvalidArgument);
    }

    /// There is no answer, by no fault of this service.
    pub(super) fn refused(&mut self, code: Code) {
        if self.0.is_recording() {
            self.ended(code);
        }
    }

    /// What a list is of, and how it ended.
    pub(super) fn listed(
        &mut self,
        request_id: &str,
        (action, scope): (Option<(Action<'_>, Plane)>, Scope<'_>),
        snapshot: Option<&Snapshot>,
        outcome: Result<(), &Undecided>,
    ) {
        if !self.0.is_recording() {
            return;
        }
        if let Some(snapshot) = snapshot {
            self.policy(snapshot, request_id);
        }
        if let Some((action, plane)) = action {
            self.0.set_attributes([
                KeyValue::new(attributes::ACTION, action.as_str().to_owned()),
                KeyValue::new(attributes::PLANE, plane_name(plane)),
            ]);
        }
        self.0.set_attribute(KeyValue::new(attributes::SCOPE, scope.as_str().to_owned()));
        match outcome {
            Ok(()) => self.ended(Code::Ok),
            Err(undecided) => self.without_answer(undecided),
        }
    }

    fn without_answer(&mut self, undecided: &Undecided) {
        self.0.set_attribute(KeyValue::new(attributes::UNDECIDED, undecided_reason(undecided)));
        self.0.set_status(Status::error(undecided.to_string()));
        self.ended(undecided_code(undecided));
    }

    /// The batch as a whole.
    pub(super) fn batch(&mut self, request_id: &str, snapshot: Option<&Snapshot>, items: usize) {
        if !self.0.is_recording() {
            return;
        }
        self.0.set_attribute(KeyValue::new(attributes::BATCH_ITEMS, signed(items)));
        match snapshot {
            Some(snapshot) => {
                self.policy(snapshot, request_id);
                self.ended(Code::Ok);
            }
            None => self.without_answer(&Undecided::NoPolicy),
        }
    }

    /// One item of a batch, as an event: a span each would cost more than the decisions.
    pub(super) fn item(
        &mut self,
        index: usize,
        request: &CheckRequest<'_>,
        snapshot: &Snapshot,
        outcome: Result<&Answer, &Undecided>,
    ) {
        if !self.0.is_recording() {
            return;
        }
        let mut said = vec![KeyValue::new(attributes::BATCH_INDEX, signed(index))];
        said.extend(asked(request));
        match outcome {
            Ok(answer) => said.extend(decided(snapshot, answer)),
            Err(undecided) => said.push(KeyValue::new(attributes::UNDECIDED, undecided_reason(undecided))),
        }
        self.0.add_event(attributes::ITEM_EVENT, said);
    }

    fn policy(&mut self, snapshot: &Snapshot, request_id: &str) {
        self.0.set_attributes([
            KeyValue::new(attributes::POLICY_SERIAL, signed(snapshot.serial)),
            KeyValue::new(attributes::POLICY_DIGEST, snapshot.policy.digest().to_owned()),
            KeyValue::new(attributes::POLICY_GENERATION, signed(snapshot.generation)),
        ]);
        if !request_id.is_empty() {
            self.0.set_attribute(KeyValue::new(attributes::REQUEST_ID, request_id.to_owned()));
        }
    }

    fn ended(&mut self, code: Code) {
        self.0.set_attribute(KeyValue::new(attributes::RPC_GRPC_STATUS_CODE, i64::from(code as i32)));
    }
}

fn asked(request: &CheckRequest<'_>) -> [KeyValue; 3] {
    [
        KeyValue::new(attributes::ACTION, request.action.as_str().to_owned()),
        KeyValue::new(attributes::PLANE, plane_name(request.plane)),
        KeyValue::new(attributes::SCOPE, request.scope.as_str().to_owned()),
    ]
}

const fn plane_name(plane: Plane) -> &'static str {
    match plane {
        Plane::Control => "control",
        Plane::Data => "data",
    }
}

fn decided(snapshot: &Snapshot, answer: &Answer) -> Vec<KeyValue> {
    let decision = answer.evaluation.decision;
    let mut said = vec![
        KeyValue::new(attributes::DECISION, decision.name()),
        KeyValue::new(attributes::REASON_CODE, decision.reason_code().name()),
        KeyValue::new(attributes::CACHED, answer.cached),
    ];
    if let Some(executed_as) = answer.executed_as {
        let whose = match executed_as {
            ExecutedAs::Agent => "agent",
            ExecutedAs::User => "user",
        };
        said.push(KeyValue::new(attributes::EXECUTED_AS, whose));
    }
    match decision {
        Decision::Allowed(grant) => {
            said.push(KeyValue::new(
                attributes::ROLE_ASSIGNMENT_ID,
                snapshot.policy.role_assignment_id(grant),
            ));
            said.push(KeyValue::new(
                attributes::ROLE_DEFINITION_ID,
                snapshot.policy.role_definition_id(grant),
            ));
        }
        Decision::NotAllowed(_) => {}
        Decision::Denied(hit) => {
            said.push(KeyValue::new(attributes::DENY_ASSIGNMENT_ID, snapshot.policy.deny_assignment_id(hit)));
        }
    }
    said
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
        // The propagator asks for its two headers by name.
        Vec::new()
    }
}
