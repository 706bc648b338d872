//! Groups and their direct members: our own form, and groups of Microsoft Graph with their members expanded.

use super::document::{Context, Document};
use super::tree::{Entry, Kind, Value};
use crate::model::{Group, Problem, Spanned};

/// Reads one. `by_type` says that the document is known for a group even without `members`: an empty one.
pub(super) fn read(document: &Document<'_>, by_type: bool, context: &mut Context) {
    context.report.document(document.top);
    if let Some(group) = parse(document, by_type, context) {
        context.documents.groups.push(group);
    }
}

fn parse(document: &Document<'_>, by_type: bool, context: &mut Context) -> Option<Group> {
    document.refuse_near_misses(&["members"], context);
    let names = ["id", "groupId", "objectId"];
    let id = match document.find(&names, context) {
        Some(value) => document.principal_of(value, context),
        None => {
            document.missing(&["id"], context);
            None
        }
    };
    let display_name = document.label(&["displayName"], context);
    if let Some(link) = document.find(&["members@odata.nextLink"], context) {
        cut(link, context);
    }
    let said = document.top.property("members");
    if said.is_none() && !by_type {
        document.missing(&["members"], context);
        return None;
    }
    let members = match said {
        Some(value) if !value.is_null() => members(document, value, context),
        _ => Some(Vec::new()),
    };
    Some(Group { at: document.top.at(), id: id?, display_name, members: members? })
}

fn members(document: &Document<'_>, list: Value<'_>, context: &mut Context) -> Option<Vec<Spanned<String>>> {
    let values = document.list_of(list, context)?;
    let wanted = values.len();
    let ids: Vec<_> = values.into_iter().filter_map(|value| member(document, value, context)).collect();
    (ids.len() == wanted).then_some(ids)
}

/// The bare id, or an object of the directory.
fn member(document: &Document<'_>, value: Value<'_>, context: &mut Context) -> Option<Spanned<String>> {
    if value.kind() == Kind::String {
        return document.principal_of(value, context);
    }
    let part = Document::part(value, document.origin, context)?;
    match part.find(&["id", "objectId"], context) {
        Some(id) => part.principal_of(id, context),
        None => {
            part.missing(&["id", "objectId"], context);
            None
        }
    }
}

/// One entry of the map form, group id to members.
pub(super) fn read_entry(section: &Document<'_>, entry: Entry<'_>, context: &mut Context) {
    let id = section.principal_of(entry.key, context);
    let members = match entry.value.kind() {
        Kind::Null => Some(Vec::new()),
        _ => members(section, entry.value, context),
    };
    if let (Some(id), Some(members)) = (id, members) {
        context.documents.groups.push(Group { at: entry.key.at(), id, display_name: None, members });
    }
}

/// Says that a list is not whole.
pub(super) fn cut(link: Value<'_>, context: &mut Context) {
    context.report.value(
        link,
        Problem::error("TruncatedList", "the list is cut: what is on its next pages is missing")
            .help("fetch every page, put them together and take the link out"),
    );
}
