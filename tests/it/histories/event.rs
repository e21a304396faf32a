//! Debezium's JSON, as its connector for Postgres and Kafka's `JsonConverter` write it.

use super::tables::{Row, Table};
use super::values::{Value, quoted};

/// What `before` holds.
pub enum Image<'a> {
    Null,
    /// The key, and null for every other column: what the default replica identity gives for a delete.
    Key(&'a Row),
    Row(&'a Row),
}

/// An event of a row.
pub struct Event<'a> {
    pub operation: &'a str,
    pub before: Image<'a>,
    /// The row, and the columns that it leaves out.
    pub after: Option<(&'a Row, &'a [usize])>,
    pub snapshot: &'a str,
    pub lsn: i64,
    pub last_commit: i64,
    /// Commit time, microseconds since 1970.
    pub committed: i64,
    pub transaction: i64,
    pub schema_block: bool,
    pub old_envelope: bool,
}

impl Event<'_> {
    /// The record's value.
    pub fn json(&self, table: &Table) -> String {
        let before = match self.before {
            Image::Null => "null".to_owned(),
            Image::Row(row) => object(table, table.live(), |column| cell(table, row, column)),
            Image::Key(row) => object(table, table.live(), |column| {
                if table.columns[column].key { cell(table, row, column) } else { "null".to_owned() }
            }),
        };
        let after = self.after.map_or_else(
            || "null".to_owned(),
            |(row, absent)| {
                object(table, table.live(), |column| {
                    if absent.contains(&column) {
                        table.columns[column].kind.placeholder()
                    } else {
                        cell(table, row, column)
                    }
                })
            },
        );
        let source = self.source(table.name);
        let (operation, times) = (
            self.operation,
            if self.old_envelope { "" } else { r#","ts_us":1700000000200000,"ts_ns":1700000000200000000"# },
        );
        let payload = format!(
            r#"{{"before":{before},"after":{after},"source":{source},"transaction":null,"op":"{operation}","ts_ms":1700000000200{times}}}"#
        );
        if self.schema_block {
            format!(r#"{{"schema":{},"payload":{payload}}}"#, envelope_schema(table))
        } else {
            payload
        }
    }

    fn source(&self, table: &str) -> String {
        let Self { lsn, transaction, snapshot, committed, .. } = self;
        let milliseconds = committed / 1_000;
        if self.old_envelope {
            let snapshot = *snapshot == "true";
            return format!(
                r#"{{"version":"1.2.0.Final","connector":"postgresql","name":"cdc","ts_ms":{milliseconds},"snapshot":{snapshot},"db":"shop","schema":"public","table":"{table}","txId":{transaction},"lsn":{lsn},"xmin":null}}"#
            );
        }
        let sequence = match *snapshot {
            "true" => format!("[null,\\\"{lsn}\\\"]"),
            _ => format!("[\\\"{}\\\",\\\"{lsn}\\\"]", self.last_commit),
        };
        // An incremental snapshot is no part of the log.
        let (lsn, transaction) = if *snapshot == "incremental" {
            ("null".to_owned(), "null".to_owned())
        } else {
            (lsn.to_string(), transaction.to_string())
        };
        format!(
            r#"{{"version":"3.7.0.Final","connector":"postgresql","name":"cdc","ts_ms":{milliseconds},"snapshot":"{snapshot}","db":"shop","sequence":"{sequence}","ts_us":{committed},"ts_ns":{committed}000,"schema":"public","table":"{table}","txId":{transaction},"lsn":{lsn},"xmin":null,"origin":null,"origin_lsn":null}}"#
        )
    }
}

fn object(table: &Table, columns: impl Iterator<Item = usize>, cell: impl Fn(usize) -> String) -> String {
    let members: Vec<String> =
        columns.map(|column| format!("{}:{}", quoted(&table.columns[column].name), cell(column))).collect();
    format!("{{{}}}", members.join(","))
}

fn cell(table: &Table, row: &Row, column: usize) -> String {
    row.get(&column).copied().unwrap_or(Value::Null).json(table.columns[column].kind)
}

fn key_columns(table: &Table) -> impl Iterator<Item = usize> {
    table.key.iter().filter_map(|name| table.columns.iter().position(|column| column.name == *name))
}

/// A key as JSON without schema block, as it stands in headers.
pub fn key_json(table: &Table, row: &Row) -> String {
    object(table, key_columns(table), |column| cell(table, row, column))
}

/// The record's key.
pub fn key(table: &Table, row: &Row, schema_block: bool) -> String {
    let payload = key_json(table, row);
    if !schema_block {
        return payload;
    }
    let fields = fields(table, key_columns(table));
    format!(
        r#"{{"schema":{{"type":"struct","fields":[{fields}],"optional":false,"name":"{}.Key"}},"payload":{payload}}}"#,
        table.topic
    )
}

fn fields(table: &Table, columns: impl Iterator<Item = usize>) -> String {
    let fields: Vec<String> = columns
        .map(|column| {
            let column = &table.columns[column];
            let (field, optional, name) = (column.kind.connect(), !column.key, quoted(&column.name));
            format!(r#"{{{field},"optional":{optional},"field":{name}}}"#)
        })
        .collect();
    fields.join(",")
}

fn envelope_schema(table: &Table) -> String {
    let topic = &table.topic;
    let row = format!(
        r#""type":"struct","fields":[{}],"optional":true,"name":"{topic}.Value""#,
        fields(table, table.live())
    );
    let source = r#""type":"struct","fields":[{"type":"string","optional":false,"field":"version"}],"optional":false,"name":"io.debezium.connector.postgresql.Source""#;
    format!(
        r#"{{"type":"struct","fields":[{{{row},"field":"before"}},{{{row},"field":"after"}},{{{source},"field":"source"}},{{"type":"string","optional":false,"field":"op"}}],"optional":false,"name":"{topic}.Envelope","version":2}}"#
    )
}

/// Metadata of a transaction.
pub fn transaction() -> String {
    r#"{"status":"BEGIN","id":"7:1","event_count":null,"data_collections":null,"ts_ms":1}"#.to_owned()
}

/// A message of `pg_logical_emit_message`.
pub fn message(lsn: i64) -> String {
    format!(
        r#"{{"op":"m","ts_ms":1,"source":{{"version":"3.7.0.Final","connector":"postgresql","name":"cdc","ts_ms":1,"snapshot":"false","db":"shop","schema":"","table":"","txId":null,"lsn":{lsn},"xmin":null}},"message":{{"prefix":"app","content":"AQID"}}}}"#
    )
}
