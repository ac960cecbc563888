//! An image with busybox in it, and containers made of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use dhow_runtime::{
    Bundle, ContainerSpec, ExitStatus, InMemory, LogFile, OnceRequest, OutputStream, RestartPolicy,
    RootMount, RunDir, RuntimeChoice, RuntimeState, ShimRequest, StartError, StdinMode, launch_once, state,
};
use tempfile::TempDir;

/// Debian's busybox-static.
pub(crate) const BUSYBOX: &str = "/bin/busybox";

pub(crate) fn is_possible() -> bool {
    let root = fs::metadata("/proc/self").is_ok_and(|_| rustix::process::geteuid().is_root());
    // A dynamic program asks for its loader in a header, within the first page.
    let is_static = || {
        let bytes = fs::read(BUSYBOX).unwrap_or_default();
        !bytes.iter().take(4096).copied().collect::<Vec<u8>>().windows(9).any(|window| window == b"/ld-linux")
    };
    root && Path::new(BUSYBOX).exists() && is_static()
}

/// One container's folders, removed when dropped.
pub(crate) struct World {
    dir: TempDir,
    pub(crate) id: String,
    pub(crate) spec: ContainerSpec,
    pub(crate) memory: InMemory,
}

/// What a program wrote and how it ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: ExitStatus,
}

impl World {
    /// A container that runs `script` in busybox's shell.
    pub(crate) fn shell(script: &str) -> World {
        World::new(&["sh", "-c", script])
    }

    pub(crate) fn new(args: &[&str]) -> World {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().file_name().unwrap().to_str().unwrap().trim_start_matches(".tmp");
        let id = format!("test-{name}");
        let spec = ContainerSpec {
            id: id.clone(),
            args: args.iter().map(|arg| arg.to_string()).collect(),
            hostname: "box".into(),
            ..ContainerSpec::default()
        };
        let world = World { dir, id, spec, memory: InMemory::default() };
        world.image();
        fs::create_dir(world.path("run")).unwrap();
        world
    }

    fn image(&self) {
        let lower = self.path("lower");
        for folder in ["bin", "etc", "home/bob", "tmp"] {
            fs::create_dir_all(lower.join(folder)).unwrap();
        }
        for folder in ["upper", "work", "bundle"] {
            fs::create_dir_all(self.path(folder)).unwrap();
        }
        fs::copy(BUSYBOX, lower.join("bin/busybox")).unwrap();
        let applets = Command::new(BUSYBOX).arg("--list").output().unwrap();
        for applet in String::from_utf8(applets.stdout).unwrap().lines().filter(|applet| *applet != "busybox")
        {
            symlink("busybox", lower.join("bin").join(applet)).unwrap();
        }
        fs::write(lower.join("etc/passwd"), "root:x:0:0::/root:\nbob:x:1000:1000::/home/bob:\n").unwrap();
        fs::write(lower.join("etc/group"), "root:x:0:\nbob:x:1000:\nstaff:x:50:bob\n").unwrap();
        fs::write(lower.join("etc/secret"), "").unwrap();
        fs::set_permissions(lower.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut ContainerSpec)) -> World {
        change(&mut self.spec);
        self
    }

    pub(crate) fn bundle(&self) -> Bundle {
        Bundle::new(self.path("bundle"))
    }

    pub(crate) fn run_dir(&self) -> RunDir {
        RunDir::new(self.path("run"))
    }

    pub(crate) fn root(&self) -> RootMount {
        let (upper, work) = (self.path("upper"), self.path("work"));
        RootMount::Overlay { lowers: vec![self.path("lower")], upper, work }
    }

    fn write_config(&self) {
        self.spec.to_spec().unwrap().save(self.bundle().config()).unwrap();
    }

    /// Runs it to its end.
    pub(crate) fn once(&self) -> Result<Outcome, StartError> {
        self.write_config();
        let request = OnceRequest {
            id: self.id.clone(),
            bundle: self.path("bundle"),
            root: self.root(),
            network: None,
            memory: self.memory.clone(),
            interactive: None,
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let status = launch_once(&request, None, &mut |stream, data| match stream {
            OutputStream::Stdout => stdout.extend_from_slice(data),
            OutputStream::Stderr => stderr.extend_from_slice(data),
        })?;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ok(Outcome { stdout: text(stdout), stderr: text(stderr), status })
    }

    /// Runs it to its end and gives what it wrote to standard output.
    #[track_caller]
    pub(crate) fn output(&self) -> String {
        let outcome = self.once().unwrap();
        assert_eq!((outcome.status.exit_code, outcome.stderr.as_str()), (0, ""), "{}", outcome.stdout);
        outcome.stdout
    }

    /// A request to a shim.
    pub(crate) fn request(&self) -> ShimRequest {
        self.write_config();
        ShimRequest {
            id: self.id.clone(),
            bundle: self.path("bundle"),
            run_dir: self.path("run"),
            root: self.root(),
            runtime: RuntimeChoice::Native,
            stdin: StdinMode::Closed,
            window: None,
            log: Some(LogFile {
                path: self.path("log"),
                bytes_max: None,
                files_max: 1,
                attributes: Default::default(),
            }),
            network: None,
            restart: RestartPolicy::No,
            health: None,
            on_exit: None,
        }
    }

    pub(crate) fn state(&self) -> RuntimeState {
        state(&self.run_dir(), &self.bundle()).unwrap()
    }

    /// What was logged, without time and escapes.
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(self.path("log")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| line["log"].as_str().unwrap().to_string()).collect()
    }

    /// The directories of the container's cgroup that exist.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let find =
            Command::new("find").args(["/sys/fs/cgroup", "-maxdepth", "3", "-name", &self.id]).output();
        String::from_utf8(find.unwrap().stdout).unwrap().lines().map(PathBuf::from).collect()
    }
}

/// Waits for something to become true.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    for _ in 0..500 {
        if is_true() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("not within five seconds: {what}");
}
