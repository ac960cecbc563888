//! Caches in both directions between dhow and BuildKit: the one in Debian's `dockerd`, where that is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::rig::Rig;

/// Every kind of step whose digests dhow knows; `--chmod` and wildcards are hashed in ways of their own.
const DOCKERFILE: &str = "FROM busybox AS builder
ARG VERSION=1
ENV A=\"x <y> & z\" B=2
WORKDIR /src
COPY sub /src/sub
RUN cat /src/sub/one > /out && echo \"a && b\" >> /out
FROM busybox
COPY --from=builder /out /bin/
COPY one.txt two.txt /data/
COPY *.txt /glob/
USER 1000:1000
WORKDIR /work
COPY --chown=7:8 one.txt .
RUN echo hi > /tmp/hi
";

/// Steps of the Dockerfile that have a result of their own, those of the first stage first.
const STEPS: [usize; 2] = [3, 6];

/// A `dockerd` of a test's own. It ends with the value.
struct Dockerd {
    child: Child,
    docker: PathBuf,
    socket: PathBuf,
}

impl Dockerd {
    fn start(rig: &Rig) -> Option<Dockerd> {
        let Some(dockerd) =
            ["/usr/sbin/dockerd", "/usr/bin/dockerd"].map(Path::new).into_iter().find(|path| path.exists())
        else {
            println!("skipped: BuildKit is not installed (Debian's docker.io)");
            return None;
        };
        // Beside the daemon is the client that speaks its language; another on the path may not.
        let docker = PathBuf::from("/usr/bin/docker");
        let folder = rig.path("dockerd");
        fs::create_dir(&folder).expect("a folder for dockerd");
        let config = folder.join("daemon.json");
        let registry = rig.registry();
        let text =
            format!(r#"{{"insecure-registries":["{registry}"],"registry-mirrors":["http://{registry}"]}}"#);
        fs::write(&config, text).expect("a configuration");
        let socket = folder.join("docker.sock");
        let log = fs::File::create(folder.join("log")).expect("a log");
        let child = Command::new(dockerd)
            .arg("--config-file")
            .arg(&config)
            .arg("--host")
            .arg(format!("unix://{}", socket.display()))
            .arg("--data-root")
            .arg(folder.join("data"))
            .arg("--exec-root")
            .arg(folder.join("exec"))
            .arg("--pidfile")
            .arg(folder.join("pid"))
            .args(["--bridge", "none", "--iptables=false"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("dockerd starts");
        let dockerd = Dockerd { child, docker, socket };
        rig.eventually("dockerd answers", || dockerd.run(Path::new("/"), &["version"]).status.success());
        Some(dockerd)
    }

    fn run(&self, folder: &Path, arguments: &[&str]) -> Output {
        let output = Command::new(&self.docker)
            .arg("--host")
            .arg(format!("unix://{}", self.socket.display()))
            .args(arguments)
            .current_dir(folder)
            .env("DOCKER_BUILDKIT", "1")
            .output();
        output.expect("docker starts")
    }

    #[track_caller]
    fn ok(&self, folder: &Path, arguments: &[&str]) -> String {
        let output = self.run(folder, arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("$ docker {}\n{told}", arguments.join(" "));
        assert!(output.status.success(), "docker {arguments:?} failed");
        told
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

#[test]
fn dhow_and_buildkit_take_each_others_steps() {
    let Some(rig) = Rig::start() else { return };
    let Some(dockerd) = Dockerd::start(&rig) else { return };
    let files = [
        ("Dockerfile", DOCKERFILE),
        ("one.txt", "1\n"),
        ("two.txt", "2\n"),
        ("sub/one", "s1\n"),
        ("sub/deep/two", "s2\n"),
    ];
    let shell = rig.context("app", &files);

    // From BuildKit to dhow. Within an image are only its own layers.
    let image = format!("{}/peer/buildkit:1", rig.registry());
    let inline = ["build", "--network=host", "--build-arg", "BUILDKIT_INLINE_CACHE=1", "--tag", &image, "."];
    dockerd.ok(shell.folder(), &inline);
    dockerd.ok(shell.folder(), &["push", &image]);
    let told =
        shell.run(&format!("dhow build --network=host --progress=plain --cache-from {image} -t app ."));
    assert_eq!(told.status, 0);
    let hits = told.both().matches("CACHED from").count();
    assert_eq!(hits, STEPS[1], "{}", told.both());

    // From dhow to BuildKit, whose version takes an index only.
    let cache = format!("{}/peer/dhow:1", rig.registry());
    let to = format!("--cache-to type=registry,ref={cache},mode=max,image-manifest=false");
    shell.ok(&format!("dhow build --network=host --no-cache {to} -t app ."));
    dockerd.ok(shell.folder(), &["builder", "prune", "--all", "--force"]);
    let progress = ["build", "--network=host", "--progress=plain", "--cache-from", &cache, "."];
    let told = dockerd.ok(shell.folder(), &progress);
    let hits = told.lines().filter(|line| line.ends_with("CACHED")).count();
    assert_eq!(hits, STEPS.iter().sum::<usize>(), "{told}");
}
