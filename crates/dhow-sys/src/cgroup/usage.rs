//! What the processes of a group use.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Cgroup, Hierarchies};

/// What a group uses now, or has used since it was made. What this machine does not count is 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time, in nanoseconds.
    pub cpu_ns: u64,
    /// Memory, without the files that can be read again.
    pub memory_bytes: u64,
    /// The limit of it, if there is one.
    pub memory_bytes_max: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    /// Read from block devices.
    pub read_bytes: u64,
    /// Written to block devices.
    pub written_bytes: u64,
}

/// What v1 says for no limit is the largest multiple of a page that fits.
const NO_LIMIT_MIN: u64 = 1 << 60;

impl Cgroup {
    /// What the group uses.
    pub fn usage(&self) -> io::Result<Usage> {
        match &self.hierarchies {
            Hierarchies::None => Ok(Usage::default()),
            Hierarchies::V2 { mount, path } => v2(&mount.join(path)),
            Hierarchies::V1 { mounts, path } => v1(&|controller| {
                let mount = mounts.iter().find(|(name, _)| name == controller);
                mount.map(|(_, mount)| mount.join(path))
            }),
        }
    }
}

fn v1(directory: &dyn Fn(&str) -> Option<PathBuf>) -> io::Result<Usage> {
    let text = |controller: &str, file: &str| match directory(controller) {
        Some(directory) => read(&directory.join(file)),
        None => Ok(String::new()),
    };
    let memory = number(&text("memory", "memory.usage_in_bytes")?);
    let inactive = field(&text("memory", "memory.stat")?, "total_inactive_file");
    let max = number(&text("memory", "memory.limit_in_bytes")?);
    let mut served = text("blkio", "blkio.throttle.io_service_bytes_recursive")?;
    if served.is_empty() {
        served = text("blkio", "blkio.throttle.io_service_bytes")?;
    }
    let sum = |word: &str| {
        served.lines().filter(|line| line.split(' ').nth(1) == Some(word)).map(|line| field(line, "")).sum()
    };
    Ok(Usage {
        cpu_ns: number(&text("cpuacct", "cpuacct.usage")?),
        memory_bytes: memory.saturating_sub(inactive),
        memory_bytes_max: Some(max).filter(|max| (1..NO_LIMIT_MIN).contains(max)),
        pids: number(&text("pids", "pids.current")?),
        read_bytes: sum("Read"),
        written_bytes: sum("Write"),
    })
}

fn v2(directory: &Path) -> io::Result<Usage> {
    let text = |file: &str| read(&directory.join(file));
    let io = text("io.stat")?;
    let sum = |key: &str| {
        let words = io.split_ascii_whitespace();
        words.filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).sum()
    };
    Ok(Usage {
        cpu_ns: field(&text("cpu.stat")?, "usage_usec").saturating_mul(1000),
        memory_bytes: number(&text("memory.current")?)
            .saturating_sub(field(&text("memory.stat")?, "inactive_file")),
        memory_bytes_max: text("memory.max")?.trim().parse().ok(),
        pids: number(&text("pids.current")?),
        read_bytes: sum("rbytes="),
        written_bytes: sum("wbytes="),
    })
}

/// A file of a group; one whose controller is not there says nothing.
fn read(file: &Path) -> io::Result<String> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        text => text,
    }
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// The number at the end of the line that begins with `name`.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| name.is_empty() || line.split(' ').next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next()).map_or(0, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        let dir = tempfile_dir();
        let write = |file: &str, text: &str| fs::write(dir.join(file), text).unwrap();
        write("cpuacct.usage", "1500\n");
        write("memory.usage_in_bytes", "5000\n");
        write("memory.stat", "cache 9\ntotal_inactive_file 1000\ninactive_file 2000\n");
        write("memory.limit_in_bytes", "9223372036854771712\n");
        write("blkio.throttle.io_service_bytes", "8:0 Read 10\n8:0 Write 20\n8:16 Read 5\n8:0 Total 30\n");
        write("pids.current", "3\n");
        let usage = v1(&|_| Some(dir.clone())).unwrap();
        let expected = Usage {
            cpu_ns: 1500,
            memory_bytes: 4000,
            memory_bytes_max: None,
            pids: 3,
            read_bytes: 15,
            written_bytes: 20,
        };
        assert_eq!(usage, expected);
        write("cpu.stat", "usage_usec 7\nuser_usec 3\n");
        write("memory.current", "5000\n");
        write("memory.max", "8192\n");
        write("io.stat", "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=5 wbytes=0\n");
        let expected = Usage { cpu_ns: 7000, memory_bytes: 3000, memory_bytes_max: Some(8192), ..expected };
        assert_eq!(v2(&dir).unwrap(), expected);
        fs::remove_dir_all(&dir).unwrap();
    }

    fn tempfile_dir() -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dhow-usage-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }
}
