//! The other docker.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use super::{POLL, Rig, skip};

/// How often it is looked whether dockerd has stopped.
const STOP_POLLS_MAX: u32 = 400;

/// Debian's dockerd with everything it has in the rig. It ends when dropped.
pub(crate) struct Dockerd {
    child: Child,
    socket: PathBuf,
}

impl Dockerd {
    /// `None`, with the reason printed, where it is not installed.
    pub(crate) fn start(rig: &Rig) -> Option<Self> {
        if ["/usr/sbin/dockerd", "/usr/bin/docker"].iter().any(|path| !Path::new(path).exists()) {
            return skip("Debian's docker.io is not installed");
        }
        let folder = rig.path("dockerd");
        std::fs::create_dir(&folder).expect("a folder");
        let path = |name: &str| folder.join(name).display().to_string();
        let log = std::fs::File::create(folder.join("log")).expect("a log");
        // No network of its own: what it would do to the host's is not needed here.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "/usr/sbin/dockerd"])
            .arg(format!("--host=unix://{}", path("socket")))
            .arg(format!("--data-root={}", path("data")))
            .arg(format!("--exec-root={}", path("exec")))
            .arg(format!("--pidfile={}", path("pid")))
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"])
            .args(["--storage-driver=vfs"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("dockerd starts");
        let dockerd = Self { child, socket: folder.join("socket") };
        rig.eventually("dockerd answers", || rig.run(&dockerd.line("version")).status == 0);
        Some(dockerd)
    }

    /// A line for docker's own client.
    pub(crate) fn line(&self, line: &str) -> String {
        format!("/usr/bin/docker --host unix://{} {line}", self.socket.display())
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // It has to stop its containerd; the signal reaches it alone, and it may have ended by itself.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        for _ in 0..STOP_POLLS_MAX {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
