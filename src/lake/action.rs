//! The lines of a Delta log entry, as far as the lake reads and writes them.
//!
//! Reading is tolerant: actions and members that other writers know and we do not are skipped, because whether they
//! matter is said by the protocol's features, which are checked. Checkpoints are read through the same shapes.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// One line of an entry, or one row of a checkpoint: exactly one member is set.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    pub protocol: Option<Protocol>,
    pub meta_data: Option<Metadata>,
    pub add: Option<Add>,
    pub remove: Option<Remove>,
    pub txn: Option<Txn>,
    pub commit_info: Option<CommitInfo>,
}

/// What a reader and a writer must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Protocol {
    pub min_reader_version: i32,
    pub min_writer_version: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader_features: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer_features: Option<Vec<String>>,
}

/// The table's identity, schema and properties.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default)]
    pub format: Format,
    pub schema_string: String,
    #[serde(default)]
    pub partition_columns: Vec<String>,
    #[serde(default)]
    pub configuration: HashMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
}

/// The file format; Delta knows one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Format {
    pub provider: String,
    #[serde(default)]
    pub options: HashMap<String, String>,
}

impl Default for Format {
    fn default() -> Self {
        Self { provider: "parquet".to_owned(), options: HashMap::new() }
    }
}

/// A file that became part of the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Add {
    pub path: String,
    #[serde(default)]
    pub partition_values: HashMap<String, Option<String>>,
    pub size: i64,
    #[serde(default)]
    pub modification_time: i64,
    #[serde(default)]
    pub data_change: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<DeletionVector>,
}

/// Where the deleted rows of a file are written down (Delta protocol, "Deletion Vectors").
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeletionVector {
    /// `u`: a file of the table; `i`: the vector itself; `p`: an absolute path.
    pub storage_type: String,
    pub path_or_inline_dv: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<i32>,
    pub size_in_bytes: i32,
    /// Rows deleted.
    pub cardinality: i64,
}

/// A file that ceased to be part of the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Remove {
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<i64>,
    #[serde(default)]
    pub data_change: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_file_metadata: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_values: Option<HashMap<String, Option<String>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_vector: Option<DeletionVector>,
}

/// A file that says what a commit did to the rows (Delta protocol, "Add CDC File"); it is never part of the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AddChanges {
    pub path: String,
    #[serde(default)]
    pub partition_values: HashMap<String, Option<String>>,
    pub size: i64,
    /// Always `false`.
    pub data_change: bool,
}

/// Progress of an application: for the lake, a position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Txn {
    pub app_id: String,
    pub version: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<i64>,
}

/// Who committed and why.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CommitInfo {
    pub timestamp: Option<i64>,
    pub operation: Option<String>,
    /// [`WRITER`]: the instance of ours that committed.
    #[serde(rename = "alluvium.writer")]
    pub writer: Option<String>,
    /// [`LEDGER`]: key changes that are half done after the commit.
    #[serde(rename = "alluvium.keyChanges")]
    pub ledger: Option<String>,
}

/// Member of `commitInfo` that names the instance which committed.
pub(super) const WRITER: &str = "alluvium.writer";

/// Member of `commitInfo` that holds the ledger of key changes. Commits that move positions have it only where there is
/// something in it; those that move none, where they say what it is.
pub(super) const LEDGER: &str = "alluvium.keyChanges";

/// The entry of one commit, built line by line.
pub(super) struct Entry {
    lines: Vec<u8>,
}

impl Entry {
    /// An entry that says that `writer` did `operation` at `millis`.
    pub(super) fn new(operation: &str, writer: &str, millis: i64) -> Self {
        Self::with_ledger(operation, writer, millis, None)
    }

    /// The same of a commit that moves positions, with the ledger that holds after it.
    pub(super) fn of_batch(operation: &str, writer: &str, millis: i64, ledger: &str) -> Self {
        Self::with_ledger(operation, writer, millis, Some(ledger).filter(|ledger| !ledger.is_empty()))
    }

    /// The same of a commit that moves no positions, with the ledger as it stands; `None`: it is not known. An empty one
    /// is written down as well, since otherwise the entry says nothing of it (see `TableState::learn_ledger`).
    pub(super) fn with_ledger(operation: &str, writer: &str, millis: i64, ledger: Option<&str>) -> Self {
        let mut entry = Self { lines: Vec::with_capacity(1024) };
        let mut info = serde_json::json!({
            "timestamp": millis,
            "operation": operation,
            "operationParameters": {},
            "engineInfo": concat!("alluvium/", env!("CARGO_PKG_VERSION")),
            WRITER: writer,
        });
        if let Some((info, ledger)) = info.as_object_mut().zip(ledger) {
            info.insert(LEDGER.to_owned(), ledger.into());
        }
        entry.push(&serde_json::json!({ "commitInfo": info }));
        entry
    }

    pub(super) fn protocol(mut self, protocol: &Protocol) -> Self {
        self.push(&serde_json::json!({ "protocol": protocol }));
        self
    }

    pub(super) fn metadata(mut self, metadata: &Metadata) -> Self {
        self.push(&serde_json::json!({ "metaData": metadata }));
        self
    }

    pub(super) fn add(mut self, add: &Add) -> Self {
        self.push(&serde_json::json!({ "add": add }));
        self
    }

    pub(super) fn remove(mut self, remove: &Remove) -> Self {
        self.push(&serde_json::json!({ "remove": remove }));
        self
    }

    pub(super) fn changes(mut self, changes: &AddChanges) -> Self {
        self.push(&serde_json::json!({ "cdc": changes }));
        self
    }

    pub(super) fn txn(mut self, txn: &Txn) -> Self {
        self.push(&serde_json::json!({ "txn": txn }));
        self
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.lines.into()
    }

    fn push(&mut self, line: &serde_json::Value) {
        if !self.lines.is_empty() {
            self.lines.push(b'\n');
        }
        self.lines.extend_from_slice(line.to_string().as_bytes());
    }
}
