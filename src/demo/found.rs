//! Rows of the shop's tables as the lake and Postgres give them back, turned into the shop's own [`Row`]s.
//!
//! No value is converted from one type to another on the way: that could hide a wrong type.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{Date32Type, Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow::error::ArrowError;

use super::tables::{Row, ShopTable, Value};
use super::verify::VerifyError;
use crate::change::{Column, ColumnType};

/// The shop's columns of a table as a select list, quoted.
pub fn select_list(table: ShopTable) -> String {
    let columns: Vec<String> =
        table.schema().columns().iter().map(|column| format!("\"{}\"", column.name)).collect();
    columns.join(", ")
}

/// Rows of a query's result, which has the table's columns by name, in any of Arrow's encodings of their types.
pub fn rows_of_batches(table: ShopTable, batches: &[RecordBatch]) -> Result<Vec<Row>, VerifyError> {
    let mut rows = Vec::new();
    for batch in batches {
        let columns = table
            .schema()
            .columns()
            .iter()
            .map(|column| values_of(table, column, batch))
            .collect::<Result<Vec<_>, _>>()?;
        let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
        rows.extend(
            (0..batch.num_rows()).map(|_| columns.iter_mut().filter_map(Iterator::next).collect::<Row>()),
        );
    }
    Ok(rows)
}

fn values_of(table: ShopTable, column: &Column, batch: &RecordBatch) -> Result<Vec<Value>, VerifyError> {
    let found = batch
        .column_by_name(&column.name)
        .ok_or_else(|| VerifyError::NoColumn { table: table.name(), column: column.name.to_string() })?;
    let expected = column.column_type.arrow();
    let as_expected = same_precision(found, column)
        .and_then(|()| cast(found, &expected))
        .and_then(|array| values_of_array(&array, &column.column_type));
    as_expected.map_err(|error| VerifyError::Type {
        table: table.name(),
        column: column.name.to_string(),
        expected: expected.to_string(),
        reason: error.to_string(),
    })
}

/// A cast may change the encoding of text, and nothing else: it would hide a wrong type.
fn same_precision(found: &ArrayRef, column: &Column) -> Result<(), ArrowError> {
    let expected = column.column_type.arrow();
    let (is, should) = (found.data_type(), &expected);
    if is == should || (is.is_string() && should.is_string()) {
        return Ok(());
    }
    Err(ArrowError::SchemaError(format!("it is {is}")))
}

fn values_of_array(array: &ArrayRef, column_type: &ColumnType) -> Result<Vec<Value>, ArrowError> {
    fn all<T>(values: impl Iterator<Item = Option<T>>, of: impl Fn(T) -> Value) -> Vec<Value> {
        values.map(|value| value.map_or(Value::Null, &of)).collect()
    }
    Ok(match column_type {
        ColumnType::Boolean => all(array.as_boolean().iter(), Value::Boolean),
        ColumnType::Int32 => all(array.as_primitive::<Int32Type>().iter(), Value::Int32),
        ColumnType::Int64 => all(array.as_primitive::<Int64Type>().iter(), Value::Int64),
        ColumnType::Date => all(array.as_primitive::<Date32Type>().iter(), Value::Date),
        ColumnType::Decimal { .. } => all(array.as_primitive::<Decimal128Type>().iter(), Value::Decimal),
        ColumnType::TimestampTz => {
            all(array.as_primitive::<TimestampMicrosecondType>().iter(), Value::TimestampTz)
        }
        ColumnType::Text | ColumnType::Uuid | ColumnType::Jsonb => {
            all(array.as_string::<i32>().iter(), |text: &str| Value::Text(text.into()))
        }
        other => return Err(ArrowError::NotYetImplemented(format!("{other:?}"))),
    })
}

/// An SQL query that gives a Postgres table's columns as text for [`row_of_texts`]; `from` is the quoted table.
pub fn postgres_query(table: ShopTable, from: &str) -> String {
    let columns: Vec<String> = table
        .schema()
        .columns()
        .iter()
        .map(|column| match column.column_type {
            ColumnType::Date => format!("(\"{}\" - date '1970-01-01')::text", column.name),
            ColumnType::TimestampTz => {
                format!("(extract(epoch from \"{}\") * 1000000)::bigint::text", column.name)
            }
            _ => format!("\"{}\"::text", column.name),
        })
        .collect();
    format!("SELECT {} FROM {from}", columns.join(", "))
}

/// A row from the texts that [`postgres_query`] asks for, in its order.
pub fn row_of_texts<'a>(
    table: ShopTable,
    texts: impl IntoIterator<Item = Option<&'a str>>,
) -> Result<Row, VerifyError> {
    let columns = table.schema().columns();
    columns.iter().zip(texts).map(|(column, text)| value_of_text(table, column, text)).collect()
}

fn value_of_text(table: ShopTable, column: &Column, text: Option<&str>) -> Result<Value, VerifyError> {
    let Some(text) = text else { return Ok(Value::Null) };
    let value = match column.column_type {
        ColumnType::Boolean => text.parse().ok().map(Value::Boolean),
        ColumnType::Int32 => text.parse().ok().map(Value::Int32),
        ColumnType::Int64 => text.parse().ok().map(Value::Int64),
        ColumnType::Date => text.parse().ok().map(Value::Date),
        ColumnType::TimestampTz => text.parse().ok().map(Value::TimestampTz),
        ColumnType::Decimal { scale, .. } => {
            let digits_behind = text.split_once('.').map_or(0, |(_, behind)| behind.len());
            let exact = i8::try_from(digits_behind).is_ok_and(|digits| digits == scale);
            exact.then(|| text.replace('.', "").parse().ok()).flatten().map(Value::Decimal)
        }
        _ => Some(Value::Text(text.into())),
    };
    value.ok_or_else(|| VerifyError::Type {
        table: table.name(),
        column: column.name.to_string(),
        expected: column.column_type.arrow().to_string(),
        reason: format!("its text is {text}"),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, Int32Array, Int64Array, StringArray, StringViewArray,
        TimestampMicrosecondArray,
    };
    use arrow::datatypes::DataType;

    use super::*;
    use crate::demo::shop::{Shop, ShopSize};
    use crate::demo::tables::TABLES;
    use crate::demo::verify::compare;

    fn shop() -> Shop {
        let size = ShopSize { customers: 20, products: 20, orders: 40 };
        let mut shop = Shop::open(4, size, 1_795_411_995_104_544);
        (0..500).for_each(|step| drop(shop.transact(1_795_411_995_104_544 + step)));
        shop
    }

    fn rows(shop: &Shop, table: ShopTable) -> Vec<Row> {
        shop.rows(table).map(|(_, row)| row).collect()
    }

    fn batch(table: ShopTable, rows: &[Row]) -> RecordBatch {
        fn cells<T>(rows: &[Row], at: usize, of: impl Fn(&Value) -> Option<T>) -> Vec<Option<T>> {
            rows.iter().map(|row| of(&row[at])).collect()
        }
        let columns = table.schema().columns().iter().enumerate().map(|(at, column)| {
            let array: ArrayRef = match column.column_type.arrow() {
                DataType::Boolean => Arc::new(BooleanArray::from(cells(rows, at, |value| match value {
                    Value::Boolean(value) => Some(*value),
                    _ => None,
                }))),
                DataType::Int32 => Arc::new(Int32Array::from(cells(rows, at, |value| match value {
                    Value::Int32(value) => Some(*value),
                    _ => None,
                }))),
                DataType::Int64 => Arc::new(Int64Array::from(cells(rows, at, |value| match value {
                    Value::Int64(value) => Some(*value),
                    _ => None,
                }))),
                DataType::Date32 => Arc::new(Date32Array::from(cells(rows, at, |value| match value {
                    Value::Date(value) => Some(*value),
                    _ => None,
                }))),
                DataType::Decimal128(precision, scale) => {
                    let values = cells(rows, at, |value| match value {
                        Value::Decimal(value) => Some(*value),
                        _ => None,
                    });
                    Arc::new(
                        Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap(),
                    )
                }
                DataType::Timestamp(..) => {
                    let values = cells(rows, at, |value| match value {
                        Value::TimestampTz(value) => Some(*value),
                        _ => None,
                    });
                    Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
                }
                _ => {
                    let values = cells(rows, at, |value| match value {
                        Value::Text(value) => Some(value.to_string()),
                        _ => None,
                    });
                    // The query engine gives views where the file holds strings.
                    if at % 2 == 0 {
                        Arc::new(StringViewArray::from_iter(values))
                    } else {
                        Arc::new(StringArray::from(values))
                    }
                }
            };
            (column.name.to_string(), array)
        });
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn a_table_with_the_shops_rows_is_equal() {
        let shop = shop();
        for table in TABLES {
            let mut truth = rows(&shop, table);
            truth.reverse();
            let (first, second) = truth.split_at(truth.len() / 3);
            let found = rows_of_batches(table, &[batch(table, first), batch(table, second)]).unwrap();
            let report = compare(&shop, table, found).unwrap();
            assert!(report.is_equal(), "{report}");
            assert_eq!(report.found, shop.len(table) as u64);
        }
    }

    #[test]
    fn a_column_of_another_type_is_an_error_and_not_cast() {
        let table = ShopTable::OrderItems;
        let batch = RecordBatch::try_from_iter(table.schema().columns().iter().map(|column| {
            let array: ArrayRef = Arc::new(Int64Array::from(vec![1_i64]));
            (column.name.to_string(), array)
        }))
        .unwrap();
        let error = rows_of_batches(table, &[batch]).unwrap_err();
        assert!(
            error.to_string().starts_with("column line of table order_items is not readable as Int32"),
            "{error}"
        );
    }

    #[test]
    fn texts_of_postgres_become_the_shops_values() {
        let texts = ["7", "2", "11", "3", "12.50"].map(Some).into_iter().chain([None]);
        let row = row_of_texts(ShopTable::OrderItems, texts).unwrap();
        let expected = [
            Value::Int64(7),
            Value::Int32(2),
            Value::Int64(11),
            Value::Int32(3),
            Value::Decimal(1_250),
            Value::Null,
        ];
        assert_eq!(row, expected);
        let imprecise = ["7", "2", "11", "3", "12.5"].map(Some).into_iter().chain([None]);
        assert!(row_of_texts(ShopTable::OrderItems, imprecise).is_err());
    }
}
