//! `postern inject`: the webhook that puts the sidecar into pods, and the same for one pod in a file.

use std::fmt::Display;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::config::{duration, size};
use crate::drain::DrainSettings;
use crate::inject::{self, AskedBy, InjectSettings, InjectorConfig, Outcome};
use crate::telemetry::{LogFormat, is_log_filter};

use super::{Exit, print, print_error, print_json};

/// No longer than the API server waits.
const PROBE_PATIENCE: Duration = Duration::from_secs(30);

pub(super) const EXAMPLES: &str = "\
Examples:
  postern inject serve --tls-cert tls.crt --tls-key tls.key --config injector.json
  postern inject patch --config injector.json --namespace shop < pod.json
  postern inject probe --url https://postern-injector.postern-system.svc/inject/pods --ca ca.crt

The chart charts/postern renders the configuration and runs the first. The second prints what would be
done to a pod, the third is what `helm test` runs. SIGTERM drains and ends with 0.

Exit codes of serve: 0 drained, 1 could not start or go on, 2 wrong settings.
Exit codes of patch: 0 injected, or it is already, 3 refused or left alone, 1 could not, 2 wrong usage.
Exit codes of probe: 0 it answers with a patch, 1 it does not, 2 wrong usage.";

#[derive(Args, Debug)]
pub(super) struct InjectArgs {
    #[command(subcommand)]
    command: InjectCommand,
}

#[derive(Debug, Subcommand)]
enum InjectCommand {
    /// Answer the API server: a mutating admission webhook over TLS
    Serve(Box<InjectServeArgs>),
    /// Print the patch that a pod would get, as the webhook answers it
    Patch(PatchArgs),
    /// Ask a running webhook about a small pod, as the API server does
    Probe(ProbeArgs),
}

#[derive(Args, Debug)]
struct InjectServeArgs {
    /// What is injected, by profile: the JSON that the chart renders
    #[arg(long, env = "POSTERN_INJECT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Certificate of the webhook and those that lead to its authority, PEM; read again when it changes
    #[arg(long, env = "POSTERN_INJECT_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, env = "POSTERN_INJECT_TLS_KEY", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// How often certificate and key are looked at
    #[arg(long, env = "POSTERN_INJECT_TLS_INTERVAL", value_name = "TIME", default_value = "10s")]
    tls_interval: String,
    /// Address of the webhook
    #[arg(long, env = "POSTERN_INJECT_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    listen: String,
    /// Address of `/livez`, `/readyz` and `/metrics`, or `off`
    #[arg(long, env = "POSTERN_INJECT_ADMIN", value_name = "ADDRESS", default_value = "127.0.0.1:4771")]
    admin: String,
    /// Size of the largest review that is read
    #[arg(long, env = "POSTERN_INJECT_MAX_REQUEST_BYTES", value_name = "SIZE", default_value = "4MiB")]
    max_request_bytes: String,
    /// After SIGTERM, go on answering this long
    #[arg(long, env = "POSTERN_INJECT_DRAIN_DELAY", value_name = "TIME", default_value = "0s")]
    drain_delay: String,
    /// Then wait this long for open requests
    #[arg(long, env = "POSTERN_INJECT_DRAIN_GRACE", value_name = "TIME", default_value = "10s")]
    drain_grace: String,
    /// Form of the log on standard error: `text` or `json`
    #[arg(long, env = "POSTERN_INJECT_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: String,
    /// What is logged: a level, or directives such as `info,postern=debug`
    #[arg(long, env = "POSTERN_INJECT_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    log_level: String,
}

#[derive(Args, Debug)]
struct PatchArgs {
    /// What is injected, by profile: the JSON that the chart renders
    #[arg(long, env = "POSTERN_INJECT_CONFIG", value_name = "FILE")]
    config: PathBuf,
    /// Namespace of the pod
    #[arg(long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// The namespace asks for all its pods
    #[arg(long)]
    namespace_asks: bool,
    /// The pod, JSON; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pod: PathBuf,
}

#[derive(Args, Debug)]
struct ProbeArgs {
    /// The webhook, for example https://postern-injector.postern-system.svc/inject/pods
    #[arg(long, value_name = "URL")]
    url: String,
    /// Certificate of the authority that it has to be signed by, PEM
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// The prefix of labels and annotations that the webhook is configured with
    #[arg(long, value_name = "NAME", default_value = "postern.dev")]
    domain: String,
}

/// The webhook with the form of its log.
#[derive(Debug)]
pub struct InjectServe {
    /// What it does.
    pub settings: InjectSettings,
    /// Form of the log.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_level: String,
}

/// Every setting that is wrong.
#[derive(Default)]
struct Problems(Vec<String>);

pub(super) fn run(arguments: InjectArgs) -> Result<Box<InjectServe>, Exit> {
    match arguments.command {
        InjectCommand::Serve(arguments) => serve(*arguments).map(Box::new),
        InjectCommand::Patch(arguments) => Err(patch(&arguments)),
        InjectCommand::Probe(arguments) => Err(probe(&arguments)),
    }
}

fn serve(arguments: InjectServeArgs) -> Result<InjectServe, Exit> {
    let mut problems = Problems::default();
    let config = problems.file("config", arguments.config);
    let certificate = problems.file("tls-cert", arguments.tls_cert);
    let key = problems.file("tls-key", arguments.tls_key);
    let interval = problems.read(
        "tls-interval",
        &arguments.tls_interval,
        "a time from 1ms to 1h such as `10s`",
        |text| duration(text).filter(|interval| *interval >= Duration::from_millis(1)),
    );
    let listen =
        problems.read("listen", &arguments.listen, "an address and port such as `0.0.0.0:8443`", |text| {
            text.parse::<SocketAddr>().ok()
        });
    let admin = problems.read(
        "admin",
        &arguments.admin,
        "an address and port such as `0.0.0.0:4771`, or `off`",
        |text| {
            if text == "off" { Some(None) } else { text.parse().ok().map(Some) }
        },
    );
    let max_request_bytes = problems.read(
        "max-request-bytes",
        &arguments.max_request_bytes,
        "a size from 64KiB to 64MiB",
        |text| {
            size(text)
                .filter(|bytes| (64 << 10..=64 << 20).contains(bytes))
                .and_then(|bytes| usize::try_from(bytes).ok())
        },
    );
    let time = "a time such as `10s` or `500ms`, at most 1h";
    let delay = problems.read("drain-delay", &arguments.drain_delay, time, duration);
    let grace = problems.read("drain-grace", &arguments.drain_grace, time, duration);
    let log_format =
        problems.read("log-format", &arguments.log_format, "`text` or `json`", |text| text.parse().ok());
    let log_level = problems.read("log-level", &arguments.log_level, "a level, or directives", |text| {
        is_log_filter(text).then(|| text.to_owned())
    });
    let settings = (|| {
        Some(InjectServe {
            settings: InjectSettings {
                listen: listen?,
                certificate: certificate?,
                key: key?,
                certificate_interval: interval?,
                config: config?,
                admin: admin?,
                max_request_bytes: max_request_bytes?,
                drain: DrainSettings { delay: delay?, grace: grace? },
            },
            log_format: log_format?,
            log_level: log_level?,
        })
    })();
    settings.ok_or_else(|| {
        for problem in &problems.0 {
            print_error(problem);
        }
        Exit::Usage
    })
}

fn patch(arguments: &PatchArgs) -> Exit {
    let failed = |path: &PathBuf, error: &dyn Display| {
        print_error(&format!("`{}`: {error}", path.display()));
        Exit::Failed
    };
    let config = match std::fs::read_to_string(&arguments.config) {
        Ok(text) => InjectorConfig::from_json(&text),
        Err(error) => return failed(&arguments.config, &error),
    };
    let config = match config {
        Ok(config) => config,
        Err(error) => return failed(&arguments.config, &error),
    };
    let mut text = String::new();
    let read = if arguments.pod.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).map(|_| ())
    } else {
        std::fs::read_to_string(&arguments.pod).map(|read| text = read)
    };
    if let Err(error) = read {
        return failed(&arguments.pod, &error);
    }
    let pod = match serde_json::from_str(&text) {
        Ok(pod) => pod,
        Err(error) => return failed(&arguments.pod, &error),
    };
    let asked_by = if arguments.namespace_asks { AskedBy::Namespace } else { AskedBy::Pod };
    match inject::inject(&config, asked_by, &arguments.namespace, &pod) {
        Ok(Outcome::Injected { patch, .. }) => match print_json(&patch) {
            Ok(()) => Exit::Yes,
            Err(error) => failed(&arguments.pod, &error),
        },
        Ok(Outcome::LeftAlone(why)) => {
            print_error(&format!("left alone: {why}"));
            Exit::No
        }
        Err(problems) => {
            for problem in &problems {
                print_error(problem);
            }
            Exit::No
        }
    }
}

fn probe(arguments: &ProbeArgs) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print_error(&error);
            return Exit::Failed;
        }
    };
    match runtime.block_on(probe_webhook(arguments)) {
        Ok(operations) => {
            print(&format!(
                "{} answers: a pod that asks is injected ({operations} operations)\n",
                arguments.url
            ));
            Exit::Yes
        }
        Err(message) => {
            print_error(&format!("{}: {message}", arguments.url));
            Exit::Failed
        }
    }
}

async fn probe_webhook(arguments: &ProbeArgs) -> Result<usize, String> {
    let pem =
        std::fs::read(&arguments.ca).map_err(|error| format!("`{}`: {error}", arguments.ca.display()))?;
    let authority = reqwest::Certificate::from_pem_bundle(&pem)
        .map_err(|error| format!("`{}`: {}", arguments.ca.display(), all_of(&error)))?;
    if authority.is_empty() {
        return Err(format!("`{}` has no certificate in PEM", arguments.ca.display()));
    }
    let client = reqwest::Client::builder()
        .tls_certs_only(authority)
        .https_only(true)
        .no_proxy()
        .timeout(PROBE_PATIENCE)
        .build()
        .map_err(|error| all_of(&error))?;
    let request = client
        .post(&arguments.url)
        .header("content-type", "application/json")
        .body(inject::probe(&arguments.domain));
    let response = request.send().await.map_err(|error| all_of(&error))?;
    let status = response.status();
    let body = response.bytes().await.map_err(|error| all_of(&error))?;
    if !status.is_success() {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body).trim()));
    }
    inject::probed(&body)
}

/// An error with those behind it: that a certificate is unknown stands in the last.
fn all_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        text.push_str(&format!(": {error}"));
        behind = error.source();
    }
    text
}

// === impl Problems ===

impl Problems {
    fn file(&mut self, key: &str, given: Option<PathBuf>) -> Option<PathBuf> {
        let given = given.filter(|path| !path.as_os_str().is_empty());
        if given.is_none() {
            let variable = key.replace('-', "_").to_uppercase();
            self.0.push(format!("flag `--{key}` is missing: wanted a file, or POSTERN_INJECT_{variable}"));
        }
        given
    }

    fn read<T>(
        &mut self,
        key: &str,
        text: &str,
        wanted: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let parsed = parse(text.trim());
        if parsed.is_none() {
            self.0.push(format!("flag `--{key}` is `{text}`; wanted {wanted}"));
        }
        parsed
    }
}
