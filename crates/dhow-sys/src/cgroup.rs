//! Control groups: v2, v1, hybrid and none behind one type.
//!
//! On v1 (and on hybrid hosts, where v2 is mounted but has no controllers) a group is one directory in each
//! hierarchy that matters here; on v2 it is one directory. Without any, for example when an ordinary user has
//! no hierarchy delegated, a group is nothing: limits are then errors and the rest does nothing.

mod device;
mod freezer;
mod usage;

use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::Duration;

pub use device::{DeviceKind, DeviceRule};
pub use usage::Usage;

/// The v1 hierarchies a group is made in. The others cost a directory each and serve nothing here.
const V1_CONTROLLERS: [&str; 8] =
    ["memory", "pids", "cpu", "cpuacct", "cpuset", "devices", "freezer", "blkio"];
/// The v2 controllers handed down to groups, where they exist.
const V2_CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];
/// The longest `mountinfo` that is read.
const MOUNTINFO_BYTES_MAX: u64 = 4 << 20;

/// How often killing or removing is tried again while processes are still on their way out.
const TRIES: u32 = 100;
const RETRY_DELAY_MS: u64 = 2;

/// A control group, which need not exist yet.
#[derive(Clone, Debug)]
pub struct Cgroup {
    hierarchies: Hierarchies,
}

#[derive(Clone, Debug)]
enum Hierarchies {
    None,
    /// The mount point and the path of the group below it.
    V2 {
        mount: PathBuf,
        path: PathBuf,
    },
    /// For each controller its mount point, and the path of the group below all of them.
    V1 {
        mounts: Vec<(String, PathBuf)>,
        path: PathBuf,
    },
}

/// Limits to set. `None` leaves what is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory; -1 is unlimited.
    pub memory_bytes: Option<i64>,
    /// Memory and swap together; -1 is unlimited.
    pub memory_swap_bytes: Option<i64>,
    /// Relative weight, 1024 is normal.
    pub cpu_shares: Option<u64>,
    /// Processor time in a period in microseconds; -1 is unlimited.
    pub cpu_quota_us: Option<i64>,
    /// The period in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Processors, for example `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    pub cpuset_mems: Option<String>,
    /// Processes and threads; -1 is unlimited.
    pub pids_max: Option<i64>,
    /// Memory that is left to the group when it gets scarce; -1 is unlimited.
    pub memory_reservation_bytes: Option<i64>,
    /// How readily memory is swapped out, 0 to 100. Only v1 has it.
    pub memory_swappiness: Option<u64>,
    /// Processes wait for memory instead of being killed. Only v1 has it.
    pub oom_kill_disable: bool,
    /// Real-time processor time in a period, in microseconds. Only v1 has it.
    pub cpu_rt_runtime_us: Option<i64>,
    /// The period of real-time processes, in microseconds.
    pub cpu_rt_period_us: Option<u64>,
    /// Relative weight of input and output, 10 to 1000.
    pub io_weight: Option<u16>,
    /// Input and output by device.
    pub io: Vec<IoLimit>,
    /// Which devices may be used; the last rule that fits decides.
    pub devices: Vec<DeviceRule>,
}

/// What is limited of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoKind {
    /// Nothing; its relative weight.
    Weight,
    /// Bytes read in a second.
    ReadBps,
    /// Bytes written in a second.
    WriteBps,
    /// Reads in a second.
    ReadIops,
    /// Writes in a second.
    WriteIops,
}

/// A limit of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoLimit {
    /// What is limited.
    pub kind: IoKind,
    /// The driver.
    pub major: i64,
    /// The device.
    pub minor: i64,
    /// The limit.
    pub value: u64,
}

impl Cgroup {
    /// The group `path`, for example `/dhow/<id>`, in the hierarchies of this machine.
    pub fn new(path: &str) -> io::Result<Self> {
        let mountinfo = read_limited(Path::new("/proc/self/mountinfo"), MOUNTINFO_BYTES_MAX)?;
        Ok(Cgroup { hierarchies: Hierarchies::find(&mountinfo, relative(path)?) })
    }

    /// A group that is nothing.
    pub fn none() -> Self {
        Cgroup { hierarchies: Hierarchies::None }
    }

    /// Whether there are any control groups here.
    pub fn exists_here(&self) -> bool {
        !matches!(self.hierarchies, Hierarchies::None)
    }

    /// Makes the group. One that exists is taken as it is.
    pub fn create(&self) -> io::Result<()> {
        match &self.hierarchies {
            Hierarchies::None => Ok(()),
            Hierarchies::V2 { mount, path } => {
                fs::create_dir_all(mount.join(path))?;
                hand_down_controllers(mount, path);
                Ok(())
            }
            Hierarchies::V1 { mounts, path } => {
                for (controller, mount) in mounts {
                    fs::create_dir_all(mount.join(path))?;
                    if controller == "cpuset" {
                        inherit_cpuset(mount, path)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// The directories of the group, each with the name it goes by below `/sys/fs/cgroup` (empty on v2).
    pub fn directories(&self) -> Vec<(&str, PathBuf)> {
        match &self.hierarchies {
            Hierarchies::None => Vec::new(),
            Hierarchies::V2 { mount, path } => vec![("", mount.join(path))],
            Hierarchies::V1 { mounts, path } => {
                mounts.iter().map(|(controller, mount)| (controller.as_str(), mount.join(path))).collect()
            }
        }
    }

    /// Moves process `pid` into the group.
    pub fn add(&self, pid: i32) -> io::Result<()> {
        self.entrance()?.add(pid)
    }

    /// Opens the group's door, to be used after its files are out of sight.
    pub fn entrance(&self) -> io::Result<Entrance> {
        let files = self
            .directories()
            .into_iter()
            .map(|(_, directory)| open_to_write(&directory.join("cgroup.procs")));
        Ok(Entrance(files.collect::<io::Result<_>>()?))
    }

    /// The processes in the group and in the groups below it.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        let mut processes = Vec::new();
        // A privileged container may have made groups below its own in one hierarchy only.
        for (_, directory) in self.directories() {
            processes_below(&directory, &mut processes)?;
        }
        processes.sort_unstable();
        processes.dedup();
        Ok(processes)
    }

    /// Kills every process in the group.
    pub fn kill(&self) -> io::Result<()> {
        if let Hierarchies::V2 { mount, path } = &self.hierarchies
            && write(&mount.join(path).join("cgroup.kill"), "1").is_ok()
        {
            return Ok(());
        }
        for _ in 0..TRIES {
            let processes = self.processes()?;
            if processes.is_empty() {
                return Ok(());
            }
            for pid in processes {
                kill_if_there(pid);
            }
            // On v1, who is held does not even die.
            self.let_go();
            thread::sleep(Duration::from_millis(RETRY_DELAY_MS));
        }
        Err(io::Error::other("processes of the control group do not die"))
    }

    /// Removes the group and those below it, which must be empty. One that is gone is fine.
    pub fn remove(&self) -> io::Result<()> {
        self.directories().iter().try_for_each(|(_, directory)| remove_tree(directory))
    }

    /// Whether the kernel killed a process of the group for want of memory.
    pub fn oom_killed(&self) -> bool {
        let file = match &self.hierarchies {
            Hierarchies::None => return false,
            Hierarchies::V2 { mount, path } => mount.join(path).join("memory.events"),
            Hierarchies::V1 { mounts, path } => match mounts.iter().find(|(name, _)| name == "memory") {
                Some((_, mount)) => mount.join(path).join("memory.oom_control"),
                None => return false,
            },
        };
        // Without the memory controller there is no such file and nothing was killed for its limit.
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| line.strip_prefix("oom_kill ").is_some_and(|count| count.trim() != "0"))
    }

    /// Sets limits.
    pub fn set(&self, limits: &Limits) -> io::Result<()> {
        match &self.hierarchies {
            Hierarchies::None
                if *limits == Limits { devices: limits.devices.clone(), ..Limits::default() } =>
            {
                Ok(())
            }
            Hierarchies::None => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "resource limits need control groups, and none are usable here",
            )),
            Hierarchies::V2 { mount, path } => {
                let directory = mount.join(path);
                v2_refused(limits)?;
                v2_settings(limits).iter().try_for_each(|(file, value)| set(&directory.join(file), value))?;
                device::attach(&directory, &limits.devices)
            }
            Hierarchies::V1 { mounts, path } => {
                for (controller, file, value) in v1_settings(limits) {
                    let mount = mounts.iter().find(|(name, _)| name == controller);
                    let (_, mount) = mount.ok_or_else(|| missing(controller))?;
                    set(&either(&mount.join(path), file), &value)?;
                }
                Ok(())
            }
        }
    }
}

/// Open `cgroup.procs` files of a group.
#[derive(Debug)]
pub struct Entrance(Vec<fs::File>);

impl Entrance {
    /// Moves process `pid` into the group.
    pub fn add(&self, pid: i32) -> io::Result<()> {
        self.0.iter().try_for_each(|mut file| file.write_all(pid.to_string().as_bytes()))
    }
}

impl Hierarchies {
    /// Reads the mounts: v1 controllers win over a v2 without controllers next to them.
    fn find(mountinfo: &str, path: PathBuf) -> Self {
        let mounts: Vec<Mounted<'_>> = mountinfo.lines().filter_map(Mounted::parse).collect();
        let v1: Vec<(String, PathBuf)> = V1_CONTROLLERS
            .iter()
            .filter_map(|controller| {
                let found =
                    mounts.iter().find(|mount| mount.kind == "cgroup" && mount.has_option(controller))?;
                Some((controller.to_string(), PathBuf::from(found.mount_point)))
            })
            .collect();
        if !v1.is_empty() {
            return Hierarchies::V1 { mounts: v1, path };
        }
        match mounts.iter().find(|mount| mount.kind == "cgroup2") {
            Some(v2) => Hierarchies::V2 { mount: PathBuf::from(v2.mount_point), path },
            None => Hierarchies::None,
        }
    }
}

/// A line of `mountinfo`.
struct Mounted<'a> {
    mount_point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mounted<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        Some(Mounted { mount_point: left.split(' ').nth(4)?, kind: right.next()?, options: right.nth(1)? })
    }

    fn has_option(&self, option: &str) -> bool {
        self.options.split(',').any(|known| known == option)
    }
}

/// Checks a group's path and takes off the leading slash.
fn relative(path: &str) -> io::Result<PathBuf> {
    let relative = Path::new(path.trim_start_matches('/'));
    let plain = relative.components().all(|component| matches!(component, Component::Normal(_)));
    if plain && relative.components().next().is_some() {
        return Ok(relative.to_path_buf());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{path:?} is not the path of a control group")))
}

/// Lets the group's parents give their controllers to it. Those that cannot be given are missed only if a limit
/// needs them, and that says so.
fn hand_down_controllers(mount: &Path, path: &Path) {
    let mut directory = mount.to_path_buf();
    for component in path.components() {
        for controller in V2_CONTROLLERS {
            let _ = write(&directory.join("cgroup.subtree_control"), &format!("+{controller}"));
        }
        directory.push(component);
    }
}

/// Fills in the processors and memory nodes, without which a v1 cpuset group takes no process.
fn inherit_cpuset(mount: &Path, path: &Path) -> io::Result<()> {
    let mut directory = mount.to_path_buf();
    for component in path.components() {
        let parent = directory.clone();
        directory.push(component);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if fs::read_to_string(directory.join(file))?.trim().is_empty() {
                write(&directory.join(file), fs::read_to_string(parent.join(file))?.trim())?;
            }
        }
    }
    Ok(())
}

fn v1_settings(limits: &Limits) -> Vec<(&'static str, &'static str, String)> {
    let mut settings = Vec::new();
    let mut put = |controller, file, value: Option<String>| {
        settings.extend(value.map(|value| (controller, file, value)));
    };
    put("memory", "memory.limit_in_bytes", limits.memory_bytes.map(|value| value.to_string()));
    put("memory", "memory.memsw.limit_in_bytes", limits.memory_swap_bytes.map(|value| value.to_string()));
    put("cpu", "cpu.shares", limits.cpu_shares.map(|value| value.to_string()));
    put("cpu", "cpu.cfs_period_us", limits.cpu_period_us.map(|value| value.to_string()));
    put("cpu", "cpu.cfs_quota_us", limits.cpu_quota_us.map(|value| value.to_string()));
    put("cpuset", "cpuset.cpus", limits.cpuset_cpus.clone());
    put("cpuset", "cpuset.mems", limits.cpuset_mems.clone());
    put("pids", "pids.max", limits.pids_max.map(number_or_max));
    let text = |value: i64| value.to_string();
    put("memory", "memory.soft_limit_in_bytes", limits.memory_reservation_bytes.map(text));
    put("memory", "memory.swappiness", limits.memory_swappiness.map(|value| value.to_string()));
    put("memory", "memory.oom_control", limits.oom_kill_disable.then(|| "1".to_owned()));
    put("cpu", "cpu.rt_period_us", limits.cpu_rt_period_us.map(|value| value.to_string()));
    put("cpu", "cpu.rt_runtime_us", limits.cpu_rt_runtime_us.map(text));
    put("blkio", "blkio.weight", limits.io_weight.map(|weight| weight.to_string()));
    for limit in &limits.io {
        let file = match limit.kind {
            IoKind::Weight => "blkio.weight_device",
            IoKind::ReadBps => "blkio.throttle.read_bps_device",
            IoKind::WriteBps => "blkio.throttle.write_bps_device",
            IoKind::ReadIops => "blkio.throttle.read_iops_device",
            IoKind::WriteIops => "blkio.throttle.write_iops_device",
        };
        put("blkio", file, Some(format!("{}:{} {}", limit.major, limit.minor, limit.value)));
    }
    for rule in &limits.devices {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        put("devices", file, Some(rule.to_string()));
    }
    settings
}

fn v2_settings(limits: &Limits) -> Vec<(&'static str, String)> {
    let mut settings = Vec::new();
    let mut put = |file, value: Option<String>| settings.extend(value.map(|value| (file, value)));
    put("memory.max", limits.memory_bytes.map(number_or_max));
    put("memory.swap.max", swap_alone(limits).map(number_or_max));
    // The ranges of the two versions, 2 to 262144 and 1 to 10000, laid over each other.
    put(
        "cpu.weight",
        limits
            .cpu_shares
            .map(|shares| (1 + shares.clamp(2, 262_144).saturating_sub(2) * 9999 / 262_142).to_string()),
    );
    put("cpu.max", cpu_max(limits));
    put("cpuset.cpus", limits.cpuset_cpus.clone());
    put("cpuset.mems", limits.cpuset_mems.clone());
    put("pids.max", limits.pids_max.map(number_or_max));
    put("memory.low", limits.memory_reservation_bytes.map(number_or_max));
    put("io.weight", limits.io_weight.map(|weight| format!("default {}", io_weight(weight.into()))));
    for limit in &limits.io {
        let (file, value) = match limit.kind {
            IoKind::Weight => ("io.weight", io_weight(limit.value).to_string()),
            IoKind::ReadBps => ("io.max", format!("rbps={}", limit.value)),
            IoKind::WriteBps => ("io.max", format!("wbps={}", limit.value)),
            IoKind::ReadIops => ("io.max", format!("riops={}", limit.value)),
            IoKind::WriteIops => ("io.max", format!("wiops={}", limit.value)),
        };
        put(file, Some(format!("{}:{} {value}", limit.major, limit.minor)));
    }
    settings
}

/// The ranges of the two versions, 10 to 1000 and 1 to 10000, laid over each other.
fn io_weight(weight: u64) -> u64 {
    1 + weight.clamp(10, 1000).saturating_sub(10) * 9999 / 990
}

/// What v2 has no file for.
fn v2_refused(limits: &Limits) -> io::Result<()> {
    let refused = [
        (limits.memory_swappiness.is_some(), "memory swappiness"),
        (limits.oom_kill_disable, "disabling the OOM killer"),
        (limits.cpu_rt_runtime_us.is_some() || limits.cpu_rt_period_us.is_some(), "real-time processor time"),
    ];
    match refused.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => {
            let text = format!("control groups v2, which this host uses, know no limit of {what}");
            Err(io::Error::new(io::ErrorKind::Unsupported, text))
        }
        None => Ok(()),
    }
}

/// The weights of v1 belong to the scheduler: BFQ's have a name of their own.
fn either(directory: &Path, file: &str) -> PathBuf {
    let named = directory.join(file);
    match file.strip_prefix("blkio.weight") {
        Some(rest) if !named.exists() => directory.join(format!("blkio.bfq.weight{rest}")),
        _ => named,
    }
}

/// v1 limits memory and swap together, v2 swap alone.
fn swap_alone(limits: &Limits) -> Option<i64> {
    match (limits.memory_swap_bytes?, limits.memory_bytes) {
        (both, Some(memory)) if both >= 0 && memory >= 0 => Some((both - memory).max(0)),
        (both, _) => Some(both),
    }
}

fn cpu_max(limits: &Limits) -> Option<String> {
    const PERIOD_US: u64 = 100_000;
    let period = limits.cpu_period_us.unwrap_or(PERIOD_US);
    match (limits.cpu_quota_us, limits.cpu_period_us) {
        (None, None) => None,
        (Some(quota), _) if quota > 0 => Some(format!("{quota} {period}")),
        _ => Some(format!("max {period}")),
    }
}

fn number_or_max(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

fn missing(controller: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("the control group controller {controller:?} is not available"),
    )
}

fn set(file: &Path, value: &str) -> io::Result<()> {
    let name = || file.file_name().unwrap_or_default().to_string_lossy();
    write(file, value).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound if file.parent().is_some_and(Path::exists) => io::Error::new(
            io::ErrorKind::Unsupported,
            format!("the kernel of this host has no {}, so it cannot be set to {value}", name()),
        ),
        io::ErrorKind::NotFound => missing(name().split('.').next().unwrap_or_default()),
        kind => io::Error::new(kind, format!("cannot set {} to {value}: {error}", name())),
    })
}

/// Writes to a file that must exist, in one call as the kernel's control files want it.
fn write(file: &Path, value: &str) -> io::Result<()> {
    open_to_write(file)?.write_all(value.as_bytes())
}

fn open_to_write(file: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().write(true).open(file)
}

fn kill_if_there(pid: i32) {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else { return };
    // It may have ended since it was listed, which is what we want.
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

fn processes_below(directory: &Path, processes: &mut Vec<i32>) -> io::Result<()> {
    match fs::read_to_string(directory.join("cgroup.procs")) {
        Ok(text) => processes.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
        // It was removed while we looked.
        Err(error) if is_gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    }
    below(directory)?.iter().try_for_each(|directory| processes_below(directory, processes))
}

/// The groups right below one.
fn below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        entries => entries?,
    };
    let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    Ok(entries.flatten().filter(is_dir).map(|entry| entry.path()).collect())
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    below(directory)?.iter().try_for_each(|directory| remove_tree(directory))?;
    remove_directory(directory)
}

/// The kernel needs a moment after the last process ended.
fn remove_directory(directory: &Path) -> io::Result<()> {
    for _ in 0..TRIES {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                thread::sleep(Duration::from_millis(RETRY_DELAY_MS));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => return result,
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, format!("{} is still in use", directory.display())))
}

fn read_limited(path: &Path, bytes_max: u64) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    fs::File::open(path)?.take(bytes_max).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(mountinfo: &str) -> String {
        let group = Cgroup { hierarchies: Hierarchies::find(mountinfo, PathBuf::from("dhow/x")) };
        let directories = group.directories();
        directories.iter().map(|(name, path)| format!("{name}:{};", path.display())).collect()
    }

    const V2: &str = "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const UNIFIED: &str = "31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const V1: &str = "32 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n";
    const SYSTEMD: &str = "33 25 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";

    #[test]
    fn every_layout_of_hierarchies_is_recognised() {
        assert_eq!(find(V2), ":/sys/fs/cgroup/dhow/x;");
        let hybrid = [SYSTEMD, UNIFIED, V1].concat();
        assert_eq!(
            find(&hybrid),
            "cpu:/sys/fs/cgroup/cpu,cpuacct/dhow/x;cpuacct:/sys/fs/cgroup/cpu,cpuacct/dhow/x;"
        );
        assert_eq!(find("20 1 8:1 / / rw - ext4 /dev/vda rw\n"), "");
    }

    #[test]
    fn a_path_cannot_leave_the_hierarchy() {
        for path in ["", "/", "/a/../..", "..", "/a/./../b"] {
            assert!(Cgroup::new(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn both_versions_are_told_the_same_limits_in_their_own_words() {
        let limits = Limits {
            memory_bytes: Some(100),
            memory_swap_bytes: Some(250),
            cpu_shares: Some(1024),
            cpu_quota_us: Some(50_000),
            pids_max: Some(-1),
            ..Limits::default()
        };
        let v2: Vec<String> =
            v2_settings(&limits).iter().map(|(file, value)| format!("{file}={value}")).collect();
        assert_eq!(
            v2,
            [
                "memory.max=100",
                "memory.swap.max=150",
                "cpu.weight=39",
                "cpu.max=50000 100000",
                "pids.max=max"
            ]
        );
        let v1: Vec<String> =
            v1_settings(&limits).iter().map(|(_, file, value)| format!("{file}={value}")).collect();
        assert_eq!(
            v1,
            [
                "memory.limit_in_bytes=100",
                "memory.memsw.limit_in_bytes=250",
                "cpu.shares=1024",
                "cpu.cfs_quota_us=50000",
                "pids.max=max"
            ]
        );
    }
}
