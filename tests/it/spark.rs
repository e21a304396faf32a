//! Apache Spark reads the tables, and writes them between two runs of the program; both stay right.

use std::process::Command;

use serde_json::Value;

use crate::daemon::PROGRAM;
use crate::oracle::assert_all_equal;
use crate::shop::{Plan, Shop, TABLES};
use crate::stack::{path_text, project};
use crate::workload::{seed, work};

/// Runs the statements in Spark, then lets Spark, Python and the program read every table, also at older versions.
/// Returns what `about` says of each table: which of Delta's features took part.
fn readers_agree(shop: &Shop, statements: &[String]) -> Value {
    let mut command = Command::new("bash");
    command
        .arg(project().join("scripts/stack/spark.sh"))
        .arg(project().join("scripts/readers/spark_check.py"));
    command.arg(path_text(&shop.lake)).args(["--versions", "1", "--alluvium", PROGRAM]);
    command.args(statements.iter().flat_map(|statement| ["--sql", statement]));
    let output = command.output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}\n{}", String::from_utf8_lossy(&output.stderr)));
    assert!(output.status.success(), "readers differ: {:#}", report["differences"]);
    report["tables"].clone()
}

/// The sum of one figure over the current tables.
fn total(report: &Value, figure: &str) -> u64 {
    TABLES.iter().filter_map(|table| report[table]["about"][figure].as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "downloads Spark and takes minutes: cargo test --release --test it spark -- --ignored"]
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
    let report = readers_agree(&shop, &statements);
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
    let report = readers_agree(&shop, &[]);
    assert!(total(&report, "vectors") > 0, "no deletion vector took part: {report:#}");
}
