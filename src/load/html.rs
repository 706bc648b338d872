//! A report as one page: everything is in the file, so it can be kept, sent and opened anywhere.

use std::fmt::Write;

use super::report::{Report, float, rounded, took};

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--dim:#667;--line:#d5d9df;--page:#fff;--one:#2563eb;--two:#d9480f;--bad:#c92a2a}
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--dim:#9aa3ad;--line:#3a4048;--page:#16191d;--one:#6ea8fe;--two:#ff922b;--bad:#ff6b6b}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .4rem}p{margin:.2rem 0;color:var(--dim);overflow-wrap:anywhere}
pre{overflow-x:auto;border:1px solid var(--line);border-radius:6px;padding:.8rem}svg{width:100%;height:auto}
svg text{font-size:12px;fill:var(--dim)}.grid{stroke:var(--line)}.one{stroke:var(--one);fill:none;stroke-width:2}
.two{stroke:var(--two);fill:none;stroke-width:2}.bad{color:var(--bad);font-weight:600}
.key::before{content:\"\";display:inline-block;width:1rem;height:.2rem;margin:0 .4rem .25rem 0;background:var(--one)}
.key.other::before{background:var(--two)}";

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 70.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;

/// The page.
pub fn html(report: &Report) -> String {
    let [load, target] = report.titles();
    let (failed, wrong) = (report.failed(), report.wrong());
    let verdict = match (failed, wrong) {
        (0, 0) => String::new(),
        _ => format!("<p class=\"bad\">{failed} calls or questions failed, {wrong} answers were wrong</p>"),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>postern load: {}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n\
         <h1>postern load</h1>\n<p>{}</p>\n<p>{}</p>\n<p>{}</p>\n{verdict}\n<pre>{}</pre>\n<h2>Latency by \
         percentile</h2>\n{}\n<h2>Over time</h2>\n<p><span class=\"key\">calls/s</span> &emsp; <span class=\"key \
         other\">p99</span></p>\n{}\n</body>\n</html>\n",
        escaped(&load),
        escaped(&load),
        escaped(&target),
        escaped(&report.started),
        escaped(&report.text()),
        percentiles(report),
        timeline(report),
    )
}

/// Text that stays text.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Values along one axis: the length of it, and marks at round numbers.
struct Axis {
    most: f64,
    marks: Vec<f64>,
}

impl Axis {
    /// From nought to a little beyond the largest.
    fn new(largest: f64) -> Self {
        let largest = if largest.is_finite() && largest > 0.0 { largest } else { 1.0 };
        let power = 10_f64.powf((largest / 5.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| largest / step <= 6.0)
            .unwrap_or(power * 10.0);
        let count = (largest / step).ceil().clamp(1.0, 10.0);
        let marks = (0_u8..=10).map(f64::from).take_while(|mark| *mark <= count).map(|mark| mark * step);
        Self { most: count * step, marks: marks.collect() }
    }

    /// The height of a value.
    fn y(&self, value: f64) -> f64 {
        TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - (value / self.most).clamp(0.0, 1.0))
    }

    fn draw(&self, into: &mut String, right: bool, label: impl Fn(f64) -> String) {
        let (x, anchor) = if right { (WIDTH - RIGHT + 6.0, "start") } else { (LEFT - 6.0, "end") };
        for mark in &self.marks {
            let y = self.y(*mark);
            if !right {
                let _infallible = writeln!(
                    into,
                    "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
                    WIDTH - RIGHT
                );
            }
            let _infallible = writeln!(
                into,
                "<text x=\"{x}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
                y + 4.0,
                escaped(&label(*mark))
            );
        }
    }
}

fn along(share: f64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * share.clamp(0.0, 1.0)
}

fn svg(title: &str, inside: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n{inside}</svg>",
        escaped(title)
    )
}

fn line(class: &str, points: impl Iterator<Item = (f64, f64)>) -> String {
    let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    format!("<polyline class=\"{class}\" points=\"{}\"/>\n", points.join(" "))
}

/// Each decade of calls that remain has the same width: what is rare is seen.
fn percentiles(report: &Report) -> String {
    let most = report.latency.max_micros;
    let axis = Axis::new(most);
    let mut inside = String::new();
    axis.draw(&mut inside, false, |micros| took(micros).trim().to_owned());
    let decades = |percentile: f64| -(1.0 - percentile / 100.0).log10();
    let last = report
        .curve
        .iter()
        .map(|point| decades(point.percentile))
        .filter(|decades| decades.is_finite())
        .fold(1.0, f64::max);
    // The longest call stands at the end.
    let width = last + 0.3;
    let labels = [
        (50.0, "50 %"),
        (90.0, "90 %"),
        (99.0, "99 %"),
        (99.9, "99.9 %"),
        (99.99, "99.99 %"),
        (99.999, "99.999 %"),
    ];
    for (percentile, label) in labels {
        if decades(percentile) <= last {
            let x = along(decades(percentile) / width);
            let _infallible = writeln!(
                inside,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{}\"/><text x=\"{x:.1}\" y=\"{}\" \
                 text-anchor=\"middle\">{label}</text>",
                HEIGHT - BOTTOM,
                HEIGHT - 8.0
            );
        }
    }
    inside.push_str(&line(
        "one",
        report.curve.iter().map(|point| {
            let decades = decades(point.percentile);
            (along(if decades.is_finite() { decades / width } else { 1.0 }), axis.y(point.micros))
        }),
    ));
    svg("latency by percentile", &inside)
}

fn timeline(report: &Report) -> String {
    let rate = |calls: u64, seconds: f64| if seconds > 0.0 { float(calls) / seconds } else { 0.0 };
    let pieces = &report.timeline;
    // The last piece may be a splinter, and its rate is noise.
    let whole = pieces.iter().map(|piece| piece.seconds).fold(0.0, f64::max) / 2.0;
    let pieces: Vec<_> = pieces.iter().filter(|piece| piece.seconds >= whole).collect();
    let rates = Axis::new(pieces.iter().map(|piece| rate(piece.calls, piece.seconds)).fold(0.0, f64::max));
    let latencies = Axis::new(pieces.iter().map(|piece| piece.p99_micros).fold(0.0, f64::max));
    let end = pieces.iter().map(|piece| piece.from_seconds + piece.seconds).fold(0.0, f64::max).max(1e-9);
    let mut inside = String::new();
    rates.draw(&mut inside, false, rounded);
    latencies.draw(&mut inside, true, |micros| took(micros).trim().to_owned());
    for part in 0_u8..=4 {
        let share = f64::from(part) / 4.0;
        let _infallible = writeln!(
            inside,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{:.1} s</text>",
            along(share),
            HEIGHT - 8.0,
            end * share
        );
    }
    let x = |from: f64, seconds: f64| along((from + seconds / 2.0) / end);
    inside.push_str(&line(
        "one",
        pieces
            .iter()
            .map(|piece| (x(piece.from_seconds, piece.seconds), rates.y(rate(piece.calls, piece.seconds)))),
    ));
    inside.push_str(&line(
        "two",
        pieces.iter().map(|piece| (x(piece.from_seconds, piece.seconds), latencies.y(piece.p99_micros))),
    ));
    svg("rate and p99 over time", &inside)
}
