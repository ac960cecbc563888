//! Why something could not be done with a container.

use std::io;
use std::path::{Path, PathBuf};

use dhow_image::{EnsureError, FindError as FindImageError, FindToRunError, ReadImageError};
use dhow_snapshot::SnapshotError;
use dhow_store::{DatabaseError, LeaseError};

use crate::local_driver::VolumeOptionError;
use crate::mount::MountError;
use crate::name::InvalidName;
use crate::networks::{FindNetworkError, JoinNetworkError};
use crate::request::LimitsError;

/// Why a text does not lead to a container.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// No container goes by it.
    #[error("No such container: {0}")]
    NotFound(String),
    /// Several ids begin so.
    #[error("Multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
    /// Its record cannot be read.
    #[error("the record of container {id} is damaged")]
    Damaged {
        /// The container.
        id: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The disk failed us.
    #[error(transparent)]
    Io(#[from] DiskError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// The disk failed us.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct DiskError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Turns an I/O error into one that says what was done to what.
pub(crate) fn disk(action: &'static str, path: &Path) -> impl Fn(io::Error) -> DiskError {
    let path = path.to_path_buf();
    move |source| DiskError { action, path: path.clone(), source }
}

/// Why no container was made. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The image is not there, or the text does not name one.
    #[error(transparent)]
    Image(#[from] FindImageError),
    /// The image could not be made ready to run.
    #[error(transparent)]
    Ensure(Box<EnsureError>),
    /// The image is damaged.
    #[error(transparent)]
    ReadImage(#[from] ReadImageError),
    /// The name is not one.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Another container has the name.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". \
         You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameTaken {
        /// The name.
        name: String,
        /// The id of the container that has it.
        holder: String,
    },
    /// A mount does not make sense.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// Two mounts at one place.
    #[error("Duplicate mount point: {0}")]
    DuplicateMount(String),
    /// The source of a bind mount is not there.
    #[error("invalid mount config for type \"bind\": bind source path does not exist: {}", .0.display())]
    BindSource(PathBuf),
    /// Labels of files cannot be changed.
    #[error(
        "cannot relabel {}: this dhow sets no SELinux labels; leave out z and Z and use chcon, or --security-opt \
         label=disable where the policy allows it", .0.display()
    )]
    Relabel(PathBuf),
    /// Mounts made later could not show on the other side.
    #[error("path {} is mounted on {mounted} but it is not a {word} mount", path.display())]
    Propagation {
        /// The source.
        path: PathBuf,
        /// The mount it is on.
        mounted: String,
        /// What it would have to be.
        word: &'static str,
    },
    /// A container whose volumes were wanted.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The limits do not make sense.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// A device that is not there.
    #[error("error gathering device information while adding custom device \"{}\"", path.display())]
    Device {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No device, and none below.
    #[error("error gathering device information while adding custom device \"{}\": not a device node", .0.display())]
    NoDevice(PathBuf),
    /// A limit for something else than a block device.
    #[error("{} is not a block device", .0.display())]
    NoBlockDevice(PathBuf),
    /// A place for a device that is none.
    #[error("a device cannot be at {} of a container, only below /dev", .0.display())]
    DeviceTarget(PathBuf),
    /// Out of range.
    #[error("Invalid value {0}, range for oom score adj is [-1000, 1000]")]
    OomScore(i64),
    /// Not the path of a control group.
    #[error("invalid cgroup parent: {0}")]
    CgroupParent(String),
    /// A security module that is not at work.
    #[error("AppArmor is not enabled on this host, so the profile {0} cannot be used")]
    NoAppArmor(String),
    /// Options that exclude each other.
    #[error("conflicting options: {0}")]
    Conflict(&'static str),
    /// It cannot be both removed and started again when it ends.
    #[error("can't create 'AutoRemove' container with restart policy")]
    RestartAndRemove,
    /// A health check that makes no sense.
    #[error(transparent)]
    Health(#[from] crate::health::HealthError),
    /// It cannot be on a network.
    #[error(transparent)]
    Network(#[from] JoinNetworkError),
    /// A container whose names were wanted.
    #[error("could not get container for {0}: No such container: {0}")]
    LinkTarget(String),
    /// Not a signal.
    #[error("invalid signal: {0}")]
    Signal(String),
    /// The runtime cannot make it so.
    #[error(transparent)]
    Spec(#[from] dhow_runtime::SpecError),
    /// A volume could not be made.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The snapshot could not be made.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The image could not be protected from gc.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The record was refused.
    #[error(transparent)]
    Record(dhow_store::PutRecordError),
    /// The system has no random numbers.
    #[error("cannot make an id: {0}")]
    Random(getrandom::Error),
    /// The disk failed us.
    #[error(transparent)]
    Io(#[from] DiskError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<FindToRunError> for CreateError {
    fn from(error: FindToRunError) -> Self {
        match error {
            FindToRunError::Find(error) => CreateError::Image(error),
            FindToRunError::Ensure(error) => CreateError::Ensure(Box::new(error)),
        }
    }
}

impl From<getrandom::Error> for CreateError {
    fn from(error: getrandom::Error) -> Self {
        CreateError::Random(error)
    }
}

/// Why a volume could not be made.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The image's files could not be copied into it.
    #[error("cannot copy {target} of the image into volume {name}")]
    Copy {
        /// The volume.
        name: String,
        /// The folder of the image.
        target: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No driver of this name.
    #[error("error looking up volume plugin {0}: plugin \"{0}\" not found")]
    Driver(String),
    /// The driver does not understand what it is told.
    #[error("create {name}")]
    Options {
        /// The volume.
        name: String,
        /// What it does not understand.
        source: VolumeOptionError,
    },
    /// Mounting for all containers to see is for root.
    #[error("volume {0} is a file system to be mounted, and that needs root: only type=none,o=bind does not")]
    NeedsRoot(String),
    /// One letter is no name.
    #[error("volume name is too short, names should be at least two alphanumeric characters")]
    ShortName,
    /// A name that no volume can have.
    #[error("create {name}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        source: MountError,
    },
    /// What is behind it cannot be mounted.
    #[error(
        "error while mounting volume '{}': failed to mount local volume: mount {device}:{}",
        data.display(), data.display()
    )]
    Mount {
        /// What is mounted.
        device: String,
        /// Where.
        data: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The system has no random numbers.
    #[error("cannot make a name: {0}")]
    Random(getrandom::Error),
    /// The record was refused.
    #[error(transparent)]
    Record(#[from] dhow_store::PutRecordError),
    /// It cannot be looked at.
    #[error(transparent)]
    Find(#[from] FindVolumeError),
    /// The disk failed us.
    #[error(transparent)]
    Io(#[from] DiskError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Why a volume is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum FindVolumeError {
    /// There is none of this name.
    #[error("get {0}: no such volume")]
    NotFound(String),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

/// Why a volume was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveVolumesError {
    /// There is no such volume.
    #[error(transparent)]
    Find(#[from] FindVolumeError),
    /// Containers have it.
    #[error("remove {name}: volume is in use - [{users}]")]
    InUse {
        /// The volume.
        name: String,
        /// The containers.
        users: String,
    },
    /// The store or the disk failed.
    #[error(transparent)]
    Remove(RemoveError),
}

/// Why a container was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Its snapshot is gone.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// It was told to start and did not.
    #[error(transparent)]
    Runtime(#[from] dhow_runtime::StartError),
    /// It is being held.
    #[error("cannot start a paused container, try unpause instead")]
    Paused,
    /// A volume cannot be mounted.
    #[error(transparent)]
    Volume(Box<VolumeError>),
    /// A network it was made for was removed.
    #[error("failed to set up container networking: network {0} not found")]
    NoNetwork(String),
    /// A network it was made for cannot be looked up.
    #[error(transparent)]
    Network(#[from] FindNetworkError),
    /// The container whose network it shares does not run.
    #[error("cannot join network of a non running container: {0}")]
    PeerStopped(String),
    /// A container it knows by name does not run, or is not on the default network.
    #[error("Cannot link to a non running container: /{target} AS /{name}/{alias}")]
    LinkToStopped {
        /// The other container.
        target: String,
        /// This one.
        name: String,
        /// What it calls the other.
        alias: String,
    },
    /// Its configuration could not be written.
    #[error(transparent)]
    WriteSpec(Box<CreateError>),
    /// Whose namespace it shares does not run.
    #[error("cannot join {what} of a non running container: {id}")]
    DonorNotRunning {
        /// What was to be shared.
        what: &'static str,
        /// The other container.
        id: String,
    },
    /// Whose IPC it shares does not want that.
    #[error(
        "can't join IPC of container {0}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
    )]
    NotShareable(String),
    /// The disk failed us.
    #[error(transparent)]
    Io(#[from] DiskError),
}

impl From<VolumeError> for StartError {
    fn from(error: VolumeError) -> Self {
        StartError::Volume(Box::new(error))
    }
}

impl StartError {
    /// What `docker run` exits with: 127 if the program is not there, 126 if it cannot be executed, else 125.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::Runtime(error) => u8::try_from(error.exit_code()).unwrap_or(125),
            _ => 125,
        }
    }
}

/// Why a running container could not be told something.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It does not run.
    #[error("cannot kill container: {name}: container {id} is not running")]
    NotRunning {
        /// As the user wrote it.
        name: String,
        /// Its id.
        id: String,
    },
    /// It is between two runs.
    #[error("Container {0} is restarting, wait until the container is running")]
    Restarting(String),
    /// It does not run, so it cannot be held either.
    #[error("Container {0} is not running")]
    Idle(String),
    /// It is held already.
    #[error("Container {0} is already paused")]
    AlreadyPaused(String),
    /// It is not held.
    #[error("Container {0} is not paused")]
    NotPaused(String),
    /// Holding processes needs the control group.
    #[error("cannot pause container {0}: the freezer control group is not available")]
    NoFreezer(String),
    /// Not a signal.
    #[error("Invalid signal: {0}")]
    Invalid(String),
    /// It does not end.
    #[error("container {0} did not end after it was killed")]
    Immortal(String),
    /// The disk failed us.
    #[error(transparent)]
    Io(#[from] DiskError),
}

/// Why files of a container were not copied.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// There is nothing of this name.
    #[error("Could not find the file {path} in container {container}")]
    NotFound {
        /// The container.
        container: String,
        /// The path.
        path: String,
    },
    /// A file where there has to be a directory.
    #[error("not a directory: {0}")]
    NotDirectory(String),
    /// It ended while its files were looked at.
    #[error("container {0} ended meanwhile, try again")]
    Ended(String),
    /// It was started while its files were about to be put together.
    #[error("container {0} was started meanwhile, try again")]
    Started(String),
    /// What is mounted in it cannot be found.
    #[error(transparent)]
    Mount(Box<CreateError>),
    /// Its user is not known.
    #[error("cannot tell the user of the container: {0}")]
    User(String),
    /// The archive cannot be unpacked.
    #[error(transparent)]
    Apply(#[from] dhow_layer::ApplyError),
    /// The archive cannot be written.
    #[error(transparent)]
    Write(#[from] dhow_layer::DiffError),
    /// A copy that docker's rules do not allow.
    #[error("{0}")]
    Rule(String),
    /// Its snapshot is gone.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Its files cannot be looked at together.
    #[error("cannot mount the files of the container")]
    Overlay(#[from] dhow_sys::overlay::OverlayError),
    /// The disk failed us.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The disk failed us.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a container was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It runs, and force was not asked for.
    #[error(
        "cannot remove container \"{name}\": container is {state}: stop the container before removing or force remove"
    )]
    Running {
        /// Its name.
        name: String,
        /// What it does.
        state: &'static str,
    },
    /// It could not be killed.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// Something else refers to it.
    #[error(transparent)]
    Record(#[from] dhow_store::RemoveRecordError),
    /// A volume's record could not be changed.
    #[error(transparent)]
    Volume(#[from] dhow_store::UpdateError<serde_json::Error>),
    /// Its snapshot could not be removed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The disk failed us.
    #[error(transparent)]
    Io(#[from] DiskError),
}

impl RemoveError {
    /// Whether there is nothing to remove.
    pub fn is_not_found(&self) -> bool {
        matches!(self, RemoveError::Find(FindError::NotFound(_)))
    }
}

/// Why a container has no other name now.
#[derive(Debug, thiserror::Error)]
pub enum RenameError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The name is not one.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// It has this name.
    #[error("Renaming a container with the same name as its current name")]
    Same,
    /// Another container has the name.
    #[error(
        "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". \
         You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameTaken {
        /// The name.
        name: String,
        /// The id of the container that has it.
        holder: String,
    },
    /// The store refused.
    #[error(transparent)]
    Store(dhow_store::RenameError),
}

/// Why a container's log cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It has no log.
    #[error("configured logging driver does not support reading")]
    NotKept,
    /// The disk failed us.
    #[error(transparent)]
    Io(#[from] DiskError),
}

/// Why a container did not become an image.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The image it was made of is damaged.
    #[error(transparent)]
    ReadImage(#[from] ReadImageError),
    /// It could not be held meanwhile.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// Its changes could not be copied.
    #[error("cannot copy the changes of the container")]
    Copy(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The copy could not become a layer.
    #[error(transparent)]
    Freeze(#[from] dhow_image::FreezeError),
    /// The image was not recorded.
    #[error(transparent)]
    Save(#[from] dhow_image::SaveImageError),
    /// The snapshot failed.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The layers could not be protected from gc.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The system has no random numbers.
    #[error("cannot make an id: {0}")]
    Random(getrandom::Error),
    /// The disk failed us.
    #[error(transparent)]
    Io(#[from] DiskError),
}
