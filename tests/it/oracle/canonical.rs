//! Arrow values in the text form that Postgres gives to the same value (`timezone` UTC, `bytea_output` hex).

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimeUnit, TimestampMicrosecondType,
};
use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta};

/// The text of a cell whose source column has the type `kind`. The error says which type was not expected.
pub fn cell(array: &dyn Array, row: usize, kind: &str) -> Result<Option<String>, String> {
    if array.is_null(row) {
        return Ok(None);
    }
    let text = match (array.data_type(), kind) {
        (DataType::Boolean, _) => array.as_boolean().value(row).to_string(),
        (DataType::Int16, _) => array.as_primitive::<Int16Type>().value(row).to_string(),
        (DataType::Int32, _) => array.as_primitive::<Int32Type>().value(row).to_string(),
        (DataType::Int64, "time without time zone") => time(array.as_primitive::<Int64Type>().value(row)),
        (DataType::Int64, _) => array.as_primitive::<Int64Type>().value(row).to_string(),
        (DataType::Float32, _) => array.as_primitive::<Float32Type>().value(row).to_string(),
        (DataType::Float64, _) => array.as_primitive::<Float64Type>().value(row).to_string(),
        (DataType::Decimal128(_, _), _) => array.as_primitive::<Decimal128Type>().value_as_string(row),
        (DataType::Date32, _) => date(array.as_primitive::<Date32Type>().value(row)),
        (DataType::Timestamp(TimeUnit::Microsecond, zone), _) => {
            let text = timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row));
            if zone.is_some() { format!("{text}+00") } else { text }
        }
        (DataType::Binary, _) => hex(array.as_binary::<i32>().value(row)),
        (DataType::LargeBinary, _) => hex(array.as_binary::<i64>().value(row)),
        (DataType::BinaryView, _) => hex(array.as_binary_view().value(row)),
        (DataType::Utf8, _) => array.as_string::<i32>().value(row).to_owned(),
        (DataType::LargeUtf8, _) => array.as_string::<i64>().value(row).to_owned(),
        (DataType::Utf8View, _) => array.as_string_view().value(row).to_owned(),
        (other, _) => return Err(format!("{other} in the lake for {kind} in the source")),
    };
    Ok(Some(text))
}

/// One form for texts whose type allows several for one value.
pub fn text(kind: &str, text: String) -> String {
    match kind {
        "double precision" => text.parse::<f64>().map_or(text, |value| format!("{value:?}")),
        // Debezium drops the zeros at the end where the column does not say how many there are.
        "numeric of any scale" if text.contains('.') => {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
        "real" => text.parse::<f32>().map_or(text, |value| format!("{value:?}")),
        _ => text,
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold("\\x".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String");
        text
    })
}

fn time(micros: i64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    // Written out, because 24:00:00 is a time to Postgres and to no library.
    with_fraction(
        format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
        fraction.unsigned_abs() as u32,
    )
}

fn date(days: i32) -> String {
    let day = NaiveDate::from_ymd_opt(1970, 1, 1)
        .and_then(|epoch| epoch.checked_add_signed(TimeDelta::days(days.into())));
    day.map_or_else(|| format!("day {days}"), |day| day.format("%Y-%m-%d").to_string())
}

fn timestamp(micros: i64) -> String {
    let Some(instant) = DateTime::from_timestamp_micros(micros) else { return format!("{micros} µs") };
    let local: NaiveDateTime = instant.naive_utc();
    with_fraction(local.format("%Y-%m-%d %H:%M:%S").to_string(), instant.timestamp_subsec_micros())
}

/// Postgres leaves out trailing zeros of a fraction.
fn with_fraction(text: String, micros: u32) -> String {
    if micros == 0 { text } else { format!("{text}.{micros:06}").trim_end_matches('0').to_owned() }
}
