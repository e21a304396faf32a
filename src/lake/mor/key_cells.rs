//! The bytes of a key's values.
//!
//! A key has the values of its columns alone, one behind the other: fixed widths as they are, others with their length
//! before them, so that no two keys have the same bytes. Where the whole row is the key, each value has its column's name and
//! its kind with it: values of one kind have one form, whatever the width of their column, and a null has none.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow::error::ArrowError;

/// A key column by its type.
pub(super) enum Cells<'a> {
    Boolean(&'a BooleanArray),
    Int16(&'a arrow::array::Int16Array),
    Int32(&'a arrow::array::Int32Array),
    Int64(&'a arrow::array::Int64Array),
    Float32(&'a arrow::array::Float32Array),
    Float64(&'a arrow::array::Float64Array),
    Date(&'a arrow::array::Date32Array),
    Time(&'a arrow::array::TimestampMicrosecondArray),
    Decimal(&'a arrow::array::Decimal128Array),
    Text(&'a arrow::array::StringArray),
    Binary(&'a arrow::array::BinaryArray),
    List(&'a ListArray, Box<Self>),
}

impl<'a> Cells<'a> {
    pub(super) fn of(column: &'a ArrayRef) -> Result<Self, ArrowError> {
        Ok(match column.data_type() {
            DataType::Boolean => Self::Boolean(column.as_boolean()),
            DataType::Int16 => Self::Int16(column.as_primitive::<Int16Type>()),
            DataType::Int32 => Self::Int32(column.as_primitive::<Int32Type>()),
            DataType::Int64 => Self::Int64(column.as_primitive::<Int64Type>()),
            DataType::Float32 => Self::Float32(column.as_primitive::<Float32Type>()),
            DataType::Float64 => Self::Float64(column.as_primitive::<Float64Type>()),
            DataType::Date32 => Self::Date(column.as_primitive::<Date32Type>()),
            DataType::Timestamp(..) => Self::Time(column.as_primitive::<TimestampMicrosecondType>()),
            DataType::Decimal128(..) => Self::Decimal(column.as_primitive::<Decimal128Type>()),
            DataType::Utf8 => Self::Text(column.as_string::<i32>()),
            DataType::Binary => Self::Binary(column.as_binary::<i32>()),
            DataType::List(_) => {
                let lists = column.as_list::<i32>();
                Self::List(lists, Box::new(Self::of(lists.values())?))
            }
            other => return Err(ArrowError::NotYetImplemented(format!("{other} as part of a key"))),
        })
    }

    /// Appends the value of a row; `false` where it is null.
    pub(super) fn append(&self, row: usize, to: &mut Vec<u8>) -> bool {
        macro_rules! fixed {
            ($cells:expr) => {{
                if $cells.is_null(row) {
                    return false;
                }
                to.extend_from_slice(&$cells.value(row).to_le_bytes());
            }};
        }
        match self {
            Self::Boolean(cells) if cells.is_null(row) => return false,
            Self::Boolean(cells) => to.push(u8::from(cells.value(row))),
            Self::Int16(cells) => fixed!(cells),
            Self::Int32(cells) => fixed!(cells),
            Self::Int64(cells) => fixed!(cells),
            Self::Float32(cells) => fixed!(cells),
            Self::Float64(cells) => fixed!(cells),
            Self::Date(cells) => fixed!(cells),
            Self::Time(cells) => fixed!(cells),
            Self::Decimal(cells) => fixed!(cells),
            Self::Text(cells) if cells.is_null(row) => return false,
            Self::Text(cells) => counted(cells.value(row).as_bytes(), to),
            Self::Binary(cells) if cells.is_null(row) => return false,
            Self::Binary(cells) => counted(cells.value(row), to),
            Self::List(..) => {
                let before = to.len();
                self.with_kind(row, &mut |_, value| counted(value, to));
                return to.len() > before;
            }
        }
        true
    }
}

impl Cells<'_> {
    /// Appends name and value of a column in a row, or nothing where it is null.
    pub(super) fn append_named(&self, row: usize, name: &str, to: &mut Vec<u8>) {
        self.with_kind(row, &mut |kind, value| {
            counted(name.as_bytes(), to);
            to.push(kind);
            counted(value, to);
        });
    }

    /// Gives the value of a row in the form of its kind, or nothing where it is null.
    fn with_kind(&self, row: usize, tagged: &mut dyn FnMut(u8, &[u8])) {
        let integer = |value: i64| value.to_le_bytes();
        match self {
            Self::Boolean(cells) if cells.is_valid(row) => tagged(b'b', &[u8::from(cells.value(row))]),
            Self::Int16(cells) if cells.is_valid(row) => tagged(b'i', &integer(cells.value(row).into())),
            Self::Int32(cells) if cells.is_valid(row) => tagged(b'i', &integer(cells.value(row).into())),
            Self::Int64(cells) if cells.is_valid(row) => tagged(b'i', &integer(cells.value(row))),
            Self::Float32(cells) if cells.is_valid(row) => {
                tagged(b'f', &f64::from(cells.value(row)).to_le_bytes());
            }
            Self::Float64(cells) if cells.is_valid(row) => tagged(b'f', &cells.value(row).to_le_bytes()),
            Self::Date(cells) if cells.is_valid(row) => tagged(b'd', &integer(cells.value(row).into())),
            Self::Time(cells) if cells.is_valid(row) => tagged(b't', &integer(cells.value(row))),
            Self::Decimal(cells) if cells.is_valid(row) => {
                let (mut digits, mut scale) = (cells.value(row), i64::from(cells.scale()));
                while digits != 0 && digits % 10 == 0 {
                    (digits, scale) = (digits / 10, scale - 1);
                }
                let scale = if digits == 0 { 0 } else { scale };
                tagged(b'n', &[digits.to_le_bytes().as_slice(), &integer(scale)].concat());
            }
            Self::Text(cells) if cells.is_valid(row) => tagged(b's', cells.value(row).as_bytes()),
            Self::Binary(cells) if cells.is_valid(row) => tagged(b'x', cells.value(row)),
            Self::List(lists, elements) if lists.is_valid(row) => {
                let end = |at: usize| lists.value_offsets().get(at).map_or(0, |&end| end as usize);
                let mut bytes = Vec::new();
                for at in end(row)..end(row + 1) {
                    let before = bytes.len();
                    elements.with_kind(at, &mut |kind, value| {
                        bytes.push(kind);
                        counted(value, &mut bytes);
                    });
                    if bytes.len() == before {
                        bytes.push(0);
                    }
                }
                tagged(b'l', &bytes);
            }
            _ => {}
        }
    }
}

fn counted(value: &[u8], to: &mut Vec<u8>) {
    to.extend_from_slice(&(value.len() as u64).to_le_bytes());
    to.extend_from_slice(value);
}
