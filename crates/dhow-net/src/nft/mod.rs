//! The firewall rules of a network, spoken to the kernel's nf_tables directly.
//!
//! One table a family holds everything of one network and nothing else, so removing it undoes all. Its rules
//! are written once; a published port is an element in a map, added and removed without touching a rule:
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
//! `forward` is also what keeps networks apart. On an internal network it drops whatever would leave the bridge
//! as well, and there is nothing to publish or to masquerade.
//!
//! An `nft` process costs 15 ms and may not be installed; a netlink message costs some microseconds.

mod rule;
mod wire;

use std::io;
use std::net::IpAddr;

use rule::{Is, Rule, octets};
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
const TYPE_IPV6_ADDRESS: u32 = 8;
const TYPE_PROTOCOL: u32 = 12;
const TYPE_PORT: u32 = 13;
const TYPE_BITS: u32 = 6;
/// What a part of a key is rounded up to.
const WORD_BYTES: u32 = 4;

const PUBLISHED: &str = "published";
const PUBLISHED_AT: &str = "published_at";
const PUBLISH: &str = "publish";
const PREROUTING: &str = "prerouting";
const OUTPUT: &str = "output";
const POSTROUTING: &str = "postrouting";
const FORWARD: &str = "forward";
const GUARD: &str = "guard";

/// Which addresses a table is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }

    fn number(self) -> u8 {
        match self {
            Self::Ipv4 => 2,
            Self::Ipv6 => 10,
        }
    }

    fn address_bytes(self) -> u32 {
        match self {
            Self::Ipv4 => 4,
            Self::Ipv6 => 16,
        }
    }

    fn address_words(self) -> u32 {
        self.address_bytes() / WORD_BYTES
    }

    fn address_type(self) -> u32 {
        match self {
            Self::Ipv4 => TYPE_IPV4_ADDRESS,
            Self::Ipv6 => TYPE_IPV6_ADDRESS,
        }
    }

    fn source_offset(self) -> u32 {
        match self {
            Self::Ipv4 => 12,
            Self::Ipv6 => 8,
        }
    }

    fn destination_offset(self) -> u32 {
        match self {
            Self::Ipv4 => 16,
            Self::Ipv6 => 24,
        }
    }
}

/// The table of one network and family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table<'a> {
    pub(crate) name: &'a str,
    pub(crate) family: Family,
}

/// What decides about the rules of a network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) bridge: &'a str,
    pub(crate) subnet: Subnet,
    /// Nothing leaves or enters.
    pub(crate) is_internal: bool,
    /// What leaves does so under the host's address.
    pub(crate) masquerades: bool,
    /// Containers talk to each other.
    pub(crate) lets_neighbours_talk: bool,
}

/// A published port that the kernel redirects. Both sides are of the table's family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Redirect {
    pub(crate) bound: BoundPort,
    pub(crate) to: IpAddr,
}

impl<'a> Table<'a> {
    /// Whether the kernel has it. Somebody's `nft flush ruleset` removes ours as well.
    pub(crate) fn exists(self) -> io::Result<bool> {
        found(query(self.family.number(), GET_TABLE, &Attributes::default().text(1, self.name)))
    }

    /// Creates it with its rules, empty of ports.
    pub(crate) fn create(self, plan: &Plan<'_>) -> io::Result<()> {
        let mut batch = self.batch();
        batch.push(NEW_TABLE, FLAG_CREATE | FLAG_EXCLUSIVE, &Attributes::default().text(1, self.name));
        self.push_map(&mut batch, 1, PUBLISHED, &[TYPE_PROTOCOL, TYPE_PORT]);
        let at = [self.family.address_type(), TYPE_PROTOCOL, TYPE_PORT];
        self.push_map(&mut batch, 2, PUBLISHED_AT, &at);
        self.push_chains(&mut batch);
        for (chain, rule) in network_rules(self.family, plan) {
            self.push_rule(&mut batch, chain, &rule);
        }
        batch.commit()
    }

    fn batch(self) -> Batch {
        Batch::new(self.family.number())
    }

    /// Removes it with everything in it. One that is gone is success.
    pub(crate) fn delete(self) -> io::Result<()> {
        let mut batch = self.batch();
        batch.push(DELETE_TABLE, 0, &Attributes::default().text(1, self.name));
        found(batch.commit()).map(drop)
    }

    /// Publishes ports, all or none.
    pub(crate) fn publish(self, redirects: &[Redirect]) -> io::Result<()> {
        if redirects.is_empty() {
            return Ok(());
        }
        let mut batch = self.batch();
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
        let mut batch = self.batch();
        for redirect in redirects {
            batch.push(DELETE_ELEMENT, 0, &self.element(redirect));
        }
        batch.commit()
    }

    /// Within a container: DNS queries to `server` go to the ports where the embedded server listens.
    ///
    /// Port 53 itself stays free for whoever wants to run a name server in the container.
    pub(crate) fn create_dns_redirect(self, server: IpAddr, ports: &[(u8, u16)]) -> io::Result<()> {
        let mut batch = self.batch();
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
        let value = [self.family.address_type(), TYPE_PORT];
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
        if self.family == Family::Ipv4 {
            self.push_chain(batch, GUARD, Some(("filter", HOOK_PREROUTING, PRIORITY_RAW)));
        }
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
        let port = word(&redirect.bound.container_port.port.to_be_bytes());
        let value = [octets(redirect.to), port.to_vec()].concat();
        let element = Attributes::default()
            .nested(1, &Attributes::default().bytes(1, &key))
            .nested(2, &Attributes::default().bytes(1, &value));
        let list = Attributes::default().nested(1, &element);
        Attributes::default().text(1, self.name).text(2, map).nested(3, &list)
    }
}

/// Whether an iptables (nft flavour) chain of another program exists in its `ip filter` table.
pub(crate) fn filter_chain_exists(chain: &str) -> io::Result<bool> {
    found(query(Family::Ipv4.number(), GET_CHAIN, &Attributes::default().text(1, "filter").text(3, chain)))
}

fn network_rules(family: Family, plan: &Plan<'_>) -> Vec<(&'static str, Rule)> {
    let rule = Rule::default;
    let (bridge, subnet) = (plan.bridge, plan.subnet);
    let leaves = || rule().if_from_interface(Is::Equal, bridge).if_to_interface(Is::Different, bridge);
    let enters = || rule().if_to_interface(Is::Equal, bridge).if_from_interface(Is::Different, bridge);
    let mut rules = Vec::new();
    if plan.is_internal {
        rules.extend([(FORWARD, leaves().drop_it()), (FORWARD, enters().drop_it())]);
    } else {
        rules.extend([
            (PUBLISH, rule().redirect_by_address(family, PUBLISHED_AT)),
            (PUBLISH, rule().redirect_by_port(family, PUBLISHED)),
        ]);
        rules.extend(redirecting_rules(family));
        if plan.masquerades {
            let leaving = rule().if_from_subnet(subnet).if_to_interface(Is::Different, bridge);
            rules.push((POSTROUTING, leaving.masquerade()));
        }
        if family == Family::Ipv4 {
            let local = rule().if_from_loopback().if_to_interface(Is::Equal, bridge);
            rules.push((POSTROUTING, local.masquerade()));
        }
        let hairpin = rule().if_from_subnet(subnet).if_to_interface(Is::Equal, bridge).if_redirected();
        rules.push((POSTROUTING, hairpin.masquerade()));
        rules.push((FORWARD, enters().if_new_connection().if_not_redirected().drop_it()));
    }
    if !plan.lets_neighbours_talk {
        let between = rule().if_to_interface(Is::Equal, bridge).if_from_interface(Is::Equal, bridge);
        rules.push((FORWARD, between.if_new_connection().if_not_redirected().drop_it()));
    }
    if family == Family::Ipv4 {
        let local = rule().if_from_interface(Is::Equal, bridge).if_to_loopback(family, Is::Equal);
        rules.push((GUARD, local.drop_it()));
    }
    rules
}

/// What reaches the maps of published ports.
fn redirecting_rules(family: Family) -> [(&'static str, Rule); 2] {
    let to_this_host = |rule: Rule| rule.if_to_this_host().jump(PUBLISH);
    // A neighbour may send packets for 127.0.0.1; only our own, in `output`, may be meant.
    let foreign = Rule::default().if_to_loopback(family, Is::Different);
    let own = match family {
        Family::Ipv4 => Rule::default(),
        // The kernel sends nothing from ::1 elsewhere: the socket that holds the port takes these.
        Family::Ipv6 => foreign.clone(),
    };
    [(PREROUTING, to_this_host(foreign)), (OUTPUT, to_this_host(own))]
}

/// The map a port belongs to, and its key there. Each part fills registers of four bytes.
fn key_of(bound: &BoundPort) -> (&'static str, Vec<u8>) {
    let protocol = word(&[bound.container_port.protocol.number()]);
    let port = word(&bound.host_port.to_be_bytes());
    match bound.host_ip.is_unspecified() {
        true => (PUBLISHED, [protocol, port].concat()),
        false => (PUBLISHED_AT, [octets(bound.host_ip), protocol.to_vec(), port.to_vec()].concat()),
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
    let words = |part: &u32| if *part == TYPE_IPV6_ADDRESS { Family::Ipv6.address_words() } else { 1 };
    WORD_BYTES * types.iter().map(words).sum::<u32>()
}

/// Turns "no such thing" into false.
fn found(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        // A kernel without a family has no tables of it.
        Err(error) if [Errno::NOENT, Errno::AFNOSUPPORT].iter().any(|none| is(&error, *none)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
