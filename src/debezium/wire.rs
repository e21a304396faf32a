//! How a column's values are written in JSON, apart from what they mean.
//!
//! A [`ColumnType`] may have several encodings (a timestamp in milliseconds or microseconds, a decimal as bytes or as
//! a number). A [`Wire`] is one of them; together they say how to decode a cell.

use crate::change::{ColumnType, Shape};

use super::instant::Unit;
use super::modes::{Binary, Modes};

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
    /// A string that is an element of an array, and not what Java calls an array within it.
    Element,
    /// Base64, of the alphabet that is said.
    Binary(Base64),
    /// Hexadecimal digits.
    Hex,
    /// Base64 of a text.
    TextBytes,
    /// Base64 of bits, the lowest byte first and as many as the highest set bit needs.
    Bits(u32),
    /// Days since 1970-01-01, an ISO 8601 text, or an object with its parts.
    Date,
    /// Integer since midnight, an ISO 8601 text, or an object with its parts.
    Time(Unit),
    /// Integer since 1970, an ISO 8601 text, or an object with its parts.
    Timestamp(Unit),
    /// ISO 8601 text, `infinity` or `-infinity`, or an object with its parts.
    Iso,
    /// A time with an offset as text, or an object with its parts.
    ZonedTime,
    /// ISO 8601 text of a span, a number of microseconds, or an object with its parts.
    Interval,
    /// A number of microseconds.
    Duration,
    /// JSON text of an object, or the object.
    Hstore,
    /// An object with the coordinates, or with their well-known binary.
    Geometric(Shape),
    /// An array of values in one encoding.
    Array(Box<Wire>),
}

/// The two alphabets of base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Base64 {
    Standard,
    Url,
}

impl Wire {
    /// The encoding that a connector with these settings gives a type in an event without schema block.
    pub(super) fn of(column_type: &ColumnType, modes: Modes) -> Self {
        match column_type {
            ColumnType::Boolean => Self::Boolean,
            ColumnType::Int16 => Self::Int16,
            ColumnType::Int32 => Self::Int32,
            ColumnType::Int64 => Self::Int64,
            ColumnType::Float32 => Self::Float32,
            ColumnType::Float64 => Self::Float64,
            ColumnType::Decimal { precision, scale } => modes.decimal(*precision, *scale),
            ColumnType::Numeric => Self::Numeric,
            ColumnType::Text
            | ColumnType::Uuid
            | ColumnType::Json
            | ColumnType::Jsonb
            | ColumnType::Other(_) => Self::AnyText,
            ColumnType::Binary => match modes.binary {
                Binary::Bytes | Binary::Base64 => Self::Binary(Base64::Standard),
                Binary::Base64UrlSafe => Self::Binary(Base64::Url),
                Binary::Hex => Self::Hex,
            },
            ColumnType::Date => Self::Date,
            ColumnType::Time => Self::Time(modes.unit()),
            ColumnType::Timestamp => Self::Timestamp(modes.unit()),
            ColumnType::TimestampTz => Self::Iso,
            ColumnType::Interval => Self::Interval,
            ColumnType::Duration => Self::Duration,
            ColumnType::Bits(length) => Self::Bits(*length),
            ColumnType::Hstore => Self::Hstore,
            ColumnType::Geometric(shape) => Self::Geometric(*shape),
            ColumnType::Vector => Self::array(Self::Float64),
            ColumnType::HalfVector => Self::array(Self::Float32),
            ColumnType::Array(element) => Self::array(Self::of(element, modes)),
        }
    }

    /// An array of elements in this encoding.
    pub(super) fn array(element: Self) -> Self {
        Self::Array(Box::new(match element {
            Self::Text | Self::AnyText => Self::Element,
            other => other,
        }))
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
            Self::Element => {
                "a string, and no array within the array, of which the connector writes only Java's name"
            }
            Self::Binary(Base64::Standard) => "base64",
            Self::Binary(Base64::Url) => "base64 of the alphabet for URLs",
            Self::Hex => "hexadecimal digits",
            Self::TextBytes => "base64 of a text",
            Self::Bits(_) => "base64 of no more bits than the column has",
            Self::Date => "days since 1970-01-01 within the years 4713 BC to 5874897",
            Self::Time(_) => "a time from 00:00:00 to 24:00:00 in whole microseconds",
            Self::ZonedTime => "a time with its offset",
            Self::Interval => "an ISO 8601 span of time, or a number of microseconds that fits 64 bits",
            Self::Duration => {
                "a number of microseconds that fits 64 bits (interval.handling.mode=string holds every interval)"
            }
            Self::Hstore => "an object of texts",
            Self::Geometric(_) => "an object with coordinates",
            Self::Array(element) => element.expected_elements(),
            Self::Timestamp(_) => "a timestamp whose microseconds since 1970 fit 64 bits",
            Self::Iso => "an ISO 8601 timestamp whose microseconds since 1970 fit 64 bits",
        }
    }
    /// The accepted elements of an array in words.
    fn expected_elements(&self) -> &'static str {
        match self {
            Self::Element => {
                "an array of strings; of an array of several dimensions the connector writes no values"
            }
            Self::Int16 | Self::Int32 | Self::Int64 | Self::Float32 | Self::Float64 => "an array of numbers",
            Self::Date | Self::Time(_) | Self::Timestamp(_) | Self::Iso => "an array of dates or times",
            Self::Decimal { .. } | Self::DecimalText { .. } | Self::ScaledNumeric { .. } | Self::Numeric => {
                "an array of decimals"
            }
            _ => "an array of values of the column's type",
        }
    }
}
