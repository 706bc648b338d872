//! Writes JSON straight into bytes: a tree of values for each record would cost more than the decision it tells of.

use jiff::Timestamp;

/// The inside of one object.
#[derive(Debug)]
pub struct Json<'o>(&'o mut Vec<u8>);

impl<'o> Json<'o> {
    /// Writes behind what is there.
    pub const fn new(out: &'o mut Vec<u8>) -> Self {
        Self(out)
    }

    /// Begins an object.
    pub fn open(&mut self) {
        self.separate();
        self.0.push(b'{');
    }

    /// Ends it.
    pub fn close(&mut self) {
        self.0.push(b'}');
    }

    /// Begins a list.
    pub fn open_list(&mut self) {
        self.separate();
        self.0.push(b'[');
    }

    /// Ends it.
    pub fn close_list(&mut self) {
        self.0.push(b']');
    }

    /// Names the value that follows.
    pub fn key(&mut self, name: &str) {
        self.string(name);
        self.0.push(b':');
    }

    /// A member with a number of so many hexadecimal digits, as a text.
    pub fn hex_member<const DIGITS: usize>(&mut self, name: &str, number: u128) {
        const DIGIT: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [b'0'; DIGITS];
        for (place, digit) in digits.iter_mut().rev().enumerate() {
            let nibble = (number >> (4 * place) & 0xf) as usize;
            *digit = DIGIT.get(nibble).copied().unwrap_or(b'0');
        }
        self.key(name);
        self.0.push(b'"');
        self.0.extend_from_slice(&digits);
        self.0.push(b'"');
    }

    /// A text.
    pub fn string(&mut self, text: &str) {
        self.separate();
        if is_plain(text) {
            self.0.push(b'"');
            self.0.extend_from_slice(text.as_bytes());
            self.0.push(b'"');
        } else {
            // Memory takes everything, and a text is always JSON.
            let _always = serde_json::to_writer(&mut *self.0, text);
        }
    }

    /// What is JSON already.
    pub fn raw(&mut self, json: &[u8]) {
        self.separate();
        self.0.extend_from_slice(json);
    }

    /// A point in time as RFC 3339 has it, in UTC; `last` is what was printed of the time before.
    pub fn time_member(&mut self, name: &str, at: Timestamp, last: &mut LastTime) {
        self.key(name);
        self.separate();
        last.write(at, self.0);
    }

    /// A number, `true`, `false` or `null`, or a time in quotes: what prints as JSON already.
    pub fn plain(&mut self, value: impl std::fmt::Display) {
        use std::io::Write;

        self.separate();
        let _always = write!(self.0, "{value}");
    }

    /// A member with a text.
    pub fn member(&mut self, name: &str, text: &str) {
        self.key(name);
        self.string(text);
    }

    /// A member that prints as JSON already.
    pub fn plain_member(&mut self, name: &str, value: impl std::fmt::Display) {
        self.key(name);
        self.plain(value);
    }

    /// A comma between one value and the next: behind everything but what opens or names.
    fn separate(&mut self) {
        if !matches!(self.0.last(), None | Some(b'{' | b'[' | b':' | b'\n')) {
            self.0.push(b',');
        }
    }
}

/// Nothing of it is escaped. Looks at all of it without a branch, which is faster than finding the first place.
fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |plain, byte| plain & (byte >= 0x20) & (byte != b'"') & (byte != b'\\'))
}

/// Seconds change rarely, and spelling them out takes longer than anything else of a record.
#[derive(Debug, Default)]
pub struct LastTime {
    second: Option<i64>,
    /// All of it up to the dot.
    text: String,
}

impl LastTime {
    fn write(&mut self, at: Timestamp, out: &mut Vec<u8>) {
        use std::fmt::Write as _;
        use std::io::Write as _;

        let (second, nanos) = (at.as_second(), at.subsec_nanosecond());
        // Before 1970 the two parts do not stand behind each other.
        let (Ok(mut rest), 0..) = (u32::try_from(nanos), second) else {
            let _always = std::io::Write::write_fmt(out, format_args!("\"{at}\""));
            return;
        };
        if self.second != Some(second) {
            self.second = Some(second);
            self.text.clear();
            let whole = Timestamp::from_second(second).unwrap_or(at);
            let _always = write!(self.text, "\"{whole}");
            self.text.pop();
        }
        out.extend_from_slice(self.text.as_bytes());
        if rest > 0 {
            let mut digits = *b".000000000";
            let mut end = 1;
            for (place, digit) in digits.iter_mut().enumerate().skip(1).rev() {
                let value = (rest % 10) as u8;
                *digit = b'0' + value;
                rest /= 10;
                // Zeros at the end are left out.
                if value != 0 && end == 1 {
                    end = place.saturating_add(1);
                }
            }
            let _always = out.write_all(digits.get(..end).unwrap_or_default());
        }
        out.extend_from_slice(b"Z\"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_and_quotes() {
        let mut out = b"before\n".to_vec();
        let mut json = Json::new(&mut out);
        json.open();
        json.member("a", "x:{[\"\n");
        json.key("b");
        json.open_list();
        json.plain(1);
        json.string(":");
        json.plain(true);
        json.open();
        json.close();
        json.close_list();
        json.plain_member("c", "null");
        json.hex_member::<4>("d", 0x0a9f);
        json.hex_member::<32>("e", u128::MAX >> 4);
        json.close();
        let e = format!("0{}", "f".repeat(31));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!(
                "before\n{{\"a\":\"x:{{[\\\"\\n\",\"b\":[1,\":\",true,{{}}],\"c\":null,\"d\":\"0a9f\",\"e\":\"{e}\"}}"
            )
        );
    }

    #[test]
    fn times_are_as_they_print() {
        let mut last = LastTime::default();
        let second = 1_700_000_000;
        for (second, nanos) in [
            (second, 0),
            (second, 1),
            (second, 100_000_000),
            (second, 120_003_000),
            (second, 999_999_999),
            (second + 1, 5_000),
            (second, 5_000),
            (0, 1),
            (-1, 1),
            (-62_000_000_000, 0),
        ] {
            let at = Timestamp::new(second, nanos).unwrap();
            let mut out = Vec::new();
            Json::new(&mut out).time_member("t", at, &mut last);
            assert_eq!(String::from_utf8(out).unwrap(), format!("\"t\":\"{at}\""));
        }
    }
}
