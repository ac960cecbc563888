//! Operations on containers.

use std::path::PathBuf;

use dhow_image::ReadImageError;
pub use dhow_oci::HealthConfig;
use dhow_oci::{Digest, ImageConfig, Platform, Reference};

pub use dhow_build::ChangeError;
pub use dhow_container::{
    ANONYMOUS_LABEL, AttachError, BindOptions, BindPropagation, BindRecursion, BlkioKind, BlkioLimit,
    CommitError, CommitRequest, Container, ContainerRecord, Containers, CreateError, CreateRequest, Created,
    DeviceError, DeviceRequest, DeviceRule, DiskError, DnsOptions, ExecError, ExportError, FindError,
    FindVolumeError, HealthError, HostConfig, InvalidName, IpcShare, JsonFileConfig, Limits, LimitsError,
    LogConfig, LogLine, LogsError, LogsOptions, Mount, MountError, MountKind, MountRequest, MountSource,
    NetworkMode, RareConfig, Relabel, RemoveError, RemoveOptions, RemoveVolumesError, RenameError,
    RestartError, SignalError, StartError, State, StopOptions, Ulimit, UlimitError, Volume, VolumeError,
    VolumeMount, VolumeOptionError, VolumeRequest, VolumeUsage, parse_mount, parse_tmpfs, parse_volume,
    short_id,
};
pub use dhow_container::{ArchiveError, ArchiveIn, Change, ChangeKind, CopyOptions, PathStat};
pub use dhow_container::{Processes, Sample, TopError, UpdateError, UpdateRequest};
pub use dhow_image::FindError as FindImageError;
pub use dhow_net::{
    Attached as NetworkAttached, BoundPort, ContainerPort, HostPort, MacAddress, PortError, PortMapping,
    Protocol,
};
pub use dhow_runtime::attach::{DETACH_KEYS, DetachKeysError, parse_detach_keys};
pub use dhow_runtime::{
    AttachEnd, AttachStreams, Attached, ExecEnd, ExecRequest, ExecStreams, ExitStatus, Health, HealthStatus,
    OutputStream, ProbeResult, RestartPolicy, RestartPolicyError, RunDir, SignalProxy,
    StartError as RuntimeError, WindowSize,
};

use crate::Engine;

/// A container with what only this host knows about it.
#[derive(Clone, Debug)]
pub struct ContainerDetails {
    /// The container.
    pub container: Container,
    /// What its image runs on.
    pub platform: Platform,
    /// Its folder.
    pub bundle: PathBuf,
    /// Its log, if one is kept.
    pub log: Option<PathBuf>,
    /// Where its mounts come from on this host, in their order; a tmpfs from nowhere.
    pub mount_sources: Vec<Option<PathBuf>>,
}

/// Why a container could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectContainerError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Its image is damaged.
    #[error(transparent)]
    Image(#[from] ReadImageError),
}

/// An image to be made of a container.
#[derive(Clone, Debug, Default)]
pub struct CommitContainer {
    /// The image's name.
    pub reference: Option<Reference>,
    /// Who makes it.
    pub author: String,
    /// What is said about the change.
    pub message: String,
    /// Let the container go on while it is copied.
    pub no_pause: bool,
    /// Dockerfile instructions that change how the image is run.
    pub changes: Vec<String>,
}

/// Why a container did not become an image.
#[derive(Debug, thiserror::Error)]
pub enum CommitContainerError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// A change is not one.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The image was not made.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Engine {
    /// Makes an image of a container's changes, and returns its ID.
    pub fn commit_container(
        &self,
        text: &str,
        commit: CommitContainer,
    ) -> Result<Digest, CommitContainerError> {
        let containers = self.containers();
        let config = containers.find(text)?.record.config;
        let mut image = ImageConfig { config, ..ImageConfig::default() };
        commit.changes.iter().try_for_each(|text| dhow_build::change(&mut image, text))?;
        let CommitContainer { reference, author, message, no_pause, .. } = commit;
        let request = CommitRequest { reference, author, message, no_pause, config: Some(image.config) };
        Ok(containers.commit(text, &request)?)
    }

    /// The containers: making, starting, stopping, removing them, and all else a command does with one.
    pub fn containers(&self) -> Containers {
        Containers::new(self.images.clone(), &self.settings.run, self.settings.clock)
    }

    /// The processes of a running container, as the host's `ps` shows them.
    pub fn top(&self, text: &str, args: &[String]) -> Result<Processes, TopError> {
        self.containers().top(text, args, &self.settings.helper_folders)
    }

    /// Everything there is to know about a container, found by id, name or the beginning of an id.
    pub fn inspect_container(&self, text: &str) -> Result<ContainerDetails, InspectContainerError> {
        let containers = self.containers();
        let container = containers.find(text)?;
        let platform = self.images.config(&container.record.image)?.platform();
        let source = |mount: &Mount| match &mount.kind {
            MountKind::Bind { source, .. } => Some(source.clone()),
            MountKind::Volume { name, .. } => Some(containers.volume_path(name)),
            MountKind::Image { name, .. } => Some(name.into()),
            MountKind::Tmpfs { .. } => None,
        };
        Ok(ContainerDetails {
            platform,
            bundle: containers.bundle(&container.id).dir().to_path_buf(),
            log: (container.record.host.log != LogConfig::None).then(|| containers.log_path(&container.id)),
            mount_sources: container.record.mounts.iter().map(source).collect(),
            container,
        })
    }
}
