//! The sidecar over real sockets: what it answers, how it starts, reloads and ends.

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

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use common::*;
use postern::app;
use postern::proto::v1;
use postern::proto::v1::authorization_service_client::AuthorizationServiceClient;
use postern::proto::v1::batch_check_item_result::Outcome;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

const SERVICE: &str = "postern.v1.AuthorizationService";

async fn check(channel: &Channel, request: v1::CheckRequest) -> Result<v1::CheckResponse, Status> {
    AuthorizationServiceClient::new(channel.clone()).check(request).await.map(Response::into_inner)
}

async fn health(channel: &Channel, service: &str) -> Result<i32, Status> {
    let request = HealthCheckRequest { service: service.into() };
    HealthClient::new(channel.clone()).check(request).await.map(|answer| answer.into_inner().status)
}

// === answers ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_three_answers_over_both_listeners() {
    let sidecar = Sidecar::start(&[]).await;
    for channel in [sidecar.tcp().await, sidecar.uds().await] {
        let mut asked = request(ALICE, READ, &vault("app"));
        asked.request_id = "r-1".into();
        let answer = check(&channel, asked).await.unwrap();
        let (result, policy) = (answer.result.unwrap(), answer.policy.unwrap());
        assert_eq!(result.decision(), v1::Decision::Allowed);
        assert_eq!(result.reason_code(), v1::ReasonCode::RoleAssignment);
        assert_eq!(result.role_assignment_id, role_assignment_id());
        assert_eq!(result.role_definition_id, role_definition_id());
        assert_eq!(result.deny_assignment_id, "");
        assert!(result.reason.contains("Vault Operator"), "{}", result.reason);
        assert_eq!((policy.serial, policy.generation), (0, 1));
        assert!(policy.digest.starts_with("sha256:") && policy.digest.len() == 71, "{}", policy.digest);
        assert_eq!(answer.request_id, "r-1");

        let result = check(&channel, request(BOB, READ, &vault("app"))).await.unwrap().result.unwrap();
        assert_eq!(result.decision(), v1::Decision::NotAllowed);
        assert_eq!(result.reason_code(), v1::ReasonCode::NoRoleAssignment);

        let mut wrong_plane = request(ALICE, GET_SECRET, &vault("app"));
        wrong_plane.action.as_mut().unwrap().data_action = false;
        let result = check(&channel, wrong_plane).await.unwrap().result.unwrap();
        assert_eq!(result.reason_code(), v1::ReasonCode::ActionNotGranted);

        let result = check(&channel, request(ALICE, DELETE, &vault("locked"))).await.unwrap().result.unwrap();
        assert_eq!(result.decision(), v1::Decision::Denied);
        assert_eq!(result.reason_code(), v1::ReasonCode::DenyAssignment);
        assert_eq!(result.deny_assignment_id, deny_assignment_id());
        assert_eq!(result.role_assignment_id, "");

        let mut asserted = request(BOB, GET_SECRET, &vault("app"));
        asserted.subject.as_mut().unwrap().group_ids = vec![TEAM.into()];
        let result = check(&channel, asserted).await.unwrap().result.unwrap();
        assert_eq!(result.decision(), v1::Decision::Allowed);
    }
    let (_, metrics) = http(sidecar.admin(), "/metrics").await;
    for transport in ["tcp", "unix"] {
        let line = format!(
            "postern_decisions_total{{outcome=\"Denied\",reason=\"DENY_ASSIGNMENT\",plane=\"control\",\
             cache=\"bypass\",transport=\"{transport}\"}} 1"
        );
        assert!(metrics.lines().any(|found| found == line), "{line} not in\n{metrics}");
    }
    assert!(metrics.contains("postern_policy_objects{kind=\"role_assignment\"} 2\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_name_every_field() {
    let sidecar = Sidecar::start(&[]).await;
    let channel = sidecar.tcp().await;
    let mut wrong = request("", "a/*", "nowhere");
    wrong.subject.as_mut().unwrap().group_ids = vec![TEAM.into(), String::new()];
    let status = check(&channel, wrong).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_details_bad_request().unwrap();
    let fields: Vec<_> = details.field_violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["subject.principal_id", "subject.group_ids[1]", "action.name", "resource.scope"]);
    let (_, metrics) = http(sidecar.admin(), "/metrics").await;
    assert!(metrics.contains("postern_invalid_requests_total 1\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_agent_is_refused_alone_and_in_a_batch() {
    let sidecar = Sidecar::start(&[]).await;
    let channel = sidecar.uds().await;
    let mut asked = request(ALICE, READ, &vault("app"));
    asked.agent = Some(v1::AgentContext {
        mode: v1::AgentMode::Auto as i32,
        on_behalf_of: request(ALICE, "", "").subject,
        approval: Some(v1::AgentApproval {
            by: request(ALICE, "", "").subject,
            verdict: v1::ApprovalVerdict::Approve as i32,
        }),
        ..Default::default()
    });
    let result = check(&channel, asked.clone()).await.unwrap().result.unwrap();
    assert_eq!(result.decision(), v1::Decision::NotAllowed);
    assert_eq!(result.reason_code(), v1::ReasonCode::AgentNoManagedResourceGroups);
    assert_eq!((result.executed_as(), result.steps.len()), (v1::ExecutedAs::Unspecified, 0));
    let batch = v1::BatchCheckRequest {
        subject: asked.subject.clone(),
        items: [asked.agent.clone(), None]
            .map(|agent| v1::BatchCheckItem {
                action: asked.action.clone(),
                resource: asked.resource.clone(),
                agent,
                ..Default::default()
            })
            .into(),
        ..Default::default()
    };
    let answer =
        AuthorizationServiceClient::new(channel.clone()).batch_check(batch).await.unwrap().into_inner();
    let decisions: Vec<_> = answer
        .results
        .iter()
        .map(|result| match result.outcome.as_ref().unwrap() {
            Outcome::Result(result) => result.decision(),
            Outcome::Error(error) => panic!("{error:?}"),
        })
        .collect();
    assert_eq!(decisions, [v1::Decision::NotAllowed, v1::Decision::Allowed]);

    asked.agent =
        Some(v1::AgentContext { mode: 7, consent: Some(v1::AgentConsent::default()), ..Default::default() });
    let status = check(&channel, asked).await.unwrap_err();
    let details = status.get_details_bad_request().unwrap();
    let fields: Vec<_> = details.field_violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(
        fields,
        ["agent.mode", "agent.consent", "agent.consent.principal_id", "agent.consent.verdict"]
    );
    let (_, metrics) = http(sidecar.admin(), "/metrics").await;
    let line = "postern_decisions_total{outcome=\"NotAllowed\",reason=\"AGENT_NO_MANAGED_RESOURCE_GROUPS\",\
                plane=\"control\",cache=\"bypass\",transport=\"unix\"} 2";
    assert!(metrics.lines().any(|found| found == line), "{line} not in\n{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_violations_still_arrives() {
    let sidecar = Sidecar::start(&[]).await;
    let mut wrong = request("", "a/*", "nowhere");
    wrong.subject.as_mut().unwrap().group_ids = vec![String::new(); 4096];
    for channel in [sidecar.tcp().await, sidecar.uds().await] {
        let status = check(&channel, wrong.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.get_details_bad_request().is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_keep_order_and_errors_apart() {
    let sidecar = Sidecar::start(&["--max-batch-items", "4"]).await;
    let mut client = AuthorizationServiceClient::new(sidecar.uds().await);
    let item = |subject: Option<&str>, action: &str, scope: &str| {
        let whole = request(subject.unwrap_or_default(), action, scope);
        v1::BatchCheckItem {
            subject: subject.and(whole.subject),
            action: whole.action,
            resource: whole.resource,
            ..Default::default()
        }
    };
    let batch = v1::BatchCheckRequest {
        subject: request(ALICE, "", "").subject,
        items: vec![
            item(None, READ, &vault("app")),
            item(None, READ, "nowhere"),
            item(Some(BOB), READ, &vault("app")),
            item(None, DELETE, &vault("locked")),
        ],
        request_id: "b".into(),
        ..Default::default()
    };
    let answer = client.batch_check(batch.clone()).await.unwrap().into_inner();
    let told: Vec<String> = answer
        .results
        .iter()
        .map(|result| match result.outcome.as_ref().unwrap() {
            Outcome::Result(result) => result.decision().as_str_name().to_owned(),
            Outcome::Error(error) => format!("{} {}", error.code, error.field_violations[0].field),
        })
        .collect();
    assert_eq!(
        told,
        ["DECISION_ALLOWED", "3 items[1].resource.scope", "DECISION_NOT_ALLOWED", "DECISION_DENIED"]
    );
    assert_eq!((answer.item_limit, answer.request_id.as_str()), (4, "b"));
    assert_eq!(answer.policy.unwrap().generation, 1);

    let mut large = batch.clone();
    large.items.push(item(None, READ, "/"));
    let status = client.batch_check(large).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_error_details();
    assert_eq!(details.bad_request().unwrap().field_violations[0].field, "items");
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["limit"].as_str()), ("BATCH_TOO_LARGE", "4"));

    let empty = v1::BatchCheckRequest { items: Vec::new(), ..batch };
    assert_eq!(client.batch_check(empty).await.unwrap_err().code(), Code::InvalidArgument);
    let (_, metrics) = http(sidecar.admin(), "/metrics").await;
    assert!(metrics.contains("postern_batch_items_total 4\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_over_the_limit_is_refused() {
    let sidecar = Sidecar::start(&["--max-request-bytes", "1KiB"]).await;
    let large = request(&"x".repeat(2000), READ, "/");
    let status = check(&sidecar.tcp().await, large).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
}

// === explanations and lists ===

const CONTOSO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/contoso");
const VAULT_GROUP: &str = "/subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-vault-prod";
const KARL: &str = "00000000-0000-4000-a002-000000000006";

/// The example tenant in a process of its own.
async fn contoso() -> (Process, AuthorizationServiceClient<Channel>) {
    let process = Process::start(std::path::Path::new(CONTOSO), &[], &[]);
    process.ready().await;
    let client = AuthorizationServiceClient::new(connect_tcp(process.tcp).await);
    (process, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explains_what_check_answers() {
    let (process, mut client) = contoso().await;
    let foundry = "/subscriptions/00000000-0000-4000-a001-000000000003/resourceGroups/rg-ai-dev/providers/\
                   Microsoft.CognitiveServices/accounts/contoso-foundry";
    let payments = "/subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-payments-prod";
    let mut explained = Vec::new();
    for (principal, action, scope) in [
        (KARL, "Microsoft.KeyVault/vaults/read", VAULT_GROUP),
        (KARL, "Microsoft.KeyVault/vaults/delete", VAULT_GROUP),
        (KARL, "Microsoft.Resources/deployments/delete", VAULT_GROUP),
        ("00000000-0000-4000-a002-000000000003", "Microsoft.Authorization/roleAssignments/write", foundry),
        ("00000000-0000-4000-a004-000000000001", GET_SECRET, payments),
    ] {
        let mut check = request(principal, action, scope);
        check.request_id = "e-1".into();
        let checked = client.check(check.clone()).await.unwrap().into_inner();
        let answer = client.explain(v1::ExplainRequest { check: Some(check) }).await.unwrap().into_inner();
        assert_eq!((&answer.result, &answer.policy), (&checked.result, &checked.policy), "{action}");
        assert_eq!(answer.request_id, "e-1");
        let (result, explanation) = (answer.result.unwrap(), answer.explanation.unwrap());
        assert_eq!((result.decision(), &result.reason), (explanation.decision(), &explanation.reason));
        assert_eq!(explanation.principals[0].id, principal);
        assert_eq!(explanation.principals[0].origin(), v1::PrincipalOrigin::Subject);
        assert!(!explanation.truncated && explanation.omitted.is_none());
        assert!(answer.on_behalf_of_explanation.is_none());
        explained.push((result, explanation));
    }
    let (result, allowed) = &explained[0];
    assert_eq!(allowed.assignments[0].outcome(), v1::AssignmentOutcome::Granted);
    assert_eq!(allowed.assignments[0].assignment.as_ref().unwrap().id, result.role_assignment_id);
    assert_eq!(allowed.assignments[0].pattern.as_ref().unwrap().pattern, "Microsoft.KeyVault/*");

    let (result, denied) = &explained[1];
    assert_eq!(denied.decision(), v1::Decision::Denied);
    assert_eq!(denied.denies[0].outcome(), v1::DenyOutcome::Hit);
    assert_eq!(denied.denies[0].id, result.deny_assignment_id);
    assert_eq!(denied.assignments[0].outcome(), v1::AssignmentOutcome::Granted);
    let (_, exempt) = &explained[2];
    assert_eq!(exempt.denies[0].outcome(), v1::DenyOutcome::ExcludedByPattern);
    let exclusion = exempt.denies[0].exclusion.as_ref().unwrap();
    assert_eq!((exclusion.list.as_str(), exclusion.block), ("notActions", 0));

    let (_, excluded) = &explained[3];
    let told = &excluded.assignments[0];
    assert_eq!(told.outcome(), v1::AssignmentOutcome::ExcludedByPattern);
    assert_eq!(told.pattern.as_ref().unwrap().pattern, "*");
    assert_eq!(told.exclusion.as_ref().unwrap().pattern, "Microsoft.Authorization/*/Write");

    let (_, low) = &explained[4];
    assert!(low.assignments.is_empty());
    let Some(v1::near_miss::Kind::ScopeTooLow(miss)) = &low.near_misses[0].kind else {
        panic!("{:?}", low.near_misses)
    };
    assert!(miss.assignment.as_ref().unwrap().scope.starts_with(payments));

    let wrong = v1::ExplainRequest { check: Some(request("", "a/*", "nowhere")) };
    let status = client.explain(wrong).await.unwrap_err();
    let details = status.get_details_bad_request().unwrap();
    let fields: Vec<_> = details.field_violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["check.subject.principal_id", "check.action.name", "check.resource.scope"]);
    let status = client.explain(v1::ExplainRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);

    let (_, metrics) = http(process.admin, "/metrics").await;
    for (outcome, count) in [("answered", 5), ("invalid", 2)] {
        let line = format!(
            "postern_queries_total{{method=\"Explain\",outcome=\"{outcome}\",transport=\"tcp\"}} {count}"
        );
        assert!(metrics.lines().any(|found| found == line), "{line} not in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_permissions_page_by_page() {
    let (_process, mut client) = contoso().await;
    let mut asked = v1::ListPermissionsRequest {
        subject: request(KARL, "", "").subject,
        scope: VAULT_GROUP.into(),
        ..Default::default()
    };
    let whole = client.list_permissions(asked.clone()).await.unwrap().into_inner();
    assert_eq!((whole.next_page_token.as_str(), whole.truncated), ("", false));
    assert_eq!((whole.grants.len(), whole.denies.len()), (1, 1));
    assert_eq!(whole.grants[0].assignment.as_ref().unwrap().role_name, "Key Vault Contributor");
    assert!(whole.operations.len() > 3, "{:?}", whole.operations);

    let mut paged = v1::ListPermissionsResponse { policy: whole.policy.clone(), ..Default::default() };
    asked.page_size = 2;
    let mut pages = 0;
    loop {
        let page = client.list_permissions(asked.clone()).await.unwrap().into_inner();
        let entries = page.grants.len() + page.denies.len() + page.eligible.len() + page.operations.len();
        assert!(entries == 2 || page.next_page_token.is_empty(), "{page:?}");
        paged.grants.extend(page.grants);
        paged.denies.extend(page.denies);
        paged.eligible.extend(page.eligible);
        paged.operations.extend(page.operations);
        pages += 1;
        if page.next_page_token.is_empty() {
            break;
        }
        asked.page_token = page.next_page_token;
    }
    assert_eq!(paged, whole);
    assert_eq!(pages, (2 + whole.operations.len()).div_ceil(2));

    // The token is of these very arguments.
    let other = v1::ListPermissionsRequest { scope: "/".into(), ..asked.clone() };
    let none = v1::ListPermissionsRequest { page_token: "x".into(), ..asked.clone() };
    for wrong in [other, none] {
        let status = client.list_permissions(wrong).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "page_token");
    }

    asked.page_token.clear();
    asked.page_size = 0;
    let operation =
        |name: &str| v1::Action { name: name.into(), data_action: name == GET_SECRET, ..Default::default() };
    asked.operations = [DELETE, "Microsoft.KeyVault/vaults/write", GET_SECRET].map(operation).into();
    let answer = client.list_permissions(asked.clone()).await.unwrap().into_inner();
    let outcomes: Vec<_> = answer.operations.iter().map(|one| one.outcome()).collect();
    assert_eq!(outcomes, [v1::OperationOutcome::Denied, v1::OperationOutcome::Allowed]);

    asked.operations = vec![operation(READ); 5_001];
    let status = client.list_permissions(asked).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["limit"].as_str()), ("TOO_MANY_OPERATIONS", "5000"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_principals_page_by_page() {
    let (_process, mut client) = contoso().await;
    let mut asked = v1::ListPrincipalsRequest {
        action: request("", DELETE, "").action,
        scope: VAULT_GROUP.into(),
        ..Default::default()
    };
    let whole = client.list_principals(asked.clone()).await.unwrap().into_inner();
    assert_eq!((whole.denies.len(), whole.principals.len(), whole.denied.len()), (1, 2, 3));
    assert!(whole.denies[0].all_principals);
    assert!(whole.denied.iter().any(|denied| denied.id == KARL));
    asked.page_size = 4;
    let first = client.list_principals(asked.clone()).await.unwrap().into_inner();
    assert_eq!((first.denies.len(), first.principals.len(), first.denied.len()), (1, 2, 1));
    asked.page_token = first.next_page_token;
    let last = client.list_principals(asked.clone()).await.unwrap().into_inner();
    assert_eq!((last.denied.as_slice(), last.next_page_token.as_str()), (&whole.denied[1..], ""));
    asked.action.as_mut().unwrap().data_action = true;
    assert_eq!(client.list_principals(asked).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_token_does_not_outlive_its_policy() {
    let sidecar = Sidecar::start(&[]).await;
    let mut client = AuthorizationServiceClient::new(sidecar.uds().await);
    let mut asked = v1::ListPrincipalsRequest {
        action: request("", READ, "").action,
        scope: vault("app"),
        page_size: 1,
        ..Default::default()
    };
    asked.page_token = client.list_principals(asked.clone()).await.unwrap().into_inner().next_page_token;
    assert!(client.list_principals(asked.clone()).await.is_ok());
    revoke_alice(sidecar.policy.path());
    let aborted = async || match client.clone().list_principals(asked.clone()).await {
        Ok(_) => false,
        Err(status) => {
            assert_eq!(status.code(), Code::Aborted);
            assert_eq!(status.get_details_error_info().unwrap().reason, "PAGE_TOKEN_OUTDATED");
            true
        }
    };
    eventually("the other policy", aborted).await;
}

// === health, reflection, admin ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_serves_with_a_policy_and_not_in_a_drain() {
    let mut sidecar = Sidecar::start(&["--drain-delay", "1m"]).await;
    let channel = sidecar.tcp().await;
    for service in ["", SERVICE] {
        assert_eq!(health(&channel, service).await.unwrap(), ServingStatus::Serving as i32);
    }
    assert_eq!(health(&channel, "other").await.unwrap_err().code(), Code::NotFound);
    sidecar.begin_drain();
    let not_serving = async || health(&channel, SERVICE).await.unwrap() == ServingStatus::NotServing as i32;
    eventually("NOT_SERVING", not_serving).await;
    let (status, body) = http(sidecar.admin(), "/readyz").await;
    assert_eq!(status, 503);
    assert!(body.starts_with("not ready\npending: drain\n"), "{body}");
    // During the delay it still answers.
    assert!(check(&channel, request(ALICE, READ, "/")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_is_behind_a_flag() {
    use tonic_reflection::pb::{v1 as new, v1alpha as old};

    async fn services_v1(channel: Channel) -> Result<Vec<String>, Status> {
        let asked = new::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(
                new::server_reflection_request::MessageRequest::ListServices(String::new()),
            ),
        };
        let mut answers = new::server_reflection_client::ServerReflectionClient::new(channel)
            .server_reflection_info(tokio_stream::once(asked))
            .await?
            .into_inner();
        match answers.next().await.unwrap()?.message_response.unwrap() {
            new::server_reflection_response::MessageResponse::ListServicesResponse(list) => {
                Ok(list.service.into_iter().map(|service| service.name).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    async fn file_v1alpha(channel: Channel) -> Result<usize, Status> {
        let asked = old::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(old::server_reflection_request::MessageRequest::FileContainingSymbol(
                SERVICE.into(),
            )),
        };
        let mut answers = old::server_reflection_client::ServerReflectionClient::new(channel)
            .server_reflection_info(tokio_stream::once(asked))
            .await?
            .into_inner();
        match answers.next().await.unwrap()?.message_response.unwrap() {
            old::server_reflection_response::MessageResponse::FileDescriptorResponse(files) => {
                Ok(files.file_descriptor_proto.len())
            }
            other => panic!("{other:?}"),
        }
    }

    let on = Sidecar::start(&["--reflection"]).await;
    let services = services_v1(on.tcp().await).await.unwrap();
    for service in [SERVICE, "grpc.health.v1.Health"] {
        assert!(services.iter().any(|found| found == service), "{service} not in {services:?}");
    }
    assert!(file_v1alpha(on.uds().await).await.unwrap() > 0);

    let off = Sidecar::start(&[]).await;
    assert_eq!(services_v1(off.tcp().await).await.unwrap_err().code(), Code::Unimplemented);
    assert_eq!(file_v1alpha(off.tcp().await).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_endpoint_tells() {
    let sidecar = Sidecar::start(&[]).await;
    assert_eq!(http(sidecar.admin(), "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(http(sidecar.admin(), "/nothing").await.0, 404);
    let (status, body) = http(sidecar.admin(), "/readyz?format=json").await;
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["ready"], &body["policy"]["generation"]), (200, &true.into(), &1.into()));
    let (_, metrics) = http(sidecar.admin(), "/metrics").await;
    assert!(metrics.contains("postern_build_info{"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"));
}

// === start ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_of_any_listener_fails_the_start_and_names_it() {
    let dir = policy();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let socket = dir.path().join("s");
    let _live = UnixListener::bind(&socket).unwrap();
    let base = ["--policy", dir.path().to_str().unwrap(), "--log-level", "off"];
    for (arguments, named) in [
        (["--tcp", address.as_str(), "--admin", "off"], format!("`{address}` (`--tcp`)")),
        (["--tcp", "127.0.0.1:0", "--admin", address.as_str()], format!("`{address}` (`--admin`)")),
        (
            ["--uds", socket.to_str().unwrap(), "--admin", "off"],
            format!("`{}` (`--uds`): another process listens", socket.display()),
        ),
    ] {
        let all: Vec<_> = base.iter().chain(&arguments).copied().collect();
        let error = app::bind(config(&all)).await.unwrap_err().to_string();
        assert!(error.contains(&named), "{named} not in {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_of_a_dead_process_is_replaced_and_ours_is_removed() {
    let dir = policy();
    let socket = tempfile::tempdir().unwrap();
    let path = socket.path().join("s");
    drop(UnixListener::bind(&path).unwrap());
    let arguments = ["--policy", dir.path().to_str().unwrap(), "--uds", path.to_str().unwrap()];
    let all: Vec<_> = arguments.into_iter().chain(["--admin", "off", "--uds-mode", "0600"]).collect();
    let bound = app::bind(config(&all)).await.unwrap();
    assert_eq!(bound.addresses.tcp, None, "a socket alone replaces TCP");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn(bound.serve(async {
        let _either = stopped.await;
    }));
    let channel = connect_uds(&path).await;
    let serving = async || health(&channel, "").await.unwrap() == ServingStatus::Serving as i32;
    eventually("SERVING", serving).await;
    drop(channel);
    stop.send(()).unwrap();
    task.await.unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_policy_fails_the_start() {
    let dir = policy();
    std::fs::write(dir.path().join("bad.json"), "{").unwrap();
    let arguments = ["--policy", dir.path().to_str().unwrap(), "--tcp", "127.0.0.1:0", "--admin", "off"];
    let bound = app::bind(config(&arguments)).await.unwrap();
    match bound.serve(std::future::pending()).await {
        Err(app::RunError::Policy(refused)) => assert!(refused.problems.has_errors()),
        other => panic!("{other:?}"),
    }
}

// === reload ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_edit_is_taken_and_a_bad_one_is_told() {
    let sidecar = Sidecar::start(&[]).await;
    let channel = sidecar.uds().await;
    let decision = async || {
        let answer = check(&channel, request(ALICE, READ, &vault("app"))).await.unwrap();
        (answer.result.unwrap().decision(), answer.policy.unwrap().generation)
    };
    assert_eq!(decision().await, (v1::Decision::Allowed, 1));

    std::fs::write(sidecar.policy.path().join("bad.json"), "{ \"not\": ").unwrap();
    let refused = async || sidecar.readiness.report().last_reload_failure.is_some();
    eventually("the refusal", refused).await;
    let (status, body) = http(sidecar.admin(), "/readyz").await;
    assert_eq!(status, 200, "an older policy is active");
    assert!(body.contains("was refused and changed nothing:\n  bad.json:1:"), "{body}");
    let (_, metrics) = http(sidecar.admin(), "/metrics").await;
    assert!(metrics.contains("postern_policy_reload_ok 0\n"), "{metrics}");
    assert!(!metrics.contains("postern_policy_reload_failures_total 0\n"), "{metrics}");
    assert_eq!(decision().await, (v1::Decision::Allowed, 1));

    // Back to what is active: no activation, and nothing to complain about.
    std::fs::remove_file(sidecar.policy.path().join("bad.json")).unwrap();
    eventually("the recovery", async || !refused().await).await;
    assert_eq!(decision().await, (v1::Decision::Allowed, 1));
    let (_, metrics) = http(sidecar.admin(), "/metrics").await;
    assert!(metrics.contains("postern_policy_reload_ok 1\n"), "{metrics}");

    revoke_alice(sidecar.policy.path());
    let revoked = async || decision().await == (v1::Decision::NotAllowed, 2);
    eventually("the revocation", revoked).await;
    let (_, metrics) = http(sidecar.admin(), "/metrics").await;
    assert!(metrics.contains("postern_policy_generation 2\n"), "{metrics}");
    assert!(metrics.contains("postern_policy_objects{kind=\"role_assignment\"} 1\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_reloads() {
    let dir = policy();
    // Longer than the test: a change alone does nothing in time.
    let process = Process::start(dir.path(), &["--reload-debounce", "10m"], &[]);
    process.ready().await;
    revoke_alice(dir.path());
    process.signal("HUP");
    let reloaded = async || http(process.admin, "/metrics").await.1.contains("postern_policy_generation 2\n");
    eventually("generation 2", reloaded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_is_told_and_its_changes_are_sent() {
    let sidecar = Sidecar::start(&[]).await;
    let mut client = AuthorizationServiceClient::new(sidecar.uds().await);
    let mut watch = client.watch_policy(v1::WatchPolicyRequest {}).await.unwrap().into_inner();
    let first = watch.next().await.unwrap().unwrap().status.unwrap();
    assert_eq!(first.policy.as_ref().unwrap().generation, 1);
    assert_eq!(first.policy.as_ref().unwrap().freshness(), v1::PolicyFreshness::Fresh);
    assert!(first.activated_at.is_some() && first.publication.is_none() && first.update_problems.is_empty());
    let mut status = async || {
        let answer = client.get_policy_status(v1::GetPolicyStatusRequest {}).await.unwrap();
        answer.into_inner().status.unwrap()
    };
    assert_eq!(status().await, first);

    std::fs::write(sidecar.policy.path().join("bad.json"), "{ \"not\": ").unwrap();
    let refused = async || sidecar.readiness.report().last_reload_failure.is_some();
    eventually("the refusal", refused).await;
    let failed = status().await;
    assert!(failed.update_problems[0].starts_with("bad.json:1:"), "{failed:?}");
    assert!(failed.update_failed_at.is_some());
    assert_eq!(failed.policy, first.policy);

    std::fs::remove_file(sidecar.policy.path().join("bad.json")).unwrap();
    revoke_alice(sidecar.policy.path());
    let second = watch.next().await.unwrap().unwrap().status.unwrap().policy.unwrap();
    assert_eq!(second.generation, 2);
    assert_ne!(second.digest, first.policy.unwrap().digest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_statuses_ends_with_the_drain() {
    let mut sidecar = Sidecar::start(&["--drain-grace", "1m"]).await;
    let mut client = AuthorizationServiceClient::new(sidecar.uds().await);
    let mut watch = client.watch_policy(v1::WatchPolicyRequest {}).await.unwrap().into_inner();
    assert!(watch.next().await.unwrap().is_ok());
    let start = Instant::now();
    sidecar.begin_drain();
    assert!(watch.next().await.is_none());
    drop(client);
    sidecar.ended().await.unwrap();
    assert!(start.elapsed() < DEADLINE, "not the grace");
}

// === the end ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_drains_with_an_open_watch_stream() {
    let dir = policy();
    for workers in ["1", "2"] {
        let mut process = Process::start(dir.path(), &["--drain-grace", "1m", "--workers", workers], &[]);
        process.ready().await;
        let channel = connect_tcp(process.tcp).await;
        let request = HealthCheckRequest { service: SERVICE.into() };
        let mut watch = HealthClient::new(channel).watch(request).await.unwrap().into_inner();
        assert_eq!(watch.next().await.unwrap().unwrap().status, ServingStatus::Serving as i32);
        let start = Instant::now();
        process.signal("TERM");
        // It is told, and then the stream ends by itself, long before the grace.
        let mut last = None;
        while let Some(Ok(answer)) = watch.next().await {
            last = Some(answer.status);
        }
        assert_eq!(last, Some(ServingStatus::NotServing as i32), "workers {workers}");
        assert_eq!(process.exit().await.code(), Some(0), "{}", process.log());
        assert!(start.elapsed() < DEADLINE, "well below the grace");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_outlives_the_grace_is_cut() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    let dir = policy();
    let mut process = Process::start(dir.path(), &["--reflection", "--drain-grace", "100ms"], &[]);
    process.ready().await;
    // A stream that its client never ends.
    let (_open, questions) = mpsc::channel(1);
    let _stream = ServerReflectionClient::new(connect_tcp(process.tcp).await)
        .server_reflection_info(ReceiverStream::new(questions))
        .await
        .unwrap();
    process.signal("TERM");
    assert_eq!(process.exit().await.code(), Some(0), "{}", process.log());
    eventually("the log", async || process.log().contains("cutting what is still open")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_at_once() {
    let dir = policy();
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let mut process = Process::start(dir.path(), &["--drain-delay", "1h"], &[]);
        process.ready().await;
        process.signal("TERM");
        let draining = async || http(process.admin, "/readyz").await.0 == 503;
        eventually("the drain", draining).await;
        // What comes right behind the first signal counts as the same one.
        let start = Instant::now();
        let status = loop {
            if let Some(status) = process.ended() {
                break status;
            }
            assert!(start.elapsed() < DEADLINE, "{}", process.log());
            process.signal(signal);
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(status.code(), Some(code));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_order_that_arrives_twice_is_one_order() {
    let dir = policy();
    let mut process = Process::start(dir.path(), &[], &[]);
    process.ready().await;
    // As `timeout` does: the process, then its group.
    process.signal("TERM");
    process.signal("TERM");
    assert_eq!(process.exit().await.code(), Some(0), "{}", process.log());
}
