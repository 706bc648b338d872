//! What telemetry costs: `postern serve` with everything off, with traces of 1 % and of all calls, with metrics scraped
//! each second, with records of all decisions, and with all of it, asked by the same client in turns. Each variant is a
//! process of its own. Spans and records go to a receiver in a process of its own; it tells records apart and does not
//! read them, since it shares the cores. Printed are requests per second, latency and the CPU time that the kernel
//! charged to the sidecar, each as a ratio to the variant with everything off in the same round.
//!
//! ```text
//! cargo bench --bench telemetry                100,000 assignments, 10 groups, 7 rounds of 2 s each
//! cargo bench --bench telemetry -- --size 1000 --rounds 3 --seconds 1 --json
//! cargo bench --bench telemetry -- --only file                 of all variants, those with this in their names
//! cargo bench --bench telemetry -- --only 'once more|metrics'  or with one of these
//! ```

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "a benchmark"
)]

#[path = "support/messages.rs"]
mod messages;
#[allow(dead_code, reason = "shared with other benchmarks")]
#[path = "support/process.rs"]
mod process;
#[allow(dead_code, reason = "shared with other benchmarks")]
#[path = "support/tenant.rs"]
mod tenant;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use postern::proto::v1;
use postern::proto::v1::authorization_service_client::AuthorizationServiceClient;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

use messages::wire;
use process::{cpu, free_address};

const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 8;

/// One way of running. A new one is a new line of [`VARIANTS`].
struct Variant {
    name: &'static str,
    arguments: &'static [&'static str],
    variables: &'static [(&'static str, &'static str)],
    /// Whether spans go to the receiver.
    traced: bool,
    /// One call in so many carries the flag that asks for a span.
    sampled: Option<usize>,
    /// Whether metrics are scraped each second.
    scraped: bool,
    /// Where records of all decisions go.
    records: Option<Sink>,
}

#[derive(Clone, Copy, Debug)]
enum Sink {
    File,
    Otlp,
}

const OFF: Variant = Variant {
    name: "off",
    arguments: &[],
    variables: &[],
    traced: false,
    sampled: None,
    scraped: false,
    records: None,
};

/// The first is what the others are compared with.
const VARIANTS: &[Variant] = &[
    OFF,
    Variant { name: "off, once more", ..OFF },
    Variant { name: "metrics scraped each second", scraped: true, ..OFF },
    Variant { name: "traces, none sampled", traced: true, ..OFF },
    Variant { name: "traces, 1 % sampled", traced: true, sampled: Some(100), ..OFF },
    Variant {
        name: "traces, 1 % sampled, rules",
        arguments: &["--trace-keep", "denied,undecided,agent-steps,slower-than=5ms"],
        traced: true,
        sampled: Some(100),
        ..OFF
    },
    Variant {
        name: "traces, all sampled",
        variables: &[("OTEL_BSP_MAX_QUEUE_SIZE", "65536")],
        traced: true,
        sampled: Some(1),
        ..OFF
    },
    Variant { name: "all records to a file", records: Some(Sink::File), ..OFF },
    Variant { name: "all records over OTLP", records: Some(Sink::Otlp), ..OFF },
    Variant {
        name: "traces 1 %, metrics, file",
        traced: true,
        sampled: Some(100),
        scraped: true,
        records: Some(Sink::File),
        ..OFF
    },
    Variant {
        name: "traces 1 %, metrics, OTLP",
        traced: true,
        sampled: Some(100),
        scraped: true,
        records: Some(Sink::Otlp),
        ..OFF
    },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Some(address) = value("--receiver") {
        let services = Server::builder().add_service(TraceServiceServer::new(Discarding)).add_service(Logs);
        runtime().block_on(services.serve(address.parse().unwrap())).unwrap();
        return;
    }
    let number =
        |name: &str, default: usize| value(name).map_or(default, |text| text.parse().expect("a number"));
    let settings = Settings {
        size: number("--size", 100_000),
        rounds: number("--rounds", 7),
        length: Duration::from_secs_f64(
            value("--seconds").map_or(2.0, |text| text.parse().expect("seconds")),
        ),
        only: value("--only"),
    };
    let rows = runtime().block_on(run(&settings));
    if arguments.iter().any(|argument| argument == "--json") {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        println!("{}", serde_json::json!({ "assignments": settings.size, "rows": rows }));
        return;
    }
    println!(
        "\nCheck over a Unix socket, {} assignments, 10 groups, {CONNECTIONS} connections × {IN_FLIGHT} in flight, \
         {} rounds of {:?}; ratios to `{}` of the same round, medians",
        settings.size, settings.rounds, settings.length, OFF.name
    );
    println!(
        "{:<30} {:>9} {:>7} {:>9} {:>7} {:>8} {:>7} {:>10} {:>8}",
        "variant", "req/s", "ratio", "p99 µs", "ratio", "CPU µs", "ratio", "told", "lost"
    );
    for row in &rows {
        println!(
            "{:<30} {:>9.0} {:>6.1}% {:>9.0} {:>6.1}% {:>8.1} {:>6.1}% {:>10} {:>8}",
            row.name,
            row.measured.rate,
            row.ratios.rate * 100.0,
            row.measured.p99,
            row.ratios.p99 * 100.0,
            row.measured.cpu,
            row.ratios.cpu * 100.0,
            row.exported,
            row.lost
        );
    }
}

struct Settings {
    size: usize,
    rounds: usize,
    length: Duration,
    /// Of the variants beside the first, those with one of these in their names, separated by `|`.
    only: Option<String>,
}

#[derive(Clone, Copy)]
struct Measured {
    rate: f64,
    p50: f64,
    p99: f64,
    /// Microseconds of the sidecar's user and system time for each request.
    cpu: f64,
}

/// Medians over the rounds.
struct Row {
    name: &'static str,
    measured: Measured,
    ratios: Measured,
    exported: u64,
    lost: u64,
}

impl Row {
    fn json(&self) -> serde_json::Value {
        let one = |measured: &Measured| {
            serde_json::json!({
                "requestsPerSecond": measured.rate,
                "p50Micros": measured.p50,
                "p99Micros": measured.p99,
                "serverCpuMicros": measured.cpu,
            })
        };
        serde_json::json!({
            "variant": self.name,
            "measured": one(&self.measured),
            "ratios": one(&self.ratios),
            "told": self.exported,
            "lost": self.lost,
        })
    }
}

async fn run(settings: &Settings) -> Vec<Row> {
    let dir = tempfile::tempdir().unwrap();
    let tenant = tenant::Tenant::new(settings.size);
    let policy = dir.path().join("policy");
    for (name, bytes) in tenant.files() {
        let path = policy.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let requests: Arc<[v1::CheckRequest]> = tenant.questions(10).iter().map(wire).collect();
    let receiver = Receiver::start();
    let sidecars: Vec<Sidecar> = VARIANTS
        .iter()
        .enumerate()
        .filter(|(number, variant)| {
            let named = |only: &String| only.split('|').any(|part| variant.name.contains(part));
            *number == 0 || settings.only.as_ref().is_none_or(named)
        })
        .map(|(number, variant)| Sidecar::start(dir.path(), &policy, number, variant, &receiver.address))
        .collect();
    for sidecar in &sidecars {
        sidecar.wait_until_it_answers(&requests[0]).await;
    }
    let mut rounds: Vec<Vec<Measured>> = Vec::new();
    // One round more than asked for: the first warms all up and does not count.
    for round in 0..=settings.rounds {
        let mut measured: Vec<Option<Measured>> = vec![None; sidecars.len()];
        // Nobody is always the first, or always behind the same one.
        for turn in 0..sidecars.len() {
            let number = (turn + round) % sidecars.len();
            measured[number] = Some(sidecars[number].measure(&requests, settings.length).await);
        }
        if round > 0 {
            rounds.push(measured.into_iter().map(Option::unwrap).collect());
        }
    }
    let row = |(number, sidecar): (usize, &Sidecar)| {
        let all: Vec<Measured> = rounds.iter().map(|round| round[number]).collect();
        let ratios: Vec<Measured> = rounds.iter().map(|round| round[number].to(&round[0])).collect();
        let (exported, lost) = sidecar.told();
        Row { name: sidecar.variant.name, measured: median(&all), ratios: median(&ratios), exported, lost }
    };
    sidecars.iter().enumerate().map(row).collect()
}

impl Measured {
    fn to(&self, base: &Self) -> Self {
        Self {
            rate: self.rate / base.rate,
            p50: self.p50 / base.p50,
            p99: self.p99 / base.p99,
            cpu: self.cpu / base.cpu,
        }
    }
}

fn median(all: &[Measured]) -> Measured {
    let of = |pick: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = all.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Measured {
        rate: of(|one| one.rate),
        p50: of(|one| one.p50),
        p99: of(|one| one.p99),
        cpu: of(|one| one.cpu),
    }
}

// === the processes ===

struct Receiver {
    child: Child,
    address: String,
}

impl Receiver {
    fn start() -> Self {
        let address = free_address();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--receiver", &address])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, address }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Decodes spans and forgets them.
struct Discarding;

#[tonic::async_trait]
impl TraceService for Discarding {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Takes log records, and looks at them only as far as to tell them apart: it shares the cores with the sidecar, and
/// what a backend does with a record is not what a sidecar costs.
#[derive(Clone)]
struct Logs;

/// A message that has one repeated field of bytes or messages that matters.
#[derive(Clone, PartialEq, prost::Message)]
struct First {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    parts: Vec<bytes::Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Second {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    parts: Vec<bytes::Bytes>,
}

impl tonic::server::NamedService for Logs {
    const NAME: &'static str = "opentelemetry.proto.collector.logs.v1.LogsService";
}

impl tonic::server::UnaryService<First> for Logs {
    type Response = First;
    type Future = std::future::Ready<Result<Response<First>, Status>>;

    fn call(&mut self, request: Request<First>) -> Self::Future {
        let inner = |bytes| <Second as prost::Message>::decode(bytes).unwrap().parts;
        let resources = request.into_inner().parts.into_iter();
        assert!(resources.flat_map(inner).flat_map(inner).all(|record| !record.is_empty()));
        std::future::ready(Ok(Response::new(First::default())))
    }
}

impl tonic::codegen::Service<tonic::codegen::http::Request<tonic::body::Body>> for Logs {
    type Response = tonic::codegen::http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = tonic::codegen::BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), std::convert::Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: tonic::codegen::http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async {
            let mut grpc = tonic::server::Grpc::new(tonic_prost::ProstCodec::default());
            Ok(grpc.unary(Self, request).await)
        })
    }
}

struct Sidecar {
    variant: &'static Variant,
    child: Child,
    uds: PathBuf,
    admin: String,
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sidecar {
    fn start(dir: &Path, policy: &Path, number: usize, variant: &'static Variant, receiver: &str) -> Self {
        let (uds, admin) = (dir.join(format!("{number}.sock")), free_address());
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
        command
            .arg("serve")
            .arg("--policy")
            .arg(policy)
            .arg("--uds")
            .arg(&uds)
            .args(["--admin", &admin, "--log-level", "warn"])
            .args(variant.arguments)
            .envs(variant.variables.iter().copied());
        if variant.traced {
            command
                .env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", format!("http://{receiver}"))
                .env("OTEL_TRACES_SAMPLER", "parentbased_always_off");
        }
        match variant.records {
            Some(Sink::File) => {
                let path = dir.join(format!("{number}.jsonl"));
                command
                    .args(["--records-max-files", "1", "--records"])
                    .arg(format!("file:{}", path.display()));
            }
            Some(Sink::Otlp) => {
                command.env("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", format!("http://{receiver}"));
                command.args(["--records", "otlp"]);
            }
            None => {}
        }
        Self { variant, child: command.spawn().unwrap(), uds, admin }
    }

    async fn client(&self) -> Result<AuthorizationServiceClient<Channel>, tonic::transport::Error> {
        let channel = Endpoint::try_from(format!("unix://{}", self.uds.display()))?.connect().await?;
        Ok(AuthorizationServiceClient::new(channel))
    }

    async fn wait_until_it_answers(&self, request: &v1::CheckRequest) {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            if let Ok(mut client) = self.client().await
                && client.check(request.clone()).await.is_ok()
            {
                return;
            }
            assert!(Instant::now() < deadline, "no answer at {}", self.uds.display());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn measure(&self, requests: &Arc<[v1::CheckRequest]>, length: Duration) -> Measured {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(self.client().await.unwrap());
        }
        let scraping = Arc::new(AtomicBool::new(self.variant.scraped));
        let scraper = {
            let (scraping, admin) = (Arc::clone(&scraping), self.admin.clone());
            tokio::task::spawn_blocking(move || {
                while scraping.load(Ordering::Relaxed) {
                    scrape(&admin);
                    std::thread::sleep(Duration::from_secs(1));
                }
            })
        };
        let (started, cpu_before) = (Instant::now(), cpu(self.child.id()));
        let deadline = started + length;
        let sampled = self.variant.sampled;
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..CONNECTIONS * IN_FLIGHT {
            let (mut client, requests) = (clients[caller % CONNECTIONS].clone(), Arc::clone(requests));
            callers.spawn(async move {
                let mut latencies = Vec::with_capacity(1 << 14);
                let mut next = caller * 131;
                while Instant::now() < deadline {
                    let mut request = Request::new(requests[next % requests.len()].clone());
                    next += 1;
                    // Every call of every variant carries the header; what differs is the flag.
                    let flag = u8::from(sampled.is_some_and(|every| next % every == 0));
                    let header = format!("00-{:032x}-{:016x}-{flag:02x}", next + 1, caller + 1);
                    request.metadata_mut().insert("traceparent", header.parse().unwrap());
                    let sent = Instant::now();
                    let answer = client.check(request).await.expect("an answer").into_inner();
                    latencies.push(sent.elapsed().as_nanos() as u64);
                    assert_ne!(answer.result.expect("a result").decision, 0);
                }
                latencies
            });
        }
        let mut latencies = Vec::new();
        while let Some(done) = callers.join_next().await {
            latencies.extend(done.unwrap());
        }
        let (elapsed, cpu) = (started.elapsed(), cpu(self.child.id()) - cpu_before);
        scraping.store(false, Ordering::Relaxed);
        scraper.await.unwrap();
        latencies.sort_unstable();
        let percentile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100] as f64 / 1000.0;
        Measured {
            rate: latencies.len() as f64 / elapsed.as_secs_f64(),
            p50: percentile(50),
            p99: percentile(99),
            cpu: cpu * 1e6 / latencies.len() as f64,
        }
    }

    /// Spans and records that arrived, and that were lost.
    fn told(&self) -> (u64, u64) {
        let text = scrape(&self.admin);
        let sum = |name: &str| -> u64 {
            let lines = text.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
        };
        (
            sum("postern_spans_exported_total") + sum("postern_records_written_total"),
            sum("postern_spans_lost_total") + sum("postern_records_lost_total"),
        )
    }
}

fn scrape(admin: &str) -> String {
    let mut stream = TcpStream::connect(admin).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}
