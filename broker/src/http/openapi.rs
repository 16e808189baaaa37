//! `GET /api/openapi.json`: what the HTTP API is, for programs (OpenAPI 3.1).
//!
//! `openapi.json` describes every endpoint there is, once, and says which listener answers it (`x-listeners`;
//! `operators-only`: that of the operators, if they have one of their own); each listener is described by what it answers. A
//! test holds the paths against `routes`.

use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::MethodRouter;
use serde_json::Value;

use crate::http::app::{App, VERSION};
use crate::http::readable::readable;

/// Where it is.
pub(crate) const PATH: &str = "/api/openapi.json";

/// A listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Listener {
    /// The public one.
    Public,
    /// The public one where operators have none of their own.
    PublicAndOperators,
    /// The operators' own.
    Operators,
}

impl Listener {
    fn answers(self, listeners: &Value) -> bool {
        let is_listed =
            |name: &str| listeners.as_array().is_some_and(|names| names.iter().any(|listed| listed == name));
        match self {
            Self::Public => is_listed("public"),
            Self::PublicAndOperators => is_listed("public") || is_listed("operators"),
            Self::Operators => is_listed("operators") || is_listed("operators-only"),
        }
    }
}

/// The route of a listener's description.
pub(crate) fn route(listener: Listener) -> MethodRouter<App> {
    let text = describe(listener).to_string();
    readable(move || async move { ([(header::CONTENT_TYPE, "application/json")], text.clone()).into_response() })
}

/// What a listener answers.
fn describe(listener: Listener) -> Value {
    let mut whole: Value = serde_json::from_str(include_str!("openapi.json")).expect("it is JSON, says a test");
    whole["info"]["version"] = VERSION.into();
    let paths = whole["paths"].as_object_mut().expect("an object, says a test");
    paths.retain(|_, path| {
        let listeners = path.as_object_mut().and_then(|path| path.remove("x-listeners"));
        listener.answers(&listeners.unwrap_or_default())
    });
    whole
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Paths of a description, with parameters as routes write them.
    fn paths(listener: Listener) -> BTreeSet<String> {
        let described = describe(listener);
        described["paths"].as_object().expect("paths").keys().cloned().collect()
    }

    /// What `routes` and `page` have routes for.
    fn routes() -> BTreeSet<String> {
        let sources = [include_str!("routes.rs"), include_str!("page.rs")];
        let literals = sources.iter().flat_map(|source| {
            let routes = source.split(".route(\"").skip(1);
            routes.chain(source.split("path: \"").skip(1)).filter_map(|rest| rest.split_once('"')).map(|(path, _)| path)
        });
        let mut routes: BTreeSet<_> = literals.map(|path| path.replace("{*", "{")).collect();
        // The same request as one without a topic.
        assert!(routes.remove("/pub/") && routes.remove("/sub/"));
        routes.insert(PATH.to_owned());
        routes
    }

    #[test]
    fn every_route_is_described_and_nothing_else() {
        let mut without_own = routes();
        for own in [
            "/api/topics/{topic}/messages",
            "/api/connections",
            "/api/connections/{connection}/trace",
            "/api/users/{user}/close",
            "/api/users/{user}/revoke",
        ] {
            assert!(without_own.remove(own), "{own} is only on the operators' own listener");
        }
        assert_eq!(paths(Listener::PublicAndOperators), without_own);
        let (public, operators) = (paths(Listener::Public), paths(Listener::Operators));
        assert_eq!(&public | &operators, routes());
        let of_both: Vec<_> = public.intersection(&operators).map(String::as_str).collect();
        let expected = ["/api/openapi.json", "/healthz", "/icon.svg", "/pub/{topic}", "/readyz", "/ringyard.js", "/ws"];
        assert_eq!(of_both, expected);
    }

    #[test]
    fn references_lead_somewhere() {
        let whole = describe(Listener::PublicAndOperators);
        let text = whole.to_string();
        let mut count = 0;
        for rest in text.split("\"$ref\":\"#").skip(1) {
            let (pointer, _) = rest.split_once('"').expect("a pointer");
            assert!(whole.pointer(pointer).is_some(), "{pointer}");
            count += 1;
        }
        assert!(count > 10);
        assert!(!text.contains("x-listeners") && whole["info"]["version"] == VERSION);
    }
}
