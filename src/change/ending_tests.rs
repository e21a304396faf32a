//! Truncates in a sink that keeps deleted rows, against a model that applies every change at its time.

use std::collections::BTreeMap;

use arrow::buffer::BooleanBuffer;
use proptest::prelude::*;

use super::fold_whole_tests::{Change, Row, batch, changes, keyed, rows_of};
use super::{ChangeBatch, DeleteMode, Folded, Operation, TruncateReach, fold_with};

/// A row as such a sink has it: its value, what was last done to it, and when.
type Kept = (Option<i64>, &'static str, i64);
type Sink = BTreeMap<i64, Kept>;

fn is_there(row: Kept) -> bool {
    !matches!(row.1, "d" | "t")
}

fn apply(sink: &mut Sink, change: &Change) {
    let (key, value) = change.row;
    let (letter, time) = (change.operation.code(), change.lsn * 10);
    match change.operation {
        Operation::Truncate => {
            for row in sink.values_mut().filter(|row| is_there(**row)) {
                *row = (row.0, letter, time);
            }
        }
        Operation::Delete => {
            if let Some(row) = sink.get_mut(&key) {
                *row = (row.0, letter, time);
            }
        }
        _ => {
            let before = sink.get(&key).filter(|row| is_there(**row)).and_then(|row| row.0);
            let value = if is_partial(change) { before } else { value };
            sink.insert(key, (value, letter, time));
        }
    }
}

fn applied(changes: &[Change]) -> Sink {
    let mut sink = Sink::new();
    for change in changes {
        apply(&mut sink, change);
    }
    sink
}

/// An update without a value leaves it as it is.
fn is_partial(change: &Change) -> bool {
    change.operation == Operation::Update && change.row.1.is_none()
}

/// What a sink does with a folded batch.
fn write(sink: &mut Sink, folded: &Folded) {
    let rows: Vec<Row> = rows_of(&folded.rows);
    let of_stored = |row: usize| folded.of_stored.as_ref().is_some_and(|rows| rows.value(row));
    if let Some(ending) = &folded.ending {
        let ranks: BTreeMap<i64, usize> =
            rows_of(&ending.keys).iter().map(|row| row.0).zip(ending.ranks.iter().copied()).collect();
        for (key, kept) in sink.iter_mut().filter(|(_, kept)| is_there(**kept)) {
            let only_deletes = rows.iter().enumerate().any(|(at, row)| row.0 == *key && of_stored(at));
            let rank = if only_deletes { Some(0) } else { ranks.get(key).copied() };
            if let Some(by) = ending.of_row(Some(kept.2), rank) {
                *kept = (kept.0, "t", ending.truncates[by].micros);
            }
        }
    }
    for (at, (key, value)) in rows.into_iter().enumerate() {
        let is_absent = folded.absent[1].as_ref().is_some_and(|mask| mask.value(at));
        let stored = sink.get(&key).filter(|kept| is_there(**kept) || of_stored(at)).map(|kept| kept.0);
        if of_stored(at) && stored.is_none() {
            continue;
        }
        let value = if is_absent { stored.flatten() } else { value };
        sink.insert(key, (value, folded.operations[at].code(), folded.source_micros[at]));
    }
}

fn fold(changes: &[&[Change]], reach: TruncateReach) -> Folded {
    // Deletes and absent cells come with null in them.
    let as_decoded = |change: &Change| {
        let value = change.row.1.filter(|_| change.operation.is_upsert());
        Change { row: (change.row.0, value), ..*change }
    };
    let with_absent = |part: &&[Change]| {
        let mask: BooleanBuffer = part.iter().map(is_partial).collect();
        let part: Vec<Change> = part.iter().map(as_decoded).collect();
        ChangeBatch { absent: vec![None, Some(mask)], ..batch(&keyed(), &part, reach) }
    };
    let batches: Vec<_> = changes.iter().map(with_absent).collect();
    let batches: Vec<_> = batches.iter().collect();
    fold_with(DeleteMode::Soft, &keyed(), &batches, |_, _| true).unwrap()
}

proptest! {
    #[test]
    fn truncates_in_one_order_end_exactly_the_rows_that_are_there(
        changes in changes(),
        stored in 0..30_usize,
        cut in 0..30_usize,
    ) {
        let expected = applied(&changes);
        let (first, second) = changes.split_at(stored.min(changes.len()));
        let (one, two) = second.split_at(cut.min(second.len()));
        let mut found = Sink::new();
        write(&mut found, &fold(&[first], TruncateReach::Everything));
        let folded = fold(&[one, two], TruncateReach::Everything);
        write(&mut found, &folded);
        prop_assert_eq!(found, expected);
        prop_assert_eq!(folded.changes, second.len());
    }

    #[test]
    fn truncates_that_are_read_late_end_the_rows_that_were_there_at_their_time(
        changes in changes(),
        stored in 0..30_usize,
        late in 0..30_usize,
    ) {
        // An update leaves nothing as it is in a row that was created after a truncate; whether it was, is not known here.
        let whole = |change: Change| {
            let operation = if is_partial(&change) { Operation::Create } else { change.operation };
            Change { operation, ..change }
        };
        let changes: Vec<Change> = changes.into_iter().map(whole).collect();
        // One partition has the truncates, another the rows: of those some were stored before the truncates were read, some
        // stand before them in their batch, and the others, all of them newer, behind.
        let expected = applied(&changes);
        let (truncates, mut rows): (Vec<Change>, Vec<Change>) =
            changes.iter().copied().partition(|change| change.operation == Operation::Truncate);
        let newest = truncates.iter().map(|change| change.lsn).max().unwrap_or(0);
        let older = rows.iter().filter(|row| row.lsn < newest).count();
        let behind = rows.split_off(late.max(older).min(rows.len()));
        let batch = rows.split_off(stored.min(rows.len()));
        let mut found = Sink::new();
        write(&mut found, &fold(&[&rows], TruncateReach::Everything));
        let all: Vec<Change> = batch.into_iter().chain(truncates).chain(behind).collect();
        write(&mut found, &fold(&[&all], TruncateReach::Older { stored: true }));
        prop_assert_eq!(found, expected);
    }
}
