//! An entry as JSON: one object on one line. Runs on the writer's thread.

use std::fmt;

use crate::authorizer::Answer;
use crate::model::{
    AttributeBag, Decision, Freshness, Groups, OwnedValue, Step, StepKind, Undecided, Value, Why,
};
use crate::snapshot::Snapshot;

use super::entry::{Entry, Item, Question};
use super::json::{Json, LastTime};
use super::mask::{Field, Hasher, Masks, Verb};
use super::names::field;
use super::settings::Outcome;
use super::tally::Kind;

/// A question on its way into a record: whoever knows its form says what is there, the masks say what is shown.
#[derive(Debug)]
pub struct Shown<'o, 'm> {
    json: Json<'o>,
    masks: &'m Masks,
    hasher: &'m Hasher,
    /// Fields that were hashed or dropped, as bits.
    masked: u64,
}

/// The steps of an answer as one text, to compare by: `approval_prompt=done,execute_as_agent=next`.
#[derive(Debug)]
pub struct Steps<'s>(pub &'s [Step]);

/// What the candidate said of a question.
#[derive(Debug)]
pub(super) struct Said<'s> {
    pub(super) outcome: &'s Result<Answer, Undecided>,
    pub(super) snapshot: &'s Snapshot,
}

/// What one record after the other has in common, spelled out once.
#[derive(Debug, Default)]
pub(super) struct Common {
    time: LastTime,
    /// The active policy, by its generation.
    policy: Option<(u64, Freshness, Vec<u8>)>,
}

// === impl Shown ===

impl Shown<'_, '_> {
    /// Begins an object below the one that is open.
    pub fn open(&mut self, name: &str) {
        self.json.key(name);
        self.json.open();
    }

    /// Ends it.
    pub fn close(&mut self) {
        self.json.close();
    }

    /// A text; an empty one is as good as none.
    pub fn text(&mut self, field: Field, name: &str, text: &str) {
        self.hashed_text(field, name, text, Hasher::text);
    }

    /// An object id.
    pub fn id(&mut self, field: Field, name: &str, id: &str) {
        self.hashed_text(field, name, id, Hasher::id);
    }

    fn hashed_text(&mut self, field: Field, name: &str, text: &str, hash: fn(&Hasher, &str) -> String) {
        if text.is_empty() {
            return;
        }
        match self.verb(field) {
            Verb::Keep => self.json.member(name, text),
            Verb::Hash => self.json.member(name, &hash(self.hasher, text)),
            Verb::Drop => {}
        }
    }

    /// A truth value.
    pub fn flag(&mut self, field: Field, name: &str, value: bool) {
        match self.verb(field) {
            Verb::Keep => self.json.plain_member(name, value),
            Verb::Hash => self.json.member(name, &self.hasher.text(if value { "true" } else { "false" })),
            Verb::Drop => {}
        }
    }

    /// Object ids.
    pub fn ids(&mut self, field: Field, name: &str, ids: Groups<'_>) {
        if ids.is_empty() {
            return;
        }
        let verb = self.verb(field);
        if verb == Verb::Drop {
            return;
        }
        self.json.key(name);
        self.json.open_list();
        for id in ids.iter() {
            if verb == Verb::Hash {
                self.json.string(&self.hasher.id(id));
            } else {
                self.json.string(id);
            }
        }
        self.json.close_list();
    }

    /// Attributes by name.
    pub fn attributes(&mut self, field: Field, name: &str, attributes: &dyn AttributeBag) {
        let mut opened = false;
        let _all = attributes.visit(&mut |key, value| {
            let verb = self.masks.attribute(field, key);
            if verb != Verb::Keep {
                self.note(field);
            }
            if verb != Verb::Drop {
                if !opened {
                    opened = true;
                    self.json.key(name);
                    self.json.open();
                }
                self.json.key(key);
                if verb == Verb::Hash {
                    let text = match value {
                        Value::Text(text) => self.hasher.text(text),
                        other => self.hasher.text(&OwnedValue::from(other).to_string()),
                    };
                    self.json.string(&text);
                } else {
                    write_value(&mut self.json, value);
                }
            }
            std::ops::ControlFlow::Continue(())
        });
        if opened {
            self.json.close();
        }
    }

    fn verb(&mut self, field: Field) -> Verb {
        let verb = self.masks.field(field);
        if verb != Verb::Keep {
            self.note(field);
        }
        verb
    }

    fn note(&mut self, field: Field) {
        self.masked |= 1_u64 << (field as u32);
    }
}

fn write_value(json: &mut Json<'_>, value: Value<'_>) {
    match value {
        Value::Missing | Value::Other => json.plain("null"),
        Value::Text(text) => json.string(text),
        Value::Number(number) => json.plain(number),
        Value::Boolean(boolean) => json.plain(boolean),
        Value::List(list) => {
            json.open_list();
            for index in 0..list.count() {
                write_value(json, list.at(index));
            }
            json.close_list();
        }
        Value::Dictionary(bag) => {
            json.open();
            let _all = bag.visit(&mut |key, value| {
                json.key(key);
                write_value(json, value);
                std::ops::ControlFlow::Continue(())
            });
            json.close();
        }
    }
}

// === records ===

/// Writes one record and a line break behind what is there.
pub(super) fn render(
    (masks, hasher): (&Masks, &Hasher),
    common: &mut Common,
    (entry, question): (&Entry, &dyn Question),
    item: &Item,
    said: Option<&Said<'_>>,
    out: &mut Vec<u8>,
) {
    let kind = if said.is_some() { Kind::Difference } else { Kind::Decision };
    let call = &*entry.call;
    let mut json = Json::new(out);
    json.open();
    json.time_member(field::TIME, item.at, &mut common.time);
    json.member(field::KIND, kind.name());
    let request_id = question.request_id();
    let mut masked = 0;
    if !request_id.is_empty() {
        match masks.field(Field::RequestId) {
            Verb::Keep => json.member(field::REQUEST_ID, request_id),
            verb => {
                masked |= 1_u64 << (Field::RequestId as u32);
                if verb == Verb::Hash {
                    json.member(field::REQUEST_ID, &hasher.text(request_id));
                }
            }
        }
    }
    if entry.trace.trace != 0 {
        json.hex_member::<32>(field::TRACE_ID, entry.trace.trace);
        json.hex_member::<16>(field::SPAN_ID, u128::from(entry.trace.span));
        json.plain_member(field::SAMPLED, entry.trace.sampled);
    }
    json.member(field::TRANSPORT, entry.transport);
    json.member(field::METHOD, call.method());
    if let (Some(id), Some(items)) = (entry.batch_id, call.batch_items()) {
        json.hex_member::<32>(field::BATCH_ID, id);
        if let Some(index) = item.index {
            json.plain_member(field::BATCH_INDEX, index);
        }
        json.plain_member(field::BATCH_ITEMS, items);
    }
    if let Some((stream, question)) = question.streamed(item.index.unwrap_or_default()) {
        json.hex_member::<32>(field::STREAM_ID, stream);
        json.plain_member(field::QUESTION_ID, question);
    }
    // A batch that could not be decided as a whole was not read further.
    if item.index.is_some() || call.batch_items().is_none() {
        json.key(field::REQUEST);
        json.open();
        let mut shown = Shown { json, masks, hasher, masked };
        question.write(item.index.unwrap_or_default(), &mut shown);
        (json, masked) = (shown.json, shown.masked);
        json.close();
    }
    if masked != 0 {
        json.key(field::MASKED);
        json.open_list();
        for field in Field::ALL.iter().filter(|field| masked & (1_u64 << (**field as u32)) != 0) {
            json.string(field.path());
        }
        json.close_list();
    }
    let hide_places = masks.field(Field::Scope) != Verb::Keep;
    answer(&mut json, &item.outcome, entry.snapshot.as_deref(), hide_places);
    if let Some(snapshot) = &entry.snapshot {
        json.key(field::POLICY);
        json.raw(common.policy(snapshot, item.freshness));
    }
    json.plain_member(field::DURATION_NS, item.nanos);
    if let Some(said) = said {
        json.key(field::CANDIDATE);
        json.open();
        answer(&mut json, said.outcome, Some(said.snapshot), hide_places);
        json.key(field::POLICY);
        policy(&mut json, said.snapshot, None);
        json.close();
    }
    json.close();
    out.push(b'\n');
}

fn answer(
    json: &mut Json<'_>,
    outcome: &Result<Answer, Undecided>,
    snapshot: Option<&Snapshot>,
    hide_places: bool,
) {
    json.member(field::DECISION, Outcome::of(outcome).name());
    let answer = match outcome {
        Ok(answer) => answer,
        Err(undecided) => {
            json.member(field::REASON_CODE, undecided.code());
            // It may name the subscription of the scope.
            if !(hide_places && matches!(undecided, Undecided::UnknownHierarchy { .. })) {
                json.member(field::MESSAGE, &undecided.to_string());
            }
            return;
        }
    };
    let evaluation = &answer.evaluation;
    json.member(field::REASON_CODE, evaluation.decision.reason_code().name());
    if let Some(snapshot) = snapshot {
        let policy = &snapshot.policy;
        match evaluation.decision {
            Decision::Allowed(grant) => {
                json.member(field::ROLE_ASSIGNMENT_ID, &policy.role_assignment_id(grant));
                json.member(field::ROLE_DEFINITION_ID, &policy.role_definition_id(grant));
            }
            Decision::Denied(hit) => json.member(field::DENY_ASSIGNMENT_ID, &policy.deny_assignment_id(hit)),
            Decision::NotAllowed(Why::Eligible(eligibility)) => {
                json.member(field::ELIGIBILITY_ID, &policy.eligibility_id(eligibility));
            }
            Decision::NotAllowed(_) => {}
        }
        if !evaluation.audited.is_empty() {
            json.key(field::AUDITED_DENY_ASSIGNMENT_IDS);
            json.open_list();
            for hit in &evaluation.audited {
                json.string(&policy.deny_assignment_id(*hit));
            }
            json.close_list();
        }
    }
    if !answer.steps.is_empty() {
        json.key(field::STEPS);
        json.open_list();
        for step in &answer.steps {
            json.open();
            json.member(field::STEP_KIND, step.kind.name());
            json.member(field::STEP_STATE, step.state.name());
            if let StepKind::ActivateRole(activation) = &step.kind {
                json.member(field::ROLE_DEFINITION_ID, &activation.role_definition_id);
                json.member(field::ELIGIBILITY_ID, &activation.eligibility_id);
            }
            json.close();
        }
        json.close_list();
    }
    if let Some(whose) = answer.executed_as {
        json.member(field::EXECUTED_AS, whose.name());
    }
    if let Some(until) = evaluation.valid_until {
        json.plain_member(field::VALID_UNTIL, format_args!("\"{until}\""));
    }
    json.plain_member(field::CACHED, answer.cached);
}

impl Common {
    fn policy(&mut self, snapshot: &Snapshot, freshness: Freshness) -> &[u8] {
        let of = |known: &(u64, Freshness, Vec<u8>)| (known.0, known.1) == (snapshot.generation, freshness);
        let known = self.policy.take().filter(of).unwrap_or_else(|| {
            let mut out = Vec::new();
            policy(&mut Json::new(&mut out), snapshot, Some(freshness));
            (snapshot.generation, freshness, out)
        });
        &self.policy.insert(known).2
    }
}

fn policy(json: &mut Json<'_>, snapshot: &Snapshot, freshness: Option<Freshness>) {
    json.open();
    json.plain_member(field::SERIAL, snapshot.serial);
    json.member(field::DIGEST, snapshot.policy.digest());
    // The candidate is never activated.
    if let Some(freshness) = freshness {
        json.plain_member(field::GENERATION, snapshot.generation);
        json.member(field::FRESHNESS, freshness.name());
    }
    json.close();
}

impl fmt::Display for Steps<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{}={}", step.kind.name(), step.state.name())?;
        }
        Ok(())
    }
}
