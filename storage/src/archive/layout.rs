//! Where the archive's files lie, named in one place: `<tenant>/<kind>[_superseded]/venue=<venue>/day=<day>/<file>`.

use dwell_model::event::Kind;
use dwell_model::ids::{TenantId, VenueId, VenueKey};
use dwell_model::time::LocalDay;
use object_store::path::Path;

use crate::api::{Dataset, Generation};

/// Partition columns, in the order of the folders.
pub(super) const PARTITION_COLUMNS: [&str; 2] = ["venue", "day"];
/// The folder of a table's log.
pub(super) const LOG_FOLDER: &str = "_delta_log";
const SUPERSEDED: &str = "_superseded";

/// A table: a tenant's events of a kind, in one of the two datasets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct TableName {
    pub(super) tenant: TenantId,
    pub(super) kind: Kind,
    pub(super) dataset: Dataset,
}

impl TableName {
    pub(super) fn new(tenant: &TenantId, kind: Kind, dataset: Dataset) -> Self {
        Self {
            tenant: tenant.clone(),
            kind,
            dataset,
        }
    }

    /// The table of the folder `name` of a tenant.
    pub(super) fn from_folder(tenant: &TenantId, name: &str) -> Option<Self> {
        let (kind, dataset) = match name.strip_suffix(SUPERSEDED) {
            Some(kind) => (kind, Dataset::Superseded),
            None => (name, Dataset::Events),
        };
        Some(Self::new(tenant, kind.parse().ok()?, dataset))
    }

    /// The table's folder below the archive's.
    pub(super) fn folder(&self, archive: &Path) -> Path {
        let suffix = match self.dataset {
            Dataset::Events => "",
            Dataset::Superseded => SUPERSEDED,
        };
        archive
            .clone()
            .join(self.tenant.as_str())
            .join(format!("{}{suffix}", self.kind))
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.folder(&Path::default()).as_ref())
    }
}

/// A new file's path below its table's folder. The name tells the fence under which it was written, and is used once.
pub(super) fn new_file(venue: &VenueKey, day: LocalDay, fence: Generation, random: u64) -> String {
    format!("{}/part-{fence:08}-{random:016x}.parquet", day_folder(venue, day))
}

/// The folder of a day's files below its table's.
pub(super) fn day_folder(venue: &VenueKey, day: LocalDay) -> String {
    format!("venue={}/day={day}", venue.venue)
}

/// Venue and day of a file's partition values.
pub(super) fn partition(venue: Option<&str>, day: Option<&str>) -> Option<(VenueId, LocalDay)> {
    Some((VenueId::new(venue?).ok()?, day?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_name_their_tables() {
        let tenant = TenantId::new("acme").unwrap();
        for kind in Kind::ALL {
            for dataset in [Dataset::Events, Dataset::Superseded] {
                let table = TableName::new(&tenant, kind, dataset);
                let folder = table.folder(&Path::from("archive"));
                assert_eq!(folder.parts().count(), 3);
                assert_eq!(
                    TableName::from_folder(&tenant, folder.filename().unwrap()),
                    Some(table)
                );
            }
        }
        assert_eq!(TableName::from_folder(&tenant, "something"), None);
    }

    #[test]
    fn a_file_lies_in_the_folders_of_its_partition() {
        let venue = VenueKey::new(TenantId::new("acme").unwrap(), VenueId::new("v.1").unwrap());
        let path = new_file(&venue, "2026-10-25".parse().unwrap(), 7, 0xab);
        assert_eq!(
            path,
            "venue=v.1/day=2026-10-25/part-00000007-00000000000000ab.parquet"
        );
        assert_eq!(Path::parse(&path).unwrap().as_ref(), path, "needs no escaping");
    }
}
