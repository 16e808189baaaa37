//! WebSocket clients, by tokio-tungstenite, with a time limit on every wait.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::http::PATIENCE;

/// One client.
pub(crate) struct Ws {
    pub(crate) stream: WebSocketStream<TcpStream>,
}

/// Opens `path`.
pub(crate) async fn open(server: SocketAddr, path: &str) -> Ws {
    try_open(server, path, &[]).await.unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Opens `/ws`.
pub(crate) async fn open_v1(server: SocketAddr) -> Ws {
    try_open(server, "/ws", &[("sec-websocket-protocol", "ringyard.v1")]).await.expect("an upgrade")
}

/// Opens `path` with further header fields.
pub(crate) async fn try_open(server: SocketAddr, path: &str, fields: &[(&'static str, &str)]) -> Result<Ws, Error> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let mut request = format!("ws://{server}{path}").into_client_request()?;
    for (name, value) in fields {
        request.headers_mut().insert(*name, value.parse().expect("a header value"));
    }
    let config = WebSocketConfig::default().max_frame_size(None).max_message_size(None);
    let opening = client_async_with_config(request, stream, Some(config));
    let (stream, _) = timeout(PATIENCE, opening).await.expect("an answer in time")?;
    Ok(Ws { stream })
}

impl Ws {
    pub(crate) async fn send(&mut self, message: impl Into<Message>) {
        timeout(PATIENCE, self.stream.send(message.into())).await.expect("in time").unwrap();
    }

    /// The next message; pings and pongs are passed over.
    pub(crate) async fn next(&mut self) -> Message {
        loop {
            let message = timeout(PATIENCE, self.stream.next()).await.expect("a message in time");
            match message.expect("a message, not the end").unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    /// The next message, which is text.
    pub(crate) async fn text(&mut self) -> String {
        match self.next().await {
            Message::Text(text) => text.to_string(),
            other => panic!("not text: {other:?}"),
        }
    }

    /// The next message, which is JSON.
    pub(crate) async fn json(&mut self) -> Value {
        serde_json::from_str(&self.text().await).expect("JSON")
    }

    /// Sends a command; the answer that carries its `id`. Messages before it are an error.
    pub(crate) async fn command(&mut self, command: Value) -> Value {
        self.send(command.to_string()).await;
        let answer = self.json().await;
        assert_eq!(answer["id"], command["id"], "{command} was answered by {answer}");
        answer
    }

    /// Subscribes to topics without state, and is acknowledged.
    pub(crate) async fn subscribe(&mut self, topics: &[&str]) {
        let answer = self.command(serde_json::json!({"type": "subscribe", "id": 1, "topics": topics})).await;
        assert_eq!(answer["type"], "ok", "{answer}");
        for _ in topics.iter().filter(|topic| topic.contains(['+', '#'])) {
            assert_eq!(self.json().await["type"], "state-end");
        }
    }

    /// Reads on until the server closes; the code, 1006 without a close frame.
    pub(crate) async fn close_code(&mut self) -> u16 {
        self.close_frame().await.0
    }

    /// The same, and the reason.
    pub(crate) async fn close_frame(&mut self) -> (u16, String) {
        loop {
            match timeout(PATIENCE, self.stream.next()).await.expect("a close in time") {
                Some(Ok(Message::Close(Some(frame)))) => return (frame.code.into(), frame.reason.to_string()),
                Some(Ok(Message::Close(None))) => return (1005, String::new()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return (1006, String::new()),
            }
        }
    }

    /// Closes from this side and reads to the end.
    pub(crate) async fn close(mut self) {
        let _ = self.stream.close(None).await;
        while let Some(Ok(_)) = timeout(PATIENCE, self.stream.next()).await.expect("an end in time") {}
    }
}
