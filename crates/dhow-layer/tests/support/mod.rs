//! A folder as text: what the tests compare.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use dhow_sys::beneath::Root;
use dhow_sys::node;

/// True as root; otherwise says that a test is skipped.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: owners, devices and whiteouts need root");
    }
    root
}

/// One line for each entry: kind, mode, owner, seconds of mtime, path, and what is particular to the kind.
pub(crate) fn listing(dir: &Path) -> String {
    let mut lines = Vec::new();
    list(dir, Path::new(""), &mut lines);
    lines.concat()
}

fn list(dir: &Path, below: &Path, lines: &mut Vec<String>) {
    let mut names: Vec<_> =
        fs::read_dir(dir.join(below)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let path = below.join(&name);
        lines.push(describe(dir, &path));
        if fs::symlink_metadata(dir.join(&path)).unwrap().is_dir() {
            list(dir, &path, lines);
        }
    }
}

fn describe(dir: &Path, path: &Path) -> String {
    let full = dir.join(path);
    let metadata = fs::symlink_metadata(&full).unwrap();
    let kind = metadata.file_type();
    let (letter, detail) = if kind.is_dir() {
        ('d', String::new())
    } else if kind.is_symlink() {
        ('l', format!(" -> {}", fs::read_link(&full).unwrap().display()))
    } else if kind.is_file() {
        let data = fs::read(&full).unwrap();
        let shown =
            if data.len() > 40 { format!("{} bytes", data.len()) } else { data.escape_ascii().to_string() };
        ('f', format!(" {shown:?} x{}", metadata.nlink()))
    } else if kind.is_fifo() {
        ('p', String::new())
    } else if kind.is_char_device() && metadata.rdev() == 0 {
        return format!("whiteout {}\n", path.as_os_str().as_bytes().escape_ascii());
    } else {
        let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        (if kind.is_char_device() { 'c' } else { 'b' }, format!(" {major}:{minor}"))
    };
    let (mode, uid, gid, mtime) =
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid(), metadata.mtime());
    let shown = path.as_os_str().as_bytes().escape_ascii();
    format!("{letter} {mode:04o} {uid}:{gid} {mtime} {shown}{detail}{}\n", xattrs(dir, path))
}

fn xattrs(dir: &Path, path: &Path) -> String {
    let parent = path.parent().unwrap_or(Path::new(""));
    let parent = Root::open(dir).unwrap().open_dir(parent).unwrap();
    let xattrs = node::entry_xattrs(&parent, path.file_name().unwrap()).unwrap();
    xattrs.iter().map(|(name, value)| format!(" {}={}", name.escape_ascii(), value.escape_ascii())).collect()
}
