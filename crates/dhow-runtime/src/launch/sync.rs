//! The conversation between a new process and the one that made it.
//!
//! Over a socket that `execve` closes: what is said last by a process that became its program is nothing.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use super::step::Step;
use crate::StartError;

/// The longest error a process can report.
const ERROR_BYTES_MAX: u64 = 64 * 1024;

const TERMINAL: u8 = b'T';
const ROOT: u8 = b'M';
const READY: u8 = b'R';
const FAILED: u8 = b'E';
const GO: u8 = b'G';

/// One end of the conversation.
#[derive(Debug)]
pub(crate) struct Sync(UnixStream);

/// What the new process says.
#[derive(Debug)]
pub(crate) enum Said {
    /// This is the other side of my terminal.
    Terminal(OwnedFd),
    /// This is my root file system.
    Root(OwnedFd),
    /// I wait for the last word.
    Ready,
    /// It did not work.
    Failed(StartError),
    /// Nothing any more: it became its program, or died.
    Gone,
}

impl Sync {
    /// An end that was made elsewhere.
    pub(crate) fn over(socket: UnixStream) -> Sync {
        Sync(socket)
    }

    /// Both ends.
    pub(crate) fn pair() -> Result<(Sync, Sync), StartError> {
        let (one, other) = UnixStream::pair().step("cannot create a socket")?;
        Ok((Sync(one), Sync(other)))
    }

    /// The maker: go on.
    pub(crate) fn go(&self) -> Result<(), StartError> {
        (&self.0).write_all(&[GO]).step("the new process died")
    }

    /// The new process: wait for [`go`](Self::go).
    pub(crate) fn wait(&self) -> Result<(), StartError> {
        (&self.0).read_exact(&mut [0]).step("the shim died")
    }

    /// The new process: tell about the terminal.
    pub(crate) fn terminal(&self, master: BorrowedFd<'_>) -> Result<(), StartError> {
        self.hand_over(TERMINAL, master).step("cannot hand over the terminal")
    }

    /// The new process: tell about the root file system.
    pub(crate) fn root(&self, root: BorrowedFd<'_>) -> Result<(), StartError> {
        self.hand_over(ROOT, root).step("cannot hand over the root file system")
    }

    fn hand_over(&self, what: u8, fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [fd];
        assert!(
            ancillary.push(SendAncillaryMessage::ScmRights(&fds)),
            "the buffer has room for one descriptor"
        );
        rustix::net::sendmsg(&self.0, &[IoSlice::new(&[what])], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
    }

    /// The new process: all is prepared.
    pub(crate) fn ready(&self) -> Result<(), StartError> {
        (&self.0).write_all(&[READY]).step("the shim died")
    }

    /// The new process: it did not work.
    pub(crate) fn fail(&self, error: &StartError) {
        let mut message = vec![FAILED];
        message.extend(serde_json::to_vec(error).unwrap_or_default());
        // If the maker is gone there is nobody to tell.
        let _ = (&self.0).write_all(&message);
    }

    /// What a process that is gone said of the reason.
    pub(crate) fn failure(&self) -> Option<StartError> {
        loop {
            match self.listen() {
                Ok(Said::Failed(error)) => return Some(error),
                Ok(Said::Gone) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The maker: what does the new process say?
    pub(crate) fn listen(&self) -> Result<Said, StartError> {
        let (byte, fd) = receive(&self.0).step("cannot hear from the new process")?;
        Ok(match (byte, fd) {
            (None, _) => Said::Gone,
            (Some(TERMINAL), Some(master)) => Said::Terminal(master),
            (Some(ROOT), Some(root)) => Said::Root(root),
            (Some(READY), _) => Said::Ready,
            _ => Said::Failed(self.error()),
        })
    }

    fn error(&self) -> StartError {
        let mut json = Vec::new();
        let read = (&self.0).take(ERROR_BYTES_MAX).read_to_end(&mut json);
        let parsed = read.ok().and_then(|_| serde_json::from_slice(&json).ok());
        parsed.unwrap_or_else(|| StartError::Setup("the new process died before it could say why".into()))
    }
}

/// The first word of what a process said over one end: that it is ready, or why not.
pub(crate) fn first_word(said: &[u8]) -> Option<Result<(), StartError>> {
    match said.split_first()? {
        (&READY, _) => Some(Ok(())),
        (&FAILED, json) => serde_json::from_slice(json).ok().map(Err),
        _ => None,
    }
}

/// Reads one byte and the descriptor that came with it.
pub(super) fn receive(socket: &UnixStream) -> io::Result<(Option<u8>, Option<OwnedFd>)> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut byte)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::CONNRESET) => return Ok((None, None)),
            result => break result?,
        }
    };
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok(((received.bytes > 0).then_some(byte[0]), fd))
}
