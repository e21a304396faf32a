//! What concerns whole tables and whole rows: truncates, tables without key, flattened topics, incremental snapshots.

use arrow::util::display::array_value_to_string;

use crate::daemon::Running;
use crate::eventually::{PATIENCE, eventually};
use crate::oracle::rows_of;
use crate::shop::{Plan, Shop};

/// The rows of a table with columns `id` and `name` in source, mirrors and lake, as sorted text.
async fn copies(shop: &Shop, table: &str) -> Result<[Vec<String>; 4], String> {
    let mut found: [Vec<String>; 4] = Default::default();
    let databases = [
        (shop.another_session().await, "public"),
        (shop.target().await, "public"),
        (shop.datalake().await, "cdc_processed"),
    ];
    for (rows, (client, schema)) in found.iter_mut().zip(databases) {
        let query = format!("SELECT id::text || ' ' || coalesce(name, '-') FROM {schema}.{table}");
        let read = client.query(&query, &[]).await.map_err(|error| format!("{error:?}"))?;
        *rows = read.iter().map(|row| row.get(0)).collect();
    }
    for batch in rows_of(&shop.lake.join(table), "SELECT id, coalesce(name, '-') FROM t").await? {
        for row in 0..batch.num_rows() {
            let cell = |column: usize| array_value_to_string(batch.column(column), row).unwrap();
            found[3].push(format!("{} {}", cell(0), cell(1)));
        }
    }
    for rows in &mut found {
        rows.sort();
    }
    Ok(found)
}

async fn equal(shop: &Shop, table: &str) -> Result<(), String> {
    let [source, copies @ ..] = copies(shop, table).await?;
    for (what, copy) in ["target", "datalake", "lake"].iter().zip(&copies) {
        if *copy != source {
            let missing: Vec<_> = source.iter().filter(|row| !copy.contains(row)).take(5).collect();
            let surplus: Vec<_> = copy.iter().filter(|row| !source.contains(row)).take(5).collect();
            return Err(format!(
                "{table} has {} rows, {what} {}; missing {missing:?}, surplus {surplus:?}",
                source.len(),
                copy.len()
            ));
        }
    }
    Ok(())
}

async fn becomes_equal(shop: &Shop, run: &Running, table: &str) {
    eventually(&format!("all copies of {table} equal the source"), PATIENCE, || async {
        run.assert_runs();
        equal(shop, table).await
    })
    .await;
}

const EVENTS: &str = "CREATE TABLE public.events (id int PRIMARY KEY, name text)";

async fn truncates(name: &'static str, partitions: u32) {
    let shop = Plan { partitions, prepare: EVENTS, ..Plan::new(name) }.open().await;
    let sql = |text: &'static str| async { shop.source.batch_execute(text).await.unwrap() };
    sql("INSERT INTO events SELECT n, 'first ' || n FROM generate_series(1, 3000) n").await;
    shop.catch_up().await;
    equal(&shop, "events").await.unwrap();

    // Between inserts, all of which are read at once; and in the transaction that fills the table again.
    sql("INSERT INTO events SELECT n, 'second ' || n FROM generate_series(3001, 6000) n").await;
    sql("TRUNCATE events").await;
    sql("INSERT INTO events SELECT n, 'third ' || n FROM generate_series(1, 2500) n").await;
    sql("UPDATE events SET name = 'fourth' WHERE id % 7 = 0").await;
    shop.catch_up().await;
    equal(&shop, "events").await.unwrap();
    sql("BEGIN; TRUNCATE events; INSERT INTO events SELECT n, 'fifth' FROM generate_series(10, 900) n; COMMIT").await;
    sql("DELETE FROM events WHERE id = 12").await;
    shop.delivered().await;

    // Killed at places around the commits, again and again, until one run ends by itself.
    for failpoint in
        ["lane.before_commit", "lake.after_data_files", "lake.before_index", "mirror.in_transaction"]
    {
        shop.catch_up_killed_at(failpoint).await;
        sql("INSERT INTO events SELECT max(id) + 1, 'one more' FROM events").await;
        sql("TRUNCATE events").await;
        sql("INSERT INTO events SELECT n, 'again ' || n FROM generate_series(1, 400) n").await;
        shop.delivered().await;
    }
    shop.catch_up().await;
    equal(&shop, "events").await.unwrap();
    let history =
        rows_of(&shop.lake.join("cdc_events"), "SELECT count(*) FROM t WHERE operation = 't'").await;
    let history = history.unwrap();
    assert_eq!(array_value_to_string(history[0].column(0), 0).unwrap(), "6", "each truncate once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_between_inserts_empties_every_copy_once_through_kills() {
    truncates("truncate", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_among_six_partitions_takes_what_is_older_and_nothing_newer_through_kills() {
    truncates("truncate6", 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_identical_rows_goes_from_every_copy_of_a_table_without_key() {
    let prepare =
        "CREATE TABLE public.visits (id int, name text); ALTER TABLE public.visits REPLICA IDENTITY FULL";
    let shop = Plan { prepare, ..Plan::new("keyless") }.open().await;
    let sql = |text: &'static str| async { shop.source.batch_execute(text).await.unwrap() };
    sql("INSERT INTO visits VALUES (1, 'same'), (1, 'same'), (1, 'same'), (2, NULL), (2, NULL), (NULL, 'x')")
        .await;
    shop.catch_up().await;
    let one = "DELETE FROM visits WHERE ctid = (SELECT min(ctid) FROM visits WHERE id = 1)";
    shop.source.batch_execute(one).await.unwrap();
    shop.catch_up().await;
    let sql_count = "SELECT id, coalesce(name, '-') FROM t WHERE id = 1";
    let left = rows_of(&shop.lake.join("visits"), sql_count).await.unwrap();
    assert_eq!(left.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 2);
    sql("UPDATE visits SET name = 'other' WHERE ctid = (SELECT min(ctid) FROM visits WHERE id = 2)").await;
    sql("INSERT INTO visits SELECT n % 5, 'v' || n % 3 FROM generate_series(1, 500) n").await;
    sql("DELETE FROM visits WHERE ctid IN (SELECT ctid FROM visits WHERE name = 'v1' LIMIT 40)").await;
    sql("DELETE FROM visits WHERE id IS NULL; INSERT INTO visits VALUES (7, NULL)").await;
    shop.catch_up().await;
    equal(&shop, "visits").await.unwrap();
    sql("ALTER TABLE visits ADD COLUMN added int; DELETE FROM visits WHERE ctid = (SELECT min(ctid) FROM visits)").await;
    sql("INSERT INTO visits VALUES (8, 'eight', 8); TRUNCATE visits; INSERT INTO visits VALUES (9, 'nine', 9)").await;
    shop.catch_up().await;
    equal(&shop, "visits").await.unwrap();
}

/// Snapshot and streaming of a flattened topic in one delete mode; `deletes` says whether deletes arrive at all.
async fn flattened(name: &'static str, mode: &'static str, fields: &'static str, deletes: bool) {
    flattened_with(name, (mode, fields, deletes), Vec::new()).await;
}

/// The same with further settings of the connector.
async fn flattened_with(
    name: &'static str,
    (mode, fields, deletes): (&'static str, &'static str, bool),
    further: Vec<(&'static str, &'static str)>,
) -> Shop {
    let mut connector = vec![
        ("transforms", "flat"),
        ("transforms.flat.type", "io.debezium.transforms.ExtractNewRecordState"),
        ("transforms.flat.delete.tombstone.handling.mode", mode),
        ("transforms.flat.add.fields", fields),
    ];
    connector.extend(further);
    let shop = Plan { prepare: EVENTS, connector, ..Plan::new(name) }.open().await;
    let sql = |text: &'static str| async { shop.source.batch_execute(text).await.unwrap() };
    sql("INSERT INTO events SELECT n, 'first ' || n FROM generate_series(1, 50) n").await;
    let mut run = shop.program("run").start();
    becomes_equal(&shop, &run, "events").await;
    sql("UPDATE events SET name = NULL WHERE id % 5 = 0").await;
    sql("DELETE FROM events WHERE id % 2 = 0").await;
    sql("INSERT INTO events VALUES (2, 'again'), (100, 'last')").await;
    if deletes {
        becomes_equal(&shop, &run, "events").await;
    } else {
        eventually("the last row is there, and deleted ones still are", PATIENCE, || async {
            let [_, _, _, lake] = copies(&shop, "events").await?;
            if lake.len() == 51 && lake.contains(&"2 again".to_owned()) {
                Ok(())
            } else {
                Err(format!("{lake:?}"))
            }
        })
        .await;
    }
    // The delete of a row that this run has not seen yet.
    run.stop().await;
    if deletes {
        let mut run = shop.program("run").start();
        sql("DELETE FROM events WHERE id = 100").await;
        becomes_equal(&shop, &run, "events").await;
        run.stop().await;
    }
    shop
}

/// What an event said besides its row stands in the headers of its record: the history has it.
async fn flattened_with_headers(
    name: &'static str,
    (mode, deletes): (&'static str, u32),
    converter: &'static str,
) {
    let headers = ("transforms.flat.add.headers", "op,table,lsn,source.ts_ms");
    let shop = flattened_with(name, (mode, "", true), vec![headers, ("header.converter", converter)]).await;
    let sql = "SELECT operation, count(*), count(lsn), count(source_timestamp) FROM t
               WHERE source_table = 'events' GROUP BY operation ORDER BY operation";
    let mut found = Vec::new();
    for batch in rows_of(&shop.lake.join("cdc_events"), sql).await.unwrap() {
        for row in 0..batch.num_rows() {
            let cells = (0..4).map(|column| array_value_to_string(batch.column(column), row).unwrap());
            found.push(cells.collect::<Vec<_>>().join(" "));
        }
    }
    let expected =
        ["c 52 52 52".to_owned(), format!("d {deletes} {deletes} {deletes}"), "u 10 10 10".to_owned()];
    assert_eq!(found, expected, "{name}: operations, with LSN, with time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flattened_topics_are_read_in_all_five_delete_modes() {
    flattened("flat_tombstone", "tombstone", "op,source.ts_ms,lsn", true).await;
    // Fields name the database of a table, which tombstones do not.
    flattened("flat_database", "tombstone", "op,db,source.ts_ms", true).await;
    flattened("flat_rewrite", "rewrite", "op,table,schema", true).await;
    flattened("flat_both", "rewrite-with-tombstone", "", true).await;
    flattened("flat_to_tombstone", "delete-to-tombstone", "op", true).await;
    flattened("flat_drop", "drop", "op", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flattened_topics_say_in_headers_what_they_do_not_say_in_fields() {
    let simple = "org.apache.kafka.connect.storage.SimpleHeaderConverter";
    flattened_with_headers("flat_simple", ("tombstone", 26), simple).await;
    let json = "org.apache.kafka.connect.json.JsonConverter";
    flattened_with_headers("flat_json", ("rewrite", 26), json).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incremental_snapshot_during_live_updates_brings_no_older_row_back() {
    let prepare = "CREATE TABLE public.events (id int PRIMARY KEY, name text);
        CREATE TABLE public.signals (id text PRIMARY KEY, type text, data text)";
    let connector = vec![
        ("signal.data.collection", "public.signals"),
        ("incremental.snapshot.chunk.size", "50"),
        ("provide.transaction.metadata", "true"),
    ];
    let shop = Plan { prepare, connector, ..Plan::new("incremental") }.open().await;
    let settings = std::fs::read_to_string(&shop.settings).unwrap();
    let all = settings.replace(
        "\\\\.public\\\\..*\", \"__debezium-heartbeat.incremental\"",
        "\\\\..*\", \"__debezium-heartbeat.incremental\"",
    );
    std::fs::write(&shop.settings, all).unwrap();
    let sql = |text: String| {
        let source = &shop.source;
        async move { source.batch_execute(&text).await.unwrap() }
    };
    sql("INSERT INTO events SELECT n, 'v0' FROM generate_series(1, 2000) n".to_owned()).await;
    let mut run = shop.program("run").start();
    becomes_equal(&shop, &run, "events").await;
    sql("INSERT INTO signals VALUES ('s1', 'execute-snapshot', '{\"data-collections\": [\"public.events\"], \"type\": \"incremental\"}')".to_owned()).await;
    for round in 1..=30 {
        sql(format!("UPDATE events SET name = 'v{round}' WHERE id % 30 = {}", round % 30)).await;
        sql(format!("DELETE FROM events WHERE id = {}", round * 40)).await;
    }
    eventually("the snapshot is through", PATIENCE, || async {
        let rows = rows_of(
            &shop.lake.join("cdc_events"),
            "SELECT count(*) FROM t WHERE snapshot = 'incremental' AND operation = 'r'",
        )
        .await?;
        let count: u64 = array_value_to_string(rows[0].column(0), 0).unwrap().parse().unwrap();
        if count > 1_500 { Ok(()) } else { Err(format!("{count} rows")) }
    })
    .await;
    becomes_equal(&shop, &run, "events").await;
    let metrics =
        reqwest::get(format!("http://{}/metrics", run.admin())).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("alluvium_source_alive_timestamp_seconds{lane=\"lake\"}"), "{metrics}");
    run.stop().await;
}
