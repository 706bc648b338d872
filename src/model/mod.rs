//! The vocabulary: who asks (subject, principal), what for (action), where (scope), what is answered
//! (decision), and the policy documents that answers rest on. One word per thing, the words of Azure RBAC.
//!
//! Pure values and the rules that need nothing else: no I/O, no clock, no protobuf. Imports nothing of the
//! crate; everything else imports this.

mod action;
mod agent_context;
mod attributes;
mod decision;
mod document;
mod explanation;
mod principal;
mod problem;
mod request;
mod scope;
mod within;

pub(crate) use action::MAX_ACTION_BYTES;
pub use action::{Action, ActionError, Plane, Wildcards, pattern_matches};
pub use agent_context::{
    AgentContext, ApprovalAnswer, ApprovalVerdict, ConsentAnswer, ConsentVerdict, ExecutedAs, Step, StepKind,
    StepState,
};
pub use attributes::{AttributeBag, Attributes, NoAttributes, OwnedValue, Value, ValueList};
pub use decision::{AgentStop, Decision, DenyHit, Eligibility, Freshness, Grant, ReasonCode, Undecided, Why};
pub use document::{
    ActivationPolicy, ActivationRequirements, AgentDocument, AgentLevel, AgentMode, At, ConditionText,
    DenyAssignment, DenyEffect, Documents, Group, Locator, ManagementGroup, PermissionBlock, RoleAssignment,
    RoleDefinition, Schedule, ScheduleKind, ScheduleShape, SourceFile, Spanned, Subscription,
};
pub use explanation::{
    AssignmentInfo, AssignmentOutcome, Clause, ClauseTruth, ConditionOutcome, ConditionOwner,
    DeniedPrincipal, DenyOutcome, EligiblePrincipal, ExplainedAssignment, ExplainedCondition, ExplainedDeny,
    ExplainedPrincipal, Explanation, Joined, KnownOperation, MatchedPattern, NearMiss, OperationOutcome,
    PermissionDeny, PermissionGrant, PermissionList, PermissionPatterns, PermissionQuery, PermittedOperation,
    PermittedPrincipal, PrincipalDeny, PrincipalList, PrincipalQuery, Reached, ReadAttribute, ReadValue,
    RoleActivation, Through, Window,
};
pub use principal::{ALL_PRINCIPALS, Guid, PrincipalId};
pub use problem::{Location, Problem, Problems, Severity};
pub use request::{CheckRequest, Groups, RequestAttributes, Subject};
pub use scope::{MANAGEMENT_GROUP_PREFIX, Scope, ScopeError, ScopeKind};
