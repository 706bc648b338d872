//! What only shows when all documents are seen together: ids that nothing defines, names given twice, a hierarchy
//! that contradicts itself. Documents that are the same twice are kept once; under [`Lenience::Lenient`] the
//! assignments that grant nothing are taken out, so that the compiler never sees them. What is only about schedules,
//! policies of PIM or agents is checked beside their readers.

use std::hash::{Hash, Hasher};

use ahash::{AHashMap, AHashSet};

use super::document::{Context, Document};
use super::report::Report;
use super::{Lenience, activation, agent, condition, ids, schedule};
use crate::model::{
    DenyAssignment, DenyEffect, ManagementGroup, PermissionBlock, PrincipalId, Problem, RoleAssignment,
    RoleDefinition, Scope, ScopeKind, Severity, SourceFile, Spanned, Subscription,
};

/// Checks everything that was read.
pub(super) fn check(context: &mut Context, sources: &[SourceFile]) {
    // Before anything is taken out: every place of a condition gets its message.
    condition::check(context, sources);
    roles(context);
    assignments(context);
    denies(context);
    schedule::check(context);
    activation::check(context);
    agent::check(context);
    hierarchy(context);
    unknown_hierarchy(context);
}

/// Takes out the elements whose flag is set.
pub(super) fn take_out<T>(list: &mut Vec<T>, out: &[bool]) {
    let mut flags = out.iter();
    list.retain(|_| !flags.next().copied().unwrap_or(false));
}

// === role definitions ===

fn roles(context: &mut Context) {
    let Context { report, documents, .. } = context;
    let mut out = vec![false; documents.role_definitions.len()];
    let mut by_id: AHashMap<&str, &RoleDefinition> = AHashMap::new();
    let mut by_name: AHashMap<String, &RoleDefinition> = AHashMap::new();
    for (role, out) in documents.role_definitions.iter().zip(&mut out) {
        if let Some(first) = by_id.get(role.id.value.as_str()) {
            if same_role(first, role) {
                *out = true;
            } else {
                report.against(
                    role.id.at,
                    first.id.at,
                    Problem::error(
                        "DuplicateRoleDefinition",
                        format!("the role `{}` is defined twice, and differently", role.id.value),
                    )
                    .value(role.id.value.clone())
                    .help("keep one"),
                );
            }
            continue;
        }
        by_id.insert(&role.id.value, role);
        check_role(role, report);
        let name = role.role_name.value.to_lowercase();
        if name.is_empty() {
            continue;
        }
        if let Some(first) = by_name.get(&name) {
            report.against(
                role.role_name.at,
                first.role_name.at,
                Problem::error(
                    "RoleDefinitionWithSameNameExists",
                    format!("two roles are called `{}`", role.role_name.value),
                )
                .value(role.role_name.value.clone())
                .help("display names are unique"),
            );
        } else {
            by_name.insert(name, role);
        }
    }
    take_out(&mut documents.role_definitions, &out);
}

fn check_role(role: &RoleDefinition, report: &mut Report) {
    for scope in &role.assignable_scopes {
        if let Some(wrong) = wrong_scope(&scope.value) {
            report.at(
                scope.at,
                Problem::error("InvalidAssignableScope", format!("`{}` {wrong}", scope.value))
                    .value(scope.value.clone()),
            );
        } else if role.custom && Scope::parse(&scope.value).is_ok_and(|scope| scope.kind() == ScopeKind::Root)
        {
            report.at(
                scope.at,
                Problem::warning(
                    "InvalidAssignableScope",
                    "a custom role cannot be assignable at the tenant root",
                )
                .value(scope.value.clone())
                .help("wanted a management group, a subscription or a resource group"),
            );
        }
    }
    if !role.custom {
        return;
    }
    if role.assignable_scopes.is_empty() {
        report.at(
            role.at,
            Problem::warning("InvalidAssignableScope", "a custom role names no assignable scope")
                .field("assignableScopes"),
        );
    }
    for action in role.permissions.iter().flat_map(PermissionBlock::lists).flat_map(|(_, list)| list) {
        if action.value.bytes().filter(|byte| *byte == b'*').nth(1).is_some() {
            report.at(
                action.at,
                Problem::warning(
                    "InvalidActionOrNotAction",
                    format!("`{}` contains multiple wildcards", action.value),
                )
                .value(action.value.clone())
                .help("it is matched, but Azure refuses to write such a role today"),
            );
        }
    }
}

fn same_role(one: &RoleDefinition, other: &RoleDefinition) -> bool {
    one.role_name.value == other.role_name.value
        && one.custom == other.custom
        && same_texts(&one.assignable_scopes, &other.assignable_scopes)
        && same_blocks(&one.permissions, &other.permissions)
}

fn same_blocks(one: &[PermissionBlock], other: &[PermissionBlock]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| {
            one.lists().iter().zip(other.lists()).all(|((_, one), (_, other))| same_texts(one, other))
                && condition::same(one.condition.as_ref(), other.condition.as_ref())
        })
}

fn same_texts(one: &[Spanned<String>], other: &[Spanned<String>]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| one.value.eq_ignore_ascii_case(&other.value))
}

// === role assignments ===

/// A scope as a key: letter case does not matter.
#[derive(PartialEq, Eq)]
pub(super) struct ScopeKey<'a>(Result<Scope<'a>, &'a str>);

impl<'a> ScopeKey<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self(Scope::parse(text).map_err(|_| text))
    }
}

impl Hash for ScopeKey<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_folded(self.0.as_ref().map_or_else(|text| *text, Scope::as_str), state);
    }
}

/// A name as a key.
#[derive(Clone, Copy)]
pub(super) struct Name<'a>(pub(super) &'a str);

impl PartialEq for Name<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(other.0)
    }
}

impl Eq for Name<'_> {}

impl Hash for Name<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        hash_folded(self.0, state);
    }
}

fn hash_folded<H: Hasher>(text: &str, state: &mut H) {
    let mut buffer = [0_u8; 64];
    for chunk in text.as_bytes().chunks(buffer.len()) {
        for (to, from) in buffer.iter_mut().zip(chunk) {
            *to = from.to_ascii_lowercase();
        }
        state.write(buffer.get(..chunk.len()).unwrap_or_default());
    }
    state.write_u8(0xFF);
}

/// The id of the role that a document gives or speaks of; what is wrong with it was reported.
pub(super) fn role_of(document: &Document<'_>, context: &mut Context) -> Option<Spanned<String>> {
    let role = ids::role(document.need_text(&["roleDefinitionId"], context)?);
    if role.value.trim().is_empty() {
        context.report.at(
            role.at,
            Problem::error("RoleDefinitionDoesNotExist", "the id of the role definition is empty"),
        );
        return None;
    }
    Some(role)
}

/// Names refer to each other by what is written: one with white space around it would miss, and an end with it.
pub(super) fn trimmed(name: &Spanned<String>, context: &mut Context) -> Option<()> {
    if name.value.trim() == name.value {
        return Some(());
    }
    context.report.at(
        name.at,
        Problem::error("InvalidName", format!("`{}` has white space around it", name.value))
            .value(name.value.clone())
            .help("take it away"),
    );
    None
}

/// What the documents define, and how bad it is to speak of something else (semantics, section 10, row 15).
pub(super) struct Known<'a> {
    roles: AHashSet<&'a str>,
    /// Roles that were refused, which has been told.
    refused: AHashSet<&'a str>,
    severity: Severity,
}

impl<'a> Known<'a> {
    pub(super) fn new(roles: &'a [RoleDefinition], refused: &'a [String], lenience: Lenience) -> Self {
        let severity = match lenience {
            Lenience::Strict => Severity::Error,
            Lenience::Lenient => Severity::Warning,
        };
        Self {
            roles: roles.iter().map(|role| role.id.value.as_str()).collect(),
            refused: refused.iter().map(String::as_str).collect(),
            severity,
        }
    }

    pub(super) fn has(&self, role: &str) -> bool {
        self.roles.contains(role)
    }

    /// Whether a scope is one; tells when not.
    pub(super) fn scope(&self, scope: &Spanned<String>, report: &mut Report) -> bool {
        let Some(wrong) = wrong_scope(&scope.value) else { return true };
        let problem =
            Problem::error("InvalidScope", format!("`{}` {wrong}", scope.value)).value(scope.value.clone());
        report.at(scope.at, Problem { severity: self.severity, ..problem });
        false
    }

    /// Whether a role is defined; tells when not, and what that means.
    pub(super) fn role(&self, role: &Spanned<String>, without: &str, report: &mut Report) -> bool {
        let id = role.value.as_str();
        if self.roles.contains(id) {
            return true;
        }
        if !self.refused.contains(id) {
            let problem =
                Problem::error("RoleDefinitionDoesNotExist", format!("no document defines the role `{id}`"))
                    .value(id)
                    .help(format!(
                        "export the role definitions too, with `az role definition list`; {without}"
                    ));
            report.at(role.at, Problem { severity: self.severity, ..problem });
        }
        false
    }
}

fn assignments(context: &mut Context) {
    let Context { lenience, report, documents, refused_roles, .. } = context;
    let known = Known::new(&documents.role_definitions, refused_roles, *lenience);
    let all = &documents.role_assignments;
    let mut out = vec![false; all.len()];
    let mut by_name: AHashMap<Name<'_>, &RoleAssignment> = AHashMap::with_capacity(all.len());
    let mut by_grant: AHashMap<(PrincipalId<'_>, &str, ScopeKey<'_>), &RoleAssignment> =
        AHashMap::with_capacity(all.len());
    for (assignment, out) in all.iter().zip(&mut out) {
        if let Some(first) = by_name.get(&Name(&assignment.name.value)) {
            *out = true;
            if !same_grant(first, assignment) {
                report.against(
                    assignment.name.at,
                    first.name.at,
                    Problem::error(
                        "RoleAssignmentUpdateNotPermitted",
                        format!(
                            "two role assignments are called `{}`, and their principal, role, scope or condition differ",
                            assignment.name.value
                        ),
                    )
                    .value(assignment.name.value.clone())
                    .help("names are unique in a tenant"),
                );
            }
            continue;
        }
        by_name.insert(Name(&assignment.name.value), assignment);
        *out |= !known.scope(&assignment.scope, report);
        *out |=
            !known.role(&assignment.role_definition_id, "without it the assignment grants nothing", report);
        if *out {
            continue;
        }
        let role = assignment.role_definition_id.value.as_str();
        let grant =
            (PrincipalId::new(&assignment.principal_id.value), role, ScopeKey::new(&assignment.scope.value));
        if let Some(first) = by_grant.get(&grant) {
            // Two conditions are alternatives (semantics, section 2.6).
            if !condition::same(first.condition.as_ref(), assignment.condition.as_ref()) {
                continue;
            }
            report.at(
                assignment.name.at,
                Problem::warning(
                    "RoleAssignmentExists",
                    format!(
                        "`{}` assigns what `{}` assigns already",
                        assignment.name.value, first.name.value
                    ),
                )
                .value(assignment.name.value.clone())
                .help("same principal, role and scope: one of them can go"),
            );
        } else {
            by_grant.insert(grant, assignment);
        }
    }
    take_out(&mut documents.role_assignments, &out);
}

fn same_grant(one: &RoleAssignment, other: &RoleAssignment) -> bool {
    same_place(
        (&one.principal_id, &one.role_definition_id, &one.scope),
        (&other.principal_id, &other.role_definition_id, &other.scope),
    ) && condition::same(one.condition.as_ref(), other.condition.as_ref())
}

/// Principal, role and scope, as they are written.
type Place<'a> = (&'a Spanned<String>, &'a Spanned<String>, &'a Spanned<String>);

/// Whether principal, role and scope are the same.
pub(super) fn same_place(one: Place<'_>, other: Place<'_>) -> bool {
    PrincipalId::new(&one.0.value) == PrincipalId::new(&other.0.value)
        && one.1.value == other.1.value
        && ScopeKey::new(&one.2.value) == ScopeKey::new(&other.2.value)
}

/// Why a text is no scope of a document, as the end of a sentence.
pub(super) fn wrong_scope(text: &str) -> Option<String> {
    if text.contains('*') {
        return Some("holds a wildcard: a scope names one place and everything below it".to_owned());
    }
    Scope::parse(text).err().map(|error| error.to_string())
}

// === deny assignments ===

fn denies(context: &mut Context) {
    let Context { report, documents, .. } = context;
    let mut out = vec![false; documents.deny_assignments.len()];
    let mut by_name: AHashMap<Name<'_>, &DenyAssignment> = AHashMap::new();
    for (deny, out) in documents.deny_assignments.iter().zip(&mut out) {
        // Leaving out a deny would grant: no leniency here.
        if let Some(wrong) = wrong_scope(&deny.scope.value) {
            report.at(
                deny.scope.at,
                Problem::error("InvalidScope", format!("`{}` {wrong}", deny.scope.value))
                    .value(deny.scope.value.clone()),
            );
        }
        let Some(first) = by_name.get(&Name(&deny.name.value)) else {
            by_name.insert(Name(&deny.name.value), deny);
            continue;
        };
        if same_deny(first, deny) {
            *out = true;
            continue;
        }
        report.against(
            deny.name.at,
            first.name.at,
            Problem::error(
                "DuplicateDenyAssignment",
                format!("two deny assignments are called `{}`, and they differ", deny.name.value),
            )
            .value(deny.name.value.clone())
            .help("keep one"),
        );
    }
    take_out(&mut documents.deny_assignments, &out);
}

fn same_deny(one: &DenyAssignment, other: &DenyAssignment) -> bool {
    ScopeKey::new(&one.scope.value) == ScopeKey::new(&other.scope.value)
        && one.do_not_apply_to_child_scopes == other.do_not_apply_to_child_scopes
        && one.effect == other.effect
        && same_texts(&one.principals, &other.principals)
        && same_texts(&one.exclude_principals, &other.exclude_principals)
        && same_blocks(&one.permissions, &other.permissions)
        && condition::same(one.condition.as_ref(), other.condition.as_ref())
}

// === hierarchy ===

/// Each management group and subscription has one parent; the same statement twice is kept once.
fn hierarchy(context: &mut Context) {
    let Context { report, documents, .. } = context;
    let mut conflict =
        |what: &str, name: &Spanned<String>, parent: &Spanned<String>, first: &Spanned<String>| {
            report.against(
                parent.at,
                first.at,
                Problem::error(
                    "ConflictingParent",
                    format!(
                        "the {what} `{}` hangs below `{}` here and below `{}` elsewhere",
                        name.value, parent.value, first.value
                    ),
                )
                .value(parent.value.clone())
                .help("there is one parent"),
            );
        };

    let mut kept: Vec<ManagementGroup> = Vec::new();
    let mut by_name: AHashMap<String, usize> = AHashMap::new();
    for group in std::mem::take(&mut documents.management_groups) {
        let key = group.name.value.to_ascii_lowercase();
        let Some(first) = by_name.get(&key).and_then(|index| kept.get_mut(*index)) else {
            by_name.insert(key, kept.len());
            kept.push(group);
            continue;
        };
        match (&first.parent, &group.parent) {
            (None, Some(_)) => *first = group,
            (Some(one), Some(other)) if !one.value.eq_ignore_ascii_case(&other.value) => {
                conflict("management group", &group.name, other, one);
            }
            _ => {}
        }
    }
    documents.management_groups = kept;

    let mut kept: Vec<Subscription> = Vec::new();
    let mut by_name: AHashMap<String, usize> = AHashMap::new();
    for subscription in std::mem::take(&mut documents.subscriptions) {
        let key = subscription.id.value.to_ascii_lowercase();
        let Some(first) = by_name.get(&key).and_then(|index| kept.get(*index)) else {
            by_name.insert(key, kept.len());
            kept.push(subscription);
            continue;
        };
        if !first.parent.value.eq_ignore_ascii_case(&subscription.parent.value) {
            conflict("subscription", &subscription.id, &subscription.parent, &first.parent);
        }
    }
    documents.subscriptions = kept;

    cycles(&documents.management_groups, report);
}

/// Reports every cycle once, at the group of it that comes first.
fn cycles(groups: &[ManagementGroup], report: &mut Report) {
    let index: AHashMap<String, usize> = groups
        .iter()
        .enumerate()
        .map(|(index, group)| (group.name.value.to_ascii_lowercase(), index))
        .collect();
    let parent = |at: usize| {
        let parent = groups.get(at)?.parent.as_ref()?;
        index.get(&parent.value.to_ascii_lowercase()).copied()
    };
    const SHOWN: usize = 10;
    // In which walk a group was met; each is walked over once.
    let mut met: Vec<Option<usize>> = vec![None; groups.len()];
    for walk in 0..groups.len() {
        let mut current = Some(walk);
        while let Some(at) = current {
            match met.get(at) {
                Some(Some(other)) if *other == walk => {
                    let mut names = Vec::new();
                    let mut next = Some(at);
                    while let Some(group) = next.and_then(|next| groups.get(next)) {
                        if names.len() == SHOWN {
                            names.push("…".to_owned());
                            break;
                        }
                        names.push(format!("`{}`", group.name.value));
                        next = next.and_then(parent).filter(|next| *next != at);
                    }
                    if let Some(group) = groups.get(at) {
                        report.at(
                            group.parent.as_ref().map_or(group.name.at, |parent| parent.at),
                            Problem::error(
                                "HierarchyCycle",
                                format!("management groups hang in a circle: {}", names.join(" below ")),
                            )
                            .value(group.name.value.clone())
                            .help("the chain of parents ends at the tenant root management group"),
                        );
                    }
                    break;
                }
                Some(Some(_)) | None => break,
                Some(None) => {}
            }
            if let Some(met) = met.get_mut(at) {
                *met = Some(walk);
            }
            current = parent(at);
        }
    }
}

/// A deny at a management group reaches subscriptions below it; whether one of them lies there must be known, or
/// requests in it get no decision.
fn unknown_hierarchy(context: &mut Context) {
    let Context { report, documents, .. } = context;
    let known: AHashSet<Name<'_>> =
        documents.subscriptions.iter().map(|subscription| Name(&subscription.id.value)).collect();
    let deny_scopes = documents.deny_assignments.iter().map(|deny| &deny.scope);
    let scheduled = documents.schedules.iter().map(|schedule| &schedule.scope);
    let assigned = documents.role_assignments.iter().map(|assignment| &assignment.scope);
    let scopes = assigned.chain(scheduled).chain(deny_scopes);
    let mut unknown: AHashSet<Name<'_>> = AHashSet::new();
    let mut example = None;
    for subscription in scopes.filter_map(|scope| Scope::parse(&scope.value).ok()?.subscription()) {
        if !known.contains(&Name(subscription)) && unknown.insert(Name(subscription)) && example.is_none() {
            example = Some(subscription);
        }
    }
    let Some(example) = example else { return };
    for deny in &documents.deny_assignments {
        let inherited = deny.effect == DenyEffect::Enforced && !deny.do_not_apply_to_child_scopes;
        let at_group = Scope::parse(&deny.scope.value).is_ok_and(|s| s.kind() == ScopeKind::ManagementGroup);
        if !inherited || !at_group {
            continue;
        }
        let others = match unknown.len() {
            0 | 1 => String::new(),
            more => format!(" (and {} more)", more.saturating_sub(1)),
        };
        report.at(
            deny.scope.at,
            Problem::warning(
                "UnknownHierarchy",
                format!(
                    "the deny assignment stands at a management group, and the policy does not say where the \
                     subscription `{example}`{others} hangs"
                ),
            )
            .value(deny.scope.value.clone())
            .help(
                "requests there get no decision: add `az account management-group show --name ROOT --expand \
                 --recurse` to the policy",
            ),
        );
    }
}
