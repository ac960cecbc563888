//! Network namespaces: create, enter, work inside.
//!
//! A namespace belongs to a thread, not to the process, so work in a foreign one is done by a thread that
//! lives for exactly that long. Sockets remember the namespace they were opened in: a descriptor made
//! inside may be used by any thread afterwards.

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::thread;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// The network namespace of the calling thread, as every such file is called.
const THREAD_NETNS_PATH: &str = "/proc/thread-self/ns/net";

/// Opens the network namespace of the calling thread.
pub fn current() -> io::Result<OwnedFd> {
    File::open(THREAD_NETNS_PATH).map(OwnedFd::from)
}

/// Moves the calling thread, for the rest of its life, into the network namespace `netns`.
pub fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    move_into_link_name_space(netns, Some(LinkNameSpaceType::Network)).map_err(io::Error::from)
}

/// Creates a network namespace that lives as long as its descriptor (or anything inside) does.
///
/// It has nothing but a loopback device that is down.
pub fn create() -> io::Result<OwnedFd> {
    on_own_thread(|| {
        // SAFETY: unsharing the network namespace invalidates no descriptor table and no memory, which
        // is what the function is unsafe for; and the thread ends right after.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        current()
    })?
}

/// Runs `work` on a fresh thread inside `netns` and returns what it returned.
///
/// `/proc/sys/net` shows that namespace's settings to `work`. The caller's namespace is not touched.
pub fn in_netns<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_own_thread(|| {
        enter(netns)?;
        Ok(work())
    })?
}

/// Runs `work` on a thread of its own; a panic there goes on here.
fn on_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        worker.join().map_or_else(|panic| std::panic::resume_unwind(panic), Ok)
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn inode(fd: impl AsFd) -> u64 {
        rustix::fs::fstat(fd).unwrap().st_ino
    }

    #[test]
    fn work_runs_inside_and_the_caller_stays_outside() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: creating a network namespace needs root");
            return;
        }
        let before = inode(current().unwrap());
        let netns = create().unwrap();
        assert_ne!(inode(&netns), before);

        let seen = in_netns(netns.as_fd(), || inode(current().unwrap())).unwrap();

        assert_eq!(seen, inode(&netns));
        assert_eq!(inode(current().unwrap()), before);
    }

    #[test]
    fn entering_something_else_is_an_error() {
        let file = File::open("/dev/null").unwrap();
        assert!(in_netns(file.as_fd(), || ()).is_err());
    }
}
