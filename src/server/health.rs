//! The gRPC health service: not serving until a policy is active, not serving from the beginning of a drain. The
//! protocol has no room for a reason, so the answer carries state and reasons as metadata.

use tonic::metadata::MetadataValue;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthApi, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::{HealthReporter, HealthService};

use crate::proto::v1::authorization_service_server::AuthorizationServiceServer;

use crate::readiness::Readiness;
use crate::telemetry::names::metadata::{REASONS, STATE};

use super::grpc::AuthorizationApi;

/// The name callers ask for.
const SERVICE: &str = <AuthorizationServiceServer<AuthorizationApi> as NamedService>::NAME;

/// The process as a whole, in the words of the health protocol.
const OVERALL: &str = "";

/// Longer metadata is refused by many clients.
const MOST_REASONS: usize = 1024;

/// Says how the service is.
#[derive(Clone, Debug)]
pub struct Health {
    reporter: HealthReporter,
    readiness: Readiness,
}

/// The service, with reasons.
#[derive(Debug)]
pub struct Reasoned {
    service: HealthService,
    readiness: Readiness,
}

impl Health {
    /// Not serving. The reporter of tonic-health begins with the overall status SERVING, which would send
    /// traffic to a sidecar without a policy.
    pub async fn new() -> Self {
        let health = Self { reporter: HealthReporter::new(), readiness: Readiness::new() };
        health.not_serving().await;
        health
    }

    /// The same, with the reasons of whoever knows them.
    pub fn with_reasons(self, readiness: Readiness) -> Self {
        Self { readiness, ..self }
    }

    /// The service for a server.
    pub fn service(&self) -> HealthServer<Reasoned> {
        let service = HealthService::from_health_reporter(self.reporter.clone());
        HealthServer::new(Reasoned { service, readiness: self.readiness.clone() })
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
            self.reporter.clear_service_status(service).await;
        }
    }

    async fn set(&self, status: ServingStatus) {
        for service in [OVERALL, SERVICE] {
            self.reporter.set_service_status(service, status).await;
        }
    }
}

#[tonic::async_trait]
impl HealthApi for Reasoned {
    type WatchStream = <HealthService as HealthApi>::WatchStream;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let mut answer = self.service.check(request).await?;
        let report = self.readiness.report();
        answer.metadata_mut().insert(STATE, MetadataValue::from_static(report.state.name()));
        // Metadata is ASCII without line ends.
        let plain = |letter: char| if matches!(letter, ' '..='~') { letter } else { '?' };
        let reasons: String = report.reasons.join("; ").chars().map(plain).take(MOST_REASONS).collect();
        if let (false, Ok(reasons)) = (reasons.is_empty(), reasons.parse()) {
            answer.metadata_mut().insert(REASONS, reasons);
        }
        Ok(answer)
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.service.watch(request).await
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_carries_state_and_reasons() {
        let readiness = Readiness::new();
        let waiting = readiness.block(crate::readiness::POLICY);
        let health = Health::new().await.with_reasons(readiness.clone());
        let service = HealthService::from_health_reporter(health.reporter.clone());
        let service = Reasoned { service, readiness: health.readiness.clone() };
        let ask = async || service.check(Request::new(HealthCheckRequest::default())).await.unwrap();
        let answer = ask().await;
        assert_eq!(answer.metadata().get(STATE).unwrap(), "starting");
        assert_eq!(answer.metadata().get(REASONS).unwrap(), "no policy has become active yet");
        drop(waiting);
        readiness.reload_failed(crate::readiness::ReloadFailure {
            at: jiff::Timestamp::UNIX_EPOCH,
            problems: vec!["größer\n".into()],
        });
        let answer = ask().await;
        assert_eq!(answer.metadata().get(STATE).unwrap(), "degraded");
        assert!(answer.metadata().get(REASONS).unwrap().to_str().unwrap().ends_with("gr??er?"));
    }

    #[tokio::test]
    async fn begins_not_serving_and_ends_its_streams() {
        let health = Health::new().await;
        let service = HealthService::from_health_reporter(health.reporter.clone());
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
