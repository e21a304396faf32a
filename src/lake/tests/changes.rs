//! The change data feed: what a commit did to the rows, as a reader of the feed is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deltalake::DeltaTable;
use deltalake::datafusion::prelude::SessionContext;
use deltalake::delta_datafusion::cdf::scan::DeltaCdfTableProvider;

use super::fixture::{Cell, Event, Fixture, batch, delete, event, rows_as_text, table, truncate, value};
use crate::change::{Batch, DeleteMode, Operation, Sink, TruncateReach, WriteMode};
use crate::lake::location::Location;
use crate::lake::log::Log;
use crate::lake::{Lake, LakeOptions};

/// What the feed says from version 1 on: version, change, and the row.
async fn feed(fixture: &Fixture) -> Vec<String> {
    let location = Location::open(&fixture.options().uri, &[].into()).unwrap();
    let mut items = DeltaTable::new(Log::new("items", location.table("items").unwrap()).guarded());
    items.load().await.unwrap();
    let provider = DeltaCdfTableProvider::try_new(items.scan_cdf().with_starting_version(1)).unwrap();
    let context = SessionContext::new();
    context.register_table("feed", Arc::new(provider)).unwrap();
    // Not ordered there: the library cannot sort a feed of which one of its three sources is empty.
    let sql = "SELECT lpad(cast(_commit_version as varchar), 9), lpad(cast(id as varchar), 9),
               CASE _change_type WHEN 'update_postimage' THEN 1 ELSE 0 END, _commit_version, _change_type, id, name, note
               FROM feed";
    let rows = context.sql(sql).await.unwrap().collect().await.unwrap();
    let mut rows: Vec<String> = rows.iter().flat_map(rows_as_text).collect();
    rows.sort_unstable();
    rows.iter().map(|row| row.split_whitespace().skip(3).collect::<Vec<_>>().join(" ")).collect()
}

fn with_feed(fixture: &Fixture, write: WriteMode) -> LakeOptions {
    let mut options = fixture.options();
    options.policies.defaults.write = write;
    options.policies.defaults.change_data_feed = true;
    options
}

async fn open(options: LakeOptions) -> Lake {
    let mut lake = Lake::open(options).await.unwrap();
    lake.load().await.unwrap();
    lake
}

type Model = BTreeMap<i64, (String, Option<String>)>;

fn apply(model: &mut Model, event: &Event) {
    if event.operation == Operation::Delete {
        model.remove(&event.id);
        return;
    }
    let before = model.get(&event.id).and_then(|(_, note)| note.clone());
    let note = match &event.note {
        Cell::Value(text) => Some(text.clone()),
        Cell::Null => None,
        Cell::Absent => before,
    };
    model.insert(event.id, (event.name.clone().unwrap(), note));
}

/// What one batch did to the keys that it touched.
fn changes(version: u64, before: &Model, after: &Model, events: &[Event]) -> Vec<String> {
    let keys: BTreeSet<i64> = events.iter().map(|event| event.id).collect();
    let mut changes = Vec::new();
    for id in keys {
        let mut push = |change: &str, row: &(String, Option<String>)| {
            let note = row.1.as_deref().unwrap_or("-");
            changes.push(format!("{version} {change} {id} {} {note}", row.0));
        };
        match (before.get(&id), after.get(&id)) {
            (Some(before), Some(after)) => {
                push("update_preimage", before);
                push("update_postimage", after);
            }
            (Some(before), None) => push("delete", before),
            (None, Some(after)) => push("insert", after),
            (None, None) => {}
        }
    }
    changes
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_tells_what_each_batch_did_in_both_write_modes() {
    for seed in 0..10_u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let write = [WriteMode::MergeOnRead, WriteMode::CopyOnWrite][usize::from(seed % 3 == 2)];
        let fixture = Fixture::new();
        let mut lake = open(with_feed(&fixture, write)).await;
        let (mut model, mut expected, mut offset) = (Model::new(), Vec::new(), 0);
        for _ in 0..random.usize(3..12) {
            let events: Vec<Event> = (0..random.i64(1..15))
                .map(|_| {
                    offset += 1;
                    let (id, name) = (random.i64(0..15), format!("n{}", random.u8(..)));
                    match random.u8(0..5) {
                        0 => delete(offset, id),
                        1 => event(offset, Operation::Update, id, &name, Cell::Absent),
                        _ => event(offset, Operation::Update, id, &name, value("note")),
                    }
                })
                .collect();
            let before = model.clone();
            for event in &events {
                apply(&mut model, event);
            }
            let report = lake.commit(&batch("items", &events)).await.unwrap();
            let version = report.tables["public.items"].version.unwrap() as u64;
            expected.extend(changes(version, &before, &model, &events));
            match random.u8(0..4) {
                0 => lake.maintain().await.unwrap(),
                1 => lake = open(with_feed(&fixture, write)).await,
                _ => {}
            }
        }
        assert_eq!(feed(&fixture).await, expected, "seed {seed}, {write:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_exists_gets_its_feed_with_the_next_commit_and_keeps_its_readers() {
    for write in [WriteMode::MergeOnRead, WriteMode::CopyOnWrite] {
        let fixture = Fixture::new();
        let mut options = with_feed(&fixture, write);
        options.policies.defaults.change_data_feed = false;
        let mut lake = open(options).await;
        lake.commit(&batch("items", &[event(0, Operation::Create, 1, "one", Cell::Null)])).await.unwrap();
        let before = lake.tables[&table("items")].table.state.protocol().cloned().unwrap();
        let mut lake = open(with_feed(&fixture, write)).await;
        lake.commit(&batch("items", &[event(1, Operation::Update, 1, "uno", Cell::Null)])).await.unwrap();
        let state = &lake.tables[&table("items")].table.state;
        let protocol = state.protocol().cloned().unwrap();
        assert_eq!(protocol.min_reader_version, before.min_reader_version);
        assert_eq!(protocol.reader_features, before.reader_features);
        assert!(protocol.writer_features.unwrap().contains(&"changeDataFeed".to_owned()));
        assert_eq!(state.metadata().configuration["delta.enableChangeDataFeed"], "true");
        let changes = std::fs::read_dir(fixture.dir.path().join("items/_change_data")).unwrap().count();
        assert_eq!(changes, 1, "{write:?}");
        assert_eq!(fixture.items().await, ["1 uno -"]);
        // Nothing turns it off that somebody may follow.
        let mut options = with_feed(&fixture, write);
        options.policies.defaults.change_data_feed = false;
        let mut lake = open(options).await;
        lake.commit(&batch("items", &[delete(2, 1)])).await.unwrap();
        let changes = std::fs::read_dir(fixture.dir.path().join("items/_change_data")).unwrap().count();
        assert_eq!(changes, 2, "{write:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_shows_the_rows_that_another_writer_left() {
    let fixture = Fixture::new();
    let mut lake = open(with_feed(&fixture, WriteMode::MergeOnRead)).await;
    let two = [
        event(0, Operation::Create, 1, "one", value("a")),
        event(1, Operation::Create, 2, "two", value("b")),
    ];
    lake.commit(&batch("items", &two)).await.unwrap();
    let mut foreign = DeltaTable::new(lake.tables[&table("items")].table.log.guarded());
    foreign.load().await.unwrap();
    foreign.delete().with_predicate("id = 1").await.unwrap();
    let events = [
        event(2, Operation::Update, 1, "uno", Cell::Absent),
        event(3, Operation::Update, 2, "due", Cell::Absent),
    ];
    lake.commit(&batch("items", &events)).await.unwrap();
    let expected =
        ["3 insert 1 uno -", "3 update_preimage 2 two b", "3 update_postimage 2 due b"].map(str::to_owned);
    assert_eq!(feed(&fixture).await[3..], expected);
}

/// A truncate, and behind it what else is in the batch; `micros` is when each was committed in the source.
fn truncated(reach: TruncateReach, events: &[Event], micros: &[i64]) -> Batch {
    let mut all = batch("items", events);
    all.changes[0].truncates[0].reach = reach;
    all.changes[0].source_micros = micros.to_vec();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_is_a_delete_of_every_row_that_it_takes() {
    const TIME: i64 = 1_700_000_000_000_000;
    for write in [WriteMode::MergeOnRead, WriteMode::CopyOnWrite] {
        let fixture = Fixture::new();
        let mut lake = open(with_feed(&fixture, write)).await;
        let rows: Vec<_> = (0..4).map(|id| event(id, Operation::Create, id, "a", value("x"))).collect();
        lake.commit(&batch("items", &rows)).await.unwrap();
        let changed = [event(4, Operation::Update, 1, "b", value("x")), delete(5, 2)];
        lake.commit(&batch("items", &changed)).await.unwrap();
        let known = feed(&fixture).await.len();
        let all = [truncate(6), event(7, Operation::Create, 9, "c", Cell::Null)];
        let report = lake.commit(&truncated(TruncateReach::Everything, &all, &[TIME, TIME])).await.unwrap();
        assert!(report.stopped.is_empty(), "{report:?}");
        let of_all = ["3 delete 0 a x", "3 delete 1 b x", "3 delete 3 a x", "3 insert 9 c -"];
        assert_eq!(feed(&fixture).await[known..], of_all.map(str::to_owned), "{write:?}");
        let mut newer = batch("items", &[event(8, Operation::Create, 10, "d", Cell::Null)]);
        newer.changes[0].source_micros = vec![TIME + 10];
        lake.commit(&newer).await.unwrap();
        let known = feed(&fixture).await.len();
        let older = [truncate(9), event(10, Operation::Update, 10, "e", Cell::Null)];
        let reach = TruncateReach::Older { stored: true };
        lake.commit(&truncated(reach, &older, &[TIME + 5, TIME + 20])).await.unwrap();
        let of_older = ["5 delete 9 c -", "5 update_preimage 10 d -", "5 update_postimage 10 e -"];
        assert_eq!(feed(&fixture).await[known..], of_older.map(str::to_owned), "{write:?}");
        assert_eq!(fixture.items().await, ["10 e -"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncate_is_an_update_of_every_row_that_it_marks_where_deleted_rows_stay() {
    for write in [WriteMode::MergeOnRead, WriteMode::CopyOnWrite] {
        let fixture = Fixture::new();
        let mut options = with_feed(&fixture, write);
        options.policies.defaults.delete = DeleteMode::Soft;
        let mut lake = open(options).await;
        let rows: Vec<_> = (0..4).map(|id| event(id, Operation::Create, id, "a", value("x"))).collect();
        lake.commit(&batch("items", &rows)).await.unwrap();
        lake.commit(&batch("items", &[delete(4, 2)])).await.unwrap();
        let known = feed(&fixture).await.len();
        let all = [
            event(5, Operation::Update, 1, "b", Cell::Absent),
            truncate(6),
            event(7, Operation::Create, 3, "c", Cell::Null),
            event(8, Operation::Create, 9, "c", Cell::Null),
        ];
        lake.commit(&batch("items", &all)).await.unwrap();
        let expected = [
            "3 update_preimage 0 a x",
            "3 update_postimage 0 a x",
            "3 update_preimage 1 a x",
            "3 update_postimage 1 b x",
            "3 delete 3 a x",
            "3 insert 3 c -",
            "3 insert 9 c -",
        ];
        let mut found = feed(&fixture).await.split_off(known);
        found.sort_unstable_by_key(|row| expected.iter().position(|other| other == row));
        assert_eq!(found, expected.map(str::to_owned), "{write:?}");
    }
}
