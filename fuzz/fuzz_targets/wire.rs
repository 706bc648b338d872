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
use postern::server::message::CheckRequest;
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
    let read = CheckRequest::read(data);
    let Ok(wire) = v1::CheckRequest::decode(data) else {
        // What lies too deep is counted from where prost begins to read.
        assert!(read.is_err() || data.len() > 100, "one of two readers takes it");
        return;
    };
    let read = read.expect("what prost reads can be read");
    let (by_prost, asked) = (convert::check_request(&wire), convert::check_request(read.view()));
    assert_eq!(by_prost.as_ref().err(), asked.as_ref().err(), "both find the same at fault");
    let (Ok(by_prost), Ok(asked)) = (by_prost, asked) else { return };
    let (point, snapshot) = &*POINT;
    let other = point.check(snapshot, &by_prost.request, by_prost.agent.as_ref());
    let first = point.check(snapshot, &asked.request, asked.agent.as_ref());
    let again = point.check(snapshot, &asked.request, asked.agent.as_ref());
    match (first, again) {
        (Ok(first), Ok(again)) => {
            let other = other.expect("an answer of both readers").evaluation;
            assert_eq!(first.evaluation, other, "what both read is decided alike");
            assert_eq!(first.evaluation, again.evaluation, "the cache answers as the policy does");
            let _ = snapshot.policy.reason(&asked.request, &first.evaluation.decision);
        }
        (Err(first), Err(again)) => assert_eq!(first, again),
        (first, again) => panic!("{first:?} {again:?}"),
    }
});
