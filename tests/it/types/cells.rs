//! Cells of the lake as texts, and how they are compared with the source's.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::expected::Compare;

/// A cell as text: dates as days, times as microseconds, infinity by name, arrays as `[a, NULL]`.
pub fn text(array: &dyn Array, row: usize) -> Option<String> {
    if array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float32 => array.as_primitive::<Float32Type>().value(row).to_string(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).to_string(),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value_as_string(row),
        DataType::Date32 => match array.as_primitive::<Date32Type>().value(row) {
            i32::MAX => "infinity".to_owned(),
            i32::MIN => "-infinity".to_owned(),
            days => days.to_string(),
        },
        DataType::Timestamp(..) => match array.as_primitive::<TimestampMicrosecondType>().value(row) {
            i64::MAX => "infinity".to_owned(),
            i64::MIN => "-infinity".to_owned(),
            micros => micros.to_string(),
        },
        DataType::Binary => hex(array.as_binary::<i32>().value(row)),
        DataType::BinaryView => hex(array.as_binary_view().value(row)),
        DataType::Utf8 => array.as_string::<i32>().value(row).to_owned(),
        DataType::Utf8View => array.as_string_view().value(row).to_owned(),
        DataType::List(_) => {
            let elements = array.as_list::<i32>().value(row);
            let texts: Vec<String> = (0..elements.len())
                .map(|index| text(elements.as_ref(), index).unwrap_or_else(|| "NULL".to_owned()))
                .collect();
            format!("[{}]", texts.join(", "))
        }
        other => panic!("{other} in the lake"),
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold("\\x".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String");
        text
    })
}

/// Whether a copy holds what the source says.
pub fn agree(compare: Compare, source: Option<&str>, copy: Option<&str>) -> bool {
    let (Some(source), Some(copy)) = (source, copy) else { return source == copy };
    match compare {
        Compare::Text => source == copy,
        Compare::Doubles => doubles(source) == doubles(copy),
        Compare::Singles => source.parse::<f32>().map(f32::to_bits) == copy.parse::<f32>().map(f32::to_bits),
        Compare::Near => match (source.parse::<i64>(), micros(copy)) {
            (Ok(source), Some(copy)) => (source - copy).abs() <= 1,
            _ => false,
        },
        Compare::Spans => source == copy || rounded(source) == rounded(copy),
        Compare::Json => json(source) == json(copy),
        Compare::Bits => STANDARD.encode(bits(source)) == copy,
        Compare::Object => json(copy).is_some_and(|object| object["wkb"].is_string()),
    }
}

/// The numbers of a text in one notation. `4` and `4.0` are the same, `0` and `-0` are not.
fn doubles(text: &str) -> Vec<String> {
    text.split([',', '[', ']', '{', '}', '(', ')', '<', '>'])
        .map(|part| part.trim().parse::<f64>().map_or(part.trim().to_owned(), |value| format!("{value:?}")))
        .map(|part| if part == "inf" { "Infinity".to_owned() } else { part })
        .collect()
}

/// A span with its seconds rounded to microseconds: behind them Debezium writes what a double adds.
fn rounded(text: &str) -> Option<String> {
    let (head, seconds) = text.strip_suffix('S')?.rsplit_once('M')?;
    Some(format!("{head}M{:.6}S", seconds.parse::<f64>().ok()?))
}

/// A number of microseconds, or a span in hours, minutes and seconds.
fn micros(text: &str) -> Option<i64> {
    let Some(span) = text.strip_prefix("PT") else { return text.parse().ok() };
    let (hours, rest) = span.split_once('H')?;
    let (minutes, rest) = rest.split_once('M')?;
    let seconds = rest.strip_suffix('S')?;
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    let negative = [hours, minutes, seconds].iter().any(|part| part.starts_with('-'));
    let number = |text: &str| text.trim_start_matches('-').parse::<i64>().ok();
    let total = (number(hours)? * 60 + number(minutes)?) * 60 + number(seconds)?;
    let total = total * 1_000_000 + number(&format!("{fraction:0<6}"))?;
    Some(if negative { -total } else { total })
}

fn json(text: &str) -> Option<serde_json::Value> {
    serde_json::from_str(text).ok()
}

/// The bytes of a bit string, the lowest first, without zeros above the highest set bit.
fn bits(text: &str) -> Vec<u8> {
    let set = text.bytes().rev().enumerate().filter(|(_, bit)| *bit == b'1').map(|(place, _)| place);
    let mut bytes = Vec::new();
    for place in set {
        bytes.resize(place / 8 + 1, 0);
        bytes[place / 8] |= 1 << (place % 8);
    }
    bytes
}
