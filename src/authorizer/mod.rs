//! The policy decision point: one snapshot, the cache where it pays, the evaluation. Synchronous and short, so the
//! caller may run it on the thread that decodes requests.
//!
//! For an agent the checks are joined by its flow ([`agents`]); the cache holds the ordinary checks it is made of,
//! never the flow itself. Imports `agent`, `policy`, `snapshot`, `cache`, `clock` and `model`; knows no protobuf.

mod agents;
mod freshness;

use std::sync::Arc;

pub use freshness::{ByPlane, FreshnessRules, WhenOld};
use jiff::Timestamp;

use crate::cache::{CachePolicy, DecisionCache};
use crate::clock::Clock;
use crate::model::{
    AgentContext, CheckRequest, Decision, ExecutedAs, Explanation, PermissionList, PermissionQuery,
    PrincipalList, PrincipalQuery, Step, StepKind, StepState, Undecided, Why,
};
use crate::policy::{Evaluation, Prepared};
use crate::snapshot::{ActiveSnapshot, PolicyReader, Snapshot};

/// How the PDP caches.
#[derive(Clone, Copy, Debug)]
pub struct CacheSettings {
    /// When the cache is asked.
    pub policy: CachePolicy,
    /// Bytes it may hold, keys included.
    pub max_bytes: u64,
}

/// What the cache can have to do with an answer.
pub const CACHE_NAMES: [&str; 3] = ["hit", "miss", "bypass"];

/// The decision point. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Authorizer {
    reader: PolicyReader,
    cache: Arc<DecisionCache>,
    clock: Clock,
    rules: FreshnessRules,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The decision.
    pub evaluation: Evaluation,
    /// Whether it came from the cache.
    pub cached: bool,
    /// Whether the cache was asked for it.
    pub cache_asked: bool,
    /// What would lead to the action, or led to it, in order: the prompts of an agent, or a role to activate. Empty
    /// where there is nothing to do but what the decision says.
    pub steps: Vec<Step>,
    /// For an agent whose action may be done: with whose rights.
    pub executed_as: Option<ExecutedAs>,
}

/// Why a request is answered as it is.
#[derive(Clone, Debug)]
pub struct Explained {
    /// What [`Authorizer::check`] answers, evaluated anew: for an agent the reason, the steps and whose rights of its
    /// flow.
    pub answer: Answer,
    /// What the rights of the subject give, without the flow of an agent.
    pub subject: Explanation,
    /// The same for the user on whose behalf an agent asks.
    pub on_behalf_of: Option<Explanation>,
}

impl Answer {
    /// What the cache had to do with it: `hit`, `miss` or `bypass`.
    pub const fn cache_name(&self) -> &'static str {
        let [hit, miss, bypass] = CACHE_NAMES;
        match (self.cached, self.cache_asked) {
            (true, _) => hit,
            (false, true) => miss,
            (false, false) => bypass,
        }
    }

    /// The place of [`Self::cache_name`] among [`CACHE_NAMES`].
    pub const fn cache_use(&self) -> usize {
        match (self.cached, self.cache_asked) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        }
    }
}

impl Authorizer {
    /// A decision point over the active policy of a cell.
    pub fn new(reader: PolicyReader, cache: CacheSettings, clock: Clock) -> Self {
        let cache = Arc::new(DecisionCache::new(cache.policy, cache.max_bytes));
        Self { reader, cache, clock, rules: FreshnessRules::default() }
    }

    /// The same, answering by a policy that is no longer fresh as the rules say. Without them it answers everything.
    pub fn with_freshness(self, rules: FreshnessRules) -> Self {
        Self { rules, ..self }
    }

    /// The active snapshot: load it once per request or batch and hand it to every [`Authorizer::check`], so that
    /// all of it is decided by, and names, one policy.
    pub fn snapshot(&self) -> ActiveSnapshot {
        self.reader.load()
    }

    /// Decides one request under one snapshot. A subject that the policy describes as an agent's identity is held to
    /// the agent's mode and boundary, whether the request has a `context` or not (semantics, section 6).
    ///
    /// # Errors
    ///
    /// [`Undecided`] when the policy does not suffice to decide; never cached.
    #[inline]
    pub fn check(
        &self,
        snapshot: &Snapshot,
        request: &CheckRequest<'_>,
        context: Option<&AgentContext<'_>>,
    ) -> Result<Answer, Undecided> {
        // One check, one time: for schedules and conditions, and for every check that an agent's is made of.
        self.check_at(snapshot, request, context, self.clock.now())
    }

    /// Explains one request under one snapshot: the answer of [`Authorizer::check`] at the same moment, and what it
    /// is made of. Evaluates anew, never from the cache.
    ///
    /// # Errors
    ///
    /// As [`Authorizer::check`]; also where an agent's flow ends before the rights of subject and user are looked at,
    /// but they could not be decided.
    pub fn explain(
        &self,
        snapshot: &Snapshot,
        request: &CheckRequest<'_>,
        context: Option<&AgentContext<'_>>,
    ) -> Result<Explained, Undecided> {
        let now = self.clock.now();
        let cache = DecisionCache::new(CachePolicy::Off, 0);
        let anew = Self { cache: Arc::new(cache), ..self.clone() };
        let answer = anew.check_at(snapshot, request, context, now)?;
        let subject = snapshot.policy.explain(request, now)?;
        let user = context.and_then(|context| context.user_request(request));
        let on_behalf_of = user.map(|user| snapshot.policy.explain(&user, now)).transpose()?;
        Ok(Explained { answer, subject, on_behalf_of })
    }

    /// Lists what a subject may do at a scope, at a time that [`Authorizer::now`] gave. Says nothing of the flow of
    /// agents.
    ///
    /// # Errors
    ///
    /// [`Undecided`] when the policy does not suffice.
    pub fn list_permissions(
        &self,
        snapshot: &Snapshot,
        query: &PermissionQuery<'_>,
        now: Timestamp,
    ) -> Result<PermissionList, Undecided> {
        snapshot.policy.list_permissions(query, now)
    }

    /// Lists who may do an action at a scope, at a time that [`Authorizer::now`] gave.
    ///
    /// # Errors
    ///
    /// [`Undecided`] when the policy does not suffice.
    pub fn list_principals(
        &self,
        snapshot: &Snapshot,
        query: &PrincipalQuery<'_>,
        now: Timestamp,
    ) -> Result<PrincipalList, Undecided> {
        snapshot.policy.list_principals(query, now)
    }

    /// The time that decisions are made at.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// As [`Authorizer::check`], at a time that the caller knows: what is recorded, or asked again later.
    ///
    /// # Errors
    ///
    /// As [`Authorizer::check`].
    #[inline]
    pub fn check_at(
        &self,
        snapshot: &Snapshot,
        request: &CheckRequest<'_>,
        context: Option<&AgentContext<'_>>,
        now: Timestamp,
    ) -> Result<Answer, Undecided> {
        self.check_prepared(snapshot, request, context, now, None)
    }

    /// As [`Authorizer::check_at`], of a subject that was prepared ([`Policy::prepare`](crate::policy::Policy::prepare)):
    /// it must be that of the request. By another policy than the one that prepared it, it is decided all the same.
    ///
    /// # Errors
    ///
    /// As [`Authorizer::check`].
    #[inline]
    pub fn check_prepared(
        &self,
        snapshot: &Snapshot,
        request: &CheckRequest<'_>,
        context: Option<&AgentContext<'_>>,
        now: Timestamp,
        subject: Option<&Prepared>,
    ) -> Result<Answer, Undecided> {
        self.rules.admit(snapshot, request, now)?;
        let agent = snapshot.policy.agent(request.subject.principal)?;
        let mut answer = if agent.is_some() || context.is_some() {
            self.check_agent(snapshot, request, now, agent, context)?
        } else {
            self.check_own(snapshot, request, now, subject)?
        };
        if let Some(end) = self.rules.end(snapshot, request) {
            let until = &mut answer.evaluation.valid_until;
            *until = Some(until.map_or(end, |until| until.min(end)));
        }
        Ok(answer)
    }

    /// Of a subject that is no agent: what it may, and what would help where it may not.
    #[inline]
    fn check_own(
        &self,
        snapshot: &Snapshot,
        request: &CheckRequest<'_>,
        now: Timestamp,
        subject: Option<&Prepared>,
    ) -> Result<Answer, Undecided> {
        let mut answer = self.check_ordinary(snapshot, request, now, subject)?;
        if let Decision::NotAllowed(Why::Eligible(eligibility)) = answer.evaluation.decision {
            let activation = snapshot.policy.activation(eligibility).ok_or(Undecided::DamagedPolicy)?;
            answer.steps.push(Step::new(StepKind::ActivateRole(Box::new(activation)), StepState::Next));
        }
        Ok(answer)
    }

    #[inline]
    fn check_ordinary(
        &self,
        snapshot: &Snapshot,
        request: &CheckRequest<'_>,
        now: Timestamp,
        subject: Option<&Prepared>,
    ) -> Result<Answer, Undecided> {
        let evaluate = || match subject {
            Some(subject) => snapshot.policy.evaluate_prepared(request, subject, now),
            None => snapshot.policy.evaluate(request, now),
        };
        let cache_asked = self.cache.serves(request);
        let answer = |evaluation, cached| Answer {
            evaluation,
            cached,
            cache_asked,
            steps: Vec::new(),
            executed_as: None,
        };
        if !cache_asked {
            return Ok(answer(evaluate()?, false));
        }
        let uses = snapshot.policy.uses();
        if let Some(evaluation) = self.cache.get(snapshot.generation, uses, request, now) {
            return Ok(answer(evaluation, true));
        }
        let evaluation = evaluate()?;
        self.cache.insert(snapshot.generation, uses, request, &evaluation, now);
        Ok(answer(evaluation, false))
    }

    /// Entries and bytes in the cache, as of its last housekeeping.
    pub fn cache_size(&self) -> (u64, u64) {
        self.cache.size()
    }
}
