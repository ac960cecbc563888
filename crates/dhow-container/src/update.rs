//! Changing the limits and the restart policy of a container, while it runs or not.

use dhow_runtime::RestartPolicy;
use dhow_store::UpdateError as UpdateRecordError;

use crate::containers::Containers;
use crate::create::write_spec;
use crate::error::{CreateError, DiskError, FindError, disk};
use crate::files::ContainerFiles;
use crate::record::ContainerRecord;
use crate::request::{Limits, LimitsError, NetworkMode};

/// What is to be changed. What is `None` stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpdateRequest {
    /// Limits of the control group; of these, only some can be changed.
    pub limits: Limits,
    /// When it is started again.
    pub restart: Option<RestartPolicy>,
}

/// Why a container was not changed. The words are docker's.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The limits do not make sense.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// It would be removed before it could be started again.
    #[error("Restart policy cannot be updated because AutoRemove is enabled for the container")]
    AutoRemove,
    /// Swap includes memory.
    #[error(
        "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
    )]
    MemoryAboveSwap,
    /// The two ways to limit processor time exclude each other.
    #[error("Conflicting options: {new} cannot be updated as {old} has already been set")]
    Cpu {
        /// What is asked for.
        new: &'static str,
        /// What is set.
        old: &'static str,
    },
    /// Its configuration could not be written.
    #[error(transparent)]
    Config(#[from] CreateError),
    /// The record could not be changed.
    #[error(transparent)]
    Record(#[from] UpdateRecordError<serde_json::Error>),
    /// The kernel refuses. The container goes on as it was recorded before.
    #[error("cannot change the limits of container {id}: {source}")]
    Kernel {
        /// The container.
        id: String,
        /// Why.
        source: dhow_runtime::StartError,
    },
    /// The disk failed us.
    #[error(transparent)]
    Io(#[from] DiskError),
}

impl Containers {
    /// Changes a container.
    pub fn update(&self, text: &str, request: &UpdateRequest) -> Result<(), UpdateError> {
        let id = self.resolve(text)?.key;
        let _lock = self.lock(&id)?;
        let container = self.find(&id)?;
        let mut record = container.record.clone();
        change(&mut record, request)?;
        if request.limits != Limits::default() {
            self.write_config(&id, &record)?;
            if container.state.is_running()
                && let Err(source) = dhow_runtime::apply_limits(&self.bundle(&id))
            {
                // What runs next is to have what is on record.
                self.write_config(&id, &container.record)?;
                return Err(UpdateError::Kernel { id, source });
            }
        }
        if let Some(policy) = request.restart {
            let (run_dir, bundle) = (self.run_dir(&id), self.bundle(&id));
            let written = dhow_runtime::set_restart_policy(&run_dir, &bundle, policy);
            written.map_err(disk("write", &bundle.restart_policy()))?;
        }
        self.records().update(&id, |_| serde_json::to_string(&record))?;
        self.tell(&container, "update", &[]);
        Ok(())
    }

    fn write_config(&self, id: &str, record: &ContainerRecord) -> Result<(), UpdateError> {
        if matches!(record.host.network, NetworkMode::Container(_)) {
            // Written at each start, when it is known whose network it is.
            return Ok(());
        }
        let bundle = self.bundle(id);
        let files = ContainerFiles::new(&bundle, id, record);
        Ok(write_spec(&bundle, &crate::create::spec(self, id, record, &files)?)?)
    }
}

fn change(record: &mut ContainerRecord, request: &UpdateRequest) -> Result<(), UpdateError> {
    let (new, held) = (&request.limits, &mut record.host.limits);
    if new.nano_cpus.is_some() {
        let set = [("CPU Quota", held.cpu_quota_us.is_some()), ("CPU Period", held.cpu_period_us.is_some())];
        if let Some((old, _)) = set.into_iter().find(|(_, is_set)| *is_set) {
            return Err(UpdateError::Cpu { new: "NanoCPUs", old });
        }
    }
    let asked = [("CPU Quota", new.cpu_quota_us.is_some()), ("CPU Period", new.cpu_period_us.is_some())];
    if held.nano_cpus.is_some()
        && let Some((new, _)) = asked.into_iter().find(|(_, is_asked)| *is_asked)
    {
        return Err(UpdateError::Cpu { new, old: "NanoCPUs" });
    }
    if let (Some(memory), None, Some(swap)) =
        (new.memory_bytes, new.memory_swap_bytes, held.memory_swap_bytes)
        && swap > 0
        && memory > swap
    {
        return Err(UpdateError::MemoryAboveSwap);
    }
    lay_over(held, new);
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
    held.check(cpus)?;
    if let Some(policy) = request.restart {
        if record.host.auto_remove && !policy.is_no() {
            return Err(UpdateError::AutoRemove);
        }
        record.host.restart = policy;
    }
    Ok(())
}

fn lay_over(held: &mut Limits, new: &Limits) {
    macro_rules! take {
        ($($field:ident),*) => {$(
            if new.$field.is_some() {
                held.$field.clone_from(&new.$field);
            }
        )*};
    }
    take!(
        memory_bytes,
        memory_swap_bytes,
        memory_reservation_bytes,
        cpu_shares,
        nano_cpus,
        cpu_quota_us,
        cpu_period_us,
        cpu_rt_period_us,
        cpu_rt_runtime_us,
        cpuset_cpus,
        cpuset_mems,
        pids_max,
        blkio_weight
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_asked_for_changes() {
        let mut held = Limits { memory_bytes: Some(1 << 30), cpu_shares: Some(512), ..Limits::default() };
        lay_over(&mut held, &Limits { cpu_shares: Some(100), pids_max: Some(-1), ..Limits::default() });
        let expected = Limits {
            memory_bytes: Some(1 << 30),
            cpu_shares: Some(100),
            pids_max: Some(-1),
            ..Limits::default()
        };
        assert_eq!(held, expected);
    }
}
