//! What a user asks for when a container is made: plain data.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use dhow_net::{ContainerPort, DnsConfig, PortMapping};
use dhow_oci::{HealthConfig, Platform};
use dhow_runtime::RestartPolicy;
use serde::{Deserialize, Serialize};

use crate::log_config::LogConfig;
use crate::mount::MountRequest;
use crate::networks::EndpointConfig;
use crate::rare::RareConfig;

/// A container to be made. What is left out comes from the image, then from Docker's habits.
#[derive(Clone, Debug, Default)]
pub struct CreateRequest {
    /// The image, as the user wrote it.
    pub image: String,
    /// What the image is to run on; `None` takes what has the name.
    pub platform: Option<Platform>,
    /// The container's name; `None` makes one up.
    pub name: Option<String>,
    /// Replaces the image's `CMD` unless empty.
    pub command: Vec<String>,
    /// Replaces the image's `ENTRYPOINT` and drops its `CMD`. An empty one is none at all.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value`, on top of the image's; a bare `NAME` removes the image's.
    pub env: Vec<String>,
    /// Replaces the image's working directory.
    pub workdir: Option<String>,
    /// Replaces the image's user.
    pub user: Option<String>,
    /// On top of the image's labels.
    pub labels: BTreeMap<String, String>,
    /// Ports the program listens on, on top of the image's.
    pub expose: Vec<ContainerPort>,
    /// Replaces the image's `STOPSIGNAL`.
    pub stop_signal: Option<String>,
    /// Replaces parts of the image's `HEALTHCHECK`.
    pub healthcheck: Option<HealthConfig>,
    /// Volumes, bind mounts and temporary file systems.
    pub mounts: Vec<MountRequest>,
    /// Containers whose mounts it gets too, and whether read-only.
    pub volumes_from: Vec<(String, bool)>,
    /// The networks it is on, by name or id, that of [`HostConfig::network`] first. None is that one alone.
    pub networks: Vec<(String, EndpointConfig)>,
    /// Everything that is not of the image's business.
    pub host: HostConfig,
}

/// How a container is run on this host. Kept with the container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostConfig {
    /// The host name inside; `None` is the short id.
    pub hostname: Option<String>,
    /// With a terminal.
    pub tty: bool,
    /// Standard input is open.
    pub open_stdin: bool,
    /// Standard input ends with the client that was attached first.
    pub stdin_once: bool,
    /// Supplementary groups.
    pub groups: Vec<String>,
    /// Published ports.
    pub publish: Vec<PortMapping>,
    /// Publish every exposed port on a free one.
    pub publish_all: bool,
    /// The network, or the first of them.
    pub network: NetworkMode,
    /// Containers whose names it knows on the default network.
    pub links: Vec<Link>,
    /// Servers, domains and options of name look-up that replace the host's.
    pub dns: DnsOptions,
    /// Further names; without an address they mean the host.
    pub extra_hosts: Vec<(String, Option<IpAddr>)>,
    /// When the container is started again.
    pub restart: RestartPolicy,
    /// Remove the container, with its anonymous volumes, when it ends.
    pub auto_remove: bool,
    /// Capabilities beyond the default ones.
    pub cap_add: Vec<String>,
    /// Capabilities taken away.
    pub cap_drop: Vec<String>,
    /// Nothing is kept from it.
    pub privileged: bool,
    /// The root file system cannot be written.
    pub read_only: bool,
    /// Programs gain nothing by setuid.
    pub no_new_privileges: bool,
    /// No seccomp filter.
    pub seccomp_unconfined: bool,
    /// Our own init as process 1.
    pub init: bool,
    /// Shares the host's processes.
    pub pid_host: bool,
    /// Shares the host's System V IPC.
    pub ipc_host: bool,
    /// Shares the host's name.
    pub uts_host: bool,
    /// Sees the host's control groups.
    pub cgroup_host: bool,
    /// Limits of the control group.
    pub limits: Limits,
    /// Limits of the process.
    pub ulimits: Vec<Ulimit>,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Size of /dev/shm.
    pub shm_bytes: Option<u64>,
    /// Seconds between the request to stop and the end; negative waits for ever.
    pub stop_timeout_s: Option<i64>,
    /// Where output goes.
    pub log: LogConfig,
    /// An OCI runtime to use instead of dhow's own launcher.
    pub runtime: Option<PathBuf>,
    /// What is asked for less often.
    pub rare: RareConfig,
}

/// Which network a container is on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum NetworkMode {
    /// The default network.
    #[default]
    Bridge,
    /// The host's.
    Host,
    /// None.
    None,
    /// That of another container, by name or id as the user wrote it and by id once the container is made.
    Container(String),
    /// One that users made, by name or id.
    User(String),
}

impl From<String> for NetworkMode {
    fn from(text: String) -> NetworkMode {
        match (text.as_str(), text.strip_prefix("container:")) {
            ("" | "default" | "bridge", _) => NetworkMode::Bridge,
            ("host", _) => NetworkMode::Host,
            ("none", _) => NetworkMode::None,
            (_, Some(container)) => NetworkMode::Container(container.into()),
            _ => NetworkMode::User(text),
        }
    }
}

impl FromStr for NetworkMode {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.to_owned().into())
    }
}

impl From<NetworkMode> for String {
    fn from(mode: NetworkMode) -> String {
        mode.to_string()
    }
}

impl std::fmt::Display for NetworkMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NetworkMode::Bridge => f.write_str("bridge"),
            NetworkMode::Host => f.write_str("host"),
            NetworkMode::None => f.write_str("none"),
            NetworkMode::Container(container) => write!(f, "container:{container}"),
            NetworkMode::User(network) => f.write_str(network),
        }
    }
}

/// Another container, and what this one calls it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The container, by name or id as the user wrote it and by id once this one is made.
    pub container: String,
    /// The other one's name.
    pub name: String,
    /// What it is called here.
    pub alias: String,
}

/// What a user says about name look-up. Empty lists leave it to the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsOptions {
    /// Whom to ask.
    pub servers: Vec<IpAddr>,
    /// Domains tried for short names.
    pub search: Vec<String>,
    /// Options of the resolver.
    pub options: Vec<String>,
}

impl DnsOptions {
    /// The host's configuration with what the user said in its place.
    pub(crate) fn over(&self, mut host: DnsConfig) -> DnsConfig {
        const DNS_PORT: u16 = 53;
        if !self.servers.is_empty() {
            host.servers = self.servers.iter().map(|server| (*server, DNS_PORT).into()).collect();
        }
        if !self.search.is_empty() {
            host.search.clone_from(&self.search);
        }
        if !self.options.is_empty() {
            host.options.clone_from(&self.options);
        }
        host
    }
}

/// Limits of a control group. `None` sets none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Memory.
    pub memory_bytes: Option<i64>,
    /// Memory and swap together; -1 is unlimited swap.
    pub memory_swap_bytes: Option<i64>,
    /// Relative weight, 1024 is normal.
    pub cpu_shares: Option<u64>,
    /// Processors' worth of time, in billionths.
    pub nano_cpus: Option<i64>,
    /// Processor time in a period, in microseconds.
    pub cpu_quota_us: Option<i64>,
    /// The period, in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Processors, as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Processes and threads; -1 is unlimited.
    pub pids_max: Option<i64>,
    /// Memory nodes, as `0-1`.
    pub cpuset_mems: Option<String>,
    /// Memory that is left to the container when it gets scarce.
    pub memory_reservation_bytes: Option<i64>,
    /// How readily memory is swapped out, 0 to 100.
    pub memory_swappiness: Option<i64>,
    /// Processes wait for memory instead of being killed.
    pub oom_kill_disable: bool,
    /// Real-time processor time in a period, in microseconds.
    pub cpu_rt_runtime_us: Option<i64>,
    /// The period of real-time processes, in microseconds.
    pub cpu_rt_period_us: Option<i64>,
    /// Relative weight of input and output, 10 to 1000.
    pub blkio_weight: Option<u16>,
    /// Input and output by device.
    pub blkio: Vec<BlkioLimit>,
}

/// What is limited of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlkioKind {
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlkioLimit {
    /// What is limited.
    pub kind: BlkioKind,
    /// The device on this host.
    pub path: PathBuf,
    /// The limit.
    pub value: u64,
}

/// The least memory a container can be given, as in Docker.
const MEMORY_BYTES_MIN: i64 = 6 << 20;
/// The period in which `--cpus` is counted.
const CPU_PERIOD_US: i64 = 100_000;
const NANOS_PER_CPU: i64 = 1_000_000_000;

/// Limits that make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// Too little to start anything.
    #[error("Minimum memory limit allowed is 6MB")]
    MemoryTooSmall,
    /// Swap includes memory.
    #[error("Minimum memoryswap limit should be larger than memory limit, see usage")]
    SwapBelowMemory,
    /// Swap limited, memory not.
    #[error("You should always set the Memory limit when using Memoryswap limit, see usage")]
    SwapAlone,
    /// Two ways to say the same.
    #[error("Conflicting options: Nano CPUs and CPU Period cannot both be set")]
    CpusAndPeriod,
    /// Processors this machine does not have.
    #[error("Range of CPUs is from 0.01 to {available}.00, as there are only {available} CPUs available")]
    TooManyCpus {
        /// How many there are.
        available: usize,
    },
    /// Out of range.
    #[error("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")]
    CpuPeriod,
    /// Out of range.
    #[error("CPU cfs quota can not be less than 1ms (i.e. 1000)")]
    CpuQuota,
    /// More than there is.
    #[error("cpu real-time runtime cannot be higher than cpu real-time period")]
    RealTime,
    /// Too little to matter.
    #[error("Minimum memory reservation allowed is 6MB")]
    ReservationTooSmall,
    /// More than the container gets.
    #[error("Minimum memory limit can not be less than memory reservation limit, see usage")]
    ReservationAboveMemory,
    /// Out of range.
    #[error("Invalid value: {0}, valid memory swappiness range is 0-100")]
    Swappiness(i64),
    /// Out of range.
    #[error("Range of blkio weight is from 10 to 1000")]
    BlkioWeight,
    /// Not a list of numbers.
    #[error("Invalid value {text} for cpuset {of}")]
    Cpuset {
        /// `cpus` or `mems`.
        of: &'static str,
        /// As given.
        text: String,
    },
    /// Numbers this machine does not have.
    #[error("Requested CPUs are not available - requested {requested}, available: {available}")]
    CpusNotAvailable {
        /// As given.
        requested: String,
        /// What there is.
        available: String,
    },
    /// Memory nodes this machine does not have.
    #[error("Requested memory nodes are not available - requested {requested}, available: {available}")]
    MemsNotAvailable {
        /// As given.
        requested: String,
        /// What there is.
        available: String,
    },
}

impl Limits {
    /// Checks what the kernel would refuse with less to say.
    pub(crate) fn check(&self, cpus_available: usize) -> Result<(), LimitsError> {
        if self.memory_bytes.is_some_and(|bytes| bytes > 0 && bytes < MEMORY_BYTES_MIN) {
            return Err(LimitsError::MemoryTooSmall);
        }
        match (self.memory_bytes, self.memory_swap_bytes) {
            (None, Some(swap)) if swap > 0 => return Err(LimitsError::SwapAlone),
            (Some(memory), Some(swap)) if swap > 0 && swap < memory => {
                return Err(LimitsError::SwapBelowMemory);
            }
            _ => {}
        }
        if self.nano_cpus.is_some() && (self.cpu_quota_us.is_some() || self.cpu_period_us.is_some()) {
            return Err(LimitsError::CpusAndPeriod);
        }
        let nanos_max = i64::try_from(cpus_available).unwrap_or(i64::MAX).saturating_mul(NANOS_PER_CPU);
        if self.nano_cpus.is_some_and(|nanos| nanos < NANOS_PER_CPU / 100 || nanos > nanos_max) {
            return Err(LimitsError::TooManyCpus { available: cpus_available });
        }
        self.check_more()
    }

    /// The same in the runtime's words.
    pub(crate) fn to_resources(&self) -> dhow_runtime::Resources {
        let quota = self.nano_cpus.map(|nanos| nanos / (NANOS_PER_CPU / CPU_PERIOD_US));
        let period = self.nano_cpus.and(u64::try_from(CPU_PERIOD_US).ok());
        dhow_runtime::Resources {
            memory_bytes: self.memory_bytes,
            memory_swap_bytes: self.memory_swap_bytes,
            cpu_shares: self.cpu_shares,
            cpu_quota_us: quota.or(self.cpu_quota_us),
            cpu_period_us: period.or(self.cpu_period_us),
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            pids_max: self.pids_max,
            ..self.to_more_resources()
        }
    }
}

/// A limit of a process, as `nofile=1024:4096`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// What is limited.
    pub name: String,
    /// The limit in force; -1 is none.
    pub soft: i64,
    /// The ceiling of `soft`; -1 is none.
    pub hard: i64,
}

/// Why a text is no limit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UlimitError {
    /// No `name=value`.
    #[error("invalid ulimit argument: {0}")]
    Form(String),
    /// The soft limit is above the hard one.
    #[error("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")]
    Order {
        /// The soft limit.
        soft: i64,
        /// The hard limit.
        hard: i64,
    },
}

impl FromStr for Ulimit {
    type Err = UlimitError;

    fn from_str(text: &str) -> Result<Self, UlimitError> {
        let form = || UlimitError::Form(text.into());
        let (name, limits) = text.split_once('=').ok_or_else(form)?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= -1);
        let (soft, hard) = (number(soft).ok_or_else(form)?, number(hard).ok_or_else(form)?);
        if hard != -1 && (soft == -1 || soft > hard) {
            return Err(UlimitError::Order { soft, hard });
        }
        Ok(Ulimit { name: name.into(), soft, hard })
    }
}

impl Ulimit {
    pub(crate) fn to_rlimit(&self) -> dhow_runtime::Rlimit {
        let limit = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
        dhow_runtime::Rlimit { name: self.name.clone(), soft: limit(self.soft), hard: limit(self.hard) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ulimit_is_a_name_and_one_or_two_numbers() {
        let parse = |text: &str| {
            text.parse::<Ulimit>().map(|limit| (limit.soft, limit.hard)).map_err(|e| e.to_string())
        };
        assert_eq!(parse("nofile=1024:4096"), Ok((1024, 4096)));
        assert_eq!(parse("core=-1"), Ok((-1, -1)));
        assert_eq!(parse("nofile"), Err("invalid ulimit argument: nofile".into()));
        assert_eq!(
            parse("nofile=2:1"),
            Err("ulimit soft limit must be less than or equal to hard limit: 2 > 1".into())
        );
    }

    #[test]
    fn impossible_limits_are_named() {
        let check = |limits: Limits| limits.check(2).map_err(|error| error.to_string());
        assert_eq!(check(Limits::default()), Ok(()));
        let memory = |bytes| Limits { memory_bytes: Some(bytes), ..Limits::default() };
        assert_eq!(check(memory(6 << 20)), Ok(()));
        assert_eq!(check(memory(1 << 20)), Err("Minimum memory limit allowed is 6MB".into()));
        let cpus = Limits { nano_cpus: Some(3 * NANOS_PER_CPU), ..Limits::default() };
        assert_eq!(
            check(cpus),
            Err("Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available".into())
        );
    }

    #[test]
    fn half_a_processor_is_half_of_each_period() {
        let limits = Limits { nano_cpus: Some(NANOS_PER_CPU / 2), ..Limits::default() };
        let resources = limits.to_resources();
        assert_eq!((resources.cpu_quota_us, resources.cpu_period_us), (Some(50_000), Some(100_000)));
    }
}
