//! Records as OTLP logs: a backlog of what is spelled out already, and a thread that sends it. The connection over gRPC
//! lives on the admin runtime, the one over HTTP on this thread; neither is near a check.

use std::collections::VecDeque;
use std::env;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::logs::{AnyValue, LogRecord, Logger, LoggerProvider, Severity};
use opentelemetry::{InstrumentationScope, Key, SpanId, TraceFlags, TraceId};
use opentelemetry_otlp::{ExporterBuildError, LogExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _, SdkLogRecord, SdkLogger, SdkLoggerProvider};
use tokio::runtime::Handle;

use crate::model::{Decision, Plane};

use super::entry::{Entry, Item};
use super::mask::{Field, Hasher, Masks, Verb};
use super::names::{self, attributes};
use super::queue::{Queue, signed};
use super::settings::Outcome;
use super::tally::{Kind, Loss, sink_index};

/// Records in one export.
const MOST_AT_ONCE: usize = 512;
/// More of them are waited for, this long.
const GATHER: Duration = Duration::from_millis(200);
/// What one record counts for beside its text.
const OVERHEAD: usize = 512;

/// One record on its way to the receiver.
#[derive(Debug)]
pub(super) struct Log {
    record: SdkLogRecord,
    pub(super) kind: Kind,
    pub(super) outcome: Outcome,
    bytes: i64,
    /// It counts in the queue: nobody else has taken it.
    charged: bool,
}

/// What waits for the receiver.
#[derive(Debug)]
pub(super) struct Backlog {
    held: Mutex<Held>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    logs: VecDeque<Log>,
    bytes: i64,
    /// Nothing comes any more; what is left may be sent until then.
    until: Option<Instant>,
    /// What is being sent.
    in_flight: Vec<(Kind, Outcome)>,
}

/// Makes log records.
#[derive(Debug)]
pub(super) struct Maker {
    logger: SdkLogger,
}

/// Sends them.
pub(super) struct Sender {
    exporter: LogExporter,
    scope: InstrumentationScope,
    /// Where an export over gRPC runs; `None`: over HTTP.
    on: Option<Handle>,
    failing: bool,
}

// === impl Maker ===

impl Maker {
    pub(super) fn new() -> Self {
        // A provider without processors: only it can make the records that exporters take.
        Self { logger: SdkLoggerProvider::builder().build().logger(names::SCOPE_NAME) }
    }

    /// The JSON of a record as the body, and beside it what backends filter by.
    pub(super) fn log(
        &self,
        (masks, hasher): (&Masks, &Hasher),
        entry: &Entry,
        item: &Item,
        kind: Kind,
        text: &[u8],
    ) -> Log {
        let mut record = self.logger.create_log_record();
        let outcome = Outcome::of(&item.outcome);
        record.set_event_name(match kind {
            Kind::Decision => names::event::DECISION,
            Kind::Difference => names::event::DIFFERENCE,
        });
        record.set_timestamp(SystemTime::from(item.at));
        record.set_observed_timestamp(SystemTime::now());
        record.set_severity_number(match outcome {
            Outcome::Undecided => Severity::Warn,
            _ => Severity::Info,
        });
        record.set_severity_text(if outcome == Outcome::Undecided { "WARN" } else { "INFO" });
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        record.set_body(AnyValue::from(String::from_utf8_lossy(text).into_owned()));
        if entry.trace.trace != 0 {
            let flags = if entry.trace.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
            let trace = TraceId::from_bytes(entry.trace.trace.to_be_bytes());
            record.set_trace_context(trace, SpanId::from_bytes(entry.trace.span.to_be_bytes()), Some(flags));
        }
        let mut add =
            |key: &'static str, value: AnyValue| record.add_attribute(Key::from_static_str(key), value);
        add(attributes::DECISION, outcome.name().into());
        match &item.outcome {
            Ok(answer) => {
                let decision = answer.evaluation.decision;
                add(attributes::REASON_CODE, decision.reason_code().name().into());
                if let Some(snapshot) = &entry.snapshot {
                    match decision {
                        Decision::Allowed(grant) => add(
                            attributes::ROLE_ASSIGNMENT_ID,
                            snapshot.policy.role_assignment_id(grant).into(),
                        ),
                        Decision::Denied(hit) => {
                            add(
                                attributes::DENY_ASSIGNMENT_ID,
                                snapshot.policy.deny_assignment_id(hit).into(),
                            );
                        }
                        Decision::NotAllowed(_) => {}
                    }
                }
            }
            Err(undecided) => add(attributes::UNDECIDED, undecided.code().into()),
        }
        if let Some(snapshot) = &entry.snapshot {
            add(attributes::POLICY_SERIAL, i64::try_from(snapshot.serial).unwrap_or(i64::MAX).into());
            add(attributes::POLICY_DIGEST, snapshot.policy.digest().to_owned().into());
        }
        if item.index.is_some() || entry.call.batch_items().is_none() {
            entry.call.ask(item.index.unwrap_or_default(), &mut |request, _| {
                let plane = match request.plane {
                    Plane::Control => "control",
                    Plane::Data => "data",
                };
                let fields = [
                    (attributes::ACTION, Field::Action, request.action.as_str()),
                    (attributes::PLANE, Field::DataAction, plane),
                    (attributes::SCOPE, Field::Scope, request.scope.as_str()),
                ];
                for (key, field, value) in fields {
                    match masks.field(field) {
                        Verb::Keep => add(key, value.to_owned().into()),
                        Verb::Hash => add(key, hasher.text(value).into()),
                        Verb::Drop => {}
                    }
                }
            });
        }
        Log { record, kind, outcome, bytes: signed(text.len().saturating_add(OVERHEAD)), charged: false }
    }
}

// === impl Backlog ===

impl Backlog {
    pub(super) fn new() -> Self {
        Self { held: Mutex::default(), more: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes logs over. `alone`: no other sink takes records, so that they go on counting in the queue and a receiver
    /// that is slow or gone fills it. Beside another sink they count for themselves: it must not lose records because
    /// this one does.
    pub(super) fn extend(&self, queue: &Queue, logs: &mut Vec<Log>, alone: bool) {
        if logs.is_empty() {
            return;
        }
        let (most, most_bytes) = queue.bound();
        let mut held = self.lock();
        for mut log in logs.drain(..) {
            log.charged = alone && log.kind == Kind::Decision;
            if log.charged {
                queue.hold(1, log.bytes);
            } else if signed(held.logs.len()) >= most || held.bytes >= most_bytes {
                queue.tally.lost(log.kind, Loss::Otlp, log.outcome);
                continue;
            }
            held.bytes = held.bytes.saturating_add(log.bytes);
            held.logs.push_back(log);
        }
        while alone && queue.sheds_oldest() && queue.is_over() {
            let Some(oldest) = held.logs.pop_front() else { break };
            held.bytes = held.bytes.saturating_sub(oldest.bytes);
            if oldest.charged {
                queue.release(1, oldest.bytes);
            }
            queue.tally.lost(oldest.kind, Loss::QueueFullOldest, oldest.outcome);
        }
        drop(held);
        self.more.notify_one();
    }

    /// Nothing comes any more.
    pub(super) fn close(&self, until: Instant) {
        self.lock().until = Some(until);
        self.more.notify_one();
    }

    /// The next ones to send; `None` at the end.
    fn next(&self) -> Option<Vec<Log>> {
        let mut held = self.lock();
        let mut gathered = false;
        loop {
            if let Some(until) = held.until
                && (held.logs.is_empty() || Instant::now() >= until)
            {
                return None;
            }
            let enough = gathered || held.until.is_some() || held.logs.len() >= MOST_AT_ONCE;
            if !held.logs.is_empty() && enough {
                let count = held.logs.len().min(MOST_AT_ONCE);
                let logs: Vec<Log> = held.logs.drain(..count).collect();
                let bytes: i64 = logs.iter().map(|log| log.bytes).sum();
                held.bytes = held.bytes.saturating_sub(bytes);
                held.in_flight = logs.iter().map(|log| (log.kind, log.outcome)).collect();
                return Some(logs);
            }
            if held.logs.is_empty() {
                held = self.more.wait(held).unwrap_or_else(PoisonError::into_inner);
            } else {
                held = self.more.wait_timeout(held, GATHER).unwrap_or_else(PoisonError::into_inner).0;
                gathered = true;
            }
        }
    }

    /// What was sent was taken, or was not.
    fn settle(&self, queue: &Queue, logs: &[Log], taken: bool) {
        // Whoever ended it meanwhile has counted them.
        let counted = self.lock().in_flight.drain(..).count() == 0;
        for log in logs {
            if log.charged {
                queue.release(1, log.bytes);
            }
            if counted {
            } else if taken {
                queue.tally.written(OTLP, log.kind);
            } else {
                queue.tally.lost(log.kind, Loss::Otlp, log.outcome);
            }
        }
    }

    /// Counts what is left as lost.
    pub(super) fn abandon(&self, queue: &Queue) {
        let mut held = self.lock();
        let waiting: Vec<_> = held.logs.drain(..).map(|log| (log.kind, log.outcome)).collect();
        let sending = held.in_flight.split_off(0);
        for (kind, outcome) in waiting.into_iter().chain(sending) {
            queue.tally.lost(kind, Loss::Shutdown, outcome);
        }
    }
}

const OTLP: usize = sink_index(&super::settings::SinkSettings::Otlp);

// === impl Sender ===

impl Sender {
    /// As the `OTEL_…` variables say: those of logs, then those of all signals.
    pub(super) fn from_env(on: &Handle) -> Result<Self, ExporterBuildError> {
        let protocol = variable("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL")
            .or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"))
            .unwrap_or_else(|| "grpc".to_owned());
        let (mut exporter, on) = match protocol.as_str() {
            "grpc" => {
                // Outside a runtime the builder panics; on the wrong one its connection would compete with checks.
                let _context = on.enter();
                let exporter = LogExporter::builder().with_tonic();
                (exporter.with_protocol(opentelemetry_otlp::Protocol::Grpc).build()?, Some(on.clone()))
            }
            "http/protobuf" => {
                let exporter = LogExporter::builder().with_http();
                (exporter.with_protocol(opentelemetry_otlp::Protocol::HttpBinary).build()?, None)
            }
            other => {
                return Err(ExporterBuildError::InvalidConfiguration(format!(
                    "`{other}` is no supported OTLP protocol; wanted `grpc` or `http/protobuf`"
                )));
            }
        };
        exporter.set_resource(&resource());
        let scope =
            InstrumentationScope::builder(names::SCOPE_NAME).with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { exporter, scope, on, failing: false })
    }

    /// Sends until the end.
    pub(super) fn run(mut self, backlog: &Backlog, queue: &Queue) {
        while let Some(logs) = backlog.next() {
            let outcome = self.send(&logs);
            backlog.settle(queue, &logs, outcome.is_ok());
            if outcome.is_err() != self.failing {
                self.failing = outcome.is_err();
                match outcome {
                    Err(error) => {
                        tracing::warn!(error, records = logs.len(), "records cannot be sent and are lost");
                    }
                    Ok(()) => tracing::info!("records are sent again"),
                }
            }
            queue.tally.tell();
        }
        let _ended = self.exporter.shutdown_with_timeout(Duration::ZERO);
    }

    /// One export, with the retries of the exporter: they end with its timeout (`OTEL_EXPORTER_OTLP_TIMEOUT`).
    fn send(&self, logs: &[Log]) -> Result<(), String> {
        let batch: Vec<_> = logs.iter().map(|log| (&log.record, &self.scope)).collect();
        let export = self.exporter.export(LogBatch::new(&batch));
        let outcome = match &self.on {
            Some(runtime) => runtime.block_on(export),
            None => block_on(export),
        };
        outcome.map_err(|error| error.to_string())
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn resource() -> Resource {
    let named = variable("OTEL_SERVICE_NAME").is_some()
        || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|all| all.contains("service.name="));
    let resource = Resource::builder();
    if named { resource.build() } else { resource.with_service_name("postern").build() }
}

/// The client for HTTP blocks and refuses to do so inside a runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
