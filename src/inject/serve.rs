//! The webhook itself: HTTP/1.1 over TLS for the API server, and a plain endpoint of its own for probes and scrapers.
//! Drains like the sidecar: after the signal it goes on answering for a while, because the API server hears late that a
//! pod is going, then waits for what is open.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::config::{ConfigError, InjectorConfig};
use super::metrics::{self, InjectorMetrics};
use super::pod::AskedBy;
use super::review::answer;
use super::tls::{Certificate, CertificateError, CertificateFiles, Read};
use crate::drain::DrainSettings;
use crate::readiness::{DRAIN, Readiness};

/// An API server needs a few; more than this is somebody else.
const MOST_CONNECTIONS: usize = 256;
/// For the handshake and for the body of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// From one request on a connection to the head of the next; the API server then makes another connection.
const IDLE: Duration = Duration::from_secs(30);
/// After a failed accept, such as one for want of file descriptors.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(50);

/// What `postern inject serve` does.
#[derive(Clone, Debug)]
pub struct InjectSettings {
    /// Where the API server asks.
    pub listen: SocketAddr,
    /// Certificate and key.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// How often they are looked at.
    pub certificate_interval: Duration,
    /// What is injected.
    pub config: PathBuf,
    /// Where probes and scrapers ask.
    pub admin: Option<SocketAddr>,
    /// The largest review.
    pub max_request_bytes: usize,
    /// The end.
    pub drain: DrainSettings,
}

/// Where it listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The webhook.
    pub webhook: SocketAddr,
    /// Probes and metrics.
    pub admin: Option<SocketAddr>,
}

/// Why it cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum InjectError {
    /// The configuration cannot be read.
    #[error("`{}` cannot be read: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// It can be read, and cannot be used.
    #[error("`{}`: {source}", path.display())]
    Config {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: ConfigError,
    },
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// An address.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
    /// The admin endpoint has ended.
    #[error("the admin endpoint has stopped: {0}")]
    Admin(io::Error),
}

/// Everything bound and read, nothing serving.
#[derive(Debug)]
pub struct Bound {
    /// Where it will serve.
    pub addresses: Addresses,
    settings: InjectSettings,
    config: InjectorConfig,
    certificate: Arc<Certificate>,
    read: Read,
    listener: TcpListener,
    admin: Option<TcpListener>,
}

#[derive(Clone, Debug)]
struct Webhook {
    config: Arc<InjectorConfig>,
    metrics: InjectorMetrics,
    max_request_bytes: usize,
}

#[derive(Clone, Debug)]
struct Admin {
    readiness: Readiness,
    metrics: InjectorMetrics,
}

/// Reads and binds everything that the settings name.
pub async fn bind(settings: InjectSettings) -> Result<Bound, InjectError> {
    let path = || settings.config.clone();
    let text = std::fs::read_to_string(&settings.config)
        .map_err(|source| InjectError::Read { path: path(), source })?;
    let config =
        InjectorConfig::from_json(&text).map_err(|source| InjectError::Config { path: path(), source })?;
    let files = CertificateFiles { certificate: settings.certificate.clone(), key: settings.key.clone() };
    let (certificate, read) = Certificate::load(files)?;
    let (listener, webhook) = listen(settings.listen).await?;
    let (admin, admin_address) = match settings.admin {
        Some(address) => {
            let (listener, address) = listen(address).await?;
            (Some(listener), Some(address))
        }
        None => (None, None),
    };
    let addresses = Addresses { webhook, admin: admin_address };
    Ok(Bound { addresses, settings, config, certificate, read, listener, admin })
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), InjectError> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound.await.map_err(|source| InjectError::Listen { address, source })
}

impl Bound {
    /// Serves until the shutdown, then drains.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), InjectError> {
        let Self { addresses, settings, config, certificate, read, listener, admin } = self;
        let (metrics, readiness) = (InjectorMetrics::default(), Readiness::new());
        let acceptor = TlsAcceptor::from(certificate.server_config()?);
        let webhook = Webhook {
            config: Arc::new(config),
            metrics: metrics.clone(),
            max_request_bytes: settings.max_request_bytes,
        };
        let router = Router::new()
            .route("/inject/pods", post(by_pod))
            .route("/inject/namespaces", post(by_namespace))
            .with_state(webhook);
        tracing::info!(webhook = %addresses.webhook, admin = addresses.admin.map(tracing::field::display), "listening");

        let watching = tokio::spawn(certificate.watch(read, settings.certificate_interval, metrics.clone()));
        let probes = async {
            match admin {
                Some(listener) => {
                    serve_admin(listener, Admin { readiness: readiness.clone(), metrics }).await
                }
                None => std::future::pending().await,
            }
        };
        let open = GracefulShutdown::new();
        let mut probes = std::pin::pin!(probes);
        let mut ending = std::pin::pin!(async {
            shutdown.await;
            let block = readiness.block(DRAIN);
            tokio::time::sleep(settings.drain.delay).await;
            block
        });
        let outcome = {
            let mut accepting = std::pin::pin!(accept(&listener, &acceptor, &router, &open));
            loop {
                tokio::select! {
                    biased;
                    block = &mut ending => break Ok(block),
                    ended = &mut probes => break Err(InjectError::Admin(ended.err().unwrap_or_else(|| io::Error::other("it ended")))),
                    () = &mut accepting => {}
                }
            }
        };
        drop(listener);
        if outcome.is_ok() && timeout(settings.drain.grace, open.shutdown()).await.is_err() {
            tracing::warn!(grace = ?settings.drain.grace, "cutting what is still open");
        }
        watching.abort();
        tracing::info!("ended");
        outcome.map(drop)
    }
}

/// Takes connections for ever.
async fn accept(listener: &TcpListener, acceptor: &TlsAcceptor, router: &Router, open: &GracefulShutdown) {
    let seats = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        // Nobody closes the semaphore.
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let _no_delay = stream.set_nodelay(true);
                let (acceptor, router, watcher) = (acceptor.clone(), router.clone(), open.watcher());
                tokio::spawn(async move {
                    let served = connection(stream, acceptor, router, watcher, seat).await;
                    if let Err(error) = served {
                        tracing::debug!(%peer, error, "a connection ended badly");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be taken");
                tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
    seat: OwnedSemaphorePermit,
) -> Result<(), String> {
    let stream = match timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(stream) => stream.map_err(|error| error.to_string())?,
        Err(_) => return Err("no handshake".to_owned()),
    };
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let outcome = watcher.watch(serving.into_owned()).await;
    drop(seat);
    outcome.map_err(|error| error.to_string())
}

// === the webhook ===

async fn by_pod(State(webhook): State<Webhook>, request: Request<Body>) -> Response {
    webhook.answer(AskedBy::Pod, request).await
}

async fn by_namespace(State(webhook): State<Webhook>, request: Request<Body>) -> Response {
    webhook.answer(AskedBy::Namespace, request).await
}

impl Webhook {
    async fn answer(&self, asked_by: AskedBy, request: Request<Body>) -> Response {
        let answered = match self.body(request).await {
            Ok(body) => {
                answer(&self.config, asked_by, &body).map_err(|message| (StatusCode::BAD_REQUEST, message))
            }
            Err(refused) => Err(refused),
        };
        match answered {
            Ok((answer, ending)) => {
                self.metrics.reviewed(Some(ending));
                ([(CONTENT_TYPE, "application/json")], answer).into_response()
            }
            Err((status, message)) => {
                self.metrics.reviewed(None);
                tracing::warn!(status = status.as_u16(), message, "no review");
                (status, message + "\n").into_response()
            }
        }
    }

    /// The whole body, which is bounded in size and time.
    async fn body(&self, request: Request<Body>) -> Result<axum::body::Bytes, (StatusCode, String)> {
        let most = self.max_request_bytes;
        let too_large = || {
            let message = format!("the review is larger than {most} bytes; raise `--max-request-bytes`");
            (StatusCode::PAYLOAD_TOO_LARGE, message)
        };
        let headers = request.headers();
        if !is_json(headers) {
            let message = "wanted `content-type: application/json`".to_owned();
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        let announced =
            headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > most)) {
            return Err(too_large());
        }
        match timeout(PATIENCE, to_bytes(request.into_body(), most)).await {
            Ok(Ok(body)) => Ok(body),
            // Of unknown length, and then too long; or the caller went away, and reads no answer.
            Ok(Err(_)) => Err(too_large()),
            Err(_) => Err((StatusCode::REQUEST_TIMEOUT, "the review did not arrive in time".to_owned())),
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

// === the admin endpoint ===

async fn serve_admin(listener: TcpListener, admin: Admin) -> io::Result<()> {
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .with_state(admin);
    axum::serve(listener, router).await
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let report = admin.readiness.report();
    if report.ready {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\npending: {}\n", report.pending.join(", ")))
        .into_response()
}

async fn metrics_text(State(admin): State<Admin>) -> Response {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], admin.metrics.encode()).into_response()
}
