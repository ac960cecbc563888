//! What is asked of a container less often: devices, other containers' namespaces, security modules.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use dhow_runtime::{ContainerSpec, DeviceAccess, DeviceNode, NamespaceChoice, SeccompChoice};
use serde::{Deserialize, Serialize};

use crate::error::{CreateError, disk};

/// Folders below folders that are looked through for devices.
const DEPTH_MAX: usize = 8;
/// Where AppArmor is at work.
const APPARMOR: &str = "/sys/module/apparmor/parameters/enabled";

/// What is asked of a container less often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RareConfig {
    /// Devices of the host.
    pub devices: Vec<DeviceRequest>,
    /// What else may be used, as `c 1:3 rwm`.
    pub device_rules: Vec<DeviceRule>,
    /// Shares the processes of this container.
    pub pid_of: Option<String>,
    /// How System V IPC and /dev/shm are shared.
    pub ipc: IpcShare,
    /// Domain name.
    pub domainname: String,
    /// The control group that the container's is below. Empty is the usual one.
    pub cgroup_parent: String,
    /// Notes for runtimes and hooks.
    pub annotations: BTreeMap<String, String>,
    /// How readily the kernel kills the program for want of memory, -1000 to 1000.
    pub oom_score_adj: Option<i64>,
    /// A seccomp profile as docker's users write them.
    pub seccomp_profile: Option<String>,
    /// Nothing of /proc and /sys is masked or read-only.
    pub unmasked: bool,
    /// The profile of AppArmor. Empty means none.
    pub apparmor_profile: String,
}

/// How System V IPC and /dev/shm are shared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IpcShare {
    /// With nobody.
    #[default]
    Private,
    /// With containers that ask for it.
    Shareable,
    /// With nobody, and there is no /dev/shm.
    None,
    /// With this container.
    Of(String),
}

/// A device of the host, as `/dev/a[:/dev/b[:rwm]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRequest {
    /// Path on the host.
    pub source: PathBuf,
    /// Path in the container.
    pub target: PathBuf,
    /// Some of `rwm`.
    pub access: String,
}

/// Devices that may be used, as `c 1:3 rwm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    kind: char,
    major: Option<u32>,
    minor: Option<u32>,
    access: String,
}

/// Why a text names no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// Not a path.
    #[error("{0} is not an absolute path")]
    Path(String),
    /// Not `rwm`.
    #[error("bad mode specified: {0}")]
    Mode(String),
    /// A device by the name a vendor gave it.
    #[error("CDI device injection failed: unresolvable CDI devices {0}: dhow reads no CDI specifications")]
    Cdi(String),
    /// Not a rule.
    #[error("invalid device cgroup format '{0}'")]
    Rule(String),
}

fn is_access(text: &str) -> bool {
    let once = |letter: char| text.matches(letter).count() <= 1;
    !text.is_empty() && text.chars().all(|letter| "rwm".contains(letter) && once(letter))
}

impl FromStr for DeviceRequest {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        if !text.starts_with('/')
            && text.split_once('=').is_some_and(|(kind, name)| kind.contains('/') && !name.is_empty())
        {
            return Err(DeviceError::Cdi(text.into()));
        }
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, access) = match parts[..] {
            [source] => (source, source, "rwm"),
            // What looks like a mode is one.
            [source, access] if is_access(access) => (source, source, access),
            [source, target] => (source, target, "rwm"),
            [source, target, access] => (source, if target.is_empty() { source } else { target }, access),
            _ => return Err(DeviceError::Path(text.into())),
        };
        if !is_access(access) {
            return Err(DeviceError::Mode(access.into()));
        }
        for path in [source, target] {
            if !path.starts_with('/') {
                return Err(DeviceError::Path(path.into()));
            }
        }
        Ok(DeviceRequest { source: source.into(), target: target.into(), access: access.into() })
    }
}

impl FromStr for DeviceRule {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let wrong = || DeviceError::Rule(text.into());
        let words: Vec<&str> = text.split(' ').collect();
        let [kind @ ("a" | "b" | "c"), numbers, access] = words[..] else { return Err(wrong()) };
        let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
        let number = |text: &str| match text {
            "*" => Ok(None),
            text => text.parse::<u32>().map(Some).map_err(|_| wrong()),
        };
        if !is_access(access) {
            return Err(wrong());
        }
        let kind = kind.chars().next().unwrap_or('a');
        Ok(DeviceRule { kind, major: number(major)?, minor: number(minor)?, access: access.into() })
    }
}

impl std::fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        write!(f, "{} {}:{} {}", self.kind, number(self.major), number(self.minor), self.access)
    }
}

impl RareConfig {
    /// What this machine cannot do.
    pub(crate) fn check(&self) -> Result<(), CreateError> {
        if let Some(score) = self.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
            return Err(CreateError::OomScore(score));
        }
        if !self.cgroup_parent.is_empty() && dhow_sys::cgroup::Cgroup::new(&self.cgroup_parent).is_err() {
            return Err(CreateError::CgroupParent(self.cgroup_parent.clone()));
        }
        let enabled = fs::read_to_string(APPARMOR).is_ok_and(|text| text.starts_with('Y'));
        match self.apparmor_profile.is_empty() || enabled {
            true => Ok(()),
            false => Err(CreateError::NoAppArmor(self.apparmor_profile.clone())),
        }
    }

    /// Adds all of it to what the runtime is told. Namespaces of other containers are found when it starts.
    pub(crate) fn add_to(&self, spec: &mut ContainerSpec) -> Result<(), CreateError> {
        for device in &self.devices {
            let found = device.find()?;
            spec.resources.devices.extend(found.iter().map(|node| DeviceAccess {
                kind: node.kind,
                major: Some(node.major),
                minor: Some(node.minor),
                access: device.access.clone(),
            }));
            spec.devices.extend(found);
        }
        spec.resources.devices.extend(self.device_rules.iter().map(|rule| DeviceAccess {
            kind: rule.kind,
            major: rule.major,
            minor: rule.minor,
            access: rule.access.clone(),
        }));
        spec.domainname.clone_from(&self.domainname);
        spec.cgroup_parent.clone_from(&self.cgroup_parent);
        spec.annotations.clone_from(&self.annotations);
        spec.oom_score_adj = self.oom_score_adj.and_then(|score| i32::try_from(score).ok());
        spec.unmasked = self.unmasked;
        spec.apparmor_profile.clone_from(&self.apparmor_profile);
        spec.no_shm = self.ipc == IpcShare::None;
        if let Some(profile) = &self.seccomp_profile {
            spec.seccomp = SeccompChoice::Docker(profile.clone());
        }
        if self.pid_of.is_some() {
            spec.namespaces.pid = NamespaceChoice::Path(PathBuf::from(LATER));
        }
        if let IpcShare::Of(_) = self.ipc {
            spec.namespaces.ipc = NamespaceChoice::Path(PathBuf::from(LATER));
        }
        Ok(())
    }
}

/// Stands for a namespace that is known when the container starts.
pub(crate) const LATER: &str = "/proc/0/ns";

impl DeviceRequest {
    /// The node, or those below a folder.
    fn find(&self) -> Result<Vec<DeviceNode>, CreateError> {
        let missing =
            |error: std::io::Error| CreateError::Device { path: self.source.clone(), source: error };
        let path = fs::canonicalize(&self.source).map_err(missing)?;
        if !self.target.starts_with("/dev") || self.target == Path::new("/dev") {
            return Err(CreateError::DeviceTarget(self.target.clone()));
        }
        if let Some(node) = node(&path, &self.target)? {
            return Ok(vec![node]);
        }
        let mut nodes = Vec::new();
        if path.is_dir() {
            look(&path, &self.target, 0, &mut nodes)?;
        }
        match nodes.is_empty() {
            true => Err(CreateError::NoDevice(self.source.clone())),
            false => Ok(nodes),
        }
    }
}

fn look(folder: &Path, target: &Path, depth: usize, nodes: &mut Vec<DeviceNode>) -> Result<(), CreateError> {
    for entry in fs::read_dir(folder).map_err(disk("list", folder))? {
        let entry = entry.map_err(disk("list", folder))?;
        let (path, target) = (entry.path(), target.join(entry.file_name()));
        if let Some(node) = node(&path, &target)? {
            nodes.push(node);
        } else if depth < DEPTH_MAX && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            look(&path, &target, depth + 1, nodes)?;
        }
    }
    Ok(())
}

fn node(path: &Path, target: &Path) -> Result<Option<DeviceNode>, CreateError> {
    const MODE_BITS: u32 = 0o7777;
    let metadata = fs::symlink_metadata(path).map_err(disk("look at", path))?;
    let kind = match metadata.file_type() {
        kind if kind.is_char_device() => 'c',
        kind if kind.is_block_device() => 'b',
        _ => return Ok(None),
    };
    let (major, minor) = dhow_sys::node::device_numbers(metadata.rdev());
    let (mode, uid, gid) = (metadata.mode() & MODE_BITS, metadata.uid(), metadata.gid());
    Ok(Some(DeviceNode { path: target.into(), kind, major, minor, mode, uid, gid }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_one_path_or_two_and_a_mode() {
        let parse = |text: &str| {
            let device = text.parse::<DeviceRequest>().map_err(|error| error.to_string())?;
            Ok::<_, String>(format!(
                "{} {} {}",
                device.source.display(),
                device.target.display(),
                device.access
            ))
        };
        assert_eq!(parse("/dev/a"), Ok("/dev/a /dev/a rwm".into()));
        assert_eq!(parse("/dev/a:/dev/b"), Ok("/dev/a /dev/b rwm".into()));
        assert_eq!(parse("/dev/a:r"), Ok("/dev/a /dev/a r".into()));
        assert_eq!(parse("/dev/a:/dev/b:rw"), Ok("/dev/a /dev/b rw".into()));
        assert_eq!(parse("/dev/a:/dev/b:rx"), Err("bad mode specified: rx".into()));
        assert_eq!(parse("dev"), Err("dev is not an absolute path".into()));
        assert!(parse("vendor.com/gpu=0").unwrap_err().starts_with("CDI device injection failed"));
    }

    #[test]
    fn a_device_rule_has_three_words() {
        let parse = |text: &str| {
            text.parse::<DeviceRule>().map(|rule| rule.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(parse("c 1:* rw"), Ok("c 1:* rw".into()));
        for wrong in ["", "c 1:3", "d 1:3 r", "c 1 r", "c 1:3 x", "c 1:3 rr"] {
            assert_eq!(parse(wrong), Err(format!("invalid device cgroup format '{wrong}'")));
        }
    }
}
