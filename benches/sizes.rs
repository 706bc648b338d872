//! How much room a sidecar takes and how soon it answers. Two parts:
//!
//! * `idle`: a sidecar with the example tenant, what it holds when it is SERVING, after some thousand checks, with a
//!   hundred connections, and with a full decision cache;
//! * `growth`: for each size of the made-up tenant the time to compile it, the bytes of its bundle, the time from exec to
//!   SERVING and to the first answered Check from the state directory, what the sidecar holds then, and how many checks a
//!   second it answers. Up to a size (`--directories-to`) the same policy is also started from a directory of JSON.
//!
//! A start is the median of `--starts`, those to SERVING and those to the first answer in turns; the state directory is
//! in the page cache, as after a restart of the container. Compiling is the median of three. The load comes from
//! `postern load`, in three runs of which the one with the median rate counts, on the same cores.
//!
//! ```text
//! cargo bench --bench sizes                                          both, 1,000 to 100,000
//! cargo bench --bench sizes -- growth --sizes 1000,1000000 --starts 9 --seconds 2 --json
//! cargo bench --bench sizes -- idle
//! POSTERN_BENCH_BINARY=target/…/postern cargo bench --bench sizes    another program than that of this build
//! ```

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a benchmark"
)]

#[path = "support/messages.rs"]
mod messages;
#[allow(dead_code, reason = "shared with other benchmarks")]
#[path = "support/process.rs"]
mod process;
#[allow(dead_code, reason = "shared with other benchmarks")]
#[path = "support/published.rs"]
mod published;
#[allow(dead_code, reason = "shared with other benchmarks")]
#[path = "support/tenant.rs"]
mod tenant;

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use postern::bundle;
use postern::policy::{CompileOptions, Policy};
use postern::proto::v1;
use postern::proto::v1::authorization_service_client::AuthorizationServiceClient;
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};

use messages::wire;
use process::{Memory, cpu, free_address, peak, postern};
use published::{Sidecar, World};
use tenant::{Question, Tenant};

/// What the binary uses.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const COMPILES: usize = 3;
const LOADS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let value = |name: &str| arguments.iter().skip_while(|argument| *argument != name).nth(1);
    let number =
        |name: &str, default: usize| value(name).map_or(default, |text| text.parse().expect("a number"));
    let chosen = has("idle") || has("growth");
    // `cargo test --all-targets` only wants to know whether it runs.
    let really = has("--bench");
    let sizes: Vec<usize> = match value("--sizes") {
        Some(list) => list.split(',').map(|size| size.parse().expect("a number")).collect(),
        None if !really => vec![1_000],
        None => vec![1_000, 10_000, 100_000],
    };
    let settings = Settings {
        starts: number("--starts", if really { 9 } else { 1 }),
        seconds: number("--seconds", if really { 2 } else { 1 }),
        directories_to: number("--directories-to", if really { 100_000 } else { 0 }),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (idle, rows) = runtime.block_on(async {
        let idle = if !chosen || has("idle") { Some(idle(&settings).await) } else { None };
        let mut rows = Vec::new();
        for size in sizes {
            if !chosen || has("growth") {
                rows.push(grown(size, &settings).await);
            }
        }
        (idle, rows)
    });
    let mut told = json!({ "starts": settings.starts, "compiles": COMPILES, "loads": LOADS });
    if let Some(idle) = idle {
        told["idle"] = idle;
    }
    if !rows.is_empty() {
        told["sizes"] = rows.into();
    }
    if has("--json") {
        println!("{told}");
    } else {
        show(&told);
    }
}

struct Settings {
    starts: usize,
    seconds: usize,
    directories_to: usize,
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn worst(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

// === the example tenant ===

/// A sidecar over a directory, with the admin endpoint, as the chart runs it.
struct Served {
    child: Child,
    uds: PathBuf,
    begun: Instant,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    fn start(dir: &Path, policy: &Path, arguments: &[&str]) -> Self {
        let uds = dir.join("served.sock");
        let _gone = std::fs::remove_file(&uds);
        let begun = Instant::now();
        let child = postern()
            .args(["serve", "--log-level", "warn", "--admin", &free_address(), "--policy"])
            .arg(policy)
            .arg("--uds")
            .arg(&uds)
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, uds, begun }
    }

    async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        Endpoint::try_from(format!("unix://{}", self.uds.display()))?.connect().await
    }

    async fn client(&self) -> AuthorizationServiceClient<Channel> {
        AuthorizationServiceClient::new(self.channel().await.unwrap())
    }

    async fn serving(&self) -> Duration {
        use tonic_health::pb::HealthCheckRequest;
        use tonic_health::pb::health_client::HealthClient;
        loop {
            if let Ok(channel) = self.channel().await {
                let request = HealthCheckRequest { service: String::new() };
                let answer = HealthClient::new(channel).check(request).await;
                if answer.is_ok_and(|answer| answer.get_ref().status == 1) {
                    return self.begun.elapsed();
                }
            }
            assert!(self.begun.elapsed() < Duration::from_secs(300), "it does not serve");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn memory(&self) -> Memory {
        Memory::of(self.child.id())
    }
}

/// How many checks a sidecar was asked before it is looked at again.
const CHECKS: usize = 5_000;
const CONNECTIONS: usize = 100;
/// The cache that is filled: far less than the default, so that it is full soon.
const CACHE_MIB: f64 = 8.0;

async fn idle(settings: &Settings) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let contoso = root.join("examples/contoso");
    let requests = cases(&root.join("tests/cases/contoso.jsonl"));
    let dir = tempfile::tempdir().unwrap();
    let (mut fresh, mut asked, mut connected, mut serving) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..settings.starts {
        let sidecar = Served::start(dir.path(), &contoso, &[]);
        serving.push(sidecar.serving().await.as_secs_f64() * 1e3);
        // What the start itself needed is given back in the next moment or never.
        tokio::time::sleep(Duration::from_secs(1)).await;
        fresh.push(sidecar.memory());
        let mut clients = vec![sidecar.client().await];
        for request in requests.iter().cycle().take(CHECKS) {
            ask(&mut clients[0], request).await;
        }
        asked.push(sidecar.memory());
        for _ in 1..CONNECTIONS {
            clients.push(sidecar.client().await);
        }
        for (number, client) in clients.iter_mut().enumerate() {
            for request in requests.iter().cycle().skip(number).take(20) {
                ask(client, request).await;
            }
        }
        connected.push(sidecar.memory());
    }
    let one = |all: &[Memory]| {
        let of = |pick: fn(&Memory) -> f64| median(all.iter().map(pick).collect());
        Memory {
            resident: of(|memory| memory.resident),
            proportional: of(|memory| memory.proportional),
            private: of(|memory| memory.private),
            anonymous: of(|memory| memory.anonymous),
        }
    };
    let (fresh, asked, connected) = (one(&fresh), one(&asked), one(&connected));
    let per_connection = (connected.anonymous - asked.anonymous) * 1024.0 / (CONNECTIONS - 1) as f64;
    json!({
        "servingMillis": median(serving),
        "fresh": fresh.json(),
        "checks": CHECKS,
        "asked": asked.json(),
        "connections": CONNECTIONS,
        "connected": connected.json(),
        "perConnectionKiB": per_connection,
        "cache": cached(dir.path(), &contoso, &requests).await,
    })
}

/// With a decision cache that is asked always and full, and with the actions of callers that invent them.
async fn cached(dir: &Path, contoso: &Path, requests: &[v1::CheckRequest]) -> Value {
    let bound = format!("{CACHE_MIB}MiB");
    let sidecar = Served::start(dir, contoso, &["--cache", "always", "--cache-max-bytes", &bound]);
    sidecar.serving().await;
    let mut client = sidecar.client().await;
    for request in requests.iter().cycle().take(CHECKS) {
        ask(&mut client, request).await;
    }
    let before = sidecar.memory();
    let mut number = 0_u64;
    let mut ask_many = async |invent: bool, all: usize| {
        for _ in 0..all.div_ceil(500) {
            let items = (0..500).map(|_| {
                number += 1;
                let v1::CheckRequest { action, resource, .. } =
                    requests[number as usize % requests.len()].clone();
                let subject = v1::Subject {
                    principal_id: format!("00000000-0000-4000-a0ff-{number:012x}"),
                    ..Default::default()
                };
                let action = action.map(|action| match invent {
                    true => v1::Action { name: format!("Microsoft.Invented/things{number}/read"), ..action },
                    false => action,
                });
                v1::BatchCheckItem { subject: Some(subject), action, resource, ..Default::default() }
            });
            let request = v1::BatchCheckRequest { items: items.collect(), ..Default::default() };
            client.batch_check(request).await.expect("answers");
        }
    };
    // An entry takes some hundred bytes.
    ask_many(false, 100_000).await;
    let full = sidecar.memory();
    // More than the memo of actions keeps.
    ask_many(true, 60_000).await;
    let invented = sidecar.memory();
    json!({
        "maxMiB": CACHE_MIB,
        "fullMiB": full.anonymous - before.anonymous,
        "inventedActionsMiB": invented.anonymous - full.anonymous,
    })
}

/// The questions of the conformance cases that need nothing but subject, action and scope.
fn cases(path: &Path) -> Vec<v1::CheckRequest> {
    let text = std::fs::read_to_string(path).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let plain =
        all.filter(|case| case["attributes"].is_null() && case["now"].is_null() && case["agent"].is_null());
    let question = |case: Value| Question {
        principal: case["principal"].as_str().unwrap().to_owned(),
        groups: serde_json::from_value(case["groups"].clone()).unwrap(),
        action: case["action"].as_str().unwrap().to_owned(),
        data_action: case["data_action"] == true,
        scope: case["scope"].as_str().unwrap().to_owned(),
    };
    plain.map(question).map(|question| wire(&question)).collect()
}

async fn ask(client: &mut AuthorizationServiceClient<Channel>, request: &v1::CheckRequest) {
    let answer = client.check(request.clone()).await;
    let code = answer.map_or_else(|status| status.code(), |_| tonic::Code::Ok);
    // The latter is Undecided.
    assert!(matches!(code, tonic::Code::Ok | tonic::Code::FailedPrecondition), "{code:?}");
}

// === sizes ===

async fn grown(size: usize, settings: &Settings) -> Value {
    let tenant = Tenant::new(size);
    let questions = tenant.questions(10);
    let dir = tempfile::tempdir().unwrap();
    let mut compile_times = Vec::new();
    let mut policy = None;
    for _ in 0..COMPILES {
        drop(policy.take());
        let clock = Instant::now();
        policy = Some(Policy::compile(&tenant.documents, CompileOptions::default()).unwrap());
        compile_times.push(clock.elapsed().as_secs_f64() * 1e3);
    }
    let policy = policy.unwrap();
    let clock = Instant::now();
    let bytes = bundle::build(&policy, &bundle::About { name: "bench", ..Default::default() }).unwrap();
    let laid_out = clock.elapsed().as_secs_f64() * 1e3;
    drop(policy);
    let directory =
        if size <= settings.directories_to { Some(from_directory(dir.path(), &tenant).await) } else { None };
    drop(tenant);
    let length = bytes.len();
    let mut world = World::new(dir.path()).await;
    world.publish(bytes.into()).await;
    let first = wire(&questions[0]);
    // The first one takes the publication into the state directory.
    Sidecar::start(&world, 0, "10s").serving().await;
    let (mut serving, mut answered) = (Vec::new(), Vec::new());
    for _ in 0..settings.starts {
        serving.push(Sidecar::start(&world, 0, "10s").serving().await.as_secs_f64() * 1e3);
        answered.push(Sidecar::start(&world, 0, "10s").answered(&first).await.as_secs_f64() * 1e3);
    }
    let sidecar = Sidecar::start(&world, 0, "10s");
    sidecar.serving().await;
    // The first poll is behind it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let fresh = Memory::of(sidecar.id());
    let load = loaded(dir.path(), &sidecar, &questions, settings.seconds);
    let asked = Memory::of(sidecar.id());
    json!({
        "assignments": size,
        "compileMillis": median(compile_times),
        "layOutMillis": laid_out,
        "bundleBytes": length,
        "bundleBytesPerAssignment": length as f64 / size as f64,
        "servingMillis": median(serving.clone()),
        "servingWorstMillis": worst(&serving),
        "answeredMillis": median(answered.clone()),
        "answeredWorstMillis": worst(&answered),
        "fresh": fresh.json(),
        "asked": asked.json(),
        "load": load,
        "directory": directory,
    })
}

async fn from_directory(dir: &Path, tenant: &Tenant) -> Value {
    let policy = dir.join("policy");
    let mut bytes = 0;
    for (name, text) in tenant.files() {
        let path = policy.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        bytes += text.len();
        std::fs::write(path, text).unwrap();
    }
    let sidecar = Served::start(dir, &policy, &[]);
    let serving = sidecar.serving().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    json!({
        "jsonBytes": bytes,
        "servingMillis": serving.as_secs_f64() * 1e3,
        "peakMiB": peak(sidecar.child.id()),
        "settled": sidecar.memory().json(),
    })
}

/// Checks as fast as they are answered, on four connections with eight in flight.
fn loaded(dir: &Path, sidecar: &Sidecar, questions: &[Question], seconds: usize) -> Value {
    let file = dir.join("questions.jsonl");
    let lines = questions.iter().map(|question| {
        let Question { principal, groups, action, data_action, scope } = question;
        let line = json!({ "principal": principal, "groups": groups, "action": action, "data_action": data_action, "scope": scope });
        format!("{line}\n")
    });
    std::fs::write(&file, lines.collect::<String>()).unwrap();
    let mut runs: Vec<Value> = (0..LOADS)
        .map(|_| {
            let before = cpu(sidecar.id());
            let run = postern()
                .args(["load", "--json", "--connections", "4", "--in-flight", "8", "--threads", "1"])
                .args(["--warm-up", "0s", "--duration", &format!("{seconds}s"), "--connect"])
                .arg(format!("unix://{}", sidecar.uds.display()))
                .arg("--questions")
                .arg(&file)
                .stderr(Stdio::inherit())
                .output()
                .unwrap();
            assert!(run.status.success(), "{}", run.status);
            let told: Value = serde_json::from_slice(&run.stdout).unwrap();
            json!({
                "checksPerSecond": told["decidedPerSecond"],
                "p50Micros": told["latency"]["p50Micros"],
                "p99Micros": told["latency"]["p99Micros"],
                "serverCpuMicros": (cpu(sidecar.id()) - before) * 1e6 / told["decided"].as_f64().unwrap(),
            })
        })
        .collect();
    runs.sort_by(|a, b| {
        a["checksPerSecond"].as_f64().unwrap().total_cmp(&b["checksPerSecond"].as_f64().unwrap())
    });
    runs.swap_remove(LOADS / 2)
}

// === for people ===

fn show(told: &Value) {
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    if let Some(idle) = told.get("idle") {
        println!("\nA sidecar with the example tenant, medians of {} starts, MiB", told["starts"]);
        println!(
            "{:<28} {:>10} {:>13} {:>10} {:>10}",
            "", "resident", "proportional", "private", "anonymous"
        );
        let names =
            [("SERVING", "fresh"), ("after 5,000 checks", "asked"), ("with 100 connections", "connected")];
        for (name, key) in names {
            let of = |kind: &str| number(&idle[key][kind]);
            println!(
                "{name:<28} {:>10.1} {:>13.1} {:>10.1} {:>10.1}",
                of("residentMiB"),
                of("proportionalMiB"),
                of("privateMiB"),
                of("anonymousMiB")
            );
        }
        println!("a connection takes {:.0} KiB", number(&idle["perConnectionKiB"]));
        println!(
            "a full cache of {} MiB takes {:.1} MiB, 60,000 invented actions {:.1} MiB",
            idle["cache"]["maxMiB"],
            number(&idle["cache"]["fullMiB"]),
            number(&idle["cache"]["inventedActionsMiB"])
        );
    }
    let none = Vec::new();
    let rows = told.get("sizes").and_then(Value::as_array).unwrap_or(&none);
    if rows.is_empty() {
        return;
    }
    println!();
    let line = |name: &str, digits: usize, pointer: &str| {
        let cell = |row: &Value| match row.pointer(pointer).and_then(Value::as_f64) {
            Some(value) => format!("{value:>12.digits$}"),
            None => format!("{:>12}", "-"),
        };
        println!("{name:<44}{}", rows.iter().map(cell).collect::<String>());
    };
    line("role assignments", 0, "/assignments");
    line("compile, ms", 1, "/compileMillis");
    line("lay out as a bundle, ms", 1, "/layOutMillis");
    line("bundle, bytes", 0, "/bundleBytes");
    line("bundle, bytes an assignment", 1, "/bundleBytesPerAssignment");
    line("exec to SERVING, ms", 1, "/servingMillis");
    line("exec to SERVING, worst, ms", 1, "/servingWorstMillis");
    line("exec to the first answered Check, ms", 1, "/answeredMillis");
    line("exec to the first answered Check, worst, ms", 1, "/answeredWorstMillis");
    line("resident, MiB", 1, "/fresh/residentMiB");
    line("anonymous, MiB", 1, "/fresh/anonymousMiB");
    line("resident after the load, MiB", 1, "/asked/residentMiB");
    line("anonymous after the load, MiB", 1, "/asked/anonymousMiB");
    line("checks a second", 0, "/load/checksPerSecond");
    line("p50, µs", 0, "/load/p50Micros");
    line("p99, µs", 0, "/load/p99Micros");
    line("server CPU for a check, µs", 1, "/load/serverCpuMicros");
    line("JSON of the directory, bytes", 0, "/directory/jsonBytes");
    line("exec to SERVING from the directory, ms", 0, "/directory/servingMillis");
    line("most resident while reading it, MiB", 1, "/directory/peakMiB");
    line("resident from the directory, MiB", 1, "/directory/settled/residentMiB");
}
