//! Truncates: what becomes of them, and what they take away.
//!
//! A truncate has no key. In a topic with several partitions it therefore stands in no order to the rows, and it is
//! decoded in two steps: first it is only recognised, then, when the lane has read the other partitions up to where they
//! ended at that time, it is taken. The history has a row for each that was taken or ignored.

use std::sync::Arc;

use crate::change::{OnTruncate, Operation, RecordErrorKind, TableId, TruncateReach};

use super::changes::source_of;
use super::decoder::Decoder;
use super::fault::{Decoded, Fault};
use super::raw_rows::RawRow;
use super::record::{Outcome, RecordRef};
use super::row::Layout;
use super::tables::Change;
use super::topic::{Opened, table_of};

/// The partitions of a truncate's topic, which were read up to where they ended when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// How many there are, its own among them.
    pub partitions: usize,
}

impl Decoder {
    pub(super) fn truncated(
        &mut self,
        record: &RecordRef<'_>,
        at: usize,
        opened: &Opened<'_>,
        drained: Option<Drained>,
    ) -> Decoded<Outcome> {
        let source = source_of(opened)?;
        let table = self.routed(source);
        let raw = RawRow { operation: Operation::Truncate.code(), ..RawRow::of(record, Some(source)) };
        match (self.options.policies.of(&table).on_truncate, drained) {
            (OnTruncate::Ignore, _) => {
                self.push_raw(&raw, None)?;
                return Ok(Outcome::Filtered("truncate_ignored"));
            }
            (OnTruncate::Stop, _) => {
                let detail = format!(
                    "{table} was truncated in the source; set on_truncate = \"apply\" to empty it here as well, or \"ignore\" to keep \
                     its rows"
                );
                return Err(Fault::new(RecordErrorKind::Truncate, detail));
            }
            (OnTruncate::Apply, _) if self.takes_other_tables(&table) => {
                let detail = format!(
                    "{} was truncated in the source, and {table} has rows of other tables as well, which cannot be told from its \
                     own: delete the rows by hand and set on_truncate = \"ignore\" for {table}",
                    table_of(source)
                );
                return Err(Fault::new(RecordErrorKind::Truncate, detail));
            }
            (OnTruncate::Apply, None) => return Ok(Outcome::Truncate { lsn: source.order() }),
            (OnTruncate::Apply, Some(drained)) => {
                let Some(layout) = self.layout_of_table(&table_of(source), &table) else {
                    self.push_raw(&raw, None)?;
                    return Ok(Outcome::Filtered("truncate_unknown_table"));
                };
                let change = Change {
                    operation: Operation::Truncate,
                    partition: self.partitions.in_batch(at),
                    offset: record.offset,
                    source_micros: source.micros().unwrap_or(0),
                    lsn: source.order(),
                };
                let reach = self.takes(at, &layout, change.lsn, drained);
                self.tables.truncate(&layout, change, reach)?;
                self.push_raw(&raw, Some(&layout))?;
                self.aside.emptied(&layout.table);
                self.partitions.note_lsn(at, change.lsn);
                self.counts.newest_source_micros = self.counts.newest_source_micros.max(source.micros());
            }
        }
        Ok(Outcome::Change(Operation::Truncate))
    }

    fn takes_other_tables(&self, table: &TableId) -> bool {
        self.options.routes.leads_to(table)
    }

    fn layout_of_table(&mut self, source: &TableId, table: &TableId) -> Option<Arc<Layout>> {
        self.tables.newest_of(table).or_else(|| self.layout_in_sink(source, table))
    }

    /// What a truncate takes, given what was read of the other partitions before it.
    fn takes(&self, at: usize, layout: &Layout, lsn: i64, drained: Drained) -> TruncateReach {
        if drained.partitions <= 1 {
            return TruncateReach::Everything;
        }
        let stored = self.partitions.newer_was_stored(at, lsn) || self.tables.has_closed(layout.slot);
        TruncateReach::Older { stored }
    }
}
