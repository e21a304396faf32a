//! Pairs of texts: from the JSON that events have to the form that `hstore` reads.

use std::collections::BTreeMap;

/// The text of `hstore` for a JSON object of texts and nulls; `None` where it is something else.
pub(super) fn hstore(json: &str) -> Option<String> {
    // hstore keeps no order.
    let pairs: BTreeMap<String, Option<String>> = serde_json::from_str(json).ok()?;
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(key, value)| {
            let value = value.as_deref().map_or_else(|| "NULL".to_owned(), quoted);
            format!("{}=>{value}", quoted(key))
        })
        .collect();
    Some(pairs.join(","))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_are_escaped_and_null_is_not_a_text() {
        let json = r#"{"a":"1","b":null,"q\"x":"y\\z","null":"NULL"}"#;
        let expected = r#""a"=>"1","b"=>NULL,"null"=>"NULL","q\"x"=>"y\\z""#;
        assert_eq!(hstore(json).as_deref(), Some(expected));
        assert_eq!(hstore("{}").as_deref(), Some(""));
    }

    #[test]
    fn other_json_is_refused() {
        for json in ["[]", "null", "{\"a\":1}", "{"] {
            assert_eq!(hstore(json), None, "{json}");
        }
    }
}
