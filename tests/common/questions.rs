//! Questions about `examples/contoso` that walk every kind of record of a compiled policy: for policies whose bytes are
//! not to be trusted. Also part of the fuzz target `bundle`.

#![allow(dead_code, unreachable_pub, reason = "each user has its own part")]

use std::hint::black_box;
use std::path::Path;
use std::sync::LazyLock;

use jiff::Timestamp;
use postern::bundle;
use postern::documents::{Lenience, load};
use postern::model::{
    Action, CheckRequest, Decision, PermissionQuery, Plane, PrincipalId, PrincipalQuery, RequestAttributes,
    Scope, Subject, Why,
};
use postern::policy::{CompileOptions, Policy};
use serde_json::{Map, Value};

/// One of so many cases is asked.
const EVERY: usize = 12;

pub struct Case {
    principal: String,
    groups: Vec<String>,
    action: String,
    plane: Plane,
    scope: String,
    sub_operation: Option<String>,
    attributes: [Map<String, Value>; 4],
    now: Timestamp,
}

static CASES: LazyLock<Vec<Case>> =
    LazyLock::new(|| include_str!("../cases/contoso.jsonl").lines().step_by(EVERY).map(case).collect());

fn case(line: &str) -> Case {
    let case: Value = serde_json::from_str(line).unwrap();
    let text = |name: &str| case[name].as_str().map(str::to_owned);
    let bag = |name: &str| case["attributes"][name].as_object().cloned().unwrap_or_default();
    Case {
        principal: text("principal").unwrap(),
        groups: serde_json::from_value(case["groups"].clone()).unwrap_or_default(),
        action: text("action").unwrap(),
        plane: Plane::from_data_action(case["data_action"] == true),
        scope: text("scope").unwrap(),
        sub_operation: text("sub_operation"),
        attributes: ["request", "resource", "principal", "environment"].map(bag),
        now: text("now").unwrap_or_else(|| "2026-06-01T12:00:00Z".to_owned()).parse().unwrap(),
    }
}

/// The example tenant as a policy.
pub fn contoso() -> Policy {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = [here.join("examples/contoso"), here.join("../examples/contoso")];
    let contoso = places.iter().find(|place| place.is_dir()).expect("the example tenant");
    let (documents, problems) = load(contoso, Lenience::Strict);
    assert!(problems.is_empty(), "{problems:?}");
    Policy::compile(&documents, CompileOptions::default()).unwrap()
}

/// And as a bundle.
pub fn contoso_bundle() -> Vec<u8> {
    bundle::build(&contoso(), &bundle::About { name: "contoso", ..Default::default() }).unwrap()
}

/// Asks every kind of question. What comes of it does not matter, only that it does; gives how many were decided.
pub fn ask_everything(policy: &Policy) -> usize {
    CASES.iter().filter(|case| ask(policy, case)).count()
}

/// Asks a few, and what is in the policy: this one by its number.
pub fn ask_one(policy: &Policy, number: usize) {
    ask(policy, &CASES[number % CASES.len()]);
}

fn ask(policy: &Policy, case: &Case) -> bool {
    let Case { attributes: [request, resource, principal, environment], now, .. } = case;
    let subject = Subject { principal: PrincipalId::new(&case.principal), groups: (&case.groups).into() };
    let (action, scope) = (Action::parse(&case.action).unwrap(), Scope::parse(&case.scope).unwrap());
    let mut asked = CheckRequest::new(subject, action, case.plane, scope);
    asked.sub_operation = case.sub_operation.as_deref();
    asked.attributes = RequestAttributes { request, resource, principal, environment };
    let evaluation = policy.evaluate(&asked, *now);
    if let Ok(evaluation) = &evaluation {
        black_box(policy.reason(&asked, &evaluation.decision));
        match evaluation.decision {
            Decision::Allowed(grant) => {
                black_box((policy.role_assignment_id(grant), policy.role_definition_id(grant)));
                black_box((policy.role_assignment_name(grant), policy.role_name(grant)));
            }
            Decision::Denied(hit) => {
                black_box((policy.deny_assignment_id(hit), policy.deny_assignment_name(hit)));
            }
            Decision::NotAllowed(Why::Eligible(eligibility)) => {
                black_box((policy.eligibility_id(eligibility), policy.activation(eligibility)));
            }
            Decision::NotAllowed(_) => {}
        }
    }
    let _ = black_box(policy.explain(&asked, *now));
    let _ = black_box(policy.list_permissions(&PermissionQuery { subject, scope, operations: None }, *now));
    let query = PrincipalQuery { action, plane: case.plane, scope };
    let _ = black_box(policy.list_principals(&query, *now));
    let _ = black_box(policy.agent(subject.principal));
    let _ = black_box(policy.holds_role(&asked, "00000000-0000-4000-a005-000000000001", *now));
    evaluation.is_ok()
}

/// Spells out what is in the policy, and compares it with another.
pub fn look_at_everything(policy: &Policy, other: &Policy) {
    black_box((policy.counts(), policy.uses(), policy.depends_on_time()));
    for contents in policy.assignments().chain(policy.eligibilities()) {
        let _ = black_box(contents);
    }
    let _ = black_box((policy.role_definitions(), policy.deny_assignments(), policy.agents()));
    let _ = black_box((policy.memberships(), policy.hierarchy()));
    let _ = black_box(bundle::diff(policy, other, Timestamp::UNIX_EPOCH));
}
