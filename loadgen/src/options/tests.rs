//! Options: precedence, and what is refused.

use super::*;
use clap::Parser;

#[derive(Parser)]
#[command(args_override_self = true)]
struct Line {
    #[command(flatten)]
    options: Options,
}

fn parse(line: &str) -> Result<Options> {
    let options = Line::try_parse_from(["loadgen"].into_iter().chain(line.split_whitespace()))?.options.completed();
    options.check()?;
    Ok(options)
}

#[test]
fn what_is_given_wins_over_the_scenario() {
    let recovery = parse("--scenario recovery --clients 500 --away 2").unwrap();
    assert_eq!((recovery.drops, recovery.away), (Some(50.0), Duration::from_secs(2)));
    assert_eq!(parse("--scenario recovery --behind 100").unwrap().drops, Some(0.0), "one or the other");
    let conflate = parse("--scenario conflate").unwrap();
    assert_eq!((conflate.clients, conflate.keys, conflate.rate), (Some(5000), Some(50), Some(Rate::PerSecond(500.0))));
    assert_eq!((conflate.verify, conflate.slow_share, conflate.slow_rate), (Some(Share(0.1)), None, Some(1000)));
    assert_eq!(parse("--scenario conflate --clients 20").unwrap().verify, Some(Share(1.0)));
    assert_eq!(parse("").unwrap().slow_rate, Some(0));
    let chat = parse("--scenario chat --clients 500").unwrap();
    assert_eq!((chat.topics, chat.rate), (Some(50), Some(Rate::PerSecond(50.0))));
    let chat = parse("--scenario chat --clients 500 --topics 5 --rate 7").unwrap();
    assert_eq!((chat.topics, chat.rate), (Some(5), Some(Rate::PerSecond(7.0))));
    assert_eq!(parse("").unwrap().rate, Some(Rate::Max));
    assert_eq!(parse("--scenario many-topics --outstanding 2").unwrap().rate, Some(Rate::Max));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    for (line, name) in [
        ("--payload 10", "--payload"),
        ("--payload 200..100", "--payload"),
        ("--clients 0", "--clients"),
        ("--duration 0", "--duration must be above 0"),
        ("--report -", "--report"),
        ("--topics 3 --topics-per-client 4", "--topics-per-client"),
        ("--storms 1", "--storms"),
        ("--share 1/2", "--share"),
        ("--share 3/2", "--share"),
        ("--slow-share 2 --rate 1", "--slow-share"),
        ("--rate 0", "--rate"),
        ("--verify 1.5", "--verify"),
        ("--publishers 0", "--publishers"),
        ("--drops 5", "--drops needs --rate"),
        ("--drops=-1 --rate 5", "--drops"),
        ("--drops 5 --rate 5 --churn 1", "--churn"),
        ("--drops 5 --rate 5 --share 1/2", "--share"),
        ("--behind 5 --rate 5 --topics 2 --topics-per-client 2", "--behind"),
        ("--keys 0 --rate 5", "--keys"),
        ("--keys 3 --retain --rate 5", "--retain"),
        ("--scenario keyed-state --rate max", "keyed-state needs --rate"),
        ("--scenario keyed-state --retain --topics 1", "--topics must be at least 2"),
        ("--scenario keyed-state --drops 1", "--drops"),
        ("--throttle 5.1", "--throttle"),
        ("--throttle 0.0005", "--throttle"),
        ("--scenario conflate --publishers 2", "--publishers"),
        ("--scenario conflate --share 1/2", "--share"),
        ("--scenario conflate --idle", "conflate"),
        ("--scenario conflate --rate max --slow-share 0.1", "--slow-share"),
        ("--server-pid 1 --server-stats localhost:8081", "http://"),
        ("--server-stats http://localhost:8081", "--server-pid"),
    ] {
        let error = format!("{:#}", parse(line).expect_err(line));
        assert!(error.contains(name), "{line}: {error}");
    }
}

#[test]
fn shares_add_up() {
    for all in [0, 1, 7, 1_000_003] {
        let mut next = 0;
        for index in 1..=7 {
            let (first, count) = Portion { index, of: 7 }.part(all);
            assert_eq!(first, next);
            next += count;
        }
        assert_eq!(next, all);
    }
}

#[test]
fn a_file_has_the_same_names() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "scenario = 'churn'\nclients = 50\ntopics_per_client = 1\nserver-pid = [1, 2]\nidle = false\n";
    std::fs::write(file.path(), text).unwrap();
    let arguments = Options::arguments_of(file.path()).unwrap();
    let options = parse(&arguments.join(" ")).unwrap();
    assert_eq!((options.scenario, options.clients), (Scenario::Churn, Some(50)));
    assert_eq!(options.server_pid, [1, 2]);
    std::fs::write(file.path(), "clients = { a = 1 }").unwrap();
    assert!(format!("{:#}", Options::arguments_of(file.path()).unwrap_err()).contains("clients"));
}
