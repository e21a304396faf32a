//! Settings: where they come from, what is wrong with them, and what they are.
//!
//! Four layers, the later wins: the embedded `defaults.toml`, the settings file (TOML or YAML), environment variables
//! `ALLUVIUM__SECTION__KEY`, and `--set key=value`. They are read as a whole or not at all: every problem is reported
//! at once with its key and its place, and nothing starts while there is one.
//!
//! The layers are merged as trees of values (`layers`), taken apart key by key (`reader`, `read`), and then checked
//! against each other (`conflicts`). Serde is not used to read: it stops at the first error.

mod column_type;
mod conflicts;
mod convert;
mod layers;
mod lines;
mod names;
mod problem;
mod read;
mod reader;
pub mod reference;
mod secret;
mod settings;
pub mod show;
mod size;
#[cfg(test)]
mod tests;

pub use column_type::TypeName;
pub use layers::{DEFAULTS, FILE_NAMES, Sources};
pub use problem::{Place, Problem, Problems};
pub use secret::{DatabaseUrl, Options, REDACTED, Secret, Shown};
pub use settings::{
    Admin, Batch, Connect, Debezium, Kafka, Lake, Mirror, OnDataLoss, Pipeline, Quarantine, Settings,
    Shutdown, Source, Table,
};
pub use size::{ByteSize, InvalidSize};

/// What the settings are read for, which decides what may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To run the pipeline, or to check that it could run: all of it is needed.
    Run,
    /// To look at its result, the lake or the running daemon: the topics may be missing.
    Look,
}

/// Reads and checks all settings. The error lists every problem.
pub fn load(sources: &Sources, purpose: Purpose) -> Result<Settings, Problems> {
    let (mut reader, root) = reader::Reader::new(layers::merge(sources), &sources.environment);
    let settings = read::settings(&mut reader, root, purpose);
    if let Some(settings) = &settings {
        conflicts::find(&mut reader, settings);
    }
    let mut problems = reader.into_problems();
    match settings {
        Some(settings) if problems.is_empty() => Ok(settings),
        _ => {
            problems.sort_by(|a, b| (&a.place, &a.key).cmp(&(&b.place, &b.key)));
            Err(Problems(problems))
        }
    }
}
