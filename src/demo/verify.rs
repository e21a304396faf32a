//! The self-check: whether a table holds exactly the shop's rows, value by value.
//!
//! Each reader ([`super::found`]) turns what it found into the shop's own [`Row`]s; [`compare`] is the one judge of equality. `jsonb` is
//! equal by value, because the source normalises its text; all else is equal when it is the same.

use std::collections::BTreeMap;
use std::fmt;

use super::shop::Shop;
use super::tables::{Key, Row, ShopTable, Value};
use crate::change::{Column, ColumnType};

/// How many differences a report spells out.
const EXAMPLES: usize = 5;

/// Why a table could not be read as one of the shop's.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A column is not there.
    #[error("table {table} has no column {column}")]
    NoColumn {
        /// Table name.
        table: &'static str,
        /// Column name.
        column: String,
    },
    /// A column cannot be read as its type.
    #[error("column {column} of table {table} is not readable as {expected}: {reason}")]
    Type {
        /// Table name.
        table: &'static str,
        /// Column name.
        column: String,
        /// The type it should have.
        expected: String,
        /// What is wrong.
        reason: String,
    },
    /// A key column holds null or another type.
    #[error("table {0} has a row without key")]
    NoKey(&'static str),
}

/// What [`compare`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// The table.
    pub table: ShopTable,
    /// Rows of the shop.
    pub expected: u64,
    /// Rows that were found.
    pub found: u64,
    /// Rows of the shop that were not found.
    pub missing: u64,
    /// Rows that were found and that the shop does not have.
    pub surplus: u64,
    /// Rows whose key was found before.
    pub duplicate: u64,
    /// Rows with another value in some column.
    pub different: u64,
    /// The first differences, in words.
    pub examples: Vec<String>,
}

impl Comparison {
    /// Whether the table equals the shop's.
    pub fn is_equal(&self) -> bool {
        self.missing == 0 && self.surplus == 0 && self.duplicate == 0 && self.different == 0
    }

    fn example(&mut self, describe: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(describe());
        }
    }
}

/// One line, and one more for each example.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.table.name();
        if self.is_equal() {
            return write!(f, "{name}: {} rows, every value equal", self.found);
        }
        write!(
            f,
            "{name}: DIFFERENT: {} rows expected, {} found: {} missing, {} surplus, {} twice, {} with other values",
            self.expected, self.found, self.missing, self.surplus, self.duplicate, self.different
        )?;
        self.examples.iter().try_for_each(|example| write!(f, "\n  {example}"))
    }
}

/// Compares the shop's rows of a table with those found, which may come in any order.
pub fn compare(
    shop: &Shop,
    table: ShopTable,
    found: impl IntoIterator<Item = Row>,
) -> Result<Comparison, VerifyError> {
    let mut report = Comparison {
        table,
        expected: shop.len(table) as u64,
        found: 0,
        missing: 0,
        surplus: 0,
        duplicate: 0,
        different: 0,
        examples: Vec::new(),
    };
    let mut rows = BTreeMap::new();
    for row in found {
        report.found += 1;
        let key = key_of(table, &row)?;
        if rows.insert(key, row).is_some() {
            report.duplicate += 1;
            report.example(|| format!("key {key:?} comes twice"));
        }
    }
    for (key, expected) in shop.rows(table) {
        let Some(row) = rows.remove(&key) else {
            report.missing += 1;
            report.example(|| format!("key {key:?} is missing"));
            continue;
        };
        let mut cells = table.schema().columns().iter().zip(expected.iter().zip(&row));
        if let Some((column, (expected, found))) = cells.find(|(column, (a, b))| !equal(column, a, b)) {
            report.different += 1;
            report.example(|| {
                format!("key {key:?}, column {}: expected {expected:?}, found {found:?}", column.name)
            });
        }
    }
    report.surplus = rows.len() as u64;
    for key in rows.keys() {
        report.example(|| format!("key {key:?} should not be there"));
    }
    Ok(report)
}

fn equal(column: &Column, a: &Value, b: &Value) -> bool {
    match (&column.column_type, a, b) {
        (ColumnType::Jsonb, Value::Text(a), Value::Text(b)) => {
            let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
            a == b || parse(a).is_some_and(|a| parse(b) == Some(a))
        }
        _ => a == b,
    }
}

fn key_of(table: ShopTable, row: &Row) -> Result<Key, VerifyError> {
    let mut parts = table.schema().key().iter().map(|&index| row.get(index));
    match (parts.next().flatten(), parts.next()) {
        (Some(Value::Int64(id)), None) => Ok((*id, 0)),
        (Some(Value::Int64(id)), Some(Some(Value::Int32(line)))) => Ok((*id, *line)),
        _ => Err(VerifyError::NoKey(table.name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::shop::ShopSize;

    fn shop() -> Shop {
        let size = ShopSize { customers: 20, products: 20, orders: 40 };
        let mut shop = Shop::open(4, size, 1_795_411_995_104_544);
        (0..500).for_each(|step| drop(shop.transact(1_795_411_995_104_544 + step)));
        shop
    }

    fn rows(shop: &Shop, table: ShopTable) -> Vec<Row> {
        shop.rows(table).map(|(_, row)| row).collect()
    }

    #[test]
    fn each_kind_of_difference_is_counted_and_named() {
        let shop = shop();
        let table = ShopTable::Products;
        let mut found = rows(&shop, table);
        let twice = found[0].clone();
        let missing = found.remove(1);
        let Value::Decimal(price) = &mut found[2][4] else { panic!("the price has moved") };
        *price += 1;
        let mut surplus = missing.clone();
        surplus[0] = Value::Int64(-1);
        found.extend([twice, surplus]);
        let report = compare(&shop, table, found).unwrap();
        let counts = (report.missing, report.surplus, report.duplicate, report.different);
        assert_eq!(counts, (1, 1, 1, 1), "{report}");
        assert!(!report.is_equal());
        let text = report.to_string();
        assert!(text.contains("column price: expected Decimal"), "{text}");
    }

    #[test]
    fn jsonb_is_equal_by_value_and_text_is_not() {
        let column = |column_type| Column { name: "c".into(), column_type, nullable: true };
        let (a, b) = (Value::Text(r#"{"a": 1, "b": [2]}"#.into()), Value::Text(r#"{"b":[2],"a":1}"#.into()));
        assert!(equal(&column(ColumnType::Jsonb), &a, &b));
        assert!(!equal(&column(ColumnType::Text), &a, &b));
        assert!(!equal(&column(ColumnType::Jsonb), &a, &Value::Null));
    }
}
