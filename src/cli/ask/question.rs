//! One question from the command line: who, what, where, and what conditions and agents bring.

use clap::{Args, ValueEnum};

use crate::proto::v1;

use super::attributes::{AttributeArgs, from_flags};

/// What to ask.
#[derive(Args, Debug)]
pub(super) struct QuestionArgs {
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
    /// The suboperation that conditions read, for example Blob.List
    #[arg(long, value_name = "NAME")]
    sub_operation: Option<String>,
    #[command(flatten)]
    attributes: AttributeArgs,
    #[command(flatten)]
    agent: AgentArgs,
}

/// What the action of an agent brings.
#[derive(Args, Debug)]
#[command(next_help_heading = "Agents")]
struct AgentArgs {
    /// The principal is an agent that acts for people: name the steps that its action takes. Every flag below
    /// says so too
    #[arg(long)]
    agent: bool,
    /// The mode that it runs in; of this and the one in the policy the stricter counts
    #[arg(long, value_name = "MODE")]
    agent_mode: Option<Mode>,
    /// Object id of the user who asks
    #[arg(long, value_name = "ID")]
    on_behalf_of: Option<String>,
    /// Object id of a group that user is in, besides those the policy knows; may be repeated
    #[arg(long, value_name = "ID", requires = "on_behalf_of")]
    on_behalf_of_group: Vec<String>,
    /// A custom security attribute of that user; may be repeated
    #[arg(long, value_name = "NAME=VALUE", requires = "on_behalf_of")]
    on_behalf_of_attribute: Vec<String>,
    /// The answer to the approval prompt
    #[arg(long, value_name = "ANSWER")]
    approval: Option<Approval>,
    /// Object id of who gave it, if it was not the user who asks
    #[arg(long, value_name = "ID", requires = "approval")]
    approval_by: Option<String>,
    /// Object id of a group they are in, besides those the policy knows; may be repeated
    #[arg(long, value_name = "ID", requires = "approval_by")]
    approval_by_group: Vec<String>,
    /// The asking user's answer to the on-behalf-of prompt
    #[arg(long, value_name = "ANSWER", requires = "on_behalf_of")]
    consent: Option<Consent>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// Writes need an approval
    Review,
    /// They do not
    #[value(aliases = ["autonomous", "automatic"])]
    Auto,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Approval {
    /// Yes
    Approve,
    /// No
    Deny,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Consent {
    /// The user lends their rights for this action
    Grant,
    /// No
    Decline,
}

impl QuestionArgs {
    /// The question as a message, or everything that is wrong with the flags.
    pub(super) fn question(&self) -> Result<v1::CheckRequest, Vec<String>> {
        let mut mistakes = Vec::new();
        let sources = self.attributes.read(&mut mistakes);
        let agent = self.agent.context(&mut mistakes);
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(v1::CheckRequest {
            subject: Some(v1::Subject {
                attributes: sources.principal,
                ..subject(&self.principal, &self.groups)
            }),
            action: Some(v1::Action {
                name: self.action.clone(),
                data_action: self.data_action,
                sub_operation: self.sub_operation.clone().unwrap_or_default(),
            }),
            resource: Some(v1::Resource { scope: self.scope.clone(), attributes: sources.resource }),
            request_attributes: sources.request,
            environment_attributes: sources.environment,
            request_id: String::new(),
            agent,
        })
    }
}

impl AgentArgs {
    fn context(&self, mistakes: &mut Vec<String>) -> Option<v1::AgentContext> {
        let given = self.agent
            || self.agent_mode.is_some()
            || self.on_behalf_of.is_some()
            || self.approval.is_some()
            || self.consent.is_some();
        if !given {
            return None;
        }
        let user = self.on_behalf_of.as_ref().map(|user| v1::Subject {
            attributes: from_flags("--on-behalf-of-attribute", &self.on_behalf_of_attribute, mistakes),
            ..subject(user, &self.on_behalf_of_group)
        });
        let approval = self.approval.and_then(|answer| {
            let by = match (&self.approval_by, &user) {
                (Some(by), _) => subject(by, &self.approval_by_group),
                (None, Some(user)) => user.clone(),
                (None, None) => {
                    mistakes.push("`--approval` wants `--approval-by` or `--on-behalf-of`".to_owned());
                    return None;
                }
            };
            let verdict = match answer {
                Approval::Approve => v1::ApprovalVerdict::Approve,
                Approval::Deny => v1::ApprovalVerdict::Deny,
            };
            Some(v1::AgentApproval { by: Some(by), verdict: verdict as i32 })
        });
        let consent = self.consent.map(|answer| v1::AgentConsent {
            principal_id: self.on_behalf_of.clone().unwrap_or_default(),
            verdict: match answer {
                Consent::Grant => v1::ConsentVerdict::Grant,
                Consent::Decline => v1::ConsentVerdict::Decline,
            } as i32,
        });
        let mode = match self.agent_mode {
            None => v1::AgentMode::Unspecified,
            Some(Mode::Review) => v1::AgentMode::Review,
            Some(Mode::Auto) => v1::AgentMode::Auto,
        };
        Some(v1::AgentContext { mode: mode as i32, on_behalf_of: user, approval, consent })
    }
}

pub(super) fn subject(principal: &str, groups: &[String]) -> v1::Subject {
    v1::Subject { principal_id: principal.to_owned(), group_ids: groups.to_vec(), ..v1::Subject::default() }
}

/// The flag that a field of the question came from.
pub(in crate::cli) fn flag_of(field: &str) -> String {
    const FLAGS: [(&str, &str); 15] = [
        ("subject.principal_id", "--principal"),
        ("subject.group_ids", "--group"),
        ("subject.attributes", "--principal-attribute"),
        ("action.name", "--action"),
        ("action.sub_operation", "--sub-operation"),
        ("resource.scope", "--scope"),
        ("scope", "--scope"),
        ("operations", "--operations"),
        ("resource.attributes", "--resource-attribute"),
        ("request_attributes", "--request-attribute"),
        ("environment_attributes", "--environment-attribute"),
        ("agent.on_behalf_of.principal_id", "--on-behalf-of"),
        ("agent.on_behalf_of.group_ids", "--on-behalf-of-group"),
        ("agent.on_behalf_of.attributes", "--on-behalf-of-attribute"),
        ("agent.approval.by.principal_id", "--approval-by"),
    ];
    let found = FLAGS.iter().find_map(|(path, flag)| Some((flag, field.strip_prefix(path)?)));
    match found {
        Some((flag, key)) if flag.ends_with("-attribute") => format!("`{flag}{key}`"),
        Some((flag, _)) => format!("`{flag}`"),
        None => format!("`{field}`"),
    }
}
