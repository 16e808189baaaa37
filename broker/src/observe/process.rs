//! What the broker's process uses, as the kernel tells it in `/proc`; what it does not tell is left out.

use std::fs;

/// Clock ticks of a second in `/proc`: `USER_HZ`, 100 on every architecture that Rust's standard library supports.
const TICKS: f64 = 100.0;

/// A look at the process. Fields have the names and units of Prometheus's process metrics.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Process {
    pub(crate) resident_memory_bytes: Option<u64>,
    pub(crate) virtual_memory_bytes: Option<u64>,
    pub(crate) cpu_seconds: Option<f64>,
    pub(crate) open_fds: Option<u64>,
    pub(crate) max_fds: Option<u64>,
    pub(crate) threads: Option<u64>,
    pub(crate) start_time_seconds: Option<f64>,
}

impl Process {
    /// This process, now.
    pub(crate) fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (status, stat, limits) = (read("/proc/self/status"), read("/proc/self/stat"), read("/proc/self/limits"));
        let start = stat_field(&stat, 22).zip(boot_time(&read("/proc/stat")));
        Self {
            resident_memory_bytes: bytes(&status, "VmRSS:"),
            virtual_memory_bytes: bytes(&status, "VmSize:"),
            cpu_seconds: stat_field(&stat, 14).zip(stat_field(&stat, 15)).map(|(user, system)| (user + system) / TICKS),
            open_fds: open_fds(),
            max_fds: soft_limit(&limits, "Max open files"),
            threads: status.lines().find_map(|line| line.strip_prefix("Threads:")?.trim().parse().ok()),
            start_time_seconds: start.map(|(ticks, boot)| boot + ticks / TICKS),
        }
    }
}

/// A line of `/proc/self/status` such as `VmRSS:     1234 kB`.
fn bytes(status: &str, name: &str) -> Option<u64> {
    let kib: u64 = status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok())?;
    Some(kib * 1024)
}

/// A field of `/proc/self/stat`, by its number in proc(5). The second, a name, may have spaces and brackets in it.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_whitespace().nth(number - 3)?.parse().ok()
}

/// Seconds since 1970, from `/proc/stat`.
fn boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

/// Since Linux 6.2 the folder's size is the number of its entries; before it was 0, and they are counted.
fn open_fds() -> Option<u64> {
    const FOLDER: &str = "/proc/self/fd";
    match fs::metadata(FOLDER).ok()?.len() {
        0 => Some(fs::read_dir(FOLDER).ok()?.count() as u64),
        len => Some(len),
    }
}

/// A soft limit of `/proc/self/limits`; `None` if there is none.
fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_whole() {
        let held: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let process = Process::this();
        assert!(process.resident_memory_bytes.unwrap() > 1 << 20);
        assert!(process.virtual_memory_bytes >= process.resident_memory_bytes);
        assert!(process.cpu_seconds.unwrap() >= 0.0);
        assert!(process.open_fds.unwrap() > held.len() as u64);
        assert!(process.max_fds.unwrap() > process.open_fds.unwrap());
        assert!(process.threads.unwrap() >= 1);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - process.start_time_seconds.unwrap();
        assert!((-2.0..3600.0).contains(&age), "{age}");
    }

    #[test]
    fn a_name_cannot_shift_the_fields() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 3 0 12345 1000 20 18446744073709551615";
        assert_eq!([14, 15, 20, 22].map(|number| stat_field(stat, number).unwrap()), [250.0, 50.0, 3.0, 12345.0]);
        assert_eq!(stat_field("", 14), None);
    }

    #[test]
    fn limits_and_sizes() {
        let limits = "Limit          Soft Limit  Hard Limit  Units\nMax open files            1024       4096    files\n\
                      Max processes             unlimited  unlimited  processes\n";
        assert_eq!(soft_limit(limits, "Max open files"), Some(1024));
        assert_eq!(soft_limit(limits, "Max processes"), None);
        assert_eq!(bytes("VmRSS:\t    12 kB\n", "VmRSS:"), Some(12_288));
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
    }
}
