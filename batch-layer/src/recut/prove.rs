//! The proof: what the wanted cut's files hold is what the former cut's files held, each event in one day.
//!
//! Rows and the sum of the events' hashes are added over all days, kind by kind. A lost event, one that stands in two
//! days, and one with another payload all show in them. Files of a former cut whose days were computed one by one after
//! an earlier correction may hold an event twice, as their neighbours' do; then each former day is written once more
//! from what lies within its own bounds, to be added up and thrown away.

use std::collections::BTreeMap;

use dwell_model::event::{Checksum, Kind};
use dwell_model::time::LocalDay;
use dwell_storage::api::{ArchivedDay, Marks};

use super::stage::{Staged, Staging};
use super::{Held, busy, lease_of, release};
use crate::archive_day;
use crate::error::{Error, Result};
use crate::run::DayRun;

/// Per kind: over events, and over deliveries.
type Sums = BTreeMap<Kind, (Checksum, Checksum)>;

/// Proves it; returns how many events there are.
pub(super) async fn prove(held: &Held, staging: &Staging<'_>, staged: &Staged) -> Result<u64> {
    let files = || staged.days.values().flat_map(|day| &day.files);
    for ((day, kind), before) in &staging.known.archive {
        let is_replaced =
            files().any(|staged| (staged.day, staged.kind) == (*day, *kind) && staged.replaces == *before);
        if !is_replaced {
            return Err(busy(format!(
                "the archive of {day} was rewritten by others meanwhile"
            )));
        }
    }
    let made = sums(files().map(|staged| (staged.kind, &staged.holds)));
    let held_before = sums(
        staging
            .known
            .archive
            .iter()
            .map(|((_, kind), held)| (*kind, held)),
    );
    if made != held_before {
        let within_bounds = former_days(held, staging).await?;
        if made != within_bounds {
            return Err(Error::Recut(difference(&made, &within_bounds)));
        }
    }
    Ok(made.values().map(|(events, _)| events.rows).sum())
}

fn sums<'a>(days: impl Iterator<Item = (Kind, &'a ArchivedDay)>) -> Sums {
    let mut sums = Sums::new();
    for (kind, day) in days {
        let (events, deliveries) = sums.entry(kind).or_default();
        events.merge(day.events_checksum());
        deliveries.merge(day.deliveries);
    }
    sums.retain(|_, sums| *sums != <(Checksum, Checksum)>::default());
    sums
}

/// The former days' events within their own bounds, each written once more and thrown away.
async fn former_days(held: &Held, staging: &Staging<'_>) -> Result<Sums> {
    let mut total = Sums::new();
    let days: Vec<LocalDay> = staging.known.archive.keys().map(|(day, _)| *day).collect();
    for ((day, kind), archived) in &staging.known.archive {
        held.stop.check()?;
        let place = (0, days.len());
        let lease = lease_of(&held.layer, &held.venue, *day, &held.stop, &|_| {}, place).await?;
        let written = async {
            let run = DayRun::of_cut(
                &held.layer,
                lease.clone(),
                staging.cuts.from,
                Marks::default(),
                false,
                held.stop.clone(),
            )
            .await?;
            archive_day::replace(&run, &staging.sources(&run, *kind, vec![archived.clone()])).await
        };
        let written = written.await;
        release(&held.layer, &lease).await;
        let written = written?;
        for (kind, of_day) in sums([(*kind, &written.holds)].into_iter()) {
            let (events, deliveries) = total.entry(kind).or_default();
            events.merge(of_day.0);
            deliveries.merge(of_day.1);
        }
        archive_day::discard(&held.layer, vec![written]).await;
    }
    Ok(total)
}

fn difference(made: &Sums, held: &Sums) -> String {
    let kinds = made.keys().chain(held.keys());
    let differing = kinds.filter(|kind| made.get(kind) != held.get(kind)).map(|kind| {
        let rows = |sums: &Sums| {
            sums.get(kind)
                .map_or((0, 0), |(events, deliveries)| (events.rows, deliveries.rows))
        };
        let ((events, deliveries), (of_events, of_deliveries)) = (rows(made), rows(held));
        format!("{kind}: {events} events with {deliveries} deliveries of {of_events} with {of_deliveries}")
    });
    let mut differing: Vec<String> = differing.collect();
    differing.dedup();
    format!(
        "the new days' files are not just what the former ones held ({}); nothing was changed, and this is a defect of \
         Dwell or of the archive: dwell jobs run verify",
        differing.join("; ")
    )
}
