//! What containers say: attaching, logs, and waiting for their end.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use dhow_engine::containers::{
    AttachError, AttachStreams, Attached, Container, DETACH_KEYS, FindError, LogLine, LogsError, LogsOptions,
    OutputStream, State, parse_detach_keys,
};
use dhow_engine::{Engine, EventRange};
use jiff::Timestamp;
use serde_json::json;

use super::body::Out;
use super::error::{ApiError, chain, statuses};
use super::exchange::{Call, Reply};
use super::pending::Pending;

/// One stream, as a terminal makes it.
pub(super) const RAW: &str = "application/vnd.docker.raw-stream";
/// Several streams in frames.
pub(super) const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
/// How often somebody who waits for a start looks whether it happened elsewhere.
const LOOK_EVERY: Duration = Duration::from_millis(100);

statuses! {
    AttachError {
        AttachError::Find(FindError::NotFound(_)) => NOT_FOUND,
        AttachError::Paused => CONFLICT,
        AttachError::NotRunning => CONFLICT,
    }
    LogsError {
        LogsError::Find(FindError::NotFound(_)) => NOT_FOUND,
        LogsError::NotKept => NOT_IMPLEMENTED,
    }
}

/// The content type of a container's output.
pub(super) fn content_type(terminal: bool) -> &'static str {
    if terminal { RAW } else { MULTIPLEXED }
}

/// Which of the two streams of output something belongs to.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Stdout = 1,
    Stderr = 2,
}

/// Writes output in frames of eight bytes and content, or as it is if there is a terminal.
pub(super) struct Framed<W> {
    pub(super) out: W,
    pub(super) kind: Kind,
    pub(super) terminal: bool,
    /// This stream is not wanted.
    pub(super) muted: bool,
}

impl<W: Write> Write for Framed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.muted {
            if !self.terminal {
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
                self.out.write_all(&[
                    self.kind as u8,
                    0,
                    0,
                    0,
                    length[0],
                    length[1],
                    length[2],
                    length[3],
                ])?;
            }
            self.out.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What of a container a client wants to be attached to.
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    /// What was said before comes first.
    logs: bool,
    /// What is said from now on comes too.
    stream: bool,
    detach_keys: Vec<u8>,
}

pub(super) fn detach_keys(call: &Call) -> Result<Vec<u8>, ApiError> {
    match call.query.get("detachKeys") {
        Some(text) => parse_detach_keys(text).map_err(|error| ApiError::bad(error.to_string())),
        None => Ok(DETACH_KEYS.to_vec()),
    }
}

pub(super) fn attach(call: Call) -> Result<Reply, ApiError> {
    let set = |name| call.query.is_set(name);
    let wanted = Wanted {
        stdin: set("stdin"),
        stdout: set("stdout"),
        stderr: set("stderr"),
        logs: set("logs"),
        stream: set("stream"),
        detach_keys: detach_keys(&call)?,
    };
    let found = call.engine.containers().find(&call.name)?;
    if matches!(found.state, State::Running { paused: true, .. }) {
        return Err(AttachError::Paused.into());
    }
    // From now on nothing is missed, whoever starts it.
    let start = (!found.state.is_running()).then(|| call.pending.wait(&found.id));
    let (engine, pending) = (Arc::clone(&call.engine), Arc::clone(&call.pending));
    let content_type = content_type(found.record.host.tty);
    let talk = Box::new(move |stream: UnixStream| {
        let attached = match start {
            None => engine.containers().attach(&found.id).ok().map(|(_, attached)| attached),
            Some(_) if !wanted.stream => None,
            Some(start) => wait_for_start(&engine, &pending, &found.id, &start, &stream),
        };
        // A client that has gone is no reason to say anything to anybody.
        let _ = serve(&engine, &found, &wanted, attached, &stream);
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    Ok(Reply::Hijack { content_type, talk })
}

/// Waits until the container is started, here or by somebody else, or the client has gone.
fn wait_for_start(
    engine: &Engine,
    pending: &Pending,
    id: &str,
    start: &std::sync::mpsc::Receiver<Attached>,
    stream: &UnixStream,
) -> Option<Attached> {
    loop {
        match start.recv_timeout(LOOK_EVERY) {
            Ok(attached) => return Some(attached),
            // It was to be started, and was not.
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) if has_hung_up(stream) => return None,
            Err(RecvTimeoutError::Timeout) => match engine.containers().find(id) {
                Ok(found) if found.state.is_running() => {
                    drop(pending.take(id));
                    return start.try_recv().ok().or_else(|| Some(engine.containers().attach(id).ok()?.1));
                }
                Ok(_) => {}
                Err(_) => return None,
            },
        }
    }
}

/// Whether both sides of the other end are closed.
fn has_hung_up(stream: &UnixStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut fds, Some(&now)), Ok(1..))
        && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

fn serve(
    engine: &Engine,
    container: &Container,
    wanted: &Wanted,
    attached: Option<Attached>,
    stream: &UnixStream,
) -> io::Result<()> {
    let terminal = container.record.host.tty;
    let framed = |kind, wanted: bool| Framed { out: stream, kind, terminal, muted: !wanted };
    let mut stdout = framed(Kind::Stdout, wanted.stdout);
    let mut stderr = framed(Kind::Stderr, wanted.stderr);
    if wanted.logs {
        let mut each = |line: LogLine| {
            let out: &mut dyn Write = match line.stream {
                OutputStream::Stdout => &mut stdout,
                OutputStream::Stderr => &mut stderr,
            };
            match out.write_all(line.text.as_bytes()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        };
        // Where no log is kept there is nothing to show.
        let _ = engine.containers().logs(&container.id, &LogsOptions::default(), &mut each);
    }
    let Some(attached) = attached.filter(|_| wanted.stream) else { return Ok(()) };
    let stdin = (wanted.stdin && container.record.host.open_stdin).then(|| stream.as_fd());
    let streams =
        AttachStreams { stdin, terminal, detach_keys: &wanted.detach_keys, signals: None, resized: None };
    let run_dir = engine.containers().run_dir(&container.id);
    attached.pump(&run_dir, streams, &mut stdout, &mut stderr).map(drop)
}

pub(super) fn logs(call: Call) -> Result<Reply, ApiError> {
    let (stdout, stderr) = (call.query.is_set("stdout"), call.query.is_set("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::bad("Bad parameters: you must choose at least one stream"));
    }
    let time = |name| -> Result<Option<Timestamp>, ApiError> {
        let text = call.query.get(name).filter(|text| *text != "0");
        let ns = text.map(super::system::nanoseconds).transpose()?;
        Ok(ns.and_then(|ns| Timestamp::from_nanosecond(ns.into()).ok()))
    };
    let tail = call.query.get("tail").filter(|text| *text != "all");
    let options = LogsOptions {
        follow: call.query.is_set("follow"),
        // What is no number means all, as with Docker.
        tail: tail.and_then(|text| text.parse().ok()),
        since: time("since")?,
        until: time("until")?,
    };
    let timestamps = call.query.is_set("timestamps");
    let found = call.engine.containers().find(&call.name)?;
    if found.record.host.log == dhow_engine::containers::LogConfig::None {
        return Err(LogsError::NotKept.into());
    }
    let terminal = found.record.host.tty;
    let engine = Arc::clone(&call.engine);
    let write = Box::new(move |out: &mut Out| {
        let out = RefCell::new(out);
        let goes_on = || !out.borrow().is_closed();
        let mut each = |line: LogLine| {
            let (kind, is_wanted) = match line.stream {
                OutputStream::Stdout => (Kind::Stdout, stdout),
                OutputStream::Stderr => (Kind::Stderr, stderr),
            };
            let text = if timestamps { format!("{} {}", line.time, line.text) } else { line.text };
            let mut out = out.borrow_mut();
            let mut framed = Framed { out: &mut **out, kind, terminal, muted: !is_wanted };
            match framed.write_all(text.as_bytes()).and_then(|()| framed.flush()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        };
        // What cannot be read any more ends the stream: there is no other way to say so.
        let _ = engine.containers().logs_while(&found.id, &options, &goes_on, &mut each);
    });
    Ok(Reply::Stream { content_type: content_type(terminal), headers: Vec::new(), write })
}

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    NotRunning,
    NextExit,
    Removed,
}

pub(super) fn wait(call: Call) -> Result<Reply, ApiError> {
    let condition = match call.query.get("condition") {
        None | Some("not-running") => Condition::NotRunning,
        Some("next-exit") => Condition::NextExit,
        Some("removed") => Condition::Removed,
        Some(other) => return Err(ApiError::bad(format!("invalid condition: {other:?}"))),
    };
    let found = call.engine.containers().find(&call.name)?;
    let now = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    let engine = Arc::clone(&call.engine);
    // Headers go at once: what is waited for may be started only then.
    Ok(Reply::objects(move |out| {
        let code = match (&found.state, condition) {
            (State::Exited { status, .. }, Condition::NotRunning) => Some(status.exit_code),
            (State::Created, Condition::NotRunning) => Some(0),
            _ => wait_for_event(&engine, &found, condition, now, out),
        };
        if let Some(code) = code {
            let _ = out.line(&json!({ "StatusCode": code }));
        }
    }))
}

/// The exit code that events tell of, from `since_ns` on. `None`: the client has gone, or the store has.
fn wait_for_event(
    engine: &Engine,
    container: &Container,
    condition: Condition,
    since_ns: i64,
    out: &mut Out,
) -> Option<i32> {
    let out = RefCell::new(out);
    let before = match &container.state {
        State::Exited { status, .. } => Some(status.exit_code),
        _ => None,
    };
    let code = Cell::new(before.filter(|_| condition == Condition::Removed));
    let is_over = Cell::new(false);
    let goes_on = || {
        // Looking at it settles what a killed shim left, and that is told as an event as well.
        let gone = matches!(engine.containers().find(&container.id), Err(FindError::NotFound(_)));
        if gone && condition != Condition::NextExit {
            is_over.set(true);
        }
        !gone && !out.borrow().is_closed()
    };
    let range = EventRange { since_ns: Some(since_ns), until_ns: None };
    let told = engine.events_while(range, &goes_on, &mut |event| {
        if event.kind != "container" || event.id != container.id {
            return true;
        }
        match event.action.as_str() {
            "die" => {
                code.set(event.attributes.get("exitCode").and_then(|code| code.parse().ok()));
                condition == Condition::Removed
            }
            "destroy" => false,
            _ => true,
        }
    });
    if let Err(error) = told {
        let _ = out.borrow_mut().line(&json!({ "StatusCode": -1, "Error": { "Message": chain(&error) } }));
        return None;
    }
    code.get().or(is_over.get().then_some(0))
}
