//! Text in branches, for people.

use std::borrow::Cow;

/// Lines, each at a depth; depth 0 are headings.
#[derive(Debug, Default)]
pub(super) struct Tree(Vec<(usize, String)>);

impl Tree {
    /// Adds a line below the last one that is less deep.
    pub(super) fn push(&mut self, depth: usize, text: impl Into<String>) {
        self.0.push((depth, text.into()));
    }

    /// All lines with their branches.
    pub(super) fn render(&self) -> String {
        // From the end: a branch is open where a later line hangs on it.
        let (mut open, mut lines) = (Vec::new(), Vec::with_capacity(self.0.len()));
        for (depth, text) in self.0.iter().rev() {
            open.resize(*depth, false);
            let mut line = String::new();
            for (level, open) in open.iter().enumerate() {
                let here = level.saturating_add(1) == *depth;
                line.push_str(match (here, open) {
                    (true, true) => "├─ ",
                    (true, false) => "└─ ",
                    (false, true) => "│  ",
                    (false, false) => "   ",
                });
            }
            line.push_str(text);
            line.push('\n');
            lines.push(line);
            if let Some(last) = open.last_mut() {
                *last = true;
            }
        }
        lines.into_iter().rev().collect()
    }
}

/// Text of a policy or a request on one line, and nothing in it that a terminal would obey.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let words = text.split(|character: char| character.is_control() || character == ' ');
    Cow::Owned(words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches() {
        let mut tree = Tree::default();
        for (depth, text) in
            [(0, "a"), (1, "b"), (2, "c"), (3, "d"), (2, "e"), (1, "f"), (2, "g"), (0, "h"), (1, "i")]
        {
            tree.push(depth, text);
        }
        let expected = "a\n├─ b\n│  ├─ c\n│  │  └─ d\n│  └─ e\n└─ f\n   └─ g\nh\n└─ i\n";
        assert_eq!(tree.render(), expected);
    }

    #[test]
    fn nothing_reaches_the_terminal() {
        assert_eq!(plain("a\n   AND\tb\u{1b}[31m"), "a AND b [31m");
        assert_eq!(plain("a  b"), "a  b");
    }
}
