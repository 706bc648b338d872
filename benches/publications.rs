//! What following publications costs: a start from the state directory, activations under load, and a fleet that
//! polls one source.
//!
//! ```text
//! cargo bench --bench publications                        all three
//! cargo bench --bench publications -- start --size 1000000
//! cargo bench --bench publications -- swap --activations 100 --rate 2000
//! cargo bench --bench publications -- fleet --sidecars 1000 --seconds 30
//! cargo bench --bench publications -- start --json         figures for programs, one object
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

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::Timestamp;
use postern::bundle;
use postern::policy::{CompileOptions, Policy};
use postern::proto::v1;
use postern::proto::v1::authorization_service_client::AuthorizationServiceClient;
use postern::repository::{Client, Limits, Location, Opening, Poll};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Channel;

use messages::wire;
use process::{Memory, mebibytes};
use published::{Sidecar, World};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: usize| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)).map_or(default, |text| text.parse().expect("a number"))
    };
    let chosen: Vec<_> = ["start", "swap", "fleet"]
        .into_iter()
        .filter(|part| arguments.iter().any(|argument| argument == part))
        .collect();
    let wanted = |part: &str| chosen.is_empty() || chosen.contains(&part);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut told = serde_json::Map::new();
    runtime.block_on(async {
        if wanted("start") {
            told.insert("start".into(), start(number("--size", 1_000_000)).await);
        }
        if wanted("swap") {
            let (activations, rate) = (number("--activations", 100), number("--rate", 2_000));
            told.insert("swap".into(), swap(number("--size", 100_000), activations, rate).await);
        }
        if wanted("fleet") {
            told.insert("fleet".into(), fleet(number("--sidecars", 1_000), number("--seconds", 30)).await);
        }
    });
    if json_wanted() {
        println!("{}", Value::Object(told));
    }
}

fn json_wanted() -> bool {
    std::env::args().any(|argument| argument == "--json")
}

/// For people, unless the figures are for programs.
macro_rules! tell {
    ($($what:tt)*) => {
        if !json_wanted() {
            println!($($what)*);
        }
    };
}

// === a start ===

const STARTS: usize = 9;

async fn start(size: usize) -> Value {
    let tenant = tenant::Tenant::new(size);
    let requests: Vec<v1::CheckRequest> = tenant.questions(10).iter().map(wire).collect();
    let documents = tenant.documents;
    let clock = Instant::now();
    let policy = Policy::compile(&documents, CompileOptions::default()).unwrap();
    let compiled = clock.elapsed();
    drop(documents);
    let clock = Instant::now();
    let bytes = bundle::build(&policy, &bundle::About { name: "bench", ..Default::default() }).unwrap();
    let built = clock.elapsed();
    drop(policy);
    let length = bytes.len();
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path()).await;
    world.publish(bytes.into()).await;

    // Two sidecars of one machine, which share the directory.
    let first = Sidecar::start(&world, 0, "10s");
    first.serving().await;
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let second = Sidecar::start(&world, 1, "10s");
        times.push(second.serving().await);
    }
    times.sort();
    let second = Sidecar::start(&world, 1, "10s");
    second.serving().await;
    // Settled: the first poll is behind it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = second.memory();
    // Now both have used what a day of questions uses.
    for sidecar in [&first, &second] {
        let mut client = sidecar.client().await.unwrap();
        for request in requests.iter().cycle().take(20_000) {
            client.check(request.clone()).await.expect("an answer");
        }
    }
    tell!("\nA start, {size} role assignments");
    tell!("compile                                  {:>10.0} ms", compiled.as_secs_f64() * 1e3);
    tell!("lay out as a bundle                      {:>10.0} ms", built.as_secs_f64() * 1e3);
    tell!(
        "bundle                                   {:>10.1} MB, {} bytes an assignment",
        length as f64 / 1e6,
        length / size
    );
    tell!(
        "exec to SERVING from the state directory {:>10.0} ms median of {STARTS}, {:.0} worst",
        times[STARTS / 2].as_secs_f64() * 1e3,
        times[STARTS - 1].as_secs_f64() * 1e3
    );
    let memories =
        [("idle", idle), ("after 20,000 checks", second.memory()), ("the other one", first.memory())];
    for (name, memory) in &memories {
        tell!(
            "{name:<20} MiB: resident {:.1}, private {:.1}, of the bundle resident {:.1}, shared with the other {:.1}",
            memory.resident,
            memory.private,
            memory.bundle,
            memory.bundle_shared
        );
    }
    let memory = |memory: &BundleMemory| {
        json!({
            "residentMiB": memory.resident,
            "privateMiB": memory.private,
            "bundleMiB": memory.bundle,
            "bundleSharedMiB": memory.bundle_shared,
        })
    };
    json!({
        "assignments": size,
        "compileMillis": compiled.as_secs_f64() * 1e3,
        "layOutMillis": built.as_secs_f64() * 1e3,
        "bundleBytes": length,
        "starts": STARTS,
        "servingMillis": times[STARTS / 2].as_secs_f64() * 1e3,
        "servingWorstMillis": times[STARTS - 1].as_secs_f64() * 1e3,
        "idle": memory(&memories[0].1),
        "asked": memory(&memories[1].1),
        "other": memory(&memories[2].1),
    })
}

// === activations under load ===

/// Callers, each with one call in flight, on four connections.
const CALLERS: usize = 16;
const CONNECTIONS: usize = 4;

async fn swap(size: usize, activations: usize, rate: usize) -> Value {
    let tenant = tenant::Tenant::new(size);
    let requests: Arc<[v1::CheckRequest]> = tenant.questions(10).iter().map(wire).collect();
    let policy = Policy::compile(&tenant.documents, CompileOptions::default()).unwrap();
    let build = |name| {
        let bytes = bundle::build(&policy, &bundle::About { name, ..Default::default() }).unwrap();
        Bytes::from(bytes)
    };
    let bundles = [build("one"), build("other")];
    drop((tenant, policy));
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path()).await;
    world.publish(bundles[0].clone()).await;
    // Signed beforehand: on two cores a publisher beside the load would be measured with it.
    let begin = world.timestamp();
    let mut signed = Vec::new();
    for turn in 1..=activations {
        let serial = world.publish(bundles[turn % 2].clone()).await;
        signed.push((serial, world.timestamp()));
    }
    world.point_to(&begin);
    let sidecar = Sidecar::start(&world, 0, "100ms");
    sidecar.serving().await;
    let caller = Load::start(&sidecar, &requests, rate).await;
    caller.round(Duration::from_secs(2)).await;

    // In turns, so that what the machine does besides disturbs both alike.
    const ROUNDS: usize = 5;
    let (mut quiet, mut moving) = (Vec::new(), Vec::new());
    let mut to_enforced = Vec::new();
    let mut turn = 0;
    for _ in 0..ROUNDS {
        let clock = Instant::now();
        let published = async {
            for _ in 0..activations / ROUNDS {
                let (serial, timestamp) = &signed[turn];
                turn += 1;
                world.point_to(timestamp);
                let clock = Instant::now();
                sidecar.reaches(*serial).await;
                to_enforced.push(clock.elapsed());
            }
        };
        let (latencies, ()) = tokio::join!(caller.until(published), async {});
        moving.extend(latencies);
        quiet.extend(caller.round(clock.elapsed()).await);
    }
    let activated = sidecar.generation().await - 1;
    to_enforced.sort();
    tell!(
        "\n{activated} activations of a bundle of {:.1} MB under {rate} checks a second, {size} role assignments",
        bundles[0].len() as f64 / 1e6
    );
    let row = |name: &str, latencies: &mut Vec<u64>| {
        latencies.sort_unstable();
        let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize] as f64 / 1e3;
        tell!(
            "{name:<24} {:>9} checks, none failed; µs: p50 {:>6.0}, p99 {:>6.0}, p99.9 {:>6.0}, worst {:>7.0}",
            latencies.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        );
        json!({ "checks": latencies.len(), "p50Micros": at(0.5), "p99Micros": at(0.99), "worstMicros": at(1.0) })
    };
    let without = row("without activations", &mut quiet);
    let with = row("with activations", &mut moving);
    let p99 = |row: &Value| row["p99Micros"].as_f64().unwrap();
    let p99_ratio = p99(&with) / p99(&without);
    tell!("p99 with over without    {p99_ratio:>9.2}");
    tell!(
        "published to enforced at a poll interval of 100 ms: median {:.0} ms, worst {:.0} ms",
        to_enforced[to_enforced.len() / 2].as_secs_f64() * 1e3,
        to_enforced[to_enforced.len() - 1].as_secs_f64() * 1e3
    );
    json!({
        "assignments": size,
        "activations": activated,
        "checksPerSecond": rate,
        "bundleBytes": bundles[0].len(),
        "without": without,
        "with": with,
        "p99Ratio": p99_ratio,
        "enforcedMillis": to_enforced[to_enforced.len() / 2].as_secs_f64() * 1e3,
        "enforcedWorstMillis": to_enforced[to_enforced.len() - 1].as_secs_f64() * 1e3,
    })
}

/// A constant rate of checks.
struct Load {
    clients: Vec<AuthorizationServiceClient<Channel>>,
    requests: Arc<[v1::CheckRequest]>,
    every: Duration,
}

impl Load {
    async fn start(sidecar: &Sidecar, requests: &Arc<[v1::CheckRequest]>, rate: usize) -> Self {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            clients.push(sidecar.client().await.unwrap());
        }
        let every = Duration::from_secs_f64(CALLERS as f64 / rate as f64);
        Self { clients, requests: Arc::clone(requests), every }
    }

    async fn round(&self, length: Duration) -> Vec<u64> {
        self.until(tokio::time::sleep(length)).await
    }

    /// Nanoseconds of every check until something is done.
    async fn until(&self, done: impl Future<Output = ()>) -> Vec<u64> {
        let stop = Arc::new(AtomicU64::new(0));
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..CALLERS {
            let mut client = self.clients[caller % CONNECTIONS].clone();
            let (requests, stop, every) = (Arc::clone(&self.requests), Arc::clone(&stop), self.every);
            callers.spawn(async move {
                let mut latencies = Vec::new();
                let mut ticks = tokio::time::interval(every);
                let mut next = caller * 131;
                while stop.load(Ordering::Relaxed) == 0 {
                    ticks.tick().await;
                    let request = requests[next % requests.len()].clone();
                    next += 1;
                    let sent = Instant::now();
                    client.check(request).await.expect("no check fails");
                    latencies.push(sent.elapsed().as_nanos() as u64);
                }
                latencies
            });
        }
        done.await;
        stop.store(1, Ordering::Relaxed);
        callers.join_all().await.concat()
    }
}

// === a fleet ===

async fn fleet(sidecars: usize, seconds: usize) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path()).await;
    world.publish(Bytes::from_static(b"a bundle of this test")).await;
    let source = Source::start(world.at.clone()).await;
    let root = std::fs::read(&world.root).unwrap();
    let mut clients = Vec::new();
    for _ in 0..sidecars {
        let store = Location::parse(&source.url).unwrap().open(Opening::default()).unwrap();
        let mut client = Client::new(store, root.clone(), Limits::default()).unwrap();
        assert!(matches!(client.poll(Timestamp::now()).await.unwrap(), Poll::Changed(_)));
        clients.push(client);
    }
    let first = source.taken();
    // Of a web server a tag counts for its file only after the second of the change.
    for client in &mut clients {
        let later = Timestamp::now() + jiff::SignedDuration::from_secs(3);
        assert_eq!(client.poll(later).await.unwrap(), Poll::Unchanged);
    }
    let second = source.taken();
    let interval = Duration::from_secs(10);
    let clock = Instant::now();
    let mut polling = tokio::task::JoinSet::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        polling.spawn(async move {
            // Spread as the jitter of sidecars spreads them.
            tokio::time::sleep(interval.mul_f64(number as f64 / sidecars as f64)).await;
            while clock.elapsed() < Duration::from_secs(seconds as u64) {
                assert_eq!(client.poll(Timestamp::now()).await.unwrap(), Poll::Unchanged);
                tokio::time::sleep(interval).await;
            }
        });
    }
    polling.join_all().await;
    let elapsed = clock.elapsed().as_secs_f64();
    let polls = source.taken();
    tell!(
        "\n{sidecars} sidecars that poll one source every {interval:?}, for {elapsed:.0} s, over HTTP/1.1 without TLS"
    );
    tell!(
        "a first look: {:.1} requests, {:.0} bytes to the source, {:.0} from it",
        first.requests as f64 / sidecars as f64,
        first.to as f64 / sidecars as f64,
        first.from as f64 / sidecars as f64
    );
    tell!(
        "a second look: {:.1} requests, {:.0} bytes to the source, {:.0} from it",
        second.requests as f64 / sidecars as f64,
        second.to as f64 / sidecars as f64,
        second.from as f64 / sidecars as f64
    );
    let requests = polls.requests as f64;
    tell!(
        "a look without news: 1 request, {:.0} bytes to the source, {:.0} from it",
        polls.to as f64 / requests,
        polls.from as f64 / requests
    );
    tell!(
        "together: {:.0} requests a second, {:.1} kB a second to the source, {:.1} from it",
        requests / elapsed,
        polls.to as f64 / elapsed / 1e3,
        polls.from as f64 / elapsed / 1e3
    );
    json!({
        "sidecars": sidecars,
        "firstLook": first.json(sidecars as f64),
        "secondLook": second.json(sidecars as f64),
        "lookWithoutNews": polls.json(requests),
        "requestsPerSecond": requests / elapsed,
    })
}

#[derive(Default)]
struct Traffic {
    requests: AtomicU64,
    to: AtomicU64,
    from: AtomicU64,
}

struct Taken {
    requests: u64,
    to: u64,
    from: u64,
}

impl Taken {
    /// For each of so many.
    fn json(&self, of: f64) -> Value {
        json!({
            "requests": self.requests as f64 / of,
            "bytesToSource": self.to as f64 / of,
            "bytesFromSource": self.from as f64 / of,
        })
    }
}

/// A web server over a directory, and before it a relay that counts bytes.
struct Source {
    url: String,
    traffic: Arc<Traffic>,
}

impl Source {
    async fn start(directory: PathBuf) -> Self {
        let traffic = Arc::new(Traffic::default());
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (behind, before) = (server.local_addr().unwrap(), relay.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state((directory, Arc::clone(&traffic)));
        tokio::spawn(async move { axum::serve(server, router).await });
        let counted = Arc::clone(&traffic);
        tokio::spawn(async move {
            while let Ok((mut caller, _)) = relay.accept().await {
                let traffic = Arc::clone(&counted);
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(behind).await.unwrap();
                    relayed(&mut caller, &mut server, &traffic).await;
                });
            }
        });
        Self { url: format!("http://{before}"), traffic }
    }

    /// Since the last time.
    fn taken(&self) -> Taken {
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        Taken {
            requests: take(&self.traffic.requests),
            to: take(&self.traffic.to),
            from: take(&self.traffic.from),
        }
    }
}

async fn relayed(caller: &mut TcpStream, server: &mut TcpStream, traffic: &Traffic) {
    let mut caller = Counted { inner: caller, read: &traffic.to, written: &traffic.from };
    let _ended = copy_bidirectional(&mut caller, server).await;
}

/// Counts bytes as they pass.
struct Counted<'a> {
    inner: &'a mut TcpStream,
    read: &'a AtomicU64,
    written: &'a AtomicU64,
}

impl AsyncRead for Counted<'_> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let done = std::pin::Pin::new(&mut *self.inner).poll_read(context, buffer);
        self.read.fetch_add((buffer.filled().len() - before) as u64, Ordering::Relaxed);
        done
    }
}

impl AsyncWrite for Counted<'_> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let done = std::pin::Pin::new(&mut *self.inner).poll_write(context, buffer);
        if let std::task::Poll::Ready(Ok(written)) = done {
            self.written.fetch_add(written as u64, Ordering::Relaxed);
        }
        done
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut *self.inner).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut *self.inner).poll_shutdown(context)
    }
}

async fn answer(
    State((directory, traffic)): State<(PathBuf, Arc<Traffic>)>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    traffic.requests.fetch_add(1, Ordering::Relaxed);
    let Ok(body) = std::fs::read(directory.join(uri.path().trim_start_matches('/'))) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let tag = format!(
        "\"{:x}-{:x}\"",
        body.len(),
        body.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte))
    );
    if headers.get(header::IF_NONE_MATCH).is_some_and(|asked| asked.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    (StatusCode::OK, [(header::ETAG, tag)], body).into_response()
}

// === what only these ask of the shared parts ===

impl World {
    fn timestamp(&self) -> Vec<u8> {
        std::fs::read(self.at.join("timestamp.json")).unwrap()
    }

    /// The last step of a publication.
    fn point_to(&self, timestamp: &[u8]) {
        let aside = self.at.join(".next");
        std::fs::write(&aside, timestamp).unwrap();
        std::fs::rename(aside, self.at.join("timestamp.json")).unwrap();
    }
}

impl Sidecar {
    async fn reaches(&self, serial: u64) {
        let mut client = self.client().await.unwrap();
        let mut watch = client.watch_policy(v1::WatchPolicyRequest {}).await.unwrap().into_inner();
        while let Some(told) = watch.message().await.unwrap() {
            if told.status.and_then(|status| status.policy).is_some_and(|policy| policy.serial >= serial) {
                return;
            }
        }
    }

    async fn generation(&self) -> u64 {
        let mut client = self.client().await.unwrap();
        let status =
            client.get_policy_status(v1::GetPolicyStatusRequest {}).await.unwrap().into_inner().status;
        status.and_then(|status| status.policy).map_or(0, |policy| policy.generation)
    }

    fn memory(&self) -> BundleMemory {
        // The mapping of the bundle alone: from its line to the next one.
        let all = std::fs::read_to_string(format!("/proc/{}/smaps", self.id())).unwrap();
        let mut inside = false;
        let bundle: String = all
            .lines()
            .filter(|line| {
                if line.split_whitespace().next().is_some_and(|first| first.contains('-')) {
                    inside = line.contains("/bundles/");
                }
                inside
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let Memory { resident, private, .. } = Memory::of(self.id());
        BundleMemory {
            resident,
            private,
            bundle: mebibytes(&bundle, &["Rss:"]),
            bundle_shared: mebibytes(&bundle, &["Shared_Clean:", "Shared_Dirty:"]),
        }
    }
}

/// Mebibytes, and of these what is the bundle's.
struct BundleMemory {
    resident: f64,
    private: f64,
    bundle: f64,
    bundle_shared: f64,
}
