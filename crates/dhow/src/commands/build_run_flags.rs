//! Flags of `build` about what `RUN` steps may have, see and use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dhow_engine::containers::Ulimit;
use dhow_engine::{Entitlements, Resources, Rlimit, RunOptions, SecretSource, SshSource};

use super::create_flags::{bytes, extra_host};
use crate::error::CliError;

/// The agent of steps that name none.
const SSH_DEFAULT: &str = "default";

#[derive(clap::Args, Debug)]
pub(crate) struct BuildRunFlags {
    /// Secret for `RUN --mount=type=secret` (can be repeated)
    #[arg(long = "secret", value_name = "id=ID[,src=FILE|,env=NAME]")]
    secrets: Vec<String>,
    /// ssh agent, or private keys, for `RUN --mount=type=ssh` and repositories (can be repeated)
    #[arg(long = "ssh", value_name = "default|ID[=SOCKET|KEY[,KEY…]]")]
    ssh: Vec<String>,
    /// Allow what reaches beyond the container of a step: network.host, security.insecure (can be repeated)
    #[arg(long = "allow", value_name = "ENTITLEMENT", value_delimiter = ',')]
    allow: Vec<String>,
    /// Add a name to /etc/hosts of RUN steps (can be repeated)
    #[arg(long = "add-host", value_name = "NAME:IP|NAME:host-gateway")]
    add_host: Vec<String>,
    /// Limit of a process of RUN steps, such as nofile=1024:4096 (can be repeated)
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<Ulimit>,
    /// Size of /dev/shm of RUN steps
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// Folder of the control groups of RUN steps
    #[arg(long, value_name = "FOLDER")]
    cgroup_parent: Option<String>,
    /// Limit of RUN steps: memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus, cpuset-mems
    /// (can be repeated)
    #[arg(long = "resource", value_name = "NAME=VALUE")]
    resource: Vec<String>,
    /// Memory limit of RUN steps, such as 512m
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Limit of memory and swap together; -1 for unlimited swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Share of processor time, relative to 1024
    #[arg(short = 'c', long, value_name = "SHARES")]
    cpu_shares: Option<String>,
    /// Period of the processor time limit, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<String>,
    /// Processor time in a period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<String>,
    /// Processors to run on, such as 0-2,4
    #[arg(long, value_name = "PROCESSORS")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use, such as 0-1
    #[arg(long, value_name = "NODES")]
    cpuset_mems: Option<String>,
}

impl BuildRunFlags {
    /// What is asked for. `variable` finds values in the environment.
    pub(crate) fn options(
        &self,
        variable: &dyn Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<RunOptions, CliError> {
        Ok(RunOptions {
            secrets: each(&self.secrets, |text| secret(text, variable))?,
            ssh: each(&self.ssh, |text| ssh(text, variable))?,
            entitlements: entitlements(&self.allow)?,
            hosts: self.add_host.iter().map(|text| extra_host(text)).collect::<Result<_, _>>()?,
            rlimits: self.ulimit.iter().map(rlimit).collect(),
            shm_bytes: self.shm_size.as_deref().map(|text| bytes("--shm-size", text)).transpose()?,
            cgroup_parent: self.cgroup_parent.clone().unwrap_or_default(),
            resources: self.resources()?,
        })
    }

    fn resources(&self) -> Result<Resources, CliError> {
        let mut resources = Resources::default();
        let own = [
            ("memory", &self.memory),
            ("memory-swap", &self.memory_swap),
            ("cpu-shares", &self.cpu_shares),
            ("cpu-period", &self.cpu_period),
            ("cpu-quota", &self.cpu_quota),
            ("cpuset-cpus", &self.cpuset_cpus),
            ("cpuset-mems", &self.cpuset_mems),
        ];
        for (name, value) in own {
            if let Some(value) = value {
                set_resource(&mut resources, &format!("--{name}"), name, value)?;
            }
        }
        for text in &self.resource {
            let (name, value) = text.split_once('=').ok_or_else(|| {
                CliError::new(format!("invalid value {text:?} for --resource: NAME=VALUE is needed"))
            })?;
            set_resource(&mut resources, &format!("--resource {name}"), name, value)?;
        }
        Ok(resources)
    }
}

pub(super) fn each<T>(
    texts: &[String],
    parse: impl Fn(&str) -> Result<(String, T), CliError>,
) -> Result<BTreeMap<String, T>, CliError> {
    texts.iter().map(|text| parse(text)).collect()
}

/// `id=ID,src=FILE`, `id=ID,env=NAME`, or `id=ID`, which is a variable of this name if there is one, else a file.
pub(super) fn secret(
    text: &str,
    variable: &dyn Fn(&str) -> Option<std::ffi::OsString>,
) -> Result<(String, SecretSource), CliError> {
    let invalid = |what: String| CliError::new(format!("invalid secret {text:?}: {what}"));
    let (mut id, mut file, mut env, mut kind) = (None, None, None, None);
    for field in dhow_engine::csv_fields(text).map_err(&invalid)? {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| invalid(format!("invalid field '{field}' must be a key=value pair")))?;
        match key.to_lowercase().as_str() {
            "id" => id = Some(value.to_owned()),
            "source" | "src" => file = Some(value.to_owned()),
            "env" => env = Some(value.to_owned()),
            "type" if matches!(value, "file" | "env") => kind = Some(value.to_owned()),
            "type" => return Err(invalid(format!("unsupported secret type {value:?}"))),
            _ => return Err(invalid(format!("unexpected key '{key}' in '{field}'"))),
        }
    }
    if kind.as_deref() == Some("env") && env.is_none() {
        env = file.take();
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| invalid("it has no id".to_owned()))?;
    if kind.is_none() && file.is_none() && env.is_none() && variable(&id).is_some() {
        env = Some(id.clone());
    }
    let source = match (env, file) {
        (Some(name), None) => {
            let value = variable(&name).ok_or_else(|| invalid(format!("the variable {name} is not set")))?;
            SecretSource::Value(std::os::unix::ffi::OsStringExt::into_vec(value))
        }
        (None, file) => {
            let path = PathBuf::from(file.unwrap_or_else(|| id.clone()));
            let is_there = std::fs::metadata(&path).and_then(|_| std::path::absolute(&path));
            let path = is_there.map_err(|error| invalid(format!("{}: {error}", path.display())))?;
            SecretSource::File(path)
        }
        (Some(_), Some(_)) => return Err(invalid("it has both a file and a variable".to_owned())),
    };
    Ok((id, source))
}

/// `default`, `ID`, `ID=SOCKET` or `ID=KEY,…`. The agent of whoever builds is the one that `SSH_AUTH_SOCK` names.
pub(super) fn ssh(
    text: &str,
    variable: &dyn Fn(&str) -> Option<std::ffi::OsString>,
) -> Result<(String, SshSource), CliError> {
    let invalid = |what: String| CliError::new(format!("invalid ssh agent {text:?}: {what}"));
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { SSH_DEFAULT } else { id }.to_owned();
    let named: Vec<&str> = paths.split(',').filter(|path| !path.is_empty()).collect();
    if named.is_empty() {
        return match variable("SSH_AUTH_SOCK").filter(|path| !path.is_empty()) {
            Some(path) => match is_socket(Path::new(&path)).map_err(invalid)? {
                (path, true) => Ok((id, SshSource::Agent(path))),
                (path, false) => Err(invalid(format!("{} is not a socket", path.display()))),
            },
            None => Err(invalid("SSH_AUTH_SOCK is not set".to_owned()).hint(
                "start an agent: eval $(ssh-agent); ssh-add; or name a key: --ssh default=~/.ssh/id_ed25519",
            )),
        };
    }
    let found: Vec<(PathBuf, bool)> =
        named.iter().map(|path| is_socket(Path::new(path))).collect::<Result<_, _>>().map_err(invalid)?;
    match &*found {
        [(socket, true)] => Ok((id, SshSource::Agent(socket.clone()))),
        found if found.iter().any(|(_, is_socket)| *is_socket) => {
            Err(invalid("it is either the socket of one agent, or keys".to_owned()))
        }
        found => Ok((id, SshSource::Keys(found.iter().map(|(path, _)| path.clone()).collect()))),
    }
}

/// The absolute path, and whether an agent may be there.
fn is_socket(path: &Path) -> Result<(PathBuf, bool), String> {
    let look = || Ok((std::path::absolute(path)?, std::fs::metadata(path)?));
    let (absolute, metadata) =
        look().map_err(|error: std::io::Error| format!("{}: {error}", path.display()))?;
    if metadata.is_dir() {
        return Err(format!("{} is a folder", path.display()));
    }
    Ok((absolute, std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type())))
}

fn entitlements(names: &[String]) -> Result<Entitlements, CliError> {
    let mut entitlements = Entitlements::default();
    for name in names {
        match name.as_str() {
            "network.host" => entitlements.network_host = true,
            "security.insecure" => entitlements.security_insecure = true,
            other => {
                return Err(CliError::new(format!("unknown entitlement {other:?} for --allow"))
                    .hint("there are network.host and security.insecure"));
            }
        }
    }
    Ok(entitlements)
}

fn rlimit(ulimit: &Ulimit) -> Rlimit {
    let limit = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
    Rlimit { name: ulimit.name.clone(), soft: limit(ulimit.soft), hard: limit(ulimit.hard) }
}

/// 0 and nothing are as good as nothing said, as in docker.
fn set_resource(resources: &mut Resources, flag: &str, name: &str, value: &str) -> Result<(), CliError> {
    let invalid = || CliError::new(format!("invalid argument {value:?} for {flag}"));
    let size = |value: &str| match value {
        "-1" => Ok(-1),
        value => Ok::<i64, CliError>(i64::try_from(bytes(flag, value)?).unwrap_or(i64::MAX)),
    };
    match name {
        "memory" => resources.memory_bytes = Some(size(value)?).filter(|bytes| *bytes != 0),
        "memory-swap" => resources.memory_swap_bytes = Some(size(value)?).filter(|bytes| *bytes != 0),
        "cpu-shares" => {
            resources.cpu_shares = Some(value.parse().map_err(|_| invalid())?).filter(|shares| *shares != 0);
        }
        "cpu-period" => {
            resources.cpu_period_us = Some(value.parse().map_err(|_| invalid())?).filter(|us| *us != 0);
        }
        "cpu-quota" => {
            resources.cpu_quota_us = Some(value.parse().map_err(|_| invalid())?).filter(|us| *us != 0);
        }
        "cpuset-cpus" => resources.cpuset_cpus = Some(value.to_owned()).filter(|set| !set.is_empty()),
        "cpuset-mems" => resources.cpuset_mems = Some(value.to_owned()).filter(|set| !set.is_empty()),
        _ => return Err(CliError::new(format!("unknown resource {name:?} for --resource"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(name: &str) -> Option<std::ffi::OsString> {
        (name == "TOKEN").then(|| "hush".into())
    }

    fn told(text: &str) -> String {
        match secret(text, &variable) {
            Ok((id, source)) => format!("{id} {source:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn secrets_are_files_or_variables() {
        assert_eq!(told("id=a,src=/etc/hostname"), "a File(/etc/hostname)");
        assert_eq!(told("id=a,source=/etc/hostname,type=file"), "a File(/etc/hostname)");
        assert_eq!(told("id=a,env=TOKEN"), "a Value(hidden)");
        assert_eq!(told("id=a,type=env,src=TOKEN"), "a Value(hidden)");
        assert_eq!(told("id=TOKEN"), "TOKEN Value(hidden)");
    }

    #[test]
    fn what_is_wrong_with_a_secret_is_told() {
        assert!(told("src=/etc/hostname").contains("it has no id"));
        assert!(told("id=a,env=NONE").contains("the variable NONE is not set"));
        assert!(told("id=a,src=/no/such").contains("/no/such: No such file"));
        assert!(told("id=a,typ=file").contains("unexpected key 'typ'"));
        assert!(told("id=a,type=vault").contains("unsupported secret type \"vault\""));
        assert!(told("id").contains("must be a key=value pair"));
    }

    #[test]
    fn an_agent_is_a_socket_or_keys() {
        let told = |text: &str| match ssh(text, &variable) {
            Ok((id, source)) => format!("{id} {source:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(told("default=/etc/hostname"), "default Keys([\"/etc/hostname\"])");
        assert_eq!(told("a=/etc/hostname,/etc/hosts"), "a Keys([\"/etc/hostname\", \"/etc/hosts\"])");
        assert!(told("default").contains("SSH_AUTH_SOCK is not set"));
        assert!(told("a=/no/such").contains("/no/such: No such file"));
        assert!(told("a=/etc").contains("/etc is a folder"));
        let dir = tempfile::tempdir().expect("a folder");
        let socket = dir.path().join("s");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
        let socket = socket.display();
        assert_eq!(told(&format!("a={socket}")), format!("a Agent(\"{socket}\")"));
        assert!(told(&format!("a={socket},/etc/hosts")).contains("either the socket of one agent, or keys"));
    }
}
