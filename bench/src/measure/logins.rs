//! A storm of logins with tokens while messages flow.

use std::fs;

use anyhow::{Context, Result};
use loadgen::Outcome;
use tempfile::TempDir;

use super::{Bench, client_remark, median};
use crate::process::Server;
use crate::results::Figure;

const RATIO_MAX: f64 = 2.0;
/// HS256 needs at least as many bytes.
const SECRET: &str = "the figures' secret, 32 bytes or more";

/// A broker that wants tokens, and the files with its settings and secret.
fn start(bench: &Bench) -> Result<(Server, TempDir)> {
    let folder = tempfile::tempdir()?;
    let (secret, tables) = (folder.path().join("hs.secret"), folder.path().join("ringyard.toml"));
    fs::write(&secret, SECRET)?;
    let text = format!(
        "[auth]\nrequired = true\nhs-secret-file = {secret:?}\nalgorithms = [\"HS256\"]\n\n\
         [[allow]]\nprincipal = \"user\"\nsubscribe = [\"#\"]\npublish = [\"#\"]\n"
    );
    fs::write(&tables, text)?;
    let server = bench.start(1, &["--config", tables.to_str().context("a path in UTF-8")?])?;
    Ok((server, folder))
}

fn run(bench: &Bench, more: &str) -> Result<Outcome> {
    let (server, folder) = start(bench)?;
    let (clients, logins) = bench.pick((1000, 15_000), (20, 2000));
    let timing = bench.pick("--warmup 2 --duration 10", "--warmup 0.1 --duration 0.5");
    let secret = folder.path().join("hs.secret");
    // The figure is judged here.
    let judge = "--fail-if login_ratio>1000000";
    let own = format!("--url ws://{} --token-secret-file {} {judge}", server.address, secret.display());
    bench
        .run_on(&server, &format!("{own} --scenario login-storm --clients {clients} --logins {logins} {timing} {more}"))
}

/// p99 of deliveries to 1,000 clients while 15,000 others log in at once, against that before.
pub(crate) fn storm(bench: &Bench) -> Result<Figure> {
    let (mut ratios, mut fresh, mut known, mut runs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=bench.pick(3, 1) {
        for (kind, more, costs) in [("new", "", &mut fresh), ("known", "--token-reuse", &mut known)] {
            let report = run(bench, more)?;
            let logins = report.logins.as_ref().context("nobody logged in")?;
            if kind == "new" {
                ratios.push(logins.ratio().context("nothing was delivered during the storm")?);
            }
            costs.push(logins.server_ns().context("no processor time")? / 1e3);
            runs.push((format!("{kind} tokens {round}"), report));
        }
    }
    let each: Vec<_> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
    let p99 = |of: fn(&loadgen::outcome::Logins) -> u64| {
        let new = runs.iter().filter(|(name, _)| name.starts_with("new"));
        median(new.filter_map(|(_, report)| Some(of(report.logins.as_ref()?) as f64 / 1e6)).collect())
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
    remarks.push(format!(
        "processor time per login, with connect, upgrade and subscription: {:.1} us with tokens that are new to the broker, \
         {:.1} us with tokens that it has seen",
        median(fresh),
        median(known)
    ));
    Ok(Figure {
        key: "q-logins".to_owned(),
        what: "p99 of deliveries to 1,000 clients, 100 messages/s, while 15,000 others log in at once (HS256)"
            .to_owned(),
        measured: format!("{ratio:.2} x that before ({meanwhile:.2} ms against {calm:.2} ms)"),
        bound: Some(format!("at most {RATIO_MAX:.0} x")),
        reached: ratio <= RATIO_MAX,
        remarks,
        runs,
    })
}
