//! Aggregates of each generation in `data.db`: hours and days in tables of their own, in key order.

use async_trait::async_trait;
use dwell_model::ids::VenueKey;
use dwell_model::metrics::{AggregateRow, Family, Grain, Slice, decode_value, encode_value};
use dwell_model::time::LocalDay;
use rusqlite::{Connection, Row};

use super::connection::Database;
use super::failure::Failure;
use super::values::{find_venue, from_stored, intern_venue, to_stored};
use crate::api::{AggregatesReader, AggregatesWriter, Generation, RowFilter};
use crate::error::Result;

/// All grains, in the order of their rows.
const GRAINS: [Grain; 2] = [Grain::Hour, Grain::Day];

/// The embedded aggregates table.
#[derive(Debug)]
pub struct SqliteAggregates {
    data: Database,
}

impl SqliteAggregates {
    pub(super) fn new(data: Database) -> Self {
        Self { data }
    }
}

#[async_trait]
impl AggregatesWriter for SqliteAggregates {
    async fn write(
        &self,
        venue: &VenueKey,
        day: LocalDay,
        generation: Generation,
        rows: Vec<AggregateRow>,
    ) -> Result<()> {
        let venue = venue.clone();
        self.data
            .write("write aggregates", move |data| {
                let (venue_ref, generation) = (intern_venue(data, &venue)?, to_stored(generation)?);
                delete(data, venue_ref, day, generation)?;
                for grain in GRAINS {
                    let mut insert = data.prepare_cached(insert_sql(grain))?;
                    for row in rows.iter().filter(|row| row.grain == grain) {
                        insert.execute((
                            venue_ref,
                            day.to_epoch_days(),
                            generation,
                            row.start,
                            row.family as u8,
                            &row.subject,
                            row.slice as u8,
                            row.length_ms,
                            encode_value(&row.value),
                        ))?;
                    }
                }
                Ok(())
            })
            .await
    }

    async fn delete(&self, venue: &VenueKey, day: LocalDay, generation: Generation) -> Result<()> {
        let venue = venue.clone();
        self.data
            .write("delete aggregates", move |data| match find_venue(data, &venue)? {
                Some(venue_ref) => delete(data, venue_ref, day, to_stored(generation)?),
                None => Ok(()),
            })
            .await
    }
}

#[async_trait]
impl AggregatesReader for SqliteAggregates {
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
        let (venue, days, filter) = (venue.clone(), days.to_vec(), filter.clone());
        self.data
            .read("read aggregates", move |data| {
                let Some(venue_ref) = find_venue(data, &venue)? else {
                    return Ok(vec![Vec::new(); days.len()]);
                };
                let read = |&(day, generation): &(LocalDay, Generation)| {
                    read_generation(data, venue_ref, day, to_stored(generation)?, &filter)
                };
                days.iter().map(read).collect()
            })
            .await
    }

    async fn count(&self, venue: &VenueKey, day: LocalDay, generation: Generation) -> Result<u64> {
        let venue = venue.clone();
        self.data
            .read("count aggregates", move |data| {
                let Some(venue_ref) = find_venue(data, &venue)? else {
                    return Ok(0);
                };
                let key = (venue_ref, day.to_epoch_days(), to_stored(generation)?);
                let mut rows = 0;
                for grain in GRAINS {
                    rows += from_stored(
                        data.prepare_cached(count_sql(grain))?
                            .query_row(key, |row| row.get(0))?,
                    )?;
                }
                Ok(rows)
            })
            .await
    }
}

fn insert_sql(grain: Grain) -> &'static str {
    match grain {
        Grain::Hour => "INSERT INTO hour_rows VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        Grain::Day => "INSERT INTO day_rows VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    }
}

fn delete_sql(grain: Grain) -> &'static str {
    match grain {
        Grain::Hour => "DELETE FROM hour_rows WHERE venue_ref = ?1 AND day = ?2 AND generation = ?3",
        Grain::Day => "DELETE FROM day_rows WHERE venue_ref = ?1 AND day = ?2 AND generation = ?3",
    }
}

fn count_sql(grain: Grain) -> &'static str {
    match grain {
        Grain::Hour => "SELECT count(*) FROM hour_rows WHERE venue_ref = ?1 AND day = ?2 AND generation = ?3",
        Grain::Day => "SELECT count(*) FROM day_rows WHERE venue_ref = ?1 AND day = ?2 AND generation = ?3",
    }
}

fn select_sql(grain: Grain) -> &'static str {
    match grain {
        Grain::Hour => {
            "SELECT start, family, subject, slice, length_ms, value FROM hour_rows
             WHERE venue_ref = ?1 AND day = ?2 AND generation = ?3 ORDER BY start, family, subject, slice"
        }
        Grain::Day => {
            "SELECT start, family, subject, slice, length_ms, value FROM day_rows
             WHERE venue_ref = ?1 AND day = ?2 AND generation = ?3 ORDER BY start, family, subject, slice"
        }
    }
}

fn delete(data: &Connection, venue_ref: i64, day: LocalDay, generation: i64) -> Result<(), Failure> {
    for grain in GRAINS {
        data.prepare_cached(delete_sql(grain))?
            .execute((venue_ref, day.to_epoch_days(), generation))?;
    }
    Ok(())
}

fn read_generation(
    data: &Connection,
    venue_ref: i64,
    day: LocalDay,
    generation: i64,
    filter: &RowFilter,
) -> Result<Vec<AggregateRow>, Failure> {
    let mut found = Vec::new();
    for grain in GRAINS
        .into_iter()
        .filter(|&grain| filter.grain.is_none_or(|wanted| wanted == grain))
    {
        let mut select = data.prepare_cached(select_sql(grain))?;
        let mut rows = select.query((venue_ref, day.to_epoch_days(), generation))?;
        while let Some(row) = rows.next()? {
            found.extend(from_row(row, grain, filter)?);
        }
    }
    Ok(found)
}

/// A row, if the filter wants it. The value is decoded only then: it is the larger part of the work.
fn from_row(row: &Row<'_>, grain: Grain, filter: &RowFilter) -> Result<Option<AggregateRow>, Failure> {
    let family: u8 = row.get(1)?;
    let family = family_from(family)?;
    if filter
        .families
        .as_ref()
        .is_some_and(|families| !families.contains(&family))
    {
        return Ok(None);
    }
    let subject = row.get_ref(2)?.as_str().map_err(Failure::damaged_row)?;
    if filter
        .subjects
        .as_ref()
        .is_some_and(|subjects| !subjects.iter().any(|wanted| wanted == subject))
    {
        return Ok(None);
    }
    let slice = slice_from(row.get(3)?)?;
    if filter.slice.is_some_and(|wanted| wanted != slice) {
        return Ok(None);
    }
    let value = row.get_ref(5)?.as_blob().map_err(Failure::damaged_row)?;
    Ok(Some(AggregateRow {
        grain,
        start: row.get(0)?,
        length_ms: row.get(4)?,
        family,
        subject: subject.to_owned(),
        slice,
        value: decode_value(value).map_err(Failure::damaged_row)?,
    }))
}

fn family_from(number: u8) -> Result<Family, Failure> {
    Family::from_number(number).ok_or_else(|| Failure::damaged_row(format_args!("family {number}")))
}

fn slice_from(number: u8) -> Result<Slice, Failure> {
    Slice::from_number(number).ok_or_else(|| Failure::damaged_row(format_args!("slice {number}")))
}
