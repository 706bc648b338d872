//! The wire and the model: requests are checked and borrowed, answers are spelled out. The only place, with the
//! signatures of `grpc` and the client side of the command line, where generated types are spoken.
//!
//! A request that is in order costs no allocation. One that is not is refused with every field at fault.

use std::collections::HashMap;
use std::fmt;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::authorizer::Answer;
use crate::model::{
    Action, AgentStop, CheckRequest, Decision, Plane, PrincipalId, ReasonCode, Scope, Subject, Undecided,
};
use crate::proto::v1;
use crate::snapshot::Snapshot;

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

/// A batch whose own fields are in order.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The subject of every item that does not name its own: read once.
    subject: Option<Subject<'a>>,
}

/// Why a batch is refused as a whole.
#[derive(Clone, Debug, PartialEq)]
pub enum BatchError {
    /// Fields of the batch itself.
    Malformed(Violations),
    /// More items than the limit.
    TooLarge {
        /// How many there are.
        items: usize,
        /// How many there may be.
        limit: usize,
    },
}

/// Where in the message a field stands.
#[derive(Clone, Copy)]
struct Prefix(Option<usize>);

// === requests ===

/// Reads a request, or says everything that is wrong with it.
pub fn check_request(wire: &v1::CheckRequest) -> Result<CheckRequest<'_>, Violations> {
    let mut violations = Violations::default();
    let prefix = Prefix(None);
    let subject = match &wire.subject {
        Some(subject) => read_subject(subject, prefix, &mut violations),
        None => {
            violations.push("subject", "is missing");
            None
        }
    };
    let action = read_action(wire.action.as_ref(), prefix, &mut violations);
    let scope = read_resource(wire.resource.as_ref(), prefix, &mut violations);
    attributes(&wire.request_attributes, prefix, "request_attributes", &mut violations);
    attributes(&wire.environment_attributes, prefix, "environment_attributes", &mut violations);
    request_id(&wire.request_id, &mut violations);
    no_agent(wire.agent.as_ref(), prefix, &mut violations);
    request(subject, action, scope, violations)
}

/// Reads what belongs to the batch as a whole.
pub fn batch(wire: &v1::BatchCheckRequest, limit: usize) -> Result<Batch<'_>, BatchError> {
    if wire.items.len() > limit {
        return Err(BatchError::TooLarge { items: wire.items.len(), limit });
    }
    let mut violations = Violations::default();
    if wire.items.is_empty() {
        violations.push("items", "is empty; wanted at least one item");
    }
    let prefix = Prefix(None);
    let subject = wire.subject.as_ref().and_then(|subject| read_subject(subject, prefix, &mut violations));
    attributes(&wire.environment_attributes, prefix, "environment_attributes", &mut violations);
    request_id(&wire.request_id, &mut violations);
    if violations.is_empty() { Ok(Batch { subject }) } else { Err(BatchError::Malformed(violations)) }
}

impl<'a> Batch<'a> {
    /// Reads one item.
    pub fn item(&self, index: usize, wire: &'a v1::BatchCheckItem) -> Result<CheckRequest<'a>, Violations> {
        let mut violations = Violations::default();
        let prefix = Prefix(Some(index));
        let subject = match (&wire.subject, self.subject) {
            (Some(own), _) => read_subject(own, prefix, &mut violations),
            (None, Some(shared)) => Some(shared),
            (None, None) => {
                violations.push(prefix.field("subject"), "is missing, and the batch names no subject either");
                None
            }
        };
        let action = read_action(wire.action.as_ref(), prefix, &mut violations);
        let scope = read_resource(wire.resource.as_ref(), prefix, &mut violations);
        attributes(&wire.request_attributes, prefix, "request_attributes", &mut violations);
        no_agent(wire.agent.as_ref(), prefix, &mut violations);
        request(subject, action, scope, violations)
    }
}

fn request<'a>(
    subject: Option<Subject<'a>>,
    action: Option<(Action<'a>, Plane)>,
    scope: Option<Scope<'a>>,
    violations: Violations,
) -> Result<CheckRequest<'a>, Violations> {
    match (subject, action, scope) {
        (Some(subject), Some((action, plane)), Some(scope)) if violations.is_empty() => {
            Ok(CheckRequest::new(subject, action, plane, scope))
        }
        _ => Err(violations),
    }
}

fn read_subject<'a>(
    wire: &'a v1::Subject,
    prefix: Prefix,
    violations: &mut Violations,
) -> Option<Subject<'a>> {
    let before = violations.len();
    if let Err(description) = id(&wire.principal_id) {
        violations.push(prefix.field("subject.principal_id"), description);
    }
    if v1::PrincipalType::try_from(wire.principal_type).is_err() {
        let description = format!(
            "is {}, which this version does not know; wanted a value of PrincipalType",
            wire.principal_type
        );
        violations.push(prefix.field("subject.principal_type"), description);
    }
    if wire.group_ids.len() > MAX_GROUPS {
        let description = format!("holds {} ids; wanted at most {MAX_GROUPS}", wire.group_ids.len());
        violations.push(prefix.field("subject.group_ids"), description);
    } else {
        for (index, group) in wire.group_ids.iter().enumerate() {
            if let Err(description) = id(group) {
                violations.push(prefix.field(format_args!("subject.group_ids[{index}]")), description);
            }
        }
    }
    attributes(&wire.attributes, prefix, "subject.attributes", violations);
    (violations.len() == before)
        .then(|| Subject { principal: PrincipalId::new(&wire.principal_id), groups: &wire.group_ids })
}

fn read_action<'a>(
    wire: Option<&'a v1::Action>,
    prefix: Prefix,
    violations: &mut Violations,
) -> Option<(Action<'a>, Plane)> {
    let Some(wire) = wire else {
        violations.push(prefix.field("action"), "is missing");
        return None;
    };
    if wire.sub_operation.len() > MAX_SUB_OPERATION_BYTES {
        let description = format!("is longer than {MAX_SUB_OPERATION_BYTES} bytes");
        violations.push(prefix.field("action.sub_operation"), description);
    } else if has_control(&wire.sub_operation) {
        violations.push(prefix.field("action.sub_operation"), "holds a control character");
    }
    match Action::parse(&wire.name) {
        Ok(action) => Some((action, Plane::from_data_action(wire.data_action))),
        Err(error) => {
            violations.push(prefix.field("action.name"), error.to_string());
            None
        }
    }
}

fn read_resource<'a>(
    wire: Option<&'a v1::Resource>,
    prefix: Prefix,
    violations: &mut Violations,
) -> Option<Scope<'a>> {
    let Some(wire) = wire else {
        violations.push(prefix.field("resource"), "is missing");
        return None;
    };
    attributes(&wire.attributes, prefix, "resource.attributes", violations);
    match Scope::parse(&wire.scope) {
        Ok(scope) => Some(scope),
        Err(error) => {
            violations.push(prefix.field("resource.scope"), error.to_string());
            None
        }
    }
}

/// An agent's action must not be taken for an ordinary one: that would spare it its prompts.
fn no_agent(wire: Option<&v1::AgentContext>, prefix: Prefix, violations: &mut Violations) {
    if wire.is_some() {
        violations.push(prefix.field("agent"), "is set, but no policy of this sidecar describes agents");
    }
}

fn request_id(text: &str, violations: &mut Violations) {
    if text.len() > MAX_REQUEST_ID_BYTES {
        violations.push("request_id", format!("is longer than {MAX_REQUEST_ID_BYTES} bytes"));
    } else if has_control(text) {
        violations.push("request_id", "holds a control character");
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
    given: &HashMap<String, v1::AttributeValue>,
    prefix: Prefix,
    field: &str,
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

// === answers ===

/// Which policy decided.
pub fn identity(snapshot: &Snapshot) -> v1::PolicyIdentity {
    v1::PolicyIdentity {
        serial: snapshot.serial,
        digest: snapshot.policy.digest().to_owned(),
        generation: snapshot.generation,
    }
}

/// An answer and what it rests on.
pub fn result(snapshot: &Snapshot, request: &CheckRequest<'_>, answer: &Answer) -> v1::CheckResult {
    let policy = &snapshot.policy;
    let evaluation = &answer.evaluation;
    let mut result = v1::CheckResult {
        reason_code: reason_code(evaluation.decision.reason_code()) as i32,
        reason: policy.reason(request, &evaluation.decision),
        audited_deny_assignment_ids: evaluation
            .audited
            .iter()
            .map(|hit| policy.deny_assignment_id(*hit))
            .collect(),
        valid_until: evaluation.valid_until.map(|until| prost_types::Timestamp {
            seconds: until.as_second(),
            nanos: until.subsec_nanosecond(),
        }),
        cached: answer.cached,
        ..v1::CheckResult::default()
    };
    result.decision = match evaluation.decision {
        Decision::Allowed(grant) => {
            result.role_assignment_id = policy.role_assignment_id(grant);
            result.role_definition_id = policy.role_definition_id(grant);
            v1::Decision::Allowed
        }
        Decision::NotAllowed(_) => v1::Decision::NotAllowed,
        Decision::Denied(hit) => {
            result.deny_assignment_id = policy.deny_assignment_id(hit);
            v1::Decision::Denied
        }
    } as i32;
    result
}

const fn reason_code(code: ReasonCode) -> v1::ReasonCode {
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
        Undecided::NoPolicy => Code::Unavailable,
        // Comes right when somebody completes the policy.
        Undecided::UnknownHierarchy { .. } => Code::FailedPrecondition,
        // Comes right when the request is smaller or the policy's conditions are.
        Undecided::ConditionsTooCostly => Code::ResourceExhausted,
        Undecided::DamagedPolicy => Code::Internal,
    }
}

/// The name of "could not decide" in metrics, spans and `google.rpc.ErrorInfo`.
pub const fn undecided_reason(undecided: &Undecided) -> &'static str {
    match undecided {
        Undecided::NoPolicy => "NO_POLICY",
        Undecided::UnknownHierarchy { .. } => "UNKNOWN_HIERARCHY",
        Undecided::ConditionsTooCostly => "CONDITIONS_TOO_COSTLY",
        Undecided::DamagedPolicy => "DAMAGED_POLICY",
    }
}

/// The whole status.
pub fn undecided_status(undecided: &Undecided) -> Status {
    let mut metadata = HashMap::new();
    if let Undecided::UnknownHierarchy { holder } = undecided {
        metadata.insert("holder".to_owned(), holder.clone());
    }
    let details = ErrorDetails::with_error_info(undecided_reason(undecided), ERROR_DOMAIN, metadata);
    Status::with_error_details(undecided_code(undecided), undecided.to_string(), details)
}

/// The same for one item of a batch.
pub fn undecided_item(undecided: &Undecided) -> v1::CheckError {
    v1::CheckError {
        code: undecided_code(undecided) as i32,
        message: undecided.to_string(),
        field_violations: Vec::new(),
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

    /// The same for one item of a batch.
    pub fn into_item(self) -> v1::CheckError {
        v1::CheckError {
            code: Code::InvalidArgument as i32,
            message: self.to_string(),
            field_violations: self.listed,
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

    const fn len(&self) -> usize {
        self.listed.len().saturating_add(self.unlisted)
    }

    fn push(&mut self, field: impl Into<String>, description: impl Into<String>) {
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
            Self::TooLarge { items, limit } => {
                let description = format!("holds {items} items; this sidecar takes at most {limit}");
                let metadata = HashMap::from([
                    ("limit".to_owned(), limit.to_string()),
                    ("items".to_owned(), items.to_string()),
                ]);
                let mut details = ErrorDetails::with_bad_request_violation("items", description.clone());
                details.set_error_info("BATCH_TOO_LARGE", ERROR_DOMAIN, metadata);
                Status::with_error_details(Code::InvalidArgument, format!("`items` {description}"), details)
            }
        }
    }
}

impl Prefix {
    fn field(self, field: impl fmt::Display) -> String {
        match self.0 {
            Some(index) => format!("items[{index}].{field}"),
            None => field.to_string(),
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

    fn value(value: v1::attribute_value::Value) -> v1::AttributeValue {
        v1::AttributeValue { value: Some(value) }
    }

    #[test]
    fn a_good_request_is_borrowed() {
        let wire = good();
        let request = check_request(&wire).unwrap();
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
        assert_eq!(own.subject.principal, PrincipalId::Text("own"));
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
