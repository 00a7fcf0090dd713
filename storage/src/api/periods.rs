//! Closed periods: days whose published numbers stay until an operator approves others.
//!
//! A closing is a document; so is what a later run *proposes* for a closed day: a generation whose rows are stored under
//! its number and which nobody has published. A day has one proposal at most; a newer one replaces it. The proposal
//! carries the marks and inputs that it was made of, so that equal input proposes nothing new.

use dwell_model::ids::{TenantId, VenueId, VenueKey};
use dwell_model::time::{LocalDay, TsMs};
use serde::{Deserialize, Serialize};

use super::documents::{self, DocumentKind, Documents, ListFrom, Stored};
use super::{Flip, Generation, GenerationInfo};
use crate::error::{ErrorKind, Result, StorageError};

/// Most proposals read at a time.
const PAGE: usize = 200;
/// Closings of the same days.
const SAME_DAYS_MAX: u32 = 1_000;

/// A closed period.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedPeriod {
    /// The venues; `None` for all of the tenant, also those to come.
    pub venues: Option<Vec<VenueId>>,
    /// First day.
    pub from: LocalDay,
    /// Last day, included.
    pub to: LocalDay,
    /// Why, as the operator said.
    pub reason: String,
    /// Public id of the key that closed it.
    pub closed_by: String,
    /// When.
    pub closed_at: TsMs,
    /// Who opened it again, if somebody did.
    #[serde(default)]
    pub opened: Option<Opened>,
}

/// That a period was opened again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// When.
    pub at: TsMs,
    /// Public id of the key.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl DocumentKind for ClosedPeriod {
    const COLLECTION: &'static str = "closed-periods";
}

impl ClosedPeriod {
    /// Whether it closes a day of a venue now.
    pub fn closes(&self, venue: &VenueId, day: LocalDay) -> bool {
        self.opened.is_none()
            && (self.from..=self.to).contains(&day)
            && self.venues.as_ref().is_none_or(|venues| venues.contains(venue))
    }
}

/// A generation that was computed for a closed day and is not published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proposal {
    /// The day.
    pub day: LocalDay,
    /// What became of it.
    pub state: ProposalState,
    /// The generation that it would replace.
    pub base: Generation,
    /// What it was made of and holds. `published_at` is when it was proposed. Kept as text: its checksums are longer than
    /// the numbers of a JSON document.
    #[serde(with = "as_text")]
    pub info: GenerationInfo,
}

mod as_text {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::GenerationInfo;

    pub(super) fn serialize<S: Serializer>(info: &GenerationInfo, serializer: S) -> Result<S::Ok, S::Error> {
        let text = serde_json::to_string(info).map_err(S::Error::custom)?;
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<GenerationInfo, D::Error> {
        let text = String::deserialize(deserializer)?;
        serde_json::from_str(&text).map_err(D::Error::custom)
    }
}

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProposalState {
    /// It waits for approval. Its rows are stored under its number.
    Pending,
    /// Its rows are being published under another number.
    Approving {
        /// That number.
        generation: Generation,
        /// Who approved it.
        by: String,
    },
    /// It is published.
    Approved {
        /// Under this number.
        generation: Generation,
        /// When.
        at: TsMs,
        /// Who approved it.
        by: String,
    },
    /// Its rows are gone: the input became what the published generation was made of, or the day was opened.
    Withdrawn,
}

impl DocumentKind for Proposal {
    const COLLECTION: &'static str = "proposals";
}

impl Proposal {
    /// Whether its rows must be kept.
    pub fn is_open(&self) -> bool {
        matches!(
            self.state,
            ProposalState::Pending | ProposalState::Approving { .. }
        )
    }

    /// Whether it stands for a day of which a generation is published.
    pub fn stands_beside(&self, published: Option<&GenerationInfo>) -> bool {
        self.is_open() && published.is_some_and(|info| info.generation == self.base)
    }
}

/// The periods of a tenant that are closed, as read at one moment.
#[derive(Debug, Clone, Default)]
pub struct ClosedPeriods {
    periods: Vec<ClosedPeriod>,
}

impl ClosedPeriods {
    /// Reads them.
    pub async fn read(documents: &dyn Documents, tenant: &TenantId) -> Result<Self> {
        let all = documents::all::<ClosedPeriod>(documents, tenant).await?;
        let periods = all.into_iter().map(|stored| stored.value);
        Ok(Self {
            periods: periods.filter(|period| period.opened.is_none()).collect(),
        })
    }

    /// Whether a day is closed.
    pub fn close(&self, venue: &VenueKey, day: LocalDay) -> bool {
        self.periods.iter().any(|period| period.closes(&venue.venue, day))
    }

    /// Since when a day is closed: the first of the closings in force.
    pub fn closed_since(&self, venue: &VenueId, day: LocalDay) -> Option<TsMs> {
        let closing = self.periods.iter().filter(|period| period.closes(venue, day));
        closing.map(|period| period.closed_at).min()
    }

    /// Whether no day of any venue is closed.
    pub fn is_empty(&self) -> bool {
        self.periods.is_empty()
    }
}

/// Closes a period; returns its id.
pub async fn close(documents: &dyn Documents, tenant: &TenantId, period: &ClosedPeriod) -> Result<String> {
    for n in 1..=SAME_DAYS_MAX {
        let id = format!("{}_{}_{n:04}", period.from, period.to);
        if documents::store(documents, tenant, &id, period, None).await? == Flip::Done {
            return Ok(id);
        }
    }
    let what = format!("close a period: its days were closed {SAME_DAYS_MAX} times");
    Err(StorageError::new(ErrorKind::Full, what))
}

/// Opens a period again; doing it twice changes nothing. `None` when there is no such period.
pub async fn open(
    documents: &dyn Documents,
    tenant: &TenantId,
    id: &str,
    opened: &Opened,
) -> Result<Option<Stored<ClosedPeriod>>> {
    documents::update::<ClosedPeriod>(documents, tenant, id, |period| {
        let period = period.filter(|period| period.opened.is_none())?;
        Some(ClosedPeriod {
            opened: Some(opened.clone()),
            ..period.clone()
        })
    })
    .await
}

/// The id of a day's proposal.
pub fn proposal_id(venue: &VenueKey, day: LocalDay) -> String {
    format!("{}/{day}", venue.venue)
}

/// The proposal of a day.
pub async fn proposal(
    documents: &dyn Documents,
    venue: &VenueKey,
    day: LocalDay,
) -> Result<Option<Stored<Proposal>>> {
    documents::load(documents, &venue.tenant, &proposal_id(venue, day)).await
}

/// The proposals of a venue, by day.
pub async fn proposals(documents: &dyn Documents, venue: &VenueKey) -> Result<Vec<Proposal>> {
    let prefix = format!("{}/", venue.venue);
    let (mut found, mut after) = (Vec::new(), prefix.clone());
    loop {
        let from = ListFrom::After(Some(&after));
        let page = documents
            .list(&venue.tenant, Proposal::COLLECTION, from, PAGE)
            .await?;
        let is_last = page.len() < PAGE;
        for document in page {
            if !document.id.starts_with(&prefix) {
                return Ok(found);
            }
            after.clone_from(&document.id);
            let proposal = serde_json::from_value(document.body).map_err(|error| {
                StorageError::with_source(ErrorKind::Damaged, "read a proposed generation", error)
            })?;
            found.push(proposal);
        }
        if is_last {
            return Ok(found);
        }
    }
}

/// Puts a proposal in place of an older one of its day; returns what stands then, which is another where a newer one
/// was made meanwhile.
pub async fn propose(
    documents: &dyn Documents,
    venue: &VenueKey,
    proposal: &Proposal,
) -> Result<Option<Stored<Proposal>>> {
    let id = proposal_id(venue, proposal.day);
    documents::update::<Proposal>(documents, &venue.tenant, &id, |there| {
        let is_newer = |there: &Proposal| there.info.generation > proposal.info.generation;
        (!there.is_some_and(is_newer)).then(|| proposal.clone())
    })
    .await
}

/// Changes a day's proposal as long as it is the generation meant; returns what stands then.
pub async fn change_proposal(
    documents: &dyn Documents,
    venue: &VenueKey,
    day: LocalDay,
    generation: Generation,
    change: impl Fn(&mut Proposal) + Send,
) -> Result<Option<Stored<Proposal>>> {
    documents::update::<Proposal>(documents, &venue.tenant, &proposal_id(venue, day), |there| {
        let mut proposal = there.filter(|there| there.info.generation == generation)?.clone();
        change(&mut proposal);
        (Some(&proposal) != there).then_some(proposal)
    })
    .await
}
