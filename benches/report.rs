#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "benches"
)]
//! One table of what the project promises: time, memory and allocations at 1,000, 10,000 and 100,000 role
//! assignments, beside the baseline on the same machine and questions.
//!
//! `cargo bench --bench report`, with `-- --json` for machines and `-- --sizes 1000,1000000` or `-- --groups 0` for other
//! sizes and numbers of asserted groups. Every check is timed by itself; the clock's own time is taken off. The
//! strings of a question are copied just before it is asked, since decoding a message leaves them in the processor's
//! cache; what the policy holds is as cold as 4,096 different questions leave it.

#[path = "support/counting.rs"]
mod counting;
#[path = "support/memory.rs"]
mod memory;
#[path = "support/nested.rs"]
mod nested;
#[allow(dead_code, reason = "the other benches use the rest")]
#[path = "support/tenant.rs"]
mod tenant;

use jiff::Timestamp;
use std::hint::black_box;
use std::time::{Duration, Instant};

use counting::{Counting, allocations};
use nested::Nested;
use postern::model::Decision;
use postern::policy::{CompileOptions, Policy};
use serde::Serialize;
use tenant::{POOL, Question, Tenant};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often each pool is walked through.
const ROUNDS: usize = 20;

#[derive(Serialize)]
struct Times {
    median_ns: u64,
    p99_ns: u64,
}

#[derive(Serialize)]
struct Row {
    assignments: usize,
    compile_ms: f64,
    compiled_bytes: usize,
    bytes_per_assignment: usize,
    /// The request is parsed beforehand.
    evaluate: Times,
    /// From decoded strings, 10 groups unless told otherwise.
    from_strings: Times,
    /// From decoded strings, 200 groups, eleven levels deep.
    heavy: Times,
    allocations_per_check: f64,
    resident_before: u64,
    resident_after: u64,
    /// From decoded strings, 10 groups unless told otherwise.
    nested_hash_maps: Times,
    /// How many times slower the baseline's median is.
    nested_ratio: f64,
    allowed_percent: usize,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let value = |name: &str| arguments.iter().skip_while(|argument| *argument != name).nth(1);
    let groups = value("--groups").map_or(10, |groups| groups.parse().expect("a number"));
    let sizes: Vec<usize> = match value("--sizes") {
        Some(list) => list.split(',').map(|size| size.parse().expect("a number")).collect(),
        // `cargo test --all-targets` only wants to know whether it runs.
        None if !has("--bench") => vec![1_000],
        None => vec![1_000, 10_000, 100_000],
    };
    let rows: Vec<Row> = sizes.into_iter().map(|size| measure(size, groups)).collect();
    if has("--json") {
        println!("{}", serde_json::to_string_pretty(&rows).expect("JSON"));
    } else {
        print(&rows);
    }
}

fn measure(size: usize, groups: usize) -> Row {
    memory::give_back();
    let resident_before = memory::resident();
    let (policy, compile_ms) = {
        let tenant = Tenant::new(size);
        let begin = Instant::now();
        let policy =
            Policy::compile(&tenant.documents, CompileOptions::default()).expect("a consistent tenant");
        (policy, begin.elapsed().as_secs_f64() * 1000.0)
    };
    memory::give_back();
    let resident_after = memory::resident();

    let tenant = Tenant::new(size);
    let (questions, heavy, nested) =
        (tenant.questions(groups), tenant.heavy_questions(), Nested::new(&tenant.documents));
    drop(tenant);
    let mut allowed = 0;
    for question in questions.iter().chain(&heavy) {
        policy.evaluate(&question.parse(), Timestamp::UNIX_EPOCH).expect("a decision");
    }
    let before = allocations();
    for question in &questions {
        let evaluation = policy.evaluate(&question.parse(), Timestamp::UNIX_EPOCH).expect("a decision");
        allowed += usize::from(matches!(evaluation.decision, Decision::Allowed(_)));
    }
    let allocations_per_check = (allocations() - before) as f64 / POOL as f64;

    let evaluate = time(&questions, |question| {
        let request = question.parse();
        clocked(|| policy.evaluate(&request, Timestamp::UNIX_EPOCH))
    });
    let from_strings =
        time(&questions, |question| clocked(|| policy.evaluate(&question.parse(), Timestamp::UNIX_EPOCH)));
    let heavy =
        time(&heavy, |question| clocked(|| policy.evaluate(&question.parse(), Timestamp::UNIX_EPOCH)));
    for question in &questions {
        let evaluation = policy.evaluate(&question.parse(), Timestamp::UNIX_EPOCH).expect("a decision");
        let same = nested.check(question) == matches!(evaluation.decision, Decision::Allowed(_));
        assert!(same, "the baseline decides otherwise: {question:?}");
    }
    let nested_hash_maps = time(&questions, |question| clocked(|| nested.check(question)));
    let counts = policy.counts();
    Row {
        assignments: size,
        compile_ms,
        compiled_bytes: counts.bytes,
        bytes_per_assignment: counts.bytes / size,
        nested_ratio: nested_hash_maps.median_ns as f64 / from_strings.median_ns.max(1) as f64,
        evaluate,
        from_strings,
        heavy,
        allocations_per_check,
        resident_before,
        resident_after,
        nested_hash_maps,
        allowed_percent: allowed * 100 / POOL,
    }
}

fn clocked<T>(work: impl FnOnce() -> T) -> Duration {
    let begin = Instant::now();
    let done = work();
    let elapsed = begin.elapsed();
    black_box(done);
    elapsed
}

/// Times the work on every question by itself, the pool over and over. Copying and preparing are not timed.
fn time(pool: &[Question], mut timed: impl FnMut(&Question) -> Duration) -> Times {
    let mut empty: Vec<Duration> = (0..10_000).map(|_| Instant::now().elapsed()).collect();
    empty.sort_unstable();
    let clock = empty[empty.len() / 2];
    let mut times = Vec::with_capacity(pool.len() * ROUNDS);
    for _ in 0..ROUNDS {
        for question in pool {
            times.push(timed(black_box(&question.clone())).saturating_sub(clock));
        }
    }
    times.sort_unstable();
    let at = |share: usize| times[times.len() * share / 100].as_nanos() as u64;
    Times { median_ns: at(50), p99_ns: at(99) }
}

fn print(rows: &[Row]) {
    let line = |name: &str, cell: &dyn Fn(&Row) -> String| {
        let cells: Vec<String> = rows.iter().map(|row| format!("{:>16}", cell(row))).collect();
        println!("{name:<40}{}", cells.concat());
    };
    let times = |times: &Times| format!("{} / {}", times.median_ns, times.p99_ns);
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    line("role assignments", &|row| row.assignments.to_string());
    line("compile, ms", &|row| format!("{:.1}", row.compile_ms));
    line("compiled, bytes", &|row| row.compiled_bytes.to_string());
    line("compiled, bytes an assignment", &|row| row.bytes_per_assignment.to_string());
    line("evaluate, ns median / p99", &|row| times(&row.evaluate));
    line("from strings, ns median / p99", &|row| times(&row.from_strings));
    line("200 groups, 11 levels, ns median / p99", &|row| times(&row.heavy));
    line("nested hash maps, ns median / p99", &|row| times(&row.nested_hash_maps));
    line("nested hash maps, times from strings", &|row| format!("{:.1}", row.nested_ratio));
    line("allocations a check", &|row| format!("{:.3}", row.allocations_per_check));
    line("resident before, MiB", &|row| mib(row.resident_before));
    line("resident with the policy, MiB", &|row| mib(row.resident_after));
    line("allowed, %", &|row| row.allowed_percent.to_string());
}
