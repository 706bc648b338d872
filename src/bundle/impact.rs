//! What a difference comes to for one principal at one scope: the permissions there under both policies, action by
//! action and pattern by pattern.
//!
//! Both lists rest on assignments, deny assignments and eligibilities; where these say the same, nothing else is looked
//! at.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::diff::{Access, Impact, ImpactKind};
use crate::model::{
    DenyEffect, Groups, KnownOperation, OperationOutcome, PermissionList, PermissionPatterns,
    PermissionQuery, Plane, PrincipalId, RoleActivation, Scope, Subject, Undecided, Wildcards,
    pattern_matches,
};
use crate::policy::Policy;

/// A principal at a scope under both policies.
pub(super) struct Pair<'a> {
    pub(super) before: &'a Policy,
    pub(super) after: &'a Policy,
    pub(super) principal: &'a str,
    pub(super) scope: &'a str,
    pub(super) now: Timestamp,
}

/// A pattern with a wildcard, or what a deny assignment takes away.
struct Pattern {
    plane: Plane,
    text: String,
    exclusions: Vec<String>,
    conditions: Vec<String>,
}

/// What a list rests on: equal for lists that say the same of every action.
#[derive(PartialEq, Eq)]
struct Signature {
    all: BTreeSet<String>,
    conditional: BTreeSet<String>,
    eligible: BTreeMap<String, (String, String)>,
}

impl Pair<'_> {
    fn list(
        &self,
        policy: &Policy,
        scope: Scope<'_>,
        operations: &[KnownOperation],
    ) -> Result<PermissionList, Undecided> {
        let subject = Subject { principal: PrincipalId::new(self.principal), groups: Groups::NONE };
        let query = PermissionQuery { subject, scope, operations: Some(operations) };
        policy.list_permissions(&query, self.now)
    }

    fn impact(
        &self,
        kind: ImpactKind,
        of: &'static str,
        plane: Option<Plane>,
        what: &str,
        access: (Access, Access),
    ) -> Impact {
        let plane = plane.map(|plane| match plane {
            Plane::Control => "control",
            Plane::Data => "data",
        });
        Impact {
            principal: self.principal.to_owned(),
            scope: self.scope.to_owned(),
            kind,
            of,
            plane,
            what: what.to_owned(),
            before: access.0,
            after: access.1,
        }
    }

    /// Something that cannot be told.
    fn unknown(&self, what: &str, access: (Access, Access)) -> Impact {
        self.impact(ImpactKind::Changed, "access", None, what, access)
    }

    /// Adds what differs.
    pub(super) fn compare(&self, impact: &mut Vec<Impact>) {
        const BOTH: (Access, Access) = (Access::Undecided, Access::Undecided);
        let Ok(scope) = Scope::parse(self.scope) else {
            impact.push(self.unknown("the scope is none", BOTH));
            return;
        };
        let lists = |operations: &[KnownOperation]| {
            (self.list(self.before, scope, operations), self.list(self.after, scope, operations))
        };
        let (before, after) = match lists(&[]) {
            (Ok(before), Ok(after)) => (before, after),
            (Err(before), Err(after)) if before == after => return,
            (before, after) => {
                let access = |list: &Result<PermissionList, Undecided>| match list {
                    Ok(_) => Access::Conditional,
                    Err(_) => Access::Undecided,
                };
                let why = before.as_ref().err().or(after.as_ref().err()).map(ToString::to_string);
                let access = (access(&before), access(&after));
                impact.push(self.unknown(&why.unwrap_or_default(), access));
                return;
            }
        };
        let signatures = [&before, &after].map(Signature::of);
        let [one, other] = &signatures;
        let truncated = before.truncated || after.truncated;
        if one == other && !truncated {
            return;
        }
        let wildcards = self.after.options().wildcards;
        let mut operations = literals([&before, &after]);
        operations.sort();
        operations.dedup();
        let (Ok(decided_before), Ok(decided_after)) = lists(&operations) else { return };
        if truncated || decided_before.truncated || decided_after.truncated {
            impact.push(self.unknown("too much to compare", BOTH));
        }
        self.operations(&decided_before, &decided_after, one.conditional != other.conditional, impact);
        self.patterns(&before, &after, wildcards, impact);
        self.denied_patterns(&before, &after, wildcards, impact);
        self.activations(one, other, impact);
    }

    fn operations(
        &self,
        before: &PermissionList,
        after: &PermissionList,
        conditions_differ: bool,
        impact: &mut Vec<Impact>,
    ) {
        let mut all: BTreeMap<&KnownOperation, (Access, Access)> = BTreeMap::new();
        const NONE: (Access, Access) = (Access::NotAllowed, Access::NotAllowed);
        for one in &before.operations {
            all.entry(&one.operation).or_insert(NONE).0 = access_of(one.outcome);
        }
        for one in &after.operations {
            all.entry(&one.operation).or_insert(NONE).1 = access_of(one.outcome);
        }
        for (operation, access) in all {
            let kind = match access.0.rank().cmp(&access.1.rank()) {
                std::cmp::Ordering::Less => ImpactKind::Gained,
                std::cmp::Ordering::Greater => ImpactKind::Lost,
                std::cmp::Ordering::Equal if access.0 == Access::Conditional && conditions_differ => {
                    ImpactKind::Changed
                }
                std::cmp::Ordering::Equal => continue,
            };
            impact.push(self.impact(kind, "action", Some(operation.plane), &operation.name, access));
        }
    }

    fn patterns(
        &self,
        before: &PermissionList,
        after: &PermissionList,
        wildcards: Wildcards,
        impact: &mut Vec<Impact>,
    ) {
        let [before, after] = [before, after].map(granted_patterns);
        for (pattern, others, kind) in after
            .iter()
            .map(|pattern| (pattern, &before, ImpactKind::Gained))
            .chain(before.iter().map(|pattern| (pattern, &after, ImpactKind::Lost)))
        {
            if others.iter().any(|other| other.covers(pattern, wildcards) && other.not_less_certain(pattern))
            {
                continue;
            }
            let elsewhere = others.iter().any(|other| other.covers(pattern, wildcards));
            let own = pattern.access();
            let theirs = if elsewhere { Access::Conditional } else { Access::NotAllowed };
            let access = if kind == ImpactKind::Gained { (theirs, own) } else { (own, theirs) };
            // Conditional there and here: under other conditions.
            let kind = if elsewhere && own == Access::Conditional { ImpactKind::Changed } else { kind };
            impact.push(self.impact(kind, "pattern", Some(pattern.plane), &pattern.text, access));
        }
    }

    /// What deny assignments take away from patterns; from single actions it shows in these.
    fn denied_patterns(
        &self,
        before: &PermissionList,
        after: &PermissionList,
        wildcards: Wildcards,
        impact: &mut Vec<Impact>,
    ) {
        let denied = [before, after].map(denied_patterns);
        // Where it is granted on one side only, that is told of what grants.
        let granted = [before, after].map(granted_patterns);
        let [denied_before, denied_after] = &denied;
        let sides = [
            (denied_after, denied_before, ImpactKind::Lost),
            (denied_before, denied_after, ImpactKind::Gained),
        ];
        for (own, others, kind) in sides {
            for pattern in own {
                let known = others
                    .iter()
                    .any(|other| other.covers(pattern, wildcards) && other.not_less_certain(pattern));
                let matters = granted.iter().all(|grants| {
                    grants.iter().any(|grant| {
                        grant.plane == pattern.plane && overlap(&grant.text, &pattern.text, wildcards)
                    })
                });
                if known || !matters {
                    continue;
                }
                let denied = if pattern.conditions.is_empty() { Access::Denied } else { Access::Conditional };
                let access = match kind {
                    ImpactKind::Lost => (Access::Allowed, denied),
                    _ => (denied, Access::Allowed),
                };
                impact.push(self.impact(kind, "pattern", Some(pattern.plane), &pattern.text, access));
            }
        }
    }

    fn activations(&self, before: &Signature, after: &Signature, impact: &mut Vec<Impact>) {
        let roles: BTreeSet<&String> = before.eligible.keys().chain(after.eligible.keys()).collect();
        for role in roles {
            let (one, other) = (before.eligible.get(role), after.eligible.get(role));
            let Some((name, _)) = other.or(one) else { continue };
            let (kind, access) = match (one, other) {
                (None, _) => (ImpactKind::Gained, (Access::NotAllowed, Access::Allowed)),
                (_, None) => (ImpactKind::Lost, (Access::Allowed, Access::NotAllowed)),
                (Some(one), Some(other)) if one.1 != other.1 => {
                    (ImpactKind::Changed, (Access::Conditional, Access::Conditional))
                }
                _ => continue,
            };
            impact.push(self.impact(kind, "activation", None, name, access));
        }
    }
}

impl Access {
    /// How much may be done.
    const fn rank(self) -> u8 {
        match self {
            Self::NotAllowed | Self::Denied => 0,
            Self::Conditional | Self::Undecided => 1,
            Self::Allowed => 2,
        }
    }
}

impl Signature {
    fn of(list: &PermissionList) -> Self {
        let (mut all, mut conditional) = (BTreeSet::new(), BTreeSet::new());
        for grant in &list.grants {
            let window = grant.assignment.window;
            let text = format!("+ {:?} {:?} {} {window:?}", grant.blocks, grant.conditions, grant.unusable);
            if !grant.conditions.is_empty() || grant.blocks.iter().any(|block| block.condition.is_some()) {
                conditional.insert(text.clone());
            }
            all.insert(text);
        }
        for deny in list.denies.iter().filter(|deny| deny.effect == DenyEffect::Enforced) {
            let text = format!("- {:?} {:?}", deny.blocks, deny.condition);
            if deny.condition.is_some() || deny.blocks.iter().any(|block| block.condition.is_some()) {
                conditional.insert(text.clone());
            }
            all.insert(text);
        }
        let mut eligible: BTreeMap<String, (String, String)> = BTreeMap::new();
        for one in &list.eligible {
            let RoleActivation { eligible_until, condition, requirements, .. } = one;
            let entry = eligible.entry(one.role_definition_id.clone()).or_default();
            entry.0.clone_from(&one.role_name);
            entry.1.push_str(&format!("{eligible_until:?} {condition:?} {requirements:?}\n"));
        }
        Self { all, conditional, eligible }
    }
}

impl Pattern {
    fn access(&self) -> Access {
        if self.conditions.is_empty() { Access::Allowed } else { Access::Conditional }
    }

    /// Whether it gives everything that another gives, conditions aside.
    fn covers(&self, other: &Self, wildcards: Wildcards) -> bool {
        // A run of the other's is matched as a character, so by a run only.
        self.plane == other.plane
            && pattern_matches(&self.text, &other.text, wildcards)
            && self.exclusions.iter().all(|exclusion| {
                !overlap(exclusion, &other.text, wildcards)
                    || other.exclusions.iter().any(|its| pattern_matches(its, exclusion, wildcards))
            })
    }

    fn not_less_certain(&self, other: &Self) -> bool {
        self.conditions.is_empty() || self.conditions == other.conditions
    }
}

/// Whether an action may match both. Of two with wildcards only what stands before the first and behind the last is
/// compared, so some are said to overlap that do not.
fn overlap(one: &str, other: &str, wildcards: Wildcards) -> bool {
    let ends = |text: &str| {
        let (head, tail) = (text.split('*').next(), text.rsplit('*').next());
        [head, tail].map(|end| end.unwrap_or_default().to_ascii_lowercase())
    };
    if one.contains('*') && other.contains('*') {
        let ([head, tail], [other_head, other_tail]) = (ends(one), ends(other));
        return (head.starts_with(&other_head) || other_head.starts_with(&head))
            && (tail.ends_with(&other_tail) || other_tail.ends_with(&tail));
    }
    pattern_matches(one, other, wildcards) || pattern_matches(other, one, wildcards)
}

const fn access_of(outcome: OperationOutcome) -> Access {
    match outcome {
        OperationOutcome::Allowed => Access::Allowed,
        OperationOutcome::Conditional => Access::Conditional,
        OperationOutcome::Denied => Access::Denied,
    }
}

/// The lists of a block that give, with their exclusions.
fn lists(block: &PermissionPatterns) -> [(Plane, &[String], &[String]); 2] {
    [
        (Plane::Control, &block.actions, &block.not_actions),
        (Plane::Data, &block.data_actions, &block.not_data_actions),
    ]
}

/// Everything without a wildcard that something there gives or takes.
fn literals(both: [&PermissionList; 2]) -> Vec<KnownOperation> {
    let blocks = both.into_iter().flat_map(|list| {
        let granted = list.grants.iter().flat_map(|grant| &grant.blocks);
        granted.chain(list.denies.iter().flat_map(|deny| &deny.blocks))
    });
    let mut found = Vec::new();
    for (plane, given, taken) in blocks.flat_map(lists) {
        let names = given.iter().chain(taken).filter(|text| !text.contains('*'));
        found.extend(names.map(|name| KnownOperation { name: name.clone(), plane }));
    }
    found
}

fn granted_patterns(list: &PermissionList) -> Vec<Pattern> {
    let grants = list.grants.iter().filter(|grant| !grant.unusable);
    let blocks = grants.flat_map(|grant| grant.blocks.iter().map(move |block| (block, &grant.conditions)));
    patterns(blocks.filter(|(block, _)| !block.unusable).map(|(block, own)| (block, own.as_slice())))
}

fn denied_patterns(list: &PermissionList) -> Vec<Pattern> {
    let denies = list.denies.iter().filter(|deny| deny.effect == DenyEffect::Enforced);
    patterns(denies.flat_map(|deny| deny.blocks.iter().map(move |block| (block, deny.condition.as_slice()))))
}

fn patterns<'a>(blocks: impl Iterator<Item = (&'a PermissionPatterns, &'a [String])>) -> Vec<Pattern> {
    let mut found = Vec::new();
    for (block, own) in blocks {
        let conditions: Vec<String> = own.iter().chain(&block.condition).cloned().collect();
        for (plane, given, taken) in lists(block) {
            found.extend(given.iter().filter(|text| text.contains('*')).map(|text| Pattern {
                plane,
                text: text.clone(),
                exclusions: taken.to_vec(),
                conditions: conditions.clone(),
            }));
        }
    }
    found
}
