//! Tests of the compiled policy as a whole. The rules of the model are data in `tests/cases`; here is what data
//! cannot say: bytes, names, memo, damage.

use super::*;
use crate::model::{
    Action, DenyAssignment, Group, ManagementGroup, PermissionBlock, Plane, PrincipalId, RoleAssignment,
    RoleDefinition, Scope, Spanned, Subject, Subscription, Why,
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
        Subject { principal: PrincipalId::new(principal), groups: &[] },
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
    let whole = compile(&documents).opened.borrow_owner().to_vec();
    let target = format!("{SUB}/resourceGroups/app/providers/A.B/c/d");
    for position in 0..whole.len() {
        for flip in [0x01, 0x80, 0xFF] {
            let mut damaged = whole.clone();
            damaged[position] ^= flip;
            let Ok(policy) = Policy::open(damaged.into_boxed_slice()) else { continue };
            for principal in ["alice", "bob"] {
                let asked = request(principal, "A.B/c/delete", &target);
                if let Ok(Evaluation { decision, .. }) = policy.evaluate(&asked, Timestamp::UNIX_EPOCH) {
                    let _ = policy.reason(&asked, &decision);
                    if let Decision::Allowed(grant) = decision {
                        let _ = (policy.role_assignment_id(grant), policy.role_definition_id(grant));
                    }
                }
            }
        }
    }
}
