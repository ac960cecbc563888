//! Starting a container: its shim does the work, the command waits until the program runs.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use dhow_runtime::shim::Told;
use dhow_runtime::{
    Attached, ExitStatus, LogFile, RootMount, RuntimeChoice, ShimRequest, Started, StdinMode, WindowSize,
    spawn_shim, spawn_shim_attached,
};
use dhow_snapshot::Snapshotter as _;
use serde::{Deserialize, Serialize};

use crate::containers::{Containers, snapshot_key};
use crate::error::{DiskError, FindError, StartError, disk};
use crate::files::ContainerFiles;
use crate::log_config::LogConfig;
use crate::record::{Container, State};
use crate::request::NetworkMode;

/// What the shim hands back to us when its container has ended.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ending {
    /// The store.
    pub root: PathBuf,
    /// The run-time state.
    pub run: PathBuf,
    /// The container.
    pub id: String,
    /// Whether it is to be removed.
    pub remove: bool,
}

impl Containers {
    /// Starts a container that nobody watches. One that runs is left alone, and that is success.
    pub fn start(&self, text: &str) -> Result<(), StartError> {
        self.start_with(text, |request, lock| Ok((spawn_shim(request, lock)?, ()))).map(drop)
    }

    /// Starts a container and attaches to it from its first byte of output on. `None`: it runs already.
    pub fn start_attached(
        &self,
        text: &str,
        window: Option<WindowSize>,
    ) -> Result<Option<Attached>, StartError> {
        self.start_with(text, |request, lock| {
            if let Ok(container) = self.find(text) {
                self.tell(&container, "attach", &[]);
            }
            let request = ShimRequest { window, ..request.clone() };
            spawn_shim_attached(&request, lock)
        })
    }

    fn start_with<T>(
        &self,
        text: &str,
        spawn: impl FnOnce(&ShimRequest, Option<OwnedFd>) -> Result<(Started, T), dhow_runtime::StartError>,
    ) -> Result<Option<T>, StartError> {
        let id = self.resolve(text)?.key;
        let lock = self.lock(&id)?;
        // While we waited for the lock it may have been removed.
        let container = self.look_at(self.resolve(&id).map_err(|error| match error {
            FindError::NotFound(_) => FindError::NotFound(text.into()),
            error => error,
        })?)?;
        match container.state {
            State::Running { paused: true, .. } => return Err(StartError::Paused),
            State::Running { .. } | State::Restarting { .. } | State::Starting => return Ok(None),
            State::Created => {}
            // Its shim may still be tidying up.
            State::Exited { .. } => drop(self.wait_for_shim(&id)?),
        }
        let request = self.shim_request(&container).inspect_err(|_| {
            if container.record.host.auto_remove {
                // Best effort: the error to be told is the other one.
                let _ = self.discard(&container);
            }
        })?;
        let _held = self.mount_volumes(&container)?;
        self.write_shared_namespaces(&container)?;
        let shared = lock.as_ref().map(File::try_clone).transpose();
        let shared = shared.map_err(disk("lock", self.bundle(&id).dir()))?.map(OwnedFd::from);
        match spawn(&request, shared) {
            Ok((started, attached)) => {
                self.tell_start(&container, &started.started_at);
                Ok(Some(attached))
            }
            Err(error) => {
                if container.record.host.auto_remove {
                    // Best effort, once the shim has let go of what it began: the error to be told is the other one.
                    let _ = self.wait_for_shim(&id).map(|_| self.discard(&container));
                }
                Err(error.into())
            }
        }
    }

    /// Waits until the container's shim is gone, and returns how the container ended if that was recorded.
    pub(crate) fn wait_for_shim(&self, id: &str) -> Result<Option<ExitStatus>, DiskError> {
        let (run_dir, bundle) = (self.run_dir(id), self.bundle(id));
        dhow_runtime::wait(&run_dir, &bundle).map_err(disk("wait for the shim in", run_dir.dir()))
    }

    fn shim_request(&self, container: &Container) -> Result<ShimRequest, StartError> {
        let (id, host) = (&container.id, &container.record.host);
        let (bundle, run_dir) = (self.bundle(id), self.run_dir(id));
        fs::create_dir_all(run_dir.dir()).map_err(disk("create", run_dir.dir()))?;
        match &host.network {
            NetworkMode::Container(other) => self.share_network(container, other)?,
            _ => ContainerFiles::new(&bundle, id, &container.record).write()?,
        }
        let stdin = match (host.open_stdin, host.stdin_once) {
            (false, _) => StdinMode::Closed,
            (true, true) => StdinMode::Once,
            (true, false) => StdinMode::Open,
        };
        let log = match host.log {
            LogConfig::JsonFile(ref config) => Some(LogFile {
                path: self.log_path(id),
                bytes_max: config.bytes_max,
                files_max: config.files_max,
                attributes: config.attributes(&container.record),
            }),
            LogConfig::None => None,
        };
        let runtime =
            host.runtime.clone().map_or(RuntimeChoice::Native, |program| RuntimeChoice::Oci { program });
        let (root, run) = (self.store().root().into(), self.run.clone());
        let ending = Ending { root, run, id: id.clone(), remove: host.auto_remove };
        let ending = serde_json::to_value(ending).expect("plain data serializes");
        Ok(ShimRequest {
            id: id.clone(),
            bundle: bundle.dir().into(),
            run_dir: run_dir.dir().into(),
            root: self.root_mount(id)?,
            runtime,
            stdin,
            window: None,
            log,
            network: self.network_request(container)?.map(|request| request.to_value()),
            restart: host.restart,
            health: crate::health::check(&container.record),
            on_exit: Some(ending),
        })
    }

    fn root_mount(&self, id: &str) -> Result<RootMount, StartError> {
        let spec = self.images.snapshots().mount_spec(&snapshot_key(id))?;
        Ok(match (spec.upper, spec.work) {
            (Some(upper), Some(work)) => RootMount::Overlay { lowers: spec.lowers, upper, work },
            _ => unreachable!("an active snapshot has an upper and a work folder"),
        })
    }
}

/// Tells what happened to a container that goes on; for the hook of [`dhow_runtime::shim::ShimHooks`].
pub fn told(ending: &serde_json::Value, told: &Told, clock: fn() -> jiff::Timestamp) {
    let Ok(ending) = serde_json::from_value::<Ending>(ending.clone()) else { return };
    let Ok(containers) = crate::remove::containers(&ending, clock) else { return };
    match told {
        Told::Ended(_) => containers.tell_end(&ending.id),
        Told::Started(started) => {
            if let Ok(container) = containers.find(&ending.id) {
                containers.tell_start(&container, &started.started_at);
            }
        }
        Told::Health(status) => {
            if let Ok(container) = containers.find(&ending.id) {
                containers.tell(&container, &format!("health_status: {}", status.word()), &[]);
            }
        }
    }
}

/// Tells that a container ended, and removes it if it was to be removed then; for the hook of
/// [`dhow_runtime::shim::ShimHooks`].
pub fn exited(ending: &serde_json::Value, status: &ExitStatus, clock: fn() -> jiff::Timestamp) {
    let Ok(ending) = serde_json::from_value(ending.clone()) else { return };
    // Nobody is left to be told. What stays is found by the next `sweep`.
    let _ = crate::remove::ended(&ending, status, clock);
}
