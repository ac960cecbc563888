//! The name server of a container.
//!
//! Its sockets are opened inside the container's network namespace and served by a thread outside, so
//! that it can ask the host's resolvers, also those on the host's loopback. It knows the names of the
//! container's networks, as far as those have names, and forwards everything else, unless the container has no way
//! out: then nobody shall carry messages for it in names. It always answers: a name
//! without a dot that nobody knows does not exist, and says so at once, because programs wait for that
//! (a web page that wonders whether there is a `redis`).

mod answer;
mod upstream;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use answer::NamedNetwork;
use answer::{Decision, decide};
use upstream::{Pending, Progress, Question, ask_over_tcp, read_message, set_deadlines, write_message};

use crate::files::DNS_ADDRESS;
use crate::port::Protocol;
use crate::stop::{Stop, Worker};

const IN_FLIGHT_MAX: usize = 128;
const TCP_CLIENTS_MAX: usize = 16;
const QUERIES_PER_CONNECTION_MAX: usize = 100;
const QUERIES_PER_TURN_MAX: usize = 64;
const QUERY_BYTES_MAX: usize = 4096;
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(20);
/// After all servers were silent, names without a dot are not worth waiting for during this time.
const SILENCE_REMEMBERED: Duration = Duration::from_secs(10);

/// The sockets a container's queries arrive at.
#[derive(Debug)]
pub(crate) struct DnsSockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl DnsSockets {
    /// Opens them in the network namespace of the calling thread, at `port` or any free one (0).
    pub(crate) fn open(port: u16) -> io::Result<Self> {
        let sockets =
            Self { udp: UdpSocket::bind((DNS_ADDRESS, port))?, tcp: TcpListener::bind((DNS_ADDRESS, port))? };
        sockets.udp.set_nonblocking(true)?;
        sockets.tcp.set_nonblocking(true)?;
        Ok(sockets)
    }

    /// Where they are, by protocol number.
    pub(crate) fn ports(&self) -> io::Result<[(u8, u16); 2]> {
        let udp = (Protocol::Udp.number(), self.udp.local_addr()?.port());
        let tcp = (Protocol::Tcp.number(), self.tcp.local_addr()?.port());
        Ok([udp, tcp])
    }

    /// Starts to answer what arrives.
    pub(crate) fn serve(self, servers: Vec<SocketAddr>, networks: KnownNetworks) -> io::Result<Worker> {
        Worker::start("dns", move |stop| {
            let known = Arc::new(Known { servers, networks });
            let clients = Arc::new(());
            Server { sockets: self, known, pending: Vec::new(), silent_until: None, clients }.run(&stop);
        })
    }
}

/// The networks a container is on, which change while it is asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownNetworks(Arc<RwLock<NetworkList>>);

#[derive(Debug, Default)]
struct NetworkList {
    named: Vec<NamedNetwork>,
    has_way_out: bool,
}

impl KnownNetworks {
    /// Those with names, in the order in which they are asked, and whether any of them leads out.
    pub(crate) fn set(&self, named: Vec<NamedNetwork>, has_way_out: bool) {
        let mut list = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *list = NetworkList { named, has_way_out };
    }

    fn named(&self) -> Vec<NamedNetwork> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).named.clone()
    }

    fn has_way_out(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).has_way_out
    }
}

/// What answers come from.
struct Known {
    servers: Vec<SocketAddr>,
    networks: KnownNetworks,
}

impl Known {
    fn decide(&self, query: &[u8]) -> Decision {
        decide(query, self.networks.named().as_slice())
    }

    /// Who may be asked what we do not know.
    fn servers(&self) -> &[SocketAddr] {
        if self.networks.has_way_out() { &self.servers } else { &[] }
    }
}

struct Server {
    sockets: DnsSockets,
    known: Arc<Known>,
    pending: Vec<Pending>,
    silent_until: Option<Instant>,
    /// Shared with each TCP connection, so its count bounds them.
    clients: Arc<()>,
}

impl Server {
    fn run(mut self, stop: &Stop) {
        loop {
            let mut sockets: Vec<&dyn AsFd> = vec![&self.sockets.udp, &self.sockets.tcp];
            sockets.extend(self.pending.iter().map(|pending| pending.socket() as &dyn AsFd));
            let deadline = self.pending.iter().map(|pending| pending.deadline).min();
            let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let Some(ready) = stop.wait(&sockets, timeout) else { return };
            let now = Instant::now();
            self.advance_pending(&ready[2..], now);
            if ready[0] {
                self.take_queries(now);
            }
            if ready[1] {
                self.take_connection();
            }
        }
    }

    /// Sends on what servers answered. `ready` tells which of them have.
    fn advance_pending(&mut self, ready: &[bool], now: Instant) {
        let mut still_pending = Vec::with_capacity(self.pending.len());
        for (mut pending, ready) in std::mem::take(&mut self.pending).into_iter().zip(ready) {
            if !ready && now < pending.deadline {
                still_pending.push(pending);
                continue;
            }
            match pending.advance(now) {
                Progress::Waiting => still_pending.push(pending),
                Progress::Answered(reply) => {
                    self.silent_until = None;
                    self.reply(&reply, pending.client);
                }
                Progress::Failed(reply) => {
                    self.silent_until = Some(now + SILENCE_REMEMBERED);
                    self.reply(&reply, pending.client);
                }
            }
        }
        self.pending = still_pending;
    }

    fn take_queries(&mut self, now: Instant) {
        let mut buffer = vec![0; QUERY_BYTES_MAX];
        for _ in 0..QUERIES_PER_TURN_MAX {
            let Ok((count, client)) = self.sockets.udp.recv_from(&mut buffer) else { return };
            match self.known.decide(&buffer[..count]) {
                Decision::Ignore => {}
                Decision::Reply(reply) => self.reply(&reply, client),
                Decision::Forward { on_failure, is_single_label } => {
                    let query = buffer[..count].to_vec();
                    self.forward(Question { client, query, on_failure, is_single_label }, now);
                }
            }
        }
    }

    fn forward(&mut self, question: Question, now: Instant) {
        let is_silent = self.silent_until.is_some_and(|until| now < until);
        if self.pending.len() >= IN_FLIGHT_MAX || question.is_single_label && is_silent {
            self.reply(&question.on_failure, question.client);
            return;
        }
        let client = question.client;
        match Pending::ask(question, self.known.servers(), now) {
            Ok(pending) => self.pending.push(pending),
            Err(on_failure) => self.reply(&on_failure, client),
        }
    }

    /// A client that is gone needs no answer.
    fn reply(&self, reply: &[u8], client: SocketAddr) {
        let _ = self.sockets.udp.send_to(reply, client);
    }

    fn take_connection(&self) {
        let stream = match self.sockets.tcp.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => return thread::sleep(ACCEPT_RETRY_DELAY),
        };
        if Arc::strong_count(&self.clients) > TCP_CLIENTS_MAX {
            return;
        }
        let (known, alive) = (Arc::clone(&self.known), Arc::clone(&self.clients));
        let serve = move || {
            // The client hangs up when it has its answers, or is silent for too long.
            let _ = serve_connection(stream, &known);
            drop(alive);
        };
        // Out of threads: the client sees the connection closed.
        let _ = thread::Builder::new().name("dns-tcp".into()).spawn(serve);
    }
}

fn serve_connection(mut stream: TcpStream, known: &Known) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    set_deadlines(&stream)?;
    for _ in 0..QUERIES_PER_CONNECTION_MAX {
        let query = read_message(&mut stream)?;
        match known.decide(&query) {
            Decision::Ignore => return Ok(()),
            Decision::Reply(reply) => write_message(&mut stream, &reply)?,
            Decision::Forward { on_failure, .. } => {
                let reply = ask_over_tcp(&query, known.servers()).unwrap_or(on_failure);
                write_message(&mut stream, &reply)?;
            }
        }
    }
    Ok(())
}
