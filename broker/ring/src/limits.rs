//! What bounds how many connections fit in a process: its resource limits, and the grain of its memory.

/// Raises the soft limit of open descriptors (`RLIMIT_NOFILE`) to the hard one; says both afterwards. The
/// hard limit stays: only the operator raises that.
pub fn raise_descriptors() -> (u64, u64) {
    let mut limit = get(libc::RLIMIT_NOFILE);
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the kernel reads one `rlimit`, which lives through the call. If it refuses, the soft
        // limit read below is the truth.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
    let limit = get(libc::RLIMIT_NOFILE);
    (limit.rlim_cur, limit.rlim_max)
}

/// The soft limit of open descriptors, which also bounds a ring's direct-descriptor table.
#[must_use]
pub fn descriptors() -> u64 {
    get(libc::RLIMIT_NOFILE).rlim_cur
}

/// Has the process use ordinary pages only (prctl(2), `PR_SET_THP_DISABLE`). A connection is some hundred
/// bytes in many small allocations; with transparent huge pages each first touch would cost 2 MiB. Call
/// it before anything much is allocated. Returns whether the kernel agreed.
pub fn forgo_huge_pages() -> bool {
    // SAFETY: this prctl takes plain numbers and touches no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0 }
}

/// The soft limit of locked memory, in bytes.
pub(crate) fn locked_memory() -> u64 {
    get(libc::RLIMIT_MEMLOCK).rlim_cur
}

fn get(resource: libc::__rlimit_resource_t) -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one `rlimit`, which lives through the call.
    unsafe { libc::getrlimit(resource, &raw mut limit) };
    limit
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_soft_limit_meets_the_hard_one() {
        let (soft, hard) = super::raise_descriptors();
        assert_eq!(soft, hard);
        assert_eq!(super::descriptors(), soft);
    }
}
