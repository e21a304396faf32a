//! Postgres' binary `numeric`: base-10000 digits, exact for every value of any precision.
//!
//! The form is that of `numeric_send` (src/backend/utils/adt/numeric.c): digit count, weight of the first digit in
//! powers of 10000, sign, display scale (digits behind the point), then the digits, 16 bits each, big endian.

use bytes::{BufMut, BytesMut};

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
/// Since Postgres 14.
const POSITIVE_INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;
/// What each of the four digits of a group counts.
const WORTH: [u16; 4] = [1000, 100, 10, 1];
/// Most digits behind the point that the form can say.
const MAX_SCALE: usize = 16_383;
/// Most digits before the point that Postgres accepts.
const MAX_INTEGER_DIGITS: usize = 131_072;

/// Groups of four digits that any decimal has at most: those behind the point for the largest scale. The 39 digits of the
/// largest number and the gap at the point make 11.
const MAX_GROUPS: usize = (u8::MAX as usize).div_ceil(4);

/// Appends length and value of `unscaled × 10^-scale`.
// `first` is lowered once for each group, of which there are at most [`MAX_GROUPS`].
#[allow(clippy::indexing_slicing)]
pub(super) fn put_decimal(out: &mut BytesMut, unscaled: i128, scale: u8) {
    let sign = if unscaled < 0 { NEGATIVE } else { POSITIVE };
    let magnitude = unscaled.unsigned_abs();
    // Filled from the least significant end.
    let mut groups = [0_u16; MAX_GROUPS];
    let mut first = groups.len();
    let mut rest = magnitude;
    let fraction_groups = usize::from(scale).div_ceil(4);
    let padding = (4 - usize::from(scale) % 4) % 4;
    let mut pushed = 0;
    if padding > 0 {
        // The lowest group holds fewer digits than four: shift only it, for the whole value could overflow.
        let step = 10_u128.pow(4 - padding as u32);
        let digit = (rest % step) as u16 * 10_u16.pow(padding as u32);
        rest /= step;
        first -= 1;
        groups[first] = digit;
        pushed += 1;
    }
    while rest > 0 || pushed < fraction_groups {
        first -= 1;
        groups[first] = if let Ok(small) = u64::try_from(rest) {
            rest = u128::from(small / 10_000);
            (small % 10_000) as u16
        } else {
            let digit = (rest % 10_000) as u16;
            rest /= 10_000;
            digit
        };
        pushed += 1;
    }
    put_groups(out, sign, pushed as i32 - fraction_groups as i32 - 1, u16::from(scale), &groups[first..]);
}

/// Appends the groups without leading and trailing zeros.
fn put_groups(out: &mut BytesMut, sign: u16, weight: i32, scale: u16, groups: &[u16]) {
    let leading = groups.iter().take_while(|group| **group == 0).count();
    let digits = groups.get(leading..).unwrap_or_default();
    let trailing = digits.iter().rev().take_while(|group| **group == 0).count();
    let digits = digits.get(..digits.len() - trailing).unwrap_or_default();
    let (sign, weight) = if digits.is_empty() { (POSITIVE, 0) } else { (sign, weight - leading as i32) };
    put_fields(out, sign, weight, scale, digits);
}

fn put_fields(out: &mut BytesMut, sign: u16, weight: i32, scale: u16, digits: &[u16]) {
    out.put_i32(8 + 2 * digits.len() as i32);
    out.put_i16(digits.len() as i16);
    out.put_i16(weight as i16);
    out.put_u16(sign);
    out.put_u16(scale);
    for digit in digits {
        out.put_u16(*digit);
    }
}

/// Appends length and value of decimal text: digits with an optional sign, point and exponent, or `NaN`, `Infinity`,
/// `-Infinity`. `max_scale` is the number of digits behind the point that the column keeps.
///
/// # Errors
/// What is wrong with the text, without the text.
pub(super) fn put_text(out: &mut BytesMut, text: &str, max_scale: Option<u16>) -> Result<(), &'static str> {
    let special = match text {
        "NaN" => Some(NAN),
        "Infinity" => Some(POSITIVE_INFINITY),
        "-Infinity" => Some(NEGATIVE_INFINITY),
        _ => None,
    };
    if let Some(sign) = special {
        put_fields(out, sign, 0, 0, &[]);
        return Ok(());
    }
    let number = Number::parse(text).ok_or("text is not a decimal number")?;
    if max_scale.is_some_and(|max| number.significant_scale() > usize::from(max)) {
        return Err("the number has more digits behind the point than the column keeps");
    }
    number.put(out)
}

/// Digits and where the point stands among them.
struct Number {
    negative: bool,
    digits: Vec<u8>,
    /// Digits before the point; negative where zeros stand between the point and the first digit.
    point: i64,
}

impl Number {
    fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, text.get(1..)?),
            b'+' => (false, text.get(1..)?),
            _ => (false, text),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (unsigned, 0),
        };
        let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: Vec<u8> = integer.bytes().chain(fraction.bytes()).collect();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        Some(Self { negative, point: integer.len() as i64 + i64::from(exponent), digits })
    }

    fn scale(&self) -> usize {
        usize::try_from(self.digits.len() as i64 - self.point).unwrap_or(0)
    }

    fn significant_scale(&self) -> usize {
        let zeros = self.digits.iter().rev().take_while(|digit| **digit == b'0').count();
        if zeros == self.digits.len() { 0 } else { self.scale().saturating_sub(zeros) }
    }

    fn put(&self, out: &mut BytesMut) -> Result<(), &'static str> {
        let zeros = self.digits.iter().take_while(|digit| **digit == b'0').count();
        let scale = self.scale();
        if scale > MAX_SCALE {
            return Err("the number has more than 16383 digits behind the point");
        }
        let significant = self.digits.get(zeros..).unwrap_or_default();
        let point = self.point - zeros as i64;
        if point > MAX_INTEGER_DIGITS as i64 && !significant.is_empty() {
            return Err("the number has more than 131072 digits before the point");
        }
        // Position of the first digit within its group of four.
        let lead = (-point).rem_euclid(4) as usize;
        let weight = (point + lead as i64) / 4 - 1;
        let mut groups = vec![0_u16; (lead + significant.len()).div_ceil(4)];
        for (index, digit) in significant.iter().enumerate() {
            let place = lead + index;
            if let (Some(group), Some(worth)) = (groups.get_mut(place / 4), WORTH.get(place % 4)) {
                *group += u16::from(digit - b'0') * worth;
            }
        }
        let sign = if self.negative { NEGATIVE } else { POSITIVE };
        put_groups(out, sign, weight as i32, scale as u16, &groups);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (weight, sign, scale, digits)
    fn fields(bytes: &[u8]) -> (i16, u16, u16, Vec<u16>) {
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        assert_eq!(i32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len() - 4);
        let count = usize::from(word(4));
        assert_eq!(bytes.len(), 12 + 2 * count);
        (word(6) as i16, word(8), word(10), (0..count).map(|index| word(12 + 2 * index)).collect())
    }

    fn decimal(unscaled: i128, scale: u8) -> (i16, u16, u16, Vec<u16>) {
        let mut out = BytesMut::new();
        put_decimal(&mut out, unscaled, scale);
        fields(&out)
    }

    fn text(text: &str) -> (i16, u16, u16, Vec<u16>) {
        let mut out = BytesMut::new();
        put_text(&mut out, text, None).unwrap();
        fields(&out)
    }

    #[test]
    fn a_decimal_becomes_groups_of_four_around_the_point() {
        assert_eq!(decimal(1_234_567, 2), (1, POSITIVE, 2, vec![1, 2345, 6700]));
        assert_eq!(decimal(-5, 3), (-1, NEGATIVE, 3, vec![50]));
        assert_eq!(decimal(0, 2), (0, POSITIVE, 2, vec![]));
        assert_eq!(decimal(1, 9), (-3, POSITIVE, 9, vec![1000]));
        assert_eq!(decimal(120_000_000, 0), (2, POSITIVE, 0, vec![1, 2000]));
        assert_eq!(decimal(7, u8::MAX), (-64, POSITIVE, 255, vec![70]), "the largest scale that there is");
        let all = decimal(i128::MIN, 1);
        assert_eq!((all.0, all.3.len()), (9, 11), "the largest number, around a point within a group");
    }

    #[test]
    fn text_and_decimal_of_the_same_number_are_the_same_bytes() {
        let values =
            [0, 1, -1, 9, 10_000, -12_345_678_901_234_567_890, i128::from(i64::MAX), 10_i128.pow(38) - 1];
        for unscaled in values {
            for scale in [0_u8, 1, 2, 3, 4, 5, 10, 37, 38] {
                let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = usize::from(scale) + 1);
                let (integer, fraction) = digits.split_at(digits.len() - usize::from(scale));
                let sign = if unscaled < 0 { "-" } else { "" };
                let written = format!("{sign}{integer}.{fraction}");
                assert_eq!(decimal(unscaled, scale), text(&written), "{written}");
            }
        }
    }

    #[test]
    fn exponents_move_the_point() {
        assert_eq!(text("1E+6"), (1, POSITIVE, 0, vec![100]));
        assert_eq!(text("-1.5e-5"), (-2, NEGATIVE, 6, vec![1500]));
    }

    #[test]
    fn values_that_are_no_numbers_have_their_own_signs() {
        assert_eq!(text("NaN").1, NAN);
        assert_eq!(text("Infinity").1, POSITIVE_INFINITY);
        assert_eq!(text("-Infinity").1, NEGATIVE_INFINITY);
    }

    #[test]
    fn digits_that_the_column_would_round_away_are_refused() {
        let mut out = BytesMut::new();
        assert!(put_text(&mut out, "1.2500", Some(2)).is_ok());
        assert!(put_text(&mut out, "1.255", Some(2)).is_err());
        assert!(put_text(&mut out, "12x", None).is_err());
        assert!(put_text(&mut out, "", None).is_err());
        assert!(put_text(&mut out, "1e-99999", None).is_err());
        assert!(put_text(&mut out, "1e999999", None).is_err());
    }
}
