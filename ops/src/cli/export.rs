//! `dwell export`

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use dwell_model::ids::VenueId;
use dwell_model::time::LocalDay;

use super::TargetArgs;
use super::target::{Target, with_target};
use crate::client::escape;
use crate::export::{ExportReport, ExportedFile, Selection, Table, export};
use crate::output::{Output, count, table};

/// Flags of `dwell export`.
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Folder for the files
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Only this venue
    #[arg(long)]
    venue: Option<VenueId>,
    /// First day (local)
    #[arg(long, value_name = "DAY", default_value = "1970-01-01")]
    from: LocalDay,
    /// Last day, included
    #[arg(long, value_name = "DAY", default_value = "2199-12-31")]
    to: LocalDay,
    /// Only these tables, separated by commas
    #[arg(long, value_delimiter = ',')]
    tables: Vec<String>,
    #[command(flatten)]
    target: TargetArgs,
}

pub(crate) async fn run(args: &ExportArgs) -> Result<()> {
    let output = Output::from_flag(args.target.json);
    let tables = tables(&args.tables)?;
    with_target(&args.target, async |target| {
        let report = match target {
            Target::Opened { platform, .. } => {
                let selection = Selection {
                    tenant: platform.tenant().clone(),
                    venues: args.venue.clone().map(|venue| vec![venue]),
                    from: args.from,
                    to: args.to,
                };
                export(platform.stores(), &selection, &tables, &args.out).await?
            }
            Target::Running(_) => download(args, target, &tables).await?,
        };
        output.result(&report, || human(&report))
    })
    .await
}

fn tables(names: &[String]) -> Result<Vec<Table>> {
    if names.is_empty() {
        return Ok(Table::ALL.to_vec());
    }
    let known = || Table::ALL.map(Table::name).join(", ");
    names
        .iter()
        .map(|name| match Table::from_name(name) {
            Some(table) => Ok(table),
            None => bail!("there is no table {name:?}; known are {}", known()),
        })
        .collect()
}

/// Fetches the tables from a running instance.
async fn download(args: &ExportArgs, target: &Target, tables: &[Table]) -> Result<ExportReport> {
    std::fs::create_dir_all(&args.out)?;
    let mut files = Vec::with_capacity(tables.len());
    for table in tables {
        let mut path = format!("/v1/export/{}?from={}&to={}", table.name(), args.from, args.to);
        if let Some(venue) = &args.venue {
            path.push_str(&format!("&venue={}", escape(venue.as_str())));
        }
        let file = args.out.join(format!("{}.parquet", table.name()));
        let unfinished = file.with_extension("parquet.unfinished");
        let bytes = target.client().download(&path, &unfinished).await?;
        let rows = parquet_rows(&unfinished)?;
        std::fs::rename(&unfinished, &file)?;
        files.push(ExportedFile {
            path: file,
            rows,
            bytes,
        });
    }
    Ok(ExportReport {
        files,
        venue_days: None,
        generations: Default::default(),
    })
}

/// Rows of a Parquet file, from its footer: also tells that all of it arrived.
fn parquet_rows(path: &std::path::Path) -> Result<u64> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let reader = SerializedFileReader::new(std::fs::File::open(path)?)?;
    Ok(u64::try_from(reader.metadata().file_metadata().num_rows())?)
}

fn human(report: &ExportReport) -> String {
    table(
        &["file", "rows", "bytes"],
        &[1, 2],
        report.files.iter().map(|file| {
            vec![
                file.path.display().to_string(),
                count(file.rows),
                count(file.bytes),
            ]
        }),
    )
}
