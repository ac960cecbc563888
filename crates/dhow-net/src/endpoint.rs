//! One container on one bridge network.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::bridge::{self, Standing};
use crate::error::{ConnectError, While};
use crate::inside::{Device, Inside, disable_ipv6};
use crate::ledger::{Held, Ledger, Record, Survey, Turn};
use crate::netlink::{RouteSocket, VethPair};
use crate::network::{Attached, BoundPort, EndpointSpec, MacAddress, NetConfig, Pool};
use crate::nft::{Family, Table};
use crate::port::PortMapping;
use crate::publish::{Reservation, reserve};

/// Room for the record's suffix in a file name of 255 bytes.
const CONTAINER_ID_BYTES_MAX: usize = 128;

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// A container's place on a network, held by the process that looks after the container.
///
/// It owns the lock of the endpoint's record. Dropping it takes the container off the network; if the process dies
/// instead, whoever comes next does.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) config: NetConfig,
    pub(crate) spec: EndpointSpec,
    pub(crate) attached: Attached,
    /// The device's index inside.
    pub(crate) device_index: u32,
    record: Record,
    held: Option<Held>,
}

impl Endpoint {
    /// Brings the network up if need be, and lays a cable to it.
    pub(crate) fn connect(
        config: &NetConfig,
        spec: &EndpointSpec,
        device: String,
        inside: &mut Inside,
    ) -> Result<Self, ConnectError> {
        check_container_id(&spec.container_id)?;
        let (network, mut endpoint) = Self::admit(config, spec, device)?;
        endpoint.wire(&network, inside)?;
        Ok(endpoint)
    }

    /// Everything that needs the ledger: cleans up after the dead, finds addresses, and writes it down before
    /// anything is made that would have to be removed.
    fn admit(
        config: &NetConfig,
        spec: &EndpointSpec,
        device: String,
    ) -> Result<(Standing, Self), ConnectError> {
        let turn = turn(config)?;
        let ledger = open(config, &turn)?;
        let survey = survey_and_bury(config, &ledger)?;
        let network = bridge::ensure(config, &ledger, &survey)?;
        if ledger.contains(&spec.container_id) {
            return Err(ConnectError::AlreadyConnected(spec.container_id.clone()));
        }
        let places = choose_places(&network.pools, &survey, spec)?;
        let veth = veth_name(config, &spec.container_id);
        let (names, ports) = (spec.names.clone(), Vec::new());
        let attached = places.attached(config, spec, device);
        let record = Record { names, ip: attached.ip, ip6: attached.ip6, veth, ports };
        let held = ledger
            .add(&spec.container_id, &record)
            .while_doing(|| format!("record container {}", spec.container_id))?;
        let (config, spec) = (config.clone(), spec.clone());
        let endpoint = Self { config, spec, attached, device_index: 0, record, held: Some(held) };
        Ok((network, endpoint))
    }

    /// Lays the cable and sets up its end inside.
    fn wire(&mut self, network: &Standing, inside: &mut Inside) -> Result<(), ConnectError> {
        let (veth, device) = (&self.record.veth, &self.attached.device);
        let mut route = RouteSocket::open().while_doing(|| "open a netlink socket".into())?;
        let pair = VethPair {
            name: veth,
            bridge_index: network.bridge_index,
            mtu: network.mtu,
            peer_name: device,
            peer_mac: self.attached.mac,
            peer_netns: inside.netns(),
        };
        route.create_veth(&pair).while_doing(|| format!("create device {veth}"))?;
        disable_ipv6(veth).while_doing(|| format!("set up device {veth}"))?;
        route.set_port_up(veth, !self.config.neighbours).while_doing(|| format!("bring up device {veth}"))?;
        let subnet = |address: IpAddr| network.pools.iter().find(|pool| pool.subnet.contains(address));
        let addresses = self.record.addresses().filter_map(|ip| Some((ip, subnet(ip)?.subnet)));
        let wanted = Device {
            name: device,
            addresses: addresses.collect(),
            link_local: &self.spec.link_local,
            sysctls: &self.spec.sysctls,
        };
        self.device_index =
            inside.set_up(&wanted).while_doing(|| format!("set up the container's device {device}"))?;
        Ok(())
    }

    /// Gets ports of the host and has the kernel redirect them here.
    pub(crate) fn publish(&mut self, wanted: &[PortMapping]) -> Result<Vec<Reservation>, ConnectError> {
        let binding = |mapping: &PortMapping| PortMapping {
            host_ip: mapping.host_ip.or(self.config.host_binding),
            ..*mapping
        };
        let wanted: Vec<PortMapping> = wanted.iter().map(binding).collect();
        let run_dir = self.config.run_dir.clone();
        let turn = turn(&self.config)?;
        let is_allocated = |wanted: &_| crate::ledger::is_port_allocated(&run_dir, wanted);
        let reservations = reserve(&wanted, &is_allocated)?;
        self.record_ports(reservations.iter().map(|reservation| reservation.bound).collect(), &turn)?;
        drop(turn);
        self.redirect()?;
        Ok(reservations)
    }

    /// Takes over ports that are ours already.
    pub(crate) fn take_ports(&mut self, ports: Vec<BoundPort>) -> Result<(), ConnectError> {
        self.record_ports(ports, &turn(&self.config)?)?;
        self.redirect()
    }

    /// Lets go of the ports, which somebody still holds, and returns them.
    pub(crate) fn give_ports(&mut self) -> Result<Vec<BoundPort>, ConnectError> {
        unpublish(&self.config, &self.record)?;
        let ports = self.record.ports.clone();
        self.record_ports(Vec::new(), &turn(&self.config)?)?;
        Ok(ports)
    }

    /// Whom published ports lead to: an IPv4 address if there is one.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.record.addresses().next()
    }

    /// Calls the container by other names from now on.
    pub(crate) fn rename(&mut self, names: Vec<String>) -> Result<(), ConnectError> {
        self.spec.names.clone_from(&names);
        self.record.names = names;
        self.rewrite(&turn(&self.config)?)
    }

    fn record_ports(&mut self, ports: Vec<BoundPort>, turn: &Turn) -> Result<(), ConnectError> {
        self.record.ports.clone_from(&ports);
        self.attached.ports = ports;
        self.rewrite(turn)
    }

    fn rewrite(&mut self, turn: &Turn) -> Result<(), ConnectError> {
        let ledger = open(&self.config, turn)?;
        let Some(held) = &mut self.held else { return Ok(()) };
        ledger.replace(held, &self.record).while_doing(|| "rewrite the container's record".into())
    }

    fn redirect(&self) -> Result<(), ConnectError> {
        for family in FAMILIES {
            let table = Table { name: &self.config.table, family };
            table.publish(&self.record.redirects(family)).while_doing(|| "publish ports".into())?;
        }
        Ok(())
    }

    /// Undoes everything, once. What fails does not keep the rest; the record stays if anything did, for
    /// `reconcile` to try again.
    pub(crate) fn release(&mut self) -> Result<(), ConnectError> {
        let Some(held) = self.held.take() else { return Ok(()) };
        undo(&self.config, &self.record)?;
        held.remove().while_doing(|| "remove the container's record".into())
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // Nobody is left to be told; what stays is a record that `reconcile` will find.
        let _ = self.release();
    }
}

pub(crate) fn turn(config: &NetConfig) -> Result<Turn, ConnectError> {
    Turn::wait(&config.run_dir).while_doing(|| format!("lock {}", config.run_dir.display()))
}

pub(crate) fn open<'t>(config: &NetConfig, turn: &'t Turn) -> Result<Ledger<'t>, ConnectError> {
    Ledger::open(config, turn).while_doing(|| format!("open the records of network {}", config.name))
}

/// Removes what the dead left and returns the living.
pub(crate) fn survey_and_bury(config: &NetConfig, ledger: &Ledger<'_>) -> Result<Survey, ConnectError> {
    let mut survey = ledger.survey().while_doing(|| "read the network's records".into())?;
    bury(config, std::mem::take(&mut survey.dead))?;
    Ok(survey)
}

pub(crate) fn bury(config: &NetConfig, dead: Vec<(Held, Option<Record>)>) -> Result<(), ConnectError> {
    for (held, record) in dead {
        if let Some(record) = record {
            undo(config, &record)?;
        }
        held.remove().while_doing(|| "remove a leftover record".into())?;
    }
    Ok(())
}

/// Removes a container's rules and device. What is gone already is as good as removed.
fn undo(config: &NetConfig, record: &Record) -> Result<(), ConnectError> {
    let unpublished = unpublish(config, record);
    let unplugged = RouteSocket::open().and_then(|mut route| route.delete_link(&record.veth));
    unpublished?;
    unplugged.while_doing(|| format!("delete device {}", record.veth))
}

fn unpublish(config: &NetConfig, record: &Record) -> Result<(), ConnectError> {
    for family in FAMILIES {
        let table = Table { name: &config.table, family };
        let unpublished = table.unpublish(&record.redirects(family));
        unpublished.while_doing(|| "take published ports back".into())?;
    }
    Ok(())
}

/// An address of each family the network has.
struct Places<'p>(Vec<(&'p Pool, IpAddr)>);

impl Places<'_> {
    fn attached(&self, config: &NetConfig, spec: &EndpointSpec, device: String) -> Attached {
        let has_way_out = !config.internal;
        let mut attached = Attached {
            network: config.id.clone(),
            device,
            ip: None,
            prefix_len: 0,
            gateway: None,
            ip6: None,
            prefix6_len: 0,
            gateway6: None,
            host: self.0.first().map(|(pool, _)| pool.gateway),
            mac: MacAddress::of(self.0.first().map_or(Ipv4Addr::UNSPECIFIED.into(), |(_, ip)| *ip)),
            ports: Vec::new(),
        };
        if let Some(mac) = spec.mac {
            attached.mac = mac;
        }
        for (pool, ip) in &self.0 {
            match (*ip, pool.gateway) {
                (IpAddr::V4(ip), IpAddr::V4(gateway)) => {
                    (attached.ip, attached.prefix_len) = (Some(ip), pool.subnet.prefix_len());
                    attached.gateway = has_way_out.then_some(gateway);
                }
                (IpAddr::V6(ip), IpAddr::V6(gateway)) => {
                    (attached.ip6, attached.prefix6_len) = (Some(ip), pool.subnet.prefix_len());
                    attached.gateway6 = has_way_out.then_some(gateway);
                }
                _ => unreachable!("a gateway is on its subnet"),
            }
        }
        attached
    }
}

fn choose_places<'p>(
    pools: &'p [Pool],
    survey: &Survey,
    spec: &EndpointSpec,
) -> Result<Places<'p>, ConnectError> {
    let wanted: [Option<IpAddr>; 2] = [spec.ip.map(Ipv4Addr::into), spec.ip6.map(Ipv6Addr::into)];
    for address in wanted.into_iter().flatten() {
        if !pools.iter().any(|pool| pool.subnet.is_ipv4() == address.is_ipv4()) {
            return Err(ConnectError::NoSuchFamily(address));
        }
    }
    let of = |pool: &Pool| wanted.into_iter().flatten().find(|ip| ip.is_ipv4() == pool.subnet.is_ipv4());
    let place = |pool: &'p Pool| Ok((pool, choose_address(pool, survey, of(pool))?));
    Ok(Places(pools.iter().map(place).collect::<Result<_, ConnectError>>()?))
}

fn choose_address(pool: &Pool, survey: &Survey, wanted: Option<IpAddr>) -> Result<IpAddr, ConnectError> {
    let subnet = pool.subnet;
    let is_free = |ip: &IpAddr| {
        *ip != pool.gateway
            && !pool.reserved.contains(ip)
            && !survey.live.iter().any(|record| record.addresses().any(|own| own == *ip))
    };
    match (wanted, pool.range) {
        (Some(ip), _) if !subnet.has_host(ip) => Err(ConnectError::AddressOutside { ip, subnet }),
        (Some(ip), _) if !is_free(&ip) => Err(ConnectError::AddressTaken(ip)),
        (Some(ip), _) => Ok(ip),
        (None, Some(range)) => {
            let mut hosts = range.addresses().filter(|ip| subnet.has_host(*ip));
            hosts.find(is_free).ok_or(ConnectError::NoFreeAddress(range))
        }
        (None, None) => subnet.hosts().find(is_free).ok_or(ConnectError::NoFreeAddress(subnet)),
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
    (&config.id, &config.run_dir, container_id).hash(&mut hasher);
    format!("veth{:011x}", hasher.finish() & 0xfff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(taken: &[&str]) -> Survey {
        let record = |ip: &&str| Record {
            names: Vec::new(),
            ip: Some(ip.parse().unwrap()),
            ip6: None,
            veth: String::new(),
            ports: Vec::new(),
        };
        Survey { live: taken.iter().map(record).collect(), dead: Vec::new() }
    }

    fn chosen(pool: &Pool, taken: &[&str], wanted: Option<&str>) -> String {
        let wanted = wanted.map(|text| text.parse().unwrap());
        match choose_address(pool, &survey(taken), wanted) {
            Ok(ip) => ip.to_string(),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn addresses_come_from_the_range_and_nobody_gets_what_others_have() {
        let whole = Pool::of("10.0.0.0/29".parse().unwrap()).unwrap();
        assert_eq!(chosen(&whole, &[], None), "10.0.0.2");
        assert_eq!(chosen(&whole, &["10.0.0.2"], None), "10.0.0.3");
        assert_eq!(chosen(&whole, &[], Some("10.0.0.6")), "10.0.0.6");
        let taken = "error: Address already in use: 10.0.0.1 belongs to the gateway or another container";
        assert_eq!(chosen(&whole, &[], Some("10.0.0.1")), taken);
        let outside = "error: address 10.0.0.7 is not a host address of subnet 10.0.0.0/29";
        assert_eq!(chosen(&whole, &[], Some("10.0.0.7")), outside);

        let range = Some("10.0.0.4/31".parse().unwrap());
        let part = Pool { range, reserved: vec!["10.0.0.4".parse().unwrap()], ..whole };
        assert_eq!(chosen(&part, &[], None), "10.0.0.5");
        assert_eq!(chosen(&part, &[], Some("10.0.0.2")), "10.0.0.2");
        let none = "error: no available IPv4 addresses on subnet 10.0.0.4/31";
        assert_eq!(chosen(&part, &["10.0.0.5"], None), none);
    }
}
