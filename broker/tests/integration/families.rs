//! Addresses of both families: `[::]` is all of them, with IPv6 and without, and the health check finds the broker
//! wherever it listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::thread;

use ring::sandbox::forbid_ipv6;

use crate::broker::{Broker, command};
use crate::http::{post, request};
use crate::ws::open;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

async fn serves_at(broker: &Broker, ip: IpAddr) {
    let address = SocketAddr::new(ip, broker.address.port());
    let mut client = open(address, "/sub/a").await;
    let offset = post(address, "a", b"hello").await;
    assert!(offset > 0);
    assert_eq!(client.text().await, "hello");
}

#[tokio::test]
async fn every_address_is_of_both_families() {
    let broker = Broker::start(&["--listen", "[::]:0", "--admin-listen", "[::]:0", "--allow-anonymous"]);
    assert_eq!(broker.address.ip(), V4, "what the start says can be reached with IPv4 alone");
    serves_at(&broker, V4).await;
    serves_at(&broker, V6).await;
    for ip in [V4, V6] {
        let admin = SocketAddr::new(ip, broker.admin.port());
        assert_eq!(request(admin, "GET /metrics HTTP/1.1", b"").await.status, 200);
    }
}

/// As on a kernel that was started with `ipv6.disable=1`.
#[tokio::test]
async fn without_ipv6_every_address_is_those_that_there_are() {
    let mut command = command(&["--listen", "[::]:0", "--admin-listen", "[::]:0", "--allow-anonymous"]);
    command.stdout(Stdio::piped());
    let started = thread::spawn(move || {
        forbid_ipv6().expect("a thread may restrict itself and what it starts");
        command.spawn().expect("the binary runs")
    });
    let broker = Broker::of(started.join().unwrap());
    serves_at(&broker, V4).await;
}

#[test]
fn the_health_check_finds_the_broker_wherever_it_listens() {
    for listen in
        ["127.0.0.1", "0.0.0.0", "[::]", "[::1]", "127.0.0.2", "[::ffff:127.0.0.1]", "[::ffff:0:0]", "localhost"]
    {
        for admin in ["127.0.0.1:0", "[::]:0", "[::1]:0", "public", "off"] {
            let broker = Broker::of(
                command(&[
                    "--listen",
                    &format!("{listen}:0"),
                    "--admin-listen",
                    admin,
                    "--allow-anonymous",
                    "--shards",
                    "1",
                ])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
            );
            let port = broker.address.port();
            let admin = match admin {
                "public" | "off" => admin.to_owned(),
                own => own.replace(":0", &format!(":{}", broker.admin.port())),
            };
            let output = Command::new(env!("CARGO_BIN_EXE_ringyard"))
                .arg("healthcheck")
                .env("RINGYARD_LISTEN", format!("{listen}:{port}"))
                .env("RINGYARD_ADMIN_LISTEN", &admin)
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(0), "{listen} {admin}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
