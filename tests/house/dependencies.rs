//! The dependency table of docs/ARCHITECTURE.md against `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// Who may depend on whom, normal and build dependencies; crates of one level never know each other.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("dwell-model", &[]),
    ("dwell-runtime", &["dwell-model"]),
    ("dwell-storage", &["dwell-model", "dwell-runtime"]),
    ("dwell-ingest", &["dwell-model", "dwell-runtime", "dwell-storage"]),
    (
        "dwell-speed-layer",
        &["dwell-model", "dwell-runtime", "dwell-storage"],
    ),
    (
        "dwell-batch-layer",
        &["dwell-model", "dwell-runtime", "dwell-storage"],
    ),
    (
        "dwell-serving-api",
        &["dwell-model", "dwell-runtime", "dwell-storage"],
    ),
    (
        "dwell-retention",
        &["dwell-model", "dwell-runtime", "dwell-storage"],
    ),
    (
        "dwell",
        &[
            "dwell-model",
            "dwell-runtime",
            "dwell-storage",
            "dwell-ingest",
            "dwell-speed-layer",
            "dwell-batch-layer",
            "dwell-serving-api",
            "dwell-retention",
        ],
    ),
    ("dwell-tests", &[]),
];

/// Crates that the semantic core must never see: no runtime, no I/O, no wall clock, no randomness.
const NEVER_IN_MODEL: &[&str] = &[
    "tokio",
    "axum",
    "rusqlite",
    "object_store",
    "parquet",
    "tracing",
    "getrandom",
    "ureq",
    "rand",
];

fn metadata() -> Metadata {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    MetadataCommand::new()
        .manifest_path(root)
        .no_deps()
        .exec()
        .expect("cargo metadata")
}

#[test]
fn crates_depend_only_downwards() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> = MAY_DEPEND_ON
        .iter()
        .map(|(name, on)| (*name, on.iter().copied().collect()))
        .collect();
    let metadata = metadata();
    let mut seen = BTreeSet::new();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let may = allowed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is missing in the table of this test"));
        seen.insert(name.to_owned());
        for dependency in &package.dependencies {
            let ours = dependency.name == "dwell" || dependency.name.starts_with("dwell-");
            if ours && dependency.kind != DependencyKind::Development {
                assert!(
                    may.contains(dependency.name.as_str()),
                    "{name} must not depend on {}: arrows point down only (docs/ARCHITECTURE.md)",
                    dependency.name
                );
            }
        }
    }
    assert_eq!(
        seen.len(),
        allowed.len(),
        "the table names a crate that is not in the workspace"
    );
}

#[test]
fn the_model_knows_no_runtime_and_no_io() {
    let metadata = metadata();
    let model = metadata
        .workspace_packages()
        .into_iter()
        .find(|p| p.name.as_str() == "dwell-model")
        .expect("model");
    for dependency in model
        .dependencies
        .iter()
        .filter(|d| d.kind != DependencyKind::Development)
    {
        assert!(
            !NEVER_IN_MODEL.contains(&dependency.name.as_str()),
            "dwell-model must not depend on {}: it is pure",
            dependency.name
        );
    }
}

#[test]
fn every_crate_inherits_the_strict_lints() {
    for package in metadata().workspace_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path).expect("manifest");
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{} does not inherit the lints",
            package.name
        );
    }
}
