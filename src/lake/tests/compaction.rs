//! Compaction beside other writers, by hand, and of the raw table.

use super::fixture::{Cell, Fixture, batch, delete, event, table};
use crate::change::{Operation::Create, Operation::Update, Sink, WriteMode};
use crate::lake::Lake;
use crate::lake::compaction::{Pressure, Target};
use crate::lake::read::{At, LakeReader};
use crate::lake::upkeep::Upkeep;

async fn operations(fixture: &Fixture, name: &str) -> Vec<String> {
    let history = LakeReader::open(&fixture.options()).unwrap().history(name, 1000).await.unwrap();
    history.into_iter().filter_map(|commit| commit.operation).collect()
}

async fn files_of(fixture: &Fixture, name: &str) -> usize {
    let tables = LakeReader::open(&fixture.options()).unwrap().tables().await.unwrap();
    tables.into_iter().find(|table| table.name == name).unwrap().files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_table_that_changes_all_the_time_is_not_compacted_with_every_batch() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let (mut offset, mut random) = (0, fastrand::Rng::with_seed(3));
    for round in 0..60 {
        let mut events = Vec::new();
        for id in random.choose_multiple(0..120_i64, 30) {
            offset += 1;
            events.push(event(offset, Update, id, &format!("r{round}"), Cell::Null));
        }
        lake.commit(&batch("items", &events)).await.unwrap();
        lake.maintain().await.unwrap();
    }
    let steps = operations(&fixture, "items").await.iter().filter(|name| *name == "OPTIMIZE").count();
    assert!((1..=15).contains(&steps), "{steps} steps for 60 batches");
    assert!(files_of(&fixture, "items").await <= 10);
    let figures = lake.figures().tables["public.items"];
    assert_eq!(figures.batches.rows, 60 * 30);
    assert!(figures.compaction.rows <= figures.batches.rows, "{figures:?}");
    assert!(figures.live_files <= 10 && figures.live_bytes > 0 && figures.batches.bytes > 0, "{figures:?}");
    assert_eq!(lake.figures().tables["public.items"].batches.rows, 0, "told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_the_history_stay_few_and_its_rows_the_same() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    for offset in 0..100 {
        // The date changes with every ten offsets.
        lake.commit(&batch("items", &[event(offset, Create, offset, "x", Cell::Null)])).await.unwrap();
        if offset % 3 == 0 {
            lake.maintain().await.unwrap();
        }
    }
    for _ in 0..3 {
        lake.maintain().await.unwrap();
    }
    let files = files_of(&fixture, "cdc_events").await;
    assert!(files <= 10 * 7, "{files} files for 10 dates");
    let sql = "SELECT event_date, count(*), min(\"offset\"), max(\"offset\"), count(DISTINCT kafka_timestamp) \
               FROM cdc_events GROUP BY 1 ORDER BY 1";
    let rows = fixture.query(sql, At::Latest).await;
    assert_eq!(rows.len(), 10);
    assert_eq!((rows[0].as_str(), rows[9].as_str()), ("2022-01-08 10 0 9 10", "2022-01-17 10 90 99 10"));
    let bounded = "SELECT count(*) FROM cdc_events WHERE \"offset\" >= 95 AND kafka_timestamp < '1971-01-01'";
    assert_eq!(fixture.query(bounded, At::Latest).await, ["5"], "statistics must not hide rows");
    // The positions are those of before.
    let progress = fixture.open().await.load().await.unwrap();
    assert_eq!(progress.values().next().unwrap().next_offset, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn optimize_by_hand_does_what_is_due_in_all_tables_and_the_daemon_goes_on() {
    for write in [WriteMode::MergeOnRead, WriteMode::CopyOnWrite] {
        let fixture = Fixture::new();
        let mut options = fixture.options();
        options.policies.defaults.write = write;
        let mut lake = Lake::open(options.clone()).await.unwrap();
        lake.load().await.unwrap();
        for id in 0..9 {
            lake.commit(&batch("items", &[event(id, Create, id, "x", Cell::Null)])).await.unwrap();
        }
        let mut told = 0;
        let done = Upkeep::open(options).unwrap().optimize(&[], |_| told += 1).await.unwrap();
        let figures: Vec<_> = done.iter().map(|done| (done.table.as_str(), done.steps, done.files)).collect();
        assert_eq!(figures, [("cdc_events", 1, (9, 1)), ("items", 1, (9, 1))], "{write:?}");
        assert!(told >= 2);
        let changes = [event(9, Update, 3, "y", Cell::Null), delete(10, 4)];
        lake.commit(&batch("items", &changes)).await.unwrap();
        let names = fixture.query("SELECT name, count(*) FROM items GROUP BY 1 ORDER BY 1", At::Latest).await;
        assert_eq!(names, ["x 7", "y 1"], "{write:?}");
        assert_eq!(fixture.query("SELECT count(*) FROM cdc_events", At::Latest).await, ["11"]);
    }
}

/// Fills eight files with 60 rows each, of a thousand random characters, in no order: some files fit what is sorted in
/// memory, others do not.
async fn eight_files_of_long_notes(lake: &mut Lake) {
    let mut random = fastrand::Rng::with_seed(5);
    let mut ids: Vec<i64> = (0..480).collect();
    random.shuffle(&mut ids);
    let mut note = || super::fixture::value(&(0..1000).map(|_| random.alphanumeric()).collect::<String>());
    for (ids, first) in ids.chunks(60).zip((0..).step_by(60)) {
        let events: Vec<_> =
            (first..).zip(ids).map(|(offset, &id)| event(offset, Create, id, "a", note())).collect();
        lake.commit(&batch("items", &events)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_step_is_made_beside_the_batches_and_takes_their_deletions_along() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    eight_files_of_long_notes(&mut lake).await;
    let (mut offset, mut committed) = (480, 0);
    // Reading goes on while batches update and delete what is being read.
    while !operations(&fixture, "items").await.contains(&"OPTIMIZE".to_owned()) {
        lake.maintain().await.unwrap();
        let events =
            [event(offset, Update, offset % 479, "b", Cell::Absent), delete(offset + 1, (offset * 7) % 480)];
        lake.commit(&batch("items", &events)).await.unwrap();
        (offset, committed) = (offset + 2, committed + 1);
        assert!(committed < 10_000, "the step is never committed");
    }
    let counts = "SELECT count(*), count(DISTINCT id), count(DISTINCT note) FROM items WHERE name = 'a'";
    let before = fixture.query(counts, At::Latest).await;
    assert!(lake.tables[&table("items")].table.state.files().values().any(|file| file.vector.is_some()));
    // Each row is found where it lies now: no row twice, none with a cell of another.
    let events: Vec<_> = (0..480).map(|id| event(offset + id, Update, id, "last", Cell::Absent)).collect();
    let report = lake.commit(&batch("items", &events)).await.unwrap();
    let rows = fixture.query("SELECT count(*), count(DISTINCT id), min(name) FROM items", At::Latest).await;
    assert_eq!(rows, ["480 480 last"], "after {before:?} and {report:?}");
    let filled = fixture
        .query("SELECT count(*), count(DISTINCT note) FROM items WHERE note IS NOT NULL", At::Latest)
        .await;
    let known: Vec<&str> = filled[0].split(' ').collect();
    assert_eq!(known[0], known[1], "a row has the cell of another");
}

#[tokio::test(flavor = "multi_thread")]
async fn optimize_beside_a_busy_daemon_ends_and_loses_and_doubles_nothing() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    for id in 0..40 {
        lake.commit(&batch("items", &[event(id, Create, id, "x", Cell::Null)])).await.unwrap();
    }
    let options = fixture.options();
    let by_hand = tokio::spawn(async move {
        let mut steps = 0;
        for _ in 0..12 {
            let done = Upkeep::open(options.clone()).unwrap().optimize(&[], |_| {}).await.unwrap();
            steps += done.iter().map(|done| done.steps).sum::<u64>();
        }
        steps
    });
    let mut offset = 40;
    while !by_hand.is_finished() {
        let events =
            [event(offset, Update, offset % 40, "y", Cell::Null), delete(offset + 1, (offset + 7) % 40)];
        lake.commit(&batch("items", &events)).await.unwrap();
        offset += 2;
        let again = [event(offset, Create, (offset + 5) % 40, "z", Cell::Null)];
        lake.commit(&batch("items", &again)).await.unwrap();
        offset += 1;
    }
    let steps = by_hand.await.unwrap();
    assert!(steps > 0, "no step was made beside {offset} changes");
    let (all, distinct) = (
        fixture.query("SELECT count(*) FROM items", At::Latest).await,
        fixture.query("SELECT count(DISTINCT id) FROM items", At::Latest).await,
    );
    assert_eq!(all, distinct);
    let raw = fixture.query("SELECT count(*), count(DISTINCT \"offset\") FROM cdc_events", At::Latest).await;
    assert_eq!(raw, [format!("{offset} {offset}")]);
    // The index still finds every row.
    let events: Vec<_> = (0..40).map(|id| event(offset + id, Update, id, "last", Cell::Null)).collect();
    lake.commit(&batch("items", &events)).await.unwrap();
    assert_eq!(fixture.query("SELECT name, count(*) FROM items GROUP BY 1", At::Latest).await, ["last 40"]);
    assert_eq!(lake.tables[&table("items")].table.state.rows(), Some(40));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fills_several_files_loses_and_doubles_nothing_beside_the_batches() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    eight_files_of_long_notes(&mut lake).await;
    let notes = "SELECT id, note FROM items ORDER BY id";
    let before = fixture.query(notes, At::Latest).await;
    let target = Target { large: 60_000, step: 64 << 20 };
    let writer = lake.writer.clone();
    let mut offset = 480;
    while !operations(&fixture, "items").await.contains(&"OPTIMIZE".to_owned()) {
        let items = lake.tables.get_mut(&table("items")).unwrap();
        let rows = items.merge_on_read.as_mut().unwrap();
        let how = (target, Pressure::Idle);
        rows.compact(&mut items.table, (&items.schema, items.shape), &writer, how).await.unwrap();
        let changes = [event(offset, Update, offset % 480, "b", Cell::Absent)];
        lake.commit(&batch("items", &changes)).await.unwrap();
        offset += 1;
        assert!(offset < 10_000, "the step is never committed");
    }
    let state = &lake.tables[&table("items")].table.state;
    let large = state.files().values().filter(|file| file.size >= 60_000).count();
    assert!(large >= 3, "{large} large files were made of 480 rows of 1000 bytes");
    assert_eq!(fixture.query(notes, At::Latest).await, before, "after {offset} changes");
    // Each row is found where it lies now.
    let events: Vec<_> = (0..480).map(|id| event(offset + id, Update, id, "last", Cell::Absent)).collect();
    lake.commit(&batch("items", &events)).await.unwrap();
    assert_eq!(fixture.query(notes, At::Latest).await, before);
    assert_eq!(fixture.query("SELECT name, count(*) FROM items GROUP BY 1", At::Latest).await, ["last 480"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_deletion_vectors_are_told_as_they_are_written_and_as_they_are() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let rows: Vec<_> = (0..2000).map(|id| event(id, Create, id, "x", Cell::Null)).collect();
    lake.commit(&batch("items", &rows)).await.unwrap();
    assert_eq!(lake.figures().tables["public.items"].live_vectors, 0);
    let mut written = Vec::new();
    for round in 0..2 {
        // Rows that do not follow each other.
        let changes: Vec<_> = (0..300)
            .map(|row| event(2000 + round * 300 + row, Update, row * 6 + round * 3, "y", Cell::Null))
            .collect();
        lake.commit(&batch("items", &changes)).await.unwrap();
        let figures = lake.figures().tables["public.items"];
        assert!(
            figures.batches.vectors > 600 && figures.batches.bytes > figures.batches.vectors,
            "{figures:?}"
        );
        assert_eq!(figures.live_vectors, figures.batches.vectors, "one file has a vector: {figures:?}");
        written.push(figures.batches.vectors);
    }
    assert_eq!(written[1], written[0] + 600, "each commit writes all that is deleted, two bytes a row");
    // Rows that follow each other are one run.
    let rest: Vec<_> = (0..1900).map(|id| event(2600 + id, Update, id, "z", Cell::Null)).collect();
    lake.commit(&batch("items", &rest)).await.unwrap();
    let figures = lake.figures().tables["public.items"];
    assert!((1..100).contains(&figures.live_vectors), "{figures:?}");
}
