//! How much RAM the machine has to give.

use super::RamError;

/// Refuses `asked` bytes unless the machine has them, beside the `used` bytes that the asker
/// already has.
pub(super) fn check(asked: u64, used: u64) -> Result<(), RamError> {
    let Some(free) = mem_available() else {
        tracing::warn!("/proc/meminfo does not say how much memory is available");
        return Ok(());
    };
    let available = free + used;
    if asked > available {
        return Err(RamError::TooLarge { asked, available });
    }
    Ok(())
}

/// Bytes that programs can take without swapping (proc(5), `MemAvailable`).
fn mem_available() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_parses_meminfo() {
        let meminfo = "MemTotal:  100 kB\nMemAvailable:   24305 kB\nBuffers: 1 kB\n";
        assert_eq!(parse(meminfo), Some(24305 * 1024));
        assert_eq!(parse("MemTotal: 1 kB"), None);
    }

    #[test]
    fn available_check_refuses_more_than_there_is() {
        assert!(check(4096, 0).is_ok());
        let refused = check(u64::MAX, 0);
        assert!(matches!(refused, Err(RamError::TooLarge { .. })));
    }
}
