//! What the helper processes are asked to do. Serialized, because it crosses an `execve`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{HealthCheck, InMemory, RestartPolicy};

/// How the root file system of a container comes to be. Mounted in the container's own mount namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootMount {
    /// An overlay of read-only layers and one writable one.
    Overlay {
        /// The read-only layers, topmost first.
        lowers: Vec<PathBuf>,
        /// The writable layer.
        upper: PathBuf,
        /// The overlay's scratch directory, empty and on the file system of `upper`.
        work: PathBuf,
    },
    /// A plain directory.
    Directory(PathBuf),
}

/// What happens to the standard input of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StdinMode {
    /// Nothing to read (`/dev/null`).
    Closed,
    /// Open until the first attached client that sent input ends it or leaves (`docker run -i`).
    Once,
    /// Open for as long as the container lives.
    Open,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// A log in Docker's json-file format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// The file, appended to.
    pub path: PathBuf,
    /// Rotate before the file grows beyond this. `None` means no limit.
    pub bytes_max: Option<u64>,
    /// How many files to keep, the current one included. Read only with `bytes_max`.
    pub files_max: u32,
    /// What is said with each line besides.
    pub attributes: BTreeMap<String, String>,
}

/// Who makes the container out of the bundle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeChoice {
    /// dhow's own launcher.
    #[default]
    Native,
    /// An OCI runtime binary, for example `runc`.
    Oci {
        /// The binary.
        program: PathBuf,
    },
}

/// One container for the shim to run. The bundle holds `config.json` already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimRequest {
    /// The container's id.
    pub id: String,
    /// The [`Bundle`](crate::Bundle).
    pub bundle: PathBuf,
    /// The [`RunDir`](crate::RunDir).
    pub run_dir: PathBuf,
    /// The root file system.
    pub root: RootMount,
    /// Who makes the container.
    pub runtime: RuntimeChoice,
    /// What happens to standard input.
    pub stdin: StdinMode,
    /// Size of the terminal to begin with, if the container has one.
    pub window: Option<WindowSize>,
    /// Where output is logged.
    pub log: Option<LogFile>,
    /// Handed to [`ShimHooks::network`](crate::shim::ShimHooks) to set up the network. `None`: nothing to set up.
    pub network: Option<serde_json::Value>,
    /// When the container is started again.
    pub restart: RestartPolicy,
    /// How its health is looked after.
    pub health: Option<HealthCheck>,
    /// Handed to [`ShimHooks::told`](crate::shim::ShimHooks) when something happens, and to
    /// [`ShimHooks::exited`](crate::shim::ShimHooks) when all is over.
    pub on_exit: Option<serde_json::Value>,
}

/// A process to run to its end on behalf of the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnceRequest {
    /// A name no other running container has; it names the cgroup.
    pub id: String,
    /// The [`Bundle`](crate::Bundle) with `config.json`.
    pub bundle: PathBuf,
    /// The root file system.
    pub root: RootMount,
    /// Handed to [`ShimHooks::network`](crate::shim::ShimHooks) to set up the network.
    pub network: Option<serde_json::Value>,
    /// What is written to no disk.
    pub memory: InMemory,
    /// Whether the caller talks to the program; without it, it reads nothing and its output is captured.
    pub interactive: Option<Interactive>,
}

/// How the caller talks to a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interactive {
    /// Through a terminal of the container, of this size if it is known; else through the caller's own files.
    pub terminal: bool,
    /// Size of the terminal to begin with.
    pub window: Option<WindowSize>,
}

/// One more process inside a running container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Variables set on top of those of the container.
    pub env: Vec<String>,
    /// `user[:group]`, by name or number. `None` means the container's.
    pub user: Option<String>,
    /// Working directory. `None` means the container's.
    pub cwd: Option<String>,
    /// With all capabilities and without seccomp.
    pub privileged: bool,
    /// With a terminal, of this size if it is known.
    pub terminal: bool,
    /// Size of the terminal to begin with.
    pub window: Option<WindowSize>,
    /// Do not wait for the process and let it outlive the caller.
    pub detach: bool,
}
