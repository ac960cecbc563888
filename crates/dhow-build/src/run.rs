//! `RUN`: a program in a short-lived container on top of a root file system.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use dhow_net::{DnsConfig, hostname, hosts, resolv_conf};
use dhow_runtime::{
    Bundle, ContainerSpec, IdMap as ContainerIds, InMemory, MountSpec as ContainerMount, NamespaceChoice,
    Namespaces, OnceRequest, OutputStream, Propagation, RootMount, launch_once,
};
use dhow_snapshot::{MountSpec, SnapshotKey};
use dhow_solver::VertexId;
use dhow_sys::userns::IdMap;

use crate::error::{StepError, StoreFailure, while_doing};
use crate::event::Stream;
use crate::plan::RunOp;
use crate::request::StepNetwork;
use crate::stop::Stop;

/// What every build step is called inside, so that equal steps see equal names.
const HOSTNAME: &str = "buildkitsandbox";
/// Where the host's resolvers are listed.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Last lines of output that an error repeats.
const OUTPUT_LINES_KEPT: usize = 20;
const LINE_BYTES_KEPT: usize = 1000;

/// What the launcher makes in a root file system so that it can mount over it, deepest first.
const MOUNT_POINTS: [&str; 7] = ["etc/resolv.conf", "etc/hosts", "etc/hostname", "etc", "proc", "sys", "dev"];

/// Says what the launcher must do to give the container with this ID a network, which asks these resolvers.
pub type NetworkRequest<'a> = &'a (dyn Fn(&str, StepNetwork, DnsConfig) -> Option<serde_json::Value> + Sync);

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
struct Scratch(PathBuf);

impl Scratch {
    fn new(dir: PathBuf) -> io::Result<Scratch> {
        fs::create_dir_all(&dir)?;
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It lies in a run-time folder; what stays is gone after the next boot.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl RunSteps<'_> {
    /// Runs the program; the changes it makes are in the snapshot `key`.
    pub(crate) fn run(
        &self,
        id: VertexId,
        run: &RunOp,
        key: &SnapshotKey,
        spec: &MountSpec,
    ) -> Result<(), StepError> {
        const PREPARING: &str = "cannot prepare the container of the step";
        let scratch = Scratch::new(self.run_dir.join(key.as_str())).map_err(while_doing(PREPARING))?;
        let bundle = Bundle::new(&scratch.0);
        fs::create_dir_all(bundle.rootfs()).map_err(while_doing(PREPARING))?;
        let dns = DnsConfig::parse(&fs::read_to_string(RESOLV_CONF).unwrap_or_default());
        let network = self.network_of(run);
        let container = container(run, network, key, &scratch.0, &dns).map_err(while_doing(PREPARING))?;
        let container = ContainerSpec { id_map: self.ids.map(ContainerIds::of_known), ..container };
        let config = container.to_spec().map_err(while_doing(PREPARING))?;
        config
            .save(bundle.config())
            .map_err(|error| StoreFailure::new("cannot write the step's config.json", error))?;
        let request = OnceRequest {
            id: key.to_string(),
            bundle: scratch.0.clone(),
            root: root_mount(spec),
            network: (self.network)(key.as_str(), network, dns),
            memory: InMemory::default(),
        };
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
        let ended = ended
            .map_err(|error| StepError::Start { command: command.clone(), message: error.to_string() })?;
        if ended.exit_code != 0 {
            return Err(StepError::Exit { command, exit_code: ended.exit_code, output: tail.into_text() });
        }
        remove_mount_points(spec).map_err(while_doing("cannot tidy up after the step"))?;
        Ok(())
    }

    /// Without root there is no bridge to connect a step to: it shares the host's network instead.
    fn network_of(&self, run: &RunOp) -> StepNetwork {
        match (self.ids, run.network) {
            (Some(_), StepNetwork::Default) => StepNetwork::Host,
            (_, network) => network,
        }
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

/// The container of a step, with the files that tell it who and where it is.
fn container(
    run: &RunOp,
    network: StepNetwork,
    key: &SnapshotKey,
    dir: &Path,
    dns: &DnsConfig,
) -> io::Result<ContainerSpec> {
    let localhost = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let resolv = match network {
        StepNetwork::Default => resolv_conf(dns),
        StepNetwork::Host => fs::read_to_string(RESOLV_CONF).unwrap_or_default(),
        StepNetwork::None => String::new(),
    };
    let files = [
        ("/etc/resolv.conf", resolv),
        ("/etc/hosts", hosts(HOSTNAME, &localhost, &[])),
        ("/etc/hostname", hostname(HOSTNAME)),
    ];
    let mut mounts = Vec::with_capacity(files.len());
    for (target, text) in files {
        let source = dir.join(target.rsplit('/').next().unwrap_or(target));
        fs::write(&source, text)?;
        mounts.push(ContainerMount::Bind {
            source,
            target: target.to_owned(),
            readonly: true,
            propagation: Propagation::Private,
        });
    }
    let network = if network == StepNetwork::Host { NamespaceChoice::Host } else { NamespaceChoice::Private };
    let env =
        run.proxies.iter().cloned().chain(run.env.iter().map(|var| format!("{}={}", var.name, var.value)));
    Ok(ContainerSpec {
        id: key.to_string(),
        args: run.args.clone(),
        env: env.collect(),
        cwd: run.cwd.clone(),
        user: run.user.clone(),
        hostname: HOSTNAME.to_owned(),
        namespaces: Namespaces { network, ..Namespaces::default() },
        mounts,
        ..ContainerSpec::default()
    })
}

/// Removes from the layer what is there only because something was mounted over it: empty files and
/// directories that no lower layer has, and an empty copy of a directory that one has.
fn remove_mount_points(spec: &MountSpec) -> io::Result<()> {
    let Some(upper) = &spec.upper else { return Ok(()) };
    for point in MOUNT_POINTS {
        let path = upper.join(point);
        let Ok(held) = fs::symlink_metadata(&path) else { continue };
        let below = spec.lowers.iter().find_map(|lower| fs::symlink_metadata(lower.join(point)).ok());
        let below = below.filter(|metadata| !metadata.file_type().is_char_device());
        if held.is_file() && held.len() == 0 && below.is_none() {
            fs::remove_file(&path)?;
        }
        let is_copy = below.is_none_or(|below| {
            below.is_dir()
                && (below.mode(), below.uid(), below.gid()) == (held.mode(), held.uid(), held.gid())
        });
        if held.is_dir() && is_copy && fs::read_dir(&path)?.next().is_none() {
            fs::remove_dir(&path)?;
        }
    }
    Ok(())
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
