//! Tests of the compiled policy as a whole. The rules of the model are data in `tests/cases`; here is what data
//! cannot say: bytes, names, memo, damage.

use super::*;
use crate::model::{
    Action, ActivationPolicy, ActivationRequirements, Attributes, ConditionText, DenyAssignment, Group,
    Groups, ManagementGroup, PermissionBlock, PermissionQuery, Plane, PrincipalId, PrincipalQuery,
    RoleAssignment, RoleDefinition, Schedule, ScheduleKind, ScheduleShape, Scope, Spanned, Subject,
    Subscription, Why,
};
use jiff::Timestamp;

const SUB: &str = "/subscriptions/11111111-1111-1111-1111-111111111111";
const SUB_ID: &str = "11111111-1111-1111-1111-111111111111";
const READER: &str = "acdd72a7-3385-48ef-bd42-f606fba81ae7";
const OWNER: &str = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635";

fn text(value: &str) -> Spanned<String> {
    Spanned::new(value.to_owned(), Default::default())
}

fn role(id: &str, name: &str, actions: &[&str]) -> RoleDefinition {
    RoleDefinition {
        id: text(id),
        role_name: text(name),
        permissions: vec![PermissionBlock {
            actions: actions.iter().map(|action| text(action)).collect(),
            ..Default::default()
        }],
        assignable_scopes: vec![text("/")],
        ..Default::default()
    }
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

fn documents() -> Documents {
    Documents {
        role_definitions: vec![role(READER, "Reader", &["*/read"]), role(OWNER, "Owner", &["*"])],
        role_assignments: vec![
            assignment("a1", "alice", READER, SUB),
            assignment("a2", "team", OWNER, &format!("{SUB}/resourceGroups/App")),
            assignment("a3", "alice", READER, &format!("{SUB}/resourceGroups/App")),
        ],
        groups: vec![Group { id: text("team"), members: vec![text("bob")], ..Default::default() }],
        ..Default::default()
    }
}

fn compile(documents: &Documents) -> Policy {
    Policy::compile(documents, CompileOptions::default()).unwrap()
}

fn request<'a>(principal: &'a str, action: &'a str, scope: &'a str) -> CheckRequest<'a> {
    CheckRequest::new(
        Subject { principal: PrincipalId::new(principal), groups: Groups::NONE },
        Action::parse(action).unwrap(),
        Plane::Control,
        Scope::parse(scope).unwrap(),
    )
}

#[test]
fn the_order_of_documents_does_not_change_the_bytes() {
    let forwards = documents();
    let mut backwards = documents();
    backwards.role_definitions.reverse();
    backwards.role_assignments.reverse();
    backwards.role_assignments.push(forwards.role_assignments[0].clone());
    assert_eq!(compile(&forwards).digest(), compile(&backwards).digest());
    backwards.role_assignments.remove(0);
    assert_ne!(compile(&forwards).digest(), compile(&backwards).digest());
}

#[test]
fn names_what_decided_in_the_letter_case_of_the_documents() {
    let policy = compile(&documents());
    let target = format!("{SUB}/resourcegroups/APP/providers/A.B/c/d");
    let asked = request("bob", "A.B/c/write", &target);
    let decision = policy.evaluate(&asked, Timestamp::UNIX_EPOCH).unwrap().decision;
    let Decision::Allowed(grant) = decision else { panic!("{decision:?}") };
    assert_eq!(policy.role_assignment_name(grant), "a2");
    assert_eq!(
        policy.role_assignment_id(grant),
        format!("{SUB}/resourceGroups/App/providers/Microsoft.Authorization/roleAssignments/a2")
    );
    assert_eq!(
        policy.role_definition_id(grant),
        format!("/providers/Microsoft.Authorization/roleDefinitions/{OWNER}")
    );
    assert_eq!(policy.role_name(grant), "Owner");
    assert_eq!(
        policy.reason(&asked, &decision),
        format!(
            "role \"Owner\", assigned to its group team at {SUB}/resourceGroups/App, grants control-plane action \
             A.B/c/write"
        )
    );
    let asked = request("alice", "A.B/c/read", &target);
    let decision = policy.evaluate(&asked, Timestamp::UNIX_EPOCH).unwrap().decision;
    assert!(policy.reason(&asked, &decision).contains("assigned to the subject at"), "{decision:?}");
}

#[test]
fn says_why_nothing_grants() {
    let policy = compile(&documents());
    let why = |asked: &CheckRequest<'_>| match policy.evaluate(asked, Timestamp::UNIX_EPOCH).unwrap().decision
    {
        Decision::NotAllowed(why) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(&request("alice", "A.B/c/write", SUB)), Why::ActionNotGranted);
    assert_eq!(why(&request("alice", "A.B/c/read", "/")), Why::NoRoleAssignment);
    assert_eq!(why(&request("nobody", "A.B/c/read", SUB)), Why::NoRoleAssignment);
}

#[test]
fn a_deny_at_a_management_group_needs_the_hierarchy() {
    let mut documents = documents();
    documents.deny_assignments.push(DenyAssignment {
        name: text("d1"),
        scope: text("/providers/Microsoft.Management/managementGroups/corp"),
        principals: vec![text("00000000-0000-0000-0000-000000000000")],
        permissions: role("x", "x", &["*/delete"]).permissions,
        ..Default::default()
    });
    let policy = compile(&documents);
    let unknown = Undecided::UnknownHierarchy { holder: format!("subscription `{SUB_ID}`") };
    assert_eq!(policy.evaluate(&request("alice", "A.B/c/read", SUB), Timestamp::UNIX_EPOCH), Err(unknown));
    assert!(
        policy.evaluate(&request("alice", "A.B/c/read", "/"), Timestamp::UNIX_EPOCH).is_ok(),
        "lies in no management group"
    );

    documents.subscriptions.push(Subscription { id: text(SUB_ID), parent: text("team") });
    let asked = request("alice", "A.B/c/read", SUB);
    assert!(
        compile(&documents).evaluate(&asked, Timestamp::UNIX_EPOCH).is_err(),
        "nobody says what team hangs in"
    );
    documents.management_groups.push(ManagementGroup { name: text("Team"), parent: Some(text("root")) });
    assert!(
        compile(&documents).evaluate(&asked, Timestamp::UNIX_EPOCH).is_err(),
        "nobody says what root hangs in"
    );
    documents.management_groups.push(ManagementGroup { name: text("root"), parent: None });
    assert!(
        compile(&documents).evaluate(&asked, Timestamp::UNIX_EPOCH).is_ok(),
        "known to the top, and corp is not on the way"
    );

    documents.management_groups.clear();
    documents.subscriptions = vec![Subscription { id: text(SUB_ID), parent: text("CORP") }];
    let policy = compile(&documents);
    assert!(matches!(
        policy.evaluate(&request("alice", "A.B/c/read", SUB), Timestamp::UNIX_EPOCH).unwrap().decision,
        Decision::Allowed(_)
    ));
    let asked = request("alice", "A.B/c/delete", SUB);
    let decision = policy.evaluate(&asked, Timestamp::UNIX_EPOCH).unwrap().decision;
    let Decision::Denied(hit) = decision else { panic!("{decision:?}") };
    assert_eq!(
        policy.deny_assignment_id(hit),
        "/providers/Microsoft.Management/managementGroups/corp/providers/Microsoft.Authorization/denyAssignments/d1"
    );
    assert!(policy.reason(&asked, &decision).starts_with("deny assignment d1 at /providers/"));

    documents.deny_assignments[0].do_not_apply_to_child_scopes = true;
    documents.subscriptions.clear();
    assert!(
        compile(&documents).evaluate(&request("alice", "A.B/c/read", SUB), Timestamp::UNIX_EPOCH).is_ok(),
        "cannot reach it anyway"
    );
}

#[test]
fn refuses_what_cannot_be_compiled_all_at_once() {
    let mut documents = documents();
    documents.role_assignments.push(assignment("a4", "alice", "no-such-role", SUB));
    documents.role_assignments.push(assignment("a5", "alice", READER, "nowhere"));
    documents.role_assignments.push(assignment("a6", "alice", READER, "/providers/microsoft.management"));
    for (name, parent) in [("one", "two"), ("two", "one")] {
        documents.management_groups.push(ManagementGroup { name: text(name), parent: Some(text(parent)) });
    }
    documents.subscriptions.push(Subscription { id: text("dev"), parent: text("one") });
    let problems = Policy::compile(&documents, CompileOptions::default()).unwrap_err();
    let mut codes: Vec<_> = problems.iter().map(|problem| problem.code).collect();
    codes.sort_unstable();
    let expected = [
        "HierarchyCycle",
        "InvalidScope",
        "InvalidScope",
        "InvalidSubscription",
        "RoleDefinitionDoesNotExist",
    ];
    assert_eq!(codes, expected);
}

#[test]
fn the_action_memo_keeps_each_action_once_and_is_bounded() {
    let policy = compile(&documents());
    for action in ["A.B/c/read", "a.b/C/READ", "A.B/c/write"] {
        policy.evaluate(&request("alice", action, SUB), Timestamp::UNIX_EPOCH).unwrap();
    }
    assert_eq!(policy.actions.len(), 2, "letter case does not matter");
    for number in 0..60_000 {
        policy
            .evaluate(&request("alice", &format!("A.B/c{number}/read"), SUB), Timestamp::UNIX_EPOCH)
            .unwrap();
    }
    assert!(policy.actions.len() < 60_000, "{}", policy.actions.len());
}

#[test]
fn targets_deeper_than_any_known_scope_are_located() {
    let policy = compile(&documents());
    let deep = format!("{SUB}/resourceGroups/app/providers/A.B/c/d{}", "/x".repeat(400));
    let decision =
        policy.evaluate(&request("bob", "A.B/c/write", &deep), Timestamp::UNIX_EPOCH).unwrap().decision;
    assert!(matches!(decision, Decision::Allowed(_)), "{decision:?}");
}

// --- conditions and time ---

const STORAGE: &str = "ba92f5b4-2d11-453d-a403-e96b0029c9fe";

fn condition(text: &str) -> Option<ConditionText> {
    Some(ConditionText { text: self::text(text), version: Some(self::text("2.0")) })
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn schedule(kind: ScheduleKind, name: &str, window: (Option<i64>, Option<i64>)) -> Schedule {
    let at = |time: Option<i64>| time.map(|time| Spanned::new(second(time), Default::default()));
    Schedule {
        kind,
        name: text(name),
        principal_id: text("carol"),
        role_definition_id: text(OWNER),
        scope: text(SUB),
        start: at(window.0),
        end: at(window.1),
        ..Default::default()
    }
}

/// Decision and `valid_until` at a second.
fn at(policy: &Policy, request: &CheckRequest<'_>, now: i64) -> (Decision, Option<i64>) {
    let evaluation = policy.evaluate(request, second(now)).unwrap();
    (evaluation.decision, evaluation.valid_until.map(Timestamp::as_second))
}

fn why(policy: &Policy, request: &CheckRequest<'_>, now: i64) -> (&'static str, Option<i64>) {
    let (decision, until) = at(policy, request, now);
    (decision.reason_code().name(), until)
}

#[test]
fn a_schedule_grants_within_its_window_only() {
    let mut documents = documents();
    documents.schedules.push(schedule(ScheduleKind::Active, "s1", (Some(100), Some(200))));
    let policy = compile(&documents);
    assert!(policy.depends_on_time());
    let asked = request("carol", "A.B/c/write", SUB);
    assert_eq!(why(&policy, &asked, 99), ("NOT_ACTIVE_NOW", Some(100)));
    assert_eq!(why(&policy, &asked, 100), ("ROLE_ASSIGNMENT", Some(200)), "the start is included");
    assert_eq!(why(&policy, &asked, 200), ("NOT_ACTIVE_NOW", None), "the end is excluded");
    let Decision::Allowed(grant) = at(&policy, &asked, 150).0 else { panic!("allowed") };
    assert_eq!(
        policy.role_assignment_id(grant),
        format!("{SUB}/providers/Microsoft.Authorization/roleAssignmentSchedules/s1")
    );
}

#[test]
fn valid_until_passes_over_what_does_not_change_the_answer() {
    let mut documents = documents();
    let schedules = [(0, 100), (50, 150), (150, 300), (400, 500)];
    for (number, (start, end)) in schedules.into_iter().enumerate() {
        let name = "same-name-for-all".to_owned();
        let window = (Some(start), Some(end));
        documents.schedules.push(Schedule {
            // The same assignment in several windows: which of them grants cannot be told apart by its name.
            origin_role_assignment: Some(text(&name)),
            ..schedule(ScheduleKind::Active, &format!("s{number}"), window)
        });
    }
    let policy = compile(&documents);
    let asked = request("carol", "A.B/c/write", SUB);
    assert_eq!(why(&policy, &asked, 300), ("NOT_ACTIVE_NOW", Some(400)));
    assert_eq!(why(&policy, &asked, 10).0, "ROLE_ASSIGNMENT");
    let alice = request("alice", "A.B/c/read", SUB);
    assert_eq!(why(&policy, &alice, 10), ("ROLE_ASSIGNMENT", None), "nothing of alice's ends");
}

#[test]
fn an_activation_ends_with_its_eligibility_and_inherits_its_condition() {
    let mut documents = documents();
    documents.schedules.push(Schedule {
        condition: condition("@Resource[a:n] NumericEquals 1"),
        ..schedule(ScheduleKind::Eligible, "e1", (Some(0), Some(150)))
    });
    documents.schedules.push(Schedule {
        linked_eligibility: Some(text("e1")),
        ..schedule(ScheduleKind::Active, "s1", (Some(100), Some(200)))
    });
    let policy = compile(&documents);
    let one = Attributes::from_json(&serde_json::json!({"a:n": 1}));
    let mut asked = request("carol", "A.B/c/write", SUB);
    assert_eq!(why(&policy, &asked, 120).0, "CONDITION_NOT_MET");
    asked.attributes.resource = &one;
    assert_eq!(why(&policy, &asked, 99), ("ELIGIBLE", Some(100)));
    assert_eq!(why(&policy, &asked, 120), ("ROLE_ASSIGNMENT", Some(150)), "cut at the eligibility's end");
    assert_eq!(why(&policy, &asked, 150).0, "NOT_ACTIVE_NOW");

    documents.schedules[0].status = Some(text("Revoked"));
    let policy = compile(&documents);
    assert_eq!(why(&policy, &asked, 120).0, "NO_ROLE_ASSIGNMENT", "ended with its eligibility");
}

#[test]
fn a_role_assignment_that_a_schedule_stands_behind_lasts_as_long_as_that() {
    let mut documents = documents();
    documents.role_assignments.push(assignment("a9", "carol", OWNER, SUB));
    documents.schedules.push(Schedule {
        origin_role_assignment: Some(text("a9")),
        shape: ScheduleShape::Instance,
        ..schedule(ScheduleKind::Active, "i1", (None, Some(200)))
    });
    let policy = compile(&documents);
    let asked = request("carol", "A.B/c/write", SUB);
    assert_eq!(why(&policy, &asked, 199), ("ROLE_ASSIGNMENT", Some(200)));
    assert_eq!(why(&policy, &asked, 200).0, "NOT_ACTIVE_NOW");
    let Decision::Allowed(grant) = at(&policy, &asked, 0).0 else { panic!("allowed") };
    assert_eq!(policy.role_assignment_name(grant), "a9");
    assert_eq!(policy.counts().role_assignments, 4);
}

#[test]
fn eligible_says_what_activation_takes() {
    let mut documents = documents();
    documents.schedules.push(schedule(ScheduleKind::Eligible, "e1", (None, Some(500))));
    documents.activation_policies.push(ActivationPolicy {
        scope: text(SUB),
        role_definition_id: text(OWNER),
        requirements: ActivationRequirements {
            maximum_duration: Some("PT8H".into()),
            mfa: true,
            approval: true,
            approvers: vec!["dave".into()],
            ..Default::default()
        },
        ..Default::default()
    });
    let policy = compile(&documents);
    let below = format!("{SUB}/resourceGroups/App");
    let asked = request("carol", "A.B/c/write", &below);
    let Decision::NotAllowed(Why::Eligible(eligibility)) = at(&policy, &asked, 0).0 else {
        panic!("eligible")
    };
    let activation = policy.activation(eligibility).unwrap();
    assert_eq!((activation.role_name.as_str(), activation.scope.as_str()), ("Owner", SUB));
    assert_eq!(activation.eligible_until, Some(second(500)));
    assert_eq!(activation.requirements.as_ref(), Some(&documents.activation_policies[0].requirements));
    assert!(policy.eligibility_id(eligibility).ends_with("/roleEligibilitySchedules/e1"));
    assert_eq!(
        policy.reason(&asked, &at(&policy, &asked, 0).0),
        format!(
            "nothing grants control-plane action A.B/c/write now, but role \"Owner\", which the subject may activate \
         at {SUB}, would"
        )
    );
    assert_eq!(why(&policy, &asked, 499), ("ELIGIBLE", Some(500)));
    assert_eq!(why(&policy, &asked, 500), ("NO_ROLE_ASSIGNMENT", None));
}

#[test]
fn conditions_narrow_assignments_roles_and_denies() {
    let mut documents = documents();
    documents.role_assignments[0].condition = condition("@Resource[a:n] NumericEquals 1");
    documents.role_definitions[1].permissions.push(PermissionBlock {
        data_actions: vec![text("A.B/*")],
        condition: condition("@Resource[a:n] NumericEquals 2"),
        ..Default::default()
    });
    documents.deny_assignments.push(DenyAssignment {
        name: text("d1"),
        scope: text(SUB),
        principals: vec![text("alice")],
        permissions: role("x", "x", &["*/read"]).permissions,
        condition: condition("@Resource[a:n] NumericEquals 9 OR NOT Exists @Resource[a:n]"),
        ..Default::default()
    });
    let policy = compile(&documents);
    assert!(policy.uses().contains(Uses::RESOURCE) && !policy.uses().contains(Uses::REQUEST));
    let number = |number: i64| Attributes::from_json(&serde_json::json!({"a:n": number}));
    let bags: Vec<_> = (0..10).map(number).collect();
    let with = |bag: usize| {
        let mut asked = request("alice", "A.B/c/read", SUB);
        asked.attributes.resource = &bags[bag];
        why(&policy, &asked, 0).0
    };
    assert_eq!((with(1), with(2), with(9)), ("ROLE_ASSIGNMENT", "CONDITION_NOT_MET", "DENY_ASSIGNMENT"));
    assert_eq!(why(&policy, &request("alice", "A.B/c/read", SUB), 0).0, "DENY_ASSIGNMENT");

    let group = format!("{SUB}/resourceGroups/App");
    let mut data = request("bob", "A.B/c/read", &group);
    data.plane = Plane::Data;
    assert_eq!(why(&policy, &data, 0).0, "CONDITION_NOT_MET");
    data.attributes.resource = &bags[2];
    assert_eq!(why(&policy, &data, 0).0, "ROLE_ASSIGNMENT");
}

#[test]
fn a_condition_that_cannot_be_used_grants_nothing_and_denies() {
    for (text, version) in [("@Resource[a:n] Equals 1", "2.0"), ("@Resource[a:n] NumericEquals 1", "1.0")] {
        let mut documents = documents();
        let unusable = Some(ConditionText { text: self::text(text), version: Some(self::text(version)) });
        documents.role_assignments[0].condition = unusable.clone();
        let one = Attributes::from_json(&serde_json::json!({"a:n": 1}));
        let mut asked = request("alice", "A.B/c/read", SUB);
        asked.attributes.resource = &one;
        assert_eq!(why(&compile(&documents), &asked, 0).0, "CONDITION_NOT_MET");
        documents.deny_assignments.push(DenyAssignment {
            name: self::text("d1"),
            scope: self::text(SUB),
            principals: vec![self::text("alice")],
            permissions: role("x", "x", &["*/read"]).permissions,
            condition: unusable,
            ..Default::default()
        });
        assert_eq!(why(&compile(&documents), &asked, 0).0, "DENY_ASSIGNMENT");
    }
}

#[test]
fn guid_operators_do_not_work_on_roles_with_storage_data_actions() {
    let mut documents = documents();
    let mut storage = role(STORAGE, "Storage", &["*/read"]);
    storage.permissions[0].data_actions = vec![text("microsoft.storage/x/*")];
    documents.role_definitions.push(storage);
    documents.role_definitions.push(role("plain", "Plain", &["*/read"]));
    for (name, role) in [("a8", STORAGE), ("a9", "plain")] {
        documents.role_assignments.push(RoleAssignment {
            condition: condition("NOT @Resource[a:g] GuidEquals '00000000-0000-0000-0000-000000000001'"),
            ..assignment(name, role, role, SUB)
        });
    }
    let policy = compile(&documents);
    let guid = Attributes::from_json(&serde_json::json!({"a:g": "00000000-0000-0000-0000-000000000002"}));
    let ask = |principal| {
        let mut asked = request(principal, "A.B/c/read", SUB);
        asked.attributes.resource = &guid;
        why(&policy, &asked, 0).0
    };
    assert_eq!((ask(STORAGE), ask("plain")), ("CONDITION_NOT_MET", "ROLE_ASSIGNMENT"));
}

#[test]
fn conditions_that_cost_too_much_leave_the_request_undecided() {
    let mut documents = documents();
    let costly = "@Resource[a:s] StringLike '*a*a*a*a*a*a*a*a*b'";
    documents.role_assignments[0].condition = condition(costly);
    let long = Attributes::from_json(&serde_json::json!({"a:s": "a".repeat(2_000_000)}));
    let mut asked = request("alice", "A.B/c/read", SUB);
    asked.attributes.resource = &long;
    let policy = compile(&documents);
    assert_eq!(policy.evaluate(&asked, second(0)), Err(Undecided::ConditionsTooCostly));
    documents.role_assignments.push(assignment("a0", "alice", READER, SUB));
    let decision = compile(&documents).evaluate(&asked, second(0)).unwrap().decision;
    assert!(matches!(decision, Decision::Allowed(_)), "what grants without it decides");
}

#[test]
fn the_report_names_the_most_specific_scope_then_what_has_no_condition() {
    let mut documents = documents();
    let group = format!("{SUB}/resourceGroups/App");
    documents.role_assignments = vec![
        RoleAssignment {
            condition: condition("true BoolEquals true"),
            ..assignment("a1", "alice", READER, &group)
        },
        assignment("a2", "alice", READER, &group),
        assignment("a0", "alice", READER, SUB),
    ];
    let granted = |documents: &Documents| {
        let policy = compile(documents);
        let Decision::Allowed(grant) = at(&policy, &request("alice", "A.B/c/read", &group), 0).0 else {
            panic!("allowed")
        };
        policy.role_assignment_name(grant)
    };
    documents.role_assignments[0].condition = condition("NOT Exists @Resource[a:n]");
    assert_eq!(granted(&documents), "a2");
    documents.role_assignments.remove(1);
    assert_eq!(granted(&documents), "a1", "conditioned, but more specific");
}

/// Whatever bytes change, evaluation answers or says "undecided": it never panics and never runs for ever.
#[test]
fn a_damaged_buffer_never_panics() {
    let mut documents = documents();
    documents.deny_assignments.push(DenyAssignment {
        name: text("d1"),
        scope: text(SUB),
        principals: vec![text("alice")],
        exclude_principals: vec![text("team")],
        permissions: role("x", "x", &["*/delete"]).permissions,
        ..Default::default()
    });
    documents.deny_assignments[0].condition = condition("NOT Exists @Resource[a:n]");
    documents.role_assignments[0].condition =
        condition("@Environment[UtcNow] DateTimeLessThan '2026-01-01T00:00:00Z'");
    documents.schedules.push(Schedule {
        linked_eligibility: Some(text("e1")),
        ..schedule(ScheduleKind::Active, "s1", (Some(100), Some(200)))
    });
    documents.schedules.push(schedule(ScheduleKind::Eligible, "e1", (None, None)));
    documents.activation_policies.push(ActivationPolicy {
        scope: text(SUB),
        role_definition_id: text(OWNER),
        requirements: ActivationRequirements { approvers: vec!["dave".into()], ..Default::default() },
        ..Default::default()
    });
    let whole = compile(&documents).bytes().to_vec();
    let target = format!("{SUB}/resourceGroups/app/providers/A.B/c/d");
    // Explanations take longer, so they see fewer of the damages.
    for (position, principal) in
        (0..whole.len()).step_by(3).zip(["alice", "bob", "carol"].into_iter().cycle())
    {
        let mut damaged = whole.clone();
        damaged[position] ^= 0xFF;
        let Ok(policy) = Policy::open(damaged, None) else { continue };
        let asked = request(principal, "A.B/c/delete", &target);
        let CheckRequest { action, plane, scope, subject, .. } = asked;
        let _ = policy.explain(&asked, second(150));
        let _ = policy.list_permissions(&PermissionQuery { subject, scope, operations: None }, second(150));
        let _ = policy.list_principals(&PrincipalQuery { action, plane, scope }, second(150));
    }
    for position in 0..whole.len() {
        for flip in [0x01, 0x80, 0xFF] {
            let mut damaged = whole.clone();
            damaged[position] ^= flip;
            let Ok(policy) = Policy::open(damaged, None) else { continue };
            for principal in ["alice", "bob", "carol"] {
                let asked = request(principal, "A.B/c/delete", &target);
                if let Ok(Evaluation { decision, .. }) = policy.evaluate(&asked, Timestamp::UNIX_EPOCH) {
                    let _ = policy.reason(&asked, &decision);
                    match decision {
                        Decision::Allowed(grant) => {
                            let _ = (policy.role_assignment_id(grant), policy.role_definition_id(grant));
                        }
                        Decision::NotAllowed(Why::Eligible(eligibility)) => {
                            let _ = policy.activation(eligibility);
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}
