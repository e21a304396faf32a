//! The raw tables: each record of the topics once, but for tombstones.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};

use super::lake::rows_of;
use crate::shop::Shop;

/// The place of a record, with how often it was found.
type Places = BTreeMap<(String, i32, i64), usize>;

/// Compares the lake's `cdc_events` and the datalake's `cdc_raw.cdc_events` with what lies on the broker.
pub async fn every_record_once(shop: &Shop) -> Result<(), String> {
    let (broker, prefix) = (shop.broker(), format!("{}.public.", shop.name));
    let records = tokio::task::spawn_blocking(move || broker.read_all(&prefix))
        .await
        .map_err(|error| error.to_string())?;
    let expected: Places = records
        .into_iter()
        .filter(|record| record.value.is_some())
        .map(|record| ((record.topic, record.partition, record.offset), 1))
        .collect();
    let lake = in_lake(shop).await.and_then(|found| compare("lake cdc_events", &expected, &found));
    let datalake =
        in_datalake(shop).await.and_then(|found| compare("datalake cdc_events", &expected, &found));
    super::join(vec![lake, datalake])
}

async fn in_lake(shop: &Shop) -> Result<Places, String> {
    let batches = rows_of(
        &shop.lake.join("cdc_events"),
        "SELECT arrow_cast(topic, 'Utf8') AS topic, partition, \"offset\", event_date FROM t",
    )
    .await?;
    let mut places = Places::new();
    for batch in &batches {
        if batch.column(3).null_count() > 0 {
            return Err("lake cdc_events: rows without event_date".to_owned());
        }
        let topics = batch.column(0).as_string::<i32>();
        let partitions = batch.column(1).as_primitive::<Int32Type>();
        let offsets = batch.column(2).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let place = (topics.value(row).to_owned(), partitions.value(row), offsets.value(row));
            *places.entry(place).or_default() += 1;
        }
    }
    Ok(places)
}

async fn in_datalake(shop: &Shop) -> Result<Places, String> {
    let sql = "SELECT topic::text, partition::int, \"offset\"::bigint FROM cdc_raw.cdc_events";
    let rows = shop
        .datalake()
        .await
        .query(sql, &[])
        .await
        .map_err(|error| format!("datalake: {}", super::reason(&error)))?;
    let mut places = Places::new();
    for row in rows {
        *places.entry((row.get(0), row.get(1), row.get(2))).or_default() += 1;
    }
    Ok(places)
}

fn compare(what: &str, expected: &Places, found: &Places) -> Result<(), String> {
    let list = |places: Vec<&(String, i32, i64)>| {
        let first: Vec<String> = places
            .iter()
            .take(8)
            .map(|(topic, partition, offset)| format!("{topic}/{partition}@{offset}"))
            .collect();
        format!("{} ({})", places.len(), first.join(", "))
    };
    let missing: Vec<_> = expected.keys().filter(|place| !found.contains_key(*place)).collect();
    let foreign: Vec<_> = found.keys().filter(|place| !expected.contains_key(*place)).collect();
    let doubled: Vec<_> = found.iter().filter(|(_, count)| **count > 1).map(|(place, _)| place).collect();
    if missing.is_empty() && foreign.is_empty() && doubled.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{what}: of {} records, missing {}, not on the broker {}, more than once {}",
        expected.len(),
        list(missing),
        list(foreign),
        list(doubled)
    ))
}
