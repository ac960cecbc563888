//! A container on its networks, from `open` to `close`.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use dhow_sys::netns;

use crate::dns::{KnownNetworks, NamedNetwork};
use crate::endpoint::Endpoint;
use crate::error::{ConnectError, While};
use crate::forward::{self, Address};
use crate::inside::{Inside, set_container_options};
use crate::ledger::Reader;
use crate::netlink::{LOOPBACK_INDEX, RouteSocket};
use crate::network::{Attached, EndpointSpec, NetConfig, SandboxSpec};
use crate::stop::Worker;

/// A container's network namespace with everything that gives it networks, held by the process that looks after the
/// container.
///
/// It owns threads (name server, port forwarder) and the locks of the endpoints' records. Signals meant for the
/// process must be blocked before `open` if a particular thread is to receive them. Dropping it disconnects. If the
/// process dies instead, [`reconcile`](crate::reconcile) or the next one to connect cleans up.
#[derive(Debug)]
pub struct Sandbox {
    spec: SandboxSpec,
    inside: Inside,
    /// Best way out first.
    endpoints: Vec<Endpoint>,
    /// The default routes, by family.
    routes: [Option<(u32, IpAddr)>; 2],
    published: Option<Published>,
    known: KnownNetworks,
    _dns: Worker,
}

/// Published ports, which lead to one network.
#[derive(Debug)]
struct Published {
    network: String,
    address: Address,
    _forwarder: Option<Worker>,
}

impl Sandbox {
    /// Takes over a fresh network namespace. Its name server answers when this returns.
    pub fn open(spec: SandboxSpec, netns: BorrowedFd<'_>) -> Result<Self, ConnectError> {
        let (inside, sockets) = Inside::open(netns)?;
        let known = KnownNetworks::default();
        let server = sockets.serve(spec.dns.servers.clone(), known.clone());
        let dns = server.while_doing(|| "start the name server".into())?;
        let (endpoints, routes) = (Vec::new(), [None; 2]);
        Ok(Self { spec, inside, endpoints, routes, published: None, known, _dns: dns })
    }

    /// Puts the container on networks, which are brought up first if need be; on all of them or none. Its published
    /// ports work and its names resolve when this returns.
    pub fn connect(&mut self, wanted: &[(NetConfig, EndpointSpec)]) -> Result<(), ConnectError> {
        let is_on = |(config, _): &&(NetConfig, EndpointSpec)| {
            self.endpoints.iter().any(|endpoint| endpoint.config.id == config.id)
        };
        if let Some((_, spec)) = wanted.iter().find(is_on) {
            return Err(ConnectError::AlreadyConnected(spec.container_id.clone()));
        }
        let connected = self.try_connect(wanted);
        if connected.is_err() {
            for (config, _) in wanted {
                // What was there before stays; the error to be told is the other one.
                let _ = self.disconnect(&config.id);
            }
        }
        connected
    }

    fn try_connect(&mut self, wanted: &[(NetConfig, EndpointSpec)]) -> Result<(), ConnectError> {
        for (config, spec) in wanted {
            let device = spec.device.clone().unwrap_or_else(|| self.free_device(&config.device_prefix));
            self.endpoints.push(Endpoint::connect(config, spec, device, &mut self.inside)?);
        }
        self.settle()
    }

    /// Takes the container off a network. False: it was not on it.
    pub fn disconnect(&mut self, network: &str) -> Result<bool, ConnectError> {
        let is_meant = |endpoint: &Endpoint| endpoint.config.id == network;
        let Some(position) = self.endpoints.iter().position(is_meant) else { return Ok(false) };
        let mut endpoint = self.endpoints.remove(position);
        let moved = match self.published.as_ref().is_some_and(|published| published.network == network) {
            true => self.move_ports(&mut endpoint),
            false => Ok(()),
        };
        let released = endpoint.release();
        self.settle()?;
        moved.and(released).map(|()| true)
    }

    /// Calls the container by other names on a network from now on.
    pub fn rename(&mut self, network: &str, names: Vec<String>) -> Result<(), ConnectError> {
        let endpoint = self.endpoints.iter_mut().find(|endpoint| endpoint.config.id == network);
        endpoint.map_or(Ok(()), |endpoint| endpoint.rename(names))
    }

    /// What the container got, best way out first.
    pub fn attached(&self) -> impl Iterator<Item = &Attached> {
        self.endpoints.iter().map(|endpoint| &endpoint.attached)
    }

    /// Takes the container off all networks and gives its addresses and ports back.
    ///
    /// The kernel takes some ten milliseconds to let go of a device; whoever is in a hurry does this on another
    /// thread.
    pub fn close(mut self) -> Result<(), ConnectError> {
        // All of them, whatever becomes of the first.
        let released: Vec<_> = self.endpoints.iter_mut().map(Endpoint::release).collect();
        released.into_iter().collect()
    }

    /// Draws the consequences of who is there: routes, ports and names.
    fn settle(&mut self) -> Result<(), ConnectError> {
        self.endpoints.sort_by(|a, b| {
            let rank = |endpoint: &Endpoint| std::cmp::Reverse(endpoint.spec.gw_priority);
            (rank(a), &a.config.name).cmp(&(rank(b), &b.config.name))
        });
        let named = self.endpoints.iter().filter(|endpoint| endpoint.config.resolve_names);
        let named = named.map(|endpoint| NamedNetwork {
            name: endpoint.config.name.clone(),
            reader: Reader::new(&endpoint.config),
            links: endpoint.spec.links.clone(),
        });
        let has_way_out = self.endpoints.iter().any(|endpoint| !endpoint.config.internal);
        self.known.set(named.collect(), has_way_out);
        self.set_routes()?;
        self.place_ports()
    }

    fn set_routes(&mut self) -> Result<(), ConnectError> {
        let ways_out = |way: fn(&Attached) -> Option<IpAddr>| {
            self.endpoints.iter().find_map(|endpoint| Some((endpoint.device_index, way(&endpoint.attached)?)))
        };
        let wanted = [
            ways_out(|attached| attached.gateway.map(IpAddr::V4)),
            ways_out(|attached| attached.gateway6.map(IpAddr::V6)),
        ];
        for (current, wanted) in self.routes.iter_mut().zip(wanted) {
            if *current != wanted {
                let set = self.inside.set_default_route(*current, wanted);
                set.while_doing(|| "set the container's default route".into())?;
                *current = wanted;
            }
        }
        Ok(())
    }

    /// The endpoint that published ports lead to: the best way out.
    fn gateway(&mut self) -> Option<&mut Endpoint> {
        let position = self.endpoints.iter().position(|endpoint| endpoint.attached.gateway.is_some());
        let position = position
            .or_else(|| self.endpoints.iter().position(|endpoint| endpoint.attached.gateway6.is_some()));
        position.map(|position| &mut self.endpoints[position])
    }

    fn place_ports(&mut self) -> Result<(), ConnectError> {
        if self.spec.ports.is_empty() {
            return Ok(());
        }
        let Some(gateway) = self.gateway().map(|gateway| gateway.config.id.clone()) else { return Ok(()) };
        match &self.published {
            Some(published) if published.network == gateway => Ok(()),
            Some(published) => {
                let old = published.network.clone();
                let Some(position) = self.endpoints.iter().position(|endpoint| endpoint.config.id == old)
                else {
                    // They could not be moved when it left that network.
                    self.published = None;
                    return self.publish();
                };
                let mut old = self.endpoints.remove(position);
                let moved = self.move_ports(&mut old);
                self.endpoints.insert(position, old);
                moved
            }
            None => self.publish(),
        }
    }

    fn publish(&mut self) -> Result<(), ConnectError> {
        let ports = std::mem::take(&mut self.spec.ports);
        let Some(gateway) = self.gateway() else { return Ok(()) };
        let (network, address) = (gateway.config.id.clone(), gateway.address());
        let reservations = gateway.publish(&ports);
        self.spec.ports = ports;
        let address = Address::new(address.expect("a way out begins at an address"));
        let forwarder = forward::start(reservations?, &address).while_doing(|| "forward ports".into())?;
        self.published = Some(Published { network, address, _forwarder: forwarder });
        Ok(())
    }

    /// Leads the ports from `old`, which is not among the endpoints now, to the best way out there is. Without one
    /// they are given back.
    fn move_ports(&mut self, old: &mut Endpoint) -> Result<(), ConnectError> {
        let ports = old.give_ports()?;
        let Some(gateway) = self.gateway() else {
            self.published = None;
            return Ok(());
        };
        gateway.take_ports(ports)?;
        let (network, address) = (gateway.config.id.clone(), gateway.address());
        if let (Some(published), Some(address)) = (&mut self.published, address) {
            published.address.set(address);
            published.network = network;
        }
        Ok(())
    }

    /// The next name nobody has.
    fn free_device(&self, prefix: &str) -> String {
        let is_free = |name: &String| self.endpoints.iter().all(|endpoint| endpoint.attached.device != *name);
        let mut names = (0..).map(|number: usize| format!("{prefix}{number}"));
        names.find(is_free).expect("there is no end of numbers")
    }
}

/// Sets up a network namespace that has nobody to talk to but itself (`--network none`).
pub fn connect_loopback(netns: BorrowedFd<'_>) -> Result<(), ConnectError> {
    let configured = netns::in_netns(netns, || {
        set_container_options()?;
        RouteSocket::open()?.set_link_up(LOOPBACK_INDEX)
    });
    configured.and_then(|configured| configured).while_doing(|| "bring up the loopback device".into())
}
