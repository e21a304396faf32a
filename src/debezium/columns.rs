//! Arrow columns that grow by one cell and can be cut back.
//!
//! A record either becomes a row in all columns or in none. Arrow's own builders cannot take a value back, so these
//! keep plain vectors: [`Column::truncate`] undoes a row that turned out bad half way, and [`Column::finish`] hands the
//! vectors to Arrow without copying them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, ListArray, NullBufferBuilder, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

/// A column is full: its text would pass the 2 GiB that 32-bit offsets can address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// The values of a column, by their representation in memory. A null has a zero or an empty string in its place.
#[derive(Debug)]
enum Values {
    Boolean(BooleanBufferBuilder),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Int128(Vec<i128>),
    Variable(Variable),
    List(Box<List>),
}

/// The elements of lists, one list behind the other.
#[derive(Debug)]
struct List {
    ends: Vec<i32>,
    elements: Column,
}

/// Strings or byte strings, one behind the other.
#[derive(Debug)]
struct Variable {
    ends: Vec<i32>,
    bytes: Vec<u8>,
}

impl Variable {
    #[inline]
    fn close(&mut self) -> Result<(), Full> {
        let end = i32::try_from(self.bytes.len()).map_err(|_| Full)?;
        self.ends.push(end);
        Ok(())
    }
}

/// A growing column of one Arrow type, with the mask of its absent cells.
#[derive(Debug)]
pub(super) struct Column {
    data_type: DataType,
    values: Values,
    valid: NullBufferBuilder,
    absent: Option<BooleanBufferBuilder>,
    len: usize,
}

impl Column {
    /// An empty column. The type is one that [`crate::change::ColumnType::arrow`] returns; any other one makes a column
    /// that takes nulls only.
    pub(super) fn new(data_type: DataType) -> Self {
        let values = match &data_type {
            DataType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 | DataType::Date32 => Values::Int32(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Decimal128(..) => Values::Int128(Vec::new()),
            DataType::Utf8 | DataType::Binary => {
                Values::Variable(Variable { ends: vec![0], bytes: Vec::new() })
            }
            DataType::List(element) => {
                let elements = Self::new(element.data_type().clone());
                Values::List(Box::new(List { ends: vec![0], elements }))
            }
            _ => Values::Int64(Vec::new()),
        };
        Self { data_type, values, valid: NullBufferBuilder::new(0), absent: None, len: 0 }
    }

    /// Number of cells.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether the cell is absent.
    pub(super) fn is_absent(&self, index: usize) -> bool {
        self.absent.as_ref().is_some_and(|mask| index < mask.len() && mask.get_bit(index))
    }

    /// Whether the cell, which must be there, has a value: it is neither null nor absent.
    pub(super) fn is_valid(&self, index: usize) -> bool {
        self.valid.is_valid(index)
    }

    #[inline]
    fn valid_cell(&mut self) {
        self.valid.append_non_null();
        self.len += 1;
    }

    #[inline]
    pub(super) fn push_bool(&mut self, value: bool) -> Option<()> {
        let Values::Boolean(values) = &mut self.values else { return None };
        values.append(value);
        self.valid_cell();
        Some(())
    }

    #[inline]
    pub(super) fn push_i16(&mut self, value: i16) -> Option<()> {
        let Values::Int16(values) = &mut self.values else { return None };
        values.push(value);
        self.valid_cell();
        Some(())
    }

    #[inline]
    pub(super) fn push_i32(&mut self, value: i32) -> Option<()> {
        let Values::Int32(values) = &mut self.values else { return None };
        values.push(value);
        self.valid_cell();
        Some(())
    }

    #[inline]
    pub(super) fn push_i64(&mut self, value: i64) -> Option<()> {
        let Values::Int64(values) = &mut self.values else { return None };
        values.push(value);
        self.valid_cell();
        Some(())
    }

    #[inline]
    pub(super) fn push_i128(&mut self, value: i128) -> Option<()> {
        let Values::Int128(values) = &mut self.values else { return None };
        values.push(value);
        self.valid_cell();
        Some(())
    }

    #[inline]
    pub(super) fn push_f32(&mut self, value: f32) -> Option<()> {
        let Values::Float32(values) = &mut self.values else { return None };
        values.push(value);
        self.valid_cell();
        Some(())
    }

    #[inline]
    pub(super) fn push_f64(&mut self, value: f64) -> Option<()> {
        let Values::Float64(values) = &mut self.values else { return None };
        values.push(value);
        self.valid_cell();
        Some(())
    }

    /// Appends a text.
    #[inline]
    pub(super) fn push_str(&mut self, value: &str) -> Option<()> {
        self.push_with(|bytes| {
            bytes.extend_from_slice(value.as_bytes());
            Some(())
        })
    }

    /// Appends what `write` adds to the bytes of the column, or nothing where it answers `None`. Into a text column it
    /// must write UTF-8.
    #[inline]
    pub(super) fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Option<()>) -> Option<()> {
        let Values::Variable(variable) = &mut self.values else { return None };
        let before = variable.bytes.len();
        if write(&mut variable.bytes).is_none() || variable.close().is_err() {
            variable.bytes.truncate(before);
            return None;
        }
        self.valid_cell();
        Some(())
    }

    /// Appends a list of what `write` adds to the column of its elements, or nothing where it answers `None`.
    pub(super) fn push_list(&mut self, write: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        let Values::List(list) = &mut self.values else { return None };
        let before = list.elements.len();
        let end = write(&mut list.elements).and_then(|()| i32::try_from(list.elements.len()).ok());
        let Some(end) = end else {
            list.elements.truncate(before);
            return None;
        };
        list.ends.push(end);
        self.valid_cell();
        Some(())
    }

    /// Appends a null.
    #[inline]
    pub(super) fn push_null(&mut self) {
        match &mut self.values {
            Values::Boolean(values) => values.append(false),
            Values::Int16(values) => values.push(0),
            Values::Int32(values) => values.push(0),
            Values::Int64(values) => values.push(0),
            Values::Float32(values) => values.push(0.0),
            Values::Float64(values) => values.push(0.0),
            Values::Int128(values) => values.push(0),
            Values::Variable(variable) => {
                let end = variable.ends.last().copied().unwrap_or(0);
                variable.ends.push(end);
            }
            Values::List(list) => {
                let end = list.ends.last().copied().unwrap_or(0);
                list.ends.push(end);
            }
        }
        self.valid.append_null();
        self.len += 1;
    }

    /// Appends a null that means "unchanged".
    pub(super) fn push_absent(&mut self) {
        let mask = self.absent.get_or_insert_with(|| BooleanBufferBuilder::new(0));
        mask.append_n(self.len - mask.len(), false);
        mask.append(true);
        self.push_null();
    }

    /// Cuts the column back to `len` cells.
    pub(super) fn truncate(&mut self, len: usize) {
        if len >= self.len {
            return;
        }
        match &mut self.values {
            Values::Boolean(values) => values.truncate(len),
            Values::Int16(values) => values.truncate(len),
            Values::Int32(values) => values.truncate(len),
            Values::Int64(values) => values.truncate(len),
            Values::Float32(values) => values.truncate(len),
            Values::Float64(values) => values.truncate(len),
            Values::Int128(values) => values.truncate(len),
            Values::Variable(variable) => {
                variable.ends.truncate(len + 1);
                let end = variable.ends.last().copied().unwrap_or(0);
                variable.bytes.truncate(usize::try_from(end).unwrap_or(0));
            }
            Values::List(list) => {
                list.ends.truncate(len + 1);
                let end = list.ends.last().copied().unwrap_or(0);
                list.elements.truncate(usize::try_from(end).unwrap_or(0));
            }
        }
        self.valid.truncate(len);
        if let Some(mask) = &mut self.absent
            && mask.len() > len
        {
            mask.truncate(len);
        }
        self.len = len;
    }

    /// The array and the mask of absent cells (`None` where no cell is absent).
    pub(super) fn finish(mut self) -> Result<(ArrayRef, Option<BooleanBuffer>), ArrowError> {
        let len = self.len;
        let absent = self.absent.take().map(|mut mask| {
            mask.append_n(len - mask.len(), false);
            mask.finish()
        });
        let absent = absent.filter(|mask| mask.count_set_bits() > 0);
        let nulls = self.valid.finish();
        Ok((self.values.into_array(&self.data_type, nulls, len)?, absent))
    }
}

impl Values {
    fn into_array(
        self,
        data_type: &DataType,
        nulls: Option<NullBuffer>,
        len: usize,
    ) -> Result<ArrayRef, ArrowError> {
        Ok(match (self, data_type) {
            (Self::Boolean(mut values), _) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            (Self::Int16(values), _) => Arc::new(Int16Array::try_new(values.into(), nulls)?),
            (Self::Int32(values), DataType::Date32) => Arc::new(Date32Array::try_new(values.into(), nulls)?),
            (Self::Int32(values), _) => Arc::new(Int32Array::try_new(values.into(), nulls)?),
            (Self::Int64(values), DataType::Timestamp(_, zone)) => Arc::new(
                TimestampMicrosecondArray::try_new(values.into(), nulls)?.with_timezone_opt(zone.clone()),
            ),
            (Self::Int64(values), DataType::Int64) => Arc::new(Int64Array::try_new(values.into(), nulls)?),
            (Self::Float32(values), _) => Arc::new(Float32Array::try_new(values.into(), nulls)?),
            (Self::Float64(values), _) => Arc::new(Float64Array::try_new(values.into(), nulls)?),
            (Self::Int128(values), DataType::Decimal128(precision, scale)) => Arc::new(
                Decimal128Array::try_new(values.into(), nulls)?
                    .with_precision_and_scale(*precision, *scale)?,
            ),
            (Self::List(list), DataType::List(element)) => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(list.ends));
                let (elements, _) = list.elements.finish()?;
                Arc::new(ListArray::try_new(Arc::clone(element), offsets, elements, nulls)?)
            }
            (Self::Int64(_) | Self::Int128(_) | Self::List(_), other) => new_null_array(other, len),
            (Self::Variable(variable), data_type) => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(variable.ends));
                let bytes = Buffer::from_vec(variable.bytes);
                if *data_type == DataType::Binary {
                    Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?)
                } else {
                    Arc::new(StringArray::try_new(offsets, bytes, nulls)?)
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use arrow::array::Array;

    use super::*;

    #[test]
    fn a_cut_column_equals_one_that_never_had_the_row() {
        for data_type in [DataType::Utf8, DataType::Binary] {
            let mut column = Column::new(data_type);
            column.push_str("a").unwrap();
            column.push_absent();
            column.push_str("discarded").unwrap();
            column.push_absent();
            column.truncate(2);
            column.push_str("b").unwrap();
            let (array, absent) = column.finish().unwrap();
            assert_eq!(array.len(), 3);
            assert_eq!(array.null_count(), 1);
            let absent: Vec<bool> = absent.unwrap().iter().collect();
            assert_eq!(absent, [false, true, false]);
        }
    }

    #[test]
    fn a_list_that_fails_half_way_leaves_no_element() {
        let element = arrow::datatypes::Field::new("element", DataType::Int32, true);
        let mut column = Column::new(DataType::List(Arc::new(element)));
        column.push_list(|elements| elements.push_i32(1)).unwrap();
        let half = column.push_list(|elements| {
            elements.push_i32(2)?;
            elements.push_str("no number")
        });
        assert_eq!(half, None);
        column.push_absent();
        column.push_list(|_| Some(())).unwrap();
        column.push_list(|elements| elements.push_i32(3)).unwrap();
        column.truncate(3);
        let (array, absent) = column.finish().unwrap();
        let lists = array.as_any().downcast_ref::<ListArray>().unwrap();
        let lengths: Vec<Option<usize>> =
            lists.iter().map(|list| list.map(|elements| elements.len())).collect();
        assert_eq!(lengths, [Some(1), None, Some(0)]);
        assert_eq!(lists.values().len(), 1);
        assert_eq!(absent.unwrap().iter().collect::<Vec<_>>(), [false, true, false]);
    }

    #[test]
    fn a_value_of_another_representation_is_refused_and_leaves_nothing() {
        let mut column = Column::new(DataType::Int32);
        assert_eq!(column.push_str("x"), None);
        assert_eq!(column.push_i64(1), None);
        assert_eq!(column.len(), 0);
    }
}
