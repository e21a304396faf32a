//! What is known of one topic: its schema blocks, its keys, and the layouts compiled for its tables.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::change::{TableId, TableSchema};

use super::bare::key_indexes;
use super::block::{Blocks, Wrapped, begins_with_schema};
use super::connect::{ConnectSchema, Described};
use super::envelope::{Envelope, Integer, Source, Text, or_empty};
use super::fault::{Decoded, Fault};
use super::flattened::{self, FlattenedOptions};
use super::key::{KeyNames, Keys};
use super::modes::Modes;
use super::placeholder::Placeholder;
use super::record::RecordHeaders;
use super::refine::{Refinements, refined};
use super::routes::Routes;
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
    /// Whether it describes the row alone, without envelope.
    flattened: bool,
    /// Columns whose nulls may have been written as their default.
    suspects: Vec<Arc<str>>,
}

/// A value without its schema block.
#[derive(Debug)]
pub(super) struct Opened<'a> {
    pub(super) envelope: Envelope<'a>,
    pub(super) payload: &'a str,
    pub(super) schema: Option<Arc<ValueSchema>>,
    /// Whether it was a row without envelope; then the envelope is what the row's metadata fields and the topic say.
    pub(super) flattened: bool,
    /// Whether such a row says of itself whether it is deleted.
    pub(super) rewritten: bool,
}

/// What begins an event that is not wrapped, as Debezium writes it. Such a text need not be searched for its wrapping.
const FIRST_OF_EVENT: &str = "{\"before\":";

/// One topic.
#[derive(Debug)]
pub(super) struct Topic {
    /// Whether the name says that it holds heartbeats.
    pub(super) heartbeats: bool,
    pub(super) name: Arc<str>,
    /// Whether the settings say that its events are flattened.
    flattened: bool,
    /// What the names of metadata fields of flattened events begin with.
    prefix: Arc<str>,
    pub(super) keys: Keys,
    /// The layout of the newest row, for tombstones, which do not name their table.
    pub(super) newest: Option<Arc<Layout>>,
    /// Whether it has brought rows of more than one table.
    pub(super) several: bool,
    /// Whether its deletes are records with a value, as its newest rows say.
    repeats: Option<bool>,
    modes: Modes,
    values: Blocks<Arc<ValueSchema>>,
    layouts: Vec<(Arc<ValueSchema>, Arc<Layout>)>,
}

impl Topic {
    /// The topic of that name, written by a connector with these settings.
    pub(super) fn new(name: &Arc<str>, modes: Modes, options: &FlattenedOptions) -> Self {
        Self {
            modes,
            heartbeats: name.contains("__debezium-heartbeat"),
            name: Arc::clone(name),
            flattened: options.topics.matches(name),
            prefix: Arc::clone(&options.prefix),
            keys: Keys::default(),
            newest: None,
            several: false,
            repeats: None,
            values: Blocks::default(),
            layouts: Vec::new(),
        }
    }

    /// Schema and table that the topic's name ends with.
    pub(super) fn table(&self) -> (&str, &str) {
        flattened::table_of_topic(&self.name)
    }

    /// The newest row has another layout than the one before it.
    pub(super) fn follow(&mut self, layout: Arc<Layout>, opened: &Opened<'_>) {
        self.several |= self.newest.as_ref().is_some_and(|newest| is_another(&newest.table, &layout.table));
        // A flattened row that says whether it is deleted comes with those that are.
        self.repeats = Some(!opened.flattened || opened.rewritten);
        self.newest = Some(layout);
    }

    /// Whether its deletes are records with a value, so that a tombstone comes after each; `None` where nothing says so.
    /// `has_headers` is whether there are headers as the transformation that flattens events adds them.
    pub(super) fn repeats_deletes(&self, has_headers: bool) -> Option<bool> {
        let flattened = self.newest.as_ref().is_some_and(|newest| newest.metadata_prefix.is_some());
        if has_headers && !flattened {
            return Some(false);
        }
        self.repeats.or(self.flattened.then_some(false))
    }

    /// What the names of fields begin with that are no columns, in flattened events.
    pub(super) fn metadata_prefix(&self, opened: &Opened<'_>) -> Option<Arc<str>> {
        opened.flattened.then(|| Arc::clone(&self.prefix))
    }

    /// Reads a value up to its rows; `None` where it, or its payload, is null.
    pub(super) fn open<'a>(
        &mut self,
        value: &'a [u8],
        headers: &'a dyn RecordHeaders,
    ) -> Decoded<Option<Opened<'a>>> {
        if let Some((payload, schema)) = self.values.find(value) {
            let payload = std::str::from_utf8(payload).map_err(|_| Fault::not_utf8("value"))?;
            // A failure here is looked at again with the whole value.
            if let Ok(opened) = self.with_schema(payload, schema, headers) {
                return Ok(Some(opened));
            }
        }
        let text = std::str::from_utf8(value).map_err(|_| Fault::not_utf8("value"))?;
        if begins_with_schema(value) {
            return self.open_wrapped(text, headers);
        }
        if text.trim_ascii() == "null" {
            return Ok(None);
        }
        // The order of `schema` and `payload` is not promised by producers other than Kafka Connect.
        if !text.starts_with(FIRST_OF_EVENT)
            && text.contains("\"payload\"")
            && let Ok(Wrapped { schema: Some(_), payload: Some(_) }) = serde_json::from_str(text)
        {
            return self.open_wrapped(text, headers);
        }
        self.open_bare(text, headers).map(Some)
    }

    fn open_wrapped<'a>(
        &mut self,
        text: &'a str,
        headers: &'a dyn RecordHeaders,
    ) -> Decoded<Option<Opened<'a>>> {
        let wrapped: Wrapped<'a> =
            serde_json::from_str(text).map_err(|error| Fault::json("value", &error))?;
        let Some(payload) = wrapped.payload.map(RawValue::get) else { return Ok(None) };
        let Some(block) = wrapped.schema else { return self.open_bare(payload, headers).map(Some) };
        let block = ConnectSchema::parse("value", block.get())?;
        let schema = Arc::new(self.value_schema(block)?);
        let opened = self.with_schema(payload, Arc::clone(&schema), headers)?;
        self.values.learn(text.as_bytes(), payload, schema);
        Ok(Some(opened))
    }

    fn value_schema(&self, block: ConnectSchema) -> Decoded<ValueSchema> {
        let after = block.member("after");
        let enveloped = block.member("op").is_some() && after.is_some_and(ConnectSchema::is_struct);
        let of_row = || {
            let named = block.name.as_deref().is_some_and(|name| name.ends_with(".Value"));
            let metadata = |name: &str| flattened::is_metadata(name, &self.prefix);
            named || self.flattened || block.field_names().any(metadata)
        };
        let flattened = !enveloped && block.is_struct() && of_row();
        let of_rows = if flattened { Some(&block) } else { after };
        let suspects = of_rows.map(ConnectSchema::nullable_with_default).unwrap_or_default();
        let row = match after {
            _ if flattened => Some(without_metadata(block.columns(self.modes)?, &self.prefix)),
            after => after.map(|after| after.columns(self.modes)).transpose()?,
        };
        let mut placeholders = of_rows.map(ConnectSchema::placeholders).unwrap_or_default();
        if flattened {
            let mut names = block.field_names();
            placeholders
                .retain(|_| names.next().is_none_or(|name| !flattened::is_metadata(name, &self.prefix)));
        }
        Ok(ValueSchema { name: block.name, row, placeholders, flattened, suspects })
    }

    fn with_schema<'a>(
        &self,
        payload: &'a str,
        schema: Arc<ValueSchema>,
        headers: &'a dyn RecordHeaders,
    ) -> Decoded<Opened<'a>> {
        if schema.flattened {
            let metadata = flattened::metadata(payload, &self.prefix)?.or(self.said_in(headers));
            return self.flat(payload, Some(schema), metadata);
        }
        let envelope = parse(payload)?;
        Ok(Opened { envelope, payload, schema: Some(schema), flattened: false, rewritten: false })
    }

    fn open_bare<'a>(&self, text: &'a str, headers: &'a dyn RecordHeaders) -> Decoded<Opened<'a>> {
        let envelope = parse(text);
        let is_event = envelope.as_ref().is_ok_and(|event| event.op.is_some() && event.source.is_some());
        if !is_event && let Ok(metadata) = flattened::metadata(text, &self.prefix) {
            let metadata = metadata.or(self.said_in(headers));
            let other = || super::envelope::purpose(None, text).is_some();
            if self.flattened || (metadata.any && !other()) {
                return self.flat(text, None, metadata);
            }
        }
        Ok(Opened { envelope: envelope?, payload: text, schema: None, flattened: false, rewritten: false })
    }

    /// What headers say of a flattened event.
    pub(super) fn said_in<'a>(&self, headers: &'a dyn RecordHeaders) -> flattened::Metadata<'a> {
        flattened::said_in(headers, &self.prefix)
    }

    /// A row without envelope as if it had one.
    fn flat<'a>(
        &self,
        payload: &'a str,
        schema: Option<Arc<ValueSchema>>,
        metadata: flattened::Metadata<'a>,
    ) -> Decoded<Opened<'a>> {
        let row: &RawValue = serde_json::from_str(payload).map_err(|error| Fault::json("value", &error))?;
        if !is_object(payload) {
            return Err(Fault::no_object("value"));
        }
        let flattened::Metadata { op, deleted, mut source, .. } = metadata;
        let (schema_name, table) = self.table();
        let named = |name: &str| Some(Text(name.to_owned().into()));
        source.table = source.table.take().or_else(|| named(table));
        source.schema = source.schema.take().or_else(|| named(schema_name));
        let op = if deleted == Some(true) { "d" } else { op.as_ref().map_or("u", Text::as_str) };
        let (before, after) = if op == "d" { (Some(row), None) } else { (None, Some(row)) };
        let op = named(op);
        let envelope = Envelope { before, after, source: Some(source), op, ts_ms: Integer::default() };
        Ok(Opened { envelope, payload, schema, flattened: true, rewritten: deleted.is_some() })
    }

    /// The layout of a table's rows as a schema block describes them.
    pub(super) fn layout(
        &mut self,
        opened: &Opened<'_>,
        schema: &Arc<ValueSchema>,
        key_names: &KeyNames,
        (source, routes): (&Source<'_>, &Routes),
        tables: &mut Tables,
        refinements: Refinements<'_>,
    ) -> Decoded<Arc<Layout>> {
        let known = self.layouts.iter().find(|(of, layout)| {
            Arc::ptr_eq(of, schema)
                && Arc::ptr_eq(&layout.key_names, key_names)
                && names(source, &layout.source)
        });
        if let Some((_, layout)) = known {
            return Ok(Arc::clone(layout));
        }
        let source = table_of(source);
        let table = routes.of(&source).unwrap_or_else(|| source.clone());
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
            source,
            schema: Arc::new(TableSchema::new(columns, key)),
            wires,
            key_names: Arc::clone(key_names),
            placeholders: schema.placeholders.clone(),
            metadata_prefix: self.metadata_prefix(opened),
        });
        self.layouts.insert(0, (Arc::clone(schema), Arc::clone(&layout)));
        self.layouts.truncate(MOST_LAYOUTS);
        Ok(layout)
    }
}

/// Whether two names are of two tables; events that were told to name their database from then on name the same one.
fn is_another(one: &TableId, other: &TableId) -> bool {
    let databases = [&one.database, &other.database];
    let named = databases.iter().all(|database| !database.is_empty());
    one.table != other.table || one.schema != other.schema || (named && one.database != other.database)
}

/// The columns that are not metadata fields.
fn without_metadata(mut described: Described, prefix: &str) -> Described {
    let is_column: Vec<bool> =
        described.columns.iter().map(|column| !flattened::is_metadata(&column.name, prefix)).collect();
    let mut keep = is_column.iter().copied().cycle();
    described.columns.retain(|_| keep.next().unwrap_or(true));
    described.wires.retain(|_| keep.next().unwrap_or(true));
    described.once_text.retain(|_| keep.next().unwrap_or(true));
    described
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
