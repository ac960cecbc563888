//! A container as its user describes it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::LinuxSeccomp;

/// A container as its user describes it; [`to_spec`](Self::to_spec) makes the OCI configuration of it.
///
/// Everything not said is as Docker does it.
#[derive(Clone, Debug, Default)]
pub struct ContainerSpec {
    /// The container's id, which names its cgroup.
    pub id: String,
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value`, later ones win. `PATH`, `HOSTNAME`, `TERM` and `HOME` are added when missing.
    pub env: Vec<String>,
    /// Working directory, created when missing. Empty means `/`.
    pub cwd: String,
    /// `user[:group]`, by name or number, looked up inside the container. Empty means root.
    pub user: String,
    /// Supplementary groups by name or number.
    pub groups: Vec<String>,
    /// Host name. Empty keeps the one of the host.
    pub hostname: String,
    /// `HOSTNAME` is not added to the environment.
    pub no_hostname_variable: bool,
    /// With a terminal.
    pub terminal: bool,
    /// The root file system cannot be written.
    pub readonly_rootfs: bool,
    /// Executing a setuid program gains nothing.
    pub no_new_privileges: bool,
    /// All capabilities, all devices, no seccomp, nothing masked.
    pub privileged: bool,
    /// Run our own init as process 1, which reaps orphans and forwards signals (`--init`).
    pub init: bool,
    /// The seccomp profile.
    pub seccomp: SeccompChoice,
    /// Capabilities beyond the default set, with or without `CAP_`; `ALL` is understood.
    pub cap_add: Vec<String>,
    /// Capabilities taken from the default set, with or without `CAP_`; `ALL` is understood.
    pub cap_drop: Vec<String>,
    /// Which namespaces are the container's own.
    pub namespaces: Namespaces,
    /// Volumes, bind mounts and tmpfs, mounted after the default ones in order of depth.
    pub mounts: Vec<MountSpec>,
    /// Resource limits of the process.
    pub rlimits: Vec<Rlimit>,
    /// Limits of the cgroup.
    pub resources: Resources,
    /// Kernel parameters of the container's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Size of /dev/shm. `None` means 64 MiB.
    pub shm_bytes: Option<u64>,
    /// Folder of the cgroup. Empty means `/dhow`.
    pub cgroup_parent: String,
    /// Run in a user namespace with these ids.
    pub id_map: Option<IdMap>,
    /// Domain name. Empty sets none.
    pub domainname: String,
    /// Notes for runtimes and hooks.
    pub annotations: BTreeMap<String, String>,
    /// How readily the kernel kills the program for want of memory, -1000 to 1000.
    pub oom_score_adj: Option<i32>,
    /// Device nodes beside the usual ones.
    pub devices: Vec<DeviceNode>,
    /// Nothing of /proc and /sys is masked or read-only.
    pub unmasked: bool,
    /// Without /dev/shm and message queues.
    pub no_shm: bool,
    /// The profile of AppArmor. Empty means none.
    pub apparmor_profile: String,
}

/// The seccomp profile of a container.
#[derive(Clone, Debug, Default)]
pub enum SeccompChoice {
    /// Equal in effect to Docker's default.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// The user's.
    Profile(Box<LinuxSeccomp>),
    /// The user's, as docker's profiles are written: what is allowed depends on capabilities, machine and kernel.
    Docker(String),
}

/// Where one namespace of a container comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NamespaceChoice {
    /// Made for the container.
    #[default]
    Private,
    /// The host's.
    Host,
    /// An existing one, for example `/proc/<pid>/ns/net`.
    Path(PathBuf),
}

/// Which namespaces are the container's own. The mount namespace always is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Network.
    pub network: NamespaceChoice,
    /// Process ids.
    pub pid: NamespaceChoice,
    /// System V IPC and message queues.
    pub ipc: NamespaceChoice,
    /// Host name.
    pub uts: NamespaceChoice,
    /// The view of the cgroup hierarchy.
    pub cgroup: NamespaceChoice,
}

/// How mounts made later on one side show on the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// From the host to the container.
    Slave,
    /// Both ways, as far as the host shares the mount that the source is on.
    Shared,
}

/// What of a bind mount is said once in a while.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindHow {
    /// Without what is mounted below the source.
    pub flat: bool,
    /// What is mounted below stays writable where it was.
    pub flat_readonly: bool,
    /// Propagation is that of the topmost mount alone.
    pub flat_propagation: bool,
    /// What of the source is shown, links followed within it; empty is all.
    pub subpath: String,
}

/// One mount a user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSpec {
    /// A file or directory of the host, volumes included. The source must exist.
    Bind {
        /// Path on the host.
        source: PathBuf,
        /// Path in the container.
        target: String,
        /// Not writable, submounts included.
        readonly: bool,
        /// How later mounts show.
        propagation: Propagation,
        /// The rest.
        how: BindHow,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Path in the container.
        target: String,
        /// Mount options such as `size=64m` or `ro`. Docker's defaults are `noexec,nosuid,nodev`.
        options: Vec<String>,
    },
    /// Stacked folders, or something in them, which the container's own mounts show to nobody else.
    Overlay {
        /// Read-only folders, topmost first.
        lowers: Vec<PathBuf>,
        /// Where changes go, and overlayfs's scratch folder beside it; without them nothing can be written.
        upper: Option<(PathBuf, PathBuf)>,
        /// What of the stack is shown, links followed within it; empty is all.
        subpath: String,
        /// Path in the container.
        target: String,
    },
}

/// One resource limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// Lower-case name without prefix, for example `nofile`.
    pub name: String,
    /// The limit in force. `u64::MAX` is unlimited.
    pub soft: u64,
    /// The ceiling of `soft`.
    pub hard: u64,
}

/// Limits of the cgroup. `None` sets none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory.
    pub memory_bytes: Option<i64>,
    /// Memory and swap together; -1 is unlimited swap.
    pub memory_swap_bytes: Option<i64>,
    /// Relative weight, 1024 is normal.
    pub cpu_shares: Option<u64>,
    /// Processor time in a period, in microseconds.
    pub cpu_quota_us: Option<i64>,
    /// The period, in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Processors, for example `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, for example `0-1`.
    pub cpuset_mems: Option<String>,
    /// Processes and threads.
    pub pids_max: Option<i64>,
    /// Memory that is left to the container when it gets scarce.
    pub memory_reservation_bytes: Option<i64>,
    /// How readily memory is swapped out, 0 to 100.
    pub memory_swappiness: Option<u64>,
    /// Processes wait for memory instead of being killed.
    pub oom_kill_disable: bool,
    /// Real-time processor time in a period, in microseconds.
    pub cpu_rt_runtime_us: Option<i64>,
    /// The period of real-time processes, in microseconds.
    pub cpu_rt_period_us: Option<u64>,
    /// Relative weight of input and output, 10 to 1000.
    pub io_weight: Option<u16>,
    /// Input and output by device.
    pub io: Vec<IoLimit>,
    /// Which devices may be used beside the usual ones.
    pub devices: Vec<DeviceAccess>,
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
    pub major: u32,
    /// The device.
    pub minor: u32,
    /// The limit.
    pub value: u64,
}

/// Devices that may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceAccess {
    /// `a`, `b` or `c`.
    pub kind: char,
    /// The driver; `None` is any.
    pub major: Option<u32>,
    /// The device; `None` is any.
    pub minor: Option<u32>,
    /// Some of `rwm`.
    pub access: String,
}

/// A device node in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNode {
    /// Path in the container.
    pub path: PathBuf,
    /// `b` or `c`.
    pub kind: char,
    /// The driver.
    pub major: u32,
    /// The device.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A user namespace of the container's own: which ids of the host stand behind its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// Users.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
}

/// A run of consecutive ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// First id in the container.
    pub container: u32,
    /// First id on the host.
    pub host: u32,
    /// How many.
    pub count: u32,
}

impl IdMap {
    /// A namespace in which these ids of ours, and only these, keep their numbers.
    pub fn of_known(known: &dhow_sys::userns::IdMap) -> IdMap {
        let same = |ranges: &[dhow_sys::userns::IdRange]| {
            let range = |known: &dhow_sys::userns::IdRange| IdRange {
                container: known.inside,
                host: known.inside,
                count: known.count,
            };
            ranges.iter().map(range).collect()
        };
        IdMap { uids: same(&known.uids), gids: same(&known.gids) }
    }
}
