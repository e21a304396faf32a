//! Dates, times and timestamps: from Debezium's encodings to days and microseconds.
//!
//! Infinity follows Postgres' own convention: the largest and the smallest integer of the column. Because these two
//! are taken, a finite value that would land on one of them is out of range. A value that microseconds cannot express
//! exactly, or whose microseconds do not fit 64 bits (Postgres' timestamps end in the year 294276, these in 294247),
//! is refused rather than rounded or clamped.
//!
//! The infinities that arrive are those that Debezium 3.7 was seen to write: they are constants of the Postgres driver
//! in milliseconds, put undivided into fields of either unit, and for dates cut down to 32 bits, differently in
//! snapshots and in streaming.

/// Infinity of the Postgres driver, in a field of milliseconds or microseconds.
const DRIVER_INFINITY: i64 = 9_223_372_036_825_200_000;
/// Negative infinity of the Postgres driver.
const DRIVER_NEGATIVE_INFINITY: i64 = -9_223_372_036_832_400_000;
/// `date 'infinity'` in a snapshot and in streaming.
const DATE_INFINITY: [i32; 2] = [-622_191_234, 2_146_033_979];
/// `date '-infinity'` in a snapshot and in streaming. The first was not recorded: it is what the calculation gives that
/// gives the recorded value for infinity (the driver's constant as `java.sql.Date`, its days cut to 32 bits).
const DATE_NEGATIVE_INFINITY: [i32; 2] = [-625_821_272, -2_147_472_691];
/// Days that Postgres' `date` can hold: 4713 BC to the year 5874897.
const DATE_RANGE: std::ops::RangeInclusive<i32> = -2_440_588..=2_145_042_905;

/// Microseconds in a day; also the time `24:00:00`.
pub(super) const DAY_MICROS: i64 = 86_400_000_000;

/// Unit of an integer time or timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Unit {
    Millis,
    Micros,
    Nanos,
}

impl Unit {
    /// Microseconds of a count of this unit; `None` where they would not be exact.
    fn micros(self, value: i64) -> Option<i64> {
        match self {
            Self::Millis => value.checked_mul(1000),
            Self::Micros => Some(value),
            Self::Nanos => (value % 1000 == 0).then_some(value / 1000),
        }
    }
}

/// Days since 1970-01-01.
#[inline]
pub(super) fn date(days: i64) -> Option<i32> {
    let days = i32::try_from(days).ok()?;
    if DATE_INFINITY.contains(&days) || days == i32::MAX {
        Some(i32::MAX)
    } else if DATE_NEGATIVE_INFINITY.contains(&days) || days == i32::MIN {
        Some(i32::MIN)
    } else {
        DATE_RANGE.contains(&days).then_some(days)
    }
}

/// Microseconds since midnight, `24:00:00` included.
#[inline]
pub(super) fn time(value: i64, unit: Unit) -> Option<i64> {
    unit.micros(value).filter(|micros| (0..=DAY_MICROS).contains(micros))
}

/// Microseconds since 1970.
#[inline]
pub(super) fn timestamp(value: i64, unit: Unit) -> Option<i64> {
    match value {
        i64::MAX | DRIVER_INFINITY => Some(i64::MAX),
        i64::MIN | DRIVER_NEGATIVE_INFINITY => Some(i64::MIN),
        _ => unit.micros(value).filter(|&micros| finite(micros)),
    }
}

fn finite(micros: i64) -> bool {
    micros != i64::MAX && micros != i64::MIN
}

/// Microseconds since 1970 UTC of an ISO 8601 text: years of four or more digits, a sign before other years, `Z`, an
/// offset, or nothing for UTC; `infinity` and `-infinity`.
pub(super) fn parse_iso(text: &str) -> Option<i64> {
    match text {
        "infinity" => return Some(i64::MAX),
        "-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let mut rest = Cursor(text.as_bytes());
    let negative = rest.eat(b'-');
    if !negative {
        rest.eat(b'+');
    }
    let (year, digits) = rest.number(9)?;
    if digits < 4 {
        return None;
    }
    rest.expect(b'-')?;
    let month = rest.two_digits()?;
    rest.expect(b'-')?;
    let day = rest.two_digits()?;
    rest.expect(b'T')?;
    let hour = rest.two_digits()?;
    rest.expect(b':')?;
    let minute = rest.two_digits()?;
    let second = if rest.eat(b':') { rest.two_digits()? } else { 0 };
    let micros = if rest.eat(b'.') { rest.fraction()? } else { 0 };
    let offset = rest.offset()?;
    if !rest.0.is_empty() || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_from_civil(if negative { -year } else { year }, month, day)?;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    // One i128 step instead of a checked product: close to the limits the product alone may overflow.
    let total = i128::from(seconds) * 1_000_000 + i128::from(micros);
    i64::try_from(total).ok().filter(|&micros| finite(micros))
}

/// Bytes not yet read.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn eat(&mut self, byte: u8) -> bool {
        if let [first, rest @ ..] = self.0
            && *first == byte
        {
            self.0 = rest;
            return true;
        }
        false
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.eat(byte).then_some(())
    }

    fn digit(&mut self) -> Option<i64> {
        let [first, rest @ ..] = self.0 else { return None };
        if !first.is_ascii_digit() {
            return None;
        }
        self.0 = rest;
        Some(i64::from(first - b'0'))
    }

    fn two_digits(&mut self) -> Option<i64> {
        Some(self.digit()? * 10 + self.digit()?)
    }

    /// A number of at most `most` digits, and how many it has.
    fn number(&mut self, most: usize) -> Option<(i64, usize)> {
        let mut value = 0;
        let mut digits = 0;
        while let Some(digit) = self.digit() {
            digits += 1;
            if digits > most {
                return None;
            }
            value = value * 10 + digit;
        }
        (digits > 0).then_some((value, digits))
    }

    /// Microseconds of a fraction of a second; digits beyond the sixth must be zero.
    fn fraction(&mut self) -> Option<i64> {
        let mut micros = 0;
        let mut digits = 0;
        while let Some(digit) = self.digit() {
            digits += 1;
            if digits <= 6 {
                micros = micros * 10 + digit;
            } else if digit != 0 {
                return None;
            }
        }
        (digits > 0).then(|| micros * 10_i64.pow(6_u32.saturating_sub(digits)))
    }

    /// Seconds that the text's clock is ahead of UTC.
    fn offset(&mut self) -> Option<i64> {
        if self.0.is_empty() || self.eat(b'Z') {
            return Some(0);
        }
        let sign = if self.eat(b'-') {
            -1
        } else {
            self.expect(b'+')?;
            1
        };
        let mut seconds = self.two_digits()? * 3600;
        for unit in [60, 1] {
            if self.0.is_empty() {
                break;
            }
            self.eat(b':');
            seconds += self.two_digits()? * unit;
        }
        Some(sign * seconds)
    }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar with astronomical years.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    if !(1..=length).contains(&day) {
        return None;
    }
    // Years that begin in March, in eras of 400 years: the leap day is the last day of such a year.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn infinities_of_every_field_become_the_extreme_integers() {
        assert_eq!(date(-622_191_234), Some(i32::MAX));
        assert_eq!(date(2_146_033_979), Some(i32::MAX));
        assert_eq!(date(-2_147_472_691), Some(i32::MIN));
        assert_eq!(date(-625_821_272), Some(i32::MIN));
        for unit in [Unit::Millis, Unit::Micros, Unit::Nanos] {
            assert_eq!(timestamp(9_223_372_036_825_200_000, unit), Some(i64::MAX));
            assert_eq!(timestamp(i64::MAX, unit), Some(i64::MAX));
            assert_eq!(timestamp(-9_223_372_036_832_400_000, unit), Some(i64::MIN));
            assert_eq!(timestamp(i64::MIN, unit), Some(i64::MIN));
        }
        assert_eq!(parse_iso("infinity"), Some(i64::MAX));
        assert_eq!(parse_iso("-infinity"), Some(i64::MIN));
    }

    #[test]
    fn what_microseconds_cannot_hold_is_refused() {
        assert_eq!(timestamp(9_224_318_015_999_999, Unit::Millis), None);
        assert_eq!(parse_iso("+294276-12-31T23:59:59.000000Z"), None);
        assert_eq!(parse_iso("+294247-01-10T04:00:54.775807Z"), None, "taken by infinity");
        assert_eq!(parse_iso("+294247-01-10T04:00:54.775806Z"), Some(i64::MAX - 1));
        assert_eq!(parse_iso("2024-01-01T00:00:00.0000001Z"), None);
        assert_eq!(timestamp(1, Unit::Nanos), None);
        assert_eq!(date(-2_440_589), None);
        assert_eq!(time(DAY_MICROS, Unit::Micros), Some(DAY_MICROS));
        assert_eq!(time(DAY_MICROS + 1, Unit::Micros), None);
        assert_eq!(time(-1, Unit::Millis), None);
    }

    #[test]
    fn iso_texts_give_microseconds_in_utc() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00Z", 0),
            ("2024-02-29T18:29:59.999999Z", 1_709_231_399_999_999),
            ("2024-02-29T23:59:59.999999+05:30", 1_709_231_399_999_999),
            ("2024-02-29T18:29:59.9Z", 1_709_231_399_900_000),
            ("-4712-01-01T00:00:00.000000Z", -210_863_520_000_000_000),
            ("+12024-01-01T00:00:00Z", 317_273_587_200_000_000),
        ] {
            assert_eq!(parse_iso(text), Some(micros), "{text}");
        }
    }

    #[test]
    fn malformed_iso_texts_are_refused() {
        for text in [
            "",
            "2024",
            "2024-13-01T00:00:00Z",
            "2023-02-29T00:00:00Z",
            "2024-01-01 00:00:00Z",
            "24-01-01T00:00:00Z",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:60:00Z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00Zx",
            "9999999999-01-01T00:00:00Z",
            "2024-01-01T00:00:00+",
            "2024-01-01T00:00:00+1",
            "Infinity",
        ] {
            assert_eq!(parse_iso(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn iso_texts_agree_with_chrono(micros in -62_135_596_800_000_000_i64..253_402_300_799_999_999) {
            let time = chrono::DateTime::from_timestamp_micros(micros).unwrap();
            let text = time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
            prop_assert_eq!(parse_iso(&text), Some(micros));
        }

        #[test]
        fn any_text_is_parsed_or_refused_without_panic(text in "[-+0-9TZ:.]{0,40}") {
            let _ = parse_iso(&text);
        }
    }
}
