//! Whether this machine can hold a run: descriptors, ports, memory, connection tracking. Checked before the first
//! connection, so that the user does not wait minutes for an error; each error names a number of clients that would work,
//! and the limit to raise.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use anyhow::{Result, bail, ensure};

use crate::plan::{PER_SOURCE, Plan, Role};

/// Kernel memory of an established connection, one end, and one more when both ends are here: measured on
/// Linux 6.18 with idle sockets, rounded up.
const KERNEL_BYTES_PER_END: u64 = 4200;
/// What this program itself may use per client.
const OWN_BYTES_PER_CLIENT: u64 = 512;
/// The same over TLS, in addition.
const TLS_BYTES_PER_CLIENT: u64 = 10 << 10;
/// Descriptors that are not connections: the ring, the waker, files, libraries.
const DESCRIPTORS_SPARE: u64 = 100;
/// Of a ring, and of the program without them.
const DESCRIPTORS_PER_RING: u64 = 4;
const DESCRIPTORS_OWN: u64 = 32;

/// What this machine has.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// Cores that this program may run on.
    pub(crate) cores: u32,
    /// Open files per process, which also bounds each ring's table.
    pub(crate) descriptors: u64,
    /// Ports that connections may come from, per source address.
    pub(crate) ports: u64,
    /// Bytes that could be allocated now.
    pub(crate) memory: Option<u64>,
    /// `net.ipv4.tcp_mem`, in pages: above the last, sockets fail.
    pub(crate) tcp_pages_max: Option<u64>,
    /// `fs.file-max` less what is open: files that all processes together may still open.
    pub(crate) files: Option<u64>,
    /// Connection tracking, if this machine tracks its connections.
    pub(crate) tracking: Option<Tracking>,
}

/// The kernel's table of tracked connections (`nf_conntrack`). When it is full, packets of new connections are dropped:
/// connects wait until they time out. A connection over loopback takes one entry, although both ends are here: the packet
/// that arrives is the one that was tracked when it left. Closed connections keep theirs for up to two minutes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tracking {
    /// `net.netfilter.nf_conntrack_max`.
    pub(crate) most: u64,
    /// `net.netfilter.nf_conntrack_count`.
    pub(crate) now: u64,
}

impl Tracking {
    /// Nothing if the module is not loaded, or tracks nothing in this network namespace. Call it while a connection exists:
    /// then a table without entries is not in use.
    fn read(proc: &Path) -> Option<Self> {
        let number = |name: &str| numbers(&proc.join("sys/net/netfilter").join(name)).first().copied();
        let (most, now) = (number("nf_conntrack_max")?, number("nf_conntrack_count")?);
        (now > 0).then_some(Self { most, now })
    }
}

impl Machine {
    pub(crate) fn this() -> Self {
        // A connection to oneself, as long as `read` takes.
        let listener = TcpListener::bind("127.0.0.1:0").ok();
        let _probe =
            listener.and_then(|listener| Some((TcpStream::connect(listener.local_addr().ok()?).ok()?, listener)));
        Self::read(Path::new("/proc"))
    }

    /// With the kernel's limits of this folder.
    fn read(proc: &Path) -> Self {
        let cores = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
        let ports = numbers(&proc.join("sys/net/ipv4/ip_local_port_range"));
        Self {
            cores: cores.max(1),
            descriptors: ring::limits::raise_descriptors().0,
            ports: if let [first, last] = ports[..] { last.saturating_sub(first) + 1 } else { 28_232 },
            memory: meminfo("MemAvailable"),
            tcp_pages_max: numbers(&proc.join("sys/net/ipv4/tcp_mem")).get(2).copied(),
            files: match numbers(&proc.join("sys/fs/file-nr"))[..] {
                [open, _, most] => Some(most.saturating_sub(open)),
                _ => None,
            },
            tracking: Tracking::read(proc),
        }
    }

    /// Connections that one ring holds at most.
    pub(crate) fn descriptors_per_ring(&self) -> u64 {
        self.descriptors.saturating_sub(DESCRIPTORS_SPARE).clamp(1, 1 << 20)
    }

    /// The least number of rings for so many connections: some places stay free for those that come back while the old
    /// ones are being closed.
    pub(crate) fn workers_for(&self, connections: u64) -> u64 {
        connections.div_ceil((self.descriptors_per_ring() * 19 / 20).max(1)).max(1)
    }

    /// Checks that the machine can hold the run; returns what may not fit.
    ///
    /// # Errors
    /// All that does not fit, with the number of clients that would.
    pub(crate) fn check(&self, plan: &Plan) -> Result<Vec<String>> {
        let needs = Needs::of(plan);
        let checks = [
            self.check_descriptors(plan),
            self.check_ports(plan),
            self.check_memory(&needs),
            self.check_files(plan, &needs),
            self.check_tracking(plan, &needs),
        ];
        let missing: Vec<_> = checks.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
        if !missing.is_empty() {
            bail!("{}", missing.join("; and "));
        }
        Ok(self.socket_memory_warning(&needs).into_iter().collect())
    }

    fn check_tracking(&self, plan: &Plan, needs: &Needs) -> Result<()> {
        let Some(Tracking { most, now }) = self.tracking else { return Ok(()) };
        ensure!(
            now + needs.connections <= most,
            "connection tracking has room for {most} connections (net.netfilter.nf_conntrack_max) and tracks {now} already, \
             {} more are needed: enough for --clients {}. sysctl -w net.netfilter.nf_conntrack_max={}",
            needs.connections,
            most.saturating_sub(now + plan.own_publishers.1),
            (now + needs.connections) * 11 / 10,
        );
        Ok(())
    }

    fn check_descriptors(&self, plan: &Plan) -> Result<()> {
        let rings = self.descriptors.saturating_sub(DESCRIPTORS_OWN) / DESCRIPTORS_PER_RING;
        ensure!(
            u64::from(plan.workers) <= rings,
            "{} rings need {} descriptors, this process may have {}: enough for --clients {}. Raise it with ulimit -n",
            plan.workers,
            u64::from(plan.workers) * DESCRIPTORS_PER_RING + DESCRIPTORS_OWN,
            self.descriptors,
            (rings * (self.descriptors_per_ring() * 19 / 20)).saturating_sub(plan.own_publishers.1),
        );
        Ok(())
    }

    fn check_ports(&self, plan: &Plan) -> Result<()> {
        let given = &plan.options.source;
        if given.is_empty() && plan.source(Role::Client(plan.own_clients.0)).is_some() {
            // Addresses of 127.0.0.0/8 in turn, to one address and port.
            let each = PER_SOURCE.min(plan.connections());
            ensure!(
                each <= self.ports,
                "{each} connections come from each address of 127.0.0.0/8, net.ipv4.ip_local_port_range offers {} ports. \
                 sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"",
                self.ports,
            );
            return Ok(());
        }
        let (connections, sources) = (plan.connections(), given.len().max(1) as u64);
        // A few are taken or still closing.
        let most = self.ports * sources * 95 / 100;
        ensure!(
            connections <= most,
            "{connections} connections from {sources} address(es) need as many ports to {}: net.ipv4.ip_local_port_range \
             offers {}, enough for --clients {}. sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\", or name more \
             addresses of this machine with --source",
            plan.adapter.address(),
            self.ports * sources,
            most.saturating_sub(plan.own_publishers.1),
        );
        Ok(())
    }

    fn check_memory(&self, &Needs { connections, ends, own }: &Needs) -> Result<()> {
        let Some(memory) = self.memory else { return Ok(()) };
        let each = ends * KERNEL_BYTES_PER_END + own;
        ensure!(
            connections * each <= memory,
            "{connections} connections need about {:.1} GB of memory ({each} bytes each{}), {:.1} GB are available: \
             enough for --clients {}",
            (connections * each) as f64 / 1e9,
            if ends == 2 { ", both ends being on this machine" } else { "" },
            memory as f64 / 1e9,
            memory / each,
        );
        Ok(())
    }

    /// The kernel accounts a page to a socket that was used once, for a while.
    fn socket_memory_warning(&self, &Needs { connections, ends, .. }: &Needs) -> Option<String> {
        let (pages, wanted) = (self.tcp_pages_max?, connections * ends);
        (wanted > pages).then(|| {
            format!(
                "net.ipv4.tcp_mem allows {pages} pages, {connections} connections may want {wanted}: sockets beyond fail. \
                 sysctl -w net.ipv4.tcp_mem=\"{wanted} {} {}\"",
                wanted * 3 / 2,
                wanted * 2
            )
        })
    }

    fn check_files(&self, plan: &Plan, &Needs { connections, ends, .. }: &Needs) -> Result<()> {
        let Some(files) = self.files else { return Ok(()) };
        ensure!(
            connections * ends <= files,
            "{connections} connections{} are {} open files, fs.file-max leaves {files}: enough for --clients {}. \
             sysctl -w fs.file-max={}",
            if ends == 2 { ", both ends being on this machine," } else { "" },
            connections * ends,
            (files / ends).saturating_sub(plan.own_publishers.1),
            connections * ends + 200_000,
        );
        Ok(())
    }
}

/// What a run needs of the kernel.
struct Needs {
    connections: u64,
    /// Ends of each connection that are on this machine.
    ends: u64,
    /// This program's memory for each, in bytes.
    own: u64,
}

impl Needs {
    fn of(plan: &Plan) -> Self {
        let own = OWN_BYTES_PER_CLIENT + if plan.tls.is_some() { TLS_BYTES_PER_CLIENT } else { 0 };
        Self { connections: plan.connections(), ends: if plan.is_local() { 2 } else { 1 }, own }
    }
}

/// A line of `/proc/meminfo`, in bytes.
pub(crate) fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

fn numbers(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn judge(machine: &Machine, change: impl FnOnce(&mut Options)) -> Result<Vec<String>> {
        let mut options = Options { url: "ws://127.0.0.1:1".into(), burst: 1, ..Options::default() };
        options.topic_prefix = "t".into();
        change(&mut options);
        let plan = Plan::new(options.completed(), machine)?;
        machine.check(&plan)
    }

    #[test]
    fn too_little_is_said_with_a_figure_that_works() {
        let machine = Machine {
            cores: 2,
            descriptors: 1100,
            ports: 1000,
            memory: Some(89_120_000),
            tcp_pages_max: Some(15_000),
            files: None,
            tracking: None,
        };
        assert!(judge(&machine, |options| options.clients = Some(5000)).unwrap().is_empty());
        assert_eq!(judge(&machine, |options| options.clients = Some(9000)).unwrap().len(), 1);
        let memory = judge(&machine, |options| options.clients = Some(10_000)).unwrap_err().to_string();
        assert!(memory.contains("--clients 10000") || memory.contains("--clients 9999"), "{memory}");
        let ports = judge(&machine, |options| {
            options.clients = Some(2000);
            options.source = vec!["127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap()];
        });
        assert!(ports.unwrap_err().to_string().contains("--clients 1899"), "95 % of two addresses, less a publisher");
        let rings = judge(&machine, |options| {
            options.clients = Some(5000);
            options.workers = Some(2);
        });
        assert!(rings.unwrap_err().to_string().contains("need at least 6 rings"));
        assert_eq!(machine.workers_for(5000), 6);
        let few = Machine { descriptors: 120, ..machine };
        let rings = judge(&few, |options| options.clients = Some(450)).unwrap_err().to_string();
        assert!(rings.contains("24 rings need 128 descriptors") && rings.contains("--clients 417"), "{rings}");
        assert!(judge(&few, |options| options.clients = Some(417)).is_ok());
    }

    /// A folder with these files, as `/proc` has them.
    fn proc(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const TRACKED_MAX: &str = "sys/net/netfilter/nf_conntrack_max";
    const TRACKED: &str = "sys/net/netfilter/nf_conntrack_count";
    const PORTS: &str = "sys/net/ipv4/ip_local_port_range";

    fn of(files: &[(&str, &str)]) -> Machine {
        let root = proc(files);
        Machine { memory: None, descriptors: 20_000, ..Machine::read(root.path()) }
    }

    #[test]
    fn tracked_connections_are_counted_once_on_loopback() {
        let clients = |clients| move |options: &mut Options| options.clients = Some(clients);
        let machine = of(&[(TRACKED_MAX, "262144\n"), (TRACKED, "144\n"), (PORTS, "32768\t60999\n")]);
        assert_eq!(machine.tracking, Some(Tracking { most: 262_144, now: 144 }));
        assert!(judge(&machine, clients(261_999)).is_ok());
        let error = judge(&machine, clients(1_000_000)).unwrap_err().to_string();
        for part in ["room for 262144", "tracks 144", "--clients 261999", "nf_conntrack_max=1100"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_table_that_is_not_in_use_is_no_limit() {
        assert_eq!(of(&[]).tracking, None);
        assert_eq!(of(&[(TRACKED_MAX, "10\n"), (TRACKED, "0\n")]).tracking, None);
    }

    #[test]
    fn everything_that_is_missing_is_said_at_once() {
        let few = [(TRACKED_MAX, "1000"), (TRACKED, "10"), (PORTS, "40000 40499"), ("sys/fs/file-nr", "5 0 3000")];
        let error = judge(&of(&few), |options| options.clients = Some(5000)).unwrap_err().to_string();
        for part in ["nf_conntrack_max=", "ip_local_port_range offers 500", "fs.file-max leaves 2995"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        assert!(judge(&of(&few), |options| options.clients = Some(400)).is_ok());
    }
}
