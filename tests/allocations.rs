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
//!
//! The first question about an action fills the memo of the policy; that one may allocate.

#[path = "../benches/support/counting.rs"]
mod counting;
#[allow(dead_code, reason = "the benches use the rest")]
#[path = "../benches/support/tenant.rs"]
mod tenant;

use counting::{Counting, allocations};
use jiff::Timestamp;
use postern::authorizer::{Authorizer, CacheSettings};
use postern::cache::CachePolicy;
use postern::clock::Clock;
use postern::model::Decision;
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
