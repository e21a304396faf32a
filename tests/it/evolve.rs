//! The source's tables get columns while everything runs.

use std::time::Duration;

use crate::eventually::PATIENCE;
use crate::oracle::{assert_all_equal, becomes_equal};
use crate::shop::Plan;
use crate::workload::{Crowd, seed};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_that_the_source_adds_are_added_everywhere() {
    let shop = Plan::new("evolve").open().await;
    let mut run = shop.program("run").start();
    let crowd = Crowd::start(&shop, seed(), 2, Duration::from_millis(30)).await;
    becomes_known(&shop).await;
    for (column, kind, value) in [
        ("loyalty", "integer", "id % 7"),
        ("nickname", "text", "'nick ' || name"),
        ("balance", "numeric(14,3)", "credit_limit / 3"),
        ("seen_at", "timestamptz", "created_at"),
    ] {
        shop.source
            .batch_execute(&format!("ALTER TABLE public.customers ADD COLUMN {column} {kind}"))
            .await
            .unwrap();
        shop.source
            .batch_execute(&format!("UPDATE public.customers SET {column} = {value} WHERE id % 2 = 0"))
            .await
            .unwrap();
    }
    crowd.finish().await;
    becomes_equal(&shop, &run).await;
    run.stop().await;
    assert_all_equal(&shop).await;

    // Also while the program is not running, and in the middle of what it then reads at once.
    shop.source
        .batch_execute(
            "UPDATE public.orders SET note = 'before';
             ALTER TABLE public.orders ADD COLUMN weight double precision;
             UPDATE public.orders SET weight = 0.1 WHERE id = 1",
        )
        .await
        .unwrap();
    shop.catch_up().await;
    assert_all_equal(&shop).await;
}

/// The table is in the lake already, so that the new columns change it and are not part of its first version.
async fn becomes_known(shop: &crate::shop::Shop) {
    crate::eventually::eventually("customers is in the lake", PATIENCE, || async {
        crate::oracle::count_rows(&shop.lake.join("customers")).await
    })
    .await;
}
