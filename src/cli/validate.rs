//! `postern validate`: everything that `serve` would tell, and what the service would refuse if the documents were
//! written now.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;

use crate::authoring::Judge;
use crate::documents::{self, Lenience};
use crate::model::{Problems, Severity, Wildcards};
use crate::policy::{CompileOptions, Counts, Policy};
use crate::source::dir::LoadOptions;

use super::{Exit, print, print_error, print_json, report};

pub(super) const EXAMPLES: &str = "\
Examples:
  postern validate examples/contoso
  postern validate --lenient exports/ --json | jq '.problems[].message'

Refused is what `serve` refuses, and what Azure refuses to write today: beyond a limit, a name that is taken,
a scope that the role is not for, an ambiguous condition. `serve` takes those: stored data may be older than
the rules.

Exit codes: 0 valid (with warnings or without), 1 refused, 2 wrong usage.";

/// What to validate.
#[derive(Args, Debug)]
pub(super) struct ValidateArgs {
    /// Policy directory, or one file
    #[arg(value_name = "DIR", env = "POSTERN_POLICY")]
    policy: PathBuf,
    #[command(flatten)]
    how: HowToLoad,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// How a directory is read, the same for every command that reads one.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct HowToLoad {
    /// Take real exports: assignments to unknown roles or at invalid scopes are warnings and grant nothing
    #[arg(long, env = "POSTERN_LENIENT", value_parser = BoolishValueParser::new())]
    lenient: bool,
    /// Read `/*/` in patterns literally: without this it also matches a single `/`, as in Azure
    #[arg(long, env = "POSTERN_STRICT_WILDCARDS", value_parser = BoolishValueParser::new())]
    strict_wildcards: bool,
    /// Let conditions use operators that Azure has not: time of day, IP ranges, contains, ends with, matches
    #[arg(long, env = "POSTERN_CONDITION_EXTENSIONS", value_parser = BoolishValueParser::new())]
    condition_extensions: bool,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome<'a> {
    valid: bool,
    errors: usize,
    warnings: usize,
    files: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Contents<'a>>,
    problems: Vec<&'a crate::model::Problem>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Contents<'a> {
    digest: &'a str,
    role_definitions: usize,
    role_assignments: usize,
    deny_assignments: usize,
    principals: usize,
    scopes: usize,
    bytes: usize,
}

impl HowToLoad {
    pub(super) const fn options(self) -> LoadOptions {
        LoadOptions {
            lenience: if self.lenient { Lenience::Lenient } else { Lenience::Strict },
            compile: CompileOptions {
                wildcards: if self.strict_wildcards { Wildcards::Strict } else { Wildcards::Collapse },
                condition_extensions: self.condition_extensions,
            },
        }
    }
}

/// What became of a directory.
struct Validated {
    /// `None` when there are errors.
    policy: Option<Policy>,
    problems: Problems,
    files: usize,
}

fn validate(arguments: &ValidateArgs) -> Validated {
    let options = arguments.how.options();
    let (documents, mut problems) = documents::load(&arguments.policy, options.reading());
    let files = documents.files.len();
    let policy = if problems.has_errors() {
        None
    } else {
        Policy::compile(&documents, options.compile).map_err(|more| problems.extend(more)).ok()
    };
    // Exports of one subscription do not say what lies above it.
    let extensions = options.reading().extensions;
    let judge = Judge { hierarchy_complete: false, extensions, ..Judge::default() };
    let problems = judge.judge_all(&documents, &problems);
    Validated { policy: policy.filter(|_| !problems.has_errors()), problems, files }
}

pub(super) fn run(arguments: &ValidateArgs) -> Exit {
    let Validated { policy, problems, files } = validate(arguments);
    let exit = if policy.is_some() { Exit::Yes } else { Exit::Failed };
    if arguments.json {
        let outcome = Outcome {
            valid: policy.is_some(),
            errors: problems.count(Severity::Error),
            warnings: problems.count(Severity::Warning),
            files,
            policy: policy.as_ref().map(|policy| Contents::new(policy.digest(), policy.counts())),
            problems: problems.iter().collect(),
        };
        if let Err(error) = print_json(&outcome) {
            print_error(&error);
            return Exit::Failed;
        }
        return exit;
    }
    told(&problems, files);
    if let Some(policy) = &policy {
        let counts = policy.counts();
        print(&format!(
            "{}, {}, {}, {}, {}\n{}\n",
            report::counted(counts.role_definitions, "role definition", "role definitions"),
            report::counted(counts.role_assignments, "role assignment", "role assignments"),
            report::counted(counts.deny_assignments, "deny assignment", "deny assignments"),
            report::counted(counts.principals, "principal", "principals"),
            report::counted(counts.scopes, "scope", "scopes"),
            policy.digest(),
        ));
    }
    exit
}

fn told(problems: &Problems, files: usize) {
    print(&report::problems(problems));
    print(&format!("{}\n", report::summary(problems, files)));
}

impl<'a> Contents<'a> {
    const fn new(digest: &'a str, counts: Counts) -> Self {
        Self {
            digest,
            role_definitions: counts.role_definitions,
            role_assignments: counts.role_assignments,
            deny_assignments: counts.deny_assignments,
            principals: counts.principals,
            scopes: counts.scopes,
            bytes: counts.bytes,
        }
    }
}
