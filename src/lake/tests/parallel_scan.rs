//! A table with deletion vectors is read by several scans, which together read each file once.

use std::sync::Arc;

use deltalake::DeltaTable;
use deltalake::datafusion::functions_aggregate::expr_fn::{count, sum};
use deltalake::datafusion::logical_expr::{col, lit};
use deltalake::datafusion::physical_plan::{ExecutionPlan, displayable};

use super::fixture::{Cell, Fixture, batch, event, rows_as_text, table};
use crate::change::{Operation, Sink};
use crate::lake::parallel_scan;
use crate::lake::read::{At, LakeReader};

/// The files that a plan reads, each as often as it does.
fn files_read(plan: &Arc<dyn ExecutionPlan>) -> Vec<String> {
    let mut files: Vec<String> = plan.children().into_iter().flat_map(files_read).collect();
    if plan.children().is_empty() {
        let text = displayable(plan.as_ref()).one_line().to_string();
        let names = text.split(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c));
        files.extend(names.filter(|name| name.ends_with(".parquet")).map(str::to_owned));
    }
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_with_deleted_rows_is_read_in_several_streams_and_each_file_once() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let mut offset = 0;
    for ids in [0..40, 40..60, 55..75, 5..10] {
        let mut events = Vec::new();
        for id in ids {
            events.push(event(offset, Operation::Update, id, "x", Cell::Null));
            offset += 1;
        }
        lake.commit(&batch("items", &events)).await.unwrap();
    }
    let session = LakeReader::open(&fixture.options()).unwrap().session(At::Latest).await.unwrap();
    let mut items = DeltaTable::new(lake.tables[&table("items")].table.log.guarded());
    items.load().await.unwrap();
    let live = items.snapshot().unwrap().log_data();
    let mut live: Vec<String> = live.iter().map(|file| file.path().into_owned()).collect();
    live.sort();
    assert_eq!(live.len(), 4, "{live:?}");
    for parts in [1, 2, 3, 8] {
        let provider = parallel_scan::provider(&items, parts).await.unwrap();
        let plan = provider.scan(&session.state(), None, &[], None).await.unwrap();
        let streams = plan.properties().partitioning.partition_count();
        assert_eq!((streams, files_read(&plan)), (parts.min(4), live.clone()), "{parts} parts");
        let rows = session.read_table(provider).unwrap().filter(col("id").gt_eq(lit(8))).unwrap();
        let found = rows.aggregate(vec![], vec![count(col("id")), sum(col("id"))]).unwrap();
        let found = rows_as_text(&found.collect().await.unwrap()[0]);
        assert_eq!(found, [format!("67 {}", (8..75).sum::<i64>())], "{parts} parts");
    }
}
