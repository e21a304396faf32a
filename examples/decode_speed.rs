//! Prints how many events a second one core decodes: `cargo run --release --example decode_speed [events]`.
//!
//! Events have 16 columns of the usual types and some 0.85 KB (4 to 5 KB with their schema block); one in ten is an
//! update with a placeholder, one in twenty a delete. Each figure is the best of five runs over the same events, in
//! batches of 100,000 changes, with and without the rows of the raw table. Seconds are processor time of the thread where
//! the system tells it (Linux), so that other work on the machine counts less; elsewhere they are wall time.

#![allow(clippy::print_stdout)]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alluvium::change::{TableId, TableSchema, TopicIdentity};
use alluvium::debezium::{Decoder, DecoderOptions, RecordRef};

/// Name, Connect type and the rest of the field's schema, configured type.
const COLUMNS: [(&str, &str, &str, &str); 16] = [
    ("id", "int64", "", "int64"),
    ("customer_id", "int64", "", "int64"),
    ("quantity", "int32", "", "int32"),
    ("priority", "int16", "", "int16"),
    ("is_gift", "boolean", "", "boolean"),
    ("weight", "double", "", "float64"),
    (
        "amount",
        "bytes",
        r#","name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{"scale":"2","connect.decimal.precision":"12"}"#,
        "decimal(12,2)",
    ),
    (
        "discount",
        "bytes",
        r#","name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{"scale":"4","connect.decimal.precision":"8"}"#,
        "decimal(8,4)",
    ),
    ("status", "string", "", "text"),
    ("email", "string", "", "text"),
    ("address", "string", "", "text"),
    ("reference", "string", r#","name":"io.debezium.data.Uuid","version":1"#, "uuid"),
    ("attributes", "string", r#","name":"io.debezium.data.Json","version":1"#, "jsonb"),
    ("due", "int32", r#","name":"io.debezium.time.Date","version":1"#, "date"),
    ("created_at", "int64", r#","name":"io.debezium.time.MicroTimestamp","version":1"#, "timestamp"),
    ("updated_at", "string", r#","name":"io.debezium.time.ZonedTimestamp","version":1"#, "timestamptz"),
];

const SOURCE_FIELDS: &str = r#"{"type":"string","optional":false,"field":"version"},{"type":"string","optional":false,"field":"connector"},{"type":"string","optional":false,"field":"name"},{"type":"int64","optional":false,"field":"ts_ms"},{"type":"string","optional":true,"name":"io.debezium.data.Enum","version":1,"parameters":{"allowed":"true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"},"default":"false","field":"snapshot"},{"type":"string","optional":false,"field":"db"},{"type":"string","optional":true,"field":"sequence"},{"type":"int64","optional":true,"field":"ts_us"},{"type":"int64","optional":true,"field":"ts_ns"},{"type":"string","optional":false,"field":"schema"},{"type":"string","optional":false,"field":"table"},{"type":"int64","optional":true,"field":"txId"},{"type":"int64","optional":true,"field":"lsn"},{"type":"int64","optional":true,"field":"xmin"}"#;

struct Event {
    key: String,
    value: String,
}

fn row(id: usize) -> String {
    format!(
        r#"{{"id":{id},"customer_id":{},"quantity":{},"priority":{},"is_gift":{},"weight":{}.25,"amount":"AeJA","discount":"AMg=","status":"shipped","email":"customer{}@example.com","address":"{} Long Street, Springfield","reference":"a0eebc99-9c0b-4ef8-bb6d-{:012x}","attributes":{},"due":{},"created_at":{},"updated_at":"2024-02-29T18:29:{:02}.{:06}Z"}}"#,
        id * 7 % 100_003,
        id % 50,
        id % 5,
        id.is_multiple_of(2),
        id % 1000,
        id,
        id % 999,
        id,
        if id.is_multiple_of(10) {
            "\"__debezium_unavailable_value\""
        } else {
            r#""{\"color\": \"red\", \"size\": 4}""#
        },
        19_000 + id % 1000,
        1_709_251_199_999_999 + id,
        id % 60,
        id % 1_000_000,
    )
}

fn payload(id: usize) -> String {
    let (op, before, after) = match id {
        id if id.is_multiple_of(20) => ("d", format!("{{\"id\":{id}}}"), "null".to_owned()),
        id if id.is_multiple_of(10) => ("u", "null".to_owned(), row(id)),
        id => ("c", "null".to_owned(), row(id)),
    };
    format!(
        r#"{{"before":{before},"after":{after},"source":{{"version":"3.7.0.Final","connector":"postgresql","name":"cdc","ts_ms":1709251199123,"snapshot":"false","db":"shop","sequence":"[\"{}\",\"{}\"]","ts_us":1709251199123456,"ts_ns":1709251199123456000,"schema":"public","table":"orders","txId":{},"lsn":{},"xmin":null}},"transaction":null,"op":"{op}","ts_ms":1709251199200,"ts_us":1709251199200123,"ts_ns":1709251199200123456}}"#,
        23_681_000 + id,
        23_681_128 + id,
        700 + id,
        23_681_128 + id,
    )
}

fn schema_block() -> String {
    let field = |(name, connect, rest, _): &(&str, &str, &str, &str)| {
        format!(r#"{{"type":"{connect}","optional":true{rest},"field":"{name}"}}"#)
    };
    let fields = COLUMNS.iter().map(field).collect::<Vec<_>>().join(",");
    let row = |name: &str| {
        format!(
            r#"{{"type":"struct","fields":[{fields}],"optional":true,"name":"cdc.public.orders.Value","field":"{name}"}}"#
        )
    };
    format!(
        r#"{{"type":"struct","fields":[{},{},{{"type":"struct","fields":[{SOURCE_FIELDS}],"optional":false,"name":"io.debezium.connector.postgresql.Source","field":"source"}},{{"type":"string","optional":false,"field":"op"}},{{"type":"int64","optional":true,"field":"ts_ms"}}],"optional":false,"name":"cdc.public.orders.Envelope","version":2}}"#,
        row("before"),
        row("after"),
    )
}

fn events(count: usize, with_schema: bool) -> Vec<Event> {
    let block = schema_block();
    let key_block = r#"{"type":"struct","fields":[{"type":"int64","optional":false,"field":"id"}],"optional":false,"name":"cdc.public.orders.Key"}"#;
    let wrapped = |schema: &str, payload: String| {
        if with_schema { format!(r#"{{"schema":{schema},"payload":{payload}}}"#) } else { payload }
    };
    (1..=count)
        .map(|id| Event {
            key: wrapped(key_block, format!("{{\"id\":{id}}}")),
            value: wrapped(&block, payload(id)),
        })
        .collect()
}

fn decode(events: &[Event], options: &DecoderOptions) -> Result<Duration, Box<dyn Error>> {
    let topic: Arc<str> = "cdc.public.orders".into();
    let identity = TopicIdentity::unknown();
    let mut decoder = Decoder::new(options.clone(), |_: &TableId| -> Option<Arc<TableSchema>> { None });
    let started = Clock::now();
    for (offset, event) in (0_i64..).zip(events) {
        let record = RecordRef {
            new_key: None,
            old_key: None,
            headers: &(),
            topic: &topic,
            partition: 0,
            offset,
            timestamp_ms: 1_709_251_199_300,
            key: Some(event.key.as_bytes()),
            value: Some(event.value.as_bytes()),
        };
        decoder.push(record, &identity)?;
        if decoder.rows() == 100_000 {
            std::hint::black_box(decoder.finish()?);
        }
    }
    std::hint::black_box(decoder.finish()?);
    Ok(started.elapsed())
}

/// Processor time of this thread, or wall time.
enum Clock {
    Processor(Duration),
    Wall(Instant),
}

impl Clock {
    fn processor() -> Option<Duration> {
        let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        Some(Duration::from_nanos(schedstat.split_whitespace().next()?.parse().ok()?))
    }

    fn now() -> Self {
        Self::processor().map_or_else(|| Self::Wall(Instant::now()), Self::Processor)
    }

    fn elapsed(&self) -> Duration {
        match self {
            Self::Processor(started) => Self::processor().unwrap_or_default().saturating_sub(*started),
            Self::Wall(started) => started.elapsed(),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    alluvium::memory::set_up();
    let count = std::env::args().nth(1).map_or(Ok(100_000), |count| count.parse())?;
    let mut types = std::collections::HashMap::new();
    for (name, _, _, configured) in COLUMNS {
        types.insert(name.to_owned(), configured.parse()?);
    }
    let types = std::collections::HashMap::from([("public.orders".to_owned(), types)]);
    for with_schema in [true, false] {
        let events = events(count, with_schema);
        let bytes: usize = events.iter().map(|event| event.key.len() + event.value.len()).sum();
        for raw in [false, true] {
            let options = DecoderOptions { raw, types: types.clone(), ..DecoderOptions::default() };
            let mut best = Duration::MAX;
            for _ in 0..5 {
                best = best.min(decode(&events, &options)?);
            }
            println!(
                "{} schema block, {} raw rows: {:>9.0} events/s ({} bytes an event)",
                if with_schema { "with" } else { "without" },
                if raw { "with" } else { "without" },
                count as f64 / best.as_secs_f64(),
                bytes / count,
            );
        }
    }
    Ok(())
}
