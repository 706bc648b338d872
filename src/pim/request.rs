//! The checks of a request, in the order of section 5.4: what may be created or activated at all, what is
//! already there or pending, the schedule, the policy rules, the authentication context.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::{AdminRules, Event, IsoDuration, PolicyRules, Refusal, State, Status};
use crate::model::{Guid, PrincipalId, Scope, ScopeKind};

/// The shortest assignment, and the shortest time before a deactivation.
const FIVE_MINUTES: SignedDuration = SignedDuration::from_mins(5);

/// How long before its end somebody may ask to extend.
const EXTEND_WITHIN: SignedDuration = SignedDuration::from_hours(14 * 24);

/// How long after its end somebody may ask to renew.
const RENEW_WITHIN: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What a request is judged against.
#[derive(Clone, Copy)]
pub struct Situation<'a> {
    /// The rules of the role at the scope: policies are not inherited, so picking the one is the caller's.
    pub rules: &'a PolicyRules,
    /// Switches.
    pub options: Options,
    /// Eligible schedules with status `Provisioned`, also those that have ended: renewals look for them.
    pub eligibilities: &'a [Schedule<'a>],
    /// Active schedules with status `Provisioned`, assigned and activated, also those that have ended.
    pub assignments: &'a [Schedule<'a>],
    /// Requests that were submitted, in whatever state.
    pub pending: &'a [PendingRequest<'a>],
    /// Every group that contains who asks, directly or through other groups.
    pub groups: &'a [PrincipalId<'a>],
    /// The applies-to rule (section 1.6) of a scope on a target: by text that is [`Scope::contains`],
    /// management groups need the hierarchy.
    pub covers: &'a dyn Fn(Scope<'_>, Scope<'_>) -> bool,
}

/// Switches of this reference's own choices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether somebody may be made eligible at a resource (section 9, row 22).
    pub eligible_at_resource: bool,
}

/// An eligible or active schedule.
#[derive(Clone, Copy, Debug)]
pub struct Schedule<'a> {
    /// Its name.
    pub name: &'a str,
    /// Who is eligible or active.
    pub principal_id: PrincipalId<'a>,
    /// Bare GUID or full id.
    pub role_definition_id: &'a str,
    /// Where.
    pub scope: Scope<'a>,
    /// Included; `None`: always begun.
    pub start: Option<Timestamp>,
    /// Excluded; `None`: never.
    pub end: Option<Timestamp>,
    /// Condition text; an activation takes it over.
    pub condition: Option<&'a str>,
    /// `Assigned` for eligibilities.
    pub assignment_type: AssignmentType,
    /// `linkedRoleEligibilityScheduleId` of an activation.
    pub linked_eligibility: Option<&'a str>,
}

/// How an active schedule came to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AssignmentType {
    /// By an administrator.
    #[default]
    Assigned,
    /// From an eligibility.
    Activated,
}

/// A request that was submitted earlier.
#[derive(Clone, Copy, Debug)]
pub struct PendingRequest<'a> {
    /// Its name.
    pub request_id: &'a str,
    /// What was asked.
    pub request_type: RequestType,
    /// About which kind of schedule.
    pub target: Target,
    /// Who asked.
    pub requestor: PrincipalId<'a>,
    /// Who is to have the role.
    pub principal_id: PrincipalId<'a>,
    /// Every group that contains the principal.
    pub groups: &'a [PrincipalId<'a>],
    /// Which role.
    pub role_definition_id: &'a str,
    /// Where.
    pub scope: Scope<'a>,
    /// Where it stands.
    pub state: State,
    /// The start that was asked for.
    pub start: Option<Timestamp>,
    /// The end that was asked for.
    pub expiration: Expiration,
    /// The eligibility that was named or found.
    pub linked_eligibility: Option<&'a str>,
}

/// A request as it came (section 5.4). Whether an administrator may write role assignments at the scope is an
/// ordinary check (section 1.9) and comes first, at the caller.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// What is asked.
    pub request_type: RequestType,
    /// About which kind of schedule; activations are assignments.
    pub target: Target,
    /// Who asks.
    pub requestor: PrincipalId<'a>,
    /// The type of who asks, where known: only users activate.
    pub requestor_type: Option<PrincipalType>,
    /// Who is to have the role, or has it.
    pub principal_id: PrincipalId<'a>,
    /// Its type, where known.
    pub principal_type: Option<PrincipalType>,
    /// Bare GUID or full id.
    pub role_definition_id: &'a str,
    /// Where.
    pub scope: Scope<'a>,
    /// Why.
    pub justification: Option<&'a str>,
    /// For what.
    pub ticket: Option<Ticket<'a>>,
    /// From when; now where absent or past.
    pub start: Option<Timestamp>,
    /// Until when; [`Expiration::NoExpiration`] where the request does not say.
    pub expiration: Expiration,
    /// What the token of who asks says.
    pub claims: Claims<'a>,
    /// `linkedRoleEligibilityScheduleId` or `targetRoleEligibilityScheduleId`: activate from this one only.
    pub linked_eligibility: Option<&'a str>,
}

/// `requestType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestType {
    /// An administrator makes somebody eligible or active.
    AdminAssign,
    /// An administrator changes that.
    AdminUpdate,
    /// An administrator takes it away.
    AdminRemove,
    /// An administrator moves the end before it is reached.
    AdminExtend,
    /// An administrator gives it again after the end.
    AdminRenew,
    /// Somebody eligible becomes active.
    SelfActivate,
    /// And stops being active.
    SelfDeactivate,
    /// Asks an administrator to move the end.
    SelfExtend,
    /// Asks an administrator to give it again.
    SelfRenew,
}

/// The kind of schedule that a request is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Target {
    /// Active: `roleAssignmentScheduleRequests`.
    #[default]
    Assignment,
    /// Eligible: `roleEligibilityScheduleRequests`.
    Eligibility,
}

/// `principalType` (section 1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrincipalType {
    /// A person.
    User,
    /// A security group.
    Group,
    /// An application, service principal or managed identity.
    ServicePrincipal,
    /// A group of another tenant.
    ForeignGroup,
    /// A device.
    Device,
}

/// `expiration`.
#[derive(Clone, Copy, Debug, Default)]
pub enum Expiration {
    /// So long after the start.
    AfterDuration(IsoDuration),
    /// At this instant.
    AfterDateTime(Timestamp),
    /// Never.
    #[default]
    NoExpiration,
}

/// `ticketInfo`: recorded, never looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket<'a> {
    /// `ticketNumber`.
    pub number: &'a str,
    /// `ticketSystem`.
    pub system: &'a str,
}

/// What the token says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims<'a> {
    /// Whether it was issued after multifactor authentication.
    pub mfa: bool,
    /// Its authentication contexts.
    pub acrs: Vec<&'a str>,
}

/// What somebody says to a request that waits.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Which request.
    pub request_id: &'a str,
    /// Who answers.
    pub requestor: PrincipalId<'a>,
    /// The type of who answers, where known: service principals do not approve.
    pub requestor_type: Option<PrincipalType>,
    /// What.
    pub verdict: Verdict,
}

/// Yes, no, or never mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Approve,
    /// No.
    Deny,
    /// Withdrawn by who asked.
    Cancel,
}

/// A request that passed its checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted<'a> {
    /// Where it stands now, for the caller to keep.
    pub state: State,
    /// When the schedule holds; `None` while nobody has decided and when it ends something.
    pub window: Option<Window>,
    /// The eligibility that an activation comes from.
    pub linked_eligibility: Option<&'a str>,
    /// The condition that an activation takes over from it (section 5.6).
    pub condition: Option<&'a str>,
    /// Names of the schedules that end now: what is removed, and the activations linked to it.
    pub ends: Vec<&'a str>,
}

/// Start included, end excluded; no end is forever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First instant.
    pub start: Timestamp,
    /// First instant behind.
    pub end: Option<Timestamp>,
}

/// A request that did not pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}{}", Listed(rules))]
pub struct Refused {
    /// The code.
    pub error: ErrorCode,
    /// The policy rules that failed, in the order they are told; empty unless the code is the wrapper.
    pub rules: Vec<Rule>,
    /// Where the request that was answered stands, when it no longer waits.
    pub status: Option<Status>,
}

/// Why a request is refused: codes of the service, and ours where it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ErrorCode {
    /// The wrapper of policy rules.
    #[error("the policy of the role does not allow the request")]
    RoleAssignmentRequestPolicyValidationFailed,
    /// The token lacks the authentication context.
    #[error("the token does not carry the authentication context that the policy asks for")]
    RoleAssignmentRequestAcrsValidationFailed,
    /// Same role, principal and scope.
    #[error("the principal already has the role at the scope")]
    RoleAssignmentExists,
    /// Same role, principal and scope.
    #[error("a request for the same role, principal and scope is pending")]
    PendingRoleAssignmentRequest,
    /// Nothing to remove, change, extend or renew.
    #[error("the principal does not have the role at the scope")]
    RoleAssignmentDoesNotExist,
    /// Within five minutes of the activation.
    #[error("the role was activated less than five minutes ago")]
    ActiveDurationTooShort,
    /// Under five minutes, end before start, outside the time for extending or renewing.
    #[error("the schedule of the request is not valid")]
    InvalidRoleAssignmentRequestSchedule,
    /// Ours.
    #[error("only users and groups can be eligible")]
    EligiblePrincipalTypeNotAllowed,
    /// Ours.
    #[error("nobody can be eligible at this scope")]
    EligibleScopeNotAllowed,
    /// By analogy.
    #[error("the requestor may not do this")]
    AuthorizationFailed,
    /// Ours.
    #[error("no request has this name")]
    RoleAssignmentRequestDoesNotExist,
    /// Ours.
    #[error("the request no longer waits for this answer")]
    RoleAssignmentRequestNotPending,
}

/// Policy rules by the names that refusals carry, in the order they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Not eligible, not now, or not there; stands alone.
    EligibilityRule,
    /// Multifactor authentication.
    MfaRule,
    /// A reason.
    JustificationRule,
    /// A ticket.
    TicketingRule,
    /// Too long or without end.
    ExpirationRule,
}

// === impls ===

impl fmt::Debug for Situation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Situation").field("rules", self.rules).finish_non_exhaustive()
    }
}

impl<'a> Situation<'a> {
    /// Judges a request that was just submitted.
    ///
    /// # Errors
    ///
    /// The first group of checks that fails, with every policy rule of its group.
    pub fn judge(&self, request: &Request<'a>, now: Timestamp) -> Result<Accepted<'a>, Refused> {
        if request.request_type.is_self() && request.requestor != request.principal_id {
            return Err(ErrorCode::AuthorizationFailed.into());
        }
        match request.request_type {
            RequestType::SelfActivate => self.activate(request, now),
            RequestType::SelfDeactivate => self.deactivate(request, now),
            RequestType::AdminAssign | RequestType::AdminUpdate => self.assign(request, now),
            RequestType::AdminRemove => self.remove(request, now),
            RequestType::AdminExtend
            | RequestType::AdminRenew
            | RequestType::SelfExtend
            | RequestType::SelfRenew => self.prolong(request, now),
        }
    }

    /// Judges an answer to a request that waits: of an approver to an activation, of an administrator to an
    /// extension or renewal (whose right to write role assignments the caller has checked), or the withdrawal
    /// by who asked.
    ///
    /// # Errors
    ///
    /// As [`Situation::judge`]; a request that no longer waits comes with its status. The first answer
    /// counts.
    pub fn answer(&self, answer: &Answer<'_>, now: Timestamp) -> Result<Accepted<'a>, Refused> {
        let Some(asked) = self.pending.iter().find(|asked| asked.request_id == answer.request_id) else {
            return Err(ErrorCode::RoleAssignmentRequestDoesNotExist.into());
        };
        let own = answer.requestor == asked.requestor || answer.requestor == asked.principal_id;
        let prolongs = asked.request_type != RequestType::SelfActivate;
        let may_answer = match answer.verdict {
            Verdict::Cancel => own,
            _ if own || answer.requestor_type == Some(PrincipalType::ServicePrincipal) => false,
            _ => prolongs || self.is_approver(answer.requestor),
        };
        if !may_answer {
            return Err(ErrorCode::AuthorizationFailed.into());
        }
        let event = match answer.verdict {
            Verdict::Cancel => Event::Cancel,
            Verdict::Approve if prolongs => Event::AdminApprove,
            Verdict::Approve => Event::Approve,
            Verdict::Deny if prolongs => Event::AdminDeny,
            Verdict::Deny => Event::Deny,
        };
        let state = asked.state.apply(event, now)?;
        if answer.verdict != Verdict::Approve {
            return Ok(Accepted::state(state));
        }
        // The period starts when the approval provisions it, so what it rests on is looked at again.
        if prolongs {
            let old = self.latest(Triple::of_pending(asked), asked.target);
            let old = old.ok_or(ErrorCode::RoleAssignmentDoesNotExist)?;
            // The times for asking bound the asking, not the decision.
            let decided = match asked.request_type {
                RequestType::SelfRenew => RequestType::AdminRenew,
                _ => RequestType::AdminExtend,
            };
            let window = prolonged(decided, &old, asked.start, asked.expiration, now)?;
            let refused = self.admin_rules(asked.target).expiration(window);
            refused.map_or(Ok(()), |rule| Err(Refused::rules(vec![rule])))?;
            let state = state.apply(Event::Provision { start: window.start }, now)?;
            return Ok(Accepted { window: Some(window), ..Accepted::state(state) });
        }
        let eligibility = self.eligibility(asked, now)?;
        let window = cut(window(asked.start, asked.expiration, now)?, &eligibility)?;
        let state = state.apply(Event::Provision { start: window.start }, now)?;
        Ok(Accepted {
            window: Some(window),
            linked_eligibility: Some(eligibility.name),
            condition: eligibility.condition,
            ..Accepted::state(state)
        })
    }

    // --- self ---

    fn activate(&self, request: &Request<'a>, now: Timestamp) -> Result<Accepted<'a>, Refused> {
        if request.requestor_type.is_some_and(|kind| kind != PrincipalType::User) {
            return Err(Refused::rules(vec![Rule::EligibilityRule]));
        }
        let triple = Triple::of(request);
        let eligibility = self.eligibility_of(triple, self.groups, request.linked_eligibility, now)?;
        self.nothing_there(triple, Target::Assignment, now)?;

        let asked = window(request.start, request.expiration, now)?;
        let window = cut(asked, &eligibility)?;

        let rules = &self.rules.activation;
        let mut failed = enablement(rules.mfa, rules.justification, rules.ticketing, request);
        // What is too long is what was asked for, not what the eligibility's end left of it.
        let too_long = match (asked.end, rules.max_duration) {
            (None, _) => true,
            (Some(end), Some(max)) => max.after(asked.start).is_some_and(|latest| end > latest),
            (Some(_), None) => false,
        };
        if too_long {
            failed.push(Rule::ExpirationRule);
        }
        if !failed.is_empty() {
            return Err(Refused::rules(failed));
        }
        if let Some(context) = &rules.authentication_context
            && !request.claims.acrs.contains(&context.as_str())
        {
            return Err(ErrorCode::RoleAssignmentRequestAcrsValidationFailed.into());
        }
        let from_eligibility =
            |state| Accepted { linked_eligibility: Some(eligibility.name), ..Accepted::state(state) };
        if rules.approval.is_some() {
            return Ok(from_eligibility(State::waiting_for_approval(now)));
        }
        Ok(Accepted {
            window: Some(window),
            condition: eligibility.condition,
            ..from_eligibility(State::written(window.start, now))
        })
    }

    fn deactivate(&self, request: &Request<'a>, now: Timestamp) -> Result<Accepted<'a>, Refused> {
        let triple = Triple::of(request);
        let running: Vec<_> = self
            .same(triple, Target::Assignment)
            .filter(|schedule| {
                schedule.assignment_type == AssignmentType::Activated && schedule.is_active_at(now)
            })
            .collect();
        if running.is_empty() {
            return Err(ErrorCode::RoleAssignmentDoesNotExist.into());
        }
        if running
            .iter()
            .filter_map(|schedule| schedule.start)
            .any(|start| now.duration_since(start) < FIVE_MINUTES)
        {
            return Err(ErrorCode::ActiveDurationTooShort.into());
        }
        Ok(Accepted {
            ends: running.iter().map(|schedule| schedule.name).collect(),
            ..Accepted::state(State::Revoked)
        })
    }

    // --- administrators ---

    fn assign(&self, request: &Request<'a>, now: Timestamp) -> Result<Accepted<'a>, Refused> {
        if request.target == Target::Eligibility {
            self.may_be_eligible(request)?;
        }
        let triple = Triple::of(request);
        if request.request_type == RequestType::AdminAssign {
            self.nothing_there(triple, request.target, now)?;
        } else if !self.same(triple, request.target).any(|schedule| !schedule.has_ended(now)) {
            return Err(ErrorCode::RoleAssignmentDoesNotExist.into());
        }
        let window = window(request.start, request.expiration, now)?;
        self.admin_rules(request.target).check(request, window)?;
        Ok(Accepted { window: Some(window), ..Accepted::state(State::written(window.start, now)) })
    }

    fn may_be_eligible(&self, request: &Request<'_>) -> Result<(), Refused> {
        // An absent type is the caller's to resolve; whoever slips through cannot activate as no user.
        if request
            .principal_type
            .is_some_and(|kind| !matches!(kind, PrincipalType::User | PrincipalType::Group))
        {
            return Err(ErrorCode::EligiblePrincipalTypeNotAllowed.into());
        }
        match request.scope.kind() {
            ScopeKind::ManagementGroup | ScopeKind::Subscription | ScopeKind::ResourceGroup => Ok(()),
            ScopeKind::Resource if self.options.eligible_at_resource => Ok(()),
            ScopeKind::Resource | ScopeKind::Root | ScopeKind::Provider => {
                Err(ErrorCode::EligibleScopeNotAllowed.into())
            }
        }
    }

    fn remove(&self, request: &Request<'a>, now: Timestamp) -> Result<Accepted<'a>, Refused> {
        let mut ends: Vec<&'a str> = self
            .same(Triple::of(request), request.target)
            .filter(|schedule| !schedule.has_ended(now))
            .map(|schedule| schedule.name)
            .collect();
        if ends.is_empty() {
            return Err(ErrorCode::RoleAssignmentDoesNotExist.into());
        }
        if request.target == Target::Eligibility {
            let linked = self.assignments.iter().filter(|assignment| {
                !assignment.has_ended(now)
                    && assignment
                        .linked_eligibility
                        .is_some_and(|linked| ends.iter().any(|name| same_name(name, linked)))
            });
            let linked: Vec<&'a str> = linked.map(|assignment| assignment.name).collect();
            ends.extend(linked);
        }
        Ok(Accepted { ends, ..Accepted::state(State::Revoked) })
    }

    // --- extend and renew ---

    fn prolong(&self, request: &Request<'a>, now: Timestamp) -> Result<Accepted<'a>, Refused> {
        if request.target == Target::Eligibility {
            self.may_be_eligible(request)?;
        }
        let triple = Triple::of(request);
        let by_self = request.request_type.is_self();
        let old = match self.latest(triple, request.target) {
            Some(old) => old,
            // Members do not speak for the group that has the role.
            None if by_self
                && self.groups.iter().any(|&principal| {
                    self.latest(Triple { principal, ..triple }, request.target).is_some()
                }) =>
            {
                return Err(ErrorCode::AuthorizationFailed.into());
            }
            None => return Err(ErrorCode::RoleAssignmentDoesNotExist.into()),
        };
        if self.is_pending(triple, request.target, now) {
            return Err(ErrorCode::PendingRoleAssignmentRequest.into());
        }
        let window = prolonged(request.request_type, &old, request.start, request.expiration, now)?;
        let rules = self.admin_rules(request.target);
        if by_self {
            // Reason and authentication are asked of the administrator who decides.
            rules.expiration(window).map_or(Ok(()), |rule| Err(Refused::rules(vec![rule])))?;
            return Ok(Accepted::state(State::PendingAdminDecision));
        }
        rules.check(request, window)?;
        Ok(Accepted { window: Some(window), ..Accepted::state(State::written(window.start, now)) })
    }

    // --- look-ups ---

    fn eligibility(&self, asked: &PendingRequest<'a>, now: Timestamp) -> Result<Schedule<'a>, Refused> {
        self.eligibility_of(Triple::of_pending(asked), asked.groups, asked.linked_eligibility, now)
    }

    /// The eligibility to activate from: the one that lasts longest, of those the one with the smallest name.
    fn eligibility_of(
        &self,
        triple: Triple<'_>,
        groups: &[PrincipalId<'_>],
        named: Option<&str>,
        now: Timestamp,
    ) -> Result<Schedule<'a>, Refused> {
        let usable = self.eligibilities.iter().filter(|eligible| {
            (eligible.principal_id == triple.principal || groups.contains(&eligible.principal_id))
                && same_role(eligible.role_definition_id, triple.role)
                && eligible.is_active_at(now)
                && named.is_none_or(|name| same_name(name, eligible.name))
                && (self.covers)(eligible.scope, triple.scope)
        });
        usable
            .min_by_key(|eligible| {
                (
                    std::cmp::Reverse(eligible.end.unwrap_or(Timestamp::MAX)),
                    eligible.end.is_some(),
                    eligible.name,
                )
            })
            .copied()
            .ok_or_else(|| Refused::rules(vec![Rule::EligibilityRule]))
    }

    fn same(&self, triple: Triple<'_>, target: Target) -> impl Iterator<Item = Schedule<'a>> {
        let list = match target {
            Target::Assignment => self.assignments,
            Target::Eligibility => self.eligibilities,
        };
        list.iter().copied().filter(move |schedule| {
            schedule.principal_id == triple.principal
                && schedule.scope == triple.scope
                && same_role(schedule.role_definition_id, triple.role)
        })
    }

    /// The one of several that ends last.
    fn latest(&self, triple: Triple<'_>, target: Target) -> Option<Schedule<'a>> {
        self.same(triple, target).max_by_key(|schedule| schedule.end.unwrap_or(Timestamp::MAX))
    }

    fn nothing_there(&self, triple: Triple<'_>, target: Target, now: Timestamp) -> Result<(), Refused> {
        // One that begins later is there as well: two schedules of one kind for one triple would overlap.
        if self.same(triple, target).any(|schedule| !schedule.has_ended(now)) {
            return Err(ErrorCode::RoleAssignmentExists.into());
        }
        if self.is_pending(triple, target, now) {
            return Err(ErrorCode::PendingRoleAssignmentRequest.into());
        }
        Ok(())
    }

    fn is_pending(&self, triple: Triple<'_>, target: Target, now: Timestamp) -> bool {
        self.pending.iter().any(|asked| {
            asked.target == target
                && asked.principal_id == triple.principal
                && asked.scope == triple.scope
                && same_role(asked.role_definition_id, triple.role)
                && asked.state.at(now).is_pending()
        })
    }

    fn is_approver(&self, requestor: PrincipalId<'_>) -> bool {
        let approvers = self.rules.activation.approval.iter().flat_map(|approval| &approval.approvers);
        approvers.map(|id| PrincipalId::new(id)).any(|id| id == requestor || self.groups.contains(&id))
    }

    const fn admin_rules(&self, target: Target) -> &'a AdminRules {
        match target {
            Target::Assignment => &self.rules.active,
            Target::Eligibility => &self.rules.eligible,
        }
    }
}

/// What makes two schedules the same: role, principal and scope.
#[derive(Clone, Copy)]
struct Triple<'a> {
    principal: PrincipalId<'a>,
    role: &'a str,
    scope: Scope<'a>,
}

impl<'a> Triple<'a> {
    const fn of(request: &Request<'a>) -> Self {
        Self { principal: request.principal_id, role: request.role_definition_id, scope: request.scope }
    }

    const fn of_pending(asked: &PendingRequest<'a>) -> Self {
        Self { principal: asked.principal_id, role: asked.role_definition_id, scope: asked.scope }
    }
}

impl AdminRules {
    fn check(&self, request: &Request<'_>, window: Window) -> Result<(), Refused> {
        let mut failed = enablement(self.mfa, self.justification, self.ticketing, request);
        failed.extend(self.expiration(window));
        if failed.is_empty() { Ok(()) } else { Err(Refused::rules(failed)) }
    }

    fn expiration(&self, window: Window) -> Option<Rule> {
        let within = match (window.end, self.max_duration) {
            (None, _) => false,
            (Some(end), Some(max)) => max.after(window.start).is_none_or(|latest| end <= latest),
            (Some(_), None) => true,
        };
        (self.expiration_required && !within).then_some(Rule::ExpirationRule)
    }
}

impl Schedule<'_> {
    /// Whether it holds at an instant: start included, end excluded (section 5.5).
    pub fn is_active_at(&self, at: Timestamp) -> bool {
        self.start.is_none_or(|start| start <= at) && !self.has_ended(at)
    }

    fn has_ended(&self, at: Timestamp) -> bool {
        self.end.is_some_and(|end| end <= at)
    }
}

impl Accepted<'_> {
    const fn state(state: State) -> Self {
        Self { state, window: None, linked_eligibility: None, condition: None, ends: Vec::new() }
    }

    /// The name of its state on the API.
    pub const fn status(&self) -> Status {
        self.state.status()
    }
}

impl Refused {
    const fn rules(rules: Vec<Rule>) -> Self {
        Self { error: ErrorCode::RoleAssignmentRequestPolicyValidationFailed, rules, status: None }
    }
}

impl From<ErrorCode> for Refused {
    fn from(error: ErrorCode) -> Self {
        Self { error, rules: Vec::new(), status: None }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self { status: Some(refusal.status), ..ErrorCode::RoleAssignmentRequestNotPending.into() }
    }
}

impl RequestType {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::AdminAssign,
        Self::AdminUpdate,
        Self::AdminRemove,
        Self::AdminExtend,
        Self::AdminRenew,
        Self::SelfActivate,
        Self::SelfDeactivate,
        Self::SelfExtend,
        Self::SelfRenew,
    ];

    /// Reads a name of the API, in any letter case.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    /// The name of the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AdminAssign => "AdminAssign",
            Self::AdminUpdate => "AdminUpdate",
            Self::AdminRemove => "AdminRemove",
            Self::AdminExtend => "AdminExtend",
            Self::AdminRenew => "AdminRenew",
            Self::SelfActivate => "SelfActivate",
            Self::SelfDeactivate => "SelfDeactivate",
            Self::SelfExtend => "SelfExtend",
            Self::SelfRenew => "SelfRenew",
        }
    }

    const fn is_self(self) -> bool {
        matches!(self, Self::SelfActivate | Self::SelfDeactivate | Self::SelfExtend | Self::SelfRenew)
    }

    const fn extends(self) -> bool {
        matches!(self, Self::SelfExtend | Self::AdminExtend)
    }
}

impl PrincipalType {
    /// Reads a name of the API, in any letter case.
    pub fn parse(name: &str) -> Option<Self> {
        [
            ("User", Self::User),
            ("Group", Self::Group),
            ("ServicePrincipal", Self::ServicePrincipal),
            ("ForeignGroup", Self::ForeignGroup),
            ("Device", Self::Device),
        ]
        .into_iter()
        .find_map(|(known, kind)| known.eq_ignore_ascii_case(name).then_some(kind))
    }
}

impl ErrorCode {
    /// The code on every interface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoleAssignmentRequestPolicyValidationFailed => {
                "RoleAssignmentRequestPolicyValidationFailed"
            }
            Self::RoleAssignmentRequestAcrsValidationFailed => "RoleAssignmentRequestAcrsValidationFailed",
            Self::RoleAssignmentExists => "RoleAssignmentExists",
            Self::PendingRoleAssignmentRequest => "PendingRoleAssignmentRequest",
            Self::RoleAssignmentDoesNotExist => "RoleAssignmentDoesNotExist",
            Self::ActiveDurationTooShort => "ActiveDurationTooShort",
            Self::InvalidRoleAssignmentRequestSchedule => "InvalidRoleAssignmentRequestSchedule",
            Self::EligiblePrincipalTypeNotAllowed => "EligiblePrincipalTypeNotAllowed",
            Self::EligibleScopeNotAllowed => "EligibleScopeNotAllowed",
            Self::AuthorizationFailed => "AuthorizationFailed",
            Self::RoleAssignmentRequestDoesNotExist => "RoleAssignmentRequestDoesNotExist",
            Self::RoleAssignmentRequestNotPending => "RoleAssignmentRequestNotPending",
        }
    }
}

impl Rule {
    /// The name on every interface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EligibilityRule => "EligibilityRule",
            Self::MfaRule => "MfaRule",
            Self::JustificationRule => "JustificationRule",
            Self::TicketingRule => "TicketingRule",
            Self::ExpirationRule => "ExpirationRule",
        }
    }
}

/// Failing rules behind a message.
struct Listed<'a>(&'a [Rule]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, rule) in self.0.iter().enumerate() {
            write!(f, "{} {}", if index == 0 { ":" } else { "," }, rule.name())?;
        }
        Ok(())
    }
}

// === helpers ===

/// The rules that ask for more than a period, in their order.
fn enablement(mfa: bool, justification: bool, ticketing: bool, request: &Request<'_>) -> Vec<Rule> {
    let given = |text: &str| !text.trim().is_empty();
    let mut failed = Vec::new();
    if mfa && !request.claims.mfa {
        failed.push(Rule::MfaRule);
    }
    if justification && !request.justification.is_some_and(given) {
        failed.push(Rule::JustificationRule);
    }
    if ticketing && !request.ticket.is_some_and(|ticket| given(ticket.number)) {
        failed.push(Rule::TicketingRule);
    }
    failed
}

/// The period that is asked for. One that should have begun earlier begins now, at its full length: clocks
/// differ, and an approval comes later than the start that was asked for.
fn window(start: Option<Timestamp>, expiration: Expiration, now: Timestamp) -> Result<Window, Refused> {
    let invalid = ErrorCode::InvalidRoleAssignmentRequestSchedule;
    let start = start.map_or(now, |start| start.max(now));
    let end = match expiration {
        Expiration::AfterDuration(duration) => Some(duration.after(start).ok_or(invalid)?),
        Expiration::AfterDateTime(end) => Some(end),
        Expiration::NoExpiration => None,
    };
    // Ends before starts are shorter still.
    if end.is_some_and(|end| end.duration_since(start) < FIVE_MINUTES) {
        return Err(invalid.into());
    }
    Ok(Window { start, end })
}

/// Access must not outlive the eligibility it comes from.
fn cut(window: Window, eligibility: &Schedule<'_>) -> Result<Window, Refused> {
    let Some(limit) = eligibility.end else { return Ok(window) };
    if window.start >= limit {
        return Err(ErrorCode::InvalidRoleAssignmentRequestSchedule.into());
    }
    Ok(Window { end: Some(window.end.map_or(limit, |end| end.min(limit))), ..window })
}

/// The period after extending or renewing. An extension is told from now on; its new end counts from the
/// start that was asked for, or now, and must lie behind the old one.
fn prolonged(
    request_type: RequestType,
    old: &Schedule<'_>,
    start: Option<Timestamp>,
    expiration: Expiration,
    now: Timestamp,
) -> Result<Window, Refused> {
    let invalid = || Refused::from(ErrorCode::InvalidRoleAssignmentRequestSchedule);
    // What never ends is neither extended nor renewed.
    let old_end = old.end.ok_or_else(invalid)?;
    let asked = window(start, expiration, now)?;
    if request_type.extends() {
        let early = request_type.is_self() && old_end.duration_since(now) > EXTEND_WITHIN;
        if early || old.has_ended(now) || asked.end.is_some_and(|end| end <= old_end) {
            return Err(invalid());
        }
        // The longest period is counted from now: the part that is over was allowed when it was given.
        return Ok(Window { start: now, end: asked.end });
    }
    let late = request_type.is_self() && now.duration_since(old_end) > RENEW_WITHIN;
    if late || !old.has_ended(now) {
        return Err(invalid());
    }
    Ok(asked)
}

/// A role by its trailing GUID (section 1.1, rule 4).
fn same_role(one: &str, other: &str) -> bool {
    let (one, other) = (last_segment(one), last_segment(other));
    match (Guid::parse(one), Guid::parse(other)) {
        (Some(one), Some(other)) => one == other,
        (None, None) => one.eq_ignore_ascii_case(other),
        _ => false,
    }
}

/// A schedule by its name, bare or at the end of an id.
fn same_name(one: &str, other: &str) -> bool {
    last_segment(one).eq_ignore_ascii_case(last_segment(other))
}

fn last_segment(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or(id)
}
