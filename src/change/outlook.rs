//! A table's part of a batch, looked at before it is stored: what its schemas ask of the table, and the changes in the
//! one form that the table takes.
//!
//! Schemas are met in the order of the changes. What came before a change of schema in the same batch is brought along
//! on the same way as the rows that are stored already, step by step.
//!
//! Deletes and truncates have no rows, so they ask for nothing but their key: what a decoder knows of a table when it has
//! met nothing else of it yet (after a start, without schema block) is the key alone, or what the sink has. Taken for
//! the schema of the events, that would say that all other columns were dropped, or that dropped ones are there again,
//! and the columns that come with the next row would begin anew.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::align::{Unfit, align, rename_columns};
use super::evolution::{SchemaStep, Teller, Told, Verdict, judge};
use super::lineage::{Described, Lineage, Pending};
use super::{Batch, ChangeBatch, Operation, TableId, TablePolicy, TableSchema};

/// What becomes of a table's part of a batch.
#[derive(Debug)]
pub struct Outlook<'a> {
    /// The changes, each with its columns in the types that the table has after `steps`. Changes of which none counts
    /// are left out.
    pub aligned: Vec<Cow<'a, ChangeBatch>>,
    /// What the table has to do first, in this order.
    pub steps: Vec<Met>,
    /// Why the table cannot take the changes: a schema that waits for somebody.
    pub refused: Option<Pending>,
}

/// A step, and the event that asked for it.
#[derive(Debug)]
pub struct Met {
    /// What the table stores before it.
    pub before: TableSchema,
    /// The step.
    pub step: SchemaStep,
    /// The event.
    pub place: EventPlace,
}

impl Pending {
    /// What stopped the table, and what to do.
    pub fn text(&self, table: &TableId) -> String {
        let differences: Vec<String> = self.differences.iter().map(ToString::to_string).collect();
        format!(
            "schema change needs `alluvium schema apply {table}`: {}, from record {} on; `alluvium schema plan {table}` shows what \
             that does",
            differences.join(", "),
            self.place
        )
    }
}

/// Where an event lies. **Persisted: do not rename a member.**
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPlace {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Commit time in the source, microseconds since 1970 UTC; 0 where not known.
    pub micros: i64,
}

impl EventPlace {
    fn of(batch: &Batch, change: &ChangeBatch, row: usize) -> Self {
        let index = change.partitions.get(row).copied().unwrap_or(u32::MAX);
        let partition = batch.partitions.get(index as usize);
        Self {
            topic: partition.map_or_else(String::new, |partition| partition.topic.to_string()),
            partition: partition.map_or(-1, |partition| partition.partition),
            offset: change.offsets.get(row).copied().unwrap_or(-1),
            micros: change.source_micros.get(row).copied().unwrap_or(0),
        }
    }
}

/// `topic/partition@offset`
impl fmt::Display for EventPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.topic, self.partition, self.offset)
    }
}

/// A value that its column cannot hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnfitAt {
    /// The column.
    pub column: Arc<str>,
    /// The event that it comes from.
    pub place: EventPlace,
}

impl fmt::Display for UnfitAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {} cannot hold the value of record {} exactly", self.column, self.place)
    }
}

/// Looks at the changes of one table that are not in the sink yet; `keep(partition index, offset)` says which.
///
/// # Errors
/// The first value that its column cannot hold.
pub fn look<'a>(
    (stored, lineage): (&Arc<TableSchema>, &Lineage),
    batch: &Batch,
    changes: &[&'a ChangeBatch],
    policy: &TablePolicy,
    keep: impl Fn(u32, i64) -> bool,
) -> Result<Outlook<'a>, UnfitAt> {
    let mut stored = Cow::Borrowed(stored.as_ref());
    let mut lineage = Cow::Borrowed(lineage);
    let mut outlook =
        Outlook { aligned: Vec::with_capacity(changes.len()), steps: Vec::new(), refused: None };
    for change in changes {
        let mut places = change.partitions.iter().zip(&change.offsets);
        let Some(first) = places.position(|(&partition, &offset)| keep(partition, offset)) else { continue };
        let events = asked_by(change, &stored, &lineage, &keep);
        let mut told = told(change, first, &keep);
        if policy.several_sources {
            told.by = Teller::Unsure;
        }
        match judge(&stored, &lineage, &events, told, policy.schema_change) {
            Verdict::Settled => {}
            Verdict::Change(step) => {
                realign(&mut outlook.aligned, batch, &step)?;
                let (after, known) = (step.stored.clone(), step.lineage.clone());
                let place = EventPlace::of(batch, change, first);
                outlook.steps.push(Met { before: stored.into_owned(), step: *step, place });
                (stored, lineage) = (Cow::Owned(after), Cow::Owned(known));
            }
            Verdict::Refuse(differences) => {
                let place = EventPlace::of(batch, change, first);
                let events = Described::from(events.as_ref());
                outlook.refused = Some(Pending { events, place, differences });
                return Ok(outlook);
            }
        }
        let aligned = align(change, &stored).map_err(|unfit| unfit_at(batch, change, unfit))?;
        outlook.aligned.push(aligned.map_or(Cow::Borrowed(*change), Cow::Owned));
    }
    Ok(outlook)
}

/// The schema that the changes which count ask for. Where none of them leaves a row, it is the newest one, with the key
/// that they have.
fn asked_by<'c>(
    change: &'c ChangeBatch,
    stored: &TableSchema,
    lineage: &Lineage,
    keep: impl Fn(u32, i64) -> bool,
) -> Cow<'c, TableSchema> {
    let has_row = |operation: Operation| match operation {
        Operation::Truncate => false,
        // Without key, a delete is the whole row.
        Operation::Delete => change.schema.key().is_empty(),
        _ => true,
    };
    let mut counting = change.operations.iter().zip(change.partitions.iter().zip(&change.offsets));
    if counting.any(|(&operation, (&partition, &offset))| has_row(operation) && keep(partition, offset)) {
        return Cow::Borrowed(&change.schema);
    }
    let newest = lineage.latest.as_ref().map_or_else(|| stored.clone(), Described::schema);
    let mut columns = newest.columns().to_vec();
    for column in change.schema.key().iter().filter_map(|&key| change.schema.columns().get(key)) {
        match columns.iter_mut().find(|known| known.name == column.name) {
            Some(known) => known.column_type = column.column_type.clone(),
            None => columns.push(column.clone()),
        }
    }
    let names = |schema: &TableSchema| schema.key_names().map(str::to_owned).collect::<BTreeSet<_>>();
    let of = if names(&newest) == names(&change.schema) { &newest } else { change.schema.as_ref() };
    let place = |name: &str| columns.iter().position(|column| *column.name == *name);
    let key = of.key_names().filter_map(place).collect();
    Cow::Owned(TableSchema::new(columns, key))
}

fn realign(aligned: &mut [Cow<'_, ChangeBatch>], batch: &Batch, step: &SchemaStep) -> Result<(), UnfitAt> {
    for change in aligned {
        if let Some(renamed) = rename_columns(change, &step.renames) {
            *change = Cow::Owned(renamed);
        }
        if let Some(brought) = align(change, &step.stored).map_err(|unfit| unfit_at(batch, change, unfit))? {
            *change = Cow::Owned(brought);
        }
    }
    Ok(())
}

/// What the changes from the first on that counts say of their schema.
fn told(change: &ChangeBatch, first: usize, keep: impl Fn(u32, i64) -> bool) -> Told {
    let times = change.source_micros.get(first..).unwrap_or_default();
    let counts = |operation: Operation| {
        let mut changes = change.operations.iter().zip(change.partitions.iter().zip(&change.offsets));
        changes.any(|(&of, (&partition, &offset))| of == operation && keep(partition, offset))
    };
    // A schema block says at least of the key that it is never null; without one, nothing is said.
    let by = if change.schema.columns().iter().all(|column| column.nullable) {
        Teller::Unsure
    } else if counts(Operation::Read) && !counts(Operation::Create) && !counts(Operation::Update) {
        Teller::Snapshot
    } else {
        Teller::Changes
    };
    Told { first: times.first().copied().unwrap_or(0), newest: times.iter().copied().max().unwrap_or(0), by }
}

fn unfit_at(batch: &Batch, change: &ChangeBatch, unfit: Unfit) -> UnfitAt {
    UnfitAt { column: unfit.column, place: EventPlace::of(batch, change, unfit.row) }
}
