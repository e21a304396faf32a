//! How a column's values are written in JSON, apart from what they mean.
//!
//! A [`ColumnType`] may have several encodings (a timestamp in milliseconds or microseconds, a decimal as bytes or as
//! a number). A [`Wire`] is one of them; together they say how to decode a cell.

use crate::change::ColumnType;

use super::instant::Unit;

/// One encoding of values as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Wire {
    /// `true` or `false`.
    Boolean,
    /// Integer of 16 bits.
    Int16,
    /// Integer of 32 bits.
    Int32,
    /// Integer of 64 bits.
    Int64,
    /// Number, or one of the texts `NaN`, `Infinity`, `-Infinity`.
    Float32,
    /// The same in double precision.
    Float64,
    /// Base64 of the unscaled value in two's complement, or a number.
    Decimal { precision: u8, scale: i8 },
    /// Decimal text, or a number.
    DecimalText { precision: u8, scale: i8 },
    /// Base64 of the unscaled value, for a column of decimal text.
    ScaledNumeric { scale: i64 },
    /// `{"scale":…,"value":…}`, decimal text, a number, or a text for what is not a number.
    Numeric,
    /// A string.
    Text,
    /// A string as it is, any other JSON as compact text.
    AnyText,
    /// Base64.
    Binary,
    /// Days since 1970-01-01.
    Date,
    /// Integer since midnight.
    Time(Unit),
    /// Integer since 1970, or an ISO 8601 text.
    Timestamp(Unit),
    /// ISO 8601 text, `infinity` or `-infinity`.
    Iso,
}

impl Wire {
    /// The encoding that Debezium's default settings give a type in an event without schema block.
    pub(super) fn default_of(column_type: &ColumnType) -> Self {
        match column_type {
            ColumnType::Boolean => Self::Boolean,
            ColumnType::Int16 => Self::Int16,
            ColumnType::Int32 => Self::Int32,
            ColumnType::Int64 => Self::Int64,
            ColumnType::Float32 => Self::Float32,
            ColumnType::Float64 => Self::Float64,
            ColumnType::Decimal { precision, scale } => {
                Self::Decimal { precision: *precision, scale: *scale }
            }
            ColumnType::Numeric => Self::Numeric,
            ColumnType::Text
            | ColumnType::Uuid
            | ColumnType::Json
            | ColumnType::Jsonb
            | ColumnType::Other(_) => Self::AnyText,
            ColumnType::Binary => Self::Binary,
            ColumnType::Date => Self::Date,
            ColumnType::Time => Self::Time(Unit::Micros),
            ColumnType::Timestamp => Self::Timestamp(Unit::Micros),
            ColumnType::TimestampTz => Self::Iso,
        }
    }

    /// The accepted form in words, for error messages.
    pub(super) fn expected(&self) -> &'static str {
        match self {
            Self::Boolean => "true or false",
            Self::Int16 => "an integer of 16 bits",
            Self::Int32 => "an integer of 32 bits",
            Self::Int64 => "an integer of 64 bits",
            Self::Float32 => "a single precision number, \"NaN\", \"Infinity\" or \"-Infinity\"",
            Self::Float64 => "a double precision number, \"NaN\", \"Infinity\" or \"-Infinity\"",
            Self::Decimal { .. } => {
                "a decimal of the declared precision and scale, as base64 of its unscaled bytes or as a number \
                 (for decimal.handling.mode=string configure decimal_text(p,s))"
            }
            Self::DecimalText { .. } => {
                "a decimal of the declared precision and scale, as text or as a number"
            }
            Self::ScaledNumeric { .. } => "a decimal as base64 of its unscaled bytes or as a number",
            Self::Numeric => "a decimal as {scale, value}, as text or as a number",
            Self::Text => "a string",
            Self::AnyText => "any JSON value",
            Self::Binary => "base64",
            Self::Date => "days since 1970-01-01 within the years 4713 BC to 5874897",
            Self::Time(_) => "a time from 00:00:00 to 24:00:00 in whole microseconds",
            Self::Timestamp(_) => "a timestamp whose microseconds since 1970 fit 64 bits",
            Self::Iso => "an ISO 8601 timestamp whose microseconds since 1970 fit 64 bits",
        }
    }
}
