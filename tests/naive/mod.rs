//! A deliberately naive evaluator, written straight from section 2.5 of the semantics with strings and loops.
//!
//! It is the second implementation that the engine is held against, so it shares nothing with it: its own action
//! matcher, its own scope grammar and applies-to rule, its own groups and hierarchy, its own condition language
//! ([`condition`]), its own windows. It reads the plain document structs and looks at everything for every question.
//! Until when an answer holds is found by asking again at every moment that is mentioned anywhere. Nobody cares how
//! slow it is.

pub(crate) mod condition;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use postern::model::{
    ConditionText, DenyAssignment, DenyEffect, Documents, PermissionBlock, RoleDefinition, Schedule,
    ScheduleKind, Spanned,
};
use serde_json::Value;

use self::condition::{Facts, Parsed, Tree, Truth};

/// A question, as it would come over the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'a> {
    pub(crate) principal: &'a str,
    pub(crate) groups: &'a [String],
    pub(crate) action: &'a str,
    pub(crate) data_action: bool,
    pub(crate) resource: &'a str,
    pub(crate) sub_operation: Option<&'a str>,
    /// An object with the bags `request`, `resource`, `principal` and `environment`.
    pub(crate) attributes: &'a Value,
    pub(crate) now: Timestamp,
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
    /// Nothing grants, but this eligibility could be activated.
    Eligible(String),
    /// The role of an active assignment has the action, but a condition is not true.
    ConditionNotMet,
    /// The role of an assignment has the action, but it is outside its window.
    NotActiveNow,
    /// Active assignments apply, none has the action.
    ActionNotGranted,
    /// No active assignment applies at all.
    NothingAssigned,
    /// The reported deny assignment.
    Denied(String),
}

/// Documents, with every condition in them read once.
pub(crate) struct World<'a> {
    documents: &'a Documents,
    trees: BTreeMap<&'a str, Option<Parsed>>,
}

/// Something that gives a role to a principal: a role assignment, or a schedule.
#[derive(Clone)]
struct Holding<'a> {
    /// The name it is reported under.
    name: &'a str,
    scope: &'a str,
    principal: &'a str,
    role: &'a str,
    /// It holds inside all of these.
    windows: Vec<(Option<Timestamp>, Option<Timestamp>)>,
    /// All of these must be true.
    conditions: Vec<&'a ConditionText>,
}

impl<'a> World<'a> {
    pub(crate) fn new(documents: &'a Documents) -> Self {
        let blocks = documents.role_definitions.iter().flat_map(|role| &role.permissions);
        let blocks = blocks.chain(documents.deny_assignments.iter().flat_map(|deny| &deny.permissions));
        let texts = (blocks.map(|block| &block.condition))
            .chain(documents.role_assignments.iter().map(|assignment| &assignment.condition))
            .chain(documents.deny_assignments.iter().map(|deny| &deny.condition))
            .chain(documents.schedules.iter().map(|schedule| &schedule.condition));
        let trees = texts
            .flatten()
            .map(|condition| (condition.text.value.as_str(), condition::parse(&condition.text.value)))
            .collect();
        Self { documents, trees }
    }

    /// Section 2.5.
    pub(crate) fn check(&self, question: &Question<'_>) -> Answer {
        let documents = self.documents;
        if !is_scope(question.resource) {
            return Answer::InvalidResource;
        }
        let target = normal(question.resource);
        if hierarchy_is_missing(documents, &target) {
            return Answer::UnknownHierarchy;
        }
        let ids = effective_ids(documents, question);

        let mut audited = Vec::new();
        let mut denied: Option<Report> = None;
        for deny in &documents.deny_assignments {
            if !self.hits(deny, &ids, &target, question) {
                continue;
            }
            match deny.effect {
                DenyEffect::Audit => audited.push(deny.name.value.clone()),
                DenyEffect::Enforced => {
                    report(documents, &mut denied, &deny.scope.value, false, &deny.name.value);
                }
            }
        }
        audited.sort();
        if let Some(Report { name, .. }) = denied {
            return Answer::Decided { verdict: Verdict::Denied(name), audited };
        }

        let (mut any_active, mut condition_not_met, mut not_active_now) = (false, false, false);
        let mut granted: Option<Report> = None;
        for holding in self.active_holdings() {
            let Some(role) = role_of(documents, holding.role) else { continue };
            if !ids.contains(&id_key(holding.principal)) || !applies(documents, holding.scope, &target) {
                continue;
            }
            let matching = role.permissions.iter().any(|block| block_matches(block, question));
            if !open(&holding, question.now) {
                not_active_now |= matching;
                continue;
            }
            any_active = true;
            match self.grants(&holding, role, question) {
                Some(conditioned) => {
                    report(documents, &mut granted, holding.scope, conditioned, holding.name);
                }
                None => condition_not_met |= matching,
            }
        }
        if let Some(Report { name, .. }) = granted {
            return Answer::Decided { verdict: Verdict::Allowed(name), audited };
        }

        let mut eligible: Option<Report> = None;
        for schedule in &documents.schedules {
            if schedule.kind != ScheduleKind::Eligible || !provisioned(schedule) {
                continue;
            }
            let holding = holding_of(schedule);
            let Some(role) = role_of(documents, holding.role) else { continue };
            if ids.contains(&id_key(holding.principal))
                && applies(documents, holding.scope, &target)
                && open(&holding, question.now)
                && self.grants(&holding, role, question).is_some()
            {
                report(documents, &mut eligible, holding.scope, false, holding.name);
            }
        }
        let verdict = match eligible {
            Some(Report { name, .. }) => Verdict::Eligible(name),
            None if condition_not_met => Verdict::ConditionNotMet,
            None if not_active_now => Verdict::NotActiveNow,
            None if any_active => Verdict::ActionNotGranted,
            None => Verdict::NothingAssigned,
        };
        Answer::Decided { verdict, audited }
    }

    /// The first moment after the question's at which the answer is another.
    pub(crate) fn valid_until(&self, question: &Question<'_>) -> Option<Timestamp> {
        let moments = self.moments(question);
        let mut later = moments.into_iter().filter(|moment| *moment > question.now).peekable();
        later.peek()?;
        let answer = self.check(question);
        later.find(|moment| self.check(&Question { now: *moment, ..*question }) != answer)
    }

    /// Every moment that is mentioned anywhere, and the tick behind each that a condition may compare.
    pub(crate) fn moments(&self, question: &Question<'_>) -> BTreeSet<Timestamp> {
        let mut moments = BTreeSet::new();
        for schedule in &self.documents.schedules {
            moments.extend(schedule.start.iter().chain(&schedule.end).map(|moment| moment.value));
        }
        self.trees.values().flatten().for_each(|parsed| parsed.tree.moments(&mut moments));
        texts_in(question.attributes, &mut |text| condition::moments_of(text, &mut moments));
        moments
    }

    // === sections 5.5 and 5.6 ===

    /// Role assignments that stand for themselves, and active schedules that count, open or not.
    fn active_holdings(&self) -> Vec<Holding<'a>> {
        let documents = self.documents;
        let actives = || documents.schedules.iter().filter(|one| one.kind == ScheduleKind::Active);
        let mut holdings = Vec::new();
        for assignment in &documents.role_assignments {
            let governs = |schedule: &Schedule| {
                let origin = schedule.origin_role_assignment.as_ref();
                origin.is_some_and(|name| name_key(&name.value) == name_key(&assignment.name.value))
            };
            if !actives().any(governs) {
                holdings.push(Holding {
                    name: &assignment.name.value,
                    scope: &assignment.scope.value,
                    principal: &assignment.principal_id.value,
                    role: &assignment.role_definition_id.value,
                    windows: Vec::new(),
                    conditions: assignment.condition.iter().collect(),
                });
            }
        }
        for schedule in actives().filter(|schedule| provisioned(schedule)) {
            let mut holding = holding_of(schedule);
            if let Some(origin) = &schedule.origin_role_assignment {
                holding.name = &origin.value;
            }
            let Some(linked) = &schedule.linked_eligibility else {
                holdings.push(holding);
                continue;
            };
            let is = |name: &Spanned<String>| name_key(&name.value) == name_key(&linked.value);
            let eligible = documents.schedules.iter().filter(|one| one.kind == ScheduleKind::Eligible);
            let mut by_link: Vec<_> = eligible.clone().filter(|one| is(&one.name)).collect();
            if by_link.is_empty() {
                by_link = eligible.filter(|one| one.schedule.as_ref().is_some_and(is)).collect();
            }
            if by_link.is_empty() {
                holdings.push(holding);
                continue;
            }
            // Of several instances of the eligibility, any that is open will do.
            for eligibility in by_link.into_iter().filter(|one| provisioned(one)) {
                let (mut cut_holding, cut) = (holding.clone(), holding_of(eligibility));
                cut_holding.windows.extend(cut.windows);
                cut_holding.conditions.extend(cut.conditions);
                holdings.push(cut_holding);
            }
        }
        holdings
    }

    /// Whether it grants, and if so, whether a condition was needed for it.
    fn grants(&self, holding: &Holding<'_>, role: &RoleDefinition, question: &Question<'_>) -> Option<bool> {
        let matching = || role.permissions.iter().filter(|block| block_matches(block, question));
        let met = |condition: &ConditionText| self.met(condition, role, question);
        let blocks = matching().any(|block| block.condition.iter().all(met));
        let whole = holding.conditions.iter().all(|condition| met(condition));
        let conditioned = !holding.conditions.is_empty() || matching().all(|block| block.condition.is_some());
        (blocks && whole).then_some(conditioned)
    }

    /// Section 3.5: only true grants. Section 10, row 7: GUID operators on a role with Storage data actions do not.
    fn met(&self, condition: &ConditionText, role: &RoleDefinition, question: &Question<'_>) -> bool {
        let mut data_actions = role.permissions.iter().flat_map(|block| &block.data_actions);
        let storage =
            data_actions.any(|pattern| pattern.value.to_ascii_lowercase().starts_with("microsoft.storage/"));
        match self.tree(condition) {
            Some(tree) if storage && tree.compares_guids() => false,
            Some(tree) => condition::evaluate(tree, &facts(question)) == Some(true),
            None => false,
        }
    }

    // === section 2.4 ===

    fn hits(&self, deny: &DenyAssignment, ids: &[String], target: &str, question: &Question<'_>) -> bool {
        let here = if deny.do_not_apply_to_child_scopes {
            is_scope(&deny.scope.value) && normal(&deny.scope.value) == target
        } else {
            applies(self.documents, &deny.scope.value, target)
        };
        let everyone = id_key("00000000-0000-0000-0000-000000000000");
        let named = deny
            .principals
            .iter()
            .any(|principal| id_key(&principal.value) == everyone || ids.contains(&id_key(&principal.value)));
        let excluded =
            deny.exclude_principals.iter().any(|principal| ids.contains(&id_key(&principal.value)));
        let not_false = |condition: &Option<ConditionText>| match condition {
            None => true,
            Some(condition) => self.truth(condition, question) != Some(false),
        };
        here && named
            && !excluded
            && not_false(&deny.condition)
            && deny
                .permissions
                .iter()
                .any(|block| block_matches(block, question) && not_false(&block.condition))
    }

    // === conditions ===

    /// `None`: it cannot be read, or is of a version that nobody knows.
    fn tree(&self, condition: &ConditionText) -> Option<&Tree> {
        if condition.version.as_ref().is_some_and(|version| version.value != "2.0") {
            return None;
        }
        self.trees[condition.text.value.as_str()].as_ref().map(|parsed| &parsed.tree)
    }

    /// What cannot be read is undefined: a grant wants true, a deny anything but false.
    fn truth(&self, condition: &ConditionText, question: &Question<'_>) -> Truth {
        condition::evaluate(self.tree(condition)?, &facts(question))
    }
}

fn facts<'a>(question: &Question<'a>) -> Facts<'a> {
    Facts {
        action: question.action,
        sub_operation: question.sub_operation,
        now: question.now,
        attributes: question.attributes,
        strict_wildcards: question.strict_wildcards,
    }
}

fn holding_of(schedule: &Schedule) -> Holding<'_> {
    let moment = |moment: &Option<Spanned<Timestamp>>| moment.as_ref().map(|moment| moment.value);
    Holding {
        name: &schedule.name.value,
        scope: &schedule.scope.value,
        principal: &schedule.principal_id.value,
        role: &schedule.role_definition_id.value,
        windows: vec![(moment(&schedule.start), moment(&schedule.end))],
        conditions: schedule.condition.iter().collect(),
    }
}

/// Section 9, row 19: the start included, the end excluded.
fn open(holding: &Holding<'_>, now: Timestamp) -> bool {
    holding.windows.iter().all(|(start, end)| {
        let begun = match start {
            Some(start) => *start <= now,
            None => true,
        };
        let over = match end {
            Some(end) => *end <= now,
            None => false,
        };
        begun && !over
    })
}

fn provisioned(schedule: &Schedule) -> bool {
    match &schedule.status {
        Some(status) => status.value.eq_ignore_ascii_case("provisioned"),
        None => true,
    }
}

fn role_of<'a>(documents: &'a Documents, id: &str) -> Option<&'a RoleDefinition> {
    documents.role_definitions.iter().find(|role| id_key(&role.id.value) == id_key(id))
}

fn texts_in(value: &Value, each: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(values) => values.iter().for_each(|value| texts_in(value, each)),
        Value::Object(members) => members.values().for_each(|value| texts_in(value, each)),
        _ => {}
    }
}

/// What is to be reported, as far as it is known.
struct Report {
    scope: String,
    conditioned: bool,
    name: String,
}

/// Keeps the one to report: the most specific scope, then the unconditioned, then the smallest name. One scope is
/// more specific than another when the other applies to it; what applies to one target is always a chain. Names that
/// are GUIDs come first, in their order.
fn report(documents: &Documents, best: &mut Option<Report>, scope: &str, conditioned: bool, name: &str) {
    let better = match best {
        None => true,
        Some(best) => {
            if normal(&best.scope) == normal(scope) {
                (conditioned, id_key(name)) < (best.conditioned, id_key(&best.name))
            } else {
                applies(documents, &best.scope, &normal(scope))
            }
        }
    };
    if better {
        *best = Some(Report { scope: scope.to_owned(), conditioned, name: name.to_owned() });
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

// === section 9, row 37 ===

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

/// Names of assignments and schedules that refer to each other: the letter case of a name that is no GUID does not
/// matter either, for Azure writes one name in several ways.
fn name_key(name: &str) -> String {
    id_key(name).to_ascii_lowercase()
}

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
