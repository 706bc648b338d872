//! The run: threads with callers of their own, and one that collects what they count.
//!
//! Every thread has a runtime, connections and a tally to itself; they share the plan and a counter. Calls have numbers:
//! in a closed loop a caller takes the next one when it is free, in an open loop number n is due at n / rate, and callers
//! take them in order as they fall due. A caller that is free too late sends at once, and the latency runs from when the
//! call was due.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Endpoint;

use super::call::{Answers, Caller};
use super::clock::{Alarm, thread_cpu};
use super::plan::Plan;
use super::tally::{Ended, Tally};

/// How calls follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// A caller asks again when it has its answer.
    Closed,
    /// So many calls a second fall due, whatever becomes of them.
    Open(f64),
}

/// When it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After this time; warming up comes before it.
    Time(Duration),
    /// After so many calls; those of warming up do not count.
    Count(u64),
}

/// How to load.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the sidecar is.
    pub endpoint: Endpoint,
    /// Open or closed.
    pub mode: Mode,
    /// Connections, all threads together.
    pub connections: usize,
    /// Callers of each connection.
    pub in_flight: usize,
    /// Threads that call.
    pub threads: usize,
    /// How long calls are made before they count.
    pub warm_up: Duration,
    /// When it ends.
    pub until: Until,
    /// How long an answer is waited for.
    pub patience: Duration,
}

/// How it goes.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Since the first call that counts; `None` while warming up.
    pub elapsed: Option<Duration>,
    /// Calls that counted so far.
    pub calls: u64,
    /// Those without an answer, and wrong answers.
    pub bad: u64,
    /// Calls a second, in the last second or so.
    pub rate: f64,
    /// Of the same.
    pub p99: Duration,
}

/// Why there is nothing to tell.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Nobody was reached.
    #[error("{0}")]
    Unreachable(tonic::transport::Error),
    /// This machine.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It cannot be counted.
    #[error("cannot count: {0}")]
    Uncountable(String),
    /// A thread ended before its time.
    #[error("a thread of callers ended before its time")]
    Lost,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) total: Tally,
    pub(super) intervals: Vec<Interval>,
    pub(super) started: SystemTime,
    /// From the first call that counts until the last has ended.
    pub(super) elapsed: Duration,
    pub(super) interrupted: bool,
    /// Calls that were due and were never sent.
    pub(super) not_sent: u64,
    /// Processor time of the callers' threads, warming up included, and the calls that they made in it.
    pub(super) cpu: Duration,
    pub(super) made: u64,
    /// The share of the time that the busiest thread computed.
    pub(super) busy: f64,
}

/// One piece of the time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    /// Since the first call that counts.
    pub(super) from: Duration,
    pub(super) length: Duration,
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    pub(super) max: Duration,
}

/// What the threads share.
struct Shared {
    plan: Arc<Plan>,
    settings: Settings,
    /// The next call that counts, in a closed loop.
    next: AtomicU64,
    /// The next call of warming up.
    warming: AtomicU64,
    stop: CancellationToken,
    abandon: CancellationToken,
}

/// One thread, seen from outside.
struct Thread {
    tally: Arc<Mutex<Tally>>,
    handle: JoinHandle<Result<Spent, Failure>>,
}

/// What a thread leaves.
struct Spent {
    cpu: Duration,
    wall: Duration,
    made: u64,
    not_sent: u64,
}

/// How often is looked at what the threads have counted.
const TICK: Duration = Duration::from_millis(100);
/// Pieces that the time is cut into, about.
const PIECES: u32 = 100;
/// A caller of a closed loop that was not served asks again after this, so that it does not spin.
const PAUSE: Duration = Duration::from_millis(10);

// === the collector ===

/// Runs until the end or a signal; a second signal does not wait for calls that are open. `log` takes a histogram log.
///
/// # Errors
///
/// [`Failure`]: no connection could be made, or this machine refused something.
pub fn run(
    plan: Arc<Plan>,
    settings: Settings,
    log: Option<&mut dyn std::io::Write>,
    observe: &mut dyn FnMut(&Progress),
) -> Result<Outcome, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(collect(plan, settings, log, observe)).map(Outcome)
}

/// What came of a run; a report tells it.
#[derive(Debug)]
pub struct Outcome(pub(super) Measured);

async fn collect(
    plan: Arc<Plan>,
    settings: Settings,
    mut log: Option<&mut dyn std::io::Write>,
    observe: &mut dyn FnMut(&Progress),
) -> Result<Measured, Failure> {
    let uncountable = |error: hdrhistogram::CreationError| Failure::Uncountable(error.to_string());
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let threads = settings.threads.clamp(1, settings.connections.max(1));
    let piece = match settings.until {
        Until::Time(length) => (length / PIECES).clamp(TICK, Duration::from_secs(60)),
        Until::Count(_) => Duration::from_secs(1),
    };
    let (warm_up, finite) = (settings.warm_up, settings.until);
    let shared = Arc::new(Shared {
        plan,
        settings,
        next: AtomicU64::new(0),
        warming: AtomicU64::new(0),
        stop: CancellationToken::new(),
        abandon: CancellationToken::new(),
    });
    let (go, going) = watch::channel(None::<Instant>);
    let (told, mut tells) = mpsc::unbounded_channel();
    let mut running = Vec::new();
    for number in 0..threads {
        let tally = Arc::new(Mutex::new(Tally::new().map_err(uncountable)?));
        let (shared, counts) = (Arc::clone(&shared), Arc::clone(&tally));
        let (going, told) = (going.clone(), told.clone());
        let handle = std::thread::Builder::new().name(format!("load-{number}")).spawn(move || {
            // Whatever becomes of the thread, the collector is told that it has ended.
            let _ended = OnDrop(told.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(thread(number, threads, shared, counts, going, told))
        })?;
        running.push(Thread { tally, handle });
    }
    drop(told);
    let mut connected = 0;
    while connected < threads {
        match tells.recv().await {
            Some(Tell::Connected) => connected += 1,
            // It says why when it is joined.
            Some(Tell::Ended) | None => break,
        }
    }
    if connected < threads {
        drop(go);
        return Err(running
            .into_iter()
            .find_map(|thread| join(thread).err().filter(|failure| !matches!(failure, Failure::Lost)))
            .unwrap_or(Failure::Lost));
    }
    let now = Instant::now();
    let (from, started) = (now + warm_up, SystemTime::now() + warm_up);
    let _all_wait_for_it = go.send(Some(now));
    let mut serializer = V2DeflateSerializer::new();
    let mut log_writer = match log.as_mut() {
        None => None,
        Some(log) => {
            let mut builder = IntervalLogWriterBuilder::new();
            builder.add_comment("[Histogram log format version 1.3]");
            builder.add_comment("postern load: latencies in milliseconds, recorded in nanoseconds");
            builder.with_start_time(started).with_base_time(started).with_max_value_divisor(1e6);
            Some(builder.begin_log_with(log, &mut serializer)?)
        }
    };
    let mut total = Tally::new().map_err(uncountable)?;
    let mut current = Tally::new().map_err(uncountable)?;
    let mut spare = Tally::new().map_err(uncountable)?;
    let mut intervals = Vec::new();
    let mut opened = from;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut recent = Recent::default();
    let (mut open, mut interrupted) = (threads, false);
    while open > 0 {
        tokio::select! {
            _ = ticks.tick() => {}
            told = tells.recv() => match told {
                Some(Tell::Ended) => open -= 1,
                Some(Tell::Connected) => {}
                None => open = 0,
            },
            _ = either(&mut interrupt, &mut terminate) => {
                if interrupted {
                    shared.abandon.cancel();
                }
                interrupted = true;
                shared.stop.cancel();
            }
        }
        let before = current.calls;
        for thread in &running {
            std::mem::swap(&mut *lock(&thread.tally), &mut spare);
            current.merge(&spare);
            spare.clear();
        }
        let now = Instant::now();
        if now >= from {
            recent.push(now, current.calls.saturating_sub(before));
        }
        observe(&Progress {
            elapsed: now.checked_duration_since(from),
            calls: total.calls.saturating_add(current.calls),
            bad: total.failed() + total.wrong + current.failed() + current.wrong,
            rate: recent.rate(now),
            p99: recent.p99(&current, intervals.last()),
        });
        let length = now.saturating_duration_since(opened);
        if length >= piece || (open == 0 && current.calls > 0) {
            let interval = Interval {
                from: opened.saturating_duration_since(from),
                length,
                calls: current.calls,
                failed: current.failed(),
                p50: at(&current, 0.5),
                p99: at(&current, 0.99),
                max: Duration::from_nanos(current.latency.max()),
            };
            if let Some(log) = &mut log_writer {
                log.write_histogram(&current.latency, interval.from, interval.length, None)
                    .map_err(|error| Failure::Uncountable(format!("{error:?}")))?;
            }
            intervals.push(interval);
            total.merge(&current);
            current.clear();
            opened = now;
        }
    }
    total.merge(&current);
    let last = total.last_end.unwrap_or(from);
    // What was asked for is the time it took, unless calls had to be waited for; a count ends with its last call.
    let least = match finite {
        Until::Time(length) if !interrupted => length,
        _ => Duration::ZERO,
    };
    let mut measured = Measured {
        total,
        intervals,
        started,
        elapsed: last.saturating_duration_since(from).max(least),
        interrupted,
        not_sent: 0,
        cpu: Duration::ZERO,
        made: 0,
        busy: 0.0,
    };
    for thread in running {
        let spent = join(thread)?;
        measured.cpu += spent.cpu;
        measured.made = measured.made.saturating_add(spent.made);
        measured.not_sent = measured.not_sent.saturating_add(spent.not_sent);
        let wall = spent.wall.as_secs_f64();
        if wall > 0.0 {
            measured.busy = measured.busy.max(spent.cpu.as_secs_f64() / wall);
        }
    }
    Ok(measured)
}

async fn either(one: &mut tokio::signal::unix::Signal, other: &mut tokio::signal::unix::Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

fn join(thread: Thread) -> Result<Spent, Failure> {
    thread.handle.join().unwrap_or(Err(Failure::Lost))
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn at(tally: &Tally, quantile: f64) -> Duration {
    Duration::from_nanos(tally.latency.value_at_quantile(quantile))
}

/// What a thread says.
enum Tell {
    Connected,
    Ended,
}

/// Says that a thread has ended.
struct OnDrop(mpsc::UnboundedSender<Tell>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _nobody_listens = self.0.send(Tell::Ended);
    }
}

/// Calls of the last second.
#[derive(Default)]
struct Recent(std::collections::VecDeque<(Instant, u64)>);

impl Recent {
    fn push(&mut self, now: Instant, calls: u64) {
        self.0.push_back((now, calls));
        while self.0.len() > 2
            && self.0.front().is_some_and(|(at, _)| now.duration_since(*at) > Duration::from_secs(1))
        {
            self.0.pop_front();
        }
    }

    fn rate(&self, now: Instant) -> f64 {
        let Some((first, _)) = self.0.front() else { return 0.0 };
        let seconds = now.duration_since(*first).as_secs_f64();
        let calls: u64 = self.0.iter().skip(1).map(|(_, calls)| calls).sum();
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        if seconds > 0.0 { calls as f64 / seconds } else { 0.0 }
    }

    /// Of the piece that is open, or where that has just begun of the one before it.
    fn p99(&self, current: &Tally, last: Option<&Interval>) -> Duration {
        match last {
            Some(last) if current.latency.len() < 100 => last.p99,
            _ => at(current, 0.99),
        }
    }
}

// === the threads ===

/// What the callers of one thread share.
struct Callers {
    shared: Arc<Shared>,
    tally: Arc<Mutex<Tally>>,
    pace: Pace,
    made: std::cell::Cell<u64>,
}

/// When calls may be made.
enum Pace {
    Closed { from: Instant, end: Option<Instant> },
    Open(tokio::sync::Mutex<Schedule>),
}

/// The calls of one thread in an open loop: every so many-th.
struct Schedule {
    alarm: Alarm,
    next: u64,
    step: u64,
    due: Due,
    /// When somebody has stopped it.
    stopped: Option<Instant>,
    patience: Duration,
    not_sent: u64,
}

/// When calls are due.
#[derive(Clone, Copy, Debug)]
struct Due {
    origin: Instant,
    rate: f64,
    /// The first call that counts.
    first: u64,
    /// The first that is not made.
    end: u64,
}

/// Permission to make one call.
struct Turn {
    number: u64,
    due: Option<Instant>,
    counts: bool,
}

async fn thread(
    number: usize,
    threads: usize,
    shared: Arc<Shared>,
    tally: Arc<Mutex<Tally>>,
    mut going: watch::Receiver<Option<Instant>>,
    told: mpsc::UnboundedSender<Tell>,
) -> Result<Spent, Failure> {
    let settings = &shared.settings;
    let mut channels = Vec::new();
    for connection in 0..settings.connections {
        if connection % threads == number {
            channels.push(settings.endpoint.connect().await.map_err(Failure::Unreachable)?);
        }
    }
    let _nobody_listens = told.send(Tell::Connected);
    let origin = match going.wait_for(Option::is_some).await {
        Ok(origin) => origin.unwrap_or_else(Instant::now),
        Err(_nobody_goes) => return Err(Failure::Lost),
    };
    let (began, cpu) = (Instant::now(), thread_cpu());
    let callers = Rc::new(Callers {
        pace: Pace::new(settings, origin, number, threads)?,
        shared: Arc::clone(&shared),
        tally,
        made: std::cell::Cell::new(0),
    });
    let local = tokio::task::LocalSet::new();
    let mut tasks = Vec::new();
    for channel in channels {
        let calls = Caller::new(channel, shared.plan.rpc, settings.patience);
        for _ in 0..settings.in_flight {
            tasks.push(local.spawn_local(caller(Rc::clone(&callers), calls.clone())));
        }
    }
    let all = local.run_until(async {
        for task in tasks {
            let _ended = task.await;
        }
    });
    tokio::select! {
        () = all => {}
        () = shared.abandon.cancelled() => {}
    }
    let not_sent = match &callers.pace {
        Pace::Closed { .. } => 0,
        Pace::Open(schedule) => schedule.try_lock().map_or(0, |schedule| schedule.not_sent),
    };
    Ok(Spent {
        cpu: thread_cpu().saturating_sub(cpu),
        wall: began.elapsed(),
        made: callers.made.get(),
        not_sent,
    })
}

/// One caller: a call after the other until there are no more.
async fn caller(callers: Rc<Callers>, mut caller: Caller) {
    let Callers { shared, tally, .. } = &*callers;
    while let Some(turn) = callers.turn().await {
        let Some(message) = shared.plan.message(turn.number) else { break };
        let sent = Instant::now();
        let said: Result<Answers, Code> = caller.call(message).await;
        let at = Instant::now();
        callers.made.set(callers.made.get().saturating_add(1));
        if turn.counts {
            let ended = Ended { message, from: turn.due.unwrap_or(sent), sent, at, said: &said };
            lock(tally).add(&shared.plan, &ended);
        }
        if turn.due.is_none() && matches!(said, Err(Code::Unavailable)) {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = shared.stop.cancelled() => {}
            }
        }
    }
}

impl Callers {
    async fn turn(&self) -> Option<Turn> {
        let shared = &self.shared;
        match &self.pace {
            Pace::Closed { from, end } => {
                let now = Instant::now();
                if shared.stop.is_cancelled() || end.is_some_and(|end| now >= end) {
                    return None;
                }
                if now < *from {
                    let number = shared.warming.fetch_add(1, Ordering::Relaxed);
                    return Some(Turn { number, due: None, counts: false });
                }
                let number = shared.next.fetch_add(1, Ordering::Relaxed);
                match shared.settings.until {
                    Until::Count(count) if number >= count => None,
                    _ => Some(Turn { number, due: None, counts: true }),
                }
            }
            // Whoever holds it waits for the next call; the others stand behind in the order that they came.
            Pace::Open(schedule) => schedule.lock().await.next(&shared.stop).await,
        }
    }
}

impl Pace {
    fn new(settings: &Settings, origin: Instant, number: usize, threads: usize) -> Result<Self, Failure> {
        let from = origin + settings.warm_up;
        let end = match settings.until {
            Until::Time(length) => Some(from + length),
            Until::Count(_) => None,
        };
        Ok(match settings.mode {
            Mode::Closed => Self::Closed { from, end },
            Mode::Open(rate) => Self::Open(tokio::sync::Mutex::new(Schedule {
                alarm: Alarm::new()?,
                next: number as u64,
                step: threads as u64,
                due: Due::new(origin, rate, settings.warm_up, settings.until),
                stopped: None,
                patience: settings.patience,
                not_sent: 0,
            })),
        })
    }
}

impl Schedule {
    async fn next(&mut self, stop: &CancellationToken) -> Option<Turn> {
        if self.next >= self.due.end {
            return None;
        }
        let number = self.next;
        let due = self.due.at(number);
        if stop.is_cancelled() && self.stopped.is_none() {
            self.stopped = Some(Instant::now());
        }
        // What is still due by then is given up: the last calls are waited for as long as any.
        let end = self.stopped.unwrap_or_else(|| self.due.at(self.due.end)).min(self.due.at(self.due.end));
        if Instant::now() > end + self.patience {
            self.give_up(end);
            return None;
        }
        if due >= end {
            self.next = self.due.end;
            return None;
        }
        tokio::select! {
            biased;
            waited = self.alarm.wait_until(due) => {
                // A timer that fails ends the load, and what was not sent is told.
                if waited.is_err() {
                    self.give_up(self.due.at(self.due.end));
                    return None;
                }
            }
            () = stop.cancelled(), if self.stopped.is_none() => {
                self.stopped = Some(Instant::now());
                self.next = self.due.end;
                return None;
            }
        }
        self.next = number.saturating_add(self.step);
        let counts = number >= self.due.first;
        // Numbers of calls that count begin at nought, so that all threads together ask in the order of the plan.
        let number = if counts { number - self.due.first } else { number };
        Some(Turn { number, due: Some(due), counts })
    }

    /// Counts what was due before a moment and is never sent.
    fn give_up(&mut self, end: Instant) {
        let mut number = self.next.max(self.due.first);
        while number < self.due.end && self.due.at(number) < end {
            self.not_sent = self.not_sent.saturating_add(1);
            number = number.saturating_add(self.step);
        }
        self.next = self.due.end;
    }
}

impl Due {
    fn new(origin: Instant, rate: f64, warm_up: Duration, until: Until) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the product of a rate and a time is no less than nought, and a cast saturates"
        )]
        let calls = |length: Duration| (length.as_secs_f64() * rate).ceil() as u64;
        let first = calls(warm_up);
        let count = match until {
            Until::Time(length) => calls(length),
            Until::Count(count) => count,
        };
        Self { origin, rate, first, end: first.saturating_add(count) }
    }

    fn at(&self, number: u64) -> Instant {
        #[expect(clippy::cast_precision_loss, reason = "exact far beyond any number of calls")]
        let seconds = number as f64 / self.rate;
        self.origin + Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(u64::from(u32::MAX)))
    }
}
