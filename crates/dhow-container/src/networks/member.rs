//! Joining and leaving networks, and what a container is to be on.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dhow_net::{EndpointSpec, SandboxSpec};
use dhow_store::UpdateError;

use super::options::EndpointOptions;
use super::{
    BRIDGE, EndpointConfig, EndpointOptionError, FindNetworkError, HOST, NONE, NetworkInfo, is_predefined,
    membership_events,
};
use crate::containers::Containers;
use crate::error::{DiskError, FindError, StartError, disk};
use crate::files::ContainerFiles;
use crate::name::short_id;
use crate::network::{NetworkPlan, NetworkRequest};
use crate::record::{Container, ContainerRecord};
use crate::request::{HostConfig, NetworkMode};

/// Why a container is not on a network. It is where it was before.
#[derive(Debug, thiserror::Error)]
pub enum JoinNetworkError {
    /// There is no such network.
    #[error(transparent)]
    Network(#[from] FindNetworkError),
    /// There is no such container.
    #[error(transparent)]
    Container(#[from] FindError),
    /// It is on it already.
    #[error("endpoint with name {container} already exists in network {network}")]
    Already {
        /// The container.
        container: String,
        /// The network.
        network: String,
    },
    /// The host's network is the host's, and no other.
    #[error("container cannot be disconnected from host network or connected to host network")]
    Host,
    /// A container that shall have no network.
    #[error(
        "container cannot be connected to multiple networks with one of the networks in private (none) mode"
    )]
    Private,
    /// Its network is another container's.
    #[error(
        "container sharing network namespace with another container or host cannot be connected to any other network"
    )]
    Shared,
    /// A configuration is no network.
    #[error("network {0} is a configuration (--config-only): containers cannot join it")]
    ConfigOnly(String),
    /// What is wanted there cannot be had.
    #[error("invalid config for network {network}: invalid endpoint settings:\n{source}")]
    Endpoint {
        /// The network.
        network: String,
        /// What is wrong.
        source: EndpointError,
    },
    /// Networks are made by root.
    #[error("networks need root for now")]
    NeedsRoot,
    /// The container's shim could not do it.
    #[error("{0}")]
    Shim(String),
    /// Its record could not be changed.
    #[error(transparent)]
    Record(#[from] UpdateError<serde_json::Error>),
    /// The disk failed us.
    #[error(transparent)]
    Io(#[from] DiskError),
}

/// What a network cannot give a container.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The default network chooses addresses itself.
    #[error("user specified IP address is supported on user defined networks only")]
    AddressOnDefault,
    /// Nor does it resolve names.
    #[error("network-scoped aliases are only supported for user-defined networks")]
    AliasOnDefault,
    /// A subnet that dhow chose may be another one when the network is made again.
    #[error(
        "user specified IP address is supported only when connecting to networks with user configured subnets"
    )]
    AddressOnChosenSubnet,
    /// No subnet of the network has the address.
    #[error("no configured subnet contains the IP address {0}")]
    Outside(IpAddr),
    /// Not an address of a link.
    #[error("{0} is not a link-local address")]
    NotLinkLocal(IpAddr),
    /// An option cannot be honoured.
    #[error(transparent)]
    Option(#[from] EndpointOptionError),
}

/// Why a container is still on a network.
#[derive(Debug, thiserror::Error)]
pub enum DisconnectNetworkError {
    /// There is no such network.
    #[error(transparent)]
    Network(#[from] FindNetworkError),
    /// There is no such container.
    #[error(transparent)]
    Container(#[from] FindError),
    /// It is not on it.
    #[error("container {container} is not connected to the network {network}")]
    NotConnected {
        /// The container.
        container: String,
        /// The network.
        network: String,
    },
    /// The host's network is the host's.
    #[error("container cannot be disconnected from host network or connected to host network")]
    Host,
    /// The container's shim could not do it.
    #[error("{0}")]
    Shim(String),
    /// Its record could not be changed.
    #[error(transparent)]
    Record(#[from] UpdateError<serde_json::Error>),
    /// The disk failed us.
    #[error(transparent)]
    Io(#[from] DiskError),
}

impl Containers {
    /// The networks a new container is to be on, each found and looked at.
    pub(crate) fn endpoints(
        &self,
        host: &HostConfig,
        wanted: &[(String, EndpointConfig)],
    ) -> Result<BTreeMap<String, EndpointConfig>, JoinNetworkError> {
        let default;
        let wanted = match (&host.network, wanted) {
            (NetworkMode::Container(_), _) => &[],
            (mode, []) => {
                default = [(mode.to_string(), EndpointConfig::default())];
                &default[..]
            }
            (_, wanted) => wanted,
        };
        let mut endpoints = BTreeMap::new();
        for (text, endpoint) in wanted {
            let network = self.find_network(text)?;
            let endpoint = self.looked_at(&network, endpoint)?;
            endpoints.insert(network.name, endpoint);
        }
        Ok(endpoints)
    }

    fn looked_at(
        &self,
        network: &NetworkInfo,
        endpoint: &EndpointConfig,
    ) -> Result<EndpointConfig, JoinNetworkError> {
        if network.record.config_only {
            return Err(JoinNetworkError::ConfigOnly(network.name.clone()));
        }
        if !network.is_predefined() && self.images.user_namespace().is_some() {
            return Err(JoinNetworkError::NeedsRoot);
        }
        let invalid = |source| JoinNetworkError::Endpoint { network: network.name.clone(), source };
        check_endpoint(network, endpoint).map_err(invalid)?;
        Ok(EndpointConfig { network_id: network.id.clone(), ..endpoint.clone() })
    }

    /// Puts a container on a network: at once if it runs, at its next start otherwise.
    pub fn connect_network(
        &self,
        network: &str,
        container: &str,
        endpoint: &EndpointConfig,
    ) -> Result<(), JoinNetworkError> {
        let id = self.resolve(container)?.key;
        let _lock = self.lock(&id)?;
        let container = self.find(&id)?;
        let network = self.find_network(network)?;
        check_may_join(&container.record, &network)?;
        let endpoint = self.looked_at(&network, endpoint)?;
        let is_recorded = container.record.networks.contains_key(&network.name);
        // Who recorded it may have died before the shim was told.
        if is_recorded && (!container.state.is_running() || is_attached(&container, &network)) {
            let (container, network) = (container.name, network.name);
            return Err(JoinNetworkError::Already { container, network });
        }
        let joined = container.state.is_running().then(|| (self.clock)().to_string());
        let (name, own) = (network.name.clone(), EndpointConfig { joined, ..endpoint });
        let joined = self.update_networks(&id, |networks| drop(networks.insert(name, own)))?;
        if let Err(error) = self.tell_shim(&joined) {
            self.update_networks(&id, |networks| drop(networks.remove(&network.name)))?;
            // As it was; the error to be told is the other one.
            let _ = self.write_plan(&container);
            return Err(JoinNetworkError::Shim(error));
        }
        if container.state.is_running() {
            self.tell_network(&network, "connect", &[("container", id)]);
        }
        Ok(())
    }

    /// Takes a container off a network.
    pub fn disconnect_network(
        &self,
        network: &str,
        container: &str,
        force: bool,
    ) -> Result<(), DisconnectNetworkError> {
        let id = self.resolve(container)?.key;
        let _lock = self.lock(&id)?;
        let container = self.find(&id)?;
        let name = self.joined_name(&container, network)?;
        if name == HOST || container.record.host.network == NetworkMode::Host {
            return Err(DisconnectNetworkError::Host);
        }
        let left = self.update_networks(&id, |networks| drop(networks.remove(&name)))?;
        if let Err(error) = self.tell_shim(&left)
            && !force
        {
            let before = container.record.networks.clone();
            self.update_networks(&id, |networks| *networks = before)?;
            let _ = self.write_plan(&container);
            return Err(DisconnectNetworkError::Shim(error));
        }
        if container.state.is_running() {
            let one = container.record.networks.get(&name).cloned().unwrap_or_default();
            let mut container = container;
            container.record.networks = BTreeMap::from([(name, one)]);
            self.tell_networks(&membership_events(&container, "disconnect", (self.clock)()));
        }
        Ok(())
    }

    /// What a container calls the network a user means, which may have been removed.
    fn joined_name(&self, container: &Container, text: &str) -> Result<String, DisconnectNetworkError> {
        let networks = &container.record.networks;
        let is_meant = |(name, endpoint): &(&String, &EndpointConfig)| {
            name.as_str() == text || endpoint.network_id == text
        };
        if let Some((name, _)) = networks.iter().find(is_meant) {
            return Ok(name.clone());
        }
        let network = self.find_network(text)?;
        // Who took it off the record may have died before the shim was told.
        match networks.contains_key(&network.name) || is_attached(container, &network) {
            true => Ok(network.name),
            false => {
                let (container, network) = (container.id.clone(), network.name);
                Err(DisconnectNetworkError::NotConnected { container, network })
            }
        }
    }

    /// Changes the networks in a container's record, and returns the container as it is then.
    fn update_networks(
        &self,
        id: &str,
        change: impl FnOnce(&mut BTreeMap<String, EndpointConfig>),
    ) -> Result<Container, UpdateOrFind> {
        let record = self.records().update(id, |record| {
            let mut body: ContainerRecord = serde_json::from_str(&record.body)?;
            change(&mut body.networks);
            serde_json::to_string(&body)
        });
        let record = record.map_err(UpdateOrFind::Update)?;
        self.look_at(record).map_err(UpdateOrFind::Find)
    }

    /// Has the shim of a running container do what the container's record says about its networks.
    pub(crate) fn tell_shim(&self, container: &Container) -> Result<(), String> {
        let can_change = matches!(container.record.host.network, NetworkMode::Bridge | NetworkMode::User(_));
        if !can_change || !dhow_runtime::is_alive(&self.run_dir(&container.id)).unwrap_or(false) {
            return Ok(());
        }
        self.write_plan(container).map_err(|error| crate::network::chain(&error))?;
        if !container.state.is_running() {
            // It reads the plan when it starts the program again.
            return Ok(());
        }
        dhow_runtime::update_network(&self.run_dir(&container.id))
    }

    /// What the shim of a container is asked for.
    pub(crate) fn network_request(
        &self,
        container: &Container,
    ) -> Result<Option<NetworkRequest>, StartError> {
        Ok(match container.record.host.network {
            NetworkMode::Host | NetworkMode::Container(_) => None,
            NetworkMode::None => Some(NetworkRequest::Loopback),
            NetworkMode::Bridge | NetworkMode::User(_) => {
                self.write_plan(container)?;
                Some(NetworkRequest::Planned(self.plan_path(&container.id)))
            }
        })
    }

    fn write_plan(&self, container: &Container) -> Result<(), StartError> {
        let path = self.plan_path(&container.id);
        Ok(self.plan(container)?.write(&path).map_err(disk("write", &path))?)
    }

    fn plan_path(&self, id: &str) -> std::path::PathBuf {
        self.run_dir(id).dir().join("network-plan.json")
    }

    fn plan(&self, container: &Container) -> Result<NetworkPlan, StartError> {
        let bundle = self.bundle(&container.id);
        let files = ContainerFiles::new(&bundle, &container.id, &container.record);
        let mut endpoints = Vec::new();
        for (name, endpoint) in &container.record.networks {
            let network = self.joined_network(name, endpoint)?;
            let config = network.config(self.store().root(), &self.run);
            endpoints.push((config, endpoint_spec(container, &files, &network, endpoint)));
        }
        // The first one has the device people expect to be theirs.
        let main = container.record.host.network.to_string();
        endpoints.sort_by_key(|(config, _)| config.name != main && config.id != main);
        let mut hosts = files.hosts_file();
        hosts.extra.extend(self.legacy_links(container)?);
        Ok(NetworkPlan {
            id: container.id.clone(),
            name: container.name.clone(),
            sandbox: SandboxSpec { ports: container.record.port_mappings(), dns: files.dns() },
            endpoints,
            attached: Some(self.attached_path(&container.id)),
            hosts: Some(hosts),
        })
    }

    /// The network of a container's record; one of the same name if it was made again.
    fn joined_network(&self, name: &str, endpoint: &EndpointConfig) -> Result<NetworkInfo, StartError> {
        let found = match is_predefined(name) {
            true => self.find_network(name),
            false => self.find_network(&endpoint.network_id).or_else(|_| self.find_network(name)),
        };
        found.map_err(|error| match error {
            FindNetworkError::NotFound(_) => StartError::NoNetwork(name.to_owned()),
            error => error.into(),
        })
    }

    /// The names by which a container on the default network knows others: lines of its `hosts`.
    fn legacy_links(&self, container: &Container) -> Result<Vec<(String, Option<IpAddr>)>, StartError> {
        let mut lines = Vec::new();
        for link in &container.record.host.links {
            let target = self.find(&link.container)?;
            let ip =
                target.attached.iter().find_map(|attached| attached.ip).filter(|_| target.state.is_running());
            let Some(ip) = ip else {
                return Err(StartError::LinkToStopped {
                    target: target.name,
                    name: container.name.clone(),
                    alias: link.alias.clone(),
                });
            };
            let names = format!("{} {} {}", link.alias, short_id(&target.id), target.name);
            lines.push((names, Some(ip.into())));
        }
        Ok(lines)
    }
}

fn is_attached(container: &Container, network: &NetworkInfo) -> bool {
    let id = if network.name == BRIDGE { BRIDGE } else { &network.id };
    container.attached.iter().any(|attached| attached.network == id)
}

fn check_may_join(record: &ContainerRecord, network: &NetworkInfo) -> Result<(), JoinNetworkError> {
    match (&record.host.network, network.name.as_str()) {
        (NetworkMode::Container(_) | NetworkMode::Host, _) => Err(JoinNetworkError::Shared),
        (_, HOST) => Err(JoinNetworkError::Host),
        (NetworkMode::None, _) | (_, NONE) => Err(JoinNetworkError::Private),
        _ => Ok(()),
    }
}

fn check_endpoint(network: &NetworkInfo, endpoint: &EndpointConfig) -> Result<(), EndpointError> {
    let fixed = [endpoint.ip.map(IpAddr::V4), endpoint.ip6.map(IpAddr::V6)];
    let mut fixed = fixed.into_iter().flatten().peekable();
    EndpointOptions::parse(&endpoint.driver_opts)?;
    let is_local = |ip: &&IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    };
    if let Some(ip) = endpoint.link_local.iter().find(is_local) {
        return Err(EndpointError::NotLinkLocal(*ip));
    }
    if network.is_predefined() {
        return match (fixed.peek(), endpoint.aliases.is_empty()) {
            (Some(_), _) => Err(EndpointError::AddressOnDefault),
            (None, false) => Err(EndpointError::AliasOnDefault),
            (None, true) => Ok(()),
        };
    }
    for ip in fixed {
        match network.record.pools.iter().find(|pool| pool.subnet.contains(ip)) {
            None => return Err(EndpointError::Outside(ip)),
            Some(pool) if !pool.requested => return Err(EndpointError::AddressOnChosenSubnet),
            Some(_) => {}
        }
    }
    Ok(())
}

fn endpoint_spec(
    container: &Container,
    files: &ContainerFiles<'_>,
    network: &NetworkInfo,
    endpoint: &EndpointConfig,
) -> EndpointSpec {
    // They were looked at when the container joined.
    let options = EndpointOptions::parse(&endpoint.driver_opts).unwrap_or_default();
    EndpointSpec {
        container_id: container.id.clone(),
        names: dns_names(container, files.hostname(), network.is_predefined(), endpoint),
        links: endpoint.links.iter().map(|(target, alias)| (alias.clone(), target.clone())).collect(),
        ip: endpoint.ip,
        ip6: endpoint.ip6,
        mac: endpoint.mac,
        link_local: endpoint.link_local.clone(),
        device: options.device,
        sysctls: options.sysctls,
        gw_priority: endpoint.gw_priority,
    }
}

/// What others on the network find the container by, its name first.
fn dns_names(
    container: &Container,
    hostname: &str,
    is_predefined: bool,
    endpoint: &EndpointConfig,
) -> Vec<String> {
    let mut names = vec![container.name.clone()];
    let more = endpoint.aliases.iter().map(String::as_str).chain([short_id(&container.id)]);
    let hostname = (!is_predefined && container.record.host.hostname.is_some()).then_some(hostname);
    for name in more.chain(hostname) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

impl Container {
    /// What others on a user's network find it by, its name first.
    pub fn dns_names(&self, endpoint: &EndpointConfig) -> Vec<String> {
        dns_names(self, self.record.host.hostname.as_deref().unwrap_or_default(), false, endpoint)
    }
}

/// Why a container's record was not changed.
enum UpdateOrFind {
    Update(UpdateError<serde_json::Error>),
    Find(FindError),
}

impl From<UpdateOrFind> for JoinNetworkError {
    fn from(error: UpdateOrFind) -> Self {
        match error {
            UpdateOrFind::Update(error) => error.into(),
            UpdateOrFind::Find(error) => error.into(),
        }
    }
}

impl From<UpdateOrFind> for DisconnectNetworkError {
    fn from(error: UpdateOrFind) -> Self {
        match error {
            UpdateOrFind::Update(error) => error.into(),
            UpdateOrFind::Find(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::networks::{AddressPool, NetworkRecord};

    fn network(name: &str, requested: bool) -> NetworkInfo {
        let pool = AddressPool {
            subnet: "10.1.0.0/24".parse().unwrap(),
            range: None,
            gateway: "10.1.0.1".parse().unwrap(),
            auxiliary: BTreeMap::new(),
            requested,
        };
        let record = NetworkRecord { pools: vec![pool], ..NetworkRecord::default() };
        NetworkInfo { id: "ab".repeat(32), name: name.into(), record }
    }

    #[test]
    fn what_a_network_cannot_give_is_said_in_dockers_words() {
        let with_ip =
            |ip: &str| EndpointConfig { ip: Some(ip.parse().unwrap()), ..EndpointConfig::default() };
        let check = |network: &NetworkInfo, endpoint: &EndpointConfig| {
            check_endpoint(network, endpoint).map_err(|error| error.to_string())
        };
        assert_eq!(check(&network("red", true), &with_ip("10.1.0.9")), Ok(()));
        assert_eq!(
            check(&network("red", true), &with_ip("10.2.0.9")),
            Err("no configured subnet contains the IP address 10.2.0.9".into())
        );
        let chosen = check(&network("red", false), &with_ip("10.1.0.9")).unwrap_err();
        assert!(chosen.ends_with("networks with user configured subnets"), "{chosen}");
        let default = check(&network(BRIDGE, true), &with_ip("10.1.0.9")).unwrap_err();
        assert!(default.ends_with("on user defined networks only"), "{default}");
        let alias = EndpointConfig { aliases: vec!["db".into()], ..EndpointConfig::default() };
        assert!(check(&network(BRIDGE, true), &alias).is_err());
        let link =
            EndpointConfig { link_local: vec!["10.1.0.3".parse().unwrap()], ..EndpointConfig::default() };
        assert_eq!(check(&network("red", true), &link), Err("10.1.0.3 is not a link-local address".into()));
    }
}
