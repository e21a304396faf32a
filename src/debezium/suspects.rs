//! Nulls that may have been replaced before Kafka.
//!
//! Kafka Connect's `JsonConverter` writes the default of a nullable column in place of a null, unless its setting
//! `replace.null.with.default` is false. No record tells of it; but a null in such a column proves that it does not
//! happen. So a column is suspect while its schema says that it is nullable with a default and no null of it was seen.
//! That is asked of whole columns at the end of a batch, not of each value.

use std::sync::Arc;

use arrow::array::Array;

use crate::change::ChangeBatch;

/// The suspect columns of one table.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    columns: Vec<Suspect>,
}

#[derive(Debug)]
struct Suspect {
    name: Arc<str>,
    /// Whether a null was seen, which stays true whatever later schemas say.
    cleared: bool,
}

impl Suspects {
    /// Columns that a schema says to be nullable with a default.
    pub(super) fn add(&mut self, names: &[Arc<str>]) {
        for name in names {
            if !self.columns.iter().any(|known| known.name == *name) {
                self.columns.push(Suspect { name: Arc::clone(name), cleared: false });
            }
        }
    }

    /// How many there are; `None` for a table that never had one.
    pub(super) fn count(&self) -> Option<u64> {
        let suspect = self.columns.iter().filter(|column| !column.cleared).count();
        (!self.columns.is_empty()).then_some(suspect as u64)
    }

    /// Clears the columns of which a row of the batch has a null.
    pub(super) fn look_at(&mut self, changes: &ChangeBatch) {
        for suspect in self.columns.iter_mut().filter(|suspect| !suspect.cleared) {
            let Some(index) = changes.schema.index_of(&suspect.name) else { continue };
            let (column, absent) =
                (changes.rows.column(index), changes.absent.get(index).and_then(Option::as_ref));
            // Deletes have no row, and absent cells are null without being it.
            let is_null = |row: usize| {
                column.is_null(row)
                    && changes.operations.get(row).is_some_and(|operation| operation.is_upsert())
                    && absent.is_none_or(|mask| !mask.value(row))
            };
            suspect.cleared = column.null_count() > 0 && (0..changes.len()).any(is_null);
        }
    }
}
