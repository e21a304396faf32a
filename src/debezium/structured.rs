//! Dates, times and spans as objects of their parts, as Debezium writes them in `time.precision.mode=structured`.
//!
//! The parts are checked like those of a text: [`instant`] refuses what its column cannot hold exactly.

use std::fmt::Write as _;

use serde::Deserialize;

use super::instant::{self, DAY_MICROS};

/// The parts of any of them; each has some.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Parts {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    hour: Option<i64>,
    minute: Option<i64>,
    second: Option<i64>,
    nanos: Option<i64>,
    offset_seconds: Option<i64>,
    special_value: Option<String>,
    years: Option<i64>,
    months: Option<i64>,
    days: Option<i64>,
    hours: Option<i64>,
    minutes: Option<i64>,
    seconds: Option<i64>,
}

impl Parts {
    /// `Some(true)` for infinity, `Some(false)` for negative infinity.
    fn infinity(&self) -> Option<bool> {
        match self.special_value.as_deref() {
            Some("POSITIVE_INFINITY") => Some(true),
            Some("NEGATIVE_INFINITY") => Some(false),
            _ => None,
        }
    }

    /// Microseconds of the fraction.
    fn micros(&self) -> Option<i64> {
        let nanos = self.nanos?;
        ((0..1_000_000_000).contains(&nanos) && nanos % 1000 == 0).then_some(nanos / 1000)
    }

    /// Seconds since midnight.
    fn seconds_of_day(&self) -> Option<i64> {
        let (hour, minute, second) = (self.hour?, self.minute?, self.second?);
        let valid = (0..=24).contains(&hour) && (0..60).contains(&minute) && (0..60).contains(&second);
        valid.then_some(hour * 3600 + minute * 60 + second)
    }

    /// Days since 1970-01-01.
    pub(super) fn date(&self) -> Option<i32> {
        match self.infinity() {
            Some(positive) => Some(if positive { i32::MAX } else { i32::MIN }),
            None => instant::civil_date(self.year?, self.month?, self.day?),
        }
    }

    /// Microseconds since midnight.
    pub(super) fn time(&self) -> Option<i64> {
        let micros = self.seconds_of_day()? * 1_000_000 + self.micros()?;
        (micros <= DAY_MICROS).then_some(micros)
    }

    /// Microseconds since 1970; UTC where an offset is given.
    pub(super) fn timestamp(&self) -> Option<i64> {
        if let Some(positive) = self.infinity() {
            return Some(if positive { i64::MAX } else { i64::MIN });
        }
        let offset = self.offset_seconds.unwrap_or(0);
        if offset.unsigned_abs() > 86_400 {
            return None;
        }
        let date = (self.year?, self.month?, self.day?);
        let seconds = self.seconds_of_day().filter(|seconds| *seconds < 86_400)?;
        instant::civil_timestamp(date, seconds - offset, self.micros()?)
    }

    /// A time with its offset, as Postgres writes it.
    pub(super) fn zoned_time(&self) -> Option<String> {
        let micros = self.micros()?;
        let seconds = self.seconds_of_day().filter(|seconds| seconds * 1_000_000 + micros <= DAY_MICROS)?;
        let offset = self.offset_seconds.filter(|offset| offset.unsigned_abs() < 86_400)?;
        let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        push_fraction(&mut text, micros.unsigned_abs());
        let ahead = offset.unsigned_abs();
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{:02}", if offset < 0 { '-' } else { '+' }, ahead / 3600);
        for (part, needed) in [(ahead / 60 % 60, ahead % 3600 != 0), (ahead % 60, ahead % 60 != 0)] {
            if needed {
                let _ = write!(text, ":{part:02}");
            }
        }
        Some(text)
    }

    /// A span of time as `interval.handling.mode=string` writes it.
    pub(super) fn interval(&self) -> Option<String> {
        let (seconds, nanos) = (self.seconds?, self.nanos?);
        let total = seconds.checked_mul(1_000_000)?.checked_add(nanos / 1000)?;
        if nanos % 1000 != 0 {
            return None;
        }
        let mut text =
            format!("P{}Y{}M{}DT{}H{}M", self.years?, self.months?, self.days?, self.hours?, self.minutes?);
        push_seconds(&mut text, total);
        Some(text)
    }
}

/// A number of microseconds as an ISO 8601 span. Hours and minutes are taken out, because Postgres reads the seconds
/// of such a text as a double.
pub(super) fn span(micros: i64) -> String {
    let minutes = micros / 60_000_000;
    let mut text = format!("PT{}H{}M", minutes / 60, minutes % 60);
    push_seconds(&mut text, micros % 60_000_000);
    text
}

fn push_seconds(text: &mut String, micros: i64) {
    let sign = if micros < 0 { "-" } else { "" };
    let micros = micros.unsigned_abs();
    // Writing to a string cannot fail.
    let _ = write!(text, "{sign}{}", micros / 1_000_000);
    push_fraction(text, micros % 1_000_000);
    text.push('S');
}

fn push_fraction(text: &mut String, micros: u64) {
    if micros > 0 {
        let digits = format!("{micros:06}");
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    fn parts(json: &str) -> Parts {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn parts_give_what_numbers_and_texts_give() {
        let day = parts(r#"{"year":-43,"month":3,"day":15,"specialValue":null}"#);
        assert_eq!(day.date(), Some(-735_160));
        let infinite = parts(r#"{"year":null,"month":null,"day":null,"specialValue":"NEGATIVE_INFINITY"}"#);
        assert_eq!((infinite.date(), infinite.timestamp()), (Some(i32::MIN), Some(i64::MIN)));
        let instant = r#"{"year":2024,"month":2,"day":29,"hour":23,"minute":59,"second":59,"nanos":999999000,"precision":6"#;
        assert_eq!(parts(&format!("{instant}}}")).timestamp(), Some(1_709_251_199_999_999));
        assert_eq!(
            parts(&format!(r#"{instant},"offsetSeconds":19800}}"#)).timestamp(),
            Some(1_709_231_399_999_999)
        );
        let time = parts(r#"{"hour":24,"minute":0,"second":0,"nanos":0,"precision":6}"#);
        assert_eq!(time.time(), Some(DAY_MICROS));
    }

    #[test]
    fn a_time_keeps_its_offset() {
        for (offset, text) in [(7200, "+02"), (-57_540, "-15:59"), (0, "+00"), (3601, "+01:00:01")] {
            let json = format!(
                r#"{{"hour":12,"minute":34,"second":56,"nanos":789012000,"offsetSeconds":{offset},"precision":6}}"#
            );
            assert_eq!(parts(&json).zoned_time().unwrap(), format!("12:34:56.789012{text}"));
        }
    }

    #[test]
    fn spans_keep_months_days_and_seconds_apart() {
        let json =
            r#"{"years":-1,"months":-2,"days":3,"hours":-4,"minutes":-5,"seconds":-6,"nanos":-789000000}"#;
        assert_eq!(parts(json).interval().unwrap(), "P-1Y-2M3DT-4H-5M-6.789S");
        let json = r#"{"years":0,"months":0,"days":0,"hours":0,"minutes":0,"seconds":0,"nanos":-500000000}"#;
        assert_eq!(parts(json).interval().unwrap(), "P0Y0M0DT0H0M-0.5S");
        assert_eq!(span(-86_399_999_999), "PT-23H-59M-59.999999S");
        assert_eq!(span(90_000_001), "PT0H1M30.000001S");
    }

    #[test]
    fn what_is_missing_or_out_of_range_is_refused() {
        assert_eq!(parts("{}").date(), None);
        assert_eq!(parts("{}").timestamp(), None);
        assert_eq!(parts("{}").interval(), None);
        assert_eq!(parts(r#"{"hour":24,"minute":0,"second":1,"nanos":0}"#).time(), None);
        assert_eq!(parts(r#"{"hour":1,"minute":0,"second":1,"nanos":1}"#).time(), None);
        let far = r#""offsetSeconds":-9223372036854775808,"hour":1,"minute":0,"second":1,"nanos":0"#;
        assert_eq!(parts(&format!("{{{far}}}")).zoned_time(), None);
        assert_eq!(parts(&format!(r#"{{"year":2024,"month":1,"day":1,{far}}}"#)).timestamp(), None);
        let late = r#"{"year":294276,"month":12,"day":31,"hour":0,"minute":0,"second":0,"nanos":0}"#;
        assert_eq!(parts(late).timestamp(), None);
    }
}
