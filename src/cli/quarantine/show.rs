//! `alluvium quarantine show`: one record, and its bytes only where they are asked for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::list::time;
use super::store::Store;
use super::{Failed, select};
use crate::change::quarantine::Payload;
use crate::cli::args::{QuarantineShowArgs, Selection};
use crate::cli::{Exit, ReportFormat, output};
use crate::config::Settings;

pub(super) async fn run(settings: &Settings, args: &QuarantineShowArgs) -> Result<Exit, Failed> {
    let lane = args.id.split('/').next().unwrap_or_default();
    let mut stores = Store::open_all(settings, Some(lane)).await?;
    let selection = Selection { ids: vec![args.id.clone()], ..Selection::default() };
    let found = select(&mut stores, &selection).await?;
    // A topic that was made again may have the same place twice: the newest is meant.
    let Some(found) = found.into_iter().max_by_key(|found| found.record.at_micros) else {
        return Err(Failed::failure(format!("no record {} is in quarantine", args.id)));
    };
    let mut shown = json!({
        "id": found.id,
        "lane": found.lane,
        "topic": &*found.place.partition.topic,
        "partition": found.place.partition.partition,
        "offset": found.place.offset,
        "table": found.record.table.as_ref().map(ToString::to_string),
        "code": found.record.code,
        "error": found.record.error,
        "at": time(found.record.at_micros),
        "state": found.record.state.word(),
        "reason": found.record.reason,
        "replay_pending": found.pending,
        "replay_refused": found.record.refusal(),
    });
    let mut record = None;
    for store in stores.iter_mut().filter(|store| store.lane() == found.lane) {
        record = store.record(&found.place).await?;
    }
    if let Some(payload) = record.and_then(|record| record.payload)
        && let Value::Object(shown) = &mut shown
    {
        describe(shown, &payload);
        if args.payload {
            shown.insert("row_key".to_owned(), json!(found.record.row_key));
            content(shown, &payload);
        }
    }
    print(&shown, args.output)
        .map_err(|error| Failed::failure(format!("the record cannot be printed: {error}")))?;
    Ok(Exit::Success)
}

/// Adds what the record was made of.
fn describe(shown: &mut Map<String, Value>, payload: &Payload) {
    shown.insert("kafka_timestamp".to_owned(), json!(time(payload.timestamp_ms.saturating_mul(1000))));
    shown.insert("key_bytes".to_owned(), json!(payload.key.as_ref().map(Vec::len)));
    shown.insert("value_bytes".to_owned(), json!(payload.value.as_ref().map(Vec::len)));
}

/// Adds its bytes.
fn content(shown: &mut Map<String, Value>, payload: &Payload) {
    shown.insert("key".to_owned(), payload.key.as_deref().map_or(Value::Null, readable));
    shown.insert("value".to_owned(), payload.value.as_deref().map_or(Value::Null, readable));
    let headers = payload.headers.iter().map(
        |(name, value)| json!({ "name": name, "value": value.as_deref().map_or(Value::Null, readable) }),
    );
    shown.insert("headers".to_owned(), headers.collect());
}

/// Bytes as text, or what is not text in base64.
fn readable(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

fn print(shown: &Value, format: ReportFormat) -> Result<(), arrow::error::ArrowError> {
    if format == ReportFormat::Json {
        let text = serde_json::to_string_pretty(shown);
        return output::line(&text.map_err(|error| arrow::error::ArrowError::JsonError(error.to_string()))?);
    }
    for (name, value) in shown.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        output::line(&format!("{name:<16} {value}"))?;
    }
    Ok(())
}
