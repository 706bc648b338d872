//! Role definitions, in the shapes of the CLI, of REST and of PowerShell (semantics, section 1.1).

use super::document::{Context, Document};
use super::{condition, ids, permissions};
use crate::model::{Guid, PermissionBlock, Problem, RoleDefinition, Severity, Spanned};

const DECIDING: [&str; 7] = [
    "actions",
    "notActions",
    "dataActions",
    "notDataActions",
    "permissions",
    "assignableScopes",
    "condition",
];

pub(super) fn read(document: &Document<'_>, context: &mut Context) {
    context.report.document(document.top);
    let role = parse(document, context);
    match role {
        Ok(role) => context.documents.role_definitions.push(role),
        Err(Some(id)) => context.refused_roles.push(id.value),
        Err(None) => {}
    }
}

/// A role that is refused still gives its id, if it has one.
fn parse(document: &Document<'_>, context: &mut Context) -> Result<RoleDefinition, Option<Spanned<String>>> {
    document.refuse_near_misses(&DECIDING, context);
    let names = names(document, context);
    let custom = custom(document, context);
    let description = document.label(&["description"], context);
    let permissions = permissions::read(document, context);
    // Azure publishes built-in roles with such actions, and nobody but Azure can correct those.
    if custom {
        permissions::refuse_spaces(permissions.as_deref().unwrap_or_default(), Severity::Warning, context);
    }
    let assignable_scopes = document.texts(&["assignableScopes"], context);
    let permissions = flat_condition(document, permissions, context);
    let Some((id, role_name)) = names else { return Err(None) };
    match (permissions, assignable_scopes) {
        (Some(permissions), Some(assignable_scopes)) => Ok(RoleDefinition {
            at: document.top.at(),
            id,
            role_name,
            custom,
            description,
            permissions,
            assignable_scopes,
        }),
        _ => Err(Some(id)),
    }
}

/// The condition of PowerShell's flat form belongs to its one block; beside `permissions` it belongs nowhere.
fn flat_condition(
    document: &Document<'_>,
    permissions: Option<Vec<PermissionBlock>>,
    context: &mut Context,
) -> Option<Vec<PermissionBlock>> {
    let Some(condition) = condition::read(document, context).ok()? else { return permissions };
    if document.has("permissions") {
        context.report.at(
            condition.text.at,
            Problem::error("InvalidCondition", "a role as a whole has no condition")
                .help("it belongs to an entry of `permissions`: write it into each that it is meant for"),
        );
        return None;
    }
    let mut permissions = permissions?;
    for block in &mut permissions {
        block.condition = Some(condition.clone());
    }
    Some(permissions)
}

/// Id and display name. `name` is the id to the CLI and to REST, and the display name to PowerShell, whose `Id` is
/// the bare GUID: where there is a `roleName`, it is the display name.
fn names(document: &Document<'_>, context: &mut Context) -> Option<(Spanned<String>, Spanned<String>)> {
    let id = document.find(&["id"], context);
    let name = document.find(&["name"], context);
    let role_name = document.find(&["roleName"], context);
    let Some(id) = id else {
        // Input of `az role definition create` has no id yet, and `Name` is its display name.
        let Some(name) = name.filter(|name| role_name.is_some() || name.as_str().is_some_and(ends_in_guid))
        else {
            document.missing(&["id"], context);
            return None;
        };
        let id = ids::role(document.text_of(name, context)?);
        let label = document.label(&["roleName"], context);
        return Some((id, label.unwrap_or_default()));
    };
    let id = ids::role(document.text_of(id, context)?);
    if id.value.trim().is_empty() {
        context.report.at(id.at, Problem::error("InvalidRoleDefinition", "the id is empty"));
        return None;
    }
    if role_name.is_none() {
        let label = document.label(&["name"], context).filter(|name| !ends_in_guid(&name.value));
        return Some((id, label.unwrap_or_default()));
    }
    if let Some(value) = name
        && let Some(name) = document.text_of(value, context)
        && ids::role(name.clone()).value != id.value
        && ends_in_guid(&name.value)
    {
        context.report.value(
            value,
            Problem::error("ContradictoryId", format!("the id says that the name is `{}`", id.value))
                .help("the name of a role definition is the GUID at the end of its id: correct one of them"),
        );
        return None;
    }
    Some((id, document.label(&["roleName"], context).unwrap_or_default()))
}

fn ends_in_guid(text: &str) -> bool {
    Guid::parse(ids::last_segment(text)).is_some()
}

/// `roleType`, the older `type`, or PowerShell's `IsCustom`. `type` is also the resource type, which says nothing.
fn custom(document: &Document<'_>, context: &mut Context) -> bool {
    let role_type = document.find(&["roleType"], context).and_then(|value| value.as_str());
    let types = document.entries().filter(|entry| entry.name.eq_ignore_ascii_case("type"));
    let words = role_type.into_iter().chain(types.filter_map(|entry| entry.value.as_str()));
    for word in words {
        if word.eq_ignore_ascii_case("CustomRole") {
            return true;
        }
        if word.eq_ignore_ascii_case("BuiltInRole") {
            return false;
        }
    }
    document.flag(&["isCustom"], context).unwrap_or(false)
}
