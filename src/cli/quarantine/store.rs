//! Where records are in quarantine: the lake and each mirror.

use std::sync::Arc;

use super::{Exit, Failed};
use crate::change::SinkError;
use crate::change::quarantine::{Ledger, LedgerRecord, QuarantineRow, RecordPlace};
use crate::config::Settings;
use crate::lake::{LakeError, LakeQuarantine};
use crate::mirror::MirrorQuarantine;
use crate::service::{lake_options, mirror_options};

/// A record that was found.
pub(super) struct Found {
    pub(super) id: String,
    pub(super) lane: String,
    pub(super) place: RecordPlace,
    pub(super) record: LedgerRecord,
    /// Whether its replay was asked for and not done yet.
    pub(super) pending: bool,
}

/// The quarantine of one lane.
pub(super) enum Store {
    Lake(Box<LakeQuarantine>),
    Mirror { lane: String, quarantine: Box<MirrorQuarantine> },
}

impl From<LakeError> for Failed {
    fn from(error: LakeError) -> Self {
        Self { exit: Exit::from(&error), message: error.to_string() }
    }
}

impl Store {
    /// Opens the quarantine of each lane that the settings have, or of the one that is asked for.
    pub(super) async fn open_all(settings: &Settings, lane: Option<&str>) -> Result<Vec<Self>, Failed> {
        let wanted = |name: &str| lane.is_none_or(|lane| lane == name);
        let mut stores = Vec::new();
        if settings.lake.is_on() && wanted("lake") {
            stores.push(Self::Lake(Box::new(LakeQuarantine::open(&lake_options(settings)).await?)));
        }
        for (name, mirror) in settings.mirrors.iter().filter(|(name, _)| wanted(name)) {
            let quarantine = MirrorQuarantine::open(&mirror_options(settings, name, mirror)).await;
            let quarantine = quarantine.map_err(|error| of_mirror(name, &error))?;
            stores.push(Self::Mirror { lane: name.clone(), quarantine: Box::new(quarantine) });
        }
        if stores.is_empty() {
            let named = lane.map_or_else(String::new, |lane| format!(" named {lane:?}"));
            return Err(Failed::usage(format!("the settings have no lake or mirror{named}")));
        }
        Ok(stores)
    }

    pub(super) fn lane(&self) -> &str {
        match self {
            Self::Lake(_) => "lake",
            Self::Mirror { lane, .. } => lane,
        }
    }

    /// The state of every record, as it is now.
    pub(super) async fn look(&mut self) -> Result<Arc<Ledger>, Failed> {
        match self {
            Self::Lake(quarantine) => Ok(quarantine.look().await?),
            Self::Mirror { lane, quarantine } => {
                quarantine.look().await.map_err(|error| of_mirror(lane, &error))
            }
        }
    }

    /// A record as it came.
    pub(super) async fn record(&mut self, place: &RecordPlace) -> Result<Option<QuarantineRow>, Failed> {
        let places = std::slice::from_ref(place);
        let found = match self {
            Self::Lake(quarantine) => quarantine.records(places).await?,
            Self::Mirror { lane, quarantine } => {
                quarantine.records(places).await.map_err(|error| of_mirror(lane, &error))?
            }
        };
        Ok(found.into_iter().next())
    }

    /// Asks for replays, and says of how many records.
    pub(super) async fn request(&mut self, rows: &[QuarantineRow]) -> Result<usize, Failed> {
        match self {
            Self::Lake(quarantine) => Ok(quarantine.request(rows).await?),
            Self::Mirror { lane, quarantine } => {
                quarantine.request(rows).await.map_err(|error| of_mirror(lane, &error))
            }
        }
    }

    pub(super) async fn append(&mut self, rows: &[QuarantineRow]) -> Result<(), Failed> {
        match self {
            Self::Lake(quarantine) => Ok(quarantine.append(rows).await?),
            Self::Mirror { lane, quarantine } => {
                quarantine.append(rows).await.map_err(|error| of_mirror(lane, &error))
            }
        }
    }
}

fn of_mirror(name: &str, error: &SinkError) -> Failed {
    let exit = if matches!(error, SinkError::Retry { .. }) { Exit::Unreachable } else { Exit::Failure };
    Failed { exit, message: format!("mirror {name}: {error}") }
}
