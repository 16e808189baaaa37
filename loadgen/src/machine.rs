//! Whether this machine can hold a run: descriptors, ports, memory. Checked before the first connection, so that the user
//! does not wait minutes for an error; each error names a number of clients that would work.

use std::fs;

use anyhow::{Result, ensure};

use crate::plan::{Plan, Role};

/// Kernel memory of an established connection, one end, and one more when both ends are here: measured on
/// Linux 6.18 with idle sockets, rounded up.
const KERNEL_BYTES_PER_END: u64 = 4200;
/// What this program itself may use per client.
const OWN_BYTES_PER_CLIENT: u64 = 512;
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
    /// `net.netfilter.nf_conntrack_max`, if connections are tracked.
    pub(crate) tracked_max: Option<u64>,
}

impl Machine {
    pub(crate) fn this() -> Self {
        let cores = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
        let ports = numbers("/proc/sys/net/ipv4/ip_local_port_range");
        Self {
            cores: cores.max(1),
            descriptors: ring::limits::raise_descriptors().0,
            ports: if let [first, last] = ports[..] { last.saturating_sub(first) + 1 } else { 28_232 },
            memory: meminfo("MemAvailable"),
            tcp_pages_max: numbers("/proc/sys/net/ipv4/tcp_mem").get(2).copied(),
            files: match numbers("/proc/sys/fs/file-nr")[..] {
                [open, _, most] => Some(most.saturating_sub(open)),
                _ => None,
            },
            tracked_max: numbers("/proc/sys/net/netfilter/nf_conntrack_max").first().copied(),
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
    /// What does not fit, with the number of clients that would.
    pub(crate) fn check(&self, plan: &Plan) -> Result<Vec<String>> {
        let needs = Needs::of(plan);
        self.check_descriptors(plan)?;
        self.check_ports(plan)?;
        self.check_memory(&needs)?;
        self.check_files(plan, &needs)?;
        if let Some(tracked) = self.tracked_max {
            ensure!(
                needs.connections < tracked || plan.is_local(),
                "{} connections are more than net.netfilter.nf_conntrack_max = {tracked} tracks: enough for --clients {}. \
                 Raise it with sysctl",
                needs.connections,
                tracked.saturating_sub(100)
            );
        }
        Ok(self.socket_memory_warning(&needs).into_iter().collect())
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
            return Ok(());
        }
        let (connections, sources) = (plan.connections(), given.len().max(1) as u64);
        // A few are taken or still closing.
        let most = self.ports * sources * 95 / 100;
        ensure!(
            connections <= most,
            "{connections} connections from {sources} address(es) need as many ports to {}: net.ipv4.ip_local_port_range \
             offers {}, enough for --clients {}. Widen it, or name more addresses of this machine with --source",
            plan.adapter.address(),
            self.ports * sources,
            most.saturating_sub(plan.own_publishers.1),
        );
        Ok(())
    }

    fn check_memory(&self, &Needs { connections, ends }: &Needs) -> Result<()> {
        let Some(memory) = self.memory else { return Ok(()) };
        let each = ends * KERNEL_BYTES_PER_END + OWN_BYTES_PER_CLIENT;
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
    fn socket_memory_warning(&self, &Needs { connections, ends }: &Needs) -> Option<String> {
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

    fn check_files(&self, plan: &Plan, &Needs { connections, ends }: &Needs) -> Result<()> {
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
}

impl Needs {
    fn of(plan: &Plan) -> Self {
        Self { connections: plan.connections(), ends: if plan.is_local() { 2 } else { 1 } }
    }
}

/// A line of `/proc/meminfo`, in bytes.
pub(crate) fn meminfo(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

fn numbers(path: &str) -> Vec<u64> {
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
            tracked_max: None,
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
}
