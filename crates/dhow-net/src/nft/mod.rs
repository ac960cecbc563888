//! The firewall rules of a network, spoken to the kernel's nf_tables directly.
//!
//! One table holds everything of one network and nothing else, so removing it undoes all. Its rules are
//! written once; a published port is an element in a map, added and removed without touching a rule:
//!
//! ```text
//! map published     { protocol . port           : address . port }
//! map published_at  { address . protocol . port : address . port }
//! chain publish     { dnat to published_at, else to published }
//! chain prerouting  { to this host but not 127/8: jump publish }
//! chain output      { to this host: jump publish }
//! chain postrouting { masquerade what leaves the subnet, what comes from 127/8, and what was
//!                     redirected back into the subnet (a container using a published port) }
//! chain forward     { drop what enters the bridge from outside and was not published }
//! chain guard       { drop what comes from the bridge for 127/8 (route_localnet would let it in) }
//! ```
//!
//! An `nft` process costs 15 ms and may not be installed; a netlink message costs some microseconds.

mod rule;
mod wire;

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use rule::{Is, Rule};
use rustix::io::Errno;
use wire::{Attributes, Batch, query};

use crate::network::BoundPort;
use crate::subnet::Subnet;

const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const DELETE_ELEMENT: u16 = 14;
const FLAG_CREATE: u16 = 0x400;
const FLAG_APPEND: u16 = 0x800;
const FLAG_EXCLUSIVE: u16 = 0x200;
const FAMILY_IPV4: u32 = 2;
const SET_IS_MAP: u32 = 0x8;

const HOOK_PREROUTING: u32 = 0;
const HOOK_FORWARD: u32 = 2;
const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;
const PRIORITY_RAW: i32 = -300;
const PRIORITY_DNAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SNAT: i32 = 100;

/// The `nft` tool's numbers for the parts of a key, so that it can print our maps.
const TYPE_IPV4_ADDRESS: u32 = 7;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
const TYPE_BITS: u32 = 6;

const PUBLISHED: &str = "published";
const PUBLISHED_AT: &str = "published_at";
const PUBLISH: &str = "publish";
const PREROUTING: &str = "prerouting";
const OUTPUT: &str = "output";
const POSTROUTING: &str = "postrouting";
const FORWARD: &str = "forward";
const GUARD: &str = "guard";

/// The table of one network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'a> {
    pub(crate) name: &'a str,
}

/// A published port that the kernel redirects: IPv4 only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Redirect {
    pub(crate) bound: BoundPort,
    pub(crate) to: Ipv4Addr,
}

impl<'a> Table<'a> {
    /// Whether the kernel has it. Somebody's `nft flush ruleset` removes ours as well.
    pub(crate) fn exists(self) -> io::Result<bool> {
        found(query(GET_TABLE, &Attributes::default().text(1, self.name)))
    }

    /// Creates it with its rules, empty of ports.
    pub(crate) fn create(self, bridge: &str, subnet: Subnet) -> io::Result<()> {
        let mut batch = Batch::new();
        batch.push(NEW_TABLE, FLAG_CREATE | FLAG_EXCLUSIVE, &Attributes::default().text(1, self.name));
        self.push_map(&mut batch, 1, PUBLISHED, &[TYPE_PROTOCOL, TYPE_PORT]);
        self.push_map(&mut batch, 2, PUBLISHED_AT, &[TYPE_IPV4_ADDRESS, TYPE_PROTOCOL, TYPE_PORT]);
        self.push_chains(&mut batch);
        for (chain, rule) in network_rules(bridge, subnet) {
            self.push_rule(&mut batch, chain, &rule);
        }
        batch.commit()
    }

    /// Removes it with everything in it. One that is gone is success.
    pub(crate) fn delete(self) -> io::Result<()> {
        let mut batch = Batch::new();
        batch.push(DELETE_TABLE, 0, &Attributes::default().text(1, self.name));
        found(batch.commit()).map(drop)
    }

    /// Publishes ports, all or none.
    pub(crate) fn publish(self, redirects: &[Redirect]) -> io::Result<()> {
        if redirects.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for redirect in redirects {
            batch.push(NEW_ELEMENT, FLAG_CREATE, &self.element(redirect));
        }
        batch.commit()
    }

    /// Takes ports back. What is gone already must not keep the others, so one transaction for all
    /// (each waits for packets under way) is followed by one for each if need be.
    pub(crate) fn unpublish(self, redirects: &[Redirect]) -> io::Result<()> {
        if redirects.is_empty() || found(self.delete_elements(redirects))? {
            return Ok(());
        }
        redirects.chunks(1).try_for_each(|single| found(self.delete_elements(single)).map(drop))
    }

    fn delete_elements(self, redirects: &[Redirect]) -> io::Result<()> {
        let mut batch = Batch::new();
        for redirect in redirects {
            batch.push(DELETE_ELEMENT, 0, &self.element(redirect));
        }
        batch.commit()
    }

    /// Within a container: DNS queries to `server` go to the ports where the embedded server listens.
    ///
    /// Port 53 itself stays free for whoever wants to run a name server in the container.
    pub(crate) fn create_dns_redirect(self, server: Ipv4Addr, ports: &[(u8, u16)]) -> io::Result<()> {
        let mut batch = Batch::new();
        batch.push(NEW_TABLE, FLAG_CREATE | FLAG_EXCLUSIVE, &Attributes::default().text(1, self.name));
        self.push_chain(&mut batch, OUTPUT, Some(("nat", HOOK_OUTPUT, PRIORITY_DNAT)));
        for (protocol, port) in ports {
            let rule =
                Rule::default().if_to_address(server).if_to_port(*protocol, 53).redirect_to(server, *port);
            self.push_rule(&mut batch, OUTPUT, &rule);
        }
        batch.commit()
    }

    fn push_map(self, batch: &mut Batch, id: u32, name: &str, key: &[u32]) {
        let value = [TYPE_IPV4_ADDRESS, TYPE_PORT];
        let map = Attributes::default()
            .text(1, self.name)
            .text(2, name)
            .u32(3, SET_IS_MAP)
            .u32(4, concatenated(key))
            .u32(5, width(key))
            .u32(6, concatenated(&value))
            .u32(7, width(&value))
            .u32(10, id);
        batch.push(NEW_SET, FLAG_CREATE, &map);
    }

    fn push_chains(self, batch: &mut Batch) {
        self.push_chain(batch, PUBLISH, None);
        self.push_chain(batch, PREROUTING, Some(("nat", HOOK_PREROUTING, PRIORITY_DNAT)));
        self.push_chain(batch, OUTPUT, Some(("nat", HOOK_OUTPUT, PRIORITY_DNAT)));
        self.push_chain(batch, POSTROUTING, Some(("nat", HOOK_POSTROUTING, PRIORITY_SNAT)));
        self.push_chain(batch, FORWARD, Some(("filter", HOOK_FORWARD, PRIORITY_FILTER)));
        self.push_chain(batch, GUARD, Some(("filter", HOOK_PREROUTING, PRIORITY_RAW)));
    }

    fn push_chain(self, batch: &mut Batch, name: &str, hook: Option<(&str, u32, i32)>) {
        let mut chain = Attributes::default().text(1, self.name).text(3, name);
        if let Some((kind, number, priority)) = hook {
            let hook = Attributes::default().u32(1, number).bytes(2, &priority.to_be_bytes());
            chain = chain.nested(4, &hook).text(7, kind);
        }
        batch.push(NEW_CHAIN, FLAG_CREATE, &chain);
    }

    fn push_rule(self, batch: &mut Batch, chain: &str, rule: &Rule) {
        let rule = Attributes::default().text(1, self.name).text(2, chain).nested(4, rule.expressions());
        batch.push(NEW_RULE, FLAG_CREATE | FLAG_APPEND, &rule);
    }

    fn element(self, redirect: &Redirect) -> Attributes {
        let (map, key) = key_of(&redirect.bound);
        let value = [redirect.to.octets(), word(&redirect.bound.container_port.port.to_be_bytes())].concat();
        let element = Attributes::default()
            .nested(1, &Attributes::default().bytes(1, &key))
            .nested(2, &Attributes::default().bytes(1, &value));
        let list = Attributes::default().nested(1, &element);
        Attributes::default().text(1, self.name).text(2, map).nested(3, &list)
    }
}

/// Whether an iptables (nft flavour) chain of another program exists in its `ip filter` table.
pub(crate) fn filter_chain_exists(chain: &str) -> io::Result<bool> {
    found(query(GET_CHAIN, &Attributes::default().text(1, "filter").text(3, chain)))
}

fn network_rules(bridge: &str, subnet: Subnet) -> Vec<(&'static str, Rule)> {
    let rule = Rule::default;
    vec![
        (PUBLISH, rule().redirect_by_address(PUBLISHED_AT)),
        (PUBLISH, rule().redirect_by_port(PUBLISHED)),
        // A neighbour may send packets for 127.0.0.1; only our own, in `output`, may be meant.
        (PREROUTING, rule().if_to_loopback(Is::Different).if_to_this_host().jump(PUBLISH)),
        (OUTPUT, rule().if_to_this_host().jump(PUBLISH)),
        (POSTROUTING, rule().if_from_subnet(subnet).if_to_interface(Is::Different, bridge).masquerade()),
        (POSTROUTING, rule().if_from_loopback().if_to_interface(Is::Equal, bridge).masquerade()),
        (
            POSTROUTING,
            rule().if_from_subnet(subnet).if_to_interface(Is::Equal, bridge).if_redirected().masquerade(),
        ),
        (
            FORWARD,
            rule()
                .if_to_interface(Is::Equal, bridge)
                .if_from_interface(Is::Different, bridge)
                .if_new_connection()
                .if_not_redirected()
                .drop_it(),
        ),
        (GUARD, rule().if_from_interface(Is::Equal, bridge).if_to_loopback(Is::Equal).drop_it()),
    ]
}

/// The map a port belongs to, and its key there. Each part fills a register of four bytes.
fn key_of(bound: &BoundPort) -> (&'static str, Vec<u8>) {
    let protocol = word(&[bound.container_port.protocol.number()]);
    let port = word(&bound.host_port.to_be_bytes());
    match bound.host_ip {
        IpAddr::V4(address) if !address.is_unspecified() => {
            (PUBLISHED_AT, [address.octets(), protocol, port].concat())
        }
        _ => (PUBLISHED, [protocol, port].concat()),
    }
}

fn word(bytes: &[u8]) -> [u8; 4] {
    let mut word = [0; 4];
    word[..bytes.len()].copy_from_slice(bytes);
    word
}

fn concatenated(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, part| all << TYPE_BITS | part)
}

fn width(types: &[u32]) -> u32 {
    4 * u32::try_from(types.len()).expect("a handful of parts")
}

/// Turns "no such thing" into false.
fn found(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(false),
        Err(error) => Err(error),
    }
}
