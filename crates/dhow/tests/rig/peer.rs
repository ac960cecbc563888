//! A registry that wants a password.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{Rig, free_port, has_tool};

/// Who may use the protected registry.
pub(crate) const USER: &str = "moby";
/// With what password.
pub(crate) const PASSWORD: &str = "whale oil";
/// [`PASSWORD`] in bcrypt, which is all `docker-registry` reads.
const PASSWORD_LINE: &str = "moby:$2b$05$7Ym1hZ7JxqWv0Qn2bL3eKuvOm/4XG929cFIXiZ.Fx0bQq/aClCanO\n";
const START_SECONDS_MAX: u64 = 20;

/// An empty `docker-registry` that knows [`USER`]. It ends when dropped, or with the test.
pub(crate) struct ProtectedRegistry {
    child: Child,
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
}

impl ProtectedRegistry {
    /// Keeps its data in the rig; or, with the reason printed, none.
    pub(crate) fn start(rig: &Rig) -> Option<Self> {
        if !has_tool("docker-registry") {
            return None;
        }
        let folder = rig.path("protected-registry");
        fs::create_dir(&folder).expect("a folder for the registry");
        let address = format!("127.0.0.1:{}", free_port());
        let passwords = folder.join("passwords");
        fs::write(&passwords, PASSWORD_LINE).expect("a password file");
        let config = folder.join("config.yml");
        fs::write(&config, configuration(&address, &folder.join("data"), &passwords))
            .expect("a configuration");
        let log = File::create(folder.join("log")).expect("a log");
        // The registry must not outlive us, however we end.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "docker-registry", "serve"]).arg(&config);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let registry = Self { child: command.spawn().expect("docker-registry starts"), address };
        registry.wait(&folder.join("log"));
        Some(registry)
    }

    fn wait(&self, log: &Path) {
        let end = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while TcpStream::connect(&self.address).is_err() {
            assert!(Instant::now() < end, "docker-registry: {}", fs::read_to_string(log).unwrap_or_default());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for ProtectedRegistry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(address: &str, data: &Path, passwords: &Path) -> String {
    // JSON is YAML, and quotes paths.
    serde_json::json!({
        "version": 0.1,
        "log": { "level": "error", "accesslog": { "disabled": true } },
        "storage": { "filesystem": { "rootdirectory": data } },
        "http": { "addr": address, "secret": "one process, one secret" },
        "auth": { "htpasswd": { "realm": "dhow", "path": passwords } },
    })
    .to_string()
}
