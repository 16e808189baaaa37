//! `GET /api/topics?match=FILTER&limit=N`: what goes on in topics, for operators.
//!
//! | step | where | cost |
//! | --- | --- | --- |
//! | the topics that match, those with most subscriptions of their own | a thread for blocking work, over the registry | linear in names |
//! | their offsets, and the bytes that wait | each shard, twice, a second apart | a look-up per topic |
//! | rates, order, answer | here | |
//!
//! Bounds: one such request is answered at a time; [`INSPECTED_MAX`] topics are looked at. Nothing of it is on the way of
//! messages: rates come from offsets.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use protocol::head::percent_decode;
use protocol::topic::{check_filter, matches};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::http::app::App;
use crate::http::error::HttpError;
use crate::http::send_control;
use crate::ids::{Epoch, Offset, ShardId, TopicId};
use crate::publishing::problem::Code;
use crate::shard::shared::{ControlMessage, INSPECTED_MAX, SharedState, TopicState};
use crate::topics::filters::Filters;

/// Topics that are listed unless the request says how many.
const LIMIT_DEFAULT: usize = 100;
/// The time over which rates are measured.
const MEASURED: Duration = Duration::from_secs(1);
/// How long all shards may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

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
}

/// What is asked for.
#[derive(PartialEq, Eq, Debug)]
struct Query {
    filter: String,
    limit: usize,
}

/// A topic that is looked at.
#[derive(PartialEq, Eq, Debug)]
struct Candidate {
    id: TopicId,
    name: Arc<str>,
    subscribers: u32,
}

/// A topic by its own subscriptions and its name: the least of several is the first to be left out.
type Ranked = Reverse<(u32, Reverse<Arc<str>>, TopicId)>;

/// The handler.
pub(crate) async fn show(State(app): State<App>, request: Request) -> Result<Json<Listing>, HttpError> {
    let query = Query::read(request.uri().query().unwrap_or_default(), app.limits().topic_bytes_max)?;
    let Ok(_turn) = app.listing().try_lock() else {
        return Err(HttpError::unavailable("Another list of topics is being made: try again in a second."));
    };
    let (matched, candidates) = {
        let (app, filter) = (app.clone(), query.filter);
        let found = tokio::task::spawn_blocking(move || candidates(app.shared(), &filter)).await;
        found.map_err(|_| HttpError::unavailable("The topics could not be listed: try again."))?
    };
    let ids: Arc<[TopicId]> = candidates.iter().map(|candidate| candidate.id).collect();
    let before = inspect(&app, &ids).await?;
    let begun = Instant::now();
    sleep(MEASURED).await;
    let now = inspect(&app, &ids).await?;
    let elapsed = begun.elapsed();
    let states = before.into_iter().zip(now);
    let mut topics: Vec<Row> = candidates
        .into_iter()
        .zip(states)
        .filter_map(|(candidate, (before, now))| row(candidate, before, now, elapsed))
        .collect();
    topics.sort_by(|a, b| {
        let rates = b.messages_per_second.total_cmp(&a.messages_per_second);
        rates.then(b.subscribers.cmp(&a.subscribers)).then_with(|| a.topic.cmp(&b.topic))
    });
    topics.truncate(query.limit);
    let truncated = matched > topics.len();
    Ok(Json(Listing { matched, truncated, measured_ms: elapsed.as_millis() as u64, topics }))
}

impl Query {
    fn read(query: &str, topic_bytes_max: usize) -> Result<Self, HttpError> {
        let (mut filter, mut limit) = (None, None);
        for member in query.split('&').filter(|member| !member.is_empty()) {
            let (name, value) = member.split_once('=').unwrap_or((member, ""));
            let place = match name {
                "match" => &mut filter,
                "limit" => &mut limit,
                _ => return Err(HttpError::bad(format_args!("There is no {name:?} here; there is match and limit."))),
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
            Some(limit) => Ok(Self { filter, limit }),
            None => Err(HttpError::bad(format_args!("limit is a number from 1 to {INSPECTED_MAX}."))),
        }
    }
}

/// How many topics match, and those to look at: of too many, those with most subscriptions of their own, then in the order
/// of their names. Linear in names; to be called where that holds up nobody.
fn candidates(shared: &SharedState, filter: &str) -> (usize, Vec<Candidate>) {
    let mut filters = Vec::new();
    let mut best: BinaryHeap<Ranked> = BinaryHeap::new();
    let mut matched = 0;
    shared.registry.each_name(|topic| {
        if topic.wildcard {
            filters.push((Arc::clone(&topic.name), topic.subscriptions()));
        } else if matches(filter, &topic.name) {
            matched += 1;
            best.push(Reverse((topic.subscriptions(), Reverse(Arc::clone(&topic.name)), topic.id)));
            if best.len() > INSPECTED_MAX {
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
    let candidate = |Reverse((own, Reverse(name), id)): Ranked| {
        let mut subscribers = own;
        subscribed.each_match(&name, |subscriptions| subscribers = subscribers.saturating_add(*subscriptions));
        Candidate { id, name, subscribers }
    };
    (matched, best.into_iter().map(candidate).collect())
}

/// What all shards together know of these topics now.
async fn inspect(app: &App, topics: &Arc<[TopicId]>) -> Result<Vec<TopicState>, HttpError> {
    let asked = async {
        let mut answers = Vec::new();
        for shard in ShardId::all(app.shards()) {
            let (answer, answered) = oneshot::channel();
            send_control(app.shared(), shard, ControlMessage::Inspect { topics: Arc::clone(topics), answer }).await;
            answers.push(answered);
        }
        let mut sums = vec![TopicState::default(); topics.len()];
        for answered in answers {
            for (sum, state) in sums.iter_mut().zip(answered.await.ok()?) {
                sum.position = sum.position.or(state.position);
                sum.waiting_bytes += state.waiting_bytes;
            }
        }
        Some(sums)
    };
    let unanswered = || HttpError::unavailable("The shards have too much to do, or are shutting down: try again.");
    timeout(PATIENCE, asked).await.ok().flatten().ok_or_else(unanswered)
}

/// `None` if the topic has gone.
fn row(candidate: Candidate, before: TopicState, now: TopicState, elapsed: Duration) -> Option<Row> {
    let (epoch, next) = now.position?;
    let messages = published(before.position, (epoch, next));
    // To a tenth: more would be noise.
    let messages_per_second = (messages as f64 / elapsed.as_secs_f64().max(0.001) * 10.0).round() / 10.0;
    Some(Row {
        topic: candidate.name.as_ref().to_owned(),
        epoch: format!("{:016x}", epoch.0),
        offset: next.0 - 1,
        messages_per_second,
        subscribers: candidate.subscribers,
        waiting_bytes: now.waiting_bytes,
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
        let query = |filter: &str, limit| Ok(Query { filter: filter.to_owned(), limit });
        assert_eq!(read(""), query("#", 100));
        assert_eq!(read("match=chat/+/%23&limit=7"), query("chat/+/#", 7));
        assert_eq!(read("limit=1000&match=r%C3%A4um&"), query("räum", 1000));
        for bad in [
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

    #[test]
    fn those_with_most_subscriptions_are_looked_at() {
        let shared = SharedState::new(1, 1, Epoch(1));
        let names: Vec<_> = (0..INSPECTED_MAX + 50).map(|n| shared.registry.resolve(&format!("t/{n:05}"))).collect();
        let other = shared.registry.resolve("other");
        let filter = shared.registry.resolve("t/+");
        for topic in [&names[1040], &names[1040], &names[1041], &other, &filter, &filter, &filter] {
            topic.subscription_begins();
        }
        let (matched, found) = candidates(&shared, "t/#");
        let found: BTreeMap<_, _> =
            found.into_iter().map(|found| (found.name.to_string(), found.subscribers)).collect();
        assert_eq!((matched, found.len()), (INSPECTED_MAX + 50, INSPECTED_MAX));
        assert_eq!((found["t/01040"], found["t/01041"], found["t/00000"]), (5, 4, 3));
        assert!(found.contains_key("t/00997") && !found.contains_key("t/00998"), "then by name");
        let (matched, found) = candidates(&shared, "other");
        assert_eq!((matched, found.len(), found[0].subscribers), (1, 1, 1));
    }

    #[test]
    fn a_rate_is_what_offsets_say() {
        let (old, new) = (Epoch(1), Epoch(2));
        assert_eq!(published(Some((old, Offset(5))), (old, Offset(12))), 7);
        assert_eq!(published(Some((old, Offset(5))), (new, Offset(4))), 3);
        assert_eq!(published(None, (new, Offset(1))), 0);
        let candidate = || Candidate { id: TopicId(1), name: "t".into(), subscribers: 3 };
        let state = |position| TopicState { position, waiting_bytes: 9, ..TopicState::default() };
        let made =
            row(candidate(), state(Some((old, Offset(1)))), state(Some((old, Offset(4)))), Duration::from_secs(2));
        let made = made.expect("a topic");
        assert_eq!((made.offset, made.messages_per_second, made.subscribers, made.waiting_bytes), (3, 1.5, 3, 9));
        assert_eq!(row(candidate(), state(None), state(None), Duration::from_secs(1)), None);
    }
}
