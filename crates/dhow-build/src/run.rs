//! `RUN`: a program in a short-lived container on top of a root file system.

mod cache_folders;
mod cache_mounts;
mod error;
mod facts;
mod kept;
mod mount_points;
mod mounts;
mod remains;
mod secrets;
mod ssh;

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use dhow_net::{DnsConfig, hosts, resolv_conf};
#[cfg(not(test))]
use dhow_runtime::launch_once;
use dhow_runtime::{
    BindHow, Bundle, ContainerSpec, ExecStreams, ExitStatus, IdMap as ContainerIds, Interactive,
    MountSpec as ContainerMount, NamespaceChoice, Namespaces, OnceRequest, OutputStream, Propagation,
    RootMount, launch_interactive,
};
use dhow_snapshot::{MountSpec, SnapshotKey};
use dhow_solver::VertexId;
use dhow_sys::userns::IdMap;

pub(crate) use cache_folders::{CacheFolder, cache_folders, remove_cache_folder};
pub(crate) use cache_mounts::{CacheMounts, cache_name};
pub use error::RunError;
pub(crate) use facts::run_facts;
pub(crate) use kept::Kept;
pub(crate) use mounts::{Aside, Bound, Ready};
pub(crate) use remains::MountRemains;

use crate::debug::DebugError;
use crate::error::{StepError, StoreFailure, while_doing};
use crate::event::Stream;
use crate::plan::RunOp;
use crate::request::StepNetwork;
// The programs of stories are pretended.
use crate::stop::Stop;
#[cfg(test)]
use crate::stories::launch_once;

/// What the kernel says of a program that is for another machine.
const NOT_EXECUTABLE: &str = "exec format error";

/// Where the host's resolvers are listed.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Last lines of output that an error repeats.
const OUTPUT_LINES_KEPT: usize = 20;
const LINE_BYTES_KEPT: usize = 1000;
const PREPARING: &str = "cannot prepare the container of the step";

/// Says what the launcher must do to give the container with this ID a network, which asks these resolvers, and
/// to write down names of this host, if there are any.
pub type NetworkRequest<'a> =
    &'a (dyn Fn(&str, StepNetwork, DnsConfig, Option<GatewayHosts>) -> Option<serde_json::Value> + Sync);

/// An `/etc/hosts` that can be written only when the address of this host on the step's network is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayHosts {
    /// The file.
    pub path: PathBuf,
    /// What the container calls itself.
    pub hostname: String,
    /// Further names; those without an address are names of this host.
    pub names: Vec<(String, Option<IpAddr>)>,
}

/// What running programs needs.
pub(crate) struct RunSteps<'a> {
    /// Where bundles are made.
    pub run_dir: PathBuf,
    pub network: NetworkRequest<'a>,
    /// The ids of the user namespace that this process is root of, if it is in one.
    pub ids: Option<&'a IdMap>,
    pub stop: &'a Stop,
    pub started: &'a (dyn Fn(VertexId, &str) + Sync),
    pub output: &'a (dyn Fn(VertexId, Stream, &[u8]) + Sync),
}

/// A folder that goes with the value.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    fn new(dir: PathBuf) -> io::Result<Scratch> {
        fs::create_dir_all(&dir)?;
        Ok(Scratch(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It lies in a run-time folder; what stays is gone after the next boot.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl RunSteps<'_> {
    /// A folder for what a step needs while it runs.
    pub(crate) fn scratch(&self, key: &SnapshotKey) -> Result<Scratch, StoreFailure> {
        Scratch::new(self.run_dir.join(key.as_str())).map_err(while_doing(PREPARING))
    }

    /// Runs the program; the changes it makes are in the snapshot `key`.
    pub(crate) fn run(
        &self,
        id: VertexId,
        run: &RunOp,
        key: &SnapshotKey,
        spec: &MountSpec,
        scratch: &Scratch,
        ready: &Ready<'_>,
    ) -> Result<(), StepError> {
        let request = self.request(run, key, spec, scratch, ready, None)?;
        (self.started)(id, &dhow_oci::Digest::sha256_of(key.as_str().as_bytes()).short());
        let mut tail = Tail::default();
        let ended = launch_once(&request, Some(self.stop.as_fd()), &mut |stream, bytes| {
            tail.push(bytes);
            let stream = match stream {
                OutputStream::Stdout => Stream::Stdout,
                OutputStream::Stderr => Stream::Stderr,
            };
            (self.output)(id, stream, bytes);
        });
        let command = run.args.join(" ");
        let ended = ended.map_err(|error| start_error(run, command.clone(), error.to_string()))?;
        ready.points.remove(spec).map_err(while_doing("cannot tidy up after the step"))?;
        match ended.exit_code {
            0 => Ok(()),
            exit_code => Err(StepError::Exit { command, exit_code, output: tail.into_text() }),
        }
    }

    /// Runs the program while the caller talks to it.
    pub(crate) fn interactive(
        &self,
        run: &RunOp,
        key: &SnapshotKey,
        spec: &MountSpec,
        scratch: &Scratch,
        ready: &Ready<'_>,
        (terminal, streams): (bool, ExecStreams<'_>),
    ) -> Result<ExitStatus, DebugError> {
        let interactive = Some(Interactive { terminal, window: None });
        let request = self.request(run, key, spec, scratch, ready, interactive)?;
        Ok(launch_interactive(&request, streams)?)
    }

    fn request(
        &self,
        run: &RunOp,
        key: &SnapshotKey,
        spec: &MountSpec,
        scratch: &Scratch,
        ready: &Ready<'_>,
        interactive: Option<Interactive>,
    ) -> Result<OnceRequest, StoreFailure> {
        let bundle = Bundle::new(scratch.path());
        fs::create_dir_all(bundle.rootfs()).map_err(while_doing(PREPARING))?;
        let dns = DnsConfig::parse(&fs::read_to_string(RESOLV_CONF).unwrap_or_default());
        let network = self.network_of(run);
        let prepared = container(run, network, key, scratch.path(), &dns, ready);
        let (container, hosts) = prepared.map_err(while_doing(PREPARING))?;
        let container = ContainerSpec {
            id_map: self.ids.map(ContainerIds::of_known),
            terminal: interactive.is_some_and(|interactive| interactive.terminal),
            ..container
        };
        let config = container.to_spec().map_err(while_doing(PREPARING))?;
        config
            .save(bundle.config())
            .map_err(|error| StoreFailure::new("cannot write the step's config.json", error))?;
        Ok(OnceRequest {
            id: key.to_string(),
            bundle: scratch.path().to_owned(),
            root: root_mount(spec),
            network: (self.network)(key.as_str(), network, dns, hosts),
            memory: ready.memory.clone(),
            interactive,
        })
    }

    /// Without root there is no bridge to connect a step to: it shares the host's network instead.
    fn network_of(&self, run: &RunOp) -> StepNetwork {
        match (self.ids, run.network) {
            (Some(_), StepNetwork::Default) => StepNetwork::Host,
            (_, network) => network,
        }
    }
}

/// Why a program did not start. One for another machine needs an emulator, which the kernel knows or not.
fn start_error(run: &RunOp, command: String, message: String) -> StepError {
    match &run.foreign {
        Some(platform) if message.to_ascii_lowercase().contains(NOT_EXECUTABLE) => {
            StepError::Foreign { command, platform: Box::new(platform.clone()) }
        }
        _ => StepError::Start { command, message },
    }
}

fn root_mount(spec: &MountSpec) -> RootMount {
    match (&spec.upper, &spec.work) {
        (Some(upper), Some(work)) => {
            RootMount::Overlay { lowers: spec.lowers.clone(), upper: upper.clone(), work: work.clone() }
        }
        _ => RootMount::Directory(spec.lowers.first().cloned().unwrap_or_default()),
    }
}

/// The container of a step, with the files that tell it who and where it is. The second of them may have to be
/// written once more when the network is there.
fn container(
    run: &RunOp,
    network: StepNetwork,
    key: &SnapshotKey,
    dir: &Path,
    dns: &DnsConfig,
    ready: &Ready<'_>,
) -> io::Result<(ContainerSpec, Option<GatewayHosts>)> {
    let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let sandbox = &run.sandbox;
    let hostname = &sandbox.hostname;
    let resolv = match network {
        StepNetwork::Default => resolv_conf(dns),
        StepNetwork::Host => fs::read_to_string(RESOLV_CONF).unwrap_or_default(),
        StepNetwork::None => String::new(),
    };
    let needs_gateway = sandbox.hosts.iter().any(|(_, address)| address.is_none());
    let gateway =
        GatewayHosts { path: dir.join("hosts"), hostname: hostname.clone(), names: sandbox.hosts.clone() };
    let gateway = Some(gateway).filter(|_| needs_gateway && network == StepNetwork::Default);
    // On the host's own network this host is here; without one it is nowhere.
    let this_host = Some(localhost).filter(|_| network == StepNetwork::Host);
    let known: Vec<(String, IpAddr)> = sandbox
        .hosts
        .iter()
        .filter_map(|(name, address)| Some((name.clone(), address.or(this_host)?)))
        .collect();
    let files = [
        ("/etc/resolv.conf", resolv),
        ("/etc/hosts", hosts(hostname, &[localhost], &known)),
        ("/etc/hostname", dhow_net::hostname(hostname)),
    ];
    let mut mounts = Vec::with_capacity(files.len() + ready.container.len());
    for (target, text) in files {
        let source = dir.join(target.rsplit('/').next().unwrap_or(target));
        fs::write(&source, text)?;
        mounts.push(ContainerMount::Bind {
            source,
            target: target.to_owned(),
            readonly: true,
            propagation: Propagation::Private,
            how: BindHow::default(),
        });
    }
    mounts.extend(ready.container.iter().cloned());
    let network = if network == StepNetwork::Host { NamespaceChoice::Host } else { NamespaceChoice::Private };
    // What the image says wins over where its agent is, and proxies win over both: the later one counts.
    let own = run.env.iter().map(|var| format!("{}={}", var.name, var.value));
    let env = ready.env.iter().cloned().chain(own).chain(run.proxies.iter().cloned());
    let container = ContainerSpec {
        id: key.to_string(),
        args: run.args.clone(),
        env: env.collect(),
        cwd: run.cwd.clone(),
        user: run.user.clone(),
        hostname: hostname.clone(),
        no_hostname_variable: true,
        privileged: sandbox.is_insecure,
        namespaces: Namespaces { network, ..Namespaces::default() },
        mounts,
        rlimits: sandbox.rlimits.clone(),
        resources: sandbox.resources.clone(),
        shm_bytes: sandbox.shm_bytes,
        cgroup_parent: sandbox.cgroup_parent.clone(),
        ..ContainerSpec::default()
    };
    Ok((container, gateway))
}

/// The last lines of a program's output.
#[derive(Default)]
struct Tail {
    lines: VecDeque<Vec<u8>>,
    is_open: bool,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !self.is_open {
                self.lines.push_back(Vec::new());
            }
            let line = self.lines.back_mut().expect("a line was just added or is open");
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let room = LINE_BYTES_KEPT.saturating_sub(line.len());
            line.extend_from_slice(&text[..text.len().min(room)]);
            self.is_open = !piece.ends_with(b"\n");
            if self.lines.len() > OUTPUT_LINES_KEPT {
                self.lines.pop_front();
            }
        }
    }

    fn into_text(self) -> String {
        let lines: Vec<String> =
            self.lines.iter().map(|line| String::from_utf8_lossy(line).trim_end().to_owned()).collect();
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_last_lines() {
        let mut tail = Tail::default();
        for number in 0..100 {
            tail.push(format!("line {number}\n").as_bytes());
        }
        tail.push(b"half ");
        tail.push(b"a line");
        let text = tail.into_text();
        assert_eq!(text.lines().count(), OUTPUT_LINES_KEPT);
        assert!(text.ends_with("line 99\nhalf a line"), "{text}");
    }
}
