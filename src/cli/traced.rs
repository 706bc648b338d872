//! A command that writes to a repository as a span, with its steps below it, where the `OTEL_…` variables say that spans
//! go somewhere. Part of the trace that `TRACEPARENT` names: what a pipeline publishes is then in the pipeline's trace.

use std::env;
use std::future::Future;
use std::time::Duration;

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tokio::runtime::Handle;
use tracing::field::Empty;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::repository::Publication;
use crate::telemetry::names::{attribute, span};
use crate::telemetry::{BRIDGED, Telemetry};

use super::repo::Failure;
use super::{Exit, print_error};

/// What the last spans get of a command's time.
const LAST_SPANS: Duration = Duration::from_secs(5);

/// What writes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Writes {
    Init,
    Publish,
    Refresh,
    Rollback,
    RotateKey,
}

/// The variables that carry a trace from one process to the one that it starts.
struct Environment {
    parent: Option<String>,
    state: Option<String>,
}

/// Runs a command on a runtime of its own.
pub(super) fn block_on(
    writes: Writes,
    repository: &str,
    what: impl Future<Output = Result<Exit, Failure>>,
) -> Result<Exit, Failure> {
    let telemetry = Telemetry::from_env(false).map_err(|error| Failure::failed(error.to_string()))?;
    super::repo::block_on(async {
        let Some(running) =
            telemetry.start_spans(&Handle::current()).map_err(|error| Failure::failed(error.to_string()))?
        else {
            return what.await;
        };
        let span = begin(writes, repository);
        if telemetry.traces().is_some_and(|traces| traces.propagators.trace_context) {
            let parent = TraceContextPropagator::new().extract(&Environment::of_process());
            // An error means that there is no span to have a parent.
            let _no_span = span.set_parent(parent);
        }
        let outcome = what.instrument(span.clone()).await;
        if let Err(failure) = &outcome {
            span.record(attribute::ERROR_TYPE, failure.code());
            span.record("otel.status_code", "ERROR");
        }
        drop(span);
        running.shutdown(LAST_SPANS).await;
        let lost = telemetry.span_counts().map_or(0, |counts| counts.all_lost());
        if lost > 0 {
            print_error(&format_args!("{lost} spans of this could not be sent"));
        }
        outcome
    })
}

/// Notes in the span of the command what is published now.
pub(super) fn published(publication: &Publication) {
    let span = Span::current();
    span.record(attribute::POLICY_SERIAL, publication.serial);
    span.record(attribute::POLICY_DIGEST, publication.policy_digest.as_str());
}

/// The step of reading the policy and making a bundle of it.
pub(super) fn compiling() -> Span {
    tracing::info_span!(target: BRIDGED, span::POLICY_COMPILE)
}

/// The step of reading and verifying what the repository holds.
pub(super) fn opening() -> Span {
    tracing::info_span!(target: BRIDGED, span::REPOSITORY_OPEN)
}

/// The step of signing and writing.
pub(super) fn writing() -> Span {
    tracing::info_span!(target: BRIDGED, span::REPOSITORY_WRITE)
}

fn begin(writes: Writes, repository: &str) -> Span {
    // The name of a span of `tracing` is fixed where it stands.
    macro_rules! named {
        ($name:expr) => {
            tracing::info_span!(
                target: BRIDGED,
                parent: None,
                $name,
                { attribute::POLICY_SOURCE } = repository,
                { attribute::POLICY_SERIAL } = Empty,
                { attribute::POLICY_DIGEST } = Empty,
                { attribute::ERROR_TYPE } = Empty,
                otel.status_code = Empty,
            )
        };
    }
    match writes {
        Writes::Init => named!(span::REPOSITORY_INIT),
        Writes::Publish => named!(span::POLICY_PUBLISH),
        Writes::Refresh => named!(span::REPOSITORY_REFRESH),
        Writes::Rollback => named!(span::REPOSITORY_ROLLBACK),
        Writes::RotateKey => named!(span::REPOSITORY_ROTATE_KEY),
    }
}

impl Environment {
    fn of_process() -> Self {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        Self { parent: variable("TRACEPARENT"), state: variable("TRACESTATE") }
    }
}

impl Extractor for Environment {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.parent.as_deref(),
            "tracestate" => self.state.as_deref(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        // The propagator asks for its headers by name.
        Vec::new()
    }
}
