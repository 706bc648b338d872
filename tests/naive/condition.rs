//! The condition language, read and evaluated the slow way: a recursive descent over characters into boxes, every
//! value a piece of JSON, every pair compared, nothing skipped.
//!
//! Sections 3 and 10 of the semantics and nothing else: it shares no code with the engine's parser or evaluator.
//! The extension of section 3.4 is not there, so that an operator of it makes a condition unreadable.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

/// Kleene's values: `None` is undefined.
pub(crate) type Truth = Option<bool>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Or(Vec<Tree>),
    And(Vec<Tree>),
    Not(Box<Tree>),
    Compare { left: Side, quantifier: Option<String>, operator: String, right: Side },
    Exists(Attribute),
    Action(String),
    SubOperation(String),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Side {
    Attribute(Attribute),
    Literals(Vec<Literal>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Text(String),
    Number(i64),
    Boolean(bool),
    Guid(String),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attribute {
    /// In lower case.
    source: String,
    path: String,
    suffix: Suffix,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suffix {
    None,
    KeyCaseSensitive,
    Keys,
}

/// What a condition is evaluated on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) action: &'a str,
    pub(crate) sub_operation: Option<&'a str>,
    pub(crate) now: Timestamp,
    /// An object with the bags `request`, `resource`, `principal` and `environment`.
    pub(crate) attributes: &'a Value,
    pub(crate) strict_wildcards: bool,
}

/// A condition that can be read.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    pub(crate) tree: Tree,
    /// AND and OR stand on one level without parentheses: an author may not write that (section 3.1).
    pub(crate) mixes: bool,
}

// === reading ===

const MOST_BYTES: usize = 8192;
const DEEPEST: usize = 256;
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];
const SOURCES: [&str; 4] = ["request", "resource", "principal", "environment"];
const QUANTIFIERS: [&str; 4] =
    ["foranyofanyvalues", "forallofanyvalues", "foranyofallvalues", "forallofallvalues"];

/// In load mode: AND before OR where no parentheses say otherwise.
pub(crate) fn parse(text: &str) -> Option<Parsed> {
    if text.len() > MOST_BYTES {
        return None;
    }
    let mut reader = Reader { text: text.chars().collect(), at: 0, mixes: false };
    let tree = reader.or(0)?;
    reader.skip_space();
    (reader.at == reader.text.len()).then_some(Parsed { tree, mixes: reader.mixes })
}

struct Reader {
    text: Vec<char>,
    at: usize,
    mixes: bool,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|c| SPACE.contains(&c)) {
            self.at += 1;
        }
    }

    /// Takes these characters if they come next, white space before them or not.
    fn take(&mut self, wanted: &str) -> bool {
        self.skip_space();
        let wanted: Vec<char> = wanted.chars().collect();
        let here = self.text[self.at..].starts_with(&wanted);
        if here {
            self.at += wanted.len();
        }
        here
    }

    /// The run of letters, digits and underscores that comes next, in lower case; nothing is taken.
    fn next_word(&mut self) -> String {
        self.skip_space();
        let run = self.text[self.at..].iter().take_while(|c| c.is_ascii_alphanumeric() || **c == '_');
        run.collect::<String>().to_ascii_lowercase()
    }

    fn take_word(&mut self, wanted: &str) -> bool {
        let here = self.next_word() == wanted;
        if here {
            self.at += wanted.len();
        }
        here
    }

    fn or(&mut self, depth: usize) -> Option<Tree> {
        let mut parts = vec![self.and(depth)?];
        while self.take_word("or") || self.take("||") {
            parts.push(self.and(depth)?);
        }
        if parts.len() == 1 {
            return parts.pop();
        }
        // Parts that are parenthesised are wrapped in an AND of one.
        if parts.iter().any(|part| matches!(part, Tree::And(parts) if parts.len() > 1)) {
            self.mixes = true;
        }
        Some(Tree::Or(parts))
    }

    fn and(&mut self, depth: usize) -> Option<Tree> {
        let mut parts = vec![self.not(depth)?];
        while self.take_word("and") || self.take("&&") {
            parts.push(self.not(depth)?);
        }
        if parts.len() == 1 { parts.pop() } else { Some(Tree::And(parts)) }
    }

    fn not(&mut self, depth: usize) -> Option<Tree> {
        if self.take_word("not") || self.take("!") {
            return (depth < DEEPEST).then(|| Some(Tree::Not(Box::new(self.not(depth + 1)?)))).flatten();
        }
        self.primary(depth)
    }

    fn primary(&mut self, depth: usize) -> Option<Tree> {
        if self.take("(") {
            if depth >= DEEPEST {
                return None;
            }
            let inner = self.or(depth + 1)?;
            // An AND or OR of one is the thing itself, and shows that parentheses stood there.
            return self.take(")").then(|| Tree::And(vec![inner]));
        }
        for (word, build) in [
            ("actionmatches", Tree::Action as fn(String) -> Tree),
            ("suboperationmatches", Tree::SubOperation),
        ] {
            if self.take_word(word) {
                let string = if self.take("{") { self.string()? } else { return None };
                return self.take("}").then(|| build(string));
            }
        }
        if self.take_word("exists") {
            return Some(Tree::Exists(self.attribute()?));
        }
        let left = self.side()?;
        let mut operator = self.operator_name();
        let mut quantifier = None;
        if QUANTIFIERS.contains(&operator.as_str()) {
            quantifier = Some(operator);
            if !self.take(":") {
                return None;
            }
            operator = self.operator_name();
        }
        let (family, crosses) = family(&operator)?;
        if quantifier.is_some() && !crosses {
            return None;
        }
        let right = self.side()?;
        for side in [&left, &right] {
            let Side::Literals(literals) = side else { continue };
            if quantifier.is_none() && literals.len() > 1 {
                return None;
            }
            let fits = |literal: &Literal| match (family, literal) {
                (Family::Text, Literal::Text(_))
                | (Family::Number, Literal::Number(_))
                | (Family::Boolean, Literal::Boolean(_))
                | (Family::Guid, Literal::Guid(_)) => true,
                (Family::Date, Literal::Text(text)) => ticks_of(text).is_some(),
                (Family::Guid, Literal::Text(text)) => plain_guid(text).is_some(),
                _ => false,
            };
            if !literals.iter().all(fits) {
                return None;
            }
        }
        Some(Tree::Compare { left, quantifier, operator, right })
    }

    fn operator_name(&mut self) -> String {
        let word = self.next_word();
        self.at += word.len();
        word
    }

    fn side(&mut self) -> Option<Side> {
        self.skip_space();
        if self.peek() == Some('@') {
            return Some(Side::Attribute(self.attribute()?));
        }
        if !self.take("{") {
            return Some(Side::Literals(vec![self.literal()?]));
        }
        let mut literals = vec![self.literal()?];
        while self.take(",") {
            literals.push(self.literal()?);
        }
        self.take("}").then_some(Side::Literals(literals))
    }

    fn literal(&mut self) -> Option<Literal> {
        self.skip_space();
        if self.peek() == Some('\'') {
            return Some(Literal::Text(self.string()?));
        }
        let bare = self.text[self.at..].iter();
        let bare: String =
            bare.take_while(|c| c.is_ascii_alphanumeric() || ['_', '.', '-'].contains(*c)).collect();
        self.at += bare.len();
        if let Some(guid) = plain_guid(&bare) {
            return Some(Literal::Guid(guid));
        }
        if bare.eq_ignore_ascii_case("true") || bare.eq_ignore_ascii_case("false") {
            return Some(Literal::Boolean(bare.eq_ignore_ascii_case("true")));
        }
        Some(Literal::Number(integer(&bare)?))
    }

    fn string(&mut self) -> Option<String> {
        if !self.take("'") {
            return None;
        }
        let mut string = String::new();
        loop {
            let c = self.peek()?;
            self.at += 1;
            if c.is_control() {
                return None;
            }
            if c != '\'' {
                string.push(c);
            } else if self.peek() == Some('\'') {
                self.at += 1;
                string.push('\'');
            } else {
                return Some(string);
            }
        }
    }

    fn attribute(&mut self) -> Option<Attribute> {
        if !self.take("@") {
            return None;
        }
        let word = self.text[self.at..].iter().take_while(|c| c.is_ascii_alphabetic());
        let source = word.collect::<String>().to_ascii_lowercase();
        self.at += source.len();
        if !SOURCES.contains(&source.as_str()) || self.peek() != Some('[') {
            return None;
        }
        self.at += 1;
        let inside: String = self.text[self.at..].iter().take_while(|c| **c != ']').collect();
        self.at += inside.chars().count();
        if self.peek() != Some(']') {
            return None;
        }
        self.at += 1;
        let inside = inside.trim_matches(SPACE);
        if inside.chars().any(|c| c.is_control() || (c.is_whitespace() && c != ' ')) {
            return None;
        }
        let mut path = inside.to_owned();
        let mut suffix = Suffix::None;
        for (text, kind) in [("<$key_case_sensitive$>", Suffix::KeyCaseSensitive), ("&$keys$&", Suffix::Keys)]
        {
            if inside.to_ascii_lowercase().ends_with(text) {
                path.truncate(inside.len() - text.len());
                suffix = kind;
                break;
            }
        }
        // What is left of a suffix is a malformed one, a second bracket is one that nobody closed, a colon has
        // something on both sides, and the suffix of a key wants a key.
        let of_suffix = ["<", ">", "&$", "$&", "["].iter().any(|rest| path.contains(rest));
        let has_key = match path.split_once(':') {
            Some((path, key)) => !path.is_empty() && !key.is_empty(),
            None => suffix != Suffix::KeyCaseSensitive,
        };
        if path.is_empty() || of_suffix || !has_key {
            return None;
        }
        Some(Attribute { source, path, suffix })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Text,
    Number,
    Date,
    Boolean,
    Guid,
}

/// What an operator compares, and whether it takes a quantifier. The name is in lower case.
fn family(operator: &str) -> Option<(Family, bool)> {
    let text = ["equals", "notequals", "like", "notlike"];
    let starts = ["startswith", "notstartswith"];
    let ordered = ["equals", "notequals", "greaterthan", "greaterthanequals", "lessthan", "lessthanequals"];
    let equal = ["equals", "notequals"];
    if let Some(rest) = operator.strip_prefix("string") {
        let rest = rest.strip_suffix("ignorecase").unwrap_or(rest);
        return if text.contains(&rest) {
            Some((Family::Text, true))
        } else if starts.contains(&rest) {
            Some((Family::Text, false))
        } else {
            None
        };
    }
    for (prefix, names, family, crosses) in [
        ("numeric", &ordered[..], Family::Number, true),
        ("datetime", &ordered[..], Family::Date, false),
        ("bool", &equal[..], Family::Boolean, false),
        ("guid", &equal[..], Family::Guid, true),
    ] {
        if operator.strip_prefix(prefix).is_some_and(|rest| names.contains(&rest)) {
            return Some((family, crosses));
        }
    }
    None
}

// === what a tree mentions ===

impl Tree {
    /// Whether a GUID operator stands anywhere in it (section 3.7).
    pub(crate) fn compares_guids(&self) -> bool {
        match self {
            Self::Or(parts) | Self::And(parts) => parts.iter().any(Self::compares_guids),
            Self::Not(part) => part.compares_guids(),
            Self::Compare { operator, .. } => operator.starts_with("guid"),
            Self::Exists(_) | Self::Action(_) | Self::SubOperation(_) => false,
        }
    }

    /// Every moment at which a comparison of a date in it with the time may change.
    pub(crate) fn moments(&self, into: &mut BTreeSet<Timestamp>) {
        match self {
            Self::Or(parts) | Self::And(parts) => parts.iter().for_each(|part| part.moments(into)),
            Self::Not(part) => part.moments(into),
            Self::Compare { left, right, .. } => {
                for side in [left, right] {
                    let Side::Literals(literals) = side else { continue };
                    for literal in literals {
                        if let Literal::Text(text) = literal {
                            moments_of(text, into);
                        }
                    }
                }
            }
            Self::Exists(_) | Self::Action(_) | Self::SubOperation(_) => {}
        }
    }
}

/// The moment that a text names, and the tick behind it.
pub(crate) fn moments_of(text: &str, into: &mut BTreeSet<Timestamp>) {
    if let Some(ticks) = ticks_of(text) {
        into.extend(
            [ticks, ticks + 1].into_iter().filter_map(|at| Timestamp::from_nanosecond(at * 100).ok()),
        );
    }
}

// === evaluating ===

pub(crate) fn evaluate(tree: &Tree, facts: &Facts<'_>) -> Truth {
    match tree {
        Tree::Or(parts) => any(parts.iter().map(|part| evaluate(part, facts)).collect()),
        Tree::And(parts) => all(parts.iter().map(|part| evaluate(part, facts)).collect()),
        Tree::Not(part) => evaluate(part, facts).map(|value| !value),
        Tree::Exists(attribute) => Some(!matches!(find(attribute, facts), Found::Nothing)),
        Tree::Action(pattern) => Some(super::action_matches(pattern, facts.action, facts.strict_wildcards)),
        Tree::SubOperation(wanted) => {
            Some(named(facts.sub_operation).is_some_and(|given| given.eq_ignore_ascii_case(wanted)))
        }
        Tree::Compare { left, quantifier, operator, right } => {
            let (left, right) = (values(left, facts)?, values(right, facts)?);
            let Some(quantifier) = quantifier else {
                return match (&left[..], &right[..]) {
                    ([left], [right]) => pair(operator, left, right),
                    _ => None,
                };
            };
            let rows: Vec<Truth> = left
                .iter()
                .map(|left| {
                    let row = right.iter().map(|right| pair(operator, left, right)).collect();
                    if quantifier.ends_with("ofanyvalues") { any(row) } else { all(row) }
                })
                .collect();
            if quantifier.starts_with("forany") { any(rows) } else { all(rows) }
        }
    }
}

fn all(values: Vec<Truth>) -> Truth {
    if values.contains(&Some(false)) {
        Some(false)
    } else if values.contains(&None) {
        None
    } else {
        Some(true)
    }
}

fn any(values: Vec<Truth>) -> Truth {
    if values.contains(&Some(true)) {
        Some(true)
    } else if values.contains(&None) {
        None
    } else {
        Some(false)
    }
}

/// An empty suboperation is none.
fn named(sub_operation: Option<&str>) -> Option<&str> {
    sub_operation.filter(|name| !name.is_empty())
}

/// One value: of the request, of the condition, or the time of the check.
#[derive(Clone, Debug)]
enum Datum {
    Json(Value),
    Now(Timestamp),
}

enum Found {
    Nothing,
    /// Two that differ only in letter case.
    Two,
    Values(Vec<Datum>),
}

fn values(side: &Side, facts: &Facts<'_>) -> Option<Vec<Datum>> {
    match side {
        Side::Literals(literals) => Some(
            literals
                .iter()
                .map(|literal| {
                    Datum::Json(match literal {
                        Literal::Text(text) | Literal::Guid(text) => text.as_str().into(),
                        Literal::Number(number) => (*number).into(),
                        Literal::Boolean(boolean) => (*boolean).into(),
                    })
                })
                .collect(),
        ),
        Side::Attribute(attribute) => match find(attribute, facts) {
            Found::Values(values) => Some(values),
            Found::Nothing | Found::Two => None,
        },
    }
}

/// Null, an empty list and an empty dictionary are missing, and so is what holds nothing else.
fn present(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(values) => values.iter().any(|value| !value.is_null()),
        Value::Object(members) => members.values().any(present),
        _ => true,
    }
}

fn find(attribute: &Attribute, facts: &Facts<'_>) -> Found {
    let Attribute { source, path, suffix } = attribute;
    if *suffix == Suffix::None {
        if source == "environment" && path.eq_ignore_ascii_case("UtcNow") {
            return Found::Values(vec![Datum::Now(facts.now)]);
        }
        if source == "request" && path.eq_ignore_ascii_case("subOperation") {
            return match named(facts.sub_operation) {
                Some(name) => Found::Values(vec![Datum::Json(name.into())]),
                None => Found::Nothing,
            };
        }
    }
    let nothing = serde_json::Map::new();
    let bag = facts.attributes.get(source).and_then(Value::as_object).unwrap_or(&nothing);
    let exact = *suffix == Suffix::KeyCaseSensitive;
    let same_key = |given: &str, wanted: &str| {
        if exact { given == wanted } else { given.eq_ignore_ascii_case(wanted) }
    };
    let split = path.split_once(':');
    let mut whole: Vec<&Value> = Vec::new();
    let mut dictionaries = Vec::new();
    for (given, value) in bag.iter().filter(|(_, value)| present(value)) {
        let same = match (split, given.split_once(':')) {
            (Some((path, key)), Some((given_path, given_key))) => {
                given_path.eq_ignore_ascii_case(path) && same_key(given_key, key)
            }
            _ => given.eq_ignore_ascii_case(path),
        };
        if same {
            whole.push(value);
        }
        if let (Some((path, _)), Value::Object(members)) = (split, value)
            && given.eq_ignore_ascii_case(path)
        {
            dictionaries.push(members);
        }
    }
    if *suffix == Suffix::Keys {
        return match &whole[..] {
            [] => Found::Nothing,
            [Value::Object(members)] => {
                let keys = members.iter().filter(|(_, value)| present(value));
                Found::Values(keys.map(|(key, _)| Datum::Json(key.as_str().into())).collect())
            }
            [_] => Found::Nothing,
            _ => Found::Two,
        };
    }
    let mut found = whole;
    if found.is_empty() {
        match (&dictionaries[..], split) {
            ([members], Some((_, key))) => {
                found = members
                    .iter()
                    .filter(|(given, value)| same_key(given, key) && present(value))
                    .map(|(_, value)| value)
                    .collect();
            }
            ([_, _, ..], _) => return Found::Two,
            _ => {}
        }
    }
    match &found[..] {
        [] => Found::Nothing,
        [Value::Array(values)] => Found::Values(values.iter().cloned().map(Datum::Json).collect()),
        [value] => Found::Values(vec![Datum::Json((*value).clone())]),
        _ => Found::Two,
    }
}

/// One value against one other; undefined where one is of the wrong type.
fn pair(operator: &str, left: &Datum, right: &Datum) -> Truth {
    let (family, _) = family(operator)?;
    let holds = match family {
        Family::Text => {
            let (mut left, mut right) = (text(left)?.to_owned(), text(right)?.to_owned());
            if operator.ends_with("ignorecase") {
                (left, right) = (upper(&left), upper(&right));
            }
            if operator.contains("like") {
                let (left, right): (Vec<_>, Vec<_>) = (left.chars().collect(), right.chars().collect());
                like(&right, &left)
            } else if operator.contains("startswith") {
                left.starts_with(&right)
            } else {
                left == right
            }
        }
        Family::Number => ordered(operator, &number(left)?, &number(right)?),
        Family::Date => ordered(operator, &ticks(left)?, &ticks(right)?),
        Family::Boolean => boolean(left)? == boolean(right)?,
        Family::Guid => guid(left)? == guid(right)?,
    };
    // "notequals", "notlike", "notstartswith": the complement.
    Some(holds != operator.contains("not"))
}

fn ordered<T: PartialOrd>(operator: &str, left: &T, right: &T) -> bool {
    if operator.ends_with("greaterthanequals") {
        left >= right
    } else if operator.ends_with("greaterthan") {
        left > right
    } else if operator.ends_with("lessthanequals") {
        left <= right
    } else if operator.ends_with("lessthan") {
        left < right
    } else {
        left == right
    }
}

fn text(value: &Datum) -> Option<&str> {
    match value {
        Datum::Json(value) => value.as_str(),
        Datum::Now(_) => None,
    }
}

fn number(value: &Datum) -> Option<i64> {
    match value {
        Datum::Json(Value::Number(number)) => number.as_i64(),
        Datum::Json(Value::String(text)) => integer(text),
        _ => None,
    }
}

fn boolean(value: &Datum) -> Option<bool> {
    match value {
        Datum::Json(Value::Bool(boolean)) => Some(*boolean),
        Datum::Json(Value::String(text)) if text.eq_ignore_ascii_case("true") => Some(true),
        Datum::Json(Value::String(text)) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn ticks(value: &Datum) -> Option<i128> {
    match value {
        Datum::Now(now) => Some(now.as_nanosecond().div_euclid(100)),
        Datum::Json(value) => ticks_of(value.as_str()?),
    }
}

/// By the last segment, with or without braces.
fn guid(value: &Datum) -> Option<String> {
    let last = text(value)?.rsplit('/').next()?;
    plain_guid(last.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(last))
}

// === single values ===

/// The digits of a GUID that is written with dashes or without.
fn plain_guid(text: &str) -> Option<String> {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let shaped = lengths == [8, 4, 4, 4, 12] || lengths == [32];
    (shaped && digits.chars().all(|c| c.is_ascii_hexdigit())).then(|| digits.to_ascii_lowercase())
}

fn integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) { None } else { text.parse().ok() }
}

/// The moment that an ISO 8601 text names, in units of 100 ns since 1970.
pub(crate) fn ticks_of(text: &str) -> Option<i128> {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let rest = shape.strip_prefix("0000-00-00T00:00:00")?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let digits = rest.chars().take_while(|c| *c == '0').count();
            if digits == 0 || digits > 7 {
                return None;
            }
            (text[20..20 + digits].to_owned(), 20 + digits)
        }
        None => (String::new(), 19),
    };
    let part = |from: usize, to: usize| text[from..to].parse::<i128>().unwrap();
    let (year, month, day) = (part(0, 4), part(5, 7), part(8, 10));
    let (hour, minute, second) = (part(11, 13), part(14, 16), part(17, 19));
    let offset = match &shape[zone..] {
        "Z" => 0,
        "+00:00" | "-00:00" => {
            let (hours, minutes) = (part(zone + 1, zone + 3), part(zone + 4, zone + 6));
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = (hours * 60 + minutes) * 60;
            if shape[zone..].starts_with('-') { -seconds } else { seconds }
        }
        _ => return None,
    };
    let leap = |year: i128| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    if !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let month = usize::try_from(month).unwrap() - 1;
    if day < 1 || day > lengths[month] {
        return None;
    }
    /// From the first day of the year 0, which is a leap year.
    const TO_1970: i128 = 719_528;
    let before = year - 1;
    let leaps = if year == 0 { 0 } else { 1 + before / 4 - before / 100 + before / 400 };
    let days = 365 * year + leaps + lengths[..month].iter().sum::<i128>() + day - 1 - TO_1970;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second - offset;
    let fraction: i128 = format!("{fraction:0<7}").parse().unwrap();
    Some(seconds * 10_000_000 + fraction)
}

/// `*` is any run, `?` one character, a backslash makes the two and itself literal.
fn like(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => (0..=text.len()).any(|skipped| like(rest, &text[skipped..])),
        ['?', rest @ ..] => !text.is_empty() && like(rest, &text[1..]),
        ['\\', wanted @ ('*' | '?' | '\\'), rest @ ..] | [wanted, rest @ ..] => {
            text.first() == Some(wanted) && like(rest, &text[1..])
        }
    }
}

/// Simple upper-case mapping: one character for one character (section 9, row 16).
fn upper(text: &str) -> String {
    text.chars()
        .map(|c| {
            let mut mapped = c.to_uppercase();
            match (mapped.next(), mapped.next()) {
                (Some(one), None) => one,
                // Characters whose full mapping is longer keep themselves, but for the Greek ones whose simple
                // mapping is the title-case form.
                _ => match c {
                    '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => {
                        char::from_u32(u32::from(c) + 8).unwrap()
                    }
                    '\u{1fb3}' | '\u{1fc3}' | '\u{1ff3}' => char::from_u32(u32::from(c) + 9).unwrap(),
                    _ => c,
                },
            }
        })
        .collect()
}
