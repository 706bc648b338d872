//! Conditions of documents: read as text, and diagnosed once all documents are there (semantics, sections 2.5 and
//! 3.7). A stored condition that is not right is no reason to refuse the policy: what it makes of its document is
//! told in a warning, at the place inside the condition.

use std::ops::Range;

use ahash::{AHashMap, AHashSet};

use super::document::{Context, Document};
use super::report::Report;
use super::tree::Kind;
use crate::condition::ast::{Expression, ExpressionKind};
use crate::condition::{self, Diagnostic, Extensions, Family, Mode};
use crate::model::{
    ConditionText, Locator, PermissionBlock, Problem, RoleDefinition, ScheduleKind, Severity, SourceFile,
    Spanned,
};

/// Reads `condition` and `conditionVersion`. Null or white space alone is none, and a version without a condition
/// says nothing (semantics, section 3.7; section 10, row 10). An error was reported.
pub(super) fn read(document: &Document<'_>, context: &mut Context) -> Result<Option<ConditionText>, ()> {
    let Some(value) = document.find(&["condition"], context) else { return Ok(None) };
    let text = document.text_of(value, context).ok_or(())?;
    if text.value.bytes().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
        return Ok(None);
    }
    let version = match document.find(&["conditionVersion"], context) {
        None => None,
        // In YAML, `2.0` without quotes is a number.
        Some(value) if value.kind() == Kind::Number => {
            value.shown().map(|shown| Spanned::new(shown.to_owned(), value.at()))
        }
        Some(value) => Some(document.text_of(value, context).ok_or(())?),
    };
    Ok(Some(ConditionText { text, version: version.filter(|version| !version.value.is_empty()) }))
}

/// Whether two say the same.
pub(super) fn same(one: Option<&ConditionText>, other: Option<&ConditionText>) -> bool {
    let parts = |condition: &ConditionText| {
        let version =
            condition.version.as_ref().map_or(condition::CONDITION_VERSION, |version| &version.value);
        (condition.text.value.clone(), version.to_owned())
    };
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => parts(one) == parts(other),
        _ => false,
    }
}

/// Tells what is wrong with the conditions of all documents.
pub(super) fn check(context: &mut Context, sources: &[SourceFile]) {
    let Context { report, documents, extensions, .. } = context;
    let storage: AHashSet<&str> = documents
        .role_definitions
        .iter()
        .filter(|role| has_storage_data_actions(role))
        .map(|role| role.id.value.as_str())
        .collect();
    let mut judge = Judge { extensions: *extensions, sources, report, judged: AHashMap::new() };
    for role in &documents.role_definitions {
        let on_storage = storage.contains(role.id.value.as_str());
        for condition in role.permissions.iter().filter_map(|block| block.condition.as_ref()) {
            judge.look(condition, "this entry of the role grants nothing", on_storage);
        }
    }
    for assignment in &documents.role_assignments {
        if let Some(condition) = &assignment.condition {
            let on_storage = storage.contains(assignment.role_definition_id.value.as_str());
            judge.look(condition, "the role assignment grants nothing", on_storage);
        }
    }
    for schedule in &documents.schedules {
        if let Some(condition) = &schedule.condition {
            let effect = match schedule.kind {
                ScheduleKind::Active => "the schedule grants nothing",
                ScheduleKind::Eligible => "an activation of this eligibility grants nothing",
            };
            judge.look(condition, effect, storage.contains(schedule.role_definition_id.value.as_str()));
        }
    }
    // The rule on Storage roles is one of roles: it says nothing of deny assignments.
    for deny in &documents.deny_assignments {
        if let Some(condition) = &deny.condition {
            judge.look(condition, "the deny assignment applies whatever the condition says", false);
        }
        for condition in deny.permissions.iter().filter_map(|block| block.condition.as_ref()) {
            judge.look(
                condition,
                "this entry of the deny assignment applies whatever the condition says",
                false,
            );
        }
    }
}

/// "A role with Storage data actions" (semantics, section 10, row 7).
fn has_storage_data_actions(role: &RoleDefinition) -> bool {
    let prefix = "Microsoft.Storage/";
    let is_storage = |pattern: &Spanned<String>| {
        pattern.value.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    role.permissions.iter().flat_map(|block: &PermissionBlock| &block.data_actions).any(is_storage)
}

/// What is known of a text, wherever it stands.
struct Judged {
    diagnostics: Vec<Diagnostic>,
    /// The first GUID operator.
    guid_operator: Option<Range<usize>>,
}

struct Judge<'a> {
    extensions: Extensions,
    sources: &'a [SourceFile],
    report: &'a mut Report,
    judged: AHashMap<&'a str, Judged>,
}

impl<'a> Judge<'a> {
    fn look(&mut self, condition: &'a ConditionText, effect: &str, on_storage: bool) {
        let version = condition.version.as_ref();
        if let Some(version) = version
            && let Err(wrong) = condition::check_version(Some(&version.value))
        {
            let problem = Problem::warning(wrong.code, format!("{effect}: {}", wrong.message))
                .value(version.value.clone());
            self.report.at(version.at, with_help(problem, wrong.help));
        }
        let text = condition.text.value.as_str();
        let extensions = self.extensions;
        let judged = self.judged.entry(text).or_insert_with(|| {
            let parsed = condition::parse(text, Mode::Load, extensions);
            let guid_operator =
                parsed.condition.as_ref().and_then(|condition| guid_operator(&condition.root, 0));
            Judged { diagnostics: parsed.diagnostics, guid_operator }
        });
        for diagnostic in &judged.diagnostics {
            let message = match diagnostic.severity {
                Severity::Error => format!("{effect}: {}", diagnostic.message),
                Severity::Warning => diagnostic.message.clone(),
            };
            let problem = with_help(Problem::warning(diagnostic.code, message), diagnostic.help.clone());
            point(problem, condition, &diagnostic.span, self.sources, self.report);
        }
        if let Some(operator) = judged.guid_operator.as_ref().filter(|_| on_storage) {
            let problem = Problem::warning(
                "guid_operator_on_storage_role",
                format!(
                    "{effect}: Azure does not support GUID operators in conditions on a role with \
                     `Microsoft.Storage` data actions"
                ),
            )
            .help("compare the ids as text, with `StringEqualsIgnoreCase`");
            point(problem, condition, operator, self.sources, self.report);
        }
    }
}

fn with_help(problem: Problem, help: Option<String>) -> Problem {
    match help {
        Some(help) => problem.help(help),
        None => problem,
    }
}

/// Reports at a part of a condition; where that part is in the file cannot be said of every way of writing, and then
/// at the whole, with the line of the condition shown in the help.
fn point(
    problem: Problem,
    condition: &ConditionText,
    span: &Range<usize>,
    sources: &[SourceFile],
    report: &mut Report,
) {
    let (text, at) = (condition.text.value.as_str(), condition.text.at);
    let problem = match text.get(span.clone()).filter(|part| !part.is_empty()) {
        Some(part) => problem.value(part),
        None => problem,
    };
    match Locator::new(sources).within(at, text, span) {
        Some(inner) => report.inside(at, inner, problem),
        None => {
            let excerpt = excerpt(text, span);
            let help =
                problem.help.as_ref().map_or_else(|| excerpt.clone(), |help| format!("{help}\n{excerpt}"));
            report.at(at, problem.help(help));
        }
    }
}

/// The line that a part of a text begins in, with a caret below.
fn excerpt(text: &str, range: &Range<usize>) -> String {
    /// So many characters of the line on both sides.
    const SHOWN: usize = 60;
    let start = text.floor_char_boundary(range.start);
    let (before, behind) = text.split_at_checked(start).unwrap_or((text, ""));
    let number = before.matches('\n').count().saturating_add(1);
    let line_before = before.rsplit('\n').next().unwrap_or_default();
    let line_behind = behind.lines().next().unwrap_or_default();
    let cut = line_before.chars().count().saturating_sub(SHOWN);
    let head: String = line_before.chars().skip(cut).collect();
    let tail: String = line_behind.chars().take(SHOWN).collect();
    let length = text
        .get(start..text.floor_char_boundary(range.end.max(start)))
        .and_then(|part| part.lines().next())
        .map_or(1, |part| part.chars().count().clamp(1, SHOWN));
    let (indent, carets) = (" ".repeat(head.chars().count()), "^".repeat(length));
    format!("line {number} of the condition:\n{head}{tail}\n{indent}{carets}")
}

/// The first GUID operator of an expression.
fn guid_operator(expression: &Expression, depth: usize) -> Option<Range<usize>> {
    if let ExpressionKind::Comparison(comparison) = &expression.kind {
        let guid = comparison.operator.family() == Family::Guid;
        return guid.then(|| comparison.operator_span.clone());
    }
    // The parser bounds the nesting, with room for parentheses and `NOT`.
    if depth > condition::MAX_NESTING.saturating_mul(2) {
        return None;
    }
    expression.children().iter().find_map(|part| guid_operator(part, depth.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::super::tree::{File, Tree};
    use super::super::{json, yaml};
    use super::*;

    #[test]
    fn an_excerpt_has_its_line_and_caret() {
        assert_eq!(excerpt("a\nbé XX c", &(6..8)), "line 2 of the condition:\nbé XX c\n   ^^");
        assert_eq!(excerpt("", &(0..0)), "line 1 of the condition:\n\n^");
        assert_eq!(excerpt("ab", &(7..9)), "line 1 of the condition:\nab\n  ^");
        let long = format!("{}XX{}", "a".repeat(500), "b".repeat(500));
        let shown = excerpt(&long, &(500..502));
        assert!(shown.len() < 350 && shown.ends_with("  ^^"), "{shown}");
    }

    /// The part of the file that says `part` of the text at `c`.
    fn found(source: &str, tree: &Tree, part: &str) -> Option<String> {
        let file = File { index: 0, text: source, tree };
        let value = file.values().next().unwrap().get("c").unwrap();
        let text = value.as_str().unwrap();
        let start = text.find(part).unwrap();
        let files = [SourceFile { path: "a".into(), text: source.to_owned() }];
        let at = Locator::new(&files).within(value.at(), text, &(start..start + part.len()))?;
        source.get(at.start as usize..at.end as usize).map(str::to_owned)
    }

    #[test]
    fn through_the_escapes_of_json() {
        for (source, part, expected) in [
            (r#"{"c": "a b 'x'"}"#, "b", "b"),
            (r#"{"c": "é\u00e9\t\"q\" b\\c\/"}"#, "\"q\"", r#"\"q\""#),
            (r#"{"c": "é\u00e9\t\"q\" b\\c\/"}"#, "b\\c/", r"b\\c\/"),
            (r#"{"c": "\ud83d\ude00 (\n  x OR\r\n y)"}"#, "x OR", "x OR"),
            (r#"{"c": "\ud83d\ude00 (\n  x OR\r\n y)"}"#, "😀", r"\ud83d\ude00"),
            (r#"{"c": "a\u0020b  c"}"#, "c", "c"),
        ] {
            let tree = json::parse(source).unwrap();
            assert_eq!(found(source, &tree, part).as_deref(), Some(expected), "{source}");
        }
    }

    #[test]
    fn through_the_ways_of_yaml() {
        for (source, part, expected) in [
            ("c: a OR b\nd: 1\n", "OR", "OR"),
            ("c: a\n  OR\n  b\n", "OR b", "OR\n  b"),
            ("c: 'it''s\n   OR b'\n", "it's", "it''s"),
            ("c: 'it''s\n   OR b'\n", "OR", "OR"),
            ("c: \"a\\x41 \\\n   OR\\u0062\"\n", "ORb", "OR\\u0062"),
            ("c: |\n  (\n    a\n  OR b\n  )\nd: 1\n", "OR b", "OR b"),
            ("c: |2-  # | comment\n    a\n  OR b\n\n", "OR", "OR"),
            ("c: >-\n  a\n  OR b\n\n  c\nd: 1\n", "OR", "OR"),
            ("c: >-\n  a\n  OR b\n\n  c\nd: 1\n", "c", "c"),
            ("- c: 1\n", "", ""),
        ] {
            let tree = yaml::parse(source).unwrap();
            if part.is_empty() {
                continue;
            }
            assert_eq!(found(source, &tree, part).as_deref(), Some(expected), "{source}");
        }
    }
}
