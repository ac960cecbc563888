//! What a network is and what a container gets from it: plain data.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::files::DnsConfig;
use crate::port::{ContainerPort, PortMapping};
use crate::subnet::Subnet;

/// Where one network lives on this host. Everything it touches is named here, so tests name their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// The name users know, and the folder below `run_dir`.
    pub name: String,
    /// Folder of run-time state, one for all networks.
    pub run_dir: PathBuf,
    /// The bridge device.
    pub bridge: String,
    /// The nft table (family `ip`); one network's alone.
    pub table: String,
    /// The wanted subnet; `None` takes the first of Docker's pools that collides with nothing.
    pub subnet: Option<Subnet>,
    /// Whether containers find each other by name. Docker's default network does not.
    pub resolve_names: bool,
}

impl NetConfig {
    /// The default network, `bridge`.
    pub fn default_bridge(run_dir: impl Into<PathBuf>) -> Self {
        Self {
            name: "bridge".into(),
            run_dir: run_dir.into(),
            bridge: "dhow0".into(),
            table: "dhow".into(),
            subnet: None,
            resolve_names: false,
        }
    }
}

/// A network as it stands on this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The name users know.
    pub name: String,
    /// The bridge device.
    pub bridge: String,
    /// Its index.
    pub bridge_index: u32,
    /// Where the containers' addresses come from.
    pub subnet: Subnet,
    /// The host's address on the bridge.
    pub gateway: Ipv4Addr,
    /// The largest packet that leaves the host whole.
    pub mtu: u32,
}

/// What a container wants from a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// The container, unique on the host; also the name of the record.
    pub container_id: String,
    /// Names other containers find it by: its name, aliases, short id.
    pub names: Vec<String>,
    /// A static address.
    pub ip: Option<Ipv4Addr>,
    /// A hardware address; the default is derived from the IP address.
    pub mac: Option<MacAddress>,
    /// Ports to publish.
    pub ports: Vec<PortMapping>,
    /// Whom the embedded server asks.
    pub dns: DnsConfig,
}

/// What it got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Its address.
    pub ip: Ipv4Addr,
    /// How many bits of it name the subnet.
    pub prefix_len: u8,
    /// Its default route.
    pub gateway: Ipv4Addr,
    /// Its hardware address.
    pub mac: MacAddress,
    /// Its published ports, in the order of the specification; a port on all addresses is listed twice.
    pub ports: Vec<BoundPort>,
}

/// A published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BoundPort {
    /// The host's address, or an unspecified one for all of its family.
    pub host_ip: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// The container's port.
    pub container_port: ContainerPort,
}

impl BoundPort {
    /// The host's side.
    pub fn host(&self) -> SocketAddr {
        SocketAddr::new(self.host_ip, self.host_port)
    }
}

/// An Ethernet address, as `02:42:ac:11:00:02`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

/// The text is not an Ethernet address.
#[derive(Debug, thiserror::Error)]
#[error("invalid MAC address: {0}")]
pub struct MacAddressError(String);

impl MacAddress {
    /// A locally administered address that follows from `ip`: whoever gets the IP address next has the
    /// same hardware address, so no neighbour remembers a wrong one.
    pub fn of(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([0x02, 0x42, a, b, c, d])
    }
}

impl std::str::FromStr for MacAddress {
    type Err = MacAddressError;

    fn from_str(text: &str) -> Result<Self, MacAddressError> {
        let byte = |part: &str| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok())?;
        let bytes: Option<Vec<u8>> = text.split([':', '-']).map(byte).collect();
        let octets = bytes.and_then(|bytes| bytes.try_into().ok());
        octets.map(Self).ok_or_else(|| MacAddressError(text.into()))
    }
}

impl TryFrom<String> for MacAddress {
    type Error = MacAddressError;

    fn try_from(text: String) -> Result<Self, MacAddressError> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> Self {
        address.to_string()
    }
}

impl std::fmt::Display for MacAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
