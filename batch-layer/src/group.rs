//! Days of one venue worked on together: each under its own lease, archived in one commit, computed in order.
//!
//! The order matters because a day's counters start from what the day before hands on. A day that fails or loses its
//! lease leaves the others alone.

use dwell_model::ids::VenueKey;
use dwell_runtime::failpoints::{self, Injected};
use dwell_storage::api::{Committed, StagedDay};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::layer::BatchLayer;
use crate::lease::while_renewing;
use crate::report::DayReport;
use crate::run::{Begun, DayRequest, DayRun};
use crate::{archive_day, metrics};

/// How often a day whose archive was rewritten by others is written anew.
const REWRITES_MAX: u32 = 5;

impl BatchLayer {
    /// Works on days of one venue, which should ascend, and reports on each, in the order given. Their archive files
    /// go into one commit, so a group should stay small (see `group_days`): nothing of it is published before.
    pub async fn run_group(
        &self,
        venue: &VenueKey,
        requests: Vec<DayRequest>,
        cancel: &CancellationToken,
    ) -> Vec<DayReport> {
        let mut slots = Vec::with_capacity(requests.len());
        for request in requests {
            slots.push(Slot::begin(self, venue, request, cancel).await);
        }
        let leases = slots.iter().filter_map(|slot| slot.run.as_ref());
        let leases = leases.map(|run| (run.lease.clone(), run.stop.clone())).collect();
        while_renewing(self, leases, work(self, &mut slots)).await;
        let reports: Vec<DayReport> = slots.into_iter().filter_map(|slot| slot.report).collect();
        reports.iter().for_each(metrics::day_done);
        reports
    }
}

/// A day of the group: being worked on, or reported on.
struct Slot {
    run: Option<Box<DayRun>>,
    report: Option<DayReport>,
}

impl Slot {
    async fn begin(
        layer: &BatchLayer,
        venue: &VenueKey,
        request: DayRequest,
        cancel: &CancellationToken,
    ) -> Self {
        let (day, what) = (request.day, request.what());
        match DayRun::begin(layer, venue, request, cancel).await {
            Ok(Begun::Run(run)) => Self {
                run: Some(run),
                report: None,
            },
            Ok(Begun::Skip(report)) => Self {
                run: None,
                report: Some(report),
            },
            Err(error) => {
                tracing::warn!(%venue, %day, %error, "day not begun");
                let report = DayReport::of_failure(venue, day, what, &error);
                Self {
                    run: None,
                    report: Some(report),
                }
            }
        }
    }

    /// Ends the day with what became of it.
    async fn end(&mut self, layer: &BatchLayer, result: Result<DayReport>) {
        let Some(run) = self.run.take() else { return };
        self.report = Some(match result {
            Ok(report) => {
                run.release(layer).await;
                report
            }
            Err(error) => {
                tracing::warn!(venue = %run.venue, day = %run.request.day, %error, "day not done");
                run.end(layer, &error).await;
                run.failed_report(&error)
            }
        });
    }
}

async fn work(layer: &BatchLayer, slots: &mut [Slot]) {
    archive(layer, slots).await;
    for slot in slots.iter_mut() {
        let Some(run) = slot.run.as_mut() else { continue };
        let result = if run.request.archive_only {
            Ok(run.archived_report())
        } else {
            run.compute(layer).await
        };
        slot.end(layer, result).await;
    }
}

/// Brings the archive of all days up to date, as far as they are closed.
async fn archive(layer: &BatchLayer, slots: &mut [Slot]) {
    // What is left to be written; at first everything, then what others rewrote in the meantime.
    let mut left: Vec<usize> = (0..slots.len())
        .filter(|&slot| slots[slot].run.is_some())
        .collect();
    for attempt in 0..REWRITES_MAX {
        let mut staged: Vec<StagedDay> = Vec::new();
        let mut owners: Vec<usize> = Vec::new();
        for slot in std::mem::take(&mut left) {
            match stage(layer, &mut slots[slot], attempt > 0).await {
                Ok(of_day) => {
                    owners.extend(of_day.iter().map(|_| slot));
                    staged.extend(of_day);
                }
                Err(error) => slots[slot].end(layer, Err(error)).await,
            }
        }
        if staged.is_empty() {
            return;
        }
        if let Err(error) = failpoints::hit("batch.before_archive") {
            return end_all(layer, slots, &error).await;
        }
        let committed = match archive_day::commit(layer, staged.clone()).await {
            Ok(committed) => committed,
            Err(error) => {
                let error = error.to_string();
                owners.dedup();
                for slot in owners {
                    let failed = Error::ArchiveCommit(error.clone());
                    slots[slot].end(layer, Err(failed)).await;
                }
                // The outcome may be unknown, so the files stay: the next run finds them committed, or vacuum takes
                // them.
                return;
            }
        };
        let mut stale = Vec::new();
        for ((day, owner), committed) in staged.into_iter().zip(owners).zip(committed) {
            match committed {
                Committed::Yes => {
                    if let Some(run) = slots[owner].run.as_mut() {
                        run.archived.insert(day.kind, day.holds);
                    }
                }
                Committed::Stale => {
                    stale.push(day);
                    if left.last() != Some(&owner) {
                        left.push(owner);
                    }
                }
            }
        }
        archive_day::discard(layer, stale).await;
        if let Err(error) = failpoints::hit("batch.after_archive") {
            return end_all(layer, slots, &error).await;
        }
        if left.is_empty() {
            return;
        }
    }
    for slot in left {
        slots[slot].end(layer, Err(Error::Contended(REWRITES_MAX))).await;
    }
}

/// Writes one day beside the archive, or settles what the archive holds of it.
async fn stage(layer: &BatchLayer, slot: &mut Slot, again: bool) -> Result<Vec<StagedDay>> {
    let Some(run) = slot.run.as_mut() else {
        return Ok(Vec::new());
    };
    run.stop.check()?;
    if again {
        // Either the files had changed or the fence was lost: a worker without it must not go on writing.
        run.check_fence(layer).await?;
    }
    run.read_marks(layer).await?;
    if run.open || !run.may_have_new_rows() {
        run.archived = archive_day::look_up(layer, run).await?;
        return Ok(Vec::new());
    }
    let kinds = archive_day::stage(layer, run).await?;
    run.archived = kinds.settled;
    run.archived.retain(|_, held| !held.is_empty());
    Ok(kinds.staged)
}

/// An injected failure of the group's common work is one of each day.
async fn end_all(layer: &BatchLayer, slots: &mut [Slot], error: &Injected) {
    for slot in slots {
        slot.end(layer, Err(Error::Injected(error.clone()))).await;
    }
}
