//! How a container is doing and how it ended.

use serde::{Deserialize, Serialize};

/// How a container's init ended, as kept in `exit.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitStatus {
    /// What the process returned, or 128 + the signal that killed it.
    pub exit_code: i32,
    /// When it ended, RFC 3339 with nanoseconds.
    pub finished_at: String,
    /// The kernel killed a process of the container for want of memory.
    pub oom_killed: bool,
    /// Why the container could not go on, when that was not the program's doing.
    pub error: Option<String>,
}

/// What is known about a container, read from the disk and from the lock of its shim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuntimeState {
    /// Never started.
    Created,
    /// A shim is at work but the program does not run yet.
    Starting,
    /// The program runs.
    Running {
        /// The init process, seen from the host.
        pid: i32,
        /// When it was started, RFC 3339 with nanoseconds.
        started_at: String,
    },
    /// The program ended so, and the shim is about to start it again.
    Restarting(ExitStatus),
    /// The program ended.
    Exited(ExitStatus),
    /// The shim vanished without recording an exit; the container's processes died with it.
    Dead,
}

/// A container that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The init process, seen from the host.
    pub pid: i32,
    /// When it was started, RFC 3339 with nanoseconds.
    pub started_at: String,
}

/// Why a process was not started in a container.
///
/// The text is Docker's, without the story of the layers of Docker it passed through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum StartError {
    /// The program is not there.
    #[error("{0}")]
    NotFound(String),
    /// The program is there and cannot be executed.
    #[error("{0}")]
    NotExecutable(String),
    /// Something else, before the program had its say.
    #[error("{0}")]
    Setup(String),
}

impl StartError {
    /// What `docker run` exits with.
    pub fn exit_code(&self) -> i32 {
        match self {
            StartError::NotFound(_) => 127,
            StartError::NotExecutable(_) => 126,
            StartError::Setup(_) => 125,
        }
    }
}
