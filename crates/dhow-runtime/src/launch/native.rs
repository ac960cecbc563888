//! dhow's own launcher.
//!
//! One clone makes all namespaces. The new process first waits until it is in its control group (and its user
//! ids are mapped), builds its file system while the network is connected from outside, gives up its rights,
//! says that it is ready, and on the last word becomes the program.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use dhow_sys::cgroup::{Cgroup, DeviceKind, DeviceRule, IoKind, IoLimit, Limits};
use dhow_sys::process::{self, Child, CloneNamespaces, Cloned};
use dhow_sys::{mount, tty};
use oci_spec::runtime::{
    LinuxBlockIo, LinuxDeviceCgroup, LinuxDeviceType, LinuxIdMapping, LinuxNamespaceType,
    LinuxThrottleDevice, Spec,
};
use rustix::process::{Gid, Uid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::program::{Stdio, Target, take_stdio};
use super::rootfs::{self, Plan, Rootfs};
use super::step::Step;
use super::sync::{Said, Sync};
use super::user::{self, Identity};
use super::{Created, Creation, Running, Runtime, StdioPlan, has_own, init};
use crate::StartError;
use crate::spec::{ANNOTATION_GROUPS, ANNOTATION_INIT};

/// dhow's own launcher.
pub(crate) struct Native;

impl Runtime for Native {
    fn create(&self, creation: Creation<'_>) -> Result<Box<dyn Created>, StartError> {
        let mount_point = creation.bundle.rootfs();
        fs::create_dir_all(&mount_point).step(format_args!("cannot create {}", mount_point.display()))?;
        let cgroup = make_cgroup(creation.spec)?;
        let (ours, theirs) = Sync::pair()?;
        let shim = process::open_pidfd(std::process::id() as i32).step("cannot open the shim's own pidfd")?;
        let own_pids = enter_pid_namespace(creation.spec)?;
        match process::clone(own_namespaces(creation.spec)).step("cannot create the container's process")? {
            Cloned::Child => {
                drop(ours);
                Inside { creation: &creation, mount_point: &mount_point, cgroup: &cgroup, shim: &shim }
                    .run(theirs)
            }
            Cloned::Parent(child) => {
                drop(theirs);
                if let Some(own) = own_pids {
                    // Whose children go elsewhere cannot have threads, and the network is set up on one.
                    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID))
                        .step("cannot come back to the shim's own process namespace")?;
                }
                let unstarted = Unstarted { child: Some(child), cgroup: cgroup.clone() };
                let child = unstarted.child.as_ref().expect("just put there");
                cgroup.add(child.pid).step("cannot join the control group")?;
                map_ids(creation.spec, child.pid)?;
                ours.go()?;
                Ok(Box::new(Made { unstarted, sync: ours }))
            }
        }
    }
}

/// A container whose program does not run yet.
struct Made {
    unstarted: Unstarted,
    sync: Sync,
}

impl Created for Made {
    fn network_namespace(&self) -> Result<OwnedFd, StartError> {
        let pid = self.unstarted.child.as_ref().expect("taken only by start").pid;
        let opened = File::open(format!("/proc/{pid}/ns/net"));
        // A process that is gone has said why.
        if opened.is_err()
            && let Some(cause) = self.sync.failure()
        {
            return Err(cause);
        }
        opened.map(OwnedFd::from).step("cannot open the network namespace")
    }

    fn start(mut self: Box<Self>) -> Result<Running, StartError> {
        let (mut terminal, mut root) = (None, None);
        loop {
            match self.sync.listen()? {
                Said::Terminal(master) => terminal = Some(master),
                Said::Root(fd) => root = Some(fd),
                Said::Ready => break,
                Said::Failed(error) => return Err(error),
                Said::Gone => {
                    return Err(StartError::Setup("the container's process died during set-up".into()));
                }
            }
        }
        self.sync.go()?;
        match self.sync.listen()? {
            Said::Failed(error) => Err(error),
            _ => {
                let child = self.unstarted.child.take().expect("taken only here");
                Ok(Running { child, terminal, cgroup: self.unstarted.cgroup.clone(), root, forget: None })
            }
        }
    }
}

/// A container's process that is killed unless it was started.
struct Unstarted {
    child: Option<Child>,
    cgroup: Cgroup,
}

impl Drop for Unstarted {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            // It may be gone already; the group of one that is gone can be removed.
            let _ = process::send_signal(child.pidfd.as_fd(), rustix::process::Signal::KILL.as_raw());
            let _ = process::wait(child.pidfd.as_fd());
            let _ = self.cgroup.remove();
        }
    }
}

fn make_cgroup(spec: &Spec) -> Result<Cgroup, StartError> {
    let cgroup = super::cgroup_of(spec)?;
    match cgroup.create() {
        Ok(()) => {}
        // Rootless and nothing delegated to us: go without, unless a limit is asked for.
        Err(error) if has_own(spec, LinuxNamespaceType::User) && is_refusal(&error) => {
            let none = Cgroup::none();
            none.set(&limits(spec)).step("cannot set resource limits")?;
            return Ok(none);
        }
        Err(error) => return Err(error).step("cannot create the control group"),
    }
    let set = cgroup.set(&limits(spec)).step("cannot set resource limits");
    if set.is_err() {
        // The error that matters is the one above.
        let _ = cgroup.remove();
    }
    set.map(|()| cgroup)
}

/// Gives a running container the limits that its configuration has now. Which devices it may use stays.
pub(crate) fn apply_limits(spec: &Spec) -> Result<(), StartError> {
    let (cgroup, limits) = (super::cgroup_of(spec)?, Limits { devices: Vec::new(), ..limits(spec) });
    if cgroup.set(&limits).is_ok() {
        return Ok(());
    }
    // Where memory is not to exceed memory with swap, which of the two comes first depends on what they were.
    let swap = Limits { memory_swap_bytes: limits.memory_swap_bytes, ..Limits::default() };
    let _ = cgroup.set(&swap);
    cgroup.set(&limits).step("cannot set resource limits")
}

fn is_refusal(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem)
}

fn limits(spec: &Spec) -> Limits {
    let Some(resources) = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()) else {
        return Limits::default();
    };
    let memory = resources.memory().as_ref();
    let cpu = resources.cpu().as_ref();
    Limits {
        memory_bytes: memory.and_then(|memory| memory.limit()),
        memory_swap_bytes: memory.and_then(|memory| memory.swap()),
        cpu_shares: cpu.and_then(|cpu| cpu.shares()),
        cpu_quota_us: cpu.and_then(|cpu| cpu.quota()),
        cpu_period_us: cpu.and_then(|cpu| cpu.period()),
        cpuset_cpus: cpu.and_then(|cpu| cpu.cpus().clone()),
        cpuset_mems: cpu.and_then(|cpu| cpu.mems().clone()),
        pids_max: resources.pids().as_ref().map(|pids| pids.limit()),
        memory_reservation_bytes: memory.and_then(|memory| memory.reservation()),
        memory_swappiness: memory.and_then(|memory| memory.swappiness()),
        oom_kill_disable: memory.and_then(|memory| memory.disable_oom_killer()).unwrap_or(false),
        cpu_rt_runtime_us: cpu.and_then(|cpu| cpu.realtime_runtime()),
        cpu_rt_period_us: cpu.and_then(|cpu| cpu.realtime_period()),
        io_weight: resources.block_io().as_ref().and_then(|io| io.weight()),
        io: resources.block_io().as_ref().map(io_limits).unwrap_or_default(),
        devices: resources.devices().iter().flatten().map(device_rule).collect(),
    }
}

fn io_limits(io: &LinuxBlockIo) -> Vec<IoLimit> {
    let weights = io.weight_device().iter().flatten().map(|device| IoLimit {
        kind: IoKind::Weight,
        major: device.major(),
        minor: device.minor(),
        value: device.weight().unwrap_or_default().into(),
    });
    let throttles = [
        (IoKind::ReadBps, io.throttle_read_bps_device()),
        (IoKind::WriteBps, io.throttle_write_bps_device()),
        (IoKind::ReadIops, io.throttle_read_iops_device()),
        (IoKind::WriteIops, io.throttle_write_iops_device()),
    ];
    let throttles = throttles.into_iter().flat_map(|(kind, devices)| {
        let limit = move |device: &LinuxThrottleDevice| {
            let (major, minor, value) = (device.major(), device.minor(), device.rate());
            IoLimit { kind, major, minor, value }
        };
        devices.iter().flatten().map(limit)
    });
    weights.chain(throttles).collect()
}

fn device_rule(rule: &LinuxDeviceCgroup) -> DeviceRule {
    let access = rule.access().as_deref().unwrap_or("rwm");
    let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    DeviceRule {
        allow: rule.allow(),
        kind: match rule.typ() {
            Some(LinuxDeviceType::B) => DeviceKind::Block,
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => DeviceKind::Character,
            _ => DeviceKind::All,
        },
        major: number(rule.major()),
        minor: number(rule.minor()),
        read: access.contains('r'),
        write: access.contains('w'),
        mknod: access.contains('m'),
    }
}

const NAMESPACES: [(LinuxNamespaceType, CloneNamespaces); 7] = [
    (LinuxNamespaceType::Mount, CloneNamespaces::MOUNT),
    (LinuxNamespaceType::Uts, CloneNamespaces::UTS),
    (LinuxNamespaceType::Ipc, CloneNamespaces::IPC),
    (LinuxNamespaceType::User, CloneNamespaces::USER),
    (LinuxNamespaceType::Pid, CloneNamespaces::PID),
    (LinuxNamespaceType::Network, CloneNamespaces::NETWORK),
    (LinuxNamespaceType::Cgroup, CloneNamespaces::CGROUP),
];

/// The namespaces to clone. The cgroup namespace comes later: it starts where its maker is.
fn own_namespaces(spec: &Spec) -> CloneNamespaces {
    let own = NAMESPACES.into_iter().filter(|(kind, _)| has_own(spec, *kind));
    // Without a mount namespace the host would be rebuilt, so there always is one.
    own.fold(CloneNamespaces::MOUNT, |all, (_, kind)| all.with(kind)).without(CloneNamespaces::CGROUP)
}

/// The namespaces in which a container differs from the host, its own and those it joined.
pub(crate) fn namespaces_of(spec: &Spec) -> CloneNamespaces {
    let list = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let mentioned = |kind| list.is_some_and(|list| list.iter().any(|namespace| namespace.typ() == kind));
    let kinds = NAMESPACES.into_iter().filter(|(kind, _)| mentioned(*kind));
    kinds.fold(CloneNamespaces::MOUNT, |all, (_, kind)| all.with(kind))
}

/// Namespaces to join, by path.
fn foreign_namespaces(spec: &Spec) -> impl Iterator<Item = (LinuxNamespaceType, &Path)> {
    let list = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    list.into_iter().flatten().filter_map(|namespace| Some((namespace.typ(), namespace.path().as_deref()?)))
}

fn join(kind: LinkNameSpaceType, path: &Path) -> Result<(), StartError> {
    let file = File::open(path).step(format_args!("cannot open namespace {}", path.display()))?;
    move_into_link_name_space(file.as_fd(), Some(kind))
        .step(format_args!("cannot join namespace {}", path.display()))
}

/// A pid namespace takes effect for children, so it is joined by the one who clones.
/// Returns the way back.
fn enter_pid_namespace(spec: &Spec) -> Result<Option<File>, StartError> {
    let mut foreign = foreign_namespaces(spec);
    match foreign.find(|(kind, _)| *kind == LinuxNamespaceType::Pid) {
        Some((_, path)) => {
            let own = File::open("/proc/self/ns/pid").step("cannot open the shim's own process namespace")?;
            join(LinkNameSpaceType::ProcessID, path)?;
            Ok(Some(own))
        }
        None => Ok(None),
    }
}

/// Says which ids of the host stand behind those of the container's user namespace.
fn map_ids(spec: &Spec, pid: i32) -> Result<(), StartError> {
    if !has_own(spec, LinuxNamespaceType::User) {
        return Ok(());
    }
    let linux = spec.linux().as_ref();
    let text = |mappings: Option<&Vec<LinuxIdMapping>>| -> String {
        let lines = mappings.into_iter().flatten();
        lines.map(|map| format!("{} {} {}\n", map.container_id(), map.host_id(), map.size())).collect()
    };
    let write = |file: &str, text: &str| {
        fs::write(format!("/proc/{pid}/{file}"), text)
            .step(format_args!("cannot write {file} of the user namespace"))
    };
    if !rustix::process::geteuid().is_root() {
        // The kernel's condition for an ordinary user to map a group.
        write("setgroups", "deny")?;
    }
    write("uid_map", &text(linux.and_then(|linux| linux.uid_mappings().as_ref())))?;
    write("gid_map", &text(linux.and_then(|linux| linux.gid_mappings().as_ref())))
}

/// The new process.
struct Inside<'a> {
    creation: &'a Creation<'a>,
    mount_point: &'a Path,
    cgroup: &'a Cgroup,
    shim: &'a OwnedFd,
}

impl Inside<'_> {
    fn run(&self, mut sync: Sync) -> ! {
        let error = match self.become_program(&mut sync) {
            Ok(never) => match never {},
            Err(error) => error,
        };
        sync.fail(&error);
        std::process::exit(1)
    }

    fn become_program(&self, sync: &mut Sync) -> Result<std::convert::Infallible, StartError> {
        process::die_with_parent(self.shim.as_fd()).step("cannot follow the shim")?;
        sync.wait()?;
        let spec = self.creation.spec;
        let process =
            spec.process().as_ref().ok_or_else(|| StartError::Setup("no process in config.json".into()))?;
        let seccomp = super::seccomp_of(spec)?;
        self.enter_namespaces()?;
        let rootfs = self.plan().build()?;
        if !self.creation.volatile {
            sync.root(rootfs.root.as_fd())?;
        }
        let identity = self.identity(&rootfs)?;
        rootfs::make_cwd(&rootfs, process.cwd())?;
        let stdio = self.stdio(&rootfs, &identity, sync)?;
        mount::pivot_root(rootfs.root.as_fd()).step("cannot change the root directory")?;
        take_stdio(stdio)?;
        let fixed_groups = self.user_namespace() && groups_are_fixed();
        let target = Target {
            process,
            extra_env: &self.creation.memory.env,
            identity: &identity,
            seccomp: seccomp.as_ref(),
            fixed_groups,
        };
        if annotation(spec, ANNOTATION_INIT).is_some() {
            process::hide().step("cannot hide init")?;
            init::split(|| {
                target.restrict()?;
                process::die_with_parent(self.shim.as_fd()).step("cannot follow the shim")
            })?;
        }
        Err(target.become_it(|| {
            // A change of user forgot it.
            process::die_with_parent(self.shim.as_fd()).step("cannot follow the shim")?;
            sync.ready()?;
            sync.wait()
        }))
    }

    fn user_namespace(&self) -> bool {
        has_own(self.creation.spec, LinuxNamespaceType::User)
    }

    fn plan(&self) -> Plan<'_> {
        Plan {
            spec: self.creation.spec,
            root: self.creation.root,
            mount_point: self.mount_point,
            cgroup: self.cgroup,
            memory: &self.creation.memory.files,
            user_namespace: self.user_namespace(),
            volatile: self.creation.volatile,
        }
    }

    fn enter_namespaces(&self) -> Result<(), StartError> {
        let spec = self.creation.spec;
        for (kind, path) in foreign_namespaces(spec) {
            match kind {
                LinuxNamespaceType::Network => join(LinkNameSpaceType::Network, path)?,
                LinuxNamespaceType::Ipc => join(LinkNameSpaceType::InterProcessCommunication, path)?,
                LinuxNamespaceType::Uts => join(LinkNameSpaceType::HostNameAndNISDomainName, path)?,
                LinuxNamespaceType::Cgroup => join(LinkNameSpaceType::ControlGroup, path)?,
                LinuxNamespaceType::Pid => {}
                kind => return Err(StartError::Setup(format!("cannot join a namespace of kind {kind}"))),
            }
        }
        if self.user_namespace() {
            rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)
                .step("cannot become group 0")?;
            rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
                .step("cannot become user 0")?;
        }
        if has_own(spec, LinuxNamespaceType::Cgroup) {
            CloneNamespaces::CGROUP.unshare().step("cannot create a cgroup namespace")?;
        }
        if let Some(name) = spec.hostname() {
            rustix::system::sethostname(name.as_bytes()).step("cannot set the host name")?;
        }
        if let Some(name) = spec.domainname() {
            rustix::system::setdomainname(name.as_bytes()).step("cannot set the domain name")?;
        }
        Ok(())
    }

    fn identity(&self, rootfs: &Rootfs) -> Result<Identity, StartError> {
        let root = rootfs.view().step("cannot open root file system")?;
        identity_in(&root, self.creation.spec)
    }

    fn stdio(&self, rootfs: &Rootfs, identity: &Identity, sync: &Sync) -> Result<Stdio, StartError> {
        match &self.creation.stdio {
            StdioPlan::Files([stdin, stdout, stderr]) => Ok(Stdio::Files([
                super::duplicate(stdin.as_fd())?,
                super::duplicate(stdout.as_fd())?,
                super::duplicate(stderr.as_fd())?,
            ])),
            StdioPlan::Terminal(size) => {
                let devpts = rootfs.devpts.as_ref();
                let devpts = devpts.ok_or_else(|| StartError::Setup("a terminal needs /dev/pts".into()))?;
                let pty = tty::open_pty(devpts.as_fd()).step("cannot open a terminal")?;
                if let Some(size) = size {
                    tty::set_size(pty.master.as_fd(), size.rows, size.columns)
                        .step("cannot set the terminal's size")?;
                }
                rustix::fs::fchown(&pty.slave, Some(Uid::from_raw(identity.uid)), None)
                    .step("cannot give the terminal to the user")?;
                sync.terminal(pty.master.as_fd())?;
                rootfs::mount_console(rootfs, &pty.slave)?;
                Ok(Stdio::Terminal(pty.slave))
            }
        }
    }
}

/// Whom the configuration says the program runs as: by name if there is one, else by number.
pub(crate) fn identity_in(root: &dhow_sys::beneath::Root, spec: &Spec) -> Result<Identity, StartError> {
    let Some(configured) = spec.process().as_ref().map(|process| process.user()) else {
        return Ok(Identity::default());
    };
    let extra: Vec<&str> =
        annotation(spec, ANNOTATION_GROUPS).map(|list| list.split(',').collect()).unwrap_or_default();
    match configured.username() {
        Some(name) => user::resolve(root, name, &extra),
        None => {
            let mut identity = user::resolve(root, &configured.uid().to_string(), &extra)?;
            identity.gid = configured.gid();
            identity.groups = configured.additional_gids().clone().unwrap_or_default();
            Ok(identity)
        }
    }
}

fn annotation<'a>(spec: &'a Spec, name: &str) -> Option<&'a str> {
    spec.annotations().as_ref()?.get(name).map(String::as_str)
}

/// Whether the user namespace denies setgroups.
pub(crate) fn groups_are_fixed() -> bool {
    fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny")
}
