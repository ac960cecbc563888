//! Names inside containers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use dhow_net::NetConfig;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::host::{Spec, ask_udp, connect, on_host, spec};

const SERVER: &str = "127.0.0.11:53";

/// "At once" for somebody who waits for a web page.
const FAST: Duration = Duration::from_millis(200);

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn show(reply: &[u8]) -> String {
    let message = Message::from_vec(reply).unwrap();
    assert_eq!(message.metadata.id, 4711);
    let answers: Vec<_> = message.answers.iter().map(|record| format!(" {}", record.data)).collect();
    format!("{:?}{}", message.metadata.response_code, answers.concat())
}

fn look_up(name: &str) -> String {
    ask_udp(SERVER, &query(name, RecordType::A)).map_or("silence".into(), |reply| show(&reply))
}

/// All addresses of a name, of both families, or what there is instead.
pub(crate) fn look_up_any(name: &str) -> String {
    let ask = |kind| show(&ask_udp(SERVER, &query(name, kind)).expect("an answer"));
    let answers = [ask(RecordType::A), ask(RecordType::AAAA)];
    let found = answers.iter().filter_map(|answer| answer.strip_prefix("NoError ")).collect::<Vec<_>>();
    if found.is_empty() { answers[0].clone() } else { found.join(" ") }
}

pub(crate) fn look_up_pointer(name: &str) -> String {
    show(&ask_udp(SERVER, &query(name, RecordType::PTR)).expect("an answer"))
}

fn look_up_over_tcp(name: &str) -> String {
    let query = query(name, RecordType::A);
    let mut stream = std::net::TcpStream::connect(SERVER).unwrap();
    stream.write_all(&[&(query.len() as u16).to_be_bytes()[..], &query].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut reply).unwrap();
    show(&reply)
}

/// A resolver on the pretend host's loopback that knows one name, over UDP and TCP.
fn start_resolver() -> SocketAddr {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((count, client)) = udp.recv_from(&mut buffer) {
            udp.send_to(&resolve(&buffer[..count]), client).unwrap();
        }
    });
    thread::spawn(move || {
        for mut stream in tcp.incoming().map_while(Result::ok) {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut query = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut query).unwrap();
            let reply = resolve(&query);
            stream.write_all(&[&(reply.len() as u16).to_be_bytes()[..], &reply].concat()).unwrap();
        }
    });
    address
}

fn resolve(query: &[u8]) -> Vec<u8> {
    let mut message = Message::from_vec(query).unwrap().into_response();
    let name = message.queries[0].name().clone();
    if name.to_ascii() == "example.com." {
        message.add_answer(Record::from_rdata(name, 60, RData::A("203.0.113.7".parse().unwrap())));
    } else {
        message.metadata.response_code = ResponseCode::NXDomain;
    }
    message.to_vec().unwrap()
}

fn with_servers(id: &str, servers: Vec<SocketAddr>) -> Spec {
    let mut spec = spec(id, &[]);
    spec.sandbox.dns.servers = servers;
    spec
}

#[test]
fn the_hosts_resolver_is_asked_also_on_its_loopback() {
    on_host(|host| {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let spec = with_servers("a", vec![silent, start_resolver()]);
        let container = host.try_connect(&spec).unwrap();
        container.run(|| {
            assert_eq!(look_up("example.com."), "NoError 203.0.113.7");
            assert_eq!(look_up_over_tcp("example.com."), "NoError 203.0.113.7");
            assert_eq!(look_up("unknown.example."), "NXDomain");
            assert_eq!(look_up("redis."), "NXDomain");
        });
    });
}

#[test]
fn an_unknown_name_fails_at_once_when_nobody_can_be_asked() {
    on_host(|host| {
        let container = host.connect("a", &[]);
        let started = Instant::now();
        container.run(|| {
            assert_eq!(look_up("redis."), "NXDomain");
            assert_eq!(look_up_over_tcp("redis."), "NXDomain");
            assert_eq!(look_up("example.com."), "ServFail");
        });
        assert!(started.elapsed() < FAST);
    });
}

#[test]
fn a_silent_resolver_delays_a_short_name_once() {
    on_host(|host| {
        let deaf = UdpSocket::bind("127.0.0.1:0").unwrap();
        let container = host.try_connect(&with_servers("a", vec![deaf.local_addr().unwrap()])).unwrap();
        container.run(|| {
            let started = Instant::now();
            assert_eq!(look_up("redis."), "NXDomain");
            assert!(started.elapsed() < Duration::from_secs(1));
            let started = Instant::now();
            assert_eq!(look_up("redis."), "NXDomain");
            assert!(started.elapsed() < FAST);
        });
    });
}

#[test]
fn containers_find_each_other_where_the_network_has_names() {
    on_host(|host| {
        let config = NetConfig { resolve_names: true, ..host.config.clone() };
        let connect = |id| connect(&config, &spec(id, &[])).unwrap();
        let web = connect("web");
        assert_eq!(web.run(|| look_up("redis.")), "NXDomain");
        let redis = connect("redis");
        assert_eq!(web.run(|| look_up("Redis.")), format!("NoError {}", redis.ip()));
        redis.sandbox.close().unwrap();
        assert_eq!(web.run(|| look_up("redis.")), "NXDomain");
    });
}

#[test]
fn port_53_is_free_for_a_name_server_in_the_container() {
    on_host(|host| {
        let container = host.connect("pihole", &[]);
        container.serve_udp(53);
        container.run(|| {
            assert_eq!(ask_udp("127.0.0.1:53", b"hi").as_deref(), Some(&b"echo hi"[..]));
            assert_eq!(look_up("redis."), "NXDomain");
        });
    });
}
