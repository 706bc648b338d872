//! `postern load`: how much a running sidecar carries, and whether it answers right while it does.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal, LineWriter, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::config;
use crate::load::{
    self, Failure, Header, Mode, Pick, Plan, Progress, Questions, Report, Responder, Rpc, Settings, Shares,
    Unreadable, Until, Verdict,
};
use crate::record::Candidate;
use crate::source::dir;

use super::ask::question::flag_of;
use super::ask::{ClientTls, NoAnswer, Sidecar, status, tell_failure, tell_usage};
use super::validate::HowToLoad;
use super::{Exit, print, print_error, print_error_text, print_json};

pub(super) const EXAMPLES: &str = "\
Examples:
  postern load --connect unix:///run/postern/postern.sock --policy policy/ --expect policy
  postern load --connect http://127.0.0.1:4770 --policy policy/ --rate 5000 --duration 1m --html load.html
  postern load --connect … --questions decisions.jsonl --expect recorded --pick order --count 10000
  postern load --connect … --policy policy/ --rpc batch-check --batch 50 --zipf 1.1 --json > now.json
  postern load --self-test --json > limit.json
  postern load --connect … --policy policy/ --limit limit.json
  postern load --compare before.json now.json

Without --rate the loop is closed: so many callers, each asks again when it has its answer. With it
the loop is open: calls fall due at a constant rate, and a latency runs from when the call was due.
An interrupt ends the load early, and what came until then is told.

Exit codes: 0 everything was answered (and as expected), 3 answers were wrong, 1 calls failed or
nobody was reached, 2 wrong usage. Of --compare: 0 no worse, 3 worse, 1 could not, 2 wrong usage.";

/// Callers of a connection in an open loop: as many calls as may wait for answers at once.
const OPEN_IN_FLIGHT: usize = 64;
const CLOSED_IN_FLIGHT: usize = 8;
/// What a sidecar takes over one connection.
const MOST_IN_FLIGHT: usize = 256;

/// What to load, how, and what to tell.
#[derive(Args, Debug)]
pub(super) struct LoadArgs {
    /// Load the sidecar at this address: unix:///path, http://host:port or https://host:port
    #[arg(long, value_name = "ADDRESS", env = "POSTERN_CONNECT", required_unless_present_any = ["self_test", "compare"])]
    connect: Option<String>,
    #[command(flatten)]
    tls: ClientTls,
    /// Load a responder in this process that always says the same: what this client and machine can reach
    #[arg(long)]
    self_test: bool,
    /// Compare two results (`--json`) instead
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    compare: Option<Vec<PathBuf>>,
    /// What differs by less than this is the same, in percent; with `--compare`
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, allow_negative_numbers = true)]
    tolerance: f64,
    #[command(flatten)]
    how_much: HowMuch,
    #[command(flatten)]
    what: What,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Write a page with plots, all in one file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    html: Option<PathBuf>,
    /// Write a histogram log (HdrHistogram), a line for each piece of the time
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    hdr_log: Option<PathBuf>,
    /// Result of `--self-test --json`: tell what share of it is reached
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    limit: Option<PathBuf>,
}

/// How hard, how long.
#[derive(Args, Debug)]
#[command(next_help_heading = "How much")]
struct HowMuch {
    /// Calls a second that fall due, whatever becomes of them; without this each caller waits for its answer
    #[arg(long, value_name = "PER-SECOND", allow_negative_numbers = true)]
    rate: Option<f64>,
    /// Connections
    #[arg(long, value_name = "NUMBER", default_value = "4")]
    connections: NonZeroUsize,
    /// Callers of each connection: calls that wait for an answer at once [default: 8; with --rate 64]
    #[arg(long, value_name = "NUMBER")]
    in_flight: Option<NonZeroUsize>,
    /// Threads of this client [default: half of the processors]
    #[arg(long, value_name = "NUMBER")]
    threads: Option<NonZeroUsize>,
    /// What is called
    #[arg(long, value_name = "RPC", default_value = "check")]
    rpc: RpcName,
    /// Questions of a call, with `--rpc batch-check` [default: 10] or `check-stream` [default: 1]
    #[arg(long, value_name = "NUMBER")]
    batch: Option<NonZeroUsize>,
    /// How long calls are made before they count
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    warm_up: Duration,
    /// How long calls count [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "count")]
    duration: Option<Duration>,
    /// End after so many calls
    #[arg(long, value_name = "NUMBER")]
    count: Option<u64>,
    /// How long an answer is waited for
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    timeout: Duration,
}

/// Which questions, and which answers.
#[derive(Args, Debug)]
#[command(next_help_heading = "Questions")]
struct What {
    /// Make questions from this policy directory or bundle, unless there are `--questions`
    #[arg(long, value_name = "DIR", env = "POSTERN_POLICY")]
    policy: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Questions")]
    how: HowToLoad,
    /// Read them from lines of JSON: records, or objects with `request`, or with `principal`, `action`, `scope`; `-`
    /// for standard input; may be repeated
    #[arg(long, value_name = "FILE")]
    questions: Vec<PathBuf>,
    /// At most so many different ones from a policy
    #[arg(long, value_name = "NUMBER", default_value = "4096")]
    distinct: NonZeroUsize,
    /// The share of calls from a policy whose answer is Allowed, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, allow_negative_numbers = true)]
    allowed: f64,
    /// How the next question is found [default: uniform; order for `--questions`]
    #[arg(long, value_name = "HOW", conflicts_with = "zipf")]
    pick: Option<PickName>,
    /// Ask some more often than others: the n-th with a chance in proportion to n to the power of minus this
    #[arg(long, value_name = "EXPONENT", allow_negative_numbers = true)]
    zipf: Option<f64>,
    /// What chance begins with: the same again gives the same questions in the same order
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Compare every answer, and fail when one is wrong
    #[arg(long, value_name = "WITH")]
    expect: Option<Expect>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RpcName {
    /// One question a call
    Check,
    /// Several questions a call
    BatchCheck,
    /// One stream for each connection
    CheckStream,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PickName {
    /// One after the other
    Order,
    /// By chance
    Uniform,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Expect {
    /// What `--policy` answers in this process
    Policy,
    /// The `decision` that stands beside each question
    Recorded,
}

/// Why there is no result.
enum Ended {
    Usage(Vec<String>),
    NoAnswer(NoAnswer),
    /// A word for programs, and for people.
    Said(&'static str, String),
}

#[derive(serde::Serialize)]
struct Failed<'a> {
    error: Said<'a>,
}

#[derive(serde::Serialize)]
struct Said<'a> {
    code: &'a str,
    message: &'a str,
}

fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text).ok_or_else(|| "wanted a duration such as `500ms`, `10s` or `2m`".to_owned())
}

// === run ===

pub(super) fn run(arguments: &LoadArgs) -> Exit {
    let outcome = match &arguments.compare {
        Some(files) => compare(files, arguments),
        None => measure(arguments),
    };
    outcome.unwrap_or_else(|ended| match ended {
        Ended::Usage(mistakes) => tell_usage(&mistakes),
        Ended::NoAnswer(no_answer) => tell_failure(&no_answer, arguments.json, flag_of),
        Ended::Said(code, message) => {
            if arguments.json {
                if let Err(error) = print_json(&Failed { error: Said { code, message: &message } }) {
                    print_error(&error);
                }
            } else {
                print_error(&message);
            }
            Exit::Failed
        }
    })
}

fn measure(arguments: &LoadArgs) -> Result<Exit, Ended> {
    let mistakes = arguments.mistakes();
    if !mistakes.is_empty() {
        return Err(Ended::Usage(mistakes));
    }
    // Before anything is asked: a file that is not there is no reason to load a sidecar in vain.
    let limit = arguments.limit.as_deref().map(read_limit).transpose()?;
    let (questions, source) = arguments.questions()?;
    let responder = match arguments.self_test {
        true => Some(Responder::start().map_err(|error| {
            Ended::Said("FAILED", format!("cannot start the constant responder: {error}"))
        })?),
        false => None,
    };
    let address = match (&responder, &arguments.connect) {
        (Some(responder), _) => responder.address(),
        (None, address) => address.clone().unwrap_or_default(),
    };
    let no_tls = ClientTls::default();
    let tls = if arguments.self_test { &no_tls } else { &arguments.tls };
    let sidecar = Sidecar::at(&address, tls).map_err(|wrong| Ended::Usage(vec![wrong.to_owned()]))?;
    let policy = status::active_digest(sidecar).map_err(Ended::NoAnswer)?;
    let how_much = &arguments.how_much;
    let (pick, pick_told) = arguments.pick();
    let batch = how_much.batch();
    let rpc = how_much.rpc.into();
    let seed = arguments.what.seed;
    let plan =
        Plan::new(rpc, questions, batch, pick, seed).map_err(|wrong| Ended::Said("NOTHING_TO_ASK", wrong))?;
    let plan = Arc::new(plan);
    let settings = how_much.settings(sidecar.endpoint().map_err(Ended::NoAnswer)?);
    let header = Header {
        target: if arguments.self_test { "the constant responder".to_owned() } else { address.clone() },
        policy,
        batch,
        questions: source,
        pick: pick_told,
        seed,
        expect: arguments.what.expect.map(|expect| match expect {
            Expect::Policy => "the policy in this process".to_owned(),
            Expect::Recorded => "the decisions beside the questions".to_owned(),
        }),
    };
    let mut log = arguments.hdr_log.as_deref().map(|path| create(path).map(LineWriter::new)).transpose()?;
    let bar = Bar::new(&settings);
    let outcome = load::run(
        Arc::clone(&plan),
        settings.clone(),
        log.as_mut().map(|log| log as &mut dyn Write),
        &mut |progress| bar.show(progress),
    );
    bar.clear();
    let outcome = outcome.map_err(|failure| match failure {
        Failure::Unreachable(error) => Ended::NoAnswer(sidecar.unreachable(&error)),
        other => Ended::Said("FAILED", other.to_string()),
    })?;
    let mut report = Report::new(&outcome, &settings, &plan, header);
    report.of_limit = limit.map(|limit| report.calls_per_second / limit);
    if let Some(path) = &arguments.html {
        let written = create(path)?.write_all(load::html(&report).as_bytes());
        written.map_err(|error| unwritten(path, &error))?;
    }
    if arguments.json {
        print_json(&report).map_err(|error| Ended::Said("FAILED", error.to_string()))?;
    } else {
        print(&report.text());
    }
    Ok(match (report.wrong(), report.failed()) {
        (1.., _) => Exit::No,
        (0, 1..) => Exit::Failed,
        // Nothing was asked, so nothing can be said.
        (0, 0) if report.calls == 0 => Exit::Failed,
        (0, 0) => Exit::Yes,
    })
}

fn compare(files: &[PathBuf], arguments: &LoadArgs) -> Result<Exit, Ended> {
    let tolerance = arguments.tolerance;
    if !(0.0..=1000.0).contains(&tolerance) {
        return Err(Ended::Usage(vec![format!("`--tolerance` is {tolerance}; wanted 0 to 1000 percent")]));
    }
    let [a, b] = files else {
        return Err(Ended::Usage(vec!["`--compare` wants two files".to_owned()]));
    };
    let comparison = load::compare(&read_report(a)?, &read_report(b)?, tolerance / 100.0);
    if arguments.json {
        print_json(&comparison).map_err(|error| Ended::Said("FAILED", error.to_string()))?;
    } else {
        print(&comparison.text());
    }
    Ok(if comparison.verdict == Verdict::Worse { Exit::No } else { Exit::Yes })
}

fn read_report(path: &Path) -> Result<Report, Ended> {
    let read = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"));
    read.and_then(|bytes| Report::read(&bytes))
        .map_err(|wrong| Ended::Said("UNREADABLE", format!("`{}` {wrong}", path.display())))
}

/// The rate that the constant responder was asked at.
fn read_limit(path: &Path) -> Result<f64, Ended> {
    let rate = read_report(path)?.calls_per_second;
    if rate > 0.0 {
        Ok(rate)
    } else {
        Err(Ended::Said("UNREADABLE", format!("`{}` says that nothing was answered", path.display())))
    }
}

fn create(path: &Path) -> Result<File, Ended> {
    File::create(path).map_err(|error| unwritten(path, &error))
}

fn unwritten(path: &Path, error: &io::Error) -> Ended {
    Ended::Said("UNWRITABLE", format!("cannot write `{}`: {error}", path.display()))
}

// === arguments ===

impl LoadArgs {
    /// Everything that is wrong with the numbers.
    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let HowMuch { rate, in_flight, count, duration, timeout, .. } = &self.how_much;
        if let Some(rate) = rate.filter(|rate| !(rate.is_finite() && (0.001..=1e7).contains(rate))) {
            mistakes.push(format!("`--rate` is {rate}; wanted 0.001 to 10000000 calls a second"));
        }
        if let Some(number) = in_flight.filter(|number| number.get() > MOST_IN_FLIGHT) {
            mistakes
                .push(format!("`--in-flight` is {number}; wanted at most {MOST_IN_FLIGHT} for a connection"));
        }
        if self.how_much.connections.get() > 10_000 {
            mistakes.push(format!("`--connections` is {}; wanted at most 10000", self.how_much.connections));
        }
        if *count == Some(0) {
            mistakes.push("`--count` is 0; wanted at least one call".to_owned());
        }
        if duration.is_some_and(|length| length.is_zero()) {
            mistakes.push("`--duration` is nought; wanted some time".to_owned());
        }
        if timeout.is_zero() {
            mistakes.push("`--timeout` is nought; wanted some time".to_owned());
        }
        let What { policy, questions, allowed, zipf, expect, .. } = &self.what;
        if !(0.0..=1.0).contains(allowed) {
            mistakes.push(format!("`--allowed` is {allowed}; wanted 0 to 1"));
        }
        if let Some(exponent) = zipf.filter(|exponent| !(0.0..=10.0).contains(exponent)) {
            mistakes.push(format!("`--zipf` is {exponent}; wanted 0 to 10"));
        }
        if policy.is_none() && questions.is_empty() && !self.self_test {
            mistakes.push(
                "nothing to ask; give `--policy DIR` or `--questions FILE`, or set POSTERN_POLICY".to_owned(),
            );
        }
        match expect {
            Some(Expect::Policy) if policy.is_none() => {
                mistakes.push("`--expect policy` wants `--policy DIR`".to_owned());
            }
            Some(Expect::Recorded) if questions.is_empty() => {
                mistakes.push("`--expect recorded` wants `--questions FILE`".to_owned());
            }
            _ => {}
        }
        mistakes
    }

    /// What is asked, and where it is from.
    fn questions(&self) -> Result<(Questions, String), Ended> {
        let What { policy, how, questions: files, distinct, allowed, seed, expect, .. } = &self.what;
        let open = |path: &PathBuf| {
            let loaded = dir::load(path, how.options());
            loaded
                .map(|loaded| Candidate::new(loaded.policy))
                .map_err(|refused| Ended::NoAnswer(NoAnswer::Refused(refused)))
        };
        let (mut questions, source) = match (files.as_slice(), policy) {
            ([], Some(path)) => {
                let shares = Shares { distinct: distinct.get(), allowed: *allowed, seed: *seed };
                let made = load::from_policy(&open(path)?, shares)
                    .map_err(|wrong| Ended::Said("NOTHING_TO_ASK", wrong))?;
                let told = format!("policy {}, {:.0} % allowed", path.display(), allowed * 100.0);
                (made, told)
            }
            ([], None) => (load::constant(), "a question made up".to_owned()),
            (files, policy) => {
                let mut questions = read(files)?;
                if let (Some(Expect::Policy), Some(path)) = (expect, policy) {
                    questions.expect(&open(path)?);
                }
                let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
                (questions, names.join(", "))
            }
        };
        if expect.is_none() {
            questions.expect_nothing();
        } else if questions.expecting() == 0 {
            return Err(Ended::Said(
                "NOTHING_EXPECTED",
                format!("{source}: no question has an answer that is known; `--expect` would say nothing"),
            ));
        }
        Ok((questions, source))
    }

    fn pick(&self) -> (Pick, String) {
        let from_files = !self.what.questions.is_empty();
        match (self.what.zipf, self.what.pick) {
            (Some(exponent), _) => (Pick::Zipf(exponent), format!("by Zipf's law, exponent {exponent}")),
            (None, Some(PickName::Order)) => (Pick::Order, "in order".to_owned()),
            (None, None) if from_files => (Pick::Order, "in order".to_owned()),
            (None, Some(PickName::Uniform) | None) => (Pick::Uniform, "each as often".to_owned()),
        }
    }
}

/// Reads all files, and tells what is left out.
fn read(files: &[PathBuf]) -> Result<Questions, Ended> {
    let mut questions = Questions::default();
    let mut wrong = Vec::new();
    for path in files {
        let name = path.display().to_string();
        let read = if name == "-" {
            questions.read(&name, io::stdin().lock())
        } else {
            File::open(path)
                .map_err(Unreadable::Io)
                .and_then(|file| questions.read(&name, BufReader::with_capacity(1 << 20, file)))
        };
        match read {
            Ok(()) => {}
            Err(Unreadable::Io(error)) => wrong.push(format!("cannot read `{name}`: {error}")),
            Err(Unreadable::Lines(lines, all)) => {
                let more = all.saturating_sub(lines.len());
                wrong.extend(lines);
                if more > 0 {
                    wrong.push(format!("and {more} more malformed lines of {name}"));
                }
            }
        }
    }
    if !wrong.is_empty() {
        return Err(Ended::Said("UNREADABLE", wrong.join("\n       ")));
    }
    for (why, count) in &questions.skipped {
        print_error_text(&format!("not asked: {count} lines {why}\n"));
    }
    if questions.is_empty() {
        return Err(Ended::Said("NOTHING_TO_ASK", "there is no question that can be asked".to_owned()));
    }
    Ok(questions)
}

impl HowMuch {
    fn batch(&self) -> usize {
        match self.rpc {
            RpcName::Check => 1,
            RpcName::BatchCheck => self.batch.map_or(10, NonZeroUsize::get),
            RpcName::CheckStream => self.batch.map_or(1, NonZeroUsize::get),
        }
    }

    fn settings(&self, endpoint: load::Endpoint) -> Settings {
        let in_flight = match self.rate {
            Some(_) => OPEN_IN_FLIGHT,
            None => CLOSED_IN_FLIGHT,
        };
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Settings {
            // Who does not answer is not waited for longer than for an answer.
            endpoint: endpoint.connect_timeout(self.timeout),
            mode: self.rate.map_or(Mode::Closed, Mode::Open),
            connections: self.connections.get(),
            in_flight: self.in_flight.map_or(in_flight, NonZeroUsize::get),
            threads: self.threads.map_or((processors / 2).max(1), NonZeroUsize::get),
            warm_up: self.warm_up,
            until: match self.count {
                Some(count) => Until::Count(count),
                None => Until::Time(self.duration.unwrap_or(Duration::from_secs(10))),
            },
            patience: self.timeout,
        }
    }
}

impl From<RpcName> for Rpc {
    fn from(name: RpcName) -> Self {
        match name {
            RpcName::Check => Self::Check,
            RpcName::BatchCheck => Self::BatchCheck,
            RpcName::CheckStream => Self::CheckStream,
        }
    }
}

// === progress ===

/// A line on a terminal that says how it goes; nothing anywhere else.
struct Bar {
    bar: ProgressBar,
    until: Until,
    warm_up: Duration,
}

impl Bar {
    fn new(settings: &Settings) -> Self {
        let length = match settings.until {
            Until::Time(length) => millis(length),
            Until::Count(count) => count,
        };
        let target = match io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(length), target);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar:.cyan/dim} {percent:>3} %  {msg}") {
            bar.set_style(style);
        }
        Self { bar, until: settings.until, warm_up: settings.warm_up }
    }

    fn show(&self, progress: &Progress) {
        let Progress { elapsed, calls, bad, rate, p99 } = progress;
        let Some(elapsed) = elapsed else {
            self.bar.set_message(format!("warming up for {:?}", self.warm_up));
            return;
        };
        self.bar.set_position(match self.until {
            Until::Time(_) => millis(*elapsed),
            Until::Count(_) => *calls,
        });
        let bad = if *bad > 0 { format!("  {bad} failed or wrong") } else { String::new() };
        self.bar.set_message(format!("{rate:>8.0} calls/s  p99 {:>9.3} ms{bad}", p99.as_secs_f64() * 1e3));
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
