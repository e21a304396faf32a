//! How the Postgres mirror gets over faults: other instances, locks, a server that stops, settings that cannot work.

use std::sync::Arc;
use std::time::Duration;

use alluvium::change::{Sink, SinkError};
use alluvium::mirror::{Mirror, MirrorOptions};
use futures::future::join_all;

use super::mirror::{commit, item_rows, loaded, mirror_at, part, position};
use super::mirror_changes::{batch, item_changes, put};
use super::postgres_server::{Database, PostgresServer};

#[tokio::test]
async fn the_slower_of_two_instances_is_fenced() {
    let database = Database::create().await;
    let client = database.connect().await;
    let (mut fast, mut slow) = (loaded(&database.url()).await, loaded(&database.url()).await);
    commit(&mut fast, &part(0, &[put(1, "fast", "x")])).await;
    for expected in [-1, 1] {
        let error = slow
            .commit(&part(expected.max(0), &[put(1, "slow", "x"), put(2, "slow", "x")]))
            .await
            .unwrap_err();
        let SinkError::Fenced { partition, expected: believed, found, .. } = error else { panic!("{error}") };
        assert_eq!((partition.as_str(), believed, found), ("t.items/0", expected, expected.max(0) + 1));
        slow.load().await.unwrap();
        commit(&mut fast, &part(expected.max(0) + 1, &[put(1, "faster", "x")])).await;
    }
    assert_eq!(item_rows(&client, "items").await, ["1|faster|x|c"]);
}

#[tokio::test]
async fn a_lock_that_is_held_too_long_is_tried_again() {
    let database = Database::create().await;
    let mut blocker = database.connect().await;
    let mut options = MirrorOptions::new("target", "shop", &database.url());
    options.lock_timeout = Duration::from_millis(100);
    let mut mirror = Mirror::new(&options).unwrap();
    mirror.load().await.unwrap();
    let part = |from: i64| {
        batch(vec![("t", from, from + 1, vec![item_changes("items", from, &[put(1, "a", "x")])])])
    };
    commit(&mut mirror, &part(0)).await;
    let lock = blocker.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE items").await.unwrap();
    let error = mirror.commit(&part(1)).await.unwrap_err();
    assert!(matches!(error, SinkError::Retry { class: "lock", .. }), "{error:?}");
    lock.rollback().await.unwrap();
    commit(&mut mirror, &part(1)).await;
}

#[tokio::test]
async fn a_server_that_stops_and_starts_costs_a_retry_and_nothing_else() {
    let server = Arc::new(PostgresServer::start());
    let database = Database::create_on(server).await;
    let mut mirror = loaded(&database.url()).await;
    let part = |from: i64| {
        batch(vec![("t", from, from + 1, vec![item_changes("items", from, &[put(from as i32, "a", "x")])])])
    };
    commit(&mut mirror, &part(0)).await;
    database.server().stop();
    for _ in 0..2 {
        let error = mirror.commit(&part(1)).await.unwrap_err();
        assert!(matches!(error, SinkError::Retry { class: "connection", .. }), "{error:?}");
    }
    database.server().start_again();
    commit(&mut mirror, &part(1)).await;
    assert_eq!(item_rows(&database.connect().await, "items").await, ["0|a|x|c", "1|a|x|c"]);
}

#[tokio::test]
async fn settings_that_cannot_work_stop_the_lane() {
    let database = Database::create().await;
    let mut mirror = mirror_at(&database.url().replace("/db", "/nodb"));
    let error = mirror.load().await.unwrap_err();
    assert!(matches!(&error, SinkError::Stop { message } if message.contains("3D000")), "{error:?}");
    let mut mirror = mirror_at(&format!("{}?sslmode=require", database.url()));
    let error = mirror.load().await.unwrap_err();
    assert!(matches!(&error, SinkError::Retry { class: "connection", .. }), "{error:?}");
}

#[tokio::test]
async fn a_commit_that_is_abandoned_leaves_nothing_behind() {
    let database = Database::create().await;
    let mut blocker = database.connect().await;
    let mut mirror = loaded(&database.url()).await;
    let part = |from: i64| {
        batch(vec![("t", from, from + 1, vec![item_changes("items", from, &[put(1, "a", "x")])])])
    };
    commit(&mut mirror, &part(0)).await;
    let lock = blocker.transaction().await.unwrap();
    lock.batch_execute("LOCK TABLE items").await.unwrap();
    let abandoned = tokio::time::timeout(Duration::from_millis(200), mirror.commit(&part(1))).await;
    assert!(abandoned.is_err(), "the lock did not hold the commit up");
    lock.rollback().await.unwrap();
    commit(&mut mirror, &part(1)).await;
    assert_eq!(position(&database.connect().await, "t").await, Some(2));
}

#[tokio::test]
async fn instances_that_start_at_once_on_an_empty_database_make_its_tables_together() {
    for _ in 0..5 {
        let database = Database::create().await;
        join_all((0..6).map(|id| {
            let url = database.url();
            async move {
                let mut mirror = loaded(&url).await;
                let topic = format!("t.{id}");
                let changes = vec![item_changes("items", 0, &[put(id, "a", "x")])];
                let report = mirror.commit(&batch(vec![(topic.as_str(), 0, 1, changes)])).await.unwrap();
                assert!(report.stopped.is_empty(), "{id}: {:?}", report.stopped);
            }
        }))
        .await;
        let expected: Vec<String> = (0..6).map(|id| format!("{id}|a|x|c")).collect();
        assert_eq!(item_rows(&database.connect().await, "items").await, expected);
    }
}

#[tokio::test]
async fn a_type_that_has_the_name_of_the_table_stops_it_with_the_statement_that_failed() {
    let database = Database::create().await;
    database.connect().await.batch_execute("CREATE TYPE items AS ENUM ('x')").await.unwrap();
    let mut mirror = loaded(&database.url()).await;
    let report = mirror.commit(&part(0, &[put(1, "a", "x")])).await.unwrap();
    let reasons: Vec<_> = report.stopped.values().collect();
    let [reason] = reasons.as_slice() else { panic!("{reasons:?}") };
    let reason = format!("{reason:?}");
    assert!(reason.contains("42710") && reason.contains("CREATE TABLE IF NOT EXISTS"), "{reason}");
}
