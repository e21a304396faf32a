//! Mirrors of tables that take the rows of several source tables, whose topics are read in any order.

use alluvium::change::{Batch, Sink, TablePolicy};
use alluvium::mirror::{Mirror, MirrorOptions};

use super::mirror_changes::{Item, batch, gone, item_changes, put, put_without_note};
use super::postgres_server::Database;

async fn loaded(url: &str) -> Mirror {
    let mut options = MirrorOptions::new("target", "shop", url);
    options.policies.defaults = TablePolicy { several_sources: true, ..TablePolicy::default() };
    let mut mirror = Mirror::new(&options).unwrap();
    mirror.load().await.unwrap();
    mirror
}

/// Changes of `items` from the topic of one of its sources, each with its LSN.
fn from<'a>(
    topic: &'a str,
    first: i64,
    rows: &[(Item<'_>, i64)],
) -> (&'a str, i64, i64, Vec<alluvium::change::ChangeBatch>) {
    let items: Vec<Item<'_>> = rows.iter().map(|(item, _)| *item).collect();
    let mut changes = item_changes("items", first, &items);
    changes.lsns = rows.iter().map(|(_, lsn)| *lsn).collect();
    (topic, first, first + rows.len() as i64, vec![changes])
}

async fn commit(mirror: &mut Mirror, batch: Batch) -> u64 {
    let report = mirror.commit(&batch).await.unwrap();
    assert!(report.stopped.is_empty(), "{:?}", report.stopped);
    report.tables.get("public.items").map_or(0, |table| table.late)
}

async fn rows(database: &Database) -> Vec<String> {
    let sql =
        "SELECT concat_ws('|', id, name, note, __cdc_lsn, __cdc_topic_partition) FROM items ORDER BY id";
    database.connect().await.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_row_that_moves_between_sources_ends_the_same_whichever_topic_is_read_first() {
    let north = || {
        let rows = [
            (put(1, "one", "x"), 10),
            (put(2, "two", "y"), 11),
            (gone(1), 20),
            (gone(2), 22),
            (put(1, "back", "z"), 31),
        ];
        from("t.north", 0, &rows)
    };
    let south = || {
        let rows = [
            (put(1, "one", "x"), 21),
            (put(2, "two", "y"), 23),
            (put_without_note(1, "there"), 25),
            (put_without_note(2, "last"), 26),
            (gone(1), 30),
        ];
        from("t.south", 0, &rows)
    };
    let orders = [
        vec![batch(vec![north()]), batch(vec![south()])],
        vec![batch(vec![south()]), batch(vec![north()])],
        vec![batch(vec![north(), south()])],
        vec![batch(vec![south(), north()])],
    ];
    for (order, batches) in orders.into_iter().enumerate() {
        let database = Database::create().await;
        let mut late = 0;
        for batch in batches {
            // As after a crash: nothing is known but what is stored.
            let mut mirror = loaded(&database.url()).await;
            late += commit(&mut mirror, batch).await;
        }
        let expected = ["1|back|z|31|t.north/0", "2|last|y|26|t.south/0"];
        assert_eq!(rows(&database).await, expected, "order {order}");
        assert!(late >= 2, "order {order}: {late} late");
    }
}

#[tokio::test]
async fn a_replay_counts_as_read_from_its_topic_and_is_named_where_it_is_late_unless_forced() {
    let database = Database::create().await;
    let mut mirror = loaded(&database.url()).await;
    let north = from("t.north", 0, &[(put(1, "one", "x"), 10), (put(2, "two", "x"), 11)]);
    commit(&mut mirror, batch(vec![north])).await;
    commit(&mut mirror, batch(vec![from("t.south", 0, &[(put(2, "moved", "y"), 31)])])).await;
    let cured = from("t.north#replay", 100, &[(put(1, "cured", "z"), 20), (put(2, "old", "w"), 21)]);
    let report = mirror.commit(&Batch { replay: true, ..batch(vec![cured]) }).await.unwrap();
    let table = &report.tables["public.items"];
    assert_eq!((table.late, table.late_replays.as_slice()), (1, [101].as_slice()));
    // A tombstone has no place in the log: it takes only a row of its own topic.
    assert_eq!(rows(&database).await, ["1|cured|z|20|t.north/0", "2|moved|y|31|t.south/0"]);
    assert_eq!(commit(&mut mirror, batch(vec![from("t.north", 2, &[(gone(1), 0)])])).await, 0);
    let old = from("t.north#replay", 200, &[(put(2, "old", "w"), 21)]);
    let forced = Batch { replay: true, forced: [200].into(), ..batch(vec![old]) };
    assert_eq!(commit(&mut mirror, forced).await, 0);
    assert_eq!(rows(&database).await, ["2|old|w|21|t.north/0"]);
}

#[tokio::test]
async fn a_table_made_by_hand_gets_the_columns_and_its_rows_are_older_than_everything() {
    let database = Database::create().await;
    let ddl =
        "CREATE TABLE items (id int PRIMARY KEY, name varchar(20), note text, __cdc_timestamp timestamp);
        INSERT INTO items VALUES (1, 'by hand', 'x'), (2, 'by hand', 'y')";
    database.connect().await.batch_execute(ddl).await.unwrap();
    let mut mirror = loaded(&database.url()).await;
    let south = from("t.south", 0, &[(put(1, "moved", "w"), 21), (put_without_note(2, "known"), 22)]);
    assert_eq!(commit(&mut mirror, batch(vec![south])).await, 0);
    let late = from("t.north", 0, &[(gone(1), 20), (put(2, "old", "old"), 12)]);
    assert_eq!(commit(&mut mirror, batch(vec![late])).await, 2);
    assert_eq!(rows(&database).await, ["1|moved|w|21|t.south/0", "2|known|y|22|t.south/0"]);
}

#[tokio::test]
async fn instances_that_read_different_topics_of_one_table_compare_with_each_others_rows() {
    let database = Database::create().await;
    let (mut one, mut other) = (loaded(&database.url()).await, loaded(&database.url()).await);
    let first = |id: i32| 40 * i64::from(id + 1);
    for id in 0..100 {
        let north = from(
            "t.north",
            2 * i64::from(id),
            &[(put(id, "here", "x"), first(id)), (gone(id), first(id) + 1)],
        );
        let south = from("t.south", i64::from(id), &[(put(id, "there", "x"), first(id) + 2)]);
        tokio::join!(commit(&mut one, batch(vec![north])), commit(&mut other, batch(vec![south])));
    }
    let rows = rows(&database).await;
    assert_eq!(rows.len(), 100, "{rows:?}");
    assert!(rows.iter().all(|row| row.contains("|there|")), "{rows:?}");
}
