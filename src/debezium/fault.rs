//! What is wrong with a record, before its place is added.

use crate::change::RecordErrorKind;

/// A reason without the record's place. The detail never holds row values, and so never the text of a JSON error
/// either, which may quote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: RecordErrorKind,
    pub(super) detail: String,
}

/// What decoding a part of a record gives.
pub(super) type Decoded<T> = Result<T, Fault>;

impl Fault {
    pub(super) fn new(kind: RecordErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// From the error of parsing `part` of a record into an expected shape.
    pub(super) fn json(part: &str, error: &serde_json::Error) -> Self {
        if error.is_data() {
            let detail =
                format!("the {part} has not the form of a Debezium event (at byte {})", error.column());
            Self::new(RecordErrorKind::NotAnEvent, detail)
        } else {
            let detail = format!("the {part} is not JSON (at byte {})", error.column());
            Self::new(RecordErrorKind::NotJson, detail)
        }
    }

    pub(super) fn no_object(part: &str) -> Self {
        Self::new(RecordErrorKind::NotAnEvent, format!("the {part} is not a JSON object"))
    }

    pub(super) fn not_utf8(part: &str) -> Self {
        Self::new(RecordErrorKind::NotJson, format!("the {part} is not UTF-8"))
    }
}
