//! What Ringyard speaks, as pure functions and small state machines over bytes.
//!
//! **Sans-IO.** The crate knows no socket, thread, clock or source of randomness: received bytes and
//! limits come in as arguments; items, refusals and bytes to send come out. The caller owns all buffers
//! and decides when to read, write, wait or give up. `tests/sans_io.rs` holds it to that.
//!
//! **No allocation per frame.** Payloads are unmasked, validated and handed on where they were received;
//! output is appended to a buffer of the caller. `tests/allocations.rs` counts.
//!
//! **Errors name the guilty one.** Everything refused here is the peer's doing and comes as the answer
//! to the peer: a [`head::Refusal`] (HTTP status), a [`frame::Violation`] (WebSocket close code) or a
//! [`v1::CommandError`] (an `error` message; the connection goes on).
//!
//! The way of a connection's bytes through the files:
//!
//! | file | its job |
//! | --- | --- |
//! | [`head`] | the request head: plain HTTP, a valid WebSocket handshake, or a refusal (RFC 9110, 9112, 6455 §4) |
//! | `head/fields.rs` | header fields as token lists and single values |
//! | `head/plain.rs` | the rules for every request: its host, its origin, where its body ends |
//! | `head/chunks.rs` | where a chunked body ends |
//! | `head/page.rs` | which page sent a request that is refused |
//! | `head/publish.rs` | which plain requests are single publishes in their usual form |
//! | `head/target.rs` | the request target: which endpoint, which topic |
//! | `head/origin.rs` | is a page's origin the host it calls |
//! | `head/forwarded.rs` | the client that a proxy says a request comes from |
//! | `head/response.rs` | the responses: `101`, and refusals |
//! | [`proxy`] | the PROXY protocol's header, before all else |
//! | [`frame`] | WebSocket frames: shared types (RFC 6455 §5) |
//! | `frame/decode.rs` | bytes to messages, pieces and control frames |
//! | `frame/header.rs` | one frame's header and its rules |
//! | `frame/utf8.rs` | text that arrives in pieces |
//! | `frame/mask.rs` | masking, vectorised |
//! | `frame/encode.rs` | frames to bytes, for servers and clients |
//! | [`frame::close_code`] | the codes that end a connection |
//! | [`topic`] | names, filters, and what matches what |
//! | [`v1`] | the JSON sub-protocol `ringyard.v1`; its grammar is `RINGYARD-V1.md` |
//! | `v1/names.rs` | the types of commands and messages, members, error codes, reasons |
//! | `v1/command.rs` | commands and their parser |
//! | `v1/position.rs` | places in topics, and where a subscription begins |
//! | `v1/options.rs` | what a publish and a history command may ask for |
//! | `v1/interpret.rs` | which members a command has, and the rules between them |
//! | `v1/members.rs` | members, each of its type |
//! | `v1/flat.rs` | reads the commands that are flat objects |
//! | `v1/json.rs` | walking a parsed value; writing strings and values |
//! | `v1/precheck.rs` | refuses the little that simd-json takes for JSON though it is not |
//! | `v1/value.rs` | one JSON value as a payload, for commands and for bodies of POST |
//! | `v1/message.rs` | what the server says |

#![forbid(unsafe_code)]

pub mod frame;
pub mod head;
pub mod proxy;
pub mod topic;
pub mod v1;

/// The example of the README, compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
