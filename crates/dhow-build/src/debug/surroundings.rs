//! What surrounded the program of a step, as it is recorded.

use std::net::IpAddr;

use dhow_runtime::{Resources, Rlimit};
use serde::{Deserialize, Serialize};

use crate::plan::Sandbox;

/// Names of hosts and limits. Steps that were recorded before they were have none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Surroundings {
    hosts: Vec<(String, Option<IpAddr>)>,
    /// Name, soft and hard limit.
    rlimits: Vec<(String, u64, u64)>,
    shm_bytes: Option<u64>,
    cgroup_parent: String,
    memory_bytes: Option<i64>,
    memory_swap_bytes: Option<i64>,
    cpu_shares: Option<u64>,
    cpu_quota_us: Option<i64>,
    cpu_period_us: Option<u64>,
    cpuset_cpus: Option<String>,
    cpuset_mems: Option<String>,
    pids_max: Option<i64>,
}

impl Surroundings {
    pub(crate) fn of(sandbox: &Sandbox) -> Surroundings {
        // Fields are named, so that none that comes later is forgotten here.
        let Sandbox { hostname: _, is_insecure: _, hosts, rlimits, shm_bytes, cgroup_parent, resources } =
            sandbox;
        let Resources {
            memory_bytes,
            memory_swap_bytes,
            cpu_shares,
            cpu_quota_us,
            cpu_period_us,
            cpuset_cpus,
            cpuset_mems,
            pids_max,
            // No step of a build can ask for these.
            memory_reservation_bytes: _,
            memory_swappiness: _,
            oom_kill_disable: _,
            cpu_rt_runtime_us: _,
            cpu_rt_period_us: _,
            io_weight: _,
            io: _,
            devices: _,
        } = resources.clone();
        Surroundings {
            hosts: hosts.clone(),
            rlimits: rlimits.iter().map(|limit| (limit.name.clone(), limit.soft, limit.hard)).collect(),
            shm_bytes: *shm_bytes,
            cgroup_parent: cgroup_parent.clone(),
            memory_bytes,
            memory_swap_bytes,
            cpu_shares,
            cpu_quota_us,
            cpu_period_us,
            cpuset_cpus,
            cpuset_mems,
            pids_max,
        }
    }

    pub(crate) fn sandbox(&self, hostname: &str, is_insecure: bool) -> Sandbox {
        let own = self.clone();
        let rlimit = |(name, soft, hard)| Rlimit { name, soft, hard };
        Sandbox {
            hostname: hostname.to_owned(),
            is_insecure,
            hosts: own.hosts,
            rlimits: own.rlimits.into_iter().map(rlimit).collect(),
            shm_bytes: own.shm_bytes,
            cgroup_parent: own.cgroup_parent,
            resources: Resources {
                memory_bytes: own.memory_bytes,
                memory_swap_bytes: own.memory_swap_bytes,
                cpu_shares: own.cpu_shares,
                cpu_quota_us: own.cpu_quota_us,
                cpu_period_us: own.cpu_period_us,
                cpuset_cpus: own.cpuset_cpus,
                cpuset_mems: own.cpuset_mems,
                pids_max: own.pids_max,
                ..Resources::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn surroundings_come_back_as_they_were() {
        let sandbox = Sandbox {
            hostname: "h".to_owned(),
            is_insecure: true,
            hosts: vec![("db".to_owned(), Some(Ipv4Addr::LOCALHOST.into())), ("gate".to_owned(), None)],
            rlimits: vec![Rlimit { name: "nofile".to_owned(), soft: 7, hard: u64::MAX }],
            shm_bytes: Some(1),
            cgroup_parent: "/p".to_owned(),
            resources: Resources {
                memory_bytes: Some(2),
                memory_swap_bytes: Some(-1),
                cpu_shares: Some(3),
                cpu_quota_us: Some(4),
                cpu_period_us: Some(5),
                cpuset_cpus: Some("0".to_owned()),
                cpuset_mems: Some("1".to_owned()),
                pids_max: Some(6),
                ..Resources::default()
            },
        };
        let text = serde_json::to_string(&Surroundings::of(&sandbox)).expect("texts and numbers are JSON");
        let read: Surroundings = serde_json::from_str(&text).expect("what was written");
        assert_eq!(read.sandbox("h", true), sandbox);
        let older: Surroundings = serde_json::from_str("{}").expect("an older record");
        assert_eq!(older, Surroundings::default());
    }
}
