//! What dialling and discarding cost: `dials serve CONNECTIONS` in one process, `dials ADDRESS CONNECTIONS` in
//! another.
use std::net::SocketAddr;
use std::time::Instant;
use std::collections::HashMap;

use bytes::Bytes;
use ring::uring::{Setup, UringDriver};
use ring::{Dial, Driver, Event, Gather, floor, listen};

const PER_RING: usize = 19_900;

fn driver(listener: Option<std::os::fd::OwnedFd>) -> UringDriver {
    UringDriver::new(Setup { listener, capacity: PER_RING as u32, ..Setup::default() }).unwrap()
}

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if args[0] == "serve" { serve(args[1].parse().unwrap()) } else { dial(&args) }
}

fn serve(count: usize) {
    let listener = listen::tcp("127.0.0.1:0".parse().unwrap(), 4096, false).unwrap();
    println!("{}", listen::local_addr(&listener).unwrap());
    let mut drivers = Vec::new();
    let mut all = Vec::new();
    let mut left = count;
    while left > 0 {
        let here = left.min(PER_RING);
        let mut driver = driver(Some(listener.try_clone().unwrap()));
        let mut conns = Vec::new();
        driver.accept();
        let mut events = Vec::new();
        let mut quiet = 0;
        while conns.len() < here && quiet < 30 {
            quiet = if conns.is_empty() && left == count { 0 } else { quiet + 1 };
            driver.turn(Some(driver.now() + 100_000_000), &mut events).unwrap();
            for event in events.drain(..) {
                match event {
                    Event::Accepted { conn } => { quiet = 0; conns.push(conn) }
                    Event::AcceptEnded { .. } if conns.len() < here => driver.accept(),
                    _ => {}
                }
            }
        }
        for _ in 0..3 { driver.turn(None, &mut events).unwrap(); }
        left -= conns.len();
        if conns.len() < here { left = 0; }
        drivers.push(driver);
        all.push(conns);
    }
    // Sends to all, ten rounds of 128 bytes and ten of 4 KiB, half a second apart, then leaves.
    std::thread::sleep(std::time::Duration::from_secs(4));
    for len in [128, 128, 128, 4096, 4096, 4096] {
        let gather = Gather::one(Bytes::from(vec![7; len]));
        for (driver, conns) in drivers.iter_mut().zip(&all) {
            let mut events = Vec::new();
            for conns in conns.chunks(256) {
                for conn in conns { driver.send(*conn, gather.clone(), 0); }
                let mut sent = 0;
                while sent < conns.len() {
                    driver.turn(Some(driver.now() + 100_000_000), &mut events).unwrap();
                    sent += events.drain(..).filter(|event| matches!(event, Event::Sent { .. })).count();
                }
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}

fn dial(args: &[String]) {
    let to: SocketAddr = args[0].parse().unwrap();
    let count: usize = args[1].parse().unwrap();
    let sources: u8 = args[2].parse().unwrap();
    let how = args[3].clone();
    let at_once = 500;
    let mut drivers: Vec<UringDriver> = (0..count.div_ceil(PER_RING)).map(|_| driver(None)).collect();
    let mut all = Vec::new();
    let (cpu, wall) = (floor::thread_cpu_ns(), Instant::now());
    let mut number = 0u64;
    let mut errors: HashMap<i32, u32> = HashMap::new();
    for driver in &mut drivers {
        let here = (count - number as usize).min(PER_RING);
        let end = number + here as u64;
        let (mut pending, mut conns, mut events) = (0, Vec::new(), Vec::new());
        while number < end || pending > 0 {
            while number < end && pending < at_once {
                let source = (sources > 0).then(|| SocketAddr::from(([127, 0, 3, (number % u64::from(sources)) as u8 + 1], 0)));
                driver.dial(to, source, number);
                number += 1;
                pending += 1;
            }
            driver.turn(Some(driver.now() + 100_000_000), &mut events).unwrap();
            for event in events.drain(..) {
                if let Event::Dialled { result, .. } = event {
                    pending -= 1;
                    match result { Ok(conn) => conns.push(conn), Err(e) => *errors.entry(e).or_default() += 1 }
                }
            }
        }
        all.push(conns);
    }
    let (cpu, wall) = (floor::thread_cpu_ns() - cpu, wall.elapsed());
    let enters: u64 = drivers.iter().map(|d| d.counters().enters).sum();
    println!("dialled {count} from {sources}: {:.0} ns of CPU each, {:?}, {enters} enters, errors {errors:?}", cpu as f64 / count as f64, wall);
    for (driver, conns) in drivers.iter_mut().zip(&all) {
        for conn in conns {
            if how == "discard" { driver.discard(*conn) } else { driver.receive(*conn) }
        }
        driver.turn(None, &mut Vec::new()).unwrap();
    }
    let mut events = Vec::new();
    for len in [128u64, 128, 128, 4096, 4096, 4096] {
        let (mut bytes, mut done, mut n, mut cpu) = (0u64, 0u64, 0u64, 0);
        let enters: u64 = drivers.iter().map(|d| d.counters().enters).sum();
        let begin = Instant::now();
        let mut ended = 0;
        for driver in &mut drivers {
            let conns = PER_RING.min(count) as u64;
            bytes = 0;
            let conns = conns.min(count as u64 - done);
            while bytes + 3000 * len < conns * len && begin.elapsed().as_secs() < 5 {
                let before = floor::thread_cpu_ns();
                driver.turn(Some(driver.now() + 100_000_000), &mut events).unwrap();
                for event in events.drain(..) {
                    match event {
                        Event::Received { buf, .. } => { n += 1; bytes += buf.len() as u64 }
                        Event::Discarded { bytes: b, .. } => { n += 1; bytes += u64::from(b) }
                        Event::ReceiveEnded { conn, .. } => { ended += 1; if how == "discard" { driver.discard(conn) } else { driver.receive(conn) } }
                        _ => {}
                    }
                }
                cpu += floor::thread_cpu_ns() - before;
            }
            done += conns;
        }
        let enters = drivers.iter().map(|d| d.counters().enters).sum::<u64>() - enters;
        println!("{how} {len}: {n} receives, {:.0} ns each, {:.1} per enter, ended {ended} {bytes}", cpu as f64 / n as f64, n as f64 / enters as f64);
    }
}
