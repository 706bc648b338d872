//! What leaves a sidecar for operators, seen by a receiver that speaks the protocol itself: spans and what they say,
//! which of them are kept, what becomes of those that nobody takes, and metrics that are pushed and scraped.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "tests"
)]

mod common;
#[path = "common/publisher.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod publisher;
#[path = "common/receiver.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod receiver;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use common::*;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use postern::authorizer::{Authorizer, CacheSettings};
use postern::cache::CachePolicy;
use postern::clock::Clock;
use postern::documents::Lenience;
use postern::drain::Drain;
use postern::metrics::Metrics;
use postern::model::Wildcards;
use postern::policy::CompileOptions;
use postern::proto::v1;
use postern::proto::v1::authorization_service_client::AuthorizationServiceClient;
use postern::proto::v1::authorization_service_server::AuthorizationService;
use postern::readiness::Readiness;
use postern::server::Transport;
use postern::server::grpc::{AuthorizationApi, GrpcSettings};
use postern::server::status::PolicyFeed;
use postern::source::dir::{LoadOptions, load};
use postern::telemetry::names::{self, Kind};
use publisher::Publisher;
use receiver::{Mood, Receiver, attribute, of_event, value};
use tonic::transport::{Channel, Identity};
use tonic::{Code, Request};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// So that nobody waits for a batch to fill.
const SOON: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "10");

/// What the first look at a policy directory makes: the update and its three steps.
const UPDATE: u64 = 4;

/// A sidecar that sends to a receiver.
async fn sending(
    policy: &Path,
    address: SocketAddr,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> (Process, AuthorizationServiceClient<Channel>) {
    let endpoint = format!("http://{address}");
    let variables = [&[(ENDPOINT, endpoint.as_str()), SOON], variables].concat();
    let process = Process::start(policy, arguments, &variables);
    process.ready().await;
    let client = AuthorizationServiceClient::new(connect_tcp(process.tcp).await);
    (process, client)
}

/// A question with the caller's flag; its request id is what the span is found by.
fn traced(id: &str, flag: Option<&str>, mut check: v1::CheckRequest) -> Request<v1::CheckRequest> {
    check.request_id = id.to_owned();
    let mut request = Request::new(check);
    if let Some(flag) = flag {
        let header = format!("00-{TRACE}-{PARENT}-{flag}");
        request.metadata_mut().insert("traceparent", header.parse().unwrap());
    }
    request
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn arrived(receiver: &Receiver, id: &str) -> Span {
    let find = || {
        receiver.spans().into_iter().find(|span| attribute(span, "postern.request_id").as_deref() == Some(id))
    };
    eventually(id, async || find().is_some()).await;
    find().unwrap()
}

fn assert_says(span: &Span, wanted: &[(&str, &str)]) {
    for (key, value) in wanted {
        assert_eq!(attribute(span, key).as_deref(), Some(*value), "{key} of {span:#?}");
    }
}

/// The value of one series, 0 if it is not there.
fn series(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Fate {
    exported: u64,
    queue_full: u64,
    refused: u64,
    unreachable: u64,
}

impl Fate {
    async fn of(process: &Process) -> Self {
        let (_, text) = http(process.admin, "/metrics").await;
        let lost = |reason: &str| series(&text, &format!("postern_spans_lost_total{{reason=\"{reason}\"}}"));
        Self {
            exported: series(&text, "postern_spans_exported_total"),
            queue_full: lost("queue_full"),
            refused: lost("refused"),
            unreachable: lost("unreachable"),
        }
    }

    fn all(&self) -> u64 {
        self.exported + self.queue_full + self.refused + self.unreachable
    }
}

/// The spans of calls: those of the updater are the same in every run.
fn calls(receiver: &Receiver) -> Vec<Span> {
    receiver.spans().into_iter().filter(|span| span.kind() == SpanKind::Server).collect()
}

// === what spans say ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_span_for_each_check_joins_the_callers_trace() {
    let (receiver, address) = Receiver::grpc().await;
    let dir = policy();
    // One worker is where a flush inside the runtime would starve itself; the delay is for the flush to show.
    let variables = [("OTEL_BSP_SCHEDULE_DELAY", "60000")];
    let (mut process, mut client) = sending(dir.path(), address, &["--workers", "1"], &variables).await;
    let ask = |principal: &str, action: &str, scope: &str| request(principal, action, scope);
    let allowed = ask(ALICE, READ, &vault("app"));
    let answer = client.check(traced("allowed", Some("01"), allowed.clone())).await.unwrap().into_inner();
    client.check(traced("not-sampled", Some("00"), allowed)).await.unwrap();
    client.check(traced("denied", None, ask(ALICE, DELETE, &vault("locked")))).await.unwrap();
    client.check(traced("not-allowed", None, ask(BOB, GET_SECRET, &vault("app")))).await.unwrap();
    let malformed = client.check(traced("malformed", None, ask(ALICE, READ, "nowhere"))).await.unwrap_err();
    assert_eq!(malformed.code(), Code::InvalidArgument);
    drop(client);
    // The last spans are sent on the way out.
    process.signal("TERM");
    assert_eq!(process.exit().await.code(), Some(0));

    assert_eq!(receiver.resource("service.name").as_deref(), Some("postern"));
    assert_eq!(calls(&receiver).len(), 4, "{:#?}", receiver.spans());
    let span = arrived(&receiver, "allowed").await;
    assert_eq!(span.name, "postern.v1.AuthorizationService/Check");
    assert_eq!((hex(&span.trace_id).as_str(), hex(&span.parent_span_id).as_str()), (TRACE, PARENT));
    assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
    let (policy, result) = (answer.policy.unwrap(), answer.result.unwrap());
    assert_says(
        &span,
        &[
            ("rpc.system.name", "grpc"),
            ("rpc.method", "postern.v1.AuthorizationService/Check"),
            ("rpc.response.status_code", "OK"),
            ("network.transport", "tcp"),
            ("postern.decision", "Allowed"),
            ("postern.reason_code", "ROLE_ASSIGNMENT"),
            ("postern.reason", &result.reason),
            ("postern.action", READ),
            ("postern.plane", "control"),
            ("postern.scope", &vault("app")),
            ("postern.groups", "0"),
            ("postern.role_assignment.id", &role_assignment_id()),
            ("postern.role_definition.id", &result.role_definition_id),
            ("postern.policy.digest", &policy.digest),
            ("postern.policy.generation", "1"),
            ("postern.policy.serial", "0"),
            ("postern.policy.age_seconds", "0"),
            ("postern.policy.freshness", "fresh"),
            ("postern.cache", "bypass"),
        ],
    );
    // Hashed unless told otherwise: `printf ID | sha256sum` finds it.
    let principal = attribute(&span, "postern.principal").unwrap();
    assert_eq!(principal, "sha256:6ccb21624a510029c350b89da522cf9c7b1b516976a54e4589718087d9a0b3fc");
    assert_eq!(span.status.as_ref().map(|status| status.code()).unwrap_or_default(), StatusCode::Unset);

    let denied = arrived(&receiver, "denied").await;
    assert!(denied.parent_span_id.is_empty());
    assert_eq!(attribute(&denied, "postern.principal").as_deref(), Some(principal.as_str()));
    assert_says(
        &denied,
        &[("postern.decision", "Denied"), ("postern.deny_assignment.id", &deny_assignment_id())],
    );
    let not_allowed = arrived(&receiver, "not-allowed").await;
    assert_says(
        &not_allowed,
        &[
            ("postern.decision", "NotAllowed"),
            ("postern.reason_code", "NO_ROLE_ASSIGNMENT"),
            ("postern.plane", "data"),
        ],
    );
    let malformed = calls(&receiver)
        .into_iter()
        .find(|span| attribute(span, "error.type").as_deref() == Some("INVALID_ARGUMENT"))
        .unwrap();
    assert_eq!(attribute(&malformed, "postern.decision"), None);
    assert_says(&malformed, &[("rpc.response.status_code", "INVALID_ARGUMENT")]);
    assert_eq!(malformed.status.unwrap_or_default().code(), StatusCode::Unset, "the caller's mistake");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_one_span_with_an_event_for_each_item() {
    let (receiver, address) = Receiver::grpc().await;
    let dir = policy();
    let limit = [("OTEL_SPAN_EVENT_COUNT_LIMIT", "3")];
    let (_process, mut client) = sending(dir.path(), address, &[], &limit).await;
    let item = |principal: &str, action: &str, scope: &str| {
        let check = request(principal, action, scope);
        v1::BatchCheckItem {
            subject: check.subject,
            action: check.action,
            resource: check.resource,
            ..Default::default()
        }
    };
    let allowed = || item(ALICE, READ, &vault("app"));
    let items = vec![
        allowed(),
        allowed(),
        item(ALICE, DELETE, &vault("locked")),
        allowed(),
        item(ALICE, READ, "nowhere"),
    ];
    let batch = v1::BatchCheckRequest { items, request_id: "batch".into(), ..Default::default() };
    client.batch_check(batch).await.unwrap();
    let span = arrived(&receiver, "batch").await;
    assert_eq!(span.name, "postern.v1.AuthorizationService/BatchCheck");
    assert_says(&span, &[("postern.batch.size", "5"), ("postern.batch.not_allowed", "2")]);
    let events: Vec<_> = span
        .events
        .iter()
        .map(|event| {
            assert_eq!(event.name, "postern.batch.item");
            assert!((span.start_time_unix_nano..=span.end_time_unix_nano).contains(&event.time_unix_nano));
            (of_event(event, "postern.batch.index").unwrap(), of_event(event, "postern.decision"))
        })
        .collect();
    // No more events than the limit, and what is refused before what is not.
    let decision = |text: &str| Some(text.to_owned());
    assert_eq!(
        events,
        [("2".into(), decision("Denied")), ("4".into(), None), ("0".into(), decision("Allowed"))]
    );
    assert_eq!(of_event(&span.events[0], "postern.deny_assignment.id"), Some(deny_assignment_id()));
    assert_eq!(of_event(&span.events[1], "error.type").as_deref(), Some("INVALID_ARGUMENT"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_a_stream_is_one_span_in_the_trace_that_opened_it() {
    let (receiver, address) = Receiver::grpc().await;
    let dir = policy();
    let (_process, mut client) = sending(dir.path(), address, &["--trace-keep", "denied"], &[]).await;
    let question = |id: u64, action: &str, scope: &str| {
        let check = request("", action, scope);
        v1::CheckStreamQuestion { id, action: check.action, resource: check.resource, ..Default::default() }
    };
    let message = |request_id: &str, questions: Vec<v1::CheckStreamQuestion>| v1::CheckStreamRequest {
        questions,
        request_id: request_id.into(),
        ..Default::default()
    };
    let subject = request(ALICE, "", "").subject;
    let context = Some(v1::CheckStreamContext { subject, ..Default::default() });
    let allowed = |id| question(id, READ, &vault("app"));
    let denied = |id| question(id, DELETE, &vault("locked"));
    for (flag, stream) in [("01", "sampled"), ("00", "kept")] {
        let name = |message: &str| format!("{stream}-{message}");
        let messages = vec![
            v1::CheckStreamRequest { context: context.clone(), ..message(&name("one"), vec![allowed(1)]) },
            message(&name("several"), vec![allowed(2), denied(30), question(31, READ, "nowhere")]),
            message(&name("denied"), vec![denied(40)]),
        ];
        let mut asked = Request::new(tokio_stream::iter(messages));
        let header = format!("00-{TRACE}-{PARENT}-{flag}");
        asked.metadata_mut().insert("traceparent", header.parse().unwrap());
        let mut answers = client.check_stream(asked).await.unwrap().into_inner();
        while answers.message().await.unwrap().is_some() {}
        for last in ["several", "denied"] {
            arrived(&receiver, &name(last)).await;
        }
    }
    // Of the stream that was not sampled, what the rule keeps.
    let spans = calls(&receiver);
    assert_eq!(spans.len(), 5, "{spans:#?}");
    for span in &spans {
        assert_eq!(span.name, "postern.v1.AuthorizationService/CheckStream");
        assert_eq!((hex(&span.trace_id).as_str(), hex(&span.parent_span_id).as_str()), (TRACE, PARENT));
    }
    let one = arrived(&receiver, "sampled-one").await;
    let says = [("postern.question_id", "1"), ("postern.decision", "Allowed"), ("postern.action", READ)];
    assert_says(&one, &says);
    assert!(attribute(&one, "postern.reason").is_some() && one.events.is_empty());
    let several = arrived(&receiver, "kept-several").await;
    assert_says(&several, &[("postern.batch.size", "3"), ("postern.batch.not_allowed", "2")]);
    assert_says(&several, &[("postern.trace.kept", "denied")]);
    let events: Vec<_> = several
        .events
        .iter()
        .map(|event| (of_event(event, "postern.question_id").unwrap(), of_event(event, "postern.decision")))
        .collect();
    let decision = |text: &str| Some(text.to_owned());
    assert_eq!(
        events,
        [("2".into(), decision("Allowed")), ("30".into(), decision("Denied")), ("31".into(), None)]
    );
    let denied = arrived(&receiver, "kept-denied").await;
    assert_says(&denied, &[("postern.decision", "Denied"), ("postern.question_id", "40")]);
}

/// The example tenant, where the user of the agent may restart machines at any time.
fn contoso_with_a_contributor() -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/contoso"), dir.path());
    let group = "/subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-payments-prod";
    let assignment = serde_json::json!([{
        "id": format!("{group}/providers/Microsoft.Authorization/roleAssignments/d0000000-0000-4000-8000-000000000009"),
        "name": "d0000000-0000-4000-8000-000000000009",
        "type": "Microsoft.Authorization/roleAssignments",
        "principalId": "00000000-0000-4000-a002-000000000015",
        "principalType": "User",
        "roleDefinitionId":
            "/providers/Microsoft.Authorization/roleDefinitions/b24988ac-6180-42a0-ab88-20f7382dd24c",
        "scope": group,
    }]);
    std::fs::write(dir.path().join("assignments/permanent.json"), assignment.to_string()).unwrap();
    dir
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_and_their_steps() {
    let (receiver, address) = Receiver::grpc().await;
    let contoso = contoso_with_a_contributor();
    let arguments = ["--trace-gen-ai", "--trace-principals", "plain", "--trace-keep", "agent-steps"];
    let (_process, mut client) = sending(contoso.path(), address, &arguments, &[]).await;
    let (agent, user) = ("00000000-0000-4000-a004-000000000002", "00000000-0000-4000-a002-000000000015");
    let scope = "/subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-payments-prod/providers/\
                 Microsoft.Compute/virtualMachines/vm-payments-1";
    let mut check = request(agent, "Microsoft.Compute/virtualMachines/restart/action", scope);
    let on_behalf_of = Some(v1::Subject { principal_id: user.into(), ..Default::default() });
    check.agent = Some(v1::AgentContext { on_behalf_of, ..Default::default() });
    // The caller's flag says no, the rule says yes.
    let answer = client.check(traced("agent", Some("00"), check)).await.unwrap().into_inner().result.unwrap();
    let span = arrived(&receiver, "agent").await;
    assert_eq!(hex(&span.trace_id), TRACE);
    let steps: Vec<&str> = vec!["approval_prompt:next", "obo_prompt:later", "execute_as_user:later"];
    assert_eq!(answer.steps.len(), steps.len());
    assert_says(
        &span,
        &[
            ("postern.trace.kept", "agent-steps"),
            ("postern.decision", "NotAllowed"),
            ("postern.reason_code", "AGENT_APPROVAL_REQUIRED"),
            ("postern.agent.mode", "review"),
            ("postern.agent.steps", &steps.join(",")),
            ("postern.principal", agent),
            ("postern.on_behalf_of", user),
            ("gen_ai.agent.authorization.decision", "escalate"),
            ("gen_ai.agent.authorization.reason", "AGENT_APPROVAL_REQUIRED"),
        ],
    );
    assert_eq!(
        attribute(&span, "gen_ai.agent.authorization.policy.version"),
        attribute(&span, "postern.policy.digest")
    );
}

/// A deny assignment at a management group of which nobody says what hangs in it.
fn unknown_hierarchy(dir: &Path) {
    let deny = serde_json::json!([{
        "id": "/providers/Microsoft.Management/managementGroups/all/providers/Microsoft.Authorization/\
               denyAssignments/e0000000-0000-4000-8000-000000000009",
        "name": "e0000000-0000-4000-8000-000000000009",
        "type": "Microsoft.Authorization/denyAssignments",
        "properties": {
            "denyAssignmentName": "Somewhere",
            "permissions": [{ "actions": [DELETE], "notActions": [], "dataActions": [], "notDataActions": [] }],
            "scope": "/providers/Microsoft.Management/managementGroups/all",
            "doNotApplyToChildScopes": false,
            "principals": [{ "id": "00000000-0000-0000-0000-000000000000", "type": "SystemDefined" }],
            "excludePrincipals": [],
            "isSystemProtected": true,
        },
    }]);
    std::fs::write(dir.join("unknown.json"), deny.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_keep_what_the_caller_did_not_sample() {
    let (receiver, address) = Receiver::grpc().await;
    let dir = policy();
    unknown_hierarchy(dir.path());
    let arguments = ["--trace-keep", "denied,undecided"];
    let (process, mut client) = sending(dir.path(), address, &arguments, &[]).await;
    // Above every subscription it is known what hangs where.
    let ask = || request(ALICE, READ, "/");
    client.check(traced("not-allowed", Some("00"), ask())).await.unwrap();
    let undecided = traced("undecided", Some("00"), request(ALICE, DELETE, &vault("app")));
    assert_eq!(client.check(undecided).await.unwrap_err().code(), Code::FailedPrecondition);
    client.check(traced("sampled", Some("01"), ask())).await.unwrap();
    let batch = v1::BatchCheckRequest {
        subject: request(ALICE, "", "").subject,
        items: [(READ, "/".to_owned()), (DELETE, vault("app"))]
            .map(|(action, scope)| v1::BatchCheckItem {
                action: request("", action, "").action,
                resource: request("", "", &scope).resource,
                ..Default::default()
            })
            .to_vec(),
        request_id: "batch".into(),
        ..Default::default()
    };
    let mut batch = Request::new(batch);
    batch.metadata_mut().insert("traceparent", format!("00-{TRACE}-{PARENT}-00").parse().unwrap());
    client.batch_check(batch).await.unwrap();

    let undecided = arrived(&receiver, "undecided").await;
    assert_eq!((hex(&undecided.trace_id).as_str(), hex(&undecided.parent_span_id).as_str()), (TRACE, PARENT));
    assert_says(
        &undecided,
        &[
            ("postern.trace.kept", "undecided"),
            ("postern.undecided", "UNKNOWN_HIERARCHY"),
            ("error.type", "UNKNOWN_HIERARCHY"),
            ("rpc.response.status_code", "FAILED_PRECONDITION"),
            ("postern.action", DELETE),
        ],
    );
    assert_eq!(undecided.status.unwrap().code(), StatusCode::Error);
    assert_eq!(attribute(&arrived(&receiver, "sampled").await, "postern.trace.kept"), None);
    let batch = arrived(&receiver, "batch").await;
    assert_says(&batch, &[("postern.trace.kept", "undecided")]);
    assert_eq!(batch.events.len(), 2, "all items, also those before the one that made it be kept");
    // Everything that was made is here, so what is not was not made.
    eventually("all are sent", async || {
        let (_, text) = http(process.admin, "/metrics").await;
        series(&text, "postern_spans_exported_total") as usize == receiver.spans().len()
    })
    .await;
    assert_eq!(calls(&receiver).len(), 3);
    let (_, text) = http(process.admin, "/metrics").await;
    let line = "postern_decisions_total{outcome=\"Undecided\",reason=\"UNKNOWN_HIERARCHY\",plane=\"control\",\
                cache=\"bypass\",transport=\"tcp\"}";
    assert_eq!(series(&text, line), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sampler_is_for_calls_without_a_flag_and_slow_ones_are_kept() {
    let (receiver, address) = Receiver::grpc().await;
    let dir = policy();
    let off = [("OTEL_TRACES_SAMPLER", "parentbased_always_off")];
    let (process, mut client) = sending(dir.path(), address, &[], &off).await;
    let ask = || request(ALICE, READ, &vault("app"));
    client.check(traced("root", None, ask())).await.unwrap();
    client.check(traced("sampled", Some("01"), ask())).await.unwrap();
    arrived(&receiver, "sampled").await;
    eventually("it is counted", async || Fate::of(&process).await.all() > 0).await;
    assert_eq!((Fate::of(&process).await.all(), receiver.spans().len()), (1, 1), "not even the updater's");
    let (slow, address) = Receiver::grpc().await;
    let (_process, mut client) = sending(dir.path(), address, &["--trace-keep", "slower-than=0"], &off).await;
    client.check(traced("slow", None, ask())).await.unwrap();
    assert_says(&arrived(&slow, "slow").await, &[("postern.trace.kept", "slower-than")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http_with_baggage_headers_and_gzip() {
    let (receiver, address) = Receiver::http().await;
    let dir = policy();
    let variables = [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20let-me-in"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_SERVICE_NAME", "sidecar-of-orders"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=other"),
    ];
    let arguments = ["--trace-baggage", "tenant", "--trace-principals", "none"];
    let (process, mut client) = sending(dir.path(), address, &arguments, &variables).await;
    let mut request = traced("http", Some("01"), request(ALICE, READ, &vault("app")));
    request.metadata_mut().insert("baggage", "tenant=blue%20sky,secret=x".parse().unwrap());
    client.check(request).await.unwrap();
    let span = arrived(&receiver, "http").await;
    assert_eq!(hex(&span.trace_id), TRACE);
    assert_says(&span, &[("baggage.tenant", "blue sky")]);
    assert_eq!(attribute(&span, "baggage.secret"), None, "nobody asked for it");
    assert_eq!(attribute(&span, "postern.principal"), None);
    assert_eq!(receiver.header("authorization").as_deref(), Some("Bearer let-me-in"));
    assert_eq!(receiver.header("content-encoding").as_deref(), Some("gzip"));
    assert_eq!(receiver.resource("service.name").as_deref(), Some("sidecar-of-orders"));
    assert_eq!(receiver.resource("deployment.environment.name").as_deref(), Some("test"));
    assert!(!process.log().contains("let-me-in"), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_over_tls_only_to_whom_the_authority_vouches_for() {
    over_tls("grpc").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_over_tls_only_to_whom_the_authority_vouches_for() {
    over_tls("http/protobuf").await;
}

async fn over_tls(protocol: &str) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = Some(Identity::from_pem(&certificate, &key));
    let (receiver, address) = match protocol {
        "grpc" => Receiver::grpc_on("127.0.0.1:0".parse().unwrap(), identity).await,
        _ => Receiver::http_with(identity).await,
    };
    let protocol = ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
    let dir = policy();
    let authority = dir.path().join("ca.pem");
    std::fs::write(&authority, &certificate).unwrap();
    let endpoint = format!("https://localhost:{}", address.port());
    let authority = ("OTEL_EXPORTER_OTLP_CERTIFICATE", authority.to_str().unwrap());
    let trusted = [(ENDPOINT, endpoint.as_str()), authority, protocol];
    let (_process, mut client) = sending(dir.path(), address, &[], &trusted).await;
    client.check(traced("tls", Some("01"), request(ALICE, READ, &vault("app")))).await.unwrap();
    arrived(&receiver, "tls").await;
    // Without the authority it is a stranger: nothing is sent, and that is counted.
    let stranger = [(ENDPOINT, endpoint.as_str()), ("OTEL_BSP_EXPORT_TIMEOUT", "300"), protocol];
    let (process, mut client) = sending(dir.path(), address, &[], &stranger).await;
    client.check(traced("stranger", Some("01"), request(ALICE, READ, &vault("app")))).await.unwrap();
    eventually("it is lost", async || Fate::of(&process).await.unreachable > 0).await;
    assert!(
        receiver
            .spans()
            .iter()
            .all(|span| attribute(span, "postern.request_id").as_deref() != Some("stranger"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_is_a_span_of_its_own_with_its_steps() {
    let (receiver, address) = Receiver::grpc().await;
    let dir = policy();
    let (process, _client) = sending(dir.path(), address, &[], &[]).await;
    revoke_alice(dir.path());
    let updates = || -> Vec<Span> {
        receiver.spans().into_iter().filter(|span| span.name == "policy.update").collect()
    };
    eventually("two updates", async || updates().len() == 2).await;
    for update in updates() {
        assert_says(&update, &[("postern.policy.update.outcome", "activated")]);
        let steps: Vec<String> = receiver
            .spans()
            .into_iter()
            .filter(|span| span.parent_span_id == update.span_id)
            .map(|span| span.name)
            .collect();
        assert_eq!(steps, ["policy.fetch", "policy.verify", "policy.activate"]);
    }
    std::fs::write(dir.path().join("broken.json"), "{").unwrap();
    eventually("a third one", async || updates().len() == 3).await;
    let failed = updates().pop().unwrap();
    assert_says(&failed, &[("postern.policy.update.outcome", "failed")]);
    assert_eq!(failed.status.unwrap_or_default().code(), StatusCode::Error);
    let (_, text) = http(process.admin, "/metrics").await;
    assert_eq!(series(&text, "postern_policy_activations_total"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_from_a_repository_is_a_span_too() {
    let (receiver, address) = Receiver::grpc().await;
    let mut publisher = Publisher::new().await;
    let endpoint = format!("http://{address}");
    let (source, root) = (publisher.repository(), publisher.root());
    let arguments = ["--source", &source.display().to_string(), "--trusted-root", &root];
    let process = Process::serve(
        &[&arguments[..], &["--poll-interval", "1s"]].concat(),
        &[(ENDPOINT, endpoint.as_str()), SOON],
    );
    process.ready().await;
    publisher.publish_another(2).await;
    let steps_of = |update: &Span| -> Vec<String> {
        let spans = receiver.spans();
        let below = spans.iter().filter(|span| span.parent_span_id == update.span_id);
        below.map(|span| span.name.clone()).collect()
    };
    let ended = |outcome: &'static str| {
        let spans = receiver.spans().into_iter().filter(|span| span.name == "policy.update");
        let said = |span: &Span| attribute(span, "postern.policy.update.outcome");
        spans.filter(|span| said(span).as_deref() == Some(outcome)).collect::<Vec<_>>()
    };
    eventually("two updates", async || ended("activated").len() == 2).await;
    for update in ended("activated") {
        assert_says(&update, &[("postern.policy.source", &source.display().to_string())]);
        // The metadata, and the bundle, which is verified in that step.
        assert_eq!(steps_of(&update), ["policy.fetch", "policy.fetch", "policy.activate"]);
        let all = receiver.spans();
        let of_trace = all.iter().filter(|span| span.trace_id == update.trace_id);
        assert_eq!(of_trace.filter(|span| span.name == "policy.verify").count(), 1);
    }
    eventually("a look without news", async || !ended("unchanged").is_empty()).await;
    assert_eq!(steps_of(&ended("unchanged")[0]), ["policy.fetch"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_published_is_in_the_trace_of_the_pipeline() {
    let (receiver, address) = Receiver::grpc().await;
    let (dir, policy) = (tempfile::tempdir().unwrap(), policy());
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (repository, keys) = (at("repository"), at("keys"));
    let policy = policy.path().display().to_string();
    let run = async |endpoint: &str, arguments: &[&str]| {
        let header = format!("00-{TRACE}-{PARENT}-01");
        let mut command = postern();
        command.args(arguments).env("TRACEPARENT", header).env(ENDPOINT, endpoint);
        command.env("OTEL_BSP_EXPORT_TIMEOUT", "300");
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let endpoint = format!("http://{address}");
    let to = ["--to", &repository, "--keys", &keys];
    let place = ["--at", &repository, "--keys", &keys];
    let publish = [&["publish", &policy][..], &to].concat();
    let refresh = [&["repo", "refresh"][..], &place].concat();
    for arguments in [&[&["repo", "init", "--dev"][..], &place].concat(), &publish, &refresh] {
        assert_eq!(run(&endpoint, arguments).await, (Some(0), String::new()), "{arguments:?}");
    }
    // The same policy once more: a conflict.
    assert_eq!(run(&endpoint, &publish).await.0, Some(1));
    // All has arrived when the command ends.
    let spans = receiver.spans();
    let commands: Vec<&Span> = spans.iter().filter(|span| hex(&span.parent_span_id) == PARENT).collect();
    let names: Vec<&str> = commands.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["repository.init", "policy.publish", "repository.refresh", "policy.publish"]);
    for (command, wanted) in commands.iter().zip([
        &["repository.write"][..],
        &["policy.compile", "repository.open", "repository.write"],
        &["repository.open", "repository.write"],
        &["policy.compile", "repository.open", "repository.write"],
    ]) {
        assert_eq!(hex(&command.trace_id), TRACE);
        assert_says(command, &[("postern.policy.source", &repository)]);
        let steps = spans.iter().filter(|span| span.parent_span_id == command.span_id);
        assert_eq!(steps.map(|span| span.name.as_str()).collect::<Vec<_>>(), wanted);
    }
    assert_says(commands[1], &[("postern.policy.serial", "2")]);
    assert_eq!(commands[1].status.clone().unwrap_or_default().code(), StatusCode::Unset);
    assert_eq!(commands[3].status.clone().unwrap_or_default().code(), StatusCode::Error);
    assert!(attribute(commands[3], "error.type").is_some());
    // A receiver that is gone keeps nobody from publishing, and that nothing arrived is told.
    let (code, said) = run("http://127.0.0.1:1", &refresh).await;
    assert_eq!(code, Some(0));
    assert!(said.contains("spans of this could not be sent"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_endpoint_is_seen_in_traces_that_lead_to_it_and_no_others() {
    let (receiver, address) = Receiver::grpc().await;
    let dir = policy();
    let (process, _client) = sending(dir.path(), address, &[], &[]).await;
    let url = |path: &str| format!("http://{}{path}", process.admin);
    let client = reqwest::Client::new();
    for path in ["/readyz", "/metrics", "/nowhere"] {
        client.get(url(path)).send().await.unwrap();
        let header = format!("00-{TRACE}-{PARENT}-01");
        client.get(url(path)).header("traceparent", header).send().await.unwrap();
    }
    let of_admin = || -> Vec<Span> {
        let spans = receiver.spans().into_iter();
        spans.filter(|span| attribute(span, "http.route").is_some()).collect()
    };
    eventually("two spans", async || of_admin().len() == 2).await;
    for (span, path) in of_admin().iter().zip(["/readyz", "/metrics"]) {
        assert_eq!((span.name.clone(), hex(&span.trace_id)), (format!("GET {path}"), TRACE.to_owned()));
        assert_eq!((hex(&span.parent_span_id), span.kind()), (PARENT.to_owned(), SpanKind::Server));
        assert_says(span, &[("http.route", path), ("http.response.status_code", "200")]);
    }
}

// === what becomes of spans ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_down_costs_spans_and_nothing_else() {
    // A port that nobody listens on, and that a receiver comes to later.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dir = policy();
    let (process, mut client) =
        sending(dir.path(), address, &[], &[("OTEL_BSP_EXPORT_TIMEOUT", "200")]).await;
    for _ in 0..10 {
        client.check(request(ALICE, READ, &vault("app"))).await.unwrap();
    }
    // Ten calls, and what the first update made.
    eventually("all are lost", async || Fate::of(&process).await.unreachable == 10 + UPDATE).await;
    let (receiver, _) = Receiver::grpc_on(address, None).await;
    eventually("it is found again", || {
        let (mut client, receiver) = (client.clone(), receiver.clone());
        async move {
            client.check(request(ALICE, READ, &vault("app"))).await.unwrap();
            !receiver.spans().is_empty()
        }
    })
    .await;
    let (_, text) = http(process.admin, "/metrics").await;
    let checks = series(
        &text,
        "postern_decisions_total{outcome=\"Allowed\",reason=\"ROLE_ASSIGNMENT\",plane=\"control\",cache=\"bypass\",\
         transport=\"tcp\"}",
    );
    eventually("every span has a fate", async || {
        let fate = Fate::of(&process).await;
        fate.all() == checks + UPDATE && fate.exported as usize == receiver.spans().len()
    })
    .await;
    assert!(process.log().contains("spans cannot be sent and are lost"), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_refuses_is_not_asked_again() {
    for mood in [Mood::Refuse, Mood::TakeLess] {
        for over_http in [false, true] {
            let (receiver, address) = if over_http { Receiver::http().await } else { Receiver::grpc().await };
            let dir = policy();
            let protocol = if over_http { "http/protobuf" } else { "grpc" };
            let (process, mut client) =
                sending(dir.path(), address, &[], &[("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)]).await;
            // What the first update made is taken.
            eventually("the update", async || Fate::of(&process).await.exported == UPDATE).await;
            let messages = receiver.messages();
            receiver.set(mood);
            client.check(request(ALICE, READ, &vault("app"))).await.unwrap();
            eventually("its fate", async || {
                Fate::of(&process).await == Fate { exported: UPDATE, refused: 1, ..Fate::default() }
            })
            .await;
            assert_eq!(receiver.messages(), messages + 1, "{mood:?}, {protocol}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_fills_the_queue_and_no_check_waits() {
    let (receiver, address) = Receiver::grpc().await;
    let dir = policy();
    let small = [("OTEL_BSP_MAX_QUEUE_SIZE", "4"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")];
    let (process, mut client) = sending(dir.path(), address, &[], &small).await;
    eventually("the update", async || Fate::of(&process).await.exported == UPDATE).await;
    receiver.set(Mood::Stall);
    // Answered while nobody takes a span: this would not end if a check waited for one.
    for _ in 0..100 {
        client.check(request(ALICE, READ, &vault("app"))).await.unwrap();
    }
    assert!(Fate::of(&process).await.queue_full >= 90);
    receiver.set(Mood::Take);
    eventually("every span has a fate", async || Fate::of(&process).await.all() == 100 + UPDATE).await;
    let fate = Fate::of(&process).await;
    assert_eq!((fate.refused, fate.unreachable), (0, 0));
    assert_eq!(receiver.spans().len() as u64, fate.exported);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unavailable_receiver_is_asked_again() {
    let (receiver, address) = Receiver::grpc().await;
    receiver.set(Mood::Unavailable);
    let dir = policy();
    let (process, mut client) = sending(dir.path(), address, &[], &[]).await;
    client.check(traced("patient", Some("01"), request(ALICE, READ, &vault("app")))).await.unwrap();
    eventually("a second attempt", async || receiver.messages() >= 2).await;
    assert_eq!(Fate::of(&process).await.all(), 0);
    receiver.set(Mood::Take);
    arrived(&receiver, "patient").await;
    eventually("all are taken", async || Fate::of(&process).await.exported == 1 + UPDATE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_receiver_does_not_hold_the_end_and_losses_are_told() {
    let dir = policy();
    let (mut process, mut client) =
        sending(dir.path(), "127.0.0.1:1".parse().unwrap(), &[], &[("OTEL_BSP_SCHEDULE_DELAY", "60000")])
            .await;
    client.check(request(ALICE, READ, "/")).await.unwrap();
    drop(client);
    process.signal("TERM");
    assert_eq!(process.exit().await.code(), Some(0));
    assert!(process.log().contains("the last spans could not be sent"), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_that_cannot_be_used_end_the_start() {
    let dir = policy();
    let output = postern()
        .args(["serve", "--tcp", "127.0.0.1:0", "--admin", "off", "--policy", dir.path().to_str().unwrap()])
        .envs([
            (ENDPOINT, "http://127.0.0.1:1"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    for variable in ["`OTEL_EXPORTER_OTLP_PROTOCOL` is `http/json`", "`OTEL_TRACES_SAMPLER` is `sometimes`"] {
        assert!(said.contains(variable), "{said}");
    }
}

// === metrics ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_pushed_is_what_is_scraped() {
    let (receiver, address) = Receiver::grpc().await;
    let dir = policy();
    let variables = [("OTEL_METRIC_EXPORT_INTERVAL", "20"), ("OTEL_TRACES_EXPORTER", "none")];
    let kept = tempfile::tempdir().unwrap();
    let records = format!("file:{}", kept.path().join("r.jsonl").display());
    // What has series only where it is asked for is asked for.
    let arguments = ["--records", &records, "--candidate", dir.path().to_str().unwrap()];
    let (process, mut client) = sending(dir.path(), address, &arguments, &variables).await;
    for principal in [ALICE, BOB, ALICE] {
        client.check(request(principal, READ, &vault("app"))).await.unwrap();
    }
    let written = "postern_records_written_total{sink=\"file\",kind=\"decision\"}";
    eventually("the records", async || series(&http(process.admin, "/metrics").await.1, written) == 3).await;
    // What grows by itself, and the times of two looks, are not equal.
    let moves = |name: &str| name.starts_with("postern_metric_pushes_total");
    let pushes = receiver.pushes();
    eventually("a push that began afterwards", async || receiver.pushes() > pushes + 1).await;
    let pushed = flat(&receiver);
    let (_, text) = http(process.admin, "/metrics").await;
    let scraped: BTreeMap<String, f64> = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("_bucket{") && !moves(line))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect();
    let pushed: BTreeMap<String, f64> = pushed.into_iter().filter(|(name, _)| !moves(name)).collect();
    assert_eq!(pushed, scraped);
    assert!(scraped.contains_key("postern_check_duration_seconds_count{method=\"Check\",transport=\"tcp\"}"));
    assert_eq!(scraped["postern_connections{transport=\"tcp\"}"], 1.0);
    // Both are the whole table but what has no series before something happens.
    for metric in names::metric::ALL {
        let silent = [
            "postern_metric_pushes_total",
            "postern_policy_update_failures_total",
            "postern_queries_total",
            // Without certificates there are none to reload.
            "postern_tls_reloads_total",
        ];
        let there = scraped.keys().any(|name| name.starts_with(metric.name));
        assert!(there || silent.contains(&metric.name), "{}", metric.name);
    }
}

/// The newest metrics as lines of text would have them, without buckets.
fn flat(receiver: &Receiver) -> BTreeMap<String, f64> {
    let mut all = BTreeMap::new();
    for metric in receiver.metrics() {
        let known = names::metric::ALL.iter().find(|known| known.name == metric.name).unwrap();
        let labels = |attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue]| {
            let pairs: Vec<String> = known
                .labels
                .iter()
                .map(|name| format!("{name}=\"{}\"", value(attributes, name).unwrap()))
                .collect();
            if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
        };
        let points = match metric.data.unwrap() {
            Data::Sum(sum) => sum.data_points,
            Data::Gauge(gauge) => gauge.data_points,
            Data::ExponentialHistogram(times) => {
                for point in times.data_points {
                    let buckets: u64 = point.positive.unwrap().bucket_counts.iter().sum();
                    assert_eq!(buckets + point.zero_count, point.count);
                    let labels = labels(&point.attributes);
                    all.insert(format!("{}_count{labels}", known.name), point.count as f64);
                    all.insert(format!("{}_sum{labels}", known.name), point.sum.unwrap());
                }
                continue;
            }
            other => panic!("{other:?}"),
        };
        for point in points {
            let value = match point.value.unwrap() {
                number_data_point::Value::AsInt(number) => number as f64,
                number_data_point::Value::AsDouble(number) => number,
            };
            all.insert(format!("{}{}", known.name, labels(&point.attributes)), value);
        }
    }
    all
}

/// Principals, scopes and actions without end make no series. A million of each where the build is optimized, fewer
/// where it is not; `POSTERN_CARDINALITY` says otherwise.
#[tokio::test]
async fn no_question_makes_a_series() {
    let dir = policy();
    let options = LoadOptions {
        lenience: Lenience::Strict,
        compile: CompileOptions { wildcards: Wildcards::Collapse, ..CompileOptions::default() },
    };
    let policy = load(dir.path(), options).unwrap().policy;
    let (mut writer, reader) = postern::snapshot::cell();
    let _active = writer.activate(policy, 0, jiff::Timestamp::UNIX_EPOCH);
    let metrics = Metrics::new("", "");
    let (_activated, activations) = tokio::sync::watch::channel(0);
    let feed = PolicyFeed { readiness: Readiness::new(), activations, drain: Drain::new() };
    let cache = CacheSettings { policy: CachePolicy::CostAtLeast(0), max_bytes: 1 << 20 };
    let settings = GrpcSettings { max_batch_items: 10, max_request_bytes: 1 << 20, reflection: false };
    let authorizer = Authorizer::new(reader, cache, Clock::system());
    let api = AuthorizationApi::new(authorizer, settings, Transport::Tcp, &metrics, feed, None);
    let default = if cfg!(debug_assertions) { 50_000 } else { 1_000_000 };
    let all = std::env::var("POSTERN_CARDINALITY").map_or(default, |text| text.parse::<u64>().unwrap());
    let before = metrics.series_count();
    let memory = metrics.encode().len();
    for number in 0..all {
        let principal = format!("f0000000-0000-4000-8000-{number:012x}");
        let action =
            format!("Vendor{number}.Service/things/{}", if number % 2 == 0 { "read" } else { "write" });
        let scope = format!("{SUBSCRIPTION}/resourceGroups/group{number}");
        api.check(Request::new(request(&principal, &action, &scope))).await.unwrap();
    }
    assert_eq!(metrics.series_count(), before);
    let text = metrics.encode();
    // Only the numbers grow.
    assert!(text.len() < memory + 8 * before, "{} bytes, {memory} before", text.len());
    assert_eq!(
        series(&text, "postern_check_duration_seconds_count{method=\"Check\",transport=\"tcp\"}"),
        all
    );
}

// === names ===

/// A name that stands in two places is two names as soon as somebody changes one.
#[test]
fn no_name_escapes_its_module() {
    let mut names: Vec<&str> = names::metric::ALL.iter().map(|metric| metric.name).collect();
    for list in [
        names::attribute::ALL,
        names::event::ALL,
        names::span::ALL,
        names::metadata::ALL,
        names::injector::ALL,
    ] {
        names.extend(list.iter().map(|(name, _)| *name));
    }
    let mut found = Vec::new();
    let mut looked_at = 0;
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
                continue;
            }
            if entry.ends_with("telemetry/names.rs")
                || entry.extension().is_none_or(|extension| extension != "rs")
            {
                continue;
            }
            looked_at += 1;
            let text = std::fs::read_to_string(&entry).unwrap();
            // Tests say what they expect in plain words.
            let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
            for (line, text) in (1..).zip(code.lines()) {
                let text = text.split("//").next().unwrap();
                let whole = names.iter().any(|name| text.contains(&format!("\"{name}\"")));
                let begins = ["\"postern.", "\"postern_", "\"gen_ai.", "\"rpc."].iter().any(|prefix| {
                    text.match_indices(prefix).any(|(at, _)| {
                        !["\"postern.v1", "\"postern.dev"].iter().any(|other| text[at..].starts_with(other))
                    })
                });
                if whole || begins {
                    found.push(format!("{}:{line}: {}", entry.display(), text.trim()));
                }
            }
        }
    }
    assert!(looked_at > 100);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

/// The tables of the documentation are made from the names; `UPDATE_README=1` writes them.
#[test]
fn the_documentation_has_every_name() {
    let rows = |list: &[(&str, &str)]| {
        let rows =
            list.iter().map(|(name, says)| format!("| `{name}` | {} |\n", says.trim().replace('|', "\\|")));
        format!("| name | what it says |\n| --- | --- |\n{}", rows.collect::<String>())
    };
    let metrics: String = names::metric::ALL
        .iter()
        .map(|metric| {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Info => "info",
                Kind::Histogram => "histogram",
            };
            let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {kind} | {} | {} |\n", metric.name, labels.join(", "), metric.help)
        })
        .collect();
    let metrics = format!("| name | kind | labels | what it counts |\n| --- | --- | --- | --- |\n{metrics}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/observability.md");
    let mut text = std::fs::read_to_string(&path).unwrap();
    let original = text.clone();
    for (name, table) in [
        ("attributes", rows(names::attribute::ALL)),
        ("events", rows(names::event::ALL)),
        ("spans", rows(names::span::ALL)),
        ("metrics", metrics),
        ("labels", rows(names::label::ALL)),
        ("metadata", rows(names::metadata::ALL)),
    ] {
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
        let from = text.find(&begin).unwrap_or_else(|| panic!("no {begin}")) + begin.len();
        let to = text.find(&end).unwrap_or_else(|| panic!("no {end}"));
        text.replace_range(from..to, &table);
    }
    if std::env::var_os("UPDATE_README").is_some() {
        std::fs::write(&path, &text).unwrap();
    } else {
        assert!(original == text, "run `UPDATE_README=1 cargo test --test telemetry`");
    }
}
