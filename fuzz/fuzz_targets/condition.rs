//! Any text as a condition: what parses means the same when it is printed and read again, the strict mode accepts
//! nothing that the lenient one refuses, and evaluation ends.
//!
//! The text ends at the first NUL; a JSON object behind it gives the attributes of every source.
#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use postern::condition::{Budget, Context, Extensions, Mode, compile, evaluate, explain, parse};
use postern::model::{Attributes, Wildcards};

fuzz_target!(|data: &[u8]| {
    let (text, json) = match data.iter().position(|&byte| byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &b"{}"[..]),
    };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let attributes: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    let attributes = Attributes::from_json(&attributes);
    let context = Context {
        action: "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read",
        sub_operation: Some("Blob.List"),
        now: Timestamp::UNIX_EPOCH,
        request: &attributes,
        resource: &attributes,
        principal: &attributes,
        environment: &attributes,
    };
    for enabled in [false, true] {
        let extensions = Extensions { enabled };
        let loaded = parse(text, Mode::Load, extensions);
        for diagnostic in &loaded.diagnostics {
            assert!(text.get(diagnostic.span.clone()).is_some(), "{diagnostic:?} does not point into the text");
        }
        let Some(condition) = loaded.condition else {
            assert!(parse(text, Mode::Author, extensions).condition.is_none(), "the strict mode is laxer");
            continue;
        };
        let printed = condition.to_string();
        let again = parse(&printed, Mode::Load, extensions).condition;
        let again = again.unwrap_or_else(|| panic!("{text:?} is printed as {printed:?}, which does not parse"));
        assert_eq!(condition.clone().without_spans(), again.without_spans(), "{text:?} {printed:?}");
        let program = compile(&condition, Wildcards::Collapse);
        let truth = evaluate(program.as_bytes(), &context, &mut Budget::default());
        let explained = explain(&condition, Wildcards::Collapse, &context, &mut Budget::default());
        if let (Ok(truth), Ok(explained)) = (truth, explained) {
            assert_eq!(truth, explained.truth, "{text:?}");
        }
    }
});
