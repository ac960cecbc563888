//! A registry on this machine: Debian's `docker-registry` with the test images, and a search server beside it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::arguments::{Login, RegistryOptions};
use crate::http::Request;
use crate::s3::S3Server;
use crate::search::SearchServer;
use crate::{command, images, paths};

const START_SECONDS_MAX: u64 = 20;
/// Begins the name of a copy of the images; the number of the process that serves it ends it.
const SERVING: &str = "serving-";

/// Where and for whom to serve.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// Without one, a free port.
    pub(crate) port: Option<u16>,
    /// Without one, everybody.
    pub(crate) login: Option<Login>,
}

/// A running registry. It stops when this is dropped, or with the thread that started it.
pub(crate) struct Registry {
    child: Child,
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
    files: Vec<PathBuf>,
}

impl Registry {
    /// Serves the registry's folder `data`; its configuration and log go to `folder`.
    pub(crate) fn start(folder: &Path, data: &Path, settings: &Settings) -> anyhow::Result<Self> {
        let program = command::find("docker-registry")
            .context("docker-registry is not here: run `cargo xtask setup`")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, choose_port(settings.port)?)).to_string();
        fs::create_dir_all(data).with_context(|| format!("cannot create {}", data.display()))?;
        let file = |end: &str| folder.join(format!("{}.{end}", address.replace(':', "-")));
        let (config, log, passwords) = (file("yml"), file("log"), file("passwords"));
        let mut files = vec![config.clone(), log.clone()];
        if let Some(login) = &settings.login {
            fs::write(&passwords, password_line(login)?)?;
            files.push(passwords.clone());
        }
        fs::write(
            &config,
            configuration(&address, data, settings.login.is_some().then_some(passwords.as_path())),
        )?;
        let output = File::create(&log)?;
        // The registry must not outlive us, however we end.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program).arg("serve").arg(&config);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().context("cannot start docker-registry")?;
        let mut registry = Self { child, address, files };
        registry.wait_until_ready(&log)?;
        Ok(registry)
    }

    fn wait_until_ready(&mut self, log: &Path) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(START_SECONDS_MAX);
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                let text = fs::read_to_string(log).unwrap_or_default();
                bail!("docker-registry ended at once ({status}): {}", text.trim());
            }
            // 401 is an answer as well.
            if Request::new("GET", "/v2/").send(&self.address).is_ok() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("docker-registry does not answer on {}", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself, and there is nobody left to tell if not.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
    }
}

pub(crate) fn choose_port(port: Option<u16>) -> anyhow::Result<u16> {
    let wanted = port.unwrap_or(0);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted));
    Ok(listener.with_context(|| format!("port {wanted} cannot be had"))?.local_addr()?.port())
}

fn configuration(address: &str, data: &Path, passwords: Option<&Path>) -> String {
    // JSON is YAML, and quotes paths.
    let mut config = serde_json::json!({
        "version": 0.1,
        "log": { "level": "error", "accesslog": { "disabled": true } },
        "storage": { "filesystem": { "rootdirectory": data }, "delete": { "enabled": true } },
        "http": { "addr": address, "secret": "one process, one secret" },
    });
    if let Some(path) = passwords {
        config["auth"] = serde_json::json!({ "htpasswd": { "realm": "dhow", "path": path } });
    }
    config.to_string()
}

/// A line of a password file in bcrypt, which is all docker-registry reads. Perl, part of every Debian, has the function.
fn password_line(login: &Login) -> anyhow::Result<String> {
    let mut perl = Command::new("perl");
    perl.args(["-e", "local $/; print crypt(<STDIN>, $ARGV[0])", &format!("$2b$05${}", salt()?)]);
    let mut child = perl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start perl")?;
    child.stdin.take().context("perl has no input")?.write_all(login.password.as_bytes())?;
    let output = child.wait_with_output()?;
    let hash = String::from_utf8(output.stdout)?;
    if !hash.starts_with("$2b$") {
        bail!("perl cannot make bcrypt passwords on this machine");
    }
    Ok(format!("{}:{hash}\n", login.user))
}

/// 22 characters of bcrypt's alphabet.
fn salt() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 22];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let alphabet = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    Ok(bytes.iter().map(|byte| char::from(alphabet[usize::from(byte % 64)])).collect())
}

/// The test images being served from a copy that goes when this is dropped.
pub(crate) struct TestRegistry {
    /// Dropped before the folder is removed.
    registry: Option<Registry>,
    search: SearchServer,
    s3: Option<S3Server>,
    folder: PathBuf,
}

impl TestRegistry {
    /// Makes the images if need be and serves them and the search.
    pub(crate) fn start(settings: &Settings) -> anyhow::Result<Self> {
        // It takes a while to start.
        let s3 = S3Server::start()?;
        let data = images::ensure()?;
        let parent = paths::target().join("registry");
        remove_abandoned(&parent)?;
        let folder = parent.join(format!("{SERVING}{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        images::copy_data(&data, &folder.join("data"))?;
        let registry = Registry::start(&folder, &folder.join("data"), settings)?;
        s3.as_ref().map_or(Ok(()), S3Server::wait)?;
        Ok(Self { registry: Some(registry), search: SearchServer::start()?, s3, folder })
    }

    /// `127.0.0.1:PORT` of the registry.
    pub(crate) fn address(&self) -> &str {
        &self.registry.as_ref().expect("it is only taken on drop").address
    }

    /// What dhow has to be told to find docker.io here.
    pub(crate) fn dhow_config(&self) -> String {
        let (registry, search) = (self.address(), &self.search.address);
        format!("[registry.\"docker.io\"]\nlocation = \"http://{registry}\"\nsearch = \"http://{search}\"\n")
    }

    /// The variables that tell tests where to find it.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("DHOW_TEST_REGISTRY", self.address().to_owned()),
            ("DHOW_TEST_SEARCH", self.search.address.clone()),
        ];
        variables.extend(self.s3.as_ref().map(|s3| ("DHOW_TEST_S3", s3.endpoint.clone())));
        variables
    }
}

/// Removes the copies of processes that were killed.
fn remove_abandoned(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(|name| name.strip_prefix(SERVING)) else { continue };
        if process == std::process::id().to_string() || !Path::new("/proc").join(process).exists() {
            fs::remove_dir_all(entry.path())
                .with_context(|| format!("cannot remove {}", entry.path().display()))?;
        }
    }
    Ok(())
}

impl Drop for TestRegistry {
    fn drop(&mut self) {
        drop(self.registry.take());
        // What cannot be removed now is removed by `cargo clean`.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// `cargo xtask registry`.
pub(crate) fn run(options: &RegistryOptions) -> anyhow::Result<ExitCode> {
    let settings = Settings { port: options.port, login: options.login.clone() };
    let registry = TestRegistry::start(&settings)?;
    let Some((program, arguments)) = options.command.split_first() else {
        print!("{}", instructions(&registry));
        // Until Ctrl-C, which ends the registry as well.
        loop {
            thread::park();
        }
    };
    let mut command = Command::new(program);
    let status = command.args(arguments).envs(registry.variables()).status();
    let status = status.with_context(|| format!("cannot start {program}"))?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

fn instructions(registry: &TestRegistry) -> String {
    let address = registry.address();
    format!(
        "serving the test images on {address} until Ctrl-C\n\
         PORT={port}\n\n\
         to make dhow take images of docker.io from here, put this into a file and set DHOW_CONFIG to its path:\n\n\
         {config}",
        port = address.rsplit(':').next().unwrap_or_default(),
        config = registry.dhow_config(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_file_is_asked_for_only_if_there_is_one() {
        let open = configuration("127.0.0.1:5000", Path::new("/data"), None);
        assert!(open.contains(r#""rootdirectory":"/data""#) && !open.contains("auth"), "{open}");
        let closed = configuration("127.0.0.1:5000", Path::new("/data"), Some(Path::new("/a b")));
        assert!(closed.contains(r#"{"realm":"dhow","path":"/a b"}"#), "{closed}");
    }

    #[test]
    fn copies_of_living_processes_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        // No process has a number beyond the kernel's limit of 2^22.
        for name in ["serving-1", "serving-99999999", "data"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        remove_abandoned(folder.path()).unwrap();
        let kept = ["serving-1", "data"].map(|name| folder.path().join(name).exists());
        assert_eq!((kept, folder.path().join("serving-99999999").exists()), ([true, true], false));
    }

    #[test]
    fn a_salt_is_22_characters_of_its_alphabet() {
        let salt = salt().unwrap();
        assert_eq!(salt.len(), 22);
        assert!(salt.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '/'), "{salt}");
    }
}
