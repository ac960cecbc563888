//! Rules as the kernel's little machine runs them: each expression loads, compares or acts on registers.

use std::net::Ipv4Addr;

use super::wire::Attributes;
use crate::subnet::Subnet;

const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

const PAYLOAD_NETWORK_HEADER: u32 = 1;
const PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const IPV4_SOURCE_OFFSET: u32 = 12;
const IPV4_DESTINATION_OFFSET: u32 = 16;
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
/// The second to third register of 4 bytes; the first is the head of [`REGISTER`].
const REGISTER_WORD_1: u32 = 9;
const REGISTER_WORD_2: u32 = 10;

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

    pub(super) fn if_from_subnet(self, subnet: Subnet) -> Self {
        let mask = Attributes::default().bytes(DATA_VALUE, &subnet.netmask().octets());
        let xor = Attributes::default().bytes(DATA_VALUE, &[0; 4]);
        let and = Attributes::default()
            .u32(1, REGISTER)
            .u32(2, REGISTER)
            .u32(3, 4)
            .nested(4, &mask)
            .nested(5, &xor);
        self.load_payload(REGISTER, PAYLOAD_NETWORK_HEADER, IPV4_SOURCE_OFFSET, 4)
            .expression("bitwise", &and)
            .compare(Is::Equal, &subnet.address().octets())
    }

    pub(super) fn if_from_loopback(self) -> Self {
        self.load_payload(REGISTER, PAYLOAD_NETWORK_HEADER, IPV4_SOURCE_OFFSET, 1)
            .compare(Is::Equal, &[LOOPBACK_FIRST_BYTE])
    }

    pub(super) fn if_to_loopback(self, is: Is) -> Self {
        self.load_payload(REGISTER, PAYLOAD_NETWORK_HEADER, IPV4_DESTINATION_OFFSET, 1)
            .compare(is, &[LOOPBACK_FIRST_BYTE])
    }

    pub(super) fn if_to_address(self, address: Ipv4Addr) -> Self {
        self.load_payload(REGISTER, PAYLOAD_NETWORK_HEADER, IPV4_DESTINATION_OFFSET, 4)
            .compare(Is::Equal, &address.octets())
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
    pub(super) fn redirect_by_address(self, map: &str) -> Self {
        self.load_payload(REGISTER, PAYLOAD_NETWORK_HEADER, IPV4_DESTINATION_OFFSET, 4)
            .load_meta(REGISTER_WORD_1, META_L4PROTO)
            .load_payload(REGISTER_WORD_2, PAYLOAD_TRANSPORT_HEADER, DESTINATION_PORT_OFFSET, 2)
            .look_up(map)
            .rewrite_destination()
    }

    /// Rewrites the destination to what `map` has for (protocol, port).
    pub(super) fn redirect_by_port(self, map: &str) -> Self {
        self.load_meta(REGISTER, META_L4PROTO)
            .load_payload(REGISTER_WORD_1, PAYLOAD_TRANSPORT_HEADER, DESTINATION_PORT_OFFSET, 2)
            .look_up(map)
            .rewrite_destination()
    }

    /// Rewrites the destination port and keeps the address `address`.
    pub(super) fn redirect_to(self, address: Ipv4Addr, port: u16) -> Self {
        let immediate = |register, value: &[u8]| {
            let value = Attributes::default().bytes(DATA_VALUE, value);
            Attributes::default().u32(1, register).nested(2, &value)
        };
        self.expression("immediate", &immediate(REGISTER, &address.octets()))
            .expression("immediate", &immediate(REGISTER_WORD_1, &port.to_be_bytes()))
            .rewrite_destination()
    }

    fn look_up(self, map: &str) -> Self {
        self.expression("lookup", &Attributes::default().text(1, map).u32(2, REGISTER).u32(3, REGISTER))
    }

    /// The address is at the head of [`REGISTER`], the port in the word after it.
    fn rewrite_destination(self) -> Self {
        let nat = Attributes::default()
            .u32(1, NAT_DESTINATION)
            .u32(2, super::FAMILY_IPV4)
            .u32(3, REGISTER)
            .u32(5, REGISTER_WORD_1);
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

/// Names are compared whole, padded with zeros.
fn interface_name(name: &str) -> [u8; INTERFACE_NAME_BYTES] {
    let mut padded = [0; INTERFACE_NAME_BYTES];
    let length = name.len().min(INTERFACE_NAME_BYTES - 1);
    padded[..length].copy_from_slice(&name.as_bytes()[..length]);
    padded
}
