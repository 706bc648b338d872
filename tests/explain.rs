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
    ConditionText, Decision, DenyAssignment, DenyEffect, DenyOutcome, Documents, Explanation, Group, Groups,
    Joined, KnownOperation, ManagementGroup, NearMiss, OperationOutcome, PermissionBlock, PermissionQuery,
    Plane, PrincipalId, PrincipalQuery, Reached, ReadValue, RequestAttributes, RoleAssignment,
    RoleDefinition, Schedule, ScheduleKind, Scope, Spanned, Subject, Subscription, Why, Wildcards,
    pattern_matches,
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
        Subject { principal: PrincipalId::new(principal), groups: groups.into() },
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
    let what =
        if clause.joined == Joined::Test { clause.text.clone() } else { format!("{:?}", clause.joined) };
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
    let explanation = policy.explain(&asked, now()).unwrap();
    assert_eq!(
        written(&explanation),
        "\
principal 00000000-0000-4000-a002-000000000003: the subject
principal 00000000-0000-4000-a003-000000000003: contains 00000000-0000-4000-a002-000000000003
deny \"Production vault is not deleted\" at \
/subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-vault-prod, Enforced: \
Hit { pattern: MatchedPattern { block: 0, list: \"actions\", pattern: \"*/delete\" }, principal: None }
deny \"Contractors stay out of production secrets\" at \
/subscriptions/00000000-0000-4000-a001-000000000002, Enforced: NotForSubject
role \"Contributor\" of 00000000-0000-4000-a003-000000000003 at \
/providers/Microsoft.Management/managementGroups/workloads: \
Granted { pattern: MatchedPattern { block: 0, list: \"actions\", pattern: \"*\" } }
Denied: deny assignment 00000000-0000-4000-a006-000000000001 at \
/subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-vault-prod blocks control-plane action \
Microsoft.KeyVault/vaults/delete
"
    );
    assert_eq!(explanation.valid_until, None);
    assert!(!explanation.truncated);
}

#[test]
fn a_near_miss_on_the_other_plane_reads_well() {
    let (_, policy) = contoso();
    let secret = "Microsoft.KeyVault/vaults/secrets/getSecret/action";
    let asked = request(KARL, &[], secret, Plane::Data, VAULT);
    let explained = written(&policy.explain(&asked, now()).unwrap());
    let group = "/subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-vault-prod";
    assert!(
        explained.contains(&format!(
            "role \"Key Vault Contributor\" of {KARL} at {group}: WrongPlane {{ pattern: MatchedPattern {{ block: 0, \
             list: \"actions\", pattern: \"Microsoft.KeyVault/*\" }} }}\nonly on Control: \"Key Vault Contributor\" \
             at {group} through \"Microsoft.KeyVault/*\"\nNotAllowed: "
        )),
        "{explained}"
    );
}

/// Every question of the example, and every list about its subjects, scopes and actions.
#[test]
fn the_example_tenant_is_explained_as_it_is_decided() {
    let (documents, policy) = contoso();
    let everybody = everybody(&documents);
    let (mut subjects, mut places, mut listed) = (BTreeSet::new(), BTreeSet::new(), 0);
    for line in include_str!("cases/contoso.jsonl").lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let word = |name: &str| case[name].as_str().unwrap().to_owned();
        let plane = Plane::from_data_action(case["data_action"].as_bool().unwrap());
        let groups: Vec<String> =
            case["groups"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
        let (principal, action, scope) = (word("principal"), word("action"), word("scope"));
        explain_agrees(&policy, &request(&principal, &groups, &action, plane, &scope));
        subjects.insert((principal, groups, scope.clone()));
        places.insert((action, plane, scope));
    }
    assert!(subjects.len() > 20 && places.len() > 20);
    for (principal, groups, scope) in subjects {
        let outcomes = permissions_agree(&policy, &principal, &groups, &scope, None, Kind::OF_MANY_TEXTS);
        listed += outcomes.len();
    }
    assert!(listed > 500, "{listed}");
    for (action, plane, scope) in places {
        principals_agree(&policy, &everybody, &action, plane, &scope, Kind::OF_MANY_TEXTS);
    }
}

// === what has to agree ===

/// What kind of policy it is, and so how much a list can know.
#[derive(Clone, Copy)]
struct Kind {
    conditions: bool,
    /// All conditions are of one text, so that none can cancel another.
    one_text: bool,
}

impl Kind {
    const OF_MANY_TEXTS: Self = Self { conditions: true, one_text: false };
}

/// Everything that a condition of the drawn policies can see.
fn every_context() -> Vec<(Attributes, Option<&'static str>)> {
    let mut contexts = Vec::new();
    for json in [serde_json::json!({}), serde_json::json!({"a:n": 1}), serde_json::json!({"a:n": 2})] {
        for sub_operation in [None, Some("S")] {
            contexts.push((Attributes::from_json(&json), sub_operation));
        }
    }
    contexts
}

/// The decisions of a request under every context.
fn decisions(policy: &Policy, asked: &CheckRequest<'_>) -> Vec<Decision> {
    every_context()
        .iter()
        .map(|(resource, sub_operation)| {
            let attributes = RequestAttributes { resource, ..RequestAttributes::NONE };
            let asked = CheckRequest { sub_operation: *sub_operation, attributes, ..*asked };
            policy.evaluate(&asked, now()).unwrap().decision
        })
        .collect()
}

fn everybody(documents: &Documents) -> BTreeSet<String> {
    let assigned = documents.role_assignments.iter().map(|assignment| &assignment.principal_id);
    let scheduled = documents.schedules.iter().map(|schedule| &schedule.principal_id);
    let denied = documents.deny_assignments.iter();
    let denied = denied.flat_map(|deny| deny.principals.iter().chain(&deny.exclude_principals));
    let groups = documents.groups.iter().flat_map(|group| std::iter::once(&group.id).chain(&group.members));
    // The level of an agent brings its assignments.
    let agents = documents.agents.iter().map(|agent| &agent.principal_id);
    let all = assigned.chain(scheduled).chain(denied).chain(groups).chain(agents);
    all.map(|id| PrincipalId::new(&id.value).to_string()).collect()
}

/// The invariants between an explanation and its decision.
fn explain_agrees(policy: &Policy, asked: &CheckRequest<'_>) -> Option<Explanation> {
    let evaluation = match policy.evaluate(asked, now()) {
        Ok(evaluation) => evaluation,
        Err(undecided) => {
            assert_eq!(policy.explain(asked, now()).unwrap_err(), undecided);
            return None;
        }
    };
    let explanation = policy.explain(asked, now()).unwrap();
    let shown = format!("{} at {}\n{}", asked.action, asked.scope, written(&explanation));
    assert_eq!(explanation.decision, evaluation.decision, "{shown}");
    assert_eq!(explanation.valid_until, evaluation.valid_until, "{shown}");
    assert_eq!(explanation.reason, policy.reason(asked, &evaluation.decision), "{shown}");

    let granted = explanation.assignments.first().filter(|first| first.outcome.grants());
    let hit = |effect: DenyEffect| {
        let hits = explanation.denies.iter().filter(move |deny| deny.effect == effect);
        hits.filter(|deny| matches!(deny.outcome, DenyOutcome::Hit { .. })).map(|deny| deny.id.clone())
    };
    let denied = hit(DenyEffect::Enforced).next();
    match evaluation.decision {
        Decision::Allowed(grant) => {
            assert_eq!(granted.unwrap().assignment.id, policy.role_assignment_id(grant), "{shown}");
            assert_eq!(granted.unwrap().assignment.role_name, policy.role_name(grant), "{shown}");
            assert!(denied.is_none() && explanation.near_misses.is_empty(), "{shown}");
        }
        Decision::Denied(deny) => {
            assert_eq!(denied.unwrap(), policy.deny_assignment_id(deny), "{shown}");
            assert!(explanation.near_misses.is_empty(), "{shown}");
        }
        Decision::NotAllowed(why) => {
            assert!(granted.is_none() && denied.is_none(), "{shown}");
            let first = match explanation.near_misses.first() {
                Some(NearMiss::Eligible(activation)) => Some(activation.clone()),
                _ => None,
            };
            let eligible = match why {
                Why::Eligible(eligibility) => policy.activation(eligibility),
                _ => None,
            };
            assert_eq!(first, eligible, "{shown}");
            let outcomes = || explanation.assignments.iter().map(|one| &one.outcome);
            let conditions = outcomes().any(|outcome| {
                matches!(
                    outcome,
                    AssignmentOutcome::ConditionNotTrue { .. } | AssignmentOutcome::ConditionUnusable { .. }
                )
            });
            let windows =
                outcomes().any(|outcome| matches!(outcome, AssignmentOutcome::OutsideWindow { .. }));
            match why {
                Why::NoRoleAssignment => assert!(!conditions && !windows, "{shown}"),
                Why::ActionNotGranted => assert!(!conditions && !windows, "{shown}"),
                Why::NotActiveNow => assert!(!conditions && windows, "{shown}"),
                Why::ConditionNotMet => assert!(conditions, "{shown}"),
                Why::Eligible(_) | Why::Agent(_) => {}
            }
        }
    }
    if !matches!(evaluation.decision, Decision::Denied(_)) {
        let audited: Vec<_> =
            evaluation.audited.iter().map(|audited| policy.deny_assignment_id(*audited)).collect();
        assert_eq!(hit(DenyEffect::Audit).collect::<Vec<_>>(), audited, "{shown}");
    }

    // Those that grant stand first, each with every condition true.
    let behind = explanation.assignments.iter().skip_while(|one| one.outcome.grants());
    assert!(behind.into_iter().all(|one| !one.outcome.grants()), "{shown}");
    for one in &explanation.assignments {
        let truths: Vec<_> = one
            .conditions
            .iter()
            .map(|condition| match &condition.outcome {
                ConditionOutcome::Evaluated(clause) => (condition.whose.clone(), Some(clause.truth)),
                _ => (condition.whose.clone(), None),
            })
            .collect();
        let first = truths.iter().find(|(_, truth)| *truth != Some(ClauseTruth::True)).cloned();
        match &one.outcome {
            AssignmentOutcome::Granted { .. } => assert_eq!(first, None, "{shown}"),
            AssignmentOutcome::ConditionNotTrue { whose, truth, .. } => {
                assert_eq!(first, Some((whose.clone(), Some(*truth))), "{shown}");
            }
            AssignmentOutcome::ConditionUnusable { whose, .. } => {
                assert_eq!(first, Some((whose.clone(), None)), "{shown}");
            }
            AssignmentOutcome::OutsideWindow { .. } => {
                assert!(!one.assignment.window.unwrap().holds(now()) && truths.is_empty(), "{shown}");
            }
            AssignmentOutcome::ConditionTooCostly { whose, .. } => {
                assert_eq!(first, Some((whose.clone(), None)), "{shown}");
            }
            _ => assert!(truths.is_empty(), "{shown}"),
        }
        let matches = |pattern: &str| pattern_matches(pattern, asked.action.as_str(), Wildcards::Collapse);
        match &one.outcome {
            AssignmentOutcome::NotCovered => {}
            AssignmentOutcome::ExcludedBy { pattern, exclusion } => {
                assert!(matches(&pattern.pattern) && matches(&exclusion.pattern), "{shown}");
                assert_eq!(pattern.block, exclusion.block, "{shown}");
                assert!(exclusion.list.starts_with("not"), "{shown}");
            }
            AssignmentOutcome::Granted { pattern }
            | AssignmentOutcome::ConditionNotTrue { pattern, .. }
            | AssignmentOutcome::ConditionUnusable { pattern, .. }
            | AssignmentOutcome::ConditionTooCostly { pattern, .. }
            | AssignmentOutcome::OutsideWindow { pattern }
            | AssignmentOutcome::WrongPlane { pattern } => {
                assert!(matches(&pattern.pattern), "{shown}");
                let other = matches!(one.outcome, AssignmentOutcome::WrongPlane { .. });
                let control = (asked.plane == Plane::Control) != other;
                assert_eq!(pattern.list, if control { "actions" } else { "dataActions" }, "{shown}");
            }
        }
    }
    Some(explanation)
}

fn granting_id(policy: &Policy, decision: Decision) -> Option<String> {
    match decision {
        Decision::Allowed(grant) => Some(policy.role_assignment_id(grant)),
        _ => None,
    }
}

fn denying_id(policy: &Policy, decision: Decision) -> Option<String> {
    match decision {
        Decision::Denied(hit) => Some(policy.deny_assignment_id(hit)),
        _ => None,
    }
}

/// The operations of a list against the decisions one by one; what came of those listed.
fn permissions_agree(
    policy: &Policy,
    principal: &str,
    groups: &[String],
    scope: &str,
    operations: Option<&[KnownOperation]>,
    kind: Kind,
) -> Vec<&'static str> {
    let subject = Subject { principal: PrincipalId::new(principal), groups: groups.into() };
    let query = PermissionQuery { subject, scope: Scope::parse(scope).unwrap(), operations };
    let list = policy.list_permissions(&query, now()).unwrap();
    let mut looked_at: Vec<KnownOperation> = match operations {
        Some(operations) => operations.to_vec(),
        None => list.operations.iter().map(|one| one.operation.clone()).collect(),
    };
    looked_at.sort();
    assert!(list.operations.is_sorted_by(|one, next| one.operation < next.operation));
    for operation in looked_at {
        let asked = request(principal, groups, &operation.name, operation.plane, scope);
        let decisions = decisions(policy, &asked);
        let shown = format!("{asked:?}: {decisions:?}");
        let found = list.operations.iter().find(|one| one.operation == operation);
        match found.map(|found| found.outcome) {
            None => assert!(!decisions.iter().any(|one| matches!(one, Decision::Allowed(_))), "{shown}"),
            Some(OperationOutcome::Allowed) => {
                assert!(decisions.iter().all(|one| matches!(one, Decision::Allowed(_))), "{shown}");
            }
            Some(OperationOutcome::Denied) => {
                assert!(decisions.iter().all(|one| matches!(one, Decision::Denied(_))), "{shown}");
            }
            Some(OperationOutcome::Conditional) => {
                assert!(kind.conditions, "{shown}");
                let names: BTreeSet<_> = decisions.iter().map(Decision::name).collect();
                assert!(names.len() > 1 || !kind.one_text, "{shown}");
            }
        }
        if let Some(found) = found {
            // Which one grants or denies may hang on the attributes: then it is one of those that do.
            let among = |id: Option<String>, of: fn(&Policy, Decision) -> Option<String>| {
                id.is_some() && decisions.iter().any(|decision| of(policy, *decision) == id)
            };
            match found.outcome {
                OperationOutcome::Allowed => {
                    assert!(among(Some(found.role_assignment_id.clone()), granting_id), "{shown}");
                    assert_eq!(found.deny_assignment_id, None);
                }
                OperationOutcome::Denied => {
                    assert!(among(found.deny_assignment_id.clone(), denying_id), "{shown}");
                }
                OperationOutcome::Conditional => {}
            }
        }
    }
    list.operations.iter().map(|one| one.outcome.name()).collect()
}

/// Who is listed against the decisions one by one; which kinds of list had somebody.
fn principals_agree(
    policy: &Policy,
    everybody: &BTreeSet<String>,
    action: &str,
    plane: Plane,
    scope: &str,
    kind: Kind,
) -> Vec<&'static str> {
    let (action, place) = (Action::parse(action).unwrap(), Scope::parse(scope).unwrap());
    let list = policy.list_principals(&PrincipalQuery { action, plane, scope: place }, now()).unwrap();
    let listed = list.principals.iter().map(|one| &one.id).chain(list.denied.iter().map(|one| &one.id));
    assert!(listed.into_iter().all(|id| everybody.contains(id)), "{list:?}");
    for id in everybody {
        let asked = request(id, &[], action.as_str(), plane, scope);
        let decisions = decisions(policy, &asked);
        let shown = format!("{asked:?}: {decisions:?}");
        let permitted = list.principals.iter().find(|one| one.id == *id);
        let denied = list.denied.iter().find(|one| one.id == *id);
        match (permitted, denied) {
            (Some(permitted), None) if permitted.conditional => {
                let names: BTreeSet<_> = decisions.iter().map(Decision::name).collect();
                assert!(kind.conditions && (names.len() > 1 || !kind.one_text), "{shown}");
            }
            (Some(permitted), None) => {
                for decision in &decisions {
                    let Decision::Allowed(grant) = decision else { panic!("{shown}") };
                    let id = policy.role_assignment_id(*grant);
                    let mut sure = permitted.through.iter().filter(|through| !through.conditional);
                    assert!(sure.any(|through| through.assignment.id == id) || kind.conditions, "{shown}");
                    assert!(permitted.through.iter().any(|through| through.assignment.id == id), "{shown}");
                }
                assert!(!permitted.through[0].conditional, "{shown}");
            }
            (None, Some(denied)) => {
                for decision in &decisions {
                    let Decision::Denied(hit) = decision else { panic!("{shown}") };
                    assert_eq!(denied.deny_assignment_id, policy.deny_assignment_id(*hit), "{shown}");
                }
            }
            (None, None) => {
                assert!(!decisions.iter().any(|one| matches!(one, Decision::Allowed(_))), "{shown}");
            }
            both => panic!("{both:?}"),
        }
        for decision in decisions {
            match decision {
                Decision::NotAllowed(Why::Eligible(eligibility)) => {
                    let wanted = policy.activation(eligibility).unwrap();
                    let found = list.eligible.iter().find(|one| one.id == *id && one.activation == wanted);
                    assert!(found.is_some(), "{shown}");
                }
                Decision::Denied(hit) => {
                    let wanted = policy.deny_assignment_id(hit);
                    assert!(list.denies.iter().any(|deny| deny.id == wanted), "{shown}");
                }
                _ => {}
            }
        }
    }
    [
        ("certain", list.principals.iter().any(|one| !one.conditional)),
        ("conditional", list.principals.iter().any(|one| one.conditional)),
        ("kept from it", !list.denied.is_empty()),
        ("eligible", !list.eligible.is_empty()),
    ]
    .into_iter()
    .filter_map(|(name, some)| some.then_some(name))
    .collect()
}

// === drawn policies ===

/// SplitMix64: small, always the same.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn some<T: Copy>(&mut self, most: usize, all: &[T]) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| self.of(all)).collect()
    }
}

const SUB: &str = "/subscriptions/11111111-1111-1111-1111-111111111111";
const OTHER_SUB: &str = "/subscriptions/22222222-2222-2222-2222-222222222222";
const CALLERS: [&str; 4] = ["alice", "bob", "carol", "a1b2c3d4-e5f6-4789-8abc-def012345678"];
const GROUPS: [&str; 4] = ["team", "crew", "c0ffee00-0000-4000-8000-00000000000a", "all"];
const EVERYONE: &str = "00000000-0000-0000-0000-000000000000";
const ACTIONS: [&str; 5] = ["A.B/c/read", "A.B/c/write", "A.B/c/d/read", "A.B/read", "C.D/e/read"];
const PATTERNS: [&str; 11] = [
    "*",
    "*/read",
    "A.B/*",
    "a.b/C/*",
    "A.B/*/read",
    "A.B/c/read",
    "a.b/c/READ",
    "A.B/c/write",
    "C.D/e/read",
    "*/write",
    "A.B/c/d/read",
];
const CONDITIONS: [&str; 8] = [
    "@Resource[a:n] NumericEquals 1",
    "!(ActionMatches{'*/read'}) OR @Resource[a:n] NumericEquals 2",
    "SubOperationMatches{'S'} AND Exists @Resource[a:n]",
    "NOT @Resource[a:n] NumericEquals 1",
    "ActionMatches{'A.B/c/*'}",
    "@Environment[UtcNow] DateTimeLessThan '1970-01-01T00:20:00Z'",
    "@Environment[UtcNow] DateTimeGreaterThan '1970-01-01T00:20:00Z' AND NOT Exists @Resource[a:n]",
    "@Resource[a:n] Equals 1",
];
/// Those that the attributes decide by themselves.
const DECIDING: usize = 3;

fn management_group(name: &str) -> String {
    format!("/providers/Microsoft.Management/managementGroups/{name}")
}

fn scopes() -> Vec<String> {
    let group = format!("{SUB}/resourceGroups/App");
    vec![
        "/".to_owned(),
        management_group("root"),
        management_group("corp"),
        management_group("sales"),
        SUB.to_owned(),
        format!("{group}/providers/A.B/c/x"),
        format!("{OTHER_SUB}/resourceGroups/App"),
        group,
    ]
}

fn targets() -> Vec<String> {
    let mut targets = scopes();
    targets.push(OTHER_SUB.to_owned());
    targets.push(format!("{SUB}/resourceGroups/app/providers/A.B/c/x/d/y"));
    targets.push(format!("{SUB}/resourcegroups/app2"));
    targets
}

struct Drawn {
    documents: Documents,
    kind: Kind,
}

fn drawn(rng: &mut Rng) -> Drawn {
    let texts_of = match rng.below(4) {
        0 => &CONDITIONS[..0],
        1 => {
            let one = rng.below(DECIDING);
            &CONDITIONS[one..=one]
        }
        _ => &CONDITIONS[..],
    };
    let kind = Kind { conditions: !texts_of.is_empty(), one_text: texts_of.len() == 1 };
    let conditioned = |rng: &mut Rng, one_in: usize| {
        if texts_of.is_empty() || !rng.one_in(one_in) { None } else { condition(rng.of(texts_of)) }
    };
    let block = |rng: &mut Rng| PermissionBlock {
        actions: texts(&rng.some(3, &PATTERNS)),
        not_actions: texts(&rng.some(1, &PATTERNS)),
        data_actions: texts(&rng.some(2, &PATTERNS)),
        not_data_actions: texts(&rng.some(1, &PATTERNS)),
        condition: conditioned(rng, 4),
        ..Default::default()
    };
    let anybody: Vec<&str> = CALLERS.into_iter().chain(GROUPS).collect();
    let scopes = scopes();
    let scope = |rng: &mut Rng| text(&scopes[rng.below(scopes.len())]);
    let role_ids = ["r0", "r1", "r2", "r3"];
    let mut documents = Documents {
        management_groups: [("root", None), ("corp", Some("root")), ("sales", Some("root"))]
            .into_iter()
            .map(|(name, parent)| ManagementGroup { name: text(name), parent: parent.map(text) })
            .collect(),
        subscriptions: vec![Subscription {
            id: text("11111111-1111-1111-1111-111111111111"),
            parent: text("corp"),
        }],
        ..Default::default()
    };
    for id in role_ids {
        let permissions = (0..=rng.below(2)).map(|_| block(rng)).collect();
        let (id, role_name) = (text(id), text(&format!("Role {id}")));
        documents.role_definitions.push(RoleDefinition { id, role_name, permissions, ..Default::default() });
    }
    for group in GROUPS {
        let members = rng.some(3, &anybody);
        documents.groups.push(Group { id: text(group), members: texts(&members), ..Default::default() });
    }
    for number in 0..rng.below(10) {
        documents.role_assignments.push(RoleAssignment {
            name: text(&format!("a{number}")),
            principal_id: text(rng.of(&anybody)),
            role_definition_id: text(rng.of(&role_ids)),
            scope: scope(rng),
            condition: conditioned(rng, 3),
            ..Default::default()
        });
    }
    let times = [Some(500), Some(900), Some(NOW), Some(1_100), Some(2_000), None];
    for number in 0..rng.below(8) {
        let at = |time: Option<i64>| time.map(|time| Spanned::new(second(time), Default::default()));
        let kind = rng.of(&[ScheduleKind::Active, ScheduleKind::Eligible]);
        let linked = rng.below(8);
        documents.schedules.push(Schedule {
            kind,
            name: text(&format!("s{number}")),
            principal_id: text(rng.of(&anybody)),
            role_definition_id: text(rng.of(&role_ids)),
            scope: scope(rng),
            start: at(rng.of(&times)),
            end: at(rng.of(&times)),
            condition: conditioned(rng, 3),
            linked_eligibility: (kind == ScheduleKind::Active).then(|| text(&format!("s{linked}"))),
            ..Default::default()
        });
    }
    for number in 0..rng.below(5) {
        let mut principals = rng.some(2, &anybody);
        if rng.one_in(3) {
            principals.push(EVERYONE);
        }
        documents.deny_assignments.push(DenyAssignment {
            name: text(&format!("d{number}")),
            deny_assignment_name: rng.one_in(2).then(|| text("Shown")),
            scope: scope(rng),
            principals: texts(&principals),
            exclude_principals: texts(&rng.some(1, &anybody)),
            permissions: (0..=rng.below(2)).map(|_| block(rng)).collect(),
            do_not_apply_to_child_scopes: rng.one_in(4),
            effect: if rng.one_in(4) { DenyEffect::Audit } else { DenyEffect::Enforced },
            condition: conditioned(rng, 3),
            ..Default::default()
        });
    }
    Drawn { documents, kind }
}

/// Whether what stands at one scope applies to another, by the text of the rule (semantics, section 1.6).
fn applies(at: &str, to: &str) -> bool {
    let (at, to) = (Scope::parse(at).unwrap(), Scope::parse(to).unwrap());
    let parent = |group: &str| if group == "root" { None } else { Some("root") };
    let mut group = match to.subscription() {
        Some(id) => id.starts_with("1111").then_some("corp"),
        None => to.management_group(),
    };
    let mut found = at.contains(&to);
    while let Some(name) = group {
        found |= Scope::parse(&management_group(name)).unwrap() == at;
        group = parent(name);
    }
    found
}

/// The subject's principals, by the text of the rule (semantics, section 1.5).
fn ids_of(documents: &Documents, principal: &str, groups: &[String]) -> BTreeSet<String> {
    let mut ids: BTreeSet<String> = groups.iter().cloned().collect();
    ids.insert(principal.to_owned());
    loop {
        let before = ids.len();
        for group in &documents.groups {
            if group.members.iter().any(|member| ids.contains(&member.value)) {
                ids.insert(group.id.value.clone());
            }
        }
        if ids.len() == before {
            return ids;
        }
    }
}

/// Name, scope, role and whether it holds now, of what is assigned to some principals.
fn held<'d>(documents: &'d Documents, ids: &BTreeSet<String>) -> Vec<(&'d str, &'d str, &'d str, bool)> {
    let mut held = Vec::new();
    for one in documents.role_assignments.iter().filter(|one| ids.contains(&one.principal_id.value)) {
        held.push((
            one.name.value.as_str(),
            one.scope.value.as_str(),
            one.role_definition_id.value.as_str(),
            true,
        ));
    }
    let open = |schedule: &Schedule| {
        schedule.start.as_ref().is_none_or(|start| start.value <= now())
            && schedule.end.as_ref().is_none_or(|end| now() < end.value)
    };
    let of_kind = |kind| documents.schedules.iter().filter(move |schedule| schedule.kind == kind);
    for one in of_kind(ScheduleKind::Active).filter(|one| ids.contains(&one.principal_id.value)) {
        let link = one.linked_eligibility.as_ref().unwrap();
        let eligibility = of_kind(ScheduleKind::Eligible).find(|other| other.name == *link);
        let holds = open(one) && eligibility.is_none_or(open);
        held.push((&one.name.value, &one.scope.value, &one.role_definition_id.value, holds));
    }
    held
}

fn covers(documents: &Documents, role: &str, action: &str, plane: Plane) -> bool {
    let any = |list: &[Spanned<String>]| {
        list.iter().any(|pattern| pattern_matches(&pattern.value, action, Wildcards::Collapse))
    };
    let role = documents.role_definitions.iter().find(|other| other.id.value == role).unwrap();
    role.permissions.iter().any(|block| match plane {
        Plane::Control => any(&block.actions) && !any(&block.not_actions),
        Plane::Data => any(&block.data_actions) && !any(&block.not_data_actions),
    })
}

fn last_segment(id: &str) -> &str {
    id.rsplit('/').next().unwrap()
}

/// What an explanation names is what the documents say, each once.
fn is_complete(documents: &Documents, asked: &CheckRequest<'_>, explanation: &Explanation) {
    let shown = format!("{asked:?}\n{}", written(explanation));
    let target = asked.scope.as_str();
    let groups: Vec<String> = asked.subject.groups.iter().map(str::to_owned).collect();
    let ids = ids_of(documents, &asked.subject.principal.to_string(), &groups);
    let principals: BTreeSet<&str> = explanation.principals.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(principals.len(), explanation.principals.len(), "{shown}");
    assert!(principals.iter().all(|id| ids.contains(*id)), "{shown}");
    let held = held(documents, &ids);
    let mut wanted: Vec<&str> =
        held.iter().filter(|(_, scope, ..)| applies(scope, target)).map(|(name, ..)| *name).collect();
    wanted.sort_unstable();
    let mut named: Vec<&str> =
        explanation.assignments.iter().map(|one| last_segment(&one.assignment.id)).collect();
    named.sort_unstable();
    assert_eq!(named, wanted, "{shown}");
    let mut wanted: Vec<&str> = documents
        .deny_assignments
        .iter()
        .filter(|deny| applies(&deny.scope.value, target))
        .map(|deny| deny.name.value.as_str())
        .collect();
    wanted.sort_unstable();
    let mut named: Vec<&str> = explanation.denies.iter().map(|deny| last_segment(&deny.id)).collect();
    named.sort_unstable();
    assert_eq!(named, wanted, "{shown}");
    if matches!(explanation.decision, Decision::NotAllowed(_)) {
        let target_scope = asked.scope;
        let mut wanted: Vec<&str> = held
            .iter()
            .filter(|(_, scope, role, holds)| {
                *holds
                    && Scope::parse(scope).unwrap() != target_scope
                    && applies(target, scope)
                    && covers(documents, role, asked.action.as_str(), asked.plane)
            })
            .map(|(name, ..)| *name)
            .collect();
        wanted.sort_unstable();
        let mut named: Vec<&str> = explanation
            .near_misses
            .iter()
            .filter_map(|miss| match miss {
                NearMiss::ScopeTooLow { assignment, .. } => Some(last_segment(&assignment.id)),
                _ => None,
            })
            .collect();
        named.sort_unstable();
        assert_eq!(named, wanted, "{shown}");
    }
}

#[test]
fn drawn_policies_are_explained_as_they_are_decided() {
    let mut rng = Rng(1);
    let (targets, contexts) = (targets(), every_context());
    let (mut seen, mut undecided) = (BTreeSet::new(), 0);
    for _ in 0..250 {
        let Drawn { documents, kind } = drawn(&mut rng);
        let policy = compile(&documents);
        for _ in 0..12 {
            let groups: Vec<String> = rng.some(2, &GROUPS).into_iter().map(str::to_owned).collect();
            let plane = rng.of(&[Plane::Control, Plane::Data]);
            let target = &targets[rng.below(targets.len())];
            let mut asked = request(rng.of(&CALLERS), &groups, rng.of(&ACTIONS), plane, target);
            let (resource, sub_operation) = &contexts[rng.below(contexts.len())];
            asked.attributes.resource = resource;
            asked.sub_operation = *sub_operation;
            let Some(explanation) = explain_agrees(&policy, &asked) else {
                undecided += 1;
                continue;
            };
            is_complete(&documents, &asked, &explanation);
            seen.insert(explanation.decision.reason_code().name().to_owned());
            let variant = |debug: String| debug.split([' ', '{', '(']).next().unwrap().to_owned();
            seen.extend(explanation.assignments.iter().map(|one| variant(format!("{:?}", one.outcome))));
            seen.extend(
                explanation
                    .denies
                    .iter()
                    .map(|one| format!("deny {}", variant(format!("{:?}", one.outcome)))),
            );
            seen.extend(explanation.near_misses.iter().map(|one| variant(format!("{one:?}"))));
        }
        let everybody = everybody(&documents);
        let operations: Vec<KnownOperation> = ACTIONS
            .into_iter()
            .flat_map(|name| {
                [Plane::Control, Plane::Data].map(|plane| KnownOperation { name: name.into(), plane })
            })
            .collect();
        for _ in 0..2 {
            let target = &targets[rng.below(targets.len())];
            let groups: Vec<String> = rng.some(1, &GROUPS).into_iter().map(str::to_owned).collect();
            let (caller, action) = (rng.of(&CALLERS), rng.of(&ACTIONS));
            let plane = rng.of(&[Plane::Control, Plane::Data]);
            if policy.evaluate(&request(caller, &groups, action, plane, target), now()).is_err() {
                continue;
            }
            let outcomes = permissions_agree(&policy, caller, &groups, target, Some(&operations), kind);
            let of_the_roles = permissions_agree(&policy, caller, &groups, target, None, kind);
            let lists = principals_agree(&policy, &everybody, action, plane, target, kind);
            let all = outcomes.into_iter().chain(of_the_roles).chain(lists);
            seen.extend(all.map(|name| format!("list {name}")));
        }
    }
    assert!(undecided > 20, "{undecided}");
    for wanted in [
        "ROLE_ASSIGNMENT",
        "NO_ROLE_ASSIGNMENT",
        "ACTION_NOT_GRANTED",
        "NOT_ACTIVE_NOW",
        "CONDITION_NOT_MET",
        "ELIGIBLE",
        "DENY_ASSIGNMENT",
        "Granted",
        "ConditionNotTrue",
        "ConditionUnusable",
        "OutsideWindow",
        "ExcludedBy",
        "WrongPlane",
        "NotCovered",
        "Eligible",
        "ScopeTooLow",
        "deny Hit",
        "deny NotToChildScopes",
        "deny NotForSubject",
        "deny ExcludedPrincipal",
        "deny NotCovered",
        "deny WrongPlane",
        "deny ExcludedBy",
        "deny ConditionFalse",
        "list Allowed",
        "list Conditional",
        "list Denied",
        "list certain",
        "list conditional",
        "list kept from it",
        "list eligible",
    ] {
        assert!(seen.contains(wanted), "never {wanted}: {seen:?}");
    }
}

// === by hand ===

fn role(id: &str, name: &str, blocks: Vec<PermissionBlock>) -> RoleDefinition {
    RoleDefinition { id: text(id), role_name: text(name), permissions: blocks, ..Default::default() }
}

fn actions(actions: &[&str], not_actions: &[&str]) -> PermissionBlock {
    PermissionBlock { actions: texts(actions), not_actions: texts(not_actions), ..Default::default() }
}

fn assignment(name: &str, principal: &str, role: &str, scope: &str) -> RoleAssignment {
    RoleAssignment {
        name: text(name),
        principal_id: text(principal),
        role_definition_id: text(role),
        scope: text(scope),
        ..Default::default()
    }
}

#[test]
fn every_outcome_reads_well() {
    let group = format!("{SUB}/resourceGroups/app");
    let vault = format!("{group}/providers/A.B/c/x");
    let at = |time: i64| Some(Spanned::new(second(time), Default::default()));
    let mut guarded = actions(&["*/write"], &[]);
    guarded.condition = condition("@Request[a:count] NumericLessThan 3");
    let schedule = Schedule {
        principal_id: text("alice"),
        role_definition_id: text("owner"),
        scope: text(SUB),
        ..Default::default()
    };
    let documents = Documents {
        role_definitions: vec![
            role("owner", "Owner", vec![actions(&["*"], &[])]),
            role("some", "Some", vec![actions(&["*"], &["A.B/*/write"]), guarded]),
            role("none", "None", vec![actions(&["*"], &["A.B/*", "a.b/c/*"])]),
        ],
        role_assignments: vec![
            RoleAssignment {
                condition: condition(
                    "!(ActionMatches{'*/write'}) OR (@Resource[a/tags:Project<$key_case_sensitive$>] StringEquals 'x' \
                     AND NOT Exists @Request[a:locked])",
                ),
                ..assignment("a1", "alice", "owner", &group)
            },
            assignment("a2", "team", "some", SUB),
            assignment("a3", "alice", "none", &group),
            assignment("a4", "alice", "owner", &format!("{vault}/d/below")),
            RoleAssignment { condition: condition("@Oops"), ..assignment("a5", "alice", "owner", "/") },
        ],
        schedules: vec![
            Schedule { name: text("s1"), start: at(100), end: at(900), ..schedule.clone() },
            Schedule {
                name: text("e1"),
                kind: ScheduleKind::Eligible,
                end: at(2_000),
                condition: condition("@Request[a:locked] BoolEquals true"),
                ..schedule.clone()
            },
            Schedule { name: text("e2"), kind: ScheduleKind::Eligible, end: at(5_000), ..schedule.clone() },
            Schedule { name: text("s2"), linked_eligibility: Some(text("e1")), end: at(3_000), ..schedule },
        ],
        groups: vec![Group { id: text("team"), members: texts(&["crew"]), ..Default::default() }],
        ..Default::default()
    };
    let policy = compile(&documents);
    let asserted = vec!["crew".to_owned(), "unheard-of".to_owned(), "crew".to_owned()];
    let mut asked = request("alice", &asserted, "A.B/c/write", Plane::Control, &vault);
    let json = serde_json::json!({"a/tags": {"Project": "y"}});
    let (resource, asked_for) = (
        Attributes::from_json(&json),
        Attributes::from_json(&serde_json::json!({"a:count": 5, "a:locked": false})),
    );
    asked.attributes.resource = &resource;
    asked.attributes.request = &asked_for;
    let explanation = explain_agrees(&policy, &asked).unwrap();
    assert_eq!(
        written(&explanation).replace(SUB, "SUB"),
        "\
principal alice: the subject
principal crew: asserted
principal unheard-of: asserted, not known
principal team: contains crew
role \"None\" of alice at SUB/resourceGroups/app: ExcludedBy { \
pattern: MatchedPattern { block: 0, list: \"actions\", pattern: \"*\" }, \
exclusion: MatchedPattern { block: 0, list: \"notActions\", pattern: \"A.B/*\" } }
role \"Owner\" of alice at SUB/resourceGroups/app: ConditionNotTrue { \
pattern: MatchedPattern { block: 0, list: \"actions\", pattern: \"*\" }, whose: Assignment, truth: False }
  Assignment: !(ActionMatches{'*/write'}) OR (@Resource[a/tags:Project<$key_case_sensitive$>] StringEquals 'x' \
AND NOT Exists @Request[a:locked])
    false: Or
      false: Not
        true: ActionMatches{'*/write'}
      false: And
        false: @Resource[a/tags:Project<$key_case_sensitive$>] StringEquals 'x'
          @Resource[a/tags:Project<$key_case_sensitive$>] is \"y\"
        false: Not
          true: Exists @Request[a:locked]
            @Request[a:locked] is false
role \"Owner\" of alice at SUB: OutsideWindow { \
pattern: MatchedPattern { block: 0, list: \"actions\", pattern: \"*\" } }
role \"Some\" of team at SUB: ConditionNotTrue { \
pattern: MatchedPattern { block: 1, list: \"actions\", pattern: \"*/write\" }, whose: Block { index: 1 }, \
truth: False }
  Block { index: 1 }: @Request[a:count] NumericLessThan 3
    false: @Request[a:count] NumericLessThan 3
      @Request[a:count] is 5
role \"Owner\" of alice at SUB: ConditionNotTrue { \
pattern: MatchedPattern { block: 0, list: \"actions\", pattern: \"*\" }, whose: Eligibility { \
id: \"SUB/providers/Microsoft.Authorization/roleEligibilitySchedules/e1\" }, truth: False }
  Eligibility { id: \"SUB/providers/Microsoft.Authorization/roleEligibilitySchedules/e1\" }: \
@Request[a:locked] BoolEquals true
    false: @Request[a:locked] BoolEquals true
      @Request[a:locked] is false
role \"Owner\" of alice at /: ConditionUnusable { \
pattern: MatchedPattern { block: 0, list: \"actions\", pattern: \"*\" }, whose: Assignment }
  Assignment: @Oops
    Unusable { why: \"unknown attribute source `@Oops`\" }
eligible \"Owner\" at SUB
too low: \"Owner\" at SUB/resourceGroups/app/providers/A.B/c/x/d/below through \"*\"
NotAllowed: nothing grants control-plane action A.B/c/write now, but role \"Owner\", which the subject may activate \
at SUB, would
"
    );
    let ended = explanation.assignments.iter().find(|one| one.assignment.id.ends_with("/s1")).unwrap();
    let window = ended.assignment.window.unwrap();
    assert_eq!((window.start, window.end), (Some(second(100)), Some(second(900))));
    let activated = explanation.assignments.iter().find(|one| one.assignment.id.ends_with("/s2")).unwrap();
    assert_eq!(activated.assignment.window.unwrap().end, Some(second(2_000)), "cut at its eligibility");
    let eligibility = format!("{SUB}/providers/Microsoft.Authorization/roleEligibilitySchedules/e1");
    assert_eq!(activated.assignment.eligibility_id.as_ref(), Some(&eligibility));
    assert_eq!(activated.conditions[0].whose, ConditionOwner::Eligibility { id: eligibility });
}

#[test]
fn near_misses_below_are_bounded_and_the_nearest_come_first() {
    let mut documents = Documents {
        role_definitions: vec![role("owner", "Owner", vec![actions(&["*"], &[])])],
        ..Default::default()
    };
    for number in 0..30 {
        let scope = format!("{SUB}/resourceGroups/g{number:02}/providers/A.B/c/x");
        documents.role_assignments.push(assignment(&format!("x{number}"), "alice", "owner", &scope));
    }
    documents.role_assignments.push(assignment("z", "alice", "owner", &format!("{SUB}/resourceGroups/zz")));
    documents.role_assignments.push(assignment("o", "alice", "owner", OTHER_SUB));
    let policy = compile(&documents);
    // Nothing stands at the subscription itself: it is found by its text.
    let explanation =
        policy.explain(&request("alice", &[], "A.B/c/read", Plane::Control, SUB), now()).unwrap();
    let names: Vec<&str> = explanation
        .near_misses
        .iter()
        .map(|miss| match miss {
            NearMiss::ScopeTooLow { assignment, .. } => last_segment(&assignment.id),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((names.len(), names[0], names[1], names[2]), (20, "z", "x0", "x1"));
    assert!(explanation.truncated);
}

#[test]
fn lists_are_bounded_and_say_so() {
    let mut documents = Documents {
        role_definitions: vec![role("owner", "Owner", vec![actions(&["*", "A.B/c/read"], &[])])],
        ..Default::default()
    };
    for number in 0..1_200 {
        documents.role_assignments.push(assignment(&format!("a{number:04}"), "alice", "owner", "/"));
        documents.role_assignments.push(assignment(
            &format!("b{number:04}"),
            &format!("u{number:04}"),
            "owner",
            "/",
        ));
    }
    let policy = compile(&documents);
    let asked = request("alice", &[], "A.B/c/read", Plane::Control, "/");
    let explanation = explain_agrees(&policy, &asked).unwrap();
    assert_eq!((explanation.assignments.len(), explanation.truncated), (1_000, true));
    let query = PermissionQuery { subject: asked.subject, scope: Scope::ROOT, operations: None };
    let list = policy.list_permissions(&query, now()).unwrap();
    assert_eq!((list.grants.len(), list.operations.len(), list.truncated), (1_000, 1, true));
    let query = PrincipalQuery { action: asked.action, plane: asked.plane, scope: Scope::ROOT };
    let list = policy.list_principals(&query, now()).unwrap();
    assert_eq!((list.principals.len(), list.truncated), (1_000, true));
    assert_eq!(list.principals[0].through.len(), 16);
}

/// The steps of a check are for all its conditions together; one that found none left is not said to grant.
#[test]
fn what_a_check_had_no_steps_for_is_told_as_too_costly() {
    let group = format!("{SUB}/resourceGroups/app");
    let mut too_costly = 0;
    for thousands in (50..200).step_by(25) {
        let sevens = vec![7; thousands * 1_000];
        let resource = Attributes::from_json(&serde_json::json!({"a:l": sevens}));
        let documents = Documents {
            role_definitions: vec![role("owner", "Owner", vec![actions(&["*"], &[])])],
            role_assignments: vec![
                RoleAssignment {
                    condition: condition("@Resource[a:l] ForAnyOfAnyValues:NumericEquals {1, 2}"),
                    ..assignment("a1", "alice", "owner", &group)
                },
                RoleAssignment {
                    condition: condition("@Resource[a:l] ForAllOfAnyValues:NumericEquals {7, 8}"),
                    ..assignment("a2", "alice", "owner", &group)
                },
                assignment("a3", "alice", "owner", SUB),
            ],
            ..Default::default()
        };
        let mut asked = request("alice", &[], "A.B/c/read", Plane::Control, &group);
        asked.attributes.resource = &resource;
        let explanation = explain_agrees(&compile(&documents), &asked).unwrap();
        let second = explanation.assignments.iter().find(|one| one.assignment.id.ends_with("/a2")).unwrap();
        let mut alone = documents.clone();
        alone.role_assignments.remove(0);
        let alone = compile(&alone).evaluate(&asked, now()).unwrap().decision;
        let Decision::Allowed(alone) = alone else { panic!("{alone:?}") };
        if let AssignmentOutcome::ConditionTooCostly { .. } = second.outcome {
            assert!(matches!(second.conditions[0].outcome, ConditionOutcome::TooCostly));
            // Without the one before it, it would have granted.
            too_costly += usize::from(alone.assignment() > 0);
        }
    }
    assert!(too_costly > 0, "a size between that is too much for both and for one");
}

#[test]
fn permissions_show_patterns_block_by_block() {
    let mut guarded = actions(&["C.D/*"], &[]);
    guarded.condition = condition("@Oops");
    guarded.data_actions = texts(&["b/read", "A/read"]);
    let documents = Documents {
        role_definitions: vec![role(
            "r",
            "R",
            vec![actions(&["a.b/*", "A.B/c/read"], &["A.B/c/write"]), guarded],
        )],
        role_assignments: vec![RoleAssignment {
            condition: condition("Exists @Resource[a:n]"),
            ..assignment("a1", "alice", "r", SUB)
        }],
        deny_assignments: vec![DenyAssignment {
            name: text("d1"),
            deny_assignment_name: Some(text("Watch")),
            scope: text("/"),
            principals: texts(&["alice"]),
            permissions: vec![actions(&["*/read"], &[])],
            effect: DenyEffect::Audit,
            ..Default::default()
        }],
        ..Default::default()
    };
    let subject = Subject { principal: PrincipalId::new("alice"), groups: Groups::NONE };
    let query = PermissionQuery { subject, scope: Scope::parse(SUB).unwrap(), operations: None };
    let list = compile(&documents).list_permissions(&query, now()).unwrap();
    let [grant] = list.grants.as_slice() else { panic!("{list:?}") };
    assert_eq!(grant.conditions, ["Exists @Resource[a:n]"]);
    assert_eq!(grant.blocks[0].actions, ["a.b/*", "A.B/c/read"]);
    assert_eq!(grant.blocks[0].not_actions, ["A.B/c/write"]);
    assert_eq!(grant.blocks[1].data_actions, ["A/read", "b/read"]);
    assert_eq!(grant.blocks[1].condition.as_deref(), Some("@Oops"));
    assert_eq!((grant.unusable, grant.blocks[0].unusable, grant.blocks[1].unusable), (false, false, true));
    assert_eq!((list.denies[0].name.as_deref(), list.denies[0].effect), (Some("Watch"), DenyEffect::Audit));
    let operations: Vec<_> =
        list.operations.iter().map(|one| (one.operation.name.as_str(), one.outcome)).collect();
    assert_eq!(operations, [("A.B/c/read", OperationOutcome::Conditional)]);
}
