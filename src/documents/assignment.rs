//! Role assignments, in the shapes of the CLI, of REST, of PowerShell and of ARM templates (semantics, section
//! 1.2).

use super::document::{Context, Document};
use super::{check, condition, ids};
use crate::model::RoleAssignment;

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
