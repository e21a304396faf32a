//! Rows whose key changes while a TOASTed value does not, in both write modes.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};

use super::fixture::*;
use crate::change::{
    Batch, CommitReport, DeleteMode, KeyLedger, KeyMoves, Operation, Policies, Sink, TablePolicy, WriteMode,
};
use crate::lake::action::Entry;
use crate::lake::log::Outcome;
use crate::lake::read::At;
use crate::lake::state::TableState;
use crate::lake::table::Table;
use crate::lake::{Lake, LakeOptions};

/// Says that events of a batch are halves of key changes: index, the other key, LSN.
fn moving(mut batch: Batch, halves: &[(u32, i64, i64)]) -> Batch {
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
    let others = Int64Array::from_iter_values(halves.iter().map(|(_, other, _)| *other));
    batch.changes[0].moves = Some(KeyMoves {
        changes: halves.iter().map(|(change, ..)| *change).collect(),
        keys: RecordBatch::try_new(schema, vec![Arc::new(others)]).unwrap(),
        lsns: halves.iter().map(|(.., lsn)| Some(*lsn)).collect(),
    });
    batch
}

struct Written {
    fixture: Fixture,
    write: WriteMode,
    lake: Lake,
}

impl Written {
    async fn with(write: WriteMode, rows: &[(i64, &str)]) -> Self {
        let fixture = Fixture::new();
        let mut lake = Lake::open(options(&fixture, write)).await.unwrap();
        lake.load().await.unwrap();
        let events: Vec<Event> = (0..)
            .zip(rows)
            .map(|(offset, (id, note))| event(offset, Operation::Read, *id, "before", value(note)))
            .collect();
        lake.commit(&batch("items", &events)).await.unwrap();
        Self { fixture, write, lake }
    }

    async fn commit(&mut self, events: &[Event], halves: &[(u32, i64, i64)]) -> CommitReport {
        self.lake.commit(&moving(batch("items", events), halves)).await.unwrap()
    }

    /// As after a crash: nothing is known but what is stored.
    async fn restart(&mut self) {
        self.lake = Lake::open(options(&self.fixture, self.write)).await.unwrap();
        self.lake.load().await.unwrap();
    }
}

fn options(fixture: &Fixture, write: WriteMode) -> LakeOptions {
    let defaults = TablePolicy { write, ..TablePolicy::default() };
    let policies = Policies { defaults, ..Policies::default() };
    LakeOptions { policies, ..fixture.options() }
}

fn moved(offset: i64, to: i64) -> Event {
    event(offset, Operation::Create, to, "after", Cell::Absent)
}

fn in_partition(partition: i32, event: Event) -> Event {
    Event { partition, ..event }
}

const MODES: [WriteMode; 2] = [WriteMode::MergeOnRead, WriteMode::CopyOnWrite];

#[tokio::test]
async fn unchanged_values_follow_chains_and_swaps_of_keys_in_one_batch() {
    for mode in MODES {
        let mut table = Written::with(mode, &[(1, "one"), (4, "four"), (5, "five")]).await;
        let events = [
            delete(10, 1),
            moved(11, 2),
            delete(12, 2),
            moved(13, 3),
            delete(14, 4),
            moved(15, -1),
            delete(16, 5),
            moved(17, 4),
            delete(18, -1),
            moved(19, 5),
        ];
        let halves = [
            (0, 2, 1),
            (1, 1, 1),
            (2, 3, 2),
            (3, 2, 2),
            (4, -1, 3),
            (5, 4, 3),
            (6, 4, 4),
            (7, 5, 4),
            (8, 5, 5),
            (9, -1, 5),
        ];
        let report = table.commit(&events, &halves).await;
        assert_eq!(table.fixture.items().await, ["3 after one", "4 after five", "5 after four"], "{mode:?}");
        assert_eq!(report.tables["public.items"].unresolved_absent, 0, "{mode:?}");
    }
}

#[tokio::test]
async fn a_key_change_that_is_cut_in_two_keeps_its_values_through_a_restart() {
    for mode in MODES {
        let mut table = Written::with(mode, &[(1, "one"), (2, "two")]).await;
        table.commit(&[delete(10, 1)], &[(0, 7, 1)]).await;
        assert_eq!(table.fixture.items().await, ["2 before two"], "{mode:?}");
        table.restart().await;
        table.commit(&[event(11, Operation::Update, 2, "other", value("two"))], &[]).await;
        table.restart().await;
        let report = table.commit(&[moved(12, 7)], &[(0, 1, 1)]).await;
        assert_eq!(table.fixture.items().await, ["2 other two", "7 after one"], "{mode:?}");
        assert_eq!(report.tables["public.items"].unresolved_absent, 0, "{mode:?}");
        let ledger = table.lake.tables[&super::fixture::table("items")].table.state.ledger().to_owned();
        let left = KeyLedger::from_text(&ledger);
        assert!(left.departed.is_empty() && left.waiting.is_empty(), "{mode:?}: {ledger}");
    }
}

#[tokio::test]
async fn a_value_that_is_only_in_the_batch_of_its_delete_is_kept_for_the_create() {
    for mode in MODES {
        let mut table = Written::with(mode, &[(1, "stored")]).await;
        let newer = event(10, Operation::Update, 1, "before", value("in the batch"));
        table.commit(&[newer, delete(11, 1)], &[(1, 7, 1)]).await;
        table.commit(&[moved(12, 7)], &[(0, 1, 1)]).await;
        assert_eq!(table.fixture.items().await, ["7 after in the batch"], "{mode:?}");
    }
}

#[tokio::test]
async fn a_create_that_comes_before_its_delete_ends_with_the_newest_value_of_the_old_row() {
    for mode in MODES {
        let mut table = Written::with(mode, &[(1, "stored")]).await;
        table.commit(&[in_partition(1, moved(5, 7))], &[(0, 1, 1)]).await;
        assert_eq!(table.fixture.items().await, ["1 before stored", "7 after stored"], "{mode:?}");
        table.restart().await;
        table.commit(&[in_partition(1, event(6, Operation::Update, 7, "later", Cell::Absent))], &[]).await;
        let newer = event(10, Operation::Update, 1, "before", value("newest"));
        table.commit(&[newer, delete(11, 1)], &[(1, 7, 1)]).await;
        assert_eq!(table.fixture.items().await, ["7 later newest"], "{mode:?}");
    }
}

#[tokio::test]
async fn a_value_that_the_row_got_meanwhile_is_not_overwritten_by_the_late_delete() {
    for mode in MODES {
        let mut table = Written::with(mode, &[(1, "stored")]).await;
        table.commit(&[in_partition(1, moved(5, 7))], &[(0, 1, 1)]).await;
        table.commit(&[in_partition(1, event(6, Operation::Update, 7, "later", value("own")))], &[]).await;
        table.commit(&[delete(11, 1)], &[(0, 7, 1)]).await;
        assert_eq!(table.fixture.items().await, ["7 later own"], "{mode:?}");
    }
}

#[tokio::test]
async fn what_is_nowhere_is_null_counted_and_named() {
    for mode in MODES {
        let mut table = Written::with(mode, &[(1, "one")]).await;
        let events = [
            moved(10, 7),
            event(11, Operation::Read, 8, "read", Cell::Absent),
            event(12, Operation::Update, 1, "kept", Cell::Absent),
        ];
        let report = table.commit(&events, &[(0, 99, 1)]).await;
        assert_eq!(table.fixture.items().await, ["1 kept one", "7 after -", "8 read -"], "{mode:?}");
        let items = &report.tables["public.items"];
        assert_eq!(items.unresolved_absent, 2, "{mode:?}");
        let named: Vec<String> = items
            .unresolved
            .iter()
            .map(|row| format!("{}@{} {}", row.partition, row.offset, row.columns.join(",")))
            .collect();
        assert_eq!(named, ["cdc.public.items/0@11 note", "cdc.public.items/0@10 note"], "{mode:?}");
    }
}

/// Commits of ours that move no positions and say nothing of the ledger, as an earlier version of this program made them.
async fn older_compactions(table: &mut Written, count: usize) {
    let items = &mut table.lake.tables.get_mut(&super::fixture::table("items")).unwrap().table;
    for at in 0..count {
        let entry = Entry::new("OPTIMIZE", "an instance of an earlier version", at as i64).into_bytes();
        assert_eq!(items.commit(entry).await.unwrap(), Outcome::Committed);
    }
}

impl Written {
    fn items(&self) -> &Table {
        &self.lake.tables[&table("items")].table
    }

    fn state(&self) -> &TableState {
        &self.items().state
    }

    /// Opens the lake with a checkpoint for every commit, and has one written.
    async fn checkpoint(&mut self) {
        let options = LakeOptions { checkpoint_interval: 1, ..options(&self.fixture, self.write) };
        self.lake = Lake::open(options).await.unwrap();
        self.lake.load().await.unwrap();
        self.lake.maintain().await.unwrap();
        self.lake.finish().await;
        assert_eq!(self.state().commits_since_checkpoint(), 0);
    }

    /// Removes the entries before the newest version, as a clean-up of the log does after a checkpoint.
    fn expire_log(&self) {
        for version in 0..self.state().version() {
            let entry = self.fixture.dir.path().join(format!("items/_delta_log/{version:020}.json"));
            std::fs::remove_file(entry).unwrap();
        }
    }

    /// The newest entry of the log.
    async fn newest_entry(&self) -> String {
        let items = self.items();
        let entry = items.log.entry(items.state.version()).await.unwrap().unwrap();
        String::from_utf8(entry.to_vec()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_of_a_key_change_outlives_any_number_of_commits_that_say_nothing_of_it() {
    for mode in MODES {
        let mut table = Written::with(mode, &[(1, "one"), (2, "two")]).await;
        table.commit(&[delete(10, 1)], &[(0, 7, 1)]).await;
        older_compactions(&mut table, 45).await;
        table.checkpoint().await;
        table.restart().await;
        let report = table.commit(&[moved(11, 7)], &[(0, 1, 1)]).await;
        assert_eq!(table.fixture.items().await, ["2 before two", "7 after one"], "{mode:?}");
        assert_eq!(report.tables["public.items"].unresolved_absent, 0, "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_writes_the_ledger_on_so_that_it_outlives_the_log_before_it() {
    let mut table = Written::with(WriteMode::MergeOnRead, &[(1, "one"), (2, "two")]).await;
    for id in 20..30 {
        table.commit(&[event(id - 18, Operation::Create, id, "small", value("file"))], &[]).await;
    }
    table.commit(&[delete(12, 1)], &[(0, 7, 1)]).await;
    table.lake.maintain().await.unwrap();
    let newest = table.newest_entry().await;
    assert!(newest.contains("OPTIMIZE"), "{newest}");
    table.checkpoint().await;
    table.expire_log();
    table.restart().await;
    table.commit(&[moved(13, 7)], &[(0, 1, 1)]).await;
    let moved = table.fixture.query("SELECT id, name, note FROM items WHERE id = 7", At::Latest).await;
    assert_eq!(moved, ["7 after one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_commit_of_ours_says_what_the_ledger_is() {
    let mut table = Written::with(WriteMode::MergeOnRead, &[(1, "one")]).await;
    for id in 20..30 {
        table.commit(&[event(id - 19, Operation::Create, id, "small", value("file"))], &[]).await;
    }
    table.lake.maintain().await.unwrap();
    // Other properties, a column more for deleted rows.
    let mut changed = options(&table.fixture, table.write);
    changed.log_retention = std::time::Duration::from_hours(3);
    changed.policies.defaults.delete = DeleteMode::Soft;
    table.lake = Lake::open(changed).await.unwrap();
    table.lake.load().await.unwrap();
    table.commit(&[event(11, Operation::Update, 1, "soft", value("one"))], &[]).await;
    let items = table.items();
    let mut without = Vec::new();
    for version in 1..=items.state.version() {
        let mut state = TableState::empty("items");
        let entry = items.log.entry(version).await.unwrap().unwrap();
        state.learn_ledger(&entry);
        let operation =
            String::from_utf8_lossy(&entry).split("operation\":\"").nth(1).unwrap()[..12].to_owned();
        without.push((operation, state.known_ledger().is_some()));
    }
    let operations: BTreeSet<&str> =
        without.iter().map(|(operation, _)| operation.split('"').next().unwrap()).collect();
    assert_eq!(operations, BTreeSet::from(["ADD COLUMN", "MERGE", "OPTIMIZE", "SET TBLPROPE"]));
    without.retain(|(_, says)| !says);
    assert!(without.is_empty(), "{without:?}");
}
