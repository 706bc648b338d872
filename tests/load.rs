//! `postern load` as a program sees it, against real sidecars in processes of their own and, where a stall is wanted at a
//! given moment, against a responder of the test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "tests"
)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use common::*;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use postern::load::Constant;
use postern::proto::v1;
use postern::proto::v1::authorization_service_server::{AuthorizationService, AuthorizationServiceServer};
use serde_json::{Value, json};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

fn load(arguments: &[&str]) -> Output {
    let mut command = postern();
    command.arg("load").args(arguments).stdin(Stdio::null());
    command.output().unwrap()
}

/// With `--json`, and what came of it.
fn result(arguments: &[&str]) -> (i32, Value) {
    let output = load(&[arguments, &["--json"]].concat());
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (output.status.code().unwrap(), json)
}

fn at(process: &Process) -> String {
    format!("http://{}", process.tcp)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn number(json: &Value, path: &str) -> u64 {
    json.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} of {json}"))
}

/// Alice lost her role here, so whatever she was allowed is answered otherwise.
async fn sidecars() -> (tempfile::TempDir, Process, tempfile::TempDir, Process) {
    let (right, other) = (policy(), policy());
    revoke_alice(other.path());
    let (process, others) = (Process::start(right.path(), &[], &[]), Process::start(other.path(), &[], &[]));
    process.ready().await;
    others.ready().await;
    (right, process, other, others)
}

#[tokio::test]
async fn every_answer_is_compared_with_the_policys_own() {
    let (right, process, _other, others) = sidecars().await;
    let arguments =
        ["--policy", text(right.path()), "--expect", "policy", "--count", "600", "--warm-up", "50ms"];
    let (exit, json) = result(&[&arguments[..], &["--connect", &at(&process)]].concat());
    assert_eq!(exit, 0, "{json}");
    assert_eq!((number(&json, "/calls"), number(&json, "/answeredCalls")), (600, 600));
    assert_eq!(number(&json, "/decided"), 600);
    assert_eq!((number(&json, "/expected/right"), number(&json, "/expected/wrong")), (600, 0));
    assert_eq!(json["load"]["mode"], "closed");
    assert!(json["load"]["policy"].as_str().unwrap().starts_with("sha256:"), "{json}");
    assert!(json["errors"].as_object().unwrap().is_empty());
    // All three kinds are among what is asked of this policy.
    for kind in ["Allowed", "NotAllowed", "Denied"] {
        assert!(number(&json, &format!("/decisions/{kind}")) > 0, "{kind}: {json}");
    }
    let latency = |name: &str| json["latency"][name].as_f64().unwrap();
    let order = ["p50Micros", "p90Micros", "p99Micros", "p999Micros", "maxMicros"].map(latency);
    assert!(order[0] > 0.0 && order.is_sorted(), "{order:?}");
    assert!(json["callsPerSecond"].as_f64().unwrap() > 0.0);
    assert!(json["client"]["cpuMicrosPerCall"].as_f64().unwrap() > 0.0);
    let pieces: u64 = json["timeline"].as_array().unwrap().iter().map(|piece| number(piece, "/calls")).sum();
    assert_eq!(pieces, 600);

    let (exit, json) = result(&[&arguments[..], &["--connect", &at(&others)]].concat());
    assert_eq!(exit, 3, "{json}");
    let (right, wrong) = (number(&json, "/expected/right"), number(&json, "/expected/wrong"));
    assert!(wrong > 0 && right > 0 && right + wrong == 600, "{right} {wrong}");
    let examples = json["expected"]["examples"].as_array().unwrap();
    let example = examples[0].as_str().unwrap();
    assert!(example.contains(ALICE) && example.contains("wanted Allowed"), "{example}");
    // The same for people.
    let output = load(&[&arguments[..], &["--connect", &at(&others)]].concat());
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stdout).unwrap().contains(" WRONG"));
    assert!(output.stderr.is_empty(), "no bar where there is no terminal");
}

#[tokio::test]
async fn an_open_loop_makes_every_call_that_is_due() {
    let (right, process, _other, _others) = sidecars().await;
    let dir = tempfile::tempdir().unwrap();
    let socketless = at(&process);
    let log = dir.path().join("load.hlog");
    let arguments = [
        "--connect",
        &socketless,
        "--policy",
        text(right.path()),
        "--rate",
        "400",
        "--count",
        "200",
        "--warm-up",
        "20ms",
        "--threads",
        "2",
        "--connections",
        "3",
        "--allowed",
        "0.9",
        "--hdr-log",
        text(&log),
    ];
    let (exit, json) = result(&arguments);
    assert_eq!(exit, 0, "{json}");
    assert_eq!(number(&json, "/calls"), 200);
    assert_eq!((json["load"]["mode"].as_str(), json["load"]["rate"].as_f64()), (Some("open"), Some(400.0)));
    assert_eq!(number(&json, "/schedule/notSent"), 0);
    // The last of 200 calls is due after 497.5 ms, and none is made before it is due.
    assert!(json["seconds"].as_f64().unwrap() >= 0.4975, "{json}");
    // Chance has a seed, so this does not vary.
    assert!((165..=195).contains(&number(&json, "/decisions/Allowed")), "{json}");
    assert_eq!(histograms(&log).len(), 200);

    // A time ends it as well: what is due in half a second.
    let arguments = [
        "--connect",
        &socketless,
        "--policy",
        text(right.path()),
        "--rate",
        "100",
        "--duration",
        "500ms",
        "--warm-up",
        "0s",
    ];
    let (exit, json) = result(&arguments);
    assert_eq!((exit, number(&json, "/calls")), (0, 50), "{json}");
}

/// Everything that a histogram log holds.
fn histograms(log: &Path) -> Histogram<u64> {
    let bytes = std::fs::read(log).unwrap();
    let mut all = Histogram::<u64>::new(3).unwrap();
    for entry in IntervalLogIterator::new(&bytes) {
        if let LogEntry::Interval(interval) = entry.unwrap() {
            let encoded = base64::Engine::decode(
                &base64::engine::general_purpose::STANDARD,
                interval.encoded_histogram(),
            );
            let histogram: Histogram<u64> =
                Deserializer::new().deserialize(&mut encoded.unwrap().as_slice()).unwrap();
            all.add(&histogram).unwrap();
        }
    }
    all
}

#[tokio::test]
async fn batches_are_compared_item_by_item() {
    let (right, process, _other, others) = sidecars().await;
    let arguments = [
        "--policy",
        text(right.path()),
        "--expect",
        "policy",
        "--rpc",
        "batch-check",
        "--batch",
        "7",
        "--count",
        "60",
        "--zipf",
        "1.1",
        "--warm-up",
        "0s",
    ];
    let (exit, json) = result(&[&arguments[..], &["--connect", &at(&process)]].concat());
    assert_eq!(exit, 0, "{json}");
    assert_eq!((number(&json, "/calls"), number(&json, "/decided")), (60, 420));
    assert_eq!(number(&json, "/expected/right"), 420);
    let (exit, json) = result(&[&arguments[..], &["--connect", &at(&others)]].concat());
    assert_eq!(exit, 3, "{json}");
    // A batch beyond the sidecar's limit is refused, each call of it.
    let few = Process::start(right.path(), &["--max-batch-items", "3"], &[]);
    few.ready().await;
    let (exit, json) = result(&[&arguments[..], &["--connect", &at(&few)]].concat());
    assert_eq!((exit, number(&json, "/errors/INVALID_ARGUMENT")), (1, 60), "{json}");
}

#[tokio::test]
async fn streams_are_compared_question_by_question() {
    let (right, process, _other, others) = sidecars().await;
    let mut arguments = vec!["--policy", text(right.path()), "--expect", "policy", "--rpc", "check-stream"];
    arguments.extend(["--warm-up", "0s", "--count", "300"]);
    let (exit, json) = result(&[&arguments[..], &["--connect", &at(&process)]].concat());
    assert_eq!((exit, number(&json, "/calls")), (0, 300), "{json}");
    assert_eq!((number(&json, "/decided"), number(&json, "/expected/right")), (300, 300));
    let more = ["--rate", "300", "--batch", "5", "--connect", &at(&process)];
    let (exit, json) = result(&[&arguments[..], &more].concat());
    assert_eq!((exit, number(&json, "/calls")), (0, 300), "{json}");
    assert!(number(&json, "/decided") > 300, "several questions in a message: {json}");
    let (exit, json) = result(&[&arguments[..], &["--connect", &at(&others)]].concat());
    assert_eq!(exit, 3, "{json}");
    // A message beyond the limit ends its stream; the next call opens another.
    let few = Process::start(right.path(), &["--max-batch-items", "1"], &[]);
    few.ready().await;
    let (exit, json) = result(&[&arguments[..], &["--batch", "50", "--connect", &at(&few)]].concat());
    assert_eq!((exit, number(&json, "/calls")), (1, 300), "{json}");
    assert!(number(&json, "/errors/INVALID_ARGUMENT") > 0, "{json}");
}

#[tokio::test]
async fn recorded_decisions_are_asked_again() {
    let (right, _process, _other, others) = sidecars().await;
    let dir = tempfile::tempdir().unwrap();
    let records = dir.path().join("decisions.jsonl");
    let sink = format!("file:{}", records.display());
    let mut recording = Process::start(right.path(), &["--records", &sink], &[]);
    recording.ready().await;
    let (exit, _) = result(&[
        "--connect",
        &at(&recording),
        "--policy",
        text(right.path()),
        "--count",
        "40",
        "--warm-up",
        "0s",
    ]);
    assert_eq!(exit, 0);
    // What waits is written at the end.
    recording.signal("TERM");
    assert!(recording.exit().await.success());
    assert_eq!(std::fs::read_to_string(&records).unwrap().lines().count(), 40);

    let again = Process::start(right.path(), &[], &[]);
    again.ready().await;
    let arguments =
        ["--questions", text(&records), "--expect", "recorded", "--count", "40", "--warm-up", "0s"];
    let (exit, json) = result(&[&arguments[..], &["--connect", &at(&again)]].concat());
    assert_eq!((exit, number(&json, "/expected/right")), (0, 40), "{json}");
    assert_eq!(json["load"]["pick"], "in order");
    let (exit, json) = result(&[&arguments[..], &["--connect", &at(&others)]].concat());
    assert_eq!(exit, 3, "{json}");
}

#[tokio::test]
async fn questions_of_the_example_tenant_in_the_flat_form() {
    let contoso = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/contoso");
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/contoso.jsonl");
    let process = Process::start(&contoso, &[], &[]);
    process.ready().await;
    // Their decisions are those of a day that is past; what the library answers now is not.
    let arguments = [
        "--connect",
        &at(&process),
        "--questions",
        text(&cases),
        "--policy",
        text(&contoso),
        "--expect",
        "policy",
    ];
    let (exit, json) = result(&[&arguments[..], &["--count", "300", "--warm-up", "0s"]].concat());
    assert_eq!(exit, 0, "{json}");
    assert!(number(&json, "/expected/right") > 200, "{json}");
}

#[tokio::test]
async fn a_page_and_a_comparison() {
    let (right, process, _other, _others) = sidecars().await;
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("load.html");
    let (exit, json) = result(&[
        "--connect",
        &at(&process),
        "--policy",
        text(right.path()),
        "--duration",
        "300ms",
        "--warm-up",
        "0s",
        "--html",
        text(&page),
    ]);
    assert_eq!(exit, 0, "{json}");
    let html = std::fs::read_to_string(&page).unwrap();
    assert_eq!(html.matches("<svg").count(), 2);
    assert_eq!(html.matches("<polyline").count(), 3);
    for line in html.split("points=\"").skip(1) {
        let points = line.split('"').next().unwrap();
        assert!(points.split(' ').count() > 1, "{points}");
        for coordinate in points.split([' ', ',']) {
            assert!(coordinate.parse::<f64>().unwrap().is_finite(), "{points}");
        }
    }
    // Nothing is fetched and nothing runs.
    for outside in ["<script", "src=", "href=", "url(", "@import", "<link", "<img"] {
        assert!(!html.contains(outside), "{outside}");
    }

    let (a, b) = (dir.path().join("a.json"), dir.path().join("b.json"));
    std::fs::write(&a, json.to_string()).unwrap();
    let output = load(&["--compare", text(&a), text(&a)]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("B is as A"));
    let mut worse = json.clone();
    worse["latency"]["p99Micros"] = json!(json["latency"]["p99Micros"].as_f64().unwrap() * 2.0);
    worse["load"]["connections"] = json!(5);
    std::fs::write(&b, worse.to_string()).unwrap();
    let output = load(&["--compare", text(&a), text(&b)]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("B is worse than A: p99 +100.0 %"), "{said}");
    assert!(said.contains("not the same load: connections: 4 and 5"), "{said}");
    let (exit, compared) = result(&["--compare", text(&b), text(&a)]);
    assert_eq!((exit, compared["verdict"].as_str()), (0, Some("better")), "{compared}");
    // What is within the tolerance is the same.
    let (exit, compared) = result(&["--compare", text(&a), text(&b), "--tolerance", "150"]);
    assert_eq!((exit, compared["verdict"].as_str()), (0, Some("same")), "{compared}");
    std::fs::write(&b, "{}").unwrap();
    assert_eq!(load(&["--compare", text(&a), text(&b)]).status.code(), Some(1));
}

fn begin(arguments: &[&str]) -> Child {
    let mut command = postern();
    command.arg("load").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[tokio::test]
async fn a_sidecar_that_goes_away_is_counted_and_a_signal_ends_the_load() {
    let right = policy();
    for (open, rpc) in [(false, "check"), (true, "check"), (false, "check-stream")] {
        let mut process = Process::start(right.path(), &[], &[]);
        process.ready().await;
        let target = at(&process);
        let mut arguments = vec!["--connect", &target, "--policy", text(right.path()), "--json"];
        // Longer than any test, so that only the signal ends it.
        arguments.extend(["--duration", "10m", "--warm-up", "0s", "--rpc", rpc]);
        if open {
            arguments.extend(["--rate", "200"]);
        }
        let child = begin(&arguments);
        let admin = process.admin;
        eventually("calls are answered", async || {
            let (_, text) = http(admin, "/metrics").await;
            text.lines().any(|line| {
                line.starts_with("postern_decisions_total")
                    && !line.ends_with(" 0")
                    && !line.ends_with(" 0.0")
            })
        })
        .await;
        process.signal("TERM");
        process.exit().await;
        let failed = || {
            std::process::Command::new("kill")
                .args(["-INT", &child.id().to_string()])
                .status()
                .unwrap()
                .success()
        };
        if open {
            // Calls fall due all the time; wait until some have while nobody was there.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        assert!(failed());
        let output = child.wait_with_output().unwrap();
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(output.status.code(), Some(1), "{json}");
        assert_eq!(json["interrupted"], true);
        assert!(number(&json, "/errors/UNAVAILABLE") > 0, "{json}");
        assert!(number(&json, "/answeredCalls") > 0, "{json}");
        let codes: u64 =
            json["errors"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(number(&json, "/calls"), number(&json, "/answeredCalls") + codes);
    }
}

#[test]
fn nobody_there_and_nothing_to_ask() {
    let right = policy();
    let nowhere = right.path().join("no.sock");
    let target = format!("unix://{}", nowhere.display());
    let policy = ["--policy", text(right.path())];
    let (exit, json) = result(&[&["--connect", &target], &policy[..]].concat());
    assert_eq!((exit, json["error"]["code"].as_str()), (1, Some("UNREACHABLE")), "{json}");
    let lines = right.path().join("lines");
    std::fs::write(&lines, "{}\n{\"principal\":\"p\",\"action\":\"*\",\"scope\":\"/\"}\n").unwrap();
    let (exit, json) = result(&["--connect", &target, "--questions", text(&lines)]);
    let message = json["error"]["message"].as_str().unwrap();
    assert_eq!((exit, json["error"]["code"].as_str()), (1, Some("UNREADABLE")), "{json}");
    assert!(message.contains("lines:1 ") && message.contains("lines:2 "), "all of them: {message}");
    let to = ["--connect", &target];
    for (wrong, told) in [
        (&["--rate", "0"][..], "--rate"),
        (&["--rate", "NaN"], "--rate"),
        (&["--allowed", "1.5"], "--allowed"),
        (&["--count", "0"], "--count"),
        (&["--duration", "1s", "--count", "1"], "--count"),
        (&["--in-flight", "257"], "--in-flight"),
        (&["--zipf", "-1"], "--zipf"),
        (&["--expect", "recorded"], "--questions"),
        (&["--connections", "0"], "--connections"),
    ] {
        let output = load(&[&to[..], &policy[..], wrong].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {said}");
        assert!(said.contains(told), "{wrong:?}: {said}");
    }
    assert_eq!(load(&to).status.code(), Some(2));
    assert_eq!(load(&["--connect", "nonsense", "--policy", text(right.path())]).status.code(), Some(2));
}

#[test]
fn the_constant_responder_says_what_this_machine_carries() {
    let dir = tempfile::tempdir().unwrap();
    let limit = dir.path().join("limit.json");
    let arguments = ["--self-test", "--count", "300", "--warm-up", "0s"];
    for more in [&[][..], &["--rpc", "batch-check", "--batch", "4"], &["--rpc", "check-stream"]] {
        let (exit, json) = result(&[&arguments[..], more].concat());
        assert_eq!((exit, number(&json, "/calls")), (0, 300), "{json}");
        assert_eq!(number(&json, "/decisions/Allowed"), number(&json, "/decided"));
        std::fs::write(&limit, json.to_string()).unwrap();
    }
    let (exit, json) = result(&[&arguments[..], &["--limit", text(&limit)]].concat());
    assert!(exit == 0 && json["ofLimit"].as_f64().unwrap() > 0.0, "{json}");
}

// === a stall ===

/// Answers at once, but for one stall: the call with a given number begins it, and all calls wait for its end.
struct Stalling {
    calls: AtomicU64,
    at: u64,
    stall: Duration,
    end: OnceLock<Instant>,
}

const STALL: Duration = Duration::from_millis(500);

impl Stalling {
    async fn start(at: u64, stall: Duration) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = Arc::new(Self { calls: AtomicU64::new(0), at, stall, end: OnceLock::new() });
        let server = tonic::transport::Server::builder()
            .add_service(AuthorizationServiceServer::from_arc(service))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        format!("http://{address}")
    }
}

#[tonic::async_trait]
impl AuthorizationService for Stalling {
    async fn check(&self, request: Request<v1::CheckRequest>) -> Result<Response<v1::CheckResponse>, Status> {
        if self.calls.fetch_add(1, Ordering::SeqCst) == self.at {
            let _first = self.end.set(Instant::now() + self.stall);
        }
        if let Some(end) = self.end.get() {
            tokio::time::sleep_until((*end).into()).await;
        }
        Constant::new().check(request).await
    }

    async fn batch_check(
        &self,
        request: Request<v1::BatchCheckRequest>,
    ) -> Result<Response<v1::BatchCheckResponse>, Status> {
        Constant::new().batch_check(request).await
    }

    async fn explain(&self, _: Request<v1::ExplainRequest>) -> Result<Response<v1::ExplainResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_permissions(
        &self,
        _: Request<v1::ListPermissionsRequest>,
    ) -> Result<Response<v1::ListPermissionsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_principals(
        &self,
        _: Request<v1::ListPrincipalsRequest>,
    ) -> Result<Response<v1::ListPrincipalsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_policy_status(
        &self,
        _: Request<v1::GetPolicyStatusRequest>,
    ) -> Result<Response<v1::GetPolicyStatusResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    type CheckStreamStream = <Constant as AuthorizationService>::CheckStreamStream;

    async fn check_stream(
        &self,
        request: Request<tonic::Streaming<v1::CheckStreamRequest>>,
    ) -> Result<Response<Self::CheckStreamStream>, Status> {
        Constant::new().check_stream(request).await
    }

    type WatchPolicyStream = tokio_stream::Empty<Result<v1::WatchPolicyResponse, Status>>;

    async fn watch_policy(
        &self,
        _: Request<v1::WatchPolicyRequest>,
    ) -> Result<Response<Self::WatchPolicyStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Where nobody answers, what was waited for in vain has a latency, and what could not be sent is told.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_never_answered_and_never_sent_is_counted() {
    let right = policy();
    // From the first call on, and for longer than anybody waits.
    let target = Stalling::start(0, Duration::from_secs(3600)).await;
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let path = log.clone();
    let policy = text(right.path()).to_owned();
    let (exit, json) = tokio::task::spawn_blocking(move || {
        let mut arguments = vec!["--connect", &target, "--policy", &policy, "--rate", "200", "--count", "50"];
        arguments.extend(["--connections", "1", "--in-flight", "1", "--warm-up", "0s", "--timeout", "300ms"]);
        arguments.extend(["--hdr-log", text(&log)]);
        result(&arguments)
    })
    .await
    .unwrap();
    let (calls, not_sent) = (number(&json, "/calls"), number(&json, "/schedule/notSent"));
    assert_eq!(exit, 1, "{json}");
    assert!(calls + not_sent == 50 && calls > 0 && not_sent > 0, "{json}");
    assert_eq!(number(&json, "/errors/DEADLINE_EXCEEDED"), calls);
    let patience = u64::try_from(Duration::from_millis(299).as_nanos()).unwrap();
    assert_eq!(histograms(&path).count_between(patience, u64::MAX), calls);
}

/// A first signal lets calls that are open come to their end, a second one does not.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_waits_for_nobody() {
    let right = policy();
    let target = Stalling::start(0, Duration::from_secs(3600)).await;
    let mut arguments = vec!["--connect", &target, "--policy", text(right.path()), "--warm-up", "0s"];
    arguments.extend(["--timeout", "1h", "--duration", "1h", "--json"]);
    let mut child = begin(&arguments);
    // It catches signals once it runs; until then the first would end it, with another code.
    eventually("it waits for an answer", async || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
        tasks
            .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok())
            .any(|name| name.starts_with("load-"))
    })
    .await;
    let id = child.id().to_string();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < DEADLINE, "it does not end");
        assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let output = child.wait_with_output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!((output.status.code(), json["interrupted"].as_bool()), (Some(1), Some(true)), "{json}");
}

/// Coordinated omission: at 200 calls a second, fifty fall due in the first half of a stall of half a second, and each of
/// them takes longer than the other half, although no more than four can be on their way at once. A closed loop with as
/// many callers only sees the stall once for each caller.
#[tokio::test(flavor = "multi_thread")]
async fn a_stall_is_seen_by_every_call_that_was_due_in_it() {
    let right = policy();
    let dir = tempfile::tempdir().unwrap();
    let slow = |log: PathBuf, more: &'static [&'static str]| {
        let policy = text(right.path()).to_owned();
        async move {
            let target = Stalling::start(100, STALL).await;
            tokio::task::spawn_blocking(move || {
                let arguments = [
                    "--connect",
                    &target,
                    "--policy",
                    &policy,
                    "--connections",
                    "1",
                    "--in-flight",
                    "4",
                    "--count",
                    "400",
                    "--warm-up",
                    "0s",
                    "--hdr-log",
                    text(&log),
                ];
                let (exit, json) = result(&[&arguments[..], more].concat());
                assert_eq!((exit, number(&json, "/calls")), (0, 400), "{json}");
                let half = u64::try_from((STALL / 2).as_nanos()).unwrap();
                (histograms(&log).count_between(half, u64::MAX), json)
            })
            .await
            .unwrap()
        }
    };
    let (open, json) = slow(dir.path().join("open"), &["--rate", "200"]).await;
    // Calls arrive in nearly the order they are due: the one that begins the stall may be a few behind its number.
    assert!(open >= 45, "{open}: {json}");
    // They could not leave in time either, and that is told.
    assert!(number(&json, "/schedule/late") >= 45, "{json}");
    assert!(json["latency"]["p90Micros"].as_f64().unwrap() > 100_000.0, "{json}");
    let (closed, json) = slow(dir.path().join("closed"), &[]).await;
    assert!((1..open).contains(&closed), "{closed} of {open}: {json}");
}
