//! Answers of checks, written straight into the bytes of the message: ids and sentences go from the policy into one text
//! and from there into the answer, and nothing is owned in between.

use prost::Message;

use crate::authorizer::{Answer, Authorizer};
use crate::model::{Decision, DenyHit, ExecutedAs};
use crate::proto::v1;
use crate::snapshot::Snapshot;
use crate::wire::{put_bytes, put_number, put_text};

use super::convert::{self, Asked};

/// Most answers are shorter.
pub(super) const USUAL_LENGTH: usize = 1024;
/// Most ids and sentences are shorter.
const USUAL_TEXT: usize = 256;

/// Writes answers, one after the other.
pub(super) struct Writer<'s> {
    snapshot: &'s Snapshot,
    /// The text that is being written.
    text: String,
}

impl<'s> Writer<'s> {
    /// Of one policy.
    pub(super) fn new(snapshot: &'s Snapshot) -> Self {
        Self { snapshot, text: String::with_capacity(USUAL_TEXT) }
    }

    /// The fields of `CheckResult`.
    pub(super) fn result(&mut self, out: &mut Vec<u8>, asked: &Asked<'_>, answer: &Answer) {
        let (policy, evaluation) = (&self.snapshot.policy, &answer.evaluation);
        let decision = match evaluation.decision {
            Decision::Allowed(_) => v1::Decision::Allowed,
            Decision::NotAllowed(_) => v1::Decision::NotAllowed,
            Decision::Denied(_) => v1::Decision::Denied,
        };
        enumeration(out, 1, decision as i32);
        enumeration(out, 2, convert::reason_code(evaluation.decision.reason_code()) as i32);
        let snapshot = self.snapshot;
        self.text(out, 3, |text| reason(snapshot, asked, answer, text));
        match evaluation.decision {
            Decision::Allowed(grant) => {
                self.text(out, 4, |text| policy.write_role_assignment_id(grant, text));
                self.text(out, 5, |text| policy.write_role_definition_id(grant, text));
            }
            Decision::Denied(hit) => self.deny(out, 6, hit),
            Decision::NotAllowed(_) => {}
        }
        for hit in &evaluation.audited {
            self.deny(out, 7, *hit);
        }
        if let Some(until) = evaluation.valid_until {
            put_bytes(out, 8, &convert::timestamp(until).encode_to_vec());
        }
        put_number(out, 9, u64::from(answer.cached));
        for step in &answer.steps {
            put_bytes(out, 10, &convert::step(step).encode_to_vec());
        }
        let executed_as = match (evaluation.decision, answer.executed_as) {
            (Decision::Allowed(_), Some(ExecutedAs::Agent)) => v1::ExecutedAs::Agent,
            (Decision::Allowed(_), Some(ExecutedAs::User)) => v1::ExecutedAs::User,
            _ => v1::ExecutedAs::Unspecified,
        };
        enumeration(out, 11, executed_as as i32);
    }

    fn deny(&mut self, out: &mut Vec<u8>, number: u32, hit: DenyHit) {
        let policy = &self.snapshot.policy;
        self.text(out, number, |text| policy.write_deny_assignment_id(hit, text));
    }

    fn text(&mut self, out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut String)) {
        self.text.clear();
        write(&mut self.text);
        put_text(out, number, &self.text);
    }
}

/// The fields of `PolicyIdentity`.
pub(super) fn identity(out: &mut Vec<u8>, authorizer: &Authorizer, snapshot: &Snapshot) {
    let (freshness, age_seconds) = convert::age(authorizer, snapshot);
    put_number(out, 1, snapshot.serial);
    put_text(out, 2, snapshot.policy.digest());
    put_number(out, 3, snapshot.generation);
    enumeration(out, 4, freshness as i32);
    put_number(out, 5, age_seconds);
}

/// Why it was decided so, in words.
pub(super) fn reason(snapshot: &Snapshot, asked: &Asked<'_>, answer: &Answer, out: &mut String) {
    let (policy, decision) = (&snapshot.policy, &answer.evaluation.decision);
    let as_user = match (answer.executed_as, &asked.agent) {
        (Some(ExecutedAs::User), Some(agent)) => agent.user_request(&asked.request),
        _ => None,
    };
    match &as_user {
        Some(user) => {
            out.push_str("with the rights of the user who asks: ");
            policy.write_reason(user, decision, out);
        }
        None => policy.write_reason(&asked.request, decision, out),
    }
}

fn enumeration(out: &mut Vec<u8>, number: u32, value: i32) {
    put_number(out, number, u64::try_from(value).unwrap_or_default());
}
