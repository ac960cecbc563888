//! Networks beside the default one.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;

use dhow_net::{ConnectError, EndpointSpec, NetConfig, Planning, Pool, retire_network};

use crate::dns::look_up_any;
use crate::host::{Container, HOST_ADDRESS, Host, endpoint, fetch, is_reachable, on_host, output, sh, spec};

const HOST_IPV6: &str = "2001:db8::2";
const WORLD_IPV6: &str = "2001:db8::1";

fn network(host: &Host, name: &str, subnets: &[&str]) -> NetConfig {
    let pool = |text: &&str| Pool::of(text.parse().unwrap()).unwrap();
    NetConfig {
        id: format!("id-{name}"),
        name: name.into(),
        owner: Some("/store".into()),
        bridge: format!("br-{name}"),
        table: format!("dhow-{name}"),
        pools: subnets.iter().map(pool).collect(),
        resolve_names: true,
        ..host.config.clone()
    }
}

fn join(config: &NetConfig, id: &str, publish: &[&str]) -> Container {
    crate::host::connect(config, &spec(id, publish)).unwrap()
}

fn ip6(container: &Container) -> IpAddr {
    container.attached().ip6.unwrap().into()
}

fn serve(container: &Container, port: u16) {
    let listener = container.run(|| TcpListener::bind(("::", port)).unwrap());
    crate::host::serve_tcp(listener);
}

#[test]
fn networks_are_kept_apart_and_an_internal_one_from_everything() {
    on_host(|host| {
        let (red, blue) = (network(host, "red", &["10.1.0.0/24"]), network(host, "blue", &["10.2.0.0/24"]));
        let cellar = NetConfig { internal: true, ..network(host, "cellar", &["10.3.0.0/24"]) };
        let (a, b, c) = (join(&red, "a", &[]), join(&blue, "b", &["8080:80"]), join(&cellar, "c", &[]));
        let neighbour = join(&cellar, "d", &[]);
        for container in [&a, &b, &c, &neighbour] {
            container.serve_tcp(80);
        }
        host.in_world(|| crate::host::serve_tcp(TcpListener::bind("0.0.0.0:7000").unwrap()));
        let world = format!("{}:7000", crate::host::WORLD_ADDRESS);
        let port = |container: &Container| format!("{}:80", container.ip());

        assert!(!a.run(|| is_reachable(&port(&b))));
        assert!(!a.run(|| is_reachable(&port(&c))));
        assert!(a.run(|| is_reachable(&format!("{HOST_ADDRESS}:8080"))), "what is published is for all");
        assert!(a.run(|| is_reachable(&world)));
        assert!(c.run(|| is_reachable(&port(&neighbour))));
        // Not even for who makes a route for itself.
        let gateway = c.attached().host.unwrap();
        c.run(|| sh(&format!("ip route add default via {gateway}")));
        assert!(!c.run(|| is_reachable(&world)));
        assert!(!c.run(|| is_reachable(&port(&a))));
        for config in [&red, &blue, &cellar] {
            dhow_net::remove_network(config).unwrap();
        }
    });
}

#[test]
fn neighbours_may_be_kept_from_talking() {
    on_host(|host| {
        let quiet = NetConfig { neighbours: false, ..network(host, "quiet", &["10.1.0.0/24"]) };
        let (a, b) = (join(&quiet, "a", &[]), join(&quiet, "b", &["8080:80"]));
        b.serve_tcp(80);
        assert!(!a.run(|| is_reachable(&format!("{}:80", b.ip()))));
        assert!(is_reachable(&format!("{}:80", b.ip())), "the host may");
        dhow_net::remove_network(&quiet).unwrap();
    });
}

#[test]
fn ipv6_reaches_neighbours_the_world_and_published_ports() {
    on_host(|host| {
        sh(&format!("ip addr add {HOST_IPV6}/64 dev uplink nodad"));
        sh(&format!("ip route add default via {WORLD_IPV6}"));
        host.in_world(|| sh(&format!("ip addr add {WORLD_IPV6}/64 dev outside nodad")));
        let dual = network(host, "dual", &["10.1.0.0/24", "fd00:1::/64"]);
        let (a, b) = (join(&dual, "a", &[]), join(&dual, "b", &["8080:80", "[::1]:8081:80"]));
        serve(&b, 80);
        host.in_world(|| crate::host::serve_tcp(TcpListener::bind("[::]:7000").unwrap()));

        let at_b = SocketAddr::new(ip6(&b), 80).to_string();
        assert_eq!(a.run(|| fetch(&at_b)), Ok(ip6(&a).to_string()));
        assert_eq!(a.run(|| fetch(&format!("[{WORLD_IPV6}]:7000"))), Ok(HOST_IPV6.into()));
        let published = format!("[{HOST_IPV6}]:8080");
        assert_eq!(host.in_world(|| fetch(&published)), Ok(WORLD_IPV6.into()), "who asks is seen");
        assert!(a.run(|| fetch(&published)).is_ok());
        for address in ["[::1]:8080", "[::1]:8081", "127.0.0.1:8080"] {
            assert!(fetch(address).is_ok(), "{address}");
        }
        assert!(!host.in_world(|| is_reachable(&format!("[{HOST_IPV6}]:8081"))));
        // Without having been published, it is as out of reach as by IPv4.
        host.in_world(|| sh(&format!("ip route add fd00:1::/64 via {HOST_IPV6}")));
        assert!(!host.in_world(|| is_reachable(&at_b)));
        dhow_net::remove_network(&dual).unwrap();
        assert!(!output("nft list tables").contains("dhow-dual"));
    });
}

#[test]
fn a_network_may_have_ipv6_alone() {
    on_host(|host| {
        let six = network(host, "six", &["fd00:6::/64"]);
        let (a, b) = (join(&six, "a", &[]), join(&six, "b", &["8080:80"]));
        serve(&b, 80);
        assert_eq!((b.attached().ip, ip6(&b).to_string().as_str()), (None, "fd00:6::3"));
        assert!(a.run(|| fetch("[fd00:6::3]:80")).is_ok());
        assert!(fetch("127.0.0.1:8080").is_ok(), "carried over");
        assert_eq!(a.run(|| look_up_any("b.")), "fd00:6::3");
        dhow_net::remove_network(&six).unwrap();
    });
}

#[test]
fn the_way_out_and_the_ports_follow_priority() {
    on_host(|host| {
        let (red, blue) = (network(host, "red", &["10.1.0.0/24"]), network(host, "blue", &["10.2.0.0/24"]));
        let mut web = join(&red, "web", &["8080:80", "53:53/udp"]);
        web.serve_tcp(80);
        web.serve_udp(53);
        let default = |web: &Container| web.run(|| output("ip -4 route show default"));
        let check = |web: &Container, gateway: &str, device: &str| {
            assert!(default(web).starts_with(&format!("default via {gateway} dev {device}")));
            assert!(fetch("127.0.0.1:8080").is_ok());
            assert!(host.in_world(|| fetch(&format!("{HOST_ADDRESS}:8080"))).is_ok());
            let answer = crate::host::ask_udp("[::1]:53", b"hi");
            assert_eq!(answer.as_deref(), Some(&b"echo hi"[..]));
        };
        check(&web, "10.1.0.1", "eth0");
        let preferred = EndpointSpec { gw_priority: 1, ..endpoint("web") };
        web.sandbox.connect(&[(blue.clone(), preferred)]).unwrap();
        check(&web, "10.2.0.1", "eth1");
        assert!(!output("nft list table ip dhow-red").contains("8080"));
        assert_eq!(web.attached().ports.len(), 4);

        let again = web.sandbox.connect(&[(blue.clone(), endpoint("web"))]);
        assert!(matches!(again, Err(ConnectError::AlreadyConnected(_))));
        assert!(web.sandbox.disconnect(&blue.id).unwrap());
        check(&web, "10.1.0.1", "eth0");
        web.sandbox.disconnect(&red.id).unwrap();
        assert_eq!(default(&web), "");
        assert!(fetch("127.0.0.1:8080").is_err());
        assert!(!web.sandbox.disconnect(&red.id).unwrap());
        web.sandbox.connect(&[(red.clone(), endpoint("web"))]).unwrap();
        check(&web, "10.1.0.1", "eth0");
        drop(web);
        for config in [&red, &blue] {
            dhow_net::remove_network(config).unwrap();
        }
    });
}

#[test]
fn names_are_those_of_the_networks_one_is_on() {
    on_host(|host| {
        let (red, blue) =
            (network(host, "red", &["10.1.0.0/24", "fd00:1::/64"]), network(host, "blue", &["10.2.0.0/24"]));
        let mut a = join(&red, "a", &[]);
        let mut db = join(&blue, "db", &[]);
        let ip = db.ip().to_string();
        assert_eq!(a.run(|| look_up_any("db.")), "NXDomain");
        let linked = EndpointSpec { links: vec![("store".into(), "db".into())], ..endpoint("a") };
        a.sandbox.connect(&[(blue.clone(), linked)]).unwrap();
        for name in ["db.", "db.blue.", "store."] {
            assert_eq!(a.run(|| look_up_any(name)), ip, "{name}");
        }
        assert_eq!(db.run(|| look_up_any("store.")), "NXDomain", "a link is its owner's");
        assert_eq!(db.run(|| look_up_any("a.")), "10.2.0.3");
        assert_eq!(a.run(|| look_up_any("a.")), "10.2.0.3", "blue comes before red");
        assert_eq!(a.run(|| look_up_any("a.red.")), "10.1.0.2 fd00:1::2");

        db.sandbox.rename(&blue.id, vec!["postgres".into(), "sql".into()]).unwrap();
        assert_eq!(a.run(|| look_up_any("db.")), "NXDomain");
        for name in ["postgres.", "SQL."] {
            assert_eq!(a.run(|| look_up_any(name)), ip, "{name}");
        }
        assert_eq!(a.run(|| crate::dns::look_up_pointer("3.0.2.10.in-addr.arpa.")), "NoError a.blue.");
        drop((a, db));
        for config in [&red, &blue] {
            dhow_net::remove_network(config).unwrap();
        }
    });
}

#[test]
fn a_removed_network_does_not_come_back_and_a_used_one_stays() {
    on_host(|host| {
        let red = network(host, "red", &["10.1.0.0/24"]);
        let planning = Planning::start(&host.config.run_dir).unwrap();
        planning.raise(&red).unwrap();
        assert!(matches!(planning.raise(&red), Err(ConnectError::BridgeTaken(_))));
        let overlapping = network(host, "blue", &["10.1.0.128/25"]);
        assert!(matches!(planning.raise(&overlapping), Err(ConnectError::SubnetTaken(_))));
        drop(planning);

        let a = join(&red, "a", &[]);
        let retire = || retire_network(&red, || Ok::<_, ConnectError>(()));
        assert_eq!(retire().unwrap_err().to_string(), "network red has active endpoints (a)");
        drop(a);
        retire().unwrap();
        assert!(!output("ip link").contains("br-red"));
        let late = crate::host::connect(&red, &spec("b", &[]));
        assert!(matches!(late.err(), Some(ConnectError::NoSuchNetwork(_))));
        assert!(!output("ip link").contains("br-red"));
    });
}

#[test]
fn who_makes_networks_at_once_gets_different_subnets_until_none_is_left() {
    on_host(|host| {
        let made: Vec<NetConfig> = std::thread::scope(|scope| {
            let make = |index: usize| {
                let planning = Planning::start(&host.config.run_dir).unwrap();
                let pools = vec![planning.free_pool(&[]).unwrap()];
                let config = NetConfig { pools, ..network(host, &format!("n{index}"), &[]) };
                planning.raise(&config).unwrap();
                config
            };
            let threads: Vec<_> = (0..6).map(|index| scope.spawn(move || make(index))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut subnets: Vec<String> = made.iter().map(|config| config.pools[0].subnet.to_string()).collect();
        subnets.sort();
        subnets.dedup();
        assert_eq!(subnets.len(), 6, "{subnets:?}");
        sh(&format!("ip route add 172.16.0.0/12 via {}", crate::host::WORLD_ADDRESS));
        sh(&format!("ip route add 192.168.0.0/16 via {}", crate::host::WORLD_ADDRESS));
        let planning = Planning::start(&host.config.run_dir).unwrap();
        let error = planning.free_pool(&[]).unwrap_err().to_string();
        assert!(error.starts_with("all predefined address pools have been fully subnetted"), "{error}");
        drop(planning);
        for config in &made {
            dhow_net::remove_network(config).unwrap();
        }
    });
}

#[test]
fn what_was_only_begun_is_removed() {
    on_host(|host| {
        let red = network(host, "red", &["10.1.0.0/24"]);
        Planning::start(&host.config.run_dir).unwrap().raise(&red).unwrap();
        // Killed before it was written down that the bridge is there.
        std::fs::remove_file(host.config.run_dir.join("id-red/network.json")).unwrap();
        let now = std::time::SystemTime::now();
        dhow_net::reconcile(&host.config.run_dir, Some(Path::new("/store")), &|_| false, now).unwrap();
        assert!(!output("ip link").contains("br-red"));
        assert!(!output("nft list tables").contains("dhow-red"));
    });
}

#[test]
fn what_its_store_has_forgotten_is_removed() {
    on_host(|host| {
        let red = network(host, "red", &["10.1.0.0/24"]);
        Planning::start(&host.config.run_dir).unwrap().raise(&red).unwrap();
        let reconcile = |owner: &str, is_known: bool| {
            let now = std::time::SystemTime::now();
            dhow_net::reconcile(&host.config.run_dir, Some(Path::new(owner)), &|_| is_known, now).unwrap();
            output("ip link").contains("br-red")
        };
        assert!(reconcile("/store", true));
        assert!(reconcile("/another/store", false));
        let a = join(&red, "a", &[]);
        assert!(reconcile("/store", false), "somebody is on it");
        drop(a);
        assert!(!reconcile("/store", false));
    });
}
