//! What the readiness check of the speed layer says: the sum of what its parts say.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use dwell_runtime::admin::CheckHandle;
use dwell_storage::api::Shard;

/// The check, and what the parts have said last.
#[derive(Debug)]
pub(crate) struct Health {
    check: CheckHandle,
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    /// Why a part does not do its work now.
    problems: BTreeMap<Part, String>,
    /// What is worth knowing of parts that do.
    remarks: BTreeMap<Part, String>,
}

/// A part that may have a problem of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The membership in the group that shares out the shards.
    Group,
    /// The following of a shard.
    Following(Shard),
    /// What a shard does beside it: checkpoints, looks at the registry and at what was published, rebuilds.
    Upkeep(Shard),
    /// The table of the live view.
    LiveTable,
}

impl Health {
    pub(crate) fn new(check: CheckHandle) -> Self {
        Self {
            check,
            said: Mutex::default(),
        }
    }

    /// A part has a problem, or none any more.
    pub(crate) fn report(&self, part: Part, problem: Option<String>) {
        self.update(|said| replace(&mut said.problems, part, problem));
    }

    /// A part works, but something is worth knowing of it, or not any more.
    pub(crate) fn remark(&self, part: Part, remark: Option<String>) {
        self.update(|said| replace(&mut said.remarks, part, remark));
    }

    /// A shard is no longer ours.
    pub(crate) fn forget(&self, shard: Shard) {
        self.update(|said| {
            let mut is_changed = false;
            for part in [Part::Following(shard), Part::Upkeep(shard)] {
                is_changed |= replace(&mut said.problems, part, None);
                is_changed |= replace(&mut said.remarks, part, None);
            }
            is_changed
        });
    }

    fn update(&self, change: impl FnOnce(&mut Said) -> bool) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !change(&mut said) {
            return;
        }
        if !said.problems.is_empty() {
            self.check.set_not_ok(list(&said.problems));
        } else if said.remarks.is_empty() {
            self.check.set_ok();
        } else {
            self.check.set_degraded(list(&said.remarks));
        }
    }
}

/// Sets or removes what a part says; whether that is a change.
fn replace(said: &mut BTreeMap<Part, String>, part: Part, text: Option<String>) -> bool {
    let before = match &text {
        Some(text) => said.insert(part, text.clone()),
        None => said.remove(&part),
    };
    before != text
}

fn list(said: &BTreeMap<Part, String>) -> String {
    let line = |(part, text): (&Part, &String)| match part {
        Part::Following(shard) | Part::Upkeep(shard) => format!("shard {shard}: {text}"),
        Part::Group | Part::LiveTable => text.clone(),
    };
    said.iter().map(line).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use dwell_runtime::admin::Readiness;
    use dwell_runtime::shutdown::ShutdownController;

    use super::*;

    #[test]
    fn it_is_ok_when_no_part_has_a_problem_and_names_each_that_has_one() {
        let readiness = Readiness::new(&ShutdownController::default());
        let health = Health::new(readiness.register("speed layer"));
        let said = || readiness.report().checks[0].state.clone();
        assert!(!said().ok, "nobody has said anything yet");
        health.report(Part::Group, Some("waiting for the group".into()));
        health.report(Part::Following(3), Some("starting".into()));
        assert_eq!(
            said().detail.as_deref(),
            Some("waiting for the group; shard 3: starting")
        );
        health.report(Part::Group, None);
        health.remark(Part::Following(3), Some("a gap".into()));
        assert_eq!(said().detail.as_deref(), Some("shard 3: starting"));
        health.report(Part::Following(3), None);
        assert_eq!(
            (said().ok, said().detail.as_deref()),
            (true, Some("shard 3: a gap"))
        );
        health.forget(3);
        assert_eq!((said().ok, said().detail), (true, None));
    }
}
