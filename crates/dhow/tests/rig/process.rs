//! Commands with an end: whatever hangs is stopped, and shows what it said so far.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Long enough for a build that installs packages on a busy machine.
const COMMAND_SECONDS_MAX: u64 = 180;
const POLL: Duration = Duration::from_millis(5);

/// How a command ended and what it said.
#[derive(Debug)]
pub(crate) struct Finished {
    /// As a shell reports it: 128 and the signal for one that was killed.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Finished {
    /// Everything it said, results first.
    pub(crate) fn both(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A command that runs. It ends with the test.
pub(crate) struct Running {
    child: Child,
    line: String,
    stdout: Pipe,
    stderr: Pipe,
    since: Instant,
}

impl Running {
    pub(super) fn start(mut command: Command, line: &str) -> Self {
        // A group of its own, as under a shell, so that it can be interrupted and stopped with its children.
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start `{line}`: {error}"));
        let stdout = Pipe::read(child.stdout.take().expect("it is a pipe"));
        let stderr = Pipe::read(child.stderr.take().expect("it is a pipe"));
        Self { child, line: line.to_owned(), stdout, stderr, since: Instant::now() }
    }

    /// Sends a signal to the command, as a terminal does.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process_group(self.pid(), signal).expect("the command runs");
    }

    /// Waits until it has said `text`, on either stream.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) {
        while !self.said().contains(text) {
            assert!(!self.is_late(), "`{}` never said `{text}`:\n{}", self.line, self.said());
            let ended = self.child.try_wait().expect("it is our child");
            assert!(
                ended.is_none() || self.said().contains(text),
                "`{}` ended without `{text}`:\n{}",
                self.line,
                self.said()
            );
            thread::sleep(POLL);
        }
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        self.stdout.text() + &self.stderr.text()
    }

    /// Waits for its end, and until nobody else holds its output open: `id=$(docker run -d …)` waits for that as well.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status;
            }
            assert!(!self.is_late(), "`{}` hangs; so far it said:\n{}", self.line, self.said());
            thread::sleep(POLL);
        };
        let took = self.since.elapsed();
        while !(self.stdout.is_over() && self.stderr.is_over()) {
            assert!(!self.is_late(), "`{}` ended but its output is held open:\n{}", self.line, self.said());
            thread::sleep(POLL);
        }
        Finished { status: code(status), stdout: self.stdout.text(), stderr: self.stderr.text(), took }
    }

    fn is_late(&self) -> bool {
        self.since.elapsed() > Duration::from_secs(COMMAND_SECONDS_MAX)
    }

    pub(super) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // It may end by itself meanwhile.
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// The number a shell has for it.
pub(super) fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).expect("it ended or was killed")
}

/// What arrives from one stream of a command.
pub(super) struct Pipe {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Pipe {
    pub(super) fn read(mut stream: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut piece = [0; 8192];
            // A terminal ends with an error, when the last program has closed its side.
            while let Ok(length @ 1..) = stream.read(&mut piece) {
                sink.lock().expect("no reader panics").extend_from_slice(&piece[..length]);
            }
        });
        Self { bytes, reader }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no reader panics")).into_owned()
    }

    pub(super) fn is_over(&self) -> bool {
        self.reader.is_finished()
    }
}
