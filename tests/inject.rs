//! The injector over real TLS: AdmissionReviews for the pods in `tests/cases/pods`, under the configuration that the
//! chart renders (its golden file). Patches are applied, and the result is reviewed again: the second patch is empty.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs,
    reason = "tests"
)]

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use common::{eventually, http, postern};
use postern::drain::DrainSettings;
use postern::inject::{AskedBy, InjectSettings, InjectorConfig, Outcome, bind, inject};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The name by which the API server asks.
const HOST: &str = "postern-injector.postern-system.svc";
const MOST: usize = 1 << 20;

// === the world ===

/// `injector.json` as the chart renders it for `tests/charts/cases/postern/everything.yaml`.
fn chart_config() -> Value {
    let golden = include_str!("charts/golden/postern/everything.yaml");
    let (_, behind) = golden.split_once("  injector.json: |\n").unwrap();
    let text: Vec<&str> = behind.lines().map_while(|line| line.strip_prefix("    ")).collect();
    serde_json::from_str(&text.join("\n")).unwrap()
}

fn config() -> InjectorConfig {
    InjectorConfig::from_json(&chart_config().to_string()).unwrap()
}

struct Case {
    name: String,
    namespace: String,
    asked_by: AskedBy,
    pod: Value,
    all: Value,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/pods");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let all: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            Case {
                name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
                namespace: all["namespace"].as_str().unwrap().to_owned(),
                asked_by: match all["askedBy"].as_str().unwrap() {
                    "pods" => AskedBy::Pod,
                    "namespaces" => AskedBy::Namespace,
                    other => panic!("{other}"),
                },
                pod: all["pod"].clone(),
                all,
            }
        })
        .collect()
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for the webhook and its key, PEM.
    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![HOST.to_owned(), "localhost".to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// Who believes this authority, as the API server does with `caBundle`.
    fn client(&self, address: SocketAddr) -> reqwest::Client {
        let root = reqwest::Certificate::from_pem(self.0.pem().as_bytes()).unwrap();
        reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([root])
            .resolve(HOST, address)
            // Every request shows the certificate of its moment.
            .pool_max_idle_per_host(0)
            .build()
            .unwrap()
    }
}

impl Authority {
    /// A bare connection.
    async fn connect(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(HOST.try_into().unwrap(), stream).await.unwrap()
    }
}

struct Injector {
    dir: TempDir,
    authority: Authority,
    address: SocketAddr,
    admin: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Injector {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let path = |name: &str| dir.path().join(name);
        let (certificate, key) = authority.issue();
        std::fs::write(path("tls.crt"), certificate).unwrap();
        std::fs::write(path("tls.key"), key).unwrap();
        std::fs::write(path("injector.json"), chart_config().to_string()).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let settings = InjectSettings {
            listen: any,
            certificate: path("tls.crt"),
            key: path("tls.key"),
            certificate_interval: Duration::from_millis(20),
            config: path("injector.json"),
            admin: Some(any),
            max_request_bytes: MOST,
            drain: DrainSettings { delay: Duration::ZERO, grace: Duration::from_secs(10) },
        };
        let bound = bind(settings).await.unwrap();
        let (address, admin) = (bound.addresses.webhook, bound.addresses.admin.unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            bound
                .serve(async {
                    let _gone = stopped.await;
                })
                .await
                .unwrap();
        });
        Self { dir, authority, address, admin, stop: Some(stop), task }
    }

    fn url(path: &str) -> String {
        format!("https://{HOST}{path}")
    }

    async fn review(&self, client: &reqwest::Client, case: &Case, pod: &Value) -> Value {
        let path = match case.asked_by {
            AskedBy::Pod => "/inject/pods",
            AskedBy::Namespace => "/inject/namespaces",
        };
        let response = client.post(Self::url(path)).json(&review(&case.namespace, pod)).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let answer: Value = response.json().await.unwrap();
        assert_eq!(
            (&answer["apiVersion"], &answer["kind"]),
            (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
        );
        assert_eq!(answer["response"]["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
        answer["response"].clone()
    }
}

/// As the API server writes it.
fn review(namespace: &str, pod: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": { "group": "", "version": "v1", "kind": "Pod" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "requestKind": { "group": "", "version": "v1", "kind": "Pod" },
            "requestResource": { "group": "", "version": "v1", "resource": "pods" },
            "namespace": namespace,
            "operation": "CREATE",
            "userInfo": { "username": "system:serviceaccount:kube-system:replicaset-controller" },
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": { "apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions" },
        },
    })
}

/// The pod after the patch of a response.
fn patched(pod: &Value, response: &Value) -> Value {
    use base64::Engine as _;
    let Some(patch) = response.get("patch") else { return pod.clone() };
    assert_eq!(response["patchType"], "JSONPatch");
    let bytes = base64::engine::general_purpose::STANDARD.decode(patch.as_str().unwrap()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&bytes).unwrap();
    assert!(!patch.0.is_empty());
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array().into_iter().flatten().find(|item| item["name"] == name)
}

/// That everything of the profile is in the pod, and everything of the pod still there.
fn assert_injected(case: &Case, pod: &Value) {
    let name = &case.name;
    let profile_name = case.all["profile"].as_str().unwrap_or("default");
    let profile = &chart_config()["profiles"][profile_name];
    let spec = &pod["spec"];
    assert_eq!(
        spec["initContainers"][0], profile["container"],
        "{name}: first, and as the library renders it"
    );
    for volume in profile["volumes"].as_array().unwrap() {
        assert_eq!(named(&spec["volumes"], volume["name"].as_str().unwrap()), Some(volume), "{name}");
    }
    let all = |key: &str| spec[key].as_array().cloned().unwrap_or_default();
    for (container, wanted) in case.all["application"].as_object().unwrap() {
        let containers = Value::Array([all("initContainers"), all("containers")].concat());
        let container = named(&containers, container).unwrap_or_else(|| panic!("{name}: {container}"));
        let wanted = wanted.as_bool().unwrap();
        let has = |key: &str, item: &Value| container[key].as_array().is_some_and(|list| list.contains(item));
        assert_eq!(has("env", &profile["applicationEnv"][0]), wanted, "{name}: {container}");
        assert_eq!(
            has("volumeMounts", &profile["applicationVolumeMounts"][0]),
            wanted,
            "{name}: {container}"
        );
    }
    let groups = spec["securityContext"]["supplementalGroups"].as_array().unwrap();
    assert!(groups.contains(&json!(65532)), "{name}");
    assert_eq!(spec["terminationGracePeriodSeconds"], case.all["grace"], "{name}");
    assert_eq!(pod["metadata"]["labels"]["postern.dev/sidecar"], "true", "{name}");
    assert_eq!(pod["metadata"]["annotations"]["postern.dev/injected"], profile_name, "{name}");
    assert_eq!(
        pod["metadata"]["annotations"]["postern.dev/trusted-root"],
        profile["podAnnotations"]["postern.dev/trusted-root"],
        "{name}"
    );
    assert_kept(&case.pod, pod, name);
}

/// Everything of the one is in the other, but for what was raised or was null.
fn assert_kept(before: &Value, after: &Value, at: &str) {
    match (before, after) {
        (Value::Object(before), Value::Object(_)) => {
            for (key, value) in before.iter().filter(|(key, _)| *key != "terminationGracePeriodSeconds") {
                assert_kept(value, &after[key], &format!("{at}.{key}"));
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for (index, item) in before.iter().enumerate() {
                let there = match item.get("name").and_then(Value::as_str) {
                    Some(name) => after.iter().find(|one| one["name"] == name),
                    None => after.iter().find(|one| *one == item),
                };
                assert_kept(
                    item,
                    there.unwrap_or_else(|| panic!("{at}[{index}] is gone")),
                    &format!("{at}[{index}]"),
                );
            }
        }
        (Value::Null, _) => {}
        (before, after) => assert_eq!(before, after, "{at}"),
    }
}

// === the cases ===

#[tokio::test]
async fn every_case_is_answered_over_tls() {
    let injector = Injector::start().await;
    let client = injector.authority.client(injector.address);
    let mut seen = BTreeSet::new();
    for case in cases() {
        let name = &case.name;
        let response = injector.review(&client, &case, &case.pod).await;
        let outcome = case.all["outcome"].as_str().unwrap();
        seen.insert(outcome.to_owned());
        let pod = patched(&case.pod, &response);
        match outcome {
            "injected" => {
                assert_eq!(response["allowed"], true, "{name}: {response}");
                assert_injected(&case, &pod);
                // Called again, it has nothing to do.
                let again = injector.review(&client, &case, &pod).await;
                assert_eq!((&again["allowed"], again.get("patch")), (&json!(true), None), "{name}: {again}");
            }
            "left" => {
                assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None), "{name}")
            }
            "refused" => {
                assert_eq!((&response["allowed"], response.get("patch")), (&json!(false), None), "{name}");
                let message = response["status"]["message"].as_str().unwrap();
                for words in case.all["says"].as_array().unwrap() {
                    assert!(message.contains(words.as_str().unwrap()), "{name}: {message}");
                }
            }
            other => panic!("{name}: {other}"),
        }
    }
    assert_eq!(seen.len(), 3);
    let (status, metrics) = http(injector.admin, "/metrics").await;
    assert_eq!(status, 200);
    for outcome in ["injected", "unchanged", "left_alone", "refused"] {
        let line = format!("postern_injector_reviews_total{{outcome=\"{outcome}\"}} ");
        let (_, count) = metrics.split_once(&line).unwrap_or_else(|| panic!("{metrics}"));
        assert!(!count.starts_with('0'), "{metrics}");
    }
}

fn inject_again(case: &Case, pod: &Value) -> Vec<Value> {
    match inject(&config(), case.asked_by, &case.namespace, pod)
        .unwrap_or_else(|error| panic!("{}: {error:?}", case.name))
    {
        Outcome::Injected { patch, .. } => {
            patch.iter().map(|operation| serde_json::to_value(operation).unwrap()).collect()
        }
        Outcome::LeftAlone(why) => panic!("{}: {why}", case.name),
    }
}

fn injected(case: &Case) -> Value {
    let mut pod = case.pod.clone();
    let patch = inject_again(case, &pod);
    let patch: json_patch::Patch = serde_json::from_value(Value::Array(patch)).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

fn injected_cases() -> Vec<Case> {
    let found: Vec<Case> = cases().into_iter().filter(|case| case.all["outcome"] == "injected").collect();
    assert!(found.len() > 8);
    found
}

/// Between two calls the API server fills in defaults, writes quantities in its own way, and other webhooks go on.
#[test]
fn what_others_add_is_no_reason_to_change_anything() {
    for case in injected_cases() {
        let mut pod = injected(&case);
        let spec = pod["spec"].as_object_mut().unwrap();
        let sidecar = &mut spec["initContainers"][0];
        sidecar["terminationMessagePath"] = json!("/dev/termination-log");
        sidecar["terminationMessagePolicy"] = json!("File");
        sidecar["livenessProbe"]["successThreshold"] = json!(1);
        sidecar["startupProbe"]["successThreshold"] = json!(1);
        sidecar["resources"]["limits"]["cpu"] = json!("2");
        sidecar["volumeMounts"]
            .as_array_mut()
            .unwrap()
            .insert(0, json!({ "name": "mesh", "mountPath": "/mesh" }));
        if sidecar["resources"]["limits"]["memory"] == "1120Mi" {
            sidecar["resources"]["limits"]["memory"] = json!("1174405120");
        }
        for volume in spec["volumes"].as_array_mut().unwrap() {
            if let Some(downward) = volume.get_mut("downwardAPI") {
                downward["defaultMode"] = json!(420);
            }
            if volume.pointer("/emptyDir/sizeLimit") == Some(&json!("208Mi")) {
                volume["emptyDir"]["sizeLimit"] = json!("212992Ki");
            }
        }
        spec["volumes"].as_array_mut().unwrap().push(json!({ "name": "mesh", "emptyDir": {} }));
        spec["initContainers"]
            .as_array_mut()
            .unwrap()
            .insert(0, json!({ "name": "validation", "image": "mesh:1" }));
        assert_eq!(inject_again(&case, &pod), [] as [Value; 0], "{}", case.name);
    }
}

/// Webhooks that come later may bring containers that ask, too: with `reinvocationPolicy: IfNeeded` they get the socket.
#[test]
fn a_container_that_comes_later_gets_the_socket() {
    let case = injected_cases().into_iter().find(|case| case.name == "deployment").unwrap();
    let mut pod = injected(&case);
    pod["spec"]["containers"].as_array_mut().unwrap().push(json!({ "name": "late", "image": "late:1" }));
    let patch = inject_again(&case, &pod);
    let paths: Vec<&str> = patch.iter().map(|operation| operation["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/spec/containers/1/env", "/spec/containers/1/volumeMounts"]);
}

/// A pod that was copied from an injected one, with what another version injected.
#[test]
fn what_was_injected_before_is_brought_up_to_date() {
    for case in injected_cases() {
        let wanted = injected(&case);
        let mut pod = wanted.clone();
        let sidecar = &mut pod["spec"]["initContainers"][0];
        sidecar["image"] = json!("postern:0.0.1");
        sidecar["args"]
            .as_array_mut()
            .unwrap()
            .retain(|argument| !argument.as_str().unwrap().starts_with("--admin"));
        for volume in pod["spec"]["volumes"].as_array_mut().unwrap() {
            if volume["name"] == "postern-socket" {
                volume["emptyDir"] = json!({});
            }
        }
        pod["metadata"]["annotations"]["postern.dev/trusted-root"] = json!("old");
        let patch: json_patch::Patch =
            serde_json::from_value(Value::Array(inject_again(&case, &pod))).unwrap();
        json_patch::patch(&mut pod, &patch).unwrap();
        assert_eq!(pod, wanted, "{}", case.name);
    }
}

#[tokio::test]
async fn huge_pods() {
    let injector = Injector::start().await;
    let client = injector.authority.client(injector.address);
    let case = cases().into_iter().find(|case| case.name == "deployment").unwrap();

    // As large as a pod may be: hundreds of containers, annotations up to their limit.
    let mut pod = case.pod.clone();
    pod["metadata"]["annotations"] = json!({ "example.org/blob": "x".repeat(250 << 10) });
    let containers: Vec<Value> = (0..500)
        .map(|number| {
            let env: Vec<Value> = (0..10).map(|n| json!({ "name": format!("V{n}"), "value": "v" })).collect();
            json!({ "name": format!("c{number}"), "image": "i:1", "env": env })
        })
        .collect();
    pod["spec"]["containers"] = Value::Array(containers);
    let response = injector.review(&client, &case, &pod).await;
    let pod = patched(&pod, &response);
    for container in pod["spec"]["containers"].as_array().unwrap() {
        assert_eq!(container["env"][10]["name"], "POSTERN_CONNECT");
    }
    assert_eq!(injector.review(&client, &case, &pod).await.get("patch"), None);

    // Larger than is read, with a length and without: refused with a status, so that the failure policy decides.
    let mut pod = case.pod.clone();
    pod["metadata"]["annotations"] = json!({ "example.org/blob": "x".repeat(MOST) });
    let body = review("shop", &pod).to_string();
    let post = || client.post(Injector::url("/inject/pods")).header("content-type", "application/json");
    let announced = post().body(body.clone()).send().await.unwrap();
    assert_eq!(announced.status(), 413);
    assert!(announced.text().await.unwrap().contains("raise `--max-request-bytes`"));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(post().body(deep).send().await.unwrap().status(), 400);
    // It still answers.
    assert_eq!(injector.review(&client, &case, &case.pod).await["allowed"], true);
}

#[tokio::test]
async fn what_is_no_review_is_told() {
    let injector = Injector::start().await;
    let client = injector.authority.client(injector.address);
    let post = |body: String| {
        client
            .post(Injector::url("/inject/pods"))
            .header("content-type", "application/json; charset=utf-8")
            .body(body)
    };
    let pod = json!({ "metadata": {}, "spec": { "containers": [] } });
    let with = |pointer: &str, value: Value| {
        let mut review = review("shop", &pod);
        *review.pointer_mut(pointer).unwrap() = value;
        review.to_string()
    };
    for (body, words) in [
        ("{".to_owned(), "no AdmissionReview can be read"),
        ("{}".to_owned(), "missing field `apiVersion`"),
        (
            with("/apiVersion", json!("admission.k8s.io/v1beta1")),
            "wanted `AdmissionReview` of `admission.k8s.io/v1`",
        ),
        (with("/request", Value::Null), "has no `request`"),
    ] {
        let response = post(body).send().await.unwrap();
        assert_eq!(response.status(), 400);
        let text = response.text().await.unwrap();
        assert!(text.contains(words), "{text}");
    }
    let response = client.post(Injector::url("/inject/pods")).body("{}").send().await.unwrap();
    assert_eq!(response.status(), 415);
    assert_eq!(client.get(Injector::url("/inject/pods")).send().await.unwrap().status(), 405);
    assert_eq!(post("{}".to_owned()).send().await.unwrap().status(), 400);

    for (pointer, value, allowed) in [
        ("/request/kind/kind", json!("Deployment"), false),
        ("/request/operation", json!("UPDATE"), true),
        ("/request/object", json!({ "metadata": { "labels": { "postern.dev/inject": "true" } } }), false),
    ] {
        let answer: Value = post(with(pointer, value)).send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["response"]["allowed"], allowed, "{pointer} {answer}");
        assert_eq!(answer["response"].get("patch"), None);
    }
    let (_, metrics) = http(injector.admin, "/metrics").await;
    assert!(metrics.contains("postern_injector_reviews_total{outcome=\"malformed\"} 6"), "{metrics}");
}

#[tokio::test]
async fn a_new_certificate_is_presented_without_a_restart() {
    let injector = Injector::start().await;
    let case = cases().into_iter().find(|case| case.name == "job").unwrap();
    let old = injector.authority.client(injector.address);
    injector.review(&old, &case, &case.pod).await;

    // Of another authority; first the certificate alone, whose key is still the old one.
    let other = Authority::new();
    let new = other.client(injector.address);
    assert!(new.get(Injector::url("/")).send().await.is_err());
    let (certificate, key) = other.issue();
    std::fs::write(injector.dir.path().join("tls.crt"), certificate).unwrap();
    let counted = async |outcome: &str| {
        let wanted = format!("postern_injector_certificate_reloads_total{{outcome=\"{outcome}\"}} 1");
        eventually("the reload is counted", async || {
            http(injector.admin, "/metrics").await.1.contains(&wanted)
        })
        .await;
    };
    counted("refused").await;
    injector.review(&old, &case, &case.pod).await;
    std::fs::write(injector.dir.path().join("tls.key"), key).unwrap();
    counted("taken").await;
    injector.review(&new, &case, &case.pod).await;
    // A client of the old authority that resumes no session is shown the new one.
    let old = injector.authority.client(injector.address);
    assert!(old.get(Injector::url("/")).send().await.is_err());
}

/// What is open when the end comes is answered, and nothing new is taken.
#[tokio::test]
async fn it_drains() {
    let mut injector = Injector::start().await;
    assert_eq!(http(injector.admin, "/readyz").await, (200, "ready\n".to_owned()));
    assert_eq!(http(injector.admin, "/livez").await.0, 200);
    let case = cases().into_iter().find(|case| case.name == "job").unwrap();
    let body = review("shop", &case.pod).to_string();
    let (first, second) = body.split_at(body.len() / 2);

    let mut stream = injector.authority.connect(injector.address).await;
    let head = format!(
        "POST /inject/pods HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{first}").as_bytes()).await.unwrap();
    // The server has taken this connection once it has answered one that came after it.
    let client = injector.authority.client(injector.address);
    injector.review(&client, &case, &case.pod).await;

    injector.stop.take().unwrap().send(()).unwrap();
    eventually("nothing new is taken", async || client.get(Injector::url("/")).send().await.is_err()).await;
    assert!(!injector.task.is_finished());
    stream.write_all(second.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("JSONPatch"), "{answer}");
    (&mut injector.task).await.unwrap();
}

// === the program ===

#[test]
fn wrong_settings_are_told_all_at_once() {
    let output = postern()
        .args(["inject", "serve", "--listen", "here", "--drain-grace", "5", "--max-request-bytes", "1"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stderr).unwrap();
    for words in [
        "flag `--config` is missing: wanted a file, or POSTERN_INJECT_CONFIG",
        "flag `--tls-cert` is missing",
        "flag `--tls-key` is missing: wanted a file, or POSTERN_INJECT_TLS_KEY",
        "flag `--listen` is `here`; wanted an address and port",
        "flag `--drain-grace` is `5`; wanted a time",
        "flag `--max-request-bytes` is `1`; wanted a size",
    ] {
        assert!(text.contains(words), "{words}\n{text}");
    }
}

#[test]
fn a_configuration_that_does_not_fit_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let mut config = chart_config();
    config["namespaces"]["shop"] = json!({ "profile": "none" });
    std::fs::write(path("injector.json"), config.to_string()).unwrap();
    let (certificate, key) = Authority::new().issue();
    std::fs::write(path("tls.crt"), certificate).unwrap();
    std::fs::write(path("tls.key"), key).unwrap();
    let start = || {
        let output = postern()
            .args([
                "inject",
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "off",
                "--config",
                &path("injector.json"),
            ])
            .args(["--tls-cert", &path("tls.crt"), "--tls-key", &path("tls.key")])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = start();
    assert_eq!(code, Some(1));
    assert!(text.contains("`namespaces.shop.profile` is `none`; wanted one of"), "{text}");
    std::fs::write(path("injector.json"), chart_config().to_string()).unwrap();
    std::fs::write(path("tls.key"), Authority::new().issue().1).unwrap();
    let (code, text) = start();
    assert_eq!(code, Some(1));
    assert!(text.contains("certificate and key cannot be used"), "{text}");
    std::fs::write(path("tls.crt"), "no certificate").unwrap();
    assert!(start().1.contains("has no certificate in PEM"), "{}", start().1);
}

#[tokio::test]
async fn probe_says_whether_a_webhook_answers() {
    let injector = Injector::start().await;
    let path = |name: &str| injector.dir.path().join(name);
    std::fs::write(path("ca.crt"), injector.authority.0.pem()).unwrap();
    std::fs::write(path("other.crt"), Authority::new().0.pem()).unwrap();
    let port = injector.address.port();
    let probe = async |host: &str, path_of: &str, ca: &str, more: &[&str]| {
        let mut command = postern();
        command.args(["inject", "probe", "--url", &format!("https://{host}:{port}{path_of}")]);
        command.args(more).arg("--ca").arg(path(ca));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), text)
    };
    let (code, text) = probe("localhost", "/inject/pods", "ca.crt", &[]).await;
    assert_eq!(code, Some(0), "{text}");
    for (host, path, ca, more, words) in [
        ("127.0.0.1", "/inject/pods", "ca.crt", &[][..], "certificate"),
        ("localhost", "/inject/pods", "other.crt", &[], "invalid peer certificate"),
        ("localhost", "/inject", "ca.crt", &[], "404"),
        ("localhost", "/inject/pods", "tls.key", &[], "tls.key"),
        ("localhost", "/inject/pods", "none.crt", &[], "none.crt"),
        ("localhost", "/inject/pods", "ca.crt", &["--domain", "example.org"], "the pod is left as it is"),
    ] {
        let (code, text) = probe(host, path, ca, more).await;
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn patch_shows_what_would_be_done() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("injector.json");
    std::fs::write(&config, chart_config().to_string()).unwrap();
    for case in cases() {
        let pod = dir.path().join("pod.json");
        std::fs::write(&pod, case.pod.to_string()).unwrap();
        let mut command = postern();
        command.args(["inject", "patch", "--namespace", &case.namespace, "--config"]).arg(&config).arg(&pod);
        if case.asked_by == AskedBy::Namespace {
            command.arg("--namespace-asks");
        }
        let output = command.output().unwrap();
        let wanted = if case.all["outcome"] == "injected" { 0 } else { 3 };
        assert_eq!(output.status.code(), Some(wanted), "{}: {output:?}", case.name);
        if wanted == 0 {
            let patch: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(patch, Value::Array(inject_again(&case, &case.pod)), "{}", case.name);
        }
    }
}
