//! Whole documents: every shape, every refusal with its place.

use super::*;
use crate::model::{AgentLevel, AgentMode, DenyEffect, Severity};

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
        (assigned(r#""name":"a","condition":7"#), vec!["InvalidType condition 2:24"]),
        (assigned(r#""name":"a","condition":"x","conditionVersion":["2.0"]"#), vec!["InvalidType conditionVersion 2:47"]),
        (role(r#""permissions":[{"actions":["*"]}],"condition":"true""#), vec!["InvalidCondition condition 2:47"]),
        // Schedules.
        (assigned(r#""name":"a","type":"Microsoft.Authorization/roleAssignments","startDateTime":"2025-01-01T00:00:00Z""#), vec!["MissingProperty kind 1:1"]),
        (assigned(r#""name":"a","endDateTime":"2025-01-01T00:00:00Z""#), vec!["MissingProperty kind 1:1"]),
        (format!(r#"{{"schedules":[{{{ok},"name":"s"}}]}}"#), vec!["MissingProperty kind 1:15"]),
        (assigned(r#""name":"a","kind":"permanent","startDateTime":"2025-01-01T00:00:00Z""#), vec!["InvalidSchedule kind 2:19"]),
        (assigned(r#""name":"a","kind":"active","roleEligibilityScheduleId":"x""#), vec!["ContradictoryKind  1:1"]),
        (assigned(r#""name":"a","type":"Microsoft.Authorization/roleEligibilitySchedules","assignmentType":"Activated""#), vec!["ContradictoryKind  1:1"]),
        (
            assigned(r#""id":"$SUB/providers/Microsoft.Authorization/roleEligibilitySchedules/a","type":"Microsoft.Authorization/roleEligibilityScheduleInstances""#),
            vec!["ContradictoryKind  1:1"],
        ),
        (format!(r#"{{"roleEligibilitySchedules":[{{{ok},"name":"s","kind":"active"}}]}}"#), vec!["ContradictoryKind  1:30"]),
        (r#"{"type":"Microsoft.Authorization/roleEligibilitySchedules"}"#.into(), vec!["MissingProperty name 1:1", "MissingProperty scope 1:1", "MissingProperty roleDefinitionId 1:1", "MissingProperty principalId 1:1"]),
        (assigned(r#""name":"a","kind":"active","startDateTime":"2025-01-01""#), vec!["InvalidDateTime startDateTime 2:44"]),
        (assigned(r#""name":"a","kind":"active","startDateTime":7,"endDateTime":"""#), vec!["InvalidType startDateTime 2:44", "InvalidDateTime endDateTime 2:60"]),
        (assigned(r#""name":"a","kind":"active","endDatTime":"2025-01-01T00:00:00Z""#), vec!["UnknownProperty endDatTime 2:28"]),
        (assigned(r#""name":"a","kind":"active","status":"Active""#), vec!["InvalidSchedule status 2:37"]),
        (assigned(r#""name":"a","kind":"active","scheduleInfo":{"expiration":{"type":"AfterDuration","duration":"8h"}}"#), vec!["InvalidSchedule scheduleInfo.expiration.duration 2:92"]),
        (assigned(r#""name":"a","kind":"active","scheduleInfo":{"expiration":{"type":"AfterDuration","duration":"PT8H"}}"#), vec!["InvalidSchedule scheduleInfo.expiration.duration 2:92"]),
        (assigned(r#""name":"a","kind":"active","scheduleInfo":{"expiration":{"type":"AfterDateTime"}}"#), vec!["MissingProperty scheduleInfo.expiration.endDateTime 2:57"]),
        (assigned(r#""name":"a","kind":"active","scheduleInfo":{"expiration":{"type":"Never"}}"#), vec!["InvalidSchedule scheduleInfo.expiration.type 2:65"]),
        (assigned(r#""name":"a","kind":"active","scheduleInfo":"P1D""#), vec!["InvalidType scheduleInfo 2:43"]),
        // Policies of PIM.
        (r#"{"type":"Microsoft.Authorization/roleManagementPolicies"}"#.into(), vec!["MissingProperty name 1:1", "MissingProperty rules 1:1"]),
        (r#"{"roleManagementPolicyAssignments":[{"scope":"$SUB","roleDefinitionId":"$ROLE"}]}"#.into(), vec!["MissingProperty effectiveRules 1:37"]),
        (r#"{"roleManagementPolicyAssignments":[{"scope":"$SUB","roleDefinitionId":"$ROLE","policyId":"/x/p"}]}"#.into(), vec!["PolicyDoesNotExist policyId 1:169"]),
        (
            r#"{"scope":"$SUB","roleDefinitionId":"$ROLE","properties":{"effectiveRules":[{"id":"Enablement_EndUser_Assignment","enabledRules":["Mfa"]},
{"id":"Expiration_EndUser_Assignment","maximumDuration":"8h"},{"id":"Approval_EndUser_Assignment","setting":{"isApprovalRequired":true}},{}]}}"#.into(),
            vec![
                "InvalidPolicyRule properties.effectiveRules[0].enabledRules[0] 1:208",
                "InvalidPolicyRule properties.effectiveRules[1].maximumDuration 2:57",
                "InvalidPolicyRule properties.effectiveRules[2].setting.approvalStages 2:109",
                "InvalidPolicyRule properties.effectiveRules[3].id 2:138",
            ],
        ),
        (r#"{"roleManagementPolicyAssignments":[{"scope":"$SUB","roleDefinitionId":"$ROLE","effectiveRules":{}}]}"#.into(), vec!["InvalidType effectiveRules 1:175"]),
        (r#"{"activationPolicies":[{"scope":"$SUB","roleDefinitionId":"$ROLE","maxDuration":"PT8H"}]}"#.into(), vec!["UnknownProperty maxDuration 1:145"]),
        (r#"{"activationPolicies":[{"scope":"$SUB","roleDefinitionId":"$ROLE","maximumDuration":"8h","mfa":"yes"}]}"#.into(), vec!["InvalidPolicyRule maximumDuration 1:163", "InvalidType mfa 1:174"]),
        (r#"{"activationPolicies":[{"scope":"$SUB","roleDefinitionId":"$ROLE","approval":true}]}"#.into(), vec!["MissingProperty approvers 1:24"]),
        (r#"{"activationPolicies":[{"scope":"$SUB","roleDefinitionId":"$ROLE","approval":false,"approvers":["x"]}]}"#.into(), vec!["InvalidPolicyRule approval 1:24"]),
        (r#"{"activationPolicies":[{"scope":"$SUB","roleDefinitionId":"$ROLE","approvers":["",{}]}]}"#.into(), vec!["InvalidPrincipalId approvers[0] 1:158", "MissingProperty approvers[1].id 1:161"]),
        (
            r#"{"activationPolicies":[{"scope":"$SUB","roleDefinitionId":"$ROLE","mfa":true},
{"scope":"$SUB/","roleDefinitionId":"/x/$ROLE"}]}"#.into(),
            vec!["ContradictoryPolicy  2:1"],
        ),
        // Agents.
        (r#"{"managedIdentity":"x","mode":"ReadOnly","level":"Owner"}"#.into(), vec!["InvalidAgent mode 1:31", "InvalidAgent level 1:50"]),
        (r#"{"agents":[{"name":"a","managedIdentity":{"clientId":"x"}}]}"#.into(), vec!["MissingProperty principalId 1:12"]),
        (r#"{"agents":[{"managedIdentity":"$SUB/x","managedResourceGroups":["$SUB"]}]}"#.into(), vec!["InvalidPrincipalId managedIdentity 1:31", "InvalidScope managedResourceGroups[0] 1:112"]),
        (r#"{"agents":[{"id":"sre","principalId":"x","queryActions":["*/read"]}]}"#.into(), vec!["InvalidScope id 1:18", "InvalidAction queryActions[0] 1:58"]),
        (r#"{"agents":[{"principalId":"x","managedResourceGroup":["$SUB"]}]}"#.into(), vec!["UnknownProperty managedResourceGroup 1:31"]),
        (
            r#"{"agents":[{"principalId":"$P"},
{"principalId":"{$P}","mode":"auto"}]}"#.into(),
            vec!["DuplicateAgent principalId 2:16"],
        ),
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
            r#"{"name":"a","kind":"active","scope":"$SUB","roleDefinitionId":"nope","principalId":"p"}"#,
            "RoleDefinitionDoesNotExist roleDefinitionId 1:110",
        ),
        (
            r#"{"activationPolicies":[{"scope":"/subscriptions/x","roleDefinitionId":"$ROLE"}]}"#,
            "InvalidScope scope 1:33",
        ),
        (
            r#"{"agents":[{"principalId":"p","approverRole":"nope"}]}"#,
            "RoleDefinitionDoesNotExist approverRole 1:46",
        ),
        (
            r#"{"name":"a","type":"Microsoft.App/agents","apiVersion":"x","identity":{"type":"SystemAssigned"}}"#,
            "UnresolvedTemplateExpression principalId 1:1",
        ),
        (
            r#"{"contentVersion":"1","resources":[{"type":"A.B/c","copy":{"count":2},"resources":[{"type":"providers/roleAssignments","scope":"/","name":"x/Microsoft.Authorization/a","properties":{}}]}]}"#,
            "UnresolvedTemplateExpression  1:84",
        ),
    ] {
        let text = fill(text);
        let (_, problems) = load_one("x.json", &text, Lenience::Strict);
        assert_eq!(told(&problems), [expected], "{text}");
        let (documents, problems) = load_one("x.json", &text, Lenience::Lenient);
        assert_eq!(told(&problems), [format!("warning {expected}")]);
        assert!(!problems.has_errors());
        assert!(documents.role_assignments.is_empty(), "{text}");
        assert!(documents.schedules.iter().all(|schedule| !schedule.is_provisioned()), "{text}");
        assert!(documents.activation_policies.is_empty(), "{text}");
    }
}

#[test]
fn an_unresolved_deny_is_refused_under_any_leniency() {
    let text = r#"{"name":"d","type":"Microsoft.Authorization/denyAssignments","apiVersion":"x","scope":"/","properties":{"principals":["[x]"],"permissions":[{"actions":["*"]}]}}"#;
    for lenience in [Lenience::Strict, Lenience::Lenient] {
        assert!(load_one("x.json", text, lenience).1.has_errors());
    }
}

/// The codes of the errors of each text, under each leniency.
fn refused_under_any_leniency(cases: &[(&str, &[&str])]) {
    let mut wrong = Vec::new();
    for (text, expected) in cases {
        let text = fill(&text.replace("$DENY", LOOSE_DENY).replace("$BODY", DENY_BODY));
        for lenience in [Lenience::Strict, Lenience::Lenient] {
            let (_, problems) = load_one("x.json", &text, lenience);
            let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
            let codes: Vec<_> = errors.map(|problem| problem.code).collect();
            if codes != *expected {
                wrong.push(format!("{text}\n  wanted {expected:?}\n  got    {:?}", told(&problems)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const DENY_BODY: &str = r#""principals":["$P"],"permissions":[{"actions":["*"]}]"#;
const LOOSE_DENY: &str = r#"{"name":"d","scope":"$SUB",$BODY}"#;

#[test]
fn no_section_beside_another_form_is_lost() {
    refused_under_any_leniency(&[
        (r#"{"value":[],"denyAssignments":[$DENY]}"#, &["UnknownProperty"]),
        (r#"{"value":[],"d1":$DENY}"#, &["UnknownProperty"]),
        (r#"{"value":[],"VALUE":[$DENY]}"#, &["DuplicateProperty"]),
        (r#"{"value":[],"$skipToken":"x"}"#, &["TruncatedList"]),
        (r#"{"denyAssignments":{"value":[],"d1":$DENY}}"#, &["UnknownProperty"]),
        (r#"{"contentVersion":"1","resources":[],"denyAssignments":[$DENY]}"#, &["UnknownProperty"]),
        (r#"{"contentVersion":"1","resources":[],"Resources":[]}"#, &["DuplicateProperty"]),
        (
            r#"{"name":"a","type":"Microsoft.Authorization/roleAssignments","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P","denyAssignments":[$DENY]}"#,
            &["UnknownProperty"],
        ),
    ]);
    for text in [
        r#"{"@odata.context":"x","$schema":"y","count":1,"totalCount":1,"nextLink":null,"value":[$DENY]}"#,
        r#"{"denyAssignments":{"value":[$DENY],"Count":1}}"#,
    ] {
        let text = fill(&text.replace("$DENY", LOOSE_DENY).replace("$BODY", DENY_BODY));
        assert_eq!(clean("x.json", &text).deny_assignments.len(), 1, "{text}");
    }
}

#[test]
fn no_schedule_of_a_template_is_lost() {
    for more in
        [r#","condition":"[parameters('x')]","scope":"$SUB""#, r#","copy":{"count":1},"scope":"$SUB""#, ""]
    {
        let text = fill(&format!(
            r#"{{"contentVersion":"1","resources":[{{"type":"Microsoft.Authorization/roleEligibilitySchedules",
"apiVersion":"x","name":"e"{more},"properties":{{"roleDefinitionId":"$ROLE","principalId":"p"}}}}]}}"#
        ));
        let (_, problems) = load_texts(vec![("x.json".into(), text.clone().into_bytes())], Lenience::Lenient);
        assert!(problems.has_errors(), "{text}");
    }
}

#[test]
fn no_deny_of_a_template_is_lost() {
    let unresolved: &[&str] = &["UnresolvedTemplateExpression"];
    let resource = |more: &str, properties: &str| {
        format!(
            r#"{{"type":"Microsoft.Authorization/denyAssignments","apiVersion":"x","name":"d"{more},"properties":{{$BODY{properties}}}}}"#
        )
    };
    let scoped = r#","scope":"$SUB""#;
    let deny = resource("", scoped);
    let template = |resources: &str| format!(r#"{{"contentVersion":"1","resources":{resources}}}"#);
    let deployment = |kind: &str, more: &str, properties: &str| {
        template(&format!(r#"[{{"type":"Microsoft.Resources/{kind}"{more},"properties":{{{properties}}}}}]"#))
    };
    let inner = format!(r#""template":{{"resources":[{deny}]}}"#);
    let open = r#","condition":"[parameters('x')]""#;
    let typed = |name: &str| {
        template(&format!("[{}]", deny.replace("Microsoft.Authorization/denyAssignments", name)))
    };
    let texts: Vec<(String, &[&str])> = vec![
        (template(&format!("[{}]", resource(open, scoped))), unresolved),
        (template(&format!("[{}]", resource(r#","copy":{"count":1}"#, scoped))), unresolved),
        (
            template(&format!(
                "[{}]",
                resource("", r#","scope":"$SUB","copy":[{"name":"excludePrincipals"}]"#)
            )),
            unresolved,
        ),
        (template(&format!("[{}]", resource("", ""))), unresolved),
        (template(&format!("[{}]", resource("", r#","scope":"Microsoft.Storage/x/y""#))), unresolved),
        (resource("", ""), unresolved),
        (template("\"[parameters('r')]\""), unresolved),
        (deployment("deployments", open, &inner), unresolved),
        (deployment("deployments", "", r#""template":"[parameters('t')]""#), unresolved),
        (deployment("deployments", "", r#""templateLink":{"uri":"x"}"#), unresolved),
        (deployment("deployments", "", ""), unresolved),
        (
            deployment("deployments", "", r#""template":{"resources":[],"denyAssignments":[]}"#),
            &["UnknownProperty"],
        ),
        (deployment("deploymentStacks", open, &inner), unresolved),
        (deployment("deploymentStacks", "", r#""templateLink":{"uri":"x"}"#), unresolved),
        (
            deployment("deploymentStacks", "", r#""template":{},"denySettings":{"mode":"denyDelete"}"#),
            unresolved,
        ),
        // Types that are almost right, or none.
        (typed("Microsoft.Authorization/denyassignment"), &["UnknownResourceType"]),
        (typed("Microsoft.Authorization/denyAssignments@2022-04-01"), &["UnknownResourceType"]),
        (typed(" Microsoft.Authorization/denyAssignments"), &["UnknownResourceType"]),
        (typed("denyAssignments"), &["UnknownResourceType"]),
        (typed("Microsoft.Authorization/roleAssignment"), &["UnknownResourceType"]),
        (typed("[variables('t')]"), unresolved),
        (template(&format!("[{{{}}}]", &DENY_BODY)), &["MissingProperty"]),
        // Below another resource.
        (
            template(&format!(
                r#"[{{"type":"Microsoft.Authorization/roleAssignments","apiVersion":"x","name":"a","scope":"$SUB","properties":{{"roleDefinitionId":"$ROLE","principalId":"$P"}},"resources":[{}]}}]"#,
                resource(open, scoped)
            )),
            unresolved,
        ),
        (template(&format!(r#"[{{"type":"A.B/c","condition":false,"resources":[{deny}]}}]"#)), unresolved),
        (
            template(&format!(r#"[{{"type":"A.B/c","existing":true,"resources":[{}]}}]"#, resource("", ""))),
            unresolved,
        ),
    ];
    let texts: Vec<_> = texts.iter().map(|(text, codes)| (text.as_str(), *codes)).collect();
    refused_under_any_leniency(&texts);
    for text in [
        template(&format!("[{deny}]")),
        deployment("deployments", "", &inner),
        deployment("deploymentStacks", "", &format!(r#"{inner},"denySettings":{{"mode":"none"}}"#)),
        template(&format!(r#"[{{"type":"A.B/c","resources":[{deny}]}}]"#)),
        template(&format!(
            r#"[{{"type":"Microsoft.Authorization/roleAssignments","apiVersion":"x","name":"a","scope":"$SUB","properties":{{"roleDefinitionId":"$ROLE","principalId":"$P"}},"resources":[{deny}]}}]"#
        )),
        template(&format!(
            r#"[{deny},{{"type":"Microsoft.Authorization/policyAssignments","name":"[x]"}},{{"type":"Microsoft.Authorization/locks"}}]"#
        )),
    ] {
        let text = fill(&text.replace("$BODY", DENY_BODY));
        assert_eq!(clean("x.json", &text).deny_assignments.len(), 1, "{text}");
    }
}

#[test]
fn no_deny_in_another_section_is_lost() {
    let mut texts = Vec::new();
    for section in [
        "roleDefinitions",
        "roleAssignments",
        "groups",
        "managementGroups",
        "subscriptions",
        "schedules",
        "roleAssignmentSchedules",
        "roleAssignmentScheduleRequests",
        "roleManagementPolicies",
        "roleManagementPolicyAssignments",
        "activationPolicies",
        "agents",
    ] {
        texts.push(format!(r#"{{"{section}":[$DENY]}}"#));
        texts.push(format!(
            r#"{{"{section}":[{{"type":"Microsoft.Authorization/denyAssignments","id":"$SUB"}}]}}"#
        ));
    }
    texts.push(r#"{"managementGroups":{"d1":$DENY}}"#.into());
    texts.push(r#"{"roleAssignmentScheduleRequests":[{"value":[$DENY]}]}"#.into());
    texts.push(r#"{"managementGroups":[{"name":"x","denyAssignments":[$DENY]}]}"#.into());
    texts.push(r#"{"managementGroups":[{"id":"$SUB","type":"/subscriptions"}]}"#.into());
    texts.push(
        r#"{"groups":[{"id":"g","members":[],"type":"Microsoft.Authorization/roleDefinitions"}]}"#.into(),
    );
    let texts: Vec<(&str, &[&str])> =
        texts.iter().map(|text| (text.as_str(), &["ContradictoryKind"] as &[&str])).collect();
    refused_under_any_leniency(&texts);
}

#[test]
fn a_deny_that_could_be_something_else_is_none() {
    let other: &[&str] = &["ContradictoryKind"];
    refused_under_any_leniency(&[
        (
            r#"{"name":"d","scope":"$SUB",$BODY,"type":"Microsoft.Authorization/roleDefinitions","roleName":"x"}"#,
            other,
        ),
        (
            r#"{"id":"$SUB/providers/Microsoft.Authorization/denyAssignments/d",$BODY,"type":"Microsoft.Authorization/roleDefinitions"}"#,
            other,
        ),
        (
            r#"{"denyAssignments":[{"name":"d","scope":"$SUB",$BODY,"id":"/providers/Microsoft.Authorization/roleAssignmentScheduleRequests/x"}]}"#,
            other,
        ),
    ]);
    for more in [
        r#""requestType":"AdminAssign""#,
        r#""requestType":"AdminAssign","roleDefinitionId":"$ROLE","startDateTime":"2020-01-01T00:00:00Z""#,
        r#""startDateTime":"2020-01-01T00:00:00Z""#,
        r#""members":[]"#,
        r#""managedIdentity":{"principalId":"x"},"mode":"auto""#,
        r#""policyId":"x","roleDefinitionId":"x""#,
    ] {
        for text in [
            format!(r#"{{"name":"d","scope":"$SUB",$BODY,{more}}}"#),
            format!(r#"{{"denyAssignments":[{{"name":"d","scope":"$SUB",$BODY,{more}}}]}}"#),
        ] {
            let text = fill(&text.replace("$BODY", DENY_BODY));
            assert_eq!(clean("x.json", &text).deny_assignments.len(), 1, "{text}");
        }
    }
}

#[test]
fn a_deny_that_hits_less_than_it_seems_to_is_refused() {
    let deny = |principal: &str, block: &str| {
        format!(
            r#"{{"name":"d","scope":"$SUB","principals":["{principal}"],"permissions":[{{"actions":["*"]}},{block}]}}"#
        )
    };
    let any = r#"{"actions":["a"]}"#;
    let texts: Vec<(String, &[&str])> = vec![
        (deny("x", r#"{"actions":["a/write "]}"#), &["InvalidActionOrNotAction"]),
        (deny("$P ", any), &["InvalidPrincipalId"]),
        (deny("All Principals", any), &["InvalidPrincipalId"]),
        (deny("everyone", any), &["InvalidPrincipalId"]),
        (deny("*", any), &["InvalidPrincipalId"]),
        (r#"{"groups":{"g":[" $P"]}}"#.into(), &["InvalidPrincipalId"]),
        (
            r#"{"name":"a","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P\u00a0"}"#.into(),
            &["InvalidPrincipalId"],
        ),
    ];
    let texts: Vec<_> = texts.iter().map(|(text, codes)| (text.as_str(), *codes)).collect();
    refused_under_any_leniency(&texts);
    let (_, problems) = load_one("x.json", &fill(&deny("All Principals", any)), Lenience::Strict);
    let help = problems.iter().next().unwrap().help.clone().unwrap();
    assert!(help.contains("00000000-0000-0000-0000-000000000000"), "{help}");
    // An entry that names nothing says so itself: it is told, and hits nothing.
    for block in ["{}", r#"{"notActions":["a"]}"#] {
        let (documents, problems) = load_one("x.json", &fill(&deny("x", block)), Lenience::Strict);
        assert_eq!(told(&problems).len(), 1);
        assert!(
            told(&problems)[0].starts_with("warning InvalidDenyAssignment permissions[1] "),
            "{problems:?}"
        );
        assert_eq!(documents.deny_assignments[0].permissions.len(), 2);
    }
    // A role that grants less than it seems to.
    let role = r#"{"id":"r","roleName":"R","roleType":"CustomRole","assignableScopes":["$SUB"],"permissions":[{"actions":[" a/b"]}]}"#;
    let (_, problems) = load_one("x.json", &fill(role), Lenience::Strict);
    assert!(!problems.has_errors());
    assert!(
        told(&problems)
            .iter()
            .all(|line| line.starts_with("warning InvalidActionOrNotAction permissions[0].actions[0] "))
    );
    assert!(!problems.is_empty());
}

#[test]
fn an_agent_has_one_identity() {
    let agent = |identity: &str| {
        format!(
            r#"{{"type":"Microsoft.App/agents","name":"a","identity":{identity},"properties":{{"managedResourceGroups":["$SUB/resourceGroups/g"]}}}}"#
        )
    };
    let texts = [
        agent(r#"{"principalId":"$P","userAssignedIdentities":{"/x":{"principalId":"y"}}}"#),
        agent(r#"{"userAssignedIdentities":{"/x":{"principalId":"y"},"/z":{}}}"#),
    ];
    refused_under_any_leniency(&[(&texts[0], &["InvalidAgent"]), (&texts[1], &["InvalidAgent"])]);
    let text = fill(&agent(r#"{"principalId":"$P","userAssignedIdentities":{}}"#));
    let (documents, problems) = load_one("x.json", &text, Lenience::Strict);
    assert!(!problems.has_errors(), "{problems:?}");
    assert_eq!(documents.agents.len(), 1);
}

#[test]
fn the_same_twice() {
    let a = r#"{"name":"a","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P"}"#;
    let d = r#"{"name":"d","scope":"$SUB","permissions":[{"actions":["*"]}],"principals":["x"]}"#;
    let e = r#"{"name":"e","kind":"eligible","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P","startDateTime":"2025-01-01T00:00:00Z"}"#;
    let agent = r#"{"principalId":"$P","managedResourceGroups":[],"mode":"auto"}"#;
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
        (
            r#"{"name":"a","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P","condition":"@Principal[a] StringEquals 'x'"}"#,
            r#"{"name":"a","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P","condition":"@Principal[a] StringEquals 'x'","conditionVersion":"2.0"}"#,
            vec![],
        ),
        (
            a,
            r#"{"name":"a","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P","condition":"@Principal[a] StringEquals 'x'"}"#,
            vec!["RoleAssignmentUpdateNotPermitted name 2:9"],
        ),
        (e, e, vec![]),
        (
            e,
            r#"{"name":"E","kind":"eligibility","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P","startDateTime":"2025-01-01T01:00:00+01:00","status":"provisioned"}"#,
            vec![],
        ),
        (
            e,
            r#"{"name":"E","kind":"eligible","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P"}"#,
            vec!["DuplicateSchedule name 2:9"],
        ),
        (agent, agent, vec![]),
        (d, d, vec![]),
        (
            d,
            r#"{"name":"d","scope":"$SUB","permissions":[{"actions":["*"],"condition":"@Principal[a] StringEquals 'x'"}],"principals":["x"]}"#,
            vec!["DuplicateDenyAssignment name 2:9"],
        ),
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
            let pim = documents.schedules.len() + documents.agents.len();
            assert_eq!(documents.role_assignments.len() + documents.deny_assignments.len() + roles + pim, 1);
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
        r#"[{"id":"r","roleName":"R","assignableScopes":["/"],"permissions":[{"actions":["*"],"condition":7}]},
{"name":"a","scope":"$SUB","roleDefinitionId":"r","principalId":"p"}]"#,
    );
    let (_, problems) = load_one("x.json", &text, Lenience::Strict);
    assert_eq!(told(&problems), ["InvalidType permissions[0].condition 1:96"]);
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
        r#"{"schedules":[{"kind":"active","name":"s","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P","scheduleInfo":{"startDateTime":"2025-01-01T00:00:00Z","expiration":{"duration":"PT8H"}},"linkedRoleEligibilityScheduleId":"e","condition":"a\n \"b\" '","conditionVersion":"1"}]}"#,
        r#"{"roleManagementPolicyAssignments":[{"scope":"$SUB","roleDefinitionId":"$ROLE","effectiveRules":[{"id":"Approval_EndUser_Assignment","setting":{"isApprovalRequired":true,"approvalStages":[{"primaryApprovers":[{"id":"x"}]}]}}]}],"agents":[{"principalId":"$P","managedResourceGroups":["$SUB"],"privilegedRoles":[{"id":"x"}]}]}"#,
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

// === conditions ===

const GOOD: &str = "@Principal[a] StringEquals 'x'";

#[test]
fn conditions_are_read_where_they_stand() {
    let text = fill(&format!(
        r#"{{"roleDefinitions":[
{{"id":"r","roleName":"R","assignableScopes":["/"],"permissions":[{{"actions":["*"]}},{{"actions":["a"],"condition":"{GOOD}","conditionVersion":"2.0"}}]}},
{{"Id":"s","Name":"S","AssignableScopes":["/"],"Actions":["*"],"Condition":"{GOOD}","ConditionVersion":null}},
{{"id":"t","roleName":"T","assignableScopes":["/"],"permissions":[{{"actions":["*"]}}],"condition":" \n "}}],
"roleAssignments":[
{{"name":"a","scope":"$SUB","roleDefinitionId":"r","principalId":"p","condition":"{GOOD}","conditionVersion":2.0}},
{{"name":"b","scope":"$SUB","roleDefinitionId":"r","principalId":"q","condition":null,"conditionVersion":"7"}}],
"denyAssignments":[
{{"name":"d","scope":"$SUB","principals":["x"],"permissions":[{{"actions":["*"],"condition":"{GOOD}"}}],"condition":"{GOOD}"}},
{{"Id":"/providers/Microsoft.Authorization/denyAssignments/e","Scope":"/","Principals":["x"],"Actions":["*"],"Condition":"{GOOD}"}}]}}"#
    ));
    let documents = clean("x.json", &text);
    let version = |condition: &Option<crate::model::ConditionText>| {
        condition.as_ref().map(|condition| {
            assert_eq!(condition.text.value, GOOD);
            condition.version.as_ref().map(|version| version.value.clone())
        })
    };
    let blocks: Vec<_> = documents.role_definitions[1..]
        .iter()
        .flat_map(|role| role.permissions.iter().map(|block| version(&block.condition)))
        .collect();
    assert_eq!(blocks, [None, Some(Some("2.0".into())), Some(None), None]);
    let assignments: Vec<_> =
        documents.role_assignments.iter().map(|assignment| version(&assignment.condition)).collect();
    assert_eq!(assignments, [Some(Some("2.0".into())), None]);
    let denies: Vec<_> = documents
        .deny_assignments
        .iter()
        .map(|deny| (version(&deny.condition), version(&deny.permissions[0].condition)))
        .collect();
    assert_eq!(denies, [(Some(None), Some(None)), (Some(None), None)]);
}

/// `message line:column+length field` of every problem.
fn said(name: &str, text: &str) -> Vec<String> {
    let (_, problems) = load_one(name, &fill(text), Lenience::Strict);
    let line = |problem: &Problem| {
        let at = problem.location.as_ref().unwrap();
        assert_eq!(problem.severity, Severity::Warning, "{problem}");
        format!(
            "[{}] {} | {} {}:{}+{}",
            problem.code, problem.message, problem.field, at.line, at.column, at.length
        )
    };
    problems.iter().map(line).collect()
}

#[test]
fn a_condition_that_is_not_right_says_what_it_does() {
    let role = r#"{"id":"r","roleName":"R","assignableScopes":["/"],"permissions":[{"actions":["*"],"condition":"TRUE x"}]}"#;
    assert_eq!(
        said("x.json", role)[0].split(": ").next().unwrap(),
        "[unknown_operator] this entry of the role grants nothing"
    );
    let assigned = |condition: &str, version: &str| {
        said(
            "x.json",
            &format!(
                r#"{{"name":"a","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"p",
"condition":"{condition}","conditionVersion":{version}}}"#
            ),
        )
    };
    assert_eq!(
        assigned("@Principal[a] StringEqual 'x'", "null"),
        [
            "[unknown_operator] the role assignment grants nothing: unknown operator `StringEqual` | condition 2:28+11"
        ]
    );
    assert_eq!(
        assigned(GOOD, r#""1.0""#),
        [
            "[unsupported_condition_version] the role assignment grants nothing: unsupported condition version `1.0` | conditionVersion 2:65+5"
        ]
    );
    let mixed =
        "@Principal[a] StringEquals 'x' OR @Principal[b] StringEquals 'x' AND @Principal[c] StringEquals 'x'";
    let told = assigned(mixed, "null");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("[ambiguous_precedence] ") && !told[0].contains("nothing"), "{told:?}");
    // Both mistakes, and the same text at every place.
    let deny = r#"{"name":"d","scope":"$SUB","principals":["x"],
"permissions":[{"actions":["*"],"condition":"@Principal[a] Is 'x' AND @Nobody[a] StringEquals 'x'"}],
"condition":"@Principal[a] Is 'x'"}"#;
    assert_eq!(
        said("x.json", deny),
        [
            "[unknown_operator] this entry of the deny assignment applies whatever the condition says: unknown operator `Is` | permissions[0].condition 2:60+2",
            "[unknown_attribute_source] this entry of the deny assignment applies whatever the condition says: unknown attribute source `@Nobody` | permissions[0].condition 2:71+7",
            "[unknown_operator] the deny assignment applies whatever the condition says: unknown operator `Is` | condition 3:28+2",
        ]
    );
    let schedules = r#"{"schedules":[{"kind":"active","name":"s","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"p","condition":"("},
{"kind":"eligible","name":"s","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"p","condition":"("}]}"#;
    let told = said("x.json", schedules);
    assert!(told[0].contains("] the schedule grants nothing: "), "{told:?}");
    assert!(told.iter().any(|told| told.contains("] an activation of this eligibility grants nothing: ")));
}

/// The caret stands below the word, however the file writes the condition.
#[test]
fn carets_inside_conditions() {
    let json = |condition: &str| {
        format!(
            "{{\"name\":\"a\",\"scope\":\"$SUB\",\"roleDefinitionId\":\"$ROLE\",\"principalId\":\"p\",\n\"condition\":\"{condition}\"}}"
        )
    };
    let yaml = |condition: &str| {
        format!(
            "name: a\nscope: $SUB\nroleDefinitionId: $ROLE\nprincipalId: p\ncondition: {condition}\nconditionVersion: 2.0\n"
        )
    };
    for (name, text, mark) in [
        ("x.json", json("@Principal[a] Equal 'x'"), "Equal"),
        ("x.json", json(r"(\r\n @Principal[a]\t\u0045qual 'é')"), r"\u0045qual"),
        (
            "x.json",
            json(r"@Principal[\u00e9] StringEquals '\u00e9'' \ud83d\ude00' AND @Principal[a] Equal 'x'"),
            "Equal",
        ),
        ("x.yaml", yaml("\"@Principal[a] Equal 'x'\""), "Equal"),
        ("x.yaml", yaml("\"@Principal[a]\n  Equal\\\n   \\ 'x'\""), "Equal"),
        ("x.yaml", yaml("'@Principal[a] StringEquals ''x''\n  AND @Principal[a] Equal ''x'''"), "Equal"),
        ("x.yaml", yaml("(@Principal[a] Equal 'x')"), "Equal"),
        ("x.yaml", yaml("(@Principal[a]\n  Equal 'x')"), "Equal"),
        ("x.yaml", yaml("|\n  (\n    @Principal[ä] Equal 'x'\n  )"), "Equal"),
        ("x.yaml", yaml("|2+\n    @Principal[a] Equal 'x'\n"), "Equal"),
        ("x.yaml", yaml(">-\n  @Principal[a]\n  Equal\n\n  'x'"), "Equal"),
    ] {
        let (documents, problems) = load_one(name, &fill(&text), Lenience::Strict);
        assert_eq!(documents.role_assignments.len(), 1, "{text}");
        let problem = problems.iter().next().unwrap_or_else(|| panic!("{text}"));
        assert_eq!(problem.code, "unknown_operator", "{text} {problem}");
        assert_eq!(problem.value.as_deref(), Some("Equal"));
        let at = problem.location.as_ref().unwrap();
        let text = fill(&text);
        let start = text.rfind(mark).unwrap();
        let before = text.get(..start).unwrap();
        let place =
            (before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap().chars().count() + 1);
        assert_eq!((at.line, at.column, at.length), (place.0, place.1, mark.len()), "{text}");
        assert_eq!(problem.field, "condition");
        assert!(!problem.help.as_ref().unwrap().contains("of the condition:"));
    }
    // A template's resource, where `[[` stands for `[`.
    let template = r#"{"type":"Microsoft.Authorization/roleAssignments","apiVersion":"x","name":"a","scope":"$SUB","condition":true,"properties":{"roleDefinitionId":"$ROLE","principalId":"p",
"condition":"[[x]"}}"#;
    assert_eq!(
        said("x.json", template)[0].rsplit(' ').next().unwrap(),
        "2:15+1",
        "{:?}",
        said("x.json", template)
    );
}

#[test]
fn guid_operators_on_storage_roles_grant_nothing() {
    let text = r#"[{"id":"r","roleName":"R","assignableScopes":["/"],"permissions":[{"dataActions":["microsoft.storage/x/read"]},
{"actions":["*"],"condition":"NOT (@Request[a] ForAnyOfAnyValues:GuidEquals {8e3af657-a8ff-443c-a75c-2fe8c4bcb635})"}]},
{"id":"s","roleName":"S","assignableScopes":["/"],"permissions":[{"dataActions":["*"]}]},
{"name":"a","scope":"$SUB","roleDefinitionId":"r","principalId":"p","condition":"@Request[a] GuidEquals '8e3af657-a8ff-443c-a75c-2fe8c4bcb635'"},
{"name":"b","scope":"$SUB","roleDefinitionId":"s","principalId":"p","condition":"@Request[a] GuidEquals '8e3af657-a8ff-443c-a75c-2fe8c4bcb635'"},
{"name":"d","scope":"$SUB","principals":["x"],"permissions":[{"dataActions":["Microsoft.Storage/*"]}],"condition":"@Request[a] GuidEquals '8e3af657-a8ff-443c-a75c-2fe8c4bcb635'"}]"#;
    let told = said("x.json", text);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].starts_with("[guid_operator_on_storage_role] this entry of the role grants nothing: Azure ")
    );
    assert!(told[0].ends_with("| permissions[1].condition 2:48+28"), "{told:?}");
    assert!(
        told[1].starts_with("[guid_operator_on_storage_role] the role assignment grants nothing: Azure ")
    );
    assert!(told[1].ends_with("| condition 4:141+10"), "{told:?}");
}

#[test]
fn extensions_are_a_setting() {
    let text = fill(
        r#"{"name":"a","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"p","condition":"@Request[a] StringContains 'x'"}"#,
    );
    let load_with = |enabled| {
        let extensions = Extensions { enabled };
        let files = vec![owner(), ("x.json".into(), text.clone().into_bytes())];
        load_texts(files, ReadOptions { extensions, ..ReadOptions::default() }).1
    };
    assert_eq!(told(&load_with(false)), ["warning unknown_operator condition 1:176"]);
    assert!(load_with(false).iter().next().unwrap().help.as_ref().unwrap().contains("condition_extensions"));
    assert!(load_with(true).is_empty(), "{:?}", load_with(true));
}

// === schedules ===

/// `kind shape name schedule scope status start..end <-linked =origin`
fn printed(documents: &Documents) -> Vec<String> {
    let text = |text: &Option<crate::model::Spanned<String>>| {
        text.as_ref().map_or("-".to_owned(), |text| text.value.clone())
    };
    let time = |time: &Option<crate::model::Spanned<jiff::Timestamp>>| {
        time.as_ref().map_or("-".to_owned(), |time| time.value.to_string())
    };
    documents
        .schedules
        .iter()
        .map(|schedule| {
            assert_eq!(schedule.role_definition_id.value, ROLE);
            assert_eq!(schedule.principal_id.value, PRINCIPAL);
            assert!(schedule.scope.value.ends_with(SUB));
            format!(
                "{:?} {:?} {} {} {} {}..{} <-{} ={}",
                schedule.kind,
                schedule.shape,
                schedule.name.value,
                text(&schedule.schedule),
                text(&schedule.status),
                time(&schedule.start),
                time(&schedule.end),
                text(&schedule.linked_eligibility),
                text(&schedule.origin_role_assignment),
            )
        })
        .collect()
}

#[test]
fn shapes_of_schedules() {
    let auth = "providers/Microsoft.Authorization";
    let whose = format!(
        r#""scope":"$SUB","roleDefinitionId":"$SUB/{auth}/roleDefinitions/$ROLE","principalId":"$P","principalType":"User""#
    );
    let window =
        r#""startDateTime":"2025-01-01T00:00:00.1234567Z","endDateTime":"2025-01-02T00:00:00+01:00""#;
    let times = "2025-01-01T00:00:00.1234567Z..2025-01-01T23:00:00Z";
    for (text, expected) in [
        // REST, with PIM's alias in the id.
        (
            format!(
                r#"{{"value":[{{"properties":{{"roleAssignmentScheduleId":"$SUB/{auth}/roleAssignmentSchedules/s","originRoleAssignmentId":"$SUB/{auth}/roleAssignments/o","linkedRoleEligibilityScheduleId":null,"assignmentType":"Assigned","status":"Provisioned","memberType":"Direct","createdOn":"x","expandedProperties":{{}},{whose},{window}}},"name":"i","id":"/providers/Microsoft.Subscription$SUB/{auth}/RoleAssignmentScheduleInstances/i","type":"Microsoft.Authorization/RoleAssignmentScheduleInstances"}}]}}"#
            ),
            format!("Active Instance i s Provisioned {times} <-- =o"),
        ),
        (
            format!(
                r#"[{{"properties":{{"status":"Accepted","scheduleInfo":null,{whose},"startDateTime":"2025-01-01T00:00:00Z","endDateTime":null}},"id":"$SUB/{auth}/roleEligibilitySchedules/e"}}]"#
            ),
            "Eligible Schedule e - Accepted 2025-01-01T00:00:00Z..- <-- =-".to_owned(),
        ),
        // PowerShell: flat, with empty texts for what is not there.
        (
            format!(
                r#"{{"Id":"$SUB/{auth}/RoleEligibilityScheduleInstances/i","Name":"i","Type":"Microsoft.Authorization/roleEligibilityScheduleInstances","Scope":"$SUB","ScopeId":"$SUB","ScopeDisplayName":"x","RoleDefinitionId":"$ROLE","PrincipalId":"$P","Status":"Provisioned","MemberType":"Inherited","RoleEligibilityScheduleId":"$SUB/{auth}/roleEligibilitySchedules/e","StartDateTime":"2025-01-01T00:00:00Z","EndDateTime":null,"Condition":null}}"#
            ),
            "Eligible Instance i e Provisioned 2025-01-01T00:00:00Z..- <-- =-".to_owned(),
        ),
        // Told by a property alone.
        (
            format!(r#"{{"name":"s","assignmentType":"Assigned",{whose}}}"#),
            "Active Schedule s - - -..- <-- =-".to_owned(),
        ),
        (
            format!(r#"{{"name":"s","roleEligibilityScheduleId":"e",{whose}}}"#),
            "Eligible Instance s e - -..- <-- =-".to_owned(),
        ),
        // Our own.
        (
            format!(
                r#"{{"schedules":[{{"name":"s","kind":"assignment","status":"revoked",{whose},{window}}}]}}"#
            ),
            format!("Active Schedule s - revoked {times} <-- =-"),
        ),
        (
            format!(r#"{{"name":"s","kind":"Eligible",{whose}}}"#),
            "Eligible Schedule s - - -..- <-- =-".to_owned(),
        ),
        // Sections of REST's names, and elements that say no more.
        (
            format!(r#"{{"roleEligibilityScheduleInstances":[{{"name":"s",{whose}}}]}}"#),
            "Eligible Instance s - - -..- <-- =-".to_owned(),
        ),
        (
            format!(r#"{{"role_assignment_schedules":[{{"name":"s",{whose}}}]}}"#),
            "Active Schedule s - - -..- <-- =-".to_owned(),
        ),
        // Among role assignments.
        (
            format!(r#"{{"roleAssignments":[{{"name":"s","kind":"eligible",{whose}}}]}}"#),
            "Eligible Schedule s - - -..- <-- =-".to_owned(),
        ),
        // Ends in `scheduleInfo`; of two windows the narrower.
        (
            format!(
                r#"{{"name":"s","kind":"active",{whose},"scheduleInfo":{{"startDateTime":"2025-01-01T00:00:00Z","expiration":{{"type":"AfterDuration","duration":"PT8H","endDateTime":null}}}}}}"#
            ),
            "Active Schedule s - - 2025-01-01T00:00:00Z..2025-01-01T08:00:00Z <-- =-".to_owned(),
        ),
        (
            format!(
                r#"{{"name":"s","kind":"active",{whose},{window},"scheduleInfo":{{"startDateTime":"2025-01-01T06:00:00Z","expiration":{{"duration":"P1M"}}}}}}"#
            ),
            "Active Schedule s - - 2025-01-01T06:00:00Z..2025-01-01T23:00:00Z <-- =-".to_owned(),
        ),
        (
            format!(
                r#"{{"name":"s","kind":"active",{whose},"scheduleInfo":{{"expiration":{{"type":"NoExpiration"}}}}}}"#
            ),
            "Active Schedule s - - -..- <-- =-".to_owned(),
        ),
        (
            format!(
                r#"{{"name":"s","kind":"active",{whose},"scheduleInfo":{{"expiration":{{"type":"afterDateTime","endDateTime":"2025-01-01T00:00:00Z"}}}}}}"#
            ),
            "Active Schedule s - - -..2025-01-01T00:00:00Z <-- =-".to_owned(),
        ),
    ] {
        let documents = clean("x.json", &fill(&text));
        assert_eq!(printed(&documents), [expected], "{text}");
        assert!(documents.role_assignments.is_empty());
    }
    // What PIM's samples hold: alias, no end, linked.
    let both = fill(&format!(
        r#"{{"schedules":[{{"name":"e1","kind":"eligibility",{whose},"endDateTime":null}},{{"name":"s1","kind":"assignment",{whose},"assignmentType":"Activated","linkedRoleEligibilityScheduleId":"E1"}}]}}"#
    ));
    assert_eq!(printed(&clean("x.json", &both))[1], "Active Schedule s1 - - -..- <-E1 =-");
}

#[test]
fn warnings_of_schedules() {
    let whose = r#""scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P""#;
    let told_of = |text: &str| told(&load_one("x.json", &fill(text), Lenience::Strict).1);
    assert_eq!(
        told_of(&format!(
            r#"{{"name":"s","kind":"active","startDateTime":"2025-01-01T00:00:00Z","endDateTime":"2025-01-01T00:00:00Z",{whose}}}"#
        )),
        ["warning ScheduleNeverActive endDateTime 1:82"]
    );
    assert_eq!(
        told_of(&format!(
            r#"{{"name":"s","kind":"active","linkedRoleEligibilityScheduleId":"/x/e",{whose}}}"#
        )),
        ["warning EligibilityDoesNotExist linkedRoleEligibilityScheduleId 1:63"]
    );
    // An instance of the eligibility will do.
    assert_eq!(
        told_of(&format!(
            r#"[{{"name":"s","kind":"active","linkedRoleEligibilityScheduleId":"/x/e",{whose}}},{{"name":"i","roleEligibilityScheduleId":"/x/E",{whose}}}]"#
        )),
        [""; 0]
    );
    for request in [
        format!(r#"{{"name":"s","type":"Microsoft.Authorization/roleEligibilityScheduleRequests",{whose}}}"#),
        format!(r#"{{"name":"s","requestType":"SelfActivate",{whose}}}"#),
        format!(
            r#"{{"id":"$SUB/providers/Microsoft.Authorization/roleAssignmentScheduleRequests/s","properties":{{"scheduleInfo":{{}},{whose}}}}}"#
        ),
    ] {
        let (documents, problems) = load_one("x.json", &fill(&request), Lenience::Strict);
        assert_eq!(told(&problems), ["warning ScheduleRequestSkipped  1:1"], "{request}");
        assert!(
            problems.iter().all(|problem| problem.message.starts_with("a request grants nothing by itself"))
        );
        assert!(documents.schedules.is_empty() && documents.role_assignments.is_empty());
    }
    let section = format!(
        r#"{{"roleAssignmentScheduleRequests":[{{{whose}}}],"schedules":[{{"requestType":"x",{whose}}}]}}"#
    );
    assert_eq!(
        told_of(&section),
        ["warning ScheduleRequestSkipped  1:36", "warning ScheduleRequestSkipped  1:225"]
    );
}

#[test]
fn an_unknown_status_names_those_that_are_known() {
    let text = fill(
        r#"{"name":"s","kind":"active","status":"Active","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P"}"#,
    );
    let (_, problems) = load_one("x.json", &text, Lenience::Strict);
    let help = problems.iter().next().unwrap().help.clone().unwrap();
    assert_eq!(help.matches('`').count(), 44, "{help}");
    assert!(help.contains("`Provisioned`"));
}

fn schedule_with(more: &str) -> String {
    fill(&format!(
        r#"{{"schedules":[{{"name":"s","kind":"active","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P",{more}}}]}}"#
    ))
}

#[test]
fn an_end_counts_wherever_it_is_written() {
    let start = r#""startDateTime":"2020-01-01T00:00:00Z""#;
    let (early, late) = ("2020-01-01T08:00:00Z", "2021-01-01T00:00:00Z");
    for (more, end) in [
        (format!(r#""scheduleInfo":{{{start},"endDateTime":"{early}"}}"#), early),
        (format!(r#""scheduleInfo":{{{start},"duration":"PT8H"}}"#), early),
        (format!(r#""scheduleInfo":{{{start},"type":"AfterDuration","duration":"PT8H"}}"#), early),
        (
            format!(r#""scheduleInfo":{{"@odata.type":"x","recurrence":null,{start}}},"duration":"PT8H""#),
            early,
        ),
        (format!(r#"{start},"expiration":{{"type":"AfterDateTime","endDateTime":"{early}"}}"#), early),
        (format!(r#"{start},"duration":"PT8H""#), early),
        (format!(r#"{start},"ExpirationEndDateTime":"{early}","ExpirationType":"AfterDateTime""#), early),
        (
            r#""ScheduleInfoStartDateTime":"2020-01-01T00:00:00Z","ExpirationDuration":"PT8H""#.to_owned(),
            early,
        ),
        // Of contradicting ends the first.
        (
            format!(
                r#""scheduleInfo":{{{start},"expiration":{{"type":"NoExpiration","endDateTime":"{early}"}}}}"#
            ),
            early,
        ),
        (
            format!(r#""scheduleInfo":{{{start},"expiration":{{"type":"NoExpiration","duration":"PT8H"}}}}"#),
            early,
        ),
        (
            format!(
                r#""scheduleInfo":{{{start},"expiration":{{"type":"AfterDuration","duration":"P9Y","endDateTime":"{early}"}}}}"#
            ),
            early,
        ),
        (
            format!(
                r#""scheduleInfo":{{{start},"expiration":{{"type":"AfterDateTime","duration":"PT8H","endDateTime":"{late}"}}}}"#
            ),
            early,
        ),
        (
            format!(
                r#""endDateTime":"{late}","scheduleInfo":{{{start},"expiration":{{"endDateTime":"{late}","duration":"PT8H"}}}}"#
            ),
            early,
        ),
    ] {
        let documents = clean("x.json", &schedule_with(&more));
        let read = documents.schedules[0].end.as_ref().map(|end| end.value.to_string());
        assert_eq!(read.as_deref(), Some(end), "{more}");
    }
}

#[test]
fn what_reads_like_an_end_or_a_link_is_never_skipped() {
    for (more, expected) in [
        (r#""scheduleInfo":{"end":"x"}"#, "UnknownProperty"),
        (r#""scheduleInfo":{"expiration":{"until":"x"}}"#, "UnknownProperty"),
        (r#""expiration":{"end":"x"}"#, "UnknownProperty"),
        (r#""end_date":"x""#, "UnknownProperty"),
        (r#""expiresOn":"x""#, "UnknownProperty"),
        (r#""maximumDuration":"PT1H""#, "UnknownProperty"),
        (r#""expirationType":"AfterDateTime""#, "MissingProperty"),
        (r#""linkedEligibilityScheduleId":"e""#, "UnknownProperty"),
        (r#""linkedRoleEligibilityScheduleId":" e""#, "InvalidName"),
        (r#""originRoleAssignmentId":"e ""#, "InvalidName"),
        (r#""targetRoleEligibilityScheduleId":"e""#, "ContradictoryKind"),
        (r#""assignmentState":"Eligible""#, "ContradictoryKind"),
        (r#""type":"Microsoft.Authorization/roleEligibilitySchedule""#, "ContradictoryKind"),
        (r#""type":"Microsoft.Authorization/roleDefinitions""#, "ContradictoryKind"),
        (r#""id":"$SUB/providers/Microsoft.Authorization/roleEligibilitySchedule/s""#, "ContradictoryKind"),
    ] {
        let (_, problems) = load_one("x.json", &schedule_with(&fill(more)), Lenience::Lenient);
        assert!(problems.has_errors(), "{more}");
        assert!(told(&problems)[0].starts_with(expected), "{more} {problems:#?}");
    }
}

#[test]
fn a_schedule_is_never_taken_for_a_role_assignment() {
    for more in [
        r#""endDateTme":"2020-01-01T00:00:00Z""#,
        r#""expiration":{"endDateTime":"2020-01-01T00:00:00Z"}"#,
        r#""endDate":"2020-01-01""#,
        r#""end_date_time":"x""#,
        r#""duration":"PT8H""#,
        r#""status":"Revoked""#,
        r#""status":"PendingApproval""#,
        r#""kind":"EligibleAssignment""#,
        r#""assignmentState":"Eligible""#,
        r#""linkedEligibleRoleAssignmentId":"e""#,
        r#""type":"Microsoft.Authorization/roleDefinitions","endDateTime":"2020-01-01T00:00:00Z""#,
        r#""type":"Microsoft.Authorization/denyAssignments","endDateTime":"2020-01-01T00:00:00Z""#,
        r#""type":"Microsoft.Authorization/roleEligibilityScheduleInstance""#,
        r#""type":"Microsoft.PIM/roleEligibility""#,
        r#""id":"$SUB/providers/Microsoft.Authorization/roleEligibilitySchedule/a""#,
    ] {
        let text = format!(
            r#"{{"roleAssignments":[{{"name":"a","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P",{more}}}]}}"#
        );
        let (_, problems) = load_one("x.json", &fill(&text), Lenience::Lenient);
        assert!(
            told(&problems).iter().any(|told| told.starts_with("ContradictoryKind")),
            "{more} {problems:#?}"
        );
    }
    let text = |more: &str| {
        fill(&format!(
            r#"{{"roleAssignments":[{{"name":"a","scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P",{more}}}]}}"#
        ))
    };
    let eligible = clean("x.json", &text(r#""kind":"eligible ""#));
    assert!(eligible.role_assignments.is_empty() && eligible.schedules.len() == 1);
    for more in [r#""status":"Provisioned""#, r#""status":null,"endDate":null"#, r#""kind":"roleAssignment""#]
    {
        assert_eq!(clean("x.json", &text(more)).role_assignments.len(), 1, "{more}");
    }
}

#[test]
fn the_link_that_is_in_the_documents_counts() {
    let whose = r#""scope":"$SUB","roleDefinitionId":"$ROLE","principalId":"$P""#;
    for (eligibility, linked) in [("e", "e"), ("i", "i"), ("I", "i")] {
        let documents = clean(
            "x.json",
            &fill(&format!(
                r#"{{"schedules":[{{"name":"s","kind":"active",{whose},"linkedRoleEligibilityScheduleId":"e","linkedRoleEligibilityScheduleInstanceId":"i"}},{{"name":"{eligibility}","kind":"eligible",{whose}}}]}}"#
            )),
        );
        assert_eq!(documents.schedules[0].linked_eligibility.as_ref().unwrap().value, linked);
    }
}

/// What is left out grants nothing, and nothing that hangs on it stands alone.
#[test]
fn a_schedule_that_is_left_out_ends_what_hangs_on_it() {
    let place = r#""scope":"$SUB","principalId":"$P""#;
    let active = format!(
        r#"{{"name":"s","kind":"active",{place},"roleDefinitionId":"$ROLE","linkedRoleEligibilityScheduleId":"e"}}"#
    );
    let resource = |kind: &str, more: &str| {
        format!(
            r#"{{"type":"Microsoft.Authorization/{kind}","apiVersion":"x","name":"e","properties":{{"scope":"[x]","principalId":"$P","roleDefinitionId":"$ROLE"{more}}}}}"#
        )
    };
    for other in [
        format!(r#"{{"name":"e","kind":"eligible",{place},"roleDefinitionId":"nope"}}"#),
        r#"{"name":"e","kind":"eligible","scope":"/nonsense","principalId":"$P","roleDefinitionId":"$ROLE"}"#
            .to_owned(),
        resource("roleEligibilitySchedules", ""),
    ] {
        let (documents, problems) =
            load_one("x.json", &fill(&format!("[{active},{other}]")), Lenience::Lenient);
        assert_eq!(told(&problems).len(), 1, "{problems:#?}");
        assert!(!problems.has_errors());
        let eligibility = &documents.schedules[1];
        assert_eq!(eligibility.name.value, "e");
        assert!(eligibility.kind == crate::model::ScheduleKind::Eligible && !eligibility.is_provisioned());
        assert!(crate::policy::Policy::compile(&documents, crate::policy::CompileOptions::default()).is_ok());
    }
    for other in [
        format!(
            r#"{{"name":"e","kind":"active",{place},"roleDefinitionId":"nope","originRoleAssignmentId":"/x/a"}}"#
        ),
        resource("roleAssignmentScheduleInstances", r#","originRoleAssignmentId":"/x/a""#),
    ] {
        let (documents, problems) = load_one("x.json", &fill(&other), Lenience::Lenient);
        assert!(!problems.has_errors());
        let governing = &documents.schedules[0];
        assert_eq!(governing.origin_role_assignment.as_ref().unwrap().value, "a");
        assert!(!governing.is_provisioned());
    }
}

// === policies of PIM ===

#[test]
fn shapes_of_activation_policies() {
    let auth = "providers/Microsoft.Authorization";
    let rules = r#"[{"id":"Expiration_EndUser_Assignment","ruleType":"RoleManagementPolicyExpirationRule","maximumDuration":"PT8H"},{"id":"Enablement_EndUser_Assignment","enabledRules":["MultiFactorAuthentication","Justification","Ticketing"]},{"id":"AuthenticationContext_EndUser_Assignment","isEnabled":true,"claimValue":"c1"},{"id":"Approval_EndUser_Assignment","setting":{"isApprovalRequired":true,"approvalStages":[{"primaryApprovers":[{"id":"boss","isBackup":false}]}]}},{"id":"Notification_Admin_Admin_Eligibility","level":7.5}]"#;
    for text in [
        format!(
            r#"{{"value":[{{"properties":{{"scope":"$SUB","roleDefinitionId":"$SUB/{auth}/roleDefinitions/$ROLE","policyId":"$SUB/{auth}/roleManagementPolicies/p","effectiveRules":{rules}}},"name":"p_$ROLE","id":"$SUB/{auth}/roleManagementPolicyAssignments/p_$ROLE","type":"Microsoft.Authorization/RoleManagementPolicyAssignment"}},{{"id":"$SUB/{auth}/roleManagementPolicies/p","name":"p","type":"Microsoft.Authorization/roleManagementPolicies","properties":{{"scope":"$SUB","isOrganizationDefault":false,"rules":{rules}}}}}]}}"#
        ),
        // Joined.
        format!(
            r#"{{"roleManagementPolicies":[{{"name":"P","rules":{rules}}}],"roleManagementPolicyAssignments":[{{"id":"$SUB/{auth}/roleManagementPolicyAssignments/x","roleDefinitionId":"$ROLE","policyId":"/providers/Microsoft.Subscription$SUB/{auth}/roleManagementPolicies/p"}}]}}"#
        ),
        r#"{"activationPolicies":[{"scope":"$SUB","roleDefinitionId":"$ROLE","maximumDuration":"PT8H","mfa":true,"justification":true,"ticket":true,"authenticationContext":"c1","approvers":[{"id":"boss"}],"comment":"x"},{"scope":"$SUB/","roleDefinitionId":"$ROLE","maximumDuration":"PT8H","mfa":true,"justification":true,"ticket":true,"authenticationContext":"c1","approval":true,"approvers":["BOSS"]}]}"#.to_owned(),
    ] {
        let documents = clean("x.json", &fill(&text));
        assert_eq!(documents.activation_policies.len(), 1, "{text}");
        let policy = &documents.activation_policies[0];
        assert_eq!((policy.scope.value.as_str(), policy.role_definition_id.value.as_str()), (SUB, ROLE));
        let expected = crate::model::ActivationRequirements {
            maximum_duration: Some("PT8H".into()),
            mfa: true,
            justification: true,
            ticket: true,
            authentication_context: Some("c1".into()),
            approval: true,
            approvers: vec!["boss".into()],
        };
        assert_eq!(policy.requirements, expected, "{text}");
    }
    let alone =
        r#"{"name":"p","type":"Microsoft.Authorization/roleManagementPolicies","properties":{"rules":[]}}"#;
    let (documents, problems) = load_one("x.json", alone, Lenience::Strict);
    assert_eq!(told(&problems), ["warning PolicyNotAssigned  1:1"]);
    assert!(documents.activation_policies.is_empty());
    // A policy that was refused is told once.
    let refused = fill(
        r#"{"roleManagementPolicies":[{"name":"p","rules":[{}]}],"roleManagementPolicyAssignments":[{"scope":"$SUB","roleDefinitionId":"$ROLE","policyId":"p"}]}"#,
    );
    let (_, problems) = load_one("x.json", &refused, Lenience::Strict);
    assert_eq!(told(&problems), ["InvalidPolicyRule rules[0].id 1:49"]);
}

// === agents ===

/// The roles that levels bring.
fn level_roles() -> (String, Vec<u8>) {
    let role = |(id, name): (&str, &str)| {
        format!(
            r#"{{"id":"{id}","roleName":"{name}","permissions":[{{"actions":["*/read"]}}],"assignableScopes":["/"]}}"#
        )
    };
    let roles: Vec<_> = [
        ("73c42c96-874c-492b-b04d-ab87d138a893", "Log Analytics Reader"),
        ("acdd72a7-3385-48ef-bd42-f606fba81ae7", "Reader"),
        ("43d0d8ad-25c7-4714-9337-8ba259a9fe05", "Monitoring Reader"),
        ("b24988ac-6180-42a0-ab88-20f7382dd24c", "Contributor"),
    ]
    .map(role)
    .into();
    ("1-level.json".into(), format!("[{}]", roles.join(",")).into_bytes())
}

#[test]
fn shapes_of_agents() {
    for text in [
        r#"{"agents":[{"name":"a","principalId":"$P","level":"privileged","mode":"Autonomous","managedResourceGroups":["$SUB/resourceGroups/ops"]}]}"#,
        r#"{"agents":[{"principal":"$P","permission_level":"Privileged","mode":"auto","managed_resource_groups":["$SUB/resourceGroups/ops"]}]}"#,
        r#"{"managedIdentity":"$P","level":"Privileged","mode":"auto","managedResources":["$SUB/resourceGroups/ops"]}"#,
        r#"{"id":"$SUB/resourceGroups/g/providers/Microsoft.App/agents/a","name":"a","type":"Microsoft.App/agents","location":"swedencentral","identity":{"type":"SystemAssigned","principalId":"$P","tenantId":"t"},"properties":{"level":"Privileged","mode":"auto","managedResourceGroups":["$SUB/resourceGroups/ops"]}}"#,
        r#"{"value":[{"type":"Microsoft.SREAgent/agents","managedIdentity":{"principalId":"$P"},"permissionLevel":"Privileged","mode":"automatic","managedResourceGroups":["$SUB/resourceGroups/ops"]}]}"#,
    ] {
        let files = vec![level_roles(), ("x.json".into(), fill(text).into_bytes())];
        let (documents, problems) = load_texts(files, Lenience::Strict);
        assert!(problems.is_empty(), "{text} {problems:#?}");
        let agent = &documents.agents[0];
        assert_eq!(agent.principal_id.value, PRINCIPAL, "{text}");
        assert_eq!((agent.level, agent.mode), (AgentLevel::Privileged, AgentMode::Auto), "{text}");
        assert_eq!(agent.managed_resource_groups[0].value, format!("{SUB}/resourceGroups/ops"));
    }
    let text = fill(
        r#"{"agents":[{"id":"$SUB/resourceGroups/g/providers/Microsoft.App/agents/a","principalId":"$P","approverRole":"/x/$ROLE","privilegedRoles":["$ROLE",{"id":"/y/$ROLE"}],"queryActions":["Microsoft.X/query/action"]}]}"#,
    );
    let documents = clean("x.json", &text);
    let agent = &documents.agents[0];
    assert_eq!((agent.level, agent.mode), (AgentLevel::Reader, AgentMode::Review));
    assert_eq!(agent.approver_role.as_ref().unwrap().value, ROLE);
    let privileged: Vec<_> =
        agent.privileged_roles.as_ref().unwrap().iter().map(|role| role.value.as_str()).collect();
    assert_eq!(privileged, [ROLE, ROLE]);
    assert_eq!(agent.query_actions.as_ref().unwrap()[0].value, "Microsoft.X/query/action");
}

#[test]
fn warnings_of_agents() {
    let group = r#""managedResourceGroups":["$SUB/resourceGroups/ops","$SUB/resourcegroups/OPS/"]"#;
    let text = fill(&format!(r#"{{"agents":[{{"principalId":"$P","level":"Privileged",{group}}}]}}"#));
    let (documents, problems) = load_one("x.json", &text, Lenience::Strict);
    assert_eq!(
        told(&problems),
        [
            "warning RoleDefinitionDoesNotExist  1:12",
            "warning RoleDefinitionDoesNotExist  1:12",
            "warning RoleDefinitionDoesNotExist  1:12",
            "warning RoleDefinitionDoesNotExist  1:12",
            "warning DuplicateResourceGroup managedResourceGroups[1] 1:185",
        ]
    );
    assert_eq!(documents.agents[0].managed_resource_groups.len(), 1);
    // Roles that the document names itself are errors, or are left out.
    let text = fill(&format!(
        r#"{{"agents":[{{"principalId":"$P","level":"Privileged","privilegedRoles":["nope","$ROLE"],{group}}}]}}"#
    ));
    let files = || vec![owner(), level_roles(), ("x.json".into(), text.clone().into_bytes())];
    let (_, problems) = load_texts(files(), Lenience::Strict);
    assert!(problems.has_errors());
    let (documents, problems) = load_texts(files(), Lenience::Lenient);
    assert!(!problems.has_errors());
    let roles = documents.agents[0].privileged_roles.as_ref().unwrap();
    assert_eq!((roles.len(), roles[0].value.as_str()), (1, ROLE));
}
