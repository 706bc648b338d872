//! The service: read the wire, load one snapshot, ask the authorizer, count, answer.
//!
//! Everything between the decoded message and the answer is synchronous: no lock, no await, and the snapshot's
//! guard lives on the stack.

use opentelemetry_sdk::trace::SdkTracer;
use prometheus_client::metrics::counter::Counter;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status};

use crate::authorizer::{Answer, Authorizer};
use crate::metrics::{CheckLabels, Metrics};
use crate::model::{Plane, ReasonCode, Undecided};
use crate::proto::v1;
use crate::proto::v1::authorization_service_server::{AuthorizationService, AuthorizationServiceServer};
use crate::snapshot::Snapshot;

use super::Transport;
use super::convert::{self, Asked};
use super::health::Health;
use super::trace::{CallSpan, Method, Tracing};

/// Settings of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcSettings {
    /// Items in one batch.
    pub max_batch_items: usize,
    /// Bytes of one request message.
    pub max_request_bytes: usize,
    /// Whether the reflection services answer.
    pub reflection: bool,
}

/// `postern.v1.AuthorizationService` on one listener.
#[derive(Debug)]
pub struct AuthorizationApi {
    authorizer: Authorizer,
    max_batch_items: usize,
    counters: Counters,
    /// `None` where nobody receives traces: then nothing of them is on the path.
    tracing: Option<Tracing>,
}

/// The services of one listener, ready to serve.
pub fn router(
    api: AuthorizationApi,
    health: &Health,
    settings: GrpcSettings,
) -> Result<Router, tonic_reflection::server::Error> {
    let service = AuthorizationServiceServer::new(api).max_decoding_message_size(settings.max_request_bytes);
    let router = Server::builder().add_service(service).add_service(health.service());
    if !settings.reflection {
        return Ok(router);
    }
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(crate::proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(router.add_service(reflection().build_v1()?).add_service(reflection().build_v1alpha()?))
}

// === impl AuthorizationApi ===

impl AuthorizationApi {
    /// Binds the counters of one transport.
    pub fn new(
        authorizer: Authorizer,
        settings: GrpcSettings,
        transport: Transport,
        metrics: &Metrics,
        tracer: Option<SdkTracer>,
    ) -> Self {
        Self {
            authorizer,
            max_batch_items: settings.max_batch_items,
            counters: Counters::bind(metrics, transport),
            tracing: tracer.map(Tracing::new),
        }
    }

    fn check_now(
        &self,
        wire: &v1::CheckRequest,
        mut span: Option<&mut CallSpan>,
    ) -> Result<v1::CheckResponse, Status> {
        let asked = convert::check_request(wire).map_err(|violations| {
            self.counters.invalid.inc();
            if let Some(span) = &mut span {
                span.invalid();
            }
            violations.into_status()
        })?;
        let active = self.authorizer.snapshot();
        let outcome = match active.get() {
            Some(snapshot) => self.decide(snapshot, &asked).map(|answer| (snapshot, answer)),
            None => Err(self.counters.count_undecided(Undecided::NoPolicy)),
        };
        match outcome {
            Ok((snapshot, answer)) => {
                if let Some(span) = span {
                    span.answered(&wire.request_id, &asked.request, snapshot, &answer);
                }
                Ok(v1::CheckResponse {
                    result: Some(convert::result(snapshot, &asked, &answer)),
                    policy: Some(convert::identity(snapshot)),
                    request_id: wire.request_id.clone(),
                })
            }
            Err(undecided) => {
                if let Some(span) = span {
                    span.undecided(&wire.request_id, &asked.request, active.get(), &undecided);
                }
                Err(convert::undecided_status(&undecided))
            }
        }
    }

    fn batch_check_now(
        &self,
        wire: &v1::BatchCheckRequest,
        mut span: Option<&mut CallSpan>,
    ) -> Result<v1::BatchCheckResponse, Status> {
        let batch = convert::batch(wire, self.max_batch_items).map_err(|error| {
            self.counters.invalid.inc();
            if let Some(span) = &mut span {
                span.invalid();
            }
            error.into_status()
        })?;
        // One snapshot for all items: they must not disagree about the policy.
        let active = self.authorizer.snapshot();
        if let Some(span) = &mut span {
            span.batch(&wire.request_id, active.get(), wire.items.len());
        }
        let Some(snapshot) = active.get() else {
            return Err(convert::undecided_status(&self.counters.count_undecided(Undecided::NoPolicy)));
        };
        self.counters.batch_items.inc_by(u64::try_from(wire.items.len()).unwrap_or(u64::MAX));
        let results = wire
            .items
            .iter()
            .enumerate()
            .map(|(index, item)| v1::BatchCheckItemResult {
                outcome: Some(self.item(snapshot, &batch, index, item, span.as_deref_mut())),
            })
            .collect();
        Ok(v1::BatchCheckResponse {
            results,
            policy: Some(convert::identity(snapshot)),
            request_id: wire.request_id.clone(),
            item_limit: u32::try_from(self.max_batch_items).unwrap_or(u32::MAX),
        })
    }

    fn item<'a>(
        &self,
        snapshot: &Snapshot,
        batch: &convert::Batch<'a>,
        index: usize,
        item: &'a v1::BatchCheckItem,
        span: Option<&mut CallSpan>,
    ) -> v1::batch_check_item_result::Outcome {
        use v1::batch_check_item_result::Outcome;

        let asked = match batch.item(index, item) {
            Ok(asked) => asked,
            Err(violations) => {
                self.counters.invalid.inc();
                return Outcome::Error(violations.into_item());
            }
        };
        let outcome = self.decide(snapshot, &asked);
        if let Some(span) = span {
            span.item(index, &asked.request, snapshot, outcome.as_ref());
        }
        match outcome {
            Ok(answer) => Outcome::Result(convert::result(snapshot, &asked, &answer)),

            Err(undecided) => Outcome::Error(convert::undecided_item(&undecided)),
        }
    }

    fn decide(&self, snapshot: &Snapshot, asked: &Asked<'_>) -> Result<Answer, Undecided> {
        match self.authorizer.check(snapshot, &asked.request, asked.agent.as_ref()) {
            Ok(answer) => {
                self.counters.count(asked.request.plane, &answer);
                Ok(answer)
            }
            Err(undecided) => {
                if undecided == Undecided::DamagedPolicy {
                    tracing::error!(generation = snapshot.generation, "the compiled policy is damaged");
                }
                Err(self.counters.count_undecided(undecided))
            }
        }
    }
}

#[tonic::async_trait]
impl AuthorizationService for AuthorizationApi {
    async fn check(&self, request: Request<v1::CheckRequest>) -> Result<Response<v1::CheckResponse>, Status> {
        let mut span = self.tracing.as_ref().map(|tracing| tracing.start(Method::Check, request.metadata()));
        self.check_now(request.get_ref(), span.as_mut()).map(Response::new)
    }

    async fn batch_check(
        &self,
        request: Request<v1::BatchCheckRequest>,
    ) -> Result<Response<v1::BatchCheckResponse>, Status> {
        let mut span =
            self.tracing.as_ref().map(|tracing| tracing.start(Method::BatchCheck, request.metadata()));
        self.batch_check_now(request.get_ref(), span.as_mut()).map(Response::new)
    }

    async fn explain(
        &self,
        _request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        Err(Status::unimplemented("this sidecar does not explain"))
    }

    async fn list_permissions(
        &self,
        _request: Request<v1::ListPermissionsRequest>,
    ) -> Result<Response<v1::ListPermissionsResponse>, Status> {
        Err(Status::unimplemented("this sidecar lists no permissions"))
    }

    async fn list_principals(
        &self,
        _request: Request<v1::ListPrincipalsRequest>,
    ) -> Result<Response<v1::ListPrincipalsResponse>, Status> {
        Err(Status::unimplemented("this sidecar lists no principals"))
    }
}

// === Counters ===

/// Every counter of the path, looked up once.
#[derive(Debug)]
struct Counters {
    /// Indexed by [`slot`].
    checks: [Counter; SLOTS],
    no_policy: Counter,
    unknown_hierarchy: Counter,
    conditions_too_costly: Counter,
    damaged_policy: Counter,
    invalid: Counter,
    batch_items: Counter,
}

/// The reason implies the decision, so the reasons, two planes and two ways of getting there are all there is.
fn slot(reason: ReasonCode, plane: Plane, cached: bool) -> Option<usize> {
    let reason = ReasonCode::ALL.iter().position(|other| *other == reason)?;
    let plane = match plane {
        Plane::Control => 0,
        Plane::Data => 2,
    };
    reason.checked_mul(4)?.checked_add(plane + usize::from(cached))
}

const SLOTS: usize = ReasonCode::ALL.len() * 4;

impl Counters {
    fn bind(metrics: &Metrics, transport: Transport) -> Self {
        let mut checks: [Counter; SLOTS] = std::array::from_fn(|_| Counter::default());
        for reason in ReasonCode::ALL {
            for (plane, plane_name) in [(Plane::Control, "control"), (Plane::Data, "data")] {
                for (cached, cached_name) in [(false, "false"), (true, "true")] {
                    if let Some(counter) = slot(reason, plane, cached).and_then(|slot| checks.get_mut(slot)) {
                        *counter = metrics.checks(CheckLabels {
                            decision: reason.decision(),
                            reason: reason.name(),
                            plane: plane_name,
                            cached: cached_name,
                            transport: transport.name(),
                        });
                    }
                }
            }
        }
        let undecided = |undecided: &Undecided| metrics.undecided(convert::undecided_reason(undecided));
        Self {
            checks,
            no_policy: undecided(&Undecided::NoPolicy),
            unknown_hierarchy: undecided(&Undecided::UnknownHierarchy { holder: String::new() }),
            conditions_too_costly: undecided(&Undecided::ConditionsTooCostly),
            damaged_policy: undecided(&Undecided::DamagedPolicy),
            invalid: metrics.invalid(),
            batch_items: metrics.batch_items(),
        }
    }

    fn count(&self, plane: Plane, answer: &Answer) {
        let reason = answer.evaluation.decision.reason_code();
        if let Some(counter) = slot(reason, plane, answer.cached).and_then(|slot| self.checks.get(slot)) {
            counter.inc();
        }
    }

    fn count_undecided(&self, undecided: Undecided) -> Undecided {
        let counter = match undecided {
            Undecided::NoPolicy => &self.no_policy,
            Undecided::UnknownHierarchy { .. } => &self.unknown_hierarchy,
            Undecided::ConditionsTooCostly => &self.conditions_too_costly,
            Undecided::DamagedPolicy => &self.damaged_policy,
        };
        counter.inc();
        undecided
    }
}
