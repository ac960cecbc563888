//! From the request to the end of the container.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use dhow_sys::process::{self, Ended};
use dhow_sys::signal::SignalSet;
use dhow_sys::tty;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::clients::{CLIENTS_MAX, Client, Wish, is_transient};
use super::log::Log;
use super::record::{self, InitRecord};
use super::{NetworkSetup, ShimHooks, connect, null, rfc3339};
use crate::launch::{self, Creation, Running, StdioPlan, Step};
use crate::once::OutputStream;
use crate::spawn::{self, Given, Passed};
use crate::{Bundle, ExitStatus, InMemory, RunDir, ShimRequest, StartError, Started, StdinMode};

/// How much input waits for the container before clients have to.
const INPUT_BYTES_MAX: usize = 1 << 20;
/// How much output is read at once.
const READ_BYTES: usize = 64 * 1024;
/// How long output may still come after the container ended, from processes that are not in it but hold its pipes.
const DRAIN_MAX: Duration = Duration::from_millis(500);
/// How often it is read then. A pipe holds a mebibyte at most.
const DRAIN_READS_MAX: usize = 64;

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
    // Nothing that is meant for a terminal's processes, or an absent-minded `kill`, ends the shim.
    let deaf = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::PIPE, Signal::ALARM];
    SignalSet::of(&deaf.map(Signal::as_raw)).block().step("cannot block signals")?;
    let started = Shim::start(request, passed, hooks);
    let reply = match &started {
        Ok(shim) => Reply::Started(shim.started.clone()),
        Err(error) => Reply::Failed(error.clone()),
    };
    // If the command is gone, the container goes on: it was detached or its client vanished.
    let _ = spawn::send(&mut control, &reply);
    drop(control);
    started?.run()
}

/// A shim with a running container.
struct Shim {
    hooks: ShimHooks,
    request: ShimRequest,
    bundle: Bundle,
    run_dir: RunDir,
    running: Running,
    network: Option<Box<dyn NetworkSetup>>,
    started: Started,
    traffic: Traffic,
    /// Dropped last: the lock is the shim's life.
    _lock: File,
}

/// The shim's ends of the container's standard descriptors.
struct Ends {
    input: Option<OwnedFd>,
    outputs: Vec<(OutputStream, File)>,
}

impl Shim {
    fn start(request: ShimRequest, passed: Passed, hooks: ShimHooks) -> Result<Shim, StartError> {
        let (bundle, run_dir) = (Bundle::new(&request.bundle), RunDir::new(&request.run_dir));
        let lock = record::lock(&run_dir).step(format_args!("cannot lock {}", run_dir.dir().display()))?;
        let lock =
            lock.ok_or_else(|| StartError::Setup(format!("container {} is already running", request.id)))?;
        drop(passed.claim);
        for stale in [bundle.exit(), bundle.started(), run_dir.init(), run_dir.socket()] {
            record::remove(&stale).step(format_args!("cannot remove {}", stale.display()))?;
        }
        let log = request
            .log
            .as_ref()
            .map(|place| Log::open(place).step(format_args!("cannot open log {}", place.path.display())));
        let log = log.transpose()?;
        record::reserve(&bundle.exit()).step("cannot reserve room for the exit")?;
        let listener = listen(&run_dir).step("cannot listen for clients")?;
        let spec = launch::read_spec(&bundle)?;
        let terminal = spec.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
        let (stdio, mut ends) = plan_stdio(&request, terminal)?;
        let root = &request.root;
        let memory = &InMemory::default();
        let creation =
            Creation { id: &request.id, bundle: &bundle, spec: &spec, root, stdio, volatile: false, memory };
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
        let started = Started { pid: running.child.pid, started_at: rfc3339((hooks.now)()) };
        let cgroup = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref()?.to_str());
        record_start(&bundle, &run_dir, &started, cgroup)?;
        if let Some(master) = &running.terminal {
            ends = terminal_ends(master.as_fd(), request.stdin)?;
        }
        let foreground = passed.client.map(|client| Client::new(client.into(), true)).transpose();
        let clients = foreground.step("cannot talk to the client")?.into_iter().collect();
        let traffic =
            Traffic { ends, input: VecDeque::new(), input_ended: false, listener, clients, log, hooks };
        Ok(Shim { hooks, request, bundle, run_dir, running, network, started, traffic, _lock: lock })
    }

    fn run(mut self) -> Result<(), StartError> {
        let mut failure = None;
        loop {
            let ended =
                self.traffic.turn(Some(self.running.child.pidfd.as_fd()), &self.request, &self.running);
            match ended {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    // A shim that cannot do its work must not leave a container that nobody watches.
                    failure = Some(error.to_string());
                    let _ = process::send_signal(self.running.child.pidfd.as_fd(), Signal::KILL.as_raw());
                    break;
                }
            }
        }
        let ended = process::wait(self.running.child.pidfd.as_fd()).step("cannot wait for the container")?;
        self.traffic.drain();
        self.finish(ended, failure)
    }

    /// The end becomes visible first and durable second; then what takes time is cleaned up.
    fn finish(mut self, ended: Ended, failure: Option<String>) -> Result<(), StartError> {
        let status = ExitStatus {
            exit_code: ended.code(),
            finished_at: rfc3339((self.hooks.now)()),
            oom_killed: self.running.cgroup.oom_killed(),
            error: failure,
        };
        let recorded = record::write_json(&self.bundle.exit(), &status).step("cannot record the exit");
        self.traffic.tell_exit(&status);
        let synced = record::sync(&self.bundle.exit()).step("cannot record the exit");
        if let Some(network) = &mut self.network {
            network.disconnect();
        }
        let removed = self.running.remove();
        self.traffic.flush_all();
        for path in [self.run_dir.socket(), self.run_dir.init()] {
            record::remove(&path).step(format_args!("cannot remove {}", path.display()))?;
        }
        recorded.and(synced).and(removed)?;
        if let Some(request) = &self.request.on_exit {
            (self.hooks.exited)(request, &status);
        }
        Ok(())
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
    let mut ends = Ends { input: None, outputs: Vec::new() };
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

fn nonblocking(fd: OwnedFd) -> Result<OwnedFd, StartError> {
    let flags = rustix::fs::fcntl_getfl(&fd).step("cannot set up a pipe")?;
    rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK).step("cannot set up a pipe")?;
    Ok(fd)
}

/// All that flows between the container, its log and its clients.
struct Traffic {
    ends: Ends,
    input: VecDeque<u8>,
    /// Close the input when what waits is written.
    input_ended: bool,
    listener: UnixListener,
    clients: Vec<Client>,
    log: Option<Log>,
    hooks: ShimHooks,
}

/// Who is ready after a wait.
#[derive(Default)]
struct Ready {
    init: bool,
    listener: bool,
    input: bool,
    outputs: Vec<bool>,
    clients: Vec<bool>,
}

impl Traffic {
    /// Waits for something to happen and does it. True: init has ended.
    fn turn(
        &mut self,
        init: Option<BorrowedFd<'_>>,
        request: &ShimRequest,
        running: &Running,
    ) -> io::Result<bool> {
        let ready = self.wait(init)?;
        for index in (0..ready.outputs.len()).rev().filter(|index| ready.outputs[*index]) {
            self.read_output(index)?;
        }
        if ready.input {
            self.write_input();
        }
        for index in (0..ready.clients.len()).rev().filter(|index| ready.clients[*index]) {
            self.serve_client(index, request, running);
        }
        self.flush_clients();
        if ready.listener {
            self.accept()?;
        }
        Ok(ready.init)
    }

    fn wait(&self, init: Option<BorrowedFd<'_>>) -> io::Result<Ready> {
        let blocked = self.clients.iter().any(Client::is_full);
        let reads_clients = self.input.len() < INPUT_BYTES_MAX;
        let mut polls = vec![PollFd::new(&self.listener, PollFlags::IN)];
        polls.extend(init.map(|init| PollFd::from_borrowed_fd(init, PollFlags::IN)));
        // The order below is that of the results.
        let writes_input = self.ends.input.as_ref().filter(|_| !self.input.is_empty());
        polls.extend(writes_input.map(|fd| PollFd::new(fd, PollFlags::OUT)));
        let read_flags = if blocked { PollFlags::empty() } else { PollFlags::IN };
        let outputs = self.ends.outputs.iter().filter(|_| !blocked);
        polls.extend(outputs.map(|(_, file)| PollFd::new(file, read_flags)));
        for client in &self.clients {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, reads_clients);
            flags.set(PollFlags::OUT, client.is_waiting());
            polls.push(PollFd::new(&client.stream, flags));
        }
        poll(&mut polls, self.patience())?;
        let mut results = polls.iter().map(|poll| !poll.revents().is_empty());
        let mut next = || results.next().unwrap_or(false);
        Ok(Ready {
            listener: next(),
            init: init.is_some() && next(),
            input: writes_input.is_some() && next(),
            outputs: if blocked { Vec::new() } else { self.ends.outputs.iter().map(|_| next()).collect() },
            clients: self.clients.iter().map(|_| next()).collect(),
        })
    }

    /// Until when the most patient look at stalled clients can wait.
    fn patience(&self) -> Option<Duration> {
        let deadline = self.clients.iter().filter_map(Client::deadline).min()?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    fn read_output(&mut self, index: usize) -> io::Result<()> {
        let mut buffer = [0; READ_BYTES];
        let (stream, file) = &mut self.ends.outputs[index];
        let stream = *stream;
        match file.read(&mut buffer) {
            Ok(0) => drop(self.ends.outputs.remove(index)),
            Ok(bytes) => self.deliver(stream, &buffer[..bytes]),
            Err(error) if is_transient(&error) => {}
            // What a terminal says when its last program has closed it.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                drop(self.ends.outputs.remove(index));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn deliver(&mut self, stream: OutputStream, data: &[u8]) {
        for client in &mut self.clients {
            client.output(stream, data);
        }
        if let Some(log) = &mut self.log {
            // On a full disk the log has a gap; the container does not have to end for that.
            let _ = log.write(stream, data, &rfc3339((self.hooks.now)()));
        }
    }

    fn write_input(&mut self) {
        let Some(fd) = &self.ends.input else { return };
        let (bytes, _) = self.input.as_slices();
        match rustix::io::write(fd, bytes) {
            Ok(written) => drop(self.input.drain(..written)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => {
                // The program closed its input and wants no more.
                self.input.clear();
                self.ends.input = None;
            }
        }
        self.close_ended_input();
    }

    fn close_ended_input(&mut self) {
        if self.input_ended && self.input.is_empty() {
            self.ends.input = None;
        }
    }

    fn serve_client(&mut self, index: usize, request: &ShimRequest, running: &Running) {
        let (wishes, gone) = self.clients[index].read();
        for wish in wishes {
            match wish {
                Wish::Input(data) if self.ends.input.is_some() && !self.input_ended => {
                    self.input.extend(data)
                }
                Wish::Input(_) => {}
                Wish::InputEnd if request.stdin == StdinMode::Once && running.terminal.is_none() => {
                    self.input_ended = true;
                }
                Wish::InputEnd => {}
                Wish::Resize(size) => {
                    if let Some(master) = &running.terminal {
                        // A terminal that is being closed needs no size.
                        let _ = tty::set_size(master.as_fd(), size.rows, size.columns);
                    }
                }
            }
        }
        self.close_ended_input();
        if gone {
            self.clients.remove(index);
        }
    }

    fn flush_clients(&mut self) {
        let now = Instant::now();
        self.clients.retain_mut(|client| client.flush(now).is_ok());
    }

    fn accept(&mut self) -> io::Result<()> {
        match self.listener.accept() {
            Ok((stream, _)) if self.clients.len() < CLIENTS_MAX => {
                self.clients.push(Client::new(stream, false)?);
                Ok(())
            }
            // Closing the connection is the answer.
            Ok(_) => Ok(()),
            Err(error) if is_transient(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes what is left in the pipes of an ended container. What cannot be delivered is lost.
    fn drain(&mut self) {
        let deadline = Instant::now() + DRAIN_MAX;
        for _ in 0..DRAIN_READS_MAX {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.ends.outputs.is_empty() || left.is_zero() || self.drain_once(left).is_err() {
                break;
            }
        }
        if let Some(log) = &mut self.log {
            let _ = log.finish(&rfc3339((self.hooks.now)()));
        }
    }

    fn drain_once(&mut self, limit: Duration) -> io::Result<()> {
        let outputs = self.ends.outputs.iter();
        let mut polls: Vec<PollFd<'_>> = outputs.map(|(_, file)| PollFd::new(file, PollFlags::IN)).collect();
        poll(&mut polls, Some(limit))?;
        let ready: Vec<bool> = polls.iter().map(|poll| !poll.revents().is_empty()).collect();
        (0..ready.len()).rev().filter(|index| ready[*index]).try_for_each(|index| self.read_output(index))
    }

    fn drop_gone_clients(&mut self, ready: &Ready) {
        for index in (0..ready.clients.len()).rev().filter(|index| ready.clients[*index]) {
            if self.clients[index].read().1 {
                self.clients.remove(index);
            }
        }
    }

    fn tell_exit(&mut self, status: &ExitStatus) {
        for client in &mut self.clients {
            client.exit(status);
        }
        self.flush_clients();
    }

    /// Stays until every client has what it is owed, or is gone, or is given up.
    fn flush_all(&mut self) {
        self.ends = Ends { input: None, outputs: Vec::new() };
        while self.clients.iter().any(Client::is_waiting) {
            self.clients.retain(Client::is_waiting);
            match self.wait(None) {
                Ok(ready) => self.drop_gone_clients(&ready),
                Err(_) => return,
            }
            self.flush_clients();
        }
    }
}

fn poll(polls: &mut [PollFd<'_>], limit: Option<Duration>) -> io::Result<()> {
    let limit = limit.map(|limit| Timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    });
    match rustix::event::poll(polls, limit.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
