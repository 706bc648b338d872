//! Writes JSON straight into bytes: a tree of values for each record would cost more than the decision it tells of.

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

    /// A text.
    pub fn string(&mut self, text: &str) {
        self.separate();
        // Memory takes everything, and a text is always JSON.
        let _always = serde_json::to_writer(&mut *self.0, text);
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
        json.close();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "before\n{\"a\":\"x:{[\\\"\\n\",\"b\":[1,\":\",true,{}],\"c\":null}"
        );
    }
}
