//! What the commands do with a shim: start it, ask how it is, signal its container.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use dhow_sys::cgroup::Cgroup;
use dhow_sys::process;
use rustix::process::Signal;

use crate::attach::Attached;
use crate::launch::{self, Step};
use crate::shim::{self, InitRecord, Reply};
use crate::spawn::{self, Passed, Role};
use crate::{
    Bundle, ExitStatus, Health, RestartPolicy, RunDir, RuntimeState, ShimRequest, StartError, Started,
};

/// How often a container is looked at that changes while we look.
const LOOKS_MAX: u32 = 10;

/// How long a shim may take to change networks: a few milliseconds are usual.
const NETWORK_WAIT_MAX: Duration = Duration::from_secs(30);

/// Starts a container and returns when its program runs.
///
/// The shim holds the lock behind `claim` until it has its own, so that whoever waits for the one finds the other
/// even if the caller dies in between.
pub fn spawn_shim(request: &ShimRequest, claim: Option<OwnedFd>) -> Result<Started, StartError> {
    start(request, Passed { client: None, claim })
}

/// Starts a container with a client attached from its first byte of output on.
pub fn spawn_shim_attached(
    request: &ShimRequest,
    claim: Option<OwnedFd>,
) -> Result<(Started, Attached), StartError> {
    let (ours, theirs) = UnixStream::pair().step("cannot create a socket")?;
    let started = start(request, Passed { client: Some(theirs.into()), claim })?;
    Ok((started, Attached::over(ours)))
}

fn start(request: &ShimRequest, passed: Passed) -> Result<Started, StartError> {
    forget_last_run(&Bundle::new(&request.bundle)).step("cannot forget the last run")?;
    let stdio = [Stdio::null(), Stdio::null(), Stdio::null()];
    let mut control = spawn::helper(Role::Shim, request, stdio, passed)?;
    match spawn::receive(&mut control).step("cannot hear from the shim")? {
        Some(Reply::Started(started)) => Ok(started),
        Some(Reply::Failed(error)) => Err(error),
        None => Err(StartError::Setup("the shim died before the container was started".into())),
    }
}

/// Whether a shim lives.
pub fn is_alive(run_dir: &RunDir) -> io::Result<bool> {
    shim::lock_is_held(run_dir)
}

/// How a container is doing.
///
/// Finding that a shim vanished, this kills what is left of its container: most containers die with their shim,
/// but a program that changed its user has made the kernel forget that it should.
pub fn state(run_dir: &RunDir, bundle: &Bundle) -> io::Result<RuntimeState> {
    for _ in 0..LOOKS_MAX {
        // The order matters: an exit is recorded before the lock is let go, so it is looked for on both sides.
        let before = exit_status(bundle)?;
        if is_alive(run_dir)? {
            match alive_state(run_dir, before.is_some())? {
                Some(state) => return Ok(state),
                None if exit_status(bundle)? == before => break,
                // It was started again while we looked.
                None => continue,
            }
        }
        break;
    }
    if let Some(status) = exit_status(bundle)? {
        return Ok(RuntimeState::Exited(status));
    }
    match shim::read_json::<Started>(&bundle.started())? {
        Some(_) => kill_leftovers(run_dir).map(|()| RuntimeState::Dead),
        None => Ok(RuntimeState::Created),
    }
}

/// How a container with a shim is doing. `None`: it has ended.
fn alive_state(run_dir: &RunDir, has_ended: bool) -> io::Result<Option<RuntimeState>> {
    if let Some(status) = shim::read_json::<ExitStatus>(&run_dir.restarting())? {
        // While it is started again, this is there until all else is.
        if let Some(init) = shim::read_json::<InitRecord>(&run_dir.init())?.filter(|_| !has_ended) {
            return Ok(Some(RuntimeState::Running { pid: init.pid, started_at: init.started_at }));
        }
        return Ok(Some(RuntimeState::Restarting(status)));
    }
    if has_ended {
        return Ok(None);
    }
    Ok(Some(match shim::read_json::<InitRecord>(&run_dir.init())? {
        Some(init) => RuntimeState::Running { pid: init.pid, started_at: init.started_at },
        None => RuntimeState::Starting,
    }))
}

/// How often a shim has started its container again since a user did.
pub fn restart_count(bundle: &Bundle) -> io::Result<u32> {
    Ok(shim::read_json(&bundle.restarts())?.unwrap_or(0))
}

/// How a container's health is, if anybody asks for it.
pub fn health(bundle: &Bundle) -> io::Result<Option<Health>> {
    shim::read_json(&bundle.health())
}

/// What the end of a container means that somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMeaning {
    /// Its user had a hand in it, which matters to the policy `unless-stopped`.
    ByUser,
    /// Its user wants it to stop: it is not started again whatever its policy.
    ForGood,
    /// The host goes down: it is not started again before that is up.
    ForNow,
}

/// Notes what the end of a container, which is about to be brought about, means.
///
/// A shim that waits for the next start hears of it at once.
pub fn note_stop(run_dir: &RunDir, bundle: &Bundle, meaning: StopMeaning) -> io::Result<()> {
    if meaning != StopMeaning::ForNow {
        File::create(bundle.stopped())?;
    }
    if meaning != StopMeaning::ByUser {
        File::create(bundle.no_restart())?;
        wake(run_dir);
    }
    Ok(())
}

/// Gives a running container the limits that the configuration in its bundle has now.
pub fn apply_limits(bundle: &Bundle) -> Result<(), StartError> {
    launch::apply_limits(&launch::read_spec(bundle)?)
}

/// Whether a user stopped the container since it was started.
pub fn was_stopped(bundle: &Bundle) -> bool {
    bundle.stopped().exists()
}

/// Replaces the restart policy of a container that may be running.
pub fn set_restart_policy(run_dir: &RunDir, bundle: &Bundle, policy: RestartPolicy) -> io::Result<()> {
    shim::write_json(&bundle.restart_policy(), &policy)?;
    wake(run_dir);
    Ok(())
}

/// Forgets what was noted of the last run.
fn forget_last_run(bundle: &Bundle) -> io::Result<()> {
    [bundle.stopped(), bundle.no_restart(), bundle.restart_policy()]
        .iter()
        .try_for_each(|path| shim::remove(path))
}

/// Makes a shim look at what has changed. One that serves a container or is gone has no need to.
fn wake(run_dir: &RunDir) {
    if run_dir.restarting().exists() {
        let _ = Attached::connect(run_dir);
    }
}

/// Waits until the shim is gone. `None`: it vanished without recording an exit.
pub fn wait(run_dir: &RunDir, bundle: &Bundle) -> io::Result<Option<ExitStatus>> {
    shim::wait_for_lock(run_dir)?;
    exit_status(bundle)
}

/// Sends a signal, by number, to the container's init. False: it does not run.
pub fn signal(run_dir: &RunDir, signal: i32) -> io::Result<bool> {
    let Some((_, pidfd)) = init(run_dir)? else { return Ok(false) };
    match process::send_signal(pidfd.as_fd(), signal) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Has the shim look at what networks its container is to be on, and waits until it is on them.
pub fn update_network(run_dir: &RunDir) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot talk to the container's shim: {error}");
    let attached = Attached::connect(run_dir).map_err(failed)?;
    attached.update_network(NETWORK_WAIT_MAX).map_err(failed)?
}

fn exit_status(bundle: &Bundle) -> io::Result<Option<ExitStatus>> {
    shim::read_json(&bundle.exit())
}

/// The process id of a container's init, if that lives.
pub fn init_of(run_dir: &RunDir) -> io::Result<Option<i32>> {
    Ok(init(run_dir)?.map(|(record, _)| record.pid))
}

/// The container's init, if it still is the process that was recorded.
pub(crate) fn init(run_dir: &RunDir) -> io::Result<Option<(InitRecord, OwnedFd)>> {
    let Some(record) = shim::read_json::<InitRecord>(&run_dir.init())? else { return Ok(None) };
    // First the descriptor, then the proof: it cannot come to mean another process.
    let Ok(pidfd) = process::open_pidfd(record.pid) else { return Ok(None) };
    let same = process::start_time(record.pid).is_ok_and(|time| time == record.start_time);
    Ok(same.then_some((record, pidfd)))
}

fn kill_leftovers(run_dir: &RunDir) -> io::Result<()> {
    if let Some((record, pidfd)) = init(run_dir)? {
        // Gone already is what we want.
        let _ = process::send_signal(pidfd.as_fd(), Signal::KILL.as_raw());
        if let Some(path) = &record.cgroup {
            Cgroup::new(path)?.kill()?;
        }
    }
    if let Some(path) = shim::read_json::<InitRecord>(&run_dir.init())?.and_then(|record| record.cgroup) {
        // A group that is still busy is left to the next look.
        let _ = Cgroup::new(&path)?.remove();
    }
    for stale in [run_dir.init(), run_dir.socket(), run_dir.restarting()] {
        match fs::remove_file(&stale) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
