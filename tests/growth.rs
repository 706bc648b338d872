#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "tests"
)]
//! However many questions are asked, and whatever they are about, what is held does not grow: by the library, counted
//! to the byte, and by a sidecar, as the kernel counts it. The questions are mixed as callers would mix them who mean no
//! good: known and invented subjects, groups, actions and scopes, alone, in batches and over streams, with a decision
//! cache that is asked always and holds far fewer than there are.
//!
//! What may grow is full before anything is compared: the cache, and the memo of actions. Then as many questions are
//! asked as a debug build answers in some seconds, or as `POSTERN_REQUESTS` says:
//!
//! ```text
//! POSTERN_REQUESTS=10000000 cargo test --release --test growth -- --nocapture
//! ```

mod common;
#[allow(dead_code, reason = "the benches use the rest")]
#[path = "../benches/support/tenant.rs"]
mod tenant;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::process::Child;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use postern::authorizer::{Authorizer, CacheSettings};
use postern::cache::CachePolicy;
use postern::clock::Clock;
use postern::model::{Action, CheckRequest, Plane, PrincipalId, Scope, Subject};
use postern::policy::{CompileOptions, Policy};
use postern::proto::v1;
use postern::proto::v1::authorization_service_client::AuthorizationServiceClient;
use postern::snapshot::cell;
use serde_json::json;
use tenant::{Question, Rng, Tenant};
use tonic::transport::{Channel, Endpoint};

/// The system's allocator, and how many bytes it has given out that have not come back.
struct Live;

static LIVE: AtomicI64 = AtomicI64::new(0);

fn live() -> i64 {
    LIVE.load(Ordering::Relaxed)
}

fn count(more: usize, less: usize) {
    LIVE.fetch_add(more as i64 - less as i64, Ordering::Relaxed);
}

#[allow(unsafe_code, reason = "a global allocator is an unsafe trait")]
mod allocator {
    use super::*;

    // SAFETY: every call goes to the system's allocator as it came; counting neither allocates nor unwinds.
    unsafe impl GlobalAlloc for Live {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            count(layout.size(), 0);
            // SAFETY: the caller keeps the contract of `alloc`.
            unsafe { System.alloc(layout) }
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            count(layout.size(), 0);
            // SAFETY: the caller keeps the contract of `alloc_zeroed`.
            unsafe { System.alloc_zeroed(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            count(0, layout.size());
            // SAFETY: the caller keeps the contract of `dealloc`.
            unsafe { System.dealloc(pointer, layout) }
        }

        unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            count(size, layout.size());
            // SAFETY: the caller keeps the contract of `realloc`.
            unsafe { System.realloc(pointer, layout, size) }
        }
    }
}

#[global_allocator]
static ALLOCATOR: Live = Live;

/// One test at a time: both count what the whole process holds, and need the processors.
static ALONE: Mutex<()> = Mutex::new(());

fn requests(optimized: u64) -> u64 {
    let default = if cfg!(debug_assertions) { optimized / 3 } else { optimized };
    std::env::var("POSTERN_REQUESTS").map_or(default, |text| text.parse().expect("a number"))
}

/// More different actions than the memo of a small policy keeps.
const INVENTED: u64 = 45_000;
const CACHE_BYTES: u64 = 1 << 20;

// === the questions ===

/// Questions of a tenant, and others that nobody has asked before.
struct Mixed {
    known: Vec<Question>,
    rng: Rng,
    number: u64,
}

impl Mixed {
    fn new(tenant: &Tenant) -> Self {
        let mut known = tenant.questions(10);
        // Without groups, too: such a question is cheap.
        known.extend(tenant.questions(0).into_iter().take(500));
        Self { known, rng: Rng::new(0x0067_726F_7774_6800), number: 0 }
    }

    /// Each kind is one in so many.
    fn one_in(&mut self, of: usize) -> bool {
        self.rng.below(of) == 0
    }

    fn next(&mut self) -> Question {
        let mut question = self.known[self.rng.below(self.known.len())].clone();
        self.number += 1;
        let number = self.number;
        if self.one_in(3) {
            question.principal = format!("f0000000-0000-4000-8000-{number:012x}");
        }
        if self.one_in(16) {
            question.principal = format!("somebody-{number}");
        }
        if self.one_in(4) {
            question.groups.truncate(2);
            question.groups.push(format!("e0000000-0000-4000-8000-{number:012x}"));
        }
        if self.one_in(4) {
            question.action = format!(
                "Vendor{number}.Service/things/{}",
                if number.is_multiple_of(2) { "read" } else { "write" }
            );
        }
        // Below a resource; a group has no parts.
        if self.one_in(3) && question.scope.rfind("/providers/").is_some_and(|at| at > 0) {
            question.scope.push_str(&format!("/parts/part-{number}"));
        }
        if self.one_in(16) {
            question.scope =
                format!("/subscriptions/d0000000-0000-4000-8000-{number:012x}/resourceGroups/rg-{number}");
        }
        question
    }

    /// One with an action that was never asked for.
    fn with_new_action(&mut self) -> Question {
        let mut question = self.next();
        question.action = format!("Invented{}.Service/things/read", self.number);
        question
    }
}

// === the library ===

#[test]
fn the_library_holds_no_more_after_many_questions() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let tenant = Tenant::new(1_000);
    let mut mixed = Mixed::new(&tenant);
    let (mut writer, reader) = cell();
    let policy = Policy::compile(&tenant.documents, CompileOptions::default()).unwrap();
    writer.activate(policy, 0, jiff::Timestamp::UNIX_EPOCH);
    drop(tenant);
    let cache = CacheSettings { policy: CachePolicy::CostAtLeast(0), max_bytes: CACHE_BYTES };
    let authorizer = Authorizer::new(reader, cache, Clock::system());
    let ask = |question: &Question| {
        let snapshot = authorizer.snapshot();
        authorizer.check(snapshot.get().unwrap(), &question.parse(), None).unwrap();
    };
    // Several questions of one subject under one snapshot, as a batch or a stream asks them.
    let ask_together = |questions: &[Question]| {
        let snapshot = authorizer.snapshot();
        let snapshot = snapshot.get().unwrap();
        let subject = || Subject {
            principal: PrincipalId::new(&questions[0].principal),
            groups: (&questions[0].groups).into(),
        };
        let prepared = snapshot.policy.prepare(&subject()).unwrap();
        for Question { action, data_action, scope, .. } in questions {
            let (action, plane) = (Action::parse(action).unwrap(), Plane::from_data_action(*data_action));
            let request = CheckRequest::new(subject(), action, plane, Scope::parse(scope).unwrap());
            let now = authorizer.now();
            authorizer.check_prepared(snapshot, &request, None, now, Some(&prepared)).unwrap();
        }
    };
    let mut asked = |all: u64| {
        let mut left = all;
        while left > 0 {
            if left >= 10 && mixed.one_in(11) {
                let questions: Vec<Question> = (0..10).map(|_| mixed.next()).collect();
                ask_together(&questions);
                left -= 10;
            } else {
                ask(&mixed.next());
                left -= 1;
            }
        }
        if all == 0 {
            for _ in 0..INVENTED {
                ask(&mixed.with_new_action());
            }
        }
    };
    // The memo first, then what a steady state is made of.
    asked(0);
    asked(20_000);
    let all = requests(120_000);
    let (clock, before) = (Instant::now(), live());
    // The most of some looks on each side: entries of a cache come and go.
    let mut most = i64::MIN;
    let mut parts = Vec::new();
    for part in 0..10 {
        asked(all / 10);
        parts.push(live() - before);
        if part >= 7 {
            most = most.max(live() - before);
        }
    }
    let (entries, bytes) = authorizer.cache_size();
    let told = json!({
        "growth": "library", "requests": all, "seconds": clock.elapsed().as_secs_f64(), "bytes": most, "parts": parts,
        "cacheEntries": entries, "cacheBytes": bytes,
    });
    println!("{told}");
    assert!(entries > 0 && bytes <= CACHE_BYTES, "{told}");
    // A cache of a mebibyte breathes: entries differ in how much more they take than they weigh. Four bytes for each
    // question would be told even by the short run.
    assert!(most < 128 << 10, "it grew: {told}");
}

// === a sidecar ===

fn message(question: Question) -> v1::CheckRequest {
    let Question { principal, groups, action, data_action, scope } = question;
    v1::CheckRequest {
        subject: Some(v1::Subject { principal_id: principal, group_ids: groups, ..Default::default() }),
        action: Some(v1::Action { name: action, data_action, ..Default::default() }),
        resource: Some(v1::Resource { scope, ..Default::default() }),
        ..Default::default()
    }
}

/// How many questions one round asks: alone, in batches and in messages of a stream.
const ALONE_IN_ROUND: usize = 40;
const BATCHES: usize = 4;
const MESSAGES: usize = 8;
const BATCH: usize = 100;
const MESSAGE: usize = 50;
const ROUND: u64 = (ALONE_IN_ROUND + BATCHES * BATCH + MESSAGES * MESSAGE) as u64;

/// One round over one connection; what was asked is decided, or it panics.
async fn round(channel: &Channel, mixed: &mut Mixed, invent: bool) {
    let mut client = AuthorizationServiceClient::new(channel.clone());
    let mut question = || message(if invent { mixed.with_new_action() } else { mixed.next() });
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..ALONE_IN_ROUND {
        let (request, mut client) = (question(), client.clone());
        calls.spawn(async move { client.check(request).await.map(|_| ()) });
    }
    for number in 0..BATCHES {
        let items = (0..BATCH).map(|_| {
            let v1::CheckRequest { subject, action, resource, .. } = question();
            // Half of the batches have one subject, the others one for each item.
            let subject = subject.filter(|_| number % 2 == 0);
            v1::BatchCheckItem { subject, action, resource, ..Default::default() }
        });
        let items = items.collect();
        let request = v1::BatchCheckRequest { items, subject: question().subject, ..Default::default() };
        let mut client = client.clone();
        calls.spawn(async move {
            client.batch_check(request).await.map(|answer| all_decided(&answer.into_inner()))
        });
    }
    let messages: Vec<v1::CheckStreamRequest> = (0..MESSAGES)
        .map(|number| {
            let context = v1::CheckStreamContext { subject: question().subject, ..Default::default() };
            let questions = (0..MESSAGE).map(|at| {
                let v1::CheckRequest { action, resource, .. } = question();
                let id = (number * MESSAGE + at + 1) as u64;
                v1::CheckStreamQuestion { id, action, resource, ..Default::default() }
            });
            let questions = questions.collect();
            v1::CheckStreamRequest { context: Some(context), questions, ..Default::default() }
        })
        .collect();
    let mut answers = client.check_stream(tokio_stream::iter(messages)).await.unwrap().into_inner();
    let mut answered = 0;
    while let Some(response) = answers.message().await.unwrap() {
        for answer in response.answers {
            assert!(matches!(answer.outcome, Some(v1::check_stream_answer::Outcome::Result(_))));
            answered += 1;
        }
    }
    assert_eq!(answered, MESSAGES * MESSAGE);
    while let Some(done) = calls.join_next().await {
        done.unwrap().unwrap();
    }
}

fn all_decided(answer: &v1::BatchCheckResponse) {
    let decided = |item: &v1::BatchCheckItemResult| {
        matches!(item.outcome, Some(v1::batch_check_item_result::Outcome::Result(_)))
    };
    assert!(answer.results.iter().all(decided));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::await_holding_lock, reason = "it is held so that the other test waits")]
async fn a_sidecar_holds_no_more_after_many_questions() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let tenant = Tenant::new(1_000);
    let mut mixed = Mixed::new(&tenant);
    let (dir, sockets) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (name, bytes) in tenant.files() {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    drop(tenant);
    let cache = CACHE_BYTES.to_string();
    let socket = sockets.path().join("postern.sock");
    let sidecar =
        Sidecar::start(dir.path(), &socket, &["--cache", "always", "--cache-max-bytes", &cache]).await;
    let channels = [common::connect_uds(&socket).await, common::connect_uds(&socket).await];
    for turn in 0..INVENTED / ROUND + 1 {
        round(&channels[turn as usize % 2], &mut mixed, true).await;
    }
    let all = requests(30_000);
    let rounds = (all / ROUND).max(10);
    // The allocator needs a while to have found its shape.
    for turn in 0..rounds.clamp(20, 400) {
        round(&channels[turn as usize % 2], &mut mixed, false).await;
    }
    let (clock, before) = (Instant::now(), sidecar.resident());
    let mut parts = Vec::new();
    for turn in 0..rounds {
        round(&channels[turn as usize % 2], &mut mixed, false).await;
        if (turn + 1) % rounds.div_ceil(10) == 0 {
            parts.push(sidecar.resident() - before);
        }
    }
    let grown = sidecar.resident() - before;
    let told = json!({
        "growth": "sidecar", "requests": rounds * ROUND, "seconds": clock.elapsed().as_secs_f64(), "bytes": grown,
        "parts": parts, "residentBytes": before,
    });
    println!("{told}");
    // Pages are coarser than bytes: over ten million questions this is a fifth of a byte for each.
    assert!(grown < 2 << 20, "it grew: {told}");
}

/// A sidecar as a process on a Unix socket.
struct Sidecar(Child);

impl Sidecar {
    async fn start(policy: &Path, socket: &Path, arguments: &[&str]) -> Self {
        let mut command = common::postern();
        command.args(["serve", "--admin", "off", "--log-level", "warn", "--policy"]).arg(policy);
        command.arg("--uds").arg(socket).args(arguments);
        let sidecar = Self(command.spawn().unwrap());
        common::eventually("a policy", async || {
            let Ok(endpoint) = Endpoint::from_shared(format!("unix://{}", socket.display())) else {
                return false;
            };
            let Ok(channel) = endpoint.connect().await else { return false };
            let mut client = AuthorizationServiceClient::new(channel);
            let status = client.get_policy_status(v1::GetPolicyStatusRequest {}).await;
            status
                .is_ok_and(|status| status.into_inner().status.is_some_and(|status| status.policy.is_some()))
        })
        .await;
        sidecar
    }

    fn resident(&self) -> i64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.0.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<i64>().unwrap() * 4096
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}
