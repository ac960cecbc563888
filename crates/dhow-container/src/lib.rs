//! Records and life cycle of containers and volumes.
//!
//! [`Containers`] is the door. What it knows is in the store and on disk; how a container is doing is read from
//! there each time, so any number of processes may work on the same containers and any of them may be killed.
#![forbid(unsafe_code)]

mod archive;
mod boot;
mod changes;
mod commit;
mod containers;
mod copy;
mod create;
mod create_mounts;
mod error;
mod events;
mod exec;
mod export;
mod files;
mod freeze;
mod health;
mod limits;
mod local_driver;
mod log_config;
mod logs;
mod mount;
mod mount_flag;
mod name;
mod network;
mod networks;
mod rare;
mod record;
mod remove;
mod request;
mod share;
mod shared;
mod signal;
mod start;
mod stats;
mod top;
mod update;
mod usage;
mod view;
mod volume;
mod volumes;

pub use archive::{ArchiveIn, PathStat};
pub use changes::{Change, ChangeKind};
pub use commit::CommitRequest;
pub use containers::{Containers, running_inits};
pub use copy::CopyOptions;
pub use create::Created;
pub use error::{
    ArchiveError, CommitError, CreateError, DiskError, FindError, FindVolumeError, LogsError, RemoveError,
    RemoveVolumesError, RenameError, SignalError, StartError, VolumeError,
};
pub use exec::ExecError;
pub use export::ExportError;
pub use health::HealthError;
pub use local_driver::VolumeOptionError;
pub use log_config::{JsonFileConfig, LogConfig};
pub use logs::{LogLine, LogsOptions};
pub use mount::{
    BindOptions, BindPropagation, BindRecursion, MountError, MountRequest, MountSource, Relabel, VolumeMount,
    parse_tmpfs, parse_volume,
};
pub use mount_flag::parse_mount;
pub use name::{InvalidName, check_name, short_id};
pub use network::{HostsFile, NetworkPlan, NetworkRequest, default_network, setup as set_up_network};
pub use networks::{
    AddressPool, BridgeOptions, CreateNetworkError, CreateNetworkRequest, DisconnectNetworkError,
    EndpointConfig, EndpointError, EndpointOptionError, FindNetworkError, JoinNetworkError, Member,
    NetworkInfo, NetworkOptionError, NetworkRecord, PoolRequest, RemoveNetworkError, endpoint_id,
};
pub use rare::{DeviceError, DeviceRequest, DeviceRule, IpcShare, RareConfig};
pub use record::{Container, ContainerRecord, Mount, MountKind, State};
pub use remove::RemoveOptions;
pub use request::{
    BlkioKind, BlkioLimit, CreateRequest, DnsOptions, HostConfig, Limits, LimitsError, Link, NetworkMode,
    Ulimit, UlimitError,
};
pub use signal::{AttachError, RestartError, StopOptions};
pub use start::{exited, told};
pub use stats::Sample;
pub use top::{Processes, TopError};
pub use update::{UpdateError, UpdateRequest};
pub use usage::VolumeUsage;
pub use volumes::{ANONYMOUS_LABEL, Volume, VolumeRequest};
