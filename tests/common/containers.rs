//! What tests with containers share: the image that ships, a network with a web server that holds publications, and the
//! directories through which a test speaks to a sidecar.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postern::proto::v1;
use postern::proto::v1::authorization_service_client::AuthorizationServiceClient;
use tempfile::TempDir;
use testcontainers::core::{AccessMode, Mount, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt};
use tonic::transport::Channel;

use crate::common::*;
use crate::publisher::Publisher;

/// Who a sidecar is in its image.
pub(crate) const SIDECAR: &str = "postern";
pub(crate) const TAG: &str = "test";
const WEB: &str = "postern-web";

/// The image of the sidecar, from the release binary and the `Dockerfile` that ships.
pub(crate) fn image() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/image.sh");
        let mut command = Command::new(script);
        // Cargo tells tests what the build script told the compiler; the image would be built anew because of it.
        command.arg(format!("{SIDECAR}:{TAG}")).env_remove("POSTERN_COMMIT");
        let built = command.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    });
}

/// What `docker` answers.
pub(crate) fn docker(arguments: &[&str]) -> String {
    let ran = Command::new("docker").args(arguments).output().unwrap();
    assert!(ran.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap().trim().to_owned()
}

pub(crate) fn unique(what: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("postern-{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A network with a publisher behind a web server.
pub(crate) struct Place {
    pub(crate) publisher: Publisher,
    pub(crate) network: String,
    pub(crate) host: String,
}

impl Place {
    pub(crate) fn of(publisher: Publisher) -> Self {
        image();
        // What the web server and the sidecars read belongs to whoever runs the tests.
        open_up(publisher.dir.path(), 0o755);
        Self { publisher, network: unique("net"), host: unique("web") }
    }

    pub(crate) async fn new() -> Self {
        Self::of(Publisher::new().await)
    }

    /// The web server, from now until it is dropped.
    pub(crate) async fn web(&self) -> ContainerAsync<GenericImage> {
        let www = Mount::bind_mount(self.publisher.repository().to_str().unwrap(), "/www");
        let image = GenericImage::new(WEB, TAG);
        let request = image.with_network(&self.network).with_container_name(&self.host);
        request.with_mount(www.with_access_mode(AccessMode::ReadOnly)).start().await.unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.host)
    }

    /// A sidecar that is not started yet, over the directories of a desk.
    pub(crate) fn sidecar(&self, desk: &Desk, arguments: &[&str]) -> ContainerRequest<GenericImage> {
        self.sidecar_at(&self.url(), desk, arguments).with_network(&self.network)
    }

    pub(crate) fn sidecar_at(
        &self,
        source: &str,
        desk: &Desk,
        arguments: &[&str],
    ) -> ContainerRequest<GenericImage> {
        let root = Mount::bind_mount(self.publisher.root(), "/etc/postern/root.json");
        let given = ["serve", "--source", source, "--trusted-root", "/etc/postern/root.json"];
        let socket = ["--uds", "/run/postern/postern.sock", "--uds-mode", "0666"];
        let mut all = [&given[..], &socket, arguments].concat();
        if !arguments.contains(&"--state-dir") {
            all.extend(["--state-dir", "/var/lib/postern"]);
        }
        GenericImage::new(SIDECAR, TAG)
            .with_wait_for(WaitFor::message_on_stderr("listening"))
            .with_cmd(all)
            .with_mount(root.with_access_mode(AccessMode::ReadOnly))
            .with_mount(Mount::bind_mount(desk.run().to_str().unwrap(), "/run/postern"))
            .with_mount(Mount::bind_mount(desk.state().to_str().unwrap(), "/var/lib/postern"))
            .with_readonly_rootfs(true)
            .with_cap_drop("ALL")
            .with_security_opt("no-new-privileges")
    }

    /// Takes a container off the network, or puts it back.
    pub(crate) fn cut(&self, container: &ContainerAsync<GenericImage>) {
        docker(&["network", "disconnect", &self.network, container.id()]);
    }

    pub(crate) fn mend(&self, container: &ContainerAsync<GenericImage>) {
        docker(&["network", "connect", "--alias", &self.host, &self.network, container.id()]);
    }
}

/// The directories that a sidecar shares with the tests.
pub(crate) struct Desk(pub(crate) TempDir);

impl Desk {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        open_up(dir.path(), 0o755);
        let desk = Self(dir);
        for path in [desk.run(), desk.state()] {
            std::fs::create_dir(&path).unwrap();
            // The sidecar is nobody that this machine knows.
            open_up(&path, 0o777);
        }
        desk
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.0.path().join("run")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    /// A connection that is made anew for each sidecar that listens there.
    pub(crate) async fn client(&self) -> AuthorizationServiceClient<Channel> {
        let socket = self.run().join("postern.sock");
        let start = Instant::now();
        loop {
            if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
                return AuthorizationServiceClient::new(connect_uds(&socket).await);
            }
            assert!(start.elapsed() < DEADLINE, "nobody listens");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

pub(crate) fn open_up(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Ends a container as the kernel does when memory is short.
pub(crate) fn kill(container: &ContainerAsync<GenericImage>) {
    docker(&["kill", "--signal", "KILL", container.id()]);
}

pub(crate) fn start(container: &ContainerAsync<GenericImage>) {
    docker(&["start", container.id()]);
}

pub(crate) fn log(container: &ContainerAsync<GenericImage>) -> String {
    let ran = Command::new("docker").args(["logs", container.id()]).output().unwrap();
    String::from_utf8_lossy(&ran.stderr).into_owned()
}

pub(crate) async fn status(client: &AuthorizationServiceClient<Channel>) -> v1::PolicyStatus {
    let answer = client.clone().get_policy_status(v1::GetPolicyStatusRequest {}).await.unwrap();
    answer.into_inner().status.unwrap()
}

pub(crate) fn serial(status: &v1::PolicyStatus) -> u64 {
    status.policy.as_ref().map_or(0, |policy| policy.serial)
}

pub(crate) async fn reaches(client: &AuthorizationServiceClient<Channel>, wanted: u64) {
    eventually(&format!("serial {wanted}"), async || serial(&status(client).await) == wanted).await;
}

pub(crate) async fn tells(client: &AuthorizationServiceClient<Channel>, wanted: &str) {
    eventually(wanted, async || status(client).await.update_problems.join("; ").contains(wanted)).await;
}

pub(crate) async fn recovers(client: &AuthorizationServiceClient<Channel>) {
    eventually("the recovery", async || status(client).await.update_problems.is_empty()).await;
}

pub(crate) async fn decision(
    client: &AuthorizationServiceClient<Channel>,
) -> Result<v1::Decision, tonic::Status> {
    let answer = client.clone().check(request(ALICE, READ, &vault("app"))).await?;
    Ok(answer.into_inner().result.unwrap().decision())
}
