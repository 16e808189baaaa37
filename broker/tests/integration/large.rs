//! Messages far larger than any buffer.

use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::broker::Broker;
use crate::http::post;
use crate::ws::open;

const LARGE: usize = 20 << 20;
const ROOM: [&str; 6] = ["--max-message", "32m", "--max-frame", "32m", "--max-lag", "128m"];

fn data() -> Vec<u8> {
    (0..LARGE).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
async fn twenty_mebibytes_in_one_frame() {
    let broker = Broker::start(&ROOM);
    let mut subscriber = open(broker.address, "/sub/large").await;
    let mut bus = open(broker.address, "/bus/large").await;
    // The bus must be read while it is written: it gets its own message back.
    let server = broker.address;
    let publishing = tokio::spawn(async move {
        let mut publisher = open(server, "/pub/large").await;
        publisher.send(Message::binary(data())).await;
        publisher.send("done").await;
        publisher
    });
    for client in [&mut subscriber, &mut bus] {
        assert!(client.next().await == Message::binary(data()));
        assert_eq!(client.text().await, "done");
    }
    drop(publishing.await.unwrap());
}

#[tokio::test]
async fn twenty_mebibytes_in_fragments() {
    let broker = Broker::start(&ROOM);
    let mut subscriber = open(broker.address, "/sub/large").await;
    let server = broker.address;
    let publishing = tokio::spawn(async move {
        let mut publisher = open(server, "/pub/large").await;
        let data = data();
        let chunks: Vec<_> = data.chunks(100_000).collect();
        for (at, chunk) in chunks.iter().enumerate() {
            let opcode = if at == 0 { Data::Binary } else { Data::Continue };
            let last = at + 1 == chunks.len();
            publisher.send(Message::Frame(Frame::message(chunk.to_vec(), OpCode::Data(opcode), last))).await;
        }
        publisher
    });
    assert!(subscriber.next().await == Message::binary(data()));
    drop(publishing.await.unwrap());
}

#[tokio::test]
async fn twenty_mebibytes_by_http() {
    let broker = Broker::start(&ROOM);
    let server = broker.address;
    let mut subscriber = open(server, "/sub/large").await;
    let posting = tokio::spawn(async move { post(server, "large", &data()).await });
    assert!(subscriber.next().await.into_data() == data());
    assert_eq!(posting.await.unwrap(), 1);
}
