//! What people do to the lake's tables by hand: `alluvium vacuum` and `alluvium optimize`.
//!
//! Both are safe beside a running daemon, because they do what the daemon does by itself, against the same logs and by
//! the same rules.

mod optimize;
mod vacuum;

pub use self::optimize::Optimized;
pub use self::vacuum::{VacuumPlan, Vacuumed};
use super::location::{self, Location};
use super::log::Log;
use super::{LakeError, LakeOptions};

/// How far a command is, told after each step.
#[derive(Debug, Clone)]
pub struct Step {
    /// Tables done before this one, and tables in all.
    pub tables: (usize, usize),
    /// The table.
    pub table: String,
    /// Files removed of it, or put together.
    pub files: u64,
}

/// A lake open for upkeep.
#[derive(Debug)]
pub struct Upkeep {
    location: Location,
    options: LakeOptions,
}

impl Upkeep {
    /// Opens the lake of `options`.
    ///
    /// # Errors
    /// [`LakeError::Settings`] for an address or option that cannot be used.
    pub fn open(options: LakeOptions) -> Result<Self, LakeError> {
        let location = Location::open(&options.uri, &options.storage_options)?;
        Ok(Self { location, options })
    }

    fn log(&self, folder: &str) -> Result<Log, LakeError> {
        Ok(Log::new(folder, self.location.table(folder)?))
    }

    /// The folders of the named tables, or of all.
    async fn folders(&self, names: &[String]) -> Result<Vec<String>, LakeError> {
        let all = self.location.all_tables(location::depth(&self.options.layout)).await?;
        if names.is_empty() {
            return Ok(all);
        }
        let folder = |name: &String| all.iter().find(|folder| *folder == name || name_of(folder) == *name);
        names
            .iter()
            .map(|name| {
                folder(name).cloned().ok_or_else(|| {
                    let known: Vec<String> = all.iter().map(|folder| name_of(folder)).collect();
                    LakeError::Settings(format!(
                        "the lake has no table {name:?}; it has {}",
                        known.join(", ")
                    ))
                })
            })
            .collect()
    }
}

/// The name of the table in a folder.
fn name_of(folder: &str) -> String {
    folder.replace('/', ".")
}
