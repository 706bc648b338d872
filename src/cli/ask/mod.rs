//! The commands that ask: of a policy directory or bundle in this process, or of a running sidecar. Either way a question
//! is the message of the contract and is read by the same code as a call over gRPC, so that both say the same.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use jiff::Timestamp;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::authorizer::{Authorizer, CacheSettings};
use crate::cache::CachePolicy;
use crate::clock::Clock;
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
mod question;
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
    /// Ask the sidecar at this address: unix:///path or http://host:port
    #[arg(long, value_name = "ADDRESS", env = "POSTERN_CONNECT")]
    connect: Option<String>,
    #[command(flatten)]
    how: HowToLoad,
    /// Answer from the policy directory as of this time, for example 2026-01-31T09:30:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    now: Option<Timestamp>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Who answers.
enum Whom<'a> {
    /// This process, from a directory.
    Policy(Directory<'a>),
    /// A running sidecar.
    Sidecar(&'a str),
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
enum NoAnswer {
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

/// The address of a sidecar, if it is one.
fn sidecar_address(address: &str) -> Result<&str, &'static str> {
    if address.starts_with("unix:") || address.starts_with("http://") {
        Ok(address)
    } else {
        Err("`--connect` wants `unix:///path` or `http://host:port`")
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
            (_, Some((address, _))) => Whom::Sidecar(sidecar_address(address)?),
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

/// Makes one call on a channel to a sidecar.
fn call<T>(
    address: &str,
    call: impl AsyncFnOnce(Channel) -> Result<tonic::Response<T>, Status>,
) -> Result<T, NoAnswer> {
    let unreachable = |error: &dyn std::error::Error| {
        // The cause is in the chain: `transport error` alone says nothing.
        let mut message = format!("cannot reach `{address}`: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            message.push_str(&format!(": {error}"));
            cause = error.source();
        }
        NoAnswer::Unreachable(message)
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unreachable(&error))?;
    runtime.block_on(async {
        let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|error| unreachable(&error))?;
        let channel = endpoint
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .connect()
            .await
            .map_err(|error| unreachable(&error))?;
        call(channel).await.map(tonic::Response::into_inner).map_err(NoAnswer::Status)
    })
}

/// All mistakes of a command line.
fn tell_usage(mistakes: &[String]) -> Exit {
    for mistake in mistakes {
        print_error(mistake);
    }
    Exit::Usage
}

/// Why there is no answer; `flag_of` names the flag that a field of the question came from.
fn tell_failure(no_answer: &NoAnswer, json: bool, flag_of: fn(&str) -> String) -> Exit {
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

/// The canonical name, as in the gRPC documentation.
const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
