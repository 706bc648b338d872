//! The gRPC health service: not serving until a policy is active, not serving from the beginning of a drain.

use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use crate::proto::v1::authorization_service_server::AuthorizationServiceServer;

use super::grpc::AuthorizationApi;

/// The name callers ask for.
const SERVICE: &str = <AuthorizationServiceServer<AuthorizationApi> as NamedService>::NAME;

/// The process as a whole, in the words of the health protocol.
const OVERALL: &str = "";

/// Says how the service is.
#[derive(Clone, Debug)]
pub struct Health(HealthReporter);

impl Health {
    /// Not serving. The reporter of tonic-health begins with the overall status SERVING, which would send
    /// traffic to a sidecar without a policy.
    pub async fn new() -> Self {
        let health = Self(HealthReporter::new());
        health.not_serving().await;
        health
    }

    /// The service for a server.
    pub fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.0.clone()))
    }

    /// A policy is active.
    pub async fn serving(&self) {
        self.set(ServingStatus::Serving).await;
    }

    /// None yet, or the process is ending.
    pub async fn not_serving(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    /// Ends every Watch stream: an open one would hold a graceful shutdown for as long as its client likes.
    pub async fn close(mut self) {
        for service in [OVERALL, SERVICE] {
            self.0.clear_service_status(service).await;
        }
    }

    async fn set(&self, status: ServingStatus) {
        for service in [OVERALL, SERVICE] {
            self.0.set_service_status(service, status).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;
    use tonic::Request;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_server::Health as _;

    use super::*;

    #[tokio::test]
    async fn begins_not_serving_and_ends_its_streams() {
        let health = Health::new().await;
        let service = HealthService::from_health_reporter(health.0.clone());
        let ask = |name: &str| Request::new(HealthCheckRequest { service: name.to_owned() });
        for name in ["", "postern.v1.AuthorizationService"] {
            let answer = service.check(ask(name)).await.unwrap().into_inner();
            assert_eq!(answer.status, ServingStatus::NotServing as i32, "{name}");
        }
        health.serving().await;
        let mut stream = service.watch(ask("")).await.unwrap().into_inner();
        assert_eq!(stream.next().await.unwrap().unwrap().status, ServingStatus::Serving as i32);
        health.not_serving().await;
        assert_eq!(stream.next().await.unwrap().unwrap().status, ServingStatus::NotServing as i32);
        health.close().await;
        assert!(stream.next().await.is_none());
    }
}
