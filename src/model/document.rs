//! Policy documents in Azure's terms, as the readers give them and the compiler takes them: every value that a
//! problem may point at keeps the place it was read from.

use super::problem::Location;

/// A longer line is not shown: minified exports are one line of megabytes.
const LONGEST_LINE: usize = 4096;

/// A place in one of the files that were read: a byte range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct At {
    /// Index into [`Documents::files`].
    pub file: u32,
    /// First byte.
    pub start: u32,
    /// First byte behind.
    pub end: u32,
}

/// A value and where it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub at: At,
}

/// One file that was read; its text is kept for as long as problems may point into it.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Relative to the policy directory, with `/` between the parts.
    pub path: String,
    /// Decoded to UTF-8.
    pub text: String,
}

/// Everything a policy directory says.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    /// The files, in the order of their paths.
    pub files: Vec<SourceFile>,
    /// Role definitions.
    pub role_definitions: Vec<RoleDefinition>,
    /// Role assignments.
    pub role_assignments: Vec<RoleAssignment>,
    /// Deny assignments.
    pub deny_assignments: Vec<DenyAssignment>,
    /// Groups and their direct members. The same group may come in several documents: members are united.
    pub groups: Vec<Group>,
    /// Management groups and their parents.
    pub management_groups: Vec<ManagementGroup>,
    /// Subscriptions and the management groups they hang in.
    pub subscriptions: Vec<Subscription>,
}

/// Role definition (semantics, section 1.1).
#[derive(Clone, Debug, Default)]
pub struct RoleDefinition {
    /// Where the document begins.
    pub at: At,
    /// The trailing GUID of the id, or the whole id where it holds none.
    pub id: Spanned<String>,
    /// Display name; never takes part in a decision.
    pub role_name: Spanned<String>,
    /// Whether `roleType` or `IsCustom` says that the tenant made it.
    pub custom: bool,
    /// Free text.
    pub description: Option<Spanned<String>>,
    /// Each a self-contained quadruple of lists.
    pub permissions: Vec<PermissionBlock>,
    /// Scopes at or below which it may be assigned.
    pub assignable_scopes: Vec<Spanned<String>>,
}

/// One entry of `permissions`, in role definitions and deny assignments alike.
#[derive(Clone, Debug, Default)]
pub struct PermissionBlock {
    /// Where it begins.
    pub at: At,
    /// Control-plane patterns.
    pub actions: Vec<Spanned<String>>,
    /// Control-plane patterns that take away from `actions` of this block.
    pub not_actions: Vec<Spanned<String>>,
    /// Data-plane patterns.
    pub data_actions: Vec<Spanned<String>>,
    /// Data-plane patterns that take away from `data_actions` of this block.
    pub not_data_actions: Vec<Spanned<String>>,
}

/// Role assignment (semantics, section 1.2).
#[derive(Clone, Debug, Default)]
pub struct RoleAssignment {
    /// Where the document begins.
    pub at: At,
    /// GUID, unique in the tenant.
    pub name: Spanned<String>,
    /// Where it stands.
    pub scope: Spanned<String>,
    /// The trailing GUID of the role definition's id, or the whole id where it holds none.
    pub role_definition_id: Spanned<String>,
    /// Object id of who gets the role.
    pub principal_id: Spanned<String>,
    /// A label only: matching is by id.
    pub principal_type: Option<Spanned<String>>,
    /// Free text.
    pub description: Option<Spanned<String>>,
}

/// Deny assignment (semantics, section 1.3).
#[derive(Clone, Debug, Default)]
pub struct DenyAssignment {
    /// Where the document begins.
    pub at: At,
    /// GUID.
    pub name: Spanned<String>,
    /// Display name, unique within a scope.
    pub deny_assignment_name: Option<Spanned<String>>,
    /// Free text.
    pub description: Option<Spanned<String>>,
    /// As in role definitions; NotActions exempt.
    pub permissions: Vec<PermissionBlock>,
    /// Where it stands.
    pub scope: Spanned<String>,
    /// True: applies at the scope itself only.
    pub do_not_apply_to_child_scopes: bool,
    /// Object ids; the nil GUID is All Principals.
    pub principals: Vec<Spanned<String>>,
    /// Object ids that are exempt.
    pub exclude_principals: Vec<Spanned<String>>,
    /// Whether a hit blocks or is only reported.
    pub effect: DenyEffect,
}

/// `denyAssignmentEffect`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DenyEffect {
    /// A hit denies.
    #[default]
    Enforced,
    /// A hit is reported, and evaluation goes on.
    Audit,
}

/// A group and its direct members: users, service principals or other groups.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Where the document begins.
    pub at: At,
    /// Object id.
    pub id: Spanned<String>,
    /// Display name.
    pub display_name: Option<Spanned<String>>,
    /// Object ids.
    pub members: Vec<Spanned<String>>,
}

/// A management group and its parent. Given twice with different parents, the hierarchy is refused.
#[derive(Clone, Debug, Default)]
pub struct ManagementGroup {
    /// The last segment of its id.
    pub name: Spanned<String>,
    /// The name of the parent; `None` for the tenant root management group, or where the document does not say.
    pub parent: Option<Spanned<String>>,
}

/// A subscription and the management group it hangs in.
#[derive(Clone, Debug, Default)]
pub struct Subscription {
    /// The subscription's GUID.
    pub id: Spanned<String>,
    /// The name of the management group.
    pub parent: Spanned<String>,
}

/// Turns places into lines and columns.
#[derive(Clone, Copy, Debug)]
pub struct Locator<'a> {
    files: &'a [SourceFile],
}

// === impls ===

impl<T> Spanned<T> {
    /// A value with its place.
    pub const fn new(value: T, at: At) -> Self {
        Self { value, at }
    }
}

impl PermissionBlock {
    /// All four lists with the property names they are written under.
    pub fn lists(&self) -> [(&'static str, &[Spanned<String>]); 4] {
        [
            ("actions", &self.actions),
            ("notActions", &self.not_actions),
            ("dataActions", &self.data_actions),
            ("notDataActions", &self.not_data_actions),
        ]
    }
}

impl Documents {
    /// Turns places of these documents into lines and columns.
    pub fn locator(&self) -> Locator<'_> {
        Locator { files: &self.files }
    }
}

impl<'a> Locator<'a> {
    /// Over the files that [`At::file`] counts.
    pub const fn new(files: &'a [SourceFile]) -> Self {
        Self { files }
    }

    /// File, line and column of a place; `None` for a file that is not there.
    pub fn locate(&self, at: At) -> Option<Location> {
        let file = self.files.get(usize::try_from(at.file).ok()?)?;
        let clamp = |offset: u32| {
            let mut offset = usize::try_from(offset).unwrap_or(usize::MAX).min(file.text.len());
            while !file.text.is_char_boundary(offset) {
                offset = offset.saturating_sub(1);
            }
            offset
        };
        let (start, end) = (clamp(at.start), clamp(at.end.max(at.start)));
        let before = file.text.get(..start)?;
        let line_start = before.rfind('\n').map_or(0, |newline| newline.saturating_add(1));
        let line_text = file.text.get(line_start..)?.lines().next().unwrap_or_default();
        let line_text = if line_text.len() > LONGEST_LINE { "" } else { line_text };
        Some(Location {
            file: file.path.clone(),
            line: before.matches('\n').count().saturating_add(1),
            column: before.get(line_start..)?.chars().count().saturating_add(1),
            length: file.text.get(start..end)?.lines().next().map_or(1, |first| first.chars().count().max(1)),
            line_text: line_text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_become_lines_and_columns() {
        let files = [SourceFile { path: "a.json".into(), text: "{\n  \"ä\": \"x y\"\n}\n".into() }];
        let at = At { file: 0, start: 10, end: 15 };
        let location = Locator::new(&files).locate(at).unwrap();
        assert_eq!((location.line, location.column, location.length), (2, 8, 5));
        assert_eq!(location.line_text, "  \"ä\": \"x y\"");
        assert_eq!(location.to_string(), "a.json:2:8");
    }

    #[test]
    fn places_that_lie_do_not_panic() {
        let files = [SourceFile { path: "a".into(), text: "ä".into() }];
        let locator = Locator::new(&files);
        assert!(locator.locate(At { file: 1, start: 0, end: 0 }).is_none());
        let inside_a_character = locator.locate(At { file: 0, start: 1, end: 900 }).unwrap();
        assert_eq!((inside_a_character.line, inside_a_character.column), (1, 1));
    }
}
