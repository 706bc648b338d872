//! Bundles: equal bytes for equal input, a clear refusal for everything that is no sound bundle, and what the commands
//! say of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    missing_docs,
    reason = "tests"
)]

mod common;
#[path = "common/questions.rs"]
mod questions;

use std::fs;
use std::path::Path;
use std::process::Output;

use common::{ALICE, Process, READ, connect_tcp, eventually, request, revoke_alice, vault};
use postern::bundle::{self, About, BundleError, Check, Limits};
use postern::documents::{Lenience, load, load_texts};
use postern::model::Documents;
use postern::policy::{CompileOptions, Policy};
use postern::proto::v1::Decision;
use postern::proto::v1::authorization_service_client::AuthorizationServiceClient;
use questions::{ask_everything, ask_one, contoso, contoso_bundle, look_at_everything};
use serde_json::{Value, json};
use tempfile::TempDir;

const CONTOSO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/contoso");

/// The header's length, and where its numbers are.
const HEADER: usize = 104;
const FORMAT_AT: usize = 8;
const MANIFEST_LENGTH_AT: usize = 24;
const POLICY_START_AT: usize = 32;
const POLICY_LENGTH_AT: usize = 40;
const SOURCES_START_AT: usize = 48;
const TOTAL_AT: usize = 64;

/// Without a digest to be held to: what is in the file decides.
fn bounds() -> Check {
    Check::Bounds { digest: "sha256:unknown".to_owned() }
}

fn number(file: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(file[at..at + 8].try_into().unwrap())
}

fn with_number(file: &[u8], at: usize, value: u64) -> Vec<u8> {
    let mut file = file.to_vec();
    file[at..at + 8].copy_from_slice(&value.to_le_bytes());
    file
}

fn refused(file: Vec<u8>, check: Check) -> BundleError {
    bundle::from_bytes_verified(file, check).expect_err("no sound bundle")
}

/// Numbers that are the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33 ^ self.0 << 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

// === building ===

fn build(documents: &Documents, keep_sources: bool) -> Vec<u8> {
    let policy = Policy::compile(documents, CompileOptions::default()).unwrap();
    let about = About { name: "contoso", sources: &documents.files, keep_sources, ..About::default() };
    bundle::build(&policy, &about).unwrap()
}

#[test]
fn equal_input_gives_equal_bytes() {
    let (documents, _) = load(CONTOSO.as_ref(), Lenience::Strict);
    let first = build(&documents, true);
    assert_eq!(first, build(&documents, true), "built twice");
    let files = || documents.files.iter().map(|file| (file.path.clone(), file.text.clone().into_bytes()));
    let (again, _) = load_texts(files().rev().collect(), Lenience::Strict);
    assert!(first == build(&again, true), "read in another order");

    // The same documents in other files are the same policy from other sources.
    let renamed = files().map(|(path, text)| (format!("z/{}", path.replace('/', "-")), text)).collect();
    let (renamed, _) = load_texts(renamed, Lenience::Strict);
    let [one, other] = [first, build(&renamed, true)].map(|file| bundle::from_bytes(file).unwrap());
    assert_eq!(one.policy.bytes(), other.policy.bytes());
    assert_eq!(one.manifest.policy_digest, other.manifest.policy_digest);
    assert_ne!(one.manifest.sources_digest, other.manifest.sources_digest);
}

#[test]
fn what_went_in_comes_out() {
    let (documents, _) = load(CONTOSO.as_ref(), Lenience::Strict);
    let policy = contoso();
    let file = build(&documents, true);
    let opened = bundle::from_bytes(file.clone()).unwrap();
    assert_eq!(opened.policy.bytes(), policy.bytes());
    assert_eq!(opened.policy.digest(), policy.digest());
    assert_eq!(opened.manifest.counts, policy.counts());
    assert_eq!((opened.bytes(), &*opened.manifest.name), (file.len() as u64, "contoso"));
    let sources = opened.sources().unwrap().unwrap();
    assert_eq!(sources.len(), documents.files.len());
    assert!(sources.iter().zip(&documents.files).all(|(one, other)| one.text == other.text));
    opened.verify().unwrap();
    assert!(bundle::from_bytes(build(&documents, false)).unwrap().sources().unwrap().is_none());
    assert_eq!(number(&file, POLICY_START_AT) % 4096, 0, "the policy begins at a page");

    // Whoever has verified the file gives its digest, and is believed.
    let digest = opened.digest.clone();
    let trusted = bundle::from_bytes_verified(file, Check::Bounds { digest: digest.clone() }).unwrap();
    assert_eq!((trusted.digest, trusted.policy.digest()), (digest, policy.digest()));
}

#[test]
fn a_mapped_bundle_outlives_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.bundle");
    bundle::write(&path, &contoso_bundle()).unwrap();
    assert!(bundle::is_bundle(&path) && !bundle::is_bundle(folder.path()));
    let mapped = bundle::open(&path, Limits::default()).unwrap();
    // Written as a whole under another name, so the mapped one stays as it is.
    bundle::write(&path, b"another").unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    assert!(!bundle::is_bundle(&path));
    mapped.verify().unwrap();
    assert_eq!(ask_everything(&mapped.policy), ask_everything(&contoso()));
}

// === refusals ===

#[test]
fn each_refusal_has_its_name() {
    let file = contoso_bundle();
    assert!(matches!(refused(b"{}".to_vec(), Check::Full), BundleError::NotABundle));
    assert!(matches!(refused(Vec::new(), Check::Full), BundleError::NotABundle));
    let mut other = file.clone();
    other[FORMAT_AT] = 9;
    let error = refused(other, Check::Full);
    assert!(matches!(error, BundleError::OtherFormat { found: 9, wanted: 2 }), "{error}");
    let error = refused(file[..file.len() - 1].to_vec(), Check::Full);
    assert!(matches!(error, BundleError::Truncated { expected, found } if expected == found + 1), "{error}");
    let error = refused([&file[..], b"x"].concat(), Check::Full);
    assert!(
        matches!(&error, BundleError::Corrupt { what } if what.contains("length of the file")),
        "{error}"
    );
    let mut flipped = file.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let error = refused(flipped, Check::Full);
    assert!(matches!(error, BundleError::DigestMismatch { part: "content", .. }), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.bundle");
    fs::write(&path, &file).unwrap();
    let limits = Limits { max_bytes: file.len() as u64 - 1 };
    let error = bundle::open(&path, limits).unwrap_err();
    assert!(
        matches!(error, BundleError::TooLarge { bytes, limit } if bytes == limit + 1),
        "refused before it is mapped: {error}"
    );
    let missing = bundle::open(&folder.path().join("missing"), Limits::default()).unwrap_err();
    assert!(matches!(missing, BundleError::Io(_)), "{missing}");
    assert!(matches!(bundle::open(folder.path(), Limits::default()), Err(BundleError::NotABundle)));
    fs::write(&path, b"").unwrap();
    assert!(matches!(bundle::open(&path, Limits::default()), Err(BundleError::NotABundle)));
}

#[test]
fn truncated_anywhere() {
    let file = contoso_bundle();
    let lengths = (0..HEADER + 64).chain((HEADER + 64..file.len()).step_by(97));
    for length in lengths {
        for check in [Check::Full, bounds()] {
            let error = refused(file[..length].to_vec(), check);
            let wanted = matches!(error, BundleError::Truncated { .. }) || length < 8;
            assert!(wanted, "{length}: {error}");
        }
    }
}

#[test]
fn offsets_that_lie() {
    let file = contoso_bundle();
    for at in (16..=TOTAL_AT).step_by(8) {
        let honest = number(&file, at);
        let lies = [0, 1, 103, 4095, 4096, file.len() as u64, u64::MAX, u64::MAX - 4095, 1 << 32, 1 << 63];
        for lie in lies.into_iter().chain([honest + 1, honest.wrapping_sub(1), honest + 4096]) {
            if lie == honest {
                continue;
            }
            let error = refused(with_number(&file, at, lie), bounds());
            let told = matches!(error, BundleError::Corrupt { .. } | BundleError::Truncated { .. });
            assert!(told, "{at}: {lie}: {error}");
        }
    }
    for at in [POLICY_LENGTH_AT, SOURCES_START_AT] {
        refused(with_number(&file, at, number(&file, at) + 64), bounds());
    }
}

#[test]
fn manifests_that_lie() {
    let file = contoso_bundle();
    let start = HEADER;
    let end = start + number(&file, MANIFEST_LENGTH_AT) as usize;
    let manifest: Value = serde_json::from_slice(&file[start..end]).unwrap();
    for (pointer, lie) in [
        ("/format", json!(3)),
        ("/counts/roleAssignments", json!(1)),
        ("/policyDigest", json!("sha256:0")),
        ("/options/strictWildcards", json!(true)),
        ("/withSources", json!(true)),
        ("/name", json!(7)),
        ("/created", json!("yesterday")),
        ("/counts", json!([])),
    ] {
        let mut manifest = manifest.clone();
        match manifest.pointer_mut(pointer) {
            Some(value) => *value = lie,
            None => manifest["created"] = lie,
        }
        let mut lying = file.clone();
        let text = manifest.to_string();
        lying[start..end].fill(b' ');
        lying[start..start + text.len()].copy_from_slice(text.as_bytes());
        // A digest that fits: whoever builds a file can lie with it.
        let lying = resealed(lying);
        let error = refused(lying, Check::Full);
        let told =
            matches!(error, BundleError::Corrupt { .. } | BundleError::DigestMismatch { part: "policy", .. });
        assert!(told, "{pointer}: {error}");
    }
}

/// With the digest of what it holds now.
fn resealed(mut file: Vec<u8>) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(&file[HEADER..]);
    file[HEADER - 32..HEADER].copy_from_slice(&digest);
    file
}

#[test]
fn every_flip_is_refused_by_a_full_check() {
    let file = contoso_bundle();
    let front = HEADER + number(&file, MANIFEST_LENGTH_AT) as usize;
    let mut random = Random(1);
    let header = (0..HEADER * 8).map(|bit| (bit / 8, bit % 8));
    let manifest = (HEADER..front).map(|at| (at, at % 8));
    let elsewhere = (0..300).map(|bit| (random.below(file.len()), bit % 8));
    for (at, bit) in header.chain(manifest).chain(elsewhere) {
        let mut flipped = file.clone();
        flipped[at] ^= 1 << bit;
        assert!(bundle::from_bytes(flipped).is_err(), "the flip of bit {bit} at {at} passed");
    }
}

#[test]
fn no_flip_does_harm_without_it() {
    let file = contoso_bundle();
    let honest = contoso();
    let front = HEADER + number(&file, MANIFEST_LENGTH_AT) as usize;
    for at in 0..front {
        for bit in [0, 6] {
            let mut flipped = file.clone();
            flipped[at] ^= 1 << bit;
            if let Ok(opened) = bundle::from_bytes_verified(flipped, bounds()) {
                assert_eq!(
                    opened.policy.bytes(),
                    honest.bytes(),
                    "the policy lies elsewhere, by the flip at {at}"
                );
            }
        }
    }
    let start = number(&file, POLICY_START_AT) as usize;
    let mut random = Random(2);
    let mut opened_ones = 0;
    // For a longer run: POSTERN_BUNDLE_CASES=100000.
    let rounds =
        std::env::var("POSTERN_BUNDLE_CASES").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3000);
    for round in 0..rounds {
        let mut damaged = file.clone();
        // One number, a few bytes, or a number copied from elsewhere: what a record may well hold.
        let at = start + random.below(damaged.len() - start - 8);
        match round % 3 {
            0 => damaged[at] ^= 1 << random.below(8),
            1 => damaged[at..at + 4].copy_from_slice(&(random.next() as u32 % 64).to_le_bytes()),
            _ => {
                let from = start + random.below(damaged.len() - start - 8);
                damaged.copy_within(from..from + 8, at);
            }
        }
        let Ok(opened) = bundle::from_bytes_verified(damaged, bounds()) else { continue };
        opened_ones += 1;
        ask_one(&opened.policy, round);
        if round % 20 == 0 {
            ask_everything(&opened.policy);
            look_at_everything(&opened.policy, &honest);
        }
    }
    assert!(opened_ones > rounds / 3, "{opened_ones}: the damage lies where records are");
}

// === the commands ===

fn run(folder: &Path, arguments: &[&str]) -> Output {
    common::postern().args(arguments).current_dir(folder).env_remove("SOURCE_DATE_EPOCH").output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn parsed(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// A folder with a copy of contoso, and a bundle of it.
fn workplace() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(CONTOSO.as_ref(), &folder.path().join("policy"));
    let built = run(folder.path(), &["bundle", "build", "policy", "-o", "old.bundle", "--with-sources"]);
    assert_eq!(code(&built), 0, "{built:?}");
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn commands_build_and_inspect() {
    let folder = workplace();
    let folder = folder.path();
    let inspected = run(folder, &["bundle", "inspect", "old.bundle"]);
    assert_eq!(code(&inspected), 0, "{inspected:?}");
    for part in ["name               policy\n", "role definitions   28\n", "sources            18 files\n"] {
        assert!(text(&inspected.stdout).contains(part), "{part}\n{}", text(&inspected.stdout));
    }
    let inspected = parsed(&run(folder, &["bundle", "inspect", "old.bundle", "--json"]));
    assert_eq!(inspected["manifest"]["policyDigest"], contoso().digest());
    assert_eq!(inspected["manifest"]["created"], Value::Null, "no clock was asked");
    assert_eq!(inspected["sources"].as_array().unwrap().len(), 18);
    let verified = run(folder, &["bundle", "verify", "old.bundle"]);
    assert_eq!(code(&verified), 0, "{verified:?}");
    assert!(text(&verified.stdout).starts_with("sound, and its sources compile to it\nsha256:"));

    // The same bytes from another place; other words give other bytes.
    let again = ["bundle", "build", CONTOSO, "-o", "again.bundle", "--with-sources"];
    assert_eq!(code(&run(folder, &again)), 0);
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    assert!(read("old.bundle") == read("again.bundle"));
    let dated =
        ["bundle", "build", CONTOSO, "-o", "again.bundle", "--created", "1767225600", "--name", "prod"];
    let built = run(folder, &[&dated[..], &["--json"]].concat());
    let told = parsed(&built);
    assert_eq!(told["manifest"]["created"], "2026-01-01T00:00:00Z", "{built:?}");
    assert_eq!(told["manifest"]["name"], "prod");
    assert_eq!(fs::read_dir(folder).unwrap().count(), 3, "nothing else is written");

    for wrong in
        [&["bundle", "build", "policy"][..], &["bundle", "build", "policy", "-o", "x", "--name", "a/b"]]
    {
        assert_eq!(code(&run(folder, wrong)), 2);
    }
    fs::write(folder.join("policy/broken.json"), "{").unwrap();
    let refused = run(folder, &["bundle", "build", "policy", "-o", "old.bundle"]);
    assert_eq!(code(&refused), 1);
    assert!(text(&refused.stderr).contains("the policy is refused"), "{refused:?}");
    assert!(read("old.bundle").starts_with(b"PSTNBNDL"), "the one before stays");
}

#[test]
fn commands_refuse_what_is_no_sound_bundle() {
    let folder = workplace();
    let folder = folder.path();
    let file = fs::read(folder.join("old.bundle")).unwrap();
    fs::write(folder.join("short.bundle"), &file[..file.len() / 2]).unwrap();
    let mut flipped = file.clone();
    flipped[file.len() / 2] ^= 1;
    fs::write(folder.join("flipped.bundle"), flipped).unwrap();
    let mut newer = file;
    newer[FORMAT_AT] = 3;
    fs::write(folder.join("newer.bundle"), newer).unwrap();
    for (name, message) in [
        ("short.bundle", "truncated"),
        ("flipped.bundle", "the content has the digest"),
        ("newer.bundle", "format 3, and this version reads format 2"),
        ("policy/deny.yaml", "no bundle"),
    ] {
        for command in ["inspect", "verify"] {
            let output = run(folder, &["bundle", command, name]);
            assert_eq!((code(&output), text(&output.stderr).contains(message)), (1, true), "{output:?}");
        }
    }
    // Where a policy is wanted a damaged bundle is a policy that is refused.
    for name in ["short.bundle", "flipped.bundle", "newer.bundle"] {
        let output = run(folder, &[&["check", "--policy", name], &QUESTION[..], &["--json"]].concat());
        assert_eq!((code(&output), &parsed(&output)["error"]["code"]), (1, &json!("POLICY_REFUSED")));
    }
}

const QUESTION: [&str; 6] = [
    "--principal",
    "00000000-0000-4000-a002-000000000006",
    "--action",
    "Microsoft.KeyVault/vaults/delete",
    "--scope",
    "/subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-vault-prod",
];

#[test]
fn a_bundle_answers_as_its_directory() {
    let folder = workplace();
    let scope = &["--principal", QUESTION[1], "--scope", QUESTION[5]];
    let who = &["--action", QUESTION[3], "--scope", QUESTION[5]];
    for (command, question) in
        [("check", &QUESTION[..]), ("explain", &QUESTION), ("what-can", scope), ("who-can", who)]
    {
        let [one, other] = ["policy", "old.bundle"].map(|policy| {
            let now = ["--now", "2026-06-01T12:00:00Z", "--json"];
            run(folder.path(), &[&[command, "--policy", policy], question, &now].concat())
        });
        assert_eq!((code(&one), text(&one.stdout)), (code(&other), text(&other.stdout)), "{command}");
        assert!(!one.stdout.is_empty(), "{one:?}");
    }
}

/// A sidecar decides by a bundle, follows the next one, and keeps its own when that is damaged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_serves_a_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let (documents, path) = (folder.path().join("documents"), folder.path().join("served/policy.bundle"));
    fs::create_dir(&documents).unwrap();
    fs::create_dir(folder.path().join("served")).unwrap();
    common::write_policy(&documents);
    let build = || {
        let built = run(folder.path(), &["bundle", "build", "documents", "-o", "served/policy.bundle"]);
        assert_eq!(code(&built), 0, "{built:?}");
    };
    build();
    let process = Process::start(&path, &["--reload-debounce", "20ms"], &[]);
    process.ready().await;
    let client = AuthorizationServiceClient::new(connect_tcp(process.tcp).await);
    let decides = async || {
        let answer = client.clone().check(request(ALICE, READ, &vault("app"))).await.unwrap().into_inner();
        answer.result.unwrap().decision()
    };
    assert_eq!(decides().await, Decision::Allowed);

    // Overwritten in place, as one should not: it is in memory.
    let file = fs::read(&path).unwrap();
    fs::write(&path, &file[..file.len() / 2]).unwrap();
    eventually("the refusal", async || process.log().contains("InvalidBundle")).await;
    assert_eq!(decides().await, Decision::Allowed);

    revoke_alice(&documents);
    build();
    eventually("the next bundle", async || decides().await == Decision::NotAllowed).await;
}

#[test]
fn nothing_differs_from_itself() {
    let folder = workplace();
    for (one, other) in [("old.bundle", "old.bundle"), ("old.bundle", "policy"), ("policy", "old.bundle")] {
        let output = run(folder.path(), &["bundle", "diff", one, other]);
        assert_eq!((code(&output), text(&output.stdout)), (0, "no difference\n"), "{output:?}");
    }
    let output = run(folder.path(), &["bundle", "diff", "old.bundle", "missing"]);
    assert_eq!(code(&output), 1, "{output:?}");
}

const PROD: &str = "/subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-vault-prod";
const NEW: &str = "11111111-0000-4000-8000-000000000001";
/// Key Vault Administrator has data actions; Reader has `*/read`.
const READER: &str = "acdd72a7-3385-48ef-bd42-f606fba81ae7";

fn assignment(name: &str, principal: &str, role: &str, scope: &str) -> Value {
    json!([{
        "id": format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{name}"),
        "name": name,
        "principalId": principal,
        "principalType": "User",
        "roleDefinitionId": format!("/providers/Microsoft.Authorization/roleDefinitions/{role}"),
        "scope": scope,
        "type": "Microsoft.Authorization/roleAssignments",
    }])
}

/// What differs when a change was made to the directory.
fn difference(folder: &Path, exit: i32) -> Value {
    let now = "2026-06-01T12:00:00Z";
    let arguments = ["bundle", "diff", "old.bundle", "policy", "--now", now, "--limit", "0", "--json"];
    let output = run(folder, &arguments);
    assert_eq!(code(&output), exit, "{output:?}");
    let told = parsed(&output);
    assert_eq!(told["differs"], exit == 3);
    told
}

fn has(list: &Value, wanted: &Value) -> bool {
    let wanted = wanted.as_object().unwrap();
    list.as_array().unwrap().iter().any(|one| wanted.iter().all(|(key, value)| one[key] == *value))
}

#[test]
fn an_added_assignment_is_found_with_what_it_gives() {
    let folder = workplace();
    let folder = folder.path();
    let added = assignment("99999999-0000-4000-8000-000000000001", NEW, READER, PROD);
    fs::write(folder.join("policy/more.json"), added.to_string()).unwrap();
    let told = difference(folder, 3);
    let changes = &told["changes"];
    assert_eq!(changes.as_array().unwrap().len(), 1, "{changes:#}");
    assert_eq!((&changes[0]["kind"], &changes[0]["change"]), (&json!("role assignment"), &json!("added")));
    assert_eq!(changes[0]["after"]["principal"], NEW);
    assert_eq!(changes[0]["after"]["scope"], PROD);
    let gained = json!({
        "principal": NEW, "scope": PROD, "kind": "gained", "of": "pattern", "plane": "control",
        "what": "*/read", "before": "notAllowed", "after": "allowed",
    });
    assert!(has(&told["impact"], &gained), "{told:#}");

    let output = run(folder, &["bundle", "diff", "old.bundle", "policy"]);
    assert_eq!(code(&output), 3);
    let human = text(&output.stdout);
    for part in
        ["Changes: 1 role assignment added\n", "\n+ role assignment ", &format!("\n{NEW} at {PROD}\n  + ")]
    {
        assert!(human.contains(part), "{part}\n{human}");
    }

    // The other way round it is lost.
    let output = run(folder, &["bundle", "diff", "policy", "old.bundle", "--json"]);
    let lost = parsed(&output);
    assert_eq!(lost["changes"][0]["change"], "removed");
    assert!(has(&lost["impact"], &json!({"principal": NEW, "kind": "lost", "what": "*/read"})), "{lost:#}");
}

#[test]
fn a_second_way_to_the_same_is_a_change_without_impact() {
    let folder = workplace();
    let folder = folder.path();
    let first = assignment("99999999-0000-4000-8000-000000000001", NEW, READER, PROD);
    fs::write(folder.join("policy/more.json"), first.to_string()).unwrap();
    assert_eq!(code(&run(folder, &["bundle", "build", "policy", "-o", "old.bundle"])), 0);
    let vault = format!("{PROD}/providers/Microsoft.KeyVault/vaults/kv");
    let second = assignment("99999999-0000-4000-8000-000000000002", NEW, READER, &vault);
    fs::write(folder.join("policy/again.json"), second.to_string()).unwrap();
    let told = difference(folder, 0);
    assert_eq!((&told["changes"][0]["change"], &told["impact"]), (&json!("added"), &json!([])));
}

#[test]
fn a_deny_assignment_that_goes_gives_back() {
    let folder = workplace();
    let folder = folder.path();
    let path = folder.join("policy/deny.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let (head, rest) = text.split_once("  # Nobody deletes in the production").unwrap();
    let behind = rest.find("  # Contractors").unwrap();
    fs::write(&path, format!("{head}{}", &rest[behind..])).unwrap();
    let told = difference(folder, 3);
    let removed = json!({"kind": "deny assignment", "change": "removed"});
    assert!(has(&told["changes"], &removed), "{told:#}");
    // Karl contributes to key vaults there: he may delete now.
    let karl = "00000000-0000-4000-a002-000000000006";
    let gained = told["impact"]
        .as_array()
        .unwrap()
        .iter()
        .any(|one| one["principal"] == karl && one["kind"] == "gained" && one["before"] == "denied");
    assert!(gained, "{told:#}");
    assert!(!told["impact"].as_array().unwrap().iter().any(|one| one["kind"] == "lost"), "{told:#}");
}

#[test]
fn who_joins_a_group_gains_what_it_holds() {
    let folder = workplace();
    let folder = folder.path();
    let path = folder.join("policy/groups.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let joined = text.replacen("\n    members:", &format!("\n    members:\n      - {NEW}"), 1);
    assert_ne!(joined, text);
    fs::write(&path, joined).unwrap();
    let told = difference(folder, 3);
    let member = json!({"kind": "membership", "change": "added", "id": NEW});
    assert!(has(&told["changes"], &member), "{told:#}");
    let impact = told["impact"].as_array().unwrap();
    assert!(impact.iter().all(|one| one["principal"] == NEW && one["kind"] == "gained"), "{told:#}");
}

#[test]
fn a_role_that_gives_more_reaches_its_holders_and_their_members() {
    let folder = workplace();
    let folder = folder.path();
    let path = folder.join("policy/roles/general.json");
    let text = fs::read_to_string(&path).unwrap();
    let more = text.replacen("\"*/read\"", "\"*/read\", \"Contoso.Coffee/machines/brew/action\"", 1);
    assert_ne!(more, text);
    fs::write(&path, more).unwrap();
    let told = difference(folder, 3);
    assert!(has(&told["changes"], &json!({"kind": "role definition", "change": "changed"})), "{told:#}");
    assert_eq!(told["changes"].as_array().unwrap().len(), 1, "{told:#}");
    let impact = told["impact"].as_array().unwrap();
    let brews = json!({
        "kind": "gained", "of": "action", "what": "Contoso.Coffee/machines/brew/action", "after": "allowed",
    });
    assert!(has(&told["impact"], &brews), "{told:#}");
    assert!(impact.iter().all(|one| one["what"] == brews["what"]), "{told:#}");
}

/// An activation of the first of April, from eight to four.
#[test]
fn what_is_held_later_is_compared_then() {
    const CONTRIBUTOR: &str = "b24988ac-6180-42a0-ab88-20f7382dd24c";
    let folder = workplace();
    let path = folder.path().join("policy/pim/active.json");
    fs::write(&path, fs::read_to_string(&path).unwrap().replace(CONTRIBUTOR, READER)).unwrap();
    for (now, exit) in [("2026-03-15T00:00:00Z", 3), ("2026-04-01T09:00:00Z", 3), ("2026-04-01T16:00:00Z", 0)]
    {
        let output = run(folder.path(), &["bundle", "diff", "old.bundle", "policy", "--now", now, "--json"]);
        let told = parsed(&output);
        assert_eq!((code(&output), told["changes"].as_array().unwrap().len()), (exit, 1), "{now}: {told:#}");
        assert_eq!(has(&told["impact"], &json!({"kind": "lost", "what": "*"})), exit == 3, "{told:#}");
    }
}

#[test]
fn lists_are_bounded_and_say_so() {
    let folder = workplace();
    let folder = folder.path();
    fs::write(folder.join("empty.json"), "[]").unwrap();
    let output = run(folder, &["bundle", "diff", "empty.json", "old.bundle", "--limit", "2", "--json"]);
    let told = parsed(&output);
    assert_eq!(code(&output), 3);
    assert_eq!((told["changes"].as_array().unwrap().len(), told["impact"].as_array().unwrap().len()), (2, 2));
    assert!(told["changesLeftOut"].as_u64().unwrap() > 50, "{told:#}");
    assert!(told["impactLeftOut"].as_u64().unwrap() > 50, "{told:#}");
    let human = run(folder, &["bundle", "diff", "empty.json", "old.bundle", "--limit", "2"]);
    assert!(text(&human.stdout).contains(" more; `--limit 0` tells all\n"), "{human:?}");
}
