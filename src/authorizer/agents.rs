//! Checks of agents (semantics, sections 6.3 to 6.5): the ordinary checks of the agent and of the user it acts for,
//! joined by the flow of `agent`. Imports what the authorizer imports.

use jiff::Timestamp;

use super::{Answer, Authorizer};
use crate::agent::{
    Access, Actor, Agent, Answerer, Ask, Checks, Flow, Mode, Outcome, Reason, Responses, Step as FlowStep,
    UserContext, Waiting, may_use, steps,
};
use crate::model::{
    Action, AgentContext, AgentStop, CheckRequest, Decision, ExecutedAs, Groups, NoAttributes, Plane,
    PrincipalId, RequestAttributes, Scope, Step, StepKind, StepState, Subject, Undecided, Why,
};
use crate::policy::{DescribedAgent, Evaluation};
use crate::snapshot::Snapshot;

impl Authorizer {
    /// Decides for an agent. `described` is `None` where the policy describes none of this identity: then it manages
    /// nothing.
    pub(super) fn check_agent(
        &self,
        snapshot: &Snapshot,
        request: &CheckRequest<'_>,
        now: Timestamp,
        described: Option<DescribedAgent>,
        context: Option<&AgentContext<'_>>,
    ) -> Result<Answer, Undecided> {
        let Some(DescribedAgent { mut agent, options, resource, .. }) = described else {
            return Ok(stopped(AgentStop::NoManagedResourceGroups, None, None));
        };
        if context.and_then(|context| context.mode) == Some(Mode::Review) {
            agent.mode = Mode::Review;
        }
        let user = context.and_then(|context| context.on_behalf_of);
        // Agents answer no prompts and lend nothing: an agent's rights end at its own boundary and mode.
        let is_agent = |who: PrincipalId<'_>| snapshot.policy.agent(who).map(|agent| agent.is_some());
        if let Some(user) = user
            && is_agent(user.principal)?
        {
            return Ok(stopped(AgentStop::UserNotAuthorized, None, None));
        }
        let mut approval = context.and_then(|context| context.approval);
        if let Some(answer) = approval
            && is_agent(answer.by.principal)?
        {
            approval = None;
        }
        let resource = match resource.as_deref().map(Scope::parse) {
            Some(Err(_)) => return Ok(stopped(AgentStop::UserNotAuthorized, None, None)),
            Some(Ok(resource)) => Some(resource),
            None => None,
        };
        let mut checks = PolicyChecks {
            authorizer: self,
            snapshot,
            request,
            now,
            context,
            user,
            resource,
            by_agent: None,
            by_user: None,
            until: None,
        };
        // Who may not use the agent makes it do nothing; but what is outside of its boundary is told first.
        if agent.manages(request.scope) && !checks.user_may_use()? {
            let mut refused = stopped(AgentStop::UserNotAuthorized, None, None);
            refused.evaluation.valid_until = checks.until;
            return Ok(refused);
        }
        // Without a user nobody lends, and only a role holder can approve.
        let only_user_answers = matches!(agent.answerer, Answerer::AskingUser);
        let consent = context.and_then(|context| context.consent);
        let ask = Ask {
            user: user.map_or(PrincipalId::Text(""), |user| user.principal),
            action: request.action,
            target: request.scope,
            responses: Responses {
                approval: approval.filter(|_| user.is_some() || !only_user_answers),
                consent: consent.filter(|_| user.is_some()),
            },
        };
        let flow = agent.decide(&ask, &options, &mut checks)?;
        let PolicyChecks { by_agent, by_user, until, .. } = checks;
        let mut answer = answer(&agent, flow, by_agent, by_user);
        answer.evaluation.valid_until = answer.evaluation.valid_until.into_iter().chain(until).min();
        Ok(answer)
    }
}

/// The answer to a flow.
fn answer(agent: &Agent, flow: Flow, by_agent: Option<Answer>, by_user: Option<Answer>) -> Answer {
    let agent_may =
        by_agent.as_ref().is_some_and(|answer| matches!(answer.evaluation.decision, Decision::Allowed(_)));
    let steps = ordered(agent.mode, agent_may, &flow);
    let mut answer = match flow.outcome {
        Outcome::Executed(Actor::Agent) => taken(by_agent, by_user.as_ref(), ExecutedAs::Agent),
        Outcome::Executed(Actor::User) => taken(by_user, by_agent.as_ref(), ExecutedAs::User),
        // Nobody's consent lifts it: the deny assignment is the answer.
        Outcome::Refused(Reason::DenyAssignment) => {
            by_agent.map(|answer| Answer { executed_as: None, ..answer })
        }
        Outcome::Refused(reason) => Some(stopped(stop(reason), by_agent.as_ref(), by_user.as_ref())),
        Outcome::Waiting(waiting) => {
            let stop = match waiting {
                Waiting::Approval => AgentStop::ApprovalRequired,
                Waiting::OboConsent => AgentStop::OnBehalfOfRequired,
            };
            Some(stopped(stop, by_agent.as_ref(), by_user.as_ref()))
        }
    }
    .unwrap_or_else(|| stopped(AgentStop::UserNotAuthorized, None, None));
    answer.steps = steps;
    answer
}

/// An action that may be done, with the rights of the check that allowed it.
fn taken(allowed: Option<Answer>, other: Option<&Answer>, executed_as: ExecutedAs) -> Option<Answer> {
    let mut answer = allowed.filter(|answer| matches!(answer.evaluation.decision, Decision::Allowed(_)))?;
    // The other check had its part in which of the two it is.
    answer.evaluation.valid_until = earlier(&answer.evaluation, other);
    Some(Answer { executed_as: Some(executed_as), ..answer })
}

fn stopped(stop: AgentStop, by_agent: Option<&Answer>, by_user: Option<&Answer>) -> Answer {
    let evaluation = Evaluation {
        decision: Decision::NotAllowed(Why::Agent(stop)),
        audited: by_agent.map(|answer| answer.evaluation.audited.clone()).unwrap_or_default(),
        valid_until: by_agent.and_then(|answer| answer.evaluation.valid_until),
    };
    let valid_until = earlier(&evaluation, by_user);
    Answer {
        evaluation: Evaluation { valid_until, ..evaluation },
        cached: false,
        cache_asked: false,
        steps: Vec::new(),
        executed_as: None,
    }
}

fn earlier(evaluation: &Evaluation, other: Option<&Answer>) -> Option<Timestamp> {
    let other = other.and_then(|answer| answer.evaluation.valid_until);
    evaluation.valid_until.into_iter().chain(other).min()
}

const fn stop(reason: Reason) -> AgentStop {
    match reason {
        Reason::ApprovalDenied => AgentStop::ApprovalDenied,
        Reason::OboDeclined => AgentStop::OnBehalfOfDeclined,
        // A deny assignment is answered as one; this is for a flow that has none at hand.
        Reason::UserNotAuthorized | Reason::DenyAssignment => AgentStop::UserNotAuthorized,
        Reason::OutOfScope => AgentStop::OutOfScope,
        Reason::NoManagedResourceGroups => AgentStop::NoManagedResourceGroups,
    }
}

/// The steps of the cell of section 6.3: those taken, the one that comes next, those behind it.
fn ordered(mode: Mode, agent_may: bool, flow: &Flow) -> Vec<Step> {
    let kind = |step: &FlowStep| match step {
        FlowStep::ApprovalPrompt => StepKind::ApprovalPrompt,
        FlowStep::OboPrompt => StepKind::OboPrompt,
        FlowStep::ExecuteAsAgent => StepKind::ExecuteAsAgent,
        FlowStep::ExecuteAsUser => StepKind::ExecuteAsUser,
    };
    let waiting = matches!(flow.outcome, Outcome::Waiting(_));
    let last = flow.steps.len().saturating_sub(1);
    let ends = matches!(flow.outcome, Outcome::Refused(_));
    let state = |position| if position == last && !ends { StepState::Next } else { StepState::Done };
    let mut all: Vec<Step> =
        flow.steps.iter().enumerate().map(|(at, step)| Step::new(kind(step), state(at))).collect();
    if let (true, Some(action)) = (waiting, flow.kind) {
        let behind = steps(action, agent_may, mode).iter().skip(flow.steps.len());
        all.extend(behind.map(|step| Step::new(kind(step), StepState::Later)));
    }
    all
}

/// The ordinary checks under one snapshot; their answers are kept.
struct PolicyChecks<'c, 'r> {
    authorizer: &'c Authorizer,
    snapshot: &'c Snapshot,
    request: &'c CheckRequest<'r>,
    now: Timestamp,
    context: Option<&'c AgentContext<'r>>,
    user: Option<Subject<'r>>,
    /// The agent itself.
    resource: Option<Scope<'c>>,
    by_agent: Option<Answer>,
    by_user: Option<Answer>,
    /// Until when what else was asked holds: who may use the agent, and who holds a role.
    until: Option<Timestamp>,
}

impl PolicyChecks<'_, '_> {
    /// Whether the user may work with the agent at all (semantics, section 6.1).
    fn user_may_use(&mut self) -> Result<bool, Undecided> {
        let (Some(user), Some(resource)) = (self.user, self.resource) else { return Ok(true) };
        // The target is another one than the request's, the circumstances are the same.
        let attributes = RequestAttributes {
            principal: self.context.map_or(&NoAttributes, |context| context.user_attributes),
            environment: self.request.attributes.environment,
            ..RequestAttributes::NONE
        };
        let mut until = self.until;
        let context = may_use::<Undecided>(resource, |action, scope| {
            let Ok(action) = Action::parse(action) else { return Ok(Access::NotAllowed) };
            let request =
                CheckRequest { attributes, ..CheckRequest::new(user, action, Plane::Control, scope) };
            let evaluation =
                self.authorizer.check_ordinary(self.snapshot, &request, self.now, None)?.evaluation;
            until = until.into_iter().chain(evaluation.valid_until).min();
            Ok(Access::from(&evaluation.decision))
        })?;
        self.until = until;
        Ok(context == UserContext::Allowed)
    }
}

impl Checks for PolicyChecks<'_, '_> {
    type Error = Undecided;

    fn agent(&mut self) -> Result<Access, Undecided> {
        let answer = self.authorizer.check_ordinary(self.snapshot, self.request, self.now, None)?;
        let access = Access::from(&answer.evaluation.decision);
        self.by_agent = Some(answer);
        Ok(access)
    }

    fn user(&mut self) -> Result<Access, Undecided> {
        let request = self.context.and_then(|context| context.user_request(self.request));
        let Some(request) = request else { return Ok(Access::NotAllowed) };
        let answer = self.authorizer.check_ordinary(self.snapshot, &request, self.now, None)?;
        let access = Access::from(&answer.evaluation.decision);
        self.by_user = Some(answer);
        Ok(access)
    }

    fn holds_role(&mut self, principal: PrincipalId<'_>, role: &str) -> Result<bool, Undecided> {
        // Without its resource there is no place to hold the role at.
        let Some(resource) = self.resource else { return Ok(false) };
        let approver = self.context.and_then(|context| context.approval).map(|answer| answer.by);
        let known = self.user.into_iter().chain(approver).find(|subject| subject.principal == principal);
        let subject = known.unwrap_or(Subject { principal, groups: Groups::NONE });
        let request = CheckRequest::new(subject, self.request.action, Plane::Control, resource);
        let (holds, until) = self.snapshot.policy.holds_role(&request, role, self.now)?;
        self.until = self.until.into_iter().chain(until).min();
        Ok(holds)
    }
}
