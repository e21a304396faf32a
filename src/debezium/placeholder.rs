//! What Debezium sends in place of an unchanged TOASTed value, in each form that a column type gives it.
//!
//! Invariant: a cell that [`Placeholder`] recognises becomes an absent cell, and never a value. The forms are those of
//! Debezium's `UnchangedToastedPlaceholder`: the text itself, its base64 for `bytea`, an array with one element of
//! either, an array of its bytes as numbers for integer and date arrays, a map from the text to itself for `hstore`
//! (as JSON text, or as a map).
//!
//! The form of `uuid[]` is the name-based UUID (version 3) of the text; it is known for Debezium's default text only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Debezium's default for `unavailable.value.placeholder`.
pub const DEFAULT_PLACEHOLDER: &str = "__debezium_unavailable_value";

/// The default text's name-based UUID, as an element of `uuid[]`.
const DEFAULT_UUID: &str = "b68a35a7-17ad-35b3-af2a-ae46edb4545a";

/// The forms of one placeholder text.
#[derive(Debug)]
pub(super) struct Placeholder {
    text: String,
    base64: String,
    hstore: String,
    /// Compact JSON of the forms that are arrays or maps.
    composite: Vec<String>,
}

impl Placeholder {
    /// The forms of `setting`, which is a text, or `hex:` and the hexadecimal bytes of one, as in Debezium's
    /// `unavailable.value.placeholder`.
    pub(super) fn new(setting: &str) -> Self {
        let text = setting.strip_prefix("hex:").and_then(from_hex).unwrap_or_else(|| setting.to_owned());
        let quoted = serde_json::Value::String(text.clone()).to_string();
        let base64 = STANDARD.encode(text.as_bytes());
        let numbers: Vec<String> = text.bytes().map(|byte| (byte as i8).to_string()).collect();
        let hstore = format!("{{{quoted}:{quoted}}}");
        let mut composite = vec![
            format!("[{quoted}]"),
            format!("[\"{base64}\"]"),
            format!("[{}]", numbers.join(",")),
            hstore.clone(),
        ];
        if text == DEFAULT_PLACEHOLDER {
            composite.push(format!("[\"{DEFAULT_UUID}\"]"));
        }
        Self { text, base64, hstore, composite }
    }

    /// Whether a JSON string with this content is the placeholder. The base64 form counts in columns of any type:
    /// without schema block a column of bytes may not be known to be one.
    #[inline]
    pub(super) fn is_text(&self, value: &str) -> bool {
        // The lengths differ for nearly all values, so that this costs three comparisons of integers a cell.
        [&self.text, &self.base64, &self.hstore]
            .into_iter()
            .any(|form| value.len() == form.len() && value == form)
    }

    /// Whether an array or object, as compact JSON, is the placeholder.
    pub(super) fn is_composite(&self, compact: &str) -> bool {
        self.composite.iter().any(|form| form == compact)
    }
}

fn from_hex(digits: &str) -> Option<String> {
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let bytes: Option<Vec<u8>> = digits
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect();
    String::from_utf8(bytes?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn each_form_that_debezium_writes_is_recognised() {
        let placeholder = Placeholder::new(DEFAULT_PLACEHOLDER);
        assert!(placeholder.is_text("__debezium_unavailable_value"));
        assert!(placeholder.is_text(r#"{"__debezium_unavailable_value":"__debezium_unavailable_value"}"#));
        assert!(placeholder.is_text("X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="));
        for form in [
            r#"["__debezium_unavailable_value"]"#,
            r#"["X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="]"#,
            "[95,95,100,101,98,101,122,105,117,109,95,117,110,97,118,97,105,108,97,98,108,101,95,118,97,108,117,101]",
            r#"["b68a35a7-17ad-35b3-af2a-ae46edb4545a"]"#,
            r#"{"__debezium_unavailable_value":"__debezium_unavailable_value"}"#,
        ] {
            assert!(placeholder.is_composite(form), "{form}");
        }
        assert!(!placeholder.is_text("__debezium_unavailable_valuE"));
        assert!(!placeholder.is_composite("[]"));
    }

    #[test]
    fn a_placeholder_may_be_set_in_hexadecimal() {
        assert!(Placeholder::new("hex:6e2f61").is_text("n/a"));
        assert!(Placeholder::new("hex:6e2").is_text("hex:6e2"));
    }
}
