//! What options come to, given what the protocol and the machine can do; the rest is refused, by the option's name.

use anyhow::{Result, ensure};

use super::VERIFYING_MAX;
use crate::adapter::{Adapter, Duty, Protocol, Topics, Uses};
use crate::machine::Machine;
use crate::options::{AccessOptions, Options, Scenario, Switch};
use crate::tls::Tls;

/// Connections that only publish: as many as were asked for, or the fewest that can publish on all topics.
pub(super) fn publishers(options: &Options, protocol: Protocol) -> Result<u32> {
    let (topics, can) = (options.topics.unwrap_or(1), protocol.abilities());
    if options.idle || options.everyone_publishes {
        return Ok(0);
    }
    let least = topics.div_ceil(can.publications_max.max(1));
    let publishers = options.publishers.unwrap_or(least);
    ensure!(
        publishers >= least,
        "--publishers {publishers}: with {}, {topics} topics need {least} publishing connections",
        protocol.name()
    );
    Ok(publishers)
}

/// Refuses options that the protocol cannot serve.
pub(super) fn check_abilities(options: &Options, protocol: Protocol) -> Result<()> {
    let (can, protocol) = (protocol.abilities(), protocol.name());
    let per_client = options.topics_per_client.unwrap_or(1);
    ensure!(
        per_client <= can.subscriptions_max,
        "--topics-per-client {per_client}: with {protocol}, a connection holds at most {}",
        can.subscriptions_max
    );
    ensure!(
        !options.everyone_publishes || can.both,
        "--everyone-publishes (or --scenario chat): with {protocol}, a connection cannot do both"
    );
    ensure!(
        can.churn || !options.everyone_publishes || options.churn.is_none_or(|churn| churn == 0.0),
        "--churn: with {protocol}, whole connections come and go, and would lose what they have just published: not \
         together with --everyone-publishes (or --scenario chat)"
    );
    Ok(())
}

/// What connections to `wss://` need; nothing when there are none.
pub(super) fn tls(options: &Options, adapter: &Adapter) -> Result<Option<Tls>> {
    let AccessOptions { tls_ca, tls_insecure, tls_resume, .. } = &options.access;
    let subscribes = Duty { subscribes: Topics { count: 1, ..Topics::default() }, ..Duty::default() };
    let secure = adapter.server_name(&subscribes).or(adapter.server_name(&Duty::default())).is_some();
    let resume = *tls_resume == Switch::On;
    ensure!(
        secure || !(tls_ca.is_some() || *tls_insecure || resume),
        "--tls-ca, --tls-insecure and --tls-resume are for addresses that begin with wss://"
    );
    secure.then(|| Tls::new(tls_ca.as_deref(), *tls_insecure, resume)).transpose()
}

/// What is asked of the topics' histories.
pub(super) fn uses(options: &Options, protocol: Protocol) -> Result<Uses> {
    let (can, name) = (protocol.abilities(), protocol.name());
    let state = options.scenario == Scenario::KeyedState;
    ensure!(
        can.history || !options.recovers(),
        "--drops and --behind (or --scenario recovery): with {name}, a subscription cannot begin after a position"
    );
    ensure!(
        can.state || !(state || options.retain || options.keys.is_some()),
        "--keys and --retain (or --scenario keyed-state): with {name}, messages have no key; --protocol v1 does that"
    );
    let conflate = options.scenario == Scenario::Conflate;
    ensure!(
        can.state || !(conflate || options.throttle.is_some()),
        "--throttle and --scenario conflate: with {name}, a server does not say how it delivers; --protocol v1 does that"
    );
    Ok(Uses {
        positions: options.recovers(),
        keys: options.keys.unwrap_or(0),
        retain: options.retain,
        filter: state && options.retain,
        throttle_ms: options.throttle.map(|throttle| throttle.as_millis() as u32),
        token_by: options.access.carried(protocol)?,
    })
}

/// The share of the clients that look at every frame.
pub(super) fn verifying(options: &Options, protocol: Protocol) -> Result<f64> {
    // Where messages are left out, bytes tell nothing of anybody: then only the sample is checked.
    let discard = protocol.abilities().discard || options.scenario == Scenario::Conflate;
    let verifying = match options.verify {
        Some(share) => share.0,
        None if discard && !options.recovers() => (VERIFYING_MAX as f64 / options.clients.unwrap_or(1) as f64).min(1.0),
        None => 1.0,
    };
    ensure!(
        verifying >= 1.0 || !options.recovers(),
        "--verify: clients that come back with their positions have to look at every frame"
    );
    ensure!(
        discard || verifying >= 1.0,
        "--verify: with {}, the number of bytes does not tell what arrived, so every client has to look at every frame",
        protocol.name()
    );
    Ok(verifying)
}

pub(super) fn workers(options: &Options, machine: &Machine, connections: u64) -> Result<u32> {
    let least = machine.workers_for(connections);
    let Some(workers) = options.workers else {
        return Ok(u64::from(machine.cores).max(least).min(connections.max(1)) as u32);
    };
    ensure!(
        u64::from(workers) >= least || options.force,
        "--workers {workers}: {connections} connections need at least {least} rings of {} descriptors",
        machine.descriptors_per_ring()
    );
    Ok(workers)
}
