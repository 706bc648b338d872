//! What tests of the outside share: a small policy in the shapes of `az`, a sidecar inside the test or as a
//! process of its own, and waiting for conditions instead of for time.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Args;
use postern::app::{self, RunError};
use postern::config::{Config, ServeArgs};
use postern::proto::v1;
use postern::readiness::Readiness;
use postern::server::Addresses;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

/// Nothing here takes longer on a loaded machine.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub const ALICE: &str = "a0000000-0000-4000-8000-000000000001";
pub const BOB: &str = "a0000000-0000-4000-8000-000000000002";
pub const TEAM: &str = "b0000000-0000-4000-8000-000000000001";
pub const SUBSCRIPTION: &str = "/subscriptions/50000000-0000-4000-8000-000000000001";
pub const READ: &str = "Microsoft.KeyVault/vaults/read";
pub const DELETE: &str = "Microsoft.KeyVault/vaults/delete";
pub const GET_SECRET: &str = "Microsoft.KeyVault/vaults/secrets/getSecret/action";

const ROLE: &str = "c0000000-0000-4000-8000-000000000001";
const ASSIGNMENT: &str = "d0000000-0000-4000-8000-000000000001";
const TEAM_ASSIGNMENT: &str = "d0000000-0000-4000-8000-000000000002";
const DENY: &str = "e0000000-0000-4000-8000-000000000001";

/// A vault in a resource group.
pub fn vault(group: &str) -> String {
    format!("{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.KeyVault/vaults/kv")
}

pub fn role_definition_id() -> String {
    format!("/providers/Microsoft.Authorization/roleDefinitions/{ROLE}")
}

pub fn role_assignment_id() -> String {
    format!("{SUBSCRIPTION}/providers/Microsoft.Authorization/roleAssignments/{ASSIGNMENT}")
}

pub fn deny_assignment_id() -> String {
    format!("{SUBSCRIPTION}/resourceGroups/locked/providers/Microsoft.Authorization/denyAssignments/{DENY}")
}

fn assignment(name: &str, principal: &str, kind: &str) -> Value {
    json!({
        "id": format!("{SUBSCRIPTION}/providers/Microsoft.Authorization/roleAssignments/{name}"),
        "name": name,
        "principalId": principal,
        "principalType": kind,
        "roleDefinitionId":
            format!("{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions/{ROLE}"),
        "roleDefinitionName": "Vault Operator",
        "scope": SUBSCRIPTION,
        "type": "Microsoft.Authorization/roleAssignments",
    })
}

/// Alice and a team operate vaults in a subscription; in the group `locked` nobody deletes one.
pub fn write_policy(dir: &Path) {
    let write = |name: &str, value: &Value| std::fs::write(dir.join(name), value.to_string()).unwrap();
    write(
        "roles.json",
        &json!([{
            "assignableScopes": ["/"],
            "description": "Operates vaults",
            "id": role_definition_id(),
            "name": ROLE,
            "permissions": [{
                "actions": [READ, DELETE],
                "notActions": [],
                "dataActions": [GET_SECRET],
                "notDataActions": [],
            }],
            "roleName": "Vault Operator",
            "roleType": "BuiltInRole",
            "type": "Microsoft.Authorization/roleDefinitions",
        }]),
    );
    write(
        "assignments.json",
        &json!([assignment(ASSIGNMENT, ALICE, "User"), assignment(TEAM_ASSIGNMENT, TEAM, "Group")]),
    );
    write(
        "deny.json",
        &json!([{
            "id": deny_assignment_id(),
            "name": DENY,
            "type": "Microsoft.Authorization/denyAssignments",
            "properties": {
                "denyAssignmentName": "Nobody deletes",
                "permissions": [{
                    "actions": [DELETE], "notActions": [], "dataActions": [], "notDataActions": [],
                }],
                "scope": format!("{SUBSCRIPTION}/resourceGroups/locked"),
                "doNotApplyToChildScopes": false,
                "principals": [{
                    "id": "00000000-0000-0000-0000-000000000000", "type": "SystemDefined",
                }],
                "excludePrincipals": [],
                "isSystemProtected": true,
            },
        }]),
    );
}

/// Takes Alice's assignment away.
pub fn revoke_alice(dir: &Path) {
    let kept = json!([assignment(TEAM_ASSIGNMENT, TEAM, "Group")]).to_string();
    // Written aside and moved, as a careful administrator does.
    let aside = dir.join(".next");
    std::fs::write(&aside, kept).unwrap();
    std::fs::rename(aside, dir.join("assignments.json")).unwrap();
}

pub fn policy() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_policy(dir.path());
    dir
}

pub fn request(principal: &str, action: &str, scope: &str) -> v1::CheckRequest {
    v1::CheckRequest {
        subject: Some(v1::Subject { principal_id: principal.into(), ..Default::default() }),
        action: Some(v1::Action {
            name: action.into(),
            data_action: action == GET_SECRET,
            ..Default::default()
        }),
        resource: Some(v1::Resource { scope: scope.into(), ..Default::default() }),
        ..Default::default()
    }
}

pub fn config(arguments: &[&str]) -> Config {
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    let matches = command.clone().get_matches_from(["serve"].iter().chain(arguments));
    Config::from_matches(&command, &matches).unwrap()
}

/// Waits for a condition.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < DEADLINE, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Status and body.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

pub async fn http(address: SocketAddr, path: &'static str) -> (u16, String) {
    tokio::task::spawn_blocking(move || get(address, path)).await.unwrap()
}

pub async fn connect_tcp(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

pub async fn connect_uds(path: &Path) -> Channel {
    Endpoint::from_shared(format!("unix://{}", path.display())).unwrap().connect().await.unwrap()
}

// === a sidecar inside the test ===

pub struct Sidecar {
    pub addresses: Addresses,
    pub readiness: Readiness,
    pub policy: TempDir,
    socket_dir: TempDir,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Sidecar {
    /// On both listeners, with the policy above.
    pub async fn start(arguments: &[&str]) -> Self {
        let policy = policy();
        let socket_dir = tempfile::tempdir().unwrap();
        let socket = socket_dir.path().join("postern.sock");
        let mut all = vec!["--policy", policy.path().to_str().unwrap()];
        all.extend(["--tcp", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--reload-debounce", "20ms"]);
        all.extend(["--uds", socket.to_str().unwrap()]);
        all.extend(arguments);
        let bound = app::bind(config(&all)).await.unwrap();
        let (addresses, readiness) = (bound.addresses.clone(), bound.readiness());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(bound.serve(async {
            let _either = stopped.await;
        }));
        let sidecar = Self { addresses, readiness, policy, socket_dir, stop: Some(stop), task };
        eventually("readiness", async || sidecar.ready().await).await;
        sidecar
    }

    async fn ready(&self) -> bool {
        assert!(!self.task.is_finished(), "the sidecar ended");
        http(self.admin(), "/readyz").await.0 == 200
    }

    pub fn admin(&self) -> SocketAddr {
        self.addresses.admin.unwrap()
    }

    pub async fn tcp(&self) -> Channel {
        connect_tcp(self.addresses.tcp.unwrap()).await
    }

    pub async fn uds(&self) -> Channel {
        connect_uds(self.addresses.uds().unwrap()).await
    }

    pub fn begin_drain(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub async fn ended(self) -> Result<(), RunError> {
        tokio::time::timeout(DEADLINE, self.task).await.expect("the drain has an end").unwrap()
    }
}

// === a sidecar as a process ===

pub fn postern() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    // Tests do not depend on the variables of whoever runs them.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("POSTERN_") || name.starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    command
}

pub struct Process {
    child: Child,
    pub tcp: SocketAddr,
    pub admin: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Process {
    /// Listens on free ports, told by the log.
    pub fn start(policy: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let arguments = [&["--policy", policy.to_str().unwrap()], arguments].concat();
        Self::serve(&arguments, variables)
    }

    /// The same, from wherever the arguments say.
    pub fn serve(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = postern();
        command
            .args(["serve", "--tcp", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json"])
            .args(arguments)
            .envs(variables.iter().copied());
        Self::spawn(&mut command)
    }

    /// A command that becomes a sidecar on free ports with a log in JSON.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let addresses = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended: {}", log.lock().unwrap())).unwrap();
            log.lock().unwrap().push_str(&line);
            let entry: Value = serde_json::from_str(&line).unwrap();
            if entry["message"] == "listening" {
                break entry;
            }
        };
        let keep = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                keep.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let address = |name: &str| addresses[name].as_str().unwrap().parse().unwrap();
        Self { tcp: address("tcp"), admin: address("admin"), child, log }
    }

    /// What it writes, where that was piped.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    pub async fn ready(&self) {
        let admin = self.admin;
        eventually("readiness", async || http(admin, "/readyz").await.0 == 200).await;
    }

    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Ends it as the kernel does when memory is short.
    pub fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.log()
    }

    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub async fn exit(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(start.elapsed() < DEADLINE, "it does not end: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
