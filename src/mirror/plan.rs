//! What has to be so in the target before rows of a schema can be written, decided from the catalog alone.
//!
//! A missing table is created, missing columns are added. A table made by hand is used as it is: its extra columns,
//! defaults, identities and types stay, and where its key or a type cannot work it is refused with the DDL that would
//! help. Nothing is executed here.

use super::assign::{Assignment, Limit, assignment};
use super::catalog::TargetTable;
use super::names::{self, TargetName, quoted, quoted_list};
use super::native::Available;
use super::types::{TargetType, Wire};
use crate::change::{TableSchema, raw};

/// Metadata columns of each mirrored table, with their types.
pub(super) const METADATA: [(&str, &str, Wire); 3] = [
    ("__cdc_operation", "text", Wire::Text),
    ("__cdc_timestamp", "timestamptz", Wire::Timestamptz),
    ("__synced_at", "timestamptz", Wire::Timestamptz),
];

/// A column that rows bring.
pub(super) struct Field {
    pub(super) name: String,
    pub(super) wire: Wire,
    /// The type of the column where it has to be created.
    pub(super) created: String,
    pub(super) not_null: bool,
}

/// The columns of a source table.
pub(super) fn source_fields(schema: &TableSchema, available: &Available) -> Vec<Field> {
    let columns = schema.columns().iter().map(|column| Field {
        name: column.name.to_string(),
        wire: Wire::of(&column.column_type),
        created: available.created(&column.column_type),
        not_null: false,
    });
    let metadata = METADATA.iter().map(|(name, sql, wire)| Field {
        name: (*name).to_owned(),
        wire: wire.clone(),
        created: (*sql).to_owned(),
        not_null: false,
    });
    columns.chain(metadata).collect()
}

/// The columns of the raw table, in the order of [`raw::schema`].
pub(super) fn raw_fields() -> Vec<Field> {
    let schema = raw::schema();
    let fields = schema.fields().iter().map(|field| {
        let wire = match (field.name().as_str(), field.data_type()) {
            // The type keeps the original text, unlike jsonb.
            ("key" | "before" | "after", _) => Wire::Json,
            (_, arrow::datatypes::DataType::Int32) => Wire::Int4,
            (_, arrow::datatypes::DataType::Int64) => Wire::Int8,
            (_, arrow::datatypes::DataType::Date32) => Wire::Date,
            (_, arrow::datatypes::DataType::Timestamp(..)) => Wire::Timestamptz,
            (_, arrow::datatypes::DataType::List(_)) => Wire::Array(Box::new(Wire::Text)),
            _ => Wire::Text,
        };
        let not_null = !field.is_nullable();
        Field { name: field.name().clone(), created: wire.sql().into_owned(), wire, not_null }
    });
    fields.collect()
}

/// A column as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedColumn {
    /// Index of the field.
    pub(super) field: usize,
    pub(super) name: String,
    pub(super) wire: Wire,
    pub(super) cast: Option<String>,
    pub(super) limit: Limit,
    /// Whether an update may set it: not identities that are always generated, nor key columns, but for those whose type
    /// takes several texts for equal ([`is_loose`]).
    pub(super) settable: bool,
}

/// How rows of one schema are written to one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) target: TargetName,
    /// Columns in the order of the fields; generated ones are left out.
    pub(super) columns: Vec<PlannedColumn>,
    /// Indexes into `columns`.
    pub(super) key: Vec<usize>,
    /// Whether a column generates its values unless told otherwise.
    pub(super) overriding: bool,
}

/// What stands between the catalog and writing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Ready(Plan),
    /// The schema, unless it is there, and the table.
    Create(String),
    /// This statement.
    Alter(String),
    /// A person: what is wrong and which statement would help.
    Refuse(String),
}

/// Decides what to do about a table for `fields`, whose key columns are the fields `key` (empty: rows are appended).
pub(super) fn plan(
    target: &TargetName,
    fields: &[Field],
    key: &[usize],
    found: Option<&TargetTable>,
) -> Step {
    let all_names = fields.iter().map(|field| field.name.as_str()).chain([&*target.schema, &*target.table]);
    if let Some(reason) = all_names.into_iter().find_map(names::refused) {
        return Step::Refuse(reason);
    }
    let Some(found) = found else {
        return Step::Create(create(target, fields, key));
    };
    let missing: Vec<&Field> = fields.iter().filter(|field| found.column(&field.name).is_none()).collect();
    let key_names: Vec<&str> = key.iter().filter_map(|&at| Some(fields.get(at)?.name.as_str())).collect();
    if let Some(field) = missing.iter().find(|field| key_names.contains(&field.name.as_str())) {
        return Step::Refuse(format!("table {target} has no column {}, which is in the key", field.name));
    }
    if !key.is_empty() && !found.unique.iter().any(|unique| same_columns(unique, &key_names)) {
        let list = quoted_list(key_names);
        let verb = if found.primary_key.is_empty() { "ADD PRIMARY KEY" } else { "ADD UNIQUE" };
        return Step::Refuse(format!(
            "table {target} has no primary key or unique constraint on exactly ({list}), which an upsert needs: \
             ALTER TABLE {} {verb} ({list})",
            target.sql()
        ));
    }
    if !missing.is_empty() {
        let clauses: Vec<String> = missing
            .iter()
            .map(|field| format!("ADD COLUMN IF NOT EXISTS {} {}", quoted(&field.name), field.created))
            .collect();
        return Step::Alter(format!("ALTER TABLE {} {}", target.sql(), clauses.join(", ")));
    }
    write(target, fields, &key_names, found)
}

fn create(target: &TargetName, fields: &[Field], key: &[usize]) -> String {
    let mut lines: Vec<String> = fields
        .iter()
        .map(|field| {
            let not_null = if field.not_null { " NOT NULL" } else { "" };
            format!("{} {}{not_null}", quoted(&field.name), field.created)
        })
        .collect();
    if !key.is_empty() {
        let names = key.iter().filter_map(|&at| Some(fields.get(at)?.name.as_str()));
        lines.push(format!("PRIMARY KEY ({})", quoted_list(names)));
    }
    format!("CREATE TABLE IF NOT EXISTS {} ({})", target.sql(), lines.join(", "))
}

fn write(target: &TargetName, fields: &[Field], key_names: &[&str], found: &TargetTable) -> Step {
    let mut columns = Vec::with_capacity(fields.len());
    let mut overriding = false;
    for (index, field) in fields.iter().enumerate() {
        let Some(column) = found.column(&field.name).filter(|column| !column.generated) else { continue };
        let Some(Assignment { cast, limit }) = assignment(&field.wire, &column.target_type) else {
            return Step::Refuse(type_refusal(target, &field.name, &field.created, &column.target_type));
        };
        overriding |= column.identity_always;
        columns.push(PlannedColumn {
            field: index,
            name: field.name.clone(),
            wire: field.wire.clone(),
            cast,
            limit,
            settable: !column.identity_always
                && (!key_names.contains(&field.name.as_str()) || is_loose(&column.target_type)),
        });
    }
    let mut key = Vec::with_capacity(key_names.len());
    for name in key_names {
        match columns.iter().position(|column| column.name == **name) {
            Some(at) => key.push(at),
            None => {
                return Step::Refuse(format!("column {name} of table {target} is in the key and generated"));
            }
        }
    }
    Step::Ready(Plan { target: target.clone(), columns, key, overriding })
}

/// Whether a type takes texts for equal that are different keys in Kafka. A row whose key changes from one to the other has
/// its delete and its create in different partitions, and the create may come first.
fn is_loose(target: &TargetType) -> bool {
    target.bare_name() == "citext"
}

/// A column that cannot hold the values, with the statement that would help.
pub(super) fn type_refusal(target: &TargetName, name: &str, created: &str, found: &TargetType) -> String {
    format!(
        "column {name} of table {target} is {found} and cannot hold {created} values exactly: ALTER TABLE {table} ALTER \
         COLUMN {quoted} TYPE {created}",
        found = found.name,
        table = target.sql(),
        quoted = quoted(name),
    )
}

fn same_columns(unique: &[String], key: &[&str]) -> bool {
    unique.len() == key.len() && key.iter().all(|name| unique.iter().any(|column| column == name))
}

#[cfg(test)]
mod tests {
    use super::super::catalog::TargetColumn;
    use super::super::types::oid;
    use super::*;

    fn target() -> TargetName {
        TargetName { schema: "public".to_owned(), table: "orders".to_owned() }
    }

    fn field(name: &str, wire: Wire) -> Field {
        Field { name: name.to_owned(), created: wire.sql().into_owned(), wire, not_null: false }
    }

    fn column(name: &str, oid: u32) -> TargetColumn {
        TargetColumn {
            name: name.to_owned(),
            target_type: TargetType { oid, modifier: -1, name: format!("type_{oid}"), element: None },
            nullable: true,
            identity_always: false,
            generated: false,
        }
    }

    fn table(columns: Vec<TargetColumn>, key: &[&str]) -> TargetTable {
        let key: Vec<String> = key.iter().map(|name| (*name).to_owned()).collect();
        TargetTable { columns, unique: vec![key.clone()], primary_key: key }
    }

    #[test]
    fn a_missing_table_is_created_with_its_key() {
        let step = plan(&target(), &[field("id", Wire::Int8), field("a\"b", Wire::Text)], &[0], None);
        let Step::Create(ddl) = step else { panic!("{step:?}") };
        assert_eq!(
            ddl,
            r#"CREATE TABLE IF NOT EXISTS "public"."orders" ("id" bigint, "a""b" text, PRIMARY KEY ("id"))"#
        );
    }

    #[test]
    fn missing_columns_are_added_in_one_statement() {
        let found = table(vec![column("id", oid::INT8)], &["id"]);
        let fields = [field("id", Wire::Int8), field("x", Wire::Date), field("y", Wire::Jsonb)];
        let ddl = r#"ALTER TABLE "public"."orders" ADD COLUMN IF NOT EXISTS "x" date, ADD COLUMN IF NOT EXISTS "y" jsonb"#;
        assert_eq!(plan(&target(), &fields, &[0], Some(&found)), Step::Alter(ddl.to_owned()));
    }

    #[test]
    fn a_table_whose_key_differs_is_refused_with_the_ddl_that_would_help() {
        let found = table(vec![column("id", oid::INT8), column("line", oid::INT4)], &["id"]);
        let fields = [field("id", Wire::Int8), field("line", Wire::Int4)];
        let Step::Refuse(reason) = plan(&target(), &fields, &[0, 1], Some(&found)) else {
            panic!("accepted")
        };
        assert!(reason.ends_with(r#"ALTER TABLE "public"."orders" ADD UNIQUE ("id", "line")"#), "{reason}");
    }

    #[test]
    fn a_column_that_cannot_hold_the_values_is_refused_with_the_ddl_that_would_help() {
        let found = table(vec![column("id", oid::INT8), column("price", oid::FLOAT4)], &["id"]);
        let fields = [field("id", Wire::Int8), field("price", Wire::Float8)];
        let Step::Refuse(reason) = plan(&target(), &fields, &[0], Some(&found)) else { panic!("accepted") };
        assert!(reason.ends_with(r#"ALTER COLUMN "price" TYPE double precision"#), "{reason}");
    }

    #[test]
    fn generated_columns_are_left_out_and_identities_overridden() {
        let mut id = column("id", oid::INT8);
        id.identity_always = true;
        let mut total = column("total", oid::INT8);
        total.generated = true;
        let found = table(vec![id, total, column("note", oid::VARCHAR)], &["id"]);
        let fields = [field("id", Wire::Int8), field("total", Wire::Int8), field("note", Wire::Text)];
        let Step::Ready(plan) = plan(&target(), &fields, &[0], Some(&found)) else { panic!("not ready") };
        let names: Vec<&str> = plan.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["id", "note"]);
        assert!(plan.overriding);
        assert_eq!(plan.columns[1].cast.as_deref(), Some("type_1043"));
    }

    #[test]
    fn a_name_too_long_is_refused_before_anything_is_created() {
        let long = "x".repeat(64);
        let Step::Refuse(reason) = plan(&target(), &[field(&long, Wire::Int8)], &[0], None) else {
            panic!("accepted")
        };
        assert!(reason.contains("64 bytes"), "{reason}");
    }
}
