//! Apache Spark reads the tables, and writes them between two runs of the program; both stay right.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::daemon::PROGRAM;
use crate::oracle::assert_all_equal;
use crate::shop::{Plan, Shop, TABLES};
use crate::stack::{path_text, project};
use crate::upkeep;
use crate::workload::{seed, work};

/// What a script of `scripts/readers` prints, run with Spark.
fn script(name: &str, arguments: &[&str]) -> Value {
    let mut command = Command::new("bash");
    command.arg(project().join("scripts/stack/spark.sh")).arg(project().join("scripts/readers").join(name));
    let output = command.args(arguments).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}\n{}", String::from_utf8_lossy(&output.stderr)));
    assert!(output.status.success(), "{name} found differences: {report:#}");
    report
}

/// Runs the statements in Spark, then lets Spark, Python and the program read every table, also at older versions.
/// Returns what `about` says of each table: which of Delta's features took part.
fn readers_agree(shop: &Shop, versions: &[&str], statements: &[String]) -> Value {
    let lake = path_text(&shop.lake);
    let mut arguments = vec![lake.as_str(), "--alluvium", PROGRAM];
    arguments.extend(versions);
    arguments.extend(statements.iter().flat_map(|statement| ["--sql", statement]));
    script("spark_check.py", &arguments)["tables"].clone()
}

/// The sum of one figure over the current tables.
fn total(report: &Value, figure: &str) -> u64 {
    TABLES.iter().filter_map(|table| report[table]["about"][figure].as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "downloads Spark and takes minutes: scripts/test.sh --spark"]
async fn spark_reads_deletes_and_compacts_between_batches() {
    let shop = Plan::new("spark").open().await;
    for _ in 0..2 {
        work(&shop, seed(), 2, 400).await;
        shop.catch_up().await;
    }
    shop.source.batch_execute("UPDATE public.products SET stock = stock / 2").await.unwrap();
    shop.catch_up().await;

    let path = |table: &str| format!("delta.`{}`", path_text(&shop.lake.join(table)));
    let gone = "order_id % 5 = 0";
    let mut statements = vec![format!("DELETE FROM {} WHERE {gone}", path("order_items"))];
    statements.extend(TABLES.iter().map(|table| format!("OPTIMIZE {}", path(table))));
    statements.push(format!("DELETE FROM {} WHERE order_id % 7 = 0", path("order_items")));
    let report = readers_agree(&shop, &["--versions", "1"], &statements);
    assert!(
        total(&report, "OPTIMIZE") > 0 && total(&report, "DELETE") > 0,
        "Spark wrote nothing: {report:#}"
    );

    // Rows that Spark has deleted, those that it has moved, and cells that only its files have.
    let changes = format!(
        "DELETE FROM public.order_items WHERE {gone} OR order_id % 7 = 0;
         UPDATE public.order_items SET gift_wrap = NOT gift_wrap WHERE order_id % 3 = 0;
         UPDATE public.products SET stock = stock + 1;
         UPDATE public.customers SET name = name WHERE id % 2 = 0;"
    );
    shop.source.batch_execute(&changes).await.unwrap();
    work(&shop, seed(), 2, 400).await;
    shop.catch_up().await;
    assert_all_equal(&shop).await;
    let report = readers_agree(&shop, &["--versions", "1"], &[]);
    assert!(total(&report, "vectors") > 0, "no deletion vector took part: {report:#}");
}

/// Brings everything on Kafka into the lake, with a checkpoint at every second commit.
async fn catch_up_with_checkpoints(shop: &Shop) {
    shop.delivered().await;
    let run = shop.program("run").argument("--until-caught-up");
    let mut run = run.environment("ALLUVIUM__LAKE__CHECKPOINT_INTERVAL", "2").start();
    run.exits_with(0, Duration::from_mins(3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "downloads Spark and takes minutes: scripts/test.sh --spark"]
async fn spark_follows_the_change_data_feed_and_reads_what_compaction_checkpoints_and_the_vacuum_leave() {
    let mut plan = Plan::new("spark_feed");
    plan.settings = "[defaults]\nchange_data_feed = true\n".to_owned();
    let shop = plan.open().await;
    for third in 0..3 {
        work(&shop, seed(), 2, 200).await;
        catch_up_with_checkpoints(&shop).await;
        upkeep::touch(&shop, third).await;
    }
    upkeep::touch(&shop, 0).await;
    let lake = path_text(&shop.lake);
    let mut arguments = vec!["--spark", lake.as_str()];
    arguments.extend(TABLES);
    let report = script("feed_check.py", &arguments);
    let changes = |kind: &str| TABLES.iter().filter_map(|table| report[table][kind].as_u64()).sum::<u64>();
    for kind in ["insert", "update_preimage", "update_postimage", "delete"] {
        assert!(changes(kind) > 0, "no {kind} took part: {report:#}");
    }

    // What is a month old is vacuumed; versions of the last week stay, through compaction and checkpoints.
    upkeep::age(&shop.lake);
    for _ in 0..2 {
        work(&shop, seed(), 2, 200).await;
        catch_up_with_checkpoints(&shop).await;
        upkeep::touch(&shop, 1).await;
        upkeep::report(&shop, "optimize", &[]);
    }
    let removed = upkeep::report(&shop, "vacuum", &[]);
    for figure in ["data_files", "vector_files", "change_files"] {
        assert!(upkeep::total(&removed, figure) > 0, "no {figure}: {removed:#?}");
    }
    let report = readers_agree(&shop, &["--versions", "3", "--days", "7"], &[]);
    assert!(total(&report, "vectors") > 0 && total(&report, "checkpoints") > 0, "{report:#}");
    assert_all_equal(&shop).await;
}
