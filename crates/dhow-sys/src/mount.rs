//! Mounts by descriptor: made detached, prepared, and then attached to an open directory or file.
//!
//! No call here resolves a path of a container. The caller opens the target itself (see
//! [`beneath`](crate::beneath)) and what was checked is what is mounted on: there is no second lookup that
//! a symbolic link placed in between could lead astray.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

/// A change to the attributes of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Attributes to set.
    pub set: MountAttrFlags,
    /// Attributes to clear.
    pub clear: MountAttrFlags,
    /// Propagation to change to.
    pub propagation: Option<Propagation>,
}

impl Attributes {
    /// Sets `attributes` and leaves the others.
    pub fn set(attributes: MountAttrFlags) -> Self {
        Attributes { set: attributes, clear: MountAttrFlags::empty(), propagation: None }
    }

    /// Changes the propagation only.
    pub fn propagation(propagation: Propagation) -> Self {
        Attributes { propagation: Some(propagation), ..Self::set(MountAttrFlags::empty()) }
    }
}

/// How mounts made later at one place show at its copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    Private,
    /// From the original to the copy.
    Slave,
    /// Mounts made on one side show on the other, both ways.
    Shared,
}

/// Makes a file system of type `kind`, mounted nowhere yet.
pub fn new_filesystem(
    kind: &str,
    source: &str,
    options: &[(&str, Option<&str>)],
    attributes: MountAttrFlags,
) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", source)?;
    for (key, value) in options {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)?,
            None => rustix::mount::fsconfig_set_flag(context.as_fd(), *key)?,
        }
    }
    rustix::mount::fsconfig_create(context.as_fd())?;
    Ok(rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Copies the mount that shows the open file or directory `from`, mounted nowhere yet (a bind mount).
pub fn copy_tree(from: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(rustix::mount::open_tree(from, "", flags)?)
}

/// [`copy_tree`] of what `path` leads to, symbolic links followed: for paths of the host.
pub fn copy_tree_at(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}

/// [`copy_tree_at`] of what `path` leads to in the mount namespace behind the file `namespace`. Only for a process with a
/// single thread, which is for a moment in that namespace.
pub fn copy_tree_in(namespace: &Path, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    let theirs = std::fs::File::open(namespace)?;
    let own = std::fs::File::open("/proc/self/ns/mnt")?;
    move_into_link_name_space(theirs.as_fd(), Some(LinkNameSpaceType::Mount))?;
    let tree = copy_tree_at(path, recursive);
    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::Mount))?;
    tree
}

/// Attaches the detached `mount` on top of the open file or directory `target`.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", target, "", flags)?)
}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Changes the attributes of `mount`, of everything mounted below it too if `recursive`.
pub fn set_attributes(mount: BorrowedFd<'_>, attributes: Attributes, recursive: bool) -> io::Result<()> {
    let attr = MountAttr {
        attr_set: attributes.set.bits().into(),
        attr_clr: attributes.clear.bits().into(),
        propagation: match attributes.propagation {
            None => 0,
            Some(Propagation::Private) => libc::MS_PRIVATE,
            Some(Propagation::Slave) => libc::MS_SLAVE,
            Some(Propagation::Shared) => libc::MS_SHARED,
        },
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string and attr has the layout and size the kernel is told.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Cuts the calling process's mounts off from those it was copied from: what it mounts shows nowhere else.
///
/// With [`Propagation::Slave`], mounts made there still show here.
pub fn isolate_mounts(propagation: Propagation) -> io::Result<()> {
    let kind = match propagation {
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Shared => MountPropagationFlags::SHARED,
    };
    Ok(rustix::mount::mount_change("/", kind | MountPropagationFlags::REC)?)
}

/// Makes the directory `root`, which must be a mount, the root of the calling process's mount namespace and
/// leaves all other mounts behind.
pub fn pivot_root(root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    // The old root lands on top of the new one and is then taken off; no directory for it is needed.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Takes the topmost mount off `path`, at once for newcomers and for good when nobody uses it any more.
pub fn detach(path: impl AsRef<OsStr>) -> io::Result<()> {
    Ok(rustix::mount::unmount(path.as_ref(), UnmountFlags::DETACH)?)
}

/// A mount as mount(8) is told of it.
#[derive(Clone, Copy, Debug)]
pub struct Classic<'a> {
    /// What is mounted.
    pub source: &'a str,
    /// Where.
    pub target: &'a Path,
    /// The file system's name.
    pub kind: &'a str,
    /// Words with commas between them: flags everybody knows, the rest for the file system.
    pub options: &'a str,
}

/// Mounts for everybody in this mount namespace to see.
pub fn mount_classic(mount: &Classic<'_>) -> io::Result<()> {
    use rustix::mount::MountFlags as Flags;
    let (mut flags, mut data) = (Flags::empty(), Vec::new());
    for word in mount.options.split(',').filter(|word| !word.is_empty()) {
        let (flag, on) = match word {
            "ro" => (Flags::RDONLY, true),
            "rw" => (Flags::RDONLY, false),
            "nosuid" => (Flags::NOSUID, true),
            "suid" => (Flags::NOSUID, false),
            "nodev" => (Flags::NODEV, true),
            "dev" => (Flags::NODEV, false),
            "noexec" => (Flags::NOEXEC, true),
            "exec" => (Flags::NOEXEC, false),
            "noatime" => (Flags::NOATIME, true),
            "nodiratime" => (Flags::NODIRATIME, true),
            "relatime" => (Flags::RELATIME, true),
            "strictatime" => (Flags::STRICTATIME, true),
            "sync" => (Flags::SYNCHRONOUS, true),
            "defaults" | "async" | "atime" => continue,
            other => {
                data.push(other);
                continue;
            }
        };
        flags.set(flag, on);
    }
    let data = std::ffi::CString::new(data.join(","))?;
    Ok(rustix::mount::mount(mount.source, mount.target, mount.kind, flags, Some(data.as_c_str()))?)
}

/// Whether something is mounted on exactly this path, as this process sees it.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
    let stat = match rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) {
        Err(rustix::io::Errno::NOENT) => return Ok(false),
        stat => stat?,
    };
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
