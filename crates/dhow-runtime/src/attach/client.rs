//! The client side: a terminal or pipes on one end, the shim on the other.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use dhow_sys::signal::{SignalFd, SignalSet};
use dhow_sys::tty::{self, RawMode};
use rustix::event::{PollFd, PollFlags};
use rustix::process::Signal;

use super::detach::DetachWatch;
use super::frame::Frame;
use crate::{ExitStatus, RunDir, WindowSize};

/// How much input is read at once.
const READ_BYTES: usize = 32 * 1024;

/// The signals that are passed on to a container.
const PROXIED: [Signal; 7] =
    [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2, Signal::CONT];

/// Catches the signals that are meant for the container.
///
/// To be made before the process has other threads: a signal goes to any thread that does not block it.
#[derive(Debug)]
pub struct SignalProxy {
    arrivals: SignalFd,
}

impl SignalProxy {
    /// Catches changes of the terminal's size, and, if `proxy`, the signals that are passed on.
    pub fn install(proxy: bool) -> io::Result<Self> {
        let mut numbers = vec![Signal::WINCH.as_raw()];
        numbers.extend(PROXIED.iter().filter(|_| proxy).map(|signal| signal.as_raw()));
        let signals = SignalSet::of(&numbers);
        signals.block()?;
        Ok(SignalProxy { arrivals: signals.descriptor()? })
    }

    /// The next signal that arrived, if any.
    pub(crate) fn next(&self) -> io::Result<Option<i32>> {
        self.arrivals.next()
    }
}

impl AsFd for SignalProxy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.arrivals.as_fd()
    }
}

/// The ends on the user's side.
#[derive(Clone, Copy)]
pub struct AttachStreams<'a> {
    /// Input for the container. `None` sends none.
    pub stdin: Option<BorrowedFd<'a>>,
    /// Called when the size of the terminal was passed on.
    pub resized: Option<&'a dyn Fn(WindowSize)>,
    /// The container has a terminal: `stdin`, if it is one, is put into raw mode and its size passed on.
    pub terminal: bool,
    /// The keys that detach, watched for in a terminal. Empty: none.
    pub detach_keys: &'a [u8],
    /// Signals for the container.
    pub signals: Option<&'a SignalProxy>,
}

/// How an attachment ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachEnd {
    /// The container ended.
    Exited(ExitStatus),
    /// The user typed the detach keys; the container goes on.
    Detached,
    /// The shim broke the connection: it was killed, or this client was too slow.
    Lost,
}

/// A terminal of the user's while a program in a container uses it.
pub(crate) struct Terminal<'a> {
    fd: BorrowedFd<'a>,
    _raw: RawMode,
}

impl<'a> Terminal<'a> {
    /// Takes `stdin` over if it is a terminal and `wanted`.
    pub(crate) fn take(stdin: Option<BorrowedFd<'a>>, wanted: bool) -> io::Result<Option<Self>> {
        match stdin.filter(|fd| wanted && tty::is_terminal(*fd)) {
            Some(fd) => Ok(Some(Terminal { fd, _raw: RawMode::enter(fd)? })),
            None => Ok(None),
        }
    }

    /// Its size now.
    pub(crate) fn size(&self) -> io::Result<WindowSize> {
        tty::size(self.fd).map(|(rows, columns)| WindowSize { rows, columns })
    }
}

/// A connection to a shim.
#[derive(Debug)]
pub struct Attached {
    socket: UnixStream,
}

impl Attached {
    /// Attaches to a running container; output from now on is seen.
    pub fn connect(run_dir: &RunDir) -> io::Result<Self> {
        // Socket paths are limited to 108 bytes, so the folder is named by its descriptor.
        let folder = File::open(run_dir.dir())?;
        let name = run_dir.socket();
        let name = Path::new(name.file_name().unwrap_or_default());
        UnixStream::connect(Path::new(&dhow_sys::beneath::proc_path(&folder)).join(name)).map(Attached::over)
    }

    /// Tells the container's terminal its size, and lets go.
    pub fn resize(mut self, size: WindowSize) -> io::Result<()> {
        self.send(&Frame::Resize(size))
    }

    pub(crate) fn over(socket: UnixStream) -> Self {
        Attached { socket }
    }

    /// Has the shim look at what networks its container is to be on, and hears what came of it. A container that
    /// ends meanwhile is on none.
    pub(crate) fn update_network(mut self, wait_max: Duration) -> io::Result<Result<(), String>> {
        self.socket.set_read_timeout(Some(wait_max))?;
        self.send(&Frame::UpdateNetwork)?;
        loop {
            match Frame::read(&mut self.socket)? {
                Some(Frame::NetworkUpdated(updated)) => return Ok(updated),
                Some(Frame::Exit(_)) => return Ok(Ok(())),
                // Its output goes to every client.
                Some(_) => {}
                None => return Err(io::ErrorKind::ConnectionReset.into()),
            }
        }
    }

    /// Moves data between the user and the container until one of them has had enough.
    ///
    /// Signals are handed to the container's init, found in `run_dir`. An error of the user's side (a closed
    /// pipe) is returned; the container is not told.
    pub fn pump(
        mut self,
        run_dir: &RunDir,
        streams: AttachStreams<'_>,
        stdout: &mut dyn Write,
        stderr: &mut dyn Write,
    ) -> io::Result<AttachEnd> {
        let terminal = Terminal::take(streams.stdin, streams.terminal)?;
        let keys = if streams.terminal { streams.detach_keys } else { &[] };
        let mut side = UserSide {
            run_dir,
            stdin: streams.stdin,
            watch: DetachWatch::new(keys),
            terminal,
            resized: streams.resized,
        };
        if side.stdin.is_none() {
            // Whether there is any input to come may decide how the program behaves.
            self.send(&Frame::StdinEnd)?;
        }
        side.send_size(&mut self)?;
        loop {
            let ready = self.wait(&side, streams.signals)?;
            if ready.signals
                && let Some(signals) = streams.signals
            {
                side.pass_signals(signals, &mut self)?;
            }
            if ready.socket {
                match Frame::read(&mut self.socket)? {
                    Some(Frame::Stdout(data)) => write(stdout, &data)?,
                    Some(Frame::Stderr(data)) => write(stderr, &data)?,
                    Some(Frame::Exit(status)) => return Ok(AttachEnd::Exited(status)),
                    Some(_) | None => return Ok(AttachEnd::Lost),
                }
            }
            if ready.stdin && side.pass_input(&mut self)? {
                // Said goodbye to, the shim lets go of the connection.
                let _ = self.socket.shutdown(Shutdown::Both);
                return Ok(AttachEnd::Detached);
            }
        }
    }

    fn wait(&self, side: &UserSide<'_>, signals: Option<&SignalProxy>) -> io::Result<Ready> {
        let candidates = [Some(self.socket.as_fd()), signals.map(AsFd::as_fd), side.stdin];
        let present = candidates.iter().flatten();
        let mut polls: Vec<PollFd<'_>> =
            present.map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        match rustix::event::poll(&mut polls, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut results = polls.iter().map(|poll| !poll.revents().is_empty());
        let [socket, signals, stdin] =
            candidates.map(|candidate| candidate.is_some() && results.next().unwrap_or(false));
        Ok(Ready { socket, signals, stdin })
    }

    /// A shim that is gone is noticed by the next read.
    fn send(&mut self, frame: &Frame) -> io::Result<()> {
        match frame.write(&mut self.socket) {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                Ok(())
            }
            result => result,
        }
    }
}

struct Ready {
    socket: bool,
    signals: bool,
    stdin: bool,
}

struct UserSide<'a> {
    run_dir: &'a RunDir,
    stdin: Option<BorrowedFd<'a>>,
    watch: DetachWatch,
    terminal: Option<Terminal<'a>>,
    resized: Option<&'a dyn Fn(WindowSize)>,
}

impl UserSide<'_> {
    fn send_size(&self, attached: &mut Attached) -> io::Result<()> {
        match &self.terminal {
            Some(terminal) => {
                let size = terminal.size()?;
                attached.send(&Frame::Resize(size))?;
                if let Some(tell) = self.resized {
                    tell(size);
                }
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn pass_signals(&self, signals: &SignalProxy, attached: &mut Attached) -> io::Result<()> {
        while let Some(number) = signals.next()? {
            if number == Signal::WINCH.as_raw() {
                self.send_size(attached)?;
            } else {
                // A container that ended meanwhile says so through the socket.
                crate::client::signal(self.run_dir, number)?;
            }
        }
        Ok(())
    }

    /// Passes on what was typed. True: the detach keys were.
    fn pass_input(&mut self, attached: &mut Attached) -> io::Result<bool> {
        let Some(stdin) = self.stdin else { return Ok(false) };
        let mut buffer = [0; READ_BYTES];
        let bytes = match rustix::io::read(stdin, &mut buffer) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(false),
            // A terminal that was hung up.
            Err(rustix::io::Errno::IO) => 0,
            result => result?,
        };
        if bytes == 0 {
            self.stdin = None;
            attached.send(&Frame::StdinEnd)?;
            return Ok(false);
        }
        let (passed, detach) = self.watch.filter(&buffer[..bytes]);
        if !passed.is_empty() {
            attached.send(&Frame::Stdin(passed))?;
        }
        Ok(detach)
    }
}

fn write(out: &mut dyn Write, data: &[u8]) -> io::Result<()> {
    out.write_all(data)?;
    out.flush()
}

/// Reads until the end or an error that means it.
pub(crate) fn read_some(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    match input.read(buffer) {
        // What a terminal says when its last program has closed it.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => Ok(0),
        result => result,
    }
}
