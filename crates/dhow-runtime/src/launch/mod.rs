//! Making a container out of a bundle.

mod device;
mod init;
mod native;
mod oci;
mod program;
mod rootfs;
mod seccomp;
mod step;
mod sync;
mod user;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use dhow_sys::cgroup::Cgroup;
use dhow_sys::process::Child;
use dhow_sys::seccomp::Program;
use oci_spec::runtime::{LinuxNamespaceType, Spec};

pub(crate) use native::{Native, apply_limits, groups_are_fixed, identity_in, namespaces_of};
pub(crate) use oci::OciProgram;
pub(crate) use program::{Stdio, Target, take_stdio};
pub(crate) use step::Step;
pub(crate) use sync::{Said, Sync, first_word};
pub(crate) use user::{Identity, resolve};

use crate::{Bundle, InMemory, RootMount, RuntimeChoice, StartError, WindowSize};

/// Who makes containers.
///
/// Creating and starting are two acts: in between the namespaces exist and the program does not run yet, which
/// is the time to connect the network. A [`Created`] that is dropped is undone.
///
/// Implementations may only be used by a process with a single thread.
pub(crate) trait Runtime {
    /// Makes the namespaces and everything in them.
    fn create(&self, creation: Creation<'_>) -> Result<Box<dyn Created>, StartError>;
}

/// A container whose program does not run yet.
pub(crate) trait Created {
    /// The network namespace the program will run in.
    fn network_namespace(&self) -> Result<OwnedFd, StartError>;
    /// Starts the program.
    fn start(self: Box<Self>) -> Result<Running, StartError>;
}

/// What a container is made of.
pub(crate) struct Creation<'a> {
    /// The container's id.
    pub id: &'a str,
    /// Its folder.
    pub bundle: &'a Bundle,
    /// Its configuration.
    pub spec: &'a Spec,
    /// Its root file system.
    pub root: &'a RootMount,
    /// What its standard descriptors are.
    pub stdio: StdioPlan,
    /// What is written to no disk.
    pub memory: &'a InMemory,
    /// The writable layer is thrown away if the machine stops, and synced by who keeps it otherwise: the end of
    /// the container need not wait for the disk.
    pub volatile: bool,
}

/// What the standard descriptors of a container are.
#[derive(Debug)]
pub(crate) enum StdioPlan {
    /// These.
    Files([OwnedFd; 3]),
    /// A terminal of the container, of this size.
    Terminal(Option<WindowSize>),
}

/// A container whose program runs.
pub(crate) struct Running {
    /// The container's init, a child of this process.
    pub child: Child,
    /// The side of the keyboard and screen, if it has a terminal.
    pub terminal: Option<OwnedFd>,
    /// Its group.
    pub cgroup: Cgroup,
    /// Keeps the root file system from being unmounted, which syncs it, while the end is not told yet.
    pub root: Option<OwnedFd>,
    /// What is left to do once it ended, apart from the group.
    pub forget: Option<Box<dyn FnOnce()>>,
}

impl Running {
    /// Removes what the container leaves behind. Its init has ended and was waited for.
    pub(crate) fn remove(mut self) -> Result<(), StartError> {
        self.root = None;
        // Without a pid namespace of its own, other processes may still be there.
        self.cgroup.kill().step("cannot kill the rest of the container")?;
        if let Some(forget) = self.forget.take() {
            forget();
        }
        self.cgroup.remove().step("cannot remove the control group")
    }
}

/// The runtime that was chosen.
pub(crate) fn runtime(choice: &RuntimeChoice) -> Box<dyn Runtime> {
    match choice {
        RuntimeChoice::Native => Box::new(Native),
        RuntimeChoice::Oci { program } => Box::new(OciProgram::new(program)),
    }
}

/// Reads the configuration of a bundle.
pub(crate) fn read_spec(bundle: &Bundle) -> Result<Spec, StartError> {
    let path = bundle.config();
    Spec::load(&path).step(format_args!("cannot read {}", path.display()))
}

/// The filter of the configuration, if it has one.
pub(crate) fn seccomp_of(spec: &Spec) -> Result<Option<Program>, StartError> {
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    profile.map(seccomp::compile).transpose()
}

/// The group the configuration names.
pub(crate) fn cgroup_of(spec: &Spec) -> Result<Cgroup, StartError> {
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    match path.and_then(Path::to_str) {
        Some(path) => Cgroup::new(path).step("cannot use control groups"),
        None => Ok(Cgroup::none()),
    }
}

/// Whether the container has its own namespace of this kind.
pub(crate) fn has_own(spec: &Spec, kind: LinuxNamespaceType) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.is_some_and(|list| list.iter().any(|known| known.typ() == kind && known.path().is_none()))
}

/// A copy of `fd` that does not collide with the standard descriptors.
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, StartError> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3).step("cannot duplicate a descriptor")
}
