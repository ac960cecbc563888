//! How a container gets its network: what the command asks and what its shim does about it.

use std::fs;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use dhow_net::{
    Attached, BridgeEndpoint, ConnectError, DnsConfig, EndpointSpec, NetConfig, connect_loopback,
};
use dhow_runtime::shim::NetworkSetup;
use serde::{Deserialize, Serialize};

/// Folder of the networks' run-time state.
const NETWORKS_DIR: &str = "networks";

/// The default network of the host whose run-time state is in `run`.
pub fn default_network(run: &Path) -> NetConfig {
    NetConfig::default_bridge(run.join(NETWORKS_DIR))
}

/// What a shim is asked to connect its container to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkRequest {
    /// Nothing but itself.
    Loopback,
    /// The default network.
    Bridge(Box<BridgeRequest>),
}

/// A place on the default network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeRequest {
    /// The host's run-time state.
    pub run: PathBuf,
    /// What users call the container, for errors.
    pub name: String,
    /// What the container wants.
    pub endpoint: EndpointSpec,
    /// Where to write down what it got.
    pub attached: Option<PathBuf>,
    /// The `/etc/hosts` of the container, to which its address is added.
    pub hosts: Option<HostsFile>,
}

/// What is to be in the `/etc/hosts` of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostsFile {
    /// The file, which is mounted in the container.
    pub path: PathBuf,
    /// What the container calls itself.
    pub hostname: String,
    /// Further names. Without an address they are names of the host.
    pub extra: Vec<(String, Option<IpAddr>)>,
}

impl NetworkRequest {
    /// A place on the default network that needs nothing special: for a build step.
    pub fn plain(run: &Path, container_id: &str, dns: DnsConfig, hosts: Option<HostsFile>) -> Self {
        let endpoint = EndpointSpec { container_id: container_id.into(), dns, ..EndpointSpec::default() };
        let (run, name) = (run.into(), container_id.into());
        NetworkRequest::Bridge(Box::new(BridgeRequest { run, name, endpoint, attached: None, hosts }))
    }

    /// The request in the form in which it crosses to the shim.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("plain data serializes")
    }
}

/// Makes the network of a shim; the hook of [`dhow_runtime::shim::ShimHooks`].
pub fn setup(request: &serde_json::Value) -> Result<Box<dyn NetworkSetup>, String> {
    let request = serde_json::from_value(request.clone());
    Ok(match request.map_err(|error| format!("cannot understand the network request: {error}"))? {
        NetworkRequest::Loopback => Box::new(Loopback),
        NetworkRequest::Bridge(request) => Box::new(Bridge { request: *request, endpoint: None }),
    })
}

struct Loopback;

impl NetworkSetup for Loopback {
    fn connect(&mut self, netns: BorrowedFd<'_>) -> Result<(), String> {
        connect_loopback(netns).map_err(|error| chain(&error))
    }

    fn disconnect(&mut self) {}
}

struct Bridge {
    request: BridgeRequest,
    endpoint: Option<BridgeEndpoint>,
}

impl NetworkSetup for Bridge {
    fn connect(&mut self, netns: BorrowedFd<'_>) -> Result<(), String> {
        let config = default_network(&self.request.run);
        let endpoint = BridgeEndpoint::connect(&config, &self.request.endpoint, netns)
            .map_err(|error| self.request.describe(&error))?;
        self.request.write_down(endpoint.attached())?;
        self.endpoint = Some(endpoint);
        Ok(())
    }

    fn disconnect(&mut self) {
        if let Some(endpoint) = self.endpoint.take() {
            // What stays is recorded, and the next one to use the network removes it.
            let _ = endpoint.disconnect();
        }
        if let Some(path) = &self.request.attached {
            // A stale note is not read: the container does not run.
            let _ = fs::remove_file(path);
        }
    }
}

impl BridgeRequest {
    fn describe(&self, error: &ConnectError) -> String {
        let is_port = matches!(
            error,
            ConnectError::PortAllocated { .. }
                | ConnectError::PortInUse { .. }
                | ConnectError::Bind { .. }
                | ConnectError::NoFreePort { .. }
        );
        let (name, id) = (&self.name, &self.endpoint.container_id);
        match is_port {
            true => {
                format!(
                    "driver failed programming external connectivity on endpoint {name} ({id}): {}",
                    chain(error)
                )
            }
            false => format!("failed to set up container networking: {}", chain(error)),
        }
    }

    fn write_down(&self, attached: &Attached) -> Result<(), String> {
        if let Some(path) = &self.attached {
            let json = serde_json::to_vec(attached).expect("plain data serializes");
            replace(path, &json).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        if let Some(file) = &self.hosts {
            let text = file.text(Some(attached));
            // Written in place: the file may be mounted in the container already.
            fs::write(&file.path, text)
                .map_err(|error| format!("cannot write {}: {error}", file.path.display()))?;
        }
        Ok(())
    }
}

impl HostsFile {
    /// The file's text, before and after the container has an address.
    pub(crate) fn text(&self, attached: Option<&Attached>) -> String {
        let gateway = attached.map(|attached| IpAddr::V4(attached.gateway));
        let extra: Vec<(String, IpAddr)> = self
            .extra
            .iter()
            .filter_map(|(name, address)| Some((name.clone(), address.or(gateway)?)))
            .collect();
        let own: Vec<IpAddr> = attached.map(|attached| IpAddr::V4(attached.ip)).into_iter().collect();
        dhow_net::hosts(&self.hostname, &own, &extra)
    }
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, bytes)?;
    fs::rename(temporary, path)
}

/// An error and what caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<String>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> BridgeRequest {
        let endpoint = EndpointSpec { container_id: "1234".into(), ..EndpointSpec::default() };
        BridgeRequest { run: "/run/x".into(), name: "web".into(), endpoint, attached: None, hosts: None }
    }

    #[test]
    fn a_port_conflict_reads_as_dockers() {
        let error = ConnectError::PortAllocated { host: "0.0.0.0:5000".parse().unwrap() };
        assert_eq!(
            request().describe(&error),
            "driver failed programming external connectivity on endpoint web (1234): \
             Bind for 0.0.0.0:5000 failed: port is already allocated"
        );
    }

    #[test]
    fn a_request_survives_the_way_to_the_shim() {
        let request = NetworkRequest::Bridge(Box::new(request()));
        let back: NetworkRequest = serde_json::from_value(request.to_value()).unwrap();
        assert_eq!(back, request);
        assert!(setup(&serde_json::json!({ "token_ring": {} })).is_err());
    }
}
