//! The recorder's thread: takes entries from the queue, asks the candidate, masks and spells them out, and gives them
//! to the sinks. It runs behind the checks: what it does can wait for milliseconds, a check cannot.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::RecordMetrics;
use crate::telemetry::logs::LogSender;

use super::candidate::{Candidate, Comparison, compare};
use super::entry::{Entry, Item, Question};
use super::file::{LineFile, LineStream, Lines};
use super::mask::{Hasher, Masks};
use super::otlp::{Backlog, Exporter, Logs};
use super::queue::{Queue, Recorder, signed};
use super::render::{Common, Said, Steps, render};
use super::settings::{Outcome, RecordSettings, SinkSettings};
use super::tally::{Compared, Kind, Loss, Tally, sink_index};

/// Records are gathered this long, so that busy times cost few writes and few wake-ups.
const GATHER: Duration = Duration::from_millis(10);
/// The longest sleep; a push ends it.
const SLEEP: Duration = Duration::from_millis(500);
/// Lines and bytes that are written at once, about.
const MOST_LINES: usize = 1024;
const MOST_BYTES: usize = 256 << 10;
/// How much nicer the writer is than the checks, in steps of `nice(2)`: enough not to take a core from one that waits,
/// and not so much that the queue fills while all cores are busy.
const BEHIND_CHECKS: i32 = 5;

/// The recorder's threads. Shut them down, or what waits is lost.
#[derive(Debug)]
pub struct Records {
    recorder: Recorder,
    backlog: Option<Arc<Backlog>>,
    in_hand: Arc<InHand>,
    /// Why each of the sinks loses what it does not take, in the order of writing.
    sinks: Vec<Loss>,
    /// Closed when the last thread has ended.
    ended: mpsc::Receiver<()>,
}

/// Why records cannot be kept as configured.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file.
    #[error("records cannot be written to `{}`: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// OTLP was asked for, and there is no connection.
    #[error("records cannot be sent: there is no receiver of log records")]
    NoReceiver,
    /// A thread.
    #[error("the recorder cannot be started: {0}")]
    Thread(io::Error),
}

struct Writer {
    recorder: Recorder,
    masks: Masks,
    hasher: Hasher,
    candidate: Option<Candidate>,
    stream: Option<Watched<LineStream>>,
    file: Option<Watched<LineFile>>,
    otlp: Option<Arc<Backlog>>,
    common: Common,
    lines: Lines,
    logs: Logs,
    in_hand: Arc<InHand>,
}

/// What the writer has taken from the queue and not yet given to all sinks. Locked by the writer, and by the end, which
/// counts what a sink that hangs has not taken.
#[derive(Debug, Default)]
struct InHand(Mutex<Hand>);

#[derive(Debug, Default)]
struct Hand {
    /// What each line tells of.
    told: Vec<(Kind, Outcome)>,
    /// What is released when all sinks have had them.
    records: i64,
    bytes: i64,
    /// Sinks that have had them, in the order of writing.
    done: usize,
    /// All is counted, whatever the sinks do yet.
    ended: bool,
}

/// A sink whose failures are told when they begin and end.
struct Watched<S> {
    sink: S,
    failing: bool,
}

// === impl Records ===

impl Records {
    /// Starts what the settings ask for, with the way to the receiver of log records where they ask for OTLP.
    ///
    /// # Errors
    ///
    /// When a sink cannot be opened.
    pub fn start(
        settings: RecordSettings,
        candidate: Option<(Candidate, f64)>,
        metrics: &RecordMetrics,
        sender: Option<LogSender>,
    ) -> Result<Self, StartError> {
        let tally = Tally::bind(metrics, &settings.sinks, candidate.is_some());
        let share = candidate.as_ref().map_or(0.0, |(_, share)| *share);
        let bound = (settings.queue, settings.queue_bytes);
        let recorder = Recorder::new(bound, settings.when_full, settings.keep, share, tally, metrics.depth());
        let exporter = match (settings.over_otlp(), sender) {
            (true, Some(sender)) => Some(Exporter::new(sender)),
            (true, None) => return Err(StartError::NoReceiver),
            (false, _) => None,
        };
        let (mut stream, mut file) = (None, None);
        for sink in settings.sinks {
            match sink {
                SinkSettings::Stdout => stream = Some(Watched::new(LineStream::default())),
                SinkSettings::File(settings) => {
                    let path = settings.path.clone();
                    let opened =
                        LineFile::start(settings).map_err(|source| StartError::File { path, source })?;
                    file = Some(Watched::new(opened));
                }
                SinkSettings::Otlp => {}
            }
        }
        let (alive, ended) = mpsc::channel::<()>();
        let alone = stream.is_none() && file.is_none();
        let in_hand = Arc::new(InHand::default());
        let sinks = [
            stream.is_some().then_some(Loss::Stdout),
            file.is_some().then_some(Loss::File),
            exporter.is_some().then_some(Loss::Otlp),
        ];
        let sinks = sinks.into_iter().flatten().collect();
        let backlog = exporter.is_some().then(|| Arc::new(Backlog::new(alone)));
        let writer = Writer {
            recorder: recorder.clone(),
            masks: settings.masks,
            hasher: settings.hasher,
            candidate: candidate.map(|(candidate, _)| candidate),
            stream,
            file,
            otlp: backlog.clone(),
            common: Common::default(),
            lines: Lines::default(),
            logs: Logs::default(),
            in_hand: Arc::clone(&in_hand),
        };
        let own = alive.clone();
        spawn("postern-records", move || {
            let _alive = own;
            writer.run();
        })?;
        if let (Some(exporter), Some(backlog)) = (exporter, backlog.clone()) {
            let recorder = recorder.clone();
            spawn("postern-otlp", move || {
                let _alive = alive;
                exporter.run(&backlog, &recorder.0);
            })?;
        }
        Ok(Self { recorder, backlog, in_hand, sinks, ended })
    }

    /// Where calls leave their records.
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Writes and sends what waits, within a time; what is left then is lost and counted. Blocks.
    pub fn shutdown(self, within: Duration) {
        let queue = &*self.recorder.0;
        let until = Instant::now() + within;
        queue.close();
        let writer_done = Instant::now() + within / 2;
        // The writer closes the backlog when it has written the last record; a writer that hangs must not keep the
        // other thread from sending.
        let first = self.ended.recv_timeout(writer_done.saturating_duration_since(Instant::now()));
        if first == Err(RecvTimeoutError::Timeout) {
            if let Some(backlog) = &self.backlog {
                backlog.close(until);
            }
            let rest = until.saturating_duration_since(Instant::now());
            let _either = self.ended.recv_timeout(rest);
        }
        self.in_hand.abandon(queue, &self.sinks);
        while let Some(entry) = queue.pop() {
            queue.shed(&entry, Loss::Shutdown);
        }
        if let Some(backlog) = &self.backlog {
            backlog.abandon(queue);
        }
        queue.tally.tell_all();
        let (written, lost) = queue.tally.totals();
        tracing::info!(written, lost, "records ended");
    }
}

impl Drop for Records {
    /// A process that ends for another reason has nobody to wait.
    fn drop(&mut self) {
        self.recorder.0.close();
        if let Some(backlog) = &self.backlog {
            backlog.close(Instant::now());
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    let work = move || {
        if let Err(error) = rustix::process::nice(BEHIND_CHECKS) {
            tracing::debug!(%error, "the recorder runs at the priority of the checks");
        }
        work();
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map(drop).map_err(StartError::Thread)
}

// === impl Writer ===

impl Writer {
    fn run(mut self) {
        let recorder = self.recorder.clone();
        let queue = &*recorder.0;
        let in_hand = Arc::clone(&self.in_hand);
        queue.attach_writer();
        loop {
            // Looked at before the queue: what came before the end is written.
            let closed = queue.is_closed();
            let mut busy = false;
            while self.take(queue, &in_hand) {
                busy = true;
            }
            self.flush(queue, &in_hand);
            queue.tally.tell();
            if closed && queue.is_empty() {
                break;
            }
            if busy && !closed {
                std::thread::park_timeout(GATHER);
            } else {
                queue.sleep(SLEEP);
            }
        }
        if let Some(file) = &self.file {
            file.sink.sync();
        }
        if let Some(backlog) = &self.otlp {
            backlog.close(Instant::now() + LAST_EXPORTS);
        }
    }

    /// Spells the next entry out; `false` where there is none.
    fn take(&mut self, queue: &Queue, in_hand: &InHand) -> bool {
        let over = |writer: &Self| queue.sheds_oldest() && queue.is_over() && !writer.alone();
        if over(self) {
            // What is spelled out already is older and nearly done.
            self.flush(queue, in_hand);
        }
        // Locked from the queue to the hand, so that the end finds every entry in one of them.
        let mut hand = in_hand.lock();
        if hand.ended {
            return false;
        }
        let Some(entry) = queue.pop() else { return false };
        if over(self) {
            queue.shed(&entry, Loss::QueueFullOldest);
            return true;
        }
        let question = entry.call.read();
        for item in &entry.items {
            let asked = (&entry, &*question);
            if item.kept {
                self.spell(&mut hand, asked, item, None);
            }
            if item.compared {
                self.compare(queue, &mut hand, asked, item);
            }
        }
        drop(question);
        hand.records = hand.records.saturating_add(signed(entry.items.len()));
        hand.bytes = hand.bytes.saturating_add(signed(entry.bytes));
        let full = hand.told.len() >= MOST_LINES || self.lines.text.len() >= MOST_BYTES;
        drop(hand);
        // The policy that decided is let go here.
        drop(entry);
        if full {
            self.flush(queue, in_hand);
        }
        true
    }

    /// Whether records go over OTLP only.
    fn alone(&self) -> bool {
        self.stream.is_none() && self.file.is_none()
    }

    fn compare(&mut self, queue: &Queue, hand: &mut Hand, asked: (&Entry, &dyn Question), item: &Item) {
        let Some(candidate) = self.candidate.take() else { return };
        if let Some(outcome) = candidate.ask(asked.1, item) {
            let steps = item.outcome.as_ref().map(|answer| Steps(&answer.steps).to_string());
            let whose = item.outcome.as_ref().ok().and_then(|answer| answer.executed_as);
            let live = (
                Outcome::of(&item.outcome),
                whose.map(|whose| whose.name()),
                steps.as_deref().unwrap_or_default(),
            );
            let compared = match (compare(live, &outcome), &outcome) {
                (Comparison::Same, _) => Compared::Same,
                (Comparison::Different, Ok(_)) => Compared::Different,
                (Comparison::Different, Err(_)) => Compared::Undecided,
            };
            queue.tally.candidate(compared);
            if compared != Compared::Same {
                let said = Said { outcome: &outcome, snapshot: &candidate.snapshot };
                self.spell(hand, asked, item, Some(&said));
            }
        } else {
            queue.tally.candidate(Compared::Lost);
        }
        self.candidate = Some(candidate);
    }

    fn spell(
        &mut self,
        hand: &mut Hand,
        asked: (&Entry, &dyn Question),
        item: &Item,
        said: Option<&Said<'_>>,
    ) {
        let kind = if said.is_some() { Kind::Difference } else { Kind::Decision };
        let begin = self.lines.text.len();
        let shown = (&self.masks, &self.hasher);
        render(shown, &mut self.common, asked, item, said, &mut self.lines.text);
        if self.otlp.is_some() {
            let text = self.lines.text.get(begin..).unwrap_or_default();
            self.logs.push(shown, asked, item, kind, text);
        }
        self.lines.ends.push(self.lines.text.len());
        hand.told.push((kind, Outcome::of(&item.outcome)));
    }

    fn flush(&mut self, queue: &Queue, in_hand: &InHand) {
        if in_hand.lock().records == 0 {
            return;
        }
        if let Some(stream) = &mut self.stream {
            let (taken, outcome) = stream.sink.write(&self.lines);
            stream.tell("standard output", outcome);
            in_hand.count(queue, taken, (STDOUT, Loss::Stdout));
        }
        if let Some(file) = &mut self.file {
            let (taken, outcome) = file.sink.write(&self.lines);
            file.tell("the file", outcome);
            in_hand.count(queue, taken, (FILE, Loss::File));
        }
        // Locked from the hand to the backlog, for the same reason.
        let mut hand = in_hand.lock();
        if let Some(backlog) = &self.otlp
            && !hand.ended
        {
            backlog.extend(queue, &mut self.logs);
        }
        hand.release(queue);
        hand.told.clear();
        hand.done = 0;
        drop(hand);
        self.lines.clear();
        self.logs.clear();
    }
}

/// What sending the last records may take; the shutdown waits for less.
const LAST_EXPORTS: Duration = Duration::from_secs(60);
const STDOUT: usize = sink_index(&SinkSettings::Stdout);
const FILE: usize = 1;

// === impl InHand ===

impl InHand {
    fn lock(&self) -> MutexGuard<'_, Hand> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lines that a sink has taken are written, the others lost.
    fn count(&self, queue: &Queue, taken: usize, (sink, loss): (usize, Loss)) {
        let mut hand = self.lock();
        if hand.ended {
            return;
        }
        hand.done = hand.done.saturating_add(1);
        for (position, (kind, outcome)) in hand.told.iter().enumerate() {
            if position < taken {
                queue.tally.written(sink, *kind);
            } else {
                queue.tally.lost(*kind, loss, *outcome);
            }
        }
    }

    /// Counts what is left as lost. Nothing is taken from the queue any more.
    fn abandon(&self, queue: &Queue, sinks: &[Loss]) {
        let mut hand = self.lock();
        hand.ended = true;
        hand.release(queue);
        // Where a sink has had them, it is the loss of those that have not.
        let left = sinks.get(hand.done..).unwrap_or_default();
        let losses = if hand.done == 0 { &[Loss::Shutdown] } else { left };
        for (kind, outcome) in hand.told.drain(..) {
            losses.iter().for_each(|loss| queue.tally.lost(kind, *loss, outcome));
        }
    }
}

impl Hand {
    fn release(&mut self, queue: &Queue) {
        let (records, bytes) = (std::mem::take(&mut self.records), std::mem::take(&mut self.bytes));
        if records > 0 {
            queue.release(records, bytes);
        }
    }
}

impl<S> Watched<S> {
    const fn new(sink: S) -> Self {
        Self { sink, failing: false }
    }

    fn tell(&mut self, name: &str, outcome: io::Result<()>) {
        if outcome.is_err() == self.failing {
            return;
        }
        self.failing = outcome.is_err();
        match outcome {
            Err(error) => tracing::warn!(%error, "{name} takes no records; they are lost"),
            Ok(()) => tracing::info!("{name} takes records again"),
        }
    }
}
