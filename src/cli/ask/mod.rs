//! The commands that ask: of a policy directory or bundle in this process, or of a running sidecar. Either way a question
//! is the message of the contract and is read by the same code as a call over gRPC, so that both say the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use jiff::Timestamp;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::authorizer::{Authorizer, CacheSettings};
use crate::cache::CachePolicy;
use crate::clock::Clock;
use crate::server::code_name;
use crate::snapshot::{self, Snapshot};
use crate::source::dir::{self, LoadOptions};

use super::validate::HowToLoad;
use super::{Exit, print_error, print_error_text, print_json, report};

mod activation;
mod attributes;
pub(super) mod check;
pub(super) mod explain;
mod list;
mod operations;
pub(super) mod question;
mod spell;
pub(super) mod status;
mod tree;
pub(super) mod what_can;
pub(super) mod who_can;

/// A running sidecar answers in microseconds.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);
/// An explanation or a page of a list may be larger than what clients take unasked.
const MOST_BYTES: usize = 64 << 20;

/// Whom to ask, and how to tell the answer.
#[derive(Args, Debug)]
struct AskArgs {
    /// Answer from this policy directory or bundle
    #[arg(long, value_name = "DIR", env = "POSTERN_POLICY")]
    policy: Option<String>,
    /// Ask the sidecar at this address: unix:///path, http://host:port or https://host:port
    #[arg(long, value_name = "ADDRESS", env = "POSTERN_CONNECT")]
    connect: Option<String>,
    #[command(flatten)]
    tls: ClientTls,
    #[command(flatten)]
    how: HowToLoad,
    /// Answer from the policy directory as of this time, for example 2026-01-31T09:30:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    now: Option<Timestamp>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// How to be known to a sidecar, and to know it. With `https://` only.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct ClientTls {
    /// Authorities of the sidecar's certificate, PEM; without this those of the system
    #[arg(long, value_name = "FILE", help_heading = "TLS to a sidecar")]
    tls_ca: Option<PathBuf>,
    /// Certificate to show to the sidecar, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "TLS to a sidecar")]
    tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "TLS to a sidecar")]
    tls_key: Option<PathBuf>,
    /// Name that the sidecar's certificate has, where it is not the one in the address
    #[arg(long, value_name = "NAME", help_heading = "TLS to a sidecar")]
    tls_name: Option<String>,
}

/// A running sidecar.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sidecar<'a> {
    address: &'a str,
    tls: &'a ClientTls,
}

/// Who answers.
enum Whom<'a> {
    /// This process, from a directory.
    Policy(Directory<'a>),
    /// A running sidecar.
    Sidecar(Sidecar<'a>),
}

/// A policy directory, how to read it, and what time it is.
struct Directory<'a> {
    path: &'a Path,
    options: LoadOptions,
    clock: Clock,
}

/// A decision point over a directory.
struct Here {
    authorizer: Authorizer,
    snapshot: Arc<Snapshot>,
}

/// Why there is no answer.
pub(super) enum NoAnswer {
    /// Said by the decision point.
    Status(Status),
    /// The directory is no policy.
    Refused(dir::Refused),
    /// Nobody was reached.
    Unreachable(String),
}

#[derive(serde::Serialize)]
struct Failed<'a> {
    error: Failure<'a>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure<'a> {
    code: &'a str,
    message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    field_violations: Vec<Violation>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<&'a crate::model::Problem>,
}

#[derive(serde::Serialize)]
struct Violation {
    field: String,
    description: String,
}

fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "wanted a time with its zone such as `2026-01-31T09:30:00Z`".to_owned())
}

impl<'a> Sidecar<'a> {
    /// If the address is one of a sidecar, and files are given only where they are used.
    pub(super) fn at(address: &'a str, tls: &'a ClientTls) -> Result<Self, &'static str> {
        let https = address.starts_with("https://");
        if !https && !address.starts_with("unix:") && !address.starts_with("http://") {
            return Err("`--connect` wants `unix:///path`, `http://host:port` or `https://host:port`");
        }
        if !https && (tls.tls_ca.is_some() || tls.tls_cert.is_some() || tls.tls_name.is_some()) {
            return Err("`--tls-ca`, `--tls-cert`, `--tls-key` and `--tls-name` go with `https://` only");
        }
        Ok(Self { address, tls })
    }

    pub(super) fn endpoint(self) -> Result<Endpoint, NoAnswer> {
        let endpoint =
            Endpoint::from_shared(self.address.to_owned()).map_err(|error| self.unreachable(&error))?;
        if !self.address.starts_with("https://") {
            return Ok(endpoint);
        }
        let read = |path: &Path| {
            let unread = |error| NoAnswer::Unreachable(format!("cannot read `{}`: {error}", path.display()));
            std::fs::read(path).map_err(unread)
        };
        let mut tls = ClientTlsConfig::new();
        tls = match &self.tls.tls_ca {
            Some(path) => tls.ca_certificate(Certificate::from_pem(read(path)?)),
            None => tls.with_native_roots(),
        };
        if let (Some(cert), Some(key)) = (&self.tls.tls_cert, &self.tls.tls_key) {
            tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        if let Some(name) = &self.tls.tls_name {
            tls = tls.domain_name(name.clone());
        }
        endpoint.tls_config(tls).map_err(|error| self.unreachable(&error))
    }

    /// The cause is in the chain: `transport error` alone says nothing.
    pub(super) fn unreachable(self, error: &dyn std::error::Error) -> NoAnswer {
        let mut message = format!("cannot reach `{}`: {error}", self.address);
        let mut cause = error.source();
        while let Some(error) = cause {
            message.push_str(&format!(": {error}"));
            cause = error.source();
        }
        NoAnswer::Unreachable(message)
    }

    /// Makes one call.
    fn call<T>(
        self,
        call: impl AsyncFnOnce(Channel) -> Result<tonic::Response<T>, Status>,
    ) -> Result<T, NoAnswer> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| self.unreachable(&error))?;
        runtime.block_on(async {
            let channel = self
                .endpoint()?
                .connect_timeout(CONNECT)
                .timeout(ANSWER)
                .connect()
                .await
                .map_err(|error| self.unreachable(&error))?;
            // A status that the sidecar did not send has its cause in the connection, such as an alert of TLS.
            call(channel).await.map(tonic::Response::into_inner).map_err(|status| {
                match std::error::Error::source(&status) {
                    Some(_) if status.code() != Code::DeadlineExceeded => self.unreachable(&status),
                    _ => NoAnswer::Status(status),
                }
            })
        })
    }
}

impl AskArgs {
    /// A flag wins over a variable; two of the same kind say nothing.
    fn whom(&self, matches: &ArgMatches) -> Result<Whom<'_>, &'static str> {
        fn given<'a>(matches: &ArgMatches, id: &str, value: Option<&'a String>) -> Option<(&'a str, bool)> {
            let value = value.map(String::as_str).filter(|value| !value.is_empty())?;
            Some((value, matches.value_source(id) == Some(ValueSource::CommandLine)))
        }
        let policy = given(matches, "policy", self.policy.as_ref());
        let connect = given(matches, "connect", self.connect.as_ref());
        let whom = match (policy, connect) {
            (Some((_, true)), Some((_, true))) => {
                return Err("`--policy` and `--connect` exclude each other");
            }
            (Some((_, false)), Some((_, false))) => {
                return Err(
                    "POSTERN_POLICY and POSTERN_CONNECT are both set; choose with `--policy` or `--connect`",
                );
            }
            (Some((policy, true)), _) | (Some((policy, false)), None) => Whom::Policy(Directory {
                path: Path::new(policy),
                options: self.how.options(),
                clock: self.now.map_or_else(Clock::system, Clock::manual),
            }),
            (_, Some((address, _))) => Whom::Sidecar(Sidecar::at(address, &self.tls)?),
            (None, None) => {
                return Err(
                    "nobody to ask; give `--policy DIR` or `--connect ADDRESS`, or set POSTERN_POLICY \
                            or POSTERN_CONNECT",
                );
            }
        };
        if matches!(whom, Whom::Sidecar(_)) && self.now.is_some() {
            return Err("`--now` goes with `--policy` only: a sidecar has its own clock");
        }
        Ok(whom)
    }
}

impl Directory<'_> {
    /// Loads it and decides by it, without a cache.
    fn open(self) -> Result<Here, NoAnswer> {
        let loaded = dir::load(self.path, self.options).map_err(NoAnswer::Refused)?;
        let (mut writer, reader) = snapshot::cell();
        let (snapshot, _none) = writer.activate(loaded.policy, 0, self.clock.now());
        let cache = CacheSettings { policy: CachePolicy::Off, max_bytes: 0 };
        Ok(Here { authorizer: Authorizer::new(reader, cache, self.clock), snapshot })
    }
}

/// All mistakes of a command line.
pub(super) fn tell_usage(mistakes: &[String]) -> Exit {
    for mistake in mistakes {
        print_error(mistake);
    }
    Exit::Usage
}

/// Why there is no answer; `flag_of` names the flag that a field of the question came from.
pub(super) fn tell_failure(no_answer: &NoAnswer, json: bool, flag_of: fn(&str) -> String) -> Exit {
    let (exit, failure) = match no_answer {
        NoAnswer::Status(status) => {
            let exit = if status.code() == Code::InvalidArgument { Exit::Usage } else { Exit::Failed };
            let field_violations = status
                .get_details_bad_request()
                .map(|details| details.field_violations)
                .unwrap_or_default()
                .into_iter()
                .map(|violation| Violation { field: violation.field, description: violation.description })
                .collect();
            let failure = Failure {
                code: code_name(status.code()),
                message: status.message().to_owned(),
                field_violations,
                problems: Vec::new(),
            };
            (exit, failure)
        }
        NoAnswer::Refused(refused) => {
            let failure = Failure {
                code: "POLICY_REFUSED",
                message: report::summary(&refused.problems, refused.files),
                field_violations: Vec::new(),
                problems: refused.problems.iter().collect(),
            };
            (Exit::Failed, failure)
        }
        NoAnswer::Unreachable(message) => {
            let failure = Failure {
                code: "UNREACHABLE",
                message: message.clone(),
                field_violations: Vec::new(),
                problems: Vec::new(),
            };
            (Exit::Failed, failure)
        }
    };
    if json {
        // No `decision`: there is none, and a program must not take anything else for one.
        if let Err(error) = print_json(&Failed { error: failure }) {
            print_error(&error);
        }
        return exit;
    }
    match no_answer {
        NoAnswer::Refused(refused) => {
            print_error_text(&report::problems(&refused.problems));
            print_error(&failure.message);
        }
        NoAnswer::Status(_) if !failure.field_violations.is_empty() => {
            for violation in &failure.field_violations {
                print_error(&format_args!("{} {}", flag_of(&violation.field), violation.description));
            }
        }
        NoAnswer::Status(_) => {
            print_error(&format_args!("could not decide: {} ({})", failure.message, failure.code));
        }
        NoAnswer::Unreachable(_) => print_error(&failure.message),
    }
    exit
}

/// A time of the contract as text.
fn timestamp(at: Option<&prost_types::Timestamp>) -> Option<String> {
    at.and_then(|at| Timestamp::new(at.seconds, at.nanos).ok()).map(|at| at.to_string())
}
