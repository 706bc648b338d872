//! Where each signal goes: the `OTEL_EXPORTER_OTLP_…` variables, read once, with everything that is wrong with them
//! told at once. A variable of one signal (`…_TRACES_ENDPOINT`) wins over the one for all (`…_ENDPOINT`). An unknown
//! value is never taken for a known one: it ends the start and names its variable.
//!
//! A signal is sent where an endpoint is configured for it, or where `OTEL_<SIGNAL>_EXPORTER` says `otlp`; a sidecar
//! that is told nothing sends nothing.

use std::env;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Counters, gauges and histograms.
    Metrics,
    /// Log records.
    Logs,
}

/// How it is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// One POST of protobuf for each batch.
    HttpProtobuf,
}

/// How a message is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    None,
    /// By gzip.
    Gzip,
}

/// The receiver of one signal, and how to reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What is sent there.
    pub signal: Signal,
    /// How.
    pub protocol: Protocol,
    /// For gRPC scheme, host and port; for HTTP the whole URL with its path.
    pub endpoint: Url,
    /// The variable that named the endpoint, for errors.
    pub named_by: String,
    /// Sent with each message.
    pub headers: Headers,
    /// For one attempt.
    pub timeout: Duration,
    /// Packing.
    pub compression: Compression,
    /// What to trust and who we are, where the endpoint is `https`.
    pub tls: Tls,
}

/// Names in lower case and values. Often a secret, so never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

/// PEM texts for TLS. Without a certificate the roots of the system are trusted.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Who may have signed the receiver's certificate.
    pub authority: Option<Vec<u8>>,
    /// Our certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// One variable that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its name.
    pub variable: String,
    /// Its value; `None` where it is missing or must not be shown.
    pub value: Option<String>,
    /// What is wanted.
    pub wanted: String,
}

/// Everything that is wrong with the variables.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub Vec<Problem>);

/// Reads variables and collects what is wrong with them.
pub struct Variables<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<Problem>,
}

/// What `OTEL_<SIGNAL>_EXPORTER` says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Exporter {
    Unsaid,
    Otlp,
    Nobody,
}

/// Turns everything off.
pub(super) const DISABLED: &str = "OTEL_SDK_DISABLED";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

// === impl Signal ===

impl Signal {
    /// As in the names of variables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
            Self::Logs => "LOGS",
        }
    }

    /// In sentences.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Traces => "spans",
            Self::Metrics => "metrics",
            Self::Logs => "log records",
        }
    }

    /// The path of HTTP below an endpoint for all signals.
    const fn path(self) -> &'static str {
        match self {
            Self::Traces => "v1/traces",
            Self::Metrics => "v1/metrics",
            Self::Logs => "v1/logs",
        }
    }

    /// Exporters that may be named. The scraped endpoint is always there, so naming it asks for nothing more.
    const fn exporters(self) -> &'static [&'static str] {
        match self {
            Self::Traces | Self::Logs => &["otlp", "none"],
            Self::Metrics => &["otlp", "prometheus", "none"],
        }
    }
}

// === impl Variables ===

impl<'a> Variables<'a> {
    /// From wherever; a test brings its own.
    pub fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup, problems: Vec::new() }
    }

    /// The value of a variable; an empty one counts as none.
    pub fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// The value as something. What cannot be read is a problem, and then `None`.
    pub fn read<T>(&mut self, name: &str, wanted: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.text(name)?;
        let value = parse(&text);
        if value.is_none() {
            self.refuse(name, Some(text), wanted);
        }
        value
    }

    /// A number of milliseconds.
    pub fn milliseconds(&mut self, name: &str) -> Option<Duration> {
        self.read(name, "a number of milliseconds such as `5000`", |text| {
            text.parse().ok().map(Duration::from_millis)
        })
    }

    /// `true` or `false`, in any case.
    pub fn flag(&mut self, name: &str) -> bool {
        let read = |text: &str| match text {
            _ if text.eq_ignore_ascii_case("true") => Some(true),
            _ if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        };
        self.read(name, "`true` or `false`", read).unwrap_or(false)
    }

    /// Notes what is wrong with a variable.
    pub fn refuse(&mut self, name: &str, value: Option<String>, wanted: &str) {
        self.problems.push(Problem { variable: name.to_owned(), value, wanted: wanted.to_owned() });
    }

    /// `value`, if all was well so far.
    ///
    /// # Errors
    ///
    /// Everything that was wrong, in the order of its names.
    pub fn finish<T>(mut self, value: T) -> Result<T, Problems> {
        if self.problems.is_empty() {
            return Ok(value);
        }
        self.problems.sort_by(|a, b| a.variable.cmp(&b.variable));
        self.problems.dedup();
        Err(Problems(self.problems))
    }

    /// Where a signal goes; `None` where nobody wants it.
    pub fn target(&mut self, signal: Signal) -> Option<Target> {
        let named = self.own_or_common(signal, "ENDPOINT");
        match self.exporter(signal) {
            Exporter::Nobody => None,
            Exporter::Unsaid if named.is_none() => None,
            Exporter::Unsaid | Exporter::Otlp => self.receiver(signal, named),
        }
    }

    /// Where a signal goes that a setting asks for. Variables that turn it off contradict that setting: neither of the
    /// two wins unseen.
    pub fn asked_target(&mut self, signal: Signal) -> Option<Target> {
        let wanted = format!("a value that leaves {} on, since a setting asks for them", signal.word());
        if self.flag(DISABLED) {
            self.refuse(DISABLED, self.text(DISABLED), &wanted);
        }
        if self.exporter(signal) == Exporter::Nobody {
            let name = exporter_variable(signal);
            self.refuse(&name, self.text(&name), &wanted);
        }
        let named = self.own_or_common(signal, "ENDPOINT");
        self.receiver(signal, named)
    }

    fn receiver(&mut self, signal: Signal, named: Option<(String, String)>) -> Option<Target> {
        let protocol = self
            .read_either(signal, "PROTOCOL", "`grpc` or `http/protobuf`", |text| match text {
                "grpc" => Some(Protocol::Grpc),
                "http/protobuf" => Some(Protocol::HttpProtobuf),
                _ => None,
            })
            .unwrap_or(Protocol::Grpc);
        let insecure = match self.own_or_common(signal, "INSECURE") {
            Some((variable, _)) => self.flag(&variable),
            None => false,
        };
        let headers = self.headers(signal);
        let timeout = match self.own_or_common(signal, "TIMEOUT") {
            Some((variable, _)) => self.milliseconds(&variable),
            None => None,
        };
        let compression = self
            .read_either(signal, "COMPRESSION", "`none` or `gzip`", |text| match text {
                "none" => Some(Compression::None),
                "gzip" => Some(Compression::Gzip),
                _ => None,
            })
            .unwrap_or(Compression::None);
        let tls = self.tls(signal);
        let (named_by, endpoint) = self.endpoint(signal, protocol, insecure, named)?;
        let timeout = timeout.unwrap_or(DEFAULT_TIMEOUT);
        Some(Target { signal, protocol, endpoint, named_by, headers, timeout, compression, tls })
    }

    fn endpoint(
        &mut self,
        signal: Signal,
        protocol: Protocol,
        insecure: bool,
        named: Option<(String, String)>,
    ) -> Option<(String, Url)> {
        let (variable, text) = named.unwrap_or_else(|| {
            let port = if protocol == Protocol::Grpc { 4317 } else { 4318 };
            (variable(None, "ENDPOINT"), format!("http://localhost:{port}"))
        });
        let own = variable != self::variable(None, "ENDPOINT");
        // gRPC knows addresses without a scheme; what they mean is said by another variable.
        let whole = match protocol {
            Protocol::Grpc if !text.contains("://") => {
                format!("{}://{text}", if insecure { "http" } else { "https" })
            }
            _ => text.clone(),
        };
        let mut url = Url::parse(&whole).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.query().is_none()
                // The methods of gRPC are paths of their own: one more means that HTTP was meant.
                && (protocol != Protocol::Grpc || url.path() == "/")
        });
        if let (Some(url), Protocol::HttpProtobuf, false) = (&mut url, protocol, own) {
            let base = url.path().trim_end_matches('/').to_owned();
            url.set_path(&format!("{base}/{}", signal.path()));
        }
        if url.is_none() {
            self.refuse(
                &variable,
                Some(text),
                "a URL such as `http://localhost:4317`, with a path only for `http/protobuf`",
            );
        }
        url.map(|url| (variable, url))
    }

    fn exporter(&mut self, signal: Signal) -> Exporter {
        let name = exporter_variable(signal);
        let known = signal.exporters();
        let wanted = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let chosen = self.read(&name, &format!("one of {wanted}"), |text| {
            let chosen: Vec<&str> = text.split(',').map(str::trim).collect();
            let all_known = chosen.iter().all(|name| known.contains(name));
            // Nobody and somebody is a slip.
            let alone = chosen.len() == 1 || !chosen.contains(&"none");
            (all_known && alone)
                .then(|| if chosen.contains(&"otlp") { Exporter::Otlp } else { Exporter::Nobody })
        });
        chosen.unwrap_or(Exporter::Unsaid)
    }

    fn headers(&mut self, signal: Signal) -> Headers {
        // Those of the signal stand beside those for all and win where both name one.
        let mut headers: Vec<(String, String)> = Vec::new();
        for name in [variable(None, "HEADERS"), variable(Some(signal), "HEADERS")] {
            let Some(text) = self.text(&name) else { continue };
            match pairs(&text).filter(|pairs| pairs.iter().all(|(name, value)| is_header(name, value))) {
                Some(pairs) => {
                    for (name, value) in pairs {
                        let name = name.to_ascii_lowercase();
                        headers.retain(|(known, _)| *known != name);
                        headers.push((name, value));
                    }
                }
                // The text may be a secret.
                None => self.refuse(
                    &name,
                    None,
                    "`name=value` pairs, separated by commas, values percent-encoded",
                ),
            }
        }
        Headers(headers)
    }

    fn tls(&mut self, signal: Signal) -> Tls {
        let mut file = |suffix| {
            let (name, path) = self.own_or_common(signal, suffix)?;
            match std::fs::read(Path::new(&path)) {
                Ok(bytes) => Some(bytes),
                Err(error) => {
                    self.refuse(&name, Some(path), &format!("a readable PEM file: {error}"));
                    None
                }
            }
        };
        let (authority, certificate, key) =
            (file("CERTIFICATE"), file("CLIENT_CERTIFICATE"), file("CLIENT_KEY"));
        let has = |suffix| self.own_or_common(signal, suffix).is_some();
        let (has_certificate, has_key) = (has("CLIENT_CERTIFICATE"), has("CLIENT_KEY"));
        if has_certificate != has_key {
            let missing = if has_certificate { "CLIENT_KEY" } else { "CLIENT_CERTIFICATE" };
            self.refuse(
                &variable(None, missing),
                None,
                "a PEM file: a client's certificate and its key go together",
            );
        }
        Tls { authority, identity: certificate.zip(key) }
    }

    fn read_either<T>(
        &mut self,
        signal: Signal,
        suffix: &str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let (name, _) = self.own_or_common(signal, suffix)?;
        self.read(&name, wanted, parse)
    }

    /// The variable of the signal, or the one for all: name and value.
    fn own_or_common(&self, signal: Signal, suffix: &str) -> Option<(String, String)> {
        [variable(Some(signal), suffix), variable(None, suffix)]
            .into_iter()
            .find_map(|name| self.text(&name).map(|value| (name, value)))
    }
}

/// Looks into the environment of the process.
pub fn from_process(name: &str) -> Option<String> {
    env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// `name=value` pairs, separated by commas, values percent-encoded; empty parts between commas are nothing.
pub(super) fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=')?;
            let name = name.trim();
            let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
            (!name.is_empty()).then(|| (name.to_owned(), value.into_owned()))
        })
        .collect()
}

fn is_header(name: &str, value: &str) -> bool {
    reqwest::header::HeaderName::from_bytes(name.as_bytes()).is_ok()
        && reqwest::header::HeaderValue::from_str(value).is_ok()
}

fn exporter_variable(signal: Signal) -> String {
    format!("OTEL_{}_EXPORTER", signal.name())
}

fn variable(signal: Option<Signal>, suffix: &str) -> String {
    match signal {
        Some(signal) => format!("OTEL_EXPORTER_OTLP_{}_{suffix}", signal.name()),
        None => format!("OTEL_EXPORTER_OTLP_{suffix}"),
    }
}

// === impls of std traits ===

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => {
                write!(f, "environment variable `{}` is `{value}`; wanted {}", self.variable, self.wanted)
            }
            None => write!(f, "environment variable `{}`: wanted {}", self.variable, self.wanted),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
        })
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("authority", &self.authority.is_some())
            .field("identity", &self.identity.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(signal: Signal, set: &[(&str, &str)]) -> Result<Option<Target>, Problems> {
        let lookup =
            |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let mut variables = Variables::new(&lookup);
        let target = variables.target(signal);
        variables.finish(target)
    }

    fn refused(signal: Signal, set: &[(&str, &str)]) -> Vec<String> {
        target(signal, set).unwrap_err().0.iter().map(ToString::to_string).collect()
    }

    const COMMON: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

    #[test]
    fn nothing_is_sent_unless_asked_for() {
        assert_eq!(target(Signal::Traces, &[]), Ok(None));
        assert_eq!(target(Signal::Traces, &[(COMMON, " ")]), Ok(None));
        assert_eq!(
            target(Signal::Traces, &[(COMMON, "http://a"), ("OTEL_TRACES_EXPORTER", "none")]),
            Ok(None)
        );
        let scraped = [(COMMON, "http://a"), ("OTEL_METRICS_EXPORTER", "prometheus")];
        assert_eq!(target(Signal::Metrics, &scraped), Ok(None));
        let both = target(Signal::Metrics, &[("OTEL_METRICS_EXPORTER", "otlp,prometheus")]).unwrap().unwrap();
        assert_eq!(both.endpoint.as_str(), "http://localhost:4317/");
    }

    #[test]
    fn what_a_setting_asks_for_is_sent_or_refused() {
        let asked = |set: &[(&str, &str)]| {
            let lookup = |name: &str| {
                set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            };
            let mut variables = Variables::new(&lookup);
            let target = variables.asked_target(Signal::Logs);
            variables.finish(target.map(|target| target.endpoint.to_string()))
        };
        assert_eq!(asked(&[]), Ok(Some("http://localhost:4317/".into())));
        assert_eq!(asked(&[(COMMON, "http://a")]), Ok(Some("http://a/".into())));
        let problems = asked(&[("OTEL_LOGS_EXPORTER", "none"), ("OTEL_SDK_DISABLED", "true")]).unwrap_err();
        assert_eq!(
            problems.to_string(),
            "environment variable `OTEL_LOGS_EXPORTER` is `none`; wanted a value that leaves log records on, since a \
             setting asks for them\n\
             environment variable `OTEL_SDK_DISABLED` is `true`; wanted a value that leaves log records on, since a \
             setting asks for them"
        );
    }

    #[test]
    fn endpoints() {
        let of = |signal, set: &[(&str, &str)]| target(signal, set).unwrap().unwrap().endpoint.to_string();
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        assert_eq!(of(Signal::Traces, &[(COMMON, "http://a:1")]), "http://a:1/");
        assert_eq!(of(Signal::Traces, &[(COMMON, "http://a:1"), http]), "http://a:1/v1/traces");
        assert_eq!(of(Signal::Logs, &[(COMMON, "https://a/otlp/"), http]), "https://a/otlp/v1/logs");
        let own = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://b/in");
        assert_eq!(of(Signal::Metrics, &[(COMMON, "http://a"), own, http]), "http://b/in");
        assert_eq!(of(Signal::Traces, &[(COMMON, "http://a"), own, http]), "http://a/v1/traces");
        assert_eq!(
            of(Signal::Traces, &[("OTEL_TRACES_EXPORTER", "otlp"), http]),
            "http://localhost:4318/v1/traces"
        );
        assert_eq!(of(Signal::Traces, &[(COMMON, "collector:4317")]), "https://collector:4317/");
        let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "True");
        assert_eq!(of(Signal::Traces, &[(COMMON, "collector:4317"), insecure]), "http://collector:4317/");
    }

    #[test]
    fn the_signals_own_variable_wins() {
        let set = [
            (COMMON, "http://a"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "100"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "200"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20x,tenant=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "tenant = 2"),
            ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"),
        ];
        let traces = target(Signal::Traces, &set).unwrap().unwrap();
        assert_eq!((traces.protocol, traces.timeout), (Protocol::HttpProtobuf, Duration::from_millis(200)));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(traces.headers.0, [pair("authorization", "Bearer x"), pair("tenant", "2")]);
        assert_eq!(traces.compression, Compression::None);
        let metrics = target(Signal::Metrics, &set).unwrap().unwrap();
        assert_eq!((metrics.protocol, metrics.timeout), (Protocol::Grpc, Duration::from_millis(100)));
        assert_eq!(metrics.compression, Compression::Gzip);
    }

    #[test]
    fn everything_wrong_is_told_and_no_secret() {
        let problems = refused(
            Signal::Traces,
            &[
                (COMMON, "ftp://a"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
                ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "secret"),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
                ("OTEL_EXPORTER_OTLP_INSECURE", "yes"),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
                ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/nowhere/key.pem"),
                ("OTEL_TRACES_EXPORTER", "zipkin"),
            ],
        );
        let variables: Vec<&str> = problems.iter().filter_map(|problem| problem.split('`').nth(1)).collect();
        assert_eq!(
            variables,
            [
                "OTEL_EXPORTER_OTLP_CERTIFICATE",
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
                "OTEL_EXPORTER_OTLP_CLIENT_KEY",
                "OTEL_EXPORTER_OTLP_COMPRESSION",
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "OTEL_EXPORTER_OTLP_INSECURE",
                "OTEL_EXPORTER_OTLP_PROTOCOL",
                "OTEL_EXPORTER_OTLP_TIMEOUT",
                "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
                "OTEL_TRACES_EXPORTER",
            ]
        );
        assert!(!problems.join("\n").contains("secret"), "{problems:?}");
        let one =
            refused(Signal::Traces, &[(COMMON, "http://a"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")]);
        assert_eq!(
            one,
            [
                "environment variable `OTEL_EXPORTER_OTLP_PROTOCOL` is `http/json`; wanted `grpc` or `http/protobuf`"
            ]
        );
        let both = [(COMMON, "http://a"), ("OTEL_METRICS_EXPORTER", "none,otlp")];
        assert_eq!(refused(Signal::Metrics, &both).len(), 1);
    }

    #[test]
    fn headers_are_never_printed() {
        let set = [(COMMON, "http://a"), ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hush")];
        let printed = format!("{:?}", target(Signal::Logs, &set).unwrap().unwrap());
        assert!(printed.contains("authorization") && !printed.contains("hush"), "{printed}");
    }
}
