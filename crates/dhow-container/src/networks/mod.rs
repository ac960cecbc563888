//! Networks: the records of those that users make, and the three every host has.
//!
//! A record says how a network is to be; what of it exists on the host is made when it is needed, so that after a
//! reboot or a crash the next container brings it back. Who makes a network has the turn of everybody's networks
//! until the record is written, so that two never get one subnet.

mod create;
mod member;
mod options;
mod remove;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use dhow_net::{MacAddress, NetConfig, Pool, Subnet};
use dhow_oci::Digest;
use dhow_store::{DatabaseError, Event, Record, RecordStore, ResolveError};
use serde::{Deserialize, Serialize};

use crate::containers::Containers;
use crate::network::{default_network, networks_dir};
use crate::record::Container;

pub use create::{CreateNetworkError, CreateNetworkRequest, PoolRequest};
pub use member::{DisconnectNetworkError, EndpointError, JoinNetworkError};
pub use options::{BridgeOptions, EndpointOptionError, NetworkOptionError};
pub use remove::RemoveNetworkError;

/// The kind of networks' records, and of events about them.
pub(crate) const KIND: &str = "network";

/// The names of the networks every host has.
pub(crate) const BRIDGE: &str = "bridge";
pub(crate) const HOST: &str = "host";
pub(crate) const NONE: &str = "none";

/// How the default network is, in docker's words.
const DEFAULT_OPTIONS: [(&str, &str); 5] = [
    ("com.docker.network.bridge.default_bridge", "true"),
    ("com.docker.network.bridge.enable_icc", "true"),
    ("com.docker.network.bridge.enable_ip_masquerade", "true"),
    ("com.docker.network.bridge.host_binding_ipv4", "0.0.0.0"),
    ("com.docker.network.bridge.name", "dhow0"),
];

/// When a network was made that nobody made.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkInfo {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// How it is.
    pub record: NetworkRecord,
}

/// The body of a network's record: all that was decided when it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkRecord {
    /// When it was made, RFC 3339 with nanoseconds.
    pub created: String,
    /// `bridge`, or for two that are not made `host` and `null`.
    pub driver: String,
    /// It has no way out.
    pub internal: bool,
    /// Its containers have IPv4 addresses.
    pub ipv4: bool,
    /// Its containers have IPv6 addresses.
    pub ipv6: bool,
    /// What users note about it.
    pub labels: BTreeMap<String, String>,
    /// How its driver behaves.
    pub options: BTreeMap<String, String>,
    /// Where its addresses come from.
    pub pools: Vec<AddressPool>,
    /// No network, but what others are made from.
    pub config_only: bool,
    /// The network it was made from.
    pub config_from: Option<String>,
}

/// Addresses of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressPool {
    /// All of them.
    pub subnet: Subnet,
    /// Those given to who asks for none in particular.
    pub range: Option<Subnet>,
    /// The host's.
    pub gateway: IpAddr,
    /// Those of other machines, by name.
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// The user chose the subnet.
    pub requested: bool,
}

/// How a container is on a network: what was asked for, kept with the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointConfig {
    /// The network.
    pub network_id: String,
    /// Further names on it.
    pub aliases: Vec<String>,
    /// A fixed address.
    pub ip: Option<Ipv4Addr>,
    /// A fixed IPv6 address.
    pub ip6: Option<Ipv6Addr>,
    /// A fixed hardware address.
    pub mac: Option<MacAddress>,
    /// Further addresses that mean something on the link only.
    pub link_local: Vec<IpAddr>,
    /// Other containers, and what this one calls them.
    pub links: Vec<(String, String)>,
    /// How the driver treats it.
    pub driver_opts: BTreeMap<String, String>,
    /// The network with the highest one gives the default route.
    pub gw_priority: i32,
    /// When the container joined, if it was running already; RFC 3339.
    pub joined: Option<String>,
}

/// Somebody on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The container's id.
    pub container_id: String,
    /// Its name.
    pub name: String,
    /// What it got.
    pub attached: dhow_net::Attached,
}

/// Why a text does not lead to a network.
#[derive(Debug, thiserror::Error)]
pub enum FindNetworkError {
    /// No network goes by it.
    #[error("network {0} not found")]
    NotFound(String),
    /// Several ids begin so.
    #[error("network {0} is ambiguous: several ids begin so")]
    Ambiguous(String),
    /// Its record cannot be read.
    #[error("the record of network {id} is damaged")]
    Damaged {
        /// The network.
        id: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl NetworkInfo {
    /// One of those every host has.
    fn predefined(name: &str) -> NetworkInfo {
        let driver = if name == NONE { "null" } else { name };
        let options: &[(&str, &str)] = if name == BRIDGE { &DEFAULT_OPTIONS } else { &[] };
        let options = options.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let record = NetworkRecord {
            created: NEVER.into(),
            driver: driver.into(),
            ipv4: true,
            options: options.collect(),
            ..NetworkRecord::default()
        };
        NetworkInfo { id: predefined_id(name), name: name.into(), record }
    }

    /// Whether every host has it.
    pub fn is_predefined(&self) -> bool {
        is_predefined(&self.name)
    }

    fn from_record(record: Record) -> Result<NetworkInfo, FindNetworkError> {
        let Record { key: id, name, body } = record;
        match serde_json::from_str(&body) {
            Ok(record) => Ok(NetworkInfo { name: name.unwrap_or_default(), record, id }),
            Err(source) => Err(FindNetworkError::Damaged { id, source }),
        }
    }

    /// The network as the host has or is to have it.
    pub(crate) fn config(&self, root: &Path, run: &Path) -> NetConfig {
        if self.name == BRIDGE {
            return default_network(run);
        }
        // They were looked at when the network was made.
        let options = BridgeOptions::parse(&self.record.options).unwrap_or_default();
        let short = crate::name::short_id(&self.id);
        let pool = |pool: &AddressPool| Pool {
            subnet: pool.subnet,
            gateway: pool.gateway,
            range: pool.range,
            reserved: pool.auxiliary.values().copied().collect(),
        };
        NetConfig {
            id: self.id.clone(),
            name: self.name.clone(),
            run_dir: networks_dir(run),
            owner: Some(root.into()),
            bridge: options.bridge.unwrap_or_else(|| format!("br-{short}")),
            table: format!("dhow-{short}"),
            pools: self.record.pools.iter().map(pool).collect(),
            resolve_names: true,
            internal: self.record.internal,
            masquerade: options.masquerade,
            neighbours: options.neighbours,
            mtu: options.mtu,
            host_binding: options.host_binding,
            device_prefix: options.device_prefix.unwrap_or_else(|| "eth".into()),
        }
    }
}

/// Whether every host has a network of this name.
pub(crate) fn is_predefined(name: &str) -> bool {
    [BRIDGE, HOST, NONE].contains(&name)
}

/// The id of a network every host has: made up, but always the same.
pub(crate) fn predefined_id(name: &str) -> String {
    Digest::sha256_of(format!("dhow network {name}").as_bytes()).hex()
}

/// What docker calls a container's place on a network: made up, but always the same.
pub fn endpoint_id(container_id: &str, network_id: &str) -> String {
    Digest::sha256_of(format!("dhow endpoint {container_id} {network_id}").as_bytes()).hex()
}

impl Containers {
    /// The network a user means: by id, by name, or by the beginning of an id.
    pub fn find_network(&self, text: &str) -> Result<NetworkInfo, FindNetworkError> {
        let predefined = [BRIDGE, HOST, NONE].map(NetworkInfo::predefined);
        if let Some(network) = predefined.iter().find(|known| known.name == text || known.id == text) {
            return Ok(network.clone());
        }
        let is_begun = |known: &&NetworkInfo| !text.is_empty() && known.id.starts_with(text);
        let begun: Vec<&NetworkInfo> = predefined.iter().filter(is_begun).collect();
        match (self.network_records().resolve(text), &begun[..]) {
            (Ok(record), &[]) => NetworkInfo::from_record(record),
            // Whoever has it as name comes before whose id begins so.
            (Ok(record), _) if record.name.as_deref() == Some(text) => NetworkInfo::from_record(record),
            (Err(ResolveError::NotFound { .. }), &[only]) => Ok(only.clone()),
            (Err(ResolveError::NotFound { .. }), &[]) => Err(FindNetworkError::NotFound(text.into())),
            (Err(ResolveError::Database(error)), _) => Err(error.into()),
            _ => Err(FindNetworkError::Ambiguous(text.into())),
        }
    }

    /// All networks, by name.
    pub fn list_networks(&self) -> Result<Vec<NetworkInfo>, FindNetworkError> {
        let records = self.network_records().list()?.into_iter().map(NetworkInfo::from_record);
        let mut networks = records.collect::<Result<Vec<_>, _>>()?;
        networks.extend([BRIDGE, HOST, NONE].map(NetworkInfo::predefined));
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(networks)
    }

    /// Who of `containers` is on a network now.
    pub fn members(&self, network: &NetworkInfo, containers: &[Container]) -> Vec<Member> {
        let id = &network.config(self.store().root(), &self.run).id;
        let member = |container: &Container| {
            let attached = container.attached.iter().find(|attached| attached.network == *id)?;
            let (container_id, name) = (container.id.clone(), container.name.clone());
            Some(Member { container_id, name, attached: attached.clone() })
        };
        containers.iter().filter_map(member).collect()
    }

    /// The default network's subnet, once its bridge is there.
    pub fn default_subnet(&self) -> Option<(Subnet, Ipv4Addr)> {
        let network = dhow_net::standing(&default_network(&self.run))?;
        Some((network.subnet?, network.gateway?))
    }

    pub(crate) fn network_records(&self) -> RecordStore<'_> {
        self.store().records(KIND)
    }

    /// Tells of something that happened to a network just now.
    fn tell_network(&self, network: &NetworkInfo, action: &str, more: &[(&str, String)]) {
        self.tell_networks(&[network_event(network, action, (self.clock)(), more)]);
    }

    /// Nothing but the telling is lost if it cannot be written.
    fn tell_networks(&self, events: &[Event]) {
        let _ = self.store().events().append(events);
    }
}

fn network_event(
    network: &NetworkInfo,
    action: &str,
    time: jiff::Timestamp,
    more: &[(&str, String)],
) -> Event {
    let (name, driver) = (network.name.as_str(), network.record.driver.as_str());
    event(&network.id, name, driver, action, time, more)
}

/// A container came or went: what is told of each of its networks.
pub(crate) fn membership_events(container: &Container, action: &str, time: jiff::Timestamp) -> Vec<Event> {
    let about = |(name, endpoint): (&String, &EndpointConfig)| {
        let driver = match name.as_str() {
            HOST => HOST,
            NONE => "null",
            _ => BRIDGE,
        };
        let more = [("container", container.id.clone())];
        event(&endpoint.network_id, name, driver, action, time, &more)
    };
    // Of one that was joined later it has been told.
    let is_later = |endpoint: &EndpointConfig| {
        let joined = endpoint.joined.as_ref().and_then(|joined| joined.parse::<jiff::Timestamp>().ok());
        joined.is_some_and(|joined| joined > time)
    };
    container.record.networks.iter().filter(|(_, endpoint)| !is_later(endpoint)).map(about).collect()
}

fn event(
    id: &str,
    name: &str,
    driver: &str,
    action: &str,
    time: jiff::Timestamp,
    more: &[(&str, String)],
) -> Event {
    let own = [("name", name.to_owned()), ("type", driver.to_owned())];
    let attributes = own.iter().chain(more).map(|(name, value)| ((*name).to_owned(), value.clone()));
    Event {
        kind: KIND.into(),
        action: action.into(),
        id: id.into(),
        attributes: attributes.collect(),
        time_ns: i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX),
    }
}
