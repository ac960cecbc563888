//! A store that speaks S3, for tests: moto's server, from PyPI.
//!
//! It is not part of what tests cannot do without. Where it cannot be had, they say so and skip.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::Request;
use crate::registry::choose_port;
use crate::{command, paths};

/// What is installed, each from PyPI.
const PACKAGES: [&str; 3] = ["moto==5.*", "flask==3.*", "flask-cors==6.*"];
const INSTALL_SECONDS_MAX: &str = "300";
const START_SECONDS_MAX: u64 = 30;
/// The bucket of the storage's own suite.
const BUCKET: &str = "suite";

fn folder() -> PathBuf {
    paths::target().join("moto")
}

fn program() -> PathBuf {
    folder().join("bin/moto_server")
}

/// Installs it into a folder of its own. Failing is told, and no failure.
pub(crate) fn setup() {
    if program().exists() {
        return;
    }
    println!("setup: installing moto, a store that speaks S3");
    let outcome = (|| {
        command::output(Command::new("python3").args(["-m", "venv"]).arg(folder()))?;
        let mut pip = Command::new("timeout");
        pip.arg(INSTALL_SECONDS_MAX)
            .arg(folder().join("bin/pip"))
            .args(["install", "--quiet"])
            .args(PACKAGES);
        command::output(&mut pip)
    })();
    if let Err(error) = outcome {
        // A half of it must not be taken for the whole next time.
        let _ = std::fs::remove_dir_all(folder());
        println!("setup: moto cannot be installed, tests of buckets will be skipped: {error:#}");
    }
}

/// A store with an empty bucket. It stops when this is dropped, or with the thread that started it.
pub(crate) struct S3Server {
    child: Child,
    /// `http://127.0.0.1:PORT`
    pub(crate) endpoint: String,
}

impl S3Server {
    /// Starts it, if it is installed.
    pub(crate) fn start() -> anyhow::Result<Option<Self>> {
        if !program().exists() {
            println!("moto is not installed; tests of buckets are skipped");
            return Ok(None);
        }
        let port = choose_port(None)?.to_string();
        // It must not outlive us, however we end.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program()).args(["-H", "127.0.0.1", "-p", &port]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Some(Self { child: command.spawn()?, endpoint: format!("http://127.0.0.1:{port}") }))
    }

    /// Waits until it answers.
    pub(crate) fn wait(&self) -> anyhow::Result<()> {
        let host = self.endpoint.trim_start_matches("http://");
        let end = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        let target = format!("/{BUCKET}");
        loop {
            match Request::new("PUT", &target).send(host) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > end => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
