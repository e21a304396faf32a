//! How many rows a second the Postgres mirror takes. Measures, and is run by hand.

use std::sync::Arc;

use alluvium::change::{Batch, ColumnType, Operation};
use arrow::array::{ArrayRef, BooleanArray, Int32Array, Int64Array, StringArray};

use super::mirror::{commit, loaded};
use super::mirror_changes::{NEW_YEAR, batch, changes, schema};
use super::postgres_server::Database;

/// 440,000 upserts in batches of 10,000 into a table of 16 columns.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; run it alone with --ignored --nocapture"]
#[allow(clippy::print_stderr)]
async fn rate_of_upserts() {
    const ROWS: i64 = 10_000;
    let database = Database::create().await;
    let mut mirror = loaded(&database.url()).await;
    let mut columns = vec![("id", ColumnType::Int64)];
    let names: Vec<String> = (1..16).map(|number| format!("column_{number}")).collect();
    let types = [
        ColumnType::Text,
        ColumnType::Int32,
        ColumnType::Decimal { precision: 12, scale: 2 },
        ColumnType::TimestampTz,
        ColumnType::Boolean,
    ];
    columns.extend(names.iter().zip(types.iter().cycle()).map(|(name, kind)| (name.as_str(), kind.clone())));
    let schema = schema(1, &columns);
    let batches: Vec<Batch> = (0..44)
        .map(|number| {
            let first = number * ROWS;
            // The first half inserts, the second updates at random.
            let ids: Vec<i64> = (first..first + ROWS)
                .map(|id| if number < 22 { id } else { id * 7_919 % (22 * ROWS) })
                .collect();
            let columns: Vec<ArrayRef> =
                schema.columns().iter().map(|column| sample(&column.column_type, &ids)).collect();
            let operations = vec![Operation::Create; ids.len()];
            let change = changes("wide", &schema, first, &operations, columns);
            batch(vec![("t.wide", first, first + ROWS, vec![change])])
        })
        .collect();
    let started = std::time::Instant::now();
    for batch in &batches {
        commit(&mut mirror, batch).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    eprintln!("{:.0} rows/s, {seconds:.2} s", 44.0 * ROWS as f64 / seconds);
}

fn sample(column_type: &ColumnType, ids: &[i64]) -> ArrayRef {
    match column_type {
        ColumnType::Int64 => Arc::new(Int64Array::from(ids.to_vec())),
        ColumnType::Int32 => Arc::new(ids.iter().map(|id| Some((id % 1000) as i32)).collect::<Int32Array>()),
        ColumnType::Boolean => Arc::new(ids.iter().map(|id| Some(id % 2 == 0)).collect::<BooleanArray>()),
        ColumnType::Text => {
            Arc::new(StringArray::from_iter_values(ids.iter().map(|id| format!("customer {id}"))))
        }
        ColumnType::Decimal { precision, scale } => Arc::new(
            arrow::array::Decimal128Array::from_iter_values(ids.iter().map(|id| i128::from(id * 37)))
                .with_precision_and_scale(*precision, *scale)
                .unwrap(),
        ),
        _ => Arc::new(
            arrow::array::TimestampMicrosecondArray::from_iter_values(ids.iter().map(|id| NEW_YEAR + id))
                .with_timezone("UTC"),
        ),
    }
}
