//! Volumes as users handle them: making, listing, looking at and removing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dhow_store::{DatabaseError, Event, Holder, Ref, RemoveRecordError};

use crate::containers::{Containers, KIND as CONTAINER};
use crate::error::{DiskError, FindVolumeError, RemoveVolumesError, VolumeError};
use crate::local_driver::{Backing, DRIVER};
use crate::mount::volume_name;
use crate::name::random_id;
use crate::volume::{KIND, RemoveVolumeError, VolumeRecord, Volumes};

/// The label that volumes have which were given no name.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// A volume to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeRequest {
    /// Its name; `None` makes one up.
    pub name: Option<String>,
    /// What keeps its files; empty is `local`.
    pub driver: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What the driver is told.
    pub options: BTreeMap<String, String>,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What the driver was told.
    pub options: BTreeMap<String, String>,
    /// Where its files are on this host.
    pub mountpoint: PathBuf,
    /// Ids of the containers that have it, running or not.
    pub users: Vec<String>,
}

impl Volume {
    /// What keeps its files.
    pub fn driver(&self) -> &'static str {
        DRIVER
    }

    /// It was made without being given a name.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS_LABEL)
    }
}

impl Containers {
    /// Makes a volume. One of this name that is there already is what was asked for.
    pub fn create_volume(&self, request: &VolumeRequest) -> Result<Volume, VolumeError> {
        let named = request.name.as_deref().filter(|name| !name.is_empty());
        let name = match named {
            Some(name) => check_name(name)?.to_owned(),
            None => random_id().map_err(VolumeError::Random)?,
        };
        let mut labels = request.labels.clone();
        if named.is_none() {
            labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
        }
        self.ensure_volume(&name, &VolumeRequest { labels, ..request.clone() }, None)?;
        let record = Volumes::new(self.store()).record(&name)?.unwrap_or_default();
        Ok(self.volume(name, record)?)
    }

    /// Makes a volume for a container, which it goes with if it says so.
    pub(crate) fn ensure_volume(
        &self,
        name: &str,
        request: &VolumeRequest,
        made_for: Option<&str>,
    ) -> Result<(), VolumeError> {
        if !request.driver.is_empty() && request.driver != DRIVER {
            return Err(VolumeError::Driver(request.driver.clone()));
        }
        let options = Backing::of(&request.options)
            .map_err(|source| VolumeError::Options { name: name.into(), source })?;
        if let Backing::Mount(_) = options
            && self.images.user_namespace().is_some()
        {
            return Err(VolumeError::NeedsRoot(name.into()));
        }
        let record = VolumeRecord {
            created: (self.clock)().to_string(),
            anonymous: request.labels.contains_key(ANONYMOUS_LABEL),
            made_for: made_for.map(String::from),
            labels: request.labels.clone(),
            options: request.options.clone(),
        };
        if Volumes::new(self.store()).ensure(name, &record)? {
            self.tell_volume(name, "create", &[("driver", DRIVER)]);
        }
        Ok(())
    }

    /// All volumes, in the order of their names.
    pub fn volumes(&self) -> Result<Vec<Volume>, DatabaseError> {
        let listed = Volumes::new(self.store()).list()?;
        let mut volumes: Vec<Volume> =
            listed.into_iter().map(|(name, record)| self.volume(name, record)).collect::<Result<_, _>>()?;
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// The volume of this name.
    pub fn find_volume(&self, name: &str) -> Result<Volume, FindVolumeError> {
        match Volumes::new(self.store()).record(name)? {
            Some(record) => Ok(self.volume(name.into(), record)?),
            None => Err(FindVolumeError::NotFound(name.into())),
        }
    }

    /// Removes a volume that no container has. With `force` one that is not there is success.
    pub fn remove_volume(&self, name: &str, force: bool) -> Result<(), RemoveVolumesError> {
        match self.find_volume(name) {
            Err(FindVolumeError::NotFound(_)) if force => return Ok(()),
            found => drop(found?),
        }
        let removed = Volumes::new(self.store()).remove(name).map_err(|error| match error {
            RemoveVolumeError::Record(RemoveRecordError::InUse { holders, .. }) => {
                RemoveVolumesError::InUse {
                    name: name.into(),
                    users: ids(&holders.0).collect::<Vec<_>>().join(", "),
                }
            }
            error => RemoveVolumesError::Remove(error.into()),
        })?;
        if removed {
            self.tell_volume(name, "destroy", &[("driver", DRIVER)]);
        }
        Ok(())
    }

    fn volume(&self, name: String, record: VolumeRecord) -> Result<Volume, DatabaseError> {
        let target = Ref::Record { kind: KIND.to_owned(), key: name.clone() };
        let users = ids(&self.store().holders(&target)?.0).map(String::from).collect();
        let mut labels = record.labels;
        if record.anonymous {
            labels.entry(ANONYMOUS_LABEL.to_owned()).or_default();
        }
        let mountpoint = self.volume_path(&name);
        Ok(Volume { name, created: record.created, labels, options: record.options, mountpoint, users })
    }

    /// Tells of something that happened to a volume just now.
    pub(crate) fn tell_volume(&self, name: &str, action: &str, more: &[(&str, &str)]) {
        let time_ns = i64::try_from((self.clock)().as_nanosecond()).unwrap_or(i64::MAX);
        self.tell_volume_at(name, action, more, time_ns);
    }

    pub(crate) fn tell_volume_at(&self, name: &str, action: &str, more: &[(&str, &str)], time_ns: i64) {
        let attributes = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (kind, action, id) = (KIND.to_owned(), action.to_owned(), name.to_owned());
        // Nothing but the telling is lost if it cannot be written.
        let _ = self.store().events().append(&[Event { kind, action, id, attributes, time_ns }]);
    }
}

fn ids(holders: &[Holder]) -> impl Iterator<Item = &str> {
    holders.iter().filter(|holder| holder.kind == CONTAINER).map(|holder| holder.key.as_str())
}

/// A name that a volume can have.
fn check_name(name: &str) -> Result<&str, VolumeError> {
    match name.len() {
        1 => Err(VolumeError::ShortName),
        _ => volume_name(name).map_err(|error| VolumeError::Name { name: name.into(), source: error }),
    }
}

/// The volumes of containers that are mounted while one of them runs.
impl Containers {
    /// Mounts the volumes of a container that have to be, and tells of all. The lock that comes back keeps others from
    /// unmounting them before the container is seen to run.
    pub(crate) fn mount_volumes(
        &self,
        container: &crate::Container,
    ) -> Result<Vec<std::fs::File>, VolumeError> {
        let volumes = Volumes::new(self.store());
        let mut held = Vec::new();
        for (name, _) in container.record.volumes() {
            if let Backing::Mount(_) = volumes.backing(name)? {
                held.push(volumes.hold(name)?);
            }
            volumes.mount(name)?;
        }
        Ok(held)
    }

    /// Lets go of the mounted volumes of a container that has ended and that no other container uses.
    pub(crate) fn release_volumes(&self, container: &crate::Container) -> Result<(), DiskError> {
        let volumes = Volumes::new(self.store());
        for (name, _) in container.record.volumes() {
            // A volume that cannot be looked up stays mounted until somebody can.
            if let Ok(Backing::Mount(_)) = volumes.backing(name)
                && !self.is_used_beside(name, &container.id)
            {
                volumes.unmount_unheld(name)?;
            }
        }
        Ok(())
    }

    /// The same for volumes whose containers' shims were killed, or could not unmount them.
    pub(crate) fn release_forgotten_volumes(&self) -> Result<(), DiskError> {
        let volumes = Volumes::new(self.store());
        for (name, record) in volumes.list().unwrap_or_default() {
            if let Ok(Backing::Mount(_)) = Backing::of(&record.options)
                && !self.is_used_beside(&name, "")
            {
                volumes.unmount_unheld(&name)?;
            }
        }
        Ok(())
    }

    fn is_used_beside(&self, name: &str, id: &str) -> bool {
        let target = Ref::Record { kind: KIND.to_owned(), key: name.to_owned() };
        let Ok(holders) = self.store().holders(&target) else { return true };
        let alive = |other: &str| dhow_runtime::is_alive(&self.run_dir(other)).unwrap_or(true);
        ids(&holders.0).any(|other| other != id && alive(other))
    }

    /// Tells that a container that was started has its volumes, or has them no more.
    pub(crate) fn tell_volumes(&self, container: &crate::Container, action: &str, time: &str) {
        let Ok(time) = time.parse::<jiff::Timestamp>() else { return };
        let time_ns = i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX);
        for mount in &container.record.mounts {
            let crate::MountKind::Volume { name, .. } = &mount.kind else { continue };
            let write = if mount.readonly { "false" } else { "true" };
            let more = [
                ("driver", DRIVER),
                ("container", container.id.as_str()),
                ("destination", mount.target.as_str()),
                ("read/write", write),
                ("propagation", ""),
            ];
            let shown = if action == "mount" { &more[..] } else { &more[..2] };
            self.tell_volume_at(name, action, shown, time_ns);
        }
    }
}

impl Volumes<'_> {
    fn hold(&self, name: &str) -> Result<std::fs::File, DiskError> {
        let path = self.dir(name).join("lock");
        let file = std::fs::File::create(&path).map_err(crate::error::disk("create", &path))?;
        file.lock_shared().map_err(crate::error::disk("lock", &path))?;
        Ok(file)
    }

    /// Unmounts a volume unless a container that uses it is being started.
    fn unmount_unheld(&self, name: &str) -> Result<(), DiskError> {
        let path = self.dir(name).join("lock");
        let Ok(file) = std::fs::File::open(&path) else { return Ok(()) };
        match file.try_lock() {
            Ok(()) => self.unmount(name),
            Err(_) => Ok(()),
        }
    }
}
