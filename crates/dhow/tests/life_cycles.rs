//! Lives of containers as dice have it, with SIGKILLs of shims and commands, after which nothing is left; and the bad
//! manners a container can have.
//!
//! `DHOW_LIFE_CYCLES=200` tells how many lives there are; `DHOW_TEST_SEED` tells a story again.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::rig::{Rig, free_port, has_tool};
use crate::shown::inspect;
use crate::storm::Random;

/// Lives where nobody says how many: as many as a test may take time for.
const LIVES: u64 = 24;
/// What a container goes through at most before it is removed.
const ACTS_MAX: u64 = 5;
/// A command is killed within this time.
const COMMAND_MS_MAX: u64 = 120;

/// A host, and all that was seen of containers on it.
struct Stage {
    rig: Rig,
    random: Random,
    ids: BTreeSet<String>,
    veths: BTreeSet<String>,
    ports: BTreeSet<u16>,
}

#[test]
fn whatever_a_container_went_through_nothing_of_it_is_left() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q busybox");
    let lives = std::env::var("DHOW_LIFE_CYCLES").ok().and_then(|text| text.parse().ok()).unwrap_or(LIVES);
    let (random, ids, veths, ports) = (Random::seeded(), BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut stage = Stage { rig, random, ids, veths, ports };
    let before = stage.left_on_host();
    assert_eq!(before, Vec::<String>::new());
    for life in 0..lives {
        stage.live(life);
    }
    assert_eq!(stage.rig.ok("docker ps -aq"), "");
    // What a killed command had begun is swept by the next removal that comes along.
    stage.rig.ok("docker run --rm busybox true");
    stage.rig.ok("docker rm -f nobody");
    for _ in 0..100 {
        if stage.left_on_host().is_empty() && stage.left_in_store().is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(stage.left_on_host(), Vec::<String>::new());
    assert_eq!(stage.left_in_store(), Vec::<String>::new());
    println!("{lives} lives, {} containers, {} places on the network", stage.ids.len(), stage.veths.len());
    assert!(stage.ids.len() as u64 >= lives / 2, "most lives begin");
    stage.rig.ok("docker system check");
}

impl Stage {
    fn live(&mut self, life: u64) {
        let name = format!("life{life}");
        let run = format!("docker run -d --name {name} {}", self.flags());
        match self.random.below(5) {
            0 => self.killed_command(&run),
            // It may be held up by what a life before left behind for a moment, and says so.
            _ => drop(self.rig.run(&run)),
        }
        self.look();
        for _ in 0..self.random.below(ACTS_MAX) {
            self.act(&name);
            self.look();
        }
        self.rig.ok(&format!("docker rm -f -v {name}"));
    }

    fn flags(&mut self) -> String {
        let mut flags = String::new();
        let mut maybe = |odds: u64, text: &str| {
            if self.random.below(odds) == 0 {
                flags += text;
            }
        };
        maybe(3, "--restart always ");
        maybe(4, "--init ");
        maybe(4, "-t ");
        maybe(4, "--health-cmd true --health-interval 100ms ");
        maybe(4, "-v /data ");
        maybe(5, "--pids-limit 50 -m 64m ");
        match self.random.below(4) {
            0 => flags += "--network none ",
            1 => {
                let port = free_port();
                self.ports.insert(port);
                flags += &format!("-p {port}:80 ");
            }
            _ => {}
        }
        let script = match self.random.below(4) {
            0 => "exit 3",
            1 => "trap \"\" TERM; while :; do sleep 0.1; done",
            2 => "while :; do echo a line; sleep 0.01; done",
            _ => "sleep 1000",
        };
        format!("{flags} busybox sh -c '{script}'")
    }

    /// One thing that happens to a container, which may be in no state for it.
    fn act(&mut self, name: &str) {
        let line = match self.random.below(10) {
            0 => return self.kill_shim(name),
            1 => "docker stop -t 0 NAME",
            2 => "docker kill NAME",
            3 => "docker pause NAME",
            4 => "docker unpause NAME",
            5 => "docker restart -t 0 NAME",
            6 => "docker start NAME",
            7 => "docker exec NAME true",
            8 => "docker exec -d NAME sleep 1000",
            _ => "docker ps -a",
        };
        let line = line.replace("NAME", name);
        match self.random.below(5) {
            0 => self.killed_command(&line),
            _ => drop(self.rig.run(&line)),
        }
    }

    fn killed_command(&mut self, line: &str) {
        let running = self.rig.spawn(line);
        thread::sleep(Duration::from_millis(self.random.below(COMMAND_MS_MAX)));
        running.signal(Signal::KILL);
        running.finish();
    }

    fn kill_shim(&self, name: &str) {
        let lock =
            inspect_quietly(&self.rig, name).map(|id| self.rig.path("run/containers").join(id).join("lock"));
        let Some(lock) = lock else { return };
        for pid in pids().filter(|pid| is_shim(*pid) && has_open(*pid, &lock)) {
            println!("killed the shim {pid}");
            // It may have ended by itself.
            let _ = kill_process(Pid::from_raw(pid).expect("no zero"), Signal::KILL);
        }
    }

    /// Takes note of all that is there now.
    fn look(&mut self) {
        self.ids.extend(names(&self.rig.path("root/containers")).into_iter().filter(|name| name.len() == 64));
        for record in files_below(&fs::canonicalize(self.rig.path("run/networks")).expect("it is there")) {
            let text = fs::read_to_string(&record).unwrap_or_default();
            let path = record.display().to_string();
            if self.ids.iter().any(|id| text.contains(id) || path.contains(id)) {
                let words = text.split(|c: char| !c.is_ascii_alphanumeric());
                self.veths.extend(
                    words.filter(|word| word.starts_with("veth") && word.len() > 8).map(String::from),
                );
            }
        }
    }

    /// Mounts, processes, control groups, network devices, places on the network and rules.
    fn left_on_host(&self) -> Vec<String> {
        let folder = self.rig.path("").display().to_string();
        let mut left = Vec::new();
        for pid in pids().filter(|pid| *pid != std::process::id() as i32) {
            let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let mounts = String::from_utf8_lossy(&read("mountinfo")).into_owned();
            let cgroup = String::from_utf8_lossy(&read("cgroup")).into_owned();
            let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            let has_open =
                open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|path| path.starts_with(&folder));
            if mounts.contains(&folder) || has_open || self.ids.iter().any(|id| cgroup.contains(id)) {
                left.push(format!("process {pid}: {}", String::from_utf8_lossy(&read("cmdline"))));
            }
        }
        let groups = groups().into_iter().filter(|path| self.ids.iter().any(|id| path.ends_with(id)));
        left.extend(groups.map(|path| format!("control group {}", path.display())));
        let veths = self.veths.iter().filter(|name| Path::new("/sys/class/net").join(name).exists());
        left.extend(veths.map(|name| format!("device {name}")));
        for record in files_below(&fs::canonicalize(self.rig.path("run/networks")).expect("it is there")) {
            let text = format!("{} {}", record.display(), fs::read_to_string(&record).unwrap_or_default());
            if self.ids.iter().any(|id| text.contains(id)) {
                left.push(format!("place on a network {}", record.display()));
            }
        }
        if !self.ports.is_empty() && has_tool("nft") {
            let rules = self.rig.run("nft list ruleset").stdout;
            let words: BTreeSet<&str> = rules.split(|c: char| !c.is_ascii_digit()).collect();
            let ports = self.ports.iter().filter(|port| words.contains(port.to_string().as_str()));
            left.extend(ports.map(|port| format!("a rule for port {port}")));
        }
        left
    }

    fn left_in_store(&self) -> Vec<String> {
        let folders = ["root/containers", "root/volumes", "run/containers"];
        let mut left: Vec<String> = folders.iter().flat_map(|name| names(&self.rig.path(name))).collect();
        left.retain(|name| name != "lock");
        left
    }
}

fn inspect_quietly(rig: &Rig, name: &str) -> Option<String> {
    let found = rig.run(&format!("docker ps -aq --no-trunc --filter name=^{name}$"));
    found.stdout.lines().next().map(String::from)
}

fn pids() -> impl Iterator<Item = i32> {
    names(Path::new("/proc")).into_iter().filter_map(|name| name.parse().ok())
}

fn is_shim(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"dhow-shim"))
}

fn has_open(pid: i32, path: &Path) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|open| open == path)
}

fn groups() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let parents = names(root).into_iter().map(|name| root.join(name).join("dhow")).chain([root.join("dhow")]);
    parents.flat_map(|parent| names(&parent).into_iter().map(move |name| parent.join(name))).collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                true => folders.push(entry.path()),
                false => files.push(entry.path()),
            }
        }
    }
    files
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_shim_that_is_killed_is_told_of_and_takes_its_container_along() {
    let Some(rig) = Rig::start() else { return };
    // A program that changed its user has made the kernel forget whom to die with.
    rig.ok("docker run -d --name web -u 1000 busybox sleep 1000");
    let state = inspect(&rig, "web")["State"].clone();
    let pid = state["Pid"].as_i64().expect("a number") as i32;
    let id = inspect(&rig, "web")["Id"].as_str().expect("text").to_owned();
    let lock = rig.path("run/containers").join(id).join("lock");
    let shim = pids().find(|pid| is_shim(*pid) && has_open(*pid, &lock)).expect("it has a shim");
    kill_process(Pid::from_raw(shim).expect("no zero"), Signal::KILL).expect("it lives");
    rig.eventually("it is told", || inspect(&rig, "web")["State"]["Status"] == "exited");
    let state = inspect(&rig, "web")["State"].clone();
    assert_eq!((&state["ExitCode"], &state["Running"]), (&137.into(), &false.into()));
    let error = state["Error"].as_str().expect("text");
    assert!(error.contains("the process that looked after the container was killed"), "{error}");
    rig.eventually("its process is gone", || !Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(rig.ok("docker start web"), "web");
    assert_eq!(inspect(&rig, "web")["State"]["Error"], "");
}

#[test]
fn who_ignores_the_request_to_stop_is_killed_when_time_is_up() {
    let Some(rig) = Rig::start() else { return };
    rig.ok(
        "docker run -d --name deaf busybox sh -c 'trap \"\" TERM; echo ready; while :; do sleep 0.1; done'",
    );
    rig.eventually("it is ready", || rig.ok("docker logs deaf") == "ready");
    rig.ok("docker stop -t 1 deaf");
    assert_eq!(inspect(&rig, "deaf")["State"]["ExitCode"], 137);
    rig.ok("docker run -d --name patient --stop-timeout 1 --stop-signal USR1 busybox sleep 1000");
    rig.ok("docker stop patient");
    assert_eq!(
        inspect(&rig, "patient")["State"]["ExitCode"],
        137,
        "process 1 ignores what it has no handler for"
    );
}

#[test]
fn a_fork_bomb_stays_within_its_limit_and_can_be_removed() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker run -d --name bomb --pids-limit 64 busybox sh -c 'bomb() { bomb | bomb & }; bomb; sleep 1000'");
    rig.eventually("it is full", || {
        let pids = rig.ok("docker stats --no-stream --format '{{.PIDs}}' bomb");
        pids.parse::<u32>().is_ok_and(|pids| (32..=64).contains(&pids))
    });
    let id = inspect(&rig, "bomb")["Id"].as_str().expect("text").to_owned();
    rig.ok("docker rm -f bomb");
    rig.eventually("no group is left", || !groups().iter().any(|path| path.ends_with(&id)));
}

#[test]
fn a_flood_of_log_stays_within_its_files_and_can_be_followed_to_its_end() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q busybox");
    let options = "--log-opt max-size=100k --log-opt max-file=3";
    rig.ok(&format!("docker create --name flood {options} busybox sh -c 'seq 1 50000; echo the end'"));
    let follower = {
        rig.ok("docker start flood");
        rig.spawn("docker logs -f flood")
    };
    let followed = follower.finish();
    assert_eq!((followed.status, followed.stdout.lines().last()), (0, Some("the end")));
    let log = inspect(&rig, "flood")["LogPath"].as_str().expect("text").to_owned();
    let folder = Path::new(&log).parent().expect("a folder").to_owned();
    let logs: Vec<u64> = names(&folder)
        .iter()
        .filter(|name| name.contains("-json.log"))
        .map(|name| fs::metadata(folder.join(name)).expect("a file").len())
        .collect();
    assert!(logs.len() <= 3 && logs.iter().all(|bytes| *bytes <= 102_400), "{logs:?}");
    assert_eq!(rig.ok("docker logs --tail 2 flood"), "50000\nthe end");
}
