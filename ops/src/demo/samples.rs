//! The sample data that is part of the binary (see `ops/demo-data/README.md` for sources and licences).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dwell_ingest::sources::files::MappingSpec;

/// Venues of the demo, as `dwell venues apply` takes them.
pub(super) const VENUES: &str = include_str!("../../demo-data/venues.json");

/// A file with its mapping.
pub(super) struct Sample {
    /// What it is, for people.
    pub(super) about: &'static str,
    name: &'static str,
    bytes: &'static [u8],
    mapping: Option<&'static str>,
}

macro_rules! sample {
    ($about:literal, $name:literal) => {
        Sample {
            about: $about,
            name: $name,
            bytes: include_bytes!(concat!("../../demo-data/", $name)),
            mapping: None,
        }
    };
    ($about:literal, $name:literal, $mapping:literal) => {
        Sample {
            about: $about,
            name: $name,
            bytes: include_bytes!(concat!("../../demo-data/", $name)),
            mapping: Some(include_str!(concat!("../../demo-data/", $mapping))),
        }
    };
}

/// All of them.
pub(super) const SAMPLES: [Sample; 5] = [
    sample!(
        "door counts of a tram stop in Zürich, two weeks of 2024",
        "doors.csv.zst",
        "doors.toml"
    ),
    sample!(
        "receipts of three grocery stores, two weeks of 2017",
        "receipts.ndjson.zst"
    ),
    sample!(
        "paths through a shopping mall, 2019",
        "mall_paths.csv.zst",
        "mall_paths.toml"
    ),
    sample!(
        "people, CO2 and ventilation of two university rooms, a week of 2017",
        "rooms.csv.zst",
        "rooms.toml"
    ),
    sample!(
        "people under a ceiling sensor, four minutes of 2019",
        "xovis.csv.zst",
        "xovis.toml"
    ),
];

impl Sample {
    /// Puts the file into a folder.
    pub(super) fn write(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(self.name);
        std::fs::write(&path, self.bytes).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Its mapping.
    pub(super) fn mapping(&self) -> Result<MappingSpec> {
        match self.mapping {
            Some(text) => Ok(MappingSpec::from_toml(self.name, text)?),
            None => Ok(MappingSpec::default()),
        }
    }
}
