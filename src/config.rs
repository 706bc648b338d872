//! Settings of `postern serve`: a flag wins over an environment variable, which wins over the file, which wins
//! over the default. All problems are told at once, each with where the value came from, the value and the form
//! that is wanted. An unknown word never turns something on.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command};

use crate::authorizer::{ByPlane, CacheSettings, FreshnessRules, WhenOld};
use crate::cache::CachePolicy;
use crate::container::Container;
use crate::documents::Lenience;
use crate::drain::DrainSettings;
use crate::model::Wildcards;
use crate::policy::CompileOptions;
use crate::record::{FileSettings, Hasher, KeepRules, Masks, RecordSettings, SinkSettings, WhenFull};
use crate::server::accept::Peers;
use crate::server::grpc::GrpcSettings;
use crate::server::spiffe::SpiffeRule;
use crate::server::tls::TlsSettings;
use crate::source::dir::LoadOptions;
use crate::source::remote::RemoteSettings;
use crate::telemetry::sampling::Keep;
use crate::telemetry::{LogFormat, TraceOptions, is_log_filter};

/// Where `postern serve` listens unless told otherwise.
pub const DEFAULT_TCP: &str = "127.0.0.1:4770";
/// Where the admin endpoint listens unless told otherwise.
pub const DEFAULT_ADMIN: &str = "127.0.0.1:4771";
/// From which estimated cost on the decision cache is asked.
pub const DEFAULT_CACHE: &str = "256";
/// The most items that a batch limit may be set to.
const MOST_BATCH_ITEMS: usize = 10_000;
/// More threads than this are a slip of the hand.
const MOST_WORKERS: u64 = 1024;

/// The settings as they are written; their meaning is [`Config`].
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// TOML file with settings; its keys are the names of these options
    #[arg(long, env = "POSTERN_CONFIG", value_name = "FILE")]
    pub config: Option<String>,

    /// Policy directory (or one file, or a bundle): JSON or YAML as Azure exports it; watched and reloaded
    #[arg(long, env = "POSTERN_POLICY", value_name = "DIR")]
    pub policy: Option<String>,

    /// Where signed publications lie, instead of `--policy`: a directory, `https://`, `s3://`, `az://` or `gs://`;
    /// several, separated by commas, are mirrors in the order they are asked
    #[arg(long, env = "POSTERN_SOURCE", value_name = "URL")]
    pub source: Option<String>,

    /// The root metadata that publications are verified by, as `postern repo init` writes it; with `--source`
    #[arg(long, env = "POSTERN_TRUSTED_ROOT", value_name = "FILE")]
    pub trusted_root: Option<String>,

    /// Where verified publications are kept, so that a restart needs no network; with `--source`
    #[arg(long, env = "POSTERN_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<String>,

    /// How often a source is asked for something newer
    #[arg(long, env = "POSTERN_POLL_INTERVAL", value_name = "TIME", default_value = "10s")]
    pub poll_interval: String,

    /// A publication that no source has confirmed for this long is stale
    #[arg(long, env = "POSTERN_MAX_AGE", value_name = "TIME", default_value = "1h")]
    pub max_age: String,

    /// What a stale publication still answers: `serve`, `read-only` or `deny`, or by plane `control=…,data=…`
    #[arg(long, env = "POSTERN_WHEN_STALE", value_name = "RULE", default_value = "serve")]
    pub when_stale: String,

    /// What a publication past its signed expiry still answers, in the same words
    #[arg(long, env = "POSTERN_WHEN_EXPIRED", value_name = "RULE", default_value = "deny")]
    pub when_expired: String,

    /// The largest bundle that is read: a size, or `auto` for a quarter of the container's memory and at most 512MiB
    #[arg(long, env = "POSTERN_MAX_BUNDLE_BYTES", value_name = "SIZE", default_value = "auto")]
    pub max_bundle_bytes: String,

    /// Take real exports: assignments to unknown roles or at invalid scopes are warnings and grant nothing
    #[arg(
        long,
        env = "POSTERN_LENIENT",
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true
    )]
    pub lenient: String,

    /// Read `/*/` in patterns literally: without this it also matches a single `/`, as in Azure
    #[arg(
        long,
        env = "POSTERN_STRICT_WILDCARDS",
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true
    )]
    pub strict_wildcards: String,

    /// Let conditions use operators that Azure has not: time of day, IP ranges, contains, ends with, matches
    #[arg(
        long,
        env = "POSTERN_CONDITION_EXTENSIONS",
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true
    )]
    pub condition_extensions: String,

    /// Unix socket for gRPC; alone it replaces TCP
    #[arg(long, env = "POSTERN_UDS", value_name = "PATH")]
    pub uds: Option<String>,

    /// File mode of the Unix socket, octal: whoever may write to it may ask
    #[arg(long, env = "POSTERN_UDS_MODE", value_name = "MODE", default_value = "0660")]
    pub uds_mode: String,

    /// Users, by number and separated by commas, who may ask over the Unix socket; others are closed unread. Without
    /// this and `--uds-allow-gids` whoever the mode lets in
    #[arg(long, env = "POSTERN_UDS_ALLOW_UIDS", value_name = "UIDS")]
    pub uds_allow_uids: Option<String>,

    /// Groups in the same form: the primary group of a process, not its supplementary ones. A user or a group that is
    /// listed is enough
    #[arg(long, env = "POSTERN_UDS_ALLOW_GIDS", value_name = "GIDS")]
    pub uds_allow_gids: Option<String>,

    /// Address for gRPC over TCP, or `off`; not bound by default when `--uds` is given. Without mutual TLS a loopback
    /// address
    #[arg(long, env = "POSTERN_TCP", value_name = "ADDRESS", default_value = DEFAULT_TCP)]
    pub tcp: String,

    /// Certificate chain of the TCP listener, PEM; with `--tls-key` and `--tls-client-ca` it speaks mutual TLS, and
    /// follows these files when they change
    #[arg(long, env = "POSTERN_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<String>,

    /// Its private key, PEM
    #[arg(long, env = "POSTERN_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<String>,

    /// Authorities of the certificates that every client has to show, PEM
    #[arg(long, env = "POSTERN_TLS_CLIENT_CA", value_name = "FILE")]
    pub tls_client_ca: Option<String>,

    /// Who of these clients may ask: SPIFFE ids separated by commas, each exact, or ending in `/*` for all below a path
    /// or in a trust domain
    #[arg(long, env = "POSTERN_TLS_ALLOW_SPIFFE", value_name = "IDS")]
    pub tls_allow_spiffe: Option<String>,

    /// Address of `/livez`, `/readyz` and `/metrics`, or `off`
    #[arg(long, env = "POSTERN_ADMIN", value_name = "ADDRESS", default_value = DEFAULT_ADMIN)]
    pub admin: String,

    /// Answer gRPC reflection, v1 and v1alpha
    #[arg(
        long,
        env = "POSTERN_REFLECTION",
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true
    )]
    pub reflection: String,

    /// Requests that may be open at a time, 1 to 1000000; more are answered RESOURCE_EXHAUSTED
    #[arg(long, env = "POSTERN_MAX_CONCURRENT_REQUESTS", value_name = "N", default_value = "1024")]
    pub max_concurrent_requests: String,

    /// Connections that may be open on each of the two listeners, 1 to 1000000; more are closed at once
    #[arg(long, env = "POSTERN_MAX_CONNECTIONS", value_name = "N", default_value = "1024")]
    pub max_connections: String,

    /// Items in one BatchCheck, and questions in one message of a CheckStream, 1 to 10000
    #[arg(long, env = "POSTERN_MAX_BATCH_ITEMS", value_name = "N", default_value = "1000")]
    pub max_batch_items: String,

    /// Size of one request message
    #[arg(long, env = "POSTERN_MAX_REQUEST_BYTES", value_name = "SIZE", default_value = "1MiB")]
    pub max_request_bytes: String,

    /// When the decision cache is asked: `off`, `always`, or from this estimated cost of a request on
    #[arg(long, env = "POSTERN_CACHE", value_name = "WHEN", default_value = DEFAULT_CACHE)]
    pub cache: String,

    /// What the decision cache may hold: a size, or `auto` for a sixteenth of the container's memory and at most 32MiB
    #[arg(long, env = "POSTERN_CACHE_MAX_BYTES", value_name = "SIZE", default_value = "auto")]
    pub cache_max_bytes: String,

    /// Threads that answer requests: a number, or `auto` for as many whole cores as the container's CPU limit allows
    #[arg(long, env = "POSTERN_WORKERS", value_name = "N", default_value = "auto")]
    pub workers: String,

    /// After SIGTERM, go on serving this long before connections are told to go away
    #[arg(long, env = "POSTERN_DRAIN_DELAY", value_name = "TIME", default_value = "0s")]
    pub drain_delay: String,

    /// Then wait this long for open calls before they are cut
    #[arg(long, env = "POSTERN_DRAIN_GRACE", value_name = "TIME", default_value = "10s")]
    pub drain_grace: String,

    /// Reload the policy when its directory has been quiet this long after a change
    #[arg(long, env = "POSTERN_RELOAD_DEBOUNCE", value_name = "TIME", default_value = "250ms")]
    pub reload_debounce: String,

    /// Record every decision: `stdout`, `file:PATH`, `otlp` (as the `OTEL_EXPORTER_OTLP_…` variables say), or several
    /// of them separated by commas
    #[arg(long, env = "POSTERN_RECORDS", value_name = "SINKS")]
    pub records: Option<String>,

    /// Which decisions are recorded: `all`, `none` or one in so many, by outcome
    #[arg(
        long,
        env = "POSTERN_RECORDS_KEEP",
        value_name = "RULES",
        default_value = "allowed=all,not-allowed=all,denied=all,undecided=all"
    )]
    pub records_keep: String,

    /// What of a question is recorded: `PATH=keep`, `PATH=hash` or `PATH=drop`, separated by commas, the paths those of
    /// `CheckRequest` such as `subject.principal_id` or `resource.attributes.*`
    #[arg(long, env = "POSTERN_RECORDS_MASK", value_name = "RULES")]
    pub records_mask: Option<String>,

    /// File with the key of the hashes, at least 16 bytes: without it whoever knows an id finds it by its hash
    #[arg(long, env = "POSTERN_RECORDS_HASH_KEY_FILE", value_name = "FILE")]
    pub records_hash_key_file: Option<String>,

    /// Records that may wait to be written, 1 to 1000000
    #[arg(long, env = "POSTERN_RECORDS_QUEUE", value_name = "N", default_value = "16384")]
    pub records_queue: String,

    /// Memory that they may take, about
    #[arg(long, env = "POSTERN_RECORDS_QUEUE_BYTES", value_name = "SIZE", default_value = "64MiB")]
    pub records_queue_bytes: String,

    /// What happens when there is no room: `drop-newest`, `drop-oldest`, or `block:TIME` to let the call wait that long,
    /// at most 1s
    #[arg(long, env = "POSTERN_RECORDS_WHEN_FULL", value_name = "CHOICE", default_value = "drop-newest")]
    pub records_when_full: String,

    /// The file of records is rotated before it gets larger; 0 never
    #[arg(long, env = "POSTERN_RECORDS_MAX_BYTES", value_name = "SIZE", default_value = "100MiB")]
    pub records_max_bytes: String,

    /// Files of records that are kept, the newest included, 1 to 1000
    #[arg(long, env = "POSTERN_RECORDS_MAX_FILES", value_name = "N", default_value = "5")]
    pub records_max_files: String,

    /// Ask a share of the questions again of this policy directory or bundle, beside the answers, and record what it
    /// would decide otherwise; with `--records`
    #[arg(long, env = "POSTERN_CANDIDATE", value_name = "DIR")]
    pub candidate: Option<String>,

    /// Which share, by chance
    #[arg(long, env = "POSTERN_CANDIDATE_SHARE", value_name = "PERCENT", default_value = "1%")]
    pub candidate_share: String,

    /// Form of the log on standard error: `text` or `json`
    #[arg(long, env = "POSTERN_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: String,

    /// What is logged: a level, or directives such as `info,postern=debug`
    #[arg(long, env = "POSTERN_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    pub log_level: String,

    /// Spans kept whatever the sampler says: `none`, or of `denied`, `not-allowed`, `undecided`, `agent-steps` and
    /// `slower-than=TIME` those that are named, separated by commas
    #[arg(long, env = "POSTERN_TRACE_KEEP", value_name = "RULES", default_value = "none")]
    pub trace_keep: String,

    /// How spans tell principals: `hashed` (SHA-256), `plain` or `none`
    #[arg(long, env = "POSTERN_TRACE_PRINCIPALS", value_name = "FORM", default_value = "hashed")]
    pub trace_principals: String,

    /// Keys of the caller's baggage that become attributes of spans, separated by commas
    #[arg(long, env = "POSTERN_TRACE_BAGGAGE", value_name = "KEYS")]
    pub trace_baggage: Option<String>,

    /// Give spans of agents the names that OpenTelemetry drafts for authorization, too
    #[arg(
        long,
        env = "POSTERN_TRACE_GEN_AI",
        value_name = "BOOL",
        default_value = "false",
        default_missing_value = "true",
        num_args = 0..=1,
        require_equals = true
    )]
    pub trace_gen_ai: String,
}

/// What `postern serve` does.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the policy comes from.
    pub policy: PolicySource,
    /// How it is read.
    pub load: LoadOptions,
    /// Unix socket.
    pub uds: Option<UdsSettings>,
    /// TCP listener.
    pub tcp: Option<SocketAddr>,
    /// Its mutual TLS.
    pub tls: Option<TlsSettings>,
    /// Admin listener.
    pub admin: Option<SocketAddr>,
    /// Requests of all listeners.
    pub max_concurrent_requests: usize,
    /// Connections of each listener.
    pub max_connections: usize,
    /// The service.
    pub grpc: GrpcSettings,
    /// The decision cache.
    pub cache: CacheSettings,
    /// What a publication that is no longer fresh still answers.
    pub freshness: FreshnessRules,
    /// Threads of the serving runtime.
    pub workers: usize,
    /// The end.
    pub drain: DrainSettings,
    /// Silence before a reload.
    pub reload_debounce: Duration,
    /// The decision log.
    pub records: Option<RecordSettings>,
    /// The policy that is asked beside.
    pub candidate: Option<CandidateSettings>,
    /// Form of the log.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_level: String,
    /// What spans say.
    pub traces: TraceOptions,
    /// Every setting as it was written, for the log at start.
    pub effective: Vec<Effective>,
    /// What `auto` came to.
    pub derived: Vec<Derived>,
}

/// Where the policy comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicySource {
    /// A policy directory or file, watched.
    Directory(PathBuf),
    /// Signed publications, polled.
    Published(RemoteSettings),
}

/// A policy that a share of the questions is asked of again.
#[derive(Clone, Debug, PartialEq)]
pub struct CandidateSettings {
    /// Where it is.
    pub path: PathBuf,
    /// Which share, from 0 to 1.
    pub share: f64,
}

/// The Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdsSettings {
    /// Where.
    pub path: PathBuf,
    /// Who may connect, by the file.
    pub mode: u32,
    /// Who of these may ask.
    pub peers: Peers,
}

/// A setting as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Its name.
    pub key: String,
    /// Its value; what is secret would be replaced here.
    pub value: String,
    /// Where it was written.
    pub origin: Origin,
}

/// A setting that follows the container, as a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    /// Its name.
    pub key: &'static str,
    /// Threads or bytes.
    pub value: u64,
    /// Why so many.
    pub because: String,
}

/// Where a value was written; a later one wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nowhere.
    Default,
    /// In the file.
    File(String),
    /// In a variable.
    Environment(String),
    /// On the command line.
    Flag,
}

/// One value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The setting.
    pub key: String,
    /// Where it was written.
    pub origin: Origin,
    /// What was written.
    pub value: Option<String>,
    /// What is wanted.
    pub wanted: String,
}

/// Everything that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigErrors(pub Vec<ConfigProblem>);

// === impl Config ===

impl Config {
    /// Reads the settings from parsed arguments (which hold the environment), then the file they name.
    pub fn from_matches(command: &Command, matches: &ArgMatches) -> Result<Self, ConfigErrors> {
        let mut given = given(command, matches);
        let mut problems = Vec::new();
        let file = given.remove("config");
        if let Some(file) = file.filter(|file| !file.value.is_empty()) {
            match std::fs::read_to_string(&file.value) {
                Ok(text) => merge_file(&file.value, &text, &mut given, &mut problems),
                Err(error) => problems.push(ConfigProblem {
                    key: "config".into(),
                    origin: file.origin,
                    value: Some(file.value),
                    wanted: format!("a readable file: {error}"),
                }),
            }
        }
        Self::resolve(given, problems, &Container::here())
    }

    fn resolve(
        given: BTreeMap<String, Effective>,
        problems: Vec<ConfigProblem>,
        container: &Container,
    ) -> Result<Self, ConfigErrors> {
        let mut reader = Reader { given, problems, container, derived: Vec::new() };
        let policy = reader.policy_source();
        if policy.is_none() && !reader.has("policy") && !reader.has("source") {
            reader.problems.push(ConfigProblem {
                key: "policy".into(),
                origin: Origin::Default,
                value: None,
                wanted:
                    "a policy directory: give `--policy DIR`, set POSTERN_POLICY, or write `policy` into \
                         the file; or a source of publications: `--source URL` with `--trusted-root FILE`"
                        .into(),
            });
        }
        let uds = reader.read("uds", "a path", |text| Some(PathBuf::from(text)));
        let mode = reader.read("uds-mode", "an octal file mode such as `0660`", mode);
        let peers = reader.peers(uds.is_some());
        // A socket alone replaces the TCP listener, which is for those who configure nothing.
        if uds.is_some() && reader.is_default("tcp") {
            reader.given.remove("tcp");
        }
        let tcp = reader.read("tcp", "an address and port such as `127.0.0.1:4770`, or `off`", listener);
        let tcp = tcp.flatten();
        let tls = reader.tls(tcp.is_some());
        if let Some(address) = tcp
            && !address.ip().is_loopback()
            && !reader.has("tls-cert")
        {
            reader.refuse(
                "tcp",
                "a loopback address such as `127.0.0.1` or `[::1]`: other machines are answered over mutual TLS only, \
                 which `tls-cert`, `tls-key` and `tls-client-ca` give; beside a workload use a Unix socket",
            );
        }
        if uds.is_none() && reader.given.get("tcp").is_some_and(|tcp| tcp.value.trim() == "off") {
            reader.refuse("tcp", "a listener: without `--uds` there would be none");
        }
        let admin = reader.read("admin", "an address and port such as `127.0.0.1:4771`, or `off`", listener);
        let when_stale = reader.read("when-stale", RULES, by_plane);
        let when_expired = reader.read("when-expired", RULES, by_plane);
        let lenient = reader.bool("lenient");
        let strict_wildcards = reader.bool("strict-wildcards");
        let condition_extensions = reader.bool("condition-extensions");
        let reflection = reader.bool("reflection");
        let max_concurrent_requests =
            reader.read("max-concurrent-requests", "a number from 1 to 1000000", up_to_a_million);
        let max_connections = reader.read("max-connections", "a number from 1 to 1000000", up_to_a_million);
        let max_batch_items = reader.read("max-batch-items", "a number from 1 to 10000", |text| {
            text.parse().ok().filter(|items| (1..=MOST_BATCH_ITEMS).contains(items))
        });
        let max_request_bytes = reader
            .read("max-request-bytes", "a size from 1KiB to 64MiB such as `1MiB`", |text| {
                size(text).filter(|bytes| (1 << 10..=64 << 20).contains(bytes))
            })
            .and_then(|bytes| usize::try_from(bytes).ok());
        let cache =
            reader.read("cache", "`off`, `always`, or a cost from which on it is asked such as `256`", cache);
        let cache_max_bytes = reader.auto(
            "cache-max-bytes",
            "an absolute size such as `32MiB`, no percentage, or `auto`",
            |container| container.share(16, 32 << 20),
            size,
        );
        let workers = reader
            .auto("workers", "a number from 1 to 1024, or `auto`", auto_workers, workers)
            .and_then(|workers| usize::try_from(workers).ok());
        let drain_delay = reader.duration("drain-delay");
        let drain_grace = reader.duration("drain-grace");
        let reload_debounce = reader.duration("reload-debounce");
        let records = reader.records();
        let candidate = reader.candidate();
        let log_format = reader.read("log-format", "`text` or `json`", |text| text.parse().ok());
        let log_level = reader.read(
            "log-level",
            "`error`, `warn`, `info`, `debug`, `trace`, `off`, or directives such as `info,postern=debug`",
            |text| is_log_filter(text).then(|| text.to_owned()),
        );
        let traces = reader.trace_options();
        let Reader { given, mut problems, derived, .. } = reader;
        let config = (|| {
            Some(Self {
                policy: policy?,
                load: LoadOptions {
                    lenience: if lenient? { Lenience::Lenient } else { Lenience::Strict },
                    compile: CompileOptions {
                        wildcards: if strict_wildcards? { Wildcards::Strict } else { Wildcards::Collapse },
                        condition_extensions: condition_extensions?,
                    },
                },
                uds: match uds {
                    Some(path) => Some(UdsSettings { path, mode: mode?, peers: peers? }),
                    None => None,
                },
                tcp,
                tls: tls?,
                admin: admin?,
                max_concurrent_requests: max_concurrent_requests?,
                max_connections: max_connections?,
                grpc: GrpcSettings {
                    max_batch_items: max_batch_items?,
                    max_request_bytes: max_request_bytes?,
                    reflection: reflection?,
                },
                cache: CacheSettings { policy: cache?, max_bytes: cache_max_bytes? },
                freshness: FreshnessRules { stale: when_stale?, expired: when_expired? },
                workers: workers?,
                drain: DrainSettings { delay: drain_delay?, grace: drain_grace? },
                reload_debounce: reload_debounce?,
                records: records?,
                candidate: candidate?,
                log_format: log_format?,
                log_level: log_level?,
                traces: traces?,
                effective: given.into_values().collect(),
                derived,
            })
        })();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => {
                problems.sort_by(|one, other| one.key.cmp(&other.key));
                Err(ConfigErrors(problems))
            }
        }
    }

    /// The settings in one line for the log.
    pub fn summary(&self) -> String {
        self.effective
            .iter()
            .map(|setting| match &setting.origin {
                Origin::Default => format!("{}={}", setting.key, setting.value),
                origin => format!("{}={} ({origin})", setting.key, setting.value),
            })
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// The table of settings for the README: generated from the flags, so that it cannot differ from them.
pub fn settings_table(command: &Command) -> String {
    let mut table =
        String::from("| Flag and file key | Variable | Default | Meaning |\n| --- | --- | --- | --- |\n");
    for argument in command.get_arguments() {
        let (Some(flag), Some(variable)) = (argument.get_long(), argument.get_env()) else {
            continue;
        };
        let default = argument
            .get_default_values()
            .first()
            .map_or_else(String::new, |value| format!("`{}`", value.to_string_lossy()));
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
        table.push_str(&format!("| `{flag}` | `{}` | {default} | {help} |\n", variable.to_string_lossy()));
    }
    table
}

// === layers ===

/// What flags, variables and defaults say. An empty variable says nothing: charts set them so.
fn given(command: &Command, matches: &ArgMatches) -> BTreeMap<String, Effective> {
    let mut given = BTreeMap::new();
    for argument in command.get_arguments() {
        let id = argument.get_id().as_str();
        let (Some(key), Some(variable)) = (argument.get_long(), argument.get_env()) else {
            continue;
        };
        let Ok(Some(value)) = matches.try_get_one::<String>(id) else {
            continue;
        };
        let default =
            || argument.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
        let (origin, value) = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => (Origin::Flag, Some(value.clone())),
            Some(ValueSource::EnvVariable) if !value.trim().is_empty() => {
                (Origin::Environment(variable.to_string_lossy().into_owned()), Some(value.clone()))
            }
            _ => (Origin::Default, default()),
        };
        if let Some(value) = value {
            given.insert(key.to_owned(), Effective { key: key.to_owned(), value, origin });
        }
    }
    given
}

/// Puts the file's values under those of flags and variables, and over the defaults.
fn merge_file(
    path: &str,
    text: &str,
    given: &mut BTreeMap<String, Effective>,
    problems: &mut Vec<ConfigProblem>,
) {
    let origin = Origin::File(path.to_owned());
    let problem = |key: &str, value: Option<String>, wanted: String| ConfigProblem {
        key: key.to_owned(),
        origin: origin.clone(),
        value,
        wanted,
    };
    let table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(error) => {
            let wanted = format!("TOML: {}", error.to_string().trim().replace('\n', "\n  "));
            problems.push(problem("config", None, wanted));
            return;
        }
    };
    let known: Vec<String> = known_keys();
    for (key, value) in table {
        let shown = value.to_string();
        if !known.contains(&key) {
            let wanted = match nearest(&key, &known) {
                Some(nearest) => format!("a known key; did you mean `{nearest}`"),
                None => "a known key: the options of `postern serve`".to_owned(),
            };
            problems.push(problem(&key, Some(shown), wanted));
            continue;
        }
        let value = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            _ => {
                problems.push(problem(
                    &key,
                    Some(shown),
                    "a string, a whole number, `true` or `false`".into(),
                ));
                continue;
            }
        };
        let effective = Effective { key: key.clone(), value, origin: origin.clone() };
        match given.get(&key) {
            Some(stronger) if stronger.origin > origin => {}
            _ => {
                given.insert(key, effective);
            }
        }
    }
}

fn known_keys() -> Vec<String> {
    ServeArgs::augment_args(Command::new("serve"))
        .get_arguments()
        .filter_map(|argument| argument.get_long())
        // A file that names a file is one too many.
        .filter(|key| *key != "config")
        .map(str::to_owned)
        .collect()
}

/// The key that somebody meant: the same but for `_`, letter case or one character.
fn nearest<'a>(key: &str, known: &'a [String]) -> Option<&'a str> {
    let folded = key.to_ascii_lowercase().replace('_', "-");
    let near = |candidate: &str| {
        let (mut one, mut other) = (folded.as_str(), candidate);
        while let (Some(a), Some(b)) = (one.chars().next(), other.chars().next())
            && a == b
        {
            one = one.strip_prefix(a).unwrap_or_default();
            other = other.strip_prefix(b).unwrap_or_default();
        }
        while let (Some(a), Some(b)) = (one.chars().next_back(), other.chars().next_back())
            && a == b
        {
            one = one.strip_suffix(a).unwrap_or_default();
            other = other.strip_suffix(b).unwrap_or_default();
        }
        one.chars().count().max(other.chars().count()) <= 1
    };
    known.iter().map(String::as_str).find(|candidate| near(candidate))
}

// === values ===

struct Reader<'a> {
    given: BTreeMap<String, Effective>,
    problems: Vec<ConfigProblem>,
    container: &'a Container,
    derived: Vec<Derived>,
}

impl Reader<'_> {
    /// `None` when the setting is not given, or wrong, which is then a problem.
    fn read<T>(&mut self, key: &str, wanted: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.given.get(key)?.value.trim();
        let parsed = if text.is_empty() { None } else { parse(text) };
        if parsed.is_none() {
            self.refuse(key, wanted);
        }
        parsed
    }

    /// A number, or what the container allows.
    fn auto(
        &mut self,
        key: &'static str,
        wanted: &str,
        allowed: impl Fn(&Container) -> (u64, String),
        parse: impl Fn(&str) -> Option<u64>,
    ) -> Option<u64> {
        let given = self
            .read(key, wanted, |text| (text == "auto").then_some(None).or_else(|| parse(text).map(Some)))?;
        if given.is_some() {
            return given;
        }
        let (value, because) = allowed(self.container);
        self.derived.push(Derived { key, value, because });
        Some(value)
    }

    fn bool(&mut self, key: &str) -> Option<bool> {
        self.read(key, "`true` or `false`", |text| bool::from_str(text).ok())
    }

    fn duration(&mut self, key: &str) -> Option<Duration> {
        self.read(key, "a time such as `10s` or `500ms`, at most 1h", duration)
    }

    /// Who may ask over the Unix socket. A list that is given names somebody: an empty one would mean everybody.
    fn peers(&mut self, socket: bool) -> Option<Peers> {
        let mut list = |key: &str| {
            if !self.has(key) {
                return Some(Vec::new());
            }
            if !socket {
                self.refuse(key, "nothing: it goes with `uds`");
                return None;
            }
            self.read(key, "numbers separated by commas such as `1000,65532`", |text| {
                text.split(',').map(|id| number(id.trim()).and_then(|id| u32::try_from(id).ok())).collect()
            })
        };
        let (uids, gids) = (list("uds-allow-uids"), list("uds-allow-gids"));
        Some(Peers { uids: uids?, gids: gids? })
    }

    /// `Some(None)` without mutual TLS. Three files or none: there is no TLS that lets in everybody.
    fn tls(&mut self, tcp: bool) -> Option<Option<TlsSettings>> {
        const FILES: [&str; 3] = ["tls-cert", "tls-key", "tls-client-ca"];
        let [cert, key, client_ca] =
            FILES.map(|file| self.read(file, "a file", |text| Some(PathBuf::from(text))));
        let allow = self.parts("tls-allow-spiffe", |text| {
            let rule = |id: &str| {
                let wanted = |problem| format!("SPIFFE ids separated by commas; `{id}` is none: {problem}");
                id.parse::<SpiffeRule>().map_err(wanted)
            };
            let (rules, problems): (Vec<_>, Vec<_>) =
                text.split(',').map(|id| rule(id.trim())).partition(Result::is_ok);
            match problems.is_empty() {
                true => Ok(rules.into_iter().filter_map(Result::ok).collect()),
                false => Err(problems.into_iter().filter_map(Result::err).collect()),
            }
        });
        let given: Vec<&str> = FILES.into_iter().filter(|file| self.has(file)).collect();
        if given.is_empty() {
            if self.has("tls-allow-spiffe") {
                self.refuse("tls-allow-spiffe", "`tls-cert`, `tls-key` and `tls-client-ca`, too");
            }
            return allow.map(|_| None);
        }
        if !tcp {
            for file in &given {
                self.refuse(file, "an address in `tcp`, too: the Unix socket does not speak TLS");
            }
        }
        for missing in FILES.into_iter().filter(|file| !given.contains(file)) {
            self.refuse(missing, "a file: mutual TLS needs `tls-cert`, `tls-key` and `tls-client-ca`");
        }
        let allow = allow?.unwrap_or_default();
        Some(Some(TlsSettings { cert: cert?, key: key?, client_ca: client_ca?, allow }))
    }

    /// A directory, or publications; not both, and nothing of the one with the other.
    fn policy_source(&mut self) -> Option<PolicySource> {
        let directory = self.read("policy", "a policy directory", |text| Some(PathBuf::from(text)));
        let sources = self.read("source", "one or more URLs, separated by commas", |text| {
            let sources: Vec<String> = text.split(',').map(|source| source.trim().to_owned()).collect();
            (!sources.iter().any(String::is_empty)).then_some(sources)
        });
        let trusted_root = self.read("trusted-root", "a file", |text| Some(PathBuf::from(text)));
        let state_dir = self.read("state-dir", "a directory", |text| Some(PathBuf::from(text)));
        let poll_interval = self.read("poll-interval", "a time from 100ms to 1h such as `10s`", |text| {
            duration(text).filter(|interval| *interval >= Duration::from_millis(100))
        });
        let max_age = self.read("max-age", "a time from 1s to 365d such as `1h`", |text| {
            long_duration(text).filter(|age| *age >= Duration::from_secs(1))
        });
        let max_bundle_bytes = self.auto(
            "max-bundle-bytes",
            "a size from 4KiB to 64GiB such as `512MiB`, or `auto`",
            // While one replaces another both are there, beside the cache and what requests take.
            |container| container.share(4, 512 << 20),
            |text| size(text).filter(|bytes| (4 << 10..=64 << 30).contains(bytes)),
        );
        if !self.has("source") {
            for key in ["trusted-root", "state-dir"] {
                if self.has(key) {
                    self.refuse(key, "nothing: it goes with `source`");
                }
            }
            self.derived.retain(|derived| derived.key != "max-bundle-bytes");
            return directory.map(PolicySource::Directory);
        }
        if self.has("policy") {
            self.refuse("source", "to be the only one: `policy` is given, too");
        }
        for key in ["lenient", "strict-wildcards", "condition-extensions"] {
            if !self.is_default(key) {
                self.refuse(key, "nothing: a publication is as it was compiled; say it to `postern publish`");
            }
        }
        if !self.has("trusted-root") {
            self.problems.push(ConfigProblem {
                key: "trusted-root".into(),
                origin: Origin::Default,
                value: None,
                wanted: "the root metadata that publications of the source are verified by".into(),
            });
        }
        Some(PolicySource::Published(RemoteSettings {
            sources: sources?,
            trusted_root: trusted_root?,
            state_dir,
            poll_interval: poll_interval?,
            max_age: max_age?,
            max_bundle_bytes: max_bundle_bytes?,
        }))
    }

    /// `Some(None)` where nobody asked for them.
    fn records(&mut self) -> Option<Option<RecordSettings>> {
        let sinks = self.read("records", SINKS, sinks);
        let keep = self.read("records-keep", KEEP_RULES, KeepRules::parse);
        let masks = self.parts("records-mask", Masks::parse);
        let hasher = self.parts("records-hash-key-file", |path| {
            let key = std::fs::read(path).map_err(|error| vec![format!("a readable file: {error}")])?;
            let key = key.strip_suffix(b"\n").unwrap_or(&key);
            Hasher::keyed(key).map_err(|wrong| vec![format!("a key; it {wrong}")])
        });
        let queue = self.read("records-queue", "a number from 1 to 1000000", |text| {
            text.parse().ok().filter(|records| (1..=1_000_000).contains(records))
        });
        let queue_bytes = self
            .read("records-queue-bytes", "a size from 64KiB to 64GiB such as `64MiB`", |text| {
                size(text).filter(|bytes| (64 << 10..=64 << 30).contains(bytes))
            })
            .and_then(|bytes| usize::try_from(bytes).ok());
        let when_full = self.read(
            "records-when-full",
            "`drop-newest`, `drop-oldest`, or `block:TIME` up to 1s",
            |text| WhenFull::parse(text, duration),
        );
        let max_bytes = self.read("records-max-bytes", "a size from 4KiB on, or 0", |text| {
            size(text).filter(|bytes| *bytes == 0 || *bytes >= 4 << 10)
        });
        let max_files = self.read("records-max-files", "a number from 1 to 1000", |text| {
            text.parse().ok().filter(|files| (1..=1000).contains(files))
        });
        if !self.has("records") {
            for key in RECORD_KEYS {
                if !self.is_default(key) {
                    self.refuse(key, "nothing: it goes with `records`");
                }
            }
            return Some(None);
        }
        let file = (max_bytes?, max_files?);
        let sinks = sinks?.into_iter().map(|sink| match sink {
            SinkSettings::File(settings) => {
                SinkSettings::File(FileSettings { max_bytes: file.0, max_files: file.1, ..settings })
            }
            other => other,
        });
        Some(Some(RecordSettings {
            sinks: sinks.collect(),
            keep: keep?,
            masks: masks?.unwrap_or_default(),
            hasher: hasher?.unwrap_or_default(),
            queue: queue?,
            queue_bytes: queue_bytes?,
            when_full: when_full?,
        }))
    }

    /// `Some(None)` where there is none.
    fn candidate(&mut self) -> Option<Option<CandidateSettings>> {
        let path = self.read("candidate", "a policy directory or bundle", |text| Some(PathBuf::from(text)));
        let share = self.read("candidate-share", "a percentage above 0% and up to 100% such as `1%`", share);
        if !self.has("candidate") {
            if !self.is_default("candidate-share") {
                self.refuse("candidate-share", "nothing: it goes with `candidate`");
            }
            return Some(None);
        }
        if !self.has("records") {
            self.refuse("candidate", "`records`, too: what it decides otherwise is recorded there");
        }
        Some(Some(CandidateSettings { path: path?, share: share? }))
    }

    /// A setting that may be missing and of which every problem is told. `Some(None)` when it is not given.
    fn parts<T>(&mut self, key: &str, parse: impl Fn(&str) -> Result<T, Vec<String>>) -> Option<Option<T>> {
        let Some(text) = self.given.get(key).map(|given| given.value.trim().to_owned()) else {
            return Some(None);
        };
        match parse(&text) {
            Ok(value) => Some(Some(value)),
            Err(problems) => {
                for problem in problems {
                    self.refuse(key, &problem);
                }
                None
            }
        }
    }

    fn trace_options(&mut self) -> Option<TraceOptions> {
        let rules = "`none`, or `denied`, `not-allowed`, `undecided`, `agent-steps`, `slower-than=5ms`, separated by \
                     commas";
        let keep = self.read("trace-keep", rules, |text| Keep::parse(text, duration));
        let principals =
            self.read("trace-principals", "`hashed`, `plain` or `none`", |text| text.parse().ok());
        let gen_ai = self.bool("trace-gen-ai");
        let baggage = self.read("trace-baggage", "keys of baggage, separated by commas", |text| {
            let keys: Vec<String> = text.split(',').map(|key| key.trim().to_owned()).collect();
            let is_key = |key: &String| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
            keys.iter().all(is_key).then_some(keys)
        });
        let baggage = if self.has("trace-baggage") { baggage? } else { Vec::new() };
        Some(TraceOptions { keep: keep?, principals: principals?, baggage, gen_ai: gen_ai? })
    }

    fn refuse(&mut self, key: &str, wanted: &str) {
        let given = self.given.get(key);
        self.problems.push(ConfigProblem {
            key: key.to_owned(),
            origin: given.map_or(Origin::Default, |given| given.origin.clone()),
            value: given.map(|given| given.value.clone()),
            wanted: wanted.to_owned(),
        });
    }

    fn has(&self, key: &str) -> bool {
        self.given.contains_key(key)
    }

    fn is_default(&self, key: &str) -> bool {
        self.given.get(key).is_none_or(|given| given.origin == Origin::Default)
    }
}

fn mode(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777)
}

/// `Some(None)` is `off`.
fn listener(text: &str) -> Option<Option<SocketAddr>> {
    if text == "off" { Some(None) } else { text.parse().ok().map(Some) }
}

const SINKS: &str = "`stdout`, `file:PATH` or `otlp`, or several of them separated by commas, each once";
const KEEP_RULES: &str = "`all`, `none` or `1/N` for `allowed`, `not-allowed`, `denied` and `undecided` such as \
                          `allowed=1/100,denied=all`";
/// What goes with `records` only.
const RECORD_KEYS: &[&str] = &[
    "records-keep",
    "records-mask",
    "records-hash-key-file",
    "records-queue",
    "records-queue-bytes",
    "records-when-full",
    "records-max-bytes",
    "records-max-files",
];

fn sinks(text: &str) -> Option<Vec<SinkSettings>> {
    let mut sinks: Vec<SinkSettings> = Vec::new();
    for sink in text.split(',').map(str::trim) {
        let sink = match sink {
            "stdout" => SinkSettings::Stdout,
            "otlp" => SinkSettings::Otlp,
            _ => {
                let path = PathBuf::from(sink.strip_prefix("file:").filter(|path| !path.is_empty())?);
                SinkSettings::File(FileSettings { path, max_bytes: 0, max_files: 1 })
            }
        };
        if sinks.iter().any(|known| known.name() == sink.name()) {
            return None;
        }
        sinks.push(sink);
    }
    Some(sinks)
}

/// A percentage as a part of one.
fn share(text: &str) -> Option<f64> {
    let number = text.strip_suffix('%')?.trim_end();
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let percent: f64 = plain.then(|| number.parse().ok()).flatten()?;
    (percent > 0.0 && percent <= 100.0).then_some(percent / 100.0)
}

const RULES: &str = "`serve`, `read-only` or `deny`, or `control=…,data=…` with these words";

/// One word for both planes, or a word for each.
fn by_plane(text: &str) -> Option<ByPlane> {
    let word = |text: &str| match text {
        "serve" => Some(WhenOld::Serve),
        "read-only" => Some(WhenOld::ReadOnly),
        "deny" => Some(WhenOld::Deny),
        _ => None,
    };
    if let Some(rule) = word(text) {
        return Some(ByPlane::both(rule));
    }
    let (mut control, mut data) = (None, None);
    for part in text.split(',') {
        let (plane, rule) = part.split_once('=')?;
        let place = match plane.trim() {
            "control" => &mut control,
            "data" => &mut data,
            _ => return None,
        };
        // A plane that is named twice is a slip.
        if place.replace(word(rule.trim())?).is_some() {
            return None;
        }
    }
    Some(ByPlane { control: control?, data: data? })
}

fn cache(text: &str) -> Option<CachePolicy> {
    match text {
        "off" => Some(CachePolicy::Off),
        "always" => Some(CachePolicy::CostAtLeast(0)),
        cost => number(cost).and_then(|cost| u32::try_from(cost).ok()).map(CachePolicy::CostAtLeast),
    }
}

fn workers(text: &str) -> Option<u64> {
    text.parse().ok().filter(|workers| (1..=MOST_WORKERS).contains(workers))
}

fn auto_workers(container: &Container) -> (u64, String) {
    let (threads, because) = container.threads();
    (u64::try_from(threads).unwrap_or(MOST_WORKERS).min(MOST_WORKERS), because)
}

fn up_to_a_million(text: &str) -> Option<usize> {
    text.parse().ok().filter(|number| (1..=1_000_000).contains(number))
}

/// A whole number without sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn split_unit(text: &str) -> (&str, &str) {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).unwrap_or((text, ""));
    (number, unit.trim_start())
}

/// A size in bytes, such as `32MiB`.
pub fn size(text: &str) -> Option<u64> {
    let (digits, unit) = split_unit(text);
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number(digits)?.checked_mul(factor)
}

/// A time such as `500ms`, up to an hour.
pub fn duration(text: &str) -> Option<Duration> {
    long_duration(text).filter(|duration| *duration <= Duration::from_secs(3600))
}

/// Up to a year.
fn long_duration(text: &str) -> Option<Duration> {
    let (digits, unit) = split_unit(text);
    let number = number(digits)?;
    let duration = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" | "min" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3600)?),
        "d" => Duration::from_secs(number.checked_mul(86_400)?),
        "" if number == 0 => Duration::ZERO,
        _ => return None,
    };
    Some(duration).filter(|duration| *duration <= Duration::from_secs(365 * 86_400))
}

// === impls of std traits ===

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {path}"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// For example ``environment POSTERN_CACHE is `yes`; wanted `off`, …``.
impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => write!(f, "setting `{}`", self.key)?,
            Origin::File(path) => write!(f, "file `{path}`, key `{}`", self.key)?,
            Origin::Environment(variable) => write!(f, "environment variable `{variable}`")?,
            Origin::Flag => write!(f, "flag `--{}`", self.key)?,
        }
        match &self.value {
            Some(value) => write!(f, " is `{value}`; wanted {}", self.wanted),
            None => write!(f, ": wanted {}", self.wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Limit;

    /// Without limits.
    const MACHINE: Container = Container { cores: 4, cpu: None, memory: None };

    fn command() -> Command {
        ServeArgs::augment_args(Command::new("serve"))
    }

    fn defaults() -> BTreeMap<String, Effective> {
        let matches = command().get_matches_from(["serve"]);
        given(&command(), &matches)
            .into_iter()
            // Tests do not depend on the variables of whoever runs them.
            .filter(|(_, effective)| effective.origin == Origin::Default)
            .collect()
    }

    fn with(settings: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
        let mut given = defaults();
        for (key, value) in settings {
            let effective = Effective { key: (*key).into(), value: (*value).into(), origin: Origin::Flag };
            given.insert((*key).into(), effective);
        }
        Config::resolve(given, Vec::new(), &MACHINE)
    }

    fn problems(settings: &[(&str, &str)]) -> Vec<String> {
        with(settings).unwrap_err().0.iter().map(|problem| problem.key.clone()).collect()
    }

    #[test]
    fn defaults_are_good() {
        let config = with(&[("policy", "dir")]).unwrap();
        assert_eq!(config.tcp, Some(DEFAULT_TCP.parse().unwrap()));
        assert_eq!(config.admin, Some(DEFAULT_ADMIN.parse().unwrap()));
        assert_eq!(config.uds, None);
        assert_eq!(config.cache.policy, CachePolicy::CostAtLeast(256));
        assert_eq!(config.cache.max_bytes, 32 << 20);
        assert_eq!(config.drain, DrainSettings { delay: Duration::ZERO, grace: Duration::from_secs(10) });
    }

    #[test]
    fn defaults_follow_the_container_and_settings_do_not() {
        let limit = |value, file: &str| Some(Limit { value, file: file.into() });
        let small =
            Container { cores: 8, cpu: limit(1500, "/cpu.max"), memory: limit(64 << 20, "/memory.max") };
        let resolve = |settings: &[(&str, &str)]| {
            let mut given = defaults();
            for (key, value) in [("source", "/r"), ("trusted-root", "root.json")].iter().chain(settings) {
                let flag = Effective { key: (*key).into(), value: (*value).into(), origin: Origin::Flag };
                given.insert((*key).into(), flag);
            }
            let config = Config::resolve(given, Vec::new(), &small).unwrap();
            let PolicySource::Published(remote) = config.policy else { panic!() };
            (config.workers, config.cache.max_bytes, remote.max_bundle_bytes, config.derived)
        };
        let (workers, cache, bundle, derived) = resolve(&[]);
        assert_eq!((workers, cache, bundle), (1, 4 << 20, 16 << 20));
        let told: Vec<_> =
            derived.iter().map(|one| format!("{}={} {}", one.key, one.value, one.because)).collect();
        assert_eq!(
            told,
            [
                "max-bundle-bytes=16777216 1/4 of the 67108864 bytes that /memory.max allows",
                "cache-max-bytes=4194304 1/16 of the 67108864 bytes that /memory.max allows",
                "workers=1 /cpu.max allows 1.500 cores",
            ]
        );
        let written = [("workers", "3"), ("cache-max-bytes", "1MiB"), ("max-bundle-bytes", "1GiB")];
        assert_eq!(resolve(&written), (3, 1 << 20, 1 << 30, Vec::new()));
        let machine = with(&[("policy", "d")]).unwrap();
        assert_eq!((machine.workers, machine.cache.max_bytes), (4, 32 << 20));
    }

    #[test]
    fn a_socket_alone_replaces_tcp() {
        let config = with(&[("policy", "dir"), ("uds", "/s")]).unwrap();
        assert_eq!((config.tcp, config.uds.unwrap().mode), (None, 0o660));
        let config = with(&[("policy", "dir"), ("uds", "/s"), ("tcp", "[::1]:1")]).unwrap();
        assert_eq!(config.tcp, Some("[::1]:1".parse().unwrap()));
        assert_eq!(problems(&[("policy", "dir"), ("tcp", "off")]), ["tcp"]);
    }

    #[test]
    fn who_may_ask_over_the_socket() {
        let peers = |settings: &[(&str, &str)]| {
            let all = [&[("policy", "dir"), ("uds", "/s")], settings].concat();
            with(&all).map(|config| config.uds.unwrap().peers)
        };
        assert_eq!(peers(&[]), Ok(Peers::default()));
        let both = peers(&[("uds-allow-uids", "1000, 65532"), ("uds-allow-gids", "0")]);
        assert_eq!(both, Ok(Peers { uids: vec![1000, 65532], gids: vec![0] }));
        for wrong in ["", ",", "1000,", "root", "-1", "4294967296", "1 2"] {
            assert!(peers(&[("uds-allow-uids", wrong)]).is_err(), "{wrong}");
        }
        assert_eq!(problems(&[("policy", "dir"), ("uds-allow-gids", "7")]), ["uds-allow-gids"]);
    }

    #[test]
    fn other_machines_are_answered_over_mutual_tls_only() {
        let files = [("policy", "d"), ("tls-cert", "c"), ("tls-key", "k"), ("tls-client-ca", "a")];
        let config = |settings: &[(&str, &str)]| with(&[&files, settings].concat());
        let tls = config(&[("tcp", "0.0.0.0:1")]).unwrap().tls.unwrap();
        assert_eq!((tls.cert, tls.key, tls.client_ca), ("c".into(), "k".into(), "a".into()));
        assert_eq!(tls.allow, []);
        assert!(config(&[("tcp", "127.0.0.1:1")]).unwrap().tls.is_some());
        let ids = ("tls-allow-spiffe", "spiffe://a/*, spiffe://b/c");
        let tls = config(&[ids]).unwrap().tls.unwrap();
        assert!(tls.allow[0].allows("spiffe://a/x") && tls.allow[1].allows("spiffe://b/c"));
        for wrong in ["", ",", "spiffe://a", "spiffe://a/b,", "a/b"] {
            assert!(config(&[("tls-allow-spiffe", wrong)]).is_err(), "{wrong}");
        }
        for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
            assert_eq!(problems(&[("policy", "d"), ("tcp", address)]), ["tcp"], "{address}");
        }
        assert_eq!(problems(&files[..2]), ["tls-client-ca", "tls-key"]);
        assert_eq!(problems(&[files[0], ids]), ["tls-allow-spiffe"]);
        let socket = [&files[..], &[("uds", "/s")]].concat();
        assert_eq!(problems(&socket), ["tls-cert", "tls-client-ca", "tls-key"]);
    }

    #[test]
    fn a_directory_or_publications() {
        let published = [("source", "https://a/p, /mirror"), ("trusted-root", "root.json")];
        let PolicySource::Published(remote) = with(&published).unwrap().policy else { panic!() };
        assert_eq!(remote.sources, ["https://a/p", "/mirror"]);
        assert_eq!(
            (remote.poll_interval, remote.max_age),
            (Duration::from_secs(10), Duration::from_secs(3600))
        );
        assert_eq!(problems(&[("source", "s3://b/p")]), ["trusted-root"]);
        assert_eq!(problems(&[("source", "a,,b"), ("trusted-root", "r")]), ["source"]);
        assert_eq!(problems(&[("policy", "d"), ("source", "a"), ("trusted-root", "r")]), ["source"]);
        assert_eq!(problems(&[("policy", "d"), ("state-dir", "s")]), ["state-dir"]);
        let strict = ("strict-wildcards", "true");
        assert_eq!(problems(&[published[0], published[1], strict]), ["strict-wildcards"]);
        assert_eq!(problems(&[]), ["policy"]);
    }

    #[test]
    fn records_and_the_candidate() {
        assert!(with(&[("policy", "d")]).unwrap().records.is_none());
        let config = with(&[
            ("policy", "d"),
            ("records", "stdout, file:/var/log/r.jsonl,otlp"),
            ("records-max-bytes", "0"),
            ("records-mask", "subject.principal_id=hash"),
            ("candidate", "next"),
            ("candidate-share", "0.5%"),
        ])
        .unwrap();
        let records = config.records.unwrap();
        let file = FileSettings { path: "/var/log/r.jsonl".into(), max_bytes: 0, max_files: 5 };
        assert_eq!(records.sinks, [SinkSettings::Stdout, SinkSettings::File(file), SinkSettings::Otlp]);
        assert!(records.masks.hashes());
        assert_eq!((records.queue, records.queue_bytes), (16384, 64 << 20));
        assert_eq!(config.candidate.unwrap(), CandidateSettings { path: "next".into(), share: 0.005 });
        for wrong in ["", "file:", "otlp,otlp", "syslog", "stdout,"] {
            assert_eq!(problems(&[("policy", "d"), ("records", wrong)]), ["records"], "{wrong}");
        }
        for wrong in ["0%", "101%", "1", "-1%", "inf%", "%"] {
            let settings =
                [("policy", "d"), ("records", "stdout"), ("candidate", "c"), ("candidate-share", wrong)];
            assert_eq!(problems(&settings), ["candidate-share"], "{wrong}");
        }
        assert_eq!(problems(&[("policy", "d"), ("records-queue", "7")]), ["records-queue"]);
        assert_eq!(problems(&[("policy", "d"), ("candidate", "c")]), ["candidate"]);
        assert_eq!(problems(&[("policy", "d"), ("candidate-share", "2%")]), ["candidate-share"]);
        let mask = [("policy", "d"), ("records", "stdout"), ("records-mask", "a=drop,subject=x")];
        assert_eq!(problems(&mask), ["records-mask", "records-mask"]);
        let key = [("policy", "d"), ("records", "stdout"), ("records-hash-key-file", "/nonexistent")];
        assert_eq!(problems(&key), ["records-hash-key-file"]);
    }

    #[test]
    fn rules_for_what_is_old() {
        let rule =
            |text| with(&[("policy", "d"), ("when-expired", text)]).map(|config| config.freshness.expired);
        assert_eq!(rule("serve"), Ok(ByPlane::both(WhenOld::Serve)));
        let each = ByPlane { control: WhenOld::ReadOnly, data: WhenOld::Deny };
        assert_eq!(rule("data=deny, control=read-only"), Ok(each));
        for wrong in ["", "allow", "control=serve", "control=serve,control=deny", "data=,control=deny"] {
            assert!(rule(wrong).is_err(), "{wrong}");
        }
        let defaults = with(&[("policy", "d")]).unwrap().freshness;
        assert_eq!(defaults.stale, ByPlane::both(WhenOld::Serve));
        assert_eq!(defaults.expired, ByPlane::both(WhenOld::Deny));
    }

    #[test]
    fn all_problems_at_once() {
        assert_eq!(
            problems(&[
                ("tcp", "0.0.0.0:4770"),
                ("cache", "yes"),
                ("cache-max-bytes", "10%"),
                ("uds-mode", "rw"),
                ("max-batch-items", "0"),
                ("drain-grace", "10"),
                ("lenient", "perhaps"),
                ("log-level", "postern=loud"),
            ]),
            [
                "cache",
                "cache-max-bytes",
                "drain-grace",
                "lenient",
                "log-level",
                "max-batch-items",
                "policy",
                "tcp",
                "uds-mode"
            ]
        );
        let error = with(&[("policy", "dir"), ("cache", "yes")]).unwrap_err().to_string();
        assert_eq!(
            error,
            "flag `--cache` is `yes`; wanted `off`, `always`, or a cost from which on it is asked such as `256`"
        );
    }

    #[test]
    fn cache_values() {
        for (text, wanted) in [
            ("off", Some(CachePolicy::Off)),
            ("always", Some(CachePolicy::CostAtLeast(0))),
            ("0", Some(CachePolicy::CostAtLeast(0))),
            ("17", Some(CachePolicy::CostAtLeast(17))),
            ("on", None),
            ("-1", None),
            ("+1", None),
            ("50%", None),
            ("4294967296", None),
        ] {
            assert_eq!(cache(text), wanted, "{text}");
        }
    }

    #[test]
    fn sizes_and_times() {
        assert_eq!(size("32MiB"), Some(32 << 20));
        assert_eq!(size("7"), Some(7));
        assert_eq!(size("5 kB"), Some(5000));
        for wrong in ["", "10%", "MiB", "1.5MiB", "-1", "1 m", "99999999999GiB"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
        assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Some(Duration::from_secs(120)));
        assert_eq!(duration("0"), Some(Duration::ZERO));
        for wrong in ["", "10", "s", "2h", "1d", "-1s"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_file_is_under_flags_and_over_defaults() {
        let mut given = defaults();
        let flag = Effective { key: "cache".into(), value: "off".into(), origin: Origin::Flag };
        given.insert("cache".into(), flag);
        let mut problems = Vec::new();
        let text = "policy = \"dir\"\ncache = \"always\"\nmax-batch-items = 7\nlenient = true\n\
                    max_request_bytes = 1\nfoo = 1\ntcp = [1]\nconfig = \"x\"\n";
        merge_file("f.toml", text, &mut given, &mut problems);
        let wrong: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            wrong,
            [
                "file `f.toml`, key `config` is `\"x\"`; wanted a known key: the options of `postern serve`",
                "file `f.toml`, key `foo` is `1`; wanted a known key: the options of `postern serve`",
                "file `f.toml`, key `max_request_bytes` is `1`; wanted a known key; did you mean \
                 `max-request-bytes`",
                "file `f.toml`, key `tcp` is `[1]`; wanted a string, a whole number, `true` or `false`",
            ]
        );
        let config = Config::resolve(given, Vec::new(), &MACHINE).unwrap();
        assert_eq!(config.cache.policy, CachePolicy::Off);
        assert_eq!(config.grpc.max_batch_items, 7);
        assert_eq!(config.load.lenience, Lenience::Lenient);
        assert!(config.summary().contains("max-batch-items=7 (file f.toml)"));
    }

    #[test]
    fn a_file_that_is_no_toml() {
        let mut problems = Vec::new();
        merge_file("f.toml", "a = = 1", &mut BTreeMap::new(), &mut problems);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].to_string().starts_with("file `f.toml`, key `config`: wanted TOML: "));
    }
}
