//! Tables in the file, with a schema of their own.

use std::time::Duration;

use crate::config::file::parse;
use crate::config::provenance::{Section, Source};
use crate::config::render::{example, show};
use crate::config::schema::DefaultValue::{Fixed, Otherwise};
use crate::config::schema::Kind::{Bool, Host, List, Number, Size, Time};
use crate::config::schema::{Group, Table, key};

static SCHEMA: Table = Table {
    name: "",
    is_array: false,
    help: "A file with tables",
    groups: &[Group { heading: "", keys: &[key("rooms", Number(1, 9), Fixed("3"), "0.1").help("How many rooms")] }],
    tables: &[
        Table {
            name: "auth",
            is_array: false,
            help: "Who may come in",
            groups: &[Group {
                heading: "",
                keys: &[
                    key("required", Bool, Fixed("true"), "0.2").help("Tokens are required"),
                    key("leeway", Time(0), Fixed("30s"), "0.2").help("Clocks may differ"),
                    key("issuers", List(&Host), Otherwise("none", "a.b"), "0.3").help("Hosts"),
                ],
            }],
            tables: &[],
        },
        Table {
            name: "topic",
            is_array: true,
            help: "Rules for topics",
            groups: &[Group {
                heading: "",
                keys: &[
                    key("history", Number(0, 100), Fixed("10"), "0.2").help("Messages kept"),
                    key("history-bytes", Size(1, 1 << 20), Otherwise("what memory allows", "64k"), "0.2")
                        .help("Bytes kept"),
                ],
            }],
            tables: &[],
        },
    ],
};

const FILE: &str = "\
rooms = 4

[auth]
leeway = '5s'
issuers = ['x.y', 'z']

[[topic]]
history = 7

[[topic]]
history-bytes = '1k'
";

fn read(text: &str) -> Section {
    parse("a.toml", text, &SCHEMA).unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

fn wrong(text: &str) -> Vec<String> {
    parse("a.toml", text, &SCHEMA).err().unwrap_or_else(|| panic!("{text:?} is no error"))
}

#[test]
fn tables_are_read_with_their_lines_and_defaults() {
    let file = read(FILE);
    let [auth, first, second] = &file.tables[..] else { panic!("{} tables", file.tables.len()) };
    assert_eq!((file.get::<u64>("rooms"), auth.table.name, first.table.name), (4, "auth", "topic"));
    assert_eq!((auth.get::<bool>("required"), auth.get("leeway")), (true, Duration::from_secs(5)));
    assert_eq!(auth.all::<String>("issuers"), ["x.y", "z"]);
    assert_eq!((first.get::<u64>("history"), first.find::<u64>("history-bytes")), (7, None));
    assert_eq!((second.get::<u64>("history"), second.find::<u64>("history-bytes")), (10, Some(1024)));
    let sources =
        [&auth.source, auth.source_of("leeway"), &first.source, &second.source, second.source_of("history-bytes")];
    let lines = [3, 4, 7, 10, 11].map(|line| Source::File { name: "a.toml".to_owned(), line });
    assert_eq!(sources, lines.each_ref());
}

#[test]
fn tables_may_stand_in_one_line() {
    let file = read("auth = { required = false }\ntopic = [{ history = 1 }, {}]\n");
    assert_eq!(file.tables.iter().map(|inner| inner.table.name).collect::<Vec<_>>(), ["auth", "topic", "topic"]);
    assert!(read("topic = []\n").tables.is_empty());
}

#[test]
fn what_is_wrong_in_a_table_has_its_line() {
    for (text, parts) in [
        ("[auth]\nrequired = 2\n\n[[topic]]\nhistory = 101", &["2: invalid value '2' for required: ", "5: "][..]),
        ("[auth]\nrequird = true", &["2: there is no setting 'requird' in [auth]: did you mean required?"]),
        ("\n[[topic]]\nzzz = 1", &["3: there is no setting 'zzz' in [[topic]] (`ringyard"]),
        ("\n[[topics]]\nhistory = 1", &["2: there is no table [[topics]]: did you mean topic?"]),
        ("[limits]\n", &["1: there is no table [limits] (`ringyard"]),
        ("[topic]\nhistory = 1", &["1: topic is a table: write [[topic]] above its keys"]),
        ("\n[[auth]]\n", &["2: auth is a table: write [auth] above its keys"]),
        ("auth = 5", &["1: auth is a table"]),
        ("topic = [1]", &["1: topic is a table"]),
        ("[rooms]\n", &["1: rooms takes"]),
        ("[auth.more]\nx = 1", &["1: there is no table [more]"]),
        ("[[topic]]\nhistory = 200\n[auth]\nleeway = 1\n[[topic]]\nhistory = 300", &["2: ", "4: ", "6: "]),
        ("[auth]\nleeway = '1s'\n[auth]\n", &["3: invalid TOML"]),
    ] {
        let wrong = wrong(text);
        assert_eq!(wrong.len(), parts.len(), "{text:?}: {wrong:?}");
        for (sentence, part) in wrong.iter().zip(parts) {
            assert!(sentence.starts_with(&format!("a.toml:{part}")), "{part:?}: {sentence}");
        }
    }
}

#[test]
fn tables_are_shown_with_their_sources_and_can_be_passed_back() {
    let shown = show(&read(FILE), |_, _| None);
    for part in [
        "rooms = 4 # a.toml:1\n\n[auth] # a.toml:3\nrequired = true # default\nleeway = \"5s\" # a.toml:4\n",
        "\n[[topic]] # a.toml:7\nhistory = 7 # a.toml:8\n# history-bytes is not set: what memory allows\n",
        "\n[[topic]] # a.toml:10\nhistory = 10 # default\nhistory-bytes = \"1k\" # a.toml:11\n",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let again = read(&shown);
    assert_eq!((again.tables.len(), again.tables[2].find::<u64>("history-bytes")), (3, Some(1024)));
}

#[test]
fn the_example_has_every_table_and_key() {
    let example = example(&SCHEMA);
    for part in [
        "# How many rooms. Default: 3. Environment: RINGYARD_ROOMS. Since 0.1.\n#rooms = 3\n",
        "\n# Who may come in.\n#[auth]\n\n# Tokens are required. Default: true. Since 0.2.\n#required = true\n",
        "\n# Rules for topics.\n#[[topic]]\n",
        "# Bytes kept. Default: what memory allows. Since 0.2.\n#history-bytes = \"64k\"\n",
    ] {
        assert!(example.contains(part), "{part}: {example}");
    }
    assert!(read(&example).tables.is_empty());
    let uncommented: String =
        example.lines().filter(|line| !line.starts_with("# ")).map(|line| line.replace('#', "") + "\n").collect();
    assert_eq!(read(&uncommented).tables.len(), 2);
}
