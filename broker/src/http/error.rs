//! Errors of the HTTP API as answers; an answer carries its cause, by which `middleware` counts it.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::publishing::problem::CONTENT_TYPE;
pub(crate) use crate::publishing::problem::Problem as HttpError;

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::BAD_REQUEST);
        let mut response = (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], self.body()).into_response();
        for (name, value) in self.fields() {
            let value = HeaderValue::try_from(value).expect("a number or a token");
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
        if self.ends_connection() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(cause) = self.cause() {
            response.extensions_mut().insert(cause);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::Value;

    use super::*;
    use crate::access::quota::NamesFull;
    use crate::access::rejection::Rejection;
    use crate::observe::counters::Refused;

    /// A shard's bytes and the API's JSON say the same.
    #[tokio::test]
    async fn both_planes_answer_a_rejection_alike() {
        let parsed = protocol::head::Refusal::new(431, "Too long.");
        let rejections = [
            Rejection::Malformed(parsed),
            Rejection::HeadTimeout,
            Rejection::Memory,
            Rejection::Host("evil.example".to_owned()),
            Rejection::Origin,
            Rejection::NoKey,
            Rejection::WrongKey,
            Rejection::ReadOnly,
            Rejection::NoWebSockets,
            Rejection::PublishRate,
            Rejection::Draining(3),
            Rejection::Topics(NamesFull::Topics),
            Rejection::NewTopics,
            Rejection::Address,
            Rejection::Connections(4),
            Rejection::AcceptRate(5),
            Rejection::HttpConnections,
        ];
        for rejection in rejections {
            let mut bytes = Vec::new();
            rejection.answer().write_to(&mut bytes);
            let text = String::from_utf8(bytes).expect("text");
            let (cause, is_wrong_key) = (rejection.cause(), rejection == Rejection::WrongKey);
            let (head, body) = HttpError::from(rejection).into_response().into_parts();
            assert!(text.starts_with(&format!("HTTP/1.1 {} ", head.status.as_str())), "{text}");
            let wait = head.headers.get(header::RETRY_AFTER).map(|value| value.to_str().expect("a number"));
            let line = wait.map(|seconds| format!("\r\nRetry-After: {seconds}\r\n"));
            assert_eq!(text.contains("Retry-After"), line.is_some(), "{text}");
            assert!(text.contains(&line.unwrap_or_default()), "{text}");
            let scheme = head.headers.get(header::WWW_AUTHENTICATE).map(|value| value.to_str().expect("a scheme"));
            assert_eq!(scheme, (head.status == StatusCode::UNAUTHORIZED).then_some("Bearer"));
            assert_eq!(text.contains("\r\nWWW-Authenticate: Bearer\r\n"), scheme.is_some(), "{text}");
            assert_eq!(head.extensions.get::<Refused>().copied(), cause);
            let json: Value = serde_json::from_slice(&body.collect().await.expect("a body").to_bytes()).expect("JSON");
            let sentence = json["detail"].as_str().expect("a sentence");
            assert_eq!((&json["type"], &json["status"]), (&"about:blank".into(), &head.status.as_u16().into()));
            assert_eq!(head.headers[header::CONTENT_TYPE], CONTENT_TYPE);
            assert_eq!(json["code"] == "bad-token", is_wrong_key, "{json}");
            assert!(sentence.ends_with('.') && text.ends_with(&format!("\r\n\r\n{sentence}\n")), "{text}");
        }
    }
}
