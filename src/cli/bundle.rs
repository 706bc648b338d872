//! `postern bundle`: a policy directory as one file, what is in such a file, and what differs between two.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand};
use jiff::Timestamp;

use crate::bundle::{
    self, About, Access, Bundle, Change, ChangeKind, Difference, Impact, ImpactKind, Limits, Manifest,
};
use crate::clock::Clock;
use crate::documents::{self, Lenience};
use crate::model::{Problem, Problems};
use crate::policy::{Counts, Policy};
use crate::source::dir::{self, LoadOptions, Refused};

use super::validate::HowToLoad;
use super::{Exit, print, print_error, print_error_text, print_json, report};

pub(super) const EXAMPLES: &str = "\
Examples:
  postern bundle build examples/contoso -o contoso.bundle
  postern bundle inspect contoso.bundle
  postern bundle verify contoso.bundle
  postern bundle diff contoso.bundle examples/contoso
  postern check --policy contoso.bundle --principal … --action … --scope …

`serve`, `check`, `explain`, `what-can` and `who-can` take a bundle wherever they take a directory.";

const BUILD_EXAMPLES: &str = "\
Examples:
  postern bundle build examples/contoso -o contoso.bundle
  postern bundle build examples/contoso -o contoso.bundle --name contoso --with-sources
  SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) postern bundle build policy/ -o policy.bundle

The same documents, flags and version of postern give the same bytes, wherever and whenever. So no
time is taken from a clock, and there is no serial in the file: a publication gives it, in the
metadata that it signs. Refused is what `serve` refuses; `postern validate` says more.

Exit codes: 0 written, 1 refused or not written, 2 wrong usage.";

const INSPECT_EXAMPLES: &str = "\
Examples:
  postern bundle inspect contoso.bundle
  postern bundle inspect contoso.bundle --json | jq -r .digest

Exit codes: 0 it is a sound bundle, 1 it is not, 2 wrong usage.";

const VERIFY_EXAMPLES: &str = "\
Examples:
  postern bundle verify contoso.bundle

Every digest is computed again: of the content, of the policy, and of the sources where they are
kept. Kept sources are compiled again too, and have to give the same policy. Who made the file is
not told.

Exit codes: 0 everything agrees, 1 it does not, 2 wrong usage.";

const DIFF_EXAMPLES: &str = "\
Examples:
  postern bundle diff old.bundle new.bundle
  postern bundle diff active.bundle policy/ --json | jq '.impact[] | select(.kind == \"gained\")'

A `+` is what somebody gained, a `-` what somebody lost, a `~` what depends on something else.
An action is one that a role or deny assignment names; a pattern stands for what it matches. What
cannot be compared exactly is told as a difference.

Exit codes: 0 nobody may do anything else, 3 somebody may, 1 could not compare, 2 wrong usage.";

/// What to do with bundles.
#[derive(Args, Debug)]
pub(super) struct BundleArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compile a policy directory into one file
    #[command(after_help = BUILD_EXAMPLES)]
    Build(BuildArgs),
    /// Say what is in a bundle
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(InspectArgs),
    /// Check a bundle against itself, to the last byte
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify(InspectArgs),
    /// Say what differs between two policies, and who may do what because of it
    #[command(after_help = DIFF_EXAMPLES)]
    Diff(DiffArgs),
}

#[derive(Args, Debug)]
struct BuildArgs {
    /// Policy directory, or one document
    #[arg(value_name = "DIR")]
    policy: PathBuf,
    /// Where to write the bundle
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Name of the policy
    #[arg(long, default_value = "policy", value_parser = name)]
    name: String,
    /// Say when it was made: a time such as 2026-01-31T09:30:00Z, or seconds of Unix time
    #[arg(long, value_name = "TIME", env = "SOURCE_DATE_EPOCH", value_parser = created)]
    created: Option<Timestamp>,
    /// Keep the documents in the bundle
    #[arg(long, value_parser = BoolishValueParser::new())]
    with_sources: bool,
    #[command(flatten)]
    how: HowToLoad,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct InspectArgs {
    /// Bundle
    #[arg(value_name = "FILE")]
    bundle: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct DiffArgs {
    /// The one before: a bundle or a policy directory
    #[arg(value_name = "A")]
    before: PathBuf,
    /// The one after: a bundle or a policy directory
    #[arg(value_name = "B")]
    after: PathBuf,
    #[command(flatten)]
    how: HowToLoad,
    /// Compare what holds at this time, for example 2026-01-31T09:30:00Z; without it now
    #[arg(long, value_name = "TIME", value_parser = time)]
    now: Option<Timestamp>,
    /// Tell no more changes and no more differences in access than these; 0: all
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A bundle for programs.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Described<'a> {
    digest: &'a str,
    bytes: u64,
    manifest: &'a Manifest,
    #[serde(skip_serializing_if = "Option::is_none")]
    sources: Option<Vec<String>>,
}

/// A difference for programs.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Compared<'a> {
    /// Whether somebody may do something else.
    differs: bool,
    changes: &'a [Change],
    changes_left_out: usize,
    impact: &'a [Impact],
    impact_left_out: usize,
    pairs_left_out: usize,
}

#[derive(serde::Serialize)]
struct Failed<'a> {
    error: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<&'a Problem>,
}

/// Why a command came to nothing.
pub(super) enum Failure {
    Refused(Refused),
    Said(String),
}

fn name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 128 || text.starts_with('.') || !text.chars().all(plain) {
        return Err("wanted 1 to 128 letters, digits, `-`, `_` or `.`, not a `.` first".to_owned());
    }
    Ok(text.to_owned())
}

fn created(text: &str) -> Result<Timestamp, String> {
    match text.parse() {
        Ok(seconds) => Timestamp::from_second(seconds).map_err(|_| "is no time".to_owned()),
        Err(_) => time(text).map_err(|wanted| format!("{wanted}, or seconds of Unix time")),
    }
}

fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "wanted a time with its zone such as `2026-01-31T09:30:00Z`".to_owned())
}

pub(super) fn run(arguments: &BundleArgs) -> Exit {
    let (json, done) = match &arguments.command {
        Command::Build(build) => (build.json, self::build(build)),
        Command::Inspect(inspect) => (inspect.json, self::inspect(inspect)),
        Command::Verify(verify) => (verify.json, self::verify(verify)),
        Command::Diff(diff) => (diff.json, self::diff(diff)),
    };
    done.unwrap_or_else(|failure| tell(&failure, json))
}

fn tell(failure: &Failure, json: bool) -> Exit {
    let (error, problems) = match failure {
        Failure::Refused(refused) => {
            (report::summary(&refused.problems, refused.files), Some(&refused.problems))
        }
        Failure::Said(error) => (error.clone(), None),
    };
    if json {
        let problems = problems.into_iter().flatten().collect();
        if let Err(error) = print_json(&Failed { error, problems }) {
            print_error(&error);
        }
    } else {
        if let Some(problems) = problems {
            print_error_text(&report::problems(problems));
        }
        print_error(&error);
    }
    Exit::Failed
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Said(error.to_string())
    }
}

// === build ===

/// A directory that became a bundle.
pub(super) struct Built {
    pub(super) bytes: Vec<u8>,
    /// What was found and let pass.
    pub(super) warnings: Problems,
}

/// Compiles a directory or document into the bytes of a bundle; `about` says the rest.
pub(super) fn built(path: &Path, how: HowToLoad, about: &About<'_>) -> Result<Built, Failure> {
    let options = how.options();
    let (documents, mut problems) = documents::load(path, options.reading());
    let files = documents.files.len();
    let compiled = if problems.has_errors() {
        None
    } else {
        Policy::compile(&documents, options.compile).map_err(|more| problems.extend(more)).ok()
    };
    problems.sort();
    let Some(policy) = compiled else {
        return Err(Failure::Refused(Refused { problems, files }));
    };
    let lenient = options.lenience == Lenience::Lenient;
    let about = About { lenient, sources: &documents.files, ..*about };
    let bytes = bundle::build(&policy, &about).map_err(|error| Failure::Said(error.to_string()))?;
    Ok(Built { bytes, warnings: problems })
}

fn build(arguments: &BuildArgs) -> Result<Exit, Failure> {
    if bundle::is_bundle(&arguments.policy) {
        let path = arguments.policy.display();
        return Err(Failure::Said(format!("`{path}` is a bundle already; wanted a policy directory")));
    }
    let about = About {
        name: &arguments.name,
        created: arguments.created,
        keep_sources: arguments.with_sources,
        ..About::default()
    };
    let Built { bytes, warnings } = built(&arguments.policy, arguments.how, &about)?;
    let path = arguments.output.as_path();
    let failed =
        |error: &dyn std::fmt::Display| Failure::Said(format!("cannot write `{}`: {error}", path.display()));
    bundle::write(path, &bytes).map_err(|error| failed(&error))?;
    // What is told is what a reader of these bytes will find.
    let built = bundle::from_bytes(bytes).map_err(|error| failed(&error))?;
    if arguments.json {
        print_json(&Described::new(&built)?)?;
    } else {
        warned(&warnings);
        print(&format!("{}{}", described(path, &built)?, counted(built.manifest.counts)));
    }
    Ok(Exit::Yes)
}

/// Warnings go where they are in nobody's way.
pub(super) fn warned(problems: &Problems) {
    if !problems.is_empty() {
        print_error_text(&report::problems(problems));
    }
}

// === inspect and verify ===

fn opened(path: &Path) -> Result<Bundle, Failure> {
    bundle::open(path, Limits::default())
        .map_err(|error| Failure::Said(format!("`{}`: {error}", path.display())))
}

fn inspect(arguments: &InspectArgs) -> Result<Exit, Failure> {
    let bundle = opened(&arguments.bundle)?;
    if arguments.json {
        print_json(&Described::new(&bundle)?)?;
    } else {
        print(&format!("{}{}", described(&arguments.bundle, &bundle)?, counted(bundle.manifest.counts)));
    }
    Ok(Exit::Yes)
}

fn verify(arguments: &InspectArgs) -> Result<Exit, Failure> {
    let bundle = opened(&arguments.bundle)?;
    let path = arguments.bundle.display();
    let damaged = |error: &dyn std::fmt::Display| Failure::Said(format!("`{path}`: {error}"));
    bundle.verify().map_err(|error| damaged(&error))?;
    if let Some(sources) = bundle.sources().map_err(|error| damaged(&error))? {
        let manifest = &bundle.manifest;
        let lenience = if manifest.options.lenient { Lenience::Lenient } else { Lenience::Strict };
        let options = LoadOptions { lenience, compile: manifest.options.compile() };
        let texts = sources.into_iter().map(|source| (source.path, source.text.into_bytes())).collect();
        let (documents, problems) = documents::load_texts(texts, options.reading());
        let compiled =
            if problems.has_errors() { None } else { Policy::compile(&documents, options.compile).ok() };
        if compiled.is_none_or(|policy| policy.digest() != bundle.policy.digest()) {
            let tool = &manifest.tool;
            return Err(damaged(&format!(
                "its sources do not compile to its policy; it was built by {tool}"
            )));
        }
    }
    if arguments.json {
        print_json(&Described::new(&bundle)?)?;
    } else {
        let sources = if bundle.manifest.with_sources { ", and its sources compile to it" } else { "" };
        print(&format!("sound{sources}\n{}\n", bundle.digest));
    }
    Ok(Exit::Yes)
}

impl<'a> Described<'a> {
    fn new(bundle: &'a Bundle) -> Result<Self, Failure> {
        let sources = bundle.sources().map_err(|error| Failure::Said(error.to_string()))?;
        Ok(Self {
            digest: &bundle.digest,
            bytes: bundle.bytes(),
            manifest: &bundle.manifest,
            sources: sources.map(|all| all.into_iter().map(|source| source.path).collect()),
        })
    }
}

fn line(name: &str, value: &str) -> String {
    if value.is_empty() { String::new() } else { format!("{name:<18} {value}\n") }
}

fn described(path: &Path, bundle: &Bundle) -> Result<String, Failure> {
    let manifest = &bundle.manifest;
    let sources = bundle.sources().map_err(|error| Failure::Said(error.to_string()))?;
    let kept =
        sources.map_or_else(|| "not kept".to_owned(), |all| report::counted(all.len(), "file", "files"));
    let options = [
        ("lenient", manifest.options.lenient),
        ("strict wildcards", manifest.options.strict_wildcards),
        ("condition extensions", manifest.options.condition_extensions),
    ];
    let options: Vec<&str> = options.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
    let lines = [
        ("bundle", path.display().to_string()),
        ("name", manifest.name.clone()),
        ("digest", bundle.digest.clone()),
        ("bytes", bundle.bytes().to_string()),
        ("format", manifest.format.to_string()),
        ("created", manifest.created.map(|at| at.to_string()).unwrap_or_default()),
        ("built by", manifest.tool.clone()),
        ("options", options.join(", ")),
        ("policy digest", manifest.policy_digest.clone()),
        ("sources digest", manifest.sources_digest.clone()),
        ("sources", kept),
    ];
    Ok(lines.into_iter().map(|(name, value)| line(name, &value)).collect())
}

fn counted(counts: Counts) -> String {
    let lines = [
        ("role definitions", counts.role_definitions),
        ("role assignments", counts.role_assignments),
        ("eligibilities", counts.eligibilities),
        ("deny assignments", counts.deny_assignments),
        ("conditions", counts.conditions),
        ("agents", counts.agents),
        ("principals", counts.principals),
        ("scopes", counts.scopes),
    ];
    lines.into_iter().map(|(name, count)| line(name, &count.to_string())).collect()
}

// === diff ===

fn diff(arguments: &DiffArgs) -> Result<Exit, Failure> {
    let options = arguments.how.options();
    let load = |path: &Path| dir::load(path, options).map(|loaded| loaded.policy).map_err(Failure::Refused);
    let (before, after) = (load(&arguments.before)?, load(&arguments.after)?);
    let now = arguments.now.unwrap_or_else(|| Clock::system().now());
    let difference = bundle::diff(&before, &after, now).map_err(|error| Failure::Said(error.to_string()))?;
    let limit = if arguments.limit == 0 { usize::MAX } else { arguments.limit };
    if arguments.json {
        print_json(&Compared::new(&difference, limit))?;
    } else {
        print(&told(&difference, limit));
    }
    Ok(if difference.has_impact() { Exit::No } else { Exit::Yes })
}

/// The first of a list, and how many there are behind them.
fn first<T>(all: &[T], limit: usize) -> (&[T], usize) {
    let shown = all.get(..limit).unwrap_or(all);
    (shown, all.len().saturating_sub(shown.len()))
}

impl<'a> Compared<'a> {
    fn new(difference: &'a Difference, limit: usize) -> Self {
        let (changes, changes_left_out) = first(&difference.changes, limit);
        let (impact, impact_left_out) = first(&difference.impact, limit);
        Self {
            differs: difference.has_impact(),
            changes,
            changes_left_out,
            impact,
            impact_left_out,
            pairs_left_out: difference.pairs_left_out,
        }
    }
}

fn told(difference: &Difference, limit: usize) -> String {
    if difference.changes.is_empty() && !difference.has_impact() {
        return "no difference\n".to_owned();
    }
    let mut text = String::new();
    let (changes, left_out) = first(&difference.changes, limit);
    text.push_str(&format!("Changes: {}\n", summed(&difference.changes)));
    for Change { kind, change, id, before, after } in changes {
        let sign = match change {
            ChangeKind::Added => '+',
            ChangeKind::Removed => '-',
            ChangeKind::Changed => '~',
        };
        text.push_str(&format!("{sign} {kind} {id}\n"));
        for (facts, sign) in [(before, "- "), (after, "+ ")] {
            let sign = if *change == ChangeKind::Changed { sign } else { "" };
            for (name, value) in facts {
                // Conditions are often written over many lines.
                let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
                text.push_str(&format!("    {sign}{name:<12} {value}\n"));
            }
        }
    }
    text.push_str(&more(left_out));
    if difference.impact.is_empty() {
        text.push_str("\nNobody may do anything else\n");
    } else {
        text.push_str(&format!("\nWho may do what: {}\n", summed_impact(&difference.impact)));
    }
    let (impact, left_out) = first(&difference.impact, limit);
    let mut whose = None;
    for one in impact {
        if whose != Some((&one.principal, &one.scope)) {
            text.push_str(&format!("{} at {}\n", one.principal, one.scope));
            whose = Some((&one.principal, &one.scope));
        }
        let sign = match one.kind {
            ImpactKind::Gained => '+',
            ImpactKind::Lost => '-',
            ImpactKind::Changed => '~',
        };
        let of = match (one.of, one.plane) {
            ("action", Some("data")) => "data action",
            ("pattern", Some("data")) => "data pattern",
            (of, _) => of,
        };
        let (before, after) = (access(one.before), access(one.after));
        let how = if before == after {
            format!("{after}, otherwise than before")
        } else {
            format!("{before}, now {after}")
        };
        text.push_str(&format!("  {sign} {of:<12} {} ({how})\n", one.what));
    }
    text.push_str(&more(left_out));
    if difference.pairs_left_out > 0 {
        let pairs = difference.pairs_left_out;
        text.push_str(&format!(
            "{pairs} pairs of principal and scope were not compared: there are too many\n"
        ));
    }
    text
}

fn more(left_out: usize) -> String {
    if left_out == 0 { String::new() } else { format!("… and {left_out} more; `--limit 0` tells all\n") }
}

fn summed(changes: &[Change]) -> String {
    if changes.is_empty() {
        return "none".to_owned();
    }
    let mut counts: BTreeMap<(&str, ChangeKind), usize> = BTreeMap::new();
    for change in changes {
        let count = counts.entry((change.kind, change.change)).or_default();
        *count = count.saturating_add(1);
    }
    let part = |((kind, change), count): ((&str, ChangeKind), usize)| {
        let many = match kind {
            "eligibility" => "eligibilities".to_owned(),
            "hierarchy" | "options" => kind.to_owned(),
            kind => format!("{kind}s"),
        };
        let change = match change {
            ChangeKind::Added => "added",
            ChangeKind::Removed => "removed",
            ChangeKind::Changed => "changed",
        };
        format!("{} {change}", report::counted(count, kind, &many))
    };
    counts.into_iter().map(part).collect::<Vec<_>>().join(", ")
}

fn summed_impact(impact: &[Impact]) -> String {
    let count = |kind| impact.iter().filter(|one| one.kind == kind).count();
    let parts = [
        (count(ImpactKind::Gained), "gained"),
        (count(ImpactKind::Lost), "lost"),
        (count(ImpactKind::Changed), "changed"),
    ];
    let parts = parts.into_iter().filter(|(count, _)| *count > 0);
    parts.map(|(count, name)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
}

const fn access(access: Access) -> &'static str {
    match access {
        Access::NotAllowed => "not allowed",
        Access::Denied => "denied",
        Access::Conditional => "conditional",
        Access::Allowed => "allowed",
        Access::Undecided => "undecided",
    }
}
