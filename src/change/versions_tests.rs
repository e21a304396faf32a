//! The versions of a batch against a model that writes down one version after the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use proptest::prelude::*;

use super::fold_tests::{Cell, Change, batch, changes, schema};
use super::{ChangeBatch, KeyMoves, Operation, Versions};

type Cells = [Option<String>; 2];
/// Current versions before the batch.
type Stored = BTreeMap<i64, Cells>;

/// A version: its key, what began it (`None`: it was stored), its cells, and when it ended.
type Version = (i64, Option<i64>, Cells, Option<i64>);

#[derive(Debug, Default, PartialEq, Eq)]
struct History {
    /// Sorted.
    versions: Vec<Version>,
    /// Keys without a current version, of those that the batch touches.
    gone: Vec<i64>,
    unknown_deletes: u64,
}

/// What the source means.
fn one_by_one(stored: &Stored, changes: &[Change]) -> History {
    let mut all: Vec<Version> = stored.iter().map(|(key, cells)| (*key, None, cells.clone(), None)).collect();
    let mut history = History::default();
    for (offset, change) in (0..).zip(changes) {
        let open = all.iter().position(|(key, .., end)| *key == change.key && end.is_none());
        let before = open.map(|at| all[at].2.clone());
        if !change.operation.is_upsert() {
            history.unknown_deletes += u64::from(open.is_none());
            if let Some(at) = open {
                all[at].3 = Some(offset + 1);
            }
            continue;
        }
        let resolve = |cell: &Cell, at: usize| match cell {
            Cell::Value(text) => Some(text.clone()),
            Cell::Null => None,
            Cell::Absent => before.as_ref().and_then(|before| before[at].clone()),
        };
        let cells = [resolve(&change.first, 0), resolve(&change.second, 1)];
        if change.operation == Operation::Read && before.as_ref() == Some(&cells) {
            continue;
        }
        if let Some(at) = open {
            all[at].3 = Some(offset + 1);
        }
        all.push((change.key, Some(offset), cells, None));
    }
    history.gone = changes.iter().map(|change| change.key).collect();
    history.gone.retain(|key| !all.iter().any(|(of, .., end)| of == key && end.is_none()));
    history.gone.sort_unstable();
    history.gone.dedup();
    all.sort();
    History { versions: all, ..history }
}

/// What a sink does with the versions of a batch.
fn completed(stored: &Stored, versions: &Versions) -> History {
    let text = |at: usize| stored.values().map(|cells| cells[at].clone()).collect::<StringArray>();
    let rows = RecordBatch::try_new(
        schema().arrow().clone(),
        vec![Arc::new(text(0)), Arc::new(stored.keys().copied().collect::<Int64Array>()), Arc::new(text(1))],
    )
    .unwrap();
    let touched = versions.keys.column(0).as_primitive::<Int64Type>();
    let of_key: Vec<Option<usize>> =
        touched.values().iter().map(|key| stored.keys().position(|stored| stored == key)).collect();
    let completed = versions.complete(&rows, &of_key).unwrap();
    let end_of = |key: &i64| {
        let at = touched.values().iter().position(|touched| touched == key)?;
        completed.stored_ends[at]
    };
    let mut all: Vec<Version> =
        stored.iter().map(|(key, cells)| (*key, None, cells.clone(), end_of(key))).collect();
    let cell = |column: usize, row: usize| {
        let cells = completed.columns[column].as_string::<i32>();
        (!cells.is_null(row)).then(|| cells.value(row).to_owned())
    };
    for &(version, end) in &completed.written {
        let begun = versions.begun[version];
        let key = completed.columns[1].as_primitive::<Int64Type>().value(version);
        assert_eq!(key, touched.value(begun.key), "of version {version} in {versions:?}");
        all.push((key, Some(begun.offset), [cell(0, version), cell(2, version)], end));
    }
    all.sort();
    let mut gone: Vec<i64> = completed.gone.iter().map(|&key| touched.value(key)).collect();
    gone.sort_unstable();
    History { versions: all, gone, unknown_deletes: completed.unknown_deletes }
}

proptest! {
    #[test]
    fn every_change_makes_its_version(
        stored in prop::collection::btree_map(0..6i64, ("[a-c]", prop::option::of("[a-c]")), 0..6),
        changes in changes(),
        cut in 0..40usize,
    ) {
        let stored: Stored = stored.into_iter().map(|(key, (first, second))| (key, [Some(first), second])).collect();
        let cut = cut.min(changes.len());
        let batches = [batch(&changes[..cut], 0), batch(&changes[cut..], cut as i64)];
        let versions = Versions::of(&schema(), &batches.iter().collect::<Vec<_>>(), |_, _| true).unwrap();
        prop_assert_eq!(completed(&stored, &versions), one_by_one(&stored, &changes));
    }
}

#[test]
fn a_row_that_a_snapshot_reads_again_is_no_new_version_unless_it_differs() {
    let change = |operation, text: &str| Change {
        operation,
        key: 1,
        first: Cell::Value(text.into()),
        second: Cell::Null,
    };
    let stored = Stored::from([(1, [Some("a".to_owned()), None])]);
    for (text, expected) in [("a", 0), ("b", 1)] {
        let changes = [change(Operation::Read, text)];
        let versions = Versions::of(&schema(), &[&batch(&changes, 0)], |_, _| true).unwrap();
        let history = completed(&stored, &versions);
        assert_eq!(history.versions.len(), 1 + expected, "{text}: {history:?}");
    }
}

/// A batch, some of whose changes are halves of key changes: index, the other key, LSN.
fn moving(changes: &[Change], halves: &[(u32, i64, i64)]) -> ChangeBatch {
    let keys = Arc::new(halves.iter().map(|(_, key, _)| *key).collect::<Int64Array>());
    let key_schema = Arc::new(schema().arrow().project(&[1]).unwrap());
    ChangeBatch {
        moves: Some(KeyMoves {
            changes: halves.iter().map(|(change, ..)| *change).collect(),
            keys: RecordBatch::try_new(key_schema, vec![keys]).unwrap(),
            lsns: halves.iter().map(|(.., lsn)| Some(*lsn)).collect(),
        }),
        ..batch(changes, 0)
    }
}

/// A change that leaves its second cell as it was.
fn leaving(operation: Operation, key: i64, first: &str) -> Change {
    Change { operation, key, first: Cell::Value(first.into()), second: Cell::Absent }
}

fn last_cells(history: &History, key: i64) -> Option<&Cells> {
    history.versions.iter().find(|(of, .., end)| *of == key && end.is_none()).map(|(_, _, cells, _)| cells)
}

#[test]
fn the_first_version_under_a_changed_key_keeps_the_unchanged_values_of_the_last_under_the_old_one() {
    use Operation::{Create, Delete, Update};
    let text = |text: &str| Some(text.to_owned());
    let stored = Stored::from([(1, [text("a"), text("large")])]);
    // Stored under 1, moved to 2, changed there, and moved on to 3.
    let chain = [
        leaving(Delete, 1, ""),
        leaving(Create, 2, "b"),
        leaving(Update, 2, "c"),
        leaving(Delete, 2, ""),
        leaving(Create, 3, "d"),
    ];
    let halves = [(0, 2, 10), (1, 1, 10), (3, 3, 20), (4, 2, 20)];
    let versions = Versions::of(&schema(), &[&moving(&chain, &halves)], |_, _| true).unwrap();
    let history = completed(&stored, &versions);
    assert_eq!(last_cells(&history, 3), Some(&[text("d"), text("large")]), "{history:?}");
    assert!(history.versions.iter().all(|(_, _, cells, _)| cells[1] == text("large")), "{history:?}");

    // The same again: what is there under 3 goes before.
    let stored = Stored::from([(3, [text("d"), text("larger")])]);
    let again = completed(&stored, &versions);
    assert_eq!(last_cells(&again, 3), Some(&[text("d"), text("larger")]), "{again:?}");
}

#[test]
fn a_create_without_header_or_before_its_delete_takes_nothing_of_another_key() {
    use Operation::{Create, Delete};
    let text = |text: &str| Some(text.to_owned());
    let stored = Stored::from([(1, [text("a"), text("large")])]);
    let delete_first = [leaving(Delete, 1, ""), leaving(Create, 2, "b")];
    let create_first = [leaving(Create, 2, "b"), leaving(Delete, 1, "")];
    for (changes, halves) in [
        (&delete_first, vec![]),
        (&create_first, vec![(0, 1, 10), (1, 2, 10)]),
        (&delete_first, vec![(0, 2, 10), (1, 1, 11)]),
    ] {
        let versions = Versions::of(&schema(), &[&moving(changes, &halves)], |_, _| true).unwrap();
        let history = completed(&stored, &versions);
        assert_eq!(last_cells(&history, 2), Some(&[text("b"), None]), "{changes:?} {halves:?}");
    }
}
