//! Decoding one JSON value into one cell of a column, guided by its [`Wire`].
//!
//! Invariant: a cell is appended exactly when decoding succeeds. Null stays null (the defaults that a schema declares
//! are never put in), and the placeholder becomes an absent cell in every encoding.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, Visitor};
use serde_json::value::RawValue;

use super::columns::Column;
use super::decimal::{self, Decimal};
use super::instant;
use super::placeholder::Placeholder;
use super::wire::Wire;

/// A place for one value.
pub(super) struct Cell<'a> {
    pub(super) wire: &'a Wire,
    pub(super) column: &'a mut Column,
    pub(super) placeholder: &'a Placeholder,
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
            | Wire::AnyText => {
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

impl Visitor<'_> for Cell<'_> {
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
        let of_bytes = self.wire != &Wire::Text && self.placeholder.is_bytes(value);
        if of_bytes || self.placeholder.is_text(value) {
            self.column.push_absent();
            return Some(());
        }
        let column = &mut *self.column;
        match self.wire {
            Wire::Text | Wire::AnyText => column.push_str(value),
            Wire::Binary => column.push_with(|bytes| STANDARD.decode_vec(value, bytes).ok()),
            Wire::Iso | Wire::Timestamp(_) => column.push_i64(instant::parse_iso(value)?),
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
                push_plain(column, &value)
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
            Wire::ScaledNumeric { .. } | Wire::Numeric => push_plain(self.column, &Decimal::parse(text)?),
            _ => None,
        }
    }

    /// Decodes an object or an array.
    fn composite(&mut self, text: &str) -> Option<()> {
        match self.wire {
            Wire::AnyText => {
                let text = compact(text);
                if self.placeholder.is_composite(&text) {
                    self.column.push_absent();
                    return Some(());
                }
                self.column.push_str(&text)
            }
            Wire::Numeric if text.starts_with('{') => {
                let scaled: VariableScale<'_> = serde_json::from_str(text).ok()?;
                let value = unquoted(scaled.value.get())?;
                if self.placeholder.is_text(&value) || self.placeholder.is_bytes(&value) {
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
