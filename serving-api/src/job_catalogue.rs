//! Which jobs can be asked for.
//!
//! The API stores jobs and knows nothing of what they do: the part that runs them says through a [`JobCatalogue`] which
//! kinds there are and what each is told. [`DeclaredJobs`] is the catalogue for kinds that a few words describe.

use std::fmt;

use dwell_model::ids::{TenantId, VenueId};
use dwell_model::time::LocalDay;
use dwell_storage::api::{Job, Lane, Role};
use serde_json::{Map, Value, json};

/// A job as somebody asks for it, read and checked as far as that goes without knowing the kind.
#[derive(Debug, Clone, PartialEq)]
pub struct JobRequest {
    /// Whose job.
    pub tenant: TenantId,
    /// What to do.
    pub kind: String,
    /// Which venues; `None`: all of the tenant. They exist.
    pub venues: Option<Vec<VenueId>>,
    /// First local day; `None`: since ever.
    pub from: Option<LocalDay>,
    /// Last local day, included; `None`: until now.
    pub to: Option<LocalDay>,
    /// Only report what would be done.
    pub dry_run: bool,
    /// Why it is asked for.
    pub reason: Option<String>,
    /// Which queue it is to wait in; `None`: as its kind and range have it.
    pub lane: Option<Lane>,
    /// What the kind wants to know besides.
    pub options: Map<String, Value>,
}

impl JobRequest {
    /// The request as a job's `spec`: `{venues: "all" | […], from, to, dry_run}` and the options beside them.
    pub fn to_spec(&self) -> Value {
        let venues = match &self.venues {
            None => json!("all"),
            Some(venues) => venues.iter().map(|venue| Value::from(venue.as_str())).collect(),
        };
        let mut spec = self.options.clone();
        spec.insert("venues".to_owned(), venues);
        // Kinds that take no days may have options of these names: places.
        spec.entry("from").or_insert_with(|| json!(self.from));
        spec.entry("to").or_insert_with(|| json!(self.to));
        spec.insert("dry_run".to_owned(), json!(self.dry_run));
        Value::Object(spec)
    }
}

/// Why a job was refused: what is wrong and what to do, for the one who asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JobRefusal(pub String);

/// The kinds of jobs of an installation.
pub trait JobCatalogue: Send + Sync + fmt::Debug {
    /// Names and one sentence on each kind that can be asked for.
    fn kinds(&self) -> Vec<(String, String)>;

    /// Decides a request: the `spec` to be stored with the job. Pure and quick; whether there is anything to do shows
    /// when the job runs.
    fn decide(&self, request: &JobRequest) -> Result<Value, JobRefusal>;

    /// The role that may ask for jobs of a kind; never less than operator.
    fn needs(&self, kind: &str) -> Role {
        let _ = kind;
        Role::Operator
    }

    /// The `spec` of a job that does what a job that has ended could not do, and no more.
    fn retry(&self, job: &Job) -> Result<Value, JobRefusal> {
        Err(JobRefusal(format!(
            "a job {} is not taken up again: ask for a new one",
            job.kind
        )))
    }

    /// The queue that a request waits in: the one it names, else by its kind and range.
    fn lane(&self, request: &JobRequest) -> Lane {
        request.lane.unwrap_or_default()
    }

    /// Called after a job was stored, so that a worker need not wait for its next look.
    fn created(&self, job: &Job) {
        let _ = job;
    }
}

/// A kind of job that a few words describe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredJob {
    /// Its name.
    pub kind: &'static str,
    /// What it does, one sentence.
    pub summary: &'static str,
    /// Whether it takes `from` and `to`.
    pub takes_days: bool,
    /// Whether it takes `dry_run`.
    pub takes_dry_run: bool,
    /// Options that it takes besides.
    pub options: &'static [&'static str],
    /// Those of them that it cannot do without.
    pub required: &'static [&'static str],
}

/// A catalogue of declared kinds.
#[derive(Debug, Clone, Default)]
pub struct DeclaredJobs {
    kinds: Vec<DeclaredJob>,
}

impl DeclaredJobs {
    /// A catalogue of these kinds.
    pub fn new(kinds: Vec<DeclaredJob>) -> Self {
        Self { kinds }
    }
}

impl JobCatalogue for DeclaredJobs {
    fn kinds(&self) -> Vec<(String, String)> {
        self.kinds
            .iter()
            .map(|kind| (kind.kind.to_owned(), kind.summary.to_owned()))
            .collect()
    }

    fn decide(&self, request: &JobRequest) -> Result<Value, JobRefusal> {
        let refuse = |text: String| Err(JobRefusal(text));
        let Some(kind) = self.kinds.iter().find(|kind| kind.kind == request.kind) else {
            let known: Vec<_> = self.kinds.iter().map(|kind| kind.kind).collect();
            return refuse(format!(
                "there is no such kind of job; known are {}",
                known.join(", ")
            ));
        };
        if !kind.takes_days && (request.from.is_some() || request.to.is_some()) {
            return refuse(format!(
                "a job {} takes no days; leave out from and to",
                kind.kind
            ));
        }
        if !kind.takes_dry_run && request.dry_run {
            return refuse(format!("a job {} has no dry run; leave out dry_run", kind.kind));
        }
        if let Some(unknown) = request
            .options
            .keys()
            .find(|name| !kind.options.contains(&name.as_str()))
        {
            let known = if kind.options.is_empty() {
                "none".to_owned()
            } else {
                kind.options.join(", ")
            };
            return refuse(format!(
                "a job {} does not know the option {unknown:?}; it takes {known}",
                kind.kind
            ));
        }
        if let Some(missing) = kind
            .required
            .iter()
            .find(|name| !request.options.contains_key(**name))
        {
            return refuse(format!("a job {} needs the option {missing:?}", kind.kind));
        }
        Ok(request.to_spec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalogue() -> DeclaredJobs {
        DeclaredJobs::new(vec![
            DeclaredJob {
                kind: "recompute",
                summary: "Computes dirty days anew.",
                takes_days: true,
                takes_dry_run: true,
                options: &["force"],
                required: &[],
            },
            DeclaredJob {
                kind: "replay",
                summary: "Takes quarantined entries again.",
                takes_days: false,
                takes_dry_run: false,
                options: &["ids"],
                required: &["ids"],
            },
        ])
    }

    fn request(kind: &str) -> JobRequest {
        JobRequest {
            tenant: TenantId::new("t").unwrap(),
            kind: kind.to_owned(),
            venues: None,
            from: None,
            to: None,
            dry_run: false,
            reason: None,
            lane: None,
            options: Map::new(),
        }
    }

    #[test]
    fn the_spec_says_what_was_asked_for() {
        let mut asked = request("recompute");
        asked.venues = Some(vec![VenueId::new("a").unwrap()]);
        asked.from = Some("2026-03-01".parse().unwrap());
        asked.options.insert("force".to_owned(), json!(true));
        let spec = catalogue().decide(&asked).unwrap();
        let expected =
            json!({"venues": ["a"], "from": "2026-03-01", "to": null, "dry_run": false, "force": true});
        assert_eq!(spec, expected);
    }

    #[test]
    fn what_a_kind_does_not_take_is_refused_by_name() {
        let refused = |change: fn(&mut JobRequest), kind: &str| {
            let mut asked = request(kind);
            change(&mut asked);
            catalogue().decide(&asked).unwrap_err().to_string()
        };
        assert!(refused(|_| {}, "fly").contains("recompute, replay"));
        assert!(refused(|asked| asked.from = "2026-03-01".parse().ok(), "replay").contains("no days"));
        assert!(refused(|asked| asked.dry_run = true, "replay").contains("no dry run"));
        assert!(refused(|_| {}, "replay").contains("\"ids\""));
        let unknown = |asked: &mut JobRequest| {
            asked.options.insert("speed".to_owned(), json!(1));
        };
        assert!(refused(unknown, "recompute").contains("\"speed\""));
    }
}
