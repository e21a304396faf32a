//! The four layers, merged: a tree of values, and for each of them the place it came from.
//!
//! Merging is the `config` crate's; the places are kept beside it, because it forgets those of the tables it merges.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use config::builder::DefaultState;
use config::{ConfigBuilder, ConfigError, File, FileFormat, Map, Source, Value, ValueKind};

use super::lines::{self, Lines, join};
use super::{Place, Problem};

/// The embedded reference: each setting with its meaning and default.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// Settings files that are looked for in the working directory, in this order.
pub const FILE_NAMES: [&str; 3] = ["alluvium.toml", "alluvium.yaml", "alluvium.yml"];

const PREFIX: &str = "ALLUVIUM__";

/// Tables whose keys are a library's option names, points included.
const OPTION_MAPS: [&str; 2] = ["kafka.properties", "lake.storage_options"];

/// What settings are read from, besides the defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The settings file: TOML, or YAML where its extension is `yaml` or `yml`.
    pub file: Option<PathBuf>,
    /// Environment variables; `ALLUVIUM__…` and those that secrets name are used.
    pub environment: BTreeMap<String, String>,
    /// `key=value`, as given to `--set`.
    pub overrides: Vec<String>,
}

impl Sources {
    /// The sources of this process: `file`, or the first of [`FILE_NAMES`] that exists; its environment; `overrides`.
    pub fn of_process(file: Option<PathBuf>, overrides: Vec<String>) -> Self {
        let found = || FILE_NAMES.iter().map(PathBuf::from).find(|path| path.exists());
        // Names and values that are not Unicode are nobody's settings.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { file: file.or_else(found), environment, overrides }
    }
}

/// Where each value came from, by its path.
#[derive(Debug, Default)]
pub(super) struct Places(BTreeMap<String, Place>);

impl Places {
    /// The place of a setting, or of what holds it.
    pub(super) fn of(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(place) = self.0.get(path) {
                return place.clone();
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = path.get(..end).unwrap_or_default(),
                None => return Place::Default,
            }
        }
    }

    /// Notes the place of a value and of all that it holds. What a replaced value held is forgotten.
    fn note(&mut self, path: &str, value: &Value, place_of: &dyn Fn(&str) -> Place) {
        if let ValueKind::Table(table) = &value.kind {
            for (key, value) in table {
                self.note(&join(path, key), value, place_of);
            }
        } else {
            self.0.retain(|held, _| {
                !held.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            });
            self.note_list(path, value, place_of);
        }
        if !path.is_empty() {
            self.0.insert(path.to_owned(), place_of(path));
        }
    }

    fn note_list(&mut self, path: &str, value: &Value, place_of: &dyn Fn(&str) -> Place) {
        if let ValueKind::Array(entries) = &value.kind {
            for (index, entry) in entries.iter().enumerate() {
                self.note(&format!("{path}[{index}]"), entry, place_of);
            }
        }
    }
}

/// The one key of a layer, below which its values lie: the `config` crate reads top-level keys as paths, in which
/// `a[999999999]` would make a list of that length.
const ROOT: &str = "settings";

/// A layer as the `config` crate takes it.
#[derive(Debug, Clone)]
struct Layer(Value);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(Map::from_iter([(ROOT.to_owned(), self.0.clone())]))
    }
}

/// The merged tree.
#[derive(Debug, Default)]
pub(super) struct Merged {
    pub(super) values: Map<String, Value>,
    pub(super) places: Places,
    pub(super) problems: Vec<Problem>,
    builder: ConfigBuilder<DefaultState>,
}

/// Merges all layers. A layer that cannot be read is a problem, and left out.
pub(super) fn merge(sources: &Sources) -> Merged {
    let mut merged = Merged::default();
    match parse(DEFAULTS, FileFormat::Toml) {
        Ok(values) => merged.add(values, &|_| Place::Default),
        Err((_, message)) => merged.problem("", Place::Default, message),
    }
    if let Some(path) = &sources.file {
        merged.add_file(path);
    }
    for (name, value) in &sources.environment {
        if let Some(key) = name.strip_prefix(PREFIX) {
            merged.add_text(&variable_path(key), value, &Place::Environment(name.clone()));
        }
    }
    for assignment in &sources.overrides {
        match assignment.split_once('=') {
            Some((key, value)) => {
                merged.add_text(&flag_path(key.trim()), value, &Place::Flag(key.trim().to_owned()));
            }
            None => merged.problem(
                "",
                Place::Flag(assignment.clone()),
                "no value: write --set section.key=value".to_owned(),
            ),
        }
    }
    match merged.builder.build_cloned().and_then(|built| built.get_table(ROOT)) {
        Ok(values) => merged.values = values,
        Err(error) => merged.problem("", Place::Default, error.to_string()),
    }
    merged
}

impl Merged {
    fn problem(&mut self, key: &str, place: Place, message: String) {
        self.problems.push(Problem { key: key.to_owned(), place, message });
    }

    fn add(&mut self, values: Map<String, Value>, place_of: &dyn Fn(&str) -> Place) {
        let root = Value::new(None, ValueKind::Table(values));
        self.places.note("", &root, place_of);
        self.builder = std::mem::take(&mut self.builder).add_source(Layer(root));
    }

    fn add_file(&mut self, path: &Path) {
        let name = path.display().to_string();
        let at = |line| Place::File { path: name.clone(), line };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                return self.problem("", at(None), format!("cannot read the settings file: {error}"));
            }
        };
        let (format, lines): (_, fn(&str) -> Lines) =
            match path.extension().and_then(|ending| ending.to_str()) {
                Some("toml") => (FileFormat::Toml, lines::of_toml),
                Some("yaml" | "yml") => (FileFormat::Yaml, lines::of_yaml),
                _ => {
                    let message = "the settings file has to end in .toml, .yaml or .yml".to_owned();
                    return self.problem("", at(None), message);
                }
            };
        match parse(&text, format) {
            Ok(values) => {
                let lines = lines(&text);
                self.add(values, &|path| at(lines.get(path).copied()));
            }
            Err((line, message)) => self.problem("", at(line), message),
        }
    }

    /// Adds one value whose type is decided by its key.
    fn add_text(&mut self, path: &[String], text: &str, place: &Place) {
        let mut value = Value::new(None, ValueKind::String(text.to_owned()));
        let Some((first, rest)) = path.split_first() else { return };
        if first == "tables" {
            let message = "[[tables]] is a list: write it in the settings file".to_owned();
            return self.problem("tables", place.clone(), message);
        }
        for key in rest.iter().rev() {
            value = Value::new(None, ValueKind::Table(Map::from_iter([(key.clone(), value)])));
        }
        self.add(Map::from_iter([(first.clone(), value)]), &|_| place.clone());
    }
}

/// Path of a setting by the part of a variable's name after the prefix.
fn variable_path(name: &str) -> Vec<String> {
    let parts: Vec<&str> = name.split("__").collect();
    let section = parts.iter().take(2).map(|part| part.to_ascii_lowercase()).collect::<Vec<_>>().join(".");
    let mut path: Vec<String> = parts.iter().map(|part| part.to_ascii_lowercase()).collect();
    if let (Some(option), Some(last)) = (parts.get(2), path.get_mut(2)) {
        match section.as_str() {
            // librdkafka's names are lower-case words with points between.
            "kafka.properties" => *last = last.replace('_', "."),
            // The object stores' names are those of environment variables.
            "lake.storage_options" => (*option).clone_into(last),
            _ => {}
        }
    }
    path
}

/// Path of a setting as written: words with points between, the rest of the key in the maps of options.
fn flag_path(key: &str) -> Vec<String> {
    for map in OPTION_MAPS {
        if let Some(option) = key.strip_prefix(map).and_then(|rest| rest.strip_prefix('.')) {
            return map.split('.').chain([option]).map(str::to_owned).collect();
        }
    }
    key.split('.').map(str::to_owned).collect()
}

/// Parses a text; the error is the line, where it is known, and what is wrong, without the text itself.
pub(super) fn parse(text: &str, format: FileFormat) -> Result<Map<String, Value>, (Option<usize>, String)> {
    File::from_str(text, format).collect().map_err(|error| {
        let text = match &error {
            ConfigError::FileParse { cause, .. } => cause.to_string(),
            other => other.to_string(),
        };
        let line = text.split_once("line ").and_then(|(_, rest)| {
            rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok())
        });
        // The lines between quote the file, which may hold secrets.
        let message = text.lines().next_back().unwrap_or_default().trim();
        (line, format!("not valid {}: {message}", if format == FileFormat::Yaml { "YAML" } else { "TOML" }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_name_settings_and_options_by_the_librarys_names() {
        for (name, path) in [
            ("KAFKA__BOOTSTRAP_SERVERS", vec!["kafka", "bootstrap_servers"]),
            ("MIRRORS__TARGET__URL", vec!["mirrors", "target", "url"]),
            ("KAFKA__PROPERTIES__SASL_PASSWORD", vec!["kafka", "properties", "sasl.password"]),
            ("LAKE__STORAGE_OPTIONS__AWS_REGION", vec!["lake", "storage_options", "AWS_REGION"]),
            ("SOURCE__URL__FILE", vec!["source", "url", "file"]),
        ] {
            assert_eq!(variable_path(name), path);
        }
    }

    #[test]
    fn flags_name_options_with_points() {
        assert_eq!(flag_path("batch.max_rows"), ["batch", "max_rows"]);
        assert_eq!(flag_path("kafka.properties.sasl.password"), ["kafka", "properties", "sasl.password"]);
    }
}
