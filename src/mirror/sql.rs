//! The statements that take staged rows into a table.
//!
//! They are sent as text each time and never prepared: a prepared statement without parameters keeps the plan of its
//! first run, which, made for a table of ten rows, would scan one of ten million.

use super::names::{quoted, quoted_list};
use super::plan::{METADATA, Plan, PlannedColumn};

/// The staged column that lists the absent columns of a row by number.
const ABSENT: &str = "__absent";

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

    /// The staging table for rows.
    pub(super) fn create_rows(&self, stage: &str) -> String {
        let mut columns: Vec<String> =
            self.staged().map(|column| format!("{} {}", staged_name(column), column.wire.sql())).collect();
        columns.push(format!("{ABSENT} smallint[]"));
        format!("CREATE TEMP TABLE {stage} ({}) ON COMMIT DELETE ROWS", columns.join(", "))
    }

    /// The staging table for the keys of deleted rows.
    pub(super) fn create_keys(&self, stage: &str) -> String {
        let columns: Vec<String> =
            self.keys().map(|column| format!("{} {}", staged_name(column), column.wire.sql())).collect();
        format!("CREATE TEMP TABLE {stage} ({}) ON COMMIT DELETE ROWS", columns.join(", "))
    }

    /// Removes the rows whose keys are staged.
    pub(super) fn delete(&self, stage: &str) -> String {
        format!("DELETE FROM {} t USING pg_temp.{stage} s WHERE {}", self.plan.target.sql(), self.same_key())
    }

    /// Inserts or updates from the staged rows. The fields in `absent` keep the stored value where a row says so.
    pub(super) fn upsert(&self, stage: &str, absent: &[i16]) -> String {
        let values: Vec<String> = self
            .plan
            .columns
            .iter()
            .map(|column| {
                let value = self.value(column);
                match i16::try_from(column.field) {
                    Ok(field) if absent.contains(&field) => format!(
                        "CASE WHEN {field} = ANY (s.{ABSENT}) THEN t.{} ELSE {value} END",
                        quoted(&column.name)
                    ),
                    _ => value,
                }
            })
            .collect();
        // Only the stored row knows the absent values, and ON CONFLICT sees no column of the staging table that the
        // target lacks, so the values are fetched before the conflict.
        let stored = if absent.is_empty() {
            String::new()
        } else {
            format!(" LEFT JOIN {} t ON {}", self.plan.target.sql(), self.same_key())
        };
        let updates: Vec<String> = self
            .plan
            .columns
            .iter()
            .filter(|column| column.settable)
            .map(|column| format!("{0} = EXCLUDED.{0}", quoted(&column.name)))
            .collect();
        let action = if updates.is_empty() {
            "NOTHING".to_owned()
        } else {
            format!("UPDATE SET {}", updates.join(", "))
        };
        format!(
            "INSERT INTO {} ({}){} SELECT {} FROM pg_temp.{stage} s{stored} ON CONFLICT ({}) DO {action}",
            self.plan.target.sql(),
            quoted_list(self.plan.columns.iter().map(|column| column.name.as_str())),
            if self.plan.overriding { " OVERRIDING SYSTEM VALUE" } else { "" },
            values.join(", "),
            quoted_list(self.keys().map(|column| column.name.as_str())),
        )
    }

    /// Counts the staged absent cells whose row is not stored.
    pub(super) fn count_unresolved(&self, stage: &str) -> String {
        format!(
            "SELECT coalesce(sum(cardinality(s.{ABSENT})), 0) FROM pg_temp.{stage} s WHERE s.{ABSENT} IS NOT NULL \
             AND NOT EXISTS (SELECT FROM {} t WHERE {})",
            self.plan.target.sql(),
            self.same_key()
        )
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
    use super::super::assign::Limit;
    use super::super::names::TargetName;
    use super::super::types::Wire;
    use super::*;

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
            r#"CREATE TEMP TABLE rows_1 ("id" integer, "kind" text, "__cdc_operation" text, __absent smallint[]) ON COMMIT DELETE ROWS"#
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
            Statements::new(&plan, 2).upsert("rows_1", &[]),
            "INSERT INTO \"public\".\"t\" (\"id\", \"kind\", \"__cdc_operation\", \"__synced_at\") \
             SELECT s.\"id\", s.\"kind\"::public.kind, s.\"__cdc_operation\", now() FROM pg_temp.rows_1 s \
             ON CONFLICT (\"id\") DO UPDATE SET \"kind\" = EXCLUDED.\"kind\", \
             \"__cdc_operation\" = EXCLUDED.\"__cdc_operation\", \"__synced_at\" = EXCLUDED.\"__synced_at\""
        );
    }

    #[test]
    fn absent_cells_are_fetched_from_the_stored_row() {
        let plan = plan();
        let sql = Statements::new(&plan, 2).upsert("rows_1", &[1]);
        for part in [
            r#"CASE WHEN 1 = ANY (s.__absent) THEN t."kind" ELSE s."kind"::public.kind END"#,
            r#"LEFT JOIN "public"."t" t ON t."id" = s."id" ON CONFLICT"#,
        ] {
            assert!(sql.contains(part), "{part} is not in {sql}");
        }
    }

    #[test]
    fn a_table_of_keys_only_has_nothing_to_update() {
        let mut plan = plan();
        plan.columns.truncate(1);
        let sql = Statements::new(&plan, 1).upsert("stage_1", &[]);
        assert!(sql.ends_with("ON CONFLICT (\"id\") DO NOTHING"), "{sql}");
    }
}
