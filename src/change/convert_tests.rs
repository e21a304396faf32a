//! Conversions of cells, by example and against what [`passage`] promises.
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, ListArray, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;

use super::ColumnType;
use super::convert::{Misfit, convert};
use super::passage::{Passage, passage};

const DAY: i64 = 86_400_000_000;

fn decimal(precision: u8, scale: i8) -> ColumnType {
    ColumnType::Decimal { precision, scale }
}

fn decimals(values: &[i128], precision: u8, scale: i8) -> ArrayRef {
    let cells = Decimal128Array::from(values.to_vec());
    Arc::new(cells.with_precision_and_scale(precision, scale).unwrap())
}

fn shown(cells: &ArrayRef) -> Vec<String> {
    (0..cells.len()).map(|row| array_value_to_string(cells, row).unwrap()).collect()
}

#[test]
fn every_value_of_a_lossless_passage_arrives() {
    let ints: ArrayRef = Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(7)]));
    for (to, expected) in [
        (ColumnType::Int64, ["-2147483648", "", "7"]),
        (ColumnType::Float64, ["-2147483648.0", "", "7.0"]),
        (ColumnType::Text, ["-2147483648", "", "7"]),
        (decimal(12, 2), ["-2147483648.00", "", "7.00"]),
        (ColumnType::Numeric, ["-2147483648", "", "7"]),
    ] {
        let cells = convert(&ints, &ColumnType::Int32, &to).unwrap();
        assert_eq!((shown(&cells), cells.data_type()), (expected.map(String::from).to_vec(), &to.arrow()));
    }
}

#[test]
fn a_cell_that_does_not_fit_is_named_and_none_is_rounded() {
    let prices = decimals(&[150, 200, 255], 10, 2);
    assert_eq!(convert(&prices, &decimal(10, 2), &decimal(10, 1)), Err(Misfit { row: 2 }));
    assert_eq!(convert(&prices, &decimal(10, 2), &ColumnType::Int16), Err(Misfit { row: 0 }));
    assert_eq!(convert(&prices, &decimal(10, 2), &decimal(2, 2)), Err(Misfit { row: 0 }));
    let long: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(1 << 40)]));
    assert_eq!(convert(&long, &ColumnType::Int64, &ColumnType::Int32), Err(Misfit { row: 2 }));
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.5, f64::NAN, 0.1]));
    assert_eq!(convert(&floats, &ColumnType::Float64, &ColumnType::Float32), Err(Misfit { row: 2 }));
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["12", "-1.50", "x"]));
    assert_eq!(convert(&texts, &ColumnType::Text, &decimal(5, 1)), Err(Misfit { row: 2 }));
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![-DAY, i64::MAX, 1]));
    assert_eq!(convert(&times, &ColumnType::Timestamp, &ColumnType::Date), Err(Misfit { row: 2 }));
}

#[test]
fn integers_that_a_float_cannot_hold_are_refused() {
    let cells: ArrayRef = Arc::new(Int64Array::from(vec![1 << 53, (1 << 53) + 1]));
    assert_eq!(convert(&cells, &ColumnType::Int64, &ColumnType::Float64), Err(Misfit { row: 1 }));
    for misfit in [9.3e18, -0.0, 0.5, f64::NAN] {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![1e15, misfit]));
        assert_eq!(convert(&floats, &ColumnType::Float64, &ColumnType::Int64), Err(Misfit { row: 1 }));
    }
}

#[test]
fn arrays_go_the_way_of_their_elements() {
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([
        Some(vec![Some(1), None]),
        None,
        Some(vec![]),
        Some(vec![Some(2), Some(1 << 40)]),
    ]));
    let of = |element| ColumnType::Array(Box::new(element));
    let (from, narrow) = (of(ColumnType::Int64), of(ColumnType::Int32));
    assert_eq!(passage(&narrow, &from), Passage::Lossless);
    assert_eq!(convert(&lists, &from, &narrow), Err(Misfit { row: 3 }));
    let texts = convert(&lists, &from, &of(ColumnType::Text)).unwrap();
    assert_eq!(texts.data_type(), &of(ColumnType::Text).arrow());
    assert_eq!(shown(&texts), ["[1, ]", "", "[]", "[2, 1099511627776]"]);
}

#[test]
fn infinite_dates_become_infinite_timestamps() {
    let days: ArrayRef = Arc::new(Date32Array::from(vec![1, i32::MAX, i32::MIN]));
    let cells = convert(&days, &ColumnType::Date, &ColumnType::Timestamp).unwrap();
    let cells = cells.as_primitive::<TimestampMicrosecondType>();
    assert_eq!(cells.values().to_vec(), [DAY, i64::MAX, i64::MIN]);
}

/// Whatever [`passage`] promises, this file does.
#[test]
fn a_passage_and_its_conversion_agree() {
    let types = [
        ColumnType::Boolean,
        ColumnType::Int16,
        ColumnType::Int32,
        ColumnType::Int64,
        ColumnType::Float32,
        ColumnType::Float64,
        decimal(38, 3),
        ColumnType::Numeric,
        ColumnType::Text,
        ColumnType::Uuid,
        ColumnType::Binary,
        ColumnType::Date,
        ColumnType::Time,
        ColumnType::Timestamp,
        ColumnType::TimestampTz,
    ];
    for from in &types {
        let one = one(from);
        for to in &types {
            if passage(from, to) == Passage::None {
                assert!(convert(&one, from, to).is_err(), "{from:?} to {to:?}");
            } else {
                let cells = convert(&one, from, to).unwrap_or_else(|_| panic!("{from:?} to {to:?}"));
                assert_eq!(*cells.data_type(), to.arrow());
                assert!(cells.is_valid(0));
            }
        }
    }
}

/// A value that fits wherever one of its type may fit.
fn one(of: &ColumnType) -> ArrayRef {
    match of {
        ColumnType::Boolean => Arc::new(BooleanArray::from(vec![true])),
        ColumnType::Int16 => Arc::new(Int16Array::from(vec![1])),
        ColumnType::Int32 => Arc::new(Int32Array::from(vec![1])),
        ColumnType::Int64 => Arc::new(Int64Array::from(vec![1])),
        ColumnType::Float32 => Arc::new(Float32Array::from(vec![1.0])),
        ColumnType::Float64 => Arc::new(Float64Array::from(vec![1.0])),
        ColumnType::Decimal { precision, scale } => decimals(&[1000], *precision, *scale),
        ColumnType::Binary => Arc::new(BinaryArray::from(vec![b"1".as_slice()])),
        ColumnType::Date => Arc::new(Date32Array::from(vec![0])),
        ColumnType::Time => Arc::new(Int64Array::from(vec![0])),
        ColumnType::Timestamp => Arc::new(TimestampMicrosecondArray::from(vec![0])),
        ColumnType::TimestampTz => Arc::new(TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC")),
        _ => Arc::new(StringArray::from(vec!["1"])),
    }
}
