//! Policy documents in Azure's terms, as the readers give them and the compiler takes them: every value that a
//! problem may point at keeps the place it was read from.

use std::ops::Range;

use jiff::Timestamp;

use super::problem::Location;
use super::scope::{Scope, ScopeKind};
use super::within;

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
    /// Schedules of PIM, active and eligible.
    pub schedules: Vec<Schedule>,
    /// What activating a role at a scope takes.
    pub activation_policies: Vec<ActivationPolicy>,
    /// Agents.
    pub agents: Vec<AgentDocument>,
}

/// A condition as it is written, not parsed yet (semantics, section 3). White space alone is none and is not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConditionText {
    /// The text.
    pub text: Spanned<String>,
    /// `conditionVersion`; `None` is 2.0.
    pub version: Option<Spanned<String>>,
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
    /// Of this block only.
    pub condition: Option<ConditionText>,
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
    /// Narrows what it grants.
    pub condition: Option<ConditionText>,
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
    /// Narrows the whole of it.
    pub condition: Option<ConditionText>,
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

/// A PIM schedule, or an instance of one: somebody has a role, or may activate it, for a time (semantics, section
/// 5.5).
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    /// Where the document begins.
    pub at: At,
    /// Whether it grants or may be activated.
    pub kind: ScheduleKind,
    /// Which of the two shapes of the API it came in.
    pub shape: ScheduleShape,
    /// The last segment of its id, or the whole id.
    pub name: Spanned<String>,
    /// Of an instance: the name of the schedule it is an instance of.
    pub schedule: Option<Spanned<String>>,
    /// Where it stands.
    pub scope: Spanned<String>,
    /// As in [`RoleAssignment`].
    pub role_definition_id: Spanned<String>,
    /// Object id of whose it is; of a group, each member's.
    pub principal_id: Spanned<String>,
    /// A label only.
    pub principal_type: Option<Spanned<String>>,
    /// Only `Provisioned` counts; `None` is that.
    pub status: Option<Spanned<String>>,
    /// Included; `None` has always begun.
    pub start: Option<Spanned<Timestamp>>,
    /// Excluded; `None` never ends.
    pub end: Option<Spanned<Timestamp>>,
    /// Of an activation: the name of the eligibility (schedule or instance) that it was made from.
    pub linked_eligibility: Option<Spanned<String>>,
    /// Of an active instance: the name of the role assignment that it stands for. That assignment, found in the
    /// same documents, holds as long as the instance does and no longer.
    pub origin_role_assignment: Option<Spanned<String>>,
    /// Narrows what it grants.
    pub condition: Option<ConditionText>,
}

/// What a schedule gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScheduleKind {
    /// The role.
    #[default]
    Active,
    /// The right to activate it.
    Eligible,
}

/// The two shapes of a schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScheduleShape {
    /// `roleAssignmentSchedules`, `roleEligibilitySchedules`.
    #[default]
    Schedule,
    /// `roleAssignmentScheduleInstances`, `roleEligibilityScheduleInstances`.
    Instance,
}

/// What activating one role at one scope takes. It is not inherited by scopes below (semantics, section 5.3).
#[derive(Clone, Debug, Default)]
pub struct ActivationPolicy {
    /// Where the document begins.
    pub at: At,
    /// The scope that it is for.
    pub scope: Spanned<String>,
    /// The role that it is for.
    pub role_definition_id: Spanned<String>,
    /// What is asked for.
    pub requirements: ActivationRequirements,
}

/// What an activation has to bring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActivationRequirements {
    /// The longest activation, as an ISO 8601 duration; `None`: not limited by the policy.
    pub maximum_duration: Option<String>,
    /// Multi-factor authentication.
    pub mfa: bool,
    /// A justification.
    pub justification: bool,
    /// A ticket.
    pub ticket: bool,
    /// The authentication context that the token has to carry (`acrs`).
    pub authentication_context: Option<String>,
    /// Whether somebody has to approve.
    pub approval: bool,
    /// Object ids of those who may.
    pub approvers: Vec<String>,
}

/// An agent that acts for people (semantics, section 6.2).
#[derive(Clone, Debug, Default)]
pub struct AgentDocument {
    /// Where the document begins.
    pub at: At,
    /// Resource id of the agent. Who may write it may use the agent (semantics, section 6.1); without one, that is
    /// not looked at.
    pub id: Option<Spanned<String>>,
    /// Display name.
    pub name: Option<Spanned<String>>,
    /// Object id of its managed identity.
    pub principal_id: Spanned<String>,
    /// What it is given at the groups it manages.
    pub level: AgentLevel,
    /// Whether it asks before it writes.
    pub mode: AgentMode,
    /// Its boundary: scopes of resource groups. Without any it does nothing.
    pub managed_resource_groups: Vec<Spanned<String>>,
    /// A role that who answers its prompts must hold at the agent's resource; `None`: the asking user answers.
    pub approver_role: Option<Spanned<String>>,
    /// What level Privileged adds; `None`: the default of the semantics, Contributor.
    pub privileged_roles: Option<Vec<Spanned<String>>>,
    /// Actions that only look though they do not end in `/read`; `None`: the default of the semantics.
    pub query_actions: Option<Vec<Spanned<String>>>,
}

/// Permission level of an agent (semantics, section 6.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AgentLevel {
    /// Three reading roles.
    #[default]
    Reader,
    /// And the configured roles to act.
    Privileged,
}

/// Run mode of an agent (semantics, sections 6.3 and 6.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AgentMode {
    /// Writes need an approval.
    #[default]
    Review,
    /// They do not.
    Auto,
}

/// Turns places into lines and columns.
#[derive(Clone, Copy, Debug)]
pub struct Locator<'a> {
    files: &'a [SourceFile],
}

/// How far a file has been walked over.
#[derive(Default)]
struct Walked {
    file: u32,
    offset: usize,
    /// Line breaks before `offset`.
    lines: usize,
    line_start: usize,
    /// Characters of the line before `offset`.
    column: usize,
}

// === impls ===

impl<T> Spanned<T> {
    /// A value with its place.
    pub const fn new(value: T, at: At) -> Self {
        Self { value, at }
    }
}

impl RoleDefinition {
    /// Whether it is one of Azure's own. A document need not say so: one that does not claim to be the tenant's
    /// and names no scope inside the tenant can only be Azure's.
    pub fn is_built_in(&self) -> bool {
        let inside = |scope: &Spanned<String>| {
            Scope::parse(&scope.value)
                .map_or(true, |scope| !matches!(scope.kind(), ScopeKind::Root | ScopeKind::Provider))
        };
        !self.custom && !self.assignable_scopes.iter().any(inside)
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

impl Schedule {
    /// Whether its status lets it count at all.
    pub fn is_provisioned(&self) -> bool {
        self.status.as_ref().is_none_or(|status| status.value.eq_ignore_ascii_case("Provisioned"))
    }
}

impl AgentLevel {
    /// Reads `Reader` or `Privileged`, in any letter case.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "reader" => Some(Self::Reader),
            "privileged" => Some(Self::Privileged),
            _ => None,
        }
    }
}

impl AgentMode {
    /// Reads `review`, or `auto` with its later names `Autonomous` and `Automatic`, in any letter case.
    pub fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "review" => Some(Self::Review),
            "auto" | "autonomous" | "automatic" => Some(Self::Auto),
            _ => None,
        }
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
        self.locate_from(at, &mut Walked::default())
    }

    /// The same for many places, walking over each file once.
    pub fn locate_all(&self, places: &[At]) -> Vec<Option<Location>> {
        let mut order: Vec<(At, usize)> = places.iter().copied().zip(0..).collect();
        order.sort_by_key(|(at, _)| (at.file, at.start));
        let mut walked = Walked::default();
        let mut located: Vec<(usize, Option<Location>)> =
            order.into_iter().map(|(at, index)| (index, self.locate_from(at, &mut walked))).collect();
        located.sort_by_key(|(index, _)| *index);
        located.into_iter().map(|(_, location)| location).collect()
    }

    fn locate_from(&self, at: At, walked: &mut Walked) -> Option<Location> {
        let file = self.files.get(usize::try_from(at.file).ok()?)?;
        let text = file.text.as_str();
        let clamp = |offset: u32| text.floor_char_boundary(usize::try_from(offset).unwrap_or(usize::MAX));
        let (start, end) = (clamp(at.start), clamp(at.end.max(at.start)));
        if walked.file != at.file || walked.offset > start {
            *walked = Walked { file: at.file, ..Walked::default() };
        }
        let between = text.get(walked.offset..start)?;
        if let Some(newline) = between.rfind('\n') {
            walked.lines = walked.lines.saturating_add(between.matches('\n').count());
            walked.line_start = walked.offset.saturating_add(newline).saturating_add(1);
            walked.column = text.get(walked.line_start..start)?.chars().count();
        } else {
            walked.column = walked.column.saturating_add(between.chars().count());
        }
        walked.offset = start;
        let line = text.get(walked.line_start..)?;
        // One byte more than is shown tells a line that is too long.
        let window = line.get(..line.floor_char_boundary(LONGEST_LINE.saturating_add(4)))?;
        let line_text = window.lines().next().unwrap_or_default();
        let line_text = if line_text.len() > LONGEST_LINE { "" } else { line_text };
        Some(Location {
            file: file.path.clone(),
            line: walked.lines.saturating_add(1),
            column: walked.column.saturating_add(1),
            length: text.get(start..end)?.lines().next().map_or(1, |first| first.chars().count().max(1)),
            line_text: line_text.to_owned(),
        })
    }

    /// File, line and column of a part of a string: `at` is where the string stands, with its quotes if it has
    /// any, `text` is what it says, and `range` is the part, in bytes of `text`. The whole string where the part
    /// cannot be told.
    pub fn locate_within(&self, at: At, text: &str, range: Range<usize>) -> Option<Location> {
        self.locate(self.within(at, text, &range).unwrap_or(at))
    }

    /// The place of a part of a string, as [`Self::locate_within`] finds it; `None` where it cannot be told.
    pub fn within(&self, at: At, text: &str, range: &Range<usize>) -> Option<At> {
        let file = self.files.get(usize::try_from(at.file).ok()?)?;
        within::place(&file.text, at, text, range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part of `text` that `part` is, found in a file that says `before`, the string, `after`.
    fn found(raw: &str, text: &str, part: &str) -> String {
        let before = "ä: ";
        let file = format!("{before}{raw}\nnext: 1\n");
        let files = [SourceFile { path: "a".into(), text: file.clone() }];
        let start = u32::try_from(before.len()).unwrap();
        let at = At { file: 0, start, end: start + u32::try_from(raw.len()).unwrap() };
        let from = text.find(part).unwrap();
        let at = Locator::new(&files).within(at, text, &(from..from + part.len())).unwrap_or(at);
        file.get(at.start as usize..at.end as usize).unwrap().to_owned()
    }

    #[test]
    fn parts_of_strings() {
        for (raw, text, part, written) in [
            // Verbatim.
            (r#""one two""#, "one two", "two", "two"),
            (r#""one two""#, "one two", "one", "one"),
            (r#""one two""#, "one two", "one two", "one two"),
            ("'one two'", "one two", "two", "two"),
            ("one two", "one two", "two", "two"),
            // JSON escapes.
            (r#""a \"b\" c""#, "a \"b\" c", "\"b\"", r#"\"b\""#),
            (r#""a\n\tb c""#, "a\n\tb c", "b", "b"),
            (r#""\u00e4 \ud83d\ude00 b\/c d""#, "ä 😀 b/c d", "b/c", r"b\/c"),
            (r#""\u00e4 \ud83d\ude00 b""#, "ä 😀 b", "😀", r"\ud83d\ude00"),
            (r#""a\\b c""#, "a\\b c", "c", "c"),
            // YAML: doubled quotes, folds, continued lines, indents.
            ("'a ''b'' c'", "a 'b' c", "'b'", "''b''"),
            ("'a ''b'' c'", "a 'b' c", "c", "c"),
            ("'a\n  b\n\n  c d'", "a b\nc d", "d", "d"),
            ("a\n  b\n\n\n  c d", "a b\n\nc d", "c", "c"),
            ("\"a\n  b \\\n   c\\\n  d e\"", "a b cd e", "cd", "c\\\n  d"),
            ("\"a\n  b \\\n   c\\\n  d e\"", "a b cd e", "e", "e"),
            ("\"a \\\n  \\ \\x41 \\U0001F600\"", "a  A 😀", "😀", "\\U0001F600"),
            // Block scalars begin at their first character.
            ("a b\n    c\n  d", "a b\n  c\nd", "c", "c"),
            ("'a' b\n    c\n  d\n", "'a' b\n  c\nd\n", "d", "d"),
            ("a\r\n  b\r\n\r\n  c d\r\n", "a b\nc d", "b\nc", "b\r\n\r\n  c"),
            // The end of it.
            (r#""a b""#, "a b", "", ""),
        ] {
            assert_eq!(found(raw, text, part), written, "{part} in {raw}");
        }
    }

    #[test]
    fn the_end_of_a_string_has_a_place() {
        for (raw, text) in [("\"a b\"", "a b"), ("'a b'", "a b"), ("a b", "a b"), ("a b\n", "a b\n")] {
            let files = [SourceFile { path: "a".into(), text: raw.into() }];
            let whole = At { file: 0, start: 0, end: u32::try_from(raw.len()).unwrap() };
            let at = Locator::new(&files).within(whole, text, &(text.len()..text.len())).unwrap_or(whole);
            let behind = raw.find('b').unwrap() + 1 + usize::from(text.ends_with('\n'));
            assert_eq!((at.start as usize, at.end as usize), (behind, behind), "{raw}");
        }
    }

    #[test]
    fn where_the_part_cannot_be_told_it_is_the_whole() {
        for (raw, text) in [
            ("\"a c\"", "a b"),
            ("\"a", "a b"),
            ("\"a\\q b\"", "aq b"),
            ("\"a\\ud83d b\"", "a😀 b"),
            ("!!str 'a b'", "a b"),
            ("", "a b"),
            ("'a'b'", "a b"),
        ] {
            assert_eq!(found(raw, text, "b"), raw, "{raw}");
        }
        let files = [SourceFile { path: "a".into(), text: "\"ä b\"".into() }];
        let locator = Locator::new(&files);
        for at in [
            At { file: 1, start: 0, end: 3 },
            At { file: 0, start: 2, end: 3 },
            At { file: 0, start: 4, end: 1 },
        ] {
            assert_eq!(locator.within(at, "ä b", &(0..1)), None);
        }
        let whole = At { file: 0, start: 0, end: 6 };
        // Ranges that lie on no boundary, or behind the end, find something inside the string.
        for range in [1..1, 1..9, 7..9, 9..9] {
            let at = locator.within(whole, "ä b", &range).unwrap_or(whole);
            assert!(at.start <= at.end && at.end <= whole.end);
        }
    }

    #[test]
    fn a_part_has_line_and_column() {
        let text = "a: 1\ncondition: |\n  ((one)\n  OR (@X[ä] two))\n";
        let files = [SourceFile { path: "a.yaml".into(), text: text.into() }];
        let start = text.find('(').unwrap();
        let at =
            At { file: 0, start: u32::try_from(start).unwrap(), end: u32::try_from(text.len()).unwrap() };
        let says = "((one)\nOR (@X[ä] two))\n";
        let from = says.find("two").unwrap();
        let location = Locator::new(&files).locate_within(at, says, from..from + 3).unwrap();
        assert_eq!((location.line, location.column, location.length), (4, 13, 3));
        assert_eq!(location.line_text, "  OR (@X[ä] two))");
    }

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
    fn many_places_are_found_in_one_walk() {
        let text = "{\n  \"ä\": \"x y\",\r\n \"b\": [1,\n\n 2]}\n";
        let file = |path: &str| SourceFile { path: path.into(), text: text.into() };
        let files = [file("a.json"), file("b.json")];
        let locator = Locator::new(&files);
        let places: Vec<At> = (0..40_u32)
            .flat_map(|start| [2, 1, 0].map(|file| At { file, start: (start * 7) % 40, end: start + 3 }))
            .collect();
        let one_by_one: Vec<_> = places.iter().map(|at| locator.locate(*at)).collect();
        assert_eq!(locator.locate_all(&places), one_by_one);
        assert_eq!(one_by_one.iter().filter(|place| place.is_none()).count(), 40);
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
