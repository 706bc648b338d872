//! The wire and the model: requests are checked and borrowed, answers are spelled out. The only place, with the
//! signatures of `grpc` and the client side of the command line, where generated types are spoken.
//!
//! A request that is in order costs no allocation. One that is not is refused with every field at fault.

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;

use jiff::Timestamp;
use prost::Message;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::authorizer::{Answer, Authorizer};
use crate::model::{
    Action, ActivationRequirements, AgentContext, AgentMode, AgentStop, ApprovalAnswer, ApprovalVerdict,
    AttributeBag, CheckRequest, ConsentAnswer, ConsentVerdict, Freshness, NoAttributes, Plane, PrincipalId,
    ReasonCode, RequestAttributes, RoleActivation, Scope, Step, StepKind, StepState, Subject, Undecided,
    Value, ValueList,
};
use crate::proto::v1;
use crate::snapshot::Snapshot;

use super::answer;
use super::message::{self as wire, Attributes, BatchView, ResourceView, SubjectView, View};

/// Object ids are 36 bytes; anything much longer is no id.
const MAX_ID_BYTES: usize = 256;
/// A token carries at most 200 groups, a directory answers with at most 2,048 ids at once.
const MAX_GROUPS: usize = 4096;
/// As the contract says.
const MAX_REQUEST_ID_BYTES: usize = 128;
/// The names of suboperations are a few words.
const MAX_SUB_OPERATION_BYTES: usize = 256;
/// Names of attributes and keys of dictionaries.
const MAX_KEY_BYTES: usize = 256;
/// Violations travel in a header, and clients take 16 KiB of headers: more than this is told as a number.
const MAX_LISTED: usize = 24;
/// Violations spelled out in the message itself.
const MAX_IN_MESSAGE: usize = 3;

/// Who speaks in `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "postern.v1";

/// What is wrong with a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Violations {
    listed: Vec<v1::FieldViolation>,
    unlisted: usize,
}

/// A request as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The check.
    pub request: CheckRequest<'a>,
    /// Set when it is an agent's.
    pub agent: Option<AgentContext<'a>>,
}

/// A batch whose own fields are in order.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The subject of every item that does not name its own: read once.
    subject: Option<Caller<'a>>,
    /// Read by the conditions of every item.
    environment: &'a Attributes,
}

/// What the questions of a stream share, of a context that is in order.
#[derive(Clone, Copy)]
pub(super) struct StreamContext<'a> {
    caller: Caller<'a>,
    environment: &'a Attributes,
    agent: Option<AgentContext<'a>>,
    operation: Option<Operation<'a>>,
    resource: Option<(Scope<'a>, &'a Attributes)>,
}

/// Who asks, and what conditions read of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller<'a> {
    pub(super) subject: Subject<'a>,
    attributes: &'a Attributes,
}

/// Why a batch is refused as a whole.
#[derive(Clone, Debug, PartialEq)]
pub enum BatchError {
    /// Fields of the batch itself.
    Malformed(Violations),
    /// More items than the limit.
    TooLarge {
        /// The field that holds them.
        field: &'static str,
        /// How many there are.
        items: usize,
        /// How many there may be.
        limit: usize,
    },
}

/// Where in the message a request stands.
#[derive(Clone, Copy)]
pub(super) enum Prefix {
    /// It is the message.
    Whole,
    /// It is what is to be explained.
    Explained,
    /// It is an item of a batch.
    Item(usize),
    /// What the questions of a stream share.
    Context,
}

// === requests ===

/// Reads a request, or says everything that is wrong with it.
pub fn check_request<'a>(wire: impl Into<View<'a>>) -> Result<Asked<'a>, Violations> {
    check_request_at(wire.into(), Prefix::Whole)
}

pub(super) fn check_request_at(wire: View<'_>, prefix: Prefix) -> Result<Asked<'_>, Violations> {
    let mut violations = Violations::default();
    let caller = match wire.subject {
        Some(subject) => read_caller(subject, prefix, "subject", &mut violations),
        None => {
            violations.push(prefix.field("subject"), "is missing");
            None
        }
    };
    let action = read_action(wire.action, prefix, &mut violations);
    let resource = read_resource(wire.resource, prefix, &mut violations);
    attributes(wire.request_attributes, prefix, "request_attributes", &mut violations);
    attributes(wire.environment_attributes, prefix, "environment_attributes", &mut violations);
    request_id(wire.request_id, prefix, &mut violations);
    let agent = read_agent(wire.agent, prefix, &mut violations);
    let given = (wire.request_attributes, wire.environment_attributes);
    asked(caller, action, resource, given, agent, violations)
}

/// Reads what belongs to the batch as a whole.
pub fn batch<'a>(wire: impl Into<BatchView<'a>>, limit: usize) -> Result<Batch<'a>, BatchError> {
    let wire = wire.into();
    if wire.items > limit {
        return Err(BatchError::TooLarge { field: "items", items: wire.items, limit });
    }
    let mut violations = Violations::default();
    if wire.items == 0 {
        violations.push("items", "is empty; wanted at least one item");
    }
    let prefix = Prefix::Whole;
    let subject = wire.subject.and_then(|subject| read_caller(subject, prefix, "subject", &mut violations));
    attributes(wire.environment_attributes, prefix, "environment_attributes", &mut violations);
    request_id(wire.request_id, prefix, &mut violations);
    if violations.is_empty() {
        Ok(Batch { subject, environment: wire.environment_attributes })
    } else {
        Err(BatchError::Malformed(violations))
    }
}

impl<'a> Batch<'a> {
    /// Who asks all items that do not name their own.
    pub fn subject(&self) -> Option<Subject<'a>> {
        self.subject.map(|caller| caller.subject)
    }

    /// Reads one item.
    pub fn item<'i>(&self, index: usize, wire: impl Into<View<'i>>) -> Result<Asked<'i>, Violations>
    where
        'a: 'i,
    {
        let wire = wire.into();
        let mut violations = Violations::default();
        let prefix = Prefix::Item(index);
        let caller = match (wire.subject, self.subject) {
            (Some(own), _) => read_caller(own, prefix, "subject", &mut violations),
            (None, Some(shared)) => Some(shared),
            (None, None) => {
                violations.push(prefix.field("subject"), "is missing, and the batch names no subject either");
                None
            }
        };
        let action = read_action(wire.action, prefix, &mut violations);
        let resource = read_resource(wire.resource, prefix, &mut violations);
        attributes(wire.request_attributes, prefix, "request_attributes", &mut violations);
        let agent = read_agent(wire.agent, prefix, &mut violations);
        asked(caller, action, resource, (wire.request_attributes, self.environment), agent, violations)
    }
}

/// Looks at what the questions of a stream are to share.
pub(super) fn stream_context(wire: &v1::CheckStreamContext, violations: &mut Violations) {
    let prefix = Prefix::Context;
    match &wire.subject {
        Some(subject) => {
            read_caller(subject, prefix, "subject", violations);
        }
        None => violations.push(prefix.field("subject"), "is missing"),
    }
    attributes(&wire.environment_attributes, prefix, "environment_attributes", violations);
    read_agent(wire.agent.as_ref(), prefix, violations);
    if let Some(agent) = &wire.agent {
        let answers = [("approval", agent.approval.is_some()), ("consent", agent.consent.is_some())];
        for (answer, _) in answers.into_iter().filter(|(_, given)| *given) {
            let description = "is set, but it is for one action; wanted in the question that it is for";
            violations.push(prefix.field(format_args!("agent.{answer}")), description);
        }
    }
    if wire.action.is_some() {
        read_action(wire.action.as_ref().map(Into::into), prefix, violations);
    }
    if wire.resource.is_some() {
        read_resource(wire.resource.as_ref().map(Into::into), prefix, violations);
    }
}

impl<'a> StreamContext<'a> {
    /// Reads a context that [`stream_context`] found in order.
    pub(super) fn read(wire: &'a v1::CheckStreamContext) -> Result<Self, Violations> {
        let mut violations = Violations::default();
        let Some(subject) = &wire.subject else {
            violations.push(Prefix::Context.field("subject"), "is missing");
            return Err(violations);
        };
        // Its ids were looked at when it came, which is what takes long of a subject with many groups.
        let principal = PrincipalId::new(&subject.principal_id);
        let caller = Caller {
            subject: Subject { principal, groups: (&subject.group_ids).into() },
            attributes: &subject.attributes,
        };
        let given = (wire.action.as_ref().map(Into::into), wire.resource.as_ref().map(Into::into));
        let context = Self {
            caller,
            environment: &wire.environment_attributes,
            agent: read_agent(wire.agent.as_ref(), Prefix::Context, &mut violations),
            operation: given.0.and_then(|own| read_action(Some(own), Prefix::Context, &mut violations)),
            resource: given.1.and_then(|own| read_resource(Some(own), Prefix::Context, &mut violations)),
        };
        if violations.is_empty() { Ok(context) } else { Err(violations) }
    }

    /// Who asks all of them.
    pub(super) const fn subject(&self) -> Subject<'a> {
        self.caller.subject
    }

    /// Reads one question: what it says itself, and for the rest what the context says.
    pub(super) fn question(&self, wire: &'a v1::CheckStreamQuestion) -> Result<Asked<'a>, Violations> {
        let mut violations = Violations::default();
        let prefix = Prefix::Whole;
        let missing = "is missing, and the context names none either";
        let operation = match (&wire.action, self.operation) {
            (Some(own), _) => read_action(Some(own.into()), prefix, &mut violations),
            (None, Some(shared)) => Some(shared),
            (None, None) => {
                violations.push("action", missing);
                None
            }
        };
        let resource = match (&wire.resource, self.resource) {
            (Some(own), _) => read_resource(Some(own.into()), prefix, &mut violations),
            (None, Some(shared)) => Some(shared),
            (None, None) => {
                violations.push("resource", missing);
                None
            }
        };
        attributes(&wire.request_attributes, prefix, "request_attributes", &mut violations);
        let agent = match &wire.agent {
            own @ Some(_) => read_agent(own.as_ref(), prefix, &mut violations),
            None => self.agent,
        };
        let given = (&wire.request_attributes, self.environment);
        asked(Some(self.caller), operation, resource, given, agent, violations)
    }
}

/// Puts together what was read, if nothing is wrong with any of it.
fn asked<'a>(
    caller: Option<Caller<'a>>,
    action: Option<Operation<'a>>,
    resource: Option<(Scope<'a>, &'a Attributes)>,
    (request, environment): (&'a Attributes, &'a Attributes),
    agent: Option<AgentContext<'a>>,
    violations: Violations,
) -> Result<Asked<'a>, Violations> {
    match (caller, action, resource) {
        (Some(caller), Some(operation), Some((scope, resource))) if violations.is_empty() => {
            let attributes =
                RequestAttributes { request, resource, principal: caller.attributes, environment };
            let Operation { action, plane, sub_operation } = operation;
            let request =
                CheckRequest { subject: caller.subject, action, plane, scope, sub_operation, attributes };
            Ok(Asked { request, agent })
        }
        _ => Err(violations),
    }
}

/// Reads a subject that stands at a path of the request.
pub(super) fn read_caller<'a>(
    wire: impl Into<SubjectView<'a>>,
    prefix: Prefix,
    path: &str,
    violations: &mut Violations,
) -> Option<Caller<'a>> {
    let wire = wire.into();
    let before = violations.len();
    if let Err(description) = id(wire.principal_id) {
        violations.push(prefix.field(format_args!("{path}.principal_id")), description);
    }
    if v1::PrincipalType::try_from(wire.principal_type).is_err() {
        let description = unknown_value(wire.principal_type, "PrincipalType");
        violations.push(prefix.field(format_args!("{path}.principal_type")), description);
    }
    if wire.groups.len() > MAX_GROUPS {
        let description = format!("holds {} ids; wanted at most {MAX_GROUPS}", wire.groups.len());
        violations.push(prefix.field(format_args!("{path}.group_ids")), description);
    } else {
        for (index, group) in wire.groups.iter().enumerate() {
            if let Err(description) = id(group) {
                violations.push(prefix.field(format_args!("{path}.group_ids[{index}]")), description);
            }
        }
    }
    attributes(wire.attributes, prefix, format_args!("{path}.attributes"), violations);
    (violations.len() == before).then(|| Caller {
        subject: Subject { principal: PrincipalId::new(wire.principal_id), groups: wire.groups },
        attributes: wire.attributes,
    })
}

/// Reads an agent's context. A part that is malformed is missing from it, but its violation refuses the request.
fn read_agent<'a>(
    wire: Option<&'a v1::AgentContext>,
    prefix: Prefix,
    violations: &mut Violations,
) -> Option<AgentContext<'a>> {
    let wire = wire?;
    let mode = match v1::AgentMode::try_from(wire.mode) {
        Ok(v1::AgentMode::Unspecified) => None,
        Ok(v1::AgentMode::Review) => Some(AgentMode::Review),
        Ok(v1::AgentMode::Auto) => Some(AgentMode::Auto),
        Err(_) => {
            violations.push(prefix.field("agent.mode"), unknown_value(wire.mode, "AgentMode"));
            None
        }
    };
    let user = wire
        .on_behalf_of
        .as_ref()
        .and_then(|user| read_caller(user, prefix, "agent.on_behalf_of", violations));
    let user_attributes: &dyn AttributeBag = match user {
        Some(user) => user.attributes,
        None => &NoAttributes,
    };
    if wire.consent.is_some() && wire.on_behalf_of.is_none() {
        violations.push(
            prefix.field("agent.consent"),
            "is set, but `agent.on_behalf_of` is not: only the asking user lends their rights",
        );
    }
    Some(AgentContext {
        mode,
        on_behalf_of: user.map(|user| user.subject),
        user_attributes,
        approval: wire.approval.as_ref().and_then(|approval| read_approval(approval, prefix, violations)),
        consent: wire.consent.as_ref().and_then(|consent| read_consent(consent, prefix, violations)),
    })
}

fn read_approval<'a>(
    wire: &'a v1::AgentApproval,
    prefix: Prefix,
    violations: &mut Violations,
) -> Option<ApprovalAnswer<'a>> {
    let by = match &wire.by {
        Some(by) => read_caller(by, prefix, "agent.approval.by", violations),
        None => {
            violations.push(prefix.field("agent.approval.by"), "is missing");
            None
        }
    };
    let verdict = match v1::ApprovalVerdict::try_from(wire.verdict) {
        Ok(v1::ApprovalVerdict::Approve) => Some(ApprovalVerdict::Approve),
        Ok(v1::ApprovalVerdict::Deny) => Some(ApprovalVerdict::Deny),
        Ok(v1::ApprovalVerdict::Unspecified) => {
            violations.push(prefix.field("agent.approval.verdict"), "is missing");
            None
        }
        Err(_) => {
            let description = unknown_value(wire.verdict, "ApprovalVerdict");
            violations.push(prefix.field("agent.approval.verdict"), description);
            None
        }
    };
    Some(ApprovalAnswer { by: by?.subject, verdict: verdict? })
}

fn read_consent<'a>(
    wire: &'a v1::AgentConsent,
    prefix: Prefix,
    violations: &mut Violations,
) -> Option<ConsentAnswer<'a>> {
    if let Err(description) = id(&wire.principal_id) {
        violations.push(prefix.field("agent.consent.principal_id"), description);
    }
    let verdict = match v1::ConsentVerdict::try_from(wire.verdict) {
        Ok(v1::ConsentVerdict::Grant) => Some(ConsentVerdict::Grant),
        Ok(v1::ConsentVerdict::Decline) => Some(ConsentVerdict::Decline),
        Ok(v1::ConsentVerdict::Unspecified) => {
            violations.push(prefix.field("agent.consent.verdict"), "is missing");
            None
        }
        Err(_) => {
            let description = unknown_value(wire.verdict, "ConsentVerdict");
            violations.push(prefix.field("agent.consent.verdict"), description);
            None
        }
    };
    Some(ConsentAnswer { by: PrincipalId::new(&wire.principal_id), verdict: verdict? })
}

pub(super) fn unknown_value(value: i32, of: &str) -> String {
    format!("is {value}, which this version does not know; wanted a value of {of}")
}

/// What to do.
#[derive(Clone, Copy)]
pub(super) struct Operation<'a> {
    pub(super) action: Action<'a>,
    pub(super) plane: Plane,
    sub_operation: Option<&'a str>,
}

pub(super) fn read_action<'a>(
    wire: Option<wire::Action<'a>>,
    prefix: Prefix,
    violations: &mut Violations,
) -> Option<Operation<'a>> {
    let Some(wire) = wire else {
        violations.push(prefix.field("action"), "is missing");
        return None;
    };
    if wire.sub_operation.len() > MAX_SUB_OPERATION_BYTES {
        let description = format!("is longer than {MAX_SUB_OPERATION_BYTES} bytes");
        violations.push(prefix.field("action.sub_operation"), description);
    } else if has_control(wire.sub_operation) {
        violations.push(prefix.field("action.sub_operation"), "holds a control character");
    }
    match Action::parse(wire.name) {
        Ok(action) => Some(Operation {
            action,
            plane: Plane::from_data_action(wire.data_action),
            sub_operation: Some(wire.sub_operation).filter(|name| !name.is_empty()),
        }),
        Err(error) => {
            violations.push(prefix.field("action.name"), error.to_string());
            None
        }
    }
}

fn read_resource<'a>(
    wire: Option<ResourceView<'a>>,
    prefix: Prefix,
    violations: &mut Violations,
) -> Option<(Scope<'a>, &'a Attributes)> {
    let Some(wire) = wire else {
        violations.push(prefix.field("resource"), "is missing");
        return None;
    };
    attributes(wire.attributes, prefix, "resource.attributes", violations);
    let scope = read_scope(wire.scope, || prefix.field("resource.scope"), violations)?;
    Some((scope, wire.attributes))
}

pub(super) fn read_scope<'a>(
    wire: &'a str,
    field: impl FnOnce() -> String,
    violations: &mut Violations,
) -> Option<Scope<'a>> {
    Scope::parse(wire).map_err(|error| violations.push(field(), error.to_string())).ok()
}

pub(super) fn request_id(text: &str, prefix: Prefix, violations: &mut Violations) {
    if text.len() > MAX_REQUEST_ID_BYTES {
        violations.push(prefix.field("request_id"), format!("is longer than {MAX_REQUEST_ID_BYTES} bytes"));
    } else if has_control(text) {
        violations.push(prefix.field("request_id"), "holds a control character");
    }
}

fn id(text: &str) -> Result<(), String> {
    if text.is_empty() {
        Err("is empty; wanted an object id".to_owned())
    } else if text.len() > MAX_ID_BYTES {
        Err(format!("is longer than {MAX_ID_BYTES} bytes"))
    } else if has_control(text) {
        Err("holds a control character".to_owned())
    } else {
        Ok(())
    }
}

fn has_control(text: &str) -> bool {
    // Without an early exit this runs over many bytes at once, and a request brings dozens of ids.
    text.bytes().fold(false, |found, byte| found | byte.is_ascii_control())
}

fn attributes(
    given: &Attributes,
    prefix: Prefix,
    field: impl fmt::Display + Copy,
    violations: &mut Violations,
) {
    if given.is_empty() {
        return;
    }
    // A map has no order of its own, but two answers to one request should not differ.
    let mut wrong: Vec<(&str, &'static str)> = given
        .iter()
        .filter_map(|(key, value)| attribute(key, value).err().map(|description| (key.as_str(), description)))
        .collect();
    wrong.sort_unstable();
    for (key, description) in wrong {
        violations.push(prefix.field(format_args!("{field}[{:?}]", shortened(key))), description);
    }
}

/// Values nest once: a list or a dictionary holds texts, numbers and truth values.
fn attribute(key: &str, value: &v1::AttributeValue) -> Result<(), &'static str> {
    use v1::attribute_value::Value;

    key_is_good(key)?;
    let nested = match &value.value {
        None | Some(Value::Text(_) | Value::Number(_) | Value::Boolean(_)) => return Ok(()),
        Some(Value::List(list)) => list.values.iter().any(is_compound),
        Some(Value::Dictionary(dictionary)) => {
            for key in dictionary.entries.keys() {
                key_is_good(key)?;
            }
            dictionary.entries.values().any(is_compound)
        }
    };
    if nested { Err("holds a list or a dictionary inside a list or a dictionary") } else { Ok(()) }
}

fn is_compound(value: &v1::AttributeValue) -> bool {
    use v1::attribute_value::Value;
    matches!(value.value, Some(Value::List(_) | Value::Dictionary(_)))
}

fn key_is_good(key: &str) -> Result<(), &'static str> {
    if key.is_empty() {
        Err("has an empty key")
    } else if key.len() > MAX_KEY_BYTES {
        Err("has a key longer than 256 bytes")
    } else {
        Ok(())
    }
}

/// Enough of a key to find it.
fn shortened(key: &str) -> &str {
    key.char_indices().nth(48).and_then(|(end, _)| key.get(..end)).unwrap_or(key)
}

// === attributes ===

/// Conditions read the message where it lies.
impl AttributeBag for Attributes {
    fn visit<'a>(&'a self, each: &mut dyn FnMut(&'a str, Value<'a>) -> ControlFlow<()>) -> ControlFlow<()> {
        self.iter().try_for_each(|(name, value)| each(name, value.into()))
    }
}

impl ValueList for Vec<v1::AttributeValue> {
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, index: usize) -> Value<'_> {
        self.get(index).map_or(Value::Missing, Value::from)
    }
}

impl<'a> From<&'a v1::AttributeValue> for Value<'a> {
    fn from(wire: &'a v1::AttributeValue) -> Self {
        use v1::attribute_value::Value as Wire;

        match &wire.value {
            None => Self::Missing,
            Some(Wire::Text(text)) => Self::Text(text),
            Some(Wire::Number(number)) => Self::Number(*number),
            Some(Wire::Boolean(boolean)) => Self::Boolean(*boolean),
            Some(Wire::List(list)) => Self::List(&list.values),
            Some(Wire::Dictionary(dictionary)) => Self::Dictionary(&dictionary.entries),
        }
    }
}

// === answers ===

/// Which policy decided.
pub fn identity(authorizer: &Authorizer, snapshot: &Snapshot) -> v1::PolicyIdentity {
    let (freshness, age_seconds) = age(authorizer, snapshot);
    v1::PolicyIdentity {
        serial: snapshot.serial,
        digest: snapshot.policy.digest().to_owned(),
        generation: snapshot.generation,
        freshness: freshness.into(),
        age_seconds,
    }
}

/// How fresh it is, and how many seconds ago that was confirmed.
pub(super) fn age(authorizer: &Authorizer, snapshot: &Snapshot) -> (v1::PolicyFreshness, u64) {
    // Nothing is asked of the clock for a directory.
    let Some(lease) = snapshot.lease() else { return (v1::PolicyFreshness::Fresh, 0) };
    let now = authorizer.now();
    let age = now.as_second().saturating_sub(lease.confirmed().as_second());
    let freshness = match lease.freshness(now) {
        Freshness::Fresh => v1::PolicyFreshness::Fresh,
        Freshness::Stale => v1::PolicyFreshness::Stale,
        Freshness::Expired => v1::PolicyFreshness::Expired,
    };
    (freshness, u64::try_from(age).unwrap_or(0))
}

/// An answer, what it rests on, and the way that leads on from it.
pub fn result(snapshot: &Snapshot, asked: &Asked<'_>, answer: &Answer) -> v1::CheckResult {
    let mut bytes = Vec::new();
    answer::Writer::new(snapshot).result(&mut bytes, asked, answer);
    // What was written can be read; where not, it is no decision.
    v1::CheckResult::decode(bytes.as_slice()).unwrap_or_default()
}

pub(super) fn step(step: &Step) -> v1::Step {
    use v1::step::Kind;

    let state = match step.state {
        StepState::Done => v1::StepState::Done,
        StepState::Next => v1::StepState::Next,
        StepState::Later => v1::StepState::Later,
    };
    let kind = match &step.kind {
        StepKind::ApprovalPrompt => Kind::ApprovalPrompt(v1::ApprovalPrompt {}),
        StepKind::OboPrompt => Kind::OnBehalfOfPrompt(v1::OnBehalfOfPrompt {}),
        StepKind::ExecuteAsAgent => Kind::ExecuteAsAgent(v1::ExecuteAsAgent {}),
        StepKind::ExecuteAsUser => Kind::ExecuteAsUser(v1::ExecuteAsUser {}),
        StepKind::ActivateRole(activation) => Kind::ActivateRole(role_activation(activation)),
    };
    v1::Step { state: state as i32, kind: Some(kind) }
}

pub(super) fn role_activation(activation: &RoleActivation) -> v1::RoleActivation {
    v1::RoleActivation {
        role_definition_id: activation.role_definition_id.clone(),
        role_name: activation.role_name.clone(),
        scope: activation.scope.clone(),
        eligibility_id: activation.eligibility_id.clone(),
        principal_id: activation.principal_id.clone(),
        eligible_until: activation.eligible_until.map(timestamp),
        condition: activation.condition.clone().unwrap_or_default(),
        requirements: activation.requirements.as_ref().map(requirements),
    }
}

fn requirements(requirements: &ActivationRequirements) -> v1::ActivationRequirements {
    v1::ActivationRequirements {
        maximum_duration: requirements.maximum_duration.clone().unwrap_or_default(),
        mfa: requirements.mfa,
        justification: requirements.justification,
        ticket: requirements.ticket,
        authentication_context: requirements.authentication_context.clone().unwrap_or_default(),
        approval: requirements.approval,
        approver_ids: requirements.approvers.clone(),
    }
}

/// Protobuf counts the fraction upwards also before 1970.
pub(super) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = (at.as_second(), at.subsec_nanosecond());
    if nanos < 0 {
        return prost_types::Timestamp {
            seconds: seconds.saturating_sub(1),
            nanos: nanos.saturating_add(1_000_000_000),
        };
    }
    prost_types::Timestamp { seconds, nanos }
}

pub(super) const fn reason_code(code: ReasonCode) -> v1::ReasonCode {
    match code {
        ReasonCode::RoleAssignment => v1::ReasonCode::RoleAssignment,
        ReasonCode::NoRoleAssignment => v1::ReasonCode::NoRoleAssignment,
        ReasonCode::ActionNotGranted => v1::ReasonCode::ActionNotGranted,
        ReasonCode::NotActiveNow => v1::ReasonCode::NotActiveNow,
        ReasonCode::ConditionNotMet => v1::ReasonCode::ConditionNotMet,
        ReasonCode::Eligible => v1::ReasonCode::Eligible,
        ReasonCode::DenyAssignment => v1::ReasonCode::DenyAssignment,
        ReasonCode::Agent(AgentStop::ApprovalRequired) => v1::ReasonCode::AgentApprovalRequired,
        ReasonCode::Agent(AgentStop::OnBehalfOfRequired) => v1::ReasonCode::AgentOnBehalfOfRequired,
        ReasonCode::Agent(AgentStop::ApprovalDenied) => v1::ReasonCode::AgentApprovalDenied,
        ReasonCode::Agent(AgentStop::OnBehalfOfDeclined) => v1::ReasonCode::AgentOnBehalfOfDeclined,
        ReasonCode::Agent(AgentStop::UserNotAuthorized) => v1::ReasonCode::AgentUserNotAuthorized,
        ReasonCode::Agent(AgentStop::OutOfScope) => v1::ReasonCode::AgentOutOfScope,
        ReasonCode::Agent(AgentStop::NoManagedResourceGroups) => v1::ReasonCode::AgentNoManagedResourceGroups,
    }
}

/// The status of "could not decide", chosen for what the caller will do with it.
pub const fn undecided_code(undecided: &Undecided) -> Code {
    match undecided {
        // Comes right by itself: retry.
        Undecided::NoPolicy | Undecided::PolicyOutdated(_) => Code::Unavailable,
        // Comes right when somebody completes the policy, or makes its conditions smaller. To ask again does not help.
        Undecided::UnknownHierarchy { .. } | Undecided::ConditionsTooCostly => Code::FailedPrecondition,
        Undecided::DamagedPolicy => Code::Internal,
    }
}

/// The name of "could not decide" in metrics, spans and `google.rpc.ErrorInfo`.
pub const fn undecided_reason(undecided: &Undecided) -> &'static str {
    undecided.code()
}

/// What belongs to that reason in `google.rpc.ErrorInfo`.
fn undecided_metadata(undecided: &Undecided) -> HashMap<String, String> {
    match undecided {
        Undecided::UnknownHierarchy { holder } => HashMap::from([("holder".to_owned(), holder.clone())]),
        _ => HashMap::new(),
    }
}

/// The whole status.
pub fn undecided_status(undecided: &Undecided) -> Status {
    let metadata = undecided_metadata(undecided);
    let details = ErrorDetails::with_error_info(undecided_reason(undecided), ERROR_DOMAIN, metadata);
    Status::with_error_details(undecided_code(undecided), undecided.to_string(), details)
}

/// The same for one item of a batch, or one question of a stream.
pub fn undecided_item(undecided: &Undecided) -> v1::CheckError {
    v1::CheckError {
        code: undecided_code(undecided) as i32,
        message: undecided.to_string(),
        field_violations: Vec::new(),
        reason: undecided_reason(undecided).to_owned(),
        metadata: undecided_metadata(undecided),
    }
}

// === impl Violations ===

impl Violations {
    /// Whether nothing is wrong.
    pub const fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// The fields at fault, in the order of the message.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.listed.iter().map(|violation| (violation.field.as_str(), violation.description.as_str()))
    }

    /// The same for one item of a batch, or one question of a stream.
    pub fn into_item(self) -> v1::CheckError {
        v1::CheckError {
            code: Code::InvalidArgument as i32,
            message: self.to_string(),
            field_violations: self.listed,
            ..v1::CheckError::default()
        }
    }

    /// The whole status.
    pub fn into_status(self) -> Status {
        let message = self.to_string();
        let violations: Vec<_> = self
            .listed
            .into_iter()
            .map(|violation| tonic_types::FieldViolation::new(violation.field, violation.description))
            .collect();
        Status::with_error_details(Code::InvalidArgument, message, ErrorDetails::with_bad_request(violations))
    }

    pub(super) const fn len(&self) -> usize {
        self.listed.len().saturating_add(self.unlisted)
    }

    pub(super) fn push(&mut self, field: impl Into<String>, description: impl Into<String>) {
        if self.listed.len() < MAX_LISTED {
            self.listed.push(v1::FieldViolation { field: field.into(), description: description.into() });
        } else {
            self.unlisted = self.unlisted.saturating_add(1);
        }
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.listed.iter().take(MAX_IN_MESSAGE).enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}`{}` {}", violation.field, violation.description)?;
        }
        match self.len().saturating_sub(MAX_IN_MESSAGE) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl BatchError {
    /// The whole status. A limit is named in a form that programs can read, so that they can split the batch.
    pub fn into_status(self) -> Status {
        match self {
            Self::Malformed(violations) => violations.into_status(),
            Self::TooLarge { field, items, limit } => {
                let description = format!("holds {items} items; this sidecar takes at most {limit}");
                let metadata = HashMap::from([
                    ("limit".to_owned(), limit.to_string()),
                    ("items".to_owned(), items.to_string()),
                ]);
                let mut details = ErrorDetails::with_bad_request_violation(field, description.clone());
                details.set_error_info("BATCH_TOO_LARGE", ERROR_DOMAIN, metadata);
                Status::with_error_details(Code::InvalidArgument, format!("`{field}` {description}"), details)
            }
        }
    }
}

impl Prefix {
    pub(super) fn field(self, field: impl fmt::Display) -> String {
        match self {
            Self::Whole => field.to_string(),
            Self::Explained => format!("check.{field}"),
            Self::Item(index) => format!("items[{index}].{field}"),
            Self::Context => format!("context.{field}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> v1::CheckRequest {
        v1::CheckRequest {
            subject: Some(v1::Subject { principal_id: "alice".into(), ..Default::default() }),
            action: Some(v1::Action { name: "A.B/c/read".into(), ..Default::default() }),
            resource: Some(v1::Resource { scope: "/".into(), ..Default::default() }),
            ..Default::default()
        }
    }

    fn fields(wire: &v1::CheckRequest) -> Vec<String> {
        match check_request(wire) {
            Ok(_) => Vec::new(),
            Err(violations) => violations.iter().map(|(field, _)| field.to_owned()).collect(),
        }
    }

    fn decision_point(
        documents: &crate::model::Documents,
    ) -> (crate::authorizer::Authorizer, std::sync::Arc<Snapshot>) {
        use crate::authorizer::{Authorizer, CacheSettings};

        let policy = crate::policy::Policy::compile(documents, Default::default()).unwrap();
        let (mut writer, reader) = crate::snapshot::cell();
        let (snapshot, _none) = writer.activate(policy, 0, Timestamp::UNIX_EPOCH);
        let cache = CacheSettings { policy: crate::cache::CachePolicy::Off, max_bytes: 0 };
        (Authorizer::new(reader, cache, crate::clock::Clock::system()), snapshot)
    }

    fn value(value: v1::attribute_value::Value) -> v1::AttributeValue {
        v1::AttributeValue { value: Some(value) }
    }

    #[test]
    fn a_good_request_is_borrowed() {
        let wire = good();
        let request = check_request(&wire).unwrap().request;
        assert_eq!(request.action.as_str().as_ptr(), wire.action.as_ref().unwrap().name.as_ptr());
        assert_eq!(request.plane, Plane::Control);
    }

    #[test]
    fn every_field_at_fault_is_named() {
        assert_eq!(fields(&v1::CheckRequest::default()), ["subject", "action", "resource"]);
        let mut wire = good();
        wire.subject = Some(v1::Subject {
            principal_id: "a\nb".into(),
            principal_type: 77,
            group_ids: vec!["ok".into(), "x".repeat(257), String::new()],
            ..Default::default()
        });
        wire.action =
            Some(v1::Action { name: "a/*".into(), sub_operation: "x".repeat(257), ..Default::default() });
        wire.resource = Some(v1::Resource { scope: "nowhere".into(), ..Default::default() });
        wire.request_id = "r".repeat(129);
        assert_eq!(
            fields(&wire),
            [
                "subject.principal_id",
                "subject.principal_type",
                "subject.group_ids[1]",
                "subject.group_ids[2]",
                "action.sub_operation",
                "action.name",
                "resource.scope",
                "request_id",
            ]
        );
        let message = check_request(&wire).unwrap_err().to_string();
        assert!(message.starts_with("`subject.principal_id` holds a control character; "), "{message}");
        assert!(message.ends_with("; and 5 more"), "{message}");
    }

    #[test]
    fn attributes_nest_once() {
        use v1::attribute_value::Value;
        let list = |values| value(Value::List(v1::AttributeList { values }));
        let text = || value(Value::Text("x".into()));
        let dictionary = |key: &str, held| {
            let entries = HashMap::from([(key.to_owned(), held)]);
            value(Value::Dictionary(v1::AttributeDictionary { entries }))
        };
        let mut wire = good();
        wire.request_attributes = HashMap::from([
            ("scalar".into(), text()),
            ("unset".into(), v1::AttributeValue { value: None }),
            ("list".into(), list(vec![text(), text()])),
            ("tags".into(), dictionary("env", text())),
        ]);
        assert_eq!(fields(&wire), Vec::<String>::new());
        wire.request_attributes = HashMap::from([
            (String::new(), text()),
            ("b".into(), list(vec![list(vec![])])),
            ("c".into(), dictionary("k", list(vec![]))),
            ("d".into(), dictionary("", text())),
        ]);
        let expected = [r#"[""]"#, r#"["b"]"#, r#"["c"]"#, r#"["d"]"#];
        assert_eq!(fields(&wire), expected.map(|key| format!("request_attributes{key}")));
    }

    #[test]
    fn conditions_read_the_message() {
        use crate::model::{
            ActivationPolicy, ConditionText, Documents, PermissionBlock, RoleAssignment, RoleDefinition,
            Schedule, ScheduleKind, Spanned,
        };
        use v1::attribute_value::Value;

        let text = |value: &str| Spanned::new(value.to_owned(), Default::default());
        let condition = "SubOperationMatches{'Blob.List'} AND @Request[ns/t:a] StringEquals 'x' AND \
                         @Resource[ns/t:n] NumericEquals 5 AND @Resource[ns/t/tags:env] StringEquals 'prod' AND \
                         @Principal[ns/t:p] BoolEquals true AND \
                         @Environment[net] ForAnyOfAnyValues:StringEquals {'home'}";
        let role = "acdd72a7-3385-48ef-bd42-f606fba81ae7";
        let eligible = Schedule {
            kind: ScheduleKind::Eligible,
            name: text("e1"),
            principal_id: text("bob"),
            role_definition_id: text(role),
            scope: text("/"),
            ..Schedule::default()
        };
        let documents = Documents {
            role_definitions: vec![RoleDefinition {
                id: text(role),
                role_name: text("Reader"),
                permissions: vec![PermissionBlock { actions: vec![text("*/read")], ..Default::default() }],
                assignable_scopes: vec![text("/")],
                ..Default::default()
            }],
            role_assignments: vec![RoleAssignment {
                name: text("a1"),
                principal_id: text("alice"),
                role_definition_id: text(role),
                scope: text("/"),
                condition: Some(ConditionText { text: text(condition), version: None }),
                ..Default::default()
            }],
            schedules: vec![eligible],
            activation_policies: vec![ActivationPolicy {
                scope: text("/"),
                role_definition_id: text(role),
                requirements: ActivationRequirements {
                    maximum_duration: Some("PT8H".into()),
                    mfa: true,
                    ..Default::default()
                },
                ..Default::default()
            }],
            ..Default::default()
        };
        let (authorizer, snapshot) = decision_point(&documents);
        let decided = |asked: &Asked<'_>| {
            let answer = authorizer.check(&snapshot, &asked.request, asked.agent.as_ref()).unwrap();
            result(&snapshot, asked, &answer)
        };

        let of = |name: &str, given: Value| HashMap::from([(name.to_owned(), value(given))]);
        let texts = |text: &str| v1::AttributeList { values: vec![value(Value::Text(text.into()))] };
        let mut wire = good();
        wire.action.as_mut().unwrap().sub_operation = "Blob.List".into();
        wire.request_attributes = of("NS/t:A", Value::Text("x".into()));
        let tags = v1::AttributeDictionary { entries: of("env", Value::Text("prod".into())) };
        let resource = wire.resource.as_mut().unwrap();
        resource.attributes = of("ns/t:n", Value::Number(5));
        resource.attributes.extend(of("ns/t/tags", Value::Dictionary(tags)));
        wire.subject.as_mut().unwrap().attributes = of("ns/t:p", Value::Boolean(true));
        wire.environment_attributes = of("net", Value::List(texts("home")));
        assert_eq!(decided(&check_request(&wire).unwrap()).decision(), v1::Decision::Allowed);

        let batched = v1::BatchCheckRequest {
            subject: wire.subject.clone(),
            environment_attributes: wire.environment_attributes.clone(),
            items: vec![v1::BatchCheckItem {
                action: wire.action.clone(),
                resource: wire.resource.clone(),
                request_attributes: wire.request_attributes.clone(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let item = |batched: &v1::BatchCheckRequest| {
            decided(&batch(batched, 1).unwrap().item(0, &batched.items[0]).unwrap()).decision()
        };
        assert_eq!(item(&batched), v1::Decision::Allowed);
        let mut own = batched.clone();
        own.items[0].subject = Some(v1::Subject { principal_id: "alice".into(), ..Default::default() });
        assert_eq!(item(&own), v1::Decision::NotAllowed, "a subject of its own has attributes of its own");
        let mut elsewhere = batched;
        elsewhere.environment_attributes.clear();
        assert_eq!(item(&elsewhere), v1::Decision::NotAllowed);

        for (of_what, change) in [
            (
                "sub_operation",
                (|wire| wire.action.as_mut().unwrap().sub_operation.clear()) as fn(&mut v1::CheckRequest),
            ),
            ("request", |wire: &mut v1::CheckRequest| wire.request_attributes.clear()),
            ("resource", |wire| wire.resource.as_mut().unwrap().attributes.clear()),
            ("principal", |wire| wire.subject.as_mut().unwrap().attributes.clear()),
            ("environment", |wire| wire.environment_attributes.clear()),
            ("unset", |wire| {
                wire.request_attributes.values_mut().for_each(|value| value.value = None);
            }),
        ] {
            let mut less = wire.clone();
            change(&mut less);
            let result = decided(&check_request(&less).unwrap());
            assert_eq!(result.reason_code(), v1::ReasonCode::ConditionNotMet, "{of_what}");
            assert!(result.steps.is_empty());
        }

        wire.subject = Some(v1::Subject { principal_id: "bob".into(), ..Default::default() });
        let result = decided(&check_request(&wire).unwrap());
        assert_eq!(
            (result.decision(), result.reason_code()),
            (v1::Decision::NotAllowed, v1::ReasonCode::Eligible)
        );
        let [step] = result.steps.as_slice() else { panic!("{:?}", result.steps) };
        assert_eq!(step.state(), v1::StepState::Next);
        let Some(v1::step::Kind::ActivateRole(activation)) = &step.kind else { panic!("{step:?}") };
        assert_eq!((activation.role_name.as_str(), activation.scope.as_str()), ("Reader", "/"));
        assert!(activation.eligibility_id.ends_with("/roleEligibilitySchedules/e1"), "{activation:?}");
        let requirements = activation.requirements.as_ref().unwrap();
        assert_eq!((requirements.mfa, requirements.maximum_duration.as_str()), (true, "PT8H"));
    }

    #[test]
    fn agents_bring_their_context() {
        let user = |id: &str| v1::Subject {
            principal_id: id.into(),
            group_ids: vec!["team".into()],
            attributes: HashMap::from([("a".into(), v1::AttributeValue::default())]),
            ..Default::default()
        };
        let mut wire = good();
        wire.agent = Some(v1::AgentContext::default());
        let asked = check_request(&wire).unwrap();
        let agent = asked.agent.unwrap();
        assert!(agent.mode.is_none() && agent.on_behalf_of.is_none() && agent.approval.is_none());
        assert!(agent.user_request(&asked.request).is_none());

        wire.agent = Some(v1::AgentContext {
            mode: v1::AgentMode::Review as i32,
            on_behalf_of: Some(user("uma")),
            approval: Some(v1::AgentApproval {
                by: Some(user("ada")),
                verdict: v1::ApprovalVerdict::Deny as i32,
            }),
            consent: Some(v1::AgentConsent {
                principal_id: "uma".into(),
                verdict: v1::ConsentVerdict::Grant as i32,
            }),
        });
        let asked = check_request(&wire).unwrap();
        let agent = asked.agent.unwrap();
        assert_eq!(agent.mode, Some(AgentMode::Review));
        let approval = agent.approval.unwrap();
        assert_eq!(
            (approval.by.principal, approval.verdict),
            (PrincipalId::Text("ada"), ApprovalVerdict::Deny)
        );
        assert_eq!(agent.consent.unwrap().verdict, ConsentVerdict::Grant);
        let of_user = agent.user_request(&asked.request).unwrap();
        assert_eq!(of_user.subject.principal, PrincipalId::Text("uma"));
        assert_eq!(of_user.subject.groups.iter().collect::<Vec<_>>(), ["team"]);
        let attributes = crate::model::Attributes::from_bag(of_user.attributes.principal);
        assert_eq!(attributes.len(), 1);

        wire.agent = Some(v1::AgentContext {
            mode: 9,
            on_behalf_of: None,
            approval: Some(v1::AgentApproval::default()),
            consent: Some(v1::AgentConsent { verdict: 9, ..Default::default() }),
        });
        let wanted = [
            "agent.mode",
            "agent.consent",
            "agent.approval.by",
            "agent.approval.verdict",
            "agent.consent.principal_id",
            "agent.consent.verdict",
        ];
        assert_eq!(fields(&wire), wanted);
        let item = v1::BatchCheckItem { agent: wire.agent.take(), ..v1::BatchCheckItem::default() };
        let batched = v1::BatchCheckRequest {
            subject: wire.subject.clone(),
            items: vec![v1::BatchCheckItem { action: wire.action, resource: wire.resource, ..item }],
            ..Default::default()
        };
        let violations = batch(&batched, 1).unwrap().item(0, &batched.items[0]).unwrap_err();
        let named: Vec<_> = violations.iter().map(|(field, _)| field.to_owned()).collect();
        assert_eq!(named, wanted.map(|field| format!("items[0].{field}")));
    }

    #[test]
    fn steps_and_whose_rights() {
        use crate::model::{
            AgentDocument, Documents, PermissionBlock, RoleAssignment, RoleDefinition, Spanned,
        };

        let text = |value: &str| Spanned::new(value.to_owned(), Default::default());
        let group = "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/app";
        let documents = Documents {
            role_definitions: vec![RoleDefinition {
                id: text("writer"),
                role_name: text("Writer"),
                permissions: vec![PermissionBlock { actions: vec![text("*")], ..Default::default() }],
                assignable_scopes: vec![text("/")],
                ..Default::default()
            }],
            role_assignments: vec![RoleAssignment {
                name: text("a1"),
                principal_id: text("uma"),
                role_definition_id: text("writer"),
                scope: text(group),
                ..Default::default()
            }],
            agents: vec![AgentDocument {
                principal_id: text("sre"),
                managed_resource_groups: vec![text(group)],
                ..Default::default()
            }],
            ..Default::default()
        };
        let (authorizer, snapshot) = decision_point(&documents);
        let mut wire = good();
        wire.action.as_mut().unwrap().name = "A.B/c/write".into();
        wire.subject.as_mut().unwrap().principal_id = "sre".into();
        wire.resource.as_mut().unwrap().scope = group.into();
        let decided = |wire: &v1::CheckRequest| {
            let asked = check_request(wire).unwrap();
            let answer = authorizer.check(&snapshot, &asked.request, asked.agent.as_ref()).unwrap();
            let told = result(&snapshot, &asked, &answer);
            let steps: Vec<_> = told
                .steps
                .iter()
                .map(|step| (step.kind.clone().unwrap(), step.state().as_str_name()))
                .collect();
            (told, steps)
        };
        use v1::step::Kind::{ApprovalPrompt, ExecuteAsUser, OnBehalfOfPrompt};
        let (approval, obo, execute) = (
            ApprovalPrompt(v1::ApprovalPrompt {}),
            OnBehalfOfPrompt(v1::OnBehalfOfPrompt {}),
            ExecuteAsUser(v1::ExecuteAsUser {}),
        );

        let uma = v1::Subject { principal_id: "uma".into(), ..Default::default() };
        wire.agent = Some(v1::AgentContext { on_behalf_of: Some(uma.clone()), ..Default::default() });
        let (told, steps) = decided(&wire);
        assert_eq!(
            (told.decision(), told.reason_code(), told.executed_as()),
            (v1::Decision::NotAllowed, v1::ReasonCode::AgentApprovalRequired, v1::ExecutedAs::Unspecified)
        );
        let states = |states: [&'static str; 3]| {
            [approval.clone(), obo.clone(), execute.clone()].into_iter().zip(states).collect::<Vec<_>>()
        };
        assert_eq!(steps, states(["STEP_STATE_NEXT", "STEP_STATE_LATER", "STEP_STATE_LATER"]));

        let agent = wire.agent.as_mut().unwrap();
        let verdict = v1::ApprovalVerdict::Approve as i32;
        agent.approval = Some(v1::AgentApproval { by: Some(uma), verdict });
        let (told, steps) = decided(&wire);
        assert_eq!(told.reason_code(), v1::ReasonCode::AgentOnBehalfOfRequired);
        assert_eq!(steps, states(["STEP_STATE_DONE", "STEP_STATE_NEXT", "STEP_STATE_LATER"]));

        let verdict = v1::ConsentVerdict::Grant as i32;
        wire.agent.as_mut().unwrap().consent = Some(v1::AgentConsent { principal_id: "uma".into(), verdict });
        let (told, steps) = decided(&wire);
        assert_eq!((told.decision(), told.executed_as()), (v1::Decision::Allowed, v1::ExecutedAs::User));
        assert_eq!(steps, states(["STEP_STATE_DONE", "STEP_STATE_DONE", "STEP_STATE_NEXT"]));
        assert!(told.role_assignment_id.ends_with("/roleAssignments/a1"), "{}", told.role_assignment_id);
        let reason =
            "with the rights of the user who asks: role \"Writer\", assigned to the subject at /subs";
        assert!(told.reason.starts_with(reason), "{}", told.reason);

        // Explain answers what the flow does, and says what the rights of each give.
        let asked = check_request(&wire).unwrap();
        let explained = authorizer.explain(&snapshot, &asked.request, asked.agent.as_ref()).unwrap();
        let answer = crate::server::explain::explained(&authorizer, &snapshot, &asked, &explained, "r");
        assert_eq!((answer.result.as_ref(), answer.request_id.as_str()), (Some(&told), "r"));
        assert_eq!(answer.explanation.unwrap().decision(), v1::Decision::NotAllowed);
        let user = answer.on_behalf_of_explanation.unwrap();
        assert_eq!((user.decision(), user.principals[0].id.as_str()), (v1::Decision::Allowed, "uma"));
    }

    #[test]
    fn times_before_1970_count_upwards() {
        let at = |text: &str| timestamp(text.parse().unwrap());
        assert_eq!(at("1970-01-01T00:00:01.5Z"), prost_types::Timestamp { seconds: 1, nanos: 500_000_000 });
        assert_eq!(at("1969-12-31T23:59:59.75Z"), prost_types::Timestamp { seconds: -1, nanos: 750_000_000 });
    }

    #[test]
    fn a_flood_of_violations_fits_into_a_header() {
        let mut wire = good();
        wire.subject.as_mut().unwrap().group_ids = vec![String::new(); MAX_GROUPS];
        let violations = check_request(&wire).unwrap_err();
        assert_eq!((violations.listed.len(), violations.len()), (MAX_LISTED, MAX_GROUPS));
        let status = violations.into_status();
        assert!(status.message().ends_with("and 4093 more"));
        // Base64 in the header.
        assert!(status.details().len() * 4 / 3 + status.message().len() < 12 * 1024);
        wire.subject.as_mut().unwrap().group_ids.push("one more".into());
        assert_eq!(fields(&wire), ["subject.group_ids"]);
    }

    #[test]
    fn batches() {
        let item = |scope: &str| v1::BatchCheckItem {
            action: good().action,
            resource: Some(v1::Resource { scope: scope.into(), ..Default::default() }),
            ..Default::default()
        };
        let mut wire = v1::BatchCheckRequest { items: vec![item("/"), item("x")], ..Default::default() };
        let read = batch(&wire, 2).unwrap();
        let error = read.item(1, &wire.items[1]).unwrap_err().into_item();
        let named: Vec<_> = error.field_violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(named, ["items[1].subject", "items[1].resource.scope"]);
        assert_eq!(error.code, Code::InvalidArgument as i32);

        let status = batch(&wire, 1).unwrap_err().into_status();
        let details = status.get_error_details();
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "items");
        let info = details.error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("BATCH_TOO_LARGE", "postern.v1"));
        assert_eq!(info.metadata["limit"], "1");

        wire.subject = Some(v1::Subject { principal_id: "shared".into(), ..Default::default() });
        wire.items[0].subject = Some(v1::Subject { principal_id: "own".into(), ..Default::default() });
        let read = batch(&wire, 2).unwrap();
        let own = read.item(0, &wire.items[0]).unwrap();
        assert_eq!(own.request.subject.principal, PrincipalId::Text("own"));
        wire.items.clear();
        assert!(matches!(batch(&wire, 2), Err(BatchError::Malformed(_))));
    }

    #[test]
    fn undecided_is_a_status_that_programs_can_read() {
        let status = undecided_status(&Undecided::UnknownHierarchy { holder: "sub".into() });
        assert_eq!(status.code(), Code::FailedPrecondition);
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.metadata["holder"].as_str()), ("UNKNOWN_HIERARCHY", "sub"));
        assert_eq!(undecided_status(&Undecided::NoPolicy).code(), Code::Unavailable);
        assert_eq!(undecided_status(&Undecided::DamagedPolicy).code(), Code::Internal);
    }
}
