//! One container on a bridge network, from `connect` to `disconnect`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::BorrowedFd;

use dhow_sys::netns;

use crate::bridge::{self, write_option};
use crate::dns::DnsSockets;
use crate::error::{ConnectError, While};
use crate::forward;
use crate::ledger::{Held, Ledger, Reader, Record, Survey};
use crate::netlink::{LOOPBACK_INDEX, RouteSocket, VethPair};
use crate::network::{Attached, EndpointSpec, MacAddress, NetConfig, Network};
use crate::nft::Table;
use crate::publish::{Reservation, reserve};
use crate::stop::Worker;

/// What the device is called inside.
const DEVICE: &str = "eth0";

/// The only table dhow makes inside a container.
const CONTAINER_TABLE: &str = "dhow_dns";

/// Room for the record's suffix in a file name of 255 bytes.
const CONTAINER_ID_BYTES_MAX: usize = 128;

/// A container's place on a network, held by the process that looks after the container.
///
/// It owns threads (name server, port forwarder) and the lock of the endpoint's record. Signals meant
/// for the process must be blocked before `connect` if a particular thread is to receive them.
/// Dropping it disconnects. If the process dies instead, [`reconcile`] or the next `connect` cleans up.
#[derive(Debug)]
pub struct BridgeEndpoint {
    config: NetConfig,
    attached: Attached,
    record: Record,
    held: Option<Held>,
    workers: Vec<Worker>,
}

impl BridgeEndpoint {
    /// Puts the container whose network namespace is `netns` on the network, which is brought up first
    /// if need be. Its published ports work and its names resolve when this returns.
    pub fn connect(
        config: &NetConfig,
        spec: &EndpointSpec,
        netns: BorrowedFd<'_>,
    ) -> Result<Self, ConnectError> {
        check_container_id(&spec.container_id)?;
        let (network, mut endpoint, reservations) = Self::admit(config, spec)?;
        endpoint.wire(&network, spec, netns)?;
        let table = Table { name: &config.table };
        table.publish(&endpoint.record.redirects()).while_doing(|| "publish ports".into())?;
        let forwarder = forward::start(reservations, endpoint.attached.ip);
        endpoint.workers.extend(forwarder.while_doing(|| "forward ports".into())?);
        Ok(endpoint)
    }

    /// What the container got.
    pub fn attached(&self) -> &Attached {
        &self.attached
    }

    /// Takes the container off the network and gives its address and ports back.
    ///
    /// The kernel takes some ten milliseconds to let go of a device; whoever is in a hurry does this on
    /// another thread.
    pub fn disconnect(mut self) -> Result<(), ConnectError> {
        self.release()
    }

    /// Everything that needs the ledger: cleans up after the dead, finds an address and ports, and writes
    /// it down before anything is made that would have to be removed.
    fn admit(
        config: &NetConfig,
        spec: &EndpointSpec,
    ) -> Result<(Network, Self, Vec<Reservation>), ConnectError> {
        let ledger =
            Ledger::open(config).while_doing(|| format!("open the records of network {}", config.name))?;
        let survey = survey_and_bury(config, &ledger)?;
        let network = bridge::ensure(config, &ledger, &survey)?;
        if ledger.contains(&spec.container_id) {
            return Err(ConnectError::AlreadyConnected(spec.container_id.clone()));
        }
        let ip = choose_address(&network, &survey, spec.ip)?;
        let is_allocated = |wanted: &_| crate::ledger::is_port_allocated(&config.run_dir, wanted);
        let reservations = reserve(&spec.ports, &is_allocated)?;
        let ports: Vec<_> = reservations.iter().map(|reservation| reservation.bound).collect();
        let veth = veth_name(config, &spec.container_id);
        let record = Record { names: spec.names.clone(), ip, veth, ports: ports.clone() };
        let held = ledger
            .add(&spec.container_id, &record)
            .while_doing(|| format!("record container {}", spec.container_id))?;
        let attached = Attached {
            ip,
            prefix_len: network.subnet.prefix_len(),
            gateway: network.gateway,
            mac: spec.mac.unwrap_or(MacAddress::of(ip)),
            ports,
        };
        let endpoint =
            Self { config: config.clone(), attached, record, held: Some(held), workers: Vec::new() };
        Ok((network, endpoint, reservations))
    }

    /// Lays the cable, sets up the inside and starts the name server.
    fn wire(
        &mut self,
        network: &Network,
        spec: &EndpointSpec,
        inside: BorrowedFd<'_>,
    ) -> Result<(), ConnectError> {
        let veth = &self.record.veth;
        let mut route = RouteSocket::open().while_doing(|| "open a netlink socket".into())?;
        let pair = VethPair {
            name: veth,
            bridge_index: network.bridge_index,
            mtu: network.mtu,
            peer_name: DEVICE,
            peer_mac: self.attached.mac,
            peer_netns: inside,
        };
        route.create_veth(&pair).while_doing(|| format!("create device {veth}"))?;
        disable_ipv6(veth).while_doing(|| format!("set up device {veth}"))?;
        route.set_port_up(veth).while_doing(|| format!("bring up device {veth}"))?;

        let attached = &self.attached;
        let sockets = netns::in_netns(inside, || configure_inside(network, attached))
            .and_then(|configured| configured)
            .while_doing(|| "set up the container's network namespace".into())?;
        let names = self.config.resolve_names.then(|| Reader::new(&self.config));
        let server = sockets.serve(spec.dns.servers.clone(), names);
        self.workers.push(server.while_doing(|| "start the name server".into())?);
        Ok(())
    }

    /// Undoes everything, once. What fails does not keep the rest; the record stays if anything did, for
    /// `reconcile` to try again.
    fn release(&mut self) -> Result<(), ConnectError> {
        let Some(held) = self.held.take() else { return Ok(()) };
        let undone = undo(&self.config, &self.record);
        self.workers.clear();
        undone?;
        held.remove().while_doing(|| "remove the container's record".into())
    }
}

impl Drop for BridgeEndpoint {
    fn drop(&mut self) {
        // Nobody is left to be told; what stays is a record that `reconcile` will find.
        let _ = self.release();
    }
}

/// Removes what dead owners left on the network and says how many they were.
pub fn reconcile(config: &NetConfig) -> Result<usize, ConnectError> {
    let ledger =
        Ledger::open(config).while_doing(|| format!("open the records of network {}", config.name))?;
    let survey = ledger.survey().while_doing(|| "read the network's records".into())?;
    let count = survey.dead.len();
    bury(config, survey)?;
    Ok(count)
}

/// Removes a network from the host: leftovers, rules, bridge. Containers still on it lose it.
pub fn remove_network(config: &NetConfig) -> Result<(), ConnectError> {
    reconcile(config)?;
    let ledger =
        Ledger::open(config).while_doing(|| format!("open the records of network {}", config.name))?;
    bridge::remove(config, &ledger)
}

/// Sets up a network namespace that has nobody to talk to but itself (`--network none`).
pub fn connect_loopback(netns: BorrowedFd<'_>) -> Result<(), ConnectError> {
    let configured = netns::in_netns(netns, || {
        set_container_options()?;
        RouteSocket::open()?.set_link_up(LOOPBACK_INDEX)
    });
    configured.and_then(|configured| configured).while_doing(|| "bring up the loopback device".into())
}

fn survey_and_bury(config: &NetConfig, ledger: &Ledger) -> Result<Survey, ConnectError> {
    let mut survey = ledger.survey().while_doing(|| "read the network's records".into())?;
    let dead = std::mem::take(&mut survey.dead);
    bury(config, Survey { dead, live: Vec::new() })?;
    Ok(survey)
}

fn bury(config: &NetConfig, survey: Survey) -> Result<(), ConnectError> {
    for (held, record) in survey.dead {
        if let Some(record) = record {
            undo(config, &record)?;
        }
        held.remove().while_doing(|| "remove a leftover record".into())?;
    }
    Ok(())
}

/// Removes a container's rules and device. What is gone already is as good as removed.
fn undo(config: &NetConfig, record: &Record) -> Result<(), ConnectError> {
    let unpublished = Table { name: &config.table }.unpublish(&record.redirects());
    let unplugged = RouteSocket::open().and_then(|mut route| route.delete_link(&record.veth));
    unpublished.while_doing(|| "take published ports back".into())?;
    unplugged.while_doing(|| format!("delete device {}", record.veth))
}

fn choose_address(
    network: &Network,
    survey: &Survey,
    wanted: Option<Ipv4Addr>,
) -> Result<Ipv4Addr, ConnectError> {
    let is_free =
        |ip: &Ipv4Addr| *ip != network.gateway && !survey.live.iter().any(|record| record.ip == *ip);
    match wanted {
        Some(ip) if !network.subnet.has_host(ip) => {
            Err(ConnectError::AddressOutside { ip, subnet: network.subnet })
        }
        Some(ip) if !is_free(&ip) => Err(ConnectError::AddressTaken(ip)),
        Some(ip) => Ok(ip),
        None => network.subnet.hosts().find(is_free).ok_or(ConnectError::NoFreeAddress(network.subnet)),
    }
}

/// The id names a file.
fn check_container_id(id: &str) -> Result<(), ConnectError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let is_valid = !id.is_empty() && id.len() <= CONTAINER_ID_BYTES_MAX && id.bytes().all(is_plain);
    is_valid.then_some(()).ok_or_else(|| ConnectError::ContainerId(id.into()))
}

/// A device name has 15 bytes and must differ between networks of one container.
fn veth_name(config: &NetConfig, container_id: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (&config.name, &config.run_dir, container_id).hash(&mut hasher);
    format!("veth{:011x}", hasher.finish() & 0xfff_ffff_ffff)
}

/// Runs inside the container's namespace.
fn configure_inside(network: &Network, attached: &Attached) -> io::Result<DnsSockets> {
    set_container_options()?;
    disable_ipv6(DEVICE)?;
    let mut route = RouteSocket::open()?;
    route.set_link_up(LOOPBACK_INDEX)?;
    let device = route.link_named(DEVICE)?.ok_or(io::ErrorKind::NotFound)?;
    route.add_address(device.index, attached.ip, network.subnet)?;
    route.set_link_up(device.index)?;
    route.add_default_route(device.index, attached.gateway)?;
    open_dns_sockets()
}

/// Any port and a redirect, so that port 53 stays free; port 53 itself where the kernel cannot redirect.
fn open_dns_sockets() -> io::Result<DnsSockets> {
    let sockets = DnsSockets::open(0)?;
    let table = Table { name: CONTAINER_TABLE };
    match table.create_dns_redirect(crate::files::DNS_ADDRESS, &sockets.ports()?) {
        Ok(()) => Ok(sockets),
        Err(_) => DnsSockets::open(53),
    }
}

/// As under Docker: in a namespace of its own, anybody may serve port 80 and ping.
fn set_container_options() -> io::Result<()> {
    write_option("ipv4/ip_unprivileged_port_start", "0")?;
    match write_option("ipv4/ping_group_range", "0\t2147483647") {
        // In a user namespace that does not know all these groups: there ping takes a capability.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

/// The network is IPv4 only; an idle IPv6 would still talk to its neighbours.
fn disable_ipv6(device: &str) -> io::Result<()> {
    match write_option(&format!("ipv6/conf/{device}/disable_ipv6"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
