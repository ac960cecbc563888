//! Forwarding an ssh agent into a container.
//!
//! The agent's own socket would not do: an agent talks only to its owner and to root, and a program may be
//! neither. So the program gets a socket of its own, and what is said there is passed on by this process: questions
//! for keys and signatures. A program of a build may not add, remove or lock the keys of whoever builds.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use dhow_sys::beneath::proc_path;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};

use crate::mount::Access;

/// Conversations at one time; more are refused.
const CONVERSATIONS_MAX: usize = 64;
/// The longest message, as in OpenSSH.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// The numbers of what is passed on: SSH_AGENTC_REQUEST_IDENTITIES and SSH_AGENTC_SIGN_REQUEST.
const PASSED_ON: [u8; 2] = [11, 13];
/// SSH_AGENT_FAILURE
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];
const SOCKET_MODE: u32 = 0o600;

/// A socket that stands for an agent's. Nobody is let in any more when this is gone.
pub(super) struct Forward {
    /// Closed by dropping, which ends the thread that listens.
    stop: Option<io::PipeWriter>,
    listening: Option<thread::JoinHandle<()>>,
}

impl Forward {
    /// Makes the socket at `dir/name`; its owner and mode are as asked.
    pub(super) fn start(agent: &Path, dir: &Path, name: &str, access: Access) -> io::Result<Forward> {
        // Asked now, so that an agent that is gone is an error of the build and not a riddle for the program.
        drop(UnixStream::connect(agent)?);
        let listener = bind(dir, name)?;
        let path = dir.join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(access.mode.unwrap_or(SOCKET_MODE)))?;
        std::os::unix::fs::chown(&path, Some(access.uid.unwrap_or(0)), Some(access.gid.unwrap_or(0)))?;
        let (stopped, stop) = io::pipe()?;
        let agent = agent.to_owned();
        let listening = thread::Builder::new()
            .name("ssh-agent".to_owned())
            .spawn(move || listen(&listener, &stopped, &agent))?;
        Ok(Forward { stop: Some(stop), listening: Some(listening) })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(listening) = self.listening.take() {
            // A panic there has been printed, and nobody depends on it.
            let _ = listening.join();
        }
    }
}

/// A socket's address holds 107 bytes and the folder's path may be longer, so it is named by descriptor.
fn bind(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, Mode::empty())?;
    UnixListener::bind(PathBuf::from(proc_path(&dir)).join(name))
}

fn listen(listener: &UnixListener, stopped: &io::PipeReader, agent: &Path) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let mut polls = [
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN),
        ];
        match poll(&mut polls, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
            Ok(_) => {}
        }
        if !polls[1].revents().is_empty() {
            return;
        }
        let Ok((client, _)) = listener.accept() else { continue };
        if open.load(Ordering::Relaxed) >= CONVERSATIONS_MAX {
            continue;
        }
        // Without its agent the client sees the end of the connection, as it would from the agent itself.
        let Ok(agent) = UnixStream::connect(agent) else { continue };
        open.fetch_add(1, Ordering::Relaxed);
        let open = Arc::clone(&open);
        thread::spawn(move || {
            converse(&client, &agent);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Passes on until either side is gone; that it is is all there is to say.
fn converse(client: &UnixStream, agent: &UnixStream) {
    while let Ok(request) = message(client) {
        let answer = match request.get(4) {
            Some(number) if PASSED_ON.contains(number) => ask(agent, &request),
            _ => Ok(FAILURE.to_vec()),
        };
        if answer.and_then(|answer| (&mut &*client).write_all(&answer)).is_err() {
            break;
        }
    }
}

fn ask(mut agent: &UnixStream, request: &[u8]) -> io::Result<Vec<u8>> {
    agent.write_all(request)?;
    message(agent)
}

/// A message, with its length before it.
fn message(mut from: &UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let count = u32::from_be_bytes(length) as usize;
    if count > MESSAGE_BYTES_MAX {
        return Err(io::Error::other("the message is too long"));
    }
    let mut message = length.to_vec();
    message.resize(length.len() + count, 0);
    from.read_exact(&mut message[length.len()..])?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_passed_on_and_orders_are_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let agent = UnixListener::bind(dir.path().join("agent")).expect("an agent");
        // A path that is too long for the address of a socket.
        let deep = dir.path().join("x".repeat(120));
        fs::create_dir(&deep).expect("a folder");
        let access = Access { mode: Some(0o640), ..Access::default() };
        let answering = thread::spawn(move || {
            // The first connection only asks whether the agent is there.
            let (mut asked, _) = agent.accept().expect("a question");
            let mut nothing = [0; 1];
            assert_eq!(asked.read(&mut nothing).expect("an end"), 0);
            let (mut client, _) = agent.accept().expect("a client");
            let mut question = [0; 5];
            client.read_exact(&mut question).expect("a question");
            assert_eq!(question, [0, 0, 0, 1, 11]);
            client.write_all(&[0, 0, 0, 5, 12, 0, 0, 0, 0]).expect("an answer");
            // Nothing else comes.
            assert_eq!(client.read(&mut question).expect("an end"), 0);
        });
        let forward = Forward::start(&dir.path().join("agent"), &deep, "s", access);
        let forward = match forward {
            // The owner is set, which needs root.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return,
            forward => forward.expect("a socket"),
        };
        let mode = fs::metadata(deep.join("s")).expect("a socket").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        let folder = fs::File::open(&deep).expect("a folder");
        let mut client = UnixStream::connect(Path::new(&proc_path(&folder)).join("s")).expect("a connection");
        // To remove all keys, to lock the agent, and no message at all.
        for order in [&[0, 0, 0, 1, 19][..], &[0, 0, 0, 5, 22, 0, 0, 0, 0], &[0, 0, 0, 0]] {
            client.write_all(order).expect("an order");
            let mut answer = [0; 5];
            client.read_exact(&mut answer).expect("an answer");
            assert_eq!(answer, FAILURE);
        }
        client.write_all(&[0, 0, 0, 1, 11]).expect("a question");
        let mut answer = [0; 9];
        client.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, [0, 0, 0, 5, 12, 0, 0, 0, 0]);
        drop(client);
        answering.join().expect("the agent saw what it should");
        drop(forward);
        assert!(UnixStream::connect(Path::new(&proc_path(&folder)).join("s")).is_err());
    }
}
