//! `$sys/topics`: every other second, while an operator subscribes to it, the topics with most messages, most bytes and most
//! subscribers.
//!
//! | what | from where | cost |
//! | --- | --- | --- |
//! | messages and bytes | sequencers, which count while they are asked (`shard/busiest.rs`) | a look-up per message |
//! | subscribers | the registry, looked through on a thread for blocking work | linear in names: [`NAMES_PER_SECOND`] on average |
//! | offsets, and bytes that wait | each shard (`inspect`) | a look-up per topic that is listed |
//!
//! Nothing is asked while nobody subscribes. Numbers of subscribers may be as old as the last look through the registry.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use protocol::topic::BUSIEST;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::http::app::App;
use crate::http::shards::{ask_all, within_patience};
use crate::http::topics::kind_name;
use crate::http::{inspect, sys};
use crate::ids::TopicId;
use crate::shard::shared::{BusyTopic, ControlMessage, SharedState, TopicState};
use crate::topics::filters::Filters;
use crate::topics::rules::HistoryKind;

/// How often.
const PERIOD: Duration = Duration::from_secs(2);
/// Topics that are listed for each of the three.
const LISTED_MAX: usize = 50;
/// Names that are looked at on average.
const NAMES_PER_SECOND: usize = 10_000;

/// The payload.
#[derive(PartialEq, Serialize, Debug)]
struct Listing {
    /// Topics and filters that are registered.
    registered: usize,
    /// The time over which messages and bytes were counted.
    measured_ms: u64,
    /// Those that are among the first by messages, by bytes or by subscribers; by messages, then by name.
    topics: Vec<Row>,
}

#[derive(PartialEq, Serialize, Debug)]
struct Row {
    topic: String,
    /// To a tenth.
    messages_per_second: f64,
    /// Of payloads.
    bytes_per_second: u64,
    /// Subscriptions in force that match it.
    subscribers: u32,
    /// Of its last message.
    offset: u64,
    /// Messages that subscriptions to this very topic have not been sent yet, in bytes.
    waiting_bytes: u64,
    history: &'static str,
}

/// Who subscribes, as of the last look through the registry.
struct Audience {
    /// Filters with wildcards that have subscriptions.
    filters: Filters<u32>,
    /// Topics with most subscriptions of their own.
    most: Vec<Arc<str>>,
    /// When to look again.
    until: Instant,
}

/// A topic by its subscriptions and its name: the least of several is the first to be left out.
type Ranked = Reverse<(u32, Reverse<Arc<str>>)>;

/// A topic that is listed.
struct Listed {
    id: TopicId,
    history: HistoryKind,
    subscribers: u32,
    counted: BusyTopic,
}

/// Publishes for as long as the runtime runs and the broker stays.
pub(crate) async fn run(app: App) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut asked, mut audience) = (None, None);
    while !app.is_stopping() {
        ticks.tick().await;
        if sys::is_read(&app, BUSIEST) {
            let (before, now) = (asked.replace(Instant::now()), Instant::now());
            // The first question only has it counted.
            if let (Some(counted), Some(before)) = (count(&app, true).await, before) {
                publish(&app, &counted, now - before, &mut audience).await;
            }
        } else if asked.take().is_some() {
            audience = None;
            count(&app, false).await;
        }
    }
}

/// What all sequencers counted since they were asked last; `None`: one has too much to do.
async fn count(app: &App, goes_on: bool) -> Option<Vec<BusyTopic>> {
    let asked = ask_all(app, |answer| ControlMessage::Busiest { goes_on, answer });
    let parts = within_patience(asked).await.ok()?;
    Some(parts.into_iter().flat_map(|(_, part)| part).collect())
}

async fn publish(app: &App, counted: &[BusyTopic], measured: Duration, known: &mut Option<Audience>) {
    if known.as_ref().is_none_or(|known| known.until <= Instant::now()) {
        let app = app.clone();
        *known = tokio::task::spawn_blocking(move || audience(app.shared())).await.ok();
    }
    let Some(known) = known else { return };
    let listed = listed(app.shared(), counted, known);
    let ids: Arc<[TopicId]> = listed.iter().map(|listed| listed.id).collect();
    let Ok(states) = inspect::topics(app, &ids).await else { return };
    let mut topics: Vec<Row> =
        listed.into_iter().zip(&states).map(|(listed, state)| row(listed, state, measured)).collect();
    topics.sort_by(|a, b| b.messages_per_second.total_cmp(&a.messages_per_second).then_with(|| a.topic.cmp(&b.topic)));
    let (registered, measured_ms) = (app.shared().registry.len(), measured.as_millis() as u64);
    sys::publish(app, BUSIEST, &Listing { registered, measured_ms, topics });
}

/// Looks at every name.
fn audience(shared: &SharedState) -> Audience {
    let (mut filters, mut looked_at) = (Vec::new(), 0_usize);
    let mut best: BinaryHeap<Ranked> = BinaryHeap::new();
    shared.registry.each_name(|topic| {
        looked_at += 1;
        let subscriptions = topic.subscriptions();
        if subscriptions == 0 {
            return;
        }
        if topic.wildcard {
            filters.push((Arc::clone(&topic.name), subscriptions));
            return;
        }
        // The last one goes as soon as there is a better one.
        if best.len() < LISTED_MAX || best.peek().is_some_and(|Reverse((least, _))| *least < subscriptions) {
            best.push(Reverse((subscriptions, Reverse(Arc::clone(&topic.name)))));
            if best.len() > LISTED_MAX {
                best.pop();
            }
        }
    });
    let mut subscribed = Filters::new(shared.registry.keys());
    for (name, subscriptions) in filters {
        // A name may come twice if it went and came back meanwhile.
        if subscribed.get(&name).is_none() {
            subscribed.insert(name, subscriptions);
        }
    }
    let most = best.into_iter().map(|Reverse((_, Reverse(name)))| name).collect();
    let rest = Duration::from_secs_f64(looked_at as f64 / NAMES_PER_SECOND as f64);
    Audience { filters: subscribed, most, until: Instant::now() + rest }
}

/// The topics that are among the first by anything, as far as they are still there.
fn listed(shared: &SharedState, counted: &[BusyTopic], audience: &Audience) -> Vec<Listed> {
    let mut found: HashMap<Arc<str>, BusyTopic> = HashMap::new();
    let first_by = |key: fn(&BusyTopic) -> u64| {
        let mut sorted: Vec<&BusyTopic> = counted.iter().collect();
        sorted.sort_by_key(|topic| (Reverse(key(topic)), Arc::clone(&topic.name)));
        sorted.truncate(LISTED_MAX);
        sorted
    };
    for topic in first_by(|topic| topic.messages).into_iter().chain(first_by(|topic| topic.bytes)) {
        found.insert(Arc::clone(&topic.name), topic.clone());
    }
    for name in &audience.most {
        let counted = counted.iter().find(|topic| topic.name == *name).cloned();
        let nothing = || BusyTopic { name: Arc::clone(name), messages: 0, bytes: 0 };
        found.entry(Arc::clone(name)).or_insert_with(|| counted.unwrap_or_else(nothing));
    }
    let listed = |(name, counted): (Arc<str>, BusyTopic)| {
        let topic = shared.registry.find(&name)?;
        let mut subscribers = topic.subscriptions();
        audience.filters.each_match(&name, |subscriptions| subscribers = subscribers.saturating_add(*subscriptions));
        Some(Listed { id: topic.id, history: topic.history, subscribers, counted })
    };
    found.into_iter().filter_map(listed).collect()
}

fn row(listed: Listed, state: &TopicState, measured: Duration) -> Row {
    let Listed { history, subscribers, counted: BusyTopic { name, messages, bytes }, .. } = listed;
    let seconds = measured.as_secs_f64().max(0.001);
    Row {
        topic: name.as_ref().to_owned(),
        // More would be noise.
        messages_per_second: (messages as f64 / seconds * 10.0).round() / 10.0,
        bytes_per_second: (bytes as f64 / seconds).round() as u64,
        subscribers,
        offset: state.position.map_or(0, |(_, next)| next.0 - 1),
        waiting_bytes: state.waiting_bytes,
        history: kind_name(history),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Offset};

    fn busy(name: &str, messages: u64, bytes: u64) -> BusyTopic {
        BusyTopic { name: name.into(), messages, bytes }
    }

    #[test]
    fn the_first_by_messages_bytes_and_subscribers_are_listed() {
        let shared = SharedState::new(1, 1, Epoch(1));
        let names: Vec<_> = (0..200).map(|n| shared.registry.resolve(&format!("t/{n:03}"))).collect();
        let filter = shared.registry.resolve("t/+");
        for topic in [&names[199], &names[199], &names[198], &filter] {
            topic.subscription_begins();
        }
        // By messages 0 to 49, by bytes 50 to 99, and others.
        let mut counted: Vec<_> = (0..50).map(|n| busy(&names[n].name, 100, 0)).collect();
        counted.extend((50..100).map(|n| busy(&names[n].name, 2, 1000)));
        counted.extend((100..150).map(|n| busy(&names[n].name, 1, 10)));
        counted.push(busy("gone", 999, 999));
        let audience = audience(&shared);
        assert_eq!(audience.most.len(), 2);
        let mut found = listed(&shared, &counted, &audience);
        found.sort_by(|a, b| a.counted.name.cmp(&b.counted.name));
        let names: Vec<&str> = found.iter().map(|listed| &*listed.counted.name).collect();
        // The one that has gone took a place by messages.
        assert_eq!(
            (names.len(), names[48], names[49], names[99], names[100]),
            (101, "t/048", "t/050", "t/198", "t/199")
        );
        assert_eq!([0, 99, 100].map(|at| found[at].subscribers), [1, 2, 3]);
    }

    #[test]
    fn rates_are_per_second() {
        let counted = busy("a", 7, 1000);
        let listed = Listed { id: TopicId(1), history: HistoryKind::Keyed, subscribers: 3, counted };
        let state = TopicState { position: Some((Epoch(1), Offset(8))), waiting_bytes: 5, ..TopicState::default() };
        let row = row(listed, &state, Duration::from_millis(2000));
        let expected = Row {
            topic: "a".into(),
            messages_per_second: 3.5,
            bytes_per_second: 500,
            subscribers: 3,
            offset: 7,
            waiting_bytes: 5,
            history: "keyed",
        };
        assert_eq!(row, expected);
    }
}
