//! Two runs beside each other: what is better, what is worse, and whether they can be compared at all.

use serde::Serialize;

use super::report::{Report, float, rounded, took};

/// How the second run stands to the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Something is better by more than is tolerated, and nothing is worse.
    Better,
    /// Nothing is.
    Same,
    /// Something is worse.
    Worse,
}

/// Two runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// How the second stands to the first.
    pub verdict: Verdict,
    /// The same in words.
    pub said: String,
    /// What makes them unlike: then their numbers say little.
    pub unlike: Vec<String>,
    /// Number by number.
    pub rows: Vec<Row>,
}

/// One number of both.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// What it is.
    pub name: &'static str,
    /// Of the first.
    pub a: f64,
    /// Of the second.
    pub b: f64,
    /// The second over the first; `None` where that is nought.
    pub ratio: Option<f64>,
    /// How the second stands to the first.
    pub verdict: Verdict,
    #[serde(skip)]
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    PerSecond,
    Micros,
    Count,
}

/// Compares two runs. What differs by no more than `tolerance` (0.05: five of a hundred) is the same.
pub fn compare(a: &Report, b: &Report, tolerance: f64) -> Comparison {
    let row = |name, unit, of: &dyn Fn(&Report) -> f64, judged: bool| {
        let (a, b) = (of(a), of(b));
        let ratio = (a > 0.0).then(|| b / a);
        // Of a rate more is better, of everything else less.
        let (good, bad) = if unit == Unit::PerSecond { (b, a) } else { (a, b) };
        let verdict = match unit {
            _ if !judged => Verdict::Same,
            Unit::Count if b > a => Verdict::Worse,
            Unit::Count if b < a => Verdict::Better,
            Unit::Count => Verdict::Same,
            _ if good > bad * (1.0 + tolerance) => Verdict::Better,
            _ if bad > good * (1.0 + tolerance) => Verdict::Worse,
            _ => Verdict::Same,
        };
        Row { name, a, b, ratio, verdict, unit }
    };
    // In an open loop the rate is what was asked for.
    let closed = a.load.rate.is_none() || b.load.rate.is_none();
    let rows = vec![
        row("calls/s", Unit::PerSecond, &|run| run.calls_per_second, closed),
        row("p50", Unit::Micros, &|run| run.latency.p50_micros, true),
        row("p90", Unit::Micros, &|run| run.latency.p90_micros, true),
        row("p99", Unit::Micros, &|run| run.latency.p99_micros, true),
        row("p99.9", Unit::Micros, &|run| run.latency.p999_micros, true),
        // One call decides it.
        row("max", Unit::Micros, &|run| run.latency.max_micros, false),
        row("failed", Unit::Count, &|run| float(run.failed()), true),
        row("wrong", Unit::Count, &|run| float(run.wrong()), true),
    ];
    let told = |verdict: Verdict| {
        let rows: Vec<String> = rows
            .iter()
            .filter(|row| row.verdict == verdict)
            .map(|row| match (row.unit, row.ratio) {
                (Unit::Count, _) | (_, None) => {
                    format!("{} {} → {}", row.name, row.shown(row.a), row.shown(row.b))
                }
                (_, Some(ratio)) => format!("{} {:+.1} %", row.name, (ratio - 1.0) * 100.0),
            })
            .collect();
        rows.join(", ")
    };
    let (better, worse) = (told(Verdict::Better), told(Verdict::Worse));
    let (verdict, said) = match (better.is_empty(), worse.is_empty()) {
        (true, true) => (Verdict::Same, format!("B is as A, within {:.0} %", tolerance * 100.0)),
        (false, true) => (Verdict::Better, format!("B is better than A: {better}")),
        (true, false) => (Verdict::Worse, format!("B is worse than A: {worse}")),
        (false, false) => (Verdict::Worse, format!("B is worse than A: {worse}; though better: {better}")),
    };
    Comparison { verdict, said, unlike: unlike(a, b), rows }
}

/// What has to be the same for two runs to say something of each other.
fn unlike(a: &Report, b: &Report) -> Vec<String> {
    let (one, other) = (&a.load, &b.load);
    let rate = |rate: Option<f64>| rate.map_or_else(|| "none".to_owned(), rounded);
    let parts = [
        ("rpc", one.rpc.clone(), other.rpc.clone()),
        ("loop", one.mode.clone(), other.mode.clone()),
        ("rate that is due", rate(one.rate), rate(other.rate)),
        ("connections", one.connections.to_string(), other.connections.to_string()),
        ("in flight", one.in_flight.to_string(), other.in_flight.to_string()),
        ("threads", one.threads.to_string(), other.threads.to_string()),
        ("batch", one.batch.to_string(), other.batch.to_string()),
        ("questions", one.questions.clone(), other.questions.clone()),
        ("different questions", one.distinct.to_string(), other.distinct.to_string()),
        ("order", one.pick.clone(), other.pick.clone()),
        ("seed", one.seed.to_string(), other.seed.to_string()),
    ];
    parts.into_iter().filter(|(_, a, b)| a != b).map(|(name, a, b)| format!("{name}: {a} and {b}")).collect()
}

impl Row {
    fn shown(&self, value: f64) -> String {
        match self.unit {
            Unit::PerSecond => rounded(value),
            Unit::Micros => took(value).trim().to_owned(),
            Unit::Count => format!("{value:.0}"),
        }
    }
}

impl Comparison {
    /// As a table for people.
    pub fn text(&self) -> String {
        let mut text = format!("{:<9}{:>14}{:>14}{:>9}\n", "", "A", "B", "B / A");
        for row in &self.rows {
            let ratio = row.ratio.map(|ratio| format!("{ratio:.3}")).unwrap_or_default();
            let mark = match row.verdict {
                Verdict::Better => "  better",
                Verdict::Same => "",
                Verdict::Worse => "  WORSE",
            };
            let line =
                format!("{:<9}{:>14}{:>14}{ratio:>9}{mark}", row.name, row.shown(row.a), row.shown(row.b));
            text.push_str(line.trim_end());
            text.push('\n');
        }
        for unlike in &self.unlike {
            text.push_str(&format!("not the same load: {unlike}\n"));
        }
        text.push_str(&format!("\n{}\n", self.said));
        text
    }
}
