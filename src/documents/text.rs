//! Bytes of a file to text: UTF-8, and UTF-16 with a byte order mark, which is what `>` of Windows PowerShell
//! writes.

/// Why bytes are no text, for the message and its place in the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotText {
    /// Lower case, no full stop.
    pub(super) message: String,
}

/// Decodes; a byte order mark is not part of the text.
pub(super) fn decode(bytes: Vec<u8>) -> Result<String, NotText> {
    if let Some(rest) = bytes.strip_prefix(&[0xFF, 0xFE]) {
        return utf16(rest, u16::from_le_bytes, "UTF-16LE");
    }
    if let Some(rest) = bytes.strip_prefix(&[0xFE, 0xFF]) {
        return utf16(rest, u16::from_be_bytes, "UTF-16BE");
    }
    let marked = bytes.starts_with(&[0xEF, 0xBB, 0xBF]);
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        NotText {
            message: format!("the file is not UTF-8: the byte at offset {offset} does not belong there"),
        }
    })?;
    if marked {
        text.drain(..'\u{FEFF}'.len_utf8());
    }
    Ok(text)
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16, name: &str) -> Result<String, NotText> {
    let (pairs, odd) = bytes.as_chunks::<2>();
    // The offset counts the mark; it is kept as the bytes that the characters so far have taken.
    let mut offset = 2_usize;
    let mut text = String::with_capacity(pairs.len());
    for character in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        let Ok(character) = character else {
            return Err(NotText {
                message: format!("the file is not {name}: half a surrogate pair at byte offset {offset}"),
            });
        };
        text.push(character);
        offset = offset.saturating_add(character.len_utf16().saturating_mul(2));
    }
    if odd.is_empty() {
        Ok(text)
    } else {
        Err(NotText {
            message: format!("the file is not {name}: it ends in half a character at byte offset {offset}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16_bytes(mark: [u8; 2], text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        mark.into_iter().chain(text.encode_utf16().flat_map(bytes)).collect()
    }

    #[test]
    fn encodings_that_tools_write() {
        for bytes in [
            "{\"ä\": \"😀\"}".as_bytes().to_vec(),
            [&[0xEF, 0xBB, 0xBF], "{\"ä\": \"😀\"}".as_bytes()].concat(),
            utf16_bytes([0xFF, 0xFE], "{\"ä\": \"😀\"}", u16::to_le_bytes),
            utf16_bytes([0xFE, 0xFF], "{\"ä\": \"😀\"}", u16::to_be_bytes),
        ] {
            assert_eq!(decode(bytes).unwrap(), "{\"ä\": \"😀\"}");
        }
        assert_eq!(decode(Vec::new()).unwrap(), "");
        assert_eq!(decode(vec![0xEF, 0xBB, 0xBF]).unwrap(), "");
    }

    #[test]
    fn the_first_bad_byte_is_named() {
        for (bytes, offset) in [
            (b"abc\xE4def".to_vec(), "offset 3"),
            (b"\xEF\xBB\xBFa\xFF".to_vec(), "offset 4"),
            (vec![0xFF, 0xFE, b'a', 0, 0x00, 0xD8, b'b', 0], "offset 4"),
            (vec![0xFE, 0xFF, 0, b'a', 0], "offset 4"),
        ] {
            let error = decode(bytes).unwrap_err();
            assert!(error.message.contains(offset), "{}", error.message);
        }
    }
}
