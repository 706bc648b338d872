//! What the `OTEL_…` variables say, whole: which signals go where, how spans are sampled and batched, how often
//! metrics are pushed, who is speaking, and which headers of callers are read.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;

use super::otlp::{DISABLED, Problems, Signal, Target, Variables, from_process, pairs};
use super::sampling::{Root, Sampling};

/// Everything that the variables say.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who is speaking.
    pub resource: Resource,
    /// Spans; `None` where nobody wants them.
    pub traces: Option<TraceSettings>,
    /// Metrics that are pushed; those that are scraped are always there.
    pub metrics: Option<MetricSettings>,
    /// Log records; `None` where no setting asks for them.
    pub logs: Option<LogSettings>,
}

/// How spans are made and sent.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// Where to.
    pub target: Target,
    /// Which.
    pub sampling: Sampling,
    /// What is read of callers.
    pub propagators: Propagators,
    /// How they are collected.
    pub batch: BatchSettings,
}

/// Which headers of callers are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagators {
    /// `traceparent` and `tracestate`.
    pub trace_context: bool,
    /// `baggage`.
    pub baggage: bool,
}

/// How spans are collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSettings {
    /// Spans that wait at most; more are lost.
    pub queue: usize,
    /// Spans in one message.
    pub batch: usize,
    /// How long a span waits for others.
    pub delay: Duration,
    /// For one message, all attempts together.
    pub timeout: Duration,
    /// Events of one span: items of a batch.
    pub events: usize,
}

/// How metrics are pushed.
#[derive(Clone, Debug)]
pub struct MetricSettings {
    /// Where to.
    pub target: Target,
    /// How often.
    pub interval: Duration,
    /// For one push, all attempts together.
    pub timeout: Duration,
    /// Whether histograms are exponential; else they have the buckets of what is scraped.
    pub exponential: bool,
}

/// How log records are sent.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Where to.
    pub target: Target,
    /// Records in one message.
    pub batch: usize,
    /// How long a record waits for others.
    pub delay: Duration,
    /// For one message, all attempts together.
    pub timeout: Duration,
}

impl Settings {
    /// Of this process; `log_records` says whether a setting asks for them.
    ///
    /// # Errors
    ///
    /// Every variable that cannot be used.
    pub fn from_env(log_records: bool) -> Result<Self, Problems> {
        Self::read(&from_process, log_records)
    }

    /// From wherever; a test brings its own.
    ///
    /// # Errors
    ///
    /// As [`Self::from_env`].
    pub fn read(lookup: &dyn Fn(&str) -> Option<String>, log_records: bool) -> Result<Self, Problems> {
        let mut variables = Variables::new(lookup);
        let disabled = variables.flag(DISABLED);
        let resource = resource(&mut variables);
        let traces = traces(&mut variables).filter(|_| !disabled);
        let metrics = metrics(&mut variables).filter(|_| !disabled);
        // Nobody else has log records, so without the setting their variables say nothing.
        let logs = if log_records { logs(&mut variables) } else { None };
        variables.finish(Self { resource, traces, metrics, logs })
    }
}

fn resource(variables: &mut Variables<'_>) -> Resource {
    let wanted = "`name=value` pairs, separated by commas, values percent-encoded";
    let mut given = variables.read("OTEL_RESOURCE_ATTRIBUTES", wanted, pairs).unwrap_or_default();
    let named = variables.text("OTEL_SERVICE_NAME").map(|name| ("service.name".to_owned(), name));
    given.extend(named);
    let mut bytes = [0; 16];
    // Where there is no chance to be had, the instance goes without a number.
    let instance = aws_lc_rs::rand::fill(&mut bytes).ok().map(|()| uuid::Builder::from_random_bytes(bytes));
    let defaults = [
        Some(KeyValue::new("service.name", "postern")),
        Some(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))),
        instance.map(|id| KeyValue::new("service.instance.id", id.into_uuid().to_string())),
    ];
    let given = given.into_iter().map(|(name, value)| KeyValue::new(name, value));
    // A later one replaces an earlier one of the same name.
    Resource::builder().with_attributes(defaults.into_iter().flatten().chain(given)).build()
}

fn traces(variables: &mut Variables<'_>) -> Option<TraceSettings> {
    let target = variables.target(Signal::Traces);
    let sampling = sampling(variables);
    let propagators = variables
        .read("OTEL_PROPAGATORS", "`tracecontext`, `baggage`, both separated by a comma, or `none`", |text| {
            let mut read = Propagators { trace_context: false, baggage: false };
            for name in text.split(',').map(str::trim) {
                match name {
                    "tracecontext" => read.trace_context = true,
                    "baggage" => read.baggage = true,
                    "none" if text == "none" => {}
                    _ => return None,
                }
            }
            Some(read)
        })
        .unwrap_or(Propagators { trace_context: true, baggage: true });
    let batch = batch(variables);
    target.map(|target| TraceSettings { target, sampling, propagators, batch })
}

fn sampling(variables: &mut Variables<'_>) -> Sampling {
    let wanted = "`always_on`, `always_off`, `traceidratio`, or one of them behind `parentbased_`";
    let chosen = variables.read("OTEL_TRACES_SAMPLER", wanted, |text| {
        let (follows_parent, root) =
            text.strip_prefix("parentbased_").map_or((false, text), |root| (true, root));
        Some(Sampling { follows_parent, root: root.parse().ok()? })
    });
    let Some(mut sampling) = chosen else { return Sampling::DEFAULT };
    if let Root::Ratio(ratio) = &mut sampling.root {
        let read = variables.read("OTEL_TRACES_SAMPLER_ARG", "a share from 0 to 1 such as `0.01`", |text| {
            text.parse().ok().filter(|share| (0.0..=1.0).contains(share))
        });
        *ratio = read.unwrap_or(*ratio);
    }
    sampling
}

fn count(variables: &mut Variables<'_>, name: &str, default: usize) -> usize {
    let read = |text: &str| text.parse().ok().filter(|count| (1..=1 << 20).contains(count));
    variables.read(name, "a number from 1 to 1048576", read).unwrap_or(default)
}

fn batch(variables: &mut Variables<'_>) -> BatchSettings {
    let queue = count(variables, "OTEL_BSP_MAX_QUEUE_SIZE", 2048);
    let most = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
    let batch = count(variables, most, 512.min(queue));
    if batch > queue {
        variables.refuse(
            most,
            Some(batch.to_string()),
            "at most the size of the queue, OTEL_BSP_MAX_QUEUE_SIZE",
        );
    }
    for limit in ["OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_SPAN_LINK_COUNT_LIMIT"] {
        let _the_sdk_reads_it = variables.read(limit, "a number", |text| text.parse::<u32>().ok());
    }
    let events = variables.read("OTEL_SPAN_EVENT_COUNT_LIMIT", "a number", |text| text.parse::<u32>().ok());
    BatchSettings {
        queue,
        batch,
        delay: variables.milliseconds("OTEL_BSP_SCHEDULE_DELAY").unwrap_or(Duration::from_secs(5)),
        timeout: variables.milliseconds("OTEL_BSP_EXPORT_TIMEOUT").unwrap_or(Duration::from_secs(30)),
        events: events.and_then(|events| usize::try_from(events).ok()).unwrap_or(128),
    }
}

fn metrics(variables: &mut Variables<'_>) -> Option<MetricSettings> {
    let target = variables.target(Signal::Metrics);
    let interval = variables
        .read("OTEL_METRIC_EXPORT_INTERVAL", "a number of milliseconds from 10 on such as `60000`", |text| {
            text.parse().ok().filter(|interval| *interval >= 10).map(Duration::from_millis)
        })
        .unwrap_or(Duration::from_secs(60));
    let timeout = variables.milliseconds("OTEL_METRIC_EXPORT_TIMEOUT").unwrap_or(Duration::from_secs(30));
    let preference = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    let _only_one = variables
        .read(preference, "`cumulative`", |text| text.eq_ignore_ascii_case("cumulative").then_some(()));
    let exponential = variables
        .read(
            "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
            "`base2_exponential_bucket_histogram` or `explicit_bucket_histogram`",
            |text| match text {
                "base2_exponential_bucket_histogram" => Some(true),
                "explicit_bucket_histogram" => Some(false),
                _ => None,
            },
        )
        .unwrap_or(true);
    target.map(|target| MetricSettings { target, interval, timeout, exponential })
}

fn logs(variables: &mut Variables<'_>) -> Option<LogSettings> {
    let target = variables.asked_target(Signal::Logs);
    let batch = count(variables, "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", 512);
    let delay = variables.milliseconds("OTEL_BLRP_SCHEDULE_DELAY").unwrap_or(Duration::from_secs(1));
    let timeout = variables.milliseconds("OTEL_BLRP_EXPORT_TIMEOUT").unwrap_or(Duration::from_secs(30));
    target.map(|target| LogSettings { target, batch, delay, timeout })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Settings, Problems> {
        read_for(false, set)
    }

    fn read_for(log_records: bool, set: &[(&str, &str)]) -> Result<Settings, Problems> {
        let lookup =
            |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Settings::read(&lookup, log_records)
    }

    const ON: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1");

    #[test]
    fn off_unless_told_and_off_when_told() {
        let nothing = read(&[]).unwrap();
        assert!(nothing.traces.is_none() && nothing.metrics.is_none() && nothing.logs.is_none());
        let all = read(&[ON]).unwrap();
        assert!(all.traces.is_some() && all.metrics.is_some() && all.logs.is_none());
        let off = read(&[ON, ("OTEL_SDK_DISABLED", "TRUE")]).unwrap();
        assert!(off.traces.is_none() && off.metrics.is_none() && off.logs.is_none());
    }

    #[test]
    fn variables_of_log_records_matter_where_they_are_asked_for() {
        let wrong = [
            ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/json"),
            ("OTEL_BLRP_SCHEDULE_DELAY", "1s"),
            ("OTEL_LOGS_EXPORTER", "console"),
        ];
        assert!(read(&wrong).unwrap().logs.is_none());
        let problems = read_for(true, &wrong).unwrap_err();
        let named: Vec<&str> = problems.0.iter().map(|problem| problem.variable.as_str()).collect();
        assert_eq!(
            named,
            ["OTEL_BLRP_SCHEDULE_DELAY", "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "OTEL_LOGS_EXPORTER"]
        );
        let set = [("OTEL_BLRP_SCHEDULE_DELAY", "20"), ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "7")];
        let logs = read_for(true, &set).unwrap().logs.unwrap();
        assert_eq!(
            (logs.target.endpoint.as_str(), logs.batch, logs.delay, logs.timeout),
            ("http://localhost:4317/", 7, Duration::from_millis(20), Duration::from_secs(30))
        );
    }

    #[test]
    fn samplers() {
        let of = |set: &[(&str, &str)]| {
            read(&[&[ON], set].concat()).map(|settings| settings.traces.unwrap().sampling)
        };
        assert_eq!(of(&[]), Ok(Sampling::DEFAULT));
        let (name, arg) = ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG");
        assert_eq!(of(&[(name, "always_off")]), Ok(Sampling { follows_parent: false, root: Root::Off }));
        assert_eq!(
            of(&[(name, "parentbased_traceidratio"), (arg, "0.01")]),
            Ok(Sampling { follows_parent: true, root: Root::Ratio(0.01) })
        );
        for wrong in ["xray", "parentbased_", "jaeger_remote"] {
            assert_eq!(of(&[(name, wrong)]).unwrap_err().0[0].variable, name, "{wrong}");
        }
        assert_eq!(of(&[(name, "traceidratio"), (arg, "1.5")]).unwrap_err().0[0].variable, arg);
    }

    #[test]
    fn who_is_speaking() {
        let of = |set: &[(&str, &str)], key: &'static str| {
            read(set).unwrap().resource.get(&key.into()).map(|value| value.to_string())
        };
        assert_eq!(of(&[], "service.name"), Some("postern".into()));
        let given = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,team=x%20y");
        assert_eq!(of(&[given], "service.name"), Some("a".into()));
        assert_eq!(of(&[given], "team"), Some("x y".into()));
        assert_eq!(of(&[given, ("OTEL_SERVICE_NAME", "b")], "service.name"), Some("b".into()));
        assert_ne!(of(&[], "service.instance.id"), of(&[], "service.instance.id"));
    }

    #[test]
    fn everything_wrong_at_once() {
        let wrong = read(&[
            ON,
            ("OTEL_SDK_DISABLED", "1"),
            ("OTEL_RESOURCE_ATTRIBUTES", "novalue"),
            ("OTEL_PROPAGATORS", "b3"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
            ("OTEL_BSP_SCHEDULE_DELAY", "5s"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta"),
        ])
        .unwrap_err();
        assert_eq!(wrong.0.len(), 8, "{wrong}");
    }
}
