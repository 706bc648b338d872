//! The service: read the wire, load one snapshot, ask the authorizer, count, answer.
//!
//! Everything between the decoded message and the answer is synchronous: no lock, no await, and the snapshot's
//! guard lives on the stack. Checks run on the thread that decodes them. What explains or lists takes longer: it
//! runs beside them, few at a time, so that it holds up no check.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use prost::Message;
use tokio::sync::Semaphore;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

use crate::authorizer::{Answer, Authorizer, CACHE_NAMES};
use crate::metrics::{Counter, Gauge, Histogram, Metrics};
use crate::model::{Action, Freshness, Plane, ReasonCode, Scope, Undecided};
use crate::policy::Prepared;
use crate::proto::v1;
use crate::proto::v1::authorization_service_server::{AuthorizationService, AuthorizationServiceServer};
use crate::record::{Notes, Recorder};
use crate::snapshot::Snapshot;
use crate::telemetry::names::metric;
use crate::telemetry::{TraceOptions, Traces};
use crate::wire::{put_bytes, put_message, put_number, put_text};

use super::Transport;
use super::answer::{USUAL_LENGTH, Writer, identity};
use super::connections::Services;
use super::convert::{self, Asked};
use super::direct::{Direct, HEAD};
use super::explain::{self, Unanswered};
use super::health::Health;
use super::limits::{Limited, RequestLimit};
use super::message::{BatchCheckRequest, CheckRequest, View};
use super::record::{BatchCall, CheckCall, trace_ids};
use super::status::{PolicyFeed, Watched};
use super::stream::{self, Answers};
use super::trace::{Call, Decided, Item, Method, Tracing};

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

/// `postern.v1.AuthorizationService` on one listener. Cheap to clone: each open stream of questions has its own.
#[derive(Clone, Debug)]
pub struct AuthorizationApi {
    pub(super) authorizer: Authorizer,
    pub(super) max_batch_items: usize,
    pub(super) counters: Arc<Counters>,
    queries: Queries,
    pub(super) feed: PolicyFeed,
    pub(super) limit: RequestLimit,
    /// `None` where nobody receives traces: then nothing of them is on the path.
    pub(super) tracing: Option<Arc<Tracing>>,
    /// `None` where nobody asked for records: then nothing of them is on the path.
    pub(super) records: Option<Recorder>,
    pub(super) transport: &'static str,
}

/// What explains and lists, beside the checks.
#[derive(Clone, Debug)]
struct Queries {
    /// Those that wait included.
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
    metrics: Metrics,
    transport: Transport,
}

/// What was decided, if it could be.
pub(super) struct Timed {
    pub(super) outcome: Result<Answer, Undecided>,
    pub(super) took: Duration,
    ended: Instant,
}

/// Those that wait; more are refused, since they would only wait.
const WAITING: usize = 64;

/// The services of one listener, ready to serve.
pub fn services(
    api: AuthorizationApi,
    health: &Health,
    settings: GrpcSettings,
    limit: RequestLimit,
) -> Result<Services, tonic_reflection::server::Error> {
    let (transport, metrics) = (api.queries.transport, api.queries.metrics.clone());
    let api = Arc::new(api.limited_by(limit.clone()));
    let service = AuthorizationServiceServer::from_arc(Arc::clone(&api))
        .max_decoding_message_size(settings.max_request_bytes);
    let checks = Direct::new(api, settings.max_request_bytes, service);
    let checks = Limited::new(checks, limit, transport, &metrics);
    let mut others = Routes::new(health.service());
    if settings.reflection {
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(crate::proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        others = others.add_service(reflection().build_v1()?).add_service(reflection().build_v1alpha()?);
    }
    Ok(Services::new(checks, others.prepare(), transport))
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
        traces: Option<(Traces, TraceOptions)>,
    ) -> Self {
        let tracing = traces
            .map(|(traces, options)| Arc::new(Tracing::new(traces, options, transport, authorizer.clone())));
        Self {
            authorizer,
            max_batch_items: settings.max_batch_items,
            counters: Arc::new(Counters::bind(metrics, transport)),
            queries: Queries::new(metrics, transport),
            feed,
            limit: RequestLimit::new(usize::MAX, usize::MAX),
            tracing,
            records: None,
            transport: transport.name(),
        }
    }

    /// The same, recording what it decides.
    pub fn with_records(self, records: Option<Recorder>) -> Self {
        Self { records, ..self }
    }

    /// The same, for so much at a time.
    pub(super) fn limited_by(self, limit: RequestLimit) -> Self {
        Self { limit, ..self }
    }

    fn check_now(
        &self,
        wire: View<'_>,
        call: Option<&Call<'_>>,
        mut notes: Option<&mut Notes<'_>>,
    ) -> Result<Vec<u8>, Status> {
        let asked = convert::check_request(wire).map_err(|violations| {
            self.counters.invalid.inc();
            if let Some(call) = call {
                call.refused(Code::InvalidArgument);
            }
            violations.into_status()
        })?;
        let active = self.authorizer.snapshot();
        if let Some(notes) = notes.as_deref_mut() {
            notes.under(&active);
        }
        let outcome = match active.get() {
            Some(snapshot) => {
                let at = self.authorizer.now();
                let Timed { outcome, took, .. } =
                    self.decide(snapshot, &asked, None, at, notes.as_deref_mut());
                outcome.map(|answer| (snapshot, answer, took))
            }
            None => {
                if let Some(notes) = notes.take() {
                    notes.no_policy(None, &self.authorizer);
                }
                Err(self.counters.count_undecided(asked.request.plane, Undecided::NoPolicy))
            }
        };
        match outcome {
            Ok((snapshot, answer, took)) => {
                let mut response = Vec::with_capacity(USUAL_LENGTH);
                response.extend_from_slice(&[0; HEAD]);
                let mut writer = Writer::new(snapshot);
                put_message(&mut response, 1, |out| writer.result(out, &asked, &answer));
                put_message(&mut response, 2, |out| identity(out, &self.authorizer, snapshot));
                put_text(&mut response, 3, wire.request_id);
                if let Some(call) = call {
                    let decided = Decided { asked: &asked, answer: &answer, took };
                    call.answered(wire.request_id, snapshot, &decided);
                }
                if let Some(notes) = notes {
                    notes.decided(None, Ok(answer));
                }
                Ok(response)
            }
            Err(undecided) => {
                if let Some(call) = call {
                    call.undecided(wire.request_id, &asked, active.get(), &undecided);
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
        message: &BatchCheckRequest<'_>,
        call: Option<&Call<'_>>,
        mut notes: Option<&mut Notes<'_>>,
    ) -> Result<Vec<u8>, Status> {
        let (wire, items) = (message.view(), message.items());
        let batch = convert::batch(wire, self.max_batch_items).map_err(|error| {
            self.counters.invalid.inc();
            if let Some(call) = call {
                call.refused(Code::InvalidArgument);
            }
            error.into_status()
        })?;
        // One snapshot and one moment for all items: they must not disagree about the policy.
        let active = self.authorizer.snapshot();
        let call = call.filter(|call| call.may_be_told());
        let Some(snapshot) = active.get() else {
            if let Some(notes) = notes {
                notes.no_policy(None, &self.authorizer);
            }
            if let Some(call) = call {
                call.batch(wire.request_id, None, items.len(), &[]);
            }
            let undecided = self.counters.count_undecided(Plane::Control, Undecided::NoPolicy);
            return Err(convert::undecided_status(&undecided));
        };
        if let Some(notes) = notes.as_deref_mut() {
            notes.under(&active);
        }
        self.counters.batch_items.inc_by(u64::try_from(items.len()).unwrap_or(u64::MAX));
        let at = self.authorizer.now();
        let mut told = Vec::with_capacity(if call.is_some() { items.len() } else { 0 });
        let mut began = Instant::now();
        let mut response = Vec::with_capacity(items.len().saturating_add(1).saturating_mul(USUAL_LENGTH));
        response.extend_from_slice(&[0; HEAD]);
        let mut writer = Writer::new(snapshot);
        // Found once for all items. Where that fails the evaluation fails, and says so.
        let shared = batch.subject().filter(|_| items.len() > 1);
        let shared = shared.and_then(|subject| snapshot.policy.prepare(&subject).ok());
        for (index, item) in items.iter().enumerate() {
            let view = item.view();
            let prepared = shared.as_ref().filter(|_| view.subject.is_none());
            let (kept, ended) = match batch.item(index, view) {
                Ok(asked) => {
                    let Timed { outcome: decided, ended, .. } =
                        self.decide(snapshot, &asked, prepared, at, notes.as_deref_mut());
                    put_message(&mut response, 1, |out| match &decided {
                        Ok(answer) => put_message(out, 1, |out| writer.result(out, &asked, answer)),
                        Err(undecided) => {
                            put_bytes(out, 2, &convert::undecided_item(undecided).encode_to_vec());
                        }
                    });
                    let told = call.map(|_| (asked, decided.clone()));
                    if let Some(notes) = notes.as_deref_mut() {
                        notes.decided(Some(index), decided);
                    }
                    (told, ended)
                }
                Err(violations) => {
                    self.counters.invalid.inc();
                    let error = violations.into_item().encode_to_vec();
                    put_message(&mut response, 1, |out| put_bytes(out, 2, &error));
                    (None, Instant::now())
                }
            };
            // From one decision to the next, since each look at the clock is a good part of a decision.
            let took = ended.saturating_duration_since(began);
            self.counters.batch_item.observe(took);
            if call.is_some() {
                told.push(Item { id: None, outcome: kept, ended, took });
            }
            began = ended;
        }
        if let Some(call) = call {
            call.batch(wire.request_id, Some(snapshot), items.len(), &told);
        }
        put_message(&mut response, 2, |out| identity(out, &self.authorizer, snapshot));
        put_text(&mut response, 3, wire.request_id);
        put_number(&mut response, 4, u64::from(u32::try_from(self.max_batch_items).unwrap_or(u32::MAX)));
        Ok(response)
    }

    /// Decides one question at a moment, and counts it. A subject that is given is that of the question, prepared.
    pub(super) fn decide(
        &self,
        snapshot: &Snapshot,
        asked: &Asked<'_>,
        subject: Option<&Prepared>,
        at: Timestamp,
        notes: Option<&mut Notes<'_>>,
    ) -> Timed {
        let began = Instant::now();
        let outcome =
            self.authorizer.check_prepared(snapshot, &asked.request, asked.agent.as_ref(), at, subject);
        let ended = Instant::now();
        let took = ended.saturating_duration_since(began);
        if let Some(notes) = notes {
            notes.took(snapshot, at, took);
        }
        let outcome = match outcome {
            Ok(answer) => {
                self.counters.count(asked.request.plane, &answer, took);
                Ok(answer)
            }
            Err(undecided) => {
                log_damage(snapshot, &undecided);
                Err(self.counters.count_undecided(asked.request.plane, undecided))
            }
        };
        Timed { outcome, took, ended }
    }
}

impl AuthorizationApi {
    /// Runs what explains or lists, and counts how it ended.
    async fn query<Q: Send + 'static, A: Send + 'static>(
        &self,
        method: Method,
        request: Request<Q>,
        answer: fn(&Authorizer, &Q, Option<&Call<'_>>) -> Result<A, Unanswered>,
    ) -> Result<Response<A>, Status> {
        let began = Instant::now();
        let Ok(admitted) = Arc::clone(&self.queries.admitted).try_acquire_owned() else {
            if let Some(tracing) = &self.tracing {
                tracing.call(method, request.metadata(), began).refused(Code::ResourceExhausted);
            }
            self.queries.count(method, "busy");
            return Err(busy());
        };
        let running = Arc::clone(&self.queries.running).acquire_owned().await;
        let (authorizer, tracing) = (self.authorizer.clone(), self.tracing.clone());
        let work = tokio::task::spawn_blocking(move || {
            // The work goes on when the caller goes away, so it keeps its place itself.
            let _place = (admitted, running);
            let call = tracing.as_ref().map(|tracing| tracing.call(method, request.metadata(), began));
            let outcome = answer(&authorizer, request.get_ref(), call.as_ref());
            if let (Some(call), Err(unanswered)) = (&call, &outcome) {
                match unanswered {
                    Unanswered::Malformed(_) | Unanswered::TooManyOperations(_) => {
                        call.refused(Code::InvalidArgument);
                    }
                    Unanswered::Outdated(_) => call.refused(Code::Aborted),
                    Unanswered::Undecided(_) => {}
                }
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
    call: Option<&Call<'_>>,
) -> Result<v1::ExplainResponse, Unanswered> {
    let asked = explain::explain_request(wire).map_err(Unanswered::Malformed)?;
    let request_id = wire.check.as_ref().map_or("", |check| check.request_id.as_str());
    let active = authorizer.snapshot();
    let began = Instant::now();
    let outcome = with_policy(active.get(), |snapshot| {
        let explained = authorizer.explain(snapshot, &asked.request, asked.agent.as_ref());
        explained.map(|explained| (snapshot, explained)).map_err(Unanswered::Undecided)
    });
    let took = began.elapsed();
    if let (Some(call), Err(Unanswered::Undecided(undecided))) = (call, &outcome) {
        call.undecided(request_id, &asked, active.get(), undecided);
    }
    let (snapshot, explained) = outcome?;
    let response = explain::explained(authorizer, snapshot, &asked, &explained, request_id);
    if let Some(call) = call {
        let decided = Decided { asked: &asked, answer: &explained.answer, took };
        call.answered(request_id, snapshot, &decided);
    }
    Ok(response)
}

fn list_permissions_now(
    authorizer: &Authorizer,
    wire: &v1::ListPermissionsRequest,
    call: Option<&Call<'_>>,
) -> Result<v1::ListPermissionsResponse, Unanswered> {
    let asked = explain::permissions_request(wire)?;
    let active = authorizer.snapshot();
    let outcome = with_policy(active.get(), |snapshot| explain::permissions(authorizer, snapshot, &asked));
    listed(call, &wire.request_id, (None, asked.scope), active.get(), &outcome);
    outcome
}

fn list_principals_now(
    authorizer: &Authorizer,
    wire: &v1::ListPrincipalsRequest,
    call: Option<&Call<'_>>,
) -> Result<v1::ListPrincipalsResponse, Unanswered> {
    let asked = explain::principals_request(wire)?;
    let active = authorizer.snapshot();
    let outcome = with_policy(active.get(), |snapshot| explain::principals(authorizer, snapshot, &asked));
    let what = (Some((asked.action, asked.plane)), asked.scope);
    listed(call, &wire.request_id, what, active.get(), &outcome);
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
    call: Option<&Call<'_>>,
    request_id: &str,
    what: (Option<(Action<'_>, Plane)>, Scope<'_>),
    snapshot: Option<&Snapshot>,
    outcome: &Result<A, Unanswered>,
) {
    let Some(call) = call else { return };
    match outcome {
        Ok(_) => call.listed(request_id, what, snapshot, Ok(())),
        Err(Unanswered::Undecided(undecided)) => call.listed(request_id, what, snapshot, Err(undecided)),
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
        self.metrics.counter(&metric::QUERIES, &[method, outcome, self.transport.name()]).inc();
    }
}

/// Checks, from bytes to bytes.
impl AuthorizationApi {
    /// The answer, behind [`HEAD`] bytes for what stands before a message.
    pub(super) async fn check_bytes(&self, metadata: &MetadataMap, bytes: &[u8]) -> Result<Vec<u8>, Status> {
        let began = Instant::now();
        let tracing = self.tracing.as_ref();
        let call = tracing.map(|tracing| tracing.call(Method::Check, metadata, began));
        let Some(records) = &self.records else {
            let answer = self.check_now(CheckRequest::read(bytes)?.view(), call.as_ref(), None);
            self.counters.check.observe(began.elapsed());
            return answer;
        };
        let mut notes = records.notes();
        let answer = self.check_now(CheckRequest::read(bytes)?.view(), call.as_ref(), Some(&mut notes));
        let trace = trace_ids(call.and_then(Call::into_context).as_ref(), metadata);
        notes.keep(|| CheckCall::new(bytes), trace, self.transport).await;
        self.counters.check.observe(began.elapsed());
        answer
    }

    /// As [`AuthorizationApi::check_bytes`].
    pub(super) async fn batch_check_bytes(
        &self,
        metadata: &MetadataMap,
        bytes: &[u8],
    ) -> Result<Vec<u8>, Status> {
        let began = Instant::now();
        let tracing = self.tracing.as_ref();
        let call = tracing.map(|tracing| tracing.call(Method::BatchCheck, metadata, began));
        let Some(records) = &self.records else {
            let answer = self.batch_check_now(&BatchCheckRequest::read(bytes)?, call.as_ref(), None);
            self.counters.batch_check.observe(began.elapsed());
            return answer;
        };
        let mut notes = records.notes();
        let (answer, items) = {
            let message = BatchCheckRequest::read(bytes)?;
            let answer = self.batch_check_now(&message, call.as_ref(), Some(&mut notes));
            (answer, message.items().len())
        };
        let trace = trace_ids(call.and_then(Call::into_context).as_ref(), metadata);
        notes.keep(|| BatchCall::new(bytes, items), trace, self.transport).await;
        self.counters.batch_check.observe(began.elapsed());
        answer
    }
}

/// For a caller in the same process, who speaks messages.
fn read_back<M: Message + Default>(answer: &[u8]) -> Result<Response<M>, Status> {
    let message = answer.get(HEAD..).unwrap_or_default();
    M::decode(message).map(Response::new).map_err(|error| Status::internal(error.to_string()))
}

#[tonic::async_trait]
impl AuthorizationService for AuthorizationApi {
    type WatchPolicyStream = Watched;
    type CheckStreamStream = Answers;

    async fn check_stream(
        &self,
        request: Request<Streaming<v1::CheckStreamRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let (metadata, _, questions) = request.into_parts();
        Ok(Response::new(stream::answers(self.clone(), metadata, questions)?))
    }

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
        let (metadata, _, message) = request.into_parts();
        read_back(&self.check_bytes(&metadata, &message.encode_to_vec()).await?)
    }

    async fn batch_check(
        &self,
        request: Request<v1::BatchCheckRequest>,
    ) -> Result<Response<v1::BatchCheckResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        read_back(&self.batch_check_bytes(&metadata, &message.encode_to_vec()).await?)
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
pub(super) struct Counters {
    /// Indexed by [`slot`].
    decisions: Vec<Counter>,
    /// Two for each of [`UNDECIDED`], one a plane.
    undecided: Vec<Counter>,
    /// Indexed by plane and cache, as [`slot`].
    evaluations: Vec<Histogram>,
    check: Histogram,
    batch_check: Histogram,
    batch_item: Histogram,
    /// Of one message.
    pub(super) check_stream: Histogram,
    pub(super) invalid: Counter,
    batch_items: Counter,
    pub(super) streams: Gauge,
    pub(super) stream_questions: Counter,
    /// Streams, and questions on them, for which there was no place.
    pub(super) shed: Counter,
}

const PLANES: [Plane; 2] = [Plane::Control, Plane::Data];

/// Why there can be no decision, as the metrics tell it apart.
const UNDECIDED: [Undecided; 6] = [
    Undecided::NoPolicy,
    Undecided::PolicyOutdated(Freshness::Stale),
    Undecided::PolicyOutdated(Freshness::Expired),
    Undecided::UnknownHierarchy { holder: String::new() },
    Undecided::ConditionsTooCostly,
    Undecided::DamagedPolicy,
];

/// Of a plane and what the cache had to do with it.
const fn way(plane: Plane, cache: usize) -> usize {
    plane as usize * CACHE_NAMES.len() + cache
}

/// The reason implies the decision, so the reasons, two planes and three ways of getting there are all there is.
const fn slot(reason: ReasonCode, plane: Plane, cache: usize) -> usize {
    reason.index() * PLANES.len() * CACHE_NAMES.len() + way(plane, cache)
}

impl Counters {
    fn bind(metrics: &Metrics, transport: Transport) -> Self {
        let transport = transport.name();
        let ways: Vec<(&str, &str)> =
            PLANES.iter().flat_map(|plane| CACHE_NAMES.iter().map(|cache| (plane.name(), *cache))).collect();
        let decisions: Vec<Vec<&str>> = ReasonCode::ALL
            .iter()
            .flat_map(|reason| {
                ways.iter()
                    .map(|(plane, cache)| vec![reason.decision(), reason.name(), plane, cache, transport])
            })
            .collect();
        let undecided: Vec<Vec<&str>> = UNDECIDED
            .iter()
            .flat_map(|undecided| {
                let reason = convert::undecided_reason(undecided);
                PLANES.iter().map(move |plane| vec!["Undecided", reason, plane.name(), "bypass", transport])
            })
            .collect();
        let took =
            |method: Method| metrics.histogram(&metric::CHECK_DURATION, &[method.names().0, transport]);
        Self {
            decisions: metrics.counters(&metric::DECISIONS, decisions.into_iter()),
            undecided: metrics.counters(&metric::DECISIONS, undecided.into_iter()),
            evaluations: ways
                .iter()
                .map(|(plane, cache)| metrics.histogram(&metric::EVALUATION_DURATION, &[plane, cache]))
                .collect(),
            check: took(Method::Check),
            batch_check: took(Method::BatchCheck),
            batch_item: metrics.histogram(&metric::BATCH_ITEM_DURATION, &[transport]),
            check_stream: took(Method::CheckStream),
            invalid: metrics.counter(&metric::INVALID_REQUESTS, &[]),
            batch_items: metrics.counter(&metric::BATCH_ITEMS, &[]),
            streams: metrics.gauge(&metric::STREAMS, &[transport]),
            stream_questions: metrics.counter(&metric::STREAM_QUESTIONS, &[transport]),
            shed: metrics.counter(&metric::REQUESTS_SHED, &["limit", transport]),
        }
    }

    fn count(&self, plane: Plane, answer: &Answer, took: Duration) {
        let (reason, cache) = (answer.evaluation.decision.reason_code(), answer.cache_use());
        if let Some(counter) = self.decisions.get(slot(reason, plane, cache)) {
            counter.inc();
        }
        if let Some(histogram) = self.evaluations.get(way(plane, cache)) {
            histogram.observe(took);
        }
    }

    /// The word for it in the metric of calls that explain or list.
    fn count_unanswered(&self, unanswered: &Unanswered) -> &'static str {
        match unanswered {
            Unanswered::Malformed(_) | Unanswered::TooManyOperations(_) => {
                self.invalid.inc();
                "invalid"
            }
            Unanswered::Undecided(_) => "undecided",
            Unanswered::Outdated(_) => "aborted",
        }
    }

    pub(super) fn count_undecided(&self, plane: Plane, undecided: Undecided) -> Undecided {
        let reason = match undecided {
            Undecided::NoPolicy => 0,
            Undecided::PolicyOutdated(Freshness::Expired) => 2,
            Undecided::PolicyOutdated(_) => 1,
            Undecided::UnknownHierarchy { .. } => 3,
            Undecided::ConditionsTooCostly => 4,
            Undecided::DamagedPolicy => 5,
        };
        if let Some(counter) = self.undecided.get(reason * PLANES.len() + plane as usize) {
            counter.inc();
        }
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
        let text = metrics.encode();
        for (outcome, count) in [("undecided", 2), ("busy", 1)] {
            let line = format!(
                "postern_queries_total{{method=\"Explain\",outcome=\"{outcome}\",transport=\"tcp\"}} {count}"
            );
            assert!(text.contains(&line), "{line} not in {text}");
        }
    }
}
