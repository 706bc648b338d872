#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    reason = "tests"
)]
//! Draws whole small policies and questions about them, and holds the engine against the naive evaluator.
//!
//! Everything comes from tiny alphabets (a handful of principals, scopes, operations, attributes and moments, each in
//! random spelling), so that a question nearly always meets several assignments, schedules, denies, conditions and
//! groups at once. Compared are the decision, what is reported to have decided, why not, the audited denies, "cannot
//! tell" and until when the answer holds, through `Policy::evaluate`, through an authorizer whose clock is moved to
//! just before that moment and onto it with its cache on, and over gRPC.
//!
//! `POSTERN_PROPTEST_CASES` sets how many policies are drawn.

mod naive;
mod wire;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use postern::authorizer::{Authorizer, CacheSettings};
use postern::cache::CachePolicy;
use postern::clock::Clock;
use postern::condition::{self, Budget, Context, Extensions, Mode, Truth};
use postern::model::{
    Action, Attributes, CheckRequest, ConditionText, Decision, DenyAssignment, DenyEffect, Documents, Group,
    ManagementGroup, PermissionBlock, Plane, PrincipalId, RequestAttributes, RoleAssignment, RoleDefinition,
    Schedule, ScheduleKind, ScheduleShape, Scope, Spanned, Subject, Subscription, Undecided, Why, Wildcards,
    pattern_matches,
};
use postern::policy::{CompileOptions, Evaluation, Policy};
use postern::proto::v1;
use postern::snapshot::cell;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::{FileFailurePersistence, TestRunner};
use serde_json::{Map, Value, json};

// === alphabets ===

const CALLERS: [&str; 5] = [
    "a1b2c3d4-e5f6-4789-8abc-def012345678",
    "a1b2c3d4-e5f6-4789-8abc-def012345679",
    "00000000-0000-4000-8000-00000000000f",
    "alice",
    "Alice",
];
const GROUPS: [&str; 6] = [
    "c0ffee00-0000-4000-8000-00000000000a",
    "c0ffee00-0000-4000-8000-00000000000b",
    "c0ffee00-0000-4000-8000-00000000000c",
    "c0ffee00-0000-4000-8000-00000000000d",
    "team",
    "Team",
];
const EVERYONE: &str = "00000000-0000-0000-0000-000000000000";
const ROLES: usize = 3;
const SUBSCRIPTIONS: [&str; 3] = [
    "11111111-1111-1111-1111-111111111111",
    "abcdefab-cdef-abcd-efab-cdefabcdefab",
    "abcdefab-cdef-abcd-efab-cdefabcdefac",
];
/// The first of a forest; the last is never said to exist.
const MANAGEMENT_GROUPS: [&str; 6] = ["root", "corp", "corp2", "sales", "emea", "ghost"];
const ACTIONS: [&str; 9] = [
    "A.B/c/read",
    "A.B/read",
    "A.B/c/d/read",
    "A.B/c/d/e/read",
    "A.B/c/write",
    "A.B/c/d/write",
    "A.B/c/d/go/action",
    "A.B//read",
    "A.BC/c/read",
];
const PATTERNS: [&str; 20] = [
    "*",
    "*/read",
    "*/write",
    "A.B/*",
    "A.B/c/*",
    "A.B/*/read",
    "A.B/c/*/read",
    "A.B/*/*/read",
    "A.B/*/d/*/read",
    "A.B/**/read",
    "*/c/*",
    "*/d/*",
    "A.B/c/read",
    "A.B/c/d/write",
    "A.B/*/*",
    "*/*/*",
    "A.B/c/d*",
    "*d*",
    "A.B*/read",
    "A.B/c/",
];
const PIECES: [&str; 9] = ["*", "/*/", "/", "A.B", "c", "d", "read", "write", "e"];
/// What comes behind a subscription.
const BELOW_SUBSCRIPTION: [&str; 12] = [
    "",
    "/resourceGroups/app",
    "/resourceGroups/app2",
    "/resourceGroups/app/providers/A.B/c/x",
    "/resourceGroups/app/providers/A.B/c/x2",
    "/resourceGroups/app/providers/A.B/c/x/d/y",
    "/resourceGroups/app/providers/A.B/c/x/d/y/z",
    "/resourceGroups/app/providers/A.B/c/x/providers/Microsoft.Authorization/roleAssignments/r",
    "/resourceGroups/app2/providers/A.B/c/x",
    "/providers/A.B/c/x",
    "/providers/A.B/c/x/d/y",
    "/providers/Microsoft.Management/managementGroups/corp",
];
const BELOW_GROUP: [&str; 4] =
    ["", "", "/providers/A.B/c/x", "/providers/A.B/c/x/providers/Microsoft.Authorization/roleAssignments/r"];
const ELSEWHERE: [&str; 8] = [
    "/",
    "/providers/A.B",
    "/providers/A.B/c/x",
    "/providers/A.B/c/x/d/y",
    "/providers/Microsoft.Management",
    "/providers/Microsoft.Subscription",
    "/providers/Microsoft.Management/managementGroupsX/corp",
    "/providers/Microsoft.Authorization/roleAssignments/r",
];

/// Flips the case of the letters whose bit is set.
fn cased(text: &str, bits: u64) -> String {
    text.chars()
        .enumerate()
        .map(|(at, c)| match bits >> (at % 64) & 1 {
            0 => c,
            _ if c.is_ascii_lowercase() => c.to_ascii_uppercase(),
            _ => c.to_ascii_lowercase(),
        })
        .collect()
}

/// Half of all texts stay as they are, so that shrunk failures read well.
fn bits() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), any::<u64>()]
}

/// An object id in one of its spellings; ids that are no GUIDs have only one.
fn spelled(id: &'static str) -> impl Strategy<Value = String> {
    (0..4_u8, bits()).prop_map(move |(form, bits)| {
        if id.len() != 36 {
            return id.to_owned();
        }
        let id = cased(id, bits);
        match form {
            0 | 1 => id,
            2 => id.replace('-', ""),
            _ => format!("{{{id}}}"),
        }
    })
}

/// Mostly the first few, so that questions and policies meet.
fn mostly_first(all: &'static [&'static str], few: usize) -> impl Strategy<Value = &'static str> {
    prop_oneof![2 => select(&all[..few]), 1 => select(all)]
}

fn caller() -> impl Strategy<Value = String> {
    mostly_first(&CALLERS, 1).prop_flat_map(spelled)
}

fn group() -> impl Strategy<Value = String> {
    mostly_first(&GROUPS, 2).prop_flat_map(spelled)
}

fn principal() -> impl Strategy<Value = String> {
    prop_oneof![caller(), group()]
}

fn scope() -> impl Strategy<Value = String> {
    let below_subscription = (
        select(
            &["/subscriptions/", "/subscriptions/", "/providers/Microsoft.Subscription/subscriptions/"][..],
        ),
        mostly_first(&SUBSCRIPTIONS, 1),
        select(&BELOW_SUBSCRIPTION[..]),
    )
        .prop_map(|(prefix, subscription, below)| format!("{prefix}{subscription}{below}"));
    let below_group =
        (select(&MANAGEMENT_GROUPS[..]), select(&BELOW_GROUP[..])).prop_map(|(group, below)| {
            format!("/providers/Microsoft.Management/managementGroups/{group}{below}")
        });
    let elsewhere = select(&ELSEWHERE[..]).prop_map(str::to_owned);
    let place = prop_oneof![6 => below_subscription, 3 => below_group, 1 => elsewhere];
    (place, bits(), prop_oneof![4 => Just(""), 1 => Just("/"), 1 => Just("//")])
        .prop_map(|(place, bits, slashes)| cased(&place, bits) + slashes)
}

/// Where something may stand: anywhere but at the provider that all management groups belong to by their text,
/// which the compiler refuses.
fn stored_scope() -> impl Strategy<Value = String> {
    let high = select(
        &[
            "/",
            "/providers/Microsoft.Management/managementGroups/root",
            "/providers/Microsoft.Management/managementGroups/corp",
            "/subscriptions/11111111-1111-1111-1111-111111111111",
            "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/app",
        ][..],
    );
    let high = (high, bits()).prop_map(|(high, bits)| cased(high, bits));
    prop_oneof![1 => high, 2 => scope()].prop_filter("beside the management groups", |scope| {
        !scope.trim_end_matches('/').eq_ignore_ascii_case("/providers/Microsoft.Management")
    })
}

/// Where a request may point: also far below everything.
fn target() -> impl Strategy<Value = String> {
    let tail = prop_oneof![6 => Just(0), 1 => 1..4_usize, 1 => 30..400_usize];
    (scope(), tail).prop_map(|(scope, tail)| {
        let longer = format!("{}{}", scope.trim_end_matches('/'), "/s".repeat(tail));
        if Scope::parse(&longer).is_ok() { longer } else { scope }
    })
}

fn action() -> impl Strategy<Value = String> {
    let joined = prop::collection::vec(select(&PIECES[2..]), 1..6).prop_map(|pieces| pieces.concat());
    (prop_oneof![8 => select(&ACTIONS[..]).prop_map(str::to_owned), 1 => joined], bits())
        .prop_map(|(action, bits)| cased(&action, bits))
}

fn pattern() -> impl Strategy<Value = String> {
    let joined = prop::collection::vec(select(&PIECES[..]), 1..7).prop_map(|pieces| pieces.concat());
    (prop_oneof![4 => mostly_first(&PATTERNS, 8).prop_map(str::to_owned), 1 => joined], bits())
        .prop_map(|(pattern, bits)| cased(&pattern, bits))
}

// === moments ===

/// Everything with a beginning or an end has it at one of these hours.
const HOURS: i64 = 5;

fn hour(number: i64) -> Timestamp {
    "2025-03-01T10:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_hours(number)
}

fn moment() -> impl Strategy<Value = Timestamp> {
    (0..HOURS).prop_map(hour)
}

/// At one of the hours, a tick or less beside it, or between two.
fn now() -> impl Strategy<Value = Timestamp> {
    let beside = select(&[0_i64, 0, -100, 100, -1, 1, 99, 200, 1_800_000_000_000][..]);
    (moment(), beside).prop_map(|(moment, beside)| moment + SignedDuration::from_nanos(beside))
}

/// One of the hours, or the tick behind it, in one of the spellings that conditions know.
fn date() -> impl Strategy<Value = String> {
    (0..HOURS, 0..6_u8).prop_map(|(number, form)| match form {
        0 | 1 => format!("2025-03-01T{:02}:00:00Z", 10 + number),
        2 => format!("2025-03-01T{:02}:30:00.000+01:30", 11 + number),
        3 => format!("2025-03-01T{:02}:00:00-05:00", 5 + number),
        4 => format!("2025-03-01T{:02}:00:00.0000001Z", 10 + number),
        _ => format!("2025-03-01T{:02}:59:59.9999999Z", 9 + number),
    })
}

// === conditions ===

const TEXT_PATHS: [&str; 9] = [
    "T.N/t:name",
    "T.N/t:name",
    "T.N/t/tags:Project",
    "T.N/t/tags:Project<$key_case_sensitive$>",
    "T.N/t/tags:project<$KEY_case_sensitive$>",
    "T.N/t/tags&$keys$&",
    "T.N/t/tags:a:b c",
    "subOperation",
    "T.N/t/tags",
];
const TEXTS: [&str; 14] =
    ["a", "a", "A", "b", "ab", "é", "É", "it's", "", "Project", "ß", "ſ", "ᾳ", "Blob.List"];
const LIKES: [&str; 9] = ["a*", "*", "?", "*b", r"a\*", "É*", "", "*'*", "a?*"];
const GUIDS: [&str; 3] = [
    "08d4c71a-cc63-4ce4-a9c8-5dd251b4d619",
    "08D4C71ACC634CE4A9C85DD251B4D619",
    "8e3af657-a8ff-443c-a75c-2fe8c4bcb635",
];
const QUANTIFIERS: [&str; 4] =
    ["ForAnyOfAnyValues", "ForAllOfAnyValues", "ForAnyOfAllValues", "ForAllOfAllValues"];
const ORDERED: [&str; 6] =
    ["Equals", "NotEquals", "GreaterThan", "GreaterThanEquals", "LessThan", "LessThanEquals"];

fn attribute(paths: &'static [&'static str]) -> impl Strategy<Value = String> {
    let source = select(&["Resource", "Resource", "Resource", "Request", "Principal", "Environment"][..]);
    (source, select(paths)).prop_map(|(source, path)| format!("@{source}[{path}]"))
}

/// A comparison: the attribute mostly on the left, sometimes on both sides or on none, a quantifier or none.
fn comparison(
    operators: Vec<String>,
    attribute: BoxedStrategy<String>,
    literal: BoxedStrategy<String>,
    crosses: bool,
) -> BoxedStrategy<String> {
    let one = prop_oneof![3 => literal.clone(), 1 => literal.clone().prop_map(|one| format!("{{{one}}}"))];
    let scalar = (
        prop_oneof![6 => attribute.clone(), 1 => one.clone()],
        select(operators.clone()),
        prop_oneof![5 => one, 1 => attribute.clone()],
    )
        .prop_map(|(left, operator, right)| format!("{left} {operator} {right}"));
    if !crosses {
        return scalar.boxed();
    }
    let several = prop::collection::vec(literal, 1..4).prop_map(|all| format!("{{{}}}", all.join(", ")));
    let crossed = (
        prop_oneof![6 => attribute.clone(), 1 => several.clone()],
        select(&QUANTIFIERS[..]),
        select(operators),
        prop_oneof![5 => several, 1 => attribute],
    )
        .prop_map(|(left, quantifier, operator, right)| format!("{left} {quantifier}:{operator} {right}"));
    prop_oneof![scalar, crossed].boxed()
}

fn operators(prefix: &str, names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("{prefix}{name}")).collect()
}

fn quoted(text: impl AsRef<str>) -> String {
    format!("'{}'", text.as_ref().replace('\'', "''"))
}

fn clause() -> BoxedStrategy<String> {
    let text = |texts: &'static [&'static str]| select(texts).prop_map(quoted).boxed();
    let equal = ["Equals", "NotEquals", "EqualsIgnoreCase", "NotEqualsIgnoreCase"];
    let like = ["Like", "NotLike", "LikeIgnoreCase", "NotLikeIgnoreCase"];
    let starts = ["StartsWith", "NotStartsWith", "StartsWithIgnoreCase", "NotStartsWithIgnoreCase"];
    let named = || attribute(&TEXT_PATHS).boxed();
    let moments = prop_oneof![
        5 => Just("@Environment[UtcNow]".to_owned()),
        1 => attribute(&["T.N/t:when"]),
    ];
    let dates = date().prop_map(quoted).boxed();
    let bare = prop_oneof![select(&GUIDS[..]).prop_map(str::to_owned), select(&GUIDS[..]).prop_map(quoted)];
    let now_and_attribute = (select(operators("DateTime", &ORDERED)), attribute(&["T.N/t:when"]))
        .prop_map(|(operator, attribute)| format!("{attribute} {operator} @Environment[UtcNow]"));
    prop_oneof![
        5 => comparison(operators("DateTime", &ORDERED), moments.boxed(), dates, false),
        1 => now_and_attribute,
        4 => comparison(operators("String", &equal), named(), text(&TEXTS), true),
        2 => comparison(operators("String", &like), named(), text(&LIKES), true),
        1 => comparison(operators("String", &starts), named(), text(&TEXTS), false),
        3 => comparison(
            operators("Numeric", &ORDERED),
            attribute(&["T.N/t:count"]).boxed(),
            (-2..4_i64).prop_map(|number| number.to_string()).boxed(),
            true,
        ),
        2 => comparison(
            operators("Bool", &["Equals", "NotEquals"]),
            attribute(&["T.N/t:flag", "isPrivateLink"]).boxed(),
            any::<bool>().prop_map(|boolean| boolean.to_string()).boxed(),
            false,
        ),
        2 => comparison(
            operators("Guid", &["Equals", "NotEquals"]),
            attribute(&["T.N/t:id"]).boxed(),
            bare.boxed(),
            true,
        ),
        2 => (any::<bool>(), attribute(&TEXT_PATHS)).prop_map(|(not, attribute)| {
            format!("{}Exists {attribute}", if not { "NOT " } else { "" })
        }),
        3 => pattern().prop_map(|pattern| format!("ActionMatches{{'{pattern}'}}")),
        2 => select(&["Blob.List", "blob.write", ""][..])
            .prop_map(|name| format!("SubOperationMatches{{'{name}'}}")),
    ]
    .boxed()
}

/// A condition as an author would write it, or as only stored data holds it: AND and OR mixed.
fn plain_condition() -> impl Strategy<Value = String> {
    let guarded = (pattern(), clause())
        .prop_map(|(pattern, clause)| format!("((!(ActionMatches{{'{pattern}'}})) OR ({clause}))"));
    prop_oneof![3 => clause(), 1 => guarded].prop_recursive(3, 8, 3, |inner| {
        let joined = (prop::collection::vec(inner.clone(), 2..4), any::<bool>(), any::<bool>());
        prop_oneof![
            3 => joined.prop_map(|(parts, and, bare)| {
                let parts = parts.iter().map(|part| if bare { part.clone() } else { format!("({part})") });
                parts.collect::<Vec<_>>().join(if and { " AND " } else { " OR " })
            }),
            1 => (inner, any::<bool>())
                .prop_map(|(part, word)| format!("{}({part})", if word { "NOT " } else { "!" })),
        ]
    })
}

/// Another spelling of the same condition: letter case, white space, and the signs for the words.
fn respelled(text: &str, bits: u64) -> String {
    let (mut spelled, mut quoted, mut inside) = (String::new(), false, false);
    for (at, c) in text.chars().enumerate() {
        quoted ^= c == '\'';
        inside = !quoted && (inside && c != ']' || c == '[');
        let flip = bits >> (at % 61) & 1 == 1;
        match c {
            _ if quoted || !flip => spelled.push(c),
            ' ' if !inside => spelled.push_str(["  ", "\t", "\r\n", "\n "][at % 4]),
            '(' | ',' | '{' => spelled.extend([c, ' ']),
            ')' | '}' | ':' if !inside => spelled.extend([' ', c, ' ']),
            '[' => spelled.extend([c, ' ']),
            ']' => spelled.extend([' ', c]),
            _ if !inside && c.is_ascii_lowercase() => spelled.push(c.to_ascii_uppercase()),
            _ if !inside => spelled.push(c.to_ascii_lowercase()),
            _ => spelled.push(c),
        }
    }
    if bits & 4 == 4 {
        spelled = spelled.replace(" AND ", "&&").replace(" OR ", " ||");
    }
    spelled
}

/// Cut, doubled or crossed with something that does not belong.
fn damaged(text: &str, at: Index, kind: u8, piece: &str) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    let at = at.index(letters.len());
    match kind {
        0 => drop(letters.remove(at)),
        1 => letters.truncate(at),
        2 => letters.insert(at, letters[at]),
        _ => drop(letters.splice(at..at, piece.chars())),
    }
    letters.into_iter().collect()
}

const FOREIGN: [&str; 24] = [
    "\u{a0}",
    "\u{7}",
    "'",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    "@",
    "@Context[x]",
    "StringContains",
    " AND ",
    " OR ",
    "NOT ",
    "5.0",
    "99999999999999999999",
    ",",
    ":",
    "<$>",
    "&$keys$&",
    "true",
    "-",
    "!",
];

fn condition() -> impl Strategy<Value = String> {
    let damage = (any::<Index>(), 0..8_u8, select(&FOREIGN[..]));
    (plain_condition(), bits(), prop::option::weighted(0.08, damage)).prop_map(|(text, bits, damage)| {
        let text = respelled(&text, bits);
        match damage {
            Some((at, kind, piece)) if !text.is_empty() => damaged(&text, at, kind, piece),
            _ => text,
        }
    })
}

fn condition_text(weight: f64) -> impl Strategy<Value = Option<ConditionText>> {
    let version = prop_oneof![6 => Just(None), 6 => Just(Some("2.0")), 1 => Just(Some("1.0"))];
    let condition = (condition(), version).prop_map(|(text, version)| ConditionText {
        text: spanned(text),
        version: version.map(|version| spanned(version.to_owned())),
    });
    prop::option::weighted(weight, condition)
}

// === attributes ===

fn text_value() -> impl Strategy<Value = Value> {
    let one = || select(&TEXTS[..]).prop_map(Value::from).boxed();
    let element = prop_oneof![8 => one(), 1 => Just(Value::Null), 1 => Just(json!(3)), 1 => Just(json!("3"))];
    prop_oneof![4 => one(), 2 => prop::collection::vec(element, 0..4).prop_map(Value::Array)]
}

/// Mostly of the kind that conditions compare it as.
fn member() -> impl Strategy<Value = (String, Value)> {
    let dictionary = prop::collection::btree_map(
        select(&["Project", "project", "PROJECT", "a:b c", "Blob.List"][..]).prop_map(str::to_owned),
        prop_oneof![6 => text_value(), 1 => Just(Value::Null)],
        0..4,
    )
    .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>()));
    let number = prop_oneof![
        6 => (-2..4_i64).prop_map(Value::from),
        2 => select(&["2", "-1", "03", "5.0", "+1", "x", ""][..]).prop_map(Value::from),
        1 => Just(json!([1, "2", null])),
        1 => Just(json!([1])),
    ];
    let boolean = prop_oneof![
        4 => any::<bool>().prop_map(Value::from),
        1 => select(&["TRUE", "false", "yes"][..]).prop_map(Value::from),
    ];
    let guid = select(
        &[
            GUIDS[0],
            GUIDS[1],
            GUIDS[2],
            "{08d4c71a-cc63-4ce4-a9c8-5dd251b4d619}",
            "/subscriptions/x/providers/Microsoft.Authorization/roleDefinitions/8E3AF657-a8ff-443c-a75c-2fe8c4bcb635",
            "8e3af657",
        ][..],
    );
    let guid = prop_oneof![
        4 => guid.clone().prop_map(Value::from),
        1 => prop::collection::vec(guid.prop_map(Value::from), 0..3).prop_map(Value::Array),
    ];
    let when =
        prop_oneof![6 => date().prop_map(Value::from), 1 => Just(json!("2025-03-01")), 1 => Just(json!(7))];
    let of = |names: &'static [&'static str], value: BoxedStrategy<Value>| {
        (select(names), prop_oneof![9 => Just(0), 1 => any::<u64>()], value)
            .prop_map(|(name, bits, value)| (cased(name, bits), value))
    };
    prop_oneof![
        4 => of(&["T.N/t:name"], text_value().boxed()),
        3 => of(&["T.N/t/tags"], dictionary.boxed()),
        1 => of(&["T.N/t/tags:Project", "T.N/t/tags:project", "T.N/t/tags:a:b c"], text_value().boxed()),
        2 => of(&["T.N/t:count"], number.boxed()),
        2 => of(&["T.N/t:flag", "isPrivateLink"], boolean.boxed()),
        2 => of(&["T.N/t:when", "UtcNow"], when.boxed()),
        2 => of(&["T.N/t:id"], guid.boxed()),
        1 => of(
            &["T.N/t:name", "T.N/t:count", "T.N/t:when", "T.N/t:id", "T.N/t:flag", "T.N/t/tags", "subOperation"],
            prop_oneof![Just(Value::Null), Just(json!([])), Just(json!({})), Just(json!(3)), Just(json!("a"))]
                .boxed(),
        ),
    ]
}

fn bag() -> impl Strategy<Value = Value> {
    let bag = prop_oneof![
        4 => prop::collection::vec(member(), 1..8),
        1 => Just(Vec::new()),
    ];
    bag.prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>()))
}

fn attributes() -> impl Strategy<Value = Value> {
    (bag(), bag(), bag(), bag()).prop_map(|(request, resource, principal, environment)| {
        json!({ "request": request, "resource": resource, "principal": principal, "environment": environment })
    })
}

/// The bags of one request in the engine's types.
struct Bags([Attributes; 4]);

impl Bags {
    fn of(attributes: &Value) -> Self {
        Self(
            ["request", "resource", "principal", "environment"]
                .map(|bag| Attributes::from_json(&attributes[bag])),
        )
    }

    fn borrow(&self) -> RequestAttributes<'_> {
        let [request, resource, principal, environment] = &self.0;
        RequestAttributes { request, resource, principal, environment }
    }
}

// === policies ===

fn spanned(value: String) -> Spanned<String> {
    Spanned { value, ..Spanned::default() }
}

fn all_spanned(values: Vec<String>) -> Vec<Spanned<String>> {
    values.into_iter().map(spanned).collect()
}

fn list(pattern_count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Spanned<String>>> {
    prop::collection::vec(pattern(), pattern_count).prop_map(all_spanned)
}

fn block() -> impl Strategy<Value = PermissionBlock> {
    let storage =
        select(&["Microsoft.Storage/x/read", "MICROSOFT.storage/*", "Microsoft.Storage2/x/read"][..]);
    let lists = (list(0..5), list(0..2), list(0..5), list(0..2));
    (lists, prop::option::weighted(0.08, storage), condition_text(0.2)).prop_map(
        |((actions, not_actions, mut data_actions, not_data_actions), storage, condition)| {
            data_actions.extend(storage.map(|pattern| spanned(pattern.to_owned())));
            PermissionBlock {
                actions,
                not_actions,
                data_actions,
                not_data_actions,
                condition,
                ..PermissionBlock::default()
            }
        },
    )
}

fn role_id(number: usize) -> String {
    format!("b0b0b0b0-0000-4000-8000-{number:012x}")
}

fn role_definitions() -> impl Strategy<Value = Vec<RoleDefinition>> {
    let role = prop::collection::vec(block(), 0..4);
    prop::collection::vec(role, ROLES).prop_map(|roles| {
        roles
            .into_iter()
            .enumerate()
            .map(|(number, permissions)| RoleDefinition {
                id: spanned(role_id(number)),
                role_name: spanned(format!("Role {number}")),
                permissions,
                assignable_scopes: vec![spanned("/".to_owned())],
                ..RoleDefinition::default()
            })
            .collect()
    })
}

/// Names that sort otherwise than they were drawn, some of them GUIDs in either case.
fn name(prefix: &str, number: usize) -> String {
    let place = number * 7 % 11;
    match number % 4 {
        0 => format!("{prefix}{place:02}00000-0000-4000-8000-0000000000F{prefix}").to_ascii_uppercase(),
        1 => format!("{prefix}{place:02}00000-0000-4000-8000-0000000000e{prefix}"),
        _ => format!("{prefix}{place:02}-{number}"),
    }
}

fn role_assignments() -> impl Strategy<Value = Vec<RoleAssignment>> {
    let assignment = (stored_scope(), principal(), 0..ROLES, condition_text(0.35));
    prop::collection::vec(assignment, 0..12).prop_map(|assignments| {
        assignments
            .into_iter()
            .enumerate()
            .map(|(number, (scope, principal, role, condition))| RoleAssignment {
                name: spanned(name("a", number)),
                scope: spanned(scope),
                role_definition_id: spanned(role_id(role)),
                principal_id: spanned(principal),
                condition,
                ..RoleAssignment::default()
            })
            .collect()
    })
}

/// Schedules in both kinds: activations with links to eligibilities that are there or not, and instances that stand
/// for role assignments that are there or not.
fn schedules() -> impl Strategy<Value = Vec<Schedule>> {
    let status = prop_oneof![
        6 => Just(None),
        4 => select(&["Provisioned", "provisioned"][..]).prop_map(Some),
        1 => select(&["PendingApproval", "Revoked", "Accepted"][..]).prop_map(Some),
    ];
    let place = (stored_scope(), principal(), 0..ROLES, condition_text(0.3));
    let window = (
        prop::option::weighted(0.7, moment()),
        prop::option::weighted(0.7, moment()),
        prop::bool::weighted(0.85),
    );
    let window = window.prop_map(|(start, end, upright)| match (start, end) {
        // Mostly the right way round; a window that ends before it begins never opens.
        (Some(start), Some(end)) if upright && end < start => (Some(end), Some(start)),
        window => window,
    });
    let schedule = (
        prop::bool::weighted(0.4),
        place,
        window,
        status,
        prop::option::weighted(0.5, (0..8_usize, bits())),
        prop::option::weighted(0.3, (0..8_usize, bits())),
        prop::option::weighted(0.4, 4..12_usize),
    );
    prop::collection::vec(schedule, 0..9).prop_map(|schedules| {
        schedules
            .into_iter()
            .enumerate()
            .map(
                |(
                    number,
                    (
                        active,
                        (scope, principal, role, condition),
                        (start, end),
                        status,
                        link,
                        origin,
                        instance_of,
                    ),
                )| {
                    let moment = |moment: Option<Timestamp>| {
                        moment.map(|value| Spanned { value, ..Spanned::default() })
                    };
                    let kind = if active { ScheduleKind::Active } else { ScheduleKind::Eligible };
                    Schedule {
                        kind,
                        name: spanned(name("e", number)),
                        scope: spanned(scope),
                        role_definition_id: spanned(role_id(role)),
                        principal_id: spanned(principal),
                        status: status.map(|status| spanned(status.to_owned())),
                        start: moment(start),
                        end: moment(end),
                        shape: if instance_of.is_some() {
                            ScheduleShape::Instance
                        } else {
                            ScheduleShape::Schedule
                        },
                        schedule: instance_of.map(|schedule| spanned(name("e", schedule))),
                        linked_eligibility: link
                            .filter(|_| active)
                            .map(|(link, bits)| spanned(cased(&name("e", link), bits))),
                        origin_role_assignment: origin
                            .filter(|_| active)
                            .map(|(origin, bits)| spanned(cased(&name("a", origin), bits))),
                        condition,
                        ..Schedule::default()
                    }
                },
            )
            .collect()
    })
}

fn deny_assignments() -> impl Strategy<Value = Vec<DenyAssignment>> {
    let named = prop_oneof![2 => Just(EVERYONE.to_owned()), 3 => principal()];
    let deny = (
        stored_scope(),
        prop::collection::vec(named, 0..4),
        prop::collection::vec(principal(), 0..2),
        prop::collection::vec(block(), 0..4),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.3),
        condition_text(0.4),
    );
    prop::collection::vec(deny, 0..6).prop_map(|denies| {
        denies
            .into_iter()
            .enumerate()
            .map(|(number, (scope, principals, excluded, permissions, not_below, audit, condition))| {
                DenyAssignment {
                    name: spanned(name("d", number)),
                    scope: spanned(scope),
                    permissions,
                    principals: all_spanned(principals),
                    exclude_principals: all_spanned(excluded),
                    do_not_apply_to_child_scopes: not_below,
                    effect: if audit { DenyEffect::Audit } else { DenyEffect::Enforced },
                    condition,
                    ..DenyAssignment::default()
                }
            })
            .collect()
    })
}

fn groups() -> impl Strategy<Value = Vec<Group>> {
    let one = (group(), prop::collection::vec(principal(), 0..4));
    prop::collection::vec(one, 0..7).prop_map(|groups| {
        groups
            .into_iter()
            .map(|(id, members)| Group { id: spanned(id), members: all_spanned(members), ..Group::default() })
            .collect()
    })
}

/// A forest: a group hangs below an earlier one, or nowhere, or the data does not list it.
fn hierarchy() -> impl Strategy<Value = (Vec<ManagementGroup>, Vec<Subscription>)> {
    let group = (prop::bool::weighted(0.9), prop::option::weighted(0.8, any::<Index>()), bits(), bits());
    let subscription = (prop::option::weighted(0.8, 0..MANAGEMENT_GROUPS.len() - 1), bits(), bits());
    (
        prop::collection::vec(group, MANAGEMENT_GROUPS.len() - 1),
        prop::collection::vec(subscription, SUBSCRIPTIONS.len()),
    )
        .prop_map(|(groups, subscriptions)| {
            let groups = groups.into_iter().enumerate().filter(|(_, (listed, ..))| *listed);
            let groups = groups.map(|(number, (_, parent, bits, parent_bits))| ManagementGroup {
                name: spanned(cased(MANAGEMENT_GROUPS[number], bits)),
                parent: parent
                    .filter(|_| number > 0)
                    .map(|parent| spanned(cased(MANAGEMENT_GROUPS[parent.index(number)], parent_bits))),
            });
            let subscriptions =
                subscriptions.into_iter().enumerate().filter_map(|(number, (parent, bits, parent_bits))| {
                    Some(Subscription {
                        id: spanned(cased(SUBSCRIPTIONS[number], bits)),
                        parent: spanned(cased(MANAGEMENT_GROUPS[parent?], parent_bits)),
                    })
                });
            (groups.collect(), subscriptions.collect())
        })
}

/// A policy that prints as text short enough to read when a property fails.
#[derive(Clone)]
struct Drawn(Documents);

impl fmt::Debug for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = |list: &[Spanned<String>]| {
            list.iter().map(|text| text.value.clone()).collect::<Vec<_>>().join(" ")
        };
        let under = |f: &mut fmt::Formatter<'_>, condition: &Option<ConditionText>| match condition {
            Some(ConditionText { text, version }) => {
                writeln!(f, "    if {:?} {:?}", text.value, version.as_ref().map(|version| &version.value))
            }
            None => Ok(()),
        };
        let blocks = |f: &mut fmt::Formatter<'_>, blocks: &[PermissionBlock]| {
            blocks.iter().try_for_each(|block| {
                for (name, list) in block.lists().into_iter().filter(|(_, list)| !list.is_empty()) {
                    write!(f, " {name}: {};", texts(list))?;
                }
                writeln!(f, " |")?;
                under(f, &block.condition)
            })
        };
        writeln!(f)?;
        for role in &self.0.role_definitions {
            writeln!(f, "role {}", role.id.value)?;
            blocks(f, &role.permissions)?;
        }
        for a in &self.0.role_assignments {
            let (role, principal) = (&a.role_definition_id.value, &a.principal_id.value);
            writeln!(f, "assignment {} at {} of {role} to {principal}", a.name.value, a.scope.value)?;
            under(f, &a.condition)?;
        }
        for s in &self.0.schedules {
            let (role, principal) = (&s.role_definition_id.value, &s.principal_id.value);
            let text = |text: &Option<Spanned<String>>| text.as_ref().map(|text| text.value.clone());
            let moment = |moment: &Option<Spanned<Timestamp>>| moment.as_ref().map(|moment| moment.value);
            writeln!(f, "{:?} {} at {} of {role} to {principal}", s.kind, s.name.value, s.scope.value)?;
            writeln!(
                f,
                "  from {:?} to {:?}, status {:?}",
                moment(&s.start),
                moment(&s.end),
                text(&s.status)
            )?;
            let (link, origin) = (text(&s.linked_eligibility), text(&s.origin_role_assignment));
            writeln!(f, "  linked to {link:?}, stands for {origin:?}, instance of {:?}", text(&s.schedule))?;
            under(f, &s.condition)?;
        }
        for deny in &self.0.deny_assignments {
            let below = if deny.do_not_apply_to_child_scopes { " not below" } else { "" };
            writeln!(f, "deny {} {:?} at {}{below}", deny.name.value, deny.effect, deny.scope.value)?;
            writeln!(f, "  to {} except {}", texts(&deny.principals), texts(&deny.exclude_principals))?;
            under(f, &deny.condition)?;
            blocks(f, &deny.permissions)?;
        }
        for group in &self.0.groups {
            writeln!(f, "group {}: {}", group.id.value, texts(&group.members))?;
        }
        for group in &self.0.management_groups {
            let parent = group.parent.as_ref().map(|parent| &parent.value);
            writeln!(f, "management group {} below {parent:?}", group.name.value)?;
        }
        for subscription in &self.0.subscriptions {
            writeln!(f, "subscription {} below {}", subscription.id.value, subscription.parent.value)?;
        }
        Ok(())
    }
}

fn documents() -> impl Strategy<Value = Drawn> {
    let granting = (role_definitions(), role_assignments(), schedules());
    (granting, deny_assignments(), groups(), hierarchy()).prop_map(
        |((role_definitions, role_assignments, schedules), deny_assignments, groups, hierarchy)| {
            Drawn(Documents {
                role_definitions,
                role_assignments,
                schedules,
                deny_assignments,
                groups,
                management_groups: hierarchy.0,
                subscriptions: hierarchy.1,
                ..Documents::default()
            })
        },
    )
}

#[derive(Clone, Debug)]
struct Ask {
    principal: String,
    groups: Vec<String>,
    action: String,
    data_action: bool,
    resource: String,
    sub_operation: Option<String>,
    attributes: Value,
    now: Timestamp,
}

fn ask() -> impl Strategy<Value = Ask> {
    // Rarely more than the engine keeps on the stack, over and over the same few.
    let groups =
        prop_oneof![15 => prop::collection::vec(group(), 0..3), 1 => prop::collection::vec(group(), 40..300)];
    let subject = (caller(), groups);
    let sub_operation = prop::option::of(select(&["Blob.List", "BLOB.list", "Blob.Write", ""][..]));
    let operation = (action(), prop::bool::weighted(0.3), sub_operation);
    (subject, operation, target(), attributes(), now()).prop_map(
        |((principal, groups), (action, data_action, sub_operation), resource, attributes, now)| Ask {
            principal,
            groups,
            action,
            data_action,
            resource,
            sub_operation: sub_operation.map(str::to_owned),
            attributes,
            now,
        },
    )
}

impl Ask {
    fn question(&self, strict_wildcards: bool, now: Timestamp) -> naive::Question<'_> {
        naive::Question {
            principal: &self.principal,
            groups: &self.groups,
            action: &self.action,
            data_action: self.data_action,
            resource: &self.resource,
            sub_operation: self.sub_operation.as_deref(),
            attributes: &self.attributes,
            now,
            strict_wildcards,
        }
    }

    /// As a message; `None` for what messages cannot say.
    fn message(&self) -> Option<v1::CheckRequest> {
        let bag = |source: &str| {
            let bag = &self.attributes[source];
            wire::can_say(bag).then(|| wire::attributes(bag))
        };
        Some(v1::CheckRequest {
            subject: Some(v1::Subject {
                principal_id: self.principal.clone(),
                group_ids: self.groups.clone(),
                attributes: bag("principal")?,
                ..Default::default()
            }),
            action: Some(v1::Action {
                name: self.action.clone(),
                data_action: self.data_action,
                sub_operation: self.sub_operation.clone().unwrap_or_default(),
            }),
            resource: Some(v1::Resource { scope: self.resource.clone(), attributes: bag("resource")? }),
            request_attributes: bag("request")?,
            environment_attributes: bag("environment")?,
            ..Default::default()
        })
    }

    fn request<'a>(&'a self, bags: &'a Bags) -> CheckRequest<'a> {
        CheckRequest {
            sub_operation: self.sub_operation.as_deref(),
            attributes: bags.borrow(),
            ..CheckRequest::new(
                Subject { principal: PrincipalId::new(&self.principal), groups: (&self.groups).into() },
                Action::parse(&self.action).unwrap(),
                Plane::from_data_action(self.data_action),
                Scope::parse(&self.resource).unwrap(),
            )
        }
    }
}

// === comparing ===

fn answer_of(policy: &Policy, evaluation: Result<&Evaluation, &Undecided>) -> naive::Answer {
    match evaluation {
        Err(Undecided::UnknownHierarchy { .. }) => naive::Answer::UnknownHierarchy,
        Err(other) => panic!("no decision: {other}"),
        Ok(evaluation) => {
            let mut audited: Vec<String> =
                evaluation.audited.iter().map(|&hit| policy.deny_assignment_name(hit)).collect();
            audited.sort();
            let verdict = match evaluation.decision {
                Decision::Allowed(grant) => naive::Verdict::Allowed(policy.role_assignment_name(grant)),
                Decision::NotAllowed(Why::Eligible(eligibility)) => {
                    naive::Verdict::Eligible(policy.eligibility_name(eligibility))
                }
                Decision::NotAllowed(Why::ConditionNotMet) => naive::Verdict::ConditionNotMet,
                Decision::NotAllowed(Why::NotActiveNow) => naive::Verdict::NotActiveNow,
                Decision::NotAllowed(Why::ActionNotGranted) => naive::Verdict::ActionNotGranted,
                Decision::NotAllowed(Why::NoRoleAssignment) => naive::Verdict::NothingAssigned,
                Decision::NotAllowed(Why::Agent(stop)) => panic!("no agent asks: {stop:?}"),
                Decision::Denied(hit) => naive::Verdict::Denied(policy.deny_assignment_name(hit)),
            };
            naive::Answer::Decided { verdict, audited }
        }
    }
}

fn answer_of_wire(answer: Result<&v1::CheckResult, &tonic::Status>) -> naive::Answer {
    let result = match answer {
        Err(status) if status.code() == tonic::Code::FailedPrecondition => {
            return naive::Answer::UnknownHierarchy;
        }
        Err(status) => panic!("no decision: {status}"),
        Ok(result) => result,
    };
    let mut audited: Vec<String> =
        result.audited_deny_assignment_ids.iter().filter_map(|id| wire::name(id)).collect();
    audited.sort();
    let named = |id: &str| wire::name(id).expect("the name of what decided");
    let verdict = match (result.decision(), result.reason_code()) {
        (v1::Decision::Allowed, v1::ReasonCode::RoleAssignment) => {
            naive::Verdict::Allowed(named(&result.role_assignment_id))
        }
        (v1::Decision::Denied, v1::ReasonCode::DenyAssignment) => {
            naive::Verdict::Denied(named(&result.deny_assignment_id))
        }
        (v1::Decision::NotAllowed, v1::ReasonCode::Eligible) => {
            naive::Verdict::Eligible(wire::eligibility(result).expect("what to activate"))
        }
        (v1::Decision::NotAllowed, v1::ReasonCode::ConditionNotMet) => naive::Verdict::ConditionNotMet,
        (v1::Decision::NotAllowed, v1::ReasonCode::NotActiveNow) => naive::Verdict::NotActiveNow,
        (v1::Decision::NotAllowed, v1::ReasonCode::ActionNotGranted) => naive::Verdict::ActionNotGranted,
        (v1::Decision::NotAllowed, v1::ReasonCode::NoRoleAssignment) => naive::Verdict::NothingAssigned,
        other => panic!("{other:?}"),
    };
    naive::Answer::Decided { verdict, audited }
}

const CACHE: CacheSettings = CacheSettings { policy: CachePolicy::CostAtLeast(0), max_bytes: 1 << 20 };

thread_local! {
    static SIDECAR: RefCell<wire::Sidecar> = RefCell::new(wire::Sidecar::start(CACHE));
}

/// The engine prints GUIDs in their canonical spelling.
fn printed(answer: naive::Answer) -> naive::Answer {
    let print = |name: String| PrincipalId::new(&name).to_string();
    match answer {
        naive::Answer::Decided { verdict, audited } => {
            let verdict = match verdict {
                naive::Verdict::Allowed(name) => naive::Verdict::Allowed(print(name)),
                naive::Verdict::Eligible(name) => naive::Verdict::Eligible(print(name)),
                naive::Verdict::Denied(name) => naive::Verdict::Denied(print(name)),
                other => other,
            };
            let mut audited: Vec<String> = audited.into_iter().map(print).collect();
            audited.sort();
            naive::Answer::Decided { verdict, audited }
        }
        other => other,
    }
}

const fn wildcards(strict: bool) -> Wildcards {
    if strict { Wildcards::Strict } else { Wildcards::Collapse }
}

/// Whether an answer that changes at `change` may say that it holds until `until`.
fn holds(until: Option<Timestamp>, change: Option<Timestamp>, now: Timestamp) -> bool {
    match (until, change) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some(until), None) => now < until,
        (Some(until), Some(change)) => now < until && until <= change,
    }
}

/// Policies are drawn as often as the variable says, single conditions, scopes and patterns some times as often.
fn config(times: u32) -> ProptestConfig {
    let found = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/property.proptest-regressions");
    let cases = std::env::var("POSTERN_PROPTEST_CASES").map(|cases| cases.parse().expect("a number"));
    ProptestConfig {
        cases: cases.unwrap_or(450) * times,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(found))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(1))]

    #[test]
    fn engine_agrees_with_naive(
        Drawn(documents) in documents(),
        strict in prop::bool::weighted(0.2),
        asks in prop::collection::vec(ask(), 1..8),
    ) {
        let options = CompileOptions { wildcards: wildcards(strict), ..CompileOptions::default() };
        let compile = || Policy::compile(&documents, options).expect("nothing to refuse");
        let policy = compile();
        let world = naive::World::new(&documents);
        let (mut writer, reader) = cell();
        writer.activate(compile(), 0, Timestamp::UNIX_EPOCH);
        SIDECAR.with_borrow_mut(|sidecar| sidecar.activate(compile()));
        let snapshot = reader.load();
        let snapshot = snapshot.get().expect("an active policy");
        prop_assert_eq!(policy.digest(), snapshot.policy.digest(), "equal documents, equal digest");
        for ask in &asks {
            let question = ask.question(strict, ask.now);
            let wanted = |now| printed(world.check(&naive::Question { now, ..question }));
            let bags = Bags::of(&ask.attributes);
            let request = ask.request(&bags);

            let evaluation = policy.evaluate(&request, ask.now);
            prop_assert_eq!(answer_of(&policy, evaluation.as_ref()), wanted(ask.now), "evaluate: {:#?}", ask);
            let until = evaluation.ok().and_then(|evaluation| evaluation.valid_until);
            let change = world.valid_until(&question);
            prop_assert!(holds(until, change, ask.now), "until {:?}, changes at {:?}: {:#?}", until, change, ask);
            let moments = world.moments(&question);
            prop_assert!(until.is_none_or(|until| moments.contains(&until)), "{:?} is no moment: {:#?}", until, ask);

            let last = moments.last().copied().unwrap_or_default().max(ask.now) + SignedDuration::from_hours(1);
            let tick = SignedDuration::from_nanos(1);
            if let Some(message) = ask.message() {
                SIDECAR.with_borrow_mut(|sidecar| {
                    for now in [ask.now, ask.now, until.unwrap_or(ask.now)] {
                        sidecar.set_clock(now);
                        let answer = sidecar.check(message.clone());
                        let given = answer_of_wire(answer.as_ref());
                        prop_assert_eq!(&given, &wanted(now), "gRPC, at {}: {:#?}", now, ask);
                        if let (true, Ok(result)) = (now == ask.now, answer) {
                            prop_assert_eq!(wire::valid_until(&result), until, "gRPC: {:#?}", ask);
                        }
                    }
                    Ok(())
                })?;
            }

            // With a cache of its own: the clock of each starts anew.
            let clock = Clock::manual(ask.now);
            let authorizer = Authorizer::new(reader.clone(), CACHE, clock.clone());
            let times = [ask.now, ask.now, until.unwrap_or(last) - tick, until.unwrap_or(last), ask.now];
            for (number, now) in times.into_iter().enumerate() {
                clock.set(now);
                let answer = authorizer.check(snapshot, &request, None);
                let given = answer_of(&snapshot.policy, answer.as_ref().map(|answer| &answer.evaluation));
                prop_assert_eq!(&given, &wanted(now), "authorizer, time {}, at {}: {:#?}", number, now, ask);
                let Ok(answer) = answer else { continue };
                prop_assert!(!answer.cached || number > 0, "nothing to find the first time: {:#?}", ask);
                // What holds for no time at all may be over before it is asked again.
                let brief = until.is_some_and(|until| until < ask.now + SignedDuration::from_mins(1));
                prop_assert!(answer.cached || brief || number != 1, "kept: {:#?}", ask);
                if answer.cached {
                    prop_assert!(answer.evaluation.valid_until.is_none_or(|until| until > now), "over: {:#?}", ask);
                }
            }
        }
    }

}

proptest! {
    #![proptest_config(config(4))]

    #[test]
    fn conditions_are_read_and_evaluated_alike(
        text in condition(),
        strict in prop::bool::weighted(0.2),
        asks in prop::collection::vec(ask(), 1..4),
    ) {
        let read = naive::condition::parse(&text);
        let parse = |mode| condition::parse(&text, mode, Extensions { enabled: false }).condition;
        prop_assert_eq!(parse(Mode::Load).is_some(), read.is_some(), "{:?}", text);
        let may_be_written = read.as_ref().is_some_and(|read| !read.mixes);
        prop_assert_eq!(parse(Mode::Author).is_some(), may_be_written, "written: {:?}", text);
        let (Some(condition), Some(read)) = (parse(Mode::Load), read) else { return Ok(()) };
        let program = condition::compile(&condition, wildcards(strict));
        for ask in &asks {
            let bags = Bags::of(&ask.attributes);
            let RequestAttributes { request, resource, principal, environment } = bags.borrow();
            let context = Context {
                action: &ask.action,
                sub_operation: ask.sub_operation.as_deref(),
                now: ask.now,
                request,
                resource,
                principal,
                environment,
            };
            let verdict = condition::evaluate_until(program.as_bytes(), &context, &mut Budget::default()).unwrap();
            let facts = |now| naive::condition::Facts {
                action: &ask.action,
                sub_operation: ask.sub_operation.as_deref(),
                now,
                attributes: &ask.attributes,
                strict_wildcards: strict,
            };
            let truth = |now| match naive::condition::evaluate(&read.tree, &facts(now)) {
                Some(true) => Truth::True,
                Some(false) => Truth::False,
                None => Truth::Undefined,
            };
            prop_assert_eq!(verdict.truth, truth(ask.now), "{:?} on {:#?}", text, ask);
            for hour in (0..=HOURS).map(hour).filter(|hour| *hour >= ask.now) {
                for later in [-100, 0, 100, 200].map(|beside| hour + SignedDuration::from_nanos(beside)) {
                    if later >= ask.now && verdict.holds_until.is_none_or(|until| later < until) {
                        prop_assert_eq!(verdict.truth, truth(later), "{:?} at {} on {:#?}", text, later, ask);
                    }
                }
            }
        }
    }

    #[test]
    fn scopes_are_scopes_to_both(
        text in prop_oneof![
            scope(),
            prop::collection::vec(
                select(&[
                    "/", "/", "subscriptions", SUBSCRIPTIONS[1], "resourceGroups", "app", "providers", "A.B", "c",
                    "Microsoft.Management", "managementGroups", "Microsoft.Subscription", "\n", " ",
                ][..]),
                0..12,
            ).prop_map(|pieces| pieces.concat()),
            prop::collection::vec(
                select(&[
                    "subscriptions", SUBSCRIPTIONS[1], "resourceGroups", "app", "providers", "A.B", "c",
                    "Microsoft.Management", "managementGroups", "Microsoft.Subscription",
                ][..]),
                0..10,
            ).prop_map(|segments| format!("/{}", segments.join("/"))),
        ],
    ) {
        prop_assert_eq!(Scope::parse(&text).is_ok(), naive::is_scope(&text));
    }

    #[test]
    fn long_patterns_match_alike(
        pattern in "[abAB/*]{0,12}",
        action in "[abAB/]{0,12}",
        strict: bool,
    ) {
        let wildcards = if strict { Wildcards::Strict } else { Wildcards::Collapse };
        prop_assert_eq!(
            pattern_matches(&pattern, &action, wildcards),
            naive::action_matches(&pattern, &action, strict)
        );
    }
}

/// The properties above are worth what they draw: every answer must come up often, and so must every value of a
/// condition. Until when an answer holds may be said too cautiously, but not often.
#[test]
fn draws_are_varied() {
    let mut runner = TestRunner::deterministic();
    let drawn = (documents(), prop::collection::vec(ask(), 8));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut count = |what| *counts.entry(what).or_default() += 1;
    for _ in 0..200 {
        let (Drawn(documents), asks) = drawn.new_tree(&mut runner).unwrap().current();
        let policy = Policy::compile(&documents, CompileOptions::default()).unwrap();
        let world = naive::World::new(&documents);
        for ask in asks {
            count("all");
            let question = ask.question(false, ask.now);
            match world.check(&question) {
                naive::Answer::InvalidResource => panic!("{ask:?}"),
                naive::Answer::UnknownHierarchy => count("undecided"),
                naive::Answer::Decided { verdict, audited } => {
                    if !audited.is_empty() {
                        count("audit");
                    }
                    count(match verdict {
                        naive::Verdict::Allowed(_) => "allowed",
                        naive::Verdict::Denied(_) => "denied",
                        naive::Verdict::Eligible(_) => "eligible",
                        naive::Verdict::ConditionNotMet => "condition not met",
                        naive::Verdict::NotActiveNow => "not active now",
                        naive::Verdict::ActionNotGranted => "not granted",
                        naive::Verdict::NothingAssigned => "nothing assigned",
                    });
                    let bags = Bags::of(&ask.attributes);
                    let until = policy.evaluate(&ask.request(&bags), ask.now).unwrap().valid_until;
                    match (until, world.valid_until(&question)) {
                        (None, _) => count("for ever"),
                        (until, change) if until == change => count("until it changes"),
                        _ => count("until earlier"),
                    }
                }
            }
        }
    }
    println!("{counts:#?}");
    let all = counts["all"];
    let cautious = counts.remove("until earlier").unwrap_or_default();
    assert!(cautious * 20 < counts["until it changes"], "too cautious: {cautious} times");
    assert_eq!(counts.len(), 12);
    for (kind, count) in &counts {
        assert!(count * 100 > all, "{kind}: {count} of {all}");
    }

    let drawn = (condition(), ask());
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..4_000 {
        let (text, ask) = drawn.new_tree(&mut runner).unwrap().current();
        let value = match naive::condition::parse(&text) {
            None => "unreadable",
            Some(read) => {
                let facts = naive::condition::Facts {
                    action: &ask.action,
                    sub_operation: ask.sub_operation.as_deref(),
                    now: ask.now,
                    attributes: &ask.attributes,
                    strict_wildcards: false,
                };
                match naive::condition::evaluate(&read.tree, &facts) {
                    Some(true) => "true",
                    Some(false) => "false",
                    None => "undefined",
                }
            }
        };
        *counts.entry(value).or_default() += 1;
    }
    println!("{counts:#?}");
    assert!(counts.len() == 4 && counts.values().all(|count| *count > 100), "{counts:?}");
}

/// Every pattern of up to six characters on every action of up to five.
#[test]
fn short_patterns_match_alike() {
    fn words(alphabet: &[char], longest: usize) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut begin = 0;
        for _ in 0..longest {
            let end = words.len();
            for at in begin..end {
                for &letter in alphabet {
                    words.push(format!("{}{letter}", words[at]));
                }
            }
            begin = end;
        }
        words
    }
    let actions = words(&['a', 'b', '/'], 5);
    for pattern in words(&['a', 'b', '/', '*'], 6) {
        for action in &actions {
            for (wildcards, strict) in [(Wildcards::Collapse, false), (Wildcards::Strict, true)] {
                assert_eq!(
                    pattern_matches(&pattern, action, wildcards),
                    naive::action_matches(&pattern, action, strict),
                    "{pattern} on {action}, strict: {strict}"
                );
            }
        }
    }
}
