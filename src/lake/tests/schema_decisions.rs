//! Schema changes that wait for somebody: what is offered, applied by hand, and what of it fails as a whole.

use std::sync::Arc;

use super::fixture::Fixture;
use super::schema_changes::{RECORD, THINGS, commit, narrow, refused, wide};
use crate::change::Operation::{Create, Delete, Update};
use crate::change::{Resolve, Sink, TableSchema, resolve};
use crate::lake::LakeSchemas;
use crate::lake::read::At;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_waits_is_applied_by_hand_and_goes_on() {
    for how in [Resolve::Check, Resolve::Text, Resolve::Keep] {
        let fixture = Fixture::new();
        let mut lake = fixture.open().await;
        commit(&mut lake, &wide(0, Create, &[1, 2], &[10, 20])).await;
        let narrowed = narrow(2, Create, &[3], &[30]);
        let reason = refused(&mut lake, &narrowed).await;
        assert!(
            reason.contains("alluvium schema apply public.things")
                && reason.contains("column n was int64 and is int32")
                && reason.contains("cdc.public.things/0@2"),
            "{reason}"
        );
        assert!(!lake.look_again().await.unwrap(), "nothing happened yet");
        // After a restart it is refused again, and recorded once.
        let mut lake = fixture.open().await;
        refused(&mut lake, &narrowed).await;
        let schemas = LakeSchemas::open(&fixture.options()).unwrap();
        let mut waiting = schemas.waiting(Some("public.things")).await.unwrap();
        let waiting = waiting.pop().expect("a table waits");
        let resolution = resolve(&waiting.stored, &waiting.lineage, &waiting.pending, how).unwrap();
        schemas.apply(waiting, &resolution).await.unwrap();
        assert!(schemas.waiting(None).await.unwrap().is_empty());
        assert!(lake.look_again().await.unwrap(), "somebody decided");
        lake.load().await.unwrap();
        assert_eq!(commit(&mut lake, &narrowed).await, [""; 0]);
        let (sql, expected) = match how {
            Resolve::Keep => ("SELECT id, n, n__old FROM things ORDER BY id", ["1 - 10", "2 - 20", "3 30 -"]),
            _ => (
                "SELECT id, n, arrow_typeof(n) = 'Int64' FROM things ORDER BY id",
                ["1 10 false", "2 20 false", "3 30 false"],
            ),
        };
        assert_eq!(fixture.query(sql, At::Latest).await, expected, "{how:?}");
        let record = fixture.query(RECORD, At::Latest).await;
        let expected = [
            "narrow n int64 int32 refused cdc.public.things 0 2",
            "narrow n int64 int32 applied cdc.public.things 0 2",
        ];
        assert_eq!(record, expected, "{how:?}");
        commit(&mut lake, &narrow(3, Update, &[1], &[11])).await;
        assert_eq!(fixture.query("SELECT n FROM things WHERE id = 1", At::Latest).await, ["11"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_does_not_fit_ends_the_whole_and_deleted_rows_do_not_count() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    commit(&mut lake, &wide(0, Create, &[1, 2, 3], &[10, 1 << 40, 1 << 41])).await;
    // Its row stays in the file, marked as deleted.
    commit(&mut lake, &wide(3, Delete, &[3], &[0])).await;
    refused(&mut lake, &narrow(4, Update, &[2], &[20])).await;
    let schemas = LakeSchemas::open(&fixture.options()).unwrap();
    let before = fixture.version("things").await;
    let plan = async || {
        let waiting = schemas.waiting(None).await.unwrap().pop().unwrap();
        let resolution =
            resolve(&waiting.stored, &waiting.lineage, &waiting.pending, Resolve::Check).unwrap();
        schemas.apply(waiting, &resolution).await
    };
    let error = plan().await.unwrap_err().to_string();
    assert!(
        error.contains("column n") && error.contains("row 1 of") && error.contains("nothing was changed"),
        "{error}"
    );
    assert_eq!(fixture.version("things").await, before);
    let files = std::fs::read_dir(fixture.dir.path().join("things")).unwrap();
    let parquet =
        files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|e| e == "parquet"));
    assert_eq!(parquet.count(), 1, "half a file was left behind");
    // The source had corrected that row before it narrowed the column; here it is corrected by hand.
    let mut lake = fixture.open().await;
    commit(&mut lake, &wide(4, Update, &[2], &[21])).await;
    plan().await.unwrap();
    assert_eq!(fixture.query(THINGS, At::Latest).await, ["1 10", "2 21"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_key_is_taken_where_the_stored_rows_are_unique_by_it() {
    let pair = |offset, ids: &[i32], values: &[i32], key: Vec<usize>| {
        let mut batch = narrow(offset, Create, ids, values);
        let columns = batch.changes[0].schema.columns().to_vec();
        batch.changes[0].schema = Arc::new(TableSchema::new(columns, key));
        batch
    };
    for (values, unique) in [([10, 20], true), ([10, 10], false)] {
        let fixture = Fixture::new();
        let mut lake = fixture.open().await;
        commit(&mut lake, &pair(0, &[1, 2], &values, vec![0])).await;
        let reason = refused(&mut lake, &pair(2, &[3], &[30], vec![1])).await;
        assert!(reason.contains("the key was (id) and is (n)"), "{reason}");
        let schemas = LakeSchemas::open(&fixture.options()).unwrap();
        let waiting = schemas.waiting(None).await.unwrap().pop().unwrap();
        let resolution =
            resolve(&waiting.stored, &waiting.lineage, &waiting.pending, Resolve::Check).unwrap();
        let applied = schemas.apply(waiting, &resolution).await;
        if !unique {
            let error = applied.unwrap_err().to_string();
            assert!(
                error.contains("several of its rows are equal in it") && error.contains("rebuild"),
                "{error}"
            );
            continue;
        }
        applied.unwrap();
        lake.load().await.unwrap();
        commit(&mut lake, &pair(2, &[3], &[30], vec![1])).await;
        commit(&mut lake, &pair(3, &[9], &[20], vec![1])).await;
        assert_eq!(fixture.query(THINGS, At::Latest).await, ["1 10", "3 30", "9 20"]);
    }
}
