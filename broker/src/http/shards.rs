//! Questions that operators have for the shards: put to one of them or to all, and answered within `PATIENCE` or not at all.
//!
//! Not responsible for what is asked ([`ControlMessage`]).

use std::time::Duration;

use ring::ConnId;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::http::app::App;
use crate::http::error::HttpError;
use crate::http::send_control;
use crate::ids::ShardId;
use crate::shard::shared::ControlMessage;

/// How long all shards may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// One shard's answer; `None`: it is shutting down.
pub(crate) async fn ask<T>(
    app: &App,
    shard: ShardId,
    order: impl FnOnce(oneshot::Sender<T>) -> ControlMessage,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    send_control(app.shared(), shard, order(answer)).await;
    answered.await.ok()
}

/// Every shard's answer; all of them are asked before the first is waited for. `None`: one is shutting down.
pub(crate) async fn ask_all<T>(
    app: &App,
    order: impl Fn(oneshot::Sender<T>) -> ControlMessage,
) -> Option<Vec<(ShardId, T)>> {
    let mut answers = Vec::new();
    for shard in ShardId::all(app.shards()) {
        let (answer, answered) = oneshot::channel();
        send_control(app.shared(), shard, order(answer)).await;
        answers.push((shard, answered));
    }
    let mut all = Vec::with_capacity(answers.len());
    for (shard, answered) in answers {
        all.push((shard, answered.await.ok()?));
    }
    Some(all)
}

/// What comes of questions, if all are answered in time.
///
/// # Errors
/// 503: they are not.
pub(crate) async fn within_patience<T>(asked: impl Future<Output = Option<T>>) -> Result<T, HttpError> {
    let unanswered = || HttpError::unavailable("The shards have too much to do, or are shutting down: try again.");
    timeout(PATIENCE, asked).await.ok().flatten().ok_or_else(unanswered)
}

/// What a connection is called for its life: shard, place among its connections, and how often that was used before.
pub(crate) fn connection_name(shard: ShardId, conn: ConnId) -> String {
    format!("{shard}-{}-{}", conn.slot, conn.generation)
}

/// The connection of this name.
pub(crate) fn connection_of(name: &str) -> Option<(ShardId, ConnId)> {
    let mut parts = name.split('-');
    let (shard, slot, generation) = (parts.next()?, parts.next()?, parts.next()?);
    let conn = ConnId { slot: slot.parse().ok()?, generation: generation.parse().ok()? };
    parts.next().is_none().then_some((ShardId(shard.parse().ok()?), conn))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_connection() {
        let conn = ConnId { slot: 7, generation: 3 };
        assert_eq!(connection_of(&connection_name(ShardId(1), conn)), Some((ShardId(1), conn)));
        for bad in ["", "1-7", "1-7-3-4", "1-7-x", "-1-7-3", "99999-1-1"] {
            assert_eq!(connection_of(bad), None, "{bad}");
        }
    }
}
