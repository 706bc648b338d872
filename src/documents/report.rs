//! Gathers what is wrong while documents are read, and gives it places for people at the end: line, column and
//! field path are computed for problems only, in one walk over each file.

use super::tree::{File, Value};
use crate::model::{At, Location, Problem, Problems, Severity, SourceFile};

/// More than anybody reads; a bound for exports in which every document has the same fault.
const MOST: usize = 10_000;

/// A line longer than this is not shown: minified exports are one line of megabytes.
const LONGEST_LINE: usize = 4096;

/// A value longer than this is shown in part.
const LONGEST_VALUE: usize = 200;

#[derive(Debug)]
struct Found {
    problem: Problem,
    at: Option<At>,
    /// The value that the place lies in, where it is no value itself.
    inside: Option<At>,
    /// The place of what it contradicts, which goes in front of the help.
    other: Option<At>,
}

#[derive(Debug, Default)]
pub(super) struct Report {
    found: Vec<Found>,
    /// Problems beyond [`MOST`].
    more_errors: usize,
    more_warnings: usize,
    /// Per file the nodes of the documents in it, ascending: field paths begin there.
    documents: Vec<Vec<u32>>,
}

impl Report {
    /// A problem of no place in a text: its message names the file.
    pub(super) fn push(&mut self, problem: Problem) {
        self.keep(problem, None, None);
    }

    /// A problem at a place. Its `field` is what comes behind the path of the place: for what is missing there.
    pub(super) fn at(&mut self, at: At, problem: Problem) {
        self.keep(problem, Some(at), None);
    }

    /// A problem at a place that contradicts another place.
    pub(super) fn against(&mut self, at: At, other: At, problem: Problem) {
        self.keep(problem, Some(at), Some(other));
    }

    /// A problem at a place inside a text: `value` is the place of the whole.
    pub(super) fn inside(&mut self, value: At, at: At, problem: Problem) {
        self.keep_found(Found { problem, at: Some(at), inside: Some(value), other: None });
    }

    /// A problem with a value, which is shown.
    pub(super) fn value(&mut self, value: Value<'_>, mut problem: Problem) {
        if problem.value.is_none() {
            problem.value = value.shown().map(str::to_owned);
        }
        self.keep(problem, Some(value.at()), None);
    }

    /// A document begins here.
    pub(super) fn document(&mut self, value: Value<'_>) {
        let Ok(file) = usize::try_from(value.file()) else { return };
        if self.documents.len() <= file {
            self.documents.resize_with(file.saturating_add(1), Vec::new);
        }
        if let Some(documents) = self.documents.get_mut(file) {
            documents.push(value.node());
        }
    }

    pub(super) fn has_errors(&self) -> bool {
        self.more_errors > 0 || self.found.iter().any(|found| found.problem.severity == Severity::Error)
    }

    fn keep(&mut self, problem: Problem, at: Option<At>, other: Option<At>) {
        self.keep_found(Found { problem, at, inside: None, other });
    }

    fn keep_found(&mut self, mut found: Found) {
        let problem = &mut found.problem;
        if self.found.len() >= MOST {
            match problem.severity {
                Severity::Error => self.more_errors = self.more_errors.saturating_add(1),
                Severity::Warning => self.more_warnings = self.more_warnings.saturating_add(1),
            }
            return;
        }
        if let Some(value) = &mut problem.value
            && let Some((end, _)) = value.char_indices().nth(LONGEST_VALUE)
        {
            value.truncate(end);
            value.push('…');
        }
        self.found.push(found);
    }

    /// Everything, in the order of file, line and column; what has no place first.
    pub(super) fn finish(mut self, sources: &[SourceFile], files: &[File<'_>]) -> Problems {
        let mut problems = Problems::new();
        for documents in &mut self.documents {
            documents.sort_unstable();
        }
        self.name_others(sources);
        self.found.sort_by_key(|found| found.at.map(|at| (at.file, at.start)));
        let mut cursor = Cursor::default();
        for Found { mut problem, at, inside, .. } in self.found {
            if let Some(at) = at {
                let documents = usize::try_from(at.file).ok().and_then(|file| self.documents.get(file));
                let file = files.iter().find(|file| file.index == at.file);
                let path = documents
                    .zip(file)
                    .and_then(|(documents, file)| file.path(documents, inside.unwrap_or(at)));
                let path = path.unwrap_or_default();
                problem.field = match (path.is_empty(), problem.field.is_empty()) {
                    (false, false) => format!("{path}.{}", problem.field),
                    (false, true) => path,
                    (true, _) => problem.field,
                };
                problem.location = cursor.locate(sources, at);
            }
            problems.push(problem);
        }
        for (count, word, make) in [
            (self.more_errors, "errors", Problem::error as fn(&'static str, String) -> Problem),
            (self.more_warnings, "warnings", Problem::warning),
        ] {
            if count > 0 {
                problems.push(make("TooManyProblems", format!("{count} more {word} are not listed")));
            }
        }
        problems
    }

    /// Says in the help where the other place is.
    fn name_others(&mut self, sources: &[SourceFile]) {
        self.found.sort_by_key(|found| found.other.map(|at| (at.file, at.start)));
        let mut cursor = Cursor::default();
        for Found { problem, other, .. } in &mut self.found {
            if let Some(location) = other.and_then(|at| cursor.locate(sources, at)) {
                let help = problem.help.take().unwrap_or_default();
                problem.help = Some(format!("the other is at {}:{}: {help}", location.file, location.line));
            }
        }
    }
}

/// Walks the files once, for places in ascending order.
#[derive(Default)]
struct Cursor {
    file: u32,
    offset: usize,
    line: usize,
    line_start: usize,
    /// Characters of the line before `offset`.
    column: usize,
}

impl Cursor {
    fn locate(&mut self, sources: &[SourceFile], at: At) -> Option<Location> {
        let source = sources.get(usize::try_from(at.file).ok()?)?;
        let text = source.text.as_str();
        let boundary = |offset: u32| text.floor_char_boundary(usize::try_from(offset).unwrap_or(usize::MAX));
        let (start, end) = (boundary(at.start), boundary(at.end.max(at.start)));
        if self.file != at.file || self.offset > start {
            *self = Self { file: at.file, ..Self::default() };
        }
        let between = text.get(self.offset..start)?;
        if let Some(newline) = between.rfind('\n') {
            self.line = self.line.saturating_add(between.bytes().filter(|byte| *byte == b'\n').count());
            self.line_start = self.offset.saturating_add(newline).saturating_add(1);
            self.column = text.get(self.line_start..start)?.chars().count();
        } else {
            self.column = self.column.saturating_add(between.chars().count());
        }
        self.offset = start;
        let short = |text: &str| {
            let longest = text.floor_char_boundary(LONGEST_LINE);
            text.get(..longest).unwrap_or_default().len() == text.len()
        };
        let from_start = text.get(self.line_start..)?;
        let window = from_start.get(..from_start.floor_char_boundary(LONGEST_LINE.saturating_add(4)))?;
        let line_text = window.lines().next().unwrap_or_default();
        let spanned = text.get(start..end)?;
        let spanned = spanned.get(..spanned.floor_char_boundary(LONGEST_LINE))?;
        Some(Location {
            file: source.path.clone(),
            line: self.line.saturating_add(1),
            column: self.column.saturating_add(1),
            length: spanned.lines().next().map_or(1, |first| first.chars().count().max(1)),
            line_text: if short(line_text) { line_text.to_owned() } else { String::new() },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_model() {
        let text = "{\n  \"ä\": \"x y\",\r\n \"b\": [1,\n\n 2]}\n";
        let sources = [
            SourceFile { path: "a.json".into(), text: text.into() },
            SourceFile { path: "b.json".into(), text: text.into() },
        ];
        let locator = crate::model::Locator::new(&sources);
        let mut cursor = Cursor::default();
        for file in [0, 1] {
            for start in 0..40 {
                let at = At { file, start, end: start + 3 };
                assert_eq!(cursor.locate(&sources, at), locator.locate(at), "{start}");
            }
        }
        assert!(cursor.locate(&sources, At { file: 2, start: 0, end: 0 }).is_none());
    }

    #[test]
    fn the_list_is_bounded_but_says_so() {
        let mut report = Report::default();
        for _ in 0..MOST + 5 {
            report.push(Problem::warning("W", "w"));
        }
        report.push(Problem::error("E", "e"));
        assert!(report.has_errors());
        let problems = report.finish(&[], &[]);
        assert!(problems.has_errors());
        assert_eq!(problems.iter().count(), MOST + 2);
        assert!(problems.iter().any(|problem| problem.message == "5 more warnings are not listed"));
    }

    #[test]
    fn long_lines_are_not_shown() {
        let sources = [SourceFile { path: "a".into(), text: "x".repeat(100_000) }];
        let location = Cursor::default().locate(&sources, At { file: 0, start: 5000, end: 90_000 }).unwrap();
        assert_eq!((location.column, location.length, location.line_text.len()), (5001, LONGEST_LINE, 0));
    }
}
