//! The statement that asks for the last changes of stored rows, in a table of several sources.

use super::{Statements, staged_name};
use crate::change::sources::{LSN, TOPIC_PARTITION};
use crate::mirror::names::quoted;

impl Statements<'_> {
    /// For each key in the staging table for origins that is stored: its number there, then topic and partition, LSN and
    /// commit time (microseconds since 1970) of its row's last change. A time in a type of somebody else's choice is
    /// unknown.
    pub(in crate::mirror) fn last_changes(&self, stage: &str) -> String {
        let micros = self.commit_time().map_or("NULL".to_owned(), |column| {
            format!("(extract(epoch FROM t.{}) * 1000000)::bigint", staged_name(column))
        });
        format!(
            "SELECT s.__list, t.{}, t.{}, {micros} FROM pg_temp.{stage} s JOIN {} t ON {}",
            quoted(TOPIC_PARTITION),
            quoted(LSN),
            self.plan.target.sql(),
            self.same_key(),
        )
    }
}
