//! Values and schema blocks as Kafka Connect's JsonConverter writes them for Debezium's Postgres connector.
//!
//! Settings: `decimal.handling.mode=precise`, `time.precision.mode=adaptive`, `schemas.enable=true`, which are the
//! defaults.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::DateTime;

use super::tables::Value;
use crate::change::{Column, ColumnType};

/// What stands for an unchanged value that is stored out of line.
pub const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// Base64 of the fewest big-endian two's complement bytes that hold `unscaled`.
pub fn decimal(unscaled: i128) -> String {
    let bytes = unscaled.to_be_bytes();
    let sign = if unscaled < 0 { 0xff } else { 0 };
    let redundant = bytes
        .iter()
        .zip(bytes.iter().skip(1))
        .take_while(|(byte, next)| **byte == sign && (**next & 0x80) == (sign & 0x80))
        .count();
    STANDARD.encode(bytes.get(redundant..).unwrap_or_default())
}

/// ISO 8601 text in UTC with six decimal places, from microseconds since 1970.
pub fn zoned_timestamp(micros: i64) -> String {
    DateTime::from_timestamp_micros(micros).unwrap_or_default().format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// A JSON string with quotes and escapes.
pub fn string(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// A value as JSON.
pub fn value(out: &mut String, value: &Value) {
    let _ = match value {
        Value::Null => out.write_str("null"),
        Value::Boolean(value) => write!(out, "{value}"),
        Value::Int32(value) | Value::Date(value) => write!(out, "{value}"),
        Value::Int64(value) => write!(out, "{value}"),
        Value::Decimal(value) => write!(out, "\"{}\"", decimal(*value)),
        Value::TimestampTz(value) => write!(out, "\"{}\"", zoned_timestamp(*value)),
        Value::Text(text) => {
            string(out, text);
            Ok(())
        }
    };
}

/// What a delete event holds for a column that is not part of the key: null, or a made-up value where the column may
/// not be null (the database does not send the old one under the default replica identity).
pub fn fabricated(column: &Column) -> &'static str {
    if column.nullable {
        return "null";
    }
    match column.column_type {
        ColumnType::Boolean => "false",
        ColumnType::Decimal { .. } => "\"AA==\"",
        ColumnType::TimestampTz => "\"1970-01-01T00:00:00.000000Z\"",
        ColumnType::Text | ColumnType::Uuid => "\"\"",
        ColumnType::Jsonb => "\"{}\"",
        _ => "0",
    }
}

/// The entry of a column in a schema block's `fields`.
pub fn field(out: &mut String, column: &Column) {
    let (kind, name) = match column.column_type {
        ColumnType::Boolean => ("boolean", None),
        ColumnType::Int32 => ("int32", None),
        ColumnType::Int64 => ("int64", None),
        ColumnType::Decimal { .. } => ("bytes", Some("org.apache.kafka.connect.data.Decimal")),
        ColumnType::Date => ("int32", Some("io.debezium.time.Date")),
        ColumnType::TimestampTz => ("string", Some("io.debezium.time.ZonedTimestamp")),
        ColumnType::Uuid => ("string", Some("io.debezium.data.Uuid")),
        ColumnType::Jsonb => ("string", Some("io.debezium.data.Json")),
        _ => ("string", None),
    };
    let _ = write!(out, r#"{{"type":"{kind}","optional":{}"#, column.nullable);
    if let Some(name) = name {
        let _ = write!(out, r#","name":"{name}","version":1"#);
    }
    if let ColumnType::Decimal { precision, scale } = column.column_type {
        let _ =
            write!(out, r#","parameters":{{"scale":"{scale}","connect.decimal.precision":"{precision}"}}"#);
    }
    let _ = write!(out, r#","field":"{}"}}"#, column.name);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> (i128, usize) {
        let bytes = STANDARD.decode(text).unwrap();
        let negative = bytes[0] & 0x80 != 0;
        let start = if negative { -1_i128 } else { 0 };
        (bytes.iter().fold(start, |value, byte| (value << 8) | i128::from(*byte)), bytes.len())
    }

    #[test]
    fn decimals_return_from_the_fewest_bytes() {
        let mut rng = fastrand::Rng::with_seed(1);
        let random = (0..10_000).map(|_| rng.i128(..) >> rng.u32(..127));
        for unscaled in
            [0, 1, -1, 127, 128, -128, -129, 255, 256, 99_999, i128::MAX, i128::MIN].into_iter().chain(random)
        {
            let (back, length) = decode(&decimal(unscaled));
            assert_eq!(back, unscaled);
            let shortest = (1..=16)
                .find(|bytes| {
                    let shift = 128 - bytes * 8;
                    unscaled << shift >> shift == unscaled
                })
                .unwrap();
            assert_eq!(length, shortest, "bytes of {unscaled}");
        }
    }

    #[test]
    fn values_are_written_as_the_connector_was_seen_to_write_them() {
        assert_eq!(decimal(700), "Arw=");
        assert_eq!(decimal(999), "A+c=");
        assert_eq!(decimal(123_456_789_012_345_678), "AbabS6Yw804=");
        assert_eq!(zoned_timestamp(1_709_231_399_999_999), "2024-02-29T18:29:59.999999Z");
        assert_eq!(zoned_timestamp(1_704_067_200_000_000), "2024-01-01T00:00:00.000000Z");
        let mut text = String::new();
        string(&mut text, "日本語 \"q\" \\ \n");
        assert_eq!(text, r#""日本語 \"q\" \\ \n""#);
    }
}
