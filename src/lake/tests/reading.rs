//! The reader: tables, versions, times, history; and states read from checkpoints.

use super::fixture::{Cell, Fixture, batch, event, maintain};
use crate::change::{Operation, Sink};
use crate::lake::read::{At, LakeReader};

async fn lake_with_three_versions(fixture: &Fixture) -> crate::lake::Lake {
    let mut lake = fixture.open().await;
    for offset in 0..3 {
        let name = format!("v{offset}");
        lake.commit(&batch("items", &[event(offset, Operation::Update, 1, &name, Cell::Null)]))
            .await
            .unwrap();
    }
    lake
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_listed_with_rows_files_and_positions() {
    let fixture = Fixture::new();
    lake_with_three_versions(&fixture).await;
    let tables = LakeReader::open(&fixture.options()).unwrap().tables().await.unwrap();
    let names: Vec<_> = tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["cdc_events", "items"]);
    assert_eq!((tables[0].rows, tables[0].files, tables[0].version), (Some(3), 3, 3));
    assert_eq!((tables[1].rows, tables[1].files, tables[1].version), (Some(1), 1, 3));
    assert_eq!(tables[1].source.as_deref(), Some("public.items"));
    assert_eq!(tables[1].positions["cdc.public.items/0"], 3);
    assert!(tables[1].last_commit.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn older_versions_and_times_are_read() {
    let fixture = Fixture::new();
    lake_with_three_versions(&fixture).await;
    let sql = "SELECT name FROM items";
    assert_eq!(fixture.query(sql, At::Version(2)).await, ["v1"]);
    let reader = LakeReader::open(&fixture.options()).unwrap();
    let history = reader.history("items", 10).await.unwrap();
    let operations: Vec<_> = history.iter().map(|entry| entry.operation.clone().unwrap()).collect();
    assert_eq!(operations, ["MERGE", "MERGE", "MERGE", "CREATE TABLE"]);
    assert_eq!(history[0].positions["cdc.public.items/0"], 3);
    assert_eq!(fixture.query(sql, At::Time(history[1].time.unwrap())).await, ["v1"]);
    let before = history[3].time.unwrap() - chrono::TimeDelta::seconds(1);
    let session = reader.session(At::Time(before)).await.unwrap();
    assert!(session.sql(sql).await.is_err(), "the table did not exist");
    let error = reader.history("nothing", 1).await.unwrap_err().to_string();
    assert!(error.contains("items"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_with_schemas_is_queried_by_schema_and_table() {
    let fixture = Fixture::new();
    let mut options = fixture.options();
    options.layout = "{schema}/{table}".to_owned();
    let mut lake = crate::lake::Lake::open(options.clone()).await.unwrap();
    lake.load().await.unwrap();
    lake.commit(&batch("items", &[event(0, Operation::Create, 1, "x", Cell::Null)])).await.unwrap();
    assert_eq!(lake.load().await.unwrap().len(), 1);
    let reader = LakeReader::open(&options).unwrap();
    let session = reader.session(At::Latest).await.unwrap();
    let rows = session.sql("SELECT count(*) FROM \"public\".items, cdc_events").await.unwrap();
    assert_eq!(super::fixture::rows_as_text(&rows.collect().await.unwrap()[0]), ["1"]);
    assert_eq!(reader.history("public.items", 5).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_read_from_a_checkpoint_equals_the_one_read_from_commits() {
    let fixture = Fixture::new();
    let mut lake = lake_with_three_versions(&fixture).await;
    let log = lake.raw.as_ref().unwrap().table.log.clone();
    let from_commits = log.read().await.unwrap().unwrap();
    lake.options.checkpoint_interval = 1;
    maintain(&mut lake).await;
    assert_eq!(lake.raw.as_ref().unwrap().table.state.commits_since_checkpoint(), 0);
    for version in 0..=3 {
        let entry = format!("cdc_events/_delta_log/{version:020}.json");
        std::fs::remove_file(fixture.dir.path().join(entry)).unwrap();
    }
    let from_checkpoint = log.read().await.unwrap().unwrap();
    assert_eq!(from_checkpoint.version(), 3);
    assert_eq!(from_checkpoint.files(), from_commits.files());
    assert_eq!(from_checkpoint.txns(), from_commits.txns());
    assert_eq!(from_checkpoint.protocol(), from_commits.protocol());
    assert_eq!(from_checkpoint.metadata().configuration, from_commits.metadata().configuration);
    assert_eq!(from_checkpoint.metadata().schema_string, from_commits.metadata().schema_string);
    let mut lake = fixture.open().await;
    lake.commit(&batch("items", &[event(3, Operation::Update, 1, "v3", Cell::Null)])).await.unwrap();
    assert_eq!(fixture.query("SELECT count(*) FROM cdc_events", At::Latest).await, ["4"]);
    assert_eq!(fixture.items().await, ["1 v3 -"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_a_gap_is_an_error_and_not_an_empty_table() {
    let fixture = Fixture::new();
    let lake = lake_with_three_versions(&fixture).await;
    std::fs::remove_file(fixture.dir.path().join("items/_delta_log/00000000000000000001.json")).unwrap();
    let log = lake.tables.values().next().unwrap().table.log.clone();
    let error = log.read().await.unwrap_err().to_string();
    assert!(error.contains("version 1 is missing"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vacuum_of_the_daemon_removes_expired_log_entries_and_stray_files_and_commits_go_on() {
    let fixture = Fixture::new();
    let mut options = fixture.options();
    options.checkpoint_interval = 1;
    options.log_retention = std::time::Duration::ZERO;
    options.vacuum_interval = std::time::Duration::from_millis(1);
    let mut lake = crate::lake::Lake::open(options).await.unwrap();
    lake.load().await.unwrap();
    for offset in 0..4 {
        lake.commit(&batch("items", &[event(offset, Operation::Create, offset, "x", Cell::Null)]))
            .await
            .unwrap();
        maintain(&mut lake).await;
    }
    let stray = fixture.dir.path().join("items/part-stray.parquet");
    std::fs::write(&stray, "of a commit that never happened").unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_hours(8 * 24);
    std::fs::File::options().write(true).open(&stray).unwrap().set_modified(long_ago).unwrap();
    let creation = fixture.dir.path().join("cdc_events/_delta_log/00000000000000000000.json");
    let started = std::time::Instant::now();
    // What a run removed is reported when it has ended.
    let mut removed = (0, 0);
    while creation.exists() || stray.exists() || removed.0 == 0 {
        lake.maintain().await.unwrap();
        let figures = lake.figures();
        removed = (removed.0 + figures.vacuumed_files, removed.1 + figures.vacuumed_bytes);
        tokio::task::yield_now().await;
        assert!(started.elapsed().as_secs() < 60, "nothing was removed");
    }
    assert_eq!(removed, (1, 31), "files and bytes removed");
    // A version that has expired is left out of a query, which answers for the other tables.
    let session = LakeReader::open(&fixture.options()).unwrap().session(At::Version(1)).await.unwrap();
    assert!(session.sql("SELECT * FROM items").await.is_err(), "version 1 has expired");
    assert!(session.sql("SELECT 1").await.is_ok());
    lake.commit(&batch("items", &[event(4, Operation::Create, 4, "x", Cell::Null)])).await.unwrap();
    let mut lake = fixture.open().await;
    lake.commit(&batch("items", &[event(5, Operation::Create, 5, "x", Cell::Null)])).await.unwrap();
    assert_eq!(fixture.items().await.len(), 6);
    assert_eq!(fixture.query("SELECT count(*) FROM cdc_events", At::Latest).await, ["6"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_listed_from_its_last_checkpoint_on_and_whole_where_the_hint_is_wrong() {
    let fixture = Fixture::new();
    let mut lake = lake_with_three_versions(&fixture).await;
    lake.options.checkpoint_interval = 1;
    maintain(&mut lake).await;
    lake.options.checkpoint_interval = 100;
    lake.commit(&batch("items", &[event(3, Operation::Update, 1, "v3", Cell::Null)])).await.unwrap();
    let log = lake.tables.values().next().unwrap().table.log.clone();
    let hint = fixture.dir.path().join("items/_delta_log/_last_checkpoint");
    let right = std::fs::read_to_string(&hint).unwrap();
    assert!(right.contains("\"version\":3"), "{right}");
    let listing = log.recent().await.unwrap();
    assert_eq!((listing.newest(), listing.newest_checkpoint()), (Some(4), Some(3)));
    assert!(!listing.reaches(2), "what lies before the checkpoint was listed");
    let wrong = [
        Some(right.replace("\"version\":3", "\"version\":4")),
        Some(right.replace("\"version\":3", "\"version\":1000")),
        Some(right.replace("\"version\":3", "\"version\":1")),
        Some("{\"version\":".to_owned()),
        None,
    ];
    for wrong in wrong {
        match &wrong {
            Some(text) => std::fs::write(&hint, text).unwrap(),
            None => std::fs::remove_file(&hint).unwrap(),
        }
        let state = log.read().await.unwrap().unwrap();
        assert_eq!((state.version(), log.newest().await.unwrap()), (4, Some(4)), "{wrong:?}");
        assert_eq!(state.files().len(), 1, "{wrong:?}");
        assert_eq!(state.commits_since_checkpoint(), 1, "{wrong:?}");
    }
    // A checkpoint that is gone counts for nothing.
    std::fs::write(&hint, right).unwrap();
    let checkpoint = "items/_delta_log/00000000000000000003.checkpoint.parquet";
    std::fs::remove_file(fixture.dir.path().join(checkpoint)).unwrap();
    assert_eq!(log.read().await.unwrap().unwrap().commits_since_checkpoint(), 5);
}
