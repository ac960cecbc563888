//! Subnets of both families.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A subnet in CIDR notation, as `172.17.0.0/16` or `fd00:1::/64`. The address has no host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    address: IpAddr,
    prefix_len: u8,
}

/// The text is not a subnet.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid subnet: {0}")]
pub struct SubnetError(String);

impl Subnet {
    /// The subnet of `prefix_len` bits that contains `address`; `None` if an address has fewer.
    pub fn containing(address: impl Into<IpAddr>, prefix_len: u8) -> Option<Self> {
        let address = address.into();
        let mask = mask(address, prefix_len)?;
        Some(Self { address: address_of(address.is_ipv4(), bits(address) & mask), prefix_len })
    }

    /// The first address, which names the subnet.
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// How many leading bits all addresses share.
    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// Whether its addresses are IPv4.
    pub fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }

    /// The leading bits as an address, as `255.255.0.0`.
    pub fn netmask(self) -> IpAddr {
        address_of(self.is_ipv4(), self.mask())
    }

    /// The last address, which with IPv4 reaches everybody on the subnet.
    pub fn last(self) -> IpAddr {
        address_of(self.is_ipv4(), self.last_bits())
    }

    /// Whether `address` lies inside.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.is_ipv4() && bits(address) & self.mask() == bits(self.address)
    }

    /// Whether `address` is one a machine can have.
    pub fn has_host(self, address: IpAddr) -> bool {
        self.contains(address) && self.host_bits().contains(&bits(address))
    }

    /// Whether some address lies in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// Whether all of `other` lies inside.
    pub fn includes(self, other: Self) -> bool {
        self.contains(other.address) && self.prefix_len <= other.prefix_len
    }

    /// The addresses a machine can have, lowest first: not the subnet's own, nor the broadcast of IPv4.
    pub fn hosts(self) -> impl Iterator<Item = IpAddr> {
        let is_ipv4 = self.is_ipv4();
        self.host_bits().map(move |bits| address_of(is_ipv4, bits))
    }

    /// All addresses, lowest first.
    pub fn addresses(self) -> impl Iterator<Item = IpAddr> {
        let is_ipv4 = self.is_ipv4();
        (bits(self.address)..=self.last_bits()).map(move |bits| address_of(is_ipv4, bits))
    }

    fn host_bits(self) -> std::ops::Range<u128> {
        let end = if self.is_ipv4() { self.last_bits() } else { self.last_bits().saturating_add(1) };
        bits(self.address).saturating_add(1)..end
    }

    fn last_bits(self) -> u128 {
        bits(self.address) | !self.mask() & width_mask(self.is_ipv4())
    }

    fn mask(self) -> u128 {
        mask(self.address, self.prefix_len).expect("checked when the subnet was made")
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address_of(is_ipv4: bool, bits: u128) -> IpAddr {
    match u32::try_from(bits) {
        Ok(bits) if is_ipv4 => Ipv4Addr::from_bits(bits).into(),
        _ => Ipv6Addr::from_bits(bits).into(),
    }
}

fn width_mask(is_ipv4: bool) -> u128 {
    if is_ipv4 { u32::MAX.into() } else { u128::MAX }
}

fn mask(address: IpAddr, prefix_len: u8) -> Option<u128> {
    let width = if address.is_ipv4() { 32 } else { 128 };
    let host_len = u32::from(u8::checked_sub(width, prefix_len)?);
    let mask = u128::MAX.checked_shl(host_len).unwrap_or(0);
    Some(mask & width_mask(address.is_ipv4()))
}

impl FromStr for Subnet {
    type Err = SubnetError;

    fn from_str(text: &str) -> Result<Self, SubnetError> {
        let parse = || {
            let (address, prefix_len) = text.split_once('/')?;
            Self::containing(address.parse::<IpAddr>().ok()?, prefix_len.parse().ok()?)
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
        let shown = |addresses: &mut dyn Iterator<Item = IpAddr>| {
            addresses.map(|address| address.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(shown(&mut small.hosts()), "10.1.2.5 10.1.2.6");
        assert_eq!(shown(&mut small.addresses()), "10.1.2.4 10.1.2.5 10.1.2.6 10.1.2.7");
        assert_eq!(shown(&mut subnet("fd00::4/126").hosts()), "fd00::5 fd00::6 fd00::7");
        assert_eq!(subnet("10.0.0.1/32").hosts().count(), 0);
        assert_eq!(subnet("255.255.255.255/32").hosts().count(), 0);
        assert_eq!(subnet("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128").hosts().count(), 0);
        assert_eq!(subnet("::/0").last().to_string(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    }

    #[test]
    fn overlap_is_symmetric_and_keeps_the_families_apart() {
        assert!(subnet("172.17.0.0/16").overlaps(subnet("172.17.9.0/24")));
        assert!(subnet("172.17.9.0/24").overlaps(subnet("172.17.0.0/16")));
        assert!(!subnet("172.17.0.0/16").overlaps(subnet("172.18.0.0/16")));
        assert!(!subnet("0.0.0.0/0").overlaps(subnet("::/0")));
        assert!(subnet("172.17.0.0/16").includes(subnet("172.17.9.0/24")));
        assert!(!subnet("172.17.9.0/24").includes(subnet("172.17.0.0/16")));
    }

    #[test]
    fn malformed_subnets_are_named() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "a/8", "10.0.0.0/-1", "fd00::/129"] {
            assert_eq!(text.parse::<Subnet>(), Err(SubnetError(text.into())));
        }
    }
}
