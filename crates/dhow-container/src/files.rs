//! The three files that tell a container who and where it is.

use std::fs;
use std::path::{Path, PathBuf};

use dhow_net::DnsConfig;
use dhow_runtime::{BindHow, Bundle, MountSpec, Propagation};

use crate::create::hostname_of;
use crate::error::{DiskError, disk};
use crate::network::HostsFile;
use crate::record::ContainerRecord;
use crate::request::NetworkMode;

/// The host's own.
const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// `resolv.conf`, `hosts` and `hostname` of a container, in its folder.
pub(crate) struct ContainerFiles<'a> {
    dir: PathBuf,
    record: &'a ContainerRecord,
    hostname: String,
}

impl<'a> ContainerFiles<'a> {
    pub(crate) fn new(bundle: &Bundle, id: &str, record: &'a ContainerRecord) -> Self {
        let of_host = || read_host_file(HOSTNAME).trim().to_string();
        let hostname = hostname_of(id, &record.host, of_host);
        ContainerFiles { dir: bundle.dir().to_path_buf(), record, hostname }
    }

    /// What the container calls itself.
    pub(crate) fn hostname(&self) -> &str {
        &self.hostname
    }

    /// Whom the container's name server asks.
    pub(crate) fn dns(&self) -> DnsConfig {
        self.record.host.dns.over(DnsConfig::parse(&read_host_file(RESOLV_CONF)))
    }

    /// The `hosts` that the shim completes with the container's address.
    pub(crate) fn hosts_file(&self) -> HostsFile {
        let extra = self.record.host.extra_hosts.clone();
        HostsFile { path: self.hosts(), hostname: self.hostname.clone(), extra }
    }

    /// Writes all three. Called before every start: the host may have moved to another network.
    pub(crate) fn write(&self) -> Result<(), DiskError> {
        let hosts = match self.record.host.network {
            NetworkMode::Host => read_host_file(HOSTS) + &extra_lines(&self.hosts_file()),
            _ => self.hosts_file().text(&[]),
        };
        let files = [
            (self.resolv_conf(), self.resolv_text()),
            (self.hosts(), hosts),
            (self.name(), dhow_net::hostname(&self.hostname)),
        ];
        files.into_iter().try_for_each(|(path, text)| fs::write(&path, text).map_err(disk("write", &path)))
    }

    fn resolv_text(&self) -> String {
        match self.record.host.network {
            NetworkMode::Bridge | NetworkMode::User(_) => dhow_net::resolv_conf(&self.dns()),
            NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_) => {
                let dns = &self.record.host.dns;
                let mut text = match dns.servers.is_empty() {
                    true => read_host_file(RESOLV_CONF),
                    false => dns.servers.iter().map(|server| format!("nameserver {server}\n")).collect(),
                };
                if !dns.search.is_empty() {
                    text += &format!("search {}\n", dns.search.join(" "));
                }
                if !dns.options.is_empty() {
                    text += &format!("options {}\n", dns.options.join(" "));
                }
                text
            }
        }
    }

    /// How they get into the container.
    pub(crate) fn mounts(&self) -> Vec<MountSpec> {
        let mount = |source: PathBuf, target: &str| MountSpec::Bind {
            source,
            target: target.into(),
            readonly: false,
            propagation: Propagation::Private,
            how: BindHow::default(),
        };
        vec![
            mount(self.resolv_conf(), "/etc/resolv.conf"),
            mount(self.name(), "/etc/hostname"),
            mount(self.hosts(), "/etc/hosts"),
        ]
    }

    fn resolv_conf(&self) -> PathBuf {
        self.dir.join("resolv.conf")
    }

    fn hosts(&self) -> PathBuf {
        self.dir.join("hosts")
    }

    fn name(&self) -> PathBuf {
        self.dir.join("hostname")
    }
}

/// A host without one of its files has nothing to say.
fn read_host_file(path: &str) -> String {
    fs::read_to_string(Path::new(path)).unwrap_or_default()
}

fn extra_lines(file: &HostsFile) -> String {
    let line = |(name, address): &(String, Option<std::net::IpAddr>)| {
        // On the host's network, the host is at home.
        let address = address.map_or_else(|| "127.0.0.1".to_string(), |address| address.to_string());
        format!("{address}\t{name}\n")
    };
    file.extra.iter().map(line).collect()
}
