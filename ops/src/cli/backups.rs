//! `dwell backups`: what there is at a place, without an installation.

use anyhow::Result;
use clap::Args;
use dwell_model::time::format_rfc3339;
use dwell_storage::backup::BackupPlace;
use serde::Serialize;

use super::EngineArgs;
use crate::jobs::place_of;
use crate::output::{Output, count, table};

/// Flags of `dwell backups`.
#[derive(Debug, Args)]
pub(crate) struct BackupsArgs {
    /// Where: file:///…, s3://…, gs://…, az://…; object stores are reached as `[storage.s3]` of the configuration says
    #[arg(long, value_name = "URI")]
    at: String,
    #[command(flatten)]
    engines: EngineArgs,
}

/// A backup, for people.
#[derive(Debug, Serialize)]
struct Listed {
    backup: String,
    /// The moment that it shows.
    taken_at: Option<String>,
    duration_ms: i64,
    days: u64,
    objects: u64,
    new_objects: u64,
    bytes: u64,
    with_archive: bool,
    /// What could not be read when it was taken, or why its manifest cannot be read now.
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct List {
    place: String,
    backups: Vec<Listed>,
}

pub(crate) async fn run(args: &BackupsArgs) -> Result<()> {
    let objects = args.engines.load_config()?.engines()?.objects;
    let place = BackupPlace::open(&place_of(&args.at)?, &objects)?;
    let mut backups = Vec::new();
    for id in place.backups().await? {
        backups.push(match place.backup(&id).await {
            Ok(manifest) => Listed {
                backup: id,
                taken_at: Some(format_rfc3339(manifest.taken_at)),
                duration_ms: manifest.finished_at - manifest.taken_at,
                days: manifest.days,
                objects: manifest.objects,
                new_objects: manifest.new_objects,
                bytes: manifest.bytes,
                with_archive: manifest.tenants.iter().any(|tenant| tenant.files.is_some()),
                problems: manifest.problems,
            },
            Err(error) => Listed {
                backup: id,
                taken_at: None,
                duration_ms: 0,
                days: 0,
                objects: 0,
                new_objects: 0,
                bytes: 0,
                with_archive: false,
                problems: vec![error.to_string()],
            },
        });
    }
    let list = List {
        place: place.name().to_owned(),
        backups,
    };
    Output::from_flag(args.engines.json).result(&list, || {
        let rows = list.backups.iter().map(|backup| {
            vec![
                backup.backup.clone(),
                backup.taken_at.clone().unwrap_or_default(),
                count(backup.days),
                count(backup.objects),
                count(backup.new_objects),
                count(backup.bytes),
                if backup.with_archive { "yes" } else { "no" }.to_owned(),
                backup.problems.first().cloned().unwrap_or_default(),
            ]
        });
        let heads = [
            "backup", "shows", "days", "objects", "new", "bytes", "archive", "problem",
        ];
        table(&heads, &[2, 3, 4, 5], rows)
    })
}
