//! A healthy machine made of files, and what the doctor says when one thing in it changes.

use std::num::NonZeroU32;
use std::time::Duration;

use ring::{Cause, Feature, Io};

use crate::capacity::doctor::{Facts, Finding, Plan, Report, Status, examine};
use crate::capacity::machine::fixture::Fixture;

const LIMITS: &str = "/proc/self/limits";
const MEMINFO: &str = "/proc/meminfo";

/// Everything as it should be, for 100,000 clients on four cores.
const HEALTHY: [(&str, &str); 17] = [
    ("/proc/sys/kernel/osrelease", "6.12.5-amd64\n"),
    ("/proc/sys/kernel/io_uring_disabled", "0\n"),
    ("/proc/self/status", "Name:\tringyard\nTHP_enabled:\t0\nSeccomp:\t0\n"),
    (
        LIMITS,
        "Max open files            100100               100100               files     \nMax locked memory         8388608              8388608              bytes     \n",
    ),
    (MEMINFO, "MemTotal:       16777216 kB\nMemAvailable:   8388608 kB\n"),
    ("/proc/self/cgroup", "0::/\n"),
    ("/proc/sys/fs/nr_open", "1048576\n"),
    ("/proc/sys/fs/file-max", "9223372036854775807\n"),
    ("/proc/sys/fs/file-nr", "1024\t0\t9223372036854775807\n"),
    ("/proc/sys/net/core/somaxconn", "4096\n"),
    ("/proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
    ("/proc/sys/net/ipv4/tcp_mem", "500000\t700000\t1000000\n"),
    ("/proc/sys/net/ipv4/tcp_congestion_control", "cubic\n"),
    ("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
    ("/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
    ("/sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet acpi_pm\n"),
    ("/sys/fs/cgroup/memory.max", "max\n"),
];

fn plan() -> Plan {
    Plan {
        io: None,
        shards: 4,
        asked: None,
        memory_asked: None,
        memory_bytes_least: 0,
        certificates: Vec::new(),
        wrong: Vec::new(),
    }
}

fn asking(connections: u32) -> Plan {
    Plan { asked: NonZeroU32::new(connections), ..plan() }
}

fn facts() -> Facts {
    let features = vec![
        Feature { name: "buffer rings", supported: true, since: "5.19" },
        Feature { name: "prompt close", supported: false, since: "6.13" },
    ];
    Facts { io_uring: Ok(features), cores: 4, now: Duration::from_secs(1_800_000_000), misnamed: Vec::new() }
}

fn without(cause: Cause) -> Facts {
    Facts { io_uring: Err(cause), ..facts() }
}

/// What is said of the healthy machine with some files replaced.
fn report(files: &[(&str, &str)], plan: &Plan, facts: &Facts) -> Report {
    examine(&Fixture::new(&[&HEALTHY[..], files].concat()).machine(), plan, facts)
}

#[track_caller]
fn finding(report: &Report, name: &str) -> Finding {
    let found = report.0.iter().find(|finding| finding.name == name);
    found.unwrap_or_else(|| panic!("nothing about {name}: {report}")).clone()
}

/// One thing is changed, and one finding is what it should be, with these words in it.
#[track_caller]
fn expect(name: &str, status: Status, words: &[&str], files: &[(&str, &str)], plan: &Plan, facts: &Facts) {
    let finding = finding(&report(files, plan, facts), name);
    let text = format!("{} -> {}", finding.value, finding.advice.clone().unwrap_or_default());
    assert_eq!(finding.status, status, "{name}: {text}");
    assert_eq!(finding.advice.is_some(), status != Status::Ok, "{name}: {text}");
    for word in words {
        assert!(text.contains(word), "{name}: {word}: {text}");
    }
}

#[test]
fn a_healthy_machine_is_well() {
    let report = report(&[], &plan(), &facts());
    assert!(report.0.iter().all(|finding| finding.status == Status::Ok), "{report}");
    assert!(!report.has_problem() && report.to_string().ends_with("All is well.\n"));
    assert!(report.to_string().lines().count() <= 25, "more than a screen: {report}");
    for (name, words) in [
        ("kernel", &["Linux 6.12.5-amd64"][..]),
        ("io_uring features", &["buffer rings", "not here: prompt close (Linux 6.13)"]),
        ("driver", &["io_uring, by --io auto"]),
        ("descriptors", &["100,100", "99,992 connections for each shard, 399,968 for 4 shards"]),
        ("memory", &["8.0 GiB available", "852,241 connections"]),
        ("clients that fit", &["399,968, by the shards' tables; next memory, 852,241"]),
    ] {
        let finding = finding(&report, name);
        assert!(words.iter().all(|word| finding.value.contains(word)), "{finding:?}");
    }
}

#[test]
fn of_a_machine_that_shows_nothing_little_is_said() {
    let report = examine(&Fixture::new(&[]).machine(), &plan(), &facts());
    assert!(!report.has_problem(), "{report}");
    assert_eq!(finding(&report, "memory").status, Status::Warning);
    assert_eq!(finding(&report, "connection tracking").value, "not loaded");
}

#[test]
fn an_old_kernel() {
    let files = [("/proc/sys/kernel/osrelease", "6.1.0-44-amd64\n")];
    expect("kernel", Status::Warning, &["6.1.0-44-amd64", "run Linux 6.8"], &files, &plan(), &facts());
    expect("kernel", Status::Ok, &[], &files, &Plan { io: Some(Io::Epoll), ..plan() }, &facts());
}

#[test]
fn io_uring_is_refused_for_a_cause() {
    let epoll = Plan { io: Some(Io::Epoll), ..plan() };
    let uring = Plan { io: Some(Io::Uring), ..plan() };
    let release = || "5.15.0".to_owned();
    for (cause, words) in [
        (
            Cause::Seccomp { call: "io_uring_setup", answer: "ENOSYS" },
            &["seccomp", "Podman", "--security-opt seccomp="][..],
        ),
        (Cause::Seccomp { call: "io_uring_setup", answer: "EPERM" }, &["seccomp", "Docker", "--security-opt seccomp="]),
        (Cause::Seccomp { call: "io_uring_enter", answer: "EPERM" }, &["io_uring_enter", "--security-opt seccomp="]),
        (Cause::Sysctl { value: 2, group: -1 }, &["io_uring_disabled=2", "sysctl -w"]),
        (Cause::SecurityModule, &["SELinux"]),
        (Cause::GVisor, &["gVisor", "runc"]),
        (Cause::NotBuilt { release: release() }, &["CONFIG_IO_URING"]),
        (Cause::KernelTooOld { release: release() }, &["too old", "6.8"]),
        (Cause::MissingOperation { release: release(), operation: "IORING_OP_SEND" }, &["IORING_OP_SEND", "6.8"]),
        (Cause::Memory { memlock: 65_536 }, &["65536", "ulimit -l"]),
        (Cause::Other("something else".to_owned()), &["something else"]),
    ] {
        let facts = without(cause);
        expect("io_uring", Status::Warning, words, &[], &plan(), &facts);
        expect("io_uring", Status::Problem, words, &[], &uring, &facts);
        expect("io_uring", Status::Ok, &["not needed"], &[], &epoll, &facts);
        expect("driver", Status::Ok, &["epoll, by --io auto"], &[], &plan(), &facts);
        expect("driver", Status::Problem, &["--io auto"], &[], &uring, &facts);
        assert!(report(&[], &plan(), &facts).0.iter().all(|finding| finding.name != "io_uring features"));
    }
}

#[test]
fn seccomp_and_the_sysctl() {
    let facts = without(Cause::Sysctl { value: 2, group: -1 });
    let status = [("/proc/self/status", "THP_enabled:\t0\nSeccomp:\t2\n")];
    expect("seccomp", Status::Ok, &["a filter is in force"], &status, &plan(), &facts);
    expect("seccomp", Status::Ok, &["no filter"], &[], &plan(), &facts);
    let (name, files) = ("kernel.io_uring_disabled", [("/proc/sys/kernel/io_uring_disabled", "2\n")]);
    expect(name, Status::Warning, &["2: nobody", "sysctl -w kernel.io_uring_disabled=0"], &files, &plan(), &facts);
    expect(name, Status::Ok, &["2: nobody"], &files, &Plan { io: Some(Io::Epoll), ..plan() }, &facts);
    let one = [("/proc/sys/kernel/io_uring_disabled", "1\n")];
    expect(name, Status::Ok, &["1: only a group"], &one, &plan(), &crate::capacity::doctor::tests::facts());
}

#[test]
fn locked_memory() {
    let name = "memlock";
    expect(name, Status::Ok, &["8.0 MiB"], &[], &plan(), &facts());
    let short = without(Cause::Memory { memlock: 8 << 20 });
    expect(name, Status::Warning, &["ulimit -l unlimited"], &[], &plan(), &short);
    let limits = "Max open files            100100               100100               files     \n\
                  Max locked memory         1048576              1048576              bytes     \n";
    let files = [(LIMITS, limits)];
    let words = ["1.0 MiB", "4 shards need about 1.2 MiB", "memlock=-1"];
    expect(name, Status::Warning, &words, &files, &plan(), &facts());
    expect("driver", Status::Ok, &["epoll, by --io auto"], &files, &plan(), &facts());
    expect(name, Status::Problem, &words, &files, &Plan { io: Some(Io::Uring), ..plan() }, &facts());
    expect(name, Status::Ok, &["1.0 MiB"], &files, &Plan { shards: 3, ..plan() }, &facts());
    expect(name, Status::Ok, &["1.0 MiB"], &files, &Plan { io: Some(Io::Epoll), ..plan() }, &facts());
    let root = [files[0], ("/proc/self/status", "CapEff:\t000001ffffffffff\nTHP_enabled:\t0\n")];
    expect(name, Status::Ok, &["CAP_IPC_LOCK"], &root, &plan(), &facts());
}

#[test]
fn huge_pages_and_clocks() {
    let huge = [
        ("/proc/self/status", "THP_enabled:\t1\n"),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n"),
    ];
    expect("huge pages", Status::Warning, &["echo madvise >"], &huge, &plan(), &facts());
    expect("huge pages", Status::Ok, &["none unless asked"], &huge[..1], &plan(), &facts());
    let slow = [("/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n")];
    expect("clock source", Status::Warning, &["hpet", "echo tsc >"], &slow, &plan(), &facts());
    let unset = Facts { now: Duration::from_secs(7), ..facts() };
    expect("time", Status::Warning, &["7 s since 1970", "timedatectl"], &[], &plan(), &unset);
}

#[test]
fn descriptors() {
    let limits = |text| [(LIMITS, text)];
    let name = "descriptors";
    let few = limits("Max open files            1024                 4096                 files     \n");
    expect(name, Status::Warning, &["4,096", "raised", "ulimit -n 100100", "LimitNOFILE"], &few, &plan(), &facts());
    let epoll = Plan { io: Some(Io::Epoll), ..plan() };
    expect(name, Status::Ok, &["95,896 for 4 shards"], &[], &epoll, &facts());
    expect(name, Status::Ok, &[], &[], &asking(399_968), &facts());
    expect(
        name,
        Status::Problem,
        &["--max-connections is 400000", "ulimit -n 100108"],
        &[],
        &asking(400_000),
        &facts(),
    );
    let none = limits("Max open files            16                   16                   files     \n");
    expect(name, Status::Problem, &["16", "ulimit -n 100100"], &none, &plan(), &facts());
    assert!(report(&none, &plan(), &facts()).has_problem());
    let nr_open = [("/proc/sys/fs/nr_open", "100101\n")];
    expect("fs.nr_open", Status::Warning, &["sysctl -w fs.nr_open=100108"], &nr_open, &asking(400_000), &facts());
    expect("fs.nr_open", Status::Ok, &["100,101"], &nr_open, &asking(100), &facts());
    let files = [("/proc/sys/fs/file-nr", "1000\t0\t100000\n"), ("/proc/sys/fs/file-max", "100000\n")];
    expect(
        "fs.file-max",
        Status::Warning,
        &["99,000", "110,000", "fs.file-max=111000"],
        &files,
        &asking(100_000),
        &facts(),
    );
    expect("fs.file-max", Status::Ok, &["99,000"], &files, &asking(10_000), &facts());
}

#[test]
fn memory() {
    let small = [("/sys/fs/cgroup/memory.max", "268435456\n"), ("/sys/fs/cgroup/memory.current", "0\n")];
    expect("memory", Status::Ok, &["leaves 256.0 MiB of 256.0 MiB", "14,472"], &small, &plan(), &facts());
    let much = ["--max-connections 14472", "--memory"];
    expect("memory", Status::Warning, &much, &small, &asking(100_000), &facts());
    let report = report(&small, &asking(100_000), &facts());
    assert!(!report.has_problem(), "memory is no reason not to start: {report}");
    let roomy = ["resident at most", "16.0 MiB the program", "2.0 MiB each of 4 shards", "64.0 MiB held for clients"];
    expect("memory plan", Status::Ok, &roomy, &small, &plan(), &facts());
    let greedy = Plan { memory_asked: Some(512 << 20), ..plan() };
    let words = ["512.0 MiB held", "more than the 256.0 MiB available", "--max-memory 1"];
    expect("memory plan", Status::Warning, &words, &small, &greedy, &facts());
    let fit = "clients that fit";
    expect(fit, Status::Ok, &["14,472, by memory"], &small, &plan(), &facts());
    expect(fit, Status::Warning, &["14,472, by memory", "asks for 100,000"], &small, &asking(100_000), &facts());
}

#[test]
fn cores_and_threads() {
    let quota = [("/sys/fs/cgroup/cpu.max", "150000 100000\n")];
    expect("cores", Status::Warning, &["share 1.50", "--shards 2", "--cpus 4"], &quota, &plan(), &facts());
    expect("cores", Status::Ok, &["1.50"], &quota, &Plan { shards: 2, ..plan() }, &facts());
    expect("cores", Status::Warning, &["--shards 4"], &[], &Plan { shards: 8, ..plan() }, &facts());
    // That many connections need that many tables.
    expect("cores", Status::Ok, &["8 shards"], &[], &Plan { shards: 8, ..asking(799_000) }, &facts());
    let threads = [("/sys/fs/cgroup/pids.max", "20\n"), ("/sys/fs/cgroup/pids.current", "10\n")];
    expect("threads", Status::Problem, &["leaves 10", "12 are needed", "--pids-limit 34"], &threads, &plan(), &facts());
    expect("threads", Status::Ok, &["leaves 20"], &threads[..1], &plan(), &facts());
}

#[test]
fn the_network() {
    let backlog = [("/proc/sys/net/core/somaxconn", "128\n")];
    expect("net.core.somaxconn", Status::Warning, &["128", "net.core.somaxconn=4096"], &backlog, &plan(), &facts());
    let ports = [("/proc/sys/net/ipv4/ip_local_port_range", "50000\t59999\n")];
    let name = "net.ipv4.ip_local_port_range";
    expect(name, Status::Warning, &["10,000", "'1024 65535'"], &ports, &plan(), &facts());
    let tcp = [("/proc/sys/net/ipv4/tcp_mem", "1\t2\t90000\n")];
    let name = "net.ipv4.tcp_mem";
    expect(name, Status::Warning, &["90,000", "tcp_mem='100000 150000 200000'"], &tcp, &asking(100_000), &facts());
    expect(name, Status::Ok, &["90,000"], &tcp, &asking(90_000), &facts());
    let tracked = [
        ("/proc/sys/net/netfilter/nf_conntrack_max", "65536\n"),
        ("/proc/sys/net/netfilter/nf_conntrack_count", "536\n"),
    ];
    let name = "connection tracking";
    expect(name, Status::Warning, &["536 of 65,536", "nf_conntrack_max=125536"], &tracked, &asking(100_000), &facts());
    expect(name, Status::Ok, &["536 of 65,536"], &tracked, &asking(65_000), &facts());
    expect("net.ipv4.tcp_congestion_control", Status::Ok, &["cubic"], &[], &plan(), &facts());
}

#[test]
fn a_wrong_configuration_is_a_problem_each() {
    let wrong = Plan {
        certificates: Vec::new(),
        wrong: vec!["a.toml:1: one".to_owned(), "a.toml:2: two".to_owned()],
        ..plan()
    };
    let report = report(&[], &wrong, &facts());
    let problems: Vec<_> = report.0.iter().filter(|finding| finding.status == Status::Problem).collect();
    assert!(report.has_problem() && problems.len() == 2 && problems[1].value == "a.toml:2: two", "{report}");
    assert!(report.to_string().ends_with("Problems: 2. Warnings: 0.\n"));
}

#[test]
fn a_variable_that_nothing_reads_is_a_warning() {
    let facts = Facts { misnamed: vec![("RINGYARD_SHARD".to_owned(), "RINGYARD_SHARDS".to_owned())], ..facts() };
    let words = ["RINGYARD_SHARD says nothing", "name it RINGYARD_SHARDS"];
    expect("configuration", Status::Warning, &words, &[], &plan(), &facts);
}

#[test]
fn json_is_an_array_of_findings() {
    let files = [("/proc/sys/net/core/somaxconn", "128\n")];
    let json = report(&files, &plan(), &facts()).json();
    let findings: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    let of = |name: &str| findings.iter().find(|finding| finding["name"] == name).unwrap();
    assert_eq!(of("net.core.somaxconn")["status"], "warning");
    assert!(of("net.core.somaxconn")["advice"].as_str().unwrap().starts_with("sysctl -w"));
    assert_eq!(of("kernel")["value"], "Linux 6.12.5-amd64");
    assert!(of("kernel")["advice"].is_null());
}

#[test]
fn figures_are_easy_to_read() {
    use crate::capacity::doctor::report::{bytes, grouped};
    assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    assert_eq!(
        [512, 2048, 3 << 19, 5 << 30, u64::MAX].map(bytes),
        ["512 bytes", "2.0 KiB", "1.5 MiB", "5.0 GiB", "unlimited"]
    );
}
