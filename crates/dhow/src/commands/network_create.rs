use std::collections::BTreeMap;
use std::net::IpAddr;

use clap::ArgAction;
use dhow_engine::Engine;
use dhow_engine::networks::{CreateNetworkRequest, PoolRequest, Subnet};

use super::network_flags::driver_options;
use crate::error::CliError;
use crate::ui::Ui;

/// Create a network
#[derive(clap::Args, Debug)]
pub(crate) struct NetworkCreateArgs {
    /// Name of the network
    #[arg(value_name = "NETWORK")]
    name: String,
    /// Driver of the network: bridge
    #[arg(short, long, default_value = "bridge")]
    driver: String,
    /// Option of the driver, such as com.docker.network.driver.mtu=1400 (can be repeated)
    #[arg(short, long = "opt", value_name = "NAME=VALUE")]
    options: Vec<String>,
    /// Subnet the addresses come from, such as 10.5.0.0/24 (once for IPv4 and once for IPv6)
    #[arg(long, value_name = "SUBNET", value_delimiter = ',')]
    subnet: Vec<String>,
    /// Give out addresses of this part of a subnet (can be repeated)
    #[arg(long, value_name = "SUBNET", value_delimiter = ',')]
    ip_range: Vec<String>,
    /// Address of the host on a subnet (can be repeated)
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    gateway: Vec<String>,
    /// Address of another machine, which no container gets (can be repeated)
    #[arg(long, value_name = "NAME=IP")]
    aux_address: Vec<String>,
    /// No way out of the network
    #[arg(long)]
    internal: bool,
    /// IPv4 addresses
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", hide_possible_values = true, action = ArgAction::Set)]
    ipv4: bool,
    /// IPv6 addresses
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set)]
    ipv6: bool,
    /// Label (can be repeated)
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Make no network but what others can be made from
    #[arg(long)]
    config_only: bool,
    /// Make the network from what was made with --config-only
    #[arg(long, value_name = "NETWORK")]
    config_from: Option<String>,
    /// Who gives out addresses: default
    #[arg(long, value_name = "DRIVER", default_value = "default")]
    ipam_driver: String,
    /// Option of who gives out addresses; the default one has none
    #[arg(long, value_name = "NAME=VALUE")]
    ipam_opt: Vec<String>,
    /// How far the network reaches: local
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,
    /// For networks of a swarm, which dhow has not
    #[arg(long, hide = true)]
    attachable: bool,
    /// For networks of a swarm, which dhow has not
    #[arg(long, hide = true)]
    ingress: bool,
}

pub(crate) fn run(args: &NetworkCreateArgs, engine: &Engine, ui: &mut Ui) -> Result<u8, CliError> {
    check_swarm(args)?;
    if args.ipam_driver != "default" {
        return Err(CliError::new(format!(
            "--ipam-driver {}: addresses are given out by the default driver only",
            args.ipam_driver
        )));
    }
    if let Some(option) = args.ipam_opt.first() {
        return Err(CliError::new(format!("--ipam-opt {option}: the default IPAM driver has no options")));
    }
    let wanted = Wanted {
        subnets: &args.subnet,
        ranges: &args.ip_range,
        gateways: &args.gateway,
        auxiliary: &args.aux_address,
    };
    let label = |text: &String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (text.clone(), String::new()),
    };
    let network = engine.create_network(&CreateNetworkRequest {
        name: args.name.clone(),
        driver: args.driver.clone(),
        internal: args.internal,
        ipv4: args.ipv4,
        ipv6: args.ipv6,
        labels: args.label.iter().map(label).collect(),
        options: driver_options(&args.options)?,
        pools: wanted.pools().map_err(CliError::new)?,
        config_only: args.config_only,
        config_from: args.config_from.clone(),
    })?;
    ui.line(network.id)?;
    Ok(0)
}

fn check_swarm(args: &NetworkCreateArgs) -> Result<(), CliError> {
    let refuse =
        |flag: &str, why: &str| Err(CliError::new(format!("{flag} needs a swarm, and dhow has none: {why}")));
    match args.scope.as_deref() {
        None | Some("local") => {}
        Some(scope) => return refuse(&format!("--scope {scope}"), "networks are of this machine alone"),
    }
    if args.attachable {
        return refuse("--attachable", "containers can join every network anyway");
    }
    if args.ingress {
        return refuse("--ingress", "published ports are those of this machine");
    }
    Ok(())
}

/// What was said about addresses, each part by itself.
struct Wanted<'a> {
    subnets: &'a [String],
    ranges: &'a [String],
    gateways: &'a [String],
    auxiliary: &'a [String],
}

impl Wanted<'_> {
    /// Finds for each part the subnet it belongs to, as docker's client does and with its words.
    fn pools(&self) -> Result<Vec<PoolRequest>, String> {
        let only_by_subnet = !self.ranges.is_empty() || !self.gateways.is_empty();
        if self.subnets.is_empty() && only_by_subnet {
            return Err("every ip-range or gateway must have a corresponding subnet".into());
        }
        let mut pools: Vec<PoolRequest> = Vec::new();
        for text in self.subnets {
            let subnet: Subnet =
                text.parse().map_err(|error: dhow_engine::networks::SubnetError| error.to_string())?;
            if pools.iter().any(|pool| pool.subnet.overlaps(subnet)) {
                return Err("multiple overlapping subnet configuration is not supported".into());
            }
            pools.push(PoolRequest { subnet, range: None, gateway: None, auxiliary: BTreeMap::new() });
        }
        for text in self.ranges {
            let range: Subnet = text.parse().map_err(|_| format!("invalid ip-range: {text}"))?;
            let pool = pools.iter_mut().find(|pool| pool.subnet.contains(range.address()));
            let pool = pool.ok_or_else(|| format!("no matching subnet for range {text}"))?;
            if let Some(known) = pool.range.replace(range) {
                let subnet = pool.subnet;
                return Err(format!(
                    "cannot configure multiple ranges ({text}, {known}) on the same subnet ({subnet})"
                ));
            }
        }
        for text in self.gateways {
            let gateway: IpAddr = text.parse().map_err(|_| format!("invalid gateway address: {text}"))?;
            let pool = pools.iter_mut().find(|pool| pool.subnet.contains(gateway));
            let pool = pool.ok_or_else(|| format!("no matching subnet for gateway {text}"))?;
            if let Some(known) = pool.gateway.replace(gateway) {
                let subnet = pool.subnet;
                return Err(format!(
                    "cannot configure multiple gateways ({text}, {known}) for the same subnet ({subnet})"
                ));
            }
        }
        for text in self.auxiliary {
            let (name, address) =
                text.split_once('=').ok_or_else(|| format!("invalid aux-address: {text}"))?;
            let address: IpAddr = address.parse().map_err(|_| format!("invalid aux-address: {text}"))?;
            let pool = pools.iter_mut().find(|pool| pool.subnet.contains(address));
            let pool = pool.ok_or_else(|| format!("no matching subnet for aux-address {address}"))?;
            pool.auxiliary.insert(name.to_owned(), address);
        }
        Ok(pools)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(subnets: &[&str], ranges: &[&str], gateways: &[&str], auxiliary: &[&str]) -> String {
        let [subnets, ranges, gateways, auxiliary] = [subnets, ranges, gateways, auxiliary]
            .map(|texts| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<String>>());
        let wanted =
            Wanted { subnets: &subnets, ranges: &ranges, gateways: &gateways, auxiliary: &auxiliary };
        let show = |pool: &PoolRequest| {
            let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
            let range = or_none(pool.range.map(|range| range.to_string()));
            let gateway = or_none(pool.gateway.map(|gateway| gateway.to_string()));
            let others: Vec<String> =
                pool.auxiliary.iter().map(|(name, address)| format!(" {name}={address}")).collect();
            format!("{} {range} {gateway}{}", pool.subnet, others.concat())
        };
        match wanted.pools() {
            Ok(pools) => pools.iter().map(show).collect::<Vec<_>>().join("; "),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn each_part_finds_its_subnet() {
        assert_eq!(
            check(
                &["10.1.0.0/16", "fd00::/64"],
                &["10.1.5.0/24"],
                &["fd00::99", "10.1.5.254"],
                &["router=10.1.5.1"]
            ),
            "10.1.0.0/16 10.1.5.0/24 10.1.5.254 router=10.1.5.1; fd00::/64 - fd00::99"
        );
        assert_eq!(check(&[], &[], &[], &[]), "");
    }

    #[test]
    fn what_fits_nowhere_is_told_as_docker_tells_it() {
        let subnet = &["10.1.0.0/16"][..];
        for (said, error) in [
            (check(&["10.1.0.0"], &[], &[], &[]), "invalid subnet: 10.1.0.0"),
            (
                check(&[], &[], &["10.1.0.1"], &[]),
                "every ip-range or gateway must have a corresponding subnet",
            ),
            (check(subnet, &["10.2.0.0/24"], &[], &[]), "no matching subnet for range 10.2.0.0/24"),
            (check(subnet, &[], &["10.2.0.1"], &[]), "no matching subnet for gateway 10.2.0.1"),
            (check(subnet, &[], &[], &["a=10.2.0.1"]), "no matching subnet for aux-address 10.2.0.1"),
            (
                check(&["10.1.0.0/16", "10.1.2.0/24"], &[], &[], &[]),
                "multiple overlapping subnet configuration is not supported",
            ),
            (
                check(subnet, &[], &["10.1.0.1", "10.1.0.2"], &[]),
                "cannot configure multiple gateways (10.1.0.2, 10.1.0.1) for the same subnet (10.1.0.0/16)",
            ),
        ] {
            assert_eq!(said, format!("error: {error}"));
        }
    }
}
