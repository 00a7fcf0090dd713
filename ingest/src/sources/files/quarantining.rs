//! Refused rows on their way into the quarantine.

use std::sync::Arc;

use dwell_model::ids::Receipt;
use hashbrown::HashMap;

use super::error::ImportError;
use super::intake::RefusedRow;
use super::reading::Import;
use crate::quarantine::{Origin, QuarantineKeeper, QuarantineLimits};
use crate::refusal::Refusal;

/// Keeps the refused rows of an import, up to the limit of each file.
pub(super) struct Quarantining<'a> {
    import: &'a Import<'a>,
    keeper: QuarantineKeeper,
    file_entries_max: usize,
    /// How many rows of a file were given to the keeper.
    of_file: HashMap<Receipt, usize>,
}

impl<'a> Quarantining<'a> {
    /// Nothing kept yet.
    pub(super) fn new(import: &'a Import<'a>) -> Self {
        let stores = &import.deps.stores;
        let limits = import.options.quarantine;
        // Rows come in pieces: the limit of the whole is kept here.
        let piece = QuarantineLimits {
            message_entries_max: usize::MAX,
            ..limits
        };
        let (store, keys) = (Arc::clone(&stores.quarantine), Arc::clone(&stores.pseudonym_keys));
        let keeper = QuarantineKeeper::new(store, keys, import.presence.pseudonymiser(), piece);
        Self {
            import,
            keeper,
            file_entries_max: limits.message_entries_max,
            of_file: HashMap::new(),
        }
    }

    /// Keeps some rows.
    pub(super) async fn keep(&mut self, rows: Vec<RefusedRow>) -> Result<(), ImportError> {
        let mut rest = rows.as_slice();
        while let Some(first) = rest.first() {
            let same = rest.iter().take_while(|row| row.origin == first.origin).count();
            let (some, others) = rest.split_at(same);
            rest = others;
            let origin = &first.origin;
            let before = self.of_file.entry(origin.delivery.receipt).or_default();
            let some = &some[..some.len().min(self.file_entries_max.saturating_sub(*before))];
            *before += some.len();
            let mut bytes = Vec::new();
            let mut refusals: Vec<Refusal> = Vec::with_capacity(some.len());
            for row in some {
                let mut refusal = row.refusal.clone();
                (refusal.place.start, refusal.place.len) = (bytes.len() as u32, row.bytes.len() as u32);
                bytes.extend_from_slice(&row.bytes);
                refusals.push(refusal);
            }
            let message = Origin {
                tenant: &self.import.options.tenant,
                receipt: origin.entry_receipt(),
                received_at: origin.delivery.received_at,
                source: &origin.source,
                format: origin.format,
                header: origin.header.as_deref(),
                numbered_by_line: true,
            };
            self.keeper
                .keep(&message, self.import.presence.venues(), &bytes, &refusals)
                .await?;
        }
        Ok(())
    }
}
