//! How long signed metadata holds.

use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// A duration such as `1d`, `12h` or `P90D`, in the UTC calendar.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime(Span);

/// How long each of the four files holds.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// The root: its keys lie offline, and fetching them is work.
    pub root: Lifetime,
    /// The targets: what was published.
    pub targets: Lifetime,
    /// The snapshot.
    pub snapshot: Lifetime,
    /// The timestamp: how long a publication can be withheld before it shows.
    pub timestamp: Lifetime,
}

impl Lifetime {
    /// So many days.
    pub fn days(days: i32) -> Self {
        Self(Span::new().days(days))
    }

    /// When what is signed now ends, on a whole second; `None` beyond the last representable time.
    pub fn after(self, now: Timestamp) -> Option<Timestamp> {
        let end = now.to_zoned(TimeZone::UTC).checked_add(self.0).ok()?.timestamp();
        Timestamp::from_second(end.as_second()).ok()
    }
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            root: Lifetime::days(365),
            targets: Lifetime::days(90),
            snapshot: Lifetime::days(90),
            timestamp: Lifetime::days(7),
        }
    }
}

impl FromStr for Lifetime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span: Option<Span> = text.parse().ok();
        span.filter(|span| span.is_positive())
            .map(Self)
            .ok_or_else(|| "wanted a duration such as `12h`, `1d`, `90d` or `P1Y`".to_owned())
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let now: Timestamp = "2026-01-31T10:00:00.5Z".parse().unwrap();
        for (text, end) in [
            ("1d", "2026-02-01T10:00:00Z"),
            ("12h", "2026-01-31T22:00:00Z"),
            ("1h30m", "2026-01-31T11:30:00Z"),
            ("P90D", "2026-05-01T10:00:00Z"),
            ("1y", "2027-01-31T10:00:00Z"),
        ] {
            let end: Timestamp = end.parse().unwrap();
            assert_eq!(text.parse::<Lifetime>().unwrap().after(now), Some(end), "{text}");
        }
        for text in ["", "1", "-1d", "0s", "soon"] {
            assert!(text.parse::<Lifetime>().is_err(), "{text}");
        }
    }
}
