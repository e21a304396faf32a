//! The section `[debezium]` of the settings, compared with the connector that it describes.
//!
//! Where events carry no schema block nothing else says how a value was written, and a wrong mode reads it as another
//! value without an error: milliseconds as microseconds, a text of digits as base64. With a schema block the events say it
//! themselves, but for the form of bytes where the block has the types of the source.

use serde::Serialize;

use super::super::super::source::{FoundColumn, FoundTable, listed};
use super::super::Surroundings;
use super::Judged;
use crate::debezium::DEFAULT_PLACEHOLDER;

/// A setting of the connector, its counterpart, and the types of the source that it is about.
struct Mode {
    sent_as: &'static str,
    sent_by_default: &'static str,
    read_as: &'static str,
    expected: String,
    types: &'static [&'static str],
    /// Whether it counts in events with a schema block, too.
    with_block: bool,
}

impl Judged<'_> {
    /// Compares the section with the connector.
    pub(super) fn compared(&mut self, around: &Surroundings<'_>) {
        let of = &around.settings.debezium;
        let sent = self.connector.or("unavailable.value.placeholder", DEFAULT_PLACEHOLDER);
        if sent != of.unavailable_value_placeholder {
            self.fail(
                "unavailable.value.placeholder is not what debezium.unavailable_value_placeholder says: placeholders \
                 would be taken for values",
                "set both to the same text",
            );
        }
        let bare = self.is_bare();
        let propagated = ["column.propagate.source.type", "datatype.propagate.source.type"];
        let named = propagated.into_iter().any(|setting| self.connector.get(setting).is_some());
        let modes = [
            Mode {
                sent_as: "decimal.handling.mode",
                sent_by_default: "precise",
                read_as: "decimal_handling_mode",
                expected: word(of.decimal_handling_mode),
                types: &["numeric", "money"],
                with_block: false,
            },
            Mode {
                sent_as: "time.precision.mode",
                sent_by_default: "adaptive",
                read_as: "time_precision_mode",
                expected: word(of.time_precision_mode),
                types: &["date", "time", "timestamp"],
                with_block: false,
            },
            Mode {
                sent_as: "binary.handling.mode",
                sent_by_default: "bytes",
                read_as: "binary_handling_mode",
                expected: word(of.binary_handling_mode),
                types: &["bytea"],
                with_block: named,
            },
        ];
        for mode in modes.iter().filter(|mode| bare || mode.with_block) {
            self.compared_mode(mode, around);
        }
        let digits = self.connector.or("money.fraction.digits", "2");
        if bare && digits != "2" {
            self.fail_of(
                &format!("money.fraction.digits={digits}, and without schema block two digits are taken for granted"),
                &around.untyped(&["money"]),
                "value.converter.schemas.enable=true, or give the columns their type in [[tables]] types",
            );
        }
    }

    /// Whether events carry no schema block.
    pub(super) fn is_bare(&self) -> bool {
        self.connector.is("value.converter.schemas.enable", "false")
    }

    fn compared_mode(&mut self, mode: &Mode, around: &Surroundings<'_>) {
        let sent = self.connector.or(mode.sent_as, mode.sent_by_default);
        if sent.eq_ignore_ascii_case(&mode.expected) {
            return;
        }
        let (message, cure) = (
            format!(
                "{}={sent}, and debezium.{} is {}: values would be read as others",
                mode.sent_as, mode.read_as, mode.expected
            ),
            format!("debezium.{} = \"{}\"", mode.read_as, sent.to_ascii_lowercase()),
        );
        self.fail_of(&message, &around.untyped(mode.types), &cure);
    }

    /// Compares what the names of metadata begin with, in the transform of that name.
    pub(super) fn compared_prefixes(&mut self, transform: &str, around: &Surroundings<'_>) {
        let (connector, expected) = (self.connector, &around.settings.debezium.flattened_prefix);
        for (added, prefix) in [("add.fields", "add.fields.prefix"), ("add.headers", "add.headers.prefix")] {
            let setting = format!("transforms.{transform}.{prefix}");
            let sent = connector.or(&setting, "__");
            if connector.get(&format!("transforms.{transform}.{added}")).is_some() && sent != expected {
                self.fail(
                    format!(
                        "{setting}={sent}, and debezium.flattened_prefix is {expected}: metadata would become columns, or not be read"
                    ),
                    format!("debezium.flattened_prefix = \"{sent}\", and the same prefix for fields and headers"),
                );
            }
        }
    }

    /// Fails where columns are concerned; what only may be so is a warning.
    fn fail_of(&mut self, message: &str, columns: &Untyped, cure: &str) {
        match columns {
            Untyped::Unknown => self.fail(format!("{message} (set source.url to see which)"), cure),
            Untyped::Perhaps => {
                self.warn(format!("{message}, but for columns with types in [[tables]]"), cure);
            }
            Untyped::Columns(columns) if columns.is_empty() => {}
            Untyped::Columns(columns) => self.fail(format!("{message}: {}", listed(columns)), cure),
        }
    }
}

/// Columns for which no type is configured: these are read by the modes.
enum Untyped {
    /// The source was not looked at, and no types are configured.
    Unknown,
    /// It was not looked at either, and some columns have types.
    Perhaps,
    /// These.
    Columns(Vec<String>),
}

impl Surroundings<'_> {
    /// Those of one of these types, and of arrays of them.
    fn untyped(&self, names: &[&str]) -> Untyped {
        let tables = &self.settings.tables;
        let typed = |table: &FoundTable, column: &FoundColumn| {
            let name = format!("{}.{}", table.schema, table.name);
            tables.iter().any(|table| table.source == name && table.types.contains_key(&column.name))
        };
        let is_of = |column: &FoundColumn| names.contains(&column.type_name.trim_start_matches('_'));
        match self.columns(|table, column| is_of(column) && !typed(table, column)) {
            Some(columns) => Untyped::Columns(columns),
            None if tables.iter().any(|table| !table.types.is_empty()) => Untyped::Perhaps,
            None => Untyped::Unknown,
        }
    }
}

/// A mode as the settings write it.
fn word(mode: impl Serialize) -> String {
    serde_json::to_value(mode).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}
