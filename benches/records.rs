//! What records cost: whole calls to `postern serve` without records, with all of them to a file, and with all of them
//! over OTLP. Every server is a process of its own, they are asked by the same client in turns, and are judged by
//! requests per second and latency; the CPU time is the server's, the writer's thread included.
//!
//! ```text
//! cargo bench --bench records                    100,000 assignments, 10 groups, 5 rounds of 2 s each
//! cargo bench --bench records -- --size 1000 --rounds 3 --seconds 1 --json
//! ```
//!
//! The receiver of OTLP is this process and takes a core's part of its own: on a small machine its cost is counted as
//! the server's. So is that of the disk, unless `TMPDIR` points into memory.

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

#[allow(dead_code, reason = "shared with other benchmarks")]
#[path = "support/tenant.rs"]
mod tenant;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use postern::proto::v1;
use postern::proto::v1::authorization_service_client::AuthorizationServiceClient;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 8;
const SERVERS: [&str; 3] = ["off", "file", "otlp"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let number =
        |name: &str, default: usize| value(name).map_or(default, |text| text.parse().expect("a number"));
    let (size, rounds) = (number("--size", 100_000), number("--rounds", 5));
    let length =
        Duration::from_secs_f64(value("--seconds").map_or(2.0, |text| text.parse().expect("seconds")));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let rows = runtime.block_on(run(size, rounds, length));
    if arguments.iter().any(|argument| argument == "--json") {
        println!(
            "{}",
            serde_json::json!({ "assignments": size, "rows": rows.iter().map(Row::json).collect::<Vec<_>>() })
        );
        return;
    }
    println!(
        "\nCheck, {size} assignments, 10 groups, {CONNECTIONS} connections × {IN_FLIGHT} in flight, {rounds} rounds of {length:?}"
    );
    println!(
        "{:<8} {:>10} {:>9} {:>9} {:>14} {:>10} {:>10} {:>12} {:>10}",
        "records", "req/s", "p50 µs", "p99 µs", "server CPU µs", "of off", "p99 of off", "written", "lost"
    );
    let off = &rows[0];
    for row in &rows {
        println!(
            "{:<8} {:>10.0} {:>9.0} {:>9.0} {:>14.1} {:>8.1} % {:>8.1} % {:>12} {:>10}",
            row.name,
            row.rate,
            row.p50,
            row.p99,
            row.cpu,
            100.0 * row.rate / off.rate,
            100.0 * row.p99 / off.p99,
            row.written,
            row.lost
        );
    }
}

#[derive(Clone, Default)]
struct Row {
    name: &'static str,
    rate: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
    written: u64,
    lost: u64,
}

impl Row {
    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "records": self.name,
            "requestsPerSecond": self.rate,
            "p50Micros": self.p50,
            "p99Micros": self.p99,
            "serverCpuMicros": self.cpu,
            "written": self.written,
            "lost": self.lost,
        })
    }
}

async fn run(size: usize, rounds: usize, length: Duration) -> Vec<Row> {
    let dir = tempfile::tempdir().unwrap();
    let tenant = tenant::Tenant::new(size);
    let policy = dir.path().join("policy");
    for (name, bytes) in tenant.files() {
        let path = policy.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let requests: Arc<[v1::CheckRequest]> = tenant.questions(10).iter().map(wire).collect();
    let receiver = Receiver::start().await;
    let servers = SERVERS.map(|name| Process::start(name, dir.path(), &policy, receiver));
    for server in &servers {
        server.wait_until_it_answers(&requests[0]).await;
    }
    let mut measured: [Vec<Row>; 3] = Default::default();
    // One round more than asked for: the first warms all up and does not count.
    for round in 0..=rounds {
        for (server, into) in servers.iter().zip(&mut measured) {
            let row = server.measure(&requests, length).await;
            if round > 0 {
                into.push(row);
            }
        }
    }
    let rows = servers.iter().zip(measured).map(|(server, rows)| {
        let of = |pick: fn(&Row) -> f64| {
            let mut values: Vec<f64> = rows.iter().map(pick).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let metrics = server.metrics();
        Row {
            name: server.name,
            rate: of(|row| row.rate),
            p50: of(|row| row.p50),
            p99: of(|row| row.p99),
            cpu: of(|row| row.cpu),
            written: sum(&metrics, "postern_records_written_total"),
            lost: sum(&metrics, "postern_records_lost_total"),
        }
    });
    rows.collect()
}

fn sum(text: &str, name: &str) -> u64 {
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

fn wire(question: &tenant::Question) -> v1::CheckRequest {
    v1::CheckRequest {
        subject: Some(v1::Subject {
            principal_id: question.principal.clone(),
            group_ids: question.groups.clone(),
            ..Default::default()
        }),
        action: Some(v1::Action {
            name: question.action.clone(),
            data_action: question.data_action,
            ..Default::default()
        }),
        resource: Some(v1::Resource { scope: question.scope.clone(), ..Default::default() }),
        ..Default::default()
    }
}

/// A server in a process of its own; ends with this value.
struct Process {
    name: &'static str,
    child: Child,
    uds: PathBuf,
    admin: SocketAddr,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(name: &'static str, dir: &Path, policy: &Path, receiver: SocketAddr) -> Self {
        let uds = dir.join(format!("{name}.sock"));
        let admin = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
        command.args(["serve", "--log-level", "warn", "--admin", &admin.to_string()]);
        command.arg("--policy").arg(policy).arg("--uds").arg(&uds);
        match name {
            "file" => {
                command.args(["--records", &format!("file:{}", dir.join("decisions.jsonl").display())]);
            }
            "otlp" => {
                command.args(["--records", "otlp"]);
                command.env("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", format!("http://{receiver}"));
            }
            _ => {}
        }
        Self { name, child: command.spawn().unwrap(), uds, admin }
    }

    async fn client(&self) -> Result<AuthorizationServiceClient<Channel>, tonic::transport::Error> {
        let channel = Endpoint::try_from(format!("unix://{}", self.uds.display()))?.connect().await?;
        Ok(AuthorizationServiceClient::new(channel))
    }

    async fn wait_until_it_answers(&self, request: &v1::CheckRequest) {
        let deadline = Instant::now() + Duration::from_secs(60);
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

    async fn measure(&self, requests: &Arc<[v1::CheckRequest]>, length: Duration) -> Row {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(self.client().await.unwrap());
        }
        let (started, cpu_before) = (Instant::now(), self.cpu());
        let deadline = started + length;
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..CONNECTIONS * IN_FLIGHT {
            let (mut client, requests) = (clients[caller % CONNECTIONS].clone(), Arc::clone(requests));
            callers.spawn(async move {
                let mut latencies = Vec::with_capacity(1 << 14);
                let mut next = caller * 131;
                while Instant::now() < deadline {
                    let request = requests[next % requests.len()].clone();
                    next += 1;
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
        let elapsed = started.elapsed();
        // What was asked here is written here, not in the turn of the next server.
        let waits = Instant::now() + Duration::from_secs(30);
        while sum(&self.metrics(), "postern_record_queue_depth") > 0 {
            assert!(Instant::now() < waits, "the queue does not drain");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let cpu = self.cpu() - cpu_before;
        latencies.sort_unstable();
        let percentile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100] as f64 / 1000.0;
        Row {
            name: self.name,
            rate: latencies.len() as f64 / elapsed.as_secs_f64(),
            p50: percentile(50),
            p99: percentile(99),
            cpu: cpu * 1e6 / latencies.len() as f64,
            ..Row::default()
        }
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Seconds of user and system time so far, of all threads.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name of the program may hold anything; what follows its last parenthesis is numbers.
        let numbers: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: f64 = numbers[11].parse::<f64>().unwrap() + numbers[12].parse::<f64>().unwrap();
        ticks / 100.0
    }
}

/// Takes everything and keeps the number.
#[derive(Clone, Default)]
struct Receiver(Arc<AtomicU64>);

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let resources = request.into_inner().resource_logs;
        let scopes = resources.iter().flat_map(|resource| &resource.scope_logs);
        let records: usize = scopes.map(|scope| scope.log_records.len()).sum();
        self.0.fetch_add(records as u64, Ordering::Relaxed);
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

impl Receiver {
    async fn start() -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = LogsServiceServer::new(Self::default());
        tokio::spawn(
            Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)),
        );
        address
    }
}
