//! `dwell migrate` and `dwell doctor`: what the engines need, and whether they have it.

use anyhow::{Context, Result, bail};
use dwell_runtime::clock::{SharedClock, SystemClock};
use dwell_storage::backends::cassandra::{self, FindingLevel};
use dwell_storage::backends::kafka::KafkaLogAdmin;
use dwell_storage::resolver::{self, EngineSettings};
use serde::Serialize;

use super::EngineArgs;
use crate::output::{Output, table};
use crate::platform::{Base, Engines};

/// Good findings of an engine that are shown one by one; more are counted. `--json` shows all.
const GOOD_SHOWN: usize = 4;
/// What to do about a damaged database.
const MEND: &str = "keep a copy of the file, then mend it as docs/faults.md says";

/// What `migrate` did.
#[derive(Debug, Serialize)]
struct Migrated {
    /// Topics that were made.
    topics: Vec<String>,
    /// Epoch of the log; `null` where it is embedded.
    epoch: Option<u64>,
    /// Version of the tables' schema; `null` where they are embedded.
    schema: Option<u32>,
}

/// Makes topics and tables that are missing. Run it again after an upgrade; what is there is left as it is.
pub(crate) async fn migrate(args: &EngineArgs) -> Result<()> {
    let config = args.load_config()?;
    let settings = config.engines()?;
    let output = Output::from_flag(args.json);
    if settings.is_embedded() {
        // Opening brings the files up to date.
        Engines::open(&config, &Base::new()).await?.hold.release();
        let migrated = Migrated {
            topics: Vec::new(),
            epoch: None,
            schema: None,
        };
        return output.result(&migrated, || {
            format!("the files in {} are up to date", config.data_dir.display())
        });
    }
    let clock = SystemClock::shared();
    let schema = cassandra::migrate(&settings.cassandra()?, SharedClock::clone(&clock))
        .await
        .context("the tables")?;
    let created = KafkaLogAdmin::create(&settings.kafka()?, &*clock)
        .await
        .context("the event log")?;
    let migrated = Migrated {
        topics: created.topics,
        epoch: Some(created.epoch),
        schema: Some(schema),
    };
    output.result(&migrated, || {
        format!(
            "tables at schema version {schema}; event log of epoch {}, {} topics made",
            created.epoch,
            migrated.topics.len()
        )
    })
}

/// How a thing that was looked at is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    Good,
    Warning,
    Wrong,
}

/// A thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    engine: &'static str,
    health: Health,
    what: String,
    /// What to do about it.
    remedy: Option<String>,
}

/// Looks at every connection. The exit code says whether anything is wrong.
pub(crate) async fn doctor(args: &EngineArgs) -> Result<()> {
    let config = args.load_config().context("the configuration")?;
    let settings = config.engines()?;
    let clock = SystemClock::shared();
    let mut findings = Vec::new();
    match settings.is_embedded() {
        true => embedded(&config, &mut findings).await,
        false => {
            log(&settings, &mut findings).await?;
            tables(&settings, &clock, &mut findings).await?;
        }
    }
    archive(&settings, &clock, &mut findings).await;
    let wrong = findings
        .iter()
        .filter(|finding| finding.health == Health::Wrong)
        .count();
    Output::from_flag(args.json).result(&findings, || human(&findings))?;
    match wrong {
        0 => Ok(()),
        _ => bail!("{wrong} of {} things are wrong", findings.len()),
    }
}

/// What is to be looked at, and for the rest a line per engine.
fn human(findings: &[Finding]) -> String {
    let row = |finding: &Finding| {
        let health = match finding.health {
            Health::Good => "good",
            Health::Warning => "look at it",
            Health::Wrong => "WRONG",
        };
        let remedy = finding.remedy.clone().unwrap_or_default();
        vec![
            finding.engine.to_owned(),
            health.to_owned(),
            finding.what.clone(),
            remedy,
        ]
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for of_engine in findings.chunk_by(|a, b| a.engine == b.engine) {
        let (good, other): (Vec<&Finding>, Vec<&Finding>) = of_engine
            .iter()
            .partition(|finding| finding.health == Health::Good);
        match good.as_slice() {
            [] => {}
            few if few.len() <= GOOD_SHOWN => rows.extend(few.iter().map(|finding| row(finding))),
            many => rows.push(vec![
                many[0].engine.to_owned(),
                "good".to_owned(),
                format!(
                    "{}, and {} more things as they should be",
                    many[0].what,
                    many.len() - 1
                ),
                String::new(),
            ]),
        }
        rows.extend(other.into_iter().map(row));
    }
    table(&["engine", "", "found", "what to do"], &[], rows)
}

/// Opens the folder and reads every page of its databases.
async fn embedded(config: &crate::config::Config, findings: &mut Vec<Finding>) {
    let folder = config.data_dir.display();
    let finding = |health, what, remedy: Option<&str>| Finding {
        engine: "folder",
        health,
        what,
        remedy: remedy.map(str::to_owned),
    };
    let engines = match Engines::open(config, &Base::new()).await {
        Ok(engines) => engines,
        Err(error) => {
            findings.push(finding(Health::Wrong, format!("{error:#}"), None));
            return;
        }
    };
    match &engines.stores.files {
        Some(files) => match files.inspect().await {
            Ok(troubles) if troubles.is_empty() => {
                let what = format!("log and tables in {folder}: every page is sound");
                findings.push(finding(Health::Good, what, None));
            }
            Ok(troubles) => findings.extend(troubles.into_iter().map(|trouble| {
                let what = format!("{}: {}", trouble.file.display(), trouble.what);
                finding(Health::Wrong, what, Some(MEND))
            })),
            Err(error) => findings.push(finding(Health::Wrong, error.to_string(), None)),
        },
        None => findings.push(finding(Health::Good, format!("log and tables in {folder}"), None)),
    }
    engines.hold.release();
}

async fn log(settings: &EngineSettings, findings: &mut Vec<Finding>) -> Result<()> {
    let found = KafkaLogAdmin::inspect(&settings.kafka()?).await;
    findings.extend(found.into_iter().map(|found| Finding {
        engine: "event log",
        health: if found.is_ok() {
            Health::Good
        } else {
            Health::Wrong
        },
        what: format!("{}: {}", found.about, found.found),
        remedy: found.remedy,
    }));
    Ok(())
}

async fn tables(settings: &EngineSettings, clock: &SharedClock, findings: &mut Vec<Finding>) -> Result<()> {
    let found = cassandra::inspect(&settings.cassandra()?, SharedClock::clone(clock)).await;
    findings.extend(found.into_iter().map(|found| Finding {
        engine: "tables",
        health: match found.level {
            FindingLevel::Good => Health::Good,
            FindingLevel::Warning => Health::Warning,
            FindingLevel::Error => Health::Wrong,
        },
        what: found.what,
        remedy: None,
    }));
    Ok(())
}

async fn archive(settings: &EngineSettings, clock: &SharedClock, findings: &mut Vec<Finding>) {
    let archive = match resolver::open_archive(settings, clock) {
        Ok(archive) => archive,
        Err(error) => {
            findings.push(Finding {
                engine: "archive",
                health: Health::Wrong,
                what: error.to_string(),
                remedy: Some("make the folder, or correct the configuration in [storage]".to_owned()),
            });
            return;
        }
    };
    findings.extend(archive.inspect().await.into_iter().map(|found| Finding {
        engine: "archive",
        health: if found.is_ok() {
            Health::Good
        } else {
            Health::Wrong
        },
        what: format!("{}: {}", found.about, found.found),
        remedy: found.remedy,
    }));
}
