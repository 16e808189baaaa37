//! Whether a request is addressed to this broker at all, before anything else is looked at ([`host`] says why).
//!
//! What a request over a socket breaks of RFC 9112 was refused before (`heads`); here only the name is new.

use axum::extract::Request;
use axum::http::{StatusCode, Version, header};
use protocol::head::authority_parts;

use crate::access::host;
use crate::http::error::HttpError;
use crate::observe::counters::Refused;

/// RFC 9112 §3.2: exactly one `Host`, unless the client speaks HTTP/1.0; the authority of an absolute target goes
/// before it.
pub(crate) fn refused(request: &Request, listed: &[String]) -> Option<HttpError> {
    let bad = |sentence| Some(HttpError::new(StatusCode::BAD_REQUEST, sentence));
    let mut fields = request.headers().get_all(header::HOST).iter();
    let field = match (fields.next(), fields.next()) {
        (None, _) if request.version() == Version::HTTP_10 => None,
        (None, _) => return bad("The request has no Host."),
        (Some(field), None) => Some(field),
        (Some(_), Some(_)) => return bad("The request has more than one Host."),
    };
    let field = match field.map(|field| field.to_str()).transpose() {
        Ok(field) => field,
        Err(_) => return bad("The request has a malformed Host."),
    };
    // No browser speaks HTTP/1.0, so nobody is protected by refusing a request without any name.
    let host = request.uri().authority().map(|authority| authority.as_str()).or(field)?;
    if authority_parts(host).is_none() {
        return bad("The request has a malformed Host.");
    }
    let foreign = || HttpError::new(StatusCode::MISDIRECTED_REQUEST, host::refusal(host)).because(Refused::Host);
    (!host::allowed(host, listed)).then(foreign)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn status(version: Version, target: &str, hosts: &[&str]) -> Option<u16> {
        let mut request = Request::builder().version(version).uri(target);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        let request = request.body(Body::empty()).expect("a request");
        refused(&request, &["listed.example".to_owned()]).map(|refusal| refusal.status().as_u16())
    }

    #[test]
    fn one_host_that_is_ours() {
        let one_one = Version::HTTP_11;
        assert_eq!(status(one_one, "/", &["127.0.0.1:8080"]), None);
        assert_eq!(status(one_one, "/", &["listed.example"]), None);
        assert_eq!(status(one_one, "/", &["evil.example"]), Some(421));
        assert_eq!(status(one_one, "/", &[]), Some(400));
        assert_eq!(status(one_one, "/", &["localhost", "localhost"]), Some(400));
        assert_eq!(status(one_one, "/", &["lo cal"]), Some(400));
        assert_eq!(status(one_one, "/", &[""]), Some(400));
        assert_eq!(status(Version::HTTP_10, "/", &[]), None);
        assert_eq!(status(Version::HTTP_10, "/", &["evil.example"]), Some(421));
    }

    #[test]
    fn an_absolute_target_goes_before_the_field() {
        assert_eq!(status(Version::HTTP_11, "http://evil.example/", &["localhost"]), Some(421));
        assert_eq!(status(Version::HTTP_11, "http://localhost/", &["evil.example"]), None);
    }
}
