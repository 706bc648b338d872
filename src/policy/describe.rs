//! Names for people and interfaces: the ids of what decided, and the sentence that says why. Every answer carries
//! them, so each is written straight into the one string that is sent.

use std::fmt::{self, Write};

use jiff::Timestamp;

use super::layout::{
    self, Damaged, Deny, EXTRA, Entry, Extra, FROM_INSTANCE, FROM_SCHEDULE, MAX_LEVELS, NONE, ROOT, View,
};
use super::{Policy, evaluate};
use crate::model::{
    ActivationRequirements, AssignmentInfo, CheckRequest, Decision, DenyHit, Eligibility, Grant, Guid, Plane,
    PrincipalId, RoleActivation, Why, Window,
};

/// What stands where a damaged policy has no name; ids of a policy that was opened are always there.
const UNKNOWN: &str = "unknown";

/// Most ids and sentences are shorter.
const USUAL_LENGTH: usize = 256;

impl Policy {
    /// Full id of the role assignment that granted.
    pub fn role_assignment_id(&self, grant: Grant) -> String {
        self.owned(|out| self.write_role_assignment_id(grant, out))
    }

    /// The same, behind what is there.
    pub fn write_role_assignment_id(&self, grant: Grant, out: &mut String) {
        self.describe_into(out, |view, out| write_assignment_id(view, grant.assignment(), out));
    }

    /// Its name, the last segment of the id.
    pub fn role_assignment_name(&self, grant: Grant) -> String {
        self.describe(|view, out| {
            write_name(view, layout::at(view.entry_names, grant.assignment())?.get(), out)
        })
    }

    /// Full id of the role definition that granted.
    pub fn role_definition_id(&self, grant: Grant) -> String {
        self.owned(|out| self.write_role_definition_id(grant, out))
    }

    /// The same, behind what is there.
    pub fn write_role_definition_id(&self, grant: Grant, out: &mut String) {
        self.describe_into(out, |view, out| {
            let role = role_of(view, layout::at(view.entries, grant.assignment())?)?;
            write_role_definition_id(view, role, out)
        });
    }

    /// Display name of the role definition that granted.
    pub fn role_name(&self, grant: Grant) -> String {
        self.describe(|view, out| write_role_name(view, layout::at(view.entries, grant.assignment())?, out))
    }

    /// Full id of what may be activated.
    pub fn eligibility_id(&self, eligibility: Eligibility) -> String {
        self.describe(|view, out| write_eligibility_id(view, eligibility.number(), out))
    }

    /// Its name, the last segment of the id.
    pub fn eligibility_name(&self, eligibility: Eligibility) -> String {
        self.describe(|view, out| {
            write_name(view, layout::at(view.eligible_names, eligibility.number())?.get(), out)
        })
    }

    /// What may be activated, and what that takes (semantics, sections 5.1 and 5.3).
    pub fn activation(&self, eligibility: Eligibility) -> Option<RoleActivation> {
        activation(self.view(), eligibility.number()).ok()
    }

    /// Full id of a deny assignment.
    pub fn deny_assignment_id(&self, hit: DenyHit) -> String {
        self.owned(|out| self.write_deny_assignment_id(hit, out))
    }

    /// The same, behind what is there.
    pub fn write_deny_assignment_id(&self, hit: DenyHit, out: &mut String) {
        self.describe_into(out, |view, out| {
            let deny = layout::at(view.denies, hit.deny_assignment())?;
            write_object_id(view, deny.scope.get(), "denyAssignments", deny.name.get(), out)
        });
    }

    /// Its name, the last segment of the id.
    pub fn deny_assignment_name(&self, hit: DenyHit) -> String {
        self.describe(|view, out| {
            write_name(view, layout::at(view.denies, hit.deny_assignment())?.name.get(), out)
        })
    }

    /// One sentence for people: why this request was decided so.
    pub fn reason(&self, request: &CheckRequest<'_>, decision: &Decision) -> String {
        self.owned(|out| self.write_reason(request, decision, out))
    }

    /// The same, behind what is there.
    pub fn write_reason(&self, request: &CheckRequest<'_>, decision: &Decision, out: &mut String) {
        self.describe_into(out, |view, out| write_reason(view, request, decision, out));
    }

    fn owned(&self, write: impl FnOnce(&mut String)) -> String {
        let mut out = String::with_capacity(USUAL_LENGTH);
        write(&mut out);
        out
    }

    fn describe(&self, write: impl FnOnce(&View<'_>, &mut String) -> Result<(), Damaged>) -> String {
        self.owned(|out| self.describe_into(out, write))
    }

    fn describe_into(
        &self,
        out: &mut String,
        write: impl FnOnce(&View<'_>, &mut String) -> Result<(), Damaged>,
    ) {
        let begin = out.len();
        if write(self.view(), out) == Err(Damaged) {
            out.truncate(begin);
            out.push_str(UNKNOWN);
        }
    }
}

impl fmt::Display for super::Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} role definitions, {} role assignments, {} deny assignments, {} eligibilities, {} conditions, \
             {} agents, {} principals, {} scopes",
            self.role_definitions,
            self.role_assignments,
            self.deny_assignments,
            self.eligibilities,
            self.conditions,
            self.agents,
            self.principals,
            self.scopes
        )
    }
}

/// Writing to a string cannot fail.
impl From<fmt::Error> for Damaged {
    fn from(_: fmt::Error) -> Self {
        Self
    }
}

fn write_reason(
    view: &View<'_>,
    request: &CheckRequest<'_>,
    decision: &Decision,
    out: &mut String,
) -> Result<(), Damaged> {
    let plane = match request.plane {
        Plane::Control => "control-plane",
        Plane::Data => "data-plane",
    };
    let CheckRequest { action, scope: target, .. } = request;
    match decision {
        Decision::Allowed(grant) => {
            out.push_str("role \"");
            let entry = layout::at(view.entries, grant.assignment())?;
            write_role_name(view, entry, out)?;
            out.push_str("\", assigned to ");
            write_holder(request, holder(view, grant.assignment())?, out)?;
            out.push_str(" at ");
            write_scope(view, entry.scope.get(), out)?;
            out.extend([", grants ", plane, " action ", action.as_str()]);
        }
        Decision::NotAllowed(Why::NoRoleAssignment) => {
            let target = target.as_str();
            out.extend([
                "neither the subject nor a group of it has a role assignment at ",
                target,
                " or above",
            ]);
        }
        Decision::NotAllowed(Why::ActionNotGranted) => {
            write!(
                out,
                "no role assigned to the subject at {target} or above grants {plane} action {action}"
            )?;
        }
        Decision::NotAllowed(Why::NotActiveNow) => {
            write!(
                out,
                "a role assigned to the subject at {target} or above grants {plane} action {action}, but not at \
                 this time"
            )?;
        }
        Decision::NotAllowed(Why::ConditionNotMet) => {
            write!(
                out,
                "a role assigned to the subject at {target} or above grants {plane} action {action} under a \
                 condition only, and the condition is not met"
            )?;
        }
        Decision::NotAllowed(Why::Eligible(eligibility)) => {
            let entry = layout::at(view.eligibles, eligibility.number())?;
            out.push_str("nothing grants ");
            out.extend([plane, " action ", action.as_str(), " now, but role \""]);
            write_role_name(view, entry, out)?;
            out.push_str("\", which ");
            write_holder(request, eligible_holder(view, eligibility.number())?, out)?;
            out.push_str(" may activate at ");
            write_scope(view, entry.scope.get(), out)?;
            out.push_str(", would");
        }
        Decision::NotAllowed(Why::Agent(stop)) => out.push_str(stop.sentence()),
        Decision::Denied(hit) => {
            let deny = layout::at(view.denies, hit.deny_assignment())?;
            out.push_str("deny assignment ");
            write_name(view, deny.name.get(), out)?;
            out.push_str(" at ");
            write_scope(view, deny.scope.get(), out)?;
            out.extend([" blocks ", plane, " action ", action.as_str()]);
        }
    }
    Ok(())
}

/// `{scope}/providers/Microsoft.Authorization/{kind}/{name}`; the root adds nothing.
pub(super) fn write_object_id(
    view: &View<'_>,
    scope: u32,
    kind: &str,
    name: u32,
    out: &mut String,
) -> Result<(), Damaged> {
    if scope != ROOT {
        write_scope(view, scope, out)?;
    }
    out.extend(["/providers/Microsoft.Authorization/", kind, "/"]);
    write_name(view, name, out)
}

/// The text of a scope in the letter case of the documents.
pub(super) fn write_scope(view: &View<'_>, index: u32, out: &mut String) -> Result<(), Damaged> {
    let mut pieces = arrayvec::ArrayVec::<&str, { MAX_LEVELS + 1 }>::new();
    let mut next = index;
    while next != NONE {
        let record = layout::at(view.scopes, next)?;
        pieces.try_push(text(record.suffix.bytes(view.text_bytes)?)?).map_err(|_| Damaged)?;
        next = record.path_parent.get();
    }
    out.extend(pieces.into_iter().rev());
    Ok(())
}

/// Who an assignment is for.
pub(super) fn holder<'a>(view: &View<'a>, entry: u32) -> Result<PrincipalId<'a>, Damaged> {
    // Of several that begin at one entry all but the last have no assignments.
    let behind = view.principals.partition_point(|principal| principal.first_entry.get() <= entry);
    let index = behind.checked_sub(1).and_then(|index| u32::try_from(index).ok()).ok_or(Damaged)?;
    principal(view, index)
}

/// Who an eligibility is for.
pub(super) fn eligible_holder<'a>(view: &View<'a>, number: u32) -> Result<PrincipalId<'a>, Damaged> {
    // Of several that begin at one number all but the last have none.
    let behind = view.eligible_first.partition_point(|first| first.get() <= number);
    principal(view, behind.checked_sub(1).and_then(|index| u32::try_from(index).ok()).ok_or(Damaged)?)
}

/// The id of a principal.
pub(super) fn principal<'a>(view: &View<'a>, index: u32) -> Result<PrincipalId<'a>, Damaged> {
    if index < view.guid_principals {
        return Ok(PrincipalId::Guid(Guid::from_u128(layout::at(view.principals, index)?.id.get())));
    }
    Ok(PrincipalId::Text(text(evaluate::principal_text(view, index)?)?))
}

/// What an entry of the assignments or of the eligibilities says, its extra followed.
pub(super) struct DescribedEntry {
    pub(super) role: u32,
    /// When it holds; `None`: always.
    pub(super) window: Option<Window>,
    pub(super) condition: u32,
    pub(super) inherited: u32,
    /// The name of the eligibility that it was activated from.
    pub(super) eligibility: u32,
}

pub(super) fn entry(view: &View<'_>, entry: &Entry) -> Result<DescribedEntry, Damaged> {
    if entry.role.get() & EXTRA == 0 {
        let role = entry.role.get();
        return Ok(DescribedEntry {
            role,
            window: None,
            condition: NONE,
            inherited: NONE,
            eligibility: NONE,
        });
    }
    let extra = evaluate::extra_of(view, entry)?;
    let (start, end) = (since(extra), until(extra));
    Ok(DescribedEntry {
        role: extra.role.get(),
        window: (start.is_some() || end.is_some()).then_some(Window { start, end }),
        condition: extra.condition.get(),
        inherited: extra.inherited.get(),
        eligibility: extra.eligibility.get(),
    })
}

/// A role assignment or active schedule, spelled out.
pub(super) fn assignment(view: &View<'_>, number: u32) -> Result<AssignmentInfo, Damaged> {
    let entry = layout::at(view.entries, number)?;
    let DescribedEntry { window, eligibility, .. } = self::entry(view, entry)?;
    Ok(AssignmentInfo {
        id: written(|out| write_assignment_id(view, number, out))?,
        role_definition_id: written(|out| write_role_definition_id(view, role_of(view, entry)?, out))?,
        role_name: written(|out| write_role_name(view, entry, out))?,
        scope: written(|out| write_scope(view, entry.scope.get(), out))?,
        principal_id: holder(view, number)?.to_string(),
        window,
        eligibility_id: eligibility_id(view, eligibility)?,
    })
}

/// The full id of an eligibility by its name; `None` where there is no name.
pub(super) fn eligibility_id(view: &View<'_>, name: u32) -> Result<Option<String>, Damaged> {
    if name == NONE {
        return Ok(None);
    }
    let found = view.eligible_names.iter().position(|other| other.get() == name).ok_or(Damaged)?;
    let number = u32::try_from(found).map_err(|_| Damaged)?;
    written(|out| write_eligibility_id(view, number, out)).map(Some)
}

/// Full id of a role assignment or active schedule.
pub(super) fn write_assignment_id(view: &View<'_>, number: u32, out: &mut String) -> Result<(), Damaged> {
    let entry = layout::at(view.entries, number)?;
    let name = layout::at(view.entry_names, number)?.get();
    write_object_id(view, entry.scope.get(), assignment_kind(view, entry)?, name, out)
}

pub(super) fn write_role_definition_id(view: &View<'_>, role: u32, out: &mut String) -> Result<(), Damaged> {
    write_object_id(view, ROOT, "roleDefinitions", layout::at(view.roles, role)?.id.get(), out)
}

/// Full id of a deny assignment.
pub(super) fn deny_id(view: &View<'_>, deny: &Deny) -> Result<String, Damaged> {
    written(|out| write_object_id(view, deny.scope.get(), "denyAssignments", deny.name.get(), out))
}

/// Display name of a deny assignment.
pub(super) fn deny_name(view: &View<'_>, deny: &Deny) -> Result<Option<String>, Damaged> {
    let name = text(deny.display_name.bytes(view.text_bytes)?)?;
    Ok((!name.is_empty()).then(|| name.to_owned()))
}

/// What is written into a string of its own.
pub(super) fn written(write: impl FnOnce(&mut String) -> Result<(), Damaged>) -> Result<String, Damaged> {
    let mut out = String::new();
    write(&mut out)?;
    Ok(out)
}

/// An eligibility, spelled out.
pub(super) fn activation(view: &View<'_>, number: u32) -> Result<RoleActivation, Damaged> {
    let entry = layout::at(view.eligibles, number)?;
    let extra = evaluate::extra_of(view, entry)?;
    let role = extra.role.get();
    let key = (role, entry.scope.get());
    let found =
        view.activation_policies.binary_search_by_key(&key, |policy| (policy.role.get(), policy.scope.get()));
    let policy = found.ok().and_then(|index| view.activation_policies.get(index));
    Ok(RoleActivation {
        role_definition_id: written(|out| write_role_definition_id(view, role, out))?,
        role_name: written(|out| write_role_name(view, entry, out))?,
        scope: written(|out| write_scope(view, entry.scope.get(), out))?,
        eligibility_id: written(|out| write_eligibility_id(view, number, out))?,
        principal_id: eligible_holder(view, number)?.to_string(),
        eligible_until: until(extra),
        condition: condition_text(view, extra.condition.get())?.map(str::to_owned),
        requirements: policy.map(|policy| requirements(view, policy)).transpose()?,
    })
}

fn requirements(
    view: &View<'_>,
    policy: &layout::ActivationPolicy,
) -> Result<ActivationRequirements, Damaged> {
    let optional = |place: layout::Text| -> Result<Option<String>, Damaged> {
        let text = text(place.bytes(view.text_bytes)?)?;
        Ok((!text.is_empty()).then(|| text.to_owned()))
    };
    let has = |flag| policy.flags.get() & flag != 0;
    let approvers: Result<_, Damaged> =
        policy.approvers.texts(view)?.map(|text| text.map(str::to_owned)).collect();
    Ok(ActivationRequirements {
        maximum_duration: optional(policy.maximum_duration)?,
        mfa: has(layout::ACTIVATION_MFA),
        justification: has(layout::ACTIVATION_JUSTIFICATION),
        ticket: has(layout::ACTIVATION_TICKET),
        authentication_context: optional(policy.authentication_context)?,
        approval: has(layout::ACTIVATION_APPROVAL),
        approvers: approvers?,
    })
}

/// When something begins; `None`: it always has.
pub(super) fn since(extra: &Extra) -> Option<Timestamp> {
    Some(extra.start.get())
        .filter(|start| *start != i128::MIN)
        .and_then(|at| Timestamp::from_nanosecond(at).ok())
}

/// When something ends; `None`: never.
pub(super) fn until(extra: &Extra) -> Option<Timestamp> {
    Some(extra.end.get()).filter(|end| *end != i128::MAX).and_then(|at| Timestamp::from_nanosecond(at).ok())
}

/// A condition as it is written.
pub(super) fn condition_text<'a>(view: &View<'a>, condition: u32) -> Result<Option<&'a str>, Damaged> {
    if condition == NONE {
        return Ok(None);
    }
    text(layout::at(view.conditions, condition)?.source.bytes(view.text_bytes)?).map(Some)
}

fn write_holder(
    request: &CheckRequest<'_>,
    holder: PrincipalId<'_>,
    out: &mut String,
) -> Result<(), Damaged> {
    if holder == request.subject.principal {
        out.push_str("the subject");
    } else {
        write!(out, "its group {holder}")?;
    }
    Ok(())
}

/// The role of an assignment or eligibility.
pub(super) fn role_of(view: &View<'_>, entry: &Entry) -> Result<u32, Damaged> {
    match entry.role.get() {
        role if role & EXTRA == 0 => Ok(role),
        _ => Ok(evaluate::extra_of(view, entry)?.role.get()),
    }
}

/// The resource type of what was read as an assignment.
fn assignment_kind(view: &View<'_>, entry: &Entry) -> Result<&'static str, Damaged> {
    if entry.role.get() & EXTRA == 0 {
        return Ok("roleAssignments");
    }
    Ok(match evaluate::extra_of(view, entry)?.flags.get() {
        FROM_SCHEDULE => "roleAssignmentSchedules",
        FROM_INSTANCE => "roleAssignmentScheduleInstances",
        _ => "roleAssignments",
    })
}

pub(super) fn write_eligibility_id(view: &View<'_>, number: u32, out: &mut String) -> Result<(), Damaged> {
    let entry = layout::at(view.eligibles, number)?;
    let kind = match evaluate::extra_of(view, entry)?.flags.get() {
        FROM_INSTANCE => "roleEligibilityScheduleInstances",
        _ => "roleEligibilitySchedules",
    };
    write_object_id(view, entry.scope.get(), kind, layout::at(view.eligible_names, number)?.get(), out)
}

pub(super) fn write_role_name(view: &View<'_>, entry: &Entry, out: &mut String) -> Result<(), Damaged> {
    let role = layout::at(view.roles, role_of(view, entry)?)?;
    out.push_str(text(role.name.bytes(view.text_bytes)?)?);
    Ok(())
}

pub(super) fn write_name(view: &View<'_>, number: u32, out: &mut String) -> Result<(), Damaged> {
    match view.name_guids.get(number as usize) {
        Some(guid) => write!(out, "{}", Guid::from_u128(guid.get()))?,
        None => {
            let past = (number as usize).checked_sub(view.name_guids.len()).ok_or(Damaged)?;
            out.push_str(text(view.name_texts.get(past).ok_or(Damaged)?.bytes(view.text_bytes)?)?);
        }
    }
    Ok(())
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, Damaged> {
    std::str::from_utf8(bytes).map_err(|_| Damaged)
}
