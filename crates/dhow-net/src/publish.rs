//! Getting host ports: a port is ours when we have bound it, and as long as we keep it bound.
//!
//! The kernel redirects IPv4 connections before they reach these sockets, so they are mostly idle. They
//! keep other programs and containers off the port, and take what is not redirected: IPv6.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use crate::error::ConnectError;
use crate::network::BoundPort;
use crate::port::{HostPort, PortMapping, Protocol};

/// Where ports nobody asked for by number come from, as under Docker.
const EPHEMERAL_PORTS: RangeInclusive<u16> = 32768..=60999;

const BACKLOG: i32 = 128;

/// What holds a port.
#[derive(Debug)]
pub(crate) enum Holder {
    Tcp(TcpListener),
    Udp(UdpSocket),
    /// The kernel may lack SCTP sockets: the record alone keeps containers apart.
    Record,
}

/// A host port that is ours until dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    pub(crate) bound: BoundPort,
    pub(crate) holder: Holder,
}

impl BoundPort {
    /// Whether both would want the same packets.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let same_address = self.host_ip == other.host_ip
            || self.host_ip.is_ipv4() == other.host_ip.is_ipv4()
                && (self.host_ip.is_unspecified() || other.host_ip.is_unspecified());
        self.host_port == other.host_port
            && self.container_port.protocol == other.container_port.protocol
            && same_address
    }
}

/// Reserves a host port for each mapping. `is_allocated` knows the ports of other containers.
pub(crate) fn reserve(
    mappings: &[PortMapping],
    is_allocated: &dyn Fn(&BoundPort) -> bool,
) -> Result<Vec<Reservation>, ConnectError> {
    let mut reservations: Vec<Reservation> = Vec::new();
    for (index, mapping) in mappings.iter().enumerate() {
        if mappings[..index].contains(mapping) && matches!(mapping.host_port, HostPort::Fixed(_)) {
            continue;
        }
        let own: Vec<BoundPort> = reservations.iter().map(|reservation| reservation.bound).collect();
        let is_taken =
            |wanted: &BoundPort| own.iter().any(|port| port.overlaps(wanted)) || is_allocated(wanted);
        reservations.extend(reserve_one(mapping, &is_taken)?);
    }
    Ok(reservations)
}

fn reserve_one(
    mapping: &PortMapping,
    is_taken: &dyn Fn(&BoundPort) -> bool,
) -> Result<Vec<Reservation>, ConnectError> {
    let candidates = match mapping.host_port {
        HostPort::Fixed(port) => return reserve_at(mapping, port, is_taken),
        HostPort::Ephemeral => EPHEMERAL_PORTS,
        HostPort::Within(first, last) => first..=last,
    };
    for port in candidates.clone() {
        match reserve_at(mapping, port, is_taken) {
            Err(ConnectError::PortAllocated { .. } | ConnectError::PortInUse { .. }) => {}
            result => return result,
        }
    }
    Err(ConnectError::NoFreePort { first: *candidates.start(), last: *candidates.end() })
}

fn reserve_at(
    mapping: &PortMapping,
    host_port: u16,
    is_taken: &dyn Fn(&BoundPort) -> bool,
) -> Result<Vec<Reservation>, ConnectError> {
    let bound = |host_ip| BoundPort { host_ip, host_port, container_port: mapping.container_port };
    if let Some(host_ip) = mapping.host_ip {
        return Ok(vec![hold(bound(host_ip), is_taken)?]);
    }
    let mut reservations = vec![hold(bound(Ipv4Addr::UNSPECIFIED.into()), is_taken)?];
    match hold(bound(Ipv6Addr::UNSPECIFIED.into()), is_taken) {
        Ok(reservation) => reservations.push(reservation),
        // A host without IPv6 publishes on IPv4 alone.
        Err(ConnectError::Bind { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(reservations)
}

fn hold(bound: BoundPort, is_taken: &dyn Fn(&BoundPort) -> bool) -> Result<Reservation, ConnectError> {
    let (host, protocol) = (bound.host(), bound.container_port.protocol);
    match bind_holder(host, protocol) {
        Ok(Holder::Record) if is_taken(&bound) => Err(ConnectError::PortAllocated { host }),
        Ok(holder) => Ok(Reservation { bound, holder }),
        Err(Errno::ADDRINUSE) if is_taken(&bound) => Err(ConnectError::PortAllocated { host }),
        Err(Errno::ADDRINUSE) => Err(ConnectError::PortInUse { host, protocol }),
        Err(errno) => Err(ConnectError::Bind { host, protocol, source: io::Error::from(errno) }),
    }
}

fn bind_holder(host: SocketAddr, protocol: Protocol) -> Result<Holder, Errno> {
    match protocol {
        Protocol::Tcp => {
            let socket = open(host.ip(), SocketType::STREAM)?;
            // Connections of an earlier owner that are still fading away do not count.
            sockopt::set_socket_reuseaddr(&socket, true)?;
            bind(&socket, &host)?;
            listen(&socket, BACKLOG)?;
            Ok(Holder::Tcp(socket.into()))
        }
        Protocol::Udp => {
            let socket = open(host.ip(), SocketType::DGRAM)?;
            bind(&socket, &host)?;
            Ok(Holder::Udp(socket.into()))
        }
        Protocol::Sctp => Ok(Holder::Record),
    }
}

fn open(host_ip: IpAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    match host_ip {
        IpAddr::V4(_) => socket_with(AddressFamily::INET, kind, flags, None),
        IpAddr::V6(_) => {
            let socket = socket_with(AddressFamily::INET6, kind, flags, None)?;
            sockopt::set_ipv6_v6only(&socket, true)?;
            Ok(socket)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mappings(text: &str) -> Vec<PortMapping> {
        PortMapping::parse(text).unwrap()
    }

    /// A port that was free a moment ago.
    fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn the_error_tells_whose_port_it_is() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = other.local_addr().unwrap();
        let wanted = mappings(&format!("{host}:80"));

        let error = reserve(&wanted, &|_| false).unwrap_err();
        assert_eq!(error.to_string(), format!("failed to bind host port {host}/tcp: address already in use"));
        let error = reserve(&wanted, &|_| true).unwrap_err();
        assert_eq!(error.to_string(), format!("Bind for {host} failed: port is already allocated"));
    }

    #[test]
    fn a_range_gives_the_first_free_port_and_then_runs_out() {
        let port = free_port();
        let wanted = mappings(&format!("127.0.0.1:{port}-{port}:80"));
        let range = PortMapping { host_port: HostPort::Within(port, port), ..wanted[0] };
        let first = reserve(&[range], &|_| false).unwrap();
        assert_eq!(first[0].bound.host_port, port);
        assert!(matches!(reserve(&[range], &|_| false), Err(ConnectError::NoFreePort { .. })));
    }

    #[test]
    fn one_port_cannot_be_published_twice_but_the_same_wish_can_be_repeated() {
        let port = free_port();
        let once = mappings(&format!("127.0.0.1:{port}:80"));
        let twice = [once.clone(), mappings(&format!("127.0.0.1:{port}:81"))].concat();
        assert!(matches!(reserve(&twice, &|_| false), Err(ConnectError::PortAllocated { .. })));
        let repeated = [once.clone(), once].concat();
        assert_eq!(reserve(&repeated, &|_| false).unwrap().len(), 1);
    }

    #[test]
    fn all_addresses_means_both_families_and_sctp_is_kept_by_record() {
        let tcp = reserve(&mappings("80"), &|_| false).unwrap();
        assert!(EPHEMERAL_PORTS.contains(&tcp[0].bound.host_port));
        assert!(tcp.iter().all(|reservation| reservation.bound.host_port == tcp[0].bound.host_port));
        assert!(tcp[0].bound.host_ip.is_ipv4());
        let sctp = mappings("127.0.0.1:80:80/sctp");
        assert!(reserve(&sctp, &|_| false).is_ok());
        assert!(matches!(reserve(&sctp, &|_| true), Err(ConnectError::PortAllocated { .. })));
    }
}
