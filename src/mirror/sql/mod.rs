//! The statements that take staged rows into a table.
//!
//! They are sent as text each time and never prepared: a prepared statement without parameters keeps the plan of its
//! first run, which, made for a table of ten rows, would scan one of ten million.
//!
//! A truncate is a DELETE. TRUNCATE would lock out readers until the batch commits, show an empty table to those whose
//! snapshot is older, need a right of its own, and fail at foreign keys or go on to other tables. What it saves is time
//! and dead rows, once.
//!
//! Rows of a table without key are found by their text, all columns together: every type has one, while not every type
//! can be compared. Equal rows are numbered, and as many of them go, by their place, as are staged.

mod inherit;
mod sources;
mod spellings;

use super::absent::{ABSENT, ORIGINS, ROW};
use super::names::{quoted, quoted_list};
use super::plan::{METADATA, Plan, PlannedColumn};
use crate::change::Truncated;

/// Statements for rows of one plan.
#[derive(Debug, Clone)]
pub(super) struct Statements<'a> {
    plan: &'a Plan,
    /// Number of columns that come from the source; the metadata columns follow.
    source_columns: usize,
}

impl<'a> Statements<'a> {
    pub(super) fn new(plan: &'a Plan, source_columns: usize) -> Self {
        Self { plan, source_columns }
    }

    /// Columns whose values are staged; the time of synchronisation is the transaction's.
    pub(super) fn staged(&self) -> impl Iterator<Item = &'a PlannedColumn> + use<'a> {
        let synced_at = self.source_columns + METADATA.len() - 1;
        self.plan.columns.iter().filter(move |column| column.field != synced_at)
    }

    fn keys(&self) -> impl Iterator<Item = &'a PlannedColumn> + use<'a> {
        let plan = self.plan;
        plan.key.iter().filter_map(move |&at| plan.columns.get(at))
    }

    /// The columns that say which row a delete means: those of the key, or, without one, all of the source.
    pub(super) fn compared(&self) -> impl Iterator<Item = &'a PlannedColumn> + use<'a> {
        let (plan, source_columns) = (self.plan, self.source_columns);
        let whole_rows = plan.key.is_empty();
        let of_source = plan.columns.iter().filter(move |column| whole_rows && column.field < source_columns);
        self.keys().chain(of_source)
    }

    /// The staging table for rows.
    pub(super) fn create_rows(&self, stage: &str) -> String {
        let mut columns: Vec<String> =
            self.staged().map(|column| format!("{} {}", staged_name(column), column.wire.sql())).collect();
        columns.push(format!("{ROW} integer, {ABSENT} smallint[], {ORIGINS} integer[]"));
        format!("CREATE TEMP TABLE {stage} ({}) ON COMMIT DELETE ROWS", columns.join(", "))
    }

    /// The staging table for the keys of deleted rows.
    pub(super) fn create_keys(&self, stage: &str) -> String {
        let columns: Vec<String> =
            self.compared().map(|column| format!("{} {}", staged_name(column), column.wire.sql())).collect();
        format!("CREATE TEMP TABLE {stage} ({}) ON COMMIT DELETE ROWS", columns.join(", "))
    }

    /// Removes the rows that a truncate takes.
    pub(super) fn empty(&self, truncated: Truncated) -> String {
        let all = format!("DELETE FROM {}", self.plan.target.sql());
        let Truncated::Before(micros) = truncated else { return all };
        let time = self.plan.columns.iter().find(|column| column.field == self.source_columns + 1);
        // Without the column nothing says which rows are newer.
        let Some(time) = time else { return all };
        let (seconds, micros) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
        let limit = format!("('epoch'::timestamptz + interval '{seconds} seconds {micros} microseconds')");
        let limit = match &time.cast {
            Some(cast) => format!("{limit}::{cast}"),
            None => limit,
        };
        let name = quoted(&time.name);
        format!("{all} WHERE {name} IS NULL OR {name} < {limit}")
    }

    /// Removes one stored row for each staged one that is equal to it.
    pub(super) fn delete_rows(&self, stage: &str) -> String {
        let target = self.plan.target.sql();
        let stored: Vec<String> =
            self.compared().map(|column| format!("t.{}", quoted(&column.name))).collect();
        let staged: Vec<String> = self.compared().map(staged_value).collect();
        format!(
            "WITH wanted AS (SELECT ROW({staged})::text AS content, count(*) AS instances FROM pg_temp.{stage} s GROUP BY 1), \
             numbered AS (SELECT t.tableoid AS part, t.ctid AS place, w.instances, \
             row_number() OVER (PARTITION BY w.content) AS instance \
             FROM {target} t JOIN wanted w ON w.content = ROW({stored})::text) \
             DELETE FROM {target} t USING numbered n \
             WHERE t.tableoid = n.part AND t.ctid = n.place AND n.instance <= n.instances",
            staged = staged.join(", "),
            stored = stored.join(", "),
        )
    }

    /// Removes the rows whose keys are staged. Where a type takes several texts for equal, the row may have another one by
    /// now, and then it stays: its create came before the delete of what it was.
    pub(super) fn delete(&self, stage: &str) -> String {
        let by_the_letter = |column: &PlannedColumn| {
            format!(" AND t.{}::text = {}::text", quoted(&column.name), staged_value(column))
        };
        let letters: Vec<String> = self.keys().filter(|column| column.settable).map(by_the_letter).collect();
        let (target, same, letters) = (self.plan.target.sql(), self.same_key(), letters.concat());
        format!("DELETE FROM {target} t USING pg_temp.{stage} s WHERE {same}{letters}")
    }

    /// Inserts or updates from the staged rows; without a key, inserts. The fields in `absent` keep the stored value where a row says so: that
    /// of its own key, or the one that was kept of `origins`.
    pub(super) fn upsert(&self, stage: &str, absent: &[i16], origins: Option<&str>) -> String {
        let values: Vec<String> =
            self.plan.columns.iter().map(|column| self.resolved(column, absent, origins)).collect();
        let stored = self.own_row(absent);
        let updates: Vec<String> = self
            .plan
            .columns
            .iter()
            .filter(|column| column.settable)
            .map(|column| format!("{0} = EXCLUDED.{0}", quoted(&column.name)))
            .collect();
        let conflict = match (self.plan.key.is_empty(), updates.is_empty()) {
            (true, _) => String::new(),
            (false, true) => format!(" ON CONFLICT ({}) DO NOTHING", self.key_list()),
            (false, false) => {
                format!(" ON CONFLICT ({}) DO UPDATE SET {}", self.key_list(), updates.join(", "))
            }
        };
        let order = self.spellings();
        format!(
            "INSERT INTO {}{} ({}){} SELECT {}{} FROM pg_temp.{stage} s{stored}{}{conflict}{}",
            self.plan.target.sql(),
            order.alias,
            quoted_list(self.plan.columns.iter().map(|column| column.name.as_str())),
            if self.plan.overriding { " OVERRIDING SYSTEM VALUE" } else { "" },
            order.distinct,
            values.join(", "),
            order.by,
            order.guard,
        )
    }

    fn key_list(&self) -> String {
        quoted_list(self.keys().map(|column| column.name.as_str()))
    }

    /// Appends the staged rows.
    pub(super) fn append(&self, stage: &str) -> String {
        let values: Vec<String> = self.plan.columns.iter().map(staged_value).collect();
        format!(
            "INSERT INTO {} ({}){} SELECT {} FROM pg_temp.{stage} s",
            self.plan.target.sql(),
            quoted_list(self.plan.columns.iter().map(|column| column.name.as_str())),
            if self.plan.overriding { " OVERRIDING SYSTEM VALUE" } else { "" },
            values.join(", "),
        )
    }

    fn value(&self, column: &PlannedColumn) -> String {
        if column.field == self.source_columns + METADATA.len() - 1 {
            return match &column.cast {
                Some(cast) => format!("now()::{cast}"),
                None => "now()".to_owned(),
            };
        }
        staged_value(column)
    }

    fn same_key(&self) -> String {
        let terms: Vec<String> = self
            .keys()
            .map(|column| format!("t.{} = {}", quoted(&column.name), staged_value(column)))
            .collect();
        terms.join(" AND ")
    }
}

fn staged_name(column: &PlannedColumn) -> String {
    quoted(&column.name)
}

fn staged_value(column: &PlannedColumn) -> String {
    match &column.cast {
        Some(cast) => format!("s.{}::{cast}", staged_name(column)),
        None => format!("s.{}", staged_name(column)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;
    use crate::mirror::assign::Limit;
    use crate::mirror::names::TargetName;
    use crate::mirror::types::Wire;

    fn column(field: usize, name: &str, wire: Wire, cast: Option<&str>, settable: bool) -> PlannedColumn {
        let cast = cast.map(ToOwned::to_owned);
        PlannedColumn { field, name: name.to_owned(), wire, cast, limit: Limit::default(), settable }
    }

    fn plan() -> Plan {
        Plan {
            target: TargetName { schema: "public".to_owned(), table: "t".to_owned() },
            columns: vec![
                column(0, "id", Wire::Int4, None, false),
                column(1, "kind", Wire::Text, Some("public.kind"), true),
                column(2, "__cdc_operation", Wire::Text, None, true),
                column(4, "__synced_at", Wire::Timestamptz, None, true),
            ],
            key: vec![0],
            overriding: false,
        }
    }

    #[test]
    fn the_time_of_synchronisation_is_not_staged() {
        let plan = plan();
        let statements = Statements::new(&plan, 2);
        assert_eq!(
            statements.create_rows("rows_1"),
            r#"CREATE TEMP TABLE rows_1 ("id" integer, "kind" text, "__cdc_operation" text, __row integer, __absent smallint[], __origins integer[]) ON COMMIT DELETE ROWS"#
        );
        assert_eq!(
            statements.create_keys("keys_1"),
            r#"CREATE TEMP TABLE keys_1 ("id" integer) ON COMMIT DELETE ROWS"#
        );
    }

    #[test]
    fn an_upsert_without_absent_cells_does_not_read_the_target() {
        let plan = plan();
        assert_eq!(
            Statements::new(&plan, 2).upsert("rows_1", &[], None),
            "INSERT INTO \"public\".\"t\" (\"id\", \"kind\", \"__cdc_operation\", \"__synced_at\") \
             SELECT s.\"id\", s.\"kind\"::public.kind, s.\"__cdc_operation\", now() FROM pg_temp.rows_1 s \
             ON CONFLICT (\"id\") DO UPDATE SET \"kind\" = EXCLUDED.\"kind\", \
             \"__cdc_operation\" = EXCLUDED.\"__cdc_operation\", \"__synced_at\" = EXCLUDED.\"__synced_at\""
        );
    }

    #[test]
    fn a_key_of_which_several_texts_are_equal_is_set_and_deleted_by_the_letter() {
        let mut plan = plan();
        plan.columns[0] = column(0, "id", Wire::Text, Some("public.citext"), true);
        let statements = Statements::new(&plan, 2);
        let upsert = statements.upsert("rows_1", &[], None);
        assert!(upsert.contains(r#"DO UPDATE SET "id" = EXCLUDED."id", "kind""#), "{upsert}");
        plan.columns.push(column(3, "__cdc_timestamp", Wire::Timestamptz, None, true));
        let statements = Statements::new(&plan, 2);
        let upsert = statements.upsert("rows_1", &[], None);
        for part in [
            r#"INTO "public"."t" AS o ("#,
            r#"SELECT DISTINCT ON (s."id"::public.citext) s."id"::public.citext, "#,
            r#"ORDER BY s."id"::public.citext, s."__cdc_timestamp" DESC NULLS LAST, s.ctid DESC ON CONFLICT"#,
            r#" WHERE (o."id"::text = EXCLUDED."id"::text) OR (o."__cdc_timestamp" > EXCLUDED."__cdc_timestamp") IS NOT TRUE"#,
        ] {
            assert!(upsert.contains(part), "{part} is not in {upsert}");
        }
        assert_eq!(
            statements.delete("keys_1"),
            r#"DELETE FROM "public"."t" t USING pg_temp.keys_1 s WHERE t."id" = s."id"::public.citext AND t."id"::text = s."id"::public.citext::text"#
        );
    }

    #[test]
    fn absent_cells_are_fetched_from_the_stored_row() {
        let plan = plan();
        let sql = Statements::new(&plan, 2).upsert("rows_1", &[1], None);
        for part in [
            r#"CASE WHEN 1 = ANY (s.__absent) THEN t."kind" ELSE s."kind"::public.kind END"#,
            r#"LEFT JOIN "public"."t" t ON t."id" = s."id" ON CONFLICT"#,
        ] {
            assert!(sql.contains(part), "{part} is not in {sql}");
        }
    }

    #[test]
    fn without_a_key_as_many_equal_rows_go_as_are_staged_and_rows_are_inserted() {
        let mut plan = plan();
        plan.key.clear();
        let statements = Statements::new(&plan, 2);
        assert_eq!(
            statements.create_keys("keys_1"),
            r#"CREATE TEMP TABLE keys_1 ("id" integer, "kind" text) ON COMMIT DELETE ROWS"#
        );
        let sql = statements.delete_rows("keys_1");
        for part in [
            r#"SELECT ROW(s."id", s."kind"::public.kind)::text AS content, count(*) AS instances"#,
            r#"JOIN wanted w ON w.content = ROW(t."id", t."kind")::text)"#,
            "t.ctid = n.place AND n.instance <= n.instances",
        ] {
            assert!(sql.contains(part), "{part} is not in {sql}");
        }
        let insert = statements.upsert("rows_1", &[], None);
        assert!(insert.ends_with("FROM pg_temp.rows_1 s"), "{insert}");
    }

    #[test]
    fn a_truncate_deletes_all_rows_or_those_committed_before_it() {
        let mut plan = plan();
        plan.columns.push(column(3, "__cdc_timestamp", Wire::Timestamptz, None, true));
        let statements = Statements::new(&plan, 2);
        assert_eq!(statements.empty(Truncated::All), r#"DELETE FROM "public"."t""#);
        assert_eq!(
            statements.empty(Truncated::Before(-1)),
            r#"DELETE FROM "public"."t" WHERE "__cdc_timestamp" IS NULL OR "__cdc_timestamp" < ('epoch'::timestamptz + interval '-1 seconds 999999 microseconds')"#
        );
    }

    #[test]
    fn a_table_of_keys_only_has_nothing_to_update() {
        let mut plan = plan();
        plan.columns.truncate(1);
        let sql = Statements::new(&plan, 1).upsert("stage_1", &[], None);
        assert!(sql.ends_with("ON CONFLICT (\"id\") DO NOTHING"), "{sql}");
    }
}
