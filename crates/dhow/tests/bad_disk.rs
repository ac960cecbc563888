//! A disk that is full, and folders that are not ours.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use dhow_oci::{Digest, media_type};
use tempfile::TempDir;

use crate::rig::{Double, Image, Rig, Tar};

/// A store on a file system in memory that is soon full.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(rig: &Rig, bytes: u64) -> Self {
        let path = rig.path("root");
        fs::create_dir(&path).expect("a folder");
        mount(&["-t", "tmpfs", "-o", &format!("size={bytes}"), "dhow-test"], &path);
        Self(path)
    }

    fn resize(&self, bytes: u64) {
        mount(&["-o", &format!("remount,size={bytes}")], &self.0);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a container of a test that failed may still be there.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[track_caller]
fn mount(args: &[&str], path: &Path) {
    let status = Command::new("mount").args(args).arg(path).status().expect("mount starts");
    assert!(status.success(), "mount {args:?}: {status}");
}

const FULL: &str = "o space left on device";

#[test]
fn a_full_disk_is_told_by_pull_build_and_run_and_does_no_harm() {
    let Some(rig) = Rig::start() else { return };
    let disk = SmallDisk::mount(&rig, 24 << 20);
    let noise: Vec<u8> = (0..30u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let large = Double::with(vec![("large", Image::of(&Tar::default().file("noise", &noise).end()))]);
    rig.ok("docker pull -q busybox");
    let pull = format!("docker pull -q {}/large", large.address);
    let images = rig.ok("docker images -a");
    let said = rig.fails(&pull, 1);
    assert!(said.contains(FULL) && said.contains("large"), "{said}");
    assert_eq!(rig.ok("docker images -a"), images);
    rig.ok("docker system check");

    let app =
        rig.context("app", &[("Dockerfile", "FROM busybox\nRUN dd if=/dev/zero of=/zero bs=1M count=40\n")]);
    let said = app.fails("docker build -t app .", 1);
    assert!(said.contains(FULL) && said.contains("Dockerfile:2"), "{said}");
    assert_eq!(rig.ok("docker images -a"), images);
    let said = rig.fails("docker run --rm busybox dd if=/dev/zero of=/zero bs=1M count=40", 1);
    assert!(said.contains(FULL), "{said}");
    rig.ok("docker system check");
    assert_eq!(rig.ok("docker run --rm busybox echo it works"), "it works");

    disk.resize(200 << 20);
    rig.ok(&pull);
    rig.ok("docker system check");
}

/// A layer of a few kilobytes that wants to become a hundred megabytes.
#[test]
fn a_bomb_fills_the_disk_only_until_it_is_noticed() {
    let Some(rig) = Rig::start() else { return };
    let _disk = SmallDisk::mount(&rig, 24 << 20);
    let tar = Tar::default().file("bomb", &vec![1; 100 << 20]).end();
    let diff_id = Digest::sha256_of(&tar).to_string();
    let bomb = gzip(&rig, &tar);
    let image = Image::travelling(&[bomb], media_type::OCI_LAYER_GZIP, &[diff_id]);
    let double = Double::with(vec![("bomb", image)]);
    let said = rig.unchanged(|| rig.fails(&format!("docker pull {}/bomb", double.address), 1));
    assert!(said.contains(FULL), "{said}");
}

fn gzip(rig: &Rig, bytes: &[u8]) -> Vec<u8> {
    let path = rig.path("bomb");
    fs::write(&path, bytes).expect("a file");
    Command::new("gzip").arg("--stdout").arg(&path).output().expect("gzip starts").stdout
}

/// The binary where everybody may run it.
fn public_binary() -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("it is ours");
    let binary = folder.path().join("dhow");
    fs::copy(env!("CARGO_BIN_EXE_dhow"), &binary).expect("a copy");
    let path = binary.to_str().expect("a path is text").to_owned();
    (folder, path)
}

const NOBODY: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/nonexistent";

#[test]
fn an_ordinary_user_is_told_what_is_not_allowed() {
    let Some(rig) = Rig::start() else { return };
    let (folder, binary) = public_binary();
    rig.ok("docker pull -q busybox");
    let variables =
        |root: &str| format!("{NOBODY} DHOW_CONFIG=/dev/null DHOW_ROOT={root} DHOW_RUN={root}/run");
    let theirs = folder.path().join("root");
    fs::create_dir(&theirs).expect("a folder");
    fs::set_permissions(&theirs, Permissions::from_mode(0o700)).expect("it is ours");
    let line = format!("{} {binary} images", variables(theirs.to_str().expect("text")));
    let said = rig.unchanged(|| rig.fails(&line, 1));
    assert!(said.contains("ermission denied") && said.contains("/root"), "{said}");

    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).expect("we are root");
    let said = rig.ok(&line);
    assert!(said.starts_with("REPOSITORY"), "{said}");
}

/// Root without the right to read everything, as in a container or on NFS.
#[test]
fn a_context_that_cannot_be_read_names_the_file() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q busybox");
    let app = rig.context("app", &[("Dockerfile", "FROM busybox\nCOPY . /app/\n"), ("secret/key", "x")]);
    let build = "setpriv --bounding-set -dac_override,-dac_read_search dhow build .";
    for path in ["secret/key", "secret"] {
        let path = app.folder().join(path);
        let before = fs::metadata(&path).expect("it is there").permissions();
        fs::set_permissions(&path, Permissions::from_mode(0o0)).expect("it is ours");
        let said = rig.unchanged(|| app.fails(build, 1));
        assert!(said.contains("secret") && said.contains("ermission denied"), "{said}");
        fs::set_permissions(&path, before).expect("it is ours");
    }
}
