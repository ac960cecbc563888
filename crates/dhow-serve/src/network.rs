//! Networks as Docker describes them, and containers' places on them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dhow_engine::Label;
use dhow_engine::containers::{Container, NetworkAttached, State};
use dhow_engine::networks::{AddressPool, EndpointConfig, NetworkDetails, endpoint_id};
use serde_json::{Map, Value, json};

use crate::container::bound_ports;

/// The network that settings of a container without a name of their own are about.
const DEFAULT: &str = "bridge";

/// The answer to `GET /networks/{id}`.
pub fn inspect(details: &NetworkDetails) -> Value {
    let (network, record) = (&details.network, &details.network.record);
    let mut pools: Vec<Value> = record.pools.iter().map(pool).collect();
    if let Some((subnet, gateway)) = details.default_subnet {
        pools.push(json!({ "Subnet": subnet.to_string(), "Gateway": gateway.to_string() }));
    }
    let members = details.members.iter().map(|member| {
        let attached = &member.attached;
        let shown = json!({
            "Name": member.name,
            "EndpointID": endpoint_id(&member.container_id, &network.id),
            "MacAddress": attached.mac.to_string(),
            "IPv4Address": with_prefix(attached.ip.map(IpAddr::V4), attached.prefix_len),
            "IPv6Address": with_prefix(attached.ip6.map(IpAddr::V6), attached.prefix6_len),
        });
        (member.container_id.clone(), shown)
    });
    json!({
        "Name": network.name,
        "Id": network.id,
        "Created": record.created,
        "Scope": "local",
        "Driver": record.driver,
        "EnableIPv4": record.ipv4,
        "EnableIPv6": record.ipv6,
        "IPAM": { "Driver": "default", "Options": {}, "Config": pools },
        "Internal": record.internal,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": record.config_from.clone().unwrap_or_default() },
        "ConfigOnly": record.config_only,
        "Containers": members.collect::<Map<_, _>>(),
        "Options": record.options,
        "Labels": record.labels,
    })
}

/// Whether a list with these filters shows a network; `values` are those of a filter, by its name.
pub fn fits(details: &NetworkDetails, values: &dyn Fn(&str) -> Vec<String>) -> bool {
    let (network, record) = (&details.network, &details.network.record);
    let any = |name: &str, fits: &dyn Fn(&str) -> bool| {
        let wanted = values(name);
        wanted.is_empty() || wanted.iter().any(|value| fits(value))
    };
    // The networks every host has are no leftovers.
    let is_dangling = (details.is_dangling && !network.is_predefined()).to_string();
    any("driver", &|driver| record.driver == driver)
        && any("id", &|id| network.id.contains(id))
        && any("name", &|name| network.name.contains(name))
        && any("scope", &|scope| scope == "local")
        && any("type", &|kind| (kind == "builtin") == network.is_predefined())
        && any("dangling", &|wanted| matches!(wanted, "1" | "true").to_string() == is_dangling)
        && values("label").iter().all(|text| Label::parse(text).is_in(&record.labels))
}

fn pool(pool: &AddressPool) -> Value {
    let mut shown = json!({ "Subnet": pool.subnet.to_string() });
    if let Some(range) = pool.range {
        shown["IPRange"] = range.to_string().into();
    }
    shown["Gateway"] = pool.gateway.to_string().into();
    if !pool.auxiliary.is_empty() {
        let addresses = pool.auxiliary.iter().map(|(name, address)| (name.clone(), address.to_string()));
        shown["AuxiliaryAddresses"] = json!(addresses.collect::<BTreeMap<_, _>>());
    }
    shown
}

fn with_prefix(address: Option<IpAddr>, prefix_len: u8) -> String {
    address.map_or_else(String::new, |address| format!("{address}/{prefix_len}"))
}

/// `NetworkSettings` of `GET /containers/{id}/json`.
pub(crate) fn settings(container: &Container) -> Value {
    let networks = container.record.networks.iter();
    let networks = networks.map(|(name, config)| (name.clone(), endpoint(container, name, config)));
    let default = container.attached.iter().find(|attached| attached.network == DEFAULT);
    let default = default.map(|attached| place(Some(attached))).unwrap_or_else(|| place(None));
    let default_id = match container.record.networks.get(DEFAULT) {
        Some(config) if !container.attached.is_empty() => endpoint_id(&container.id, &config.network_id),
        _ => String::new(),
    };
    let key = match container.state {
        State::Running { pid, .. } => format!("/proc/{pid}/ns/net"),
        _ => String::new(),
    };
    let mut settings = json!({
        "Bridge": "",
        "SandboxID": if key.is_empty() { "" } else { &container.id },
        "SandboxKey": key,
        "Ports": bound_ports(container),
        "EndpointID": default_id,
    });
    extend(&mut settings, default);
    settings["Networks"] = networks.collect::<Map<_, _>>().into();
    settings
}

fn endpoint(container: &Container, name: &str, config: &EndpointConfig) -> Value {
    let is_default = name == DEFAULT;
    let network = if is_default { DEFAULT } else { &config.network_id };
    let attached = container.attached.iter().find(|attached| attached.network == network);
    let is_predefined = is_default || ["host", "none"].contains(&name);
    let links = config.links.iter().map(|(target, alias)| format!("{target}:{alias}"));
    let id = attached.map(|_| endpoint_id(&container.id, &config.network_id)).unwrap_or_default();
    let mut shown = json!({
        "IPAMConfig": ipam_config(config),
        "Links": list(links.collect()),
        "Aliases": list(config.aliases.clone()),
        "DriverOpts": if config.driver_opts.is_empty() { Value::Null } else { json!(config.driver_opts) },
        "GwPriority": config.gw_priority,
        "NetworkID": config.network_id,
        "EndpointID": id,
    });
    extend(&mut shown, place(attached));
    if attached.is_none()
        && let Some(mac) = config.mac
    {
        shown["MacAddress"] = mac.to_string().into();
    }
    shown["DNSNames"] = if is_predefined { Value::Null } else { json!(container.dns_names(config)) };
    shown
}

/// What a container got, or that it got nothing.
fn place(attached: Option<&NetworkAttached>) -> Value {
    let text = |get: fn(&NetworkAttached) -> Option<IpAddr>| {
        attached.and_then(get).map_or_else(String::new, |address| address.to_string())
    };
    json!({
        "Gateway": text(|attached| attached.gateway.map(IpAddr::V4)),
        "IPAddress": text(|attached| attached.ip.map(IpAddr::V4)),
        "MacAddress": attached.map(|attached| attached.mac.to_string()).unwrap_or_default(),
        "IPPrefixLen": attached.map_or(0, |attached| attached.prefix_len),
        "IPv6Gateway": text(|attached| attached.gateway6.map(IpAddr::V6)),
        "GlobalIPv6Address": text(|attached| attached.ip6.map(IpAddr::V6)),
        "GlobalIPv6PrefixLen": attached.map_or(0, |attached| attached.prefix6_len),
    })
}

fn ipam_config(config: &EndpointConfig) -> Value {
    let mut fields = Map::new();
    let fixed = [("IPv4Address", config.ip.map(IpAddr::V4)), ("IPv6Address", config.ip6.map(IpAddr::V6))];
    for (name, address) in fixed {
        if let Some(address) = address {
            fields.insert(name.into(), address.to_string().into());
        }
    }
    if !config.link_local.is_empty() {
        let addresses = config.link_local.iter().map(ToString::to_string).collect::<Vec<_>>();
        fields.insert("LinkLocalIPs".into(), json!(addresses));
    }
    if fields.is_empty() { Value::Null } else { fields.into() }
}

/// The links of `HostConfig`: the other container, and what this one calls it.
pub(crate) fn links(container: &Container) -> Value {
    let links = container.record.host.links.iter();
    list(links.map(|link| format!("/{}:/{}/{}", link.name, container.name, link.alias)).collect())
}

/// Docker says `null` for a list nobody gave.
fn list(words: Vec<String>) -> Value {
    if words.is_empty() { Value::Null } else { json!(words) }
}

fn extend(value: &mut Value, more: Value) {
    if let (Value::Object(fields), Value::Object(more)) = (value, more) {
        fields.extend(more);
    }
}
