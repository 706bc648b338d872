//! Reading values of one kind from text: integers, dates, times of day, GUIDs, addresses (semantics, sections 3.3
//! and 3.4). The same functions read literals when a condition is parsed and attribute values when it is evaluated.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::model::Guid;

/// 100 ns.
pub(super) const TICKS_PER_SECOND: i64 = 10_000_000;

/// Seconds of a day.
pub(super) const SECONDS_PER_DAY: i64 = 86_400;

/// An integer in decimal digits, with `-` in front when negative; no `+`, no fraction, no exponent, no blanks.
pub(super) fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// The integer of an attribute value. Reading stays short whatever is sent: no integer needs 64 characters.
pub(super) fn integer_value(text: &str) -> Option<i64> {
    (text.len() <= 64).then(|| integer(text)).flatten()
}

/// `true` or `false`, letter case ignored.
pub(super) const fn boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// `{8-4-4-4-12}`.
const LONGEST_GUID: usize = 38;

/// The GUID of an attribute value: any spelling, braces included; a resource id counts by its last segment.
pub(super) fn guid(text: &str) -> Option<u128> {
    // No further back than the longest spelling and a slash reach.
    let from = text.len().saturating_sub(LONGEST_GUID + 1);
    let tail = text.as_bytes().get(from..).unwrap_or_default();
    let last = match memchr::memrchr(b'/', tail) {
        Some(slash) => text.get(from + slash + 1..)?,
        None => text,
    };
    Guid::parse(last).map(Guid::as_u128)
}

/// The GUID of a literal: with dashes or without, no braces.
pub(super) fn guid_literal(text: &str) -> Option<u128> {
    matches!(text.len(), 32 | 36).then(|| Guid::parse(text).map(Guid::as_u128)).flatten()
}

/// The instant of a point in time, in 100 ns since 1970, cut off.
pub(super) fn ticks(timestamp: Timestamp) -> i64 {
    i64::try_from(timestamp.as_nanosecond().div_euclid(100)).unwrap_or(i64::MAX)
}

/// The point in time of an instant.
pub(super) fn timestamp(ticks: i64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(i128::from(ticks).checked_mul(100)?).ok()
}

/// The instant of `YYYY-MM-DDThh:mm:ss[.f]` with one to seven digits of fraction and `Z` or `±hh:mm`, in 100 ns
/// since 1970 (semantics, section 3.3 and section 10 row 12).
pub(super) fn date_time(text: &str) -> Option<i64> {
    let mut rest = Digits(text.as_bytes());
    let year = rest.number(4)?;
    rest.mark(b'-')?;
    let month = rest.number(2)?;
    rest.mark(b'-')?;
    let day = rest.number(2)?;
    rest.mark(b'T')?;
    let hour = rest.number(2)?;
    rest.mark(b':')?;
    let minute = rest.number(2)?;
    rest.mark(b':')?;
    let second = rest.number(2)?;
    let fraction = if rest.mark(b'.').is_some() { rest.fraction()? } else { 0 };
    let offset = if rest.mark(b'Z').is_some() {
        0
    } else {
        let sign = if rest.mark(b'+').is_some() {
            1
        } else {
            rest.mark(b'-')?;
            -1
        };
        let hours = rest.number(2)?;
        rest.mark(b':')?;
        let minutes = rest.number(2)?;
        if hours > 23 || minutes > 59 {
            return None;
        }
        sign * (hours * 60 + minutes) * 60
    };
    if !rest.0.is_empty() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days(year, month, day)?;
    let seconds = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset;
    Some(seconds * TICKS_PER_SECOND + fraction)
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar, years 1 to 9999.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if year == 0 || day == 0 || day > length {
        return None;
    }
    // Years counted from March, so that the leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    Some(365 * year + year / 4 - year / 100 + year / 400 + of_year - 719_468)
}

/// Seconds of the day of `HH:MM[:SS]` (semantics, section 3.4, extensions).
pub(super) fn time_of_day(text: &str) -> Option<i64> {
    let mut rest = Digits(text.as_bytes());
    let hour = rest.number(2)?;
    rest.mark(b':')?;
    let minute = rest.number(2)?;
    let second = if rest.mark(b':').is_some() { rest.number(2)? } else { 0 };
    (rest.0.is_empty() && hour < 24 && minute < 60 && second < 60)
        .then_some(hour * 3600 + minute * 60 + second)
}

struct Digits<'a>(&'a [u8]);

impl Digits<'_> {
    fn number(&mut self, count: usize) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        let mut value = 0;
        for &digit in digits {
            if !digit.is_ascii_digit() {
                return None;
            }
            value = value * 10 + i64::from(digit - b'0');
        }
        self.0 = rest;
        Some(value)
    }

    fn mark(&mut self, mark: u8) -> Option<()> {
        let (&first, rest) = self.0.split_first()?;
        (first == mark).then(|| self.0 = rest)
    }

    /// One to seven digits as 100 ns.
    fn fraction(&mut self) -> Option<i64> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=7).contains(&count) {
            return None;
        }
        let mut value = self.number(count)?;
        for _ in count..7 {
            value *= 10;
        }
        Some(value)
    }
}

/// A run of IP addresses as 128-bit numbers, ends included. IPv4 lies where IPv6 maps it, `::ffff:0:0/96`, so a
/// mapped address is the IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) low: u128,
    pub(super) high: u128,
}

const fn is_v4(address: u128) -> bool {
    address >> 32 == 0xFFFF
}

impl Block {
    /// Whether an address lies inside. An IPv6 block never holds IPv4 addresses, however wide it is.
    pub(super) const fn contains(self, address: u128) -> bool {
        is_v4(address) == (is_v4(self.low) && is_v4(self.high)) && self.low <= address && address <= self.high
    }

    /// An address, or a block in CIDR notation; bits behind the prefix do not matter.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let Some((base, prefix)) = text.split_once('/') else {
            let address = address(text)?;
            return Some(Self { low: address, high: address });
        };
        if !(1..=3).contains(&prefix.len()) || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let prefix: u32 = prefix.parse().ok()?;
        let prefix = match base.parse().ok()? {
            IpAddr::V4(_) if prefix <= 32 => prefix + 96,
            IpAddr::V6(_) if prefix <= 128 => prefix,
            IpAddr::V4(_) | IpAddr::V6(_) => return None,
        };
        let behind = u128::MAX.checked_shr(prefix).unwrap_or(0);
        let base = address(base)?;
        Some(Self { low: base & !behind, high: base | behind })
    }

    /// From one bound to the other, both of one family.
    pub(super) fn between(low: &str, high: &str) -> Option<Self> {
        let (low, high) = (address(low)?, address(high)?);
        (is_v4(low) == is_v4(high)).then_some(Self { low, high })
    }
}

/// An address as a number, IPv4 where IPv6 maps it.
pub(super) fn address(text: &str) -> Option<u128> {
    match text.parse().ok()? {
        IpAddr::V4(v4) => Some(u128::from(v4.to_ipv6_mapped())),
        IpAddr::V6(v6) => Some(u128::from(v6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let at = |text: &str| date_time(text).map(|ticks| timestamp(ticks).unwrap().to_string());
        assert_eq!(at("2022-06-01T23:38:32.8883645Z").as_deref(), Some("2022-06-01T23:38:32.8883645Z"));
        assert_eq!(at("2024-02-29T00:00:00+05:30").as_deref(), Some("2024-02-28T18:30:00Z"));
        assert_eq!(at("1969-12-31T23:59:59.9-00:00").as_deref(), Some("1969-12-31T23:59:59.9Z"));
        assert_eq!(at("0001-01-01T00:00:00Z").as_deref(), Some("0001-01-01T00:00:00Z"));
        // Beyond the last timestamp of the library, which no clock will reach.
        assert_eq!(date_time("9999-12-31T23:59:59.9999999Z"), Some(2_534_023_007_999_999_999));
        for wrong in [
            "",
            "yesterday",
            "2022-06-01",
            "2022-06-01T23:38Z",
            "2022-06-01T23:38:32",
            "2022-06-01t23:38:32Z",
            "2022-06-01T23:38:32z",
            "2022-06-01 23:38:32Z",
            "2022-06-01T23:38:32.Z",
            "2022-06-01T23:38:32.12345678Z",
            "2022-06-01T24:00:00Z",
            "2022-06-01T23:59:60Z",
            "2022-06-01T23:60:00Z",
            "2022-06-01T23:38:32+0530",
            "2022-06-01T23:38:32+05",
            "2022-06-01T23:38:32+24:00",
            "2022-06-31T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2022-13-01T00:00:00Z",
            "2022-00-01T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "2022-06-01T00:00:00Z ",
            "22-06-01T00:00:00Z",
            "+2022-06-01T00:00:00Z",
        ] {
            assert_eq!(date_time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_day_agrees_with_the_library() {
        let mut expected = ticks("0001-01-01T00:00:00Z".parse().unwrap());
        for year in 1..=9999 {
            for month in 1..=12 {
                for day in 1..=31 {
                    if let Some(days) = days(year, month, day) {
                        assert_eq!(
                            days * SECONDS_PER_DAY * TICKS_PER_SECOND,
                            expected,
                            "{year}-{month}-{day}"
                        );
                        expected += SECONDS_PER_DAY * TICKS_PER_SECOND;
                    }
                }
            }
        }
    }

    #[test]
    fn integers_and_booleans() {
        assert_eq!(integer("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(integer("007"), Some(7));
        for wrong in ["", "-", "+5", "5.0", "5e3", " 5", "5 ", "9223372036854775808", "٣"] {
            assert_eq!(integer(wrong), None, "{wrong}");
        }
        assert_eq!(integer_value(&format!("{:0>64}", 7)), Some(7));
        assert_eq!(integer_value(&format!("{:0>65}", 7)), None);
        assert_eq!(boolean("TRUE"), Some(true));
        assert_eq!(boolean("yes"), None);
    }

    #[test]
    fn guids() {
        let expected = Some(0x08d4_c71a_cc63_4ce4_a9c8_5dd2_51b4_d619);
        for text in [
            "08d4c71acc634ce4a9c85dd251b4d619",
            "{08D4C71A-CC63-4CE4-A9C8-5DD251B4D619}",
            "/providers/Microsoft.Authorization/roleDefinitions/08d4c71a-cc63-4ce4-a9c8-5dd251b4d619",
        ] {
            assert_eq!(guid(text), expected, "{text}");
        }
        assert_eq!(guid("/{08d4c71a-cc63-4ce4-a9c8-5dd251b4d619}"), expected);
        assert_eq!(guid("é/{08d4c71a-cc63-4ce4-a9c8-5dd251b4d619}"), expected);
        assert_eq!(guid("ééééééééééééééééééééééééééééééé"), None);
        assert_eq!(guid("08d4c71acc634ce4a9c85dd251b4d619/"), None);
        assert_eq!(guid_literal("{08d4c71a-cc63-4ce4-a9c8-5dd251b4d619}"), None);
        assert_eq!(guid_literal("{08d4c71acc634ce4a9c85dd251b4d619}"), None);
        assert_eq!(guid_literal("08d4c71a-cc63-4ce4-a9c8-5dd251b4d619"), expected);
    }

    #[test]
    fn addresses() {
        let inside = |block: &str, text: &str| Block::parse(block).unwrap().contains(address(text).unwrap());
        assert!(inside("10.0.0.0/24", "10.0.0.8"));
        assert!(inside("10.0.0.77/24", "10.0.0.8"));
        assert!(!inside("10.0.0.0/24", "10.0.1.0"));
        assert!(inside("10.0.0.0/8", "::ffff:10.2.3.4"), "mapped IPv6 is IPv4");
        assert!(inside("::ffff:10.0.0.0/104", "10.2.3.4"));
        assert!(inside("0.0.0.0/0", "255.255.255.255"));
        assert!(inside("2001:db8::/32", "2001:db8::1"));
        assert!(inside("::/0", "2001:db8::1"));
        assert!(!inside("::/0", "10.0.0.1"), "another family");
        assert!(!inside("0.0.0.0/0", "::1"));
        assert!(inside("::1/128", "::1"));
        for wrong in ["", "10.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "::/129", "10.0.0.0/8/8", "x"]
        {
            assert_eq!(Block::parse(wrong), None, "{wrong}");
        }
        assert!(Block::between("10.0.0.9", "10.0.0.10").unwrap().contains(address("10.0.0.10").unwrap()));
        assert_eq!(Block::between("10.0.0.9", "::1"), None);
    }

    #[test]
    fn times_of_day() {
        assert_eq!(time_of_day("12:30:15"), Some(45_015));
        assert_eq!(time_of_day("08:00"), Some(28_800));
        for wrong in ["8:00", "24:00", "12:60", "12:30:60", "12:30:", "12", "12:30:15Z"] {
            assert_eq!(time_of_day(wrong), None, "{wrong}");
        }
    }
}
