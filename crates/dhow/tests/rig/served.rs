//! `dhow registry serve`, and places to keep its registry in.

use std::fs;
use std::net::TcpStream;

use rustix::process::Signal;

use super::{Finished, Rig, Running, skip};

/// A server that listens. It ends when dropped, or with the test.
pub(crate) struct Served {
    running: Running,
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
}

impl Served {
    /// Starts one on a port of its own.
    #[track_caller]
    pub(crate) fn start(rig: &Rig, flags: &str) -> Self {
        Self::listen(rig, "127.0.0.1:0", flags)
    }

    /// Starts one there.
    #[track_caller]
    pub(crate) fn listen(rig: &Rig, address: &str, flags: &str) -> Self {
        let mut running = rig.spawn(&format!("dhow registry serve --listen {address} {flags}"));
        running.wait_for("listening on ");
        let said = running.said();
        let line = said.lines().find_map(|line| line.strip_prefix("listening on "));
        Self { address: line.expect("a line is said in one piece").to_owned(), running }
    }

    /// Kills it as a power cut would.
    pub(crate) fn kill(self) {
        self.running.signal(Signal::KILL);
        self.running.finish();
    }

    /// Asks it to stop.
    pub(crate) fn stop(&mut self) {
        self.running.signal(Signal::TERM);
        self.running.wait_for("stopping");
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn finish(self) -> Finished {
        self.running.finish()
    }

    /// What it said so far.
    pub(crate) fn said(&self) -> String {
        self.running.said()
    }

    /// The most memory it ever had, in bytes.
    pub(crate) fn memory_bytes_max(&self) -> u64 {
        let pid = self.running.pid().as_raw_nonzero();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel counts");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }
}

/// Where a registry may be kept: flags for [`Served::start`], by the name of the kind. Buckets are left out, with the reason
/// printed, where there is no store for them.
pub(crate) fn places(rig: &Rig) -> Vec<(&'static str, String)> {
    let folder = rig.path("registry");
    let mut places = vec![("folder", format!("--folder {}", folder.display()))];
    match std::env::var("DHOW_TEST_S3") {
        Ok(endpoint) => places.push(("bucket", format!("--config {}", bucket(rig, &endpoint)))),
        Err(_) => {
            let _: Option<()> = skip("its second half: there is no store for buckets");
        }
    }
    places
}

/// Makes a bucket of this rig's own, and a configuration for it.
fn bucket(rig: &Rig, endpoint: &str) -> String {
    let host = endpoint.trim_start_matches("http://");
    assert!(TcpStream::connect(host).is_ok(), "DHOW_TEST_S3 is {endpoint}, and nobody is there");
    let name = format!(
        "rig-{}",
        rig.path("").file_name().expect("a name").to_string_lossy().to_lowercase().replace('.', "-")
    );
    rig.ok(&format!("curl --silent --show-error --fail -X PUT {endpoint}/{name}"));
    let config = rig.path("bucket.toml");
    let text = format!(
        "[bucket]\nbucket = \"{name}\"\nendpoint = \"{endpoint}\"\nregion = \"us-east-1\"\n\
         access-key-id = \"test\"\nsecret-access-key = \"test\"\n"
    );
    fs::write(&config, text).expect("a configuration");
    config.display().to_string()
}
