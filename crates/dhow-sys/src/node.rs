//! Directory entries, device nodes, whiteouts and overlay's extended attributes.
//!
//! Overlayfs marks a name that is gone with a character device 0:0 (a *whiteout*) and a directory whose
//! lower contents are hidden with the attribute `overlay.opaque` = `y`. The attribute lives in the
//! `trusted.` namespace, or in `user.` where the mount was made in a user namespace (`userxattr`).

use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, RawDir, Stat};

use crate::beneath::{self, Root};

/// Where overlayfs keeps its attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverlayXattr {
    /// `trusted.overlay.*`: mounted by real root.
    #[default]
    Trusted,
    /// `user.overlay.*`: mounted in a user namespace with `userxattr`.
    User,
}

impl OverlayXattr {
    /// The full name of the attribute that makes a directory opaque.
    pub fn opaque(self) -> &'static str {
        match self {
            OverlayXattr::Trusted => "trusted.overlay.opaque",
            OverlayXattr::User => "user.overlay.opaque",
        }
    }
}

/// True for the attributes that belong to overlayfs itself, in either namespace. They describe one
/// particular stack of layers, so they are never copied into or out of an archive.
pub fn is_overlay_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// True if the file is overlayfs's mark for "this name is gone": a character device 0:0.
pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Makes a whiteout at `path`. Works in a user namespace too: 0:0 is the one device that may be made there.
pub fn make_whiteout(root: &Root, path: &Path) -> io::Result<()> {
    root.mknod(path, FileType::CharacterDevice, 0, 0, 0)
}

/// Makes the directory at `path` hide all that lower layers hold in it.
pub fn set_opaque(root: &Root, path: &Path, xattr: OverlayXattr) -> io::Result<()> {
    root.set_xattr(path, OsStr::new(xattr.opaque()), b"y")
}

/// True if the open directory is opaque, in either namespace.
pub fn is_opaque(dir: &impl AsFd) -> io::Result<bool> {
    for xattr in [OverlayXattr::Trusted, OverlayXattr::User] {
        let value = beneath::read_xattr(|buffer| rustix::fs::fgetxattr(dir, xattr.opaque(), buffer))?;
        if value.as_deref() == Some(b"y") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name, a single component.
    pub name: OsString,
}

/// All names in an open directory except `.` and `..`, sorted by bytes. Reads from the start each time.
pub fn read_dir(dir: &impl AsFd) -> io::Result<Vec<DirEntry>> {
    rustix::fs::seek(dir, rustix::fs::SeekFrom::Start(0))?;
    let mut buffer = [MaybeUninit::<u8>::uninit(); 16 * 1024];
    let mut names = RawDir::new(dir, &mut buffer);
    let mut entries = Vec::new();
    while let Some(entry) = names.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            entries.push(DirEntry { name: OsStr::from_bytes(name).to_os_string() });
        }
    }
    entries.sort_unstable();
    Ok(entries)
}

/// The extended attributes of the entry `name` of an open directory, sorted by name; a symbolic link is
/// not followed.
pub fn entry_xattrs(dir: &impl AsFd, name: &OsStr) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    let path = path.as_slice();
    let names = beneath::list_xattrs(|buffer| rustix::fs::llistxattr(path, buffer))?;
    let mut xattrs = Vec::with_capacity(names.len());
    for name in names {
        // An attribute removed since the listing is simply not there.
        let value = beneath::read_xattr(|buffer| rustix::fs::lgetxattr(path, name.as_slice(), buffer))?;
        xattrs.extend(value.map(|value| (name, value)));
    }
    Ok(xattrs)
}

/// Major and minor number of a device, from what `stat` calls it.
pub fn device_numbers(device: u64) -> (u32, u32) {
    (rustix::fs::major(device), rustix::fs::minor(device))
}
