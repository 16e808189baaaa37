//! Operators of a run with access control: they revoke users, close them, and have the same rules read again, at any time; and
//! the one adoption's handshake that the control plane has judged.

use broker::ids::ShardId;
use broker::shard::handover::Entry;
use broker::shard::shared::ControlMessage;
use tokio::sync::oneshot::{Receiver, channel, error::TryRecvError};

use crate::access::{Access, SecretFile, Token, USERS, time_of_day};
use crate::client::{Brings, Role};
use crate::model::{Moment, Violation};
use crate::run::Run;

/// Orders that shards have not answered, and the tables that are read again.
#[derive(Debug)]
pub(crate) struct Operator {
    secret: SecretFile,
    /// Numbers of the model's orders, shards, and their answers.
    waiting: Vec<(usize, usize, Receiver<u64>)>,
    /// Bytes that access control holds by itself.
    pub(crate) held: u64,
}

impl Operator {
    pub(crate) fn new(secret: SecretFile, held: u64) -> Self {
        Self { secret, waiting: Vec::new(), held }
    }
}

impl Run<'_> {
    /// An operator does something, now and then.
    pub(crate) fn operate(&mut self) -> Result<(), Violation> {
        let Some(access) = &self.params.access else { return Ok(()) };
        self.hear_shards()?;
        if !self.busy || self.going_down || self.rng.below(10_000) >= access.operators {
            return Ok(());
        }
        let user = self.rng.below(USERS.len());
        let now_s = time_of_day(self.world.now()) / 1000;
        let before_s = now_s + 1 - if self.rng.one_in(2) { 0 } else { self.rng.range(0, 12) as u64 };
        match self.rng.below(5) {
            0 => self.close_user(user, None),
            1 => self.revoke(user, before_s),
            2 | 3 => {
                // As `POST /api/users/{user}/revoke` does.
                self.close_user(user, Some(before_s));
                self.revoke(user, before_s);
                self.close_user(user, Some(before_s));
            }
            _ => self.read_again(access),
        }
        Ok(())
    }

    fn revoke(&mut self, user: usize, before_s: u64) {
        self.trace.say(|| format!("{} is revoked, before {before_s}", USERS[user]));
        self.counted.revocations += 1;
        self.model.revoked(user, before_s);
        let now_ms = time_of_day(self.world.now());
        self.shared.authority.revoke(USERS[user], before_s, now_ms).expect("room for three users");
    }

    fn close_user(&mut self, user: usize, issued_before_s: Option<u64>) {
        self.trace.say(|| format!("{} is closed, before {issued_before_s:?}", USERS[user]));
        let number = self.model.closing(user, issued_before_s, self.shards.len());
        let operator = self.operator.as_mut().expect("access control is on");
        for shard in 0..self.shards.len() {
            let (answer, receiver) = channel();
            let order = ControlMessage::CloseUser { user: USERS[user].into(), issued_before_s, answer };
            let sent = self.shared.send_control(ShardId(shard as u16), order);
            assert!(sent.is_ok(), "thousands of control messages wait");
            operator.waiting.push((number, shard, receiver));
        }
    }

    /// The same tables are in force after it, and nobody minds.
    pub(crate) fn read_again(&mut self, access: &Access) {
        self.trace.say(|| "the rules are read again".to_owned());
        let operator = self.operator.as_ref().expect("access control is on");
        let tables = access.tables(operator.secret.path());
        self.shared.authority.reload(Some(&tables)).expect("they were good before");
    }

    fn hear_shards(&mut self) -> Result<(), Violation> {
        let Some(operator) = &mut self.operator else { return Ok(()) };
        for (number, shard, mut receiver) in std::mem::take(&mut operator.waiting) {
            match receiver.try_recv() {
                Ok(closed) => {
                    self.counted.closed_by_operators += closed;
                    self.model.closed(number, shard);
                    let most = self.clients.len() as u64;
                    if closed > most {
                        let evidence = format!("{closed} on shard {shard} of {most}");
                        return Err(Violation::new("an operator learns how many were closed", evidence));
                    }
                }
                Err(TryRecvError::Empty) => operator.waiting.push((number, shard, receiver)),
                Err(TryRecvError::Closed) if self.going_down => {}
                Err(TryRecvError::Closed) => {
                    return Err(Violation::new("an operator's order is answered", format!("on shard {shard}")));
                }
            }
        }
        Ok(())
    }

    /// As whom the control plane takes a client whose socket a shard adopts. `None`: it refuses it.
    pub(crate) fn judge_adopted(&mut self, role: &Role, shard: usize) -> Option<(Entry, Option<(Brings, Moment)>)> {
        let Some(access) = &self.params.access else { return Some((Entry::Anyone, None)) };
        let began = self.model.moment_on(shard);
        if self.rng.one_in(3) {
            let rights = access.rights(None);
            let brings = Some((Brings::Nothing, began));
            return match role {
                Role::V1 if access.required => Some((Entry::Unknown, brings)),
                _ if access.required || !role.is_within(&rights, &self.params.topics) => None,
                _ => Some((Entry::Anyone, brings)),
            };
        }
        let now_ms = time_of_day(self.world.now());
        let user = self.rng.below(USERS.len());
        let token = Token::draw(&mut self.rng, user, access.leeway_ms, now_ms);
        let rights = access.rights(Some(&token.claims));
        let judged = self.shared.authority.identify(token.text.as_bytes(), now_ms).result;
        let entry = match judged {
            Ok(principal) if role.is_within(&rights, &self.params.topics) => Entry::Known(principal),
            Ok(_) => Entry::Refused(protocol::frame::close_code::FORBIDDEN, "nothing grants this"),
            Err(denial) if denial.is_expired() => Entry::Refused(protocol::frame::close_code::TOKEN_EXPIRED, "over"),
            Err(_) => Entry::Refused(protocol::frame::close_code::BAD_TOKEN, "bad"),
        };
        let token = self.model.issued(token);
        Some((entry, Some((Brings::Page(token), began))))
    }
}
