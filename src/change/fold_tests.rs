//! The fold against a model that applies one change after the other to a map.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::Int64Type;
use proptest::prelude::*;

use super::{
    ChangeBatch, Column, ColumnType, DeleteMode, Folded, Operation, TableId, TableSchema, fold, fold_with,
};

/// A cell that is not the key: a value, null, or absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Value(String),
    Null,
    Absent,
}

#[derive(Debug, Clone)]
pub(super) struct Change {
    pub operation: Operation,
    pub key: i64,
    pub first: Cell,
    pub second: Cell,
}

pub(super) fn schema() -> Arc<TableSchema> {
    let column = |name: &str, column_type| Column { name: name.into(), column_type, nullable: true };
    Arc::new(TableSchema::new(
        vec![
            column("first", ColumnType::Text),
            column("id", ColumnType::Int64),
            column("second", ColumnType::Text),
        ],
        vec![1],
    ))
}

pub(super) fn batch(changes: &[Change], first_offset: i64) -> ChangeBatch {
    let text = |cell: fn(&Change) -> &Cell| {
        changes
            .iter()
            .map(|change| match cell(change) {
                Cell::Value(text) if change.operation.is_upsert() => Some(text.clone()),
                _ => None,
            })
            .collect::<StringArray>()
    };
    let mask = |cell: fn(&Change) -> &Cell| {
        let bits: Vec<bool> = changes
            .iter()
            .map(|change| change.operation.is_upsert() && *cell(change) == Cell::Absent)
            .collect();
        bits.contains(&true).then(|| BooleanBuffer::from(bits))
    };
    let schema = schema();
    let rows = RecordBatch::try_new(
        schema.arrow().clone(),
        vec![
            Arc::new(text(|change| &change.first)),
            Arc::new(changes.iter().map(|change| change.key).collect::<Int64Array>()),
            Arc::new(text(|change| &change.second)),
        ],
    )
    .unwrap();
    ChangeBatch {
        table: TableId::new("db", "public", "t"),
        schema,
        operations: changes.iter().map(|change| change.operation).collect(),
        rows,
        absent: vec![mask(|change| &change.first), None, mask(|change| &change.second)],
        partitions: vec![0; changes.len()],
        offsets: (first_offset..).take(changes.len()).collect(),
        source_micros: (first_offset + 1..).take(changes.len()).collect(),
        moves: None,
        lsns: vec![0; changes.len()],
        truncates: Vec::new(),
    }
}

type Table = BTreeMap<i64, [Option<String>; 2]>;

/// What the source means: changes applied one by one to what is stored.
fn apply_one_by_one(stored: &Table, changes: &[Change]) -> Table {
    let mut table = stored.clone();
    for change in changes {
        if !change.operation.is_upsert() {
            table.remove(&change.key);
            continue;
        }
        let old = table.get(&change.key).cloned().unwrap_or([None, None]);
        let resolve = |cell: &Cell, old: &Option<String>| match cell {
            Cell::Value(text) => Some(text.clone()),
            Cell::Null => None,
            Cell::Absent => old.clone(),
        };
        table.insert(change.key, [resolve(&change.first, &old[0]), resolve(&change.second, &old[1])]);
    }
    table
}

/// What a sink does with a folded batch.
fn apply_folded(stored: &Table, folded: &Folded) -> Table {
    let mut table = stored.clone();
    for key in folded.deletes.column(0).as_primitive::<Int64Type>().values() {
        table.remove(key);
    }
    let keys = folded.rows.column(1).as_primitive::<Int64Type>();
    for row in 0..folded.rows.num_rows() {
        let old = table.get(&keys.value(row)).cloned().unwrap_or([None, None]);
        let cell = |column: usize, old: &Option<String>| {
            if folded.absent[column].as_ref().is_some_and(|mask| mask.value(row)) {
                return old.clone();
            }
            let values = folded.rows.column(column).as_string::<i32>();
            (!values.is_null(row)).then(|| values.value(row).to_owned())
        };
        table.insert(keys.value(row), [cell(0, &old[0]), cell(2, &old[1])]);
    }
    table
}

/// Rows that stay when they are deleted: their cells, and whether they are deleted.
type Marked = BTreeMap<i64, ([Option<String>; 2], bool)>;

/// What the source means where deleted rows are kept.
fn mark_one_by_one(stored: &Marked, changes: &[Change]) -> Marked {
    let mut table = stored.clone();
    for change in changes {
        if !change.operation.is_upsert() {
            if let Some((_, deleted)) = table.get_mut(&change.key) {
                *deleted = true;
            }
            continue;
        }
        let old = table.get(&change.key).filter(|(_, deleted)| !deleted).map(|(cells, _)| cells.clone());
        let old = old.unwrap_or([None, None]);
        let resolve = |cell: &Cell, old: &Option<String>| match cell {
            Cell::Value(text) => Some(text.clone()),
            Cell::Null => None,
            Cell::Absent => old.clone(),
        };
        let cells = [resolve(&change.first, &old[0]), resolve(&change.second, &old[1])];
        table.insert(change.key, (cells, false));
    }
    table
}

/// What a sink that keeps deleted rows does with a folded batch.
fn mark_folded(stored: &Marked, folded: &Folded) -> Marked {
    assert_eq!(folded.deletes.num_rows(), 0, "{folded:?}");
    let mut table = stored.clone();
    let keys = folded.rows.column(1).as_primitive::<Int64Type>();
    for row in 0..folded.rows.num_rows() {
        let of_stored = folded.of_stored.as_ref().is_some_and(|rows| rows.value(row));
        let old = table.get(&keys.value(row)).filter(|(_, deleted)| of_stored || !deleted).cloned();
        if of_stored && old.is_none() {
            continue;
        }
        let (old, _) = old.unwrap_or(([None, None], false));
        let cell = |column: usize, old: &Option<String>| {
            if folded.absent[column].as_ref().is_some_and(|mask| mask.value(row)) {
                return old.clone();
            }
            let values = folded.rows.column(column).as_string::<i32>();
            (!values.is_null(row)).then(|| values.value(row).to_owned())
        };
        let deleted = !folded.operations[row].is_upsert();
        table.insert(keys.value(row), ([cell(0, &old[0]), cell(2, &old[1])], deleted));
    }
    table
}

fn cells() -> impl Strategy<Value = Cell> {
    prop_oneof![3 => "[a-c]{0,2}".prop_map(Cell::Value), 1 => Just(Cell::Null), 2 => Just(Cell::Absent)]
}

pub(super) fn changes() -> impl Strategy<Value = Vec<Change>> {
    let operation = prop_oneof![
        Just(Operation::Create),
        Just(Operation::Update),
        Just(Operation::Update),
        Just(Operation::Delete),
        Just(Operation::Read)
    ];
    let change = (operation, 0..6i64, cells(), cells()).prop_map(|(operation, key, first, second)| Change {
        operation,
        key,
        first,
        second,
    });
    prop::collection::vec(change, 0..40)
}

proptest! {
    #[test]
    fn folding_and_applying_equals_applying_one_by_one(
        stored in prop::collection::btree_map(0..6i64, ("[x-z]", prop::option::of("[x-z]")), 0..6),
        changes in changes(),
        cuts in prop::collection::vec(0..40usize, 0..3),
    ) {
        let stored: Table = stored.into_iter().map(|(key, (first, second))| (key, [Some(first), second])).collect();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(changes.len())).collect();
        cuts.extend([0, changes.len()]);
        cuts.sort_unstable();
        let batches: Vec<ChangeBatch> =
            cuts.windows(2).map(|cut| batch(&changes[cut[0]..cut[1]], cut[0] as i64)).collect();
        let folded = fold(&schema(), &batches.iter().collect::<Vec<_>>(), |_, _| true).unwrap();
        prop_assert_eq!(apply_folded(&stored, &folded), apply_one_by_one(&stored, &changes));
    }

    #[test]
    fn deleted_rows_that_stay_keep_their_last_values_and_give_them_to_no_new_row(
        stored in prop::collection::btree_map(0..6i64, ("[x-z]", prop::option::of("[x-z]"), any::<bool>()), 0..6),
        changes in changes(),
    ) {
        let stored: Marked =
            stored.into_iter().map(|(key, (first, second, deleted))| (key, ([Some(first), second], deleted))).collect();
        let all = batch(&changes, 0);
        let folded = fold_with(DeleteMode::Soft, &schema(), &[&all], |_, _| true).unwrap();
        prop_assert_eq!(mark_folded(&stored, &folded), mark_one_by_one(&stored, &changes));
    }

    #[test]
    fn changes_before_the_stored_position_do_not_count(changes in changes(), from in 0..40i64) {
        let all = batch(&changes, 0);
        let kept = &changes[(from as usize).min(changes.len())..];
        let folded = fold(&schema(), &[&all], |_, offset| offset >= from).unwrap();
        prop_assert_eq!(folded.changes, kept.len());
        prop_assert_eq!(apply_folded(&Table::new(), &folded), apply_one_by_one(&Table::new(), kept));
    }
}

#[test]
fn a_row_created_again_inherits_nothing_from_before_its_delete() {
    let change = |operation, first| Change { operation, key: 1, first, second: Cell::Null };
    let all = batch(
        &[
            change(Operation::Create, Cell::Value("old".into())),
            change(Operation::Delete, Cell::Null),
            change(Operation::Create, Cell::Absent),
        ],
        0,
    );
    let folded = fold(&schema(), &[&all], |_, _| true).unwrap();
    assert_eq!(folded.unresolved, [(0, 0)], "{folded:?}");
    assert!(folded.rows.column(0).is_null(0), "{:?}", folded.rows);
}

#[test]
fn a_column_that_a_batch_lacks_is_null_in_its_rows() {
    let wider = Arc::new(TableSchema::new(
        [
            schema().columns(),
            &[Column { name: "added".into(), column_type: ColumnType::Int32, nullable: true }],
        ]
        .concat(),
        vec![1],
    ));
    let one =
        Change { operation: Operation::Create, key: 1, first: Cell::Null, second: Cell::Value("s".into()) };
    let folded = fold(&wider, &[&batch(&[one], 0)], |_, _| true).unwrap();
    assert_eq!(folded.rows.num_columns(), 4);
    assert!(folded.rows.column(3).is_null(0), "{:?}", folded.rows);
}

#[test]
fn a_column_of_another_type_is_an_error_that_names_it() {
    let other = Arc::new(TableSchema::new(
        vec![Column { name: "first".into(), column_type: ColumnType::Int64, nullable: true }],
        vec![0],
    ));
    let one = Change { operation: Operation::Create, key: 1, first: Cell::Null, second: Cell::Null };
    let error = fold(&other, &[&batch(&[one], 0)], |_, _| true).unwrap_err().to_string();
    assert!(error.contains("column first is Utf8 in the events and Int64 in the table"), "{error}");
}
