//! `dhow serve`, and docker's own client in front of it.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::{Rig, Running, skip};

/// docker.io's client; the test's own `docker` is dhow.
const CLIENT: &str = "/usr/bin/docker";

/// A server on a socket. It ends when dropped.
pub(crate) struct Api {
    running: Running,
    pub(crate) socket: PathBuf,
}

impl Api {
    /// `None`, with the reason printed, where docker's client is not installed.
    #[track_caller]
    pub(crate) fn start(rig: &Rig) -> Option<Self> {
        if !Path::new(CLIENT).exists() {
            return skip("docker's client is not installed");
        }
        let socket = rig.path("api.sock");
        let mut running = rig.spawn(&format!("dhow serve --listen unix://{}", socket.display()));
        running.wait_for("listening on ");
        Some(Self { running, socket })
    }

    /// A line for docker's client.
    pub(crate) fn line(&self, line: &str) -> String {
        format!("{CLIENT} --host unix://{} {line}", self.socket.display())
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(self) {
        self.running.signal(Signal::KILL);
        self.running.finish();
    }
}
