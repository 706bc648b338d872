//! Whole documents: every shape, every refusal with its place.

use super::*;
use crate::model::{DenyEffect, Severity};

const ROLE: &str = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635";
const SUB: &str = "/subscriptions/11111111-1111-1111-1111-111111111111";
const PRINCIPAL: &str = "22222222-2222-2222-2222-222222222222";

/// A role for assignments to name.
fn owner() -> (String, Vec<u8>) {
    let role = format!(
        r#"{{"id":"{ROLE}","roleName":"Owner","roleType":"BuiltInRole","permissions":[{{"actions":["*"]}}],"assignableScopes":["/"]}}"#
    );
    ("0-owner.json".into(), role.into_bytes())
}

fn load_one(name: &str, text: &str, lenience: Lenience) -> (Documents, Problems) {
    load_texts(vec![owner(), (name.into(), text.as_bytes().to_vec())], lenience)
}

/// `code field line:column` of every problem of `x.json` (or whatever it is called).
fn told(problems: &Problems) -> Vec<String> {
    let line = |problem: &Problem| {
        let place =
            problem.location.as_ref().map_or("-".to_owned(), |at| format!("{}:{}", at.line, at.column));
        let severity = if problem.severity == Severity::Warning { "warning " } else { "" };
        format!("{severity}{} {} {place}", problem.code, problem.field)
    };
    problems.iter().map(line).collect()
}

fn clean(name: &str, text: &str) -> Documents {
    let (documents, problems) = load_one(name, text, Lenience::Strict);
    assert!(problems.is_empty(), "{text}\n{problems:#?}");
    documents
}

/// Fills in the constants, so that JSON stays readable in the tables.
fn fill(text: &str) -> String {
    text.replace("$SUB", SUB).replace("$ROLE", ROLE).replace("$P", PRINCIPAL)
}

#[test]
fn shapes_of_role_assignments() {
    let ra = "/providers/Microsoft.Authorization/roleAssignments/a1";
    let rd = "/providers/Microsoft.Authorization/roleDefinitions";
    for text in [
        // az, flat.
        format!(r#"{{"id":"$SUB{ra}","name":"a1","scope":"$SUB","roleDefinitionId":"$SUB{rd}/$ROLE","principalId":"$P","condition":null,"canDelegate":null,"type":"Microsoft.Authorization/roleAssignments"}}"#),
        // Name and scope from the id alone.
        format!(r#"[{{"id":"$SUB{ra}","roleDefinitionId":"{rd}/$ROLE","principalId":"$P","condition":"  "}}]"#),
        // REST.
        format!(r#"{{"value":[{{"id":"$SUB{ra}","name":"a1","type":"Microsoft.Authorization/roleAssignments","properties":{{"scope":"$SUB","roleDefinitionId":"$SUB{rd}/$ROLE","principalId":"$P"}}}}],"nextLink":null}}"#),
        // PIM's alias in the id.
        format!(r#"{{"id":"/providers/Microsoft.Subscription$SUB{ra}","name":"a1","properties":{{"scope":"$SUB/","roleDefinitionId":"$ROLE","principalId":"$P"}}}}"#),
        // PowerShell, new and old.
        format!(r#"{{"RoleAssignmentName":"a1","RoleAssignmentId":"$SUB{ra}","Scope":"$SUB","ObjectId":"$P","ObjectType":"User","RoleDefinitionId":"$ROLE","Condition":null}}"#),
        format!(r#"{{"RoleAssignmentId":"$SUB{ra}","Scope":"$SUB","DisplayName":"x","ObjectId":"$P","RoleDefinitionId":"$ROLE"}}"#),
        // Our own.
        r#"{"role_assignments":[{"name":"a1","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P"}]}"#.into(),
        // Templates whose values are written out.
        r#"{"$schema":"https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#","resources":[{"type":"Microsoft.Authorization/roleAssignments","apiVersion":"2022-04-01","name":"a1","scope":"$SUB","properties":{"roleDefinitionId":"$ROLE","principalId":"$P","description":"[parameters('x')]"}},{"type":"Microsoft.Storage/storageAccounts","name":"[x]","copy":{}}]}"#.into(),
        r#"{"contentVersion":"1.0.0.0","languageVersion":"2.0","resources":{"old":{"existing":true,"type":"Microsoft.Authorization/roleAssignments","name":"[x]"},"off":{"condition":false,"type":"Microsoft.Authorization/roleAssignments","name":"[x]","properties":{}},"nest":{"type":"Microsoft.Resources/deployments","properties":{"template":{"resources":[{"condition":true,"type":"Microsoft.Authorization/roleAssignments","apiVersion":"2022-04-01","name":"a1","properties":{"scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P"}}]}}}}}"#.into(),
    ] {
        let documents = clean("x.json", &fill(&text));
        assert_eq!(documents.role_assignments.len(), 1, "{text}");
        let assignment = &documents.role_assignments[0];
        assert_eq!(assignment.name.value, "a1", "{text}");
        assert_eq!(assignment.scope.value.trim_end_matches('/'), SUB, "{text}");
        assert_eq!(assignment.role_definition_id.value, ROLE, "{text}");
        assert_eq!(assignment.principal_id.value, PRINCIPAL, "{text}");
    }
    let root =
        clean("x.json", &fill(&format!(r#"{{"id":"{ra}","roleDefinitionId":"$ROLE","principalId":"$P"}}"#)));
    assert_eq!(root.role_assignments[0].scope.value, "/");
}

#[test]
fn shapes_of_role_definitions() {
    let id = "acdd72a7-3385-48ef-bd42-f606fba81ae7";
    for text in [
        r#"{"id":"$SUB/providers/Microsoft.Authorization/roleDefinitions/$ID","name":"$ID","type":"Microsoft.Authorization/roleDefinitions","roleName":"Mine","roleType":"CustomRole","permissions":[{"actions":["a/read"],"notActions":null,"dataActions":["b/*"],"condition":null}],"assignableScopes":["$SUB"]}"#,
        r#"{"id":"/x/$ID","name":"$ID","properties":{"roleName":"Mine","type":"CustomRole","permissions":[{"actions":["a/read"],"dataActions":["b/*"]}],"assignableScopes":["$SUB"]}}"#,
        r#"{"Name":"Mine","Id":"$ID","IsCustom":true,"Description":"d","Actions":["a/read"],"NotActions":[],"DataActions":["b/*"],"NotDataActions":null,"AssignableScopes":["$SUB"]}"#,
        r#"{"type":"Microsoft.Authorization/roleDefinitions","apiVersion":"2022-04-01","name":"{$ID}","properties":{"roleName":"Mine","type":"CustomRole","permissions":[{"actions":["a/read"],"dataActions":["b/*"]}],"assignableScopes":["$SUB"]}}"#,
        r#"{"role-definitions":[{"id":"$ID","roleName":"Mine","roleType":"customrole","permissions":[{"actions":["a/read"],"dataActions":["b/*"]}],"assignableScopes":["$SUB"]}]}"#,
    ] {
        let text = fill(&text.replace("$ID", &id.to_uppercase()));
        let documents = clean("x.json", &text);
        let role = &documents.role_definitions[1];
        assert_eq!((role.id.value.as_str(), role.role_name.value.as_str()), (id, "Mine"), "{text}");
        assert!(role.custom, "{text}");
        assert_eq!(role.permissions.len(), 1);
        assert_eq!(role.permissions[0].actions[0].value, "a/read");
        assert_eq!(role.permissions[0].data_actions[0].value, "b/*");
        assert_eq!(role.assignable_scopes[0].value, SUB);
    }
}

#[test]
fn shapes_of_deny_assignments() {
    let all = "00000000-0000-0000-0000-000000000000";
    for text in [
        r#"{"id":"$SUB/providers/Microsoft.Authorization/denyAssignments/d1","name":"d1","type":"Microsoft.Authorization/denyAssignments","properties":{"denyAssignmentName":"No","scope":"$SUB","permissions":[{"actions":["*/delete"],"notActions":[]}],"principals":[{"id":"$ALL","type":"SystemDefined"}],"excludePrincipals":[{"id":"$P","type":"User"}],"doNotApplyToChildScopes":true,"isSystemProtected":true,"denyAssignmentEffect":"Audit"}}"#,
        r#"{"Id":"$SUB/providers/Microsoft.Authorization/denyAssignments/d1","DenyAssignmentName":"No","Actions":["*/delete"],"NotActions":[],"DataActions":[],"Scope":"$SUB","DoNotApplyToChildScopes":true,"Principals":[{"ObjectId":"$ALL","ObjectType":"SystemDefined"}],"ExcludePrincipals":[{"ObjectId":"$P"}],"denyAssignmentEffect":"AUDIT"}"#,
        r#"{"denyAssignments":[{"name":"d1","scope":"$SUB","permissions":[{"actions":["*/delete"]}],"principals":["$ALL"],"excludePrincipals":["$P"],"doNotApplyToChildScopes":true,"denyAssignmentEffect":"audit"}]}"#,
    ] {
        let text = fill(&text.replace("$ALL", all));
        let documents = clean("x.json", &text);
        let deny = &documents.deny_assignments[0];
        assert_eq!((deny.name.value.as_str(), deny.scope.value.as_str()), ("d1", SUB), "{text}");
        assert_eq!(deny.principals[0].value, all);
        assert_eq!(deny.exclude_principals[0].value, PRINCIPAL);
        assert_eq!((deny.do_not_apply_to_child_scopes, deny.effect), (true, DenyEffect::Audit), "{text}");
        assert_eq!(deny.permissions[0].actions[0].value, "*/delete");
    }
}

#[test]
fn shapes_of_groups() {
    for (text, expected) in [
        (r#"{"id":"g","members":["a","b"]}"#, "g[a,b]"),
        (r#"{"groups":{"g":["a",{"id":"b"}],"h":null}}"#, "g[a,b] h[]"),
        (r#"{"groups":[{"id":"g","displayName":"G","members":null}]}"#, "g[]"),
        (
            r##"{"@odata.context":"x","value":[{"@odata.type":"#microsoft.graph.group","id":"g","members":[{"@odata.type":"#microsoft.graph.user","id":"a"}]},{"id":"h","groupTypes":[],"securityEnabled":true}]}"##,
            "g[a] h[]",
        ),
    ] {
        let documents = clean("x.json", text);
        let printed: Vec<_> = documents
            .groups
            .iter()
            .map(|group| {
                let members: Vec<_> = group.members.iter().map(|member| member.value.as_str()).collect();
                format!("{}[{}]", group.id.value, members.join(","))
            })
            .collect();
        assert_eq!(printed.join(" "), expected, "{text}");
    }
}

#[test]
fn shapes_of_the_hierarchy() {
    let sub = "11111111-1111-1111-1111-111111111111";
    let mg = "/providers/Microsoft.Management/managementGroups";
    for text in [
        r#"{"managementGroups":{"root":null,"corp":"root"},"subscriptions":{"$ID":"corp"}}"#.to_owned(),
        format!(
            r#"{{"management_groups":[{{"name":"root"}},{{"name":"corp","parent":"{mg}/root"}}],"subscriptions":[{{"id":"$SUB","managementGroup":"corp"}}]}}"#
        ),
        format!(
            r#"{{"id":"{mg}/root","name":"root","type":"{mg}","tenantId":"t","details":{{"parent":null}},"children":[{{"id":"{mg}/corp","name":"corp","type":"{mg}","children":[{{"id":"$SUB","name":"$ID","type":"/subscriptions","children":null}}]}}]}}"#
        ),
        format!(
            r#"{{"id":"{mg}/corp","name":"corp","type":"Microsoft.Management/managementGroups","properties":{{"details":{{"parent":{{"id":"{mg}/root","name":"root"}}}},"children":[{{"type":"/subscriptions","id":"$SUB","name":"$ID","displayName":"x"}}]}}}} {{"id":"{mg}/root","name":"root","type":"{mg}","displayName":"t","tenantId":"t"}}"#
        ),
        format!(
            r#"{{"value":[{{"id":"{mg}/root","type":"{mg}","name":"root","properties":{{"parent":{{"id":null}},"permissions":"view"}}}},{{"id":"{mg}/corp","type":"Microsoft.Management/managementGroups","name":"corp","parent":{{"id":"{mg}/root"}}}},{{"id":"$SUB","type":"/subscriptions","name":"$ID","properties":{{"parent":{{"id":"{mg}/corp"}}}}}}]}}"#
        ),
        format!(
            r#"[{{"id":"{mg}/corp/subscriptions/$ID","type":"Microsoft.Management/managementGroups/subscriptions","name":"$ID","properties":{{"state":"Active"}}}},{{"id":"{mg}/corp","type":"{mg}","details":{{"parent":{{"name":"root"}}}}}},{{"id":"{mg}/root","type":"{mg}"}}]"#
        ),
    ] {
        let documents = clean("x.json", &fill(&text.replace("$ID", sub)));
        let mut groups: Vec<_> = documents
            .management_groups
            .iter()
            .map(|group| {
                (group.name.value.as_str(), group.parent.as_ref().map(|parent| parent.value.as_str()))
            })
            .collect();
        groups.sort_unstable();
        assert_eq!(groups, [("corp", Some("root")), ("root", None)], "{text}");
        assert_eq!(documents.subscriptions.len(), 1, "{text}");
        assert_eq!(documents.subscriptions[0].id.value, sub, "{text}");
        assert_eq!(documents.subscriptions[0].parent.value, "corp", "{text}");
    }
}

#[test]
fn yaml_and_lines_are_the_same_documents() {
    let yaml = fill(
        "# the whole tenant\nroleAssignments:\n- name: a1\n  scope: $SUB\n  roleDefinitionId: $ROLE\n  principalId: $P\n---\nid: g\nmembers: [a]\n",
    );
    let documents = clean("x.yaml", &yaml);
    assert_eq!((documents.role_assignments.len(), documents.groups.len()), (1, 1));
    let at = documents.role_assignments[0].principal_id.at;
    let location = documents.locator().locate(at).unwrap();
    assert_eq!((location.line, location.column, location.length), (6, 16, 36));

    let lines = fill(
        "{\"name\":\"a1\",\"scope\":\"$SUB\",\"roleDefinitionId\":\"$ROLE\",\"principalId\":\"$P\"}\n{\"id\":\"g\",\"members\":[]}\n",
    );
    let documents = clean("x.jsonl", &lines);
    assert_eq!((documents.role_assignments.len(), documents.groups.len()), (1, 1));
}

/// What is refused under any leniency, with the exact place.
#[test]
fn refusals() {
    let ok = r#""scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P""#;
    let role = r#""id":"r","roleName":"R","assignableScopes":["/"]"#;
    let deny = r#""name":"d","scope":"$SUB","permissions":[{"actions":["*"]}]"#;
    let assigned = |more: &str| format!("{{{ok},\n{more}}}");
    let role = |more: &str| format!("{{{role},\n{more}}}");
    let deny = |more: &str| format!("{{{deny},\n{more}}}");
    let mut wrong = Vec::new();
    for (text, expected) in [
        // Conditions.
        (assigned(r#""name":"a","condition":"true""#), vec!["ConditionsNotSupported condition 2:24"]),
        (
            r#"{"properties":{"principalId":"x","condition":"y"},"id":"/providers/Microsoft.Authorization/roleAssignments/a"}"#
                .to_owned(),
            vec!["MissingProperty properties.roleDefinitionId 1:15", "ConditionsNotSupported properties.condition 1:46"],
        ),
        (role(r#""permissions":[{"actions":["*"]},{"condition":"x"}]"#), vec!["ConditionsNotSupported permissions[1].condition 2:47"]),
        (role(r#""Actions":[],"Condition":"x""#), vec!["ConditionsNotSupported Condition 2:26"]),
        (deny(r#""principals":["x"],"condition":"x""#), vec!["ConditionsNotSupported condition 2:32"]),
        // Schedules and agents.
        (assigned(r#""type":"Microsoft.Authorization/RoleAssignmentScheduleInstances""#), vec!["SchedulesNotSupported  1:1"]),
        (assigned(r#""roleEligibilityScheduleId":"x""#), vec!["SchedulesNotSupported  1:1"]),
        (assigned(r#""memberType":"Direct","startDateTime":"x""#), vec!["SchedulesNotSupported  1:1"]),
        (r#"{"schedules":[{}],"eligibilities":[]}"#.into(), vec!["SchedulesNotSupported schedules 1:14"]),
        (r#"{"groups":{},"schedules":[{}],"agents":[{}]}"#.into(), vec!["SchedulesNotSupported schedules 1:26", "AgentsNotSupported agents 1:40"]),
        (r#"{"roleAssignments":[{"type":"Microsoft.App/agents"}]}"#.into(), vec!["AgentsNotSupported roleAssignments[0] 1:21"]),
        (r#"{"managedIdentity":"x","mode":"Review"}"#.into(), vec!["AgentsNotSupported  1:1"]),
        (r#"{"type":"Microsoft.Authorization/roleManagementPolicies"}"#.into(), vec!["SchedulesNotSupported  1:1"]),
        // Names.
        (assigned(r#""condtion":"x","name":"a""#), vec!["UnknownProperty condtion 2:1"]),
        (role(r#""permissions":[{"actions":[],"notActoins":["x"]}]"#), vec!["UnknownProperty permissions[0].notActoins 2:30"]),
        (role(r#""permissions":[{"actions":[],"reason":"x"}]"#), vec!["UnknownProperty permissions[0].reason 2:30"]),
        (assigned(r#""name":"a","Name":"b""#), vec!["DuplicateProperty Name 2:12"]),
        (assigned(r#""name":"a","name":"a""#), vec!["DuplicateProperty  2:12"]),
        (assigned(r#""name":"a","objectId":"other""#), vec!["DuplicateProperty objectId 2:23"]),
        (r#"{"denyAsignments":[],"groups":{}}"#.into(), vec!["UnknownProperty denyAsignments 1:2"]),
        (r#"{"groups":{},"Groups":{}}"#.into(), vec!["DuplicateProperty Groups 1:14", "DuplicateProperty Groups 1:14"]),
        // Types.
        (assigned(r#""name":7"#), vec!["InvalidType name 2:8"]),
        (role(r#""permissions":{"actions":[]}"#), vec!["InvalidType permissions 2:15"]),
        (role(r#""permissions":[{"actions":"*"}]"#), vec!["InvalidType permissions[0].actions 2:27"]),
        (role(r#""permissions":[{"actions":["*",1]}]"#), vec!["InvalidType permissions[0].actions[1] 2:32"]),
        (role(r#""permissions":["*"]"#), vec!["InvalidType permissions[0] 2:16"]),
        (role(r#""permissions":[],"actions":[]"#), vec!["DuplicateProperty actions 2:28"]),
        (deny(r#""principals":["x"],"doNotApplyToChildScopes":"true""#), vec!["InvalidType doNotApplyToChildScopes 2:46"]),
        (r#"["x", 1, null]"#.into(), vec!["InvalidType  1:2", "InvalidType  1:7", "InvalidType  1:10"]),
        // What is missing or empty.
        (assigned(r#""x":1"#), vec!["MissingProperty name 1:1"]),
        (r#"{"RoleDefinitionId":"$ROLE","Scope":"$SUB","RoleAssignmentName":"a"}"#.into(), vec!["MissingProperty ObjectId 1:1"]),
        (r#"{"principalId":"","name":"a","scope":"/","roleDefinitionId":"$ROLE"}"#.into(), vec!["InvalidPrincipalId principalId 1:16"]),
        (r#"{"principalId":"a\tb","name":"a","scope":"/","roleDefinitionId":"$ROLE"}"#.into(), vec!["InvalidPrincipalId principalId 1:16"]),
        (r#"{"principalId":"p","name":"a","roleDefinitionId":"$ROLE"}"#.into(), vec!["MissingProperty scope 1:1"]),
        (role(r#""roleType":"CustomRole""#), vec!["MissingProperty permissions 1:1"]),
        (r#"{"Name":"Mine","Actions":["*"]}"#.into(), vec!["MissingProperty Id 1:1"]),
        (role(r#""permissions":[{"actions":["a",""]}]"#), vec!["InvalidActionOrNotAction permissions[0].actions[1] 2:32"]),
        (deny(r#""principals":[]"#), vec!["InvalidDenyAssignment principals 2:14"]),
        (deny(r#""excludePrincipals":["x"]"#), vec!["MissingProperty principals 1:1"]),
        (deny(r#""principals":[{"type":"User"}]"#), vec!["MissingProperty principals[0].id 2:15"]),
        (r#"{"groups":[{"id":"g"}]}"#.into(), vec!["MissingProperty members 1:12"]),
        // What contradicts itself.
        (
            assigned(r#""id":"/providers/Microsoft.Authorization/roleAssignments/a","name":"a""#),
            vec!["ContradictoryId id 2:6"],
        ),
        (
            assigned(r#""id":"$SUB/providers/Microsoft.Authorization/roleAssignments/a","name":"b""#),
            vec!["ContradictoryId id 2:6"],
        ),
        (
            deny(r#""principals":["x"],"excludePrincipals":["{00000000000000000000000000000000}"]"#),
            vec!["InvalidDenyAssignment excludePrincipals[0] 2:41"],
        ),
        (deny(r#""principals":["x"],"denyAssignmentEffect":"report""#), vec!["InvalidDenyAssignment denyAssignmentEffect 2:43"]),
        // Lists that are cut.
        (r#"{"value":[],"nextLink":"https://x"}"#.into(), vec!["TruncatedList  1:24"]),
        (r#"{"value":[],"@odata.nextLink":"https://x"}"#.into(), vec!["TruncatedList  1:31"]),
        (r#"{"id":"g","members":[],"members@odata.nextLink":"x"}"#.into(), vec!["TruncatedList members@odata.nextLink 1:49"]),
        // What is nothing.
        (r#"{"a":1}"#.into(), vec!["UnrecognizedDocument  1:1"]),
        ("[\n{}]".into(), vec!["UnrecognizedDocument  2:1"]),
        ("{\n\"a\": }".into(), vec!["SyntaxError  2:6"]),
        ("".into(), vec!["SyntaxError  1:1"]),
        // The hierarchy.
        (r#"{"subscriptions":{"dev":"corp"}}"#.into(), vec!["InvalidScope subscriptions.dev 1:19"]),
        (r#"{"managementGroups":{"a":"b","b":"A"}}"#.into(), vec!["HierarchyCycle managementGroups.a 1:26"]),
        (r#"{"managementGroups":{"a":"a"}}"#.into(), vec!["HierarchyCycle managementGroups.a 1:26"]),
        (r#"{"managementGroups":{"a":1}}"#.into(), vec!["InvalidType managementGroups.a 1:26"]),
        (
            r#"[{"managementGroups":{"a":"b"}},{"managementGroups":{"A":"c"}}]"#.into(),
            vec!["ConflictingParent managementGroups.A 1:58"],
        ),
        // Denies and roles know no leniency.
        (r#"{"name":"d","scope":"/x","permissions":[{"actions":["*"]}],"principals":["x"]}"#.into(), vec!["InvalidScope scope 1:21"]),
        (
            r#"{"id":"r","roleName":"R","assignableScopes":["/subscriptions/*","$SUB"],"permissions":[]}"#.into(),
            vec!["InvalidAssignableScope assignableScopes[0] 1:46"],
        ),
    ] {
        let text = fill(&text);
        for lenience in [Lenience::Strict, Lenience::Lenient] {
            let (_, problems) = load_one("x.json", &text, lenience);
            assert!(problems.has_errors(), "{text}");
            if told(&problems) != expected {
                wrong.push(format!("{text}\n  wanted {expected:?}\n  got    {:?}", told(&problems)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_an_unknown_document_looks_like() {
    for (text, message) in [
        (
            r#"{"principalName":"x","roleDefinitionName":"Owner","scope":"/"}"#,
            "looks like a role assignment, but has no `principalId` and no `roleDefinitionId`",
        ),
        (
            r#"{"roleName":"x","roleType":"BuiltInRole"}"#,
            "looks like a role definition, but has no `permissions`",
        ),
        (r#"{"x":1}"#, "this is no policy document of a known kind"),
    ] {
        let (_, problems) = load_one("x.json", text, Lenience::Strict);
        let problem = problems.iter().next().unwrap();
        assert_eq!(problem.message, message);
        assert!(problem.help.as_ref().unwrap().starts_with("found `"), "{problem}");
    }
}

/// What strict refuses and lenient tells, leaving the assignment out.
#[test]
fn leniency() {
    for (text, expected) in [
        (
            r#"{"name":"a","scope":"$SUB","roleDefinitionId":"nope","principalId":"p"}"#,
            "RoleDefinitionDoesNotExist roleDefinitionId 1:94",
        ),
        (
            r#"{"name":"a","scope":"$SUB/*","roleDefinitionId":"$ROLE","principalId":"p"}"#,
            "InvalidScope scope 1:21",
        ),
        (
            r#"{"name":"a","scope":"/subscriptions/{id}","roleDefinitionId":"$ROLE","principalId":"p"}"#,
            "InvalidScope scope 1:21",
        ),
        (
            r#"{"name":"a","type":"Microsoft.Authorization/roleAssignments","apiVersion":"x","scope":"/","properties":{"roleDefinitionId":"$ROLE","principalId":"[x]"}}"#,
            "UnresolvedTemplateExpression properties.principalId 1:177",
        ),
        (
            r#"{"name":"a","type":"Microsoft.Authorization/roleAssignments","apiVersion":"x","condition":"[x]","scope":"/","properties":{"roleDefinitionId":"$ROLE","principalId":"p"}}"#,
            "UnresolvedTemplateExpression condition 1:91",
        ),
        (
            r#"{"contentVersion":"1","resources":[{"type":"A.B/c","copy":{"count":2},"resources":[{"type":"providers/roleAssignments","scope":"/","name":"x/Microsoft.Authorization/a","properties":{}}]}]}"#,
            "UnresolvedTemplateExpression  1:84",
        ),
        (
            r#"{"contentVersion":"1","resources":[{"type":"Microsoft.Resources/deployments","properties":{"templateLink":{"uri":"x"}}}]}"#,
            "UnresolvedTemplateExpression resources[0].properties.templateLink 1:107",
        ),
    ] {
        let text = fill(text);
        let (_, problems) = load_one("x.json", &text, Lenience::Strict);
        assert_eq!(told(&problems), [expected], "{text}");
        let (documents, problems) = load_one("x.json", &text, Lenience::Lenient);
        assert_eq!(told(&problems), [format!("warning {expected}")]);
        assert!(!problems.has_errors());
        assert!(documents.role_assignments.is_empty(), "{text}");
    }
}

#[test]
fn an_unresolved_deny_is_refused_under_any_leniency() {
    let text = r#"{"name":"d","type":"Microsoft.Authorization/denyAssignments","apiVersion":"x","scope":"/","properties":{"principals":["[x]"],"permissions":[{"actions":["*"]}]}}"#;
    for lenience in [Lenience::Strict, Lenience::Lenient] {
        assert!(load_one("x.json", text, lenience).1.has_errors());
    }
}

#[test]
fn the_same_twice() {
    let a = r#"{"name":"a","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P"}"#;
    let d = r#"{"name":"d","scope":"$SUB","permissions":[{"actions":["*"]}],"principals":["x"]}"#;
    let role = r#"{"id":"r","roleName":"R","permissions":[{"actions":["x"]}],"assignableScopes":["/"]}"#;
    for (one, other, expected) in [
        (
            a,
            r#"{"name":"A","scope":"$SUB/","roleDefinitionId":"$ROLE","principalId":"22222222222222222222222222222222"}"#,
            vec![],
        ),
        (
            a,
            r#"{"name":"A","scope":"/","roleDefinitionId":"$ROLE","principalId":"$P"}"#,
            vec!["RoleAssignmentUpdateNotPermitted name 2:9"],
        ),
        (
            a,
            r#"{"name":"b","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P"}"#,
            vec!["warning RoleAssignmentExists name 2:9"],
        ),
        (d, d, vec![]),
        (
            d,
            r#"{"name":"D","scope":"/","permissions":[{"actions":["*"]}],"principals":["x"]}"#,
            vec!["DuplicateDenyAssignment name 2:9"],
        ),
        (role, role, vec![]),
        (
            role,
            r#"{"id":"r","roleName":"R","permissions":[{"actions":["y"]}],"assignableScopes":["/"]}"#,
            vec!["DuplicateRoleDefinition id 2:7"],
        ),
        (
            role,
            r#"{"id":"s","roleName":"r","permissions":[{"actions":["x"]}],"assignableScopes":["/"]}"#,
            vec!["RoleDefinitionWithSameNameExists roleName 2:22"],
        ),
    ] {
        let text = fill(&format!("[{one},\n{other}]"));
        let (documents, problems) = load_one("x.json", &text, Lenience::Strict);
        assert_eq!(told(&problems), expected, "{problems:#?}");
        if expected.is_empty() {
            let roles = documents.role_definitions.len().saturating_sub(1);
            assert_eq!(documents.role_assignments.len() + documents.deny_assignments.len() + roles, 1);
        }
    }
}

#[test]
fn warnings_of_custom_roles() {
    let text = fill(
        r#"[{"id":"r","roleName":"R","roleType":"CustomRole","assignableScopes":["/"],"permissions":[{"actions":["a/*/b/*"]}]},
{"id":"s","roleName":"S","roleType":"CustomRole","assignableScopes":[],"permissions":[]}]"#,
    );
    let (documents, problems) = load_one("x.json", &text, Lenience::Strict);
    let expected = [
        "warning InvalidAssignableScope assignableScopes[0] 1:71",
        "warning InvalidActionOrNotAction permissions[0].actions[0] 1:103",
        "warning InvalidAssignableScope assignableScopes 2:1",
    ];
    assert_eq!(told(&problems), expected);
    assert_eq!(documents.role_definitions.len(), 3);
}

#[test]
fn a_deny_at_a_management_group_wants_the_hierarchy() {
    let text = |more: &str| {
        fill(&format!(
            r#"{{"denyAssignments":[{{"name":"d","scope":"/providers/Microsoft.Management/managementGroups/corp","permissions":[{{"actions":["*"]}}],"principals":["x"]{more}}}],"roleAssignments":[{{"name":"a","scope":"$SUB/resourceGroups/g","roleDefinitionId":"$ROLE","principalId":"p"}}]"#
        ))
    };
    let told_of = |text: String| told(&load_one("x.json", &text, Lenience::Strict).1);
    assert_eq!(told_of(text("") + "}"), ["warning UnknownHierarchy scope 1:41"]);
    assert_eq!(
        told_of(text("") + r#","subscriptions":{"11111111-1111-1111-1111-111111111111":"corp"}}"#),
        [""; 0]
    );
    assert_eq!(told_of(text(r#","doNotApplyToChildScopes":true"#) + "}"), [""; 0]);
    assert_eq!(told_of(text(r#","denyAssignmentEffect":"audit""#) + "}"), [""; 0]);
}

#[test]
fn a_refused_role_is_told_once() {
    let text = fill(
        r#"[{"id":"r","roleName":"R","assignableScopes":["/"],"permissions":[{"actions":["*"],"condition":"x"}]},
{"name":"a","scope":"$SUB","roleDefinitionId":"r","principalId":"p"}]"#,
    );
    let (_, problems) = load_one("x.json", &text, Lenience::Strict);
    assert_eq!(told(&problems), ["ConditionsNotSupported permissions[0].condition 1:96"]);
}

#[test]
fn every_file_is_read_whatever_is_wrong_with_the_others() {
    let files = vec![
        ("b.json".to_owned(), b"{".to_vec()),
        ("a.json".to_owned(), b"\xFF".to_vec()),
        ("c.yaml".to_owned(), b"a: [".to_vec()),
        ("d.json".to_owned(), br#"{"id":"g","members":["a"]}"#.to_vec()),
    ];
    let (documents, problems) = load_texts(files, Lenience::Strict);
    let told: Vec<_> = problems.iter().map(|problem| problem.code).collect();
    assert_eq!(told, ["InvalidEncoding", "SyntaxError", "SyntaxError"]);
    assert!(problems.iter().next().unwrap().message.starts_with("`a.json`: the file is not UTF-8"));
    assert_eq!(documents.groups.len(), 1);
    let paths: Vec<_> = documents.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["b.json", "c.yaml", "d.json"]);
}

#[test]
fn nothing_at_all_is_an_error() {
    for files in [vec![], vec![("a.yaml".to_owned(), b"# nothing\n".to_vec())]] {
        let (_, problems) = load_texts(files, Lenience::Lenient);
        assert_eq!(problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), ["NoDocuments"]);
    }
    let empty = load_texts(vec![("a.json".to_owned(), b"[]".to_vec())], Lenience::Strict);
    assert!(empty.1.is_empty());
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("README.md"), "x").unwrap();
    let (_, problems) = load(directory.path(), Lenience::Strict);
    assert_eq!(problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), ["NoDocuments"]);
}

#[test]
fn windows_powershell_output_is_read() {
    let text = fill(
        "[ \r\n    { \r\n        \"RoleAssignmentId\":  \"$SUB/providers/Microsoft.Authorization/roleAssignments/a\", \r\n        \"ObjectId\":  \"$P\",\r\n        \"RoleDefinitionId\":  \"$ROLE\",\r\n        \"Scope\":  \"$SUB\"\r\n    }\r\n]\r\n",
    );
    let bytes = [0xFF, 0xFE].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    let (documents, problems) = load_texts(vec![owner(), ("x.json".into(), bytes)], Lenience::Strict);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(documents.role_assignments.len(), 1);
}

#[test]
fn no_broken_document_panics() {
    let documents = [
        r#"{"value":[{"properties":{"roleDefinitionId":"$ROLE","principalId":"$P","scope":"$SUB","condition":null},"id":"/providers/Microsoft.Authorization/roleAssignments/a"}],"nextLink":null}"#,
        r#"{"roleDefinitions":[{"id":"r","permissions":[{"actions":["a/*"]}]}],"groups":{"g":["a"]},"managementGroups":{"a":"b"},"subscriptions":{"11111111-1111-1111-1111-111111111111":"a"},"denyAssignments":[{"name":"d","scope":"/","permissions":[{"actions":["*"]}],"principals":[{"id":"x"}]}]}"#,
        r#"{"contentVersion":"1","resources":[{"type":"Microsoft.Authorization/roleAssignments","condition":"[x]","copy":{},"scope":"/","properties":{"principalId":"[[x"},"resources":{"a":{"type":"Microsoft.Resources/deployments","properties":{"template":{}}}}}]}"#,
        r#"{"id":"/providers/Microsoft.Management/managementGroups/a","type":"x/managementGroups","details":{"parent":{"id":"b"}},"children":[{"type":"/subscriptions","id":"c"}]}"#,
    ];
    for text in documents {
        let text = fill(text);
        for at in 0..text.len() {
            let (head, tail) = text.split_at(at);
            for odd in ["\"", "null,", "[", "}", "{", "é", "1", "*"] {
                let broken = format!("{head}{odd}{}", tail.get(1..).unwrap());
                for name in ["x.json", "x.yaml", "x.jsonl"] {
                    let _ = load_one(name, &broken, Lenience::Lenient);
                }
            }
        }
        // A value of another type in the place of each.
        for quoted in ["\"$P\"", "[", "{"] {
            let quoted = fill(quoted);
            for (at, _) in text.match_indices(&quoted) {
                for other in ["null", "7", "\"\"", "[[]]", "{\"id\":{}}"] {
                    let (head, tail) = text.split_at(at);
                    let broken = format!("{head}{other},{tail}");
                    let _ = load_one("x.json", &broken, Lenience::Strict);
                }
            }
        }
    }
}

#[test]
fn large_objects_take_no_quadratic_time() {
    let names: Vec<_> = (0..50_000).map(|n| format!("\"key{n}\":{{\"a\":1}}")).collect();
    let text = format!("{{\"principalId\":\"p\",{},\"KEY7\":1}}", names.join(","));
    let (_, problems) = load_one("x.json", &text, Lenience::Strict);
    assert!(problems.iter().any(|problem| problem.message == "`KEY7` is `key7` once more"));
}
