//! Names of column types in the configuration, for events without schema block.
//!
//! What the values of each look like in the events is told to users in `docs/configuration.md` (`tables.types`). The list of
//! names, [`ConfiguredType::NAMES`], is what a refusal says, and tests hold the parser and that page against it.

use std::str::FromStr;

use arrow::datatypes::DataType;

use crate::change::{ColumnType, Shape};

use super::instant::Unit;
use super::modes::Modes;
use super::wire::{Base64, Wire};

/// The type of a column as configured: what its values mean and how the events write them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredType {
    pub(super) column_type: ColumnType,
    pub(super) wire: Wire,
}

impl ConfiguredType {
    /// Every name, with the parameters that belong to it. Each may have `[]` behind it.
    pub const NAMES: [&'static str; 54] = [
        "boolean",
        "int16",
        "int32",
        "int64",
        "float32",
        "float64",
        "decimal(p,s)",
        "decimal_text(p,s)",
        "numeric",
        "text",
        "uuid",
        "json",
        "jsonb",
        "bytes",
        "bytes_base64url",
        "bytes_hex",
        "date",
        "time",
        "time_ms",
        "time_us",
        "time_ns",
        "timestamp",
        "timestamp_ms",
        "timestamp_us",
        "timestamp_ns",
        "timestamptz",
        "timetz",
        "interval",
        "interval_us",
        "bit(n)",
        "hstore",
        "inet",
        "cidr",
        "macaddr",
        "macaddr8",
        "int4range",
        "int8range",
        "numrange",
        "tsrange",
        "tstzrange",
        "daterange",
        "xml",
        "tsvector",
        "ltree",
        "citext",
        "enum",
        "point",
        "line",
        "lseg",
        "box",
        "path",
        "circle",
        "vector",
        "halfvec",
    ];

    /// What the values mean.
    pub fn column_type(&self) -> &ColumnType {
        &self.column_type
    }
}

/// A configured name that is no column type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfiguredTypeError {
    /// Not one of [`ConfiguredType::NAMES`].
    #[error(
        "`{0}` is not a column type: use one of {names}, or one of these with [] behind it for an array",
        names = ConfiguredType::NAMES.join(", ")
    )]
    UnknownName(String),
    /// A decimal whose precision or scale is missing or impossible.
    #[error(
        "`{0}` does not say the digits of a decimal: write decimal(p,s) with 1 <= p <= 1000 and -1000 <= s <= 1000, \
         for example decimal(10,2)"
    )]
    Digits(String),
    /// Bits whose number is missing or impossible.
    #[error(
        "`{0}` does not say how many bits: write bit(n) with n >= 2, for example bit(8); bit(1) is a boolean"
    )]
    Bits(String),
}

impl FromStr for ConfiguredType {
    type Err = ConfiguredTypeError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let lower = name.trim().to_ascii_lowercase();
        if let Some(element) = lower.strip_suffix("[]") {
            let element: Self =
                element.parse().map_err(|_| ConfiguredTypeError::UnknownName(name.to_owned()))?;
            if matches!(element.column_type.arrow(), DataType::List(_)) {
                return Err(ConfiguredTypeError::UnknownName(name.to_owned()));
            }
            let column_type = ColumnType::Array(Box::new(element.column_type));
            return Ok(Self { column_type, wire: Wire::array(element.wire) });
        }
        let Some(column_type) = named(&lower) else { return with_parameters(name, &lower) };
        let wire = match lower.as_str() {
            "time_ms" => Wire::Time(Unit::Millis),
            "time_ns" => Wire::Time(Unit::Nanos),
            "timestamp_ms" => Wire::Timestamp(Unit::Millis),
            "timestamp_ns" => Wire::Timestamp(Unit::Nanos),
            "bytes_base64url" => Wire::Binary(Base64::Url),
            "bytes_hex" => Wire::Hex,
            "timetz" => Wire::ZonedTime,
            _ => Wire::of(&column_type, Modes::default()),
        };
        Ok(Self { column_type, wire })
    }
}

/// Types that are carried as text and have a type of their own in Postgres.
const TEXTS: [&str; 16] = [
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "int4range",
    "int8range",
    "numrange",
    "tsrange",
    "tstzrange",
    "daterange",
    "xml",
    "tsvector",
    "ltree",
    "citext",
    "timetz",
    "enum",
];

/// The type of a name without parameters.
fn named(lower: &str) -> Option<ColumnType> {
    Some(match lower {
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
        "bytes" | "bytes_base64url" | "bytes_hex" => ColumnType::Binary,
        "date" => ColumnType::Date,
        "time" | "time_us" | "time_ms" | "time_ns" => ColumnType::Time,
        "timestamp" | "timestamp_us" | "timestamp_ms" | "timestamp_ns" => ColumnType::Timestamp,
        "timestamptz" => ColumnType::TimestampTz,
        "interval" => ColumnType::Interval,
        "interval_us" => ColumnType::Duration,
        "hstore" => ColumnType::Hstore,
        "vector" => ColumnType::Vector,
        "halfvec" => ColumnType::HalfVector,
        _ => {
            let text = TEXTS.contains(&lower).then(|| ColumnType::Other(lower.to_owned()));
            return Shape::of_name(lower).map(ColumnType::Geometric).or(text);
        }
    })
}

/// The type of a name with parameters.
fn with_parameters(name: &str, lower: &str) -> Result<ConfiguredType, ConfiguredTypeError> {
    let Some(length) = lower.strip_prefix("bit(").and_then(|rest| rest.strip_suffix(')')) else {
        return decimal(name, lower);
    };
    match length.trim().parse() {
        Ok(length @ 2..=83_886_080) => {
            Ok(ConfiguredType { column_type: ColumnType::Bits(length), wire: Wire::Bits(length) })
        }
        _ => Err(ConfiguredTypeError::Bits(name.to_owned())),
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
    let digits = || -> Option<(i32, i32)> {
        let (precision, scale) = digits.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
        Some((precision.trim().parse().ok()?, scale.trim().parse().ok()?))
    };
    let digits = digits().filter(|(p, s)| (1..=1000).contains(p) && (-1000..=1000).contains(s));
    let Some((precision, scale)) = digits else {
        return Err(ConfiguredTypeError::Digits(name.to_owned()));
    };
    let small = u8::try_from(precision)
        .ok()
        .filter(|precision| *precision <= 38 && (0..=i32::from(*precision)).contains(&scale));
    let (column_type, wire) = match (small, as_text) {
        (None, true) => (ColumnType::Numeric, Wire::Numeric),
        (None, false) => {
            // The connector reads a scale below zero as the eleven bits that Postgres has for it.
            let written = if scale < 0 { scale + 2048 } else { scale };
            (ColumnType::Numeric, Wire::ScaledNumeric { scale: i64::from(written) })
        }
        (Some(precision), as_text) => {
            let scale = scale as i8;
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
    fn names_beyond_the_plain_ones_give_their_type_and_encoding() {
        let parsed = |name: &str| {
            let parsed: ConfiguredType = name.parse().unwrap();
            (parsed.column_type, parsed.wire)
        };
        assert_eq!(parsed("bit(8)"), (ColumnType::Bits(8), Wire::Bits(8)));
        assert_eq!(parsed("interval_us"), (ColumnType::Duration, Wire::Duration));
        assert_eq!(parsed("bytes_hex"), (ColumnType::Binary, Wire::Hex));
        assert_eq!(parsed("point"), (ColumnType::Geometric(Shape::Point), Wire::Geometric(Shape::Point)));
        assert_eq!(parsed("INET").0, ColumnType::Other("inet".into()));
        assert_eq!(parsed("decimal(5,-2)"), (ColumnType::Numeric, Wire::ScaledNumeric { scale: 2046 }));
        let text = (ColumnType::Array(Box::new(ColumnType::Text)), Wire::Array(Box::new(Wire::Element)));
        assert_eq!(parsed("text[]"), text);
        let wire = Wire::Array(Box::new(Wire::Timestamp(Unit::Millis)));
        assert_eq!(parsed("timestamp_ms[]").1, wire);
        for wrong in ["bit(1)", "bit(x)", "int32[][]", "vector[]", "[]", "nothing[]"] {
            assert!(wrong.parse::<ConfiguredType>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_name_is_a_type_also_as_element_of_an_array() {
        for name in ConfiguredType::NAMES {
            let name = name.replace("(p,s)", "(10,2)").replace("(n)", "(8)");
            let parsed = name.parse::<ConfiguredType>();
            assert!(parsed.is_ok(), "{name}: {parsed:?}");
            // Their values are lists by themselves.
            if !["vector", "halfvec"].contains(&name.as_str()) {
                let array = format!("{name}[]").parse::<ConfiguredType>();
                assert!(array.is_ok(), "{name}[]: {array:?}");
            }
        }
        for name in TEXTS {
            assert!(ConfiguredType::NAMES.contains(&name), "{name} is accepted and not among the names");
        }
    }

    #[test]
    fn a_wrong_name_is_quoted_with_the_accepted_ones() {
        let error = "varchar(10)".parse::<ConfiguredType>().unwrap_err().to_string();
        assert!(error.starts_with("`varchar(10)` is not a column type: use one of boolean"), "{error}");
        for wrong in
            ["decimal", "decimal(0,0)", "decimal(5,1001)", "decimal(5)", "decimal(a,b)", "decimal(1001,0)"]
        {
            let error = wrong.parse::<ConfiguredType>().unwrap_err();
            assert_eq!(error, ConfiguredTypeError::Digits(wrong.to_owned()));
        }
    }
}
