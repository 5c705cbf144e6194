//! Bytes in a text: all but printable ASCII, and `%`, is `%` and two hexadecimal digits.

pub(super) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'%' | 0..=0x1f | 0x7f.. => text += &format!("%{byte:02x}"),
            _ => text.push(char::from(*byte)),
        }
    }
    text
}

/// `None` unless [`escape`] can have given `text`.
pub(super) fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'%' => {
                let (digits, tail) = rest.split_at_checked(2)?;
                let digits = str::from_utf8(digits).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = tail;
            }
            0x20..0x7f => bytes.push(*byte),
            _ => return None,
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn unescape_inverts_escape(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let text = escape(&bytes);
            prop_assert!(text.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
            prop_assert_eq!(unescape(&text), Some(bytes));
        }
    }

    #[test]
    fn unescape_refuses_what_is_no_escape() {
        for text in ["%", "%4", "%zz", "\u{e9}", "a\n"] {
            assert_eq!(unescape(text), None, "{text:?}");
        }
    }
}
