//! Aggregates of each generation in Cassandra: hours by day, days by month.
//!
//! In a partition the family comes first, so that a query for zones does not read the heat maps beside them; rows are
//! put in the contract's order here. Writing a generation again replaces it: a deletion just before the new rows takes
//! the former ones (see [`write_clock`](super::write_clock)).

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_model::metrics::{AggregateRow, Family, Grain, Slice, decode_value, encode_value};
use dwell_model::time::LocalDay;
use futures::TryStreamExt;
use scylla::response::query_result::QueryRowsResult;
use scylla::serialize::row::SerializeRow;
use scylla::value::{CqlDate, CqlTimestamp};

use super::cluster::{Cluster, Cql};
use super::errors;
use super::rows::{self, SizedRow};
use super::several;
use super::values::{damaged_value, date, day as day_from, from_stored, to_stored};
use crate::api::{AggregatesReader, AggregatesWriter, Generation, RowFilter};
use crate::error::Result;

const INSERT_HOUR: Cql = Cql::write(
    "write aggregates",
    "INSERT INTO {ks}.hour_rows
     (tenant, venue, day, generation, family, start, subject, slice, length_ms, value)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
);
const INSERT_DAY: Cql = Cql::write(
    "write aggregates",
    "INSERT INTO {ks}.day_rows
     (tenant, venue, month, day, generation, family, start, subject, slice, length_ms, value)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?",
);
const DELETE_HOURS: Cql = Cql::write(
    "delete aggregates",
    "DELETE FROM {ks}.hour_rows USING TIMESTAMP ? WHERE tenant = ? AND venue = ? AND day = ? AND generation = ?",
);
const DELETE_DAYS: Cql = Cql::write(
    "delete aggregates",
    "DELETE FROM {ks}.day_rows USING TIMESTAMP ?
     WHERE tenant = ? AND venue = ? AND month = ? AND day = ? AND generation = ?",
);
const COUNT_HOURS: Cql = Cql::read(
    "count aggregates",
    "SELECT count(*) FROM {ks}.hour_rows WHERE tenant = ? AND venue = ? AND day = ? AND generation = ?",
);
const COUNT_DAYS: Cql = Cql::read(
    "count aggregates",
    "SELECT count(*) FROM {ks}.day_rows WHERE tenant = ? AND venue = ? AND month = ? AND day = ? AND generation = ?",
);
const READ_HOURS: Cql = Cql::read(
    "read aggregates",
    "SELECT day, generation, family, start, subject, slice, length_ms, value FROM {ks}.hour_rows
     WHERE tenant = ? AND venue = ? AND day = ? AND generation = ?",
);
const READ_HOURS_OF_FAMILIES: Cql = Cql::read(
    "read aggregates",
    "SELECT day, generation, family, start, subject, slice, length_ms, value FROM {ks}.hour_rows
     WHERE tenant = ? AND venue = ? AND day = ? AND generation = ? AND family IN ?",
);
const READ_DAYS: Cql = Cql::read(
    "read aggregates",
    "SELECT day, generation, family, start, subject, slice, length_ms, value FROM {ks}.day_rows
     WHERE tenant = ? AND venue = ? AND month = ? AND (day, generation) IN ?",
);
const READ_DAYS_OF_FAMILIES: Cql = Cql::read(
    "read aggregates",
    "SELECT day, generation, family, start, subject, slice, length_ms, value FROM {ks}.day_rows
     WHERE tenant = ? AND venue = ? AND month = ? AND (day, generation, family) IN ?",
);

/// Keys in one `IN`; ScyllaDB refuses more than 100.
const KEYS_MAX: usize = 96;
/// Partitions of one call read at a time.
const READS_AT_ONCE: usize = 16;

/// The aggregates table in Cassandra.
#[derive(Debug)]
pub struct CassandraAggregates {
    cluster: Cluster,
}

/// Rows of the generations that were asked for.
type Found = BTreeMap<(LocalDay, Generation), Vec<AggregateRow>>;

impl CassandraAggregates {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    async fn delete_before(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        time_us: i64,
    ) -> Result<()> {
        let (tenant, venue, generation) = (
            venue.tenant.as_str(),
            venue.venue.as_str(),
            to_stored(generation)?,
        );
        let hours = (time_us, tenant, venue, date(day), generation);
        let days = (time_us, tenant, venue, month(day), date(day), generation);
        futures::try_join!(
            self.cluster.execute(DELETE_HOURS, hours),
            self.cluster.execute(DELETE_DAYS, days)
        )?;
        Ok(())
    }

    async fn read_hours(
        &self,
        venue: &VenueKey,
        (day, generation): (LocalDay, Generation),
        filter: &RowFilter,
    ) -> Result<Found> {
        let (tenant, venue, day) = (venue.tenant.as_str(), venue.venue.as_str(), date(day));
        let generation = to_stored(generation)?;
        match family_numbers(filter) {
            None => {
                self.read_rows(READ_HOURS, (tenant, venue, day, generation), Grain::Hour, filter)
                    .await
            }
            Some(families) => {
                let key = (tenant, venue, day, generation, families);
                self.read_rows(READ_HOURS_OF_FAMILIES, key, Grain::Hour, filter)
                    .await
            }
        }
    }

    async fn read_days(
        &self,
        venue: &VenueKey,
        month: i32,
        days: Vec<(CqlDate, i64)>,
        filter: &RowFilter,
    ) -> Result<Found> {
        let (tenant, venue) = (venue.tenant.as_str(), venue.venue.as_str());
        match family_numbers(filter) {
            None => {
                self.read_rows(READ_DAYS, (tenant, venue, month, days), Grain::Day, filter)
                    .await
            }
            Some(families) => {
                let keys: Vec<(CqlDate, i64, i8)> = days
                    .iter()
                    .flat_map(|&(day, generation)| {
                        families.iter().map(move |&family| (day, generation, family))
                    })
                    .collect();
                let mut found = Found::new();
                for keys in keys.chunks(KEYS_MAX) {
                    let key = (tenant, venue, month, keys);
                    append(
                        &mut found,
                        self.read_rows(READ_DAYS_OF_FAMILIES, key, Grain::Day, filter)
                            .await?,
                    );
                }
                Ok(found)
            }
        }
    }

    async fn read_rows(
        &self,
        cql: Cql,
        key: impl SerializeRow,
        grain: Grain,
        filter: &RowFilter,
    ) -> Result<Found> {
        let mut found = Found::new();
        self.cluster
            .pages(cql, key, |page| {
                decode_page(cql, &page, grain, filter, &mut found)
            })
            .await?;
        Ok(found)
    }
}

#[async_trait]
impl AggregatesWriter for CassandraAggregates {
    async fn write(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        rows: Vec<AggregateRow>,
    ) -> Result<()> {
        let time = self.cluster.write_clock().await?.replacement();
        self.delete_before(venue, day, generation, time.deletion_us)
            .await?;
        let (tenant, venue, month, day) =
            (venue.tenant.as_str(), venue.venue.as_str(), month(day), date(day));
        let generation = to_stored(generation)?;
        let (mut hours, mut days) = (Vec::new(), Vec::new());
        for row in &rows {
            let value = encode_value(&row.value);
            let bytes = tenant.len() + venue.len() + row.subject.len() + value.len();
            let (family, slice) = (row.family as i8, row.slice as i8);
            let (start, subject) = (CqlTimestamp(row.start), row.subject.as_str());
            match row.grain {
                Grain::Hour => hours.push(SizedRow {
                    bytes,
                    values: (
                        tenant,
                        venue,
                        day,
                        generation,
                        family,
                        start,
                        subject,
                        slice,
                        row.length_ms,
                        value,
                        time.rows_us,
                    ),
                }),
                Grain::Day => days.push(SizedRow {
                    bytes,
                    values: (
                        tenant,
                        venue,
                        month,
                        day,
                        generation,
                        family,
                        start,
                        subject,
                        slice,
                        row.length_ms,
                        value,
                        time.rows_us,
                    ),
                }),
            }
        }
        rows::write(&self.cluster, INSERT_HOUR, hours).await?;
        rows::write(&self.cluster, INSERT_DAY, days).await
    }

    async fn delete(&self, venue: &VenueKey, day: LocalDay, generation: Generation) -> Result<()> {
        let time = self.cluster.write_clock().await?.replacement();
        self.delete_before(venue, day, generation, time.rows_us).await
    }
}

#[async_trait]
impl AggregatesReader for CassandraAggregates {
    async fn read(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        filter: &RowFilter,
    ) -> Result<Vec<AggregateRow>> {
        let mut days = self.read_many(venue, &[(day, generation)], filter).await?;
        Ok(days.pop().unwrap_or_default())
    }

    async fn read_many(
        &self,
        venue: &VenueKey,
        days: &[(LocalDay, Generation)],
        filter: &RowFilter,
    ) -> Result<Vec<Vec<AggregateRow>>> {
        let nothing_passes = filter.families.as_ref().is_some_and(Vec::is_empty)
            || filter.subjects.as_ref().is_some_and(Vec::is_empty);
        let wanted: BTreeSet<(LocalDay, Generation)> = match nothing_passes {
            true => BTreeSet::new(),
            false => days.iter().copied().collect(),
        };
        let wants = |grain| filter.grain.is_none_or(|wanted| wanted == grain);
        let mut found = Found::new();
        if wants(Grain::Hour) {
            let reads = wanted.iter().map(|&day| self.read_hours(venue, day, filter));
            let mut reads = several::as_ready(reads, READS_AT_ONCE);
            while let Some(hours) = reads.try_next().await? {
                append(&mut found, hours);
            }
        }
        if wants(Grain::Day) {
            let mut months: BTreeMap<i32, Vec<(CqlDate, i64)>> = BTreeMap::new();
            for &(day, generation) in &wanted {
                let days = months.entry(month(day)).or_default();
                days.push((date(day), to_stored(generation)?));
            }
            let parts = months.iter().flat_map(|(&month, days)| {
                days.chunks(KEYS_MAX)
                    .map(move |days| self.read_days(venue, month, days.to_vec(), filter))
            });
            let mut reads = several::as_ready(parts, READS_AT_ONCE);
            while let Some(days) = reads.try_next().await? {
                append(&mut found, days);
            }
        }
        for rows in found.values_mut() {
            rows.sort_unstable_by(|a, b| key_of(a).cmp(&key_of(b)));
        }
        Ok(answers(days, found))
    }

    async fn count(&self, venue: &VenueKey, day: LocalDay, generation: Generation) -> Result<u64> {
        let (tenant, venue, generation) = (
            venue.tenant.as_str(),
            venue.venue.as_str(),
            to_stored(generation)?,
        );
        let (hours, days): (Option<(i64,)>, Option<(i64,)>) = futures::try_join!(
            self.cluster
                .first(COUNT_HOURS, (tenant, venue, date(day), generation)),
            self.cluster
                .first(COUNT_DAYS, (tenant, venue, month(day), date(day), generation)),
        )?;
        let count = |row: Option<(i64,)>| from_stored(row.map_or(0, |(count,)| count));
        Ok(count(hours)? + count(days)?)
    }
}

/// The part of the day table that holds a day.
fn month(day: LocalDay) -> i32 {
    use chrono::Datelike;
    day.year() * 100 + day.date().month() as i32
}

fn family_numbers(filter: &RowFilter) -> Option<Vec<i8>> {
    let families = filter.families.as_ref()?;
    let numbers: BTreeSet<i8> = families.iter().map(|&family| family as i8).collect();
    Some(numbers.into_iter().collect())
}

/// The order of a generation's rows.
fn key_of(row: &AggregateRow) -> (Grain, i64, Family, &str, Slice) {
    (row.grain, row.start, row.family, &row.subject, row.slice)
}

fn append(found: &mut Found, more: Found) {
    for (key, rows) in more {
        found.entry(key).or_default().extend(rows);
    }
}

/// An answer for each day that was asked for; a day that was asked for twice is answered twice.
fn answers(days: &[(LocalDay, Generation)], mut found: Found) -> Vec<Vec<AggregateRow>> {
    let mut left: BTreeMap<(LocalDay, Generation), usize> = BTreeMap::new();
    for day in days {
        *left.entry(*day).or_default() += 1;
    }
    let answer = |day: &(LocalDay, Generation)| {
        let left = left.entry(*day).or_default();
        *left = left.saturating_sub(1);
        match *left {
            0 => found.remove(day).unwrap_or_default(),
            _ => found.get(day).cloned().unwrap_or_default(),
        }
    };
    days.iter().map(answer).collect()
}

type StoredRow<'a> = (CqlDate, i64, i8, CqlTimestamp, &'a str, i8, i64, &'a [u8]);

/// Decodes those rows of a page that pass the filter. Values are the larger part of the work, so they come last.
fn decode_page(
    cql: Cql,
    page: &QueryRowsResult,
    grain: Grain,
    filter: &RowFilter,
    found: &mut Found,
) -> Result<()> {
    let rows = page
        .rows::<StoredRow<'_>>()
        .map_err(|error| errors::damaged(cql.doing(), error))?;
    for row in rows {
        let (day, generation, family, start, subject, slice, length_ms, value) =
            row.map_err(|error| errors::damaged(cql.doing(), error))?;
        let refused = |subjects: &Vec<String>| !subjects.iter().any(|wanted| wanted == subject);
        if filter.subjects.as_ref().is_some_and(refused) {
            continue;
        }
        let slice = u8::try_from(slice)
            .ok()
            .and_then(Slice::from_number)
            .ok_or_else(|| damaged_value(format_args!("slice {slice}")))?;
        if filter.slice.is_some_and(|wanted| wanted != slice) {
            continue;
        }
        let row = AggregateRow {
            grain,
            start: start.0,
            length_ms,
            family: u8::try_from(family)
                .ok()
                .and_then(Family::from_number)
                .ok_or_else(|| damaged_value(format_args!("family {family}")))?,
            subject: subject.to_owned(),
            slice,
            value: decode_value(value).map_err(damaged_value)?,
        };
        found
            .entry((day_from(day)?, from_stored(generation)?))
            .or_default()
            .push(row);
    }
    Ok(())
}
