//! The key index of a table through restarts: when it is trusted, when it is built anew, and what it says of itself.

use std::path::Path;

use super::fixture::{Cell, Event, Fixture, batch, event, table, truncate, value};
use super::model::{copy, damage};
use crate::change::Operation::{Create, Update};
use crate::change::{DeleteMode, IndexFigures, Sink, TablePolicy};
use crate::lake::read::At;
use crate::lake::{Lake, LakeOptions};

fn options(fixture: &Fixture, index: &str) -> LakeOptions {
    let mut options = fixture.options();
    options.upserts.index_dir = Some(fixture.dir.path().join(index));
    options
}

async fn open(options: LakeOptions) -> Lake {
    let mut lake = Lake::open(options).await.unwrap();
    lake.load().await.unwrap();
    lake
}

/// Updates of the first three keys.
fn updates(from: i64, name: &str) -> Vec<Event> {
    (0..3).map(|id| event(from + id, Update, id, name, Cell::Null)).collect()
}

fn index(lake: &mut Lake) -> IndexFigures {
    lake.figures().tables["public.items"].index.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_a_version_that_the_log_has_in_another_way_is_built_anew() {
    let fixture = Fixture::new();
    let (items, copied) = (fixture.dir.path().join("items"), fixture.dir.path().join("_saved/items"));
    let mut lake = open(options(&fixture, "_one")).await;
    lake.commit(&batch("items", &updates(0, "first"))).await.unwrap();
    copy(&items, &copied);
    lake.commit(&batch("items", &updates(3, "lost"))).await.unwrap();
    drop(lake);
    std::fs::remove_dir_all(&items).unwrap();
    std::fs::rename(&copied, &items).unwrap();
    // Another process brings the log to the version at which the first one's index stands.
    let mut other = open(options(&fixture, "_other")).await;
    other.commit(&batch("items", &updates(3, "again"))).await.unwrap();
    drop(other);
    let mut lake = open(options(&fixture, "_one")).await;
    lake.commit(&batch("items", &updates(6, "last"))).await.unwrap();
    assert_eq!(fixture.items().await, ["0 last -", "1 last -", "2 last -"]);
    assert_eq!(index(&mut lake).rebuilds, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_with_a_damaged_shard_is_built_anew_and_finds_every_row() {
    let fixture = Fixture::new();
    let mut lake = open(options(&fixture, "_one")).await;
    let notes: Vec<_> = (0..3).map(|id| event(id, Create, id, "x", value(&format!("note {id}")))).collect();
    lake.commit(&batch("items", &notes)).await.unwrap();
    drop(lake);
    damage(&fixture.dir.path().join("_one/items"));
    let mut lake = open(options(&fixture, "_one")).await;
    let absent: Vec<_> = (0..3).map(|id| event(3 + id, Update, id, "y", Cell::Absent)).collect();
    lake.commit(&batch("items", &absent)).await.unwrap();
    assert_eq!(fixture.items().await, ["0 y note 0", "1 y note 1", "2 y note 2"]);
    assert_eq!(index(&mut lake).rebuilds, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_says_how_large_it_is_and_once_that_it_was_built_anew() {
    let fixture = Fixture::new();
    let mut lake = open(options(&fixture, "_one")).await;
    lake.commit(&batch("items", &updates(0, "x"))).await.unwrap();
    // A table that is new has nothing to read.
    assert_eq!(index(&mut lake), IndexFigures { keys: 3, bytes: 256 * 24, rebuilds: 0 });
    drop(lake);
    let mut lake = open(options(&fixture, "_one")).await;
    assert_eq!(lake.figures().tables["public.items"].index, None, "it is not open yet");
    lake.commit(&batch("items", &updates(3, "y"))).await.unwrap();
    assert_eq!(index(&mut lake).rebuilds, 0, "it was closed in order and is used");
    drop(lake);
    std::fs::remove_dir_all(fixture.dir.path().join("_one")).unwrap();
    let mut lake = open(options(&fixture, "_one")).await;
    lake.commit(&batch("items", &updates(6, "z"))).await.unwrap();
    assert_eq!(index(&mut lake), IndexFigures { keys: 3, bytes: 256 * 24, rebuilds: 1 });
    assert_eq!(index(&mut lake).rebuilds, 0, "told once");
    assert_eq!(lake.figures().tables["cdc_events"].index, None);
}

/// Data files that the list of an index names.
fn listed(index: &Path) -> Vec<String> {
    let list = std::fs::read_to_string(index.join("files.log")).unwrap();
    let paths = list.lines().filter_map(|line| line.split_once(' '));
    paths.map(|(_, path)| path.to_owned()).filter(|path| !path.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_restarts_the_index_lists_no_file_that_the_table_no_longer_has() {
    let fixture = Fixture::new();
    let mut offset = 0;
    let mut next = || {
        offset += 1;
        batch("items", &[event(offset - 1, Create, offset - 1, "x", Cell::Null)])
    };
    for _ in 0..3 {
        let mut lake = open(options(&fixture, "_one")).await;
        for _ in 0..9 {
            lake.commit(&next()).await.unwrap();
        }
        // Nine files become one.
        lake.maintain().await.unwrap();
    }
    let mut lake = open(options(&fixture, "_one")).await;
    lake.commit(&next()).await.unwrap();
    let files = lake.tables[&table("items")].table.state.files();
    let listed = listed(&fixture.dir.path().join("_one/items"));
    let gone: Vec<_> = listed.iter().filter(|path| !files.contains_key(path.as_str())).collect();
    assert!(gone.is_empty(), "{} of {} listed files are gone", gone.len(), listed.len());
    assert_eq!(listed.len(), files.len());
}

/// Where the log and the index of the table stand.
fn versions(lake: &Lake) -> (i64, i64) {
    let items = &lake.tables[&table("items")];
    let index = items.merge_on_read.as_ref().unwrap().index_version().unwrap();
    (items.table.state.version() as i64, index)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_step_beside_batches_that_delete_tells_the_index_where_its_rows_are() {
    let fixture = Fixture::new();
    let mut lake = open(options(&fixture, "_one")).await;
    let mut random = fastrand::Rng::with_seed(9);
    let (mut offset, mut rows) = (0, 0);
    loop {
        let mut events = Vec::new();
        for _ in 0..20 * i64::from(rows > 0) {
            events.push(event(offset, Update, random.i64(0..rows), "y", Cell::Absent));
            offset += 1;
        }
        for _ in 0..60 {
            let note: String = (0..1000).map(|_| random.alphanumeric()).collect();
            events.push(event(offset, Create, rows, "x", value(&note)));
            (offset, rows) = (offset + 1, rows + 1);
        }
        lake.commit(&batch("items", &events)).await.unwrap();
        let operation = lake.tables[&table("items")].table.state.last_commit().operation.clone();
        let stepped = operation.as_deref() == Some("OPTIMIZE");
        if stepped {
            // A step with more than one new file is followed from the log, as soon as no batch waits.
            lake.maintain().await.unwrap();
        }
        let (log, index) = versions(&lake);
        assert_eq!(index, log, "the next batch would have to read what a step has moved, after {rows} rows");
        if stepped {
            break;
        }
        assert!(rows < 20_000, "no step was made");
    }
    let all: Vec<_> = (0..rows).map(|id| event(offset + id, Update, id, "last", Cell::Absent)).collect();
    lake.commit(&batch("items", &all)).await.unwrap();
    let counts = "SELECT count(*), count(DISTINCT id), count(DISTINCT note), min(name) FROM items";
    assert_eq!(fixture.query(counts, At::Latest).await, [format!("{rows} {rows} {rows} last")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_index_could_not_learn_from_a_commit_it_reads_while_there_is_time() {
    let fixture = Fixture::new();
    let mut options = options(&fixture, "_one");
    options.policies.defaults = TablePolicy { delete: DeleteMode::Soft, ..TablePolicy::default() };
    let mut lake = open(options).await;
    lake.commit(&batch("items", &updates(0, "x"))).await.unwrap();
    // Rows that a truncate ends are written anew, and their keys are not kept in memory.
    lake.commit(&batch("items", &[truncate(3)])).await.unwrap();
    let (log, index) = versions(&lake);
    assert!(index < log, "the index stands at {index} and the log at {log}");
    lake.maintain().await.unwrap();
    let (log, index) = versions(&lake);
    assert_eq!(index, log);
}
