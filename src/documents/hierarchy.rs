//! Management groups and subscriptions: the tree of `az account management-group show -e -r`, the flat list of
//! entities, memberships of subscriptions, and our own maps.

use super::document::{Context, Document, Origin, wrong_type};
use super::ids::last_segment;
use super::tree::{Entry, Kind, Value};
use crate::model::{Guid, ManagementGroup, Problem, Spanned, Subscription};

/// What a document of the hierarchy is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    ManagementGroup,
    Subscription,
}

/// Reads one and, for a management group, the children it lists.
pub(super) fn read(document: &Document<'_>, level: Level, context: &mut Context) {
    context.report.document(document.top);
    node(document, level, None, context);
}

/// Which of the two a resource type or id is about.
pub(super) fn level_of(type_name: Option<&str>, id: Option<&str>) -> Option<Level> {
    if let Some(type_name) = type_name {
        let name = last_segment(type_name);
        if name.eq_ignore_ascii_case("subscriptions") {
            return Some(Level::Subscription);
        }
        if name.eq_ignore_ascii_case("managementGroups") {
            return Some(Level::ManagementGroup);
        }
    }
    let (head, _) = id?.trim_end_matches('/').rsplit_once('/')?;
    match last_segment(head) {
        kind if kind.eq_ignore_ascii_case("subscriptions") => Some(Level::Subscription),
        kind if kind.eq_ignore_ascii_case("managementGroups") => Some(Level::ManagementGroup),
        _ => None,
    }
}

fn node(document: &Document<'_>, level: Level, above: Option<&Spanned<String>>, context: &mut Context) {
    let names: &[&str] = match level {
        Level::ManagementGroup => &["id", "managementGroupId"],
        Level::Subscription => &["id", "subscriptionId"],
    };
    let id = document.find(names, context).or_else(|| document.find(&["name"], context));
    let Some(value) = id else {
        document.missing(&["id"], context);
        return;
    };
    let Some(id) = document.text_of(value, context) else { return };
    let name = Spanned::new(last_segment(&id.value).to_owned(), id.at);
    if let Some(parent) = above {
        keep(level, name.clone(), Some(parent.clone()), value, context);
    }
    match stated_parent(document, &id, level, context) {
        Ok(Some(parent)) => keep(level, name.clone(), Some(parent), value, context),
        Ok(None) if above.is_none() => keep(level, name.clone(), None, value, context),
        _ => {}
    }
    let Some(children) = document.list(&["children"], context) else { return };
    for child in children {
        if child.kind() != Kind::Object {
            wrong_type(child, "an object", context);
            continue;
        }
        let part = Document::open(child, document.origin, context);
        let kind = part.top.get("type").and_then(|value| value.as_str());
        let id = part.top.get("id").and_then(|value| value.as_str());
        match level_of(kind, id) {
            Some(level) => node(&part, level, Some(&name), context),
            None => context.report.at(
                child.at(),
                Problem::error(
                    "UnrecognizedDocument",
                    "a child that is no management group and no subscription",
                )
                .help("wanted the `type` `/subscriptions` or `Microsoft.Management/managementGroups`"),
            ),
        }
    }
}

/// The parent that a document names; an error was reported.
fn stated_parent(
    document: &Document<'_>,
    id: &Spanned<String>,
    level: Level,
    context: &mut Context,
) -> Result<Option<Spanned<String>>, ()> {
    let details = document.find(&["details"], context);
    let parent = details.and_then(|details| details.get("parent"));
    let parent = parent.or_else(|| document.find(&["parent", "managementGroup"], context));
    if let Some(parent) = parent {
        return parent_name(document, parent, context);
    }
    // `…/managementGroups/{group}/subscriptions/{id}`
    let membership = id.value.trim_end_matches('/').rsplit_once('/').and_then(|(head, _)| {
        let group = head.rsplit_once('/')?.0;
        (level == Level::Subscription && level_of(None, Some(group)) == Some(Level::ManagementGroup))
            .then(|| Spanned::new(last_segment(group).to_owned(), id.at))
    });
    Ok(membership)
}

/// A name, an id, or an object with one of them; the tenant root's parent has an empty or null id.
fn parent_name(
    document: &Document<'_>,
    parent: Value<'_>,
    context: &mut Context,
) -> Result<Option<Spanned<String>>, ()> {
    let value = match parent.kind() {
        Kind::Object => match parent.get("id").or_else(|| parent.get("name")) {
            Some(value) => value,
            None => return Ok(None),
        },
        Kind::Null => return Ok(None),
        _ => parent,
    };
    let id = document.text_of(value, context).ok_or(())?;
    let name = last_segment(&id.value).to_owned();
    Ok((!name.is_empty()).then(|| Spanned::new(name, id.at)))
}

fn keep(
    level: Level,
    name: Spanned<String>,
    parent: Option<Spanned<String>>,
    value: Value<'_>,
    context: &mut Context,
) {
    match level {
        Level::ManagementGroup => {
            let wrong = name.value.trim().is_empty()
                || name.value.contains('*')
                || name.value.chars().any(char::is_control);
            if wrong {
                context.report.value(
                    value,
                    Problem::error("InvalidScope", "the name of the management group is none")
                        .help("wanted the last segment of `/providers/Microsoft.Management/managementGroups/{name}`"),
                );
            } else {
                context.documents.management_groups.push(ManagementGroup { name, parent });
            }
        }
        Level::Subscription if name.value.len() != 36 || Guid::parse(&name.value).is_none() => {
            context.report.value(
                value,
                Problem::error("InvalidScope", "the subscription is no GUID of the form 8-4-4-4-12")
                    .help("wanted `/subscriptions/{guid}` or the GUID"),
            );
        }
        Level::Subscription => {
            if let Some(parent) = parent {
                context.documents.subscriptions.push(Subscription { id: name, parent });
            }
        }
    }
}

/// One entry of the map forms: a name (or subscription) and its parent, or null for the top of the tree.
pub(super) fn read_entry(section: &Document<'_>, entry: Entry<'_>, level: Level, context: &mut Context) {
    if !matches!(entry.value.kind(), Kind::String | Kind::Null | Kind::Object) {
        wrong_type(entry.value, "the name of a management group or null", context);
        return;
    }
    let Some(id) = section.text_of(entry.key, context) else { return };
    let name = Spanned::new(last_segment(&id.value).to_owned(), id.at);
    let Ok(parent) = parent_name(section, entry.value, context) else { return };
    keep(level, name, parent, entry.key, context);
}

/// A document of the tenant form, where the section says what it is about.
pub(super) fn read_in_section(value: Value<'_>, level: Level, context: &mut Context) {
    if value.kind() != Kind::Object {
        wrong_type(value, "an object", context);
        return;
    }
    let document = Document::open(value, Origin::Data, context);
    read(&document, level, context);
}
