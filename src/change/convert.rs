//! Cells of one type as cells of another, each checked: what does not fit exactly is named, never bent.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, ListArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};

use super::{ColumnType, text_form};

const DAY: i64 = 86_400_000_000;

/// A cell that has no counterpart in the other type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Misfit {
    /// Its row.
    pub row: usize,
}

/// The cells of a column of type `from`, as `to`.
///
/// # Errors
/// The first cell that does not fit. Where there is no [`passage`](super::passage()), that is the first one with a value.
pub fn convert(cells: &ArrayRef, from: &ColumnType, to: &ColumnType) -> Result<ArrayRef, Misfit> {
    if from == to || (from.is_text() && to.is_text()) {
        return Ok(Arc::clone(cells));
    }
    if let (ColumnType::Array(from), ColumnType::Array(to)) = (from, to) {
        return elements(cells, from, to);
    }
    let Some(source) = Source::of(cells, from) else { return nothing(cells, to) };
    let rows = cells.len();
    macro_rules! column {
        ($array:ty, $method:ident) => {{
            let values: Result<Vec<_>, Misfit> =
                (0..rows).map(|row| source.cell(row, |value| value.$method())).collect();
            Arc::new(<$array>::from(values?)) as ArrayRef
        }};
    }
    Ok(match to {
        ColumnType::Boolean => column!(BooleanArray, boolean),
        ColumnType::Int16 => column!(Int16Array, integer),
        ColumnType::Int32 => column!(Int32Array, integer),
        ColumnType::Int64 => column!(Int64Array, integer),
        ColumnType::Float32 => column!(Float32Array, float32),
        ColumnType::Float64 => column!(Float64Array, float64),
        ColumnType::Date => column!(Date32Array, date),
        ColumnType::Timestamp => column!(TimestampMicrosecondArray, timestamp),
        ColumnType::Binary => {
            let values: Result<Vec<Option<&[u8]>>, Misfit> =
                (0..rows).map(|row| source.cell(row, Value::bytes)).collect();
            Arc::new(BinaryArray::from(values?))
        }
        ColumnType::Decimal { precision, scale } => {
            let decimal = |value: Value<'_>| value.decimal(*precision, *scale);
            let values: Result<Vec<Option<i128>>, Misfit> =
                (0..rows).map(|row| source.cell(row, decimal)).collect();
            let column = Decimal128Array::from(values?).with_precision_and_scale(*precision, *scale);
            return column.map(|column| Arc::new(column) as ArrayRef).or_else(|_| nothing(cells, to));
        }
        ColumnType::Numeric | ColumnType::Text => texts(&source, rows, *to == ColumnType::Numeric)?,
        _ => return nothing(cells, to),
    })
}

/// Arrays, element by element.
fn elements(cells: &ArrayRef, from: &ColumnType, to: &ColumnType) -> Result<ArrayRef, Misfit> {
    let Some(lists) = cells.as_list_opt::<i32>() else { return nothing(cells, to) };
    let row_of = |Misfit { row: element }: Misfit| {
        let ends = lists.offsets().iter().skip(1);
        Misfit { row: ends.take_while(|&&end| (end as usize) <= element).count() }
    };
    let values = convert(lists.values(), from, to).map_err(row_of)?;
    let field = Arc::new(Field::new("element", values.data_type().clone(), true));
    let lists = ListArray::try_new(field, lists.offsets().clone(), values, lists.nulls().cloned());
    lists.map(|lists| Arc::new(lists) as ArrayRef).map_err(|_| Misfit { row: 0 })
}

/// Nulls for nulls, where no value has a counterpart.
fn nothing(cells: &ArrayRef, to: &ColumnType) -> Result<ArrayRef, Misfit> {
    match (0..cells.len()).find(|&row| cells.is_valid(row)) {
        Some(row) => Err(Misfit { row }),
        None => Ok(arrow::array::new_null_array(&to.arrow(), cells.len())),
    }
}

fn texts(source: &Source<'_>, rows: usize, number: bool) -> Result<ArrayRef, Misfit> {
    let mut column = StringBuilder::with_capacity(rows, rows * 8);
    let mut text = String::new();
    for row in 0..rows {
        text.clear();
        match source.cell(row, |value| value.text(number, &mut text))? {
            Some(()) => column.append_value(&text),
            None => column.append_null(),
        }
    }
    Ok(Arc::new(column.finish()))
}

/// A column whose cells can be read as values.
struct Source<'a> {
    cells: &'a ArrayRef,
    of: &'a ColumnType,
}

/// One value.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Boolean(bool),
    Integer(i64),
    Float32(f32),
    Float64(f64),
    Decimal(i128, i8),
    Text(&'a str),
    Bytes(&'a [u8]),
    Date(i32),
    Time(i64),
    Timestamp(i64),
    TimestampTz(i64),
}

impl<'a> Source<'a> {
    /// `None` for types whose values never become others, and for columns that are not of the type.
    fn of(cells: &'a ArrayRef, of: &'a ColumnType) -> Option<Self> {
        let known = matches!(
            of,
            ColumnType::Boolean
                | ColumnType::Int16
                | ColumnType::Int32
                | ColumnType::Int64
                | ColumnType::Float32
                | ColumnType::Float64
                | ColumnType::Decimal { .. }
                | ColumnType::Numeric
                | ColumnType::Text
                | ColumnType::Binary
                | ColumnType::Date
                | ColumnType::Time
                | ColumnType::Timestamp
                | ColumnType::TimestampTz
        );
        (known && *cells.data_type() == of.arrow()).then_some(Self { cells, of })
    }

    fn cell<T>(&self, row: usize, convert: impl FnOnce(Value<'a>) -> Option<T>) -> Result<Option<T>, Misfit> {
        if self.cells.is_null(row) {
            return Ok(None);
        }
        convert(self.value(row)).map(Some).ok_or(Misfit { row })
    }

    fn value(&self, row: usize) -> Value<'a> {
        let cells = self.cells;
        match self.of {
            ColumnType::Boolean => Value::Boolean(cells.as_boolean().value(row)),
            ColumnType::Int16 => Value::Integer(cells.as_primitive::<Int16Type>().value(row).into()),
            ColumnType::Int32 => Value::Integer(cells.as_primitive::<Int32Type>().value(row).into()),
            ColumnType::Int64 => Value::Integer(cells.as_primitive::<Int64Type>().value(row)),
            ColumnType::Float32 => Value::Float32(cells.as_primitive::<Float32Type>().value(row)),
            ColumnType::Float64 => Value::Float64(cells.as_primitive::<Float64Type>().value(row)),
            ColumnType::Decimal { scale, .. } => {
                Value::Decimal(cells.as_primitive::<Decimal128Type>().value(row), *scale)
            }
            ColumnType::Binary => Value::Bytes(cells.as_binary::<i32>().value(row)),
            ColumnType::Date => Value::Date(cells.as_primitive::<Date32Type>().value(row)),
            ColumnType::Time => Value::Time(cells.as_primitive::<Int64Type>().value(row)),
            ColumnType::Timestamp => {
                Value::Timestamp(cells.as_primitive::<TimestampMicrosecondType>().value(row))
            }
            ColumnType::TimestampTz => {
                Value::TimestampTz(cells.as_primitive::<TimestampMicrosecondType>().value(row))
            }
            _ => Value::Text(cells.as_string::<i32>().value(row)),
        }
    }
}

impl<'a> Value<'a> {
    fn boolean(self) -> Option<bool> {
        match self {
            Self::Boolean(value) => Some(value),
            _ => None,
        }
    }

    fn integer<T: TryFrom<i64>>(self) -> Option<T> {
        let whole = match self {
            Self::Integer(value) => value,
            Self::Float32(value) => Self::Float64(value.into()).integer()?,
            // The largest double below 2^63 is exact; 2^63 itself is no integer of 64 bits, and none has a signed zero.
            Self::Float64(value)
                if value.fract().to_bits() << 1 == 0
                    && value.abs() < 9.223_372_036_854_776e18
                    && !(value == 0.0 && value.is_sign_negative()) =>
            {
                value as i64
            }
            Self::Decimal(..) | Self::Text(_) => i64::try_from(self.scaled(0)?).ok()?,
            _ => return None,
        };
        T::try_from(whole).ok()
    }

    fn float32(self) -> Option<f32> {
        match self {
            Self::Float32(value) => Some(value),
            Self::Integer(value) => {
                let float = value as f32;
                (float as i128 == i128::from(value)).then_some(float)
            }
            Self::Float64(value) if value.is_nan() => Some(f32::NAN),
            Self::Float64(value) => {
                let float = value as f32;
                (f64::from(float).to_bits() == value.to_bits()).then_some(float)
            }
            _ => None,
        }
    }

    fn float64(self) -> Option<f64> {
        match self {
            Self::Float64(value) => Some(value),
            Self::Float32(value) => Some(value.into()),
            Self::Integer(value) => {
                let float = value as f64;
                (float as i128 == i128::from(value)).then_some(float)
            }
            _ => None,
        }
    }

    fn decimal(self, precision: u8, scale: i8) -> Option<i128> {
        let value = self.scaled(scale)?;
        let limit = 10_u128.checked_pow(u32::from(precision))?;
        (value.unsigned_abs() < limit).then_some(value)
    }

    /// The number times `10^scale`, where that is a whole number of 128 bits.
    fn scaled(self, scale: i8) -> Option<i128> {
        match self {
            Self::Integer(value) => rescaled(value.into(), 0, scale.into()),
            Self::Decimal(value, from) => rescaled(value, from.into(), scale.into()),
            Self::Text(text) => {
                let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
                let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
                let is_number =
                    !whole.is_empty() && whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit());
                if !is_number {
                    return None;
                }
                let fraction = fraction.trim_end_matches('0');
                let unscaled: i128 = format!("{whole}{fraction}").parse().ok()?;
                rescaled(sign * unscaled, i32::try_from(fraction.len()).ok()?, scale.into())
            }
            _ => None,
        }
    }

    fn date(self) -> Option<i32> {
        match self {
            Self::Date(days) => Some(days),
            Self::Timestamp(i64::MAX) => Some(i32::MAX),
            Self::Timestamp(i64::MIN) => Some(i32::MIN),
            Self::Timestamp(micros) if micros.rem_euclid(DAY) == 0 => (micros / DAY).try_into().ok(),
            _ => None,
        }
    }

    fn timestamp(self) -> Option<i64> {
        match self {
            Self::Timestamp(micros) => Some(micros),
            Self::Date(i32::MAX) => Some(i64::MAX),
            Self::Date(i32::MIN) => Some(i64::MIN),
            Self::Date(days) => i64::from(days).checked_mul(DAY),
            _ => None,
        }
    }

    fn bytes(self) -> Option<&'a [u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// Appends the text that Postgres gives to the value; only of numbers where `number` asks for one.
    fn text(self, number: bool, out: &mut String) -> Option<()> {
        use std::fmt::Write as _;
        match self {
            Self::Integer(value) => write!(out, "{value}").ok()?,
            Self::Decimal(value, scale) => text_form::decimal(value, scale, out),
            Self::Text(text) => out.push_str(text),
            _ if number => return None,
            Self::Boolean(value) => out.push_str(if value { "true" } else { "false" }),
            Self::Float32(value) => text_form::float32(value, out),
            Self::Float64(value) => text_form::float64(value, out),
            Self::Bytes(bytes) => text_form::bytes(bytes, out),
            Self::Date(days) => text_form::date(days, out),
            Self::Time(micros) => text_form::time(micros, out),
            Self::Timestamp(micros) => text_form::timestamp(micros, "", out),
            Self::TimestampTz(micros) => text_form::timestamp(micros, "+00", out),
        }
        Some(())
    }
}

/// `unscaled / 10^from` as a multiple of `10^-to`, where no digit is lost.
fn rescaled(unscaled: i128, from: i32, to: i32) -> Option<i128> {
    if unscaled == 0 {
        return Some(0);
    }
    let power = 10_i128.checked_pow(from.abs_diff(to))?;
    if to >= from { unscaled.checked_mul(power) } else { (unscaled % power == 0).then(|| unscaled / power) }
}
