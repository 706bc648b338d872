//! Metrics as a message of OTLP: the same names, labels and numbers as the text, histograms with four buckets for
//! each doubling.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric::Data,
    number_data_point,
};
use opentelemetry_sdk::Resource;
use prost::Message;

use super::instruments::{Distribution, SCALE, SMALLEST};
use super::{Shown, Value};
use crate::telemetry::names::{INSTRUMENTATION, Kind};

pub(super) fn encode(
    metrics: &[Shown],
    resource: &Resource,
    exponential: bool,
    started: SystemTime,
) -> Vec<u8> {
    let times = Times { start: nanoseconds(started), now: nanoseconds(SystemTime::now()) };
    // What has no series yet is not there.
    let metrics = metrics.iter().filter(|shown| !shown.series.is_empty());
    let scope = ScopeMetrics {
        scope: Some(InstrumentationScope {
            name: INSTRUMENTATION.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        }),
        metrics: metrics.map(|shown| metric(shown, exponential, times)).collect(),
        schema_url: String::new(),
    };
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource.into()),
            scope_metrics: vec![scope],
            schema_url: String::new(),
        }],
    };
    request.encode_to_vec()
}

#[derive(Clone, Copy)]
struct Times {
    start: u64,
    now: u64,
}

fn metric(shown: &Shown, exponential: bool, times: Times) -> Metric {
    let cumulative = AggregationTemporality::Cumulative as i32;
    let data = match shown.metric.kind {
        Kind::Counter => Data::Sum(Sum {
            data_points: numbers(shown, times),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        Kind::Gauge | Kind::Info => Data::Gauge(Gauge { data_points: numbers(shown, times) }),
        Kind::Histogram if exponential => Data::ExponentialHistogram(ExponentialHistogram {
            data_points: distributions(shown, times, exponential_point),
            aggregation_temporality: cumulative,
        }),
        Kind::Histogram => Data::Histogram(Histogram {
            data_points: distributions(shown, times, classic_point),
            aggregation_temporality: cumulative,
        }),
    };
    Metric {
        name: shown.metric.name.to_owned(),
        description: shown.metric.help.to_owned(),
        unit: shown.metric.unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn numbers(shown: &Shown, times: Times) -> Vec<NumberDataPoint> {
    let point = |(labels, value): &(Vec<String>, Value)| {
        let value = match value {
            Value::Count(count) => number_data_point::Value::AsInt(i64::try_from(*count).unwrap_or(i64::MAX)),
            Value::Whole(number) => number_data_point::Value::AsInt(*number),
            Value::Fraction(number) => number_data_point::Value::AsDouble(*number),
            Value::Distribution(_) => return None,
        };
        Some(NumberDataPoint {
            attributes: attributes(shown, labels),
            start_time_unix_nano: times.start,
            time_unix_nano: times.now,
            value: Some(value),
            ..NumberDataPoint::default()
        })
    };
    shown.series.iter().filter_map(point).collect()
}

fn distributions<P>(
    shown: &Shown,
    times: Times,
    point: fn(&Distribution, Vec<KeyValue>, Times) -> P,
) -> Vec<P> {
    let one = |(labels, value): &(Vec<String>, Value)| match value {
        Value::Distribution(now) => Some(point(now, attributes(shown, labels), times)),
        Value::Count(_) | Value::Whole(_) | Value::Fraction(_) => None,
    };
    shown.series.iter().filter_map(one).collect()
}

fn exponential_point(
    now: &Distribution,
    attributes: Vec<KeyValue>,
    times: Times,
) -> ExponentialHistogramDataPoint {
    // The first bucket is all that is too short to tell apart: the zeros of the protocol.
    let (zero_count, positive) =
        now.buckets.split_first().map_or((0, &[][..]), |(zeros, rest)| (*zeros, rest));
    let empty = positive.iter().take_while(|count| **count == 0).count();
    let mut bucket_counts = positive.get(empty..).unwrap_or_default().to_vec();
    while bucket_counts.last() == Some(&0) {
        bucket_counts.pop();
    }
    let first = SMALLEST << SCALE;
    let offset = first.saturating_add(i32::try_from(empty).unwrap_or(i32::MAX));
    ExponentialHistogramDataPoint {
        attributes,
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        count: now.count(),
        sum: Some(now.seconds()),
        scale: i32::try_from(SCALE).unwrap_or_default(),
        zero_count,
        zero_threshold: f64::from(SMALLEST).exp2(),
        positive: Some(Buckets { offset, bucket_counts }),
        ..ExponentialHistogramDataPoint::default()
    }
}

fn classic_point(now: &Distribution, attributes: Vec<KeyValue>, times: Times) -> HistogramDataPoint {
    let (mut explicit_bounds, mut bucket_counts) = (Vec::new(), Vec::new());
    let mut below = 0;
    for (bound, count) in now.classic() {
        explicit_bounds.push(bound);
        bucket_counts.push(count.saturating_sub(below));
        below = count;
    }
    bucket_counts.push(now.count().saturating_sub(below));
    HistogramDataPoint {
        attributes,
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        count: now.count(),
        sum: Some(now.seconds()),
        bucket_counts,
        explicit_bounds,
        ..HistogramDataPoint::default()
    }
}

fn attributes(shown: &Shown, values: &[String]) -> Vec<KeyValue> {
    let attribute = |(name, value): (&&str, &String)| KeyValue {
        key: (*name).to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.clone())) }),
        ..KeyValue::default()
    };
    shown.metric.labels.iter().zip(values).map(attribute).collect()
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
