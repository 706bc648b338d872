//! Any bytes as a compiled condition: they have a value or an error, and nothing is read past their end.
#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use postern::condition::{Budget, Context, evaluate_until};
use postern::model::Attributes;

fuzz_target!(|data: &[u8]| {
    let attributes = Attributes::from_json(&serde_json::json!({
        "a": "text", "b": 7, "c": [1, "x", true], "a:tags": {"Project": "Cascade", "project": "Baker"},
    }));
    let context = Context {
        action: "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read",
        sub_operation: Some("Blob.List"),
        now: Timestamp::UNIX_EPOCH,
        request: &attributes,
        resource: &attributes,
        principal: &attributes,
        environment: &attributes,
    };
    let _ = evaluate_until(data, &context, &mut Budget::default());
});
