//! One action of an agent: boundary, table, prompts and their answers (semantics, sections 6.3 to 6.5).

use super::{Agent, AgentOptions, Answerer, Mode};
use crate::model::{
    Action, ApprovalAnswer, ApprovalVerdict, ConsentAnswer, ConsentVerdict, Decision, PrincipalId, Scope,
};

/// Whether an action only looks (section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ends in `/read`, or is a configured query.
    Read,
    /// Everything else.
    Write,
}

/// What happens, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Consent to act is asked for.
    ApprovalPrompt,
    /// The user's temporary credentials are asked for.
    OboPrompt,
    /// Done with the agent's rights.
    ExecuteAsAgent,
    /// Done with the user's rights.
    ExecuteAsUser,
}

/// What an ordinary check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Something grants.
    Allowed,
    /// Nothing grants.
    NotAllowed,
    /// A deny assignment blocks.
    Denied,
}

/// The ordinary checks that a flow rests on, made now and under today's policy.
pub trait Checks {
    /// Why a check may give no decision.
    type Error;

    /// May the agent's identity do the action at the target?
    ///
    /// # Errors
    ///
    /// There is no decision.
    fn agent(&mut self) -> Result<Access, Self::Error>;

    /// May the asking user? Asked at most once, and only where the answer counts.
    ///
    /// # Errors
    ///
    /// There is no decision.
    fn user(&mut self) -> Result<Access, Self::Error>;

    /// Does a principal hold a role at the agent resource? Asked under [`Answerer::RoleHolder`] only.
    ///
    /// # Errors
    ///
    /// It cannot be told.
    fn holds_role(&mut self, principal: PrincipalId<'_>, role: &str) -> Result<bool, Self::Error>;
}

/// What the agent is asked to do, and what has been answered so far.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Who asks, and whose rights may be lent.
    pub user: PrincipalId<'a>,
    /// The action.
    pub action: Action<'a>,
    /// Where.
    pub target: Scope<'a>,
    /// Answers to prompts for this very action.
    pub responses: Responses<'a>,
}

/// Answers to prompts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Responses<'a> {
    /// To the approval prompt.
    pub approval: Option<ApprovalAnswer<'a>>,
    /// To the on-behalf-of prompt.
    pub consent: Option<ConsentAnswer<'a>>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// How the action was taken; `None` where it was not looked at.
    pub kind: Option<Kind>,
    /// Prompts that were answered or stand open, and the execution.
    pub steps: Vec<Step>,
    /// How it ends, or stands.
    pub outcome: Outcome,
}

/// How it ends, or stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It may be done now.
    Executed(Actor),
    /// It ends here.
    Refused(Reason),
    /// A prompt stands open.
    Waiting(Waiting),
}

/// Whose rights it is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The agent's identity.
    Agent,
    /// The asking user.
    User,
}

/// Why it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Somebody who may approve said no.
    ApprovalDenied,
    /// The user does not lend rights.
    OboDeclined,
    /// The user has no rights that would do, or may not lend them.
    UserNotAuthorized,
    /// The target lies in no managed resource group.
    OutOfScope,
    /// There is none.
    NoManagedResourceGroups,
    /// A deny assignment blocks the agent (ours).
    DenyAssignment,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Waiting {
    /// An answer to the approval prompt.
    Approval,
    /// An answer to the on-behalf-of prompt.
    OboConsent,
}

/// The eight cells of section 6.3: the steps where every prompt is answered with yes.
pub const fn steps(kind: Kind, agent_has_permission: bool, mode: Mode) -> &'static [Step] {
    use Step::{ApprovalPrompt, ExecuteAsAgent, ExecuteAsUser, OboPrompt};
    match (kind, agent_has_permission, mode) {
        (Kind::Read, true, Mode::Review | Mode::Auto) | (Kind::Write, true, Mode::Auto) => &[ExecuteAsAgent],
        (Kind::Read, false, Mode::Review | Mode::Auto) | (Kind::Write, false, Mode::Auto) => {
            &[OboPrompt, ExecuteAsUser]
        }
        (Kind::Write, true, Mode::Review) => &[ApprovalPrompt, ExecuteAsAgent],
        (Kind::Write, false, Mode::Review) => &[ApprovalPrompt, OboPrompt, ExecuteAsUser],
    }
}

// === impls ===

impl Agent {
    /// Goes through the steps as far as the answers reach.
    ///
    /// A prompt that cannot lead to the action is not offered: where the agent has no permission, nothing is
    /// asked unless the user would be allowed. One that was answered stays in the steps. Answers by who may
    /// not answer do not count.
    ///
    /// # Errors
    ///
    /// What a check could not decide. It is never an outcome.
    pub fn decide<C: Checks>(
        &self,
        ask: &Ask<'_>,
        options: &AgentOptions,
        checks: &mut C,
    ) -> Result<Flow, C::Error> {
        let refused = |reason| Flow { kind: None, steps: Vec::new(), outcome: Outcome::Refused(reason) };
        if self.managed_resource_groups.is_empty() {
            return Ok(refused(Reason::NoManagedResourceGroups));
        }
        if !self.manages(ask.target) {
            return Ok(refused(Reason::OutOfScope));
        }
        let kind = Kind::of(ask.action, options);
        let agent = checks.agent()?;
        if agent == Access::Denied {
            // Nobody's consent lifts a deny assignment, and what is kept from the agent is not done for it.
            return Ok(Flow { kind: Some(kind), ..refused(Reason::DenyAssignment) });
        }
        let has_permission = agent == Access::Allowed;
        let mut lender = Lender { agent: self, user: ask.user, may: None };
        let mut taken = Vec::new();
        let outcome = 'flow: {
            for step in steps(kind, has_permission, self.mode) {
                match step {
                    Step::ApprovalPrompt => match self.approval(ask, checks)? {
                        Some(ApprovalVerdict::Approve) => taken.push(*step),
                        Some(ApprovalVerdict::Deny) => {
                            taken.push(*step);
                            break 'flow Outcome::Refused(Reason::ApprovalDenied);
                        }
                        None if !has_permission && !lender.may(checks)? => {
                            break 'flow Outcome::Refused(Reason::UserNotAuthorized);
                        }
                        None => {
                            taken.push(*step);
                            break 'flow Outcome::Waiting(Waiting::Approval);
                        }
                    },
                    Step::OboPrompt => match ask.responses.consent.filter(|answer| answer.by == ask.user) {
                        Some(ConsentAnswer { verdict: ConsentVerdict::Grant, .. }) => taken.push(*step),
                        Some(ConsentAnswer { verdict: ConsentVerdict::Decline, .. }) => {
                            taken.push(*step);
                            break 'flow Outcome::Refused(Reason::OboDeclined);
                        }
                        None if !lender.may(checks)? => {
                            break 'flow Outcome::Refused(Reason::UserNotAuthorized);
                        }
                        None => {
                            taken.push(*step);
                            break 'flow Outcome::Waiting(Waiting::OboConsent);
                        }
                    },
                    Step::ExecuteAsUser if !lender.may(checks)? => {
                        break 'flow Outcome::Refused(Reason::UserNotAuthorized);
                    }
                    Step::ExecuteAsUser => {
                        taken.push(*step);
                        break 'flow Outcome::Executed(Actor::User);
                    }
                    Step::ExecuteAsAgent => {
                        taken.push(*step);
                        break 'flow Outcome::Executed(Actor::Agent);
                    }
                }
            }
            // Every cell ends in an execution.
            Outcome::Refused(Reason::UserNotAuthorized)
        };
        Ok(Flow { kind: Some(kind), steps: taken, outcome })
    }

    /// The answer to the approval prompt, if it came from somebody who may give it.
    fn approval<C: Checks>(
        &self,
        ask: &Ask<'_>,
        checks: &mut C,
    ) -> Result<Option<ApprovalVerdict>, C::Error> {
        let Some(approval) = ask.responses.approval else { return Ok(None) };
        let counts = match &self.answerer {
            Answerer::AskingUser => approval.by.principal == ask.user,
            Answerer::RoleHolder(role) => checks.holds_role(approval.by.principal, role)?,
        };
        Ok(counts.then_some(approval.verdict))
    }
}

/// Whether the user's rights would do and may be lent; asked once.
struct Lender<'a> {
    agent: &'a Agent,
    user: PrincipalId<'a>,
    may: Option<bool>,
}

impl Lender<'_> {
    fn may<C: Checks>(&mut self, checks: &mut C) -> Result<bool, C::Error> {
        if let Some(may) = self.may {
            return Ok(may);
        }
        let lends = match &self.agent.answerer {
            Answerer::AskingUser => true,
            Answerer::RoleHolder(role) => checks.holds_role(self.user, role)?,
        };
        let may = lends && checks.user()? == Access::Allowed;
        self.may = Some(may);
        Ok(may)
    }
}

impl Kind {
    /// Read or write?
    pub fn of(action: Action<'_>, options: &AgentOptions) -> Self {
        let action = action.as_str();
        let is_read = action.rsplit_once('/').is_some_and(|(_, verb)| verb.eq_ignore_ascii_case("read"));
        if is_read || options.query_actions.iter().any(|query| query.eq_ignore_ascii_case(action)) {
            Self::Read
        } else {
            Self::Write
        }
    }
}

impl Step {
    /// The name on every interface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ApprovalPrompt => "approval_prompt",
            Self::OboPrompt => "obo_prompt",
            Self::ExecuteAsAgent => "execute_as_agent",
            Self::ExecuteAsUser => "execute_as_user",
        }
    }
}

impl From<&Decision> for Access {
    fn from(decision: &Decision) -> Self {
        match decision {
            Decision::Allowed(_) => Self::Allowed,
            Decision::NotAllowed(_) => Self::NotAllowed,
            Decision::Denied(_) => Self::Denied,
        }
    }
}

impl Outcome {
    /// The name on every interface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Executed(_) => "executed",
            Self::Refused(_) => "refused",
            Self::Waiting(_) => "waiting",
        }
    }

    /// What it ends on or waits for.
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Executed(_) => None,
            Self::Refused(reason) => Some(reason.name()),
            Self::Waiting(Waiting::Approval) => Some("approval"),
            Self::Waiting(Waiting::OboConsent) => Some("obo_consent"),
        }
    }
}

impl Reason {
    /// The name on every interface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ApprovalDenied => "approval_denied",
            Self::OboDeclined => "obo_declined",
            Self::UserNotAuthorized => "user_not_authorized",
            Self::OutOfScope => "out_of_scope",
            Self::NoManagedResourceGroups => "no_managed_resource_groups",
            Self::DenyAssignment => "deny_assignment",
        }
    }
}
