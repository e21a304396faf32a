//! The oracle is the source itself: at a quiet point every copy of a table equals `SELECT * FROM` it.
//!
//! Rows are compared value by value in Postgres' own text form, read from the source and the mirrors with `::text`, and
//! made from the Arrow values of the lake by [`canonical`]. Records are compared by their place on the broker, which is
//! read directly. No code of Alluvium takes part.

mod canonical;
mod lake;
mod raw;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tokio_postgres::Client;

use crate::daemon::Running;
use crate::eventually::{PATIENCE, eventually};
use crate::shop::{Shop, TABLES};

pub use lake::{count_rows, rows_equal as lake_rows_equal, rows_of, table_equal as lake_table_equal};

/// A row as texts, in the order of the source's columns.
pub type Row = Vec<Option<String>>;

/// A column of the source.
#[derive(Debug, Clone)]
pub struct SourceColumn {
    /// Name.
    pub name: String,
    /// Type as Postgres writes it, without its modifiers: `numeric`, `timestamp without time zone`.
    pub kind: String,
    /// Whether it is part of the key.
    pub key: bool,
}

/// Rows by their key. More than one row of a key is a mistake of a copy, and kept to be shown.
pub type Rows = BTreeMap<Vec<Option<String>>, Vec<Row>>;

/// The columns of `public.TABLE`.
pub async fn source_columns(source: &Client, table: &str) -> Vec<SourceColumn> {
    let sql = "SELECT a.attname::text,
                 CASE WHEN a.atttypid = 'numeric'::regtype AND a.atttypmod = -1 THEN 'numeric of any scale'
                      ELSE format_type(a.atttypid, NULL) END,
                 coalesce(a.attnum = ANY (i.indkey), false)
               FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
               WHERE a.attrelid = ('public.' || quote_ident($1))::regclass AND a.attnum > 0 AND NOT a.attisdropped
               ORDER BY a.attnum";
    let rows = source.query(sql, &[&table]).await.unwrap();
    rows.iter().map(|row| SourceColumn { name: row.get(0), kind: row.get(1), key: row.get(2) }).collect()
}

/// The rows of a Postgres table, as texts.
pub async fn postgres_rows(client: &Client, table: &str, columns: &[SourceColumn]) -> Result<Rows, String> {
    let list: Vec<String> = columns.iter().map(|column| format!("\"{}\"::text", column.name)).collect();
    let rows = client
        .query(&format!("SELECT {} FROM {table}", list.join(", ")), &[])
        .await
        .map_err(|error| format!("{table}: {}", reason(&error)))?;
    let texts = rows.iter().map(|row| (0..columns.len()).map(|index| row.get(index)).collect::<Row>());
    Ok(by_key(texts, columns))
}

/// What the database says, in a line.
pub fn reason(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| format!("{error:?}"), |answer| answer.message().to_owned())
}

/// Arranges rows by their key. Values with several notations are brought to one.
pub fn by_key(rows: impl Iterator<Item = Row>, columns: &[SourceColumn]) -> Rows {
    let mut arranged = Rows::new();
    for row in rows {
        let row: Row = row
            .into_iter()
            .zip(columns)
            .map(|(value, column)| value.map(|text| canonical::text(&column.kind, text)))
            .collect();
        let key = row.iter().zip(columns).filter(|(_, column)| column.key).map(|(value, _)| value.clone());
        arranged.entry(key.collect()).or_default().push(row);
    }
    arranged
}

/// Says how `copy` differs from `source`, the first few keys with both rows.
pub fn compare(what: &str, columns: &[SourceColumn], source: &Rows, copy: &Rows) -> Result<(), String> {
    let mut keys: Vec<_> =
        source.keys().chain(copy.keys()).filter(|key| source.get(*key) != copy.get(*key)).collect();
    keys.sort();
    keys.dedup();
    if keys.is_empty() {
        return Ok(());
    }
    let mut text =
        format!("{what}: {} of {} keys differ ({} in the copy)\n", keys.len(), source.len(), copy.len());
    for key in keys.into_iter().take(5) {
        let shown: Vec<&str> = key.iter().map(|part| part.as_deref().unwrap_or("NULL")).collect();
        writeln!(text, "  key {}", shown.join(", ")).unwrap();
        match (source.get(key).map(Vec::as_slice), copy.get(key).map(Vec::as_slice)) {
            (Some([from]), Some([to])) => show_cells(&mut text, columns, from, to),
            (from, to) => {
                writeln!(text, "    {} rows in the source, {} in the copy", count(from), count(to)).unwrap();
            }
        }
    }
    Err(text)
}

fn count(rows: Option<&[Row]>) -> usize {
    rows.map_or(0, <[Row]>::len)
}

fn show_cells(text: &mut String, columns: &[SourceColumn], from: &Row, to: &Row) {
    let shorten = |value: &Option<String>| match value {
        None => "NULL".to_owned(),
        Some(value) if value.chars().count() > 80 => {
            format!("{:?}… ({} bytes)", value.chars().take(80).collect::<String>(), value.len())
        }
        Some(value) => format!("{value:?}"),
    };
    for ((column, from), to) in columns.iter().zip(from).zip(to).filter(|((_, from), to)| from != to) {
        writeln!(text, "    {}: source {}, copy {}", column.name, shorten(from), shorten(to)).unwrap();
    }
}

/// Compares the table in the lake and in both mirrors with the source.
pub async fn table_equal(shop: &Shop, table: &str) -> Result<(), String> {
    let columns = source_columns(&shop.source, table).await;
    let source = postgres_rows(&shop.source, &format!("public.{table}"), &columns).await?;
    let mut found = vec![lake::table_equal(shop, table, &columns, &source).await];
    for (session, schema) in [(shop.datalake().await, "cdc_processed"), (shop.target().await, "public")] {
        let copy = postgres_rows(&session, &format!("{schema}.{table}"), &columns).await;
        found.push(
            copy.and_then(|copy| compare(&format!("mirror {schema}.{table}"), &columns, &source, &copy)),
        );
    }
    join(found)
}

/// The messages of all that failed.
fn join(results: Vec<Result<(), String>>) -> Result<(), String> {
    let failures: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// Compares everything: each table of the shop in the lake and in both mirrors, and every record in both raw tables.
pub async fn all_equal(shop: &Shop) -> Result<(), String> {
    let mut found = Vec::new();
    for table in TABLES {
        found.push(table_equal(shop, table).await);
    }
    found.push(raw::every_record_once(shop).await);
    join(found)
}

/// Panics where [`all_equal`] finds a difference.
pub async fn assert_all_equal(shop: &Shop) {
    if let Err(differences) = all_equal(shop).await {
        panic!("copies differ from the source of {}\n{differences}", shop.name);
    }
}

/// Waits until Debezium has delivered everything and `run` has made all copies equal to the source.
pub async fn becomes_equal(shop: &Shop, run: &Running) {
    shop.delivered().await;
    eventually("all copies equal the source", PATIENCE, || async {
        run.assert_runs();
        all_equal(shop).await
    })
    .await;
}

/// As [`becomes_equal`], for one table, and without waiting for Debezium first.
pub async fn table_becomes_equal(shop: &Shop, run: &Running, table: &str) {
    eventually(&format!("all copies of {table} equal the source"), PATIENCE, || async {
        run.assert_runs();
        table_equal(shop, table).await
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<SourceColumn> {
        [("id", "integer", true), ("note", "text", false), ("weight", "double precision", false)]
            .map(|(name, kind, key)| SourceColumn { name: name.to_owned(), kind: kind.to_owned(), key })
            .to_vec()
    }

    fn rows(texts: &[[&str; 3]]) -> Rows {
        let value = |text: &&str| (*text != "NULL").then(|| (*text).to_owned());
        by_key(texts.iter().map(|row| row.iter().map(value).collect()), &columns())
    }

    const SOURCE: [[&str; 3]; 3] = [["1", "a", "1e+20"], ["2", "NULL", "-0"], ["3", "", "NaN"]];

    #[test]
    fn equal_rows_are_equal_in_any_order_and_float_notation() {
        let copy = rows(&[["3", "", "NaN"], ["1", "a", "100000000000000000000"], ["2", "NULL", "-0.0"]]);
        assert_eq!(compare("copy", &columns(), &rows(&SOURCE), &copy), Ok(()));
    }

    #[test]
    fn each_difference_is_found_and_shown() {
        for (copy, shown) in [
            (vec![SOURCE[0], SOURCE[1]], "key 3\n    1 rows in the source, 0 in the copy"),
            (
                vec![SOURCE[0], SOURCE[1], SOURCE[2], SOURCE[2]],
                "key 3\n    1 rows in the source, 2 in the copy",
            ),
            (
                vec![SOURCE[0], SOURCE[1], SOURCE[2], ["4", "", "0"]],
                "key 4\n    0 rows in the source, 1 in the copy",
            ),
            (vec![SOURCE[0], ["2", "", "-0"], SOURCE[2]], "key 2\n    note: source NULL, copy \"\""),
            (vec![SOURCE[0], ["2", "NULL", "0"], SOURCE[2]], "weight: source \"-0.0\", copy \"0.0\""),
        ] {
            let difference = compare("copy", &columns(), &rows(&SOURCE), &rows(&copy)).unwrap_err();
            assert!(difference.contains(shown), "no {shown:?} in {difference}");
        }
    }
}
