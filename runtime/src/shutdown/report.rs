//! What a shutdown has to say at its end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Phase, ShutdownCause};

/// How the shutdown went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Why the process ends.
    pub cause: ShutdownCause,
    /// How long the whole took.
    pub elapsed: Duration,
    /// Who had not finished when its phase's time, or the total time, was up; in the order of the phases.
    pub late: Vec<LateParty>,
}

/// A party that did not finish in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateParty {
    /// The phase it was late in.
    pub phase: Phase,
    /// Its name.
    pub name: Arc<str>,
    /// Whether it finished after all before the shutdown ended.
    pub finished_later: bool,
}

impl ShutdownReport {
    /// Everyone finished in time.
    pub fn is_clean(&self) -> bool {
        self.late.is_empty()
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "shut down ({}) in {:.1} s",
            self.cause,
            self.elapsed.as_secs_f64()
        )?;
        for (index, party) in self.late.iter().enumerate() {
            formatter.write_str(if index == 0 { ", late: " } else { ", " })?;
            write!(formatter, "{} in {}", party.name, party.phase)?;
            if party.finished_later {
                formatter.write_str(" (finished later)")?;
            }
        }
        Ok(())
    }
}
