//! Agents that act for people: our own form, and the resource it is named after (semantics, section 6.2). What the
//! level of an agent brings is worked out where the policy is compiled; here its parts are checked.

use ahash::{AHashMap, AHashSet};

use super::check::{self, Known};
use super::document::{Context, Document, Origin, unresolved_problem};
use super::ids;
use super::tree::{Kind, Value};
use crate::agent::AgentOptions;
use crate::model::{
    Action, AgentDocument, AgentLevel, AgentMode, PrincipalId, Problem, Scope, ScopeKind, Spanned,
};

const GROUPS: [&str; 3] = ["managedResourceGroups", "managedResources", "managed_resource_groups"];

const DECIDING: [&str; 12] = [
    "principalId",
    "managedIdentity",
    "level",
    "permissionLevel",
    "permission_level",
    "mode",
    "managedResourceGroups",
    "managedResources",
    "managed_resource_groups",
    "approverRole",
    "privilegedRoles",
    "queryActions",
];

// === reading ===

/// Reads one and keeps it, unless something of it was reported.
pub(super) fn read(document: &Document<'_>, context: &mut Context) {
    context.report.document(document.top);
    if let Some(agent) = parse(document, context) {
        context.documents.agents.push(agent);
    }
}

fn parse(document: &Document<'_>, context: &mut Context) -> Option<AgentDocument> {
    document.refuse_near_misses(&DECIDING, context);
    let id = resource_id(document, context);
    let name = document.label(&["name"], context);
    let principal_id = principal(document, context);
    let level =
        word(document, &["level", "permissionLevel", "permission_level"], AgentLevel::parse, LEVELS, context);
    let mode = word(document, &["mode"], AgentMode::parse, MODES, context);
    let managed_resource_groups = groups(document, context);
    let approver_role = document.optional_text(&["approverRole"], context);
    let privileged_roles = match document.find(&["privilegedRoles"], context) {
        None => Ok(None),
        Some(list) => document
            .list_of(list, context)
            .and_then(|values| roles(document, &values, context))
            .map(Some)
            .ok_or(()),
    };
    let query_actions = match document.find(&["queryActions"], context) {
        None => Ok(None),
        Some(_) => actions(document, context).map(Some).ok_or(()),
    };
    Some(AgentDocument {
        at: document.top.at(),
        id: id.ok()?,
        name,
        principal_id: principal_id?,
        level: level.ok()?,
        mode: mode.ok()?,
        managed_resource_groups: managed_resource_groups?,
        approver_role: approver_role.ok()?.map(ids::role),
        privileged_roles: privileged_roles.ok()?,
        query_actions: query_actions.ok()?,
    })
}

fn resource_id(document: &Document<'_>, context: &mut Context) -> Result<Option<Spanned<String>>, ()> {
    let Some(id) = document.optional_text(&["id"], context)? else { return Ok(None) };
    if let Some(wrong) = check::wrong_scope(&id.value) {
        context.report.at(
            id.at,
            Problem::error("InvalidScope", format!("`{}` {wrong}", id.value))
                .value(id.value.clone())
                .help("wanted the agent's resource id; a name that is none goes into `name`"),
        );
        return Err(());
    }
    Ok(Some(id))
}

/// The object id of the identity: flat, in an object, or the identity's own value.
fn principal(document: &Document<'_>, context: &mut Context) -> Option<Spanned<String>> {
    refuse_second_identity(document, context)?;
    if let Some(value) = document.find(&["principalId", "principal"], context) {
        return object_id(document, value, context);
    }
    for name in ["managedIdentity", "identity"] {
        let Some(value) = document.find(&[name], context) else { continue };
        if value.kind() == Kind::String {
            return object_id(document, value, context);
        }
        let part = Document::part(value, document.origin, context)?;
        if let Some(id) = part.find(&["principalId", "objectId"], context) {
            return object_id(&part, id, context);
        }
    }
    if document.origin == Origin::Template {
        let message = "the managed identity of the agent is known only when it is deployed";
        let problem = unresolved_problem(message, context).field("principalId");
        context.report.at(document.top.at(), problem);
    } else {
        document.missing(&["principalId"], context);
    }
    None
}

/// An identity that is not described would be one that no boundary holds.
fn refuse_second_identity(document: &Document<'_>, context: &mut Context) -> Option<()> {
    for name in ["managedIdentity", "identity"] {
        let Some(value) = document.find(&[name], context) else { continue };
        let own = value.get("principalId").or_else(|| value.get("objectId")).is_some();
        let Some(others) = value.get("userAssignedIdentities") else { continue };
        let count = others.entries().count().max(others.elements().count()).saturating_add(usize::from(own));
        if count > 1 {
            context.report.at(
                others.at(),
                Problem::error(
                    "InvalidAgent",
                    "the agent has several identities, and a document describes one",
                )
                .help("write one document for each identity, with its `principalId` and no other"),
            );
            return None;
        }
    }
    Some(())
}

fn object_id(document: &Document<'_>, value: Value<'_>, context: &mut Context) -> Option<Spanned<String>> {
    let id = document.principal_of(value, context)?;
    if id.value.contains('/') {
        context.report.value(
            value,
            Problem::error("InvalidPrincipalId", "this is the id of a resource")
                .help("wanted the object id (`principalId`) of the agent's managed identity"),
        );
        return None;
    }
    Some(id)
}

const LEVELS: (&str, &str) = ("permission level", "wanted `Reader` or `Privileged`");
const MODES: (&str, &str) = ("run mode", "wanted `review`, or `auto` (also `Autonomous`, `Automatic`)");

/// One of a few words; without it the one that lets the agent do least.
fn word<T: Default>(
    document: &Document<'_>,
    names: &[&str],
    parse: fn(&str) -> Option<T>,
    (what, wanted): (&str, &str),
    context: &mut Context,
) -> Result<T, ()> {
    let Some(value) = document.find(names, context) else { return Ok(T::default()) };
    let word = document.text_of(value, context).ok_or(())?;
    parse(&word.value).ok_or_else(|| {
        context.report.value(
            value,
            Problem::error("InvalidAgent", format!("`{}` is no {what} of an agent", word.value)).help(wanted),
        );
    })
}

/// The boundary. Anything but resource groups bounds nothing that the rules know of.
fn groups(document: &Document<'_>, context: &mut Context) -> Option<Vec<Spanned<String>>> {
    let texts = document.texts(&GROUPS, context)?;
    let mut groups: Vec<Spanned<String>> = Vec::with_capacity(texts.len());
    let mut seen: AHashSet<check::ScopeKey<'_>> = AHashSet::new();
    let mut fine = true;
    for text in &texts {
        let wrong = check::wrong_scope(&text.value).or_else(|| {
            let kind = Scope::parse(&text.value).ok()?.kind();
            (kind != ScopeKind::ResourceGroup).then(|| "is no resource group".to_owned())
        });
        if let Some(wrong) = wrong {
            fine = false;
            context.report.at(
                text.at,
                Problem::error("InvalidScope", format!("`{}` {wrong}", text.value))
                    .value(text.value.clone())
                    .help("an agent manages resource groups: `/subscriptions/{guid}/resourceGroups/{name}`"),
            );
        } else if seen.insert(check::ScopeKey::new(&text.value)) {
            groups.push(text.clone());
        } else {
            context.report.at(
                text.at,
                Problem::warning("DuplicateResourceGroup", format!("`{}` stands here twice", text.value))
                    .value(text.value.clone())
                    .help("one of them can go"),
            );
        }
    }
    fine.then_some(groups)
}

/// Ids of roles, bare or as `{id}`.
fn roles(
    document: &Document<'_>,
    values: &[Value<'_>],
    context: &mut Context,
) -> Option<Vec<Spanned<String>>> {
    let mut roles = Vec::with_capacity(values.len());
    for &value in values {
        let id = if value.kind() == Kind::Object {
            let part = Document::part(value, document.origin, context)?;
            part.need_text(&["id", "roleDefinitionId"], context)
        } else {
            document.text_of(value, context)
        };
        roles.extend(id.map(ids::role));
    }
    (roles.len() == values.len()).then_some(roles)
}

fn actions(document: &Document<'_>, context: &mut Context) -> Option<Vec<Spanned<String>>> {
    let actions = document.texts(&["queryActions"], context)?;
    let mut fine = true;
    for action in &actions {
        if let Err(wrong) = Action::parse(&action.value) {
            fine = false;
            context.report.at(
                action.at,
                Problem::error("InvalidAction", format!("`{}` {wrong}", action.value))
                    .value(action.value.clone())
                    .help("wanted an operation such as `Microsoft.OperationalInsights/workspaces/search/action`"),
            );
        }
    }
    fine.then_some(actions)
}

// === all documents together ===

/// One agent an identity, and the roles that agents speak of.
pub(super) fn check(context: &mut Context) {
    let Context { lenience, report, documents, refused_roles, .. } = context;
    let known = Known::new(&documents.role_definitions, refused_roles, *lenience);
    let options = AgentOptions::default();
    let mut out = vec![false; documents.agents.len()];
    let mut by_principal: AHashMap<PrincipalId<'_>, &AgentDocument> = AHashMap::new();
    // Of each agent the privileged roles that nothing defines.
    let mut unknown: Vec<(usize, AHashSet<String>)> = Vec::new();
    for (index, (agent, out)) in documents.agents.iter().zip(&mut out).enumerate() {
        let principal = PrincipalId::new(&agent.principal_id.value);
        if let Some(first) = by_principal.get(&principal) {
            *out = true;
            if !same(first, agent) {
                report.against(
                    agent.principal_id.at,
                    first.principal_id.at,
                    Problem::error(
                        "DuplicateAgent",
                        format!(
                            "two agents have the identity `{}`, and they differ",
                            agent.principal_id.value
                        ),
                    )
                    .value(agent.principal_id.value.clone())
                    .help("keep one"),
                );
            }
            continue;
        }
        by_principal.insert(principal, agent);
        if let Some(role) = &agent.approver_role {
            known.role(role, "without it nobody can answer the prompts of the agent", report);
        }
        let mut missing = AHashSet::new();
        for role in agent.privileged_roles.iter().flatten() {
            if !known.role(role, "without it the level does not bring it", report) {
                missing.insert(role.value.clone());
            }
        }
        if !missing.is_empty() {
            unknown.push((index, missing));
        }
        if agent.managed_resource_groups.is_empty() {
            continue;
        }
        // Roles that the document names have been looked at.
        let mut level = agent.level.roles(&options);
        if agent.privileged_roles.is_some() {
            level = AgentLevel::Reader.roles(&options);
        }
        for role in level.iter().filter(|role| !known.has(&role.id)) {
            report.at(
                agent.at,
                Problem::warning(
                    "RoleDefinitionDoesNotExist",
                    format!(
                        "no document defines the role `{}` ({}), so the level of the agent does not bring it",
                        role.id, role.name
                    ),
                )
                .value(role.id.clone())
                .help("export the role definitions too, with `az role definition list`"),
            );
        }
    }
    for (index, missing) in unknown {
        if let Some(roles) = documents.agents.get_mut(index).and_then(|agent| agent.privileged_roles.as_mut())
        {
            roles.retain(|role| !missing.contains(&role.value));
        }
    }
    check::take_out(&mut documents.agents, &out);
}

fn same(one: &AgentDocument, other: &AgentDocument) -> bool {
    let text = |text: &Option<Spanned<String>>| text.as_ref().map(|text| text.value.to_ascii_lowercase());
    let texts = |list: &[Spanned<String>]| {
        let mut texts: Vec<_> =
            list.iter().map(|text| text.value.trim_end_matches('/').to_ascii_lowercase()).collect();
        texts.sort_unstable();
        texts
    };
    let list = |list: &Option<Vec<Spanned<String>>>| list.as_deref().map(texts);
    (one.level, one.mode, text(&one.id), text(&one.approver_role))
        == (other.level, other.mode, text(&other.id), text(&other.approver_role))
        && texts(&one.managed_resource_groups) == texts(&other.managed_resource_groups)
        && list(&one.privileged_roles) == list(&other.privileged_roles)
        && list(&one.query_actions) == list(&other.query_actions)
}
