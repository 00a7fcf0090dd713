//! Who calls, and what they may do.
//!
//! A bearer key names its tenant, and with it everything that a request can see: no path and no parameter holds a
//! tenant. The role that a route needs stands in the route table ([`crate::route_table`]).

use axum::http::{HeaderMap, header};
use dwell_storage::access::Principal;
use dwell_storage::api::Role;

use crate::problem::{self, Problem};
use crate::state::AppState;

/// Longer headers are no keys.
const HEADER_BYTES_MAX: usize = 512;

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody, without a key: what the API is, not what it holds.
    Public,
    /// Keys of at least this role. Gateways are below all roles that read: they only post events.
    AtLeast(Role),
}

/// The principal of a request's key.
pub(crate) async fn authenticate(state: &AppState, headers: &HeaderMap) -> Result<Principal, Problem> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return Err(refuse("send exactly one header `authorization: Bearer <key>`"));
    };
    let text = value.to_str().ok().filter(|text| text.len() <= HEADER_BYTES_MAX);
    let key = text
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, key)) = key else {
        return Err(refuse("send the key as `authorization: Bearer <key>`"));
    };
    match state.verifier().verify(key.trim()).await? {
        Some(principal) => Ok(principal),
        None => Err(refuse(
            "the key is not known, or was taken back; ask an admin of the tenant for a new one",
        )),
    }
}

/// Whether the principal's role suffices.
pub(crate) fn authorize(principal: &Principal, at_least: Role) -> Result<(), Problem> {
    if principal.role >= at_least {
        return Ok(());
    }
    let detail = format!(
        "the key's role is {}, this needs {} or more; ask an admin of the tenant",
        role_word(principal.role),
        role_word(at_least)
    );
    Err(Problem::new(problem::FORBIDDEN, detail))
}

/// A role as a word.
pub(crate) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Gateway => "gateway",
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

fn refuse(detail: &str) -> Problem {
    Problem::new(problem::UNAUTHENTICATED, detail)
}
