//! What is counted of calls: how long they took, how they ended, what was decided, and whether that was right.

use std::time::{Duration, Instant};

use hdrhistogram::{CreationError, Histogram};
use jiff::Timestamp;
use tonic::Code;

use crate::proto::v1;
use crate::record::Outcome;

use super::call::Answers;
use super::plan::{Encoded, Plan};

/// Longer latencies count as this.
const LONGEST: Duration = Duration::from_secs(3600);
/// Wrong answers that are told one by one.
const MOST_TOLD: usize = 10;
/// A call that left later than this after it was due is told.
pub(super) const LATE: Duration = Duration::from_millis(1);
/// As many as there are codes.
const CODES: usize = 17;

/// Counts of one thread, of one interval, or of the whole run.
#[derive(Debug)]
pub(super) struct Tally {
    /// Nanoseconds of every call that was answered, or whose answer was waited for until the end of patience.
    pub(super) latency: Histogram<u64>,
    pub(super) calls: u64,
    /// Calls that ended without answers, by code.
    codes: [u64; CODES],
    /// Items of batches that were refused each by itself, by code.
    items: [u64; CODES],
    decisions: [u64; 4],
    pub(super) cached: u64,
    pub(super) right: u64,
    pub(super) wrong: u64,
    /// Answers that nothing was known of, or not any more at that time.
    pub(super) not_judged: u64,
    pub(super) examples: Vec<Wrong>,
    pub(super) late: u64,
    pub(super) latest: Duration,
    /// When the last call ended.
    pub(super) last_end: Option<Instant>,
}

/// An answer that is not what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) question: u32,
    pub(super) said: String,
}

/// One call that ended.
pub(super) struct Ended<'a> {
    pub(super) message: &'a Encoded,
    /// When it was due, or when it was sent.
    pub(super) from: Instant,
    pub(super) sent: Instant,
    pub(super) at: Instant,
    pub(super) said: &'a Result<Answers, Code>,
}

impl Tally {
    pub(super) fn new() -> Result<Self, CreationError> {
        let longest = u64::try_from(LONGEST.as_nanos()).unwrap_or(u64::MAX);
        Ok(Self {
            latency: Histogram::new_with_bounds(1, longest, 3)?,
            calls: 0,
            codes: [0; CODES],
            items: [0; CODES],
            decisions: [0; 4],
            cached: 0,
            right: 0,
            wrong: 0,
            not_judged: 0,
            examples: Vec::new(),
            late: 0,
            latest: Duration::ZERO,
            last_end: None,
        })
    }

    pub(super) fn add(&mut self, plan: &Plan, ended: &Ended<'_>) {
        let Ended { message, from, sent, at, said } = ended;
        self.calls = self.calls.saturating_add(1);
        self.last_end = self.last_end.max(Some(*at));
        let late = sent.saturating_duration_since(*from);
        if late > LATE {
            self.late = self.late.saturating_add(1);
        }
        self.latest = self.latest.max(late);
        if matches!(said, Ok(_) | Err(Code::DeadlineExceeded)) {
            let took = at.saturating_duration_since(*from);
            self.latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1));
        }
        match said {
            Err(code) => count(&mut self.codes, *code),
            Ok(answers) => {
                self.answers(plan, message, answers);
                // An answer for each question, or what was asked was not answered.
                if answers.len() != message.asks.len() {
                    count(&mut self.codes, Code::DataLoss);
                }
            }
        }
    }

    fn answers(&mut self, plan: &Plan, message: &Encoded, answers: &Answers) {
        for (question, answer) in message.asks.iter().zip(answers) {
            let answer = match answer {
                Ok(answer) => answer,
                Err(code) => {
                    count(&mut self.items, *code);
                    continue;
                }
            };
            if let Some(decided) = self.decisions.get_mut(place(answer.outcome)) {
                *decided = decided.saturating_add(1);
            }
            self.cached = self.cached.saturating_add(u64::from(answer.cached));
            let expected = plan
                .expected(*question)
                .filter(|expected| expected.until.is_none_or(|until| Timestamp::now() < until));
            let Some(expected) = expected else {
                self.not_judged = self.not_judged.saturating_add(1);
                continue;
            };
            let whose = expected.executed_as.unwrap_or(answer.executed_as);
            if (expected.outcome, whose) == (answer.outcome, answer.executed_as) {
                self.right = self.right.saturating_add(1);
                continue;
            }
            self.wrong = self.wrong.saturating_add(1);
            if self.examples.len() < MOST_TOLD {
                let said = format!(
                    "is {}{}; wanted {}{}",
                    answer.outcome.name(),
                    told(answer.executed_as),
                    expected.outcome.name(),
                    told(whose)
                );
                self.examples.push(Wrong { question: *question, said });
            }
        }
    }

    /// Adds what another one has counted.
    pub(super) fn merge(&mut self, other: &Self) {
        // Both have the same bounds, so this cannot fail.
        let _added = self.latency.add(&other.latency);
        for (into, from) in self.codes.iter_mut().zip(other.codes) {
            *into = into.saturating_add(from);
        }
        for (into, from) in self.items.iter_mut().zip(other.items) {
            *into = into.saturating_add(from);
        }
        for (into, from) in self.decisions.iter_mut().zip(other.decisions) {
            *into = into.saturating_add(from);
        }
        self.calls = self.calls.saturating_add(other.calls);
        self.cached = self.cached.saturating_add(other.cached);
        self.right = self.right.saturating_add(other.right);
        self.wrong = self.wrong.saturating_add(other.wrong);
        self.not_judged = self.not_judged.saturating_add(other.not_judged);
        self.late = self.late.saturating_add(other.late);
        self.latest = self.latest.max(other.latest);
        self.last_end = self.last_end.max(other.last_end);
        let room = MOST_TOLD.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.iter().take(room).cloned());
    }

    /// Begins anew, in the same memory.
    pub(super) fn clear(&mut self) {
        self.latency.reset();
        self.examples.clear();
        (self.codes, self.items, self.decisions) = ([0; CODES], [0; CODES], [0; 4]);
        (self.calls, self.cached, self.right, self.wrong) = (0, 0, 0, 0);
        (self.not_judged, self.late, self.latest, self.last_end) = (0, 0, Duration::ZERO, None);
    }

    /// Codes that calls ended with, and those that items of batches did.
    pub(super) fn errors(&self) -> [Vec<(Code, u64)>; 2] {
        [self.codes, self.items].map(|codes| {
            let codes = (0_i32..).zip(codes).filter(|(_, count)| *count > 0);
            codes.map(|(code, count)| (Code::from_i32(code), count)).collect()
        })
    }

    /// Calls that ended without answers.
    pub(super) fn failed(&self) -> u64 {
        self.codes.iter().sum()
    }

    /// By kind.
    pub(super) fn decisions(&self) -> [(Outcome, u64); 4] {
        Outcome::ALL.map(|outcome| (outcome, self.decisions.get(place(outcome)).copied().unwrap_or_default()))
    }
}

/// With whose rights, in words.
const fn told(executed_as: v1::ExecutedAs) -> &'static str {
    match executed_as {
        v1::ExecutedAs::Unspecified => "",
        v1::ExecutedAs::Agent => " as the agent",
        v1::ExecutedAs::User => " as the user",
    }
}

fn count(codes: &mut [u64; CODES], code: Code) {
    if let Some(count) = usize::try_from(code as i32).ok().and_then(|at| codes.get_mut(at)) {
        *count = count.saturating_add(1);
    }
}

const fn place(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Allowed => 0,
        Outcome::NotAllowed => 1,
        Outcome::Denied => 2,
        Outcome::Undecided => 3,
    }
}
