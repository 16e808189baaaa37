//! Topic rules of the configuration file: `ringyard topic`, `config check`, and SIGHUP.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};

use crate::broker::Broker;
use crate::shutdown::signal;

const FOUR: &str = "\
[[topic]]
match = '#'
history-ttl = '10m'

[[topic]]
match = 'chat/#'
history-messages = 1000

[[topic]]
match = 'chat/+/typing'
history = 'none'

[[topic]]
match = '+/7/typing'
history = 'keyed'
";

fn ringyard(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringyard"));
    command.args(arguments).env_remove("RINGYARD_IO").stdin(Stdio::null()).output().unwrap()
}

#[test]
fn the_rule_of_a_topic_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringyard.toml");
    std::fs::write(&file, FOUR).unwrap();
    let file = file.to_str().unwrap();
    let explained = |topic: &str| {
        let output = ringyard(&["topic", topic, "--config", file]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap().replace(file, "FILE")
    };
    assert_eq!(
        explained("chat/7/typing"),
        "To chat/7/typing the rule chat/+/typing applies, FILE:9.\n\
         chat/#, FILE:5, matches too, but in level 2 '+' beats '#'.\n\
         +/7/typing, FILE:13, matches too, but in level 1 'chat' beats '+'.\n\
         #, FILE:1, matches too, but in level 1 'chat' beats '#'.\n\n\
         history = \"none\" # FILE:11\nretain = \"flag\" # default\nstamp = [] # default\nslow-consumer = \"disconnect\" # default\nthrottle = \"0s\" # default\npresence = false # default\nexclusive = false # default\n"
    );
    let chat = explained("chat/7");
    assert!(chat.starts_with("To chat/7 the rule chat/# applies, FILE:5.\n"), "{chat}");
    for line in ["history-messages = 1000 # FILE:7", "history-ttl = \"2m\" # default"] {
        assert!(chat.lines().any(|other| other == line), "{line}: {chat}");
    }
    assert!(explained("other/7/typing").starts_with("To other/7/typing the rule +/7/typing applies, FILE:13.\n"));
    assert!(explained("$sys/load").starts_with("To $sys/load the built-in rule $sys/load applies.\n"));
}

#[test]
fn what_is_no_topic_and_a_wrong_table_end_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringyard.toml");
    std::fs::write(&file, "[[topic]]\nmatch = 'a'\n\n[[topic]]\nmatch = 'a'\n").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, part) in [
        (&["topic", "chat/#"][..], "'chat/#' is not a topic"),
        (&["topic", "a", "--config", file], "ringyard.toml:5: "),
        (&["config", "check", file], "ringyard.toml:5: "),
    ] {
        let output = ringyard(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{error}");
        assert!(error.contains(part) && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn rules_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ringyard.toml");
    std::fs::write(&file, FOUR).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringyard"));
    command.args(["--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0", "--admin-listen", "off"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut log = BufReader::new(child.stderr.take().expect("piped"));
    let broker = Broker::of(child);
    let mut hang_up = |text: &str, until: &str| {
        std::fs::write(&file, text).unwrap();
        signal(&broker, "HUP");
        let mut lines = String::new();
        while !lines.contains(until) {
            assert!(log.read_line(&mut lines).unwrap() > 0, "the log ended before {until}: {lines}");
        }
        lines
    };
    let smaller = FOUR.replace("1000", "10");
    let lines = hang_up(&smaller, "topic rules have changed");
    assert!(lines.contains("rules=4"), "{lines}");
    let lines = hang_up("[[topic]]\nmatch = 'a'\nretain = 'sometimes'\n", "nothing has changed");
    assert!(lines.contains("ringyard.toml:3") && !lines.contains("another kind"), "a smaller window is none: {lines}");
    // The file before was refused, so this one is compared with that in force.
    let lines = hang_up(&smaller.replace("keyed", "window"), "until they are forgotten");
    assert!(lines.contains("existing ones keep theirs") && lines.contains("+/7/typing"), "{lines}");
    assert!(!lines.contains("chat/#"), "{lines}");
    signal(&broker, "TERM");
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("ended") && !rest.contains("topic rules"), "{rest}");
}
