//! Containers as Docker describes them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dhow_engine::containers::{
    BlkioKind, BoundPort, Container, ContainerDetails, ContainerPort, DeviceRequest, ExitStatus, Health,
    HealthStatus, HostConfig, HostPort, IpcShare, Limits, LogConfig, Mount, MountKind, NetworkMode,
    PortMapping, ProbeResult, Relabel, State, short_id,
};
use dhow_template::units::human_duration;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// What Docker says for a time that never was.
const NO_TIME: &str = "0001-01-01T00:00:00Z";
/// Size of /dev/shm when nobody says another.
const SHM_BYTES: u64 = 64 << 20;

/// How a container is doing, in words: `Up 3 seconds`, `Exited (0) 2 minutes ago`.
pub fn status(state: &State, health: Option<HealthStatus>, now: Timestamp) -> String {
    let ago = |time: &str| human_duration(seconds_since(time, now));
    match state {
        State::Created | State::Starting => "Created".into(),
        State::Running { started_at, paused, .. } => {
            let more = match (paused, health) {
                (true, _) => " (Paused)",
                (false, Some(HealthStatus::Starting)) => " (health: starting)",
                (false, Some(HealthStatus::Healthy)) => " (healthy)",
                (false, Some(HealthStatus::Unhealthy)) => " (unhealthy)",
                (false, None) => "",
            };
            format!("Up {}{more}", ago(started_at))
        }
        State::Restarting { status, .. } => {
            format!("Restarting ({}) {} ago", status.exit_code, ago(&status.finished_at))
        }
        State::Exited { status, .. } => {
            format!("Exited ({}) {} ago", status.exit_code, ago(&status.finished_at))
        }
    }
}

/// How long ago a container was made, in words.
pub fn running_for(container: &Container, now: Timestamp) -> String {
    format!("{} ago", human_duration(seconds_since(&container.record.created, now)))
}

/// A time that cannot be read is taken for now, and one in the future too.
fn seconds_since(time: &str, now: Timestamp) -> u64 {
    let then = time.parse::<Timestamp>().unwrap_or(now);
    u64::try_from(now.as_second() - then.as_second()).unwrap_or(0)
}

/// A port of a container, as lists show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRow {
    /// The container's side.
    pub container: ContainerPort,
    /// The host's side, if it is published.
    pub host: Option<(IpAddr, u16)>,
}

/// The ports of a running container: the published ones, and those that are only exposed.
pub fn ports(container: &Container) -> Vec<PortRow> {
    if !container.state.is_running() || container.record.host.network == NetworkMode::Host {
        return Vec::new();
    }
    let bound: Vec<BoundPort> =
        container.attached.iter().flat_map(|attached| &attached.ports).copied().collect();
    let published = bound.iter().map(|bound| PortRow {
        container: bound.container_port,
        host: Some((bound.host_ip, bound.host_port)),
    });
    let is_published = |port: &ContainerPort| bound.iter().any(|bound| bound.container_port == *port);
    let exposed = container.record.exposed().into_iter().filter(|port| !is_published(port));
    let mut rows: Vec<PortRow> =
        published.chain(exposed.map(|container| PortRow { container, host: None })).collect();
    rows.sort();
    rows
}

/// The ports on one line: `0.0.0.0:5000->5000/tcp, 80/tcp`. Neighbours with the same number on both sides are joined.
pub fn ports_text(rows: &[PortRow]) -> String {
    let (mut ranges, mut others): (Vec<Range>, Vec<String>) = (Vec::new(), Vec::new());
    for row in rows {
        let (port, protocol) = (row.container.port, row.container.protocol.to_string());
        let ip = match row.host {
            Some((ip, public)) if public != port => {
                others.push(format!("{}->{}", at(ip, &public.to_string()), row.container));
                continue;
            }
            host => host.map(|(ip, _)| ip),
        };
        let last = ranges.iter_mut().rev().find(|range| range.ip == ip && range.protocol == protocol);
        match last {
            Some(range) if range.last.checked_add(1) == Some(port) => range.last = port,
            _ => ranges.push(Range { ip, protocol, first: port, last: port }),
        }
    }
    ranges.iter().map(Range::text).chain(others).collect::<Vec<String>>().join(", ")
}

struct Range {
    ip: Option<IpAddr>,
    protocol: String,
    first: u16,
    last: u16,
}

impl Range {
    fn text(&self) -> String {
        let ports = match self.first == self.last {
            true => self.first.to_string(),
            false => format!("{}-{}", self.first, self.last),
        };
        match self.ip {
            Some(ip) => format!("{}->{ports}/{}", at(ip, &ports), self.protocol),
            None => format!("{ports}/{}", self.protocol),
        }
    }
}

fn at(ip: IpAddr, port: &str) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{ip}:{port}"),
        IpAddr::V6(ip) => format!("[{ip}]:{port}"),
    }
}

/// `GET /containers/json`: one of the list.
pub fn summary(container: &Container) -> Value {
    let record = &container.record;
    let port = |row: &PortRow| {
        let mut port =
            json!({ "PrivatePort": row.container.port, "Type": row.container.protocol.to_string() });
        if let Some((ip, public)) = row.host {
            port["IP"] = ip.to_string().into();
            port["PublicPort"] = public.into();
        }
        port
    };
    let health = container.health.as_ref().map(|health| health.status);
    let created = record.created.parse::<Timestamp>().map_or(0, |time| time.as_second());
    json!({
        "Id": container.id,
        "Names": [format!("/{}", container.name)],
        "Image": record.image_name,
        "ImageID": record.image.to_string(),
        "Command": record.args().join(" "),
        "Created": created,
        "Ports": ports(container).iter().map(port).collect::<Vec<_>>(),
        "Labels": record.config.labels,
        "State": container.state.word(),
        "Status": status(&container.state, health, Timestamp::now()),
        "HostConfig": { "NetworkMode": record.host.network.to_string() },
        "NetworkSettings": { "Networks": crate::network::settings(container)["Networks"] },
        "Mounts": record.mounts.iter().map(|mount| mount_point(mount, None)).collect::<Vec<_>>(),
    })
}

/// The answer to `GET /containers/{id}/json`.
pub fn inspect(details: &ContainerDetails) -> Value {
    let container = &details.container;
    let record = &container.record;
    let args = record.args();
    let file = |name: &str| details.bundle.join(name).display().to_string();
    let mut host_config = host_config(&record.host, &record.mounts);
    host_config["Links"] = crate::network::links(container);
    json!({
        "Id": container.id,
        "Created": record.created,
        "Path": args.first().cloned().unwrap_or_default(),
        "Args": args.get(1..).unwrap_or_default(),
        "State": state(&container.state, container.health.as_ref()),
        "Image": record.image.to_string(),
        "ResolvConfPath": file("resolv.conf"),
        "HostnamePath": file("hostname"),
        "HostsPath": file("hosts"),
        "LogPath": details.log.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        "Name": format!("/{}", container.name),
        "RestartCount": container.restart_count,
        "Driver": "overlay2",
        "Platform": details.platform.os,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": record.host.rare.apparmor_profile,
        "ExecIDs": null,
        "HostConfig": host_config,
        "Mounts": record.mounts.iter().zip(&details.mount_sources)
            .map(|(mount, source)| mount_point(mount, source.as_ref().map(|path| path.display().to_string())))
            .collect::<Vec<Value>>(),
        "Config": config(container),
        "NetworkSettings": crate::network::settings(container),
    })
}

fn state(state: &State, health: Option<&Health>) -> Value {
    let (pid, started_at) = match state {
        State::Running { pid, started_at, .. } => (*pid, started_at.as_str()),
        State::Exited { started_at, .. } | State::Restarting { started_at, .. } => {
            (0, started_at.as_deref().unwrap_or(NO_TIME))
        }
        State::Created | State::Starting => (0, NO_TIME),
    };
    let ended: Option<&ExitStatus> = match state {
        State::Exited { status, .. } | State::Restarting { status, .. } => Some(status),
        _ => None,
    };
    let mut value = json!({
        "Status": state.word(),
        "Running": state.is_up(),
        "Paused": state.word() == "paused",
        "Restarting": matches!(state, State::Restarting { .. }),
        "OOMKilled": ended.is_some_and(|status| status.oom_killed),
        "Dead": false,
        "Pid": pid,
        "ExitCode": ended.map_or(0, |status| status.exit_code),
        "Error": ended.and_then(|status| status.error.clone()).unwrap_or_default(),
        "StartedAt": started_at,
        "FinishedAt": ended.map_or(NO_TIME, |status| &status.finished_at),
    });
    if let Some(health) = health {
        value["Health"] = health_state(health);
    }
    value
}

fn health_state(health: &Health) -> Value {
    let probe = |probe: &ProbeResult| {
        json!({
            "Start": probe.start,
            "End": probe.end,
            "ExitCode": probe.exit_code,
            "Output": probe.output,
        })
    };
    json!({
        "Status": health.status.word(),
        "FailingStreak": health.failing_streak,
        "Log": health.log.iter().map(probe).collect::<Vec<Value>>(),
    })
}

/// What the image and the user want, in the shape of an image's configuration with Docker's additions.
fn config(container: &Container) -> Value {
    let (record, host) = (&container.record, &container.record.host);
    let config = &record.config;
    let hostname = host.hostname.as_deref().unwrap_or(short_id(&container.id));
    let set =
        |keys: Vec<&String>| keys.into_iter().map(|key| (key.clone(), json!({}))).collect::<Map<_, _>>();
    let mut value = json!({
        "Hostname": hostname,
        "Domainname": host.rare.domainname,
        "User": config.user,
        "AttachStdin": host.open_stdin && host.stdin_once,
        "AttachStdout": true,
        "AttachStderr": true,
        "ExposedPorts": set(config.exposed_ports.keys().collect()),
        "Tty": host.tty,
        "OpenStdin": host.open_stdin,
        "StdinOnce": host.stdin_once,
        "Env": config.env,
        "Cmd": config.cmd,
        "Healthcheck": config.healthcheck,
        "Image": record.image_name,
        "Volumes": set(config.volumes.keys().collect()),
        "WorkingDir": config.working_dir,
        "Entrypoint": config.entrypoint,
        "OnBuild": null,
        "Labels": config.labels,
        "StopSignal": config.stop_signal,
        "StopTimeout": host.stop_timeout_s,
        "Shell": config.shell,
    });
    // Docker leaves these out rather than say nothing in them.
    let optional = ["ExposedPorts", "Healthcheck", "StopSignal", "StopTimeout", "Shell"];
    if let Value::Object(fields) = &mut value {
        fields.retain(|name, value| !optional.contains(&name.as_str()) || !is_empty(value));
        if fields["Volumes"].as_object().is_some_and(Map::is_empty) {
            fields["Volumes"] = Value::Null;
        }
    }
    value
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn host_config(host: &HostConfig, mounts: &[Mount]) -> Value {
    let mut fields = Map::new();
    for part in [placing(host, mounts), isolation(host), limits(host)] {
        if let Value::Object(part) = part {
            fields.extend(part);
        }
    }
    leave_out(&mut fields);
    fields.into()
}

/// Says nothing where docker says nothing, and `null` where it says that.
fn leave_out(fields: &mut Map<String, Value>) {
    let is_empty = |value: &Value| {
        value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
    };
    for (name, value) in fields.iter_mut() {
        let is_list = name.starts_with("BlkioDevice") || ["ExtraHosts", "Ulimits"].contains(&name.as_str());
        if is_list && is_empty(value) {
            *value = Value::Null;
        }
    }
    let optional = ["Annotations", "Init", "Sysctls", "Tmpfs"];
    let says_something = |value: &Value| !is_empty(value) && *value != Value::Bool(false);
    fields.retain(|name, value| !optional.contains(&name.as_str()) || says_something(value));
    // What only Windows has.
    for name in ["CpuCount", "CpuPercent", "IOMaximumIOps", "IOMaximumBandwidth"] {
        fields.insert(name.to_owned(), 0.into());
    }
}

/// Where the container's files, ports and names come from.
fn placing(host: &HostConfig, mounts: &[Mount]) -> Value {
    let extra_hosts = host.extra_hosts.iter().map(|(name, address)| {
        let address = address.map_or_else(|| "host-gateway".to_string(), |address| address.to_string());
        format!("{name}:{address}")
    });
    json!({
        "Binds": binds(mounts),
        "ContainerIDFile": "",
        "LogConfig": log_config(&host.log),
        "NetworkMode": host.network.to_string(),
        "PortBindings": port_bindings(&host.publish),
        "RestartPolicy": { "Name": host.restart.name(), "MaximumRetryCount": host.restart.retries_max() },
        "AutoRemove": host.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": null,
        "ConsoleSize": [0, 0],
        "Dns": host.dns.servers.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "DnsOptions": host.dns.options,
        "DnsSearch": host.dns.search,
        "ExtraHosts": extra_hosts.collect::<Vec<_>>(),
        "Links": null,
        "PublishAllPorts": host.publish_all,
        "Tmpfs": tmpfs(mounts),
    })
}

/// What the container shares with the host, and what it may do.
fn isolation(host: &HostConfig) -> Value {
    let own = |is_host: bool, own: &str| if is_host { "host".to_string() } else { own.to_string() };
    json!({
        "CapAdd": list(&host.cap_add),
        "CapDrop": list(&host.cap_drop),
        "CgroupnsMode": own(host.cgroup_host, "private"),
        "GroupAdd": list(&host.groups),
        "IpcMode": ipc_mode(host),
        "Cgroup": "",
        "OomScoreAdj": host.rare.oom_score_adj.unwrap_or(0),
        "PidMode": match &host.rare.pid_of {
            Some(other) => format!("container:{other}"),
            None => own(host.pid_host, ""),
        },
        "Privileged": host.privileged,
        "ReadonlyRootfs": host.read_only,
        "SecurityOpt": security_opt(host),
        "UTSMode": own(host.uts_host, ""),
        "UsernsMode": "",
        "Sysctls": host.sysctls,
        "Runtime": host.runtime.as_ref().map_or("dhow".into(), |path| path.display().to_string()),
        "Isolation": "",
        "Annotations": host.rare.annotations,
        "Init": host.init,
    })
}

/// What the container may use up.
fn limits(host: &HostConfig) -> Value {
    let limits = &host.limits;
    json!({
        "ShmSize": host.shm_bytes.unwrap_or(SHM_BYTES),
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "Memory": limits.memory_bytes.unwrap_or(0),
        "NanoCpus": limits.nano_cpus.unwrap_or(0),
        "CgroupParent": host.rare.cgroup_parent,
        "CpuPeriod": limits.cpu_period_us.unwrap_or(0),
        "CpuQuota": limits.cpu_quota_us.unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus.clone().unwrap_or_default(),
        "CpusetMems": limits.cpuset_mems.clone().unwrap_or_default(),
        "Devices": host.rare.devices.iter().map(device).collect::<Vec<_>>(),
        "DeviceCgroupRules": list(&host.rare.device_rules.iter().map(ToString::to_string).collect::<Vec<_>>()),
        "DeviceRequests": null,
        "MemoryReservation": limits.memory_reservation_bytes.unwrap_or(0),
        "MemorySwappiness": limits.memory_swappiness,
        "BlkioWeight": limits.blkio_weight.unwrap_or(0),
        "BlkioWeightDevice": blkio(limits, BlkioKind::Weight, "Weight"),
        "BlkioDeviceReadBps": blkio(limits, BlkioKind::ReadBps, "Rate"),
        "BlkioDeviceWriteBps": blkio(limits, BlkioKind::WriteBps, "Rate"),
        "BlkioDeviceReadIOps": blkio(limits, BlkioKind::ReadIops, "Rate"),
        "BlkioDeviceWriteIOps": blkio(limits, BlkioKind::WriteIops, "Rate"),
        "CpuRealtimePeriod": limits.cpu_rt_period_us.unwrap_or(0),
        "CpuRealtimeRuntime": limits.cpu_rt_runtime_us.unwrap_or(0),
        "MemorySwap": limits.memory_swap_bytes.unwrap_or(0),
        "OomKillDisable": limits.oom_kill_disable,
        "PidsLimit": limits.pids_max,
        "Ulimits": host.ulimits.iter()
            .map(|limit| json!({ "Name": limit.name, "Hard": limit.hard, "Soft": limit.soft }))
            .collect::<Vec<_>>(),
    })
}

fn device(device: &DeviceRequest) -> Value {
    json!({
        "PathOnHost": device.source.display().to_string(),
        "PathInContainer": device.target.display().to_string(),
        "CgroupPermissions": device.access,
    })
}

fn blkio(limits: &Limits, kind: BlkioKind, word: &str) -> Vec<Value> {
    let of_kind = limits.blkio.iter().filter(|limit| limit.kind == kind);
    of_kind.map(|limit| json!({ "Path": limit.path.display().to_string(), word: limit.value })).collect()
}

fn ipc_mode(host: &HostConfig) -> String {
    match &host.rare.ipc {
        _ if host.ipc_host => "host".into(),
        IpcShare::Private => "private".into(),
        IpcShare::Shareable => "shareable".into(),
        IpcShare::None => "none".into(),
        IpcShare::Of(other) => format!("container:{other}"),
    }
}

/// Docker says `null` for a list nobody gave.
fn list(words: &[String]) -> Value {
    if words.is_empty() { Value::Null } else { json!(words) }
}

fn security_opt(host: &HostConfig) -> Value {
    let mut options = Vec::new();
    if host.seccomp_unconfined {
        options.push("seccomp=unconfined".to_string());
    }
    if let Some(profile) = &host.rare.seccomp_profile {
        options.push(format!("seccomp={profile}"));
    }
    if host.rare.unmasked {
        options.push("systempaths=unconfined".to_string());
    }
    if !host.rare.apparmor_profile.is_empty() {
        options.push(format!("apparmor={}", host.rare.apparmor_profile));
    }
    if host.no_new_privileges {
        options.push("no-new-privileges".to_string());
    }
    list(&options)
}

fn log_config(log: &LogConfig) -> Value {
    match log {
        LogConfig::None => json!({ "Type": "none", "Config": {} }),
        LogConfig::JsonFile(config) => {
            json!({ "Type": if config.local { "local" } else { "json-file" }, "Config": config.options })
        }
    }
}

fn binds(mounts: &[Mount]) -> Value {
    let text = |mount: &Mount| {
        let source = match &mount.kind {
            MountKind::Bind { source, .. } => source.display().to_string(),
            MountKind::Volume { name, anonymous: false, .. } => name.clone(),
            _ => return None,
        };
        let mode = mode(mount);
        let colon = if mode.is_empty() { "" } else { ":" };
        Some(format!("{source}:{}{colon}{mode}", mount.target))
    };
    list(&mounts.iter().filter_map(text).collect::<Vec<_>>())
}

fn tmpfs(mounts: &[Mount]) -> Value {
    let option = |mount: &Mount| match &mount.kind {
        MountKind::Tmpfs { options } => Some((mount.target.clone(), Value::from(options.join(",")))),
        _ => None,
    };
    mounts.iter().filter_map(option).collect::<Map<_, _>>().into()
}

fn mount_point(mount: &Mount, source: Option<String>) -> Value {
    let (kind, name, driver, propagation) = match &mount.kind {
        MountKind::Bind { how, .. } => ("bind", None, None, how.propagation.word()),
        MountKind::Volume { name, .. } => ("volume", Some(name), Some("local"), ""),
        MountKind::Tmpfs { .. } => ("tmpfs", None, None, ""),
        MountKind::Image { .. } => ("image", None, None, ""),
    };
    let mut value = json!({ "Type": kind });
    if let (Some(name), Some(driver)) = (name, driver) {
        value["Name"] = name.as_str().into();
        value["Source"] = source.into();
        value["Destination"] = mount.target.as_str().into();
        value["Driver"] = driver.into();
    } else {
        value["Source"] = source.unwrap_or_default().into();
        value["Destination"] = mount.target.as_str().into();
    }
    let is_image = matches!(mount.kind, MountKind::Image { .. });
    value["Mode"] = mode(mount).into();
    value["RW"] = (!mount.readonly && !is_image).into();
    value["Propagation"] = propagation.into();
    value
}

/// What stands behind the second colon of `-v`.
fn mode(mount: &Mount) -> String {
    let relabel = match &mount.kind {
        MountKind::Bind { how, .. } => how.relabel,
        _ => None,
    };
    let label = relabel.map(|relabel| if relabel == Relabel::Own { "Z" } else { "z" });
    let words: Vec<&str> = mount.readonly.then_some("ro").into_iter().chain(label).collect();
    words.join(",")
}

/// What was asked for, by container port.
fn port_bindings(publish: &[PortMapping]) -> Value {
    let mut bindings: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for mapping in publish {
        let port = match mapping.host_port {
            HostPort::Ephemeral => String::new(),
            HostPort::Fixed(port) => port.to_string(),
            HostPort::Within(first, last) => format!("{first}-{last}"),
        };
        let ip = mapping.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
        bindings
            .entry(mapping.container_port.to_string())
            .or_default()
            .push(json!({ "HostIp": ip, "HostPort": port }));
    }
    json!(bindings)
}

/// By container port, the host's sides; `null` for a port that is only exposed.
pub(crate) fn bound_ports(container: &Container) -> Value {
    let mut bound: Map<String, Value> = Map::new();
    for row in ports(container) {
        let sides = bound.entry(row.container.to_string()).or_insert(Value::Null);
        if let Some((ip, port)) = row.host {
            let side = json!({ "HostIp": ip.to_string(), "HostPort": port.to_string() });
            match sides {
                Value::Array(sides) => sides.push(side),
                sides => *sides = json!([side]),
            }
        }
    }
    bound.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(container: &str, host: Option<(&str, u16)>) -> PortRow {
        let host = host.map(|(ip, port)| (ip.parse().expect("an address"), port));
        PortRow { container: container.parse().expect("a port"), host }
    }

    fn check(mut rows: Vec<PortRow>, expected: &str) {
        rows.sort();
        assert_eq!(ports_text(&rows), expected);
    }

    #[test]
    fn ports_are_shown_as_docker_shows_them() {
        check(vec![row("80/tcp", None)], "80/tcp");
        check(vec![row("80/tcp", Some(("0.0.0.0", 32768)))], "0.0.0.0:32768->80/tcp");
        check(
            vec![row("5000/tcp", Some(("0.0.0.0", 5000))), row("5000/tcp", Some(("::", 5000)))],
            "0.0.0.0:5000->5000/tcp, [::]:5000->5000/tcp",
        );
        check(vec![row("82/tcp", None), row("80/tcp", None), row("81/tcp", None)], "80-82/tcp");
        check(
            vec![
                row("80/tcp", None),
                row("8000/tcp", Some(("0.0.0.0", 8000))),
                row("8001/tcp", Some(("0.0.0.0", 8001))),
            ],
            "80/tcp, 0.0.0.0:8000-8001->8000-8001/tcp",
        );
    }

    #[test]
    fn a_status_says_how_long_ago() {
        let now: Timestamp = "2026-01-01T00:02:00Z".parse().expect("a time");
        let started_at = "2026-01-01T00:01:57Z".to_string();
        let running = State::Running { pid: 1, started_at, paused: false };
        assert_eq!(status(&running, None, now), "Up 3 seconds");
        assert_eq!(status(&running, Some(HealthStatus::Starting), now), "Up 3 seconds (health: starting)");
        let finished_at = "2026-01-01T00:00:00Z".to_string();
        let ended = ExitStatus { exit_code: 3, finished_at, oom_killed: false, error: None };
        assert_eq!(
            status(&State::Exited { status: ended.clone(), started_at: None }, None, now),
            "Exited (3) 2 minutes ago"
        );
        assert_eq!(
            status(&State::Restarting { status: ended, started_at: None }, None, now),
            "Restarting (3) 2 minutes ago"
        );
        assert_eq!(status(&State::Created, None, now), "Created");
    }
}
