//! Decisions: the three answers, what each rests on, and the separate word for "could not decide".
//!
//! There is no default and no boolean. An [`Decision::Allowed`] carries the assignment that granted, a
//! [`Decision::Denied`] the deny assignment that blocked. [`Undecided`] is an error type: it can never be taken
//! for an answer.

/// The answer (semantics, section 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// A role assignment grants the action.
    Allowed(Grant),
    /// Nothing grants it.
    NotAllowed(Why),
    /// A deny assignment blocks it, whatever grants it.
    Denied(DenyHit),
}

/// What granted, as a number of the policy that decided: printed by asking that policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    assignment: u32,
}

/// What denied, as a number of the policy that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DenyHit {
    deny_assignment: u32,
}

/// What may be activated, as a number of the policy that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eligibility {
    number: u32,
}

/// Why nothing granted: the first of these, from the end on, that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No assignment of the subject or its groups that is active applies to the scope.
    NoRoleAssignment,
    /// Assignments apply, but none of their roles grants the action on this plane.
    ActionNotGranted,
    /// An assignment would grant, but not at this time.
    NotActiveNow,
    /// An assignment would grant, but a condition on it or on its role is not true.
    ConditionNotMet,
    /// The subject may activate a role that would grant (semantics, section 5.1).
    Eligible(Eligibility),
    /// The subject is an agent, and its flow stops here (semantics, section 6.3).
    Agent(AgentStop),
}

/// Where the flow of an agent stops (semantics, sections 6.3 to 6.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AgentStop {
    /// Somebody has to approve.
    ApprovalRequired,
    /// The user has to lend the right.
    OnBehalfOfRequired,
    /// Somebody who may approve said no.
    ApprovalDenied,
    /// The user does not lend the right.
    OnBehalfOfDeclined,
    /// The user has no right that would do, may not lend it, or may not use the agent.
    UserNotAuthorized,
    /// The target lies in no managed resource group.
    OutOfScope,
    /// There is none.
    NoManagedResourceGroups,
}

/// Why there is no decision. Never cached, never an allow, never a deny.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecided {
    /// Nothing has been activated yet.
    #[error("no policy is active yet")]
    NoPolicy,
    /// A deny assignment stands at a management group, and it is not known whether the target lies below it
    /// (semantics, section 9, row 37 and section 10, row 16).
    #[error(
        "a deny assignment stands at a management group and the policy does not say where {holder} hangs in \
         the hierarchy, so it cannot be told whether the deny applies"
    )]
    UnknownHierarchy {
        /// The subscription or management group whose place is not known.
        holder: String,
    },
    /// The publication that decides is older than the sidecar may answer by, for a request like this.
    #[error("the active policy is {}, and requests like this one are not answered by it", .0.name())]
    PolicyOutdated(Freshness),
    /// The conditions take more work than one request may cost.
    #[error("the conditions that decide this take more steps than one request may")]
    ConditionsTooCostly,
    /// The compiled policy contradicts itself: damaged memory or a bug, never a decision.
    #[error("the compiled policy is damaged")]
    DamagedPolicy,
}

/// How current a published policy is. A policy directory is always fresh: it is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Freshness {
    /// A source has confirmed lately that there is nothing newer.
    Fresh,
    /// No source has for longer than the setting `max-age`.
    Stale,
    /// What was signed is past its expiry.
    Expired,
}

impl Freshness {
    /// All of them, in order of age.
    pub const ALL: [Self; 3] = [Self::Fresh, Self::Stale, Self::Expired];

    /// The name on every interface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Expired => "expired",
        }
    }
}

/// Why, for programs; the same codes on every interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReasonCode {
    /// Allowed by a role assignment.
    RoleAssignment,
    /// Nothing assigned here.
    NoRoleAssignment,
    /// Assigned, but not this action.
    ActionNotGranted,
    /// Assigned, but not at this time.
    NotActiveNow,
    /// Assigned, but under a condition that is not true.
    ConditionNotMet,
    /// A role that would grant may be activated.
    Eligible,
    /// Blocked.
    DenyAssignment,
    /// An agent's flow stops.
    Agent(AgentStop),
}

// === impls ===

impl Decision {
    /// The code for programs.
    pub const fn reason_code(&self) -> ReasonCode {
        match self {
            Self::Allowed(_) => ReasonCode::RoleAssignment,
            Self::NotAllowed(Why::NoRoleAssignment) => ReasonCode::NoRoleAssignment,
            Self::NotAllowed(Why::ActionNotGranted) => ReasonCode::ActionNotGranted,
            Self::NotAllowed(Why::NotActiveNow) => ReasonCode::NotActiveNow,
            Self::NotAllowed(Why::ConditionNotMet) => ReasonCode::ConditionNotMet,
            Self::NotAllowed(Why::Eligible(_)) => ReasonCode::Eligible,
            Self::NotAllowed(Why::Agent(stop)) => ReasonCode::Agent(*stop),
            Self::Denied(_) => ReasonCode::DenyAssignment,
        }
    }

    /// `Allowed`, `NotAllowed` or `Denied`, the words of Azure.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Allowed(_) => "Allowed",
            Self::NotAllowed(_) => "NotAllowed",
            Self::Denied(_) => "Denied",
        }
    }
}

impl Undecided {
    /// The code for programs; the same on every interface.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoPolicy => "NO_POLICY",
            Self::PolicyOutdated(Freshness::Expired) => "POLICY_EXPIRED",
            Self::PolicyOutdated(_) => "POLICY_STALE",
            Self::UnknownHierarchy { .. } => "UNKNOWN_HIERARCHY",
            Self::ConditionsTooCostly => "CONDITIONS_TOO_COSTLY",
            Self::DamagedPolicy => "DAMAGED_POLICY",
        }
    }
}

impl ReasonCode {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::RoleAssignment,
        Self::NoRoleAssignment,
        Self::ActionNotGranted,
        Self::NotActiveNow,
        Self::ConditionNotMet,
        Self::Eligible,
        Self::DenyAssignment,
        Self::Agent(AgentStop::ApprovalRequired),
        Self::Agent(AgentStop::OnBehalfOfRequired),
        Self::Agent(AgentStop::ApprovalDenied),
        Self::Agent(AgentStop::OnBehalfOfDeclined),
        Self::Agent(AgentStop::UserNotAuthorized),
        Self::Agent(AgentStop::OutOfScope),
        Self::Agent(AgentStop::NoManagedResourceGroups),
    ];

    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Self::RoleAssignment => 0,
            Self::NoRoleAssignment => 1,
            Self::ActionNotGranted => 2,
            Self::NotActiveNow => 3,
            Self::ConditionNotMet => 4,
            Self::Eligible => 5,
            Self::DenyAssignment => 6,
            Self::Agent(AgentStop::ApprovalRequired) => 7,
            Self::Agent(AgentStop::OnBehalfOfRequired) => 8,
            Self::Agent(AgentStop::ApprovalDenied) => 9,
            Self::Agent(AgentStop::OnBehalfOfDeclined) => 10,
            Self::Agent(AgentStop::UserNotAuthorized) => 11,
            Self::Agent(AgentStop::OutOfScope) => 12,
            Self::Agent(AgentStop::NoManagedResourceGroups) => 13,
        }
    }

    /// The decision that it implies, in the words of Azure.
    pub const fn decision(self) -> &'static str {
        match self {
            Self::RoleAssignment => "Allowed",
            Self::DenyAssignment => "Denied",
            _ => "NotAllowed",
        }
    }

    /// The name on every interface, without the prefix of the protobuf enum.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoleAssignment => "ROLE_ASSIGNMENT",
            Self::NoRoleAssignment => "NO_ROLE_ASSIGNMENT",
            Self::ActionNotGranted => "ACTION_NOT_GRANTED",
            Self::NotActiveNow => "NOT_ACTIVE_NOW",
            Self::ConditionNotMet => "CONDITION_NOT_MET",
            Self::Eligible => "ELIGIBLE",
            Self::Agent(AgentStop::ApprovalRequired) => "AGENT_APPROVAL_REQUIRED",
            Self::Agent(AgentStop::OnBehalfOfRequired) => "AGENT_ON_BEHALF_OF_REQUIRED",
            Self::Agent(AgentStop::ApprovalDenied) => "AGENT_APPROVAL_DENIED",
            Self::Agent(AgentStop::OnBehalfOfDeclined) => "AGENT_ON_BEHALF_OF_DECLINED",
            Self::Agent(AgentStop::UserNotAuthorized) => "AGENT_USER_NOT_AUTHORIZED",
            Self::Agent(AgentStop::OutOfScope) => "AGENT_OUT_OF_SCOPE",
            Self::Agent(AgentStop::NoManagedResourceGroups) => "AGENT_NO_MANAGED_RESOURCE_GROUPS",
            Self::DenyAssignment => "DENY_ASSIGNMENT",
        }
    }
}

impl AgentStop {
    /// Why, for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::ApprovalRequired => "the agent may do this when somebody who may approve it has approved",
            Self::OnBehalfOfRequired => {
                "the agent has no permission itself, but the asking user has and may lend it for this action"
            }
            Self::ApprovalDenied => "the approval was refused",
            Self::OnBehalfOfDeclined => "the asking user does not lend the permission",
            Self::UserNotAuthorized => {
                "the agent has no permission itself, and there is no user who has it and may lend it"
            }
            Self::OutOfScope => "the target lies in none of the resource groups that the agent manages",
            Self::NoManagedResourceGroups => "the agent manages no resource group, so it may do nothing",
        }
    }
}

impl Grant {
    /// Only the evaluation of a policy can say that something grants.
    pub(crate) const fn new(assignment: u32) -> Self {
        Self { assignment }
    }

    /// Number of the role assignment in the policy that decided.
    pub const fn assignment(self) -> u32 {
        self.assignment
    }
}

impl Eligibility {
    /// Only the evaluation of a policy can say that somebody is eligible.
    pub(crate) const fn new(number: u32) -> Self {
        Self { number }
    }

    /// Number of the eligibility in the policy that decided.
    pub const fn number(self) -> u32 {
        self.number
    }
}

impl DenyHit {
    /// Only the evaluation of a policy can say that something denies.
    pub(crate) const fn new(deny_assignment: u32) -> Self {
        Self { deny_assignment }
    }

    /// Number of the deny assignment in the policy that decided.
    pub const fn deny_assignment(self) -> u32 {
        self.deny_assignment
    }
}
