//! Decoding one JSON value into one cell of a column, guided by its [`Wire`].
//!
//! Invariant: a cell is appended exactly when decoding succeeds. Null stays null (the defaults that a schema declares
//! are never put in), and the placeholder becomes an absent cell in every encoding.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::columns::Column;
use super::decimal::{self, Decimal};
use super::placeholder::Placeholder;
use super::structured::{self, Parts};
use super::wire::{Base64, Wire};
use super::{bits, geometric, instant, iso};

/// A place for one value.
pub(super) struct Cell<'a> {
    pub(super) wire: &'a Wire,
    pub(super) column: &'a mut Column,
    /// What says that the value is unchanged; an element of an array is never that.
    pub(super) placeholder: Option<&'a Placeholder>,
}

impl<'de> DeserializeSeed<'de> for Cell<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        match self.wire {
            // Numbers of these must not pass through a double, and objects and arrays are wanted as text.
            Wire::Float32
            | Wire::Decimal { .. }
            | Wire::DecimalText { .. }
            | Wire::ScaledNumeric { .. }
            | Wire::Numeric
            | Wire::AnyText
            | Wire::Hstore
            | Wire::Geometric(_)
            | Wire::Array(_) => {
                let raw = <&'de RawValue>::deserialize(deserializer)?;
                self.json(raw.get()).ok_or_else(refused)
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

fn refused<E: Error>() -> E {
    E::custom("the value does not fit its column")
}

impl<'de> Visitor<'de> for Cell<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wire.expected())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.column.push_null();
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.wire {
            Wire::Boolean => self.column.push_bool(value),
            _ => None,
        }
        .ok_or_else(refused)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        let column = self.column;
        match self.wire {
            Wire::Int16 => i16::try_from(value).ok().and_then(|value| column.push_i16(value)),
            Wire::Int32 => i32::try_from(value).ok().and_then(|value| column.push_i32(value)),
            Wire::Int64 => column.push_i64(value),
            Wire::Float64 => column.push_f64(value as f64),
            Wire::Date => instant::date(value).and_then(|value| column.push_i32(value)),
            Wire::Time(unit) => instant::time(value, *unit).and_then(|value| column.push_i64(value)),
            Wire::Timestamp(unit) => {
                instant::timestamp(value, *unit).and_then(|value| column.push_i64(value))
            }
            // The largest and smallest numbers are what became of longer spans.
            Wire::Duration if value != i64::MAX && value != i64::MIN => column.push_i64(value),
            Wire::Interval if value != i64::MAX && value != i64::MIN => {
                column.push_str(&structured::span(value))
            }
            _ => None,
        }
        .ok_or_else(refused)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(value as f64),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match self.wire {
            Wire::Float64 => self.column.push_f64(value),
            _ => None,
        }
        .ok_or_else(refused)
    }

    fn visit_str<E: Error>(mut self, value: &str) -> Result<(), E> {
        self.string(value).ok_or_else(refused)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let parts = Parts::deserialize(MapAccessDeserializer::new(map))?;
        let column = self.column;
        match self.wire {
            Wire::Date => parts.date().and_then(|days| column.push_i32(days)),
            Wire::Time(_) => parts.time().and_then(|micros| column.push_i64(micros)),
            Wire::Timestamp(_) | Wire::Iso => parts.timestamp().and_then(|micros| column.push_i64(micros)),
            Wire::ZonedTime => parts.zoned_time().and_then(|text| column.push_str(&text)),
            Wire::Interval => parts.interval().and_then(|text| column.push_str(&text)),
            _ => None,
        }
        .ok_or_else(refused)
    }
}

/// The elements of an array, into the column of elements.
struct Elements<'a> {
    wire: &'a Wire,
    column: &'a mut Column,
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let (wire, column) = (self.wire, self.column);
        while elements.next_element_seed(Cell { wire, column: &mut *column, placeholder: None })?.is_some() {}
        Ok(())
    }
}

impl Cell<'_> {
    /// Decodes a JSON value given as its (valid) text.
    fn json(&mut self, text: &str) -> Option<()> {
        match text.as_bytes().first()? {
            b'n' => {
                self.column.push_null();
                Some(())
            }
            b'"' => self.string(&unquoted(text)?),
            b'{' | b'[' => self.composite(text),
            b't' | b'f' => match self.wire {
                Wire::AnyText => self.column.push_str(text),
                _ => None,
            },
            _ => self.number(text),
        }
    }

    /// Decodes a JSON string, given its content.
    fn string(&mut self, value: &str) -> Option<()> {
        // A text may be anything, also what the base64 of a short placeholder looks like.
        let is_text = matches!(self.wire, Wire::Text);
        let unchanged = |placeholder: &Placeholder| {
            placeholder.is_text(value) || (!is_text && placeholder.is_bytes(value))
        };
        if self.placeholder.is_some_and(unchanged) {
            self.column.push_absent();
            return Some(());
        }
        let column = &mut *self.column;
        match self.wire {
            Wire::Text | Wire::AnyText | Wire::Interval | Wire::ZonedTime => column.push_str(value),
            Wire::Element => (!is_name_of_array(value)).then(|| column.push_str(value))?,
            Wire::Binary(Base64::Standard) => {
                column.push_with(|bytes| STANDARD.decode_vec(value, bytes).ok())
            }
            Wire::Binary(Base64::Url) => column.push_with(|bytes| URL_SAFE.decode_vec(value, bytes).ok()),
            Wire::Hex => column.push_with(|bytes| bits::from_hex(value, bytes)),
            Wire::TextBytes => column.push_str(std::str::from_utf8(&STANDARD.decode(value).ok()?).ok()?),
            Wire::Bits(length) => {
                let bytes = STANDARD.decode(value).ok()?;
                column.push_with(|text| bits::write(&bytes, *length, text))
            }
            Wire::Hstore => (value.starts_with('{')).then(|| column.push_str(value))?,
            Wire::Date => column.push_i32(iso::date(value)?),
            Wire::Time(_) => column.push_i64(iso::time(value)?),
            Wire::Iso | Wire::Timestamp(_) => column.push_i64(iso::timestamp(value)?),
            Wire::Float64 => column.push_f64(f64::from(special_float(value)?)),
            Wire::Float32 => column.push_f32(special_float(value)?),
            Wire::Decimal { precision, .. } => {
                // 38 digits need 16 bytes; more are allowed only as repeated sign.
                let mut buffer = [0_u8; 48];
                let length = STANDARD.decode_slice(value, &mut buffer).ok()?;
                let unscaled = decimal::unscaled(buffer.get(..length)?)?;
                decimal::fits(unscaled, *precision).then(|| column.push_i128(unscaled))?
            }
            Wire::DecimalText { .. } => self.number(value),
            Wire::ScaledNumeric { scale } => {
                let value = Decimal::from_bytes(&STANDARD.decode(value).ok()?, *scale)?;
                push_plain(column, &value.of_declared_scale(*scale))
            }
            Wire::Numeric => match value {
                "NaN" | "NAN" => column.push_str("NaN"),
                "Infinity" | "POSITIVE_INFINITY" => column.push_str("Infinity"),
                "-Infinity" | "NEGATIVE_INFINITY" => column.push_str("-Infinity"),
                _ => push_plain(column, &Decimal::parse(value)?),
            },
            _ => None,
        }
    }

    /// Decodes a number, given as text.
    fn number(&mut self, text: &str) -> Option<()> {
        match self.wire {
            Wire::AnyText => self.column.push_str(text),
            Wire::Float32 => {
                self.column.push_f32(text.parse::<f32>().ok().filter(|value| value.is_finite())?)
            }
            Wire::Decimal { precision, scale } | Wire::DecimalText { precision, scale } => {
                let unscaled = Decimal::parse(text)?.at_scale(*scale)?;
                decimal::fits(unscaled, *precision).then(|| self.column.push_i128(unscaled))?
            }
            Wire::ScaledNumeric { scale } => {
                push_plain(self.column, &Decimal::parse(text)?.of_declared_scale(*scale))
            }
            Wire::Numeric => push_plain(self.column, &Decimal::parse(text)?),
            _ => None,
        }
    }

    /// Decodes an object or an array.
    fn composite(&mut self, text: &str) -> Option<()> {
        match self.wire {
            Wire::AnyText | Wire::Hstore | Wire::Geometric(_) | Wire::Array(_) => {
                let text = compact(text);
                if self.placeholder.is_some_and(|placeholder| placeholder.is_composite(&text)) {
                    self.column.push_absent();
                    return Some(());
                }
                match self.wire {
                    Wire::Array(element) => self.column.push_list(|column| {
                        let mut deserializer = serde_json::Deserializer::from_str(&text);
                        deserializer.deserialize_seq(Elements { wire: element, column }).ok()
                    }),
                    Wire::Geometric(shape) => self.column.push_str(&geometric::text(*shape, &text)?),
                    Wire::Hstore if !text.starts_with('{') => None,
                    _ => self.column.push_str(&text),
                }
            }
            Wire::Numeric if text.starts_with('{') => {
                let scaled: VariableScale<'_> = serde_json::from_str(text).ok()?;
                let value = unquoted(scaled.value.get())?;
                let unchanged =
                    |placeholder: &Placeholder| placeholder.is_text(&value) || placeholder.is_bytes(&value);
                if self.placeholder.is_some_and(unchanged) {
                    self.column.push_absent();
                    return Some(());
                }
                let value = Decimal::from_bytes(&STANDARD.decode(value.as_ref()).ok()?, scaled.scale)?;
                push_plain(self.column, &value)
            }
            _ => None,
        }
    }
}

/// Debezium's struct for a decimal whose scale is not declared.
#[derive(Deserialize)]
struct VariableScale<'a> {
    scale: i64,
    #[serde(borrow)]
    value: &'a RawValue,
}

fn push_plain(column: &mut Column, value: &Decimal) -> Option<()> {
    column.push_with(|bytes| {
        value.write_plain(bytes);
        Some(())
    })
}

/// What Jackson writes for floats that JSON has no number for.
fn special_float(text: &str) -> Option<f32> {
    match text {
        "NaN" => Some(f32::NAN),
        "Infinity" => Some(f32::INFINITY),
        "-Infinity" => Some(f32::NEG_INFINITY),
        _ => None,
    }
}

/// Whether it is what Java writes in place of an array within an array: `[Ljava.lang.String;@695673e7`. The connector
/// puts that where an array has several dimensions.
fn is_name_of_array(text: &str) -> bool {
    let Some((class, hash)) = text.strip_prefix('[').and_then(|rest| rest.split_once('@')) else {
        return false;
    };
    let class = class.trim_start_matches('[');
    let named = class.strip_prefix('L').is_some_and(|name| name.ends_with(';') && !name.contains(' '));
    (named || matches!(class, "B" | "C" | "D" | "F" | "I" | "J" | "S" | "Z"))
        && (1..=8).contains(&hash.len())
        && hash.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// The content of a JSON string given with its quotes.
fn unquoted(text: &str) -> Option<Cow<'_, str>> {
    let content = text.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', content.as_bytes()).is_none() {
        return Some(Cow::Borrowed(content));
    }
    serde_json::from_str(text).ok().map(Cow::Owned)
}

/// JSON text without the white space between its tokens.
pub(super) fn compact(text: &str) -> Cow<'_, str> {
    let mut in_string = false;
    let mut escaped = false;
    let mut is_space = |byte: char| {
        let space = !in_string && matches!(byte, ' ' | '\t' | '\n' | '\r');
        if escaped {
            escaped = false;
        } else if in_string && byte == '\\' {
            escaped = true;
        } else if byte == '"' {
            in_string = !in_string;
        }
        space
    };
    let Some(first) = text.find(&mut is_space) else { return Cow::Borrowed(text) };
    let (head, tail) = text.split_at(first);
    let mut out = String::with_capacity(text.len());
    out.push_str(head);
    // The predicate has seen the first space already; spaces do not change its state.
    out.extend(tail.chars().filter(|&byte| !is_space(byte)));
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn compact_text_keeps_spaces_within_strings() {
        assert_eq!(compact(r#"[1,"a b"]"#), r#"[1,"a b"]"#);
        assert_eq!(compact("{ \"a\\\" \" : [ 1 ,\n2 ] }"), "{\"a\\\" \":[1,2]}");
    }
}
