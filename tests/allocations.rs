#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "tests"
)]
//! Deciding allocates nothing: neither evaluating, nor the authorizer without a cache, nor an answer from the cache.
//! Opening a bundle allocates as much for a large policy as for a small one.
//!
//! The first question about an action fills the memo of the policy; that one may allocate.

#[path = "../benches/support/counting.rs"]
mod counting;
#[allow(dead_code, reason = "the benches use the rest")]
#[path = "../benches/support/tenant.rs"]
mod tenant;

use counting::{Counting, allocations};
use jiff::{SignedDuration, Timestamp};
use postern::authorizer::{Authorizer, CacheSettings};
use postern::bundle::{self, About, Check, Limits};
use postern::cache::CachePolicy;
use postern::clock::Clock;
use postern::model::{
    Action, At, Attributes, CheckRequest, ConditionText, Decision, PermissionBlock, Plane, RequestAttributes,
    RoleAssignment, RoleDefinition, Schedule, ScheduleKind, Spanned,
};
use postern::policy::{CompileOptions, Policy};
use postern::snapshot::cell;
use tenant::{Question, Tenant};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn counted<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = allocations();
    let result = work();
    (result, allocations() - before)
}

fn compile(tenant: &Tenant) -> Policy {
    Policy::compile(&tenant.documents, CompileOptions::default()).expect("a consistent tenant")
}

fn authorizer(tenant: &Tenant, policy: CachePolicy) -> Authorizer {
    let (mut writer, reader) = cell();
    writer.activate(compile(tenant), 0, Timestamp::UNIX_EPOCH);
    Authorizer::new(reader, CacheSettings { policy, max_bytes: 64 << 20 }, Clock::system())
}

/// Parses and asks twice; counts the second time. Gives how often each answer came up.
fn assert_silent(questions: &[Question], mut ask: impl FnMut(&Question) -> Decision) -> [usize; 3] {
    let (mut allowed, mut not_allowed, mut denied) = (0, 0, 0);
    for question in questions {
        ask(question);
        let (decision, count) = counted(|| ask(question));
        match decision {
            Decision::Allowed(_) => allowed += 1,
            Decision::NotAllowed(_) => not_allowed += 1,
            Decision::Denied(_) => denied += 1,
        }
        assert_eq!(count, 0, "{} allocates for {question:?}", decision.name());
    }
    println!("{allowed} allowed, {not_allowed} not allowed, {denied} denied");
    [allowed, not_allowed, denied]
}

fn assert_varied(counts: [usize; 3]) {
    assert!(counts.iter().all(|&count| count > 10), "every answer comes up: {counts:?}");
}

#[test]
fn the_counter_counts() {
    let (kept, count) = counted(|| vec![1_u8; 100]);
    assert_eq!((kept.len(), count), (100, 1));
}

#[test]
fn evaluating_allocates_nothing() {
    let tenant = Tenant::new(1_000);
    let policy = compile(&tenant);
    let questions = tenant.questions(10);
    let counts = assert_silent(&questions, |question| {
        policy.evaluate(&question.parse(), Timestamp::UNIX_EPOCH).unwrap().decision
    });
    assert_varied(counts);
    assert_silent(&tenant.heavy_questions()[..1024], |question| {
        policy.evaluate(&question.parse(), Timestamp::UNIX_EPOCH).unwrap().decision
    });
}

#[test]
fn checking_without_a_cache_allocates_nothing() {
    let tenant = Tenant::new(1_000);
    let authorizer = authorizer(&tenant, CachePolicy::Off);
    let counts = assert_silent(&tenant.questions(10), |question| {
        let snapshot = authorizer.snapshot();
        authorizer.check(snapshot.get().unwrap(), &question.parse(), None).unwrap().evaluation.decision
    });
    assert_varied(counts);
}

/// Nothing is parsed or kept for an item: the allocations are those of the manifest and the mapping.
#[test]
fn opening_a_bundle_does_not_depend_on_what_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.bundle");
    let counts = [100, 10_000].map(|assignments| {
        let policy = compile(&Tenant::new(assignments));
        bundle::write(&path, &bundle::build(&policy, &About::default()).unwrap()).unwrap();
        let check = Check::Bounds { digest: "sha256:known".to_owned() };
        let start = std::time::Instant::now();
        let (opened, count) =
            counted(|| bundle::open_verified(&path, Limits::default(), check).expect("a bundle"));
        println!("{} bytes: {count} allocations, {:?}", opened.bytes(), start.elapsed());
        assert_eq!(opened.policy.bytes(), policy.bytes());
        count
    });
    assert_eq!(counts[0], counts[1]);
    assert!(counts[0] < 100, "{counts:?}");
}

/// The second question is answered from the cache.
#[test]
fn an_answer_from_the_cache_allocates_nothing() {
    let tenant = Tenant::new(1_000);
    let authorizer = authorizer(&tenant, CachePolicy::CostAtLeast(0));
    for question in tenant.questions(10) {
        let check = || {
            let snapshot = authorizer.snapshot();
            authorizer.check(snapshot.get().unwrap(), &question.parse(), None).unwrap()
        };
        check();
        let (answer, count) = counted(check);
        assert!(answer.cached, "{question:?}");
        assert_eq!(count, 0, "an answer from the cache allocates for {question:?}");
    }
}

/// Conditions over tags and paths, and windows that have to be looked into for `valid_until`.
#[test]
fn conditions_and_windows_allocate_nothing() {
    const BLOB_READ: &str = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read";
    const ATTRIBUTE: &str = "@Resource[Microsoft.Storage/storageAccounts/blobServices/containers/blobs";
    let tenant = Tenant::new(1_000);
    let mut documents = tenant.documents.clone();
    let text = |value: &str| Spanned::new(value.to_owned(), At::default());
    let now = Timestamp::UNIX_EPOCH;
    let reader = RoleDefinition {
        id: text("2a2b9908-6ea1-4ae2-8e65-a410df84e7d1"),
        role_name: text("Storage Blob Data Reader"),
        permissions: vec![PermissionBlock {
            data_actions: vec![text(BLOB_READ)],
            ..PermissionBlock::default()
        }],
        assignable_scopes: vec![text("/")],
        ..RoleDefinition::default()
    };
    let question = tenant.questions(10).swap_remove(0);
    let principal = question.parse().subject.principal.to_string();
    let assigned = |name: &str, condition: &str| RoleAssignment {
        name: text(name),
        scope: text("/"),
        role_definition_id: reader.id.clone(),
        principal_id: text(&principal),
        condition: Some(ConditionText { text: text(condition), version: None }),
        ..RoleAssignment::default()
    };
    let tagged = format!(
        "!(ActionMatches{{'{BLOB_READ}'}}) OR ({ATTRIBUTE}/tags:Project<$key_case_sensitive$>] \
         StringEqualsIgnoreCase 'Cascade' AND {ATTRIBUTE}:path] ForAnyOfAnyValues:StringLike {{'a/*', 'readme*'}})"
    );
    documents.role_assignments.push(assigned("77777777-7777-4777-8777-000000000001", &tagged));
    let schedule = |number: i64| Schedule {
        kind: ScheduleKind::Active,
        name: text(&format!("88888888-8888-4888-8888-{number:012}")),
        scope: text("/"),
        role_definition_id: reader.id.clone(),
        principal_id: text(&principal),
        start: Some(Spanned::new(now + SignedDuration::from_hours(number), At::default())),
        end: Some(Spanned::new(now + SignedDuration::from_hours(number + 2), At::default())),
        ..Schedule::default()
    };
    documents.schedules.extend((0..8).map(schedule));
    documents.role_definitions.push(reader);
    let policy = Policy::compile(&documents, CompileOptions::default()).expect("a consistent tenant");

    let (mut allowed, mut ending) = (0, 0);
    for (project, path) in [("cascade", "readme.txt"), ("Baker", "readme.txt"), ("CASCADE", "b/c"), ("x", "")]
    {
        let resource = Attributes::from_json(&serde_json::json!({
            "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/tags:Project": project,
            "Microsoft.Storage/storageAccounts/blobServices/containers/blobs:path": path,
        }));
        for hours in [-1, 0, 1, 9, 10, 24] {
            let asked = CheckRequest {
                action: Action::parse(BLOB_READ).unwrap(),
                plane: Plane::Data,
                attributes: RequestAttributes { resource: &resource, ..RequestAttributes::NONE },
                ..question.parse()
            };
            let at = now + SignedDuration::from_hours(hours);
            let first = policy.evaluate(&asked, at).unwrap();
            let (again, count) = counted(|| policy.evaluate(&asked, at).unwrap());
            assert_eq!(count, 0, "{project} {path} at {at}");
            assert_eq!(again, first);
            ending += usize::from(again.valid_until.is_some());
            allowed += usize::from(matches!(again.decision, Decision::Allowed(_)));
        }
    }
    println!("{allowed} allowed, {ending} with an end");
    assert!(allowed > 10 && ending > 10);
}
