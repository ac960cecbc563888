//! Docker's JSON of the system.

use dhow_engine::{CacheEntry, ContainerUsage, DiskUsage, ImageUsage, SystemInfo};
use serde_json::{Value, json};

/// `GET /info` and `docker info`.
pub fn info(info: &SystemInfo, version: &str) -> Value {
    let [running, paused, stopped] = info.containers;
    let [http, https, none] = &info.proxies;
    json!({
        "ID": "",
        "Containers": running + paused + stopped,
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": stopped,
        "Images": info.images,
        "Driver": "overlay2",
        "DriverStatus": [],
        "LoggingDriver": "json-file",
        "CgroupDriver": if info.cgroup_version.is_some() { "cgroupfs" } else { "none" },
        "CgroupVersion": info.cgroup_version.map(|version| version.to_string()).unwrap_or_default(),
        "Plugins": { "Volume": ["local"], "Network": ["bridge", "host", "null"], "Log": ["json-file", "none"] },
        "KernelVersion": info.kernel,
        "OperatingSystem": info.operating_system,
        "OSType": "linux",
        "Architecture": info.architecture,
        "NCPU": info.cpus,
        "MemTotal": info.memory_bytes,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": { "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"], "Mirrors": info.mirrors },
        "InsecureRegistries": info.insecure_registries,
        "DockerRootDir": info.root,
        "HttpProxy": http,
        "HttpsProxy": https,
        "NoProxy": none,
        "Name": info.name,
        "Labels": [],
        "ExperimentalBuild": false,
        "ServerVersion": version,
        "DefaultRuntime": "dhow",
        "Runtimes": { "dhow": { "path": "dhow" } },
        "Swarm": { "NodeID": "", "LocalNodeState": "inactive", "ControlAvailable": false },
        "LiveRestoreEnabled": true,
        "SecurityOptions": security(info),
        "Warnings": [],
        "ClientInfo": { "Version": version, "Context": "default", "Plugins": [], "Warnings": null },
    })
}

fn security(info: &SystemInfo) -> Vec<&'static str> {
    let rootless = info.is_rootless.then_some("name=rootless");
    ["name=seccomp,profile=builtin", "name=cgroupns"].into_iter().chain(rootless).collect()
}

/// `GET /system/df`.
pub fn disk_usage(usage: &DiskUsage) -> Value {
    let image = |image: &ImageUsage| {
        let mut shape = crate::image::summary(&image.summary);
        shape["Size"] = image.bytes.into();
        shape["SharedSize"] = image.shared_bytes.into();
        shape
    };
    let container = |used: &ContainerUsage| {
        let mut shape = crate::container::summary(&used.container);
        shape["SizeRw"] = used.bytes.into();
        shape
    };
    let volume = |volume: &dhow_engine::containers::VolumeUsage| {
        json!({
            "Name": volume.name,
            "Driver": "local",
            "Scope": "local",
            "UsageData": { "RefCount": volume.links, "Size": volume.size_bytes },
        })
    };
    let cache = |entry: &CacheEntry| {
        json!({
            "ID": entry.id,
            "Type": entry.kind(),
            "Size": entry.size_bytes,
            "InUse": entry.is_in_use,
            "Shared": entry.is_shared,
            "UsageCount": entry.uses,
            "CreatedAt": jiff::Timestamp::from_second(entry.created).map(|time| time.to_string()).ok(),
            "LastUsedAt": jiff::Timestamp::from_second(entry.last_used).map(|time| time.to_string()).ok(),
        })
    };
    json!({
        "LayersSize": usage.image_bytes,
        "Images": usage.images.iter().map(image).collect::<Vec<_>>(),
        "Containers": usage.containers.iter().map(container).collect::<Vec<_>>(),
        "Volumes": usage.volumes.iter().map(volume).collect::<Vec<_>>(),
        "BuildCache": usage.cache.iter().map(cache).collect::<Vec<_>>(),
    })
}
