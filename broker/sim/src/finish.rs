//! How a run ends, and what must be true then.
//!
//! Faults stop and everybody reads. Then whatever is owed has to arrive, and either the clients leave and
//! nothing may stay behind, or the broker shuts down with traffic under way.

mod empty;
mod present;

use std::collections::BTreeMap;

use broker::ids::ShardId;
use broker::shard::shared::ControlMessage;
use ring::sim::Faults;

use crate::client::{Parting, Phase, Role};
use crate::model::Violation;
use crate::payload::Kind;
use crate::run::Run;

const MILLIS: u64 = 1_000_000;
/// Rounds without any news after which everything has come to rest.
const REST: usize = 12;
/// How long a round takes in which only throttles are waited for.
const WAIT: u64 = 20 * MILLIS;
/// Rounds in which everything must come to rest.
const ROUNDS_MAX: usize = 20_000;

impl Run<'_> {
    pub(crate) fn finish(&mut self) -> Result<(), Violation> {
        self.stalled.fill(0);
        if self.params.shutdown && self.params.seed.is_multiple_of(4) {
            // Clients that do not read, in a network that goes on failing: it ends in time all the same.
            self.shut_down(false)
        } else if self.params.shutdown {
            self.calm_down(self.params.faults.reset.0 > 0 || self.params.faults.send_error.0 > 0);
            self.shut_down(true)
        } else {
            self.calm_down(true);
            self.busy = false;
            self.come_to_rest(2 * MILLIS)?;
            self.rest_present()?;
            self.grow_older()?;
            self.mark_the_end();
            self.come_to_rest(2 * MILLIS)?;
            self.check_rest()?;
            self.leave()
        }
    }

    fn calm_down(&mut self, network_too: bool) {
        if network_too {
            self.world.set_faults(Faults::NONE);
        }
        for client in &mut self.clients {
            client.calm_down();
        }
    }

    /// Rounds until nothing happens any more, and nothing waits for a throttle or an answer either. A connection that ends
    /// meanwhile, for want of a pong perhaps, is news that others may have to wait for.
    fn come_to_rest(&mut self, nanos_per_round: u64) -> Result<(), Violation> {
        self.come_to_quiet(nanos_per_round)?;
        let longest = self.params.waits_max_ms() * MILLIS;
        let mut ended = None;
        while longest > 0 && ended != Some(self.ended()) {
            ended = Some(self.ended());
            for _ in 0..longest / WAIT + REST as u64 {
                self.round()?;
                self.world.advance(WAIT);
            }
            self.come_to_quiet(nanos_per_round)?;
        }
        Ok(())
    }

    /// How many connections have ended, on all shards.
    fn ended(&self) -> u64 {
        self.shared.stats.iter().map(|stats| stats.closed.get()).sum()
    }

    /// Rounds until nothing happens any more.
    fn come_to_quiet(&mut self, nanos_per_round: u64) -> Result<(), Violation> {
        let mut quiet = 0;
        // A connection more than there is room for waits, with all it has to say.
        let room = self.clients.len() <= self.params.capacity as usize;
        for _ in 0..ROUNDS_MAX {
            let mut active = self.round()?;
            active |= self.clients.iter().any(|client| client.wire.waiting() > 0 && (room || !client.may_be_waiting()));
            self.world.advance(nanos_per_round);
            quiet = if active || !self.world.idle() || self.plane.unanswered() > 0 { 0 } else { quiet + 1 };
            if quiet > REST {
                return Ok(());
            }
        }
        let writing: Vec<_> = self
            .clients
            .iter()
            .filter(|client| client.wire.waiting() > 0)
            .map(|client| (client.name(), client.wire.waiting(), client.phase, client.parting))
            .collect();
        let evidence = format!(
            "not within {ROUNDS_MAX} rounds: network idle {}, HTTP unanswered {}, writing {writing:?}",
            self.world.idle(),
            self.plane.unanswered()
        );
        Err(Violation::new("without faults everything comes to rest", evidence))
    }

    /// Tokens may end while nothing else happens.
    fn grow_older(&mut self) -> Result<(), Violation> {
        if self.params.access.is_none() || self.rng.one_in(2) {
            return Ok(());
        }
        for _ in 0..self.rng.range(1, 80) {
            self.round()?;
            self.world.advance(400 * MILLIS);
        }
        self.come_to_rest(2 * MILLIS)
    }

    /// One last message on every topic: what was lost before it shows.
    fn mark_the_end(&mut self) {
        for topic in 0..self.params.topics.len() {
            self.plane.publish(topic, Kind::Text, 30, &self.shared, &self.params.topics, &mut self.model);
        }
    }

    fn check_rest(&mut self) -> Result<(), Violation> {
        for client in self.clients.iter().filter(|client| client.is_well()) {
            client.accept_all_written(&mut self.model);
            if let Some(unanswered) = client.unanswered()
                && !client.may_be_waiting()
            {
                return Err(Violation::new("every command is answered", unanswered));
            }
        }
        {
            let (stage, clients) = self.stage();
            clients.iter().try_for_each(|client| client.check_standing(&stage))?;
        }
        for client in &self.clients {
            let broke = matches!(client.parting, Parting::Violation(_) | Parting::Close(_));
            if client.phase == Phase::Open && broke {
                let evidence = format!(
                    "{} is still open after {:?}, {} bytes to write, {} unread",
                    client.name(),
                    client.parting,
                    client.wire.waiting(),
                    self.world.client_unread(client.wire.id)
                );
                return Err(Violation::new("who breaks a rule or says goodbye is closed", evidence));
            }
            let waits = !matches!(client.role, Role::Slowloris);
            if client.phase == Phase::Head && waits && self.clients.len() <= self.params.capacity as usize {
                let evidence = format!(
                    "{}: {} bytes to write, {} unread",
                    client.name(),
                    client.wire.waiting(),
                    self.world.client_unread(client.wire.id)
                );
                return Err(Violation::new("every head is answered", evidence));
            }
        }
        self.check_crowds()?;
        self.model.calls.settle(|index| self.clients[index].is_well())?;
        self.accept_half_closed();
        let settled = self.model.settle()?;
        self.counted.settled_streams += settled.streams as u64;
        self.counted.owed += settled.owed as u64;
        self.counted.beginnings += settled.beginnings;
        self.check_unexplained()
    }

    /// Nobody has more connections than one address may have. One that was never answered may not have said its address.
    fn check_crowds(&self) -> Result<(), Violation> {
        let Some(max) = self.params.limits.connections_per_address_max else { return Ok(()) };
        let mut crowds = BTreeMap::new();
        for client in self.clients.iter().filter(|client| client.is_well() && !client.may_be_waiting()) {
            if let Some(address) = client.door.counts_as {
                crowds.entry(address).or_insert_with(Vec::new).push(client.name());
            }
        }
        match crowds.into_iter().find(|(_, names)| names.len() > max.get() as usize) {
            Some((address, names)) => Err(Violation::new(
                "an address has no more connections than it may",
                format!("{address} has {names:?}, {max} are allowed"),
            )),
            None => Ok(()),
        }
    }

    /// A publisher that ended its direction in order has said all it wanted, unless the broker dropped it.
    fn accept_half_closed(&mut self) {
        let dropped = |run: &Self| {
            run.shared.stats.iter().map(|stats| stats.snapshot()).any(|stats| {
                stats.dropped_slow
                    + stats.dropped_ping_timeout
                    + stats.dropped_reset
                    + stats.dropped_violation
                    + stats.dropped_memory
                    + stats.dropped_message_timeout
                    > 0
            })
        };
        if dropped(self) {
            return;
        }
        for client in &self.clients {
            if client.parting == Parting::HalfClose
                && client.unexplained.is_none()
                // Whatever it said last may have come behind that.
                && !client.closed_with.is_some_and(|code| (4400..4410).contains(&code))
                && client.wire.shut
                && client.wire.waiting() == 0
            {
                self.counted.half_closes += u64::from(!client.wire.written.is_empty());
                client.accept_written(&mut self.model);
            }
        }
    }

    /// Connections that ended without a word, against the causes that the shards counted.
    fn check_unexplained(&self) -> Result<(), Violation> {
        let unexplained: Vec<_> = self
            .clients
            .iter()
            .filter(|client| {
                // Whom the broker had not greeted before it went down needs no further cause.
                client.unexplained.is_some_and(|end| !(self.going_down && end.greeting))
            })
            .collect();
        let causes: u64 = self
            .shared
            .stats
            .iter()
            .map(|stats| stats.snapshot())
            .map(|stats| {
                stats.dropped_slow
                    + stats.dropped_ping_timeout
                    + stats.dropped_handshake_timeout
                    + stats.dropped_proxy_header
                    + stats.dropped_reset
                    + stats.dropped_handover
                    + stats.dropped_adoption
                    + stats.dropped_memory
                    + stats.refused
                    + stats.closed_http_idle
                    + stats.closed_access
                    + stats.closed_expired
            })
            .sum();
        // A socket that is closed with unread bytes is reset, and the answer may be lost with it.
        let causes = causes + self.counted.posts_handed_over;
        let breaks = self.params.faults.reset.0 > 0 || self.params.faults.send_error.0 > 0;
        if unexplained.len() as u64 > causes && !breaks {
            let names: Vec<_> = unexplained.iter().map(|client| client.name()).collect();
            let evidence = format!("{} of {names:?} for {causes} causes", unexplained.len());
            return Err(Violation::new("nobody is dropped in silence", evidence));
        }
        Ok(())
    }

    /// All clients leave, each in its way; then nothing may stay behind.
    fn leave(&mut self) -> Result<(), Violation> {
        let (mut stage, clients) = self.stage();
        for client in clients {
            match stage.rng.below(4) {
                _ if client.phase == Phase::Over => {}
                0 => client.reset(&mut stage),
                1 if client.is_well() => client.say_goodbye(&mut stage),
                _ => client.go(&mut stage),
            }
        }
        let limits = &self.params.limits;
        let longest = [
            limits.topic_idle_timeout,
            limits.close_timeout,
            limits.handshake_timeout,
            limits.ping_interval + limits.ping_timeout,
        ];
        let seconds: u64 = longest.iter().map(std::time::Duration::as_secs).max().unwrap_or(0);
        // Those that had found no room come in only now, and may still have something to say.
        let accepted = |run: &Self| run.shared.stats.iter().map(|stats| stats.accepted.get()).sum::<u64>();
        loop {
            let before = accepted(self);
            for _ in 0..seconds * 2 + 20 {
                self.round()?;
                self.world.advance(1000 * MILLIS);
            }
            if accepted(self) == before {
                break;
            }
        }
        self.come_to_rest(2 * MILLIS)?;
        self.grow_old()?;
        self.check_empty()
    }

    /// With no connection left, each that there was ended for one reason.
    fn check_reasons(&self) -> Result<(), Violation> {
        for (shard, stats) in self.shared.stats.iter().enumerate() {
            let stats = stats.snapshot();
            let reasons: u64 = stats.closed_by().map(|(_, count)| count).sum();
            if reasons != stats.closed {
                let evidence = format!("shard {shard}: {reasons} reasons for {} closed, {stats:?}", stats.closed);
                return Err(Violation::new("every connection ends for one reason", evidence));
            }
            let causes: u64 = stats.refused_by().map(|(_, count)| count).sum();
            let refused = stats.refused + stats.requests_refused;
            if causes != refused {
                let evidence = format!("shard {shard}: {causes} causes for {refused} refused, {stats:?}");
                return Err(Violation::new("every refusal has one cause", evidence));
            }
        }
        Ok(())
    }

    /// The broker goes down while clients publish and receive.
    fn shut_down(&mut self, calm: bool) -> Result<(), Violation> {
        self.counted.shutdowns += 1;
        for _ in 0..20 {
            self.round()?;
            self.world.advance(MILLIS);
        }
        let began = self.world.now();
        let window = self.params.drain_window;
        if !window.is_zero() {
            self.counted.windows += 1;
            self.model.begin_window();
        }
        self.going_down = true;
        self.model.draining();
        for shard in 0..self.shards.len() {
            assert!(
                self.shared
                    .send_control(ShardId(shard as u16), ControlMessage::Shutdown { window, is_succeeded: false })
                    .is_ok(),
                "thousands of control messages wait"
            );
            if self.rng.one_in(3) {
                self.round()?;
            }
        }
        let open: Vec<_> = self.clients.iter().filter(|client| client.is_well()).map(|client| client.index).collect();
        while self.shards.iter().any(Option::is_some) {
            self.round()?;
            let draining: u64 = self.shared.stats.iter().map(|stats| stats.refused_draining.get()).sum();
            if draining > 0 && self.world.now() - began < window.as_nanos() as u64 && self.shared.admission.open() > 0 {
                return Err(Violation::new("newcomers are served in the window", format!("{draining} were refused")));
            }
            self.world.advance(2 * MILLIS);
            if self.world.now() - began > (window + self.params.limits.shutdown_grace).as_nanos() as u64 + 100 * MILLIS
            {
                let left: Vec<_> = self.shared.stats.iter().map(|stats| stats.connections.get()).collect();
                return Err(Violation::new("a shutdown keeps within its grace", format!("connections left: {left:?}")));
            }
        }
        let took = (self.world.now() - began).saturating_sub(window.as_nanos() as u64);
        self.check_reasons()?;
        if !calm {
            return Ok(());
        }
        let (mut stage, clients) = self.stage();
        for _ in 0..10 {
            for client in clients.iter_mut() {
                client.act(&mut stage)?;
            }
        }
        if took > self.params.limits.shutdown_grace.as_nanos() as u64 / 2 {
            let evidence = format!("{} ms with everybody reading", took / MILLIS);
            return Err(Violation::new("a shutdown does not wait for nothing", evidence));
        }
        for &index in &open {
            let client = &self.clients[index];
            let own = matches!(client.parting, Parting::HalfClose | Parting::Close(_) | Parting::Violation(_));
            let told = matches!(client.closed_with, Some(1001 | 1013)) || own || client.unexplained.is_some();
            if client.closed_with.is_none() && !told && client.phase != Phase::Over {
                return Err(Violation::new("a shutdown closes every WebSocket with 1001", client.name()));
            }
        }
        self.model.presence.settle()?;
        self.settle_leases()?;
        let settled = self.model.settle()?;
        self.counted.settled_streams += settled.streams as u64;
        self.counted.owed += settled.owed as u64;
        self.counted.beginnings += settled.beginnings;
        self.check_unexplained()
    }
}
