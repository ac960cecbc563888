//! `POST /containers/create`: Docker's JSON as a request to the engine.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use dhow_engine::containers::{
    ContainerPort, CreateRequest, DeviceRequest, DeviceRule, DnsOptions, HealthConfig, HostConfig, IpcShare,
    Limits, LogConfig, MountRequest, NetworkMode, PortMapping, RareConfig, RestartPolicy, Ulimit,
    parse_mount, parse_tmpfs, parse_volume,
};
use dhow_engine::networks::{EndpointConfig, Link};
use hyper::StatusCode;
use serde_json::{Value, json};

use super::create_body::{Binding, Body, Device, Health, Host, Log, Restart, Words};
use super::error::ApiError;
use super::exchange::{Call, Reply};
use super::networks::Endpoint;

pub(super) fn create(mut call: Call) -> Result<Reply, ApiError> {
    let body: Body = call.json()?;
    let mut request = body.request()?;
    request.name = call.query.get("name").map(|name| name.strip_prefix('/').unwrap_or(name).to_owned());
    request.platform = super::images::platform(&call)?;
    let created = call.engine.containers().create(&request)?;
    Ok(Reply::Json(StatusCode::CREATED, json!({ "Id": created.id, "Warnings": [] })))
}

impl Restart {
    /// Nothing is said.
    pub(super) fn is_empty(&self) -> bool {
        self.name.is_empty()
    }

    pub(super) fn parse(&self) -> Result<RestartPolicy, ApiError> {
        let text = match self.maximum_retry_count {
            0 => self.name.clone(),
            count => format!("{}:{count}", self.name),
        };
        text.parse()
            .map_err(|error: dhow_engine::containers::RestartPolicyError| ApiError::bad(error.to_string()))
    }
}

impl Body {
    fn request(self) -> Result<CreateRequest, ApiError> {
        if self.image.is_empty() {
            return Err(ApiError::bad("the body names no Image"));
        }
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        let port =
            |text: &String| text.parse::<ContainerPort>().map_err(|error| ApiError::bad(error.to_string()));
        let mut mounts = self.host_config.mounts()?;
        for path in self.volumes.keys() {
            if !mounts.iter().any(|mount| mount.target == *path) {
                mounts.push(
                    parse_volume(path, Path::new("/")).map_err(|error| ApiError::bad(error.to_string()))?,
                );
            }
        }
        let health = |health: Health| HealthConfig {
            test: health.test,
            interval: health.interval,
            timeout: health.timeout,
            start_period: health.start_period,
            start_interval: health.start_interval,
            retries: health.retries,
        };
        let expose = self.exposed_ports.keys().map(port).collect::<Result<_, _>>()?;
        let volumes_from =
            self.host_config.volumes_from.iter().map(|text| volumes_from(text)).collect::<Result<_, _>>()?;
        let mut host = self.host_config.host()?;
        let networks = networks(&host.network, self.networking_config.endpoints_config, &self.mac_address)?;
        host.hostname = text(self.hostname);
        host.rare.domainname = self.domainname;
        (host.tty, host.open_stdin, host.stdin_once) = (self.tty, self.open_stdin, self.stdin_once);
        host.stop_timeout_s = self.stop_timeout;
        Ok(CreateRequest {
            image: self.image,
            command: self.cmd.map(Words::list).unwrap_or_default(),
            entrypoint: self.entrypoint.map(Words::list),
            env: self.env,
            workdir: text(self.working_dir),
            user: text(self.user),
            labels: self.labels,
            expose,
            stop_signal: text(self.stop_signal),
            healthcheck: self.healthcheck.map(health),
            mounts,
            volumes_from,
            networks,
            host,
            ..CreateRequest::default()
        })
    }
}

/// The networks of a container, that of its mode first. Older clients say the hardware address beside them.
fn networks(
    mode: &NetworkMode,
    endpoints: BTreeMap<String, Option<Endpoint>>,
    mac: &str,
) -> Result<Vec<(String, EndpointConfig)>, ApiError> {
    let first = match mode.to_string() {
        mode if mode == "default" => "bridge".to_owned(),
        mode => mode,
    };
    let mut networks = Vec::new();
    for (name, endpoint) in endpoints {
        let name = if name == "default" { "bridge".to_owned() } else { name };
        networks.push((name, endpoint.unwrap_or_default().config()?));
    }
    if !mac.is_empty() {
        let address = mac.parse().map_err(|_| ApiError::bad(format!("invalid MAC address: {mac}")))?;
        match networks.iter_mut().find(|(name, _)| *name == first) {
            Some((_, endpoint)) => endpoint.mac = Some(address),
            None => networks
                .push((first.clone(), EndpointConfig { mac: Some(address), ..EndpointConfig::default() })),
        }
    }
    if !networks.is_empty() && !networks.iter().any(|(name, _)| *name == first) {
        networks.push((first.clone(), EndpointConfig::default()));
    }
    networks.sort_by_key(|(name, _)| *name != first);
    Ok(networks)
}

/// `CONTAINER[:ro]`.
fn volumes_from(text: &str) -> Result<(String, bool), ApiError> {
    match text.split_once(':') {
        None => Ok((text.to_owned(), false)),
        Some((container, "ro")) => Ok((container.to_owned(), true)),
        Some((container, "rw" | "z" | "Z")) => Ok((container.to_owned(), false)),
        Some((_, mode)) => Err(ApiError::bad(format!("invalid mode: {mode}"))),
    }
}

impl Host {
    fn mounts(&self) -> Result<Vec<MountRequest>, ApiError> {
        let bad = |error: dhow_engine::containers::MountError| ApiError::bad(error.to_string());
        let root = Path::new("/");
        let mut mounts = Vec::new();
        for text in &self.binds {
            mounts.push(parse_volume(text, root).map_err(bad)?);
        }
        for mount in &self.mounts {
            let fields = mount_fields(mount)?;
            mounts.push(parse_mount(&fields.join(","), &fields, root).map_err(bad)?);
        }
        for (target, options) in &self.tmpfs {
            let colon = if options.is_empty() { "" } else { ":" };
            mounts.push(parse_tmpfs(&format!("{target}{colon}{options}")).map_err(bad)?);
        }
        Ok(mounts)
    }

    fn host(self) -> Result<HostConfig, ApiError> {
        self.check_rest()?;
        let bad = |error: &dyn std::error::Error| ApiError::bad(error.to_string());
        let set = |number: i64| Some(number).filter(|number| *number != 0);
        let mut publish = Vec::new();
        for (port, bindings) in &self.port_bindings {
            for Binding { host_ip, host_port } in bindings.iter().flatten() {
                let host_ip = if host_ip.contains(':') { format!("[{host_ip}]") } else { host_ip.clone() };
                let text = format!("{host_ip}:{host_port}:{port}");
                publish.extend(PortMapping::parse(&text).map_err(|error| bad(&error))?);
            }
        }
        let address = |text: &String| {
            text.parse::<IpAddr>().map_err(|_| ApiError::bad(format!("{text} is not an IP address")))
        };
        let (pid_host, pid_of) = shared("PID", &self.pid_mode)?;
        let (ipc_host, ipc) = match self.ipc_mode.as_str() {
            "shareable" => (false, IpcShare::Shareable),
            "none" => (false, IpcShare::None),
            mode => {
                let (host, of) = shared("IPC", mode)?;
                (host, of.map_or(IpcShare::Private, IpcShare::Of))
            }
        };
        if !matches!(self.userns_mode.as_str(), "" | "host") {
            return Err(ApiError::bad(format!("invalid USER mode: {}", self.userns_mode)));
        }
        let rules =
            self.device_cgroup_rules.iter().map(|text| text.parse::<DeviceRule>()).collect::<Result<_, _>>();
        let mut host = HostConfig {
            groups: self.group_add,
            publish,
            publish_all: self.publish_all_ports,
            network: self.network_mode.parse().map_err(|error| bad(&error))?,
            dns: DnsOptions {
                servers: self.dns.iter().map(address).collect::<Result<_, _>>()?,
                search: self.dns_search,
                options: self.dns_options,
            },
            extra_hosts: self.extra_hosts.iter().map(|text| extra_host(text)).collect::<Result<_, _>>()?,
            restart: self.restart_policy.parse()?,
            auto_remove: self.auto_remove,
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            privileged: self.privileged,
            read_only: self.readonly_rootfs,
            init: self.init.unwrap_or(false),
            pid_host,
            ipc_host,
            uts_host: is_host("UTS", &self.uts_mode, "")?,
            cgroup_host: is_host("CGROUP", &self.cgroupns_mode, "private")?,
            limits: Limits {
                memory_bytes: set(self.memory),
                memory_swap_bytes: set(self.memory_swap),
                cpu_shares: Some(self.cpu_shares).filter(|shares| *shares != 0),
                nano_cpus: set(self.nano_cpus),
                cpu_quota_us: set(self.cpu_quota),
                cpu_period_us: Some(self.cpu_period).filter(|period| *period != 0),
                cpuset_cpus: Some(self.cpuset_cpus).filter(|cpus| !cpus.is_empty()),
                pids_max: self.pids_limit.filter(|pids| *pids != 0),
                cpuset_mems: Some(self.cpuset_mems).filter(|nodes| !nodes.is_empty()),
                memory_reservation_bytes: set(self.memory_reservation),
                memory_swappiness: self.memory_swappiness.filter(|swappiness| *swappiness != -1),
                oom_kill_disable: self.oom_kill_disable,
                cpu_rt_runtime_us: set(self.cpu_rt_runtime),
                cpu_rt_period_us: set(self.cpu_rt_period),
                blkio_weight: Some(self.blkio_weight).filter(|weight| *weight != 0),
                blkio: Vec::new(),
            },
            ulimits: self
                .ulimits
                .into_iter()
                .map(|limit| Ulimit { name: limit.name, soft: limit.soft, hard: limit.hard })
                .collect(),
            sysctls: self.sysctls,
            shm_bytes: Some(self.shm_size).filter(|bytes| *bytes != 0),
            log: log(self.log_config)?,
            links: self.links.iter().map(|text| link(text)).collect(),
            rare: RareConfig {
                devices: self.devices.iter().map(device).collect::<Result<_, _>>()?,
                device_rules: rules.map_err(|error| bad(&error))?,
                pid_of,
                ipc,
                annotations: self.annotations,
                oom_score_adj: set(self.oom_score_adj),
                unmasked: self.masked_paths.is_some_and(|paths| paths.is_empty())
                    && self.readonly_paths.is_none_or(|paths| paths.is_empty()),
                ..RareConfig::default()
            },
            ..HostConfig::default()
        };
        if !matches!(self.runtime.as_str(), "" | "dhow") {
            return Err(ApiError::bad(format!("unknown or invalid runtime name: {}", self.runtime)));
        }
        security(&self.security_opt, &mut host)?;
        Ok(host)
    }

    /// Refuses what would be ignored.
    fn check_rest(&self) -> Result<(), ApiError> {
        /// They say where something came from, not what it shall be.
        const ABOUT_THE_CLIENT: [&str; 2] = ["ConsoleSize", "ContainerIDFile"];
        let asks = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Bool(true) => true,
            Value::Number(number) => !matches!(number.as_i64(), Some(0 | -1)),
            Value::String(text) => !matches!(text.as_str(), "" | "default"),
            Value::Array(list) => !list.is_empty(),
            Value::Object(fields) => !fields.is_empty(),
        };
        let mut asked = self.rest.iter().filter(|(name, _)| !ABOUT_THE_CLIENT.contains(&name.as_str()));
        match asked.find(|(_, value)| asks(value)) {
            Some((name, _)) => Err(ApiError::unsupported(format_args!("HostConfig.{name}"))),
            None => Ok(()),
        }
    }
}

fn is_host(kind: &str, mode: &str, own: &str) -> Result<bool, ApiError> {
    match mode {
        "" => Ok(false),
        "host" => Ok(true),
        mode if mode == own => Ok(false),
        mode => Err(ApiError::bad(format!("invalid {kind} mode: {mode}"))),
    }
}

/// Whether the host's are used, or whose.
fn shared(kind: &str, mode: &str) -> Result<(bool, Option<String>), ApiError> {
    match (mode, mode.strip_prefix("container:")) {
        ("" | "private", _) => Ok((false, None)),
        ("host", _) => Ok((true, None)),
        (_, Some(name)) if !name.is_empty() => Ok((false, Some(name.to_owned()))),
        _ => Err(ApiError::bad(format!("invalid {kind} mode: {mode}"))),
    }
}

fn device(device: &Device) -> Result<DeviceRequest, ApiError> {
    let Device { path_on_host, path_in_container, cgroup_permissions } = device;
    let target = if path_in_container.is_empty() { path_on_host } else { path_in_container };
    let access = if cgroup_permissions.is_empty() { "rwm" } else { cgroup_permissions };
    let parsed = format!("{path_on_host}:{target}:{access}").parse::<DeviceRequest>();
    parsed.map_err(|error| ApiError::bad(error.to_string()))
}

/// `CONTAINER[:ALIAS]`, where clients may put a slash before either.
fn link(text: &str) -> Link {
    let (container, alias) = text.split_once(':').unwrap_or((text, text));
    let (container, alias) =
        (container.trim_start_matches('/').to_owned(), alias.rsplit('/').next().unwrap_or(alias));
    Link { name: container.clone(), container, alias: alias.to_owned() }
}

pub(super) fn extra_host(text: &str) -> Result<(String, Option<IpAddr>), ApiError> {
    let invalid = || ApiError::bad(format!("invalid extra host: {text}"));
    let (name, address) = text.split_once(['=', ':']).ok_or_else(invalid)?;
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    match bare {
        "host-gateway" => Ok((name.to_owned(), None)),
        bare => Ok((name.to_owned(), Some(bare.parse().map_err(|_| invalid())?))),
    }
}

fn security(options: &[String], host: &mut HostConfig) -> Result<(), ApiError> {
    for option in options {
        let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (name, value) {
            ("no-new-privileges", "" | "true") => host.no_new_privileges = true,
            ("no-new-privileges", "false") => host.no_new_privileges = false,
            ("seccomp", "unconfined" | "builtin") => {
                host.seccomp_unconfined = value == "unconfined";
                host.rare.seccomp_profile = None;
            }
            // Clients send the profile itself.
            ("seccomp", profile) if !profile.is_empty() => {
                host.rare.seccomp_profile = Some(profile.to_owned())
            }
            ("systempaths", "unconfined") => host.rare.unmasked = true,
            ("apparmor", "unconfined" | "") => host.rare.apparmor_profile.clear(),
            ("apparmor", profile) => host.rare.apparmor_profile = profile.to_owned(),
            // What dhow does anyway.
            ("label", "disable") => {}
            _ => return Err(ApiError::bad(format!("invalid --security-opt: \"{option}\""))),
        }
    }
    Ok(())
}

fn log(log: Log) -> Result<LogConfig, ApiError> {
    crate::log_config::parse(&log.kind, log.config).map_err(ApiError::bad)
}

/// A mount in the fields of `--mount`.
fn mount_fields(mount: &Value) -> Result<Vec<String>, ApiError> {
    /// Docker's names, at whatever depth, and those of `--mount`.
    const NAMES: &[(&str, &str)] = &[
        ("/Type", "type"),
        ("/Source", "source"),
        ("/Target", "target"),
        ("/ReadOnly", "readonly"),
        ("/Consistency", "consistency"),
        ("/BindOptions/Propagation", "bind-propagation"),
        ("/BindOptions/NonRecursive", "bind-nonrecursive"),
        ("/BindOptions/CreateMountpoint", "bind-create-src"),
        ("/VolumeOptions/NoCopy", "volume-nocopy"),
        ("/VolumeOptions/Subpath", "volume-subpath"),
        ("/VolumeOptions/DriverConfig/Name", "volume-driver"),
        ("/TmpfsOptions/SizeBytes", "tmpfs-size"),
        ("/ImageOptions/Subpath", "image-subpath"),
    ];
    let mut fields = Vec::new();
    for (path, name) in NAMES {
        let value = match mount.pointer(path) {
            None | Some(Value::Null | Value::Bool(false)) => continue,
            Some(Value::Bool(true)) => "true".to_owned(),
            Some(Value::String(text)) if text.is_empty() => continue,
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) if number.as_i64() == Some(0) => continue,
            Some(Value::Number(number)) => number.to_string(),
            Some(_) => return Err(ApiError::bad(format!("invalid mount: {mount}"))),
        };
        fields.push(format!("{name}={value}"));
    }
    if let Some(mode) = mount.pointer("/TmpfsOptions/Mode").and_then(Value::as_u64).filter(|mode| *mode != 0)
    {
        fields.push(format!("tmpfs-mode={mode:o}"));
    }
    for (path, name) in
        [("/VolumeOptions/Labels", "volume-label"), ("/VolumeOptions/DriverConfig/Options", "volume-opt")]
    {
        for (key, value) in mount.pointer(path).and_then(Value::as_object).into_iter().flatten() {
            fields.push(format!("{name}={key}={}", value.as_str().unwrap_or_default()));
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(value: Value) -> Result<CreateRequest, String> {
        let body: Body = serde_json::from_value(value).map_err(|error| error.to_string())?;
        body.request().map_err(|error| error.message)
    }

    #[test]
    fn what_docker_run_sends_is_understood() {
        let request = request(json!({
            "Hostname": "", "Domainname": "", "User": "1000", "AttachStdin": false, "Tty": true, "OpenStdin": true,
            "StdinOnce": true, "Env": ["A=b"], "Cmd": ["sh", "-c", "true"], "Image": "busybox", "Volumes": { "/v": {} },
            "ExposedPorts": { "80/tcp": {} }, "Entrypoint": null, "OnBuild": null, "Labels": { "a": "b" },
            "HostConfig": {
                "Binds": ["/src:/dst:ro", "data:/data"], "NetworkMode": "default", "ContainerIDFile": "x",
                "LogConfig": { "Type": "", "Config": {} }, "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
                "PortBindings": { "80/tcp": [{ "HostIp": "::1", "HostPort": "8080" }, { "HostPort": "" }] },
                "Memory": 8388608, "MemorySwappiness": -1, "ConsoleSize": [24, 80], "CapAdd": null, "Isolation": "",
                "Mounts": [{ "Type": "tmpfs", "Target": "/t", "TmpfsOptions": { "SizeBytes": 4096, "Mode": 448 } }],
            },
            "NetworkingConfig": { "EndpointsConfig": {} },
        }))
        .unwrap();
        assert_eq!(request.command, ["sh", "-c", "true"]);
        assert!(request.entrypoint.is_none() && request.host.tty);
        let targets: Vec<&str> = request.mounts.iter().map(|mount| mount.target.as_str()).collect();
        assert_eq!(targets, ["/dst", "/data", "/t", "/v"]);
        assert_eq!(request.host.publish.len(), 2);
        assert_eq!(request.host.limits.memory_bytes, Some(8 << 20));
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let refused = |host: Value| request(json!({ "Image": "x", "HostConfig": host })).unwrap_err();
        assert_eq!(
            refused(json!({ "StorageOpt": { "size": "1G" } })),
            "HostConfig.StorageOpt is not supported by dhow"
        );
        assert!(
            refused(json!({ "RestartPolicy": { "Name": "sometimes" } })).contains("invalid restart policy")
        );
        assert!(refused(json!({ "LogConfig": { "Type": "syslog" } })).contains("syslog is not supported"));
        assert!(refused(json!({ "PortBindings": { "x/tcp": [{}] } })).contains('x'));
        assert!(request(json!({ "Image": "x", "Env": 1 })).is_err());
        assert!(request(json!({})).is_err());
    }
}
