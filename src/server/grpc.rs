//! The service: read the wire, load one snapshot, ask the authorizer, count, answer.
//!
//! Everything between the decoded message and the answer is synchronous: no lock, no await, and the snapshot's
//! guard lives on the stack. Checks run on the thread that decodes them. What explains or lists takes longer: it
//! runs beside them, few at a time, so that it holds up no check.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;

use opentelemetry_sdk::trace::SdkTracer;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Semaphore;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::authorizer::{Answer, Authorizer};
use crate::metrics::{CheckLabels, Metrics, QueryLabels};
use crate::model::{Action, Freshness, Plane, ReasonCode, Scope, Undecided};
use crate::proto::v1;
use crate::proto::v1::authorization_service_server::{AuthorizationService, AuthorizationServiceServer};
use crate::record::{Notes, Recorder};
use crate::snapshot::Snapshot;

use super::Transport;
use super::convert::{self, Asked};
use super::explain::{self, Unanswered};
use super::health::Health;
use super::record::{BatchCall, CheckCall, trace_ids};
use super::status::{PolicyFeed, Watched};
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
    queries: Queries,
    feed: PolicyFeed,
    /// `None` where nobody receives traces: then nothing of them is on the path.
    tracing: Option<Tracing>,
    /// `None` where nobody asked for records: then nothing of them is on the path.
    records: Option<Recorder>,
    transport: &'static str,
}

/// What explains and lists, beside the checks.
#[derive(Debug)]
struct Queries {
    /// Those that wait included.
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
    metrics: Metrics,
    transport: Transport,
}

/// Those that wait; more are refused, since they would only wait.
const WAITING: usize = 64;

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
        feed: PolicyFeed,
        tracer: Option<SdkTracer>,
    ) -> Self {
        Self {
            authorizer,
            max_batch_items: settings.max_batch_items,
            counters: Counters::bind(metrics, transport),
            queries: Queries::new(metrics, transport),
            feed,
            tracing: tracer.map(Tracing::new),
            records: None,
            transport: transport.name(),
        }
    }

    /// The same, recording what it decides.
    pub fn with_records(self, records: Option<Recorder>) -> Self {
        Self { records, ..self }
    }

    fn check_now(
        &self,
        wire: &v1::CheckRequest,
        mut span: Option<&mut CallSpan>,
        mut notes: Option<&mut Notes<'_>>,
    ) -> Result<v1::CheckResponse, Status> {
        let asked = convert::check_request(wire).map_err(|violations| {
            self.counters.invalid.inc();
            if let Some(span) = &mut span {
                span.invalid();
            }
            violations.into_status()
        })?;
        let active = self.authorizer.snapshot();
        if let Some(notes) = notes.as_deref_mut() {
            notes.under(&active);
        }
        let outcome = match active.get() {
            Some(snapshot) => {
                self.decide(snapshot, &asked, notes.as_deref_mut()).map(|answer| (snapshot, answer))
            }
            None => {
                if let Some(notes) = notes.take() {
                    notes.no_policy(&self.authorizer);
                }
                Err(self.counters.count_undecided(Undecided::NoPolicy))
            }
        };
        match outcome {
            Ok((snapshot, answer)) => {
                if let Some(span) = span {
                    span.answered(&wire.request_id, &asked.request, snapshot, &answer);
                }
                let response = v1::CheckResponse {
                    result: Some(convert::result(snapshot, &asked, &answer)),
                    policy: Some(convert::identity(&self.authorizer, snapshot)),
                    request_id: wire.request_id.clone(),
                };
                if let Some(notes) = notes {
                    notes.decided(None, Ok(answer));
                }
                Ok(response)
            }
            Err(undecided) => {
                if let Some(span) = span {
                    span.undecided(&wire.request_id, &asked.request, active.get(), &undecided);
                }
                let status = convert::undecided_status(&undecided);
                if let Some(notes) = notes {
                    notes.decided(None, Err(undecided));
                }
                Err(status)
            }
        }
    }

    fn batch_check_now(
        &self,
        wire: &v1::BatchCheckRequest,
        mut span: Option<&mut CallSpan>,
        mut notes: Option<&mut Notes<'_>>,
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
            if let Some(notes) = notes {
                notes.no_policy(&self.authorizer);
            }
            return Err(convert::undecided_status(&self.counters.count_undecided(Undecided::NoPolicy)));
        };
        if let Some(notes) = notes.as_deref_mut() {
            notes.under(&active);
        }
        self.counters.batch_items.inc_by(u64::try_from(wire.items.len()).unwrap_or(u64::MAX));
        let results = wire
            .items
            .iter()
            .enumerate()
            .map(|(index, item)| v1::BatchCheckItemResult {
                outcome: Some(self.item(
                    snapshot,
                    &batch,
                    (index, item),
                    span.as_deref_mut(),
                    notes.as_deref_mut(),
                )),
            })
            .collect();
        Ok(v1::BatchCheckResponse {
            results,
            policy: Some(convert::identity(&self.authorizer, snapshot)),
            request_id: wire.request_id.clone(),
            item_limit: u32::try_from(self.max_batch_items).unwrap_or(u32::MAX),
        })
    }

    fn item<'a>(
        &self,
        snapshot: &Snapshot,
        batch: &convert::Batch<'a>,
        (index, item): (usize, &'a v1::BatchCheckItem),
        span: Option<&mut CallSpan>,
        mut notes: Option<&mut Notes<'_>>,
    ) -> v1::batch_check_item_result::Outcome {
        use v1::batch_check_item_result::Outcome;

        let asked = match batch.item(index, item) {
            Ok(asked) => asked,
            Err(violations) => {
                self.counters.invalid.inc();
                return Outcome::Error(violations.into_item());
            }
        };
        let outcome = self.decide(snapshot, &asked, notes.as_deref_mut());
        if let Some(span) = span {
            span.item(index, &asked.request, snapshot, outcome.as_ref());
        }
        let told = match &outcome {
            Ok(answer) => Outcome::Result(convert::result(snapshot, &asked, answer)),
            Err(undecided) => Outcome::Error(convert::undecided_item(undecided)),
        };
        if let Some(notes) = notes {
            notes.decided(Some(index), outcome);
        }
        told
    }

    fn decide(
        &self,
        snapshot: &Snapshot,
        asked: &Asked<'_>,
        notes: Option<&mut Notes<'_>>,
    ) -> Result<Answer, Undecided> {
        let agent = asked.agent.as_ref();
        let outcome = match notes {
            None => self.authorizer.check(snapshot, &asked.request, agent),
            Some(notes) => notes.decide(&self.authorizer, snapshot, &asked.request, agent),
        };
        match outcome {
            Ok(answer) => {
                self.counters.count(asked.request.plane, &answer);
                Ok(answer)
            }
            Err(undecided) => {
                log_damage(snapshot, &undecided);
                Err(self.counters.count_undecided(undecided))
            }
        }
    }
}

impl AuthorizationApi {
    /// Runs what explains or lists, and counts how it ended.
    async fn query<Q: Send + 'static, A: Send + 'static>(
        &self,
        method: Method,
        request: Request<Q>,
        answer: fn(&Authorizer, &Q, Option<&mut CallSpan>) -> Result<A, Unanswered>,
    ) -> Result<Response<A>, Status> {
        let mut span = self.tracing.as_ref().map(|tracing| tracing.start(method, request.metadata()));
        let Ok(admitted) = Arc::clone(&self.queries.admitted).try_acquire_owned() else {
            if let Some(span) = &mut span {
                span.refused(Code::ResourceExhausted);
            }
            self.queries.count(method, "busy");
            return Err(busy());
        };
        let running = Arc::clone(&self.queries.running).acquire_owned().await;
        let authorizer = self.authorizer.clone();
        let work = tokio::task::spawn_blocking(move || {
            // The work goes on when the caller goes away, so it keeps its place itself.
            let _place = (admitted, running);
            let outcome = answer(&authorizer, request.get_ref(), span.as_mut());
            if let (Some(span), Err(Unanswered::Malformed(_) | Unanswered::TooManyOperations(_))) =
                (&mut span, &outcome)
            {
                span.invalid();
            }
            if let (Some(span), Err(Unanswered::Outdated(_))) = (&mut span, &outcome) {
                span.refused(Code::Aborted);
            }
            outcome
        });
        let (counted, answer) = match work.await {
            Ok(Ok(answer)) => ("answered", Ok(Response::new(answer))),
            Ok(Err(unanswered)) => {
                (self.counters.count_unanswered(&unanswered), Err(unanswered.into_status()))
            }
            Err(error) => {
                tracing::error!(%error, method = method.names().0, "a call ended without an answer");
                ("failed", Err(Status::internal("the call ended without an answer")))
            }
        };
        self.queries.count(method, counted);
        answer
    }
}

fn explain_now(
    authorizer: &Authorizer,
    wire: &v1::ExplainRequest,
    span: Option<&mut CallSpan>,
) -> Result<v1::ExplainResponse, Unanswered> {
    let asked = explain::explain_request(wire).map_err(Unanswered::Malformed)?;
    let request_id = wire.check.as_ref().map_or("", |check| check.request_id.as_str());
    let active = authorizer.snapshot();
    let outcome = with_policy(active.get(), |snapshot| {
        let explained = authorizer.explain(snapshot, &asked.request, asked.agent.as_ref());
        explained.map(|explained| (snapshot, explained)).map_err(Unanswered::Undecided)
    });
    if let Some(span) = span {
        match &outcome {
            Ok((snapshot, explained)) => {
                span.answered(request_id, &asked.request, snapshot, &explained.answer);
            }
            Err(Unanswered::Undecided(undecided)) => {
                span.undecided(request_id, &asked.request, active.get(), undecided);
            }
            Err(_) => {}
        }
    }
    let (snapshot, explained) = outcome?;
    Ok(explain::explained(authorizer, snapshot, &asked, &explained, request_id))
}

fn list_permissions_now(
    authorizer: &Authorizer,
    wire: &v1::ListPermissionsRequest,
    span: Option<&mut CallSpan>,
) -> Result<v1::ListPermissionsResponse, Unanswered> {
    let asked = explain::permissions_request(wire)?;
    let active = authorizer.snapshot();
    let outcome = with_policy(active.get(), |snapshot| explain::permissions(authorizer, snapshot, &asked));
    listed(span, &wire.request_id, (None, asked.scope), active.get(), &outcome);
    outcome
}

fn list_principals_now(
    authorizer: &Authorizer,
    wire: &v1::ListPrincipalsRequest,
    span: Option<&mut CallSpan>,
) -> Result<v1::ListPrincipalsResponse, Unanswered> {
    let asked = explain::principals_request(wire)?;
    let active = authorizer.snapshot();
    let outcome = with_policy(active.get(), |snapshot| explain::principals(authorizer, snapshot, &asked));
    let what = (Some((asked.action, asked.plane)), asked.scope);
    listed(span, &wire.request_id, what, active.get(), &outcome);
    outcome
}

fn with_policy<'s, A>(
    snapshot: Option<&'s Snapshot>,
    answer: impl FnOnce(&'s Snapshot) -> Result<A, Unanswered>,
) -> Result<A, Unanswered> {
    let snapshot = snapshot.ok_or(Unanswered::Undecided(Undecided::NoPolicy))?;
    answer(snapshot).inspect_err(|unanswered| {
        if let Unanswered::Undecided(undecided) = unanswered {
            log_damage(snapshot, undecided);
        }
    })
}

fn listed<A>(
    span: Option<&mut CallSpan>,
    request_id: &str,
    what: (Option<(Action<'_>, Plane)>, Scope<'_>),
    snapshot: Option<&Snapshot>,
    outcome: &Result<A, Unanswered>,
) {
    let Some(span) = span else { return };
    match outcome {
        Ok(_) => span.listed(request_id, what, snapshot, Ok(())),
        Err(Unanswered::Undecided(undecided)) => span.listed(request_id, what, snapshot, Err(undecided)),
        Err(_) => {}
    }
}

fn log_damage(snapshot: &Snapshot, undecided: &Undecided) {
    if *undecided == Undecided::DamagedPolicy {
        tracing::error!(generation = snapshot.generation, "the compiled policy is damaged");
    }
}

fn busy() -> Status {
    let details = ErrorDetails::with_error_info("BUSY", convert::ERROR_DOMAIN, HashMap::new());
    let message = "too many calls that explain or list at once; checks are answered as ever";
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

impl Queries {
    fn new(metrics: &Metrics, transport: Transport) -> Self {
        // Half of the machine is left to the checks.
        let running = thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        Self {
            admitted: Arc::new(Semaphore::new(running.saturating_add(WAITING))),
            running: Arc::new(Semaphore::new(running)),
            metrics: metrics.clone(),
            transport,
        }
    }

    fn count(&self, method: Method, outcome: &'static str) {
        let (method, _) = method.names();
        self.metrics.queries(QueryLabels { method, outcome, transport: self.transport.name() }).inc();
    }
}

#[tonic::async_trait]
impl AuthorizationService for AuthorizationApi {
    type WatchPolicyStream = Watched;

    async fn get_policy_status(
        &self,
        _request: Request<v1::GetPolicyStatusRequest>,
    ) -> Result<Response<v1::GetPolicyStatusResponse>, Status> {
        let status = Some(self.feed.status(&self.authorizer));
        Ok(Response::new(v1::GetPolicyStatusResponse { status }))
    }

    async fn watch_policy(
        &self,
        _request: Request<v1::WatchPolicyRequest>,
    ) -> Result<Response<Watched>, Status> {
        Ok(Response::new(self.feed.watch(&self.authorizer)))
    }

    async fn check(&self, request: Request<v1::CheckRequest>) -> Result<Response<v1::CheckResponse>, Status> {
        let mut span = self.tracing.as_ref().map(|tracing| tracing.start(Method::Check, request.metadata()));
        let Some(records) = &self.records else {
            return self.check_now(request.get_ref(), span.as_mut(), None).map(Response::new);
        };
        let mut notes = records.notes();
        let outcome = self.check_now(request.get_ref(), span.as_mut(), Some(&mut notes));
        let (metadata, _, wire) = request.into_parts();
        let trace = trace_ids(span.as_ref().map(CallSpan::context), &metadata);
        notes.keep(|| CheckCall(wire), trace, self.transport).await;
        outcome.map(Response::new)
    }

    async fn batch_check(
        &self,
        request: Request<v1::BatchCheckRequest>,
    ) -> Result<Response<v1::BatchCheckResponse>, Status> {
        let mut span =
            self.tracing.as_ref().map(|tracing| tracing.start(Method::BatchCheck, request.metadata()));
        let Some(records) = &self.records else {
            return self.batch_check_now(request.get_ref(), span.as_mut(), None).map(Response::new);
        };
        let mut notes = records.notes();
        let outcome = self.batch_check_now(request.get_ref(), span.as_mut(), Some(&mut notes));
        let (metadata, _, wire) = request.into_parts();
        let trace = trace_ids(span.as_ref().map(CallSpan::context), &metadata);
        notes.keep(|| BatchCall(wire), trace, self.transport).await;
        outcome.map(Response::new)
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        self.query(Method::Explain, request, explain_now).await
    }

    async fn list_permissions(
        &self,
        request: Request<v1::ListPermissionsRequest>,
    ) -> Result<Response<v1::ListPermissionsResponse>, Status> {
        self.query(Method::ListPermissions, request, list_permissions_now).await
    }

    async fn list_principals(
        &self,
        request: Request<v1::ListPrincipalsRequest>,
    ) -> Result<Response<v1::ListPrincipalsResponse>, Status> {
        self.query(Method::ListPrincipals, request, list_principals_now).await
    }
}

// === Counters ===

/// Every counter of the path, looked up once.
#[derive(Debug)]
struct Counters {
    /// Indexed by [`slot`].
    checks: [Counter; SLOTS],
    no_policy: Counter,
    policy_stale: Counter,
    policy_expired: Counter,
    unknown_hierarchy: Counter,
    conditions_too_costly: Counter,
    damaged_policy: Counter,
    invalid: Counter,
    batch_items: Counter,
}

/// The reason implies the decision, so the reasons, two planes and two ways of getting there are all there is.
const fn slot(reason: ReasonCode, plane: Plane, cached: bool) -> usize {
    let plane = match plane {
        Plane::Control => 0,
        Plane::Data => 2,
    };
    reason.index() * 4 + plane + cached as usize
}

const SLOTS: usize = ReasonCode::ALL.len() * 4;

impl Counters {
    fn bind(metrics: &Metrics, transport: Transport) -> Self {
        let mut checks: [Counter; SLOTS] = std::array::from_fn(|_| Counter::default());
        for reason in ReasonCode::ALL {
            for (plane, plane_name) in [(Plane::Control, "control"), (Plane::Data, "data")] {
                for (cached, cached_name) in [(false, "false"), (true, "true")] {
                    if let Some(counter) = checks.get_mut(slot(reason, plane, cached)) {
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
            policy_stale: undecided(&Undecided::PolicyOutdated(Freshness::Stale)),
            policy_expired: undecided(&Undecided::PolicyOutdated(Freshness::Expired)),
            unknown_hierarchy: undecided(&Undecided::UnknownHierarchy { holder: String::new() }),
            conditions_too_costly: undecided(&Undecided::ConditionsTooCostly),
            damaged_policy: undecided(&Undecided::DamagedPolicy),
            invalid: metrics.invalid(),
            batch_items: metrics.batch_items(),
        }
    }

    fn count(&self, plane: Plane, answer: &Answer) {
        let reason = answer.evaluation.decision.reason_code();
        if let Some(counter) = self.checks.get(slot(reason, plane, answer.cached)) {
            counter.inc();
        }
    }

    /// The word for it in the metric of calls that explain or list.
    fn count_unanswered(&self, unanswered: &Unanswered) -> &'static str {
        match unanswered {
            Unanswered::Malformed(_) | Unanswered::TooManyOperations(_) => {
                self.invalid.inc();
                "invalid"
            }
            Unanswered::Undecided(undecided) => {
                self.count_undecided(undecided.clone());
                "undecided"
            }
            Unanswered::Outdated(_) => "aborted",
        }
    }

    fn count_undecided(&self, undecided: Undecided) -> Undecided {
        let counter = match undecided {
            Undecided::NoPolicy => &self.no_policy,
            Undecided::PolicyOutdated(Freshness::Expired) => &self.policy_expired,
            Undecided::PolicyOutdated(_) => &self.policy_stale,
            Undecided::UnknownHierarchy { .. } => &self.unknown_hierarchy,
            Undecided::ConditionsTooCostly => &self.conditions_too_costly,
            Undecided::DamagedPolicy => &self.damaged_policy,
        };
        counter.inc();
        undecided
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorizer::CacheSettings;
    use crate::cache::CachePolicy;
    use crate::clock::Clock;
    use crate::drain::Drain;
    use crate::readiness::Readiness;

    #[tokio::test]
    async fn a_flood_is_refused_and_counted() {
        let (_writer, reader) = crate::snapshot::cell();
        let cache = CacheSettings { policy: CachePolicy::Off, max_bytes: 0 };
        let settings = GrpcSettings { max_batch_items: 1, max_request_bytes: 1 << 20, reflection: false };
        let metrics = Metrics::new("", "");
        let (_activated, activations) = tokio::sync::watch::channel(0);
        let feed = PolicyFeed { readiness: Readiness::new(), activations, drain: Drain::new() };
        let authorizer = Authorizer::new(reader, cache, Clock::system());
        let api = AuthorizationApi::new(authorizer, settings, Transport::Tcp, &metrics, feed, None);
        let explain = async || {
            let check = v1::CheckRequest {
                subject: Some(v1::Subject { principal_id: "alice".into(), ..Default::default() }),
                action: Some(v1::Action { name: "A.B/c/read".into(), ..Default::default() }),
                resource: Some(v1::Resource { scope: "/".into(), ..Default::default() }),
                ..Default::default()
            };
            api.explain(Request::new(v1::ExplainRequest { check: Some(check) })).await.unwrap_err().code()
        };
        assert_eq!(explain().await, Code::Unavailable, "there is no policy yet");
        let places = api.queries.admitted.available_permits();
        let all = api.queries.admitted.try_acquire_many(u32::try_from(places).unwrap()).unwrap();
        assert_eq!(explain().await, Code::ResourceExhausted);
        drop(all);
        assert_eq!(explain().await, Code::Unavailable);
        let text = metrics.encode().unwrap();
        for (outcome, count) in [("undecided", 2), ("busy", 1)] {
            let line = format!(
                "postern_queries_total{{method=\"Explain\",outcome=\"{outcome}\",transport=\"tcp\"}} {count}"
            );
            assert!(text.contains(&line), "{line} not in {text}");
        }
    }
}
