//! `members`: who is present at a topic, asked for once.

use serde_json::{Value, json};

use super::present::Visit;
use super::{Client, Command, Stage};
use crate::model::{Answered, At, Violation};

/// A `members`.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    asked: At,
    topic: usize,
    limit: usize,
}

impl Client {
    pub(super) fn ask_members(&mut self, topic: usize, stage: &mut Stage<'_>) {
        let limit = stage.rng.pick(&[1, 2, 100, 1000]);
        let asked = stage.model.presence.mark();
        let id = self.remember(Command::Visit(Visit::Members(Question { asked, topic, limit })));
        let mut text = json!({"type": "members", "id": id, "topic": stage.params.topics[topic]});
        if limit != 100 {
            text["limit"] = limit.into();
        }
        self.tell(&text, stage);
    }

    pub(super) fn hear_members(
        &self,
        question: &Question,
        value: &Value,
        stage: &mut Stage<'_>,
    ) -> Result<(), Violation> {
        let wrong = |what: &str| {
            let evidence = format!("{}: {what}: {value}, {question:?}", self.name());
            Violation::new("members are listed in order, each once", evidence)
        };
        let Question { asked, topic, limit } = *question;
        let members_max = stage.params.members_max(topic);
        let heard = stage.model.presence.mark();
        stage.model.presence.alive(self.index, asked);
        let rows = value["members"].as_array().ok_or_else(|| wrong("no list"))?;
        let mut listed = Vec::new();
        for row in rows {
            let member = row["member"].as_str().ok_or_else(|| wrong("no name"))?;
            let connections = row["connections"].as_u64().ok_or_else(|| wrong("no connections"))?;
            let said = super::watch::said_in(row).ok_or_else(|| wrong("not as it was said"))?;
            if let Some(said) = said {
                stage.model.presence.check_said(topic, member, said)?;
            }
            listed.push((member.to_owned(), said, connections));
        }
        let count = value["count"].as_u64().ok_or_else(|| wrong("no count"))?;
        if !listed.is_sorted_by(|one, other| one.0 < other.0) || listed.len() > limit.min(members_max) {
            return Err(wrong("too many, or not in order"));
        }
        if value["more"] != (count > listed.len() as u64) {
            return Err(wrong("whether there are more"));
        }
        stage.coverage.members_listed += listed.len() as u64;
        stage.coverage.members_unlisted += u64::from(listed.len() == members_max && count > members_max as u64);
        let is_whole = listed.len() < limit.min(members_max);
        stage.model.presence.answered(Answered { topic, asked, heard, count, listed, is_whole });
        Ok(())
    }
}
