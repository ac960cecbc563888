//! Telling a thread that waits for sockets to come home.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// A thread of ours; dropping it ends it and waits for that.
#[derive(Debug)]
pub(crate) struct Worker {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

/// The bell a worker listens to.
#[derive(Debug)]
pub(crate) struct Stop {
    bell: OwnedFd,
    rung: AtomicBool,
}

impl Stop {
    pub(crate) fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed)
    }

    /// Waits until one of `sockets` can be read, the time is over or the bell rings.
    ///
    /// Answers which sockets can be read, in order; `None` means stop.
    pub(crate) fn wait(&self, sockets: &[&dyn AsFd], timeout: Option<Duration>) -> Option<Vec<bool>> {
        let mut fds = vec![PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN)];
        fds.extend(sockets.iter().map(|socket| PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        if poll(&mut fds, timeout.as_ref()).is_err() {
            // Interrupted by a signal: nothing is ready, ask again.
            return (!self.is_rung()).then(|| vec![false; sockets.len()]);
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        (!ready[0]).then(|| ready[1..].to_vec())
    }
}

impl Worker {
    pub(crate) fn start(name: &str, work: impl FnOnce(Arc<Stop>) + Send + 'static) -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let stop = Arc::new(Stop { bell, rung: AtomicBool::new(false) });
        let heard = Arc::clone(&stop);
        let thread = thread::Builder::new().name(name.into()).spawn(move || work(heard))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.rung.store(true, Ordering::Relaxed);
        // Writing 1 to a fresh eventfd cannot fail.
        let _ = rustix::io::write(&self.stop.bell, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its thread and must not become a second one here.
            let _ = thread.join();
        }
    }
}
