//! Leases and last wills: how soon a will is at its subscriber after its connection was reset, and how soon a lease is at the
//! next in the queue, against a publish on an idle broker.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use loadgen::calls::wire::between;

use super::v1::V1Client;
use super::{Bench, median};
use crate::results::Figure;

/// Times the median from a publish to its delivery.
const WILL_MAX: f64 = 10.0;
const LEASE_MAX: f64 = 20.0;

/// Medians in microseconds.
struct Medians {
    publish: f64,
    will: f64,
    released: f64,
    lost: f64,
}

/// Wills and leases on an idle broker. Clients whose connection ends have no session, so that nothing waits for a grace.
pub(crate) fn wills_and_leases(bench: &Bench) -> Result<Figure> {
    let server = bench.start(1, &[])?;
    let rounds = bench.pick(300, 3);
    let Medians { publish, will, released, lost } = measure(server.address, rounds)?;
    let (will_ratio, lease_ratio) = (will / publish, released.max(lost) / publish);
    Ok(Figure {
        key: "u-leases".to_owned(),
        what: "from the reset of a connection to its will at a subscriber, and from the end of a lease to the next holder, against \
               publish to delivery, idle, medians"
            .to_owned(),
        measured: format!(
            "will {will_ratio:.1} x ({will:.0} us), lease {lease_ratio:.1} x ({released:.0} us released, {lost:.0} us after a reset); \
             publish to delivery {publish:.0} us"
        ),
        bound: Some(format!("a will at most {WILL_MAX:.0} x, a lease at most {LEASE_MAX:.0} x")),
        reached: will_ratio <= WILL_MAX && lease_ratio <= LEASE_MAX,
        remarks: vec![format!("{rounds} rounds, one shard, every client on a connection of its own")],
        runs: Vec::new(),
    })
}

fn measure(address: SocketAddr, rounds: usize) -> Result<Medians> {
    let mut watcher = V1Client::connect(address)?;
    watcher.ask(r#"{"type":"subscribe","id":1,"topic":"u/data"}"#)?;
    watcher.ask(r#"{"type":"subscribe","id":2,"topic":"u/will"}"#)?;
    let mut publisher = V1Client::connect(address)?;
    let mut waiting = V1Client::connect(address)?;
    let (mut publish, mut will, mut released, mut lost) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let begun = Instant::now();
        publisher.say(r#"{"type":"publish","topic":"u/data","data":1}"#)?;
        watcher.hear(r#""topic":"u/data""#)?;
        publish.push(micros(begun));

        let mut mourned = V1Client::connect(address)?;
        mourned.ask(r#"{"type":"connect","id":1,"will":{"topic":"u/will","data":1}}"#)?;
        let begun = Instant::now();
        mourned.reset()?;
        watcher.hear(r#""topic":"u/will""#)?;
        will.push(micros(begun));

        released.push(hand_over(address, &mut waiting, |mut holder, lease| {
            holder.say(&format!(r#"{{"type":"lease","id":2,"topic":"u/lease","lease":{lease},"end":true}}"#))
        })?);
        lost.push(hand_over(address, &mut waiting, |holder, _| holder.reset())?);
    }
    Ok(Medians { publish: median(publish), will: median(will), released: median(released), lost: median(lost) })
}

/// A holder whose lease ends, and the microseconds until the client that waits for it has it. It is free again afterwards.
fn hand_over(
    address: SocketAddr,
    waiting: &mut V1Client,
    end: impl FnOnce(V1Client, u64) -> Result<()>,
) -> Result<f64> {
    let mut holder = V1Client::connect(address)?;
    let lease = number(&holder.ask(r#"{"type":"lease","id":1,"topic":"u/lease"}"#)?)?;
    waiting.say(r#"{"type":"lease","id":3,"topic":"u/lease","wait":4000}"#)?;
    // Its place in the queue is taken when a later command is answered.
    waiting.say(r#"{"type":"subscribe","id":4,"topic":"u/none"}"#)?;
    waiting.hear(r#""id":4"#)?;
    let begun = Instant::now();
    end(holder, lease)?;
    let next = number(&waiting.hear(r#""type":"ok","id":3"#)?)?;
    let micros = micros(begun);
    ensure!(next > lease, "lease {next} came after {lease}");
    waiting.ask(&format!(r#"{{"type":"lease","id":5,"topic":"u/lease","lease":{next},"end":true}}"#))?;
    Ok(micros)
}

/// The number of a lease in an answer.
fn number(answer: &str) -> Result<u64> {
    let number = between(answer, r#""lease":"#, ",").and_then(|text| text.parse().ok());
    number.with_context(|| format!("a lease without a number: {answer}"))
}

fn micros(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6
}
