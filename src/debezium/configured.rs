//! Names of column types in the configuration, for events without schema block.
//!
//! | name | values in the event |
//! |---|---|
//! | `boolean` | `true`, `false` |
//! | `int16`, `int32`, `int64` | integers |
//! | `float32`, `float64` | numbers, `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | `decimal(p,s)` | base64 of the unscaled bytes (`decimal.handling.mode=precise`), or numbers (`double`) |
//! | `decimal_text(p,s)` | decimal text (`decimal.handling.mode=string`), or numbers |
//! | `numeric` | `{"scale":…,"value":…}`, decimal text or numbers; kept as decimal text |
//! | `text`, `uuid`, `json`, `jsonb` | strings; other JSON is kept as text |
//! | `bytes` | base64 (`binary.handling.mode=bytes` or `base64`) |
//! | `date` | days since 1970-01-01 |
//! | `time`, `time_us`; `time_ms`; `time_ns` | micro-, milli- or nanoseconds since midnight |
//! | `timestamp`, `timestamp_us`; `timestamp_ms`; `timestamp_ns` | the same since 1970, or ISO 8601 text |
//! | `timestamptz` | ISO 8601 text in UTC or with an offset, `infinity`, `-infinity` |
//!
//! A `decimal` of more than 38 digits becomes decimal text.

use std::str::FromStr;

use crate::change::ColumnType;

use super::instant::Unit;
use super::wire::Wire;

/// The type of a column as configured: what its values mean and how the events write them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredType {
    pub(super) column_type: ColumnType,
    pub(super) wire: Wire,
}

impl ConfiguredType {
    /// What the values mean.
    pub fn column_type(&self) -> &ColumnType {
        &self.column_type
    }
}

/// A configured name that is no column type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfiguredTypeError {
    /// Not one of the names.
    #[error(
        "`{0}` is not a column type: use one of boolean, int16, int32, int64, float32, float64, decimal(p,s), \
         decimal_text(p,s), numeric, text, uuid, json, jsonb, bytes, date, time, time_ms, time_us, time_ns, \
         timestamp, timestamp_ms, timestamp_us, timestamp_ns, timestamptz"
    )]
    UnknownName(String),
    /// A decimal whose precision or scale is missing or impossible.
    #[error(
        "`{0}` does not say the digits of a decimal: write decimal(p,s) with 1 <= p <= 1000 and 0 <= s <= p, \
         for example decimal(10,2)"
    )]
    Digits(String),
}

impl FromStr for ConfiguredType {
    type Err = ConfiguredTypeError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let lower = name.trim().to_ascii_lowercase();
        let column_type = match lower.as_str() {
            "boolean" => ColumnType::Boolean,
            "int16" => ColumnType::Int16,
            "int32" => ColumnType::Int32,
            "int64" => ColumnType::Int64,
            "float32" => ColumnType::Float32,
            "float64" => ColumnType::Float64,
            "numeric" => ColumnType::Numeric,
            "text" => ColumnType::Text,
            "uuid" => ColumnType::Uuid,
            "json" => ColumnType::Json,
            "jsonb" => ColumnType::Jsonb,
            "bytes" => ColumnType::Binary,
            "date" => ColumnType::Date,
            "time" | "time_us" | "time_ms" | "time_ns" => ColumnType::Time,
            "timestamp" | "timestamp_us" | "timestamp_ms" | "timestamp_ns" => ColumnType::Timestamp,
            "timestamptz" => ColumnType::TimestampTz,
            _ => return decimal(name, &lower),
        };
        let wire = match (lower.as_str(), &column_type) {
            ("time_ms", _) => Wire::Time(Unit::Millis),
            ("time_ns", _) => Wire::Time(Unit::Nanos),
            ("timestamp_ms", _) => Wire::Timestamp(Unit::Millis),
            ("timestamp_ns", _) => Wire::Timestamp(Unit::Nanos),
            (_, column_type) => Wire::default_of(column_type),
        };
        Ok(Self { column_type, wire })
    }
}

fn decimal(name: &str, lower: &str) -> Result<ConfiguredType, ConfiguredTypeError> {
    let (as_text, digits) = if let Some(digits) = lower.strip_prefix("decimal_text") {
        (true, digits)
    } else if let Some(digits) = lower.strip_prefix("decimal") {
        (false, digits)
    } else {
        return Err(ConfiguredTypeError::UnknownName(name.to_owned()));
    };
    let digits = || -> Option<(u16, u16)> {
        let (precision, scale) = digits.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
        Some((precision.trim().parse().ok()?, scale.trim().parse().ok()?))
    };
    let Some((precision, scale)) = digits().filter(|(p, s)| (1..=1000).contains(p) && s <= p) else {
        return Err(ConfiguredTypeError::Digits(name.to_owned()));
    };
    let (column_type, wire) = match (precision, as_text) {
        (39.., true) => (ColumnType::Numeric, Wire::Numeric),
        (39.., false) => (ColumnType::Numeric, Wire::ScaledNumeric { scale: i64::from(scale) }),
        (_, as_text) => {
            let (precision, scale) = (precision as u8, scale as i8);
            let wire = if as_text {
                Wire::DecimalText { precision, scale }
            } else {
                Wire::Decimal { precision, scale }
            };
            (ColumnType::Decimal { precision, scale }, wire)
        }
    };
    Ok(ConfiguredType { column_type, wire })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn names_give_their_type_and_encoding() {
        let parsed: ConfiguredType = "decimal(10, 2)".parse().unwrap();
        assert_eq!(parsed.column_type, ColumnType::Decimal { precision: 10, scale: 2 });
        assert_eq!(parsed.wire, Wire::Decimal { precision: 10, scale: 2 });
        let parsed: ConfiguredType = "Timestamp_ms".parse().unwrap();
        assert_eq!(parsed.column_type, ColumnType::Timestamp);
        assert_eq!(parsed.wire, Wire::Timestamp(Unit::Millis));
        let parsed: ConfiguredType = "decimal(60,5)".parse().unwrap();
        assert_eq!(parsed.column_type, ColumnType::Numeric);
        assert_eq!(parsed.wire, Wire::ScaledNumeric { scale: 5 });
        let parsed: ConfiguredType = "decimal_text(38,38)".parse().unwrap();
        assert_eq!(parsed.wire, Wire::DecimalText { precision: 38, scale: 38 });
    }

    #[test]
    fn a_wrong_name_is_quoted_with_the_accepted_ones() {
        let error = "varchar(10)".parse::<ConfiguredType>().unwrap_err().to_string();
        assert!(error.starts_with("`varchar(10)` is not a column type: use one of boolean"), "{error}");
        for wrong in
            ["decimal", "decimal(0,0)", "decimal(5,6)", "decimal(5)", "decimal(a,b)", "decimal(1001,0)"]
        {
            let error = wrong.parse::<ConfiguredType>().unwrap_err();
            assert_eq!(error, ConfiguredTypeError::Digits(wrong.to_owned()));
        }
    }
}
