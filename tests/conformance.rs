#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    reason = "tests"
)]
//! Every conformance case of `tests/cases/` on every path from a question to an answer.
//!
//! The files `action-match`, `scope`, `check` and `deny` hold the examples of the semantics reference as they
//! are; `clarifications` holds ours, in the same format. A case that the format does not describe completely is
//! refused, so nothing is skipped in silence:
//!
//! * `given` may also hold `strict_wildcards` (the switch) and `lenient` (how documents are loaded; without it, a
//!   case with an assignment to an unknown role is loaded leniently);
//! * `expect` may also be `{"undecided": "unknown_hierarchy"}`, `{"invalid": "resource"}` or
//!   `{"refused": code}` (loading must fail with that code).
//!
//! A new path is one `impl Path`, listed in [`paths`].

mod naive;
#[allow(dead_code, reason = "the benches use the rest")]
#[path = "../benches/support/tenant.rs"]
mod tenant;

use std::collections::BTreeMap;

use jiff::Timestamp;
use postern::authorizer::{Authorizer, CacheSettings};
use postern::cache::CachePolicy;
use postern::clock::Clock;
use postern::documents::{Lenience, load, load_texts};
use postern::metrics::Metrics;
use postern::model::{
    Action, CheckRequest, Decision, DenyAssignment, DenyEffect, Documents, Group, ManagementGroup,
    PermissionBlock, Plane, PrincipalId, Problems, RoleAssignment, RoleDefinition, Scope, Severity, Spanned,
    Subject, Subscription, Undecided, Wildcards, pattern_matches,
};
use postern::policy::{CompileOptions, Evaluation, Policy};
use postern::proto::v1;
use postern::proto::v1::authorization_service_client::AuthorizationServiceClient;
use postern::proto::v1::batch_check_item_result::Outcome as Item;
use postern::server::Transport;
use postern::server::grpc::{self, AuthorizationApi, GrpcSettings};
use postern::server::health::Health;
use postern::snapshot::{PolicyWriter, Snapshot, cell};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;

const FILES: [(&str, &str, usize); 5] = [
    ("action-match", include_str!("cases/action-match.jsonl"), 27),
    ("scope", include_str!("cases/scope.jsonl"), 24),
    ("check", include_str!("cases/check.jsonl"), 48),
    ("deny", include_str!("cases/deny.jsonl"), 16),
    ("clarifications", include_str!("cases/clarifications.jsonl"), CLARIFICATIONS),
];
const CLARIFICATIONS: usize = 255;
/// Cases whose `given` carries a condition: refused.
const WITH_CONDITIONS: usize = 10;
/// The code of that refusal.
const CONDITIONS_NOT_SUPPORTED: &str = "ConditionsNotSupported";

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
    #[serde(rename = "attributes", default)]
    _attributes: Option<Value>,
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
}

/// One case, as the questions that must all be answered as expected.
#[derive(Clone, Debug)]
struct Case {
    id: String,
    has_condition: bool,
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
    expect: Outcome,
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
    },
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
        Box::new(Cacheless),
        Box::new(Cold),
        Box::new(Warm),
        Box::new(Swapped),
        Box::new(Grpc::start(Call::Check)),
        Box::new(Grpc::start(Call::BatchCheck)),
    ]
}

// === reading cases ===

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (name, text, count) in FILES {
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), count, "{name}: cases in the file");
        for (number, line) in lines.iter().enumerate() {
            let line: Line = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{name}.jsonl:{}: {error}", number + 1));
            assert!(name == "clarifications" || line.area == name, "{}: area", line.id);
            all.push(case(line));
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

fn case(line: Line) -> Case {
    let Line { id, area, given, mut request, expect, .. } = line;
    let has_condition = holds_condition(&given);
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
    let trial = |tenant: Value, request: Request, expect: Outcome| {
        let lenience = match lenient.unwrap_or_else(|| names_unknown_role(&tenant)) {
            true => Lenience::Lenient,
            false => Lenience::Strict,
        };
        Trial { tenant, lenience, wildcards, request, expect }
    };
    let outcome = |expect: &Expect, granted: Option<bool>| match expect {
        Expect { undecided: Some(why), .. } => Outcome::Undecided(why.clone()),
        Expect { invalid: Some(field), .. } => Outcome::Invalid(field.clone()),
        Expect { refused: Some(code), .. } => Outcome::Refused(vec![code.clone()]),
        _ => Outcome::Decided {
            decision: match granted {
                Some(true) => "Allowed".to_owned(),
                Some(false) => "NotAllowed".to_owned(),
                None => expect.decision.clone().expect("an expectation"),
            },
            assignment: if granted == Some(true) { Some("a1".to_owned()) } else { expect.via.clone() },
            deny: expect.deny.clone(),
            audited: expect.audited.clone().unwrap_or_default(),
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
        "check" | "deny" => trials.push(trial(Value::Object(given), request, outcome(&expect, None))),
        other => panic!("{id}: unknown area {other}"),
    }
    Case { id, has_condition, trials }
}

fn holds_condition(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().any(|(name, value)| {
            (name.eq_ignore_ascii_case("condition") && !value.is_null()) || holds_condition(value)
        }),
        Value::Array(items) => items.iter().any(holds_condition),
        _ => false,
    }
}

fn names_unknown_role(tenant: &Value) -> bool {
    let guid = |value: &Value| {
        let id = value.as_str().unwrap();
        id.rsplit('/').next().unwrap_or_default().to_ascii_lowercase()
    };
    let list = |name: &str| tenant.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let known: Vec<String> = list("role_definitions").iter().map(|role| guid(&role["id"])).collect();
    list("role_assignments").iter().any(|assignment| !known.contains(&guid(&assignment["roleDefinitionId"])))
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
    decide(&CheckRequest::new(
        Subject { principal: PrincipalId::new(&request.principal), groups: &request.groups },
        action,
        Plane::from_data_action(request.is_data_action),
        scope,
    ))
}

fn outcome_of(policy: &Policy, evaluation: Result<&Evaluation, &Undecided>) -> Outcome {
    let evaluation = match evaluation {
        Ok(evaluation) => evaluation,
        Err(Undecided::UnknownHierarchy { .. }) => return Outcome::Undecided("unknown_hierarchy".to_owned()),
        Err(other) => return Outcome::Undecided(other.to_string()),
    };
    let (mut assignment, mut deny) = (None, None);
    match evaluation.decision {
        Decision::Allowed(grant) => assignment = Some(policy.role_assignment_name(grant)),
        Decision::Denied(hit) => deny = Some(policy.deny_assignment_name(hit)),
        Decision::NotAllowed(_) => {}
    }
    let mut audited: Vec<String> =
        evaluation.audited.iter().map(|&hit| policy.deny_assignment_name(hit)).collect();
    audited.sort();
    Outcome::Decided { decision: evaluation.decision.name().to_owned(), assignment, deny, audited }
}

const ALWAYS: CacheSettings = CacheSettings { policy: CachePolicy::CostAtLeast(0), max_bytes: 1 << 20 };
const NEVER: CacheSettings = CacheSettings { policy: CachePolicy::Off, max_bytes: 1 << 20 };

/// Asks an authorizer once and asserts whether the answer comes from the cache; what is undecided never does.
fn ask(authorizer: &Authorizer, request: &CheckRequest<'_>, cached: bool) -> Outcome {
    let snapshot = authorizer.snapshot();
    let snapshot = snapshot.get().expect("an active policy");
    let answer = authorizer.check(snapshot, request, None);
    if let Ok(answer) = &answer {
        assert_eq!(answer.cached, cached, "whether the answer comes from the cache");
    }
    outcome_of(&snapshot.policy, answer.as_ref().map(|answer| &answer.evaluation))
}

fn active(policy: Policy, cache: CacheSettings) -> Authorizer {
    let (mut writer, reader) = cell();
    writer.activate(policy, 0, Timestamp::UNIX_EPOCH);
    Authorizer::new(reader, cache, Clock::system())
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
                outcome_of(&policy, policy.evaluate(request, Timestamp::UNIX_EPOCH).as_ref())
            }),
        }
    }
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
            Ok(policy) => active(policy, NEVER),
        };
        with_request(&trial.request, |request| {
            let first = ask(&authorizer, request, false);
            assert_eq!(ask(&authorizer, request, false), first, "asked again");
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
                let authorizer = active(policy, ALWAYS);
                with_request(&trial.request, |request| ask(&authorizer, request, false))
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
                let authorizer = active(policy, ALWAYS);
                with_request(&trial.request, |request| {
                    ask(&authorizer, request, false);
                    ask(&authorizer, request, true)
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
        let authorizer = Authorizer::new(reader, ALWAYS, Clock::system());
        with_request(&trial.request, |request| {
            let nothing = Outcome::Decided {
                decision: "NotAllowed".to_owned(),
                assignment: None,
                deny: None,
                audited: Vec::new(),
            };
            assert_eq!(ask(&authorizer, request, false), nothing);
            assert_eq!(ask(&authorizer, request, true), nothing);
            let (after, replaced) = writer.activate(policy, 0, Timestamp::UNIX_EPOCH);
            let generation = |snapshot: &Snapshot| snapshot.generation;
            assert!(generation(&after) > generation(&before), "the generation grows");
            assert_eq!(replaced.as_deref().map(generation), Some(generation(&before)));
            let first = ask(&authorizer, request, false);
            assert_eq!(ask(&authorizer, request, true), first, "asked again");
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
}

/// A server on a Unix socket with the policy of each case swapped in. Every question is asked twice, so that it is
/// answered with the cache cold and warm.
struct Grpc {
    call: Call,
    runtime: tokio::runtime::Runtime,
    client: AuthorizationServiceClient<Channel>,
    writer: PolicyWriter,
    _socket: tempfile::TempDir,
}

impl Grpc {
    fn start(call: Call) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let socket = tempfile::tempdir().unwrap();
        let path = socket.path().join("s");
        let (writer, reader) = cell();
        let client = runtime.block_on(async {
            let settings =
                GrpcSettings { max_batch_items: 10, max_request_bytes: 1 << 20, reflection: false };
            let authorizer = Authorizer::new(reader, ALWAYS, Clock::system());
            let api =
                AuthorizationApi::new(authorizer, settings, Transport::Unix, &Metrics::new("", ""), None);
            let router = grpc::router(api, &Health::new().await, settings).unwrap();
            let listener = UnixListenerStream::new(tokio::net::UnixListener::bind(&path).unwrap());
            tokio::spawn(router.serve_with_incoming(listener));
            let channel = Endpoint::try_from(format!("unix://{}", path.display())).unwrap();
            AuthorizationServiceClient::new(channel.connect().await.unwrap())
        });
        Self { call, runtime, client, writer, _socket: socket }
    }

    fn check(&mut self, request: &Request, cached: bool) -> Outcome {
        let wire = v1::CheckRequest {
            subject: Some(subject(request)),
            action: Some(action(request)),
            resource: Some(resource(request)),
            ..Default::default()
        };
        match self.runtime.block_on(self.client.check(wire)) {
            Ok(answer) => outcome_of_wire(answer.into_inner().result.unwrap(), cached),
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
            ..Default::default()
        };
        let broken = v1::BatchCheckItem { action: None, ..item.clone() };
        let wire = v1::BatchCheckRequest {
            subject: Some(subject(request)),
            items: vec![broken.clone(), item, broken],
            ..Default::default()
        };
        let answer = self.runtime.block_on(self.client.batch_check(wire)).unwrap().into_inner();
        let [before, asked, after] = <[_; 3]>::try_from(answer.results).unwrap();
        for broken in [before, after] {
            assert!(matches!(broken.outcome, Some(Item::Error(_))), "the broken items stay broken");
        }
        match asked.outcome.unwrap() {
            Item::Result(result) => outcome_of_wire(result, cached),
            Item::Error(error) if error.code == tonic::Code::InvalidArgument as i32 => {
                invalid(error.field_violations.iter().map(|violation| violation.field.as_str()))
            }
            Item::Error(error) => {
                assert_eq!(error.code, tonic::Code::FailedPrecondition as i32, "{}", error.message);
                Outcome::Undecided("unknown_hierarchy".to_owned())
            }
        }
    }
}

impl Path for Grpc {
    fn name(&self) -> &'static str {
        match self.call {
            Call::Check => "gRPC, Check, cold and warm",
            Call::BatchCheck => "gRPC, BatchCheck, cold and warm",
        }
    }

    fn decide(&mut self, trial: &Trial) -> Outcome {
        match compile(trial) {
            Err(refused) => return refused,
            Ok(policy) => drop(self.writer.activate(policy, 0, Timestamp::UNIX_EPOCH)),
        }
        let mut ask = |cached| match self.call {
            Call::Check => self.check(&trial.request, cached),
            Call::BatchCheck => self.batch(&trial.request, cached),
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
        ..Default::default()
    }
}

fn action(request: &Request) -> v1::Action {
    v1::Action { name: request.action.clone(), data_action: request.is_data_action, ..Default::default() }
}

fn resource(request: &Request) -> v1::Resource {
    v1::Resource { scope: request.resource.clone(), ..Default::default() }
}

/// `resource.scope` and `items[1].resource.scope` are the resource.
fn invalid<'a>(fields: impl Iterator<Item = &'a str>) -> Outcome {
    let fields: Vec<&str> =
        fields.map(|field| field.trim_start_matches("items[1].").trim_end_matches(".scope")).collect();
    Outcome::Invalid(fields.join(", "))
}

fn outcome_of_wire(result: v1::CheckResult, cached: bool) -> Outcome {
    assert_eq!(result.cached, cached, "whether the answer comes from the cache");
    assert!(!result.reason.is_empty(), "a sentence");
    let name = |id: &str| id.rsplit('/').next().filter(|name| !name.is_empty()).map(str::to_owned);
    let mut audited: Vec<String> =
        result.audited_deny_assignment_ids.iter().filter_map(|id| name(id)).collect();
    audited.sort();
    let (decision, reasons) = match result.decision() {
        v1::Decision::Allowed => ("Allowed", vec![v1::ReasonCode::RoleAssignment]),
        v1::Decision::NotAllowed => {
            ("NotAllowed", vec![v1::ReasonCode::NoRoleAssignment, v1::ReasonCode::ActionNotGranted])
        }
        v1::Decision::Denied => ("Denied", vec![v1::ReasonCode::DenyAssignment]),
        v1::Decision::Unspecified => panic!("a decision is always set"),
    };
    assert!(reasons.contains(&result.reason_code()), "{:?} for {decision}", result.reason_code());
    assert_eq!(result.role_definition_id.is_empty(), decision != "Allowed", "the role that grants");
    Outcome::Decided {
        decision: decision.to_owned(),
        assignment: name(&result.role_assignment_id),
        deny: name(&result.deny_assignment_id),
        audited,
    }
}

// === tests ===

/// Which cases a path answers wrongly, and how many it answered and refused.
fn run(path: &mut dyn Path, cases: &[Case]) -> (usize, usize, Vec<String>) {
    let (mut ran, mut refused, mut wrong) = (0, 0, Vec::new());
    for case in cases {
        for trial in &case.trials {
            let outcome = path.decide(trial);
            let as_expected = match (&outcome, &trial.expect) {
                (Outcome::Refused(codes), _) if case.has_condition => {
                    codes.iter().all(|code| code == CONDITIONS_NOT_SUPPORTED) && !codes.is_empty()
                }
                (_, _) if case.has_condition => false,
                (Outcome::Refused(codes), Outcome::Refused(wanted)) => {
                    wanted.iter().all(|code| codes.contains(code))
                }
                (outcome, wanted) => outcome == wanted,
            };
            if !as_expected {
                wrong.push(format!(
                    "{}\n  wanted {:?}\n  got    {outcome:?}\n  asked  {:?}",
                    case.id, trial.expect, trial.request
                ));
            }
        }
        if case.has_condition {
            refused += 1;
        } else {
            ran += 1;
        }
    }
    (ran, refused, wrong)
}

#[test]
fn every_case_on_every_path() {
    let cases = cases();
    let total: usize = FILES.iter().map(|(_, _, count)| count).sum();
    let mut wrong = BTreeMap::new();
    for mut path in paths() {
        let (ran, refused, failures) = run(path.as_mut(), &cases);
        println!(
            "{:<28} {ran} cases ran, {refused} refused for their conditions, {} wrong",
            path.name(),
            failures.len()
        );
        assert_eq!(refused, WITH_CONDITIONS, "{}: cases with conditions", path.name());
        assert_eq!(ran + refused, total, "{}: every case", path.name());
        if !failures.is_empty() {
            wrong.insert(path.name(), failures);
        }
    }
    let report: Vec<String> =
        wrong.iter().map(|(path, failures)| format!("== {path}\n{}", failures.join("\n"))).collect();
    assert!(wrong.is_empty(), "\n{}", report.join("\n"));
}

/// The naive evaluator over documents that are built here, without the reader: what the property tests measure
/// the engine against must itself be right.
#[test]
fn naive_passes_all_cases() {
    let cases = cases();
    let (ran, _, wrong) =
        run(&mut Naive, &cases.into_iter().filter(|case| !case.has_condition).collect::<Vec<_>>());
    println!("naive: {ran} cases");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert_eq!(ran + WITH_CONDITIONS, FILES.iter().map(|(_, _, count)| count).sum::<usize>());
}

/// The engine over the same documents, without the reader.
#[test]
fn engine_passes_all_cases_without_the_reader() {
    let cases: Vec<Case> = cases().into_iter().filter(|case| !case.has_condition).collect();
    let (ran, _, wrong) = run(&mut Built, &cases);
    println!("engine over built documents: {ran} cases");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

struct Naive;

impl Path for Naive {
    fn name(&self) -> &'static str {
        "naive"
    }

    fn decide(&mut self, trial: &Trial) -> Outcome {
        // What is refused is the reader's to say.
        if let Outcome::Refused(_) = trial.expect {
            return trial.expect.clone();
        }
        let documents = documents_of(&trial.tenant);
        let answer = naive::check(
            &documents,
            &naive::Question {
                principal: &trial.request.principal,
                groups: &trial.request.groups,
                action: &trial.request.action,
                data_action: trial.request.is_data_action,
                resource: &trial.request.resource,
                strict_wildcards: trial.wildcards == Wildcards::Strict,
            },
        );
        let (verdict, audited) = match answer {
            naive::Answer::InvalidResource => return Outcome::Invalid("resource".to_owned()),
            naive::Answer::UnknownHierarchy => return Outcome::Undecided("unknown_hierarchy".to_owned()),
            naive::Answer::Decided { verdict, audited } => (verdict, audited),
        };
        let (decision, assignment, deny) = match verdict {
            naive::Verdict::Allowed(name) => ("Allowed", Some(name), None),
            naive::Verdict::NothingAssigned | naive::Verdict::ActionNotGranted => ("NotAllowed", None, None),
            naive::Verdict::Denied(name) => ("Denied", None, Some(name)),
        };
        Outcome::Decided { decision: decision.to_owned(), assignment, deny, audited }
    }
}

struct Built;

impl Path for Built {
    fn name(&self) -> &'static str {
        "engine over built documents"
    }

    fn decide(&mut self, trial: &Trial) -> Outcome {
        if let Outcome::Refused(_) = trial.expect {
            return trial.expect.clone();
        }
        let mut documents = documents_of(&trial.tenant);
        if trial.lenience == Lenience::Lenient {
            // What the reader leaves out.
            let roles = &documents.role_definitions;
            documents.role_assignments.retain(|assignment| {
                let role = &assignment.role_definition_id.value;
                Scope::parse(&assignment.scope.value).is_ok()
                    && roles.iter().any(|known| known.id.value == *role)
            });
        }
        let options = CompileOptions { wildcards: trial.wildcards, ..CompileOptions::default() };
        let policy = Policy::compile(&documents, options).expect("consistent documents");
        with_request(&trial.request, |request| {
            outcome_of(&policy, policy.evaluate(request, Timestamp::UNIX_EPOCH).as_ref())
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
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TenantAssignment {
    name: String,
    scope: String,
    role_definition_id: String,
    principal_id: String,
    principal_type: Option<String>,
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

fn documents_of(tenant: &Value) -> Documents {
    let tenant: Tenant = serde_json::from_value(tenant.clone()).unwrap();
    let blocks = |blocks: Vec<TenantBlock>| -> Vec<PermissionBlock> {
        let block = |block: TenantBlock| PermissionBlock {
            actions: all_spanned(block.actions),
            not_actions: all_spanned(block.not_actions),
            data_actions: all_spanned(block.data_actions),
            not_data_actions: all_spanned(block.not_data_actions),
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
        ..RoleAssignment::default()
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
        ..DenyAssignment::default()
    });
    Documents {
        role_definitions: role_definitions.collect(),
        role_assignments: role_assignments.collect(),
        deny_assignments: deny_assignments.collect(),
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
    scope: String,
    decision: String,
    #[serde(default)]
    assignment: Option<String>,
    #[serde(default)]
    deny: Option<String>,
}

/// `examples/contoso` loads without a complaint, and says what `tests/cases/contoso.jsonl` says it says.
#[test]
fn contoso() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = include_str!("cases/contoso.jsonl");
    let (documents, problems) = load(&root.join("examples/contoso"), Lenience::Strict);
    assert!(problems.is_empty(), "{problems:?}");
    let policy = Policy::compile(&documents, CompileOptions::default()).expect("consistent documents");
    let (mut ran, mut wrong) = (0, Vec::new());
    for (number, line) in text.lines().enumerate() {
        let case: ContosoCase = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("contoso.jsonl:{}: {error}", number + 1));
        let request = Request {
            principal: case.principal,
            groups: case.groups,
            action: case.action,
            is_data_action: case.data_action,
            resource: case.scope,
            _attributes: None,
        };
        let outcome = with_request(&request, |request| {
            outcome_of(&policy, policy.evaluate(request, Timestamp::UNIX_EPOCH).as_ref())
        });
        let filled = |name: Option<String>| name.filter(|name| !name.is_empty());
        let wanted = (case.decision, filled(case.assignment), filled(case.deny));
        let as_expected = match &outcome {
            Outcome::Decided { decision, assignment, deny, .. } => {
                // A line may leave out which assignment decides.
                *decision == wanted.0
                    && (wanted.1.is_none() || *assignment == wanted.1)
                    && (wanted.2.is_none() || *deny == wanted.2)
            }
            _ => false,
        };
        if !as_expected {
            wrong.push(format!("{}\n  wanted {wanted:?}\n  got    {outcome:?}", case.name));
        }
        ran += 1;
    }
    println!("contoso: {ran} cases");
    assert!(ran > 0, "an empty file");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
