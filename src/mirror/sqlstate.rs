//! What an error of Postgres means for the batch: wait and try again, find the rows that are to blame, stop the table, or
//! stop the lane.
//!
//! A row is to blame alone for a value that does not fit, for a constraint that looks at nothing but the row, and for being
//! too large. Unique and foreign keys depend on other rows, and so on the order within the batch: the table stops.
//!
//! The SQLSTATE decides, as <https://www.postgresql.org/docs/current/errcodes-appendix.html> lists them. Messages are
//! passed on only for classes whose texts name objects but never values; a text like `invalid input syntax for type
//! integer: "…"` holds the cell.

use std::fmt::Write as _;

use tokio_postgres::error::DbError;

use super::names::TargetName;
use crate::change::{RecordErrorKind, SinkError, with_causes};

/// Why a part of a batch could not be written, by what is done about it.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Try the same batch again, later.
    Retry {
        /// Class for the metric.
        class: &'static str,
        /// What happened.
        message: String,
    },
    /// Single rows: without them the rest of the table's part can go on.
    Row {
        /// What is wrong with them.
        kind: RecordErrorKind,
        /// The same in words, without values.
        reason: String,
        /// The table that Postgres names.
        target: Option<TargetName>,
    },
    /// The table's definition, or rows of other tables: without it the rest of the batch can go on.
    Table {
        /// What is wrong, without values.
        reason: String,
        /// The table that Postgres names.
        target: Option<TargetName>,
    },
    /// No table's fault and no waiting cures it.
    Lane(String),
}

impl Trouble {
    /// Trouble outside any table's part.
    pub(super) fn into_sink_error(self) -> SinkError {
        match self {
            Self::Retry { class, message } => SinkError::Retry { class, message },
            Self::Row { reason: message, .. } | Self::Table { reason: message, .. } | Self::Lane(message) => {
                SinkError::Stop { message }
            }
        }
    }
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(database) = error.as_db_error() else {
            return Self::Retry { class: "connection", message: with_causes(&error) };
        };
        let message = describe(database);
        let target = database
            .schema()
            .zip(database.table())
            .map(|(schema, table)| TargetName { schema: schema.to_owned(), table: table.to_owned() });
        match reaction(database.code().code()) {
            Reaction::Retry(class) => Self::Retry { class, message },
            Reaction::Quarantine(kind) => Self::Row { kind, reason: message, target },
            Reaction::StopTable => Self::Table { reason: message, target },
            Reaction::StopLane => Self::Lane(message),
        }
    }
}

/// Whether a statement of the kind `… IF NOT EXISTS` may have failed because another session did the same at the same time:
/// such a statement does not see what is not committed yet, and then meets it in the catalog.
pub(super) fn lost_race(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| LOST_RACE.contains(&code.code()))
}

/// Unique violation in the catalog, duplicate schema, duplicate table, duplicate object (the type of the table's rows, which
/// is made before the table), duplicate column.
const LOST_RACE: [&str; 5] = ["23505", "42P06", "42P07", "42710", "42701"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reaction {
    Retry(&'static str),
    Quarantine(RecordErrorKind),
    StopTable,
    StopLane,
}

fn reaction(code: &str) -> Reaction {
    match code {
        "40001" | "40P01" => return Reaction::Retry("conflict"),
        "55P03" => return Reaction::Retry("lock"),
        // A statement that took too long; the latter two: a transaction that did, by a frozen process or a slow link.
        "57014" | "25P03" | "25P04" => return Reaction::Retry("timeout"),
        // A fail-over left us on a standby.
        "25006" => return Reaction::Retry("read_only"),
        // A pooler gave us another backend, without our prepared statements.
        "26000" => return Reaction::Retry("connection"),
        // Not null, and check: they look at the row alone.
        "23502" | "23514" => return Reaction::Quarantine(RecordErrorKind::ConstraintViolated),
        // An index entry or a row that no page can hold.
        "54000" => return Reaction::Quarantine(RecordErrorKind::RowTooLarge),
        _ => {}
    }
    match code.get(..2).unwrap_or_default() {
        "08" | "57" => Reaction::Retry("connection"),
        "53" => Reaction::Retry("resources"),
        "58" => Reaction::Retry("storage"),
        "22" => Reaction::Quarantine(RecordErrorKind::ValueRefused),
        // Credentials, a missing database, a damaged configuration file.
        "28" | "3D" | "F0" => Reaction::StopLane,
        _ => Reaction::StopTable,
    }
}

fn describe(error: &DbError) -> String {
    let code = error.code().code();
    let mut text = match code.get(..2).unwrap_or_default() {
        "0A" | "08" | "23" | "25" | "26" | "28" | "3D" | "3F" | "40" | "42" | "53" | "54" | "55" | "57"
        | "58" => {
            format!("{} (SQLSTATE {code})", error.message())
        }
        "22" => format!("a value does not fit: {} (SQLSTATE {code})", data_exception(code)),
        _ => format!("Postgres refused the statement (SQLSTATE {code})"),
    };
    for (what, name) in [
        ("table", error.table()),
        ("column", error.column()),
        ("type", error.datatype()),
        ("constraint", error.constraint()),
    ] {
        if let Some(name) = name {
            let _ = write!(text, ", {what} {name}");
        }
    }
    if let Some(column) = error.where_().and_then(copy_column) {
        let _ = write!(text, ", column {column}");
    }
    match code {
        "23505" => text.push_str(
            "; a unique constraint beside the key can only be kept within a batch if it is DEFERRABLE INITIALLY \
             DEFERRED, or drop it in the mirror",
        ),
        "23503" => text.push_str(
            "; foreign keys among mirrored tables need a user who may set session_replication_role, or drop them \
             in the mirror",
        ),
        _ => {}
    }
    text
}

/// The column in `COPY rows_1, line 3, column price`. Only the text form of COPY, which is not used, has the value behind
/// it; other lines of a context may hold one.
fn copy_column(context: &str) -> Option<&str> {
    let line = context.lines().find(|line| line.starts_with("COPY "))?;
    Some(line.split_once(", column ")?.1)
}

fn data_exception(code: &str) -> &'static str {
    match code {
        "22001" => "text is longer than the column allows",
        "22003" => "a number is out of the column's range",
        "22007" | "22008" => "a date or time is out of range or malformed",
        "22021" => "characters that the database's encoding lacks",
        "22P02" => "text is not a value of the column's type",
        "22P03" => "a value is not one of the column's type",
        "22P05" => "a character that the column's type cannot hold, such as \\u0000",
        "22030" | "22032" => "malformed JSON",
        _ => "data exception",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_decide_between_waiting_the_table_and_the_lane() {
        let cases = [
            ("57P01", Reaction::Retry("connection")),
            ("57P03", Reaction::Retry("connection")),
            ("08006", Reaction::Retry("connection")),
            ("53100", Reaction::Retry("resources")),
            ("40001", Reaction::Retry("conflict")),
            ("40P01", Reaction::Retry("conflict")),
            ("55P03", Reaction::Retry("lock")),
            ("57014", Reaction::Retry("timeout")),
            ("25P03", Reaction::Retry("timeout")),
            ("58030", Reaction::Retry("storage")),
            ("22001", Reaction::Quarantine(RecordErrorKind::ValueRefused)),
            ("22P05", Reaction::Quarantine(RecordErrorKind::ValueRefused)),
            ("23502", Reaction::Quarantine(RecordErrorKind::ConstraintViolated)),
            ("23514", Reaction::Quarantine(RecordErrorKind::ConstraintViolated)),
            ("54000", Reaction::Quarantine(RecordErrorKind::RowTooLarge)),
            ("23503", Reaction::StopTable),
            ("23505", Reaction::StopTable),
            ("42501", Reaction::StopTable),
            ("0A000", Reaction::StopTable),
            ("P0001", Reaction::StopTable),
            ("28P01", Reaction::StopLane),
            ("3D000", Reaction::StopLane),
        ];
        for (code, expected) in cases {
            assert_eq!(reaction(code), expected, "{code}");
        }
    }

    #[test]
    fn the_context_of_a_copy_gives_its_column() {
        let context = "JSON data, line 1: {secret\nCOPY rows_1, line 3, column price";
        assert_eq!(copy_column(context), Some("price"));
        assert_eq!(copy_column("JSON data, line 1: {secret, column x"), None);
    }
}
