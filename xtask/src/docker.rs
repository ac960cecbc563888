//! Debian's dockerd for as long as it is needed, with everything it has in one folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::command;
use crate::registry::TestRegistry;

const START_SECONDS_MAX: u64 = 60;
const STOP_SECONDS_MAX: u64 = 30;
const POLL: Duration = Duration::from_millis(50);
/// docker.io's own client, which speaks to BuildKit by itself; one of another version may want a plugin.
const CLIENT: &str = "/usr/bin/docker";

/// A docker that answers. One that was started here ends when this is dropped.
pub(crate) struct Docker {
    socket: PathBuf,
    daemon: Option<Child>,
}

impl Docker {
    /// The one behind `socket`, or else one that is started with its data in `folder`.
    pub(crate) fn find_or_start(socket: Option<&Path>, folder: &Path) -> anyhow::Result<Self> {
        let docker = match socket {
            Some(socket) => Self { socket: socket.to_owned(), daemon: None },
            None => Self::start(folder)?,
        };
        let version = command::output(docker.command().args(["version", "--format", "{{.Server.Version}}"]))?;
        println!("    docker {}", version.trim());
        Ok(docker)
    }

    fn start(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let socket = folder.join("docker.sock");
        let log = folder.join("log");
        let output = File::create(&log)?;
        let program = command::find("dockerd").context("dockerd is not here: run `cargo xtask setup`")?;
        // No network of its own: what it would do to the host's is not needed for builds.
        let child = Command::new(program)
            .arg(format!("--host=unix://{}", socket.display()))
            .arg(format!("--data-root={}", folder.join("data").display()))
            .arg(format!("--exec-root={}", folder.join("exec").display()))
            .arg(format!("--pidfile={}", folder.join("pid").display()))
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot start dockerd")?;
        let mut docker = Self { socket, daemon: Some(child) };
        docker.wait_until_ready(&log)?;
        Ok(docker)
    }

    fn wait_until_ready(&mut self, log: &Path) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while Instant::now() < end {
            if let Some(status) = self.daemon.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                bail!("dockerd ended at once ({status}): {}", fs::read_to_string(log).unwrap_or_default());
            }
            if command::output(self.command().arg("info")).is_ok() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!("dockerd does not answer: {}", fs::read_to_string(log).unwrap_or_default())
    }

    /// Where it listens.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Its client.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(CLIENT);
        command.env("DOCKER_HOST", self.host()).env("DOCKER_BUILDKIT", "1");
        command
    }

    /// Takes an official image from the test registry.
    pub(crate) fn pull(&self, registry: &TestRegistry, name: &str) -> anyhow::Result<()> {
        let source = format!("{}/library/{name}", registry.address());
        command::output(self.command().args(["pull", "--quiet", &source]))?;
        command::output(self.command().args(["tag", &source, name]))?;
        command::output(self.command().args(["rmi", &source])).map(drop)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let Some(daemon) = &mut self.daemon else { return };
        // It has children and mounts to tidy up, and does so when asked politely.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(daemon),
            rustix::process::Signal::TERM,
        );
        let end = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        while matches!(daemon.try_wait(), Ok(None)) && Instant::now() < end {
            thread::sleep(POLL);
        }
        // If it did not.
        let _ = daemon.kill();
        let _ = daemon.wait();
    }
}
