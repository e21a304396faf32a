//! Dates, times and timestamps: from Debezium's encodings to days and microseconds.
//!
//! Infinity follows Postgres' own convention: the largest and the smallest integer of the column. Because these two
//! are taken, a finite value that would land on one of them is out of range. A value that microseconds cannot express
//! exactly, or whose microseconds do not fit 64 bits (Postgres' timestamps end in the year 294276, these in 294247),
//! is refused rather than rounded or clamped. So is what Postgres cannot hold at all: it is what became of a value that
//! was too large for the connector.
//!
//! The infinities that arrive are those that Debezium 3.7 was seen to write: they are constants of the Postgres driver
//! in milliseconds, put undivided into fields of milli- and microseconds, and for dates cut down to 32 bits, differently
//! in snapshots and in streaming. In nanoseconds they are the extreme integers alone, and the driver's constants would be
//! instants of the years 1677 and 2262. As texts and as objects they are dates of years that Postgres does not have.

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
/// Years behind which no date of Postgres lies, so that days and seconds of a year can be counted in 64 bits.
const YEARS: std::ops::RangeInclusive<i64> = -10_000_000..=10_000_000;
/// The earliest timestamp of Postgres, 4714-11-24 BC.
const FIRST_TIMESTAMP: i64 = -210_866_803_200_000_000;

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
        i64::MAX => Some(i64::MAX),
        i64::MIN => Some(i64::MIN),
        DRIVER_INFINITY if unit != Unit::Nanos => Some(i64::MAX),
        DRIVER_NEGATIVE_INFINITY if unit != Unit::Nanos => Some(i64::MIN),
        _ => unit.micros(value).filter(|&micros| finite(micros)),
    }
}

/// Whether Postgres can hold it, apart from infinity.
pub(super) fn finite(micros: i64) -> bool {
    (FIRST_TIMESTAMP..i64::MAX).contains(&micros)
}

/// The infinity that a year stands for: the years of the driver's constants, which neither Postgres' dates nor its
/// timestamps reach; `Some(true)` for `infinity`. Which of them is written depends on the path that the value took.
pub(super) fn infinity(year: i64) -> Option<bool> {
    match year {
        292_278_994 | 5_877_611 => Some(true),
        -292_275_055 | -292_269_055 | 292_269_055 | -5_877_611 => Some(false),
        _ => None,
    }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar with astronomical years, where Postgres' `date`
/// can hold it.
pub(super) fn civil_date(year: i64, month: i64, day: i64) -> Option<i32> {
    match infinity(year) {
        Some(positive) => Some(if positive { i32::MAX } else { i32::MIN }),
        None => {
            i32::try_from(days_from_civil(year, month, day)?).ok().filter(|days| DATE_RANGE.contains(days))
        }
    }
}

/// Microseconds since 1970 of a date and the seconds and microseconds behind its midnight.
pub(super) fn civil_timestamp((year, month, day): (i64, i64, i64), seconds: i64, micros: i64) -> Option<i64> {
    if let Some(positive) = infinity(year) {
        return Some(if positive { i64::MAX } else { i64::MIN });
    }
    let seconds = days_from_civil(year, month, day)? * 86_400 + seconds;
    // One i128 step instead of a checked product: close to the limits the product alone may overflow.
    let total = i128::from(seconds) * 1_000_000 + i128::from(micros);
    i64::try_from(total).ok().filter(|&micros| finite(micros))
}

/// The same for dates that Postgres does not have.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        _ => return None,
    };
    if !(1..=length).contains(&day) || !YEARS.contains(&year) {
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

    use super::*;

    #[test]
    fn infinities_of_every_field_become_the_extreme_integers() {
        assert_eq!(date(-622_191_234), Some(i32::MAX));
        assert_eq!(date(2_146_033_979), Some(i32::MAX));
        assert_eq!(date(-2_147_472_691), Some(i32::MIN));
        assert_eq!(date(-625_821_272), Some(i32::MIN));
        for unit in [Unit::Millis, Unit::Micros, Unit::Nanos] {
            assert_eq!(timestamp(i64::MAX, unit), Some(i64::MAX));
            assert_eq!(timestamp(i64::MIN, unit), Some(i64::MIN));
        }
        for unit in [Unit::Millis, Unit::Micros] {
            assert_eq!(timestamp(9_223_372_036_825_200_000, unit), Some(i64::MAX));
            assert_eq!(timestamp(-9_223_372_036_832_400_000, unit), Some(i64::MIN));
        }
    }

    #[test]
    fn the_drivers_infinities_are_instants_in_nanoseconds() {
        // 2262-04-11 23:47:16.8252 and 1677-09-21 00:12:43.1676.
        assert_eq!(timestamp(9_223_372_036_825_200_000, Unit::Nanos), Some(9_223_372_036_825_200));
        assert_eq!(timestamp(-9_223_372_036_832_400_000, Unit::Nanos), Some(-9_223_372_036_832_400));
    }

    #[test]
    fn years_that_overflow_a_count_of_days_are_refused() {
        // Days that have run over make the first one a day of the year 2090.
        for year in [50_505_469_855_535_200, i64::MAX, i64::MIN, 10_000_001, -10_000_001] {
            assert_eq!(civil_date(year, 1, 1), None, "{year}");
            assert_eq!(civil_timestamp((year, 1, 1), 0, 0), None, "{year}");
        }
    }

    #[test]
    fn what_microseconds_cannot_hold_is_refused() {
        assert_eq!(timestamp(9_224_318_015_999_999, Unit::Millis), None);
        // 294276-12-31 23:59:59.999999, whose microseconds the connector let run over.
        assert_eq!(timestamp(-9_223_372_036_853_775_810, Unit::Micros), None);
        assert_eq!(timestamp(FIRST_TIMESTAMP, Unit::Micros), Some(FIRST_TIMESTAMP));
        assert_eq!(timestamp(1, Unit::Nanos), None);
        assert_eq!(date(-2_440_589), None);
        assert_eq!(time(DAY_MICROS, Unit::Micros), Some(DAY_MICROS));
        assert_eq!(time(DAY_MICROS + 1, Unit::Micros), None);
        assert_eq!(time(-1, Unit::Millis), None);
    }
}
