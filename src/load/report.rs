//! What is told of a run: one structure, which is the JSON, the table and what the page is drawn from.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::server::code_name;

use super::plan::Plan;
use super::run::{Measured, Mode, Outcome, Settings, Until, at};
use super::tally::LATE;

/// The version of the JSON. Fields are added without a new one.
pub const FORMAT: u32 = 1;

/// A run, told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// What was loaded, and how.
    pub load: Load,
    /// Of the first call that counts.
    pub started: String,
    /// From the first call that counts until the last has ended.
    pub seconds: f64,
    /// Whether a signal ended it.
    pub interrupted: bool,
    /// Calls that were made and ended.
    pub calls: u64,
    /// Calls that brought answers.
    pub answered_calls: u64,
    /// Calls that were answered, a second.
    pub calls_per_second: f64,
    /// Questions that were decided.
    pub decided: u64,
    /// The same for a second.
    pub decided_per_second: f64,
    /// Of calls that were answered or not waited for any longer.
    pub latency: Latency,
    /// Calls without answers, by code.
    pub errors: BTreeMap<String, u64>,
    /// Questions of a batch that were refused by themselves, by code.
    pub item_errors: BTreeMap<String, u64>,
    /// Answers by kind.
    pub decisions: BTreeMap<String, u64>,
    /// Answers that came from the decision cache.
    pub cached: u64,
    /// Answers that were compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<Expected>,
    /// How the calls of an open loop kept their times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// What the client itself took.
    pub client: Client,
    /// The share of what was reached against the constant responder, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_limit: Option<f64>,
    /// The curve of latencies.
    pub curve: Vec<Point>,
    /// Piece by piece.
    pub timeline: Vec<Piece>,
}

/// What was loaded, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// The address.
    pub target: String,
    /// The digest of the policy that the sidecar answered by before the first call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// `Check` or `BatchCheck`.
    pub rpc: String,
    /// `closed` or `open`.
    pub mode: String,
    /// Calls a second that were due, in an open loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Connections.
    pub connections: usize,
    /// Callers of each connection.
    pub in_flight: usize,
    /// Threads of the client.
    pub threads: usize,
    /// Questions of a call.
    pub batch: usize,
    /// Where the questions are from.
    pub questions: String,
    /// How many different ones there are.
    pub distinct: usize,
    /// How the next one is found.
    pub pick: String,
    /// What chance began with.
    pub seed: u64,
    /// Seconds before calls counted.
    pub warm_up_seconds: f64,
    /// Seconds that were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<f64>,
    /// Calls that were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Seconds that an answer was waited for.
    pub timeout_seconds: f64,
}

/// What the caller of the run knows of it.
#[derive(Clone, Debug)]
pub struct Header {
    /// The address.
    pub target: String,
    /// The digest of its policy.
    pub policy: Option<String>,
    /// Questions of a call.
    pub batch: usize,
    /// Where the questions are from.
    pub questions: String,
    /// How the next one is found.
    pub pick: String,
    /// What chance began with.
    pub seed: u64,
    /// What answers are compared with, in words.
    pub expect: Option<String>,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// Half of the calls took no longer.
    pub p50_micros: f64,
    /// Nine of ten.
    pub p90_micros: f64,
    /// 99 of a hundred.
    pub p99_micros: f64,
    /// 999 of a thousand.
    pub p999_micros: f64,
    /// All of them.
    pub max_micros: f64,
    /// On the average.
    pub mean_micros: f64,
}

/// Answers and what was expected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Expected {
    /// What they are compared with.
    pub by: String,
    /// As expected.
    pub right: u64,
    /// Not.
    pub wrong: u64,
    /// Nothing was known of these, or not any more.
    pub not_judged: u64,
    /// Some of the wrong ones.
    pub examples: Vec<String>,
}

/// How the calls of an open loop kept their times.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// Sent more than a millisecond after they were due.
    pub late: u64,
    /// The most that one was.
    pub latest_micros: f64,
    /// Due, and never sent.
    pub not_sent: u64,
}

/// What the client itself took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// Of the processor, for a call.
    pub cpu_micros_per_call: f64,
    /// The share of the time that its busiest thread computed.
    pub busiest_thread: f64,
}

/// A point of the curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Of all calls, from 0 to 100.
    pub percentile: f64,
    /// They took no longer.
    pub micros: f64,
}

/// A piece of the time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Piece {
    /// When it begins.
    pub from_seconds: f64,
    /// How long it is.
    pub seconds: f64,
    /// Calls that ended in it.
    pub calls: u64,
    /// Those without an answer.
    pub failed: u64,
    /// Of the calls in it.
    pub p50_micros: f64,
    /// Of the calls in it.
    pub p99_micros: f64,
    /// Of the calls in it.
    pub max_micros: f64,
}

/// Points of the curve for each tenth part of the calls that remain.
const POINTS: u32 = 10;

impl Report {
    /// Tells a run.
    pub fn new(outcome: &Outcome, settings: &Settings, plan: &Plan, header: Header) -> Self {
        let Measured { total, intervals, started, elapsed, interrupted, not_sent, cpu, made, busy } =
            &outcome.0;
        let seconds = elapsed.as_secs_f64();
        let per_second = |count: u64| if seconds > 0.0 { float(count) / seconds } else { 0.0 };
        let answered = total.calls.saturating_sub(total.failed());
        let decisions = total.decisions();
        let decided = decisions.iter().map(|(_, count)| count).sum();
        let [errors, item_errors] = total.errors().map(|codes| {
            codes.into_iter().map(|(code, count)| (code_name(code).to_owned(), count)).collect()
        });
        let Header { target, policy, batch, questions, pick, seed, expect } = header;
        let (mode, rate) = match settings.mode {
            Mode::Closed => ("closed", None),
            Mode::Open(rate) => ("open", Some(rate)),
        };
        let (duration_seconds, count) = match settings.until {
            Until::Time(length) => (Some(length.as_secs_f64()), None),
            Until::Count(count) => (None, Some(count)),
        };
        Self {
            format: FORMAT,
            load: Load {
                target,
                policy,
                rpc: plan.rpc.name().to_owned(),
                mode: mode.to_owned(),
                rate,
                connections: settings.connections,
                in_flight: settings.in_flight,
                threads: settings.threads.clamp(1, settings.connections.max(1)),
                batch,
                questions,
                distinct: plan.distinct(),
                pick,
                seed,
                warm_up_seconds: settings.warm_up.as_secs_f64(),
                duration_seconds,
                count,
                timeout_seconds: settings.patience.as_secs_f64(),
            },
            started: Timestamp::try_from(*started).map(|at| at.to_string()).unwrap_or_default(),
            seconds,
            interrupted: *interrupted,
            calls: total.calls,
            answered_calls: answered,
            calls_per_second: per_second(answered),
            decided,
            decided_per_second: per_second(decided),
            latency: Latency {
                p50_micros: micros(at(total, 0.5)),
                p90_micros: micros(at(total, 0.9)),
                p99_micros: micros(at(total, 0.99)),
                p999_micros: micros(at(total, 0.999)),
                max_micros: micros(Duration::from_nanos(total.latency.max())),
                mean_micros: if total.latency.is_empty() { 0.0 } else { total.latency.mean() / 1e3 },
            },
            errors,
            item_errors,
            decisions: decisions.iter().map(|(kind, count)| (kind.name().to_owned(), *count)).collect(),
            cached: total.cached,
            expected: expect.map(|by| Expected {
                by,
                right: total.right,
                wrong: total.wrong,
                not_judged: total.not_judged,
                examples: total
                    .examples
                    .iter()
                    .filter_map(|wrong| {
                        let question = plan.questions.get(wrong.question as usize)?;
                        Some(format!("{} {}", question.told(), wrong.said))
                    })
                    .collect(),
            }),
            schedule: rate.map(|_| Schedule {
                late: total.late,
                latest_micros: micros(total.latest),
                not_sent: *not_sent,
            }),
            client: Client {
                cpu_micros_per_call: if *made > 0 { micros(*cpu) / float(*made) } else { 0.0 },
                busiest_thread: *busy,
            },
            of_limit: None,
            curve: curve(&total.latency),
            timeline: intervals
                .iter()
                .map(|interval| Piece {
                    from_seconds: interval.from.as_secs_f64(),
                    seconds: interval.length.as_secs_f64(),
                    calls: interval.calls,
                    failed: interval.failed,
                    p50_micros: micros(interval.p50),
                    p99_micros: micros(interval.p99),
                    max_micros: micros(interval.max),
                })
                .collect(),
        }
    }

    /// Reads what [`Report`] was written as.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let report: Self = serde_json::from_slice(bytes).map_err(|error| format!("is no report: {error}"))?;
        if report.format == FORMAT {
            Ok(report)
        } else {
            Err(format!("has format {}; this version reads {FORMAT}", report.format))
        }
    }

    /// Calls that ended without answers, questions that were refused, and calls that were never made.
    pub fn failed(&self) -> u64 {
        let not_sent = self.schedule.map_or(0, |schedule| schedule.not_sent);
        self.errors.values().chain(self.item_errors.values()).sum::<u64>().saturating_add(not_sent)
    }

    /// Answers that are not what was expected.
    pub fn wrong(&self) -> u64 {
        self.expected.as_ref().map_or(0, |expected| expected.wrong)
    }

    /// As a table for people.
    pub fn text(&self) -> String {
        let load = &self.load;
        let mut lines = vec![
            ("load", self.told_load()),
            ("target", self.told_target()),
            (
                "questions",
                format!(
                    "{} different, from {}; {}",
                    grouped(load.distinct as u64),
                    load.questions,
                    load.pick
                ),
            ),
        ];
        let mut rate = format!(
            "{} calls/s ({} answered in {:.2} s)",
            rounded(self.calls_per_second),
            grouped(self.answered_calls),
            self.seconds
        );
        if load.batch > 1 {
            rate.push_str(&format!(", {} decisions/s", rounded(self.decided_per_second)));
        }
        if let Some(share) = self.of_limit {
            rate.push_str(&format!(", {:.0} % of the constant responder", share * 100.0));
        }
        lines.push(("rate", rate));
        let Latency { p50_micros, p90_micros, p99_micros, p999_micros, max_micros, .. } = self.latency;
        let named = [
            ("p50", p50_micros),
            ("p90", p90_micros),
            ("p99", p99_micros),
            ("p99.9", p999_micros),
            ("max", max_micros),
        ];
        for (at, (name, micros)) in named.into_iter().enumerate() {
            let label = if at == 0 { "latency" } else { "" };
            lines.push((label, format!("{name:<6}{:>12}", took(micros))));
        }
        let counted = |counts: &BTreeMap<String, u64>| {
            let all: u64 = counts.values().sum();
            let parts = counts.iter().filter(|(_, count)| **count > 0).map(|(name, count)| {
                format!("{name} {} ({:.1} %)", grouped(*count), 100.0 * float(*count) / float(all.max(1)))
            });
            let parts: Vec<String> = parts.collect();
            if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
        };
        let plain = |counts: &BTreeMap<String, u64>| {
            let parts: Vec<String> =
                counts.iter().map(|(name, count)| format!("{name} {}", grouped(*count))).collect();
            if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
        };
        lines.push(("errors", plain(&self.errors)));
        if !self.item_errors.is_empty() {
            lines.push(("refused", plain(&self.item_errors)));
        }
        let mut decisions = counted(&self.decisions);
        if self.cached > 0 {
            decisions.push_str(&format!("; {} from the cache", grouped(self.cached)));
        }
        lines.push(("decisions", decisions));
        if let Some(expected) = &self.expected {
            let mut told = match expected.wrong {
                0 => format!("{} right, none wrong", grouped(expected.right)),
                wrong => format!("{} right, {} WRONG", grouped(expected.right), grouped(wrong)),
            };
            if expected.not_judged > 0 {
                told.push_str(&format!(", {} not judged", grouped(expected.not_judged)));
            }
            lines.push(("expected", format!("{told}, by {}", expected.by)));
            lines.extend(expected.examples.iter().map(|example| ("", example.clone())));
        }
        if let Some(schedule) = self.schedule {
            let mut told = format!(
                "{} sent more than {} ms late, the latest by {}",
                grouped(schedule.late),
                LATE.as_millis(),
                took(schedule.latest_micros).trim()
            );
            if schedule.not_sent > 0 {
                told.push_str(&format!("; {} NEVER SENT", grouped(schedule.not_sent)));
            }
            lines.push(("schedule", told));
        }
        let Client { cpu_micros_per_call, busiest_thread } = self.client;
        let mut client = format!(
            "{cpu_micros_per_call:.1} µs of CPU for a call; busiest thread {:.0} %",
            busiest_thread * 100.0
        );
        if busiest_thread > 0.9 {
            client.push_str(": the client may be what limits, give it more `--threads`");
        }
        lines.push(("client", client));
        if self.interrupted {
            lines.push(("", "ended early by a signal".to_owned()));
        }
        lines.iter().map(|(name, value)| format!("{name:<11}{value}\n")).collect()
    }

    fn told_load(&self) -> String {
        let load = &self.load;
        let mode = match load.rate {
            Some(rate) => format!("open loop, {} calls/s due", rounded(rate)),
            None => "closed loop".to_owned(),
        };
        let batch = if load.batch > 1 { format!(" of {} questions", load.batch) } else { String::new() };
        format!(
            "{mode}, {}{batch}, {} × {} in flight, {}",
            load.rpc,
            counted(load.connections, "connection"),
            load.in_flight,
            counted(load.threads, "thread")
        )
    }

    fn told_target(&self) -> String {
        match &self.load.policy {
            Some(digest) => format!("{}, policy {digest}", self.load.target),
            None => self.load.target.clone(),
        }
    }

    /// Both lines by which a page is known.
    pub(super) fn titles(&self) -> [String; 2] {
        [self.told_load(), self.told_target()]
    }
}

/// Points that lie ever closer to the longest call, as far as there are calls for them.
fn curve(latency: &hdrhistogram::Histogram<u64>) -> Vec<Point> {
    let mut points = Vec::new();
    if latency.is_empty() {
        return points;
    }
    for step in 0_u32.. {
        let remaining = 10_f64.powf(-f64::from(step) / f64::from(POINTS));
        if remaining * float(latency.len()) < 1.0 {
            break;
        }
        let quantile = 1.0 - remaining;
        points.push(Point {
            percentile: quantile * 100.0,
            micros: micros(Duration::from_nanos(latency.value_at_quantile(quantile))),
        });
    }
    points.push(Point { percentile: 100.0, micros: micros(Duration::from_nanos(latency.max())) });
    points
}

pub(super) fn micros(length: Duration) -> f64 {
    length.as_secs_f64() * 1e6
}

#[expect(clippy::cast_precision_loss, reason = "exact far beyond any count of calls")]
pub(super) const fn float(count: u64) -> f64 {
    count as f64
}

/// `1 thread`, `2 threads`.
fn counted(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// With a unit that fits.
pub(super) fn took(micros: f64) -> String {
    match micros {
        _ if micros >= 1e6 => format!("{:.2} s ", micros / 1e6),
        _ if micros >= 1e4 => format!("{:.1} ms", micros / 1e3),
        _ if micros >= 1e3 => format!("{:.2} ms", micros / 1e3),
        _ => format!("{micros:.0} µs"),
    }
}

/// A rate, with as much behind the point as says something.
pub(super) fn rounded(rate: f64) -> String {
    if rate < 100.0 {
        return format!("{rate:.1}");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast saturates")]
    let whole = rate.round() as u64;
    grouped(whole)
}

/// `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && digits.len().saturating_sub(at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([12.34, 1234.5].map(rounded), ["12.3", "1,235"]);
        assert_eq!([12.0, 1_500.0, 15_000.0, 2.5e6].map(took), ["12 µs", "1.50 ms", "15.0 ms", "2.50 s "]);
    }

    #[test]
    fn the_curve_ends_at_the_longest_call_and_never_falls() {
        let mut latency = hdrhistogram::Histogram::new(3).unwrap();
        assert!(curve(&latency).is_empty());
        for nanos in 1..=10_000_u64 {
            latency.record(nanos * 1_000).unwrap();
        }
        let points = curve(&latency);
        assert_eq!(points.last().unwrap().percentile, 100.0);
        assert!(points.windows(2).all(|pair| pair[0].micros <= pair[1].micros));
        // Four decades of ten points, and both ends.
        assert_eq!(points.len(), 42);
    }
}
