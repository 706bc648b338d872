//! `postern what-can`: what a principal may do at a scope.

use std::collections::VecDeque;
use std::path::PathBuf;

use clap::{ArgMatches, Args};
use serde_json::{Value, json};
use tonic::Status;
use tonic::transport::Channel;

use crate::proto::v1;
use crate::proto::v1::authorization_service_client::AuthorizationServiceClient;
use crate::server::explain::{self, Unanswered};

use super::activation::{Activation, takes};
use super::check::Identity;
use super::list::{self, Listing};
use super::question::subject;
use super::spell::{
    activation_line, assignment_json, assignment_line, named, object, objects, summary, word,
};
use super::tree::{Tree, plain};
use super::{AskArgs, Here, operations, tell_usage};
use crate::cli::{Exit, print, print_json};

pub(in crate::cli) const EXAMPLES: &str = "\
Examples:
  postern what-can --policy examples/contoso --principal 00000000-0000-4000-a002-000000000006 \\
      --scope /subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-vault-prod
  az provider operation list > operations.json
  postern what-can --policy DIR --principal … --group … --scope … --operations operations.json
  postern what-can --connect unix:///run/postern/postern.sock --principal … --scope … --json

Exit codes: 0 answered, 1 could not answer, 2 wrong usage.";

/// Operations in one call: a sidecar takes 5,000, and messages of 1 MiB.
const AT_ONCE: usize = 2_000;

/// Whose permissions, where, and whom to ask.
#[derive(Args, Debug)]
pub(in crate::cli) struct WhatCanArgs {
    /// Object id of the user, service principal or managed identity
    #[arg(long, value_name = "ID")]
    principal: String,
    /// The resource id or scope
    #[arg(long, value_name = "SCOPE")]
    scope: String,
    /// Object id of a group the principal is in, besides those the policy knows; may be repeated
    #[arg(long = "group", value_name = "ID")]
    groups: Vec<String>,
    /// Decide the operations of this JSON file: names of the control plane, objects with `name` and `isDataAction`,
    /// or the output of `az provider operation list`. Without it, those that roles name without wildcard
    #[arg(long, value_name = "FILE")]
    operations: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Whom to ask")]
    ask: AskArgs,
}

/// All pages, of all operations.
struct Gathered {
    /// What to ask next.
    next: Option<v1::ListPermissionsRequest>,
    later: VecDeque<Vec<v1::Action>>,
    /// The lists that are the same whatever the operations are complete.
    only_operations: bool,
    all: v1::ListPermissionsResponse,
}

pub(in crate::cli) fn run(arguments: &WhatCanArgs, matches: &ArgMatches) -> Exit {
    match arguments.operations.as_deref().map(operations::read).transpose() {
        Ok(operations) => {
            let gathered = Gathered::new(arguments, &operations.unwrap_or_default());
            list::run(gathered, &arguments.ask, matches)
        }
        Err(mistakes) => tell_usage(&mistakes),
    }
}

impl Gathered {
    fn new(arguments: &WhatCanArgs, operations: &[v1::Action]) -> Self {
        let mut later: VecDeque<_> = operations.chunks(AT_ONCE).map(<[v1::Action]>::to_vec).collect();
        let first = v1::ListPermissionsRequest {
            subject: Some(subject(&arguments.principal, &arguments.groups)),
            scope: arguments.scope.clone(),
            operations: later.pop_front().unwrap_or_default(),
            ..v1::ListPermissionsRequest::default()
        };
        Self { next: Some(first), later, only_operations: false, all: v1::ListPermissionsResponse::default() }
    }
}

impl Listing for Gathered {
    type Request = v1::ListPermissionsRequest;
    type Page = v1::ListPermissionsResponse;
    type Asked<'a> = explain::PermissionsAsked<'a>;

    fn next(&self) -> Option<Self::Request> {
        self.next.clone()
    }

    fn take(&mut self, page: v1::ListPermissionsResponse) -> Result<(), Status> {
        let digest = |policy: &v1::PolicyIdentity| policy.digest.clone();
        if self
            .all
            .policy
            .as_ref()
            .is_some_and(|policy| page.policy.as_ref().map(digest) != Some(digest(policy)))
        {
            return Err(Status::aborted("the policy changed while the list was read; ask again"));
        }
        self.all.policy = page.policy;
        self.all.truncated |= page.truncated;
        self.all.operations.extend(page.operations);
        if !self.only_operations {
            self.all.grants.extend(page.grants);
            self.all.denies.extend(page.denies);
            self.all.eligible.extend(page.eligible);
        }
        let Some(mut next) = self.next.take() else { return Ok(()) };
        if page.next_page_token.is_empty() {
            self.only_operations = true;
            next.page_token.clear();
            if let Some(operations) = self.later.pop_front() {
                next.operations = operations;
                self.next = Some(next);
            }
        } else {
            next.page_token = page.next_page_token;
            self.next = Some(next);
        }
        Ok(())
    }

    fn read(request: &Self::Request) -> Result<Self::Asked<'_>, Unanswered> {
        explain::permissions_request(request)
    }

    fn here(here: &Here, asked: &Self::Asked<'_>) -> Result<Self::Page, Unanswered> {
        explain::permissions(&here.authorizer, &here.snapshot, asked)
    }

    async fn call(
        client: &mut AuthorizationServiceClient<Channel>,
        request: Self::Request,
    ) -> Result<tonic::Response<Self::Page>, Status> {
        client.list_permissions(request).await
    }

    fn tell(&self, json: bool) -> std::io::Result<Exit> {
        tell(&self.all, json)
    }
}

fn tell(list: &v1::ListPermissionsResponse, json: bool) -> std::io::Result<Exit> {
    let policy = list.policy.clone().unwrap_or_default();
    if json {
        print_json(&json!({
            "grants": objects(&list.grants, |grant| object(json!({
                "assignment": assignment_json(grant.assignment.as_ref()),
                "blocks": objects(&grant.blocks, patterns_json),
                "conditions": grant.conditions,
                "unusable": grant.unusable,
            }))),
            "denies": objects(&list.denies, |deny| object(json!({
                "id": deny.id,
                "name": deny.name,
                "scope": deny.scope,
                "audit": deny.audit,
                "blocks": objects(&deny.blocks, patterns_json),
                "condition": deny.condition,
            }))),
            "eligible": list.eligible.iter().map(Activation::from).collect::<Vec<_>>(),
            "operations": objects(&list.operations, |operation| object(json!({
                "name": operation.name,
                "isDataAction": operation.data_action,
                "outcome": word(operation.outcome().as_str_name(), "OPERATION_OUTCOME_"),
                "roleAssignmentId": operation.role_assignment_id,
                "denyAssignmentId": operation.deny_assignment_id,
            }))),
            "truncated": list.truncated,
            "policy": Identity::from(&policy),
        }))?;
        return Ok(Exit::Yes);
    }
    let mut tree = Tree::default();
    if !list.denies.is_empty() {
        tree.push(0, "Deny assignments, which take away from all role assignments");
    }
    for deny in &list.denies {
        let audit = if deny.audit { " (audit: is reported, does not deny)" } else { "" };
        tree.push(1, format!("{} at {}{audit}", named(&deny.name, &deny.id), plain(&deny.scope)));
        tell_blocks(&mut tree, &deny.blocks);
        if !deny.condition.is_empty() {
            tree.push(2, format!("unless false: {}", plain(&deny.condition)));
        }
    }
    if !list.grants.is_empty() {
        tree.push(0, "Role assignments");
    }
    for grant in &list.grants {
        let unusable = if grant.unusable { ": a condition cannot be used, it grants nothing" } else { "" };
        let assignment = grant.assignment.clone().unwrap_or_default();
        tree.push(1, format!("{}{unusable}", assignment_line(&assignment)));
        tell_blocks(&mut tree, &grant.blocks);
        for condition in &grant.conditions {
            tree.push(2, format!("if {}", plain(condition)));
        }
    }
    if !list.eligible.is_empty() {
        tree.push(0, "Roles that may be activated");
    }
    for activation in &list.eligible {
        tree.push(1, activation_line(activation));
        tree.push(2, format!("takes {}", plain(&takes(activation))));
    }
    if !list.operations.is_empty() {
        tree.push(0, "Operations");
    }
    for operation in &list.operations {
        let outcome = match operation.outcome() {
            v1::OperationOutcome::Allowed => "Allowed",
            v1::OperationOutcome::Conditional => "Conditional",
            v1::OperationOutcome::Denied => "Denied",
            v1::OperationOutcome::Unspecified => "Unknown",
        };
        let plane = if operation.data_action { " (data)" } else { "" };
        tree.push(1, format!("{outcome:<11} {}{plane}", plain(&operation.name)));
    }
    let counts = [
        (list.grants.len(), "role assignment", "role assignments"),
        (list.denies.len(), "deny assignment", "deny assignments"),
        (list.eligible.len(), "role to activate", "roles to activate"),
        (list.operations.len(), "operation", "operations"),
    ];
    print(&format!("{}{}", tree.render(), summary(&counts, list.truncated)));
    Ok(Exit::Yes)
}

fn tell_blocks(tree: &mut Tree, blocks: &[v1::PermissionPatterns]) {
    for block in blocks {
        for (name, patterns) in [
            ("actions", &block.actions),
            ("but not", &block.not_actions),
            ("data actions", &block.data_actions),
            ("but not", &block.not_data_actions),
        ] {
            if !patterns.is_empty() {
                let patterns: Vec<_> = patterns.iter().map(|pattern| plain(pattern)).collect();
                tree.push(2, format!("{name} {}", patterns.join(", ")));
            }
        }
        if !block.condition.is_empty() {
            let unusable = if block.unusable { ", which cannot be used" } else { "" };
            tree.push(2, format!("under the condition{unusable}: {}", plain(&block.condition)));
        }
    }
}

fn patterns_json(block: &v1::PermissionPatterns) -> Value {
    object(json!({
        "actions": block.actions,
        "notActions": block.not_actions,
        "dataActions": block.data_actions,
        "notDataActions": block.not_data_actions,
        "condition": block.condition,
        "unusable": block.unusable,
    }))
}
