//! Storms while messages flow: of logins with tokens, and of TLS handshakes, each with a login.

use std::fs;

use anyhow::{Context, Result};
use loadgen::Outcome;
use tempfile::TempDir;

use super::{Bench, client_remark, median};
use crate::process::Server;
use crate::results::Figure;
use crate::tls::{Certificate, free_port};

const RATIO_MAX: f64 = 2.0;
/// HS256 needs at least as many bytes.
const SECRET: &str = "the figures' secret, 32 bytes or more";

/// How clients come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Tcp,
    Tls,
}

/// A broker that wants tokens.
struct Guarded {
    server: Server,
    folder: TempDir,
    /// Options of the client that say where the broker is.
    place: String,
    _certificate: Option<Certificate>,
}

/// One whose clients come by TCP or by TLS.
fn start(bench: &Bench, by: By) -> Result<Guarded> {
    let folder = tempfile::tempdir()?;
    let (secret, tables) = (folder.path().join("hs.secret"), folder.path().join("ringyard.toml"));
    fs::write(&secret, SECRET)?;
    let certificate = (by == By::Tls).then(Certificate::new).transpose()?;
    let pair = certificate.as_ref().map(Certificate::tables).transpose()?.unwrap_or_default();
    let text = format!(
        "[auth]\nrequired = true\nhs-secret-file = {secret:?}\nalgorithms = [\"HS256\"]\n\n\
         [[allow]]\nprincipal = \"user\"\nsubscribe = [\"#\"]\npublish = [\"#\"]\n\n{pair}"
    );
    fs::write(&tables, text)?;
    let secure = format!("127.0.0.1:{}", free_port()?);
    let mut arguments = vec!["--config", tables.to_str().context("a path in UTF-8")?];
    arguments.extend(certificate.iter().flat_map(|_| ["--tls-listen", &secure[..]]));
    let server = bench.start(1, &arguments)?;
    let place = match &certificate {
        Some(certificate) => {
            let (ca, stats) = (certificate.cert()?, server.address);
            format!("--url wss://{secure} --tls-ca {ca} --server-stats http://{stats}")
        }
        None => format!("--url ws://{}", server.address),
    };
    Ok(Guarded { server, folder, place, _certificate: certificate })
}

fn run(bench: &Bench, by: By, more: &str) -> Result<Outcome> {
    let Guarded { server, folder, place, .. } = &start(bench, by)?;
    let (clients, logins) = bench.pick((1000, 15_000), (20, 2000));
    // Deliveries take a quarter of each core: what else is there is for the logins.
    let timing = bench.pick("--warmup 2 --duration 10 --rate 25", "--warmup 0.1 --duration 0.5");
    let secret = folder.path().join("hs.secret");
    // The figure is judged here.
    let judge = "--fail-if login_ratio>1000000";
    let own = format!("{place} --token-secret-file {} {judge}", secret.display());
    bench.run_on(server, &format!("{own} --scenario login-storm --clients {clients} --logins {logins} {timing} {more}"))
}

/// Storms of two kinds in turn, of which the first is judged.
struct Storms {
    /// p99 of deliveries meanwhile, as a multiple of that before, of each storm of the first kind.
    ratios: Vec<f64>,
    /// Microseconds of processor time for each newcomer, of each kind.
    costs: [f64; 2],
    runs: Vec<(String, Outcome)>,
}

impl Storms {
    fn new(bench: &Bench, by: By, kinds: [(&str, &str); 2]) -> Result<Self> {
        let (mut ratios, mut costs, mut runs) = (Vec::new(), [Vec::new(), Vec::new()], Vec::new());
        for round in 1..=bench.pick(3, 1) {
            for (number, (kind, more)) in kinds.into_iter().enumerate() {
                let report = run(bench, by, more)?;
                let logins = report.logins.as_ref().context("nobody logged in")?;
                if number == 0 {
                    ratios.push(logins.ratio().context("nothing was delivered during the storm")?);
                }
                costs[number].push(logins.server_ns().context("no processor time")? / 1e3);
                runs.push((format!("{kind} {round}"), report));
            }
        }
        Ok(Self { ratios, costs: costs.map(median), runs })
    }

    /// `costs` says what the two kinds cost.
    fn figure(self, key: &str, what: &str, costs: String) -> Figure {
        let Self { ratios, runs, .. } = self;
        let each: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        let p99 = |of: fn(&loadgen::outcome::Logins) -> u64| {
            let judged = runs.iter().step_by(2);
            median(judged.filter_map(|(_, report)| Some(of(report.logins.as_ref()?) as f64 / 1e6)).collect())
        };
        let (calm, meanwhile) = (p99(|logins| logins.calm.p99), p99(|logins| logins.storm.p99));
        let busiest = runs.iter().filter_map(|(_, report)| Some(report.logins.as_ref()?.own_cpu)).fold(0.0, f64::max);
        let ratio = median(ratios);
        let mut remarks = client_remark(&runs);
        remarks.push(format!(
            "each storm: {}; the client used up to {:.0} % of its core meanwhile",
            each.join(", "),
            busiest * 100.0
        ));
        remarks.push(costs);
        Figure {
            key: key.to_owned(),
            what: what.to_owned(),
            measured: format!("{ratio:.2} x that before ({meanwhile:.2} ms against {calm:.2} ms)"),
            bound: Some(format!("at most {RATIO_MAX:.0} x")),
            reached: ratio <= RATIO_MAX,
            remarks,
            runs,
        }
    }
}

/// p99 of deliveries to 1,000 clients while 15,000 others log in at once, against that before.
pub(crate) fn storm(bench: &Bench) -> Result<Figure> {
    let storms = Storms::new(bench, By::Tcp, [("new tokens", ""), ("known tokens", "--token-reuse")])?;
    let [fresh, known] = storms.costs;
    let costs = format!(
        "processor time per login, with connect, upgrade and subscription: {fresh:.1} us with tokens that are new to the \
         broker, {known:.1} us with tokens that it has seen"
    );
    let what = "p99 of deliveries to 1,000 clients, 25 messages/s, while 15,000 others log in at once (HS256)";
    Ok(storms.figure("q-logins", what, costs))
}

/// The same over TLS: each newcomer makes a handshake first.
pub(crate) fn secure_storm(bench: &Bench) -> Result<Figure> {
    let kinds = [("full handshakes", "--tls-resume off"), ("resumed handshakes", "--tls-resume on")];
    let storms = Storms::new(bench, By::Tls, kinds)?;
    let [full, resumed] = storms.costs;
    let costs = format!(
        "processor time per newcomer, with connect, TLS handshake, login, upgrade and subscription: {full:.1} us with a full \
         handshake (ECDSA P-256), {resumed:.1} us with a resumed one"
    );
    let what = "p99 of deliveries to 1,000 clients over TLS, 25 messages/s, while 15,000 others come at once with full TLS \
                handshakes and log in";
    Ok(storms.figure("r-tls-storm", what, costs))
}
