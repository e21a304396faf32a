//! Rows that move among the partitions of a table, each with a topic of its own, into one table: every copy equals the
//! parent, through kills.

use std::time::Duration;

use tokio_postgres::Client;

use crate::daemon::Running;
use crate::eventually::{PATIENCE, eventually};
use crate::oracle::{compare, lake_table_equal, postgres_rows, source_columns};
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
