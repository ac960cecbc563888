use std::path::PathBuf;

use dhow_sys::userns::IdMap;

/// What the engine is told about the world.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The store and everything else that lasts: `/var/lib/dhow`.
    pub root: PathBuf,
    /// What is gone after a reboot: `/run/dhow`.
    pub run: PathBuf,
    /// Registries, certificates and proxies.
    pub registry: dhow_registry::Config,
    /// docker's own folder, where credentials are: `~/.docker`.
    pub docker_config: PathBuf,
    /// Where credential helpers are looked for, the value of `PATH`.
    pub helper_folders: Vec<PathBuf>,
    /// The ids of the user namespace that this process is root of, if it [entered](crate::userns::enter) one.
    pub user_namespace: Option<IdMap>,
    /// Bytes that the build cache may take by itself; what was used longest ago goes first.
    pub build_cache_bytes_max: u64,
    /// What time it is.
    pub clock: fn() -> jiff::Timestamp,
}
