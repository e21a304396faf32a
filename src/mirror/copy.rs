//! Arrow columns → rows of Postgres' binary COPY.
//!
//! The form: a header, then for each row a field count and for each field length and bytes, big endian, and -1 at the
//! end (<https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format"). Dates and times count from
//! 2000-01-01. The largest and smallest `i64` of a timestamp, and `i32` of a date, mean `infinity` and `-infinity`, as
//! they do in Postgres.
//!
//! Invariant: what Postgres would change without a word (rounding, a NUL that ends a text) is an error here.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, ListArray, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use bytes::{BufMut, BytesMut};

use super::absent::{ABSENT, Absent, ORIGINS, ROW};
use super::assign::Limit;
use super::types::Wire;
use super::{numeric, pairs};
use crate::change::Operation;

/// Signature, flags and length of the header extension.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The end of the data.
pub(super) const TRAILER: &[u8] = &[0xff, 0xff];
/// From 1970-01-01 to 2000-01-01.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = 946_684_800_000_000;
const NULL: i32 = -1;
const JSONB_VERSION: u8 = 1;

/// The values of one field.
enum Cells<'a> {
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
    Operations(&'a [Operation]),
    SourceTimes(&'a [i64]),
    AbsentRow(&'a Absent<'a>),
    AbsentFields(&'a Absent<'a>),
    AbsentOrigins(&'a Absent<'a>),
    Instant(i64),
}

/// A value that Postgres cannot hold. The text never shows the value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("column {column}: {reason}")]
pub(super) struct EncodeError {
    column: String,
    reason: String,
    /// Whether it is the value, and not the column's type.
    pub(super) of_value: bool,
}

/// Writes rows as binary COPY.
#[derive(Default)]
pub(super) struct RowEncoder<'a> {
    fields: Vec<(&'a str, Cells<'a>)>,
}

impl<'a> RowEncoder<'a> {
    /// Adds a column, staged as `wire`.
    ///
    /// # Errors
    /// Where the Arrow type is not that of the column type.
    pub(super) fn column(
        &mut self,
        name: &'a str,
        wire: &Wire,
        limit: Limit,
        array: &'a ArrayRef,
    ) -> Result<(), EncodeError> {
        let refused = |reason: String| EncodeError { column: name.to_owned(), reason, of_value: false };
        let mut cells = cells(wire, limit, array).ok_or_else(|| {
            refused(format!("{} values cannot be written as {}", array.data_type(), wire.sql()))
        })?;
        if cells.hold_nul() {
            cells = Cells::NulSomewhere(Box::new(cells));
        }
        self.fields.push((name, cells));
        Ok(())
    }

    /// Adds the operation of each row as text.
    pub(super) fn operations(&mut self, operations: &'a [Operation]) {
        self.fields.push(("__cdc_operation", Cells::Operations(operations)));
    }

    /// Adds the commit time of each row, microseconds since 1970, 0 for unknown.
    pub(super) fn source_times(&mut self, micros: &'a [i64]) {
        self.fields.push(("__cdc_timestamp", Cells::SourceTimes(micros)));
    }

    /// Adds the columns that say which cells are absent.
    pub(super) fn absent(&mut self, absent: &'a Absent<'a>) {
        self.fields.push((ROW, Cells::AbsentRow(absent)));
        self.fields.push((ABSENT, Cells::AbsentFields(absent)));
        self.fields.push((ORIGINS, Cells::AbsentOrigins(absent)));
    }

    /// Adds one time for all rows, microseconds since 1970.
    pub(super) fn instant(&mut self, name: &'a str, micros: i64) {
        self.fields.push((name, Cells::Instant(micros)));
    }

    /// Appends a row.
    ///
    /// # Errors
    /// Where a value has no exact form in its column.
    pub(super) fn put_row(&self, row: usize, out: &mut BytesMut) -> Result<(), EncodeError> {
        out.put_i16(self.fields.len() as i16);
        for (name, cells) in &self.fields {
            cells.put(row, out).map_err(|reason| EncodeError {
                column: (*name).to_owned(),
                reason: reason.to_owned(),
                of_value: true,
            })?;
        }
        Ok(())
    }
}

fn cells<'a>(wire: &Wire, limit: Limit, array: &'a ArrayRef) -> Option<Cells<'a>> {
    Some(match wire {
        Wire::Bool => Cells::Bool(array.as_boolean_opt()?),
        Wire::Int2 => Cells::Int2(array.as_primitive_opt::<Int16Type>()?),
        Wire::Int4 => Cells::Int4(array.as_primitive_opt::<Int32Type>()?),
        Wire::Int8 => Cells::Int8(array.as_primitive_opt::<Int64Type>()?),
        Wire::Float4 => Cells::Float4(array.as_primitive_opt::<Float32Type>()?),
        Wire::Float8 => Cells::Float8(array.as_primitive_opt::<Float64Type>()?),
        Wire::Numeric(_) => match array.data_type() {
            DataType::Decimal128(_, scale) => {
                let values = array.as_primitive_opt::<Decimal128Type>()?;
                u8::try_from(*scale)
                    .map_or(Cells::WholeDecimal(values), |scale| Cells::Decimal(values, scale))
            }
            _ => Cells::NumericText(array.as_string_opt()?, limit.scale),
        },
        // The binary form of json is its text.
        Wire::Text | Wire::Json => Cells::Text(array.as_string_opt()?, limit.scale),
        Wire::Pairs if limit.hstore => Cells::Hstore(array.as_string_opt()?),
        Wire::Pairs => Cells::Text(array.as_string_opt()?, None),
        Wire::Uuid => Cells::Uuid(array.as_string_opt()?),
        Wire::Jsonb => Cells::Jsonb(array.as_string_opt()?),
        Wire::Bytea => Cells::Bytea(array.as_binary_opt()?),
        Wire::Date => Cells::Date(array.as_primitive_opt::<Date32Type>()?),
        Wire::Time => Cells::Time(array.as_primitive_opt::<Int64Type>()?, limit.step.max(1)),
        Wire::Timestamp | Wire::Timestamptz => {
            Cells::Timestamp(array.as_primitive_opt::<TimestampMicrosecondType>()?, limit.step.max(1))
        }
        Wire::Interval => Cells::Interval(array.as_primitive_opt::<Int64Type>()?, limit.step.max(1)),
        Wire::Array(element) => {
            let lists = array.as_list_opt()?;
            Cells::Array(lists, Box::new(cells(element, limit, lists.values())?), element.oid())
        }
    })
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
            Self::Text(text, _) | Self::Jsonb(text) | Self::Hstore(text) => {
                memchr::memchr(0, text.value_data()).is_some()
            }
            Self::Array(_, elements, _) => elements.hold_nul(),
            _ => false,
        }
    }

    fn holds_nul_at(&self, row: usize) -> bool {
        match self {
            Self::Text(text, _) | Self::Jsonb(text) | Self::Hstore(text) => {
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

    fn put(&self, row: usize, out: &mut BytesMut) -> Result<(), &'static str> {
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
            Self::Text(array, None) => put_bytes(out, value_or_null!(array, row, out).as_bytes())?,
            Self::Text(array, Some(digits)) => {
                let text = value_or_null!(array, row, out);
                if !has_fraction_of(text, *digits) {
                    return Err("the text has more digits behind the point than the column keeps");
                }
                put_bytes(out, text.as_bytes())?;
            }
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
            Self::Bytea(array) => put_bytes(out, value_or_null!(array, row, out))?,
            Self::Uuid(array) => {
                let uuid = uuid::Uuid::try_parse(value_or_null!(array, row, out))
                    .map_err(|_| "text is not a UUID")?;
                put_fixed(out, uuid.into_bytes());
            }
            Self::Jsonb(array) => {
                let text = value_or_null!(array, row, out);
                out.put_i32(i32::try_from(text.len() + 1).map_err(|_| TOO_LONG)?);
                out.put_u8(JSONB_VERSION);
                out.put_slice(text.as_bytes());
            }
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
                let micros = whole_steps(value_or_null!(array, row, out), *step)?;
                // Microseconds, days, months.
                out.put_i32(16);
                out.put_i64(micros);
                out.put_u64(0);
            }
            Self::Array(lists, elements, oid) => {
                if lists.is_null(row) {
                    out.put_i32(NULL);
                    return Ok(());
                }
                put_array(out, lists, row, elements, *oid)?;
            }
            Self::Operations(operations) => {
                put_bytes(out, operations.get(row).map_or("", |operation| operation.code()).as_bytes())?;
            }
            Self::SourceTimes(micros) => match micros.get(row) {
                None | Some(0) => out.put_i32(NULL),
                Some(micros) => put_fixed(out, timestamp(*micros, 1)?.to_be_bytes()),
            },
            Self::AbsentRow(absent) => absent.put_row_number(row, out),
            Self::AbsentFields(absent) => absent.put_fields(row, out),
            Self::AbsentOrigins(absent) => absent.put_origins(row, out),
            Self::Instant(micros) => put_fixed(out, timestamp(*micros, 1)?.to_be_bytes()),
        }
        Ok(())
    }
}

const TOO_LONG: &str = "a value is longer than 1 GiB";

fn put_fixed<const N: usize>(out: &mut BytesMut, bytes: [u8; N]) {
    out.put_i32(N as i32);
    out.put_slice(&bytes);
}

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) -> Result<(), &'static str> {
    out.put_i32(i32::try_from(bytes.len()).map_err(|_| TOO_LONG)?);
    out.put_slice(bytes);
    Ok(())
}

fn date(days: i32) -> Result<i32, &'static str> {
    match days {
        i32::MAX | i32::MIN => Ok(days),
        _ => days.checked_sub(EPOCH_DAYS).ok_or("the date is out of range"),
    }
}

fn timestamp(micros: i64, step: i64) -> Result<i64, &'static str> {
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
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;

    /// The bytes of one row, without the field count.
    fn encoded(wire: &Wire, limit: Limit, array: &ArrayRef) -> Result<Vec<u8>, String> {
        let mut encoder = RowEncoder::default();
        encoder.column("c", wire, limit, array).map_err(|error| error.to_string())?;
        let mut out = BytesMut::new();
        encoder.put_row(0, &mut out).map_err(|error| error.to_string())?;
        assert_eq!(out.split_to(2).as_ref(), [0, 1]);
        Ok(out.to_vec())
    }

    fn exact(wire: &Wire, array: &ArrayRef) -> Vec<u8> {
        encoded(wire, Limit::default(), array).unwrap()
    }

    #[test]
    fn fixed_width_values_are_big_endian_behind_their_length() {
        assert_eq!(
            exact(&Wire::Bool, &(Arc::new(BooleanArray::from(vec![true])) as ArrayRef)),
            [0, 0, 0, 1, 1]
        );
        assert_eq!(
            exact(&Wire::Int2, &(Arc::new(Int16Array::from(vec![-2])) as ArrayRef)),
            [0, 0, 0, 2, 0xff, 0xfe]
        );
        assert_eq!(
            exact(&Wire::Int4, &(Arc::new(Int32Array::from(vec![258])) as ArrayRef)),
            [0, 0, 0, 4, 0, 0, 1, 2]
        );
        assert_eq!(
            exact(&Wire::Float4, &(Arc::new(Float32Array::from(vec![1.0])) as ArrayRef)),
            [0, 0, 0, 4, 0x3f, 0x80, 0, 0]
        );
    }

    #[test]
    fn null_is_a_length_of_minus_one() {
        assert_eq!(
            exact(&Wire::Text, &(Arc::new(StringArray::from(vec![None::<&str>])) as ArrayRef)),
            [0xff; 4]
        );
    }

    #[test]
    fn jsonb_has_a_version_before_its_text() {
        let bytes = exact(&Wire::Jsonb, &(Arc::new(StringArray::from(vec!["[]"])) as ArrayRef));
        assert_eq!(bytes, [0, 0, 0, 3, 1, b'[', b']']);
    }

    #[test]
    fn times_count_from_2000_and_keep_infinity() {
        let at = |micros| Arc::new(TimestampMicrosecondArray::from(vec![micros])) as ArrayRef;
        assert_eq!(exact(&Wire::Timestamp, &at(EPOCH_MICROS)).get(4..).unwrap(), [0; 8]);
        assert_eq!(exact(&Wire::Timestamp, &at(i64::MAX)).get(4..).unwrap(), i64::MAX.to_be_bytes());
        assert_eq!(exact(&Wire::Timestamp, &at(i64::MIN)).get(4..).unwrap(), i64::MIN.to_be_bytes());
        let error = encoded(&Wire::Timestamp, Limit::default(), &at(i64::MIN + 1)).unwrap_err();
        assert_eq!(error, "column c: the timestamp is out of range");
        let day = |days| Arc::new(Date32Array::from(vec![days])) as ArrayRef;
        assert_eq!(exact(&Wire::Date, &day(EPOCH_DAYS)).get(4..).unwrap(), [0; 4]);
        assert_eq!(exact(&Wire::Date, &day(i32::MAX)).get(4..).unwrap(), i32::MAX.to_be_bytes());
    }

    #[test]
    fn a_time_finer_than_its_column_is_refused() {
        let array: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1_500]));
        let limit = Limit { step: 1000, ..Limit::default() };
        let error = encoded(&Wire::Timestamp, limit, &array).unwrap_err();
        assert_eq!(error, "column c: the time has more digits behind the second than the column keeps");
    }

    #[test]
    fn a_nul_in_text_is_refused_with_its_column() {
        let error =
            encoded(&Wire::Text, Limit::default(), &(Arc::new(StringArray::from(vec!["a\0b"])) as ArrayRef))
                .unwrap_err();
        assert_eq!(error, "column c: Postgres cannot store the character U+0000 in text");
    }

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

    #[test]
    fn an_array_has_one_dimension_that_begins_at_one_and_its_nulls_flagged() {
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(7), None]), None]);
        let array: ArrayRef = Arc::new(lists);
        let wire = Wire::Array(Box::new(Wire::Int4));
        let mut encoder = RowEncoder::default();
        encoder.column("c", &wire, Limit::default(), &array).unwrap();
        let (mut first, mut second) = (BytesMut::new(), BytesMut::new());
        encoder.put_row(0, &mut first).unwrap();
        encoder.put_row(1, &mut second).unwrap();
        let mut expected = vec![0, 1, 0, 0, 0, 32];
        for word in [1, 1, 23, 2, 1, 4, 7, NULL] {
            expected.extend_from_slice(&i32::to_be_bytes(word));
        }
        assert_eq!(first.to_vec(), expected);
        assert_eq!(second.as_ref(), [0, 1, 0xff, 0xff, 0xff, 0xff]);
    }

    #[test]
    fn a_span_has_microseconds_and_neither_days_nor_months() {
        let array: ArrayRef = Arc::new(Int64Array::from(vec![-2]));
        let mut expected = vec![0, 0, 0, 16];
        expected.extend_from_slice(&i64::to_be_bytes(-2));
        expected.extend_from_slice(&[0; 8]);
        assert_eq!(exact(&Wire::Interval, &array), expected);
    }
}
