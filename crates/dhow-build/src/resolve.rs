//! Following symbolic links in a tree that is not our own root directory.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use dhow_sys::beneath::Root;
use rustix::fs::FileType;

/// As many links as the kernel follows in one path.
const LINKS_MAX: usize = 40;

/// Turns `path`, absolute or relative to the root, into one without links and dots, relative to the root.
/// What does not exist is kept as written, so that it can be created there. `..` stays within the root.
pub(crate) fn resolve(root: &Root, path: &Path) -> io::Result<PathBuf> {
    let mut open: Vec<OsString> = components(path);
    let mut done = PathBuf::new();
    let mut links = 0;
    while let Some(name) = open.pop() {
        if name == ".." {
            done.pop();
            continue;
        }
        let here = done.join(&name);
        let is_link = match root.try_stat(&here) {
            Ok(stat) => stat.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink),
            // A file in the middle of the path: nothing below it exists.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => false,
            Err(error) => return Err(error),
        };
        if !is_link {
            done = here;
            continue;
        }
        links += 1;
        if links > LINKS_MAX {
            return Err(io::Error::from(rustix::io::Errno::LOOP));
        }
        let target = root.read_link(&here)?;
        if target.is_absolute() {
            done = PathBuf::new();
        }
        open.extend(components(&target));
    }
    Ok(done)
}

/// The named components, last first; roots and dots mean nothing.
fn components(path: &Path) -> Vec<OsString> {
    let meaning = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let mut names: Vec<OsString> = meaning.collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside_and_missing_parts_are_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(dir.path().join("a/b")).expect("a folder");
        std::os::unix::fs::symlink("/a", dir.path().join("abs")).expect("a link");
        std::os::unix::fs::symlink("../../..", dir.path().join("a/up")).expect("a link");
        std::os::unix::fs::symlink("loop", dir.path().join("loop")).expect("a link");
        let root = Root::open(dir.path()).expect("a root");
        for (path, real) in [
            ("/abs/b", "a/b"),
            ("abs/new/file", "a/new/file"),
            ("a/up/a/./b/", "a/b"),
            ("../../etc", "etc"),
            ("/", ""),
        ] {
            assert_eq!(resolve(&root, Path::new(path)).expect(path), Path::new(real), "{path}");
        }
        assert!(resolve(&root, Path::new("loop")).is_err());
    }
}
