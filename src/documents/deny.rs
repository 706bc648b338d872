//! Deny assignments (semantics, section 1.3).

use super::document::{Context, Document, Origin};
use super::recognize::{self, Is};
use super::tree::{Kind, Value};
use super::{condition, ids, permissions};
use crate::model::{
    ALL_PRINCIPALS, DenyAssignment, DenyEffect, PermissionBlock, PrincipalId, Problem, Severity, Spanned,
};

const DECIDING: [&str; 11] = [
    "actions",
    "notActions",
    "dataActions",
    "notDataActions",
    "permissions",
    "scope",
    "principals",
    "excludePrincipals",
    "doNotApplyToChildScopes",
    "denyAssignmentEffect",
    "condition",
];

/// Reads one and keeps it, unless something of it was reported.
pub(super) fn read(document: &Document<'_>, context: &mut Context) {
    context.report.document(document.top);
    if let Some(deny) = parse(document, context) {
        context.documents.deny_assignments.push(deny);
    } else if document.origin == Origin::Template {
        // A grant that is left out grants nothing; a deny that is left out would grant.
        context.report.at(
            document.top.at(),
            Problem {
                severity: Severity::Error,
                ..Problem::error(
                    "InvalidDenyAssignment",
                    "a deny assignment that cannot be read from its template is refused under any leniency",
                )
            },
        );
    }
}

fn parse(document: &Document<'_>, context: &mut Context) -> Option<DenyAssignment> {
    document.refuse_near_misses(&DECIDING, context);
    refuse_other_kinds(document, context);
    let place = ids::place(document, "denyAssignments", &["id", "denyAssignmentId"], &["name"], context);
    let deny_assignment_name = document.label(&["denyAssignmentName"], context);
    let description = document.label(&["description"], context);
    let permissions = permissions::read(document, context);
    if permissions.as_ref().is_some_and(Vec::is_empty) {
        invalid(document.top, "a deny assignment without permissions denies nothing", context);
    }
    let fine = permissions.as_deref().is_none_or(|blocks| can_match(blocks, context));
    let do_not_apply_to_child_scopes = document.flag(&["doNotApplyToChildScopes"], context);
    let principals = principals(document, "principals", context);
    if principals.as_ref().is_some_and(Vec::is_empty) {
        match document.find(&["principals"], context) {
            Some(value) => invalid(value, "a deny assignment without principals denies nobody", context),
            None => document.missing(&["principals"], context),
        }
    }
    let exclude_principals = principals_excluded(document, context);
    let effect = effect(document, context);
    // Also of PowerShell's flat form: it is of the whole.
    let condition = condition::read(document, context);
    let place = place.filter(|_| fine)?;
    Some(DenyAssignment {
        at: document.top.at(),
        name: place.name,
        deny_assignment_name,
        description,
        permissions: permissions?,
        scope: place.scope,
        do_not_apply_to_child_scopes: do_not_apply_to_child_scopes?,
        principals: principals?,
        exclude_principals: exclude_principals?,
        effect: effect?,
        condition: condition.ok()?,
    })
}

fn principals(document: &Document<'_>, name: &str, context: &mut Context) -> Option<Vec<Spanned<String>>> {
    let values = document.list(&[name], context)?;
    let wanted = values.len();
    let ids: Vec<_> = values.into_iter().filter_map(|value| principal(document, value, context)).collect();
    (ids.len() == wanted).then_some(ids)
}

/// What says of itself that it is something else could be either.
fn refuse_other_kinds(document: &Document<'_>, context: &mut Context) {
    for name in ["type", "id"] {
        let Some(value) = document.top.get(name) else { continue };
        let kind = if name == "id" { recognize::kind_by_id } else { recognize::by_type };
        let Some(other) = value.as_str().and_then(kind).filter(|is| *is != Is::DenyAssignment) else {
            continue;
        };
        context.report.value(
            value,
            Problem::error(
                "ContradictoryKind",
                format!("the {name} says {}, but this is read as a deny assignment", recognize::noun(other)),
            )
            .help("correct the one, or take out what only deny assignments have (such as `principals`)"),
        );
    }
}

/// Actions that match nothing would be a deny that never denies. An entry that names none says so openly: it is told
/// and evaluated, and hits nothing.
fn can_match(blocks: &[PermissionBlock], context: &mut Context) -> bool {
    for block in blocks {
        if block.actions.is_empty() && block.data_actions.is_empty() {
            let problem = Problem::warning(
                "InvalidDenyAssignment",
                "an entry of `permissions` without `actions` and `dataActions` denies nothing",
            );
            context.report.at(block.at, problem);
        }
    }
    permissions::refuse_spaces(blocks, Severity::Error, context)
}

/// `{id, type}`, PowerShell's `{ObjectId, ObjectType}`, or the bare id.
fn principal(document: &Document<'_>, value: Value<'_>, context: &mut Context) -> Option<Spanned<String>> {
    if value.kind() == Kind::String {
        return somebody(document, value, context);
    }
    let part = Document::part(value, document.origin, context)?;
    match part.find(&["id", "objectId"], context) {
        Some(id) => somebody(&part, id, context),
        None => {
            part.missing(&["id", "objectId"], context);
            None
        }
    }
}

/// An id, but no word for everybody: as an id it is nobody's.
fn somebody(document: &Document<'_>, value: Value<'_>, context: &mut Context) -> Option<Spanned<String>> {
    const WORDS: [&str; 9] = [
        "",
        "all",
        "allprincipals",
        "allprincipal",
        "allusers",
        "anyone",
        "everyone",
        "everybody",
        "systemdefined",
    ];
    let id = document.principal_of(value, context)?;
    // `*` has no letters.
    let word: String = id.value.chars().filter(|letter| letter.is_alphanumeric()).collect();
    let word = word.to_lowercase();
    if !WORDS.contains(&word.as_str()) {
        return Some(id);
    }
    context.report.value(
        value,
        Problem::error("InvalidPrincipalId", format!("`{}` is no id, so it would deny nobody", id.value))
            .help("All Principals is `00000000-0000-0000-0000-000000000000`, of the type `SystemDefined`"),
    );
    None
}

fn principals_excluded(document: &Document<'_>, context: &mut Context) -> Option<Vec<Spanned<String>>> {
    let ids = principals(document, "excludePrincipals", context)?;
    let everybody = ids.iter().find(|id| PrincipalId::new(&id.value) == PrincipalId::Guid(ALL_PRINCIPALS));
    if let Some(everybody) = everybody {
        context.report.at(
            everybody.at,
            Problem::error(
                "InvalidDenyAssignment",
                "All Principals cannot be excluded: nobody would be left",
            )
            .value(everybody.value.clone())
            .help("name the users, groups or service principals that are exempt"),
        );
        return None;
    }
    Some(ids)
}

fn effect(document: &Document<'_>, context: &mut Context) -> Option<DenyEffect> {
    let Some(value) = document.find(&["denyAssignmentEffect"], context) else {
        return Some(DenyEffect::Enforced);
    };
    let word = document.text_of(value, context)?;
    if word.value.eq_ignore_ascii_case("enforced") {
        return Some(DenyEffect::Enforced);
    }
    if word.value.eq_ignore_ascii_case("audit") {
        return Some(DenyEffect::Audit);
    }
    context.report.value(
        value,
        Problem::error("InvalidDenyAssignment", format!("`{}` is no effect", word.value))
            .help("wanted `enforced` or `audit`"),
    );
    None
}

fn invalid(value: Value<'_>, message: &str, context: &mut Context) {
    context.report.at(value.at(), Problem::error("InvalidDenyAssignment", message));
}
