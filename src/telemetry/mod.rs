//! What leaves the process for operators: logs on standard error and, when an OTLP endpoint is configured by the
//! standard `OTEL_…` variables, traces. A leaf: imports nothing of the crate.
//!
//! Spans are made with the OpenTelemetry API itself, not through `tracing`: a span of the bridge costs more than
//! a decision even when the sampler drops it. `tracing` is for logs.

pub mod otlp;

use std::env;
use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::Handle;
use tracing_subscriber::EnvFilter;

/// Names of span attributes: in one place, because dashboards are built on them.
pub mod attributes {
    /// `grpc`.
    pub const RPC_SYSTEM: &str = "rpc.system";
    /// The service of the call.
    pub const RPC_SERVICE: &str = "rpc.service";
    /// The method of the call.
    pub const RPC_METHOD: &str = "rpc.method";
    /// The numeric status of the answer.
    pub const RPC_GRPC_STATUS_CODE: &str = "rpc.grpc.status_code";
    /// `Allowed`, `NotAllowed` or `Denied`.
    pub const DECISION: &str = "postern.decision";
    /// The reason code.
    pub const REASON_CODE: &str = "postern.reason_code";
    /// The action that was asked for.
    pub const ACTION: &str = "postern.action";
    /// `control` or `data`.
    pub const PLANE: &str = "postern.plane";
    /// The scope that was asked about.
    pub const SCOPE: &str = "postern.scope";
    /// The caller's request id.
    pub const REQUEST_ID: &str = "postern.request_id";
    /// What granted.
    pub const ROLE_ASSIGNMENT_ID: &str = "postern.role_assignment.id";
    /// The role that granted.
    pub const ROLE_DEFINITION_ID: &str = "postern.role_definition.id";
    /// What denied.
    pub const DENY_ASSIGNMENT_ID: &str = "postern.deny_assignment.id";
    /// With whose rights an agent's action is done: `agent` or `user`.
    pub const EXECUTED_AS: &str = "postern.executed_as";
    /// Whether the decision came from the cache.
    pub const CACHED: &str = "postern.cached";
    /// Serial of the policy that decided.
    pub const POLICY_SERIAL: &str = "postern.policy.serial";
    /// Digest of the policy that decided.
    pub const POLICY_DIGEST: &str = "postern.policy.digest";
    /// Generation of the policy that decided.
    pub const POLICY_GENERATION: &str = "postern.policy.generation";
    /// Items of a batch.
    pub const BATCH_ITEMS: &str = "postern.batch.items";
    /// Position of an item in its batch.
    pub const BATCH_INDEX: &str = "postern.batch.index";
    /// Event: one item of a batch.
    pub const ITEM_EVENT: &str = "postern.batch.item";
    /// Why there was no decision.
    pub const UNDECIDED: &str = "postern.undecided";
}

/// How logs look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The road of spans to their receiver. Shut it down, or the last spans are lost.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    endpoint: String,
}

/// Why traces cannot be exported as configured.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// This build speaks OTLP in clear text only.
    #[error(
        "`{0}` wants TLS, which this build does not speak to a trace receiver; use a collector on `http://`"
    )]
    Tls(String),
    /// Another OTLP protocol.
    #[error("`{0}` is no supported OTLP protocol; wanted `grpc`")]
    Protocol(String),
    /// Anything else.
    #[error("the trace exporter cannot be built: {0}")]
    Exporter(#[from] ExporterBuildError),
}

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

/// Whether a text is a filter for logs: a level, or directives such as `info,postern=debug`.
pub fn is_log_filter(text: &str) -> bool {
    EnvFilter::try_new(text).is_ok()
}

/// Sends logs to standard error from now on: colours only on a terminal. A second call changes nothing.
pub fn init_logs(format: LogFormat, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let ansi = io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(io::stderr);
    // An error means that a subscriber is there already: a test's, or an embedder's.
    let _already_set = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

// === impl Traces ===

impl Traces {
    /// What the `OTEL_…` variables ask for; `None` where they ask for nothing. The exporter's connection lives
    /// on the given runtime, which must not be the one that serves requests.
    pub fn from_env(on: &Handle) -> Result<Option<Self>, TracesError> {
        if flag("OTEL_SDK_DISABLED") || variable("OTEL_TRACES_EXPORTER").is_some_and(|name| name == "none") {
            return Ok(None);
        }
        let endpoint = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            .or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let Some(endpoint) = endpoint else {
            return Ok(None);
        };
        let protocol = variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            .or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
        if let Some(protocol) = protocol.filter(|protocol| protocol != "grpc") {
            return Err(TracesError::Protocol(protocol));
        }
        if endpoint.starts_with("https:") {
            return Err(TracesError::Tls(endpoint));
        }
        // Outside a runtime the builder panics; on the wrong one its connection would compete with requests.
        let _context = on.enter();
        let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().build()?;
        let mut resource = Resource::builder();
        let named = variable("OTEL_SERVICE_NAME").is_some()
            || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|all| all.contains("service.name="));
        if !named {
            resource = resource.with_service_name("postern");
        }
        // The sampler is the SDK's own reading of `OTEL_TRACES_SAMPLER`; without one the caller's flag decides.
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(Watched { inner: exporter, failing: AtomicBool::new(false) })
            .with_resource(resource.build())
            .build();
        Ok(Some(Self { provider, endpoint }))
    }

    /// Makes spans.
    pub fn tracer(&self) -> SdkTracer {
        self.provider.tracer("postern")
    }

    /// Where spans go, for the log.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Sends what is left. Blocks: on a thread of a runtime it would starve its own export, so call it in
    /// `spawn_blocking`.
    pub fn shutdown(self, within: Duration) {
        if let Err(error) = self.provider.shutdown_with_timeout(within) {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn flag(name: &str) -> bool {
    variable(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Logs when exports begin to fail and when they work again: the SDK itself says nothing.
#[derive(Debug)]
struct Watched<E> {
    inner: E,
    failing: AtomicBool,
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let outcome = self.inner.export(batch).await;
        let failing = outcome.is_err();
        if failing != self.failing.swap(failing, Ordering::Relaxed) {
            match &outcome {
                Err(error) => tracing::warn!(%error, spans, "spans cannot be sent and are lost"),
                Ok(()) => tracing::info!("spans are sent again"),
            }
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
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
