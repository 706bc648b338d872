//! The wiring of `postern serve`: everything is bound, then everything serves, and the end is in order.
//!
//! ```text
//! bind ─▶ Bound { addresses } ─▶ serve ─┬─ admin runtime (one thread): admin endpoint, updater, exports
//!                                       └─ serving runtime (the caller's): gRPC over TCP and the Unix socket
//! ```
//!
//! Tests bind to port 0 or a temporary socket and read the addresses.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{self, Handle};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::authorizer::Authorizer;
use crate::cli;
use crate::clock::Clock;
use crate::config::{CandidateSettings, Config, PolicySource};
use crate::drain::{Drain, Signals};
use crate::inject::{self, InjectError, InjectSettings};
use crate::metrics::{Metrics, PolicyMetrics};
use crate::readiness::{DRAIN, POLICY, Readiness};
use crate::record::{self, Candidate, RecordSettings, Records};
use crate::server::accept::{self, Door};
use crate::server::admin::{self, AdminState};
use crate::server::connections;
use crate::server::grpc::{self, AuthorizationApi};
use crate::server::health::Health;
use crate::server::limits::RequestLimit;
use crate::server::listen::{self, ListenError, SocketFile};
use crate::server::status::PolicyFeed;
use crate::server::tls::{self, Tls, TlsProblems, TlsReloader};
use crate::server::{Addresses, Transport};
use crate::snapshot;
use crate::source::activate::Activator;
use crate::source::dir::{self, Refused, Updater};
use crate::source::remote::{RemoteUpdater, StartError};
use crate::telemetry::names::metric;
use crate::telemetry::otlp::Problems as VariableProblems;
use crate::telemetry::spans::Lost;
use crate::telemetry::{LogFormat, Telemetry, init_logs};

/// The commit this was built from.
pub const COMMIT: &str = env!("POSTERN_COMMIT");
/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How much nicer the admin runtime is than the serving one, in steps of `nice(2)`.
const BEHIND_CHECKS: i32 = 10;
/// How long the last spans and numbers may take at the end.
const FLUSH: Duration = Duration::from_secs(3);

/// Why the process cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A listener.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Where spans, metrics and log records go.
    #[error(transparent)]
    Telemetry(#[from] VariableProblems),
    /// The certificates of the TCP listener.
    #[error("TLS cannot be served: {0}")]
    Tls(#[from] TlsProblems),
    /// The reflection service.
    #[error("the reflection service cannot be built: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The decision log.
    #[error(transparent)]
    Records(#[from] record::StartError),
    /// The policy that is asked beside.
    #[error("the candidate is refused")]
    Candidate(Refused),
    /// What publications are verified by, or where they are kept.
    #[error(transparent)]
    Source(#[from] StartError),
    /// The webhook.
    #[error(transparent)]
    Inject(#[from] InjectError),
    /// A runtime or a signal handler.
    #[error("{step}: {source}")]
    System {
        /// What was being done.
        step: &'static str,
        /// The system's word.
        source: io::Error,
    },
    /// The policy of the start.
    #[error("the policy is refused")]
    Policy(Refused),
    /// Something that must not end has ended.
    #[error("the {task} has stopped: {reason}")]
    Stopped {
        /// What.
        task: &'static str,
        /// Why.
        reason: String,
    },
}

/// Everything bound, nothing serving.
#[derive(Debug)]
pub struct Bound {
    /// Where it will serve.
    pub addresses: Addresses,
    config: Config,
    admin: AdminRuntime,
    tcp: Option<TcpListener>,
    tls: Option<(Tls, TlsReloader)>,
    uds: Option<(UnixListener, SocketFile)>,
    admin_listener: Option<TcpListener>,
    telemetry: Telemetry,
    readiness: Readiness,
}

/// A current-thread runtime on a thread of its own: probes, reloads and exports do not compete with requests,
/// and answer when those are stuck.
#[derive(Debug)]
struct AdminRuntime {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// What keeps the active policy the newest.
enum PolicyUpdater {
    Directory(Box<Updater>),
    Published(Box<RemoteUpdater>),
}

impl PolicyUpdater {
    /// Ends only when the first policy of a directory is refused.
    async fn run(self) -> Result<(), Refused> {
        match self {
            Self::Directory(updater) => updater.run().await,
            Self::Published(updater) => {
                updater.run().await;
                Ok(())
            }
        }
    }
}

/// The end of a task that should not have ended.
enum End {
    Policy(Refused),
    Stopped { task: &'static str, reason: String },
}

/// The program: the command line, and behind `serve` the runtimes.
pub fn main() -> ExitCode {
    match cli::run(std::env::args_os()) {
        cli::Next::Exit(code) => code,
        cli::Next::Serve(config) => {
            let format = config.log_format;
            let telemetry = telemetry(&config).map_err(RunError::from);
            init_logs(format, &config.log_level, telemetry.as_ref().ok());
            match telemetry.and_then(|telemetry| run(*config, telemetry)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    error.tell(format);
                    ExitCode::FAILURE
                }
            }
        }
        cli::Next::InjectServe(serve) => {
            init_logs(serve.log_format, &serve.log_level, None);
            let format = serve.log_format;
            match run_injector(serve.settings) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    error.tell(format);
                    ExitCode::FAILURE
                }
            }
        }
    }
}

/// What the `OTEL_…` variables say, those of log records where the decision log needs them.
fn telemetry(config: &Config) -> Result<Telemetry, VariableProblems> {
    Telemetry::from_env(config.records.as_ref().is_some_and(RecordSettings::over_otlp))
}

/// Serves until a signal.
fn run(config: Config, telemetry: Telemetry) -> Result<(), RunError> {
    let runtime = serving_runtime(config.workers)
        .map_err(|source| RunError::System { step: "the serving runtime cannot be started", source })?;
    let outcome = runtime.block_on(async {
        let bound = bind_with(config, telemetry).await?;
        let signals = bound.signals()?;
        bound.serve(signals.first()).await
    });
    // This is the cut: connections that outlived the grace end with the runtime.
    runtime.shutdown_background();
    outcome
}

/// Serves the webhook until a signal.
fn run_injector(settings: InjectSettings) -> Result<(), RunError> {
    let failed = |step| move |source| RunError::System { step, source };
    // A review is a few milliseconds of work; two threads answer while one of them reads a large one.
    let runtime = serving_runtime(2).map_err(failed("the runtime cannot be started"))?;
    let outcome = runtime.block_on(async {
        let bound = inject::bind(settings).await?;
        let signals = Signals::install(&Handle::current()).map_err(failed("signals cannot be caught"))?;
        tracing::info!(version = VERSION, commit = COMMIT, "postern inject");
        bound.serve(signals.first()).await.map_err(RunError::from)
    });
    runtime.shutdown_background();
    outcome
}

/// The policy that is asked beside, read and checked as the live one.
async fn candidate(config: &Config, settings: CandidateSettings) -> Result<(Candidate, f64), RunError> {
    let CandidateSettings { path, share } = settings;
    let options = config.load;
    let loaded = tokio::task::spawn_blocking(move || dir::load(&path, options)).await;
    let loaded =
        loaded.map_err(|error| RunError::Stopped { task: "candidate", reason: error.to_string() })?;
    let policy = loaded.map_err(RunError::Candidate)?.policy;
    tracing::info!(digest = policy.digest(), share, "a candidate is asked beside");
    Ok((Candidate::new(policy), share))
}

/// One thread needs no scheduler that steals work.
fn serving_runtime(workers: usize) -> io::Result<runtime::Runtime> {
    if workers == 1 {
        return runtime::Builder::new_current_thread().enable_all().build();
    }
    runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("postern-serve")
        .enable_all()
        .build()
}

/// Binds everything that the configuration names. Runs on the runtime that will answer requests.
pub async fn bind(config: Config) -> Result<Bound, RunError> {
    let telemetry = telemetry(&config)?;
    bind_with(config, telemetry).await
}

/// As [`bind`], for whoever has read the `OTEL_…` variables already.
pub async fn bind_with(config: Config, telemetry: Telemetry) -> Result<Bound, RunError> {
    let admin = AdminRuntime::start()
        .map_err(|source| RunError::System { step: "the admin runtime cannot be started", source })?;
    let tls = config.tls.clone().map(Tls::start).transpose()?;
    let tcp = match config.tcp {
        Some(address) => Some(listen::tcp("tcp", address).await?),
        None => None,
    };
    // A listener belongs to the runtime it was bound on.
    let admin_listener = match config.admin {
        Some(address) => Some(admin.run(listen::tcp("admin", address)).await?),
        None => None,
    };
    let uds = match &config.uds {
        Some(uds) => Some(listen::unix(&uds.path, uds.mode).await?),
        None => None,
    };
    let addresses = Addresses {
        tcp: tcp.as_ref().and_then(|listener| listener.local_addr().ok()),
        uds: uds.as_ref().map(|(_, file)| file.path().to_owned()),
        admin: admin_listener.as_ref().and_then(|listener| listener.local_addr().ok()),
    };
    Ok(Bound {
        addresses,
        config,
        admin,
        tcp,
        tls,
        uds,
        admin_listener,
        telemetry,
        readiness: Readiness::new(),
    })
}

impl Bound {
    /// SIGTERM and SIGINT, watched from the admin runtime.
    pub fn signals(&self) -> Result<Signals, RunError> {
        Signals::install(&self.admin.handle)
            .map_err(|source| RunError::System { step: "signals cannot be caught", source })
    }

    /// What `/readyz` answers from.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Loads the policy, serves until the shutdown, then drains.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), RunError> {
        let Self { addresses, config, admin, tcp, tls, uds, admin_listener, telemetry, readiness } = self;
        let metrics = Metrics::new(VERSION, COMMIT);
        let candidate = match config.candidate.clone() {
            Some(settings) => Some(candidate(&config, settings).await?),
            None => None,
        };
        let mut senders = telemetry.connect(&admin.handle)?;
        let sender = senders.logs.take();
        let records = match config.records.clone() {
            Some(settings) => Some(Records::start(settings, candidate, &metrics.records(), sender)?),
            None => None,
        };
        let (writer, reader) = snapshot::cell();
        let clock = Clock::system();
        let authorizer =
            Authorizer::new(reader, config.cache, clock.clone()).with_freshness(config.freshness);
        let health = Health::new().await.with_reasons(readiness.clone());
        let drain = Drain::new();
        let (activated, mut activations) = watch::channel(0);
        let activator = Activator {
            writer,
            clock,
            readiness: readiness.clone(),
            waiting: Some(readiness.block(POLICY)),
            metrics: metrics.policy(),
            activated,
        };
        let updater = match config.policy.clone() {
            PolicySource::Directory(path) => PolicyUpdater::Directory(Box::new(Updater {
                path,
                options: config.load,
                debounce: config.reload_debounce,
                activator,
            })),
            PolicySource::Published(settings) => {
                PolicyUpdater::Published(Box::new(RemoteUpdater::new(settings, activator)?))
            }
        };
        let feed = PolicyFeed {
            readiness: readiness.clone(),
            activations: activations.clone(),
            drain: drain.clone(),
        };
        let recorder = records.as_ref().map(Records::recorder);
        let api = |transport| {
            let traces = telemetry.traces().map(|traces| (traces, config.traces.clone()));
            AuthorizationApi::new(authorizer.clone(), config.grpc, transport, &metrics, feed.clone(), traces)
                .with_records(recorder.clone())
        };
        let limit = RequestLimit::new(config.max_concurrent_requests, config.max_concurrent_bytes);
        let door = |transport| Door::new(transport, config.max_connections, &metrics);
        observe(&metrics, &authorizer, &telemetry);
        let (pushed, pushes) = (metrics.clone(), metrics.clone());
        let running = telemetry.start(
            senders,
            &admin.handle,
            Arc::new(move |resource, settings| pushed.encode_otlp(resource, settings.exponential).into()),
            Arc::new(move |taken| {
                let outcome = if taken { "taken" } else { "failed" };
                pushes.counter(&metric::METRIC_PUSHES, &[outcome]).inc();
            }),
        );

        tracing::info!(version = VERSION, commit = COMMIT, "postern");
        tracing::info!(settings = config.summary(), "configuration");
        for derived in &config.derived {
            tracing::info!(setting = derived.key, value = derived.value, because = derived.because, "auto");
        }
        for target in telemetry.targets() {
            tracing::info!(
                signal = target.signal.name().to_ascii_lowercase(),
                endpoint = %target.endpoint,
                protocol = %target.protocol,
                "telemetry is sent"
            );
        }

        // Servers wait for what is open, the other tasks have no end of their own.
        let mut servers: JoinSet<End> = JoinSet::new();
        let mut tasks: JoinSet<End> = JoinSet::new();
        if let Some(listener) = tcp {
            let services = grpc::services(api(Transport::Tcp), &health, config.grpc, limit.clone())?;
            let (door, drain) = (door(Transport::Tcp), drain.clone());
            match tls {
                Some((tls, reloader)) => {
                    let incoming = tls::incoming(listener, tls, door);
                    servers.spawn(async move {
                        connections::serve(incoming, services, drain).await;
                        End::stopped("TLS server")
                    });
                    let task = admin.handle.spawn(reloader.run(metrics.clone()));
                    tasks.spawn(async move {
                        let reason = match task.await {
                            Ok(()) => return End::stopped("reloader of certificates"),
                            Err(error) => error.to_string(),
                        };
                        End::Stopped { task: "reloader of certificates", reason }
                    });
                }
                None => {
                    let incoming = accept::tcp(listener, door);
                    servers.spawn(async move {
                        connections::serve(incoming, services, drain).await;
                        End::stopped("TCP server")
                    });
                }
            }
        }
        let mut socket_file = None;
        if let Some((listener, file)) = uds {
            socket_file = Some(file);
            let services = grpc::services(api(Transport::Unix), &health, config.grpc, limit.clone())?;
            let peers = config.uds.as_ref().map(|uds| uds.peers.clone()).unwrap_or_default();
            let incoming = accept::unix(listener, peers, door(Transport::Unix));
            let drain = drain.clone();
            servers.spawn(async move {
                connections::serve(incoming, services, drain).await;
                End::stopped("Unix socket server")
            });
        }
        if let Some(listener) = admin_listener {
            let state = AdminState {
                readiness: readiness.clone(),
                metrics: metrics.clone(),
                authorizer: authorizer.clone(),
                serving: Handle::current(),
                traced: telemetry.traces().is_some_and(|traces| traces.propagators.trace_context),
            };
            let task = admin.handle.spawn(admin::serve(listener, state));
            tasks.spawn(async move {
                let reason = match task.await {
                    Ok(Ok(())) => "it ended".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(error) => error.to_string(),
                };
                End::Stopped { task: "admin endpoint", reason }
            });
        }
        let task = admin.handle.spawn(updater.run());
        tasks.spawn(async move {
            match task.await {
                Ok(Err(refused)) => End::Policy(refused),
                Ok(Ok(())) => End::stopped("updater"),
                Err(error) => End::Stopped { task: "updater", reason: error.to_string() },
            }
        });
        tracing::info!(
            tcp = addresses.tcp.map(tracing::field::display),
            uds = addresses.uds().map(|path| tracing::field::display(path.display())),
            admin = addresses.admin.map(tracing::field::display),
            "listening"
        );

        let mut shutdown = std::pin::pin!(shutdown);
        let mut serving = false;
        let outcome = loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break Ok(()),
                Some(end) = tasks.join_next() => break Err(RunError::from_end(end)),
                Some(end) = servers.join_next() => break Err(RunError::from_end(end)),
                Ok(()) = activations.changed(), if !serving => {
                    serving = true;
                    health.serving().await;
                }
            }
        };

        // Refused before anything was decided: nothing is open that is worth waiting for.
        let graceful = outcome.is_ok();
        let ending = readiness.block(DRAIN);
        health.not_serving().await;
        if graceful {
            tokio::time::sleep(config.drain.delay).await;
        }
        drain.start();
        // New callers find nobody from here on.
        drop(socket_file);
        health.close().await;
        if graceful {
            let all = async { while servers.join_next().await.is_some() {} };
            if tokio::time::timeout(config.drain.grace, all).await.is_err() {
                tracing::warn!(grace = ?config.drain.grace, "cutting what is still open");
            }
        }
        servers.abort_all();
        tasks.abort_all();
        if let Some(records) = records {
            let _written = tokio::task::spawn_blocking(move || records.shutdown(FLUSH)).await;
        }
        running.shutdown(FLUSH).await;
        drop((ending, admin));
        if graceful {
            tracing::info!("ended");
        }
        outcome
    }
}

/// What others keep is read when somebody looks at the metrics.
fn observe(metrics: &Metrics, authorizer: &Authorizer, telemetry: &Telemetry) {
    let (entries, bytes) =
        (metrics.gauge(&metric::CACHE_ENTRIES, &[]), metrics.gauge(&metric::CACHE_BYTES, &[]));
    let (policy, decides) = (metrics.policy(), authorizer.clone());
    metrics.observe(move || {
        let (count, size) = decides.cache_size();
        entries.set(count);
        bytes.set(size);
        observe_policy(&policy, &decides);
    });
    let exported = metrics.observed(&metric::SPANS_EXPORTED, &[]);
    let lost = Lost::ALL.map(|reason| (reason, metrics.observed(&metric::SPANS_LOST, &[reason.name()])));
    if let Some(counts) = telemetry.span_counts() {
        metrics.observe(move || {
            exported.set(counts.exported());
            for (reason, counter) in &lost {
                counter.set(counts.lost(*reason));
            }
        });
    }
}

fn observe_policy(metrics: &PolicyMetrics, authorizer: &Authorizer) {
    let active = authorizer.snapshot();
    if let Some(lease) = active.get().and_then(|snapshot| snapshot.lease()) {
        let now = authorizer.now();
        let (confirmed, expires) = (lease.confirmed().as_second(), lease.expires().as_second());
        metrics.lease(confirmed, expires, lease.freshness(now));
        metrics.age(now.as_second().saturating_sub(confirmed).max(0));
    }
}

// === impl AdminRuntime ===

impl AdminRuntime {
    fn start() -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("postern-admin".into()).spawn(move || {
            // Reading and hashing a publication must not take a core from a check that waits for one. What this
            // thread starts for work that blocks inherits it; a probe needs microseconds and gets them all the same.
            if let Err(error) = rustix::process::nice(BEHIND_CHECKS) {
                tracing::debug!(%error, "the admin thread runs at the priority of the checks");
            }
            // An error means that the other end is gone, which is the same order.
            let _either = runtime.block_on(stopped);
            // A compilation that is under way is not worth waiting for.
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Runs a future there and waits for it here.
    async fn run<T: Send + 'static, E: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, RunError>
    where
        RunError: From<E>,
    {
        match self.handle.spawn(future).await {
            Ok(outcome) => outcome.map_err(RunError::from),
            Err(error) => Err(RunError::Stopped { task: "admin runtime", reason: error.to_string() }),
        }
    }
}

impl Drop for AdminRuntime {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _gone = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

// === ends ===

impl End {
    fn stopped(task: &'static str) -> Self {
        Self::Stopped { task, reason: "it ended".to_owned() }
    }
}

impl RunError {
    /// On standard error, in the form of the log: whoever reads JSON reads nothing else.
    fn tell(&self, format: LogFormat) {
        match (self, format) {
            (Self::Policy(refused), LogFormat::Text) => cli::print_refused(refused),
            (Self::Candidate(refused), LogFormat::Text) => {
                cli::print_refused(refused);
                cli::print_error(self);
            }
            (error, LogFormat::Text) => cli::print_error(error),
            (error, LogFormat::Json) => {
                if let Self::Policy(refused) | Self::Candidate(refused) = error {
                    for problem in &refused.problems {
                        tracing::error!("{problem}");
                    }
                }
                tracing::error!("{error}");
            }
        }
    }

    fn from_end(end: Result<End, tokio::task::JoinError>) -> Self {
        match end {
            Ok(End::Policy(refused)) => Self::Policy(refused),
            Ok(End::Stopped { task, reason }) => Self::Stopped { task, reason },
            Err(error) => Self::Stopped { task: "server", reason: error.to_string() },
        }
    }
}
