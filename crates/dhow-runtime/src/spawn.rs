//! Executing this program again as one of its helpers.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use dhow_sys::process::{self, CloneNamespaces, Cloned};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::StartError;
use crate::launch::Step;

/// The longest request or reply.
const MESSAGE_BYTES_MAX: u32 = 16 << 20;
/// The helper's end of the conversation with the command that started it.
const CONTROL_FD: RawFd = 3;
/// The shim's end of the connection to the client that was there first.
const CLIENT_FD: RawFd = 4;
/// What the command holds, and the helper with it.
const CLAIM_FD: RawFd = 5;
/// Where the descriptor of the program is kept, out of the way of those above.
const EXE_FD_MIN: RawFd = 64;

/// What a helper is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Stays with a container.
    Shim,
    /// The same process, about to start its container again.
    ShimAgain,
    /// Runs one container to its end.
    Once,
    /// Runs one process in an existing container.
    Exec,
}

impl Role {
    const ALL: [Role; 4] = [Role::Shim, Role::ShimAgain, Role::Once, Role::Exec];

    /// The helper's `argv[0]`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::Shim => "dhow-shim",
            Role::ShimAgain => "dhow-shim-again",
            Role::Once => "dhow-once",
            Role::Exec => "dhow-exec",
        }
    }

    /// The role this process was started in, if it is a helper.
    pub(crate) fn of(argv0: &OsStr) -> Option<Role> {
        Role::ALL.into_iter().find(|role| OsStr::new(role.name()) == argv0)
    }
}

/// Descriptors that a helper gets from the command.
#[derive(Default)]
pub(crate) struct Passed {
    /// A connection to the client that is there first.
    pub client: Option<OwnedFd>,
    /// A locked file that the helper is to hold until it has a lock of its own.
    pub claim: Option<OwnedFd>,
}

/// Starts a helper, hands it the request, and returns the connection to it.
///
/// The helper leaves its parent at once (see [`detach`]); who started it need not wait for it.
pub(crate) fn helper(
    role: Role,
    request: &impl Serialize,
    stdio: [Stdio; 3],
    passed: Passed,
) -> Result<UnixStream, StartError> {
    let (mut ours, theirs) = UnixStream::pair().step("cannot create a socket")?;
    let exe = process::protected_self_exe().step("cannot open the running program")?;
    let exe = rustix::io::fcntl_dupfd_cloexec(&exe, EXE_FD_MIN).step("cannot open the running program")?;
    let mut command = Command::new(format!("/proc/self/fd/{}", exe.as_raw_fd()));
    let [stdin, stdout, stderr] = stdio;
    command.arg0(role.name()).env_clear().stdin(stdin).stdout(stdout).stderr(stderr);
    process::pass_fd(&mut command, theirs.into(), CONTROL_FD).step("cannot pass a socket on")?;
    for (fd, number) in [(passed.client, CLIENT_FD), (passed.claim, CLAIM_FD)] {
        if let Some(fd) = fd {
            process::pass_fd(&mut command, fd, number).step("cannot pass a descriptor on")?;
        }
    }
    let mut child = command.spawn().step(format_args!("cannot start {}", role.name()))?;
    // The command keeps copies of the descriptors it passes on, and we wait for the helper's to be closed.
    drop(command);
    let sent = send(&mut ours, request);
    child.wait().step(format_args!("cannot start {}", role.name()))?;
    sent.step(format_args!("cannot talk to {}", role.name())).map(|()| ours)
}

/// What a helper was given.
pub(crate) struct Given<R> {
    /// What to do.
    pub request: R,
    /// The connection to the command.
    pub control: UnixStream,
    /// What else it got.
    pub passed: Passed,
}

/// Takes over what the command passed on, and leaves it.
pub(crate) fn given<R: DeserializeOwned>() -> Result<Given<R>, StartError> {
    let control = process::take_passed_fd(CONTROL_FD)
        .step("this program is a helper of dhow and not for direct use")?;
    let mut control = UnixStream::from(control);
    // Only `docker run` without -d is there from the beginning.
    let passed = Passed {
        client: process::take_passed_fd(CLIENT_FD).ok(),
        claim: process::take_passed_fd(CLAIM_FD).ok(),
    };
    let request = receive(&mut control).step("cannot read the request")?;
    let request = request.ok_or_else(|| StartError::Setup("the command that started this is gone".into()))?;
    Ok(Given { request, control, passed })
}

/// Becomes an orphan in a session of its own, so that neither a terminal nor a parent decides when it ends.
pub(crate) fn detach() -> Result<(), StartError> {
    if let Cloned::Parent(_) = process::clone(CloneNamespaces::default()).step("cannot detach")? {
        std::process::exit(0);
    }
    rustix::process::setsid().step("cannot create a session")?;
    rustix::process::chdir("/").step("cannot leave the current directory")
}

/// Sends a message.
pub(crate) fn send(socket: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_vec(message)?;
    let length = u32::try_from(json.len()).ok().filter(|length| *length <= MESSAGE_BYTES_MAX);
    let length =
        length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"))?;
    socket.write_all(&length.to_be_bytes())?;
    socket.write_all(&json)
}

/// Receives a message. `None` means that the other side is gone.
pub(crate) fn receive<M: DeserializeOwned>(socket: &mut UnixStream) -> io::Result<Option<M>> {
    receive_from(socket)
}

/// The same from wherever it comes.
pub(crate) fn receive_from<M: DeserializeOwned>(socket: &mut impl Read) -> io::Result<Option<M>> {
    let mut length = [0; 4];
    if let Err(error) = socket.read_exact(&mut length) {
        let gone = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
        return if gone { Ok(None) } else { Err(error) };
    }
    let length = u32::from_be_bytes(length);
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    let mut json = Vec::new();
    socket.take(length.into()).read_to_end(&mut json)?;
    Ok(Some(serde_json::from_slice(&json)?))
}
