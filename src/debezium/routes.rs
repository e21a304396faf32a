//! Which table a row goes to, where that is not the one of its source.
//!
//! A row belongs to the table that its event names, whatever topic it comes from. The partitions of a partitioned table
//! are tables of their own in the events (unless the publication says `publish_via_partition_root`), so a setting may
//! send several source tables into one. What comes of their topics having no order among each other is the sinks'
//! business ([`sources`](crate::change::sources)).

use std::collections::HashMap;

use regex::Regex;

use crate::change::TableId;

/// Settings of which source tables go into which table.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    /// By full name `schema.table`, the schema and table to go to.
    names: HashMap<String, (String, String)>,
    patterns: Vec<(Regex, (String, String))>,
}

/// A route that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The expression is none.
    #[error("{0}")]
    Expression(String),
    /// The table to go to.
    #[error("`{0}` is not a table: write schema.table")]
    Target(String),
}

impl Routes {
    /// Sends the rows of `from`, a name `schema.table` or a regular expression that begins with `^`, into `target`.
    ///
    /// # Errors
    /// Where either cannot be read.
    pub fn add(&mut self, from: &str, target: &str) -> Result<(), RouteError> {
        let (schema, table) = target.split_once('.').ok_or_else(|| RouteError::Target(target.to_owned()))?;
        let target = (schema.to_owned(), table.to_owned());
        if from.starts_with('^') {
            let expression = Regex::new(from).map_err(|error| RouteError::Expression(error.to_string()))?;
            self.patterns.push((expression, target));
        } else {
            self.names.insert(from.to_owned(), target);
        }
        Ok(())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.patterns.is_empty()
    }

    /// Whether `table` may take rows of other tables of the source.
    pub(super) fn leads_to(&self, table: &TableId) -> bool {
        let is = |(schema, name): &(String, String)| *schema == *table.schema && *name == *table.table;
        self.names.values().any(is) || self.patterns.iter().any(|(_, target)| is(target))
    }

    /// The table that rows of `source` go to; `None` where it is `source` itself.
    pub(super) fn of(&self, source: &TableId) -> Option<TableId> {
        if self.is_empty() {
            return None;
        }
        let name = source.to_string();
        let pattern = || self.patterns.iter().find(|(expression, _)| expression.is_match(&name));
        let (schema, table) = self.names.get(&name).or_else(|| pattern().map(|(_, target)| target))?;
        let target = TableId::new(&source.database, schema, table);
        (target != *source).then_some(target)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn partitions_go_to_their_table_and_others_to_their_own() {
        let mut routes = Routes::default();
        routes.add("^public\\.orders_p\\d+$", "public.orders").unwrap();
        routes.add("old.orders", "public.orders").unwrap();
        let of = |schema, table| routes.of(&TableId::new("db", schema, table)).map(|to| to.to_string());
        assert_eq!(of("public", "orders_p7").as_deref(), Some("public.orders"));
        assert_eq!(of("old", "orders").as_deref(), Some("public.orders"));
        assert_eq!(of("public", "orders"), None);
        assert_eq!(of("public", "orders_px"), None);
        assert!(routes.add("^(", "public.orders").is_err());
        assert_eq!(routes.add("a.b", "orders"), Err(RouteError::Target("orders".to_owned())));
    }
}
