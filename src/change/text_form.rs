//! Values as the text that Postgres gives to them (`value::text`, ISO dates, UTC), for columns that become text.

use std::fmt::Write as _;

const DAY: i64 = 86_400_000_000;

/// `numeric(p, s)`: as many digits behind the point as the scale says.
pub(super) fn decimal(unscaled: i128, scale: i8, out: &mut String) {
    if unscaled < 0 {
        out.push('-');
    }
    let digits = unscaled.unsigned_abs().to_string();
    let scale_digits = usize::try_from(scale).unwrap_or(0);
    if scale_digits == 0 {
        out.push_str(&digits);
        if unscaled != 0 {
            out.extend(std::iter::repeat_n('0', usize::from(scale.unsigned_abs())));
        }
        return;
    }
    let padded = format!("{digits:0>width$}", width = scale_digits + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale_digits);
    out.push_str(whole);
    out.push('.');
    out.push_str(fraction);
}

/// `real`: its shortest digits, in fixed notation up to six of them before the point.
pub(super) fn float32(value: f32, out: &mut String) {
    float(f64::from(value), &format!("{value:e}"), 6, out);
}

/// `double precision`: its shortest digits, in fixed notation up to fifteen of them before the point.
pub(super) fn float64(value: f64, out: &mut String) {
    float(value, &format!("{value:e}"), 15, out);
}

fn float(value: f64, shortest: &str, fixed: i32, out: &mut String) {
    if value.is_nan() {
        out.push_str("NaN");
        return;
    }
    if value.is_infinite() {
        out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
        return;
    }
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    out.push_str(sign);
    if !(-4..fixed).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.abs());
        return;
    }
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let point = exponent + 1;
    if point <= 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', point.unsigned_abs() as usize));
        out.push_str(&digits);
        return;
    }
    let point = point as usize;
    if digits.len() <= point {
        out.push_str(&digits);
        out.extend(std::iter::repeat_n('0', point - digits.len()));
    } else {
        let (whole, fraction) = digits.split_at(point);
        let _ = write!(out, "{whole}.{fraction}");
    }
}

/// `date`: days since 1970; the extremes are the infinities.
pub(super) fn date(days: i32, out: &mut String) {
    match days {
        i32::MAX => out.push_str("infinity"),
        i32::MIN => out.push_str("-infinity"),
        _ => {
            let bc = calendar(i64::from(days), out);
            out.push_str(bc);
        }
    }
}

/// `time`: microseconds since midnight.
pub(super) fn time(micros: i64, out: &mut String) {
    let seconds = micros / 1_000_000;
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = micros % 1_000_000;
    if fraction != 0 {
        let digits = format!("{fraction:06}");
        let _ = write!(out, ".{}", digits.trim_end_matches('0'));
    }
}

/// `timestamp`: microseconds since 1970; the extremes are the infinities. `zone` goes behind the time.
pub(super) fn timestamp(micros: i64, zone: &str, out: &mut String) {
    match micros {
        i64::MAX => out.push_str("infinity"),
        i64::MIN => out.push_str("-infinity"),
        _ => {
            let bc = calendar(micros.div_euclid(DAY), out);
            out.push(' ');
            time(micros.rem_euclid(DAY), out);
            out.push_str(zone);
            out.push_str(bc);
        }
    }
}

/// `bytea`, in hexadecimal.
pub(super) fn bytes(bytes: &[u8], out: &mut String) {
    out.push_str("\\x");
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

/// Writes year, month and day of the proleptic Gregorian calendar, and gives the era to put at the end.
///
/// From days to a date by the four hundred years after which the calendar repeats, counted from a first of March.
fn calendar(days: i64, out: &mut String) -> &'static str {
    let shifted = days + 719_468;
    let cycle = shifted.div_euclid(146_097);
    let day = shifted.rem_euclid(146_097);
    let year_of_cycle = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = cycle * 400 + year_of_cycle + i64::from(month <= 2);
    let (shown, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    let _ = write!(out, "{shown:04}-{month:02}-{day_of_month:02}");
    era
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl Fn(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn decimals_keep_the_digits_of_their_scale() {
        for (unscaled, scale, expected) in
            [(150, 2, "1.50"), (-5, 2, "-0.05"), (0, 2, "0.00"), (7, 0, "7"), (12, -2, "1200"), (0, -2, "0")]
        {
            assert_eq!(text(|out| decimal(unscaled, scale, out)), expected);
        }
    }

    #[test]
    fn floats_change_to_exponents_where_postgres_does() {
        for (value, expected) in [
            (0.1, "0.1"),
            (1e14, "100000000000000"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e15, "1e+15"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.000_012, "1.2e-05"),
            (-0.0, "-0"),
            (f64::NEG_INFINITY, "-Infinity"),
            (f64::NAN, "NaN"),
            (12.25, "12.25"),
        ] {
            assert_eq!(text(|out| float64(value, out)), expected);
        }
        for (value, expected) in [(0.1, "0.1"), (123_456.0, "123456"), (1_234_567.0, "1.234567e+06")] {
            assert_eq!(text(|out| float32(value, out)), expected);
        }
    }

    #[test]
    fn dates_and_times_are_written_as_postgres_does() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (19_782, "2024-02-29"),
            (-719_163, "0001-12-31 BC"),
            (-735_160, "0044-03-15 BC"),
            (i32::MAX, "infinity"),
            (2_932_897, "10000-01-01"),
        ] {
            assert_eq!(text(|out| date(days, out)), expected);
        }
        assert_eq!(text(|out| time(86_400_000_000, out)), "24:00:00");
        assert_eq!(text(|out| time(3_723_004_500, out)), "01:02:03.0045");
        assert_eq!(text(|out| timestamp(-1, "", out)), "1969-12-31 23:59:59.999999");
        assert_eq!(text(|out| timestamp(-735_160 * DAY, "+00", out)), "0044-03-15 00:00:00+00 BC");
        assert_eq!(text(|out| bytes(&[0, 0xab], out)), "\\x00ab");
    }
}
