//! What a lane asks of a sink.
//!
//! The contract: [`Sink::commit`] makes the batch's data and its spans durable together, or neither. It compares the
//! stored position of each partition with the one the lane believes in, and answers [`SinkError::Fenced`] where they
//! differ, because then another instance has written. Rows before the stored position are skipped: they are in the sink.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::Arc;

use super::quarantine::{Ledger, QuarantineRow, RecordPlace};
use super::{Batch, Operation, Progress, RecordErrorKind, TableId, TableSchema, TopicPartition};

/// The schema of a table, where the sink has the table.
pub type KnownSchemas = Box<dyn Fn(&TableId) -> Option<Arc<TableSchema>> + Send>;

/// Which tables a sink had when it was last loaded.
#[derive(Debug, Clone, Default)]
pub struct KnownTables {
    /// The tables that had rows, under the very names that their events gave, each with the topics that its rows came
    /// from; `None` where the sink does not keep that.
    pub tables: HashMap<TableId, Option<BTreeSet<Arc<str>>>>,
    /// Topics that were read before, into any of the tables that do not say where their rows came from.
    pub read: BTreeSet<Arc<str>>,
}

/// Where changes go: the lake, or one Postgres mirror.
pub trait Sink: Send + 'static {
    /// Reads what is durably stored: for each partition the position from which a lane has to read, which is the
    /// smallest of the positions of all tables that the partition feeds. What the sink held in memory is forgotten.
    fn load(&mut self) -> impl Future<Output = Result<Progress, SinkError>> + Send;

    /// Reads the same while batches are in flight, because partitions were assigned. Tables that have stopped stay
    /// stopped: what follows their refused part may be on its way already, and would be written behind a gap.
    fn reload(&mut self) -> impl Future<Output = Result<Progress, SinkError>> + Send;

    /// These partitions are another instance's from now on: what is still to be stored of them is its business.
    fn release(&mut self, partitions: &[TopicPartition]);

    /// Makes a batch durable. `Ok` also where some tables refused their part: they are named in
    /// [`CommitReport::stopped`], and neither their data nor the positions of the topics that feed them have moved.
    ///
    /// A sink whose error was [`SinkError::Retry`] is asked again with the same batch.
    fn commit(&mut self, batch: &Batch) -> impl Future<Output = Result<CommitReport, SinkError>> + Send;

    /// Answers with the schema of a table as the sink had it at the last [`Sink::load`], for events that do not carry
    /// one. A value of its own, because it is asked on the decoding thread.
    fn known_schemas(&self) -> KnownSchemas;

    /// The tables that had rows in the sink at the last [`Sink::load`].
    fn known_tables(&self) -> KnownTables;

    /// Whether a table that has stopped may be able to go on, because somebody did what it waits for. The lane then
    /// starts over from [`Sink::load`]. Asked now and then while tables are stopped; has to be cheap. A sink whose tables
    /// wait for nobody has nothing to look at.
    fn look_again(&mut self) -> impl Future<Output = Result<bool, SinkError>> + Send {
        std::future::ready(Ok(false))
    }
    /// The state of every record that the sink has in quarantine, as it is stored now: commands write there, too.
    fn quarantine(&mut self) -> impl Future<Output = Result<Arc<Ledger>, SinkError>> + Send {
        std::future::ready(Ok(Arc::default()))
    }

    /// Records in quarantine as they came. Those that are not there are left out.
    fn quarantined(
        &mut self,
        places: &[RecordPlace],
    ) -> impl Future<Output = Result<Vec<QuarantineRow>, SinkError>> + Send {
        let _ = places;
        std::future::ready(Ok(Vec::new()))
    }

    /// Work between batches: compaction, checkpoints, clean-up. Bounded; called when the lane is idle and every
    /// few commits.
    fn maintain(&mut self) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// What is left to do when a lane has come to its end by itself: where it runs for a moment every hour, work beside
    /// the batches would otherwise never be done. Nobody waits for it who was asked to stop.
    fn finish(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// What the sink's tables are like now, and what was written since the last call: for the metrics.
    fn figures(&mut self) -> SinkFigures {
        SinkFigures::default()
    }
}

/// What a sink's tables are like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SinkFigures {
    /// By table.
    pub tables: BTreeMap<String, TableFigures>,
    /// Files that the vacuum removed since the last call.
    pub vacuumed_files: u64,
    /// And their bytes.
    pub vacuumed_bytes: u64,
    /// Tables that the vacuum could not do since then.
    pub failed_vacuums: u64,
}

/// What one table is like, and what was written to it since the last call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableFigures {
    /// Files of the newest version.
    pub live_files: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Bytes of the deletion vectors of the newest version.
    pub live_vectors: u64,
    /// Rows and files of batches.
    pub batches: Written,
    /// What compaction wrote anew.
    pub compaction: Written,
    /// Steps of compaction that failed.
    pub failed_compactions: u64,
    /// Checkpoints that could not be written.
    pub failed_checkpoints: u64,
    /// Its key index, where it has one that is open.
    pub index: Option<IndexFigures>,
}

/// What the key index of a table is like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IndexFigures {
    /// Entries: one for each key, in tables without key more.
    pub keys: u64,
    /// Bytes of its mapped files.
    pub bytes: u64,
    /// Times that it was built from the table's files since the last call.
    pub rebuilds: u64,
}

/// Rows and bytes of files that were written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows.
    pub rows: u64,
    /// Bytes of data files and of deletion vectors.
    pub bytes: u64,
    /// Those of the deletion vectors alone.
    pub vectors: u64,
}

impl std::ops::AddAssign for Written {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.bytes += other.bytes;
        self.vectors += other.vectors;
    }
}

/// Why a commit did not happen, by what the lane does about it.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The sink is away or busy: try the same batch again, later.
    #[error("{message}")]
    Retry {
        /// Class for the metric, for example `connection`, `storage`, `conflict`.
        class: &'static str,
        /// What happened.
        message: String,
    },
    /// Another instance has moved a position: forget what is in flight and read the progress again.
    #[error(
        "another instance has written to {table}: expected position {expected} of {partition}, found {found}"
    )]
    Fenced {
        /// The table or sink whose position moved.
        table: String,
        /// `topic/partition`
        partition: String,
        /// The position that this instance believed in.
        expected: i64,
        /// The stored one.
        found: i64,
    },
    /// Nothing that waiting would cure: the lane stops and says so.
    #[error("{message}")]
    Stop {
        /// What happened and what to do.
        message: String,
    },
}

/// What a commit did.
#[derive(Debug, Clone, Default)]
pub struct CommitReport {
    /// By table, what was written.
    pub tables: BTreeMap<String, TableReport>,
    /// Tables that refused their part, with the reason and what to do.
    pub stopped: BTreeMap<TableId, String>,
    /// Conflicts with other writers that were resolved on the way.
    pub conflicts: u64,
    /// Changes that the sink refused and has put into its quarantine.
    pub refused: Vec<RefusedChange>,
    /// Records that the sink refused before and that changes of this batch have superseded.
    pub superseded: Vec<RecordPlace>,
}

/// A change that a sink refused, while it took the others.
#[derive(Clone, PartialEq, Eq)]
pub struct RefusedChange {
    /// Its record.
    pub place: RecordPlace,
    /// Its table.
    pub table: TableId,
    /// What it would have done.
    pub operation: Operation,
    /// Why.
    pub kind: RecordErrorKind,
    /// Why in words, without row values.
    pub detail: String,
    /// The key of its row as JSON text, where it is known.
    pub row_key: Option<String>,
    /// Whether a later change of the same batch has superseded it.
    pub superseded: bool,
}

/// Without the row's key.
impl std::fmt::Debug for RefusedChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RefusedChange")
            .field("place", &self.place.to_string())
            .field("table", &self.table)
            .field("operation", &self.operation)
            .field("kind", &self.kind)
            .field("detail", &self.detail)
            .finish_non_exhaustive()
    }
}

/// A row with cells that were stored as null although the source says of them only that they did not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnresolvedRow {
    /// Partition of the record that the row was last changed by.
    pub partition: TopicPartition,
    /// Its offset.
    pub offset: i64,
    /// Names of the columns.
    pub columns: Vec<Arc<str>>,
}

/// What a commit did to one table.
#[derive(Debug, Clone, Default)]
pub struct TableReport {
    /// Rows inserted or updated, after folding.
    pub upserted: u64,
    /// Keys deleted, after folding.
    pub deleted: u64,
    /// Whether a truncate emptied the table.
    pub truncated: bool,
    /// Rows appended (raw table).
    pub appended: u64,
    /// Cells that were absent and whose row did not exist: stored as null.
    pub unresolved_absent: u64,
    /// Where the newest of them are.
    pub unresolved: Vec<UnresolvedRow>,
    /// Kinds of schema changes that the table has followed, or was told to ignore.
    pub schema_changes: Vec<&'static str>,
    /// Deletes of rows that the table did not have, where it can tell: nothing was written.
    pub unknown_deletes: u64,
    /// Changes that did nothing, because the row has a later one from another of the table's sources.
    pub late: u64,
    /// Offsets of those, where the batch is a replay.
    pub late_replays: Vec<i64>,
    /// Time the commit took.
    pub duration: std::time::Duration,
    /// Version of the table after it, where the sink has versions.
    pub version: Option<i64>,
}
