//! Ringyard's raw endpoints: a WebSocket message is a payload, the path names the topic.
//!
//! `/sub/{topic}` receives, `/pub/{topic}` publishes, `/bus/{topic}` does both (protocol/RINGYARD-V1.md, the paragraph
//! before section 1). Payloads go out as text. The broker answers an upgrade when the topic is joined, so that the
//! acceptance confirms the subscription.
//!
//! [`Bare`] serves Nchan and plain servers too, whose subscribers get payloads as they are.

use anyhow::{Context, Result, ensure};
use protocol::frame::Opcode;
use protocol::topic::{TOPIC_LEN_MAX_DEFAULT, check_name};

use super::names::{Called, percent_encoded};
use super::socket::{self, Broken, Content, Kind, State};
use super::unit::{self, Front, Messages};
use super::url::{TOPIC, Url};
use super::{Abilities, Duty, Names, Visit};
use crate::stamp::{Payloads, STAMP_LEN, Stamp};

/// Ringyard's raw endpoints.
#[derive(Debug)]
pub(super) struct Raw {
    names: Called,
    subscribe: Url,
    publish: Url,
    both: Url,
}

impl Raw {
    pub(super) const ABILITIES: Abilities =
        Abilities { subscriptions_max: 1, publications_max: 1, both: true, churn: false, discard: true, echoes: true };

    pub(super) fn new(url: &Url, publish: Option<&Url>, names: &Names) -> Result<Self> {
        let called = Called::new(names, '/');
        check_name(&called.name(names.count - 1), TOPIC_LEN_MAX_DEFAULT)
            .with_context(|| format!("the topic {:?} cannot be used", names.prefix))?;
        let paths =
            Self::paths(url, publish, names.count, ["/sub", "/pub", "/bus"].map(|path| format!("{path}/{TOPIC}")))?;
        let [subscribe, publish, both] = paths;
        Ok(Self { names: called, subscribe, publish, both })
    }

    /// What subscribers, publishers and those that are both ask for: the usual paths, unless the user gave others.
    pub(super) fn paths(url: &Url, publish: Option<&Url>, topics: u32, usual: [String; 3]) -> Result<[Url; 3]> {
        let given = |url: &Url, bare: &str, segment: Option<&str>| match segment {
            _ if url.is_bare() => url.with_path(bare),
            Some(segment) => url.with_segment(segment),
            None => url.clone(),
        };
        let subscribe = given(url, &usual[0], None);
        let both = given(url, &usual[2], Some("/bus"));
        let publish = match publish {
            Some(publish) => given(publish, &usual[1], None),
            None => given(url, &usual[1], Some("/pub")),
        };
        let urls = [subscribe, publish, both];
        let all_name = urls.iter().all(Url::names_topic);
        ensure!(
            topics == 1 || all_name,
            "{topics} topics need {TOPIC} in the path, where each one's name is put: {} has none",
            urls.iter().find(|url| !url.names_topic()).map_or("", |url| &url.path)
        );
        Ok(urls)
    }

    pub(super) fn url(&self, duty: &Duty) -> &Url {
        match (duty.subscribes.count, duty.publishes.count) {
            (0, _) => &self.publish,
            (_, 0) => &self.subscribe,
            _ => &self.both,
        }
    }

    pub(super) fn path(&self, duty: &Duty) -> String {
        let topics = if duty.subscribes.count > 0 { duty.subscribes } else { duty.publishes };
        let topic = topics.first % self.names.count();
        self.url(duty).path.replace(TOPIC, &percent_encoded(&self.names.name(topic)))
    }

    pub(super) fn content<'a>(&self, duty: &'a Duty, payloads: &'a Payloads) -> Bare<'a> {
        Bare { payloads, duty, topics: self.names.count() }
    }
}

/// Appends a payload as a text message.
pub(super) fn publish(payloads: &Payloads, stamp: Stamp, out: &mut Vec<u8>) {
    let len = payloads.sizes().of(stamp.stream, stamp.seq) as usize;
    socket::put(out, Opcode::Text, len, socket::mask(stamp), |out| payloads.write(stamp, out));
}

/// Bytes of a message that is a payload, as it arrives.
pub(super) fn wire_len(payloads: &Payloads, stamp: Stamp) -> u64 {
    socket::frame_len(u64::from(payloads.sizes().of(stamp.stream, stamp.seq)))
}

/// Messages that are payloads.
pub(super) struct Bare<'a> {
    pub(super) payloads: &'a Payloads,
    pub(super) duty: &'a Duty,
    /// Of the run.
    pub(super) topics: u32,
}

impl Messages for Bare<'_> {
    const TAIL_MAX: usize = 0;
    const OTHER_MAX: usize = 0;

    fn payloads(&self) -> &Payloads {
        self.payloads
    }

    #[inline]
    fn front(&self, bytes: &[u8]) -> Front {
        if bytes.len() < STAMP_LEN {
            return Front::Cut;
        }
        match Stamp::read(bytes) {
            Some(stamp) => {
                let intact = self.duty.subscribes.contains(stamp.stream % self.topics, self.topics);
                Front::Stamped { len: STAMP_LEN, stamp, intact }
            }
            None => Front::Other,
        }
    }

    fn tail(&self, bytes: &[u8]) -> bool {
        bytes.is_empty()
    }

    fn other(&self, _: &mut State, _: &[u8], visit: &mut impl Visit) -> Result<(), Broken> {
        visit.foreign();
        Ok(())
    }
}

impl Content for Bare<'_> {
    #[inline]
    fn whole(&self, state: &mut State, _: Kind, payload: &[u8], visit: &mut impl Visit) -> Result<(), Broken> {
        unit::whole(self, state, payload, visit)
    }

    fn piece(
        &self,
        state: &mut State,
        _: Kind,
        piece: &[u8],
        last: bool,
        visit: &mut impl Visit,
    ) -> Result<(), Broken> {
        unit::piece(self, state, piece, last, visit)
    }
}

/// Messages nobody asked for: what a server tells publishers. Passed over.
pub(super) struct Ignored;

impl Content for Ignored {
    fn whole(&self, _: &mut State, _: Kind, _: &[u8], _: &mut impl Visit) -> Result<(), Broken> {
        Ok(())
    }

    fn piece(&self, _: &mut State, _: Kind, _: &[u8], _: bool, _: &mut impl Visit) -> Result<(), Broken> {
        Ok(())
    }
}
