//! The command line as a program sees it: exit codes, JSON, and the README's table of settings.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs,
    reason = "tests"
)]

mod common;

use std::path::Path;
use std::process::{Output, Stdio};

use common::*;
use serde_json::{Value, json};

fn run(arguments: &[&str]) -> Output {
    postern().args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn question<'a>(principal: &'a str, action: &'a str, scope: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["check", "--principal", principal, "--action", action, "--scope", scope];
    if action == GET_SECRET {
        arguments.push("--data-action");
    }
    arguments
}

fn ask(question: &[&str], more: &[&str]) -> Output {
    run(&question.iter().chain(more).copied().collect::<Vec<_>>())
}

#[test]
fn check_answers_from_a_directory() {
    let dir = policy();
    let path = dir.path().to_str().unwrap();
    let (app, locked) = (vault("app"), vault("locked"));
    for (principal, action, scope, more, decision, reason, exit) in [
        (ALICE, READ, &app, &[][..], "Allowed", "ROLE_ASSIGNMENT", 0),
        (BOB, READ, &app, &[], "NotAllowed", "NO_ROLE_ASSIGNMENT", 3),
        (BOB, GET_SECRET, &app, &["--group", TEAM], "Allowed", "ROLE_ASSIGNMENT", 0),
        (ALICE, DELETE, &locked, &[], "Denied", "DENY_ASSIGNMENT", 3),
    ] {
        let question = question(principal, action, scope);
        let more: Vec<_> = ["--policy", path].iter().chain(more).copied().collect();
        let output = ask(&question, &more);
        assert_eq!(code(&output), exit, "{output:?}");
        assert!(stdout(&output).starts_with(&format!("{decision}: ")), "{output:?}");
        assert!(!stdout(&output).contains('\u{1b}'), "no colours in a pipe");
        let output = ask(&question, &[&more[..], &["--json"]].concat());
        assert_eq!(code(&output), exit, "{output:?}");
        let answer = json(&output);
        assert_eq!((&answer["decision"], &answer["reasonCode"]), (&decision.into(), &reason.into()));
        assert_eq!((&answer["cached"], &answer["policy"]["generation"]), (&false.into(), &1.into()));
    }
    let answer = json(&ask(&question(ALICE, READ, &app), &["--policy", path, "--json"]));
    assert_eq!(answer["roleAssignmentId"], role_assignment_id());
    assert_eq!(answer["roleDefinitionId"], role_definition_id());
    let answer = json(&ask(&question(ALICE, DELETE, &locked), &["--policy", path, "--json"]));
    assert_eq!(answer["denyAssignmentId"], deny_assignment_id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_asks_a_sidecar() {
    let sidecar = Sidecar::start(&[]).await;
    let tcp = format!("http://{}", sidecar.addresses.tcp.unwrap());
    let uds = format!("unix://{}", sidecar.addresses.uds().unwrap().display());
    for address in [tcp, uds] {
        tokio::task::spawn_blocking(move || {
            let connect = ["--connect", address.as_str(), "--json"];
            let output = ask(&question(ALICE, READ, &vault("app")), &connect);
            assert_eq!((code(&output), &json(&output)["decision"]), (0, &"Allowed".into()), "{output:?}");
            let output = ask(&question(BOB, READ, &vault("app")), &connect);
            assert_eq!((code(&output), &json(&output)["decision"]), (3, &"NotAllowed".into()));
            let output = ask(&question(ALICE, "a/*", "nowhere"), &connect);
            assert_eq!(code(&output), 2, "INVALID_ARGUMENT is usage");
            let error = &json(&output)["error"];
            assert_eq!(error["code"], "INVALID_ARGUMENT");
            assert_eq!(error["fieldViolations"][1]["field"], "resource.scope");
        })
        .await
        .unwrap();
    }
}

const CONTOSO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/contoso");
const VAULT_GROUP: &str = "/subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-vault-prod";
const KARL: &str = "00000000-0000-4000-a002-000000000006";

fn explain(question: &[&str], more: &[&str]) -> Output {
    run(&[&["explain"], &question[1..], more].concat())
}

#[test]
fn explain_shows_what_was_looked_at() {
    let delete = question(KARL, DELETE, VAULT_GROUP);
    let output = explain(&delete, &["--policy", CONTOSO]);
    assert_eq!(code(&output), 3, "{output:?}");
    let text = stdout(&output);
    for part in [
        "Principals\n└─ 00000000-0000-4000-a002-000000000006 (the subject)\n",
        "├─ denies: \"Production vault is not deleted\" at ",
        "covers it by */delete (actions of block 0)",
        "grants: \"Key Vault Contributor\" at ",
    ] {
        assert!(text.contains(part), "{part} not in\n{text}");
    }
    let (denies, grants) = (text.find("denies: ").unwrap(), text.find("grants: ").unwrap());
    assert!(denies < grants, "{text}");
    let check = ask(&delete, &["--policy", CONTOSO]);
    assert_eq!(text.lines().last(), stdout(&check).lines().next(), "the sentence of check is the last line");
    assert!(!text.contains('\u{1b}'), "no colours in a pipe");

    let output = explain(&delete, &["--policy", CONTOSO, "--json"]);
    let answer = json(&output);
    assert_eq!((code(&output), &answer["decision"]), (3, &"Denied".into()));
    assert_eq!(answer["reasonCode"], "DENY_ASSIGNMENT");
    let explanation = &answer["explanation"];
    assert_eq!(explanation["denies"][0]["outcome"], "HIT");
    assert_eq!(explanation["denies"][0]["id"], answer["denyAssignmentId"]);
    assert_eq!(explanation["assignments"][0]["outcome"], "GRANTED");
    assert_eq!(explanation["principals"][0]["origin"], "SUBJECT");
    assert_eq!(explanation["nearMisses"], json!([]));
    assert!(answer["onBehalfOfExplanation"].is_null());

    let read = question(KARL, READ, VAULT_GROUP);
    assert_eq!(code(&explain(&read, &["--policy", CONTOSO])), 0);
    // Not an agent that the policy knows: its flow refuses what its rights allow.
    let output = explain(&read, &["--policy", CONTOSO, "--agent"]);
    assert_eq!(code(&output), 3, "{output:?}");
    assert!(stdout(&output).contains("\nBy its rights alone: Allowed: role "), "{output:?}");
    let output = explain(&read, &["--policy", CONTOSO, "--on-behalf-of", ALICE]);
    assert!(stdout(&output).contains("\nThe user who asks\nPrincipals\n"), "{output:?}");
    let answer = json(&explain(&read, &["--policy", CONTOSO, "--on-behalf-of", ALICE, "--json"]));
    assert_eq!(answer["decision"], "NotAllowed");
    assert_eq!(answer["explanation"]["decision"], "Allowed");
    assert_eq!(answer["onBehalfOfExplanation"]["principals"][0]["id"], ALICE);

    let output = explain(&question("", "a/*", "nowhere"), &["--policy", CONTOSO]);
    assert_eq!(code(&output), 2);
    for flag in ["`--principal` is empty", "`--action` holds a wildcard", "`--scope` does not begin"] {
        assert!(stderr(&output).contains(flag), "{flag} not in {output:?}");
    }
    assert_eq!(code(&explain(&delete, &["--connect", "http://127.0.0.1:1"])), 1);
}

#[test]
fn what_can_lists_permissions() {
    let base = ["what-can", "--principal", KARL, "--scope", VAULT_GROUP, "--policy", CONTOSO];
    let output = run(&base);
    assert_eq!(code(&output), 0, "{output:?}");
    let text = stdout(&output);
    for part in
        ["Role assignments\n└─ \"Key Vault Contributor\" at ", "Deny assignments, which", "Operations\n"]
    {
        assert!(text.contains(part), "{part} not in\n{text}");
    }
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("1 role assignment, 1 deny assignment, 0 roles to activate, "), "{text}");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("operations.json");
    let operations = |content: &Value| {
        std::fs::write(&file, content.to_string()).unwrap();
        run(&[&base[..], &["--json", "--operations", file.to_str().unwrap()]].concat())
    };
    let answer = json(&operations(&json!([{
        "name": "Microsoft.KeyVault",
        "operations": [],
        "resourceTypes": [{"name": "vaults", "operations": [
            {"name": DELETE, "isDataAction": false},
            {"name": READ, "isDataAction": false},
            {"name": GET_SECRET, "isDataAction": true},
        ]}],
    }])));
    let told: Vec<_> = answer["operations"].as_array().unwrap().iter().map(|one| &one["outcome"]).collect();
    assert_eq!(told, [&json!("DENIED"), &json!("ALLOWED")]);
    assert_eq!(answer["grants"][0]["assignment"]["roleName"], "Key Vault Contributor");
    assert_eq!((&answer["truncated"], &answer["policy"]["generation"]), (&false.into(), &1.into()));
    // More than one call takes.
    let many: Vec<_> = (0..4_500).map(|number| format!("Microsoft.KeyVault/x{number:04}/read")).collect();
    let answer = json(&operations(&json!(many)));
    let names: Vec<_> =
        answer["operations"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, many);
    assert_eq!(answer["grants"].as_array().unwrap().len(), 1);
    let output = operations(&json!(["a/*", 1]));
    assert_eq!((code(&output), stderr(&output).lines().count()), (2, 2), "{output:?}");

    assert_eq!(code(&run(&["what-can", "--principal", "", "--scope", "x", "--policy", CONTOSO])), 2);
    let nowhere = ["--policy", "/nonexistent", "--json"];
    let output = run(&[&["what-can", "--principal", KARL, "--scope", "/"], &nowhere[..]].concat());
    assert_eq!((code(&output), &json(&output)["error"]["code"]), (1, &"POLICY_REFUSED".into()));
}

#[test]
fn who_can_lists_principals() {
    let base = ["who-can", "--action", DELETE, "--scope", VAULT_GROUP, "--policy", CONTOSO];
    let output = run(&base);
    assert_eq!(code(&output), 0, "{output:?}");
    let text = stdout(&output);
    assert!(text.contains("through \"Owner\" at "), "{text}");
    assert!(text.ends_with("2 principals, 3 denied, 2 eligible, 1 deny assignment\n"), "{text}");
    let answer = json(&run(&[&base[..], &["--json"]].concat()));
    assert_eq!(answer["principals"].as_array().unwrap().len(), 2);
    assert_eq!(answer["principals"][0]["through"][0]["assignment"]["roleName"], "Owner");
    assert!(answer["denied"].as_array().unwrap().iter().any(|denied| denied["id"] == KARL));
    assert_eq!(answer["denies"][0]["allPrincipals"], true);
    assert_eq!(code(&run(&["who-can", "--action", "*", "--scope", "/", "--policy", CONTOSO])), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explanations_and_lists_of_a_sidecar() {
    let process = Process::start(Path::new(CONTOSO), &[], &[]);
    process.ready().await;
    let address = format!("http://{}", process.tcp);
    let compare = move || {
        let delete = [&["explain"], &question(KARL, DELETE, VAULT_GROUP)[1..]].concat();
        let what = vec!["what-can", "--principal", KARL, "--scope", VAULT_GROUP];
        let who = vec!["who-can", "--action", DELETE, "--scope", VAULT_GROUP];
        for (command, exit) in [(delete, 3), (what, 0), (who, 0)] {
            let there = run(&[&command[..], &["--json", "--connect", &address]].concat());
            let here = run(&[&command[..], &["--json", "--policy", CONTOSO]].concat());
            assert_eq!(code(&there), exit, "{there:?}");
            assert_eq!(json(&there), json(&here), "{command:?}");
        }
        let output = run(&["who-can", "--action", "*", "--scope", "x", "--connect", &address, "--json"]);
        assert_eq!((code(&output), &json(&output)["error"]["code"]), (2, &"INVALID_ARGUMENT".into()));
    };
    tokio::task::spawn_blocking(compare).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_of_a_sidecar() {
    let sidecar = Sidecar::start(&[]).await;
    let address = format!("unix://{}", sidecar.addresses.uds().unwrap().display());
    let status = async |more: &'static [&'static str]| {
        let address = address.clone();
        let run = move || run(&[&["status", "--connect", &address], more].concat());
        tokio::task::spawn_blocking(run).await.unwrap()
    };
    let output = status(&["--json"]).await;
    assert_eq!(code(&output), 0, "{output:?}");
    let told = json(&output);
    assert_eq!(told["policy"]["generation"], 1);
    assert_eq!(told["policy"]["freshness"], "fresh");
    assert_eq!(told["publication"], Value::Null);
    let text = stdout(&status(&[]).await);
    assert!(text.starts_with("policy    serial 0, generation 1\ndigest    sha256:"), "{text}");

    std::fs::write(sidecar.policy.path().join("bad.json"), "{ \"not\": ").unwrap();
    eventually("the refusal", async || sidecar.readiness.report().last_reload_failure.is_some()).await;
    let output = status(&[]).await;
    assert_eq!(code(&output), 3, "{output:?}");
    assert!(stdout(&output).contains("bad.json:1:"), "{output:?}");

    drop(sidecar);
    for (connect, expected) in [("http://127.0.0.1:1", 1), ("ftp://there", 2)] {
        assert_eq!(code(&run(&["status", "--connect", connect])), expected, "{connect}");
    }
}

#[test]
fn check_that_cannot_decide() {
    let dir = policy();
    let path = dir.path().to_str().unwrap();
    let good = question(ALICE, READ, "/");
    let output = ask(&good, &["--connect", "http://127.0.0.1:1"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("cannot reach `http://127.0.0.1:1`: "), "{output:?}");
    let output = ask(&good, &["--connect", "unix:///nonexistent/s", "--json"]);
    assert_eq!((code(&output), &json(&output)["error"]["code"]), (1, &"UNREACHABLE".into()));
    assert!(json(&output)["decision"].is_null());

    std::fs::write(dir.path().join("bad.json"), "{").unwrap();
    let output = ask(&good, &["--policy", path]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("bad.json:1:"), "{output:?}");
    let output = ask(&good, &["--policy", path, "--json"]);
    assert_eq!((code(&output), &json(&output)["error"]["code"]), (1, &"POLICY_REFUSED".into()));
}

#[test]
fn check_brings_attributes_and_time() {
    let dir = policy();
    let path = dir.path().to_str().unwrap();
    let app = vault("app");
    let file = dir.path().join(".attributes");
    std::fs::write(
        &file,
        r#"{"resource": {"a/b:tags": {"env": "prod"}, "n": [1, true, null]}, "principal": {}}"#,
    )
    .unwrap();
    let question = question(ALICE, READ, &app);
    let more = ["--policy", path, "--json", "--attributes", file.to_str().unwrap()];
    let flags =
        ["--request-attribute", "a=1", "--resource-attribute", "n=text", "--sub-operation", "Blob.List"];
    let time = ["--now", "2026-01-31T09:30:00+01:00", "--principal-attribute", "x={\"k\": \"v\"}"];
    let output = ask(&question, &[&more[..], &flags[..], &time[..]].concat());
    assert_eq!((code(&output), &json(&output)["decision"]), (0, &"Allowed".into()), "{output:?}");

    let nested =
        ["--policy", path, "--request-attribute", "a=[[1]]", "--environment-attribute", "b={\"\": 1}"];
    let output = ask(&question, &nested);
    assert_eq!(code(&output), 2);
    for wanted in [
        "`--request-attribute[\"a\"]` holds a list or a dictionary inside a list or a dictionary",
        "`--environment-attribute[\"b\"]` has an empty key",
    ] {
        assert!(stderr(&output).contains(wanted), "{wanted} not in {output:?}");
    }

    std::fs::write(&file, r#"{"request": 1, "context": {}, "resource": {"x": 0.5}}"#).unwrap();
    let flags = ["--request-attribute", "a", "--request-attribute", "=1", "--resource-attribute", "a=[1"];
    let output = ask(&question, &[&more[..], &flags[..], &["--approval", "approve"]].concat());
    assert_eq!(code(&output), 2);
    let errors = stderr(&output);
    for wanted in [
        "`--attributes` holds `context`; wanted",
        "`--attributes` `request` is no object",
        "`--attributes` `resource.x` is `0.5`, no 64-bit whole number",
        "`--request-attribute` is `a`; wanted NAME=VALUE",
        "`--request-attribute` is `=1`; wanted NAME=VALUE",
        "`--resource-attribute` `a` begins like JSON and is none",
        "`--approval` wants `--approval-by` or `--on-behalf-of`",
    ] {
        assert!(errors.contains(wanted), "{wanted} not in\n{errors}");
    }
    assert_eq!(errors.lines().count(), 7, "{errors}");

    assert_eq!(code(&ask(&question, &["--policy", path, "--now", "yesterday"])), 2);
    let output = ask(&question, &["--connect", "http://127.0.0.1:1", "--now", "2026-01-31T09:30:00Z"]);
    assert_eq!(code(&output), 2, "{output:?}");
    assert_eq!(code(&ask(&question, &["--policy", path, "--consent", "grant"])), 2, "consent of whom");
    assert_eq!(code(&ask(&question, &["--policy", path, "--attributes", "/nonexistent"])), 2);
}

/// Who is no agent of the policy is refused, whatever rights it has and whatever was approved.
#[test]
fn check_of_an_unknown_agent() {
    let dir = policy();
    let path = dir.path().to_str().unwrap();
    let app = vault("app");
    let question = question(ALICE, READ, &app);
    for flags in [
        &["--agent"][..],
        &["--agent-mode", "autonomous"],
        &[
            "--on-behalf-of",
            ALICE,
            "--on-behalf-of-group",
            TEAM,
            "--approval",
            "approve",
            "--consent",
            "grant",
        ],
    ] {
        let output = ask(&question, &[&["--policy", path, "--json"], flags].concat());
        assert_eq!(code(&output), 3, "{output:?}");
        let answer = json(&output);
        assert_eq!(answer["decision"], "NotAllowed");
        assert_eq!(answer["reasonCode"], "AGENT_NO_MANAGED_RESOURCE_GROUPS");
        assert!(answer["executedAs"].is_null() && answer["steps"].is_null(), "{answer}");
    }
}

#[test]
fn check_used_wrongly() {
    let dir = policy();
    let path = dir.path().to_str().unwrap();
    let output = ask(&question("", "a/*", "nowhere"), &["--policy", path]);
    assert_eq!(code(&output), 2);
    for flag in ["`--principal` is empty", "`--action` holds a wildcard", "`--scope` does not begin"] {
        assert!(stderr(&output).contains(flag), "{flag} not in {output:?}");
    }
    let good = question(ALICE, READ, "/");
    assert_eq!(code(&ask(&good, &[])), 2, "nobody to ask");
    assert_eq!(code(&ask(&good, &["--policy", path, "--connect", "http://127.0.0.1:1"])), 2);
    assert_eq!(code(&ask(&good, &["--connect", "ftp://x"])), 2);
    assert_eq!(code(&run(&["check", "--principal", "x"])), 2);
    assert_eq!(code(&run(&["frobnicate"])), 2);
}

#[test]
fn a_flag_wins_over_a_variable() {
    let dir = policy();
    let output = postern()
        .args(question(ALICE, READ, &vault("app")))
        .arg("--policy")
        .arg(dir.path())
        .env("POSTERN_CONNECT", "http://127.0.0.1:1")
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{output:?}");
    let output = postern()
        .args(question(ALICE, READ, &vault("app")))
        .env("POSTERN_POLICY", dir.path())
        .output()
        .unwrap();
    assert_eq!(code(&output), 0, "{output:?}");
}

#[test]
fn validate_says_everything() {
    let dir = policy();
    let path = dir.path().to_str().unwrap();
    let output = run(&["validate", path]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(stdout(&output).starts_with("no problems in 3 files; the policy is valid\n"), "{output:?}");
    let answer = json(&run(&["validate", path, "--json"]));
    assert_eq!((&answer["valid"], &answer["policy"]["roleAssignments"]), (&true.into(), &2.into()));

    std::fs::write(dir.path().join("bad.json"), "{").unwrap();
    std::fs::write(dir.path().join("worse.json"), "[").unwrap();
    let output = run(&["validate", path]);
    assert_eq!(code(&output), 1);
    for place in ["bad.json:1:", "worse.json:1:", "2 errors", "; the policy is refused\n"] {
        assert!(stdout(&output).contains(place), "{place} not in {}", stdout(&output));
    }
    let output = run(&["validate", path, "--json"]);
    let answer = json(&output);
    assert_eq!((code(&output), &answer["valid"], &answer["errors"]), (1, &false.into(), &2.into()));
    assert_eq!(answer["problems"][0]["location"]["file"], "bad.json");
    assert_eq!(answer["problems"][0]["severity"], "error");
    assert_eq!(code(&run(&["validate"])), 2);
    assert_eq!(code(&run(&["validate", "/nonexistent"])), 1);
}

/// The codes of all problems of a directory, which is what an author would be told.
fn codes(dir: &Path) -> Vec<String> {
    let answer = json(&run(&["validate", dir.to_str().unwrap(), "--json"]));
    let problems = answer["problems"].as_array().unwrap();
    let errors = problems.iter().filter(|problem| problem["severity"] == "error").count();
    assert_eq!((&answer["errors"], &answer["valid"]), (&errors.into(), &(errors == 0).into()));
    problems.iter().map(|problem| problem["code"].as_str().unwrap().to_owned()).collect()
}

fn numbered(first: &str, number: usize) -> String {
    format!("{first}0000000-0000-4000-8000-{number:012}")
}

fn with(mut document: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        document[name] = value.clone();
    }
    document
}

/// A custom role that may be written, but for what is changed.
fn custom_role(number: usize, more: &Value) -> Value {
    let role = json!({
        "id": numbered("c", 100 + number),
        "roleName": format!("Custom {number}"),
        "roleType": "CustomRole",
        "permissions": [{"actions": ["A.B/c/read"]}],
        "assignableScopes": [SUBSCRIPTION],
    });
    with(role, more)
}

/// A role assignment that may be written, but for what is changed.
fn role_assignment(number: usize, more: &Value) -> Value {
    let assignment = json!({
        "name": numbered("d", 100 + number),
        "principalId": numbered("a", 100 + number),
        "principalType": "User",
        "roleDefinitionId": role_definition_id(),
        "scope": SUBSCRIPTION,
    });
    with(assignment, more)
}

/// A deny assignment that may be written, but for what is changed.
fn deny_assignment(number: usize, more: &Value) -> Value {
    let deny = json!({
        "name": numbered("e", 100 + number),
        "denyAssignmentName": format!("Deny {number}"),
        "permissions": [{"actions": ["A.B/c/delete"]}],
        "principals": [{"id": ALICE, "type": "User"}],
        "scope": SUBSCRIPTION,
    });
    with(deny, more)
}

fn condition(text: &str) -> Value {
    json!({"condition": text, "conditionVersion": "2.0"})
}

/// Somebody may activate the role.
fn eligible(kind: &str, scope: &str) -> Value {
    json!({
        "name": numbered("f", 1),
        "type": "Microsoft.Authorization/roleEligibilitySchedules",
        "properties": {
            "principalId": numbered("a", 100),
            "principalType": kind,
            "roleDefinitionId": role_definition_id(),
            "scope": scope,
            "status": "Provisioned",
        },
    })
}

#[test]
fn validate_judges_as_an_author_is_judged() {
    let group = |name: &str| format!("/providers/Microsoft.Management/managementGroups/{name}");
    let elsewhere = "/subscriptions/50000000-0000-4000-8000-000000000002";
    let custom = |id: &str| json!({"roleDefinitionId": id});
    let data_role = custom_role(
        2,
        &json!({"permissions": [{"dataActions": ["A.B/c/d/read"]}], "assignableScopes": [group("corp")]}),
    );
    // (documents, code, where the caret points)
    let faults: Vec<(Vec<Value>, &str, &str)> = vec![
        (vec![custom_role(1, &json!({"assignableScopes": ["/"]}))], "InvalidAssignableScope", "\"/\""),
        (vec![custom_role(1, &json!({"assignableScopes": []}))], "InvalidAssignableScope", "{"),
        (
            vec![custom_role(1, &json!({"assignableScopes": ["/subscriptions/*"]}))],
            "InvalidAssignableScope",
            "\"/subscriptions/*\"",
        ),
        (
            vec![custom_role(1, &json!({"assignableScopes": [group("a"), group("b")]}))],
            "InvalidAssignableScope",
            "\"/providers/Microsoft.Management/managementGroups/b\"",
        ),
        (
            vec![custom_role(1, &json!({"permissions": [{"actions": ["A/*/b/*"]}]}))],
            "InvalidActionOrNotAction",
            "\"A/*/b/*\"",
        ),
        (
            vec![custom_role(1, &json!({"permissions": [{"actions": ["A/b c"]}]}))],
            "InvalidActionOrNotAction",
            "\"A/b c\"",
        ),
        (
            vec![custom_role(1, &json!({"permissions": [{"notActions": ["a"]}]}))],
            "InvalidRoleDefinition",
            "{",
        ),
        (vec![custom_role(1, &json!({"id": "mine"}))], "InvalidRoleDefinition", "\"mine\""),
        (vec![custom_role(1, &json!({"roleName": "x".repeat(513)}))], "InvalidRoleDefinition", "\"xxx"),
        (vec![custom_role(1, &json!({"description": "x".repeat(2_049)}))], "InvalidRoleDefinition", "\"xxx"),
        (
            vec![custom_role(1, &json!({"roleName": "vault operator"}))],
            "RoleDefinitionWithSameNameExists",
            "",
        ),
        (vec![role_assignment(1, &json!({"name": "mine"}))], "InvalidRoleAssignmentName", "\"mine\""),
        (vec![role_assignment(1, &json!({"principalId": ALICE}))], "RoleAssignmentExists", ""),
        (
            vec![role_assignment(1, &json!({})), role_assignment(1, &json!({"principalId": BOB}))],
            "RoleAssignmentUpdateNotPermitted",
            "\"d0000000-",
        ),
        (
            vec![role_assignment(1, &json!({"scope": "/subscriptions/x"}))],
            "InvalidScope",
            "\"/subscriptions/x\"",
        ),
        (
            vec![role_assignment(1, &custom("c0000000-0000-4000-8000-00000000dead"))],
            "RoleDefinitionDoesNotExist",
            "\"c0000000-0000-4000-8000-00000000dead\"",
        ),
        (
            vec![
                custom_role(1, &json!({})),
                role_assignment(1, &with(custom(&numbered("c", 101)), &json!({"scope": elsewhere}))),
            ],
            "RoleAssignmentScopeNotAssignableToRoleDefinition",
            "\"/subscriptions/50000000-0000-4000-8000-000000000002\"",
        ),
        (
            vec![
                data_role,
                role_assignment(1, &with(custom(&numbered("c", 102)), &json!({"scope": group("corp")}))),
            ],
            "DataActionsNotAllowedAtManagementGroup",
            "\"/providers/Microsoft.Management/managementGroups/corp\"",
        ),
        (
            vec![role_assignment(1, &json!({"description": "x".repeat(2_049)}))],
            "InvalidRoleAssignment",
            "\"xxx",
        ),
        (vec![deny_assignment(1, &json!({"name": "mine"}))], "InvalidDenyAssignment", "\"mine\""),
        (
            vec![
                deny_assignment(1, &json!({})),
                deny_assignment(2, &json!({"denyAssignmentName": "DENY 1"})),
            ],
            "InvalidDenyAssignment",
            "\"DENY 1\"",
        ),
        (
            vec![deny_assignment(1, &json!({})), deny_assignment(1, &json!({"scope": elsewhere}))],
            "DuplicateDenyAssignment",
            "\"e0000000-",
        ),
        (vec![deny_assignment(1, &json!({"principals": []}))], "InvalidDenyAssignment", "[]"),
        (vec![deny_assignment(1, &json!({"permissions": []}))], "InvalidDenyAssignment", "{"),
        (vec![deny_assignment(1, &json!({"scope": "x"}))], "InvalidScope", "\"x\""),
        (vec![role_assignment(1, &condition("@Request[x] StringIs 'y'"))], "unknown_operator", "StringIs"),
        (
            vec![role_assignment(
                1,
                &condition("Exists @Request[\"x\"] AND Exists @Request[y] OR Exists @Request[z]"),
            )],
            "ambiguous_precedence",
            "OR",
        ),
        (
            vec![role_assignment(
                1,
                &with(condition("Exists @Request[x]"), &json!({"conditionVersion": "1.0"})),
            )],
            "InvalidCondition",
            "\"1.0\"",
        ),
        (
            vec![role_assignment(
                1,
                &condition(&format!("@Request[x] StringEquals '{}'", "x".repeat(8_192))),
            )],
            "condition_too_long",
            "xxx",
        ),
        (
            vec![custom_role(
                1,
                &json!({"permissions": [with(json!({"actions": ["A.B/c/read"]}), &condition("broken"))]}),
            )],
            "InvalidCondition",
            "\"broken\"",
        ),
        (
            vec![
                custom_role(1, &json!({"permissions": [{"dataActions": ["Microsoft.Storage/a/b/read"]}]})),
                role_assignment(
                    1,
                    &with(
                        custom(&numbered("c", 101)),
                        &condition("@Request[x] GuidEquals 50000000-0000-4000-8000-000000000001"),
                    ),
                ),
            ],
            "guid_operator_on_storage_role",
            "GuidEquals",
        ),
        (vec![deny_assignment(1, &condition("@Request[x] StringIs 'y'"))], "unknown_operator", "StringIs"),
        (
            vec![eligible("ServicePrincipal", SUBSCRIPTION)],
            "EligiblePrincipalTypeNotAllowed",
            "\"ServicePrincipal\"",
        ),
        (vec![eligible("User", "/")], "EligibleScopeNotAllowed", "\"/\""),
        (vec![eligible("User", &vault("app"))], "EligibleScopeNotAllowed", "\"/subscriptions/"),
    ];
    for (number, (documents, code, caret)) in faults.into_iter().enumerate() {
        let dir = policy();
        let file = dir.path().join("zz-fault.json");
        let text = serde_json::to_string_pretty(&documents).unwrap();
        std::fs::write(&file, &text).unwrap();
        assert_eq!(codes(dir.path()), [code], "{number}: {text}");
        let answer = json(&run(&["validate", dir.path().to_str().unwrap(), "--json"]));
        let location = &answer["problems"][0]["location"];
        let (line, column) = (location["line"].as_u64().unwrap(), location["column"].as_u64().unwrap());
        // What contradicts another file is told of the one that is read second.
        if location["file"] == "zz-fault.json" {
            let line = text.lines().nth(usize::try_from(line).unwrap() - 1).unwrap();
            let at = &line[usize::try_from(column).unwrap() - 1..];
            assert!(at.starts_with(caret), "{number} {code}: {at}");
        } else {
            assert!(caret.is_empty(), "{number} {code}: {location}");
        }
    }
}

#[test]
fn validate_refuses_what_serve_takes() {
    let dir = policy();
    let path = dir.path().to_str().unwrap();
    let role = custom_role(1, &json!({"permissions": [{"actions": ["A/*/b/*"]}]}));
    std::fs::write(dir.path().join("old.json"), role.to_string()).unwrap();
    let output = ask(&question(ALICE, READ, &vault("app")), &["--policy", path]);
    assert_eq!(code(&output), 0, "{output:?}");
    let output = run(&["validate", path]);
    assert_eq!(code(&output), 1);
    let text = stdout(&output);
    for part in [
        "error[InvalidActionOrNotAction]",
        "--> old.json:1:",
        "^^^",
        "1 error in 4 files; the policy is refused",
    ] {
        assert!(text.contains(part), "{part} not in {text}");
    }
}

#[test]
fn validate_counts_against_the_limits() {
    let corp = "/providers/Microsoft.Management/managementGroups/corp";
    let group = format!("{SUBSCRIPTION}/resourceGroups/app");
    // Two assignments at the subscription are there already.
    for (count, scope, within) in
        [(3_998, &group[..], true), (3_999, &group, false), (500, corp, true), (501, corp, false)]
    {
        let dir = policy();
        let documents: Vec<_> =
            (0..count).map(|number| role_assignment(number, &json!({"scope": scope}))).collect();
        std::fs::write(dir.path().join("many.json"), json!(documents).to_string()).unwrap();
        let expected: &[&str] = if within { &[] } else { &["RoleAssignmentLimitExceeded"] };
        assert_eq!(codes(dir.path()), expected, "{count} at {scope}");
    }
    for (count, expected) in [(5_000, &[][..]), (5_002, &["RoleDefinitionLimitExceeded"])] {
        let dir = tempfile::tempdir().unwrap();
        let documents: Vec<_> = (0..count).map(|number| custom_role(number, &json!({}))).collect();
        std::fs::write(dir.path().join("many.json"), json!(documents).to_string()).unwrap();
        assert_eq!(codes(dir.path()), expected, "{count}");
    }
}

#[test]
fn serve_tells_all_wrong_settings_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "drain-grace = \"soon\"\nunknown = 1\n").unwrap();
    let output = postern()
        .args(["serve", "--cache", "yes", "--tcp", "0.0.0.0:4770", "--config", file.to_str().unwrap()])
        .env("POSTERN_UDS_MODE", "rw")
        .output()
        .unwrap();
    assert_eq!(code(&output), 2);
    let errors = stderr(&output);
    for wanted in [
        "flag `--cache` is `yes`; wanted `off`, ",
        "flag `--tcp` is `0.0.0.0:4770`; wanted a loopback address",
        "key `drain-grace` is `soon`; wanted a time",
        "key `unknown` is `1`; wanted a known key",
        "environment variable `POSTERN_UDS_MODE` is `rw`; wanted an octal file mode",
        "setting `policy`: wanted a policy directory",
    ] {
        assert!(errors.contains(wanted), "{wanted} not in\n{errors}");
    }
    assert_eq!(errors.lines().count(), 6, "{errors}");
}

#[test]
fn serve_refuses_a_bad_policy_with_the_full_report() {
    let dir = policy();
    std::fs::write(dir.path().join("bad.json"), "{").unwrap();
    let path = dir.path().to_str().unwrap();
    let output = run(&["serve", "--policy", path, "--tcp", "127.0.0.1:0", "--admin", "off"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("--> bad.json:1:"), "{}", stderr(&output));
    assert!(stderr(&output).ends_with("; the policy is refused\n"), "{}", stderr(&output));
}

#[test]
fn version_help_and_completions() {
    let output = run(&["--version"]);
    assert_eq!(code(&output), 0);
    let version = stdout(&output);
    assert!(version.starts_with(concat!("postern ", env!("CARGO_PKG_VERSION"), " (")), "{version}");
    for command in ["serve", "check", "explain", "what-can", "who-can", "load", "validate", "completions"] {
        let output = run(&[command, "--help"]);
        assert_eq!(code(&output), 0);
        assert!(stdout(&output).contains("Examples:\n"), "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_eq!(code(&output), 0);
        assert!(stdout(&output).contains("postern"), "{shell}");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    for arguments in [&["completions", "bash"][..], &["--help"], &["serve", "--help"]] {
        let mut child =
            postern().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(!stderr(&output).contains("panicked"), "{arguments:?}: {}", stderr(&output));
        assert_eq!(code(&output), 0, "{arguments:?}");
    }
}

/// `UPDATE_README=1 cargo test --test cli` writes the table instead of comparing it.
#[test]
fn the_table_of_settings_in_the_readme_is_that_of_the_flags() {
    const BEGIN: &str = "<!-- settings:begin -->\n";
    const END: &str = "<!-- settings:end -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).expect("README.md is there");
    let (head, rest) = readme.split_once(BEGIN).expect("README.md has `<!-- settings:begin -->`");
    let (table, tail) = rest.split_once(END).expect("README.md has `<!-- settings:end -->`");
    let wanted = postern::cli::settings_table();
    if std::env::var_os("UPDATE_README").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{wanted}{END}{tail}")).unwrap();
        return;
    }
    assert_eq!(table, wanted, "run `UPDATE_README=1 cargo test --test cli` to bring README.md up to date");
}
