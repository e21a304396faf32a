//! Arrow columns as values of Postgres' binary form.
//!
//! Dates and times count from 2000-01-01. The largest and smallest `i64` of a timestamp, and `i32` of a date, mean
//! `infinity` and `-infinity`, as they do in Postgres.
//!
//! Invariant: what Postgres would change without a word (rounding, a NUL that ends a text) is an error here. It is found
//! while the bytes are made, because Postgres would either take the value or refuse the whole COPY, and not say which row.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, ListArray, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use bytes::{BufMut, BytesMut};

use super::assign::Limit;
use super::types::Wire;
use super::{numeric, pairs, postgis};

/// From 1970-01-01 to 2000-01-01.
pub(super) const EPOCH_DAYS: i32 = 10_957;
pub(super) const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// The length of a null.
pub(super) const NULL: i32 = -1;
const JSONB_VERSION: u8 = 1;

/// The values of one field.
pub(super) enum Cells<'a> {
    Bool(&'a BooleanArray),
    Int2(&'a Int16Array),
    Int4(&'a Int32Array),
    Int8(&'a Int64Array),
    Float4(&'a Float32Array),
    Float8(&'a Float64Array),
    Decimal(&'a Decimal128Array, u8),
    /// A decimal with a scale below zero.
    WholeDecimal(&'a Decimal128Array),
    NumericText(&'a StringArray, Option<u16>),
    Text(&'a StringArray, Option<u16>),
    /// Pairs, in the form of `hstore`.
    Hstore(&'a StringArray),
    /// Texts, in the form of PostGIS.
    PostGis(&'a StringArray),
    /// Texts of which some hold U+0000.
    NulSomewhere(Box<Self>),
    Uuid(&'a StringArray),
    Jsonb(&'a StringArray),
    Bytea(&'a BinaryArray),
    Date(&'a Date32Array),
    Time(&'a Int64Array, i64),
    Timestamp(&'a TimestampMicrosecondArray, i64),
    Interval(&'a Int64Array, i64),
    /// With the cells of all elements, one behind the other, and the object id of their type.
    Array(&'a ListArray, Box<Self>, u32),
}

impl<'a> Cells<'a> {
    /// The values of `array` as `wire` has them; `None` where that does not go together.
    pub(super) fn of(wire: &Wire, limit: Limit, array: &'a ArrayRef) -> Option<Self> {
        Some(match wire {
            Wire::Bool => Self::Bool(array.as_boolean_opt()?),
            Wire::Int2 => Self::Int2(array.as_primitive_opt::<Int16Type>()?),
            Wire::Int4 => Self::Int4(array.as_primitive_opt::<Int32Type>()?),
            Wire::Int8 => Self::Int8(array.as_primitive_opt::<Int64Type>()?),
            Wire::Float4 => Self::Float4(array.as_primitive_opt::<Float32Type>()?),
            Wire::Float8 => Self::Float8(array.as_primitive_opt::<Float64Type>()?),
            Wire::Numeric(_) => match array.data_type() {
                DataType::Decimal128(_, scale) => {
                    let values = array.as_primitive_opt::<Decimal128Type>()?;
                    u8::try_from(*scale)
                        .map_or(Self::WholeDecimal(values), |scale| Self::Decimal(values, scale))
                }
                _ => Self::NumericText(array.as_string_opt()?, limit.scale),
            },
            Wire::Text if limit.postgis => Self::PostGis(array.as_string_opt()?),
            // The binary form of json is its text.
            Wire::Text | Wire::Json => Self::Text(array.as_string_opt()?, limit.scale),
            Wire::Pairs if limit.hstore => Self::Hstore(array.as_string_opt()?),
            Wire::Pairs => Self::Text(array.as_string_opt()?, None),
            Wire::Uuid => Self::Uuid(array.as_string_opt()?),
            Wire::Jsonb => Self::Jsonb(array.as_string_opt()?),
            Wire::Bytea => Self::Bytea(array.as_binary_opt()?),
            Wire::Date => Self::Date(array.as_primitive_opt::<Date32Type>()?),
            Wire::Time => Self::Time(array.as_primitive_opt::<Int64Type>()?, limit.step.max(1)),
            Wire::Timestamp | Wire::Timestamptz => {
                Self::Timestamp(array.as_primitive_opt::<TimestampMicrosecondType>()?, limit.step.max(1))
            }
            Wire::Interval => Self::Interval(array.as_primitive_opt::<Int64Type>()?, limit.step.max(1)),
            Wire::Array(element) => {
                let lists = array.as_list_opt()?;
                Self::Array(lists, Box::new(Self::of(element, limit, lists.values())?), element.oid())
            }
        })
    }

    /// The same, watched for texts with a NUL where there are some.
    pub(super) fn with_nul_watched(self) -> Self {
        if self.hold_nul() { Self::NulSomewhere(Box::new(self)) } else { self }
    }
}

/// Writes the length -1 and leaves where the cell is null.
macro_rules! value_or_null {
    ($array:expr, $row:expr, $out:expr) => {{
        if $array.is_null($row) {
            $out.put_i32(NULL);
            return Ok(());
        }
        $array.value($row)
    }};
}

impl Cells<'_> {
    /// Whether a text among them has a NUL, which Postgres' texts cannot.
    fn hold_nul(&self) -> bool {
        match self {
            Self::Text(text, _) | Self::Jsonb(text) | Self::Hstore(text) | Self::PostGis(text) => {
                memchr::memchr(0, text.value_data()).is_some()
            }
            Self::Array(_, elements, _) => elements.hold_nul(),
            _ => false,
        }
    }

    fn holds_nul_at(&self, row: usize) -> bool {
        match self {
            Self::Text(text, _) | Self::Jsonb(text) | Self::Hstore(text) | Self::PostGis(text) => {
                text.is_valid(row) && memchr::memchr(0, text.value(row).as_bytes()).is_some()
            }
            Self::Array(lists, elements, _) => {
                let ends = lists.value_offsets();
                let range = ends.get(row).zip(ends.get(row + 1)).map(|(from, to)| *from..*to);
                range.is_some_and(|range| {
                    range.into_iter().any(|at| usize::try_from(at).is_ok_and(|at| elements.holds_nul_at(at)))
                })
            }
            _ => false,
        }
    }

    pub(super) fn put(&self, row: usize, out: &mut BytesMut) -> Result<(), &'static str> {
        match self {
            Self::Bool(array) => put_fixed(out, [u8::from(value_or_null!(array, row, out))]),
            Self::Int2(array) => put_fixed(out, value_or_null!(array, row, out).to_be_bytes()),
            Self::Int4(array) => put_fixed(out, value_or_null!(array, row, out).to_be_bytes()),
            Self::Int8(array) => put_fixed(out, value_or_null!(array, row, out).to_be_bytes()),
            Self::Float4(array) => put_fixed(out, value_or_null!(array, row, out).to_be_bytes()),
            Self::Float8(array) => put_fixed(out, value_or_null!(array, row, out).to_be_bytes()),
            Self::Decimal(array, scale) => numeric::put_decimal(out, value_or_null!(array, row, out), *scale),
            Self::WholeDecimal(array) => {
                let _ = value_or_null!(array, row, out);
                numeric::put_text(out, &array.value_as_string(row), None)?;
            }
            Self::NumericText(array, scale) => {
                numeric::put_text(out, value_or_null!(array, row, out), *scale)?;
            }
            Self::Text(array, digits) => put_text(out, value_or_null!(array, row, out), *digits)?,
            Self::NulSomewhere(cells) => {
                if cells.holds_nul_at(row) {
                    return Err("Postgres cannot store the character U+0000 in text");
                }
                cells.put(row, out)?;
            }
            Self::Hstore(array) => {
                let text =
                    pairs::hstore(value_or_null!(array, row, out)).ok_or("text is not JSON of pairs")?;
                put_bytes(out, text.as_bytes())?;
            }
            Self::PostGis(array) => {
                put_bytes(out, postgis::input(value_or_null!(array, row, out)).as_bytes())?;
            }
            Self::Bytea(array) => put_bytes(out, value_or_null!(array, row, out))?,
            Self::Uuid(array) => put_uuid(out, value_or_null!(array, row, out))?,
            Self::Jsonb(array) => put_jsonb(out, value_or_null!(array, row, out))?,
            Self::Date(array) => put_fixed(out, date(value_or_null!(array, row, out))?.to_be_bytes()),
            Self::Time(array, step) => {
                let micros = value_or_null!(array, row, out);
                put_fixed(out, whole_steps(micros, *step)?.to_be_bytes());
            }
            Self::Timestamp(array, step) => {
                let micros = timestamp(value_or_null!(array, row, out), *step)?;
                put_fixed(out, micros.to_be_bytes());
            }
            Self::Interval(array, step) => {
                put_interval(out, whole_steps(value_or_null!(array, row, out), *step)?);
            }
            Self::Array(lists, elements, oid) => put_array(out, lists, row, elements, *oid)?,
        }
        Ok(())
    }
}

const TOO_LONG: &str = "a value is longer than 1 GiB";

pub(super) fn put_fixed<const N: usize>(out: &mut BytesMut, bytes: [u8; N]) {
    out.put_i32(N as i32);
    out.put_slice(&bytes);
}

pub(super) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) -> Result<(), &'static str> {
    out.put_i32(i32::try_from(bytes.len()).map_err(|_| TOO_LONG)?);
    out.put_slice(bytes);
    Ok(())
}

fn put_text(out: &mut BytesMut, text: &str, digits: Option<u16>) -> Result<(), &'static str> {
    if digits.is_some_and(|digits| !has_fraction_of(text, digits)) {
        return Err("the text has more digits behind the point than the column keeps");
    }
    put_bytes(out, text.as_bytes())
}

fn put_uuid(out: &mut BytesMut, text: &str) -> Result<(), &'static str> {
    let uuid = uuid::Uuid::try_parse(text).map_err(|_| "text is not a UUID")?;
    put_fixed(out, uuid.into_bytes());
    Ok(())
}

fn put_jsonb(out: &mut BytesMut, text: &str) -> Result<(), &'static str> {
    out.put_i32(i32::try_from(text.len() + 1).map_err(|_| TOO_LONG)?);
    out.put_u8(JSONB_VERSION);
    out.put_slice(text.as_bytes());
    Ok(())
}

/// Microseconds, days, months.
fn put_interval(out: &mut BytesMut, micros: i64) {
    out.put_i32(16);
    out.put_i64(micros);
    out.put_u64(0);
}

fn date(days: i32) -> Result<i32, &'static str> {
    match days {
        i32::MAX | i32::MIN => Ok(days),
        _ => days.checked_sub(EPOCH_DAYS).ok_or("the date is out of range"),
    }
}

pub(super) fn timestamp(micros: i64, step: i64) -> Result<i64, &'static str> {
    match micros {
        i64::MAX | i64::MIN => Ok(micros),
        _ => whole_steps(micros, step)?.checked_sub(EPOCH_MICROS).ok_or("the timestamp is out of range"),
    }
}

fn whole_steps(micros: i64, step: i64) -> Result<i64, &'static str> {
    if step > 1 && micros % step != 0 {
        return Err("the time has more digits behind the second than the column keeps");
    }
    Ok(micros)
}

/// Whether the digits behind the point, but for zeros at their end, are at most so many. With an exponent it is not known.
fn has_fraction_of(text: &str, digits: u16) -> bool {
    let Some((_, fraction)) = text.split_once('.') else { return true };
    let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
    let (fraction, rest) = fraction.split_at(end);
    fraction.trim_end_matches('0').len() <= usize::from(digits) && !rest.starts_with(['e', 'E'])
}

/// Dimensions, flags, element type, size and lower bound of the only dimension, then the elements (`array_send`).
fn put_array(
    out: &mut BytesMut,
    lists: &ListArray,
    row: usize,
    elements: &Cells<'_>,
    oid: u32,
) -> Result<(), &'static str> {
    if lists.is_null(row) {
        out.put_i32(NULL);
        return Ok(());
    }
    let bounds = lists.value_offsets().get(row..=row + 1).and_then(|ends| <[i32; 2]>::try_from(ends).ok());
    let [first, end] = bounds.ok_or("the column has no such row")?;
    let start = out.len();
    out.put_i32(0);
    out.put_i32(i32::from(first < end));
    let nulls = (first..end).any(|element| lists.values().is_null(element as usize));
    out.put_i32(i32::from(nulls));
    out.put_u32(oid);
    if first < end {
        out.put_i32(end - first);
        out.put_i32(1);
    }
    for element in first..end {
        elements.put(element as usize, out)?;
    }
    set_length(out, start)
}

/// Fills in the length of the field that began at `start`.
fn set_length(out: &mut BytesMut, start: usize) -> Result<(), &'static str> {
    let length = i32::try_from(out.len() - start - 4).map_err(|_| TOO_LONG)?;
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_of_a_text_are_counted_behind_the_point() {
        for (text, digits, fits) in [
            ("12:34:56.789+02", 3, true),
            ("12:34:56.789000+02", 3, true),
            ("12:34:56.7891+02", 3, false),
            ("P1DT0.5S", 0, false),
            ("12", 0, true),
            ("1.5e3", 6, false),
        ] {
            assert_eq!(has_fraction_of(text, digits), fits, "{text} {digits}");
        }
    }
}
