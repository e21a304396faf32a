//! Which schemas the events of a table have had, as a sink remembers it.
//!
//! Events of an old schema may come after those of a newer one: from another partition, or because a connector that
//! was restarted sends them again. So a difference alone does not say what changed; whether a schema has been seen
//! before, and when the newest one began, does. A sink keeps this with the table, in the commit that changes it.

use std::hash::Hasher;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;

use super::{Column, ColumnType, Difference, EventPlace, TableSchema};

/// Schemas that are remembered; the oldest are forgotten first, and would then count as new ones.
const REMEMBERED: usize = 64;

/// A schema in the form that is persisted. **Do not rename a member.**
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    columns: Vec<DescribedColumn>,
    key: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct DescribedColumn {
    name: String,
    #[serde(rename = "type")]
    column_type: ColumnType,
    nullable: bool,
}

impl Described {
    /// A name for the schema: equal schemas have equal ones.
    pub fn fingerprint(&self) -> String {
        let mut hasher = SipHasher24::new();
        // Without floats and maps in it, this cannot fail.
        hasher.write(serde_json::to_string(self).unwrap_or_default().as_bytes());
        format!("{:016x}", hasher.finish())
    }

    /// The schema.
    pub fn schema(&self) -> TableSchema {
        let columns: Vec<Column> = self
            .columns
            .iter()
            .map(|column| Column {
                name: Arc::from(column.name.as_str()),
                column_type: column.column_type.clone(),
                nullable: column.nullable,
            })
            .collect();
        let key = self
            .key
            .iter()
            .filter_map(|name| columns.iter().position(|column| column.name.as_ref() == name))
            .collect();
        TableSchema::new(columns, key)
    }
}

impl From<&TableSchema> for Described {
    fn from(schema: &TableSchema) -> Self {
        let columns = schema.columns().iter().map(|column| DescribedColumn {
            name: column.name.to_string(),
            column_type: column.column_type.clone(),
            nullable: column.nullable,
        });
        Self { columns: columns.collect(), key: schema.key_names().map(str::to_owned).collect() }
    }
}

/// What a sink remembers of the schemas of a table's events. **Persisted: do not rename a member.**
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lineage {
    /// The newest one; where there is none, the table itself says what its events look like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<Described>,
    /// Commit time in the source of the first event that had it, microseconds since 1970 UTC; 0 where not known.
    #[serde(default)]
    pub since: i64,
    /// Fingerprints of all, the newest last.
    #[serde(default)]
    pub seen: Vec<String>,
    /// A schema that waits for somebody to say what becomes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// Columns that the newest one lacks and that rows of a later snapshot have had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub back: Vec<String>,
}

/// A schema that the table cannot follow by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// What the events look like.
    pub events: Described,
    /// The first of them.
    pub place: EventPlace,
    /// What is different.
    pub differences: Vec<Difference>,
}

impl Lineage {
    /// Whether events have had that schema before.
    pub fn has_seen(&self, fingerprint: &str) -> bool {
        self.seen.iter().any(|seen| seen == fingerprint)
    }

    /// Whether rows of a snapshot have had that column since the newest schema, which lacks it.
    pub fn is_back(&self, column: &str) -> bool {
        self.back.iter().any(|back| back == column)
    }

    /// The same after rows of a snapshot have had these columns.
    pub fn with_columns_back(&self, columns: Vec<String>) -> Self {
        let mut lineage = self.clone();
        lineage.back.extend(columns);
        lineage
    }

    /// The same after `events` became the newest schema, at `since`. Nothing is pending then.
    pub fn followed_by(&self, events: Described, since: i64) -> Self {
        let mut seen = self.seen.clone();
        if seen.is_empty() {
            seen.extend(self.latest.as_ref().map(Described::fingerprint));
        }
        let fingerprint = events.fingerprint();
        seen.retain(|known| *known != fingerprint);
        seen.push(fingerprint);
        let surplus = seen.len().saturating_sub(REMEMBERED);
        seen.drain(..surplus);
        Self { latest: Some(events), since, seen, pending: None, back: Vec::new() }
    }

    /// The same after a schema from before the newest one was met.
    pub fn preceded_by(&self, events: &Described) -> Self {
        let mut lineage = self.clone();
        if lineage.seen.len() < REMEMBERED {
            lineage.seen.insert(0, events.fingerprint());
        }
        lineage
    }
}
