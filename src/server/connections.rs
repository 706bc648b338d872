//! Connections of a listener, over HTTP/2.
//!
//! ```text
//! accept ─▶ a task for each connection: read all that came ─▶ answer all of it ─▶ write all answers
//!                                                              └─ what has to wait: a task of its own
//! ```
//!
//! Deciding takes less time than starting a task for it would, so a request is answered where its connection is read,
//! and what arrived together is written together. Only what cannot be answered yet (a message that is not whole, a
//! stream, what explains or lists) gets a task. A handler that panics ends its own call and nothing else.

use std::convert::Infallible;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::{Stream, StreamExt};
use tokio_util::task::TaskTracker;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service as _};
use tonic::server::NamedService;
use tonic::service::Routes;

use crate::drain::Drain;
use crate::proto::v1::authorization_service_server::AuthorizationServiceServer;

use super::Transport;
use super::direct::{Direct, Reply};
use super::grpc::AuthorizationApi;
use super::limits::{Limited, LimitedFuture};

/// Streams of one connection. A client that wants more at a time waits for one to end, or opens another connection.
const STREAMS: u32 = 256;
/// What one stream, and twice that one connection, may send before it is read: as much as HTTP/2 begins with. A wider
/// window makes nobody faster on one machine, and all connections together could fill the memory with what nobody has
/// read yet. That a stream which is not read from has half of its connection's at most leaves room for the others.
const WINDOW: u32 = 64 << 10;
/// A peer beyond this machine that is gone says nothing; it is asked after so much silence.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// The service, with its shorter way for checks.
type Checks = Limited<Direct<AuthorizationServiceServer<AuthorizationApi>>>;

/// What a listener answers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Services {
    checks: Arc<Checks>,
    /// Health, reflection, and the answer to what is none of them.
    others: Routes,
    transport: Transport,
}

/// One answer on its way.
pub struct Answering(Way);

enum Way {
    Checks(LimitedFuture<BoxFuture<Response<Reply>, Infallible>>),
    Others(BoxFuture<Response<Reply>, Infallible>),
}

/// One connection until its end.
struct Connection<C: AsyncRead + AsyncWrite + Unpin> {
    http2: Pin<Box<http2::Connection<TokioIo<C>, Services, Later>>>,
    later: Later,
    /// What `later` held, while it is looked at.
    now: Vec<Call>,
    /// `None` once it has come.
    drain: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// A call from its request to the last byte of its answer.
type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a connection puts the calls that it has read, instead of starting a task for each.
#[derive(Clone, Default)]
struct Later(Arc<Mutex<Vec<Call>>>);

// === impl Services ===

impl Services {
    pub(super) fn new(checks: Checks, others: Routes, transport: Transport) -> Self {
        Self { checks: Arc::new(checks), others, transport }
    }

    fn http2(&self, later: Later) -> http2::Builder<Later> {
        let mut builder = http2::Builder::new(later);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW)
            .keep_alive_interval((self.transport == Transport::Tcp).then_some(KEEP_ALIVE))
            // Nobody asks a decision point what time it is.
            .auto_date_header(false);
        builder
    }
}

impl Service<Request<Incoming>> for Services {
    type Response = Response<Reply>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let service = request.uri().path().split('/').nth(1);
        if service == Some(AuthorizationServiceServer::<AuthorizationApi>::NAME) {
            return Answering(Way::Checks(self.checks.call(request)));
        }
        let answer = self.others.clone().call(request);
        Answering(Way::Others(Box::pin(async { Ok(answer.await?.map(Reply::from)) })))
    }
}

impl Future for Answering {
    type Output = Result<Response<Reply>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Way::Checks(answer) => Pin::new(answer).poll(context),
            Way::Others(answer) => answer.as_mut().poll(context),
        }
    }
}

// === connections ===

/// Serves whoever comes, until the drain; then waits for what is open.
pub async fn serve<C>(incoming: impl Stream<Item = io::Result<C>>, services: Services, drain: Drain)
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let open = TaskTracker::new();
    {
        // Closed at the end of this block: whoever comes during the drain finds nobody.
        let mut incoming = pin!(incoming);
        let mut started = pin!(drain.started());
        loop {
            tokio::select! {
                () = &mut started => break,
                came = incoming.next() => match came {
                    Some(Ok(connection)) => {
                        open.spawn(Connection::new(connection, services.clone(), &drain));
                    }
                    Some(Err(error)) => tracing::debug!(%error, "a connection could not be accepted"),
                    None => break,
                },
            }
        }
    }
    open.close();
    open.wait().await;
}

impl<C: AsyncRead + AsyncWrite + Unpin + Send + 'static> Connection<C> {
    fn new(connection: C, services: Services, drain: &Drain) -> Self {
        let later = Later::default();
        let http2 = services.http2(later.clone()).serve_connection(TokioIo::new(connection), services);
        Self { http2: Box::pin(http2), later, now: Vec::new(), drain: Some(Box::pin(drain.started())) }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Connection<C> {
    /// Answers what has been read; whether there was anything.
    fn answer(&mut self) -> bool {
        std::mem::swap(&mut self.now, &mut *self.later.calls());
        let any = !self.now.is_empty();
        for mut call in self.now.drain(..) {
            // What is not done at once is looked at again by its task, which leaves a waker of its own.
            let mut context = Context::from_waker(Waker::noop());
            match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(&mut context))) {
                Ok(Poll::Ready(())) => {}
                Ok(Poll::Pending) => drop(tokio::spawn(call)),
                Err(_panic) => tracing::error!("a call ended without an answer"),
            }
        }
        any
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Future for Connection<C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Some(drain) = &mut this.drain
            && drain.as_mut().poll(context).is_ready()
        {
            this.drain = None;
            this.http2.as_mut().graceful_shutdown();
        }
        loop {
            // Reads all that came, and writes what the calls of the last round have left.
            if let Poll::Ready(outcome) = this.http2.as_mut().poll(context) {
                if let Err(error) = outcome {
                    tracing::debug!(%error, "a connection ended early");
                }
                return Poll::Ready(());
            }
            if !this.answer() {
                return Poll::Pending;
            }
        }
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> Drop for Connection<C> {
    /// Calls that were read and not begun hold on to the list that holds them.
    fn drop(&mut self) {
        self.later.calls().clear();
    }
}

impl Later {
    fn calls(&self) -> std::sync::MutexGuard<'_, Vec<Call>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Later {
    fn execute(&self, call: F) {
        self.calls().push(Box::pin(call));
    }
}
