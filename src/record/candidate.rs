//! The policy that might be next: a share of the live questions is asked of it again, at the same time, and only what
//! it answers otherwise is recorded.

use std::sync::Arc;

use crate::authorizer::{Answer, Authorizer, CacheSettings};
use crate::cache::CachePolicy;
use crate::clock::Clock;
use crate::model::Undecided;
use crate::policy::Policy;
use crate::snapshot::{self, Snapshot};

use super::entry::{Item, Question};
use super::render::Steps;
use super::settings::Outcome;

/// A policy beside the live one.
#[derive(Debug)]
pub struct Candidate {
    authorizer: Authorizer,
    /// What it decides by.
    pub snapshot: Arc<Snapshot>,
}

/// What two answers to one question have to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The caller may do the same, and has to do the same for it.
    Same,
    /// Something else.
    Different,
}

// === impls ===

impl Candidate {
    /// Decides by a policy, without a cache.
    pub fn new(policy: Policy) -> Self {
        let (mut writer, reader) = snapshot::cell();
        let clock = Clock::system();
        let (snapshot, _none) = writer.activate(policy, 0, clock.now());
        let cache = CacheSettings { policy: CachePolicy::Off, max_bytes: 0 };
        Self { authorizer: Authorizer::new(reader, cache, clock), snapshot }
    }

    /// What decides.
    pub const fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    /// Asks a live question again, at its time. `None` for one that cannot be read again.
    pub(super) fn ask(&self, question: &dyn Question, item: &Item) -> Option<Result<Answer, Undecided>> {
        let mut said = None;
        question.ask(item.index.unwrap_or_default(), &mut |request, context| {
            said = Some(self.authorizer.check_at(&self.snapshot, request, context, item.at));
        });
        said
    }
}

/// Whether two answers come to the same for the caller: the decision, whose rights, and the steps. Which of several
/// role assignments grants does not matter to it, nor the code of why nothing does.
pub fn compare(
    (outcome, executed_as, steps): (Outcome, Option<&str>, &str),
    now: &Result<Answer, Undecided>,
) -> Comparison {
    let (now_executed_as, now_steps) = match now {
        Ok(answer) => (answer.executed_as.map(|whose| whose.name()), Steps(&answer.steps).to_string()),
        Err(_) => (None, String::new()),
    };
    if (outcome, executed_as, steps) == (Outcome::of(now), now_executed_as, now_steps.as_str()) {
        Comparison::Same
    } else {
        Comparison::Different
    }
}
