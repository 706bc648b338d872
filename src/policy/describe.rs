//! Names for people and interfaces: the ids of what decided, and the sentence that says why. Every answer carries
//! them, so each is written straight into the one string that is sent.

use std::fmt::{self, Write};

use super::layout::{self, Damaged, MAX_LEVELS, NONE, ROOT, View};
use super::{Policy, evaluate};
use crate::model::{CheckRequest, Decision, DenyHit, Grant, Guid, Plane, PrincipalId, Why};

/// What stands where a damaged policy has no name; ids of a policy that was opened are always there.
const UNKNOWN: &str = "unknown";

/// Most ids and sentences are shorter.
const USUAL_LENGTH: usize = 256;

impl Policy {
    /// Full id of the role assignment that granted.
    pub fn role_assignment_id(&self, grant: Grant) -> String {
        self.describe(|view, out| {
            let entry = layout::at(view.entries, grant.assignment())?;
            let name = layout::at(view.entry_names, grant.assignment())?.get();
            write_object_id(view, entry.scope.get(), "roleAssignments", name, out)
        })
    }

    /// Its name, the last segment of the id.
    pub fn role_assignment_name(&self, grant: Grant) -> String {
        self.describe(|view, out| {
            write_name(view, layout::at(view.entry_names, grant.assignment())?.get(), out)
        })
    }

    /// Full id of the role definition that granted.
    pub fn role_definition_id(&self, grant: Grant) -> String {
        self.describe(|view, out| {
            let role = layout::at(view.roles, layout::at(view.entries, grant.assignment())?.role.get())?;
            write_object_id(view, ROOT, "roleDefinitions", role.id.get(), out)
        })
    }

    /// Display name of the role definition that granted.
    pub fn role_name(&self, grant: Grant) -> String {
        self.describe(|view, out| write_role_name(view, grant, out))
    }

    /// Full id of a deny assignment.
    pub fn deny_assignment_id(&self, hit: DenyHit) -> String {
        self.describe(|view, out| {
            let deny = layout::at(view.denies, hit.deny_assignment())?;
            write_object_id(view, deny.scope.get(), "denyAssignments", deny.name.get(), out)
        })
    }

    /// Its name, the last segment of the id.
    pub fn deny_assignment_name(&self, hit: DenyHit) -> String {
        self.describe(|view, out| {
            write_name(view, layout::at(view.denies, hit.deny_assignment())?.name.get(), out)
        })
    }

    /// One sentence for people: why this request was decided so.
    pub fn reason(&self, request: &CheckRequest<'_>, decision: &Decision) -> String {
        self.describe(|view, out| write_reason(view, request, decision, out))
    }

    fn describe(&self, write: impl FnOnce(&View<'_>, &mut String) -> Result<(), Damaged>) -> String {
        let mut out = String::with_capacity(USUAL_LENGTH);
        match write(self.view(), &mut out) {
            Ok(()) => out,
            Err(Damaged) => UNKNOWN.to_owned(),
        }
    }
}

impl fmt::Display for super::Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} role definitions, {} role assignments, {} deny assignments, {} principals, {} scopes",
            self.role_definitions, self.role_assignments, self.deny_assignments, self.principals, self.scopes
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
            write_role_name(view, *grant, out)?;
            out.push_str("\", assigned to ");
            let holder = holder(view, grant.assignment())?;
            if holder == request.subject.principal {
                out.push_str("the subject");
            } else {
                out.push_str("its group ");
                write!(out, "{holder}")?;
            }
            out.push_str(" at ");
            write_scope(view, layout::at(view.entries, grant.assignment())?.scope.get(), out)?;
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
fn write_object_id(
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
fn write_scope(view: &View<'_>, index: u32, out: &mut String) -> Result<(), Damaged> {
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
fn holder<'a>(view: &View<'a>, entry: u32) -> Result<PrincipalId<'a>, Damaged> {
    // Of several that begin at one entry all but the last have no assignments.
    let behind = view.principals.partition_point(|principal| principal.first_entry.get() <= entry);
    let index = behind.checked_sub(1).and_then(|index| u32::try_from(index).ok()).ok_or(Damaged)?;
    if index < view.guid_principals {
        return Ok(PrincipalId::Guid(Guid::from_u128(layout::at(view.principals, index)?.id.get())));
    }
    Ok(PrincipalId::Text(text(evaluate::principal_text(view, index)?)?))
}

fn write_role_name(view: &View<'_>, grant: Grant, out: &mut String) -> Result<(), Damaged> {
    let role = layout::at(view.roles, layout::at(view.entries, grant.assignment())?.role.get())?;
    out.push_str(text(role.name.bytes(view.text_bytes)?)?);
    Ok(())
}

fn write_name(view: &View<'_>, number: u32, out: &mut String) -> Result<(), Damaged> {
    match view.name_guids.get(number as usize) {
        Some(guid) => write!(out, "{}", Guid::from_u128(guid.get()))?,
        None => {
            let past = (number as usize).checked_sub(view.name_guids.len()).ok_or(Damaged)?;
            out.push_str(text(view.name_texts.get(past).ok_or(Damaged)?.bytes(view.text_bytes)?)?);
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<&str, Damaged> {
    std::str::from_utf8(bytes).map_err(|_| Damaged)
}
