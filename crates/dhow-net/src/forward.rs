//! Carries what the kernel does not redirect (IPv6 to the host, above all) to the container.
//!
//! One thread waits for all published ports. A TCP connection gets two threads of its own, a UDP client a
//! socket of its own; both are bounded, and beyond the bound new ones are turned away.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::publish::{Holder, Reservation};
use crate::stop::{Stop, Worker};

const CONNECTIONS_MAX: usize = 256;
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(20);
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often an idle connection asks whether it should end.
const STOP_CHECK_PERIOD: Duration = Duration::from_secs(1);
const UDP_CLIENTS_MAX: usize = 256;
const UDP_IDLE_MAX: Duration = Duration::from_secs(90);
const COPY_BYTES: usize = 32 * 1024;
const DATAGRAM_BYTES_MAX: usize = 64 * 1024;
/// How many datagrams one socket may hand over before the others get their turn.
const DATAGRAMS_PER_TURN_MAX: usize = 64;

/// The address of the container everything is carried to, which changes with its networks.
#[derive(Clone, Debug)]
pub(crate) struct Address(Arc<Mutex<IpAddr>>);

impl Address {
    pub(crate) fn new(address: IpAddr) -> Self {
        Self(Arc::new(Mutex::new(address)))
    }

    pub(crate) fn set(&self, address: IpAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    fn get(&self) -> IpAddr {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A port of the container.
#[derive(Debug)]
struct Target {
    container: Address,
    port: u16,
}

impl Target {
    fn get(&self) -> SocketAddr {
        SocketAddr::new(self.container.get(), self.port)
    }
}

/// Starts to carry for all `reservations`; `None` when there is nothing to do.
pub(crate) fn start(reservations: Vec<Reservation>, container: &Address) -> io::Result<Option<Worker>> {
    let mut carriers = Vec::new();
    for Reservation { bound, holder } in reservations {
        let target = Target { container: container.clone(), port: bound.container_port.port };
        match holder {
            Holder::Tcp(listener) => carriers.push(Carrier::Tcp { listener, target, alive: Arc::new(()) }),
            Holder::Udp(socket) => {
                let last_target = target.get();
                carriers.push(Carrier::Udp(UdpCarrier {
                    socket,
                    target,
                    last_target,
                    clients: HashMap::new(),
                }));
            }
            Holder::Record => {}
        }
    }
    if carriers.is_empty() {
        return Ok(None);
    }
    Worker::start("ports", move |stop| carry(carriers, &stop)).map(Some)
}

enum Carrier {
    /// `alive` is shared with each connection, so its count bounds them.
    Tcp {
        listener: TcpListener,
        target: Target,
        alive: Arc<()>,
    },
    Udp(UdpCarrier),
}

fn carry(mut carriers: Vec<Carrier>, stop: &Arc<Stop>) {
    loop {
        let sockets: Vec<&dyn AsFd> = carriers.iter().flat_map(Carrier::sockets).collect();
        let idle_check = carriers.iter().any(Carrier::has_clients).then_some(UDP_IDLE_MAX);
        let Some(ready) = stop.wait(&sockets, idle_check) else { return };
        let mut ready = ready.into_iter();
        for carrier in &mut carriers {
            let count = carrier.sockets().len();
            let mine: Vec<bool> = ready.by_ref().take(count).collect();
            if mine.contains(&true) || carrier.has_clients() {
                carrier.turn(stop);
            }
        }
    }
}

impl Carrier {
    fn sockets(&self) -> Vec<&dyn AsFd> {
        match self {
            Self::Tcp { listener, .. } => vec![listener],
            Self::Udp(udp) => udp.sockets(),
        }
    }

    fn has_clients(&self) -> bool {
        matches!(self, Self::Udp(udp) if !udp.clients.is_empty())
    }

    fn turn(&mut self, stop: &Arc<Stop>) {
        match self {
            Self::Tcp { listener, target, alive } => accept(listener, target.get(), alive, stop),
            Self::Udp(udp) => udp.turn(),
        }
    }
}

/// Takes one connection. Failures concern that client alone, who sees it closed.
fn accept(listener: &TcpListener, target: SocketAddr, alive: &Arc<()>, stop: &Arc<Stop>) {
    let client = match listener.accept() {
        Ok((client, _)) => client,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
        // Out of descriptors, most likely: the listener stays ready, so give others time to close some.
        Err(_) => return thread::sleep(ACCEPT_RETRY_DELAY),
    };
    if Arc::strong_count(alive) > CONNECTIONS_MAX {
        return;
    }
    let (alive, stop) = (Arc::clone(alive), Arc::clone(stop));
    let relay = move || {
        // Either side may reset the connection at any moment; there is nobody to tell.
        let _ = relay(&client, target, &stop);
        drop(alive);
    };
    // Out of threads: the closure is dropped and with it the connection.
    let _ = thread::Builder::new().name("port".into()).spawn(relay);
}

fn relay(client: &TcpStream, target: SocketAddr, stop: &Stop) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let server = TcpStream::connect_timeout(&target, CONNECT_WAIT_MAX)?;
    for stream in [client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STOP_CHECK_PERIOD))?;
    }
    thread::scope(|scope| {
        scope.spawn(|| copy(client, &server, stop));
        copy(&server, client, stop);
    });
    Ok(())
}

/// Copies until the end, then passes the end on. An error ends both directions.
fn copy(from: &TcpStream, to: &TcpStream, stop: &Stop) {
    let mut buffer = vec![0; COPY_BYTES];
    let ended = loop {
        match { from }.read(&mut buffer) {
            Ok(0) => break to.shutdown(Shutdown::Write),
            Ok(count) => {
                if let Err(error) = { to }.write_all(&buffer[..count]) {
                    break Err(error);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !stop.is_rung() => {}
            Err(error) => break Err(error),
        }
    };
    if ended.is_err() {
        // A connection that is gone already cannot be shut down, which is what we want.
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}

struct UdpCarrier {
    socket: UdpSocket,
    target: Target,
    /// Where the clients' sockets lead.
    last_target: SocketAddr,
    clients: HashMap<SocketAddr, UdpClient>,
}

struct UdpClient {
    socket: UdpSocket,
    last_used: Instant,
}

impl UdpCarrier {
    fn sockets(&self) -> Vec<&dyn AsFd> {
        let mut sockets: Vec<&dyn AsFd> = vec![&self.socket];
        sockets.extend(self.clients.values().map(|client| &client.socket as &dyn AsFd));
        sockets
    }

    /// Datagrams may be lost: errors to send one are not worth more than that.
    fn turn(&mut self) {
        let now = Instant::now();
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let target = self.target.get();
        if target != self.last_target {
            self.last_target = target;
            self.clients.clear();
        }
        for _ in 0..DATAGRAMS_PER_TURN_MAX {
            let Ok((count, from)) = self.socket.recv_from(&mut buffer) else { break };
            if let Some(client) = self.client(from, now) {
                client.last_used = now;
                let _ = client.socket.send(&buffer[..count]);
            }
        }
        for (address, client) in &mut self.clients {
            for _ in 0..DATAGRAMS_PER_TURN_MAX {
                let Ok(count) = client.socket.recv(&mut buffer) else { break };
                client.last_used = now;
                let _ = self.socket.send_to(&buffer[..count], address);
            }
        }
        self.clients.retain(|_, client| now.duration_since(client.last_used) < UDP_IDLE_MAX);
    }

    fn client(&mut self, from: SocketAddr, now: Instant) -> Option<&mut UdpClient> {
        if !self.clients.contains_key(&from) {
            if self.clients.len() >= UDP_CLIENTS_MAX {
                return None;
            }
            let socket = connected(self.last_target).ok()?;
            self.clients.insert(from, UdpClient { socket, last_used: now });
        }
        self.clients.get_mut(&from)
    }
}

fn connected(target: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(target)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
