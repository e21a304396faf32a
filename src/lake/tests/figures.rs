//! Figures for `docs/performance.md`; run with `--ignored --nocapture`.

#![allow(clippy::print_stderr)]

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    ArrayRef, Date32Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};

use super::fixture::{Fixture, batch, event, value};
use crate::change::{Batch, Operation, Sink, Span, TopicIdentity, TopicPartition, raw};

/// Rows like Debezium's: `after` of `bytes` bytes of JSON, most of whose text repeats.
fn rows(first: i64, count: i64, bytes: usize) -> RecordBatch {
    let offsets = || first..first + count;
    let columns: Vec<ArrayRef> = raw::schema()
        .fields()
        .iter()
        .map(|field| -> ArrayRef {
            match field.name().as_str() {
                "topic" => Arc::new(StringArray::from_iter_values(offsets().map(|_| "cdc.public.orders"))),
                "partition" => Arc::new(Int32Array::from_iter_values(offsets().map(|_| 0))),
                "offset" => Arc::new(Int64Array::from_iter_values(offsets())),
                "kafka_timestamp" => Arc::new(
                    TimestampMicrosecondArray::from_iter_values(
                        offsets().map(|offset| 1_700_000_000_000_000 + offset),
                    )
                    .with_timezone("UTC"),
                ),
                "event_date" => Arc::new(Date32Array::from_iter_values(offsets().map(|_| 19_675))),
                "operation" => Arc::new(StringArray::from_iter_values(offsets().map(|_| "u"))),
                "key" => Arc::new(StringArray::from_iter_values(
                    offsets().map(|offset| format!("{{\"id\":{offset}}}")),
                )),
                "after" => {
                    Arc::new(StringArray::from_iter_values(offsets().map(|offset| payload(offset, bytes))))
                }
                _ => arrow::array::new_null_array(field.data_type(), count as usize),
            }
        })
        .collect();
    RecordBatch::try_new(raw::schema(), columns).unwrap()
}

/// CPU time of this process; on a busy machine it tells more than the clock.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let ticks = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    ticks.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

fn payload(seed: i64, bytes: usize) -> String {
    let mut random = fastrand::Rng::with_seed(seed as u64);
    let mut text = String::with_capacity(bytes + 40);
    let mut column = 0;
    text.push('{');
    while text.len() < bytes {
        let _ = write!(text, "\"column_number_{column}\":{},", random.u32(0..1_000_000));
        column += 1;
    }
    text.push_str("\"last\":null}");
    text
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a check"]
async fn raw_append_rate() {
    let fixture = Fixture::new();
    let mut lake = fixture.open().await;
    let (total, per_batch) = (440_000, 88_000);
    let batches: Vec<Batch> = (0..total)
        .step_by(per_batch as usize)
        .map(|first| {
            let partition = TopicPartition::new("cdc.public.orders", 0);
            let span = Span { identity: TopicIdentity::unknown(), first, next: first + per_batch };
            Batch {
                partitions: vec![partition.clone()],
                spans: [(partition, span)].into(),
                raw: Some(rows(first, per_batch, 600)),
                ..Batch::default()
            }
        })
        .collect();
    let (started, cpu) = (Instant::now(), cpu_seconds());
    for batch in &batches {
        lake.commit(batch).await.unwrap();
    }
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let bytes =
        crate::lake::read::LakeReader::open(&fixture.options()).unwrap().tables().await.unwrap()[0].bytes;
    eprintln!(
        "raw append: {:.0} rows/s, {:.0} rows per second of CPU, {} bytes a row",
        total as f64 / seconds,
        total as f64 / cpu,
        bytes / total
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a check"]
async fn upsert_rate() {
    let fixture = Fixture::new();
    let mut options = fixture.options();
    options.raw_table = None;
    let mut lake = crate::lake::Lake::open(options).await.unwrap();
    lake.load().await.unwrap();
    let table = 160_000_i64;
    let mut offset = 0;
    let mut of = |ids: Vec<i64>| {
        let events: Vec<_> = ids
            .into_iter()
            .map(|id| {
                offset += 1;
                event(offset, Operation::Update, id, "some name of a customer", value("some note about it"))
            })
            .collect();
        batch("items", &events)
    };
    let fill: Vec<Batch> =
        (0..table).step_by(20_000).map(|first| of((first..first + 20_000).collect())).collect();
    let (batches, per_batch) = (10_i64, 10_000_i64);
    let updates: Vec<Batch> = (0..batches)
        .map(|batch| of((0..per_batch).map(|row| (row * 7919 + batch * 31) % table).collect()))
        .collect();
    for batch in &fill {
        lake.commit(batch).await.unwrap();
    }
    let (started, cpu) = (Instant::now(), cpu_seconds());
    for batch in &updates {
        lake.commit(batch).await.unwrap();
    }
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let changes = (batches * per_batch) as f64;
    eprintln!(
        "copy-on-write upsert into {table} rows: {:.0} changes/s, {:.0} changes per second of CPU",
        changes / seconds,
        changes / cpu
    );
}
