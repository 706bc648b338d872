//! The rules of writes: the examples of the reference, and tables for what they leave out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

#[allow(dead_code, reason = "others use the rest")]
#[path = "common/fields.rs"]
mod fields;

use postern::authoring::{
    Deleted, DenyRequest, Effect, Existing, Findings, Hierarchy, Judge, Limits, Origin,
};
use postern::model::{
    At, ConditionText, DenyAssignment, Documents, ManagementGroup, PermissionBlock, Problem, Problems,
    RoleAssignment, RoleDefinition, Schedule, ScheduleKind, ScheduleShape, Scope, Severity, SourceFile,
    Spanned, Subscription,
};
use serde_json::Value;

use fields::Fields;

fn judge() -> Judge<'static> {
    Judge::default()
}

fn text(value: impl Into<String>) -> Spanned<String> {
    Spanned::new(value.into(), At::default())
}

// === the examples ===

fn condition(text: Option<Spanned<String>>, version: Option<Spanned<String>>) -> Option<ConditionText> {
    text.map(|text| ConditionText { text, version })
}

fn texts(fields: &mut Fields<'_>, name: &str) -> Vec<Spanned<String>> {
    fields.texts(name).into_iter().map(text).collect()
}

fn role_assignment(id: &str, value: &Value) -> RoleAssignment {
    let mut fields = Fields::new(id, value);
    let body = RoleAssignment {
        at: At::default(),
        name: text(fields.must("name")),
        scope: text(fields.must("scope")),
        role_definition_id: text(fields.must("roleDefinitionId")),
        principal_id: text(fields.must("principalId")),
        principal_type: fields.text("principalType").map(text),
        description: fields.text("description").map(text),
        condition: condition(fields.text("condition").map(text), fields.text("conditionVersion").map(text)),
    };
    fields.end();
    body
}

fn permissions(id: &str, fields: &mut Fields<'_>) -> Vec<PermissionBlock> {
    let entry = |value| {
        let mut fields = Fields::new(id, value);
        let entry = PermissionBlock {
            at: At::default(),
            actions: texts(&mut fields, "actions"),
            not_actions: texts(&mut fields, "notActions"),
            data_actions: texts(&mut fields, "dataActions"),
            not_data_actions: texts(&mut fields, "notDataActions"),
            condition: None,
        };
        fields.end();
        entry
    };
    fields.list("permissions").iter().map(entry).collect()
}

fn role_definition(id: &str, value: &Value) -> RoleDefinition {
    let mut fields = Fields::new(id, value);
    let body = RoleDefinition {
        at: At::default(),
        id: text(fields.must("id")),
        role_name: text(fields.must("roleName")),
        custom: true,
        description: fields.text("description").map(text),
        permissions: permissions(id, &mut fields),
        assignable_scopes: texts(&mut fields, "assignableScopes"),
    };
    fields.end();
    body
}

/// Ids, and the type of the first.
fn principals<'v>(id: &'v str, list: &'v [Value]) -> (Vec<Spanned<String>>, Option<&'v str>) {
    let read = |value| {
        let mut fields = Fields::new(id, value);
        let kind = fields.take("type").map(|kind| kind.as_str().unwrap());
        let principal = text(fields.must("id"));
        fields.end();
        (principal, kind)
    };
    let read: Vec<_> = list.iter().map(read).collect();
    let first = read.first().and_then(|(_, kind)| *kind);
    (read.into_iter().map(|(id, _)| id).collect(), first)
}

fn deny_assignment<'v>(id: &'v str, value: &'v Value) -> (DenyAssignment, DenyRequest<'v>) {
    let mut fields = Fields::new(id, value);
    let (ids, principal_type) = principals(id, fields.list("principals"));
    let excluded = fields.take("excludePrincipals").map(|value| principals(id, value.as_array().unwrap()).0);
    let request = DenyRequest {
        principal_type,
        excludes_nobody: excluded.as_ref().is_some_and(Vec::is_empty),
        ..DenyRequest::default()
    };
    let body = DenyAssignment {
        name: fields.text("name").map(text).unwrap_or_default(),
        deny_assignment_name: fields.text("denyAssignmentName").map(text),
        scope: text(fields.must("scope")),
        permissions: permissions(id, &mut fields),
        principals: ids,
        exclude_principals: excluded.unwrap_or_default(),
        ..DenyAssignment::default()
    };
    fields.end();
    (body, request)
}

#[test]
pub(crate) fn examples_of_the_reference() {
    let cases = include_str!("cases/validation.jsonl");
    let mut count = 0;
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let id = case["id"].as_str().unwrap();
        let mut fields = Fields::new(id, &case);
        assert_eq!(fields.must("area"), "validation");
        let _told = (fields.take("id"), fields.take("source"), fields.take("basis"), fields.take("note"));
        let mut given = Fields::new(id, fields.take("given").unwrap());
        let mut request = Fields::new(id, fields.take("request").unwrap());
        let mut expect = Fields::new(id, fields.take("expect").unwrap());
        fields.end();

        let mut existing = Existing::default();
        for role in given.list("role_definitions") {
            existing.insert_role_definition(role_definition(id, role));
        }
        for assignment in given.list("role_assignments") {
            existing.insert_role_assignment(role_assignment(id, assignment));
        }
        if let Some(counts) = given.take("existing_assignment_count") {
            for (scope, more) in counts.as_object().unwrap() {
                existing.count_more_assignments(scope, usize::try_from(more.as_u64().unwrap()).unwrap());
            }
        }
        if let Some(more) = given.take("custom_role_count") {
            existing.count_more_custom_roles(usize::try_from(more.as_u64().unwrap()).unwrap());
        }
        given.end();

        let body = request.take("body").unwrap();
        let judge = judge();
        // The version that is stored, where a condition is.
        let judged: Result<Option<Spanned<String>>, Findings> = match request.must("op") {
            "putRoleAssignment" => judge
                .put_role_assignment(&existing, &role_assignment(id, body))
                .map(|written| written.stored.condition.and_then(|condition| condition.version)),
            "putRoleDefinition" => {
                judge.put_role_definition(&existing, &role_definition(id, body)).map(|_| None)
            }
            "putDenyAssignment" => {
                let (body, request) = deny_assignment(id, body);
                judge.put_deny_assignment(&existing, &body, Origin::User(request)).map(|_| None)
            }
            "deleteRoleAssignment" => {
                let mut body = Fields::new(id, body);
                let (name, scope) = (text(body.must("name")), text(body.must("scope")));
                body.end();
                judge.delete_role_assignment(&existing, &name, &scope, false).map(|_| None)
            }
            "deleteRoleDefinition" => {
                let mut body = Fields::new(id, body);
                let role = text(body.must("id"));
                body.end();
                judge.delete_role_definition(&existing, &role).map(|_| None)
            }
            other => panic!("{id}: {other}"),
        };
        request.end();

        assert_eq!(judged.is_ok(), expect.take("accepted").unwrap().as_bool().unwrap(), "{id}: {judged:?}");
        match &judged {
            Ok(version) => {
                if let Some(stored) = expect.take("stored") {
                    let mut stored = Fields::new(id, stored);
                    let version = version.as_ref().map(|version| version.value.as_str());
                    assert_eq!(version, stored.text("conditionVersion"), "{id}");
                    stored.end();
                }
            }
            Err(findings) => {
                assert_eq!(findings.first().unwrap().code, expect.must("error"), "{id}");
                assert_eq!(findings.iter().count(), 1, "{id}: {findings:?}");
            }
        }
        expect.end();
        count += 1;
    }
    println!("validation: {count} examples");
    assert_eq!(count, 30);
}

// === tables of our own ===

const SUB: &str = "/subscriptions/11111111-1111-1111-1111-111111111111";
const OTHER: &str = "/subscriptions/22222222-2222-2222-2222-222222222222";
const CORP: &str = "/providers/Microsoft.Management/managementGroups/corp";
const READER: &str = "acdd72a7-3385-48ef-bd42-f606fba81ae7";
const OWNER: &str = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635";
const CUSTOM: &str = "c0000000-0000-4000-8000-000000000001";
const NAME: &str = "77777777-7777-4777-8777-777777777771";
const EVERYONE: &str = "00000000-0000-0000-0000-000000000000";

fn name(number: usize) -> String {
    format!("77777777-7777-4777-8777-{number:012}")
}

fn assign(scope: &str, role: &str) -> RoleAssignment {
    RoleAssignment {
        name: text(NAME),
        scope: text(scope),
        role_definition_id: text(role),
        principal_id: text("000000a1-0000-4000-8000-0000000000a1"),
        principal_type: Some(text("User")),
        ..RoleAssignment::default()
    }
}

fn custom() -> RoleDefinition {
    RoleDefinition {
        id: text(CUSTOM),
        role_name: text("Ops"),
        custom: true,
        permissions: vec![PermissionBlock {
            actions: vec![text("A.B/*/read")],
            ..PermissionBlock::default()
        }],
        assignable_scopes: vec![text(SUB)],
        ..RoleDefinition::default()
    }
}

fn deny() -> DenyAssignment {
    DenyAssignment {
        name: text(NAME),
        deny_assignment_name: Some(text("no deletes")),
        scope: text(SUB),
        permissions: vec![PermissionBlock { actions: vec![text("*/delete")], ..PermissionBlock::default() }],
        principals: vec![text("alice")],
        ..DenyAssignment::default()
    }
}

fn codes<T: std::fmt::Debug>(judged: Result<T, Findings>) -> Vec<&'static str> {
    judged
        .map_or_else(|findings| findings.iter().map(|finding| finding.problem.code).collect(), |_| Vec::new())
}

fn put(existing: &Existing, body: &RoleAssignment) -> Vec<&'static str> {
    codes(judge().put_role_assignment(existing, body))
}

fn define(existing: &Existing, body: &RoleDefinition) -> Vec<&'static str> {
    codes(judge().put_role_definition(existing, body))
}

#[test]
fn assignments_up_to_the_limit() {
    for (at, count_at, limit) in [
        (SUB, SUB, 4_000),
        ("/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/a", SUB, 4_000),
        (CORP, CORP, 500),
        ("/providers/microsoft.management/managementgroups/CORP", CORP, 500),
    ] {
        let mut existing = Existing::default();
        existing.count_more_assignments(count_at, limit - 1);
        assert_eq!(put(&existing, &assign(at, READER)), Vec::<&str>::new(), "{at}");
        existing.insert_role_assignment(RoleAssignment { name: text(name(1)), ..assign(count_at, OWNER) });
        assert_eq!(put(&existing, &assign(at, READER)), ["RoleAssignmentLimitExceeded"], "{at}");
        assert!(put(&existing, &assign(OTHER, READER)).is_empty(), "counted apart");
        existing.remove_role_assignment(&name(1));
        assert!(put(&existing, &assign(at, READER)).is_empty(), "room again");
        // An update needs no room.
        existing.insert_role_assignment(assign(at, READER));
        assert!(put(&existing, &assign(at, READER)).is_empty());
    }
    let mut existing = Existing::default();
    existing.count_more_assignments(SUB, 2);
    let judge = Judge { limits: Limits { assignments_per_subscription: 2, ..Limits::AZURE }, ..judge() };
    assert_eq!(
        codes(judge.put_role_assignment(&existing, &assign(SUB, READER))),
        ["RoleAssignmentLimitExceeded"]
    );
}

#[test]
fn texts_up_to_the_limit() {
    let existing = Existing::default();
    // (field, length, unit): "ä" has two bytes and is one character.
    for (length, expected) in [(1_024, vec![]), (1_025, vec!["InvalidRoleAssignment"])] {
        let body = RoleAssignment { description: Some(text("ä".repeat(length))), ..assign(SUB, READER) };
        assert_eq!(put(&existing, &body), expected, "description of an assignment, bytes");
    }
    for (length, expected) in [(4_082, vec![]), (4_083, vec!["condition_too_long"])] {
        // 27 bytes more than the value.
        let long = text(format!("@Request[x] StringEquals '{}'", "ä".repeat(length)));
        let body = RoleAssignment { condition: condition(Some(long), None), ..assign(SUB, READER) };
        assert_eq!(put(&existing, &body), expected, "condition, bytes");
    }
    for (length, expected) in [(512, vec![]), (513, vec!["InvalidRoleDefinition"])] {
        let body = RoleDefinition { role_name: text("ä".repeat(length)), ..custom() };
        assert_eq!(define(&existing, &body), expected, "display name, characters");
    }
    for (length, expected) in [(2_048, vec![]), (2_049, vec!["InvalidRoleDefinition"])] {
        let body = RoleDefinition { description: Some(text("ä".repeat(length))), ..custom() };
        assert_eq!(define(&existing, &body), expected, "description of a role, characters");
    }
    for (length, expected) in [(2_000, vec![]), (2_001, vec!["InvalidAssignableScope"])] {
        let scopes = (0..length).map(|number| text(format!("{SUB}/resourceGroups/g{number}"))).collect();
        let body = RoleDefinition { assignable_scopes: scopes, ..custom() };
        assert_eq!(define(&existing, &body), expected, "assignable scopes");
    }
}

#[test]
fn custom_roles_up_to_the_limit() {
    for (limits, limit) in [(Limits::AZURE, 5_000), (Limits::CHINA, 2_000)] {
        let judge = Judge { limits, ..judge() };
        let mut existing = Existing::default();
        existing.count_more_custom_roles(limit - 1);
        existing.insert_role_definition(RoleDefinition {
            id: text(READER),
            role_name: text("Reader"),
            custom: false,
            assignable_scopes: vec![text("/")],
            ..custom()
        });
        assert!(
            codes(judge.put_role_definition(&existing, &custom())).is_empty(),
            "built-in roles do not count"
        );
        existing.count_more_custom_roles(1);
        assert_eq!(codes(judge.put_role_definition(&existing, &custom())), ["RoleDefinitionLimitExceeded"]);
        existing.insert_role_definition(custom());
        let written = judge.put_role_definition(&existing, &custom()).unwrap();
        assert_eq!(written.effect, Effect::Update, "an update needs no room");
    }
}

#[test]
fn names_and_triples_of_assignments() {
    let mut existing = Existing::default();
    existing.insert_role_assignment(assign(SUB, READER));
    let same =
        |body: RoleAssignment| judge().put_role_assignment(&existing, &body).map(|written| written.effect);
    assert_eq!(same(assign(SUB, READER)), Ok(Effect::Update));
    // Spelled otherwise, the same.
    let full_id =
        format!("{SUB}/providers/Microsoft.Authorization/roleDefinitions/{}", READER.to_uppercase());
    let respelled = RoleAssignment {
        name: text(NAME.to_uppercase()),
        principal_id: text("{000000A1-0000-4000-8000-0000000000A1}"),
        description: Some(text("new")),
        ..assign(&format!("{}/", SUB.to_uppercase()), &full_id)
    };
    let written = judge().put_role_assignment(&existing, &respelled).unwrap();
    assert_eq!(written.effect, Effect::Update);
    assert_eq!(written.stored.name.value, NAME);
    assert_eq!(written.stored.role_definition_id.value, READER);
    assert!(Scope::parse(&written.stored.scope.value).unwrap() == Scope::parse(SUB).unwrap());
    assert!(!written.stored.scope.value.ends_with('/'));

    let elsewhere = assign(&format!("{SUB}/resourceGroups/a"), READER);
    assert_eq!(put(&existing, &elsewhere), ["RoleAssignmentUpdateNotPermitted"]);
    assert_eq!(put(&existing, &assign(SUB, OWNER)), ["RoleAssignmentUpdateNotPermitted"]);
    let renamed = RoleAssignment { name: text(name(2)), ..assign(SUB, READER) };
    assert_eq!(put(&existing, &renamed), ["RoleAssignmentExists"]);
    // Both at once: the name is another's, the triple as well.
    existing.insert_role_assignment(RoleAssignment { name: text(name(2)), ..assign(SUB, OWNER) });
    assert_eq!(put(&existing, &renamed), ["RoleAssignmentUpdateNotPermitted", "RoleAssignmentExists"]);
    existing.remove_role_assignment(NAME);
    let renamed = RoleAssignment { name: text(name(3)), ..renamed };
    assert!(put(&existing, &renamed).is_empty(), "nothing left of the one that was removed");
}

#[test]
fn everything_wrong_with_an_assignment_at_once() {
    let body = RoleAssignment {
        name: text("mine"),
        scope: text("nowhere"),
        principal_id: text(""),
        description: Some(text("x".repeat(2_049))),
        condition: condition(Some(text("broken OR Exists")), Some(text("1.0"))),
        ..assign(SUB, CUSTOM)
    };
    let complete = Judge { roles_complete: true, ..judge() };
    assert_eq!(
        codes(complete.put_role_assignment(&Existing::default(), &body)),
        [
            "InvalidRoleAssignmentName",
            "InvalidScope",
            "RoleDefinitionDoesNotExist",
            "PrincipalNotFound",
            "InvalidRoleAssignment",
            "InvalidCondition",
            "syntax",
            "exists_needs_attribute",
        ]
    );
}

#[test]
fn roles_stand_where_they_may_be_assigned() {
    let mut existing = Existing::default();
    let group = format!("{SUB}/resourceGroups/App");
    existing.insert_role_definition(RoleDefinition {
        assignable_scopes: vec![text(CORP), text(format!("{OTHER}/resourceGroups/app"))],
        ..custom()
    });
    existing.insert_role_definition(RoleDefinition {
        id: text(READER),
        role_name: text("Reader"),
        custom: false,
        assignable_scopes: vec![text("/")],
        ..custom()
    });
    let not_there = "RoleAssignmentScopeNotAssignableToRoleDefinition";
    for (at, ok) in [
        (CORP, true),
        (SUB, false),
        (&group, false),
        (&format!("{OTHER}/resourceGroups/APP"), true),
        (&format!("{OTHER}/resourceGroups/app2"), false),
        (OTHER, false),
        ("/", false),
    ] {
        let expected = if ok { vec![] } else { vec![not_there] };
        assert_eq!(put(&existing, &assign(at, CUSTOM)), expected, "{at}");
        assert!(put(&existing, &assign(at, READER)).is_empty(), "{at}");
    }
    // With the hierarchy, the management group reaches its subscriptions.
    existing.hierarchy.put_subscription("11111111-1111-1111-1111-111111111111", "dev");
    assert_eq!(put(&existing, &assign(SUB, CUSTOM)), [not_there]);
    existing.hierarchy.put_management_group("Dev", "CORP");
    assert!(put(&existing, &assign(SUB, CUSTOM)).is_empty());
    assert!(put(&existing, &assign(&group, CUSTOM)).is_empty());
    assert!(
        put(&existing, &assign("/providers/Microsoft.Management/managementGroups/DEV", CUSTOM)).is_empty()
    );
}

#[test]
fn a_circle_of_management_groups_ends() {
    let mut hierarchy = Hierarchy::default();
    hierarchy.put_management_group("a", "b");
    hierarchy.put_management_group("b", "a");
    let group = |name: &str| format!("/providers/Microsoft.Management/managementGroups/{name}");
    let (a, corp) = (group("a"), group("corp"));
    assert!(!hierarchy.applies(Scope::parse(&corp).unwrap(), Scope::parse(&a).unwrap()));
    assert!(hierarchy.applies(Scope::parse(&group("b")).unwrap(), Scope::parse(&a).unwrap()));
}

#[test]
fn data_actions_at_management_groups() {
    let mut existing = Existing::default();
    let data = RoleDefinition {
        permissions: vec![PermissionBlock {
            data_actions: vec![text("A.B/read")],
            ..PermissionBlock::default()
        }],
        assignable_scopes: vec![text(CORP), text(SUB)],
        ..custom()
    };
    assert!(define(&existing, &data).is_empty(), "it may be written");
    existing.insert_role_definition(data.clone());
    assert_eq!(put(&existing, &assign(CORP, CUSTOM)), ["DataActionsNotAllowedAtManagementGroup"]);
    assert!(put(&existing, &assign(SUB, CUSTOM)).is_empty());
    let mut existing = Existing::default();
    existing.insert_role_definition(RoleDefinition {
        custom: false,
        assignable_scopes: vec![text("/")],
        ..data
    });
    assert!(put(&existing, &assign(CORP, CUSTOM)).is_empty(), "built-in roles may");
}

#[test]
fn principals_the_directory_does_not_know() {
    let none = |_: postern::model::PrincipalId<'_>| false;
    let judge = Judge { principal_exists: &none, ..judge() };
    let typed = assign(SUB, READER);
    assert!(codes(judge.put_role_assignment(&Existing::default(), &typed)).is_empty());
    let untyped = RoleAssignment { principal_type: None, ..typed };
    assert_eq!(codes(judge.put_role_assignment(&Existing::default(), &untyped)), ["PrincipalNotFound"]);
}

#[test]
fn conditions_as_they_are_stored() {
    let existing = Existing::default();
    let good = "Exists @Request[x:y]";
    for (given, version, expected) in [
        (None, None, Ok(None)),
        (None, Some("2.0"), Ok(None)),
        (Some(""), Some(""), Ok(None)),
        (Some(" \n"), Some("2.0"), Ok(None)),
        (Some(" \n"), Some("1.0"), Ok(None)),
        (Some(good), None, Ok(Some(good))),
        (Some(good), Some(""), Ok(Some(good))),
        (Some(good), Some("2.0"), Ok(Some(good))),
        (Some(good), Some("1.0"), Err("InvalidCondition")),
        (Some(good), Some("2"), Err("InvalidCondition")),
        (Some("broken"), None, Err("syntax")),
        (Some("@Request[x] StringIs 'y'"), None, Err("unknown_operator")),
        // Stored, `AND` would go first.
        (
            Some("Exists @Request[x] AND Exists @Request[y] OR Exists @Request[z]"),
            None,
            Err("ambiguous_precedence"),
        ),
    ] {
        let body = RoleAssignment {
            condition: condition(given.map(text), version.map(text)),
            ..assign(SUB, READER)
        };
        let stored = judge()
            .put_role_assignment(&existing, &body)
            .map(|written| {
                written.stored.condition.map(|condition| {
                    assert_eq!(condition.version.unwrap().value, "2.0");
                    condition.text.value
                })
            })
            .map_err(|findings| findings.first().unwrap().code);
        assert_eq!(
            stored.as_ref().map(Option::as_deref),
            expected.as_ref().map(|c| *c),
            "{given:?} {version:?}"
        );
    }
}

#[test]
fn a_mistake_in_a_condition_has_its_place() {
    let source = "condition: >-\n  (Exists @Request[x])\n  AND\n  (@Request[y] StringIs 'z')\n";
    let files = [SourceFile { path: "a.yaml".into(), text: source.into() }];
    let at = At { file: 0, start: 16, end: u32::try_from(source.len()).unwrap() };
    let folded = "(Exists @Request[x]) AND (@Request[y] StringIs 'z')";
    let body = RoleAssignment {
        condition: condition(Some(Spanned::new(folded.to_owned(), at)), None),
        ..assign(SUB, READER)
    };
    let findings = judge().put_role_assignment(&Existing::default(), &body).unwrap_err();
    let [finding] = findings.iter().as_slice() else { panic!("{findings:?}") };
    let location = finding.location(&postern::model::Locator::new(&files)).unwrap();
    assert_eq!((location.line, location.column, location.length), (4, 16, 8));
    assert_eq!((finding.problem.code, finding.problem.field.as_str()), ("unknown_operator", "condition"));
    assert!(finding.problem.help.as_ref().unwrap().contains("operators begin with"), "{finding:?}");
}

#[test]
fn guid_operators_on_storage_data_actions_are_told() {
    let guids = "Exists @Request[x] OR NOT (@Request[x:y] GuidEquals 11111111-1111-1111-1111-111111111111)";
    for (data_action, told) in [
        ("microsoft.storage/storageAccounts/blobServices/containers/blobs/read", true),
        ("Microsoft.Storage/*", true),
        ("*", false),
        ("Microsoft.StorageCache/x/read", false),
    ] {
        let mut existing = Existing::default();
        existing.insert_role_definition(RoleDefinition {
            permissions: vec![PermissionBlock {
                data_actions: vec![text(data_action)],
                ..PermissionBlock::default()
            }],
            ..custom()
        });
        for (given, told) in [(guids, told), ("Exists @Request[x]", false)] {
            let body =
                RoleAssignment { condition: condition(Some(text(given)), None), ..assign(SUB, CUSTOM) };
            let written = judge().put_role_assignment(&existing, &body).unwrap();
            assert_eq!(!written.warnings.is_empty(), told, "{data_action}");
            if told {
                let finding = written.warnings.iter().next().unwrap();
                assert_eq!(finding.problem.severity, Severity::Warning);
                let part = finding.part.as_ref().unwrap();
                assert_eq!(part.text.get(part.range.clone()).unwrap(), "GuidEquals");
            }
        }
    }
}

#[test]
fn who_may_be_eligible_and_where() {
    let eligible = |scope: &str, kind: Option<&str>| Schedule {
        kind: ScheduleKind::Eligible,
        scope: text(scope),
        role_definition_id: text(READER),
        principal_id: text("alice"),
        principal_type: kind.map(text),
        ..Schedule::default()
    };
    let group = format!("{SUB}/resourceGroups/app");
    let vault = format!("{group}/providers/Microsoft.KeyVault/vaults/a");
    let (kind, place) = ("EligiblePrincipalTypeNotAllowed", "EligibleScopeNotAllowed");
    for (scope, principal, codes_wanted) in [
        (CORP, Some("User"), vec![]),
        (SUB, Some("group"), vec![]),
        (&group, None, vec![]),
        (SUB, Some("Unknown"), vec![]),
        (SUB, Some("ServicePrincipal"), vec![kind]),
        (&vault, Some("User"), vec![place]),
        ("/", Some("User"), vec![place]),
        ("/providers/Microsoft.Capacity", None, vec![place]),
        (&vault, Some("serviceprincipal"), vec![kind, place]),
        ("nowhere", Some("User"), vec!["InvalidScope"]),
    ] {
        let body = eligible(scope, principal);
        let existing = Existing::default();
        assert_eq!(codes(judge().put_schedule(&existing, &body)), codes_wanted, "{scope} {principal:?}");
        let active = Schedule { kind: ScheduleKind::Active, ..body };
        let invalid: Vec<_> = codes_wanted.into_iter().filter(|code| *code == "InvalidScope").collect();
        assert_eq!(codes(judge().put_schedule(&existing, &active)), invalid, "active: {scope} {principal:?}");
    }
    let mut existing = Existing::default();
    existing.insert_role_definition(RoleDefinition { id: text(READER), ..custom() });
    let conditioned =
        Schedule { condition: condition(Some(text("x")), None), ..eligible(OTHER, Some("User")) };
    assert_eq!(
        codes(judge().put_schedule(&existing, &conditioned)),
        ["RoleAssignmentScopeNotAssignableToRoleDefinition", "syntax"]
    );
}

#[test]
fn a_hierarchy_that_may_be_missing() {
    let open = Judge { hierarchy_complete: false, ..judge() };
    let mut existing = Existing::default();
    existing.insert_role_definition(RoleDefinition { assignable_scopes: vec![text(CORP)], ..custom() });
    let told = |existing: &Existing, at: &str| match open.put_role_assignment(existing, &assign(at, CUSTOM)) {
        Ok(written) => (true, written.warnings.iter().count()),
        Err(findings) => (false, findings.iter().count()),
    };
    assert_eq!(told(&existing, SUB), (true, 1), "nothing says where the subscription hangs");
    assert_eq!(told(&existing, "/"), (false, 1));
    existing.hierarchy.put_subscription("11111111-1111-1111-1111-111111111111", "dev");
    assert_eq!(told(&existing, SUB), (true, 1), "nothing says where the group hangs");
    existing.hierarchy = Hierarchy::of(&Documents {
        management_groups: vec![
            ManagementGroup { name: text("dev"), parent: Some(text("root")) },
            ManagementGroup { name: text("root"), parent: None },
        ],
        subscriptions: vec![Subscription {
            id: text("11111111-1111-1111-1111-111111111111"),
            parent: text("dev"),
        }],
        ..Documents::default()
    });
    assert_eq!(told(&existing, SUB), (false, 1), "it hangs elsewhere");
}

#[test]
fn what_custom_roles_may_hold() {
    let existing = Existing::default();
    let with = |change: &dyn Fn(&mut RoleDefinition)| {
        let mut body = custom();
        change(&mut body);
        define(&existing, &body)
    };
    let scopes = |scopes: &[&str]| {
        let scopes: Vec<_> = scopes.iter().map(|scope| text(*scope)).collect();
        with(&|body| body.assignable_scopes = scopes.clone())
    };
    let invalid = ["InvalidAssignableScope"];
    assert_eq!(scopes(&[]), invalid);
    assert_eq!(scopes(&["/"]), invalid);
    assert_eq!(scopes(&["/providers/Microsoft.Capacity"]), invalid);
    assert_eq!(scopes(&["/subscriptions/*"]), invalid);
    assert_eq!(scopes(&["/subscriptions/x"]), invalid);
    assert!(scopes(&[CORP, SUB, OTHER, SUB]).is_empty());
    assert!(
        scopes(&[CORP, "/providers/microsoft.management/managementgroups/CORP/"]).is_empty(),
        "one, twice"
    );
    assert_eq!(scopes(&[CORP, SUB, "/providers/Microsoft.Management/managementGroups/b"]), invalid);
    assert!(
        scopes(&["/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/a/providers/A.B/c/d"])
            .is_empty()
    );

    let actions = |actions: &[&str]| {
        let actions: Vec<_> = actions.iter().map(|action| text(*action)).collect();
        with(&|body| body.permissions[0].actions = actions.clone())
    };
    assert!(actions(&["*", "A.B/*", "*/read", "A.B/c/read", "a.b/C/READ"]).is_empty());
    assert_eq!(actions(&["A.B/*/c/*"]), ["InvalidActionOrNotAction"]);
    assert_eq!(actions(&["**"]), ["InvalidActionOrNotAction"]);
    assert_eq!(actions(&["", "A.B/c /read"]), ["InvalidActionOrNotAction", "InvalidActionOrNotAction"]);
    assert_eq!(actions(&[]), ["InvalidRoleDefinition"]);
    for list in 0..4 {
        let codes = with(&|body| {
            let entry = &mut body.permissions[0];
            let lists = [
                &mut entry.actions,
                &mut entry.not_actions,
                &mut entry.data_actions,
                &mut entry.not_data_actions,
            ];
            lists.into_iter().nth(list).unwrap().push(text("a*b*c"));
        });
        assert_eq!(codes, ["InvalidActionOrNotAction"]);
    }
    assert!(
        with(&|body| {
            body.permissions =
                vec![PermissionBlock { data_actions: vec![text("*")], ..PermissionBlock::default() }];
        })
        .is_empty()
    );
    assert_eq!(with(&|body| body.permissions.clear()), ["InvalidRoleDefinition"]);
    assert_eq!(
        with(&|body| body.permissions[0].condition = condition(Some(text("c")), None)),
        ["InvalidCondition"]
    );
    assert!(with(&|body| body.permissions[0].condition = condition(Some(text(" ")), None)).is_empty());
    assert_eq!(with(&|body| body.role_name = text(" ")), ["InvalidRoleDefinition"]);
    assert_eq!(with(&|body| body.id = text("ops")), ["InvalidRoleDefinition"]);

    let only_here = |action: &str, scope: Scope<'_>| {
        assert_eq!(action, "Microsoft.Authorization/roleDefinitions/write");
        scope.as_str() == SUB
    };
    let judge = Judge { author_may: &only_here, ..judge() };
    assert!(codes(judge.put_role_definition(&existing, &custom())).is_empty());
    let two = RoleDefinition { assignable_scopes: vec![text(SUB), text(OTHER)], ..custom() };
    assert_eq!(codes(judge.put_role_definition(&existing, &two)), ["LinkedAuthorizationFailed"]);
}

#[test]
fn names_of_roles_are_unique_in_the_tenant() {
    let mut existing = Existing::default();
    existing.insert_role_definition(RoleDefinition {
        id: text(READER),
        role_name: text("Reader"),
        custom: false,
        assignable_scopes: vec![text("/")],
        ..custom()
    });
    existing.insert_role_definition(custom());
    let other = |name: &str| {
        let id = text("c0000000-0000-4000-8000-000000000009");
        define(&existing, &RoleDefinition { id, role_name: text(name), ..custom() })
    };
    assert_eq!(other("ops"), ["RoleDefinitionWithSameNameExists"]);
    assert_eq!(other("READER"), ["RoleDefinitionWithSameNameExists"]);
    assert!(other("Ops 2").is_empty());
    let itself = RoleDefinition { id: text(format!("/x/{}", CUSTOM.to_uppercase())), ..custom() };
    let written = judge().put_role_definition(&existing, &itself).unwrap();
    assert_eq!((written.effect, written.stored.id.value.as_str()), (Effect::Update, CUSTOM));
    let built_in = RoleDefinition { id: text(READER), role_name: text("Mine"), ..custom() };
    assert_eq!(define(&existing, &built_in), ["InvalidRoleDefinition"], "nobody writes a built-in role");
}

#[test]
fn deleting_roles() {
    let mut existing = Existing::default();
    let delete = |existing: &Existing, id: &str| judge().delete_role_definition(existing, &text(id));
    assert_eq!(delete(&existing, CUSTOM), Ok(Deleted::Nothing));
    existing.insert_role_definition(custom());
    assert_eq!(delete(&existing, CUSTOM), Ok(Deleted::Existing));
    existing.insert_role_assignment(assign(SUB, &format!("/x/{CUSTOM}")));
    assert_eq!(codes(delete(&existing, CUSTOM)), ["RoleDefinitionHasAssignments"]);
    existing.remove_role_assignment(NAME);
    assert_eq!(delete(&existing, CUSTOM), Ok(Deleted::Existing));
    existing.insert_role_definition(RoleDefinition {
        custom: false,
        assignable_scopes: vec![text("/")],
        ..custom()
    });
    assert_eq!(codes(delete(&existing, CUSTOM)), ["InvalidRoleDefinition"]);
}

#[test]
fn the_last_rbac_admin_of_a_subscription() {
    let user_access_administrator = "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9";
    let group = format!("{SUB}/resourceGroups/a");
    let delete = |existing: &Existing, scope: &str, by_global_administrator| {
        judge().delete_role_assignment(existing, &text(NAME), &text(scope), by_global_administrator)
    };
    let last = ["CannotDeleteLastRbacAdmin"];
    let mut existing = Existing::default();
    assert_eq!(delete(&existing, SUB, false), Ok(Deleted::Nothing));
    existing.insert_role_assignment(assign(SUB, OWNER));
    assert_eq!(codes(delete(&existing, SUB, false)), last);
    assert_eq!(delete(&existing, SUB, true), Ok(Deleted::Existing));
    assert_eq!(delete(&existing, OTHER, false), Ok(Deleted::Nothing), "not there");
    let other =
        |number, scope: &str, role: &str| RoleAssignment { name: text(name(number)), ..assign(scope, role) };
    existing.insert_role_assignment(other(2, SUB, READER));
    existing.insert_role_assignment(other(3, OTHER, OWNER));
    existing.insert_role_assignment(other(4, &group, OWNER));
    assert_eq!(codes(delete(&existing, SUB, false)), last, "the others are none of its admins");
    existing.insert_role_assignment(other(5, SUB, user_access_administrator));
    assert_eq!(delete(&existing, SUB, false), Ok(Deleted::Existing));
    let mut existing = Existing::default();
    existing.insert_role_assignment(assign(&group, OWNER));
    assert_eq!(delete(&existing, &group, false), Ok(Deleted::Existing), "a resource group needs none");
    let mut existing = Existing::default();
    existing.insert_role_assignment(assign(SUB, READER));
    assert_eq!(delete(&existing, SUB, false), Ok(Deleted::Existing));
}

#[test]
fn deny_assignments_that_users_make() {
    let existing = Existing::default();
    let with = |change: &dyn Fn(&mut DenyAssignment, &mut DenyRequest<'_>)| {
        let (mut body, mut request) =
            (deny(), DenyRequest { principal_type: Some("User"), ..DenyRequest::default() });
        change(&mut body, &mut request);
        [Origin::User(request), Origin::Azure]
            .map(|by| codes(judge().put_deny_assignment(&existing, &body, by)).len())
    };
    // (problems when a user makes it, problems when Azure does)
    assert_eq!(with(&|_, _| {}), [0, 0]);
    assert_eq!(with(&|body, _| body.name = text("")), [0, 0]);
    assert_eq!(with(&|body, _| body.name = text("x")), [1, 1]);
    assert_eq!(with(&|body, _| body.scope = text("x")), [1, 1]);
    assert_eq!(with(&|body, _| body.principals.clear()), [1, 1]);
    assert_eq!(with(&|_, request| request.principal_type = Some("Group")), [1, 0]);
    assert_eq!(with(&|_, request| request.principal_type = Some("servicePrincipal")), [0, 0]);
    assert_eq!(with(&|body, _| body.principals.push(text("b"))), [1, 0]);
    assert_eq!(with(&|body, _| body.principals = vec![text(EVERYONE)]), [1, 0]);
    assert_eq!(
        with(&|body, _| {
            body.principals = vec![text(EVERYONE)];
            body.exclude_principals = vec![text("a")];
        }),
        [0, 0]
    );
    assert_eq!(with(&|_, request| request.excludes_nobody = true), [1, 0]);
    assert_eq!(
        with(&|body, _| body.exclude_principals = vec![text("{00000000000000000000000000000000}")]),
        [1, 1]
    );
    assert_eq!(with(&|body, _| body.do_not_apply_to_child_scopes = true), [1, 0]);
    assert_eq!(with(&|_, request| request.is_system_protected = true), [1, 0]);
    assert_eq!(with(&|body, _| body.permissions.clear()), [1, 1]);
    assert_eq!(with(&|body, _| body.condition = condition(Some(text("broken")), None)), [1, 1]);
    assert_eq!(
        with(&|body, _| body.permissions[0].condition = condition(Some(text("broken")), None)),
        [1, 1]
    );
    assert_eq!(with(&|body, _| body.permissions[0].data_actions = vec![text("A.B/c/delete")]), [1, 0]);
    for (action, exempt, problems) in [
        ("A.B/c/write", None, 0),
        ("*/write", None, 0),
        ("A.B/c/start/action", None, 0),
        ("A.B/*/action", None, 0),
        ("*/read", None, 1),
        ("A.B/c/Read", None, 1),
        ("*", None, 1),
        ("A.B/*", None, 1),
        ("A.B/*ead", None, 1),
        ("*", Some("*/read"), 0),
        ("*", Some("A.B/read"), 1),
    ] {
        let codes = with(&|body, _| {
            body.permissions[0].actions = vec![text(action)];
            body.permissions[0].not_actions = exempt.map(text).into_iter().collect();
        });
        assert_eq!(codes, [problems, 0], "{action} but {exempt:?}");
    }
}

#[test]
fn names_of_deny_assignments_are_unique_in_a_scope() {
    let mut existing = Existing::default();
    existing.insert_deny_assignment(&deny());
    let put = |body: &DenyAssignment| {
        judge()
            .put_deny_assignment(&existing, body, Origin::User(DenyRequest::default()))
            .map(|written| written.effect)
            .map_err(|f| f.iter().count())
    };
    assert_eq!(put(&deny()), Ok(Effect::Update));
    let twin =
        DenyAssignment { name: text(name(2)), deny_assignment_name: Some(text("No Deletes")), ..deny() };
    assert_eq!(put(&twin), Err(1));
    assert_eq!(put(&DenyAssignment { name: text(""), ..twin.clone() }), Err(1));
    assert_eq!(put(&DenyAssignment { scope: text(OTHER), ..twin }), Ok(Effect::Create));
    assert_eq!(put(&DenyAssignment { scope: text(OTHER), ..deny() }), Err(1), "the name is taken elsewhere");
}

#[test]
fn all_documents_of_a_directory() {
    let file = "1______\n2______\n3______\n4______\n";
    let at = |line: u32| At { file: 0, start: line * 8, end: line * 8 + 4 };
    let spanned = |value: &str, line| Spanned::new(value.to_owned(), at(line));
    let role = |id: &str, name: &str, custom, action: &str| RoleDefinition {
        id: spanned(id, 2),
        role_name: spanned(name, 2),
        custom,
        permissions: vec![PermissionBlock {
            actions: vec![spanned(action, 3)],
            ..PermissionBlock::default()
        }],
        assignable_scopes: vec![text(if custom { CORP } else { "/" })],
        ..RoleDefinition::default()
    };
    let assignment = |name: &str, role: &str, scope: &str| RoleAssignment {
        name: spanned(name, 0),
        scope: spanned(scope, 1),
        role_definition_id: spanned(role, 2),
        principal_id: text("alice"),
        ..RoleAssignment::default()
    };
    let mut documents = Documents {
        files: vec![SourceFile { path: "a.yaml".into(), text: file.into() }],
        role_definitions: vec![role(READER, "Reader", false, "*/read"), role(CUSTOM, "Ops", true, "A.B/*")],
        role_assignments: vec![
            assignment(&name(1), READER, SUB),
            assignment(&name(1), READER, SUB),
            assignment(&name(2), CUSTOM, SUB),
        ],
        deny_assignments: vec![DenyAssignment {
            name: text(name(9)),
            scope: text(SUB),
            permissions: vec![PermissionBlock { actions: vec![text("*")], ..PermissionBlock::default() }],
            principals: vec![text(EVERYONE)],
            do_not_apply_to_child_scopes: true,
            ..DenyAssignment::default()
        }],
        management_groups: vec![ManagementGroup { name: text("corp"), parent: None }],
        subscriptions: vec![Subscription {
            id: text("11111111-1111-1111-1111-111111111111"),
            parent: text("corp"),
        }],
        ..Documents::default()
    };
    assert!(judge().judge_all(&documents, &Problems::new()).is_empty(), "also what only Azure may make");

    documents.role_definitions.push(role("c0000000-0000-4000-8000-000000000002", "OPS", true, "a*b*"));
    documents.role_assignments.push(assignment("x", READER, OTHER));
    documents.role_assignments.push(assignment(&name(3), READER, SUB));
    documents.role_assignments.push(assignment(&name(1), READER, OTHER));
    documents.role_assignments.push(assignment(&name(1), READER, SUB));
    documents.role_assignments.push(assignment(&name(4), CUSTOM, OTHER));
    let told: Vec<_> = judge()
        .judge_all(&documents, &Problems::new())
        .iter()
        .map(|problem| (problem.code, problem.location.as_ref().unwrap().line, problem.severity))
        .collect();
    let error = Severity::Error;
    assert_eq!(
        told,
        [
            ("InvalidRoleAssignmentName", 1, error),
            ("RoleAssignmentExists", 1, error),
            ("RoleAssignmentUpdateNotPermitted", 1, error),
            ("RoleAssignmentExists", 1, error),
            ("RoleAssignmentScopeNotAssignableToRoleDefinition", 2, error),
            ("RoleDefinitionWithSameNameExists", 3, error),
            ("InvalidActionOrNotAction", 4, error),
        ]
    );
}

#[test]
fn one_fault_is_told_once() {
    let source = "name: x\nscope: y\ncondition: broken text\nother: z\n";
    let place = |word: &str| {
        let start = u32::try_from(source.find(word).unwrap()).unwrap();
        At { file: 0, start, end: start + u32::try_from(word.len()).unwrap() }
    };
    let spanned = |word: &str| Spanned::new(word.to_owned(), place(word));
    let documents = Documents {
        files: vec![SourceFile { path: "a.yaml".into(), text: source.into() }],
        role_assignments: vec![RoleAssignment {
            name: spanned("x"),
            scope: spanned("y"),
            condition: condition(Some(spanned("broken text")), None),
            ..assign(SUB, READER)
        }],
        ..Documents::default()
    };
    let told = |problems: &[(Problem, &str)]| {
        let mut all = Problems::new();
        for (problem, word) in problems {
            all.push(problem.clone().at(documents.locator().locate(place(word))));
        }
        let judged = judge().judge_all(&documents, &all);
        judged.iter().map(|problem| (problem.code, problem.severity)).collect::<Vec<_>>()
    };
    let (error, warning) = (Severity::Error, Severity::Warning);
    let [name, scope, operator] =
        [("InvalidRoleAssignmentName", error), ("InvalidScope", error), ("unknown_operator", error)];
    assert_eq!(told(&[]), [name, scope, operator]);
    // What a reader refused is not refused again; what it warned of is.
    assert_eq!(told(&[(Problem::error("InvalidScope", "reader"), "y")]), [name, scope, operator]);
    assert_eq!(told(&[(Problem::error("Other", "reader"), "y")]), [name, ("Other", error), operator]);
    assert_eq!(told(&[(Problem::warning("InvalidScope", "reader"), "y")]), [name, scope, operator]);
    assert_eq!(
        told(&[(Problem::warning("Other", "reader"), "y")]),
        [name, scope, ("Other", warning), operator],
        "another matter"
    );
    for word in ["broken text", "text", "broken"] {
        assert_eq!(told(&[(Problem::warning("InvalidCondition", "reader"), word)]), [name, scope, operator]);
    }
    assert_eq!(
        told(&[(Problem::warning("InvalidCondition", "reader"), "z")]),
        [name, scope, operator, ("InvalidCondition", warning)]
    );
}

#[test]
fn schedules_of_a_directory() {
    let eligible = |name: &str, schedule: Option<&str>, status: Option<&str>| Schedule {
        kind: ScheduleKind::Eligible,
        shape: if schedule.is_some() { ScheduleShape::Instance } else { ScheduleShape::Schedule },
        name: text(name),
        schedule: schedule.map(text),
        scope: text("/"),
        role_definition_id: text(READER),
        principal_id: text("alice"),
        status: status.map(text),
        ..Schedule::default()
    };
    let told = |schedules: Vec<Schedule>| {
        let documents = Documents { schedules, ..Documents::default() };
        judge().judge_all(&documents, &Problems::new()).iter().count()
    };
    assert_eq!(told(vec![eligible("a", None, None)]), 1);
    assert_eq!(told(vec![eligible("b", Some("A"), None)]), 1);
    assert_eq!(told(vec![eligible("b", Some("A"), None), eligible("a", None, None)]), 1, "the same twice");
    assert_eq!(told(vec![eligible("a", None, Some("Revoked"))]), 0, "over");
}

#[test]
fn a_limit_is_told_once() {
    let limits = Limits { assignments_per_subscription: 2, custom_roles: 1, ..Limits::AZURE };
    let judge = Judge { limits, ..judge() };
    let assignment = |number: usize, scope: &str| RoleAssignment {
        name: text(name(number)),
        principal_id: text(number.to_string()),
        ..assign(scope, READER)
    };
    let role = |number: usize| RoleDefinition {
        id: text(name(number)),
        role_name: text(number.to_string()),
        ..custom()
    };
    let documents = Documents {
        role_assignments: (0..9)
            .map(|number| assignment(number, if number < 6 { SUB } else { OTHER }))
            .collect(),
        role_definitions: (0..3).map(role).collect(),
        ..Documents::default()
    };
    let problems = judge.judge_all(&documents, &Problems::new());
    let codes: Vec<_> = problems.iter().map(|problem| problem.code).collect();
    assert_eq!(
        codes,
        ["RoleDefinitionLimitExceeded", "RoleAssignmentLimitExceeded", "RoleAssignmentLimitExceeded"]
    );
}
