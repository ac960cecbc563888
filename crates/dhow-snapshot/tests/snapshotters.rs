//! The suite against every snapshotter, and what is particular to one.

#[macro_use]
mod suite;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use dhow_snapshot::{OverlaySnapshotter, Snapshotter, fix_implied_dirs};
use dhow_sys::beneath::Root;
use suite::{key, layer, name};

snapshotter_suite!(overlay, |dir| dhow_snapshot::OverlaySnapshotter::open(dir).expect("open"));

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: whiteouts and owners need root");
    }
    root
}

#[test]
fn leftovers_of_a_dead_process_are_collected() {
    let dir = tempfile::tempdir().unwrap();
    let snapshotter = OverlaySnapshotter::open(dir.path()).unwrap();
    for leftover in ["new-1-0/fs/file", "trash-1-1/fs/deep/file"] {
        fs::create_dir_all(dir.path().join(leftover)).unwrap();
    }
    let kept = layer(&snapshotter, "kept", &[("f", "")]);
    assert_eq!(snapshotter.collect(&|_| true).unwrap().leftovers, 2);
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["empty", "kept", "lock"]);
    assert!(snapshotter.layer_path(&kept).is_some());
}

#[test]
fn a_committed_folder_holds_its_files_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let snapshotter = OverlaySnapshotter::open(dir.path()).unwrap();
    let lower = layer(&snapshotter, "lower", &[("f", "")]);
    snapshotter.prepare(&key("k"), &[lower]).unwrap();
    snapshotter.commit(&key("k"), &name("top"), Default::default()).unwrap();
    let names: Vec<_> =
        fs::read_dir(dir.path().join("top")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["fs"]);
}

#[test]
fn the_root_of_a_new_snapshot_looks_like_the_one_below() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let snapshotter = OverlaySnapshotter::open(dir.path()).unwrap();
    let lower = layer(&snapshotter, "lower", &[("f", "")]);
    let path = snapshotter.layer_path(&lower).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o1711)).unwrap();
    std::os::unix::fs::chown(&path, Some(3), Some(4)).unwrap();
    let prepared = snapshotter.prepare(&key("k"), &[lower]).unwrap();
    let metadata = fs::metadata(prepared.path()).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (0o1711, 3, 4));
}

#[test]
fn implied_directories_take_after_the_topmost_layer_that_shows_them() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str, dirs: &[(&str, u32)]| -> PathBuf {
        for (path, mode) in dirs {
            let path = dir.path().join(name).join(path);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        dir.path().join(name)
    };
    let bottom =
        folder("bottom", &[("tmp", 0o1777), ("home/user", 0o700), ("opt/x", 0o700), ("srv/x", 0o711)]);
    let middle = folder("middle", &[("tmp", 0o1770), ("srv", 0o755)]);
    let root = Root::open(&middle).unwrap();
    dhow_sys::node::make_whiteout(&root, Path::new("opt")).unwrap();
    dhow_sys::node::set_opaque(&root, Path::new("srv"), Default::default()).unwrap();
    let implied = ["tmp", "home/user", "opt/x", "srv/x", "nowhere"];
    let layer = folder("layer", &implied.map(|path| (path, 0o755)));
    let fixed = fix_implied_dirs(&layer, &implied.map(PathBuf::from), &[middle, bottom]).unwrap();
    let mode = |path: &str| fs::metadata(layer.join(path)).unwrap().mode() & 0o7777;
    assert_eq!(implied.map(mode), [0o1770, 0o700, 0o755, 0o755, 0o755]);
    assert_eq!(fixed, 2);
}
