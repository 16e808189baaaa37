//! Which web pages may connect: RFC 6454's origins, checked on upgrades and on requests of the HTTP API.
//!
//! A request without `Origin` comes from no web page and passes: the check protects visitors of foreign
//! pages, and is no authentication.

use protocol::head::origin_is_host;

/// Whether a request from `origin` to `host` passes: from the page's own host, or listed in `allowed`
/// (exact scheme, host and port, or `*`).
#[must_use]
pub fn allowed(origin: Option<&str>, host: &str, allowed: &[String]) -> bool {
    let Some(origin) = origin else { return true };
    origin_is_host(origin, host) || allowed.iter().any(|listed| listed == "*" || listed.eq_ignore_ascii_case(origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_host_listed_and_foreign() {
        let listed = ["https://app.example".to_owned()];
        assert!(allowed(None, "broker:8080", &[]), "no page");
        assert!(allowed(Some("http://broker:8080"), "broker:8080", &[]));
        assert!(!allowed(Some("http://broker:8081"), "broker:8080", &[]));
        assert!(allowed(Some("https://app.example"), "broker:8080", &listed));
        assert!(!allowed(Some("http://app.example"), "broker:8080", &listed), "another scheme");
        assert!(!allowed(Some("null"), "broker:8080", &listed));
        assert!(allowed(Some("null"), "broker:8080", &["*".to_owned()]));
    }
}
