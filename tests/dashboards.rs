#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "tests"
)]
//! Holds the dashboards and alert rules to what the sidecar tells: every expression parses, every metric, label and value
//! in it exists, and every attribute that a query for traces names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use postern::model::{Freshness, ReasonCode};
use postern::telemetry::names::{Kind, Metric, attribute, metric};
use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{self, AggregateExpr, Expr, MatrixSelector, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::Value;

/// What a scraper adds.
const SCRAPED: [&str; 4] = ["job", "instance", "namespace", "pod"];
/// Why a request is undecided, as metrics tell it.
const UNDECIDED: [&str; 6] = [
    "NO_POLICY",
    "POLICY_EXPIRED",
    "POLICY_STALE",
    "UNKNOWN_HIERARCHY",
    "CONDITIONS_TOO_COSTLY",
    "DAMAGED_POLICY",
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

fn dashboards() -> Vec<(String, Value)> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let json = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let read = |path: PathBuf| {
        let value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        (path.file_name().unwrap().to_string_lossy().into_owned(), value)
    };
    json.map(read).collect()
}

/// Every string under one of these keys, wherever it is.
fn strings(value: &Value, keys: &[&str], found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if let (true, Value::String(text)) = (keys.contains(&key.as_str()), value) {
                    found.push(text.clone());
                }
                strings(value, keys, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| strings(item, keys, found)),
        _ => {}
    }
}

/// Walks an expression and notes what is wrong with it.
#[derive(Default)]
struct Check {
    metrics: BTreeSet<String>,
    /// The labels that the metrics of the expression have between them.
    labels: BTreeSet<&'static str>,
    grouped: Vec<String>,
    wrong: Vec<String>,
}

impl Check {
    fn of(expression: &str) -> Self {
        let plain = expression.replace("$__rate_interval", "5m").replace("$__range", "1h");
        let mut check = Self::default();
        match parser::parse(&plain) {
            Ok(parsed) => {
                walk_expr(&mut check, &parsed).unwrap();
            }
            Err(error) => check.wrong.push(format!("does not parse: {error}")),
        }
        for label in std::mem::take(&mut check.grouped) {
            if !SCRAPED.contains(&label.as_str()) && !check.labels.contains(label.as_str()) {
                check.wrong.push(format!("nothing has the label `{label}`"));
            }
        }
        check
    }

    fn select(&mut self, selector: &VectorSelector) {
        let name = selector.name.clone().unwrap_or_default();
        let Some((metric, extra)) = found(&name) else {
            self.wrong.push(format!("there is no metric `{name}`"));
            return;
        };
        self.metrics.insert(metric.name.to_owned());
        self.labels.extend(metric.labels.iter().chain(&extra));
        for matcher in &selector.matchers.matchers {
            let label = matcher.name.as_str();
            if SCRAPED.contains(&label) {
                continue;
            }
            if !metric.labels.contains(&label) && !extra.contains(&label) {
                self.wrong.push(format!("`{name}` has no label `{label}`"));
            } else if let Some(values) = values(metric.name, label)
                && !values.iter().any(|value| matches(matcher, value))
            {
                self.wrong.push(format!("`{name}` never has {matcher}"));
            }
        }
        assert!(selector.matchers.or_matchers.is_empty(), "`or` is no part of what is checked");
    }
}

impl ExprVisitor for Check {
    type Error = ();

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, ()> {
        match expression {
            Expr::VectorSelector(selector) | Expr::MatrixSelector(MatrixSelector { vs: selector, .. }) => {
                self.select(selector)
            }
            Expr::Aggregate(AggregateExpr { modifier: Some(modifier), .. }) => {
                self.grouped.extend(modifier.labels().labels.iter().cloned());
            }
            _ => {}
        }
        Ok(true)
    }
}

/// A metric by the name of one of its series, and the labels that this series has besides.
fn found(name: &str) -> Option<(&'static Metric, Vec<&'static str>)> {
    metric::ALL.iter().find_map(|metric| {
        let tail = name.strip_prefix(metric.name)?;
        match (metric.kind, tail) {
            (Kind::Histogram, "_bucket") => Some((*metric, vec!["le"])),
            (Kind::Histogram, "_sum" | "_count") => Some((*metric, Vec::new())),
            (Kind::Histogram, _) => None,
            (_, "") => Some((*metric, Vec::new())),
            _ => None,
        }
    })
}

/// What a label of a metric can say, where that is a closed set that is worth checking.
fn values(metric: &str, label: &str) -> Option<Vec<&'static str>> {
    match (metric, label) {
        ("postern_decisions_total", "outcome") => Some(vec!["Allowed", "NotAllowed", "Denied", "Undecided"]),
        ("postern_decisions_total", "reason") => {
            Some(ReasonCode::ALL.iter().map(|code| code.name()).chain(UNDECIDED).collect())
        }
        (_, "state") => Some(Freshness::ALL.iter().map(|state| state.name()).collect()),
        (_, "cache") => Some(vec!["hit", "miss", "bypass"]),
        (_, "method") => Some(vec!["Check", "BatchCheck", "Explain", "ListPermissions", "ListPrincipals"]),
        _ => None,
    }
}

fn matches(matcher: &Matcher, value: &str) -> bool {
    match &matcher.op {
        MatchOp::Equal => matcher.value == value,
        MatchOp::NotEqual => matcher.value != value,
        MatchOp::Re(pattern) => pattern.is_match(value),
        MatchOp::NotRe(pattern) => !pattern.is_match(value),
    }
}

#[test]
fn dashboards_ask_for_what_there_is() {
    let (mut wrong, mut shown) = (Vec::new(), BTreeSet::new());
    let dashboards = dashboards();
    assert_eq!(dashboards.len(), 3);
    for (file, dashboard) in &dashboards {
        let mut expressions = Vec::new();
        strings(dashboard, &["expr"], &mut expressions);
        assert!(expressions.len() > 5, "{file}");
        for expression in &expressions {
            let check = Check::of(expression);
            wrong.extend(check.wrong.iter().map(|what| format!("{file}: {what}\n    in {expression}")));
            shown.extend(check.metrics);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Nothing is counted that nobody looks at, but for details that are for queries by hand.
    let by_hand = [
        "postern_batch_items_total",
        "postern_check_streams",
        "postern_cache_entries",
        "postern_metric_pushes_total",
        "postern_policy_activated_timestamp_seconds",
        "postern_policy_confirmed_timestamp_seconds",
        "postern_policy_serial",
        "postern_spans_exported_total",
        "postern_stream_questions_total",
    ];
    let missing: Vec<&str> = metric::ALL
        .iter()
        .map(|metric| metric.name)
        .filter(|name| !shown.contains(*name) && !by_hand.contains(name))
        .collect();
    assert!(missing.is_empty(), "on no dashboard: {missing:?}");
}

#[test]
fn queries_for_traces_name_attributes_that_there_are() {
    let mut queries = 0;
    for (file, dashboard) in dashboards() {
        let mut found = Vec::new();
        strings(&dashboard, &["query"], &mut found);
        for query in found.iter().filter(|query| query.contains("span.")) {
            queries += 1;
            for part in query.split("span.").skip(1) {
                let end = part.find(|c: char| !c.is_ascii_alphanumeric() && !"._".contains(c));
                let name = &part[..end.unwrap_or(part.len())];
                assert!(attribute::ALL.iter().any(|(known, _)| *known == name), "{file}: `{name}`");
            }
        }
    }
    assert!(queries > 0);
}

#[test]
fn dashboards_are_whole() {
    let mut uids = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        assert!(uids.insert(dashboard["uid"].as_str().unwrap().to_owned()), "{file}");
        let variables: Vec<&str> = dashboard["templating"]["list"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v["name"].as_str().unwrap())
            .collect();
        let (mut ids, mut places) = (BTreeSet::new(), Vec::new());
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{file}: {title}");
            if panel["type"] != "row" {
                assert!(!panel["description"].as_str().unwrap().is_empty(), "{file}: {title}");
            }
            let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
            let (x, y, w, h) = (place("x"), place("y"), place("w"), place("h"));
            assert!(x + w <= 24, "{file}: {title}");
            for (other, (ox, oy, ow, oh)) in &places {
                let apart = x >= ox + ow || *ox >= x + w || y >= oy + oh || *oy >= y + h;
                assert!(apart, "{file}: {title} lies on {other}");
            }
            places.push((title.to_owned(), (x, y, w, h)));
        }
        // A data source that is named is a variable: nothing of another installation.
        let mut sources = Vec::new();
        strings(&dashboard, &["uid"], &mut sources);
        for source in sources.iter().filter(|source| source.starts_with('$')) {
            assert!(variables.iter().any(|name| *source == format!("${{{name}}}")), "{file}: {source}");
        }
    }
}

#[test]
fn alerts_ask_for_what_there_is() {
    let text = std::fs::read_to_string(folder().join("alerts.yaml")).unwrap();
    let mut names = BTreeSet::new();
    let mut lines = text.lines().peekable();
    let mut expressions = Vec::new();
    while let Some(line) = lines.next() {
        let trimmed = line.trim();
        if let Some(name) = trimmed.strip_prefix("- alert: ") {
            assert!(names.insert(name.to_owned()), "{name}");
        }
        let Some(expression) = trimmed.strip_prefix("expr: ") else { continue };
        let mut whole = expression.to_owned();
        if expression == "|-" {
            whole.clear();
            let depth = line.len() - line.trim_start().len();
            while lines.peek().is_some_and(|next| next.len() - next.trim_start().len() > depth) {
                whole += lines.next().unwrap().trim();
                whole.push(' ');
            }
        }
        expressions.push(whole);
    }
    assert_eq!(names.len(), expressions.len());
    for wanted in ["PosternPolicyStale", "PosternActivationRefused", "PosternRecordsLost", "PosternUndecided"]
    {
        assert!(names.contains(wanted), "{wanted}");
    }
    for expression in &expressions {
        let wrong = Check::of(expression).wrong;
        assert!(wrong.is_empty(), "{expression}: {wrong:?}");
    }
}

#[test]
fn what_does_not_exist_is_found() {
    for (expression, wanted) in [
        ("sum(rate(postern_decisions_total{outcome=\"Refused\"}[5m]))", "never has"),
        ("postern_decisions", "there is no metric"),
        ("postern_check_duration_seconds", "there is no metric"),
        ("sum by (principal) (postern_decisions_total)", "nothing has the label `principal`"),
        ("postern_connections{scope=\"x\"}", "has no label `scope`"),
        ("sum(", "does not parse"),
    ] {
        let wrong = Check::of(expression).wrong.join("; ");
        assert!(wrong.contains(wanted), "{expression}: {wrong}");
    }
}
