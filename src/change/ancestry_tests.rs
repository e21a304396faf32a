//! Key changes through the fold, against a source that is a map.
//!
//! A history is made by a source table ([`ancestry_source`](super::ancestry_source)) whose rows are created, updated, deleted
//! and given other keys; what is unchanged is left out of its events at random, as Postgres does with TOASTed values. The events go to partitions by key, are
//! read in any order that keeps each partition's, and are folded in batches.

// Absent and null are two things.
#![allow(clippy::option_option)]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{Int64Type, Schema};
use proptest::prelude::*;

use super::ancestry_source::{Act, Event, Row, Source, Table};
use super::{
    Candidate, ChangeBatch, Column, ColumnType, DeleteMode, Folded, KeyLedger, KeyMoves, Operation, TableId,
    TableSchema, fold, fold_onto,
};

fn schema() -> Arc<TableSchema> {
    let column = |name: &str, column_type| Column { name: name.into(), column_type, nullable: true };
    let (key, text) = (column("id", ColumnType::Int64), |name| column(name, ColumnType::Text));
    Arc::new(TableSchema::new(vec![key, text("a"), text("b")], vec![0]))
}

fn batch(events: &[Event]) -> ChangeBatch {
    let schema = schema();
    let cells = |at: usize| {
        let values = events.iter().map(|event| event.cells[at].clone().flatten());
        Arc::new(values.collect::<StringArray>())
    };
    let mask = |at: usize| {
        let mask: BooleanBuffer = events.iter().map(|event| event.cells[at].is_none()).collect();
        (mask.count_set_bits() > 0).then_some(mask)
    };
    let keys = Arc::new(events.iter().map(|event| event.key).collect::<Int64Array>());
    let rows = RecordBatch::try_new(schema.arrow().clone(), vec![keys, cells(0), cells(1)]).unwrap();
    let halves: Vec<(u32, (i64, i64))> =
        (0..).zip(events).filter_map(|(at, event)| Some((at, event.other?))).collect();
    let key_schema = Arc::new(Schema::new(vec![schema.arrow().field(0).clone()]));
    let others = Arc::new(halves.iter().map(|(_, (key, _))| *key).collect::<Int64Array>());
    ChangeBatch {
        table: TableId::new("db", "public", "t"),
        operations: events.iter().map(|event| event.operation).collect(),
        rows,
        absent: vec![None, mask(0), mask(1)],
        partitions: vec![0; events.len()],
        offsets: (0..events.len() as i64).collect(),
        source_micros: vec![0; events.len()],
        lsns: events.iter().map(|event| event.lsn).collect(),
        truncates: Vec::new(),
        moves: (!halves.is_empty()).then(|| KeyMoves {
            changes: halves.iter().map(|(at, _)| *at).collect(),
            keys: RecordBatch::try_new(key_schema, vec![others]).unwrap(),
            lsns: halves.iter().map(|(_, (_, lsn))| Some(*lsn)).collect(),
        }),
        schema,
    }
}

/// A sink: what it stores, and what it keeps for key changes that are half done.
#[derive(Debug, Default, Clone)]
struct Sink {
    table: Table,
    ledger: KeyLedger,
    kept: BTreeMap<String, Row>,
    /// Cells that were nowhere.
    unresolved: usize,
}

impl Sink {
    fn of(table: &Table) -> Self {
        Self { table: table.clone(), ..Self::default() }
    }

    fn apply(&mut self, events: &[Event]) {
        let folded =
            fold_onto(DeleteMode::Hard, &schema(), &[&batch(events)], |_, _| true, &self.ledger).unwrap();
        let mut names = Vec::new();
        if let Some(departing) = &folded.departing {
            for row in 0..departing.rows.rows.num_rows() {
                let cells = [1, 2].map(|column| self.cell(&departing.rows, row, column));
                let lost =
                    cells.contains(&None) || departing.rows.unresolved.iter().any(|(at, _)| *at == row);
                let name = format!("{} of {row}", self.kept.len());
                names.push((!lost).then(|| name.clone()));
                self.kept.insert(name, cells.map(Option::flatten));
            }
        }
        let rows: Vec<(i64, Row)> = (0..folded.rows.num_rows())
            .map(|row| {
                let key = folded.rows.column(0).as_primitive::<Int64Type>().value(row);
                let cells = [1, 2].map(|column| self.cell(&folded, row, column));
                self.unresolved += cells.iter().filter(|cell| cell.is_none()).count();
                (key, cells.map(Option::flatten))
            })
            .collect();
        self.unresolved += folded.unresolved.len();
        for key in folded.deletes.column(0).as_primitive::<Int64Type>().values() {
            self.table.remove(key);
        }
        self.table.extend(rows);
        let ledger = folded.ledger_with(names.into_iter());
        self.ledger = KeyLedger::from_text(&ledger.to_text());
    }

    /// A cell of a folded row; `None` where it is stored nowhere.
    fn cell(&self, folded: &Folded, row: usize, column: usize) -> Option<Option<String>> {
        if !folded.absent[column].as_ref().is_some_and(|mask| mask.value(row)) {
            let values = folded.rows.column(column).as_string::<i32>();
            return Some((!values.is_null(row)).then(|| values.value(row).to_owned()));
        }
        let origins = folded.origins.as_ref();
        let from = match origins.and_then(|origins| origins.candidates_of(column, row)) {
            None => self.table.get(&folded.rows.column(0).as_primitive::<Int64Type>().value(row)),
            Some(list) => {
                let origins = origins.unwrap();
                let keys = origins.keys.column(0).as_primitive::<Int64Type>().values();
                list.iter().find_map(|candidate| match *candidate {
                    Candidate::Stored(at) => self.table.get(&keys[at as usize]),
                    Candidate::Kept(at) => self.kept.get(&origins.kept[at as usize]),
                })
            }
        };
        from.map(|row| row[column - 1].clone())
    }
}

fn folded(stored: &Table, events: &[Event]) -> Table {
    let mut sink = Sink::of(stored);
    sink.apply(events);
    assert_eq!(sink.unresolved, 0, "cells are nowhere: {events:?}");
    sink.table
}

/// The events in another order: each partition's own is kept, `turns` says whose turn it is.
fn interleaved(events: &[Event], partitions: usize, turns: &[usize]) -> Vec<Event> {
    let mut queues = vec![VecDeque::new(); partitions];
    for event in events {
        queues[event.key.rem_euclid(partitions as i64) as usize].push_back(event.clone());
    }
    let mut out = Vec::new();
    let mut turns = turns.iter().cycle();
    while out.len() < events.len() {
        let first = *turns.next().unwrap();
        let at = (0..partitions).map(|at| (first + at) % partitions).find(|&at| !queues[at].is_empty());
        out.extend(queues[at.unwrap()].pop_front());
    }
    out
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let cell = prop::option::weighted(0.8, "[a-z]");
    let row = (cell.clone(), cell).prop_map(|(a, b)| [a, b]);
    let flags = || (any::<bool>(), any::<bool>()).prop_map(|(a, b)| [a, b]);
    let act = prop_oneof![
        4 => (0..5i64, row, flags()).prop_map(|(key, row, flags)| Act::Put(key, row, flags)),
        1 => (0..5i64).prop_map(Act::Delete),
        4 => (0..5i64, 0..5i64, flags()).prop_map(|(from, to, flags)| Act::Move(from, to, flags)),
        1 => (0..5i64, 0..5i64).prop_map(|(a, b)| Act::Swap(a, b)),
    ];
    prop::collection::vec(act, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn unchanged_values_follow_their_row_through_its_keys(
        before in acts(),
        acts in acts(),
        partitions in 1..4usize,
        turns in prop::collection::vec(0..3usize, 1..40),
    ) {
        let mut source = Source::of(&before);
        let stored = source.table.clone();
        source.events.clear();
        for act in acts {
            source.act(&act);
        }
        let read = interleaved(&source.events, partitions, &turns);
        prop_assert_eq!(folded(&stored, &read), source.table);
    }

    #[test]
    fn key_changes_that_are_cut_in_two_anywhere_end_as_if_they_were_whole(
        before in acts(),
        acts in acts(),
        partitions in 1..2usize,
        turns in prop::collection::vec(0..3usize, 1..40),
        cuts in prop::collection::vec(0..60usize, 0..8),
    ) {
        let mut source = Source::of(&before);
        let mut sink = Sink::of(&source.table);
        source.events.clear();
        for act in acts {
            source.act(&act);
        }
        let read = interleaved(&source.events, partitions, &turns);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(read.len())).collect();
        cuts.extend([0, read.len()]);
        cuts.sort_unstable();
        for cut in cuts.windows(2) {
            sink.apply(&read[cut[0]..cut[1]]);
        }
        prop_assert_eq!(&sink.table, &source.table, "read as {:?}", read);
        prop_assert!(partitions > 1 || sink.unresolved == 0);
        prop_assert!(partitions > 1 || (sink.ledger.departed.is_empty() && sink.ledger.waiting.is_empty()), "left: {:?}", sink.ledger);
    }
}

fn put(key: i64, a: &str) -> Act {
    Act::Put(key, [Some(a.to_owned()), None], [false, false])
}

#[test]
fn a_chain_of_keys_and_a_swap_keep_their_values_within_a_batch() {
    let mut source = Source::of(&[put(1, "one"), put(4, "four")]);
    let stored = source.table.clone();
    source.events.clear();
    let absent = [true, true];
    for act in [Act::Move(1, 2, absent), Act::Move(2, 3, absent), Act::Swap(3, 4)] {
        source.act(&act);
    }
    let table = folded(&stored, &source.events);
    assert_eq!(table, source.table);
    assert_eq!((table[&3][0].as_deref(), table[&4][0].as_deref()), (Some("four"), Some("one")));
}

#[test]
fn a_row_created_anew_under_a_deleted_key_inherits_nothing_without_the_header() {
    let mut source = Source::of(&[put(1, "one")]);
    source.events.clear();
    source.act(&Act::Move(1, 2, [true, true]));
    source.events[1].other = None;
    let folded = fold(&schema(), &[&batch(&source.events)], |_, _| true).unwrap();
    assert!(folded.origins.is_none(), "{folded:?}");
}

#[test]
fn a_repeated_create_keeps_the_row_that_is_there_and_takes_none_of_a_newer_row_under_its_old_key() {
    let stored: Table = [(1, "newer"), (2, "moved")].map(|(key, a)| (key, [Some(a.to_owned()), None])).into();
    let mut source = Source { table: [(1, [None, None])].into(), events: Vec::new() };
    source.act(&Act::Move(1, 2, [true, false]));
    let table = folded(&stored, &source.events);
    assert_eq!(table[&2][0].as_deref(), Some("moved"));
}

/// A source whose last events come again, in batches that end anywhere.
#[derive(Debug, Clone)]
struct Repeating {
    acts: Vec<Act>,
    /// Events from the end on that come again, each time.
    again: Vec<usize>,
    cuts: Vec<usize>,
}

fn repeating() -> impl Strategy<Value = Repeating> {
    let again = prop::collection::vec(0..12usize, 1..3);
    (acts(), again, prop::collection::vec(0..60usize, 0..6)).prop_map(|(acts, again, cuts)| Repeating {
        acts,
        again,
        cuts,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn key_changes_that_come_again_give_no_row_the_values_of_another(history in repeating()) {
        let source = Source::of(&history.acts);
        let (mut read, mut starts) = (source.events.clone(), vec![0]);
        for again in &history.again {
            starts.push(read.len());
            read.extend_from_slice(&source.events[source.events.len().saturating_sub(*again)..]);
        }
        let in_batches = |ends: &[usize]| {
            let mut ends: Vec<usize> = ends.iter().map(|end| (*end).min(read.len())).collect();
            ends.extend([0, read.len()]);
            ends.sort_unstable();
            let mut sink = Sink::default();
            ends.windows(2).for_each(|ends| sink.apply(&read[ends[0]..ends[1]]));
            sink.table
        };
        prop_assert_eq!(in_batches(&[]), source.table.clone(), "in one batch, read as {:?}", read);
        prop_assert_eq!(in_batches(&starts), source.table.clone(), "in a batch each, read as {:?}", read);
        // A repetition that is cut in two may take the only copy of a value with it.
        let table = in_batches(&history.cuts);
        prop_assert_eq!(table.keys().collect::<Vec<_>>(), source.table.keys().collect::<Vec<_>>());
        for (key, row) in &source.table {
            for (found, expected) in table[key].iter().zip(row) {
                prop_assert!(found.is_none() || found == expected, "{}: {:?} instead of {:?}, read as {:?}", key, found, expected, read);
            }
        }
    }
}

#[test]
fn a_swap_of_keys_that_comes_again_leaves_the_rows_as_they_are() {
    let mut source = Source::of(&[put(1, "one"), put(4, "four")]);
    let stored = source.table.clone();
    source.events.clear();
    source.act(&Act::Swap(1, 4));
    let swap = source.events.clone();
    for first in 0..swap.len() {
        let again = [swap.as_slice(), &swap[first..], &swap].concat();
        assert_eq!(folded(&stored, &again), source.table, "in one batch, from {first} on");
        let mut sink = Sink::of(&stored);
        for batch in [&swap, &swap[first..], &swap] {
            sink.apply(batch);
            assert_eq!(sink.table, source.table, "in batches, from {first} on");
        }
    }
}

#[test]
fn headers_that_go_round_in_a_circle_end_as_unresolved() {
    let half = |operation, key, other| {
        let absent = [None, None];
        let cells = if operation == Operation::Create { absent } else { [Some(None), Some(None)] };
        Event { operation, key, other: Some((other, 0)), lsn: 0, cells }
    };
    let events = [
        half(Operation::Create, 2, 1),
        half(Operation::Delete, 2, 1),
        half(Operation::Create, 1, 2),
        half(Operation::Delete, 1, 2),
        half(Operation::Create, 2, 1),
    ];
    let folded = fold(&schema(), &[&batch(&events)], |_, _| true).unwrap();
    assert_eq!(folded.rows.num_rows(), 1, "{folded:?}");
}
