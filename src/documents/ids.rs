//! Ids that are paths: `{scope}/providers/Microsoft.Authorization/{kind}/{name}`.

use super::document::{Context, Document, Origin};
use crate::model::{Guid, Problem, Scope, Spanned};

/// An extension resource's id taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    /// `/` at the tenant root.
    pub(super) scope: &'a str,
    pub(super) name: &'a str,
}

/// Takes an id apart; `kind` is for example `roleAssignments`.
pub(super) fn split<'a>(id: &'a str, kind: &str) -> Option<Parts<'a>> {
    let (head, name) = id.trim_end_matches('/').rsplit_once('/')?;
    let (head, found) = head.rsplit_once('/')?;
    let (head, namespace) = head.rsplit_once('/')?;
    let (scope, providers) = head.rsplit_once('/')?;
    let fits = found.eq_ignore_ascii_case(kind)
        && namespace.eq_ignore_ascii_case("Microsoft.Authorization")
        && providers.eq_ignore_ascii_case("providers");
    fits.then_some(Parts { scope: if scope.is_empty() { "/" } else { scope }, name })
}

/// The kind that an id is of, for example `roleAssignments`.
pub(super) fn kind_of(id: &str) -> Option<&str> {
    let (head, _) = id.trim_end_matches('/').rsplit_once('/')?;
    let kind = last_segment(head);
    split(id, kind).map(|_| kind)
}

/// A part of an id or resource type that speaks of a schedule of PIM, known or not.
pub(super) fn pim_segment(text: &str) -> Option<&str> {
    text.split('/').find(|part| {
        let part = part.trim().to_ascii_lowercase();
        part.starts_with("roleeligibility") || part.starts_with("roleassignmentschedule")
    })
}

/// What stands behind the last slash.
pub(super) fn last_segment(id: &str) -> &str {
    let id = id.trim_end_matches('/');
    id.rsplit_once('/').map_or(id, |(_, last)| last)
}

/// The normal form of a role definition's id: its trailing GUID, or the whole where it holds none (semantics,
/// section 1.1, rule 4).
pub(super) fn role(id: Spanned<String>) -> Spanned<String> {
    match Guid::parse(last_segment(&id.value)) {
        Some(guid) => Spanned::new(guid.to_string(), id.at),
        None => id,
    }
}

/// Name and scope of an assignment.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) name: Spanned<String>,
    pub(super) scope: Spanned<String>,
}

/// Name and scope as they are written, or from the id where they are not. Names for the three properties are those
/// of the CLI first and of PowerShell last.
pub(super) fn place(
    document: &Document<'_>,
    kind: &str,
    ids: &[&str],
    names: &[&str],
    context: &mut Context,
) -> Option<Place> {
    // An expression as id or name of a template's resource is told once, where it is needed.
    let (given_id, given_name) = (document.find(ids, context), document.find(names, context));
    let given_scope = document.find(&["scope"], context);
    let id = match given_id {
        Some(value) if given_name.is_none() || given_scope.is_none() || !document.is_expression(value) => {
            Some(document.text_of(value, context)?)
        }
        _ => None,
    };
    let parts = id.as_ref().and_then(|id| split(&id.value, kind));
    let name = match (given_name, &id) {
        (Some(value), _) => document.text_of(value, context).map(|name| {
            // The old nested form of templates is called `{resource}/Microsoft.Authorization/{guid}`.
            match document.origin {
                Origin::Template => Spanned::new(last_segment(&name.value).to_owned(), name.at),
                Origin::Data => name,
            }
        }),
        (None, Some(id)) => Some(Spanned::new(last_segment(&id.value).to_owned(), id.at)),
        (None, None) => {
            document.missing(names, context);
            None
        }
    };
    let scope = match (given_scope, &id, &parts) {
        (Some(value), ..) => document.text_of(value, context),
        (None, Some(id), Some(parts)) => Some(Spanned::new(parts.scope.to_owned(), id.at)),
        _ => {
            document.missing(&["scope"], context);
            None
        }
    };
    let (name, scope) = (name?, scope?);
    if name.value.trim().is_empty() {
        context.report.at(name.at, Problem::error("InvalidName", "the name is empty"));
        return None;
    }
    if let (Some(parts), Some(value)) = (parts, given_id) {
        let mut contradicts = |what: &str, from_id: &str, given: &Spanned<String>| {
            context.report.value(
                value,
                Problem::error("ContradictoryId", format!("the id says that the {what} is `{from_id}`"))
                    .help(format!("the document's own {what} is `{}`: correct one of them", given.value)),
            );
        };
        if !same_scope(parts.scope, &scope.value) {
            contradicts("scope", parts.scope, &scope);
            return None;
        }
        if !parts.name.eq_ignore_ascii_case(&name.value) {
            contradicts("name", parts.name, &name);
            return None;
        }
    }
    Some(Place { name, scope })
}

/// As scopes where both are, else as texts: placeholders and masks are judged later.
fn same_scope(one: &str, other: &str) -> bool {
    match (Scope::parse(one), Scope::parse(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one.trim_end_matches('/').eq_ignore_ascii_case(other.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::At;

    #[test]
    fn ids_are_taken_apart() {
        for (id, scope, name) in [
            ("/providers/Microsoft.Authorization/roleAssignments/n", "/", "n"),
            (
                "/subscriptions/s/providers/microsoft.authorization/ROLEASSIGNMENTS/n/",
                "/subscriptions/s",
                "n",
            ),
            (
                "/a/providers/X.Y/z/q/providers/Microsoft.Authorization/roleAssignments/n",
                "/a/providers/X.Y/z/q",
                "n",
            ),
        ] {
            assert_eq!(split(id, "roleAssignments"), Some(Parts { scope, name }), "{id}");
            assert!(kind_of(id).is_some_and(|kind| kind.eq_ignore_ascii_case("roleAssignments")), "{id}");
        }
        for id in ["", "n", "/n", "/providers/Microsoft.Authorization/roleDefinitions/n", "roleAssignments/n"]
        {
            assert_eq!(split(id, "roleAssignments"), None, "{id}");
        }
    }

    #[test]
    fn role_ids_have_a_normal_form() {
        for (id, expected) in [
            ("ACDD72A7-3385-48EF-BD42-F606FBA81AE7", "acdd72a7-3385-48ef-bd42-f606fba81ae7"),
            (
                "/subscriptions/s/providers/Microsoft.Authorization/roleDefinitions/acdd72a7338548efbd42f606fba81ae7",
                "acdd72a7-3385-48ef-bd42-f606fba81ae7",
            ),
            ("my-role", "my-role"),
            ("/x/My-Role", "/x/My-Role"),
        ] {
            assert_eq!(role(Spanned::new(id.into(), At::default())).value, expected);
        }
    }
}
