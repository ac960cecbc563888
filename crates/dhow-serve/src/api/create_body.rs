//! The body of `POST /containers/create`, as Docker's clients write it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::networks::Endpoint;

/// Docker writes `null` for whatever is not set.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A list of words; old clients write one word as text.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Words {
    List(Vec<String>),
    One(String),
}

impl Words {
    pub(super) fn list(self) -> Vec<String> {
        match self {
            Words::List(list) => list,
            Words::One(word) => vec![word],
        }
    }
}

pub(super) type Set = BTreeMap<String, Value>;

/// The body.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Body {
    #[serde(deserialize_with = "or_default")]
    pub(super) hostname: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) domainname: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) tty: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) open_stdin: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) stdin_once: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) env: Vec<String>,
    pub(super) cmd: Option<Words>,
    pub(super) entrypoint: Option<Words>,
    #[serde(deserialize_with = "or_default")]
    pub(super) image: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) volumes: Set,
    #[serde(deserialize_with = "or_default")]
    pub(super) exposed_ports: Set,
    #[serde(deserialize_with = "or_default")]
    pub(super) working_dir: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) stop_signal: String,
    pub(super) stop_timeout: Option<i64>,
    pub(super) healthcheck: Option<Health>,
    #[serde(deserialize_with = "or_default")]
    pub(super) mac_address: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) host_config: Host,
    #[serde(deserialize_with = "or_default")]
    pub(super) networking_config: Networking,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Networking {
    #[serde(deserialize_with = "or_default")]
    pub(super) endpoints_config: BTreeMap<String, Option<Endpoint>>,
}

/// How to tell whether the program is well; times in nanoseconds.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Health {
    #[serde(deserialize_with = "or_default")]
    pub(super) test: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) interval: i64,
    #[serde(deserialize_with = "or_default")]
    pub(super) timeout: i64,
    #[serde(deserialize_with = "or_default")]
    pub(super) start_period: i64,
    #[serde(deserialize_with = "or_default")]
    pub(super) start_interval: i64,
    #[serde(deserialize_with = "or_default")]
    pub(super) retries: i64,
}

/// `HostConfig`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Host {
    #[serde(deserialize_with = "or_default")]
    pub(super) binds: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) mounts: Vec<Value>,
    #[serde(deserialize_with = "or_default")]
    pub(super) tmpfs: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) volumes_from: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) log_config: Log,
    #[serde(deserialize_with = "or_default")]
    pub(super) network_mode: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) port_bindings: BTreeMap<String, Option<Vec<Binding>>>,
    #[serde(deserialize_with = "or_default")]
    pub(super) publish_all_ports: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) restart_policy: Restart,
    #[serde(deserialize_with = "or_default")]
    pub(super) auto_remove: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) cap_add: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) cap_drop: Vec<String>,
    #[serde(rename = "Dns", deserialize_with = "or_default")]
    pub(super) dns: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) dns_options: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) dns_search: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) extra_hosts: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) group_add: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) ipc_mode: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) pid_mode: String,
    #[serde(rename = "UTSMode", deserialize_with = "or_default")]
    pub(super) uts_mode: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) cgroupns_mode: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) privileged: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) readonly_rootfs: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) security_opt: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) shm_size: u64,
    #[serde(deserialize_with = "or_default")]
    pub(super) sysctls: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) runtime: String,
    pub(super) init: Option<bool>,
    #[serde(deserialize_with = "or_default")]
    pub(super) memory: i64,
    #[serde(deserialize_with = "or_default")]
    pub(super) memory_swap: i64,
    #[serde(deserialize_with = "or_default")]
    pub(super) cpu_shares: u64,
    #[serde(deserialize_with = "or_default")]
    pub(super) nano_cpus: i64,
    #[serde(deserialize_with = "or_default")]
    pub(super) cpu_period: u64,
    #[serde(deserialize_with = "or_default")]
    pub(super) cpu_quota: i64,
    #[serde(deserialize_with = "or_default")]
    pub(super) cpuset_cpus: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) cpuset_mems: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) memory_reservation: i64,
    pub(super) memory_swappiness: Option<i64>,
    #[serde(deserialize_with = "or_default")]
    pub(super) oom_kill_disable: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) oom_score_adj: i64,
    #[serde(rename = "CpuRealtimePeriod", deserialize_with = "or_default")]
    pub(super) cpu_rt_period: i64,
    #[serde(rename = "CpuRealtimeRuntime", deserialize_with = "or_default")]
    pub(super) cpu_rt_runtime: i64,
    #[serde(deserialize_with = "or_default")]
    pub(super) blkio_weight: u16,
    #[serde(deserialize_with = "or_default")]
    pub(super) devices: Vec<Device>,
    #[serde(deserialize_with = "or_default")]
    pub(super) device_cgroup_rules: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) links: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) userns_mode: String,
    /// An empty list unmasks everything; none means the usual ones.
    pub(super) masked_paths: Option<Vec<String>>,
    pub(super) readonly_paths: Option<Vec<String>>,
    pub(super) pids_limit: Option<i64>,
    #[serde(deserialize_with = "or_default")]
    pub(super) ulimits: Vec<Limit>,
    /// What is not understood; it must not ask for anything.
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Log {
    #[serde(rename = "Type", deserialize_with = "or_default")]
    pub(super) kind: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) config: BTreeMap<String, String>,
}

/// A device of the host.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Device {
    pub(super) path_on_host: String,
    #[serde(default)]
    pub(super) path_in_container: String,
    #[serde(default)]
    pub(super) cgroup_permissions: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Binding {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) host_ip: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) host_port: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Restart {
    #[serde(deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) maximum_retry_count: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Limit {
    pub(super) name: String,
    pub(super) soft: i64,
    pub(super) hard: i64,
}
