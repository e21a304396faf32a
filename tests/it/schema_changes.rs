//! Schema changes on the real stack: under load and `kill -9`, by each policy, and by hand while the daemon runs.

use std::time::Duration;

use serde_json::Value;
use tokio_postgres::Client;

use crate::daemon::{Output, Running};
use crate::eventually::{PATIENCE, eventually};
use crate::oracle::{count_rows, postgres_rows, rows_of, source_columns, table_equal};
use crate::shop::{Plan, Shop};
use crate::workload::seed;

/// A table of its own: the shop's clients name its columns.
const THINGS: &str = "
    CREATE TABLE public.things (id integer PRIMARY KEY, small smallint, price numeric(8,2), ratio real,
                                name varchar(20) NOT NULL, gone text, flag boolean, day date);
    ALTER TABLE public.things REPLICA IDENTITY FULL;
    INSERT INTO public.things SELECT n, n, n / 4.0, n / 10.0, 'name ' || n, 'g' || n, n % 2 = 0, '2024-01-01'::date + n
    FROM generate_series(1, 200) n";

/// Eight kinds of change, one after the other; each is followed by rows that need it.
const CHANGES: [(&str, &str); 8] = [
    (
        "add",
        "ALTER TABLE public.things ADD COLUMN extra text; UPDATE public.things SET extra = 'e' || id WHERE id % 3 = 0",
    ),
    (
        "widen integers",
        "ALTER TABLE public.things ALTER COLUMN small TYPE bigint;
                        UPDATE public.things SET small = 5000000000 + id WHERE id % 5 = 0",
    ),
    (
        "widen a decimal",
        "ALTER TABLE public.things ALTER COLUMN price TYPE numeric(14,4);
                         UPDATE public.things SET price = 1234567890.1234 WHERE id % 7 = 0",
    ),
    (
        "widen a key",
        "ALTER TABLE public.things ALTER COLUMN id TYPE bigint;
                     INSERT INTO public.things (id, name) VALUES (6000000000, 'beyond 32 bits')",
    ),
    (
        "to text",
        "ALTER TABLE public.things ALTER COLUMN day TYPE text; UPDATE public.things SET day = 'some day' WHERE id % 11 = 0",
    ),
    (
        "rename",
        "ALTER TABLE public.things RENAME COLUMN flag TO marked; UPDATE public.things SET marked = NOT marked",
    ),
    (
        "drop",
        "ALTER TABLE public.things DROP COLUMN gone; UPDATE public.things SET name = name || '!' WHERE id % 13 = 0",
    ),
    (
        "nullability",
        "ALTER TABLE public.things ALTER COLUMN name DROP NOT NULL; UPDATE public.things SET name = NULL WHERE id % 17 = 0",
    ),
];

/// Changes rows, all of whose columns are there whatever the schema.
struct Load {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    task: tokio::task::JoinHandle<u64>,
}

impl Load {
    async fn start(shop: &Shop) -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (session, asked) = (shop.another_session().await, std::sync::Arc::clone(&stop));
        let task = tokio::spawn(async move {
            let mut statements = 0;
            while !asked.load(std::sync::atomic::Ordering::Relaxed) {
                let id = 1 + statements % 200;
                let sql = format!(
                    "UPDATE public.things SET ratio = {id} / 3.0 WHERE id = {id};
                     DELETE FROM public.things WHERE id = {0}; INSERT INTO public.things (id, name) VALUES ({0}, 'n{statements}')",
                    1000 + id
                );
                session.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
                statements += 1;
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
            statements
        });
        Self { stop, task }
    }

    async fn finish(self) -> u64 {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.task.await.expect("the load panicked")
    }
}

async fn change(source: &Client, sql: &str) {
    source.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

async fn is_in_the_lake(shop: &Shop) {
    eventually("things is in the lake", PATIENCE, || async {
        match count_rows(&shop.lake.join("things")).await? {
            0 => Err("no rows".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
}

async fn equal(shop: &Shop, run: &Running) {
    shop.delivered().await;
    crate::oracle::table_becomes_equal(shop, run, "things").await;
}

/// Rows of the record, in the lake and in a mirror, as texts.
async fn records(shop: &Shop, columns: &str) -> [Vec<String>; 2] {
    let order = "ORDER BY \"offset\", kind, column_name, outcome DESC";
    let sql = format!("SELECT concat_ws(' ', {columns}) AS row FROM t WHERE source_table = 'things' {order}");
    let batches = rows_of(&shop.lake.join("schema_changes"), &sql).await.unwrap_or_default();
    let mut lake = Vec::new();
    for batch in &batches {
        let cells = batch.column(0);
        lake.extend(
            (0..batch.num_rows()).map(|row| arrow::util::display::array_value_to_string(cells, row).unwrap()),
        );
    }
    let sql = format!(
        "SELECT concat_ws(' ', {columns}) FROM alluvium.schema_changes WHERE source_table = 'things' AND mirror = 'target' {order}"
    );
    let rows = shop.target().await.query(&sql, &[]).await.unwrap();
    [lake, rows.iter().map(|row| row.get(0)).collect()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_kinds_of_change_under_load_and_kills_leave_every_copy_equal() {
    let shop = Plan { prepare: THINGS, ..Plan::new("schema_load") }.open().await;
    let mut random = fastrand::Rng::with_seed(seed());
    let mut run = shop.program("run").start();
    is_in_the_lake(&shop).await;
    let load = Load::start(&shop).await;
    for (kind, sql) in CHANGES {
        change(&shop.source, sql).await;
        // Not a wait for something: the random instant is what this test is about.
        tokio::time::sleep(Duration::from_millis(random.u64(0..1_500))).await;
        assert!(run.ended().is_none(), "it ended by itself after {kind}");
        run.kill();
        run = shop.program("run").start();
    }
    eprintln!("{} statements meanwhile", load.finish().await);
    equal(&shop, &run).await;
    run.stop().await;
    // What was dropped in the source stays, and is null in rows that came or changed since.
    for (copy, records) in
        ["lake", "target"].into_iter().zip(records(&shop, "kind, column_name, outcome").await)
    {
        for expected in [
            "add extra applied",
            "widen small applied",
            "widen price applied",
            "widen id applied",
            "add marked applied",
            "drop flag applied",
            "drop gone applied",
            "nullable name applied",
        ] {
            let found = records.iter().filter(|record| *record == expected).count();
            assert_eq!(found, 1, "{expected} in the record of {copy}: {records:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_within_a_schema_change_leaves_every_copy_equal_and_one_record() {
    let shop = Plan { prepare: THINGS, ..Plan::new("schema_failpoints") }.open().await;
    shop.catch_up().await;
    for (point, sql) in alluvium::failpoint::SCHEMA_CHANGES.iter().zip([CHANGES[1].1, CHANGES[2].1]) {
        change(&shop.source, sql).await;
        shop.delivered().await;
        let mut run = shop.program("run").environment(alluvium::failpoint::VARIABLE, point).start();
        let status = run.ends(PATIENCE).await;
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "at {point}: {status}");
        shop.catch_up().await;
        table_equal(&shop, "things").await.unwrap_or_else(|difference| panic!("after {point}: {difference}"));
    }
    for records in records(&shop, "kind, column_name, outcome").await {
        assert_eq!(records, ["widen small applied", "widen price applied"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_that_is_dropped_and_added_again_shows_nothing_of_what_it_was() {
    let prepare = "CREATE TABLE public.things (id integer PRIMARY KEY, note text, gone text);
        INSERT INTO public.things SELECT n, 'note', 'g' || n FROM generate_series(1, 20) n";
    let shop = Plan { prepare, ..Plan::new("schema_again") }.open().await;
    let mut run = shop.program("run").start();
    is_in_the_lake(&shop).await;
    // As the last column, with the type that it had: each schema here but one is one that was there before.
    for sql in [
        "ALTER TABLE public.things DROP COLUMN gone",
        "UPDATE public.things SET note = 'without' WHERE id = 1",
        "ALTER TABLE public.things ADD COLUMN gone text",
        "UPDATE public.things SET note = 'with another' WHERE id = 2",
        "UPDATE public.things SET gone = 'new' WHERE id = 3",
        "ALTER TABLE public.things ADD COLUMN brief integer",
        "UPDATE public.things SET brief = 4 WHERE id = 4",
        "ALTER TABLE public.things DROP COLUMN brief",
        "UPDATE public.things SET note = 'as before' WHERE id = 5",
    ] {
        change(&shop.source, sql).await;
    }
    equal(&shop, &run).await;
    run.stop().await;
    for (copy, records) in
        ["lake", "target"].into_iter().zip(records(&shop, "kind, column_name, outcome").await)
    {
        let expected = ["drop gone applied", "add gone applied", "add brief applied", "drop brief applied"];
        assert_eq!(records, expected, "{copy}");
    }
}

/// `alluvium schema WHAT things …`
fn schema(shop: &Shop, arguments: &[&str]) -> Output {
    let mut command = std::process::Command::new(crate::daemon::PROGRAM);
    let output = command.arg("schema").args(arguments).arg("--config").arg(&shop.settings).output().unwrap();
    Output {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Waits until every sink says that the table waits.
async fn stops_everywhere(run: &Running) {
    run.reports("things waits in every sink", |status: &Value| {
        let lanes = status["lanes"].as_array()?;
        let waits = |lane: &Value| {
            lane["tables"]["public.things"]["stopped"]
                .as_str()
                .is_some_and(|reason| reason.contains("alluvium schema apply public.things"))
        };
        (lanes.len() == 3 && lanes.iter().all(waits)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_narrowed_column_waits_until_it_is_applied_and_the_daemon_goes_on_by_itself() {
    let shop = Plan { prepare: THINGS, ..Plan::new("schema_apply") }.open().await;
    let mut run = shop.program("run").start();
    is_in_the_lake(&shop).await;
    equal(&shop, &run).await;
    change(
        &shop.source,
        "ALTER TABLE public.things ALTER COLUMN price TYPE numeric(6,2); UPDATE public.things SET price = 1.25 WHERE id = 1;
         INSERT INTO public.customers (id, name, email) VALUES (9999, 'other tables go on', 'c9999@example.com')",
    )
    .await;
    stops_everywhere(&run).await;
    crate::oracle::table_becomes_equal(&shop, &run, "customers").await;
    let plan = schema(&shop, &["plan", "public.things", "--output", "json"]).json();
    let plans = plan.as_array().unwrap();
    assert_eq!(plans.len(), 3, "{plan:#}");
    for plan in plans {
        let differences = plan["differences"].to_string();
        assert!(differences.contains("price was decimal(8,2) and is decimal(6,2)"), "{plan:#}");
        assert!(plan["steps"].to_string().contains("convert column price"), "{plan:#}");
    }
    let shown = schema(&shop, &["plan"]);
    assert!(shown.code == Some(0) && shown.stdout.contains("public.things in lake"), "{shown:#?}");
    let asked = schema(&shop, &["apply", "public.things"]);
    assert!(asked.code == Some(2) && asked.stderr.contains("--yes"), "{asked:#?}");
    let applied = schema(&shop, &["apply", "public.things", "--yes"]);
    assert_eq!(applied.code, Some(0), "{applied:#?}");
    equal(&shop, &run).await;
    run.ready().await;
    let id = run.id();
    run.stop().await;
    assert!(id > 0, "one process all the time");
    for (records, copy) in records(&shop, "kind, column_name, type_before, type_after, outcome")
        .await
        .iter()
        .zip(["lake", "target"])
    {
        let expected = [
            "narrow price decimal(8,2) decimal(6,2) refused",
            "narrow price decimal(8,2) decimal(6,2) applied",
        ];
        assert_eq!(*records, expected, "{copy}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn halt_waits_for_every_change_and_ignore_leaves_new_columns_out() {
    let settings = "[[tables]]\nsource = \"public.things\"\nschema_change = \"halt\"\n\n\
                    [[tables]]\nsource = \"public.customers\"\nschema_change = \"ignore\"\n";
    let shop =
        Plan { prepare: THINGS, settings: settings.to_owned(), ..Plan::new("schema_policies") }.open().await;
    let mut run = shop.program("run").start();
    is_in_the_lake(&shop).await;
    equal(&shop, &run).await;
    change(
        &shop.source,
        "ALTER TABLE public.things ADD COLUMN extra text; UPDATE public.things SET extra = 'e' WHERE id < 9;
         ALTER TABLE public.customers ADD COLUMN extra text; UPDATE public.customers SET extra = 'e', active = NOT active",
    )
    .await;
    stops_everywhere(&run).await;
    let applied = schema(&shop, &["apply", "public.things", "--yes"]);
    assert_eq!(applied.code, Some(0), "{applied:#?}");
    equal(&shop, &run).await;
    let columns: Vec<_> = source_columns(&shop.source, "customers").await;
    let columns: Vec<_> = columns.into_iter().filter(|column| column.name != "extra").collect();
    let source = postgres_rows(&shop.source, "public.customers", &columns).await.unwrap();
    eventually("the mirror has the values of customers", PATIENCE, || async {
        let copy = postgres_rows(&shop.target().await, "public.customers", &columns).await?;
        crate::oracle::compare("mirror customers", &columns, &source, &copy)
    })
    .await;
    let there = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'customers' AND column_name = 'extra'";
    let there: i64 = shop.target().await.query_one(there, &[]).await.unwrap().get(0);
    assert_eq!(there, 0, "a column that is to be ignored was added to the mirror");
    run.stop().await;
}
