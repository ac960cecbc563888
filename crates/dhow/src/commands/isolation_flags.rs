//! Flags of `run` and `create` about what a container shares with the host and with others, and what is kept from it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;

use dhow_engine::containers::{DeviceRequest, DeviceRule, IpcShare, RareConfig};

use super::create_flags::unsupported;
use crate::error::CliError;

/// The longest seccomp profile that is read.
const PROFILE_BYTES_MAX: u64 = 4 << 20;

#[derive(clap::Args, Debug)]
pub(crate) struct IsolationFlags {
    /// Use the processes of the host, or of another container: host or container:NAME
    #[arg(long, value_name = "MODE")]
    pid: Option<String>,
    /// System V IPC: private, shareable, none, host or container:NAME
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,
    /// Host name: host to share the host's
    #[arg(long, value_name = "MODE")]
    uts: Option<String>,
    /// View of control groups: private or host
    #[arg(long, value_name = "MODE")]
    cgroupns: Option<String>,
    /// User namespace: host
    #[arg(long, value_name = "MODE")]
    userns: Option<String>,
    /// Control group that the container's is below
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Domain name of the container
    #[arg(long, value_name = "NAME")]
    domainname: Option<String>,
    /// Give the container a device of the host (can be repeated)
    #[arg(long, value_name = "DEVICE[:PATH[:rwm]]")]
    device: Vec<DeviceRequest>,
    /// Allow the use of devices, such as 'c 189:* rw' (can be repeated)
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<DeviceRule>,
    /// Note for the runtime (can be repeated)
    #[arg(long, value_name = "NAME=VALUE")]
    annotation: Vec<String>,
    /// How readily the kernel kills the program for want of memory, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    oom_score_adj: Option<i64>,
    /// Security option: no-new-privileges, seccomp=FILE|builtin|unconfined, apparmor=PROFILE, label=disable,
    /// systempaths=unconfined (can be repeated)
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
}

/// What the container shares, in the words of the engine.
pub(crate) struct Isolation {
    pub pid_host: bool,
    pub ipc_host: bool,
    pub uts_host: bool,
    pub cgroup_host: bool,
    pub no_new_privileges: bool,
    pub seccomp_unconfined: bool,
    pub rare: RareConfig,
}

impl IsolationFlags {
    pub(crate) fn isolation(&self) -> Result<Isolation, CliError> {
        let security = Security::parse(&self.security_opt)?;
        if let Some(mode) = self.userns.as_deref().filter(|mode| *mode != "host" && !mode.is_empty()) {
            return Err(CliError::new(format!("--userns: invalid USER mode: {mode}"))
                .hint("the one mode is host: all containers of a store share a user namespace"));
        }
        let (pid_host, pid_of) = shared("--pid", "PID", self.pid.as_deref())?;
        let (ipc_host, ipc) = ipc(self.ipc.as_deref())?;
        let rare = RareConfig {
            devices: self.device.clone(),
            device_rules: self.device_cgroup_rule.clone(),
            pid_of,
            ipc,
            cgroup_parent: self.cgroup_parent.clone().unwrap_or_default(),
            domainname: self.domainname.clone().unwrap_or_default(),
            annotations: self.annotations()?,
            oom_score_adj: self.oom_score_adj,
            seccomp_profile: security.profile,
            unmasked: security.unmasked,
            apparmor_profile: security.apparmor,
        };
        let host = |flag: &str, kind: &str, mode: Option<&str>, own: &str| match mode {
            None | Some("") => Ok(false),
            Some("host") => Ok(true),
            Some(mode) if mode == own && !own.is_empty() => Ok(false),
            Some(mode) => Err(CliError::new(format!("{flag}: invalid {kind} mode: {mode}"))),
        };
        Ok(Isolation {
            pid_host,
            ipc_host,
            uts_host: host("--uts", "UTS", self.uts.as_deref(), "")?,
            cgroup_host: host("--cgroupns", "CGROUP", self.cgroupns.as_deref(), "private")?,
            no_new_privileges: security.no_new_privileges,
            seccomp_unconfined: security.seccomp_unconfined,
            rare,
        })
    }

    fn annotations(&self) -> Result<BTreeMap<String, String>, CliError> {
        let pair = |text: &String| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(CliError::new(format!(
                "invalid argument \"{text}\" for \"--annotation\" flag: expected NAME=VALUE"
            ))),
        };
        self.annotation.iter().map(pair).collect()
    }
}

/// Whether the host's are used, or whose.
fn shared(flag: &str, kind: &str, mode: Option<&str>) -> Result<(bool, Option<String>), CliError> {
    match mode {
        None | Some("" | "private") => Ok((false, None)),
        Some("host") => Ok((true, None)),
        Some(mode) => match mode.strip_prefix("container:").filter(|name| !name.is_empty()) {
            Some(name) => Ok((false, Some(name.to_owned()))),
            None => Err(CliError::new(format!("{flag}: invalid {kind} mode: {mode}"))),
        },
    }
}

fn ipc(mode: Option<&str>) -> Result<(bool, IpcShare), CliError> {
    match mode {
        Some("shareable") => Ok((false, IpcShare::Shareable)),
        Some("none") => Ok((false, IpcShare::None)),
        mode => {
            let (host, of) = shared("--ipc", "IPC", mode)?;
            Ok((host, of.map_or(IpcShare::Private, IpcShare::Of)))
        }
    }
}

/// What `--security-opt` says.
#[derive(Default)]
struct Security {
    no_new_privileges: bool,
    seccomp_unconfined: bool,
    profile: Option<String>,
    unmasked: bool,
    apparmor: String,
}

impl Security {
    fn parse(options: &[String]) -> Result<Security, CliError> {
        let mut security = Security::default();
        for option in options {
            let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
            security.set(option, name, value)?;
        }
        Ok(security)
    }

    fn set(&mut self, option: &str, name: &str, value: &str) -> Result<(), CliError> {
        match (name, value) {
            ("no-new-privileges", "" | "true") => self.no_new_privileges = true,
            ("no-new-privileges", "false") => self.no_new_privileges = false,
            ("seccomp", "unconfined" | "builtin") => {
                self.seccomp_unconfined = value == "unconfined";
                self.profile = None;
            }
            ("seccomp", path) if !path.is_empty() => self.profile = Some(read_profile(path)?),
            ("systempaths", "unconfined") => self.unmasked = true,
            ("apparmor", "unconfined" | "") => self.apparmor.clear(),
            ("apparmor", profile) => self.apparmor = profile.to_owned(),
            // What dhow does anyway.
            ("label", "disable") => {}
            ("label", _) => return Err(unsupported(&format!("--security-opt {option} (SELinux labels)"))),
            _ => return Err(CliError::new(format!("invalid --security-opt: \"{option}\""))),
        }
        Ok(())
    }
}

fn read_profile(path: &str) -> Result<String, CliError> {
    let failed = |error: std::io::Error| {
        CliError::new(format!("opening seccomp profile ({path}) failed: open {path}: {error}"))
    };
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(PROFILE_BYTES_MAX).read_to_string(&mut text));
    read.map_err(failed)?;
    Ok(text)
}
