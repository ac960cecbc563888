//! What whoever builds says about the programs of a build: what they may have, see and use.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub use dhow_runtime::{Resources, Rlimit};

/// What the programs of a build may have, see and use, beyond what the Dockerfile says.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Secrets by id.
    pub secrets: BTreeMap<String, SecretSource>,
    /// ssh agents by id.
    pub ssh: BTreeMap<String, SshSource>,
    /// What a Dockerfile may ask for that reaches beyond its container.
    pub entitlements: Entitlements,
    /// Names for `/etc/hosts`. Without an address they are names of this host.
    pub hosts: Vec<(String, Option<IpAddr>)>,
    /// Limits of each process.
    pub rlimits: Vec<Rlimit>,
    /// Size of `/dev/shm`.
    pub shm_bytes: Option<u64>,
    /// Folder of the control groups; empty is dhow's own.
    pub cgroup_parent: String,
    /// Limits of each program with all its processes.
    pub resources: Resources,
}

impl RunOptions {
    /// The socket of an agent.
    pub(crate) fn agent(&self, id: &str) -> Option<&Path> {
        match self.ssh.get(id)? {
            SshSource::Agent(socket) => Some(socket),
            SshSource::Keys(_) => None,
        }
    }
}

/// Who signs for a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SshSource {
    /// The agent with this socket.
    Agent(PathBuf),
    /// An agent of the build's own, for the private keys in these files.
    Keys(Vec<PathBuf>),
}

/// Where a secret is.
#[derive(Clone)]
pub enum SecretSource {
    /// In a file, read when a step needs it.
    File(PathBuf),
    /// Here.
    Value(Vec<u8>),
}

/// Without the value: nobody prints a secret by printing a request.
impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretSource::File(path) => write!(f, "File({})", path.display()),
            SecretSource::Value(_) => f.write_str("Value(hidden)"),
        }
    }
}

/// What a Dockerfile may ask for only if whoever builds it allows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// `RUN --network=host`
    pub network_host: bool,
    /// `RUN --security=insecure`
    pub security_insecure: bool,
}
