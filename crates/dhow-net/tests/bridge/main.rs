//! Containers on a real bridge, each test in network namespaces of its own.

mod crash;
mod dns;
mod host;
mod networks;

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use dhow_net::ConnectError;
use expect_test::expect;
use host::{
    HOST_ADDRESS, SILENCE_MIN, UPLINK_MTU, WORLD_ADDRESS, ask_udp, fetch, is_reachable, on_host, output,
    serve_tcp, sh, spec,
};

/// It takes 3 ms on an idle machine; a process for each rule or device would take more than this.
const CONNECT_MAX: Duration = Duration::from_millis(50);

#[test]
fn containers_reach_each_other_the_host_and_the_world() {
    on_host(|host| {
        let (a, b) = (host.connect("a", &[]), host.connect("b", &[]));
        b.serve_tcp(80);
        serve_tcp(TcpListener::bind("0.0.0.0:7000").unwrap());
        host.in_world(|| serve_tcp(TcpListener::bind("0.0.0.0:7001").unwrap()));

        let gateway = a.gateway();
        assert_eq!(a.run(|| fetch(&format!("{}:80", b.ip()))), Ok(a.ip().to_string()));
        assert_eq!(a.run(|| fetch(&format!("{gateway}:7000"))), Ok(a.ip().to_string()));
        // The world sees the host, not the container.
        assert_eq!(a.run(|| fetch(&format!("{WORLD_ADDRESS}:7001"))), Ok(HOST_ADDRESS.into()));
        assert_eq!(fetch(&format!("{}:80", b.ip())), Ok(gateway.to_string()));
        assert!(a.run(|| output("ip link show eth0")).contains(&format!("mtu {UPLINK_MTU}")));
    });
}

#[test]
fn a_published_port_answers_wherever_it_is_asked() {
    on_host(|host| {
        let web = host.connect("web", &["8080:80"]);
        let other = host.connect("other", &[]);
        web.serve_tcp(80);
        let gateway = web.gateway();
        let at_host = format!("{HOST_ADDRESS}:8080");

        assert_eq!(fetch("127.0.0.1:8080"), Ok(gateway.clone()));
        assert_eq!(fetch("[::1]:8080"), Ok(gateway.clone()));
        assert_eq!(fetch(&at_host).map(|_| ()), Ok(()));
        assert_eq!(host.in_world(|| fetch(&at_host)), Ok(WORLD_ADDRESS.into()));
        assert_eq!(other.run(|| fetch(&at_host)), Ok(gateway.clone()));
        assert_eq!(web.run(|| fetch(&at_host)), Ok(gateway));
        web.sandbox.close().unwrap();
        assert_eq!(fetch("127.0.0.1:8080"), Err("connection refused".into()));
    });
}

#[test]
fn udp_is_published_too() {
    on_host(|host| {
        let echo = host.connect("echo", &["5353:53/udp"]);
        echo.serve_udp(53);
        for address in ["127.0.0.1:5353", "[::1]:5353", &format!("{HOST_ADDRESS}:5353")] {
            assert_eq!(ask_udp(address, b"hi").as_deref(), Some(&b"echo hi"[..]), "{address}");
        }
    });
}

#[test]
fn what_is_not_published_is_out_of_reach() {
    on_host(|host| {
        let local = host.connect("local", &["127.0.0.1:8080:80"]);
        local.serve_tcp(80);
        let ip = local.ip();
        assert!(fetch("127.0.0.1:8080").is_ok());

        assert!(!host.in_world(|| is_reachable(&format!("{HOST_ADDRESS}:8080"))));
        host.in_world(|| sh(&format!("ip route add 172.16.0.0/12 via {HOST_ADDRESS}")));
        assert!(!host.in_world(|| is_reachable(&format!("{ip}:80"))));
        host.in_world(|| route_loopback_to(HOST_ADDRESS));
        assert!(!host.in_world(|| is_reachable("127.0.0.1:8080")));
    });
}

#[test]
fn a_container_cannot_send_to_the_loopback_of_the_host() {
    on_host(|host| {
        let private = UdpSocket::bind("127.0.0.1:0").unwrap();
        private.set_read_timeout(Some(SILENCE_MIN)).unwrap();
        let container = host.connect("nosy", &[]);
        let gateway = container.gateway();
        container.run(|| {
            route_loopback_to(&gateway);
            UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"hi", private.local_addr().unwrap()).unwrap();
        });
        assert!(private.recv(&mut [0; 2]).is_err());
    });
}

/// What somebody does who wants to reach another machine's 127.0.0.1.
fn route_loopback_to(gateway: &str) {
    sh("ip link set lo down && ip addr flush dev lo");
    sh("echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet");
    sh(&format!("ip route add 127.0.0.1 via {gateway}"));
}

#[test]
fn two_containers_never_get_one_port_or_address() {
    on_host(|host| {
        let first = host.connect("first", &["8080:80", "80"]);
        let error = host.try_connect(&spec("second", &["8080:80"])).err().unwrap();
        assert_eq!(error.to_string(), "Bind for 0.0.0.0:8080 failed: port is already allocated");
        let with_ip = |id: &str, ip| {
            let mut spec = spec(id, &[]);
            spec.endpoint.ip = Some(ip);
            spec
        };
        let wanted = with_ip("third", first.ip());
        assert!(matches!(host.try_connect(&wanted), Err(ConnectError::AddressTaken(_))));
        let outside = with_ip("fourth", Ipv4Addr::new(10, 9, 9, 9));
        assert!(matches!(host.try_connect(&outside), Err(ConnectError::AddressOutside { .. })));
        assert!(matches!(host.try_connect(&spec("first", &[])), Err(ConnectError::AlreadyConnected(_))));

        let second = host.connect("second", &["80"]);
        assert_ne!(second.attached().ports[0].host_port, first.attached().ports[2].host_port);
        let (address, static_ip) = (first.ip(), Ipv4Addr::new(172, 17, 3, 3));
        first.sandbox.close().unwrap();
        let again = host.connect("again", &["8080:80"]);
        assert_eq!(again.ip(), address);
        let fixed = host.try_connect(&with_ip("fixed", static_ip)).unwrap();
        assert_eq!(fixed.ip(), static_ip);
        assert_eq!(host.traces(), (2, 3));
    });
}

#[test]
fn many_at_once_get_different_addresses() {
    on_host(|host| {
        let containers: Vec<_> = thread::scope(|scope| {
            let start = |index| scope.spawn(move || host.connect(&format!("c{index}"), &["80"]));
            (0..12).map(start).collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut addresses: Vec<_> = containers.iter().map(host::Container::ip).collect();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 12);
        assert_eq!(host.traces(), (12, 12));
        drop(containers);
        assert_eq!(host.traces(), (0, 0));
    });
}

#[test]
fn the_subnet_avoids_what_the_host_can_reach_already() {
    on_host(|host| {
        sh(&format!("ip route add 172.17.128.0/24 via {WORLD_ADDRESS}"));
        assert_eq!(host.connect("a", &[]).ip(), Ipv4Addr::new(172, 18, 0, 2));
    });
}

#[test]
fn flushed_rules_come_back_with_the_ports_of_the_living() {
    on_host(|host| {
        let web = host.connect("web", &["8080:80"]);
        web.serve_tcp(80);
        sh("nft flush ruleset");
        let _next = host.connect("next", &[]);
        assert_eq!(host.traces(), (1, 2));
        assert!(host.in_world(|| fetch(&format!("{HOST_ADDRESS}:8080"))).is_ok());
    });
}

#[test]
fn a_docker_that_drops_what_it_does_not_know_is_told_about_us() {
    on_host(|host| {
        if Command::new("iptables").arg("--version").output().is_err() {
            println!("skipped: there is no iptables");
            return;
        }
        sh("iptables -N DOCKER-USER && iptables -A FORWARD -j DOCKER-USER && iptables -P FORWARD DROP");
        let web = host.connect("web", &["8080:80"]);
        let other = host.connect("other", &[]);
        web.serve_tcp(80);
        assert!(host.in_world(|| is_reachable(&format!("{HOST_ADDRESS}:8080"))));
        assert!(other.run(|| is_reachable(&format!("{}:80", web.ip()))));
        let rules = output("iptables -S DOCKER-USER");
        assert_eq!(
            rules,
            "-N DOCKER-USER\n-A DOCKER-USER -o dhow0 -j ACCEPT\n-A DOCKER-USER -i dhow0 -j ACCEPT\n"
        );

        dhow_net::remove_network(&host.config).unwrap();
        assert_eq!(output("iptables -S DOCKER-USER"), "-N DOCKER-USER\n");
    });
}

#[test]
fn the_rules_read_as_they_are_meant() {
    on_host(|host| {
        let _web = host.connect("web", &["8080:80", "127.0.0.1:53:53/udp"]);
        expect![[r#"
            table ip dhow {
            	map published {
            		type inet_proto . inet_service : ipv4_addr . inet_service
            		elements = { tcp . 8080 : 172.17.0.2 . 80 }
            	}

            	map published_at {
            		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
            		elements = { 127.0.0.1 . udp . 53 : 172.17.0.2 . 53 }
            	}

            	chain publish {
            		dnat ip to ip daddr . meta l4proto . th dport map @published_at
            		dnat ip to meta l4proto . th dport map @published
            	}

            	chain prerouting {
            		type nat hook prerouting priority dstnat; policy accept;
            		ip daddr != 127.0.0.0/8 fib daddr type local jump publish
            	}

            	chain output {
            		type nat hook output priority -100; policy accept;
            		fib daddr type local jump publish
            	}

            	chain postrouting {
            		type nat hook postrouting priority srcnat; policy accept;
            		ip saddr 172.17.0.0/16 oifname != "dhow0" masquerade
            		ip saddr 127.0.0.0/8 oifname "dhow0" masquerade
            		ip saddr 172.17.0.0/16 oifname "dhow0" ct status dnat masquerade
            	}

            	chain forward {
            		type filter hook forward priority filter; policy accept;
            		oifname "dhow0" iifname != "dhow0" ct state new ct status ! dnat drop
            	}

            	chain guard {
            		type filter hook prerouting priority raw; policy accept;
            		iifname "dhow0" ip daddr 127.0.0.0/8 drop
            	}
            }
        "#]]
        .assert_eq(&output("nft list table ip dhow"));
    });
}

#[test]
fn connecting_takes_milliseconds() {
    on_host(|host| {
        host.connect("first", &[]);
        for publish in [&[][..], &["8080:80", "90/udp"]] {
            let best = (0..5).map(|_| time_connect(host, publish)).min().unwrap();
            println!("best of 5 connects with {} ports: {best:?}", publish.len());
            assert!(best < CONNECT_MAX, "{best:?}");
        }
    });
}

fn time_connect(host: &host::Host, publish: &[&str]) -> Duration {
    let started = Instant::now();
    let container = host.connect("timed", publish);
    let connected = started.elapsed();
    container.sandbox.close().unwrap();
    connected
}
