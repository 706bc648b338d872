//! `postern check`: one question, answered here from a directory or by a running sidecar. Either way the
//! question is read by the same code as a call over gRPC, so that both say the same.

use std::path::Path;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::authorizer::{Authorizer, CacheSettings};
use crate::cache::CachePolicy;
use crate::clock::Clock;
use crate::proto::v1;
use crate::proto::v1::authorization_service_client::AuthorizationServiceClient;
use crate::server::convert;
use crate::snapshot;
use crate::source::dir::{self, LoadOptions};

use super::validate::HowToLoad;
use super::{Exit, print, print_error, print_error_text, print_json, report};

pub(super) const EXAMPLES: &str = "\
Examples:
  postern check --policy examples/contoso --principal 00000000-0000-4000-a002-000000000002 \\
      --action Microsoft.KeyVault/vaults/secrets/getSecret/action --data-action \\
      --scope /subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-vault-prod
  postern check --connect http://127.0.0.1:4770 --principal … --action … --scope … --json
  postern check --connect unix:///run/postern/postern.sock --principal … --group … --action … --scope …

Exit codes: 0 allowed, 3 not allowed or denied, 1 could not decide, 2 wrong usage.";

/// A running sidecar answers in microseconds.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);

/// What to ask, and whom.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// Object id of the user, service principal or managed identity
    #[arg(long, value_name = "ID")]
    principal: String,
    /// The operation, for example Microsoft.KeyVault/vaults/read
    #[arg(long, value_name = "ACTION")]
    action: String,
    /// The resource id or scope it acts on
    #[arg(long, value_name = "SCOPE")]
    scope: String,
    /// The action is of the data plane
    #[arg(long)]
    data_action: bool,
    /// Object id of a group the principal is in, besides those the policy knows; may be repeated
    #[arg(long = "group", value_name = "ID")]
    groups: Vec<String>,
    /// Answer from this policy directory
    #[arg(long, value_name = "DIR", env = "POSTERN_POLICY")]
    policy: Option<String>,
    /// Ask the sidecar at this address: unix:///path or http://host:port
    #[arg(long, value_name = "ADDRESS", env = "POSTERN_CONNECT")]
    connect: Option<String>,
    #[command(flatten)]
    how: HowToLoad,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

enum Whom<'a> {
    Policy(&'a Path),
    Sidecar(&'a str),
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
#[serde(rename_all = "camelCase")]
struct Answered<'a> {
    decision: &'static str,
    reason_code: &'a str,
    reason: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    role_assignment_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    role_definition_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    deny_assignment_id: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    audited_deny_assignment_ids: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<String>,
    cached: bool,
    policy: Identity<'a>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    serial: u64,
    digest: &'a str,
    generation: u64,
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

pub(super) fn run(arguments: &CheckArgs, matches: &ArgMatches) -> Exit {
    let whom = match whom(arguments, matches) {
        Ok(whom) => whom,
        Err(message) => {
            print_error(&message);
            return Exit::Usage;
        }
    };
    let question = question(arguments);
    let answer = match whom {
        Whom::Policy(path) => here(path, arguments.how.options(), &question),
        Whom::Sidecar(address) => there(address, question),
    };
    let told = match &answer {
        Ok(answer) => tell(answer, arguments.json),
        Err(no_answer) => Ok(tell_failure(no_answer, arguments.json)),
    };
    told.unwrap_or_else(|error| {
        print_error(&error);
        Exit::Failed
    })
}

/// A flag wins over a variable; two of the same kind say nothing.
fn whom<'a>(arguments: &'a CheckArgs, matches: &ArgMatches) -> Result<Whom<'a>, &'static str> {
    let given = |id: &str, value: &'a Option<String>| {
        let value = value.as_deref().filter(|value| !value.is_empty())?;
        Some((value, matches.value_source(id) == Some(ValueSource::CommandLine)))
    };
    let (policy, connect) = (given("policy", &arguments.policy), given("connect", &arguments.connect));
    match (policy, connect) {
        (Some((_, true)), Some((_, true))) => Err("`--policy` and `--connect` exclude each other"),
        (Some((_, false)), Some((_, false))) => {
            Err("POSTERN_POLICY and POSTERN_CONNECT are both set; choose with `--policy` or `--connect`")
        }
        (Some((policy, true)), _) | (Some((policy, false)), None) => Ok(Whom::Policy(Path::new(policy))),
        (_, Some((address, _))) if address.starts_with("unix:") || address.starts_with("http://") => {
            Ok(Whom::Sidecar(address))
        }
        (_, Some(_)) => Err("`--connect` wants `unix:///path` or `http://host:port`"),
        (None, None) => {
            Err("nobody to ask; give `--policy DIR` or `--connect ADDRESS`, or set POSTERN_POLICY or \
             POSTERN_CONNECT")
        }
    }
}

fn question(arguments: &CheckArgs) -> v1::CheckRequest {
    v1::CheckRequest {
        subject: Some(v1::Subject {
            principal_id: arguments.principal.clone(),
            group_ids: arguments.groups.clone(),
            ..v1::Subject::default()
        }),
        action: Some(v1::Action {
            name: arguments.action.clone(),
            data_action: arguments.data_action,
            ..v1::Action::default()
        }),
        resource: Some(v1::Resource { scope: arguments.scope.clone(), ..v1::Resource::default() }),
        ..v1::CheckRequest::default()
    }
}

/// Answers in this process, on the road that a call takes.
fn here(
    path: &Path,
    options: LoadOptions,
    question: &v1::CheckRequest,
) -> Result<v1::CheckResponse, NoAnswer> {
    let request =
        convert::check_request(question).map_err(|violations| NoAnswer::Status(violations.into_status()))?;
    let loaded = dir::load(path, options).map_err(NoAnswer::Refused)?;
    let clock = Clock::system();
    let (mut writer, reader) = snapshot::cell();
    let (snapshot, _none) = writer.activate(loaded.policy, 0, clock.now());
    let cache = CacheSettings { policy: CachePolicy::Off, max_bytes: 0 };
    let answer = Authorizer::new(reader, cache, clock)
        .check(&snapshot, &request, None)
        .map_err(|undecided| NoAnswer::Status(convert::undecided_status(&undecided)))?;
    Ok(v1::CheckResponse {
        result: Some(convert::result(&snapshot, &request, &answer)),
        policy: Some(convert::identity(&snapshot)),
        request_id: String::new(),
    })
}

fn there(address: &str, question: v1::CheckRequest) -> Result<v1::CheckResponse, NoAnswer> {
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
        AuthorizationServiceClient::new(channel)
            .check(question)
            .await
            .map(tonic::Response::into_inner)
            .map_err(NoAnswer::Status)
    })
}

const ALLOWED: Style = AnsiColor::Green.on_default().bold();
const REFUSED: Style = AnsiColor::Red.on_default().bold();

fn tell(answer: &v1::CheckResponse, json: bool) -> std::io::Result<Exit> {
    let result = answer.result.clone().unwrap_or_default();
    let policy = answer.policy.clone().unwrap_or_default();
    let (decision, exit, style) = match result.decision() {
        v1::Decision::Allowed => ("Allowed", Exit::Yes, ALLOWED),
        v1::Decision::NotAllowed => ("NotAllowed", Exit::No, REFUSED),
        v1::Decision::Denied => ("Denied", Exit::No, REFUSED),
        // A newer sidecar: only what is known to allow allows.
        v1::Decision::Unspecified => {
            print_error(&"the answer holds no decision that this version knows");
            return Ok(Exit::Failed);
        }
    };
    let valid_until = result.valid_until.as_ref().and_then(|until| {
        jiff::Timestamp::new(until.seconds, until.nanos).ok().map(|until| until.to_string())
    });
    if json {
        let code = result.reason_code().as_str_name();
        print_json(&Answered {
            decision,
            reason_code: code.strip_prefix("REASON_CODE_").unwrap_or(code),
            reason: &result.reason,
            role_assignment_id: &result.role_assignment_id,
            role_definition_id: &result.role_definition_id,
            deny_assignment_id: &result.deny_assignment_id,
            audited_deny_assignment_ids: &result.audited_deny_assignment_ids,
            valid_until,
            cached: result.cached,
            policy: Identity { serial: policy.serial, digest: &policy.digest, generation: policy.generation },
        })?;
        return Ok(exit);
    }
    let mut text = format!("{style}{decision}{style:#}: {}\n", result.reason);
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            text.push_str(&format!("  {name:<16} {value}\n"));
        }
    };
    line("role assignment", &result.role_assignment_id);
    line("role definition", &result.role_definition_id);
    line("deny assignment", &result.deny_assignment_id);
    for id in &result.audited_deny_assignment_ids {
        line("audited deny", id);
    }
    line("valid until", &valid_until.unwrap_or_default());
    line(
        "policy",
        &format!("{} (serial {}, generation {})", policy.digest, policy.serial, policy.generation),
    );
    print(&text);
    Ok(exit)
}

fn tell_failure(no_answer: &NoAnswer, json: bool) -> Exit {
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

/// The flag that a field of the request came from.
fn flag_of(field: &str) -> String {
    let flag = match field {
        "subject.principal_id" => "--principal",
        "action.name" => "--action",
        "resource.scope" => "--scope",
        field if field.starts_with("subject.group_ids") => "--group",
        field => field,
    };
    format!("`{flag}`")
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
