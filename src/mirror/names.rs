//! Names in SQL: quoted always, qualified always, and never cut off.
//!
//! Postgres silently truncates identifiers beyond 63 bytes, so two long names could become one table. A name that
//! would be truncated is refused instead.

use std::collections::HashMap;
use std::fmt;

use crate::change::TableId;

/// Longest identifier that Postgres keeps whole, in bytes (`NAMEDATALEN - 1` of every stock build).
pub(super) const MAX_NAME_BYTES: usize = 63;

/// An identifier in double quotes.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Several identifiers in double quotes, separated by commas.
pub(super) fn quoted_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// Why Postgres could not keep this name, where it could not.
pub(super) fn refused(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("an empty name cannot be used in Postgres".to_owned());
    }
    if name.contains('\0') {
        return Some("a name with a NUL character cannot be used in Postgres".to_owned());
    }
    (name.len() > MAX_NAME_BYTES).then(|| {
        format!(
            "the name {name} has {} bytes, Postgres keeps at most {MAX_NAME_BYTES} and would cut it off",
            name.len()
        )
    })
}

/// A table of the target database.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TargetName {
    /// Schema name, unquoted.
    pub(super) schema: String,
    /// Table name, unquoted.
    pub(super) table: String,
}

impl TargetName {
    /// Where a source table goes: the schema by template (`{schema}`, `{database}`), the table by its own name.
    pub(super) fn of(template: &str, table: &TableId) -> Self {
        let schema = template.replace("{schema}", &table.schema).replace("{database}", &table.database);
        Self { schema, table: table.table.to_string() }
    }

    /// Parses `schema.table`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (schema, table) = text.split_once('.')?;
        let plain = |name: &str| refused(name).is_none() && !name.contains('.');
        (plain(schema) && plain(table)).then(|| Self { schema: schema.to_owned(), table: table.to_owned() })
    }

    /// The name as SQL.
    pub(super) fn sql(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.table))
    }
}

/// `schema.table`, for messages.
impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// Which source table each target belongs to: two of them in one would overwrite each other's rows unseen.
#[derive(Debug, Default)]
pub(super) struct Targets(HashMap<TargetName, Owner>);

#[derive(Debug)]
enum Owner {
    Raw,
    Source(TableId),
}

impl Targets {
    /// No target is taken but that of the raw rows.
    pub(super) fn new(raw: Option<&TargetName>) -> Self {
        Self(raw.map(|raw| (raw.clone(), Owner::Raw)).into_iter().collect())
    }

    /// Gives `target` to `table`.
    ///
    /// # Errors
    /// Where it is somebody else's: who has it, and the setting to change.
    pub(super) fn claim(&mut self, target: &TargetName, table: &TableId) -> Result<(), String> {
        let owner = match self.0.get(target) {
            Some(Owner::Source(owner)) if owner == table => return Ok(()),
            None => {
                self.0.insert(target.clone(), Owner::Source(table.clone()));
                return Ok(());
            }
            Some(Owner::Source(owner)) => format!("table {owner} of database {:?}", owner.database),
            Some(Owner::Raw) => "the raw rows".to_owned(),
        };
        Err(format!(
            "table {table} of database {:?} would be written to {target}, where {owner} goes: set the mirror's schema to a template \
             with {{schema}} or {{database}} that keeps them apart",
            table.database
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_within_a_name_are_doubled() {
        assert_eq!(quoted(r#"Odd "name""#), r#""Odd ""name""""#);
    }

    #[test]
    fn a_name_that_postgres_would_cut_off_is_refused() {
        assert!(refused(&"é".repeat(31)).is_none());
        assert!(refused(&"é".repeat(32)).unwrap().contains("64 bytes"));
    }

    #[test]
    fn the_schema_follows_its_template() {
        let table = TableId::new("shop", "public", "orders");
        assert_eq!(TargetName::of("{database}_{schema}", &table).sql(), r#""shop_public"."orders""#);
        assert_eq!(TargetName::of("cdc_processed", &table).to_string(), "cdc_processed.orders");
    }

    #[test]
    fn two_source_tables_do_not_share_a_target() {
        let raw = TargetName::parse("public.events").unwrap();
        let mut targets = Targets::new(Some(&raw));
        let claim = |targets: &mut Targets, schema, table| {
            let table = TableId::new("shop", schema, table);
            targets.claim(&TargetName::of("public", &table), &table)
        };
        assert_eq!(claim(&mut targets, "sales", "orders"), Ok(()));
        assert_eq!(claim(&mut targets, "sales", "orders"), Ok(()), "its own");
        let reason = claim(&mut targets, "archive", "orders").unwrap_err();
        assert!(reason.contains("table sales.orders") && reason.contains("{schema}"), "{reason}");
        assert!(claim(&mut targets, "sales", "events").unwrap_err().contains("raw rows"));
    }

    #[test]
    fn a_qualified_name_has_exactly_two_parts() {
        assert_eq!(TargetName::parse("cdc_raw.cdc_events").unwrap().to_string(), "cdc_raw.cdc_events");
        assert_eq!(["events", "a.b.c", ".b", "a."].map(TargetName::parse), [const { None }; 4]);
    }
}
