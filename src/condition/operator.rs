//! The operators (semantics, section 3.4): what each is called, what it compares and where it may stand.

use std::fmt;

/// What an operator takes on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// Text, compared ordinally.
    Text = 0,
    /// 64-bit integers.
    Number = 1,
    /// Instants of 100 ns.
    DateTime = 2,
    /// Truth values.
    Boolean = 3,
    /// GUIDs.
    Guid = 4,
    /// Extension: seconds of the day.
    TimeOfDay = 5,
    /// Extension: IP addresses on the left, blocks of them on the right.
    Address = 6,
    /// Extension: text, numbers or truth values, each equal to its own kind only.
    Member = 7,
}

/// What is tested; a negated operator is the complement of the same test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Test {
    Equal = 0,
    StartsWith = 1,
    Like = 2,
    EndsWith = 3,
    Contains = 4,
    Greater = 5,
    GreaterOrEqual = 6,
    Less = 7,
    LessOrEqual = 8,
    /// Left lies in the block on the right.
    Inside = 9,
    /// Left lies between two values on the right.
    Between = 10,
}

/// How a cross-product operator walks the pairs (semantics, section 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantifier {
    /// Some left value with some right value.
    ForAnyOfAnyValues,
    /// Every left value with some right value.
    ForAllOfAnyValues,
    /// Some left value with every right value.
    ForAnyOfAllValues,
    /// Every left value with every right value.
    ForAllOfAllValues,
}

/// One operator of the language or of its extension.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Operator(u8);

struct Entry {
    name: &'static str,
    family: Family,
    test: Test,
    negated: bool,
    ignore_case: bool,
    cross_product: bool,
    extension: bool,
}

const fn entry(name: &'static str, family: Family, test: Test) -> Entry {
    Entry { name, family, test, negated: false, ignore_case: false, cross_product: false, extension: false }
}

impl Entry {
    const fn not(self) -> Self {
        Self { negated: true, ..self }
    }

    const fn folded(self) -> Self {
        Self { ignore_case: true, ..self }
    }

    const fn crossed(self) -> Self {
        Self { cross_product: true, ..self }
    }

    const fn extension(self) -> Self {
        Self { extension: true, ..self }
    }
}

/// Azure's operators first, then those of the extension.
const TABLE: &[Entry] = &{
    use Family::{Address, Boolean, DateTime, Guid, Member, Number, Text, TimeOfDay};
    use Test::{
        Between, Contains, EndsWith, Equal, Greater, GreaterOrEqual, Inside, Less, LessOrEqual, Like,
        StartsWith,
    };
    [
        entry("StringEquals", Text, Equal).crossed(),
        entry("StringNotEquals", Text, Equal).not().crossed(),
        entry("StringStartsWith", Text, StartsWith),
        entry("StringNotStartsWith", Text, StartsWith).not(),
        entry("StringLike", Text, Like).crossed(),
        entry("StringNotLike", Text, Like).not().crossed(),
        entry("StringEqualsIgnoreCase", Text, Equal).folded().crossed(),
        entry("StringNotEqualsIgnoreCase", Text, Equal).not().folded().crossed(),
        entry("StringStartsWithIgnoreCase", Text, StartsWith).folded(),
        entry("StringNotStartsWithIgnoreCase", Text, StartsWith).not().folded(),
        entry("StringLikeIgnoreCase", Text, Like).folded().crossed(),
        entry("StringNotLikeIgnoreCase", Text, Like).not().folded().crossed(),
        entry("NumericEquals", Number, Equal).crossed(),
        entry("NumericNotEquals", Number, Equal).not().crossed(),
        entry("NumericGreaterThan", Number, Greater).crossed(),
        entry("NumericGreaterThanEquals", Number, GreaterOrEqual).crossed(),
        entry("NumericLessThan", Number, Less).crossed(),
        entry("NumericLessThanEquals", Number, LessOrEqual).crossed(),
        entry("DateTimeEquals", DateTime, Equal),
        entry("DateTimeNotEquals", DateTime, Equal).not(),
        entry("DateTimeGreaterThan", DateTime, Greater),
        entry("DateTimeGreaterThanEquals", DateTime, GreaterOrEqual),
        entry("DateTimeLessThan", DateTime, Less),
        entry("DateTimeLessThanEquals", DateTime, LessOrEqual),
        entry("BoolEquals", Boolean, Equal),
        entry("BoolNotEquals", Boolean, Equal).not(),
        entry("GuidEquals", Guid, Equal).crossed(),
        entry("GuidNotEquals", Guid, Equal).not().crossed(),
        entry("StringContains", Text, Contains).extension(),
        entry("StringNotContains", Text, Contains).not().extension(),
        entry("StringEndsWith", Text, EndsWith).extension(),
        entry("StringNotEndsWith", Text, EndsWith).not().extension(),
        entry("NumericInRange", Number, Between).extension(),
        entry("TimeOfDayEquals", TimeOfDay, Equal).extension(),
        entry("TimeOfDayNotEquals", TimeOfDay, Equal).not().extension(),
        entry("TimeOfDayGreaterThan", TimeOfDay, Greater).extension(),
        entry("TimeOfDayGreaterThanEquals", TimeOfDay, GreaterOrEqual).extension(),
        entry("TimeOfDayLessThan", TimeOfDay, Less).extension(),
        entry("TimeOfDayLessThanEquals", TimeOfDay, LessOrEqual).extension(),
        entry("TimeOfDayInRange", TimeOfDay, Between).extension(),
        entry("IpMatch", Address, Inside).extension(),
        entry("IpNotMatch", Address, Inside).not().extension(),
        entry("IpInRange", Address, Between).extension(),
        entry("ListContains", Member, Equal).extension(),
        entry("ListNotContains", Member, Equal).not().extension(),
    ]
};

/// Names of another evaluator's dialect that are never offered, with what to do instead.
pub(super) const REFUSED: &[(&str, &str)] = &[
    ("StringMatches", "regular expressions are not offered; use `StringLike` with `*` and `?`"),
    ("StringNotMatches", "regular expressions are not offered; use `StringNotLike` with `*` and `?`"),
    ("ToLower", "compare with an operator that ends in `IgnoreCase`"),
    ("ToUpper", "compare with an operator that ends in `IgnoreCase`"),
    ("Trim", "send the attribute without the blanks"),
    ("NormalizeSet", "cross-product operators need no sets"),
    ("NormalizeList", "cross-product operators need no sets"),
    ("AddDays", "write the date that is meant"),
    ("ToTime", "write the time that is meant"),
];

// === impl Operator ===

impl Operator {
    /// By name, letter case ignored.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::all().find(|operator| operator.name().eq_ignore_ascii_case(name))
    }

    /// All of them, the extension's behind the others.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).zip(TABLE).map(|(index, _)| Self(index))
    }

    fn entry(self) -> &'static Entry {
        const FALLBACK: &Entry = &entry("StringEquals", Family::Text, Test::Equal);
        TABLE.get(usize::from(self.0)).unwrap_or(FALLBACK)
    }

    /// As the documents write it.
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// What it compares.
    pub fn family(self) -> Family {
        self.entry().family
    }

    pub(super) fn test(self) -> Test {
        self.entry().test
    }

    /// Whether it is the complement of its test.
    pub fn is_negated(self) -> bool {
        self.entry().negated
    }

    /// Whether it ignores letter case.
    pub fn ignores_case(self) -> bool {
        self.entry().ignore_case
    }

    /// Whether it may stand behind a quantifier.
    pub fn is_cross_product(self) -> bool {
        self.entry().cross_product
    }

    /// Whether it is no part of Azure's language.
    pub fn is_extension(self) -> bool {
        self.entry().extension
    }

    /// Whether its right side is a pair of bounds.
    pub(super) fn takes_bounds(self) -> bool {
        self.test() == Test::Between
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

// === impl Quantifier ===

impl Quantifier {
    /// In the order of the documents.
    pub const ALL: [Self; 4] =
        [Self::ForAnyOfAnyValues, Self::ForAllOfAnyValues, Self::ForAnyOfAllValues, Self::ForAllOfAllValues];

    /// By name, letter case ignored.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|quantifier| quantifier.name().eq_ignore_ascii_case(name))
    }

    /// As the documents write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ForAnyOfAnyValues => "ForAnyOfAnyValues",
            Self::ForAllOfAnyValues => "ForAllOfAnyValues",
            Self::ForAnyOfAllValues => "ForAnyOfAllValues",
            Self::ForAllOfAllValues => "ForAllOfAllValues",
        }
    }

    /// Whether every left value must do.
    pub(super) const fn all_left(self) -> bool {
        matches!(self, Self::ForAllOfAnyValues | Self::ForAllOfAllValues)
    }

    /// Whether a left value must do with every right value.
    pub(super) const fn all_right(self) -> bool {
        matches!(self, Self::ForAnyOfAllValues | Self::ForAllOfAllValues)
    }
}

/// The known name nearest to one that is not known, if any is near enough to have been meant.
pub(super) fn nearest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (written.len() / 4).clamp(1, 4);
    known
        .filter(|name| name.len().abs_diff(written.len()) <= limit)
        .map(|name| (distance(written, name), name))
        .filter(|&(distance, _)| distance <= limit)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, name)| name)
}

/// How many letters have to be changed, added, left out or swapped with their neighbour, letter case ignored.
fn distance(left: &str, right: &str) -> usize {
    let (left, right) = (left.to_ascii_lowercase(), right.to_ascii_lowercase());
    let right: Vec<char> = right.chars().collect();
    let mut older: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    let mut last_left = None;
    for (row, l) in left.chars().enumerate() {
        let mut current = vec![row + 1];
        let mut last_right = None;
        for (column, &r) in right.iter().enumerate() {
            let at = |line: &[usize], column: usize| line.get(column).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&above, column) + usize::from(l != r))
                .min(at(&above, column + 1) + 1)
                .min(at(&current, column) + 1);
            if last_left == Some(r) && last_right == Some(l) && column > 0 {
                best = best.min(at(&older, column - 1) + 1);
            }
            current.push(best);
            last_right = Some(r);
        }
        older = std::mem::replace(&mut above, current);
        last_left = Some(l);
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_their_operator() {
        for operator in Operator::all() {
            assert_eq!(Operator::from_name(&operator.name().to_lowercase()), Some(operator));
        }
        assert_eq!(Operator::all().count(), TABLE.len());
        assert_eq!(Operator::all().filter(|operator| !operator.is_extension()).count(), 28);
    }

    #[test]
    fn negated_operators_have_their_positive() {
        for operator in Operator::all().filter(|operator| operator.is_negated()) {
            let positive = Operator::from_name(&operator.name().replacen("Not", "", 1)).unwrap();
            assert!(!positive.is_negated());
            assert_eq!(
                (positive.family(), positive.test(), positive.ignores_case(), positive.is_cross_product()),
                (operator.family(), operator.test(), operator.ignores_case(), operator.is_cross_product())
            );
        }
    }

    #[test]
    fn suggestions() {
        let meant = |written| nearest(written, Operator::all().map(Operator::name));
        assert_eq!(meant("StringEqual"), Some("StringEquals"));
        assert_eq!(meant("StirngEquals"), Some("StringEquals"));
        assert_eq!(meant("stringequalsIgnorCase"), Some("StringEqualsIgnoreCase"));
        assert_eq!(meant("NumericLesThan"), Some("NumericLessThan"));
        assert_eq!(meant("Bananas"), None);
        assert_eq!(meant(""), None);
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
