//! The papers that a newcomer needs are there and name what exists.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_architecture_page_maps_every_crate() {
    let page = read("docs/ARCHITECTURE.md");
    for crate_folder in [
        "model",
        "runtime",
        "storage",
        "ingest",
        "speed-layer",
        "batch-layer",
        "serving-api",
        "retention",
        "ops",
        "tests",
    ] {
        assert!(
            page.contains(&format!("`{crate_folder}/`")),
            "docs/ARCHITECTURE.md does not map {crate_folder}/"
        );
    }
}

#[test]
fn paths_named_in_the_papers_exist() {
    for paper in ["README.md", "docs/ARCHITECTURE.md"] {
        let text = read(paper);
        let folder = root().join(paper).parent().expect("folder").to_owned();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with('#') {
                continue;
            }
            let path = folder.join(target.split('#').next().unwrap_or(target));
            assert!(path.exists(), "{paper} links to {target}, which does not exist");
        }
    }
}

#[test]
fn no_file_is_longer_than_it_has_reason_to_be() {
    let mut long = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("folder").flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".rs") {
                let lines = std::fs::read_to_string(&path).expect("source").lines().count();
                if lines > 800 {
                    long.push(format!("{} has {lines} lines", path.display()));
                }
            }
        }
    }
    assert!(long.is_empty(), "files over 800 lines want a split: {long:?}");
}

#[test]
fn no_personal_registry_or_machine_path_is_written_down() {
    for paper in ["README.md", "CHANGELOG.md", "docs/ARCHITECTURE.md", ".ci/run"] {
        let text = read(paper);
        for word in ["/work/", "/root/", "/farm/"] {
            assert!(
                !text.contains(word),
                "{paper} names {word}, a path of one machine"
            );
        }
    }
}
