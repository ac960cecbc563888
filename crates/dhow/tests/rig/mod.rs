//! What every test stands on: the built binary with a store, a configuration and a home of its own.
//!
//! A test writes command lines as the tutorials print them. `docker` and `dhow` are both symlinks to the binary under test,
//! so `docker build .` shows that nothing depends on the name. Everything that is run is printed, with what it said, and so
//! is there to be read when a test fails.
//!
//! The network alone is shared: a host has one `dhow0`, and whoever hands out addresses on it must know of all others. Each
//! run-time folder therefore links to the host's own folder of networks.

mod api;
mod dockerd;
mod holdings;
mod normal;
mod peer;
mod process;
mod served;
mod tar;
mod terminal;
mod words;

use std::env;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) use api::Api;
pub(crate) use dhow_sim::{Answer, Asked, Double, Image, manifest};
pub(crate) use dockerd::Dockerd;
pub(crate) use normal::Normal;
pub(crate) use peer::{PASSWORD, ProtectedRegistry, USER};
pub(crate) use process::{Finished, Running};
pub(crate) use served::{Served, places};
pub(crate) use tar::Tar;
pub(crate) use terminal::{CTRL_C, Terminal};
use words::words;

/// The records of the host's networks, for all tests and for a dhow in daily use beside them.
const HOST_NETWORKS: &str = "/run/dhow/networks";
/// Begins the names of the folders of tests; the number of the test's process comes next.
const FOLDER_PREFIX: &str = "test-";
/// How long a server in a container may take until it answers.
const ANSWER_SECONDS_MAX: u64 = 30;
const POLL: Duration = Duration::from_millis(50);
/// How often the removal of a test's folder is tried.
const REMOVALS_MAX: usize = 20;

/// A store, a configuration and a home for one test. Dropping it removes its containers and then itself.
pub(crate) struct Rig {
    folder: TempDir,
    registry: String,
    /// Who runs lines, if not root.
    user: Option<u32>,
}

impl Rig {
    /// A fresh one with an empty store, where `docker.io` is the registry of test images; or, with the reason printed, none.
    pub(crate) fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return skip("containers need root");
        }
        let (Ok(registry), Ok(search)) = (env::var("DHOW_TEST_REGISTRY"), env::var("DHOW_TEST_SEARCH"))
        else {
            return skip("no test images: run `cargo xtask registry -- cargo nextest run -p dhow`");
        };
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        remove_abandoned(parent);
        let prefix = format!("{FOLDER_PREFIX}{}-", std::process::id());
        let folder =
            tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).expect("a folder for the test");
        let rig = Self { folder, registry, user: None };
        for name in ["bin", "docker", "home", "run", "work"] {
            fs::create_dir(rig.path(name)).expect("a folder of the rig");
        }
        for name in ["dhow", "docker"] {
            symlink(env!("CARGO_BIN_EXE_dhow"), rig.path("bin").join(name)).expect("a name for the binary");
        }
        fs::create_dir_all(HOST_NETWORKS).expect("the host's folder of networks");
        symlink(HOST_NETWORKS, rig.path("run/networks")).expect("a link to the host's networks");
        rig.configure(&rig.registry, &search);
        Some(rig)
    }

    /// The same for an ordinary user, who runs all lines and owns all files.
    pub(crate) fn start_for(user: u32) -> Option<Self> {
        let mut rig = Self::start()?;
        rig.user = Some(user);
        fs::remove_file(rig.path("run/networks")).expect("the link to root's networks");
        let mut folders = vec![rig.folder.path().to_owned()];
        folders.extend(["bin", "docker", "home", "run", "work"].map(|name| rig.path(name)));
        for folder in folders {
            std::os::unix::fs::chown(folder, Some(user), Some(user)).expect("root may give folders away");
        }
        if rig.run("dhow --version").status != 0 {
            return skip("the binary lies where only root can reach it");
        }
        Some(rig)
    }

    /// Makes `registry` stand in for docker.io from now on, and `search` for its search.
    pub(crate) fn configure(&self, registry: &str, search: &str) {
        let text = format!(
            "[registry.\"docker.io\"]\nlocation = \"http://{registry}\"\nsearch = \"http://{search}\"\n"
        );
        fs::write(self.path("config.toml"), text).expect("a configuration");
    }

    /// `127.0.0.1:PORT` of the registry of test images.
    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }

    /// A folder or file of the rig: `root` is the store, `work` where commands run.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a line and returns what it printed as its result, without the end of the last line. Failing fails the test.
    #[track_caller]
    pub(crate) fn ok(&self, line: &str) -> String {
        self.at("").ok(line)
    }

    /// Runs a line that has to end with `status` and returns what it complained about.
    #[track_caller]
    pub(crate) fn fails(&self, line: &str, status: i32) -> String {
        self.at("").fails(line, status)
    }

    /// Runs a line, however it ends.
    #[track_caller]
    pub(crate) fn run(&self, line: &str) -> Finished {
        self.at("").run(line)
    }

    /// Starts a line and lets it run.
    #[track_caller]
    pub(crate) fn spawn(&self, line: &str) -> Running {
        self.at("").spawn(line)
    }

    /// Starts a line on a terminal.
    #[track_caller]
    pub(crate) fn terminal(&self, line: &str) -> Terminal {
        Terminal::start(self.at("").command(line), line)
    }

    /// Where to run lines in a folder below `work`.
    pub(crate) fn at(&self, folder: &str) -> Shell<'_> {
        Shell { rig: self, folder: self.path("work").join(folder) }
    }

    /// A copy of one of the tutorials' applications, to be built and edited.
    pub(crate) fn fixture(&self, name: &str) -> Shell<'_> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name);
        let shell = self.at(name);
        let copied = Command::new("cp").arg("--recursive").args([&source, &shell.folder]).status();
        assert!(copied.expect("cp starts").success(), "cannot copy {}", source.display());
        shell
    }

    /// A folder with these files, to be built.
    pub(crate) fn context(&self, name: &str, files: &[(&str, &str)]) -> Shell<'_> {
        let shell = self.at(name);
        for (path, text) in files {
            shell.write(path, text);
        }
        shell
    }

    /// Asks a server until it answers, and returns the page.
    #[track_caller]
    pub(crate) fn page(&self, url: &str) -> String {
        let end = Instant::now() + Duration::from_secs(ANSWER_SECONDS_MAX);
        loop {
            let curl = Command::new("curl")
                .args(["--silent", "--show-error", "--fail", "--max-time", "10", url])
                .output();
            let curl = curl.expect("curl starts");
            if curl.status.success() {
                println!("{url} answered");
                return String::from_utf8(curl.stdout).expect("a page is text");
            }
            let complaint = String::from_utf8_lossy(&curl.stderr);
            assert!(Instant::now() < end, "{url} does not answer: {complaint}");
            thread::sleep(POLL);
        }
    }

    /// Asks `is_true` until it is.
    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, mut is_true: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(ANSWER_SECONDS_MAX);
        while !is_true() {
            assert!(Instant::now() < end, "{what}: not within {ANSWER_SECONDS_MAX} seconds");
            thread::sleep(POLL);
        }
    }
}

/// Lines run in one folder of a rig.
pub(crate) struct Shell<'a> {
    rig: &'a Rig,
    folder: PathBuf,
}

impl Shell<'_> {
    /// As [`Rig::ok`].
    #[track_caller]
    pub(crate) fn ok(&self, line: &str) -> String {
        let finished = self.run(line);
        assert!(finished.status == 0, "`{line}` ended with {}\n{}", finished.status, finished.both());
        finished.stdout.trim_end().to_owned()
    }

    /// As [`Rig::fails`].
    #[track_caller]
    pub(crate) fn fails(&self, line: &str, status: i32) -> String {
        let finished = self.run(line);
        assert!(
            finished.status == status,
            "`{line}` ended with {}, not {status}\n{}",
            finished.status,
            finished.both()
        );
        finished.stderr
    }

    /// As [`Rig::run`].
    #[track_caller]
    pub(crate) fn run(&self, line: &str) -> Finished {
        let finished = self.spawn(line).finish();
        print!("{}", finished.both());
        finished
    }

    /// As [`Rig::spawn`].
    #[track_caller]
    pub(crate) fn spawn(&self, line: &str) -> Running {
        println!("$ {line}");
        Running::start(self.command(line), line)
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a file, with the folders above it.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.folder.join(path);
        fs::create_dir_all(path.parent().expect("it is below the folder")).expect("a folder");
        fs::write(&path, text).expect("a file");
    }

    /// Replaces the only occurrence of `old` in a file.
    #[track_caller]
    pub(crate) fn edit(&self, path: &str, old: &str, new: &str) {
        let text = fs::read_to_string(self.folder.join(path)).expect("a file");
        assert!(text.matches(old).count() == 1, "{path} should have `{old}` once");
        self.write(path, &text.replace(old, new));
    }

    /// A line's program and arguments, in this folder and with nothing of this process's environment but the path.
    pub(crate) fn command(&self, line: &str) -> Command {
        let words = words(line);
        let bin = self.rig.path("bin");
        let own = bin.join(&words[0]);
        let program = if own.exists() { own } else { PathBuf::from(&words[0]) };
        let mut command = match self.rig.user {
            None => Command::new(program),
            Some(user) => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", &user.to_string(), "--regid", &user.to_string(), "--clear-groups"]);
                command.arg(program);
                command
            }
        };
        let path = env::var("PATH").unwrap_or_default();
        command.args(&words[1..]).current_dir(&self.folder).stdin(Stdio::null()).env_clear();
        command.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", bin.display()));
        command.env("TERM", "xterm").env("LANG", "C.UTF-8");
        command.env("HOME", self.rig.path("home")).env("DOCKER_CONFIG", self.rig.path("docker"));
        command.env("DHOW_ROOT", self.rig.path("root")).env("DHOW_RUN", self.rig.path("run"));
        command.env("DHOW_CONFIG", self.rig.path("config.toml"));
        command
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        remove_containers(self.folder.path());
        // A shim tidies up after its container when its command has long returned; what it removes meanwhile cannot be
        // removed by us, so look again. What still stays goes with the next test.
        for _ in 0..REMOVALS_MAX {
            match fs::remove_dir_all(self.folder.path()) {
                Ok(()) => break,
                Err(_) => thread::sleep(POLL),
            }
        }
    }
}

/// A port of the host that nobody uses now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").expect("there is a free port");
    listener.local_addr().expect("it has an address").port()
}

/// The address of this host that others reach it by.
pub(crate) fn host_address() -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // Nothing is sent: this only asks for a route.
    socket.connect("192.0.2.1:9").expect("a route out of this host");
    socket.local_addr().expect("the end of the route").ip().to_string()
}

/// Whether `program` is here, with the reason printed if the test is to be skipped without it.
pub(crate) fn has_tool(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let is_here = env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !is_here {
        let _: Option<()> = skip(&format!("{program} is not installed"));
    }
    is_here
}

/// Prints why a test is skipped.
pub(crate) fn skip<T>(reason: &str) -> Option<T> {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    // Past the test runner's capture: a skip must be seen although the test passes.
    let _ = fs::write("/dev/stderr", format!("skipped {test}: {reason}\n"));
    None
}

/// Removes what tests left behind that were killed.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(FOLDER_PREFIX).and_then(|name| name.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            remove_containers(&entry.path());
            // Another test may be doing the same.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes the containers and networks of the rig in `folder`. A test that passed does not fail for what cannot be removed.
fn remove_containers(folder: &Path) {
    let dhow = |args: &[&str]| {
        let mut command = Command::new(folder.join("bin/dhow"));
        command.args(args).env("DHOW_ROOT", folder.join("root")).env("DHOW_RUN", folder.join("run"));
        command.env("DHOW_CONFIG", folder.join("config.toml")).stdin(Stdio::null()).output()
    };
    let Ok(listed) = dhow(&["ps", "--all", "--quiet", "--no-trunc"]) else { return };
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let ids: Vec<&str> = listed.lines().collect();
    if !ids.is_empty() {
        let _ = dhow(&[&["rm", "--force"], &ids[..]].concat());
    }
    let _ = dhow(&["network", "prune", "--force"]);
}
