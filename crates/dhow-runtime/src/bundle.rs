//! Where the files of a container are.

use std::path::{Path, PathBuf};

/// The folder of a container that survives its processes: `<root>/containers/<id>/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    dir: PathBuf,
}

impl Bundle {
    /// The bundle in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Bundle { dir: dir.into() }
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The OCI runtime configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.join("config.json")
    }

    /// The empty directory the root file system is mounted on (in the container's own mount namespace).
    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// The [`Started`](crate::Started) of the last run.
    pub fn started(&self) -> PathBuf {
        self.dir.join("started.json")
    }

    /// The [`ExitStatus`](crate::ExitStatus) of the last run.
    pub fn exit(&self) -> PathBuf {
        self.dir.join("exit.json")
    }

    /// How often the shim has started the container again, a number.
    pub fn restarts(&self) -> PathBuf {
        self.dir.join("restarts.json")
    }

    /// The [`RestartPolicy`](crate::RestartPolicy) that replaced the one the shim was started with.
    pub fn restart_policy(&self) -> PathBuf {
        self.dir.join("restart-policy.json")
    }

    /// There if a user stopped the container since it was started.
    pub fn stopped(&self) -> PathBuf {
        self.dir.join("stopped")
    }

    /// There if the container is not to be started again whatever its policy says.
    pub fn no_restart(&self) -> PathBuf {
        self.dir.join("no-restart")
    }

    /// The [`Health`](crate::Health) of the last run.
    pub fn health(&self) -> PathBuf {
        self.dir.join("health.json")
    }
}

/// The folder of a container that is only meaningful while it runs: `<run>/<id>/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    dir: PathBuf,
}

impl RunDir {
    /// The run-time folder `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        RunDir { dir: dir.into() }
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Locked by the shim for as long as it lives. The file stays: removing it would give two shims two locks.
    pub fn lock(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// Process id and start time of the container's init, as JSON.
    pub fn init(&self) -> PathBuf {
        self.dir.join("init.json")
    }

    /// The [`ExitStatus`](crate::ExitStatus) of a container that is about to be started again.
    pub fn restarting(&self) -> PathBuf {
        self.dir.join("restarting.json")
    }

    /// Where the shim accepts attached clients.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("attach.sock")
    }
}
