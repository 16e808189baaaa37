//! What the stream of a connection contains, as an adapter tells it: one call for each thing, in order.

#[cfg(doc)]
use super::Adapter;
use super::{Begin, Envelope, Position};
use crate::stamp::Stamp;

/// Receives what a stream contains, in order.
pub trait Visit {
    /// The client is subscribed to all it asked for: from here on nothing may be missing. Once for the greeting, and
    /// once for each later [`Adapter::subscribe`] or [`Adapter::unsubscribe`] that the server acknowledged.
    fn ready(&mut self);
    /// A message; `intact` unless length or filler is wrong, or it came under another topic's name.
    fn message(&mut self, stamp: Stamp, intact: bool);
    /// The same with what came beside the payload.
    fn enveloped(&mut self, stamp: Stamp, intact: bool, envelope: Envelope) {
        let _ = envelope;
        self.message(stamp, intact);
    }
    /// Where the subscription of a topic begins. Before [`Visit::ready`]. Only protocols with a history say it.
    fn begun(&mut self, topic: u32, begin: Begin) {
        let _ = (topic, begin);
    }
    /// The messages of a topic from `from` to `to`, both included, will not come.
    fn gap(&mut self, topic: u32, from: u64, to: u64) {
        let _ = (topic, from, to);
    }
    /// The topic's epoch ended; its subscription goes on after this position.
    fn reset(&mut self, topic: u32, position: Position) {
        let _ = (topic, position);
    }
    /// All of the state of a topic, or of the filter that matches all topics (nothing), has come.
    fn state_end(&mut self, topic: Option<u32>) {
        let _ = topic;
    }
    /// A message that is none of this run's, or whose stamp is damaged.
    fn foreign(&mut self);
    /// The server asked for a heartbeat, which [`Visit::reply`] carries.
    fn ping(&mut self);
    /// Send this, as it stands: framed and masked.
    fn reply(&mut self, bytes: &[u8]);
    /// A close frame; 1005 when it carries no code. Its answer went to `reply` already.
    fn close(&mut self, code: u16);
    /// The server refused something in words, or its bytes are not what the protocol allows. Nothing behind them is
    /// looked at.
    fn broken(&mut self, why: &str);
}
