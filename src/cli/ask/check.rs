//! `postern check`: one question, and the decision.

use anstyle::{AnsiColor, Style};
use clap::{ArgMatches, Args};

use crate::proto::v1;
use crate::proto::v1::authorization_service_client::AuthorizationServiceClient;
use crate::proto::v1::step::Kind;
use crate::server::convert;

use super::activation::{Activation, takes};
use super::question::{QuestionArgs, flag_of};
use super::{AskArgs, Directory, NoAnswer, Whom, tell_failure, tell_usage, timestamp};
use crate::cli::{Exit, print, print_error, print_json};

pub(in crate::cli) const EXAMPLES: &str = "\
Examples:
  postern check --policy examples/contoso --principal 00000000-0000-4000-a002-000000000002 \\
      --action Microsoft.KeyVault/vaults/secrets/getSecret/action --data-action \\
      --scope /subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-vault-prod
  postern check --connect http://127.0.0.1:4770 --principal … --action … --scope … --json
  postern check --connect unix:///run/postern/postern.sock --principal … --group … --action … --scope …
  postern check --policy DIR --principal … --action … --scope … --now 2026-01-31T09:30:00Z \\
      --resource-attribute Microsoft.Storage/storageAccounts/blobServices/containers:name=invoices
  postern check --policy DIR --principal AGENT --action … --scope … --on-behalf-of USER --approval approve

Exit codes: 0 allowed, 3 not allowed or denied, 1 could not decide, 2 wrong usage.";

/// What to ask, and whom.
#[derive(Args, Debug)]
pub(in crate::cli) struct CheckArgs {
    #[command(flatten)]
    pub(super) question: QuestionArgs,
    #[command(flatten, next_help_heading = "Whom to ask")]
    pub(super) ask: AskArgs,
}

/// An answer for programs.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answered<'a> {
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<Step<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    executed_as: Option<&'static str>,
    cached: bool,
    policy: Identity<'a>,
}

/// Which policy, for programs.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Identity<'a> {
    serial: u64,
    digest: &'a str,
    generation: u64,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Step<'a> {
    kind: &'static str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    activate_role: Option<Activation<'a>>,
}

pub(in crate::cli) fn run(arguments: &CheckArgs, matches: &ArgMatches) -> Exit {
    let json = arguments.ask.json;
    let whom = match arguments.ask.whom(matches) {
        Ok(whom) => whom,
        Err(message) => return tell_usage(&[message.to_owned()]),
    };
    let question = match arguments.question.question() {
        Ok(question) => question,
        Err(mistakes) => return tell_usage(&mistakes),
    };
    let answer = match whom {
        Whom::Policy(directory) => here(directory, &question),
        Whom::Sidecar(sidecar) => {
            sidecar.call(async |channel| AuthorizationServiceClient::new(channel).check(question).await)
        }
    };
    let told = match &answer {
        Ok(answer) => tell(answer, json),
        Err(no_answer) => Ok(tell_failure(no_answer, json, flag_of)),
    };
    told.unwrap_or_else(|error| {
        print_error(&error);
        Exit::Failed
    })
}

/// Answers in this process, on the road that a call takes.
fn here(directory: Directory<'_>, question: &v1::CheckRequest) -> Result<v1::CheckResponse, NoAnswer> {
    let asked =
        convert::check_request(question).map_err(|violations| NoAnswer::Status(violations.into_status()))?;
    let here = directory.open()?;
    let answer = here
        .authorizer
        .check(&here.snapshot, &asked.request, asked.agent.as_ref())
        .map_err(|undecided| NoAnswer::Status(convert::undecided_status(&undecided)))?;
    Ok(v1::CheckResponse {
        result: Some(convert::result(&here.snapshot, &asked, &answer)),
        policy: Some(convert::identity(&here.authorizer, &here.snapshot)),
        request_id: String::new(),
    })
}

const ALLOWED: Style = AnsiColor::Green.on_default().bold();
const REFUSED: Style = AnsiColor::Red.on_default().bold();

fn tell(answer: &v1::CheckResponse, json: bool) -> std::io::Result<Exit> {
    let result = answer.result.clone().unwrap_or_default();
    let policy = answer.policy.clone().unwrap_or_default();
    let Some((decision, exit, style)) = verdict(result.decision()) else { return Ok(tell_unknown()) };
    if json {
        print_json(&Answered::new(decision, &result, &policy))?;
        return Ok(exit);
    }
    let mut text = format!("{style}{decision}{style:#}: {}\n", result.reason);
    text.push_str(&rest(&result));
    text.push_str(&line("policy", &identity(&policy)));
    print(&text);
    Ok(exit)
}

/// The word, the exit code and the colour of a decision. `None` for one of a newer sidecar: only what is known to
/// allow allows.
pub(super) const fn verdict(decision: v1::Decision) -> Option<(&'static str, Exit, Style)> {
    match decision {
        v1::Decision::Allowed => Some(("Allowed", Exit::Yes, ALLOWED)),
        v1::Decision::NotAllowed => Some(("NotAllowed", Exit::No, REFUSED)),
        v1::Decision::Denied => Some(("Denied", Exit::No, REFUSED)),
        v1::Decision::Unspecified => None,
    }
}

pub(super) fn tell_unknown() -> Exit {
    print_error(&"the answer holds no decision that this version knows");
    Exit::Failed
}

fn executed_as(result: &v1::CheckResult) -> Option<&'static str> {
    match result.executed_as() {
        v1::ExecutedAs::Unspecified => None,
        v1::ExecutedAs::Agent => Some("agent"),
        v1::ExecutedAs::User => Some("user"),
    }
}

/// Which policy, as one line.
pub(super) fn identity(policy: &v1::PolicyIdentity) -> String {
    format!("{} (serial {}, generation {})", policy.digest, policy.serial, policy.generation)
}

/// One line of an answer; none where there is nothing to say.
pub(super) fn line(name: &str, value: &str) -> String {
    if value.is_empty() { String::new() } else { format!("  {name:<16} {value}\n") }
}

/// An answer without its sentence, line by line.
pub(super) fn rest(result: &v1::CheckResult) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| text.push_str(&line(name, value));
    line("role assignment", &result.role_assignment_id);
    line("role definition", &result.role_definition_id);
    line("deny assignment", &result.deny_assignment_id);
    for id in &result.audited_deny_assignment_ids {
        line("audited deny", id);
    }
    line("valid until", &timestamp(result.valid_until.as_ref()).unwrap_or_default());
    line("executed as", executed_as(result).unwrap_or_default());
    for (position, step) in (1..).zip(&result.steps) {
        let told = Step::from(step);
        line(&format!("step {position}"), &format!("{} ({})", told.kind, told.state));
        if let Some(Kind::ActivateRole(activation)) = &step.kind {
            line("  role", &format!("\"{}\" at {}", activation.role_name, activation.scope));
            line("  eligibility", &activation.eligibility_id);
            line("  eligible until", &timestamp(activation.eligible_until.as_ref()).unwrap_or_default());
            line("  condition", &activation.condition);
            line("  takes", &takes(activation));
        }
    }
    text
}

impl<'a> Answered<'a> {
    pub(super) fn new(
        decision: &'static str,
        result: &'a v1::CheckResult,
        policy: &'a v1::PolicyIdentity,
    ) -> Self {
        let code = result.reason_code().as_str_name();
        Self {
            decision,
            reason_code: code.strip_prefix("REASON_CODE_").unwrap_or(code),
            reason: &result.reason,
            role_assignment_id: &result.role_assignment_id,
            role_definition_id: &result.role_definition_id,
            deny_assignment_id: &result.deny_assignment_id,
            audited_deny_assignment_ids: &result.audited_deny_assignment_ids,
            valid_until: timestamp(result.valid_until.as_ref()),
            steps: result.steps.iter().map(Step::from).collect(),
            executed_as: executed_as(result),
            cached: result.cached,
            policy: policy.into(),
        }
    }
}

impl<'a> From<&'a v1::PolicyIdentity> for Identity<'a> {
    fn from(policy: &'a v1::PolicyIdentity) -> Self {
        Self { serial: policy.serial, digest: &policy.digest, generation: policy.generation }
    }
}

impl<'a> From<&'a v1::Step> for Step<'a> {
    fn from(step: &'a v1::Step) -> Self {
        let (kind, activate_role) = match &step.kind {
            Some(Kind::ApprovalPrompt(_)) => ("approval_prompt", None),
            Some(Kind::OnBehalfOfPrompt(_)) => ("obo_prompt", None),
            Some(Kind::ExecuteAsAgent(_)) => ("execute_as_agent", None),
            Some(Kind::ExecuteAsUser(_)) => ("execute_as_user", None),
            Some(Kind::ActivateRole(activation)) => ("activate_role", Some(activation.into())),
            // A newer sidecar.
            None => ("unknown", None),
        };
        let state = match step.state() {
            v1::StepState::Done => "done",
            v1::StepState::Next => "next",
            v1::StepState::Later => "later",
            v1::StepState::Unspecified => "unknown",
        };
        Self { kind, state, activate_role }
    }
}
