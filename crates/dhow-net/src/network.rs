//! What a network is and what a container gets from it: plain data.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::files::DnsConfig;
use crate::port::{ContainerPort, PortMapping};
use crate::subnet::Subnet;

/// One network: where it lives on this host and how it behaves. Everything it touches is named here, so tests
/// name their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetConfig {
    /// The folder below `run_dir`, which no other network ever has.
    pub id: String,
    /// The name users know.
    pub name: String,
    /// Folder of run-time state, one for all networks.
    pub run_dir: PathBuf,
    /// The store whose network it is: what it has no record of can be removed.
    pub owner: Option<PathBuf>,
    /// The bridge device.
    pub bridge: String,
    /// The nft table, one a family; one network's alone.
    pub table: String,
    /// Where addresses come from, at most one pool a family; none takes the first of Docker's pools that collides
    /// with nothing.
    pub pools: Vec<Pool>,
    /// Whether containers find each other by name. Docker's default network does not.
    pub resolve_names: bool,
    /// Whether it has no way out.
    pub internal: bool,
    /// Whether what leaves does so under the host's address.
    pub masquerade: bool,
    /// Whether its containers may talk to each other.
    pub neighbours: bool,
    /// The largest packet; `None` is that of the host's own uplink.
    pub mtu: Option<u32>,
    /// The host address ports are published on when none is said.
    pub host_binding: Option<IpAddr>,
    /// Begins the names of devices in containers.
    pub device_prefix: String,
}

impl NetConfig {
    /// The default network, `bridge`.
    pub fn default_bridge(run_dir: impl Into<PathBuf>) -> Self {
        Self {
            id: DEFAULT.into(),
            name: DEFAULT.into(),
            run_dir: run_dir.into(),
            owner: None,
            bridge: "dhow0".into(),
            table: "dhow".into(),
            pools: Vec::new(),
            resolve_names: false,
            internal: false,
            masquerade: true,
            neighbours: true,
            mtu: None,
            host_binding: None,
            device_prefix: "eth".into(),
        }
    }
}

/// The default network's folder, and its name.
const DEFAULT: &str = "bridge";

/// Where addresses of one family come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// All of them.
    pub subnet: Subnet,
    /// The host's address on the bridge.
    pub gateway: IpAddr,
    /// Those given to who asks for none in particular; `None` is all.
    pub range: Option<Subnet>,
    /// Those nobody gets: other machines have them.
    #[serde(default)]
    pub reserved: Vec<IpAddr>,
}

impl Pool {
    /// All of a subnet, the first address for the host. `None`: it has no room for anybody.
    pub fn of(subnet: Subnet) -> Option<Self> {
        let gateway = subnet.hosts().next()?;
        Some(Self { subnet, gateway, range: None, reserved: Vec::new() })
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
    /// Where the containers' IPv4 addresses come from.
    pub subnet: Option<Subnet>,
    /// The host's IPv4 address on the bridge.
    pub gateway: Option<Ipv4Addr>,
    /// The largest packet that leaves the host whole.
    pub mtu: u32,
}

/// What a container wants of its network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Ports to publish.
    pub ports: Vec<PortMapping>,
    /// Whom the embedded server asks.
    pub dns: DnsConfig,
}

/// What a container wants from a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// The container, unique on the host; also the name of the record.
    pub container_id: String,
    /// Names other containers find it by: its name, aliases, short id.
    pub names: Vec<String>,
    /// Names only this container knows, and whom they mean.
    pub links: Vec<(String, String)>,
    /// A static address.
    pub ip: Option<Ipv4Addr>,
    /// The same of the other family.
    pub ip6: Option<Ipv6Addr>,
    /// A hardware address; the default is derived from the IP address.
    pub mac: Option<MacAddress>,
    /// Further addresses that mean something on the link only.
    pub link_local: Vec<IpAddr>,
    /// What the device is called inside; `None` takes the next free name.
    pub device: Option<String>,
    /// Kernel parameters of the device, below `/proc/sys/net`; `IFNAME` stands for its name.
    pub sysctls: Vec<(String, String)>,
    /// The network with the highest one gives the default route.
    pub gw_priority: i32,
}

/// What it got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The network, by its id.
    pub network: String,
    /// The device inside.
    pub device: String,
    /// Its address.
    pub ip: Option<Ipv4Addr>,
    /// How many bits of it name the subnet.
    pub prefix_len: u8,
    /// The way out, if the network has one.
    pub gateway: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ip6: Option<Ipv6Addr>,
    /// How many bits of that name the subnet.
    pub prefix6_len: u8,
    /// The way out by IPv6.
    pub gateway6: Option<Ipv6Addr>,
    /// The host as it is seen from the container.
    pub host: Option<IpAddr>,
    /// Its hardware address.
    pub mac: MacAddress,
    /// The published ports that lead to it, in the order of the specification; a port on all addresses is listed
    /// twice.
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
    pub fn of(ip: IpAddr) -> Self {
        let [a, b, c, d] = match ip {
            IpAddr::V4(ip) => ip.octets(),
            IpAddr::V6(ip) => {
                let [.., a, b, c, d] = ip.octets();
                [a, b, c, d]
            }
        };
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
