//! The statements for cells that a batch leaves as they are: their values are taken from a stored row, or from one that was
//! kept aside.
//!
//! An absent cell comes with a list of keys, of which the first that is stored has its value, or none for its own key. What
//! such lists lead to is read into a table of its own before anything is deleted: a delete of the same batch may take the
//! row that has the value. A cell of which nothing is stored is listed, never made up.

use std::borrow::Cow;

use super::{Statements, staged_name};
use crate::mirror::absent::{ABSENT, ORIGINS, ROW};
use crate::mirror::ledger::literal;
use crate::mirror::names::quoted;
use crate::mirror::plan::PlannedColumn;

/// The staged column with the number of a list of keys.
const LIST: &str = "__list";
/// The staged column with the place of a key in its list.
const RANK: &str = "__rank";
/// The staged column with the name of a row that was kept aside, in place of a key.
const KEPT: &str = "__kept";

impl<'a> Statements<'a> {
    /// The staging table for keys under which absent values are stored.
    pub(in crate::mirror) fn create_origins(&self, stage: &str) -> String {
        let mut columns = vec![format!("{LIST} integer, {RANK} integer, {KEPT} text")];
        columns.extend(self.keys().map(|column| format!("{} {}", staged_name(column), column.wire.sql())));
        format!("CREATE TEMP TABLE {stage} ({}) ON COMMIT DELETE ROWS", columns.join(", "))
    }

    /// Keeps, before anything is deleted, the absent fields of the first row that there is of each staged list: a stored
    /// one, or one of `kept`.
    pub(in crate::mirror) fn inherit(&self, stage: &str, absent: &[i16], kept: Option<&str>) -> String {
        let (mut names, mut stored, mut aside) = (String::new(), String::new(), String::new());
        for column in self.fields(absent) {
            let name = quoted(&column.name);
            let cell = format!("(k.cells[array_position(k.columns, {})])", literal(&column.name));
            names.extend([", ", &name]);
            stored.extend([", t.", &name]);
            aside.extend([", ", &cell, "::", &type_of(column), " AS ", &name]);
        }
        let aside = kept.map_or(String::new(), |kept| {
            format!(
                " UNION ALL SELECT s.{LIST}, s.{RANK}{aside} FROM pg_temp.{stage} s JOIN {kept} k ON k.id = s.{KEPT}"
            )
        });
        format!(
            "DROP TABLE IF EXISTS {inherited}; CREATE TEMP TABLE {name} ON COMMIT DROP AS SELECT DISTINCT ON ({LIST}) \
             {LIST}{names} FROM (SELECT s.{LIST}, s.{RANK}{stored} FROM pg_temp.{stage} s JOIN {target} t ON {same} WHERE \
             s.{KEPT} IS NULL{aside}) AS found ORDER BY {LIST}, {RANK}; CREATE UNIQUE INDEX ON {inherited} ({LIST})",
            inherited = inherited(stage),
            name = inherited_name(stage),
            target = self.plan.target.sql(),
            same = self.same_key(),
        )
    }

    /// Keeps the staged rows aside in `kept`, those of which every cell is there. `owner` are the values that say whose they
    /// are, `name` is what their names begin with; the number of the row follows.
    pub(in crate::mirror) fn keep_aside(
        &self,
        stage: &str,
        absent: &[i16],
        origins: Option<&str>,
        (kept, owner, name): (&str, &str, &str),
    ) -> String {
        let source = |column: &&PlannedColumn| column.field < self.source_columns;
        let (mut names, mut cells) = (Vec::new(), Vec::new());
        for column in self.plan.columns.iter().filter(source) {
            names.push(literal(&column.name));
            cells.push(format!("({})::text", self.resolved(column, absent, origins)));
        }
        format!(
            "INSERT INTO {kept} (id, pipeline, mirror, \"table\", columns, cells) SELECT {prefix} || s.{ROW}, {owner}, \
             ARRAY[{names}]::text[], ARRAY[{cells}]::text[] FROM pg_temp.{stage} s{stored} WHERE s.{ROW} NOT IN (SELECT \
             u.row FROM ({unresolved}) AS u(row, field))",
            prefix = literal(name),
            names = names.join(", "),
            cells = cells.join(", "),
            stored = self.own_row(absent),
            unresolved = self.unresolved(stage, origins),
        )
    }

    fn fields(&self, absent: &[i16]) -> impl Iterator<Item = &'a PlannedColumn> {
        let plan = self.plan;
        let is_absent =
            |column: &&PlannedColumn| i16::try_from(column.field).is_ok_and(|field| absent.contains(&field));
        plan.columns.iter().filter(is_absent)
    }

    /// A column of a staged row, taken from what is stored where the row says so.
    pub(super) fn resolved(&self, column: &PlannedColumn, absent: &[i16], origins: Option<&str>) -> String {
        let value = self.value(column);
        match i16::try_from(column.field) {
            Ok(field) if absent.contains(&field) => format!(
                "CASE WHEN {field} = ANY (s.{ABSENT}) THEN {} ELSE {value} END",
                stored_value(column, field, origins)
            ),
            _ => value,
        }
    }

    /// The join with the stored row of the same key.
    ///
    /// Only the stored row knows the absent values, and ON CONFLICT sees no column of the staging table that the target
    /// lacks, so the values are fetched before the conflict.
    pub(super) fn own_row(&self, absent: &[i16]) -> String {
        if absent.is_empty() {
            return String::new();
        }
        format!(" LEFT JOIN {} t ON {}", self.plan.target.sql(), self.same_key())
    }

    /// Lists the staged absent cells that are stored nowhere, by number of row and field.
    pub(in crate::mirror) fn unresolved(&self, stage: &str, origins: Option<&str>) -> String {
        let own = format!("EXISTS (SELECT FROM {} t WHERE {})", self.plan.target.sql(), self.same_key());
        let stored = match origins {
            Some(origins) => format!(
                "CASE WHEN a.list >= 0 THEN EXISTS (SELECT FROM {} i WHERE i.{LIST} = a.list) ELSE {own} END",
                inherited(origins)
            ),
            None => own,
        };
        format!(
            "SELECT s.{ROW}, a.field FROM pg_temp.{stage} s, unnest(s.{ABSENT}, s.{ORIGINS}) AS a(field, list) \
             WHERE s.{ABSENT} IS NOT NULL AND NOT {stored}"
        )
    }
}

/// The stored value of an absent cell.
fn stored_value(column: &PlannedColumn, field: i16, origins: Option<&str>) -> String {
    let name = quoted(&column.name);
    let Some(origins) = origins else { return format!("t.{name}") };
    let list = format!("s.{ORIGINS}[array_position(s.{ABSENT}, {field}::smallint)]");
    format!(
        "CASE WHEN {list} >= 0 THEN (SELECT i.{name} FROM {} i WHERE i.{LIST} = {list}) ELSE t.{name} END",
        inherited(origins)
    )
}

/// The type that a column has in the target.
fn type_of(column: &PlannedColumn) -> Cow<'_, str> {
    column.cast.as_deref().map_or_else(|| column.wire.sql(), Cow::Borrowed)
}

/// The table of what is kept for a stage of origins.
fn inherited(stage: &str) -> String {
    format!("pg_temp.{}", inherited_name(stage))
}

fn inherited_name(stage: &str) -> String {
    format!("inherited_{stage}")
}
