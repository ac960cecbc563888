//! clone3, pidfds, waiting, and the settings a process makes on itself before it becomes another program.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountAttrFlags, OpenTreeFlags};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};

/// Takes the descriptors that whoever started this process has opened for it (sd_listen_fds(3)): `count` of them, from 3
/// on. To be called once, before anything else is opened: a second caller gets an error.
pub fn handed_over_sockets(count: u32) -> io::Result<Vec<OwnedFd>> {
    static TAKEN: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    const FIRST: RawFd = 3;
    if TAKEN.swap(true, std::sync::atomic::Ordering::SeqCst) {
        return Err(io::Error::other("the sockets have been taken already"));
    }
    let end = FIRST.saturating_add(RawFd::try_from(count).unwrap_or(RawFd::MAX));
    let take = |fd: RawFd| {
        // SAFETY: F_SETFD takes a number and tells whether it is an open descriptor.
        check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
        // SAFETY: it is open, it was opened for us by whoever started us, and nobody took it before.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    (FIRST..end).map(take).collect()
}

/// The namespaces a new process gets for itself, as `CLONE_NEW*` bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneNamespaces(u64);

impl CloneNamespaces {
    /// Mounts.
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS as u64);
    /// The view of the cgroup hierarchy.
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);
    /// Host and domain name.
    pub const UTS: Self = Self(libc::CLONE_NEWUTS as u64);
    /// System V IPC and message queues.
    pub const IPC: Self = Self(libc::CLONE_NEWIPC as u64);
    /// User and group ids.
    pub const USER: Self = Self(libc::CLONE_NEWUSER as u64);
    /// Process ids.
    pub const PID: Self = Self(libc::CLONE_NEWPID as u64);
    /// Network.
    pub const NETWORK: Self = Self(libc::CLONE_NEWNET as u64);

    /// Both sets together.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set without `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` is in the set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Moves the calling thread into new namespaces of these kinds (unshare).
    pub fn unshare(self) -> io::Result<()> {
        // SAFETY: unshare takes flags only; CLONE_FILES, the one that could break descriptors held
        // elsewhere, cannot be in a CloneNamespaces.
        check(unsafe { libc::unshare(self.0 as libc::c_int) }).map(drop)
    }

    /// Moves the calling thread into the namespaces of these kinds that `pidfd`'s process is in.
    pub fn enter(self, pidfd: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: setns takes a descriptor, which the borrow keeps open, and flags.
        check(unsafe { libc::setns(pidfd.as_raw_fd(), self.0 as libc::c_int) }).map(drop)
    }
}

/// A child process and the descriptor that names it without the danger of pid reuse.
#[derive(Debug)]
pub struct Child {
    /// The process id in the caller's namespace.
    pub pid: i32,
    /// Readable when the process has ended.
    pub pidfd: OwnedFd,
}

/// Which side of a [`clone`] the caller is on.
#[derive(Debug)]
pub enum Cloned {
    /// The new process, a copy of the caller.
    Child,
    /// The caller.
    Parent(Child),
}

/// Copies the calling process, the copy getting its own `namespaces`.
///
/// Refused when the process has more than one thread: the copy would hold locks that a thread took which
/// does not exist in it.
pub fn clone(namespaces: CloneNamespaces) -> io::Result<Cloned> {
    if !is_single_threaded() {
        return Err(io::Error::other("cannot clone a process with several threads"));
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain data for which all zeroes is valid.
    let mut args: libc::clone_args = unsafe { mem::zeroed() };
    args.flags = namespaces.0 | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: args and pidfd outlive the call. Without CLONE_VM and with stack 0 the child is a copy that
    // returns from here on its own stack, as after fork; being the only thread (checked above) no lock
    // is held by anyone else.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child),
        pid => {
            // SAFETY: the kernel just made this descriptor for us and nobody else holds it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Cloned::Parent(Child { pid: pid as i32, pidfd }))
        }
    }
}

/// Whether the calling thread is the only one of its process.
///
/// Asked of the kernel and not of /proc, which may be a container's that we have just entered.
pub fn is_single_threaded() -> bool {
    // SAFETY: unsharing threads does nothing in a process with one, and is refused in one with more.
    unsafe { libc::unshare(libc::CLONE_THREAD) == 0 }
}

/// When process `pid` was started, in clock ticks since boot: together with the pid a name that is not reused.
pub fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let time = stat_field(&stat, 22).and_then(|field| field.parse().ok());
    time.ok_or_else(|| io::Error::other(format!("cannot read /proc/{pid}/stat")))
}

/// Field `number` (from 3, as in proc(5)) of a `stat` line; the name in field 2 may hold blanks and brackets.
fn stat_field(stat: &str, number: usize) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(number - 3)
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It returned this.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
}

impl Ended {
    /// The exit code a shell would show: 128 + the signal for a killed process.
    pub fn code(self) -> i32 {
        match self {
            Ended::Exited(code) => code,
            Ended::Killed(signal) => 128 + signal,
        }
    }
}

/// Waits until the child `pidfd` has ended, and reaps it.
pub fn wait(pidfd: BorrowedFd<'_>) -> io::Result<Ended> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return Ok(match status.exit_status() {
                    Some(code) => Ended::Exited(code),
                    None => Ended::Killed(status.terminating_signal().unwrap_or(libc::SIGKILL)),
                });
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Opens a descriptor for process `pid`.
pub fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).filter(|pid| pid.as_raw_nonzero().get() > 0);
    let pid = pid.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal (by number, real-time ones included) to the process `pidfd` names.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: pidfd_send_signal reads no memory of ours when the third argument is null.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    check(result as i32).map(drop)
}

/// Have the kernel send SIGKILL to this process when its parent thread ends.
///
/// Returns an error if the parent `expected` is gone already.
pub fn die_with_parent(parent: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // The parent may have died between the clone and the line above; then nobody will send the signal.
    match is_alive(parent)? {
        true => Ok(()),
        false => Err(io::Error::other("the parent process is gone")),
    }
}

/// Starts a program that the kernel ends with SIGKILL when the calling thread ends, and that gains no privileges
/// from its file, which would undo that.
pub fn spawn_with_us(command: &mut Command) -> io::Result<std::process::Child> {
    let us = rustix::process::getpid();
    let follow = move || {
        rustix::thread::set_no_new_privs(true)?;
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        // We may have died before the line above; then nobody will send the signal.
        match rustix::process::getppid() == Some(us) {
            true => Ok(()),
            false => Err(io::Error::from(rustix::io::Errno::SRCH)),
        }
    };
    // SAFETY: between fork and exec only system calls are made; no memory is allocated and no lock taken.
    unsafe { command.pre_exec(follow) };
    command.spawn()
}

/// Whether the process of `pidfd` has not ended yet.
pub fn is_alive(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut poll = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    Ok(rustix::event::poll(&mut poll, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }))? == 0)
}

/// Orphans of this process's descendants become its children from now on.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Hides this process from others of the same user: no ptrace, no `/proc/<pid>/exe` or `fd`.
///
/// Needed before entering a container's pid namespace, where strangers run under our user id. Lasts until
/// the next `execve`.
pub fn hide() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?)
}

/// Marks all descriptors from `first` on to be closed by the next `execve`.
pub fn close_on_exec_from(first: RawFd) -> io::Result<()> {
    // SAFETY: only flags of descriptors change; they stay open and owned.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    check(result as i32).map(drop)
}

/// Closes all descriptors but the standard ones and `child`'s, does `work` and ends with the code it returns.
///
/// For a process that goes on as something else without an `execve`. It never comes back, so nothing of the
/// caller is left to use, or to close again, what was closed.
pub fn continue_alone(child: Child, work: fn(Child) -> i32) -> ! {
    let kept = child.pidfd.as_raw_fd() as libc::c_uint;
    let close = |first: libc::c_uint, last: libc::c_uint| {
        if first <= last {
            // SAFETY: owners of the descriptors are never run again: `work` captures nothing and the process
            // exits after it. The one descriptor `work` gets is spared.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    };
    close(3, kept.saturating_sub(1));
    close(kept + 1, libc::c_uint::MAX);
    std::process::exit(work(child))
}

/// Makes `fd` the standard descriptor `number` (0, 1 or 2) of this process.
pub fn set_stdio(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    assert!((0..=2).contains(&number), "only standard descriptors may be replaced");
    if fd.as_raw_fd() == number {
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        return Ok(());
    }
    // SAFETY: standard descriptors are owned by nobody in particular; whoever uses them gets the new file.
    check(unsafe { libc::dup2(fd.as_raw_fd(), number) }).map(drop)
}

/// Lets `command` inherit `fd` as descriptor `number`.
///
/// `number` must be above the standard ones and is closed nowhere else in the child.
pub fn pass_fd(command: &mut Command, fd: OwnedFd, number: RawFd) -> io::Result<()> {
    assert!(number > 2, "standard descriptors are passed by Command itself");
    // Well out of the way of every `number`, or the dup2 calls of two passed descriptors could collide.
    let fd = rustix::io::fcntl_dupfd_cloexec(&fd, PASSED_FD_MIN)?;
    // SAFETY: the closure makes system calls only, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || check(libc::dup2(fd.as_raw_fd(), number)).map(drop));
    }
    Ok(())
}

const PASSED_FD_MIN: RawFd = 64;

/// Takes over the descriptor `number` that [`pass_fd`] gave to this process.
///
/// Fails if it is not open. To be called once for each number, before other threads exist.
pub fn take_passed_fd(number: RawFd) -> io::Result<OwnedFd> {
    assert!(number > 2, "standard descriptors are passed by Command itself");
    // SAFETY: the borrow is used for one fcntl, which fails harmlessly if nothing is open there.
    let probe = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(probe, rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: the descriptor is open (just checked) and was put there by our parent for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Replaces this program by the one behind `exe`, with these arguments and no environment.
///
/// It keeps the descriptors in `kept`, by their numbers, and the signals that are blocked, whichever have arrived
/// meanwhile. Other threads end. Returns only if it fails.
pub fn replace_program(exe: BorrowedFd<'_>, args: &[&str], kept: &[BorrowedFd<'_>]) -> io::Error {
    let args: Result<Vec<CString>, _> = args.iter().map(|arg| CString::new(*arg)).collect();
    let Ok(args) = args else { return io::ErrorKind::InvalidInput.into() };
    for fd in kept {
        if let Err(error) = rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()) {
            return error.into();
        }
    }
    let mut argv: Vec<*const libc::c_char> = args.iter().map(|arg| arg.as_ptr()).collect();
    argv.push(std::ptr::null());
    let envp = [std::ptr::null()];
    // SAFETY: both lists end with a null pointer, and they and the strings they point to outlive the call, which
    // does not return unless it did nothing.
    unsafe { libc::fexecve(exe.as_raw_fd(), argv.as_ptr(), envp.as_ptr()) };
    io::Error::last_os_error()
}

/// A descriptor of the running program that can be executed as `/proc/self/fd/<n>` but not written through.
///
/// A process that enters a container can be made to execute its own binary again (`#!/proc/self/exe`,
/// CVE-2019-5736) and what can open `/proc/<pid>/exe` could overwrite it. Seen through a read-only mount
/// of its own, the file cannot be opened for writing. Without the right to mount, a sealed copy in memory
/// does the same.
pub fn protected_self_exe() -> io::Result<OwnedFd> {
    match readonly_mount_of_self() {
        Ok(fd) => Ok(fd),
        Err(_) => sealed_copy_of_self(),
    }
}

fn readonly_mount_of_self() -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = match rustix::mount::open_tree(rustix::fs::CWD, "/proc/self/exe", flags) {
        // We were started in another mount namespace than the one we are in, and only mounts of this one can be
        // copied. It shows the same file in the same place, unless somebody replaced it.
        Err(rustix::io::Errno::INVAL) => same_file_here(flags)?,
        mount => mount?,
    };
    crate::mount::set_attributes(
        mount.as_fd(),
        crate::mount::Attributes::set(MountAttrFlags::MOUNT_ATTR_RDONLY),
        false,
    )?;
    Ok(mount)
}

fn same_file_here(flags: OpenTreeFlags) -> io::Result<OwnedFd> {
    let mount = rustix::mount::open_tree(rustix::fs::CWD, fs::read_link("/proc/self/exe")?, flags)?;
    let (here, running) = (rustix::fs::fstat(&mount)?, rustix::fs::stat("/proc/self/exe")?);
    match (here.st_dev, here.st_ino) == (running.st_dev, running.st_ino) {
        true => Ok(mount),
        false => Err(io::ErrorKind::NotFound.into()),
    }
}

fn sealed_copy_of_self() -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let mut exe =
        fs::File::from(rustix::fs::open("/proc/self/exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
    let copy = rustix::fs::memfd_create("dhow", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut copy = fs::File::from(copy);
    io::copy(&mut exe, &mut copy)?;
    rustix::fs::fcntl_add_seals(
        &copy,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(copy.into())
}

/// Replaces this program. Returns only if that failed.
pub fn execute(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let args = pointers(args);
    let env = pointers(env);
    // SAFETY: both arrays end with a null pointer and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Joins a new session keyring, so that keys of the caller's session stay out of reach.
///
/// A kernel without keyrings, or a filter that forbids them, is fine: then there are no keys to reach.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring; no other memory is read.
    let result = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>())
    };
    match check(result as i32) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        result => result.map(drop),
    }
}

/// Sets a resource limit by its lower-case name (`nofile`). Unlimited is `u64::MAX`.
pub fn set_rlimit(name: &str, soft: u64, hard: u64) -> io::Result<()> {
    let resource = RLIMITS.iter().find(|(known, _)| *known == name).map(|(_, resource)| *resource);
    let resource = resource
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "there is no such resource limit"))?;
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: limit is a valid rlimit that outlives the call.
    check(unsafe { libc::setrlimit(resource as _, &raw const limit) }).map(drop)
}

/// Whether [`set_rlimit`] knows `name`.
pub fn is_rlimit(name: &str) -> bool {
    RLIMITS.iter().any(|(known, _)| *known == name)
}

const RLIMITS: &[(&str, libc::c_int)] = &[
    ("as", libc::RLIMIT_AS as _),
    ("core", libc::RLIMIT_CORE as _),
    ("cpu", libc::RLIMIT_CPU as _),
    ("data", libc::RLIMIT_DATA as _),
    ("fsize", libc::RLIMIT_FSIZE as _),
    ("locks", libc::RLIMIT_LOCKS as _),
    ("memlock", libc::RLIMIT_MEMLOCK as _),
    ("msgqueue", libc::RLIMIT_MSGQUEUE as _),
    ("nice", libc::RLIMIT_NICE as _),
    ("nofile", libc::RLIMIT_NOFILE as _),
    ("nproc", libc::RLIMIT_NPROC as _),
    ("rss", libc::RLIMIT_RSS as _),
    ("rtprio", libc::RLIMIT_RTPRIO as _),
    ("rttime", libc::RLIMIT_RTTIME as _),
    ("sigpending", libc::RLIMIT_SIGPENDING as _),
    ("stack", libc::RLIMIT_STACK as _),
];

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 4242 9 9";
        assert_eq!(stat_field(stat, 22), Some("4242"));
    }

    #[test]
    fn a_threaded_process_is_not_cloned() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || receiver.recv());
        assert!(clone(CloneNamespaces::default()).is_err());
        drop(sender);
        assert!(thread.join().unwrap().is_err());
    }

    #[test]
    fn the_running_program_cannot_be_opened_for_writing() {
        let exe = protected_self_exe().unwrap();
        let path = format!("/proc/self/fd/{}", exe.as_raw_fd());
        assert!(fs::OpenOptions::new().write(true).open(path).is_err());
    }
}
