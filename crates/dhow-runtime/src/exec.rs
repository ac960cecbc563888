//! One more process inside a running container.
//!
//! The command executes itself again as a single-threaded helper, which joins the container's namespaces through
//! the pidfd of its init, clones, and lets the copy become the program. Without a terminal the program gets the
//! caller's own files, so nothing stands between them; with one, the helper hands its side of it to the caller.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio as CommandStdio;

use dhow_sys::beneath::Root;
use dhow_sys::capability::Capability;
use dhow_sys::cgroup::{Cgroup, Entrance};
use dhow_sys::process::{self, Child, CloneNamespaces, Cloned};
use dhow_sys::seccomp::Program;
use dhow_sys::tty;
use oci_spec::runtime::{LinuxCapabilitiesBuilder, LinuxNamespaceType, Process, Spec};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::attach::{DetachWatch, SignalProxy, Terminal, read_some};
use crate::launch::{self, Identity, Said, Stdio, Step, Sync, Target, duplicate, take_stdio};
use crate::spawn::{self, Given, Passed, Role};
use crate::{Bundle, ExecRequest, RunDir, StartError, client};

/// How much is moved between two terminals at once.
const READ_BYTES: usize = 32 * 1024;
/// The file system of terminals, as statfs knows it.
const DEVPTS_SUPER_MAGIC: u64 = 0x1cd1;

/// What the program reads from and writes to.
#[derive(Clone, Copy)]
pub struct ExecStreams<'a> {
    /// Input. `None`: there is none.
    pub stdin: Option<BorrowedFd<'a>>,
    /// Output; all of it if there is a terminal.
    pub stdout: BorrowedFd<'a>,
    /// Error output.
    pub stderr: BorrowedFd<'a>,
    /// The keys that detach, watched for in a terminal. Empty: none.
    pub detach_keys: &'a [u8],
    /// Tells of changes of the terminal's size.
    pub signals: Option<&'a SignalProxy>,
}

/// How a call of [`exec`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecEnd {
    /// The program ended with this code, 128 + the signal if it was killed.
    Exited(i32),
    /// The program goes on.
    Detached,
}

/// What the helper is asked.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    run_dir: PathBuf,
    bundle: PathBuf,
    request: ExecRequest,
}

/// Runs one more process in a running container, to its end unless it is detached.
pub fn exec(
    run_dir: &RunDir,
    bundle: &Bundle,
    request: &ExecRequest,
    streams: ExecStreams<'_>,
) -> Result<ExecEnd, StartError> {
    let order = Order {
        run_dir: run_dir.dir().to_path_buf(),
        bundle: bundle.dir().to_path_buf(),
        request: ExecRequest { window: request.window.or(window(&streams)), ..request.clone() },
    };
    let mut control = spawn::helper(Role::Exec, &order, stdio(request, &streams)?, Passed::default())?;
    let master = hear_start(&control)?;
    if request.detach {
        return Ok(ExecEnd::Detached);
    }
    if let Some(master) = master
        && pump(File::from(master), &streams).step("cannot serve the terminal")? == Pumped::Detached
    {
        // Told to, the helper lets the program live without us.
        control.write_all(&[0]).step("cannot detach")?;
        return Ok(ExecEnd::Detached);
    }
    match spawn::receive(&mut control).step("cannot hear from the helper")? {
        Some(code) => Ok(ExecEnd::Exited(code)),
        None => Err(StartError::Setup("the helper died while the program ran".into())),
    }
}

/// Starts one more process whose end is told over the socket: as [`Sync`] says it is ready or why not, and then as a
/// message what it ended with. Closing the socket ends the process.
pub(crate) fn begin(
    run_dir: &RunDir,
    bundle: &Bundle,
    request: ExecRequest,
    stdio: [CommandStdio; 3],
) -> Result<UnixStream, StartError> {
    let (run_dir, bundle) = (run_dir.dir().to_path_buf(), bundle.dir().to_path_buf());
    spawn::helper(Role::Exec, &Order { run_dir, bundle, request }, stdio, Passed::default())
}

/// What the helper of [`begin`] had said when it went: what the process ended with.
pub(crate) fn end_of(mut said: &[u8]) -> Result<i32, StartError> {
    let died = || StartError::Setup("the helper died".into());
    match launch::first_word(said) {
        Some(Ok(())) => said = &said[1..],
        Some(Err(error)) => return Err(error),
        None => return Err(died()),
    }
    spawn::receive_from(&mut said).ok().flatten().ok_or_else(died)
}

/// Waits until the helper has started the program, and takes the terminal it has.
pub(crate) fn hear_start(control: &UnixStream) -> Result<Option<OwnedFd>, StartError> {
    let sync = Sync::over(control.try_clone().step("cannot duplicate a socket")?);
    let mut master = None;
    loop {
        match sync.listen()? {
            Said::Terminal(fd) => master = Some(fd),
            Said::Ready => return Ok(master),
            // Only the first process of a container has one to hand over.
            Said::Root(_) => {}
            Said::Failed(error) => return Err(error),
            Said::Gone => {
                return Err(StartError::Setup("the helper died before the program was started".into()));
            }
        }
    }
}

/// The size of the user's terminal, if there is one.
pub(crate) fn window(streams: &ExecStreams<'_>) -> Option<crate::WindowSize> {
    let (rows, columns) = tty::size(streams.stdin?).ok()?;
    Some(crate::WindowSize { rows, columns })
}

fn stdio(request: &ExecRequest, streams: &ExecStreams<'_>) -> Result<[CommandStdio; 3], StartError> {
    if request.terminal || request.detach {
        return Ok([CommandStdio::null(), CommandStdio::null(), CommandStdio::null()]);
    }
    let stdin = match streams.stdin {
        Some(fd) => duplicate(fd)?.into(),
        None => CommandStdio::null(),
    };
    Ok([stdin, duplicate(streams.stdout)?.into(), duplicate(streams.stderr)?.into()])
}

#[derive(PartialEq, Eq)]
pub(crate) enum Pumped {
    Ended,
    Detached,
}

/// Moves data between the user's terminal and the program's until the program has closed its own.
pub(crate) fn pump(mut master: File, streams: &ExecStreams<'_>) -> io::Result<Pumped> {
    let terminal = Terminal::take(streams.stdin, true)?;
    let mut watch = DetachWatch::new(if terminal.is_some() { streams.detach_keys } else { &[] });
    let mut out = File::from(streams.stdout.try_clone_to_owned()?);
    let mut input = streams.stdin.map(|fd| fd.try_clone_to_owned().map(File::from)).transpose()?;
    let mut buffer = [0; READ_BYTES];
    loop {
        let [ready, typed, signals] =
            wait([Some(master.as_fd()), input.as_ref().map(AsFd::as_fd), streams.signals.map(AsFd::as_fd)])?;
        if ready {
            match read_some(&mut master, &mut buffer)? {
                0 => return Ok(Pumped::Ended),
                bytes => out.write_all(&buffer[..bytes])?,
            }
        }
        if typed && let Some(file) = &mut input {
            let bytes = read_some(file, &mut buffer)?;
            let (passed, detach) = watch.filter(&buffer[..bytes]);
            master.write_all(&passed)?;
            if detach {
                return Ok(Pumped::Detached);
            }
            if bytes == 0 {
                // To a program at a terminal, the end of input is a key.
                master.write_all(&[END_OF_INPUT])?;
                input = None;
            }
        }
        if signals && let (Some(signals), Some(terminal)) = (streams.signals, &terminal) {
            while signals.next()?.is_some() {}
            let size = terminal.size()?;
            tty::set_size(master.as_fd(), size.rows, size.columns)?;
        }
    }
}

/// ctrl-d.
const END_OF_INPUT: u8 = 4;

/// Waits until some of the descriptors are readable, and tells which.
fn wait<const N: usize>(fds: [Option<BorrowedFd<'_>>; N]) -> io::Result<[bool; N]> {
    let present = fds.iter().flatten();
    let mut polls: Vec<PollFd<'_>> = present.map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    match rustix::event::poll(&mut polls, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut results = polls.iter().map(|poll| !poll.revents().is_empty());
    Ok(fds.map(|fd| fd.is_some() && results.next().unwrap_or(false)))
}

/// The helper.
pub(crate) fn helper() -> Result<(), StartError> {
    let Given { request: order, mut control, .. } = spawn::given::<Order>()?;
    spawn::detach()?;
    let sync = Sync::over(control.try_clone().step("cannot duplicate a socket")?);
    let (child, terminal) = match start(&order, &sync) {
        Ok(started) => started,
        Err(error) => {
            sync.fail(&error);
            return Err(error);
        }
    };
    sync.ready()?;
    if order.request.detach {
        return Ok(());
    }
    match follow(&child, &mut control)? {
        Some(code) => spawn::send(&mut control, &code).step("cannot report the end"),
        None => linger(&child, terminal),
    }
}

/// Stays with a program that nobody watches any more: without the other side of its terminal it would be hung up,
/// and with nobody to read there it would wait for ever.
fn linger(child: &Child, terminal: Option<OwnedFd>) -> Result<(), StartError> {
    let Some(mut terminal) = terminal.map(File::from) else { return Ok(()) };
    let mut buffer = [0; READ_BYTES];
    loop {
        let [ended, typed] =
            wait([Some(child.pidfd.as_fd()), Some(terminal.as_fd())]).step("cannot wait for the program")?;
        if ended || (typed && read_some(&mut terminal, &mut buffer).step("cannot read its terminal")? == 0) {
            return Ok(());
        }
    }
}

/// Waits for the program and returns its code. If the command dies first, so does the program; if the command
/// detaches, nobody wants to know the code.
fn follow(child: &Child, control: &mut UnixStream) -> Result<Option<i32>, StartError> {
    let [ended, _] =
        wait([Some(child.pidfd.as_fd()), Some(control.as_fd())]).step("cannot wait for the program")?;
    let detached = !ended && control.read(&mut [0]).is_ok_and(|bytes| bytes > 0);
    if !ended && !detached {
        // It may end by itself at the same moment.
        let _ = process::send_signal(child.pidfd.as_fd(), Signal::KILL.as_raw());
    }
    let code = process::wait(child.pidfd.as_fd()).step("cannot wait for the program")?.code();
    Ok((!detached).then_some(code))
}

fn start(order: &Order, caller: &Sync) -> Result<(Child, Option<OwnedFd>), StartError> {
    let run_dir = RunDir::new(&order.run_dir);
    let not_running = || StartError::Setup("container is not running".into());
    let (_, init) = client::init(&run_dir).step("cannot find the container")?.ok_or_else(not_running)?;
    let spec = launch::read_spec(&Bundle::new(&order.bundle))?;
    let process = merge(&spec, &order.request)?;
    let seccomp = if order.request.privileged { None } else { launch::seccomp_of(&spec)? };
    let entrance = entrance(&spec).step("cannot open the control group")?;
    let files =
        [duplicate(io::stdin().as_fd())?, duplicate(io::stdout().as_fd())?, duplicate(io::stderr().as_fd())?];
    let helper = process::open_pidfd(std::process::id() as i32).step("cannot open the helper's own pidfd")?;
    // From here on the container's processes can see this one.
    process::hide().step("cannot hide from the container")?;
    launch::namespaces_of(&spec).enter(init.as_fd()).step("cannot join the container")?;
    let (ours, theirs) = Sync::pair()?;
    match process::clone(CloneNamespaces::default()).step("cannot create a process")? {
        Cloned::Child => {
            drop(ours);
            let inside = Inside { spec: &spec, process, seccomp, helper, request: &order.request };
            let error = inside.become_program(files, &theirs);
            theirs.fail(&error);
            std::process::exit(1)
        }
        Cloned::Parent(child) => {
            drop(theirs);
            match entrance
                .add(child.pid)
                .step("cannot join the control group")
                .and_then(|()| converse(&ours, caller))
            {
                Ok(terminal) => Ok((child, terminal)),
                Err(error) => {
                    // Whether it lives depends on how far it came.
                    let _ = process::send_signal(child.pidfd.as_fd(), Signal::KILL.as_raw());
                    let _ = process::wait(child.pidfd.as_fd());
                    Err(error)
                }
            }
        }
    }
}

/// The door of the container's group. A rootless container may have been made without one.
fn entrance(spec: &Spec) -> io::Result<Entrance> {
    match launch::cgroup_of(spec).map_err(io::Error::other)?.entrance() {
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && launch::has_own(spec, LinuxNamespaceType::User) =>
        {
            Cgroup::none().entrance()
        }
        found => found,
    }
}

/// Accompanies the new process until it is the program, and returns the other side of its terminal.
fn converse(child: &Sync, caller: &Sync) -> Result<Option<OwnedFd>, StartError> {
    let mut terminal = None;
    child.go()?;
    loop {
        match child.listen()? {
            Said::Terminal(master) => {
                caller.terminal(master.as_fd())?;
                terminal = Some(master);
            }
            Said::Root(_) => {}
            Said::Ready => child.go()?,
            Said::Failed(error) => return Err(error),
            Said::Gone => return Ok(terminal),
        }
    }
}

/// The container's process with what the request changes.
fn merge(spec: &Spec, request: &ExecRequest) -> Result<Process, StartError> {
    let mut process =
        spec.process().clone().ok_or_else(|| StartError::Setup("no process in config.json".into()))?;
    process.set_args(Some(request.args.clone()));
    process.set_terminal(Some(request.terminal));
    let mut env = process.env().clone().unwrap_or_default();
    if request.terminal && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".into());
    }
    for variable in &request.env {
        let name = variable.split('=').next().unwrap_or_default();
        env.retain(|known| known.split('=').next() != Some(name));
        env.push(variable.clone());
    }
    process.set_env(Some(env));
    if let Some(cwd) = &request.cwd {
        process.set_cwd(PathBuf::from(cwd));
    }
    if request.privileged {
        let all: oci_spec::runtime::Capabilities =
            Capability::all().filter_map(|capability| capability.name().parse().ok()).collect();
        let sets =
            LinuxCapabilitiesBuilder::default().bounding(all.clone()).effective(all.clone()).permitted(all);
        process.set_capabilities(Some(sets.build().step("cannot describe the capabilities")?));
        process.set_no_new_privileges(Some(false));
    }
    Ok(process)
}

/// The new process.
struct Inside<'a> {
    spec: &'a Spec,
    process: Process,
    seccomp: Option<Program>,
    helper: OwnedFd,
    request: &'a ExecRequest,
}

impl Inside<'_> {
    fn become_program(&self, files: [OwnedFd; 3], sync: &Sync) -> StartError {
        let prepared = self.prepare(files, sync);
        let identity = match prepared {
            Ok(identity) => identity,
            Err(error) => return error,
        };
        let target = Target {
            process: &self.process,
            extra_env: &[],
            identity: &identity,
            seccomp: self.seccomp.as_ref(),
            fixed_groups: launch::groups_are_fixed(),
        };
        target.become_it(|| {
            if !self.request.detach {
                // A change of user forgot it.
                process::die_with_parent(self.helper.as_fd()).step("cannot follow the helper")?;
            }
            sync.ready()?;
            sync.wait()
        })
    }

    fn prepare(&self, files: [OwnedFd; 3], sync: &Sync) -> Result<Identity, StartError> {
        sync.wait()?;
        let root = Root::open(Path::new("/")).step("cannot open the container's root directory")?;
        let identity = match &self.request.user {
            Some(user) => launch::resolve(&root, user, &[])?,
            None => launch::identity_in(&root, self.spec)?,
        };
        let stdio = match self.request.terminal {
            false => Stdio::Files(files),
            true => Stdio::Terminal(self.terminal(&root, &identity, sync)?),
        };
        take_stdio(stdio)?;
        Ok(identity)
    }

    fn terminal(&self, root: &Root, identity: &Identity, sync: &Sync) -> Result<OwnedFd, StartError> {
        let devpts = root.open_with(Path::new("/dev/pts"), OFlags::PATH | OFlags::DIRECTORY);
        let devpts = devpts.step("a terminal needs /dev/pts")?;
        // The container may have put anything there.
        let kind = rustix::fs::fstatfs(&devpts).step("cannot examine /dev/pts")?.f_type;
        if kind as u64 != DEVPTS_SUPER_MAGIC {
            return Err(StartError::Setup(
                "/dev/pts of the container is not a file system of terminals".into(),
            ));
        }
        let pty = tty::open_pty(devpts.as_fd()).step("cannot open a terminal")?;
        if let Some(size) = self.request.window {
            tty::set_size(pty.master.as_fd(), size.rows, size.columns)
                .step("cannot set the terminal's size")?;
        }
        let uid = rustix::process::Uid::from_raw(identity.uid);
        rustix::fs::fchown(&pty.slave, Some(uid), None).step("cannot give the terminal to the user")?;
        sync.terminal(pty.master.as_fd())?;
        Ok(pty.slave)
    }
}
