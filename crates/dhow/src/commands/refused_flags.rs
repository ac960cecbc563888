//! Flags of docker's `run` that dhow knows and cannot honour yet. Saying so beats ignoring them.

use super::create_flags::unsupported;
use crate::error::CliError;

/// Declares the flags, and a check that none was given.
macro_rules! refused {
    ($($field:ident $flag:literal),* $(,)?) => {
        /// Flags that are refused by name.
        #[derive(clap::Args, Debug)]
        pub(crate) struct RefusedFlags {
            $(#[arg(long = $flag, hide = true, num_args = 0..=1, allow_hyphen_values = true, action = clap::ArgAction::Append)]
            $field: Option<Vec<String>>,)*
        }

        impl RefusedFlags {
            pub(crate) fn check(&self) -> Result<(), CliError> {
                let given = [$(($flag, self.$field.is_some())),*];
                match given.iter().find(|(_, given)| *given) {
                    Some((flag, _)) => Err(unsupported(&format!("--{flag}"))),
                    None => Ok(()),
                }
            }
        }
    };
}

refused! {
    annotation "annotation",
    blkio_weight "blkio-weight",
    blkio_weight_device "blkio-weight-device",
    cgroup_parent "cgroup-parent",
    cpu_count "cpu-count",
    cpu_percent "cpu-percent",
    cpu_rt_period "cpu-rt-period",
    cpu_rt_runtime "cpu-rt-runtime",
    cpuset_mems "cpuset-mems",
    device "device",
    device_cgroup_rule "device-cgroup-rule",
    device_read_bps "device-read-bps",
    device_read_iops "device-read-iops",
    device_write_bps "device-write-bps",
    device_write_iops "device-write-iops",
    domainname "domainname",
    gpus "gpus",
    io_maxbandwidth "io-maxbandwidth",
    io_maxiops "io-maxiops",
    isolation "isolation",
    kernel_memory "kernel-memory",
    memory_reservation "memory-reservation",
    memory_swappiness "memory-swappiness",
    oom_kill_disable "oom-kill-disable",
    oom_score_adj "oom-score-adj",
    storage_opt "storage-opt",
    use_api_socket "use-api-socket",
    volume_driver "volume-driver",
}
