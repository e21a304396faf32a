//! The shop's changes as Debezium's Postgres connector writes them: JSON with schema block, member for member in the
//! order in which version 3.7.0 was recorded to write them.
//!
//! A delete is followed by a tombstone. Tables have the default replica identity, so that `before` is null but for
//! deletes, where all that is not the key is null or made up; and an update leaves an unchanged out-of-line value out.

use std::fmt::Write as _;

use super::shop::RowChange;
use super::tables::{Key, Row, ShopTable, TABLES, Value};
use super::wire;
use crate::change::{Operation, TableSchema};

/// `topic.prefix` of the connector: topics are `demo.public.<table>`.
pub const TOPIC_PREFIX: &str = "demo";

/// `source.db` of the events.
pub const DATABASE: &str = "shop";

/// `source.schema` of the events.
pub const SCHEMA: &str = "public";

/// Name and value of the headers that the connector gives every record.
pub const HEADERS: [(&str, &str); 4] = [
    ("__debezium.context.connectorLogicalName", TOPIC_PREFIX),
    ("__debezium.context.taskId", "0"),
    ("__debezium.context.connectorName", "postgresql"),
    ("__debezium.context.runId", "01a206e4-6212-73e8-b30e-9e2ead06751f"),
];

/// The topic of a table.
pub fn topic(table: ShopTable) -> String {
    format!("{TOPIC_PREFIX}.{SCHEMA}.{}", table.name())
}

/// Where and when the database made a change.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// Commit time (of the snapshot: its time), microseconds since 1970 UTC.
    pub committed_micros: i64,
    /// Time at which the connector wrote the event, microseconds since 1970 UTC.
    pub processed_micros: i64,
    /// `false` while streaming; in the snapshot `first`, `first_in_data_collection`, `true`,
    /// `last_in_data_collection` or `last`.
    pub snapshot: &'static str,
    /// Transaction id.
    pub tx_id: i64,
    /// Position of the change in the write-ahead log.
    pub lsn: i64,
    /// Position of the last commit before it; none in the snapshot.
    pub last_commit_lsn: Option<i64>,
}

/// One record; `tombstone` says that another one with the same key and without a value follows it.
#[derive(Debug)]
pub struct Event<'a> {
    /// The key's JSON.
    pub key: &'a str,
    /// The value's JSON.
    pub value: &'a str,
    /// Whether a tombstone follows.
    pub tombstone: bool,
}

/// Writes events, one at a time, into buffers that it keeps.
#[derive(Debug)]
pub struct EventWriter {
    key_prefixes: [String; 4],
    value_prefixes: [String; 4],
    key: String,
    value: String,
}

impl EventWriter {
    /// A writer for the shop's tables.
    pub fn new() -> Self {
        Self {
            key_prefixes: TABLES.map(key_prefix),
            value_prefixes: TABLES.map(value_prefix),
            key: String::new(),
            value: String::new(),
        }
    }

    /// The event of a change.
    pub fn write(&mut self, change: &RowChange, origin: &Origin) -> Event<'_> {
        let table = change.table;
        let schema = table.schema();
        self.key.clear();
        self.key.push_str(self.key_prefixes.get(table.index()).map_or("", String::as_str));
        write_key(&mut self.key, schema, change.key);
        self.key.push('}');

        let out = &mut self.value;
        out.clear();
        out.push_str(self.value_prefixes.get(table.index()).map_or("", String::as_str));
        out.push_str("{\"before\":");
        if let Some(row) = &change.after {
            out.push_str("null,\"after\":");
            write_row(out, schema, row, change.unchanged);
        } else {
            write_old_key(out, schema, change.key);
            out.push_str(",\"after\":null");
        }
        write_source(out, table, origin);
        let micros = origin.processed_micros;
        let _ = write!(
            out,
            r#","transaction":null,"op":"{}","ts_ms":{},"ts_us":{micros},"ts_ns":{micros}000}}}}"#,
            change.operation.code(),
            micros / 1_000,
        );
        Event { key: &self.key, value: &self.value, tombstone: change.operation == Operation::Delete }
    }
}

impl Default for EventWriter {
    fn default() -> Self {
        Self::new()
    }
}

fn write_source(out: &mut String, table: ShopTable, origin: &Origin) {
    let Origin { committed_micros, snapshot, tx_id, lsn, .. } = origin;
    let last_commit = origin.last_commit_lsn.map_or("null".to_owned(), |lsn| format!(r#"\"{lsn}\""#));
    let _ = write!(
        out,
        concat!(
            r#","source":{{"version":"3.7.0.Final","connector":"postgresql","name":"{name}","ts_ms":{millis},"#,
            r#""snapshot":"{snapshot}","db":"{db}","sequence":"[{last_commit},\"{lsn}\"]","ts_us":{micros},"#,
            r#""ts_ns":{micros}000,"schema":"{schema}","table":"{table}","txId":{tx_id},"lsn":{lsn},"#,
            r#""xmin":null,"origin":null,"origin_lsn":null}}"#
        ),
        name = TOPIC_PREFIX,
        millis = committed_micros / 1_000,
        snapshot = snapshot,
        db = DATABASE,
        last_commit = last_commit,
        lsn = lsn,
        micros = committed_micros,
        schema = SCHEMA,
        table = table.name(),
        tx_id = tx_id,
    );
}

fn key_values(key: Key) -> [Value; 2] {
    [Value::Int64(key.0), Value::Int32(key.1)]
}

fn write_key(out: &mut String, schema: &TableSchema, key: Key) {
    for (index, (name, value)) in schema.key_names().zip(key_values(key)).enumerate() {
        let _ = write!(out, "{}\"{name}\":", if index == 0 { '{' } else { ',' });
        wire::value(out, &value);
    }
    out.push('}');
}

fn write_old_key(out: &mut String, schema: &TableSchema, key: Key) {
    for (index, column) in schema.columns().iter().enumerate() {
        let _ = write!(out, "{}\"{}\":", if index == 0 { '{' } else { ',' }, column.name);
        let part = schema.key().iter().position(|&part| part == index);
        match part.and_then(|part| key_values(key).into_iter().nth(part)) {
            Some(value) => wire::value(out, &value),
            None => out.push_str(wire::fabricated(column)),
        }
    }
    out.push('}');
}

fn write_row(out: &mut String, schema: &TableSchema, row: &Row, unchanged: Option<usize>) {
    for (index, (column, value)) in schema.columns().iter().zip(row).enumerate() {
        let _ = write!(out, "{}\"{}\":", if index == 0 { '{' } else { ',' }, column.name);
        if unchanged == Some(index) {
            wire::string(out, wire::UNAVAILABLE);
        } else {
            wire::value(out, value);
        }
    }
    out.push('}');
}

/// All of a key's JSON before its values.
fn key_prefix(table: ShopTable) -> String {
    let schema = table.schema();
    let mut out = String::from(r#"{"schema":{"type":"struct","fields":["#);
    for (index, &column) in schema.key().iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        if let Some(column) = schema.columns().get(column) {
            wire::field(&mut out, column);
        }
    }
    let _ = write!(out, r#"],"optional":false,"name":"{}.Key"}},"payload":"#, topic(table));
    out
}

/// All of a value's JSON before its payload.
fn value_prefix(table: ShopTable) -> String {
    let topic = topic(table);
    let mut out = String::from(r#"{"schema":{"type":"struct","fields":["#);
    for side in ["before", "after"] {
        out.push_str(r#"{"type":"struct","fields":["#);
        for (index, column) in table.schema().columns().iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            wire::field(&mut out, column);
        }
        let _ = write!(out, r#"],"optional":true,"name":"{topic}.Value","field":"{side}"}},"#);
    }
    out.push_str(ENVELOPE_FIELDS);
    let _ = write!(out, r#"],"optional":false,"name":"{topic}.Envelope","version":2}},"payload":"#);
    out
}

/// The fields of the envelope that are the same for every table, from a recorded event of the connector.
const ENVELOPE_FIELDS: &str = concat!(
    r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"version"},"#,
    r#"{"type":"string","optional":false,"field":"connector"},{"type":"string","optional":false,"field":"name"},"#,
    r#"{"type":"int64","optional":false,"field":"ts_ms"},"#,
    r#"{"type":"string","optional":true,"name":"io.debezium.data.Enum","version":1,"parameters":{"allowed":"#,
    r#""true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"},"#,
    r#""default":"false","field":"snapshot"},{"type":"string","optional":false,"field":"db"},"#,
    r#"{"type":"string","optional":true,"field":"sequence"},{"type":"int64","optional":true,"field":"ts_us"},"#,
    r#"{"type":"int64","optional":true,"field":"ts_ns"},{"type":"string","optional":false,"field":"schema"},"#,
    r#"{"type":"string","optional":false,"field":"table"},{"type":"int64","optional":true,"field":"txId"},"#,
    r#"{"type":"int64","optional":true,"field":"lsn"},{"type":"int64","optional":true,"field":"xmin"},"#,
    r#"{"type":"string","optional":true,"field":"origin"},{"type":"int64","optional":true,"field":"origin_lsn"}],"#,
    r#""optional":false,"name":"io.debezium.connector.postgresql.Source","version":1,"field":"source"},"#,
    r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"id"},"#,
    r#"{"type":"int64","optional":false,"field":"total_order"},"#,
    r#"{"type":"int64","optional":false,"field":"data_collection_order"}],"#,
    r#""optional":true,"name":"event.block","version":1,"field":"transaction"},"#,
    r#"{"type":"string","optional":false,"field":"op"},{"type":"int64","optional":true,"field":"ts_ms"},"#,
    r#"{"type":"int64","optional":true,"field":"ts_us"},{"type":"int64","optional":true,"field":"ts_ns"}"#
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::shop::{Shop, ShopSize};

    /// `{"key": …, "value": …}` a line, of a snapshot read, an update and a delete of table `inv.composite`, as
    /// Debezium 3.7.0 wrote them to topic `d1.inv.composite`.
    const RECORDED: &str = include_str!("recorded.jsonl");

    const ORIGIN: Origin = Origin {
        committed_micros: 1_795_411_995_104_544,
        processed_micros: 1_795_411_995_587_046,
        snapshot: "false",
        tx_id: 771,
        lsn: 23_781_416,
        last_commit_lsn: Some(23_781_256),
    };

    /// Cuts what lies between the marks, wherever they come.
    fn cut(mut text: &str, from: &str, to: &str) -> String {
        let mut kept = String::new();
        while let Some(start) = text.find(from) {
            let (before, after) = text.split_at(start + from.len());
            kept.push_str(before);
            text =
                &after[after.find(to).unwrap_or_else(|| panic!("{to} does not follow {from} in {after}"))..];
        }
        kept + text
    }

    /// What all tables have in common: text without names, columns, row values and numbers.
    fn skeleton(text: &str, names: [&str; 4]) -> String {
        let [topic, server, database, table] = names;
        let mut text = text.replace(topic, "TOPIC");
        for (from, to) in [(server, "SERVER"), (database, "DB"), (table, "TABLE")] {
            text = text.replace(&format!("\"{from}\""), &format!("\"{to}\""));
        }
        text = text.replace("\"schema\":\"inv\"", "\"schema\":\"public\"");
        text = cut(&text, "\"before\":{", "},\"after\"");
        text = cut(&text, "\"after\":{", "},\"source\"");
        // The columns come before the name of the struct they belong to; the struct before it is the envelope's.
        let mut kept = String::new();
        for part in text.split_inclusive(r#"],"optional":true,"name":"TOPIC.Value""#) {
            let columns = part.rfind(r#"{"type":"struct","fields":["#).filter(|_| part.ends_with("Value\""));
            kept.push_str(columns.map_or(part, |columns| &part[..columns]));
        }
        kept.split(|c: char| c.is_ascii_digit()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("0")
    }

    fn change(operation: Operation) -> RowChange {
        let mut shop = Shop::open(1, ShopSize::default(), ORIGIN.committed_micros);
        if operation == Operation::Read {
            return shop.snapshot().next().unwrap();
        }
        let mut changes = (0..).flat_map(|_| shop.transact(ORIGIN.committed_micros));
        changes.find(|change| change.operation == operation).unwrap()
    }

    #[test]
    fn events_equal_recorded_ones_but_for_names_columns_and_numbers() {
        let mut writer = EventWriter::new();
        let read = Origin { snapshot: "first_in_data_collection", last_commit_lsn: None, ..ORIGIN };
        let kinds = [(Operation::Read, read), (Operation::Update, ORIGIN), (Operation::Delete, ORIGIN)];
        for (line, (operation, origin)) in RECORDED.lines().zip(kinds) {
            let recorded: serde_json::Value = serde_json::from_str(line).unwrap();
            let recorded = recorded["value"].as_str().unwrap();
            let change = change(operation);
            let event = writer.write(&change, &origin);
            let ours =
                skeleton(event.value, [&topic(change.table), TOPIC_PREFIX, DATABASE, change.table.name()]);
            let theirs = skeleton(recorded, ["d1.inv.composite", "d1", "postgres", "composite"]);
            assert_eq!(ours, theirs, "{operation:?}");
            assert_eq!(event.tombstone, operation == Operation::Delete);
        }
    }

    #[test]
    fn keys_and_rows_have_the_members_that_the_schema_block_lists() {
        let mut writer = EventWriter::new();
        let mut shop = Shop::open(2, ShopSize::default(), 0);
        let changes = (0..2_000).flat_map(|_| shop.transact(ORIGIN.committed_micros));
        for change in changes {
            let event = writer.write(&change, &ORIGIN);
            let key: serde_json::Value = serde_json::from_str(event.key).unwrap();
            let value: serde_json::Value = serde_json::from_str(event.value).unwrap();
            let side = if event.tombstone { "before" } else { "after" };
            for (block, row) in [
                (&key["schema"]["fields"], &key["payload"]),
                (
                    &value["schema"]["fields"][usize::from(!event.tombstone)]["fields"],
                    &value["payload"][side],
                ),
            ] {
                let mut fields: Vec<_> =
                    block.as_array().unwrap().iter().map(|field| field["field"].as_str().unwrap()).collect();
                fields.sort_unstable();
                assert_eq!(fields, row.as_object().unwrap().keys().collect::<Vec<_>>(), "{}", event.value);
            }
            assert_eq!(value["payload"]["op"], change.operation.code());
            if let Some(column) = change.unchanged {
                let name = change.table.schema().columns()[column].name.as_ref();
                assert_eq!(value["payload"]["after"][name], wire::UNAVAILABLE);
            }
        }
    }

    #[test]
    fn a_composite_key_and_its_schema_are_written_as_recorded() {
        let recorded: serde_json::Value = serde_json::from_str(RECORDED.lines().next().unwrap()).unwrap();
        let recorded = recorded["key"].as_str().unwrap();
        let mut writer = EventWriter::new();
        let change = RowChange {
            table: ShopTable::OrderItems,
            operation: Operation::Delete,
            key: (1, 7),
            after: None,
            unchanged: None,
        };
        let expected = recorded
            .replace("d1.inv.composite", "demo.public.order_items")
            .replace(
                r#""type":"int32","optional":false,"field":"a""#,
                r#""type":"int64","optional":false,"field":"order_id""#,
            )
            .replace(
                r#""type":"string","optional":false,"field":"b""#,
                r#""type":"int32","optional":false,"field":"line""#,
            )
            .replace(r#"{"a":1,"b":"x"}"#, r#"{"order_id":1,"line":7}"#);
        assert_eq!(writer.write(&change, &ORIGIN).key, expected);
    }
}
