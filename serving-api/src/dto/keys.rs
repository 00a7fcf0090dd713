//! Access keys on the wire. Secrets appear once, in the answer to their creation.

use dwell_storage::api::AccessKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::instant;
use crate::auth::role_word;

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKey {
    /// gateway, viewer, operator or admin.
    pub(crate) role: String,
    /// For gateways: the venues that it may post to; all when left out.
    #[serde(default)]
    pub(crate) venues: Option<Vec<String>>,
    /// For people.
    #[serde(default)]
    pub(crate) name: Option<String>,
}

/// A key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyDto {
    id: String,
    role: &'static str,
    venues: Option<Vec<String>>,
    name: Option<String>,
    created_at: String,
    /// When it was taken back; null while it is good.
    revoked_at: Option<String>,
}

/// A key that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MadeKeyDto {
    #[serde(flatten)]
    pub(crate) about: KeyDto,
    /// The key itself. It is shown this once; only its hash is kept.
    pub(crate) key: String,
}

/// All keys of the tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeysDto {
    pub(crate) keys: Vec<KeyDto>,
}

impl From<&AccessKey> for KeyDto {
    fn from(key: &AccessKey) -> Self {
        Self {
            id: key.id.clone(),
            role: role_word(key.role),
            venues: key
                .venues
                .as_ref()
                .map(|venues| venues.iter().map(ToString::to_string).collect()),
            name: key.name.clone(),
            created_at: instant(key.created_at),
            revoked_at: key.revoked_at.map(instant),
        }
    }
}
