//! Who takes part, each with everything it has in a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::command;
use crate::docker::Docker;
use crate::paths;
use crate::registry::{Settings, TestRegistry};

/// Everybody, and the registry they share.
pub(crate) struct Rivals {
    pub(crate) dhow: Tool,
    pub(crate) docker: Tool,
    pub(crate) podman: Tool,
    pub(crate) buildah: Tool,
    pub(crate) registry: TestRegistry,
    _daemon: Docker,
}

/// A program, and what it needs to be told to keep to its folder.
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    version: String,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// What it keeps.
    root: PathBuf,
}

impl Tool {
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (*name, value.as_str())));
        command
    }

    /// Takes everything from one that has no daemon.
    pub(crate) fn forget(&self) -> anyhow::Result<()> {
        match fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", self.root.display()))
            }
            _ => Ok(()),
        }
    }

    fn with_version(mut self, arguments: &[&str]) -> anyhow::Result<Self> {
        let said = command::output(&mut self.command(arguments))?;
        self.version = said.lines().next().unwrap_or_default().trim().to_owned();
        Ok(self)
    }
}

impl Rivals {
    pub(crate) fn start(folder: &Path) -> anyhow::Result<Self> {
        let registry = TestRegistry::start(&Settings::default())?;
        let daemon = Docker::find_or_start(None, &folder.join("docker"))?;
        let config = folder.join("dhow.toml");
        fs::write(&config, registry.dhow_config())?;
        let text = |path: PathBuf| path.display().to_string();
        let (root, run) = (folder.join("dhow-root"), folder.join("dhow-run"));
        let dhow = Tool {
            name: "dhow",
            version: String::new(),
            program: paths::target().join("release/dhow"),
            arguments: Vec::new(),
            environment: vec![
                ("DHOW_ROOT", text(root.clone())),
                ("DHOW_RUN", text(run)),
                ("DHOW_CONFIG", text(config)),
                // One of the machine's owner would say who they are.
                ("DOCKER_CONFIG", text(folder.join("docker-config"))),
            ],
            root,
        };
        let docker = Tool {
            name: "docker",
            version: String::new(),
            program: "/usr/bin/docker".into(),
            arguments: Vec::new(),
            environment: vec![
                ("DOCKER_HOST", daemon.host()),
                ("DOCKER_BUILDKIT", "1".to_owned()),
                ("DOCKER_CONFIG", text(folder.join("docker-config"))),
            ],
            root: folder.join("docker/data"),
        };
        let containers = |name: &'static str| -> anyhow::Result<Tool> {
            let root = folder.join(name);
            let arguments =
                ["--root", &text(root.clone()), "--runroot", &text(folder.join(format!("{name}-run")))];
            let arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
            let arguments = [arguments, vec!["--storage-driver".to_owned(), "overlay".to_owned()]].concat();
            let program = command::find(name).with_context(|| format!("{name} is not here"))?;
            Tool { name, version: String::new(), program, arguments, environment: Vec::new(), root }
                .with_version(&["--version"])
        };
        let rivals = Self {
            dhow: dhow.with_version(&["--version"])?,
            docker: docker.with_version(&["version", "--format", "docker {{.Server.Version}}"])?,
            podman: containers("podman")?,
            buildah: containers("buildah")?,
            registry,
            _daemon: daemon,
        };
        ensure!(rivals.versions().iter().all(|version| !version.is_empty()), "somebody has no version");
        Ok(rivals)
    }

    pub(crate) fn versions(&self) -> Vec<String> {
        [&self.dhow, &self.docker, &self.podman, &self.buildah].map(|tool| tool.version.clone()).to_vec()
    }
}
