//! What running containers use.

use std::fs;
use std::time::Instant;

use dhow_sys::cgroup::Usage;

use crate::containers::Containers;
use crate::error::{DiskError, disk};
use crate::freeze;
use crate::record::{Container, State};
use crate::request::NetworkMode;

/// What a container used at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When.
    pub at: Instant,
    /// What its processes use.
    pub usage: Usage,
    /// Bytes received and sent through its own network.
    pub net_bytes: [u64; 2],
}

impl Sample {
    /// How much of one processor was used since an earlier sample, in percent.
    pub fn cpu_percent(&self, earlier: &Sample) -> f64 {
        let used = self.usage.cpu_ns.saturating_sub(earlier.usage.cpu_ns) as f64;
        let passed = self.at.saturating_duration_since(earlier.at).as_nanos() as f64;
        if passed > 0.0 { used / passed * 100.0 } else { 0.0 }
    }
}

impl Containers {
    /// What a container uses now. `None`: it does not run.
    pub fn sample(&self, container: &Container) -> Result<Option<Sample>, DiskError> {
        let State::Running { pid, .. } = container.state else { return Ok(None) };
        let bundle = self.bundle(&container.id);
        let failed = disk("read the control group of", bundle.dir());
        let usage =
            freeze::group(&self.bundle(&container.id)).and_then(|group| group.usage()).map_err(failed)?;
        let net_bytes = match container.record.host.network {
            // What the host's interfaces carry is not the container's.
            NetworkMode::Host => [0, 0],
            _ => net_bytes(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default()),
        };
        Ok(Some(Sample { at: Instant::now(), usage, net_bytes }))
    }
}

/// Received and sent by all interfaces but the one to itself, of a text as in `/proc/net/dev`.
fn net_bytes(text: &str) -> [u64; 2] {
    const SENT: usize = 8;
    let lines = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    lines.fold([0, 0], |[received, sent], (_, counts)| {
        let counts: Vec<u64> =
            counts.split_ascii_whitespace().map(|count| count.parse().unwrap_or(0)).collect();
        let count = |index: usize| counts.get(index).copied().unwrap_or(0);
        [received + count(0), sent + count(SENT)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_with_itself_does_not_count() {
        let text = "Inter-|   Receive    |  Transmit\n face |bytes packets|bytes packets\n    \
                    lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0\n  eth0: 10 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\n";
        assert_eq!(net_bytes(text), [10, 20]);
    }
}
