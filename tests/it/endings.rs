//! Truncates of tables that keep what is deleted, through kills.
//!
//! The raw history is the oracle: when each row ended follows from the events of its key and from the truncates, by
//! their places in the source's log, in a few lines that know nothing of batches or of the program.

use std::collections::BTreeMap;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::Value;

use crate::oracle::rows_of;
use crate::shop::{Plan, Shop};

const TABLES: [&str; 3] = ["marked", "rewritten", "versions"];
const PREPARE: &str = "CREATE TABLE public.marked (id int PRIMARY KEY, name text);
    CREATE TABLE public.rewritten (id int PRIMARY KEY, name text);
    CREATE TABLE public.versions (id int PRIMARY KEY, name text)";
const SETTINGS: &str = r#"
[[tables]]
source = "public.marked"
delete = "soft"

[[tables]]
source = "public.rewritten"
delete = "soft"
write = "copy-on-write"

[[tables]]
source = "public.versions"
mode = "history"
"#;

async fn rows(shop: &Shop, table: &str, sql: &str) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("-");
    let mut rows = Vec::new();
    for batch in rows_of(&shop.lake.join(table), sql).await.unwrap() {
        let cells: Vec<_> =
            batch.columns().iter().map(|cells| ArrayFormatter::try_new(cells, &options).unwrap()).collect();
        rows.extend(
            (0..batch.num_rows())
                .map(|row| cells.iter().map(|cells| cells.value(row).to_string()).collect::<Vec<_>>()),
        );
    }
    rows
}

/// A version of a row, as the events say.
struct Version {
    id: i64,
    name: String,
    /// What began it, when, and where.
    begun: (String, String),
    place: String,
    lsn: i64,
    /// What ended it, when, and where in the source's log.
    end: Option<(&'static str, String, i64)>,
}

impl Version {
    /// Ends it, unless something did so earlier.
    fn end(&mut self, letter: &'static str, time: &str, lsn: i64) {
        if lsn > self.lsn && self.end.as_ref().is_none_or(|end| lsn < end.2) {
            self.end = Some((letter, time.to_owned(), lsn));
        }
    }
}

/// All versions of all rows, in the order of their events.
async fn versions(shop: &Shop, table: &str) -> Vec<Version> {
    let sql = format!(
        "SELECT partition, \"offset\", operation, lsn, CAST(source_timestamp AS bigint), key, after
         FROM t WHERE source_table = '{table}' ORDER BY 1, 2"
    );
    let events = rows(shop, "cdc_events", &sql).await;
    let (mut versions, mut newest) = (Vec::<Version>::new(), BTreeMap::<i64, usize>::new());
    for event in &events {
        let [partition, offset, operation, lsn, time, key, after] = event.as_slice() else { panic!() };
        let lsn = lsn.parse().unwrap();
        if operation == "t" {
            continue;
        }
        let id = serde_json::from_str::<Value>(key).unwrap()["id"].as_i64().unwrap();
        if let Some(version) = newest.get(&id).and_then(|&at| versions.get_mut(at)) {
            version.end(if operation == "d" { "d" } else { "u" }, time, lsn);
        }
        if operation != "d" {
            let after: Value = serde_json::from_str(after).unwrap();
            newest.insert(id, versions.len());
            versions.push(Version {
                id,
                name: after["name"].as_str().unwrap().to_owned(),
                begun: (operation.clone(), time.clone()),
                place: format!("{partition} {offset}"),
                lsn,
                end: None,
            });
        }
    }
    for truncate in events.iter().filter(|event| event[2] == "t") {
        let lsn = truncate[3].parse().unwrap();
        for version in &mut versions {
            version.end("t", &truncate[4], lsn);
        }
    }
    versions
}

fn compare(table: &str, mut found: Vec<String>, mut expected: Vec<String>) {
    found.sort();
    expected.sort();
    let missing: Vec<_> = expected.iter().filter(|row| found.binary_search(row).is_err()).take(5).collect();
    let surplus: Vec<_> = found.iter().filter(|row| expected.binary_search(row).is_err()).take(5).collect();
    assert!(
        found == expected,
        "{table} has {} rows, by the events {}; missing {missing:?}, surplus {surplus:?}",
        found.len(),
        expected.len()
    );
    eprintln!("{} rows of {table}", found.len());
}

/// The tables hold what their events say.
async fn follow_the_events(shop: &Shop) {
    for table in ["marked", "rewritten"] {
        let mut last = BTreeMap::new();
        for version in versions(shop, table).await {
            let (deleted, (letter, time)) = match &version.end {
                Some((letter, time, _)) => (true, ((*letter).to_owned(), time.clone())),
                None => (false, version.begun.clone()),
            };
            last.insert(version.id, format!("{} {} {letter} {time} {deleted}", version.id, version.name));
        }
        let sql = "SELECT id, name, __cdc_operation, CAST(__cdc_timestamp AS bigint), __cdc_deleted FROM t";
        let found = rows(shop, table, sql).await.iter().map(|row| row.join(" ")).collect();
        compare(table, found, last.into_values().collect());
    }
    let expected = versions(shop, "versions").await;
    let expected = expected.iter().map(|version| {
        let Version { id, name, begun: (letter, from), place, end, .. } = version;
        let until = end.as_ref().map_or("-", |end| &end.1);
        format!("{id} {name} {letter} {place} {from} {until} {}", end.is_none())
    });
    let sql = "SELECT id, name, __cdc_operation, __cdc_partition, __cdc_offset, CAST(__valid_from AS bigint), \
               CAST(__valid_to AS bigint), __is_current FROM t";
    let found = rows(shop, "versions", sql).await.iter().map(|row| row.join(" ")).collect();
    compare("versions", found, expected.collect());
}

/// The rows that are there are those of the source.
async fn equal_the_source(shop: &Shop) {
    for (table, there) in TABLES.iter().zip(["NOT __cdc_deleted", "NOT __cdc_deleted", "__is_current"]) {
        let found = rows(shop, table, &format!("SELECT id, name FROM t WHERE {there}")).await;
        let query = format!("SELECT id::text || ' ' || name FROM {table}");
        let source = shop.source.query(&query, &[]).await.unwrap();
        let found = found.iter().map(|row| row.join(" ")).collect();
        compare(table, found, source.iter().map(|row| row.get(0)).collect());
    }
}

async fn truncates(name: &'static str, partitions: u32) {
    let settings = SETTINGS.to_owned();
    let shop = Plan { partitions, prepare: PREPARE, settings, ..Plan::new(name) }.open().await;
    let sql = |text: &'static str| {
        let source = &shop.source;
        async move {
            for table in TABLES {
                source.batch_execute(&text.replace("events", table)).await.unwrap();
            }
        }
    };
    sql("INSERT INTO events SELECT n, 'first ' || n FROM generate_series(1, 3000) n").await;
    sql("DELETE FROM events WHERE id % 10 = 0").await;
    shop.catch_up().await;
    follow_the_events(&shop).await;

    // Between inserts, all of which are read at once; and in the transaction that fills the table again.
    sql("INSERT INTO events SELECT n, 'second ' || n FROM generate_series(3001, 5000) n").await;
    sql("UPDATE events SET name = 'third' WHERE id % 5 = 1").await;
    sql("TRUNCATE events").await;
    sql("INSERT INTO events SELECT n, 'fourth ' || n FROM generate_series(1, 2500) n").await;
    sql("UPDATE events SET name = 'fifth' WHERE id % 7 = 0").await;
    shop.catch_up().await;
    follow_the_events(&shop).await;
    sql("BEGIN; TRUNCATE events; INSERT INTO events SELECT n, 'sixth' FROM generate_series(10, 900) n; COMMIT").await;
    sql("DELETE FROM events WHERE id = 12").await;
    shop.delivered().await;

    // Killed at places around the commits, again and again, until one run ends by itself.
    for failpoint in ["lake.after_data_files", "lake.after_deletion_vectors", "lake.before_index"] {
        shop.catch_up_killed_at(failpoint).await;
        sql("INSERT INTO events SELECT max(id) + 1, 'one more' FROM events").await;
        sql("TRUNCATE events").await;
        sql("INSERT INTO events SELECT n, 'again ' || n FROM generate_series(1, 400) n").await;
        shop.delivered().await;
    }
    shop.catch_up().await;
    follow_the_events(&shop).await;
    equal_the_source(&shop).await;
    let ended = versions(&shop, "versions").await;
    let ended = ended.iter().filter(|version| version.end.as_ref().is_some_and(|end| end.0 == "t")).count();
    assert!(ended > 5_000, "only {ended} versions were ended by truncates");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_ends_the_rows_of_tables_that_keep_them_once_through_kills() {
    truncates("ending", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncate_among_six_partitions_ends_what_is_older_and_nothing_newer_through_kills() {
    truncates("ending6", 6).await;
}
