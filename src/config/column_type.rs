//! Types of columns as settings name them.
//!
//! Only the form is checked here; what a name means for values and events is the decoder's business.

use serde::{Serialize, Serializer};

/// Names without arguments.
const NAMES: [&str; 21] = [
    "boolean",
    "int16",
    "int32",
    "int64",
    "float32",
    "float64",
    "numeric",
    "text",
    "uuid",
    "json",
    "jsonb",
    "bytes",
    "date",
    "time",
    "time_ms",
    "time_us",
    "time_ns",
    "timestamp",
    "timestamp_ms",
    "timestamp_us",
    "timestamp_ns",
];

/// The name of a column type that is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeName(String);

impl TypeName {
    /// Checks a name, in any case. The error says what is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        if NAMES.contains(&lower.as_str()) || lower == "timestamptz" || is_decimal(&lower) {
            return Ok(Self(text.to_owned()));
        }
        if lower.starts_with("decimal") {
            return Err(format!(
                "`{text}` does not say the digits of a decimal: write decimal(p,s) with 1 <= p <= 1000 and \
                 0 <= s <= p, for example decimal(10,2)"
            ));
        }
        Err(format!(
            "`{text}` is not a column type: use one of {}, timestamptz, decimal(p,s), decimal_text(p,s)",
            NAMES.join(", ")
        ))
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serialize for TypeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// `decimal(p,s)` or `decimal_text(p,s)` with possible digits.
fn is_decimal(text: &str) -> bool {
    let digits = || -> Option<(u16, u16)> {
        let arguments = text.strip_prefix("decimal_text").or_else(|| text.strip_prefix("decimal"))?;
        let (precision, scale) = arguments.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
        Some((precision.trim().parse().ok()?, scale.trim().parse().ok()?))
    };
    digits().is_some_and(|(precision, scale)| (1..=1000).contains(&precision) && scale <= precision)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn names_of_types_are_accepted_in_any_case() {
        for text in
            ["boolean", "Int64", "timestamptz", "decimal(10, 2)", "decimal_text(60,5)", "decimal(1,0)"]
        {
            assert_eq!(TypeName::parse(text).map(|name| name.0), Ok(text.to_owned()));
        }
    }

    #[test]
    fn other_names_are_refused_with_what_is_accepted() {
        for text in ["", "varchar(10)", "money", "int"] {
            let error = TypeName::parse(text).unwrap_err();
            assert!(
                error.starts_with(&format!("`{text}` is not a column type: use one of boolean,")),
                "{error}"
            );
        }
        for text in
            ["decimal", "decimal(5)", "decimal(0,0)", "decimal(5,6)", "decimal(1001,0)", "decimal(a,b)"]
        {
            let error = TypeName::parse(text).unwrap_err();
            assert!(error.starts_with(&format!("`{text}` does not say the digits of a decimal")), "{error}");
        }
    }
}
