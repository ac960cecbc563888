//! Directories that a layer implies without listing them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use dhow_sys::beneath::{Owner, Root, Time};
use dhow_sys::node;
use rustix::fs::FileType;

use crate::error::{SnapshotError, io_error};

/// Gives each of `dirs` in the folder `layer` the mode, owner, time and extended attributes that it has in
/// the topmost of `lowers` that holds it, so that putting the layer on the stack does not change what it
/// never mentioned. The empty path is the root. Returns how many were found below.
///
/// The result depends on the stack, so such a layer must not be named by its contents alone. A layer that
/// hides the lower directory (a whiteout or an opaque parent in between) is not looked through; the search
/// for that directory ends there.
pub fn fix_implied_dirs(layer: &Path, dirs: &[PathBuf], lowers: &[PathBuf]) -> Result<u64, SnapshotError> {
    let target = Root::open(layer).map_err(io_error("open", layer))?;
    let mut found = 0;
    for dir in dirs {
        for lower in lowers {
            let root = Root::open(lower).map_err(io_error("open", lower))?;
            match look(&root, dir).map_err(io_error("read", &lower.join(dir)))? {
                Found::Directory => {
                    copy_attributes(&root, &target, dir)
                        .map_err(io_error("set attributes of", &layer.join(dir)))?;
                    found += 1;
                    break;
                }
                Found::Hidden => break,
                Found::Nothing => {}
            }
        }
    }
    Ok(found)
}

enum Found {
    Directory,
    /// Something else has its name, or what lies below is out of sight.
    Hidden,
    Nothing,
}

fn look(root: &Root, dir: &Path) -> std::io::Result<Found> {
    let mut here = PathBuf::new();
    for part in dir {
        if !here.as_os_str().is_empty() && node::is_opaque(&root.open_dir(&here)?)? {
            // This layer decides; it must hold the rest of the path itself.
            return Ok(match root.try_stat(dir) {
                Ok(Some(stat)) if FileType::from_raw_mode(stat.st_mode).is_dir() => Found::Directory,
                _ => Found::Hidden,
            });
        }
        here.push(part);
        match root.try_stat(&here)? {
            None => return Ok(Found::Nothing),
            Some(stat) if FileType::from_raw_mode(stat.st_mode).is_dir() => {}
            Some(_) => return Ok(Found::Hidden),
        }
    }
    Ok(Found::Directory)
}

/// Makes the directory `dir` in `to` look like the one in `from`.
pub(crate) fn copy_attributes(from: &Root, to: &Root, dir: &Path) -> std::io::Result<()> {
    let stat = from.stat(dir)?;
    to.chown(dir, Owner { uid: stat.st_uid, gid: stat.st_gid })?;
    for name in from.xattr_names(dir)? {
        let value = from.xattr(dir, OsStr::from_bytes(&name))?;
        if let Some(value) = value.filter(|_| !node::is_overlay_xattr(&name)) {
            to.set_xattr(dir, OsStr::from_bytes(&name), &value)?;
        }
    }
    to.chmod(dir, stat.st_mode & 0o7777)?;
    let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    to.set_times(dir, Time { seconds: stat.st_mtime, nanoseconds })
}
