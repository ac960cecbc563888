//! Removing networks.

use dhow_net::{ConnectError, retire_network};

use super::{FindNetworkError, NetworkInfo};
use crate::containers::Containers;
use crate::error::FindError;

/// Why a network was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveNetworkError {
    /// There is no such network.
    #[error(transparent)]
    Find(#[from] FindNetworkError),
    /// Every host has it.
    #[error("{0} is a pre-defined network and cannot be removed")]
    Predefined(String),
    /// Others are made from it.
    #[error("configuration network \"{name}\" is in use by network {user}")]
    IsModel {
        /// The configuration network.
        name: String,
        /// One that was made from it.
        user: String,
    },
    /// Containers are on it.
    #[error("error while removing network: network {name} has active endpoints ({})", members.join(", "))]
    Active {
        /// The network.
        name: String,
        /// Who they are.
        members: Vec<String>,
    },
    /// The containers on it cannot be listed.
    #[error(transparent)]
    Containers(#[from] FindError),
    /// The host could not let go of it.
    #[error(transparent)]
    Connect(ConnectError),
    /// The store refused.
    #[error(transparent)]
    Record(#[from] dhow_store::RemoveRecordError),
}

impl From<ConnectError> for RemoveNetworkError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::ActiveEndpoints { name, names } => {
                let members = names.iter().map(|name| format!("name:{name:?}")).collect();
                RemoveNetworkError::Active { name, members }
            }
            error => RemoveNetworkError::Connect(error),
        }
    }
}

impl RemoveNetworkError {
    /// Whether there is nothing to remove.
    pub fn is_not_found(&self) -> bool {
        matches!(self, RemoveNetworkError::Find(FindNetworkError::NotFound(_)))
    }
}

impl Containers {
    /// Removes a network that no running container is on.
    pub fn remove_network(&self, text: &str) -> Result<(), RemoveNetworkError> {
        let network = self.find_network(text)?;
        if network.is_predefined() {
            return Err(RemoveNetworkError::Predefined(network.name));
        }
        if network.record.config_only {
            let is_made_from = |other: &NetworkInfo| other.record.config_from.as_ref() == Some(&network.name);
            if let Some(user) = self.list_networks()?.into_iter().find(is_made_from) {
                return Err(RemoveNetworkError::IsModel { name: network.name, user: user.name });
            }
        }
        let members = self.members(&network, &self.list()?);
        if !members.is_empty() {
            let shown = |member: &super::Member| {
                format!("name:{:?} id:{:?}", member.name, crate::name::short_id(&member.container_id))
            };
            let members = members.iter().map(shown).collect();
            return Err(RemoveNetworkError::Active { name: network.name, members });
        }
        let config = network.config(self.store().root(), &self.run);
        retire_network(&config, || {
            self.network_records().remove(&network.id)?;
            Ok::<_, RemoveNetworkError>(())
        })?;
        self.tell_network(&network, "destroy", &[]);
        Ok(())
    }

    /// Removes the networks that no container refers to and that fit, and returns their names.
    pub fn prune_networks(
        &self,
        fits: &dyn Fn(&NetworkInfo) -> bool,
    ) -> Result<Vec<String>, RemoveNetworkError> {
        self.reconcile_networks();
        let containers = self.list()?;
        let is_used = |network: &NetworkInfo| {
            let endpoints = containers.iter().flat_map(|container| container.record.networks.values());
            endpoints.into_iter().any(|endpoint| endpoint.network_id == network.id)
        };
        let mut removed = Vec::new();
        for network in self.list_networks()? {
            let is_kept = network.is_predefined() || network.record.config_only || is_used(&network);
            if is_kept || !fits(&network) {
                continue;
            }
            match self.remove_network(&network.id) {
                Ok(()) => removed.push(network.name),
                // Somebody joined or removed it just now.
                Err(RemoveNetworkError::Active { .. } | RemoveNetworkError::Find(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let event = dhow_store::Event {
            kind: super::KIND.into(),
            action: "prune".into(),
            id: String::new(),
            attributes: [("reclaimed".to_owned(), "0".to_owned())].into(),
            time_ns: i64::try_from((self.clock)().as_nanosecond()).unwrap_or(i64::MAX),
        };
        self.tell_networks(&[event]);
        Ok(removed)
    }
}
