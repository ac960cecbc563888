//! IPv4 subnets.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 subnet in CIDR notation, as `172.17.0.0/16`. The address has no host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    address: Ipv4Addr,
    prefix_len: u8,
}

/// The text is not an IPv4 subnet.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid subnet: {0}")]
pub struct SubnetError(String);

impl Subnet {
    /// The subnet of `prefix_len` bits that contains `address`; `None` above 32 bits.
    pub fn containing(address: Ipv4Addr, prefix_len: u8) -> Option<Self> {
        let address = Ipv4Addr::from_bits(address.to_bits() & mask(prefix_len)?);
        Some(Self { address, prefix_len })
    }

    /// The first address, which names the subnet.
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// How many leading bits all addresses share.
    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// The leading bits as an address, as `255.255.0.0`.
    pub fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.prefix_len).expect("checked when the subnet was made"))
    }

    /// The last address, which reaches everybody on the subnet.
    pub fn broadcast(self) -> Ipv4Addr {
        self.address | !self.netmask()
    }

    /// Whether `address` lies inside.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address & self.netmask() == self.address
    }

    /// Whether `address` is one a machine can have.
    pub fn has_host(self, address: Ipv4Addr) -> bool {
        self.contains(address) && address != self.address && address != self.broadcast()
    }

    /// Whether some address lies in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// The addresses a machine can have, lowest first: neither the subnet's own nor the broadcast.
    pub fn hosts(self) -> impl Iterator<Item = Ipv4Addr> {
        (self.address.to_bits().saturating_add(1)..self.broadcast().to_bits()).map(Ipv4Addr::from_bits)
    }
}

fn mask(prefix_len: u8) -> Option<u32> {
    match prefix_len {
        0 => Some(0),
        1..=32 => Some(u32::MAX << (32 - prefix_len)),
        _ => None,
    }
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let parse = || {
            let (address, prefix_len) = text.split_once('/')?;
            Self::containing(address.parse().ok()?, prefix_len.parse().ok()?)
        };
        parse().ok_or_else(|| SubnetError(text.into()))
    }
}

impl TryFrom<String> for Subnet {
    type Error = SubnetError;

    fn try_from(text: String) -> Result<Self, SubnetError> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn host_bits_are_dropped_and_the_edges_are_not_hosts() {
        let small = subnet("10.1.2.7/30");
        assert_eq!(small.to_string(), "10.1.2.4/30");
        assert_eq!(small.hosts().map(|host| host.octets()[3]).collect::<Vec<_>>(), [5, 6]);
        assert_eq!(subnet("10.0.0.1/32").hosts().count(), 0);
        assert_eq!(subnet("255.255.255.255/32").hosts().count(), 0);
    }

    #[test]
    fn overlap_is_symmetric() {
        assert!(subnet("172.17.0.0/16").overlaps(subnet("172.17.9.0/24")));
        assert!(subnet("172.17.9.0/24").overlaps(subnet("172.17.0.0/16")));
        assert!(!subnet("172.17.0.0/16").overlaps(subnet("172.18.0.0/16")));
    }

    #[test]
    fn malformed_subnets_are_named() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "a/8", "10.0.0.0/-1"] {
            assert_eq!(text.parse::<Subnet>(), Err(SubnetError(text.into())));
        }
    }
}
