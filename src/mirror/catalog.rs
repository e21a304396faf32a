//! What the target database has: tables, their columns and the keys that an upsert can rely on.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::names::TargetName;
use super::types::TargetType;
use crate::change::{Column, TableSchema};

/// A column of an existing table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TargetColumn {
    pub(super) name: String,
    pub(super) target_type: TargetType,
    pub(super) nullable: bool,
    /// `GENERATED ALWAYS AS IDENTITY`.
    pub(super) identity_always: bool,
    /// `GENERATED ALWAYS AS (…)`: computed, never written.
    pub(super) generated: bool,
}

/// An existing table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TargetTable {
    pub(super) columns: Vec<TargetColumn>,
    /// Columns of the primary key, in key order.
    pub(super) primary_key: Vec<String>,
    /// Columns of each unique index that `ON CONFLICT` can infer, the primary key's among them.
    pub(super) unique: Vec<Vec<String>>,
}

impl TargetTable {
    /// The column of that name.
    pub(super) fn column(&self, name: &str) -> Option<&TargetColumn> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// What the source's table must look like, going by this one.
    pub(super) fn table_schema(&self) -> TableSchema {
        let columns: Vec<Column> = self
            .columns
            .iter()
            .filter(|column| !column.name.starts_with("__"))
            .map(|column| Column {
                name: Arc::from(column.name.as_str()),
                column_type: column.target_type.column_type(),
                nullable: column.nullable,
            })
            .collect();
        let key = self
            .primary_key
            .iter()
            .filter_map(|name| columns.iter().position(|column| column.name.as_ref() == name))
            .collect();
        TableSchema::new(columns, key)
    }
}

/// Existing tables by name.
pub(super) type Catalog = HashMap<TargetName, TargetTable>;

const COLUMNS: &str = "
WITH RECURSIVE domain(type, base, modifier) AS (
    SELECT oid, typbasetype, typtypmod FROM pg_catalog.pg_type WHERE typtype = 'd'
    UNION ALL
    SELECT d.type, t.typbasetype, CASE WHEN d.modifier >= 0 THEN d.modifier ELSE t.typtypmod END
    FROM domain d JOIN pg_catalog.pg_type t ON t.oid = d.base WHERE t.typtype = 'd'
)
SELECT n.nspname::text, c.relname::text, a.attname::text, a.attnotnull, a.attidentity = 'a', a.attgenerated <> '',
       coalesce(d.base, a.atttypid), CASE WHEN a.atttypmod >= 0 THEN a.atttypmod ELSE coalesce(d.modifier, -1) END,
       pg_catalog.format_type(coalesce(d.base, a.atttypid), -1), e.oid, pg_catalog.format_type(e.oid, -1)
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN domain d ON d.type = a.atttypid
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.oid = d.base AND t.typtype = 'd')
LEFT JOIN pg_catalog.pg_type e ON e.typarray = coalesce(d.base, a.atttypid) AND e.typtype <> 'd'
WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND ($1::text IS NULL OR n.nspname = $1) AND ($2::text IS NULL OR c.relname = $2)
ORDER BY n.nspname, c.relname, a.attnum";

const UNIQUE: &str = "
SELECT n.nspname::text, c.relname::text, i.indisprimary,
       array(SELECT a.attname::text FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(number, place)
             JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
             WHERE k.place <= i.indnkeyatts ORDER BY k.place)
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
  AND c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND ($1::text IS NULL OR n.nspname = $1) AND ($2::text IS NULL OR c.relname = $2)
ORDER BY i.indisprimary DESC, i.indexrelid";

/// The columns of one table with their types.
///
/// # Errors
/// Why the database did not answer.
pub async fn columns_of(
    client: &Client,
    schema: &str,
    table: &str,
) -> Result<Vec<(String, TargetType)>, tokio_postgres::Error> {
    let name = TargetName { schema: schema.to_owned(), table: table.to_owned() };
    let found = read(client, Some(schema), Some(table)).await?.remove(&name).unwrap_or_default();
    Ok(found.columns.into_iter().map(|column| (column.name, column.target_type)).collect())
}

/// Reads the tables of a schema, or of all, or one table.
pub(super) async fn read(
    client: &Client,
    schema: Option<&str>,
    table: Option<&str>,
) -> Result<Catalog, tokio_postgres::Error> {
    let mut catalog = Catalog::new();
    for row in client.query_typed(COLUMNS, &[(&schema, Type::TEXT), (&table, Type::TEXT)]).await? {
        let name = TargetName { schema: row.try_get(0)?, table: row.try_get(1)? };
        let column = TargetColumn {
            name: row.try_get(2)?,
            nullable: !row.try_get::<_, bool>(3)?,
            identity_always: row.try_get(4)?,
            generated: row.try_get(5)?,
            target_type: TargetType {
                oid: row.try_get(6)?,
                modifier: row.try_get(7)?,
                name: row.try_get(8)?,
                element: row.try_get::<_, Option<u32>>(9)?.zip(row.try_get(10)?),
            },
        };
        catalog.entry(name).or_default().columns.push(column);
    }
    for row in client.query_typed(UNIQUE, &[(&schema, Type::TEXT), (&table, Type::TEXT)]).await? {
        let name = TargetName { schema: row.try_get(0)?, table: row.try_get(1)? };
        let columns: Vec<String> = row.try_get(3)?;
        if let Some(found) = catalog.get_mut(&name) {
            if row.try_get(2)? {
                found.primary_key.clone_from(&columns);
            }
            found.unique.push(columns);
        }
    }
    Ok(catalog)
}
