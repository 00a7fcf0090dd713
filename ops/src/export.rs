//! Export: the published numbers as Parquet files that any tool reads.
//!
//! One file per table ([`Table`]), rows by venue and time, from the published generation of each day.

mod rows;
mod sheet;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dwell_model::ids::{TenantId, VenueId, VenueKey};
use dwell_model::metrics::Slice;
use dwell_model::time::LocalDay;
use dwell_storage::api::{Generation, RowFilter, SessionCursor, Stores, VenueDay, recuts};
use serde::Serialize;

use rows::{push_row, push_session};
use sheet::{Sheet, SheetColumn};

/// Sessions read at once.
const SESSIONS_PER_PAGE: usize = 5_000;
/// Days whose aggregates are read at once.
const DAYS_PER_READ: usize = 32;

/// A table of the export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    Sessions,
    Hourly,
    Daily,
    CrossingsHourly,
    TransactionsHourly,
    ReadingsHourly,
    CountsHourly,
    PresenceHourly,
    TrafficHourly,
}

impl Table {
    pub(crate) const ALL: [Table; 9] = [
        Table::Sessions,
        Table::Hourly,
        Table::Daily,
        Table::CrossingsHourly,
        Table::TransactionsHourly,
        Table::ReadingsHourly,
        Table::CountsHourly,
        Table::PresenceHourly,
        Table::TrafficHourly,
    ];

    /// Name of the file, without its ending.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Table::Sessions => "sessions",
            Table::Hourly => "hourly",
            Table::Daily => "daily",
            Table::CrossingsHourly => "crossings_hourly",
            Table::TransactionsHourly => "transactions_hourly",
            Table::ReadingsHourly => "readings_hourly",
            Table::CountsHourly => "counts_hourly",
            Table::PresenceHourly => "presence_hourly",
            Table::TrafficHourly => "traffic_hourly",
        }
    }

    /// The table of a name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Table::ALL.into_iter().find(|table| table.name() == name)
    }

    fn columns(self) -> &'static [(&'static str, SheetColumn)] {
        rows::columns(self)
    }
}

/// What to export.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) tenant: TenantId,
    /// Only these venues.
    pub(crate) venues: Option<Vec<VenueId>>,
    /// First day.
    pub(crate) from: LocalDay,
    /// Last day, included.
    pub(crate) to: LocalDay,
}

/// What was exported.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ExportReport {
    pub(crate) files: Vec<ExportedFile>,
    /// Published days read; not known where another process wrote the files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) venue_days: Option<u64>,
    /// The generations of these days; empty where another process wrote the files.
    #[serde(skip)]
    pub(crate) generations: BTreeMap<VenueId, BTreeMap<LocalDay, Generation>>,
}

/// One file of an export.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ExportedFile {
    pub(crate) path: PathBuf,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// Writes tables to a folder, a file each. A file appears under its name only when it is whole.
pub(crate) async fn export(
    stores: &Stores,
    selection: &Selection,
    tables: &[Table],
    out: &Path,
) -> Result<ExportReport> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make the folder {}", out.display()))?;
    let mut sheets = tables
        .iter()
        .map(|&table| {
            Ok((
                table,
                Sheet::create(&out.join(format!("{}.parquet", table.name())), table.columns())?,
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut generations: BTreeMap<VenueId, BTreeMap<LocalDay, Generation>> = BTreeMap::new();
    for stored in stores.registry.venues(&selection.tenant).await? {
        if selection
            .venues
            .as_ref()
            .is_some_and(|only| !only.contains(&stored.venue.id))
        {
            continue;
        }
        let key = VenueKey::new(selection.tenant.clone(), stored.venue.id.clone());
        let days = recuts::list_under(
            stores.venue_days.as_ref(),
            &key,
            &stored.venue.calendar,
            selection.from,
            selection.to,
        )
        .await?;
        let published: Vec<_> = days.iter().filter_map(published_generation).collect();
        if !published.is_empty() {
            generations.insert(stored.venue.id.clone(), published.iter().copied().collect());
        }
        for (table, sheet) in sheets.iter_mut().filter(|(table, _)| *table == Table::Sessions) {
            for &(day, generation) in &published {
                export_sessions(stores, &key, day, generation, *table, sheet).await?;
            }
        }
        export_aggregates(stores, &key, &published, &mut sheets).await?;
    }
    let files = sheets
        .into_iter()
        .map(|(_, sheet)| sheet.close())
        .collect::<Result<Vec<_>>>()?;
    Ok(ExportReport {
        files,
        venue_days: Some(generations.values().map(|days| days.len() as u64).sum()),
        generations,
    })
}

fn published_generation(day: &VenueDay) -> Option<(LocalDay, u64)> {
    day.published.as_ref().map(|info| (day.day, info.generation))
}

async fn export_sessions(
    stores: &Stores,
    key: &VenueKey,
    day: LocalDay,
    generation: u64,
    table: Table,
    sheet: &mut Sheet,
) -> Result<()> {
    let mut after: Option<SessionCursor> = None;
    loop {
        let page = stores
            .sessions
            .list(key, day, generation, after.as_ref(), SESSIONS_PER_PAGE)
            .await?;
        for stored in &page {
            push_session(table, sheet, &key.venue, day, stored)?;
        }
        match page.last() {
            Some(last) if page.len() == SESSIONS_PER_PAGE => {
                after = Some(SessionCursor {
                    start: last.session.start,
                    id: last.id.clone(),
                });
            }
            _ => return Ok(()),
        }
    }
}

async fn export_aggregates(
    stores: &Stores,
    key: &VenueKey,
    published: &[(LocalDay, u64)],
    sheets: &mut [(Table, Sheet)],
) -> Result<()> {
    if sheets.iter().all(|(table, _)| *table == Table::Sessions) {
        return Ok(());
    }
    let filter = RowFilter {
        families: Some(rows::FAMILIES.to_vec()),
        slice: Some(Slice::All),
        ..RowFilter::default()
    };
    for days in published.chunks(DAYS_PER_READ) {
        let read = stores.aggregates.read_many(key, days, &filter).await?;
        for (&(day, generation), day_rows) in days.iter().zip(&read) {
            for row in day_rows {
                for (table, sheet) in sheets.iter_mut() {
                    push_row(*table, sheet, &key.venue, day, generation, row)?;
                }
            }
        }
    }
    Ok(())
}
