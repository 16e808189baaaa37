//! What watchers of `$lease/{topic}` get: who has the lease, and by which number; numbers only rise.

use serde_json::{Value, json};

use super::holder::Hold;
use super::{Client, Command, Stage};
use crate::access::EPOCH_S;
use crate::leases::LEASE;
use crate::model::{Panel, Violation};

/// What a client knows by a subscription.
#[derive(Default, Debug)]
pub(super) struct View {
    pub(super) is_confirmed: bool,
    pub(super) is_ending: bool,
    /// Offset of the last message.
    last: u64,
    panel: Option<Panel>,
    /// The highest number that it was shown.
    highest: Option<u64>,
}

impl Client {
    /// Begins or ends to watch who has a lease.
    pub(super) fn watch_lease(&mut self, topic: usize, stage: &mut Stage<'_>) {
        let topic = format!("{LEASE}{}", stage.params.topics[topic]);
        match self.leasing.views.get_mut(&topic) {
            Some(view) if !view.is_confirmed || view.is_ending || !stage.rng.one_in(12) => {}
            Some(view) => {
                view.is_ending = true;
                let id = self.remember(Command::Hold(Hold::Unwatch(topic.clone())));
                self.tell(&json!({"type": "unsubscribe", "id": id, "topic": topic}), stage);
            }
            None => {
                let id = self.remember(Command::Hold(Hold::Watch(topic.clone())));
                self.tell(&json!({"type": "subscribe", "id": id, "topic": topic}), stage);
                self.leasing.views.insert(topic, View::default());
            }
        }
    }

    /// Something came of such a topic.
    pub(super) fn hear_panel(&mut self, value: &Value, stage: &mut Stage<'_>) -> Result<(), Violation> {
        stage.trace.say(|| format!("{} learns {value}", self.name()));
        let name = self.name();
        let wrong =
            |what: &str| Violation::new("watchers are shown who has a lease", format!("{name}: {what}: {value}"));
        let of = value["topic"].as_str().and_then(|topic| topic.strip_prefix(LEASE)).unwrap_or_default();
        let topic = stage.params.topics.iter().position(|topic| topic == of).ok_or_else(|| wrong("no such topic"))?;
        let view = self.leasing.views.get_mut(value["topic"].as_str().unwrap_or_default());
        let view = view.filter(|view| view.is_confirmed).ok_or_else(|| wrong("unasked"))?;
        let offset =
            value["offset"].as_u64().filter(|_| value["type"] == "message").ok_or_else(|| wrong("no offset"))?;
        if offset <= view.last && offset != 1 {
            return Err(wrong("out of order"));
        }
        view.last = offset;
        let data = &value["data"];
        let said = data["by"].as_str().zip(data["lease"].as_u64()).zip(data["until"].as_u64());
        let panel = said.map(|((by, number), until_ms)| Panel { by: by.to_owned(), number, until_ms });
        if panel.is_none() != (value["removed"] == true) {
            return Err(wrong("neither who has it nor that it is free"));
        }
        if let Some(panel) = &panel {
            let same =
                view.panel.as_ref().is_some_and(|before| (&before.by, before.number) == (&panel.by, panel.number));
            if view.highest.is_some_and(|highest| highest >= panel.number) && !same {
                return Err(wrong(&format!("{:?} was shown", view.highest)));
            }
            stage.coverage.leases_shown += 1;
        }
        let before = view.highest;
        view.highest = panel.as_ref().map(|panel| panel.number).max(view.highest);
        let holder = panel.as_ref().map(|panel| (panel.by.as_str(), panel.number));
        let model = &mut *stage.model;
        model.leases.shown(topic, holder, before, &mut model.presence);
        view.panel = panel;
        Ok(())
    }

    /// All is quiet: what it knows is what is true.
    pub(crate) fn check_panels(&self, stage: &mut Stage<'_>) -> Result<(), Violation> {
        let now = stage.model.presence.mark();
        for (name, view) in self.leasing.views.iter().filter(|(_, view)| view.is_confirmed) {
            let of = name.strip_prefix(LEASE).unwrap_or_default();
            let Some(topic) = stage.params.topics.iter().position(|topic| topic == of) else { continue };
            stage.coverage.leases_viewed += 1;
            let epoch_ms = if stage.params.has_users() { EPOCH_S * 1000 } else { 0 };
            let model = &*stage.model;
            model.leases.check_panel(topic, view.panel.as_ref(), (now, epoch_ms), &model.presence)?;
        }
        Ok(())
    }
}
