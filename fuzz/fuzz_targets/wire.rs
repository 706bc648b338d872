//! Any bytes as a message: converted and decided under the example tenant, or refused with the fields at fault.
#![no_main]

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use postern::authorizer::{Authorizer, CacheSettings};
use postern::cache::CachePolicy;
use postern::clock::Clock;
use postern::documents::{Lenience, load};
use postern::policy::{CompileOptions, Policy};
use postern::proto::v1;
use postern::server::convert;
use postern::snapshot::{Snapshot, cell};
use prost::Message;

static POINT: LazyLock<(Authorizer, Arc<Snapshot>)> = LazyLock::new(|| {
    let contoso = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/contoso");
    let (documents, problems) = load(contoso.as_ref(), Lenience::Strict);
    assert!(!problems.has_errors(), "{problems:?}");
    let policy = Policy::compile(&documents, CompileOptions::default()).expect("a policy");
    let (mut writer, reader) = cell();
    let (snapshot, _) = writer.activate(policy, 0, Timestamp::UNIX_EPOCH);
    let cache = CacheSettings { policy: CachePolicy::CostAtLeast(0), max_bytes: 1 << 20 };
    (Authorizer::new(reader, cache, Clock::manual(Timestamp::UNIX_EPOCH)), snapshot)
});

fuzz_target!(|data: &[u8]| {
    let Ok(wire) = v1::CheckRequest::decode(data) else { return };
    let Ok(asked) = convert::check_request(&wire) else { return };
    let (point, snapshot) = &*POINT;
    let first = point.check(snapshot, &asked.request, asked.agent.as_ref());
    let again = point.check(snapshot, &asked.request, asked.agent.as_ref());
    match (first, again) {
        (Ok(first), Ok(again)) => {
            assert_eq!(first.evaluation, again.evaluation, "the cache answers as the policy does");
            let _ = snapshot.policy.reason(&asked.request, &first.evaluation.decision);
        }
        (Err(first), Err(again)) => assert_eq!(first, again),
        (first, again) => panic!("{first:?} {again:?}"),
    }
});
