//! The questions of checks as they lie in their bytes: texts are borrowed, nothing is owned but what is rare
//! (attributes, the context of an agent), which prost reads. What is accepted and what it means is what prost makes of
//! the same bytes.
//!
//! A question that names ten groups is fifteen texts; to own them costs more than to decide.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message;
use smallvec::SmallVec;
use tonic::Status;

use crate::model::Groups;
use crate::proto::v1;
use crate::wire::{Field, Fields, Malformed};

/// Attributes by name.
pub(super) type Attributes = HashMap<String, v1::AttributeValue>;

static NONE: LazyLock<Attributes> = LazyLock::new(HashMap::new);

/// `CheckRequest`.
#[derive(Clone, Debug, Default)]
pub struct CheckRequest<'a> {
    subject: Option<Subject<'a>>,
    action: Option<Action<'a>>,
    resource: Option<Resource<'a>>,
    request_id: &'a str,
    /// Its attributes and agent.
    rest: Option<Box<v1::CheckRequest>>,
}

/// `BatchCheckRequest`.
#[derive(Clone, Debug, Default)]
pub struct BatchCheckRequest<'a> {
    subject: Option<Subject<'a>>,
    items: Vec<BatchCheckItem<'a>>,
    request_id: &'a str,
    /// Its attributes.
    rest: Option<Box<v1::BatchCheckRequest>>,
}

/// `BatchCheckItem`.
#[derive(Clone, Debug, Default)]
pub struct BatchCheckItem<'a> {
    subject: Option<Box<Subject<'a>>>,
    action: Option<Action<'a>>,
    resource: Option<Resource<'a>>,
    /// Its attributes and agent.
    rest: Option<Box<v1::BatchCheckItem>>,
}

/// `Subject`.
#[derive(Clone, Debug, Default)]
pub struct Subject<'a> {
    principal_id: &'a str,
    principal_type: i32,
    /// The ids of one subject seldom are more.
    group_ids: SmallVec<[&'a str; 16]>,
    /// Its attributes.
    rest: Option<Box<v1::Subject>>,
}

/// `Action`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Action<'a> {
    pub(super) name: &'a str,
    pub(super) data_action: bool,
    pub(super) sub_operation: &'a str,
}

/// `Resource`.
#[derive(Clone, Debug, Default)]
pub struct Resource<'a> {
    scope: &'a str,
    /// Its attributes.
    rest: Option<Box<v1::Resource>>,
}

/// What a subject says, wherever it lies.
#[derive(Clone, Copy, Debug)]
pub struct SubjectView<'a> {
    pub(super) principal_id: &'a str,
    pub(super) principal_type: i32,
    pub(super) groups: Groups<'a>,
    pub(super) attributes: &'a Attributes,
}

/// What a resource says, wherever it lies.
#[derive(Clone, Copy, Debug)]
pub struct ResourceView<'a> {
    pub(super) scope: &'a str,
    pub(super) attributes: &'a Attributes,
}

/// What a question says, wherever it lies. In a batch, what it says itself.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub(super) subject: Option<SubjectView<'a>>,
    pub(super) action: Option<Action<'a>>,
    pub(super) resource: Option<ResourceView<'a>>,
    pub(super) request_attributes: &'a Attributes,
    pub(super) environment_attributes: &'a Attributes,
    pub(super) request_id: &'a str,
    pub(super) agent: Option<&'a v1::AgentContext>,
}

/// What a batch says, wherever it lies.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    pub(super) subject: Option<SubjectView<'a>>,
    pub(super) items: usize,
    pub(super) environment_attributes: &'a Attributes,
    pub(super) request_id: &'a str,
}

/// Bytes that are no message of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable(Malformed);

// === reading ===

impl<'a> CheckRequest<'a> {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let mut message = Self::default();
        message.merge(Fields::new(bytes))?;
        Ok(message)
    }

    fn merge(&mut self, mut fields: Fields<'a>) -> Result<(), Unreadable> {
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.subject.get_or_insert_default().merge(field.message()?)?,
                2 => self.action.get_or_insert_default().merge(field.message()?)?,
                3 => self.resource.get_or_insert_default().merge(field.message()?)?,
                4 | 5 | 7 => owned(&mut self.rest, field)?,
                6 => self.request_id = field.text()?,
                _ => field.skip()?,
            }
        }
        Ok(())
    }

    /// What it says.
    pub fn view(&self) -> View<'_> {
        let rest = self.rest.as_deref();
        View {
            subject: self.subject.as_ref().map(Subject::view),
            action: self.action,
            resource: self.resource.as_ref().map(Resource::view),
            request_attributes: rest.map_or(&NONE, |rest| &rest.request_attributes),
            environment_attributes: rest.map_or(&NONE, |rest| &rest.environment_attributes),
            request_id: self.request_id,
            agent: rest.and_then(|rest| rest.agent.as_ref()),
        }
    }
}

impl<'a> BatchCheckRequest<'a> {
    /// Reads a message.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let mut message = Self::default();
        let mut fields = Fields::new(bytes);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => message.subject.get_or_insert_default().merge(field.message()?)?,
                2 => message.items.push(BatchCheckItem::read(field.message()?)?),
                3 => owned(&mut message.rest, field)?,
                4 => message.request_id = field.text()?,
                _ => field.skip()?,
            }
        }
        Ok(message)
    }

    /// What it says beside its items.
    pub fn view(&self) -> BatchView<'_> {
        BatchView {
            subject: self.subject.as_ref().map(Subject::view),
            items: self.items.len(),
            environment_attributes: self.rest.as_deref().map_or(&NONE, |rest| &rest.environment_attributes),
            request_id: self.request_id,
        }
    }

    /// Its items, in their order.
    pub fn items(&self) -> &[BatchCheckItem<'a>] {
        &self.items
    }
}

impl<'a> BatchCheckItem<'a> {
    fn read(mut fields: Fields<'a>) -> Result<Self, Unreadable> {
        let mut item = Self::default();
        while let Some(field) = fields.next()? {
            match field.number {
                1 => item.subject.get_or_insert_default().merge(field.message()?)?,
                2 => item.action.get_or_insert_default().merge(field.message()?)?,
                3 => item.resource.get_or_insert_default().merge(field.message()?)?,
                4 | 5 => owned(&mut item.rest, field)?,
                _ => field.skip()?,
            }
        }
        Ok(item)
    }

    /// What it says itself.
    pub fn view(&self) -> View<'_> {
        let rest = self.rest.as_deref();
        View {
            subject: self.subject.as_deref().map(Subject::view),
            action: self.action,
            resource: self.resource.as_ref().map(Resource::view),
            request_attributes: rest.map_or(&NONE, |rest| &rest.request_attributes),
            environment_attributes: &NONE,
            request_id: "",
            agent: rest.and_then(|rest| rest.agent.as_ref()),
        }
    }
}

impl<'a> Subject<'a> {
    fn merge(&mut self, mut fields: Fields<'a>) -> Result<(), Unreadable> {
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.principal_id = field.text()?,
                2 => self.principal_type = field.enumeration()?,
                3 => self.group_ids.push(field.text()?),
                4 => owned(&mut self.rest, field)?,
                _ => field.skip()?,
            }
        }
        Ok(())
    }

    fn view(&self) -> SubjectView<'_> {
        SubjectView {
            principal_id: self.principal_id,
            principal_type: self.principal_type,
            groups: Groups::from(self.group_ids.as_slice()),
            attributes: self.rest.as_deref().map_or(&NONE, |rest| &rest.attributes),
        }
    }
}

impl<'a> Action<'a> {
    fn merge(&mut self, mut fields: Fields<'a>) -> Result<(), Unreadable> {
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.name = field.text()?,
                2 => self.data_action = field.boolean()?,
                3 => self.sub_operation = field.text()?,
                _ => field.skip()?,
            }
        }
        Ok(())
    }
}

impl<'a> Resource<'a> {
    fn merge(&mut self, mut fields: Fields<'a>) -> Result<(), Unreadable> {
        while let Some(field) = fields.next()? {
            match field.number {
                1 => self.scope = field.text()?,
                2 => owned(&mut self.rest, field)?,
                _ => field.skip()?,
            }
        }
        Ok(())
    }

    fn view(&self) -> ResourceView<'_> {
        ResourceView {
            scope: self.scope,
            attributes: self.rest.as_deref().map_or(&NONE, |rest| &rest.attributes),
        }
    }
}

/// Has prost read a field, into a message of which only such fields are used.
#[cold]
fn owned<M: Message + Default>(rest: &mut Option<Box<M>>, field: Field<'_, '_>) -> Result<(), Unreadable> {
    let bytes = field.raw()?;
    // What lies deeper than it may is all that is left to be wrong with what was passed over.
    rest.get_or_insert_default().merge(bytes).map_err(|_| Unreadable(Malformed::WrongKind))
}

// === messages of prost ===

impl<'a> From<&'a v1::CheckRequest> for View<'a> {
    fn from(wire: &'a v1::CheckRequest) -> Self {
        Self {
            subject: wire.subject.as_ref().map(SubjectView::from),
            action: wire.action.as_ref().map(Action::from),
            resource: wire.resource.as_ref().map(ResourceView::from),
            request_attributes: &wire.request_attributes,
            environment_attributes: &wire.environment_attributes,
            request_id: &wire.request_id,
            agent: wire.agent.as_ref(),
        }
    }
}

impl<'a> From<&'a v1::BatchCheckRequest> for BatchView<'a> {
    fn from(wire: &'a v1::BatchCheckRequest) -> Self {
        Self {
            subject: wire.subject.as_ref().map(SubjectView::from),
            items: wire.items.len(),
            environment_attributes: &wire.environment_attributes,
            request_id: &wire.request_id,
        }
    }
}

impl<'a> From<&'a v1::BatchCheckItem> for View<'a> {
    fn from(wire: &'a v1::BatchCheckItem) -> Self {
        Self {
            subject: wire.subject.as_ref().map(SubjectView::from),
            action: wire.action.as_ref().map(Action::from),
            resource: wire.resource.as_ref().map(ResourceView::from),
            request_attributes: &wire.request_attributes,
            environment_attributes: &NONE,
            request_id: "",
            agent: wire.agent.as_ref(),
        }
    }
}

impl<'a> From<&'a CheckRequest<'a>> for View<'a> {
    fn from(message: &'a CheckRequest<'a>) -> Self {
        message.view()
    }
}

impl<'a> From<&'a v1::Subject> for SubjectView<'a> {
    fn from(wire: &'a v1::Subject) -> Self {
        Self {
            principal_id: &wire.principal_id,
            principal_type: wire.principal_type,
            groups: Groups::from(wire.group_ids.as_slice()),
            attributes: &wire.attributes,
        }
    }
}

impl<'a> From<&'a v1::Action> for Action<'a> {
    fn from(wire: &'a v1::Action) -> Self {
        Self { name: &wire.name, data_action: wire.data_action, sub_operation: &wire.sub_operation }
    }
}

impl<'a> From<&'a v1::Resource> for ResourceView<'a> {
    fn from(wire: &'a v1::Resource) -> Self {
        Self { scope: &wire.scope, attributes: &wire.attributes }
    }
}

impl From<Malformed> for Unreadable {
    fn from(error: Malformed) -> Self {
        Self(error)
    }
}

impl From<Unreadable> for Status {
    /// As tonic tells a caller whose message prost cannot read.
    fn from(Unreadable(error): Unreadable) -> Self {
        Self::internal(format!("the request cannot be read: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use proptest::prelude::*;

    use super::*;

    /// What a question says, with the ids of groups by themselves: they lie differently.
    fn said(view: View<'_>) -> impl PartialEq + Debug + use<> {
        let subject = |subject: SubjectView<'_>| {
            let ids: Vec<String> = subject.groups.iter().map(str::to_owned).collect();
            let id = subject.principal_id.to_owned();
            (id, subject.principal_type, ids, subject.attributes.clone())
        };
        (
            view.subject.map(subject),
            view.action
                .map(|action| (action.name.to_owned(), action.data_action, action.sub_operation.to_owned())),
            view.resource.map(|resource| (resource.scope.to_owned(), resource.attributes.clone())),
            view.request_attributes.clone(),
            view.environment_attributes.clone(),
            view.request_id.to_owned(),
            view.agent.cloned(),
        )
    }

    fn whole(batch: BatchView<'_>) -> View<'_> {
        let BatchView { subject, items: _, environment_attributes, request_id } = batch;
        let (action, resource, agent) = (None, None, None);
        let request_attributes = &*NONE;
        View { subject, action, resource, request_attributes, environment_attributes, request_id, agent }
    }

    /// Both readers make the same of bytes, or neither makes anything of them.
    fn compare(bytes: &[u8]) {
        match (v1::CheckRequest::decode(bytes), CheckRequest::read(bytes)) {
            (Ok(wire), Ok(message)) => assert_eq!(said(View::from(&wire)), said(message.view())),
            (Err(_), Err(_)) => {}
            (wire, message) => panic!("{wire:?}\n{message:?}"),
        }
        match (v1::BatchCheckRequest::decode(bytes), BatchCheckRequest::read(bytes)) {
            (Ok(wire), Ok(message)) => {
                let (ours, theirs) = (message.view(), BatchView::from(&wire));
                assert_eq!(ours.items, theirs.items);
                assert_eq!(said(whole(ours)), said(whole(theirs)));
                let ours: Vec<_> = message.items().iter().map(|item| said(item.view())).collect();
                let theirs: Vec<_> = wire.items.iter().map(|item| said(View::from(item))).collect();
                assert_eq!(ours, theirs);
            }
            (Err(_), Err(_)) => {}
            (wire, message) => panic!("{wire:?}\n{message:?}"),
        }
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![Just(String::new()), "[a-zé]{1,6}", "[a-z]{126,130}"]
    }

    fn attributes() -> impl Strategy<Value = Attributes> {
        use v1::attribute_value::Value;

        let scalar = prop_oneof![
            Just(None),
            text().prop_map(|text| Some(Value::Text(text))),
            any::<i64>().prop_map(|number| Some(Value::Number(number))),
            any::<bool>().prop_map(|boolean| Some(Value::Boolean(boolean))),
        ]
        .prop_map(|value| v1::AttributeValue { value });
        let list = prop::collection::vec(scalar.clone(), 0..3)
            .prop_map(|values| v1::AttributeValue { value: Some(Value::List(v1::AttributeList { values })) });
        prop::collection::hash_map(text(), prop_oneof![3 => scalar, 1 => list], 0..3)
    }

    fn subject() -> impl Strategy<Value = v1::Subject> {
        (text(), any::<i32>(), prop::collection::vec(text(), 0..20), attributes()).prop_map(
            |(principal_id, principal_type, group_ids, attributes)| v1::Subject {
                principal_id,
                principal_type,
                group_ids,
                attributes,
            },
        )
    }

    prop_compose! {
        fn question()(
            subject in prop::option::of(subject()),
            action in prop::option::of((text(), any::<bool>(), text())),
            resource in prop::option::of((text(), attributes())),
            request_attributes in attributes(),
            environment_attributes in attributes(),
            request_id in text(),
            agent in prop::option::of((any::<i32>(), prop::option::of(subject()))),
        ) -> v1::CheckRequest {
            v1::CheckRequest {
                subject,
                action: action.map(|(name, data_action, sub_operation)| {
                    v1::Action { name, data_action, sub_operation }
                }),
                resource: resource.map(|(scope, attributes)| v1::Resource { scope, attributes }),
                request_attributes,
                environment_attributes,
                request_id,
                agent: agent.map(|(mode, on_behalf_of)| {
                    v1::AgentContext { mode, on_behalf_of, ..Default::default() }
                }),
            }
        }
    }

    fn batch() -> impl Strategy<Value = v1::BatchCheckRequest> {
        (question(), prop::collection::vec(question(), 0..4)).prop_map(|(whole, items)| {
            let item = |question: v1::CheckRequest| v1::BatchCheckItem {
                subject: question.subject,
                action: question.action,
                resource: question.resource,
                request_attributes: question.request_attributes,
                agent: question.agent,
            };
            v1::BatchCheckRequest {
                subject: whole.subject,
                items: items.into_iter().map(item).collect(),
                environment_attributes: whole.environment_attributes,
                request_id: whole.request_id,
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Two messages behind each other are one: what is single is replaced or merged, what is many goes on.
        #[test]
        fn messages_and_their_ruins(
            first in prop_oneof![
                question().prop_map(|message| message.encode_to_vec()),
                batch().prop_map(|message| message.encode_to_vec()),
            ],
            second in question().prop_map(|message| message.encode_to_vec()),
            both in any::<bool>(),
            ruins in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut bytes = first;
            if both {
                bytes.extend(second);
            }
            for (at, byte) in ruins {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            compare(&bytes);
        }

        #[test]
        fn anything(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            compare(&bytes);
        }
    }

    #[test]
    fn tags_numbers_and_groups_at_their_bounds() {
        for bytes in [
            // Field 0, a kind that is none, an end without its group.
            &[0x00][..],
            &[0x0e],
            &[0x54],
            // A group of an unknown field: whole, nested, cut off, ended by another one.
            &[0x53, 0x08, 0x01, 0x54],
            &[0x53, 0x5b, 0x5c, 0x54],
            &[0x53, 0x08],
            &[0x53, 0x5c],
            // The largest number of a field, and one beyond.
            &[0xf8, 0xff, 0xff, 0xff, 0x0f, 0x00],
            &[0xf8, 0xff, 0xff, 0xff, 0x1f, 0x00],
            // Ten bytes of a number: the last one may be 1.
            &[0x50, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x50, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[0x50, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
            // A short number in more bytes than it needs.
            &[0x50, 0x81, 0x00],
            // A text that is not UTF-8, one that is longer than what is there, and one of another kind.
            &[0x32, 0x01, 0xff],
            &[0x32, 0x05, b'a'],
            &[0x30, 0x01],
            // Fields of fixed length that nobody knows.
            &[0x51, 1, 2, 3, 4, 5, 6, 7, 8],
            &[0x55, 1, 2, 3, 4],
            &[0x55, 1, 2, 3],
        ] {
            compare(bytes);
        }
    }

    #[test]
    fn groups_in_groups_end_somewhere() {
        let deep = |depth: usize| [vec![0x53; depth], vec![0x54; depth]].concat();
        compare(&deep(50));
        assert!(CheckRequest::read(&deep(50)).is_ok());
        compare(&deep(1000));
        assert!(CheckRequest::read(&deep(1000)).is_err());
    }
}
