//! What is known of one topic: its schema blocks, its keys, and the layouts compiled for its tables.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::change::{TableId, TableSchema};

use super::bare::key_indexes;
use super::block::{Blocks, Wrapped, begins_with_schema};
use super::connect::{ConnectSchema, Described};
use super::envelope::{Envelope, Source, or_empty};
use super::fault::{Decoded, Fault};
use super::key::{KeyNames, Keys};
use super::modes::Modes;
use super::placeholder::Placeholder;
use super::refine::{Refinements, refined};
use super::row::Layout;
use super::tables::Tables;

/// Layouts kept for a topic; more are only needed where many partitioned tables share one.
const MOST_LAYOUTS: usize = 16;

/// The schema block of values.
#[derive(Debug)]
pub(super) struct ValueSchema {
    pub(super) name: Option<String>,
    row: Option<Described>,
    placeholders: Vec<Option<Arc<Placeholder>>>,
    /// Columns whose nulls may have been written as their default.
    suspects: Vec<Arc<str>>,
}

/// A value without its schema block.
#[derive(Debug)]
pub(super) struct Opened<'a> {
    pub(super) envelope: Envelope<'a>,
    pub(super) payload: &'a str,
    pub(super) schema: Option<Arc<ValueSchema>>,
}

/// One topic.
#[derive(Debug, Default)]
pub(super) struct Topic {
    /// Whether the name says that it holds heartbeats.
    pub(super) heartbeats: bool,
    pub(super) keys: Keys,
    /// The layout of the newest row, for tombstones, which do not name their table.
    pub(super) newest: Option<Arc<Layout>>,
    modes: Modes,
    values: Blocks<Arc<ValueSchema>>,
    layouts: Vec<(Arc<ValueSchema>, Arc<Layout>)>,
}

impl Topic {
    /// The topic of that name, written by a connector with these settings.
    pub(super) fn new(name: &str, modes: Modes) -> Self {
        Self { heartbeats: name.contains("__debezium-heartbeat"), modes, ..Self::default() }
    }

    /// Reads a value up to its rows; `None` where it, or its payload, is null.
    pub(super) fn open<'a>(&mut self, value: &'a [u8]) -> Decoded<Option<Opened<'a>>> {
        if let Some((payload, schema)) = self.values.find(value) {
            let payload = std::str::from_utf8(payload).map_err(|_| Fault::not_utf8("value"))?;
            // A failure here is looked at again with the whole value.
            if let Ok(envelope) = parse(payload) {
                return Ok(Some(Opened { envelope, payload, schema: Some(schema) }));
            }
        }
        let text = std::str::from_utf8(value).map_err(|_| Fault::not_utf8("value"))?;
        if begins_with_schema(value) {
            return self.open_wrapped(text);
        }
        if text.trim_ascii() == "null" {
            return Ok(None);
        }
        let envelope: Envelope<'_> = parse(text)?;
        // The order of `schema` and `payload` is not promised by producers other than Kafka Connect.
        if envelope.op.is_none() && envelope.source.is_none() && text.contains("\"payload\"") {
            return self.open_wrapped(text);
        }
        Ok(Some(Opened { envelope, payload: text, schema: None }))
    }

    fn open_wrapped<'a>(&mut self, text: &'a str) -> Decoded<Option<Opened<'a>>> {
        let wrapped: Wrapped<'a> =
            serde_json::from_str(text).map_err(|error| Fault::json("value", &error))?;
        let Some(payload) = wrapped.payload.map(RawValue::get) else { return Ok(None) };
        let envelope = parse(payload)?;
        let Some(block) = wrapped.schema else {
            return Ok(Some(Opened { envelope, payload, schema: None }));
        };
        let block = ConnectSchema::parse("value", block.get())?;
        let after = block.member("after");
        let row = after.map(|after| after.columns(self.modes)).transpose()?;
        let placeholders = after.map(ConnectSchema::placeholders).unwrap_or_default();
        let suspects = after.map(ConnectSchema::nullable_with_default).unwrap_or_default();
        let schema = Arc::new(ValueSchema { name: block.name, row, placeholders, suspects });
        self.values.learn(text.as_bytes(), payload, Arc::clone(&schema));
        Ok(Some(Opened { envelope, payload, schema: Some(schema) }))
    }

    /// The layout of a table's rows as a schema block describes them.
    pub(super) fn layout(
        &mut self,
        schema: &Arc<ValueSchema>,
        key_names: &KeyNames,
        source: &Source<'_>,
        tables: &mut Tables,
        refinements: Refinements<'_>,
    ) -> Decoded<Arc<Layout>> {
        let known = self.layouts.iter().find(|(of, layout)| {
            Arc::ptr_eq(of, schema)
                && Arc::ptr_eq(&layout.key_names, key_names)
                && names(source, &layout.table)
        });
        if let Some((_, layout)) = known {
            return Ok(Arc::clone(layout));
        }
        let table = table_of(source);
        let Some(described) = &schema.row else {
            return Err(Fault::new(
                crate::change::RecordErrorKind::InvalidSchema,
                "the schema block of the value describes no `after`",
            ));
        };
        let key = key_indexes(&described.columns, key_names, &table)?;
        let (columns, wires) = refined(described, &key, &table, refinements);
        let slot = tables.slot_of(&table);
        tables.suspect(slot, &schema.suspects);
        let layout = Arc::new(Layout {
            slot,
            table,
            schema: Arc::new(TableSchema::new(columns, key)),
            wires,
            key_names: Arc::clone(key_names),
            placeholders: schema.placeholders.clone(),
        });
        self.layouts.insert(0, (Arc::clone(schema), Arc::clone(&layout)));
        self.layouts.truncate(MOST_LAYOUTS);
        Ok(layout)
    }
}

/// The table that an event names.
pub(super) fn table_of(source: &Source<'_>) -> TableId {
    TableId::new(
        or_empty(source.db.as_ref()),
        or_empty(source.schema.as_ref()),
        or_empty(source.table.as_ref()),
    )
}

/// Whether an event names this table.
pub(super) fn names(source: &Source<'_>, table: &TableId) -> bool {
    or_empty(source.table.as_ref()) == table.table.as_ref()
        && or_empty(source.schema.as_ref()) == table.schema.as_ref()
        && or_empty(source.db.as_ref()) == table.database.as_ref()
}

fn parse(text: &str) -> Decoded<Envelope<'_>> {
    let envelope = serde_json::from_str(text).map_err(|error| Fault::json("value", &error))?;
    // Serde reads an array as the members of a struct in their order, too.
    if is_object(text) { Ok(envelope) } else { Err(Fault::no_object("value")) }
}

fn is_object(text: &str) -> bool {
    text.trim_ascii_start().starts_with('{')
}
