//! Agents for private keys that are given to a build as files.
//!
//! The keys are OpenSSH's own, so its own `ssh-agent` holds them: it reads every kind and format of key that the
//! user's `ssh` does. It lives no longer than the build, even if that is killed, its socket is in a folder that
//! nobody else can enter, and keys reach it through a pipe. A key with a passphrase is refused: there is nobody
//! who could be asked.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::run_options::{RunOptions, SshSource};

/// The largest file of a key, as in BuildKit.
const KEY_BYTES_MAX: u64 = 100 << 10;
/// The name of a socket in its folder.
const SOCKET: &str = "agent";
/// An agent listens after milliseconds; one that takes this long never will.
const START_SECONDS_MAX: u64 = 20;
const POLL: Duration = Duration::from_millis(5);
/// Where keys need a passphrase, this answers for the user.
const NOBODY: &str = "/bin/false";

/// Why there is no agent for a key.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// OpenSSH is not installed.
    #[error("key files for --ssh need the program {program}, which is not installed")]
    NoProgram {
        /// What is missing.
        program: &'static str,
    },
    /// The key cannot be read.
    #[error("cannot read the key {}", path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The key is encrypted.
    #[error("the key {} is protected by a passphrase, and a build cannot ask for it", path.display())]
    Passphrase {
        /// Its file.
        path: PathBuf,
    },
    /// The agent does not take the key.
    #[error("cannot use the key {}: {why}", path.display())]
    Refused {
        /// Its file.
        path: PathBuf,
        /// What OpenSSH says.
        why: String,
    },
    /// The agent does not start.
    #[error("cannot start an agent for the keys of --ssh")]
    Start(#[source] io::Error),
}

impl AgentError {
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            AgentError::NoProgram { .. } => {
                Some("install it (Debian: apt-get install openssh-client)".to_owned())
            }
            AgentError::Passphrase { path } => {
                let path = path.display();
                Some(format!(
                    "give it to an agent: eval $(ssh-agent); ssh-add {path}; dhow build --ssh default …"
                ))
            }
            _ => None,
        }
    }
}

/// Agents that end with the value.
pub(crate) struct Agents(Vec<Agent>);

struct Agent {
    child: Child,
    folder: PathBuf,
    /// Keeps a short way to the socket open.
    open: File,
}

impl Agents {
    /// Starts an agent for each id that has keys; returns the options with their sockets.
    pub(crate) fn start(options: &RunOptions, run_dir: &Path) -> Result<(Agents, RunOptions), AgentError> {
        let (mut agents, mut options) = (Agents(Vec::new()), options.clone());
        let parent = run_dir.join("build-agents");
        for source in options.ssh.values_mut() {
            let SshSource::Keys(keys) = source else { continue };
            if agents.0.is_empty() {
                remove_abandoned(&parent);
            }
            let agent = Agent::start(&parent)?;
            keys.iter().try_for_each(|key| agent.add(key))?;
            *source = SshSource::Agent(agent.socket());
            agents.0.push(agent);
        }
        Ok((agents, options))
    }
}

impl Agent {
    fn start(parent: &Path) -> Result<Agent, AgentError> {
        static COUNTER: AtomicUsize = AtomicUsize::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("{}-{number}", std::process::id()));
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(AgentError::Start)?;
        let mut command = Command::new("ssh-agent");
        // An address holds 107 bytes, and the folder's name may be longer.
        command.args(["-D", "-a", SOCKET]).current_dir(&folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Ctrl-C is for the build, which ends the agent when it has no more use for it.
        command.process_group(0);
        let child = dhow_sys::process::spawn_with_us(&mut command);
        let child = child.map_err(|error| start_error(error, "ssh-agent")).inspect_err(|_| {
            let _ = fs::remove_dir(&folder);
        })?;
        let open = File::open(&folder);
        let mut agent = match open {
            Ok(open) => Agent { child, folder, open },
            Err(error) => {
                end(child);
                return Err(AgentError::Start(error));
            }
        };
        agent.wait_until_it_listens().map_err(AgentError::Start)?;
        Ok(agent)
    }

    fn wait_until_it_listens(&mut self) -> io::Result<()> {
        let end = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("ssh-agent ended with {status}")));
            }
            if Instant::now() > end {
                return Err(io::Error::from(io::ErrorKind::TimedOut));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// A short path to the socket that other processes of the user can go as well.
    fn socket(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}/{SOCKET}", std::process::id(), self.open.as_raw_fd()))
    }

    /// Hands a key over.
    fn add(&self, path: &Path) -> Result<(), AgentError> {
        let failed = |source| AgentError::Key { path: path.to_owned(), source };
        let key = read(path).map_err(failed)?;
        let added = self.ssh_add(&key)?;
        if added.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&added.stderr);
        let why = why.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        let path = path.to_owned();
        // It asked, got no answer, and says no more than that it failed.
        Err(match why.is_empty() || why.contains("passphrase") {
            true => AgentError::Passphrase { path },
            false => AgentError::Refused { path, why: why.to_owned() },
        })
    }

    fn ssh_add(&self, key: &[u8]) -> Result<Output, AgentError> {
        let mut command = Command::new("ssh-add");
        command.args(["-q", "-"]).env("SSH_AUTH_SOCK", self.socket()).env("LC_ALL", "C");
        command.env("SSH_ASKPASS", NOBODY).env("SSH_ASKPASS_REQUIRE", "force");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| start_error(error, "ssh-add"))?;
        let stdin = child.stdin.take();
        // One that does not listen says why when it ends.
        let _ = stdin.map(|mut stdin| stdin.write_all(key));
        child.wait_with_output().map_err(AgentError::Start)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What stays is removed by the next build with keys.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn start_error(error: io::Error, program: &'static str) -> AgentError {
    match error.kind() {
        io::ErrorKind::NotFound => AgentError::NoProgram { program },
        _ => AgentError::Start(error),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut key = Vec::new();
    File::open(path)?.take(KEY_BYTES_MAX + 1).read_to_end(&mut key)?;
    if key.len() as u64 > KEY_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {KEY_BYTES_MAX} bytes")));
    }
    Ok(key)
}

/// Removes the sockets of builds that were killed.
fn remove_abandoned(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(process).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keygen(dir: &Path, name: &str, args: &[&str]) -> Option<PathBuf> {
        let path = dir.join(name);
        let made = Command::new("ssh-keygen").args(args).args(["-q", "-C", name, "-f"]).arg(&path).status();
        match made {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                println!("skipped: there is no ssh-keygen");
                None
            }
            made => {
                assert!(made.expect("ssh-keygen starts").success());
                Some(path)
            }
        }
    }

    fn listed(socket: &Path) -> Vec<String> {
        let listed = Command::new("ssh-add").arg("-l").env("SSH_AUTH_SOCK", socket).output();
        let text = String::from_utf8(listed.expect("ssh-add starts").stdout).expect("text");
        text.lines().map(|line| line.split(' ').nth(2).unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn an_agent_holds_the_keys_of_its_id_and_ends_with_the_build() {
        let dir = tempfile::tempdir().expect("a folder");
        // A path that is too long for the address of a socket.
        let run = dir.path().join("x".repeat(120));
        let Some(ed) = keygen(dir.path(), "ed", &["-t", "ed25519", "-N", ""]) else { return };
        let rsa =
            keygen(dir.path(), "rsa", &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", ""]).expect("a key");
        let ec = keygen(dir.path(), "ec", &["-t", "ecdsa", "-b", "521", "-N", ""]).expect("a key");
        let closed = keygen(dir.path(), "closed", &["-t", "ed25519", "-N", "hush1"]).expect("a key");
        fs::write(dir.path().join("text"), "no key\n").expect("a file");
        let with = |keys: &[&Path]| RunOptions {
            ssh: [
                ("a".to_owned(), SshSource::Keys(keys.iter().map(|path| path.to_path_buf()).collect())),
                ("b".to_owned(), SshSource::Agent("/a/socket".into())),
            ]
            .into(),
            ..RunOptions::default()
        };
        let (agents, options) = Agents::start(&with(&[&ed, &rsa, &ec]), &run).expect("an agent");
        assert_eq!(options.agent("b"), Some(Path::new("/a/socket")));
        let socket = options.agent("a").expect("a socket").to_owned();
        let mut names = listed(&socket);
        names.sort_unstable();
        // A key in PEM has no comment.
        assert_eq!(names, ["(stdin)", "ec", "ed"]);
        drop(agents);
        assert!(!socket.exists());
        assert_eq!(fs::read_dir(run.join("build-agents")).expect("a folder").count(), 0);

        for (key, says) in [
            (closed, "closed is protected by a passphrase, and a build cannot ask for it"),
            (dir.path().join("text"), "cannot use the key"),
            (dir.path().join("none"), "cannot read the key"),
        ] {
            let error = Agents::start(&with(&[&key]), &run).err().expect("no agent").to_string();
            assert!(error.contains(says), "{error}");
        }
        assert_eq!(fs::read_dir(run.join("build-agents")).expect("a folder").count(), 0);
    }

    #[test]
    fn sockets_of_builds_that_were_killed_go() {
        let dir = tempfile::tempdir().expect("a folder");
        let mine = format!("{}-7", std::process::id());
        for name in [mine.as_str(), "4194305-0"] {
            fs::create_dir(dir.path().join(name)).expect("a folder");
        }
        remove_abandoned(dir.path());
        assert!(dir.path().join(mine).exists() && !dir.path().join("4194305-0").exists());
    }
}
