//! The one table of routes: path, method, who may call, handler. The router, the OpenAPI document and the test that
//! walks every route with every role are all made from it.

use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, on};
use dwell_storage::api::Role;

use crate::auth::Access;
use crate::routes;
use crate::state::AppState;

/// A route.
#[derive(Debug)]
pub struct Route {
    /// Its method; `HEAD` comes with `GET`.
    pub method: Method,
    /// Its path, names in braces.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    /// Makes its handler.
    pub(crate) handler: fn(MethodFilter) -> MethodRouter<AppState>,
}

impl Route {
    /// Whether an older answer is better than none: for queries of numbers, not for what operators work on.
    pub(crate) fn may_be_answered_from_before(&self) -> bool {
        self.method == Method::GET && self.access == VIEWER
    }
}

const PUBLIC: Access = Access::Public;
const VIEWER: Access = Access::AtLeast(Role::Viewer);
const OPERATOR: Access = Access::AtLeast(Role::Operator);
const ADMIN: Access = Access::AtLeast(Role::Admin);

macro_rules! routes {
    ($($method:ident $path:literal $access:ident $handler:path;)+) => {
        &[$(Route {
            method: Method::$method,
            path: $path,
            access: $access,
            handler: |filter| on(filter, $handler),
        }),+]
    };
}

/// All routes of this API.
pub static ROUTES: &[Route] = routes! {
    GET "/v1/venues" VIEWER routes::venues::list;
    PUT "/v1/venues" ADMIN routes::venues::apply;
    GET "/v1/venues/{venue}" VIEWER routes::venues::get;
    GET "/v1/venues/{venue}/metrics" VIEWER routes::metrics::get;
    POST "/v1/query" VIEWER routes::query::post;
    GET "/v1/venues/{venue}/live" VIEWER routes::live::get;
    GET "/v1/venues/{venue}/live/stream" VIEWER routes::live::stream;
    GET "/v1/venues/{venue}/sessions" VIEWER routes::sessions::list;
    GET "/v1/venues/{venue}/sessions/{session}" VIEWER routes::sessions::get;
    GET "/v1/venues/{venue}/transitions" VIEWER routes::transitions::get;
    GET "/v1/venues/{venue}/heatmap" VIEWER routes::heatmap::get;
    GET "/v1/venues/{venue}/days" VIEWER routes::days::list;
    GET "/v1/venues/{venue}/days/{day}" VIEWER routes::days::get;
    GET "/v1/venues/{venue}/changes" VIEWER routes::changes::list;
    GET "/v1/venues/{venue}/explain" VIEWER routes::explain::get;
    GET "/v1/definitions" VIEWER routes::definitions::list;
    GET "/v1/periods" OPERATOR routes::periods::list;
    POST "/v1/periods" OPERATOR routes::periods::close;
    POST "/v1/periods/{period}/open" OPERATOR routes::periods::open;
    POST "/v1/jobs" OPERATOR routes::jobs::create;
    GET "/v1/jobs" OPERATOR routes::jobs::list;
    GET "/v1/jobs/{job}" OPERATOR routes::jobs::get;
    POST "/v1/jobs/{job}/cancel" OPERATOR routes::jobs::cancel;
    POST "/v1/jobs/{job}/retry" OPERATOR routes::jobs::retry;
    GET "/v1/audit" OPERATOR routes::audit::list;
    GET "/v1/exclusions" OPERATOR routes::exclusions::list;
    GET "/v1/quarantine" OPERATOR routes::quarantine::list;
    GET "/v1/quarantine/{entry}" OPERATOR routes::quarantine::get;
    POST "/v1/quarantine/{entry}/drop" OPERATOR routes::quarantine::discard;
    GET "/v1/keys" ADMIN routes::keys::list;
    POST "/v1/keys" ADMIN routes::keys::create;
    DELETE "/v1/keys/{key}" ADMIN routes::keys::revoke;
    GET "/openapi.json" PUBLIC routes::documentation::openapi;
    GET "/docs" PUBLIC routes::documentation::page;
};
