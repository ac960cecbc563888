//! What there is to say about this machine and this dhow.

use std::fs;
use std::path::PathBuf;

use dhow_container::{FindError, State};
use dhow_store::DatabaseError;

use crate::Engine;

/// What `info` tells.
#[derive(Clone, Debug)]
pub struct SystemInfo {
    /// Containers by what they do: running, paused, the rest.
    pub containers: [usize; 3],
    /// Images.
    pub images: usize,
    /// The store.
    pub root: PathBuf,
    /// Whether an ordinary user works in a namespace of their own.
    pub is_rootless: bool,
    /// `1` or `2`; nothing where control groups are not to be had.
    pub cgroup_version: Option<u8>,
    /// The kernel's release.
    pub kernel: String,
    /// The name and version of the distribution.
    pub operating_system: String,
    /// The machine, as the kernel calls it.
    pub architecture: String,
    /// The host's name.
    pub name: String,
    /// CPUs that may be used.
    pub cpus: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Proxies, without user info.
    pub proxies: [String; 3],
    /// Registries that may be spoken to without protection.
    pub insecure_registries: Vec<String>,
    /// Mirrors of docker.io.
    pub mirrors: Vec<String>,
}

/// Why there is nothing to tell.
#[derive(Debug, thiserror::Error)]
pub enum SystemInfoError {
    /// The containers cannot be listed.
    #[error(transparent)]
    Containers(#[from] FindError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl Engine {
    /// What there is to say about this machine and what is stored.
    pub fn system_info(&self) -> Result<SystemInfo, SystemInfoError> {
        let mut containers = [0; 3];
        for container in self.containers().list()? {
            containers[match container.state {
                State::Running { paused: false, .. } | State::Restarting { .. } => 0,
                State::Running { paused: true, .. } => 1,
                State::Created | State::Starting | State::Exited { .. } => 2,
            }] += 1;
        }
        let uname = rustix::system::uname();
        let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        let info = rustix::system::sysinfo();
        let registry = &self.settings.registry;
        let insecure = registry.registries.iter().filter(|(_, own)| own.security.is_some());
        let hub = registry.registries.get("docker.io");
        let proxy = &registry.proxy;
        let shown = |proxy: &Option<String>| proxy.as_deref().map(without_user).unwrap_or_default();
        Ok(SystemInfo {
            containers,
            images: self.store().images().list()?.len(),
            root: self.settings.root.clone(),
            is_rootless: self.is_rootless(),
            cgroup_version: cgroup_version(),
            kernel: text(uname.release()),
            operating_system: os_release(),
            architecture: text(uname.machine()),
            name: text(uname.nodename()),
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
            memory_bytes: (info.totalram as u64).saturating_mul(u64::from(info.mem_unit)),
            proxies: [shown(&proxy.http), shown(&proxy.https), proxy.no_proxy.clone()],
            insecure_registries: insecure.map(|(name, _)| name.clone()).collect(),
            mirrors: hub.map(|hub| hub.mirrors.iter().map(ToString::to_string).collect()).unwrap_or_default(),
        })
    }
}

fn cgroup_version() -> Option<u8> {
    let is_there = |path: &str| fs::exists(path).unwrap_or(false);
    match (is_there("/sys/fs/cgroup/cgroup.controllers"), is_there("/sys/fs/cgroup")) {
        (true, _) => Some(2),
        (false, true) => Some(1),
        (false, false) => None,
    }
}

/// As the distribution calls itself.
fn os_release() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// A URL without a user's name and password.
fn without_user(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_shown_without_passwords() {
        assert_eq!(without_user("http://me:secret@proxy.corp:3128"), "http://proxy.corp:3128");
        assert_eq!(without_user("me:secret@proxy.corp:3128"), "proxy.corp:3128");
        assert_eq!(without_user("http://proxy.corp:3128"), "http://proxy.corp:3128");
    }
}
