use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use dhow_engine::{Config, ProxyConfig, Settings};

use crate::error::CliError;

/// What the build cache may take unless the configuration says otherwise.
const BUILD_CACHE_BYTES_MAX: u64 = 20 << 30;
const SYSTEM_CONFIG: &str = "/etc/dhow/config.toml";

/// Reads the environment and the configuration files into what the engine wants to be told.
///
/// `DHOW_ROOT` and `DHOW_RUN` move the store and the run-time state; `DHOW_CONFIG` names the one
/// configuration file to read instead of the system's and the user's; `DOCKER_CONFIG` is docker's own.
pub(crate) fn read() -> Result<Settings, CliError> {
    let home = env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let is_root = rustix::process::geteuid().is_root();
    let root = match variable("DHOW_ROOT") {
        Some(root) => root,
        None if is_root => PathBuf::from("/var/lib/dhow"),
        None => xdg("XDG_DATA_HOME", home.as_deref(), ".local/share")?.join("dhow"),
    };
    let run = match variable("DHOW_RUN") {
        Some(run) => run,
        None if is_root => PathBuf::from("/run/dhow"),
        None => match variable("XDG_RUNTIME_DIR") {
            Some(dir) => dir.join("dhow"),
            None => root.join("run"),
        },
    };
    let docker_config = match variable("DOCKER_CONFIG") {
        Some(dir) => dir,
        None => {
            home.as_deref().map(|home| home.join(".docker")).unwrap_or_else(|| PathBuf::from("/root/.docker"))
        }
    };
    let (mut registry, build) = read_config(home.as_deref())?;
    registry.extra_ca.extend(variable("SSL_CERT_FILE"));
    registry.certs_dirs.push(PathBuf::from("/etc/docker/certs.d"));
    registry.proxy = ProxyConfig {
        http: either("http_proxy", "HTTP_PROXY"),
        https: either("https_proxy", "HTTPS_PROXY"),
        no_proxy: either("no_proxy", "NO_PROXY").unwrap_or_default(),
    };
    Ok(Settings {
        root: absolute(root)?,
        run: absolute(run)?,
        registry,
        docker_config,
        helper_folders: env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
        user_namespace: None,
        build_cache_bytes_max: build.cache_max.unwrap_or(BUILD_CACHE_BYTES_MAX),
        clock: jiff::Timestamp::now,
    })
}

/// Where `dhow registry` keeps its images unless told: beside the store, which has nothing to do with it.
pub(crate) fn registry_folder() -> Result<PathBuf, CliError> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/dhow-registry"));
    }
    let home = env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    Ok(xdg("XDG_DATA_HOME", home.as_deref(), ".local/share")?.join("dhow-registry"))
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn either(lower: &str, upper: &str) -> Option<String> {
    [lower, upper].into_iter().filter_map(|name| env::var(name).ok()).find(|value| !value.is_empty())
}

fn xdg(name: &str, home: Option<&Path>, default: &str) -> Result<PathBuf, CliError> {
    match (variable(name), home) {
        (Some(dir), _) => Ok(dir),
        (None, Some(home)) => Ok(home.join(default)),
        (None, None) => Err(CliError::new(format!("neither {name} nor HOME is set"))
            .hint("set DHOW_ROOT to a folder of yours")),
    }
}

fn absolute(path: PathBuf) -> Result<PathBuf, CliError> {
    std::path::absolute(&path).map_err(|error| CliError::new(format!("{}: {error}", path.display())))
}

/// The user's file adds to the system's and wins where both speak of one registry.
fn read_config(home: Option<&Path>) -> Result<(Config, BuildTable), CliError> {
    if let Some(path) = variable("DHOW_CONFIG") {
        let text = fs::read_to_string(&path).map_err(|error| {
            CliError::new(format!("DHOW_CONFIG: cannot read {}: {error}", path.display()))
        })?;
        return parse(&path, &text);
    }
    let (mut config, mut build) = read_optional(Path::new(SYSTEM_CONFIG))?;
    if let Ok(dir) = xdg("XDG_CONFIG_HOME", home, ".config") {
        let (own_config, own_build) = read_optional(&dir.join("dhow/config.toml"))?;
        config.overlay(own_config);
        build.cache_max = own_build.cache_max.or(build.cache_max);
    }
    Ok((config, build))
}

fn read_optional(path: &Path) -> Result<(Config, BuildTable), CliError> {
    match fs::read_to_string(path) {
        Ok(text) => parse(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Default::default()),
        Err(error) => Err(CliError::new(format!("cannot read {}: {error}", path.display()))),
    }
}

fn parse(path: &Path, text: &str) -> Result<(Config, BuildTable), CliError> {
    let config = Config::parse(path, text)?;
    let malformed = |error: toml::de::Error| {
        CliError::new(format!("{}: {}", path.display(), error.to_string().trim_end()))
    };
    let tables: Tables = toml::from_str(text).map_err(malformed)?;
    Ok((config, tables.build))
}

/// The tables that are not the registries'.
#[derive(Deserialize)]
struct Tables {
    #[serde(default)]
    build: BuildTable,
}

/// `[build]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct BuildTable {
    /// Bytes that the build cache may take, such as `"20GB"`.
    #[serde(default, deserialize_with = "size")]
    cache_max: Option<u64>,
}

fn size<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    dhow_template::units::ram_in_bytes(&text).map(Some).map_err(serde::de::Error::custom)
}
