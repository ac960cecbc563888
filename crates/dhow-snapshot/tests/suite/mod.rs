//! What every snapshotter promises. `snapshotter_suite!(name, open)` makes a test of each promise, where
//! `open` is a function from a directory to a snapshotter.

use std::fs;
use std::path::Path;

use dhow_snapshot::{MountSpec, SnapshotError, SnapshotKey, SnapshotName, Snapshotter, Sync};
use dhow_sys::beneath::Root;
use dhow_sys::overlay::Options;

pub(crate) fn key(text: &str) -> SnapshotKey {
    text.parse().expect("a key")
}

pub(crate) fn name(text: &str) -> SnapshotName {
    text.parse().expect("a name")
}

/// Commits a layer with the given files under `layer`.
pub(crate) fn layer(snapshotter: &impl Snapshotter, layer: &str, files: &[(&str, &str)]) -> SnapshotName {
    let prepared = snapshotter.prepare_layer(&key(layer)).expect("prepare");
    for (path, text) in files {
        let path = prepared.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        fs::write(path, text).expect("write");
    }
    snapshotter.commit(&key(layer), &name(layer), Sync::default()).expect("commit");
    name(layer)
}

/// The mounted stack, reachable only through what is returned.
fn mounted(spec: &MountSpec) -> Root {
    Root::from_fd(spec.mount(Options::default()).expect("mount").into())
}

fn text(root: &Root, path: &str) -> String {
    std::io::read_to_string(root.open_file(Path::new(path)).expect("open")).expect("read")
}

pub(crate) fn what_is_written_can_be_stacked(snapshotter: &impl Snapshotter) {
    let lower = layer(snapshotter, "lower", &[("etc/a", "lower"), ("etc/b", "lower")]);
    let upper = layer(snapshotter, "upper", &[("etc/b", "upper")]);
    snapshotter.prepare(&key("c1"), &[upper.clone(), lower.clone()]).expect("prepare");
    let root = mounted(&snapshotter.mount_spec(&key("c1")).expect("spec"));
    assert_eq!((text(&root, "etc/a"), text(&root, "etc/b")), ("lower".into(), "upper".into()));
    root.unlink(Path::new("etc/a")).expect("unlink");
    root.create_file(Path::new("etc/c"), 0o644).expect("create");
    drop(root);
    snapshotter.commit(&key("c1"), &name("step"), Sync::Files).expect("commit");
    let view = mounted(&snapshotter.view(&[name("step"), upper, lower.clone()]).expect("view"));
    assert!(view.try_stat(Path::new("etc/a")).expect("stat").is_none(), "a removal was lost");
    assert!(view.try_stat(Path::new("etc/c")).expect("stat").is_some(), "a new file was lost");
    let below = mounted(&snapshotter.view(&[lower]).expect("view"));
    assert_eq!(text(&below, "etc/a"), "lower", "a committed snapshot changed");
    assert!(below.create_file(Path::new("etc/d"), 0o644).is_err(), "a view can be written to");
}

pub(crate) fn a_snapshot_on_nothing_can_be_written(snapshotter: &impl Snapshotter) {
    snapshotter.prepare(&key("scratch"), &[]).expect("prepare");
    let root = mounted(&snapshotter.mount_spec(&key("scratch")).expect("spec"));
    root.create_file(Path::new("file"), 0o644).expect("create");
    drop(root);
    assert!(snapshotter.upper_path(&key("scratch")).expect("upper").join("file").is_file());
}

pub(crate) fn keys_and_parents_are_checked(snapshotter: &impl Snapshotter) {
    let _first = snapshotter.prepare(&key("k"), &[]).expect("prepare");
    let error = snapshotter.prepare_layer(&key("k")).unwrap_err();
    assert_eq!(error.to_string(), "active snapshot k exists already");
    let error = snapshotter.prepare(&key("k2"), &[name("gone")]).unwrap_err();
    assert_eq!(error.to_string(), "no such snapshot: gone");
    assert!(matches!(snapshotter.mount_spec(&key("k2")), Err(SnapshotError::NoSuchKey { .. })));
    snapshotter.prepare_layer(&key("bare")).expect("prepare");
    assert!(matches!(snapshotter.mount_spec(&key("bare")), Err(SnapshotError::NotMountable { .. })));
    let error = snapshotter.commit(&key("none"), &name("n"), Sync::default()).unwrap_err();
    assert_eq!(error.to_string(), "no such active snapshot: none");
}

pub(crate) fn the_first_of_equal_names_wins(snapshotter: &impl Snapshotter) {
    layer(snapshotter, "same", &[("f", "first")]);
    let second = snapshotter.prepare_layer(&key("other")).expect("prepare");
    fs::write(second.path().join("f"), "second").expect("write");
    snapshotter.commit(&key("other"), &name("same"), Sync::default()).expect("commit");
    let path = snapshotter.layer_path(&name("same")).expect("a path");
    assert_eq!(fs::read_to_string(path.join("f")).expect("read"), "first");
    assert_eq!(snapshotter.list().expect("list").active, []);
}

pub(crate) fn removing_what_is_gone_is_success(snapshotter: &impl Snapshotter) {
    layer(snapshotter, "l", &[("f", "")]);
    snapshotter.prepare(&key("k"), &[name("l")]).expect("prepare");
    for _ in 0..2 {
        snapshotter.remove(&key("k")).expect("remove");
        snapshotter.remove_committed(&name("l")).expect("remove");
    }
    assert_eq!(snapshotter.layer_path(&name("l")), None);
    assert_eq!(snapshotter.list().expect("list"), Default::default());
}

pub(crate) fn only_abandoned_work_is_collected(snapshotter: &impl Snapshotter) {
    let held = snapshotter.prepare(&key("held"), &[]).expect("prepare");
    drop(snapshotter.prepare(&key("container"), &[]).expect("prepare"));
    drop(snapshotter.prepare_layer(&key("dead")).expect("prepare"));
    let locked: Vec<_> = snapshotter.list().expect("list").active;
    assert_eq!(locked.iter().map(|active| active.locked).collect::<Vec<_>>(), [false, false, true]);
    let collected = snapshotter.collect(&|key| key.as_str() == "container").expect("collect");
    assert_eq!(collected.active, [key("dead")]);
    let left: Vec<_> = snapshotter.list().expect("list").active.into_iter().map(|a| a.key).collect();
    assert_eq!(left, [key("container"), key("held")]);
    drop(held);
    assert_eq!(snapshotter.collect(&|_| false).expect("collect").active, left);
}

pub(crate) fn a_group_appears_after_one_sync(snapshotter: &impl Snapshotter) {
    let names: Vec<_> = (0..5).map(|i| (key(&format!("k{i}")), name(&format!("n{i}")))).collect();
    let prepared: Vec<_> =
        names.iter().map(|(key, _)| snapshotter.prepare_layer(key).expect("prepare")).collect();
    fs::write(prepared[3].path().join("file"), vec![0; 10_000]).expect("write");
    snapshotter.commit_all(&names, Sync::FileSystem).expect("commit");
    let listed: Vec<_> =
        snapshotter.list().expect("list").committed.into_iter().map(|info| info.name).collect();
    assert_eq!(listed, names.iter().map(|(_, name)| name.clone()).collect::<Vec<_>>());
    let usage = snapshotter.usage(&names[3].1).expect("usage");
    assert!(usage.inodes == 2 && usage.bytes >= 10_000, "{usage:?}");
}

pub(crate) fn processes_may_race(snapshotter: &(impl Snapshotter + std::marker::Sync)) {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..10 {
                    let key = key(&format!("t{thread}-{round}"));
                    let prepared = snapshotter.prepare_layer(&key).expect("prepare");
                    fs::write(prepared.path().join("file"), "x").expect("still there");
                    snapshotter.collect(&|_| false).expect("collect");
                    snapshotter.commit(&key, &name("shared"), Sync::Files).expect("commit");
                }
            });
        }
    });
    assert!(snapshotter.layer_path(&name("shared")).expect("a path").join("file").is_file());
    assert_eq!(snapshotter.list().expect("list").active, []);
}

macro_rules! snapshotter_suite {
    ($module:ident, $open:expr) => {
        snapshotter_suite!(
            @tests $module, $open,
            what_is_written_can_be_stacked
            a_snapshot_on_nothing_can_be_written
            keys_and_parents_are_checked
            the_first_of_equal_names_wins
            removing_what_is_gone_is_success
            only_abandoned_work_is_collected
            a_group_appears_after_one_sync
            processes_may_race
        );
    };
    (@tests $module:ident, $open:expr, $($test:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $test() {
                    if !rustix::process::geteuid().is_root() {
                        eprintln!("skipped: snapshots are mounted, which needs root");
                        return;
                    }
                    let dir = tempfile::tempdir().expect("a temporary directory");
                    $crate::suite::$test(&$open(dir.path()));
                }
            )*
        }
    };
}
