//! Networks, endpoints, published ports and names.
//!
//! [`BridgeEndpoint::connect`] puts a container on a bridge network and is called by the process that
//! looks after the container, once the container's network namespace exists. No state lives in a daemon:
//! the kernel knows the devices and rules, a folder of locked records knows whose they are
//! (`ledger.rs`), and whoever comes next cleans up after the dead.
//!
//! ```text
//! endpoint ── ledger    who has which address and port
//!         ├── bridge    the host's side: bridge, kernel options, rules
//!         ├── netlink   links, addresses, routes        ─┐ the kernel,
//!         ├── nft       redirects and masquerading      ─┘ without tools
//!         ├── publish   host ports are held by binding them
//!         ├── forward   what the kernel does not redirect
//!         └── dns       the name server inside the container
//! ```
#![forbid(unsafe_code)]

mod bridge;
mod dns;
mod endpoint;
mod error;
mod files;
mod forward;
mod ledger;
mod netlink;
mod network;
mod nft;
mod port;
mod publish;
mod stop;
mod subnet;

pub use endpoint::{BridgeEndpoint, connect_loopback, reconcile, remove_network};
pub use error::ConnectError;
pub use files::{DNS_ADDRESS, DnsConfig, hostname, hosts, resolv_conf};
pub use network::{Attached, BoundPort, EndpointSpec, MacAddress, MacAddressError, NetConfig, Network};
pub use port::{ContainerPort, HostPort, PortError, PortMapping, Protocol};
pub use subnet::{Subnet, SubnetError};
