//! What TLS costs: processor time and throughput against cleartext, memory and handshakes against rustls alone, and nginx
//! with TLS in front of the broker, which people would use instead.

use anyhow::{Context, Result};
use loadgen::Outcome;

use super::message::message_ns;
use super::{Bench, client_remark, median};
use crate::process::Server;
use crate::results::Figure;
use crate::tls::{self, Certificate, Front};

const MESSAGE_RATIO_MAX: f64 = 1.35;
const THROUGHPUT_SHARE_MIN: f64 = 0.65;
const MEMORY_RATIO_MAX: f64 = 1.2;
const HANDSHAKES_SHARE_MIN: f64 = 0.7;

/// A broker that listens with TLS and without.
pub(crate) struct Secure {
    pub(crate) server: Server,
    certificate: Certificate,
    address: String,
}

impl Secure {
    pub(crate) fn start(bench: &Bench, certificate: Certificate, more: &[&str]) -> Result<Self> {
        let address = format!("127.0.0.1:{}", tls::free_port()?);
        let configuration = certificate.configuration()?;
        let own = ["--tls-listen", &address, "--config", &configuration];
        let server = bench.start(1, &[&own, more].concat())?;
        Ok(Self { server, certificate, address })
    }

    /// One run over TLS.
    pub(crate) fn run(&self, bench: &Bench, arguments: &str) -> Result<Outcome> {
        let (ca, stats) = (self.certificate.cert()?, self.server.address);
        let own = format!("--url wss://{}/sub/bench --tls-ca {ca} --server-stats http://{stats}", self.address);
        bench.run_on(&self.server, &format!("{own} {arguments}"))
    }
}

fn secure(bench: &Bench) -> Result<Secure> {
    Secure::start(bench, Certificate::new()?, &[])
}

/// Alternating runs, each on a broker of its own.
#[derive(Default)]
struct Runs {
    plain: Vec<f64>,
    secure: Vec<f64>,
    /// nginx in front of a broker without TLS; empty where there is none.
    nginx: Vec<f64>,
    all: Vec<(String, Outcome)>,
}

impl Runs {
    /// Nanoseconds of the server's processor time per message.
    fn new(bench: &Bench, arguments: &str) -> Result<Self> {
        let mut runs = Self::default();
        for round in 1..=bench.pick(5, 1) {
            let report = bench.run(arguments)?;
            runs.plain.push(message_ns(&report)?);
            runs.all.push((format!("cleartext {round}"), report));
            let report = secure(bench)?.run(bench, arguments)?;
            runs.secure.push(message_ns(&report)?);
            runs.all.push((format!("TLS {round}"), report));
            if Front::is_there() {
                let report = behind_nginx(bench, arguments)?;
                runs.nginx.push(message_ns(&report)?);
                runs.all.push((format!("nginx {round}"), report));
            }
        }
        Ok(runs)
    }

    fn medians(&self) -> (f64, f64) {
        (median(self.plain.clone()), median(self.secure.clone()))
    }

    fn remarks(&self) -> Vec<String> {
        let mut remarks = client_remark(&self.all);
        let rounded = |all: &[f64]| all.iter().map(|ns| format!("{ns:.0}")).collect::<Vec<_>>().join(", ");
        let (plain, secure) = (rounded(&self.plain), rounded(&self.secure));
        remarks.push(format!("ns per message, medians of alternating runs: cleartext {plain}; TLS {secure}"));
        remarks.push(if self.nginx.is_empty() {
            "nginx is not installed, so it was not compared".to_owned()
        } else {
            let (nginx, own) = (median(self.nginx.clone()), median(self.secure.clone()));
            format!(
                "nginx with TLS in front of the broker without, both on the server's core: {nginx:.0} ns, {:.2} x the \
                 broker's own TLS ({})",
                nginx / own,
                rounded(&self.nginx)
            )
        });
        remarks
    }
}

/// One run over nginx with TLS: processor time is that of both.
fn behind_nginx(bench: &Bench, arguments: &str) -> Result<Outcome> {
    let (server, certificate) = (bench.start(1, &[])?, Certificate::new()?);
    let front = Front::start(server.address, &certificate, bench.cores.server)?;
    let (ca, stats) = (certificate.cert()?, server.address);
    let own = format!("--url wss://{}/sub/bench --tls-ca {ca} --server-stats http://{stats}", front.address);
    bench.run_on(&server, &format!("{own} --server-pid {} {arguments}", front.pid()))
}

/// 128 bytes, one message per send.
pub(crate) fn message(bench: &Bench) -> Result<Figure> {
    let clients = bench.pick(5000, 50);
    let timing = bench.pick("--warmup 2 --duration 6", "--warmup 0.1 --duration 0.8");
    let runs = Runs::new(bench, &format!("--clients {clients} --payload 128 --outstanding 1 {timing}"))?;
    let (plain, secure) = runs.medians();
    let ratio = secure / plain;
    Ok(Figure {
        key: "m-tls-message".to_owned(),
        what: format!("processor time per message over TLS, {clients} subscribers, 128 bytes, one message per send"),
        measured: format!("{ratio:.3} x that of cleartext ({secure:.0} ns against {plain:.0} ns)"),
        bound: Some(format!("at most {MESSAGE_RATIO_MAX:.2} x")),
        reached: ratio <= MESSAGE_RATIO_MAX,
        remarks: runs.remarks(),
        runs: runs.all,
    })
}

/// Many messages in every send. What counts is what the server's core can deliver: the client, which has to decrypt
/// everything, may be the slower of the two.
pub(crate) fn saturation(bench: &Bench) -> Result<Figure> {
    let clients = bench.pick(5000, 50);
    let timing = bench.pick("--warmup 2 --duration 6", "--warmup 0.1 --duration 0.8");
    let runs = Runs::new(bench, &format!("--clients {clients} --payload 128 --burst 10 --outstanding 4 {timing}"))?;
    let (plain, secure) = runs.medians();
    let share = plain / secure;
    let per_second = |ns: f64| 1e9 / ns;
    let mut remarks = runs.remarks();
    let delivered = |kind: &str| {
        let of_kind = runs.all.iter().filter(|(name, _)| name.starts_with(kind));
        median(of_kind.map(|(_, report)| report.delivered_per_second()).collect())
    };
    remarks.push(format!(
        "messages per second of the server's processor time; on the clock, with a client that decrypts on one core, {:.0}/s \
         over TLS and {:.0}/s in cleartext",
        delivered("TLS"),
        delivered("cleartext")
    ));
    Ok(Figure {
        key: "m-tls-saturation".to_owned(),
        what: format!("throughput over TLS, {clients} subscribers, 128 bytes, four bursts of ten outstanding"),
        measured: format!(
            "{:.1} % of that of cleartext ({:.0}/s against {:.0}/s)",
            share * 100.0,
            per_second(secure),
            per_second(plain)
        ),
        bound: Some(format!("at least {:.0} %", THROUGHPUT_SHARE_MIN * 100.0)),
        reached: share >= THROUGHPUT_SHARE_MIN,
        remarks,
        runs: runs.all,
    })
}

/// An idle connection with one subscription against a bare connection after its handshake.
pub(crate) fn memory(bench: &Bench) -> Result<Figure> {
    let clients = bench.pick(10_000, 50);
    let (mut bares, mut brokers, mut runs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=bench.pick(3, 1) {
        bares.push(tls::idle_bytes(bench.cores, &Certificate::new()?, clients)?);
        let broker = secure(bench)?;
        let warm = bench.pick(100, 20);
        broker.run(bench, &format!("--clients {warm} --scenario idle --warmup 0 --duration 0.2"))?;
        let report = broker.run(bench, &format!("--clients {clients} --scenario idle --warmup 1 --duration 2"))?;
        let used = report.server.as_ref().context("no memory was measured")?;
        brokers.push((used.memory_after.pss as f64 - used.memory_before.pss as f64) / clients as f64);
        runs.push((format!("idle {round}"), report));
    }
    let (bare, broker) = (median(bares), median(brokers));
    let ratio = broker / bare;
    Ok(Figure {
        key: "n-tls-memory".to_owned(),
        what: format!("user memory per idle TLS connection with one subscription, {clients} connections"),
        measured: format!("{ratio:.3} x a bare rustls connection ({broker:.0} bytes against {bare:.0} bytes)"),
        bound: Some(format!("at most {MEMORY_RATIO_MAX:.1} x")),
        reached: ratio <= MEMORY_RATIO_MAX,
        remarks: vec![
            "by how much the proportional set size of the process grew; the bare connections are those of another process, \
             after their handshakes in memory"
                .to_owned(),
        ],
        runs,
    })
}

/// Full handshakes, ECDSA P-256, against rustls in memory.
pub(crate) fn handshakes(bench: &Bench) -> Result<Figure> {
    let clients = bench.pick(10_000, 50);
    let (mut bares, mut brokers, mut runs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=bench.pick(5, 1) {
        bares.push(tls::handshake_ns(bench.cores, &Certificate::new()?, clients)?);
        let broker = secure(bench)?;
        broker.run(bench, "--clients 100 --scenario idle --warmup 0 --duration 0.1")?;
        let report =
            broker.run(bench, &format!("--clients {clients} --scenario connect-storm --warmup 0 --duration 0.1"))?;
        brokers.push(report.server_ns_per_admission().context("no processor time")?);
        runs.push((format!("storm {round}"), report));
    }
    let each = |all: &[f64]| all.iter().map(|ns| format!("{:.1}", ns / 1e3)).collect::<Vec<_>>().join(", ");
    let shown = format!("us of processor time: bare {}; broker {}", each(&bares), each(&brokers));
    let (bare, broker) = (median(bares), median(brokers));
    let share = bare / broker;
    let mut remarks = client_remark(&runs);
    remarks.push(format!("medians of alternating runs, {shown}"));
    remarks.push(
        "the broker's time is that of everything: TCP, handshake, upgrade and subscription; the bare server's that of the \
         handshake alone, in memory"
            .to_owned(),
    );
    Ok(Figure {
        key: "o-tls-handshakes".to_owned(),
        what: format!("full handshakes per second of one core, ECDSA P-256, {clients} clients at once"),
        measured: format!("{:.0}/s, {:.1} % of rustls alone ({:.0}/s)", 1e9 / broker, share * 100.0, 1e9 / bare),
        bound: Some(format!("at least {:.0} %", HANDSHAKES_SHARE_MIN * 100.0)),
        reached: share >= HANDSHAKES_SHARE_MIN,
        remarks,
        runs,
    })
}

/// What ML-KEM costs beside X25519: full handshakes of brokers with and without it, in turn, and their bytes.
pub(crate) fn key_exchanges(bench: &Bench) -> Result<Figure> {
    let clients = bench.pick(10_000, 50);
    let exchanges = [("hybrid", false), ("classic", true)];
    let (mut costs, mut runs) = ([Vec::new(), Vec::new()], Vec::new());
    for round in 1..=bench.pick(5, 1) {
        for ((name, _), costs) in exchanges.iter().zip(&mut costs) {
            let broker = Secure::start(bench, Certificate::new()?, &["--tls-key-exchange", name])?;
            broker.run(bench, "--clients 100 --scenario idle --warmup 0 --duration 0.1")?;
            let storm = format!("--clients {clients} --scenario connect-storm --warmup 0 --duration 0.1");
            let report = broker.run(bench, &storm)?;
            costs.push(report.server_ns_per_admission().context("no processor time")?);
            runs.push((format!("{name} {round}"), report));
        }
    }
    let certificate = Certificate::new()?;
    let mut shown = Vec::new();
    for ((name, is_classic), costs) in exchanges.iter().zip(costs) {
        let (ns, bytes) = (median(costs), tls::handshake_bytes(bench.cores, &certificate, *is_classic)?);
        shown.push(format!("{name} {:.0}/s ({:.1} us), {bytes:.0} bytes", 1e9 / ns, ns / 1e3));
    }
    Ok(Figure {
        key: "s-key-exchanges".to_owned(),
        what: format!("full handshakes per second of one core by key exchange, ECDSA P-256, {clients} clients at once"),
        measured: shown.join("; "),
        bound: None,
        reached: true,
        remarks: client_remark(&runs),
        runs,
    })
}
