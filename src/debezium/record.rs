//! What goes into the decoder and what it says about each record.

use std::collections::HashMap;
use std::sync::Arc;

use crate::change::{Operation, Policies, TableId, TableSchema};

use super::configured::ConfiguredType;
use super::flattened::FlattenedOptions;
use super::modes::Modes;
use super::placeholder::DEFAULT_PLACEHOLDER;
use super::routes::Routes;

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
    /// All headers; looked at where the value is flattened, and says nothing of itself.
    pub headers: &'a dyn RecordHeaders,
}

/// The headers of a record, as whoever reads records keeps them.
pub trait RecordHeaders: std::fmt::Debug {
    /// Shows each header, in order: its name and its value.
    fn each<'h>(&'h self, see: &mut dyn FnMut(&'h [u8], Option<&'h [u8]>));
}

/// No headers.
impl RecordHeaders for () {
    fn each<'h>(&'h self, _: &mut dyn FnMut(&'h [u8], Option<&'h [u8]>)) {}
}

impl RecordHeaders for Vec<(String, Option<Vec<u8>>)> {
    fn each<'h>(&'h self, see: &mut dyn FnMut(&'h [u8], Option<&'h [u8]>)) {
        for (name, value) in self {
            see(name.as_bytes(), value.as_deref());
        }
    }
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
    /// What is done about truncates and about tables without key.
    pub policies: Policies,
    /// How flattened events are recognised.
    pub flattened: FlattenedOptions,
    /// Tables that take the rows of several tables of the source.
    pub routes: Routes,
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
            policies: Policies::default(),
            flattened: FlattenedOptions::default(),
            routes: Routes::default(),
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
    /// A truncate that is to be applied. Nothing was taken of it: it is to be given to
    /// [`Decoder::truncate`](super::Decoder::truncate) once its topic's other partitions have been read up to here.
    Truncate {
        /// Its place in the source's log; 0 where the event does not say.
        lsn: i64,
    },
    /// Not a change, by the named rule; the raw table has a row for those marked with *.
    ///
    /// `tombstone` (after the delete of its key), `tombstone_unknown_table` (there is no row of its table, or it repeats
    /// a delete of one of several; * where it is a delete of its own), `empty`
    /// (neither key nor value), `heartbeat`, `transaction`, `schema_change`, `notification`, `message`* (a logical
    /// decoding message), `truncate_ignored`* (as its table's policy says), `truncate_unknown_table`* (there is no row
    /// to take), `keyless_delete`* (of a table to which rows are only added).
    Filtered(&'static str),
}
