#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    clippy::duplicate_mod,
    reason = "tests, some of which share their helpers"
)]
//! Every conformance case of `tests/cases/` on every path from a question to an answer.
//!
//! The files named after an area of the semantics reference hold its examples as they are; the others hold ours, in
//! the same format. [`AREAS`] says for every area how its examples run, and the test prints for every area and path
//! how many are answered as expected. A case that the format does not describe completely is refused, so nothing is
//! skipped in silence:
//!
//! * `given` may also hold `strict_wildcards` (the switch) and `lenient` (how documents are loaded; without it, a
//!   case with an assignment to an unknown role is loaded leniently);
//! * `expect` may also be `{"undecided": "unknown_hierarchy"}`, `{"invalid": "resource"}` or
//!   `{"refused": code}` (loading must fail with that code), and beside a decision it may say `why` (the reason code),
//!   `eligible` (the eligibility to activate) and `valid_until` (a moment, or `never`).
//!
//! The examples of `condition-eval` run as the condition of a role assignment, of a role's entry, of a deny
//! assignment and of a deny assignment's entry. Those of `checkaccess-wire` are asked through the paths there are:
//! that HTTP shape is not offered.
//!
//! A new path is one `impl Path`, listed in [`paths`].

// Their examples are counted here with the rest.
#[path = "agent.rs"]
mod agent;
#[path = "authoring.rs"]
mod authoring;
#[path = "pim.rs"]
mod pim;

mod naive;
#[allow(dead_code, reason = "the benches use the rest")]
#[path = "../benches/support/tenant.rs"]
mod tenant;
mod wire;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use postern::authorizer::{Authorizer, CacheSettings};
use postern::bundle;
use postern::cache::CachePolicy;
use postern::clock::Clock;
use postern::condition::{self, Budget, Context, Extensions, Mode, check_version};
use postern::documents::{Lenience, load, load_texts};
use postern::model::{
    Action, Attributes, CheckRequest, ConditionText, Decision, DenyAssignment, DenyEffect, Documents, Group,
    Groups, ManagementGroup, PermissionBlock, Plane, PrincipalId, Problems, RequestAttributes,
    RoleAssignment, RoleDefinition, Schedule, ScheduleKind, Scope, Severity, Spanned, Subject, Subscription,
    Undecided, Why, Wildcards, pattern_matches,
};
use postern::policy::{CompileOptions, Evaluation, Policy};
use postern::proto::v1;
use postern::proto::v1::batch_check_item_result::Outcome as Item;
use postern::proto::v1::check_stream_answer::Outcome as Streamed;
use postern::snapshot::{Snapshot, cell};
use serde::Deserialize;
use serde_json::{Value, json};
use tonic_types::StatusExt;

/// How the examples of an area run.
#[derive(Clone, Copy)]
enum Runs {
    /// On every path.
    Paths,
    /// As something of their own.
    Alone(fn()),
}

/// Every area of the reference, its examples, how many there are, and how they run.
const AREAS: [(&str, &str, usize, Runs); 14] = [
    ("action-match", include_str!("cases/action-match.jsonl"), 27, Runs::Paths),
    ("scope", include_str!("cases/scope.jsonl"), 24, Runs::Paths),
    ("check", include_str!("cases/check.jsonl"), 48, Runs::Paths),
    ("deny", include_str!("cases/deny.jsonl"), 16, Runs::Paths),
    ("delegation", include_str!("cases/delegation.jsonl"), 28, Runs::Paths),
    ("pim-access", include_str!("cases/pim-access.jsonl"), 12, Runs::Paths),
    ("automation", include_str!("cases/automation.jsonl"), 23, Runs::Paths),
    ("ai-foundry", include_str!("cases/ai-foundry.jsonl"), 30, Runs::Paths),
    ("condition-eval", include_str!("cases/condition-eval.jsonl"), 73, Runs::Paths),
    ("checkaccess-wire", include_str!("cases/checkaccess-wire.jsonl"), 8, Runs::Paths),
    ("condition-parse", include_str!("cases/condition-parse.jsonl"), 33, Runs::Alone(conditions_parse)),
    (
        "validation",
        include_str!("cases/validation.jsonl"),
        30,
        Runs::Alone(authoring::examples_of_the_reference),
    ),
    ("pim-request", include_str!("cases/pim-request.jsonl"), 32, Runs::Alone(pim::examples_of_the_reference)),
    ("sre-agent", include_str!("cases/sre-agent.jsonl"), 33, Runs::Alone(agent::examples_of_the_reference)),
];
const EXAMPLES: usize = 417;
/// Ours.
const OURS: [(&str, &str, usize); 3] = [
    ("clarifications", include_str!("cases/clarifications.jsonl"), 255),
    ("conditions-and-time", include_str!("cases/conditions-and-time.jsonl"), CONDITIONS_AND_TIME),
    ("personas", include_str!("cases/personas.jsonl"), PERSONAS),
];
const CONDITIONS_AND_TIME: usize = 241;
const PERSONAS: usize = 72;

// === the format ===

/// One line of a case file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    area: String,
    given: Value,
    request: Request,
    expect: Expect,
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "basis")]
    _basis: Basis,
    #[serde(rename = "note", default)]
    _note: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Basis {
    Documented,
    Observed,
    Derived,
    Recommended,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default)]
    principal: String,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    action: String,
    #[serde(default)]
    is_data_action: bool,
    #[serde(default)]
    resource: String,
    #[serde(default)]
    sub_operation: Option<String>,
    #[serde(default)]
    attributes: Value,
    #[serde(default)]
    now: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Expect {
    matches: Option<bool>,
    applies: Option<bool>,
    decision: Option<String>,
    via: Option<String>,
    deny: Option<String>,
    audited: Option<Vec<String>>,
    undecided: Option<String>,
    invalid: Option<String>,
    refused: Option<String>,
    why: Option<String>,
    eligible: Option<String>,
    valid_until: Option<String>,
    value: Option<String>,
    grants: Option<bool>,
}

/// One case, as the questions that must all be answered as expected.
#[derive(Clone, Debug)]
struct Case {
    id: String,
    /// The file it is from.
    file: &'static str,
    trials: Vec<Trial>,
}

/// One policy, one question, one expectation.
#[derive(Clone, Debug)]
struct Trial {
    /// A tenant document.
    tenant: Value,
    lenience: Lenience,
    wildcards: Wildcards,
    request: Request,
    expect: Expected,
}

/// What a path must answer, and what it must say beside the decision where the case says it.
#[derive(Clone, Debug)]
struct Expected {
    outcome: Outcome,
    why: Option<String>,
    eligible: Option<String>,
    valid_until: Option<Option<Timestamp>>,
}

/// What a path answers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// The policy does not load; the codes of the errors.
    Refused(Vec<String>),
    /// The request is malformed; the field at fault.
    Invalid(String),
    /// No decision.
    Undecided(String),
    Decided {
        decision: String,
        /// Name of the granting assignment.
        assignment: Option<String>,
        /// Name of the deny that hit.
        deny: Option<String>,
        /// Names, sorted.
        audited: Vec<String>,
        beside: Box<Beside>,
    },
}

/// What an answer says beside its decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Beside {
    /// Reason code.
    why: String,
    /// Name of the eligibility that may be activated.
    eligible: Option<String>,
    valid_until: Option<Timestamp>,
}

/// One way from a question to an answer.
trait Path {
    fn name(&self) -> &'static str;
    fn decide(&mut self, trial: &Trial) -> Outcome;
}

/// Every path; each runs every case.
fn paths() -> Vec<Box<dyn Path>> {
    vec![
        Box::new(Library),
        Box::new(Mapped),
        Box::new(Cacheless),
        Box::new(Cold),
        Box::new(Warm),
        Box::new(Swapped),
        Box::new(Grpc::start(Call::Check)),
        Box::new(Grpc::start(Call::BatchCheck)),
        Box::new(Grpc::start(Call::CheckStream)),
    ]
}

// === reading cases ===

fn cases() -> Vec<Case> {
    let of_paths = AREAS.into_iter().filter(|(.., runs)| matches!(runs, Runs::Paths));
    let files = of_paths.map(|(area, text, count, _)| (area, text, count, true));
    let files = files.chain(OURS.map(|(name, text, count)| (name, text, count, false)));
    let mut all = Vec::new();
    for (file, text, count, example) in files {
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), count, "{file}: cases in the file");
        for (number, line) in lines.iter().enumerate() {
            let line: Value = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{file}.jsonl:{}: {error}", number + 1));
            let line = if line["area"] == "checkaccess-wire" { checkaccess(line) } else { vec![line] };
            let mut trials = Vec::new();
            let mut id = String::new();
            for line in line {
                let line: Line = serde_json::from_value(line)
                    .unwrap_or_else(|error| panic!("{file}.jsonl:{}: {error}", number + 1));
                assert!(!example || line.area == file || file == "checkaccess-wire", "{}: area", line.id);
                id.clone_from(&line.id);
                trials.extend(trials_of(line));
            }
            all.push(Case { id, file, trials });
        }
    }
    let mut ids: Vec<&str> = all.iter().map(|case| case.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all.len(), "ids are unique");
    all
}

const CALLER: &str = "000000a1-0000-4000-8000-0000000000a1";
const ROLE: &str = "00000000-aaaa-4000-8000-000000000001";

/// The questions of one CheckAccess request, one for each action, and their decisions (section 8.4).
fn checkaccess(mut line: Value) -> Vec<Value> {
    let given = line["given"].as_object_mut().unwrap();
    given.remove("api").expect("an api");
    let (request, expect) = (line["request"].clone(), line["expect"].clone());
    let decisions = expect.get("value").or_else(|| expect.get("array")).expect("decisions");
    let (actions, decisions) = (request["Actions"].as_array().unwrap(), decisions.as_array().unwrap());
    assert_eq!(expect["status"], 200, "every example is answered");
    assert_eq!(actions.len(), decisions.len(), "a decision for each action");
    let subject = &request["Subject"]["Attributes"];
    let question = |(action, decision): (&Value, &Value)| {
        let data_action = action.get("IsDataAction").cloned().unwrap_or(json!(false));
        assert_eq!(action["Id"], decision["actionId"]);
        assert_eq!(data_action, decision["isDataAction"]);
        let mut line = line.clone();
        line["area"] = json!("check");
        line["request"] = json!({
            "principal": subject["ObjectId"],
            "groups": subject.get("Groups").cloned().unwrap_or(json!([])),
            "action": action["Id"],
            "is_data_action": data_action,
            "resource": request["Resource"]["Id"],
            "attributes": { "request": action["Attributes"] },
        });
        line["expect"] = json!({ "decision": decision["accessDecision"] });
        line
    };
    actions.iter().zip(decisions).map(question).collect()
}

fn trials_of(line: Line) -> Vec<Trial> {
    let Line { id, area, given, mut request, expect, .. } = line;
    let Value::Object(mut given) = given else { panic!("{id}: given is an object") };
    let strict = given.remove("strict_wildcards").is_some_and(|value| value.as_bool().unwrap());
    let lenient = given.remove("lenient").map(|value| value.as_bool().unwrap());
    let wildcards = if strict { Wildcards::Strict } else { Wildcards::Collapse };
    let mut take = |key: &str| given.remove(key).map(|value| value.as_str().unwrap().to_owned());

    let role = |permissions: Value| {
        json!([{ "id": ROLE, "roleName": "Role of the case", "roleType": "BuiltInRole",
            "assignableScopes": ["/"], "permissions": [permissions] }])
    };
    let assignment = |scope: &str| {
        json!([{ "name": "a1", "scope": scope, "roleDefinitionId": ROLE, "principalId": CALLER,
            "principalType": "User" }])
    };
    let trial = |tenant: Value, request: Request, outcome: Outcome| {
        let lenience = match lenient.unwrap_or_else(|| names_unknown_role(&tenant)) {
            true => Lenience::Lenient,
            false => Lenience::Strict,
        };
        let valid_until = expect.valid_until.as_deref().map(|until| match until {
            "never" => None,
            moment => Some(moment.parse().unwrap()),
        });
        let (why, eligible) = (expect.why.clone(), expect.eligible.clone());
        let expect = Expected { outcome, why, eligible, valid_until };
        Trial { tenant, lenience, wildcards, request, expect }
    };
    let decided = |decision: &str, via: Option<String>, deny: Option<String>| Outcome::Decided {
        decision: decision.to_owned(),
        assignment: via,
        deny,
        audited: expect.audited.clone().unwrap_or_default(),
        beside: Box::default(),
    };
    let outcome = |expect: &Expect, granted: Option<bool>| match expect {
        Expect { undecided: Some(why), .. } => Outcome::Undecided(why.clone()),
        Expect { invalid: Some(field), .. } => Outcome::Invalid(field.clone()),
        Expect { refused: Some(code), .. } => Outcome::Refused(vec![code.clone()]),
        _ => match granted {
            Some(true) => decided("Allowed", Some("a1".to_owned()), None),
            Some(false) => decided("NotAllowed", None, None),
            None => {
                let decision = expect.decision.as_deref().expect("an expectation");
                decided(decision, expect.via.clone(), expect.deny.clone())
            }
        },
    };

    let mut trials = Vec::new();
    match area.as_str() {
        "action-match" => {
            // The pattern as the action, data action and NotAction of a role.
            let pattern = take("pattern").expect("a pattern");
            let matches = expect.matches.expect("matches");
            assert!(given.is_empty(), "{id}: unknown fields in given");
            assert_eq!(
                pattern_matches(&pattern, &request.action, wildcards),
                matches,
                "{id}: model::pattern_matches"
            );
            request.principal = CALLER.to_owned();
            request.resource = "/".to_owned();
            for (permissions, data, granted) in [
                (json!({ "actions": [pattern] }), false, matches),
                (json!({ "dataActions": [pattern] }), true, matches),
                (json!({ "actions": ["*"], "notActions": [pattern] }), false, !matches),
            ] {
                let tenant =
                    json!({ "role_definitions": role(permissions), "role_assignments": assignment("/") });
                let request = Request { is_data_action: data, ..request.clone() };
                trials.push(trial(tenant, request, outcome(&expect, Some(granted))));
            }
        }
        "scope" => {
            let scope = take("assignment_scope").expect("a scope");
            request.principal = CALLER.to_owned();
            request.action = "Contoso.Test/things/read".to_owned();
            given.insert("role_definitions".to_owned(), role(json!({ "actions": ["*"] })));
            given.insert("role_assignments".to_owned(), assignment(&scope));
            trials.push(trial(Value::Object(given), request, outcome(&expect, expect.applies)));
        }
        "condition-eval" => {
            let text = take("condition").expect("a condition");
            let version = take("conditionVersion");
            assert!(given.is_empty(), "{id}: unknown fields in given");
            let (value, grants) = (expect.value.as_deref().expect("a value"), expect.grants.expect("grants"));
            assert_eq!(value == "true", grants, "{id}: only true grants");
            assert_eq!(truth(&text, &request), value, "{id}: condition::evaluate");
            request.principal = CALLER.to_owned();
            request.resource = "/subscriptions/11111111-1111-1111-1111-111111111111".to_owned();
            let under = |mut document: Value| {
                document["condition"] = json!(text);
                document["conditionVersion"] = json!(version);
                document
            };
            let everything = || json!({ "actions": ["*"], "dataActions": ["*"] });
            let plain = || assignment("/")[0].clone();
            let deny = |block: Value| {
                json!({ "name": "d1", "scope": "/", "permissions": [block], "excludePrincipals": [],
                    "principals": [{ "id": CALLER, "type": "User" }] })
            };
            for data in [false, true] {
                let request = Request { is_data_action: data, ..request.clone() };
                for tenant in [
                    json!({ "role_definitions": role(everything()), "role_assignments": [under(plain())] }),
                    json!({ "role_definitions": role(under(everything())), "role_assignments": [plain()] }),
                ] {
                    trials.push(trial(tenant, request.clone(), outcome(&expect, Some(grants))));
                }
                for deny in [under(deny(everything())), deny(under(everything()))] {
                    let tenant = json!({ "role_definitions": role(everything()), "role_assignments": [plain()],
                        "deny_assignments": [deny] });
                    let applies = value != "false";
                    let outcome = if applies {
                        decided("Denied", None, Some("d1".to_owned()))
                    } else {
                        outcome(&expect, Some(true))
                    };
                    trials.push(trial(tenant, request.clone(), outcome));
                }
            }
        }
        "check" | "deny" | "delegation" | "pim-access" | "automation" | "ai-foundry" => {
            trials.push(trial(Value::Object(given), request, outcome(&expect, None)));
        }
        other => panic!("{id}: unknown area {other}"),
    }
    trials
}

/// Of a condition on a request, through the public functions of the language.
fn truth(text: &str, request: &Request) -> String {
    let parsed = condition::parse(text, Mode::Load, Extensions { enabled: false });
    let condition = parsed.condition.unwrap_or_else(|| panic!("{text}: {:?}", parsed.diagnostics));
    let program = condition::compile(&condition, Wildcards::Collapse);
    let bags = Bags::of(&request.attributes);
    let RequestAttributes { request: asked, resource, principal, environment } = bags.borrow();
    let context = Context {
        action: &request.action,
        sub_operation: request.sub_operation.as_deref(),
        now: request.now(),
        request: asked,
        resource,
        principal,
        environment,
    };
    let truth = condition::evaluate(program.as_bytes(), &context, &mut Budget::default()).unwrap();
    format!("{truth:?}").to_lowercase()
}

fn conditions_parse() {
    for line in include_str!("cases/condition-parse.jsonl").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = line["given"]["condition"].as_str().unwrap();
        let parsed = condition::parse(text, Mode::Author, Extensions { enabled: false });
        let version = check_version(line["given"]["conditionVersion"].as_str());
        let valid = parsed.condition.is_some() && version.is_ok();
        assert_eq!(line["expect"]["valid"], valid, "{}: {:?}", line["id"], parsed.diagnostics);
        let naive = naive::condition::parse(text).is_some_and(|read| !read.mixes) && version.is_ok();
        assert_eq!(naive, valid, "{}: the naive reader", line["id"]);
    }
}

impl Request {
    /// A case in which time plays no part says none.
    fn now(&self) -> Timestamp {
        self.now.as_deref().unwrap_or("2026-01-01T00:00:00Z").parse().unwrap()
    }
}

/// The bags of one request in the engine's types.
struct Bags([Attributes; 4]);

impl Bags {
    fn of(attributes: &Value) -> Self {
        if let Some(sources) = attributes.as_object() {
            let known = ["request", "resource", "principal", "environment"];
            assert!(sources.keys().all(|source| known.contains(&source.as_str())), "sources: {attributes}");
        }
        Self(
            ["request", "resource", "principal", "environment"]
                .map(|bag| Attributes::from_json(&attributes[bag])),
        )
    }

    fn borrow(&self) -> RequestAttributes<'_> {
        let [request, resource, principal, environment] = &self.0;
        RequestAttributes { request, resource, principal, environment }
    }
}

fn names_unknown_role(tenant: &Value) -> bool {
    let guid = |value: &Value| {
        let id = value.as_str().unwrap();
        id.rsplit('/').next().unwrap_or_default().to_ascii_lowercase()
    };
    let list = |name: &str| tenant.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let known: Vec<String> = list("role_definitions").iter().map(|role| guid(&role["id"])).collect();
    let named = list("role_assignments").into_iter().chain(list("schedules"));
    named.into_iter().any(|assignment| !known.contains(&guid(&assignment["roleDefinitionId"])))
}

// === shared by the paths ===

/// Loads and compiles the policy of a trial, or gives the codes of the errors.
fn compile(trial: &Trial) -> Result<Policy, Outcome> {
    let refused = |problems: &Problems| {
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
        Outcome::Refused(errors.map(|problem| problem.code.to_owned()).collect())
    };
    let text = serde_json::to_vec_pretty(&trial.tenant).unwrap();
    let (documents, problems) = load_texts(vec![("tenant.json".to_owned(), text)], trial.lenience);
    if problems.has_errors() {
        return Err(refused(&problems));
    }
    Policy::compile(&documents, CompileOptions { wildcards: trial.wildcards, ..CompileOptions::default() })
        .map_err(|problems| refused(&problems))
}

/// Validates the request as every path must, then lets `decide` answer.
fn with_request(request: &Request, decide: impl FnOnce(&CheckRequest<'_>) -> Outcome) -> Outcome {
    let Ok(action) = Action::parse(&request.action) else {
        return Outcome::Invalid("action".to_owned());
    };
    let Ok(scope) = Scope::parse(&request.resource) else {
        return Outcome::Invalid("resource".to_owned());
    };
    let bags = Bags::of(&request.attributes);
    decide(&CheckRequest {
        sub_operation: request.sub_operation.as_deref(),
        attributes: bags.borrow(),
        ..CheckRequest::new(
            Subject { principal: PrincipalId::new(&request.principal), groups: (&request.groups).into() },
            action,
            Plane::from_data_action(request.is_data_action),
            scope,
        )
    })
}

fn outcome_of(policy: &Policy, evaluation: Result<&Evaluation, &Undecided>) -> Outcome {
    let evaluation = match evaluation {
        Ok(evaluation) => evaluation,
        Err(Undecided::UnknownHierarchy { .. }) => return Outcome::Undecided("unknown_hierarchy".to_owned()),
        Err(other) => return Outcome::Undecided(other.to_string()),
    };
    let (mut assignment, mut deny, mut eligible) = (None, None, None);
    match evaluation.decision {
        Decision::Allowed(grant) => assignment = Some(policy.role_assignment_name(grant)),
        Decision::Denied(hit) => deny = Some(policy.deny_assignment_name(hit)),
        Decision::NotAllowed(Why::Eligible(eligibility)) => {
            eligible = Some(policy.eligibility_name(eligibility));
        }
        Decision::NotAllowed(_) => {}
    }
    let mut audited: Vec<String> =
        evaluation.audited.iter().map(|&hit| policy.deny_assignment_name(hit)).collect();
    audited.sort();
    let why = evaluation.decision.reason_code().name().to_owned();
    let beside = Box::new(Beside { why, eligible, valid_until: evaluation.valid_until });
    Outcome::Decided { decision: evaluation.decision.name().to_owned(), assignment, deny, audited, beside }
}

const ALWAYS: CacheSettings = CacheSettings { policy: CachePolicy::CostAtLeast(0), max_bytes: 1 << 20 };
const NEVER: CacheSettings = CacheSettings { policy: CachePolicy::Off, max_bytes: 1 << 20 };

/// Asks an authorizer once and asserts whether the answer comes from the cache; what is undecided never does, and
/// what is over in a moment may be over when it is asked for again.
fn ask(authorizer: &Authorizer, request: &CheckRequest<'_>, now: Timestamp, cached: bool) -> Outcome {
    let snapshot = authorizer.snapshot();
    let snapshot = snapshot.get().expect("an active policy");
    let answer = authorizer.check(snapshot, request, None);
    if let Ok(answer) = &answer {
        let brief = is_brief(answer.evaluation.valid_until, now);
        assert!(answer.cached == cached || brief, "whether the answer comes from the cache");
    }
    outcome_of(&snapshot.policy, answer.as_ref().map(|answer| &answer.evaluation))
}

fn is_brief(until: Option<Timestamp>, now: Timestamp) -> bool {
    until.is_some_and(|until| until < now + SignedDuration::from_mins(1))
}

fn active(policy: Policy, cache: CacheSettings, now: Timestamp) -> Authorizer {
    let (mut writer, reader) = cell();
    writer.activate(policy, 0, Timestamp::UNIX_EPOCH);
    Authorizer::new(reader, cache, Clock::manual(now))
}

// === the paths through the library ===

/// `Policy::evaluate`.
struct Library;

impl Path for Library {
    fn name(&self) -> &'static str {
        "library"
    }

    fn decide(&mut self, trial: &Trial) -> Outcome {
        match compile(trial) {
            Err(refused) => refused,
            Ok(policy) => with_request(&trial.request, |request| {
                outcome_of(&policy, policy.evaluate(request, trial.request.now()).as_ref())
            }),
        }
    }
}

/// `Policy::evaluate` of a bundle that is mapped.
struct Mapped;

impl Path for Mapped {
    fn name(&self) -> &'static str {
        "mapped bundle"
    }

    fn decide(&mut self, trial: &Trial) -> Outcome {
        match compile(trial).map(|policy| mapped(&policy)) {
            Err(refused) => refused,
            Ok(policy) => with_request(&trial.request, |request| {
                outcome_of(&policy, policy.evaluate(request, trial.request.now()).as_ref())
            }),
        }
    }
}

/// A policy as a bundle, mapped.
fn mapped(policy: &Policy) -> Policy {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.bundle");
    let file = bundle::build(policy, &bundle::About { name: "conformance", ..Default::default() }).unwrap();
    std::fs::write(&path, file).unwrap();
    // Whoever has it mapped keeps it when its name goes.
    bundle::open(&path, bundle::Limits::default()).expect("a bundle").policy
}

/// `Authorizer::check` without a cache, twice.
struct Cacheless;

impl Path for Cacheless {
    fn name(&self) -> &'static str {
        "authorizer, cache off"
    }

    fn decide(&mut self, trial: &Trial) -> Outcome {
        let authorizer = match compile(trial) {
            Err(refused) => return refused,
            Ok(policy) => active(policy, NEVER, trial.request.now()),
        };
        with_request(&trial.request, |request| {
            let first = ask(&authorizer, request, trial.request.now(), false);
            assert_eq!(ask(&authorizer, request, trial.request.now(), false), first, "asked again");
            first
        })
    }
}

/// `Authorizer::check` with an empty cache.
struct Cold;

impl Path for Cold {
    fn name(&self) -> &'static str {
        "authorizer, cache cold"
    }

    fn decide(&mut self, trial: &Trial) -> Outcome {
        match compile(trial) {
            Err(refused) => refused,
            Ok(policy) => {
                let authorizer = active(policy, ALWAYS, trial.request.now());
                with_request(&trial.request, |request| ask(&authorizer, request, trial.request.now(), false))
            }
        }
    }
}

/// `Authorizer::check` with the answer in the cache.
struct Warm;

impl Path for Warm {
    fn name(&self) -> &'static str {
        "authorizer, cache warm"
    }

    fn decide(&mut self, trial: &Trial) -> Outcome {
        match compile(trial) {
            Err(refused) => refused,
            Ok(policy) => {
                let authorizer = active(policy, ALWAYS, trial.request.now());
                with_request(&trial.request, |request| {
                    ask(&authorizer, request, trial.request.now(), false);
                    ask(&authorizer, request, trial.request.now(), true)
                })
            }
        }
    }
}

/// The answer of an empty policy is in the cache; then the policy of the case is activated.
struct Swapped;

impl Path for Swapped {
    fn name(&self) -> &'static str {
        "authorizer, after a swap"
    }

    fn decide(&mut self, trial: &Trial) -> Outcome {
        let policy = match compile(trial) {
            Err(refused) => return refused,
            Ok(policy) => policy,
        };
        let empty =
            Policy::compile(&Documents::default(), CompileOptions::default()).expect("nothing to refuse");
        let (mut writer, reader) = cell();
        let (before, none) = writer.activate(empty, 0, Timestamp::UNIX_EPOCH);
        assert!(none.is_none(), "nothing was active");
        let authorizer = Authorizer::new(reader, ALWAYS, Clock::manual(trial.request.now()));
        with_request(&trial.request, |request| {
            let nothing = Outcome::Decided {
                decision: "NotAllowed".to_owned(),
                assignment: None,
                deny: None,
                audited: Vec::new(),
                beside: Box::new(Beside { why: "NO_ROLE_ASSIGNMENT".to_owned(), ..Beside::default() }),
            };
            assert_eq!(ask(&authorizer, request, trial.request.now(), false), nothing);
            assert_eq!(ask(&authorizer, request, trial.request.now(), true), nothing);
            let (after, replaced) = writer.activate(policy, 0, Timestamp::UNIX_EPOCH);
            let generation = |snapshot: &Snapshot| snapshot.generation;
            assert!(generation(&after) > generation(&before), "the generation grows");
            assert_eq!(replaced.as_deref().map(generation), Some(generation(&before)));
            let first = ask(&authorizer, request, trial.request.now(), false);
            assert_eq!(ask(&authorizer, request, trial.request.now(), true), first, "asked again");
            first
        })
    }
}

// === the paths over gRPC ===

/// Which call asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Check,
    BatchCheck,
    CheckStream,
}

/// A sidecar with the policy of each case swapped in. Every question is asked twice, so that it is answered with the
/// cache cold and warm.
struct Grpc {
    call: Call,
    sidecar: wire::Sidecar,
}

impl Grpc {
    fn start(call: Call) -> Self {
        Self { call, sidecar: wire::Sidecar::start(ALWAYS) }
    }

    fn check(&mut self, request: &Request, cached: bool) -> Outcome {
        let wire = v1::CheckRequest {
            subject: Some(subject(request)),
            action: Some(action(request)),
            resource: Some(resource(request)),
            request_attributes: wire::attributes(&request.attributes["request"]),
            environment_attributes: wire::attributes(&request.attributes["environment"]),
            ..Default::default()
        };
        match self.sidecar.check(wire) {
            Ok(result) => outcome_of_wire(result, request.now(), cached),
            Err(status) => {
                let details = status.get_error_details();
                if let Some(info) = details.error_info() {
                    return Outcome::Undecided(info.reason.to_ascii_lowercase());
                }
                assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
                let fields = details.bad_request().unwrap().field_violations.iter();
                invalid(fields.map(|violation| violation.field.as_str()))
            }
        }
    }

    /// Between two others that cannot be decided, to see that they do not disturb each other.
    fn batch(&mut self, request: &Request, cached: bool) -> Outcome {
        let item = v1::BatchCheckItem {
            action: Some(action(request)),
            resource: Some(resource(request)),
            request_attributes: wire::attributes(&request.attributes["request"]),
            ..Default::default()
        };
        let broken = v1::BatchCheckItem { action: None, ..item.clone() };
        let wire = v1::BatchCheckRequest {
            subject: Some(subject(request)),
            items: vec![broken.clone(), item, broken],
            environment_attributes: wire::attributes(&request.attributes["environment"]),
            ..Default::default()
        };
        let [before, asked, after] = <[_; 3]>::try_from(self.sidecar.batch(wire).unwrap()).unwrap();
        for broken in [before, after] {
            assert!(matches!(broken.outcome, Some(Item::Error(_))), "the broken items stay broken");
        }
        match asked.outcome.unwrap() {
            Item::Result(result) => outcome_of_wire(result, request.now(), cached),
            Item::Error(error) => no_decision(&error),
        }
    }

    /// The same over a stream that is never ended: between two others, what they share in the context and what is the
    /// question's own in the question, and then everything in the context.
    fn stream(&mut self, request: &Request, cached: bool) -> Outcome {
        let context = v1::CheckStreamContext {
            subject: Some(subject(request)),
            environment_attributes: wire::attributes(&request.attributes["environment"]),
            ..Default::default()
        };
        let question = v1::CheckStreamQuestion {
            action: Some(action(request)),
            resource: Some(resource(request)),
            request_attributes: wire::attributes(&request.attributes["request"]),
            ..Default::default()
        };
        let broken = v1::CheckStreamQuestion { action: None, ..question.clone() };
        let questions = vec![broken.clone(), question.clone(), broken.clone()];
        let [before, asked, after] =
            <[_; 3]>::try_from(self.sidecar.stream(context.clone(), questions)).unwrap();
        for broken in [before, after] {
            assert!(matches!(broken, Streamed::Error(_)), "the broken questions stay broken");
        }
        let outcome = match asked {
            Streamed::Result(result) => outcome_of_wire(result, request.now(), cached),
            Streamed::Error(error) => no_decision(&error),
        };
        if !matches!(outcome, Outcome::Invalid(_)) {
            let v1::CheckStreamQuestion { action, resource, .. } = question;
            let context = v1::CheckStreamContext { action, resource, ..context };
            let question = v1::CheckStreamQuestion { action: None, resource: None, ..broken };
            let [again] = <[_; 1]>::try_from(self.sidecar.stream(context, vec![question])).unwrap();
            let again = match again {
                Streamed::Result(result) => outcome_of_wire(result, request.now(), true),
                Streamed::Error(error) => no_decision(&error),
            };
            assert_eq!(again, outcome, "asked by the context");
        }
        outcome
    }
}

impl Path for Grpc {
    fn name(&self) -> &'static str {
        match self.call {
            Call::Check => "gRPC, Check, cold and warm",
            Call::BatchCheck => "gRPC, BatchCheck, cold and warm",
            Call::CheckStream => "gRPC, CheckStream, cold and warm",
        }
    }

    fn decide(&mut self, trial: &Trial) -> Outcome {
        match compile(trial) {
            Err(refused) => return refused,
            Ok(policy) => self.sidecar.activate(policy),
        }
        self.sidecar.set_clock(trial.request.now());
        let mut ask = |cached| match self.call {
            Call::Check => self.check(&trial.request, cached),
            Call::BatchCheck => self.batch(&trial.request, cached),
            Call::CheckStream => self.stream(&trial.request, cached),
        };
        let cold = ask(false);
        assert_eq!(ask(true), cold, "asked again");
        cold
    }
}

fn subject(request: &Request) -> v1::Subject {
    v1::Subject {
        principal_id: request.principal.clone(),
        group_ids: request.groups.clone(),
        attributes: wire::attributes(&request.attributes["principal"]),
        ..Default::default()
    }
}

fn action(request: &Request) -> v1::Action {
    v1::Action {
        name: request.action.clone(),
        data_action: request.is_data_action,
        sub_operation: request.sub_operation.clone().unwrap_or_default(),
    }
}

fn resource(request: &Request) -> v1::Resource {
    v1::Resource {
        scope: request.resource.clone(),
        attributes: wire::attributes(&request.attributes["resource"]),
    }
}

/// The error of an item or a question.
fn no_decision(error: &v1::CheckError) -> Outcome {
    if error.code == tonic::Code::InvalidArgument as i32 {
        return invalid(error.field_violations.iter().map(|violation| violation.field.as_str()));
    }
    assert_eq!(error.code, tonic::Code::FailedPrecondition as i32, "{}", error.message);
    assert!(!error.message.is_empty(), "a sentence");
    Outcome::Undecided(error.reason.to_ascii_lowercase())
}

/// `resource.scope` and `items[1].resource.scope` are the resource.
fn invalid<'a>(fields: impl Iterator<Item = &'a str>) -> Outcome {
    let fields: Vec<&str> =
        fields.map(|field| field.trim_start_matches("items[1].").trim_end_matches(".scope")).collect();
    Outcome::Invalid(fields.join(", "))
}

fn outcome_of_wire(result: v1::CheckResult, now: Timestamp, cached: bool) -> Outcome {
    let valid_until = wire::valid_until(&result);
    assert!(result.cached == cached || is_brief(valid_until, now), "whether the answer comes from the cache");
    assert!(!result.reason.is_empty(), "a sentence");
    let mut audited: Vec<String> =
        result.audited_deny_assignment_ids.iter().filter_map(|id| wire::name(id)).collect();
    audited.sort();
    let decision = match result.decision() {
        v1::Decision::Allowed => "Allowed",
        v1::Decision::NotAllowed => "NotAllowed",
        v1::Decision::Denied => "Denied",
        v1::Decision::Unspecified => panic!("a decision is always set"),
    };
    let why = result.reason_code().as_str_name().trim_start_matches("REASON_CODE_").to_owned();
    let of_allowed = why == "ROLE_ASSIGNMENT";
    let of_denied = why == "DENY_ASSIGNMENT";
    assert_eq!(
        (of_allowed, of_denied),
        (decision == "Allowed", decision == "Denied"),
        "{why} for {decision}"
    );
    assert_eq!(result.role_definition_id.is_empty(), decision != "Allowed", "the role that grants");
    Outcome::Decided {
        decision: decision.to_owned(),
        assignment: wire::name(&result.role_assignment_id),
        deny: wire::name(&result.deny_assignment_id),
        audited,
        beside: Box::new(Beside { why, eligible: wire::eligibility(&result), valid_until }),
    }
}

// === tests ===

/// Which cases a path answers wrongly, and how many of each file as expected.
fn run(path: &mut dyn Path, cases: &[Case]) -> (BTreeMap<&'static str, usize>, Vec<String>) {
    let (mut right, mut wrong) = (BTreeMap::new(), Vec::new());
    for case in cases {
        let before = wrong.len();
        for trial in &case.trials {
            let outcome = path.decide(trial);
            if !trial.expect.is_met_by(&outcome) {
                wrong.push(format!(
                    "{}\n  wanted {:?}\n  got    {outcome:?}\n  asked  {:?}",
                    case.id, trial.expect, trial.request
                ));
            }
        }
        *right.entry(case.file).or_default() += usize::from(wrong.len() == before);
    }
    (right, wrong)
}

impl Expected {
    fn is_met_by(&self, outcome: &Outcome) -> bool {
        match (outcome, &self.outcome) {
            (Outcome::Refused(codes), Outcome::Refused(wanted)) => {
                wanted.iter().all(|code| codes.contains(code))
            }
            (
                Outcome::Decided { decision, assignment, deny, audited, beside },
                Outcome::Decided {
                    decision: wanted,
                    assignment: wanted_assignment,
                    deny: wanted_deny,
                    audited: wanted_audited,
                    ..
                },
            ) => {
                // What names what decided may be left out, but what is named must be of the decision.
                let named = |given: &Option<String>, wanted: &Option<String>, of: &str| {
                    given.is_some() == (decision == of) && (wanted.is_none() || given == wanted)
                };
                decision == wanted
                    && named(assignment, wanted_assignment, "Allowed")
                    && named(deny, wanted_deny, "Denied")
                    && audited == wanted_audited
                    && self.why.as_ref().is_none_or(|why| *why == beside.why)
                    && (self.eligible.is_none() || self.eligible == beside.eligible)
                    && self.valid_until.is_none_or(|until| until == beside.valid_until)
            }
            (outcome, wanted) => outcome == wanted,
        }
    }
}

fn show(path: &str, right: &BTreeMap<&'static str, usize>) {
    let counts: Vec<String> = right.iter().map(|(file, count)| format!("{file} {count}")).collect();
    let ours: usize = OURS.iter().filter_map(|(file, ..)| right.get(file)).sum();
    let all: usize = right.values().sum();
    println!("{path:<32} {} examples and {ours} of ours ({})", all - ours, counts.join(", "));
}

#[test]
fn every_case_on_every_path() {
    let cases = cases();
    let mut wrong = BTreeMap::new();
    for mut path in paths() {
        let (right, failures) = run(path.as_mut(), &cases);
        show(path.name(), &right);
        if failures.is_empty() {
            assert_eq!(right.values().sum::<usize>(), cases.len(), "{}: every case", path.name());
        } else {
            wrong.insert(path.name(), failures);
        }
    }
    let report: Vec<String> =
        wrong.iter().map(|(path, failures)| format!("== {path}\n{}", failures.join("\n"))).collect();
    assert!(wrong.is_empty(), "\n{}", report.join("\n"));

    let mut examples = 0;
    for (area, text, count, runs) in AREAS {
        assert_eq!(text.lines().count(), count, "{area}: examples in the file");
        let how = match runs {
            Runs::Paths if area == "checkaccess-wire" => {
                "their decisions on every path; the HTTP shape is not offered"
            }
            Runs::Paths => "on every path",
            Runs::Alone(run) => {
                run();
                "by themselves"
            }
        };
        println!("{area:<18} {count:>3} examples {how}");
        examples += count;
    }
    println!("{examples} examples of {EXAMPLES}");
    assert_eq!(examples, EXAMPLES);
}

/// The naive evaluator over documents that are built here, without the reader: what the property tests measure
/// the engine against must itself be right.
#[test]
fn naive_passes_all_cases() {
    let cases = cases();
    let (right, wrong) = run(&mut Naive, &cases);
    show("naive", &right);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The engine over the same documents, without the reader.
#[test]
fn engine_passes_all_cases_without_the_reader() {
    let (right, wrong) = run(&mut Built, &cases());
    show("engine over built documents", &right);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

struct Naive;

impl Path for Naive {
    fn name(&self) -> &'static str {
        "naive"
    }

    fn decide(&mut self, trial: &Trial) -> Outcome {
        // What is refused is the reader's to say.
        if let Outcome::Refused(_) = trial.expect.outcome {
            return trial.expect.outcome.clone();
        }
        let documents = documents_of(&trial.tenant);
        let world = naive::World::new(&documents);
        let request = &trial.request;
        let question = naive::Question {
            principal: &request.principal,
            groups: &request.groups,
            action: &request.action,
            data_action: request.is_data_action,
            resource: &request.resource,
            sub_operation: request.sub_operation.as_deref(),
            attributes: &request.attributes,
            now: request.now(),
            strict_wildcards: trial.wildcards == Wildcards::Strict,
        };
        let (verdict, audited) = match world.check(&question) {
            naive::Answer::InvalidResource => return Outcome::Invalid("resource".to_owned()),
            naive::Answer::UnknownHierarchy => return Outcome::Undecided("unknown_hierarchy".to_owned()),
            naive::Answer::Decided { verdict, audited } => (verdict, audited),
        };
        let (mut assignment, mut deny, mut eligible) = (None, None, None);
        let (decision, why) = match verdict {
            naive::Verdict::Allowed(name) => {
                assignment = Some(name);
                ("Allowed", "ROLE_ASSIGNMENT")
            }
            naive::Verdict::Denied(name) => {
                deny = Some(name);
                ("Denied", "DENY_ASSIGNMENT")
            }
            naive::Verdict::Eligible(name) => {
                eligible = Some(name);
                ("NotAllowed", "ELIGIBLE")
            }
            naive::Verdict::ConditionNotMet => ("NotAllowed", "CONDITION_NOT_MET"),
            naive::Verdict::NotActiveNow => ("NotAllowed", "NOT_ACTIVE_NOW"),
            naive::Verdict::ActionNotGranted => ("NotAllowed", "ACTION_NOT_GRANTED"),
            naive::Verdict::NothingAssigned => ("NotAllowed", "NO_ROLE_ASSIGNMENT"),
        };
        let valid_until = world.valid_until(&question);
        let beside = Box::new(Beside { why: why.to_owned(), eligible, valid_until });
        Outcome::Decided { decision: decision.to_owned(), assignment, deny, audited, beside }
    }
}

struct Built;

impl Path for Built {
    fn name(&self) -> &'static str {
        "engine over built documents"
    }

    fn decide(&mut self, trial: &Trial) -> Outcome {
        if let Outcome::Refused(_) = trial.expect.outcome {
            return trial.expect.outcome.clone();
        }
        let mut documents = documents_of(&trial.tenant);
        if trial.lenience == Lenience::Lenient {
            // What the reader leaves out.
            let roles = &documents.role_definitions;
            let known = |role: &str| roles.iter().any(|known| known.id.value == role);
            documents.role_assignments.retain(|assignment| {
                Scope::parse(&assignment.scope.value).is_ok() && known(&assignment.role_definition_id.value)
            });
            documents.schedules.retain(|schedule| known(&schedule.role_definition_id.value));
        }
        let options = CompileOptions { wildcards: trial.wildcards, ..CompileOptions::default() };
        let policy = Policy::compile(&documents, options).expect("consistent documents");
        with_request(&trial.request, |request| {
            outcome_of(&policy, policy.evaluate(request, trial.request.now()).as_ref())
        })
    }
}

// === documents without the reader ===

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Tenant {
    role_definitions: Vec<TenantRole>,
    role_assignments: Vec<TenantAssignment>,
    deny_assignments: Vec<TenantDeny>,
    groups: BTreeMap<String, Vec<String>>,
    management_groups: BTreeMap<String, Option<String>>,
    subscriptions: BTreeMap<String, String>,
    schedules: Vec<TenantSchedule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TenantSchedule {
    name: String,
    kind: String,
    scope: String,
    role_definition_id: String,
    principal_id: String,
    #[serde(rename = "principalType")]
    _principal_type: Option<String>,
    #[serde(rename = "assignmentType")]
    _assignment_type: Option<String>,
    status: Option<String>,
    start_date_time: Option<String>,
    end_date_time: Option<String>,
    linked_role_eligibility_schedule_id: Option<String>,
    role_eligibility_schedule_id: Option<String>,
    origin_role_assignment_id: Option<String>,
    condition: Option<String>,
    condition_version: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TenantRole {
    id: String,
    role_name: String,
    role_type: String,
    assignable_scopes: Vec<String>,
    permissions: Vec<TenantBlock>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct TenantBlock {
    actions: Vec<String>,
    not_actions: Vec<String>,
    data_actions: Vec<String>,
    not_data_actions: Vec<String>,
    condition: Option<String>,
    condition_version: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TenantAssignment {
    name: String,
    scope: String,
    role_definition_id: String,
    principal_id: String,
    principal_type: Option<String>,
    condition: Option<String>,
    condition_version: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TenantDeny {
    name: String,
    scope: String,
    permissions: Vec<TenantBlock>,
    principals: Vec<TenantPrincipal>,
    exclude_principals: Vec<TenantPrincipal>,
    #[serde(default)]
    do_not_apply_to_child_scopes: bool,
    #[serde(default)]
    deny_assignment_effect: Option<String>,
    #[serde(rename = "isSystemProtected", default)]
    _is_system_protected: bool,
    condition: Option<String>,
    condition_version: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantPrincipal {
    id: String,
    #[serde(rename = "type")]
    _type: String,
}

fn spanned(value: impl Into<String>) -> Spanned<String> {
    Spanned { value: value.into(), ..Spanned::default() }
}

fn all_spanned(values: Vec<String>) -> Vec<Spanned<String>> {
    values.into_iter().map(spanned).collect()
}

/// White space alone is no condition (section 10, row 10).
fn condition_of(text: Option<String>, version: Option<String>) -> Option<ConditionText> {
    let text = text.filter(|text| !text.trim_matches([' ', '\t', '\r', '\n']).is_empty())?;
    Some(ConditionText { text: spanned(text), version: version.map(spanned) })
}

fn documents_of(tenant: &Value) -> Documents {
    let tenant: Tenant = serde_json::from_value(tenant.clone()).unwrap();
    let blocks = |blocks: Vec<TenantBlock>| -> Vec<PermissionBlock> {
        let block = |block: TenantBlock| PermissionBlock {
            actions: all_spanned(block.actions),
            not_actions: all_spanned(block.not_actions),
            data_actions: all_spanned(block.data_actions),
            not_data_actions: all_spanned(block.not_data_actions),
            condition: condition_of(block.condition, block.condition_version),
            ..PermissionBlock::default()
        };
        blocks.into_iter().map(block).collect()
    };
    // As the reader gives them: the trailing GUID, in lower case.
    let last = |id: String| spanned(id.rsplit('/').next().unwrap_or_default().to_ascii_lowercase());
    let ids = |principals: Vec<TenantPrincipal>| principals.into_iter().map(|p| spanned(p.id)).collect();
    let role_definitions = tenant.role_definitions.into_iter().map(|role| RoleDefinition {
        id: last(role.id),
        role_name: spanned(role.role_name),
        custom: role.role_type == "CustomRole",
        permissions: blocks(role.permissions),
        assignable_scopes: all_spanned(role.assignable_scopes),
        ..RoleDefinition::default()
    });
    let role_assignments = tenant.role_assignments.into_iter().map(|assignment| RoleAssignment {
        name: spanned(assignment.name),
        scope: spanned(assignment.scope),
        role_definition_id: last(assignment.role_definition_id),
        principal_id: spanned(assignment.principal_id),
        principal_type: assignment.principal_type.map(spanned),
        condition: condition_of(assignment.condition, assignment.condition_version),
        ..RoleAssignment::default()
    });
    let moment = |moment: Option<String>| {
        moment.map(|moment| Spanned { value: moment.parse().unwrap(), ..Spanned::default() })
    };
    let schedules = tenant.schedules.into_iter().map(|schedule| Schedule {
        kind: match schedule.kind.as_str() {
            "assignment" => ScheduleKind::Active,
            "eligibility" => ScheduleKind::Eligible,
            other => panic!("kind {other}"),
        },
        name: spanned(schedule.name),
        schedule: schedule.role_eligibility_schedule_id.map(spanned),
        scope: spanned(schedule.scope),
        role_definition_id: last(schedule.role_definition_id),
        principal_id: spanned(schedule.principal_id),
        status: schedule.status.map(spanned),
        start: moment(schedule.start_date_time),
        end: moment(schedule.end_date_time),
        linked_eligibility: schedule.linked_role_eligibility_schedule_id.map(spanned),
        origin_role_assignment: schedule
            .origin_role_assignment_id
            .map(|id| spanned(id.rsplit('/').next().unwrap_or_default())),
        condition: condition_of(schedule.condition, schedule.condition_version),
        ..Schedule::default()
    });
    let deny_assignments = tenant.deny_assignments.into_iter().map(|deny| DenyAssignment {
        name: spanned(deny.name),
        scope: spanned(deny.scope),
        permissions: blocks(deny.permissions),
        principals: ids(deny.principals),
        exclude_principals: ids(deny.exclude_principals),
        do_not_apply_to_child_scopes: deny.do_not_apply_to_child_scopes,
        effect: match deny.deny_assignment_effect.as_deref().map(str::to_ascii_lowercase).as_deref() {
            None | Some("enforced") => DenyEffect::Enforced,
            Some("audit") => DenyEffect::Audit,
            Some(other) => panic!("effect {other}"),
        },
        condition: condition_of(deny.condition, deny.condition_version),
        ..DenyAssignment::default()
    });
    Documents {
        role_definitions: role_definitions.collect(),
        role_assignments: role_assignments.collect(),
        deny_assignments: deny_assignments.collect(),
        schedules: schedules.collect(),
        groups: tenant
            .groups
            .into_iter()
            .map(|(id, members)| Group { id: spanned(id), members: all_spanned(members), ..Group::default() })
            .collect(),
        management_groups: tenant
            .management_groups
            .into_iter()
            .map(|(name, parent)| ManagementGroup { name: spanned(name), parent: parent.map(spanned) })
            .collect(),
        subscriptions: tenant
            .subscriptions
            .into_iter()
            .map(|(id, parent)| Subscription { id: spanned(id), parent: spanned(parent) })
            .collect(),
        ..Documents::default()
    }
}

// === tenants ===

/// The generated tenant of the benches, written as the Azure CLI writes it, is the same policy when it is read.
#[test]
fn generated_tenant_reads_back() {
    let tenant = tenant::Tenant::new(1_000);
    let (documents, problems) = load_texts(tenant.files(), Lenience::Strict);
    assert!(problems.is_empty(), "{problems:?}");
    let digest = |documents: &Documents| {
        let policy = Policy::compile(documents, CompileOptions::default()).expect("consistent documents");
        policy.digest().to_owned()
    };
    assert_eq!(digest(&documents), digest(&tenant.documents));
}

/// One line of `contoso.jsonl`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContosoCase {
    name: String,
    principal: String,
    #[serde(default)]
    groups: Vec<String>,
    action: String,
    #[serde(default)]
    data_action: bool,
    #[serde(default)]
    sub_operation: Option<String>,
    scope: String,
    #[serde(default)]
    attributes: ContosoAttributes,
    /// What an agent's action brings; such a case is one for the decision point alone.
    #[serde(default)]
    agent: Option<ContosoAgent>,
    /// Without it, some day on which no activation runs.
    #[serde(default)]
    now: Option<String>,
    decision: String,
    #[serde(default)]
    assignment: Option<String>,
    #[serde(default)]
    deny: Option<String>,
    #[serde(default)]
    why: Option<String>,
    #[serde(default)]
    eligibility: Option<String>,
    #[serde(default)]
    steps: Option<Vec<String>>,
    #[serde(default)]
    valid_until: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ContosoAttributes {
    request: serde_json::Map<String, Value>,
    resource: serde_json::Map<String, Value>,
    principal: serde_json::Map<String, Value>,
    environment: serde_json::Map<String, Value>,
}

/// Who asks, and whether that user said yes to the prompts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContosoAgent {
    user: Option<String>,
    approve: Option<bool>,
    consent: Option<bool>,
}

/// `examples/contoso` loads without a complaint, and says what `tests/cases/contoso.jsonl` says it says: asked of the
/// policy, and of a decision point, whose second answer may come from the cache.
#[test]
fn contoso() {
    contoso_says(contoso_policy());
}

/// The same of a mapped bundle.
#[test]
fn contoso_in_a_mapped_bundle() {
    contoso_says(mapped(&contoso_policy()));
}

fn contoso_policy() -> Policy {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let (documents, problems) = load(&root.join("examples/contoso"), Lenience::Strict);
    assert!(problems.is_empty(), "{problems:?}");
    Policy::compile(&documents, CompileOptions::default()).expect("consistent documents")
}

fn contoso_says(policy: Policy) {
    use postern::model::{
        AgentContext, ApprovalAnswer, ApprovalVerdict, ConsentAnswer, ConsentVerdict, NoAttributes,
        RequestAttributes, Why,
    };

    let text = include_str!("cases/contoso.jsonl");
    let (mut writer, reader) = cell();
    let (snapshot, _) = writer.activate(policy, 0, Timestamp::UNIX_EPOCH);
    let policy = &snapshot.policy;
    let (mut names, mut wrong) = (std::collections::BTreeSet::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let case: ContosoCase = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("contoso.jsonl:{}: {error}", number + 1));
        assert!(names.insert(case.name.clone()), "two cases are called {:?}", case.name);
        let time = |text: &str| text.parse::<Timestamp>().expect("a time");
        let now = time(case.now.as_deref().unwrap_or("2026-06-01T12:00:00Z"));
        let mut request = CheckRequest::new(
            Subject { principal: PrincipalId::new(&case.principal), groups: (&case.groups).into() },
            Action::parse(&case.action).expect("an action"),
            Plane::from_data_action(case.data_action),
            Scope::parse(&case.scope).expect("a scope"),
        );
        request.sub_operation = case.sub_operation.as_deref();
        request.attributes = RequestAttributes {
            request: &case.attributes.request,
            resource: &case.attributes.resource,
            principal: &case.attributes.principal,
            environment: &case.attributes.environment,
        };
        let subject = |id| Subject { principal: PrincipalId::new(id), groups: Groups::NONE };
        let context = case.agent.as_ref().map(|agent| {
            let user = agent.user.as_deref().map(subject);
            let approval =
                agent.approve.map(|yes| if yes { ApprovalVerdict::Approve } else { ApprovalVerdict::Deny });
            let consent =
                agent.consent.map(|yes| if yes { ConsentVerdict::Grant } else { ConsentVerdict::Decline });
            AgentContext {
                mode: None,
                on_behalf_of: user,
                user_attributes: &NoAttributes,
                approval: user.zip(approval).map(|(by, verdict)| ApprovalAnswer { by, verdict }),
                consent: user
                    .zip(consent)
                    .map(|(user, verdict)| ConsentAnswer { by: user.principal, verdict }),
            }
        });
        let authorizer = Authorizer::new(reader.clone(), ALWAYS, Clock::manual(now));
        let mut answers = Vec::new();
        for path in ["cold", "warm"] {
            let answer = authorizer.check(&snapshot, &request, context.as_ref()).expect("an answer");
            let steps: Vec<String> = answer
                .steps
                .iter()
                .map(|step| format!("{} {}", step.kind.name(), step.state.name()))
                .collect();
            answers.push((path, answer.evaluation, Some(steps)));
        }
        if context.is_none() {
            answers.push(("policy", policy.evaluate(&request, now).expect("an answer"), None));
        }
        for (path, evaluation, steps) in answers {
            let (mut assignment, mut deny, mut eligibility) = (None, None, None);
            match evaluation.decision {
                Decision::Allowed(grant) => assignment = Some(policy.role_assignment_name(grant)),
                Decision::Denied(hit) => deny = Some(policy.deny_assignment_name(hit)),
                Decision::NotAllowed(Why::Eligible(number)) => {
                    eligibility = Some(policy.eligibility_name(number));
                }
                Decision::NotAllowed(_) => {}
            }
            // The policy alone knows nothing of the flow of an agent, and so of the reasons why it stops.
            let why = evaluation.decision.reason_code().name().to_owned();
            let of_flow = case.why.as_ref().is_some_and(|why| why.starts_with("AGENT_")) && steps.is_none();
            let until = evaluation.valid_until.map(|until| until.to_string());
            // A line may leave out anything but the decision.
            let mut compare = |what: &str, wanted: &Option<String>, got: &Option<String>| {
                if wanted.as_ref().is_some_and(|wanted| !wanted.is_empty()) && wanted != got {
                    wrong.push(format!("{} ({path})\n  wanted {what} {wanted:?}\n  got {got:?}", case.name));
                }
            };
            compare("decision", &Some(case.decision.clone()), &Some(evaluation.decision.name().to_owned()));
            compare("assignment", &case.assignment, &assignment);
            compare("deny", &case.deny, &deny);
            compare("why", &case.why.clone().filter(|_| !of_flow), &Some(why));
            compare("eligibility", &case.eligibility, &eligibility);
            compare("valid_until", &case.valid_until, &until);
            if let (Some(wanted), Some(got)) = (&case.steps, &steps) {
                compare("steps", &Some(format!("{wanted:?}")), &Some(format!("{got:?}")));
            }
        }
    }
    println!("contoso: {} cases", names.len());
    assert!(!names.is_empty(), "an empty file");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
