//! Sharing the network of another container, and knowing others by name on the default network.

use std::path::PathBuf;

use dhow_runtime::NamespaceChoice;

use crate::containers::Containers;
use crate::create::{spec, write_spec};
use crate::error::{CreateError, FindError, StartError};
use crate::files::ContainerFiles;
use crate::record::{Container, ContainerRecord, State};
use crate::request::{CreateRequest, Link, NetworkMode};

/// How many containers may stand between one and the network it shares.
const HOPS_MAX: usize = 16;
/// What no process has: a container that was not told whose network to join does not start.
const NO_NAMESPACE: &str = "/proc/0/ns/net";

impl Containers {
    /// The request with the other containers in it found.
    pub(crate) fn with_networks(&self, request: &CreateRequest) -> Result<CreateRequest, CreateError> {
        check_conflicts(request)?;
        let mut request = request.clone();
        if let NetworkMode::Container(other) = &request.host.network {
            request.host.network = NetworkMode::Container(self.find(other)?.id);
        }
        for link in &mut request.host.links {
            let target = self.find(&link.container).map_err(|error| match error {
                FindError::NotFound(name) => CreateError::LinkTarget(name),
                error => error.into(),
            })?;
            let alias = std::mem::take(&mut link.alias);
            *link = Link { container: target.id, name: target.name, alias };
        }
        Ok(request)
    }

    /// Has a container that is about to start join the network of another one, which runs.
    pub(crate) fn share_network(&self, container: &Container, other: &str) -> Result<(), StartError> {
        let other = self.find(other)?;
        let State::Running { pid, .. } = other.state else { return Err(StartError::PeerStopped(other.id)) };
        let written = self.write_sharing_spec(&container.id, &container.record, &other.id, Some(pid));
        written.map_err(|error| StartError::WriteSpec(Box::new(error)))
    }

    /// Writes the configuration of a container that has the network, the names and the files of another one.
    pub(crate) fn write_sharing_spec(
        &self,
        id: &str,
        record: &ContainerRecord,
        other: &str,
        pid: Option<i32>,
    ) -> Result<(), CreateError> {
        let keeper = self.keeper(other)?;
        let bundle = self.bundle(&keeper.id);
        let files = ContainerFiles::new(&bundle, &keeper.id, &keeper.record);
        let mut spec = spec(self, id, record, &files)?;
        let namespace = pid.map_or_else(|| NO_NAMESPACE.into(), |pid| format!("/proc/{pid}/ns/net"));
        spec.namespaces.network = NamespaceChoice::Path(PathBuf::from(namespace));
        write_spec(&self.bundle(id), &spec)
    }

    /// The container that has a network of its own, at the end of those that share it.
    fn keeper(&self, other: &str) -> Result<Container, FindError> {
        let mut keeper = self.find(other)?;
        for _ in 0..HOPS_MAX {
            let NetworkMode::Container(next) = &keeper.record.host.network else { break };
            keeper = self.find(next)?;
        }
        Ok(keeper)
    }
}

/// What cannot be had together with the network of another container or of the host.
fn check_conflicts(request: &CreateRequest) -> Result<(), CreateError> {
    let host = &request.host;
    let has_links = !host.links.is_empty();
    let rules = match host.network {
        NetworkMode::Container(_) => vec![
            (host.hostname.is_some(), "hostname and the network mode"),
            (
                has_links,
                "container type network can't be used with links. This would result in undefined behavior",
            ),
            (host.dns != Default::default(), "dns and the network mode"),
            (!host.extra_hosts.is_empty(), "custom host-to-IP mapping and the network mode"),
            (
                !host.publish.is_empty() || host.publish_all,
                "port publishing and the container type network mode",
            ),
            (!request.expose.is_empty(), "port exposing and the container type network mode"),
            (!request.networks.is_empty(), "addresses or names on a network and the network mode"),
        ],
        NetworkMode::Host => vec![(
            has_links,
            "host type networking can't be used with links. This would result in undefined behavior",
        )],
        _ => Vec::new(),
    };
    match rules.into_iter().find(|(is_broken, _)| *is_broken) {
        Some((_, rule)) => Err(CreateError::Conflict(rule)),
        None => Ok(()),
    }
}
