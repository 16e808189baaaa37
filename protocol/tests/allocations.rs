//! The crate's second promise: nothing is allocated per frame, head or command.

use allocation_counter::measure;
use bytes::BytesMut;
use protocol::frame::{Decoder, FrameLimits, Opcode, Role, put_client_frame, put_frame};
use protocol::head::{Head, HeadLimits, parse};
use protocol::v1::{MessageParts, Parser, PayloadKind, write_message};

const LIMITS: FrameLimits = FrameLimits { frame_bytes_max: 1 << 20, message_bytes_max: 1 << 20 };

fn assert_none(what: &str, work: impl FnOnce()) {
    assert_eq!(measure(work).count_total, 0, "{what}");
}

#[test]
fn decoding_frames() {
    let mut bytes = Vec::new();
    for round in 0..100 {
        put_client_frame(&mut bytes, Opcode::Text, "größe".repeat(round).as_bytes(), [1, 2, 3, 4]);
        put_client_frame(&mut bytes, Opcode::Ping, b"are you there", [5, 6, 7, 8]);
    }
    let mut decoder = Decoder::new(Role::Server);
    let mut items = 0;
    assert_none("decoding", || {
        // Reads of 1000 bytes, so that frames and headers are split.
        for mut read in bytes.chunks_mut(1000) {
            while let Ok(Some(_)) = decoder.next(&mut read, &LIMITS) {
                items += 1;
            }
        }
    });
    assert!(items >= 200 && decoder.is_idle());
}

#[test]
fn encoding_frames() {
    let mut out = BytesMut::with_capacity(4096);
    assert_none("encoding", || {
        put_frame(&mut out, Opcode::Text, b"hello");
        write_message(&mut out, &MessageParts::plain("a/b", 7, PayloadKind::Text, b"he said \"hello\""));
        let bytes = MessageParts::plain("a/b", 7, PayloadKind::Binary, &[0; 1000]);
        write_message(&mut out, &MessageParts { key: Some("k"), state: true, prev: Some(3), ..bytes });
    });
}

#[test]
fn parsing_heads() {
    let head = b"GET /sub/chat/1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let limits = HeadLimits::default();
    assert_none("a head", || assert!(matches!(parse(head, &limits), Ok(Head::Upgrade(_)))));
}

#[test]
fn parsing_commands_with_a_warm_parser() {
    let commands = [
        r#"{"type":"subscribe","id":"first","topics":["a/b","chat/+","$sys/#"]}"#,
        r#"{"type":"publish","topic":"a/b","data":"some \"text\" of a usual length","id":8}"#,
        r#"{"type":"publish","topic":"a/b","data":{"x":[1,2.5,null],"y":{"z":"…"}}}"#,
        r#"{"type":"publish","topic":"a/b","data":"AAECAwQFBgc=","encoding":"base64"}"#,
        r#"{"type":"publish","topic":"a/b","data":"x","key":"k","ttl":60000,"idempotency_key":"5f1","if_offset":"absent"}"#,
        r#"{"type":"subscribe","topic":"a","since":{"epoch":"0123456789abcdef","offset":7}}"#,
        r#"{"type":"subscribe","topics":["b","a"],"since":{"positions":{"b":{"epoch":"0123456789abcdef","offset":0}}}}"#,
        r#"{"type":"history","topic":"a","before":{"epoch":"0123456789abcdef","offset":7},"reverse":true}"#,
        r#"{"type":"snapshot","topic":"a","up_to":{"epoch":"0123456789abcdef","offset":7},"data":[1]}"#,
        r#"{"type":"ping"}"#,
    ];
    let mut parser = Parser::new();
    let mut run = || {
        for command in commands {
            let mut text = [0; 192];
            let text = &mut text[..command.len()];
            text.copy_from_slice(command.as_bytes());
            assert!(parser.parse(text, 255).is_ok());
        }
    };
    run();
    assert_none("commands", run);
}
