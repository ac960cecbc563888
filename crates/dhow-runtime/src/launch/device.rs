//! The nodes and links of a container's /dev.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use dhow_sys::beneath::{Owner, Root};
use dhow_sys::mount;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::FileType;

use super::step::Step;
use crate::StartError;

/// Character devices every container has, with their numbers.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Links every container has.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Fills the fresh file system `dev`. Where nodes may not be made, those of the host are bound.
pub(super) fn populate(dev: BorrowedFd<'_>, own: &[LinuxDevice], bind: bool) -> Result<(), StartError> {
    let root = Root::from_fd(dev.try_clone_to_owned().step("cannot open /dev")?);
    for (name, major, minor) in NODES {
        let node = Node {
            path: Path::new(name),
            kind: FileType::CharacterDevice,
            major,
            minor,
            mode: 0o666,
            owner: None,
        };
        node.make(&root, bind).step(format_args!("cannot create device /dev/{name}"))?;
    }
    for device in own {
        let path = device.path();
        Node::of(device)
            .and_then(|node| {
                // One that is always there is taken from the host when that is asked for.
                root.remove_tree(node.path)?;
                node.make(&root, bind)
            })
            .step(format_args!("cannot create device {}", path.display()))?;
    }
    // Not every kernel shows its memory, and a link to nothing helps nobody.
    let exists = |target: &str| target != "/proc/kcore" || Path::new(target).exists();
    for (name, target) in LINKS.into_iter().filter(|(_, target)| exists(target)) {
        root.symlink(target.as_ref(), Path::new(name))
            .step(format_args!("cannot create link /dev/{name}"))?;
    }
    Ok(())
}

struct Node<'a> {
    path: &'a Path,
    kind: FileType,
    major: u32,
    minor: u32,
    mode: u32,
    owner: Option<Owner>,
}

impl<'a> Node<'a> {
    fn of(device: &'a LinuxDevice) -> io::Result<Self> {
        let path =
            device.path().strip_prefix("/dev").map_err(|_| io::Error::other("it is not below /dev"))?;
        let kind = match device.typ() {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::P => FileType::Fifo,
            LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
            LinuxDeviceType::A => return Err(io::Error::other("it has no type")),
        };
        let number =
            |number: i64| u32::try_from(number).map_err(|_| io::Error::other("its number is out of range"));
        let owner = Owner { uid: device.uid().unwrap_or(0), gid: device.gid().unwrap_or(0) };
        Ok(Node {
            path,
            kind,
            major: number(device.major())?,
            minor: number(device.minor())?,
            mode: device.file_mode().unwrap_or(0o666),
            owner: Some(owner),
        })
    }

    fn make(&self, root: &Root, bind: bool) -> io::Result<()> {
        if let Some(parent) = self.path.parent() {
            root.mkdirs(parent, 0o755)?;
        }
        if bind {
            let source = mount::copy_tree_at(&Path::new("/dev").join(self.path), false)?;
            root.create_file(self.path, self.mode)?;
            return mount::attach(source.as_fd(), root.open_path(self.path)?.as_fd());
        }
        root.mknod(self.path, self.kind, self.mode, self.major, self.minor)?;
        // mknod is subject to the umask.
        root.chmod(self.path, self.mode)?;
        self.owner.map_or(Ok(()), |owner| root.chown(self.path, owner))
    }
}
