//! The effective settings as TOML, secrets redacted: what `alluvium check --print` shows.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::Settings;

/// The settings as TOML that reads back to the same settings, but for the secrets.
pub fn toml(settings: &Settings) -> Result<String, serde_json::Error> {
    let mut text = String::new();
    if let Value::Object(root) = serde_json::to_value(settings)? {
        table(&mut text, "", &root);
    }
    Ok(text.trim_start().to_owned())
}

/// Writing to a String does not fail, so its results are dropped.
fn table(text: &mut String, path: &str, table: &Map<String, Value>) {
    let inner = |key: &str| if path.is_empty() { quoted(key) } else { format!("{path}.{}", quoted(key)) };
    for (key, value) in table.iter().filter(|(_, value)| !opens_table(path, value)) {
        // What is not set has no TOML.
        if !value.is_null() {
            let _ = writeln!(text, "{} = {}", quoted(key), inline(value));
        }
    }
    for (key, value) in table.iter().filter(|(_, value)| opens_table(path, value)) {
        match value {
            Value::Object(values) => {
                // The table of mirrors has no keys of its own.
                if !values.values().all(|value| value.is_object() && path.is_empty()) {
                    let _ = writeln!(text, "\n[{}]", inner(key));
                }
                self::table(text, &inner(key), values);
            }
            Value::Array(entries) => {
                for entry in entries.iter().filter_map(Value::as_object) {
                    let _ = writeln!(text, "\n[[{}]]", inner(key));
                    self::table(text, &format!("{}[]", inner(key)), entry);
                }
            }
            _ => {}
        }
    }
}

/// Sections, mirrors and the entries of lists have headers; deeper tables are written in place.
fn opens_table(path: &str, value: &Value) -> bool {
    match value {
        Value::Object(_) => path.is_empty() || path == "mirrors",
        Value::Array(entries) => path.is_empty() && entries.iter().all(Value::is_object),
        _ => false,
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::Array(entries) => format!("[{}]", entries.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(values) if values.is_empty() => "{}".to_owned(),
        Value::Object(values) => {
            let entries: Vec<_> =
                values.iter().map(|(key, value)| format!("{} = {}", quoted(key), inline(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        // JSON's texts and numbers are TOML's too.
        other => other.to_string(),
    }
}

fn quoted(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { Value::from(key).to_string() }
}
