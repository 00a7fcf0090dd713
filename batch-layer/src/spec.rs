//! What a run is asked to do. Stored with its job, so fields may be added with a default, none changed.

use dwell_model::ids::VenueId;
use dwell_model::time::LocalDay;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A request to work on venue-days of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunSpec {
    /// What to do with each day.
    pub what: What,
    /// Of which venues.
    pub venues: Venues,
    /// First day. Without `from` and `to`: all dirty days. With either: every day between them of which there is
    /// anything; those whose input has not changed keep their generation.
    #[serde(default)]
    pub from: Option<LocalDay>,
    /// Last day, included.
    #[serde(default)]
    pub to: Option<LocalDay>,
    /// Of the days that are meant only these; for those that an earlier run could not do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Vec<(VenueId, LocalDay)>>,
    /// Publish a new generation even where nothing has changed.
    #[serde(default)]
    pub force: bool,
    /// Whether the day that is still open is computed too (as a provisional generation). Default true.
    #[serde(default = "yes")]
    pub include_open: bool,
    /// Why, for the record.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What to do with a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Write what raw has into the archive, and no more.
    Archive,
    /// Archive, then compute and publish: a generation names the archive files that it was made of.
    #[serde(alias = "both")]
    Recompute,
    /// Read the archive files of published generations back and compare checksums and counts.
    Verify,
}

/// Which venues of the tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Venues {
    /// All that the registry has.
    All,
    /// These.
    These(Vec<VenueId>),
}

const fn yes() -> bool {
    true
}

impl RunSpec {
    /// All dirty days of all venues.
    pub fn all_dirty(what: What) -> Self {
        Self {
            what,
            venues: Venues::All,
            from: None,
            to: None,
            only: None,
            force: false,
            include_open: true,
            reason: None,
        }
    }

    /// Refuses what cannot be meant.
    pub fn validate(&self) -> Result<()> {
        if let (Some(from), Some(to)) = (self.from, self.to)
            && to < from
        {
            return Err(Error::Spec(format!(
                "the last day, {to}, lies before the first, {from}"
            )));
        }
        match &self.venues {
            Venues::These(venues) if venues.is_empty() => Err(Error::Spec("no venue is named".into())),
            _ => Ok(()),
        }
    }

    /// Whether days are named, in place of all dirty ones.
    pub fn names_days(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// Whether a venue's day is among those named one by one, or none are.
    pub fn picks(&self, venue: &VenueId, day: LocalDay) -> bool {
        let is_it = |only: &(VenueId, LocalDay)| only.0 == *venue && only.1 == day;
        self.only.as_ref().is_none_or(|only| only.iter().any(is_it))
    }

    /// Whether a day lies within `from` and `to`.
    pub fn covers(&self, day: LocalDay) -> bool {
        self.from.is_none_or(|from| from <= day) && self.to.is_none_or(|to| day <= to)
    }
}

impl What {
    /// The word, as in a job's kind.
    pub fn word(self) -> &'static str {
        match self {
            What::Archive => "archive",
            What::Recompute => "recompute",
            What::Verify => "verify",
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum VenuesForm {
    Word(String),
    List(Vec<VenueId>),
}

/// `"all"` or a list of ids.
impl Serialize for Venues {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Venues::All => serializer.serialize_str("all"),
            Venues::These(venues) => venues.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Venues {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        match VenuesForm::deserialize(deserializer)? {
            VenuesForm::Word(word) if word == "all" => Ok(Venues::All),
            VenuesForm::Word(word) => Err(serde::de::Error::custom(format!(
                "{word:?} is neither \"all\" nor a list of venues"
            ))),
            VenuesForm::List(venues) => Ok(Venues::These(venues)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_reads_as_jobs_write_it() {
        let spec: RunSpec =
            serde_json::from_str(r#"{"what":"recompute","venues":["a"],"from":"2026-03-01","force":true}"#)
                .unwrap();
        assert_eq!(spec.venues, Venues::These(vec![VenueId::new("a").unwrap()]));
        assert!(spec.force && spec.include_open && spec.names_days());
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<RunSpec>(&text).unwrap(), spec);
        let all: RunSpec = serde_json::from_str(r#"{"what":"both","venues":"all"}"#).unwrap();
        assert_eq!(all, RunSpec::all_dirty(What::Recompute));
        for refused in [
            r#"{"what":"recompute","venues":"some"}"#,
            r#"{"what":"sweep","venues":"all"}"#,
            r#"{"what":"verify","venues":"all","day":"2026-03-01"}"#,
        ] {
            assert!(serde_json::from_str::<RunSpec>(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn days_named_one_by_one_are_of_their_venue() {
        let spec: RunSpec =
            serde_json::from_str(r#"{"what":"recompute","venues":"all","only":[["a","2026-03-01"]]}"#)
                .unwrap();
        let picks = |venue: &str, day: &str| spec.picks(&VenueId::new(venue).unwrap(), day.parse().unwrap());
        assert!(picks("a", "2026-03-01"));
        assert!(!picks("b", "2026-03-01") && !picks("a", "2026-03-02"));
        assert!(
            RunSpec::all_dirty(What::Verify)
                .picks(&VenueId::new("b").unwrap(), "2026-03-02".parse().unwrap())
        );
    }

    #[test]
    fn a_range_includes_both_ends_and_may_not_be_turned_round() {
        let day = |text: &str| text.parse::<LocalDay>().unwrap();
        let mut spec = RunSpec::all_dirty(What::Recompute);
        spec.from = Some(day("2026-03-02"));
        spec.to = Some(day("2026-03-03"));
        let covered: Vec<_> = day("2026-03-01")
            .through(day("2026-03-04"))
            .filter(|day| spec.covers(*day))
            .collect();
        assert_eq!(covered, [day("2026-03-02"), day("2026-03-03")]);
        spec.validate().unwrap();
        spec.to = Some(day("2026-03-01"));
        assert!(spec.validate().is_err());
        spec.to = None;
        spec.venues = Venues::These(vec![]);
        assert!(spec.validate().is_err());
    }
}
