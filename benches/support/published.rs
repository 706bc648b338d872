//! A repository of signed publications in a directory, and sidecars that follow it and keep what they read in a state
//! directory that they share.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use postern::proto::v1;
use postern::proto::v1::authorization_service_client::AuthorizationServiceClient;
use postern::repository::{About, Keys, Lifetimes, Location, Opening, Options, Repository, Store};
use tonic::transport::{Channel, Endpoint};

use crate::process::postern;

/// A repository and where its sidecars keep what they read.
pub(crate) struct World {
    pub(crate) at: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) state: PathBuf,
    repository: Repository,
}

impl World {
    pub(crate) async fn new(dir: &Path) -> Self {
        let at = dir.join("repository");
        let keys = Keys::create(&dir.join("keys"), true).unwrap();
        let root = keys.root_path();
        let opening = Opening { create: true, ..Opening::default() };
        let store: Store = Location::parse(at.to_str().unwrap()).unwrap().open(opening).unwrap();
        let repository = Repository::init(store, keys, Lifetimes::default(), Timestamp::now()).await.unwrap();
        Self { at, root, state: dir.join("state"), repository }
    }

    pub(crate) async fn publish(&mut self, bytes: Bytes) -> u64 {
        let about = About { policy_name: "bench".into(), ..About::default() };
        let published = self.repository.publish(bytes, about, Options::default(), Timestamp::now()).await;
        published.unwrap().publication.serial
    }
}

pub(crate) struct Sidecar {
    child: Child,
    pub(crate) uds: PathBuf,
    begun: Instant,
}

impl Sidecar {
    pub(crate) fn start(world: &World, number: usize, poll: &str) -> Self {
        let uds = world.state.with_file_name(format!("{number}.sock"));
        // One that was killed leaves its socket behind.
        let _gone = std::fs::remove_file(&uds);
        let begun = Instant::now();
        let child = postern()
            .args(["serve", "--admin", "off", "--log-level", "warn", "--poll-interval", poll])
            .arg("--source")
            .arg(&world.at)
            .arg("--trusted-root")
            .arg(&world.root)
            .arg("--state-dir")
            .arg(&world.state)
            .arg("--uds")
            .arg(&uds)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, uds, begun }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    async fn channel(&self) -> Result<Channel, tonic::transport::Error> {
        Endpoint::try_from(format!("unix://{}", self.uds.display()))?.connect().await
    }

    pub(crate) async fn client(
        &self,
    ) -> Result<AuthorizationServiceClient<Channel>, tonic::transport::Error> {
        Ok(AuthorizationServiceClient::new(self.channel().await?))
    }

    /// From exec until the health service says SERVING.
    pub(crate) async fn serving(&self) -> Duration {
        use tonic_health::pb::HealthCheckRequest;
        use tonic_health::pb::health_client::HealthClient;
        loop {
            if let Ok(channel) = self.channel().await {
                let answer =
                    HealthClient::new(channel).check(HealthCheckRequest { service: String::new() }).await;
                if answer.is_ok_and(|answer| answer.get_ref().status == 1) {
                    return self.begun.elapsed();
                }
            }
            self.pause("it does not serve").await;
        }
    }

    /// From exec until a Check is answered, by a caller that asks again until it is.
    pub(crate) async fn answered(&self, request: &v1::CheckRequest) -> Duration {
        let mut client = loop {
            match self.client().await {
                Ok(client) => break client,
                Err(_) => self.pause("it does not listen").await,
            }
        };
        loop {
            if let Ok(answer) = client.check(request.clone()).await {
                assert_ne!(answer.into_inner().result.expect("a result").decision, 0);
                return self.begun.elapsed();
            }
            self.pause("it does not answer").await;
        }
    }

    async fn pause(&self, why: &str) {
        assert!(self.begun.elapsed() < Duration::from_secs(60), "{why}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
