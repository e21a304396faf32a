//! Arrow columns → rows of Postgres' binary COPY.
//!
//! The form: a header, then for each row a field count and for each field length and bytes, big endian, and -1 at the
//! end (<https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format"). What a value looks like is said by
//! [`cells`](super::cells).
//!
//! Invariant: a value that has no exact form ends the row with an error that names its column and never shows the value.

use arrow::array::ArrayRef;
use bytes::{BufMut, BytesMut};

use super::absent::{ABSENT, Absent, ORIGINS, ROW};
use super::assign::Limit;
use super::cells::{Cells, NULL, put_bytes, put_fixed, timestamp};
use super::types::Wire;
use crate::change::Operation;

/// Signature, flags and length of the header extension.
pub(super) const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The end of the data.
pub(super) const TRAILER: &[u8] = &[0xff, 0xff];

/// A value that Postgres cannot hold. The text never shows the value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("column {column}: {reason}")]
pub(super) struct EncodeError {
    column: String,
    reason: String,
    /// Whether it is the value, and not the column's type.
    pub(super) of_value: bool,
}

/// What one field of the rows holds.
enum Field<'a> {
    Column(Cells<'a>),
    Operations(&'a [Operation]),
    SourceTimes(&'a [i64]),
    AbsentRow(&'a Absent<'a>),
    AbsentFields(&'a Absent<'a>),
    AbsentOrigins(&'a Absent<'a>),
    Instant(i64),
}

impl Field<'_> {
    fn put(&self, row: usize, out: &mut BytesMut) -> Result<(), &'static str> {
        match self {
            Self::Column(cells) => cells.put(row, out)?,
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

/// Writes rows as binary COPY.
#[derive(Default)]
pub(super) struct RowEncoder<'a> {
    fields: Vec<(&'a str, Field<'a>)>,
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
        let cells = Cells::of(wire, limit, array).ok_or_else(|| {
            refused(format!("{} values cannot be written as {}", array.data_type(), wire.sql()))
        })?;
        self.fields.push((name, Field::Column(cells.with_nul_watched())));
        Ok(())
    }

    /// Adds the operation of each row as text.
    pub(super) fn operations(&mut self, operations: &'a [Operation]) {
        self.fields.push(("__cdc_operation", Field::Operations(operations)));
    }

    /// Adds the commit time of each row, microseconds since 1970, 0 for unknown.
    pub(super) fn source_times(&mut self, micros: &'a [i64]) {
        self.fields.push(("__cdc_timestamp", Field::SourceTimes(micros)));
    }

    /// Adds the columns that say which cells are absent.
    pub(super) fn absent(&mut self, absent: &'a Absent<'a>) {
        self.fields.push((ROW, Field::AbsentRow(absent)));
        self.fields.push((ABSENT, Field::AbsentFields(absent)));
        self.fields.push((ORIGINS, Field::AbsentOrigins(absent)));
    }

    /// Adds one time for all rows, microseconds since 1970.
    pub(super) fn instant(&mut self, name: &'a str, micros: i64) {
        self.fields.push((name, Field::Instant(micros)));
    }

    /// Appends a row.
    ///
    /// # Errors
    /// Where a value has no exact form in its column.
    pub(super) fn put_row(&self, row: usize, out: &mut BytesMut) -> Result<(), EncodeError> {
        out.put_i16(self.fields.len() as i16);
        for (name, field) in &self.fields {
            field.put(row, out).map_err(|reason| EncodeError {
                column: (*name).to_owned(),
                reason: reason.to_owned(),
                of_value: true,
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Date32Array, Float32Array, Int16Array, Int32Array, Int64Array, ListArray, StringArray,
        TimestampMicrosecondArray,
    };
    use arrow::datatypes::Int32Type;

    use super::super::cells::{EPOCH_DAYS, EPOCH_MICROS};
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
