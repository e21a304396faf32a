//! What moves a mirror's positions besides rows, and what must not.

use std::time::Duration;

use alluvium::change::{Batch, Sink, TableId};
use alluvium::mirror::{Mirror, MirrorOptions};
use tokio_postgres::Client;

use super::eventually::{PATIENCE, eventually};
use super::mirror_changes::{batch, item_changes, put};
use super::postgres_server::Database;

async fn loaded(database: &Database) -> Mirror {
    let options = MirrorOptions {
        raw: None,
        schema: "public".to_owned(),
        ..MirrorOptions::new("target", "shop", &database.url())
    };
    let mut mirror = Mirror::new(&options).unwrap();
    mirror.load().await.unwrap();
    mirror
}

fn items(first: i64, rows: &[super::mirror_changes::Item<'_>]) -> Batch {
    let next = first + i64::try_from(rows.len()).unwrap();
    batch(vec![("t.items", first, next, vec![item_changes("items", first, rows)])])
}

async fn names(client: &Client) -> Vec<String> {
    let rows =
        client.query("SELECT concat_ws('|', id, name) FROM public.items ORDER BY id", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn position(client: &Client) -> i64 {
    client.query_one("SELECT next_offset FROM alluvium.progress", &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn where_a_batch_without_rows_ended_is_stored_when_it_is_quiet() {
    let database = Database::create().await;
    let client = database.connect().await;
    let mut mirror = loaded(&database).await;
    mirror.commit(&items(0, &[put(1, "a", "x")])).await.unwrap();
    mirror.commit(&batch(vec![("t.items", 1, 9, vec![])])).await.unwrap();
    mirror.maintain().await.unwrap();
    assert_eq!(position(&client).await, 1, "not at once");
    let mirror = tokio::sync::Mutex::new(mirror);
    eventually("the position is stored", PATIENCE, || async {
        mirror.lock().await.maintain().await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        match position(&client).await {
            9 => Ok(()),
            other => Err(format!("it is {other}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_table_that_stopped_takes_nothing_behind_its_gap_after_a_rebalance() {
    let database = Database::create().await;
    let client = database.connect().await;
    let mut mirror = loaded(&database).await;
    mirror.commit(&items(0, &[put(1, "a", "x")])).await.unwrap();
    client.batch_execute("ALTER TABLE public.items ADD CHECK (name <> 'bad')").await.unwrap();
    assert_eq!(mirror.commit(&items(1, &[put(2, "bad", "x")])).await.unwrap().stopped.len(), 1);
    // Partitions are assigned while the next batch is on its way.
    mirror.reload().await.unwrap();
    assert_eq!(mirror.commit(&items(2, &[put(3, "good", "x")])).await.unwrap().stopped.len(), 1);
    assert_eq!((names(&client).await, position(&client).await), (vec!["1|a".to_owned()], 1));
}

#[tokio::test]
async fn a_second_source_table_of_the_same_name_stops_instead_of_overwriting() {
    let database = Database::create().await;
    let client = database.connect().await;
    let mut mirror = loaded(&database).await;
    mirror.commit(&items(0, &[put(1, "a", "x")])).await.unwrap();
    let mut other =
        batch(vec![("t.archive", 0, 1, vec![item_changes("items", 0, &[put(1, "archived", "x")])])]);
    other.changes[0].table = TableId::new("shop", "archive", "items");
    let stopped = mirror.commit(&other).await.unwrap().stopped;
    assert!(stopped.values().next().is_some_and(|reason| reason.contains("{schema}")), "{stopped:?}");
    assert_eq!(names(&client).await, ["1|a"]);
}
