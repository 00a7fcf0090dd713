//! What the demo shows when it is ready: a first table, a small picture of a day, and where to go on.

use anyhow::Result;
use serde_json::Value;

use crate::cli::up::Running;
use crate::client::{Client, escape};
use crate::output::{count, sparkline, table, write_line};

/// Prints the table, the pictures, and the addresses.
pub(super) async fn print(client: &Client, running: &Running) -> Result<()> {
    write_line(&format!("\n{}", first_table(client).await?))?;
    write_line(&format!(
        "\nTram stop Hardbrücke, Saturday 16 March 2024, people coming in per hour:\n{}",
        { picture(client, "hardbruecke", "footfall", "2024-03-16", 24).await? }
    ))?;
    let yesterday = yesterday(client).await?;
    write_line(&format!(
        "\nThe simulated shop in Madrid, {yesterday}, visits per hour:\n{}",
        { picture(client, "shop", "visits", &yesterday, 24).await? }
    ))?;
    let url = &running.url;
    write_line(&format!(
        "\nExplore:\n  API and its description   {url}/docs\n  live view                 {url}/v1/venues/shop/live\n  \
         metrics of the process    {}/metrics\n  key                       {}\n  try                       \
         curl -H 'Authorization: Bearer {}' '{url}/v1/venues/shop/metrics?metric=visits,dwell_p50&from={yesterday}&to={yesterday}&by=day'",
        running.admin_url,
        running.platform.admin_key(),
        running.platform.admin_key(),
    ))
}

async fn first_table(client: &Client) -> Result<String> {
    let venues: Value = client.get("/v1/venues").await?;
    let mut rows = Vec::new();
    for venue in venues["venues"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let id = venue["id"].as_str().unwrap_or("");
        let path = format!("/v1/venues/{}/days?limit=1000", escape(id));
        let answer: Value = client.get(&path).await?;
        let days = answer["days"].as_array().map(Vec::as_slice).unwrap_or_default();
        let published: Vec<&Value> = days.iter().filter(|day| day["generation"].is_u64()).collect();
        let sum = |name: &str| published.iter().filter_map(|day| day[name].as_u64()).sum::<u64>();
        let name = |day: Option<&&Value>| day.and_then(|day| day["day"].as_str()).unwrap_or("–").to_owned();
        rows.push(vec![
            id.to_owned(),
            venue["name"].as_str().unwrap_or("").to_owned(),
            count(published.len() as u64),
            name(published.first()),
            name(published.last()),
            count(sum("events")),
            count(sum("sessions")),
        ]);
    }
    Ok(table(
        &["venue", "name", "days", "first", "last", "events", "sessions"],
        &[2, 5, 6],
        rows,
    ))
}

/// A day by hours: a line of blocks per subject with its sum.
async fn picture(client: &Client, venue: &str, metric: &str, day: &str, hours: usize) -> Result<String> {
    let path = format!(
        "/v1/venues/{}/metrics?metric={metric}&from={day}&to={day}&by=hour",
        escape(venue)
    );
    let answer: Value = client.get(&path).await?;
    let mut lines: Vec<(String, Vec<u64>)> = Vec::new();
    for bucket in answer["buckets"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
    {
        let subject = bucket["subject"].as_str().unwrap_or("").to_owned();
        let value = bucket["value"].as_f64().unwrap_or(0.0).max(0.0) as u64;
        match lines.iter_mut().find(|(name, _)| *name == subject) {
            Some((_, values)) => values.push(value),
            None => lines.push((subject, vec![value])),
        }
    }
    let width = lines
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or(0);
    let mut out = vec![format!("  {:width$}  0     6     12    18   {:>9}", "", "day")];
    out.extend(lines.iter().map(|(name, values)| {
        let blocks = sparkline(values);
        let sum: u64 = values.iter().sum();
        format!("  {name:width$}  {blocks:hours$} {:>9}", count(sum))
    }));
    Ok(out.join("\n"))
}

/// The day before the shop's latest.
async fn yesterday(client: &Client) -> Result<String> {
    let live: Value = client.get("/v1/venues/shop/live").await?;
    let today = live["today"]["day"]
        .as_str()
        .and_then(|day| day.parse::<dwell_model::time::LocalDay>().ok());
    match today {
        Some(today) => Ok(today.prev().to_string()),
        None => {
            let answer: Value = client.get("/v1/venues/shop/days?limit=1000").await?;
            let last = answer["days"]
                .as_array()
                .and_then(|days| days.first()?["day"].as_str().map(str::to_owned));
            Ok(last.unwrap_or_default())
        }
    }
}
