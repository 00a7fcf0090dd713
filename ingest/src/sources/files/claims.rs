//! Claims: each content once per tenant.
//!
//! A file's receipt is a hash of tenant and content, and of the mapping where there is one: the same bytes read another
//! way are other events, and a mistaken mapping must not bar the right one.

use std::io::{self, Read};

use dwell_model::event::Delivery;
use dwell_model::ids::{Receipt, TenantId};
use dwell_model::time::TsMs;
use dwell_storage::api::ImportClaim;
use hashbrown::HashMap;
use sha2::{Digest, Sha256};

use super::error::ImportError;
use super::open::Input;
use super::progress::{ImportPhase, Tracker};
use super::report::{FileReport, FileState, ImportReport};
use super::{ImportDeps, ImportOptions};

/// A file with its receipt, or what kept it from being read.
#[derive(Debug)]
pub(super) struct Hashed {
    input: Input,
    bytes: u64,
    receipt: io::Result<Receipt>,
}

/// A file that is this import's to read.
#[derive(Debug)]
pub(super) struct Claimed {
    /// The file.
    pub(super) input: Input,
    /// Its size.
    pub(super) bytes: u64,
    /// What its events carry.
    pub(super) delivery: Delivery,
    /// Its place in [`ImportReport::files`].
    pub(super) report: usize,
}

/// Hashes all files. Blocking.
pub(super) fn hash_all(
    inputs: Vec<Input>,
    tenant: &TenantId,
    mapping_fingerprint: &[u8],
    tracker: &Tracker,
) -> Vec<Hashed> {
    let size = |input: &Input| {
        input
            .open()
            .and_then(|file| file.metadata())
            .map_or(0, |metadata| metadata.len())
    };
    let sized: Vec<(Input, u64)> = inputs
        .into_iter()
        .map(|input| (size(&input), input))
        .map(|(n, i)| (i, n))
        .collect();
    tracker.begin(
        ImportPhase::Hashing,
        sized.iter().map(|(_, bytes)| bytes).sum(),
        0,
    );
    let hash = |(input, bytes): (Input, u64)| {
        let receipt = content_hash(&input, tracker).map(|mut content| {
            content.extend_from_slice(mapping_fingerprint);
            Receipt::derive(format!("import {tenant}").as_bytes(), &content)
        });
        Hashed {
            input,
            bytes,
            receipt,
        }
    };
    sized.into_iter().map(hash).collect()
}

fn content_hash(input: &Input, tracker: &Tracker) -> io::Result<Vec<u8>> {
    let mut file = input.open()?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize().to_vec()),
            n => {
                hash.update(&buffer[..n]);
                tracker.bytes(n as u64);
            }
        }
    }
}

/// Claims all files. Those that are finished, unreadable or there twice are reported at once; the others are returned.
pub(super) async fn claim_all(
    hashed: Vec<Hashed>,
    options: &ImportOptions,
    deps: &ImportDeps,
    started_at: TsMs,
    report: &mut ImportReport,
) -> Result<Vec<Claimed>, ImportError> {
    let mut claimed: Vec<Claimed> = Vec::new();
    let mut names: HashMap<Receipt, String> = HashMap::new();
    for Hashed {
        input,
        bytes,
        receipt,
    } in hashed
    {
        let mut file = FileReport {
            path: input.name.clone(),
            state: FileState::Imported,
            receipt: None,
            accepted: 0,
            refused: 0,
            errors: Vec::new(),
        };
        let receipt = match receipt {
            Ok(receipt) => receipt,
            Err(error) => {
                file.state = FileState::Failed;
                file.errors.push(format!("{}: {error}", input.name));
                report.files.push(file);
                continue;
            }
        };
        file.receipt = Some(receipt);
        if let Some(twin) = names.get(&receipt) {
            file.state = FileState::AlreadyImported;
            file.errors
                .push(format!("{} has the same content as {twin}", input.name));
            report.files.push(file);
            continue;
        }
        names.insert(receipt, input.name.clone());
        let wanted = ImportClaim {
            receipt,
            name: input.name.clone(),
            road: options.road.name().to_owned(),
            received_at: started_at,
            finished_at: None,
            accepted: 0,
            refused: 0,
        };
        let stands = deps.stores.imports.claim(&options.tenant, &wanted).await?;
        if stands.finished_at.is_some() {
            file.state = FileState::AlreadyImported;
            (file.accepted, file.refused) = (stands.accepted, stands.refused);
        } else {
            let delivery = Delivery {
                received_at: stands.received_at,
                receipt,
            };
            claimed.push(Claimed {
                input,
                bytes,
                delivery,
                report: report.files.len(),
            });
        }
        report.files.push(file);
    }
    Ok(claimed)
}
