//! Making a container: everything is decided here, so that starting it is quick and cannot surprise.

use std::collections::BTreeSet;
use std::fs;

use dhow_net::ContainerPort;
use dhow_oci::{ContainerConfig, Digest, ImageConfig};
use dhow_runtime::{Bundle, ContainerSpec, IdMap, NamespaceChoice, Namespaces, SeccompChoice};
use dhow_snapshot::{SnapshotName, Snapshotter as _};
use dhow_store::{Lease, PutRecordError, Ref};

use crate::containers::{Containers, snapshot_key};
use crate::error::{CreateError, disk};
use crate::files::ContainerFiles;
use crate::name::{check_name, random_id, random_name, short_id};
use crate::record::ContainerRecord;
use crate::request::{CreateRequest, HostConfig, NetworkMode};
use crate::volume::{self, Volumes, remove_dir};

/// How often a name is made up before it is reported as taken.
const NAME_ATTEMPTS_MAX: u32 = 20;

/// A container that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

impl Containers {
    /// Makes a container. It has a name, a snapshot and a configuration when this returns, and no process.
    pub fn create(&self, request: &CreateRequest) -> Result<Created, CreateError> {
        let wanted = request.name.as_deref().map(check_name).transpose()?;
        if let Some(name) = wanted
            && let Some(holder) = self.records().by_name(name)?
        {
            // Found early, a conflict costs nothing; the last word has `record`.
            return Err(CreateError::NameTaken { name: name.into(), holder: holder.key });
        }
        check_host(&request.host)?;
        let request = &self.with_networks(request)?;
        if let Some(signal) =
            request.stop_signal.as_ref().filter(|signal| dhow_sys::signal::parse(signal).is_none())
        {
            return Err(CreateError::Signal(signal.clone()));
        }
        request.healthcheck.as_ref().map_or(Ok(()), crate::health::validate)?;
        let lease = self.store().lease("create a container")?;
        let image = self.images.find_to_run(&request.image, request.platform.as_ref(), &lease)?.record;
        let base = self.images.config(&image.id)?;
        let mut parents = self.images.layer_snapshots(&image.diff_ids)?;
        parents.reverse();
        let id = random_id()?;
        let draft = Draft { containers: self, id: &id, lease: &lease, volumes: Vec::new(), refs: Vec::new() };
        let made = draft.make(request, wanted, image.id, base, &parents);
        drop(lease);
        let created = made.map(|name| Created { id, name })?;
        if let Ok(container) = self.find(&created.id) {
            self.tell(&container, "create", &[]);
        }
        Ok(created)
    }
}

/// A container that is being made. What it has on disk goes if it fails.
pub(crate) struct Draft<'a> {
    pub containers: &'a Containers,
    pub id: &'a str,
    /// Protects what it is made of until it is recorded.
    pub lease: &'a Lease,
    /// Anonymous volumes made for it.
    pub volumes: Vec<String>,
    /// What else it keeps alive: images that are mounted.
    pub refs: Vec<Ref>,
}

impl Draft<'_> {
    fn make(
        mut self,
        request: &CreateRequest,
        name: Option<&str>,
        image: Digest,
        base: ImageConfig,
        parents: &[SnapshotName],
    ) -> Result<String, CreateError> {
        let made = self.try_make(request, name, image, base, parents);
        if made.is_err() {
            self.undo();
        }
        made
    }

    fn try_make(
        &mut self,
        request: &CreateRequest,
        name: Option<&str>,
        image: Digest,
        base: ImageConfig,
        parents: &[SnapshotName],
    ) -> Result<String, CreateError> {
        let containers = self.containers;
        // Held until the record is there: what is locked is not rubbish.
        let _lock = containers.create_dir(self.id)?;
        let rootfs = containers.bundle(self.id).rootfs();
        fs::create_dir(&rootfs).map_err(disk("create", &rootfs))?;
        let snapshots = containers.images.snapshots();
        let _prepared = snapshots.prepare(&snapshot_key(self.id), parents)?;
        let created = (containers.clock)().to_string();
        let config = merge(base.config, request);
        let view = snapshots.view(parents)?;
        let mounts = self.mounts(request, &config, &view)?;
        let (image_name, host) = (request.image.clone(), request.host.clone());
        let networks = containers.endpoints(&host, &request.networks)?;
        let record = ContainerRecord { created, image, image_name, config, host, mounts, networks };
        self.write_bundle(&record)?;
        self.record(name, &record, parents)
    }

    fn write_bundle(&self, record: &ContainerRecord) -> Result<(), CreateError> {
        let bundle = self.containers.bundle(self.id);
        let parent = &record.host.rare.cgroup_parent;
        if !parent.is_empty() {
            crate::freeze::write_parent(&bundle, parent).map_err(disk("write to", bundle.dir()))?;
        }
        if let NetworkMode::Container(other) = &record.host.network {
            return self.containers.write_sharing_spec(self.id, record, other, None);
        }
        let files = ContainerFiles::new(&bundle, self.id, record);
        files.write()?;
        let spec = spec(self.containers, self.id, record, &files)?;
        write_spec(&bundle, &spec)
    }

    /// Makes the container visible, under the wanted name or one that is free.
    fn record(
        &self,
        name: Option<&str>,
        record: &ContainerRecord,
        parents: &[SnapshotName],
    ) -> Result<String, CreateError> {
        let body = serde_json::to_string(record).expect("a record serializes");
        let mut refs = vec![Ref::Image(record.image), Ref::Snapshot(self.id.into())];
        refs.extend(parents.iter().map(|parent| Ref::Snapshot(parent.to_string())));
        let volumes = record.volumes().map(|(name, _)| name.to_string());
        refs.extend(self.refs.iter().cloned());
        refs.extend(volumes.map(|key| Ref::Record { kind: volume::KIND.into(), key }));
        let candidates: Vec<String> = match name {
            Some(name) => vec![name.into()],
            None => (0..NAME_ATTEMPTS_MAX).map(random_name).collect::<Result<_, _>>()?,
        };
        let mut taken = None;
        for name in candidates {
            match self.containers.records().put(self.id, Some(&name), &body, &refs) {
                Ok(()) => return Ok(name),
                Err(PutRecordError::NameTaken { name, holder, .. }) => {
                    taken = Some(CreateError::NameTaken { name, holder });
                }
                Err(error) => return Err(CreateError::Record(error)),
            }
        }
        Err(taken.expect("there was a candidate"))
    }

    /// Best effort: the error to be told is another one, and what stays has no record, so `sweep` finds it.
    fn undo(&self) {
        let containers = self.containers;
        let _ = containers.images.snapshots().remove(&snapshot_key(self.id));
        let _ = remove_dir(containers.bundle(self.id).dir());
        for name in &self.volumes {
            let _ = Volumes::new(containers.store()).remove_unused(name);
        }
    }
}

fn check_host(host: &HostConfig) -> Result<(), CreateError> {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
    host.limits.check(cpus)?;
    if host.auto_remove && !host.restart.is_no() {
        return Err(CreateError::RestartAndRemove);
    }
    host.rare.check()?;
    if host.uts_host && host.hostname.is_some() {
        return Err(CreateError::Conflict("hostname and the UTS mode"));
    }
    Ok(())
}

/// Writes the OCI configuration of a container.
pub(crate) fn write_spec(bundle: &Bundle, spec: &ContainerSpec) -> Result<(), CreateError> {
    let path = bundle.config();
    let json = serde_json::to_vec(&spec.to_spec()?).expect("an OCI configuration serializes");
    Ok(fs::write(&path, json).map_err(disk("write", &path))?)
}

/// How the image wants to be run, with what the user wants instead.
fn merge(mut config: ContainerConfig, request: &CreateRequest) -> ContainerConfig {
    if let Some(entrypoint) = &request.entrypoint {
        config.entrypoint = Some(entrypoint.clone()).filter(|words| !words.is_empty());
        config.cmd = None;
    }
    if !request.command.is_empty() {
        config.cmd = Some(request.command.clone());
    }
    for entry in &request.env {
        match entry.split_once('=') {
            Some((name, value)) => config.set_env(name, value),
            None => config.env.retain(|known| known.split('=').next() != Some(entry)),
        }
    }
    if let Some(workdir) = &request.workdir {
        config.working_dir.clone_from(workdir);
    }
    if let Some(user) = &request.user {
        config.user.clone_from(user);
    }
    if let Some(signal) = &request.stop_signal {
        config.stop_signal.clone_from(signal);
    }
    config.healthcheck = crate::health::merge(config.healthcheck.take(), request.healthcheck.as_ref());
    config.labels.extend(request.labels.clone());
    let published = request.host.publish.iter().map(|mapping| &mapping.container_port);
    let ports: BTreeSet<&ContainerPort> = request.expose.iter().chain(published).collect();
    config.exposed_ports.extend(ports.into_iter().map(|port| (port.to_string(), Default::default())));
    config
}

/// The container in the runtime's words.
pub(crate) fn spec(
    containers: &Containers,
    id: &str,
    record: &ContainerRecord,
    files: &ContainerFiles,
) -> Result<ContainerSpec, CreateError> {
    let (config, host) = (&record.config, &record.host);
    let own = |is_host: bool| if is_host { NamespaceChoice::Host } else { NamespaceChoice::Private };
    let mut mounts = files.mounts();
    for mount in &record.mounts {
        mounts.push(containers.runtime_mount(mount)?);
    }
    let mut spec = ContainerSpec {
        id: id.into(),
        args: record.args(),
        env: config.env.clone(),
        cwd: config.working_dir.clone(),
        user: config.user.clone(),
        groups: host.groups.clone(),
        hostname: if host.uts_host { String::new() } else { files.hostname().into() },
        terminal: host.tty,
        readonly_rootfs: host.read_only,
        no_new_privileges: host.no_new_privileges,
        privileged: host.privileged,
        init: host.init,
        seccomp: if host.seccomp_unconfined { SeccompChoice::Unconfined } else { SeccompChoice::Default },
        cap_add: host.cap_add.clone(),
        cap_drop: host.cap_drop.clone(),
        namespaces: Namespaces {
            network: own(host.network == NetworkMode::Host),
            pid: own(host.pid_host),
            ipc: own(host.ipc_host),
            uts: own(host.uts_host),
            cgroup: own(host.cgroup_host),
        },
        mounts,
        rlimits: host.ulimits.iter().map(crate::request::Ulimit::to_rlimit).collect(),
        resources: host.limits.to_resources(),
        sysctls: host.sysctls.clone(),
        shm_bytes: host.shm_bytes,
        id_map: containers.images.user_namespace().map(IdMap::of_known),
        ..ContainerSpec::default()
    };
    spec.resources.io = crate::limits::io_limits(&host.limits)?;
    host.rare.add_to(&mut spec)?;
    Ok(spec)
}

/// What a container calls itself.
pub(crate) fn hostname_of(id: &str, host: &HostConfig, of_host: impl FnOnce() -> String) -> String {
    match &host.hostname {
        Some(name) => name.clone(),
        None if host.network == NetworkMode::Host || host.uts_host => of_host(),
        None => short_id(id).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ContainerConfig {
        ContainerConfig {
            entrypoint: Some(vec!["python".into()]),
            cmd: Some(vec!["app.py".into()]),
            env: vec!["A=1".into(), "B=2".into()],
            ..ContainerConfig::default()
        }
    }

    fn args(entrypoint: Option<&[&str]>, command: &[&str]) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let request = CreateRequest {
            entrypoint: entrypoint.map(words),
            command: words(command),
            ..CreateRequest::default()
        };
        let config = merge(image(), &request);
        [config.entrypoint.unwrap_or_default(), config.cmd.unwrap_or_default()].concat()
    }

    #[test]
    fn a_command_replaces_cmd_and_an_entrypoint_replaces_both() {
        assert_eq!(args(None, &[]), ["python", "app.py"]);
        assert_eq!(args(None, &["x.py"]), ["python", "x.py"]);
        assert_eq!(args(Some(&["sh"]), &[]), ["sh"]);
        assert_eq!(args(Some(&["sh"]), &["-c", "x"]), ["sh", "-c", "x"]);
        assert_eq!(args(Some(&[]), &["ls"]), ["ls"]);
    }

    #[test]
    fn variables_are_set_in_place_and_a_bare_name_removes_one() {
        let request =
            CreateRequest { env: vec!["A=3".into(), "B".into(), "C=".into()], ..CreateRequest::default() };
        assert_eq!(merge(image(), &request).env, ["A=3", "C="]);
    }

    #[test]
    fn a_published_port_is_exposed() {
        let mut request =
            CreateRequest { expose: vec!["53/udp".parse().unwrap()], ..CreateRequest::default() };
        request.host.publish = dhow_net::PortMapping::parse("8080:80").unwrap();
        let ports: Vec<String> = merge(image(), &request).exposed_ports.into_keys().collect();
        assert_eq!(ports, ["53/udp", "80/tcp"]);
    }
}
