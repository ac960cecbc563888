//! User namespaces: being root among ids of one's own.
//!
//! An ordinary user may make a user namespace and has every right over what belongs to it: mounts of its own,
//! containers, processes. Which ids it knows is written once, right after it was made: by the user for the one
//! id that is theirs, by the set-user-id programs `newuidmap` and `newgidmap` for ranges the administrator has
//! delegated. All of this is for a process with a single thread.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::process::{self, Child, CloneNamespaces, Cloned};

/// How deep below ours a namespace is looked for; the kernel nests 32.
const LEVELS_MAX: usize = 32;
/// Most of what is read of a map; the kernel keeps 340 lines.
const MAP_BYTES_MAX: u64 = 64 << 10;
/// `ioctl_nsfs(2)`: the namespace above, as a descriptor.
const NS_GET_PARENT: libc::Ioctl = 0xb702;

/// A run of consecutive ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    /// First id in the namespace.
    pub inside: u32,
    /// What it is called in the namespace above.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// The ids a user namespace knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMap {
    /// Users.
    pub uids: Vec<IdRange>,
    /// Groups.
    pub gids: Vec<IdRange>,
}

impl IdMap {
    /// The map of the namespace that the calling process is in.
    pub fn current() -> io::Result<IdMap> {
        Ok(IdMap { uids: read_map("/proc/self/uid_map")?, gids: read_map("/proc/self/gid_map")? })
    }

    /// Whether there is but one user or one group: then nothing can be given to anybody else.
    pub fn has_one_id(&self) -> bool {
        [&self.uids, &self.gids]
            .into_iter()
            .any(|ranges| matches!(ranges[..], [] | [IdRange { count: 1, .. }]))
    }
}

/// Ids of this machine that the administrator lets the user hand out, besides the user's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delegated {
    /// First user and how many.
    pub uids: (u32, u32),
    /// First group and how many.
    pub gids: (u32, u32),
}

/// Why this process is not in a user namespace of its own.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The kernel, or a security module, does not let this user make one.
    #[error("the kernel refuses to create a user namespace: {0}")]
    Refused(io::Error),
    /// A program that should have written the ids did not.
    #[error("newuidmap or newgidmap failed to map ids {} to {} (users) and {} to {} (groups)",
        .0.uids.0, last(.0.uids), .0.gids.0, last(.0.gids))]
    Delegated(Delegated),
    /// Something else failed.
    #[error("cannot set up a user namespace: {step}: {source}")]
    Io {
        /// What.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn last((first, count): (u32, u32)) -> u32 {
    first.saturating_add(count.saturating_sub(1))
}

fn io_error(step: &'static str) -> impl FnOnce(io::Error) -> CreateError {
    move |source| CreateError::Io { step, source }
}

/// Moves the calling process into a new user namespace, as its root, and a mount namespace that belongs to it.
///
/// Root is the calling user; with `delegated` ids the namespace knows those as 1, 2, 3 and so on.
pub fn create(delegated: Option<Delegated>) -> Result<(), CreateError> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mapper = delegated.map(|ids| Mapper::start(ids, uid, gid)).transpose()?;
    CloneNamespaces::USER.with(CloneNamespaces::MOUNT).unshare().map_err(CreateError::Refused)?;
    match mapper {
        Some(mapper) => mapper.finish(),
        None => map_own(uid, gid),
    }
}

/// The one map that needs nobody's help.
fn map_own(uid: u32, gid: u32) -> Result<(), CreateError> {
    // The kernel's condition for an ordinary user to map a group.
    fs::write("/proc/self/setgroups", "deny").map_err(CreateError::Refused)?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1\n")).map_err(CreateError::Refused)?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1\n")).map_err(CreateError::Refused)
}

/// A child that stays outside, where set-user-id programs have power, and has them write our maps.
struct Mapper {
    ids: Delegated,
    child: Child,
    /// A byte says that the namespace is there, its end that there will be none.
    ready: io::PipeWriter,
}

impl Mapper {
    fn start(ids: Delegated, uid: u32, gid: u32) -> Result<Mapper, CreateError> {
        let (mut go, ready) = io::pipe().map_err(io_error("pipe"))?;
        let parent = std::process::id();
        match process::clone(CloneNamespaces::default()).map_err(io_error("clone"))? {
            Cloned::Parent(child) => Ok(Mapper { ids, child, ready }),
            Cloned::Child => {
                drop(ready);
                let asked = go.read_exact(&mut [0]).is_ok();
                let done = asked
                    && run_mapper("newuidmap", parent, uid, ids.uids)
                    && run_mapper("newgidmap", parent, gid, ids.gids);
                std::process::exit(if done { 0 } else { 1 })
            }
        }
    }

    fn finish(mut self) -> Result<(), CreateError> {
        self.ready.write_all(&[0]).map_err(io_error("talk to the child"))?;
        let ended = process::wait(self.child.pidfd.as_fd()).map_err(io_error("wait for the child"))?;
        if ended.code() == 0 { Ok(()) } else { Err(CreateError::Delegated(self.ids)) }
    }
}

fn run_mapper(program: &str, pid: u32, own: u32, (first, count): (u32, u32)) -> bool {
    let numbers = [pid, 0, own, 1, 1, first, count].map(|number| number.to_string());
    Command::new(program).args(numbers).status().is_ok_and(|status| status.success())
}

/// Moves the calling process into the user namespace, directly below its own, that process `pid` is in or
/// below, and into a new mount namespace that belongs to it.
///
/// False, and nothing has changed: the process is gone or is not in such a namespace, or that is not ours.
pub fn join(pid: i32) -> bool {
    let Ok(Some(namespace)) = below_ours(pid) else { return false };
    // SAFETY: setns takes a descriptor, which is open for the whole call, and a flag.
    let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWUSER) } == 0;
    // Having joined, we are its root, who may do that unless the machine is out of namespaces; the mounts that
    // then fail say so.
    entered && CloneNamespaces::MOUNT.unshare().is_ok()
}

fn below_ours(pid: i32) -> io::Result<Option<OwnedFd>> {
    let ours = File::open("/proc/self/ns/user")?.metadata()?;
    let mut namespace = File::open(format!("/proc/{pid}/ns/user"))?;
    for _ in 0..LEVELS_MAX {
        let metadata = namespace.metadata()?;
        if (metadata.dev(), metadata.ino()) == (ours.dev(), ours.ino()) {
            return Ok(None);
        }
        let parent = File::from(parent_of(&namespace)?);
        let above = parent.metadata()?;
        if (above.dev(), above.ino()) == (ours.dev(), ours.ino()) {
            return Ok(Some(namespace.into()));
        }
        namespace = parent;
    }
    Ok(None)
}

fn parent_of(namespace: &File) -> io::Result<OwnedFd> {
    // SAFETY: this ioctl takes no argument and returns a new descriptor or -1.
    match unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_PARENT) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the kernel just made this descriptor for us and nobody else holds it.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

fn read_map(path: &str) -> io::Result<Vec<IdRange>> {
    let mut text = String::new();
    File::open(path)?.take(MAP_BYTES_MAX).read_to_string(&mut text)?;
    text.lines().map(|line| parse_range(line).ok_or(io::ErrorKind::InvalidData.into())).collect()
}

fn parse_range(line: &str) -> Option<IdRange> {
    let mut numbers = line.split_whitespace().map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(IdRange { inside: next()?, outside: next()?, count: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_as_the_kernel_shows_it() {
        let whole = IdRange { inside: 0, outside: 0, count: u32::MAX };
        assert_eq!(parse_range("         0          0 4294967295"), Some(whole));
        assert_eq!(parse_range("0 1000"), None);
        assert_eq!(IdMap::current().unwrap().uids.first().map(|range| range.inside), Some(0));
    }

    #[test]
    fn one_user_or_one_group_is_one_id() {
        let one = vec![IdRange { inside: 0, outside: 1000, count: 1 }];
        let many = [one.clone(), vec![IdRange { inside: 1, outside: 100_000, count: 65_536 }]].concat();
        assert!(IdMap { uids: many.clone(), gids: one }.has_one_id());
        assert!(!IdMap { uids: many.clone(), gids: many }.has_one_id());
    }

    #[test]
    fn there_is_nothing_to_join_in_a_process_beside_us() {
        assert!(!join(std::process::id() as i32));
        assert!(!join(i32::MAX));
    }
}
