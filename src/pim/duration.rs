//! ISO 8601 durations as PIM writes them.

use std::fmt;

use jiff::fmt::temporal::SpanParser;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// A duration such as `PT8H` or `P365D` (semantics, sections 5.3 and 5.4).
///
/// Years, months, weeks and days count in the UTC calendar from where the period starts: `P1M` from 1
/// February ends on 1 March. Two durations are therefore compared only as the ends they give to one start.
#[derive(Clone, Copy, Debug)]
pub struct IsoDuration(Span);

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no ISO 8601 duration such as `PT8H` or `P365D`")]
pub struct DurationError(String);

const PARSER: SpanParser = SpanParser::new();

impl IsoDuration {
    /// Reads a duration: never negative, designators in upper case, at least one component.
    ///
    /// # Errors
    ///
    /// Anything else.
    pub fn parse(text: &str) -> Result<Self, DurationError> {
        let error = || DurationError(text.to_owned());
        // The library also reads signs and lower-case designators, which no policy writes.
        if !text.starts_with('P') || text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return Err(error());
        }
        PARSER.parse_span(text).map(Self).map_err(|_| error())
    }

    /// Where a period of this length ends; `None` beyond the last representable instant.
    pub fn after(&self, start: Timestamp) -> Option<Timestamp> {
        start.to_zoned(TimeZone::UTC).checked_add(self.0).ok().map(|end| end.timestamp())
    }
}

impl fmt::Display for IsoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_durations() {
        let start: Timestamp = "2025-01-31T10:00:00Z".parse().unwrap();
        for (text, end) in [
            ("PT8H", "2025-01-31T18:00:00Z"),
            ("PT5M", "2025-01-31T10:05:00Z"),
            ("PT0S", "2025-01-31T10:00:00Z"),
            ("PT1H30M", "2025-01-31T11:30:00Z"),
            ("PT0.5H", "2025-01-31T10:30:00Z"),
            ("P1D", "2025-02-01T10:00:00Z"),
            ("P2W", "2025-02-14T10:00:00Z"),
            ("P1M", "2025-02-28T10:00:00Z"),
            ("P365D", "2026-01-31T10:00:00Z"),
            ("P1Y", "2026-01-31T10:00:00Z"),
            ("P1DT12H", "2025-02-01T22:00:00Z"),
        ] {
            let duration = IsoDuration::parse(text).unwrap();
            assert_eq!(duration.after(start), Some(end.parse().unwrap()), "{text}");
        }
        assert_eq!(IsoDuration::parse("P9000Y").unwrap().after(start), None);
        assert_eq!(IsoDuration::parse("PT8H").unwrap().to_string(), "PT8H");
    }

    #[test]
    fn what_is_no_duration() {
        for text in
            ["", "P", "PT", "8H", "pt8h", "Pt8h", "-PT8H", "+PT8H", "P8H", "8 hours", "PT8H ", "P1.5D"]
        {
            let error = IsoDuration::parse(text).map(|read| read.to_string());
            assert_eq!(error, Err(DurationError(text.to_owned())), "{text}");
        }
    }
}
