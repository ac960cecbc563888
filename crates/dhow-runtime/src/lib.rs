//! One container process from bundle to exit code: spec, launch, init, shim, stdio, log.
//!
//! A container is a [`Bundle`] on disk (OCI `config.json`, log, exit status) and, while it lives, one
//! *shim*: this very program, executed again as a small single-threaded process that outlives the command
//! that started it. The shim clones the container's init, owns its stdio and log, looks after its health, records
//! its exit, and starts it again if it is to ([`RestartPolicy`]).
//! Nobody else keeps state: whether a container runs is read from a lock the shim holds (see [`state`]).
//!
//! Three doors lead in:
//! - [`spawn_shim`] (or [`spawn_shim_attached`]) starts a container that may outlive the caller, [`Attached`] talks to it;
//! - [`exec`] runs one more process inside a running container;
//! - [`launch_once`] runs a process to its end on behalf of the caller (a build step).
//!
//! All three execute the calling binary again, so its `main` must begin with
//! [`shim::main_if_requested`].
#![forbid(unsafe_code)]

pub mod attach;
mod bundle;
mod client;
mod container;
mod exec;
mod health;
mod launch;
mod memory;
mod once;
mod request;
mod restart;
pub mod shim;
mod spawn;
mod spec;
mod status;

pub use attach::{AttachEnd, AttachStreams, Attached, SignalProxy};
pub use bundle::{Bundle, RunDir};
pub use client::{
    StopMeaning, apply_limits, health, init_of, is_alive, note_stop, restart_count, set_restart_policy,
    signal, spawn_shim, spawn_shim_attached, state, update_network, wait, was_stopped,
};
pub use container::{
    BindHow, ContainerSpec, DeviceAccess, DeviceNode, IdMap, IdRange, IoKind, IoLimit, MountSpec,
    NamespaceChoice, Namespaces, Propagation, Resources, Rlimit, SeccompChoice,
};
pub use exec::{ExecEnd, ExecStreams, exec};
pub use health::{Health, HealthCheck, HealthStatus, ProbeResult};
pub use memory::{InMemory, MemoryFile, MemoryVariable};
pub use once::{OutputStream, launch_interactive, launch_once};
pub use request::{
    ExecRequest, Interactive, LogFile, OnceRequest, RootMount, RuntimeChoice, ShimRequest, StdinMode,
    WindowSize,
};
pub use restart::{RestartPolicy, RestartPolicyError};
pub use spec::SpecError;
pub use status::{ExitStatus, RuntimeState, StartError, Started};

/// The user and group that `user[:group]` means in the file system `root`, by number.
pub fn identity(root: &dhow_sys::beneath::Root, user: &str) -> Result<(u32, u32), StartError> {
    launch::resolve(root, user, &[]).map(|identity| (identity.uid, identity.gid))
}
