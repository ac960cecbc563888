//! Power fails at any system call: the disk has what was synced and no more, and the store on it is whole.
//!
//! The store lies on a file system of its own, which writes nothing by itself. At a call of the command the process is killed,
//! and the blocks that have reached the disk are copied at once: that is what would be found after a power cut.

use std::path::{Path, PathBuf};

use crate::rig::{Rig, has_tool, skip};

/// Calls that change files, and that make changes last.
const CALLS: &str = "write,pwrite64,ftruncate,fsync,fdatasync,syncfs,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,\
                     linkat,openat";
/// Calls of which the n-th of each thread is tried, unless `DHOW_FAULTS=all` asks for every one.
const TRIED: usize = 12;
const DISK_BYTES: &str = "96M";

/// A disk with the rig's store on it.
struct Disk<'a> {
    rig: &'a Rig,
    image: PathBuf,
}

impl<'a> Disk<'a> {
    /// `None`, with the reason printed, where there are no loop devices.
    fn start(rig: &'a Rig) -> Option<Self> {
        if !has_tool("strace") || !has_tool("mkfs.ext4") || !Path::new("/dev/loop-control").exists() {
            return skip("there is no strace, no mkfs.ext4, or no loop device");
        }
        let image = rig.path("disk");
        let shown = image.display();
        rig.ok(&format!("truncate -s {DISK_BYTES} {shown}"));
        rig.ok(&format!("mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 {shown}"));
        std::fs::create_dir_all(rig.path("root")).expect("a folder");
        // Nothing is written before it is asked for.
        rig.ok(&format!("mount -o loop,commit=300,noinit_itable {shown} {}", rig.path("root").display()));
        Some(Self { rig, image })
    }

    /// Sees to it that everything until now would survive.
    fn settle(&self) {
        self.rig.ok(&format!("sync -f {}", self.rig.path("root").display()));
    }

    /// What would be found if the power failed now.
    fn cut(&self) -> After<'a> {
        let (copy, folder) = (self.rig.path("cut"), self.rig.path("cut-root"));
        self.rig.ok(&format!("cp --sparse=always {} {}", self.image.display(), copy.display()));
        std::fs::create_dir_all(&folder).expect("a folder");
        self.rig.ok(&format!("mount -o loop {} {}", copy.display(), folder.display()));
        After { rig: self.rig, folder }
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        unmount(self.rig, &self.rig.path("root"));
    }
}

/// The disk after the power came back.
struct After<'a> {
    rig: &'a Rig,
    folder: PathBuf,
}

impl After<'_> {
    #[track_caller]
    fn works(&self, place: &str, line: &str) {
        let found = self.rig.run(&format!("env DHOW_ROOT={} {line}", self.folder.display()));
        assert_eq!(found.status, 0, "{place}: `{line}`:\n{}", found.both());
    }
}

impl Drop for After<'_> {
    fn drop(&mut self) {
        unmount(self.rig, &self.folder);
    }
}

fn unmount(rig: &Rig, folder: &Path) {
    // What still ends in the background may hold it for a moment.
    let mut tries = 0;
    while rig.run(&format!("umount {}", folder.display())).status != 0 && tries < 20 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        tries += 1;
    }
}

/// Plays a command with the power failing at each of its calls, and after it.
fn play(rig: &Rig, before: &[&str], line: &str, done: &str) {
    let Some(disk) = Disk::start(rig) else { return };
    rig.ok("dhow pull -q busybox");
    let prepare = || {
        before.iter().for_each(|line| _ = rig.ok(line));
        disk.settle();
    };
    prepare();
    let log = rig.path("work/calls");
    rig.ok(&format!("strace -f -qq -o {} -e trace={CALLS} {line}", log.display()));
    let calls = std::fs::read_to_string(&log).expect("what strace wrote").lines().count();
    let all = std::env::var("DHOW_FAULTS").is_ok_and(|wanted| wanted == "all");
    let step = if all { 1 } else { calls.div_ceil(TRIED) };
    let mut killed = 0;
    for number in (1..=calls).step_by(step) {
        prepare();
        let inject = format!("-e trace={CALLS} -e inject={CALLS}:signal=SIGKILL:when={number}");
        let tried = rig.run(&format!("strace -f -qq -o /dev/null {inject} {line}"));
        let after = disk.cut();
        let place = format!("power cut at call {number} of `{line}`");
        after.works(&place, "dhow system check");
        if tried.status == 0 {
            // What a command says is done stays done.
            after.works(&place, done);
        } else {
            killed += 1;
            after.works(&place, line);
            after.works(&place, done);
        }
        drop(after);
        rig.run(line);
    }
    assert!(killed > 0, "the power never failed in time");
}

#[test]
fn a_pull_survives_a_power_cut() {
    let Some(rig) = Rig::start() else { return };
    let done = "dhow run --rm --network none --pull never alpine true";
    play(&rig, &["dhow rmi -f alpine"], "dhow pull -q alpine", done);
}

#[test]
fn a_build_survives_a_power_cut() {
    let Some(rig) = Rig::start() else { return };
    rig.context("app", &[("Dockerfile", "FROM busybox\nCOPY a /d/\nRUN echo x > /x\n"), ("a", "1")]);
    let done = "dhow run --rm --network none --pull never app cat /d/a /x";
    play(&rig, &["dhow rmi -f app", "dhow builder prune -a -f"], "dhow build -q -t app app", done);
}

#[test]
fn a_removal_survives_a_power_cut() {
    let Some(rig) = Rig::start() else { return };
    rig.context("app", &[("Dockerfile", "FROM busybox\nCOPY Dockerfile /\n")]);
    let done = "dhow run --rm --network none --pull never busybox true";
    play(&rig, &["dhow build -q -t app app"], "dhow rmi -f app", done);
}

#[test]
fn a_name_survives_a_power_cut() {
    let Some(rig) = Rig::start() else { return };
    play(&rig, &["dhow tag busybox b:1", "dhow rmi b:1"], "dhow tag busybox b:1", "dhow image inspect b:1");
}

#[test]
fn a_commit_survives_a_power_cut() {
    let Some(rig) = Rig::start() else { return };
    let before = [
        "sh -c 'dhow create --name box --network none busybox true; dhow rmi -f app; dhow cp config.json box:/x'",
    ];
    rig.at("").write("config.json", "{}");
    let done = "dhow run --rm --network none --pull never app cat /x";
    play(&rig, &before, "dhow commit box app", done);
}
