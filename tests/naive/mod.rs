//! A deliberately naive evaluator, written straight from section 2.5 of the semantics with strings and loops.
//!
//! It is the second implementation that the engine is held against, so it shares nothing with it: its own action
//! matcher, its own scope grammar and applies-to rule, its own groups and hierarchy. It reads the plain document
//! structs and looks at everything for every question. Nobody cares how slow it is.

use postern::model::{DenyAssignment, DenyEffect, Documents, PermissionBlock, Spanned};

/// A question, as it would come over the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) principal: &'a str,
    pub(crate) groups: &'a [String],
    pub(crate) action: &'a str,
    pub(crate) data_action: bool,
    pub(crate) resource: &'a str,
    pub(crate) strict_wildcards: bool,
}

/// What comes of it. Names are the names of the documents, in the letter case they have there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The resource is no scope.
    InvalidResource,
    /// Row 37 of section 9.
    UnknownHierarchy,
    Decided {
        verdict: Verdict,
        /// Names of the audit denies that hit, sorted.
        audited: Vec<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The reported assignment.
    Allowed(String),
    /// No assignment applies at all.
    NothingAssigned,
    /// Assignments apply, none has the action.
    ActionNotGranted,
    /// The reported deny assignment.
    Denied(String),
}

/// Section 2.5.
pub(crate) fn check(documents: &Documents, question: &Question<'_>) -> Answer {
    if !is_scope(question.resource) {
        return Answer::InvalidResource;
    }
    let target = normal(question.resource);
    if hierarchy_is_missing(documents, &target) {
        return Answer::UnknownHierarchy;
    }
    let ids = effective_ids(documents, question);

    let mut audited = Vec::new();
    let mut denied: Option<(String, String)> = None;
    for deny in &documents.deny_assignments {
        if !hits(documents, deny, &ids, &target, question) {
            continue;
        }
        match deny.effect {
            DenyEffect::Audit => audited.push(deny.name.value.clone()),
            DenyEffect::Enforced => {
                report(documents, &mut denied, &deny.scope.value, &deny.name.value);
            }
        }
    }
    audited.sort();
    if let Some((_, name)) = denied {
        return Answer::Decided { verdict: Verdict::Denied(name), audited };
    }

    let mut candidates = 0;
    let mut granted: Option<(String, String)> = None;
    for assignment in &documents.role_assignments {
        let role_id = id_key(&assignment.role_definition_id.value);
        let Some(role) = documents.role_definitions.iter().find(|role| id_key(&role.id.value) == role_id)
        else {
            continue;
        };
        let scope = &assignment.scope.value;
        if !ids.contains(&id_key(&assignment.principal_id.value)) || !applies(documents, scope, &target) {
            continue;
        }
        candidates += 1;
        if role.permissions.iter().any(|block| block_matches(block, question)) {
            report(documents, &mut granted, scope, &assignment.name.value);
        }
    }
    let verdict = match granted {
        Some((_, name)) => Verdict::Allowed(name),
        None if candidates == 0 => Verdict::NothingAssigned,
        None => Verdict::ActionNotGranted,
    };
    Answer::Decided { verdict, audited }
}

/// Keeps the one to report: the most specific scope, then the smallest name. One scope is more specific than
/// another when the other applies to it; what applies to one target is always a chain. Names that are GUIDs come
/// first, in their order.
fn report(documents: &Documents, best: &mut Option<(String, String)>, scope: &str, name: &str) {
    let better = match best {
        None => true,
        Some((best_scope, best_name)) => {
            if normal(best_scope) == normal(scope) {
                id_key(name) < id_key(best_name)
            } else {
                applies(documents, best_scope, &normal(scope))
            }
        }
    };
    if better {
        *best = Some((scope.to_owned(), name.to_owned()));
    }
}

// === section 2.1 ===

/// Rule 5 as section 10, row 1 settles it: the pattern is tried with every subset of its `/*/` replaced.
pub(crate) fn action_matches(pattern: &str, action: &str, strict_wildcards: bool) -> bool {
    let (pattern, action) = (pattern.to_ascii_lowercase(), action.to_ascii_lowercase());
    if strict_wildcards {
        return glob(pattern.as_bytes(), action.as_bytes());
    }
    // Non-overlapping, from the left.
    let mut parts = vec![String::new()];
    let mut rest = pattern.as_str();
    while let Some(first) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("/*/") {
            parts.push(String::new());
            rest = behind;
        } else {
            parts.last_mut().unwrap().push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    let found = parts.len() - 1;
    (0_u64..1 << found).any(|subset| {
        let mut tried = parts[0].clone();
        for (number, part) in parts[1..].iter().enumerate() {
            tried.push_str(if subset >> number & 1 == 1 { "/" } else { "/*/" });
            tried.push_str(part);
        }
        glob(tried.as_bytes(), action.as_bytes())
    })
}

/// `*` is any run, everything else itself.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => (0..=text.len()).any(|skipped| glob(rest, &text[skipped..])),
        Some((literal, rest)) => text.first() == Some(literal) && glob(rest, &text[1..]),
    }
}

// === sections 2.2 and 2.3 ===

fn block_matches(block: &PermissionBlock, question: &Question<'_>) -> bool {
    let (include, exclude) = if question.data_action {
        (&block.data_actions, &block.not_data_actions)
    } else {
        (&block.actions, &block.not_actions)
    };
    let any = |list: &[Spanned<String>]| {
        list.iter().any(|pattern| action_matches(&pattern.value, question.action, question.strict_wildcards))
    };
    any(include) && !any(exclude)
}

// === section 2.4 ===

fn hits(
    documents: &Documents,
    deny: &DenyAssignment,
    ids: &[String],
    target: &str,
    question: &Question<'_>,
) -> bool {
    let here = if deny.do_not_apply_to_child_scopes {
        is_scope(&deny.scope.value) && normal(&deny.scope.value) == target
    } else {
        applies(documents, &deny.scope.value, target)
    };
    let everyone = id_key("00000000-0000-0000-0000-000000000000");
    let named = deny
        .principals
        .iter()
        .any(|principal| id_key(&principal.value) == everyone || ids.contains(&id_key(&principal.value)));
    let excluded = deny.exclude_principals.iter().any(|principal| ids.contains(&id_key(&principal.value)));
    here && named && !excluded && deny.permissions.iter().any(|block| block_matches(block, question))
}

/// Section 9, row 37: an enforced deny at a management group that may lie above the target, for all that is known.
///
/// The way up from the target is known as far as the documents say what hangs in what. It is known to its top when it
/// ends in a group that has a document of its own without a parent. Else whatever is not on the known part may be on
/// the rest.
fn hierarchy_is_missing(documents: &Documents, target: &str) -> bool {
    let mut way = Vec::new();
    let mut next = if let Some(subscription) = holding_subscription(target) {
        parent_of_subscription(documents, &subscription)
    } else if let Some(group) = holding_management_group(target) {
        Some(group)
    } else {
        return false;
    };
    let mut to_the_top = false;
    while let Some(group) = next {
        let group = group.to_ascii_lowercase();
        let of_its_own: Vec<_> = documents
            .management_groups
            .iter()
            .filter(|entry| entry.name.value.to_ascii_lowercase() == group)
            .collect();
        next = of_its_own.iter().find_map(|entry| entry.parent.as_ref().map(|parent| parent.value.clone()));
        to_the_top = !of_its_own.is_empty() && next.is_none();
        way.push(group);
    }
    !to_the_top
        && documents.deny_assignments.iter().any(|deny| {
            deny.effect == DenyEffect::Enforced
                && !deny.do_not_apply_to_child_scopes
                && management_group_itself(&normal(&deny.scope.value))
                    .is_some_and(|group| !way.contains(&group.to_ascii_lowercase()))
        })
}

// === section 1.5 ===

/// One spelling for every spelling of a GUID; any other id is itself.
fn id_key(text: &str) -> String {
    let mut inner = text;
    if let Some(stripped) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        inner = stripped;
    }
    let lengths: Vec<usize> = inner.split('-').map(str::len).collect();
    let digits: String = inner.chars().filter(|&c| c != '-').collect();
    let shaped = lengths == [8, 4, 4, 4, 12] || lengths == [32];
    if shaped && digits.chars().all(|c| c.is_ascii_hexdigit()) {
        format!("guid {}", digits.to_ascii_lowercase())
    } else {
        format!("text {text}")
    }
}

/// The caller, the asserted groups, and every group that contains one of them, until nothing is added.
fn effective_ids(documents: &Documents, question: &Question<'_>) -> Vec<String> {
    let mut ids = vec![id_key(question.principal)];
    ids.extend(question.groups.iter().map(|group| id_key(group)));
    loop {
        let before = ids.len();
        for group in &documents.groups {
            let key = id_key(&group.id.value);
            let contains_one = group.members.iter().any(|member| ids.contains(&id_key(&member.value)));
            if contains_one && !ids.contains(&key) {
                ids.push(key);
            }
        }
        if ids.len() == before {
            return ids;
        }
    }
}

// === section 1.6 ===

const MANAGEMENT_GROUPS: &str = "/providers/microsoft.management/managementgroups/";
const ALIAS: &str = "/providers/microsoft.subscription/subscriptions/";

/// Lower case, no trailing slashes, no alias.
fn normal(scope: &str) -> String {
    let mut text = scope.to_ascii_lowercase();
    while text.len() > 1 && text.ends_with('/') {
        text.pop();
    }
    match text.strip_prefix(ALIAS) {
        Some(rest) => format!("/subscriptions/{rest}"),
        None => text,
    }
}

/// The grammar.
pub(crate) fn is_scope(given: &str) -> bool {
    if !given.starts_with('/') || given.len() > 2048 || given.chars().any(|c| c.is_ascii_control()) {
        return false;
    }
    let text = normal(given);
    if text == "/" {
        return true;
    }
    let segments: Vec<&str> = text[1..].split('/').collect();
    if segments.iter().any(|segment| segment.is_empty()) {
        return false;
    }
    let resource = |rest: &[&str]| rest.len() >= 4 && rest[0] == "providers";
    match segments[0] {
        "subscriptions" => {
            let guid =
                segments.len() > 1 && segments[1].len() == 36 && id_key(segments[1]).starts_with("guid");
            let rest = segments.get(2..).unwrap_or_default();
            let in_group = rest.len() >= 2 && rest[0] == "resourcegroups";
            guid && (rest.is_empty()
                || resource(rest)
                || in_group && (rest.len() == 2 || resource(&rest[2..])))
        }
        "providers" => {
            let group = text.starts_with(MANAGEMENT_GROUPS);
            match segments.len() {
                1 | 3 => false,
                2 | 4 => true,
                _ => !group || resource(&segments[4..]),
            }
        }
        _ => false,
    }
}

/// The applies-to rule. The target is normal already.
fn applies(documents: &Documents, scope: &str, target: &str) -> bool {
    if !is_scope(scope) {
        return false;
    }
    let scope = normal(scope);
    if scope == "/" || target == scope || target.starts_with(&format!("{scope}/")) {
        return true;
    }
    let Some(group) = management_group_itself(&scope) else {
        return false;
    };
    // Walk up from whatever holds the target.
    let mut at = match holding_subscription(target) {
        Some(subscription) => parent_of_subscription(documents, &subscription),
        None => holding_management_group(target),
    };
    let mut seen = Vec::new();
    while let Some(name) = at {
        if name == group {
            return true;
        }
        if seen.contains(&name) {
            return false;
        }
        at = parent_of_group(documents, &name);
        seen.push(name);
    }
    false
}

fn management_group_itself(normal: &str) -> Option<&str> {
    normal.strip_prefix(MANAGEMENT_GROUPS).filter(|name| !name.contains('/'))
}

fn holding_management_group(normal: &str) -> Option<String> {
    normal.strip_prefix(MANAGEMENT_GROUPS).and_then(|rest| rest.split('/').next()).map(str::to_owned)
}

fn holding_subscription(normal: &str) -> Option<String> {
    normal.strip_prefix("/subscriptions/").and_then(|rest| rest.split('/').next()).map(str::to_owned)
}

fn parent_of_subscription(documents: &Documents, subscription: &str) -> Option<String> {
    let entry =
        documents.subscriptions.iter().find(|entry| id_key(&entry.id.value) == id_key(subscription))?;
    Some(entry.parent.value.to_ascii_lowercase())
}

fn parent_of_group(documents: &Documents, group: &str) -> Option<String> {
    documents
        .management_groups
        .iter()
        .filter(|entry| entry.name.value.eq_ignore_ascii_case(group))
        .find_map(|entry| entry.parent.as_ref().map(|parent| parent.value.to_ascii_lowercase()))
}
