//! The host's side of a network: bridge, addresses, kernel settings, rules.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{ConnectError, While};
use crate::ledger::{Ledger, Survey};
use crate::netlink::RouteSocket;
use crate::network::{MacAddress, NetConfig, Network, Pool};
use crate::nft::{Family, Plan, Table, filter_chain_exists};
use crate::subnet::Subnet;

/// Where a host has no default route, and hence nothing to go by.
const MTU_DEFAULT: u32 = 1500;

/// A Docker on the same host drops what it does not know, except for what is accepted in this chain.
const DOCKER_USER: &str = "DOCKER-USER";

/// A network that is up.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) bridge_index: u32,
    pub(crate) mtu: u32,
    /// Where addresses come from, IPv4 first.
    pub(crate) pools: Vec<Pool>,
}

/// Brings the network up as far as it is not. Costs two questions to the kernel when it is.
pub(crate) fn ensure(
    config: &NetConfig,
    ledger: &Ledger<'_>,
    survey: &Survey,
) -> Result<Standing, ConnectError> {
    if ledger.is_removed() {
        return Err(ConnectError::NoSuchNetwork(config.id.clone()));
    }
    let mut route = RouteSocket::open().while_doing(|| "open a netlink socket".into())?;
    let network = match standing(config, ledger, &mut route)? {
        Some(network) => network,
        None => build(config, ledger, &mut route)?,
    };
    ensure_rules(config, &network, survey)?;
    accept_beside_docker(&config.bridge);
    Ok(network)
}

/// The network as remembered, if its bridge is still the same.
fn standing(
    config: &NetConfig,
    ledger: &Ledger<'_>,
    route: &mut RouteSocket,
) -> Result<Option<Standing>, ConnectError> {
    let Some(network) = ledger.network() else { return Ok(None) };
    let link =
        route.link_named(&config.bridge).while_doing(|| format!("look for bridge {}", config.bridge))?;
    let is_same =
        link.is_some_and(|link| link.index == network.bridge_index) && network.bridge == config.bridge;
    let pools = match (config.pools.is_empty(), network.subnet, network.gateway) {
        (false, ..) => config.pools.clone(),
        (true, Some(subnet), Some(gateway)) => {
            vec![Pool { subnet, gateway: gateway.into(), range: None, reserved: Vec::new() }]
        }
        _ => return Ok(None),
    };
    let (bridge_index, mtu) = (network.bridge_index, network.mtu);
    Ok(is_same.then_some(Standing { bridge_index, mtu, pools }))
}

/// Makes the network, or finishes one a crash left half-made. Each step may find itself done.
fn build(config: &NetConfig, ledger: &Ledger<'_>, route: &mut RouteSocket) -> Result<Standing, ConnectError> {
    let uplink = route.default_route_link().while_doing(|| "read the default route".into())?;
    let mtu = config.mtu.or(uplink.map(|link| link.mtu)).unwrap_or(MTU_DEFAULT);
    let known = addresses_of_bridge(config, route)?;
    let pools = match (&config.pools[..], known.iter().find(|(address, _)| address.is_ipv4())) {
        ([], Some((gateway, subnet))) => {
            vec![Pool { subnet: *subnet, gateway: *gateway, range: None, reserved: Vec::new() }]
        }
        ([], None) => vec![free_pool(route, &[])?],
        (pools, _) => {
            let new = pools.iter().filter(|pool| !known.contains(&(pool.gateway, pool.subnet)));
            check_free(new, route)?;
            pools.to_vec()
        }
    };
    if !config.pools.is_empty() {
        ledger.set_config(config).while_doing(|| format!("record network {}", config.name))?;
    }
    let bridge_index = raise_bridge(&config.bridge, &pools, mtu, route)
        .while_doing(|| format!("set up bridge {}", config.bridge))?;
    set_kernel_options(&config.bridge, &pools)?;
    // Rules of an earlier bridge may name another subnet.
    delete_tables(config)?;
    let (name, bridge) = (config.name.clone(), config.bridge.clone());
    let ipv4 = pools.iter().find_map(|pool| match pool.gateway {
        IpAddr::V4(gateway) => Some((pool.subnet, gateway)),
        IpAddr::V6(_) => None,
    });
    let (subnet, gateway) = ipv4.unzip();
    let network = Network { name, bridge, bridge_index, subnet, gateway, mtu };
    ledger.set_network(&network).while_doing(|| format!("record network {}", config.name))?;
    Ok(Standing { bridge_index, mtu, pools })
}

fn addresses_of_bridge(
    config: &NetConfig,
    route: &mut RouteSocket,
) -> Result<Vec<(IpAddr, Subnet)>, ConnectError> {
    let found = route.link_named(&config.bridge).and_then(|link| match link {
        Some(link) => route.addresses_of(link.index),
        None => Ok(Vec::new()),
    });
    found.while_doing(|| format!("look for bridge {}", config.bridge))
}

/// Whether a device has the name already.
pub(crate) fn exists(name: &str) -> Result<bool, ConnectError> {
    let link = RouteSocket::open().and_then(|mut route| route.link_named(name));
    link.map(|link| link.is_some()).while_doing(|| format!("look for device {name}"))
}

/// Gets the bridge to exist, have its addresses and be up; returns its index.
fn raise_bridge(bridge: &str, pools: &[Pool], mtu: u32, route: &mut RouteSocket) -> io::Result<u32> {
    if route.link_named(bridge)?.is_none() {
        let first = pools.first().map_or(Ipv4Addr::UNSPECIFIED.into(), |pool| pool.gateway);
        route.create_bridge(bridge, MacAddress::of(first), mtu)?;
    }
    let index = route.link_named(bridge)?.ok_or(io::ErrorKind::NotFound)?.index;
    if pools.iter().any(|pool| !pool.subnet.is_ipv4()) {
        write_option(&format!("ipv6/conf/{bridge}/disable_ipv6"), "0")?;
        write_option(&format!("ipv6/conf/{bridge}/accept_ra"), "0")?;
    }
    let known = route.addresses_of(index)?;
    for pool in pools {
        let is_known = known.iter().any(|(address, _)| address.is_ipv4() == pool.gateway.is_ipv4());
        if !is_known {
            route.add_address(index, pool.gateway, pool.subnet)?;
        }
    }
    route.set_link_up(index)?;
    Ok(index)
}

fn check_free<'p>(
    pools: impl Iterator<Item = &'p Pool>,
    route: &mut RouteSocket,
) -> Result<(), ConnectError> {
    let in_use = route.subnets_in_use().while_doing(|| "read the routes".into())?;
    for pool in pools {
        if in_use.iter().any(|used| used.overlaps(pool.subnet)) {
            return Err(ConnectError::SubnetTaken(pool.subnet));
        }
    }
    Ok(())
}

/// The first of Docker's pools that collides neither with what this host can reach nor with `taken`.
pub(crate) fn free_pool(route: &mut RouteSocket, taken: &[Subnet]) -> Result<Pool, ConnectError> {
    let mut in_use = route.subnets_in_use().while_doing(|| "read the routes".into())?;
    in_use.extend(taken);
    let is_free = |wanted: &Subnet| !in_use.iter().any(|used| used.overlaps(*wanted));
    pools().find(is_free).and_then(Pool::of).ok_or(ConnectError::NoFreeSubnet)
}

/// Docker's pools, in its order: people have firewall rules for these.
fn pools() -> impl Iterator<Item = Subnet> {
    let large = (17..=31).map(|second| (Ipv4Addr::new(172, second, 0, 0), 16));
    let small = (0..=15).map(|index| (Ipv4Addr::new(192, 168, index * 16, 0), 20));
    large.chain(small).filter_map(|(address, prefix_len)| Subnet::containing(address, prefix_len))
}

fn set_kernel_options(bridge: &str, pools: &[Pool]) -> Result<(), ConnectError> {
    // Containers reach the world through this host.
    if pools.iter().any(|pool| !pool.subnet.is_ipv4()) {
        set_option("ipv6/conf/all/forwarding", "1")?;
    }
    if !pools.iter().any(|pool| pool.subnet.is_ipv4()) {
        return Ok(());
    }
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
fn ensure_rules(config: &NetConfig, network: &Standing, survey: &Survey) -> Result<(), ConnectError> {
    let doing = || format!("create nft table {}", config.table);
    for pool in &network.pools {
        let family = Family::of(pool.gateway);
        let table = Table { name: &config.table, family };
        if table.exists().while_doing(doing)? {
            continue;
        }
        let plan = Plan {
            bridge: &config.bridge,
            subnet: pool.subnet,
            is_internal: config.internal,
            masquerades: config.masquerade,
            lets_neighbours_talk: config.neighbours,
        };
        table.create(&plan).while_doing(doing)?;
        for record in &survey.live {
            table.publish(&record.redirects(family)).while_doing(doing)?;
        }
    }
    Ok(())
}

fn delete_tables(config: &NetConfig) -> Result<(), ConnectError> {
    for family in [Family::Ipv4, Family::Ipv6] {
        let table = Table { name: &config.table, family };
        table.delete().while_doing(|| format!("delete nft table {}", config.table))?;
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
pub(crate) fn remove(config: &NetConfig, ledger: &Ledger<'_>) -> Result<(), ConnectError> {
    let mut route = RouteSocket::open().while_doing(|| "open a netlink socket".into())?;
    delete_tables(config)?;
    route.delete_link(&config.bridge).while_doing(|| format!("delete bridge {}", config.bridge))?;
    if docker_user_may_exist() {
        for direction in ["-i", "-o"] {
            iptables("-D", &[DOCKER_USER, direction, &config.bridge, "-j", "ACCEPT"]);
        }
    }
    ledger.forget_network().while_doing(|| format!("forget network {}", config.name))
}
