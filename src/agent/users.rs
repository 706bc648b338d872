//! What users of agents need (semantics, section 6.1).

use super::{Access, AgentOptions};
use crate::model::Scope;

/// Resource types of agents, today's first.
const RESOURCE_TYPES: [&str; 2] = ["Microsoft.App/agents", "Microsoft.SREAgent/agents"];

/// May this user?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserContext {
    /// Yes.
    Allowed,
    /// No: an action that is needed is not allowed.
    Missing(String),
    /// No: agents are not created there.
    RegionNotAllowed,
}

/// May the user work with an agent? Needs write on the agent resource, so Reader is not enough and
/// Contributor anywhere above is.
///
/// # Errors
///
/// What the check could not decide.
pub fn may_use<E>(
    agent_resource: Scope<'_>,
    mut check: impl FnMut(&str, Scope<'_>) -> Result<Access, E>,
) -> Result<UserContext, E> {
    let holds = |resource_type: &&&str| {
        let provider = format!("/providers/{resource_type}/").to_ascii_lowercase();
        agent_resource.as_str().to_ascii_lowercase().contains(&provider)
    };
    let [today, _] = RESOURCE_TYPES;
    let resource_type = RESOURCE_TYPES.iter().find(holds).copied().unwrap_or(today);
    needs(&[format!("{resource_type}/write")], agent_resource, &mut check)
}

/// May the user create an agent? Needs to assign roles and to create agents at the subscription, in a region
/// where agents are created.
///
/// # Errors
///
/// What a check could not decide.
pub fn may_create<E>(
    scope: Scope<'_>,
    region: Option<&str>,
    options: &AgentOptions,
    mut check: impl FnMut(&str, Scope<'_>) -> Result<Access, E>,
) -> Result<UserContext, E> {
    let [today, _] = RESOURCE_TYPES;
    let actions = ["Microsoft.Authorization/roleAssignments/write".to_owned(), format!("{today}/write")];
    // Rights count at the subscription, whatever was named in it.
    let subscription = scope.subscription().map(|id| format!("/subscriptions/{id}"));
    let scope = subscription.as_deref().and_then(|text| Scope::parse(text).ok()).unwrap_or(scope);
    let context = needs(&actions, scope, &mut check)?;
    let allowed_there = |region: &str| {
        options.regions.is_empty() || options.regions.iter().any(|known| folded(known) == folded(region))
    };
    if context == UserContext::Allowed && region.is_some_and(|region| !allowed_there(region)) {
        return Ok(UserContext::RegionNotAllowed);
    }
    Ok(context)
}

fn needs<E>(
    actions: &[String],
    scope: Scope<'_>,
    check: &mut impl FnMut(&str, Scope<'_>) -> Result<Access, E>,
) -> Result<UserContext, E> {
    for action in actions {
        if check(action, scope)? != Access::Allowed {
            return Ok(UserContext::Missing(action.clone()));
        }
    }
    Ok(UserContext::Allowed)
}

/// `Sweden Central` and `swedencentral` are one region.
fn folded(region: &str) -> String {
    region.chars().filter(|character| !character.is_whitespace()).collect::<String>().to_ascii_lowercase()
}
