//! `dwell demo`: the whole platform on real sample data, and a simulated shop that streams live.
//!
//! Everything goes the way it goes in earnest: venues over the API, files through the import, the shop's people as posts of
//! a gateway, days computed by a job.

mod samples;
mod shop;
mod tour;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::http::Method;
use dwell_ingest::sources::files::NoProgress;
use dwell_model::time::{DAY_MS, TsMs};
use dwell_runtime::shutdown::Phase;
use dwell_runtime::tasks::TaskPolicy;
use dwell_runtime::telemetry::LogHandle;
use serde_json::{Value, json};

use crate::cli::DemoArgs;
use crate::cli::target::create_job;
use crate::cli::up::Running;
use crate::client::Client;
use crate::config::Config;
use crate::importing::ImportRequest;
use crate::output::{Output, count};
use crate::roles::Roles;
use samples::SAMPLES;

/// Events of one post of the simulated gateway.
const EVENTS_PER_POST: usize = 5_000;
/// How often the simulated gateway posts.
const POST_EVERY: Duration = Duration::from_millis(500);

pub(crate) async fn run(args: &DemoArgs, log: LogHandle) -> Result<()> {
    let mut config = Config {
        data_dir: args.data_dir.clone(),
        listen: args.listen,
        ..Config::default()
    };
    config.admin_listen.set_port(0);
    config.log.filter = "warn".to_owned();
    let say = |line: &str| crate::output::write_line(line);
    say("Dwell demo: starting everything in this process")?;
    let Some(mut running) = Running::start(config, Roles::All, log).await? else {
        return Ok(());
    };
    let client = Client::http(&running.url, running.platform.admin_key())?;
    let shown = prepare(&running, &client, &say).await;
    let outcome = match shown {
        Ok(posted_until) if !args.exit => {
            tour::print(&client, &running).await?;
            stream(&running, posted_until)?;
            say("\nThe shop goes on live. Ctrl-C stops.")?;
            running.until_stopped().await;
            Ok(())
        }
        Ok(_) => tour::print(&client, &running).await,
        Err(error) => Err(error),
    };
    let closed = running.close().await;
    outcome?;
    closed
}

/// Venues, files, the shop's last two days, and the computation. Returns until when the shop has been posted.
async fn prepare(running: &Running, client: &Client, say: &impl Fn(&str) -> Result<()>) -> Result<TsMs> {
    let venues: Value = serde_json::from_str(samples::VENUES).context("the demo's venues")?;
    client
        .json::<Value>(Method::PUT, "/v1/venues", Some(&venues))
        .await?;
    let folder = running.platform.data_dir().join("samples");
    std::fs::create_dir_all(&folder)?;
    for sample in &SAMPLES {
        let request = ImportRequest {
            to_archive: false,
            mapping: sample.mapping()?,
        };
        let path = sample.write(&folder)?;
        let tenant = running.platform.tenant();
        let report = running
            .platform
            .importer()
            .run(tenant, vec![path], &request, Arc::new(NoProgress))
            .await?;
        let accepted: u64 = report.files.iter().map(|file| file.accepted).sum();
        say(&format!("  {:>9} events  {}", count(accepted), sample.about))?;
    }
    let now = running.platform.clock().now_ms();
    let from = now - now.rem_euclid(DAY_MS) - DAY_MS;
    let posted = post(client, from, now).await?;
    say(&format!(
        "  {:>9} events  a simulated shop, since yesterday, posted over HTTP",
        count(posted)
    ))?;
    let job = create_job(client, &json!({ "kind": "recompute", "reason": "demo" })).await?;
    let job = crate::cli::jobs::wait_for(client, job, Output::Human).await?;
    anyhow::ensure!(
        job["state"] == "succeeded",
        "the computation ended as {}: {}",
        job["state"],
        job["error"]
    );
    say(&format!(
        "  {:>9} venue-days archived, computed and published",
        count(job["report"]["computed"].as_u64().unwrap_or(0))
    ))?;
    Ok(now)
}

/// Posts the shop's people of a stretch of time.
async fn post(client: &Client, from: TsMs, to: TsMs) -> Result<u64> {
    let sightings = shop::sightings(from, to);
    for batch in sightings.chunks(EVENTS_PER_POST) {
        let mut body = String::with_capacity(batch.len() * 90);
        for one in batch {
            let event =
                json!({ "sensor": one.sensor, "track": one.track, "ts": one.ts, "x": one.x, "y": one.y });
            body.push_str(&event.to_string());
            body.push('\n');
        }
        let path = "/v1/venues/shop/events";
        let answer = client
            .send_bytes(
                Method::POST,
                path,
                Some("application/x-ndjson"),
                body.into_bytes(),
            )
            .await?;
        answer.json::<Value>()?;
    }
    Ok(sightings.len() as u64)
}

/// Lets the shop go on until shutdown.
fn stream(running: &Running, mut posted_until: TsMs) -> Result<()> {
    let client = Client::http(&running.url, running.platform.admin_key())?;
    let clock = Arc::clone(running.platform.clock());
    let token = running
        .platform
        .controller()
        .register(Phase::StopAccepting, "simulated shop");
    running
        .platform
        .tasks()
        .spawn("simulated shop", TaskPolicy::Log, async move {
            loop {
                tokio::select! {
                    () = token.requested() => return,
                    () = clock.sleep(POST_EVERY) => {}
                }
                let now = clock.now_ms();
                match post(&client, posted_until, now).await {
                    Ok(_) => posted_until = now,
                    // Sent again with the next ones; what was taken already changes nothing.
                    Err(error) => tracing::warn!(%error, "the simulated shop could not post"),
                }
            }
        });
    Ok(())
}
