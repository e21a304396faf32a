//! A batch on its way into the table: its rows, their keys, and what has been written of it so far.
//!
//! Rows are written once and taken over by the next attempt, for an attempt that lost its version to another writer has
//! left nothing in the log. Only where they depend on what is stored (absent cells, deletes of rows that may not be there)
//! they are written anew, because what is stored may have changed in between.

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;

use super::cells::{OriginPlaces, with_stored_cells};
use super::changes;
use super::files::{DataFiles, stored_rows};
use super::keys::{KeyCodec, Keys};
use super::plan::Plan;
use crate::change::{Folded, KeyLedger};
use crate::failpoint;
use crate::lake::action::{Add, Entry};
use crate::lake::error::LakeError;
use crate::lake::shape::Shape;
use crate::lake::table::{Advance, Table};

/// What is being brought into the table, with its keys.
pub(super) struct Upsert<'a> {
    pub(super) folded: &'a Folded,
    pub(super) shape: Shape,
    pub(super) advances: &'a [Advance],
    pub(super) upserted: Keys,
    pub(super) deleted: Keys,
    pub(super) origins: Keys,
    pub(super) departing: Keys,
    pub(super) files: DataFiles,
    /// The rows, once they are written; another attempt takes them over where they do not depend on stored rows.
    pub(super) written: Option<Add>,
    /// Keys of the rows that were written, where they are not all of the batch's.
    pub(super) written_keys: Option<Keys>,
    /// The rows that were written and where each of the batch's went, where the table has a change data feed.
    pub(super) change: Option<(RecordBatch, Vec<Option<usize>>)>,
    pub(super) has_feed: bool,
}

impl<'a> Upsert<'a> {
    pub(super) fn new(
        table: &Table,
        (folded, shape): (&'a Folded, Shape),
        advances: &'a [Advance],
        codec: &KeyCodec,
    ) -> Result<Self, LakeError> {
        let refused = |error| LakeError::Refused(format!("keys of table {}: {error}", table.log.table()));
        let keys = |rows: &RecordBatch| codec.encode(&codec.columns_of(rows)).map_err(refused);
        Ok(Self {
            folded,
            shape,
            advances,
            upserted: keys(&folded.rows)?,
            deleted: keys(&folded.deletes)?,
            origins: keys_of_origins(codec, Some(folded)).map_err(refused)?,
            departing: keys_of_origins(codec, folded.departing.as_deref().map(|departing| &departing.rows))
                .map_err(refused)?,
            files: DataFiles { table: table.log.table().into(), store: table.log.files() },
            written: None,
            written_keys: None,
            change: None,
            has_feed: changes::has_feed(table.state.metadata()),
        })
    }

    /// Writes the rows, without deletes of rows that are not there; returns how many those are.
    pub(super) async fn write(&mut self, columns: Vec<ArrayRef>, plan: &Plan) -> Result<usize, LakeError> {
        let refused = |error: ArrowError| {
            LakeError::Refused(format!("table {} cannot take this batch: {error}", self.files.table))
        };
        let mut rows = stored_rows(self.folded, columns, self.shape).map_err(refused)?;
        let all = rows.num_rows();
        let mut places: Vec<Option<usize>> = (0..all).map(Some).collect();
        if let Some(of_stored) = &self.folded.of_stored {
            let stored = plan.replacing();
            let keep: BooleanArray = of_stored
                .iter()
                .enumerate()
                .map(|(row, only)| Some(!only || stored.contains(&row)))
                .collect();
            rows = filter_record_batch(&rows, &keep).map_err(refused)?;
            let mut next = 0..;
            places = keep.iter().map(|keep| keep.unwrap_or(false).then(|| next.next()).flatten()).collect();
            let codec = KeyCodec::new(&self.folded.schema, &self.folded.compared);
            let keys = codec.encode(&codec.columns_of(&rows));
            self.written_keys = Some(keys.map_err(refused)?);
        }
        let unknown = all - rows.num_rows();
        self.change = self.has_feed.then(|| (rows.clone(), places));
        self.written = None;
        if rows.num_rows() > 0 {
            self.written = Some(self.files.write(rows, &self.folded.schema).await?);
            failpoint::hit("lake.after_data_files");
        }
        Ok(unknown)
    }

    /// Writes down what the commit does to the rows, where the table has a change data feed.
    pub(super) async fn with_changes(&self, entry: Entry, plan: &Plan) -> Result<Entry, LakeError> {
        if !self.has_feed {
            return Ok(entry);
        }
        let columns = self.shape.stored(&self.folded.schema);
        let rows = self.change.as_ref().map(|(rows, places)| (rows, places.as_slice()));
        let entry = changes::write(entry, &self.files, &columns, plan, rows).await?;
        // Rows that end were written down with their copies.
        match self.folded.ending {
            Some(_) => Ok(entry),
            None => changes::emptied(entry, &self.files, &columns, plan).await,
        }
    }

    /// Where rows lie that were kept aside: those that the batch's rows take cells from, and those that departing rows do.
    pub(super) async fn kept_aside(&self) -> Result<(OriginPlaces, OriginPlaces), LakeError> {
        let (mut origins, mut departing) = <(OriginPlaces, OriginPlaces)>::default();
        let rows_departing = self.folded.departing.as_ref().map(|departing| &departing.rows);
        for (places, folded) in [(&mut origins, Some(self.folded)), (&mut departing, rows_departing)] {
            if let Some(of_rows) = folded.and_then(|folded| folded.origins.as_ref()) {
                places.kept = self.files.places_aside(&of_rows.kept).await?;
            }
        }
        Ok((origins, departing))
    }

    /// Keeps the departing rows aside, and says what the ledger is then.
    pub(super) async fn ledger_after(&self, departing: &OriginPlaces) -> Result<KeyLedger, LakeError> {
        let Some(rows) = &self.folded.departing else {
            return Ok(self.folded.ledger_with(std::iter::empty()));
        };
        let files = &self.files;
        let cells = with_stored_cells((&rows.rows, self.shape), &Plan::default(), departing, files).await?;
        let kept = files.keep_aside(rows, cells.columns, &cells.unresolved).await?;
        Ok(self.folded.ledger_with(kept.into_iter()))
    }
}

fn keys_of_origins(codec: &KeyCodec, folded: Option<&Folded>) -> Result<Keys, ArrowError> {
    match folded.and_then(|folded| folded.origins.as_ref()) {
        Some(origins) => codec.encode(origins.keys.columns()),
        None => Ok(Keys::default()),
    }
}
