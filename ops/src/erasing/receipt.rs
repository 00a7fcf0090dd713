//! What is kept of an erasure: counts, days, what still holds the person until when, and a keyed hash of whom.

use std::collections::BTreeMap;

use dwell_model::ids::VenueKey;
use dwell_model::time::{LocalDay, TsMs};
use dwell_storage::api::{DocumentKind, Erasure, SubjectClass, SubjectHash};
use serde::{Deserialize, Serialize};

/// A receipt. Stored as JSON: fields may be added with a default, none changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ErasureReceipt {
    /// Id of the job, and of the ledger's entry.
    pub(crate) id: String,
    /// Number of the ledger's entry.
    pub(crate) number: u64,
    pub(crate) venue: VenueKey,
    /// What was named.
    pub(crate) class: SubjectClass,
    /// Keyed hash of whom.
    pub(crate) subject: SubjectHash,
    /// Keyed hash of the sensor, where only its events were meant.
    pub(crate) sensor: Option<SubjectHash>,
    /// Event times covered, half-open.
    pub(crate) from: Option<TsMs>,
    pub(crate) until: TsMs,
    pub(crate) requested_at: TsMs,
    pub(crate) requested_by: String,
    /// When everything that can be deleted was found to be gone; `None` before.
    pub(crate) proven_at: Option<TsMs>,
    /// Days on which something was found.
    pub(crate) days: Vec<LocalDay>,
    /// Days of a device whose pseudonym key is gone: nobody can tell which of their events were its.
    pub(crate) not_findable: Vec<LocalDay>,
    /// What was removed: by place, and by day where a place has days.
    pub(crate) removed: BTreeMap<String, u64>,
    pub(crate) removed_by_day: BTreeMap<LocalDay, BTreeMap<String, u64>>,
    /// How long writers were waited for before the deletion began.
    pub(crate) waited_ms: i64,
    /// What the last scan found, by place: nothing but zeros in a proof.
    pub(crate) scan: BTreeMap<String, u64>,
    /// Database files in which the bytes of the name were looked for, and how often they stand there; `None` where
    /// that is no question (servers, a name too short to tell, a repetition that no longer knows the name).
    pub(crate) bytes_in_files: Option<BTreeMap<String, u64>>,
    /// What may hold the person still.
    pub(crate) held: Vec<Held>,
    /// Until when the erasure is carried out again each night.
    pub(crate) repeat_until: TsMs,
    /// When it was last carried out, and how often.
    pub(crate) repeated_at: Option<TsMs>,
    pub(crate) repeats: u32,
}

/// A place that may hold the person still.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) place: String,
    /// Until when; `None`: see why.
    pub(crate) until: Option<TsMs>,
    pub(crate) why: String,
}

impl DocumentKind for ErasureReceipt {
    const COLLECTION: &'static str = "erasures";
}

impl ErasureReceipt {
    /// The receipt of an erasure that has been entered into the ledger, and no more.
    pub(crate) fn begun(
        entry: &Erasure,
        class: SubjectClass,
        subject: SubjectHash,
        repeat_until: TsMs,
    ) -> Self {
        let erasure = &entry.erasure;
        Self {
            id: erasure.id.clone(),
            number: entry.number,
            venue: erasure.venue.clone(),
            class,
            subject,
            sensor: None,
            from: None,
            until: erasure.requested_at,
            requested_at: erasure.requested_at,
            requested_by: String::new(),
            proven_at: None,
            days: Vec::new(),
            not_findable: Vec::new(),
            removed: BTreeMap::new(),
            removed_by_day: BTreeMap::new(),
            waited_ms: 0,
            scan: BTreeMap::new(),
            bytes_in_files: None,
            held: Vec::new(),
            repeat_until,
            repeated_at: None,
            repeats: 0,
        }
    }

    /// The receipt of an erasure of which the ledger alone is left: nothing is proven, and who asked is not known.
    /// `None` for an entry that names nobody, such as a device without a day's key.
    pub(crate) fn of_ledger(entry: &Erasure, repeat_until: TsMs) -> Option<Self> {
        let subjects = &entry.erasure.subjects;
        let first = subjects.first()?;
        let from = subjects.iter().map(|subject| subject.from).min()?;
        Some(Self {
            sensor: first.sensor,
            from: (from > TsMs::MIN).then_some(from),
            until: subjects.iter().map(|subject| subject.until).max()?,
            requested_by: "known by the ledger only".to_owned(),
            ..Self::begun(entry, first.class, first.name, repeat_until)
        })
    }

    /// Adds what was removed of a place.
    pub(crate) fn removed(&mut self, place: &str, day: Option<LocalDay>, count: u64) {
        if count == 0 {
            return;
        }
        *self.removed.entry(place.to_owned()).or_default() += count;
        if let Some(day) = day {
            let of_day = self.removed_by_day.entry(day).or_default();
            *of_day.entry(place.to_owned()).or_default() += count;
        }
    }

    /// Whether the last scan has found nobody.
    pub(crate) fn is_clean(&self) -> bool {
        self.scan.values().all(|found| *found == 0)
    }

    /// Names a place that may hold the person still, once.
    pub(crate) fn holds(&mut self, place: &str, until: Option<TsMs>, why: &str) {
        self.held.retain(|held| held.place != place);
        self.held.push(Held {
            place: place.to_owned(),
            until,
            why: why.to_owned(),
        });
    }
}
