#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::string_slice,
    reason = "tests"
)]
//! The sidecar as the chart runs it: the image of the `Dockerfile` under the arguments, user, groups and memory limit that
//! Helm renders by default, over volumes as a pod has them. Needs a Docker engine: `scripts/containers.sh`.
//!
//! What the chart renders is read, not repeated. Where a test changes a value it gives it to Helm.

mod common;
#[allow(dead_code, reason = "others use the rest")]
#[path = "common/containers.rs"]
mod containers;
#[allow(dead_code, reason = "others use the rest")]
#[path = "common/publisher.rs"]
mod publisher;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::*;
use containers::*;
use postern::proto::v1;
use postern::proto::v1::authorization_service_client::AuthorizationServiceClient;
use serde_json::Value;
use testcontainers::core::{AccessMode, Mount, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt};
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

/// Where the chart mounts what belongs to the sidecar.
const SOCKET: &str = "/run/postern";
const STATE: &str = "/var/lib/postern";
const ROOT: &str = "/etc/postern/trusted-root";
/// More than the image may have.
const LARGEST_IMAGE: u64 = 25 << 20;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

// === what the chart renders ===

/// What is put into a pod, as the injector is told by the chart.
struct Injection(Value);

impl Injection {
    /// Of the default profile, with these values beside the source.
    fn render(source: &str, values: &[&str]) -> Self {
        let source = format!("sidecar.policy.source={source}");
        let mut helm = Command::new(repository().join("scripts/helm.sh"));
        helm.current_dir(repository()).args(["template", "test", "charts/postern"]);
        helm.args(["--values", "tests/charts/cases/postern/published.yaml", "--set-string", &source]);
        for value in values {
            helm.args(["--set-json", value]);
        }
        let ran = helm.output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let text = String::from_utf8(ran.stdout).unwrap();
        let (_, block) =
            text.split_once("\n  injector.json: |\n").expect("the configuration of the injector");
        let json: String =
            block.lines().map_while(|line| line.strip_prefix("    ")).collect::<Vec<_>>().join("\n");
        let config: Value = serde_json::from_str(&json).unwrap();
        Self(config["profiles"]["default"].clone())
    }

    fn container(&self) -> &Value {
        &self.0["container"]
    }

    fn arguments(&self) -> Vec<String> {
        let arguments = self.container()["args"].as_array().unwrap();
        arguments.iter().map(|argument| argument.as_str().unwrap().to_owned()).collect()
    }

    fn flag(&self, name: &str) -> String {
        let begin = format!("--{name}=");
        let argument = self.arguments().into_iter().find(|argument| argument.starts_with(&begin));
        argument.unwrap_or_else(|| panic!("no {begin}"))[begin.len()..].to_owned()
    }

    fn memory(&self) -> u64 {
        bytes(self.container()["resources"]["limits"]["memory"].as_str().unwrap())
    }

    /// `USER:GROUP`, and the group of whoever may ask.
    fn identity(&self) -> (String, String) {
        let context = &self.container()["securityContext"];
        let user = format!("{}:{}", context["runAsUser"], context["runAsGroup"]);
        (user, self.0["podSecurityContext"]["supplementalGroups"][0].to_string())
    }

    fn size_of(&self, volume: &str) -> u64 {
        let volumes = self.0["volumes"].as_array().unwrap();
        let found = volumes.iter().find(|found| found["name"] == volume).unwrap();
        bytes(found["emptyDir"]["sizeLimit"].as_str().unwrap())
    }

    /// The container as the kubelet would start it, over these volumes.
    fn sidecar(&self, desk: &Desk, trusted_root: &str) -> ContainerRequest<GenericImage> {
        let context = &self.container()["securityContext"];
        for (field, wanted) in [
            ("readOnlyRootFilesystem", Value::Bool(true)),
            ("allowPrivilegeEscalation", Value::Bool(false)),
            ("runAsNonRoot", Value::Bool(true)),
        ] {
            assert_eq!(context[field], wanted, "{field}");
        }
        assert_eq!(context["capabilities"]["drop"], serde_json::json!(["ALL"]));
        let root = desk.0.path().join("root");
        std::fs::create_dir_all(&root).unwrap();
        std::fs::copy(trusted_root, root.join("root.json")).unwrap();
        open_up(&root, 0o755);
        open_up(&root.join("root.json"), 0o644);

        let (user, group) = self.identity();
        let memory = i64::try_from(self.memory()).unwrap();
        let bind = |path: &Path, to: &str| Mount::bind_mount(path.to_str().unwrap(), to);
        GenericImage::new(SIDECAR, TAG)
            .with_wait_for(WaitFor::message_on_stderr("listening"))
            .with_cmd(self.arguments())
            .with_user(user)
            .with_mount(bind(&root, ROOT).with_access_mode(AccessMode::ReadOnly))
            .with_mount(bind(&desk.state(), STATE))
            .with_readonly_rootfs(true)
            .with_cap_drop("ALL")
            .with_security_opt("no-new-privileges")
            .with_host_config_modifier(move |host| {
                host.memory = Some(memory);
                // No swap beside it, as on a node.
                host.memory_swap = Some(memory);
                host.group_add = Some(vec![group.clone()]);
            })
    }
}

/// `224Mi` or `64MiB`.
fn bytes(text: &str) -> u64 {
    let number: String = text.chars().take_while(char::is_ascii_digit).collect();
    let unit = match text[number.len()..].trim_end_matches('B') {
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        other => panic!("`{other}` in `{text}`"),
    };
    number.parse::<u64>().unwrap() * unit
}

// === a pod ===

/// The volume of the socket, in memory and as large as the chart says. Gone when dropped.
struct SocketVolume(String);

impl SocketVolume {
    fn new(injection: &Injection) -> Self {
        let name = unique("socket");
        let options = format!("o=size={},mode=0777", injection.size_of("postern-socket"));
        let kind = ["--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", &options];
        docker(&[&["volume", "create"], &kind[..], &[&name]].concat());
        Self(name)
    }

    fn mount(&self) -> Mount {
        Mount::volume_mount(&self.0, SOCKET)
    }

    /// What a container beside the sidecar says: the same image as a client, with nothing but the socket, read-only.
    fn client(&self, user: &str, arguments: &[&str]) -> Output {
        let volume = format!("{}:{SOCKET}:ro", self.0);
        let image = format!("{SIDECAR}:{TAG}");
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL"]);
        command.args(["--security-opt=no-new-privileges", "--user", user, "--volume", &volume]);
        command.args(["--env", &format!("POSTERN_CONNECT=unix://{SOCKET}/postern.sock"), &image]);
        command.args(arguments).output().unwrap()
    }
}

impl Drop for SocketVolume {
    fn drop(&mut self) {
        let _gone = Command::new("docker").args(["volume", "rm", "--force", &self.0]).output();
    }
}

/// What the engine says of a container.
fn state(container: &ContainerAsync<GenericImage>) -> Value {
    let all: Value = serde_json::from_str(&docker(&["inspect", container.id()])).unwrap();
    all[0].clone()
}

/// It was neither killed for its memory nor has it ended or begun anew.
fn still_the_same(container: &ContainerAsync<GenericImage>, started: &Value) {
    let now = state(container);
    let ended = || format!("{}\n{}", now["State"], log(container));
    assert_eq!(now["State"]["OOMKilled"], false, "{}", ended());
    assert_eq!(now["State"]["Running"], true, "{}", ended());
    assert_eq!(now["RestartCount"], 0);
    assert_eq!(now["State"]["StartedAt"], started["State"]["StartedAt"]);
}

/// Where the admin endpoint of a container is reached from here.
fn admin(container: &ContainerAsync<GenericImage>, injection: &Injection) -> SocketAddr {
    let state = state(container);
    let networks = state["NetworkSettings"]["Networks"].as_object().unwrap();
    let address = networks.values().next().unwrap()["IPAddress"].as_str().unwrap().parse().unwrap();
    let (_, port) =
        injection.flag("admin").rsplit_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    SocketAddr::new(address, port.parse().unwrap())
}

/// Sums the series of a metric whose labels have all of these.
fn number(metrics: &str, name: &str, labels: &[&str]) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    let fitting = lines.filter(|line| labels.iter().all(|label| line.contains(label)));
    fitting.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

/// What the kernel accounts to a container, by control groups of version 1 or 2: the peak, what cannot be given back, and
/// how often it stood at the limit. `None` where the files lie elsewhere.
fn accounted(container: &ContainerAsync<GenericImage>) -> Option<(u64, u64, u64)> {
    let id = container.id();
    let version_1 = PathBuf::from(format!("/sys/fs/cgroup/memory/docker/{id}"));
    let version_2 =
        [format!("/sys/fs/cgroup/system.slice/docker-{id}.scope"), format!("/sys/fs/cgroup/docker/{id}")];
    let read = |path: PathBuf| std::fs::read_to_string(path).ok();
    let whole = |path: PathBuf| read(path)?.trim().parse::<u64>().ok();
    let line = |path: PathBuf, key: &str| {
        let text = read(path)?;
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
        value.parse::<u64>().ok()
    };
    if let Some(peak) = whole(version_1.join("memory.max_usage_in_bytes")) {
        let held = line(version_1.join("memory.stat"), "total_rss")?;
        return Some((peak, held, whole(version_1.join("memory.failcnt"))?));
    }
    version_2.into_iter().map(PathBuf::from).find_map(|group| {
        let peak = whole(group.join("memory.peak"))?;
        Some((peak, line(group.join("memory.stat"), "anon")?, line(group.join("memory.events"), "max")?))
    })
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn tell_memory(what: &str, container: &ContainerAsync<GenericImage>, injection: &Injection) {
    let limit = mib(injection.memory());
    match accounted(container) {
        Some((peak, held, full)) => println!(
            "{what}: peak {} of {limit}, {} of it cannot be given back, at the limit {full} times",
            mib(peak),
            mib(held)
        ),
        None => {
            let usage = docker(&["stats", "--no-stream", "--format", "{{.MemUsage}}", container.id()]);
            println!("{what}: {usage} at the end, limit {limit}; the peak is not to be read here");
        }
    }
}

// === load ===

/// Callers that do not stop by themselves.
struct Load {
    enough: Arc<AtomicBool>,
    tasks: JoinSet<Calls>,
}

/// What became of calls.
#[derive(Debug, Default)]
struct Calls {
    /// Decisions in answers.
    decisions: u64,
    failed: Vec<(Code, String)>,
}

/// One more call; how many decisions came.
type Call = fn(Channel, u64) -> futures_util::future::BoxFuture<'static, Result<u64, tonic::Status>>;

impl Load {
    /// So many connections with so many callers each. A caller whose call fails is told no more.
    async fn start(socket: &Path, connections: usize, callers: usize, call: Call) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let numbers = Arc::new(AtomicU64::new(0));
        // All of them before the first call: whoever is there is there at the same moment.
        let mut channels = Vec::new();
        for _ in 0..connections {
            channels.push(connect_uds(socket).await);
        }
        for channel in channels {
            for _ in 0..callers {
                let (channel, enough, numbers) = (channel.clone(), Arc::clone(&enough), Arc::clone(&numbers));
                tasks.spawn(async move {
                    let mut calls = Calls::default();
                    while !enough.load(Ordering::Relaxed) {
                        match call(channel.clone(), numbers.fetch_add(1, Ordering::Relaxed)).await {
                            Ok(decisions) => calls.decisions += decisions,
                            Err(status) => {
                                calls.failed.push((status.code(), format!("{status:?}")));
                                break;
                            }
                        }
                    }
                    calls
                });
            }
        }
        Self { enough, tasks }
    }

    /// No call begins any more; what has begun is waited for.
    async fn end(self) -> Calls {
        self.enough.store(true, Ordering::Relaxed);
        self.ended().await
    }

    /// Until every caller has failed, or was told to end.
    async fn ended(self) -> Calls {
        let waits = tokio::time::timeout(DEADLINE * 3, self.tasks.join_all());
        waits.await.expect("every call has an end").into_iter().fold(Calls::default(), |mut all, one| {
            all.decisions += one.decisions;
            all.failed.extend(one.failed);
            all
        })
    }
}

fn batch(items: usize) -> v1::BatchCheckRequest {
    let one = request(ALICE, READ, &vault("app"));
    let item = v1::BatchCheckItem { action: one.action, resource: one.resource, ..Default::default() };
    v1::BatchCheckRequest { subject: one.subject, items: vec![item; items], ..Default::default() }
}

/// Checks, and every tenth time a large batch, so that there is always something that takes its time.
fn checks_and_batches(
    channel: Channel,
    number: u64,
) -> futures_util::future::BoxFuture<'static, Result<u64, tonic::Status>> {
    Box::pin(async move {
        let mut client = AuthorizationServiceClient::new(channel);
        if number.is_multiple_of(10) {
            let answer = client.batch_check(batch(500)).await?.into_inner();
            return Ok(answer.results.len() as u64);
        }
        client.check(request(ALICE, READ, &vault("app"))).await.map(|_| 1)
    })
}

// === the tests ===

#[test]
#[ignore = "needs Docker: scripts/containers.sh"]
fn the_image_is_one_binary_and_no_more() {
    image();
    let all: Value =
        serde_json::from_str(&docker(&["image", "inspect", &format!("{SIDECAR}:{TAG}")])).unwrap();
    let found = &all[0];
    let size = found["Size"].as_u64().unwrap();
    assert!(size < LARGEST_IMAGE, "{}", mib(size));
    let config = &found["Config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/postern"]));
    let version = env!("CARGO_PKG_VERSION");
    let label = |name: &str| {
        config["Labels"][format!("org.opencontainers.image.{name}")].as_str().unwrap().to_owned()
    };
    assert_eq!((label("title").as_str(), label("version").as_str()), ("postern", version));
    assert_eq!(label("licenses"), env!("CARGO_PKG_LICENSE"));
    assert!(!label("description").is_empty());
    assert_eq!(label("revision").len(), 40, "a commit");
    assert!(label("created").parse::<jiff::Timestamp>().is_ok());

    // Every file that is in it.
    let name = unique("files");
    docker(&["create", "--name", &name, &format!("{SIDECAR}:{TAG}")]);
    let ran = Command::new("sh").args(["-c", &format!("docker export {name} | tar t")]).output().unwrap();
    docker(&["rm", &name]);
    let listed = String::from_utf8(ran.stdout).unwrap();
    // The engine puts empty files and directories there for its own mounts.
    let files: Vec<&str> = listed.lines().filter(|path| !path.ends_with('/')).collect();
    let engine = [".dockerenv", "dev/console", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf"];
    let ours: Vec<&str> = files.into_iter().filter(|path| !engine.contains(path)).collect();
    assert_eq!(ours, ["etc/ssl/certs/ca-certificates.crt", "postern"]);
    println!("image: {}", mib(size));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Docker: scripts/containers.sh"]
async fn a_second_container_asks_over_the_shared_volume() {
    let place = Place::new().await;
    let _web = place.web().await;
    let injection = Injection::render(&place.url(), &[r#"sidecar.udsAllowUids="10001""#]);
    let (user, group) = injection.identity();
    let (volume, desk) = (SocketVolume::new(&injection), Desk::new());
    let sidecar = injection.sidecar(&desk, &place.publisher.root()).with_network(&place.network);
    let sidecar = sidecar.with_mount(volume.mount()).start().await.unwrap();
    let host = &state(&sidecar)["HostConfig"];
    assert_eq!(host["Memory"], injection.memory());
    assert_eq!(
        (&host["ReadonlyRootfs"], &host["CapDrop"]),
        (&Value::Bool(true), &serde_json::json!(["ALL"]))
    );
    assert_eq!(state(&sidecar)["Config"]["User"], user.as_str());

    // The probe of the chart passes when there is a policy.
    let admin = admin(&sidecar, &injection);
    let path = injection.container()["startupProbe"]["httpGet"]["path"].as_str().unwrap().to_owned();
    eventually("the startup probe", async || {
        let path = path.clone();
        tokio::task::spawn_blocking(move || get(admin, &path)).await.unwrap().0 == 200
    })
    .await;

    let listed = format!("10001:{group}");
    let question = ["--principal", ALICE, "--scope", &vault("app"), "--json", "--action"];
    for (action, code, decision) in
        [(READ, 0, "Allowed"), ("Microsoft.KeyVault/vaults/write", 3, "NotAllowed")]
    {
        let answer = volume.client(&listed, &[&["check"], &question[..], &[action]].concat());
        assert_eq!(answer.status.code(), Some(code), "{answer:?}");
        let told: Value = serde_json::from_slice(&answer.stdout).unwrap();
        assert_eq!(told["decision"], decision);
    }
    let status = volume.client(&listed, &["status", "--json"]);
    assert!(status.status.success(), "{status:?}");

    // The group lets in, the list does not: nobody is on it by being root, or the sidecar's own user.
    for stranger in [format!("10002:{group}"), user.clone(), format!("0:{group}")] {
        let answer = volume.client(&stranger, &["status"]);
        assert_eq!(answer.status.code(), Some(1), "{stranger}: {answer:?}");
    }
    let (_, metrics) = http(admin, "/metrics").await;
    assert!(number(&metrics, "postern_connections_refused_total", &["reason=\"peer\""]) >= 3, "{metrics}");
    // And the list alone does not: the mode of the socket is the group's.
    let outside = volume.client("10001:10001", &["status"]);
    assert_eq!(outside.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&outside.stderr).contains("ermission denied"), "{outside:?}");

    // What a pod's end is: SIGTERM, and as long as the chart says.
    docker(&["stop", "--time", &injection.0["drainSeconds"].to_string(), sidecar.id()]);
    assert_eq!(state(&sidecar)["State"]["ExitCode"], 0, "{}", log(&sidecar));
}

/// The sidecar with its socket and records where this process reaches them.
struct Pod {
    sidecar: ContainerAsync<GenericImage>,
    injection: Injection,
    desk: Desk,
    started: Value,
    admin: SocketAddr,
}

impl Pod {
    async fn start(place: &Place, values: &[&str]) -> Self {
        Self::over(place, Injection::render(&place.url(), values)).await
    }

    async fn over(place: &Place, injection: Injection) -> Self {
        let desk = Desk::new();
        let records = desk.0.path().join("records");
        std::fs::create_dir(&records).unwrap();
        open_up(&records, 0o777);
        // Whoever runs the tests need not be in the group of the socket.
        let mut arguments = injection.arguments();
        for argument in &mut arguments {
            if argument.starts_with("--uds-mode=") {
                *argument = "--uds-mode=0666".into();
            }
        }
        let sidecar = injection
            .sidecar(&desk, &place.publisher.root())
            .with_cmd(arguments)
            .with_network(&place.network)
            .with_mount(Mount::bind_mount(desk.run().to_str().unwrap(), SOCKET))
            .with_mount(Mount::bind_mount(records.to_str().unwrap(), "/var/log/postern"))
            .start()
            .await
            .unwrap();
        let (started, admin) = (state(&sidecar), admin(&sidecar, &injection));
        let pod = Self { sidecar, injection, desk, started, admin };
        let client = pod.desk.client().await;
        eventually("a policy", async || decision(&client).await.is_ok()).await;
        pod
    }

    fn socket(&self) -> PathBuf {
        self.desk.run().join("postern.sock")
    }

    /// It is the container that was started, it answers, and by which policy it does.
    async fn answers(&self) -> u64 {
        still_the_same(&self.sidecar, &self.started);
        let client = self.desk.client().await;
        assert_eq!(decision(&client).await.unwrap(), v1::Decision::Allowed);
        serial(&status(&client).await)
    }

    /// SIGTERM, and SIGKILL when the grace period of the pod is over; whether that was needed, the code says.
    fn stop(&self) {
        docker(&["stop", "--time", &self.injection.0["drainSeconds"].to_string(), self.sidecar.id()]);
        let end = state(&self.sidecar)["State"].clone();
        assert_eq!((&end["ExitCode"], &end["OOMKilled"]), (&Value::from(0), &Value::Bool(false)), "{end}");
    }

    /// Recorded decisions that allow, in all files. Questions from before there was a policy were not decided.
    fn allowed(&self) -> u64 {
        let files = std::fs::read_dir(self.desk.0.path().join("records")).unwrap();
        let lines = |path: PathBuf| {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines().filter(|line| line.contains("\"decision\":\"Allowed\"")).count() as u64
        };
        files.map(|file| lines(file.unwrap().path())).sum()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Docker: scripts/containers.sh"]
async fn drained_under_load_no_call_fails() {
    let place = Place::new().await;
    let _web = place.web().await;
    // An application that goes on asking until it is told not to: the sidecar says so before it ends.
    let pod = Pod::start(&place, &[r#"sidecar.drain.delay="2s""#]).await;
    let load = Load::start(&pod.socket(), 4, 8, checks_and_batches).await;
    let mut health = HealthClient::new(connect_uds(&pod.socket()).await);
    let watched = HealthCheckRequest { service: "postern.v1.AuthorizationService".into() };
    let mut watch = health.watch(watched).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let stopped = std::thread::scope(|scope| {
        let stop = scope.spawn(|| pod.stop());
        let told = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let next = watch.message().await.unwrap().unwrap().status();
                (next, load.end().await)
            })
        });
        stop.join().unwrap();
        told
    });
    let (told, calls) = stopped;
    assert_eq!(told, ServingStatus::NotServing);
    assert!(calls.failed.is_empty(), "{:?}", calls.failed);
    assert!(calls.decisions > 1_000, "{calls:?}");
    println!("drained with a delay: {} decisions, no call failed", calls.decisions);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Docker: scripts/containers.sh"]
async fn drained_without_notice_every_decision_is_answered() {
    let place = Place::new().await;
    let _web = place.web().await;
    // As the chart has it: nothing is left to wait for when the sidecar is stopped. Callers that ask all the same are told
    // nothing wrong: what was decided was answered, the rest found nobody.
    let values = ["sidecar.records.file=true", r#"sidecar.records.whenFull="block:1s""#];
    let pod = Pod::start(&place, &values).await;
    let admin = pod.admin;
    let before =
        number(&http(admin, "/metrics").await.1, "postern_decisions_total", &["outcome=\"Allowed\""]);
    let load = Load::start(&pod.socket(), 4, 8, checks_and_batches).await;
    eventually("a thousand decisions", async || {
        number(&http(admin, "/metrics").await.1, "postern_decisions_total", &["outcome=\"Allowed\""])
            > before + 1_000
    })
    .await;
    tokio::task::block_in_place(|| pod.stop());
    let calls = load.ended().await;
    for (code, status) in &calls.failed {
        // Nobody there any more, or a connection that took no more calls. That no answer got lost is told below.
        let sent_away = status.contains("GoAway(b\"\", NO_ERROR, Remote)");
        let closed = ["BrokenPipe", "ConnectionReset"].iter().any(|kind| status.contains(kind));
        assert!(matches!(code, Code::Unavailable | Code::Cancelled) || sent_away || closed, "{status}");
    }
    assert_eq!(calls.failed.len(), 4 * 8, "nobody is left to answer");
    let log = log(&pod.sidecar);
    assert!(!log.contains("cutting what is still open"), "{log}");
    // Those of the test's own questions before the load are recorded, too.
    assert_eq!(calls.decisions + before, pod.allowed(), "{log}");
    println!("drained without notice: {} decisions, each answered", calls.decisions);
}

/// A Check of about this size, in groups that nobody is in.
fn large_request(bytes: usize) -> v1::CheckRequest {
    let mut asked = request(ALICE, READ, &vault("app"));
    let group = |number: usize| format!("b0000000-0000-4000-9000-{number:012}");
    asked.subject.as_mut().unwrap().group_ids = (0..bytes / 38).map(group).collect();
    asked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Docker: scripts/containers.sh"]
async fn input_larger_than_the_memory_is_refused() {
    let place = Place::new().await;
    let _web = place.web().await;
    let pod = Pod::start(&place, &[]).await;
    let limit = usize::try_from(pod.injection.memory()).unwrap();
    tell_memory("after the start", &pod.sidecar, &pod.injection);

    // One message, from a little too large to larger than the container.
    let client = AuthorizationServiceClient::new(connect_uds(&pod.socket()).await)
        .max_encoding_message_size(usize::MAX);
    for size in [3 << 20, 64 << 20, limit + (64 << 20)] {
        let refused = client.clone().check(large_request(size)).await.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange, "{size}: {refused:?}");
    }
    // One that fits, with more questions than there may be, and one that only says how large it is.
    let refused = client.clone().batch_check(batch(2_000)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert_eq!(claims(&pod.socket(), u32::MAX).await, "11", "OUT_OF_RANGE");
    pod.answers().await;
    tell_memory("after messages that are too large", &pod.sidecar, &pod.injection);

    // As many as there may be at a time, each as large as may be, all at once and again and again: five times the memory.
    let load = Load::start(&pod.socket(), 64, 16, |channel, _| {
        Box::pin(async move {
            match client_of(channel).check(heavy_request((1 << 20) - (4 << 10))).await {
                Ok(_) => Ok(1),
                // There were too many: told as the contract has it, and asked again.
                Err(status) if is_shed(&status) => Ok(0),
                // A message that others kept from coming through in half a minute.
                Err(status) if status.code() == Code::DeadlineExceeded => Ok(0),
                Err(status) => Err(status),
            }
        })
    })
    .await;
    let shed = "postern_requests_shed_total";
    let began = number(&http(pod.admin, "/metrics").await.1, shed, &[]);
    for round in 0..30 {
        // Whoever asks something small meanwhile is answered, or told to come again.
        let asked = client.clone().check(request(ALICE, READ, &vault("app"))).await;
        still_the_same(&pod.sidecar, &pod.started);
        assert!(asked.as_ref().map_or_else(is_shed, |_| true), "round {round}: {asked:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    still_the_same(&pod.sidecar, &pod.started);
    let calls = load.end().await;
    assert!(calls.failed.is_empty(), "{:?}", calls.failed.first());
    let told = number(&http(pod.admin, "/metrics").await.1, shed, &[]) - began;
    tell_memory(&format!("after a flood ({told} were told to come again)"), &pod.sidecar, &pod.injection);
    eventually("an answer", async || decision(&pod.desk.client().await).await.is_ok()).await;
    pod.answers().await;
}

/// A Check of about this size, in one attribute that nothing reads.
fn heavy_request(bytes: usize) -> v1::CheckRequest {
    let value = v1::attribute_value::Value::Text("x".repeat(bytes));
    let attribute = v1::AttributeValue { value: Some(value) };
    let environment_attributes = [("note".to_owned(), attribute)].into();
    v1::CheckRequest { environment_attributes, ..request(ALICE, READ, &vault("app")) }
}

/// What is answered to a message whose length is announced and that never comes.
async fn claims(socket: &Path, length: u32) -> String {
    let connection = tokio::net::UnixStream::connect(socket).await.unwrap();
    let (mut requests, driver) = h2::client::handshake(connection).await.unwrap();
    let driver = tokio::spawn(driver);
    let request = tonic::codegen::http::Request::post("http://sidecar/postern.v1.AuthorizationService/Check")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let (answer, mut body) = requests.send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data([&[0], &length.to_be_bytes()[..]].concat().into(), false).unwrap();
    let answer = tokio::time::timeout(DEADLINE, answer).await.unwrap().unwrap();
    driver.abort();
    answer.headers()["grpc-status"].to_str().unwrap().to_owned()
}

fn client_of(channel: Channel) -> AuthorizationServiceClient<Channel> {
    AuthorizationServiceClient::new(channel)
}

fn is_shed(status: &tonic::Status) -> bool {
    let reason = status.get_details_error_info().map(|info| info.reason);
    status.code() == Code::ResourceExhausted && reason.as_deref() == Some("TOO_MANY_REQUESTS")
}

// === bundles as large as they may be ===

/// So many role assignments, each of somebody else, at a place that four have.
fn write_many(dir: &Path, count: usize) {
    let role = role_definition_id();
    let mut text = String::new();
    for number in 0..count {
        let scope = format!("{SUBSCRIPTION}/resourceGroups/rg-{:06}", number / 4);
        let line = format!(
            "{{\"name\":\"d0000000-0000-4000-9000-{number:012}\",\"principalId\":\"{}\",\"principalType\":\"User\",\
             \"roleDefinitionId\":\"{role}\",\"scope\":\"{scope}\"}}",
            holder(number)
        );
        writeln!(text, "{line}").unwrap();
    }
    std::fs::write(dir.join("many.jsonl"), text).unwrap();
}

fn holder(number: usize) -> String {
    format!("a0000000-0000-4000-9000-{number:012}")
}

/// With the binary of the image: a debug build takes minutes for what takes it seconds.
fn publish(place: &Place, message: &str) -> (u64, u64) {
    let dir = &place.publisher.dir;
    let keys = dir.path().join("keys");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    let mut command = Command::new(target.join("image/postern"));
    command.arg("publish").arg(place.publisher.policy.path()).arg("--to").arg(place.publisher.repository());
    command.arg("--keys").arg(keys).args(["--force", "--json", "--by", "the tests", "--message", message]);
    let ran = command.output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let told: Value = serde_json::from_slice(&ran.stdout).unwrap();
    (told["serial"].as_u64().unwrap(), told["bundleLength"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Docker: scripts/containers.sh"]
async fn bundles_as_large_as_the_budget_are_swapped_within_the_limit() {
    const TRIAL: usize = 20_000;
    let place = Place::new().await;
    let policy = place.publisher.policy.path();
    let injection = Injection::render(&place.url(), &[r#"sidecar.pollInterval="200ms""#]);
    let budget = bytes(&injection.flag("max-bundle-bytes"));
    // How many fit is found out, not repeated: by the size of a smaller one.
    write_many(policy, TRIAL);
    let (_, length) = publish(&place, "a smaller one");
    let fit = usize::try_from(budget * 92 / 100 * TRIAL as u64 / length).unwrap();
    write_many(policy, fit);
    let (first, length) = publish(&place, "as large as may be");
    assert!(length <= budget && length > budget * 9 / 10, "{length} of {budget}");

    let _web = place.web().await;
    let pod = Pod::over(&place, injection).await;
    assert_eq!(pod.answers().await, first);
    println!("{fit} role assignments, bundles of {}", mib(length));
    tell_memory("with the first", &pod.sidecar, &pod.injection);

    // Questions all over the policy, so that every page of the old one and of the new one is in use.
    static HOLDERS: AtomicU64 = AtomicU64::new(0);
    HOLDERS.store(fit as u64, Ordering::Relaxed);
    let load = Load::start(&pod.socket(), 2, 2, |channel, number| {
        Box::pin(async move {
            let holders = HOLDERS.load(Ordering::Relaxed);
            // A step that has no divisor in common with the number of holders gets around.
            let holder_number = usize::try_from(number.wrapping_mul(7_919) % holders).unwrap();
            let scope = format!("{SUBSCRIPTION}/resourceGroups/rg-{:06}", holder_number / 4);
            let asked = request(&holder(holder_number), READ, &scope);
            let answer = client_of(channel).check(asked).await?.into_inner();
            assert_eq!(answer.result.unwrap().decision(), v1::Decision::Allowed);
            Ok(1)
        })
    })
    .await;
    let client = pod.desk.client().await;
    let (mut last, mut swaps) = (first, 0);
    let mut swap = async |count: usize| {
        // Another bundle of the same size: one assignment comes or goes.
        for _ in 0..count {
            swaps += 1;
            write_many(policy, fit - swaps % 2);
            HOLDERS.store(fit as u64 - 1, Ordering::Relaxed);
            let (next, length) = publish(&place, "and another");
            assert!(length > budget * 9 / 10);
            reaches(&client, next).await;
            still_the_same(&pod.sidecar, &pod.started);
            tell_memory(&format!("after publication {next}"), &pod.sidecar, &pod.injection);
            last = next;
        }
    };
    swap(3).await;
    // With less than two bundles take: their pages are what can be given back.
    let less = budget / 2 * 3;
    let less_text = less.to_string();
    docker(&["update", "--memory", &less_text, "--memory-swap", &less_text, pod.sidecar.id()]);
    println!("the limit is {} from here on", mib(less));
    swap(2).await;

    // One that is larger than the budget is refused by what is signed, and costs nothing.
    write_many(policy, fit + fit / 10);
    let (_, length) = publish(&place, "too large");
    assert!(length > budget);
    tells(&client, "is larger than").await;
    let calls = load.end().await;
    assert!(calls.failed.is_empty(), "{:?}", calls.failed.first());
    assert_eq!(pod.answers().await, last);
    let (_, metrics) = http(pod.admin, "/metrics").await;
    println!("{} checks meanwhile, none failed", calls.decisions);
    assert_eq!(number(&metrics, "postern_policy_activations_total", &[]), 6);
    tell_memory("at the end", &pod.sidecar, &pod.injection);
    pod.stop();
}
