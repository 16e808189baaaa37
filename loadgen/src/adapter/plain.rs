//! Any server that sends every message to everybody on the same URL, the sender included: echo and broadcast servers.
//!
//! One topic only, since the URL is all there is. The acceptance of the upgrade counts as the subscription. A client
//! that only publishes is sent everything too, and passes over it.

use anyhow::{Result, ensure};

use super::raw::Bare;
use super::url::{TOPIC, Url};
use super::{Abilities, Duty, Names};
use crate::stamp::Payloads;

/// A broadcasting server.
#[derive(Debug)]
pub(super) struct Plain {
    subscribe: Url,
    publish: Url,
}

impl Plain {
    pub(super) const ABILITIES: Abilities =
        Abilities { subscriptions_max: 1, publications_max: 1, both: true, churn: false, discard: true, echoes: true };

    pub(super) fn new(url: &Url, publish: Option<&Url>, names: &Names) -> Result<Self> {
        ensure!(names.count == 1, "a plain server has one topic, not {}: everybody gets everything", names.count);
        ensure!(!url.names_topic(), "a plain server has no topics: {TOPIC} in the path has nothing to stand for");
        Ok(Self { subscribe: url.clone(), publish: publish.unwrap_or(url).clone() })
    }

    pub(super) fn url(&self, duty: &Duty) -> &Url {
        if duty.subscribes.count == 0 { &self.publish } else { &self.subscribe }
    }

    pub(super) fn content<'a>(&self, duty: &'a Duty, payloads: &'a Payloads) -> Bare<'a> {
        Bare { payloads, duty, topics: 1 }
    }
}
