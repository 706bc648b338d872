//! Metrics as OpenMetrics text, which is what Prometheus scrapes. Histograms have classic buckets, one for each
//! doubling; the finer ones are in what is pushed.

use std::fmt::{self, Write};

use super::{Shown, Value};
use crate::telemetry::names::Kind;

pub(super) fn encode(metrics: &[Shown]) -> String {
    let mut text = String::with_capacity(1 << 16);
    for shown in metrics {
        // Writing to a string does not fail.
        let _ok = family(&mut text, shown);
    }
    text.push_str("# EOF\n");
    text
}

fn family(text: &mut String, shown: &Shown) -> fmt::Result {
    let name = shown.metric.name;
    // The name of a family goes without the suffix that its type gives its samples.
    let (kind, family) = match shown.metric.kind {
        Kind::Counter => ("counter", name.trim_end_matches("_total")),
        Kind::Gauge => ("gauge", name),
        // By the format the samples of an info end in `_info`; the others are gauges that say one.
        Kind::Info if name.ends_with("_info") => ("info", name.trim_end_matches("_info")),
        Kind::Info => ("gauge", name),
        Kind::Histogram => ("histogram", name),
    };
    writeln!(text, "# HELP {family} {}", shown.metric.help)?;
    writeln!(text, "# TYPE {family} {kind}")?;
    for (values, value) in &shown.series {
        let labels = Labels { names: shown.metric.labels, values, bound: None };
        match value {
            Value::Count(count) => writeln!(text, "{name}{labels} {count}")?,
            Value::Whole(number) => writeln!(text, "{name}{labels} {number}")?,
            Value::Fraction(number) => writeln!(text, "{name}{labels} {number}")?,
            Value::Distribution(now) => {
                for (bound, count) in now.classic() {
                    let labels = Labels { bound: Some(bound), ..labels };
                    writeln!(text, "{name}_bucket{labels} {count}")?;
                }
                let count = now.count();
                writeln!(text, "{name}_bucket{} {count}", Labels { bound: Some(f64::INFINITY), ..labels })?;
                writeln!(text, "{name}_sum{labels} {}", now.seconds())?;
                writeln!(text, "{name}_count{labels} {count}")?;
            }
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Labels<'a> {
    names: &'a [&'static str],
    values: &'a [String],
    /// Of a bucket.
    bound: Option<f64>,
}

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "{";
        for (name, value) in self.names.iter().zip(self.values) {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(f, "{before}{name}=\"{value}\"")?;
            before = ",";
        }
        match self.bound {
            Some(bound) if bound.is_infinite() => write!(f, "{before}le=\"+Inf\"}}"),
            Some(bound) => write!(f, "{before}le=\"{bound}\"}}"),
            None if before == "," => f.write_str("}"),
            None => Ok(()),
        }
    }
}
