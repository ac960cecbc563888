//! Why a container could not be put on a network.

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::port::Protocol;
use crate::subnet::Subnet;

/// Why a container is not on the network. Everything done so far has been undone.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Another container of ours has the port.
    #[error("Bind for {host} failed: port is already allocated")]
    PortAllocated {
        /// The wanted address.
        host: SocketAddr,
    },
    /// Another program has the port.
    #[error("failed to bind host port {host}/{protocol}: address already in use")]
    PortInUse {
        /// The wanted address.
        host: SocketAddr,
        /// The wanted protocol.
        protocol: Protocol,
    },
    /// The port cannot be had for another reason, as an address this host does not have.
    #[error("failed to bind host port {host}/{protocol}")]
    Bind {
        /// The wanted address.
        host: SocketAddr,
        /// The wanted protocol.
        protocol: Protocol,
        /// What the kernel said.
        source: io::Error,
    },
    /// Every port of the range is taken.
    #[error("all ports from {first} to {last} are allocated")]
    NoFreePort {
        /// The first of the range.
        first: u16,
        /// The last of it.
        last: u16,
    },
    /// The wanted address belongs to the gateway or another container.
    #[error("Address already in use: {0} belongs to the gateway or another container")]
    AddressTaken(IpAddr),
    /// The wanted address is not one the network could give.
    #[error("address {ip} is not a host address of subnet {subnet}")]
    AddressOutside {
        /// The wanted address.
        ip: IpAddr,
        /// The network's.
        subnet: Subnet,
    },
    /// The wanted address is of a family the network has not.
    #[error("address {0} is of a family the network has no subnet of")]
    NoSuchFamily(IpAddr),
    /// Every address of the subnet is taken.
    #[error("no available IPv{version} addresses on subnet {0}", version = if .0.is_ipv4() { 4 } else { 6 })]
    NoFreeAddress(Subnet),
    /// Every pool collides with a network this host is on.
    #[error(
        "all predefined address pools have been fully subnetted or collide with routes of this host: \
         remove a network (`dhow network prune`) or give this one a subnet (--subnet)"
    )]
    NoFreeSubnet,
    /// Another device of this host has the name.
    #[error("device {0} exists already and is not this network's")]
    BridgeTaken(String),
    /// The network was removed.
    #[error("network {0} not found")]
    NoSuchNetwork(String),
    /// Containers are on the network.
    #[error("network {name} has active endpoints ({})", names.join(", "))]
    ActiveEndpoints {
        /// The network.
        name: String,
        /// Who is on it.
        names: Vec<String>,
    },
    /// The wanted subnet collides with a network this host is on.
    #[error("subnet {0} overlaps with an address or a route of this host")]
    SubnetTaken(Subnet),
    /// The container is on this network already.
    #[error("container {0} is already connected to the network")]
    AlreadyConnected(String),
    /// The container's id cannot name a file.
    #[error("invalid container id: {0}")]
    ContainerId(String),
    /// The kernel or the disk failed us.
    #[error("cannot {what}")]
    Os {
        /// What we were about to do.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Says what was being done when the kernel refused.
pub(crate) trait While<T> {
    fn while_doing(self, what: impl FnOnce() -> String) -> Result<T, ConnectError>;
}

impl<T> While<T> for io::Result<T> {
    fn while_doing(self, what: impl FnOnce() -> String) -> Result<T, ConnectError> {
        self.map_err(|source| ConnectError::Os { what: what(), source })
    }
}
