//! The contract of everything that makes a connection or hands one over: accepting, adopting, installing; and of the
//! question whose connection it is.

use std::net::SocketAddr;

use bytes::Bytes;
use ring::{ACCEPTS_PER_TURN, AcceptEnd, ConnId, Driver, Event, Gather};

use crate::harness::{End, Harness, Options, Run};
use crate::run;

crate::on_every_driver! {
    a_full_table_ends_accepting_until_a_close
    accepting_stops_and_starts_again
    a_crowd_is_accepted_over_several_turns
    an_adopted_socket_is_a_connection
    a_full_table_adopts_nothing
    an_installed_socket_outlives_the_connection
    an_install_beside_a_receive_is_refused
    the_peers_address_is_reported_beside_everything_else
    the_address_of_a_peer_that_is_gone_is_reported_or_refused
}

fn accept_end<H: Harness>(run: &mut Run<H>) -> AcceptEnd {
    run.next("AcceptEnded", |event| match event {
        Event::AcceptEnded { end } => Some(*end),
        _ => None,
    })
}

fn a_full_table_ends_accepting_until_a_close<H: Harness>() {
    let mut run = Run::<H>::new(Options { capacity: 2, ..Options::default() });
    let (first, _one) = run.pair();
    let (_, _two) = run.pair();
    while accept_end(&mut run) != AcceptEnd::TableFull {
        run.driver().accept();
    }
    run.driver().accept();
    assert_eq!(accept_end(&mut run), AcceptEnd::TableFull, "nothing was closed");
    let mut waiting = run.world.connect();
    run.close(first);
    let conn = run.accepted();
    run.send_all(conn, Gather::one(Bytes::from_static(b"welcome")), 0);
    assert_eq!(run.client_reads(&mut waiting, 7), b"welcome");
}

fn accepting_stops_and_starts_again<H: Harness>() {
    let mut run = run::<H>();
    let (_, _first) = run.pair();
    run.driver().accept_stop();
    assert_eq!(accept_end(&mut run), AcceptEnd::Stopped);
    run.driver().accept_stop();
    let mut second = run.world.connect();
    run.settle();
    assert!(run.events.is_empty(), "nobody is accepted");
    let conn = run.accepted();
    run.send_all(conn, Gather::one(Bytes::from_static(b"at last")), 0);
    assert_eq!(run.client_reads(&mut second, 7), b"at last");
}

fn a_crowd_is_accepted_over_several_turns<H: Harness>() {
    const CROWD: usize = 3 * ACCEPTS_PER_TURN as usize + 5;
    let mut run = Run::<H>::new(Options { capacity: 400, ..Options::default() });
    let _clients: Vec<_> = (0..CROWD).map(|_| run.world.connect()).collect();
    let (mut accepted, mut most) = (0, 0);
    run.driver().accept();
    run.until("everybody's acceptance", |run| {
        let of_turn = run.events.iter().filter(|event| matches!(event, Event::Accepted { .. })).count();
        if run.events.iter().any(|event| matches!(event, Event::AcceptEnded { .. })) {
            run.driver().accept();
        }
        run.events.clear();
        accepted += of_turn;
        most = most.max(of_turn);
        accepted == CROWD
    });
    assert!(most <= ACCEPTS_PER_TURN as usize, "{most} in one turn");
}

fn adopted<H: Harness>(run: &mut Run<H>, socket: std::os::fd::OwnedFd, asked: u64) -> Result<ConnId, i32> {
    run.driver().adopt(socket, asked);
    run.next("Adopted", |event| match event {
        Event::Adopted { token, result } if *token == asked => Some(*result),
        _ => None,
    })
}

fn an_adopted_socket_is_a_connection<H: Harness>() {
    let mut run = run::<H>();
    let (accepted, _other) = run.pair();
    let (mut client, socket) = run.world.socket();
    let conn = adopted(&mut run, socket, 77).unwrap();
    assert_ne!(conn.slot, accepted.slot);
    run.world.write(&mut client, b"hello");
    assert_eq!(run.receive_exactly(conn, 5), b"hello");
    run.send_all(conn, Gather::one(Bytes::from_static(b"world")), 0);
    assert_eq!(run.client_reads(&mut client, 5), b"world");
    run.close(conn);
    assert_eq!(run.client_end(&mut client), End::Stream, "no descriptor is left");
}

fn a_full_table_adopts_nothing<H: Harness>() {
    let mut run = Run::<H>::new(Options { capacity: 1, ..Options::default() });
    let (conn, _other) = run.pair();
    let (mut client, socket) = run.world.socket();
    assert_eq!(adopted(&mut run, socket, 1), Err(libc::ENFILE));
    run.client_end(&mut client);
    run.close(conn);
    let (_client, socket) = run.world.socket();
    assert!(adopted(&mut run, socket, 2).is_ok());
}

fn installed<H: Harness>(run: &mut Run<H>, conn: ConnId) -> Result<std::os::fd::OwnedFd, Option<i32>> {
    run.driver().install(conn);
    run.next("Installed", |event| match event {
        Event::Installed { .. } => {
            let Event::Installed { conn: of, result } = std::mem::replace(event, Event::Woken) else { unreachable!() };
            assert_eq!(of, conn);
            Some(result.map_err(|error| error.raw_os_error()))
        }
        _ => None,
    })
}

fn an_installed_socket_outlives_the_connection<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    run.world.write(&mut client, b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(run.receive_exactly(conn, 18), b"GET / HTTP/1.1\r\n\r\n");
    run.driver().receive_stop(conn);
    run.next("ReceiveEnded", |event| matches!(event, Event::ReceiveEnded { .. }).then_some(()));
    let socket = installed(&mut run, conn).expect("this kernel installs");
    run.close(conn);
    run.world.socket_write(&socket, b"HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(run.client_reads(&mut client, 19), b"HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(run.world.end(&mut client), None);
    // And back again.
    let conn = adopted(&mut run, socket, 3).unwrap();
    run.close(conn);
    assert_eq!(run.client_end(&mut client), End::Stream);
}

fn an_install_beside_a_receive_is_refused<H: Harness>() {
    let mut run = run::<H>();
    let (conn, _client) = run.pair();
    run.driver().receive(conn);
    assert_eq!(installed(&mut run, conn).unwrap_err(), Some(libc::EBUSY));
}

fn peer<H: Harness>(run: &mut Run<H>, of: ConnId) -> Result<SocketAddr, i32> {
    run.driver().peer(of);
    run.next("Peer", |event| match event {
        Event::Peer { conn, result } if *conn == of => Some(*result),
        _ => None,
    })
}

/// Of one that was accepted and of one that was adopted, as often as it is asked for, each time once.
fn the_peers_address_is_reported_beside_everything_else<H: Harness>() {
    let mut run = run::<H>();
    let (accepted, mut client) = run.pair();
    let (other, socket) = run.world.socket();
    let adopted = adopted(&mut run, socket, 1).unwrap();
    let (here, there) = (run.world.address(&client), run.world.address(&other));
    run.driver().receive(accepted);
    run.driver().send(accepted, Gather::one(Bytes::from_static(b"!")), 0);
    run.driver().peer(accepted);
    assert_eq!(peer(&mut run, accepted), Ok(here));
    assert_eq!(peer(&mut run, adopted), Ok(there));
    assert_eq!(peer(&mut run, accepted), Ok(here));
    run.settle();
    let more = run.events.iter().filter(|event| matches!(event, Event::Peer { .. })).count();
    assert_eq!(more, 0, "a question while one is under way is the same question");
    assert_eq!(run.client_reads(&mut client, 1), b"!");
    // It does not stand in the way of handing the connection on.
    run.driver().peer(adopted);
    assert!(installed(&mut run, adopted).is_ok());
}

fn the_address_of_a_peer_that_is_gone_is_reported_or_refused<H: Harness>() {
    let mut run = run::<H>();
    let (conn, mut client) = run.pair();
    let address = run.world.address(&client);
    run.world.reset(&mut client);
    run.receive_end(conn);
    let reported = peer(&mut run, conn);
    assert!(reported == Ok(address) || reported == Err(libc::ENOTCONN), "{reported:?}");
    run.close(conn);
}
