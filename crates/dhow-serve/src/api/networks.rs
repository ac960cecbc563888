//! Networks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use dhow_engine::networks::{
    CreateNetworkError, CreateNetworkRequest, DisconnectNetworkError, EndpointConfig, FindNetworkError,
    InspectNetworkError, JoinNetworkError, NetworkDetails, PoolRequest, PruneNetworks, RemoveNetworkError,
    Subnet,
};
use dhow_engine::{Label, containers::FindError};
use hyper::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::create_body::or_default;
use super::error::{ApiError, statuses};
use super::exchange::{Call, Reply};
use super::query::Filters;
use crate::network;

const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "name", "scope", "type"];

statuses! {
    FindNetworkError {
        FindNetworkError::NotFound(_) => NOT_FOUND,
        FindNetworkError::Ambiguous(_) => BAD_REQUEST,
    }
    InspectNetworkError { InspectNetworkError::Find(FindNetworkError::NotFound(_)) => NOT_FOUND }
    CreateNetworkError {
        CreateNetworkError::NameTaken(_) => CONFLICT,
        CreateNetworkError::Name(_) => BAD_REQUEST,
        CreateNetworkError::Option(_) => BAD_REQUEST,
        CreateNetworkError::NoFamily => BAD_REQUEST,
        CreateNetworkError::FamilyDisabled(_) => BAD_REQUEST,
        CreateNetworkError::ManySubnets => BAD_REQUEST,
        CreateNetworkError::TooSmall(_) => BAD_REQUEST,
        CreateNetworkError::Outside { .. } => BAD_REQUEST,
        CreateNetworkError::Overlap { .. } => FORBIDDEN,
        CreateNetworkError::OnlyOne(_) => FORBIDDEN,
        CreateNetworkError::Driver(_) => NOT_FOUND,
        CreateNetworkError::Swarm(_) => SERVICE_UNAVAILABLE,
    }
    JoinNetworkError {
        JoinNetworkError::Network(FindNetworkError::NotFound(_)) => NOT_FOUND,
        JoinNetworkError::Container(FindError::NotFound(_)) => NOT_FOUND,
        JoinNetworkError::Already { .. } => FORBIDDEN,
        JoinNetworkError::Host => FORBIDDEN,
        JoinNetworkError::Private => FORBIDDEN,
        JoinNetworkError::Shared => FORBIDDEN,
        JoinNetworkError::ConfigOnly(_) => FORBIDDEN,
        JoinNetworkError::Endpoint { .. } => BAD_REQUEST,
    }
    DisconnectNetworkError {
        DisconnectNetworkError::Network(FindNetworkError::NotFound(_)) => NOT_FOUND,
        DisconnectNetworkError::Container(FindError::NotFound(_)) => NOT_FOUND,
        DisconnectNetworkError::NotConnected { .. } => FORBIDDEN,
        DisconnectNetworkError::Host => FORBIDDEN,
    }
    RemoveNetworkError {
        RemoveNetworkError::Find(FindNetworkError::NotFound(_)) => NOT_FOUND,
        RemoveNetworkError::Predefined(_) => FORBIDDEN,
        RemoveNetworkError::IsModel { .. } => FORBIDDEN,
        RemoveNetworkError::Active { .. } => FORBIDDEN,
    }
}

pub(super) fn list(call: Call) -> Result<Reply, ApiError> {
    let filters = call.query.filters()?;
    filters.check(FILTERS)?;
    let values = |name: &str| filters.get(name).to_vec();
    let networks = call.engine.list_networks()?.into_iter().filter(|details| network::fits(details, &values));
    let shown = |details: NetworkDetails| {
        let mut shown = network::inspect(&details);
        // Who is on it is told of one network, not of all.
        shown["Containers"] = json!({});
        shown
    };
    Ok(Reply::ok(networks.map(shown).collect()))
}

pub(super) fn inspect(call: Call) -> Result<Reply, ApiError> {
    Ok(Reply::ok(network::inspect(&call.engine.inspect_network(&call.name)?)))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Create {
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    driver: String,
    #[serde(default, deserialize_with = "or_default")]
    internal: bool,
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: Option<bool>,
    #[serde(default, deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    options: BTreeMap<String, String>,
    #[serde(rename = "IPAM", default, deserialize_with = "or_default")]
    ipam: Ipam,
    #[serde(default, deserialize_with = "or_default")]
    config_only: bool,
    #[serde(default, deserialize_with = "or_default")]
    config_from: ConfigFrom,
    #[serde(default, deserialize_with = "or_default")]
    ingress: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Ipam {
    #[serde(deserialize_with = "or_default")]
    driver: String,
    #[serde(deserialize_with = "or_default")]
    config: Vec<Pool>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Pool {
    #[serde(deserialize_with = "or_default")]
    subnet: String,
    #[serde(rename = "IPRange", deserialize_with = "or_default")]
    range: String,
    #[serde(deserialize_with = "or_default")]
    gateway: String,
    #[serde(deserialize_with = "or_default")]
    auxiliary_addresses: BTreeMap<String, IpAddr>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct ConfigFrom {
    network: String,
}

fn parse<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| ApiError::bad(format!("invalid {what}: {text}")))
}

fn optional<T: std::str::FromStr>(what: &str, text: &str) -> Result<Option<T>, ApiError> {
    if text.is_empty() { Ok(None) } else { parse(what, text).map(Some) }
}

pub(super) fn create(mut call: Call) -> Result<Reply, ApiError> {
    let body: Create = call.json()?;
    if body.ingress {
        return Err(ApiError::unsupported("a network of a swarm"));
    }
    if !matches!(body.ipam.driver.as_str(), "" | "default") {
        return Err(ApiError::not_found(format!(
            "could not find plugin {} in v2 plugin registry",
            body.ipam.driver
        )));
    }
    let pool = |pool: &Pool| {
        Ok(PoolRequest {
            subnet: parse::<Subnet>("subnet", &pool.subnet)?,
            range: optional("ip-range", &pool.range)?,
            gateway: optional("gateway", &pool.gateway)?,
            auxiliary: pool.auxiliary_addresses.clone(),
        })
    };
    let pools = body.ipam.config.iter().filter(|pool| !pool.subnet.is_empty()).map(pool);
    let network = call.engine.create_network(&CreateNetworkRequest {
        name: body.name,
        driver: if body.driver.is_empty() { "bridge".to_owned() } else { body.driver },
        internal: body.internal,
        ipv4: body.enable_ipv4.unwrap_or(true),
        ipv6: body.enable_ipv6.unwrap_or(false),
        labels: body.labels,
        options: body.options,
        pools: pools.collect::<Result<_, ApiError>>()?,
        config_only: body.config_only,
        config_from: Some(body.config_from.network).filter(|name| !name.is_empty()),
    })?;
    Ok(Reply::Json(StatusCode::CREATED, json!({ "Id": network.id, "Warning": "" })))
}

/// A container's place on a network, as clients describe it.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct Endpoint {
    #[serde(rename = "IPAMConfig", deserialize_with = "or_default")]
    ipam: Addresses,
    #[serde(deserialize_with = "or_default")]
    aliases: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    links: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    mac_address: String,
    #[serde(deserialize_with = "or_default")]
    driver_opts: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    gw_priority: i32,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Addresses {
    #[serde(rename = "IPv4Address", deserialize_with = "or_default")]
    ip: String,
    #[serde(rename = "IPv6Address", deserialize_with = "or_default")]
    ip6: String,
    #[serde(rename = "LinkLocalIPs", deserialize_with = "or_default")]
    link_local: Vec<IpAddr>,
}

impl Endpoint {
    pub(super) fn config(self) -> Result<EndpointConfig, ApiError> {
        let link = |text: &String| {
            let (target, alias) = text.split_once(':').unwrap_or((text, text));
            (target.to_owned(), alias.to_owned())
        };
        Ok(EndpointConfig {
            aliases: self.aliases,
            ip: optional("IPv4 address", &self.ipam.ip)?,
            ip6: optional("IPv6 address", &self.ipam.ip6)?,
            mac: optional("MAC address", &self.mac_address)?,
            link_local: self.ipam.link_local,
            links: self.links.iter().map(link).collect(),
            driver_opts: self.driver_opts,
            gw_priority: self.gw_priority,
            ..EndpointConfig::default()
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Join {
    container: String,
    #[serde(default, deserialize_with = "or_default")]
    endpoint_config: Endpoint,
    #[serde(default, deserialize_with = "or_default")]
    force: bool,
}

pub(super) fn connect(mut call: Call) -> Result<Reply, ApiError> {
    let body: Join = call.json()?;
    call.engine.connect_network(&call.name, &body.container, &body.endpoint_config.config()?)?;
    Ok(Reply::Empty(StatusCode::OK))
}

pub(super) fn disconnect(mut call: Call) -> Result<Reply, ApiError> {
    let body: Join = call.json()?;
    call.engine.disconnect_network(&call.name, &body.container, body.force)?;
    Ok(Reply::Empty(StatusCode::OK))
}

pub(super) fn remove(call: Call) -> Result<Reply, ApiError> {
    call.engine.remove_network(&call.name)?;
    Ok(Reply::done())
}

/// What is to be removed: only what is older than a time, has some labels and none of others.
pub(super) type Removable = (Option<i64>, Vec<Label>, Vec<Label>);

/// `until`, `label` and `label!` of the prunes.
pub(super) fn prune_filters(filters: &Filters) -> Result<Removable, ApiError> {
    let labels = |name: &str| filters.get(name).iter().map(|text| Label::parse(text)).collect();
    let until = |text: &String| {
        crate::when::seconds(text, Timestamp::now())
            .ok_or_else(|| ApiError::bad(format!("invalid filter 'until={text}'")))
    };
    Ok((filters.get("until").last().map(until).transpose()?, labels("label"), labels("label!")))
}

pub(super) fn prune(call: Call) -> Result<Reply, ApiError> {
    let filters = call.query.filters()?;
    filters.check(&["until", "label", "label!"])?;
    let (until, labels, without_labels) = prune_filters(&filters)?;
    let removed = call.engine.prune_networks(&PruneNetworks { until, labels, without_labels })?;
    Ok(Reply::ok(json!({ "NetworksDeleted": Value::from(removed) })))
}
