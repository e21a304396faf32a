//! A current table: opening or creating it, evolving it, and bringing a batch into it exactly once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deltalake::DeltaTable;

use super::action::Entry;
use super::audit::{SchemaChangeEntry, changes_of};
use super::compaction::{Pressure, Target};
use super::create::{self, TableProperties};
use super::error::LakeError;
use super::evolve;
use super::location::collision;
use super::log::{Log, Outcome};
use super::mor::{MergeOnRead, Upserted, Upserts};
use super::progress::Positions;
use super::schema::{DeltaSchema, PIPELINE, table_schema};
use super::shape::Shape;
use super::snapshot::Snapshot;
use super::soft;
use super::table::{ATTEMPTS, Advance, Table, Writer, txns};
use crate::change::{
    Batch, ChangeBatch, Described, Folded, KeyLedger, Lineage, TableFigures, TableId, TablePolicy,
    TableReport, TableSchema, fold_onto,
};

/// A table that gets no rows stores its positions this often, while its topics bring records for others.
const POSITIONS_ONLY: Duration = Duration::from_mins(1);

/// A Delta table whose rows equal the source table's.
#[derive(Debug)]
pub(super) struct CurrentTable {
    pub(super) id: TableId,
    pub(super) table: Table,
    pub(super) schema: Arc<TableSchema>,
    /// What its rows have besides.
    pub(super) shape: Shape,
    /// What is declared for it.
    pub(super) policy: TablePolicy,
    /// What is remembered of the schemas of its events.
    pub(super) lineage: Lineage,
    /// What its properties say of the newest changes of its schema.
    pub(super) changes: Vec<SchemaChangeEntry>,
    /// Topics whose changes went to this table: its commits cover their partitions.
    topics: BTreeSet<Arc<str>>,
    /// Index and vectors; `None` where the table is to be written by the library.
    pub(super) merge_on_read: Option<MergeOnRead>,
    /// Why the table was last left to the library, so that it is said once.
    pub(super) obstacle: Option<String>,
    /// Whether the source's snapshot is being read into it.
    pub(super) reading: Snapshot,
    /// The library's snapshot that the next merge starts from.
    pub(super) snapshot: Option<DeltaTable>,
    /// When a position was last stored, or the table opened.
    pub(super) stored: Option<Instant>,
}

/// How an attempt at a batch ended.
enum Attempted {
    /// It is in the table, after so many conflicts.
    Written(Box<TableReport>, u64),
    /// The table had all of it.
    Nothing,
    /// Another writer came between: look again.
    Overtaken,
}

impl CurrentTable {
    /// Takes over an open table.
    ///
    /// # Errors
    /// Where it is not a current table of this pipeline.
    pub(super) fn new(table: Table, upserts: &Upserts, writer: &Writer) -> Result<Self, LakeError> {
        let folder = table.log.table().to_owned();
        let configuration = &table.state.metadata().configuration;
        let id = create::source_of(configuration);
        let pipeline = configuration.get(PIPELINE);
        let (Some(id), true) = (id, pipeline == Some(&writer.pipeline)) else {
            return Err(LakeError::Refused(format!(
                "the folder {folder:?} holds a Delta table of {}; move it away or set lake.uri or lake.layout to another place",
                pipeline.map_or("somebody else".to_owned(), |name| format!("the pipeline {name:?}"))
            )));
        };
        let topics = Positions::of(&writer.pipeline, table.state.txns()).topics();
        let mut current = Self {
            merge_on_read: upserts.merge_on_read(&id),
            policy: upserts.policy(&id).clone(),
            id,
            table,
            schema: empty_schema(),
            shape: Shape::default(),
            lineage: Lineage::default(),
            changes: Vec::new(),
            topics,
            obstacle: None,
            reading: Snapshot::default(),
            snapshot: None,
            stored: Some(Instant::now()),
        };
        current.read_schema()?;
        Ok(current)
    }

    /// Opens the table of `id`, and creates it where there is none.
    pub(super) async fn open_or_create(
        log: Log,
        id: &TableId,
        (schema, since): (&TableSchema, i64),
        (properties, upserts): (&TableProperties, &Upserts),
        writer: &Writer,
    ) -> Result<Self, LakeError> {
        let table = if let Some(table) = Table::open(log.clone()).await? {
            table
        } else {
            let lineage = Lineage::default().followed_by(Described::from(schema), since);
            let events = (schema, &lineage);
            create::current_table(&log, properties, id, events, upserts.policy(id), &writer.id).await?;
            Table::open(log.clone()).await?.ok_or_else(|| LakeError::Unreadable {
                table: log.table().to_owned(),
                message: "the table vanished after it was created".to_owned(),
            })?
        };
        let current = Self::new(table, upserts, writer)?;
        if current.id != *id {
            return Err(collision(id, &current.id.to_string(), log.table()));
        }
        Ok(current)
    }

    /// Keeps the index that the same table had before it was read again.
    pub(super) fn take_over(&mut self, before: Self) {
        if let (Some(kept), Some(old)) = (&mut self.merge_on_read, before.merge_on_read) {
            kept.take_over(old);
        }
    }

    /// The source's schema as the table has it.
    pub(super) fn schema(&self) -> &Arc<TableSchema> {
        &self.schema
    }

    /// Topics that feed the table.
    pub(super) fn topics(&self) -> &BTreeSet<Arc<str>> {
        &self.topics
    }

    /// Brings `changes`, this table's part of `batch`, into the table; what it has already is skipped.
    pub(super) async fn commit(
        &mut self,
        batch: &Batch,
        changes: &[&ChangeBatch],
        writer: &Writer,
        merge_memory: usize,
    ) -> Result<(TableReport, u64), LakeError> {
        let started = Instant::now();
        self.topics.extend(topics_of(batch, changes));
        self.reading.saw(changes);
        let mut conflicts = 0;
        let advances = self.advances(batch, writer);
        if advances.is_empty() {
            return Ok((TableReport::default(), 0));
        }
        self.refresh(writer, &advances).await?;
        self.check_mode()?;
        let mut schema_changes = Vec::new();
        for _ in 0..ATTEMPTS {
            let attempted = self.attempt((batch, changes), writer, merge_memory, &mut schema_changes).await;
            match self.unless_overtaken(attempted, writer, &advances).await? {
                Attempted::Written(report, resolved) => {
                    self.stored = Some(Instant::now());
                    let report = TableReport { schema_changes, duration: started.elapsed(), ..*report };
                    return Ok((report, conflicts + resolved));
                }
                Attempted::Nothing => {
                    return Ok((TableReport { schema_changes, ..TableReport::default() }, conflicts));
                }
                Attempted::Overtaken => conflicts += 1,
            }
        }
        Err(LakeError::Busy { table: self.table.log.table().to_owned(), attempts: ATTEMPTS })
    }

    /// Brings what is missing into the table, from its definition to its rows, against the version that it stands at.
    async fn attempt(
        &mut self,
        (batch, changes): (&Batch, &[&ChangeBatch]),
        writer: &Writer,
        merge_memory: usize,
        schema_changes: &mut Vec<&'static str>,
    ) -> Result<Attempted, LakeError> {
        let advances = self.advances(batch, writer);
        if !self.mark_deleted(writer, &advances).await? {
            return Ok(Attempted::Overtaken);
        }
        let outlook = self.look(batch, changes, writer)?;
        let Some(aligned) = self.evolve(outlook, writer, &advances, schema_changes).await? else {
            return Ok(Attempted::Overtaken);
        };
        let (aligned, late) = self.without_late(batch, aligned, writer, merge_memory).await?;
        let changes: Vec<&ChangeBatch> = aligned.iter().map(AsRef::as_ref).collect();
        if self.shape.history {
            let added = self.add_versions(batch, &changes, &advances, writer).await?;
            return Ok(added.map_or(Attempted::Overtaken, |(report, resolved)| {
                Attempted::Written(Box::new(report), resolved)
            }));
        }
        let folded = self.fold(batch, &changes, writer)?;
        if advances.is_empty() || (folded.changes == 0 && late.late == 0) {
            return Ok(Attempted::Nothing);
        }
        if folded.changes == 0 {
            let moved = self.put_positions(&advances, writer).await?;
            return Ok(if moved { Attempted::Written(Box::new(late), 0) } else { Attempted::Overtaken });
        }
        let Upserted::Committed { done, conflicts } =
            self.apply(&folded, &advances, writer, merge_memory).await?
        else {
            return Ok(Attempted::Overtaken);
        };
        let mut unresolved = done.unresolved;
        unresolved.extend(&folded.unresolved);
        let report = TableReport {
            upserted: folded.upserted() as u64,
            deleted: folded.deleted() as u64,
            truncated: folded.truncates(),
            unresolved_absent: folded.unresolved.len() as u64 + done.unresolved_absent,
            unresolved: folded.named(batch, &unresolved),
            unknown_deletes: done.unknown_deletes,
            version: Some(self.table.state.version() as i64),
            ..late
        };
        Ok(Attempted::Written(Box::new(report), conflicts))
    }

    /// A file that is gone is no fault of the table where the newest version does not need it: another writer has put
    /// others in its place, and its vacuum was fast.
    async fn unless_overtaken(
        &mut self,
        attempted: Result<Attempted, LakeError>,
        writer: &Writer,
        advances: &[Advance],
    ) -> Result<Attempted, LakeError> {
        let Err(LakeError::Missing { path, .. }) = &attempted else { return attempted };
        self.table.catch_up(writer, advances).await?;
        self.read_schema()?;
        if self.table.state.names(path) { attempted } else { Ok(Attempted::Overtaken) }
    }

    /// Stores the positions of a batch that has no rows for this table, once a minute.
    ///
    /// Where several tables share a topic, a quiet one would otherwise make a lane start ever further back. The first
    /// position in a log is stored at once: until then nothing says that the lane has left the former log.
    pub(super) async fn store_positions(&mut self, batch: &Batch, writer: &Writer) -> Result<(), LakeError> {
        let advances = self.advances(batch, writer);
        let first = advances.iter().any(|advance| self.table.state.position(&advance.app_id).is_none());
        let recent = self.stored.is_some_and(|stored| stored.elapsed() < POSITIONS_ONLY);
        if advances.is_empty() || (recent && !first) {
            return Ok(());
        }
        self.refresh(writer, &advances).await?;
        if self.put_positions(&advances, writer).await? {
            self.stored = Some(Instant::now());
        }
        Ok(())
    }

    /// Commits positions alone; `false` where another writer came between.
    async fn put_positions(&mut self, advances: &[Advance], writer: &Writer) -> Result<bool, LakeError> {
        let (now, ledger) = (super::now_millis(), self.table.state.ledger());
        let entry = txns(advances)
            .fold(Entry::of_batch("MERGE", &writer.id, now, ledger), |entry, txn| entry.txn(&txn));
        let outcome = self.table.commit(entry.into_bytes()).await?;
        if outcome == Outcome::Conflict {
            self.table.catch_up(writer, advances).await?;
            self.read_schema()?;
        }
        Ok(outcome == Outcome::Committed)
    }

    /// Brings the properties of a table that exists to what the settings say.
    pub(super) async fn keep_properties(
        &mut self,
        properties: &TableProperties,
        feed: bool,
        writer: &Writer,
    ) -> Result<(), LakeError> {
        let before = self.table.state.version();
        self.table.keep_properties(properties, feed, writer).await?;
        if self.table.state.version() == before { Ok(()) } else { self.read_schema() }
    }

    /// Makes a step of compaction, if one is due and the last one has not just failed. An error has been said and counted.
    pub(super) async fn tend(&mut self, writer: &Writer, pressure: Pressure) -> Option<LakeError> {
        if !self.table.compaction.is_over() {
            return None;
        }
        let step = self.compact(writer, pressure).await;
        self.table.compacted(step)
    }

    /// Makes a step of compaction, if one is due; says whether it did.
    pub(super) async fn compact(&mut self, writer: &Writer, pressure: Pressure) -> Result<bool, LakeError> {
        if self.reading.holds_compaction(self.table.state.files().len()) {
            return Ok(false);
        }
        let how = (Target::of(self.table.state.bytes()), pressure);
        let Some(rows) = &mut self.merge_on_read else { return Ok(false) };
        let stepped = rows.compact(&mut self.table, (&self.schema, self.shape), writer, how).await;
        if pressure == Pressure::Idle {
            rows.keep_up(&self.table, (&self.schema, self.shape)).await;
        }
        stepped
    }

    /// What the table is like, and what was written to it since the last call.
    pub(super) fn figures(&mut self) -> TableFigures {
        let index = self.merge_on_read.as_mut().and_then(MergeOnRead::figures);
        TableFigures { index, ..self.table.figures() }
    }

    async fn refresh(&mut self, writer: &Writer, advances: &[Advance]) -> Result<(), LakeError> {
        let before = self.table.state.version();
        self.table.refresh(writer, advances).await?;
        if self.table.state.version() == before { Ok(()) } else { self.read_schema() }
    }

    fn advances(&self, batch: &Batch, writer: &Writer) -> Vec<Advance> {
        let spans = batch.spans.iter().filter(|(partition, _)| self.topics.contains(&partition.topic));
        self.table.advances(writer, spans)
    }

    /// Which changes of a batch, by partition and offset, the table does not have.
    pub(super) fn missing(&self, batch: &Batch, writer: &Writer) -> impl Fn(u32, i64) -> bool + use<> {
        let stored: Vec<Option<i64>> = batch
            .partitions
            .iter()
            .map(|partition| {
                batch.spans.get(partition).and_then(|span| self.table.position(writer, partition, span))
            })
            .collect();
        move |partition: u32, offset: i64| {
            stored.get(partition as usize).copied().flatten().is_none_or(|stored| offset >= stored)
        }
    }

    fn fold(&self, batch: &Batch, changes: &[&ChangeBatch], writer: &Writer) -> Result<Folded, LakeError> {
        let ledger = KeyLedger::from_text(self.table.state.ledger());
        fold_onto(self.policy.delete, &self.schema, changes, self.missing(batch, writer), &ledger)
            .map_err(|error| LakeError::Refused(format!("table {} cannot take this batch: {error}", self.id)))
    }

    /// Adds the column that marks deleted rows, where they are to be kept; `false` where another writer came between.
    async fn mark_deleted(&mut self, writer: &Writer, advances: &[Advance]) -> Result<bool, LakeError> {
        if self.shape.keeps_deleted || !Shape::wanted(&self.policy).keeps_deleted {
            return Ok(true);
        }
        if self.schema.key().is_empty() {
            return Err(LakeError::Refused(format!(
                "table {} has no key, by which a deleted row could be found again; set delete = \"hard\" for it",
                self.id
            )));
        }
        let outcome = self.table.commit(soft::add_mark(&self.id, &self.table.state, &writer.id)?).await?;
        if outcome == Outcome::Conflict {
            self.table.catch_up(writer, advances).await?;
        }
        self.read_schema()?;
        Ok(outcome == Outcome::Committed)
    }

    pub(super) fn read_schema(&mut self) -> Result<(), LakeError> {
        let metadata = self.table.state.metadata();
        let folder = self.table.log.table();
        let delta = DeltaSchema::parse(folder, &metadata.schema_string)?;
        self.schema = Arc::new(table_schema(folder, &delta, &metadata.configuration)?);
        self.shape = Shape::of(&delta);
        self.lineage = evolve::lineage_of(folder, &metadata.configuration)?;
        self.changes = changes_of(&metadata.configuration);
        Ok(())
    }
}

/// Topics that changes came from.
pub(super) fn topics_of(batch: &Batch, changes: &[&ChangeBatch]) -> BTreeSet<Arc<str>> {
    let indexes: BTreeSet<u32> =
        changes.iter().flat_map(|change| change.partitions.iter().copied()).collect();
    indexes
        .into_iter()
        .filter_map(|index| batch.partitions.get(index as usize))
        .map(|partition| Arc::clone(&partition.topic))
        .collect()
}

fn empty_schema() -> Arc<TableSchema> {
    Arc::new(TableSchema::new(Vec::new(), Vec::new()))
}
