//! Lists that come in pages, newest first, each page going on after the last id of the one before.

use super::cursor::{self, QueryId};
use super::text;
use crate::config::Config;
use crate::problem::Problem;

/// Entries of a page, from `limit` of a request.
pub(crate) fn limit(config: &Config, text: Option<&str>) -> Result<usize, Problem> {
    text::limit(text, config.page_entries_default(), config.page_entries_max)
}

/// A page that was asked for.
#[derive(Debug)]
pub(crate) struct Page {
    query: QueryId,
    limit: usize,
    before: Option<String>,
}

impl Page {
    /// Reads `limit` and `cursor` of a request; `query` says what is listed.
    pub(crate) fn read(
        config: &Config,
        limit: Option<&str>,
        cursor: Option<&str>,
        query: QueryId,
    ) -> Result<Self, Problem> {
        Ok(Self {
            query,
            limit: self::limit(config, limit)?,
            before: cursor
                .map(|text| cursor::decode::<String>(query, text))
                .transpose()?,
        })
    }

    /// The id before which the page begins; `None`: at the newest.
    pub(crate) fn before(&self) -> Option<&str> {
        self.before.as_deref()
    }

    /// How many to read: one more than the page has tells whether there is a next one.
    pub(crate) fn to_read(&self) -> usize {
        self.limit + 1
    }

    /// Leaves the page's entries of those that were read; returns the next page's cursor, if there is one.
    pub(crate) fn cut<T>(
        &self,
        entries: &mut Vec<T>,
        id: impl Fn(&T) -> &str,
    ) -> Result<Option<String>, Problem> {
        let more = entries.len() > self.limit;
        entries.truncate(self.limit);
        match entries.last().filter(|_| more) {
            Some(last) => cursor::encode(self.query, &id(last).to_owned()).map(Some),
            None => Ok(None),
        }
    }
}
