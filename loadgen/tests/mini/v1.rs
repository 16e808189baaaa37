//! A connection of a small broker for `ringyard.v1`: commands in, messages out. What commands do is the caller's.

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{self, HeaderValue};

/// Serves one connection until it ends. `refuses`: its handshake is answered with 503 and `Retry-After`.
pub(crate) async fn serve(
    stream: TcpStream,
    refuses: bool,
    on_command: impl FnMut(&Value, &mpsc::UnboundedSender<Message>),
) {
    #[expect(clippy::result_large_err, reason = "the library's signature")]
    let choose = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        if refuses {
            let refusal = http::Response::builder().status(503).header("Retry-After", "1");
            return Err(refusal.body(None).unwrap());
        }
        response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("ringyard.v1"));
        Ok(response)
    };
    serve_chosen(stream, choose, on_command).await;
}

/// The same with another answer to the handshake.
pub(crate) async fn serve_chosen(
    stream: TcpStream,
    choose: impl FnOnce(&Request, Response) -> Result<Response, ErrorResponse> + Unpin,
    mut on_command: impl FnMut(&Value, &mpsc::UnboundedSender<Message>),
) {
    let Ok(mut socket) = accept_hdr_async(stream, choose).await else { return };
    let (outbox, mut inbox) = mpsc::unbounded_channel();
    loop {
        tokio::select! {
            Some(message) = inbox.recv() => {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            command = socket.next() => {
                let Some(Ok(command)) = command else { return };
                if let Ok(command) = serde_json::from_slice::<Value>(&command.into_data()) {
                    on_command(&command, &outbox);
                }
            }
        }
    }
}
