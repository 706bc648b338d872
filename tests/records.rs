#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "tests"
)]
//! The decision log of real sidecars: what a record says, what is left out of it, where it goes, that every decision is
//! accounted for when it cannot, and that what was recorded can be asked again.

mod common;
#[path = "common/receiver.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod receiver;
#[allow(dead_code, reason = "the sidecar of this file records")]
#[path = "wire/mod.rs"]
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use common::*;
use jiff::Timestamp;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use postern::authorizer::{Authorizer, CacheSettings};
use postern::cache::CachePolicy;
use postern::clock::Clock;
use postern::drain::Drain;
use postern::metrics::Metrics;
use postern::policy::Policy;
use postern::proto::v1;
use postern::proto::v1::authorization_service_client::AuthorizationServiceClient;
use postern::readiness::Readiness;
use postern::record::{RecordSettings, Records};
use postern::server::grpc::{self, AuthorizationApi, GrpcSettings};
use postern::server::health::Health;
use postern::server::limits::RequestLimit;
use postern::server::status::PolicyFeed;
use postern::server::{Transport, connections};
use postern::snapshot::{PolicyWriter, cell};
use postern::source::activate::Activator;
use postern::telemetry::names;
use receiver::{Mood, Receiver};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Identity};
use tonic::{Request, Status};

const WRITE: &str = "Microsoft.KeyVault/vaults/write";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const CONTOSO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/contoso");

// === helpers ===

/// The records of a file and of those it was rotated to, oldest first; every line has to be whole.
fn records(path: &Path) -> Vec<Value> {
    let mut files: Vec<(u32, PathBuf)> = Vec::new();
    let name = path.file_name().unwrap().to_str().unwrap();
    for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap().path();
        let Some(rest) = entry.file_name().unwrap().to_str().unwrap().strip_prefix(name) else { continue };
        files.push((if rest.is_empty() { 0 } else { rest[1..].parse().unwrap() }, entry));
    }
    files.sort();
    let text = files.iter().rev().map(|(_, path)| std::fs::read_to_string(path).unwrap()).collect::<String>();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is cut: {text}");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// The sum of the series of a metric that have all these labels.
fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> u64 {
    assert!(names::metric::ALL.iter().any(|metric| metric.name == name), "there is no metric {name}");
    let wanted: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    text.lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter(|line| wanted.iter().all(|label| line.contains(label)))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
        .sum()
}

fn metrics(admin: SocketAddr) -> String {
    get(admin, "/metrics").1
}

fn file(dir: &TempDir) -> (PathBuf, String) {
    let path = dir.path().join("decisions.jsonl");
    let sink = format!("file:{}", path.display());
    (path, sink)
}

/// Denies at a management group of which nobody says what hangs below it.
fn write_unknown_hierarchy(dir: &Path) {
    let deny = json!([{
        "id": "/providers/Microsoft.Management/managementGroups/corp/providers/Microsoft.Authorization/\
               denyAssignments/e0000000-0000-4000-8000-000000000002",
        "name": "e0000000-0000-4000-8000-000000000002",
        "type": "Microsoft.Authorization/denyAssignments",
        "properties": {
            "denyAssignmentName": "Nobody writes",
            "permissions": [{ "actions": [WRITE], "notActions": [], "dataActions": [], "notDataActions": [] }],
            "scope": "/providers/Microsoft.Management/managementGroups/corp",
            "doNotApplyToChildScopes": false,
            "principals": [{ "id": "00000000-0000-0000-0000-000000000000", "type": "SystemDefined" }],
            "excludePrincipals": [],
            "isSystemProtected": true,
        },
    }]);
    std::fs::write(dir.join("corp.json"), deny.to_string()).unwrap();
}

fn text(text: &str) -> v1::AttributeValue {
    v1::AttributeValue { value: Some(v1::attribute_value::Value::Text(text.into())) }
}

fn item(principal: &str, action: &str, scope: &str) -> v1::BatchCheckItem {
    let v1::CheckRequest { subject, action, resource, .. } = request(principal, action, scope);
    v1::BatchCheckItem { subject, action, resource, ..Default::default() }
}

fn settings(arguments: &[&str]) -> RecordSettings {
    let all = [&["--policy", "unused"], arguments].concat();
    config(&all).records.unwrap()
}

/// A service whose clock and policy are in the test's hand, and that records.
struct Point {
    client: AuthorizationServiceClient<Channel>,
    writer: PolicyWriter,
    clock: Clock,
    metrics: Metrics,
    records: Option<Records>,
}

impl Point {
    async fn start(settings: Option<RecordSettings>, policy: impl Into<Option<Policy>>) -> Self {
        let (mut writer, reader) = cell();
        if let Some(policy) = policy.into() {
            writer.activate(policy, 0, Timestamp::UNIX_EPOCH);
        }
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let metrics = Metrics::new("", "");
        let cache = CacheSettings { policy: CachePolicy::Off, max_bytes: 0 };
        let records =
            settings.map(|settings| Records::start(settings, None, &metrics.records(), None).unwrap());
        let grpc_settings =
            GrpcSettings { max_batch_items: 100, max_request_bytes: 1 << 20, reflection: false };
        let (_activated, activations) = watch::channel(0);
        let drain = Drain::new();
        let feed = PolicyFeed { readiness: Readiness::new(), activations, drain: drain.clone() };
        let authorizer = Authorizer::new(reader, cache, clock.clone());
        let api = AuthorizationApi::new(authorizer, grpc_settings, Transport::Tcp, &metrics, feed, None)
            .with_records(records.as_ref().map(Records::recorder));
        let limit = RequestLimit::new(usize::MAX, usize::MAX);
        let services = grpc::services(api, &Health::new().await, grpc_settings, limit).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(connections::serve(TcpListenerStream::new(listener), services, drain));
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        Self { client: AuthorizationServiceClient::new(channel), writer, clock, metrics, records }
    }

    async fn check(&self, request: v1::CheckRequest) -> Result<v1::CheckResult, Status> {
        let answer = self.client.clone().check(request).await?;
        Ok(answer.into_inner().result.unwrap())
    }

    fn metrics(&self) -> String {
        self.metrics.encode()
    }

    /// What was lost and written, and what waits.
    fn accounts(&self) -> (u64, u64, u64) {
        let text = self.metrics();
        let depth = sum(&text, "postern_record_queue_depth", &[]);
        (
            sum(&text, "postern_records_lost_total", &[]),
            sum(&text, "postern_records_written_total", &[]),
            depth,
        )
    }

    async fn end(&mut self) {
        let records = self.records.take().unwrap();
        tokio::task::spawn_blocking(move || records.shutdown(DEADLINE)).await.unwrap();
    }
}

fn policy_of(dir: &Path) -> Policy {
    postern::source::dir::load(dir, Default::default()).unwrap_or_else(|refused| panic!("{refused:?}")).policy
}

// === what a record says ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_of_every_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let (path, sink) = file(&dir);
    let mut sidecar = Sidecar::start(&["--records", &sink]).await;
    let mut client = AuthorizationServiceClient::new(sidecar.uds().await);
    let mut allowed = request(ALICE, GET_SECRET, &vault("app"));
    allowed.request_id = "r-1".into();
    let subject = allowed.subject.as_mut().unwrap();
    subject.principal_type = v1::PrincipalType::User.into();
    subject.group_ids = vec!["g".into()];
    subject.attributes.insert("Project".into(), text("x"));
    allowed.action.as_mut().unwrap().sub_operation = "Sub".into();
    allowed.resource.as_mut().unwrap().attributes.insert("name".into(), text("\"quoted\"\n"));
    allowed.request_attributes.insert(
        "tag".into(),
        v1::AttributeValue {
            value: Some(v1::attribute_value::Value::List(v1::AttributeList {
                values: vec![text("a"), text("b")],
            })),
        },
    );
    allowed.environment_attributes.insert(
        "isPrivateLink".into(),
        v1::AttributeValue { value: Some(v1::attribute_value::Value::Boolean(true)) },
    );
    allowed.agent = None;
    let mut traced = Request::new(allowed);
    traced.metadata_mut().insert("traceparent", format!("00-{TRACE}-{SPAN}-00").parse().unwrap());
    let answer = client.check(traced).await.unwrap().into_inner();
    client.check(request(ALICE, DELETE, &vault("locked"))).await.unwrap();
    client.check(request(BOB, READ, &vault("app"))).await.unwrap();
    write_unknown_hierarchy(sidecar.policy.path());
    let admin = sidecar.admin();
    eventually("the reload", async || {
        sum(&http(admin, "/metrics").await.1, "postern_policy_generation", &[]) == 2
    })
    .await;
    client.check(request(BOB, WRITE, &vault("app"))).await.unwrap_err();
    // Malformed: nothing is decided, so nothing is recorded.
    client.check(request("", READ, &vault("app"))).await.unwrap_err();
    let batch = v1::BatchCheckRequest {
        subject: request(ALICE, "", "").subject,
        items: vec![
            v1::BatchCheckItem { subject: None, ..item("", READ, "/") },
            item(BOB, "*", &vault("app")),
            item(BOB, WRITE, &vault("app")),
        ],
        request_id: "b-1".into(),
        ..Default::default()
    };
    client.batch_check(batch).await.unwrap();
    drop(client);
    sidecar.begin_drain();
    sidecar.ended().await.unwrap();

    let all = records(&path);
    assert_eq!(all.len(), 6, "{all:#?}");
    let digest = answer.policy.unwrap().digest;
    for (position, record) in all.iter().enumerate() {
        let identity = if position < 3 {
            json!({"serial": 0, "digest": digest, "generation": 1, "freshness": "fresh"})
        } else {
            let digest = &all[3]["policy"]["digest"];
            json!({"serial": 0, "digest": digest, "generation": 2, "freshness": "fresh"})
        };
        record["time"].as_str().unwrap().parse::<Timestamp>().unwrap();
        assert!(record["duration_ns"].is_u64());
        assert_eq!(record["policy"], identity);
        assert_eq!((&record["kind"], &record["transport"]), (&json!("decision"), &json!("unix")));
    }
    let without = |record: &Value, names: &[&str]| {
        let mut record = record.clone();
        for name in ["time", "duration_ns", "policy", "kind", "transport"].iter().chain(names) {
            record.as_object_mut().unwrap().remove(*name).unwrap_or_else(|| panic!("{name}"));
        }
        record
    };
    assert_eq!(
        without(&all[0], &[]),
        json!({
            "request_id": "r-1", "trace_id": TRACE, "span_id": SPAN, "sampled": false, "method": "Check",
            "request": {
                "subject": {
                    "principal_id": ALICE, "principal_type": "USER", "group_ids": ["g"],
                    "attributes": {"Project": "x"},
                },
                "action": {"name": GET_SECRET, "data_action": true, "sub_operation": "Sub"},
                "resource": {"scope": vault("app"), "attributes": {"name": "\"quoted\"\n"}},
                "request_attributes": {"tag": ["a", "b"]},
                "environment_attributes": {"isPrivateLink": true},
            },
            "decision": "Allowed", "reason_code": "ROLE_ASSIGNMENT",
            "role_assignment_id": role_assignment_id(), "role_definition_id": role_definition_id(),
            "cached": false,
        })
    );
    let asked = |principal: &str, action: &str, group: &str| {
        json!({
            "subject": {"principal_id": principal},
            "action": {"name": action, "data_action": false},
            "resource": {"scope": vault(group)},
        })
    };
    assert_eq!(
        without(&all[1], &[]),
        json!({
            "method": "Check", "request": asked(ALICE, DELETE, "locked"), "decision": "Denied",
            "reason_code": "DENY_ASSIGNMENT", "deny_assignment_id": deny_assignment_id(), "cached": false,
        })
    );
    assert_eq!(
        without(&all[2], &[]),
        json!({
            "method": "Check", "request": asked(BOB, READ, "app"), "decision": "NotAllowed",
            "reason_code": "NO_ROLE_ASSIGNMENT", "cached": false,
        })
    );
    let undecided = without(&all[3], &["message"]);
    assert_eq!(
        undecided,
        json!({
            "method": "Check", "request": asked(BOB, WRITE, "app"), "decision": "Undecided",
            "reason_code": "UNKNOWN_HIERARCHY",
        })
    );
    assert!(all[3]["message"].as_str().unwrap().contains("management group"));
    assert_eq!(all[4]["batch_id"], all[5]["batch_id"]);
    assert_eq!(
        without(&all[4], &["batch_id"]),
        json!({
            "request_id": "b-1", "method": "BatchCheck", "batch_index": 0, "batch_items": 3,
            "request": {
                "subject": {"principal_id": ALICE},
                "action": {"name": READ, "data_action": false},
                "resource": {"scope": "/"},
            },
            "decision": "NotAllowed", "reason_code": "NO_ROLE_ASSIGNMENT", "cached": false,
        })
    );
    assert_eq!(
        without(&all[5], &["batch_id", "message"]),
        json!({
            "request_id": "b-1", "method": "BatchCheck", "batch_index": 2, "batch_items": 3,
            "request": asked(BOB, WRITE, "app"), "decision": "Undecided", "reason_code": "UNKNOWN_HIERARCHY",
        })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_masked_is_not_in_the_record_and_is_not_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let (path, sink) = file(&dir);
    let key = dir.path().join("key");
    std::fs::write(&key, "a key of thirty-two bytes or so..\n").unwrap();
    let policy = policy();
    let masks = "subject=hash,subject.attributes=drop,subject.attributes.Kept=keep,resource.attributes=hash,\
                 environment_attributes.*=drop,request_id=drop";
    let arguments =
        ["--records", &sink, "--records-mask", masks, "--records-hash-key-file", key.to_str().unwrap()];
    let mut point = Point::start(Some(settings(&arguments)), policy_of(policy.path())).await;
    let secret = "SECRET";
    let mut asked = request(ALICE, READ, &vault("app"));
    asked.request_id = secret.into();
    asked.environment_attributes.insert("ip".into(), text(secret));
    asked.resource.as_mut().unwrap().attributes.insert("name".into(), text(secret));
    let subject = asked.subject.as_mut().unwrap();
    subject.attributes.insert("Other".into(), text(secret));
    subject.attributes.insert("Kept".into(), text("kept"));
    subject.group_ids = vec![TEAM.into()];
    point.check(asked.clone()).await.unwrap();
    // Spelled otherwise, the same principal.
    asked.subject.as_mut().unwrap().principal_id = ALICE.to_uppercase();
    point.check(asked).await.unwrap();
    point.end().await;
    let all = records(&path);
    let written = std::fs::read_to_string(&path).unwrap();
    for hidden in [secret, ALICE, TEAM] {
        assert!(!written.contains(hidden), "{hidden} in {written}");
    }
    let request = &all[0]["request"];
    let hash = request["subject"]["principal_id"].as_str().unwrap();
    assert!(hash.starts_with("hmac-sha256:") && hash.len() == 12 + 64, "{hash}");
    assert_eq!(all[1]["request"]["subject"]["principal_id"], hash);
    assert_eq!(request["subject"]["attributes"], json!({"Kept": "kept"}));
    assert!(request["resource"]["attributes"]["name"].as_str().unwrap().starts_with("hmac-sha256:"));
    assert!(request.get("environment_attributes").is_none() && all[0].get("request_id").is_none());
    assert_eq!(
        all[0]["masked"],
        json!([
            "subject.principal_id",
            "subject.group_ids",
            "subject.attributes",
            "resource.attributes",
            "environment_attributes",
            "request_id"
        ])
    );
    let (code, told) = replay(&[path.to_str().unwrap()], policy.path());
    assert_eq!((code, &told["decisions"]), (1, &json!(0)), "nothing was compared: {told}");
    assert_eq!(told["notReplayed"]["masked"], json!({"subject.principal_id": 2}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_say_what_is_kept_and_the_rest_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (path, sink) = file(&dir);
    let policy = policy();
    let arguments = ["--records", &sink, "--records-keep", "allowed=none,not-allowed=1/3"];
    let mut point = Point::start(Some(settings(&arguments)), policy_of(policy.path())).await;
    for _ in 0..30 {
        point.check(request(ALICE, READ, &vault("app"))).await.unwrap();
        point.check(request(BOB, READ, &vault("app"))).await.unwrap();
        point.check(request(ALICE, DELETE, &vault("locked"))).await.unwrap();
    }
    point.end().await;
    let all = records(&path);
    let count = |decision: &str| all.iter().filter(|record| record["decision"] == decision).count() as u64;
    let text = point.metrics();
    let left_out = |outcome| sum(&text, "postern_records_not_kept_total", &[("outcome", outcome)]);
    assert_eq!((count("Allowed"), left_out("Allowed")), (0, 30));
    assert_eq!((count("Denied"), left_out("Denied")), (30, 0));
    assert_eq!(count("NotAllowed") + left_out("NotAllowed"), 30);
    assert_eq!(point.accounts(), (0, all.len() as u64, 0));
}

// === files ===

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rotation_under_load_loses_no_line() {
    const TASKS: usize = 8;
    const CHECKS: usize = 250;
    let dir = tempfile::tempdir().unwrap();
    let (path, sink) = file(&dir);
    let policy = policy();
    let arguments = ["--records", &sink, "--records-max-bytes", "16KiB", "--records-max-files", "1000"];
    let mut point = Point::start(Some(settings(&arguments)), policy_of(policy.path())).await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let mut client = point.client.clone();
            tokio::spawn(async move {
                for check in 0..CHECKS {
                    let mut asked = request(ALICE, READ, &vault("app"));
                    asked.request_id = format!("{task}-{check}");
                    client.check(asked).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    point.end().await;
    let all = records(&path);
    let ids: BTreeSet<&str> = all.iter().map(|record| record["request_id"].as_str().unwrap()).collect();
    assert_eq!((all.len(), ids.len()), (TASKS * CHECKS, TASKS * CHECKS));
    let sizes: Vec<u64> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .collect();
    assert!(sizes.len() > 10 && sizes.iter().all(|size| *size <= 16 << 10), "{sizes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_or_gone_costs_records_and_no_checks() {
    let policy = policy();
    let mut point =
        Point::start(Some(settings(&["--records", "file:/dev/full"])), policy_of(policy.path())).await;
    for _ in 0..5 {
        point.check(request(ALICE, READ, &vault("app"))).await.unwrap();
    }
    point.end().await;
    assert_eq!(point.accounts(), (5, 0, 0));
    let labels = [("reason", "file"), ("outcome", "Allowed"), ("kind", "decision")];
    assert_eq!(sum(&point.metrics(), "postern_records_lost_total", &labels), 5);

    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    let path = inner.join("r.jsonl");
    let sink = format!("file:{}", path.display());
    let mut point = Point::start(Some(settings(&["--records", &sink])), policy_of(policy.path())).await;
    let check = async || point.check(request(BOB, READ, &vault("app"))).await.unwrap();
    check().await;
    eventually("the first record", async || point.accounts() == (0, 1, 0)).await;
    std::fs::remove_dir_all(&inner).unwrap();
    check().await;
    eventually("the loss", async || point.accounts() == (1, 1, 0)).await;
    std::fs::create_dir(&inner).unwrap();
    check().await;
    eventually("the file is back", async || point.accounts() == (1, 2, 0)).await;
    point.end().await;
    assert_eq!(records(&path).len(), 1);
}

/// With a limit on the size of files, a write ends in the middle of a line.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_cut_short_leaves_no_half_line() {
    let dir = tempfile::tempdir().unwrap();
    let (path, sink) = file(&dir);
    let policy = policy();
    let script = format!(
        "trap '' XFSZ; ulimit -f 8; exec {} serve --policy {} --tcp 127.0.0.1:0 --admin 127.0.0.1:0 \
         --log-format json --records {sink}",
        env!("CARGO_BIN_EXE_postern"),
        policy.path().display()
    );
    let mut command = std::process::Command::new("sh");
    let mut process = Process::spawn(command.args(["-c", &script]));
    process.ready().await;
    let mut client = AuthorizationServiceClient::new(connect_tcp(process.tcp).await);
    const CHECKS: u64 = 100;
    for number in 0..CHECKS {
        let mut asked = request(ALICE, READ, &vault("app"));
        // Lines of changing length, so that the limit is in the middle of one.
        asked.request_id = "x".repeat(usize::try_from(number).unwrap());
        client.check(asked).await.unwrap();
    }
    let admin = process.admin;
    eventually("every record is accounted for", async || {
        let text = http(admin, "/metrics").await.1;
        let written = sum(&text, "postern_records_written_total", &[]);
        let lost = sum(&text, "postern_records_lost_total", &[("reason", "file")]);
        lost > 0 && written + lost == CHECKS
    })
    .await;
    let written = sum(&metrics(admin), "postern_records_written_total", &[]);
    assert_eq!(records(&path).len() as u64, written);
    process.signal("TERM");
    assert_eq!(process.exit().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standard_output_holds_records_and_nothing_else() {
    let policy = policy();
    let mut command = postern();
    command
        .args(["serve", "--tcp", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json"])
        .args(["--policy", policy.path().to_str().unwrap(), "--records", "stdout"])
        .stdout(Stdio::piped());
    let mut process = Process::spawn(&mut command);
    let mut out = process.stdout().unwrap();
    process.ready().await;
    let mut client = AuthorizationServiceClient::new(connect_tcp(process.tcp).await);
    for _ in 0..3 {
        client.check(request(ALICE, READ, &vault("app"))).await.unwrap();
    }
    drop(client);
    process.signal("TERM");
    assert_eq!(process.exit().await.code(), Some(0), "{}", process.log());
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    let kinds: Vec<Value> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["kind"].clone()).collect();
    assert_eq!(kinds, ["decision", "decision", "decision"]);
}

// === a queue that is full ===

/// A pipe that nobody reads until the test does: the writer hangs in the middle of a record.
struct Pipe {
    _dir: TempDir,
    path: PathBuf,
    /// Both ends, so that opening waits for nobody.
    open: std::fs::File,
}

impl Pipe {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let open = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        Self { _dir: dir, path, open }
    }

    /// One that is full before anybody writes: the writer hangs at its first record.
    async fn full() -> Self {
        let pipe = Self::new();
        let filler = tokio::net::unix::pipe::OpenOptions::new().open_sender(&pipe.path).unwrap();
        // Before it is known that it takes something, it would say that it takes nothing.
        filler.writable().await.unwrap();
        while filler.try_write(&[b'\n'; 4096]).is_ok() {}
        pipe
    }

    /// Reads for ever, into what it gives.
    fn read(&self) -> Arc<Mutex<Vec<u8>>> {
        let mut from = self.open.try_clone().unwrap();
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&bytes);
        // Ends with the process of the test.
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(count) = from.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        bytes
    }
}

/// More than the pipe and the queue hold. Gives the ids of what was recorded in the end.
async fn flood(when_full: &str) -> (Vec<u64>, String) {
    const CHECKS: u64 = 400;
    let pipe = Pipe::new();
    let policy = policy();
    let sink = format!("file:{}", pipe.path.display());
    let arguments = ["--records", &sink, "--records-queue", "10", "--records-when-full", when_full];
    let mut point = Point::start(Some(settings(&arguments)), policy_of(policy.path())).await;
    for number in 0..CHECKS {
        let mut asked = request(ALICE, READ, &vault("app"));
        asked.request_id = format!("{number:0>120}");
        point.check(asked).await.unwrap();
    }
    let (lost, written, depth) = point.accounts();
    assert!(lost > 0, "it was never full");
    assert_eq!(lost + written + depth, CHECKS, "{lost} {written} {depth}");
    let bytes = pipe.read();
    eventually("everything that waits is written", async || point.accounts().2 == 0).await;
    point.end().await;
    let (lost, written, depth) = point.accounts();
    assert_eq!((lost + written, depth), (CHECKS, 0));
    let lines = || bytes.lock().unwrap().iter().filter(|byte| **byte == b'\n').count() as u64;
    eventually("the lines", async || lines() == written).await;
    let text = String::from_utf8(bytes.lock().unwrap().clone()).unwrap();
    let ids = text.lines().map(|line| {
        serde_json::from_str::<Value>(line).unwrap()["request_id"].as_str().unwrap().parse().unwrap()
    });
    let ids = ids.collect::<Vec<u64>>();
    (ids, point.metrics())
}

fn reasons(text: &str) -> Vec<&'static str> {
    let all = [
        "queue_full_newest",
        "queue_full_oldest",
        "deadline",
        "stdout",
        "file",
        "otlp",
        "otlp_refused",
        "shutdown",
    ];
    all.into_iter()
        .filter(|reason| sum(text, "postern_records_lost_total", &[("reason", reason)]) > 0)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_drops_the_newest() {
    let (ids, text) = flood("drop-newest").await;
    assert_eq!(reasons(&text), ["queue_full_newest"]);
    assert_eq!(ids, (0..ids.len() as u64).collect::<Vec<_>>(), "the first ones");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_drops_the_oldest() {
    let (ids, text) = flood("drop-oldest").await;
    assert_eq!(reasons(&text), ["queue_full_oldest"]);
    assert!(ids.is_sorted() && ids.contains(&0) && ids.ends_with(&[397, 398, 399]), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_lets_the_call_wait_for_its_deadline() {
    let (ids, text) = flood("block:1ms").await;
    assert_eq!(reasons(&text), ["deadline"]);
    assert!(ids.is_sorted() && ids.contains(&0));
}

/// The call waits, not the thread that it runs on: there is only one.
#[tokio::test(flavor = "current_thread")]
async fn a_call_that_waits_for_room_holds_up_no_other() {
    let pipe = Pipe::new();
    let policy = policy();
    let sink = format!("file:{}", pipe.path.display());
    let arguments = ["--records", &sink, "--records-queue", "1", "--records-when-full", "block:1s"];
    let point = Point::start(Some(settings(&arguments)), policy_of(policy.path())).await;
    let mut client = point.client.clone();
    let waiting = tokio::spawn(async move {
        loop {
            let mut asked = request(ALICE, READ, &vault("app"));
            asked.request_id = "x".repeat(128);
            client.check(asked).await.unwrap();
        }
    });
    // Once the pipe and the queue are full, that one waits.
    eventually("a call waits", async || {
        let before = point.metrics();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let checks = |text: &str| sum(text, "postern_decisions_total", &[]);
        let after = point.metrics();
        checks(&before) > 50 && checks(&before) == checks(&after)
    })
    .await;
    let waited = point.accounts().0;
    let mut other = point.client.clone();
    for _ in 0..20 {
        other.get_policy_status(v1::GetPolicyStatusRequest {}).await.unwrap();
    }
    assert!(!waiting.is_finished());
    assert!(point.accounts().0 <= waited + 1, "twenty calls were answered while one waited");
    // A caller that goes away takes its record along, which is counted.
    waiting.abort();
    eventually("it is counted", async || {
        sum(&point.metrics(), "postern_records_lost_total", &[("reason", "deadline")]) > waited
    })
    .await;
    let _kept_until_here = pipe.read();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_whose_records_are_pushed_out_is_not_freed_by_a_call() {
    let pipe = Pipe::full().await;
    let policy = policy();
    let sink = format!("file:{}", pipe.path.display());
    let arguments = ["--records", &sink, "--records-queue", "4", "--records-when-full", "drop-oldest"];
    let mut point = Point::start(Some(settings(&arguments)), None).await;
    // Replaced policies are retired on a runtime that stands still until the test lets it run.
    let beside = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut activator = Activator {
        writer: std::mem::replace(&mut point.writer, cell().0),
        clock: point.clock.clone(),
        readiness: Readiness::new(),
        waiting: None,
        metrics: point.metrics.policy(),
        activated: watch::channel(0).0,
    };
    let mut activate = || {
        let _beside = beside.enter();
        Arc::downgrade(&activator.activate(policy_of(policy.path()), None))
    };
    let check = async |count: usize| {
        for _ in 0..count {
            point.check(request(ALICE, READ, &vault("app"))).await.unwrap();
        }
    };
    // Once the writer hangs in the pipe, records wait, and hold their policy.
    let mut old = activate();
    let start = std::time::Instant::now();
    while {
        check(6).await;
        old.strong_count() == 1
    } {
        assert!(start.elapsed() < DEADLINE, "the writer does not hang");
        old = activate();
    }
    activate();
    check(6).await;
    // Its last record was pushed out by a call, and whoever replaced it has it still.
    eventually("nobody else holds it", async || old.strong_count() == 1).await;
    let freed = old.clone();
    std::thread::spawn(move || {
        beside.block_on(eventually("it is freed", async || freed.strong_count() == 0));
    })
    .join()
    .unwrap();
    assert_eq!(old.strong_count(), 0);
}

// === the end ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_hangs_does_not_hold_the_end_and_its_losses_are_counted() {
    const CHECKS: u64 = 20;
    let policy = policy();
    // In the test's own process, where the metrics can be read afterwards.
    let pipe = Pipe::full().await;
    let sink = format!("file:{}", pipe.path.display());
    let mut point = Point::start(Some(settings(&["--records", &sink])), policy_of(policy.path())).await;
    for number in 0..CHECKS {
        let (principal, action, group) =
            if number % 2 == 0 { (ALICE, READ, "app") } else { (ALICE, DELETE, "locked") };
        point.check(request(principal, action, &vault(group))).await.unwrap();
    }
    let ending = point.records.take().unwrap();
    let within = std::time::Duration::from_millis(100);
    tokio::task::spawn_blocking(move || ending.shutdown(within)).await.unwrap();
    assert_eq!(point.accounts(), (CHECKS, 0, 0));
    let numbers = point.metrics();
    assert_eq!(reasons(&numbers), ["shutdown"]);
    for outcome in ["Allowed", "Denied"] {
        let labels = [("reason", "shutdown"), ("outcome", outcome)];
        assert_eq!(sum(&numbers, "postern_records_lost_total", &labels), CHECKS / 2);
    }
    // What the sink takes after all is not counted a second time.
    let bytes = pipe.read();
    eventually("the writer goes on", async || bytes.lock().unwrap().contains(&b'{')).await;
    assert_eq!(point.accounts(), (CHECKS, 0, 0));

    // Whole processes: a pipe, standard output that nobody reads, a receiver that does not answer.
    let pipe = Pipe::full().await;
    let file = format!("file:{}", pipe.path.display());
    let (receiver, address) = Receiver::grpc().await;
    receiver.set(Mood::Stall);
    let kept = tempfile::tempdir().unwrap();
    let path = kept.path().join("r.jsonl");
    let both = format!("file:{},otlp", path.display());
    // Of two sinks the other one has everything.
    for (sinks, some_written) in [(file.as_str(), false), ("stdout", true), ("otlp", false), (&both, true)] {
        let mut command = postern();
        command
            .args(["serve", "--tcp", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json"])
            .args(["--policy", policy.path().to_str().unwrap(), "--records", sinks])
            .env("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", format!("http://{address}"))
            .stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command);
        let _unread = process.stdout();
        process.ready().await;
        let mut client = AuthorizationServiceClient::new(connect_tcp(process.tcp).await);
        for _ in 0..CHECKS {
            let mut asked = request(ALICE, READ, &vault("app"));
            // More in all than a pipe holds.
            asked.request_attributes.insert("much".into(), text(&"x".repeat(8192)));
            client.check(asked).await.unwrap();
        }
        drop(client);
        process.signal("TERM");
        assert_eq!(process.exit().await.code(), Some(0), "{sinks}: {}", process.log());
        let log = process.log();
        let said = |message: &str, key: &str| {
            let line = log.lines().find(|line| line.contains(message));
            let line: Value = serde_json::from_str(line.unwrap_or_else(|| panic!("{sinks}: {log}"))).unwrap();
            line[key].as_u64().unwrap()
        };
        let (written, lost) = (said("records ended", "written"), said("records ended", "lost"));
        let sinks_with_all = u64::from(sinks == both);
        assert_eq!(written + lost, CHECKS * (1 + sinks_with_all), "{sinks}: {log}");
        assert_eq!((written > 0, lost > 0), (some_written, true), "{sinks}: {log}");
        assert_eq!(said("records were lost; the metric", "records"), lost, "{sinks}: {log}");
    }
    assert_eq!(records(&path).len() as u64, CHECKS);
}

/// The kernel ends it in the middle of its work.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_a_kill_every_line_is_whole_and_no_more_is_lost_than_may_wait() {
    const QUEUE: usize = 64;
    const CALLERS: usize = 8;
    let dir = tempfile::tempdir().unwrap();
    let (path, sink) = file(&dir);
    let policy = policy();
    let queue = QUEUE.to_string();
    // A call that finds no room waits for it, so that nothing else loses a record.
    let arguments = ["--records", &sink, "--records-queue", &queue, "--records-when-full", "block:1s"];
    let mut process = Process::start(policy.path(), &arguments, &[]);
    process.ready().await;
    let answered = Arc::new(Mutex::new(BTreeSet::new()));
    let mut callers = Vec::new();
    for caller in 0..CALLERS {
        let mut client = AuthorizationServiceClient::new(connect_tcp(process.tcp).await);
        let answered = Arc::clone(&answered);
        callers.push(tokio::spawn(async move {
            for number in 0.. {
                let mut asked = request(ALICE, READ, &vault("app"));
                asked.request_id = format!("{caller}-{number}");
                let id = asked.request_id.clone();
                if client.check(asked).await.is_err() {
                    return;
                }
                answered.lock().unwrap().insert(id);
            }
        }));
    }
    eventually("much is answered", async || answered.lock().unwrap().len() >= 1000).await;
    let lost = sum(&metrics(process.admin), "postern_records_lost_total", &[]);
    process.signal("KILL");
    assert!(!process.exit().await.success());
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(lost, 0, "a call waited in vain");

    // The kernel may cut the write that it finds; what is before that is whole, and the next start goes on behind it.
    let text = std::fs::read_to_string(&path).unwrap();
    let whole = text.rsplit_once('\n').unwrap().0;
    let id = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        record["request_id"].as_str().unwrap().to_owned()
    };
    let recorded: BTreeSet<String> = whole.lines().map(id).collect();
    assert_eq!(recorded.len(), whole.lines().count(), "no record is there twice");
    let answered = answered.lock().unwrap().clone();
    let missing: Vec<&String> = answered.difference(&recorded).collect();
    assert!(missing.len() <= QUEUE, "{} of {} are missing", missing.len(), answered.len());
    // What was decided and not answered may be there, one for each caller.
    assert!(recorded.difference(&answered).count() <= CALLERS);

    let mut process = Process::start(policy.path(), &["--records", &sink], &[]);
    process.ready().await;
    let mut client = AuthorizationServiceClient::new(connect_tcp(process.tcp).await);
    let mut asked = request(ALICE, READ, &vault("app"));
    asked.request_id = "afterwards".into();
    client.check(asked).await.unwrap();
    drop(client);
    process.signal("TERM");
    assert_eq!(process.exit().await.code(), Some(0), "{}", process.log());
    let now = std::fs::read_to_string(&path).unwrap();
    assert!(now.starts_with(&text) && now.ends_with('\n'));
    assert_eq!(id(now.lines().last().unwrap()), "afterwards");
}

// === OTLP ===

/// So that nobody waits for a batch to fill.
const SOON: (&str, &str) = ("OTEL_BLRP_SCHEDULE_DELAY", "10");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn body(record: &LogRecord) -> Value {
    match record.body.clone().unwrap().value.unwrap() {
        any_value::Value::StringValue(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn attributes(record: &LogRecord) -> BTreeMap<String, String> {
    let value = |value: any_value::Value| match value {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let attributes = record.attributes.iter();
    attributes.map(|one| (one.key.clone(), value(one.value.clone().unwrap().value.unwrap()))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_arrive_over_otlp_also_of_traces_that_are_not_sampled() {
    let (receiver, address) = Receiver::grpc().await;
    let dir = policy();
    let endpoint = format!("http://{address}");
    let variables = [("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", endpoint.as_str())];
    let mut process = Process::start(dir.path(), &["--records", "otlp"], &variables);
    process.ready().await;
    let mut client = AuthorizationServiceClient::new(connect_tcp(process.tcp).await);
    let mut asked = Request::new(request(ALICE, READ, &vault("app")));
    asked.metadata_mut().insert("traceparent", format!("00-{TRACE}-{SPAN}-00").parse().unwrap());
    client.check(asked).await.unwrap();
    client.check(request(ALICE, DELETE, &vault("locked"))).await.unwrap();
    drop(client);
    // What waits is sent on the way out.
    process.signal("TERM");
    assert_eq!(process.exit().await.code(), Some(0), "{}", process.log());
    let records = receiver.records();
    assert_eq!(records.len(), 2);
    assert_eq!(receiver.resource_of_records("service.name").as_deref(), Some("postern"));
    assert!(receiver.resource_of_records("service.instance.id").is_some());
    assert_eq!((hex(&records[0].trace_id).as_str(), hex(&records[0].span_id).as_str()), (TRACE, SPAN));
    assert_eq!((records[0].event_name.as_str(), records[0].flags), ("postern.decision", 0));
    assert!(records[1].trace_id.is_empty());
    let said = body(&records[0]);
    assert_eq!((&said["trace_id"], &said["decision"]), (&json!(TRACE), &json!("Allowed")));
    let at: Timestamp = said["time"].as_str().unwrap().parse().unwrap();
    assert_eq!(i128::from(records[0].time_unix_nano), at.as_nanosecond());
    let attributes = attributes(&records[1]);
    let digest = body(&records[1])["policy"]["digest"].as_str().unwrap().to_owned();
    for (key, value) in [
        ("postern.decision", "Denied"),
        ("postern.reason_code", "DENY_ASSIGNMENT"),
        ("postern.action", DELETE),
        ("postern.plane", "control"),
        ("postern.scope", &vault("locked")),
        ("postern.deny_assignment.id", &deny_assignment_id()),
        ("postern.policy.serial", "0"),
        ("postern.policy.digest", &digest),
    ] {
        assert_eq!(attributes.get(key).map(String::as_str), Some(value), "{key}");
    }
}

/// Down, refusing, slow, back: checks are answered all the while, and in the end every one is accounted for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_in_any_state_costs_no_check() {
    // A port that is free, and where nobody listens yet.
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dir = policy();
    let endpoint = format!("http://{address}");
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BLRP_EXPORT_TIMEOUT", "1000"),
        SOON,
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_METRICS_EXPORTER", "none"),
    ];
    let arguments = ["--records", "otlp", "--records-queue", "20"];
    let mut process = Process::start(dir.path(), &arguments, &variables);
    process.ready().await;
    let client = AuthorizationServiceClient::new(connect_tcp(process.tcp).await);
    let mut decided = 0;
    let mut check = async |count: u64| {
        for _ in 0..count {
            client.clone().check(request(ALICE, READ, &vault("app"))).await.unwrap();
        }
        decided += count;
        decided
    };
    let admin = process.admin;
    let accounts = async || {
        let text = http(admin, "/metrics").await.1;
        let lost = |reason| sum(&text, "postern_records_lost_total", &[("reason", reason)]);
        let written = sum(&text, "postern_records_written_total", &[("sink", "otlp")]);
        let depth = sum(&text, "postern_record_queue_depth", &[]);
        (lost("otlp") + lost("otlp_refused"), lost("queue_full_newest"), written, depth)
    };
    // Down.
    let total = check(100).await;
    eventually("all lost", async || {
        let (otlp, full, written, depth) = accounts().await;
        otlp > 0 && otlp + full == total && (written, depth) == (0, 0)
    })
    .await;
    // Back.
    let (receiver, _) = Receiver::grpc_on(address, None).await;
    let before = total;
    let start = std::time::Instant::now();
    while accounts().await.2 == 0 {
        check(1).await;
        assert!(start.elapsed() < DEADLINE, "nothing arrives");
    }
    // Refusing.
    receiver.set(Mood::Refuse);
    let lost = accounts().await.0;
    let total = check(10).await;
    assert!(total > before);
    eventually("refused ones are lost", async || accounts().await.0 > lost).await;
    assert!(sum(&metrics(admin), "postern_records_lost_total", &[("reason", "otlp_refused")]) > 0);
    // Slow.
    receiver.set(Mood::Stall);
    let full = accounts().await.1;
    let total = check(200).await;
    assert!(accounts().await.1 > full, "the queue is full, and checks are answered");
    receiver.set(Mood::Take);
    eventually("all is accounted for", async || {
        let (otlp, full, written, depth) = accounts().await;
        depth == 0 && otlp + full + written == total
    })
    .await;
    // One that timed out may have arrived all the same.
    assert!(receiver.records().len() as u64 >= accounts().await.2);
    process.signal("TERM");
    assert_eq!(process.exit().await.code(), Some(0), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_arrive_over_http_and_a_slow_receiver_does_not_hold_the_file() {
    let (receiver, address) = Receiver::http().await;
    receiver.set(Mood::Stall);
    let out = tempfile::tempdir().unwrap();
    let (path, sink) = file(&out);
    let dir = policy();
    let variables = [
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", &*format!("http://{address}/v1/logs")),
        ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "gzip"),
        SOON,
    ];
    let arguments = ["--records", &format!("{sink},otlp"), "--records-queue", "10"];
    let mut process = Process::start(dir.path(), &arguments, &variables);
    process.ready().await;
    let mut client = AuthorizationServiceClient::new(connect_tcp(process.tcp).await);
    let admin = process.admin;
    let written = async |sink: &str| {
        sum(&http(admin, "/metrics").await.1, "postern_records_written_total", &[("sink", sink)])
    };
    for number in 1..=40 {
        client.check(request(ALICE, READ, &vault("app"))).await.unwrap();
        eventually("the file has it", async || written("file").await == number).await;
    }
    let lost = sum(&metrics(admin), "postern_records_lost_total", &[("reason", "otlp")]);
    assert!(lost > 0, "beside the file, what does not fit is lost to the receiver alone");
    receiver.set(Mood::Take);
    eventually("the rest", async || {
        let lost = sum(&http(admin, "/metrics").await.1, "postern_records_lost_total", &[("reason", "otlp")]);
        written("otlp").await + lost == 40
    })
    .await;
    let arrived = written("otlp").await;
    assert_eq!((receiver.records().len() as u64, records(&path).len()), (arrived, 40));
    process.signal("TERM");
    assert_eq!(process.exit().await.code(), Some(0), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_receiver_rejects_of_a_message_is_lost_and_counted() {
    let (receiver, address) = Receiver::grpc().await;
    receiver.set(Mood::TakeLess);
    let dir = policy();
    // A message goes when it has four records, and not before.
    let variables = [
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", &*format!("http://{address}")),
        ("OTEL_BLRP_SCHEDULE_DELAY", "600000"),
        ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "4"),
    ];
    let mut process = Process::start(dir.path(), &["--records", "otlp"], &variables);
    process.ready().await;
    let client = AuthorizationServiceClient::new(connect_tcp(process.tcp).await);
    let check = async |principal: &str, count: usize| {
        for _ in 0..count {
            client.clone().check(request(principal, READ, &vault("app"))).await.unwrap();
        }
    };
    let admin = process.admin;
    // Taken; lost as allowed, as not allowed, and as one of both.
    let accounts = async || {
        let text = http(admin, "/metrics").await.1;
        let lost = |outcome| {
            let labels = [("reason", "otlp_refused"), ("outcome", outcome), ("kind", "decision")];
            sum(&text, "postern_records_lost_total", &labels)
        };
        let written = sum(&text, "postern_records_written_total", &[("sink", "otlp")]);
        [written, lost("Allowed"), lost("NotAllowed"), lost("Unknown")]
    };
    check(ALICE, 4).await;
    eventually("one of one kind is lost", async || accounts().await == [3, 1, 0, 0]).await;
    // The receiver says how many, not which.
    check(ALICE, 2).await;
    check(BOB, 2).await;
    eventually("one of two kinds is lost", async || accounts().await == [6, 1, 0, 1]).await;
    receiver.set(Mood::Refuse);
    check(ALICE, 1).await;
    check(BOB, 3).await;
    eventually("all are lost", async || accounts().await == [6, 2, 3, 1]).await;
    assert_eq!((receiver.records().len(), receiver.messages()), (6, 3));
    let text = metrics(admin);
    assert_eq!(reasons(&text), ["otlp_refused"]);
    assert_eq!(sum(&text, "postern_record_queue_depth", &[]), 0);
    process.signal("TERM");
    assert_eq!(process.exit().await.code(), Some(0));
    let log = process.log();
    for told in ["the receiver refuses records", "one too many", "records cannot be sent and are lost"] {
        assert!(log.contains(told), "{told}: {log}");
    }
}

/// Traces and records on, one receiver: what is sampled out has a record all the same, in the caller's trace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_in_the_trace_of_its_call_whatever_is_sampled() {
    let (receiver, address) = Receiver::grpc().await;
    let dir = policy();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*format!("http://{address}")),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        SOON,
    ];
    let arguments = ["--records", "otlp", "--trace-keep", "denied"];
    let process = Process::start(dir.path(), &arguments, &variables);
    process.ready().await;
    let mut client = AuthorizationServiceClient::new(connect_tcp(process.tcp).await);
    for (id, flag, action, group) in [
        ("sampled", "01", READ, "app"),
        ("sampled-out", "00", READ, "app"),
        ("kept-by-a-rule", "00", DELETE, "locked"),
    ] {
        let mut asked = request(ALICE, action, &vault(group));
        asked.request_id = id.into();
        let mut asked = Request::new(asked);
        asked.metadata_mut().insert("traceparent", format!("00-{TRACE}-{SPAN}-{flag}").parse().unwrap());
        client.check(asked).await.unwrap();
    }
    let record = |id: &str| receiver.records().into_iter().find(|record| body(record)["request_id"] == id);
    let span = |id: &str| {
        let named = |span: &Span| receiver::attribute(span, "postern.request_id").as_deref() == Some(id);
        receiver.spans().into_iter().find(named)
    };
    eventually("all records and both spans", async || {
        let spans = span("sampled").is_some() && span("kept-by-a-rule").is_some();
        spans && receiver.records().len() == 3
    })
    .await;
    for id in ["sampled", "kept-by-a-rule"] {
        let (record, span) = (record(id).unwrap(), span(id).unwrap());
        assert_eq!((hex(&span.trace_id).as_str(), hex(&span.parent_span_id).as_str()), (TRACE, SPAN));
        assert_eq!((&record.trace_id, &record.span_id, record.flags), (&span.trace_id, &span.span_id, 1));
        let said = body(&record);
        assert_eq!((&said["trace_id"], &said["span_id"]), (&json!(TRACE), &json!(hex(&span.span_id))));
    }
    let out = record("sampled-out").unwrap();
    assert_eq!((hex(&out.trace_id).as_str(), hex(&out.span_id).as_str(), out.flags), (TRACE, SPAN, 0));
    // Spans leave in the order of their calls: the one of the last call is there, so this one was not made.
    assert!(span("sampled-out").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_go_over_tls_only_to_whom_the_authority_vouches_for() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = Identity::from_pem(&certificate, &key);
    let dir = policy();
    let files = tempfile::tempdir().unwrap();
    let authority = files.path().join("ca.pem");
    std::fs::write(&authority, &certificate).unwrap();
    for protocol in ["grpc", "http/protobuf"] {
        let (receiver, address) = match protocol {
            "grpc" => Receiver::grpc_on("127.0.0.1:0".parse().unwrap(), Some(identity.clone())).await,
            _ => Receiver::http_with(Some(identity.clone())).await,
        };
        let endpoint = format!("https://localhost:{}", address.port());
        let sending = async |variables: &[(&str, &str)]| {
            let all = [
                ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_TRACES_EXPORTER", "none"),
                ("OTEL_METRICS_EXPORTER", "none"),
                ("OTEL_BLRP_EXPORT_TIMEOUT", "300"),
                SOON,
            ];
            let process = Process::start(dir.path(), &["--records", "otlp"], &[&all, variables].concat());
            process.ready().await;
            let mut client = AuthorizationServiceClient::new(connect_tcp(process.tcp).await);
            client.check(request(ALICE, READ, &vault("app"))).await.unwrap();
            process
        };
        let stranger = sending(&[]).await;
        let admin = stranger.admin;
        eventually("it is lost", async || {
            sum(&http(admin, "/metrics").await.1, "postern_records_lost_total", &[("reason", "otlp")]) == 1
        })
        .await;
        assert!(receiver.records().is_empty());
        let variables = [
            ("OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", authority.to_str().unwrap()),
            ("OTEL_BLRP_EXPORT_TIMEOUT", "20000"),
        ];
        let _trusting = sending(&variables).await;
        eventually(protocol, async || receiver.records().len() == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variables_of_log_records_end_the_start_only_where_records_need_them() {
    let dir = policy();
    let wrong = [
        ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/json"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "soon"),
        ("OTEL_LOGS_EXPORTER", "none"),
    ];
    let output = postern()
        .args(["serve", "--tcp", "127.0.0.1:0", "--admin", "off", "--records", "stdout,otlp", "--policy"])
        .arg(dir.path())
        .envs(wrong)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    for (name, value) in wrong {
        assert!(said.contains(&format!("`{name}` is `{value}`")), "{name}: {said}");
    }
    Process::start(dir.path(), &["--records", "stdout"], &wrong).ready().await;
}

// === replay ===

/// Exit code and report.
fn replay(files: &[&str], policy: &Path) -> (i32, Value) {
    let output = postern()
        .arg("replay")
        .args(files)
        .args(["--json", "--policy", policy.to_str().unwrap()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let told = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), told)
}

/// The cases of the example tenant: conditions, times, activations, agents.
fn contoso_questions() -> Vec<(Timestamp, v1::CheckRequest)> {
    let subject = |id: &str| v1::Subject { principal_id: id.into(), ..Default::default() };
    include_str!("cases/contoso.jsonl")
        .lines()
        .map(|line| {
            let case: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| case[name].as_str().unwrap_or_default().to_owned();
            let bag = |name: &str| wire::attributes(&case["attributes"][name]);
            let agent = case.get("agent").map(|agent| {
                let user = agent["user"].as_str();
                v1::AgentContext {
                    mode: 0,
                    on_behalf_of: user.map(subject),
                    approval: user.zip(agent["approve"].as_bool()).map(|(user, yes)| v1::AgentApproval {
                        by: Some(subject(user)),
                        verdict: if yes { 1 } else { 2 },
                    }),
                    consent: user.zip(agent["consent"].as_bool()).map(|(user, yes)| v1::AgentConsent {
                        principal_id: user.into(),
                        verdict: if yes { 1 } else { 2 },
                    }),
                }
            });
            let request = v1::CheckRequest {
                subject: Some(v1::Subject {
                    principal_id: text("principal"),
                    group_ids: serde_json::from_value(case["groups"].clone()).unwrap_or_default(),
                    attributes: bag("principal"),
                    ..Default::default()
                }),
                action: Some(v1::Action {
                    name: text("action"),
                    data_action: case["data_action"] == true,
                    sub_operation: text("sub_operation"),
                }),
                resource: Some(v1::Resource { scope: text("scope"), attributes: bag("resource") }),
                request_attributes: bag("request"),
                environment_attributes: bag("environment"),
                agent,
                ..Default::default()
            };
            let now = case["now"].as_str().unwrap_or("2026-06-01T12:00:00Z").parse().unwrap();
            (now, request)
        })
        .collect()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_finds_exactly_what_a_change_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (path, sink) = file(&dir);
    let contoso = Path::new(CONTOSO);
    let mut point = Point::start(Some(settings(&["--records", &sink])), policy_of(contoso)).await;
    // Another agent's mode, no activations, and no role assignments in production.
    let changed = dir.path().join("changed");
    copy(contoso, &changed);
    let agents = std::fs::read_to_string(changed.join("agents.yaml")).unwrap();
    assert!(agents.contains("mode: review"));
    std::fs::write(changed.join("agents.yaml"), agents.replace("mode: review", "mode: auto")).unwrap();
    std::fs::remove_file(changed.join("assignments/production.json")).unwrap();
    std::fs::remove_dir_all(changed.join("pim")).unwrap();
    let next = Point::start(None, policy_of(&changed)).await;
    let questions = contoso_questions();
    let mut differing = 0;
    for (now, question) in &questions {
        point.clock.set(*now);
        next.clock.set(*now);
        let before = point.check(question.clone()).await.unwrap();
        let after = next.check(question.clone()).await.unwrap();
        let steps = |result: &v1::CheckResult| {
            let kinds = result
                .steps
                .iter()
                .map(|step| (step.state, std::mem::discriminant(step.kind.as_ref().unwrap())));
            kinds.collect::<Vec<_>>()
        };
        let essence = |result: &v1::CheckResult| (result.decision, result.executed_as, steps(result));
        differing += u64::from(essence(&before) != essence(&after));
    }
    point.end().await;
    let count = questions.len() as u64;
    assert_eq!(records(&path).len() as u64, count);
    let steps = records(&path).iter().filter(|record| record.get("executed_as").is_some()).count();
    assert!(steps > 0, "agents were among them");

    let (code, told) = replay(&[path.to_str().unwrap()], contoso);
    assert_eq!(code, 0, "{told:#}");
    assert_eq!((&told["decisions"], &told["same"]), (&json!(count), &json!(count)));
    assert_eq!(told["groups"], json!([]));

    let (code, told) = replay(&[path.to_str().unwrap()], &changed);
    assert_eq!(code, 3);
    assert!(differing > 10, "{differing}");
    assert_eq!(told["different"], differing, "{told:#}");
    let groups = told["groups"].as_array().unwrap();
    assert_eq!(groups.iter().map(|group| group["requests"].as_u64().unwrap()).sum::<u64>(), differing);
    let because = |what: &str| groups.iter().any(|group| group["because"].as_str().unwrap().contains(what));
    assert!(because("is gone") && because("eligibility") && because("the steps were"), "{told:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_groups_by_assignment_and_leaves_nothing_unsaid() {
    let dir = tempfile::tempdir().unwrap();
    let (path, sink) = file(&dir);
    let policy = policy();
    let mut point = Point::start(Some(settings(&["--records", &sink])), policy_of(policy.path())).await;
    for (second, (principal, action, group)) in (1..).zip([
        (ALICE, READ, "app"),
        (ALICE, DELETE, "app"),
        (ALICE, DELETE, "locked"),
        (BOB, READ, "app"),
        (ALICE, READ, "app"),
    ]) {
        point.clock.set(Timestamp::from_second(second).unwrap());
        point.check(request(principal, action, &vault(group))).await.unwrap();
    }
    point.end().await;
    revoke_alice(policy.path());
    std::fs::remove_file(policy.path().join("deny.json")).unwrap();
    // A line that a killed process left, something else, and what a newer version may write.
    let first = std::fs::read_to_string(&path).unwrap().lines().next().unwrap().to_owned();
    let mut unknown: Value = serde_json::from_str(&first).unwrap();
    unknown["request"]["subject"]["mood"] = json!("good");
    let mut early: Value = serde_json::from_str(&first).unwrap();
    early["decision"] = json!("Undecided");
    early["reason_code"] = json!("NO_POLICY");
    let other = dir.path().join("other.jsonl");
    let lines = format!("{}\n{{\"a\": 1}}\n{unknown}\n\n{early}\n", &first[..first.len() / 2]);
    std::fs::write(&other, lines).unwrap();
    let (code, told) = replay(&[path.to_str().unwrap(), other.to_str().unwrap()], policy.path());
    assert_eq!(code, 3);
    assert_eq!((&told["decisions"], &told["same"], &told["different"]), (&json!(5), &json!(1), &json!(4)));
    let groups = told["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2, "{told:#}");
    let gone = &groups[0];
    assert_eq!((&gone["was"], &gone["now"]), (&json!("Allowed"), &json!("NotAllowed")));
    assert_eq!(gone["because"], format!("role assignment {} is gone", role_assignment_id()));
    assert_eq!(gone["roleAssignmentId"], role_assignment_id());
    assert_eq!((&gone["requests"], &gone["principals"]), (&json!(3), &json!(1)));
    assert_eq!(
        (&gone["first"], &gone["last"]),
        (&json!("1970-01-01T00:00:01Z"), &json!("1970-01-01T00:00:05Z"))
    );
    assert_eq!(gone["example"]["record"], format!("{}:1", path.display()));
    assert_eq!((&gone["example"]["principal"], &gone["example"]["action"]), (&json!(ALICE), &json!(READ)));
    assert_eq!(groups[1]["denyAssignmentId"], deny_assignment_id());
    assert_eq!(groups[1]["because"], format!("deny assignment {} is gone", deny_assignment_id()));
    let not_replayed = &told["notReplayed"];
    assert_eq!(not_replayed["noPolicy"], json!({"NO_POLICY": 1}));
    assert_eq!(not_replayed["malformed"], 3);
    let places: Vec<_> = not_replayed["malformedLines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["record"].clone())
        .collect();
    assert_eq!(places, [1, 2, 3].map(|line| json!(format!("{}:{line}", other.display()))));

    // The same for people, from standard input, against a bundle.
    let bundle = dir.path().join("next.bundle");
    let built =
        postern().args(["bundle", "build"]).arg(policy.path()).arg("-o").arg(&bundle).output().unwrap();
    assert!(built.status.success());
    let output = postern()
        .args(["replay", "-", "--policy"])
        .arg(&bundle)
        .stdin(std::fs::File::open(&path).unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(text.contains("5 decisions asked again") && text.contains("3 requests, 1 principal,"), "{text}");
    assert!(
        text.contains("Allowed → NotAllowed, because role assignment") && text.contains("is gone"),
        "{text}"
    );

    let missing = postern().args(["replay", "nowhere", "--policy"]).arg(&bundle).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("cannot read `nowhere`"));
}

// === the candidate ===

/// Asks four questions beside which all are asked of a candidate. Gives what it said, by the metric, and the records.
async fn beside(candidate: &Path) -> ([u64; 4], Vec<Value>) {
    let dir = tempfile::tempdir().unwrap();
    let (path, sink) = file(&dir);
    let arguments =
        ["--records", &sink, "--records-keep", "none", "--candidate-share", "100%", "--candidate"];
    let arguments = [&arguments[..], &[candidate.to_str().unwrap()]].concat();
    let mut sidecar = Sidecar::start(&arguments).await;
    let mut client = AuthorizationServiceClient::new(sidecar.uds().await);
    client.check(request(ALICE, READ, &vault("app"))).await.unwrap();
    client.check(request(BOB, READ, "/")).await.unwrap();
    let items = vec![item(BOB, READ, "/"), item(ALICE, READ, &vault("app"))];
    client.batch_check(v1::BatchCheckRequest { items, ..Default::default() }).await.unwrap();
    let admin = sidecar.admin();
    eventually("all are compared", async || {
        sum(&http(admin, "/metrics").await.1, "postern_candidate_checks_total", &[]) == 4
    })
    .await;
    let text = metrics(admin);
    let said = ["same", "different", "undecided", "lost"]
        .map(|outcome| sum(&text, "postern_candidate_checks_total", &[("outcome", outcome)]));
    drop(client);
    sidecar.begin_drain();
    sidecar.ended().await.unwrap();
    (said, records(&path))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_is_asked_beside_and_only_differences_are_recorded() {
    let same = policy();
    assert_eq!(beside(same.path()).await, ([4, 0, 0, 0], Vec::new()));

    let revoked = policy();
    revoke_alice(revoked.path());
    let (said, all) = beside(revoked.path()).await;
    assert_eq!((said, all.len()), ([2, 2, 0, 0], 2), "{all:#?}");
    let record = &all[0];
    assert_eq!(
        (&record["kind"], &record["decision"], &record["role_assignment_id"]),
        (&json!("difference"), &json!("Allowed"), &json!(role_assignment_id()))
    );
    assert_eq!(record["request"]["subject"]["principal_id"], ALICE);
    let said = &record["candidate"];
    assert_eq!(
        (&said["decision"], &said["reason_code"]),
        (&json!("NotAllowed"), &json!("NO_ROLE_ASSIGNMENT"))
    );
    assert_eq!(said["policy"]["digest"], policy_of(revoked.path()).digest());
    assert_ne!(said["policy"]["digest"], record["policy"]["digest"]);
    assert_eq!((&all[1]["method"], &all[1]["batch_index"]), (&json!("BatchCheck"), &json!(1)));

    let unclear = policy();
    write_unknown_hierarchy(unclear.path());
    let (said, all) = beside(unclear.path()).await;
    assert_eq!((said, all.len()), ([2, 0, 2, 0], 2), "{all:#?}");
    assert_eq!(all[1]["candidate"]["reason_code"], "UNKNOWN_HIERARCHY");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_candidate_or_path_fails_the_start() {
    let dir = policy();
    let bad = tempfile::tempdir().unwrap();
    std::fs::write(bad.path().join("a.json"), "[{").unwrap();
    let start = |arguments: &[&str]| {
        let output = postern()
            .args(["serve", "--tcp", "127.0.0.1:0", "--admin", "off", "--policy"])
            .arg(dir.path())
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = start(&["--records", "stdout", "--candidate", bad.path().to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(told.contains("the candidate is refused"), "{told}");
    let (code, told) = start(&["--records", "file:/nonexistent/r.jsonl"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("records cannot be written to `/nonexistent/r.jsonl`"), "{told}");
    let (code, told) = start(&["--records", "stdout", "--records-mask", "subject.principalid=hash,x=drop"]);
    assert_eq!(code, Some(2));
    assert!(
        told.contains("did you mean `subject.principal_id`") && told.contains("`x` is no field"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_that_decided_is_let_go_with_its_records() {
    let dir = tempfile::tempdir().unwrap();
    let (path, sink) = file(&dir);
    let policy = policy();
    let mut point = Point::start(Some(settings(&["--records", &sink])), None).await;
    // Before there is one.
    point.check(request(ALICE, READ, &vault("app"))).await.unwrap_err();
    let items = vec![item(ALICE, READ, "/"), item(BOB, READ, "/")];
    let batch = v1::BatchCheckRequest { items, ..Default::default() };
    point.client.clone().batch_check(batch).await.unwrap_err();
    point.writer.activate(policy_of(policy.path()), 1, Timestamp::UNIX_EPOCH);
    point.check(request(ALICE, READ, &vault("app"))).await.unwrap();
    // The policy of before is let go as soon as its records are written.
    let weak = {
        let (snapshot, previous) = point.writer.activate(policy_of(policy.path()), 7, Timestamp::UNIX_EPOCH);
        drop(snapshot);
        Arc::downgrade(&previous.unwrap())
    };
    eventually("the old policy is let go", async || weak.strong_count() == 0).await;
    point.check(request(ALICE, READ, &vault("app"))).await.unwrap();
    point.end().await;
    let all = records(&path);
    let serials: Vec<Value> = all.iter().map(|record| record["policy"]["serial"].clone()).collect();
    assert_eq!(serials, [json!(null), json!(null), json!(1), json!(7)]);
    assert!(all[..2].iter().all(|record| record["reason_code"] == "NO_POLICY"));
    // A batch that nothing could be decided of is one refusal, and one record.
    assert_eq!((&all[1]["batch_items"], all[1].get("request")), (&json!(2), None));
}
