//! The byte format of nfnetlink: messages, nested attributes, transactions.
//!
//! Numbers in nf_tables attributes are big-endian, lengths in netlink headers are the host's. The
//! constants are the kernel's, from `linux/netfilter/nfnetlink.h` and `nf_tables.h`.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

const NLMSG_ERROR: u16 = 2;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM_NFTABLES: u16 = 10;
const FLAG_REQUEST: u16 = 0x1;
const FLAG_ACK: u16 = 0x4;
const FLAG_NESTED: u16 = 0x8000;
const HEADER_BYTES: usize = 16;
const FAMILY_UNSPEC: u8 = 0;
const MSG_DONTWAIT: i32 = rustix::net::RecvFlags::DONTWAIT.bits() as i32;

/// Answers are acknowledgements and errors; an error quotes its request.
const RECEIVE_BYTES_MAX: usize = 128 * 1024;

/// Bytes under construction: a sequence of attributes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(4 + value.len()).expect("an attribute is far below 64 KiB");
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), b"\0"].concat())
    }

    pub(crate) fn nested(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | FLAG_NESTED, &inner.0)
    }
}

/// Changes that are made all together or not at all.
#[derive(Debug)]
pub(crate) struct Batch {
    family: u8,
    bytes: Vec<u8>,
    messages: u32,
}

impl Batch {
    /// An empty one for tables of this family.
    pub(crate) fn new(family: u8) -> Self {
        let mut batch = Self { family, bytes: Vec::new(), messages: 0 };
        batch.message(BATCH_BEGIN, FLAG_REQUEST, &nfgen(FAMILY_UNSPEC, SUBSYSTEM_NFTABLES), &[]);
        batch
    }

    /// Adds one nf_tables message.
    pub(crate) fn push(&mut self, kind: u16, flags: u16, attributes: &Attributes) {
        let kind = SUBSYSTEM_NFTABLES << 8 | kind;
        self.message(kind, FLAG_REQUEST | FLAG_ACK | flags, &nfgen(self.family, 0), &attributes.0);
    }

    fn message(&mut self, kind: u16, flags: u16, family: &[u8; 4], attributes: &[u8]) {
        let length = HEADER_BYTES + family.len() + attributes.len();
        self.bytes.extend(u32::try_from(length).expect("a message is far below 4 GiB").to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.messages.to_ne_bytes());
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend(family);
        self.bytes.extend(attributes);
        self.messages += 1;
    }

    /// Has the kernel carry it out. The first complaint is the error.
    pub(crate) fn commit(mut self) -> io::Result<()> {
        self.message(BATCH_END, FLAG_REQUEST, &nfgen(FAMILY_UNSPEC, SUBSYSTEM_NFTABLES), &[]);
        exchange(&self.bytes)
    }
}

/// Asks a single question that changes nothing; success means the thing exists.
pub(crate) fn query(family: u8, kind: u16, attributes: &Attributes) -> io::Result<()> {
    let mut question = Batch { family, bytes: Vec::new(), messages: 0 };
    question.push(kind, 0, attributes);
    exchange(&question.bytes)
}

fn nfgen(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn exchange(bytes: &[u8]) -> io::Result<()> {
    let socket = Socket::new(NETLINK_NETFILTER)?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(bytes, 0)?;
    // The kernel has carried the batch out when `send` returns: all answers are queued by now.
    loop {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES_MAX);
        match socket.recv(&mut buffer, MSG_DONTWAIT) {
            Ok(_) => check_answers(&buffer)?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn check_answers(mut rest: &[u8]) -> io::Result<()> {
    while rest.len() >= HEADER_BYTES {
        let length = u32::from_ne_bytes(rest[0..4].try_into().expect("four bytes")) as usize;
        let kind = u16::from_ne_bytes(rest[4..6].try_into().expect("two bytes"));
        if kind == NLMSG_ERROR && rest.len() >= HEADER_BYTES + 4 {
            let code = i32::from_ne_bytes(rest[16..20].try_into().expect("four bytes"));
            if code != 0 {
                return Err(io::Error::from_raw_os_error(-code));
            }
        }
        rest = &rest[length.max(HEADER_BYTES).next_multiple_of(4).min(rest.len())..];
    }
    Ok(())
}
