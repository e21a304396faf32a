//! The exit codes: stable, documented, and only here.

use std::process::ExitCode;

use crate::lake::LakeError;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done. `run` also ends so after SIGTERM or SIGINT, when every lane stopped at a commit.
    Success,
    /// 1: it failed while running: a lane or a table stopped with an error, a query is wrong, a check failed.
    Failure,
    /// 2: the command line or the settings are wrong; nothing was started.
    Usage,
    /// 3: something outside could not be reached: Kafka, the storage, a database, or the daemon that `status` asks.
    Unreachable,
    /// 4: a signal asked to stop, and a lane was still busy at `shutdown.deadline`. Its batch was abandoned; nothing
    /// is lost, and the next start reads it again.
    Abandoned,
}

impl Exit {
    /// Every code there is, in order.
    pub const ALL: [Self; 5] =
        [Self::Success, Self::Failure, Self::Usage, Self::Unreachable, Self::Abandoned];

    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Abandoned => 4,
        }
    }

    /// What it means, in a line of the help and of the documentation.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Success => "done; `run` also after SIGTERM or SIGINT when every lane stopped at a commit",
            Self::Failure => "failed while running: a lane or table stopped with an error, or a check failed",
            Self::Usage => "the command line or the settings are wrong; nothing was started",
            Self::Unreachable => "Kafka, the storage, a database or the daemon could not be reached",
            Self::Abandoned => {
                "a lane was still busy at `shutdown.deadline`; its batch is read again on the next start"
            }
        }
    }
}

impl From<&LakeError> for Exit {
    fn from(error: &LakeError) -> Self {
        match error {
            LakeError::Settings(_) => Self::Usage,
            LakeError::Storage { .. } => Self::Unreachable,
            LakeError::Busy { .. }
            | LakeError::Fenced { .. }
            | LakeError::Refused(_)
            | LakeError::Unreadable { .. }
            | LakeError::Late { .. }
            | LakeError::Missing { .. } => Self::Failure,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_do_not_change() {
        assert_eq!(Exit::ALL.map(Exit::code), [0, 1, 2, 3, 4]);
    }
}
