//! What this version does not evaluate. Each is refused here and nowhere else: ignoring a condition or a schedule
//! would grant more than the document says.

use super::document::{Context, Document, unresolved, wrong_type};
use super::tree::Value;
use crate::model::Problem;

/// Whether the document (a role assignment, role, permission block or deny assignment) holds no condition. One
/// that is null or white space alone is none (semantics, section 10, row 10).
pub(super) fn no_condition(document: &Document<'_>, value: Option<Value<'_>>, context: &mut Context) -> bool {
    let Some(value) = value.filter(|value| !value.is_null()) else { return true };
    if document.is_expression(value) {
        unresolved(value, context);
        return false;
    }
    let Some(text) = value.as_str() else {
        wrong_type(value, "a string", context);
        return false;
    };
    if text.trim().is_empty() {
        return true;
    }
    context.report.value(
        value,
        Problem::error(
            "ConditionsNotSupported",
            "conditions are not evaluated by this version, so the document is refused rather than granting \
             more than it says",
        )
        .help("take the document out of the policy: without it nothing is granted that the condition might forbid"),
    );
    false
}

/// PIM schedules, their instances and requests, and the policies for them.
pub(super) fn schedule(value: Value<'_>, context: &mut Context) {
    context.report.at(
        value.at(),
        Problem::error(
            "SchedulesNotSupported",
            "PIM schedules, eligibilities and role management policies are not evaluated by this version, so \
             the document is refused rather than granting more or less than it says",
        )
        .help("export the active assignments with `az role assignment list --all` instead"),
    );
}

/// Agents and their security contexts.
pub(super) fn agent(value: Value<'_>, context: &mut Context) {
    context.report.at(
        value.at(),
        Problem::error(
            "AgentsNotSupported",
            "agent documents are not evaluated by this version, so the document is refused",
        )
        .help("the role assignments of an agent's managed identity are ordinary ones and are read"),
    );
}
