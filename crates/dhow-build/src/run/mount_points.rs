//! The empty files and directories that mounts need to be mounted on, and that are no part of a layer.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use dhow_snapshot::MountSpec;
use dhow_sys::beneath::{Root, read_xattr};

use crate::resolve::resolve;

/// What the launcher itself makes in every root file system, deepest first.
const OF_THE_LAUNCHER: [&str; 7] =
    ["etc/resolv.conf", "etc/hosts", "etc/hostname", "etc", "proc", "sys", "dev"];

/// overlayfs's mark of a directory that hides those below it.
const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

/// The mount points that a step makes.
#[derive(Debug, Default)]
pub(crate) struct MountPoints {
    /// What was not there before, relative to the root and without links, deepest first.
    missing: Vec<PathBuf>,
}

impl MountPoints {
    /// Looks which of `targets`, and of the directories above them, `root` has not.
    pub(crate) fn of<'t>(root: &Root, targets: impl IntoIterator<Item = &'t str>) -> io::Result<MountPoints> {
        let mut missing = Vec::new();
        for target in targets {
            let real = resolve(root, Path::new(target))?;
            let above = real.ancestors().filter(|path| !path.as_os_str().is_empty());
            missing.extend(above.take_while(|path| !is_there(root, path)).map(Path::to_owned));
        }
        missing.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        missing.dedup();
        Ok(MountPoints { missing })
    }

    /// Removes from the layer what is there only because something was mounted over it: empty files and
    /// directories that no lower layer has, and copies of directories that were made to hold these.
    pub(crate) fn remove(&self, spec: &MountSpec) -> io::Result<()> {
        let Some(upper) = &spec.upper else { return Ok(()) };
        let layer = Layer { upper, lowers: &spec.lowers };
        for path in &self.missing {
            layer.remove_empty(path)?;
            // What it was made in was copied up for it, unless it is one of those removed next.
            for above in path.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()) {
                layer.remove_copy(above)?;
            }
        }
        for path in OF_THE_LAUNCHER.map(Path::new) {
            if layer.below(path).is_none() {
                layer.remove_empty(path)?;
            } else {
                layer.remove_copy(path)?;
            }
        }
        Ok(())
    }
}

fn is_there(root: &Root, path: &Path) -> bool {
    // A file where the path has a directory: there is nothing below it, and no mount can be.
    root.try_stat(path).is_ok_and(|stat| stat.is_some())
}

struct Layer<'a> {
    upper: &'a Path,
    lowers: &'a [PathBuf],
}

impl Layer<'_> {
    /// What the layers below have at `path`.
    fn below(&self, path: &Path) -> Option<Metadata> {
        let found = self.lowers.iter().find_map(|lower| fs::symlink_metadata(lower.join(path)).ok());
        found.filter(|metadata| !metadata.file_type().is_char_device())
    }

    fn remove_empty(&self, path: &Path) -> io::Result<()> {
        let path = self.upper.join(path);
        let Ok(held) = fs::symlink_metadata(&path) else { return Ok(()) };
        if held.is_dir() && fs::read_dir(&path)?.next().is_none() {
            fs::remove_dir(&path)?;
        } else if held.is_file() && held.len() == 0 {
            fs::remove_file(&path)?;
        }
        Ok(())
    }

    /// Removes an empty directory that says nothing that the one below does not say.
    fn remove_copy(&self, path: &Path) -> io::Result<()> {
        let Some(below) = self.below(path).filter(Metadata::is_dir) else { return Ok(()) };
        let path = self.upper.join(path);
        let Ok(held) = fs::symlink_metadata(&path) else { return Ok(()) };
        let is_copy = held.is_dir()
            && (below.mode(), below.uid(), below.gid()) == (held.mode(), held.uid(), held.gid())
            && !is_opaque(&path)?;
        if is_copy && fs::read_dir(&path)?.next().is_none() {
            fs::remove_dir(&path)?;
        }
        Ok(())
    }
}

/// Whether it was made anew in place of the one below, whose files it hides.
fn is_opaque(path: &Path) -> io::Result<bool> {
    for name in OPAQUE {
        if read_xattr(|buffer| rustix::fs::lgetxattr(path, name, buffer))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        dir: tempfile::TempDir,
        spec: MountSpec,
    }

    fn world(lower: &[&str]) -> World {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["lower", "upper"] {
            fs::create_dir(dir.path().join(name)).expect("a folder");
        }
        for path in lower {
            fs::create_dir_all(dir.path().join("lower").join(path)).expect("a folder");
        }
        let spec = MountSpec {
            lowers: vec![dir.path().join("lower")],
            upper: Some(dir.path().join("upper")),
            work: None,
            userxattr: false,
        };
        World { dir, spec }
    }

    impl World {
        fn made_by_mounting(&self, targets: &[&str]) -> MountPoints {
            let root = Root::open(&self.dir.path().join("lower")).expect("a root");
            let points = MountPoints::of(&root, targets.iter().copied()).expect("points");
            for target in targets {
                fs::create_dir_all(self.upper(target.trim_start_matches('/'))).expect("a folder");
            }
            points
        }

        fn upper(&self, path: &str) -> PathBuf {
            self.dir.path().join("upper").join(path)
        }

        fn left(&self) -> Vec<String> {
            let entries = fs::read_dir(self.upper("")).expect("a folder");
            let mut names: Vec<String> = entries
                .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
                .collect();
            names.sort();
            names
        }
    }

    #[test]
    fn what_mounts_made_is_removed_with_the_directories_above() {
        let world = world(&["root"]);
        let points = world.made_by_mounting(&["/root/.cache/pip", "/new/one", "/new/two"]);
        points.remove(&world.spec).expect("removed");
        assert_eq!(world.left(), [""; 0]);
    }

    #[test]
    fn what_the_program_wrote_there_stays() {
        let world = world(&["root"]);
        let points = world.made_by_mounting(&["/root/.cache/pip", "/new/one"]);
        fs::write(world.upper("new/file"), "x").expect("a file");
        points.remove(&world.spec).expect("removed");
        assert_eq!(world.left(), ["new"]);
        assert!(!world.upper("new/one").exists());
    }

    #[test]
    fn a_directory_that_was_there_stays_as_the_program_left_it() {
        let world = world(&["data", "srv"]);
        let points = world.made_by_mounting(&["/data", "/srv/x"]);
        // Another mode is a change of the program's.
        fs::set_permissions(world.upper("srv"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .expect("a mode");
        points.remove(&world.spec).expect("removed");
        assert_eq!(world.left(), ["data", "srv"]);
        assert!(!world.upper("srv/x").exists());
    }
}
