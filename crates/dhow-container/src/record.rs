//! What is remembered of a container, and how it is doing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use dhow_net::{Attached, ContainerPort, PortMapping};
use dhow_oci::{ContainerConfig, Digest};
use dhow_runtime::{ExitStatus, Health};
use serde::{Deserialize, Serialize};

use crate::mount::BindOptions;
use crate::networks::EndpointConfig;
use crate::request::HostConfig;

/// The body of a container's record: all that was decided when it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// When it was made, RFC 3339 with nanoseconds.
    pub created: String,
    /// The image's ID.
    pub image: Digest,
    /// The image as the user wrote it.
    pub image_name: String,
    /// How the image and the user together want the program run.
    pub config: ContainerConfig,
    /// How it is run on this host.
    pub host: HostConfig,
    /// What is mounted, besides the file systems every container has.
    pub mounts: Vec<Mount>,
    /// The networks it is on while it runs, by name.
    #[serde(default)]
    pub networks: BTreeMap<String, EndpointConfig>,
}

/// Something mounted in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where.
    pub target: String,
    /// Not writable.
    pub readonly: bool,
    /// What.
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A file or folder of the host.
    Bind {
        /// Its path.
        source: PathBuf,
        /// How it is mounted.
        #[serde(flatten)]
        how: BindOptions,
    },
    /// A volume.
    Volume {
        /// Its name.
        name: String,
        /// It was made for this container and goes with it.
        anonymous: bool,
        /// What of it is shown; empty is all.
        #[serde(default)]
        subpath: String,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Mount options.
        options: Vec<String>,
    },
    /// The files of an image, to be read only.
    Image {
        /// The image as the user wrote it.
        name: String,
        /// Its ID.
        image: Digest,
        /// What of it is shown; empty is all.
        subpath: String,
    },
}

impl ContainerRecord {
    /// Program and arguments.
    pub fn args(&self) -> Vec<String> {
        let (entrypoint, cmd) = (self.config.entrypoint.iter().flatten(), self.config.cmd.iter().flatten());
        entrypoint.chain(cmd).cloned().collect()
    }

    /// Ports the program is said to listen on. What cannot be understood was not written by dhow and is left out.
    pub fn exposed(&self) -> BTreeSet<ContainerPort> {
        self.config
            .exposed_ports
            .keys()
            .filter_map(|port| ContainerPort::parse_range(port).ok())
            .flatten()
            .collect()
    }

    /// What is to be published, `publish_all` included.
    pub fn port_mappings(&self) -> Vec<PortMapping> {
        let mut mappings = self.host.publish.clone();
        if self.host.publish_all {
            let is_published =
                |port: &ContainerPort| mappings.iter().any(|known| known.container_port == *port);
            let rest: Vec<ContainerPort> =
                self.exposed().into_iter().filter(|port| !is_published(port)).collect();
            mappings.extend(rest.into_iter().map(PortMapping::ephemeral));
        }
        mappings
    }

    /// The volumes it uses.
    pub fn volumes(&self) -> impl Iterator<Item = (&str, bool)> {
        self.mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::Volume { name, anonymous, .. } => Some((name.as_str(), *anonymous)),
            _ => None,
        })
    }
}

/// A container as it is at one moment.
#[derive(Clone, Debug)]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name, without a slash.
    pub name: String,
    /// What was decided when it was made.
    pub record: ContainerRecord,
    /// How it is doing.
    pub state: State,
    /// Its places on networks while it runs, best way out first.
    pub attached: Vec<Attached>,
    /// How its health is or was in its last run, if anybody asks for it.
    pub health: Option<Health>,
    /// How often it was started again by itself since its user started it.
    pub restart_count: u32,
}

/// How a container is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Made and never run.
    Created,
    /// Being started.
    Starting,
    /// Running.
    Running {
        /// The program's process, seen from the host.
        pid: i32,
        /// When it was started, RFC 3339 with nanoseconds.
        started_at: String,
        /// Every process of it is held.
        paused: bool,
    },
    /// Ended, and about to be started again.
    Restarting {
        /// How.
        status: ExitStatus,
        /// When it had been started.
        started_at: Option<String>,
    },
    /// Ended.
    Exited {
        /// How.
        status: ExitStatus,
        /// When it had been started.
        started_at: Option<String>,
    },
}

impl State {
    /// Docker's word for it.
    pub fn word(&self) -> &'static str {
        match self {
            State::Created | State::Starting => "created",
            State::Running { paused: true, .. } => "paused",
            State::Running { .. } => "running",
            State::Restarting { .. } => "restarting",
            State::Exited { .. } => "exited",
        }
    }

    /// Whether there is a process.
    pub fn is_running(&self) -> bool {
        matches!(self, State::Running { .. })
    }

    /// Whether there is a process or is to be one soon.
    pub fn is_up(&self) -> bool {
        matches!(self, State::Running { .. } | State::Restarting { .. })
    }
}
