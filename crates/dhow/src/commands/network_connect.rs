use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dhow_engine::Engine;
use dhow_engine::networks::EndpointConfig;

use super::network_flags::{driver_options, link};
use crate::error::CliError;

/// Put a container on a network
#[derive(clap::Args, Debug)]
pub(crate) struct NetworkConnectArgs {
    /// Network, by name or id
    network: String,
    /// Container, by name or id
    container: String,
    /// Further name of the container on this network (can be repeated)
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Option of the network's driver (can be repeated)
    #[arg(long, value_name = "NAME=VALUE")]
    driver_opt: Vec<String>,
    /// The network with the highest priority gives the default route
    #[arg(
        long,
        value_name = "NUMBER",
        allow_hyphen_values = true,
        default_value_t = 0,
        hide_default_value = true
    )]
    gw_priority: i32,
    /// IPv4 address of the container
    #[arg(long)]
    ip: Option<Ipv4Addr>,
    /// IPv6 address of the container
    #[arg(long)]
    ip6: Option<Ipv6Addr>,
    /// Another container, and what this one calls it (can be repeated)
    #[arg(long, value_name = "CONTAINER[:NAME]")]
    link: Vec<String>,
    /// Further address that means something on the link only (can be repeated)
    #[arg(long, value_name = "IP")]
    link_local_ip: Vec<IpAddr>,
}

pub(crate) fn run(args: &NetworkConnectArgs, engine: &Engine) -> Result<u8, CliError> {
    let endpoint = EndpointConfig {
        aliases: args.alias.clone(),
        ip: args.ip,
        ip6: args.ip6,
        link_local: args.link_local_ip.clone(),
        links: args.link.iter().map(|text| link(text)).collect::<Result<_, _>>()?,
        driver_opts: driver_options(&args.driver_opt)?,
        gw_priority: args.gw_priority,
        ..EndpointConfig::default()
    };
    engine.connect_network(&args.network, &args.container, &endpoint)?;
    Ok(0)
}
