//! Which calls become spans: what the caller decided, the configured sampler for those that come without a
//! decision, and the rules that keep a span whatever either of them says. The outcome is known only at the end, so
//! a span is made at the end, with the time of its beginning; a call that makes none costs a look at a header.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

/// What is always kept. Nothing, unless told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// What a deny assignment blocks.
    pub denied: bool,
    /// What nothing grants.
    pub not_allowed: bool,
    /// What cannot be decided.
    pub undecided: bool,
    /// What has steps: prompts of agents, roles to activate.
    pub agent_steps: bool,
    /// What takes longer.
    pub slower_than: Option<Duration>,
}

/// A rule of [`Keep`] that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// A deny assignment blocks it.
    Denied,
    /// Nothing grants it.
    NotAllowed,
    /// It cannot be decided.
    Undecided,
    /// It has steps.
    AgentSteps,
    /// It took long.
    Slow,
}

/// How a call ended, as far as the rules look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ending {
    /// A deny assignment blocks it.
    pub denied: bool,
    /// Nothing grants it.
    pub not_allowed: bool,
    /// It cannot be decided.
    pub undecided: bool,
    /// It has steps.
    pub agent_steps: bool,
}

/// The sampler of the provider.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Whether the caller's flag decides where there is one.
    pub follows_parent: bool,
    /// For all others.
    pub root: Root,
}

/// A sampler that looks at no parent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Root {
    /// All.
    On,
    /// None.
    Off,
    /// This share, by the trace id.
    Ratio(f64),
}

/// In the context of a span that a rule keeps.
struct Marker;

// === impls ===

impl Keep {
    /// Whether no rule is set.
    pub const fn is_empty(&self) -> bool {
        !(self.denied || self.not_allowed || self.undecided || self.agent_steps) && self.slower_than.is_none()
    }

    /// The first rule that applies.
    pub fn rule(&self, ending: Ending, took: Duration) -> Option<Kept> {
        if self.undecided && ending.undecided {
            Some(Kept::Undecided)
        } else if self.denied && ending.denied {
            Some(Kept::Denied)
        } else if self.agent_steps && ending.agent_steps {
            Some(Kept::AgentSteps)
        } else if self.not_allowed && ending.not_allowed {
            Some(Kept::NotAllowed)
        } else if self.slower_than.is_some_and(|limit| took > limit) {
            Some(Kept::Slow)
        } else {
            None
        }
    }

    /// The rules as they are written, with what reads a time.
    pub fn parse(text: &str, time: impl Fn(&str) -> Option<Duration>) -> Option<Self> {
        let mut keep = Self::default();
        if text == "none" {
            return Some(keep);
        }
        for rule in text.split(',').map(str::trim) {
            match rule {
                "denied" => keep.denied = true,
                "not-allowed" => keep.not_allowed = true,
                "undecided" => keep.undecided = true,
                "agent-steps" => keep.agent_steps = true,
                _ => keep.slower_than = Some(time(rule.strip_prefix("slower-than=")?)?),
            }
        }
        Some(keep)
    }
}

impl Kept {
    /// The rule as it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::NotAllowed => "not-allowed",
            Self::Undecided => "undecided",
            Self::AgentSteps => "agent-steps",
            Self::Slow => "slower-than",
        }
    }

    /// A context under which a span is made whatever the sampler says.
    pub(crate) fn mark(parent: &Context) -> Context {
        parent.with_value(Marker)
    }
}

impl Sampling {
    /// What is said without a word: the caller's flag, and everything that comes without one.
    pub const DEFAULT: Self = Self { follows_parent: true, root: Root::On };

    /// Whether it is certain, without drawing a trace id, that no span comes of it: by the caller's flag, where
    /// there is one.
    pub fn never(&self, sampled: Option<bool>) -> bool {
        match sampled {
            Some(sampled) if self.follows_parent => !sampled,
            _ => self.root == Root::Off,
        }
    }

    fn sampler(self) -> Sampler {
        let root = match self.root {
            Root::On => Sampler::AlwaysOn,
            Root::Off => Sampler::AlwaysOff,
            Root::Ratio(ratio) => Sampler::TraceIdRatioBased(ratio),
        };
        if self.follows_parent { Sampler::ParentBased(Box::new(root)) } else { root }
    }
}

impl ShouldSample for Sampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        if let Some(parent) = parent.filter(|parent| parent.get::<Marker>().is_some()) {
            return SamplingResult {
                decision: SamplingDecision::RecordAndSample,
                attributes: Vec::new(),
                trace_state: parent.span().span_context().trace_state().clone(),
            };
        }
        self.sampler().should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

impl FromStr for Root {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "always_on" => Ok(Self::On),
            "always_off" => Ok(Self::Off),
            "traceidratio" => Ok(Self::Ratio(1.0)),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rules: Vec<String> = [
            (self.denied, Kept::Denied),
            (self.not_allowed, Kept::NotAllowed),
            (self.undecided, Kept::Undecided),
            (self.agent_steps, Kept::AgentSteps),
        ]
        .into_iter()
        .filter(|(set, _)| *set)
        .map(|(_, rule)| rule.name().to_owned())
        .collect();
        rules.extend(self.slower_than.map(|limit| format!("{}={limit:?}", Kept::Slow.name())));
        f.write_str(if rules.is_empty() { "none" } else { "" })?;
        f.write_str(&rules.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Option<Keep> {
        Keep::parse(text, |time| time.strip_suffix("ms")?.parse().ok().map(Duration::from_millis))
    }

    #[test]
    fn rules_as_they_are_written() {
        assert_eq!(parse("none"), Some(Keep::default()));
        let keep = parse("denied, undecided,agent-steps,slower-than=5ms").unwrap();
        assert_eq!(keep.to_string(), "denied,undecided,agent-steps,slower-than=5ms");
        for wrong in ["", "deny", "denied,none", "slower-than", "slower-than=5", "denied,,undecided"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_first_rule_that_applies() {
        let keep = parse("denied,slower-than=5ms").unwrap();
        let ending = Ending { denied: true, ..Ending::default() };
        assert_eq!(keep.rule(ending, Duration::ZERO), Some(Kept::Denied));
        assert_eq!(keep.rule(Ending::default(), Duration::from_millis(6)), Some(Kept::Slow));
        assert_eq!(keep.rule(Ending { undecided: true, ..Ending::default() }, Duration::ZERO), None);
        assert_eq!(Keep::default().rule(ending, Duration::MAX), None);
    }
}
