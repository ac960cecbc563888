//! Many dhow processes on one store, and processes that are killed at any moment.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::rig::{Rig, free_port};

const PROCESSES: u64 = 8;
const STORM: Duration = Duration::from_secs(15);
/// One command in so many is killed.
const KILLED_ONE_IN: u64 = 4;
/// A little longer than most commands take.
const LIFE_MS_MAX: u64 = 250;
/// How often a build and a pull are killed, at moments that are spread over the time they take.
const KILL_POINTS: u64 = 12;
/// Applications that are built, and containers that are run, under names that processes fight for.
const NAMES: u64 = 4;

/// Numbers that follow from a seed (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A new story every time; the seed is printed to tell it again.
    pub(crate) fn seeded() -> Self {
        let seed = std::env::var("DHOW_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
        println!("DHOW_TEST_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// What processes of a storm share.
struct Storm {
    rig: Rig,
    ports: Vec<u16>,
    /// All containers that were ever seen.
    containers: Mutex<BTreeSet<String>>,
}

#[test]
fn eight_processes_of_which_some_are_killed_leave_a_whole_store_and_a_clean_host() {
    let Some(rig) = Rig::start() else { return };
    let mut random = Random::seeded();
    for name in 0..NAMES {
        let dockerfile =
            format!("FROM alpine\nRUN echo {name} >/x && head -c 200000 /dev/zero >/y\nCOPY f /\n");
        rig.context(&format!("app{name}"), &[("Dockerfile", &dockerfile), ("f", "file\n")]);
    }
    let ports = (0..NAMES).map(|_| free_port()).collect();
    let storm = Storm { rig, ports, containers: Mutex::default() };
    let end = Instant::now() + STORM;
    thread::scope(|scope| {
        for _ in 0..PROCESSES {
            let (storm, mut random) = (&storm, Random(random.next()));
            scope.spawn(move || {
                while Instant::now() < end {
                    storm.one(&mut random);
                }
            });
        }
        while Instant::now() < end {
            storm.look();
            thread::sleep(Duration::from_millis(20));
            if random.below(20) == 0 {
                storm.kill_a_shim(&mut random);
            }
        }
    });
    storm.look();
    storm.rig.ok("docker system check");
    storm.everything_works();
    storm.nothing_is_left();
}

impl Storm {
    /// Runs one command, or begins to.
    fn one(&self, random: &mut Random) {
        let line = self.line(random);
        let running = self.rig.spawn(&line);
        if random.below(KILLED_ONE_IN) == 0 {
            thread::sleep(Duration::from_millis(random.below(LIFE_MS_MAX)));
            running.signal(Signal::KILL);
            running.finish();
            return;
        }
        let finished = running.finish();
        println!("`{line}` ended with {}: {}", finished.status, finished.stderr.trim_end());
        // A program whose shim was killed ends with it.
        let is_right = match finished.status {
            0 | 1 | 125 => true,
            137 => line.starts_with("docker run"),
            _ => false,
        };
        assert!(is_right, "`{line}` ended with {}", finished.status);
        // What is being committed may be removed meanwhile.
        let missing = if line.starts_with("docker commit") { "panicked" } else { "os error 2)" };
        for word in ["panicked", "malformed", "is locked", "I/O error", "not there", missing] {
            assert!(!finished.stderr.contains(word), "`{line}`: {}", finished.stderr);
        }
    }

    fn line(&self, random: &mut Random) -> String {
        let (name, image) =
            (random.below(NAMES), ["alpine", "busybox", "hello-world"][random.below(3) as usize]);
        let port = self.ports[name as usize];
        match random.below(16) {
            0 | 1 => format!("docker pull -q {image}"),
            2 | 3 => format!("docker build -q -t app{name} app{name}"),
            4 => format!("docker build -q --no-cache -t app{name} app{name}"),
            5 | 6 => "docker run --rm alpine cat /etc/hostname".to_owned(),
            7 => format!("docker run -d --name c{name} -p {port}:80 alpine sleep 100"),
            8 => format!("docker run -d --rm --name c{name} alpine sleep 1"),
            9 => format!("docker rm -f c{name}"),
            10 => format!("docker rmi {image}"),
            11 => format!("docker rmi -f app{name}"),
            12 => "docker image prune -f".to_owned(),
            13 => format!("docker commit c{name} app{name}"),
            14 => "docker ps -a".to_owned(),
            _ => "docker images -a".to_owned(),
        }
    }

    /// Remembers the containers there are.
    fn look(&self) {
        let found = names(&self.rig.path("root/containers"));
        self.containers.lock().expect("no process panics").extend(found);
    }

    fn kill_a_shim(&self, random: &mut Random) {
        let shims: Vec<i32> = self.processes().into_iter().filter(|pid| is_shim(*pid)).collect();
        if let Some(pid) = shims.get(random.below(shims.len().max(1) as u64) as usize) {
            // It may have ended by itself meanwhile.
            let _ = kill_process(Pid::from_raw(*pid).expect("not 0"), Signal::KILL);
        }
    }

    fn everything_works(&self) {
        let rig = &self.rig;
        rig.ok("docker pull -q alpine");
        for name in 0..NAMES {
            rig.ok(&format!("docker rm -f c{name}"));
            rig.ok(&format!("docker build -q -t app{name} app{name}"));
            assert_eq!(rig.ok(&format!("docker run --rm app{name} cat /x /f")), format!("{name}\nfile"));
            let port = self.ports[name as usize];
            rig.ok(&format!("docker run -d --name c{name} -p {port}:80 alpine sleep 100"));
        }
        rig.ok("docker images -a");
        rig.ok("docker system check");
    }

    /// Removes all and looks for what remains.
    fn nothing_is_left(&self) {
        let rig = &self.rig;
        let containers = rig.ok("docker ps -aq --no-trunc").replace('\n', " ");
        rig.ok(&format!("docker rm -f {containers}"));
        let images: BTreeSet<String> =
            rig.ok("docker images -aq --no-trunc").lines().map(str::to_owned).collect();
        rig.ok(&format!("docker rmi -f {}", images.into_iter().collect::<Vec<_>>().join(" ")));
        rig.ok("docker image prune -af");
        assert_eq!(rig.ok("docker ps -aq") + &rig.ok("docker images -aq"), "");
        for folder in ["root/leases", "root/containers", "run/containers"] {
            // Shims may still be tidying up.
            rig.eventually(&format!("{folder} is empty"), || {
                let mut left = names(&rig.path(folder));
                // The maker of one that has no name yet may be between two instructions: it goes after a minute.
                left.retain(|name| !name.starts_with(".new-"));
                left.iter().for_each(|name| println!("{name}: {:?}", names(&rig.path(folder).join(name))));
                left.is_empty()
            });
        }
        let active = names(&rig.path("root/snapshots")).into_iter().filter(|name| name.starts_with("active"));
        assert_eq!(active.collect::<Vec<_>>(), Vec::<String>::new(), "snapshots of containers or builds");
        rig.eventually("no process is left", || self.processes().is_empty());
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("our mounts");
        assert!(!mounts.contains(self.folder().as_str()), "mounts are left:\n{mounts}");
        for container in self.containers.lock().expect("no process panics").iter() {
            let control_groups = control_groups(container);
            assert!(control_groups.is_empty(), "control groups are left: {control_groups:?}");
            let endpoint = rig.path(&format!("run/networks/bridge/endpoints/{container}.json"));
            assert!(!endpoint.exists(), "{} is left", endpoint.display());
        }
        let rules = Command::new("nft").args(["list", "ruleset"]).output().expect("nft starts").stdout;
        let rules = String::from_utf8_lossy(&rules).into_owned();
        for port in &self.ports {
            assert!(!rules.contains(&format!(". {port} :")), "port {port} is still published:\n{rules}");
        }
        // Other tests make and remove theirs meanwhile.
        rig.eventually("no pair of interfaces is left", || orphaned_interfaces(rig).is_empty());
    }

    fn folder(&self) -> String {
        self.rig.path("").display().to_string()
    }

    /// The processes that were told to use this store, and those that live in a root below it.
    fn processes(&self) -> Vec<i32> {
        let folder = self.folder();
        let folder = folder.trim_end_matches('/');
        let own = std::process::id().to_string();
        let pids =
            names(Path::new("/proc")).into_iter().filter(|name| name.parse::<i32>().is_ok() && *name != own);
        let is_ours = |pid: &String| {
            let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            [read("environ"), read("mountinfo")]
                .iter()
                .any(|text| String::from_utf8_lossy(text).contains(folder))
        };
        pids.filter(is_ours).filter_map(|pid| pid.parse().ok()).collect()
    }
}

fn is_shim(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"dhow-shim"))
}

/// Interfaces on the bridge that belong to no container on record.
fn orphaned_interfaces(rig: &Rig) -> Vec<String> {
    let endpoints = rig.path("run/networks/bridge/endpoints");
    let recorded: Vec<String> = names(&endpoints)
        .iter()
        .map(|name| fs::read_to_string(endpoints.join(name)).unwrap_or_default())
        .collect();
    let mut interfaces = names(Path::new("/sys/class/net/dhow0/brif"));
    interfaces.retain(|name| !recorded.iter().any(|record| record.contains(name)));
    interfaces
}

/// The control groups whose name has `part` in it.
fn control_groups(part: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let parents = names(root).into_iter().map(|name| root.join(name).join("dhow")).chain([root.join("dhow")]);
    let found = parents.flat_map(|parent| names(&parent).into_iter().map(move |name| parent.join(name)));
    found.filter(|path| path.to_string_lossy().contains(part)).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Kills a line `KILL_POINTS` times, later and later; after each, `check` sees whether the next one does what it should.
fn kill_points(rig: &Rig, random: &mut Random, line: impl Fn(u64) -> String, check: impl Fn(u64)) {
    let whole = rig.run(&line(KILL_POINTS)).took;
    for point in 0..KILL_POINTS {
        let part = (point as f64 + random.below(1000) as f64 / 1000.0) / KILL_POINTS as f64;
        let life = whole.mul_f64(part);
        println!("killed after {life:?}");
        let running = rig.spawn(&line(point));
        thread::sleep(life);
        running.signal(Signal::KILL);
        running.finish();
        check(point);
    }
    rig.ok("docker system check");
    let active = names(&rig.path("root/snapshots")).into_iter().filter(|name| name.starts_with("active"));
    println!("left behind and swept by the next gc: {:?}", active.collect::<Vec<_>>());
}

#[test]
fn a_build_killed_at_any_moment_is_right_the_next_time() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q alpine");
    let build = |point| {
        let dockerfile =
            format!("FROM alpine\nRUN echo {point} >/x && head -c 1000000 /dev/zero >/y\nCOPY f /f\n");
        rig.context(&format!("app{point}"), &[("Dockerfile", &dockerfile), ("f", "file\n")]);
        format!("docker build -q -t app app{point}")
    };
    kill_points(&rig, &mut Random::seeded(), build, |point| {
        rig.ok(&build(point));
        let said = rig.ok("docker run --rm app sh -c 'cat /x /f; wc -c </y'");
        assert_eq!(said, format!("{point}\nfile\n1000000"));
    });
}

#[test]
fn a_pull_killed_at_any_moment_is_right_the_next_time() {
    let Some(rig) = Rig::start() else { return };
    let pull = |_| "docker pull -q alpine".to_owned();
    let id = {
        rig.ok(&pull(0));
        rig.ok("docker images -q --no-trunc alpine")
    };
    rig.ok("docker rmi alpine");
    kill_points(&rig, &mut Random::seeded(), pull, |_| {
        rig.ok(&pull(0));
        assert_eq!(rig.ok("docker images -q --no-trunc alpine"), id);
        assert_eq!(rig.ok("docker run --rm alpine echo works"), "works");
        rig.ok("docker rmi alpine");
    });
}

#[test]
fn a_run_killed_at_any_moment_leaves_a_container_that_can_be_removed() {
    let Some(rig) = Rig::start() else { return };
    rig.ok("docker pull -q alpine");
    let port = free_port();
    let run = |_| format!("docker run -d --name web -p {port}:80 alpine sleep 100");
    kill_points(&rig, &mut Random::seeded(), run, |_| {
        rig.ok("docker rm -f web");
        rig.ok(&run(0));
        rig.ok("docker rm -f web");
        assert_eq!(rig.ok("docker ps -aq"), "");
    });
}
