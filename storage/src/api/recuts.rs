//! Recuts: a venue's days cut anew, because its time zone or day start was corrected.
//!
//! A venue's *published cut* is the calendar that the registry has of it: one value, by which every reader cuts time and
//! chooses generations. A correction does not write it. It is written down here as what is wanted, the days are computed
//! beside the published ones, and the end is one conditional write of the registry's venue.
//!
//! ```text
//! Asked ─▶ Staging (holder, until: days are staged) ─▶ Flipping (decided) ─▶ registry: the new calendar ─▶ Done
//!   │            │                                        nothing can stop it any more; whoever comes goes on
//!   └────────────┴─▶ Withdrawn (cancelled, refused)
//! ```
//!
//! A venue has one recut at a time, one document; each step is a conditional write. A newer wish takes the place of one
//! that is not decided. What was staged of each day is a document of its own ([`StagedCutDay`]).

use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, TsMs, VenueCalendar};
use serde::{Deserialize, Serialize};

use super::documents::{self, DocumentKind, Documents, Stored};
use super::{Generation, Marks, StagedDay, VenueDay, VenueDaysReader};
use crate::error::{ErrorKind, Result, StorageError};

/// The kind of the jobs that carry recuts out.
pub const JOB_KIND: &str = "recut";
/// Former cuts that are remembered: further back `as_of` is answered by the oldest of them.
const FORMER_MAX: usize = 256;

/// The recut of a venue: the one under way, or the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recut {
    /// Grows with each wish.
    pub number: u64,
    /// The job that carries it out.
    pub job: String,
    /// The cut that was published when it was asked for.
    pub from: VenueCalendar,
    /// The cut that is wanted.
    pub to: VenueCalendar,
    /// Who asked for it.
    pub asked_by: String,
    /// When.
    pub asked_at: TsMs,
    /// How far it is.
    pub phase: RecutPhase,
    /// The venue's former cuts, oldest first.
    #[serde(default)]
    pub former: Vec<FormerCut>,
}

/// How far a recut is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum RecutPhase {
    /// Nobody has begun.
    Asked,
    /// Days are being staged. Nobody else gets a lease of the venue's days until then.
    Staging {
        /// Who is at it; leases that it takes are held under names that begin with this one.
        holder: String,
        /// Until when, unless it is renewed.
        until: TsMs,
    },
    /// Decided: the new cut is, or is about to be, published. Nobody else gets a lease before all of it is.
    Flipping {
        /// When it was decided, or, after a death before the flip, when it was gone on with.
        at: TsMs,
        /// Days, since 1970, and the fences that they were staged under.
        days: Vec<(i32, Generation)>,
    },
    /// All of it is published.
    Done {
        /// When the new cut was.
        at: TsMs,
    },
    /// It will not be done.
    Withdrawn {
        /// Since when.
        at: TsMs,
        /// Why, for people.
        why: String,
    },
}

/// A cut that was published once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerCut {
    /// The cut.
    pub calendar: VenueCalendar,
    /// Until when.
    pub until: TsMs,
}

impl DocumentKind for Recut {
    const COLLECTION: &'static str = "recuts";
}

impl Recut {
    /// Whether it waits, or is being worked on.
    pub fn is_pending(&self) -> bool {
        matches!(
            self.phase,
            RecutPhase::Asked | RecutPhase::Staging { .. } | RecutPhase::Flipping { .. }
        )
    }

    /// Whether it is decided and not all of it published: nothing can stop it, and everybody else waits for its end.
    pub fn is_decided(&self) -> bool {
        matches!(self.phase, RecutPhase::Flipping { .. })
    }

    /// Whether a lease for `holder` would be in its way.
    pub fn keeps_away(&self, holder: &str, now: TsMs) -> bool {
        match &self.phase {
            RecutPhase::Staging { holder: own, until } => *until > now && !is_of(own, holder),
            RecutPhase::Flipping { .. } => !is_of(&flipping_holder(self.number), holder),
            _ => false,
        }
    }

    /// The cut that was published at an instant, where `current` is the one of now.
    pub fn cut_at(&self, current: VenueCalendar, ts: TsMs) -> VenueCalendar {
        if let Some(former) = self.former.iter().find(|former| ts < former.until) {
            return former.calendar;
        }
        match self.phase {
            RecutPhase::Flipping { at, .. } if current == self.to && ts < at => self.from,
            _ => current,
        }
    }

    fn step(&self, phase: RecutPhase) -> Self {
        Self {
            phase,
            ..self.clone()
        }
    }
}

/// The name that leases are taken under once a recut is decided: whoever goes on with it uses the same.
pub fn flipping_holder(number: u64) -> String {
    format!("recut-{number}")
}

/// Whether a lease's holder is `own`, or one of its workers.
fn is_of(own: &str, holder: &str) -> bool {
    holder
        .strip_prefix(own)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A wish for another cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The job that is to carry it out.
    pub job: String,
    /// The published cut.
    pub from: VenueCalendar,
    /// The wanted one.
    pub to: VenueCalendar,
    /// Who asks.
    pub by: String,
    /// When.
    pub at: TsMs,
}

/// What became of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// It stands, in the place of an earlier one if there was one that was not decided; its number was given now.
    New(Recut),
    /// It stood already: the same job had asked.
    Standing(Recut),
    /// A newer wish stands.
    Superseded(Recut),
    /// An earlier one is decided and not all of it published: ask again when it is.
    Flipping(Recut),
}

/// The recut of a venue.
pub async fn load(documents: &dyn Documents, venue: &VenueKey) -> Result<Option<Stored<Recut>>> {
    documents::load(documents, &venue.tenant, venue.venue.as_str()).await
}

/// Writes a wish down. Asking again for the same job changes nothing. Jobs' ids sort by time: the newer one wins.
pub async fn ask(documents: &dyn Documents, venue: &VenueKey, wish: &Wish) -> Result<Asked> {
    let mut was = None;
    let stored = documents::update::<Recut>(documents, &venue.tenant, venue.venue.as_str(), |there| {
        was = there.cloned();
        let may_replace = there
            .is_none_or(|there| there.job < wish.job && !matches!(there.phase, RecutPhase::Flipping { .. }));
        may_replace.then(|| Recut {
            number: there.map_or(0, |there| there.number) + 1,
            job: wish.job.clone(),
            from: wish.from,
            to: wish.to,
            asked_by: wish.by.clone(),
            asked_at: wish.at,
            phase: RecutPhase::Asked,
            former: there.map(|there| there.former.clone()).unwrap_or_default(),
        })
    })
    .await?;
    let Some(stands) = stored.map(|stored| stored.value) else {
        return Err(StorageError::new(
            ErrorKind::Bug,
            "a wish for a recut left nothing",
        ));
    };
    Ok(match was {
        Some(was) if was == stands && stands.job == wish.job => Asked::Standing(stands),
        Some(was) if was == stands && matches!(stands.phase, RecutPhase::Flipping { .. }) => {
            Asked::Flipping(stands)
        }
        Some(was) if was == stands => Asked::Superseded(stands),
        _ => Asked::New(stands),
    })
}

/// Begins to stage, or goes on with it, until `until`: conditional on nobody else being at it at `now`. Returns what
/// stands then.
pub async fn begin_staging(
    documents: &dyn Documents,
    venue: &VenueKey,
    number: u64,
    holder: &str,
    now: TsMs,
    until: TsMs,
) -> Result<Option<Recut>> {
    change(documents, venue, number, |there| {
        let is_free = match &there.phase {
            RecutPhase::Asked => true,
            RecutPhase::Staging { holder: own, until } => own == holder || *until <= now,
            _ => false,
        };
        is_free.then(|| {
            there.step(RecutPhase::Staging {
                holder: holder.to_owned(),
                until,
            })
        })
    })
    .await
}

/// Lets others go on with a recut that `holder` stages, or with the venue's days.
pub async fn pause_staging(
    documents: &dyn Documents,
    venue: &VenueKey,
    number: u64,
    holder: &str,
) -> Result<Option<Recut>> {
    change(documents, venue, number, |there| {
        there.is_staged_by(holder).then(|| there.step(RecutPhase::Asked))
    })
    .await
}

/// Decides that what was staged is to be published: conditional on `holder` staging it still at `now`. From then on it
/// cannot be withdrawn.
pub async fn decide(
    documents: &dyn Documents,
    venue: &VenueKey,
    number: u64,
    holder: &str,
    now: TsMs,
    days: &[(LocalDay, Generation)],
) -> Result<Option<Recut>> {
    let days: Vec<_> = days
        .iter()
        .map(|(day, fence)| (day.to_epoch_days(), *fence))
        .collect();
    change(documents, venue, number, |there| {
        let stands = matches!(&there.phase, RecutPhase::Staging { until, .. } if *until > now);
        (stands && there.is_staged_by(holder)).then(|| {
            there.step(RecutPhase::Flipping {
                at: now,
                days: days.clone(),
            })
        })
    })
    .await
}

/// Dates the decision anew, while the registry does not have the new cut yet: what was answered until now was the former
/// one.
pub async fn date_flip(
    documents: &dyn Documents,
    venue: &VenueKey,
    number: u64,
    now: TsMs,
) -> Result<Option<Recut>> {
    change(documents, venue, number, |there| match &there.phase {
        RecutPhase::Flipping { at, days } if *at < now => Some(there.step(RecutPhase::Flipping {
            at: now,
            days: days.clone(),
        })),
        _ => None,
    })
    .await
}

/// Gives a decided recut to the job `to`, as long as it is the job `from`'s, which has ended or is lost: nobody else would
/// go on with it. Returns what stands then.
pub async fn hand_over(
    documents: &dyn Documents,
    venue: &VenueKey,
    number: u64,
    from: &str,
    to: &str,
) -> Result<Option<Recut>> {
    change(documents, venue, number, |there| {
        (there.is_decided() && there.job == from).then(|| Recut {
            job: to.to_owned(),
            ..there.clone()
        })
    })
    .await
}

/// All of it is published.
pub async fn finish(documents: &dyn Documents, venue: &VenueKey, number: u64) -> Result<Option<Recut>> {
    change(documents, venue, number, |there| match there.phase {
        RecutPhase::Flipping { at, .. } => {
            let mut done = there.step(RecutPhase::Done { at });
            done.former.push(FormerCut {
                calendar: there.from,
                until: at,
            });
            let over = done.former.len().saturating_sub(FORMER_MAX);
            done.former.drain(..over);
            Some(done)
        }
        _ => None,
    })
    .await
}

/// Takes a wish back that is not decided; one that is stays.
pub async fn withdraw(
    documents: &dyn Documents,
    venue: &VenueKey,
    number: u64,
    at: TsMs,
    why: &str,
) -> Result<Option<Recut>> {
    change(documents, venue, number, |there| {
        let may = matches!(there.phase, RecutPhase::Asked | RecutPhase::Staging { .. });
        let why = why.to_owned();
        may.then(|| there.step(RecutPhase::Withdrawn { at, why }))
    })
    .await
}

impl Recut {
    /// Whether `holder` is at it.
    pub fn is_staged_by(&self, holder: &str) -> bool {
        matches!(&self.phase, RecutPhase::Staging { holder: own, .. } if own == holder)
    }
}

async fn change(
    documents: &dyn Documents,
    venue: &VenueKey,
    number: u64,
    step: impl Fn(&Recut) -> Option<Recut>,
) -> Result<Option<Recut>> {
    let id = venue.venue.as_str();
    let stored = documents::update::<Recut>(documents, &venue.tenant, id, |there| {
        step(there.filter(|there| there.number == number)?)
    });
    Ok(stored.await?.map(|stored| stored.value))
}

/// A day of the wanted cut, staged: its archive files are written and no part of the archive, its generation is kept and
/// not published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StagedCutDay {
    /// The recut's number.
    pub number: u64,
    /// Fence of the lease under which it was staged; only grows.
    pub fence: Generation,
    /// Whether a generation of that number is staged; none is of a day that has not ended.
    pub has_generation: bool,
    /// What it was made of: where that is something else now, it is staged anew.
    pub made_of: CutDayInput,
    /// Its files, each kind of which there is, or was, anything. Kept as text: their checksums are longer than the
    /// numbers of a JSON document.
    #[serde(with = "as_text")]
    pub files: Vec<StagedDay>,
}

mod as_text {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::StagedDay;

    pub(super) fn serialize<S: Serializer>(files: &[StagedDay], serializer: S) -> Result<S::Ok, S::Error> {
        let text = serde_json::to_string(files).map_err(S::Error::custom)?;
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<StagedDay>, D::Error> {
        let text = String::deserialize(deserializer)?;
        serde_json::from_str(&text).map_err(D::Error::custom)
    }
}

/// What a staged day was made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CutDayInput {
    /// Paths of the files that were read.
    pub sources: Vec<String>,
    /// Fingerprint of the layout.
    pub layout: u64,
    /// Version of the metric definitions.
    pub definitions: u32,
    /// Fingerprint of the exclusions that were known to have a part in the day.
    pub exclusions: u64,
    /// Fingerprint of all exclusions of the venue that were in force: those that were looked for.
    #[serde(default)]
    pub in_force: u64,
    /// Number of the last entry of the ledger of erasures.
    pub erasures: u64,
    /// Marks read before anything else.
    pub marks: Marks,
}

impl DocumentKind for StagedCutDay {
    const COLLECTION: &'static str = "recut-days";
}

/// The id of a day's document.
fn day_id(venue: &VenueKey, day: LocalDay) -> String {
    format!("{}/{day}", venue.venue)
}

/// What was last staged of a day.
pub async fn staged_day(
    documents: &dyn Documents,
    venue: &VenueKey,
    day: LocalDay,
) -> Result<Option<Stored<StagedCutDay>>> {
    documents::load(documents, &venue.tenant, &day_id(venue, day)).await
}

/// Writes down what was staged of a day, in place of what was before under a lower fence; returns what stands then.
pub async fn write_staged_day(
    documents: &dyn Documents,
    venue: &VenueKey,
    day: LocalDay,
    staged: &StagedCutDay,
) -> Result<Option<StagedCutDay>> {
    let id = day_id(venue, day);
    let stored = documents::update::<StagedCutDay>(documents, &venue.tenant, &id, |there| {
        there
            .is_none_or(|there| there.fence <= staged.fence)
            .then(|| staged.clone())
    });
    Ok(stored.await?.map(|stored| stored.value))
}

/// The days of a venue in a range, both ends included, each with what is published of it under a cut. Where a row's
/// published generation is of another cut, the newest one of this cut that is kept stands in for it: between the flip of
/// a venue and the last write of its rows, these are the staged ones; and a reader who has the former cut still in hand
/// finds that one's.
pub async fn list_under(
    days: &dyn VenueDaysReader,
    venue: &VenueKey,
    calendar: &VenueCalendar,
    from: LocalDay,
    to: LocalDay,
) -> Result<Vec<VenueDay>> {
    let mut rows = days.list(venue, from, to).await?;
    for row in &mut rows {
        if row
            .published
            .as_ref()
            .is_some_and(|info| info.calendar == *calendar)
        {
            continue;
        }
        // A day that had no generation may have a staged one; one that was never computed has none at all.
        if row.fence > 0 {
            let kept = days.history(venue, row.day).await?;
            row.published = kept.into_iter().find(|info| info.calendar == *calendar);
        }
    }
    Ok(rows)
}
