//! One line of a check's report.

use serde::Serialize;

/// How it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, in a way that one should know of.
    Note,
    /// It works, and will hurt later.
    Warn,
    /// It does not work.
    Fail,
}

impl Level {
    /// As it is printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What a check has found. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it looks.
    pub level: Level,
    /// The section of the settings that it concerns.
    pub subject: String,
    /// The fact.
    pub message: String,
    /// The setting or statement that helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
    /// Whether it failed because nobody answered, or not to this user.
    #[serde(skip)]
    pub unreachable: bool,
}

impl Finding {
    fn new(level: Level, subject: &str, message: impl Into<String>, cure: Option<String>) -> Self {
        Self { level, subject: subject.to_owned(), message: message.into(), cure, unreachable: false }
    }

    /// It is as it should be.
    pub fn ok(subject: &str, message: impl Into<String>) -> Self {
        Self::new(Level::Ok, subject, message, None)
    }

    /// It is as it should be, and has a limit that the cure lifts.
    pub fn note(subject: &str, message: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::new(Level::Note, subject, message, Some(cure.into()))
    }

    /// It will hurt later, but for the cure.
    pub fn warn(subject: &str, message: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::new(Level::Warn, subject, message, Some(cure.into()))
    }

    /// It does not work, but for the cure.
    pub fn fail(subject: &str, message: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::new(Level::Fail, subject, message, Some(cure.into()))
    }

    /// Nobody answered, or not to this user.
    pub fn unreachable(subject: &str, message: impl Into<String>, cure: Option<String>) -> Self {
        Self { unreachable: true, ..Self::new(Level::Fail, subject, message, cure) }
    }
}
