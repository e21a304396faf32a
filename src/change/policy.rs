//! What is wanted for each table, as settings say it: the declared answers to questions that events raise.
//!
//! A policy never changes what an event means, only what is done about it. Every part of the program asks the same
//! [`Policies`], so that lake and mirrors answer alike.

use std::collections::HashMap;

use serde::Serialize;

use super::TableId;

/// A setting that is one of a few words.
pub trait Choice: Copy + PartialEq + Sized + 'static {
    /// Every word with what it stands for.
    const ALL: &'static [(&'static str, Self)];
}

/// Declares an enum whose values are words of the settings.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
        pub enum $name {
            $($(#[$of])* #[serde(rename = $word)] $variant),+
        }

        impl Choice for $name {
            const ALL: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];
        }
    };
}

choice! {
    /// How changes get into a current table of the lake.
    WriteMode {
        /// Rows that change are marked as deleted in a vector beside their file and written anew: costs the batch.
        #[default]
        MergeOnRead = "merge-on-read",
        /// Files with rows that change are written anew, for readers that do not know deletion vectors: costs the files.
        CopyOnWrite = "copy-on-write",
    }
}

choice! {
    /// What the rows of a table of the lake are.
    TableMode {
        /// The source's rows as they are now.
        #[default]
        Current = "current",
        /// Every version of every row, with the time from which and up to which it was the row.
        History = "history",
    }
}

choice! {
    /// What becomes of a deleted row.
    DeleteMode {
        /// It goes.
        #[default]
        Hard = "hard",
        /// It stays with its last values, marked as deleted.
        Soft = "soft",
    }
}

choice! {
    /// What is done about a changed schema.
    SchemaChange {
        /// What loses nothing is applied; what would lose something stops the table.
        #[default]
        Evolve = "evolve",
        /// Every change stops the table until it is applied by hand.
        Halt = "halt",
        /// Columns that the table lacks are left out, columns that are gone are null; types are never changed.
        Ignore = "ignore",
    }
}

choice! {
    /// What is done about a record that cannot be decoded or applied.
    OnError {
        /// It is kept in the quarantine, and the table goes on.
        #[default]
        Quarantine = "quarantine",
        /// The table stops before it.
        Stop = "stop",
    }
}

choice! {
    /// What is done about a truncated source table.
    OnTruncate {
        /// All rows go, in every sink.
        #[default]
        Apply = "apply",
        /// Nothing; the history has it.
        Ignore = "ignore",
        /// The table stops before it.
        Stop = "stop",
    }
}

choice! {
    /// What is done with a table that has no key.
    Keyless {
        /// The whole row is its key: a delete or an update takes exactly one equal row.
        #[default]
        MatchRow = "match_row",
        /// Rows are only ever added: each create, update and snapshot row is one more.
        Append = "append",
        /// The table stops.
        Stop = "stop",
    }
}

/// Everything that is declared for one table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct TablePolicy {
    /// How changes get into its table of the lake.
    pub write: WriteMode,
    /// What the rows of its table of the lake are.
    pub mode: TableMode,
    /// What becomes of deleted rows in the lake.
    pub delete: DeleteMode,
    /// Whether its table of the lake has a change data feed.
    pub change_data_feed: bool,
    /// What is done about changes of its schema.
    pub schema_change: SchemaChange,
    /// What is done about records that cannot be decoded or applied.
    pub on_error: OnError,
    /// What is done when it is truncated.
    pub on_truncate: OnTruncate,
    /// What is done where it has no key.
    pub keyless: Keyless,
    /// Whether it takes the rows of other source tables, too. No setting of its own: it follows from `sources`.
    #[serde(skip)]
    pub several_sources: bool,
}

/// The policies of all tables.
#[derive(Debug, Clone, Default)]
pub struct Policies {
    /// For tables that `tables` does not name.
    pub defaults: TablePolicy,
    /// By `schema.table`.
    pub tables: HashMap<String, TablePolicy>,
}

impl Policies {
    /// The policy of one table.
    pub fn of(&self, table: &TableId) -> &TablePolicy {
        if self.tables.is_empty() {
            return &self.defaults;
        }
        self.tables.get(&table.to_string()).unwrap_or(&self.defaults)
    }

    /// Whether there may be a table whose bad records are quarantined.
    pub fn may_quarantine(&self) -> bool {
        let mut all = self.tables.values().chain([&self.defaults]);
        all.any(|policy| policy.on_error == OnError::Quarantine)
    }

    /// What is done about a bad record. Where it does not say its table, Debezium's usual name of a topic,
    /// `<prefix>.<schema>.<table>`, decides whether a table has a policy of its own.
    pub fn on_error(&self, table: Option<&TableId>, topic: &str) -> OnError {
        if let Some(table) = table {
            return self.of(table).on_error;
        }
        let named =
            |name: &&String| topic.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
        let own = self.tables.keys().find(named).and_then(|name| self.tables.get(name));
        own.unwrap_or(&self.defaults).on_error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_record_that_names_no_table_goes_by_its_topic() {
        let stop = TablePolicy { on_error: OnError::Stop, ..TablePolicy::default() };
        let policies = Policies {
            defaults: TablePolicy::default(),
            tables: HashMap::from([("public.orders".to_owned(), stop)]),
        };
        let orders = TableId::new("shop", "public", "orders");
        assert_eq!(policies.on_error(Some(&orders), "any"), OnError::Stop);
        assert_eq!(policies.on_error(None, "cdc.public.orders"), OnError::Stop);
        assert_eq!(policies.on_error(None, "cdc.not_public.orders"), OnError::Quarantine);
        assert_eq!(policies.on_error(None, "cdc.public.customers"), OnError::Quarantine);
    }
}
