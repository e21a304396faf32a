//! Exact decimals: from two's complement bytes and from text to 128-bit integers and to plain decimal text.
//!
//! No value passes through a float, and none is rounded: a decimal with more digits than its column declares is
//! refused. Sizes are limited to what Postgres' `numeric` can hold, so that no event can make this expensive.

/// Bytes of an unscaled value; Postgres' longest `numeric` has 147,455 digits, which are 61,232 bytes.
const MOST_BYTES: usize = 65_536;
/// Digits before or behind the point that an exponent or scale may add.
const MOST_SCALE: i64 = 150_000;
/// Largest scale that a column of Postgres can declare.
const MOST_DECLARED_SCALE: i64 = 1000;
/// Largest power of ten in 64 bits.
const CHUNK: u64 = 10_u64.pow(19);
const CHUNK_DIGITS: usize = 19;

/// A decimal number: `±digits × 10^-scale`. Digits are ASCII without leading zeros; zero is `0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    scale: i64,
}

/// The integer in big-endian two's complement, where 128 bits hold it.
pub(super) fn unscaled(bytes: &[u8]) -> Option<i128> {
    let first = *bytes.first()?;
    let fill = if first & 0x80 == 0 { 0x00 } else { 0xff };
    let mut all = [fill; 16];
    let extra = bytes.len().saturating_sub(16);
    let (head, tail) = bytes.split_at(extra);
    if head.iter().any(|&byte| byte != fill) {
        return None;
    }
    let start = all.len() - tail.len();
    all.get_mut(start..)?.copy_from_slice(tail);
    let value = i128::from_be_bytes(all);
    ((value < 0) == (fill == 0xff)).then_some(value)
}

/// Whether a scale is one that a number of Postgres may have.
fn in_bounds(scale: i64) -> bool {
    (-MOST_SCALE..=MOST_SCALE).contains(&scale)
}

/// Whether an unscaled value has at most `precision` digits.
pub(super) fn fits(value: i128, precision: u8) -> bool {
    10_u128.checked_pow(u32::from(precision)).is_some_and(|limit| value.unsigned_abs() < limit)
}

impl Decimal {
    /// The number of `bytes` (big-endian two's complement) divided by `10^scale`.
    pub(super) fn from_bytes(bytes: &[u8], scale: i64) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > MOST_BYTES || !in_bounds(scale) {
            return None;
        }
        let (negative, digits) = match unscaled(bytes) {
            Some(value) => (value < 0, value.unsigned_abs().to_string().into_bytes()),
            None => large_digits(bytes),
        };
        Some(Self { negative, digits, scale })
    }

    /// A number as JSON, Java or SQL write it, with or without exponent.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (mantissa, exponent) = match rest.find(['e', 'E']) {
            Some(at) => (rest.get(..at)?, rest.get(at + 1..)?.parse::<i64>().ok()?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits: Vec<u8> = Vec::with_capacity(whole.len() + fraction.len());
        digits.extend(whole.bytes().chain(fraction.bytes()));
        if digits.is_empty() || digits.len() as i64 > MOST_SCALE || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let zeros = digits.iter().take_while(|&&digit| digit == b'0').count().min(digits.len() - 1);
        digits.drain(..zeros);
        let scale = (fraction.len() as i64).checked_sub(exponent)?;
        in_bounds(scale).then_some(Self { negative, digits, scale })
    }

    /// The number without the zeros that a declared scale puts behind the point, where Postgres has no such scale: the
    /// connector reads a scale below zero as one above 1024.
    pub(super) fn of_declared_scale(mut self, declared: i64) -> Self {
        if declared > MOST_DECLARED_SCALE {
            while self.scale > 0 && self.digits.len() > 1 && self.digits.last() == Some(&b'0') {
                self.digits.pop();
                self.scale -= 1;
            }
            if self.digits == b"0" {
                self.scale = 0;
            }
        }
        self
    }

    /// The unscaled value at another scale; `None` where digits would be lost or 128 bits do not suffice.
    pub(super) fn at_scale(&self, scale: i8) -> Option<i128> {
        let shift = i64::from(scale) - self.scale;
        let kept = if shift < 0 {
            let cut = usize::try_from(-shift).ok()?.min(self.digits.len());
            let (kept, lost) = self.digits.split_at(self.digits.len() - cut);
            if lost.iter().any(|&digit| digit != b'0') {
                return None;
            }
            kept
        } else {
            &self.digits
        };
        let mut value: i128 = 0;
        for digit in kept {
            value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
        }
        if shift > 0 && value != 0 {
            value = value.checked_mul(10_i128.checked_pow(u32::try_from(shift).ok()?)?)?;
        }
        Some(if self.negative { -value } else { value })
    }

    /// Appends the number without exponent, with as many digits behind the point as its scale says.
    pub(super) fn write_plain(&self, out: &mut Vec<u8>) {
        let zero = self.digits == b"0";
        if self.negative && !zero {
            out.push(b'-');
        }
        let scale = usize::try_from(self.scale).unwrap_or(0);
        if scale == 0 {
            out.extend_from_slice(&self.digits);
            let zeros = if zero { 0 } else { usize::try_from(-self.scale).unwrap_or(0) };
            out.resize(out.len() + zeros, b'0');
        } else if let Some(whole) = self.digits.len().checked_sub(scale).filter(|&whole| whole > 0) {
            let (whole, fraction) = self.digits.split_at(whole);
            out.extend_from_slice(whole);
            out.push(b'.');
            out.extend_from_slice(fraction);
        } else {
            out.extend_from_slice(b"0.");
            out.resize(out.len() + (scale - self.digits.len()), b'0');
            out.extend_from_slice(&self.digits);
        }
    }
}

/// Sign and decimal digits of an integer of more than 128 bits in big-endian two's complement.
fn large_digits(bytes: &[u8]) -> (bool, Vec<u8>) {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    // Limbs of 64 bits, the smallest first, of the magnitude.
    let mut limbs: Vec<u64> = bytes
        .rchunks(8)
        .map(|chunk| {
            let fill = if negative { u64::MAX } else { 0 };
            chunk.iter().fold(fill, |limb, &byte| limb << 8 | u64::from(byte))
        })
        .collect();
    if negative {
        let mut carry = true;
        for limb in &mut limbs {
            let (value, overflow) = (!*limb).overflowing_add(u64::from(carry));
            *limb = value;
            carry = overflow;
        }
    }
    let mut chunks = Vec::new();
    while !limbs.is_empty() {
        let mut remainder = 0_u128;
        for limb in limbs.iter_mut().rev() {
            let value = remainder << 64 | u128::from(*limb);
            *limb = (value / u128::from(CHUNK)) as u64;
            remainder = value % u128::from(CHUNK);
        }
        chunks.push(remainder as u64);
        while limbs.last() == Some(&0) {
            limbs.pop();
        }
    }
    let mut digits = String::with_capacity(chunks.len() * CHUNK_DIGITS);
    for (index, chunk) in chunks.iter().rev().enumerate() {
        use std::fmt::Write as _;
        // Writing to a string cannot fail.
        let _ = if index == 0 { write!(digits, "{chunk}") } else { write!(digits, "{chunk:019}") };
    }
    (negative, digits.into_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    fn plain(decimal: &Decimal) -> String {
        let mut out = Vec::new();
        decimal.write_plain(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn unscaled_bytes_are_read_at_their_sign_and_length() {
        assert_eq!(unscaled(&[0xff]), Some(-1));
        assert_eq!(unscaled(&[0x00, 0xff]), Some(255));
        assert_eq!(unscaled(&[0xff; 20]), Some(-1));
        assert_eq!(unscaled(&[]), None);
        let mut beyond = vec![0_u8; 17];
        beyond[1] = 0x80;
        assert_eq!(unscaled(&beyond), None, "2^127 needs 129 bits");
    }

    #[test]
    fn integers_beyond_128_bits_are_written_exactly() {
        let mut bytes = vec![1_u8];
        bytes.extend([0; 16]);
        let two_to_128 = "340282366920938463463374607431768211456";
        assert_eq!(plain(&Decimal::from_bytes(&bytes, 0).unwrap()), two_to_128);
        let mut bytes = vec![0xff_u8];
        bytes.extend([0; 16]);
        assert_eq!(plain(&Decimal::from_bytes(&bytes, 0).unwrap()), format!("-{two_to_128}"));
        assert_eq!(plain(&Decimal::from_bytes(&bytes, 40).unwrap()), format!("-0.0{two_to_128}"));
    }

    #[test]
    fn plain_text_has_the_digits_of_its_scale_and_no_exponent() {
        for (text, expected) in [
            ("1.50", "1.50"),
            ("-0.0001", "-0.0001"),
            ("1E+3", "1000"),
            ("12e-4", "0.0012"),
            ("0e5", "0"),
            ("-0", "0"),
            ("000.10", "0.10"),
            ("1e400", &format!("1{}", "0".repeat(400))),
        ] {
            assert_eq!(plain(&Decimal::parse(text).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_decimal_is_refused() {
        for text in
            ["", "-", ".", "e5", "1e", "1e999999999999999999999", "1e200000", "NaN", "1.2.3", "0x10", "1 "]
        {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
        for scale in [i64::from(i32::MIN), i64::MIN, i64::MAX, MOST_SCALE + 1] {
            assert_eq!(Decimal::from_bytes(&[1], scale), None, "scale {scale}");
        }
        assert_eq!(Decimal::parse("1e-9223372036854775808"), None);
        assert_eq!(Decimal::parse("1.5e9223372036854775807"), None);
        assert_eq!(Decimal::from_bytes(&vec![1; MOST_BYTES + 1], 0), None);
    }

    #[test]
    fn a_scale_below_zero_is_recognised_by_what_the_connector_makes_of_it() {
        let text = format!("12300.{}", "0".repeat(2046));
        let value = Decimal::parse(&text).unwrap();
        assert_eq!(plain(&value.clone().of_declared_scale(2046)), "12300");
        assert_eq!(plain(&value.of_declared_scale(1000)), text);
        assert_eq!(plain(&Decimal::parse("0.000").unwrap().of_declared_scale(2047)), "0");
    }

    #[test]
    fn rescaling_never_loses_digits() {
        assert_eq!(Decimal::parse("1.50").unwrap().at_scale(1), Some(15));
        assert_eq!(Decimal::parse("1.55").unwrap().at_scale(1), None);
        assert_eq!(Decimal::parse("-3").unwrap().at_scale(2), Some(-300));
        assert_eq!(Decimal::parse("0e-90").unwrap().at_scale(2), Some(0));
        assert_eq!(Decimal::parse("1e38").unwrap().at_scale(2), None);
        assert!(fits(999, 3) && !fits(1000, 3) && fits(-999, 3));
    }

    proptest! {
        #[test]
        fn large_and_small_paths_agree(value in any::<i128>()) {
            let mut bytes = if value < 0 { vec![0xff; 9] } else { vec![0; 9] };
            bytes.extend(value.to_be_bytes());
            prop_assert_eq!(unscaled(&bytes), Some(value));
            let (negative, digits) = large_digits(&bytes);
            prop_assert_eq!(negative, value < 0);
            prop_assert_eq!(String::from_utf8(digits).unwrap(), value.unsigned_abs().to_string());
        }

        #[test]
        fn text_and_bytes_of_a_number_agree(value in any::<i128>(), scale in 0_i64..40) {
            let decimal = Decimal::from_bytes(&value.to_be_bytes(), scale).unwrap();
            prop_assert_eq!(Decimal::parse(&plain(&decimal)).unwrap().at_scale(scale as i8), Some(value));
        }
    }
}
