//! Any bytes as a policy document: read, checked, compiled and asked, or refused with problems that have a place.
//!
//! The first byte chooses the syntax and how strictly it is read.
#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use postern::documents::{Lenience, load_texts};
use postern::model::{Action, CheckRequest, Plane, PrincipalId, Scope, Groups, Subject};
use postern::policy::{CompileOptions, Policy};

const SUB: &str = "/subscriptions/00000000-0000-4000-a001-000000000002/resourceGroups/rg-payments-prod";

fuzz_target!(|data: &[u8]| {
    let Some((&choice, text)) = data.split_first() else { return };
    let path = ["policy.json", "policy.yaml", "policy.jsonl"][usize::from(choice % 3)];
    let lenience = if choice & 0x80 == 0 { Lenience::Strict } else { Lenience::Lenient };
    let (documents, problems) = load_texts(vec![(path.to_owned(), text.to_vec())], lenience);
    if problems.has_errors() {
        return;
    }
    let Ok(policy) = Policy::compile(&documents, CompileOptions::default()) else { return };
    let principals = documents.role_assignments.iter().map(|assignment| &assignment.principal_id.value);
    for principal in principals.chain(documents.schedules.iter().map(|schedule| &schedule.principal_id.value)).take(4) {
        for scope in ["/", SUB] {
            let subject = Subject { principal: PrincipalId::new(principal), groups: Groups::NONE };
            let (Ok(action), Ok(scope)) = (Action::parse("A.B/c/read"), Scope::parse(scope)) else { return };
            let request = CheckRequest::new(subject, action, Plane::Control, scope);
            if let Ok(evaluation) = policy.evaluate(&request, Timestamp::UNIX_EPOCH) {
                let _ = policy.reason(&request, &evaluation.decision);
            }
        }
    }
});
