//! From the request to the end of the container.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use dhow_sys::process::{self, Ended};
use dhow_sys::signal::SignalSet;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::again::{self, Kept};
use super::clients::Client;
use super::log::Log;
use super::probe::{Doctor, Patient};
use super::record::{self, InitRecord};
use super::traffic::{Ends, Traffic, Watched};
use super::{NetworkSetup, ShimHooks, Told, connect, null, rfc3339};
use crate::launch::{self, Creation, Running, StdioPlan, Step};
use crate::once::OutputStream;
use crate::restart::{Restarts, RunEnd};
use crate::spawn::{self, Given};
use crate::{
    Bundle, ExitStatus, InMemory, RestartPolicy, RunDir, ShimRequest, StartError, Started, StdinMode,
};

/// What a container is said to have exited with that could not be started again.
const EXIT_NOT_STARTED: i32 = 128;

/// What the shim says to the command that started it, once.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The program runs.
    Started(Started),
    /// It does not.
    Failed(StartError),
}

/// The shim.
pub(super) fn shim(hooks: ShimHooks) -> Result<(), StartError> {
    let Given { request, mut control, passed } = spawn::given::<ShimRequest>()?;
    spawn::detach()?;
    block_signals()?;
    let started = Place::take(request, passed.claim, hooks).and_then(|mut place| {
        let run = Run::start(&mut place, passed.client)?;
        Ok((place, run))
    });
    let reply = match &started {
        Ok((_, run)) => Reply::Started(run.started.clone()),
        Err(error) => Reply::Failed(error.clone()),
    };
    // If the command is gone, the container goes on: it was detached or its client vanished.
    let _ = spawn::send(&mut control, &reply);
    drop(control);
    let (place, run) = started?;
    run.serve(place)
}

/// The shim when it has executed itself again.
pub(super) fn shim_again(hooks: ShimHooks) -> Result<(), StartError> {
    let mut place = Place::resume(again::take()?, hooks);
    // They stayed blocked over the execution.
    block_signals()?;
    match Run::start(&mut place, None) {
        Ok(run) => {
            record::remove(&place.run_dir.restarting()).step("cannot record the start")?;
            place.tell(&Told::Started(run.started.clone()));
            run.serve(place)
        }
        Err(error) => place.give_up(error),
    }
}

/// Nothing that is meant for a terminal's processes, or an absent-minded `kill`, ends the shim.
fn block_signals() -> Result<(), StartError> {
    let deaf = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::PIPE, Signal::ALARM];
    SignalSet::of(&deaf.map(Signal::as_raw)).block().step("cannot block signals")
}

/// What a shim has for as long as it lives, whether its container runs or not.
struct Place {
    hooks: ShimHooks,
    request: ShimRequest,
    bundle: Bundle,
    run_dir: RunDir,
    restarts: Restarts,
    /// Where clients connect. Made when it is first needed.
    listener: Option<UnixListener>,
    /// Dropped last: the lock is the shim's life.
    lock: File,
}

impl Place {
    fn take(request: ShimRequest, claim: Option<OwnedFd>, hooks: ShimHooks) -> Result<Place, StartError> {
        let (bundle, run_dir) = (Bundle::new(&request.bundle), RunDir::new(&request.run_dir));
        let lock = record::lock(&run_dir).step(format_args!("cannot lock {}", run_dir.dir().display()))?;
        let lock =
            lock.ok_or_else(|| StartError::Setup(format!("container {} is already running", request.id)))?;
        drop(claim);
        let (restarts, listener) = Default::default();
        let place = Place { hooks, request, bundle, run_dir, restarts, listener, lock };
        let (bundle, run_dir) = (&place.bundle, &place.run_dir);
        remove_all(&[bundle.restarts(), bundle.health(), run_dir.restarting(), run_dir.socket()])?;
        Ok(place)
    }

    fn resume(kept: Kept, hooks: ShimHooks) -> Place {
        let Kept { request, restarts, listener, lock } = kept;
        let (bundle, run_dir) = (Bundle::new(&request.bundle), RunDir::new(&request.run_dir));
        Place { hooks, request, bundle, run_dir, restarts, listener: Some(listener), lock }
    }

    fn tell(&self, told: &Told) {
        if let Some(request) = &self.request.on_exit {
            (self.hooks.told)(request, told);
        }
    }

    fn now(&self) -> String {
        rfc3339((self.hooks.now)())
    }

    /// The policy in force, which may have been changed since the start.
    fn policy(&self) -> RestartPolicy {
        let replaced = record::read_json(&self.bundle.restart_policy());
        replaced.ok().flatten().unwrap_or(self.request.restart)
    }

    /// How long to wait until the container is started again, if it is to be.
    fn delay(&mut self, exit_code: i32, lasted: Duration) -> Option<Duration> {
        if self.bundle.no_restart().exists() {
            return None;
        }
        let was_stopped = self.bundle.stopped().exists();
        self.restarts.next(self.policy(), RunEnd { exit_code, lasted, was_stopped })
    }

    /// Whether a container that waits for its next start is still to have one.
    fn is_wanted(&self) -> bool {
        !self.bundle.no_restart().exists() && !self.policy().is_no()
    }

    /// Waits, and becomes a fresh shim that starts the container. Told meanwhile not to, ends.
    fn start_again(
        mut self,
        status: &ExitStatus,
        delay: Duration,
        mut traffic: Traffic,
    ) -> Result<(), StartError> {
        let until = Instant::now() + delay;
        while self.is_wanted() && Instant::now() < until {
            traffic.rest(until).step("cannot wait for the next start")?;
        }
        if !self.is_wanted() {
            return self.leave(status);
        }
        let Traffic { listener, .. } = traffic;
        let Place { request, restarts, lock, .. } = self;
        let (kept, error) = again::execute(Kept { request, restarts, listener, lock });
        self = Place::resume(kept, self.hooks);
        self.give_up(error)
    }

    /// The container could not be started again.
    fn give_up(self, error: StartError) -> Result<(), StartError> {
        let exit_code = EXIT_NOT_STARTED;
        let (finished_at, text) = (self.now(), error.to_string());
        let status = ExitStatus { exit_code, finished_at, oom_killed: false, error: Some(text) };
        record::write_json(&self.bundle.exit(), &status).step("cannot record the exit")?;
        self.leave(&status)
    }

    /// Takes away what is only there while the shim lives.
    fn leave(self, status: &ExitStatus) -> Result<(), StartError> {
        remove_all(&[self.run_dir.restarting(), self.run_dir.socket(), self.run_dir.init()])?;
        if let Some(request) = &self.request.on_exit {
            (self.hooks.exited)(request, status);
        }
        Ok(())
    }
}

fn remove_all(paths: &[std::path::PathBuf]) -> Result<(), StartError> {
    paths
        .iter()
        .try_for_each(|path| record::remove(path).step(format_args!("cannot remove {}", path.display())))
}

/// One run of the container.
struct Run {
    running: Running,
    network: Option<Box<dyn NetworkSetup>>,
    started: Started,
    born: Instant,
    traffic: Traffic,
    doctor: Option<Doctor>,
}

impl Run {
    fn start(place: &mut Place, client: Option<OwnedFd>) -> Result<Run, StartError> {
        let listener = place.listener.take();
        let Place { hooks, request, bundle, run_dir, .. } = &*place;
        let hooks = *hooks;
        remove_all(&[bundle.exit(), bundle.started(), run_dir.init()])?;
        let log = request
            .log
            .as_ref()
            .map(|place| Log::open(place).step(format_args!("cannot open log {}", place.path.display())));
        let log = log.transpose()?;
        record::reserve(&bundle.exit()).step("cannot reserve room for the exit")?;
        let listener = match listener {
            Some(listener) => listener,
            None => listen(run_dir).step("cannot listen for clients")?,
        };
        let spec = launch::read_spec(bundle)?;
        let terminal = spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
        let (stdio, mut ends) = plan_stdio(request, terminal)?;
        let root = &request.root;
        let memory = &InMemory::default();
        let creation =
            Creation { id: &request.id, bundle, spec: &spec, root, stdio, volatile: false, memory };
        let created = launch::runtime(&request.runtime).create(creation)?;
        let mut network = connect(created.as_ref(), request.network.as_ref(), hooks)?;
        let running = match created.start() {
            Ok(running) => running,
            Err(error) => {
                if let Some(network) = &mut network {
                    network.disconnect();
                }
                return Err(error);
            }
        };
        let started = Started { pid: running.child.pid, started_at: place.now() };
        let cgroup = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref()?.to_str());
        record_start(bundle, run_dir, &started, cgroup)?;
        if let Some(master) = &running.terminal {
            ends = terminal_ends(master.as_fd(), request.stdin)?;
        }
        let foreground = client.map(|client| Client::new(client.into(), true)).transpose();
        let mut traffic = Traffic::new(request.stdin, listener, log, hooks);
        traffic.clients = foreground.step("cannot talk to the client")?.into_iter().collect();
        traffic.ends = ends;
        let doctor = request.health.as_ref().map(|check| Doctor::new(check, bundle)).transpose()?;
        Ok(Run { running, network, started, born: Instant::now(), traffic, doctor })
    }

    /// Stays with the container until it has ended, and does what follows.
    fn serve(mut self, place: Place) -> Result<(), StartError> {
        let mut failure = None;
        loop {
            match self.turn(&place) {
                Ok(true) => break,
                Ok(false) => self.update_network(),
                Err(error) => {
                    // A shim that cannot do its work must not leave a container that nobody watches.
                    failure = Some(error.to_string());
                    let _ = process::send_signal(self.running.child.pidfd.as_fd(), Signal::KILL.as_raw());
                    break;
                }
            }
        }
        let ended = process::wait(self.running.child.pidfd.as_fd()).step("cannot wait for the container")?;
        self.doctor = None;
        self.traffic.drain();
        self.finish(place, ended, failure)
    }

    /// Does what there is to do. True: the container's process has ended.
    fn turn(&mut self, place: &Place) -> io::Result<bool> {
        let doctor = self.doctor.as_ref();
        let watched = Watched {
            init: Some(self.running.child.pidfd.as_fd()),
            probe: doctor.map_or([None, None], Doctor::watched),
            until: doctor.map(Doctor::deadline),
        };
        let happened = self.traffic.turn(&watched, &self.running)?;
        if let Some(doctor) = &mut self.doctor
            && !happened.init
            && (happened.probe || Instant::now() >= doctor.deadline())
        {
            let Place { bundle, run_dir, hooks, request, .. } = place;
            let on_exit = request.on_exit.as_ref();
            doctor.turn(&Patient { bundle, run_dir, running: &self.running, hooks: *hooks, on_exit });
        }
        Ok(happened.init)
    }

    /// Does what clients have asked for.
    fn update_network(&mut self) {
        if self.traffic.clients.iter().any(|client| client.awaits_network) {
            let updated = self.network.as_mut().map_or(Ok(()), |network| network.update());
            self.traffic.tell_network(&updated);
        }
    }

    /// The end becomes visible first and durable second; then what takes time is cleaned up.
    fn finish(self, mut place: Place, ended: Ended, failure: Option<String>) -> Result<(), StartError> {
        let Run { running, mut network, born, mut traffic, .. } = self;
        let status = ExitStatus {
            exit_code: ended.code(),
            finished_at: place.now(),
            oom_killed: running.cgroup.oom_killed(),
            error: failure,
        };
        let wanted = status.error.is_none();
        let delay = if wanted { place.delay(status.exit_code, born.elapsed()) } else { None };
        let recorded = place.record_end(&status, delay.is_some());
        traffic.tell_exit(&status);
        let synced = match delay {
            // Until it runs again nothing depends on it.
            Some(_) => Ok(()),
            None => record::sync(&place.bundle.exit()).step("cannot record the exit"),
        };
        if let Some(network) = &mut network {
            network.disconnect();
        }
        let removed = running.remove();
        traffic.flush_all();
        record::remove(&place.run_dir.init()).step("cannot remove the record of the start")?;
        recorded.and(synced).and(removed)?;
        match delay {
            Some(delay) => {
                place.tell(&Told::Ended(status.clone()));
                place.start_again(&status, delay, traffic)
            }
            None => place.leave(&status),
        }
    }
}

impl Place {
    /// First that it will be started again, then that it has ended: whoever reads them in between waits.
    fn record_end(&self, status: &ExitStatus, again: bool) -> Result<(), StartError> {
        if again {
            record::write_json(&self.bundle.restarts(), &self.restarts.count)
                .step("cannot record the restart")?;
            record::write_json(&self.run_dir.restarting(), status).step("cannot record the restart")?;
        }
        record::write_json(&self.bundle.exit(), status).step("cannot record the exit")
    }
}

fn record_start(
    bundle: &Bundle,
    run_dir: &RunDir,
    started: &Started,
    cgroup: Option<&str>,
) -> Result<(), StartError> {
    let start_time = process::start_time(started.pid).step("cannot identify the container's process")?;
    let init = InitRecord {
        pid: started.pid,
        start_time,
        started_at: started.started_at.clone(),
        cgroup: cgroup.map(str::to_string),
    };
    record::write_json(&run_dir.init(), &init).step("cannot record the start")?;
    record::write_json(&bundle.started(), started).step("cannot record the start")
}

/// Socket paths are limited to 108 bytes, so the folder is named by its descriptor.
fn listen(run_dir: &RunDir) -> io::Result<UnixListener> {
    let folder = File::open(run_dir.dir())?;
    let name = run_dir.socket();
    let name = Path::new(name.file_name().unwrap_or_default());
    let listener = UnixListener::bind(Path::new(&dhow_sys::beneath::proc_path(&folder)).join(name))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn plan_stdio(request: &ShimRequest, terminal: bool) -> Result<(StdioPlan, Ends), StartError> {
    let mut ends = Ends::default();
    if terminal {
        return Ok((StdioPlan::Terminal(request.window), ends));
    }
    let stdin: OwnedFd = match request.stdin {
        StdinMode::Closed => null()?,
        StdinMode::Once | StdinMode::Open => {
            let (theirs, ours) = io::pipe().step("cannot create a pipe")?;
            ends.input = Some(nonblocking(ours.into())?);
            theirs.into()
        }
    };
    let (stdout, stdout_end) = io::pipe().step("cannot create a pipe")?;
    let (stderr, stderr_end) = io::pipe().step("cannot create a pipe")?;
    for (stream, ours) in [(OutputStream::Stdout, stdout), (OutputStream::Stderr, stderr)] {
        ends.outputs.push((stream, File::from(nonblocking(ours.into())?)));
    }
    Ok((StdioPlan::Files([stdin, stdout_end.into(), stderr_end.into()]), ends))
}

fn terminal_ends(master: BorrowedFd<'_>, stdin: StdinMode) -> Result<Ends, StartError> {
    let copy = || nonblocking(launch::duplicate(master)?);
    let input = if stdin == StdinMode::Closed { None } else { Some(copy()?) };
    Ok(Ends { input, outputs: vec![(OutputStream::Stdout, File::from(copy()?))] })
}

pub(super) fn nonblocking(fd: OwnedFd) -> Result<OwnedFd, StartError> {
    let flags = rustix::fs::fcntl_getfl(&fd).step("cannot set up a pipe")?;
    rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK).step("cannot set up a pipe")?;
    Ok(fd)
}
