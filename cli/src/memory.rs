//! Memory that was freed goes back to the system.
//!
//! jemalloc gives pages back some seconds after they were freed, but it looks only when a thread asks for memory again: after a
//! start, a great change or a scrape megabytes would stay for as long as nothing happens. Threads that serve requests look
//! while they do, and would wait for the pages that they need next: for them this is not.

use tikv_jemalloc_ctl::{Access, AsName, Name};

/// Gives back what is free of this thread's: what is not to be kept goes at once, and what is freed next is kept as usual.
pub fn give_back() {
    let arena: Result<u32, _> = "thread.arena\0".name().read();
    let Ok(arena) = arena else { return };
    without("thread.tcache.enabled\0", false);
    without(&format!("arena.{arena}.dirty_decay_ms\0"), 0_isize);
}

/// Sets what jemalloc calls so to `nothing` for a moment.
fn without<T>(name: &str, nothing: T)
where
    Name: Access<T>,
{
    let name = name.name();
    if let Ok(usual) = name.update(nothing) {
        let _ = name.write(usual);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: usize = 16 << 10;
    const PIECES: usize = 4 << 10;

    /// In bytes.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    #[test]
    fn what_was_freed_goes_back() {
        let pieces: Vec<_> = (0..PIECES).map(|n| vec![n as u8 | 1; PIECE]).collect();
        let full = resident();
        drop(pieces);
        let freed = resident();
        give_back();
        let purged = resident();
        let all = PIECE * PIECES;
        assert!(full > all && freed + all / 2 > full, "jemalloc keeps it by itself: {full}, then {freed}");
        assert!(purged + all * 3 / 4 < full, "{full}, then {freed}, then {purged}");
    }
}
