//! Asking the host's resolvers, over UDP without waiting and over TCP with a deadline.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// How long one server may think about a name.
pub(super) const SERVER_WAIT_MAX: Duration = Duration::from_secs(2);
/// How long it may think about a name without a dot, which hardly any server knows.
const SINGLE_LABEL_WAIT_MAX: Duration = Duration::from_millis(500);
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;
const RESPONSE_CODE_MASK: u8 = 0x0f;
const SERVER_FAILURE: u8 = 2;
const REFUSED: u8 = 5;

/// A UDP query on its way. Each has a socket, hence a source port, of its own: that is what makes an
/// answer hard to forge.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) client: SocketAddr,
    pub(super) is_single_label: bool,
    pub(super) deadline: Instant,
    query: Vec<u8>,
    on_failure: Vec<u8>,
    socket: UdpSocket,
    servers_left: Vec<SocketAddr>,
}

/// How a query stands.
#[derive(Debug)]
pub(super) enum Progress {
    /// A server still thinks.
    Waiting,
    /// A server answered.
    Answered(Vec<u8>),
    /// No server gave an answer of use; this is what to say instead.
    Failed(Vec<u8>),
}

/// A query as it came and what is known about it.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) client: SocketAddr,
    pub(super) query: Vec<u8>,
    pub(super) on_failure: Vec<u8>,
    pub(super) is_single_label: bool,
}

impl Pending {
    /// Asks the first of `servers` that can be sent to; gives the failure reply back if there is none.
    pub(super) fn ask(question: Question, servers: &[SocketAddr], now: Instant) -> Result<Self, Vec<u8>> {
        let mut servers_left: Vec<SocketAddr> = servers.iter().rev().copied().collect();
        let Question { client, query, on_failure, is_single_label } = question;
        match send_to_next(&query, &mut servers_left) {
            Some(socket) => {
                let deadline = now + wait_max(is_single_label);
                Ok(Self { client, is_single_label, deadline, query, on_failure, socket, servers_left })
            }
            None => Err(on_failure),
        }
    }

    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Reads what came, and goes on to the next server if that was bad or the time is over.
    pub(super) fn advance(&mut self, now: Instant) -> Progress {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        match self.socket.recv(&mut buffer) {
            Ok(count) if !self.is_answer(&buffer[..count]) => Progress::Waiting,
            Ok(count) if is_refusal(&buffer[..count]) => self.ask_next(now, Some(buffer[..count].to_vec())),
            Ok(count) => Progress::Answered(buffer[..count].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && now < self.deadline => {
                Progress::Waiting
            }
            Err(_) => self.ask_next(now, None),
        }
    }

    /// Same id: anything else is not for us.
    fn is_answer(&self, bytes: &[u8]) -> bool {
        bytes.len() > 3 && bytes[..2] == self.query[..2]
    }

    fn ask_next(&mut self, now: Instant, refusal: Option<Vec<u8>>) -> Progress {
        if let Some(socket) = send_to_next(&self.query, &mut self.servers_left) {
            self.socket = socket;
            self.deadline = now + wait_max(self.is_single_label);
            return Progress::Waiting;
        }
        match refusal {
            Some(refusal) if !self.is_single_label => Progress::Answered(refusal),
            _ => Progress::Failed(std::mem::take(&mut self.on_failure)),
        }
    }
}

fn wait_max(is_single_label: bool) -> Duration {
    if is_single_label { SINGLE_LABEL_WAIT_MAX } else { SERVER_WAIT_MAX }
}

/// The server has the query but will not or cannot say; another one may.
fn is_refusal(answer: &[u8]) -> bool {
    matches!(answer[3] & RESPONSE_CODE_MASK, SERVER_FAILURE | REFUSED)
}

fn send_to_next(query: &[u8], servers_left: &mut Vec<SocketAddr>) -> Option<UdpSocket> {
    while let Some(server) = servers_left.pop() {
        if let Ok(socket) = send(query, server) {
            return Some(socket);
        }
    }
    None
}

fn send(query: &[u8], server: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    socket.send(query)?;
    Ok(socket)
}

/// Asks over TCP, server by server. `None` if no one answers.
pub(super) fn ask_over_tcp(query: &[u8], servers: &[SocketAddr]) -> Option<Vec<u8>> {
    servers.iter().find_map(|server| {
        let mut stream = TcpStream::connect_timeout(server, SERVER_WAIT_MAX).ok()?;
        set_deadlines(&stream).ok()?;
        write_message(&mut stream, query).ok()?;
        read_message(&mut stream).ok()
    })
}

pub(super) fn set_deadlines(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(SERVER_WAIT_MAX))?;
    stream.set_write_timeout(Some(SERVER_WAIT_MAX))
}

/// Reads one message with its length in front.
pub(super) fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// Writes one message with its length in front.
pub(super) fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat())
}
