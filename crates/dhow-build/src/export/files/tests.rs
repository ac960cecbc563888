//! Staged trees over what is there.

use std::os::unix::fs::symlink;

use super::*;

/// Writes files below a folder: `path` or `path=content`.
fn write(folder: &Path, files: &[&str]) {
    for file in files {
        let (path, content) = file.split_once('=').unwrap_or((file, ""));
        let path = folder.join(path);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("a folder");
        fs::write(path, content).expect("a file");
    }
}

/// All files below a folder with their content.
fn read(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a folder").flatten() {
            let shown = entry.path().strip_prefix(folder).expect("below").display().to_string();
            match entry.file_type().expect("a type") {
                kind if kind.is_dir() => open.push(entry.path()),
                kind if kind.is_symlink() => found.push(format!("{shown} ->")),
                _ => found.push(format!("{shown}={}", fs::read_to_string(entry.path()).expect("text"))),
            }
        }
    }
    found.sort();
    found
}

/// Merges `new` into a folder that holds `held`.
fn merged(dest: &Path, new: &[&str], delete: bool) -> Result<Vec<String>, ExportError> {
    let staging = Staging::new(dest).expect("a staging folder");
    write(&staging.path, new);
    let merge = Merge { dest: Root::open(dest).expect("a folder"), name: staging.name.clone(), delete };
    let result = merge.merge(Path::new(""));
    drop(staging);
    result.map(|()| read(dest))
}

#[test]
fn what_is_there_and_not_replaced_stays_unless_told_otherwise() {
    let dest = tempfile::tempdir().expect("a folder");
    write(dest.path(), &["keep=1", "dir/keep=1", "dir/old=1"]);
    let kept = merged(dest.path(), &["dir/old=2", "dir/new=2"], false).expect("a merge");
    assert_eq!(kept, ["dir/keep=1", "dir/new=2", "dir/old=2", "keep=1"]);
    let cleaned = merged(dest.path(), &["dir/new=3"], true).expect("a merge");
    assert_eq!(cleaned, ["dir/new=3"]);
}

#[test]
fn links_in_the_destination_lead_nowhere() {
    let (dest, outside) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    write(outside.path(), &["precious=1"]);
    symlink(outside.path(), dest.path().join("dir")).expect("a link");
    symlink(outside.path().join("precious"), dest.path().join("file")).expect("a link");
    let merged = merged(dest.path(), &["dir/precious=2", "file=2"], false).expect("a merge");
    assert_eq!(merged, ["dir/precious=2", "file=2"]);
    assert_eq!(read(outside.path()), ["precious=1"]);
}

#[test]
fn a_file_takes_no_folders_place() {
    let dest = tempfile::tempdir().expect("a folder");
    write(dest.path(), &["name/precious=1"]);
    let error = merged(dest.path(), &["name=2"], false).expect_err("a folder is in the way");
    assert_eq!(error.to_string(), "cannot write name");
    assert_eq!(read(dest.path()), ["name/precious=1"]);
}

#[test]
fn what_killed_builds_left_is_swept_and_what_others_write_is_not() {
    let dest = tempfile::tempdir().expect("a folder");
    fs::create_dir(dest.path().join(".dhow-output-1")).expect("a folder");
    let other = dest.path().join(".dhow-output-2");
    fs::create_dir(&other).expect("a folder");
    let lock = File::open(&other).expect("a folder");
    lock.lock().expect("a lock");
    sweep(dest.path());
    assert!(!dest.path().join(".dhow-output-1").exists());
    assert!(other.exists());
}
