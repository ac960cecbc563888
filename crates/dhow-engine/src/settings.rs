use std::path::PathBuf;

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
    /// What time it is.
    pub clock: fn() -> jiff::Timestamp,
}
