//! A store with one image, and what is on this host because of it.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dhow_container::{Container, Containers, CreateRequest, RemoveOptions, default_network};
use dhow_image::Images;
use dhow_oci::{ContainerConfig, ImageConfig, Platform};
use dhow_runtime::{AttachEnd, AttachStreams};
use dhow_snapshot::{OverlaySnapshotter, Snapshotter as _};
use dhow_store::Store;

pub(crate) const BUSYBOX: &str = "/bin/busybox";
/// How long something that happens at once may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn is_possible() -> bool {
    let is_root =
        fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0);
    is_root && Path::new(BUSYBOX).exists()
}

/// A store in a folder of its own.
pub(crate) struct World {
    pub containers: Containers,
    images: Images,
    dir: tempfile::TempDir,
}

/// What a container takes on a host.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Traces {
    mounts: usize,
    devices: usize,
    cgroups: usize,
    folders: Vec<String>,
    endpoints: usize,
}

impl Traces {
    /// What is outside the store: mounts and places on the network.
    pub(crate) fn host(&self) -> [usize; 2] {
        [self.mounts, self.endpoints]
    }
}

impl World {
    pub(crate) fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let store = Store::open(&root).unwrap();
        let snapshots = OverlaySnapshotter::open(&root.join("snapshots")).unwrap();
        let images = Images::new(store, Arc::new(snapshots));
        make_image(&images);
        let containers = Containers::new(images.clone(), &dir.path().join("run"), jiff::Timestamp::now);
        World { containers, images, dir }
    }

    /// A container that runs a shell script.
    pub(crate) fn request(&self, name: &str, script: &str) -> CreateRequest {
        CreateRequest {
            image: "busybox".into(),
            name: Some(name.into()),
            command: vec!["sh".into(), "-c".into(), script.into()],
            ..CreateRequest::default()
        }
    }

    /// Makes and starts it.
    pub(crate) fn start(&self, name: &str, script: &str) {
        self.containers.create(&self.request(name, script)).unwrap();
        self.containers.start(name).unwrap();
    }

    /// Makes it, runs it to its end, and returns its exit code and what it wrote.
    pub(crate) fn run(&self, request: &CreateRequest) -> (i32, String) {
        let created = self.containers.create(request).unwrap();
        let attached =
            self.containers.start_attached(&created.id, None).unwrap().expect("it does not run yet");
        let streams =
            AttachStreams { stdin: None, resized: None, terminal: false, detach_keys: &[], signals: None };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let run_dir = self.containers.run_dir(&created.id);
        match attached.pump(&run_dir, streams, &mut stdout, &mut stderr).unwrap() {
            AttachEnd::Exited(status) => {
                self.containers.wait_until_released(&created.id).unwrap();
                (status.exit_code, String::from_utf8([stdout, stderr].concat()).unwrap())
            }
            end => panic!("the container did not end: {end:?}"),
        }
    }

    pub(crate) fn find(&self, name: &str) -> Container {
        self.containers.find(name).unwrap()
    }

    /// Docker's word for how a container is doing.
    pub(crate) fn word(&self, name: &str) -> &'static str {
        self.find(name).state.word()
    }

    pub(crate) fn remove(&self, name: &str) {
        self.containers.remove(name, RemoveOptions { force: true, volumes: true }).unwrap();
    }

    /// Removes the record and nothing else, as a removal that is killed at its first step.
    pub(crate) fn forget(&self, id: &str) {
        self.images.store().records("container").remove(id).unwrap();
    }

    /// The whole log.
    pub(crate) fn log(&self, name: &str) -> String {
        let mut text = String::new();
        let mut each = |line: dhow_container::LogLine| {
            text += &line.text;
            std::ops::ControlFlow::Continue(())
        };
        self.containers.logs(name, &Default::default(), &mut each).unwrap();
        text
    }

    /// The shim of a container: whoever holds its lock.
    pub(crate) fn shim(&self, name: &str) -> i32 {
        let lock = fs::canonicalize(self.containers.run_dir(&self.find(name).id).lock()).unwrap();
        let has_it_open = |pid: &i32| {
            let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
            fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == lock))
        };
        let pids = fs::read_dir("/proc").unwrap().flatten();
        let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.find(has_it_open).expect("a running container has a shim")
    }

    pub(crate) fn traces(&self) -> Traces {
        let count = |path: &Path| fs::read_dir(path).map_or(0, Iterator::count);
        let root = self.images.store().root();
        let mut folders = Vec::new();
        for folder in [
            root.join("containers"),
            root.join("snapshots"),
            root.join("volumes"),
            self.dir.path().join("run/containers"),
        ] {
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            folders.extend(entries.map(|entry| entry.path().display().to_string()));
        }
        folders.sort();
        Traces {
            mounts: fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(),
            devices: fs::read_to_string("/proc/net/dev").unwrap().lines().count(),
            cgroups: self
                .containers
                .list()
                .unwrap()
                .iter()
                .filter(|container| has_cgroup(&container.id))
                .count(),
            folders,
            endpoints: count(&default_network(&self.dir.path().join("run")).run_dir.join("bridge/endpoints")),
        }
    }
}

/// Whether any control group is left of a container.
pub(crate) fn has_cgroup(id: &str) -> bool {
    let group = dhow_sys::cgroup::Cgroup::new(&format!("/dhow/{id}")).unwrap();
    group.directories().iter().any(|(_, directory)| directory.exists())
}

/// Waits for something that happens soon.
#[track_caller]
pub(crate) fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// busybox with its applets, a file at `/data` that is a volume, and a port.
fn make_image(images: &Images) {
    let lease = images.store().lease("test").unwrap();
    let key = "busybox".parse().unwrap();
    let prepared = images.snapshots().prepare_layer(&key).unwrap();
    let bin = prepared.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy(BUSYBOX, bin.join("busybox")).unwrap();
    for applet in ["sh", "cat", "echo", "sleep", "true", "hostname", "httpd", "ls", "rm", "nc"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
    }
    fs::create_dir(prepared.path().join("data")).unwrap();
    fs::write(prepared.path().join("data/seed"), "from the image\n").unwrap();
    let layer = images.freeze(&key, &lease).unwrap().expect("there are files");
    drop(prepared);
    let mut image = ImageConfig::scratch(&Platform::host());
    image.rootfs.diff_ids.push(layer.diff_id);
    image.config = ContainerConfig {
        cmd: Some(vec!["sh".into()]),
        env: vec!["PATH=/bin".into()],
        volumes: [("/data".to_string(), Default::default())].into(),
        exposed_ports: [("80/tcp".to_string(), Default::default())].into(),
        ..ContainerConfig::default()
    };
    images.create(&image, &["busybox:latest".parse().unwrap()], &lease, 0).unwrap();
}
