//! How many requests there may be at a time, how much memory their messages may take together, and how late one may be
//! looked at.
//!
//! Around the service, not around the server: probes of health are answered however many requests there are. What it
//! costs a Check is an addition when it comes, a subtraction when it goes, both relaxed on one shared number, and a look
//! for one header; the clock is asked only where the caller gave a deadline, and bytes are added up together only of
//! messages that are large. The future has a name: nothing is boxed unless the message is not there yet.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body::{Frame, SizeHint};
use hyper::service::Service;
use tokio::time::Sleep;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::codegen::{Body as HttpBody, Bytes, Future, StdError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::metrics::{Counter, Metrics};
use crate::proto::v1;
use crate::telemetry::names::metric;

use super::Transport;
use super::convert::ERROR_DOMAIN;
use super::direct::Reply;

/// A caller that gave no deadline and sends half a message does not keep its place for longer.
const LONGEST: Duration = Duration::from_secs(30);
/// Where gRPC says how long the caller waits.
const TIMEOUT: &str = "grpc-timeout";

/// A message is counted with the others from here on: all small ones together are as much as there may be requests.
const SMALL: usize = 16 << 10;
/// What gRPC puts before a message: whether it is compressed, and its length.
const HEAD: usize = 5;

/// The requests of all listeners, and the streams that questions come over. A stream that waits for its next question
/// takes no place from a request; what came over it does while it is decided.
#[derive(Clone, Debug)]
pub struct RequestLimit(Arc<Bounds>);

#[derive(Debug)]
struct Bounds {
    most: usize,
    most_bytes: usize,
    open: AtomicUsize,
    streams: AtomicUsize,
    bytes: AtomicUsize,
}

/// A service that answers so many requests at a time, and none too late.
#[derive(Clone, Debug)]
pub struct Limited<S> {
    inner: S,
    door: Arc<Door>,
}

/// What every request of a listener holds on to: one thing, since each costs it something that all threads share.
#[derive(Debug)]
struct Door {
    limit: RequestLimit,
    shed: Counter,
    heavy: Counter,
    late: Counter,
}

/// Messages on their way in. Room for all of one is made as soon as it says how long it is, and held until it can be read
/// as a whole: so it counts with its whole length, and until then.
#[derive(Debug)]
pub struct Weighed<B> {
    body: B,
    /// What of the current message has not come.
    missing: usize,
    /// The first bytes of the next one as a number: a flag, and the length in the last four.
    head: u64,
    /// How many they are.
    headed: usize,
    /// What of the current one is counted with the others.
    counted: usize,
    door: Arc<Door>,
}

/// A request that has a place, or has none.
#[derive(Debug)]
pub struct LimitedFuture<F> {
    /// `None` where there was no place.
    admitted: Option<F>,
    deadline: Option<Instant>,
    /// From when the message was not there.
    patience: Option<Pin<Box<Sleep>>>,
    door: Arc<Door>,
}

/// A place among the requests or the streams, until dropped.
#[derive(Debug)]
pub(super) struct Place {
    limit: RequestLimit,
    of: Of,
}

/// What a place is for.
#[derive(Clone, Copy, Debug)]
enum Of {
    Request,
    Stream,
}

/// There was no place: so many there may be.
#[derive(Debug)]
pub(super) struct Shed(usize);

// === impls ===

impl RequestLimit {
    /// So many requests, and so many streams; the messages of requests are no larger than this together.
    pub fn new(most: usize, most_bytes: usize) -> Self {
        let (open, streams, bytes) = Default::default();
        Self(Arc::new(Bounds { most, most_bytes, open, streams, bytes }))
    }

    /// A place for something to decide, if there is one.
    pub(super) fn take(&self) -> Option<Place> {
        self.place(Of::Request)
    }

    /// A place for an open stream, if there is one.
    pub(super) fn take_stream(&self) -> Option<Place> {
        self.place(Of::Stream)
    }

    /// What is not looked at for want of a place.
    pub(super) fn shed(&self) -> Shed {
        Shed(self.0.most)
    }

    fn place(&self, of: Of) -> Option<Place> {
        self.0.enter(of).then(|| Place { limit: self.clone(), of })
    }
}

impl Bounds {
    const fn taken(&self, of: Of) -> &AtomicUsize {
        match of {
            Of::Request => &self.open,
            Of::Stream => &self.streams,
        }
    }

    /// Whether there was a place, which then is taken.
    fn enter(&self, of: Of) -> bool {
        // Two that meet at the last place may both see it taken; a limit need not be better than that.
        let entered = self.taken(of).fetch_add(1, Ordering::Relaxed) < self.most;
        if !entered {
            self.leave(of);
        }
        entered
    }

    fn leave(&self, of: Of) {
        self.taken(of).fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.limit.0.leave(self.of);
    }
}

impl<F> Drop for LimitedFuture<F> {
    fn drop(&mut self) {
        if self.admitted.is_some() {
            self.door.limit.0.leave(Of::Request);
        }
    }
}

impl<B> Weighed<B> {
    const fn new(body: B, door: Arc<Door>) -> Self {
        Self { body, missing: 0, head: 0, headed: 0, counted: 0, door }
    }

    fn bounds(&self) -> &Bounds {
        &self.door.limit.0
    }

    /// More has come; whether there is room for what it announces.
    fn add(&mut self, mut data: &[u8]) -> bool {
        loop {
            let (came, rest) = data.split_at(self.missing.min(data.len()));
            self.missing = self.missing.saturating_sub(came.len());
            data = rest;
            let Some((byte, rest)) = data.split_first() else { return true };
            data = rest;
            self.head = self.head << 8 | u64::from(*byte);
            self.headed = self.headed.saturating_add(1);
            if self.headed < HEAD {
                continue;
            }
            self.missing = usize::try_from(self.head & u64::from(u32::MAX)).unwrap_or(usize::MAX);
            (self.head, self.headed) = (0, 0);
            // One that is larger than all may be together is refused as such by whoever reads it, before room is made.
            let counts = (SMALL.saturating_add(1)..=self.bounds().most_bytes).contains(&self.missing);
            if counts && !self.count(self.missing) {
                return false;
            }
        }
    }

    fn count(&mut self, bytes: usize) -> bool {
        self.counted = self.counted.saturating_add(bytes);
        let bounds = self.bounds();
        bounds.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= bounds.most_bytes
    }

    fn release(&mut self) {
        if self.counted > 0 {
            self.bounds().bytes.fetch_sub(self.counted, Ordering::Relaxed);
            self.counted = 0;
        }
    }
}

impl<B> HttpBody for Weighed<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<StdError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // Whoever asks for more has read what was whole.
        if self.missing == 0 {
            self.release();
        }
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        let frame = frame.map(|frame| frame.map_err(|error| Status::from_error(error.into())));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && !self.add(data)
        {
            self.door.heavy.inc();
            return Poll::Ready(Some(Err(heavy(self.bounds().most_bytes))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Weighed<B> {
    fn drop(&mut self) {
        self.release();
    }
}

impl<S> Limited<S> {
    /// The service of one listener.
    pub fn new(inner: S, limit: RequestLimit, transport: Transport, metrics: &Metrics) -> Self {
        let counter = |reason| metrics.counter(&metric::REQUESTS_SHED, &[reason, transport.name()]);
        let (shed, heavy, late) = (counter("limit"), counter("bytes"), counter("deadline"));
        Self { inner, door: Arc::new(Door { limit, shed, heavy, late }) }
    }
}

impl<S, B> Service<Request<B>> for Limited<S>
where
    S: Service<Request<Weighed<B>>, Response = Response<Reply>, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response<Reply>;
    type Error = Infallible;
    type Future = LimitedFuture<S::Future>;

    fn call(&self, request: Request<B>) -> Self::Future {
        let deadline = timeout(request.headers()).and_then(|timeout| Instant::now().checked_add(timeout));
        let door = Arc::clone(&self.door);
        let admitted = door.limit.0.enter(Of::Request).then(|| {
            let request = request.map(|body| Weighed::new(body, Arc::clone(&door)));
            self.inner.call(request)
        });
        LimitedFuture { admitted, deadline, patience: None, door }
    }
}

impl<F> Future for LimitedFuture<F>
where
    F: Future<Output = Result<Response<Reply>, Infallible>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(inner) = &mut this.admitted else {
            this.door.shed.inc();
            return Poll::Ready(Ok(Reply::status(this.door.limit.shed().into_status())));
        };
        // The message is read and decided in one go, so this is the moment before.
        if this.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            this.door.late.inc();
            let status = Status::deadline_exceeded("the deadline passed before the request was looked at");
            return Poll::Ready(Ok(Reply::status(status)));
        }
        if let answer @ Poll::Ready(_) = Pin::new(inner).poll(context) {
            return answer;
        }
        let patience = this.patience.get_or_insert_with(|| {
            let left = this.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            Box::pin(tokio::time::sleep(left.map_or(LONGEST, |left| left.min(LONGEST))))
        });
        if patience.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        this.door.late.inc();
        let why = match this.deadline {
            Some(deadline) if Instant::now() >= deadline => {
                "the deadline passed before there was an answer".to_owned()
            }
            _ => format!("there is no answer after {LONGEST:?}"),
        };
        Poll::Ready(Ok(Reply::status(Status::deadline_exceeded(why))))
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

fn heavy(most: usize) -> Status {
    let metadata = HashMap::from([("limit".to_owned(), most.to_string())]);
    let details = ErrorDetails::with_error_info("TOO_MANY_REQUESTS", ERROR_DOMAIN, metadata);
    let message = format!(
        "no decision was made: the messages of open requests take {most} bytes already; ask again a little later"
    );
    Status::with_error_details(Code::ResourceExhausted, message, details)
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

    use tonic::body::Body;
    use tonic::codegen::BoxFuture;

    use super::*;

    #[derive(Default)]
    struct Answers(AtomicUsize);

    impl Service<Request<Weighed<Body>>> for Answers {
        type Response = Response<Reply>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Reply>, Infallible>>;

        fn call(&self, _: Request<Weighed<Body>>) -> Self::Future {
            self.0.fetch_add(1, Ordering::Relaxed);
            ready(Ok(Response::new(Body::empty().into())))
        }
    }

    /// Waits for its message for ever.
    struct Waits;

    impl Service<Request<Weighed<Body>>> for Waits {
        type Response = Response<Reply>;
        type Error = Infallible;
        type Future = BoxFuture<Response<Reply>, Infallible>;

        fn call(&self, _: Request<Weighed<Body>>) -> Self::Future {
            Box::pin(pending())
        }
    }

    fn asked(timeout: Option<&str>) -> Request<Body> {
        let request = Request::builder();
        match timeout {
            Some(timeout) => request.header(TIMEOUT, timeout),
            None => request,
        }
        .body(Body::empty())
        .unwrap()
    }

    fn code(response: &Response<Reply>) -> Code {
        Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
    }

    #[tokio::test]
    async fn places_are_given_back_answered_or_not() {
        let (limit, metrics) = (RequestLimit::new(2, 0), Metrics::new("", ""));
        let waits = Limited::new(Waits, limit.clone(), Transport::Unix, &metrics);
        let answers = Limited::new(Answers::default(), limit.clone(), Transport::Tcp, &metrics);
        let held = (waits.call(asked(None)), waits.call(asked(None)));
        let refused = answers.call(asked(None)).await.unwrap();
        assert_eq!((code(&refused), answers.inner.0.load(Ordering::Relaxed)), (Code::ResourceExhausted, 0));
        let status = Status::from_header_map(refused.headers()).unwrap();
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.metadata["limit"].as_str()), ("TOO_MANY_REQUESTS", "2"));
        drop(held);
        for _ in 0..5 {
            assert_eq!(code(&answers.call(asked(None)).await.unwrap()), Code::Ok);
        }
        assert_eq!(limit.0.open.load(Ordering::Relaxed), 0);
        assert_eq!(metrics.counter(&metric::REQUESTS_SHED, &["limit", "tcp"]).get(), 1);
    }

    #[tokio::test]
    async fn large_messages_have_a_bound_together() {
        let (limit, metrics) = (RequestLimit::new(9, 100_000), Metrics::new("", ""));
        let counter = |reason| metrics.counter(&metric::REQUESTS_SHED, &[reason, "unix"]);
        let (shed, heavy, late) = (counter("limit"), counter("bytes"), counter("deadline"));
        let door = Arc::new(Door { limit: limit.clone(), shed, heavy, late });
        // A message that says how long it is, and so much of it in one frame after the other.
        let announced = |length: u32, frames: &[usize]| {
            let head = [&[0], &length.to_be_bytes()[..]].concat();
            let frames = frames.iter().map(|bytes| Bytes::from(vec![7; *bytes]));
            let body = Body::new(Frames(std::iter::once(Bytes::from(head)).chain(frames).collect()));
            Weighed::new(body, Arc::clone(&door))
        };
        let read = async |body: &mut Weighed<Body>| {
            let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
            frame.map(|frame| frame.map(drop))
        };
        let held = || limit.0.bytes.load(Ordering::Relaxed);
        // Small ones are not looked at, however many.
        let small = u32::try_from(SMALL).unwrap();
        let mut many: Vec<Weighed<Body>> = (0..20).map(|_| announced(small, &[])).collect();
        for body in &mut many {
            assert!(read(body).await.unwrap().is_ok());
        }
        assert_eq!(held(), 0);
        // What is announced counts as if it were there, but for what is too large anyway.
        let (mut first, mut second) = (announced(60_000, &[]), announced(40_000, &[]));
        let (mut third, mut endless) = (announced(small + 1, &[]), announced(u32::MAX, &[]));
        assert!(read(&mut first).await.unwrap().is_ok() && read(&mut second).await.unwrap().is_ok());
        assert!(read(&mut endless).await.unwrap().is_ok());
        assert_eq!(held(), 100_000);
        let refused = read(&mut third).await.unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let info = refused.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.metadata["limit"].as_str()), ("TOO_MANY_REQUESTS", "100000"));
        assert_eq!(counter("bytes").get(), 1);
        drop((second, third));
        assert!(read(&mut announced(40_000, &[])).await.unwrap().is_ok());
        drop(first);
        assert_eq!(held(), 0);
        // Of many messages over one stream each counts by itself, until it was there and more is asked for.
        let mut stream = announced(60_000, &[30_000, 30_000, 5, 7]);
        for held_then in [60_000, 60_000, 60_000, 0, 0] {
            assert!(read(&mut stream).await.unwrap().is_ok());
            assert_eq!(held(), held_then);
        }
        assert!(read(&mut stream).await.is_none());
        let heads = [&[0, 0, 0, 0, 2, 1, 1, 0][..], &[0, 0, 0xea], &[0x60, 1]].map(Bytes::from_static);
        let mut stream = Weighed::new(Body::new(Frames(heads.into())), Arc::clone(&door));
        for held_then in [0, 0, 60_000] {
            assert!(read(&mut stream).await.unwrap().is_ok());
            assert_eq!(held(), held_then);
        }
        drop(stream);
        assert_eq!(held(), 0);
    }

    /// One after the other.
    struct Frames(std::collections::VecDeque<Bytes>);

    impl HttpBody for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
        }
    }

    #[tokio::test]
    async fn who_has_stopped_waiting_is_not_answered() {
        let metrics = Metrics::new("", "");
        let answers = Limited::new(Answers::default(), RequestLimit::new(9, 0), Transport::Tcp, &metrics);
        assert_eq!(code(&answers.call(asked(Some("1H"))).await.unwrap()), Code::Ok);
        assert_eq!(code(&answers.call(asked(Some("0n"))).await.unwrap()), Code::DeadlineExceeded);
        let queued = answers.call(asked(Some("5m")));
        std::thread::sleep(Duration::from_millis(6));
        assert_eq!(code(&queued.await.unwrap()), Code::DeadlineExceeded);
        let waits = Limited::new(Waits, RequestLimit::new(9, 0), Transport::Tcp, &metrics);
        assert_eq!(code(&waits.call(asked(Some("5m"))).await.unwrap()), Code::DeadlineExceeded);
        assert_eq!(metrics.counter(&metric::REQUESTS_SHED, &["deadline", "tcp"]).get(), 3);
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
