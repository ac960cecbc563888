//! The host's side of a network: bridge, addresses, kernel settings, rules.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{ConnectError, While};
use crate::ledger::{Ledger, Survey};
use crate::netlink::RouteSocket;
use crate::network::{MacAddress, NetConfig, Network};
use crate::nft::{Table, filter_chain_exists};
use crate::subnet::Subnet;

/// Where a host has no default route, and hence nothing to go by.
const MTU_DEFAULT: u32 = 1500;

/// A Docker on the same host drops what it does not know, except for what is accepted in this chain.
const DOCKER_USER: &str = "DOCKER-USER";

/// Brings the network up as far as it is not. Costs two questions to the kernel when it is.
pub(crate) fn ensure(config: &NetConfig, ledger: &Ledger, survey: &Survey) -> Result<Network, ConnectError> {
    let mut route = RouteSocket::open().while_doing(|| "open a netlink socket".into())?;
    let network = match standing(config, ledger, &mut route)? {
        Some(network) => network,
        None => build(config, ledger, &mut route)?,
    };
    ensure_rules(config, &network, survey)?;
    accept_beside_docker(&network.bridge);
    Ok(network)
}

/// The network as remembered, if its bridge is still the same.
fn standing(
    config: &NetConfig,
    ledger: &Ledger,
    route: &mut RouteSocket,
) -> Result<Option<Network>, ConnectError> {
    let Some(network) = ledger.network() else { return Ok(None) };
    let link =
        route.link_named(&config.bridge).while_doing(|| format!("look for bridge {}", config.bridge))?;
    let is_same =
        link.is_some_and(|link| link.index == network.bridge_index) && network.bridge == config.bridge;
    Ok(is_same.then_some(network))
}

/// Makes the network, or finishes one a crash left half-made. Each step may find itself done.
fn build(config: &NetConfig, ledger: &Ledger, route: &mut RouteSocket) -> Result<Network, ConnectError> {
    let uplink = route.default_route_link().while_doing(|| "read the default route".into())?;
    let mtu = uplink.map_or(MTU_DEFAULT, |link| link.mtu);
    let (gateway, subnet) = match address_of_bridge(config, route)? {
        Some(address) => address,
        None => choose_subnet(config, route)?,
    };
    let bridge_index = raise_bridge(&config.bridge, gateway, subnet, mtu, route)
        .while_doing(|| format!("set up bridge {}", config.bridge))?;
    set_kernel_options(&config.bridge)?;
    // Rules of an earlier bridge may name another subnet.
    Table { name: &config.table }.delete().while_doing(|| format!("delete nft table {}", config.table))?;
    let (name, bridge) = (config.name.clone(), config.bridge.clone());
    let network = Network { name, bridge, bridge_index, subnet, gateway, mtu };
    ledger.set_network(&network).while_doing(|| format!("record network {}", config.name))?;
    Ok(network)
}

fn address_of_bridge(
    config: &NetConfig,
    route: &mut RouteSocket,
) -> Result<Option<(Ipv4Addr, Subnet)>, ConnectError> {
    let found = route.link_named(&config.bridge).and_then(|link| match link {
        Some(link) => route.address_of(link.index),
        None => Ok(None),
    });
    found.while_doing(|| format!("look for bridge {}", config.bridge))
}

/// Gets the bridge to exist, have its address and be up; returns its index.
fn raise_bridge(
    bridge: &str,
    gateway: Ipv4Addr,
    subnet: Subnet,
    mtu: u32,
    route: &mut RouteSocket,
) -> io::Result<u32> {
    if route.link_named(bridge)?.is_none() {
        route.create_bridge(bridge, MacAddress::of(gateway), mtu)?;
    }
    let index = route.link_named(bridge)?.ok_or(io::ErrorKind::NotFound)?.index;
    if route.address_of(index)?.is_none() {
        route.add_address(index, gateway, subnet)?;
    }
    route.set_link_up(index)?;
    Ok(index)
}

fn choose_subnet(config: &NetConfig, route: &mut RouteSocket) -> Result<(Ipv4Addr, Subnet), ConnectError> {
    let in_use = route.subnets_in_use().while_doing(|| "read the routes".into())?;
    let is_free = |wanted: &Subnet| !in_use.iter().any(|used| used.overlaps(*wanted));
    let subnet = match config.subnet {
        Some(subnet) if !is_free(&subnet) => return Err(ConnectError::SubnetTaken(subnet)),
        Some(subnet) => subnet,
        None => pools().find(is_free).ok_or(ConnectError::NoFreeSubnet)?,
    };
    let gateway = subnet.hosts().next().ok_or(ConnectError::NoFreeAddress(subnet))?;
    Ok((gateway, subnet))
}

/// Docker's pools, in its order: people have firewall rules for these.
fn pools() -> impl Iterator<Item = Subnet> {
    let large = (17..=31).map(|second| (Ipv4Addr::new(172, second, 0, 0), 16));
    let small = (0..=15).map(|index| (Ipv4Addr::new(192, 168, index * 16, 0), 20));
    large.chain(small).filter_map(|(address, prefix_len)| Subnet::containing(address, prefix_len))
}

fn set_kernel_options(bridge: &str) -> Result<(), ConnectError> {
    // Containers reach the world through this host.
    set_option("ipv4/ip_forward", "1")?;
    // 127.0.0.1:port on this host may be redirected to the bridge; the `guard` rule keeps the way back shut.
    set_option(&format!("ipv4/conf/{bridge}/route_localnet"), "1")
}

fn set_option(name: &str, value: &str) -> Result<(), ConnectError> {
    write_option(name, value).while_doing(|| format!("set net/{name} to {value}"))
}

/// Sets a network option of the calling thread's namespace, unless it is set already: a host may have
/// `/proc/sys` read-only and everything in place.
pub(crate) fn write_option(name: &str, value: &str) -> io::Result<()> {
    let path = Path::new("/proc/sys/net").join(name);
    if fs::read_to_string(&path)?.trim() == value {
        return Ok(());
    }
    fs::write(path, value)
}

/// Puts the rules back if they are missing, with the ports of everybody who lives.
fn ensure_rules(config: &NetConfig, network: &Network, survey: &Survey) -> Result<(), ConnectError> {
    let table = Table { name: &config.table };
    let doing = || format!("create nft table {}", config.table);
    if table.exists().while_doing(doing)? {
        return Ok(());
    }
    table.create(&network.bridge, network.subnet).while_doing(doing)?;
    for record in &survey.live {
        table.publish(&record.redirects()).while_doing(doing)?;
    }
    Ok(())
}

/// Lets our packets pass a Docker on the same host. Its rules are its own: without the chain, or without
/// the tool, there is nothing for us to do.
fn accept_beside_docker(bridge: &str) {
    if !docker_user_may_exist() {
        return;
    }
    for direction in ["-i", "-o"] {
        let rule = [DOCKER_USER, direction, bridge, "-j", "ACCEPT"];
        if !iptables("-C", &rule) {
            iptables("-I", &rule);
        }
    }
}

/// The chain is visible to nf_tables, or hidden in the older iptables.
fn docker_user_may_exist() -> bool {
    let legacy = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    filter_chain_exists(DOCKER_USER).unwrap_or(false) || legacy.lines().any(|table| table == "filter")
}

fn iptables(verb: &str, rule: &[&str]) -> bool {
    let mut command = Command::new("iptables");
    command.args(["-w", verb]).args(rule).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Takes the network's bridge and rules away. Containers still on it lose it.
pub(crate) fn remove(config: &NetConfig, ledger: &Ledger) -> Result<(), ConnectError> {
    let mut route = RouteSocket::open().while_doing(|| "open a netlink socket".into())?;
    Table { name: &config.table }.delete().while_doing(|| format!("delete nft table {}", config.table))?;
    route.delete_link(&config.bridge).while_doing(|| format!("delete bridge {}", config.bridge))?;
    if docker_user_may_exist() {
        for direction in ["-i", "-o"] {
            iptables("-D", &[DOCKER_USER, direction, &config.bridge, "-j", "ACCEPT"]);
        }
    }
    ledger.forget_network().while_doing(|| format!("forget network {}", config.name))
}
