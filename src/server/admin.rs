//! The admin endpoint for probes and scrapers, on a runtime of its own so that it answers when the serving one
//! is busy: `/livez`, `/readyz`, `/metrics`. The readiness answer still goes through the serving runtime, for a
//! probe that does not touch what it vouches for is worth nothing.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tracing::Instrument;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::authorizer::Authorizer;
use crate::metrics::{self, Metrics};
use crate::readiness::{Readiness, Report, SERVING_RUNTIME};
use crate::telemetry::BRIDGED;
use crate::telemetry::names::{attribute, span};

/// A serving runtime that does not run a trivial task within this is not serving.
const ROUND_TRIP: Duration = Duration::from_secs(1);

/// What the endpoint tells about.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// What is pending.
    pub readiness: Readiness,
    /// What is counted.
    pub metrics: Metrics,
    /// Asked for the size of its cache.
    pub authorizer: Authorizer,
    /// The runtime that answers requests.
    pub serving: Handle,
    /// Whether a request that belongs to a trace becomes a span of it. Probes and scrapes belong to none.
    pub traced: bool,
}

/// The headers of a request, to whom the propagator asks for its own by name.
struct Headers<'h>(&'h HeaderMap);

/// Serves until dropped.
pub async fn serve(listener: TcpListener, state: AdminState) -> io::Result<()> {
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text));
    let router = if state.traced { router.route_layer(middleware::from_fn(traced)) } else { router };
    axum::serve(listener, router.with_state(state)).await
}

async fn traced(request: Request, next: Next) -> Response {
    let caller = TraceContextPropagator::new().extract(&Headers(request.headers()));
    if !caller.span().span_context().is_valid() {
        return next.run(request).await;
    }
    let (method, path) = (request.method().as_str(), request.uri().path());
    let span = tracing::info_span!(
        target: BRIDGED,
        parent: None,
        span::ADMIN,
        otel.name = format!("{method} {path}"),
        otel.kind = "server",
        otel.status_code = Empty,
        { attribute::HTTP_REQUEST_METHOD } = method,
        { attribute::HTTP_ROUTE } = path,
        { attribute::HTTP_RESPONSE_STATUS_CODE } = Empty,
    );
    // An error means that there is no span to have a parent.
    let _no_span = span.set_parent(caller);
    let response = next.run(request).instrument(span.clone()).await;
    span.record(attribute::HTTP_RESPONSE_STATUS_CODE, response.status().as_u16());
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    response
}

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

async fn readyz(State(state): State<AdminState>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let mut report = state.readiness.report();
    let active = state.authorizer.snapshot();
    report.freshness = active.get().map(|snapshot| snapshot.freshness(state.authorizer.now()).name());
    drop(active);
    let served = tokio::time::timeout(ROUND_TRIP, state.serving.spawn(async {})).await;
    if !matches!(served, Ok(Ok(()))) {
        report.ready = false;
        report.pending.push(SERVING_RUNTIME);
    }
    report.judge();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let json = query.is_some_and(|query| query.split('&').any(|part| part == "format=json"))
        || headers
            .get(ACCEPT)
            .and_then(|accept| accept.to_str().ok())
            .is_some_and(|accept| accept.contains("application/json"));
    if json {
        return match serde_json::to_string(&report) {
            Ok(body) => (status, [(CONTENT_TYPE, "application/json")], body + "\n").into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        };
    }
    (status, text(&report)).into_response()
}

fn text(report: &Report) -> String {
    let mut text = String::from(if report.ready { "ready\n" } else { "not ready\n" });
    // Writing to a string does not fail.
    if !report.pending.is_empty() {
        let _ok = writeln!(text, "pending: {}", report.pending.join(", "));
    }
    let _ok = writeln!(text, "state: {}", report.state.name());
    for reason in &report.reasons {
        let _ok = writeln!(text, "reason: {reason}");
    }
    if let Some(policy) = &report.policy {
        let _ok = writeln!(
            text,
            "policy: generation {}, serial {}, {}, active since {}{}",
            policy.generation,
            policy.serial,
            policy.digest,
            policy.activated_at,
            report.freshness.map(|freshness| format!(", {freshness}")).unwrap_or_default()
        );
    }
    if let Some(failure) = &report.last_reload_failure {
        let _ok = writeln!(text, "last reload, at {}, was refused and changed nothing:", failure.at);
        for problem in &failure.problems {
            let _ok = writeln!(text, "  {problem}");
        }
    }
    text
}

async fn metrics_text(State(state): State<AdminState>) -> Response {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], state.metrics.encode()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::{PolicyDetail, ReloadFailure};

    #[test]
    fn the_text_names_what_is_pending_and_what_failed() {
        let readiness = Readiness::new();
        let block = readiness.block("policy");
        assert_eq!(
            text(&readiness.report()),
            "not ready\npending: policy\nstate: starting\nreason: no policy has become active yet\n"
        );
        drop(block);
        readiness.policy_activated(PolicyDetail {
            generation: 1,
            serial: 0,
            digest: "sha256:00".into(),
            activated_at: jiff::Timestamp::UNIX_EPOCH,
        });
        readiness.reload_failed(ReloadFailure {
            at: jiff::Timestamp::UNIX_EPOCH,
            problems: vec!["a.json:1:1: bad".into()],
        });
        assert_eq!(
            text(&readiness.report()),
            "ready\nstate: degraded\nreason: what is newest was refused at 1970-01-01T00:00:00Z: a.json:1:1: bad\n\
             policy: generation 1, serial 0, sha256:00, active since 1970-01-01T00:00:00Z\nlast reload, at 1970-01-01T00:00:00Z, was \
             refused and changed nothing:\n  a.json:1:1: bad\n"
        );
    }
}
