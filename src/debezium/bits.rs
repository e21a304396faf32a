//! Bit strings and hexadecimal bytes: from Debezium's texts to what they stand for.
//!
//! Debezium writes a bit string as a Java `BitSet`: its bytes with the lowest first, without the zeros above the highest
//! set bit. How many zeros there were is said by the type alone, so that only `bit(n)` can be rebuilt: what a
//! `bit varying` began with is lost.

/// Appends the bits of `bytes` as text of exactly `length` digits; `None` where there are more of them.
pub(super) fn write(bytes: &[u8], length: u32, text: &mut Vec<u8>) -> Option<()> {
    let length = usize::try_from(length).ok()?;
    let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| {
        let highest = bytes.get(last).map_or(0, |byte| 8 - byte.leading_zeros() as usize);
        last * 8 + highest
    });
    if used > length {
        return None;
    }
    text.extend((0..length).rev().map(|bit| {
        let byte = bytes.get(bit / 8).copied().unwrap_or(0);
        b'0' + (byte >> (bit % 8) & 1)
    }));
    Some(())
}

/// Appends the bytes that hexadecimal digits say.
pub(super) fn from_hex(digits: &str, bytes: &mut Vec<u8>) -> Option<()> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit = |digit: u8| char::from(digit).to_digit(16);
    for [high, low] in pairs {
        bytes.push((digit(*high)? << 4 | digit(*low)?) as u8);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn bits(bytes: &[u8], length: u32) -> Option<String> {
        let mut text = Vec::new();
        write(bytes, length, &mut text)?;
        Some(String::from_utf8(text).unwrap())
    }

    #[test]
    fn bits_are_rebuilt_at_the_length_of_their_type() {
        assert_eq!(bits(&[0xa1], 8).as_deref(), Some("10100001"));
        assert_eq!(bits(&[0x05], 20).as_deref(), Some("00000000000000000101"));
        assert_eq!(bits(&[], 3).as_deref(), Some("000"));
        assert_eq!(bits(&[0x00, 0x01], 9).as_deref(), Some("100000000"));
        assert_eq!(bits(&[0x07, 0x00], 3).as_deref(), Some("111"));
    }

    #[test]
    fn more_bits_than_the_type_has_are_refused() {
        assert_eq!(bits(&[0x08], 3), None);
        assert_eq!(bits(&[0x00, 0x01], 8), None);
    }

    #[test]
    fn hexadecimal_digits_are_pairs() {
        let hex = |text: &str| {
            let mut bytes = Vec::new();
            from_hex(text, &mut bytes).map(|()| bytes)
        };
        assert_eq!(hex("00fF10"), Some(vec![0, 255, 16]));
        assert_eq!(hex(""), Some(vec![]));
        for wrong in ["0", "0g", "é"] {
            assert_eq!(hex(wrong), None, "{wrong}");
        }
    }
}
