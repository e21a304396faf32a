//! What goes into the decoder and what it says about each record.

use std::collections::HashMap;
use std::sync::Arc;

use crate::change::{Operation, TableId, TableSchema};

use super::configured::ConfiguredType;
use super::modes::Modes;
use super::placeholder::DEFAULT_PLACEHOLDER;

/// One Kafka record, borrowed from the client.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    /// Topic name. Records of a topic that share one `Arc` are found faster.
    pub topic: &'a Arc<str>,
    /// Partition number.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Kafka timestamp, milliseconds since 1970 UTC.
    pub timestamp_ms: i64,
    /// Key bytes.
    pub key: Option<&'a [u8]>,
    /// Value bytes.
    pub value: Option<&'a [u8]>,
    /// Header `__debezium.newkey`: on the delete half of a key change, the key that the row has afterwards.
    pub new_key: Option<&'a [u8]>,
    /// Header `__debezium.oldkey`: on the create half of a key change, the key that the row had before.
    pub old_key: Option<&'a [u8]>,
}

/// How to decode.
#[derive(Debug, Clone)]
pub struct DecoderOptions {
    /// Whether to build rows of the raw table.
    pub raw: bool,
    /// Debezium's `unavailable.value.placeholder`.
    pub placeholder: String,
    /// Types of columns in events without schema block, by `schema.table` and column name.
    pub types: HashMap<String, HashMap<String, ConfiguredType>>,
    /// The connector's settings, where events do not say how values are written.
    pub modes: Modes,
    /// Who knows the types of the source's columns, for events without schema block.
    pub source: Option<Arc<dyn SourceTypes>>,
}

/// The types of the source's columns, read from its catalog.
pub trait SourceTypes: std::fmt::Debug + Send + Sync {
    /// The columns of a table by name; `None` where the source cannot be asked, or does not have the table. Asked when a
    /// table, or a column of it, is first seen; may block.
    fn of(&self, table: &TableId, modes: Modes) -> Option<HashMap<String, ConfiguredType>>;
}

impl Default for DecoderOptions {
    fn default() -> Self {
        Self {
            raw: true,
            placeholder: DEFAULT_PLACEHOLDER.to_owned(),
            types: HashMap::new(),
            modes: Modes::default(),
            source: None,
        }
    }
}

/// What the sink already has of a table, for events that do not carry a schema. Asked when a table, or
/// a column of it, is first seen.
pub trait KnownSchemas: Send {
    /// The table's schema, where the sink has the table.
    fn schema(&self, table: &TableId) -> Option<Arc<TableSchema>>;
}

impl<F: Fn(&TableId) -> Option<Arc<TableSchema>> + Send> KnownSchemas for F {
    fn schema(&self, table: &TableId) -> Option<Arc<TableSchema>> {
        self(table)
    }
}

/// What became of a record; each ends as exactly one of these, or as an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A change of a row.
    Change(Operation),
    /// Not a change, by the named rule: `tombstone` (after the delete of its key), `tombstone_unknown_table` (no row of
    /// its topic was seen yet), `empty` (neither key nor value), `heartbeat`, `transaction`, `schema_change`,
    /// `notification`, or `message` (a logical decoding message; it has a raw row).
    Filtered(&'static str),
}
