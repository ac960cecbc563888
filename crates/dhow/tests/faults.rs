//! Whatever system call fails, and wherever a command is killed: what was there is whole, and the next command works.
//!
//! `strace` makes the n-th call of each thread fail, or kills the process at it. Every tenth of the calls is tried;
//! `DHOW_FAULTS=all` tries each of them, which takes minutes.

use std::collections::HashMap;
use std::process::Command;

use crate::rig::Rig;

/// Calls that make, change or name files.
const CALLS: &str = "write,pwrite64,writev,ftruncate,fallocate,fsync,fdatasync,syncfs,rename,renameat,renameat2,mkdir,mkdirat,\
                     unlink,unlinkat,linkat,symlinkat,mknodat,fchmod,fchmodat,fchown,fchownat,utimensat,fsetxattr,lsetxattr,\
                     copy_file_range,openat";
/// Calls of which the n-th of each thread is tried, unless all are.
const TRIED: usize = 10;
/// No command here makes more calls in one thread.
const CALLS_MAX: usize = 20_000;
/// What happens at a call.
const FAULTS: [&str; 3] = ["error=ENOSPC", "error=EIO", "signal=SIGKILL"];

/// A command that is tried with every fault.
struct Story<'a> {
    rig: &'a Rig,
    /// What makes things as they were before the command.
    before: &'a [&'a str],
    line: &'a str,
    /// Succeeds once the command has done its work.
    done: &'a str,
}

impl Story<'_> {
    fn play(&self) {
        let calls = self.calls();
        assert!((1..CALLS_MAX).contains(&calls), "{calls} calls");
        let step = match std::env::var("DHOW_FAULTS").is_ok_and(|wanted| wanted == "all") {
            true => 1,
            false => calls.div_ceil(TRIED),
        };
        for fault in FAULTS {
            for number in (1..=calls).step_by(step) {
                self.with(fault, number);
            }
        }
    }

    fn prepare(&self) {
        self.before.iter().for_each(|line| _ = self.rig.ok(line));
    }

    /// How many calls the busiest thread of the command makes.
    fn calls(&self) -> usize {
        self.prepare();
        let log = self.rig.path("work/calls");
        self.rig.ok(&format!("strace -f -qq -o {} -e trace={CALLS} {}", log.display(), self.line));
        let log = std::fs::read_to_string(log).expect("what strace wrote");
        let mut threads: HashMap<&str, usize> = HashMap::new();
        for thread in log.lines().filter_map(|line| line.split(' ').next()) {
            *threads.entry(thread).or_default() += 1;
        }
        threads.into_values().max().unwrap_or(0)
    }

    fn with(&self, fault: &str, number: usize) {
        self.prepare();
        let inject = format!("-e trace={CALLS} -e inject={CALLS}:{fault}:when={number}");
        let tried = self.rig.run(&format!("strace -f -qq -o /dev/null {inject} {}", self.line));
        let place = format!("{fault} at call {number} of `{}`", self.line);
        let checked = self.rig.run("dhow system check");
        assert_eq!(checked.status, 0, "after {place}:\n{}\nit had said:\n{}", checked.both(), tried.both());
        if tried.status == 0 {
            let done = self.rig.run(self.done);
            assert_eq!(done.status, 0, "{place}: it claims success:\n{}", done.both());
        }
        for line in [self.line, self.done] {
            let again = self.rig.run(line);
            // What was done although the command could not say so need not be done again.
            let is_done = line == self.line && self.rig.run(self.done).status == 0;
            assert!(
                again.status == 0 || is_done,
                "after {place}: `{line}`:\n{}\nit had said:\n{}",
                again.both(),
                tried.both()
            );
        }
    }
}

/// A rig, where `strace` is.
fn rig() -> Option<Rig> {
    if Command::new("strace").arg("--version").output().is_err() {
        println!("skipped: strace is not installed");
        return None;
    }
    Rig::start()
}

#[test]
fn a_pull_is_whole_or_absent() {
    let Some(rig) = rig() else { return };
    rig.ok("dhow pull -q busybox");
    let before = &["dhow rmi -f busybox"];
    let done = "dhow run --rm --network none --pull never busybox true";
    Story { rig: &rig, before, line: "dhow pull -q busybox", done }.play();
}

#[test]
fn a_load_is_whole_or_absent() {
    let Some(rig) = rig() else { return };
    rig.ok("dhow pull -q busybox");
    rig.ok("dhow save -o busybox.tar busybox");
    let before = &["dhow rmi -f busybox"];
    Story { rig: &rig, before, line: "dhow load -q -i busybox.tar", done: "dhow save -o again.tar busybox" }
        .play();
}

#[test]
fn a_build_is_whole_or_absent() {
    let Some(rig) = rig() else { return };
    rig.context(
        "app",
        &[("Dockerfile", "FROM busybox\nCOPY a b /d/\nRUN echo x > /x\n"), ("a", "1"), ("b", "2")],
    );
    rig.ok("dhow build -q -t app app");
    let before = &["dhow rmi -f app", "dhow builder prune -a -f"];
    let done = "dhow run --rm --network none --pull never app cat /d/a /d/b /x";
    Story { rig: &rig, before, line: "dhow build -q -t app app", done }.play();
}

#[test]
fn names_come_and_go_whole() {
    let Some(rig) = rig() else { return };
    rig.ok("dhow pull -q busybox");
    rig.ok("dhow tag busybox b:1");
    let before = &["dhow rmi b:1"];
    Story { rig: &rig, before, line: "dhow tag busybox b:1", done: "dhow image inspect b:1" }.play();
}

#[test]
fn what_is_removed_takes_nothing_with_it() {
    let Some(rig) = rig() else { return };
    rig.context("app", &[("Dockerfile", "FROM busybox\nCOPY Dockerfile /\n")]);
    let before = &["dhow build -q -t app app"];
    rig.ok(before[0]);
    let done = "dhow run --rm --network none --pull never busybox true";
    rig.ok("dhow pull -q busybox");
    Story { rig: &rig, before, line: "dhow rmi -f app", done }.play();
    let line = "dhow builder prune -a -f";
    Story { rig: &rig, before: &["dhow build -q -t app app", "dhow rmi -f app"], line, done }.play();
}

#[test]
fn a_commit_is_whole_or_absent() {
    let Some(rig) = rig() else { return };
    rig.ok("dhow run --name box --network none busybox sh -c 'echo x > /x'");
    rig.ok("dhow commit box app");
    let before = &["dhow rmi -f app"];
    let done = "dhow run --rm --network none --pull never app cat /x";
    Story { rig: &rig, before, line: "dhow commit box app", done }.play();
}
