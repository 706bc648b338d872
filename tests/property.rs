#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    reason = "tests"
)]
//! Draws whole small policies and questions about them, and holds the engine against the naive evaluator.
//!
//! Everything comes from tiny alphabets (a handful of principals, scopes and operations, each in random spelling),
//! so that a question nearly always meets several assignments, denies and groups at once. Compared are the
//! decision, what is reported to have decided, the audited denies and "cannot tell", through `Policy::evaluate`
//! and through an authorizer asked twice with its cache on.
//!
//! `POSTERN_PROPTEST_CASES` sets how many policies are drawn.

mod naive;

use std::fmt;

use jiff::Timestamp;
use postern::authorizer::{Authorizer, CacheSettings};
use postern::cache::CachePolicy;
use postern::clock::Clock;
use postern::model::{
    Action, CheckRequest, Decision, DenyAssignment, DenyEffect, Documents, Group, ManagementGroup,
    PermissionBlock, Plane, PrincipalId, RoleAssignment, RoleDefinition, Scope, Spanned, Subject,
    Subscription, Undecided, Why, Wildcards, pattern_matches,
};
use postern::policy::{CompileOptions, Evaluation, Policy};
use postern::snapshot::cell;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::{FileFailurePersistence, TestRunner};

// === alphabets ===

const CALLERS: [&str; 5] = [
    "a1b2c3d4-e5f6-4789-8abc-def012345678",
    "a1b2c3d4-e5f6-4789-8abc-def012345679",
    "00000000-0000-4000-8000-00000000000f",
    "alice",
    "Alice",
];
const GROUPS: [&str; 6] = [
    "c0ffee00-0000-4000-8000-00000000000a",
    "c0ffee00-0000-4000-8000-00000000000b",
    "c0ffee00-0000-4000-8000-00000000000c",
    "c0ffee00-0000-4000-8000-00000000000d",
    "team",
    "Team",
];
const EVERYONE: &str = "00000000-0000-0000-0000-000000000000";
const ROLES: usize = 3;
const SUBSCRIPTIONS: [&str; 3] = [
    "11111111-1111-1111-1111-111111111111",
    "abcdefab-cdef-abcd-efab-cdefabcdefab",
    "abcdefab-cdef-abcd-efab-cdefabcdefac",
];
/// The first of a forest; the last is never said to exist.
const MANAGEMENT_GROUPS: [&str; 6] = ["root", "corp", "corp2", "sales", "emea", "ghost"];
const ACTIONS: [&str; 9] = [
    "A.B/c/read",
    "A.B/read",
    "A.B/c/d/read",
    "A.B/c/d/e/read",
    "A.B/c/write",
    "A.B/c/d/write",
    "A.B/c/d/go/action",
    "A.B//read",
    "A.BC/c/read",
];
const PATTERNS: [&str; 20] = [
    "*",
    "*/read",
    "*/write",
    "A.B/*",
    "A.B/c/*",
    "A.B/*/read",
    "A.B/c/*/read",
    "A.B/*/*/read",
    "A.B/*/d/*/read",
    "A.B/**/read",
    "*/c/*",
    "*/d/*",
    "A.B/c/read",
    "A.B/c/d/write",
    "A.B/*/*",
    "*/*/*",
    "A.B/c/d*",
    "*d*",
    "A.B*/read",
    "A.B/c/",
];
const PIECES: [&str; 9] = ["*", "/*/", "/", "A.B", "c", "d", "read", "write", "e"];
/// What comes behind a subscription.
const BELOW_SUBSCRIPTION: [&str; 12] = [
    "",
    "/resourceGroups/app",
    "/resourceGroups/app2",
    "/resourceGroups/app/providers/A.B/c/x",
    "/resourceGroups/app/providers/A.B/c/x2",
    "/resourceGroups/app/providers/A.B/c/x/d/y",
    "/resourceGroups/app/providers/A.B/c/x/d/y/z",
    "/resourceGroups/app/providers/A.B/c/x/providers/Microsoft.Authorization/roleAssignments/r",
    "/resourceGroups/app2/providers/A.B/c/x",
    "/providers/A.B/c/x",
    "/providers/A.B/c/x/d/y",
    "/providers/Microsoft.Management/managementGroups/corp",
];
const BELOW_GROUP: [&str; 4] =
    ["", "", "/providers/A.B/c/x", "/providers/A.B/c/x/providers/Microsoft.Authorization/roleAssignments/r"];
const ELSEWHERE: [&str; 8] = [
    "/",
    "/providers/A.B",
    "/providers/A.B/c/x",
    "/providers/A.B/c/x/d/y",
    "/providers/Microsoft.Management",
    "/providers/Microsoft.Subscription",
    "/providers/Microsoft.Management/managementGroupsX/corp",
    "/providers/Microsoft.Authorization/roleAssignments/r",
];

/// Flips the case of the letters whose bit is set.
fn cased(text: &str, bits: u64) -> String {
    text.chars()
        .enumerate()
        .map(|(at, c)| match bits >> (at % 64) & 1 {
            0 => c,
            _ if c.is_ascii_lowercase() => c.to_ascii_uppercase(),
            _ => c.to_ascii_lowercase(),
        })
        .collect()
}

/// Half of all texts stay as they are, so that shrunk failures read well.
fn bits() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), any::<u64>()]
}

/// An object id in one of its spellings; ids that are no GUIDs have only one.
fn spelled(id: &'static str) -> impl Strategy<Value = String> {
    (0..4_u8, bits()).prop_map(move |(form, bits)| {
        if id.len() != 36 {
            return id.to_owned();
        }
        let id = cased(id, bits);
        match form {
            0 | 1 => id,
            2 => id.replace('-', ""),
            _ => format!("{{{id}}}"),
        }
    })
}

/// Mostly the first few, so that questions and policies meet.
fn mostly_first(all: &'static [&'static str], few: usize) -> impl Strategy<Value = &'static str> {
    prop_oneof![2 => select(&all[..few]), 1 => select(all)]
}

fn caller() -> impl Strategy<Value = String> {
    mostly_first(&CALLERS, 1).prop_flat_map(spelled)
}

fn group() -> impl Strategy<Value = String> {
    mostly_first(&GROUPS, 2).prop_flat_map(spelled)
}

fn principal() -> impl Strategy<Value = String> {
    prop_oneof![caller(), group()]
}

fn scope() -> impl Strategy<Value = String> {
    let below_subscription = (
        select(
            &["/subscriptions/", "/subscriptions/", "/providers/Microsoft.Subscription/subscriptions/"][..],
        ),
        mostly_first(&SUBSCRIPTIONS, 1),
        select(&BELOW_SUBSCRIPTION[..]),
    )
        .prop_map(|(prefix, subscription, below)| format!("{prefix}{subscription}{below}"));
    let below_group =
        (select(&MANAGEMENT_GROUPS[..]), select(&BELOW_GROUP[..])).prop_map(|(group, below)| {
            format!("/providers/Microsoft.Management/managementGroups/{group}{below}")
        });
    let elsewhere = select(&ELSEWHERE[..]).prop_map(str::to_owned);
    let place = prop_oneof![6 => below_subscription, 3 => below_group, 1 => elsewhere];
    (place, bits(), prop_oneof![4 => Just(""), 1 => Just("/"), 1 => Just("//")])
        .prop_map(|(place, bits, slashes)| cased(&place, bits) + slashes)
}

/// Where something may stand: anywhere but at the provider that all management groups belong to by their text,
/// which the compiler refuses.
fn stored_scope() -> impl Strategy<Value = String> {
    let high = select(
        &[
            "/",
            "/providers/Microsoft.Management/managementGroups/root",
            "/providers/Microsoft.Management/managementGroups/corp",
            "/subscriptions/11111111-1111-1111-1111-111111111111",
            "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/app",
        ][..],
    );
    let high = (high, bits()).prop_map(|(high, bits)| cased(high, bits));
    prop_oneof![1 => high, 2 => scope()].prop_filter("beside the management groups", |scope| {
        !scope.trim_end_matches('/').eq_ignore_ascii_case("/providers/Microsoft.Management")
    })
}

/// Where a request may point: also far below everything.
fn target() -> impl Strategy<Value = String> {
    let tail = prop_oneof![6 => Just(0), 1 => 1..4_usize, 1 => 30..400_usize];
    (scope(), tail).prop_map(|(scope, tail)| {
        let longer = format!("{}{}", scope.trim_end_matches('/'), "/s".repeat(tail));
        if Scope::parse(&longer).is_ok() { longer } else { scope }
    })
}

fn action() -> impl Strategy<Value = String> {
    let joined = prop::collection::vec(select(&PIECES[2..]), 1..6).prop_map(|pieces| pieces.concat());
    (prop_oneof![8 => select(&ACTIONS[..]).prop_map(str::to_owned), 1 => joined], bits())
        .prop_map(|(action, bits)| cased(&action, bits))
}

fn pattern() -> impl Strategy<Value = String> {
    let joined = prop::collection::vec(select(&PIECES[..]), 1..7).prop_map(|pieces| pieces.concat());
    (prop_oneof![4 => mostly_first(&PATTERNS, 8).prop_map(str::to_owned), 1 => joined], bits())
        .prop_map(|(pattern, bits)| cased(&pattern, bits))
}

// === policies ===

fn spanned(value: String) -> Spanned<String> {
    Spanned { value, ..Spanned::default() }
}

fn all_spanned(values: Vec<String>) -> Vec<Spanned<String>> {
    values.into_iter().map(spanned).collect()
}

fn list(pattern_count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Spanned<String>>> {
    prop::collection::vec(pattern(), pattern_count).prop_map(all_spanned)
}

fn block() -> impl Strategy<Value = PermissionBlock> {
    (list(0..5), list(0..2), list(0..5), list(0..2)).prop_map(
        |(actions, not_actions, data_actions, not_data_actions)| PermissionBlock {
            actions,
            not_actions,
            data_actions,
            not_data_actions,
            ..PermissionBlock::default()
        },
    )
}

fn role_id(number: usize) -> String {
    format!("b0b0b0b0-0000-4000-8000-{number:012x}")
}

fn role_definitions() -> impl Strategy<Value = Vec<RoleDefinition>> {
    let role = prop::collection::vec(block(), 0..4);
    prop::collection::vec(role, ROLES).prop_map(|roles| {
        roles
            .into_iter()
            .enumerate()
            .map(|(number, permissions)| RoleDefinition {
                id: spanned(role_id(number)),
                role_name: spanned(format!("Role {number}")),
                permissions,
                assignable_scopes: vec![spanned("/".to_owned())],
                ..RoleDefinition::default()
            })
            .collect()
    })
}

/// Names that sort otherwise than they were drawn, some of them GUIDs in either case.
fn name(prefix: &str, number: usize) -> String {
    let place = number * 7 % 11;
    match number % 4 {
        0 => format!("{prefix}{place:02}00000-0000-4000-8000-0000000000F{prefix}").to_ascii_uppercase(),
        1 => format!("{prefix}{place:02}00000-0000-4000-8000-0000000000e{prefix}"),
        _ => format!("{prefix}{place:02}-{number}"),
    }
}

fn role_assignments() -> impl Strategy<Value = Vec<RoleAssignment>> {
    let assignment = (stored_scope(), principal(), 0..ROLES);
    prop::collection::vec(assignment, 0..16).prop_map(|assignments| {
        assignments
            .into_iter()
            .enumerate()
            .map(|(number, (scope, principal, role))| RoleAssignment {
                name: spanned(name("a", number)),
                scope: spanned(scope),
                role_definition_id: spanned(role_id(role)),
                principal_id: spanned(principal),
                ..RoleAssignment::default()
            })
            .collect()
    })
}

fn deny_assignments() -> impl Strategy<Value = Vec<DenyAssignment>> {
    let named = prop_oneof![2 => Just(EVERYONE.to_owned()), 3 => principal()];
    let deny = (
        stored_scope(),
        prop::collection::vec(named, 0..4),
        prop::collection::vec(principal(), 0..2),
        prop::collection::vec(block(), 0..4),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.3),
    );
    prop::collection::vec(deny, 0..7).prop_map(|denies| {
        denies
            .into_iter()
            .enumerate()
            .map(|(number, (scope, principals, excluded, permissions, not_below, audit))| DenyAssignment {
                name: spanned(name("d", number)),
                scope: spanned(scope),
                permissions,
                principals: all_spanned(principals),
                exclude_principals: all_spanned(excluded),
                do_not_apply_to_child_scopes: not_below,
                effect: if audit { DenyEffect::Audit } else { DenyEffect::Enforced },
                ..DenyAssignment::default()
            })
            .collect()
    })
}

fn groups() -> impl Strategy<Value = Vec<Group>> {
    let one = (group(), prop::collection::vec(principal(), 0..4));
    prop::collection::vec(one, 0..7).prop_map(|groups| {
        groups
            .into_iter()
            .map(|(id, members)| Group { id: spanned(id), members: all_spanned(members), ..Group::default() })
            .collect()
    })
}

/// A forest: a group hangs below an earlier one, or nowhere, or the data does not list it.
fn hierarchy() -> impl Strategy<Value = (Vec<ManagementGroup>, Vec<Subscription>)> {
    let group = (prop::bool::weighted(0.9), prop::option::weighted(0.8, any::<Index>()), bits(), bits());
    let subscription = (prop::option::weighted(0.8, 0..MANAGEMENT_GROUPS.len() - 1), bits(), bits());
    (
        prop::collection::vec(group, MANAGEMENT_GROUPS.len() - 1),
        prop::collection::vec(subscription, SUBSCRIPTIONS.len()),
    )
        .prop_map(|(groups, subscriptions)| {
            let groups = groups.into_iter().enumerate().filter(|(_, (listed, ..))| *listed);
            let groups = groups.map(|(number, (_, parent, bits, parent_bits))| ManagementGroup {
                name: spanned(cased(MANAGEMENT_GROUPS[number], bits)),
                parent: parent
                    .filter(|_| number > 0)
                    .map(|parent| spanned(cased(MANAGEMENT_GROUPS[parent.index(number)], parent_bits))),
            });
            let subscriptions =
                subscriptions.into_iter().enumerate().filter_map(|(number, (parent, bits, parent_bits))| {
                    Some(Subscription {
                        id: spanned(cased(SUBSCRIPTIONS[number], bits)),
                        parent: spanned(cased(MANAGEMENT_GROUPS[parent?], parent_bits)),
                    })
                });
            (groups.collect(), subscriptions.collect())
        })
}

/// A policy that prints as text short enough to read when a property fails.
#[derive(Clone)]
struct Drawn(Documents);

impl fmt::Debug for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = |list: &[Spanned<String>]| {
            list.iter().map(|text| text.value.clone()).collect::<Vec<_>>().join(" ")
        };
        let blocks = |f: &mut fmt::Formatter<'_>, blocks: &[PermissionBlock]| {
            blocks.iter().try_for_each(|block| {
                for (name, list) in block.lists().into_iter().filter(|(_, list)| !list.is_empty()) {
                    write!(f, " {name}: {};", texts(list))?;
                }
                writeln!(f, " |")
            })
        };
        writeln!(f)?;
        for role in &self.0.role_definitions {
            writeln!(f, "role {}", role.id.value)?;
            blocks(f, &role.permissions)?;
        }
        for a in &self.0.role_assignments {
            let (role, principal) = (&a.role_definition_id.value, &a.principal_id.value);
            writeln!(f, "assignment {} at {} of {role} to {principal}", a.name.value, a.scope.value)?;
        }
        for deny in &self.0.deny_assignments {
            let below = if deny.do_not_apply_to_child_scopes { " not below" } else { "" };
            writeln!(f, "deny {} {:?} at {}{below}", deny.name.value, deny.effect, deny.scope.value)?;
            writeln!(f, "  to {} except {}", texts(&deny.principals), texts(&deny.exclude_principals))?;
            blocks(f, &deny.permissions)?;
        }
        for group in &self.0.groups {
            writeln!(f, "group {}: {}", group.id.value, texts(&group.members))?;
        }
        for group in &self.0.management_groups {
            let parent = group.parent.as_ref().map(|parent| &parent.value);
            writeln!(f, "management group {} below {parent:?}", group.name.value)?;
        }
        for subscription in &self.0.subscriptions {
            writeln!(f, "subscription {} below {}", subscription.id.value, subscription.parent.value)?;
        }
        Ok(())
    }
}

fn documents() -> impl Strategy<Value = Drawn> {
    (role_definitions(), role_assignments(), deny_assignments(), groups(), hierarchy()).prop_map(
        |(role_definitions, role_assignments, deny_assignments, groups, hierarchy)| {
            Drawn(Documents {
                role_definitions,
                role_assignments,
                deny_assignments,
                groups,
                management_groups: hierarchy.0,
                subscriptions: hierarchy.1,
                ..Documents::default()
            })
        },
    )
}

#[derive(Clone, Debug)]
struct Ask {
    principal: String,
    groups: Vec<String>,
    action: String,
    data_action: bool,
    resource: String,
}

fn ask() -> impl Strategy<Value = Ask> {
    // Rarely more than the engine keeps on the stack, over and over the same few.
    let groups =
        prop_oneof![15 => prop::collection::vec(group(), 0..3), 1 => prop::collection::vec(group(), 40..300)];
    (caller(), groups, action(), prop::bool::weighted(0.3), target()).prop_map(
        |(principal, groups, action, data_action, resource)| Ask {
            principal,
            groups,
            action,
            data_action,
            resource,
        },
    )
}

// === comparing ===

fn answer_of(policy: &Policy, evaluation: Result<&Evaluation, &Undecided>) -> naive::Answer {
    match evaluation {
        Err(Undecided::UnknownHierarchy { .. }) => naive::Answer::UnknownHierarchy,
        Err(other) => panic!("no decision: {other}"),
        Ok(evaluation) => {
            let mut audited: Vec<String> =
                evaluation.audited.iter().map(|&hit| policy.deny_assignment_name(hit)).collect();
            audited.sort();
            let verdict = match evaluation.decision {
                Decision::Allowed(grant) => naive::Verdict::Allowed(policy.role_assignment_name(grant)),
                Decision::NotAllowed(Why::NoRoleAssignment) => naive::Verdict::NothingAssigned,
                Decision::NotAllowed(Why::ActionNotGranted) => naive::Verdict::ActionNotGranted,
                Decision::Denied(hit) => naive::Verdict::Denied(policy.deny_assignment_name(hit)),
            };
            naive::Answer::Decided { verdict, audited }
        }
    }
}

/// The engine prints GUIDs in their canonical spelling.
fn printed(answer: naive::Answer) -> naive::Answer {
    let print = |name: String| PrincipalId::new(&name).to_string();
    match answer {
        naive::Answer::Decided { verdict, audited } => {
            let verdict = match verdict {
                naive::Verdict::Allowed(name) => naive::Verdict::Allowed(print(name)),
                naive::Verdict::Denied(name) => naive::Verdict::Denied(print(name)),
                other => other,
            };
            let mut audited: Vec<String> = audited.into_iter().map(print).collect();
            audited.sort();
            naive::Answer::Decided { verdict, audited }
        }
        other => other,
    }
}

fn config() -> ProptestConfig {
    let found = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/property.proptest-regressions");
    let cases = std::env::var("POSTERN_PROPTEST_CASES").map(|cases| cases.parse().expect("a number"));
    ProptestConfig {
        cases: cases.unwrap_or(1500),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(found))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn engine_agrees_with_naive(
        Drawn(documents) in documents(),
        strict in prop::bool::weighted(0.2),
        asks in prop::collection::vec(ask(), 1..24),
    ) {
        let wildcards = if strict { Wildcards::Strict } else { Wildcards::Collapse };
        let compile = || Policy::compile(&documents, CompileOptions { wildcards }).expect("nothing to refuse");
        let policy = compile();
        let (mut writer, reader) = cell();
        writer.activate(compile(), 0, Timestamp::UNIX_EPOCH);
        let cache = CacheSettings { policy: CachePolicy::CostAtLeast(0), max_bytes: 1 << 20 };
        let authorizer = Authorizer::new(reader, cache, Clock::system());
        let snapshot = authorizer.snapshot();
        let snapshot = snapshot.get().expect("an active policy");
        prop_assert_eq!(policy.digest(), snapshot.policy.digest(), "equal documents, equal digest");
        for ask in &asks {
            let wanted = printed(naive::check(&documents, &naive::Question {
                principal: &ask.principal,
                groups: &ask.groups,
                action: &ask.action,
                data_action: ask.data_action,
                resource: &ask.resource,
                strict_wildcards: strict,
            }));
            let request = CheckRequest::new(Subject { principal: PrincipalId::new(&ask.principal), groups: &ask.groups }, Action::parse(&ask.action).unwrap(), Plane::from_data_action(ask.data_action), Scope::parse(&ask.resource).unwrap());
            let direct = answer_of(&policy, policy.evaluate(&request, Timestamp::UNIX_EPOCH).as_ref());
            prop_assert_eq!(&direct, &wanted, "evaluate: {:#?}", ask);
            for time in ["first", "second"] {
                let answer = authorizer.check(snapshot, &request, None);
                let given = answer_of(&snapshot.policy, answer.as_ref().map(|answer| &answer.evaluation));
                prop_assert_eq!(&given, &wanted, "authorizer, asked the {} time: {:#?}", time, ask);
            }
        }
    }

    #[test]
    fn scopes_are_scopes_to_both(
        text in prop_oneof![
            scope(),
            prop::collection::vec(
                select(&[
                    "/", "/", "subscriptions", SUBSCRIPTIONS[1], "resourceGroups", "app", "providers", "A.B", "c",
                    "Microsoft.Management", "managementGroups", "Microsoft.Subscription", "\n", " ",
                ][..]),
                0..12,
            ).prop_map(|pieces| pieces.concat()),
            prop::collection::vec(
                select(&[
                    "subscriptions", SUBSCRIPTIONS[1], "resourceGroups", "app", "providers", "A.B", "c",
                    "Microsoft.Management", "managementGroups", "Microsoft.Subscription",
                ][..]),
                0..10,
            ).prop_map(|segments| format!("/{}", segments.join("/"))),
        ],
    ) {
        prop_assert_eq!(Scope::parse(&text).is_ok(), naive::is_scope(&text));
    }

    #[test]
    fn long_patterns_match_alike(
        pattern in "[abAB/*]{0,12}",
        action in "[abAB/]{0,12}",
        strict: bool,
    ) {
        let wildcards = if strict { Wildcards::Strict } else { Wildcards::Collapse };
        prop_assert_eq!(
            pattern_matches(&pattern, &action, wildcards),
            naive::action_matches(&pattern, &action, strict)
        );
    }
}

/// The properties above are worth what they draw: every answer must come up often.
#[test]
fn draws_are_varied() {
    let mut runner = TestRunner::deterministic();
    let drawn = (documents(), prop::collection::vec(ask(), 24));
    let (mut all, mut unknown, mut allowed, mut denied) = (0, 0, 0, 0);
    let (mut nothing_assigned, mut not_granted, mut audit) = (0, 0, 0);
    for _ in 0..300 {
        let (Drawn(documents), asks) = drawn.new_tree(&mut runner).unwrap().current();
        for ask in asks {
            all += 1;
            let question = naive::Question {
                principal: &ask.principal,
                groups: &ask.groups,
                action: &ask.action,
                data_action: ask.data_action,
                resource: &ask.resource,
                strict_wildcards: false,
            };
            match naive::check(&documents, &question) {
                naive::Answer::InvalidResource => panic!("{ask:?}"),
                naive::Answer::UnknownHierarchy => unknown += 1,
                naive::Answer::Decided { verdict, audited } => {
                    audit += usize::from(!audited.is_empty());
                    match verdict {
                        naive::Verdict::Allowed(_) => allowed += 1,
                        naive::Verdict::Denied(_) => denied += 1,
                        naive::Verdict::NothingAssigned => nothing_assigned += 1,
                        naive::Verdict::ActionNotGranted => not_granted += 1,
                    }
                }
            }
        }
    }
    println!(
        "of {all}: {allowed} allowed, {nothing_assigned} with nothing assigned, {not_granted} not granted, \
         {denied} denied, {unknown} undecided, {audit} with audit"
    );
    for (kind, count) in [
        ("allowed", allowed),
        ("nothing assigned", nothing_assigned),
        ("not granted", not_granted),
        ("denied", denied),
        ("undecided", unknown),
        ("audit", audit),
    ] {
        assert!(count * 100 > all, "{kind}: {count} of {all}");
    }
}

/// Every pattern of up to six characters on every action of up to five.
#[test]
fn short_patterns_match_alike() {
    fn words(alphabet: &[char], longest: usize) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut begin = 0;
        for _ in 0..longest {
            let end = words.len();
            for at in begin..end {
                for &letter in alphabet {
                    words.push(format!("{}{letter}", words[at]));
                }
            }
            begin = end;
        }
        words
    }
    let actions = words(&['a', 'b', '/'], 5);
    for pattern in words(&['a', 'b', '/', '*'], 6) {
        for action in &actions {
            for (wildcards, strict) in [(Wildcards::Collapse, false), (Wildcards::Strict, true)] {
                assert_eq!(
                    pattern_matches(&pattern, action, wildcards),
                    naive::action_matches(&pattern, action, strict),
                    "{pattern} on {action}, strict: {strict}"
                );
            }
        }
    }
}
