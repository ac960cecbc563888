//! The inside of a container: its network namespace, seen from without.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dhow_sys::netns;

use crate::bridge::write_option;
use crate::dns::DnsSockets;
use crate::error::{ConnectError, While};
use crate::files::DNS_ADDRESS;
use crate::netlink::{LOOPBACK_INDEX, RouteSocket};
use crate::nft::{Family, Table};
use crate::subnet::Subnet;

/// The only table dhow makes inside a container.
const CONTAINER_TABLE: &str = "dhow_dns";

/// How many bits of a link-local address name the link, by family.
const LINK_LOCAL_BITS: (u8, u8) = (16, 64);

/// A network namespace. Its sockets remember where they were opened, so that only what is a file below `/proc/sys`
/// needs somebody to go in.
pub(crate) struct Inside {
    netns: OwnedFd,
    route: RouteSocket,
}

/// A device as it is to be.
pub(crate) struct Device<'a> {
    pub(crate) name: &'a str,
    pub(crate) addresses: Vec<(IpAddr, Subnet)>,
    pub(crate) link_local: &'a [IpAddr],
    pub(crate) sysctls: &'a [(String, String)],
}

impl Inside {
    /// Gets the namespace ready to have devices: those have no IPv6 unless it is asked for, since an idle one would
    /// still talk to its neighbours.
    pub(crate) fn open(netns: BorrowedFd<'_>) -> Result<(Self, DnsSockets), ConnectError> {
        let doing = || "set up the container's network namespace".into();
        let work = || {
            set_container_options()?;
            disable_ipv6("default")?;
            let mut route = RouteSocket::open()?;
            route.set_link_up(LOOPBACK_INDEX)?;
            Ok((route, open_dns_sockets()?))
        };
        let (route, sockets) =
            netns::in_netns(netns, work).and_then(|done: io::Result<_>| done).while_doing(doing)?;
        let netns = netns.try_clone_to_owned().while_doing(doing)?;
        Ok((Self { netns, route }, sockets))
    }

    pub(crate) fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// Gives a device its addresses and brings it up; returns its index.
    pub(crate) fn set_up(&mut self, device: &Device<'_>) -> io::Result<u32> {
        let has_ipv6 = |address: &IpAddr| address.is_ipv6();
        let wants_ipv6 = device.addresses.iter().map(|(address, _)| address).any(has_ipv6)
            || device.link_local.iter().any(has_ipv6);
        if wants_ipv6 || !device.sysctls.is_empty() {
            netns::in_netns(self.netns.as_fd(), || set_device_options(device, wants_ipv6))??;
        }
        let link = self.route.link_named(device.name)?.ok_or(io::ErrorKind::NotFound)?;
        for (address, subnet) in &device.addresses {
            self.route.add_address(link.index, *address, *subnet)?;
        }
        for address in device.link_local {
            let bits = if address.is_ipv4() { LINK_LOCAL_BITS.0 } else { LINK_LOCAL_BITS.1 };
            let subnet = Subnet::containing(*address, bits).expect("both families have that many bits");
            self.route.add_address(link.index, *address, subnet)?;
        }
        self.route.set_link_up(link.index)?;
        Ok(link.index)
    }

    /// Replaces a default route, of which there is one a family.
    pub(crate) fn set_default_route(
        &mut self,
        old: Option<(u32, IpAddr)>,
        new: Option<(u32, IpAddr)>,
    ) -> io::Result<()> {
        if let Some((index, gateway)) = old {
            self.route.delete_default_route(index, gateway)?;
        }
        new.map_or(Ok(()), |(index, gateway)| self.route.add_default_route(index, gateway))
    }
}

impl std::fmt::Debug for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inside({:?})", self.netns)
    }
}

/// Any port and a redirect, so that port 53 stays free; port 53 itself where the kernel cannot redirect.
fn open_dns_sockets() -> io::Result<DnsSockets> {
    let sockets = DnsSockets::open(0)?;
    let table = Table { name: CONTAINER_TABLE, family: Family::Ipv4 };
    match table.create_dns_redirect(DNS_ADDRESS.into(), &sockets.ports()?) {
        Ok(()) => Ok(sockets),
        Err(_) => DnsSockets::open(53),
    }
}

/// As under Docker: in a namespace of its own, anybody may serve port 80 and ping.
pub(crate) fn set_container_options() -> io::Result<()> {
    write_option("ipv4/ip_unprivileged_port_start", "0")?;
    match write_option("ipv4/ping_group_range", "0\t2147483647") {
        // In a user namespace that does not know all these groups: there ping takes a capability.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

fn set_device_options(device: &Device<'_>, wants_ipv6: bool) -> io::Result<()> {
    if wants_ipv6 {
        // The ledger gives the addresses, not a router that may or may not be there.
        for (option, value) in [("disable_ipv6", "0"), ("accept_ra", "0"), ("autoconf", "0")] {
            write_option(&format!("ipv6/conf/{}/{option}", device.name), value)?;
        }
    }
    let named = |text: &str| text.replace("IFNAME", device.name);
    device.sysctls.iter().try_for_each(|(name, value)| {
        let path = named(name);
        write_option(&path, value)
            .map_err(|error| io::Error::new(error.kind(), format!("set net/{path} to {value}: {error}")))
    })
}

/// A device without IPv6 addresses of ours has none of its own either.
pub(crate) fn disable_ipv6(device: &str) -> io::Result<()> {
    match write_option(&format!("ipv6/conf/{device}/disable_ipv6"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
