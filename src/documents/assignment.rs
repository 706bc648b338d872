//! Role assignments, in the shapes of the CLI, of REST, of PowerShell and of ARM templates (semantics, section
//! 1.2).

use super::document::{Context, Document};
use super::recognize::{self, Is};
use super::tree::{Entry, Kind};
use super::{check, condition, ids, near, schedule};
use crate::model::{Problem, RoleAssignment, ScheduleKind};

const DECIDING: [&str; 4] = ["principalId", "scope", "roleDefinitionId", "condition"];

/// Reads one and keeps it, unless something of it was reported.
pub(super) fn read(document: &Document<'_>, context: &mut Context) {
    context.report.document(document.top);
    if let Some(assignment) = parse(document, context) {
        context.documents.role_assignments.push(assignment);
    }
}

fn parse(document: &Document<'_>, context: &mut Context) -> Option<RoleAssignment> {
    document.refuse_near_misses(&DECIDING, context);
    refuse_schedules(document, context);
    let place = ids::place(
        document,
        "roleAssignments",
        &["id", "roleAssignmentId"],
        &["name", "roleAssignmentName"],
        context,
    );
    let role = check::role_of(document, context);
    let principals = ["principalId", "objectId"];
    let principal = match document.find(&principals, context) {
        Some(value) => document.principal_of(value, context),
        None => {
            document.missing(&principals, context);
            None
        }
    };
    let principal_type = document.label(&["principalType", "objectType"], context);
    let description = document.label(&["description"], context);
    let condition = condition::read(document, context);
    let place = place?;
    check::trimmed(&place.name, context)?;
    Some(RoleAssignment {
        at: document.top.at(),
        name: place.name,
        scope: place.scope,
        role_definition_id: role?,
        principal_id: principal?,
        principal_type,
        description,
        condition: condition.ok()?,
    })
}

/// A role assignment holds for ever: what speaks of a time, of a state or of another kind is no role assignment.
fn refuse_schedules(document: &Document<'_>, context: &mut Context) {
    for entry in document.entries().filter(|entry| !entry.value.is_null()) {
        let Some(message) = wrong(entry) else { continue };
        context.report.at(
            entry.key.at(),
            Problem::error("ContradictoryKind", message)
                .value(entry.value.shown().unwrap_or(entry.name))
                .help(
                    "this looks like a schedule: say its `type` (such as \
                 `Microsoft.Authorization/roleAssignmentSchedules`), or put it into `schedules`",
                ),
        );
    }
}

/// Why a property cannot stand in a role assignment.
fn wrong(entry: Entry<'_>) -> Option<String> {
    let name = schedule::folded(entry.name);
    let contains = ["expir", "duration", "until", "validto"].iter().any(|word| name.contains(word));
    let begins = ["enddate", "startdate", "scheduleinfo", "linked"].iter().any(|word| name.starts_with(word));
    let near = ["endDateTime", "startDateTime"].iter().any(|known| near::is_near(entry.name, known));
    if contains || begins || near {
        return Some(format!("a role assignment has no `{}`", entry.name));
    }
    let text = entry.value.as_str().map(str::trim);
    let fits = match name.as_str() {
        "type" => fits(text, |text| {
            // Within another resource of a template, types are relative to it.
            [text.to_owned(), format!("x/{text}")]
                .iter()
                .any(|name| recognize::by_type(name) == Some(Is::RoleAssignment))
        }),
        "id" | "roleassignmentid" => fits(text, |text| {
            ids::kind_of(text).is_none_or(|kind| kind.eq_ignore_ascii_case("roleAssignments"))
                && ids::pim_segment(text).is_none()
        }),
        "odatatype" => fits(text, |text| !schedule::speaks_of_eligibility(text)),
        // Only this counts (semantics, section 5.5).
        "status" => fits(text, |text| text.eq_ignore_ascii_case("Provisioned")),
        "kind" | "assignmentstate" => fits(text, |text| {
            schedule::kind_by_word(text) == Some(ScheduleKind::Active)
                || matches!(schedule::folded(text).as_str(), "roleassignment" | "roleassignments")
        }),
        "requesttype" => fits(text, |_| false),
        _ => true,
    };
    let kind = entry.value.kind();
    let shown = entry.value.as_str().unwrap_or(if kind == Kind::Object { "an object" } else { "a value" });
    (!fits).then(|| format!("`{}` is `{shown}`, which is none of a role assignment", entry.name))
}

/// What is empty says nothing; what is no text cannot be judged.
fn fits(text: Option<&str>, rule: impl Fn(&str) -> bool) -> bool {
    text.is_some_and(|text| text.is_empty() || rule(text))
}
