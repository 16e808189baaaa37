//! As whom a WebSocket begins: what its handshake brings, judged by the access rules. One function for both planes, because
//! a handshake is answered by a shard or, on a connection that was used before, by the control plane.
//!
//! | it brings | `/ws` | `/sub`, `/pub`, `/bus` |
//! | --- | --- | --- |
//! | nothing, and a token is needed | [`Entry::Unknown`]: `connect` has to bring it | 401 |
//! | a good one | [`Entry::Known`] | the same, if it grants the topic |
//! | a bad one in `Authorization` | 401 | 401 |
//! | a bad one as a page sends it | 101, then closed with 4400 or 4401 | the same |
//! | too few rights | every command is judged by itself | 403, for a page 101 and then 4403 |
//!
//! A stream of events is judged as a raw connection, but it begins only for those who may have it: a page learns of 401 and 403 by that
//! its `EventSource` does not come back.
//!
//! A page sends its token as a sub-protocol or as a cookie. It cannot read the status of a handshake that failed, but it can
//! read the code of a close frame.
//!
//! Not responsible for tokens (`access/authority.rs`), nor for what a connection may do later (`identities`).

use std::sync::Arc;

use protocol::frame::close_code::{BAD_TOKEN, FORBIDDEN, TOKEN_EXPIRED};
use protocol::head::{self, RawStart};
use protocol::topic::is_for_operators;

use crate::access::authority::Authority;
use crate::access::permissions::{Operation, Right};
use crate::access::principal::{Cause, Denial, Identified, Principal};
use crate::access::rejection::Rejection;
use crate::shard::handover::{Entry, Purpose};

/// What is judged of a request for a WebSocket or a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// All of its head.
    pub(crate) head: &'a [u8],
    /// The host that it calls; `None`: it names none.
    pub(crate) host: Option<&'a str>,
    /// The page that sent it.
    pub(crate) origin: Option<&'a str>,
    /// The token that it offers as a sub-protocol.
    pub(crate) offered: Option<&'a str>,
    /// The query that may hold a token, of a stream.
    pub(crate) query: Option<&'a str>,
}

impl<'a> Asked<'a> {
    /// Of a handshake.
    pub(crate) fn by_handshake(parsed: &head::Upgrade<'a>, bytes: &'a [u8]) -> Self {
        let head = &bytes[..parsed.head_len];
        Self { head, host: Some(parsed.host), origin: parsed.origin, offered: parsed.token, query: None }
    }

    /// Of a request for a stream.
    pub(crate) fn for_events(parsed: &head::Events<'a>, bytes: &'a [u8]) -> Self {
        let (head, host) = (&bytes[..parsed.head_len], Some(parsed.host).filter(|host| !host.is_empty()));
        Self { head, host, origin: parsed.origin, offered: None, query: Some(parsed.query) }
    }
}

/// The credentials of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Credentials<'a> {
    /// It brings none.
    None,
    /// In `Authorization`, as programs send it.
    Header(&'a [u8]),
    /// As a sub-protocol, in a cookie or in the query, as pages send it.
    Page(&'a [u8]),
    /// More than one, of which each could be meant.
    Several,
}

impl<'a> Credentials<'a> {
    /// Those of a request with these; a cookie counts only without any other, since browsers add it by themselves.
    pub(crate) fn of(header: Option<&'a [u8]>, offered: Option<&'a [u8]>, cookie: Option<&'a [u8]>) -> Self {
        match (header, offered, cookie) {
            (Some(_), Some(_), _) => Self::Several,
            (Some(header), None, _) => Self::Header(header),
            (None, Some(page), _) | (None, None, Some(page)) => Self::Page(page),
            (None, None, None) => Self::None,
        }
    }

    /// Those that a WebSocket or a stream is asked for with.
    pub(crate) fn of_asked(authority: &Authority, asked: Asked<'a>) -> Self {
        let Asked { head, offered, query, .. } = asked;
        if query.is_some() {
            return Self::of_request(authority, head::bearer(head), query, |name| head::cookie(head, name));
        }
        let cookie = authority.settings().cookie.and_then(|name| head::cookie(head, &name));
        Self::of(head::bearer(head), offered.map(str::as_bytes), cookie)
    }

    /// Those of a plain request; a `query` counts where the configuration says so, and then like a sub-protocol.
    pub(crate) fn of_request(
        authority: &Authority,
        header: Option<&'a [u8]>,
        query: Option<&'a str>,
        cookie: impl FnOnce(&str) -> Option<&'a [u8]>,
    ) -> Self {
        let settings = authority.settings();
        let of_query = query.filter(|_| settings.query_token).and_then(token_in);
        Self::of(header, of_query, settings.cookie.and_then(|name| cookie(&name)))
    }

    /// Whom these belong to; `None`: they are missing, and nobody without is admitted. With what finding out cost, in units
    /// of 100 ns.
    ///
    /// # Errors
    /// They are no good.
    pub(crate) fn identify(self, authority: &Authority, now_ms: u64) -> (Result<Option<Arc<Principal>>, Denial>, u32) {
        match self {
            Self::None => (Ok(authority.anonymous()), 0),
            Self::Several => {
                authority.count(Cause::Ambiguous);
                (Err(Denial::of(Cause::Ambiguous)), 0)
            }
            Self::Header(token) | Self::Page(token) => {
                let Identified { result, cost } = authority.identify(token, now_ms);
                (result.map(Some), cost)
            }
        }
    }
}

/// The value of `token` in a query; tokens have no characters that would be encoded.
fn token_in(query: &str) -> Option<&[u8]> {
    let mut tokens = query.split('&').filter_map(|parameter| parameter.strip_prefix("token="));
    let token = tokens.next()?;
    Some(if tokens.next().is_some() { b"" } else { token.as_bytes() })
}

/// As whom a WebSocket begins where there is no access control.
///
/// # Errors
/// 403: it asks for what only operators may read.
pub(crate) fn enter_open(purpose: &Purpose) -> Result<Entry, Rejection> {
    match purpose {
        Purpose::Subscribe(filter) if is_for_operators(filter) => {
            Err(Rejection::Forbidden(format!("{filter:?} is for operators")))
        }
        _ => Ok(Entry::Anyone),
    }
}

/// Judges a handshake. With the cost, in units of 100 ns of processor time.
///
/// # Errors
/// 401 or 403; [`Rejection::KeyAwaited`]: it is to be judged again later.
pub(crate) fn enter(
    authority: &Authority,
    credentials: Credentials<'_>,
    (purpose, start): (&Purpose, RawStart),
    now_ms: u64,
) -> (Result<Entry, Rejection>, u32) {
    if !authority.is_on() {
        return (enter_open(purpose), 0);
    }
    let (identified, cost) = credentials.identify(authority, now_ms);
    let is_page = matches!(credentials, Credentials::Page(_)) && !matches!(purpose, Purpose::Events(_));
    let entry = match identified {
        Ok(Some(principal)) => admit(principal, (purpose, start), is_page, authority.settings().explain),
        Ok(None) if *purpose == Purpose::V1Session => Ok(Entry::Unknown),
        Ok(None) => {
            authority.count(Cause::Missing);
            Err(Rejection::Unauthorized)
        }
        Err(denial) if is_page && !denial.awaits_key => {
            let code = if denial.is_expired() { TOKEN_EXPIRED } else { BAD_TOKEN };
            Ok(Entry::Refused(code, "the token is not a good one"))
        }
        Err(denial) => Err(denial.into()),
    };
    (entry, cost)
}

fn admit(
    principal: Arc<Principal>,
    (purpose, start): (&Purpose, RawStart),
    is_page: bool,
    explains: bool,
) -> Result<Entry, Rejection> {
    match missing(&principal, purpose, start, explains) {
        None if principal.is_anonymous() => Ok(Entry::Anyone),
        None => Ok(Entry::Known(principal)),
        Some(_) if is_page => Ok(Entry::Refused(FORBIDDEN, "nothing grants this to the token")),
        Some(what) => Err(Rejection::Forbidden(what)),
    }
}

/// What somebody lacks for a raw connection, if anything.
fn missing(principal: &Principal, purpose: &Purpose, start: RawStart, explains: bool) -> Option<String> {
    let lacks = |operation: Operation, name: &str| {
        (!principal.allows(operation, name)).then(|| principal.explain(operation, name, explains))
    };
    let wants_history = start.since.is_some() || start.last.is_some();
    let subscribe = |filter: &str| {
        let lacks_history = wants_history && !principal.has(Right::History, filter);
        let lacks = lacks(Operation::Subscribe, filter);
        lacks.or_else(|| lacks_history.then(|| principal.explain_right(Right::History, filter)))
    };
    match purpose {
        Purpose::Subscribe(filter) => subscribe(filter),
        Purpose::Publish(topic) => lacks(Operation::Publish, topic),
        Purpose::Bus(topic) => subscribe(topic).or_else(|| lacks(Operation::Publish, topic)),
        Purpose::V1Session => None,
        // Its client may not have asked for history: it is given none then, and learns that.
        Purpose::Events(stream) if stream.is_resumed => {
            stream.filters.iter().find_map(|filter| lacks(Operation::Subscribe, filter))
        }
        Purpose::Events(stream) => stream.filters.iter().find_map(|filter| subscribe(filter)),
    }
}
