//! A stream of questions. It is pulled from its far end: a response is made when there is room to send it, out of the
//! messages that have come by then, and nothing is read in between. So a caller that asks faster than it is answered gets
//! its answers together, and one that does not read is not read from; nothing waits here without a bound.
//!
//! ```text
//! messages ─▶ rules ─▶ gather what is there ─▶ decide under one snapshot ─▶ records ─▶ one response
//!               │                                    └── as decided: on tasks, a few at a time, each its own response
//!               └── broken: what came before is answered, then the status
//! ```
//!
//! What is decided goes through the same functions as a Check, counts among the requests while it is decided, and is
//! counted, recorded and traced like one.

use std::collections::{HashMap, VecDeque};
use std::future::{self, Future};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures_util::stream::{self, Stream, StreamExt};
use opentelemetry::trace::SpanContext;
use prost::Message as _;
use tokio::task::{JoinError, JoinSet};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::drain::Drain;
use crate::metrics::Gauge;
use crate::model::Undecided;
use crate::policy::Prepared;
use crate::proto::v1;
use crate::proto::v1::check_stream_answer::Outcome;
use crate::record::{Notes, Recorder, TraceIds};
use crate::snapshot::{ActiveSnapshot, Snapshot};

use super::convert::{self, BatchError, ERROR_DOMAIN, StreamContext, Violations};
use super::grpc::{AuthorizationApi, Timed};
use super::limits::Place;
use super::record::{StreamCall, trace_ids};
use super::trace::{Decided, Item, Method};

/// Questions that are decided at a time. With this many the cost of a response no longer shows, and whoever else waits
/// for the thread waits for a fraction of a millisecond.
const TOGETHER: usize = 64;
/// Bytes of messages that are read ahead to be decided together: large ones come alone.
const TOGETHER_BYTES: usize = 64 << 10;
/// Answers in one response: well below what clients take as one message, also where one message asks for more.
const MOST_ANSWERS: usize = 256;
/// What one stream has decided side by side where its order is free.
const BESIDE: usize = 4;

/// What a stream of questions is answered with.
pub(super) type Answers = Pin<Box<dyn Stream<Item = Result<v1::CheckStreamResponse, Status>> + Send>>;

/// One stream, from the first message to the status.
struct Conversation<Q> {
    intake: Intake<Q>,
    decider: Arc<Decider>,
    /// Decided where the order is free.
    running: JoinSet<VecDeque<v1::CheckStreamResponse>>,
    /// To be sent.
    ready: VecDeque<v1::CheckStreamResponse>,
    told: Told,
}

/// What comes in.
struct Intake<Q> {
    questions: Q,
    rules: Rules,
    drain: Drain,
    drained: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// As much was read as is decided at a time; others get to run before more is.
    full: bool,
    /// Nothing more is read: the caller has ended its side, or the status says why.
    end: Option<Result<(), Status>>,
}

/// The rules of the stream, and what they hold messages to.
struct Rules {
    limit: usize,
    begun: bool,
    order: v1::AnswerOrder,
    context: Option<Arc<Shared>>,
    last_id: u64,
}

/// What questions share, and who their subject is to the policy that decided last.
struct Shared {
    wire: Arc<v1::CheckStreamContext>,
    subject: ArcSwapOption<Prepared>,
}

/// A message with the context that it is asked in.
struct Message {
    wire: v1::CheckStreamRequest,
    context: Arc<Shared>,
    brought: bool,
}

/// Decides messages, on whatever task.
struct Decider {
    api: AuthorizationApi,
    metadata: MetadataMap,
    /// In records.
    id: u128,
    _open: Open,
}

/// A stream that is open, until dropped.
struct Open {
    gauge: Gauge,
    _place: Place,
}

/// What the caller knows from responses before.
#[derive(Default)]
struct Told {
    limit: bool,
    generation: Option<u64>,
}

/// Answers what comes over a stream.
pub(super) fn answers<Q>(
    api: AuthorizationApi,
    metadata: MetadataMap,
    questions: Q,
) -> Result<Answers, Status>
where
    Q: Stream<Item = Result<v1::CheckStreamRequest, Status>> + Send + Unpin + 'static,
{
    let Some(place) = api.limit.take_stream() else {
        api.counters.shed.inc();
        return Err(api.limit.shed().into_stream_status());
    };
    let drain = api.feed.drain.clone();
    let rules = Rules {
        limit: api.max_batch_items,
        begun: false,
        order: v1::AnswerOrder::AsAsked,
        context: None,
        last_id: 0,
    };
    let id = api.records.as_ref().map(Recorder::new_id).unwrap_or_default();
    let open = Open::new(api.counters.streams.clone(), place);
    let drained = Box::pin(drain.started());
    let conversation = Conversation {
        intake: Intake { questions, rules, drain, drained, full: false, end: None },
        decider: Arc::new(Decider { api, metadata, id, _open: open }),
        running: JoinSet::new(),
        ready: VecDeque::new(),
        told: Told::default(),
    };
    Ok(Box::pin(stream::unfold(conversation, Conversation::next)))
}

// === impl Conversation ===

impl<Q> Conversation<Q>
where
    Q: Stream<Item = Result<v1::CheckStreamRequest, Status>> + Send + Unpin,
{
    async fn next(mut self) -> Option<(Result<v1::CheckStreamResponse, Status>, Self)> {
        loop {
            if let Some(mut response) = self.ready.pop_front() {
                self.told.tell(&mut response, self.intake.rules.limit);
                return Some((Ok(response), self));
            }
            let reads = self.intake.end.is_none() && self.running.len() < BESIDE;
            let messages = tokio::select! {
                biased;
                Some(decided) = self.running.join_next() => {
                    match decided {
                        Ok(responses) => self.ready = responses,
                        Err(error) => return Some((Err(lost(&error)), self)),
                    }
                    continue;
                }
                messages = self.intake.gather(), if reads => messages,
                else => {
                    // Nothing is left to be answered.
                    let end = self.intake.end.replace(Ok(()));
                    return end.and_then(Result::err).map(|status| (Err(status), self));
                }
            };
            if messages.is_empty() {
                continue;
            }
            let decider = Arc::clone(&self.decider);
            if self.intake.rules.order == v1::AnswerOrder::AsDecided {
                self.running.spawn(async move { decider.answer(messages).await });
            } else {
                self.ready = decider.answer(messages).await;
            }
        }
    }
}

fn lost(error: &JoinError) -> Status {
    tracing::error!(%error, method = Method::CheckStream.names().0, "a call ended without an answer");
    Status::internal("the call ended without an answer")
}

// === impl Intake ===

impl<Q> Intake<Q>
where
    Q: Stream<Item = Result<v1::CheckStreamRequest, Status>> + Unpin,
{
    /// Waits for a question, and takes those that are there with it. None where there are none to come. What it has
    /// taken is never lost when it is dropped while it waits: then it has taken none.
    async fn gather(&mut self) -> Vec<Message> {
        // Where the order is free others decide, and the bound on those is where it waits.
        if mem::take(&mut self.full) && self.rules.order != v1::AnswerOrder::AsDecided {
            tokio::task::yield_now().await;
        }
        // What has come by then is answered still.
        let draining = self.drain.has_started();
        let mut messages: Vec<Message> = Vec::new();
        let (mut read, mut asked, mut bytes) = (0_usize, 0_usize, 0_usize);
        while self.end.is_none() && read < TOGETHER && asked < TOGETHER && bytes < TOGETHER_BYTES {
            let next = if messages.is_empty() && !draining {
                tokio::select! {
                    biased;
                    next = self.questions.next() => next,
                    () = &mut self.drained => return messages,
                }
            } else {
                let questions = &mut self.questions;
                match future::poll_fn(|context| Poll::Ready(questions.poll_next_unpin(context))).await {
                    Poll::Ready(next) => next,
                    Poll::Pending => break,
                }
            };
            read = read.saturating_add(1);
            match next.map(|message| message.and_then(|wire| self.rules.admit(wire))) {
                Some(Ok(Some(message))) => {
                    asked = asked.saturating_add(message.wire.questions.len());
                    bytes = bytes.saturating_add(message.bytes());
                    messages.push(message);
                }
                Some(Ok(None)) => {}
                Some(Err(status)) => self.end = Some(Err(status)),
                None => self.end = Some(Ok(())),
            }
        }
        self.full = read >= TOGETHER || asked >= TOGETHER || bytes >= TOGETHER_BYTES;
        if draining && self.end.is_none() {
            self.end = Some(Err(draining_status()));
        }
        messages
    }
}

fn draining_status() -> Status {
    let details = ErrorDetails::with_error_info("DRAINING", ERROR_DOMAIN, HashMap::new());
    let message = "the sidecar ends; of questions without an answer nothing was decided: ask again elsewhere";
    Status::with_error_details(Code::Unavailable, message, details)
}

// === impl Rules ===

impl Rules {
    /// Takes a message, or says how it breaks the rules. None is left of one without questions but its context.
    fn admit(&mut self, mut wire: v1::CheckStreamRequest) -> Result<Option<Message>, Status> {
        let mut violations = Violations::default();
        let first = !mem::replace(&mut self.begun, true);
        if let Some(options) = wire.options.take() {
            self.options(options, first, &mut violations);
        }
        let context = wire.context.take();
        let brought = context.is_some();
        match context {
            Some(context) => {
                convert::stream_context(&context, &mut violations);
                self.context = Some(Arc::new(Shared::new(context)));
            }
            None if first => violations.push("context", "is missing; wanted in the first message"),
            None if wire.questions.is_empty() => {
                violations.push("questions", "is empty, and there is no context either");
            }
            None => {}
        }
        convert::request_id(&wire.request_id, convert::Prefix::Whole, &mut violations);
        if wire.questions.len() > self.limit {
            let (items, limit) = (wire.questions.len(), self.limit);
            return Err(BatchError::TooLarge { field: "questions", items, limit }.into_status());
        }
        for (index, question) in wire.questions.iter().enumerate() {
            if question.id <= self.last_id {
                let description =
                    format!("is {}; wanted one above {}, the id before it", question.id, self.last_id);
                violations.push(format!("questions[{index}].id"), description);
            }
            self.last_id = self.last_id.max(question.id);
        }
        match &self.context {
            Some(context) if violations.is_empty() => {
                let context = Arc::clone(context);
                Ok((!wire.questions.is_empty()).then_some(Message { wire, context, brought }))
            }
            _ => Err(violations.into_status()),
        }
    }

    fn options(&mut self, options: v1::CheckStreamOptions, first: bool, violations: &mut Violations) {
        if !first {
            violations.push("options", "is set; wanted in the first message only");
        }
        match v1::AnswerOrder::try_from(options.order) {
            Ok(v1::AnswerOrder::Unspecified | v1::AnswerOrder::AsAsked) => {}
            Ok(order @ v1::AnswerOrder::AsDecided) => self.order = order,
            Err(_) => {
                violations.push("options.order", convert::unknown_value(options.order, "AnswerOrder"));
            }
        }
    }
}

// === impl Decider ===

impl Decider {
    /// Answers messages under one snapshot, and records what was decided.
    async fn answer(&self, messages: Vec<Message>) -> VecDeque<v1::CheckStreamResponse> {
        let mut noted = Vec::new();
        let responses = self.answer_now(&messages, &mut noted);
        for (message, (notes, trace)) in messages.into_iter().zip(noted) {
            notes.keep(|| message.into_call(self.id), trace, self.api.transport).await;
        }
        responses
    }

    fn answer_now<'d>(
        &'d self,
        messages: &[Message],
        noted: &mut Vec<(Notes<'d>, TraceIds)>,
    ) -> VecDeque<v1::CheckStreamResponse> {
        let Self { api, metadata, .. } = self;
        let asked = || messages.iter().flat_map(|message| &message.wire.questions);
        let count = asked().count();
        let questions = u64::try_from(count).unwrap_or(u64::MAX);
        api.counters.stream_questions.inc_by(questions);
        let Some(_place) = api.limit.take() else {
            api.counters.shed.inc_by(questions);
            let error = api.limit.shed().to_item();
            let refused = asked().map(|question| answer(question.id, Outcome::Error(error.clone())));
            return responses(refused.collect(), None);
        };
        let active = api.authorizer.snapshot();
        let mut answers = Vec::with_capacity(count);
        for message in messages {
            let began = Instant::now();
            let mut notes = api.records.as_ref().map(Recorder::notes);
            let span = self.message(&active, message, began, notes.as_mut(), &mut answers);
            if let Some(notes) = notes {
                noted.push((notes, trace_ids(span.as_ref(), metadata)));
            }
            api.counters.check_stream.observe(began.elapsed());
        }
        let policy = active.get().map(|snapshot| convert::identity(&api.authorizer, snapshot));
        responses(answers, policy)
    }

    /// Answers one message. Gives the place of its span, if it became one: that of a single question says what the span of
    /// a Check says, that of several what a batch's does.
    fn message(
        &self,
        active: &ActiveSnapshot,
        message: &Message,
        began: Instant,
        mut notes: Option<&mut Notes<'_>>,
        answers: &mut Vec<v1::CheckStreamAnswer>,
    ) -> Option<SpanContext> {
        let Self { api, metadata, .. } = self;
        let Message { wire, context: shared, .. } = message;
        let tracing = api.tracing.as_ref();
        let call = tracing.map(|tracing| tracing.call(Method::CheckStream, metadata, began));
        let call = call.filter(super::trace::Call::may_be_told);
        let (single, several) = match wire.questions.as_slice() {
            [only] => (call.map(|call| call.about(only.id)), None),
            _ => (None, call),
        };
        if let Some(notes) = notes.as_deref_mut() {
            notes.under(active);
        }
        let mut told = Vec::with_capacity(if several.is_some() { wire.questions.len() } else { 0 });
        let context = StreamContext::read(&shared.wire);
        let subject = match (active.get(), &context) {
            (Some(snapshot), Ok(context)) if message.is_not_alone() => shared.subject(snapshot, context),
            _ => None,
        };
        let at = api.authorizer.now();
        for (index, question) in wire.questions.iter().enumerate() {
            let asked = context.as_ref().map_err(Violations::clone);
            let asked = match asked.and_then(|context| context.question(question)) {
                Ok(asked) => asked,
                Err(violations) => {
                    api.counters.invalid.inc();
                    if let Some(call) = &single {
                        call.refused(Code::InvalidArgument);
                    }
                    if several.is_some() {
                        told.push(Item::malformed(question.id));
                    }
                    answers.push(answer(question.id, Outcome::Error(violations.into_item())));
                    continue;
                }
            };
            let decided = match active.get() {
                Some(snapshot) => {
                    let Timed { outcome, took, .. } =
                        api.decide(snapshot, &asked, subject.as_deref(), at, notes.as_deref_mut());
                    outcome.map(|answer| (snapshot, answer, took))
                }
                None => Err(api.counters.count_undecided(asked.request.plane, Undecided::NoPolicy)),
            };
            let (outcome, kept, took) = match decided {
                Ok((snapshot, answer, took)) => {
                    let result = convert::result(snapshot, &asked, &answer);
                    if let Some(call) = &single {
                        let decided = Decided { asked: &asked, answer: &answer, took };
                        call.answered(&wire.request_id, snapshot, &decided);
                    }
                    (Outcome::Result(result), Ok(answer), took)
                }
                Err(undecided) => {
                    if let Some(call) = &single {
                        call.undecided(&wire.request_id, &asked, active.get(), &undecided);
                    }
                    (Outcome::Error(convert::undecided_item(&undecided)), Err(undecided), Duration::ZERO)
                }
            };
            answers.push(answer(question.id, outcome));
            if several.is_some() {
                told.push(Item::decided(question.id, asked, kept.clone(), took));
            }
            match notes.as_deref_mut() {
                Some(notes) if active.get().is_none() => notes.no_policy(Some(index), &api.authorizer),
                Some(notes) => notes.decided(Some(index), kept),
                None => {}
            }
        }
        if let Some(call) = &several {
            call.batch(&wire.request_id, active.get(), wire.questions.len(), &told);
        }
        single.or(several).and_then(super::trace::Call::into_context)
    }
}

const fn answer(id: u64, outcome: Outcome) -> v1::CheckStreamAnswer {
    v1::CheckStreamAnswer { id, outcome: Some(outcome) }
}

fn responses(
    mut answers: Vec<v1::CheckStreamAnswer>,
    policy: Option<v1::PolicyIdentity>,
) -> VecDeque<v1::CheckStreamResponse> {
    let mut responses = VecDeque::with_capacity(1);
    while answers.len() > MOST_ANSWERS {
        let rest = answers.split_off(MOST_ANSWERS);
        let answers = mem::replace(&mut answers, rest);
        responses.push_back(v1::CheckStreamResponse { answers, policy: policy.clone(), question_limit: 0 });
    }
    responses.push_back(v1::CheckStreamResponse { answers, policy, question_limit: 0 });
    responses
}

// === the rest ===

impl Message {
    /// About how much it holds. Most questions are two texts, and measuring more than these is left to the others.
    fn bytes(&self) -> usize {
        let context = if self.brought { self.context.wire.encoded_len() } else { 0 };
        let of = |question: &v1::CheckStreamQuestion| {
            let (action, resource) = (question.action.as_ref(), question.resource.as_ref());
            let attributes = resource.is_some_and(|resource| !resource.attributes.is_empty());
            if attributes || !question.request_attributes.is_empty() || question.agent.is_some() {
                return question.encoded_len();
            }
            let name =
                action.map_or(0, |action| action.name.len().saturating_add(action.sub_operation.len()));
            name.saturating_add(resource.map_or(0, |resource| resource.scope.len()))
        };
        self.wire.questions.iter().map(of).fold(context, usize::saturating_add)
    }

    /// Whether others share its context, as far as is known.
    fn is_not_alone(&self) -> bool {
        !self.brought || self.wire.questions.len() > 1
    }

    fn into_call(self, stream: u128) -> StreamCall {
        let Self { wire: message, context, brought } = self;
        StreamCall { message, brought, context: Arc::clone(&context.wire), stream }
    }
}

impl Shared {
    fn new(wire: v1::CheckStreamContext) -> Self {
        Self { wire: Arc::new(wire), subject: ArcSwapOption::const_empty() }
    }

    /// The subject of the context, which is that of all its questions, prepared by this policy.
    fn subject(&self, snapshot: &Snapshot, context: &StreamContext<'_>) -> Option<Arc<Prepared>> {
        if let Some(known) = self.subject.load_full()
            && known.is_of(&snapshot.policy)
        {
            return Some(known);
        }
        // Where that fails the evaluation fails, and says so.
        let prepared = Arc::new(snapshot.policy.prepare(&context.subject()).ok()?);
        self.subject.store(Some(Arc::clone(&prepared)));
        Some(prepared)
    }
}

impl Told {
    /// Leaves out of a response what the caller knows.
    fn tell(&mut self, response: &mut v1::CheckStreamResponse, limit: usize) {
        if !mem::replace(&mut self.limit, true) {
            response.question_limit = u32::try_from(limit).unwrap_or(u32::MAX);
        }
        let before =
            mem::replace(&mut self.generation, response.policy.as_ref().map(|policy| policy.generation));
        if let Some(policy) = &mut response.policy
            && before == Some(policy.generation)
        {
            policy.digest.clear();
        }
    }
}

impl Open {
    fn new(gauge: Gauge, place: Place) -> Self {
        gauge.inc();
        Self { gauge, _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use jiff::Timestamp;
    use tokio::sync::mpsc;

    use super::*;
    use crate::authorizer::{Authorizer, ByPlane, CacheSettings, FreshnessRules, WhenOld};
    use crate::cache::CachePolicy;
    use crate::clock::Clock;
    use crate::metrics::Metrics;
    use crate::model::Documents;
    use crate::policy::Policy;
    use crate::readiness::Readiness;
    use crate::server::Transport;
    use crate::server::grpc::GrpcSettings;
    use crate::server::limits::RequestLimit;
    use crate::server::status::PolicyFeed;
    use crate::snapshot::{Lease, PolicyWriter, Publication, cell};
    use crate::telemetry::names::metric;

    struct World {
        api: AuthorizationApi,
        writer: PolicyWriter,
        metrics: Metrics,
        drain: Drain,
    }

    fn empty() -> Policy {
        Policy::compile(&Documents::default(), Default::default()).unwrap()
    }

    /// A decision point with the empty policy: nothing is allowed.
    fn world(most: usize) -> World {
        let (writer, reader) = cell();
        let cache = CacheSettings { policy: CachePolicy::Off, max_bytes: 0 };
        let settings = GrpcSettings { max_batch_items: 1000, max_request_bytes: 1 << 20, reflection: false };
        let (metrics, drain) = (Metrics::new("", ""), Drain::new());
        let (_activated, activations) = tokio::sync::watch::channel(0);
        let feed = PolicyFeed { readiness: Readiness::new(), activations, drain: drain.clone() };
        let deny = FreshnessRules { stale: ByPlane::default(), expired: ByPlane::both(WhenOld::Deny) };
        let authorizer = Authorizer::new(reader, cache, Clock::system()).with_freshness(deny);
        let api = AuthorizationApi::new(authorizer, settings, Transport::Tcp, &metrics, feed, None)
            .limited_by(RequestLimit::new(most, usize::MAX));
        World { api, writer, metrics, drain }
    }

    fn active(most: usize) -> World {
        let mut world = world(most);
        world.writer.activate(empty(), 0, Timestamp::UNIX_EPOCH);
        world
    }

    fn context() -> v1::CheckStreamContext {
        v1::CheckStreamContext {
            subject: Some(v1::Subject { principal_id: "alice".into(), ..Default::default() }),
            action: Some(v1::Action { name: "A.B/c/read".into(), ..Default::default() }),
            ..Default::default()
        }
    }

    fn question(id: u64) -> v1::CheckStreamQuestion {
        let resource = Some(v1::Resource { scope: "/".into(), ..Default::default() });
        v1::CheckStreamQuestion { id, resource, ..Default::default() }
    }

    fn message(ids: impl IntoIterator<Item = u64>) -> v1::CheckStreamRequest {
        v1::CheckStreamRequest { questions: ids.into_iter().map(question).collect(), ..Default::default() }
    }

    fn first(order: v1::AnswerOrder, ids: impl IntoIterator<Item = u64>) -> v1::CheckStreamRequest {
        let options = Some(v1::CheckStreamOptions { order: order.into() });
        v1::CheckStreamRequest { options, context: Some(context()), ..message(ids) }
    }

    fn begin(
        world: &World,
        questions: impl Stream<Item = v1::CheckStreamRequest> + Send + Unpin + 'static,
    ) -> Answers {
        answers(world.api.clone(), MetadataMap::new(), questions.map(Ok)).unwrap()
    }

    fn ids(response: &v1::CheckStreamResponse) -> Vec<u64> {
        response.answers.iter().map(|answer| answer.id).collect()
    }

    fn error(answer: &v1::CheckStreamAnswer) -> &v1::CheckError {
        match &answer.outcome {
            Some(Outcome::Error(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    /// All responses, and the status at the end.
    async fn all(mut answers: Answers) -> (Vec<v1::CheckStreamResponse>, Option<Status>) {
        let mut responses = Vec::new();
        while let Some(next) = answers.next().await {
            match next {
                Ok(response) => responses.push(response),
                Err(status) => return (responses, Some(status)),
            }
        }
        (responses, None)
    }

    #[tokio::test]
    async fn no_more_is_read_than_is_answered() {
        for (order, beside) in [(v1::AnswerOrder::AsAsked, 0), (v1::AnswerOrder::AsDecided, BESIDE)] {
            let world = active(1000);
            let taken = Arc::new(AtomicU64::new(0));
            let count = Arc::clone(&taken);
            // It asks for ever.
            let asks = stream::iter(1..).map(move |id| {
                count.store(id, Ordering::Relaxed);
                if id == 1 { first(order, [id]) } else { message([id]) }
            });
            let mut answers = begin(&world, asks);
            assert_eq!(taken.load(Ordering::Relaxed), 0);
            for responses in 1..=5 {
                let response = answers.next().await.unwrap().unwrap();
                assert_eq!(response.answers.len(), TOGETHER);
                let most = u64::try_from((responses + beside) * TOGETHER).unwrap();
                let read = taken.load(Ordering::Relaxed);
                assert!(read <= most, "{read} for {responses} responses, {order:?}");
            }
        }
    }

    #[tokio::test]
    async fn large_messages_are_not_gathered() {
        let world = active(1000);
        let large = |id: u64| {
            let mut large = message([id]);
            let text = Some(v1::attribute_value::Value::Text("x".repeat(40 << 10)));
            large.questions[0].request_attributes =
                HashMap::from([("a".to_owned(), v1::AttributeValue { value: text })]);
            large
        };
        let begins = first(v1::AnswerOrder::AsAsked, [1]);
        let asks = [begins, large(2), large(3), large(4), message([5])];
        let (responses, _) = all(begin(&world, stream::iter(asks))).await;
        assert_eq!(responses.iter().map(ids).collect::<Vec<_>>(), [vec![1, 2, 3], vec![4, 5]]);
    }

    #[tokio::test]
    async fn what_is_there_is_answered_together_and_what_comes_later_later() {
        let world = active(1000);
        let (send, receive) = mpsc::channel(10);
        let mut answers = begin(&world, tokio_stream::wrappers::ReceiverStream::new(receive));
        send.send(first(v1::AnswerOrder::Unspecified, [1])).await.unwrap();
        send.send(message([2, 5])).await.unwrap();
        let response = answers.next().await.unwrap().unwrap();
        assert_eq!(ids(&response), [1, 2, 5]);
        assert_eq!(response.question_limit, 1000);
        let policy = response.policy.unwrap();
        assert!(policy.digest.starts_with("sha256:") && policy.generation == 1);
        send.send(message([6])).await.unwrap();
        let response = answers.next().await.unwrap().unwrap();
        assert_eq!((ids(&response), response.question_limit), (vec![6], 0));
        let policy = response.policy.unwrap();
        assert_eq!((policy.digest.as_str(), policy.generation), ("", 1), "it is the same");
        assert_eq!(world.metrics.counter(&metric::STREAM_QUESTIONS, &["tcp"]).get(), 4);
        let open = world.metrics.gauge(&metric::STREAMS, &["tcp"]);
        assert_eq!(open.get(), 1);
        drop(send);
        assert!(answers.next().await.is_none());
        assert_eq!(open.get(), 0);
    }

    #[tokio::test]
    async fn a_large_message_is_decided_by_one_policy_and_answered_in_parts() {
        let world = active(1000);
        let asks = stream::iter([first(v1::AnswerOrder::AsAsked, 1..=1000)]);
        let (responses, end) = all(begin(&world, asks)).await;
        assert!(end.is_none());
        assert_eq!(
            responses.iter().map(|response| response.answers.len()).collect::<Vec<_>>(),
            [256, 256, 256, 232]
        );
        assert_eq!(responses.iter().flat_map(ids).collect::<Vec<_>>(), (1..=1000).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_breaks_the_rules_ends_the_stream_behind_the_answers_before() {
        use v1::AnswerOrder::AsAsked;

        let with = |change: fn(&mut v1::CheckStreamRequest)| {
            let mut broken = message([7]);
            change(&mut broken);
            broken
        };
        let changed = |change: fn(&mut v1::CheckStreamContext)| {
            let mut changed = context();
            change(&mut changed);
            v1::CheckStreamRequest { context: Some(changed), ..message([7]) }
        };
        let cases: Vec<(v1::CheckStreamRequest, Vec<&str>)> = vec![
            (first(AsAsked, [7]), vec!["options"]),
            (message([]), vec!["questions"]),
            (message([3]), vec!["questions[0].id"]),
            (message([7, 7, 0, 8]), vec!["questions[1].id", "questions[2].id"]),
            (with(|message| message.request_id = "x".repeat(129)), vec!["request_id"]),
            (message(7..=1007), vec!["questions"]),
            (changed(|context| context.subject = None), vec!["context.subject"]),
            (
                changed(|context| {
                    context.subject = Some(v1::Subject::default());
                    context.action = Some(v1::Action { name: "*".into(), ..Default::default() });
                    context.resource = Some(v1::Resource { scope: "x".into(), ..Default::default() });
                    context.environment_attributes =
                        HashMap::from([(String::new(), v1::AttributeValue::default())]);
                    context.agent = Some(v1::AgentContext { mode: 9, ..Default::default() });
                }),
                vec![
                    "context.subject.principal_id",
                    "context.environment_attributes[\"\"]",
                    "context.agent.mode",
                    "context.action.name",
                    "context.resource.scope",
                ],
            ),
            (
                changed(|context| {
                    let by = context.subject.clone();
                    let verdict = v1::ApprovalVerdict::Approve.into();
                    context.agent = Some(v1::AgentContext {
                        on_behalf_of: by.clone(),
                        approval: Some(v1::AgentApproval { by, verdict }),
                        consent: Some(v1::AgentConsent {
                            principal_id: "alice".into(),
                            verdict: v1::ConsentVerdict::Grant.into(),
                        }),
                        ..Default::default()
                    });
                }),
                vec!["context.agent.approval", "context.agent.consent"],
            ),
        ];
        for order in [AsAsked, v1::AnswerOrder::AsDecided] {
            for (broken, fields) in &cases {
                let world = active(1000);
                let asks = [first(order, [1, 2, 3]), broken.clone(), message([9000])];
                let (responses, end) = all(begin(&world, stream::iter(asks))).await;
                assert_eq!(responses.iter().flat_map(ids).collect::<Vec<_>>(), [1, 2, 3], "{fields:?}");
                let status = end.unwrap();
                assert_eq!(status.code(), Code::InvalidArgument);
                let details = status.get_error_details();
                let named = details.bad_request().unwrap().field_violations.iter();
                assert_eq!(named.map(|violation| violation.field.as_str()).collect::<Vec<_>>(), *fields);
            }
        }
        for (first, field) in [
            (message([1]), "context"),
            (first(AsAsked, [0]), "questions[0].id"),
            (
                v1::CheckStreamRequest {
                    options: Some(v1::CheckStreamOptions { order: 7 }),
                    context: Some(context()),
                    ..message([1])
                },
                "options.order",
            ),
        ] {
            let (responses, end) = all(begin(&active(9), stream::iter([first]))).await;
            assert!(responses.is_empty());
            let named = end.unwrap().get_error_details().bad_request().unwrap().field_violations[0].clone();
            assert_eq!(named.field, field);
        }
        let (_, end) = all(begin(&active(9), stream::iter([first(AsAsked, 1..=1001)]))).await;
        let info = end.unwrap().get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.metadata["limit"].as_str()), ("BATCH_TOO_LARGE", "1000"));
    }

    #[tokio::test]
    async fn a_drain_answers_what_has_come_and_says_so() {
        for order in [v1::AnswerOrder::AsAsked, v1::AnswerOrder::AsDecided] {
            let world = active(9);
            let (send, receive) = mpsc::channel(10);
            let mut answers = begin(&world, tokio_stream::wrappers::ReceiverStream::new(receive));
            send.send(first(order, [1])).await.unwrap();
            assert_eq!(ids(&answers.next().await.unwrap().unwrap()), [1]);
            send.send(message([2])).await.unwrap();
            world.drain.start();
            assert_eq!(ids(&answers.next().await.unwrap().unwrap()), [2]);
            let status = answers.next().await.unwrap().unwrap_err();
            assert_eq!(status.code(), Code::Unavailable);
            assert_eq!(status.get_details_error_info().unwrap().reason, "DRAINING");
            assert!(answers.next().await.is_none());

            // One that asks without end is told, too, and one that waits.
            let world = active(9);
            let asks =
                stream::iter(1..).map(move |id| if id == 1 { first(order, [1]) } else { message([id]) });
            let mut busy = begin(&world, asks);
            let idle = begin(&world, stream::iter([first(order, [1])]).chain(stream::pending()));
            assert!(busy.next().await.unwrap().is_ok());
            let start = async { world.drain.start() };
            let ((_, busy), (idle, told), ()) = tokio::join!(all(busy), all(idle), start);
            assert_eq!(busy.unwrap().code(), Code::Unavailable);
            assert_eq!((idle.iter().flat_map(ids).count(), told.unwrap().code()), (1, Code::Unavailable));
        }
    }

    #[tokio::test]
    async fn for_want_of_a_place_a_question_is_refused_and_the_stream_goes_on() {
        let world = active(1);
        let (send, receive) = mpsc::channel(10);
        let mut answers = begin(&world, tokio_stream::wrappers::ReceiverStream::new(receive));
        let place = world.api.limit.take().unwrap();
        send.send(first(v1::AnswerOrder::AsAsked, [1, 2])).await.unwrap();
        let response = answers.next().await.unwrap().unwrap();
        assert_eq!(ids(&response), [1, 2]);
        for refused in &response.answers {
            let error = error(refused);
            assert_eq!(
                (error.code, error.reason.as_str()),
                (Code::ResourceExhausted as i32, "TOO_MANY_REQUESTS")
            );
            assert_eq!(error.metadata["limit"], "1");
        }
        assert!(response.policy.is_none());
        let shed = || world.metrics.counter(&metric::REQUESTS_SHED, &["limit", "tcp"]).get();
        assert_eq!(shed(), 2);
        drop(place);
        send.send(message([3])).await.unwrap();
        let response = answers.next().await.unwrap().unwrap();
        assert!(matches!(response.answers[0].outcome, Some(Outcome::Result(_))));
        assert!(response.policy.unwrap().digest.starts_with("sha256:"), "the first that names it");

        // It takes no place while it waits, but there is one stream only.
        assert!(world.api.limit.take().is_some());
        let refused = super::answers(world.api.clone(), MetadataMap::new(), stream::empty()).err().unwrap();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.get_details_error_info().unwrap().reason, "TOO_MANY_STREAMS");
        assert_eq!(shed(), 3);
        drop(answers);
        assert!(super::answers(world.api.clone(), MetadataMap::new(), stream::empty()).is_ok());
    }

    #[tokio::test]
    async fn without_a_policy_or_by_an_old_one_nothing_is_decided() {
        let mut world = world(9);
        let (send, receive) = mpsc::channel(10);
        let mut answers = begin(&world, tokio_stream::wrappers::ReceiverStream::new(receive));
        send.send(first(v1::AnswerOrder::AsAsked, [1])).await.unwrap();
        let response = answers.next().await.unwrap().unwrap();
        let unavailable = Code::Unavailable as i32;
        let said = |response: &v1::CheckStreamResponse| {
            let error = error(&response.answers[0]).clone();
            (error.code, error.reason)
        };
        assert_eq!((said(&response), response.policy.is_none()), ((unavailable, "NO_POLICY".into()), true));

        let lease = Lease::new(Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH, Duration::from_secs(1));
        let publication = Publication {
            serial: 4,
            source: String::new(),
            policy_name: String::new(),
            published_at: None,
            published_by: String::new(),
            message: String::new(),
            lease,
        };
        world.writer.activate_published(empty(), Arc::new(publication), Timestamp::UNIX_EPOCH);
        send.send(message([2])).await.unwrap();
        let response = answers.next().await.unwrap().unwrap();
        assert_eq!(said(&response), (unavailable, "POLICY_EXPIRED".into()));
        let policy = response.policy.unwrap();
        assert_eq!(
            (policy.serial, policy.generation, policy.freshness()),
            (4, 1, v1::PolicyFreshness::Expired)
        );

        // Another in mid-stream: named once more.
        world.writer.activate(empty(), 0, Timestamp::UNIX_EPOCH);
        send.send(message([3])).await.unwrap();
        let response = answers.next().await.unwrap().unwrap();
        assert!(matches!(response.answers[0].outcome, Some(Outcome::Result(_))));
        let policy = response.policy.unwrap();
        assert_eq!((policy.generation, policy.digest.is_empty()), (2, false));
    }
}
