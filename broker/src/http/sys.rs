//! What the broker publishes of itself, `$sys/…`, and whether anybody reads it.
//!
//! Not responsible for what that is: [`load`](crate::http::load), [`busiest`](crate::http::busiest),
//! [`ends`](crate::http::ends).

use protocol::v1::PayloadKind;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::http::app::App;
use crate::message::Payload;
use crate::shard::shared::ControlMessage;

/// Publishes unless the broker is too busy: then this one is left out.
pub(super) fn publish(app: &App, name: &str, content: &impl Serialize) {
    let shared = app.shared();
    let topic = shared.registry.resolve(name);
    if topic.is_congested() {
        return;
    }
    let text = serde_json::to_vec(content).expect("numbers and names are JSON");
    let payload = Payload::copy_of(PayloadKind::Json, &text, shared.budget.of_plane());
    // Nobody waits for its place.
    let (answer, _) = oneshot::channel();
    drop(shared.send_control(topic.sequencer, ControlMessage::Publish { topic, payload, options: None, answer }));
}

/// Whether somebody subscribes to this very name.
pub(super) fn is_read(app: &App, name: &str) -> bool {
    app.shared().registry.subscriptions_to(name) > 0
}
