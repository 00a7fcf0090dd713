//! The roles of the binary: what a process does of the whole.

use std::fmt;

/// One of the things that a process can do. Each can run any number of times, on engines that processes share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Takes events over HTTP into the log.
    Ingest,
    /// Copies the log into the raw table.
    RawWriter,
    /// Follows the log into the live view.
    Speed,
    /// Carries out jobs, and every venue's night.
    Batch,
    /// Answers queries, and takes what operators ask for.
    Serve,
    /// Does what has to be done from time to time and belongs to no venue.
    Scheduler,
}

impl Role {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Ingest => "ingest",
            Role::RawWriter => "raw-writer",
            Role::Speed => "speed",
            Role::Batch => "batch",
            Role::Serve => "serve",
            Role::Scheduler => "scheduler",
        }
    }
}

/// What this process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Roles {
    /// Everything.
    All,
    /// One thing.
    One(Role),
    /// A command that has opened the stores itself: it answers to itself, and carries out jobs.
    Command,
}

impl Roles {
    pub(crate) fn has(self, role: Role) -> bool {
        match self {
            Roles::All => true,
            Roles::One(one) => one == role,
            Roles::Command => false,
        }
    }

    /// Whether the process listens for users.
    pub(crate) fn has_api(self) -> bool {
        self.has(Role::Ingest) || self.has(Role::Serve)
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Roles::All => f.write_str("dwell"),
            Roles::One(role) => write!(f, "dwell {}", role.name()),
            Roles::Command => f.write_str("this command"),
        }
    }
}
