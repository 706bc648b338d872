//! Problems of a policy for people: each with its place, the line and a caret, then one line that sums up.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::model::{Location, Problem, Problems, Severity};

/// All problems, with colours: the stream takes them out where nobody sees them.
pub(super) fn problems(problems: &Problems) -> String {
    let renderer = Renderer::styled();
    let mut text = String::new();
    for problem in problems {
        text.push_str(&renderer.render(&[group(problem)]));
        text.push_str("\n\n");
    }
    text
}

/// For example `3 errors, 1 warning in 4 files; the policy is refused`.
pub(super) fn summary(problems: &Problems, files: usize) -> String {
    let (errors, warnings) = (problems.count(Severity::Error), problems.count(Severity::Warning));
    let verdict = if errors > 0 { "the policy is refused" } else { "the policy is valid" };
    let mut counts = Vec::new();
    if problems.is_empty() {
        counts.push("no problems".to_owned());
    }
    if errors > 0 {
        counts.push(counted(errors, "error", "errors"));
    }
    if warnings > 0 {
        counts.push(counted(warnings, "warning", "warnings"));
    }
    format!("{} in {}; {verdict}", counts.join(", "), counted(files, "file", "files"))
}

/// `1 file`, `2 files`.
pub(super) fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

fn group(problem: &Problem) -> Group<'_> {
    let level = match problem.severity {
        Severity::Warning => Level::WARNING,
        Severity::Error => Level::ERROR,
    };
    let title = level.primary_title(problem.message.as_str()).id(problem.code);
    let mut group = match &problem.location {
        Some(location) => {
            let mut annotation = AnnotationKind::Primary.span(span(location));
            if !problem.field.is_empty() {
                annotation = annotation.label(problem.field.as_str());
            }
            let snippet = Snippet::source(location.line_text.as_str())
                .line_start(location.line)
                .path(location.file.as_str())
                .annotation(annotation);
            title.element(snippet)
        }
        None => Group::with_title(title),
    };
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    group
}

/// Columns count characters, snippets count bytes.
fn span(location: &Location) -> std::ops::Range<usize> {
    let text = location.line_text.as_str();
    let offset =
        |characters: usize| text.char_indices().nth(characters).map_or(text.len(), |(offset, _)| offset);
    let from = location.column.saturating_sub(1);
    let (start, end) = (offset(from), offset(from.saturating_add(location.length)));
    start..end.max(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(problem: &Problem) -> String {
        Renderer::plain().render(&[group(problem)])
    }

    #[test]
    fn a_place_is_shown_with_a_caret() {
        let location = Location {
            file: "roles/a.json".into(),
            line: 7,
            column: 12,
            length: 3,
            line_text: "    \"ä\":   \"x*\",".into(),
        };
        let problem = Problem::error("InvalidScope", "`x*` is no scope")
            .field("properties.scope")
            .help("write `/`")
            .at(Some(location));
        assert_eq!(
            plain(&problem),
            "error[InvalidScope]: `x*` is no scope\n\
             \x20--> roles/a.json:7:12\n\
             \x20 |\n\
             7 |     \"ä\":   \"x*\",\n\
             \x20 |            ^^^ properties.scope\n\
             \x20 |\n\
             \x20 = help: write `/`"
        );
    }

    #[test]
    fn a_problem_without_place_and_a_place_that_lies() {
        let problem = Problem::warning("Empty", "nothing here");
        assert_eq!(plain(&problem), "warning[Empty]: nothing here");
        let location = Location { file: "a".into(), line: 1, column: 90, length: 90, line_text: "x".into() };
        assert!(plain(&problem.at(Some(location))).contains("a:1:"));
    }

    #[test]
    fn sums_up() {
        let mut problems = Problems::new();
        assert_eq!(summary(&problems, 2), "no problems in 2 files; the policy is valid");
        problems.push(Problem::warning("W", "w"));
        assert_eq!(summary(&problems, 1), "1 warning in 1 file; the policy is valid");
        problems.push(Problem::error("E", "e"));
        problems.push(Problem::error("E", "e"));
        assert_eq!(summary(&problems, 4), "2 errors, 1 warning in 4 files; the policy is refused");
    }
}
