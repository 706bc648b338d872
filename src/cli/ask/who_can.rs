//! `postern who-can`: who may do an action at a scope, and through what.

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
use super::spell::{activation_line, assignment_json, assignment_line, named, object, objects, summary};
use super::tree::{Tree, plain};
use super::{AskArgs, Here};
use crate::cli::{Exit, print, print_json};

pub(in crate::cli) const EXAMPLES: &str = "\
Examples:
  postern who-can --policy examples/contoso --action Microsoft.KeyVault/vaults/delete \\
      --scope /subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-vault-prod
  postern who-can --policy DIR --action Microsoft.KeyVault/vaults/secrets/getSecret/action --data-action \\
      --scope … --json
  postern who-can --connect http://127.0.0.1:4770 --action … --scope …

Exit codes: 0 answered, 1 could not answer, 2 wrong usage.";

/// What for, where, and whom to ask.
#[derive(Args, Debug)]
pub(in crate::cli) struct WhoCanArgs {
    /// The operation, for example Microsoft.KeyVault/vaults/read
    #[arg(long, value_name = "ACTION")]
    action: String,
    /// The action is of the data plane
    #[arg(long)]
    data_action: bool,
    /// The resource id or scope it acts on
    #[arg(long, value_name = "SCOPE")]
    scope: String,
    #[command(flatten, next_help_heading = "Whom to ask")]
    ask: AskArgs,
}

/// All pages.
struct Gathered {
    /// What to ask next.
    next: Option<v1::ListPrincipalsRequest>,
    all: v1::ListPrincipalsResponse,
}

pub(in crate::cli) fn run(arguments: &WhoCanArgs, matches: &ArgMatches) -> Exit {
    list::run(Gathered::new(arguments), &arguments.ask, matches)
}

impl Gathered {
    fn new(arguments: &WhoCanArgs) -> Self {
        let action = v1::Action {
            name: arguments.action.clone(),
            data_action: arguments.data_action,
            ..v1::Action::default()
        };
        let first = v1::ListPrincipalsRequest {
            action: Some(action),
            scope: arguments.scope.clone(),
            ..v1::ListPrincipalsRequest::default()
        };
        Self { next: Some(first), all: v1::ListPrincipalsResponse::default() }
    }
}

impl Listing for Gathered {
    type Request = v1::ListPrincipalsRequest;
    type Page = v1::ListPrincipalsResponse;
    type Asked<'a> = explain::PrincipalsAsked<'a>;

    fn next(&self) -> Option<Self::Request> {
        self.next.clone()
    }

    /// A token goes on in one policy only, so all pages are of one.
    fn take(&mut self, page: v1::ListPrincipalsResponse) -> Result<(), Status> {
        self.all.policy = page.policy;
        self.all.truncated |= page.truncated;
        self.all.denies.extend(page.denies);
        self.all.principals.extend(page.principals);
        self.all.denied.extend(page.denied);
        self.all.eligible.extend(page.eligible);
        self.next = self.next.take().filter(|_| !page.next_page_token.is_empty());
        if let Some(next) = &mut self.next {
            next.page_token = page.next_page_token;
        }
        Ok(())
    }

    fn read(request: &Self::Request) -> Result<Self::Asked<'_>, Unanswered> {
        explain::principals_request(request)
    }

    fn here(here: &Here, asked: &Self::Asked<'_>) -> Result<Self::Page, Unanswered> {
        explain::principals(&here.authorizer, &here.snapshot, asked)
    }

    async fn call(
        client: &mut AuthorizationServiceClient<Channel>,
        request: Self::Request,
    ) -> Result<tonic::Response<Self::Page>, Status> {
        client.list_principals(request).await
    }

    fn tell(&self, json: bool) -> std::io::Result<Exit> {
        tell(&self.all, json)
    }
}

fn tell(list: &v1::ListPrincipalsResponse, json: bool) -> std::io::Result<Exit> {
    let policy = list.policy.clone().unwrap_or_default();
    if json {
        print_json(&json!({
            "denies": objects(&list.denies, |deny| object(json!({
                "id": deny.id,
                "name": deny.name,
                "scope": deny.scope,
                "allPrincipals": deny.all_principals,
                "principalIds": deny.principal_ids,
                "excludedPrincipalIds": deny.excluded_principal_ids,
                "condition": deny.condition,
            }))),
            "principals": objects(&list.principals, |principal| json!({
                "id": principal.id,
                "group": principal.group,
                "through": objects(&principal.through, granting_json),
                "conditional": principal.conditional,
            })),
            "denied": objects(&list.denied, |denied| object(json!({
                "id": denied.id,
                "group": denied.group,
                "through": denied.through.as_ref().map(granting_json),
                "denyAssignmentId": denied.deny_assignment_id,
            }))),
            "eligible": objects(&list.eligible, |eligible| object(json!({
                "id": eligible.id,
                "group": eligible.group,
                "activation": eligible.activation.as_ref().map(Activation::from),
            }))),
            "truncated": list.truncated,
            "policy": Identity::from(&policy),
        }))?;
        return Ok(Exit::Yes);
    }
    let mut tree = Tree::default();
    if !list.denies.is_empty() {
        tree.push(0, "Deny assignments, which count for everybody, listed here or not");
    }
    for deny in &list.denies {
        tree.push(1, format!("{} at {}", named(&deny.name, &deny.id), plain(&deny.scope)));
        let ids = |ids: &[String]| ids.iter().map(|id| plain(id)).collect::<Vec<_>>().join(", ");
        let whom = if deny.all_principals { "all principals".to_owned() } else { ids(&deny.principal_ids) };
        tree.push(2, format!("for {whom}"));
        if !deny.excluded_principal_ids.is_empty() {
            tree.push(2, format!("but not {}", ids(&deny.excluded_principal_ids)));
        }
        if !deny.condition.is_empty() {
            tree.push(2, format!("unless false: {}", plain(&deny.condition)));
        }
    }
    if !list.principals.is_empty() {
        tree.push(0, "May do it");
    }
    for principal in &list.principals {
        let conditional = if principal.conditional { ", if conditions are met" } else { "" };
        tree.push(1, format!("{}{conditional}", who(&principal.id, principal.group)));
        principal.through.iter().for_each(|through| tell_granting(&mut tree, through));
    }
    if !list.denied.is_empty() {
        tree.push(0, "Could, but for a deny assignment");
    }
    for denied in &list.denied {
        tree.push(1, who(&denied.id, denied.group));
        tree.push(2, format!("denied by {}", plain(&denied.deny_assignment_id)));
        denied.through.iter().for_each(|through| tell_granting(&mut tree, through));
    }
    if !list.eligible.is_empty() {
        tree.push(0, "May activate a role that grants it");
    }
    for eligible in &list.eligible {
        let activation = eligible.activation.clone().unwrap_or_default();
        tree.push(1, format!("{}: {}", who(&eligible.id, eligible.group), activation_line(&activation)));
        tree.push(2, format!("takes {}", plain(&takes(&activation))));
    }
    let counts = [
        (list.principals.len(), "principal", "principals"),
        (list.denied.len(), "denied", "denied"),
        (list.eligible.len(), "eligible", "eligible"),
        (list.denies.len(), "deny assignment", "deny assignments"),
    ];
    print(&format!("{}{}", tree.render(), summary(&counts, list.truncated)));
    Ok(Exit::Yes)
}

fn who(id: &str, group: bool) -> String {
    format!("{}{}", plain(id), if group { " (group)" } else { "" })
}

fn tell_granting(tree: &mut Tree, through: &v1::GrantingAssignment) {
    let conditional = if through.conditional { ", under a condition" } else { "" };
    let assignment = through.assignment.clone().unwrap_or_default();
    tree.push(2, format!("through {}{conditional}", assignment_line(&assignment)));
}

fn granting_json(through: &v1::GrantingAssignment) -> Value {
    json!({"assignment": assignment_json(through.assignment.as_ref()), "conditional": through.conditional})
}
