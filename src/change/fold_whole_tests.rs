//! The fold of what concerns whole tables and whole rows (truncates, tables without key), against a model.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch};
use proptest::prelude::*;

use super::{
    ChangeBatch, Column, ColumnType, Folded, Operation, TableId, TableSchema, Truncate, TruncateReach,
    Truncated, fold,
};

/// A change of a row with two columns; `lsn` is its place in the source's log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) operation: Operation,
    pub(super) row: Row,
    pub(super) lsn: i64,
}

fn schema(names: &[&str], key: Vec<usize>) -> Arc<TableSchema> {
    let column =
        |name: &&str| Column { name: (*name).into(), column_type: ColumnType::Int64, nullable: true };
    Arc::new(TableSchema::new(names.iter().map(column).collect(), key))
}

pub(super) fn keyed() -> Arc<TableSchema> {
    schema(&["a", "b"], vec![0])
}

fn keyless() -> Arc<TableSchema> {
    schema(&["a", "b"], Vec::new())
}

pub(super) fn batch(schema: &Arc<TableSchema>, changes: &[Change], reach: TruncateReach) -> ChangeBatch {
    let truncates = changes
        .iter()
        .enumerate()
        .filter(|(_, change)| change.operation == Operation::Truncate)
        .map(|(row, _)| Truncate { row, reach });
    let first: Int64Array = changes.iter().map(|change| Some(change.row.0)).collect();
    let second: Int64Array = changes.iter().map(|change| change.row.1).collect();
    let columns: Vec<Arc<dyn Array>> = vec![Arc::new(first), Arc::new(second)];
    ChangeBatch {
        table: TableId::new("db", "public", "t"),
        schema: Arc::clone(schema),
        operations: changes.iter().map(|change| change.operation).collect(),
        rows: RecordBatch::try_new(
            schema.arrow().clone(),
            columns.into_iter().take(schema.columns().len()).collect(),
        )
        .unwrap(),
        absent: vec![None; schema.columns().len()],
        partitions: vec![0; changes.len()],
        offsets: (0..).take(changes.len()).collect(),
        source_micros: changes.iter().map(|change| change.lsn * 10).collect(),
        lsns: changes.iter().map(|change| change.lsn).collect(),
        truncates: truncates.collect(),
        moves: None,
    }
}

pub(super) type Row = (i64, Option<i64>);

pub(super) fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let column = |index: usize| batch.column(index).as_any().downcast_ref::<Int64Array>().unwrap().clone();
    let (first, second) = (column(0), (batch.num_columns() > 1).then(|| column(1)));
    let second =
        |row: usize| second.as_ref().filter(|cells| !cells.is_null(row)).map(|cells| cells.value(row));
    (0..batch.num_rows()).map(|row| (first.value(row), second(row))).collect()
}

fn change(operation: Operation, a: i64, b: Option<i64>, lsn: i64) -> Change {
    Change { operation, row: (a, b), lsn }
}

fn operations() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => Just(Operation::Create), 2 => Just(Operation::Update), 3 => Just(Operation::Delete),
        1 => Just(Operation::Read), 1 => Just(Operation::Truncate)
    ]
}

pub(super) fn changes() -> impl Strategy<Value = Vec<Change>> {
    let parts = (operations(), 0..3_i64, prop::option::of(0..2_i64));
    prop::collection::vec(parts, 0..30).prop_map(|all| {
        let with_place = |(at, (operation, a, b)): (usize, (Operation, i64, Option<i64>))| {
            change(operation, a, b, at as i64 + 1)
        };
        all.into_iter().enumerate().map(with_place).collect()
    })
}

proptest! {
    #[test]
    fn truncates_in_one_order_take_exactly_what_is_before_them(
        stored in prop::collection::btree_map(0..3_i64, prop::option::of(7..9_i64), 0..3),
        changes in changes(),
        cut in 0..30_usize,
    ) {
        let mut expected = stored.clone();
        for change in &changes {
            match change.operation {
                Operation::Truncate => expected.clear(),
                Operation::Delete => { expected.remove(&change.row.0); }
                _ => { expected.insert(change.row.0, change.row.1); }
            }
        }
        let (one, two) = changes.split_at(cut.min(changes.len()));
        let batches = [one, two].map(|part| batch(&keyed(), part, TruncateReach::Everything));
        let folded = fold(&keyed(), &[&batches[0], &batches[1]], |_, _| true).unwrap();
        let mut found = if folded.truncated.is_some() { BTreeMap::new() } else { stored };
        for (key, _) in rows_of(&folded.deletes) {
            found.remove(&key);
        }
        found.extend(rows_of(&folded.rows));
        prop_assert_eq!(found, expected);
        prop_assert_eq!(folded.changes, changes.len());
    }

    #[test]
    fn a_truncate_that_is_read_late_takes_what_it_would_have_taken_in_time(
        changes in changes(),
        late in 0..30_usize,
    ) {
        // One partition has the truncates, another the rows: the truncates are read at the end.
        let (truncates, mut rows): (Vec<Change>, Vec<Change>) =
            changes.iter().copied().partition(|change| change.operation == Operation::Truncate);
        let mut expected = BTreeMap::new();
        for change in &changes {
            match change.operation {
                Operation::Truncate => expected.clear(),
                Operation::Delete => { expected.remove(&change.row.0); }
                _ => { expected.insert(change.row.0, change.row.1); }
            }
        }
        let behind = rows.split_off(late.min(rows.len()));
        // What is behind was read after the truncates: it has to be newer than they are.
        let newest = truncates.iter().map(|change| change.lsn).max().unwrap_or(0);
        prop_assume!(behind.iter().all(|change| change.lsn > newest));
        let all: Vec<Change> = rows.into_iter().chain(truncates).chain(behind).collect();
        let all = batch(&keyed(), &all, TruncateReach::Older { stored: false });
        let folded = fold(&keyed(), &[&all], |_, _| true).unwrap();
        prop_assert_eq!(rows_of(&folded.rows).into_iter().collect::<BTreeMap<_, _>>(), expected);
    }

    #[test]
    fn rows_without_key_are_counted(
        stored in prop::collection::vec((0..3_i64, prop::option::of(0..2_i64)), 0..8),
        changes in changes(),
        cut in 0..30_usize,
    ) {
        let mut expected = stored.clone();
        let take = |rows: &mut Vec<Row>, row: Row| {
            if let Some(at) = rows.iter().position(|each| *each == row) {
                rows.remove(at);
            }
        };
        for change in &changes {
            match change.operation {
                Operation::Truncate => expected.clear(),
                Operation::Delete => take(&mut expected, change.row),
                _ => expected.push(change.row),
            }
        }
        let (one, two) = changes.split_at(cut.min(changes.len()));
        let batches = [one, two].map(|part| batch(&keyless(), part, TruncateReach::Everything));
        let folded = fold(&keyless(), &[&batches[0], &batches[1]], |_, _| true).unwrap();
        let mut found = if folded.truncated.is_some() { Vec::new() } else { stored };
        for row in rows_of(&folded.deletes) {
            take(&mut found, row);
        }
        found.extend(rows_of(&folded.rows));
        found.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn a_late_truncate_takes_stored_rows_that_were_committed_before_it() {
    let all = [change(Operation::Truncate, 0, None, 5)];
    let fold_with =
        |reach| -> Folded { fold(&keyed(), &[&batch(&keyed(), &all, reach)], |_, _| true).unwrap() };
    assert_eq!(fold_with(TruncateReach::Everything).truncated, Some(Truncated::All));
    assert_eq!(fold_with(TruncateReach::Older { stored: false }).truncated, Some(Truncated::All));
    let older = fold_with(TruncateReach::Older { stored: true }).truncated.unwrap();
    assert_eq!(older, Truncated::Before(50));
    assert!(older.takes(Some(49)) && older.takes(None) && !older.takes(Some(50)), "the same transaction");
}

#[test]
fn a_dropped_column_does_not_keep_rows_without_key_from_being_found() {
    let one = batch(&keyless(), &[change(Operation::Create, 1, Some(2), 1)], TruncateReach::Everything);
    let narrow = schema(&["a"], Vec::new());
    let gone = [change(Operation::Delete, 1, None, 2), change(Operation::Delete, 3, None, 3)];
    let two = batch(&narrow, &gone, TruncateReach::Everything);
    let folded = fold(&keyless(), &[&one, &two], |_, _| true).unwrap();
    assert_eq!((folded.rows.num_rows(), folded.compared.as_slice()), (0, &[0][..]));
    assert_eq!(rows_of(&folded.deletes), [(3, None)]);
}
