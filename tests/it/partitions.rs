//! Rows that move among the partitions of a table, each with a topic of its own, into one table: every copy equals the
//! parent, through kills.

use std::time::Duration;

use tokio_postgres::Client;

use crate::accounting::LANES;
use crate::daemon::Running;
use crate::eventually::{PATIENCE, eventually};
use crate::oracle::{compare, lake_table_equal, postgres_rows, rows_of, source_columns};
use crate::quarantine::{command, open_records, replay_by, set};
use crate::shop::{Plan, Shop};
use crate::workload::seed;

/// Two partitioned tables. The key of a row is its `id`, in whichever partition it lies; `body` is left out of events that
/// do not change it.
const TABLES: &str = "
CREATE TABLE public.parcels (id int NOT NULL, region text NOT NULL, note text, body text) PARTITION BY LIST (region);
CREATE TABLE public.parcels_n PARTITION OF public.parcels (PRIMARY KEY (id)) FOR VALUES IN ('n');
CREATE TABLE public.parcels_s PARTITION OF public.parcels (PRIMARY KEY (id)) FOR VALUES IN ('s');
CREATE TABLE public.parcels_w PARTITION OF public.parcels (PRIMARY KEY (id)) FOR VALUES IN ('w');
CREATE TABLE public.crates (LIKE public.parcels) PARTITION BY LIST (region);
CREATE TABLE public.crates_n PARTITION OF public.crates (PRIMARY KEY (id)) FOR VALUES IN ('n');
CREATE TABLE public.crates_s PARTITION OF public.crates (PRIMARY KEY (id)) FOR VALUES IN ('s');
CREATE TABLE public.crates_w PARTITION OF public.crates (PRIMARY KEY (id)) FOR VALUES IN ('w');
ALTER TABLE public.parcels_n ALTER body SET STORAGE EXTERNAL;
ALTER TABLE public.parcels_s ALTER body SET STORAGE EXTERNAL;
ALTER TABLE public.parcels_w ALTER body SET STORAGE EXTERNAL;
ALTER TABLE public.crates_n ALTER body SET STORAGE EXTERNAL;
ALTER TABLE public.crates_s ALTER body SET STORAGE EXTERNAL;
ALTER TABLE public.crates_w ALTER body SET STORAGE EXTERNAL;
INSERT INTO public.parcels SELECT n, (ARRAY['n','s','w'])[1 + n % 3], 'old', repeat('o', 3000) FROM generate_series(1, 30) n;
INSERT INTO public.crates SELECT * FROM public.parcels;
";

const SETTINGS: &str = r#"
[[tables]]
source = "public.parcels"
sources = ["^public\\.parcels_[nsw]$"]

[[tables]]
source = "public.crates"
sources = ["^public\\.crates_[nsw]$"]
write = "copy-on-write"
"#;

/// A session that changes, moves, deletes and creates rows with ids of its own.
struct Editor {
    session: Client,
    random: fastrand::Rng,
    number: i32,
}

impl Editor {
    async fn new(shop: &Shop, seed: u64, number: i32) -> Self {
        let random = fastrand::Rng::with_seed(seed.wrapping_add(number as u64));
        Self { session: shop.another_session().await, random, number }
    }

    async fn transactions(&mut self, count: usize) {
        for _ in 0..count {
            let statements: Vec<String> = (0..self.random.usize(1..6)).map(|_| self.statement()).collect();
            let sql = format!("BEGIN; {}; COMMIT", statements.join("; "));
            self.session.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?} in {sql}"));
        }
    }

    fn statement(&mut self) -> String {
        let id = 2 * self.random.i32(1..25) + self.number;
        let table = ["parcels", "crates"][self.random.usize(0..2)];
        let region = ["n", "s", "w"][self.random.usize(0..3)];
        let text = format!("repeat('{:x}', {})", self.random.u64(..), self.random.u32(200..300));
        match self.random.u8(0..10) {
            0 => format!("DELETE FROM public.{table} WHERE id = {id}"),
            1 | 2 => format!(
                "INSERT INTO public.{table} SELECT {id}, '{region}', 'new', {text}
                 WHERE NOT EXISTS (SELECT FROM public.{table} WHERE id = {id})"
            ),
            3 => format!("UPDATE public.{table} SET body = {text} WHERE id = {id}"),
            4 | 5 => format!("UPDATE public.{table} SET note = '{region}' || {id} WHERE id = {id}"),
            _ => format!("UPDATE public.{table} SET region = '{region}' WHERE id = {id}"),
        }
    }
}

/// Compares a table in the lake and in both mirrors with the parent in the source.
async fn equal(shop: &Shop, table: &str) -> Result<(), String> {
    let mut columns = source_columns(&shop.source, table).await;
    for column in &mut columns {
        column.key = column.name == "id";
    }
    let source = postgres_rows(&shop.source, &format!("public.{table}"), &columns).await?;
    lake_table_equal(shop, table, &columns, &source).await?;
    for (session, schema) in [(shop.datalake().await, "cdc_processed"), (shop.target().await, "public")] {
        let copy = postgres_rows(&session, &format!("{schema}.{table}"), &columns).await?;
        compare(&format!("mirror {schema}.{table}"), &columns, &source, &copy)?;
    }
    Ok(())
}

async fn becomes_equal(shop: &Shop, run: &Running) {
    shop.delivered().await;
    for table in ["parcels", "crates"] {
        eventually(&format!("all copies of {table} equal the parent"), PATIENCE, || async {
            run.assert_runs();
            equal(shop, table).await
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_move_among_partitions_under_load_and_kills_leave_every_copy_equal_to_the_parent() {
    let shop = Plan {
        prepare: TABLES,
        // The parent has no key, and no changes of its own.
        connector: vec![("table.include.list", r"public\.(barrier|parcels_[nsw]|crates_[nsw])")],
        settings: SETTINGS.to_owned(),
        ..Plan::new("partitions")
    }
    .open()
    .await;
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut even, mut odd) = (Editor::new(&shop, seed, 0).await, Editor::new(&shop, seed, 1).await);
    tokio::join!(even.transactions(30), odd.transactions(30));
    for _ in 0..8 {
        let mut run = shop.program("run").start();
        tokio::join!(even.transactions(40), odd.transactions(40));
        // Not a wait for something: the random instant is what this test is about.
        tokio::time::sleep(Duration::from_millis(random.u64(0..1_500))).await;
        run.kill();
    }
    let mut run = shop.program("run").start();
    tokio::join!(even.transactions(150), odd.transactions(150));
    becomes_equal(&shop, &run).await;
    let (_, metrics) = run.get("metrics").await.unwrap();
    for line in metrics.lines().filter(|line| line.starts_with("alluvium_late_changes_total")) {
        eprintln!("{line}");
    }
    run.stop().await;
}

/// A partitioned table whose amounts the settings call text: where one is not null, its record is bad.
fn with_bad_records() -> Plan {
    Plan {
        schema_blocks: false,
        prepare: "CREATE TABLE public.meters (id int NOT NULL, region text NOT NULL, note text, body text, amount numeric(12,2))
                      PARTITION BY LIST (region);
                  CREATE TABLE public.meters_n PARTITION OF public.meters (PRIMARY KEY (id)) FOR VALUES IN ('n');
                  CREATE TABLE public.meters_s PARTITION OF public.meters (PRIMARY KEY (id)) FOR VALUES IN ('s');
                  ALTER TABLE public.meters_n ALTER body SET STORAGE EXTERNAL;
                  ALTER TABLE public.meters_s ALTER body SET STORAGE EXTERNAL;
                  INSERT INTO public.meters SELECT n, 'n', 'old', repeat('o', 3000), NULL FROM generate_series(1, 3) n;",
        connector: vec![("table.include.list", r"public\.(barrier|meters_[ns])")],
        settings: "[[tables]]\nsource = \"public.meters\"\nsources = [\"^public\\\\.meters_[ns]$\"]\ntypes = { id = \"int32\", \
                   region = \"text\", note = \"text\", body = \"text\", amount = \"decimal_text(12,2)\" }\n\
                   [[tables]]\nsource = \"public.barrier\"\ntypes = { id = \"int32\", passed = \"int64\" }\n"
            .to_owned(),
        ..Plan::new("partitions_quarantine")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_partitions_are_marked_superseded_and_replayed_in_the_table_that_takes_them() {
    let shop = with_bad_records().open().await;
    shop.catch_up().await;
    let mut run = shop.program("run").start();
    run.ready().await;
    let change = async |sql: &str| shop.source.batch_execute(sql).await.unwrap();
    change("UPDATE public.meters SET amount = 5, note = 'bad'").await;
    // A partial update of row 1 has a wrong base. Row 2 moves, and with it goes what was wrong with it.
    change("UPDATE public.meters SET amount = NULL, note = 'partial' WHERE id = 1").await;
    change("UPDATE public.meters SET amount = NULL, region = 's', note = 'moved' WHERE id = 2").await;
    change("UPDATE public.meters SET note = 'there' WHERE id = 2").await;
    shop.delivered().await;
    for name in LANES {
        open_records(&run, name, 3).await;
    }
    run.stop().await;
    let records =
        command(&shop, &["list", "--records", "--state", "all", "--lane", "lake", "--output", "json"]).json();
    let of_state = |state: &str| -> Vec<(String, String)> {
        let text = |record: &serde_json::Value, name: &str| record[name].as_str().unwrap().to_owned();
        let all = records.as_array().unwrap().iter().filter(|record| record["state"] == state);
        all.map(|record| (text(record, "id"), text(record, "code"))).collect()
    };
    let codes: Vec<String> = of_state("open").into_iter().map(|(_, code)| code).collect();
    assert_eq!(codes, ["invalid_value", "invalid_value", "base_quarantined"], "{records}");
    let superseded = of_state("superseded").remove(0).0;

    set(&shop, "decimal_text(12,2)", "decimal(12,2)");
    let mut run = shop.program("run").start();
    run.ready().await;
    let admin = format!("admin.listen={}", run.admin());
    for (code, replayed) in
        [("invalid_value", "replayed 6, refused 0"), ("base_quarantined", "replayed 3, refused 0")]
    {
        let done = replay_by(&shop, &admin, &["--table", "public.meters", "--code", code]);
        assert!(done.code == Some(0) && done.stdout.contains(replayed), "{code}: {done:#?}");
    }
    equal(&shop, "meters").await.unwrap();
    // Forced, the record of row 2 overwrites the row that has moved, and is where its topic has left it.
    let forced = replay_by(&shop, &admin, &[&superseded, "--force"]);
    assert!(forced.code == Some(0) && forced.stdout.contains("replayed 1"), "{forced:#?}");
    let query = format!(
        "SELECT id FROM t WHERE id = 2 AND note = 'bad' AND __cdc_topic_partition = '{}/0'",
        shop.topic("meters_n")
    );
    let found = rows_of(&shop.lake.join("meters"), &query).await.unwrap();
    let found: usize = found.iter().map(arrow::array::RecordBatch::num_rows).sum();
    assert_eq!(found, 1, "the lake does not have the old row, or not from its topic");
    // What comes after a replay in the topics themselves is not late.
    change("UPDATE public.meters SET note = 'newest', body = repeat('n', 3000) WHERE id = 2").await;
    change("DELETE FROM public.meters WHERE id = 3").await;
    change("UPDATE public.meters SET region = 's' WHERE id = 1").await;
    shop.delivered().await;
    eventually("all copies equal the parent", PATIENCE, || async {
        run.assert_runs();
        equal(&shop, "meters").await
    })
    .await;
    run.stop().await;
}
