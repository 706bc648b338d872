//! `postern replay`: recorded decisions, asked again of another policy, and what it would decide otherwise.
//!
//! Reads line by line and keeps what it tells: a group for each way in which a decision changes and each assignment
//! that it hangs on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use serde_json::Value as Json;

use crate::authorizer::Answer;
use crate::model::{Decision, Plane, Problem, Undecided, Why};
use crate::policy::Policy;
use crate::record::names::field;
use crate::record::{Candidate, Comparison, Field, Outcome, Steps, compare};
use crate::server::record::RecordedQuestion;
use crate::source::dir::{self, Refused};

use super::validate::HowToLoad;
use super::{Exit, print, print_error, print_error_text, print_json, report};

pub(super) const EXAMPLES: &str = "\
Examples:
  postern replay decisions.jsonl --policy policy/
  postern replay decisions.jsonl.1 decisions.jsonl --policy next.bundle --json | jq '.groups[]'
  kubectl logs deploy/api -c postern | postern replay - --policy policy/

Each question is asked again at its recorded time. Not the same is another decision, other steps, or
the rights of somebody else; which of several role assignments grants is no difference. A question
that was recorded without a part of it (`--records-mask`) is not asked again, and told.

Exit codes: 0 every decision is the same, 3 some are not, 1 could not compare, 2 wrong usage.";

/// Longer lines are no records.
const LONGEST_LINE: usize = 16 << 20;
/// Distinct principals of one group that are counted exactly.
const MOST_PRINCIPALS: usize = 10_000;
/// Lines that are told one by one.
const MOST_TOLD: usize = 20;

/// What to replay, and against what.
#[derive(Args, Debug)]
pub(super) struct ReplayArgs {
    /// Files of records as `serve --records` writes them; `-` for standard input
    #[arg(value_name = "RECORDS", required = true)]
    records: Vec<PathBuf>,
    /// The policy that is asked: a directory or a bundle
    #[arg(long, value_name = "DIR", env = "POSTERN_POLICY", required = true)]
    policy: PathBuf,
    #[command(flatten)]
    how: HowToLoad,
    /// Tell no more groups than these; 0: all
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Why nothing was compared.
enum Failure {
    Refused(Refused),
    Said(String),
}

#[derive(serde::Serialize)]
struct Failed<'a> {
    error: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<&'a Problem>,
}

/// A decision of a record.
struct Recorded {
    outcome: Outcome,
    reason: String,
    executed_as: Option<String>,
    steps: String,
    role_assignment: Option<String>,
    deny_assignment: Option<String>,
    eligibility: Option<String>,
    at: Timestamp,
    time: String,
    question: RecordedQuestion,
}

/// What a line is, if it is no decision to compare.
enum Skip {
    /// It cannot be read.
    Malformed(String),
    /// A part of the question is missing.
    Masked(String),
    /// There was no decision, and not because of what the policy says: there was none, or it was too old.
    NoPolicy(String),
    /// What a candidate said; the decision stands in a record of its own.
    Difference,
}

/// What a changed decision hangs on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Cause {
    /// This role assignment granted, and does not any more.
    LostGrant(String),
    /// This role assignment grants now.
    NewGrant(String),
    /// This deny assignment blocked, and does not any more.
    LostDeny(String),
    /// This deny assignment blocks now.
    NewDeny(String),
    /// This eligibility could be activated, and cannot any more.
    LostEligibility(String),
    /// This one can be now.
    NewEligibility(String),
    /// An agent takes other steps.
    Steps(String, String),
    /// The rights of somebody else.
    ExecutedAs(String, String),
    /// There is no decision now, or there was none.
    Undecided(&'static str),
}

/// How a decision changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Change {
    cause: Cause,
    was: (&'static str, String),
    now: (&'static str, &'static str),
}

/// All decisions that change in one way.
#[derive(Debug)]
struct Group {
    requests: u64,
    /// Hashes: an id may be long, and there may be many.
    principals: HashSet<u64>,
    first: Timestamp,
    last: Timestamp,
    example: Example,
}

/// One of them.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Example {
    record: String,
    time: String,
    principal: String,
    action: String,
    data_action: bool,
    scope: String,
}

/// Everything that is told.
struct Replay {
    candidate: Candidate,
    hasher: RandomState,
    decisions: u64,
    same: u64,
    different: u64,
    candidate_differences: u64,
    masked: BTreeMap<String, u64>,
    no_policy: BTreeMap<String, u64>,
    malformed: u64,
    malformed_lines: Vec<(String, String)>,
    groups: HashMap<Change, Group>,
}

// === run ===

pub(super) fn run(arguments: &ReplayArgs) -> Exit {
    let outcome = replay(arguments);
    outcome.unwrap_or_else(|failure| {
        let (error, problems) = match &failure {
            Failure::Refused(refused) => {
                (report::summary(&refused.problems, refused.files), Some(&refused.problems))
            }
            Failure::Said(error) => (error.clone(), None),
        };
        if arguments.json {
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
    })
}

fn replay(arguments: &ReplayArgs) -> Result<Exit, Failure> {
    let policy = dir::load(&arguments.policy, arguments.how.options()).map_err(Failure::Refused)?.policy;
    let mut replay = Replay::new(policy);
    for path in &arguments.records {
        let name = path.display().to_string();
        let failed = |error: io::Error| Failure::Said(format!("cannot read `{name}`: {error}"));
        if name == "-" {
            replay.read(&name, io::stdin().lock()).map_err(failed)?;
        } else {
            let file = File::open(path).map_err(failed)?;
            replay.read(&name, BufReader::with_capacity(1 << 20, file)).map_err(failed)?;
        }
    }
    let damaged = |error| Failure::Said(format!("the policy cannot be read: {error}"));
    let told = replay.told(arguments.limit).map_err(damaged)?;
    if arguments.json {
        print_json(&told).map_err(|error| Failure::Said(error.to_string()))?;
    } else {
        print(&told.text());
    }
    Ok(match (replay.different, replay.decisions, replay.skipped()) {
        (1.., ..) => Exit::No,
        // Nothing was compared, so nothing can be said.
        (0, 0, 1..) => Exit::Failed,
        _ => Exit::Yes,
    })
}

// === reading ===

impl Replay {
    fn new(policy: Policy) -> Self {
        Self {
            candidate: Candidate::new(policy),
            hasher: RandomState::new(),
            decisions: 0,
            same: 0,
            different: 0,
            candidate_differences: 0,
            masked: BTreeMap::new(),
            no_policy: BTreeMap::new(),
            malformed: 0,
            malformed_lines: Vec::new(),
            groups: HashMap::new(),
        }
    }

    /// What was in the records and was not compared.
    fn skipped(&self) -> u64 {
        self.malformed + self.masked.values().sum::<u64>() + self.no_policy.values().sum::<u64>()
    }

    fn read(&mut self, name: &str, mut input: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            let most = LONGEST_LINE as u64;
            if input.by_ref().take(most).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if !line.ends_with(b"\n") && line.len() >= LONGEST_LINE {
                input.skip_until(b'\n')?;
                self.malformed(name, number, format!("is longer than {LONGEST_LINE} bytes"));
                continue;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            match Recorded::read(&line) {
                Ok(recorded) => {
                    if let Err(wrong) = self.compare(&recorded, name, number) {
                        self.malformed(name, number, wrong);
                    }
                }
                Err(Skip::Malformed(wrong)) => self.malformed(name, number, wrong),
                Err(Skip::Masked(path)) => add(&mut self.masked, path),
                Err(Skip::NoPolicy(reason)) => add(&mut self.no_policy, reason),
                Err(Skip::Difference) => {
                    self.candidate_differences = self.candidate_differences.saturating_add(1);
                }
            }
        }
        Ok(())
    }

    fn malformed(&mut self, name: &str, number: u64, wrong: String) {
        self.malformed = self.malformed.saturating_add(1);
        if self.malformed_lines.len() < MOST_TOLD {
            self.malformed_lines.push((format!("{name}:{number}"), wrong));
        }
    }

    fn compare(&mut self, recorded: &Recorded, name: &str, number: u64) -> Result<(), String> {
        let asked = recorded.question.asked().map_err(|violations| violations.to_string())?;
        let now = self.candidate.authorizer().check_at(
            &self.candidate.snapshot,
            &asked.request,
            asked.agent.as_ref(),
            recorded.at,
        );
        self.decisions = self.decisions.saturating_add(1);
        let was = (recorded.outcome, recorded.executed_as.as_deref(), recorded.steps.as_str());
        if compare(was, &now) == Comparison::Same {
            self.same = self.same.saturating_add(1);
            return Ok(());
        }
        self.different = self.different.saturating_add(1);
        let change = change(recorded, &now, &self.candidate.snapshot.policy);
        let principal = self.hasher.hash_one(asked.request.subject.principal.to_string());
        let group = self.groups.entry(change).or_insert_with(|| Group {
            requests: 0,
            principals: HashSet::new(),
            first: recorded.at,
            last: recorded.at,
            example: Example {
                record: format!("{name}:{number}"),
                time: recorded.time.clone(),
                principal: recorded.question.principal().to_owned(),
                action: asked.request.action.as_str().to_owned(),
                data_action: asked.request.plane == Plane::Data,
                scope: asked.request.scope.as_str().to_owned(),
            },
        });
        group.requests = group.requests.saturating_add(1);
        if group.principals.len() < MOST_PRINCIPALS {
            group.principals.insert(principal);
        }
        group.first = group.first.min(recorded.at);
        group.last = group.last.max(recorded.at);
        Ok(())
    }
}

fn add(counts: &mut BTreeMap<String, u64>, name: String) {
    let count = counts.entry(name).or_default();
    *count = count.saturating_add(1);
}

impl Recorded {
    fn read(line: &[u8]) -> Result<Self, Skip> {
        let malformed = |wrong: &str| Skip::Malformed(wrong.to_owned());
        let json: Json =
            serde_json::from_slice(line).map_err(|error| Skip::Malformed(format!("is no JSON: {error}")))?;
        let text = |name: &str| json.get(name).and_then(Json::as_str);
        let owned = |name: &str| text(name).map(str::to_owned);
        match text(field::KIND) {
            Some("decision") => {}
            Some("difference") => return Err(Skip::Difference),
            _ => return Err(malformed("is no record: `kind` is neither `decision` nor `difference`")),
        }
        let outcome = text(field::DECISION)
            .and_then(|name| Outcome::ALL.into_iter().find(|outcome| outcome.name() == name))
            .ok_or_else(|| malformed("`decision` is nothing that this version knows"))?;
        let reason = text(field::REASON_CODE).ok_or_else(|| malformed("`reason_code` is missing"))?;
        let reasons = [
            Undecided::NoPolicy,
            Undecided::PolicyOutdated(crate::model::Freshness::Stale),
            Undecided::PolicyOutdated(crate::model::Freshness::Expired),
        ];
        if outcome == Outcome::Undecided && reasons.iter().any(|undecided| undecided.code() == reason) {
            return Err(Skip::NoPolicy(reason.to_owned()));
        }
        let masked = json.get(field::MASKED).and_then(Json::as_array).into_iter().flatten();
        let labels = [Field::RequestId, Field::PrincipalType, Field::UserType, Field::ApproverType];
        if let Some(path) =
            masked.filter_map(Json::as_str).find(|path| !labels.iter().any(|label| label.path() == *path))
        {
            return Err(Skip::Masked(path.to_owned()));
        }
        let time = text(field::TIME).ok_or_else(|| malformed("`time` is missing"))?;
        let at = time.parse().map_err(|_| malformed("`time` is no time"))?;
        let request = json.get(field::REQUEST).ok_or_else(|| malformed("`request` is missing"))?;
        let question = RecordedQuestion::read(request).map_err(Skip::Malformed)?;
        let mut steps = String::new();
        for step in json.get(field::STEPS).and_then(Json::as_array).into_iter().flatten() {
            let part = |name| step.get(name).and_then(Json::as_str).unwrap_or_default();
            let comma = if steps.is_empty() { "" } else { "," };
            steps.push_str(&format!("{comma}{}={}", part(field::STEP_KIND), part(field::STEP_STATE)));
        }
        Ok(Self {
            outcome,
            reason: reason.to_owned(),
            executed_as: owned(field::EXECUTED_AS),
            steps,
            role_assignment: owned(field::ROLE_ASSIGNMENT_ID),
            deny_assignment: owned(field::DENY_ASSIGNMENT_ID),
            eligibility: owned(field::ELIGIBILITY_ID),
            at,
            time: time.to_owned(),
            question,
        })
    }
}

// === what changes ===

fn change(recorded: &Recorded, now: &Result<Answer, Undecided>, policy: &Policy) -> Change {
    let was = (recorded.outcome.name(), recorded.reason.clone());
    let answer = match now {
        Ok(answer) => answer,
        Err(undecided) => {
            let cause = Cause::Undecided(undecided.code());
            return Change { cause, was, now: (Outcome::Undecided.name(), undecided.code()) };
        }
    };
    let decision = answer.evaluation.decision;
    let unnamed = || "(unnamed)".to_owned();
    let recorded_id = |id: &Option<String>| id.clone().unwrap_or_else(unnamed);
    let steps = |cause: Option<Cause>| {
        cause.unwrap_or_else(|| Cause::Steps(recorded.steps.clone(), Steps(&answer.steps).to_string()))
    };
    let cause = match (recorded.outcome, decision) {
        (_, Decision::Denied(hit)) if recorded.outcome != Outcome::Denied => {
            Cause::NewDeny(policy.deny_assignment_id(hit))
        }
        (Outcome::Denied, Decision::Allowed(_) | Decision::NotAllowed(_)) => {
            Cause::LostDeny(recorded_id(&recorded.deny_assignment))
        }
        (Outcome::Allowed, Decision::NotAllowed(_)) => {
            Cause::LostGrant(recorded_id(&recorded.role_assignment))
        }
        (Outcome::NotAllowed | Outcome::Undecided, Decision::Allowed(grant)) => {
            Cause::NewGrant(policy.role_assignment_id(grant))
        }
        (Outcome::Undecided, _) => Cause::Undecided("DECIDED"),
        (Outcome::Allowed, Decision::Allowed(_)) => {
            let whose = answer.executed_as.map_or("", |whose| whose.name());
            let before = recorded.executed_as.clone().unwrap_or_default();
            steps((before != whose).then(|| Cause::ExecutedAs(before, whose.to_owned())))
        }
        (Outcome::NotAllowed, Decision::NotAllowed(why)) => steps(match (&recorded.eligibility, why) {
            (_, Why::Eligible(eligibility)) => {
                Some(Cause::NewEligibility(policy.eligibility_id(eligibility)))
            }
            (Some(id), _) if recorded.steps.contains(ACTIVATION) => Some(Cause::LostEligibility(id.clone())),
            _ => None,
        }),
        (Outcome::Denied, Decision::Denied(_)) | (_, Decision::Denied(_)) => steps(None),
    };
    Change { cause, was, now: (decision.name(), decision.reason_code().name()) }
}

const ACTIVATION: &str = "activate_role";

// === telling ===

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'r> {
    policy_digest: &'r str,
    decisions: u64,
    same: u64,
    different: u64,
    not_replayed: NotReplayed<'r>,
    /// Records of what a candidate said; they are no decisions.
    candidate_differences: u64,
    groups: Vec<ToldGroup<'r>>,
    groups_left_out: usize,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct NotReplayed<'r> {
    /// By the path that is missing.
    masked: &'r BTreeMap<String, u64>,
    /// By reason.
    no_policy: &'r BTreeMap<String, u64>,
    malformed: u64,
    malformed_lines: Vec<MalformedLine<'r>>,
}

#[derive(serde::Serialize)]
struct MalformedLine<'r> {
    record: &'r str,
    problem: &'r str,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct ToldGroup<'r> {
    was: &'r str,
    was_reason: &'r str,
    now: &'r str,
    now_reason: &'r str,
    /// In words.
    because: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    role_assignment_id: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deny_assignment_id: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eligibility_id: Option<&'r str>,
    requests: u64,
    principals: usize,
    /// There are more principals than are counted.
    more_principals: bool,
    first: Timestamp,
    last: Timestamp,
    example: &'r Example,
}

impl Replay {
    fn told(&self, limit: usize) -> Result<Told<'_>, crate::policy::Damaged> {
        let there = self.there()?;
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by(|(one, a), (other, b)| b.requests.cmp(&a.requests).then_with(|| one.cmp(other)));
        let most = if limit == 0 { usize::MAX } else { limit };
        Ok(Told {
            policy_digest: self.candidate.snapshot.policy.digest(),
            decisions: self.decisions,
            same: self.same,
            different: self.different,
            not_replayed: NotReplayed {
                masked: &self.masked,
                no_policy: &self.no_policy,
                malformed: self.malformed,
                malformed_lines: self
                    .malformed_lines
                    .iter()
                    .map(|(record, problem)| MalformedLine { record, problem })
                    .collect(),
            },
            candidate_differences: self.candidate_differences,
            groups_left_out: groups.len().saturating_sub(most),
            groups: groups
                .iter()
                .take(most)
                .map(|(change, group)| ToldGroup::new(change, group, &there))
                .collect(),
        })
    }

    /// Which of the assignments that decided are in the policy at all: one pass over it, however large it is.
    fn there(&self) -> Result<HashSet<String>, crate::policy::Damaged> {
        let mut wanted: HashSet<String> = HashSet::new();
        for change in self.groups.keys() {
            if let Cause::LostGrant(id) | Cause::LostDeny(id) | Cause::LostEligibility(id) = &change.cause {
                wanted.insert(id.to_ascii_lowercase());
            }
        }
        let mut there = HashSet::new();
        if wanted.is_empty() {
            return Ok(there);
        }
        let policy = &self.candidate.snapshot.policy;
        for held in policy.assignments().chain(policy.eligibilities()) {
            there.extend(wanted.take(&held?.id.to_ascii_lowercase()));
        }
        for deny in policy.deny_assignments()? {
            there.extend(wanted.take(&deny.id.to_ascii_lowercase()));
        }
        Ok(there)
    }
}

impl<'r> ToldGroup<'r> {
    fn new(change: &'r Change, group: &'r Group, there: &HashSet<String>) -> Self {
        let (mut role_assignment_id, mut deny_assignment_id, mut eligibility_id) = (None, None, None);
        let is_there = |id: &str| there.contains(&id.to_ascii_lowercase());
        let because = match &change.cause {
            Cause::LostGrant(id) => {
                role_assignment_id = Some(id.as_str());
                let how = if is_there(id) { "does not grant it any more" } else { "is gone" };
                format!("role assignment {id} {how}")
            }
            Cause::NewGrant(id) => {
                role_assignment_id = Some(id.as_str());
                format!("role assignment {id} grants")
            }
            Cause::LostDeny(id) => {
                deny_assignment_id = Some(id.as_str());
                let how = if is_there(id) { "does not block it any more" } else { "is gone" };
                format!("deny assignment {id} {how}")
            }
            Cause::NewDeny(id) => {
                deny_assignment_id = Some(id.as_str());
                format!("deny assignment {id} blocks")
            }
            Cause::LostEligibility(id) => {
                eligibility_id = Some(id.as_str());
                let how = if is_there(id) { "would not grant it any more" } else { "is gone" };
                format!("eligibility {id} {how}")
            }
            Cause::NewEligibility(id) => {
                eligibility_id = Some(id.as_str());
                format!("eligibility {id} would grant")
            }
            Cause::Steps(before, after) => {
                format!("the steps were {}, and are {}", listed(before), listed(after))
            }
            Cause::ExecutedAs(before, after) => {
                format!(
                    "it was done with the rights of the {}, and is with those of the {}",
                    named(before),
                    named(after)
                )
            }
            Cause::Undecided("DECIDED") => "it can be decided now".to_owned(),
            Cause::Undecided(code) => format!("it cannot be decided: {code}"),
        };
        Self {
            was: change.was.0,
            was_reason: &change.was.1,
            now: change.now.0,
            now_reason: change.now.1,
            because,
            role_assignment_id,
            deny_assignment_id,
            eligibility_id,
            requests: group.requests,
            principals: group.principals.len(),
            more_principals: group.principals.len() >= MOST_PRINCIPALS,
            first: group.first,
            last: group.last,
            example: &group.example,
        }
    }
}

fn listed(steps: &str) -> &str {
    if steps.is_empty() { "none" } else { steps }
}

fn named(whose: &str) -> &str {
    if whose.is_empty() { "subject" } else { whose }
}

impl Told<'_> {
    fn text(&self) -> String {
        let not_replayed = &self.not_replayed;
        let skipped = not_replayed.malformed
            + not_replayed.masked.values().sum::<u64>()
            + not_replayed.no_policy.values().sum::<u64>();
        let mut text = format!(
            "{} decisions asked again of {}: {} the same, {} not; {skipped} not replayed\n",
            self.decisions, self.policy_digest, self.same, self.different
        );
        for group in &self.groups {
            let ToldGroup {
                was, was_reason, now, now_reason, because, requests, first, last, example, ..
            } = group;
            let many = |count: u64, one: &str, many: &str| {
                report::counted(usize::try_from(count).unwrap_or(usize::MAX), one, many)
            };
            let more = if group.more_principals { "at least " } else { "" };
            let plane = if example.data_action { "data action " } else { "" };
            text.push_str(&format!(
                "\n{was} → {now}, because {because}\n  {}, {more}{}, from {first} to {last}\n  codes {was_reason} → \
                 {now_reason}; for example {}: {} {plane}{} at {}\n",
                many(*requests, "request", "requests"),
                report::counted(group.principals, "principal", "principals"),
                example.record,
                example.principal,
                example.action,
                example.scope,
            ));
        }
        if self.groups_left_out > 0 {
            text.push_str(&format!("\n… and {} more; `--limit 0` tells all\n", self.groups_left_out));
        }
        if skipped > 0 {
            text.push_str("\nNot replayed:\n");
        }
        for (path, count) in not_replayed.masked {
            text.push_str(&format!("  {count} without `{path}`, which was masked\n"));
        }
        for (reason, count) in not_replayed.no_policy {
            text.push_str(&format!(
                "  {count} undecided with {reason}, which is not about the policy's contents\n"
            ));
        }
        for MalformedLine { record, problem } in &not_replayed.malformed_lines {
            text.push_str(&format!("  {record} {problem}\n"));
        }
        let told = not_replayed.malformed_lines.len() as u64;
        if not_replayed.malformed > told {
            text.push_str(&format!("  and {} more malformed lines\n", not_replayed.malformed - told));
        }
        text
    }
}
