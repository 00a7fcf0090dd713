//! What if a day were computed now, or with another layout: the difference to what is published, publishing nothing.
//!
//! Reads raw united with the archive, as for an open day, so nothing is written: no lease, no files, no rows. What a run
//! would find a moment later may differ by what came in between.

use std::collections::BTreeMap;

use dwell_model::ids::VenueKey;
use dwell_model::metrics::{AggregateRow, Number, Slice, Value, numbers, walk_rows};
use dwell_model::time::{LocalDay, format_rfc3339};
use dwell_storage::api::{Generation, GenerationChange, RowFilter};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::error::{Doing, Error, Result};
use crate::layer::BatchLayer;
use crate::recompute;
use crate::rows;
use crate::run::DayRun;

/// How a day is to be computed for looking at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WhatIf {
    /// With the layout that is in force on this day; `None`: its own.
    pub layout_of: Option<LocalDay>,
    /// From which rows.
    pub source: Source,
    /// Buckets that are listed.
    pub buckets_max: usize,
}

/// Where a day's rows are taken from, to see whether either place alone gives its numbers. What is published is always
/// made of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Raw united with the archive.
    #[default]
    Both,
    /// Raw alone: nothing of a day that retention has swept.
    Raw,
    /// The archive alone: nothing that came since the day was archived.
    Archive,
}

/// What would change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The day.
    pub day: LocalDay,
    /// The published generation that it was compared with; `None`: nothing is published.
    pub published: Option<Generation>,
    /// Since when the layout used is valid; `None` for the venue's first one.
    pub layout_valid_from: Option<LocalDay>,
    /// Events that would count.
    pub events: u64,
    /// Sessions that there would be.
    pub sessions: u64,
    /// Buckets that would be new, gone, different.
    pub changed: GenerationChange,
    /// The first of them that metrics are made of, in order.
    pub buckets: Vec<ChangedBucket>,
    /// Further ones that are not listed.
    pub buckets_unlisted: u64,
}

/// A bucket that would change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChangedBucket {
    /// `hour` or `day`.
    pub grain: &'static str,
    /// UTC start, RFC 3339.
    pub start: String,
    /// Kind of result.
    pub family: &'static str,
    /// What it is about; parts of a composite subject with slashes between.
    pub subject: String,
    /// The slice, if it is not that of all events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slice: Option<Slice>,
    /// The numbers by metric now; `None`: there is no such bucket.
    pub before: Option<BTreeMap<&'static str, Number>>,
    /// The numbers as they would be.
    pub after: Option<BTreeMap<&'static str, Number>>,
}

impl BatchLayer {
    /// Computes a day without publishing, and compares it with what is published.
    pub async fn what_if(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        what_if: WhatIf,
        cancel: &CancellationToken,
    ) -> Result<Difference> {
        let stored = self.venue(venue).await?;
        let layout = stored.layout_on(what_if.layout_of.unwrap_or(day)).clone();
        if self.now_ms() < stored.calendar.bounds(day).0 {
            return Err(Error::Spec(format!("{day} has not begun")));
        }
        let mut run = DayRun::look(self, venue, day, cancel).await?;
        run.read_only_from(what_if.source);
        let before = run.before.clone();
        let carry_in = run.carry_in(self).await?;
        let computed = recompute::compute(self, &run, &layout, carry_in).await?;
        let former = match &before {
            None => Vec::new(),
            Some(before) => {
                let all = RowFilter::default();
                let former = self
                    .stores()
                    .aggregates
                    .read(venue, day, before.generation, &all)
                    .await;
                former.doing("read the published rows")?
            }
        };
        let (buckets, buckets_unlisted) = changed(&former, &computed.rows, what_if.buckets_max);
        Ok(Difference {
            day,
            published: before.map(|before| before.generation),
            layout_valid_from: layout.valid_from,
            events: computed.events.values().map(|sum| sum.rows).sum(),
            sessions: computed.sessions.len() as u64,
            changed: rows::change(&former, &computed.rows),
            buckets,
            buckets_unlisted,
        })
    }
}

/// The buckets that differ, of those that metrics are made of: the first so many, and how many there are besides.
fn changed(before: &[AggregateRow], after: &[AggregateRow], listed_max: usize) -> (Vec<ChangedBucket>, u64) {
    let (mut listed, mut unlisted) = (Vec::new(), 0);
    walk_rows(before, after, |before, after| {
        let Some(row) = after.or(before) else { return };
        let is_metric = !matches!(
            row.value,
            Value::Cell(_) | Value::Source(_) | Value::Transition(_)
        );
        if !is_metric || before.zip(after).is_some_and(|(before, after)| before == after) {
            return;
        }
        if listed.len() == listed_max {
            unlisted += 1;
            return;
        }
        listed.push(ChangedBucket {
            grain: row.grain.word(),
            start: format_rfc3339(row.start),
            family: row.family.word(),
            subject: row.subject.replace('\u{1f}', "/"),
            slice: Some(row.slice).filter(|slice| *slice != Slice::All),
            before: before.map(numbers),
            after: after.map(numbers),
        });
    });
    (listed, unlisted)
}
