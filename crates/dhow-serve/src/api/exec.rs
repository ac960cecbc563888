//! One more process in a container.
//!
//! What is to be run is written down in the run-time folder when it is created, and how it went when it ends: any server
//! over the same folder can start it and tell of it.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use dhow_engine::Engine;
use dhow_engine::containers::{ExecEnd, ExecError, ExecRequest, ExecStreams, FindError, State};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::attach::{Framed, Kind, RAW, content_type};
use super::error::{ApiError, chain, statuses};
use super::exchange::{Call, Reply};

/// Folder of the notes.
const FOLDER: &str = "execs";
const ID_BYTES: usize = 32;
const COPY_BYTES: usize = 32 << 10;

statuses! {
    ExecError {
        ExecError::Find(FindError::NotFound(_)) => NOT_FOUND,
        ExecError::NotRunning(_) => CONFLICT,
        ExecError::Paused(_) => CONFLICT,
    }
}

/// What is wanted, and how it went.
#[derive(Clone, Serialize, Deserialize)]
struct Exec {
    container: String,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    terminal: bool,
    privileged: bool,
    env: Vec<String>,
    args: Vec<String>,
    user: String,
    cwd: String,
    state: ExecState,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum ExecState {
    Created,
    Running,
    Exited(i32),
}

/// The body of `create`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Body {
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    tty: bool,
    privileged: bool,
    env: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    user: String,
    working_dir: String,
}

/// The body of `start`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Start {
    detach: bool,
    tty: bool,
}

struct Notes<'a>(&'a Engine);

impl Notes<'_> {
    fn path(&self, id: &str) -> PathBuf {
        self.0.run_folder().join(FOLDER).join(id)
    }

    fn read(&self, id: &str) -> Result<Exec, ApiError> {
        let lost = || ApiError::not_found(format!("No such exec instance: {id}"));
        if id.len() != 2 * ID_BYTES || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(lost());
        }
        let bytes = fs::read(self.path(id)).map_err(|_| lost())?;
        serde_json::from_slice(&bytes).map_err(|_| lost())
    }

    fn write(&self, id: &str, exec: &Exec) -> io::Result<()> {
        let path = self.path(id);
        fs::create_dir_all(path.with_file_name(""))?;
        let temporary = path.with_extension("new");
        fs::write(&temporary, serde_json::to_vec(exec).expect("plain data serializes"))?;
        fs::rename(temporary, path)
    }
}

fn unwritten(error: &io::Error) -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        format!("cannot write down what to run: {}", chain(error)),
    )
}

pub(super) fn create(mut call: Call) -> Result<Reply, ApiError> {
    let body: Body = call.json()?;
    let found = call.engine.containers().find(&call.name)?;
    match found.state {
        State::Running { paused: true, .. } => return Err(ExecError::Paused(call.name).into()),
        State::Running { .. } => {}
        _ => return Err(ExecError::NotRunning(found.id).into()),
    }
    let args =
        body.cmd.filter(|args| !args.is_empty()).ok_or_else(|| ApiError::bad("No exec command specified"))?;
    let mut random = [0; ID_BYTES];
    let filled = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    filled.map_err(|error| unwritten(&error.into()))?;
    let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let exec = Exec {
        container: found.id,
        stdin: body.attach_stdin,
        stdout: body.attach_stdout,
        stderr: body.attach_stderr,
        terminal: body.tty,
        privileged: body.privileged,
        env: body.env.unwrap_or_default(),
        args,
        user: body.user,
        cwd: body.working_dir,
        state: ExecState::Created,
    };
    Notes(&call.engine).write(&id, &exec).map_err(|error| unwritten(&error))?;
    Ok(Reply::Json(StatusCode::CREATED, json!({ "Id": id })))
}

pub(super) fn inspect(call: Call) -> Result<Reply, ApiError> {
    let exec = Notes(&call.engine).read(&call.name)?;
    let (running, code) = match exec.state {
        ExecState::Created => (false, None),
        // Its server was killed, or its container ended: the end was not written down.
        ExecState::Running if !is_up(&call.engine, &exec.container) => (false, Some(137)),
        ExecState::Running => (true, None),
        ExecState::Exited(code) => (false, Some(code)),
    };
    let (entrypoint, arguments) = exec.args.split_first().expect("it has a program");
    Ok(Reply::ok(json!({
        "ID": call.name,
        "Running": running,
        "ExitCode": code,
        "ProcessConfig": {
            "tty": exec.terminal,
            "entrypoint": entrypoint,
            "arguments": arguments,
            "privileged": exec.privileged,
            "user": exec.user,
        },
        "OpenStdin": exec.stdin,
        "OpenStdout": exec.stdout,
        "OpenStderr": exec.stderr,
        "CanRemove": false,
        "ContainerID": exec.container,
        "DetachKeys": "",
        "Pid": 0,
    })))
}

fn is_up(engine: &Engine, container: &str) -> bool {
    engine.containers().find(container).is_ok_and(|container| container.state.is_running())
}

pub(super) fn start(mut call: Call) -> Result<Reply, ApiError> {
    let body: Start = call.json()?;
    let exec = Notes(&call.engine).read(&call.name)?;
    if !matches!(exec.state, ExecState::Created) {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            format!("Error: Exec command {} has already run", call.name),
        ));
    }
    if !is_up(&call.engine, &exec.container) {
        return Err(ExecError::NotRunning(exec.container).into());
    }
    let request = ExecRequest {
        args: exec.args.clone(),
        env: exec.env.clone(),
        user: Some(exec.user.clone()).filter(|user| !user.is_empty()),
        cwd: Some(exec.cwd.clone()).filter(|cwd| !cwd.is_empty()),
        privileged: exec.privileged,
        terminal: exec.terminal || body.tty,
        window: None,
        detach: body.detach,
    };
    let (engine, id) = (Arc::clone(&call.engine), call.name);
    if body.detach {
        return detached(&engine, &id, exec, &request);
    }
    let content_type = if request.terminal { RAW } else { content_type(false) };
    let talk = Box::new(move |stream: UnixStream| {
        let code = match run(&engine, &id, &exec, &request, &stream) {
            Ok(code) => code,
            Err(error) => {
                let mut err =
                    Framed { out: &stream, kind: Kind::Stderr, terminal: request.terminal, muted: false };
                // A client that has gone need not know.
                let _ = io::Write::write_all(&mut err, format!("{}\r\n", chain(&error)).as_bytes());
                match error {
                    ExecError::Runtime(error) => error.exit_code(),
                    _ => 126,
                }
            }
        };
        let _ = Notes(&engine).write(&id, &Exec { state: ExecState::Exited(code), ..exec });
        let _ = stream.shutdown(std::net::Shutdown::Both);
    });
    Ok(Reply::Hijack { content_type, talk })
}

fn detached(engine: &Engine, id: &str, exec: Exec, request: &ExecRequest) -> Result<Reply, ApiError> {
    let nowhere =
        fs::OpenOptions::new().read(true).write(true).open("/dev/null").map_err(|error| unwritten(&error))?;
    let streams = ExecStreams {
        stdin: None,
        stdout: nowhere.as_fd(),
        stderr: nowhere.as_fd(),
        detach_keys: &[],
        signals: None,
    };
    engine.containers().exec(&exec.container, request, streams)?;
    let exec = Exec { state: ExecState::Running, ..exec };
    Notes(engine).write(id, &exec).map_err(|error| unwritten(&error))?;
    Ok(Reply::Empty(StatusCode::OK))
}

/// Runs it with the client's stream for its input and output, to its end.
fn run(
    engine: &Engine,
    id: &str,
    exec: &Exec,
    request: &ExecRequest,
    stream: &UnixStream,
) -> Result<i32, ExecError> {
    let setup =
        |error: io::Error| ExecError::Runtime(dhow_engine::containers::RuntimeError::Setup(chain(&error)));
    let _ = Notes(engine).write(id, &Exec { state: ExecState::Running, ..exec.clone() });
    let containers = engine.containers();
    let stdin = exec.stdin.then(|| stream.as_fd());
    let exited = |end| match end {
        ExecEnd::Exited(code) => code,
        ExecEnd::Detached => 0,
    };
    if request.terminal {
        let (stdout, stderr) = (stream.as_fd(), stream.as_fd());
        let keys = &dhow_engine::containers::DETACH_KEYS;
        let streams = ExecStreams { stdin, stdout, stderr, detach_keys: keys, signals: None };
        return containers.exec(&exec.container, request, streams).map(exited);
    }
    // Output goes through pipes, so that it can be put into frames.
    let (out_reader, out_writer) = io::pipe().map_err(setup)?;
    let (err_reader, err_writer) = io::pipe().map_err(setup)?;
    let lock = std::sync::Mutex::new(());
    std::thread::scope(|scope| {
        scope.spawn(|| frames(out_reader, stream, Kind::Stdout, &lock, !exec.stdout));
        scope.spawn(|| frames(err_reader, stream, Kind::Stderr, &lock, !exec.stderr));
        let streams = ExecStreams {
            stdin,
            stdout: out_writer.as_fd(),
            stderr: err_writer.as_fd(),
            detach_keys: &[],
            signals: None,
        };
        let end = containers.exec(&exec.container, request, streams).map(exited);
        // The readers end when nobody can write any more.
        drop((out_writer, err_writer));
        end
    })
}

/// Puts what comes into frames. A client that has gone is no reason to stop reading: the program would be.
fn frames(
    mut input: io::PipeReader,
    stream: &UnixStream,
    kind: Kind,
    lock: &std::sync::Mutex<()>,
    muted: bool,
) {
    let mut framed = Framed { out: stream, kind, terminal: false, muted };
    let mut buffer = vec![0; COPY_BYTES];
    while let Ok(count @ 1..) = input.read(&mut buffer) {
        let _turn = lock.lock();
        if io::Write::write_all(&mut framed, &buffer[..count]).is_err() {
            framed.muted = true;
        }
    }
}
