//! A bundle of the example tenant, damaged where the input says and sealed again, so that the damage gets behind the
//! digest: it is refused, or it is asked everything and nothing panics or hangs.
#![no_main]

#[path = "../../tests/common/questions.rs"]
mod questions;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use postern::bundle::{self, Check};
use postern::policy::Policy;
use questions::{ask_one, contoso, contoso_bundle, look_at_everything};
use sha2::{Digest, Sha256};

static HONEST: LazyLock<(Vec<u8>, Policy)> = LazyLock::new(|| (contoso_bundle(), contoso()));

const HEADER: usize = 104;

fuzz_target!(|data: &[u8]| {
    let (file, honest) = &*HONEST;
    let Some((&kind, edits)) = data.split_first() else { return };
    let mut damaged = if kind & 1 == 0 {
        file.clone()
    } else {
        // Whatever the input is, as a file: the header and what it says.
        let _ = bundle::from_bytes(edits.to_vec());
        file.get(..edits.len().max(HEADER) % file.len()).unwrap_or_default().to_vec()
    };
    // Each edit: where, modulo the length, and four bytes to put there.
    for edit in edits.chunks_exact(8) {
        let at = u32::from_le_bytes(edit[..4].try_into().unwrap()) as usize % damaged.len().max(1);
        for (place, byte) in damaged.iter_mut().skip(at).zip(&edit[4..]) {
            *place = *byte;
        }
    }
    if damaged.len() > HEADER {
        let digest = Sha256::digest(&damaged[HEADER..]);
        damaged[HEADER - 32..HEADER].copy_from_slice(&digest);
    }
    let sealed = bundle::from_bytes(damaged.clone());
    let bounds = Check::Bounds { digest: String::new() };
    let Ok(opened) = bundle::from_bytes_verified(damaged, bounds) else {
        assert!(sealed.is_err(), "a full check passes nothing that the bounds refuse");
        return;
    };
    let _ = opened.sources();
    ask_one(&opened.policy, edits.len());
    if kind & 6 == 6 {
        look_at_everything(&opened.policy, honest);
    }
});
