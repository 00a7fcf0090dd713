//! `erase`: forget a visitor, a track or a device, everywhere; and prove it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_model::time::{TsMs, VenueCalendar};
use dwell_runtime::failpoint;
use dwell_serving_api::{DeclaredJob, JobRefusal, JobRequest};
use dwell_storage::api::{ErasedSubject, Erasure, Job, JobState, NewErasure, SubjectClass, documents};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::kinds::{JobKind, Outcome};
use super::{JobWorker, Progress, spec_of};
use crate::erasing::Eraser;
use crate::erasing::deletion::{Deletion, STEPS, filter_of, keep, settle};
use crate::erasing::places::Search;
use crate::erasing::receipt::ErasureReceipt;
use crate::erasing::whom::{self, Spec, Whom};

pub(super) struct Erase;

#[async_trait]
impl JobKind for Erase {
    fn declared(&self) -> Option<DeclaredJob> {
        Some(DeclaredJob {
            kind: "erase",
            summary: "Forget a visitor (a track or a device) everywhere, and keep a receipt",
            takes_days: false,
            takes_dry_run: true,
            options: &["track", "device", "sensor", "from_time", "to_time", "again"],
            required: &[],
        })
    }

    fn check(&self, request: &JobRequest) -> Result<(), JobRefusal> {
        if request.venues.as_ref().is_none_or(|venues| venues.len() != 1) {
            return Err(JobRefusal("name one venue: an erasure is of one".to_owned()));
        }
        whom::check(&request.options).map_err(|error| JobRefusal(format!("{error:#}")))
    }

    async fn run(
        &self,
        worker: &JobWorker,
        job: &Job,
        progress: Progress,
        cancel: CancellationToken,
    ) -> Result<Outcome> {
        run(&worker.eraser, job, progress, cancel).await
    }
}

async fn run(eraser: &Eraser, job: &Job, progress: Progress, cancel: CancellationToken) -> Result<Outcome> {
    let spec: Spec = spec_of(job)?;
    if let Some(id) = &spec.again {
        return again(eraser, job, id, progress, cancel).await;
    }
    let key = eraser.bare.erasures.key().await?;
    let whom = spec.whom(job, &key)?;
    progress.respec(spec.sealed(job, &whom, &key)?).await?;
    let calendar = calendar_of(eraser, &whom.venue).await?;
    let (subjects, not_findable) = whom.subjects(eraser, calendar, &key, spec.dry_run).await?;
    if spec.dry_run {
        let entry = entry_of(job, &whom, subjects);
        let report = dry_run(eraser, &whom, &entry, calendar, &not_findable).await?;
        progress.respec(spec.forgotten(job, whom.hash(&key))).await?;
        // The name came with the job, and stands in the write-ahead log until that is emptied.
        settle(eraser).await?;
        return Ok(Outcome::succeeded(report));
    }
    failpoint!("erase.before_ledger");
    let entry = eraser
        .bare
        .erasures
        .append(entry_of(job, &whom, subjects).erasure)
        .await?;
    failpoint!("erase.after_ledger");
    let stored = documents::load(&*eraser.bare.documents, &job.tenant, &job.id).await?;
    let mut receipt = match stored {
        Some(stored) => stored.value,
        None => new_receipt(eraser, job, &whom, &entry, &key),
    };
    receipt.not_findable = not_findable;
    let texts = whom.texts();
    // From here on the name stands nowhere but in this process: the scan of the files must not find the job itself.
    let outcome = carry_out(eraser, &entry, calendar, &mut receipt, texts, &progress, &cancel).await?;
    if outcome.state.is_final() && outcome.state != JobState::Cancelled {
        progress.respec(spec.forgotten(job, receipt.subject)).await?;
    }
    Ok(outcome)
}

/// An erasure carried out once more: what has come since then goes too.
async fn again(
    eraser: &Eraser,
    job: &Job,
    id: &str,
    progress: Progress,
    cancel: CancellationToken,
) -> Result<Outcome> {
    let stored = documents::load::<ErasureReceipt>(&*eraser.bare.documents, &job.tenant, id).await?;
    let Some(mut receipt) = stored.map(|stored| stored.value) else {
        bail!("there is no erasure {id}");
    };
    let entries = eraser.bare.erasures.read(receipt.number).await?;
    let Some(entry) = entries.into_iter().find(|entry| entry.erasure.id == id) else {
        bail!("the ledger does not have the erasure {id}");
    };
    let calendar = calendar_of(eraser, &entry.erasure.venue).await?;
    receipt.repeated_at = Some(eraser.clock.now_ms());
    receipt.repeats += 1;
    carry_out(
        eraser,
        &entry,
        calendar,
        &mut receipt,
        Vec::new(),
        &progress,
        &cancel,
    )
    .await
}

async fn carry_out(
    eraser: &Eraser,
    entry: &Erasure,
    calendar: VenueCalendar,
    receipt: &mut ErasureReceipt,
    texts: Vec<String>,
    progress: &Progress,
    cancel: &CancellationToken,
) -> Result<Outcome> {
    let search = search_for(eraser, entry, calendar, receipt.proven_at.is_none()).await?;
    let tell = |done: u64, doing: &str| progress.set(done, STEPS, doing);
    let mut deletion = Deletion {
        eraser,
        entry,
        search,
        receipt,
        texts,
        tell: &tell,
        cancel,
    };
    let is_whole = deletion.run().await?;
    if !is_whole || cancel.is_cancelled() {
        keep(eraser, receipt).await?;
        return Ok(Outcome::cancelled(serde_json::to_value(&*receipt)?));
    }
    tell(STEPS - 1, "keeping the receipt");
    if receipt.is_clean() {
        receipt.proven_at = Some(eraser.clock.now_ms());
    }
    keep(eraser, receipt).await?;
    failpoint!("erase.after_receipt");
    tell(STEPS, "");
    let report = serde_json::to_value(&*receipt)?;
    Ok(match receipt.is_clean() {
        true => Outcome::succeeded(report),
        false => Outcome::troubled(
            JobState::Partial,
            report,
            "the scan still finds the visitor, see `scan`: it is tried again each night".to_owned(),
        ),
    })
}

async fn dry_run(
    eraser: &Eraser,
    whom: &Whom,
    entry: &Erasure,
    calendar: VenueCalendar,
    not_findable: &[dwell_model::time::LocalDay],
) -> Result<Value> {
    let search = search_for(eraser, entry, calendar, true).await?;
    let found = search.days().await?;
    let (quarantine, _) = search.quarantine().await?;
    let mut places: BTreeMap<&str, u64> = BTreeMap::new();
    for (place, count) in found.values().flatten() {
        *places.entry(place).or_default() += count;
    }
    places.insert("log", search.log().await?);
    places.insert("quarantine", quarantine.len() as u64);
    Ok(json!({
        "dry_run": true,
        "venue": whom.venue.venue,
        "places": places,
        "days": found.iter().map(|(day, places)| json!({"day": day, "places": places})).collect::<Vec<_>>(),
        "not_findable": not_findable,
    }))
}

async fn search_for<'a>(
    eraser: &'a Eraser,
    entry: &'a Erasure,
    calendar: VenueCalendar,
    with_archive: bool,
) -> Result<Search<'a>> {
    let subjects = &entry.erasure.subjects;
    let from = subjects.iter().map(|subject| subject.from).min().unwrap_or(0);
    let until = subjects.iter().map(|subject| subject.until).max().unwrap_or(0);
    Ok(Search {
        eraser,
        venue: &entry.erasure.venue,
        calendar,
        filter: filter_of(eraser, entry).await?,
        range: from..until,
        with_archive,
        computed_without: BTreeMap::new(),
    })
}

/// The entry as it is to be; its number is the ledger's to give.
fn entry_of(job: &Job, whom: &Whom, subjects: Vec<ErasedSubject>) -> Erasure {
    Erasure {
        number: 0,
        erasure: NewErasure {
            id: job.id.clone(),
            venue: whom.venue.clone(),
            requested_at: job.created_at,
            subjects,
        },
    }
}

fn new_receipt(
    eraser: &Eraser,
    job: &Job,
    whom: &Whom,
    entry: &Erasure,
    key: &dwell_storage::api::LedgerKey,
) -> ErasureReceipt {
    let sensor = whom.sensor.as_deref();
    let repeat_until = job.created_at + eraser.repeats_ms();
    ErasureReceipt {
        sensor: sensor.map(|sensor| key.hash(SubjectClass::Sensor, &whom.venue, sensor)),
        from: (whom.from > TsMs::MIN).then_some(whom.from),
        until: whom.until,
        requested_by: job.requested_by.clone(),
        ..ErasureReceipt::begun(entry, whom.class(), whom.hash(key), repeat_until)
    }
}

async fn calendar_of(eraser: &Eraser, venue: &VenueKey) -> Result<VenueCalendar> {
    let stored = eraser.bare.registry.venue(venue).await?;
    let stored = stored.with_context(|| format!("there is no venue {venue}"))?;
    Ok(stored.venue.calendar)
}
