//! The parts of an upsert into a table whose key takes several texts for equal, as `citext` does.
//!
//! To the source two spellings are one row, and to Kafka two keys, in partitions that may be read in any order. So a batch
//! may bring a row as it was spelt before beside the row as it is, or after it: of both the one that the source committed
//! last is kept. Where two are of one transaction, it is the one that comes last.

use super::Statements;
use crate::mirror::names::quoted;
use crate::mirror::plan::PlannedColumn;
use crate::mirror::types::Wire;

/// Parts of an upsert; all are empty where keys are equal by the letter alone.
#[derive(Default)]
pub(super) struct Spellings {
    /// The name of the stored row.
    pub(super) alias: &'static str,
    /// Takes one staged row for each stored one.
    pub(super) distinct: String,
    /// Which one.
    pub(super) by: String,
    /// Leaves a stored row of another spelling that is newer.
    pub(super) guard: String,
}

impl Statements<'_> {
    pub(super) fn spellings(&self) -> Spellings {
        let loose: Vec<&PlannedColumn> = self.keys().filter(|column| column.settable).collect();
        if loose.is_empty() {
            return Spellings::default();
        }
        let keys: Vec<String> = self.keys().map(super::staged_value).collect();
        let keys = keys.join(", ");
        let time = self.commit_time().map(|column| quoted(&column.name));
        let newest = time.as_ref().map_or(String::new(), |time| format!(", s.{time} DESC NULLS LAST"));
        let guard = time.map_or(String::new(), |time| {
            let same: Vec<String> = loose
                .iter()
                .map(|column| format!("o.{0}::text = EXCLUDED.{0}::text", quoted(&column.name)))
                .collect();
            format!(" WHERE ({}) OR (o.{time} > EXCLUDED.{time}) IS NOT TRUE", same.join(" AND "))
        });
        Spellings {
            alias: " AS o",
            distinct: format!("DISTINCT ON ({keys}) "),
            by: format!(" ORDER BY {keys}{newest}, s.ctid DESC"),
            guard,
        }
    }

    /// The column with the time at which the source committed a row's last change. In a type of somebody else's choice
    /// times cannot be compared.
    pub(super) fn commit_time(&self) -> Option<&PlannedColumn> {
        let time = self.plan.columns.iter().find(|column| column.field == self.source_columns + 1);
        time.filter(|column| column.cast.is_none() && matches!(column.wire, Wire::Timestamptz))
    }
}
