//! Reads policy directories: files in Azure's own shapes become [`Documents`], with every problem at once.
//!
//! ```text
//! directory ── files ──> bytes ── text ──> UTF-8 ── json, yaml ──> spanned value tree
//!                                                                        │ recognize: which kind, by content
//!      ┌──────┬──────────┬───────┬────────┬───────────┬──────────┬───────┤ (lists, templates, the tenant form
//!      ▼      ▼          ▼       ▼        ▼           ▼          ▼       ▼  are opened)
//!    role assignment   deny   schedule activation   agent      group  hierarchy
//!      └──────┴──────────┴───────┴────┬───┴───────────┴──────────┴───────┘
//!                                   check (across documents; condition: what conditions say)
//!                        ┌────────────┴────────────┐
//!                        ▼                         ▼
//!                    Documents                  Problems (report: line, column, field)
//! ```
//!
//! A kind is told from what an object holds, never from the name of its file. What is no policy document of a known
//! kind is refused, never ignored.
//!
//! Imports `model`, and for what texts mean `condition` (conditions), `pim` (durations, states, rules) and `agent`
//! (what a level brings).

mod activation;
mod agent;
mod assignment;
mod check;
mod condition;
mod deny;
mod document;
mod files;
mod group;
mod hierarchy;
mod ids;
mod json;
mod near;
mod permissions;
mod recognize;
mod report;
mod role;
mod schedule;
mod template;
mod tenant;
mod text;
mod tree;
mod yaml;

#[cfg(test)]
mod tests;

use std::path::Path;

use self::document::Context;
use self::files::Syntax;
use self::report::Report;
use self::tree::{File, Tree};
use crate::condition::Extensions;
use crate::model::{At, Documents, Problem, Problems, SourceFile};

/// How documents of real exports are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lenience {
    /// Every inconsistency refuses the policy.
    #[default]
    Strict,
    /// An assignment to an unknown role or at something that is no scope is a warning and grants nothing
    /// (semantics, section 10, row 15).
    Lenient,
}

/// How a policy is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// What becomes of inconsistencies.
    pub lenience: Lenience,
    /// Whether conditions may use operators that are no part of Azure's language.
    pub extensions: Extensions,
}

impl From<Lenience> for ReadOptions {
    fn from(lenience: Lenience) -> Self {
        Self { lenience, ..Self::default() }
    }
}

/// Reads every policy document below a directory (or one file) and checks them together. The problems hold the
/// warnings; with an error among them the documents must not be used.
pub fn load(path: &Path, options: impl Into<ReadOptions>) -> (Documents, Problems) {
    let mut report = Report::default();
    let files = files::gather(path, &mut report);
    if files.is_empty() && !report.has_errors() {
        report.push(
            Problem::error("NoDocuments", format!("`{}` holds no policy documents", path.display()))
                .help("wanted .json, .jsonl, .ndjson, .yaml or .yml files in it or below it"),
        );
    }
    read(files, options.into(), report)
}

/// The same for texts that are already in memory: pairs of path (for messages and the kind of syntax) and bytes.
pub fn load_texts(files: Vec<(String, Vec<u8>)>, options: impl Into<ReadOptions>) -> (Documents, Problems) {
    let mut report = Report::default();
    if files.is_empty() {
        report.push(Problem::error("NoDocuments", "there are no policy documents"));
    }
    read(files, options.into(), report)
}

fn read(mut bytes: Vec<files::Bytes>, options: ReadOptions, report: Report) -> (Documents, Problems) {
    bytes.sort_by(|(one, _), (other, _)| one.cmp(other));
    let ReadOptions { lenience, extensions } = options;
    let mut context = Context { lenience, extensions, report, ..Context::default() };

    let mut sources: Vec<SourceFile> = Vec::with_capacity(bytes.len());
    let mut trees: Vec<Tree> = Vec::with_capacity(bytes.len());
    for (path, bytes) in bytes {
        let index = u32::try_from(sources.len()).unwrap_or(u32::MAX);
        let text = match text::decode(bytes) {
            Ok(text) => text,
            Err(error) => {
                let problem = Problem::error("InvalidEncoding", format!("`{path}`: {}", error.message))
                    .help("save it as UTF-8, or as UTF-16 with a byte order mark");
                context.report.push(problem);
                continue;
            }
        };
        trees.push(parse(&path, &text, index, &mut context.report));
        sources.push(SourceFile { path, text });
    }

    let files: Vec<File<'_>> = (0..)
        .zip(sources.iter().zip(&trees))
        .map(|(index, (source, tree))| File { index, text: &source.text, tree })
        .collect();
    for value in files.iter().flat_map(File::values) {
        recognize::read(value, &mut context);
    }
    if files.iter().all(|file| file.tree.roots().is_empty()) && !context.report.has_errors() {
        context.report.push(
            Problem::error("NoDocuments", "the files hold no policy documents")
                .help("`[]` says that there is nothing, an empty file does not"),
        );
    }
    check::check(&mut context, &sources);

    let Context { report, mut documents, .. } = context;
    let problems = report.finish(&sources, &files);
    documents.files = sources;
    (documents, problems)
}

/// Parses one file; what is wrong with its syntax goes to the report.
fn parse(path: &str, text: &str, index: u32, report: &mut Report) -> Tree {
    let parsed = match Syntax::of(path).unwrap_or(Syntax::Json) {
        Syntax::Json => json::parse(text).map_err(|problem| vec![problem]),
        Syntax::Yaml => yaml::parse(text).map_err(|problem| vec![problem]),
        Syntax::JsonLines => match json::parse_lines(text) {
            (tree, problems) if problems.is_empty() => Ok(tree),
            (tree, problems) => {
                // The good lines are read on, so that everything is told at once.
                syntax_problems(problems, index, report);
                Ok(tree)
            }
        },
    };
    parsed.unwrap_or_else(|problems| {
        syntax_problems(problems, index, report);
        Tree::default()
    })
}

fn syntax_problems(problems: Vec<tree::Syntax>, index: u32, report: &mut Report) {
    for syntax in problems {
        let offset = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let at = At { file: index, start: offset(syntax.start), end: offset(syntax.end) };
        let problem = Problem::error(syntax.code, syntax.message);
        report.at(
            at,
            match syntax.help {
                Some(help) => problem.help(help),
                None => problem,
            },
        );
    }
}
