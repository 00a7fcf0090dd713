//! `replay` and `drop-refused`: try to take refused events again, through a mapping where they need mending; or decide
//! that they are rubbish.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use async_trait::async_trait;
use dwell_batch_layer::spec::Venues;
use dwell_ingest::decode::DecodeRules;
use dwell_ingest::quarantine::{Mapping, Replayed};
use dwell_ingest::sources::files::MappingSpec;
use dwell_model::ids::{Receipt, TenantId, VenueId};
use dwell_model::time::parse_ts;
use dwell_serving_api::{DeclaredJob, JobRefusal, JobRequest};
use dwell_storage::api::{Job, JobState, QuarantineEntry, QuarantineFilter, QuarantineState};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::days::venues_of;
use super::kinds::{JobKind, Outcome};
use super::{JobWorker, Progress};

/// Entries worked on at a time: more than one message has.
const PAGE: usize = 2_000;
/// Refused entries that a report tells one by one.
const REFUSED_TOLD: usize = 1_000;
/// Most entries that a job names one by one.
const ENTRIES_MAX: usize = 10_000;
/// What picks entries: their ids, or what they have in common.
const PICKS: [&str; 7] = [
    "entries",
    "code",
    "source",
    "sensor",
    "receipt",
    "from_time",
    "to_time",
];

/// The job's spec, as the catalogue stores it.
#[derive(Debug, Deserialize)]
struct Spec {
    venues: Value,
    #[serde(default)]
    dry_run: bool,
    entries: Option<Vec<String>>,
    code: Option<String>,
    source: Option<String>,
    sensor: Option<String>,
    receipt: Option<String>,
    from_time: Option<String>,
    to_time: Option<String>,
    mapping: Option<MappingSpec>,
}

/// `replay`.
pub(super) struct Replay;
/// `drop-refused`.
pub(super) struct DropRefused;

#[async_trait]
impl JobKind for Replay {
    fn declared(&self) -> Option<DeclaredJob> {
        Some(DeclaredJob {
            kind: "replay",
            summary: "Try to take refused events again, through a mapping where they need mending",
            takes_days: false,
            takes_dry_run: true,
            options: &[
                "entries",
                "code",
                "source",
                "sensor",
                "receipt",
                "from_time",
                "to_time",
                "mapping",
            ],
            required: &[],
        })
    }

    fn check(&self, request: &JobRequest) -> Result<(), JobRefusal> {
        check(request)
    }

    async fn run(
        &self,
        worker: &JobWorker,
        job: &Job,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Outcome> {
        let spec: Spec = serde_json::from_value(job.spec.clone()).context("the job's options")?;
        let mapping = spec.mapping.as_ref().map(Mapping::new).transpose();
        let mapping = mapping.map_err(|why| anyhow::anyhow!(why))?;
        let mut pages = Pages::new(worker, &job.tenant, &spec)?;
        let mut done = Done::new(spec.dry_run);
        done.missing(&mut pages).await?;
        while let Some(entries) = pages.next().await? {
            if cancel.is_cancelled() {
                return Ok(Outcome::cancelled(done.report()));
            }
            let rules = DecodeRules::default();
            let (replayer, mapping) = (&worker.replayer, mapping.as_ref());
            let outcomes = match spec.dry_run {
                true => replayer.try_out(&job.tenant, &entries, &rules, mapping).await?,
                false => replayer.replay(&job.tenant, &entries, &rules, mapping).await?,
            };
            for (entry, outcome) in entries.iter().zip(outcomes) {
                done.count(entry, outcome);
            }
            progress.set(done.looked_at, done.looked_at, &entries[0].id);
        }
        Ok(done.outcome())
    }
}

#[async_trait]
impl JobKind for DropRefused {
    fn declared(&self) -> Option<DeclaredJob> {
        Some(DeclaredJob {
            kind: "drop-refused",
            summary: "Decide that refused events are rubbish: their bytes are removed for good",
            takes_days: false,
            takes_dry_run: true,
            options: &PICKS,
            required: &[],
        })
    }

    fn check(&self, request: &JobRequest) -> Result<(), JobRefusal> {
        check(request)?;
        match request.reason.as_deref().map(str::trim) {
            Some(reason) if !reason.is_empty() => Ok(()),
            _ => Err(JobRefusal(
                "say why (reason): what is dropped is gone for good".to_owned(),
            )),
        }
    }

    async fn run(
        &self,
        worker: &JobWorker,
        job: &Job,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Outcome> {
        let spec: Spec = serde_json::from_value(job.spec.clone()).context("the job's options")?;
        let mut pages = Pages::new(worker, &job.tenant, &spec)?;
        let (mut dropped, mut by_code) = (0_u64, BTreeMap::<String, u64>::new());
        let report = |dropped: u64, by_code: &BTreeMap<String, u64>| json!({ "dry_run": spec.dry_run, "dropped": dropped, "by_code": by_code });
        while let Some(entries) = pages.next().await? {
            for entry in entries
                .iter()
                .filter(|entry| entry.state == QuarantineState::Open)
            {
                if cancel.is_cancelled() {
                    return Ok(Outcome::cancelled(report(dropped, &by_code)));
                }
                if !spec.dry_run {
                    let store = &worker.stores.quarantine;
                    store
                        .set_state(&job.tenant, &entry.id, QuarantineState::Dropped)
                        .await?;
                }
                dropped += 1;
                *by_code.entry(entry.code.clone()).or_default() += 1;
            }
            progress.set(dropped, dropped, "");
        }
        Ok(Outcome::succeeded(report(dropped, &by_code)))
    }
}

/// Refuses what picks nothing, and what cannot be read.
fn check(request: &JobRequest) -> Result<(), JobRefusal> {
    let refuse = |why: String| Err(JobRefusal(why));
    let picks = PICKS.iter().any(|name| request.options.contains_key(*name));
    if !picks && request.venues.is_none() {
        return refuse(format!(
            "entries must be picked: by a venue, or by one of {}",
            PICKS.join(", ")
        ));
    }
    let spec: Spec = match serde_json::from_value(request.to_spec()) {
        Ok(spec) => spec,
        Err(error) => return refuse(error.to_string()),
    };
    if let Some(entries) = &spec.entries
        && !(1..=ENTRIES_MAX).contains(&entries.len())
    {
        return refuse(format!(
            "entries must be a list of 1 to {ENTRIES_MAX} ids of refused events"
        ));
    }
    if let Err(error) = spec.filter() {
        return refuse(error.to_string());
    }
    match spec.mapping.as_ref().map(Mapping::new) {
        Some(Err(why)) => refuse(why),
        _ => Ok(()),
    }
}

impl Spec {
    /// What the entries have in common, venues apart.
    fn filter(&self) -> Result<QuarantineFilter> {
        let time = |name: &str, text: &Option<String>| {
            let read = text.as_deref().map(parse_ts).transpose();
            read.with_context(|| format!("{name} is no time"))
        };
        let receipt = self.receipt.as_deref().map(str::parse::<Receipt>).transpose();
        Ok(QuarantineFilter {
            code: self.code.clone(),
            source: self.source.clone(),
            sensor: self.sensor.clone(),
            receipt: receipt.context("receipt is no receipt")?,
            from: time("from_time", &self.from_time)?,
            until: time("to_time", &self.to_time)?,
            state: Some(QuarantineState::Open),
            venue: None,
        })
    }
}

/// The entries that a job is about, in pages that cut no message in two where it fits a page.
struct Pages<'a> {
    worker: &'a JobWorker,
    tenant: &'a TenantId,
    /// Ids that were named and not read yet.
    named: Option<Vec<String>>,
    /// Filters that are left, one per venue; the last one is being read.
    filters: Vec<QuarantineFilter>,
    before: Option<String>,
}

impl<'a> Pages<'a> {
    fn new(worker: &'a JobWorker, tenant: &'a TenantId, spec: &Spec) -> Result<Self> {
        let filter = spec.filter()?;
        let of_venue = |venue: VenueId| QuarantineFilter {
            venue: Some(venue),
            ..filter.clone()
        };
        let filters = match venues_of(&spec.venues)? {
            Venues::These(venues) => venues.into_iter().map(of_venue).collect(),
            _ => vec![filter.clone()],
        };
        Ok(Self {
            worker,
            tenant,
            named: spec.entries.clone(),
            filters,
            before: None,
        })
    }

    /// The next page; `None` behind the last.
    async fn next(&mut self) -> Result<Option<Vec<QuarantineEntry>>> {
        if let Some(named) = &mut self.named {
            let ids = std::mem::take(named);
            let mut entries = Vec::with_capacity(ids.len());
            for id in ids {
                entries.extend(self.worker.stores.quarantine.get(self.tenant, &id).await?);
            }
            return Ok(Some(entries).filter(|entries| !entries.is_empty()));
        }
        while let Some(filter) = self.filters.last() {
            let store = &self.worker.stores.quarantine;
            let mut page = store
                .list(self.tenant, filter, self.before.as_deref(), PAGE)
                .await?;
            if page.is_empty() {
                self.filters.pop();
                self.before = None;
                continue;
            }
            if page.len() == PAGE
                && let Some(last) = page.last().map(|entry| entry.receipt)
            {
                // The rest of the last message comes with the next page.
                let whole = page.iter().rposition(|entry| entry.receipt != last);
                if let Some(whole) = whole {
                    page.truncate(whole + 1);
                }
            }
            self.before = page.last().map(|entry| entry.id.clone());
            return Ok(Some(page));
        }
        Ok(None)
    }
}

/// What a replay did, or would do.
struct Done {
    dry_run: bool,
    looked_at: u64,
    accepted: u64,
    erased: u64,
    refused_in_all: u64,
    refused: Vec<Value>,
    by_code: BTreeMap<String, u64>,
}

impl Done {
    fn new(dry_run: bool) -> Self {
        Self {
            dry_run,
            looked_at: 0,
            accepted: 0,
            erased: 0,
            refused_in_all: 0,
            refused: Vec::new(),
            by_code: BTreeMap::new(),
        }
    }

    /// Tells of named entries that do not exist.
    async fn missing(&mut self, pages: &mut Pages<'_>) -> Result<()> {
        let Some(named) = &mut pages.named else {
            return Ok(());
        };
        let mut there = Vec::with_capacity(named.len());
        for id in std::mem::take(named) {
            match pages.worker.stores.quarantine.get(pages.tenant, &id).await? {
                Some(_) => there.push(id),
                None => {
                    self.looked_at += 1;
                    self.refuse(&id, "not_found", "there is no such entry");
                }
            }
        }
        *named = there;
        Ok(())
    }

    fn count(&mut self, entry: &QuarantineEntry, outcome: Replayed) {
        self.looked_at += 1;
        match outcome {
            Replayed::Taken => self.accepted += 1,
            Replayed::Erased => self.erased += 1,
            Replayed::Refused { code, message } => self.refuse(&entry.id, code, &message),
            Replayed::Unreadable => self.refuse(&entry.id, "unreadable", "its bytes can no longer be read"),
            Replayed::NotOpen => self.refuse(&entry.id, "not_open", "it was replayed or dropped before"),
        }
    }

    fn refuse(&mut self, id: &str, code: &str, message: &str) {
        self.refused_in_all += 1;
        *self.by_code.entry(code.to_owned()).or_default() += 1;
        if self.refused.len() < REFUSED_TOLD {
            self.refused
                .push(json!({ "id": id, "code": code, "message": message }));
        }
    }

    fn report(&self) -> Value {
        let mut report = json!({
            "accepted": self.accepted,
            "refused": self.refused,
            "refused_by_code": self.by_code,
            "erased": self.erased,
            "looked_at": self.looked_at,
        });
        if self.dry_run {
            report["dry_run"] = json!(true);
        }
        report
    }

    fn outcome(self) -> Outcome {
        let report = self.report();
        if self.refused_in_all == 0 || self.dry_run {
            return Outcome::succeeded(report);
        }
        let state = match self.accepted {
            0 => JobState::Failed,
            _ => JobState::Partial,
        };
        let error = format!(
            "{} of {} entries were refused again",
            self.refused_in_all, self.looked_at
        );
        Outcome::troubled(state, report, error)
    }
}
