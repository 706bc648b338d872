//! What leaves the process for operators: logs on standard error and, where the standard `OTEL_…` variables name a
//! receiver, spans, metrics and log records over OTLP. A leaf: imports nothing of the crate.
//!
//! ```text
//! calls ───── OpenTelemetry API, made at their end ──┐
//! updater … ─ tracing, bridged by target ────────────┴─▶ provider ─▶ queue ─▶ exporter ─▶ receiver
//! metrics ─── encoded every interval ──────────────────────────────────────▶ push ─────▶ receiver
//! records ─── whoever has log records brings a thread for them ────────────▶ logs ─────▶ receiver
//! ```
//!
//! Spans of calls are made with the OpenTelemetry API itself, not through `tracing`: a span of the bridge costs more
//! than a decision even when the sampler drops it. `tracing` is for logs and for what is slow anyway.

pub mod logs;
pub mod names;
pub mod otlp;
pub mod sampling;
pub mod send;
pub mod settings;
pub mod spans;

use std::env;
use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use logs::LogSender;
use otlp::{Problems, Target};
use sampling::{Keep, Sampling};
use send::Sender;
use settings::{MetricSettings, Propagators, Settings};
use spans::{Exporter, SpanCounts, SpanQueue};

/// The target of `tracing` spans that are exported: of the updater, the admin endpoint and the commands that publish,
/// and no others.
pub const BRIDGED: &str = "postern::bridged";

/// What the last push of metrics gets at least.
const LAST_PUSH: Duration = Duration::from_secs(1);

/// How logs look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What spans say, beyond what the `OTEL_…` variables know of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TraceOptions {
    /// What is kept whatever the sampler says.
    pub keep: Keep,
    /// How principals are told.
    pub principals: Principals,
    /// The keys of baggage that become attributes.
    pub baggage: Vec<String>,
    /// Whether agents' checks also carry the draft names of OpenTelemetry.
    pub gen_ai: bool,
}

/// How principals are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Principals {
    /// SHA-256 of the id in its canonical form: one principal can be followed, and found by who knows it.
    #[default]
    Hashed,
    /// As it came.
    Plain,
    /// Not at all.
    None,
}

/// What is exported, and where to. Made before anything runs; sends when it is started.
#[derive(Debug)]
pub struct Telemetry {
    settings: Settings,
    spans: Option<(SdkTracerProvider, SpanQueue)>,
}

/// What makes the spans of calls.
#[derive(Clone, Debug)]
pub struct Traces {
    /// Makes them.
    pub tracer: SdkTracer,
    /// Which.
    pub sampling: Sampling,
    /// What is read of callers.
    pub propagators: Propagators,
    /// Events of one span at most.
    pub events: usize,
}

/// The ways to the receivers.
#[derive(Debug, Default)]
pub struct Senders {
    traces: Option<Sender>,
    metrics: Option<Sender>,
    /// Of log records; `None` where no setting asks for them.
    pub logs: Option<LogSender>,
}

/// What sends. Shut it down, or the last spans and numbers are lost.
#[derive(Debug)]
pub struct Running {
    exporter: Option<Exporter>,
    pusher: Option<Pusher>,
}

#[derive(Debug)]
struct Pusher {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Encodes all metrics as they are now.
pub type EncodeMetrics = Arc<dyn Fn(&Resource, &MetricSettings) -> Bytes + Send + Sync>;

/// Told how each push of metrics ended.
pub type Pushed = Arc<dyn Fn(bool) + Send + Sync>;

// === impl LogFormat ===

impl FromStr for LogFormat {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(()),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl FromStr for Principals {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "hashed" => Ok(Self::Hashed),
            "plain" => Ok(Self::Plain),
            "none" => Ok(Self::None),
            _ => Err(()),
        }
    }
}

/// Whether a text is a filter for logs: a level, or directives such as `info,postern=debug`.
pub fn is_log_filter(text: &str) -> bool {
    EnvFilter::try_new(text).is_ok()
}

/// Sends logs to standard error from now on, colours only on a terminal, and the spans of the updater to where spans
/// go. A second call changes nothing.
pub fn init_logs(format: LogFormat, filter: &str, telemetry: Option<&Telemetry>) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt::layer().with_ansi(ansi).with_writer(io::stderr);
    let lines = match format {
        LogFormat::Text => builder.with_target(false).boxed(),
        LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    };
    let traces = telemetry.and_then(Telemetry::traces).map(bridge);
    // An error means that a subscriber is there already: a test's, or an embedder's.
    let _already_set = tracing_subscriber::registry().with(traces).with(lines.with_filter(filter)).try_init();
}

/// From `tracing` to where spans go.
fn bridge<S>(traces: Traces) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    tracing_opentelemetry::layer()
        .with_tracer(traces.tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_context_activation(false)
        // By layer: a filter for all of them would silence the logs with it.
        .with_filter(Targets::new().with_target(BRIDGED, Level::INFO))
}

// === impl Telemetry ===

impl Telemetry {
    /// What the `OTEL_…` variables ask for, and log records where a setting asks for them.
    ///
    /// # Errors
    ///
    /// Every variable that cannot be used.
    pub fn from_env(log_records: bool) -> Result<Self, Problems> {
        Settings::from_env(log_records).map(Self::new)
    }

    /// As the settings say.
    pub fn new(settings: Settings) -> Self {
        let spans = settings.traces.as_ref().map(|traces| {
            let queue = SpanQueue::new(traces.batch);
            let provider = SdkTracerProvider::builder()
                .with_sampler(traces.sampling)
                .with_resource(settings.resource.clone())
                .with_span_processor(queue.clone())
                .build();
            (provider, queue)
        });
        Self { settings, spans }
    }

    /// What makes spans; `None` where nobody receives them.
    pub fn traces(&self) -> Option<Traces> {
        let (provider, _) = self.spans.as_ref()?;
        let settings = self.settings.traces.as_ref()?;
        Some(Traces {
            tracer: provider.tracer(names::INSTRUMENTATION),
            sampling: settings.sampling,
            propagators: settings.propagators,
            events: settings.batch.events,
        })
    }

    /// What became of all spans.
    pub fn span_counts(&self) -> Option<Arc<SpanCounts>> {
        self.spans.as_ref().map(|(_, queue)| queue.counts())
    }

    /// What is sent where, for the log.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        let Settings { traces, metrics, logs, .. } = &self.settings;
        let traces = traces.as_ref().map(|traces| &traces.target);
        let metrics = metrics.as_ref().map(|metrics| &metrics.target);
        traces.into_iter().chain(metrics).chain(logs.as_ref().map(|logs| &logs.target))
    }

    /// Makes the connections, which live on a runtime that must not be the one that answers requests.
    ///
    /// # Errors
    ///
    /// Certificates or endpoints of which no connection can be made.
    pub fn connect(&self, on: &Handle) -> Result<Senders, Problems> {
        let _context = on.enter();
        let mut problems = Vec::new();
        let mut sender = |target: &Target| Sender::new(target).map_err(|problem| problems.push(problem)).ok();
        let Settings { resource, traces, metrics, logs } = &self.settings;
        let senders = Senders {
            traces: traces.as_ref().and_then(|traces| sender(&traces.target)),
            metrics: metrics.as_ref().and_then(|metrics| sender(&metrics.target)),
            logs: logs.as_ref().and_then(|logs| {
                Some(LogSender::new(sender(&logs.target)?, logs.clone(), resource, on.clone()))
            }),
        };
        problems.dedup();
        if problems.is_empty() { Ok(senders) } else { Err(Problems(problems)) }
    }

    /// Sends spans and metrics from here on, on the runtime of the connections.
    pub fn start(&self, senders: Senders, on: &Handle, encode: EncodeMetrics, pushed: Pushed) -> Running {
        let Settings { resource, traces, metrics, .. } = &self.settings;
        let exporter = match (&self.spans, traces, senders.traces) {
            (Some((_, queue)), Some(traces), Some(sender)) => {
                Some(queue.export(sender, resource, traces.batch, on))
            }
            _ => None,
        };
        let pusher = metrics.clone().zip(senders.metrics).map(|(metrics, sender)| {
            let (stop, stopped) = oneshot::channel();
            let task = on.spawn(push(sender, resource.clone(), metrics, encode, pushed, stopped));
            Pusher { stop, task }
        });
        Running { exporter, pusher }
    }

    /// Sends spans alone, and no logs: for a command that says what it has to say itself, and ends. `None` where nobody
    /// receives spans.
    ///
    /// # Errors
    ///
    /// As [`Telemetry::connect`].
    pub fn start_spans(&self, on: &Handle) -> Result<Option<Running>, Problems> {
        let (Some(spans), Some((_, queue)), Some(traces)) =
            (&self.settings.traces, &self.spans, self.traces())
        else {
            return Ok(None);
        };
        let _context = on.enter();
        let sender = Sender::new(&spans.target).map_err(|problem| Problems(vec![problem]))?;
        let exporter = queue.export(sender, &self.settings.resource, spans.batch, on);
        let _already_set = tracing_subscriber::registry().with(bridge(traces)).try_init();
        Ok(Some(Running { exporter: Some(exporter), pusher: None }))
    }
}

impl Running {
    /// Sends what is left, for so long.
    pub async fn shutdown(self, within: Duration) {
        // The spans first: the last numbers tell what became of them.
        let deadline = tokio::time::Instant::now() + within;
        if let Some(exporter) = self.exporter {
            exporter.shutdown(within).await;
        }
        if let Some(Pusher { stop, mut task }) = self.pusher {
            // An error means that it has ended, which is the same.
            let _ended = stop.send(());
            // However long the spans took, the last numbers get an attempt.
            let deadline = deadline.max(tokio::time::Instant::now() + LAST_PUSH);
            if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
                task.abort();
                tracing::warn!("the last metrics could not be sent");
            }
        }
    }
}

/// Pushes every interval, and once more at the end.
async fn push(
    sender: Sender,
    resource: Resource,
    settings: MetricSettings,
    encode: EncodeMetrics,
    pushed: Pushed,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut failing = false;
    let mut last = false;
    while !last {
        tokio::select! {
            () = tokio::time::sleep(settings.interval) => {}
            _ = &mut stopped => last = true,
        }
        let outcome = sender.deliver(encode(&resource, &settings), settings.timeout).await;
        pushed(outcome.is_ok());
        let was_failing = std::mem::replace(&mut failing, outcome.is_err());
        match outcome {
            Ok(taken) if taken.rejected > 0 => {
                tracing::warn!(
                    rejected = taken.rejected,
                    reason = taken.message,
                    "the receiver refuses metrics"
                );
            }
            Ok(_) if was_failing => tracing::info!("metrics are sent again"),
            Ok(_) => {}
            Err(error) if !was_failing => tracing::warn!(%error, "metrics cannot be sent"),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for good in ["info", "warn,postern=debug", "off"] {
            assert!(is_log_filter(good), "{good}");
        }
        assert!(!is_log_filter("postern=loud"));
    }
}
