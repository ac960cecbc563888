//! Namespaces of other containers, found when a container starts: they are as old as those containers' processes.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::containers::Containers;
use crate::error::{StartError, disk};
use crate::rare::IpcShare;
use crate::record::{Container, State};

/// Where a bind mount's source is looked for in another mount namespace; see the runtime's words for mounts.
const NAMESPACE: &str = "x-dhow.mountns";

impl Containers {
    /// Writes into the configuration of a container which namespaces of others it joins.
    pub(crate) fn write_shared_namespaces(&self, container: &Container) -> Result<(), StartError> {
        let rare = &container.record.host.rare;
        let ipc_of = match &rare.ipc {
            IpcShare::Of(name) => Some(name),
            _ => None,
        };
        if rare.pid_of.is_none() && ipc_of.is_none() {
            return Ok(());
        }
        let path = self.bundle(&container.id).config();
        let text = fs::read(&path).map_err(disk("read", &path))?;
        let damaged = |error: serde_json::Error| disk("read", &path)(error.into());
        let mut config: Value = serde_json::from_slice(&text).map_err(damaged)?;
        if let Some(name) = &rare.pid_of {
            let pid = self.donor(name, "PID namespace")?.1;
            set_namespace(&mut config, "pid", pid);
        }
        if let Some(name) = ipc_of {
            let (donor, pid) = self.donor(name, "IPC")?;
            if donor.record.host.rare.ipc != IpcShare::Shareable {
                return Err(StartError::NotShareable(donor.id));
            }
            set_namespace(&mut config, "ipc", pid);
            share_memory(&mut config, pid);
        }
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, config.to_string()).map_err(disk("write", &temporary))?;
        Ok(fs::rename(&temporary, &path).map_err(disk("write", &path))?)
    }

    fn donor(&self, name: &str, what: &'static str) -> Result<(Container, i32), StartError> {
        let donor = self.find(name)?;
        match donor.state {
            State::Running { pid, .. } => Ok((donor, pid)),
            _ => Err(StartError::DonorNotRunning { what, id: donor.id }),
        }
    }
}

fn set_namespace(config: &mut Value, kind: &str, pid: i32) {
    let path = format!("/proc/{pid}/ns/{kind}");
    for namespace in config["linux"]["namespaces"].as_array_mut().into_iter().flatten() {
        if namespace["type"] == kind {
            namespace["path"] = path.as_str().into();
        }
    }
}

/// Shows the other's /dev/shm in place of the container's own.
fn share_memory(config: &mut Value, pid: i32) {
    for mount in config["mounts"].as_array_mut().into_iter().flatten() {
        let shows_own = mount["source"] == "shm" || mount["options"].to_string().contains(NAMESPACE);
        if mount["destination"] == "/dev/shm" && shows_own {
            let namespace = PathBuf::from(format!("/proc/{pid}/ns/mnt"));
            *mount = json!({
                "destination": "/dev/shm", "type": "bind", "source": "/dev/shm",
                "options": ["bind", "nosuid", "noexec", "nodev", format!("{NAMESPACE}={}", namespace.display())],
            });
        }
    }
}
