//! Containers made by an OCI runtime binary such as `runc`.
//!
//! The bundle is ours; the binary gets a copy of the configuration in which names are replaced by what they
//! stand for, and a root file system mounted in a mount namespace that the shim makes for itself.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dhow_sys::mount::Propagation;
use dhow_sys::process::{self, Child, CloneNamespaces};
use dhow_sys::{beneath::Root, mount, overlay};
use oci_spec::runtime::{Spec, UserBuilder};

use super::native::identity_in;
use super::rootfs;
use super::step::Step;
use super::{Created, Creation, Running, Runtime, StdioPlan, cgroup_of, sync};
use crate::{Bundle, RootMount, StartError};

/// The most that is read of the program's log.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// An OCI runtime binary.
pub(crate) struct OciProgram {
    program: PathBuf,
}

impl OciProgram {
    /// The binary `program`, by path or by name in the search path.
    pub(crate) fn new(program: &Path) -> Self {
        OciProgram { program: program.to_path_buf() }
    }
}

impl Runtime for OciProgram {
    fn create(&self, creation: Creation<'_>) -> Result<Box<dyn Created>, StartError> {
        if !creation.memory.is_empty() {
            let message = "an OCI runtime is told everything by a file, and secrets are kept in none";
            return Err(StartError::Setup(message.into()));
        }
        // The container's processes become ours when the binary that made them ends.
        process::become_subreaper().step("cannot adopt the container's process")?;
        let root = mount_root(creation.root, &creation.bundle.rootfs())?;
        let call =
            Call { program: self.program.clone(), folder: folder(creation.bundle), id: creation.id.into() };
        let spec = call.prepare(&creation, root)?;
        let container = Container { call, spec, started: false };
        let terminal = container.call.create(creation.stdio)?;
        let pid = container.call.pid()?;
        let pidfd = process::open_pidfd(pid).step("cannot open the container's process")?;
        Ok(Box::new(Made { container, child: Child { pid, pidfd }, terminal }))
    }
}

fn folder(bundle: &Bundle) -> PathBuf {
    bundle.dir().join("oci")
}

/// Mounts the root file system where nobody but this process and its children see it.
fn mount_root(root: &RootMount, mount_point: &Path) -> Result<Root, StartError> {
    fs::create_dir_all(mount_point).step(format_args!("cannot create {}", mount_point.display()))?;
    CloneNamespaces::MOUNT.unshare().step("cannot create a mount namespace")?;
    mount::isolate_mounts(Propagation::Slave).step("cannot isolate mounts")?;
    let mounted: OwnedFd = match root {
        RootMount::Directory(path) => {
            mount::copy_tree_at(path, true).step(format_args!("cannot bind {}", path.display()))?
        }
        RootMount::Overlay { lowers, upper, work } => {
            let lowers: Vec<overlay::Layer<'_>> =
                lowers.iter().map(|path| overlay::Layer::Path(path)).collect();
            let upper =
                overlay::Upper { upper: overlay::Layer::Path(upper), work: overlay::Layer::Path(work) };
            overlay::mount(&lowers, Some(upper), overlay::Options::default())
                .step("cannot mount root file system")?
                .into()
        }
    };
    let point = File::open(mount_point).step(format_args!("cannot open {}", mount_point.display()))?;
    mount::attach(mounted.as_fd(), point.as_fd()).step("cannot attach root file system")?;
    Ok(Root::from_fd(mounted))
}

/// One container as the binary knows it.
struct Call {
    program: PathBuf,
    folder: PathBuf,
    id: String,
}

impl Call {
    /// Writes the configuration for the binary.
    fn prepare(&self, creation: &Creation<'_>, root: Root) -> Result<Spec, StartError> {
        fs::create_dir_all(&self.folder).step(format_args!("cannot create {}", self.folder.display()))?;
        let mut spec = creation.spec.clone();
        let identity = identity_in(&root, &spec)?;
        let mut oci_root = spec.root().clone().unwrap_or_default();
        oci_root.set_path(creation.bundle.rootfs());
        spec.set_root(Some(oci_root));
        if let Some(process) = spec.process_mut() {
            let user =
                UserBuilder::default().uid(identity.uid).gid(identity.gid).additional_gids(identity.groups);
            process.set_user(user.build().step("cannot describe the user")?);
            if identity.uid != 0
                && let Some(mut capabilities) = process.capabilities().clone()
            {
                capabilities.set_effective(None).set_permitted(None).set_ambient(None);
                process.set_capabilities(Some(capabilities));
            }
        }
        self.make_special_mounts(&mut spec)?;
        spec.save(self.folder.join("config.json")).step("cannot write the runtime's config.json")?;
        Ok(spec)
    }

    /// Makes those mounts that the runtime specification has no words for, in the shim's own mount namespace, and leaves
    /// the binary plain ones.
    fn make_special_mounts(&self, spec: &mut Spec) -> Result<(), StartError> {
        let folder = self.folder.join("mounts");
        let mut entries = spec.mounts().clone().unwrap_or_default();
        for (number, entry) in entries.iter_mut().enumerate() {
            let destination = entry.destination().display().to_string();
            let mut step = || -> std::io::Result<()> {
                let point = folder.join(number.to_string());
                let stack = folder.join(format!("{number}-stack"));
                fs::create_dir_all(&stack)?;
                let Some((tree, options)) = rootfs::special(entry, &stack)? else { return Ok(()) };
                let is_dir = File::from(tree.try_clone()?).metadata()?.is_dir();
                if is_dir {
                    fs::create_dir_all(&point)?;
                } else {
                    File::create(&point)?;
                }
                let target = rustix::fs::open(&point, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty())?;
                mount::attach(tree.as_fd(), target.as_fd())?;
                entry.set_typ(Some("bind".into()));
                entry.set_source(Some(point));
                entry.set_options(Some(options));
                Ok(())
            };
            step().step(format_args!("error mounting to rootfs at {destination}"))?;
        }
        spec.set_mounts(Some(entries));
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.folder.join("state"));
        command.arg("--log").arg(self.log()).args(["--log-format", "json"]);
        command
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log.json")
    }

    fn pid_file(&self) -> PathBuf {
        self.folder.join("pid")
    }

    fn create(&self, stdio: StdioPlan) -> Result<Option<OwnedFd>, StartError> {
        let mut command = self.command();
        command.arg("create").arg("--bundle").arg(&self.folder).arg("--pid-file").arg(self.pid_file());
        match stdio {
            StdioPlan::Files([stdin, stdout, stderr]) => {
                command.stdin(stdin).stdout(stdout).stderr(stderr).arg(&self.id);
                self.run(command)?;
                Ok(None)
            }
            StdioPlan::Terminal(size) => {
                let path = self.folder.join("console.sock");
                // One of an earlier run may have been left.
                let _ = fs::remove_file(&path);
                let listener = UnixListener::bind(&path).step("cannot listen for the terminal")?;
                command.arg("--console-socket").arg(&path).arg(&self.id);
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                self.run(command)?;
                let (socket, _) = listener.accept().step("cannot receive the terminal")?;
                let (_, terminal) = sync::receive(&socket).step("cannot receive the terminal")?;
                let terminal =
                    terminal.ok_or_else(|| StartError::Setup("the runtime sent no terminal".into()))?;
                if let Some(size) = size {
                    dhow_sys::tty::set_size(terminal.as_fd(), size.rows, size.columns)
                        .step("cannot set the terminal's size")?;
                }
                Ok(Some(terminal))
            }
        }
    }

    fn run(&self, mut command: Command) -> Result<(), StartError> {
        let shown = self.program.display().to_string();
        let status = command.status().step(format_args!("cannot run {shown}"))?;
        match status.success() {
            true => Ok(()),
            false => Err(classify(self.last_error().unwrap_or_else(|| format!("{shown} failed: {status}")))),
        }
    }

    /// The last error in the log, which is a JSON object a line.
    fn last_error(&self) -> Option<String> {
        let log = File::open(self.log()).ok()?.take(LOG_BYTES_MAX);
        let lines = BufReader::new(log).lines().map_while(Result::ok);
        let entries = lines.filter_map(|line| serde_json::from_str::<serde_json::Value>(&line).ok());
        let errors = entries.filter(|entry| entry["level"] == "error");
        errors.filter_map(|entry| entry["msg"].as_str().map(str::to_string)).last()
    }

    fn pid(&self) -> Result<i32, StartError> {
        let text = fs::read_to_string(self.pid_file()).step("cannot read the container's process id")?;
        text.trim().parse().step("cannot read the container's process id")
    }
}

fn classify(text: String) -> StartError {
    let has = |part: &str| text.contains(part);
    if has("executable file not found") || (has("exec: ") && has("no such file or directory")) {
        StartError::NotFound(text)
    } else if has("exec: ") && (has("permission denied") || has("is a directory")) {
        StartError::NotExecutable(text)
    } else {
        StartError::Setup(text)
    }
}

struct Made {
    container: Container,
    child: Child,
    terminal: Option<OwnedFd>,
}

impl Created for Made {
    fn network_namespace(&self) -> Result<OwnedFd, StartError> {
        let path = format!("/proc/{}/ns/net", self.child.pid);
        File::open(path).map(OwnedFd::from).step("cannot open the network namespace")
    }

    fn start(self: Box<Self>) -> Result<Running, StartError> {
        let Made { mut container, child, terminal } = *self;
        let mut command = container.call.command();
        command.arg("start").arg(&container.call.id).stdin(Stdio::null());
        container.call.run(command)?;
        container.started = true;
        let cgroup = cgroup_of(&container.spec)?;
        Ok(Running {
            child,
            terminal,
            cgroup,
            root: None,
            forget: Some(Box::new(move || container.delete())),
        })
    }
}

/// A container the binary knows; deleted if it was never started.
struct Container {
    call: Call,
    spec: Spec,
    started: bool,
}

impl Container {
    fn delete(&self) {
        let mut command = self.call.command();
        command.args(["delete", "--force"]).arg(&self.call.id);
        // What it leaves behind is removed with the bundle.
        let _ = self.call.run(command);
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if !self.started {
            self.delete();
        }
    }
}
