//! The running batch's changes by table, in segments of one schema each.
//!
//! Invariant: the segments of a table are in the order of its records, because a segment is closed for good when a
//! record with another schema arrives; at most one segment of a table is open.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::error::ArrowError;

use crate::change::{
    ChangeBatch, KeyMoves, Operation, RecordErrorKind, TableId, TableSchema, Truncate, TruncateReach,
};

use super::fault::Fault;
use super::placeholder::Placeholder;
use super::row::{Layout, RowFault, Rows};
use super::suspects::Suspects;

/// What a change is besides its row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) operation: Operation,
    pub(super) partition: u32,
    pub(super) offset: i64,
    pub(super) source_micros: i64,
    /// 0 where the event does not say.
    pub(super) lsn: i64,
}

#[derive(Debug)]
struct Segment {
    /// Its number among the segments of the batch.
    number: usize,
    table: TableId,
    schema: Arc<TableSchema>,
    rows: Rows,
    changes: Vec<Change>,
    truncates: Vec<Truncate>,
    moves: Option<Moves>,
}

/// Changes that are halves of a key change, by index, with the other key of each as a row that has nothing else.
#[derive(Debug)]
struct Moves {
    changes: Vec<u32>,
    keys: Rows,
    lsns: Vec<Option<i64>>,
}

impl Moves {
    fn finish(self, schema: &TableSchema) -> Result<KeyMoves, ArrowError> {
        let mut columns: Vec<Option<_>> = self.keys.columns.into_iter().map(Some).collect();
        let keys = schema.key().iter().filter_map(|&key| columns.get_mut(key)?.take());
        let keys = keys.map(|column| Ok(column.finish()?.0)).collect::<Result<Vec<_>, ArrowError>>()?;
        let names = Arc::new(schema.arrow().project(schema.key())?);
        Ok(KeyMoves { changes: self.changes, keys: RecordBatch::try_new(names, keys)?, lsns: self.lsns })
    }
}

impl Segment {
    fn new(layout: &Layout, number: usize) -> Self {
        Self {
            number,
            table: layout.table.clone(),
            schema: Arc::clone(&layout.schema),
            rows: Rows::new(&layout.schema),
            changes: Vec::new(),
            truncates: Vec::new(),
            moves: None,
        }
    }

    fn finish(self) -> Result<ChangeBatch, ArrowError> {
        let mut columns = Vec::with_capacity(self.rows.columns.len());
        let mut absent = Vec::with_capacity(self.rows.columns.len());
        for column in self.rows.columns {
            let (array, mask) = column.finish()?;
            columns.push(array);
            absent.push(mask);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.changes.len()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(self.schema.arrow()), columns, &options)?;
        let moves = self.moves.map(|moves| moves.finish(&self.schema)).transpose()?;
        Ok(ChangeBatch {
            table: self.table,
            schema: self.schema,
            rows,
            absent,
            operations: self.changes.iter().map(|change| change.operation).collect(),
            partitions: self.changes.iter().map(|change| change.partition).collect(),
            offsets: self.changes.iter().map(|change| change.offset).collect(),
            source_micros: self.changes.iter().map(|change| change.source_micros).collect(),
            moves,
            lsns: self.changes.iter().map(|change| change.lsn).collect(),
            truncates: self.truncates,
        })
    }
}

fn lost() -> Fault {
    Fault::new(RecordErrorKind::InvalidSchema, "the decoder lost its table")
}

/// A table that events have named.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: TableId,
    /// The layout of events without schema block.
    pub(super) bare: Option<Arc<Layout>>,
    /// The layout of the newest row, with schema block or without.
    pub(super) newest: Option<Arc<Layout>>,
    /// Whether it was said that types were taken from values.
    pub(super) warned: bool,
    suspects: Suspects,
    open: Option<Segment>,
}

/// All tables, with what the running batch has of them.
#[derive(Debug, Default)]
pub(super) struct Tables {
    slots: Vec<Slot>,
    index: HashMap<TableId, usize>,
    closed: Vec<Segment>,
    /// Segments begun in the running batch.
    begun: usize,
}

impl Tables {
    /// Index of a table.
    pub(super) fn slot_of(&mut self, id: &TableId) -> usize {
        if let Some(&slot) = self.index.get(id) {
            return slot;
        }
        let slot = self.slots.len();
        self.index.insert(id.clone(), slot);
        self.slots.push(Slot {
            id: id.clone(),
            bare: None,
            newest: None,
            warned: false,
            suspects: Suspects::default(),
            open: None,
        });
        slot
    }

    /// The layout of the newest row of a table.
    pub(super) fn newest_of(&self, id: &TableId) -> Option<Arc<Layout>> {
        self.slots.get(*self.index.get(id)?)?.newest.clone()
    }

    /// The tables of which this run has read a row.
    pub(super) fn with_rows(&self) -> impl Iterator<Item = &TableId> {
        self.slots.iter().filter(|slot| slot.newest.is_some()).map(|slot| &slot.id)
    }

    pub(super) fn get(&self, slot: usize) -> Option<&Slot> {
        self.slots.get(slot)
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Slot> {
        self.slots.get_mut(slot)
    }

    /// Appends a change whose row is `text`. After an error all is as before.
    pub(super) fn push(
        &mut self,
        layout: &Layout,
        text: &str,
        change: Change,
        placeholder: &Placeholder,
    ) -> Result<(), RowFault> {
        let Some(slot) = self.slots.get_mut(layout.slot) else { return Err(RowFault::Record(lost())) };
        if let Some(open) = &mut slot.open
            && (Arc::ptr_eq(&open.schema, &layout.schema) || open.schema == layout.schema)
        {
            open.rows.push(text, layout, placeholder)?;
            open.changes.push(change);
            return Ok(());
        }
        let mut segment = Segment::new(layout, self.begun);
        segment.rows.push(text, layout, placeholder)?;
        segment.changes.push(change);
        self.begun += 1;
        self.closed.extend(slot.open.replace(segment));
        Ok(())
    }

    /// Says that the newest change of a table is one half of a key change, and which key the other half has. A key that
    /// cannot be read is left out: then the row inherits nothing, as without the header.
    pub(super) fn moved(
        &mut self,
        layout: &Layout,
        other_key: &str,
        lsn: Option<i64>,
        placeholder: &Placeholder,
    ) {
        let Some(open) = self.slots.get_mut(layout.slot).and_then(|slot| slot.open.as_mut()) else { return };
        let Some(newest) = open.changes.len().checked_sub(1) else { return };
        let moves = open.moves.get_or_insert_with(|| Moves {
            changes: Vec::new(),
            keys: Rows::new(&layout.schema),
            lsns: Vec::new(),
        });
        match moves.keys.push(other_key, layout, placeholder) {
            Ok(()) => {
                moves.changes.push(newest as u32);
                moves.lsns.push(lsn);
            }
            Err(_) => {
                tracing::debug!(table = %layout.table, "a header of a key change has not the table's key");
            }
        }
    }

    /// Appends a truncate.
    pub(super) fn truncate(
        &mut self,
        layout: &Layout,
        change: Change,
        reach: TruncateReach,
    ) -> Result<(), Fault> {
        let slot = self.slots.get_mut(layout.slot).ok_or_else(lost)?;
        if slot.open.as_ref().is_none_or(|open| open.schema != layout.schema) {
            self.closed.extend(slot.open.replace(Segment::new(layout, self.begun)));
            self.begun += 1;
        }
        let open = slot.open.as_mut().ok_or_else(lost)?;
        open.truncates.push(Truncate { row: open.changes.len(), reach });
        open.rows.push_nulls();
        open.changes.push(change);
        Ok(())
    }

    /// Whether the running batch has changes of a table with another schema than the newest.
    pub(super) fn has_closed(&self, slot: usize) -> bool {
        let id = self.slots.get(slot).map(|slot| &slot.id);
        self.closed.iter().any(|segment| Some(&segment.table) == id && !segment.changes.is_empty())
    }

    /// Takes the newest change of a table back.
    pub(super) fn undo(&mut self, slot: usize) {
        let Some(slot) = self.slots.get_mut(slot) else { return };
        let Some(open) = &mut slot.open else { return };
        open.rows.undo();
        open.changes.pop();
        let left = open.changes.len() as u32;
        if let Some(moves) = &mut open.moves
            && moves.changes.pop_if(|change| *change == left).is_some()
        {
            moves.keys.undo();
            moves.lsns.pop();
        }
        open.truncates.retain(|truncate| truncate.row < open.rows.len());
        // The change before it may have been the last with another schema.
        if open.changes.is_empty() && self.closed.last().is_some_and(|last| last.table == slot.id) {
            slot.open = self.closed.pop();
        }
    }

    /// Indexes of the columns that are absent in the newest change of a table.
    pub(super) fn absent_in_last(&self, slot: usize) -> impl Iterator<Item = usize> {
        self.slots
            .get(slot)
            .and_then(|slot| slot.open.as_ref())
            .into_iter()
            .flat_map(|open| open.rows.absent_in_last())
    }

    /// Columns of a table that its schema says to be nullable and to have a default.
    pub(super) fn suspect(&mut self, slot: usize, columns: &[Arc<str>]) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.suspects.add(columns);
        }
    }

    /// By table, the columns whose nulls may have been written as their default.
    pub(super) fn suspects(&self) -> BTreeMap<TableId, u64> {
        let count = |slot: &Slot| slot.suspects.count().map(|count| (slot.id.clone(), count));
        self.slots.iter().filter_map(count).collect()
    }

    /// Ends the batch. Segments without a row are left out.
    pub(super) fn finish(&mut self) -> Result<Vec<ChangeBatch>, ArrowError> {
        let open = self.slots.iter_mut().filter_map(|slot| slot.open.take());
        let mut segments: Vec<Segment> = self.closed.drain(..).chain(open).collect();
        // A table may be known by two names for a while (a tombstone names none), and what it was sent is one sequence.
        segments.sort_by_key(|segment| segment.number);
        self.begun = 0;
        let batches: Vec<ChangeBatch> = segments
            .into_iter()
            .filter(|segment| !segment.changes.is_empty())
            .map(Segment::finish)
            .collect::<Result<_, _>>()?;
        for changes in &batches {
            if let Some(slot) = self.index.get(&changes.table).and_then(|&slot| self.slots.get_mut(slot)) {
                slot.suspects.look_at(changes);
            }
        }
        Ok(batches)
    }
}
