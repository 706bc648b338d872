//! What is recorded, where to, and what happens when there is too much of it.

use std::path::PathBuf;
use std::time::Duration;

use super::mask::{Hasher, Masks};

/// Settings of the recorder.
#[derive(Clone, Debug)]
pub struct RecordSettings {
    /// Where records go; at least one.
    pub sinks: Vec<SinkSettings>,
    /// Which decisions.
    pub keep: KeepRules,
    /// What of them.
    pub masks: Masks,
    /// How it is hashed.
    pub hasher: Hasher,
    /// Records that may wait.
    pub queue: usize,
    /// Bytes of the questions that wait, about.
    pub queue_bytes: usize,
    /// What happens when they do.
    pub when_full: WhenFull,
}

/// One place that records go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkSettings {
    /// Standard output.
    Stdout,
    /// A file that is rotated.
    File(FileSettings),
    /// OTLP logs, as the `OTEL_…` variables say.
    Otlp,
}

/// A file of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSettings {
    /// The newest.
    pub path: PathBuf,
    /// It is rotated before it gets larger; 0 never.
    pub max_bytes: u64,
    /// Files in all, the newest included.
    pub max_files: u32,
}

/// What happens to a record for which there is no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It is lost.
    #[default]
    DropNewest,
    /// The one that has waited longest is.
    DropOldest,
    /// The answer waits until there is room, this long at most; then the record is lost.
    Block(Duration),
}

/// Which decisions are recorded, by outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepRules([Keep; 4]);

/// How many of the decisions with one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Every one.
    All,
    /// None.
    None,
    /// One in so many, by chance.
    OneIn(u32),
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A role assignment grants.
    Allowed,
    /// Nothing grants.
    NotAllowed,
    /// A deny assignment blocks.
    Denied,
    /// There is no decision.
    Undecided,
}

// === impls ===

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Allowed, Self::NotAllowed, Self::Denied, Self::Undecided];

    /// The name on every interface.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "Allowed",
            Self::NotAllowed => "NotAllowed",
            Self::Denied => "Denied",
            Self::Undecided => "Undecided",
        }
    }

    /// The name in rules.
    const fn rule(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::NotAllowed => "not-allowed",
            Self::Denied => "denied",
            Self::Undecided => "undecided",
        }
    }
}

impl RecordSettings {
    /// Whether records go over OTLP.
    pub fn over_otlp(&self) -> bool {
        self.sinks.contains(&SinkSettings::Otlp)
    }
}

impl SinkSettings {
    /// The name in metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::File(_) => "file",
            Self::Otlp => "otlp",
        }
    }
}

impl Default for KeepRules {
    fn default() -> Self {
        Self([Keep::All; 4])
    }
}

impl KeepRules {
    /// The rule for one outcome.
    pub fn of(self, outcome: Outcome) -> Keep {
        self.0.get(outcome as usize).copied().unwrap_or(Keep::All)
    }

    /// Reads rules such as `allowed=1/100,denied=all`; `all` or `none` alone is for every outcome, and an outcome
    /// that is not named is kept.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "all" => return Some(Self::default()),
            "none" => return Some(Self([Keep::None; 4])),
            _ => {}
        }
        let mut rules: [Option<Keep>; 4] = [None; 4];
        for rule in text.split(',') {
            let (name, keep) = rule.split_once('=')?;
            let outcome = Outcome::ALL.into_iter().find(|outcome| outcome.rule() == name.trim())?;
            let slot = rules.get_mut(outcome as usize)?;
            // An outcome that is named twice is a slip.
            if slot.replace(Keep::parse(keep.trim())?).is_some() {
                return None;
            }
        }
        Some(Self(rules.map(|rule| rule.unwrap_or(Keep::All))))
    }
}

impl Keep {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "all" => Some(Self::All),
            "none" => Some(Self::None),
            _ => {
                let number = text.strip_prefix("1/")?;
                let digits = number.bytes().all(|byte| byte.is_ascii_digit());
                let number: u32 = digits.then(|| number.parse().ok()).flatten()?;
                (number > 0).then_some(Self::OneIn(number))
            }
        }
    }
}

impl WhenFull {
    /// Reads `drop-newest`, `drop-oldest` or `block:TIME`, at most a second: a caller waits for it.
    pub fn parse(text: &str, duration: impl Fn(&str) -> Option<Duration>) -> Option<Self> {
        match text {
            "drop-newest" => Some(Self::DropNewest),
            "drop-oldest" => Some(Self::DropOldest),
            _ => {
                let within = duration(text.strip_prefix("block:")?)?;
                (!within.is_zero() && within <= Duration::from_secs(1)).then_some(Self::Block(within))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let rules = KeepRules::parse("allowed=1/100, denied=none").unwrap();
        assert_eq!(
            Outcome::ALL.map(|outcome| rules.of(outcome)),
            [Keep::OneIn(100), Keep::All, Keep::None, Keep::All]
        );
        assert_eq!(KeepRules::parse("none").unwrap().of(Outcome::Denied), Keep::None);
        for wrong in
            ["", "some", "allowed", "allowed=", "allowed=1/0", "allowed=2/3", "allowed=1/+3", "Allowed=all"]
        {
            assert_eq!(KeepRules::parse(wrong), None, "{wrong}");
        }
        assert_eq!(KeepRules::parse("allowed=all,allowed=none"), None);
    }

    #[test]
    fn policies_of_loss() {
        let duration = |text: &str| text.strip_suffix("ms")?.parse().ok().map(Duration::from_millis);
        let parse = |text| WhenFull::parse(text, duration);
        assert_eq!(parse("drop-oldest"), Some(WhenFull::DropOldest));
        assert_eq!(parse("block:5ms"), Some(WhenFull::Block(Duration::from_millis(5))));
        for wrong in ["", "drop", "block", "block:", "block:0ms", "block:1001ms"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
