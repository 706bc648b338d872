//! Keeps the layers: who may import whom. Reads every file below `src/`, finds each path that begins at the root
//! of the crate (`crate::x`, `use crate::{a, b::c}`, `super::` that climbs out of its module) and each mention of
//! the gRPC crates, and names file and line of what may not be there.
//!
//! `TABLE` is the rule. ARCHITECTURE.md prints it for people, and one test holds the two together. Comments,
//! literals, `#[cfg(test)]` items and files named `tests.rs` are not looked at.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Layer, module, and the modules of the crate that it may import.
type Row = (u8, &'static str, &'static [&'static str]);

const TABLE: &[Row] = &[
    (0, "model", &[]),
    (0, "clock", &[]),
    (0, "readiness", &[]),
    (0, "drain", &[]),
    (0, "container", &[]),
    (0, "wire", &[]),
    (0, "telemetry", &["wire"]),
    (1, "metrics", &["model", "telemetry"]),
    (1, "condition", &["model"]),
    (1, "pim", &["model"]),
    (1, "agent", &["model"]),
    (2, "documents", &["model", "condition", "pim", "agent"]),
    (2, "authoring", &["model", "condition"]),
    (2, "policy", &["model", "condition", "agent"]),
    (2, "repository", &[]),
    (3, "bundle", &["model", "agent", "policy"]),
    (3, "snapshot", &["model", "policy"]),
    (3, "cache", &["model", "condition", "policy"]),
    (
        4,
        "source",
        &[
            "model",
            "clock",
            "readiness",
            "drain",
            "metrics",
            "telemetry",
            "condition",
            "documents",
            "policy",
            "repository",
            "bundle",
            "snapshot",
        ],
    ),
    (4, "authorizer", &["model", "clock", "metrics", "agent", "policy", "snapshot", "cache"]),
    (5, "record", &["model", "clock", "metrics", "telemetry", "policy", "snapshot", "cache", "authorizer"]),
    (5, "inject", &["readiness", "drain", "telemetry"]),
    (6, "proto", &[]),
    (
        6,
        "server",
        &[
            "model",
            "clock",
            "readiness",
            "drain",
            "metrics",
            "telemetry",
            "policy",
            "snapshot",
            "cache",
            "source",
            "authorizer",
            "record",
            "proto",
            "wire",
        ],
    ),
    (
        7,
        "config",
        &[
            "model",
            "drain",
            "container",
            "telemetry",
            "condition",
            "documents",
            "policy",
            "cache",
            "source",
            "authorizer",
            "record",
            "server",
        ],
    ),
    (7, "load", &["model", "policy", "record", "proto", "server"]),
    (
        7,
        "cli",
        &[
            "model",
            "clock",
            "drain",
            "metrics",
            "telemetry",
            "condition",
            "documents",
            "authoring",
            "policy",
            "repository",
            "bundle",
            "snapshot",
            "cache",
            "source",
            "authorizer",
            "record",
            "proto",
            "server",
            "inject",
            "config",
            "load",
        ],
    ),
    (
        8,
        "app",
        &[
            "model",
            "clock",
            "readiness",
            "drain",
            "metrics",
            "telemetry",
            "documents",
            "policy",
            "snapshot",
            "cache",
            "source",
            "authorizer",
            "record",
            "proto",
            "server",
            "inject",
            "config",
            "cli",
        ],
    ),
];

/// The two roots: `lib.rs` declares every module, `main.rs` starts the program.
const ROOTS: &[&str] = &["lib.rs", "main.rs"];

/// The gRPC crates, and the files that may mention them: a path, or a folder with its slash.
const GRPC_CRATES: &[&str] = &[
    "tonic",
    "tonic_build",
    "tonic_health",
    "tonic_prost",
    "tonic_reflection",
    "tonic_types",
    "prost",
    "prost_types",
];
const MAY_MENTION_GRPC: &[&str] = &[
    "proto.rs",
    "server/",
    "cli/ask/",
    "load/",
    "app.rs",
    "telemetry/logs.rs",
    "telemetry/send.rs",
    "telemetry/spans.rs",
    "metrics/otlp.rs",
    "record/otlp.rs",
];

/// The files that may mention the generated messages.
const MAY_MENTION_PROTO: &[&str] = &["proto.rs", "server/", "cli/ask/", "load/"];

#[test]
fn layers_hold() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    assert!(files.len() > ROOTS.len(), "no sources below {}", src.display());
    let mut violations = Vec::new();
    for file in files {
        let path = file.strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/");
        violations.extend(check(&path, &fs::read_to_string(&file).unwrap()));
    }
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn the_table_only_points_down() {
    for (layer, module, imports) in TABLE {
        for import in *imports {
            let (below, ..) = entry(import).unwrap_or_else(|| panic!("{import} is not in the table"));
            let same_edge = below == layer
                && matches!(
                    (*module, *import),
                    ("server", "proto") | ("cli", "config" | "load") | ("telemetry", "wire")
                );
            assert!(below < layer || same_edge, "{module} imports {import}, which is not below it");
        }
    }
}

/// The table of ARCHITECTURE.md has a row `| layer | module | imports |` for each of ours, and no other.
#[test]
fn architecture_md_prints_the_table() {
    let text = include_str!("../ARCHITECTURE.md");
    let printed: BTreeSet<(u8, String, Vec<String>)> = text
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [layer, module, imports] = cells[..] else { return None };
            let names = |cell: &str| {
                let mut names: Vec<String> = cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
                names.sort();
                names
            };
            Some((layer.parse().ok()?, names(module).pop()?, names(imports)))
        })
        .collect();
    let ours: BTreeSet<(u8, String, Vec<String>)> = TABLE
        .iter()
        .map(|(layer, module, imports)| {
            let mut imports: Vec<String> = imports.iter().map(|&name| name.to_owned()).collect();
            imports.sort();
            (*layer, (*module).to_owned(), imports)
        })
        .collect();
    assert_eq!(printed, ours);
}

#[test]
fn finds_planted_violations() {
    for (path, text, found) in [
        ("policy/mod.rs", "use crate::documents::load;", &["policy/mod.rs:1"][..]),
        ("policy/scopes.rs", "\n\nfn f() -> crate::snapshot::Snapshot { make() }", &["policy/scopes.rs:3"]),
        (
            "policy/scopes.rs",
            "use crate::{\n    model::{Scope, Action},\n    server,\n    cache::{self, Key},\n};",
            &["policy/scopes.rs:3", "policy/scopes.rs:4"],
        ),
        ("model/scope.rs", "use super::super::policy::Policy;", &["model/scope.rs:1"]),
        ("model/scope.rs", "mod inner { use super::super::super::policy::Policy; }", &["model/scope.rs:1"]),
        ("clock.rs", "use super::model::Action;", &["clock.rs:1"]),
        ("cache.rs", "use crate::*;", &["cache.rs:1"]),
        ("cache.rs", "use crate::Decision;", &["cache.rs:1"]),
        ("cache.rs", "use crate as postern;", &["cache.rs:1"]),
        ("cache.rs", "#[cfg(test)]\nmod tests {\n}\nuse crate::app;", &["cache.rs:4"]),
        ("cache.rs", "#[cfg(all(unix, not(test)))]\nuse crate::app;", &["cache.rs:2"]),
        ("cache.rs", "#[cfg(not(test))]\nuse crate::app;", &["cache.rs:2"]),
        ("authorizer.rs", "fn f() -> Result<(), tonic::Status> {}", &["authorizer.rs:1"]),
        ("source/dir.rs", "use ::prost::Message;", &["source/dir.rs:1"]),
        ("cli/validate.rs", "use crate::proto::v1::Subject;", &["cli/validate.rs:1"]),
        ("cli/validate.rs", "use tonic_types::StatusExt;", &["cli/validate.rs:1"]),
        ("app.rs", "use crate::proto::DESCRIPTORS;", &["app.rs:1"]),
        ("stowaway.rs", "", &["stowaway.rs"]),
    ] {
        let violations = check(path, text);
        let places: Vec<&str> =
            violations.iter().map(|violation| violation.split_once(": ").unwrap().0).collect();
        assert_eq!(places, found, "{path}: {text}\n{violations:?}");
    }
}

#[test]
fn leaves_alone_what_is_allowed() {
    for (path, text) in [
        ("policy/mod.rs", "use crate::model::{Action, Scope};\npub(crate) fn f() {}\nmod scopes;"),
        ("policy/scopes.rs", "use super::layout::Layout;\nuse super::super::model::Scope;"),
        ("policy/scopes.rs", "use crate::policy::layout::Layout;"),
        ("policy/mod.rs", "//! See [`crate::server`].\n/* crate::app /* nested */ tonic:: */"),
        (
            "policy/mod.rs",
            "const A: &str = \"crate::app\"; const B: &str = r#\"tonic::\"\"#; const C: char = '\"';",
        ),
        ("policy/mod.rs", "fn f<'a>(x: &'a str) -> char { '\\'' }"),
        ("policy/mod.rs", "#[cfg(test)]\nmod tests {\n    use crate::documents::load;\n}"),
        ("policy/mod.rs", "#[cfg(all(test, unix))]\nmod tests {\n    use crate::documents::load;\n}"),
        ("policy/mod.rs", "#[cfg(test)]\nuse crate::documents::load;"),
        ("policy/mod.rs", "#[cfg(test)]\n#[derive(Debug)]\nfn f(x: [u8; 3]) { crate::app::run(x) }"),
        ("telemetry.rs", "let exporter = builder().with_tonic();"),
        ("server/grpc.rs", "use crate::{authorizer::Authorizer, proto::v1};\nuse tonic::Status;"),
        ("cli/ask/", "use crate::proto::v1::CheckRequest;\nuse tonic::Code;"),
        ("app.rs", "use crate::server::Addresses;\nuse tonic::transport::Server;"),
        ("lib.rs", "pub use crate::model::Decision;\npub mod model;"),
    ] {
        assert_eq!(check(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}

// === the checker ===

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
}

fn entry(module: &str) -> Option<&'static Row> {
    TABLE.iter().find(|(_, name, _)| *name == module)
}

/// The violations of one file, each beginning with its place. `path` is relative to `src/`.
fn check(path: &str, text: &str) -> Vec<String> {
    let parts: Vec<&str> = path.trim_end_matches(".rs").split('/').filter(|part| *part != "mod").collect();
    let module = parts[0];
    let is_root = ROOTS.contains(&path);
    let imports = match entry(module) {
        Some((_, _, imports)) => *imports,
        None if is_root => &[],
        None => return vec![format!("{path}: module `{module}` is not in the table of layers")],
    };
    let in_list = |list: &[&str]| {
        is_root || list.iter().any(|item| path == *item || (item.ends_with('/') && path.starts_with(item)))
    };
    let mut violations = Vec::new();
    let text = blank(text);
    let tokens = without_test_items(tokens(&text));
    for reference in references(&tokens, parts.len()) {
        let (line, name) = (reference.line, reference.text);
        let is_self = name == module;
        if !is_root && !is_self && !imports.contains(&name) {
            violations.push(match entry(name) {
                Some((layer, ..)) => {
                    format!("{path}:{line}: `{module}` may not import `{name}` (layer {layer})")
                }
                None => {
                    format!("{path}:{line}: `crate::{name}` is no module of the table; name it by its module")
                }
            });
        } else if name == "proto" && !in_list(MAY_MENTION_PROTO) {
            violations.push(format!("{path}:{line}: the generated messages stay in {MAY_MENTION_PROTO:?}"));
        }
    }
    if !in_list(MAY_MENTION_GRPC) {
        for (at, token) in tokens.iter().enumerate() {
            let used = next_is(&tokens, at, "::") || before_is(&tokens, at, "use");
            if GRPC_CRATES.contains(&token.text) && used {
                let line = token.line;
                violations.push(format!("{path}:{line}: `{}` stays in {MAY_MENTION_GRPC:?}", token.text));
            }
        }
    }
    violations
}

#[derive(Clone, Copy)]
struct Token<'a> {
    line: usize,
    text: &'a str,
}

fn next_is(tokens: &[Token<'_>], at: usize, text: &str) -> bool {
    tokens.get(at + 1).is_some_and(|token| token.text == text)
}

fn before_is(tokens: &[Token<'_>], at: usize, text: &str) -> bool {
    at.checked_sub(1).is_some_and(|before| tokens[before].text == text)
}

/// The names that are looked up at the root of the crate, in a file whose module lies `depth` below it.
fn references<'a>(tokens: &[Token<'a>], depth: usize) -> Vec<Token<'a>> {
    let mut found = Vec::new();
    // One entry for each open brace: whether it opened a module.
    let mut braces: Vec<bool> = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "{" => braces.push(at >= 2 && tokens[at - 2].text == "mod"),
            "}" => {
                braces.pop();
            }
            "crate" if next_is(tokens, at, "::") => names_at(tokens, at + 2, &mut found),
            "crate" if before_is(tokens, at, "use") => found.push(*token),
            "super" if !before_is(tokens, at, "::") => {
                let mut behind = at;
                let mut climbed = 0;
                while tokens.get(behind).is_some_and(|token| token.text == "super") {
                    climbed += 1;
                    behind += 2;
                }
                let inline = braces.iter().filter(|is_module| **is_module).count();
                if climbed >= depth + inline {
                    names_at(tokens, behind, &mut found);
                }
            }
            _ => {}
        }
    }
    found
}

/// The first name behind `crate::`, or the first of each path in a group.
fn names_at<'a>(tokens: &[Token<'a>], at: usize, found: &mut Vec<Token<'a>>) {
    if tokens.get(at).is_none_or(|token| token.text != "{") {
        found.extend(tokens.get(at));
        return;
    }
    let mut open = 0;
    let mut fresh = false;
    for token in &tokens[at..] {
        match token.text {
            "{" => {
                open += 1;
                fresh = open == 1;
            }
            "}" => {
                open -= 1;
                if open == 0 {
                    return;
                }
            }
            "," => fresh = open == 1,
            _ if fresh => {
                fresh = false;
                if token.text != "self" {
                    found.push(*token);
                }
            }
            _ => {}
        }
    }
}

/// Drops each `#[cfg(test)]` item: up to its `;`, or over its braces.
fn without_test_items(tokens: Vec<Token<'_>>) -> Vec<Token<'_>> {
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let Some(behind) = behind_test_attribute(&tokens, at) else {
            kept.push(tokens[at]);
            at += 1;
            continue;
        };
        at = behind;
        let mut open = 0;
        while at < tokens.len() {
            match tokens[at].text {
                "{" | "(" | "[" => open += 1,
                "}" | ")" | "]" => open -= 1,
                _ => {}
            }
            let ends = open == 0 && matches!(tokens[at].text, ";" | "}");
            at += 1;
            if ends {
                break;
            }
        }
    }
    kept
}

/// Where `#[cfg(test)]` or `#[cfg(all(test, …))]` ends, if it begins here.
fn behind_test_attribute(tokens: &[Token<'_>], at: usize) -> Option<usize> {
    let attribute = &tokens[at..];
    let begins = |texts: &[&str]| {
        attribute.len() >= texts.len() && attribute.iter().zip(texts).all(|(token, text)| token.text == *text)
    };
    if !begins(&["#", "[", "cfg", "(", "test", ")"])
        && !begins(&["#", "[", "cfg", "(", "all", "(", "test", ","])
    {
        return None;
    }
    let end = attribute.iter().position(|token| token.text == "]")?;
    Some(at + end + 1)
}

/// Words, `::`, and every other character by itself.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, behind) = rest.split_at(length);
        if first == '\n' {
            line += 1;
        } else if !first.is_whitespace() {
            tokens.push(Token { line, text: token });
        }
        rest = behind;
    }
    tokens
}

/// The text with comments and literals blanked out, line by line as it was.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(first) = rest.chars().next() {
        let in_word = previous.is_alphanumeric() || previous == '_';
        let skip = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => quoted(rest, '"'),
            'r' | 'b' | 'c' if !in_word => raw_string(rest).unwrap_or(0),
            '\'' => char_literal(rest),
            _ => 0,
        };
        if skip == 0 {
            out.push(first);
            previous = first;
            rest = &rest[first.len_utf8()..];
        } else {
            let (gone, behind) = rest.split_at(skip);
            out.extend(gone.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            previous = ' ';
            rest = behind;
        }
    }
    out
}

fn block_comment(text: &str) -> usize {
    let mut open = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            open += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            open -= 1;
            at += 2;
            if open == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length of a literal between two equal quotes, escapes skipped.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of `r"…"`, `r#"…"#`, `br"…"`, `cr"…"`; `None` for a word that merely begins with one of the letters.
fn raw_string(text: &str) -> Option<usize> {
    let behind = text.strip_prefix("br").or(text.strip_prefix("cr")).or(text.strip_prefix('r'))?;
    let hashes = behind.len() - behind.trim_start_matches('#').len();
    let body = behind[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(text.len() - body.len() + length)
}

/// Length of `'x'`; 0 for a lifetime.
fn char_literal(text: &str) -> usize {
    let mut chars = text.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some('\\'), _) => quoted(text, '\''),
        (Some(c), Some('\'')) => c.len_utf8() + 2,
        _ => 0,
    }
}
