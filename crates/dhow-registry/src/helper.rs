//! Talks to `docker-credential-*` programs.
//!
//! The protocol: one word as argument, one line or JSON object on standard input, JSON on standard output.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Credential, Secret};

/// Helpers may ask the user to unlock something; after this long nobody is there.
const TIMEOUT: Duration = Duration::from_secs(60);
const OUTPUT_BYTES_MAX: u64 = 1 << 20;
/// What a helper says, with a failing exit status, when it has nothing.
const NOT_FOUND: &str = "credentials not found in native keychain";
/// The user name that marks the secret as an identity token.
const TOKEN_USER: &str = "<token>";

/// Why a credential helper was of no help.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// No such program.
    #[error("{program} is not installed in any of the folders of PATH")]
    Missing {
        /// Its name.
        program: String,
    },
    /// It could not be run or spoken to.
    #[error("cannot run {program}")]
    Run {
        /// Its name.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// It said no.
    #[error("{program} {verb} failed: {message}")]
    Failed {
        /// Its name.
        program: String,
        /// What it was asked to do.
        verb: &'static str,
        /// Its words.
        message: String,
    },
    /// It did not answer.
    #[error("{program} {verb} did not answer within {} seconds", TIMEOUT.as_secs())]
    Timeout {
        /// Its name.
        program: String,
        /// What it was asked to do.
        verb: &'static str,
    },
    /// Its answer is not JSON.
    #[error("{program} {verb} gave an answer that cannot be read")]
    Answer {
        /// Its name.
        program: String,
        /// What it was asked to do.
        verb: &'static str,
    },
}

/// One helper program.
pub(crate) struct Helper {
    program: String,
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "ServerURL", default)]
    server_url: String,
    username: String,
    secret: String,
}

impl Helper {
    /// Finds `docker-credential-<suffix>` in `folders`.
    pub(crate) fn find(suffix: &str, folders: &[PathBuf]) -> Result<Helper, HelperError> {
        let program = format!("docker-credential-{suffix}");
        let is_plain = !suffix.is_empty() && !suffix.contains('/');
        let path = folders.iter().map(|folder| folder.join(&program)).find(|path| is_plain && path.is_file());
        match path {
            Some(path) => Ok(Helper { program, path }),
            None => Err(HelperError::Missing { program }),
        }
    }

    pub(crate) fn get(&self, server: &str) -> Result<Option<Credential>, HelperError> {
        let answer = match self.run("get", server.as_bytes()) {
            Err(HelperError::Failed { message, .. }) if message.contains(NOT_FOUND) => return Ok(None),
            other => other?,
        };
        let entry: Entry = self.read("get", &answer)?;
        let secret = Secret::new(entry.secret);
        Ok(Some(match entry.username.as_str() {
            TOKEN_USER => Credential::IdentityToken { username: None, token: secret },
            _ => Credential::Basic { username: entry.username, password: secret },
        }))
    }

    pub(crate) fn store(&self, server: &str, credential: &Credential) -> Result<(), HelperError> {
        let (username, secret) = match credential {
            Credential::Basic { username, password } => (username.as_str(), password),
            Credential::IdentityToken { token, .. } | Credential::RegistryToken(token) => (TOKEN_USER, token),
        };
        let entry = Entry {
            server_url: server.to_owned(),
            username: username.to_owned(),
            secret: secret.expose().to_owned(),
        };
        let json = serde_json::to_vec(&entry).expect("three strings are JSON");
        self.run("store", &json).map(drop)
    }

    pub(crate) fn erase(&self, server: &str) -> Result<(), HelperError> {
        match self.run("erase", server.as_bytes()) {
            Err(HelperError::Failed { message, .. }) if message.contains(NOT_FOUND) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Servers with the user names known for them.
    pub(crate) fn list(&self) -> Result<BTreeMap<String, String>, HelperError> {
        let answer = self.run("list", b"")?;
        self.read("list", &answer)
    }

    fn read<'a, T: Deserialize<'a>>(&self, verb: &'static str, answer: &'a [u8]) -> Result<T, HelperError> {
        // The reason is not passed on: it may quote the secret.
        serde_json::from_slice(answer)
            .map_err(|_| HelperError::Answer { program: self.program.clone(), verb })
    }

    fn run(&self, verb: &'static str, input: &[u8]) -> Result<Vec<u8>, HelperError> {
        let failed = |source| HelperError::Run { program: self.program.clone(), source };
        let mut child = spawn(&self.path, verb).map_err(failed)?;
        let output = converse(&mut child, input);
        let Some(output) = output else {
            // It is killed for being silent; that it may just have ended makes no difference.
            let _ = child.kill();
            let _ = child.wait();
            return Err(HelperError::Timeout { program: self.program.clone(), verb });
        };
        let status = child.wait().map_err(failed)?;
        if status.success() {
            return Ok(output);
        }
        let message = String::from_utf8_lossy(&output).trim().replace(char::is_control, " ");
        Err(HelperError::Failed { program: self.program.clone(), verb, message })
    }
}

fn spawn(path: &Path, verb: &str) -> std::io::Result<Child> {
    Command::new(path).arg(verb).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
}

/// Writes `input` and returns what the child prints until it closes its output; `None` if it takes too long.
fn converse(child: &mut Child, input: &[u8]) -> Option<Vec<u8>> {
    let (mut stdin, stdout) = (child.stdin.take()?, child.stdout.take()?);
    let input = input.to_vec();
    let (sender, receiver) = mpsc::channel();
    // Both ends are served from one thread that the time limit can abandon: the input fits into the pipe.
    thread::spawn(move || {
        // A helper that does not read its input says why on its output.
        let _ = stdin.write_all(&input);
        drop(stdin);
        let mut output = Vec::new();
        let read = stdout.take(OUTPUT_BYTES_MAX).read_to_end(&mut output);
        let _ = sender.send(read.map(|_| output).unwrap_or_default());
    });
    receiver.recv_timeout(TIMEOUT).ok()
}
