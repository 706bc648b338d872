//! Records as OTLP logs: a backlog of what is spelled out already, and a thread that sends it, by the one way that
//! all signals take. The connection lives on the admin runtime; neither is near a check.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use opentelemetry_proto::tonic::logs::v1::SeverityNumber;

use crate::model::{Decision, Plane};
use crate::telemetry::logs::{LogEncoder, LogSender};
use crate::telemetry::send::{NotTaken, Taken};

use super::entry::{Entry, Item, Question};
use super::mask::{Field, Hasher, Masks, Verb};
use super::names::{self, attributes};
use super::queue::{Queue, signed};
use super::settings::{Outcome, SinkSettings};
use super::tally::{Kind, Loss, sink_index};

/// Bytes in one message, about: receivers of gRPC refuse more than 4 MiB unless they are told otherwise.
const MOST_BYTES: i64 = 2 << 20;
const OTLP: usize = sink_index(&SinkSettings::Otlp);

/// Records that are encoded together, each behind the other.
#[derive(Debug, Default)]
pub(super) struct Logs {
    encoder: LogEncoder,
    bytes: Vec<u8>,
    dues: Vec<Due>,
}

/// One record on its way to the receiver.
#[derive(Debug)]
struct Log {
    bytes: Bytes,
    due: Due,
}

/// What has to be counted of a record, however it ends.
#[derive(Clone, Copy, Debug)]
struct Due {
    kind: Kind,
    outcome: Outcome,
    /// Bytes of the record itself.
    length: usize,
    /// It counts in the queue: nobody else has taken it.
    charged: bool,
}

/// What waits for the receiver.
#[derive(Debug)]
pub(super) struct Backlog {
    /// No other sink takes records, so that they go on counting in the queue and a receiver that is slow or gone fills
    /// it. Beside another sink they count for themselves: it must not lose records because this one does.
    alone: bool,
    held: Mutex<Held>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Held {
    logs: VecDeque<Log>,
    bytes: i64,
    /// Nothing comes any more; what is left may be sent until then.
    until: Option<Instant>,
    /// What is being sent. Whoever takes it from here counts it.
    in_flight: Vec<Due>,
}

/// Sends it.
pub(super) struct Exporter {
    sender: LogSender,
    trouble: Trouble,
}

/// What was told last about the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Rejects,
    Fails,
}

// === impl Logs ===

impl Logs {
    /// The JSON of a record as the body, and beside it what backends filter by.
    pub(super) fn push(
        &mut self,
        (masks, hasher): (&Masks, &Hasher),
        (entry, question): (&Entry, &dyn Question),
        item: &Item,
        kind: Kind,
        text: &[u8],
    ) {
        let outcome = Outcome::of(&item.outcome);
        let log = &mut self.encoder;
        log.times(u64::try_from(item.at.as_nanosecond()).unwrap_or_default(), now());
        log.event(match kind {
            Kind::Decision => names::event::DECISION,
            Kind::Difference => names::event::DIFFERENCE,
        });
        let (severity, name) = match outcome {
            Outcome::Undecided => (SeverityNumber::Warn, "WARN"),
            _ => (SeverityNumber::Info, "INFO"),
        };
        log.severity(severity, name);
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        match std::str::from_utf8(text) {
            Ok(text) => log.body(text),
            Err(_) => log.body(&String::from_utf8_lossy(text)),
        }
        if entry.trace.trace != 0 {
            log.trace(entry.trace.trace, entry.trace.span, entry.trace.sampled);
        }
        log.text(attributes::DECISION, outcome.name());
        match &item.outcome {
            Ok(answer) => {
                let decision = answer.evaluation.decision;
                log.text(attributes::REASON_CODE, decision.reason_code().name());
                if let Some(snapshot) = &entry.snapshot {
                    let policy = &snapshot.policy;
                    match decision {
                        Decision::Allowed(grant) => {
                            log.text(attributes::ROLE_ASSIGNMENT_ID, &policy.role_assignment_id(grant));
                        }
                        Decision::Denied(hit) => {
                            log.text(attributes::DENY_ASSIGNMENT_ID, &policy.deny_assignment_id(hit));
                        }
                        Decision::NotAllowed(_) => {}
                    }
                }
            }
            Err(undecided) => log.text(attributes::UNDECIDED, undecided.code()),
        }
        if let Some(snapshot) = &entry.snapshot {
            log.number(attributes::POLICY_SERIAL, snapshot.serial);
            log.text(attributes::POLICY_DIGEST, snapshot.policy.digest());
        }
        if item.index.is_some() || entry.call.batch_items().is_none() {
            question.ask(item.index.unwrap_or_default(), &mut |request, _| {
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
                        Verb::Keep => log.text(key, value),
                        Verb::Hash => log.text(key, &hasher.text(value)),
                        Verb::Drop => {}
                    }
                }
            });
        }
        let length = log.end(&mut self.bytes);
        self.dues.push(Due { kind, outcome, length, charged: false });
    }

    /// Forgets them, but for the memory.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.dues.clear();
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or_default()
}

// === impl Backlog ===

impl Backlog {
    pub(super) fn new(alone: bool) -> Self {
        Self { alone, held: Mutex::default(), more: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes logs over.
    pub(super) fn extend(&self, queue: &Queue, logs: &mut Logs) {
        if logs.dues.is_empty() {
            return;
        }
        let (most, most_bytes) = queue.bound();
        // One piece of memory for all of them, given back with the last one.
        let mut rest = Bytes::copy_from_slice(&logs.bytes);
        let mut held = self.lock();
        for mut due in logs.dues.drain(..) {
            let bytes = rest.split_to(due.length.min(rest.len()));
            due.charged = self.alone && due.kind == Kind::Decision;
            if due.charged {
                queue.hold(1, due.bytes());
            } else if signed(held.logs.len()) >= most || held.bytes >= most_bytes {
                queue.tally.lost(due.kind, Loss::Otlp, due.outcome);
                continue;
            }
            held.bytes = held.bytes.saturating_add(due.bytes());
            held.logs.push_back(Log { bytes, due });
        }
        while self.alone && queue.sheds_oldest() && queue.is_over() {
            let Some(Log { due, .. }) = held.logs.pop_front() else { break };
            held.bytes = held.bytes.saturating_sub(due.bytes());
            due.release(queue);
            queue.tally.lost(due.kind, Loss::QueueFullOldest, due.outcome);
        }
        drop(held);
        self.more.notify_one();
    }

    /// Nothing comes any more.
    pub(super) fn close(&self, until: Instant) {
        self.lock().until = Some(until);
        self.more.notify_one();
    }

    /// The next ones to send, as many as wait or may be in one message; `None` at the end.
    fn next(&self, batch: usize, delay: Duration) -> Option<Vec<Bytes>> {
        let mut held = self.lock();
        let mut gathered = None;
        loop {
            let now = Instant::now();
            if let Some(until) = held.until
                && (held.logs.is_empty() || now >= until)
            {
                return None;
            }
            if held.logs.is_empty() {
                held = self.more.wait(held).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let enough = held.logs.len() >= batch || held.bytes >= MOST_BYTES;
            let gathered = *gathered.get_or_insert(now + delay);
            if enough || held.until.is_some() || now >= gathered {
                return Some(held.take(batch));
            }
            let wait = gathered.saturating_duration_since(now);
            held = self.more.wait_timeout(held, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How long may be sent yet.
    fn left(&self) -> Option<Duration> {
        self.lock().until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    /// Counts how a message ended.
    fn settle(&self, queue: &Queue, outcome: &Result<Taken, NotTaken>) {
        // Whoever ended it meanwhile has counted them.
        let dues = mem::take(&mut self.lock().in_flight);
        dues.iter().for_each(|due| due.release(queue));
        let (rejected, loss) = match outcome {
            Ok(taken) => (usize::try_from(taken.rejected).unwrap_or(usize::MAX), Loss::OtlpRefused),
            Err(NotTaken { refused: true, .. }) => (usize::MAX, Loss::OtlpRefused),
            Err(_) => (usize::MAX, Loss::Otlp),
        };
        let (written, lost) = dues.split_at_checked(dues.len().saturating_sub(rejected)).unwrap_or_default();
        written.iter().for_each(|due| queue.tally.written(OTLP, due.kind));
        // A receiver that takes a part says how many it rejects and not which.
        let first = dues.first().map(|due| due.outcome);
        let known = written.is_empty() || dues.iter().all(|due| Some(due.outcome) == first);
        for due in lost {
            if known {
                queue.tally.lost(due.kind, loss, due.outcome);
            } else {
                queue.tally.rejected(due.kind);
            }
        }
    }

    /// Counts what is left as lost.
    pub(super) fn abandon(&self, queue: &Queue) {
        let mut held = self.lock();
        let sending = mem::take(&mut held.in_flight);
        let waiting = held.logs.drain(..).map(|log| log.due);
        // Where another sink has it, it is this one's loss only.
        let loss = if self.alone { Loss::Shutdown } else { Loss::Otlp };
        for due in sending.into_iter().chain(waiting) {
            due.release(queue);
            queue.tally.lost(due.kind, loss, due.outcome);
        }
        held.bytes = 0;
    }
}

impl Held {
    fn take(&mut self, batch: usize) -> Vec<Bytes> {
        let mut records = Vec::with_capacity(batch.min(self.logs.len()));
        let mut taken = 0_i64;
        // One that is too large for a message is for the receiver to judge.
        while records.len() < batch && (records.is_empty() || taken < MOST_BYTES) {
            let Some(Log { bytes, due }) = self.logs.pop_front() else { break };
            taken = taken.saturating_add(due.bytes());
            records.push(bytes);
            self.in_flight.push(due);
        }
        self.bytes = self.bytes.saturating_sub(taken);
        records
    }
}

impl Due {
    /// What it counts for while it waits.
    fn bytes(&self) -> i64 {
        signed(self.length.saturating_add(size_of::<Log>()))
    }

    fn release(self, queue: &Queue) {
        if self.charged {
            queue.release(1, self.bytes());
        }
    }
}

// === impl Exporter ===

impl Exporter {
    pub(super) const fn new(sender: LogSender) -> Self {
        Self { sender, trouble: Trouble::None }
    }

    /// Sends until the end.
    pub(super) fn run(mut self, backlog: &Backlog, queue: &Queue) {
        let (batch, delay, timeout) =
            (self.sender.settings().batch, self.sender.settings().delay, self.sender.settings().timeout);
        while let Some(records) = backlog.next(batch, delay) {
            let count = records.len();
            let within = backlog.left().map_or(timeout, |left| left.min(timeout));
            // Without its runtime the process is at its end, and what was left is counted.
            let Some(outcome) = self.sender.deliver(&records, within) else { return };
            backlog.settle(queue, &outcome);
            self.tell(&outcome, count);
            queue.tally.tell();
        }
    }

    /// Once when it begins to go wrong, and once when it no longer does.
    fn tell(&mut self, outcome: &Result<Taken, NotTaken>, records: usize) {
        let trouble = match outcome {
            Ok(taken) if taken.rejected == 0 => Trouble::None,
            Ok(_) => Trouble::Rejects,
            Err(_) => Trouble::Fails,
        };
        if mem::replace(&mut self.trouble, trouble) == trouble {
            return;
        }
        match outcome {
            Ok(taken) if taken.rejected > 0 => {
                let Taken { rejected, message } = taken;
                tracing::warn!(rejected, reason = message, records, "the receiver refuses records");
            }
            Ok(_) => tracing::info!("records are sent again"),
            Err(error) => tracing::warn!(%error, records, "records cannot be sent and are lost"),
        }
    }
}
