//! How many requests there may be at a time, and how late one may be looked at.
//!
//! Around the service, not around the server: probes of health are answered however many requests there are. What it
//! costs a Check is an addition when it comes, a subtraction when it goes, both relaxed on one shared number, and a look
//! for one header; the clock is asked only where the caller gave a deadline. The future has a name: nothing is boxed
//! unless the message is not there yet.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::codegen::{Future, Service};
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::metrics::{Counter, Metrics};
use crate::proto::v1;
use crate::telemetry::names::metric;

use super::Transport;
use super::convert::ERROR_DOMAIN;

/// A caller that gave no deadline and sends half a message does not keep its place for longer.
const LONGEST: Duration = Duration::from_secs(30);
/// Where gRPC says how long the caller waits.
const TIMEOUT: &str = "grpc-timeout";

/// The requests of all listeners, and the streams that questions come over. A stream that waits for its next question
/// takes no place from a request; what came over it does while it is decided.
#[derive(Clone, Debug)]
pub struct RequestLimit {
    most: usize,
    open: Arc<AtomicUsize>,
    streams: Arc<AtomicUsize>,
}

/// A service that answers so many requests at a time, and none too late.
#[derive(Clone, Debug)]
pub struct Limited<S> {
    inner: S,
    limit: RequestLimit,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Counters {
    shed: Counter,
    late: Counter,
}

/// A request that has a place, or has none.
#[derive(Debug)]
pub struct LimitedFuture<F> {
    /// `None` where there was no place.
    admitted: Option<(F, Place)>,
    deadline: Option<Instant>,
    /// From when the message was not there.
    patience: Option<Pin<Box<Sleep>>>,
    most: usize,
    counters: Arc<Counters>,
}

/// A place among the requests or the streams, until dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

/// There was no place: so many there may be.
#[derive(Debug)]
pub(super) struct Shed(usize);

// === impls ===

impl RequestLimit {
    /// So many requests, and so many streams.
    pub fn new(most: usize) -> Self {
        Self { most, open: Arc::default(), streams: Arc::default() }
    }

    /// A place for something to decide, if there is one.
    pub(super) fn take(&self) -> Option<Place> {
        self.of(&self.open)
    }

    /// A place for an open stream, if there is one.
    pub(super) fn take_stream(&self) -> Option<Place> {
        self.of(&self.streams)
    }

    /// What is not looked at for want of a place.
    pub(super) fn shed(&self) -> Shed {
        Shed(self.most)
    }

    fn of(&self, taken: &Arc<AtomicUsize>) -> Option<Place> {
        // Two that meet at the last place may both see it taken; a limit need not be better than that.
        let before = taken.fetch_add(1, Ordering::Relaxed);
        let place = Place(Arc::clone(taken));
        (before < self.most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<S> Limited<S> {
    /// The service of one listener.
    pub fn new(inner: S, limit: RequestLimit, transport: Transport, metrics: &Metrics) -> Self {
        let counter = |reason| metrics.counter(&metric::REQUESTS_SHED, &[reason, transport.name()]);
        let counters = Arc::new(Counters { shed: counter("limit"), late: counter("deadline") });
        Self { inner, limit, counters }
    }
}

impl<S: NamedService> NamedService for Limited<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for Limited<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = LimitedFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let deadline = timeout(request.headers()).and_then(|timeout| Instant::now().checked_add(timeout));
        let admitted = self.limit.take().map(|place| (self.inner.call(request), place));
        let (most, counters) = (self.limit.most, Arc::clone(&self.counters));
        LimitedFuture { admitted, deadline, patience: None, most, counters }
    }
}

impl<F> Future for LimitedFuture<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some((inner, _)) = &mut this.admitted else {
            this.counters.shed.inc();
            return Poll::Ready(Ok(Shed(this.most).into_status().into_http()));
        };
        // The message is read and decided in one go, so this is the moment before.
        if this.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            this.counters.late.inc();
            let status = Status::deadline_exceeded("the deadline passed before the request was looked at");
            return Poll::Ready(Ok(status.into_http()));
        }
        if let answer @ Poll::Ready(_) = Pin::new(inner).poll(context) {
            return answer;
        }
        let patience = this.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(LONGEST)));
        if patience.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        this.counters.late.inc();
        let status = Status::deadline_exceeded(format!("there is no answer after {LONGEST:?}"));
        Poll::Ready(Ok(status.into_http()))
    }
}

impl Shed {
    const REASON: &str = "TOO_MANY_REQUESTS";

    fn metadata(&self) -> HashMap<String, String> {
        HashMap::from([("limit".to_owned(), self.0.to_string())])
    }

    /// The whole status.
    pub(super) fn into_status(self) -> Status {
        let details = ErrorDetails::with_error_info(Self::REASON, ERROR_DOMAIN, self.metadata());
        Status::with_error_details(Code::ResourceExhausted, self.to_string(), details)
    }

    /// The same for one question of a stream.
    pub(super) fn to_item(&self) -> v1::CheckError {
        v1::CheckError {
            code: Code::ResourceExhausted as i32,
            message: self.to_string(),
            field_violations: Vec::new(),
            reason: Self::REASON.to_owned(),
            metadata: self.metadata(),
        }
    }

    /// A stream for which there is no place.
    pub(super) fn into_stream_status(self) -> Status {
        let details = ErrorDetails::with_error_info("TOO_MANY_STREAMS", ERROR_DOMAIN, self.metadata());
        let message = format!("there are {} streams already; ask over one of those, or with Check", self.0);
        Status::with_error_details(Code::ResourceExhausted, message, details)
    }
}

impl fmt::Display for Shed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.0;
        write!(f, "no decision was made: there are {most} requests already; ask again a little later")
    }
}

/// As the caller wrote it, `100m` for example; what is none is passed over, as tonic does.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number.saturating_mul(3600))),
        "M" => Some(Duration::from_secs(number.saturating_mul(60))),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, pending, ready};

    use tonic::codegen::BoxFuture;

    use super::*;

    #[derive(Clone)]
    struct Answers(usize);

    impl Service<Request<()>> for Answers {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            self.0 += 1;
            ready(Ok(Response::new(Body::empty())))
        }
    }

    /// Waits for its message for ever.
    #[derive(Clone)]
    struct Waits;

    impl Service<Request<()>> for Waits {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<Response<Body>, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            Box::pin(pending())
        }
    }

    fn asked(timeout: Option<&str>) -> Request<()> {
        let request = Request::builder();
        match timeout {
            Some(timeout) => request.header(TIMEOUT, timeout),
            None => request,
        }
        .body(())
        .unwrap()
    }

    fn code(response: &Response<Body>) -> Code {
        Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
    }

    #[tokio::test]
    async fn places_are_given_back_answered_or_not() {
        let (limit, metrics) = (RequestLimit::new(2), Metrics::new("", ""));
        let mut waits = Limited::new(Waits, limit.clone(), Transport::Unix, &metrics);
        let mut answers = Limited::new(Answers(0), limit.clone(), Transport::Tcp, &metrics);
        let held = (waits.call(asked(None)), waits.call(asked(None)));
        let refused = answers.call(asked(None)).await.unwrap();
        assert_eq!((code(&refused), answers.inner.0), (Code::ResourceExhausted, 0));
        let status = Status::from_header_map(refused.headers()).unwrap();
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.metadata["limit"].as_str()), ("TOO_MANY_REQUESTS", "2"));
        drop(held);
        for _ in 0..5 {
            assert_eq!(code(&answers.call(asked(None)).await.unwrap()), Code::Ok);
        }
        assert_eq!(limit.open.load(Ordering::Relaxed), 0);
        assert_eq!(metrics.counter(&metric::REQUESTS_SHED, &["limit", "tcp"]).get(), 1);
    }

    #[tokio::test]
    async fn who_has_stopped_waiting_is_not_answered() {
        let metrics = Metrics::new("", "");
        let mut answers = Limited::new(Answers(0), RequestLimit::new(9), Transport::Tcp, &metrics);
        assert_eq!(code(&answers.call(asked(Some("1H"))).await.unwrap()), Code::Ok);
        assert_eq!(code(&answers.call(asked(Some("0n"))).await.unwrap()), Code::DeadlineExceeded);
        let queued = answers.call(asked(Some("5m")));
        std::thread::sleep(Duration::from_millis(6));
        assert_eq!(code(&queued.await.unwrap()), Code::DeadlineExceeded);
        assert_eq!(metrics.counter(&metric::REQUESTS_SHED, &["deadline", "tcp"]).get(), 2);
    }

    #[test]
    fn timeouts_as_grpc_writes_them() {
        let read = |text: &str| timeout(asked(Some(text)).headers());
        for (text, wanted) in [
            ("3H", Duration::from_secs(10_800)),
            ("2M", Duration::from_secs(120)),
            ("7S", Duration::from_secs(7)),
            ("100m", Duration::from_millis(100)),
            ("99999999u", Duration::from_micros(99_999_999)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(read(text), Some(wanted), "{text}");
        }
        for wrong in ["", "m", "100", "100000000m", "-1m", "+1m", "1.5S", "1s", "1 m"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(timeout(asked(None).headers()), None);
    }
}
