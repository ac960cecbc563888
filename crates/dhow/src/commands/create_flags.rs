//! The flags that `run` and `create` share, and what they mean.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::ArgAction;
use dhow_engine::containers::{
    ContainerPort, CreateRequest, HostConfig, Limits, MountRequest, MountSource, PortMapping, Ulimit,
    parse_mount, parse_tmpfs, parse_volume,
};
use dhow_oci::Platform;
use dhow_template::units::ram_in_bytes;

use super::isolation_flags::IsolationFlags;
use super::life_flags::LifeFlags;
use super::limit_flags::LimitFlags;
use super::log_flags::LogFlags;
use super::network_flags::{NetworkFlags, Networks};
use super::refused_flags::ForeignFlags;
use crate::error::CliError;

/// The longest line of an `--env-file` or `--label-file`.
const LINE_BYTES_MAX: usize = 64 * 1024;
const NANOS_PER_CPU: f64 = 1e9;

/// When an image is pulled before a container is made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PullArg {
    /// Always
    Always,
    /// When it is not here
    Missing,
    /// Never
    Never,
}

#[derive(clap::Args, Debug)]
pub(crate) struct CreateFlags {
    /// Name of the container
    #[arg(long)]
    pub name: Option<String>,
    /// Publish a port of the container to the host (can be repeated)
    #[arg(short, long, value_name = "[IP:][HOST:]CONTAINER[/PROTOCOL]")]
    publish: Vec<String>,
    /// Publish all exposed ports to free ports of the host
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Expose a port or a range of ports (can be repeated)
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    expose: Vec<String>,
    /// Set an environment variable; without a value it is taken from the environment (can be repeated)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file (can be repeated)
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Mount a volume or a folder of the host (can be repeated)
    #[arg(short, long, value_name = "[SOURCE:]TARGET[:OPTIONS]")]
    volume: Vec<String>,
    /// Mount something, said at length (can be repeated)
    #[arg(long, value_name = "KEY=VALUE,…")]
    mount: Vec<String>,
    /// Mount an empty folder in memory (can be repeated)
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Mount the volumes of another container (can be repeated)
    #[arg(long, value_name = "CONTAINER[:ro]")]
    volumes_from: Vec<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User and optionally group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Additional group (can be repeated)
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Replace the ENTRYPOINT of the image
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    #[command(flatten)]
    pub(crate) networks: NetworkFlags,
    /// Host name of the container
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Label (can be repeated)
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Read labels from a file (can be repeated)
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Keep standard input open
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set)]
    pub interactive: bool,
    /// Give the container a terminal
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set)]
    pub tty: bool,
    /// Attach only to these: stdin, stdout, stderr (can be repeated)
    #[arg(short, long, value_name = "STREAM")]
    attach: Vec<StreamArg>,
    /// Remove the container when it ends
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set)]
    pub rm: bool,
    /// Run an init that forwards signals and reaps processes
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set)]
    init: bool,
    /// Add a capability (can be repeated)
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Take a capability away (can be repeated)
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Keep nothing of the host from the container
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set)]
    privileged: bool,
    /// Do not let the root file system be written
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set)]
    read_only: bool,
    /// Memory limit, such as 512m
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Limit of memory and swap together; -1 for unlimited swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Processors' worth of time, such as 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<f64>,
    /// Share of processor time, relative to 1024
    #[arg(short = 'c', long)]
    cpu_shares: Option<u64>,
    /// Processor time in a period, in microseconds
    #[arg(long)]
    cpu_quota: Option<i64>,
    /// Period of the processor time limit, in microseconds
    #[arg(long)]
    cpu_period: Option<u64>,
    /// Processors to run on, such as 0-2,4
    #[arg(long, value_name = "PROCESSORS")]
    cpuset_cpus: Option<String>,
    /// Limit of processes and threads; -1 for none
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Limit of a process, such as nofile=1024:4096 (can be repeated)
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<Ulimit>,
    /// Kernel parameter (can be repeated)
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// Signal that asks the container to stop
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds until a container that was asked to stop is killed
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    stop_timeout: Option<i64>,
    #[command(flatten)]
    log: LogFlags,
    /// OCI runtime to use instead of dhow's own
    #[arg(long, value_name = "PROGRAM")]
    runtime: Option<String>,
    /// Write the id of the container to this file
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// When to pull the image
    #[arg(long, value_enum, default_value = "missing")]
    pub pull: PullArg,
    /// What the image shall run on, such as linux/amd64
    #[arg(long, env = "DOCKER_DEFAULT_PLATFORM")]
    pub platform: Option<Platform>,
    /// Do not show the pull
    #[arg(short, long)]
    pub quiet: bool,
    /// Of no effect, as in docker
    #[arg(long, hide = true)]
    disable_content_trust: bool,
    #[command(flatten)]
    life: LifeFlags,
    #[command(flatten)]
    isolation: IsolationFlags,
    #[command(flatten)]
    more_limits: LimitFlags,
    /// Driver of volumes that have to be made: local
    #[arg(long, value_name = "DRIVER")]
    volume_driver: Option<String>,
    #[command(flatten)]
    foreign: ForeignFlags,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Image, and the program to run in it
    #[arg(value_name = "IMAGE [COMMAND] [ARG…]", required = true, trailing_var_arg = true)]
    image_and_command: Vec<String>,
}

/// A standard stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lowercase")]
enum StreamArg {
    Stdin,
    Stdout,
    Stderr,
}

/// Which streams of a container the user is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttachedStreams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

impl CreateFlags {
    /// What `run` attaches to.
    pub(crate) fn attached_streams(&self) -> AttachedStreams {
        let has = |stream| self.attach.is_empty() || self.attach.contains(&stream);
        AttachedStreams {
            stdin: if self.attach.is_empty() { self.interactive } else { has(StreamArg::Stdin) },
            stdout: has(StreamArg::Stdout),
            stderr: has(StreamArg::Stderr),
        }
    }

    /// The image as written.
    pub(crate) fn image(&self) -> &str {
        self.image_and_command.first().map_or("", String::as_str)
    }

    /// What is left to say when the container is made.
    pub(crate) fn warnings(&self) -> Option<&'static str> {
        let publishes = !self.publish.is_empty() || self.publish_all;
        (publishes && self.networks.is_host())
            .then_some("Published ports are discarded when using host network mode")
    }

    /// What is asked for. `detached` says that nobody will be attached to standard input.
    pub(crate) fn request(&self, detached: bool) -> Result<CreateRequest, CliError> {
        self.foreign.check()?;
        let folder = std::env::current_dir()
            .map_err(|error| CliError::new(format!("cannot tell the current directory: {error}")))?;
        let networks = self.networks.networks()?;
        let mut words = self.image_and_command.iter().cloned();
        Ok(CreateRequest {
            image: words.next().unwrap_or_default(),
            platform: self.platform.clone(),
            name: self.name.clone(),
            command: words.collect(),
            entrypoint: self.entrypoint.clone().map(|program| match program.is_empty() {
                true => Vec::new(),
                false => vec![program],
            }),
            env: environment(&self.env_file, &self.env)?,
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            labels: self.labels()?,
            expose: self.exposed()?,
            stop_signal: self.stop_signal.clone(),
            healthcheck: self.life.health()?,
            mounts: self.mounts(&folder)?,
            volumes_from: self
                .volumes_from
                .iter()
                .map(|text| volumes_from(text))
                .collect::<Result<_, _>>()?,
            host: self.host(detached, &networks)?,
            networks: networks.endpoints,
        })
    }

    fn host(&self, detached: bool, networks: &Networks) -> Result<HostConfig, CliError> {
        let published = self.publish.iter().map(|text| {
            let mappings = PortMapping::parse(text);
            mappings.map_err(|error| CliError::new(format!("invalid publish specification {text}: {error}")))
        });
        let isolation = self.isolation.isolation()?;
        Ok(HostConfig {
            hostname: self.hostname.clone(),
            tty: self.tty,
            open_stdin: self.interactive,
            stdin_once: self.interactive && !detached,
            groups: self.group_add.clone(),
            publish: published.collect::<Result<Vec<_>, CliError>>()?.concat(),
            publish_all: self.publish_all,
            network: networks.mode.clone(),
            links: networks.links.clone(),
            dns: self.networks.dns(),
            extra_hosts: self.networks.extra_hosts()?,
            restart: self.life.restart(self.rm)?,
            auto_remove: self.rm,
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            privileged: self.privileged,
            read_only: self.read_only,
            no_new_privileges: isolation.no_new_privileges,
            seccomp_unconfined: isolation.seccomp_unconfined,
            init: self.init,
            pid_host: isolation.pid_host,
            ipc_host: isolation.ipc_host,
            uts_host: isolation.uts_host,
            cgroup_host: isolation.cgroup_host,
            rare: isolation.rare,
            limits: self.limits()?,
            ulimits: self.ulimit.clone(),
            sysctls: self.sysctls()?,
            shm_bytes: self.shm_size.as_deref().map(|text| bytes("--shm-size", text)).transpose()?,
            stop_timeout_s: self.stop_timeout,
            log: self.log.config()?,
            runtime: self.runtime.as_deref().map(find_runtime).transpose()?.flatten(),
        })
    }

    fn limits(&self) -> Result<Limits, CliError> {
        let signed = |flag: &str, text: &String| match text.as_str() {
            "-1" => Ok(-1),
            text => Ok::<i64, CliError>(i64::try_from(bytes(flag, text)?).unwrap_or(i64::MAX)),
        };
        // In Docker, 0 is as good as nothing said.
        let said = |value: i64| (value != 0).then_some(value);
        self.more_limits.add_to(Limits {
            memory_bytes: self
                .memory
                .as_ref()
                .map(|text| signed("-m, --memory", text))
                .transpose()?
                .and_then(said),
            memory_swap_bytes: self
                .memory_swap
                .as_ref()
                .map(|text| signed("--memory-swap", text))
                .transpose()?
                .and_then(said),
            cpu_shares: self.cpu_shares.filter(|shares| *shares != 0),
            nano_cpus: self.cpus.map(|cpus| (cpus * NANOS_PER_CPU).round() as i64).and_then(said),
            cpu_quota_us: self.cpu_quota.and_then(said),
            cpu_period_us: self.cpu_period.filter(|period| *period != 0),
            cpuset_cpus: self.cpuset_cpus.clone().filter(|text| !text.is_empty()),
            pids_max: self.pids_limit.and_then(said),
            ..Limits::default()
        })
    }

    fn labels(&self) -> Result<BTreeMap<String, String>, CliError> {
        let mut lines = Vec::new();
        for path in &self.label_file {
            lines.extend(read_lines(path)?);
        }
        lines.extend(self.label.iter().cloned());
        let pair = |line: &String| {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            (name.to_owned(), value.to_owned())
        };
        Ok(lines.iter().map(pair).collect())
    }

    fn exposed(&self) -> Result<Vec<ContainerPort>, CliError> {
        let parse = |text: &String| {
            let ports = ContainerPort::parse_range(text);
            ports.map_err(|error| {
                CliError::new(format!("invalid range format for --expose: {text}, error: {error}"))
            })
        };
        Ok(self.expose.iter().map(parse).collect::<Result<Vec<_>, _>>()?.concat())
    }

    fn mounts(&self, folder: &Path) -> Result<Vec<MountRequest>, CliError> {
        let mut mounts = Vec::new();
        for text in &self.volume {
            let mut mount = parse_volume(text, folder)?;
            if let (MountSource::Volume(volume), Some(driver)) = (&mut mount.source, &self.volume_driver) {
                volume.driver.clone_from(driver);
            }
            mounts.push(mount);
        }
        for text in &self.mount {
            let fields = dhow_engine::csv_fields(text).map_err(|reason| {
                CliError::new(format!("invalid argument \"{text}\" for \"--mount\" flag: {reason}"))
            })?;
            mounts.push(parse_mount(text, &fields, folder)?);
        }
        for text in &self.tmpfs {
            mounts.push(parse_tmpfs(text)?);
        }
        Ok(mounts)
    }

    fn sysctls(&self) -> Result<BTreeMap<String, String>, CliError> {
        let pair = |text: &String| match text.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(CliError::new(format!(
                "invalid argument \"{text}\" for \"--sysctl\" flag: expected NAME=VALUE"
            ))),
        };
        self.sysctl.iter().map(pair).collect()
    }
}

/// What `--env-file` and `--env` say, in this order.
pub(crate) fn environment(files: &[PathBuf], variables: &[String]) -> Result<Vec<String>, CliError> {
    let mut env = Vec::new();
    for path in files {
        env.extend(read_lines(path)?.into_iter().filter_map(|line| variable(&line)));
    }
    for text in variables {
        if text.starts_with('=') || text.is_empty() {
            return Err(CliError::new(format!(
                "invalid argument \"{text}\" for \"-e, --env\" flag: invalid environment variable: {text}"
            )));
        }
        // A name the environment does not have removes the image's variable, as in docker.
        env.push(variable(text).unwrap_or_else(|| text.clone()));
    }
    Ok(env)
}

pub(crate) fn unsupported(what: &str) -> CliError {
    CliError::new(format!("{what} is not supported yet"))
}

pub(crate) fn bytes(flag: &str, text: &str) -> Result<u64, CliError> {
    ram_in_bytes(text)
        .map_err(|error| CliError::new(format!("invalid argument \"{text}\" for \"{flag}\" flag: {error}")))
}

/// `NAME=value` as it is; a bare `NAME` with its value in the environment, if it has one.
fn variable(text: &str) -> Option<String> {
    match text.contains('=') {
        true => Some(text.to_owned()),
        false => std::env::var(text).ok().map(|value| format!("{text}={value}")),
    }
}

/// The lines of a file that are neither empty nor comments.
fn read_lines(path: &Path) -> Result<Vec<String>, CliError> {
    let failed = |error: io::Error| CliError::new(format!("open {}: {error}", path.display()));
    let mut lines = Vec::new();
    for line in io::BufReader::new(fs::File::open(path).map_err(failed)?).lines() {
        let line = line.map_err(failed)?;
        if line.len() > LINE_BYTES_MAX {
            return Err(CliError::new(format!(
                "{}: a line is longer than {LINE_BYTES_MAX} bytes",
                path.display()
            )));
        }
        let line = line.trim_start();
        if !line.is_empty() && !line.starts_with('#') {
            lines.push(line.to_owned());
        }
    }
    Ok(lines)
}

pub(crate) fn extra_host(text: &str) -> Result<(String, Option<IpAddr>), CliError> {
    let invalid =
        |what: &str| CliError::new(format!("invalid argument \"{text}\" for \"--add-host\" flag: {what}"));
    let (name, address) = text.split_once(['=', ':']).ok_or_else(|| invalid("bad format for add-host"))?;
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    match bare {
        _ if name.is_empty() => Err(invalid("bad format for add-host")),
        "host-gateway" => Ok((name.to_owned(), None)),
        bare => match bare.parse() {
            Ok(address) => Ok((name.to_owned(), Some(address))),
            Err(_) => Err(invalid(&format!("invalid IP address in add-host: {bare:?}"))),
        },
    }
}

fn volumes_from(text: &str) -> Result<(String, bool), CliError> {
    match text.split_once(':') {
        None => Ok((text.to_owned(), false)),
        Some((container, "ro")) => Ok((container.to_owned(), true)),
        Some((container, "rw" | "z" | "Z")) => Ok((container.to_owned(), false)),
        Some((_, mode)) => Err(CliError::new(format!("invalid mode for volumes-from: {mode}"))),
    }
}

/// The program of a runtime; `None` is dhow's own.
fn find_runtime(text: &str) -> Result<Option<PathBuf>, CliError> {
    if matches!(text, "" | "dhow" | "native") {
        return Ok(None);
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let candidates: Vec<PathBuf> = match text.contains('/') {
        true => vec![PathBuf::from(text)],
        false => std::env::split_paths(&folders).map(|folder| folder.join(text)).collect(),
    };
    match candidates.into_iter().find(|path| path.is_file()) {
        Some(path) => Ok(Some(std::path::absolute(&path).unwrap_or(path))),
        None => Err(CliError::new(format!("unknown or invalid runtime name: {text}"))),
    }
}
