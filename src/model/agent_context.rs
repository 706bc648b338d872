//! What a check of an agent's action brings besides the check itself, and the steps that an answer names
//! (semantics, sections 5.4 and 6.3 to 6.5).
//!
//! The subject of the check is the agent's managed identity. An answer to a prompt is a claim about who answered
//! what; it is verified and never grants anything by itself.

use super::{AgentMode, AttributeBag, CheckRequest, PrincipalId, RequestAttributes, RoleActivation, Subject};

/// The context of one action of an agent. It makes a check an agent's, whoever the subject is. A subject that the
/// policy describes as an agent is held to its mode and boundary also without one; then nobody asks and nobody
/// answers.
#[derive(Clone, Copy, Debug)]
pub struct AgentContext<'a> {
    /// The mode that the agent says it runs in; `None`: the one of its document. Of the two the stricter counts, so
    /// nobody can talk an agent out of review.
    pub mode: Option<AgentMode>,
    /// The user who asks, and whose rights may be lent; `None`: nobody, so nothing is lent, and a prompt that only
    /// the asking user may answer stays unanswered.
    pub on_behalf_of: Option<Subject<'a>>,
    /// `@Principal` where the user's rights are checked; the other attributes are those of the check.
    pub user_attributes: &'a dyn AttributeBag,
    /// The answer to the approval prompt for this very action, if there is one.
    pub approval: Option<ApprovalAnswer<'a>>,
    /// The answer to the on-behalf-of prompt for this very action, if there is one.
    pub consent: Option<ConsentAnswer<'a>>,
}

/// An answer to the approval prompt. It counts only if it comes from somebody who may give it.
#[derive(Clone, Copy, Debug)]
pub struct ApprovalAnswer<'a> {
    /// Who answered, with the groups that are vouched for: whether they hold the approver role may hang on them.
    pub by: Subject<'a>,
    /// What.
    pub verdict: ApprovalVerdict,
}

/// Whether to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalVerdict {
    /// Yes.
    Approve,
    /// No.
    Deny,
}

/// An answer to the on-behalf-of prompt. It counts only if it comes from the asking user.
#[derive(Clone, Copy, Debug)]
pub struct ConsentAnswer<'a> {
    /// Who answered.
    pub by: PrincipalId<'a>,
    /// What.
    pub verdict: ConsentVerdict,
}

/// Whether to lend rights, for this action only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsentVerdict {
    /// Yes.
    Grant,
    /// No.
    Decline,
}

/// One step on the way to an action. Steps are ordered; whether the action may be done is said by the decision
/// alone, never by a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What.
    pub kind: StepKind,
    /// How far it is.
    pub state: StepState,
}

/// What a step is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Consent to act is asked for.
    ApprovalPrompt,
    /// The user's temporary credentials are asked for.
    OboPrompt,
    /// Done with the agent's rights.
    ExecuteAsAgent,
    /// Done with the user's rights.
    ExecuteAsUser,
    /// The subject activates a role that it is eligible for; then the same check is made again.
    ActivateRole(Box<RoleActivation>),
}

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepState {
    /// A prompt that was answered.
    Done,
    /// What comes next: the execution where the decision is Allowed, the prompt or the activation that it waits for
    /// where it is NotAllowed. At most one step of an answer is; none where the answer is final.
    Next,
    /// Follows if those before it are answered with yes and the policy then still allows it.
    Later,
}

/// Whose rights an agent's action is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutedAs {
    /// The agent's identity.
    Agent,
    /// The asking user.
    User,
}

// === impls ===

impl<'a> AgentContext<'a> {
    /// The check of the asking user's own rights: the same question with the user as subject. `None` when nobody
    /// asks.
    pub fn user_request(&self, request: &CheckRequest<'a>) -> Option<CheckRequest<'a>> {
        let attributes = RequestAttributes { principal: self.user_attributes, ..request.attributes };
        self.on_behalf_of.map(|subject| CheckRequest { subject, attributes, ..*request })
    }
}

impl Step {
    /// A step in a state.
    pub const fn new(kind: StepKind, state: StepState) -> Self {
        Self { kind, state }
    }

    /// Whether somebody is to be asked before the action may be done.
    pub const fn is_prompt_to_come(&self) -> bool {
        matches!(
            (&self.kind, self.state),
            (StepKind::ApprovalPrompt | StepKind::OboPrompt, StepState::Next | StepState::Later)
        )
    }
}

impl StepKind {
    /// The name on every interface.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::ApprovalPrompt => "approval_prompt",
            Self::OboPrompt => "obo_prompt",
            Self::ExecuteAsAgent => "execute_as_agent",
            Self::ExecuteAsUser => "execute_as_user",
            Self::ActivateRole(_) => "activate_role",
        }
    }
}

impl StepState {
    /// The name on every interface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Next => "next",
            Self::Later => "later",
        }
    }
}

impl ExecutedAs {
    /// The name on every interface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::User => "user",
        }
    }
}
