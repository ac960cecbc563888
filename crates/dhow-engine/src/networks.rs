//! Operations on networks.

use std::net::Ipv4Addr;

pub use dhow_container::{
    AddressPool, CreateNetworkError, CreateNetworkRequest, DisconnectNetworkError, EndpointConfig,
    EndpointError, FindNetworkError, JoinNetworkError, Link, Member, NetworkInfo, NetworkRecord, PoolRequest,
    RemoveNetworkError, endpoint_id,
};
pub use dhow_net::{MacAddressError, Subnet, SubnetError};

use crate::containers::{Container, FindError};
use crate::{Engine, Label};

/// A network with what only this host knows about it.
#[derive(Clone, Debug)]
pub struct NetworkDetails {
    /// The network.
    pub network: NetworkInfo,
    /// Who is on it now.
    pub members: Vec<Member>,
    /// No container refers to it, running or not.
    pub is_dangling: bool,
    /// The subnet and gateway of the default network, once it has some.
    pub default_subnet: Option<(Subnet, Ipv4Addr)>,
}

/// Why networks could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectNetworkError {
    /// There is no such network.
    #[error(transparent)]
    Find(#[from] FindNetworkError),
    /// The containers on it cannot be listed.
    #[error(transparent)]
    Containers(#[from] FindError),
}

/// Which networks to remove of those nobody uses.
#[derive(Clone, Debug, Default)]
pub struct PruneNetworks {
    /// Only what was made before this time, in seconds since 1970.
    pub until: Option<i64>,
    /// Only what has these labels.
    pub labels: Vec<Label>,
    /// Only what has none of these labels.
    pub without_labels: Vec<Label>,
}

impl PruneNetworks {
    fn fits(&self, network: &NetworkInfo) -> bool {
        let created = network.record.created.parse::<jiff::Timestamp>().map_or(0, |time| time.as_second());
        let labels = &network.record.labels;
        self.until.is_none_or(|time| created < time)
            && self.labels.iter().all(|label| label.is_in(labels))
            && !self.without_labels.iter().any(|label| label.is_in(labels))
    }
}

impl Engine {
    /// Makes a network.
    pub fn create_network(&self, request: &CreateNetworkRequest) -> Result<NetworkInfo, CreateNetworkError> {
        self.containers().create_network(request)
    }

    /// All networks, by name.
    pub fn list_networks(&self) -> Result<Vec<NetworkDetails>, InspectNetworkError> {
        let containers = self.containers().list()?;
        let networks = self.containers().list_networks()?.into_iter();
        Ok(networks.map(|network| self.details(network, &containers)).collect())
    }

    /// Everything there is to know about a network, found by id, name or the beginning of an id.
    pub fn inspect_network(&self, text: &str) -> Result<NetworkDetails, InspectNetworkError> {
        let network = self.containers().find_network(text)?;
        Ok(self.details(network, &self.containers().list()?))
    }

    fn details(&self, network: NetworkInfo, containers: &[Container]) -> NetworkDetails {
        let endpoints = containers.iter().flat_map(|container| container.record.networks.values());
        NetworkDetails {
            members: self.containers().members(&network, containers),
            is_dangling: !endpoints.into_iter().any(|endpoint| endpoint.network_id == network.id),
            default_subnet: self.containers().default_subnet().filter(|_| network.name == "bridge"),
            network,
        }
    }

    /// Puts a container on a network: at once if it runs, at its next start otherwise.
    pub fn connect_network(
        &self,
        network: &str,
        container: &str,
        endpoint: &EndpointConfig,
    ) -> Result<(), JoinNetworkError> {
        self.containers().connect_network(network, container, endpoint)
    }

    /// Takes a container off a network; by force also if its shim does not answer.
    pub fn disconnect_network(
        &self,
        network: &str,
        container: &str,
        force: bool,
    ) -> Result<(), DisconnectNetworkError> {
        self.containers().disconnect_network(network, container, force)
    }

    /// Removes a network that no running container is on.
    pub fn remove_network(&self, text: &str) -> Result<(), RemoveNetworkError> {
        self.containers().remove_network(text)
    }

    /// Removes the networks that no container uses and that fit, and returns their names.
    pub fn prune_networks(&self, prune: &PruneNetworks) -> Result<Vec<String>, RemoveNetworkError> {
        self.containers().prune_networks(&|network| prune.fits(network))
    }
}
