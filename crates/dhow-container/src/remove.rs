//! Removing containers, and what dead processes left of them.

use std::fs;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dhow_image::Images;
use dhow_runtime::ExitStatus;
use dhow_snapshot::{OverlaySnapshotter, Snapshotter as _};
use dhow_store::{RemoveRecordError, Store};

use crate::containers::{Containers, LOCK, UNNAMED, run_dirs, snapshot_key};
use crate::error::{FindError, RemoveError, RenameError, disk};
use crate::freeze;
use crate::name::{check_name, is_id};
use crate::record::{Container, State};
use crate::start::Ending;
use crate::volume::{RemoveVolumeError, Volumes, remove_dir};

/// How old a folder that has no name yet must be to be taken for rubbish: its maker may be between two instructions.
const UNNAMED_AGE_MIN: Duration = Duration::from_secs(60);

/// How a container is to be removed.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoveOptions {
    /// Kill it if it runs.
    pub force: bool,
    /// With the anonymous volumes only it uses.
    pub volumes: bool,
}

impl Containers {
    /// Removes a container.
    pub fn remove(&self, text: &str, options: RemoveOptions) -> Result<(), RemoveError> {
        let id = self.resolve(text)?.key;
        let _lock = self.lock(&id)?;
        let container = self.look_at(self.resolve(&id).map_err(|error| match error {
            FindError::NotFound(_) => FindError::NotFound(text.into()),
            error => error,
        })?)?;
        match &container.state {
            State::Created => {}
            State::Exited { .. } => drop(self.wait_for_shim(&id)?),
            State::Starting | State::Running { .. } | State::Restarting { .. } if options.force => {
                self.end_by_force(&container)?
            }
            State::Starting | State::Running { .. } | State::Restarting { .. } => {
                let (name, state) = (text.to_string(), container.state.word());
                return Err(RemoveError::Running { name, state });
            }
        }
        self.discard_with(&container, options.volumes)
    }

    /// Gives a container another name.
    pub fn rename(&self, text: &str, name: &str) -> Result<(), RenameError> {
        let container = self.find(text)?;
        // Its networks are not to change meanwhile.
        let _lock = self.lock(&container.id).map_err(FindError::from)?;
        let name = check_name(name)?;
        if name == container.name {
            return Err(RenameError::Same);
        }
        self.records().rename(&container.id, Some(name)).map_err(|error| match error {
            dhow_store::RenameError::NameTaken { name, holder, .. } => {
                RenameError::NameTaken { name, holder }
            }
            error => RenameError::Store(error),
        })?;
        let renamed = Container { name: name.to_owned(), ..container.clone() };
        // One that cannot be told keeps answering to the old name until its next start.
        let _ = self.tell_shim(&renamed);
        self.tell(&renamed, "rename", &[("oldName", container.name)]);
        Ok(())
    }

    /// Removes a container that does not run, with its anonymous volumes.
    pub(crate) fn discard(&self, container: &Container) -> Result<(), RemoveError> {
        self.discard_with(container, true)
    }

    /// Each step may find itself done: two processes may be at it.
    fn discard_with(&self, container: &Container, with_volumes: bool) -> Result<(), RemoveError> {
        let volumes = Volumes::new(self.store());
        let anonymous: Vec<&str> =
            container.record.volumes().filter(|(_, anonymous)| *anonymous).map(|(name, _)| name).collect();
        if !with_volumes {
            // Before the record goes: afterwards `sweep` would take them for forgotten.
            anonymous.iter().try_for_each(|name| volumes.keep(name))?;
        }
        match self.records().remove(&container.id) {
            // What fills the disk may be in the container's own files, and then the database cannot write before
            // they are gone.
            Err(RemoveRecordError::Database(_)) => {
                self.images.snapshots().remove(&snapshot_key(&container.id))?;
                self.records().remove(&container.id)?;
            }
            removed => drop(removed?),
        }
        self.discard_remains(&container.id)?;
        self.tell(container, "destroy", &[]);
        if with_volumes {
            for name in anonymous {
                if volumes.remove_unused(name)? {
                    self.tell_volume(name, "destroy", &[("driver", "local")]);
                }
            }
        }
        Ok(())
    }

    /// Removes what is on disk of a container that has no record any more.
    fn discard_remains(&self, id: &str) -> Result<(), RemoveError> {
        freeze::remove_group(&self.bundle(id))
            .map_err(disk("remove the control group of", self.bundle(id).dir()))?;
        self.images.snapshots().remove(&snapshot_key(id))?;
        remove_dir(self.run_dir(id).dir())?;
        Ok(remove_dir(self.bundle(id).dir())?)
    }

    /// Removes what dead processes left: folders and snapshots without a record, containers that were to be removed
    /// at their end and whose shim was killed, and their places on the network.
    pub fn sweep(&self) -> Result<(), RemoveError> {
        for container in self.list()? {
            let is_left =
                container.record.host.auto_remove && matches!(container.state, State::Exited { .. });
            // A living shim is about to do it.
            let dead = is_left && !dhow_runtime::is_alive(&self.run_dir(&container.id)).unwrap_or(true);
            if dead && let Some(_lock) = self.try_lock(&container.id)? {
                self.discard(&container)?;
            }
        }
        self.reconcile_networks();
        self.sweep_folders()?;
        self.sweep_volumes()?;
        let records = self.records();
        // What cannot be looked up is kept.
        let is_known = |key: &str| records.get(key).map_or(true, |record| record.is_some());
        self.images.snapshots().collect(&|key| is_known(key.as_str()))?;
        Ok(())
    }

    fn sweep_folders(&self) -> Result<(), RemoveError> {
        for dir in [self.containers_dir(), run_dirs(&self.run)] {
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            for entry in entries {
                let entry = entry.map_err(disk("list", &dir))?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                if is_id(&name) {
                    self.sweep_folder(&name)?;
                } else if name.starts_with(UNNAMED) && self.is_old(&entry.path()) {
                    remove_dir(&entry.path())?;
                }
            }
        }
        Ok(())
    }

    /// Removes what is left of the container `id`, unless it has a record or somebody is about to make one.
    fn sweep_folder(&self, id: &str) -> Result<(), RemoveError> {
        let is_recorded = || Ok::<_, RemoveError>(self.records().get(id).map_err(FindError::from)?.is_some());
        if is_recorded()? {
            return Ok(());
        }
        let has_lock = self.bundle(id).dir().join(LOCK).exists();
        let lock = self.try_lock(id)?;
        // Looked at again: whoever held the lock has recorded it by now.
        let is_rubbish = (lock.is_some() || !has_lock) && !is_recorded()?;
        // A shim that removes its own container does not hold that lock.
        if is_rubbish && !dhow_runtime::is_alive(&self.run_dir(id)).unwrap_or(true) {
            self.discard_remains(id)?;
        }
        Ok(())
    }

    /// Removes anonymous volumes whose container was never finished, or was removed by a process that died.
    fn sweep_volumes(&self) -> Result<(), RemoveError> {
        let volumes = Volumes::new(self.store());
        for (name, container) in volumes.bound().map_err(FindError::from)? {
            // As long as it has a folder, somebody may be making it.
            let is_gone = self.records().get(&container).map_err(FindError::from)?.is_none()
                && !self.bundle(&container).dir().exists();
            if is_gone {
                volumes.remove_unused(&name)?;
            }
        }
        self.release_forgotten_volumes()?;
        Ok(volumes.sweep_folders()?)
    }

    fn is_old(&self, path: &Path) -> bool {
        let changed = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
        let now = SystemTime::from((self.clock)());
        changed.is_ok_and(|time| now.duration_since(time).is_ok_and(|age| age >= UNNAMED_AGE_MIN))
    }
}

/// The containers, from within the shim of one.
pub(crate) fn containers(
    ending: &Ending,
    clock: fn() -> jiff::Timestamp,
) -> Result<Containers, Box<dyn std::error::Error>> {
    let store = Store::open(&ending.root)?;
    let snapshots = OverlaySnapshotter::open(&ending.root.join("snapshots"))?;
    Ok(Containers::new(Images::new(store, Arc::new(snapshots)), &ending.run, clock))
}

/// Does what there is to do at the end of a container, from within its shim, which still holds the shim's lock.
pub(crate) fn ended(
    ending: &Ending,
    status: &ExitStatus,
    clock: fn() -> jiff::Timestamp,
) -> Result<(), Box<dyn std::error::Error>> {
    let Ending { id, remove, .. } = ending;
    let containers = containers(ending, clock)?;
    containers.tell_end(id);
    if !remove {
        return Ok(());
    }
    // Whoever waits for the container has this file open and finds the status in it when the lock is free.
    let mut lock = fs::File::options().write(true).open(containers.run_dir(id).lock())?;
    let status = serde_json::to_vec(status)?;
    let written = lock.write_all(&status);
    containers.discard(&containers.find(id)?)?;
    if written.is_err() {
        // The disk may have been full, and is no longer.
        lock.set_len(0)?;
        lock.rewind()?;
        lock.write_all(&status)?;
    }
    // It does not hurt anybody here to look for what others left.
    Ok(containers.sweep()?)
}

impl From<RemoveVolumeError> for RemoveError {
    fn from(error: RemoveVolumeError) -> Self {
        match error {
            RemoveVolumeError::Record(error) => error.into(),
            RemoveVolumeError::Update(error) => error.into(),
            RemoveVolumeError::Database(error) => FindError::from(error).into(),
            RemoveVolumeError::Io(error) => error.into(),
        }
    }
}
