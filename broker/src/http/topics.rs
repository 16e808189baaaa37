//! `GET /api/topics?match=FILTER&after=NAME&limit=N`: what goes on in topics, for operators.
//!
//! | step | where | cost |
//! | --- | --- | --- |
//! | the topics that match, those with most subscriptions of their own, or with `after` the next ones by name | a thread for blocking work, over the registry | linear in names |
//! | their offsets, what they remember, and the bytes that wait (`inspect`) | each shard, twice, a second apart | a look-up per topic |
//! | rates, order, answer | here | |
//!
//! Bounds: one such request is answered at a time; [`INSPECTED_MAX`] topics are looked at. Nothing of it is on the way of
//! messages: rates come from offsets.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State as Extracted};
use protocol::head::percent_decode;
use protocol::topic::{check_filter, matches};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::http::app::App;
use crate::http::error::HttpError;
use crate::http::inspect::{self, State, Window};
use crate::ids::{Epoch, Offset, TopicId};
use crate::publishing::problem::Code;
use crate::shard::shared::{INSPECTED_MAX, SharedState, TopicState};
use crate::topics::filters::Filters;
use crate::topics::rules::{HistoryKind, Rules};

/// Topics that are listed unless the request says how many.
const LIMIT_DEFAULT: usize = 100;
/// The time over which rates are measured.
const MEASURED: Duration = Duration::from_secs(1);

/// The answer.
#[derive(Serialize, Debug)]
pub(crate) struct Listing {
    /// Topics that match the filter.
    matched: usize,
    /// Whether more match than are listed.
    truncated: bool,
    /// The time over which rates were measured.
    measured_ms: u64,
    topics: Vec<Row>,
}

/// One topic.
#[derive(Clone, PartialEq, Serialize, Debug)]
struct Row {
    topic: String,
    epoch: String,
    /// Of its last message; 0 before the first.
    offset: u64,
    messages_per_second: f64,
    /// Subscriptions in force that match it.
    subscribers: u32,
    /// Messages that subscriptions to this very topic have not been sent yet, in bytes, on all shards.
    waiting_bytes: u64,
    /// The kind of its history.
    history: &'static str,
    /// The filter of the rule that applies; `None`: no table matches.
    rule: Option<String>,
    window: Option<Window>,
    state: State,
}

/// What is asked for.
#[derive(PartialEq, Eq, Debug)]
struct Query {
    filter: String,
    after: Option<String>,
    limit: usize,
}

/// Which topics are looked at.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) filter: String,
    /// Only those that come later in the order of names, and then the first of them; otherwise those with most subscriptions.
    pub(crate) after: Option<String>,
    /// So many.
    pub(crate) most: usize,
}

/// A topic that is looked at.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Candidate {
    pub(crate) id: TopicId,
    name: Arc<str>,
    pub(crate) history: HistoryKind,
    pub(crate) subscribers: u32,
}

/// A topic by its own subscriptions, unless names alone count, and its name: the least of several is the first to be left out.
type Ranked = Reverse<(u32, Reverse<Arc<str>>)>;

/// The handler.
pub(crate) async fn show(Extracted(app): Extracted<App>, request: Request) -> Result<Json<Listing>, HttpError> {
    let query = Query::read(request.uri().query().unwrap_or_default(), app.limits().topic_bytes_max)?;
    let Ok(_turn) = app.listing().try_lock() else {
        return Err(HttpError::unavailable("Another list of topics is being made: try again in a second."));
    };
    let by_name = query.after.is_some();
    // Of those that are looked at the busiest are listed; by name, the first.
    let most = if by_name { query.limit } else { INSPECTED_MAX };
    let (matched, candidates) = find(&app, Selection { filter: query.filter, after: query.after, most }).await?;
    let ids: Arc<[TopicId]> = candidates.iter().map(|candidate| candidate.id).collect();
    let before = inspect::topics(&app, &ids).await?;
    let begun = Instant::now();
    sleep(MEASURED).await;
    let now = inspect::topics(&app, &ids).await?;
    let elapsed = begun.elapsed();
    let states = before.into_iter().zip(now);
    let rules = app.shared().rules.current();
    let mut topics: Vec<Row> = candidates
        .into_iter()
        .zip(states)
        .filter_map(|(candidate, (before, now))| row(candidate, before, now, elapsed, &rules))
        .collect();
    topics.sort_by(|a, b| {
        let rates = b.messages_per_second.total_cmp(&a.messages_per_second);
        let busiest = rates.then(b.subscribers.cmp(&a.subscribers));
        (if by_name { Ordering::Equal } else { busiest }).then_with(|| a.topic.cmp(&b.topic))
    });
    topics.truncate(query.limit);
    let truncated = matched > if by_name { most } else { topics.len() };
    Ok(Json(Listing { matched, truncated, measured_ms: elapsed.as_millis() as u64, topics }))
}

impl Query {
    fn read(query: &str, topic_bytes_max: usize) -> Result<Self, HttpError> {
        let (mut filter, mut after, mut limit) = (None, None, None);
        for member in query.split('&').filter(|member| !member.is_empty()) {
            let (name, value) = member.split_once('=').unwrap_or((member, ""));
            let place = match name {
                "match" => &mut filter,
                "after" => &mut after,
                "limit" => &mut limit,
                _ => {
                    let sentence = format_args!("There is no {name:?} here; there is match, after and limit.");
                    return Err(HttpError::bad(sentence));
                }
            };
            let value =
                percent_decode(value).ok_or_else(|| HttpError::bad("The query is not percent-encoded UTF-8."))?;
            if place.replace(value).is_some() {
                return Err(HttpError::bad(format_args!("The query has {name} twice.")));
            }
        }
        let filter = filter.map_or_else(|| "#".to_owned(), |filter| filter.into_owned());
        check_filter(&filter, topic_bytes_max).map_err(|error| {
            HttpError::bad(format_args!("match is no filter: {error} (write '#' as %23)")).coded(Code::BadTopic)
        })?;
        let limit = limit.map_or(Ok(LIMIT_DEFAULT), |limit| limit.parse());
        match limit.ok().filter(|limit| (1..=INSPECTED_MAX).contains(limit)) {
            Some(limit) => Ok(Self { filter, after: after.map(|after| after.into_owned()), limit }),
            None => Err(HttpError::bad(format_args!("limit is a number from 1 to {INSPECTED_MAX}."))),
        }
    }
}

/// How many topics match, and those to look at, found where that holds up nobody.
pub(crate) async fn find(app: &App, selection: Selection) -> Result<(usize, Vec<Candidate>), HttpError> {
    let app = app.clone();
    let found = tokio::task::spawn_blocking(move || candidates(app.shared(), &selection)).await;
    found.map_err(|_| HttpError::unavailable("The topics could not be listed: try again."))
}

/// How many topics match, and those to look at: of too many, those with most subscriptions of their own, then in the order
/// of their names; or only in that order. Linear in names.
fn candidates(shared: &SharedState, selection: &Selection) -> (usize, Vec<Candidate>) {
    let Selection { filter, after, most } = selection;
    let mut filters = Vec::new();
    let mut best: BinaryHeap<Ranked> = BinaryHeap::new();
    let mut matched = 0;
    shared.registry.each_name(|topic| {
        if topic.wildcard {
            filters.push((Arc::clone(&topic.name), topic.subscriptions()));
            return;
        }
        let is_later = after.as_ref().is_none_or(|after| *topic.name > **after);
        if is_later && matches(filter, &topic.name) {
            matched += 1;
            let rank = if after.is_some() { 0 } else { topic.subscriptions() };
            best.push(Reverse((rank, Reverse(Arc::clone(&topic.name)))));
            if best.len() > *most {
                best.pop();
            }
        }
    });
    let mut subscribed = Filters::new(shared.registry.keys());
    for (name, subscriptions) in filters {
        // A name may come twice if it went and came back meanwhile.
        if subscriptions > 0 && subscribed.get(&name).is_none() {
            subscribed.insert(name, subscriptions);
        }
    }
    let candidate = |Reverse((_, Reverse(name))): Ranked| {
        // It may have gone since.
        let topic = shared.registry.find(&name)?;
        let mut subscribers = topic.subscriptions();
        subscribed.each_match(&name, |subscriptions| subscribers = subscribers.saturating_add(*subscriptions));
        Some(Candidate { id: topic.id, name, history: topic.history, subscribers })
    };
    (matched, best.into_iter().filter_map(candidate).collect())
}

/// The name of a kind of history, as the configuration has it.
pub(crate) fn kind_name(kind: HistoryKind) -> &'static str {
    kind.name().unwrap_or("none")
}

/// `None` if the topic has gone.
fn row(candidate: Candidate, before: TopicState, now: TopicState, elapsed: Duration, rules: &Rules) -> Option<Row> {
    let (epoch, next) = now.position?;
    let messages = published(before.position, (epoch, next));
    // To a tenth: more would be noise.
    let messages_per_second = (messages as f64 / elapsed.as_secs_f64().max(0.001) * 10.0).round() / 10.0;
    let rule = rules.get(rules.rule_of(&candidate.name)).filter.clone();
    Some(Row {
        topic: candidate.name.as_ref().to_owned(),
        epoch: format!("{:016x}", epoch.0),
        offset: next.0 - 1,
        messages_per_second,
        subscribers: candidate.subscribers,
        waiting_bytes: now.waiting_bytes,
        history: kind_name(candidate.history),
        rule: Some(rule).filter(|filter| !filter.is_empty()),
        window: Window::of(&now.remembered),
        state: State::of(&now.remembered),
    })
}

/// How many messages a topic got between two looks. With another epoch it began anew between them.
fn published(before: Option<(Epoch, Offset)>, (epoch, next): (Epoch, Offset)) -> u64 {
    match before {
        Some((was, offset)) if was == epoch => next - offset,
        _ => next.0 - 1,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn queries() {
        let read = |query| Query::read(query, 255).map_err(|error| error.status());
        let query = |filter: &str, limit| Ok(Query { filter: filter.to_owned(), after: None, limit });
        assert_eq!(read(""), query("#", 100));
        assert_eq!(read("match=chat/+/%23&limit=7"), query("chat/+/#", 7));
        assert_eq!(read("limit=1000&match=r%C3%A4um&"), query("räum", 1000));
        let after = Some("a#b".to_owned());
        assert_eq!(read("after=a%23b"), Ok(Query { filter: "#".to_owned(), after, limit: 100 }));
        assert_eq!(read("after=").map(|query| query.after), Ok(Some(String::new())), "from the first one on");
        for bad in [
            "after=a&after=b",
            "after=%ff",
            "match=",
            "match=a/%23/b",
            "match=%",
            "match=%ff",
            "match=a%23",
            "limit=0",
            "limit=1001",
            "limit=x",
            "limit",
            "match=a&match=a",
            "filter=a",
        ] {
            assert_eq!(read(bad), Err(400), "{bad}");
        }
    }

    fn selection(filter: &str, after: Option<&str>, most: usize) -> Selection {
        Selection { filter: filter.to_owned(), after: after.map(str::to_owned), most }
    }

    #[test]
    fn pages_go_by_name() {
        let shared = SharedState::new(1, 1, Epoch(1));
        let names: Vec<_> = (0..30).map(|n| shared.registry.resolve(&format!("t/{n:02}"))).collect();
        names[29].subscription_begins();
        let (mut after, mut seen) = (String::new(), Vec::new());
        loop {
            let (matched, found) = candidates(&shared, &selection("t/#", Some(&after), 7));
            assert_eq!(matched, 30 - seen.len());
            let mut page: Vec<_> = found.into_iter().map(|found| found.name.to_string()).collect();
            page.sort_unstable();
            let Some(last) = page.last() else { break };
            after.clone_from(last);
            seen.extend(page);
        }
        let all: Vec<_> = names.iter().map(|topic| topic.name.to_string()).collect();
        assert_eq!(seen, all);
    }

    #[test]
    fn those_with_most_subscriptions_are_looked_at() {
        let shared = SharedState::new(1, 1, Epoch(1));
        let names: Vec<_> = (0..INSPECTED_MAX + 50).map(|n| shared.registry.resolve(&format!("t/{n:05}"))).collect();
        let other = shared.registry.resolve("other");
        let filter = shared.registry.resolve("t/+");
        for topic in [&names[1040], &names[1040], &names[1041], &other, &filter, &filter, &filter] {
            topic.subscription_begins();
        }
        let (matched, found) = candidates(&shared, &selection("t/#", None, INSPECTED_MAX));
        let found: BTreeMap<_, _> =
            found.into_iter().map(|found| (found.name.to_string(), found.subscribers)).collect();
        assert_eq!((matched, found.len()), (INSPECTED_MAX + 50, INSPECTED_MAX));
        assert_eq!((found["t/01040"], found["t/01041"], found["t/00000"]), (5, 4, 3));
        assert!(found.contains_key("t/00997") && !found.contains_key("t/00998"), "then by name");
        let (matched, found) = candidates(&shared, &selection("other", None, INSPECTED_MAX));
        assert_eq!((matched, found.len(), found[0].subscribers), (1, 1, 1));
    }

    #[test]
    fn a_rate_is_what_offsets_say() {
        let (old, new) = (Epoch(1), Epoch(2));
        assert_eq!(published(Some((old, Offset(5))), (old, Offset(12))), 7);
        assert_eq!(published(Some((old, Offset(5))), (new, Offset(4))), 3);
        assert_eq!(published(None, (new, Offset(1))), 0);
        let history = HistoryKind::Window;
        let candidate = || Candidate { id: TopicId(1), name: "t".into(), history, subscribers: 3 };
        let state = |position| TopicState { position, waiting_bytes: 9, ..TopicState::default() };
        let row = |before, now| row(candidate(), state(before), state(now), Duration::from_secs(2), &Rules::default());
        let made = row(Some((old, Offset(1))), Some((old, Offset(4))));
        let made = made.expect("a topic");
        assert_eq!((made.offset, made.messages_per_second, made.subscribers, made.waiting_bytes), (3, 1.5, 3, 9));
        assert_eq!((made.history, made.rule, made.window), ("window", None, None));
        assert_eq!(row(None, None), None);
    }
}
