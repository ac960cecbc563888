//! A container run to its end on behalf of the caller: one build step.
//!
//! Between the caller and the container's process stands one helper, which nothing passes through: output goes
//! straight into the caller's pipes. If the caller dies, the helper notices the closed connection and kills.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::SystemTime;

use dhow_sys::process;
use rustix::event::{PollFd, PollFlags};
use serde::{Deserialize, Serialize};

use crate::exec;
use crate::launch::{self, Creation, Running, StdioPlan, Step, Sync, duplicate};
use crate::shim::{NetworkSetup, ShimHooks, rfc3339};
use crate::spawn::{self, Given, Passed, Role};
use crate::{Bundle, ExecStreams, ExitStatus, Interactive, OnceRequest, RuntimeChoice, StartError};

/// How much output is read at once.
const READ_BYTES: usize = 64 * 1024;

/// Which of its two outputs a program wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What the helper says, once.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    Ended(ExitStatus),
    Failed(StartError),
}

/// Runs a container to its end, handing its output to `output` as it comes.
///
/// The writable layer is not synced: who keeps it does that, and after a power failure it is to be thrown away.
///
/// When `cancel` becomes readable, or its other side is closed, the container is killed.
pub fn launch_once(
    request: &OnceRequest,
    cancel: Option<BorrowedFd<'_>>,
    output: &mut dyn FnMut(OutputStream, &[u8]),
) -> Result<ExitStatus, StartError> {
    let (stdout, stdout_end) = io::pipe().step("cannot create a pipe")?;
    let (stderr, stderr_end) = io::pipe().step("cannot create a pipe")?;
    let stdio = [Stdio::null(), stdout_end.into(), stderr_end.into()];
    let mut control = Some(spawn::helper(Role::Once, request, stdio, Passed::default())?);
    let mut pipes = [
        Some((OutputStream::Stdout, File::from(OwnedFd::from(stdout)))),
        Some((OutputStream::Stderr, File::from(OwnedFd::from(stderr)))),
    ];
    let mut said = None;
    let mut cancel = cancel;
    while control.is_some() || pipes.iter().any(Option::is_some) {
        let ready = wait(control.as_ref(), &pipes, cancel).step("cannot wait for the container")?;
        for (pipe, _) in pipes.iter_mut().zip(ready.pipes).filter(|(_, ready)| *ready) {
            read(pipe, output).step("cannot read the container's output")?;
        }
        if ready.control {
            said = control.take().map(|mut control| spawn::receive(&mut control));
        } else if ready.cancel {
            // The helper kills when the connection ends; what it still says is not heard.
            (control, cancel) = (None, None);
        }
    }
    match said {
        Some(Ok(Some(Said::Ended(status)))) => Ok(status),
        Some(Ok(Some(Said::Failed(error)))) => Err(error),
        None => Err(StartError::Setup("the container was cancelled".into())),
        Some(_) => Err(StartError::Setup("the container's helper died".into())),
    }
}

/// Runs a container to its end while the caller talks to it, through a terminal of the container or its own
/// files. The keys that detach mean nothing here: if the caller leaves, the container is killed.
pub fn launch_interactive(request: &OnceRequest, streams: ExecStreams<'_>) -> Result<ExitStatus, StartError> {
    let interactive = request.interactive.unwrap_or_default();
    let stdio = match (interactive.terminal, streams.stdin) {
        (true, _) => [Stdio::null(), Stdio::null(), Stdio::null()],
        (false, stdin) => [
            stdin.map(duplicate).transpose()?.map_or_else(Stdio::null, Stdio::from),
            duplicate(streams.stdout)?.into(),
            duplicate(streams.stderr)?.into(),
        ],
    };
    let window = interactive.window.or(exec::window(&streams));
    let interactive = Some(Interactive { window, ..interactive });
    let request = OnceRequest { interactive, ..request.clone() };
    let mut control = spawn::helper(Role::Once, &request, stdio, Passed::default())?;
    if let Some(master) = exec::hear_start(&control)? {
        let streams = ExecStreams { detach_keys: &[], ..streams };
        exec::pump(File::from(master), &streams).step("cannot serve the terminal")?;
    }
    match spawn::receive(&mut control) {
        Ok(Some(Said::Ended(status))) => Ok(status),
        Ok(Some(Said::Failed(error))) => Err(error),
        _ => Err(StartError::Setup("the container's helper died".into())),
    }
}

struct Ready {
    control: bool,
    cancel: bool,
    pipes: [bool; 2],
}

type Pipe = Option<(OutputStream, File)>;

fn wait(
    control: Option<&UnixStream>,
    pipes: &[Pipe; 2],
    cancel: Option<BorrowedFd<'_>>,
) -> io::Result<Ready> {
    let candidates = [
        control.map(AsFd::as_fd),
        cancel,
        pipes[0].as_ref().map(|(_, file)| file.as_fd()),
        pipes[1].as_ref().map(|(_, file)| file.as_fd()),
    ];
    let mut polls: Vec<PollFd<'_>> =
        candidates.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    poll(&mut polls)?;
    let mut results = polls.iter().map(|poll| !poll.revents().is_empty());
    let mut next = |present: bool| present && results.next().unwrap_or(false);
    let [control, cancel, one, two] = candidates.map(|fd| next(fd.is_some()));
    Ok(Ready { control, cancel, pipes: [one, two] })
}

fn poll(polls: &mut [PollFd<'_>]) -> io::Result<()> {
    loop {
        match rustix::event::poll(polls, None) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result.map(drop)?),
        }
    }
}

fn read(pipe: &mut Pipe, output: &mut dyn FnMut(OutputStream, &[u8])) -> io::Result<()> {
    let Some((stream, file)) = pipe else { return Ok(()) };
    let mut buffer = [0; READ_BYTES];
    match file.read(&mut buffer) {
        Ok(0) => *pipe = None,
        Ok(bytes) => output(*stream, &buffer[..bytes]),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// The helper.
pub(crate) fn helper(hooks: ShimHooks) -> Result<(), StartError> {
    let Given { request, mut control, .. } = spawn::given::<OnceRequest>()?;
    spawn::detach()?;
    let started = start(&request, hooks);
    if request.interactive.is_some() {
        let sync = Sync::over(control.try_clone().step("cannot duplicate a socket")?);
        match &started {
            Ok((running, _)) => {
                running.terminal.as_ref().map_or(Ok(()), |master| sync.terminal(master.as_fd()))?;
                sync.ready()?;
            }
            Err(error) => {
                sync.fail(error);
                return Err(error.clone());
            }
        }
    }
    let said = match &started {
        Ok((running, _)) => {
            wait_or_kill(running, &control).map(|code| Said::Ended(ended(running, code, (hooks.now)())))
        }
        Err(error) => Ok(Said::Failed(error.clone())),
    };
    // Whoever asked is gone if this fails, and needs no answer.
    let _ = spawn::send(&mut control, &said.unwrap_or_else(Said::Failed));
    drop(control);
    if let Ok((running, network)) = started {
        if let Some(mut network) = network {
            network.disconnect();
        }
        running.remove()?;
    }
    Ok(())
}

type Network = Option<Box<dyn NetworkSetup>>;

fn start(request: &OnceRequest, hooks: ShimHooks) -> Result<(Running, Network), StartError> {
    let bundle = Bundle::new(&request.bundle);
    let spec = launch::read_spec(&bundle)?;
    let stdio = match request.interactive {
        Some(Interactive { terminal: true, window }) => StdioPlan::Terminal(window),
        _ => StdioPlan::Files([
            duplicate(io::stdin().as_fd())?,
            duplicate(io::stdout().as_fd())?,
            duplicate(io::stderr().as_fd())?,
        ]),
    };
    let root = &request.root;
    let memory = &request.memory;
    let creation =
        Creation { id: &request.id, bundle: &bundle, spec: &spec, root, stdio, volatile: true, memory };
    let created = launch::runtime(&RuntimeChoice::Native).create(creation)?;
    let started = crate::shim::connect(created.as_ref(), request.network.as_ref(), hooks)
        .and_then(|network| Ok((created.start()?, network)));
    // The caller sees the end of output when the container's processes close theirs, not when we do.
    let null = File::options().write(true).open("/dev/null").step("cannot open /dev/null")?;
    for number in [1, 2] {
        process::set_stdio(null.as_fd(), number).step("cannot close output")?;
    }
    started
}

fn wait_or_kill(running: &Running, control: &UnixStream) -> Result<i32, StartError> {
    let mut polls = [PollFd::new(&running.child.pidfd, PollFlags::IN), PollFd::new(control, PollFlags::IN)];
    poll(&mut polls).step("cannot wait for the container")?;
    if polls[0].revents().is_empty() {
        // The caller died or cancelled.
        process::send_signal(running.child.pidfd.as_fd(), rustix::process::Signal::KILL.as_raw())
            .step("cannot kill the container")?;
    }
    process::wait(running.child.pidfd.as_fd()).map(process::Ended::code).step("cannot wait for the container")
}

fn ended(running: &Running, exit_code: i32, now: SystemTime) -> ExitStatus {
    let oom_killed = running.cgroup.oom_killed();
    ExitStatus { exit_code, finished_at: rfc3339(now), oom_killed, error: None }
}
