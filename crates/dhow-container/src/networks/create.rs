//! Making a network.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use dhow_net::{ConnectError, Planning, Pool, Subnet};

use super::{
    AddressPool, BridgeOptions, FindNetworkError, NetworkInfo, NetworkOptionError, NetworkRecord,
    is_predefined,
};
use crate::containers::Containers;
use crate::name::{check_name, random_id};
use crate::network::networks_dir;

/// How many bits of a made-up IPv6 subnet name it.
const MADE_UP_PREFIX_LEN: u8 = 64;

/// A network to be made.
#[derive(Clone, Debug, Default)]
pub struct CreateNetworkRequest {
    /// Its name.
    pub name: String,
    /// Its driver; only `bridge` can be made.
    pub driver: String,
    /// No way out.
    pub internal: bool,
    /// With IPv4 addresses.
    pub ipv4: bool,
    /// With IPv6 addresses.
    pub ipv6: bool,
    /// What users note about it.
    pub labels: BTreeMap<String, String>,
    /// How its driver behaves.
    pub options: BTreeMap<String, String>,
    /// Where its addresses come from; families that are missing get a free subnet.
    pub pools: Vec<PoolRequest>,
    /// No network, but what others are made from.
    pub config_only: bool,
    /// A network of that kind to be made from.
    pub config_from: Option<String>,
}

/// Addresses that are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRequest {
    /// All of them.
    pub subnet: Subnet,
    /// Those given to who asks for none in particular.
    pub range: Option<Subnet>,
    /// The host's; `None` is the first.
    pub gateway: Option<IpAddr>,
    /// Those of other machines, by name.
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// Why no network was made. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum CreateNetworkError {
    /// The name is not one.
    #[error("invalid network name {0:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")]
    Name(String),
    /// Networks are made by root.
    #[error("networks need root for now")]
    NeedsRoot,
    /// Every host has it.
    #[error("operation is not permitted on predefined {0} network")]
    Predefined(String),
    /// Another network has the name.
    #[error("network with name {0} already exists")]
    NameTaken(String),
    /// There is one of its kind, and no other can be made.
    #[error("only one instance of \"{0}\" network is allowed")]
    OnlyOne(String),
    /// Such networks are of machines that work as one.
    #[error(
        "driver {0} needs a swarm, and dhow has none: networks are of this machine alone (--driver bridge)"
    )]
    Swarm(String),
    /// Nobody makes such networks here.
    #[error("plugin {0:?} not found: dhow makes networks of driver bridge only")]
    Driver(String),
    /// An option cannot be honoured.
    #[error(transparent)]
    Option(#[from] NetworkOptionError),
    /// No addresses at all.
    #[error("IPv4 or IPv6 must be enabled")]
    NoFamily,
    /// A subnet of a family the network shall not have.
    #[error("subnet {0} is given, but its family is not enabled (--ipv4, --ipv6)")]
    FamilyDisabled(Subnet),
    /// One subnet a family.
    #[error("bridge driver doesn't support multiple subnets")]
    ManySubnets,
    /// The subnet has no room for anybody.
    #[error("subnet {0} has no room for a gateway and a container")]
    TooSmall(Subnet),
    /// An address that is not on the subnet.
    #[error("{what} {address} is not an address of subnet {subnet}")]
    Outside {
        /// What it was to be.
        what: &'static str,
        /// The address.
        address: String,
        /// The subnet.
        subnet: Subnet,
    },
    /// Another network of ours has a part of the subnet.
    #[error(
        "invalid pool request: Pool overlaps with other one on this address space: {subnet} and {other} of network {name}"
    )]
    Overlap {
        /// The wanted one.
        subnet: Subnet,
        /// The one there is.
        other: Subnet,
        /// Whose it is.
        name: String,
    },
    /// The model decides about everything.
    #[error(
        "user-specified configurations are not supported if the network depends on a configuration network"
    )]
    ModelAndMore,
    /// The model is not one.
    #[error("configuration network {0} is not one: it was made without --config-only")]
    NoModel(String),
    /// The model cannot be found.
    #[error(transparent)]
    Find(#[from] FindNetworkError),
    /// The host cannot have it.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The record was refused.
    #[error(transparent)]
    Record(dhow_store::PutRecordError),
    /// The system has no random numbers.
    #[error("cannot make an id: {0}")]
    Random(getrandom::Error),
}

impl Containers {
    /// Makes a network and returns it.
    pub fn create_network(&self, request: &CreateNetworkRequest) -> Result<NetworkInfo, CreateNetworkError> {
        if self.images.user_namespace().is_some() {
            return Err(CreateNetworkError::NeedsRoot);
        }
        let name = check_network_name(&request.name)?.to_owned();
        if is_predefined(&name) {
            return Err(CreateNetworkError::Predefined(name));
        }
        check_driver(&request.driver)?;
        let request = self.with_model(request)?;
        BridgeOptions::parse(&request.options)?;
        let id = random_id().map_err(CreateNetworkError::Random)?;
        // What killed commands left may be in the way.
        self.reconcile_networks();
        let planning = Planning::start(&networks_dir(&self.run))?;
        let taken = self.list_networks()?;
        if taken.iter().any(|network| network.name == name) {
            return Err(CreateNetworkError::NameTaken(name));
        }
        let pools =
            if request.config_only { checked(&request)? } else { choose(&request, &id, &taken, &planning)? };
        let record = NetworkRecord {
            created: (self.clock)().to_string(),
            driver: request.driver.clone(),
            internal: request.internal,
            ipv4: request.ipv4,
            ipv6: request.ipv6,
            labels: request.labels.clone(),
            options: request.options.clone(),
            pools,
            config_only: request.config_only,
            config_from: request.config_from.clone(),
        };
        let network = NetworkInfo { id, name, record };
        let config = network.config(self.store().root(), &self.run);
        if !request.config_only {
            planning.raise(&config)?;
        }
        let body = serde_json::to_string(&network.record).expect("a record serializes");
        if let Err(error) = self.network_records().put(&network.id, Some(&network.name), &body, &[]) {
            drop(planning);
            // Without a record it is rubbish, which the next `reconcile` would find as well.
            let _ = dhow_net::remove_network(&config);
            return Err(match error {
                dhow_store::PutRecordError::NameTaken { name, .. } => CreateNetworkError::NameTaken(name),
                error => CreateNetworkError::Record(error),
            });
        }
        drop(planning);
        self.tell_network(&network, "create", &[]);
        Ok(network)
    }

    /// The request with what the configuration network says in its place.
    fn with_model(&self, request: &CreateNetworkRequest) -> Result<CreateNetworkRequest, CreateNetworkError> {
        let Some(model) = &request.config_from else { return Ok(request.clone()) };
        if !request.options.is_empty() || !request.pools.is_empty() || request.internal || request.ipv6 {
            return Err(CreateNetworkError::ModelAndMore);
        }
        let model = self.find_network(model)?;
        if !model.record.config_only {
            return Err(CreateNetworkError::NoModel(model.name));
        }
        let pool = |pool: &AddressPool| PoolRequest {
            subnet: pool.subnet,
            range: pool.range,
            gateway: Some(pool.gateway),
            auxiliary: pool.auxiliary.clone(),
        };
        let NetworkRecord { internal, ipv4, ipv6, options, pools, labels, .. } = model.record;
        Ok(CreateNetworkRequest {
            internal,
            ipv4,
            ipv6,
            options,
            pools: pools.iter().map(pool).collect(),
            labels: labels.into_iter().chain(request.labels.clone()).collect(),
            config_from: Some(model.name),
            ..request.clone()
        })
    }
}

/// As a container's, and one letter will do.
fn check_network_name(name: &str) -> Result<&str, CreateNetworkError> {
    let is_letter = name.len() == 1 && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_name = is_letter || check_name(name) == Ok(name);
    is_name.then_some(name).ok_or_else(|| CreateNetworkError::Name(name.into()))
}

fn check_driver(driver: &str) -> Result<(), CreateNetworkError> {
    match driver {
        "bridge" => Ok(()),
        "host" | "null" | "none" => Err(CreateNetworkError::OnlyOne(driver.into())),
        "overlay" => Err(CreateNetworkError::Swarm(driver.into())),
        _ => Err(CreateNetworkError::Driver(driver.into())),
    }
}

/// The wanted pools, if they make sense by themselves.
fn checked(request: &CreateNetworkRequest) -> Result<Vec<AddressPool>, CreateNetworkError> {
    if !request.ipv4 && !request.ipv6 {
        return Err(CreateNetworkError::NoFamily);
    }
    let mut families = BTreeSet::new();
    for pool in &request.pools {
        let is_enabled = if pool.subnet.is_ipv4() { request.ipv4 } else { request.ipv6 };
        if !is_enabled {
            return Err(CreateNetworkError::FamilyDisabled(pool.subnet));
        }
        if !families.insert(pool.subnet.is_ipv4()) {
            return Err(CreateNetworkError::ManySubnets);
        }
    }
    request.pools.iter().map(check_pool).collect()
}

fn check_pool(request: &PoolRequest) -> Result<AddressPool, CreateNetworkError> {
    let PoolRequest { subnet, range, gateway, auxiliary } = request.clone();
    let outside = |what, address: String| CreateNetworkError::Outside { what, address, subnet };
    if subnet.hosts().nth(1).is_none() {
        return Err(CreateNetworkError::TooSmall(subnet));
    }
    if let Some(range) = range.filter(|range| !subnet.includes(*range)) {
        return Err(outside("ip-range", range.to_string()));
    }
    if let Some(gateway) = gateway.filter(|gateway| !subnet.has_host(*gateway)) {
        return Err(outside("gateway", gateway.to_string()));
    }
    if let Some(address) = auxiliary.values().find(|address| !subnet.has_host(**address)) {
        return Err(outside("aux-address", address.to_string()));
    }
    let is_free = |ip: &IpAddr| subnet.has_host(*ip) && !auxiliary.values().any(|taken| taken == ip);
    let first = || match range {
        Some(range) => range.addresses().find(is_free),
        None => subnet.hosts().find(is_free),
    };
    let gateway = gateway.or_else(first).ok_or(CreateNetworkError::TooSmall(subnet))?;
    Ok(AddressPool { subnet, range, gateway, auxiliary, requested: true })
}

/// The wanted pools if they are free, and free ones for families without.
fn choose(
    request: &CreateNetworkRequest,
    id: &str,
    networks: &[NetworkInfo],
    planning: &Planning,
) -> Result<Vec<AddressPool>, CreateNetworkError> {
    let mut pools = checked(request)?;
    let real = networks.iter().filter(|network| !network.record.config_only);
    let taken: Vec<(Subnet, &str)> = real
        .flat_map(|network| network.record.pools.iter().map(|pool| (pool.subnet, network.name.as_str())))
        .collect();
    for pool in &pools {
        if let Some((other, name)) = taken.iter().find(|(other, _)| other.overlaps(pool.subnet)) {
            let (subnet, other, name) = (pool.subnet, *other, (*name).to_owned());
            return Err(CreateNetworkError::Overlap { subnet, other, name });
        }
    }
    let free = |pool: Pool| AddressPool {
        subnet: pool.subnet,
        range: None,
        gateway: pool.gateway,
        auxiliary: BTreeMap::new(),
        requested: false,
    };
    let lacks = |pools: &[AddressPool], is_ipv4| !pools.iter().any(|pool| pool.subnet.is_ipv4() == is_ipv4);
    if request.ipv4 && lacks(&pools, true) {
        let subnets: Vec<Subnet> = taken.iter().map(|(subnet, _)| *subnet).collect();
        pools.push(free(planning.free_pool(&subnets)?));
    }
    if request.ipv6 && lacks(&pools, false) {
        pools.push(free(Pool::of(made_up_subnet(id)).expect("it has room for many")));
    }
    pools.sort_by_key(|pool| !pool.subnet.is_ipv4());
    Ok(pools)
}

/// A unique local subnet nobody else is likely to have: an id is made of random numbers.
fn made_up_subnet(id: &str) -> Subnet {
    let digits = u64::from_str_radix(&id[..16], 16).expect("an id is made of hexadecimal digits");
    let bits = u128::from(digits) << 64;
    const UNIQUE_LOCAL: u128 = 0xfd << 120;
    let address = Ipv6Addr::from_bits(UNIQUE_LOCAL | bits & ((1 << 120) - 1));
    Subnet::containing(address, MADE_UP_PREFIX_LEN).expect("an address has as many bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str) -> PoolRequest {
        PoolRequest {
            subnet: subnet.parse().unwrap(),
            range: None,
            gateway: None,
            auxiliary: BTreeMap::new(),
        }
    }

    fn check(request: &PoolRequest) -> String {
        check_pool(request).map_or_else(|error| format!("error: {error}"), |pool| pool.gateway.to_string())
    }

    #[test]
    fn the_gateway_is_the_first_address_nobody_else_has() {
        assert_eq!(check(&pool("10.1.0.0/24")), "10.1.0.1");
        assert_eq!(check(&pool("fd00:1::/64")), "fd00:1::1");
        let range = PoolRequest { range: Some("10.1.0.128/25".parse().unwrap()), ..pool("10.1.0.0/24") };
        assert_eq!(check(&range), "10.1.0.128");
        let auxiliary = BTreeMap::from([("router".into(), "10.1.0.1".parse().unwrap())]);
        assert_eq!(check(&PoolRequest { auxiliary, ..pool("10.1.0.0/24") }), "10.1.0.2");
    }

    #[test]
    fn what_is_not_on_the_subnet_is_named() {
        let gateway = Some("10.2.0.1".parse().unwrap());
        assert_eq!(
            check(&PoolRequest { gateway, ..pool("10.1.0.0/24") }),
            "error: gateway 10.2.0.1 is not an address of subnet 10.1.0.0/24"
        );
        let range = Some("10.0.0.0/8".parse().unwrap());
        assert_eq!(
            check(&PoolRequest { range, ..pool("10.1.0.0/24") }),
            "error: ip-range 10.0.0.0/8 is not an address of subnet 10.1.0.0/24"
        );
        assert_eq!(
            check(&pool("10.1.0.0/31")),
            "error: subnet 10.1.0.0/31 has no room for a gateway and a container"
        );
    }

    #[test]
    fn families_are_as_enabled() {
        let request = |ipv4, ipv6, subnets: &[&str]| CreateNetworkRequest {
            ipv4,
            ipv6,
            pools: subnets.iter().map(|subnet| pool(subnet)).collect(),
            ..CreateNetworkRequest::default()
        };
        let error = |request| checked(&request).unwrap_err().to_string();
        assert_eq!(error(request(false, false, &[])), "IPv4 or IPv6 must be enabled");
        assert_eq!(
            error(request(true, false, &["fd00::/64"])),
            "subnet fd00::/64 is given, but its family is not enabled (--ipv4, --ipv6)"
        );
        assert_eq!(
            error(request(true, true, &["10.1.0.0/24", "10.2.0.0/24"])),
            "bridge driver doesn't support multiple subnets"
        );
        assert_eq!(checked(&request(true, true, &["10.1.0.0/24", "fd00::/64"])).unwrap().len(), 2);
        assert!(made_up_subnet(&"ab".repeat(32)).to_string().starts_with("fdab:"));
    }
}
