//! The router: every route of the table behind its guard, all of them behind the common ones.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::MethodFilter;

use crate::guard;
use crate::route_table::ROUTES;
use crate::stale;
use crate::state::AppState;

/// The serving API. It has no fallback of its own, so that it can be merged with other routers; wrong paths and wrong
/// methods leave as problem details all the same.
pub fn app(state: AppState) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        // Every method of the table has a filter; `route_table` is a static, so a test sees to it.
        let Ok(filter) = MethodFilter::try_from(route.method.clone()) else {
            continue;
        };
        let admit = from_fn_with_state((state.clone(), route.access), guard::admit);
        let mut handler = (route.handler)(filter);
        if route.may_be_answered_from_before() {
            handler = handler.route_layer(from_fn_with_state(state.clone(), stale::answer_from_before));
        }
        router = router.route(route.path, handler.route_layer(admit));
    }
    router
        .layer(DefaultBodyLimit::max(state.config().body_max.as_usize()))
        .layer(from_fn_with_state(state.clone(), guard::bound))
        .layer(from_fn_with_state(state.clone(), guard::observe))
        .with_state(state)
}
