//! A small blocking door to rtnetlink: links, addresses, routes.
//!
//! One request at a time: the kernel answers within `send`, so nothing here waits for anybody.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::network::MacAddress;
use crate::subnet::Subnet;

/// The index of `lo` in every network namespace.
pub(crate) const LOOPBACK_INDEX: u32 = 1;

const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// The kernel fills at most this much per answer of a dump.
const RECEIVE_BYTES_MAX: usize = 64 * 1024;

/// A device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) mtu: u32,
}

/// What is to become a pair of connected devices, one on a bridge here, one in a container.
#[derive(Debug)]
pub(crate) struct VethPair<'a> {
    pub(crate) name: &'a str,
    pub(crate) bridge_index: u32,
    pub(crate) mtu: u32,
    pub(crate) peer_name: &'a str,
    pub(crate) peer_mac: MacAddress,
    pub(crate) peer_netns: BorrowedFd<'a>,
}

/// A socket to the routing part of the kernel, in the network namespace of the thread that opened it.
pub(crate) struct RouteSocket {
    socket: Socket,
    sequence: u32,
}

impl RouteSocket {
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The device called `name`, if there is one.
    pub(crate) fn link_named(&mut self, name: &str) -> io::Result<Option<Link>> {
        self.link(link_message(0, vec![LinkAttribute::IfName(name.into())]))
    }

    fn link(&mut self, wanted: LinkMessage) -> io::Result<Option<Link>> {
        match self.request(RouteNetlinkMessage::GetLink(wanted), NLM_F_ACK) {
            Ok(answers) => Ok(answers.iter().find_map(link_of)),
            Err(error) if is_no_device(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates a bridge that is up.
    pub(crate) fn create_bridge(&mut self, name: &str, mac: MacAddress, mtu: u32) -> io::Result<()> {
        let mut message = link_message(
            0,
            vec![
                LinkAttribute::IfName(name.into()),
                LinkAttribute::Address(mac.0.to_vec()),
                LinkAttribute::Mtu(mtu),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
            ],
        );
        set_up(&mut message);
        self.create(RouteNetlinkMessage::NewLink(message))
    }

    /// Creates a pair of devices, ours on the bridge, the peer in its namespace. Both are down: the kernel
    /// brings neither up before both exist.
    pub(crate) fn create_veth(&mut self, pair: &VethPair<'_>) -> io::Result<()> {
        let peer = link_message(
            0,
            vec![
                LinkAttribute::IfName(pair.peer_name.into()),
                LinkAttribute::Address(pair.peer_mac.0.to_vec()),
                LinkAttribute::Mtu(pair.mtu),
                LinkAttribute::NetNsFd(pair.peer_netns.as_raw_fd()),
            ],
        );
        let message = link_message(
            0,
            vec![
                LinkAttribute::IfName(pair.name.into()),
                LinkAttribute::Mtu(pair.mtu),
                LinkAttribute::Controller(pair.bridge_index),
                LinkAttribute::LinkInfo(vec![
                    LinkInfo::Kind(InfoKind::Veth),
                    LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
                ]),
            ],
        );
        self.create(RouteNetlinkMessage::NewLink(message))
    }

    /// Brings a device up.
    pub(crate) fn set_link_up(&mut self, index: u32) -> io::Result<()> {
        let mut message = link_message(index, Vec::new());
        set_up(&mut message);
        self.request(RouteNetlinkMessage::SetLink(message), NLM_F_ACK).map(drop)
    }

    /// Brings a port of a bridge up, as a hairpin: a packet may leave where it came in. One that is isolated
    /// talks to the host alone.
    pub(crate) fn set_port_up(&mut self, name: &str, is_isolated: bool) -> io::Result<()> {
        let mut port = vec![InfoBridgePort::HairpinMode(true)];
        port.extend(is_isolated.then_some(InfoBridgePort::Isolated(true)));
        let data = InfoPortData::BridgePort(port);
        let info = vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(data)];
        let mut message =
            link_message(0, vec![LinkAttribute::IfName(name.into()), LinkAttribute::LinkInfo(info)]);
        set_up(&mut message);
        // RTM_SETLINK ignores the link info; RTM_NEWLINK on an existing device is the full change request.
        self.request(RouteNetlinkMessage::NewLink(message), NLM_F_ACK).map(drop)
    }

    /// Removes a device and, for a veth, its peer. One that is gone is success.
    pub(crate) fn delete_link(&mut self, name: &str) -> io::Result<()> {
        let message = link_message(0, vec![LinkAttribute::IfName(name.into())]);
        match self.request(RouteNetlinkMessage::DelLink(message), NLM_F_ACK) {
            Err(error) if !is_no_device(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Gives a device an address on a subnet. It can be used at once: the ledger knows that nobody else has it.
    pub(crate) fn add_address(&mut self, index: u32, address: IpAddr, subnet: Subnet) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = family_of(address);
        message.header.prefix_len = subnet.prefix_len();
        message.header.index = index;
        message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        match subnet.last() {
            IpAddr::V4(broadcast) => message.attributes.push(AddressAttribute::Broadcast(broadcast)),
            IpAddr::V6(_) => message.header.flags = AddressHeaderFlags::Nodad,
        }
        if is_link_local(address) {
            message.header.scope = AddressScope::Link;
        }
        self.create(RouteNetlinkMessage::NewAddress(message))
    }

    /// Sends everything without a better route to `gateway`.
    pub(crate) fn add_default_route(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
        self.create(RouteNetlinkMessage::NewRoute(default_route(index, gateway)))
    }

    /// Undoes that. A route that is gone, with its device for example, is success.
    pub(crate) fn delete_default_route(&mut self, index: u32, gateway: IpAddr) -> io::Result<()> {
        match self.request(RouteNetlinkMessage::DelRoute(default_route(index, gateway)), NLM_F_ACK) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::SRCH.raw_os_error()) => Err(error),
            _ => Ok(()),
        }
    }

    /// The addresses and subnets of a device, without those that are good for the link only.
    pub(crate) fn addresses_of(&mut self, index: u32) -> io::Result<Vec<(IpAddr, Subnet)>> {
        let mut found = Vec::new();
        for family in FAMILIES {
            let addresses = self.addresses(family)?.into_iter();
            let own = addresses.filter(|(owner, address, _)| *owner == index && !is_link_local(*address));
            found.extend(own.map(|(_, address, subnet)| (address, subnet)));
        }
        Ok(found)
    }

    /// All subnets this host has an address on or a route to, other than the default one.
    pub(crate) fn subnets_in_use(&mut self) -> io::Result<Vec<Subnet>> {
        let mut subnets: Vec<Subnet> = Vec::new();
        for family in FAMILIES {
            let addresses = self.addresses(family)?.into_iter();
            subnets.extend(addresses.filter(|(_, ip, _)| !is_link_local(*ip)).map(|(.., subnet)| subnet));
            let routes = self.routes(family)?;
            let known = routes.iter().filter_map(destination);
            subnets.extend(known.filter(|subnet| subnet.prefix_len() > 0 && is_unicast(subnet.address())));
        }
        Ok(subnets)
    }

    /// The device packets to the world leave by, if there is a default route.
    pub(crate) fn default_route_link(&mut self) -> io::Result<Option<Link>> {
        let routes = self.routes(AddressFamily::Inet)?;
        let Some(index) = routes.iter().filter(|route| is_default(route)).find_map(device_of) else {
            return Ok(None);
        };
        self.link(link_message(index, Vec::new()))
    }

    fn addresses(&mut self, family: AddressFamily) -> io::Result<Vec<(u32, IpAddr, Subnet)>> {
        let mut message = AddressMessage::default();
        message.header.family = family;
        let answers = self.request(RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP)?;
        Ok(answers.iter().filter_map(address_of).collect())
    }

    fn routes(&mut self, family: AddressFamily) -> io::Result<Vec<RouteMessage>> {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        let answers = self.request(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)?;
        let route = |answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(route).collect())
    }

    fn create(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Sends one request and collects its answers up to the acknowledgement or the end of the dump.
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answers = Vec::new();
        while !self.receive(&mut answers)? {}
        Ok(answers)
    }

    /// Reads one datagram; true when it ends the answer.
    fn receive(&mut self, answers: &mut Vec<RouteNetlinkMessage>) -> io::Result<bool> {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES_MAX);
        self.socket.recv(&mut buffer, 0)?;
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            let answer =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            rest = &rest[padded(answer.header.length as usize).min(rest.len())..];
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            match answer.payload {
                NetlinkPayload::Done(_) => return Ok(true),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(true),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(message) => answers.push(message),
                _ => {}
            }
        }
        Ok(false)
    }
}

/// Netlink aligns messages to four bytes; a length of zero must not stop the reader.
fn padded(length: usize) -> usize {
    length.max(1).next_multiple_of(4)
}

fn is_no_device(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

fn link_message(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

fn set_up(message: &mut LinkMessage) {
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
}

fn link_of(answer: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = answer else { return None };
    let mtu = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    Some(Link { index: message.header.index, mtu: mtu? })
}

fn address_of(answer: &RouteNetlinkMessage) -> Option<(u32, IpAddr, Subnet)> {
    let RouteNetlinkMessage::NewAddress(message) = answer else { return None };
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    let local = find(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    // IPv6 has no other end and says it this way.
    let address = local.or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })?;
    Some((message.header.index, address, Subnet::containing(address, message.header.prefix_len)?))
}

fn default_route(index: u32, gateway: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(gateway);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    let gateway = match gateway {
        IpAddr::V4(gateway) => RouteAddress::Inet(gateway),
        IpAddr::V6(gateway) => RouteAddress::Inet6(gateway),
    };
    message.attributes = vec![RouteAttribute::Gateway(gateway), RouteAttribute::Oif(index)];
    message
}

fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// Whether it means something on one link only.
pub(crate) fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Every device has routes to multicast and to its own link.
fn is_unicast(address: IpAddr) -> bool {
    !(address.is_multicast() || address.is_ipv6() && is_link_local(address))
}

fn is_default(route: &RouteMessage) -> bool {
    route.header.table == RouteHeader::RT_TABLE_MAIN
        && route.header.destination_prefix_length == 0
        && route.header.kind == RouteType::Unicast
}

fn device_of(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn destination(route: &RouteMessage) -> Option<Subnet> {
    route.attributes.iter().find_map(|attribute| {
        let address: IpAddr = match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => (*address).into(),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => (*address).into(),
            _ => return None,
        };
        Subnet::containing(address, route.header.destination_prefix_length)
    })
}
