//! Networks, endpoints, published ports and names.
//!
//! A [`Sandbox`] is a container on its networks, and lives in the process that looks after the container, once the
//! container's network namespace exists. No state lives in a daemon: the kernel knows the devices and rules, a
//! folder of locked records knows whose they are (`ledger.rs`), and whoever comes next cleans up after the dead.
//!
//! ```text
//! sandbox ── inside      the container's own end
//!        ├── endpoint   its place on one network
//!        │   ├── ledger    who has which address and port
//!        │   ├── bridge    the host's side: bridge, kernel options, rules
//!        │   ├── netlink   links, addresses, routes        ─┐ the kernel,
//!        │   ├── nft       redirects and masquerading      ─┘ without tools
//!        │   └── publish   host ports are held by binding them
//!        ├── forward    what the kernel does not redirect
//!        └── dns        the name server inside the container
//! life ── networks made, cleaned up after, removed
//! ```
#![forbid(unsafe_code)]

mod bridge;
mod dns;
mod endpoint;
mod error;
mod files;
mod forward;
mod inside;
mod ledger;
mod life;
mod netlink;
mod network;
mod nft;
mod port;
mod publish;
mod sandbox;
mod stop;
mod subnet;

pub use error::ConnectError;
pub use files::{DNS_ADDRESS, DnsConfig, hostname, hosts, resolv_conf};
pub use life::{Planning, reconcile, remove_network, retire_network, standing};
pub use network::{
    Attached, BoundPort, EndpointSpec, MacAddress, MacAddressError, NetConfig, Network, Pool, SandboxSpec,
};
pub use port::{ContainerPort, HostPort, PortError, PortMapping, Protocol};
pub use sandbox::{Sandbox, connect_loopback};
pub use subnet::{Subnet, SubnetError};
