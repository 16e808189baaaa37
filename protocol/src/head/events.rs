//! Which requests ask for a stream of server-sent events: `GET /sub/{filter}` or `GET /sub?topic=a&topic=b`, without a body,
//! whose `Accept` names `text/event-stream`. And where the stream begins: the query as of a raw subscription ([`RawStart`]),
//! but `Last-Event-ID`, which a browser sends when it comes back, beats what else the query says.
//!
//! Not here: who may subscribe, and the stream itself. HTML standard, 9.2; RFC 9110 §12.5.1.

use std::borrow::Cow;

use httparse::Request;

use super::Refusal;
use super::fields::Fields;
use super::plain::{BodyLength, Common};
use super::start::{RawStart, flag, place};
use super::target::{Endpoint, endpoint, filter_name, percent_decode};
use crate::topic::is_wildcard;

/// What the media type is called.
const MEDIA_TYPE: &[u8] = b"text/event-stream";

/// The most topics of one stream.
pub const EVENT_TOPICS_MAX: usize = 16;

/// A request for a stream of events. Borrows from the head.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Events<'a> {
    /// Where the head ends.
    pub head_len: usize,
    /// The topics and filters, each once; at least one.
    pub filters: Vec<Cow<'a, str>>,
    /// Where the stream begins. `position` is not set: every stream says its position.
    pub start: RawStart,
    /// Whether `start` is what a browser remembered, not what the page asked for.
    pub is_resumed: bool,
    /// It has a `Last-Event-ID` that names no place in this stream.
    pub lost_place: bool,
    /// Whether the client understands the chunked coding: HTTP/1.0 does not.
    pub is_chunked: bool,
    /// Whether messages come as `ringyard.v1` has them, with topic, offset and key (`?envelope=1`).
    pub has_envelope: bool,
    /// What is behind `?`, not decoded.
    pub query: &'a str,
    /// Where the page came from, if a page it is.
    pub origin: Option<&'a str>,
    /// The host that is called; empty if HTTP/1.0 names none.
    pub host: &'a str,
}

impl Events<'_> {
    /// Whether its messages have ids: they come from a single topic.
    #[must_use]
    pub fn has_ids(&self) -> bool {
        matches!(&self.filters[..], [topic] if !is_wildcard(topic))
    }
}

/// The stream that this request asks for, if it asks for one. Its fields have passed the rules for all requests.
///
/// # Errors
/// It asks for one that there cannot be: 400.
pub(super) fn of<'a>(
    request: &Request<'_, 'a>,
    (fields, common): (&Fields<'_, 'a>, &Common<'a>),
    head_len: usize,
    topic_len_max: usize,
) -> Result<Option<Events<'a>>, Refusal> {
    let is_path = common.path == "/sub" || common.path.starts_with("/sub/");
    if request.method != Some("GET")
        || !is_path
        || common.body != BodyLength::Bytes(0)
        || !accepts_events(fields.list("accept"))
    {
        return Ok(None);
    }
    let filters = match endpoint(common.path, topic_len_max) {
        _ if common.path == "/sub" => of_query(common.query, topic_len_max)?,
        Ok(Endpoint::Subscribe(filter)) => vec![filter],
        Ok(_) => return Ok(None),
        Err(refusal) => return Err(refusal),
    };
    let mut events = Events {
        head_len,
        filters,
        start: RawStart::default(),
        is_resumed: false,
        lost_place: false,
        is_chunked: request.version == Some(1),
        has_envelope: flag(common.query, "envelope")?,
        query: common.query,
        origin: common.origin,
        host: common.host,
    };
    let has_ids = events.has_ids();
    events.start = RawStart::read_events(common.query, has_ids)?;
    // A browser keeps an empty one to itself; so does this.
    if let Some(id) = remembered(*fields, common.query).filter(|id| !id.is_empty()) {
        match place(&id).ok().filter(|_| has_ids) {
            Some(position) => {
                (events.start.since, events.start.last) = (Some(position), None);
                events.is_resumed = true;
            }
            None => events.lost_place = true,
        }
    }
    Ok(Some(events))
}

/// What a browser remembers: `Last-Event-ID`, or, as libraries say it that make a new `EventSource`, `lastEventId` in the query. Text
/// that is none stands for what is certainly no place.
fn remembered<'a>(fields: Fields<'_, 'a>, query: &'a str) -> Option<Cow<'a, str>> {
    let mut ids = fields.lines("last-event-id");
    match (ids.next(), ids.next()) {
        (Some(id), None) => Some(str::from_utf8(id).map_or(Cow::Borrowed("?"), Cow::Borrowed)),
        (Some(_), Some(_)) => Some(Cow::Borrowed("?")),
        (None, _) => {
            let id = query.split('&').find_map(|parameter| parameter.strip_prefix("lastEventId="))?;
            Some(percent_decode(id).unwrap_or(Cow::Borrowed("?")))
        }
    }
}

/// Whether media ranges, the items of `Accept`, name the media type itself, and not only to say that it is not wanted (RFC 9110
/// §12.4.2).
pub fn accepts_events<'a>(mut ranges: impl Iterator<Item = &'a [u8]>) -> bool {
    ranges.any(|range| {
        let mut parts = range.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let is_it = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(MEDIA_TYPE));
        let is_none = |weight: &[u8]| {
            let value = weight.strip_prefix(b"q=").or_else(|| weight.strip_prefix(b"Q="));
            value.is_some_and(|value| value.iter().all(|&byte| byte == b'0' || byte == b'.'))
        };
        is_it && !parts.any(is_none)
    })
}

/// The topics that a query names.
fn of_query(query: &str, topic_len_max: usize) -> Result<Vec<Cow<'_, str>>, Refusal> {
    let mut filters: Vec<Cow<'_, str>> = Vec::new();
    for encoded in query.split('&').filter_map(|parameter| parameter.strip_prefix("topic=")) {
        let filter = filter_name(encoded, topic_len_max)?;
        if filters.contains(&filter) {
            return Err(Refusal::new(400, "The query names a topic twice."));
        }
        if filters.len() == EVENT_TOPICS_MAX {
            return Err(Refusal::new(400, format!("A stream has {EVENT_TOPICS_MAX} topics at most.")));
        }
        filters.push(filter);
    }
    match filters.is_empty() {
        true => Err(Refusal::new(400, "The query names no topic: GET /sub/{topic}, or /sub?topic=a&topic=b.")),
        false => Ok(filters),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Head, HeadLimits, parse};
    use super::*;
    use crate::v1::Position;

    fn head(line: &str, fields: &str) -> Vec<u8> {
        format!("{line}\r\nHost: a\r\n{fields}\r\n").into_bytes()
    }

    /// The filters of a stream, the offset after which it begins, whether it is resumed, and whether its place was lost.
    type Stream = (Vec<String>, Option<u64>, bool, bool);

    /// What a head asks for: a stream, or something else; or the status of its refusal.
    fn read(line: &str, fields: &str) -> Result<Option<Stream>, u16> {
        match parse(&head(line, fields), &HeadLimits::default()) {
            Ok(Head::Events(events)) => {
                let filters = events.filters.iter().map(ToString::to_string).collect();
                let offset = events.start.since.map(|place| place.offset);
                Ok(Some((filters, offset, events.is_resumed, events.lost_place)))
            }
            Ok(_) => Ok(None),
            Err(refusal) => Err(refusal.status),
        }
    }

    const SSE: &str = "Accept: text/event-stream\r\n";

    #[test]
    fn who_accepts_events_gets_a_stream() {
        let plain =
            |filters: &[&str]| Ok(Some((filters.iter().map(ToString::to_string).collect(), None, false, false)));
        for accept in ["text/event-stream", "a/b, TEXT/Event-Stream;charset=utf-8", "text/event-stream; q=0.5"] {
            let fields = format!("Accept: {accept}\r\n");
            assert_eq!(read("GET /sub/a/%2B?x=1 HTTP/1.1", &fields), plain(&["a/+"]), "{accept}");
        }
        assert_eq!(
            read("GET /sub?topic=a%2Fb&y&topic=c/# HTTP/1.1".replace('#', "%23").as_str(), SSE),
            plain(&["a/b", "c/#"])
        );
        assert_eq!(read("GET http://a/sub/t HTTP/1.1", SSE), plain(&["t"]));
        for accept in ["*/*", "text/*", "text/event-stream;q=0", "text/event-stream; Q=0.00", "text/event-streams"] {
            assert_eq!(read("GET /sub/a HTTP/1.1", &format!("Accept: {accept}\r\n")), Ok(None), "{accept}");
        }
        for line in ["HEAD /sub/a", "POST /sub/a", "GET /subs/a", "GET /bus/a", "GET /ws", "GET /"] {
            assert_eq!(read(&format!("{line} HTTP/1.1"), SSE), Ok(None), "{line}");
        }
        assert_eq!(read("GET /sub/a HTTP/1.1", &format!("{SSE}Content-Length: 1\r\n")), Ok(None), "with a body");
    }

    #[test]
    fn an_envelope_is_asked_for_in_the_query() {
        let has_envelope =
            |target: &str| match parse(&head(&format!("GET {target} HTTP/1.1"), SSE), &HeadLimits::default()) {
                Ok(Head::Events(events)) => events.has_envelope,
                other => panic!("{other:?}"),
            };
        for target in ["/sub/a?envelope=1", "/sub/%2B?state=1&envelope", "/sub?topic=a&topic=b&envelope=true"] {
            assert!(has_envelope(target), "{target}");
        }
        for target in ["/sub/a", "/sub/a?envelope=0", "/sub/a?envelopes=1"] {
            assert!(!has_envelope(target), "{target}");
        }
    }

    #[test]
    fn a_stream_that_cannot_be_is_refused() {
        let many = (0..17).map(|n| format!("topic=t{n}")).collect::<Vec<_>>().join("&");
        for target in [
            "/sub",
            "/sub?topics=a",
            "/sub?topic=",
            "/sub?topic=a&topic=%61",
            "/sub?topic=%ff",
            "/sub?topic=a+",
            "/sub/",
            "/sub/a?last=0",
            "/sub/a?since=1",
            "/sub/a?state=2",
            "/sub/a?envelope=2",
            "/sub/a?envelope=1&envelope=1",
            "/sub/%2B?last=1",
            "/sub?topic=a&topic=b&last=1",
            "/sub/a?last=1&since=00000000000000ab:1",
            "/sub/%23?since=00000000000000ab:1",
            &format!("/sub?{many}"),
        ] {
            assert_eq!(read(&format!("GET {target} HTTP/1.1"), SSE), Err(400), "{target}");
        }
        assert!(read(&format!("GET /sub?{} HTTP/1.1", &many[..many.len() - 10]), SSE).is_ok());
    }

    #[test]
    fn what_a_browser_remembers_beats_the_query() {
        let since = "since=00000000000000ab:1";
        let of = |query: &str, id: &str| {
            let read = read(&format!("GET /sub/a?{query} HTTP/1.1"), &format!("{SSE}Last-Event-ID: {id}\r\n"));
            read.map(|found| found.map(|(_, offset, is_resumed, lost)| (offset, is_resumed, lost)))
        };
        assert_eq!(of(since, "00000000000000ab:7"), Ok(Some((Some(7), true, false))));
        assert_eq!(of("last=3", "00000000000000ab:7"), Ok(Some((Some(7), true, false))));
        assert_eq!(of(since, ""), Ok(Some((Some(1), false, false))));
        let id = "lastEventId=00000000000000ab%3A9";
        assert_eq!(of(id, "00000000000000ab:7"), Ok(Some((Some(7), true, false))), "the field before the query");
        let of_query = |query: &str| {
            let read = read(&format!("GET /sub/a?{query} HTTP/1.1"), SSE).expect("a stream").expect("a stream");
            (read.1, read.2, read.3)
        };
        assert_eq!(of_query(&format!("{since}&{id}")), (Some(9), true, false));
        assert_eq!(of_query("lastEventId=%ff"), (None, false, true));
        for lost in ["x", "00000000000000AB:7", "00000000000000ab:7 x", "7", "\u{fc}"] {
            assert_eq!(of(since, lost), Ok(Some((Some(1), false, true))), "{lost}");
        }
        let fields = format!("{SSE}Last-Event-ID: 00000000000000ab:7\r\n");
        for target in ["/sub/%23", "/sub?topic=a&topic=b"] {
            let found = read(&format!("GET {target} HTTP/1.1"), &fields).expect("a stream").expect("a stream");
            assert_eq!((found.1, found.3), (None, true), "ids are only of single topics");
        }
        let twice = format!("{fields}Last-Event-ID: 00000000000000ab:8\r\n");
        assert!(read("GET /sub/a HTTP/1.1", &twice).expect("a stream").expect("a stream").3);
        let start =
            |query: &str| match parse(&head(&format!("GET /sub/a?{query} HTTP/1.0"), SSE), &HeadLimits::default()) {
                Ok(Head::Events(events)) => (events.start, events.is_chunked),
                other => panic!("{other:?}"),
            };
        let position = Some(Position { epoch: 0xab, offset: 1 });
        let expected = RawStart { since: position, state: true, ..RawStart::default() };
        assert_eq!(start(&format!("{since}&state=1&position=1")), (expected, false));
    }
}
