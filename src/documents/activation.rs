//! What activating a role takes: `roleManagementPolicyAssignments`, the `roleManagementPolicies` that they name, and
//! our own short form (semantics, section 5.3). A rule that is read wrong would ask for less than was meant, so
//! nothing here is lenient.

use ahash::{AHashMap, AHashSet};

use super::check::{self, Known, Name, ScopeKey};
use super::document::{Context, Document, wrong_type};
use super::ids;
use super::near;
use super::tree::{Kind, Value};
use crate::model::{ActivationPolicy, ActivationRequirements, At, Problem, Spanned};
use crate::pim::{IsoDuration, PolicyRules};

/// What is put together when all documents are there.
#[derive(Debug, Default)]
pub(super) struct Joins {
    policies: Vec<Policy>,
    /// Assignments that name the policy whose rules they have.
    assignments: Vec<Assignment>,
    /// Names of the policies that an assignment speaks of.
    named: Vec<String>,
    /// Policies that were refused: told once, not again for every assignment.
    refused: Vec<String>,
}

#[derive(Debug)]
struct Policy {
    name: Spanned<String>,
    at: At,
    requirements: ActivationRequirements,
}

#[derive(Debug)]
struct Assignment {
    at: At,
    scope: Spanned<String>,
    role_definition_id: Spanned<String>,
    policy: Spanned<String>,
}

// === reading ===

/// Reads the policy of a role at a scope.
pub(super) fn read_assignment(document: &Document<'_>, context: &mut Context) {
    context.report.document(document.top);
    document.refuse_near_misses(&["scope", "roleDefinitionId", "policyId", "effectiveRules"], context);
    let scope = scope(document, context);
    let role = check::role_of(document, context);
    let policy = document.optional_text(&["policyId"], context);
    if let Ok(Some(policy)) = &policy {
        context.joins.named.push(ids::last_segment(&policy.value).to_owned());
    }
    if let Some(rules) = document.find(&["effectiveRules"], context) {
        let requirements = rules_of(document, rules, context);
        if let (Some(scope), Some(role_definition_id), Some(requirements)) = (scope, role, requirements) {
            let at = document.top.at();
            context.documents.activation_policies.push(ActivationPolicy {
                at,
                scope,
                role_definition_id,
                requirements,
            });
        }
        return;
    }
    match policy {
        Ok(Some(policy)) => {
            if let (Some(scope), Some(role_definition_id)) = (scope, role) {
                let policy = Spanned::new(ids::last_segment(&policy.value).to_owned(), policy.at);
                let at = document.top.at();
                context.joins.assignments.push(Assignment { at, scope, role_definition_id, policy });
            }
        }
        Ok(None) => document.missing(&["effectiveRules"], context),
        Err(()) => {}
    }
}

/// `scope`, or what the id says.
fn scope(document: &Document<'_>, context: &mut Context) -> Option<Spanned<String>> {
    if let Some(value) = document.find(&["scope"], context) {
        return document.text_of(value, context);
    }
    if let Some(value) = document.find(&["id"], context) {
        let id = document.text_of(value, context)?;
        if let Some(parts) = ids::split(&id.value, "roleManagementPolicyAssignments") {
            return Some(Spanned::new(parts.scope.to_owned(), id.at));
        }
    }
    document.missing(&["scope"], context);
    None
}

/// Reads rules that an assignment gives to a role.
pub(super) fn read_policy(document: &Document<'_>, context: &mut Context) {
    context.report.document(document.top);
    document.refuse_near_misses(&["rules", "effectiveRules"], context);
    let name = match document.find(&["name"], context) {
        Some(name) => document.text_of(name, context),
        None => match document.find(&["id"], context) {
            Some(id) => document.text_of(id, context),
            None => {
                document.missing(&["name"], context);
                None
            }
        },
    };
    let rules =
        match document.find(&["effectiveRules"], context).or_else(|| document.find(&["rules"], context)) {
            Some(rules) => rules_of(document, rules, context),
            None => {
                document.missing(&["rules"], context);
                None
            }
        };
    let Some(name) = name.map(|name| Spanned::new(ids::last_segment(&name.value).to_owned(), name.at)) else {
        return;
    };
    match rules {
        Some(requirements) => {
            context.joins.policies.push(Policy { name, at: document.top.at(), requirements });
        }
        None => context.joins.refused.push(name.value),
    }
}

/// The rules of a list, with what is wrong in it at its place.
fn rules_of(
    document: &Document<'_>,
    rules: Value<'_>,
    context: &mut Context,
) -> Option<ActivationRequirements> {
    if rules.kind() != Kind::Array {
        document.list_of(rules, context);
        return None;
    }
    match PolicyRules::from_json(&json(rules)) {
        Ok(read) => {
            let activation = read.activation;
            Some(ActivationRequirements {
                maximum_duration: activation.max_duration.map(|duration| duration.to_string()),
                mfa: activation.mfa,
                justification: activation.justification,
                ticket: activation.ticketing,
                authentication_context: activation.authentication_context,
                approval: activation.approval.is_some(),
                approvers: activation.approval.map(|approval| approval.approvers).unwrap_or_default(),
            })
        }
        Err(errors) => {
            for error in errors {
                let (place, missing) = below(rules, &error.field);
                let problem = Problem::error("InvalidPolicyRule", error.message).field(missing);
                context.report.value(place, problem);
            }
            None
        }
    }
}

/// Follows a path such as `rules[2].setting.x` as far as it goes, and gives what is left of it.
fn below<'t, 'p>(rules: Value<'t>, path: &'p str) -> (Value<'t>, &'p str) {
    let mut value = rules;
    let mut rest = path.strip_prefix("rules").unwrap_or(path);
    loop {
        let next = if let Some(behind) = rest.strip_prefix('[') {
            behind
                .split_once(']')
                .and_then(|(index, behind)| Some((value.elements().nth(index.parse().ok()?)?, behind)))
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let end = name.find(['.', '[']).unwrap_or(name.len());
            name.split_at_checked(end).and_then(|(name, behind)| Some((value.property(name)?, behind)))
        };
        match next {
            Some((inner, behind)) if !rest.is_empty() => (value, rest) = (inner, behind),
            _ => return (value, rest.strip_prefix('.').unwrap_or(rest)),
        }
    }
}

/// A value for a reader that wants JSON. Trees are no deeper than the parsers let them be.
fn json(value: Value<'_>) -> serde_json::Value {
    match value.kind() {
        Kind::Null => serde_json::Value::Null,
        Kind::True => true.into(),
        Kind::False => false.into(),
        Kind::Number => {
            let shown = value.shown().unwrap_or_default();
            serde_json::from_str(shown).unwrap_or_else(|_| shown.into())
        }
        Kind::String => value.as_str().unwrap_or_default().into(),
        Kind::Array => value.elements().map(json).collect(),
        Kind::Object => value.entries().map(|entry| (entry.name.to_owned(), json(entry.value))).collect(),
    }
}

/// Properties of our own form.
const OWN: [&str; 9] = [
    "scope",
    "roleDefinitionId",
    "maximumDuration",
    "mfa",
    "justification",
    "ticket",
    "authenticationContext",
    "approval",
    "approvers",
];

/// Those beside them that decide nothing.
const NOTES: [&str; 4] = ["name", "displayName", "description", "comment"];

/// Reads our own form.
pub(super) fn read_own(document: &Document<'_>, context: &mut Context) {
    context.report.document(document.top);
    for entry in document.entries() {
        let known = |names: &[&str]| names.iter().any(|name| entry.name.eq_ignore_ascii_case(name));
        if known(&OWN) || known(&NOTES) || entry.name.starts_with(['$', '_', '@']) {
            continue;
        }
        let problem = Problem::error(
            "UnknownProperty",
            format!("`{}` is no property of an activation policy", entry.name),
        )
        .value(entry.name);
        let help = match OWN.iter().find(|name| near::is_near(entry.name, name)) {
            Some(meant) => format!("was `{meant}` meant?"),
            None => {
                let names: Vec<_> = OWN.iter().map(|name| format!("`{name}`")).collect();
                format!("wanted {}", names.join(", "))
            }
        };
        context.report.at(entry.key.at(), problem.help(help));
    }
    let scope = document.need_text(&["scope"], context);
    let role = check::role_of(document, context);
    let requirements = own(document, context);
    if let (Some(scope), Some(role_definition_id), Some(requirements)) = (scope, role, requirements) {
        let at = document.top.at();
        context.documents.activation_policies.push(ActivationPolicy {
            at,
            scope,
            role_definition_id,
            requirements,
        });
    }
}

fn own(document: &Document<'_>, context: &mut Context) -> Option<ActivationRequirements> {
    let duration = document.optional_text(&["maximumDuration"], context);
    let duration = duration.and_then(|duration| match duration {
        None => Ok(None),
        Some(text) => match IsoDuration::parse(&text.value) {
            Ok(duration) => Ok(Some(duration.to_string())),
            Err(error) => {
                context.report.at(
                    text.at,
                    Problem::error("InvalidPolicyRule", error.to_string()).value(text.value.clone()),
                );
                Err(())
            }
        },
    });
    let mut flag = |name: &str| document.flag(&[name], context);
    let (mfa, justification, ticket) = (flag("mfa"), flag("justification"), flag("ticket"));
    let approval = flag("approval");
    let authentication_context = document.optional_text(&["authenticationContext"], context);
    let approvers = approvers(document, context);
    let named = approvers.as_ref().is_some_and(|approvers| !approvers.is_empty());
    if approval == Some(true) && approvers.is_some() && !named {
        context.report.at(
            document.body().at(),
            Problem::error(
                "MissingProperty",
                "`approvers` is missing: approval is asked for, and nobody is named who could give it",
            )
            .field("approvers"),
        );
        return None;
    }
    let off = document.has("approval") && approval == Some(false) && named;
    if off {
        context.report.at(
            document.body().at(),
            Problem::error("InvalidPolicyRule", "approvers are named, and `approval` is false")
                .field("approval")
                .help("take one of them out"),
        );
        return None;
    }
    Some(ActivationRequirements {
        maximum_duration: duration.ok()?,
        mfa: mfa?,
        justification: justification?,
        ticket: ticket?,
        authentication_context: authentication_context.ok()?.map(|context| context.value),
        approval: approval? || named,
        approvers: approvers?,
    })
}

/// Object ids, bare or as `{id}`.
fn approvers(document: &Document<'_>, context: &mut Context) -> Option<Vec<String>> {
    let values = document.list(&["approvers"], context)?;
    let wanted = values.len();
    let mut ids = Vec::with_capacity(wanted);
    for value in values {
        let id = match value.kind() {
            Kind::String => Some((*document, value)),
            Kind::Object => {
                let part = Document::part(value, document.origin, context)?;
                let id = part.find(&["id", "objectId"], context);
                if id.is_none() {
                    part.missing(&["id"], context);
                }
                id.map(|id| (part, id))
            }
            _ => {
                wrong_type(value, "a string", context);
                None
            }
        };
        ids.extend(id.and_then(|(holder, id)| holder.principal_of(id, context)).map(|id| id.value));
    }
    (ids.len() == wanted).then_some(ids)
}

// === all documents together ===

/// Joins assignments and policies, and looks at all of them.
pub(super) fn check(context: &mut Context) {
    let Context { lenience, report, documents, refused_roles, joins, .. } = context;
    let mut policies: AHashMap<Name<'_>, &Policy> = AHashMap::new();
    let named: AHashSet<Name<'_>> = joins.named.iter().map(|name| Name(name)).collect();
    let refused: AHashSet<Name<'_>> = joins.refused.iter().map(|name| Name(name)).collect();
    for policy in &joins.policies {
        let name = Name(&policy.name.value);
        match policies.get(&name) {
            None => {
                if !named.contains(&name) {
                    report.at(
                        policy.at,
                        Problem::warning(
                            "PolicyNotAssigned",
                            format!("nothing says for which role the policy `{}` is", policy.name.value),
                        )
                        .value(policy.name.value.clone())
                        .help("it asks for nothing; export the `roleManagementPolicyAssignments` too"),
                    );
                }
                policies.insert(name, policy);
            }
            Some(first) if !same(&first.requirements, &policy.requirements) => report.against(
                policy.name.at,
                first.name.at,
                Problem::error(
                    "DuplicatePolicy",
                    format!("two policies are called `{}`, and they differ", policy.name.value),
                )
                .value(policy.name.value.clone())
                .help("keep one"),
            ),
            Some(_) => {}
        }
    }
    for assignment in &joins.assignments {
        let name = Name(&assignment.policy.value);
        if let Some(policy) = policies.get(&name) {
            documents.activation_policies.push(ActivationPolicy {
                at: assignment.at,
                scope: assignment.scope.clone(),
                role_definition_id: assignment.role_definition_id.clone(),
                requirements: policy.requirements.clone(),
            });
        } else if !refused.contains(&name) {
            // Without it, an activation would be asked for nothing.
            report.at(
                assignment.policy.at,
                Problem::error(
                    "PolicyDoesNotExist",
                    format!("no document holds the policy `{}`", assignment.policy.value),
                )
                .value(assignment.policy.value.clone())
                .help("export the `roleManagementPolicies` too, or the assignment with its `effectiveRules`"),
            );
        }
    }

    let known = Known::new(&documents.role_definitions, refused_roles, *lenience);
    let all = &documents.activation_policies;
    let mut out = vec![false; all.len()];
    let mut by_place: AHashMap<(&str, ScopeKey<'_>), &ActivationPolicy> = AHashMap::with_capacity(all.len());
    for (policy, out) in all.iter().zip(&mut out) {
        let key = (policy.role_definition_id.value.as_str(), ScopeKey::new(&policy.scope.value));
        if let Some(first) = by_place.get(&key) {
            *out = true;
            if !same(&first.requirements, &policy.requirements) {
                report.against(
                    policy.at,
                    first.at,
                    Problem::error(
                        "ContradictoryPolicy",
                        format!(
                            "two activation policies for the role `{}` at `{}` differ",
                            policy.role_definition_id.value, policy.scope.value
                        ),
                    )
                    .help("there is one policy for a role at a scope: keep one"),
                );
            }
            continue;
        }
        by_place.insert(key, policy);
        *out |= !known.scope(&policy.scope, report);
        *out |= !known.role(&policy.role_definition_id, "without it the policy is for nothing", report);
    }
    check::take_out(&mut documents.activation_policies, &out);
}

fn same(one: &ActivationRequirements, other: &ActivationRequirements) -> bool {
    let sorted = |requirements: &ActivationRequirements| {
        let mut requirements = requirements.clone();
        requirements.approvers.iter_mut().for_each(|approver| approver.make_ascii_lowercase());
        requirements.approvers.sort_unstable();
        requirements
    };
    sorted(one) == sorted(other)
}
