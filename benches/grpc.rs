//! Whole calls: `postern serve` against a bare tonic service that answers every Check of the same contract with a
//! constant. Both run as processes of their own, are asked by the same client in turns, over the Unix socket and
//! over TCP, and are judged by requests per second, latency and the CPU time that the kernel charged to the server.
//!
//! And streams: `postern serve` is asked the same questions with Check and over one CheckStream for each of as many
//! connections, in turns. Each connection has one subject, as an agent or a batch job does.
//!
//! And batches: BatchCheck of 100 questions of one subject, of both servers in turns.
//!
//! ```text
//! cargo bench --bench grpc                    100,000 assignments, 10 groups, 5 rounds of 2 s each
//! cargo bench --bench grpc -- --size 1000 --rounds 3 --seconds 1 --json
//! cargo bench --bench grpc -- --only streams      or checks, or batches
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

#[allow(dead_code, reason = "shared with other benchmarks")]
#[path = "support/tenant.rs"]
mod tenant;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postern::load::Constant;
use postern::proto::v1;
use postern::proto::v1::authorization_service_client::AuthorizationServiceClient;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};

/// What the binary uses; the baseline gets the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 8;
/// Questions in a batch, and batches in flight for each connection.
const BATCH: usize = 100;
const BATCHES_IN_FLIGHT: usize = 2;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let (Some(socket), Some(address)) = (value("--constant-uds"), value("--constant-tcp")) {
        runtime().block_on(constant_responder(Path::new(&socket), &address));
        return;
    }
    let number =
        |name: &str, default: usize| value(name).map_or(default, |text| text.parse().expect("a number"));
    let settings = Settings {
        size: number("--size", 100_000),
        rounds: number("--rounds", 5),
        length: Duration::from_secs_f64(
            value("--seconds").map_or(2.0, |text| text.parse().expect("seconds")),
        ),
        only: value("--only"),
    };
    let Figures { rows, streams, batches } = runtime().block_on(run(&settings));
    if arguments.iter().any(|argument| argument == "--json") {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        let streams: Vec<_> = streams.iter().map(Asked::json).collect();
        let batches: Vec<_> = batches.iter().map(Row::batches_json).collect();
        println!(
            "{}",
            serde_json::json!({
                "assignments": settings.size, "rows": rows, "streams": streams, "batches": batches
            })
        );
        return;
    }
    show_calls(&settings, &rows);
    show_batches(&batches);
    if streams.is_empty() {
        return;
    }
    println!(
        "\nCheckStream, the same policy, {CONNECTIONS} connections with a subject and a stream each, asked in turns with Check"
    );
    println!(
        "{:<8} {:<30} {:>12} {:>9} {:>9} {:>14} {:>8} {:>8}",
        "over", "", "decisions/s", "p50 µs", "p99 µs", "server CPU µs", "rate", "CPU"
    );
    for Asked { transport, way, measured, check } in &streams {
        let (rate, cpu) = (measured.rate / check.0, check.1 / measured.cpu);
        println!(
            "{transport:<8} {:<30} {:>12.0} {:>9.0} {:>9.0} {:>14.2} {rate:>7.1}× {cpu:>7.1}×",
            way.name(),
            measured.rate,
            measured.p50,
            measured.p99,
            measured.cpu,
        );
    }
}

fn show_batches(rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    println!(
        "\nBatchCheck of {BATCH} with one subject, {CONNECTIONS} connections × {BATCHES_IN_FLIGHT} in flight"
    );
    println!(
        "{:<8} {:<10} {:>12} {:>9} {:>9} {:>19} {:>26}",
        "over", "server", "decisions/s", "p50 µs", "p99 µs", "server CPU µs/batch", "decisions/server CPU s"
    );
    for row in rows {
        for (name, measured) in [("constant", &row.constant), ("postern", &row.postern)] {
            println!(
                "{:<8} {:<10} {:>12.0} {:>9.0} {:>9.0} {:>19.1} {:>26.0}",
                row.transport,
                name,
                measured.rate * BATCH as f64,
                measured.p50,
                measured.p99,
                measured.cpu,
                BATCH as f64 * 1e6 / measured.cpu
            );
        }
    }
}

fn show_calls(settings: &Settings, rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    println!(
        "\nCheck, {} assignments, 10 groups, {CONNECTIONS} connections × {IN_FLIGHT} in flight, {} rounds of {:?}",
        settings.size, settings.rounds, settings.length
    );
    println!(
        "{:<8} {:<10} {:>10} {:>9} {:>9} {:>14} {:>9}",
        "over", "server", "req/s", "p50 µs", "p99 µs", "server CPU µs", "ratio"
    );
    for row in rows {
        for (name, measured) in [("constant", &row.constant), ("postern", &row.postern)] {
            let ratio =
                if name == "postern" { format!("{:.1} %", row.ratio() * 100.0) } else { String::new() };
            println!(
                "{:<8} {:<10} {:>10.0} {:>9.0} {:>9.0} {:>14.1} {:>9}",
                row.transport, name, measured.rate, measured.p50, measured.p99, measured.cpu, ratio
            );
        }
    }
}

struct Settings {
    size: usize,
    rounds: usize,
    length: Duration,
    /// `None`: everything.
    only: Option<String>,
}

impl Settings {
    fn asks_for(&self, what: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == what)
    }
}

/// What came out.
struct Figures {
    rows: Vec<Row>,
    streams: Vec<Asked>,
    /// Of whole batches.
    batches: Vec<Row>,
}

/// How the questions of a connection are asked.
#[derive(Clone, Copy)]
enum Way {
    /// A Check each, so many at a time.
    Check,
    /// Over one stream: so many in a message, so many messages on the way.
    Stream { together: usize, messages: usize },
}

const WAYS: [Way; 4] = [
    Way::Check,
    Way::Stream { together: 1, messages: IN_FLIGHT },
    Way::Stream { together: 1, messages: 64 * IN_FLIGHT },
    Way::Stream { together: 64, messages: IN_FLIGHT },
];

impl Way {
    fn name(self) -> String {
        match self {
            Self::Check => format!("Check, {IN_FLIGHT} at a time"),
            Self::Stream { together, messages } => format!("stream, {messages} × {together} on the way"),
        }
    }
}

/// One way over one transport, beside Check: its rate and CPU time.
struct Asked {
    transport: &'static str,
    way: Way,
    measured: Measured,
    check: (f64, f64),
}

impl Asked {
    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "transport": self.transport,
            "way": self.way.name(),
            "decisionsPerSecond": self.measured.rate,
            "p50Micros": self.measured.p50,
            "p99Micros": self.measured.p99,
            "serverCpuMicros": self.measured.cpu,
            "rateOverCheck": self.measured.rate / self.check.0,
        })
    }
}

/// Medians over the rounds.
struct Measured {
    rate: f64,
    p50: f64,
    p99: f64,
    /// Microseconds of the server's user and system time for each request.
    cpu: f64,
}

struct Row {
    transport: &'static str,
    constant: Measured,
    postern: Measured,
}

impl Row {
    fn ratio(&self) -> f64 {
        self.postern.rate / self.constant.rate
    }

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
            "transport": self.transport,
            "constant": one(&self.constant),
            "postern": one(&self.postern),
            "ratio": self.ratio(),
        })
    }

    fn batches_json(&self) -> serde_json::Value {
        serde_json::json!({
            "transport": self.transport,
            "items": BATCH,
            "decisionsPerSecond": self.postern.rate * BATCH as f64,
            "p50Micros": self.postern.p50,
            "p99Micros": self.postern.p99,
            "serverCpuMicrosPerBatch": self.postern.cpu,
            "decisionsPerServerCpuSecond": BATCH as f64 * 1e6 / self.postern.cpu,
            "constantServerCpuMicrosPerBatch": self.constant.cpu,
        })
    }
}

async fn run(settings: &Settings) -> Figures {
    let dir = tempfile::tempdir().unwrap();
    let tenant = tenant::Tenant::new(settings.size);
    let policy = dir.path().join("policy");
    for (name, bytes) in tenant.files() {
        let path = policy.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    let requests: Arc<[v1::CheckRequest]> = tenant.questions(10).iter().map(wire).collect();
    let batches: Arc<[v1::BatchCheckRequest]> = requests.chunks_exact(BATCH).map(batch).collect();
    let postern = Process::postern(dir.path(), &policy);
    let constant = Process::constant(dir.path());
    for process in [&postern, &constant] {
        process.wait_until_it_answers(&requests[0]).await;
    }
    let mut figures = Figures { rows: Vec::new(), streams: Vec::new(), batches: Vec::new() };
    for transport in ["unix", "tcp"] {
        if settings.asks_for("streams") {
            figures.streams.extend(streams(settings, &postern, transport, &requests).await);
        }
        if settings.asks_for("checks") {
            let row = in_turns(settings, &constant, &postern, transport, async |process: &Process| {
                process.measure(transport, &requests, IN_FLIGHT, settings.length).await
            });
            figures.rows.push(row.await);
        }
        if settings.asks_for("batches") {
            let row = in_turns(settings, &constant, &postern, transport, async |process: &Process| {
                process.measure(transport, &batches, BATCHES_IN_FLIGHT, settings.length).await
            });
            figures.batches.push(row.await);
        }
    }
    eprintln!("postern holds {:.1} MiB resident", postern.resident_mib());
    figures
}

async fn in_turns(
    settings: &Settings,
    constant: &Process,
    postern: &Process,
    transport: &'static str,
    measure: impl AsyncFn(&Process) -> Measured,
) -> Row {
    let mut rounds: [Vec<Measured>; 2] = Default::default();
    // One round more than asked for: the first warms both up and does not count.
    for round in 0..=settings.rounds {
        for (process, into) in [constant, postern].into_iter().zip(&mut rounds) {
            let measured = measure(process).await;
            if round > 0 {
                into.push(measured);
            }
        }
    }
    let [constant, postern] = rounds.map(median);
    Row { transport, constant, postern }
}

async fn streams(
    settings: &Settings,
    postern: &Process,
    transport: &'static str,
    requests: &Arc<[v1::CheckRequest]>,
) -> Vec<Asked> {
    let mut rounds: [Vec<Measured>; WAYS.len()] = Default::default();
    for round in 0..=settings.rounds {
        for (way, into) in WAYS.into_iter().zip(&mut rounds) {
            let measured = postern.measure_way(way, transport, requests, settings.length).await;
            if round > 0 {
                into.push(measured);
            }
        }
    }
    let measured = rounds.map(median);
    let check = (measured[0].rate, measured[0].cpu);
    let asked = |(way, measured)| Asked { transport, way, measured, check };
    WAYS.into_iter().zip(measured).map(asked).collect()
}

/// What a caller sends over and over, and what makes an answer one.
trait Ask: Clone + Send + Sync + 'static {
    fn send(self, client: &mut AuthorizationServiceClient<Channel>) -> impl Future<Output = ()> + Send;
}

impl Ask for v1::CheckRequest {
    async fn send(self, client: &mut AuthorizationServiceClient<Channel>) {
        let answer = client.check(self).await.expect("an answer").into_inner();
        assert_ne!(answer.result.expect("a result").decision, 0);
    }
}

impl Ask for v1::BatchCheckRequest {
    async fn send(self, client: &mut AuthorizationServiceClient<Channel>) {
        let answer = client.batch_check(self).await.expect("an answer").into_inner();
        assert_eq!(answer.results.len(), BATCH);
        for result in answer.results {
            let decided = matches!(
                result.outcome, Some(v1::batch_check_item_result::Outcome::Result(result)) if result.decision != 0
            );
            assert!(decided);
        }
    }
}

/// All for the first one's subject.
fn batch(requests: &[v1::CheckRequest]) -> v1::BatchCheckRequest {
    let items = requests.iter().map(|request| v1::BatchCheckItem {
        action: request.action.clone(),
        resource: request.resource.clone(),
        ..Default::default()
    });
    v1::BatchCheckRequest {
        subject: requests[0].subject.clone(),
        items: items.collect(),
        ..Default::default()
    }
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

fn median(rounds: Vec<Measured>) -> Measured {
    let of = |pick: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Measured {
        rate: of(|measured| measured.rate),
        p50: of(|measured| measured.p50),
        p99: of(|measured| measured.p99),
        cpu: of(|measured| measured.cpu),
    }
}

/// A server in a process of its own; ends with this value.
struct Process {
    child: Child,
    uds: PathBuf,
    tcp: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn postern(dir: &Path, policy: &Path) -> Self {
        let (uds, tcp) = (dir.join("postern.sock"), free_address());
        let child = Command::new(env!("CARGO_BIN_EXE_postern"))
            .arg("serve")
            .arg("--policy")
            .arg(policy)
            .arg("--uds")
            .arg(&uds)
            .args(["--tcp", &tcp, "--admin", "off", "--log-level", "warn"])
            .spawn()
            .unwrap();
        Self { child, uds, tcp }
    }

    fn constant(dir: &Path) -> Self {
        let (uds, tcp) = (dir.join("constant.sock"), free_address());
        let child = Command::new(std::env::current_exe().unwrap())
            .arg("--constant-uds")
            .arg(&uds)
            .args(["--constant-tcp", &tcp])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, uds, tcp }
    }

    async fn client(
        &self,
        transport: &str,
    ) -> Result<AuthorizationServiceClient<Channel>, tonic::transport::Error> {
        let uri = match transport {
            "unix" => format!("unix://{}", self.uds.display()),
            _ => format!("http://{}", self.tcp),
        };
        let channel = Endpoint::try_from(uri)?.tcp_nodelay(true).connect().await?;
        Ok(AuthorizationServiceClient::new(channel))
    }

    async fn wait_until_it_answers(&self, request: &v1::CheckRequest) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Ok(mut client) = self.client("unix").await
                && client.check(request.clone()).await.is_ok()
            {
                return;
            }
            assert!(Instant::now() < deadline, "no answer at {}", self.uds.display());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn measure<R: Ask>(
        &self,
        transport: &str,
        requests: &Arc<[R]>,
        in_flight: usize,
        length: Duration,
    ) -> Measured {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(self.client(transport).await.unwrap());
        }
        let (started, cpu_before) = (Instant::now(), self.cpu());
        let deadline = started + length;
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..CONNECTIONS * in_flight {
            let (mut client, requests) = (clients[caller % CONNECTIONS].clone(), Arc::clone(requests));
            callers.spawn(async move {
                let mut latencies = Vec::with_capacity(1 << 14);
                let mut next = caller * 131;
                while Instant::now() < deadline {
                    let request = requests[next % requests.len()].clone();
                    next += 1;
                    let sent = Instant::now();
                    request.send(&mut client).await;
                    latencies.push(sent.elapsed().as_nanos() as u64);
                }
                latencies
            });
        }
        let mut latencies = Vec::new();
        while let Some(done) = callers.join_next().await {
            latencies.extend(done.unwrap());
        }
        let (elapsed, cpu) = (started.elapsed(), self.cpu() - cpu_before);
        latencies.sort_unstable();
        let percentile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100] as f64 / 1000.0;
        Measured {
            rate: latencies.len() as f64 / elapsed.as_secs_f64(),
            p50: percentile(50),
            p99: percentile(99),
            cpu: cpu * 1e6 / latencies.len() as f64,
        }
    }

    /// All connections at once, each with the questions of one subject.
    async fn measure_way(
        &self,
        way: Way,
        transport: &str,
        requests: &Arc<[v1::CheckRequest]>,
        length: Duration,
    ) -> Measured {
        let mut callers = tokio::task::JoinSet::new();
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(self.client(transport).await.unwrap());
        }
        let (started, cpu_before) = (Instant::now(), self.cpu());
        let deadline = started + length;
        for (connection, client) in clients.into_iter().enumerate() {
            let asks =
                Asks { subject: requests[connection * 131].subject.clone(), requests: Arc::clone(requests) };
            match way {
                Way::Check => {
                    for caller in 0..IN_FLIGHT {
                        callers.spawn(asks.clone().with_check(client.clone(), caller * 131, deadline));
                    }
                }
                Way::Stream { together, messages } => {
                    callers.spawn(asks.over_stream(client, together, messages, deadline));
                }
            }
        }
        let mut latencies = Vec::new();
        while let Some(done) = callers.join_next().await {
            latencies.extend(done.unwrap());
        }
        let (elapsed, cpu) = (started.elapsed(), self.cpu() - cpu_before);
        // Each stands for so many decisions.
        let decisions: u64 = latencies.iter().map(|(_, decisions)| decisions).sum();
        latencies.sort_unstable();
        let percentile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100].0 as f64 / 1000.0;
        Measured {
            rate: decisions as f64 / elapsed.as_secs_f64(),
            p50: percentile(50),
            p99: percentile(99),
            cpu: cpu * 1e6 / decisions as f64,
        }
    }

    /// Seconds of user and system time so far.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The name of the program may hold anything; what follows its last parenthesis is numbers.
        let numbers: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: f64 = numbers[11].parse::<f64>().unwrap() + numbers[12].parse::<f64>().unwrap();
        // Linux counts in hundredths of a second on every architecture Rust supports it on.
        ticks / 100.0
    }

    fn resident_mib(&self) -> f64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        let pages: f64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
        pages * 4096.0 / 1024.0 / 1024.0
    }
}

/// What one connection asks.
#[derive(Clone)]
struct Asks {
    subject: Option<v1::Subject>,
    requests: Arc<[v1::CheckRequest]>,
}

impl Asks {
    async fn with_check(
        self,
        mut client: AuthorizationServiceClient<Channel>,
        mut next: usize,
        deadline: Instant,
    ) -> Vec<(u64, u64)> {
        let mut latencies = Vec::with_capacity(1 << 14);
        while Instant::now() < deadline {
            let v1::CheckRequest { action, resource, .. } = self.requests[next % self.requests.len()].clone();
            let request =
                v1::CheckRequest { subject: self.subject.clone(), action, resource, ..Default::default() };
            next += 1;
            let sent = Instant::now();
            let answer = client.check(request).await.expect("an answer").into_inner();
            latencies.push((sent.elapsed().as_nanos() as u64, 1));
            assert_ne!(answer.result.expect("a result").decision, 0);
        }
        latencies
    }

    /// Messages are sent as answers come: so many are on the way at a time.
    async fn over_stream(
        self,
        mut client: AuthorizationServiceClient<Channel>,
        together: usize,
        messages: usize,
        deadline: Instant,
    ) -> Vec<(u64, u64)> {
        let (room, mut has_room) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..messages {
            room.send(()).unwrap();
        }
        let Self { subject, requests } = self;
        let mut context = Some(v1::CheckStreamContext { subject, ..Default::default() });
        let (sent_at, mut sent_times) = tokio::sync::mpsc::unbounded_channel();
        let mut next = 0;
        let asks = futures_util::stream::poll_fn(move |polled| {
            if Instant::now() >= deadline {
                return std::task::Poll::Ready(None);
            }
            std::task::ready!(has_room.poll_recv(polled));
            let questions = (0..together).map(|_| {
                let v1::CheckRequest { action, resource, .. } = requests[next % requests.len()].clone();
                next += 1;
                v1::CheckStreamQuestion { id: next as u64, action, resource, ..Default::default() }
            });
            let message = v1::CheckStreamRequest {
                questions: questions.collect(),
                context: context.take(),
                ..Default::default()
            };
            sent_at.send(Instant::now()).unwrap();
            std::task::Poll::Ready(Some(message))
        });
        let mut answers = client.check_stream(asks).await.expect("a stream").into_inner();
        let mut latencies = Vec::with_capacity(1 << 16);
        let (mut answered, mut last) = (0, 0);
        while let Some(response) = answers.message().await.expect("answers") {
            for answer in response.answers {
                assert_eq!(answer.id, last + 1, "in order");
                last = answer.id;
                assert!(
                    matches!(answer.outcome, Some(v1::check_stream_answer::Outcome::Result(result)) if result.decision != 0)
                );
                answered += 1;
                if answered == together {
                    answered = 0;
                    let sent = sent_times.recv().await.expect("it was sent");
                    latencies.push((sent.elapsed().as_nanos() as u64, together as u64));
                    // The sender may have ended.
                    let _ = room.send(());
                }
            }
        }
        latencies
    }
}

fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

// === the baseline ===

async fn constant_responder(socket: &Path, address: &str) {
    let service = || Constant::new().service();
    let uds = UnixListenerStream::new(tokio::net::UnixListener::bind(socket).unwrap());
    let tcp = TcpIncoming::bind(address.parse().unwrap()).unwrap().with_nodelay(Some(true));
    let over_uds = tokio::spawn(Server::builder().add_service(service()).serve_with_incoming(uds));
    let over_tcp = tokio::spawn(Server::builder().add_service(service()).serve_with_incoming(tcp));
    let _ = tokio::join!(over_uds, over_tcp);
}
