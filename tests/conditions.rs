//! The condition language against everything that is known about it: our own examples, conditions found in public,
//! another evaluator's cases, a deliberately naive evaluator, and bytes that lie.
#![allow(unsafe_code, reason = "an allocator that counts is an unsafe trait")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may panic, and says what it counted"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use postern::condition::{
    Budget, Context, EvalError, Extensions, Mode, ProgramRef, Truth, check_version, compile, evaluate,
    explain, parse,
};
use postern::model::{Attributes, Wildcards};
use proptest::prelude::*;
use serde_json::{Value, json};

// === counting allocations ===

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// === requests ===

struct Request {
    action: String,
    sub_operation: Option<String>,
    now: jiff::Timestamp,
    bags: [Attributes; 4],
}

impl Request {
    /// From an example's `request`.
    fn from_json(json: &Value) -> Self {
        let bag = |source: &str| Attributes::from_json(&json["attributes"][source]);
        Self {
            action: json["action"].as_str().unwrap_or_default().to_owned(),
            sub_operation: json["sub_operation"].as_str().map(str::to_owned),
            now: json["now"].as_str().unwrap_or("2026-01-01T00:00:00Z").parse().unwrap(),
            bags: [bag("request"), bag("resource"), bag("principal"), bag("environment")],
        }
    }

    fn context(&self) -> Context<'_> {
        let [request, resource, principal, environment] = &self.bags;
        Context {
            action: &self.action,
            sub_operation: self.sub_operation.as_deref(),
            now: self.now,
            request,
            resource,
            principal,
            environment,
        }
    }
}

const NO_EXTENSIONS: Extensions = Extensions { enabled: false };
const WITH_EXTENSIONS: Extensions = Extensions { enabled: true };

fn rows(name: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name);
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Data that is other people's and therefore not ours to copy.
fn shared_rows(name: &str) -> Option<Vec<Value>> {
    let root = std::env::var_os("POSTERN_AZURE_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/azure"),
        PathBuf::from,
    );
    let Ok(text) = fs::read_to_string(root.join(name)) else {
        println!("{name} is absent: set POSTERN_AZURE_DATA to the directory that holds it");
        return None;
    };
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn eval(text: &str, request: &Request, extensions: Extensions) -> Truth {
    let parsed = parse(text, Mode::Load, extensions);
    let condition = parsed.condition.unwrap_or_else(|| panic!("{text}: {:#?}", parsed.diagnostics));
    let program = compile(&condition, Wildcards::Collapse);
    assert_eq!(program, compile(&condition, Wildcards::Collapse), "same input, same bytes");
    let truth = evaluate(program.as_bytes(), &request.context(), &mut Budget::default()).unwrap();
    let explained =
        explain(&condition, Wildcards::Collapse, &request.context(), &mut Budget::default()).unwrap();
    assert_eq!(explained.truth, truth, "explanation and decision differ: {text}");
    truth
}

/// Printing gives text that an author may write and that says the same.
fn round_trip(text: &str, extensions: Extensions) {
    let Some(condition) = parse(text, Mode::Load, extensions).condition else {
        return;
    };
    let printed = condition.to_string();
    let again = parse(&printed, Mode::Author, extensions);
    assert_eq!(again.diagnostics, [], "{printed}");
    let again = again.condition.unwrap();
    assert_eq!(again.to_string(), printed);
    assert_eq!(again.without_spans(), condition.without_spans(), "{text}");
}

// === examples ===

#[test]
fn examples_of_parsing() {
    let rows = rows("condition-parse.jsonl");
    let mut failed = Vec::new();
    for row in &rows {
        let text = row["given"]["condition"].as_str().unwrap();
        let parsed = parse(text, Mode::Author, NO_EXTENSIONS);
        let mut diagnostics = parsed.diagnostics;
        diagnostics.extend(check_version(row["given"]["conditionVersion"].as_str()).err());
        let valid = parsed.condition.is_some() && diagnostics.is_empty();
        let code = diagnostics.first().map(|diagnostic| diagnostic.code);
        // Two rows quote the service's message where the text has no category.
        let expected = row["expect"]["error"].as_str().map(|error| match error {
            "The given role assignment condition is invalid." => "syntax",
            "Attribute value is invalid" => "invalid_attribute_value",
            "Resource attribute is not valid" => "invalid_attribute",
            category => category,
        });
        if row["expect"]["valid"] != valid || code != expected || diagnostics.len() > 1 {
            failed.push(format!("{}: {diagnostics:?}", row["id"]));
        }
        round_trip(text, NO_EXTENSIONS);
    }
    println!("condition-parse: {} of {} examples", rows.len() - failed.len(), rows.len());
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(rows.len(), 33);
}

#[test]
fn examples_of_evaluating() {
    let rows = rows("condition-eval.jsonl");
    let mut failed = Vec::new();
    for row in &rows {
        let text = row["given"]["condition"].as_str().unwrap();
        let truth = eval(text, &Request::from_json(&row["request"]), NO_EXTENSIONS);
        let name = format!("{truth:?}").to_lowercase();
        if row["expect"]["value"] != name || row["expect"]["grants"] != truth.grants() {
            failed.push(format!("{}: {name}", row["id"]));
        }
        round_trip(text, NO_EXTENSIONS);
    }
    println!("condition-eval: {} of {} examples", rows.len() - failed.len(), rows.len());
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(rows.len(), 73);
}

// === conditions found in public ===

#[test]
fn public_conditions() {
    let Some(rows) = shared_rows("conditions-corpus.jsonl") else {
        return;
    };
    let (mut parsed_count, mut failed_count) = (0, 0);
    let mut differ = Vec::new();
    for row in &rows {
        let text = row["condition"].as_str().unwrap();
        let note = row["note"].as_str().unwrap_or_default();
        // The read-me counts six rows marked `template`; one of them holds its `${…}` inside literals only, says
        // so, and parses as it stands.
        let inside_literals = note == "template: ${...} inside literals as published";
        let must_fail = !inside_literals && (note.starts_with("broken") || note.starts_with("template"));
        let parsed = parse(text, Mode::Load, NO_EXTENSIONS);
        match &parsed.condition {
            Some(condition) => {
                parsed_count += 1;
                let program = compile(condition, Wildcards::Collapse);
                let request = Request::from_json(&json!({ "action": "A.B/c/read" }));
                evaluate(program.as_bytes(), &request.context(), &mut Budget::default()).unwrap();
                round_trip(text, NO_EXTENSIONS);
            }
            None => failed_count += 1,
        }
        if parsed.condition.is_some() == must_fail {
            differ.push(format!("{note}: {text}\n{:#?}", parsed.diagnostics));
        }
    }
    println!("corpus: {} rows, {parsed_count} parse, {failed_count} do not", rows.len());
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    assert_eq!(rows.len(), 122);
}

// === another evaluator's cases ===

#[test]
fn regorus_cases() {
    let Some(rows) = shared_rows("regorus-condition-cases.jsonl") else {
        return;
    };
    let defaults = json!({
        "principal": {"department": "eng", "levels": ["L1", "L2"]},
        "resource": {"owner": "alice", "tags": ["a", "b"], "count": 5, "enabled": false, "ip": "10.0.0.5",
            "guid": "a1b2c3d4-0000-0000-0000-000000000000"},
        "request": {"owner": "alice", "text": "HelloWorld", "tags": ["prod", "gold"], "count": 10, "ratio": 2.5,
            "enabled": true, "ip": "10.0.0.8", "guid": "A1B2C3D4-0000-0000-0000-000000000000", "time": "12:30:15",
            "date": "2023-05-01T12:00:00Z", "numbers": [1, 2, 3], "letters": ["a", "b"]},
    });
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut differ = Vec::new();
    for row in &rows {
        let text = row["condition"].as_str().unwrap();
        let kind = row["kind"].as_str().unwrap();
        let documented = row["documentedGrammar"] == true;
        let extensions = Extensions { enabled: !documented };
        let parsed = parse(text, Mode::Load, extensions);
        let agrees = match kind {
            "parse" => parsed.condition.is_some(),
            "reject" => parsed.condition.is_none(),
            _ => {
                parsed.condition.is_some() && {
                    let mut attributes = defaults.clone();
                    for source in ["principal", "resource", "request"] {
                        let changed = &row["context"][format!("{source}_attributes")];
                        for (name, value) in changed.as_object().into_iter().flatten() {
                            attributes[source][name] = value.clone();
                        }
                    }
                    let request = Request::from_json(&json!({
                        "action": "Microsoft.Storage/storageAccounts/read",
                        "sub_operation": "sub/read",
                        "now": "2023-05-01T12:00:00Z",
                        "attributes": attributes,
                    }));
                    row["expected"] == eval(text, &request, extensions).grants()
                }
            }
        };
        round_trip(text, extensions);
        let group = if documented || kind == "reject" { "documented" } else { "dialect" };
        let count = counts.entry(format!("{group} {kind}")).or_default();
        count.0 += usize::from(agrees);
        count.1 += 1;
        // Of the dialect much is not read (`[…]` lists, functions, bare quantifiers); what is read must agree.
        if !agrees && (group == "documented" || parsed.condition.is_some()) {
            differ.push(text.to_owned());
        }
    }
    for (group, (agree, all)) in &counts {
        println!("regorus, {group}: {agree} of {all} agree");
    }
    assert!(differ.is_empty(), "{differ:#?}");
    assert_eq!(counts["documented parse"].1, 11);
    assert_eq!(counts["documented eval"].1, 31);
}

// === the naive evaluator ===
//
// Own trees, own lookup, own strings, `Option<bool>` for three values; slow and plain on purpose.

#[derive(Clone, Debug)]
enum Tree {
    Or(Vec<Tree>),
    And(Vec<Tree>),
    Not(Box<Tree>),
    Compare(Side, Option<&'static str>, &'static str, Side),
    Exists(Name),
    Action(&'static str),
    SubOperation(&'static str),
}

#[derive(Clone, Debug)]
enum Side {
    Attribute(Name),
    Literals(Vec<Literal>),
}

#[derive(Clone, Debug)]
enum Literal {
    Text(&'static str),
    Number(i64),
    Boolean(bool),
    Guid(&'static str),
}

#[derive(Clone, Debug)]
struct Name {
    source: &'static str,
    name: &'static str,
    suffix: &'static str,
}

#[derive(Clone, Debug)]
struct Asked {
    action: &'static str,
    sub_operation: Option<&'static str>,
    now: i64,
    bags: Value,
}

impl Tree {
    fn print(&self) -> String {
        let join = |parts: &[Self], by: &str| {
            let parts: Vec<String> = parts.iter().map(|part| format!("({})", part.print())).collect();
            parts.join(by)
        };
        match self {
            Self::Or(parts) => join(parts, " || "),
            Self::And(parts) => join(parts, " and "),
            Self::Not(part) => format!("!({})", part.print()),
            Self::Compare(left, quantifier, operator, right) => {
                let quantifier = quantifier.map(|name| format!("{name} : ")).unwrap_or_default();
                format!("{} {quantifier}{operator}{}", left.print(), right.print())
            }
            Self::Exists(name) => format!("Exists {}", name.print()),
            Self::Action(pattern) => format!("ActionMatches{{'{pattern}'}}"),
            Self::SubOperation(name) => format!("SubOperationMatches{{'{name}'}}"),
        }
    }
}

impl Side {
    fn print(&self) -> String {
        match self {
            Self::Attribute(name) => name.print(),
            Self::Literals(literals) => {
                let literals: Vec<String> = literals
                    .iter()
                    .map(|literal| match literal {
                        Literal::Text(text) => format!("'{}'", text.replace('\'', "''")),
                        Literal::Number(number) => number.to_string(),
                        Literal::Boolean(boolean) => boolean.to_string(),
                        Literal::Guid(guid) => (*guid).to_owned(),
                    })
                    .collect();
                format!("{{{}}}", literals.join(","))
            }
        }
    }
}

impl Name {
    fn print(&self) -> String {
        format!("@{}[{}{}]", self.source, self.name, self.suffix)
    }
}

type Kleene = Option<bool>;

fn naive_not(value: Kleene) -> Kleene {
    value.map(|value| !value)
}

fn naive_all(values: &[Kleene]) -> Kleene {
    if values.contains(&Some(false)) {
        Some(false)
    } else if values.contains(&None) {
        None
    } else {
        Some(true)
    }
}

fn naive_any(values: &[Kleene]) -> Kleene {
    if values.contains(&Some(true)) {
        Some(true)
    } else if values.contains(&None) {
        None
    } else {
        Some(false)
    }
}

fn naive(tree: &Tree, asked: &Asked) -> Kleene {
    match tree {
        Tree::Or(parts) => naive_any(&parts.iter().map(|part| naive(part, asked)).collect::<Vec<_>>()),
        Tree::And(parts) => naive_all(&parts.iter().map(|part| naive(part, asked)).collect::<Vec<_>>()),
        Tree::Not(part) => naive_not(naive(part, asked)),
        Tree::Exists(name) => Some(!matches!(naive_find(name, asked), Lookup::Missing)),
        Tree::Action(pattern) => {
            Some(naive_action(&pattern.to_ascii_lowercase(), &asked.action.to_ascii_lowercase()))
        }
        Tree::SubOperation(name) => {
            Some(asked.sub_operation.is_some_and(|given| given.eq_ignore_ascii_case(name)))
        }
        Tree::Compare(left, quantifier, operator, right) => {
            let (positive, negated) = match operator.replacen("Not", "", 1) {
                positive if operator.contains("Not") => (positive, true),
                positive => (positive, false),
            };
            let (left, right) = (naive_values(left, asked)?, naive_values(right, asked)?);
            let pair = |l: &Value, r: &Value| {
                let value = naive_pair(&positive, l, r);
                if negated { naive_not(value) } else { value }
            };
            let Some(quantifier) = quantifier else {
                return match (left.as_slice(), right.as_slice()) {
                    ([l], [r]) => pair(l, r),
                    _ => None,
                };
            };
            let quantifier = quantifier.to_lowercase();
            let rows: Vec<Kleene> = left
                .iter()
                .map(|l| {
                    let row: Vec<Kleene> = right.iter().map(|r| pair(l, r)).collect();
                    if quantifier.contains("ofany") { naive_any(&row) } else { naive_all(&row) }
                })
                .collect();
            if quantifier.starts_with("forany") { naive_any(&rows) } else { naive_all(&rows) }
        }
    }
}

/// Section 10, row 1, as it is worded: any subset of the `/*/`, found from the left, replaced by `/`.
fn naive_action(pattern: &str, action: &str) -> bool {
    let pieces: Vec<&str> = pattern.split("/*/").collect();
    let action: Vec<char> = action.chars().collect();
    (0..1_u32 << (pieces.len() - 1)).any(|subset| {
        let mut one = pieces[0].to_owned();
        for (index, piece) in pieces[1..].iter().enumerate() {
            one.push_str(if subset >> index & 1 == 1 { "/" } else { "/*/" });
            one.push_str(piece);
        }
        naive_glob(&one.chars().collect::<Vec<_>>(), &action)
    })
}

fn naive_glob(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|skipped| naive_glob(rest, &text[skipped..])),
        Some((wanted, rest)) => text.first() == Some(wanted) && naive_glob(rest, &text[1..]),
    }
}

fn naive_like(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => (0..=text.len()).any(|skipped| naive_like(rest, &text[skipped..])),
        ['?', rest @ ..] => !text.is_empty() && naive_like(rest, &text[1..]),
        ['\\', wanted @ ('*' | '?' | '\\'), rest @ ..] | [wanted, rest @ ..] => {
            text.first() == Some(wanted) && naive_like(rest, &text[1..])
        }
    }
}

enum Lookup {
    Missing,
    Ambiguous,
    Found(Value),
}

fn naive_present(value: &Value, depth: u8) -> bool {
    match value {
        Value::Null => false,
        Value::Array(values) => depth == 0 || values.iter().any(|value| !value.is_null()),
        Value::Object(members) => depth == 0 || members.values().any(|value| naive_present(value, depth - 1)),
        _ => true,
    }
}

fn naive_one(values: Vec<Value>) -> Lookup {
    match values.as_slice() {
        [] => Lookup::Missing,
        [value] => Lookup::Found(value.clone()),
        _ => Lookup::Ambiguous,
    }
}

fn naive_find(name: &Name, asked: &Asked) -> Lookup {
    let source = name.source.to_ascii_lowercase();
    if source == "environment" && name.name.eq_ignore_ascii_case("utcnow") && name.suffix.is_empty() {
        return Lookup::Found(json!({ "now": asked.now }));
    }
    if source == "request" && name.name.eq_ignore_ascii_case("suboperation") && name.suffix.is_empty() {
        return asked.sub_operation.map_or(Lookup::Missing, |given| Lookup::Found(json!(given)));
    }
    let empty = serde_json::Map::new();
    let bag = asked.bags[&source].as_object().unwrap_or(&empty);
    let of = |wanted: &dyn Fn(&str) -> bool| -> Vec<Value> {
        let found = bag.iter().filter(|(given, value)| wanted(given) && naive_present(value, 2));
        found.map(|(_, value)| value.clone()).collect()
    };
    let exact = name.suffix.to_lowercase().contains("case");
    let keys = name.suffix.contains("keys");
    let split = name.name.split_once(':');
    let whole = of(&|given| match (exact, split, given.split_once(':')) {
        (true, Some((path, key)), Some((given_path, given_key))) => {
            path.eq_ignore_ascii_case(given_path) && key == given_key
        }
        _ => given.eq_ignore_ascii_case(name.name),
    });
    if keys {
        return match naive_one(whole) {
            Lookup::Found(Value::Object(members)) => {
                let keys = members.iter().filter(|(_, value)| naive_present(value, 1));
                Lookup::Found(keys.map(|(key, _)| json!(key)).collect())
            }
            Lookup::Found(_) => Lookup::Missing,
            other => other,
        };
    }
    let (Some((path, key)), true) = (split, whole.is_empty()) else {
        return naive_one(whole);
    };
    let mut dictionaries = of(&|given| given.eq_ignore_ascii_case(path));
    dictionaries.retain(Value::is_object);
    match naive_one(dictionaries) {
        Lookup::Found(Value::Object(members)) => {
            let same = |given: &str| if exact { given == key } else { given.eq_ignore_ascii_case(key) };
            let found = members.into_iter().filter(|(given, value)| same(given) && naive_present(value, 1));
            naive_one(found.map(|(_, value)| value).collect())
        }
        other => other,
    }
}

fn naive_values(side: &Side, asked: &Asked) -> Option<Vec<Value>> {
    Some(match side {
        Side::Literals(literals) => literals
            .iter()
            .map(|literal| match literal {
                Literal::Text(text) => json!(text),
                Literal::Number(number) => json!(number),
                Literal::Boolean(boolean) => json!(boolean),
                Literal::Guid(guid) => json!(guid),
            })
            .collect(),
        Side::Attribute(name) => match naive_find(name, asked) {
            Lookup::Found(Value::Array(values)) => values,
            Lookup::Found(value) => vec![value],
            Lookup::Missing | Lookup::Ambiguous => return None,
        },
    })
}

/// One letter for one letter; the test's alphabet needs no more.
fn naive_upper(text: &str) -> Vec<char> {
    text.chars()
        .map(|letter| match letter {
            'é' => 'É',
            'ſ' => 'S',
            'σ' | 'ς' => 'Σ',
            letter => letter.to_ascii_uppercase(),
        })
        .collect()
}

fn naive_number(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) if !text.starts_with('+') => text.parse().ok(),
        _ => None,
    }
}

/// In 100 ns.
fn naive_instant(value: &Value) -> Option<i128> {
    if let Some(now) = value.get("now") {
        return now.as_i64().map(i128::from);
    }
    let text = value.as_str()?;
    if !text.contains('T') || !(text.ends_with('Z') || text.contains('+')) {
        return None;
    }
    let instant: jiff::Timestamp = text.parse().ok()?;
    Some(instant.as_nanosecond() / 100)
}

fn naive_guid(value: &Value) -> Option<String> {
    let text = value.as_str()?.rsplit('/').next()?;
    let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text);
    let dashed = text.len() == 36 && [8, 13, 18, 23].iter().all(|&at| text.as_bytes()[at] == b'-');
    let digits: String = text.chars().filter(|&digit| digit != '-').collect();
    let hexadecimal = digits.len() == 32 && digits.chars().all(|digit| digit.is_ascii_hexdigit());
    (hexadecimal && (dashed || text.len() == 32)).then(|| digits.to_lowercase())
}

fn naive_ordered<T: PartialOrd>(operator: &str, left: &T, right: &T) -> bool {
    if operator.ends_with("GreaterThanEquals") {
        left >= right
    } else if operator.ends_with("GreaterThan") {
        left > right
    } else if operator.ends_with("LessThanEquals") {
        left <= right
    } else if operator.ends_with("LessThan") {
        left < right
    } else {
        left == right
    }
}

fn naive_pair(operator: &str, left: &Value, right: &Value) -> Kleene {
    if let Some(kind) = operator.strip_prefix("String") {
        let (left, right) = (left.as_str()?, right.as_str()?);
        let (left, right) = if kind.ends_with("IgnoreCase") {
            (naive_upper(left), naive_upper(right))
        } else {
            (left.chars().collect(), right.chars().collect())
        };
        return Some(if kind.starts_with("Equals") {
            left == right
        } else if kind.starts_with("StartsWith") {
            left.starts_with(&right)
        } else {
            naive_like(&right, &left)
        });
    }
    if operator.starts_with("Numeric") {
        return Some(naive_ordered(operator, &naive_number(left)?, &naive_number(right)?));
    }
    if operator.starts_with("DateTime") {
        return Some(naive_ordered(operator, &naive_instant(left)?, &naive_instant(right)?));
    }
    if operator.starts_with("Guid") {
        return Some(naive_guid(left)? == naive_guid(right)?);
    }
    let boolean = |value: &Value| match value {
        Value::Bool(boolean) => Some(*boolean),
        Value::String(text) => text.to_ascii_lowercase().parse().ok(),
        _ => None,
    };
    Some(boolean(left)? == boolean(right)?)
}

// === drawing conditions and requests ===

const TEXTS: &[&str] = &[
    "", "a", "A", "ab", "aB", "abc", "é", "É", "aé", "ß", "ſ", "s", "σς", "ΣΣ", "a*b", "a?", "it's", "/",
    "5", "-3", "05", "+5", "5.0", "true", "TRUE",
];
const PATTERNS: &[&str] = &[
    "", "a", "a*", "*", "*b", "a*b", r"a\*b", r"a\?", "a?", "?", "é*", "*s*", "??", r"a\", "**b", "a*b*c",
    "S",
];
const DATES: &[&str] = &[
    "2024-01-01T00:00:00Z",
    "2024-01-01T01:00:00+01:00",
    "2024-01-01T00:00:00.0000001Z",
    "2023-12-31T23:59:59.9999999Z",
];
const GUIDS: &[&str] = &[
    "08d4c71acc634ce4a9c85dd251b4d619",
    "08D4C71A-CC63-4CE4-A9C8-5DD251B4D619",
    "8e3af657-a8ff-443c-a75c-2fe8c4bcb635",
    "00000000000000000000000000000000",
];
const GUID_VALUES: &[&str] = &[
    "{08d4c71a-cc63-4ce4-a9c8-5dd251b4d619}",
    "/x/roleDefinitions/8e3af657-a8ff-443c-a75c-2fe8c4bcb635",
    "not-a-guid",
];
const QUANTIFIERS: &[&str] =
    &["ForAnyOfAnyValues", "forallofanyvalues", "ForAnyOfAllValues", "ForAllOfAllValues"];
const CROSS: &[&str] = &[
    "StringEquals",
    "StringNotEquals",
    "StringLike",
    "StringNotLike",
    "StringEqualsIgnoreCase",
    "StringNotEqualsIgnoreCase",
    "StringLikeIgnoreCase",
    "StringNotLikeIgnoreCase",
    "NumericEquals",
    "NumericNotEquals",
    "NumericGreaterThan",
    "NumericGreaterThanEquals",
    "NumericLessThan",
    "NumericLessThanEquals",
    "GuidEquals",
    "GuidNotEquals",
];
const SCALAR_ONLY: &[&str] = &[
    "StringStartsWith",
    "StringNotStartsWith",
    "StringStartsWithIgnoreCase",
    "StringNotStartsWithIgnoreCase",
    "DateTimeEquals",
    "DateTimeNotEquals",
    "DateTimeGreaterThan",
    "DateTimeGreaterThanEquals",
    "DateTimeLessThan",
    "DateTimeLessThanEquals",
    "BoolEquals",
    "BoolNotEquals",
];

fn one_of(from: &'static [&'static str]) -> impl Strategy<Value = &'static str> + Clone {
    proptest::sample::select(from)
}

fn name() -> impl Strategy<Value = Name> {
    let source = one_of(&["Request", "resource", "Principal", "ENVIRONMENT"]);
    let plain = one_of(&["x:n", "X:N", "x", "tags", "tags:k", "tags:K", "subOperation", "utcnow", "t:a:b"]);
    let suffixed = one_of(&["tags:k", "Tags:K", "x:n", "t:a:b"]);
    prop_oneof![
        4 => (source.clone(), plain).prop_map(|(source, name)| Name { source, name, suffix: "" }),
        2 => (source.clone(), suffixed)
            .prop_map(|(source, name)| Name { source, name, suffix: "<$key_case_sensitive$>" }),
        1 => (source, one_of(&["tags", "TAGS", "x"]))
            .prop_map(|(source, name)| Name { source, name, suffix: "&$keys$&" }),
    ]
}

fn literal(operator: &'static str) -> BoxedStrategy<Literal> {
    if operator.contains("Like") {
        one_of(PATTERNS).prop_map(Literal::Text).boxed()
    } else if operator.starts_with("String") {
        one_of(TEXTS).prop_map(Literal::Text).boxed()
    } else if operator.starts_with("Numeric") {
        prop_oneof![(-4_i64..8), Just(i64::MIN), Just(i64::MAX)].prop_map(Literal::Number).boxed()
    } else if operator.starts_with("DateTime") {
        one_of(DATES).prop_map(Literal::Text).boxed()
    } else if operator.starts_with("Guid") {
        prop_oneof![one_of(GUIDS).prop_map(Literal::Guid), one_of(GUIDS).prop_map(Literal::Text)].boxed()
    } else {
        any::<bool>().prop_map(Literal::Boolean).boxed()
    }
}

fn side(operator: &'static str, most: usize) -> impl Strategy<Value = Side> {
    prop_oneof![
        name().prop_map(Side::Attribute),
        proptest::collection::vec(literal(operator), 1..=most).prop_map(Side::Literals),
    ]
}

fn clause() -> impl Strategy<Value = Tree> {
    let crossed = (one_of(QUANTIFIERS), one_of(CROSS)).prop_flat_map(|(quantifier, operator)| {
        (side(operator, 4), side(operator, 4))
            .prop_map(move |(left, right)| Tree::Compare(left, Some(quantifier), operator, right))
    });
    let scalar = prop_oneof![one_of(CROSS), one_of(SCALAR_ONLY)].prop_flat_map(|operator| {
        (side(operator, 1), side(operator, 1))
            .prop_map(move |(left, right)| Tree::Compare(left, None, operator, right))
    });
    prop_oneof![
        4 => crossed,
        4 => scalar,
        2 => name().prop_map(Tree::Exists),
        1 => one_of(&["a/*/b", "A/*", "*/b", "a/b", "*", "a/*/x/*/b", ""]).prop_map(Tree::Action),
        1 => one_of(&["Blob.List", "blob.write", ""]).prop_map(Tree::SubOperation),
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    clause().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Tree::Or),
            proptest::collection::vec(inner.clone(), 1..4).prop_map(Tree::And),
            inner.prop_map(|part| Tree::Not(Box::new(part))),
        ]
    })
}

fn scalar_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => one_of(TEXTS).prop_map(|text| json!(text)),
        2 => (-4_i64..8).prop_map(|number| json!(number)),
        1 => any::<bool>().prop_map(|boolean| json!(boolean)),
        1 => one_of(DATES).prop_map(|text| json!(text)),
        1 => one_of(GUIDS).prop_map(|text| json!(text)),
        1 => one_of(GUID_VALUES).prop_map(|text| json!(text)),
        1 => Just(Value::Null),
        1 => Just(json!(2.5)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let element = prop_oneof![8 => scalar_value(), 1 => Just(json!(["a"])), 1 => Just(json!({"k": "a"}))];
    let list = proptest::collection::vec(element, 0..4).prop_map(Value::Array);
    let entry = prop_oneof![3 => scalar_value(), 1 => list.clone()];
    let key = one_of(&["k", "K", "j", "a:b"]).prop_map(str::to_owned);
    let dictionary = proptest::collection::btree_map(key, entry, 0..4)
        .prop_map(|entries| Value::Object(entries.into_iter().collect()));
    prop_oneof![4 => scalar_value(), 2 => list, 3 => dictionary]
}

fn bag() -> impl Strategy<Value = Value> {
    let name = one_of(&[
        "x:n",
        "X:n",
        "x",
        "tags",
        "Tags",
        "tags:k",
        "TAGS:K",
        "subOperation",
        "UtcNow",
        "t",
        "t:a:b",
    ]);
    proptest::collection::btree_map(name.prop_map(str::to_owned), value(), 0..6)
        .prop_map(|entries| Value::Object(entries.into_iter().collect()))
}

fn asked() -> impl Strategy<Value = Asked> {
    let action = one_of(&["a/b", "A/x/B", "a/x/y/b", "a//b", "c"]);
    let sub_operation = proptest::option::of(one_of(&["Blob.List", "BLOB.WRITE"]));
    let now =
        prop_oneof![Just(17_040_672_000_000_000_i64), 17_040_671_999_999_998_i64..17_040_672_000_000_003];
    (action, sub_operation, now, bag(), bag(), bag(), bag()).prop_map(
        |(action, sub_operation, now, request, resource, principal, environment)| Asked {
            action,
            sub_operation,
            now,
            bags: json!({
                "request": request, "resource": resource, "principal": principal, "environment": environment,
            }),
        },
    )
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(4_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn programs_agree_with_the_naive_evaluator(tree in tree(), asked in asked()) {
        let text = tree.print();
        prop_assume!(text.len() <= 8_192);
        let request = Request {
            action: asked.action.to_owned(),
            sub_operation: asked.sub_operation.map(str::to_owned),
            now: jiff::Timestamp::from_nanosecond(i128::from(asked.now) * 100).unwrap(),
            bags: ["request", "resource", "principal", "environment"]
                .map(|source| Attributes::from_json(&asked.bags[source])),
        };
        let expected = match naive(&tree, &asked) {
            Some(true) => Truth::True,
            Some(false) => Truth::False,
            None => Truth::Undefined,
        };
        prop_assert_eq!(eval(&text, &request, NO_EXTENSIONS), expected, "{}", text);
        round_trip(&text, NO_EXTENSIONS);
    }

    #[test]
    fn any_text_is_read_without_harm(text in r"(\PC|[(){}@!&|',:$<>\[\]*?\\ \t\n]|AND|OR|NOT|@Resource\[|StringEquals|ActionMatches\{|Exists|true|5|'){0,60}") {
        for mode in [Mode::Author, Mode::Load] {
            let parsed = parse(&text, mode, WITH_EXTENSIONS);
            for diagnostic in &parsed.diagnostics {
                prop_assert!(text.get(diagnostic.span.clone()).is_some(), "{:?} in {:?}", diagnostic, text);
                prop_assert!(!diagnostic.span.is_empty() || text.is_empty() || text.trim().is_empty());
                prop_assert!(!diagnostic.message.ends_with('.'));
            }
        }
        round_trip(&text, WITH_EXTENSIONS);
    }
}

// === bytes that lie, and what evaluating costs ===

fn example_programs() -> Vec<(Vec<u8>, Request)> {
    let mut programs = Vec::new();
    for row in rows("condition-eval.jsonl") {
        let text = row["given"]["condition"].as_str().unwrap();
        let condition = parse(text, Mode::Load, NO_EXTENSIONS).condition.unwrap();
        let program = compile(&condition, Wildcards::Collapse).into_bytes();
        programs.push((program, Request::from_json(&row["request"])));
    }
    for text in [
        "@Resource[x:c] ForAnyOfAnyValues:StringLikeIgnoreCase {'a*b', 'é?', '*'} OR @Resource[x:c] StringLike 'a*?'",
        "@Environment[UtcNow] TimeOfDayInRange {'08:00', '17:00'} AND @Request[ip] IpMatch '10.0.0.0/8'",
        "@Request[ip] IpInRange @Resource[x:c] OR @Resource[x:c] ListContains 'red'",
        "{'a', 'b'} ForAllOfAnyValues:StringEqualsIgnoreCase @Resource[x:c] AND NOT Exists @Resource[x&$keys$&]",
    ] {
        let condition = parse(text, Mode::Load, WITH_EXTENSIONS).condition.unwrap();
        let request = Request::from_json(&json!({ "action": "a/b", "attributes": {
            "resource": { "x:c": ["red", "aéb"], "x": { "a": 1 } }, "request": { "ip": "10.1.2.3" },
        }}));
        programs.push((compile(&condition, Wildcards::Collapse).into_bytes(), request));
    }
    programs
}

#[test]
fn damaged_programs_do_no_harm() {
    let mut random: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 16).unwrap() % below
    };
    let (mut runs, mut damaged, mut exceeded) = (0_u32, 0_u32, 0_u32);
    let mut run = |program: &[u8], request: &Request| {
        runs += 1;
        match evaluate(program, &request.context(), &mut Budget::new(2_000)) {
            Ok(_) => {}
            Err(EvalError::Damaged) => damaged += 1,
            Err(EvalError::BudgetExceeded) => exceeded += 1,
        }
    };
    for (program, request) in example_programs() {
        for cut in 0..program.len() {
            assert!(ProgramRef::open(&program[..cut]).is_err());
        }
        for at in 0..program.len() {
            for value in [0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF] {
                let mut changed = program.clone();
                changed[at] = value;
                run(&changed, &request);
            }
        }
        for _ in 0..200 {
            let mut changed = program.clone();
            for _ in 0..=next(8) {
                let at = next(changed.len());
                changed[at] ^= 1 << next(8);
            }
            run(&changed, &request);
        }
    }
    println!("damaged programs: {runs} runs, {damaged} noticed, {exceeded} over budget");
    assert!(damaged > 0);
}

#[test]
fn evaluating_does_not_allocate() {
    let programs = example_programs();
    for (program, request) in &programs {
        let context = request.context();
        let before = ALLOCATIONS.with(Cell::get);
        let truth = evaluate(program, &context, &mut Budget::default());
        let after = ALLOCATIONS.with(Cell::get);
        assert!(truth.is_ok());
        assert_eq!(after - before, 0);
    }
    println!("allocations: none in {} evaluations", programs.len());
}
