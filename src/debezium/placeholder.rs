//! What Debezium sends in place of an unchanged TOASTed value, in each form that a column type gives it.
//!
//! Invariant: a cell that [`Placeholder`] recognises becomes an absent cell, and never a value. The forms are those of
//! Debezium's `UnchangedToastedPlaceholder`: the text itself, its base64 for `bytea`, an array with one element of
//! either, an array of its bytes as numbers for integer and date arrays, a map from the text to itself for `hstore`
//! (as JSON text, or as a map), an array with its name-based UUID (version 3) for `uuid[]`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

/// Debezium's default for `unavailable.value.placeholder`.
pub const DEFAULT_PLACEHOLDER: &str = "__debezium_unavailable_value";

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
        let bytes = setting.strip_prefix("hex:").and_then(from_hex);
        let bytes = bytes.unwrap_or_else(|| setting.as_bytes().to_vec());
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let quoted = serde_json::Value::String(text.clone()).to_string();
        let base64 = STANDARD.encode(&bytes);
        let numbers: Vec<String> = bytes.iter().map(|&byte| (byte as i8).to_string()).collect();
        let hstore = format!("{{{quoted}:{quoted}}}");
        let composite = vec![
            format!("[{quoted}]"),
            format!("[\"{base64}\"]"),
            format!("[{}]", numbers.join(",")),
            format!("[\"{}\"]", name_based_uuid(&bytes)),
            hstore.clone(),
        ];
        Self { text, base64, hstore, composite }
    }

    /// Whether a JSON string with this content is the placeholder of a column that is not of bytes.
    #[inline]
    pub(super) fn is_text(&self, value: &str) -> bool {
        // The lengths differ for nearly all values, so that this costs two comparisons of integers a cell.
        [&self.text, &self.hstore].into_iter().any(|form| value.len() == form.len() && value == form)
    }

    /// Whether a JSON string with this content is the placeholder of a column of bytes.
    #[inline]
    pub(super) fn is_bytes(&self, value: &str) -> bool {
        value.len() == self.base64.len() && value == self.base64
    }

    /// Whether an array or object, as compact JSON, is the placeholder.
    pub(super) fn is_composite(&self, compact: &str) -> bool {
        self.composite.iter().any(|form| form == compact)
    }
}

/// The UUID of version 3 as Java's `UUID.nameUUIDFromBytes` makes it.
fn name_based_uuid(name: &[u8]) -> uuid::Uuid {
    let digest: [u8; 16] = Md5::digest(name).into();
    uuid::Builder::from_md5_bytes(digest).into_uuid()
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
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
        assert!(placeholder.is_bytes("X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="));
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

    #[test]
    fn each_form_follows_a_text_that_is_configured() {
        let placeholder = Placeholder::new("n/a");
        assert!(placeholder.is_text("n/a") && placeholder.is_text(r#"{"n/a":"n/a"}"#));
        assert!(placeholder.is_bytes("bi9h") && !placeholder.is_text("bi9h"), "a text may be anything");
        // As Java's UUID.nameUUIDFromBytes("n/a".getBytes()) makes it: the digest with version 3 and variant 2.
        let uuid = r#"["274b6819-2b05-3e26-8f12-8ff63bfcd4a4"]"#;
        for form in [r#"["n/a"]"#, r#"["bi9h"]"#, "[110,47,97]", r#"{"n/a":"n/a"}"#] {
            assert!(placeholder.is_composite(form), "{form}");
        }
        assert!(placeholder.composite.iter().any(|form| form == uuid), "{:?}", placeholder.composite);
    }

    #[test]
    fn bytes_that_are_no_text_are_recognised_as_bytes() {
        let placeholder = Placeholder::new("hex:ff00");
        assert!(placeholder.is_bytes("/wA=") && placeholder.is_composite("[-1,0]"));
    }
}
