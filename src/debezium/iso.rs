//! ISO 8601 texts, as Debezium writes dates and times in `time.precision.mode=isostring` and those with a zone always.
//!
//! What [`instant`] says of values that cannot be held, and of infinity, holds here too.

use super::instant::{self, DAY_MICROS};

/// Microseconds since 1970 UTC of an ISO 8601 text: years of four or more digits, a sign before other years, `Z`, an
/// offset, or nothing for UTC; `infinity` and `-infinity`.
pub(super) fn timestamp(text: &str) -> Option<i64> {
    match text {
        "infinity" => return Some(i64::MAX),
        "-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let mut rest = Cursor(text.as_bytes());
    let date = rest.date()?;
    rest.expect(b'T')?;
    let (seconds, micros) = rest.time_of_day()?;
    let offset = rest.offset()?;
    if !rest.0.is_empty() || seconds >= 86_400 {
        return None;
    }
    instant::civil_timestamp(date, seconds - offset, micros)
}

/// Days since 1970-01-01 of an ISO 8601 date. Debezium puts a `Z` behind it, which means nothing.
pub(super) fn date(text: &str) -> Option<i32> {
    let mut rest = Cursor(text.as_bytes());
    let (year, month, day) = rest.date()?;
    rest.eat(b'Z');
    if rest.0.is_empty() { instant::civil_date(year, month, day) } else { None }
}

/// Microseconds since midnight of an ISO 8601 time without zone. The `Z` behind it means nothing here, too.
pub(super) fn time(text: &str) -> Option<i64> {
    let mut rest = Cursor(text.as_bytes());
    let (seconds, micros) = rest.time_of_day()?;
    rest.eat(b'Z');
    let total = seconds * 1_000_000 + micros;
    (rest.0.is_empty() && total <= DAY_MICROS).then_some(total)
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

    /// Year, month and day.
    fn date(&mut self) -> Option<(i64, i64, i64)> {
        let negative = self.eat(b'-');
        if !negative {
            self.eat(b'+');
        }
        let (year, digits) = self.number(9)?;
        if digits < 4 {
            return None;
        }
        self.expect(b'-')?;
        let month = self.two_digits()?;
        self.expect(b'-')?;
        let day = self.two_digits()?;
        Some((if negative { -year } else { year }, month, day))
    }

    /// Seconds since midnight and the microseconds behind them; up to 24:59:59.
    fn time_of_day(&mut self) -> Option<(i64, i64)> {
        let hour = self.two_digits()?;
        self.expect(b':')?;
        let minute = self.two_digits()?;
        let second = if self.eat(b':') { self.two_digits()? } else { 0 };
        let micros = if self.eat(b'.') { self.fraction()? } else { 0 };
        (hour <= 24 && minute <= 59 && second <= 59).then_some((hour * 3600 + minute * 60 + second, micros))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn infinities_are_told_by_years_that_postgres_does_not_have() {
        // As Debezium 3.7 wrote them: of columns, in snapshot and streaming, and of elements of arrays.
        for text in ["infinity", "+292278994-08-16T23:00:00Z"] {
            assert_eq!(timestamp(text), Some(i64::MAX), "{text}");
        }
        for text in ["-infinity", "-292275055-05-16T23:00:00Z", "+292269055-12-02T23:00:00.000000Z"] {
            assert_eq!(timestamp(text), Some(i64::MIN), "{text}");
        }
        for text in ["+292278994-08-16Z", "+5877611-06-21Z"] {
            assert_eq!(date(text), Some(i32::MAX), "{text}");
        }
        for text in ["+292269055-12-02Z", "-5877611-06-22Z"] {
            assert_eq!(date(text), Some(i32::MIN), "{text}");
        }
    }

    #[test]
    fn dates_and_times_without_zone_ignore_the_zone_that_is_written() {
        assert_eq!(date("2024-02-29Z"), Some(19_782));
        assert_eq!(date("-0043-03-15Z"), Some(-735_160));
        assert_eq!(date("+5874897-12-31Z"), Some(2_145_042_905));
        assert_eq!(date("+5874898-01-01Z"), None);
        assert_eq!(time("12:34:56.789Z"), Some(45_296_789_000));
        assert_eq!(time("24:00:00"), Some(DAY_MICROS));
        for text in ["24:00:00.000001Z", "12:60:00Z", "12:34:56+01", "12", ""] {
            assert_eq!(time(text), None, "{text}");
        }
        assert_eq!(date("2024-02-30Z"), None);
    }

    #[test]
    fn what_microseconds_cannot_hold_is_refused() {
        assert_eq!(timestamp("+294276-12-31T23:59:59.000000Z"), None);
        assert_eq!(timestamp("+294247-01-10T04:00:54.775807Z"), None, "taken by infinity");
        assert_eq!(timestamp("+294247-01-10T04:00:54.775806Z"), Some(i64::MAX - 1));
        assert_eq!(timestamp("2024-01-01T00:00:00.0000001Z"), None);
        assert_eq!(timestamp("-4713-10-17T00:00:00Z"), None, "before Postgres' first day");
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
            assert_eq!(timestamp(text), Some(micros), "{text}");
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
            assert_eq!(timestamp(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn iso_texts_agree_with_chrono(micros in -62_135_596_800_000_000_i64..253_402_300_799_999_999) {
            let time = chrono::DateTime::from_timestamp_micros(micros).unwrap();
            let text = time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
            prop_assert_eq!(timestamp(&text), Some(micros));
        }

        #[test]
        fn any_text_is_parsed_or_refused_without_panic(text in "[-+0-9TZ:.]{0,40}") {
            let _ = timestamp(&text);
        }
    }
}
