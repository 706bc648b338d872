//! What `Explain`, `ListPermissions` and `ListPrincipals` answer: plain, owned, spelled out, so that nobody has to
//! ask the policy again. Written by whoever walks a policy, read by the wire and by the terminal.
//!
//! ```text
//! Explanation      principals ─ denies ─ assignments ─ near misses ─ decision and the sentence of Check
//! PermissionList   what a subject may do at a scope: patterns of each grant, and known operations one by one
//! PrincipalList    who may do an action at a scope, and through which assignment
//! ```
//!
//! Ids are full ids as in answers to Check (`{scope}/providers/Microsoft.Authorization/…`), scopes in the letter
//! case of the documents, object ids in their canonical form. Every list has an order of its own that its field
//! names, so that two answers to one question are equal; by id and by name, GUIDs come before other texts.

use std::ops::Range;

use jiff::Timestamp;

use super::{ActivationRequirements, Decision, DenyEffect, OwnedValue, Plane, Scope, Subject};

// === explain ===

/// Why a request is decided as it is (semantics, section 2.5): everything that was looked at, and what each did.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// Who the subject is: itself first, then the asserted groups as given, then the groups that contain one of
    /// these, by id. Each id once.
    pub principals: Vec<ExplainedPrincipal>,
    /// Every deny assignment at the scope or above it, the most specific scope first, then by name: those that
    /// hit, and those that do not. The first enforced one that hits is the one that Check names.
    pub denies: Vec<ExplainedDeny>,
    /// Every role assignment of one of the principals at the scope or above it, active schedules included and
    /// eligible ones not: first those that grant, then the others; within each the most specific scope first, then
    /// unconditioned before conditioned, then by name (semantics, section 2.5). Explained also when a deny
    /// assignment decides. When the decision is Allowed, the first is the one that Check names.
    pub assignments: Vec<ExplainedAssignment>,
    /// What would nearly have granted: eligible roles first, then roles on the other plane, then assignments below.
    /// At most 20 of each kind. Empty unless the decision is NotAllowed: an activation does not help against a deny
    /// assignment.
    pub near_misses: Vec<NearMiss>,
    /// The decision of a Check of the same request at the same time.
    pub decision: Decision,
    /// The sentence that Check gives for it.
    pub reason: String,
    /// Until when the decision holds under this policy, as Check says it.
    pub valid_until: Option<Timestamp>,
    /// Whether something was left out because there is too much: what stands behind the first 1,000 of a list, near
    /// misses behind the first 20 of a kind, or the parts of conditions that read very large attributes.
    pub truncated: bool,
}

/// One of the principals that a subject expands to (semantics, section 1.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplainedPrincipal {
    /// Object id.
    pub id: String,
    /// How it was reached.
    pub reached: Reached,
    /// Whether the policy knows it: something is assigned to it, or it is a member of a group that counts.
    pub known: bool,
}

/// How a principal was reached from the subject. Of several ways the first of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// It is the subject itself.
    Subject,
    /// A group that the caller vouches for.
    Asserted,
    /// A group of the policy.
    Contains {
        /// The subject or asserted group that it contains, directly or through other groups; of several the first in
        /// the order of [`Explanation::principals`].
        member: String,
    },
}

/// A deny assignment that was looked at (semantics, section 2.4).
#[derive(Clone, Debug)]
pub struct ExplainedDeny {
    /// Full id.
    pub id: String,
    /// Display name, where the document gives one.
    pub name: Option<String>,
    /// Where it stands.
    pub scope: String,
    /// Whether a hit blocks or is only reported.
    pub effect: DenyEffect,
    /// What it did.
    pub outcome: DenyOutcome,
    /// The conditions that were evaluated for it: its own first, then those of its blocks in their order. Empty
    /// where something before them decided.
    pub conditions: Vec<ExplainedCondition>,
}

/// What a deny assignment did. One that does not hit gives the first reason in the order of these; of several blocks
/// the one that came furthest counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DenyOutcome {
    /// It hits: with effect enforced it decides, with effect audit it is reported.
    Hit {
        /// The pattern that the action matches.
        pattern: MatchedPattern,
        /// Which of the subject's principals it lists; `None`: all principals.
        principal: Option<String>,
    },
    /// It is for its own scope only, and the target lies below (`doNotApplyToChildScopes`).
    NotToChildScopes,
    /// It lists none of the subject's principals.
    NotForSubject,
    /// It exempts one of them.
    ExcludedPrincipal {
        /// Which.
        principal: String,
    },
    /// None of its blocks speaks of the action on this plane.
    NotCovered,
    /// A block speaks of the action on the other plane only.
    WrongPlane {
        /// The pattern there.
        pattern: MatchedPattern,
    },
    /// A block covers the action and exempts it.
    ExcludedBy {
        /// What covers.
        pattern: MatchedPattern,
        /// What exempts: `notActions` or `notDataActions` of the same block.
        exclusion: MatchedPattern,
    },
    /// A condition is false; one that is undefined or cannot be used lets it hit.
    ConditionFalse,
    /// A condition takes more steps than allowed on these attributes. Only where another deny assignment hits:
    /// otherwise there is no decision.
    ConditionTooCostly,
}

/// A role assignment, or an active schedule, that was looked at (semantics, sections 2.3 and 5.5).
#[derive(Clone, Debug)]
pub struct ExplainedAssignment {
    /// Which.
    pub assignment: AssignmentInfo,
    /// What it did.
    pub outcome: AssignmentOutcome,
    /// The conditions that were evaluated for it: that of the block, then the assignment's, then that of the
    /// eligibility it was activated from. Empty where something before them decided, and where there are none.
    pub conditions: Vec<ExplainedCondition>,
}

/// An assignment, spelled out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignmentInfo {
    /// Full id, as in an answer to Check.
    pub id: String,
    /// Full id of the role definition.
    pub role_definition_id: String,
    /// Display name of the role.
    pub role_name: String,
    /// Where it stands.
    pub scope: String,
    /// Whose it is: the subject or a group.
    pub principal_id: String,
    /// When it holds; `None`: always.
    pub window: Option<Window>,
    /// Full id of the eligibility that it was activated from.
    pub eligibility_id: Option<String>,
}

/// When something holds (semantics, section 5.5), an activation cut at the end of its eligibility.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Included; `None`: it has always begun.
    pub start: Option<Timestamp>,
    /// Excluded; `None`: it never ends.
    pub end: Option<Timestamp>,
}

/// What a role assignment did. A role of several blocks gives the outcome of the block that came furthest, which is
/// the first of these; of equals the first block. The window is looked at last of all but the conditions, which are
/// not evaluated outside of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssignmentOutcome {
    /// It grants.
    Granted {
        /// The pattern that the action matches.
        pattern: MatchedPattern,
    },
    /// A condition is false or undefined.
    ConditionNotTrue {
        /// The pattern that the action matches.
        pattern: MatchedPattern,
        /// Whose condition: the first that is not true, in the order of [`ExplainedAssignment::conditions`].
        whose: ConditionOwner,
        /// What it is.
        truth: ClauseTruth,
    },
    /// A condition cannot be used, so the assignment grants nothing.
    ConditionUnusable {
        /// The pattern that the action matches.
        pattern: MatchedPattern,
        /// Whose condition.
        whose: ConditionOwner,
    },
    /// A condition takes more steps than allowed on these attributes, so the assignment grants nothing.
    ConditionTooCostly {
        /// The pattern that the action matches.
        pattern: MatchedPattern,
        /// Whose condition.
        whose: ConditionOwner,
    },
    /// Its role covers the action, but it has not begun or is over: see its window.
    OutsideWindow {
        /// The pattern that the action matches.
        pattern: MatchedPattern,
    },
    /// A block covers the action and excludes it.
    ExcludedBy {
        /// What covers.
        pattern: MatchedPattern,
        /// What excludes: `notActions` or `notDataActions` of the same block.
        exclusion: MatchedPattern,
    },
    /// The role covers an action of this name on the other plane only.
    WrongPlane {
        /// The pattern there.
        pattern: MatchedPattern,
    },
    /// The role does not cover the action.
    NotCovered,
}

/// A pattern of a permission block that an action matches. Of several in a list the first in byte order, letter case
/// ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatchedPattern {
    /// Position of the block in the role definition or deny assignment, from 0.
    pub block: u32,
    /// `actions`, `notActions`, `dataActions` or `notDataActions`.
    pub list: &'static str,
    /// The pattern. Where the documents spell it in several letter cases, in the first of these spellings.
    pub pattern: String,
}

/// A condition and what came of it.
#[derive(Clone, Debug)]
pub struct ExplainedCondition {
    /// Whose it is.
    pub whose: ConditionOwner,
    /// As it is written.
    pub text: String,
    /// What came of it.
    pub outcome: ConditionOutcome,
}

/// Whose condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConditionOwner {
    /// The role assignment's or deny assignment's own.
    Assignment,
    /// Of one permission block of the role or the deny assignment.
    Block {
        /// Its position, from 0.
        index: u32,
    },
    /// Of the eligibility that the assignment was activated from (semantics, section 10, row 6).
    Eligibility {
        /// Full id of the eligibility.
        id: String,
    },
}

/// What came of a condition.
#[derive(Clone, Debug, PartialEq)]
pub enum ConditionOutcome {
    /// It has a value.
    Evaluated(Clause),
    /// It cannot be used: it does not parse, its version is another, or its operators may not be used there
    /// (semantics, section 3.7).
    Unusable {
        /// Why, for people: lower case, no full stop.
        why: String,
    },
    /// It takes more steps than allowed on these attributes.
    TooCostly,
}

/// A part of a condition with its value; the root is the whole condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Clause {
    /// Its value.
    pub truth: ClauseTruth,
    /// How its parts are joined.
    pub joined: Joined,
    /// Where it stands in the text of the condition, in bytes.
    pub span: Range<usize>,
    /// Canonical text of a test; empty for what has parts.
    pub text: String,
    /// The attributes that a test read, in the order of its text.
    pub values: Vec<ReadAttribute>,
    /// Its parts, in the order of the text.
    pub parts: Vec<Self>,
}

/// The three values of a condition (semantics, section 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClauseTruth {
    /// Does not grant; a deny assignment with it does not apply.
    False,
    /// Does not grant; a deny assignment with it applies.
    Undefined,
    /// Grants.
    True,
}

/// How the parts of a condition are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Joined {
    /// Every part.
    And,
    /// Some part.
    Or,
    /// Not its one part.
    Not,
    /// No parts: one comparison or test.
    Test,
}

/// An attribute that a condition read.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadAttribute {
    /// As the condition writes it, such as `@Resource[…/tags:Project<$key_case_sensitive$>]`.
    pub attribute: String,
    /// Where it stands in the text of the condition, in bytes.
    pub span: Range<usize>,
    /// What was there.
    pub value: ReadValue,
}

/// What was there for an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadValue {
    /// Nothing, or an empty list or dictionary.
    Missing,
    /// Several whose names differ in letter case only, which is undefined.
    Ambiguous,
    /// This.
    Present(OwnedValue),
}

/// What would nearly have granted.
#[derive(Clone, Debug)]
pub enum NearMiss {
    /// A role that the subject or a group of it may activate, and that would grant the action here, its conditions
    /// (if any) being true for this request. By scope from the most specific upwards, then by name.
    Eligible(RoleActivation),
    /// A role assigned at the scope or above covers an action of this name on the other plane, and not on this one,
    /// now. In the order of [`Explanation::assignments`].
    WrongPlane {
        /// Which.
        assignment: AssignmentInfo,
        /// What covers there.
        pattern: MatchedPattern,
        /// The plane that it covers.
        plane: Plane,
    },
    /// A role that covers the action is assigned below the scope that was asked about: too low. The nearest to it
    /// first (by the number of levels of its scope), then by the path of its scope, then by name. It holds now; its
    /// conditions are not looked at.
    ScopeTooLow {
        /// Which.
        assignment: AssignmentInfo,
        /// What covers.
        pattern: MatchedPattern,
    },
}

/// A role that may be activated, and what that takes (semantics, sections 5.1 and 5.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleActivation {
    /// Full id of the role definition.
    pub role_definition_id: String,
    /// Display name of the role.
    pub role_name: String,
    /// Where it may be activated; a scope below it will do as well.
    pub scope: String,
    /// Full id of the eligibility: `{scope}/providers/Microsoft.Authorization/roleEligibilitySchedules/{name}`, or
    /// `…/roleEligibilityScheduleInstances/{name}`, as the document has it.
    pub eligibility_id: String,
    /// Whose eligibility: the subject, or a group that it is in, whose members activate each for themselves.
    pub principal_id: String,
    /// When the eligibility ends, and with it what was activated from it; `None`: never.
    pub eligible_until: Option<Timestamp>,
    /// The condition that an activation inherits (semantics, section 5.6), as it is written.
    pub condition: Option<String>,
    /// What an activation has to bring, by the policy of this role at this very scope; `None`: the documents hold
    /// none, so it is not known.
    pub requirements: Option<ActivationRequirements>,
}

// === list permissions ===

/// An operation that somebody may ask about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KnownOperation {
    /// Without wildcards.
    pub name: String,
    /// On which plane.
    pub plane: Plane,
}

/// Whose permissions are listed, where.
#[derive(Clone, Copy, Debug)]
pub struct PermissionQuery<'a> {
    /// Who.
    pub subject: Subject<'a>,
    /// Where.
    pub scope: Scope<'a>,
    /// The operations that are decided one by one; `None`: every string without wildcard that stands in a role of
    /// the policy, on the plane of its list.
    pub operations: Option<&'a [KnownOperation]>,
}

/// What a subject may do at a scope.
#[derive(Clone, Debug, Default)]
pub struct PermissionList {
    /// Role assignments of the subject's principals that hold now, at the scope or above it: the most specific
    /// scope first, then by name. Each gives its patterns less its exclusions, under its conditions; they are
    /// united.
    pub grants: Vec<PermissionGrant>,
    /// Deny assignments that apply to the subject at the scope: the most specific scope first, then by name. They
    /// take away from all grants.
    pub denies: Vec<PermissionDeny>,
    /// Roles that the subject may activate at the scope, the most specific scope first, then by name.
    pub eligible: Vec<RoleActivation>,
    /// The known operations that are not simply not granted, by name and then by plane.
    pub operations: Vec<PermittedOperation>,
    /// Whether something was left out because there is too much: grants, deny assignments and eligibilities behind
    /// the first 1,000, grants and deny assignments behind the first 10,000 patterns, operations behind the first
    /// 5,000.
    pub truncated: bool,
}

/// A role assignment and what its role gives.
#[derive(Clone, Debug)]
pub struct PermissionGrant {
    /// Which.
    pub assignment: AssignmentInfo,
    /// What the role gives, block by block.
    pub blocks: Vec<PermissionPatterns>,
    /// The conditions on the assignment as they are written, its own and that of the eligibility that it was
    /// activated from. All have to be true.
    pub conditions: Vec<String>,
    /// Whether a condition of it cannot be used: then it grants nothing.
    pub unusable: bool,
}

/// A deny assignment and what it takes away.
#[derive(Clone, Debug)]
pub struct PermissionDeny {
    /// Full id.
    pub id: String,
    /// Display name, where the document gives one.
    pub name: Option<String>,
    /// Where it stands.
    pub scope: String,
    /// Whether a hit blocks or is only reported.
    pub effect: DenyEffect,
    /// What it takes away, block by block; the exclusions of a block are exempt.
    pub blocks: Vec<PermissionPatterns>,
    /// Its condition as it is written. It applies unless that is false.
    pub condition: Option<String>,
}

/// The patterns of one permission block, each list in byte order, letter case ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PermissionPatterns {
    /// Control plane.
    pub actions: Vec<String>,
    /// Taken away from `actions`.
    pub not_actions: Vec<String>,
    /// Data plane.
    pub data_actions: Vec<String>,
    /// Taken away from `data_actions`.
    pub not_data_actions: Vec<String>,
    /// The block's own condition as it is written.
    pub condition: Option<String>,
    /// Whether that condition cannot be used: then a block of a role grants nothing, and one of a deny assignment
    /// applies.
    pub unusable: bool,
}

/// A known operation that something grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermittedOperation {
    /// Which.
    pub operation: KnownOperation,
    /// Whether it may be done.
    pub outcome: OperationOutcome,
    /// Full id of the role assignment that grants, the one that Check would name; for
    /// [`OperationOutcome::Conditional`] one that may.
    pub role_assignment_id: String,
    /// Full id of the deny assignment that blocks, or whose condition may let it.
    pub deny_assignment_id: Option<String>,
}

/// Whether a known operation may be done, whatever attributes a request brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationOutcome {
    /// Granted, and no deny assignment blocks it. A condition that is true whatever attributes there are, since it is
    /// about other actions or about the time only, counts as none.
    Allowed,
    /// It depends on a condition that reads attributes or the suboperation, of the grant or of a deny assignment.
    Conditional,
    /// Granted, perhaps under a condition, and a deny assignment blocks it whatever attributes there are.
    Denied,
}

// === list principals ===

/// What who may do is listed, where.
#[derive(Clone, Copy, Debug)]
pub struct PrincipalQuery<'a> {
    /// What for.
    pub action: super::Action<'a>,
    /// On which plane.
    pub plane: Plane,
    /// Where.
    pub scope: Scope<'a>,
}

/// Who may do an action at a scope. Groups stand for themselves beside the members that the policy knows: a caller
/// may vouch for a membership that no document names.
#[derive(Clone, Debug, Default)]
pub struct PrincipalList {
    /// Those to whom something grants the action and whom no deny assignment keeps from it without condition, by
    /// id.
    pub principals: Vec<PermittedPrincipal>,
    /// Those to whom something grants the action and whom a deny assignment without condition keeps from it, by id.
    pub denied: Vec<DeniedPrincipal>,
    /// Those who may activate a role that grants the action, by id, then by the eligibility's id.
    pub eligible: Vec<EligiblePrincipal>,
    /// The enforced deny assignments at the scope or above it that speak of the action: the most specific scope
    /// first, then by name. What they say of all principals or of groups counts also for principals that are not
    /// listed.
    pub denies: Vec<PrincipalDeny>,
    /// Whether something was left out because there is too much: what stands behind the first 1,000 of a list.
    pub truncated: bool,
}

/// A principal that may do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermittedPrincipal {
    /// Object id.
    pub id: String,
    /// Whether the policy knows it as a group.
    pub is_group: bool,
    /// What grants or may grant: the one that Check would name where no attributes decide, then the most specific
    /// scope first, then by name. Never empty; at most 16.
    pub through: Vec<Through>,
    /// Whether it depends on a condition that reads attributes or the suboperation: no grant is without one, or a
    /// deny assignment with one applies.
    pub conditional: bool,
}

/// What grants, and how it reaches the principal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Through {
    /// The role assignment; its window says until when.
    pub assignment: AssignmentInfo,
    /// Whether it depends on a condition that reads attributes or the suboperation.
    pub conditional: bool,
}

/// A principal that could do it but for a deny assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeniedPrincipal {
    /// Object id.
    pub id: String,
    /// Whether the policy knows it as a group.
    pub is_group: bool,
    /// What grants: the one that Check would name without the deny assignment.
    pub through: Through,
    /// Full id of the deny assignment that Check names.
    pub deny_assignment_id: String,
}

/// A principal that may activate a role that grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EligiblePrincipal {
    /// Object id.
    pub id: String,
    /// Whether the policy knows it as a group.
    pub is_group: bool,
    /// What it may activate; its `principal_id` is the group where the eligibility is one's.
    pub activation: RoleActivation,
}

/// A deny assignment that speaks of the action, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrincipalDeny {
    /// Full id.
    pub id: String,
    /// Display name, where the document gives one.
    pub name: Option<String>,
    /// Where it stands.
    pub scope: String,
    /// Whether it is for everybody but those it excludes.
    pub all_principals: bool,
    /// Object ids that it lists, without the one that stands for all principals, by id.
    pub principals: Vec<String>,
    /// Object ids that it exempts, by id.
    pub exclude_principals: Vec<String>,
    /// Its condition as it is written. It applies unless that is false.
    pub condition: Option<String>,
}

// === impls ===

impl Window {
    /// Whether it holds at a time.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.start.is_none_or(|start| start <= now) && self.end.is_none_or(|end| now < end)
    }
}

impl AssignmentOutcome {
    /// Whether it grants.
    pub const fn grants(&self) -> bool {
        matches!(self, Self::Granted { .. })
    }
}

impl ClauseTruth {
    /// The word on every interface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::False => "false",
            Self::Undefined => "undefined",
            Self::True => "true",
        }
    }
}

impl OperationOutcome {
    /// The word on every interface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "Allowed",
            Self::Conditional => "Conditional",
            Self::Denied => "Denied",
        }
    }
}
