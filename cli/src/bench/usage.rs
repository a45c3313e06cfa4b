//! What a process used, from /proc.

use std::fs;
use std::time::Duration;

/// The unit of CPU time in /proc/PID/stat: `USER_HZ` is 100 on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// The CPU time of a process in user and kernel mode, all threads together: as the scheduler
/// counts it, to the nanosecond, and in ticks where it does not say.
pub(super) fn cpu(pid: u32) -> Option<Duration> {
    // Threads that have ended are not among them: those of servers stay.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let spent = threads.map(|thread| {
        let said = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        said.split_ascii_whitespace().next()?.parse::<u64>().ok()
    });
    if let Some(spent) = spent.sum::<Option<u64>>() {
        return Some(Duration::from_nanos(spent));
    }
    ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
        .map(|ticks| Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// The resident memory of a process, bytes. Kernel memory (socket buffers) is not in it.
pub(super) fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// How many threads wanted to run in the last minute, on average. Figures of a machine
/// that was not idle are to be taken with care.
pub(super) fn load() -> Option<String> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_ascii_whitespace().next().map(str::to_owned)
}

/// utime and stime, fields 14 and 15; the second field may hold blanks and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut number = || fields.next()?.parse::<u64>().ok();
    Some(number()? + number()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_strange_name_is_read_right() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 3 4 20 0 1 0 9 8 7";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(resident(std::process::id()).unwrap() > 100_000);
        assert!(cpu(std::process::id()).is_some());
    }
}
