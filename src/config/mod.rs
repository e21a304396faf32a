//! Settings: where they come from, what is wrong with them, and what they are.
//!
//! Four layers, the later wins: the embedded `defaults.toml`, the settings file (TOML or YAML), environment variables
//! `ALLUVIUM__SECTION__KEY`, and `--set key=value`. They are read as a whole or not at all: every problem is reported
//! at once with its key and its place, and nothing starts while there is one.

mod secret;
mod settings;
mod size;

pub use secret::{DatabaseUrl, Options, REDACTED, Secret, Shown};
pub use settings::{
    Admin, Batch, Kafka, Lake, Mirror, OnDataLoss, Pipeline, Settings, Shutdown, Source, Table,
};
pub use size::{ByteSize, InvalidSize};
