//! The flags of `run` and `create` that are about networks.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dhow_engine::containers::{DnsOptions, MacAddress, NetworkMode};
use dhow_engine::csv_fields;
use dhow_engine::networks::{EndpointConfig, Link};

use super::create_flags::extra_host;
use crate::error::CliError;

#[derive(clap::Args, Debug)]
pub(crate) struct NetworkFlags {
    /// Network of the container: bridge, host, none, container:NAME, or one that was created, also as
    /// name=NETWORK,alias=NAME,ip=IP,… (can be repeated)
    #[arg(long, alias = "net", value_name = "NETWORK")]
    network: Vec<String>,
    /// Further name of the container on its network (can be repeated)
    #[arg(long, alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    /// IPv4 address of the container on its network
    #[arg(long)]
    ip: Option<Ipv4Addr>,
    /// IPv6 address of the container on its network
    #[arg(long)]
    ip6: Option<Ipv6Addr>,
    /// Further address that means something on the link only (can be repeated)
    #[arg(long, value_name = "IP")]
    link_local_ip: Vec<IpAddr>,
    /// Hardware address of the container
    #[arg(long, value_name = "MAC")]
    mac_address: Option<MacAddress>,
    /// Another container, and what this one calls it (can be repeated)
    #[arg(long, value_name = "CONTAINER[:NAME]")]
    link: Vec<String>,
    /// Add a name to /etc/hosts; host-gateway is the address of the host (can be repeated)
    #[arg(long, value_name = "NAME:IP")]
    add_host: Vec<String>,
    /// Name server (can be repeated)
    #[arg(long, value_name = "IP")]
    dns: Vec<IpAddr>,
    /// Domain to look up short names in (can be repeated)
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Option of name look-up (can be repeated)
    #[arg(long, alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
}

/// The networks a container is to be on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Networks {
    pub mode: NetworkMode,
    pub endpoints: Vec<(String, EndpointConfig)>,
    pub links: Vec<Link>,
}

impl NetworkFlags {
    pub(crate) fn dns(&self) -> DnsOptions {
        DnsOptions {
            servers: self.dns.clone(),
            search: self.dns_search.clone(),
            options: self.dns_option.clone(),
        }
    }

    pub(crate) fn extra_hosts(&self) -> Result<Vec<(String, Option<IpAddr>)>, CliError> {
        self.add_host.iter().map(|text| extra_host(text)).collect()
    }

    /// Whether the container has the host's own network.
    pub(crate) fn is_host(&self) -> bool {
        self.networks().is_ok_and(|networks| networks.mode == NetworkMode::Host)
    }

    pub(crate) fn networks(&self) -> Result<Networks, CliError> {
        let mut wanted = self.network.iter().map(|text| network(text)).collect::<Result<Vec<_>, _>>()?;
        if wanted.is_empty() {
            wanted.push((NetworkMode::Bridge.to_string(), EndpointConfig::default()));
        }
        for (index, (name, _)) in wanted.iter().enumerate() {
            if wanted[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(CliError::new(format!("network {name:?} is specified multiple times")));
            }
        }
        let is_user = |(name, _): &(String, EndpointConfig)| matches!(mode(name), NetworkMode::User(_));
        if wanted.len() > 1 && !wanted.iter().all(is_user) {
            let text =
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes";
            return Err(CliError::new(text));
        }
        let links = self.link.iter().map(|text| link(text)).collect::<Result<Vec<_>, _>>()?;
        let (name, first) = &mut wanted[0];
        let mode = mode(name);
        // On a network with names they are the container's own names for others; elsewhere lines of its /etc/hosts.
        let (own, legacy) = match mode {
            NetworkMode::User(_) => (links, Vec::new()),
            _ => (Vec::new(), links),
        };
        self.complete(first, own)?;
        let is_plain = wanted.len() == 1 && wanted[0].1 == EndpointConfig::default();
        let legacy = legacy.into_iter().map(|(container, alias)| {
            let name = container.clone();
            Link { container, name, alias }
        });
        let endpoints = if is_plain { Vec::new() } else { wanted };
        Ok(Networks { mode, endpoints, links: legacy.collect() })
    }

    /// What is said outside of `--network` is about the first network.
    fn complete(&self, first: &mut EndpointConfig, links: Vec<(String, String)>) -> Result<(), CliError> {
        merge_list(&mut first.aliases, &self.network_alias, "--network-alias and per-network alias")?;
        merge_list(&mut first.links, &links, "--link and per-network links")?;
        let addresses = "--link-local-ip and per-network link-local IP addresses";
        merge_list(&mut first.link_local, &self.link_local_ip, addresses)?;
        merge(&mut first.ip, self.ip, "--ip and per-network IPv4 address")?;
        merge(&mut first.ip6, self.ip6, "--ip6 and per-network IPv6 address")?;
        merge(&mut first.mac, self.mac_address, "--mac-address and per-network MAC address")
    }
}

fn mode(text: &str) -> NetworkMode {
    text.to_owned().into()
}

fn both(what: &str) -> CliError {
    CliError::new(format!("conflicting options: cannot specify both {what}"))
}

fn merge<T>(own: &mut Option<T>, general: Option<T>, what: &str) -> Result<(), CliError> {
    match (&own, general) {
        (Some(_), Some(_)) => Err(both(what)),
        (None, general) => {
            *own = general;
            Ok(())
        }
        (Some(_), None) => Ok(()),
    }
}

fn merge_list<T: Clone>(own: &mut Vec<T>, general: &[T], what: &str) -> Result<(), CliError> {
    if !own.is_empty() && !general.is_empty() {
        return Err(both(what));
    }
    own.extend_from_slice(general);
    Ok(())
}

/// One `--network`: a name, or pairs of keys and values.
fn network(text: &str) -> Result<(String, EndpointConfig), CliError> {
    if !text.contains('=') {
        // Docker calls the default network by this name too.
        let name = if text.is_empty() || text == "default" { "bridge" } else { text };
        return Ok((name.to_owned(), EndpointConfig::default()));
    }
    let invalid =
        |what: &str| CliError::new(format!("invalid argument \"{text}\" for \"--network\" flag: {what}"));
    let (mut name, mut endpoint, mut options) = (None, EndpointConfig::default(), Vec::new());
    let fields = csv_fields(text).map_err(|error| invalid(&error.to_string()))?;
    for field in fields {
        let (key, value) = field.split_once('=').ok_or_else(|| invalid(&format!("invalid field {field}")))?;
        let (key, value) = (key.trim().to_lowercase(), value.trim());
        let bad = || invalid(&format!("invalid value for {key}: {value}"));
        match key.as_str() {
            "name" => name = Some(value.to_owned()),
            "alias" => endpoint.aliases.push(value.to_owned()),
            "ip" => endpoint.ip = Some(value.parse().map_err(|_| bad())?),
            "ip6" => endpoint.ip6 = Some(value.parse().map_err(|_| bad())?),
            "mac-address" => endpoint.mac = Some(value.parse().map_err(|_| bad())?),
            "link-local-ip" => endpoint.link_local.push(value.parse().map_err(|_| bad())?),
            "driver-opt" => options.push(value.to_owned()),
            "gw-priority" => endpoint.gw_priority = value.parse().map_err(|_| bad())?,
            _ => return Err(invalid(&format!("invalid field key {key}"))),
        }
    }
    endpoint.driver_opts = driver_options(&options)?;
    let name =
        name.filter(|name| !name.is_empty()).ok_or_else(|| invalid("network name/id is not specified"))?;
    Ok((name, endpoint))
}

/// `CONTAINER[:NAME]`, as the container and what it is called.
pub(crate) fn link(text: &str) -> Result<(String, String), CliError> {
    let (container, alias) = text.split_once(':').unwrap_or((text, text));
    let container = container.strip_prefix('/').unwrap_or(container);
    let alias = alias.rsplit('/').next().unwrap_or(alias);
    if container.is_empty() || alias.is_empty() || alias.contains(':') {
        return Err(CliError::new(format!("bad format for links: {text}")));
    }
    Ok((container.to_owned(), alias.to_owned()))
}

/// `NAME=VALUE` pairs of a driver.
pub(crate) fn driver_options(texts: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err(CliError::new(format!("invalid key/value pair format in driver options: {text}"))),
    };
    texts.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: NetworkFlags,
    }

    fn networks(line: &str) -> Result<Networks, String> {
        let words = std::iter::once("run").chain(line.split_whitespace());
        let flags = Line::try_parse_from(words).map_err(|error| error.to_string())?.flags;
        flags.networks().map_err(|error| error.to_string())
    }

    fn error(line: &str) -> String {
        networks(line).unwrap_err()
    }

    #[test]
    fn nothing_said_is_the_default_network() {
        assert_eq!(networks("").unwrap(), Networks::default());
        assert_eq!(networks("--network default").unwrap(), Networks::default());
        assert_eq!(networks("--net host").unwrap().mode, NetworkMode::Host);
        let shared = networks("--network container:web").unwrap();
        assert_eq!(shared.mode, NetworkMode::Container("web".into()));
    }

    #[test]
    fn flags_beside_the_network_are_about_the_first() {
        let said = networks(
            "--network red --network name=blue,alias=a,alias=b,gw-priority=-1 --ip 10.1.0.9 --link db",
        )
        .unwrap();
        assert_eq!(said.mode, NetworkMode::User("red".into()));
        let [(red, first), (blue, second)] = &said.endpoints[..] else { panic!("{said:?}") };
        assert_eq!((red.as_str(), blue.as_str()), ("red", "blue"));
        assert_eq!(first.ip, Some(Ipv4Addr::new(10, 1, 0, 9)));
        assert_eq!(first.links, [("db".to_owned(), "db".to_owned())]);
        assert_eq!((second.aliases.join(" ").as_str(), second.gw_priority), ("a b", -1));
    }

    #[test]
    fn links_on_the_default_network_are_kept_apart() {
        let said = networks("--link redis:db").unwrap();
        assert!(said.endpoints.is_empty());
        assert_eq!((said.links[0].container.as_str(), said.links[0].alias.as_str()), ("redis", "db"));
        assert_eq!(error("--link a:b:c"), "Error: bad format for links: a:b:c");
    }

    #[test]
    fn what_contradicts_itself_is_refused_in_dockers_words() {
        for (line, words) in [
            ("--network a --network a", "network \"a\" is specified multiple times"),
            (
                "--network a --network host",
                "cannot attach both user-defined and non-user-defined network-modes",
            ),
            (
                "--network name=a,ip=10.0.0.2 --ip 10.0.0.3",
                "cannot specify both --ip and per-network IPv4 address",
            ),
            ("--network name=a,alias=x --network-alias y", "both --network-alias and per-network alias"),
            ("--network ip=10.0.0.2", "network name/id is not specified"),
            ("--network name=a,colour=red", "invalid field key colour"),
            ("--network name=a,ip=x", "invalid value for ip: x"),
        ] {
            assert!(error(line).contains(words), "{line}: {}", error(line));
        }
    }
}
