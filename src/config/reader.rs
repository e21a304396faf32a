//! Taking typed values out of the merged tree, one key at a time.
//!
//! Each value is converted on its own, so that one wrong value does not hide the next; what is left in a table after
//! its known keys were taken is unknown.

use std::collections::BTreeMap;

use config::{FileFormat, Map, Value, ValueKind};

use super::layers::{self, Merged, Places};
use super::lines::join;
use super::problem::closest;
use super::{Place, Problem};

/// Takes values, and keeps what is wrong with them.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    places: Places,
    problems: Vec<Problem>,
    environment: &'a BTreeMap<String, String>,
}

/// One table of settings.
#[derive(Debug)]
pub(super) struct Section {
    /// Path of the table; empty for the root.
    pub(super) path: String,
    values: Map<String, Value>,
    known: Vec<&'static str>,
    /// Whether it was something else than a table, which is noted: that its keys are missing then goes without saying.
    replaced: bool,
}

impl Section {
    fn new(path: String, values: Option<Map<String, Value>>) -> Self {
        let replaced = values.is_none();
        Self { path, values: values.unwrap_or_default(), known: Vec::new(), replaced }
    }

    /// Path of a key of this table.
    pub(super) fn key(&self, key: &str) -> String {
        join(&self.path, key)
    }
}

/// What a value is converted with.
pub(super) struct Raw<'a> {
    pub(super) value: Value,
    /// Whether it is bare text that stands for any type.
    is_text: bool,
    pub(super) environment: &'a BTreeMap<String, String>,
}

/// A type that a setting can have. The error says what is wrong, not where.
pub(super) trait FromSetting: Sized {
    fn from_setting(raw: Raw<'_>) -> Result<Self, String>;
}

impl<'a> Reader<'a> {
    /// A reader of a merged tree, and the tree's root.
    pub(super) fn new(merged: Merged, environment: &'a BTreeMap<String, String>) -> (Self, Section) {
        let Merged { values, places, problems, .. } = merged;
        (Self { places, problems, environment }, Section::new(String::new(), Some(values)))
    }

    /// Notes a problem with the setting at `path`.
    pub(super) fn problem(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(Problem {
            key: path.to_owned(),
            place: self.places.of(path),
            message: message.into(),
        });
    }

    /// Place of the setting at `path`.
    pub(super) fn place(&self, path: &str) -> Place {
        self.places.of(path)
    }

    /// The problems so far.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// Takes a value that has to be there; `None` with a problem noted.
    pub(super) fn take<T: FromSetting>(&mut self, section: &mut Section, key: &'static str) -> Option<T> {
        match self.take_optional(section, key) {
            Ok(None) if section.replaced => None,
            Ok(None) => {
                self.problem(&section.key(key), "is required");
                None
            }
            Ok(value) => value,
            Err(Noted) => None,
        }
    }

    /// Takes a value, or `default` where it is not set; `None` with a problem noted.
    pub(super) fn take_or<T: FromSetting>(
        &mut self,
        section: &mut Section,
        key: &'static str,
        default: T,
    ) -> Option<T> {
        self.take_optional(section, key).ok().map(|value| value.unwrap_or(default))
    }

    fn take_optional<T: FromSetting>(
        &mut self,
        section: &mut Section,
        key: &'static str,
    ) -> Result<Option<T>, Noted> {
        section.known.push(key);
        let Some(value) = section.values.remove(key) else { return Ok(None) };
        let path = section.key(key);
        T::from_setting(self.raw(&path, value)).map(Some).map_err(|message| {
            self.problem(&path, message);
            Noted
        })
    }

    /// Takes a table; an empty one where it is not set or not a table, which is then noted.
    pub(super) fn section(&mut self, parent: &mut Section, key: &'static str) -> Section {
        parent.known.push(key);
        let path = parent.key(key);
        let values = match parent.values.remove(key) {
            Some(value) => self.table(&path, value),
            None => Some(Map::new()),
        };
        Section::new(path, values)
    }

    /// Takes a table of tables, by name.
    pub(super) fn named_sections(
        &mut self,
        parent: &mut Section,
        key: &'static str,
    ) -> Vec<(String, Section)> {
        let outer = self.section(parent, key);
        let mut named: Vec<(String, Section)> = Vec::new();
        for (name, value) in outer.values {
            let path = join(&outer.path, &name);
            let values = self.table(&path, value);
            named.push((name, Section::new(path, values)));
        }
        named.sort_by(|(a, _), (b, _)| a.cmp(b));
        named
    }

    /// Takes a list of tables.
    pub(super) fn list(&mut self, parent: &mut Section, key: &'static str) -> Vec<Section> {
        parent.known.push(key);
        let outer = parent.key(key);
        match parent.values.remove(key).map(|value| value.kind) {
            None => Vec::new(),
            Some(ValueKind::Array(entries)) => entries
                .into_iter()
                .enumerate()
                .map(|(index, value)| {
                    let path = format!("{outer}[{index}]");
                    let values = self.table(&path, value);
                    Section::new(path, values)
                })
                .collect(),
            Some(other) => {
                self.problem(&outer, format!("expected a list of tables, found {}", kind(&other)));
                Vec::new()
            }
        }
    }

    /// Takes a map whose keys are anybody's, and converts each value on its own; `None` with a problem noted.
    pub(super) fn map<T>(
        &mut self,
        section: &mut Section,
        key: &'static str,
        convert: impl Fn(&str, Raw<'_>) -> Result<T, String>,
    ) -> Option<BTreeMap<String, T>> {
        section.known.push(key);
        let outer = section.key(key);
        let Some(value) = section.values.remove(key) else { return Some(BTreeMap::new()) };
        let table = match self.raw(&outer, value).structured() {
            Ok(raw) => self.table(&outer, raw.value)?,
            Err(message) => {
                self.problem(&outer, message);
                return None;
            }
        };
        let before = self.problems.len();
        let mut map = BTreeMap::new();
        for (name, value) in table {
            let path = join(&outer, &name);
            match convert(&name, self.raw(&path, value)) {
                Ok(value) => drop(map.insert(name, value)),
                Err(message) => self.problem(&path, message),
            }
        }
        (self.problems.len() == before).then_some(map)
    }

    fn raw(&self, path: &str, value: Value) -> Raw<'a> {
        Raw { value, is_text: self.places.of(path).is_text(), environment: self.environment }
    }

    fn table(&mut self, path: &str, value: Value) -> Option<Map<String, Value>> {
        match value.kind {
            ValueKind::Table(values) => Some(values),
            // `[section]` without keys in YAML.
            ValueKind::Nil => Some(Map::new()),
            other => {
                self.problem(path, format!("expected a table, found {}", kind(&other)));
                None
            }
        }
    }

    /// Notes what is left in a table as unknown.
    pub(super) fn finish(&mut self, section: &Section) {
        for key in section.values.keys() {
            let hint = match closest(key, &section.known) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("known are {}", section.known.join(", ")),
            };
            self.problem(&section.key(key), format!("unknown key; {hint}"));
        }
    }
}

/// A problem was noted.
struct Noted;

impl<'a> Raw<'a> {
    /// A part of this value.
    fn part(&self, value: Value) -> Raw<'a> {
        Raw { value, is_text: self.is_text, environment: self.environment }
    }

    /// Bare text that is written as a TOML list or table becomes one.
    pub(super) fn structured(mut self) -> Result<Self, String> {
        if let ValueKind::String(text) = &self.value.kind
            && self.is_text
            && text.trim_start().starts_with(['[', '{'])
        {
            let parsed = layers::parse(&format!("value = {text}"), FileFormat::Toml);
            let mut table = parsed.map_err(|(_, message)| message)?;
            self.value = table.remove("value").unwrap_or(self.value);
            self.is_text = false;
        }
        Ok(self)
    }

    /// The value's text, where it is one.
    pub(super) fn text(self, expected: &str) -> Result<String, String> {
        match self.value.kind {
            ValueKind::String(text) => Ok(text),
            other => Err(format!("expected {expected}, found {}", kind(&other))),
        }
    }
}

/// What a value is, without the value: it may be a secret in the wrong place.
pub(super) fn kind(value: &ValueKind) -> &'static str {
    match value {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "a boolean",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "a number",
        ValueKind::Float(_) => "a fraction",
        ValueKind::String(_) => "a text",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
    }
}

impl FromSetting for String {
    fn from_setting(raw: Raw<'_>) -> Result<Self, String> {
        raw.text("a text")
    }
}

impl FromSetting for bool {
    fn from_setting(raw: Raw<'_>) -> Result<Self, String> {
        match &raw.value.kind {
            ValueKind::Boolean(value) => Ok(*value),
            ValueKind::String(text) if raw.is_text && text.trim() == "true" => Ok(true),
            ValueKind::String(text) if raw.is_text && text.trim() == "false" => Ok(false),
            other => Err(format!("expected true or false, found {}", kind(other))),
        }
    }
}

impl FromSetting for u64 {
    fn from_setting(raw: Raw<'_>) -> Result<Self, String> {
        let number = match &raw.value.kind {
            ValueKind::I64(number) => u64::try_from(*number).ok(),
            ValueKind::U64(number) => Some(*number),
            ValueKind::String(text) if raw.is_text => text.trim().parse().ok(),
            other => return Err(format!("expected a whole number, found {}", kind(other))),
        };
        number.ok_or_else(|| "expected a whole number that is not negative".to_owned())
    }
}

impl FromSetting for Vec<String> {
    fn from_setting(raw: Raw<'_>) -> Result<Self, String> {
        const EXPECTED: &str = "a list of texts";
        let raw = raw.structured()?;
        match &raw.value.kind {
            ValueKind::Array(entries) => {
                entries.iter().map(|entry| raw.part(entry.clone()).text(EXPECTED)).collect()
            }
            ValueKind::String(text) if raw.is_text => {
                Ok(text.split(',').map(|entry| entry.trim().to_owned()).filter(|e| !e.is_empty()).collect())
            }
            other => Err(format!("expected {EXPECTED}, found {}", kind(other))),
        }
    }
}
