//! What differs between two policies: item by item, and in who may do what.
//!
//! ```text
//! items of A and B ─▶ changes ─▶ whom and where they touch ─▶ permissions there under A and under B ─▶ impact
//! ```
//!
//! Whom a change touches is told generously: the holder of an assignment and every member of a group that holds it;
//! whoever holds something at a scope where a deny assignment changed, above it or below it. Each such pair of
//! principal and scope is asked of both policies. What cannot be compared exactly (patterns that overlap, conditions) is
//! told as a difference rather than left out, so "no difference" can be relied on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::impact::Pair;
use crate::agent::Answerer;
use crate::model::{ActivationRequirements, DenyEffect, PermissionPatterns, Scope, Window};
use crate::policy::{AssignmentContents, Damaged, DenyContents, DescribedAgent, Policy, RoleContents};

/// No more pairs of principal and scope are asked.
const MAX_PAIRS: usize = 20_000;

/// What differs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// What was added, removed or changed, by kind and id.
    pub changes: Vec<Change>,
    /// Who gained or lost what where.
    pub impact: Vec<Impact>,
    /// How many pairs of principal and scope were not compared, because there are too many.
    pub pairs_left_out: usize,
}

/// One item that is not the same in both.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Of which kind, in words.
    pub kind: &'static str,
    /// What became of it.
    pub change: ChangeKind,
    /// Which.
    pub id: String,
    /// What it said; of a changed one what is different.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    pub before: Vec<Fact>,
    /// What it says.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    pub after: Vec<Fact>,
}

/// A name and a value.
type Fact = (&'static str, String);

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ChangeKind {
    /// It is in the second only.
    Added,
    /// It is in the first only.
    Removed,
    /// It is in both and says something else.
    Changed,
}

/// A difference in what a principal may do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Impact {
    /// Who.
    pub principal: String,
    /// Where.
    pub scope: String,
    /// More, less or otherwise.
    pub kind: ImpactKind,
    /// What kind of thing `what` is: `action`, `pattern`, `activation`, `window`, `agent`, `options`, `access`.
    pub of: &'static str,
    /// On which plane an action or a pattern is: `control` or `data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plane: Option<&'static str>,
    /// The action, the pattern, the role.
    pub what: String,
    /// Under the first policy.
    pub before: Access,
    /// Under the second.
    pub after: Access,
}

/// Which way a difference goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ImpactKind {
    /// May do more.
    Gained,
    /// May do less.
    Lost,
    /// Depends on something else.
    Changed,
}

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Access {
    /// Nothing grants it.
    NotAllowed,
    /// A deny assignment blocks it.
    Denied,
    /// It depends on attributes or on the time.
    Conditional,
    /// It may be done.
    Allowed,
    /// The policy does not suffice to tell.
    Undecided,
}

/// Compares two policies as of a time.
///
/// # Errors
///
/// [`Damaged`], if a record of either leads nowhere.
pub fn diff(before: &Policy, after: &Policy, now: Timestamp) -> Result<Difference, Damaged> {
    if before.bytes() == after.bytes() {
        return Ok(Difference { changes: Vec::new(), impact: Vec::new(), pairs_left_out: 0 });
    }
    let compared = Compared::new(before, after)?;
    let mut impact = compared.direct_impact(now);
    let pairs = compared.pairs(before, after, now)?;
    let pairs_left_out = pairs.len().saturating_sub(MAX_PAIRS);
    for (principal, scope, moment) in pairs.iter().take(MAX_PAIRS) {
        let now = moment.unwrap_or(now);
        Pair { before, after, principal, scope, now }.compare(&mut impact);
    }
    impact.sort();
    impact.dedup();
    Ok(Difference { changes: compared.changes(), impact, pairs_left_out })
}

impl Difference {
    /// Whether somebody may do something else, or that cannot be ruled out.
    pub fn has_impact(&self) -> bool {
        !self.impact.is_empty() || self.pairs_left_out > 0
    }
}

// === items ===

/// An item as it is in the first and in the second.
type Both<T> = (Option<T>, Option<T>);

/// A principal, a scope, and the moment; `None`: now.
type Pairs = BTreeSet<(String, String, Option<Timestamp>)>;

/// What is compared item by item.
trait Item: Sized {
    const KIND: &'static str;
    fn id(&self) -> String;
    fn facts(&self) -> Vec<Fact>;
}

/// Every item that is not the same in both. Policies are large and differences small, so items are spelled out only
/// to be fingerprinted, and kept only where they differ.
fn compare<T: Item, A, B>(before: impl Fn() -> A, after: impl Fn() -> B) -> Result<Vec<Both<T>>, Damaged>
where
    A: Iterator<Item = Result<T, Damaged>>,
    B: Iterator<Item = Result<T, Damaged>>,
{
    let mut known: HashMap<u128, u128> = HashMap::new();
    let mut keys = Keys::default();
    for item in before() {
        let item = item?;
        known.insert(keys.next(&item.id()), fingerprint(&item.facts()));
    }
    let mut different: BTreeMap<u128, Both<T>> = BTreeMap::new();
    let mut same: HashSet<u128> = HashSet::new();
    let mut keys = Keys::default();
    for item in after() {
        let item = item?;
        let key = keys.next(&item.id());
        if known.get(&key) == Some(&fingerprint(&item.facts())) {
            same.insert(key);
        } else {
            different.insert(key, (None, Some(item)));
        }
    }
    if same.len() < known.len() {
        let mut keys = Keys::default();
        for item in before() {
            let item = item?;
            let key = keys.next(&item.id());
            if !same.contains(&key) {
                different.entry(key).or_insert((None, None)).0 = Some(item);
            }
        }
    }
    Ok(different.into_values().collect())
}

/// The same for lists that are there.
fn compare_lists<T: Item + Clone>(before: &[T], after: &[T]) -> Result<Vec<Both<T>>, Damaged> {
    compare(|| before.iter().cloned().map(Ok), || after.iter().cloned().map(Ok))
}

/// Ids as numbers; several items of one id are told apart by their order.
#[derive(Default)]
struct Keys(HashSet<u128>);

impl Keys {
    fn next(&mut self, id: &str) -> u128 {
        let mut key = fingerprint(&id.to_ascii_lowercase());
        while !self.0.insert(key) {
            key = key.wrapping_add(1);
        }
        key
    }
}

fn fingerprint(value: &impl Debug) -> u128 {
    let digest = Sha256::digest(format!("{value:?}"));
    digest.first_chunk().map_or(0, |half| u128::from_le_bytes(*half))
}

fn changed<T: Item>(all: &[Both<T>], changes: &mut Vec<Change>) {
    for (before, after) in all {
        let facts = |item: &Option<T>| item.as_ref().map(Item::facts).unwrap_or_default();
        let Some(id) = after.as_ref().or(before.as_ref()).map(Item::id) else { continue };
        let (mut before_facts, mut after_facts) = (facts(before), facts(after));
        let change = match (before, after) {
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            _ => {
                let differs = |fact: &Fact, others: &[Fact]| !others.contains(fact);
                let kept = after_facts.clone();
                after_facts.retain(|fact| differs(fact, &before_facts));
                before_facts.retain(|fact| differs(fact, &kept));
                ChangeKind::Changed
            }
        };
        changes.push(Change { kind: T::KIND, change, id, before: before_facts, after: after_facts });
    }
}

/// Facts without those that say nothing.
fn facts(all: impl IntoIterator<Item = (&'static str, String)>) -> Vec<Fact> {
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

fn shown_window(window: Option<Window>) -> String {
    let Some(Window { start, end }) = window else { return String::new() };
    let shown = |at: Option<Timestamp>, none: &str| at.map_or_else(|| none.to_owned(), |at| at.to_string());
    format!("{} to {}", shown(start, "always"), shown(end, "for ever"))
}

fn shown_blocks(blocks: &[PermissionPatterns]) -> String {
    let lists = |block: &PermissionPatterns| {
        let lists = [
            ("actions", &block.actions),
            ("notActions", &block.not_actions),
            ("dataActions", &block.data_actions),
            ("notDataActions", &block.not_data_actions),
        ];
        let mut parts: Vec<String> = lists
            .into_iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| format!("{name} {}", list.join(", ")))
            .collect();
        parts.extend(block.condition.as_ref().map(|condition| format!("condition {condition}")));
        parts.join("; ")
    };
    blocks.iter().map(lists).collect::<Vec<_>>().join(" | ")
}

fn shown_requirements(takes: &ActivationRequirements) -> String {
    let flags = [
        ("multi-factor authentication", takes.mfa),
        ("justification", takes.justification),
        ("ticket", takes.ticket),
        ("approval", takes.approval),
    ];
    let mut parts: Vec<String> =
        flags.into_iter().filter(|(_, on)| *on).map(|(name, _)| name.to_owned()).collect();
    parts.extend(takes.approvers.iter().map(|approver| format!("approver {approver}")));
    parts.extend(takes.maximum_duration.iter().map(|duration| format!("at most {duration}")));
    parts.extend(takes.authentication_context.iter().map(|context| format!("context {context}")));
    parts.join(", ")
}

struct Held(AssignmentContents);
struct Eligible(AssignmentContents);
#[derive(Clone)]
struct Member(String, Vec<String>);
#[derive(Clone)]
struct Placed(String, String);

fn assignment_facts(assignment: &AssignmentContents) -> Vec<Fact> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    facts([
        ("principal", assignment.principal_id.clone()),
        ("role", assignment.role_definition_id.clone()),
        ("scope", assignment.scope.clone()),
        ("window", shown_window(assignment.window)),
        ("condition", text(&assignment.condition)),
        ("eligibility", text(&assignment.eligibility)),
        ("eligibility condition", text(&assignment.inherited_condition)),
        ("takes", assignment.requirements.as_ref().map(shown_requirements).unwrap_or_default()),
    ])
}

impl Item for Held {
    const KIND: &'static str = "role assignment";

    fn id(&self) -> String {
        self.0.id.clone()
    }

    fn facts(&self) -> Vec<Fact> {
        assignment_facts(&self.0)
    }
}

impl Item for Eligible {
    const KIND: &'static str = "eligibility";

    fn id(&self) -> String {
        self.0.id.clone()
    }

    fn facts(&self) -> Vec<Fact> {
        assignment_facts(&self.0)
    }
}

impl Item for RoleContents {
    const KIND: &'static str = "role definition";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn facts(&self) -> Vec<Fact> {
        facts([("name", self.name.clone()), ("permissions", shown_blocks(&self.blocks))])
    }
}

impl Item for DenyContents {
    const KIND: &'static str = "deny assignment";

    fn id(&self) -> String {
        self.id.clone()
    }

    fn facts(&self) -> Vec<Fact> {
        let all = if self.all_principals { "everybody".to_owned() } else { self.principals.join(", ") };
        let effect = if self.effect == DenyEffect::Audit { "audit" } else { "enforced" };
        let reach = if self.not_to_child_scopes { "this scope only" } else { "" };
        facts([
            ("name", self.name.clone().unwrap_or_default()),
            ("effect", effect.to_owned()),
            ("scope", self.scope.clone()),
            ("reach", reach.to_owned()),
            ("principals", all),
            ("except", self.exclude_principals.join(", ")),
            ("permissions", shown_blocks(&self.blocks)),
            ("condition", self.condition.clone().unwrap_or_default()),
        ])
    }
}

impl Item for Member {
    const KIND: &'static str = "membership";

    fn id(&self) -> String {
        self.0.clone()
    }

    fn facts(&self) -> Vec<Fact> {
        facts([("groups", self.1.join(", "))])
    }
}

impl Item for Placed {
    const KIND: &'static str = "hierarchy";

    fn id(&self) -> String {
        self.0.clone()
    }

    fn facts(&self) -> Vec<Fact> {
        facts([("parent", self.1.clone())])
    }
}

impl Item for DescribedAgent {
    const KIND: &'static str = "agent";

    fn id(&self) -> String {
        self.agent.principal.clone()
    }

    fn facts(&self) -> Vec<Fact> {
        let answerer = match &self.agent.answerer {
            Answerer::AskingUser => "the user who asks".to_owned(),
            Answerer::RoleHolder(role) => format!("holders of {role}"),
        };
        facts([
            ("name", self.name.clone().unwrap_or_default()),
            ("resource", self.resource.clone().unwrap_or_default()),
            ("level", format!("{:?}", self.agent.level).to_lowercase()),
            ("mode", format!("{:?}", self.agent.mode).to_lowercase()),
            ("manages", self.agent.managed_resource_groups.join(", ")),
            ("answered by", answerer),
            ("query actions", self.options.query_actions.join(", ")),
        ])
    }
}

// === whom it touches ===

/// Everything that differs, typed.
struct Compared {
    held: Vec<Both<Held>>,
    eligible: Vec<Both<Eligible>>,
    roles: Vec<Both<RoleContents>>,
    denies: Vec<Both<DenyContents>>,
    members: Vec<Both<Member>>,
    agents: Vec<Both<DescribedAgent>>,
    hierarchy: Vec<Both<Placed>>,
    options: Option<(String, String)>,
    trees: [Tree; 2],
    groups: [Groups; 2],
}

/// Who is in which group.
struct Groups(HashMap<String, Vec<String>>);

/// What hangs in what, letter case folded.
struct Tree(HashMap<String, String>);

/// A deny assignment that is another one for somebody, or about somewhere.
struct Touch {
    /// `None`: everybody.
    principals: Option<HashSet<String>>,
    scope: String,
}

impl Compared {
    fn new(before: &Policy, after: &Policy) -> Result<Self, Damaged> {
        let hierarchies = [before.hierarchy()?, after.hierarchy()?];
        let memberships = [before.memberships()?, after.memberships()?];
        let [placed_before, placed_after] = &hierarchies;
        let [members_before, members_after] = &memberships;
        let placed = |all: &[(String, String)]| -> Vec<Placed> {
            all.iter().cloned().map(|(scope, parent)| Placed(scope, parent)).collect()
        };
        let member = |all: &[(String, Vec<String>)]| -> Vec<Member> {
            let in_some = all.iter().filter(|(_, groups)| !groups.is_empty());
            in_some.cloned().map(|(id, groups)| Member(id, groups)).collect()
        };
        let [one, other] = [before, after].map(|policy| format!("{:?}", policy.options()));
        Ok(Self {
            held: compare(
                || before.assignments().map(|it| it.map(Held)),
                || after.assignments().map(|it| it.map(Held)),
            )?,
            eligible: compare(
                || before.eligibilities().map(|it| it.map(Eligible)),
                || after.eligibilities().map(|it| it.map(Eligible)),
            )?,
            roles: compare_lists(&before.role_definitions()?, &after.role_definitions()?)?,
            denies: compare_lists(&before.deny_assignments()?, &after.deny_assignments()?)?,
            members: compare_lists(&member(members_before), &member(members_after))?,
            agents: compare_lists(&before.agents()?, &after.agents()?)?,
            hierarchy: compare_lists(&placed(placed_before), &placed(placed_after))?,
            options: (one != other).then_some((one, other)),
            trees: hierarchies.map(Tree::new),
            groups: memberships.map(Groups::new),
        })
    }

    fn changes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        if let Some((before, after)) = &self.options {
            changes.push(Change {
                kind: "options",
                change: ChangeKind::Changed,
                id: "options".to_owned(),
                before: vec![("options", before.clone())],
                after: vec![("options", after.clone())],
            });
        }
        changed(&self.held, &mut changes);
        changed(&self.eligible, &mut changes);
        changed(&self.roles, &mut changes);
        changed(&self.denies, &mut changes);
        changed(&self.members, &mut changes);
        changed(&self.agents, &mut changes);
        changed(&self.hierarchy, &mut changes);
        let mut order = Vec::new();
        for change in &changes {
            if !order.contains(&change.kind) {
                order.push(change.kind);
            }
        }
        let position = |kind| order.iter().position(|other| *other == kind);
        changes.sort_by(|one, other| {
            let key = |change: &Change| (position(change.kind), change.change);
            key(one).cmp(&key(other)).then_with(|| one.id.cmp(&other.id))
        });
        changes
    }

    /// What differs whatever is asked now: windows, agents, how patterns are read.
    fn direct_impact(&self, now: Timestamp) -> Vec<Impact> {
        let mut impact = Vec::new();
        let kind_of = |before: bool, after: bool| match (before, after) {
            (false, _) => ImpactKind::Gained,
            (_, false) => ImpactKind::Lost,
            _ => ImpactKind::Changed,
        };
        let access = |there: bool| if there { Access::Conditional } else { Access::NotAllowed };
        let held = self
            .held
            .iter()
            .map(|(before, after)| (before.as_ref().map(|held| &held.0), after.as_ref().map(|held| &held.0)));
        let eligible = self
            .eligible
            .iter()
            .map(|(before, after)| (before.as_ref().map(|held| &held.0), after.as_ref().map(|held| &held.0)));
        for (before, after) in held.chain(eligible) {
            // What is over is as good as gone.
            let over = |window: Window| window.end.is_some_and(|end| end <= now);
            let counts = |one: &&AssignmentContents| !one.window.is_some_and(over);
            let (before, after) = (before.filter(counts), after.filter(counts));
            let window = |one: Option<&AssignmentContents>| one.and_then(|one| one.window);
            let Some(shown) = after.or(before) else { continue };
            if window(before) != window(after) {
                impact.push(Impact {
                    principal: shown.principal_id.clone(),
                    scope: shown.scope.clone(),
                    kind: kind_of(before.is_some(), after.is_some()),
                    of: "window",
                    plane: None,
                    what: format!("\"{}\" {}", shown.role_name, shown_window(shown.window)).trim().to_owned(),
                    before: access(before.is_some()),
                    after: access(after.is_some()),
                });
            }
        }
        for (before, after) in &self.agents {
            let Some(shown) = after.as_ref().or(before.as_ref()) else { continue };
            impact.push(Impact {
                principal: shown.agent.principal.clone(),
                scope: shown.agent.managed_resource_groups.first().cloned().unwrap_or_else(|| "/".to_owned()),
                kind: ImpactKind::Changed,
                of: "agent",
                plane: None,
                what: shown.name.clone().unwrap_or_default(),
                before: access(before.is_some()),
                after: access(after.is_some()),
            });
        }
        if self.options.is_some() {
            impact.push(Impact {
                principal: "everybody".to_owned(),
                scope: "/".to_owned(),
                kind: ImpactKind::Changed,
                of: "options",
                plane: None,
                what: "patterns or conditions are read otherwise".to_owned(),
                before: Access::Conditional,
                after: Access::Conditional,
            });
        }
        impact
    }

    /// Whom the changes touch, where, and what is held later also when it begins.
    fn pairs(&self, before: &Policy, after: &Policy, now: Timestamp) -> Result<Pairs, Damaged> {
        let mut pairs = Pairs::new();
        let mut touch = |principal: &str, scope: &str, held: &AssignmentContents| {
            pairs.insert((principal.to_owned(), scope.to_owned(), None));
            let start = held.window.and_then(|window| window.start).filter(|start| *start > now);
            if start.is_some() {
                pairs.insert((principal.to_owned(), scope.to_owned(), start));
            }
        };
        let own = self.held.iter().flat_map(|(one, other)| [one, other]).flatten().map(|held| &held.0);
        let eligible =
            self.eligible.iter().flat_map(|(one, other)| [one, other]).flatten().map(|held| &held.0);
        for held in own.chain(eligible) {
            for principal in self.with_members(&held.principal_id) {
                touch(principal, &held.scope, held);
            }
        }

        let roles: HashSet<&str> =
            self.roles.iter().flat_map(|(one, other)| [one, other]).flatten().map(|role| &*role.id).collect();
        let joined: HashMap<&str, HashSet<&str>> = self.members.iter().filter_map(joined).collect();
        let moved: HashMap<&str, Vec<&str>> = self.moved();
        let touches = self.touches(before, after, &joined)?;
        if roles.is_empty() && joined.is_empty() && moved.is_empty() && touches.is_empty() {
            return Ok(pairs);
        }
        let mut members: HashMap<&str, Vec<&str>> = HashMap::new();
        for (member, groups) in &joined {
            for group in groups {
                members.entry(group).or_default().push(member);
            }
        }
        let mut at: HashMap<String, Vec<&Touch>> = HashMap::new();
        let mut above: HashMap<String, Vec<&Touch>> = HashMap::new();
        for touch in &touches {
            at.entry(touch.scope.to_ascii_lowercase()).or_default().push(touch);
            for tree in &self.trees {
                for scope in tree.above(&touch.scope) {
                    above.entry(scope).or_default().push(touch);
                }
            }
        }
        for held in
            [before, after].into_iter().flat_map(|policy| policy.assignments().chain(policy.eligibilities()))
        {
            let held = held?;
            if roles.contains(&*held.role_definition_id) {
                for principal in self.with_members(&held.principal_id) {
                    touch(principal, &held.scope, &held);
                }
            }
            for member in members.get(&*held.principal_id).into_iter().flatten() {
                touch(member, &held.scope, &held);
            }
            let folded = held.scope.to_ascii_lowercase();
            for scope in moved.get(&*folded).into_iter().flatten() {
                for principal in self.with_members(&held.principal_id) {
                    touch(principal, scope, &held);
                }
            }
            if touches.is_empty() {
                continue;
            }
            // A deny assignment below the assignment, then one at its scope or above it.
            let mut touched = |by: &Touch, scope: &str| {
                for principal in self.with_members(&held.principal_id) {
                    if by.principals.as_ref().is_none_or(|all| all.contains(principal)) {
                        touch(principal, scope, &held);
                    }
                }
            };
            for by in above.get(&folded).into_iter().flatten() {
                touched(by, &by.scope);
            }
            for scope in self.trees.iter().flat_map(|tree| tree.above(&held.scope)) {
                for by in at.get(&scope).into_iter().flatten() {
                    touched(by, &held.scope);
                }
            }
        }
        Ok(pairs)
    }

    /// A principal and whoever either policy knows to be in it.
    fn with_members<'a>(&'a self, principal: &'a str) -> impl Iterator<Item = &'a str> {
        let members = self.groups.iter().filter_map(move |groups| groups.0.get(principal)).flatten();
        std::iter::once(principal).chain(members.map(String::as_str))
    }

    /// For each scope above which something is another one than before: what hangs in it.
    fn moved(&self) -> HashMap<&str, Vec<&str>> {
        let mut moved: HashMap<&str, Vec<&str>> = HashMap::new();
        for placed in self.hierarchy.iter().flat_map(|(one, other)| [one, other]).flatten() {
            for tree in &self.trees {
                for above in tree.chain(&placed.1) {
                    moved.entry(above).or_default().push(&placed.0);
                }
            }
        }
        moved
    }

    /// Deny assignments that changed, reach somebody else, or somewhere else.
    fn touches(
        &self,
        before: &Policy,
        after: &Policy,
        joined: &HashMap<&str, HashSet<&str>>,
    ) -> Result<Vec<Touch>, Damaged> {
        let mut touches = Vec::new();
        let about = |deny: &DenyContents, scope: &str| {
            let listed = deny.principals.iter().chain(&deny.exclude_principals);
            let principals = (!deny.all_principals)
                .then(|| listed.flat_map(|id| self.with_members(id)).map(str::to_owned).collect());
            Touch { principals, scope: scope.to_owned() }
        };
        for deny in self.denies.iter().flat_map(|(one, other)| [one, other]).flatten() {
            touches.push(about(deny, &deny.scope));
        }
        // Of one that was and stays for everybody but some, others may be exempt.
        if joined.is_empty() && self.hierarchy.is_empty() {
            return Ok(touches);
        }
        let moved = self.moved();
        for policy in [before, after] {
            for deny in policy.deny_assignments()? {
                let listed: HashSet<&str> =
                    deny.principals.iter().chain(&deny.exclude_principals).map(String::as_str).collect();
                let principals: HashSet<String> = joined
                    .iter()
                    .filter(|(_, groups)| groups.iter().any(|group| listed.contains(group)))
                    .map(|(member, _)| (*member).to_owned())
                    .collect();
                if !principals.is_empty() {
                    touches.push(Touch { principals: Some(principals), scope: deny.scope.clone() });
                }
                for scope in moved.get(&*deny.scope.to_ascii_lowercase()).into_iter().flatten() {
                    touches.push(about(&deny, scope));
                }
                // Below what hangs nowhere it cannot be told whether one at a management group applies.
                let placed = self.hierarchy.iter().flat_map(|(one, other)| [one, other]).flatten();
                if Scope::parse(&deny.scope).is_ok_and(|scope| scope.management_group().is_some()) {
                    touches.extend(placed.map(|placed| Touch { principals: None, scope: placed.0.clone() }));
                }
            }
        }
        Ok(touches)
    }
}

/// The groups that somebody joined or left.
fn joined((before, after): &Both<Member>) -> Option<(&str, HashSet<&str>)> {
    let groups = |member: &'_ Option<Member>| -> HashSet<String> {
        member.iter().flat_map(|member| member.1.clone()).collect()
    };
    let id = &after.as_ref().or(before.as_ref())?.0;
    let (in_before, in_after) = (groups(before), groups(after));
    let all = [before, after].into_iter().flatten().flat_map(|member| member.1.iter());
    let differ = all.filter(|group| in_before.contains(*group) != in_after.contains(*group));
    Some((id, differ.map(String::as_str).collect()))
}

impl Groups {
    fn new(memberships: Vec<(String, Vec<String>)>) -> Self {
        let mut groups: HashMap<String, Vec<String>> = HashMap::new();
        for (member, of) in memberships {
            for group in of {
                groups.entry(group).or_default().push(member.clone());
            }
        }
        Self(groups)
    }
}

impl Tree {
    fn new(hierarchy: Vec<(String, String)>) -> Self {
        let folded = |scope: String| scope.to_ascii_lowercase();
        Self(hierarchy.into_iter().map(|(scope, parent)| (folded(scope), folded(parent))).collect())
    }

    /// A scope of the hierarchy and everything above it but the root, folded.
    fn chain<'a>(&'a self, scope: &str) -> Vec<&'a str> {
        let mut chain = Vec::new();
        let mut next = self.0.get_key_value(&scope.to_ascii_lowercase());
        while let Some((scope, parent)) = next {
            // A hierarchy has no circles, and is small.
            if chain.contains(&scope.as_str()) {
                break;
            }
            chain.push(scope.as_str());
            next = self.0.get_key_value(parent);
        }
        chain
    }

    /// A scope and everything above it, folded.
    fn above(&self, scope: &str) -> Vec<String> {
        let mut all = vec!["/".to_owned()];
        let Ok(parsed) = Scope::parse(scope) else { return all };
        let folded = scope.to_ascii_lowercase();
        let levels: Vec<&str> = parsed.level_ends().filter_map(|end| folded.get(..end)).collect();
        if let Some(first) = levels.first() {
            all.extend(self.chain(first).into_iter().skip(1).map(str::to_owned));
        }
        all.extend(levels.into_iter().map(str::to_owned));
        all
    }
}

fn as_map<S: Serializer>(facts: &[Fact], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(facts.iter().map(|(name, value)| (name, value)))
}
