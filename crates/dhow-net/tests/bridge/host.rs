//! A pretend host for a test: network namespaces of its own, with a world behind an uplink.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::thread;
use std::time::Duration;

use dhow_net::{Attached, ConnectError, EndpointSpec, NetConfig, PortMapping, Sandbox, SandboxSpec};
use dhow_sys::netns;

/// The pretend host's address on its uplink.
pub(crate) const HOST_ADDRESS: &str = "192.0.2.2";
/// Somebody on the other end of it.
pub(crate) const WORLD_ADDRESS: &str = "192.0.2.1";
pub(crate) const UPLINK_MTU: u32 = 1400;
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(3);

/// Who has not answered by now will not.
pub(crate) const SILENCE_MIN: Duration = Duration::from_millis(500);

/// Enough for what a test sends.
const MESSAGE_BYTES_MAX: usize = 512;

pub(crate) struct Host {
    pub(crate) config: NetConfig,
    world: OwnedFd,
    _run_dir: tempfile::TempDir,
}

/// A network namespace that plays a container, on the network as long as it is not dropped.
pub(crate) struct Container {
    pub(crate) netns: OwnedFd,
    pub(crate) sandbox: Sandbox,
}

/// What a container wants.
#[derive(Clone, Default)]
pub(crate) struct Spec {
    pub(crate) endpoint: EndpointSpec,
    pub(crate) sandbox: SandboxSpec,
}

/// Runs `test` on a host of its own, or says why not.
pub(crate) fn on_host(test: impl FnOnce(&Host) + Send) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return;
    }
    let here = netns::create().unwrap();
    let world = netns::create().unwrap();
    netns::in_netns(here.as_fd(), || {
        let host = Host::new(world);
        test(&host);
        dhow_net::remove_network(&host.config).unwrap();
    })
    .unwrap();
}

impl Host {
    fn new(world: OwnedFd) -> Self {
        let mtu = UPLINK_MTU.to_string();
        sh("ip link set lo up");
        sh(&format!("ip link add uplink mtu {mtu} type veth peer name outside"));
        sh(&format!("ip addr add {HOST_ADDRESS}/24 dev uplink && ip link set uplink up"));
        let fd = std::os::fd::AsRawFd::as_raw_fd(&world);
        sh(&format!("ip link set outside netns /proc/{}/fd/{fd}", std::process::id()));
        sh(&format!("ip route add default via {WORLD_ADDRESS}"));
        netns::in_netns(world.as_fd(), || {
            sh(&format!("ip addr add {WORLD_ADDRESS}/24 dev outside && ip link set outside up"));
        })
        .unwrap();
        let run_dir = tempfile::tempdir().unwrap();
        Self { config: NetConfig::default_bridge(run_dir.path()), world, _run_dir: run_dir }
    }

    pub(crate) fn in_world<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::in_netns(self.world.as_fd(), work).unwrap()
    }

    pub(crate) fn connect(&self, id: &str, publish: &[&str]) -> Container {
        self.try_connect(&spec(id, publish)).unwrap()
    }

    pub(crate) fn try_connect(&self, spec: &Spec) -> Result<Container, ConnectError> {
        connect(&self.config, spec)
    }

    /// How many published ports the kernel redirects, and how many devices hang on the bridge.
    pub(crate) fn traces(&self) -> (usize, usize) {
        let rules = output(&format!("nft list table ip {}", self.config.table));
        let devices = output(&format!("ip -o link show master {}", self.config.bridge));
        (rules.matches(" : 172.").count(), devices.lines().count())
    }
}

pub(crate) fn connect(config: &NetConfig, spec: &Spec) -> Result<Container, ConnectError> {
    let netns = netns::create().unwrap();
    let mut sandbox = Sandbox::open(spec.sandbox.clone(), netns.as_fd())?;
    sandbox.connect(&[(config.clone(), spec.endpoint.clone())])?;
    Ok(Container { netns, sandbox })
}

impl Container {
    /// Its place on the network that leads out.
    pub(crate) fn attached(&self) -> &Attached {
        self.sandbox.attached().next().unwrap()
    }

    pub(crate) fn ip(&self) -> Ipv4Addr {
        self.attached().ip.unwrap()
    }

    pub(crate) fn gateway(&self) -> String {
        self.attached().gateway.unwrap().to_string()
    }

    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::in_netns(self.netns.as_fd(), work).unwrap()
    }

    /// Serves one TCP client after the other: tells each its own address as seen from here.
    pub(crate) fn serve_tcp(&self, port: u16) {
        let listener = self.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        serve_tcp(listener);
    }

    /// The same for UDP.
    pub(crate) fn serve_udp(&self, port: u16) {
        let socket = self.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        thread::spawn(move || {
            let mut buffer = [0; MESSAGE_BYTES_MAX];
            while let Ok((count, client)) = socket.recv_from(&mut buffer) {
                socket.send_to(&[b"echo ", &buffer[..count]].concat(), client).unwrap();
            }
        });
    }
}

pub(crate) fn serve_tcp(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let client = stream.peer_addr().unwrap().ip();
            // A client that hung up early is its own test's business.
            let _ = stream.write_all(client.to_string().as_bytes());
        }
    });
}

/// Connects and returns all the server says, or what went wrong.
pub(crate) fn fetch(address: &str) -> Result<String, String> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream =
        TcpStream::connect_timeout(&address, WAIT_MAX).map_err(|error| error.kind().to_string())?;
    stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|error| error.kind().to_string())?;
    Ok(text)
}

pub(crate) fn is_reachable(address: &str) -> bool {
    TcpStream::connect_timeout(&address.parse().unwrap(), SILENCE_MIN).is_ok()
}

/// Sends one datagram and returns the answer.
pub(crate) fn ask_udp(address: &str, message: &[u8]) -> Option<Vec<u8>> {
    let address: SocketAddr = address.parse().unwrap();
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(WAIT_MAX)).unwrap();
    socket.connect(address).unwrap();
    socket.send(message).unwrap();
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    let count = socket.recv(&mut buffer).ok()?;
    buffer.truncate(count);
    Some(buffer)
}

pub(crate) fn spec(id: &str, publish: &[&str]) -> Spec {
    let ports = publish.iter().flat_map(|text| PortMapping::parse(text).unwrap()).collect();
    let sandbox = SandboxSpec { ports, ..SandboxSpec::default() };
    Spec { endpoint: endpoint(id), sandbox }
}

pub(crate) fn endpoint(id: &str) -> EndpointSpec {
    EndpointSpec { container_id: id.into(), names: vec![id.into()], ..EndpointSpec::default() }
}

/// Runs a command line in the network namespace of this thread.
pub(crate) fn sh(line: &str) {
    let status = Command::new("sh").args(["-c", line]).status().unwrap();
    assert!(status.success(), "{line}");
}

pub(crate) fn output(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
