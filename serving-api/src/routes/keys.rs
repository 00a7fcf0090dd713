//! `/v1/keys`: who may call. Secrets are shown once; only their hashes are kept.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use dwell_model::ids::VenueId;
use dwell_storage::access;
use dwell_storage::api::{AccessKey, Role};
use dwell_storage::error::ErrorKind;

use serde_json::json;

use crate::auth::role_word;
use crate::dto::{KeyDto, KeysDto, MadeKeyDto, NewKey};
use crate::extract::{ApiJson, ApiPath, Caller};
use crate::problem::{self, Problem, clip};
use crate::respond::{self, Caching};
use crate::routes::audit;
use crate::state::AppState;

/// Most keys of a tenant, those taken back included.
const KEYS_MAX: usize = 10_000;
/// Longest name of a key, in bytes.
const NAME_BYTES_MAX: usize = 200;
/// Most venues that a gateway's key names.
const VENUES_MAX: usize = 1_000;

const ROLES: [Role; 4] = [Role::Gateway, Role::Viewer, Role::Operator, Role::Admin];

/// All keys of the tenant, those taken back included.
#[utoipa::path(
    get, path = "/v1/keys", tag = "keys",
    responses((status = 200, description = "The keys, without secrets", body = KeysDto)),
)]
pub(crate) async fn list(
    State(state): State<AppState>,
    Caller(caller): Caller,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let keys = state.stores().registry.keys(&caller.tenant).await?;
    respond::json(
        &headers,
        &KeysDto {
            keys: keys.iter().map(KeyDto::from).collect(),
        },
        Caching::No,
    )
}

/// Makes a key. The answer shows it this once.
#[utoipa::path(
    post, path = "/v1/keys", tag = "keys", request_body = NewKey,
    responses((status = 201, description = "The key with its secret", body = MadeKeyDto)),
)]
pub(crate) async fn create(
    State(state): State<AppState>,
    Caller(caller): Caller,
    ApiJson(new): ApiJson<NewKey>,
) -> Result<Response, Problem> {
    let refuse = |field: &str, detail: String| Problem::new(problem::BAD_BODY, detail).about(field);
    let Some(role) = ROLES.into_iter().find(|role| role_word(*role) == new.role) else {
        let detail = format!(
            "{:?} is no role; use gateway, viewer, operator or admin",
            clip(&new.role)
        );
        return Err(refuse("role", detail));
    };
    if new.name.as_ref().is_some_and(|name| name.len() > NAME_BYTES_MAX) {
        return Err(refuse(
            "name",
            format!("the name is longer than {NAME_BYTES_MAX} bytes"),
        ));
    }
    let venues = match new.venues {
        Some(_) if role != Role::Gateway => {
            return Err(refuse(
                "venues",
                "only a gateway's key is bound to venues; leave out venues".to_owned(),
            ));
        }
        Some(names) if names.is_empty() || names.len() > VENUES_MAX => {
            return Err(refuse(
                "venues",
                format!("give 1 to {VENUES_MAX} venues, or leave out venues for all"),
            ));
        }
        Some(names) => Some(venues(&state, &caller.tenant, names).await?),
        None => None,
    };
    let registry = &state.stores().registry;
    if registry.keys(&caller.tenant).await?.len() >= KEYS_MAX {
        let detail = format!("the tenant has {KEYS_MAX} keys, which is the limit");
        return Err(Problem::new(problem::CONFLICT, detail));
    }
    let (key, secret) = access::issue(caller.tenant.clone(), role, venues, new.name, state.now_ms())?;
    registry.put_key(&key).await?;
    let details = json!({ "role": role_word(role), "venues": key.venues });
    audit::record(
        &state,
        &caller.tenant,
        &caller.key_id,
        "key.made",
        &key.id,
        details,
    )
    .await?;
    tracing::info!(made = key.id, role = role_word(role), key = %caller.key_id, "key made");
    let made = MadeKeyDto {
        about: KeyDto::from(&key),
        key: secret.reveal().to_owned(),
    };
    respond::done(StatusCode::CREATED, &made)
}

/// Takes a key back. It stops working within a second or so. The tenant's last admin key cannot be taken back.
#[utoipa::path(
    delete, path = "/v1/keys/{key}", tag = "keys",
    params(("key" = String, Path, description = "Public id of the key")),
    responses((status = 200, description = "The key, taken back", body = KeyDto)),
)]
pub(crate) async fn revoke(
    State(state): State<AppState>,
    Caller(caller): Caller,
    ApiPath(id): ApiPath<String>,
) -> Result<Response, Problem> {
    let registry = &state.stores().registry;
    let keys = registry.keys(&caller.tenant).await?;
    let unknown = || Problem::not_found("key", &id);
    let mut key = keys
        .iter()
        .find(|key| key.id == id)
        .cloned()
        .ok_or_else(unknown)?;
    if key.revoked_at.is_some() {
        return respond::done(StatusCode::OK, &KeyDto::from(&key));
    }
    let is_good_admin = |key: &AccessKey| key.role == Role::Admin && key.revoked_at.is_none();
    if is_good_admin(&key) && keys.iter().filter(|key| is_good_admin(key)).count() == 1 {
        let detail = "this is the tenant's last admin key; make another one first";
        return Err(Problem::new(problem::CONFLICT, detail));
    }
    let now = state.now_ms();
    registry
        .revoke_key(&caller.tenant, &id, now)
        .await
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => unknown(),
            _ => Problem::from(error),
        })?;
    let details = json!({ "role": role_word(key.role) });
    audit::record(
        &state,
        &caller.tenant,
        &caller.key_id,
        "key.revoked",
        &id,
        details,
    )
    .await?;
    tracing::info!(revoked = id, key = %caller.key_id, "key taken back");
    key.revoked_at = Some(now);
    respond::done(StatusCode::OK, &KeyDto::from(&key))
}

async fn venues(
    state: &AppState,
    tenant: &dwell_model::ids::TenantId,
    names: Vec<String>,
) -> Result<Vec<VenueId>, Problem> {
    let mut venues: Vec<VenueId> = Vec::with_capacity(names.len());
    for name in names {
        let venue = state
            .venue(tenant, &name)
            .await
            .map_err(|problem| problem.about("venues"))?
            .venue
            .id;
        if !venues.contains(&venue) {
            venues.push(venue);
        }
    }
    Ok(venues)
}
