//! Metrics, bound at start: whoever counts holds the counter itself, so that a request costs one atomic addition
//! and no look-up of labels. What there is stands in one table, `telemetry::names::metric`; it is shown as text to
//! whoever scrapes and pushed as OTLP, under the same names. All labels are closed sets.

mod cells;
mod instruments;
mod otlp;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

pub use instruments::{Counter, FloatGauge, Gauge, Histogram, Observed};

use crate::model::Freshness;
use crate::telemetry::names::{Metric, metric};
use cells::Cells;
use instruments::Distribution;

/// What `/metrics` answers with.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of the process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    families: Vec<Family>,
    /// Set what others keep, whenever somebody looks.
    observers: Mutex<Vec<Observer>>,
    started: SystemTime,
}

type Observer = Arc<dyn Fn() + Send + Sync>;

/// All series of one metric.
struct Family {
    metric: &'static Metric,
    series: RwLock<BTreeMap<Labels, Number>>,
}

/// The values of the labels, in the order of their names.
type Labels = Vec<String>;

#[derive(Clone)]
enum Number {
    Counter(Counter),
    Observed(Observed),
    Gauge(Gauge),
    Float(FloatGauge),
    Histogram(Histogram),
}

/// A metric as it is now.
struct Shown {
    metric: &'static Metric,
    series: Vec<(Labels, Value)>,
}

enum Value {
    Count(u64),
    Whole(i64),
    Fraction(f64),
    Distribution(Distribution),
}

/// What the updater sets.
#[derive(Clone)]
pub struct PolicyMetrics {
    metrics: Metrics,
    generation: Gauge,
    serial: Gauge,
    activations: Counter,
    activated: FloatGauge,
    age: Gauge,
    last_success: FloatGauge,
    bytes: Gauge,
    reload_ok: Gauge,
    reload_failures: Counter,
    confirmed: Gauge,
    expires: Gauge,
    freshness: [Gauge; Freshness::ALL.len()],
}

/// What the recorder counts.
#[derive(Clone, Debug)]
pub struct RecordMetrics(Metrics);

/// A policy as the metrics tell it.
#[derive(Clone, Debug)]
pub struct ActivePolicy<'a> {
    /// Activations so far.
    pub generation: u64,
    /// Serial of the publication.
    pub serial: u64,
    /// Digest of the compiled policy.
    pub digest: &'a str,
    /// When, in seconds since 1970.
    pub activated_at: f64,
    /// How many of each kind.
    pub objects: &'a [(&'static str, usize)],
    /// Bytes of the compiled form.
    pub bytes: usize,
}

// === impl Metrics ===

impl Metrics {
    /// The whole table, with what was built and from which commit.
    pub fn new(version: &'static str, commit: &'static str) -> Self {
        let family = |metric: &&'static Metric| Family { metric, series: RwLock::default() };
        let families = metric::ALL.iter().map(family).collect();
        let inner = Inner { families, observers: Mutex::default(), started: SystemTime::now() };
        let metrics = Self(Arc::new(inner));
        metrics.gauge(&metric::BUILD_INFO, &[version, commit]).set(1);
        metrics
    }

    /// A counter, made when it is first asked for.
    pub fn counter(&self, metric: &Metric, labels: &[&str]) -> Counter {
        let make = || Number::Counter(Counter::of(&Cells::new(1), 0));
        match self.series(metric, labels, make) {
            Some(Number::Counter(counter)) => counter,
            _ => Counter::of(&Cells::new(1), 0),
        }
    }

    /// Counters that one path adds to, side by side in memory: in the order of their labels.
    pub fn counters<'l>(
        &self,
        metric: &Metric,
        labels: impl ExactSizeIterator<Item = Vec<&'l str>>,
    ) -> Vec<Counter> {
        let cells = Cells::new(labels.len());
        let bind = |(number, labels): (usize, Vec<&str>)| match self
            .series(metric, &labels, || Number::Counter(Counter::of(&cells, number)))
        {
            Some(Number::Counter(counter)) => counter,
            _ => Counter::of(&cells, number),
        };
        labels.enumerate().map(bind).collect()
    }

    /// A counter that somebody else keeps.
    pub fn observed(&self, metric: &Metric, labels: &[&str]) -> Observed {
        match self.series(metric, labels, || Number::Observed(Observed::default())) {
            Some(Number::Observed(counter)) => counter,
            _ => Observed::default(),
        }
    }

    /// A gauge, made when it is first asked for.
    pub fn gauge(&self, metric: &Metric, labels: &[&str]) -> Gauge {
        match self.series(metric, labels, || Number::Gauge(Gauge::default())) {
            Some(Number::Gauge(gauge)) => gauge,
            _ => Gauge::default(),
        }
    }

    /// A gauge of fractions, made when it is first asked for.
    pub fn float_gauge(&self, metric: &Metric, labels: &[&str]) -> FloatGauge {
        match self.series(metric, labels, || Number::Float(FloatGauge::default())) {
            Some(Number::Float(gauge)) => gauge,
            _ => FloatGauge::default(),
        }
    }

    /// A histogram, made when it is first asked for.
    pub fn histogram(&self, metric: &Metric, labels: &[&str]) -> Histogram {
        match self.series(metric, labels, || Number::Histogram(Histogram::new())) {
            Some(Number::Histogram(histogram)) => histogram,
            _ => Histogram::new(),
        }
    }

    /// What the updater sets.
    pub fn policy(&self) -> PolicyMetrics {
        let gauge = |metric| self.gauge(metric, &[]);
        PolicyMetrics {
            metrics: self.clone(),
            generation: gauge(&metric::POLICY_GENERATION),
            serial: gauge(&metric::POLICY_SERIAL),
            activations: self.counter(&metric::POLICY_ACTIVATIONS, &[]),
            activated: self.float_gauge(&metric::POLICY_ACTIVATED, &[]),
            age: gauge(&metric::POLICY_AGE),
            last_success: self.float_gauge(&metric::POLICY_LAST_SUCCESS, &[]),
            bytes: gauge(&metric::POLICY_BYTES),
            reload_ok: gauge(&metric::POLICY_RELOAD_OK),
            reload_failures: self.counter(&metric::POLICY_RELOAD_FAILURES, &[]),
            confirmed: gauge(&metric::POLICY_CONFIRMED),
            expires: gauge(&metric::POLICY_EXPIRES),
            freshness: Freshness::ALL.map(|state| self.gauge(&metric::POLICY_FRESHNESS, &[state.name()])),
        }
    }

    /// What the recorder counts.
    pub fn records(&self) -> RecordMetrics {
        RecordMetrics(self.clone())
    }

    /// Runs whenever somebody looks, before they see anything.
    pub fn observe(&self, observer: impl Fn() + Send + Sync + 'static) {
        self.0.observers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(observer));
    }

    /// Everything as text.
    pub fn encode(&self) -> String {
        text::encode(&self.show())
    }

    /// Everything as a message of OTLP: cumulative, since this process began.
    pub fn encode_otlp(&self, resource: &opentelemetry_sdk::Resource, exponential: bool) -> Vec<u8> {
        otlp::encode(&self.show(), resource, exponential, self.0.started)
    }

    /// How many series there are.
    pub fn series_count(&self) -> usize {
        self.show().iter().map(|shown| shown.series.len()).sum()
    }

    fn show(&self) -> Vec<Shown> {
        let observers = self.0.observers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        observers.iter().for_each(|observe| observe());
        let show = |family: &Family| {
            let series = family.series.read().unwrap_or_else(PoisonError::into_inner);
            let series = series.iter().map(|(labels, number)| (labels.clone(), number.now())).collect();
            Shown { metric: family.metric, series }
        };
        self.0.families.iter().map(show).collect()
    }

    fn family(&self, metric: &Metric) -> Option<&Family> {
        self.0.families.iter().find(|family| family.metric.name == metric.name)
    }

    fn series(&self, metric: &Metric, labels: &[&str], make: impl FnOnce() -> Number) -> Option<Number> {
        debug_assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
        let mut series = self.family(metric)?.series.write().unwrap_or_else(PoisonError::into_inner);
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        Some(series.entry(labels).or_insert_with(make).clone())
    }

    /// Leaves one series of a metric: the one with these labels, at one.
    fn only(&self, metric: &Metric, labels: &[&str]) {
        if let Some(family) = self.family(metric) {
            let mut series = family.series.write().unwrap_or_else(PoisonError::into_inner);
            series.clear();
            let one = Gauge::default();
            one.set(1);
            series.insert(labels.iter().map(|label| (*label).to_owned()).collect(), Number::Gauge(one));
        }
    }
}

impl Number {
    fn now(&self) -> Value {
        match self {
            Self::Counter(counter) => Value::Count(counter.get()),
            Self::Observed(counter) => Value::Count(counter.get()),
            Self::Gauge(gauge) => Value::Whole(gauge.get()),
            Self::Float(gauge) => Value::Fraction(gauge.get()),
            Self::Histogram(histogram) => Value::Distribution(histogram.now()),
        }
    }
}

impl PolicyMetrics {
    /// A policy became active.
    pub fn activated(&self, policy: &ActivePolicy<'_>) {
        self.generation.set(policy.generation);
        self.serial.set(policy.serial);
        self.activations.inc();
        self.activated.set(policy.activated_at);
        self.last_success.set(policy.activated_at);
        // One series, that of the active policy: a stale digest must not stay beside it.
        self.metrics.only(&metric::POLICY_IDENTITY, &[&policy.serial.to_string(), policy.digest]);
        for (kind, count) in policy.objects {
            self.metrics.gauge(&metric::POLICY_OBJECTS, &[kind]).set(*count);
        }
        self.bytes.set(policy.bytes);
        self.reload_ok.set(1);
    }

    /// The documents are those of the active policy; the time in seconds since 1970.
    pub fn unchanged(&self, now: f64) {
        self.reload_ok.set(1);
        self.last_success.set(now);
    }

    /// A step of following a source failed.
    pub fn failed(&self, step: &'static str) {
        self.metrics.counter(&metric::POLICY_UPDATE_FAILURES, &[step]).inc();
    }

    /// How current the active publication is; times in seconds since 1970.
    pub fn lease(&self, confirmed: i64, expires: i64, freshness: Freshness) {
        self.confirmed.set(confirmed);
        self.expires.set(expires);
        for (state, gauge) in Freshness::ALL.iter().zip(&self.freshness) {
            gauge.set(i64::from(*state == freshness));
        }
    }

    /// Seconds since a source confirmed it.
    pub fn age(&self, seconds: i64) {
        self.age.set(seconds);
    }

    /// The documents were refused.
    pub fn refused(&self) {
        self.reload_ok.set(0);
        self.reload_failures.inc();
    }
}

impl RecordMetrics {
    /// The counter of one sink and kind.
    pub fn written(&self, sink: &'static str, kind: &'static str) -> Counter {
        self.0.counter(&metric::RECORDS_WRITTEN, &[sink, kind])
    }

    /// The counter of one kind, reason and outcome.
    pub fn lost(&self, kind: &'static str, reason: &'static str, outcome: &'static str) -> Counter {
        self.0.counter(&metric::RECORDS_LOST, &[kind, reason, outcome])
    }

    /// The counter of what the rules leave out.
    pub fn not_kept(&self, outcome: &'static str) -> Counter {
        self.0.counter(&metric::RECORDS_NOT_KEPT, &[outcome])
    }

    /// What waits. The recorder counts with this very number, so it is exact whenever somebody looks.
    pub fn depth(&self) -> Gauge {
        self.0.gauge(&metric::RECORD_QUEUE_DEPTH, &[])
    }

    /// The counter of what the candidate said.
    pub fn candidate(&self, outcome: &'static str) -> Counter {
        self.0.counter(&metric::CANDIDATE_CHECKS, &[outcome])
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl fmt::Debug for PolicyMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyMetrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    use opentelemetry_proto::tonic::metrics::v1::number_data_point;
    use prost::Message as _;

    use super::*;

    fn some() -> Metrics {
        let metrics = Metrics::new("1.2.3", "abc");
        let labels = ["Allowed", "ROLE_ASSIGNMENT", "control", "miss", "tcp"];
        metrics.counter(&metric::DECISIONS, &labels).inc();
        let policy = metrics.policy();
        for digest in ["old", "new"] {
            policy.activated(&ActivePolicy {
                generation: 2,
                serial: 0,
                digest,
                activated_at: 1.5,
                objects: &[("role_assignment", 7)],
                bytes: 9,
            });
        }
        policy.refused();
        metrics.histogram(&metric::CHECK_DURATION, &["Check", "tcp"]).observe(Duration::from_millis(3));
        metrics
    }

    #[test]
    fn text_is_as_the_format_wants() {
        let metrics = some();
        let seen = metrics.gauge(&metric::CACHE_ENTRIES, &[]);
        metrics.observe(move || seen.set(3));
        let text = metrics.encode();
        for line in [
            "# TYPE postern_build info",
            "postern_build_info{version=\"1.2.3\",commit=\"abc\"} 1",
            "# TYPE postern_decisions counter",
            "postern_decisions_total{outcome=\"Allowed\",reason=\"ROLE_ASSIGNMENT\",plane=\"control\",cache=\"miss\",\
             transport=\"tcp\"} 1",
            "postern_policy_generation 2",
            "postern_policy_activations_total 2",
            "postern_policy_activated_timestamp_seconds 1.5",
            "postern_policy_identity{serial=\"0\",digest=\"new\"} 1",
            "postern_policy_objects{kind=\"role_assignment\"} 7",
            "postern_policy_reload_ok 0",
            "postern_policy_reload_failures_total 1",
            "postern_cache_entries 3",
            "postern_check_duration_seconds_bucket{method=\"Check\",transport=\"tcp\",le=\"0.00390625\"} 1",
            "postern_check_duration_seconds_bucket{method=\"Check\",transport=\"tcp\",le=\"0.001953125\"} 0",
            "postern_check_duration_seconds_bucket{method=\"Check\",transport=\"tcp\",le=\"+Inf\"} 1",
            "postern_check_duration_seconds_sum{method=\"Check\",transport=\"tcp\"} 0.003",
            "postern_check_duration_seconds_count{method=\"Check\",transport=\"tcp\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} not in\n{text}");
        }
        assert!(!text.contains("digest=\"old\""));
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn what_is_pushed_has_the_same_names_and_numbers() {
        let metrics = some();
        let resource = opentelemetry_sdk::Resource::builder_empty().build();
        let request = ExportMetricsServiceRequest::decode(&*metrics.encode_otlp(&resource, true)).unwrap();
        let found = &request.resource_metrics[0].scope_metrics[0].metrics;
        let named =
            |name: &str| found.iter().find(|metric| metric.name == name).unwrap().data.clone().unwrap();
        let Data::Sum(sum) = named("postern_decisions_total") else { panic!() };
        assert!(sum.is_monotonic);
        assert_eq!(sum.data_points[0].value, Some(number_data_point::Value::AsInt(1)));
        assert_eq!(sum.data_points[0].attributes.len(), 5);
        let Data::ExponentialHistogram(times) = named("postern_check_duration_seconds") else { panic!() };
        let point = &times.data_points[0];
        let positive = point.positive.clone().unwrap();
        let index = positive.offset + i32::try_from(positive.bucket_counts.len()).unwrap() - 1;
        let base = 2_f64.powf(2_f64.powi(-point.scale));
        assert!(base.powi(index) < 0.003 && 0.003 <= base.powi(index + 1), "{point:?}");
        assert_eq!((point.count, point.sum), (1, Some(0.003)));
        let request = ExportMetricsServiceRequest::decode(&*metrics.encode_otlp(&resource, false)).unwrap();
        let found = &request.resource_metrics[0].scope_metrics[0].metrics;
        let times = found.iter().find(|metric| metric.name == "postern_check_duration_seconds").unwrap();
        let Some(Data::Histogram(times)) = &times.data else { panic!() };
        let point = &times.data_points[0];
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!(point.bucket_counts.iter().sum::<u64>(), 1);
    }
}
