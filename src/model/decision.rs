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

/// Why nothing granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No assignment of the subject or its groups applies to the scope.
    NoRoleAssignment,
    /// Assignments apply, but none of their roles grants the action on this plane.
    ActionNotGranted,
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
    /// The compiled policy contradicts itself: damaged memory or a bug, never a decision.
    #[error("the compiled policy is damaged")]
    DamagedPolicy,
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
    /// Blocked.
    DenyAssignment,
}

// === impls ===

impl Decision {
    /// The code for programs.
    pub const fn reason_code(&self) -> ReasonCode {
        match self {
            Self::Allowed(_) => ReasonCode::RoleAssignment,
            Self::NotAllowed(Why::NoRoleAssignment) => ReasonCode::NoRoleAssignment,
            Self::NotAllowed(Why::ActionNotGranted) => ReasonCode::ActionNotGranted,
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

impl ReasonCode {
    /// The name on every interface, without the prefix of the protobuf enum.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoleAssignment => "ROLE_ASSIGNMENT",
            Self::NoRoleAssignment => "NO_ROLE_ASSIGNMENT",
            Self::ActionNotGranted => "ACTION_NOT_GRANTED",
            Self::DenyAssignment => "DENY_ASSIGNMENT",
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
