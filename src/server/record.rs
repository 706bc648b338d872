//! Questions of the wire in records, and back: what a call leaves to the recorder, and how a recorded question is read
//! to be asked again. Both directions stand here, so that what is written can be read.

use std::sync::Arc;

use opentelemetry::trace::SpanContext;
use serde_json::{Map, Value as Json};
use tonic::metadata::MetadataMap;

use crate::model::{AgentContext, CheckRequest};
use crate::proto::v1;
use crate::proto::v1::attribute_value::Value;
use crate::record::{Call, Field, Question, Shown, TraceIds};

use super::convert;
use super::message::{self, Attributes, BatchCheckRequest, SubjectView, View};

/// A Check that is recorded.
#[derive(Debug)]
pub(super) struct CheckCall(Box<[u8]>);

/// A BatchCheck that is recorded.
#[derive(Debug)]
pub(super) struct BatchCall {
    message: Box<[u8]>,
    items: usize,
}

/// A message of a stream that is recorded.
#[derive(Debug)]
pub(super) struct StreamCall {
    pub(super) message: v1::CheckStreamRequest,
    /// Whether it came with this message. It counts there, once, however many messages hold it.
    pub(super) brought: bool,
    pub(super) context: Arc<v1::CheckStreamContext>,
    pub(super) stream: u128,
}

/// A question from a record.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedQuestion(v1::CheckRequest);

/// The fields of one subject.
#[derive(Clone, Copy)]
struct SubjectFields {
    id: Field,
    kind: Field,
    groups: Field,
    attributes: Field,
}

const SUBJECT: SubjectFields = SubjectFields {
    id: Field::PrincipalId,
    kind: Field::PrincipalType,
    groups: Field::GroupIds,
    attributes: Field::PrincipalAttributes,
};
const USER: SubjectFields = SubjectFields {
    id: Field::UserId,
    kind: Field::UserType,
    groups: Field::UserGroupIds,
    attributes: Field::UserAttributes,
};
const APPROVER: SubjectFields = SubjectFields {
    id: Field::ApproverId,
    kind: Field::ApproverType,
    groups: Field::ApproverGroupIds,
    attributes: Field::ApproverAttributes,
};

// === calls ===

impl CheckCall {
    /// Of the bytes of its message. A copy: the memory that they came in holds much else.
    pub(super) fn new(message: &[u8]) -> Self {
        Self(message.into())
    }
}

impl BatchCall {
    /// Of the bytes of its message, which has so many items.
    pub(super) fn new(message: &[u8], items: usize) -> Self {
        Self { message: message.into(), items }
    }
}

impl Call for CheckCall {
    fn method(&self) -> &'static str {
        "Check"
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }

    fn batch_items(&self) -> Option<usize> {
        None
    }

    fn read(&self) -> Box<dyn Question + '_> {
        // It was read once, so it can be read again.
        Box::new(message::CheckRequest::read(&self.0).unwrap_or_default())
    }
}

impl Question for message::CheckRequest<'_> {
    fn request_id(&self) -> &str {
        self.view().request_id
    }

    fn write(&self, _index: usize, shown: &mut Shown<'_, '_>) {
        question(shown, &self.view());
    }

    fn ask(&self, _index: usize, answer: &mut dyn FnMut(&CheckRequest<'_>, Option<&AgentContext<'_>>)) {
        if let Ok(asked) = convert::check_request(self.view()) {
            answer(&asked.request, asked.agent.as_ref());
        }
    }
}

impl Call for BatchCall {
    fn method(&self) -> &'static str {
        "BatchCheck"
    }

    fn bytes(&self) -> usize {
        self.message.len()
    }

    fn batch_items(&self) -> Option<usize> {
        Some(self.items)
    }

    fn read(&self) -> Box<dyn Question + '_> {
        Box::new(BatchCheckRequest::read(&self.message).unwrap_or_default())
    }
}

impl Question for BatchCheckRequest<'_> {
    fn request_id(&self) -> &str {
        self.view().request_id
    }

    fn write(&self, index: usize, shown: &mut Shown<'_, '_>) {
        let Some(item) = self.items().get(index) else { return };
        let (batch, item) = (self.view(), item.view());
        let subject = item.subject.or(batch.subject);
        question(shown, &View { subject, environment_attributes: batch.environment_attributes, ..item });
    }

    fn ask(&self, index: usize, answer: &mut dyn FnMut(&CheckRequest<'_>, Option<&AgentContext<'_>>)) {
        if let Ok(batch) = convert::batch(self.view(), usize::MAX)
            && let Some(item) = self.items().get(index)
            && let Ok(asked) = batch.item(index, item.view())
        {
            answer(&asked.request, asked.agent.as_ref());
        }
    }
}

impl Call for StreamCall {
    fn method(&self) -> &'static str {
        "CheckStream"
    }

    fn bytes(&self) -> usize {
        let context = if self.brought { prost::Message::encoded_len(&*self.context) } else { 0 };
        let questions = self.message.questions.len().saturating_mul(size_of::<v1::CheckStreamQuestion>());
        let texts = context.saturating_add(prost::Message::encoded_len(&self.message)).saturating_mul(2);
        size_of::<Self>().saturating_add(questions).saturating_add(texts)
    }

    fn batch_items(&self) -> Option<usize> {
        None
    }

    fn read(&self) -> Box<dyn Question + '_> {
        Box::new(self)
    }
}

impl Question for &StreamCall {
    fn request_id(&self) -> &str {
        &self.message.request_id
    }

    fn streamed(&self, index: usize) -> Option<(u128, u64)> {
        Some((self.stream, self.message.questions.get(index)?.id))
    }

    fn write(&self, index: usize, shown: &mut Shown<'_, '_>) {
        let Some(asked) = self.message.questions.get(index) else { return };
        let v1::CheckStreamContext { subject, environment_attributes, agent: _, action: _, resource: _ } =
            &*self.context;
        let v1::CheckStreamQuestion { id: _, action, resource, request_attributes, agent } = asked;
        let action = action.as_ref().or(self.context.action.as_ref());
        let resource = resource.as_ref().or(self.context.resource.as_ref());
        let view = View {
            subject: subject.as_ref().map(Into::into),
            action: action.map(Into::into),
            resource: resource.map(Into::into),
            request_attributes,
            environment_attributes,
            request_id: "",
            agent: agent.as_ref().or(self.context.agent.as_ref()),
        };
        question(shown, &view);
    }

    fn ask(&self, index: usize, answer: &mut dyn FnMut(&CheckRequest<'_>, Option<&AgentContext<'_>>)) {
        if let Ok(context) = convert::StreamContext::read(&self.context)
            && let Some(question) = self.message.questions.get(index)
            && let Ok(asked) = context.question(question)
        {
            answer(&asked.request, asked.agent.as_ref());
        }
    }
}

/// The place of a call in a trace: its own span where calls have one, else that of the caller.
pub(super) fn trace_ids(span: Option<&SpanContext>, metadata: &MetadataMap) -> TraceIds {
    match span {
        Some(span) if span.is_valid() => TraceIds {
            trace: u128::from_be_bytes(span.trace_id().to_bytes()),
            span: u64::from_be_bytes(span.span_id().to_bytes()),
            sampled: span.is_sampled(),
        },
        _ => metadata
            .get("traceparent")
            .and_then(|value| value.to_str().ok())
            .and_then(traceparent)
            .unwrap_or_default(),
    }
}

/// W3C trace context: `00-<32 hex>-<16 hex>-<2 hex>`; a later version may have more behind it.
fn traceparent(text: &str) -> Option<TraceIds> {
    let mut parts = text.trim().split('-');
    let (version, trace) = (lower_hex::<1>(parts.next()?)?, lower_hex::<16>(parts.next()?)?);
    let (span, [flags]) = (lower_hex::<8>(parts.next()?)?, lower_hex::<1>(parts.next()?)?);
    if version == [0xff] || (version == [0] && parts.next().is_some()) {
        return None;
    }
    let (trace, span) = (u128::from_be_bytes(trace), u64::from_be_bytes(span));
    (trace != 0 && span != 0).then_some(TraceIds { trace, span, sampled: flags & 1 == 1 })
}

/// So many bytes in digits of which none is a capital.
fn lower_hex<const BYTES: usize>(digits: &str) -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    let capital = digits.bytes().any(|digit| digit.is_ascii_uppercase());
    (!capital && hex::decode_to_slice(digits, &mut bytes).is_ok()).then_some(bytes)
}

// === writing ===

fn question(shown: &mut Shown<'_, '_>, asked: &View<'_>) {
    let View {
        subject: who,
        action,
        resource,
        request_attributes,
        environment_attributes,
        // It stands beside the question.
        request_id: _,
        agent,
    } = asked;
    if let Some(who) = who {
        subject(shown, "subject", SUBJECT, who);
    }
    if let Some(message::Action { name, data_action, sub_operation }) = action {
        shown.open("action");
        shown.text(Field::Action, "name", name);
        shown.flag(Field::DataAction, "data_action", *data_action);
        shown.text(Field::SubOperation, "sub_operation", sub_operation);
        shown.close();
    }
    if let Some(message::ResourceView { scope, attributes }) = resource {
        shown.open("resource");
        shown.text(Field::Scope, "scope", scope);
        shown.attributes(Field::ResourceAttributes, "attributes", *attributes);
        shown.close();
    }
    shown.attributes(Field::RequestAttributes, "request_attributes", *request_attributes);
    shown.attributes(Field::EnvironmentAttributes, "environment_attributes", *environment_attributes);
    let Some(v1::AgentContext { mode: _, on_behalf_of, approval, consent }) = agent else { return };
    shown.open("agent");
    let mode = agent.map(v1::AgentContext::mode).unwrap_or_default();
    shown.text(Field::AgentMode, "mode", word(mode.as_str_name(), "AGENT_MODE_"));
    if let Some(user) = on_behalf_of {
        subject(shown, "on_behalf_of", USER, &user.into());
    }
    if let Some(approval) = approval {
        shown.open("approval");
        if let Some(by) = &approval.by {
            subject(shown, "by", APPROVER, &by.into());
        }
        let verdict = word(approval.verdict().as_str_name(), "APPROVAL_VERDICT_");
        shown.text(Field::ApprovalVerdict, "verdict", verdict);
        shown.close();
    }
    if let Some(consent) = consent {
        shown.open("consent");
        shown.id(Field::ConsentId, "principal_id", &consent.principal_id);
        let verdict = word(consent.verdict().as_str_name(), "CONSENT_VERDICT_");
        shown.text(Field::ConsentVerdict, "verdict", verdict);
        shown.close();
    }
    shown.close();
}

fn subject(shown: &mut Shown<'_, '_>, name: &str, fields: SubjectFields, subject: &SubjectView<'_>) {
    let SubjectView { principal_id, principal_type, groups, attributes } = *subject;
    let kind = v1::PrincipalType::try_from(principal_type).unwrap_or_default();
    shown.open(name);
    shown.id(fields.id, "principal_id", principal_id);
    shown.text(fields.kind, "principal_type", word(kind.as_str_name(), "PRINCIPAL_TYPE_"));
    shown.ids(fields.groups, "group_ids", groups);
    shown.attributes(fields.attributes, "attributes", attributes);
    shown.close();
}

/// The name of a value without that of its enumeration; nothing for the one that says nothing.
fn word<'n>(name: &'n str, prefix: &str) -> &'n str {
    match name.strip_prefix(prefix) {
        Some("UNSPECIFIED") => "",
        Some(word) => word,
        None => name,
    }
}

// === reading ===

impl RecordedQuestion {
    /// Reads the member `request` of a record.
    ///
    /// # Errors
    ///
    /// What is at fault, with its path.
    pub fn read(json: &Json) -> Result<Self, String> {
        let mut object = Object::new(json, "request")?;
        let request = v1::CheckRequest {
            subject: object.object("subject", read_subject)?,
            action: object.object("action", |object| {
                Ok(v1::Action {
                    name: object.text("name")?,
                    data_action: object.flag("data_action")?,
                    sub_operation: object.text("sub_operation")?,
                })
            })?,
            resource: object.object("resource", |object| {
                Ok(v1::Resource {
                    scope: object.text("scope")?,
                    attributes: object.attributes("attributes")?,
                })
            })?,
            request_attributes: object.attributes("request_attributes")?,
            environment_attributes: object.attributes("environment_attributes")?,
            request_id: String::new(),
            agent: object.object("agent", read_agent)?,
        };
        object.end()?;
        Ok(Self(request))
    }

    /// The question, checked as one that comes over gRPC.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it.
    pub fn asked(&self) -> Result<convert::Asked<'_>, convert::Violations> {
        convert::check_request(&self.0)
    }

    /// The message, to be sent again.
    pub fn into_message(self) -> v1::CheckRequest {
        self.0
    }

    /// Who asks, as it was written.
    pub fn principal(&self) -> &str {
        self.0.subject.as_ref().map_or("", |subject| &subject.principal_id)
    }
}

fn read_subject(object: &mut Object<'_>) -> Result<v1::Subject, String> {
    Ok(v1::Subject {
        principal_id: object.text("principal_id")?,
        principal_type: object.word("principal_type", "PRINCIPAL_TYPE_", |name| {
            v1::PrincipalType::from_str_name(name).map(|value| value as i32)
        })?,
        group_ids: object.texts("group_ids")?,
        attributes: object.attributes("attributes")?,
    })
}

fn read_agent(object: &mut Object<'_>) -> Result<v1::AgentContext, String> {
    Ok(v1::AgentContext {
        mode: object.word("mode", "AGENT_MODE_", |name| {
            v1::AgentMode::from_str_name(name).map(|value| value as i32)
        })?,
        on_behalf_of: object.object("on_behalf_of", read_subject)?,
        approval: object.object("approval", |object| {
            Ok(v1::AgentApproval {
                by: object.object("by", read_subject)?,
                verdict: object.word("verdict", "APPROVAL_VERDICT_", |name| {
                    v1::ApprovalVerdict::from_str_name(name).map(|value| value as i32)
                })?,
            })
        })?,
        consent: object.object("consent", |object| {
            Ok(v1::AgentConsent {
                principal_id: object.text("principal_id")?,
                verdict: object.word("verdict", "CONSENT_VERDICT_", |name| {
                    v1::ConsentVerdict::from_str_name(name).map(|value| value as i32)
                })?,
            })
        })?,
    })
}

/// An object of which every member has to be known: what is not understood must not be left out of a question.
struct Object<'j> {
    members: &'j Map<String, Json>,
    path: String,
    known: Vec<&'static str>,
}

impl<'j> Object<'j> {
    fn new(json: &'j Json, path: &str) -> Result<Self, String> {
        let members = json.as_object().ok_or_else(|| format!("`{path}` is no object"))?;
        Ok(Self { members, path: path.to_owned(), known: Vec::new() })
    }

    fn take(&mut self, name: &'static str) -> Option<&'j Json> {
        self.known.push(name);
        self.members.get(name)
    }

    fn wrong(&self, name: &str, wanted: &str) -> String {
        format!("`{}.{name}` is no {wanted}", self.path)
    }

    fn object<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Object<'j>) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let Some(json) = self.take(name) else { return Ok(None) };
        let mut object = Object::new(json, &format!("{}.{name}", self.path))?;
        let value = read(&mut object)?;
        object.end()?;
        Ok(Some(value))
    }

    fn text(&mut self, name: &'static str) -> Result<String, String> {
        match self.take(name) {
            None => Ok(String::new()),
            Some(Json::String(text)) => Ok(text.clone()),
            Some(_) => Err(self.wrong(name, "text")),
        }
    }

    fn flag(&mut self, name: &'static str) -> Result<bool, String> {
        match self.take(name) {
            None => Ok(false),
            Some(Json::Bool(value)) => Ok(*value),
            Some(_) => Err(self.wrong(name, "truth value")),
        }
    }

    fn texts(&mut self, name: &'static str) -> Result<Vec<String>, String> {
        let Some(json) = self.take(name) else { return Ok(Vec::new()) };
        let texts = json.as_array().and_then(|values| {
            values.iter().map(|value| value.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        });
        texts.ok_or_else(|| self.wrong(name, "list of texts"))
    }

    fn word(
        &mut self,
        name: &'static str,
        prefix: &str,
        value: impl FnOnce(&str) -> Option<i32>,
    ) -> Result<i32, String> {
        let text = self.text(name)?;
        if text.is_empty() {
            return Ok(0);
        }
        value(&format!("{prefix}{text}")).ok_or_else(|| self.wrong(name, "word that this version knows"))
    }

    fn attributes(&mut self, name: &'static str) -> Result<Attributes, String> {
        let Some(json) = self.take(name) else { return Ok(Attributes::new()) };
        let members = json.as_object().ok_or_else(|| self.wrong(name, "object"))?;
        members
            .iter()
            .map(|(key, value)| {
                let value =
                    attribute(value).ok_or_else(|| self.wrong(&format!("{name}.{key}"), "attribute"))?;
                Ok((key.clone(), value))
            })
            .collect()
    }

    fn end(self) -> Result<(), String> {
        match self.members.keys().find(|key| !self.known.contains(&key.as_str())) {
            Some(key) => Err(format!("`{}.{key}` is nothing that this version knows", self.path)),
            None => Ok(()),
        }
    }
}

fn attribute(json: &Json) -> Option<v1::AttributeValue> {
    let value = match json {
        Json::Null => None,
        Json::Bool(boolean) => Some(Value::Boolean(*boolean)),
        Json::Number(number) => Some(Value::Number(number.as_i64()?)),
        Json::String(text) => Some(Value::Text(text.clone())),
        Json::Array(values) => {
            let values = values.iter().map(attribute).collect::<Option<_>>()?;
            Some(Value::List(v1::AttributeList { values }))
        }
        Json::Object(members) => {
            let entries = members.iter().map(|(key, value)| Some((key.clone(), attribute(value)?)));
            Some(Value::Dictionary(v1::AttributeDictionary { entries: entries.collect::<Option<_>>()? }))
        }
    };
    Some(v1::AttributeValue { value })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::{DescriptorProto, FileDescriptorSet};

    use super::*;

    /// The paths of a message; a map and a list end one.
    fn paths(messages: &[DescriptorProto], message: &str, path: &str, into: &mut BTreeSet<String>) {
        let found = messages.iter().find(|found| found.name() == message).unwrap();
        for field in &found.field {
            let path = format!("{path}{}", field.name());
            let inner = field.type_name().rsplit('.').next().unwrap();
            let whole = field.type_name().is_empty()
                || field.label() == prost_types::field_descriptor_proto::Label::Repeated;
            if whole || !messages.iter().any(|message| message.name() == inner) {
                into.insert(path);
            } else {
                paths(messages, inner, &format!("{path}."), into);
            }
        }
    }

    /// What masks name is what the contract has: a field that is new there is not recorded unseen.
    #[test]
    fn the_fields_of_masks_are_those_of_the_contract() {
        let set = FileDescriptorSet::decode(crate::proto::DESCRIPTORS).unwrap();
        let messages: Vec<_> = set.file.into_iter().flat_map(|file| file.message_type).collect();
        let mut contract = BTreeSet::new();
        paths(&messages, "CheckRequest", "", &mut contract);
        let ours: BTreeSet<String> = Field::ALL.iter().map(|field| field.path().to_owned()).collect();
        assert_eq!(ours, contract);
    }

    #[test]
    fn traces_of_callers() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let ids = traceparent(&format!("00-{trace}-00f067aa0ba902b7-01")).unwrap();
        assert_eq!(
            (format!("{:032x}", ids.trace).as_str(), ids.span, ids.sampled),
            (trace, 0x00f0_67aa_0ba9_02b7, true)
        );
        assert!(traceparent(&format!("cc-{trace}-00f067aa0ba902b7-00-later")).is_some());
        for wrong in [
            String::new(),
            format!("00-{trace}-00f067aa0ba902b7"),
            format!("00-{trace}-00f067aa0ba902b7-01-more"),
            format!("ff-{trace}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
        ] {
            assert_eq!(traceparent(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_not_understood_is_not_left_out() {
        for (json, wanted) in [
            (serde_json::json!([]), "`request` is no object"),
            (
                serde_json::json!({"subject": {"principal_id": 1}}),
                "`request.subject.principal_id` is no text",
            ),
            (
                serde_json::json!({"agent": {"mode": "WILD"}}),
                "`request.agent.mode` is no word that this version knows",
            ),
            (serde_json::json!({"extra": 1}), "`request.extra` is nothing that this version knows"),
            (
                serde_json::json!({"request_attributes": {"a": 0.5}}),
                "`request.request_attributes.a` is no attribute",
            ),
            (
                serde_json::json!({"action": {"data_action": "yes"}}),
                "`request.action.data_action` is no truth value",
            ),
        ] {
            assert_eq!(RecordedQuestion::read(&json).unwrap_err(), wanted);
        }
    }
}
