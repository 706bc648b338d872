//! How a sidecar behaves towards who comes, how many and how late, and on which machine: real processes, real sockets,
//! real users.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

mod common;

use std::fs::{self, Permissions};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::*;
use postern::proto::v1;
use postern::proto::v1::authorization_service_client::AuthorizationServiceClient;
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

/// A socket that every user of the machine may connect to.
struct Socket {
    _dir: TempDir,
    path: PathBuf,
}

fn open_socket() -> Socket {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let path = dir.path().join("postern.sock");
    Socket { _dir: dir, path }
}

/// A number of the metrics, 0 when there is none of this name and labels.
async fn number(process: &Process, line: &str) -> u64 {
    let (_, metrics) = http(process.admin, "/metrics").await;
    let value = metrics.lines().find_map(|found| found.strip_prefix(line));
    value.map_or(0, |value| value.trim().parse().unwrap())
}

/// `postern status` over the socket, by this user and group.
fn status_as(socket: &Path, who: Option<(u32, u32)>) -> Output {
    let mut command = postern();
    command.args(["status", "--connect"]).arg(format!("unix://{}", socket.display()));
    if let Some((uid, gid)) = who {
        command.uid(uid).gid(gid);
    }
    command.output().unwrap()
}

/// Only root can be somebody else.
fn is_root() -> bool {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        eprintln!("SKIPPED: only root can start clients of other users");
    }
    root
}

// === who may ask ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_answers_those_who_are_listed() {
    let (policy, socket) = (policy(), open_socket());
    let own = fs::metadata("/proc/self").unwrap();
    let own = (own.uid(), own.gid());
    let start = |lists: &[&str]| {
        let base = ["--uds", socket.path.to_str().unwrap(), "--uds-mode", "0666"];
        Process::start(policy.path(), &[&base, lists].concat(), &[])
    };
    let refused = "postern_connections_refused_total{reason=\"peer\",transport=\"unix\"}";

    let (uid, gid) = (own.0.to_string(), own.1.to_string());
    for list in [["--uds-allow-uids", &uid], ["--uds-allow-gids", &gid]] {
        let process = start(&list);
        process.ready().await;
        let output = status_as(&socket.path, None);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(number(&process, refused).await, 0);
    }

    let process = start(&["--uds-allow-uids", "54321", "--uds-allow-gids", "54322"]);
    process.ready().await;
    for _ in 0..3 {
        let output = status_as(&socket.path, None);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
    // A client may try again by itself.
    assert!(number(&process, refused).await >= 3);
    let told = format!("uid {}, gid {}, pid ", own.0, own.1);
    assert_eq!(process.log().matches(&told).count(), 1, "once, not each time: {}", process.log());
    assert_eq!(number(&process, "postern_connections{transport=\"unix\"}").await, 0);

    if is_root() {
        for (who, may) in [((54321, 9), true), ((9, 54322), true), ((9, 9), false), ((54322, 54321), false)] {
            let output = status_as(&socket.path, Some(who));
            assert_eq!(output.status.success(), may, "{who:?}: {output:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_lists_the_mode_decides() {
    if !is_root() {
        return;
    }
    let (policy, socket) = (policy(), open_socket());
    let process =
        Process::start(policy.path(), &["--uds", socket.path.to_str().unwrap(), "--uds-mode", "0660"], &[]);
    process.ready().await;
    let output = status_as(&socket.path, Some((9, 9)));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"), "{output:?}");
    fs::set_permissions(&socket.path, Permissions::from_mode(0o666)).unwrap();
    assert!(status_as(&socket.path, Some((9, 9))).status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_is_closed() {
    let (policy, socket) = (policy(), open_socket());
    let arguments = ["--uds", socket.path.to_str().unwrap(), "--max-connections", "1"];
    let process = Process::start(policy.path(), &arguments, &[]);
    process.ready().await;
    let first = connect_uds(&socket.path).await;
    // The greeting is answered, so it is the one that is open.
    let open = "postern_connections{transport=\"unix\"}";
    eventually("the first", async || number(&process, open).await == 1).await;
    assert!(!status_as(&socket.path, None).status.success());
    let refused = "postern_connections_refused_total{reason=\"limit\",transport=\"unix\"}";
    assert!(number(&process, refused).await > 0);
    // The other listener has places of its own.
    connect_tcp(process.tcp).await;
    drop(first);
    eventually("a place", async || status_as(&socket.path, None).status.success()).await;
}

// === mutual TLS ===

/// Signs certificates.
struct Authority(Issuer<'static, KeyPair>, String);

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self(Issuer::new(params, key), pem)
    }

    /// Certificate and key of a client with these URIs.
    fn client(&self, uris: &[&str]) -> (String, String) {
        self.sign(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect())
    }

    /// Certificate and key of a server on this machine.
    fn server(&self) -> (String, String) {
        self.sign(vec![SanType::IpAddress("127.0.0.1".parse().unwrap())])
    }

    /// The same, that ends with a year.
    fn server_until(&self, year: i32) -> (String, String) {
        self.sign_until(vec![SanType::IpAddress("127.0.0.1".parse().unwrap())], year)
    }

    fn sign(&self, names: Vec<SanType>) -> (String, String) {
        self.sign_until(names, 4096)
    }

    fn sign_until(&self, names: Vec<SanType>, year: i32) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names;
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// Authorities of servers and of clients, and the files of a sidecar.
struct Trust {
    dir: TempDir,
    servers: Authority,
    clients: Authority,
}

impl Trust {
    fn new() -> Self {
        let trust =
            Self { dir: tempfile::tempdir().unwrap(), servers: Authority::new(), clients: Authority::new() };
        let (cert, key) = trust.servers.server();
        trust.write("cert.pem", &cert);
        trust.write("key.pem", &key);
        trust.write("clients.pem", &trust.clients.1);
        trust.write("servers.pem", &trust.servers.1);
        trust
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        let aside = self.dir.path().join(".next");
        fs::write(&aside, text).unwrap();
        fs::rename(aside, self.path(name)).unwrap();
    }

    fn serve(&self, policy: &Path, more: &[&str]) -> Process {
        let (cert, key, ca) = (self.path("cert.pem"), self.path("key.pem"), self.path("clients.pem"));
        let files = ["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca];
        Process::start(policy, &[&files, more].concat(), &[])
    }

    /// A client that trusts the authority of servers, and shows this, if anything.
    async fn connect(&self, to: SocketAddr, shows: Option<&(String, String)>) -> Result<Channel, String> {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.servers.1));
        if let Some((cert, key)) = shows {
            tls = tls.identity(Identity::from_pem(cert, key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{to}")).unwrap().tls_config(tls).unwrap();
        endpoint.connect().await.map_err(|error| format!("{error:?}"))
    }

    /// What a call says.
    async fn asks(&self, to: SocketAddr, shows: Option<&(String, String)>) -> Result<v1::Decision, String> {
        check(&self.connect(to, shows).await?).await
    }
}

async fn check(channel: &Channel) -> Result<v1::Decision, String> {
    let asked = request(ALICE, READ, &vault("app"));
    let answer = AuthorizationServiceClient::new(channel.clone()).check(asked).await;
    let answer = answer.map_err(|status| format!("{status:?}"))?;
    Ok(answer.into_inner().result.unwrap().decision())
}

async fn refused(process: &Process, reason: &str) -> u64 {
    let line = format!("postern_connections_refused_total{{reason=\"{reason}\",transport=\"tcp\"}}");
    number(process, &line).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_shows_a_certificate_of_the_authority() {
    let (trust, policy) = (Trust::new(), policy());
    // On every address, as mutual TLS allows.
    let mut command = postern();
    command.args(["serve", "--policy", policy.path().to_str().unwrap(), "--tcp", "0.0.0.0:0"]);
    command.args(["--admin", "127.0.0.1:0", "--log-format", "json", "--tls-cert", &trust.path("cert.pem")]);
    command.args(["--tls-key", &trust.path("key.pem"), "--tls-client-ca", &trust.path("clients.pem")]);
    let process = Process::spawn(&mut command);
    process.ready().await;
    let to = SocketAddr::from(([127, 0, 0, 1], process.tcp.port()));
    let good = trust.clients.client(&[]);
    assert_eq!(trust.asks(to, Some(&good)).await, Ok(v1::Decision::Allowed));
    assert_eq!(refused(&process, "handshake").await, 0);

    // The alert may be lost behind what the client has sent meanwhile, so only the refusal is sure.
    assert!(trust.asks(to, None).await.is_err());
    assert!(trust.asks(to, Some(&Authority::new().client(&[]))).await.is_err());
    // Neither what signs servers, nor no TLS at all.
    assert!(trust.asks(to, Some(&trust.servers.client(&[]))).await.is_err());
    eventually("three refusals", async || refused(&process, "handshake").await >= 3).await;
    let before = refused(&process, "handshake").await;
    let plain = Endpoint::from_shared(format!("http://{to}")).unwrap().connect_lazy();
    assert!(check(&plain).await.is_err());
    eventually("one more", async || refused(&process, "handshake").await > before).await;
    assert_eq!(refused(&process, "identity").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_those_who_are_vouched_for_the_named_may_ask() {
    let (trust, policy) = (Trust::new(), policy());
    let allowed = "spiffe://example.org/ns/payments/*,spiffe://example.org/ns/shop/sa/web";
    let process = trust.serve(policy.path(), &["--tls-allow-spiffe", allowed]);
    process.ready().await;
    let asks = async |uris: &[&str]| trust.asks(process.tcp, Some(&trust.clients.client(uris))).await;
    for one in ["spiffe://example.org/ns/payments/sa/api", "spiffe://example.org/ns/shop/sa/web"] {
        assert_eq!(asks(&[one]).await, Ok(v1::Decision::Allowed), "{one}");
    }
    for others in [
        &["spiffe://example.org/ns/shop/sa/other"][..],
        &["spiffe://evil.org/ns/payments/sa/api"],
        &["spiffe://example.org/ns/payments/sa/api", "spiffe://example.org/ns/shop/sa/web"],
        &[],
    ] {
        let before = refused(&process, "identity").await;
        assert!(asks(others).await.is_err(), "{others:?}");
        eventually("a refusal", async || refused(&process, "identity").await > before).await;
    }
    // The name does not help where nobody vouches for it.
    let forged = Authority::new().client(&["spiffe://example.org/ns/shop/sa/web"]);
    assert!(trust.asks(process.tcp, Some(&forged)).await.is_err());
    let told = "`tls-allow-spiffe` does not let in `spiffe://example.org/ns/shop/sa/other`";
    assert!(process.log().contains(told), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_followed_while_serving() {
    let (trust, policy) = (Trust::new(), policy());
    let process = trust.serve(policy.path(), &[]);
    process.ready().await;
    let client = trust.clients.client(&[]);
    let old = trust.connect(process.tcp, Some(&client)).await.unwrap();
    assert_eq!(check(&old).await, Ok(v1::Decision::Allowed));
    let reloads = async |outcome: &str| {
        number(&process, &format!("postern_tls_reloads_total{{outcome=\"{outcome}\"}}")).await
    };

    // A key that is none of this certificate changes nothing, and is told once.
    let (cert, key) = trust.servers.server();
    trust.write("key.pem", &key);
    eventually("the refusal", async || reloads("refused").await == 1).await;
    assert_eq!(trust.asks(process.tcp, Some(&client)).await, Ok(v1::Decision::Allowed));
    assert!(
        process.log().contains("the new certificates cannot be used, the older ones stay: "),
        "{}",
        process.log()
    );
    trust.write("cert.pem", &cert);
    eventually("the new pair", async || reloads("taken").await == 1).await;

    // All files that are no certificates are told at once.
    trust.write("cert.pem", "no certificate");
    trust.write("clients.pem", "no authority");
    eventually("the refusal", async || reloads("refused").await >= 2).await;
    eventually("both files in the log", async || {
        let log = process.log();
        let last = log.lines().rfind(|line| line.contains("the older ones stay")).unwrap_or_default();
        last.contains("(`--tls-cert`)") && last.contains("(`--tls-client-ca`)")
    })
    .await;
    assert_eq!(trust.asks(process.tcp, Some(&client)).await, Ok(v1::Decision::Allowed));

    // Another authority: who comes needs its signature, who is here stays.
    let next = Authority::new();
    let (cert, key) = trust.servers.server();
    let before = reloads("taken").await;
    trust.write("cert.pem", &cert);
    trust.write("key.pem", &key);
    trust.write("clients.pem", &next.1);
    eventually("the next authority", async || reloads("taken").await > before).await;
    eventually("its client", async || trust.asks(process.tcp, Some(&next.client(&[]))).await.is_ok()).await;
    assert!(trust.asks(process.tcp, Some(&client)).await.is_err());
    assert_eq!(check(&old).await, Ok(v1::Decision::Allowed), "the connection of before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_metric_says_when_the_certificate_ends() {
    let (trust, policy) = (Trust::new(), policy());
    // Of a chain it is the first end; the authority's own is far away.
    let write = |year: i32| {
        let (cert, key) = trust.servers.server_until(year);
        trust.write("key.pem", &key);
        trust.write("cert.pem", &(cert + &trust.servers.1));
    };
    // New year's days in seconds since 1970.
    let (in_2040, in_2055) = (2_208_988_800, 2_682_374_400);
    write(2040);
    let process = trust.serve(policy.path(), &[]);
    process.ready().await;
    let ends = async || number(&process, "postern_tls_certificate_expires_timestamp_seconds").await;
    eventually("the end of the first", async || ends().await == in_2040).await;
    write(2055);
    eventually("the end of the second", async || ends().await == in_2055).await;
    // What is refused ends nothing.
    let refused = "postern_tls_reloads_total{outcome=\"refused\"}";
    let before = number(&process, refused).await;
    trust.write("cert.pem", "no certificate");
    eventually("the refusal", async || number(&process, refused).await > before).await;
    assert_eq!(ends().await, in_2055);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mounted_secret_is_swapped_by_its_link() {
    let (trust, policy) = (Trust::new(), policy());
    // As Kubernetes mounts it: files are links through one link that is replaced.
    let mount = tempfile::tempdir().unwrap();
    let (next, link) = (Authority::new(), mount.path().join("..data"));
    for (version, authority) in [("1", &trust.clients), ("2", &next)] {
        let folder = mount.path().join(version);
        fs::create_dir(&folder).unwrap();
        let (cert, key) = trust.servers.server();
        for (name, text) in [("tls.crt", &cert), ("tls.key", &key), ("ca.crt", &authority.1)] {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    symlink("1", &link).unwrap();
    let file = |name: &str| {
        symlink(format!("..data/{name}"), mount.path().join(name)).unwrap();
        mount.path().join(name).to_str().unwrap().to_owned()
    };
    let (cert, key, ca) = (file("tls.crt"), file("tls.key"), file("ca.crt"));
    let files = ["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca];
    let process = Process::start(policy.path(), &files, &[]);
    process.ready().await;
    assert!(trust.asks(process.tcp, Some(&trust.clients.client(&[]))).await.is_ok());
    symlink("2", mount.path().join("..next")).unwrap();
    fs::rename(mount.path().join("..next"), &link).unwrap();
    eventually("the next", async || trust.asks(process.tcp, Some(&next.client(&[]))).await.is_ok()).await;
    assert!(trust.asks(process.tcp, Some(&trust.clients.client(&[]))).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_hangs_holds_up_nobody_and_is_cut() {
    let (trust, policy) = (Trust::new(), policy());
    let process = trust.serve(policy.path(), &["--max-connections", "9"]);
    process.ready().await;
    let mut silent: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(process.tcp).unwrap()).collect();
    let client = trust.clients.client(&[]);
    let open = "postern_connections{transport=\"tcp\"}";
    eventually("eight", async || number(&process, open).await == 8).await;
    assert_eq!(trust.asks(process.tcp, Some(&client)).await, Ok(v1::Decision::Allowed));
    let cut = tokio::task::spawn_blocking(move || {
        for connection in &mut silent {
            connection.set_read_timeout(Some(DEADLINE)).unwrap();
            assert_eq!(connection.read(&mut [0; 1]).unwrap_or(0), 0);
        }
    });
    cut.await.unwrap();
    eventually("eight", async || refused(&process, "timeout").await == 8).await;
}

#[test]
fn what_cannot_be_served_is_refused_at_the_start() {
    let (trust, policy) = (Trust::new(), policy());
    let (cert, key, ca) = (trust.path("cert.pem"), trust.path("key.pem"), trust.path("clients.pem"));
    let serve = |arguments: &[&str]| {
        let mut command = postern();
        command
            .args(["serve", "--admin", "off", "--policy", policy.path().to_str().unwrap()])
            .args(arguments);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = serve(&["--tcp", "0.0.0.0:0"]);
    assert_eq!(code, Some(2));
    assert!(told.contains("flag `--tcp` is `0.0.0.0:0`; wanted a loopback address"), "{told}");
    let (code, told) = serve(&["--tcp", "0.0.0.0:0", "--tls-cert", &cert]);
    assert_eq!(code, Some(2));
    assert!(told.contains("tls-key") && told.contains("tls-client-ca"), "{told}");
    // Files in the places of each other, and one that is missing.
    let (code, told) = serve(&["--tls-cert", &key, "--tls-key", &cert, "--tls-client-ca", "/nonexistent/ca"]);
    assert_eq!(code, Some(1));
    for named in ["(`--tls-cert`)", "(`--tls-key`)", "`/nonexistent/ca` (`--tls-client-ca`): No such file"] {
        assert!(told.contains(named), "{named} not in {told}");
    }
    trust.write("key.pem", &KeyPair::generate().unwrap().serialize_pem());
    let (code, told) = serve(&["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca]);
    assert_eq!(code, Some(1));
    assert!(told.contains("(`--tls-cert`): with the key"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_speaks_mutual_tls() {
    let (trust, policy) = (Trust::new(), policy());
    let process = trust.serve(policy.path(), &[]);
    process.ready().await;
    let (cert, key) = trust.clients.client(&[]);
    trust.write("me.pem", &cert);
    trust.write("me.key", &key);
    let (cert, key, ca) = (trust.path("me.pem"), trust.path("me.key"), trust.path("servers.pem"));
    let address = format!("https://{}", process.tcp);
    let run = |arguments: &[&str]| {
        let output = postern().args(arguments).args(["--connect", &address]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let all = ["--tls-ca", &ca, "--tls-cert", &cert, "--tls-key", &key];
    assert_eq!(run(&[&["status"][..], &all].concat()), (Some(0), String::new()));
    let question = ["check", "--principal", ALICE, "--action", READ, "--scope", &vault("app")];
    assert_eq!(run(&[&question[..], &all].concat()), (Some(0), String::new()));
    let (code, told) = run(&["status", "--tls-ca", &ca]);
    assert_eq!(code, Some(1));
    assert!(told.contains("cannot reach `https://"), "{told}");
    let (code, told) = run(&["status", "--tls-cert", &cert, "--tls-key", &key]);
    assert_eq!(code, Some(1), "an authority that the system does not know");
    assert!(told.contains("UnknownIssuer"), "{told}");
    let output = postern().args(["status", "--connect", "unix:///s", "--tls-ca", &ca]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

// === how many, and how late ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_too_many_is_told_so_and_health_is_answered() {
    let (policy, socket) = (policy(), open_socket());
    let arguments = ["--uds", socket.path.to_str().unwrap(), "--max-concurrent-requests", "1"];
    let process = Process::start(policy.path(), &arguments, &[]);
    process.ready().await;
    let channel = connect_tcp(process.tcp).await;
    // A call whose message never comes holds the one place there is.
    let hold = || {
        let (held, message) = tokio::sync::mpsc::channel::<v1::CheckRequest>(1);
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        let waiting = tokio::spawn(async move {
            grpc.ready().await.unwrap();
            let path = "/postern.v1.AuthorizationService/Check".parse().unwrap();
            let codec = tonic_prost::ProstCodec::<v1::CheckRequest, v1::CheckResponse>::default();
            let asked = tonic::Request::new(tokio_stream::wrappers::ReceiverStream::new(message));
            grpc.client_streaming(asked, path, codec).await
        });
        (held, waiting)
    };
    let mut holder = hold();

    // Of both listeners together.
    let other = connect_uds(&socket.path).await;
    let client = AuthorizationServiceClient::new(other.clone());
    let asked = request(ALICE, READ, &vault("app"));
    eventually("a refusal", async || {
        // It may have come while one of these calls held the place.
        if holder.1.is_finished() {
            holder = hold();
        }
        client.clone().check(asked.clone()).await.is_err() && !holder.1.is_finished()
    })
    .await;
    let (held, waiting) = holder;
    let refusal = client.clone().check(asked.clone()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal:?}");
    let info = refusal.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["limit"].as_str()), ("TOO_MANY_REQUESTS", "1"));
    let health = HealthCheckRequest::default();
    assert!(HealthClient::new(other).check(health).await.is_ok());
    assert!(number(&process, "postern_requests_shed_total{reason=\"limit\",transport=\"unix\"}").await >= 1);

    held.send(asked.clone()).await.unwrap();
    drop(held);
    let answer: v1::CheckResponse = waiting.await.unwrap().unwrap().into_inner();
    assert_eq!(answer.result.unwrap().decision(), v1::Decision::Allowed);
    eventually("the place", async || client.clone().check(asked.clone()).await.is_ok()).await;
}

/// Frames of our own: the client of tonic sends only what is right.
struct Frames {
    client: h2::client::SendRequest<bytes::Bytes>,
    address: SocketAddr,
}

/// A call that is open on both sides.
struct OpenCall {
    answer: h2::client::ResponseFuture,
    message: h2::SendStream<bytes::Bytes>,
}

impl Frames {
    async fn connect(address: SocketAddr) -> Self {
        let connection = tokio::net::TcpStream::connect(address).await.unwrap();
        let (client, connection) = h2::client::handshake(connection).await.unwrap();
        tokio::spawn(connection);
        Self { client, address }
    }

    async fn call(&self, path: &str, headers: &[(&str, &str)]) -> OpenCall {
        let mut call = tonic::codegen::http::Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            call = call.header(*name, *value);
        }
        let mut client = self.client.clone().ready().await.unwrap();
        let (answer, message) = client.send_request(call.body(()).unwrap(), false).unwrap();
        OpenCall { answer, message }
    }

    async fn check(&self, headers: &[(&str, &str)]) -> OpenCall {
        self.call("/postern.v1.AuthorizationService/Check", headers).await
    }
}

impl OpenCall {
    /// More of the message; with the last piece this side is done. A call that is answered already takes no more.
    fn send(&mut self, piece: &[u8], last: bool) {
        let _answered = self.message.send_data(bytes::Bytes::copy_from_slice(piece), last);
    }

    /// The status, and whether a message stood before it.
    async fn status(self) -> (String, bool) {
        let (head, mut body) = self.answer.await.unwrap().into_parts();
        let status = |headers: &tonic::codegen::http::HeaderMap| {
            headers.get("grpc-status").map(|status| status.to_str().unwrap().to_owned())
        };
        if let Some(status) = status(&head.headers) {
            return (status, false);
        }
        let mut message = Vec::new();
        while let Some(data) = body.data().await {
            message.extend_from_slice(&data.unwrap());
        }
        let status = status(&body.trailers().await.unwrap().unwrap()).unwrap();
        assert_eq!(message[0], 0, "as it is");
        let length = u32::from_be_bytes(message[1..5].try_into().unwrap());
        assert_eq!(usize::try_from(length).unwrap(), message.len() - 5);
        v1::CheckResponse::decode(&message[5..]).unwrap();
        (status, true)
    }
}

/// As it goes over the wire.
fn framed(request: &v1::CheckRequest) -> Vec<u8> {
    let message = request.encode_to_vec();
    [&[0], &u32::try_from(message.len()).unwrap().to_be_bytes()[..], &message].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_decides_for_a_caller_that_has_gone() {
    let policy = policy();
    let process = Process::start(policy.path(), &[], &[]);
    process.ready().await;
    let frames = Frames::connect(process.tcp).await;
    let ask = async |timeout: &str| {
        let mut call = frames.check(&[("grpc-timeout", timeout)]).await;
        call.send(&framed(&request(ALICE, READ, &vault("app"))), true);
        call.status().await
    };
    assert_eq!(ask("20S").await, ("0".to_owned(), true));
    assert_eq!(ask("0n").await, ("4".to_owned(), false), "DEADLINE_EXCEEDED");
    let (_, metrics) = http(process.admin, "/metrics").await;
    let decisions: u64 = metrics
        .lines()
        .filter(|line| line.starts_with("postern_decisions_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum();
    assert_eq!(decisions, 1, "{metrics}");
    eventually("the count", async || {
        number(&process, "postern_requests_shed_total{reason=\"deadline\",transport=\"tcp\"}").await == 1
    })
    .await;
    // One that never sends its message is told when its time is up.
    assert_eq!(frames.check(&[("grpc-timeout", "50m")]).await.status().await, ("4".to_owned(), false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_comes_in_pieces_holds_up_no_other() {
    let policy = policy();
    let process = Process::start(policy.path(), &[], &[]);
    process.ready().await;
    let frames = Frames::connect(process.tcp).await;
    let message = framed(&request(ALICE, READ, &vault("app")));
    let answered = ("0".to_owned(), true);
    let mut slow = frames.check(&[]).await;
    for piece in message.chunks(7) {
        slow.send(piece, false);
        let mut quick = frames.check(&[("grpc-encoding", "identity")]).await;
        quick.send(&message, true);
        assert_eq!(quick.status().await, answered);
    }
    // The end of the message is told by itself.
    slow.send(&[], true);
    assert_eq!(slow.status().await, answered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_call_is_refused() {
    let policy = policy();
    let process = Process::start(policy.path(), &[], &[]);
    process.ready().await;
    let frames = Frames::connect(process.tcp).await;
    let message = framed(&request(ALICE, READ, &vault("app")));
    let refused = async |mut call: OpenCall, bytes: &[u8]| {
        call.send(bytes, true);
        let (status, with_message) = call.status().await;
        assert!(!with_message);
        status
    };
    let check = async || frames.check(&[]).await;
    assert_eq!(refused(check().await, &[]).await, "13", "no message");
    assert_eq!(refused(check().await, &message[..9]).await, "13", "half a message");
    assert_eq!(refused(check().await, &[&message[..], &message].concat()).await, "13", "two messages");
    assert_eq!(
        refused(check().await, &[&[1], &message[1..]].concat()).await,
        "13",
        "compressed, who knows how"
    );
    let garbage = [0, 0, 0, 0, 3, 0xff, 0xff, 0xff];
    assert_eq!(refused(check().await, &garbage).await, "13", "no CheckRequest");
    let unknown = async |path: &str| refused(frames.call(path, &[]).await, &message).await;
    assert_eq!(unknown("/postern.v1.AuthorizationService/Chec").await, "12", "no method");
    assert_eq!(unknown("/postern.v1.Authorization/Check").await, "12", "no service");
    assert_eq!(unknown("/").await, "12");
    let mut compressed = frames.check(&[("grpc-encoding", "gzip")]).await;
    compressed.send(&message, true);
    let (head, _) = compressed.answer.await.unwrap().into_parts();
    let header = |name: &str| head.headers[name].to_str().unwrap().to_owned();
    assert_eq!((header("grpc-status"), header("grpc-accept-encoding")), ("12".into(), "identity".into()));
}

// === on which machine ===

/// Control groups of the kernel, for one process: half a core more than one, and 128 MiB.
struct Groups(Vec<PathBuf>);

impl Groups {
    fn new() -> Option<Self> {
        let name = format!("postern-test-{}", std::process::id());
        let mount = Path::new("/sys/fs/cgroup");
        let unified = mount.join("cgroup.controllers").exists();
        let folders = if unified {
            vec![mount.join(&name)]
        } else {
            ["cpu", "memory"].map(|c| mount.join(c).join(&name)).into()
        };
        let limits: &[(&str, &str)] = if unified {
            &[("cpu.max", "150000 100000"), ("memory.max", "134217728")]
        } else {
            &[("cpu.cfs_quota_us", "150000"), ("memory.limit_in_bytes", "134217728")]
        };
        let groups = Self(folders);
        let made = groups.0.iter().all(|folder| fs::create_dir(folder).is_ok());
        let set = |(file, value): &(&str, &str)| {
            let file = groups.0.iter().map(|folder| folder.join(file)).find(|file| file.exists());
            file.is_some_and(|file| fs::write(file, value).is_ok())
        };
        if made && limits.iter().all(set) {
            return Some(groups);
        }
        eprintln!("SKIPPED: control groups cannot be made here");
        None
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for folder in &self.0 {
            let _not_made = fs::remove_dir(folder);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defaults_follow_the_control_group() {
    let policy = policy();
    let Some(groups) = Groups::new() else { return };
    let enter: String =
        groups.0.iter().map(|folder| format!("echo $$ > {}/cgroup.procs && ", folder.display())).collect();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &format!("{enter} exec \"$0\" \"$@\"")]).arg(env!("CARGO_BIN_EXE_postern"));
    command.args(["serve", "--policy", policy.path().to_str().unwrap(), "--log-format", "json"]);
    command.args(["--tcp", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let process = Process::spawn(&mut command);
    process.ready().await;
    let log = process.log();
    for told in [
        "\"setting\":\"workers\",\"value\":1,",
        "allows 1.500 cores",
        "\"setting\":\"cache-max-bytes\",\"value\":8388608,",
        "1/16 of the 134217728 bytes that /sys/fs/cgroup/",
    ] {
        assert!(log.contains(told), "{told} not in {log}");
    }
    process.kill();
    // The groups are empty now, and go.
    let folders = groups.0.clone();
    drop(groups);
    assert!(!folders.iter().any(|folder| folder.exists()), "{folders:?}");
}

// === the end ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_fails_in_a_drain_under_load() {
    for workers in ["1", "2"] {
        let (policy, socket) = (policy(), open_socket());
        let mut arguments = vec!["--uds", socket.path.to_str().unwrap(), "--workers", workers];
        arguments.extend(["--drain-delay", "1s", "--drain-grace", "1m"]);
        let mut process = Process::start(policy.path(), &arguments, &[]);
        process.ready().await;
        let mut callers = Vec::new();
        for caller in 0..8 {
            let channel = if caller % 2 == 0 {
                connect_uds(&socket.path).await
            } else {
                connect_tcp(process.tcp).await
            };
            let service = HealthCheckRequest { service: "postern.v1.AuthorizationService".into() };
            let mut watch = HealthClient::new(channel.clone()).watch(service).await.unwrap().into_inner();
            callers.push(tokio::spawn(async move {
                // As a workload does: it goes on until it is told, and everything that it has asked is answered.
                let (told, mut serving) = tokio::sync::watch::channel(true);
                tokio::spawn(async move {
                    while let Ok(Some(answer)) = watch.message().await {
                        told.send_replace(answer.status() == ServingStatus::Serving);
                    }
                });
                let mut asked = 0_u64;
                while *serving.borrow_and_update() {
                    assert_eq!(check(&channel).await, Ok(v1::Decision::Allowed), "call {asked}");
                    asked += 1;
                }
                asked
            }));
        }
        let decided = "postern_check_duration_seconds_count{method=\"Check\",transport=\"unix\"}";
        eventually("load", async || number(&process, decided).await > 200).await;
        process.signal("TERM");
        for caller in callers {
            assert!(caller.await.unwrap() > 0);
        }
        assert_eq!(process.exit().await.code(), Some(0), "{}", process.log());
        assert!(!process.log().contains("cutting"), "{}", process.log());
        assert!(!socket.path.exists());
    }
}
