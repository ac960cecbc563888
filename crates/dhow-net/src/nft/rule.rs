//! Rules as the kernel's little machine runs them: each expression loads, compares or acts on registers.

use std::net::{IpAddr, Ipv6Addr};

use super::Family;
use super::wire::Attributes;
use crate::subnet::Subnet;

const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

const PAYLOAD_NETWORK_HEADER: u32 = 1;
const PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const DESTINATION_PORT_OFFSET: u32 = 2;

const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATE_NEW: u32 = 8;
const CT_STATUS: u32 = 2;
const CT_STATUS_DNAT: u32 = 0x20;
const FIB_ADDRESS_TYPE: u32 = 3;
const FIB_OF_DESTINATION: u32 = 2;
const ADDRESS_TYPE_LOCAL: u32 = 2;
const NAT_DESTINATION: u32 = 1;
const VERDICT_DROP: u32 = 0;
const VERDICT_JUMP: u32 = -3_i32 as u32;
const INTERFACE_NAME_BYTES: usize = 16;
const LOOPBACK_FIRST_BYTE: u8 = 127;

/// The verdict; not a place for data.
const REGISTER_VERDICT: u32 = 0;
/// The first register of 16 bytes.
const REGISTER: u32 = 1;
/// The first register of 4 bytes, which is the head of [`REGISTER`]. Those after it have the numbers after it.
const REGISTER_WORD_0: u32 = 8;

#[derive(Clone, Copy)]
pub(super) enum Is {
    Equal,
    Different,
}

/// A rule under construction: conditions, then what to do.
#[derive(Clone, Default)]
pub(super) struct Rule(Attributes);

impl Rule {
    pub(super) fn expressions(&self) -> &Attributes {
        &self.0
    }

    fn expression(self, name: &str, data: &Attributes) -> Self {
        let expression = Attributes::default().text(EXPRESSION_NAME, name).nested(EXPRESSION_DATA, data);
        Self(self.0.nested(LIST_ELEMENT, &expression))
    }

    fn load_payload(self, register: u32, base: u32, offset: u32, length: u32) -> Self {
        let data = Attributes::default().u32(1, register).u32(2, base).u32(3, offset).u32(4, length);
        self.expression("payload", &data)
    }

    fn load_meta(self, register: u32, key: u32) -> Self {
        self.expression("meta", &Attributes::default().u32(1, register).u32(2, key))
    }

    fn compare(self, is: Is, value: &[u8]) -> Self {
        let value = Attributes::default().bytes(DATA_VALUE, value);
        self.expression("cmp", &Attributes::default().u32(1, REGISTER).u32(2, is as u32).nested(3, &value))
    }

    /// Loads a word of connection tracking and keeps some bits. They are numbers in the host's order.
    fn conntrack_bits(self, key: u32, bits: u32, is: Is) -> Self {
        let mask = Attributes::default().bytes(DATA_VALUE, &bits.to_ne_bytes());
        let xor = Attributes::default().bytes(DATA_VALUE, &[0; 4]);
        let and = Attributes::default()
            .u32(1, REGISTER)
            .u32(2, REGISTER)
            .u32(3, 4)
            .nested(4, &mask)
            .nested(5, &xor);
        self.expression("ct", &Attributes::default().u32(1, REGISTER).u32(2, key))
            .expression("bitwise", &and)
            .compare(is, &[0; 4])
    }

    pub(super) fn if_from_interface(self, is: Is, name: &str) -> Self {
        self.load_meta(REGISTER, META_IIFNAME).compare(is, &interface_name(name))
    }

    pub(super) fn if_to_interface(self, is: Is, name: &str) -> Self {
        self.load_meta(REGISTER, META_OIFNAME).compare(is, &interface_name(name))
    }

    fn load_source(self, family: Family, length: u32) -> Self {
        self.load_payload(REGISTER, PAYLOAD_NETWORK_HEADER, family.source_offset(), length)
    }

    fn load_destination(self, family: Family, length: u32) -> Self {
        self.load_payload(REGISTER, PAYLOAD_NETWORK_HEADER, family.destination_offset(), length)
    }

    pub(super) fn if_from_subnet(self, subnet: Subnet) -> Self {
        let family = Family::of(subnet.address());
        let length = family.address_bytes();
        let mask = Attributes::default().bytes(DATA_VALUE, &octets(subnet.netmask()));
        let xor = Attributes::default().bytes(DATA_VALUE, &vec![0; length as usize]);
        let and = Attributes::default()
            .u32(1, REGISTER)
            .u32(2, REGISTER)
            .u32(3, length)
            .nested(4, &mask)
            .nested(5, &xor);
        self.load_source(family, length)
            .expression("bitwise", &and)
            .compare(Is::Equal, &octets(subnet.address()))
    }

    /// Comes from 127.0.0.0/8. What claims to come from ::1 is dropped by the kernel.
    pub(super) fn if_from_loopback(self) -> Self {
        self.load_source(Family::Ipv4, 1).compare(Is::Equal, &[LOOPBACK_FIRST_BYTE])
    }

    /// Goes to 127.0.0.0/8, or to ::1.
    pub(super) fn if_to_loopback(self, family: Family, is: Is) -> Self {
        match family {
            Family::Ipv4 => self.load_destination(family, 1).compare(is, &[LOOPBACK_FIRST_BYTE]),
            Family::Ipv6 => self
                .load_destination(family, family.address_bytes())
                .compare(is, &Ipv6Addr::LOCALHOST.octets()),
        }
    }

    pub(super) fn if_to_address(self, address: IpAddr) -> Self {
        let family = Family::of(address);
        self.load_destination(family, family.address_bytes()).compare(Is::Equal, &octets(address))
    }

    /// The destination is an address of this host.
    pub(super) fn if_to_this_host(self) -> Self {
        let fib = Attributes::default().u32(1, REGISTER).u32(2, FIB_ADDRESS_TYPE).u32(3, FIB_OF_DESTINATION);
        self.expression("fib", &fib).compare(Is::Equal, &ADDRESS_TYPE_LOCAL.to_ne_bytes())
    }

    pub(super) fn if_to_port(self, protocol: u8, port: u16) -> Self {
        self.load_meta(REGISTER, META_L4PROTO)
            .compare(Is::Equal, &[protocol])
            .load_payload(REGISTER, PAYLOAD_TRANSPORT_HEADER, DESTINATION_PORT_OFFSET, 2)
            .compare(Is::Equal, &port.to_be_bytes())
    }

    pub(super) fn if_new_connection(self) -> Self {
        self.conntrack_bits(CT_STATE, CT_STATE_NEW, Is::Different)
    }

    pub(super) fn if_redirected(self) -> Self {
        self.conntrack_bits(CT_STATUS, CT_STATUS_DNAT, Is::Different)
    }

    pub(super) fn if_not_redirected(self) -> Self {
        self.conntrack_bits(CT_STATUS, CT_STATUS_DNAT, Is::Equal)
    }

    /// Rewrites the destination to what `map` has for (address, protocol, port).
    pub(super) fn redirect_by_address(self, family: Family, map: &str) -> Self {
        let after = REGISTER_WORD_0 + family.address_words();
        self.load_destination(family, family.address_bytes())
            .load_meta(after, META_L4PROTO)
            .load_payload(after + 1, PAYLOAD_TRANSPORT_HEADER, DESTINATION_PORT_OFFSET, 2)
            .look_up(map)
            .rewrite_destination(family)
    }

    /// Rewrites the destination to what `map` has for (protocol, port).
    pub(super) fn redirect_by_port(self, family: Family, map: &str) -> Self {
        self.load_meta(REGISTER, META_L4PROTO)
            .load_payload(REGISTER_WORD_0 + 1, PAYLOAD_TRANSPORT_HEADER, DESTINATION_PORT_OFFSET, 2)
            .look_up(map)
            .rewrite_destination(family)
    }

    /// Rewrites the destination port and keeps the address `address`.
    pub(super) fn redirect_to(self, address: IpAddr, port: u16) -> Self {
        let family = Family::of(address);
        let immediate = |register, value: &[u8]| {
            let value = Attributes::default().bytes(DATA_VALUE, value);
            Attributes::default().u32(1, register).nested(2, &value)
        };
        self.expression("immediate", &immediate(REGISTER, &octets(address)))
            .expression(
                "immediate",
                &immediate(REGISTER_WORD_0 + family.address_words(), &port.to_be_bytes()),
            )
            .rewrite_destination(family)
    }

    fn look_up(self, map: &str) -> Self {
        self.expression("lookup", &Attributes::default().text(1, map).u32(2, REGISTER).u32(3, REGISTER))
    }

    /// The address is at the head of [`REGISTER`], the port in the word after it.
    fn rewrite_destination(self, family: Family) -> Self {
        let nat = Attributes::default()
            .u32(1, NAT_DESTINATION)
            .u32(2, family.number().into())
            .u32(3, REGISTER)
            .u32(5, REGISTER_WORD_0 + family.address_words());
        self.expression("nat", &nat)
    }

    /// Sends it out under the address of the interface it leaves by.
    pub(super) fn masquerade(self) -> Self {
        self.expression("masq", &Attributes::default())
    }

    pub(super) fn drop_it(self) -> Self {
        self.verdict(&Attributes::default().u32(1, VERDICT_DROP))
    }

    pub(super) fn jump(self, chain: &str) -> Self {
        self.verdict(&Attributes::default().u32(1, VERDICT_JUMP).text(2, chain))
    }

    fn verdict(self, verdict: &Attributes) -> Self {
        let data = Attributes::default().nested(DATA_VERDICT, verdict);
        self.expression("immediate", &Attributes::default().u32(1, REGISTER_VERDICT).nested(2, &data))
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Names are compared whole, padded with zeros.
fn interface_name(name: &str) -> [u8; INTERFACE_NAME_BYTES] {
    let mut padded = [0; INTERFACE_NAME_BYTES];
    let length = name.len().min(INTERFACE_NAME_BYTES - 1);
    padded[..length].copy_from_slice(&name.as_bytes()[..length]);
    padded
}
