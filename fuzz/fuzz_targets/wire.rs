//! Any bytes as a message: converted and decided under the example tenant, or refused with the fields at fault.
#![no_main]

use std::sync::LazyLock;

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use postern::documents::{Lenience, load};
use postern::policy::{CompileOptions, Policy};
use postern::proto::v1;
use postern::server::convert;
use prost::Message;

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let contoso = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/contoso");
    let (documents, problems) = load(contoso.as_ref(), Lenience::Strict);
    assert!(!problems.has_errors(), "{problems:?}");
    Policy::compile(&documents, CompileOptions::default()).expect("a policy")
});

fuzz_target!(|data: &[u8]| {
    if let Ok(wire) = v1::CheckRequest::decode(data)
        && let Ok(request) = convert::check_request(&wire)
        && let Ok(evaluation) = POLICY.evaluate(&request, Timestamp::UNIX_EPOCH)
    {
        let _ = POLICY.reason(&request, &evaluation.decision);
    }
});
