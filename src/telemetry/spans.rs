//! Spans on their way: a bounded queue without locks, and a task beside the requests that sends what is in it.
//!
//! ```text
//! a call ends ─▶ SpanQueue ─ full? lost, counted ─▶ Exporter (admin runtime) ─▶ receiver
//! ```
//!
//! Every span that enters ends in exactly one number: taken by the receiver, or lost by a reason. The processor of
//! the SDK counts only what does not fit into its queue, and tells it at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;
use opentelemetry::Context;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::send::Sender;
use super::settings::BatchSettings;

/// Why a span never arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// More spans ended than were sent.
    QueueFull,
    /// The receiver does not want it.
    Refused,
    /// The receiver could not be reached, or did not answer in time.
    Unreachable,
    /// The process ended first.
    Shutdown,
}

/// What became of all spans.
#[derive(Debug, Default)]
pub struct SpanCounts {
    exported: AtomicU64,
    lost: [AtomicU64; Lost::ALL.len()],
}

/// Where spans end up. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SpanQueue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    spans: ArrayQueue<SpanData>,
    batch: usize,
    /// A batch is there, or the end.
    wake: Notify,
    /// Somebody has said so already.
    asked: AtomicBool,
    closed: AtomicBool,
    counts: Arc<SpanCounts>,
    /// Taken from the queue and not yet counted.
    in_flight: AtomicU64,
}

/// The task that sends.
#[derive(Debug)]
pub struct Exporter {
    queue: SpanQueue,
    task: JoinHandle<()>,
}

// === impls ===

impl Lost {
    /// All reasons.
    pub const ALL: [Self; 4] = [Self::QueueFull, Self::Refused, Self::Unreachable, Self::Shutdown];

    /// The word in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Shutdown => "shutdown",
        }
    }
}

impl SpanCounts {
    /// Spans that the receiver has taken.
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// Spans that never arrived.
    pub fn all_lost(&self) -> u64 {
        Lost::ALL.iter().map(|reason| self.lost(*reason)).sum()
    }

    /// Spans that were lost for a reason.
    pub fn lost(&self, reason: Lost) -> u64 {
        self.lost.get(reason as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    fn add_lost(&self, reason: Lost, spans: u64) {
        if let Some(count) = self.lost.get(reason as usize) {
            count.fetch_add(spans, Ordering::Relaxed);
        }
    }
}

impl SpanQueue {
    /// An empty queue.
    pub fn new(settings: BatchSettings) -> Self {
        Self(Arc::new(Shared {
            spans: ArrayQueue::new(settings.queue),
            batch: settings.batch,
            wake: Notify::new(),
            asked: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            counts: Arc::default(),
            in_flight: AtomicU64::new(0),
        }))
    }

    /// What became of all spans.
    pub fn counts(&self) -> Arc<SpanCounts> {
        Arc::clone(&self.0.counts)
    }

    /// Sends from a runtime, which must not be the one that answers requests.
    pub fn export(
        &self,
        sender: Sender,
        resource: &Resource,
        settings: BatchSettings,
        on: &Handle,
    ) -> Exporter {
        let queue = self.clone();
        let resource = ResourceAttributesWithSchema::from(resource);
        let task = on.spawn(async move { queue.run(sender, resource, settings).await });
        Exporter { queue: self.clone(), task }
    }

    async fn run(self, sender: Sender, resource: ResourceAttributesWithSchema, settings: BatchSettings) {
        let shared = &self.0;
        let mut failing = false;
        loop {
            tokio::select! {
                () = shared.wake.notified() => {}
                () = tokio::time::sleep(settings.delay) => {}
            }
            // Before looking: a batch that is full from here on asks anew.
            shared.asked.store(false, Ordering::Release);
            loop {
                let batch: Vec<SpanData> =
                    std::iter::from_fn(|| shared.spans.pop()).take(settings.batch).collect();
                if batch.is_empty() {
                    break;
                }
                self.send(batch, &sender, &resource, settings.timeout, &mut failing).await;
            }
            if shared.closed.load(Ordering::Acquire) && shared.spans.is_empty() {
                return;
            }
        }
    }

    async fn send(
        &self,
        batch: Vec<SpanData>,
        sender: &Sender,
        resource: &ResourceAttributesWithSchema,
        within: Duration,
        failing: &mut bool,
    ) {
        let (shared, spans) = (&self.0, number(batch.len()));
        shared.in_flight.store(spans, Ordering::Release);
        let request =
            ExportTraceServiceRequest { resource_spans: group_spans_by_resource_and_scope(batch, resource) };
        let outcome = sender.deliver(Bytes::from(request.encode_to_vec()), within).await;
        let was_failing = std::mem::replace(failing, outcome.is_err());
        match outcome {
            Ok(taken) => {
                let rejected = taken.rejected.min(spans);
                shared.counts.exported.fetch_add(spans.saturating_sub(rejected), Ordering::Relaxed);
                shared.counts.add_lost(Lost::Refused, rejected);
                if rejected > 0 {
                    tracing::warn!(rejected, reason = taken.message, "the receiver refuses spans");
                }
                if was_failing {
                    tracing::info!("spans are sent again");
                }
            }
            Err(failed) => {
                let reason = if failed.refused { Lost::Refused } else { Lost::Unreachable };
                shared.counts.add_lost(reason, spans);
                if !was_failing {
                    tracing::warn!(error = %failed, spans, "spans cannot be sent and are lost");
                }
            }
        }
        shared.in_flight.store(0, Ordering::Release);
    }
}

impl Exporter {
    /// Sends what is left, for so long. What is left then is lost, counted and told.
    pub async fn shutdown(mut self, within: Duration) {
        let shared = &self.queue.0;
        shared.closed.store(true, Ordering::Release);
        shared.wake.notify_one();
        if tokio::time::timeout(within, &mut self.task).await.is_err() {
            self.task.abort();
            let _aborted = (&mut self.task).await;
        }
        // Nobody sends any more, so the numbers stand still.
        let waiting = std::iter::from_fn(|| shared.spans.pop()).count();
        let lost = shared.in_flight.swap(0, Ordering::AcqRel).saturating_add(number(waiting));
        shared.counts.add_lost(Lost::Shutdown, lost);
        if lost > 0 {
            tracing::warn!(spans = lost, "the last spans could not be sent");
        }
    }
}

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        let shared = &self.0;
        if !span.span_context.is_sampled() {
            return;
        }
        if shared.closed.load(Ordering::Acquire) {
            shared.counts.add_lost(Lost::Shutdown, 1);
            return;
        }
        if shared.spans.push(span).is_err() {
            shared.counts.add_lost(Lost::QueueFull, 1);
            return;
        }
        // Once for each batch: to wake another runtime costs more than a span.
        if shared.spans.len() >= shared.batch
            && !shared.asked.load(Ordering::Acquire)
            && !shared.asked.swap(true, Ordering::AcqRel)
        {
            shared.wake.notify_one();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.wake.notify_one();
        Ok(())
    }

    /// The exporter is shut down by its owner.
    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
