//! How a container gets its networks: what the command asks and what its shim does about it.
//!
//! What a container is to be on is a *plan*, a file in its run-time folder. The command writes it, before the start
//! and whenever it changes; the shim reads it, at each start and when it is told to, and does what is different.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use dhow_net::{
    Attached, ConnectError, DnsConfig, EndpointSpec, NetConfig, Sandbox, SandboxSpec, connect_loopback,
};
use dhow_runtime::shim::NetworkSetup;
use serde::{Deserialize, Serialize};

/// Folder of the networks' run-time state.
const NETWORKS_DIR: &str = "networks";

/// Where the networks' run-time state is, of the host whose run-time state is in `run`.
pub(crate) fn networks_dir(run: &Path) -> PathBuf {
    run.join(NETWORKS_DIR)
}

/// The default network of the host whose run-time state is in `run`.
pub fn default_network(run: &Path) -> NetConfig {
    NetConfig::default_bridge(networks_dir(run))
}

/// What a shim is asked to connect its container to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkRequest {
    /// Nothing but itself.
    Loopback,
    /// These.
    Networks(Box<NetworkPlan>),
    /// Those of the plan in this file, which may change.
    Planned(PathBuf),
}

/// The networks a container is to be on, and what it wants there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPlan {
    /// The container.
    pub id: String,
    /// What users call it, for errors.
    pub name: String,
    /// What it wants wherever it is.
    pub sandbox: SandboxSpec,
    /// The networks.
    pub endpoints: Vec<(NetConfig, EndpointSpec)>,
    /// Where to write down what it got.
    pub attached: Option<PathBuf>,
    /// The `/etc/hosts` of the container, to which its addresses are added.
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
        let endpoint = EndpointSpec { container_id: container_id.into(), ..EndpointSpec::default() };
        NetworkRequest::Networks(Box::new(NetworkPlan {
            id: container_id.into(),
            name: container_id.into(),
            sandbox: SandboxSpec { ports: Vec::new(), dns },
            endpoints: vec![(default_network(run), endpoint)],
            attached: None,
            hosts,
        }))
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
        NetworkRequest::Networks(plan) => Box::new(Networks { plan: *plan, file: None, sandbox: None }),
        NetworkRequest::Planned(file) => {
            Box::new(Networks { plan: NetworkPlan::read(&file)?, file: Some(file), sandbox: None })
        }
    })
}

struct Loopback;

impl NetworkSetup for Loopback {
    fn connect(&mut self, netns: BorrowedFd<'_>) -> Result<(), String> {
        connect_loopback(netns).map_err(|error| chain(&error))
    }

    fn disconnect(&mut self) {}
}

struct Networks {
    plan: NetworkPlan,
    /// Where the plan is, if it may change.
    file: Option<PathBuf>,
    sandbox: Option<Sandbox>,
}

impl NetworkSetup for Networks {
    fn connect(&mut self, netns: BorrowedFd<'_>) -> Result<(), String> {
        let sandbox = Sandbox::open(self.plan.sandbox.clone(), netns).and_then(|mut sandbox| {
            sandbox.connect(&self.plan.endpoints)?;
            Ok(sandbox)
        });
        let sandbox = sandbox.map_err(|error| self.plan.describe(&error))?;
        self.plan.write_down(&sandbox)?;
        self.sandbox = Some(sandbox);
        Ok(())
    }

    fn update(&mut self) -> Result<(), String> {
        let (Some(file), Some(sandbox)) = (&self.file, &mut self.sandbox) else { return Ok(()) };
        let plan = NetworkPlan::read(file)?;
        let updated = self.plan.differences(&plan).apply(sandbox);
        // Also when something failed: what was done is to be seen.
        let written = plan.write_down(sandbox);
        updated.map_err(|error| chain(&error))?;
        self.plan = plan;
        written
    }

    fn disconnect(&mut self) {
        if let Some(sandbox) = self.sandbox.take() {
            // What stays is recorded, and the next one to use the network removes it.
            let _ = sandbox.close();
        }
        if let Some(path) = &self.plan.attached {
            // A stale note is not read: the container does not run.
            let _ = fs::remove_file(path);
        }
    }
}

/// What leads from one plan to another.
struct Differences<'p> {
    gone: Vec<&'p str>,
    renamed: Vec<(&'p str, &'p [String])>,
    new: Vec<(NetConfig, EndpointSpec)>,
}

impl Differences<'_> {
    /// Leaving comes first: what is left may be what the new network needs. A network that cannot be joined
    /// changes nothing else.
    fn apply(self, sandbox: &mut Sandbox) -> Result<(), ConnectError> {
        for network in self.gone {
            sandbox.disconnect(network)?;
        }
        for (network, names) in self.renamed {
            sandbox.rename(network, names.to_vec())?;
        }
        let is_on = |config: &NetConfig| sandbox.attached().any(|attached| attached.network == config.id);
        let new: Vec<_> = self.new.into_iter().filter(|(config, _)| !is_on(config)).collect();
        if new.is_empty() { Ok(()) } else { sandbox.connect(&new) }
    }
}

impl NetworkPlan {
    fn read(file: &Path) -> Result<Self, String> {
        let failed =
            |error: &dyn std::error::Error| format!("cannot read {}: {}", file.display(), chain(error));
        let json = fs::read(file).map_err(|error| failed(&error))?;
        serde_json::from_slice(&json).map_err(|error| failed(&error))
    }

    /// Puts the plan in its file, in one step.
    pub(crate) fn write(&self, file: &Path) -> io::Result<()> {
        replace(file, &serde_json::to_vec(self).expect("plain data serializes"))
    }

    fn differences<'p>(&'p self, next: &'p NetworkPlan) -> Differences<'p> {
        let find =
            |plan: &'p NetworkPlan, id: &str| plan.endpoints.iter().find(|(config, _)| config.id == id);
        let gone = self.endpoints.iter().map(|(config, _)| config.id.as_str());
        let renamed = next.endpoints.iter().filter_map(|(config, endpoint)| {
            let (_, before) = find(self, &config.id)?;
            (before.names != endpoint.names).then_some((config.id.as_str(), endpoint.names.as_slice()))
        });
        Differences {
            gone: gone.filter(|id| find(next, id).is_none()).collect(),
            renamed: renamed.collect(),
            new: next.endpoints.clone(),
        }
    }

    fn describe(&self, error: &ConnectError) -> String {
        let is_port = matches!(
            error,
            ConnectError::PortAllocated { .. }
                | ConnectError::PortInUse { .. }
                | ConnectError::Bind { .. }
                | ConnectError::NoFreePort { .. }
        );
        let (name, id) = (&self.name, &self.id);
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

    fn write_down(&self, sandbox: &Sandbox) -> Result<(), String> {
        let attached: Vec<&Attached> = sandbox.attached().collect();
        if let Some(path) = &self.attached {
            let json = serde_json::to_vec(&attached).expect("plain data serializes");
            replace(path, &json).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        if let Some(file) = &self.hosts {
            let text = file.text(&attached);
            // Written in place: the file may be mounted in the container already.
            fs::write(&file.path, text)
                .map_err(|error| format!("cannot write {}: {error}", file.path.display()))?;
        }
        Ok(())
    }
}

impl HostsFile {
    /// The file's text, before and after the container has addresses.
    pub(crate) fn text(&self, attached: &[&Attached]) -> String {
        let host = attached.iter().find_map(|attached| attached.host);
        let extra: Vec<(String, IpAddr)> =
            self.extra.iter().filter_map(|(name, address)| Some((name.clone(), address.or(host)?))).collect();
        let addresses = |attached: &&Attached| {
            [attached.ip.map(IpAddr::V4), attached.ip6.map(IpAddr::V6)].into_iter().flatten()
        };
        let own: Vec<IpAddr> = attached.iter().flat_map(addresses).collect();
        dhow_net::hosts(&self.hostname, &own, &extra)
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, bytes)?;
    fs::rename(temporary, path)
}

/// An error and what caused it, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<String>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(networks: &[(&str, &str)]) -> NetworkPlan {
        let endpoint = |(network, name): &(&str, &str)| {
            let config = NetConfig { id: (*network).into(), ..NetConfig::default_bridge("/run/x") };
            (config, EndpointSpec { names: vec![(*name).into()], ..EndpointSpec::default() })
        };
        NetworkPlan {
            id: "1234".into(),
            name: "web".into(),
            sandbox: SandboxSpec::default(),
            endpoints: networks.iter().map(endpoint).collect(),
            attached: None,
            hosts: None,
        }
    }

    #[test]
    fn a_port_conflict_reads_as_dockers() {
        let error = ConnectError::PortAllocated { host: "0.0.0.0:5000".parse().unwrap() };
        assert_eq!(
            plan(&[]).describe(&error),
            "driver failed programming external connectivity on endpoint web (1234): \
             Bind for 0.0.0.0:5000 failed: port is already allocated"
        );
    }

    #[test]
    fn a_request_survives_the_way_to_the_shim() {
        let request = NetworkRequest::Networks(Box::new(plan(&[("red", "web")])));
        let back: NetworkRequest = serde_json::from_value(request.to_value()).unwrap();
        assert_eq!(back, request);
        assert!(setup(&serde_json::json!({ "token_ring": {} })).is_err());
    }

    #[test]
    fn a_changed_plan_says_what_to_leave_and_whom_to_call_otherwise() {
        let before = plan(&[("red", "web"), ("blue", "web")]);
        let after = plan(&[("blue", "shop"), ("green", "shop")]);
        let differences = before.differences(&after);
        assert_eq!(differences.gone, ["red"]);
        assert_eq!(differences.renamed, [("blue", &["shop".to_string()][..])]);
    }
}
