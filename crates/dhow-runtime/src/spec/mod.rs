//! From a container as its user describes it to the OCI runtime configuration.

mod defaults;
mod devices;
mod profile;
mod seccomp;

use std::path::{Path, PathBuf};

use dhow_sys::capability::{Capabilities, Capability};
use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use crate::container::{
    BindHow, ContainerSpec, IdRange, IoKind, IoLimit, MountSpec, NamespaceChoice, Propagation, Resources,
    Rlimit, SeccompChoice,
};

/// The annotation that asks for our own init as process 1.
pub(crate) const ANNOTATION_INIT: &str = "build.dhow.init";
/// The annotation with supplementary groups by name or number, separated by commas.
pub(crate) const ANNOTATION_GROUPS: &str = "build.dhow.groups";

/// The option of a bind mount that says what of its source is shown. As the name's beginning tells, it is for whoever
/// makes the mount and not for the kernel.
pub(crate) const SUBPATH: &str = "x-dhow.subpath";

/// The option of a bind mount that says in which mount namespace its source is looked for.
pub(crate) const MOUNT_NAMESPACE: &str = "x-dhow.mountns";

/// The parent of all cgroups of containers.
const CGROUP_PARENT: &str = "/dhow";

/// What is wrong with a container's description.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Nothing to run.
    #[error("no command specified")]
    NoCommand,
    /// Not a capability.
    #[error("invalid capability: {name:?}")]
    Capability {
        /// As given.
        name: String,
    },
    /// Not a resource limit.
    #[error("invalid ulimit type: {name}")]
    Rlimit {
        /// As given.
        name: String,
    },
    /// The working directory or a mount's target is not absolute.
    #[error("the path {path:?} is invalid, it needs to be an absolute path")]
    RelativePath {
        /// As given.
        path: String,
    },
    /// The user's seccomp profile makes no sense.
    #[error("Decoding seccomp profile failed: {0}")]
    Seccomp(String),
    /// The devices of this machine cannot be listed.
    #[error("cannot list the devices in /dev")]
    Devices(#[source] std::io::Error),
    /// Something else the types of the runtime specification refuse.
    #[error("cannot express the container as an OCI runtime configuration: {0}")]
    Invalid(#[from] serde_json::Error),
}

impl ContainerSpec {
    /// The OCI runtime configuration.
    ///
    /// The user is kept by name (`process.user.username`) and resolved when the root file system is mounted.
    pub fn to_spec(&self) -> Result<Spec, SpecError> {
        if self.args.first().is_none_or(String::is_empty) {
            return Err(SpecError::NoCommand);
        }
        let capabilities = self.capabilities()?;
        let mut spec = json!({
            "ociVersion": "1.0.2",
            "process": self.process(capabilities)?,
            "root": { "path": "rootfs", "readonly": self.readonly_rootfs },
            "mounts": self.all_mounts()?,
            "annotations": self.annotations(),
            "linux": self.linux(capabilities)?,
        });
        if !self.domainname.is_empty() && self.namespaces.uts == NamespaceChoice::Private {
            spec["domainname"] = self.domainname.as_str().into();
        }
        if let Some(score) = self.oom_score_adj {
            spec["process"]["oomScoreAdj"] = score.into();
        }
        if !self.apparmor_profile.is_empty() {
            spec["process"]["apparmorProfile"] = self.apparmor_profile.as_str().into();
        }
        if !self.hostname.is_empty() && self.namespaces.uts == NamespaceChoice::Private {
            spec["hostname"] = self.hostname.as_str().into();
        }
        Ok(serde_json::from_value(spec)?)
    }

    fn capabilities(&self) -> Result<Capabilities, SpecError> {
        let all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("all"));
        let parse = |names: &[String]| {
            let names = names.iter().filter(|name| !name.eq_ignore_ascii_case("all"));
            let parsed =
                names.map(|name| name.parse().map_err(|_| SpecError::Capability { name: name.clone() }));
            parsed.collect::<Result<Vec<Capability>, SpecError>>()
        };
        let (add, drop) = (parse(&self.cap_add)?, parse(&self.cap_drop)?);
        let default = |capability: Capability| defaults::CAPABILITIES.contains(&capability.name());
        let granted = |capability: &Capability| {
            let base =
                self.privileged || all(&self.cap_add) || (default(*capability) && !all(&self.cap_drop));
            (base && !drop.contains(capability)) || add.contains(capability)
        };
        Ok(Capability::all().filter(granted).collect())
    }

    fn process(&self, capabilities: Capabilities) -> Result<Value, SpecError> {
        let cwd = if self.cwd.is_empty() { "/" } else { &self.cwd };
        let names: Vec<String> = Capability::all()
            .filter(|capability| capabilities.contains(*capability))
            .map(|capability| format!("CAP_{}", capability.name()))
            .collect();
        Ok(json!({
            "terminal": self.terminal,
            "user": { "uid": 0, "gid": 0, "username": self.user },
            "args": self.args,
            "env": self.environment(),
            "cwd": absolute(cwd)?,
            "capabilities": { "bounding": names, "effective": names, "permitted": names },
            "rlimits": self.rlimits.iter().map(rlimit).collect::<Result<Vec<Value>, SpecError>>()?,
            "noNewPrivileges": self.no_new_privileges,
        }))
    }

    /// The defaults come first: of two values for one name the later one counts.
    fn environment(&self) -> Vec<String> {
        let mut env = vec![defaults::PATH.to_string()];
        if !self.hostname.is_empty() && !self.no_hostname_variable {
            env.push(format!("HOSTNAME={}", self.hostname));
        }
        if self.terminal {
            env.push("TERM=xterm".into());
        }
        for variable in &self.env {
            let name = variable.split('=').next().unwrap_or_default();
            env.retain(|known| known.split('=').next() != Some(name));
            env.push(variable.clone());
        }
        env
    }

    fn all_mounts(&self) -> Result<Vec<Value>, SpecError> {
        let mut mounts = defaults::mounts(self.shm_bytes.unwrap_or(defaults::SHM_BYTES), self.privileged);
        let mut own: Vec<&MountSpec> = self.mounts.iter().collect();
        own.sort_by_key(|mount| Path::new(mount.target()).components().count());
        for mount in own {
            mounts.retain(|known| known["destination"].as_str() != Some(mount.target()));
            mounts.push(user_mount(mount)?);
        }
        if self.no_shm {
            let of_ipc = |known: &Value| known["destination"] == "/dev/shm" && known["source"] == "shm";
            mounts.retain(|known| known["type"] != "mqueue" && !of_ipc(known));
        }
        if self.namespaces.ipc == NamespaceChoice::Host {
            mounts.retain(|known| known["type"] != "mqueue");
        }
        Ok(mounts)
    }

    fn annotations(&self) -> Value {
        let mut annotations = json!(self.annotations);
        if self.init {
            annotations[ANNOTATION_INIT] = "true".into();
        }
        if !self.groups.is_empty() {
            annotations[ANNOTATION_GROUPS] = self.groups.join(",").into();
        }
        annotations
    }

    fn linux(&self, capabilities: Capabilities) -> Result<Value, SpecError> {
        let parent = if self.cgroup_parent.is_empty() { CGROUP_PARENT } else { &self.cgroup_parent };
        let mut linux = json!({
            "cgroupsPath": format!("{}/{}", parent.trim_end_matches('/'), self.id),
            "namespaces": self.namespace_list(),
            "resources": resources(&self.resources, self.privileged),
            "sysctl": self.sysctls,
        });
        linux["devices"] = self.devices.iter().map(devices::node).collect();
        if !self.privileged && !self.unmasked {
            linux["maskedPaths"] = json!(defaults::MASKED_PATHS);
            linux["readonlyPaths"] = json!(defaults::READONLY_PATHS);
        }
        if self.privileged && self.id_map.is_none() {
            // Without root there is nothing that could be done with them.
            let mut all = devices::of_host().map_err(SpecError::Devices)?;
            all.retain(|known| self.devices.iter().all(|own| known["path"] != json!(own.path)));
            all.extend(self.devices.iter().map(devices::node));
            linux["devices"] = all.into();
        }
        match &self.seccomp {
            SeccompChoice::Default if !self.privileged => {
                linux["seccomp"] = seccomp::default_profile(capabilities)
            }
            SeccompChoice::Default | SeccompChoice::Unconfined => {}
            SeccompChoice::Profile(profile) => linux["seccomp"] = serde_json::to_value(profile)?,
            SeccompChoice::Docker(_) if self.privileged => {}
            SeccompChoice::Docker(text) => linux["seccomp"] = profile::resolve(text, capabilities)?,
        }
        if let Some(map) = &self.id_map {
            linux["uidMappings"] = map.uids.iter().map(id_mapping).collect();
            linux["gidMappings"] = map.gids.iter().map(id_mapping).collect();
        }
        Ok(linux)
    }

    fn namespace_list(&self) -> Vec<Value> {
        let own = &self.namespaces;
        let choices = [
            ("network", &own.network),
            ("pid", &own.pid),
            ("ipc", &own.ipc),
            ("uts", &own.uts),
            ("cgroup", &own.cgroup),
        ];
        let mut list = vec![json!({ "type": "mount" })];
        if self.id_map.is_some() {
            list.push(json!({ "type": "user" }));
        }
        list.extend(choices.into_iter().filter_map(|(kind, choice)| match choice {
            NamespaceChoice::Private => Some(json!({ "type": kind })),
            NamespaceChoice::Host => None,
            NamespaceChoice::Path(path) => Some(json!({ "type": kind, "path": path })),
        }));
        list
    }
}

impl MountSpec {
    /// Where it is mounted.
    pub fn target(&self) -> &str {
        match self {
            MountSpec::Bind { target, .. }
            | MountSpec::Tmpfs { target, .. }
            | MountSpec::Overlay { target, .. } => target,
        }
    }
}

fn user_mount(mount: &MountSpec) -> Result<Value, SpecError> {
    let destination = absolute(mount.target())?;
    Ok(match mount {
        MountSpec::Bind { source, readonly, propagation, how, .. } => {
            let options = bind_options(*readonly, *propagation, how);
            json!({ "destination": destination, "type": "bind", "source": source, "options": options })
        }
        MountSpec::Tmpfs { options, .. } => {
            let options = [vec!["noexec".into(), "nosuid".into(), "nodev".into()], options.clone()].concat();
            json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options })
        }
        MountSpec::Overlay { lowers, upper, subpath, .. } => {
            overlay_mount(destination, lowers, upper, subpath)
        }
    })
}

fn bind_options(readonly: bool, propagation: Propagation, how: &BindHow) -> Vec<String> {
    let access = match readonly {
        true if how.flat || how.flat_readonly => "ro",
        // What is mounted below is not writable either.
        true => "rro",
        false => "rw",
    };
    let word = match propagation {
        Propagation::Private => "private",
        Propagation::Slave => "slave",
        Propagation::Shared => "shared",
    };
    let deep = if how.flat_propagation { "" } else { "r" };
    let bind = if how.flat { "bind" } else { "rbind" };
    let mut options = vec![bind.to_owned(), access.to_owned(), format!("{deep}{word}")];
    if !how.subpath.is_empty() {
        options.push(format!("{SUBPATH}={}", how.subpath));
    }
    options
}

/// The options are those of the new mount API, one a folder: `lowerdir=a:b` could not tell a colon in a name.
fn overlay_mount(
    destination: &str,
    lowers: &[PathBuf],
    upper: &Option<(PathBuf, PathBuf)>,
    subpath: &str,
) -> Value {
    let option = |key: &str, path: &PathBuf| format!("{key}={}", path.display());
    let mut options = vec![if upper.is_some() { "rw" } else { "ro" }.to_owned()];
    options.extend(lowers.iter().map(|lower| option("lowerdir+", lower)));
    if let Some((upper, work)) = upper {
        options.extend([option("upperdir", upper), option("workdir", work)]);
    }
    json!({ "destination": destination, "type": "overlay", "source": subpath, "options": options })
}

fn absolute(path: &str) -> Result<&str, SpecError> {
    match path.starts_with('/') {
        true => Ok(path),
        false => Err(SpecError::RelativePath { path: path.into() }),
    }
}

fn id_mapping(range: &IdRange) -> Value {
    json!({ "containerID": range.container, "hostID": range.host, "size": range.count })
}

fn rlimit(rlimit: &Rlimit) -> Result<Value, SpecError> {
    match dhow_sys::process::is_rlimit(&rlimit.name) {
        true => Ok(json!({
            "type": format!("RLIMIT_{}", rlimit.name.to_ascii_uppercase()),
            "soft": rlimit.soft,
            "hard": rlimit.hard,
        })),
        false => Err(SpecError::Rlimit { name: rlimit.name.clone() }),
    }
}

fn resources(resources: &Resources, privileged: bool) -> Value {
    // Without a word about swap, Docker allows as much of it as of memory.
    let swap = resources.memory_swap_bytes.or(resources.memory_bytes.map(|bytes| bytes.saturating_mul(2)));
    let mut devices = defaults::devices(privileged);
    if !privileged {
        devices.extend(resources.devices.iter().map(devices::rule));
    }
    let mut value = json!({ "devices": devices });
    value["memory"] = present(json!({
        "limit": resources.memory_bytes,
        "swap": swap,
        "reservation": resources.memory_reservation_bytes,
        "swappiness": resources.memory_swappiness,
        "disableOOMKiller": resources.oom_kill_disable.then_some(true),
    }));
    value["blockIO"] = block_io(resources);
    for part in ["memory", "blockIO"] {
        if value[part].as_object().is_some_and(|fields| fields.is_empty()) {
            value.as_object_mut().map(|fields| fields.remove(part));
        }
    }
    value["cpu"] = present(json!({
        "shares": resources.cpu_shares,
        "quota": resources.cpu_quota_us,
        "period": resources.cpu_period_us,
        "cpus": resources.cpuset_cpus,
        "mems": resources.cpuset_mems,
        "realtimePeriod": resources.cpu_rt_period_us,
        "realtimeRuntime": resources.cpu_rt_runtime_us,
    }));
    if let Some(limit) = resources.pids_max {
        value["pids"] = json!({ "limit": limit });
    }
    value
}

fn block_io(resources: &Resources) -> Value {
    let of = |kind: IoKind, word: &str| {
        let limits = resources.io.iter().filter(|limit| limit.kind == kind);
        let entry =
            |limit: &IoLimit| json!({ "major": limit.major, "minor": limit.minor, word: limit.value });
        let entries: Vec<Value> = limits.map(entry).collect();
        (!entries.is_empty()).then_some(entries)
    };
    present(json!({
        "weight": resources.io_weight,
        "weightDevice": of(IoKind::Weight, "weight"),
        "throttleReadBpsDevice": of(IoKind::ReadBps, "rate"),
        "throttleWriteBpsDevice": of(IoKind::WriteBps, "rate"),
        "throttleReadIOPSDevice": of(IoKind::ReadIops, "rate"),
        "throttleWriteIOPSDevice": of(IoKind::WriteIops, "rate"),
    }))
}

/// Without the fields that are null.
fn present(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, field| !field.is_null());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> ContainerSpec {
        ContainerSpec {
            id: "c1".into(),
            args: vec!["sh".into()],
            hostname: "h".into(),
            ..ContainerSpec::default()
        }
    }

    fn bits(spec: &ContainerSpec) -> u64 {
        spec.capabilities().unwrap().bits()
    }

    #[test]
    fn the_default_capabilities_are_dockers() {
        assert_eq!(bits(&container()), 0xa804_25fb);
    }

    #[test]
    fn capabilities_are_added_to_and_taken_from_the_default() {
        let with = |add: &[&str], drop: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
            bits(&ContainerSpec { cap_add: owned(add), cap_drop: owned(drop), ..container() })
        };
        assert_eq!(with(&[], &["ALL"]), 0);
        assert_eq!(with(&["chown"], &["ALL"]), 1);
        assert_eq!(with(&["ALL"], &["CAP_CHOWN"]) & 1, 0);
        assert_eq!(with(&["NET_ADMIN"], &[]), 0xa804_25fb | 1 << 12);
    }

    #[test]
    fn a_users_variable_replaces_the_default() {
        let spec = ContainerSpec { env: vec!["PATH=/x".into(), "A=1".into(), "A=2".into()], ..container() };
        assert_eq!(spec.environment(), ["HOSTNAME=h", "PATH=/x", "A=2"]);
        let spec = ContainerSpec { no_hostname_variable: true, ..spec };
        assert_eq!(spec.environment(), ["PATH=/x", "A=2"]);
    }

    #[test]
    fn outer_mounts_come_before_inner_ones() {
        let tmpfs = |target: &str| MountSpec::Tmpfs { target: target.into(), options: vec![] };
        let spec =
            ContainerSpec { mounts: vec![tmpfs("/a/b"), tmpfs("/a"), tmpfs("/dev/shm")], ..container() };
        let mounts = spec.to_spec().unwrap().mounts().clone().unwrap();
        let order: Vec<_> = mounts.iter().map(|mount| mount.destination().display().to_string()).collect();
        assert_eq!(
            order,
            ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/a", "/a/b", "/dev/shm"]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |spec: ContainerSpec| spec.to_spec().unwrap_err().to_string();
        assert_eq!(error(ContainerSpec::default()), "no command specified");
        let relative = ContainerSpec { cwd: "app".into(), ..container() };
        assert_eq!(error(relative), "the path \"app\" is invalid, it needs to be an absolute path");
        let capability = ContainerSpec { cap_add: vec!["FLY".into()], ..container() };
        assert_eq!(error(capability), "invalid capability: \"FLY\"");
    }
}
