//! The hash of the lookup tables in a compiled policy: fixed for all machines and times, since the tables are
//! written once and read everywhere.
//!
//! It need not resist an attacker: a table's contents and so its longest probe are the policy author's, and a
//! request can only look things up. The one table that requests fill, the action memo, is hashed with a random
//! seed instead.

const K0: u64 = 0x9E37_79B9_7F4A_7C15;
const K1: u64 = 0xD6E8_FEB8_6659_FD93;

/// One in each byte of a word, and the high bit of each.
const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x80 * ONES;

/// Hash of a GUID.
#[inline]
pub(super) fn guid(value: u128) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    let (low, high) = (value as u64, (value >> 64) as u64);
    fold(low ^ K0, high ^ K1)
}

/// Hash of a text as it stands.
#[inline]
pub(super) fn text(text: &[u8]) -> u64 {
    mix::<false>(K1, text)
}

/// Extends the hash of a path by what lies between two of its levels, ASCII letter case ignored.
#[inline]
pub(super) fn path(above: u64, between: &[u8]) -> u64 {
    mix::<true>(above, between)
}

/// The hash of the empty path.
pub(super) const EMPTY_PATH: u64 = K0;

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a).wrapping_mul(u128::from(b));
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    let (low, high) = (product as u64, (product >> 64) as u64);
    low ^ high
}

#[inline]
fn mix<const FOLD_CASE: bool>(seed: u64, bytes: &[u8]) -> u64 {
    let case = |word: u64| if FOLD_CASE { lower(word) } else { word };
    let length = bytes.len() as u64;
    let mut state = seed ^ length.wrapping_mul(K1);
    // Whole words, then the last eight bytes again (overlapping), so that no byte loop is needed.
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = fold(state ^ case(u64::from_le_bytes(*word)), K0);
    }
    if !rest.is_empty() {
        let tail = match bytes.last_chunk::<8>() {
            Some(last) => u64::from_le_bytes(*last),
            None => short(bytes),
        };
        state = fold(state ^ case(tail), K1);
    }
    fold(state ^ K1, K0 ^ length)
}

/// One to seven bytes as one word; with the length mixed in elsewhere, different texts give different words.
#[inline]
fn short(bytes: &[u8]) -> u64 {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32;
    }
    let at = |index: usize| bytes.get(index).map_or(0, |&byte| u64::from(byte));
    at(0) | at(1) << 8 | at(2) << 16
}

/// ASCII lower case of eight bytes at once; bytes from 0x80 stay as they are.
#[inline]
const fn lower(word: u64) -> u64 {
    let low_bits = word & !HIGH;
    let from_a = low_bits.wrapping_add((0x80 - b'A' as u64) * ONES);
    let beyond_z = low_bits.wrapping_add((0x7F - b'Z' as u64) * ONES);
    let upper = (from_a ^ beyond_z) & !word & HIGH;
    word | upper >> 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_is_ascii_lower_case_for_every_byte() {
        for byte in 0..=u8::MAX {
            let word = u64::from_le_bytes([byte, b'A', byte, b'Z', b'[', byte, b'@', byte]);
            let mut expected = word.to_le_bytes();
            expected.make_ascii_lowercase();
            assert_eq!(lower(word).to_le_bytes(), expected, "{byte}");
        }
    }

    #[test]
    fn paths_ignore_case_and_texts_do_not() {
        for length in 0..40 {
            let upper: String = "RESOURCEGROUPS-abcDEF-0123456789-xyzXYZ!".chars().take(length).collect();
            let folded = upper.to_ascii_lowercase();
            assert_eq!(path(EMPTY_PATH, upper.as_bytes()), path(EMPTY_PATH, folded.as_bytes()));
            if upper != folded {
                assert_ne!(text(upper.as_bytes()), text(folded.as_bytes()));
            }
        }
    }

    #[test]
    fn neighbours_differ() {
        let mut seen = std::collections::HashSet::new();
        for number in 0..100_000_u32 {
            assert!(seen.insert(path(EMPTY_PATH, format!("rg-{number}").as_bytes())));
        }
        for number in 0..100_000_u128 {
            assert!(seen.insert(guid(number | 0xa000_u128 << 64)));
        }
    }
}
