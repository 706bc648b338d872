#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "benches"
)]
//! What a check costs, at 1,000, 10,000 and 100,000 role assignments of the tenant in `support/tenant.rs`.
//!
//! Every bench walks through a pool of 4,096 different questions, over and over, so that what the policy holds is as
//! cold as it would be; the strings of a question are copied just before, as decoding a message leaves them in the
//! processor's cache. A sample is a mean over 16 questions (`report` has percentiles of single ones).
//! `nested_hash_maps` is the baseline for scale on the same questions. Run with `cargo bench --bench check`.

#[path = "support/nested.rs"]
mod nested;
#[path = "support/tenant.rs"]
mod tenant;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::{Mutex, PoisonError};

use divan::Bencher;
use jiff::Timestamp;
use nested::Nested;
use postern::authorizer::{Authorizer, CacheSettings};
use postern::cache::CachePolicy;
use postern::clock::Clock;
use postern::documents::{Lenience, load_texts};
use postern::model::{
    Action, At, Attributes, CheckRequest, ConditionText, Decision, Groups, PermissionBlock, Plane,
    PrincipalId, RoleDefinition, Schedule, Scope, Spanned, Subject,
};
use postern::policy::{CompileOptions, Policy};
use postern::snapshot::cell;
use serde_json::json;
use tenant::{POOL, Question, Tenant};

#[global_allocator]
static ALLOCATOR: divan::AllocProfiler = divan::AllocProfiler::system();

const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

fn main() {
    divan::main();
}

/// Built once for each size and kept.
struct Fixture {
    tenant: Tenant,
    policy: Policy,
    questions: Vec<Question>,
    heavy: Vec<Question>,
}

fn fixture(size: usize) -> &'static Fixture {
    static ALL: Mutex<BTreeMap<usize, &'static Fixture>> = Mutex::new(BTreeMap::new());
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.entry(size).or_insert_with(|| {
        let tenant = Tenant::new(size);
        let policy = compile(&tenant);
        let (questions, heavy) = (tenant.questions(10), tenant.heavy_questions());
        // The memo holds every action, as it does a moment after the start.
        for question in questions.iter().chain(&heavy) {
            let _ = policy.evaluate(&question.parse(), Timestamp::UNIX_EPOCH);
        }
        Box::leak(Box::new(Fixture { tenant, policy, questions, heavy }))
    })
}

fn compile(tenant: &Tenant) -> Policy {
    Policy::compile(&tenant.documents, CompileOptions::default()).expect("a consistent tenant")
}

/// Round and round.
struct Pool<'a, T> {
    all: &'a [T],
    at: usize,
}

impl<'a, T> Pool<'a, T> {
    fn new(all: &'a [T]) -> Self {
        assert_eq!(all.len(), POOL);
        Self { all, at: 0 }
    }

    fn next(&mut self) -> &'a T {
        self.at = (self.at + 1) % POOL;
        &self.all[self.at]
    }
}

/// The evaluation itself: the request is parsed.
#[divan::bench(args = SIZES, sample_count = 2048, sample_size = 16)]
fn evaluate(bencher: Bencher<'_, '_>, size: usize) {
    let fixture = fixture(size);
    let requests: Vec<CheckRequest<'_>> = fixture.questions.iter().map(Question::parse).collect();
    let mut pool = Pool::new(&requests);
    bencher
        .with_inputs(|| warm(pool.next()))
        .bench_local_refs(|request| fixture.policy.evaluate(request, Timestamp::UNIX_EPOCH));
}

/// From decoded strings to the decision: 10 asserted groups.
#[divan::bench(args = SIZES, sample_count = 2048, sample_size = 16)]
fn from_strings(bencher: Bencher<'_, '_>, size: usize) {
    let fixture = fixture(size);
    let mut pool = Pool::new(&fixture.questions);
    bencher
        .with_inputs(|| pool.next().clone())
        .bench_local_refs(|question| fixture.policy.evaluate(&question.parse(), Timestamp::UNIX_EPOCH));
}

/// The same for 200 asserted groups and a scope eleven levels deep.
#[divan::bench(args = SIZES, sample_count = 2048, sample_size = 16)]
fn from_strings_heavy(bencher: Bencher<'_, '_>, size: usize) {
    let fixture = fixture(size);
    let mut pool = Pool::new(&fixture.heavy);
    bencher
        .with_inputs(|| pool.next().clone())
        .bench_local_refs(|question| fixture.policy.evaluate(&question.parse(), Timestamp::UNIX_EPOCH));
}

/// From decoded strings, for an action that nobody has asked about before.
#[divan::bench(args = SIZES, sample_count = 64, sample_size = 128)]
fn memo_miss(bencher: Bencher<'_, '_>, size: usize) {
    let fixture = fixture(size);
    let mut pool = Pool::new(&fixture.questions);
    // A policy of its own, so that the memo of the others stays as it is.
    let policy = compile(&fixture.tenant);
    let mut number = 0_u64;
    bencher
        .with_inputs(|| {
            number += 1;
            let mut question = pool.next().clone();
            question.action = format!("{}/x{number}/read", question.action.replace('/', "/y"));
            question
        })
        .bench_local_refs(|question| policy.evaluate(&question.parse(), Timestamp::UNIX_EPOCH));
}

/// Reads what a request borrows, as decoding it would have.
fn warm<'a>(request: &CheckRequest<'a>) -> CheckRequest<'a> {
    for group in request.subject.groups.iter() {
        black_box(group.as_bytes().iter().map(|&byte| u32::from(byte)).sum::<u32>());
    }
    black_box(request.scope.as_str().len() + request.action.as_str().len());
    *request
}

fn authorizer(size: usize, policy: CachePolicy) -> Authorizer {
    warmed(size, policy, &fixture(size).questions)
}

fn warmed(size: usize, policy: CachePolicy, questions: &[Question]) -> Authorizer {
    let (mut writer, reader) = cell();
    writer.activate(compile(&fixture(size).tenant), 0, Timestamp::UNIX_EPOCH);
    let authorizer = Authorizer::new(reader, CacheSettings { policy, max_bytes: 64 << 20 }, Clock::system());
    for question in questions {
        check(&authorizer, question);
    }
    authorizer
}

fn check(authorizer: &Authorizer, question: &Question) -> bool {
    let snapshot = authorizer.snapshot();
    authorizer
        .check(snapshot.get().expect("a policy"), &question.parse(), None)
        .is_ok_and(|answer| answer.cached)
}

/// Snapshot, evaluation; from decoded strings.
#[divan::bench(args = SIZES, sample_count = 2048, sample_size = 16)]
fn authorizer_cache_off(bencher: Bencher<'_, '_>, size: usize) {
    let authorizer = authorizer(size, CachePolicy::Off);
    let mut pool = Pool::new(&fixture(size).questions);
    bencher.with_inputs(|| pool.next().clone()).bench_local_refs(|question| check(&authorizer, question));
}

/// Snapshot, a look into the cache in vain, evaluation, insertion: no question comes twice.
#[divan::bench(args = SIZES, sample_count = 64, sample_size = 128)]
fn authorizer_cache_cold(bencher: Bencher<'_, '_>, size: usize) {
    let authorizer = authorizer(size, CachePolicy::CostAtLeast(0));
    let mut pool = Pool::new(&fixture(size).questions);
    let mut number = 0_u64;
    bencher
        .with_inputs(|| {
            number += 1;
            let mut question = pool.next().clone();
            question.principal = format!("caller-{number}");
            question
        })
        .bench_local_refs(|question| check(&authorizer, question));
}

/// Snapshot, the answer from the cache.
#[divan::bench(args = SIZES, sample_count = 2048, sample_size = 16)]
fn authorizer_cache_hot(bencher: Bencher<'_, '_>, size: usize) {
    let authorizer = authorizer(size, CachePolicy::CostAtLeast(0));
    let mut pool = Pool::new(&fixture(size).questions);
    bencher.with_inputs(|| pool.next().clone()).bench_local_refs(|question| check(&authorizer, question));
}

/// 200 groups and eleven levels, evaluated each time.
#[divan::bench(args = SIZES, sample_count = 2048, sample_size = 16)]
fn authorizer_heavy_cache_off(bencher: Bencher<'_, '_>, size: usize) {
    let authorizer = warmed(size, CachePolicy::Off, &fixture(size).heavy);
    let mut pool = Pool::new(&fixture(size).heavy);
    bencher.with_inputs(|| pool.next().clone()).bench_local_refs(|question| check(&authorizer, question));
}

/// 200 groups and eleven levels, from the cache.
#[divan::bench(args = SIZES, sample_count = 2048, sample_size = 16)]
fn authorizer_heavy_cache_hot(bencher: Bencher<'_, '_>, size: usize) {
    let authorizer = warmed(size, CachePolicy::CostAtLeast(0), &fixture(size).heavy);
    let mut pool = Pool::new(&fixture(size).heavy);
    bencher.with_inputs(|| pool.next().clone()).bench_local_refs(|question| check(&authorizer, question));
}

/// The baseline, from decoded strings.
#[divan::bench(args = SIZES, sample_count = 2048, sample_size = 16)]
fn nested_hash_maps(bencher: Bencher<'_, '_>, size: usize) {
    let fixture = fixture(size);
    let nested = Nested::new(&fixture.tenant.documents);
    for question in &fixture.questions {
        nested.check(question);
    }
    let mut pool = Pool::new(&fixture.questions);
    bencher.with_inputs(|| pool.next().clone()).bench_local_refs(|question| nested.check(question));
}

/// Documents to policy.
#[divan::bench(args = SIZES, sample_count = 10, sample_size = 1)]
fn compiling(bencher: Bencher<'_, '_>, size: usize) {
    let fixture = fixture(size);
    bencher.bench_local(|| compile(&fixture.tenant));
}

/// JSON as the Azure CLI writes it to documents.
#[divan::bench(args = SIZES, sample_count = 5, sample_size = 1)]
fn loading(bencher: Bencher<'_, '_>, size: usize) {
    let files = fixture(size).tenant.files();
    bencher.with_inputs(|| files.clone()).bench_local_values(|files| {
        let (documents, problems) = load_texts(files, Lenience::Strict);
        assert!(!problems.has_errors(), "{problems:?}");
        documents
    });
}

// --- conditions ---

const BLOB_READ: &str = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read";
const BLOBS: &str = "00000000-0000-4000-b000-000000000001";
const STORAGE: &str = "/subscriptions/00000000-0000-4000-b000-000000000002/resourceGroups/data/providers/\
                       Microsoft.Storage/storageAccounts/contoso";

/// Read blobs with a tag value, but list all.
const TAG: &str = "((!(ActionMatches{'Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read'} AND \
     NOT SubOperationMatches{'Blob.List'})) OR \
     (@Resource[Microsoft.Storage/storageAccounts/blobServices/containers/blobs/tags:Project<$key_case_sensitive$>] \
     StringEqualsIgnoreCase 'Cascade'))";

/// A reader of blobs in the tenant of 10,000 assignments, with a condition or an end, and the blob's attributes.
fn blob_reader(condition: Option<&str>, end: Option<i64>) -> (Policy, Attributes) {
    let text = |text: &str| Spanned::new(text.to_owned(), At::default());
    let mut documents = fixture(10_000).tenant.documents.clone();
    documents.role_definitions.push(RoleDefinition {
        id: text(BLOBS),
        permissions: vec![PermissionBlock {
            data_actions: vec![text(BLOB_READ)],
            ..PermissionBlock::default()
        }],
        assignable_scopes: vec![text("/")],
        ..RoleDefinition::default()
    });
    let end = end.map(|end| Timestamp::from_second(end).expect("a time"));
    documents.schedules.push(Schedule {
        name: text("blob-reader"),
        scope: text(STORAGE),
        role_definition_id: text(BLOBS),
        principal_id: text("reader"),
        end: end.map(|end| Spanned::new(end, At::default())),
        condition: condition.map(|condition| ConditionText { text: text(condition), version: None }),
        ..Schedule::default()
    });
    let policy = Policy::compile(&documents, CompileOptions::default()).expect("a consistent tenant");
    let blob = Attributes::from_json(&json!({
        "Microsoft.Storage/storageAccounts/blobServices/containers:name": "contosocontainer",
        "Microsoft.Storage/storageAccounts/blobServices/containers/blobs:path": "logs/2026/01/x.txt",
        "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/tags":
            {"Owner": "ada", "Project": "cascade", "Sensitivity": "low"},
    }));
    (policy, blob)
}

fn read_a_blob(bencher: Bencher<'_, '_>, condition: Option<&str>, end: Option<i64>) {
    let (policy, blob) = blob_reader(condition, end);
    let mut request = CheckRequest::new(
        Subject { principal: PrincipalId::new("reader"), groups: Groups::NONE },
        Action::parse(BLOB_READ).expect("an action"),
        Plane::Data,
        Scope::parse(STORAGE).expect("a scope"),
    );
    request.attributes.resource = &blob;
    bencher.bench_local(|| {
        let evaluation = policy.evaluate(black_box(&request), Timestamp::UNIX_EPOCH).expect("a decision");
        assert!(matches!(evaluation.decision, Decision::Allowed(_)));
    });
}

/// One grant at one scope, all in the processor's cache: what the next two add to.
#[divan::bench(sample_count = 1024, sample_size = 64)]
fn blob_plain(bencher: Bencher<'_, '_>) {
    read_a_blob(bencher, None, None);
}

/// The same under a condition on a tag.
#[divan::bench(sample_count = 1024, sample_size = 64)]
fn blob_under_a_condition(bencher: Bencher<'_, '_>) {
    read_a_blob(bencher, Some(TAG), None);
}

/// The same until some day: decided twice, for `valid_until`.
#[divan::bench(sample_count = 1024, sample_size = 64)]
fn blob_for_a_time(bencher: Bencher<'_, '_>) {
    read_a_blob(bencher, None, Some(1_000));
}
