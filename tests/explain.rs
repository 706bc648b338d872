#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "tests"
)]
//! Explanations and lists against the decisions they explain: by hand where a text can be read, over the whole
//! example tenant, and over drawn policies with conditions, windows, eligibilities and deny assignments.

use std::collections::BTreeSet;
use std::fmt::Write;

use jiff::Timestamp;
use postern::documents::{Lenience, load};
use postern::model::{
    Action, AssignmentOutcome, Attributes, CheckRequest, ClauseTruth, ConditionOutcome, ConditionOwner,
    ConditionText, Decision, DenyAssignment, DenyEffect, DenyOutcome, Documents, Explanation, Group, Joined,
    KnownOperation, ManagementGroup, NearMiss, OperationOutcome, PermissionBlock, PermissionQuery, Plane,
    PrincipalId, PrincipalQuery, Reached, ReadValue, RequestAttributes, RoleAssignment, RoleDefinition,
    Schedule, ScheduleKind, Scope, Spanned, Subject, Subscription, Why, Wildcards, pattern_matches,
};
use postern::policy::{CompileOptions, Policy};

const NOW: i64 = 1_000;

fn now() -> Timestamp {
    second(NOW)
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn text(value: &str) -> Spanned<String> {
    Spanned::new(value.to_owned(), Default::default())
}

fn texts(values: &[&str]) -> Vec<Spanned<String>> {
    values.iter().map(|value| text(value)).collect()
}

fn condition(value: &str) -> Option<ConditionText> {
    Some(ConditionText { text: text(value), version: None })
}

fn compile(documents: &Documents) -> Policy {
    Policy::compile(documents, CompileOptions::default()).unwrap()
}

fn request<'a>(
    principal: &'a str,
    groups: &'a [String],
    action: &'a str,
    plane: Plane,
    scope: &'a str,
) -> CheckRequest<'a> {
    CheckRequest::new(
        Subject { principal: PrincipalId::new(principal), groups },
        Action::parse(action).unwrap(),
        plane,
        Scope::parse(scope).unwrap(),
    )
}

// === an explanation as text ===

fn written(explanation: &Explanation) -> String {
    let mut out = String::new();
    for principal in &explanation.principals {
        let how = match &principal.reached {
            Reached::Subject => "the subject".to_owned(),
            Reached::Asserted => "asserted".to_owned(),
            Reached::Contains { member } => format!("contains {member}"),
        };
        let known = if principal.known { "" } else { ", not known" };
        writeln!(out, "principal {}: {how}{known}", principal.id).unwrap();
    }
    for deny in &explanation.denies {
        let name = deny.name.as_deref().unwrap_or("no name");
        writeln!(out, "deny {name:?} at {}, {:?}: {:?}", deny.scope, deny.effect, deny.outcome).unwrap();
    }
    for one in &explanation.assignments {
        let info = &one.assignment;
        let (role, principal) = (&info.role_name, &info.principal_id);
        writeln!(out, "role {role:?} of {principal} at {}: {:?}", info.scope, one.outcome).unwrap();
        for condition in &one.conditions {
            writeln!(out, "  {:?}: {}", condition.whose, condition.text).unwrap();
            match &condition.outcome {
                ConditionOutcome::Evaluated(clause) => write_clause(&mut out, clause, 2),
                other => writeln!(out, "    {other:?}").unwrap(),
            }
        }
    }
    for miss in &explanation.near_misses {
        match miss {
            NearMiss::Eligible(activation) => {
                writeln!(out, "eligible {:?} at {}", activation.role_name, activation.scope)
            }
            NearMiss::WrongPlane { assignment, pattern, plane } => {
                let (role, scope) = (&assignment.role_name, &assignment.scope);
                writeln!(out, "only on {plane:?}: {role:?} at {scope} through {:?}", pattern.pattern)
            }
            NearMiss::ScopeTooLow { assignment, pattern } => {
                let (role, scope) = (&assignment.role_name, &assignment.scope);
                writeln!(out, "too low: {role:?} at {scope} through {:?}", pattern.pattern)
            }
        }
        .unwrap();
    }
    writeln!(out, "{}: {}", explanation.decision.name(), explanation.reason).unwrap();
    out
}

fn write_clause(out: &mut String, clause: &postern::model::Clause, depth: usize) {
    let indent = "  ".repeat(depth);
    let what = if clause.joined == Joined::Test { clause.text.clone() } else { format!("{:?}", clause.joined) };
    writeln!(out, "{indent}{}: {what}", clause.truth.name()).unwrap();
    for read in &clause.values {
        let value = match &read.value {
            ReadValue::Present(value) => value.to_string(),
            other => format!("{other:?}"),
        };
        writeln!(out, "{indent}  {} is {value}", read.attribute).unwrap();
    }
    for part in &clause.parts {
        write_clause(out, part, depth + 1);
    }
}

// === the example tenant ===

fn contoso() -> (Documents, Policy) {
    let (documents, problems) = load("examples/contoso".as_ref(), Lenience::Strict);
    assert!(!problems.has_errors());
    let policy = compile(&documents);
    (documents, policy)
}

const CARL: &str = "00000000-0000-4000-a002-000000000003";
const KARL: &str = "00000000-0000-4000-a002-000000000006";
const VAULT: &str = "/subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-vault-prod\
                     /providers/Microsoft.KeyVault/vaults/kv-contoso-prod";

#[test]
fn a_whole_explanation_reads_well() {
    let (_, policy) = contoso();
    let asked = request(CARL, &[], "Microsoft.KeyVault/vaults/delete", Plane::Control, VAULT);
    let explained = written(&policy.explain(&asked, now()).unwrap());
    assert_eq!(explained, "");
}

#[test]
fn a_near_miss_on_the_other_plane_reads_well() {
    let (_, policy) = contoso();
    let secret = "Microsoft.KeyVault/vaults/secrets/getSecret/action";
    let asked = request(KARL, &[], secret, Plane::Data, VAULT);
    let explained = written(&policy.explain(&asked, now()).unwrap());
    assert_eq!(explained, "");
}
