//! Types of columns as settings name them: the decoder's names, kept as they were written.

use serde::{Serialize, Serializer};

use crate::debezium::ConfiguredType;

/// The name of a column type, and what the decoder makes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeName {
    text: String,
    meaning: ConfiguredType,
}

impl TypeName {
    /// Checks a name, in any case. The error says what is accepted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let meaning = text.parse::<ConfiguredType>().map_err(|error| error.to_string())?;
        Ok(Self { text: text.to_owned(), meaning })
    }

    /// What it means.
    pub fn meaning(&self) -> &ConfiguredType {
        &self.meaning
    }
}

impl Serialize for TypeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_types_are_kept_as_written() {
        for text in
            ["boolean", "Int64", "timestamptz", "decimal(10, 2)", "decimal_text(60,5)", "decimal(1,0)"]
        {
            assert_eq!(TypeName::parse(text).map(|name| name.text), Ok(text.to_owned()));
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
            ["decimal", "decimal(5)", "decimal(0,0)", "decimal(5,1001)", "decimal(1001,0)", "decimal(a,b)"]
        {
            let error = TypeName::parse(text).unwrap_err();
            assert!(error.starts_with(&format!("`{text}` does not say the digits of a decimal")), "{error}");
        }
    }
}
