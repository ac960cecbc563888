//! All that flows between a container, its log and its clients.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use dhow_sys::tty;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::clients::{CLIENTS_MAX, Client, Wish, is_transient};
use super::log::Log;
use super::{ShimHooks, rfc3339};
use crate::launch::Running;
use crate::once::OutputStream;
use crate::{ExitStatus, StdinMode};

/// How much input waits for the container before clients have to.
const INPUT_BYTES_MAX: usize = 1 << 20;
/// How much output is read at once.
const READ_BYTES: usize = 64 * 1024;
/// How long output may still come after the container ended, from processes that are not in it but hold its pipes.
const DRAIN_MAX: Duration = Duration::from_millis(500);
/// How often it is read then. A pipe holds a mebibyte at most.
const DRAIN_READS_MAX: usize = 64;

/// The shim's ends of the container's standard descriptors.
#[derive(Default)]
pub(super) struct Ends {
    pub input: Option<OwnedFd>,
    pub outputs: Vec<(OutputStream, File)>,
}

/// All that flows between the container, its log and its clients.
pub(super) struct Traffic {
    pub ends: Ends,
    pub stdin: StdinMode,
    pub listener: UnixListener,
    pub clients: Vec<Client>,
    pub log: Option<Log>,
    pub hooks: ShimHooks,
    input: VecDeque<u8>,
    /// Close the input when what waits is written.
    input_ended: bool,
}

/// What is waited for besides the traffic itself.
#[derive(Default)]
pub(super) struct Watched<'a> {
    /// The container's process.
    pub init: Option<BorrowedFd<'a>>,
    /// The descriptors of a probe of its health.
    pub probe: [Option<BorrowedFd<'a>>; 2],
    /// Not longer than this.
    pub until: Option<Instant>,
}

/// Which of those has something to say.
#[derive(Clone, Copy, Default)]
pub(super) struct Happened {
    /// The container's process has ended.
    pub init: bool,
    /// The probe has something to say.
    pub probe: bool,
}

/// Who is ready after a wait.
#[derive(Default)]
struct Ready {
    happened: Happened,
    listener: bool,
    input: bool,
    outputs: Vec<bool>,
    clients: Vec<bool>,
}

impl Traffic {
    pub(super) fn new(
        stdin: StdinMode,
        listener: UnixListener,
        log: Option<Log>,
        hooks: ShimHooks,
    ) -> Traffic {
        let (ends, clients) = Default::default();
        Traffic { ends, stdin, listener, clients, log, hooks, input: VecDeque::new(), input_ended: false }
    }

    /// Waits for something to happen and does it.
    pub(super) fn turn(&mut self, watched: &Watched<'_>, running: &Running) -> io::Result<Happened> {
        let ready = self.wait(watched)?;
        for index in (0..ready.outputs.len()).rev().filter(|index| ready.outputs[*index]) {
            self.read_output(index)?;
        }
        if ready.input {
            self.write_input();
        }
        for index in (0..ready.clients.len()).rev().filter(|index| ready.clients[*index]) {
            self.serve_client(index, running);
        }
        self.flush_clients();
        if ready.listener {
            self.accept()?;
        }
        Ok(ready.happened)
    }

    /// Waits without a container. Whoever connects wants to be heard and gets no answer: the caller looks for itself
    /// at what has changed.
    pub(super) fn rest(&mut self, until: Instant) -> io::Result<()> {
        let ready = self.wait(&Watched { until: Some(until), ..Watched::default() })?;
        if ready.listener {
            self.accept()?;
            self.clients.clear();
        }
        Ok(())
    }

    fn wait(&self, watched: &Watched<'_>) -> io::Result<Ready> {
        let blocked = self.clients.iter().any(Client::is_full);
        let reads_clients = self.input.len() < INPUT_BYTES_MAX;
        let mut polls = vec![PollFd::new(&self.listener, PollFlags::IN)];
        let [one, two] = watched.probe;
        let others = [watched.init, one, two];
        polls.extend(others.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)));
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
        poll(&mut polls, self.patience(watched.until))?;
        let mut results = polls.iter().map(|poll| !poll.revents().is_empty());
        let mut next = || results.next().unwrap_or(false);
        let listener = next();
        let [init, one, two] = others.map(|fd| fd.is_some() && next());
        Ok(Ready {
            happened: Happened { init, probe: one || two },
            listener,
            input: writes_input.is_some() && next(),
            outputs: if blocked { Vec::new() } else { self.ends.outputs.iter().map(|_| next()).collect() },
            clients: self.clients.iter().map(|_| next()).collect(),
        })
    }

    /// How long the most patient look at stalled clients can wait.
    fn patience(&self, until: Option<Instant>) -> Option<Duration> {
        let deadline = self.clients.iter().filter_map(Client::deadline).chain(until).min()?;
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

    fn serve_client(&mut self, index: usize, running: &Running) {
        let (wishes, gone) = self.clients[index].read();
        for wish in wishes {
            match wish {
                Wish::Input(data) if self.ends.input.is_some() && !self.input_ended => {
                    self.input.extend(data)
                }
                Wish::Input(_) => {}
                Wish::InputEnd if self.stdin == StdinMode::Once && running.terminal.is_none() => {
                    self.input_ended = true;
                }
                Wish::InputEnd => {}
                Wish::Resize(size) => {
                    if let Some(master) = &running.terminal {
                        // A terminal that is being closed needs no size.
                        let _ = tty::set_size(master.as_fd(), size.rows, size.columns);
                    }
                }
                Wish::UpdateNetwork => self.clients[index].awaits_network = true,
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
    pub(super) fn drain(&mut self) {
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

    pub(super) fn tell_network(&mut self, updated: &Result<(), String>) {
        for client in self.clients.iter_mut().filter(|client| client.awaits_network) {
            client.awaits_network = false;
            client.network_updated(updated);
        }
        self.flush_clients();
    }

    pub(super) fn tell_exit(&mut self, status: &ExitStatus) {
        for client in &mut self.clients {
            client.exit(status);
        }
        self.flush_clients();
    }

    /// Stays until every client has what it is owed, or is gone, or is given up.
    pub(super) fn flush_all(&mut self) {
        self.ends = Ends::default();
        while self.clients.iter().any(Client::is_waiting) {
            self.clients.retain(Client::is_waiting);
            match self.wait(&Watched::default()) {
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
