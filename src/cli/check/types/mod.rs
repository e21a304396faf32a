//! `docs/types.md`, generated: events that were recorded go through the decoder, and the page says what came out.
//!
//! So the page cannot promise what the code does not do. `recorded.json` holds, for each Postgres type and connector
//! setting, the node of the schema block and the values as Debezium 3.7 wrote them, beside Postgres' own text of the same
//! values. The words around the tables are `head.md` and `tail.md`.

#[cfg(test)]
mod extensions;
mod shown;

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::ArrayRef;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::change::{ColumnType, TopicIdentity, TopicPartition};
use crate::debezium::{Decoder, DecoderOptions, RecordRef};
use crate::{lake, mirror};

const RECORDED: &str = include_str!("recorded.json");
const HEAD: &str = include_str!("head.md");
const TAIL: &str = include_str!("tail.md");
/// Longest event that is shown whole.
const SHOWN: usize = 72;

/// One type under one setting of the connector.
#[derive(Debug, Deserialize)]
struct Recorded {
    postgres: String,
    setting: String,
    /// What `column.propagate.source.type` adds.
    source: Option<String>,
    field: Value,
    values: Vec<Seen>,
}

/// A value as the source has it, and as it arrived.
#[derive(Debug, Deserialize)]
struct Seen {
    value: String,
    /// `snapshot` or `streaming`, where they differ.
    from: String,
    event: Value,
}

/// The page, in Markdown.
///
/// # Errors
/// Never in a release: where the recorded events, which are part of the program, cannot be read.
pub fn markdown() -> Result<String, String> {
    let recorded: Vec<Recorded> = serde_json::from_str(RECORDED).map_err(|error| error.to_string())?;
    let mut page = HEAD.to_owned();
    page.push_str("| Postgres | connector | event | Delta | mirror | with the source's type |\n|---|---|---|---|---|---|\n");
    for entry in &recorded {
        mapping(&mut page, entry)?;
    }
    page.push_str(
        "\n## Values at the edge\n\nAs recorded, in Delta. A mirror has what the source has, unless the event says \
         something else: then it has what stands under Delta.\n\n| Postgres | value | connector | event | Delta |\n|---|---|---|---|---|\n",
    );
    page.push_str(&edges(&recorded));
    page.push('\n');
    page.push_str(TAIL);
    Ok(page)
}

fn mapping(page: &mut String, entry: &Recorded) -> Result<(), String> {
    let plain = column_type(&entry.field)?;
    let (delta, created) = (lake::delta_type(&plain), mirror::created_type(&plain));
    let mut propagated = String::new();
    if let Some(source) = &entry.source {
        let known = column_type(&with_source(&entry.field, source))?;
        let (other_delta, other_created) = (lake::delta_type(&known), mirror::created_type(&known));
        if other_delta != delta {
            let _ = write!(propagated, "Delta `{other_delta}`, ");
        }
        if other_created != created || other_delta != delta {
            let _ = write!(propagated, "mirror `{other_created}`");
        }
    }
    let example = entry.values.iter().find(|seen| !seen.event.is_null());
    let example = example.map_or_else(|| "null".to_owned(), |seen| code(&short(&seen.event.to_string())));
    let setting = if entry.setting.is_empty() { "any".to_owned() } else { code(&entry.setting) };
    // Writing to a String does not fail.
    let _ = writeln!(
        page,
        "| {} | {setting} | {example} | `{delta}` | `{created}` | {propagated} |",
        code(&entry.postgres)
    );
    Ok(())
}

/// A line for each value that looks the same under some settings, with those settings.
fn edges(recorded: &[Recorded]) -> String {
    let mut lines: Vec<(String, Vec<&str>, String)> = Vec::new();
    for (entry, seen) in recorded.iter().flat_map(|entry| entry.values.iter().map(move |seen| (entry, seen)))
    {
        if !is_edge(seen) {
            continue;
        }
        let found = match decoded(&entry.field, &seen.event) {
            Ok((column_type, array)) => {
                shown::cell(&column_type, &array).map_or("null".to_owned(), |text| code(&short(&text)))
            }
            Err(_) => "an error of the record".to_owned(),
        };
        let before = format!("| {} | {} |", code(&entry.postgres), code(&short(&seen.value)));
        let from = if seen.from.is_empty() { String::new() } else { format!(", {}", seen.from) };
        let after = format!("{from} | {} | {found} |", code(&short(&seen.event.to_string())));
        let setting = entry.setting.rsplit('=').next().unwrap_or_default();
        match lines.iter_mut().find(|(known, _, end)| *known == before && *end == after) {
            Some((_, settings, _)) if settings.contains(&setting) => {}
            Some((_, settings, _)) => settings.push(setting),
            None => lines.push((before, vec![setting], after)),
        }
    }
    let line = |(before, settings, after): &(String, Vec<&str>, String)| {
        let settings = settings.join(", ");
        format!("{before} {}{after}\n", if settings.is_empty() { "any" } else { &settings })
    };
    lines.iter().map(line).collect()
}

/// Values that somebody may wonder about.
fn is_edge(seen: &Seen) -> bool {
    const SIGNS: [&str; 9] =
        ["nfinity", "NaN", " BC", "24:00", "294276", "5874897", "{{", "000 years", "-infinity"];
    !seen.from.is_empty() || seen.event.is_null() || SIGNS.iter().any(|sign| seen.value.contains(sign))
}

fn column_type(field: &Value) -> Result<ColumnType, String> {
    decoded(field, &Value::Null).map(|(column_type, _)| column_type)
}

/// The field with what the connector adds of the source.
fn with_source(field: &Value, source: &str) -> Value {
    let mut field = field.clone();
    if let Some(members) = field.as_object_mut() {
        let parameters = members.entry("parameters").or_insert_with(|| json!({}));
        if let Some(parameters) = parameters.as_object_mut() {
            parameters.insert("__debezium.source.column.type".to_owned(), source.into());
        }
    }
    field
}

/// A record of the topic's first partition.
fn record<'a>(topic: &'a Arc<str>, offset: i64, key: &'a str, value: &'a str) -> RecordRef<'a> {
    RecordRef {
        topic,
        partition: 0,
        offset,
        timestamp_ms: 0,
        key: Some(key.as_bytes()),
        value: Some(value.as_bytes()),
        new_key: None,
        old_key: None,
        headers: &(),
    }
}

/// What the decoder makes of a value in the column `c`.
fn decoded(field: &Value, event: &Value) -> Result<(ColumnType, ArrayRef), String> {
    // Written out, for Kafka Connect puts the schema before the payload.
    let id = r#"{"type":"int64","optional":false,"field":"id"}"#;
    let row = |name: &str| {
        format!(r#"{{"type":"struct","fields":[{id},{field}],"optional":true,"field":"{name}"}}"#)
    };
    let key = format!(r#"{{"schema":{{"type":"struct","fields":[{id}]}},"payload":{{"id":1}}}}"#);
    let source = r#"{"db":"d","schema":"s","table":"t"}"#;
    let value = format!(
        r#"{{"schema":{{"type":"struct","fields":[{},{}]}},"payload":{{"before":null,"after":{{"id":1,"c":{event}}},"source":{source},"op":"c"}}}}"#,
        row("before"),
        row("after")
    );
    let mut decoder = Decoder::new(DecoderOptions::default(), |_: &_| None);
    let topic: Arc<str> = "recorded".into();
    decoder.begin_partition(TopicPartition::new(Arc::clone(&topic), 0), 0);
    let record = record(&topic, 0, &key, &value);
    decoder.push(record, &TopicIdentity::unknown()).map_err(|error| error.to_string())?;
    let batch = decoder.finish().map_err(|error| error.to_string())?;
    let changes = batch.changes.first().ok_or("the record became no change")?;
    let index = changes.schema.index_of("c").ok_or("the column is missing")?;
    let column = changes.schema.columns().get(index).ok_or("the column is missing")?;
    Ok((column.column_type.clone(), Arc::clone(changes.rows.column(index))))
}

/// A text within a cell of a table.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|").replace('`', "'").replace(['\n', '\t', '\u{1}'], " "))
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/types.md");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        let generated = markdown().unwrap();
        let differs = committed.lines().zip(generated.lines()).find(|(old, new)| old != new);
        assert!(
            committed == generated,
            "docs/types.md is out of date: alluvium check --print-types > docs/types.md; first difference: {differs:?}"
        );
    }

    #[test]
    fn every_recorded_schema_has_a_type_and_every_value_is_read_or_refused() {
        let recorded: Vec<Recorded> = serde_json::from_str(RECORDED).unwrap();
        assert!(recorded.len() > 100, "{}", recorded.len());
        let mut refused = Vec::new();
        for entry in &recorded {
            for seen in &entry.values {
                if decoded(&entry.field, &seen.event).is_err() {
                    refused.push(format!("{} {} {}", entry.postgres, entry.setting, seen.value));
                }
            }
        }
        refused.sort();
        refused.dedup();
        let unexpected: Vec<&String> = refused
            .iter()
            .filter(|what| {
                !["294276", "000000 years", "{{a,b}", "4714-11-24"].iter().any(|sign| what.contains(sign))
            })
            .collect();
        assert!(unexpected.is_empty(), "{unexpected:#?}");
    }
}
