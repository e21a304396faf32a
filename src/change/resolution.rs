//! What becomes of a schema that a table could not follow by itself, when somebody says that it should.
//!
//! Nothing is lost here either: a value that does not fit ends the whole with its place, and whoever asked picks another
//! way. What is kept aside stays in a column of another name.

use std::sync::Arc;

use super::difference::{Difference, DifferenceKind, type_words};
use super::evolution::{SchemaStep, free_name};
use super::lineage::{Lineage, Pending};
use super::passage::{Passage, passage};
use super::{Choice, Column, ColumnType, TableSchema};

/// What is done with a column whose new type does not hold every value of its former one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resolve {
    /// The stored values are converted, each of them checked; where there is no conversion, they are kept aside.
    #[default]
    Check,
    /// The column becomes text, for what is stored and for what comes; where that cannot be, values are kept aside.
    Text,
    /// The stored values are kept in a column `<name>__old`, and the column begins anew.
    Keep,
}

impl Choice for Resolve {
    const ALL: &'static [(&'static str, Self)] =
        &[("check", Self::Check), ("text", Self::Text), ("keep", Self::Keep)];
}

/// What is done to one column, or to the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is added.
    Add(Column),
    /// Its values are converted.
    Convert {
        /// The column.
        column: String,
        /// What it is.
        from: ColumnType,
        /// What it becomes.
        to: ColumnType,
        /// Whether a value may turn out not to fit.
        checked: bool,
    },
    /// It gets another name, and one of its former name is added.
    KeepAside {
        /// The column.
        column: String,
        /// The name under which its values are kept.
        kept: String,
        /// The type of the new one.
        to: ColumnType,
    },
    /// It is gone in the source: it stays, and is null in new rows.
    Leave(String),
    /// Other columns are the key.
    Key(Vec<String>),
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Add(column) => write!(
                f,
                "add column {} ({}); null in the rows that are there",
                column.name,
                type_words(&column.column_type)
            ),
            Self::Convert { column, from, to, checked } => {
                let (from, to) = (type_words(from), type_words(to));
                let check = if *checked {
                    "each value is checked, the first that does not fit ends this and nothing is changed"
                } else {
                    "no value is lost"
                };
                write!(f, "convert column {column} from {from} to {to}; {check}")
            }
            Self::KeepAside { column, kept, to } => write!(
                f,
                "keep the values of column {column} in a column {kept}, and add {column} ({}); null in the rows that are there until \
                 they change",
                type_words(to)
            ),
            Self::Leave(column) => {
                write!(f, "leave column {column}, which is gone in the source; null in rows that change")
            }
            Self::Key(columns) => write!(
                f,
                "make ({}) the key; ends without a change where stored rows are not unique by it, and then the table has to be rebuilt",
                columns.join(", ")
            ),
        }
    }
}

/// A way to go on: what is done, and what it amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// In the order in which it is done.
    pub actions: Vec<Action>,
    /// The same for the sink.
    pub step: SchemaStep,
    /// Whether the key becomes another one.
    pub new_key: bool,
}

/// What is done about `pending` in a sink that stores `stored`.
///
/// # Errors
/// Where a column of the key would have to be kept aside: rows could not be matched any more.
pub fn resolve(
    stored: &TableSchema,
    lineage: &Lineage,
    pending: &Pending,
    how: Resolve,
) -> Result<Resolution, String> {
    let events = pending.events.schema();
    let latest = lineage.latest.as_ref().map_or_else(|| stored.clone(), super::lineage::Described::schema);
    let differs = |name: &str| {
        pending.differences.iter().any(|difference| {
            difference.column == name
                && matches!(difference.kind, DifferenceKind::Narrow | DifferenceKind::Incompatible)
        })
    };
    let mut way = Way { columns: stored.columns().to_vec(), ..Way::default() };
    for column in events.columns() {
        let Some(to) = way.columns.iter().find(|to| to.name == column.name) else {
            way.actions.push(Action::Add(column.clone()));
            way.columns.push(column.clone());
            continue;
        };
        let returns = latest.index_of(&column.name).is_none() && !lineage.is_back(&column.name);
        match conversion(to, column, differs(&column.name), how) {
            Some(becomes) if !returns => way.convert(column, becomes),
            _ if events.key_names().chain(stored.key_names()).any(|name| name == &*column.name) => {
                return Err(format!(
                    "column {} of the key was {} and is {}, and there is no conversion that keeps its values: the table has to be rebuilt",
                    column.name,
                    type_words(&to.column_type),
                    type_words(&column.column_type)
                ));
            }
            _ => way.keep_aside(column, &events),
        }
    }
    let Way { mut actions, renames, columns } = way;
    let gone = latest.columns().iter().filter(|column| events.index_of(&column.name).is_none());
    actions.extend(gone.map(|column| Action::Leave(column.name.to_string())));
    let (key, new_key) = key_of(stored, &events, &columns);
    if new_key {
        actions.push(Action::Key(events.key_names().map(str::to_owned).collect()));
    }
    let note =
        |difference: &Difference| Difference { note: Some("by hand".to_owned()), ..difference.clone() };
    let step = SchemaStep {
        stored: TableSchema::new(columns, key),
        renames,
        lineage: lineage.followed_by(pending.events.clone(), pending.place.micros),
        differences: pending.differences.iter().map(note).collect(),
    };
    Ok(Resolution { actions, step, new_key })
}

/// What is to be done about the columns, as far as they have been looked at.
#[derive(Default)]
struct Way {
    actions: Vec<Action>,
    renames: Vec<(String, String)>,
    /// The stored columns as they are then.
    columns: Vec<Column>,
}

impl Way {
    fn stored(&mut self, name: &str) -> Option<&mut Column> {
        self.columns.iter_mut().find(|column| *column.name == *name)
    }

    fn convert(&mut self, column: &Column, becomes: ColumnType) {
        let Some(stored) = self.stored(&column.name) else { return };
        stored.nullable = column.nullable;
        if becomes == stored.column_type {
            return;
        }
        let checked = !passage(&stored.column_type, &becomes).is_lossless();
        let from = std::mem::replace(&mut stored.column_type, becomes.clone());
        let column = column.name.to_string();
        self.actions.push(Action::Convert { column, from, to: becomes, checked });
    }

    fn keep_aside(&mut self, column: &Column, events: &TableSchema) {
        let kept = free_name(&self.columns, events, &column.name);
        if let Some(former) = self.stored(&column.name) {
            former.name = Arc::from(kept.as_str());
        }
        self.columns.push(column.clone());
        self.renames.push((column.name.to_string(), kept.clone()));
        let to = column.column_type.clone();
        self.actions.push(Action::KeepAside { column: column.name.to_string(), kept, to });
    }
}

/// The type that a stored column becomes; `None` where its values have to be kept aside.
fn conversion(stored: &Column, events: &Column, differs: bool, how: Resolve) -> Option<ColumnType> {
    let (from, to) = (&stored.column_type, &events.column_type);
    let (widens, fits) = (passage(from, to), passage(to, from));
    if widens.is_lossless() {
        return Some(to.clone());
    }
    // It is wider than the source's for another reason.
    if fits.is_lossless() && !differs {
        return Some(from.clone());
    }
    let text = ColumnType::Text;
    match how {
        Resolve::Keep => None,
        Resolve::Text => {
            (passage(from, &text) != Passage::None && passage(to, &text) != Passage::None).then_some(text)
        }
        Resolve::Check => (widens == Passage::Checked).then(|| to.clone()),
    }
}

/// The places of the key columns afterwards, and whether they are others.
fn key_of(stored: &TableSchema, events: &TableSchema, columns: &[Column]) -> (Vec<usize>, bool) {
    let place = |name: &str| columns.iter().position(|column| column.name.as_ref() == name);
    let mut before: Vec<&str> = stored.key_names().collect();
    let mut after: Vec<&str> = events.key_names().collect();
    let unchanged = {
        before.sort_unstable();
        after.sort_unstable();
        before == after
    };
    let names: Vec<&str> =
        if unchanged { stored.key_names().collect() } else { events.key_names().collect() };
    (names.into_iter().filter_map(place).collect(), !unchanged)
}
