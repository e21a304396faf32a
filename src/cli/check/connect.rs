//! Settings of the connector that lose or bend values before Kafka, where no consumer can mend them.
//!
//! A setting is a hazard only where something is concerned by it: with the source at hand, columns are named, and what
//! concerns none is not said.

mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::source::{FoundColumn, FoundSource, FoundTable};
use super::{Finding, FoundTopics};
use crate::config::Settings;

/// A connector as Kafka Connect's REST interface tells it.
#[derive(Clone, PartialEq, Eq)]
pub struct FoundConnector {
    name: String,
    settings: BTreeMap<String, String>,
    /// States of the tasks that do not run.
    failed: Vec<String>,
}

/// Its settings may be secrets.
impl fmt::Debug for FoundConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FoundConnector").field("name", &self.name).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Expanded {
    info: Info,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Info {
    config: BTreeMap<String, Option<String>>,
}

#[derive(Deserialize, Default)]
struct Status {
    #[serde(default)]
    tasks: Vec<Task>,
}

#[derive(Deserialize)]
struct Task {
    state: String,
}

impl FoundConnector {
    /// Reads the answer to `GET /connectors?expand=info&expand=status`.
    pub fn all(answer: &[u8]) -> Result<Vec<Self>, String> {
        let found: BTreeMap<String, Expanded> = serde_json::from_slice(answer)
            .map_err(|error| format!("the answer is not Kafka Connect's (line {})", error.line()))?;
        let connector = |(name, expanded): (String, Expanded)| {
            let settings = expanded.info.config.into_iter().filter_map(|(key, value)| Some((key, value?)));
            let states = expanded.status.tasks.into_iter().map(|task| task.state);
            Self {
                name,
                settings: settings.collect(),
                failed: states.filter(|state| state != "RUNNING").collect(),
            }
        };
        Ok(found.into_iter().map(connector).collect())
    }

    fn get(&self, setting: &str) -> Option<&str> {
        self.settings.get(setting).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The setting, or its default.
    fn or<'a>(&'a self, setting: &str, default: &'a str) -> &'a str {
        self.get(setting).unwrap_or(default)
    }

    fn is(&self, setting: &str, value: &str) -> bool {
        self.get(setting).is_some_and(|found| found.eq_ignore_ascii_case(value))
    }

    /// Whether it writes Debezium's events to the topics that are read.
    fn is_read(&self, topics: Option<&FoundTopics>) -> bool {
        let prefix = self.get("topic.prefix").or_else(|| self.get("database.server.name"));
        let feeds = |topics: &FoundTopics| {
            prefix.is_none_or(|prefix| {
                topics
                    .topics
                    .iter()
                    .any(|topic| topic.name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')))
            })
        };
        self.or("connector.class", "").contains("io.debezium.connector")
            && !self.or("connector.class", "").contains(".jdbc.")
            && topics.is_none_or(feeds)
    }

    /// Classes of its transforms, by the names it gives them.
    fn transforms(&self) -> impl Iterator<Item = (&str, &str)> {
        self.or("transforms", "")
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(|name| (name, self.or(&format!("transforms.{name}.type"), "")))
    }
}

/// Where a connector is judged.
pub(super) struct Surroundings<'a> {
    pub(super) settings: &'a Settings,
    pub(super) topics: Option<&'a FoundTopics>,
    pub(super) source: Option<&'a FoundSource>,
}

impl Surroundings<'_> {
    /// Columns that are concerned, as `schema.table.column`; `None` where the source was not looked at.
    fn columns(&self, is: impl Fn(&FoundTable, &FoundColumn) -> bool) -> Option<Vec<String>> {
        let tables = self.source?.read(self.topics);
        let of = |table: &&FoundTable| -> Vec<String> {
            let concerned = table.columns.iter().filter(|column| is(table, column));
            concerned.map(|column| format!("{}.{}", table.sql(), column.name)).collect()
        };
        Some(tables.iter().flat_map(of).collect())
    }

    /// Those of one of these types, and of arrays of them.
    fn of_type(&self, names: &[&str]) -> Option<Vec<String>> {
        self.columns(|_, column| names.contains(&column.type_name.trim_start_matches('_')))
    }
}

/// Judges the connectors that write the topics that are read.
pub(super) fn judge(found: &[FoundConnector], around: &Surroundings<'_>) -> Vec<Finding> {
    let read: Vec<&FoundConnector> =
        found.iter().filter(|connector| connector.is_read(around.topics)).collect();
    if read.is_empty() {
        return vec![Finding::warn(
            "connect",
            "no Debezium connector here writes the topics that are read",
            "see connect.url and kafka.topics; or register the connector",
        )];
    }
    read.into_iter().flat_map(|connector| rules::judge(connector, around)).collect()
}
