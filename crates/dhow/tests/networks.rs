//! Networks that users make, and how containers find each other on them.

use std::net::TcpStream;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::rig::{Rig, free_port, host_address};
use crate::shown::{inspect, published};

/// A page that says who serves it.
const SERVE: &str = "mkdir -p /w; echo $0 >/w/i; exec httpd -f -p 80 -h /w";

/// A rig with an image to run, and a prefix for names of networks that no other test has.
fn rig() -> Option<Rig> {
    let rig = Rig::start()?;
    rig.ok("docker pull busybox");
    Some(rig)
}

fn serve(rig: &Rig, name: &str, flags: &str) {
    rig.ok(&format!(
        "docker run -d --name {name} --hostname {name}-host {flags} busybox sh -c '{SERVE}' {name}"
    ));
}

/// The addresses of a subnet of eight that no other test has.
fn eight_addresses() -> impl Fn(u32) -> String {
    let process = std::process::id();
    move |host| format!("198.19.{}.{}", process / 32 % 256, process % 32 * 8 + host)
}

/// Asks for a page from within a container, until the server is there.
fn asked(rig: &Rig, from: &str, url: &str) -> String {
    let line = format!("docker exec {from} timeout 5 wget -qO- http://{url}/i");
    rig.eventually(&format!("{from} reaches {url}"), || rig.run(&line).status == 0);
    rig.ok(&line)
}

/// Whether a container finds no such name, and finds that out at once.
fn is_unknown(rig: &Rig, from: &str, name: &str) -> bool {
    let said = rig.run(&format!("docker exec {from} nslookup {name}"));
    said.both().contains("NXDOMAIN")
}

fn networks(rig: &Rig, container: &str) -> Value {
    inspect(rig, container)["NetworkSettings"]["Networks"].clone()
}

#[test]
fn two_applications_and_a_redis_find_each_other_by_name() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.fixture("hello-docker");
    app.ok("docker build -q -t hello .");
    rig.ok("docker network create shop");
    for name in ["one", "two"] {
        rig.ok(&format!("docker run -d --name {name} --network shop -P hello"));
    }
    let page = |name: &str| rig.page(&format!("http://127.0.0.1:{}", published(&rig, name, 80)));
    // There is no redis yet, and the page does not wait for one.
    assert!(page("one").contains("cannot connect to Redis"), "{}", page("one"));
    rig.ok("docker run -d --name redis --network shop redis");
    rig.eventually("redis is there", || page("one").contains("<b>Visits:</b> 1"));
    assert!(page("two").contains("<b>Visits:</b> 2"), "both count in one place");
    assert!(page("one").contains("<b>Visits:</b> 3"));
    let from_two =
        rig.ok("docker exec two python -c \"import urllib;print urllib.urlopen('http://one').read()\"");
    assert!(from_two.contains("<b>Visits:</b> 4"), "{from_two}");
}

#[test]
fn names_follow_containers_and_fail_fast_when_nobody_has_them() {
    let Some(rig) = rig() else { return };
    rig.ok("docker network create names");
    serve(&rig, "web", "--network names --network-alias site --net-alias www");
    rig.ok("docker run -d --name asker --network names busybox sleep 600");
    let id = rig.ok("docker ps -q --filter name=web");
    for name in ["web", "site", "www", "WEB", "web-host", "web.names", &id] {
        assert_eq!(asked(&rig, "asker", name), "web", "{name}");
    }
    assert!(is_unknown(&rig, "asker", "redis"));
    rig.ok("docker rename web shop");
    assert!(is_unknown(&rig, "asker", "web"));
    assert_eq!(asked(&rig, "asker", "shop"), "web");
    let address = networks(&rig, "shop")["names"]["IPAddress"].as_str().expect("an address").to_owned();
    let pointer = rig.ok(&format!("docker exec asker nslookup {address}"));
    assert!(pointer.contains("shop.names"), "{pointer}");
    rig.ok("docker stop -t 0 shop");
    assert!(is_unknown(&rig, "asker", "shop"));
    rig.ok("docker start shop");
    assert_eq!(asked(&rig, "asker", "shop"), "web");

    // On the default network there are no names.
    rig.ok("docker run -d --name plain busybox sleep 600");
    rig.ok("docker run -d --name other busybox sleep 600");
    assert!(is_unknown(&rig, "plain", "other"));
}

#[test]
fn a_running_container_joins_and_leaves_networks() {
    let Some(rig) = rig() else { return };
    rig.ok("docker network create red");
    rig.ok("docker network create --ipv6 blue");
    serve(&rig, "web", "--network red");
    rig.ok("docker run -d --name asker --network blue busybox sleep 600");
    assert!(is_unknown(&rig, "asker", "web"));
    assert_eq!(rig.ok("docker network connect --alias site blue web"), "");
    assert_eq!(asked(&rig, "asker", "site"), "web");
    let complaint = rig.fails("docker network connect blue web", 1);
    assert!(complaint.contains("endpoint with name web already exists in network blue"), "{complaint}");

    let joined = networks(&rig, "web");
    let six = joined["blue"]["GlobalIPv6Address"].as_str().expect("an address");
    assert_eq!(asked(&rig, "asker", &format!("[{six}]")), "web");
    assert!(rig.ok("docker exec asker nslookup -type=aaaa site").contains(six));
    assert!(rig.ok("docker exec web cat /etc/hosts").contains(six));
    assert_eq!(joined["blue"]["Aliases"], serde_json::json!(["site"]));
    assert_eq!(rig.ok("docker ps --filter name=web --format '{{.Networks}}'"), "blue,red");
    assert_eq!(rig.ok("docker ps --filter network=blue --format '{{.Names}}'"), "asker\nweb");
    let members = rig.ok("docker network inspect -f '{{range .Containers}}{{.Name}} {{end}}' blue");
    assert_eq!(members.split_whitespace().count(), 2, "{members}");
    assert!(rig.ok("docker exec web ip route").contains("default via"));

    let complaint = rig.fails("docker network rm blue", 1);
    assert!(complaint.contains("network blue has active endpoints"), "{complaint}");
    // What is joined while it runs is there after the next start as well.
    rig.ok("docker restart -t 0 web");
    assert_eq!(asked(&rig, "asker", "site"), "web");
    rig.ok("docker network disconnect blue web");
    assert!(is_unknown(&rig, "asker", "site"));
    assert_eq!(rig.ok("docker exec web ls /sys/class/net"), "eth0\nlo");
    let complaint = rig.fails("docker network disconnect blue web", 1);
    assert!(complaint.contains("is not connected to the network blue"), "{complaint}");

    let told = rig.ok("docker events --since 10m --until 0s --filter type=network --filter network=blue --format '{{.Action}}'");
    assert_eq!(told, "create\nconnect\nconnect\ndisconnect\nconnect\ndisconnect");
}

#[test]
fn a_container_that_is_started_again_by_itself_is_on_its_latest_networks() {
    let Some(rig) = rig() else { return };
    rig.ok("docker network create early");
    rig.ok("docker network create late");
    serve(&rig, "web", "--network early --restart always");
    rig.ok("docker run -d --name asker --network late busybox sleep 600");
    rig.ok("docker network connect late web");
    rig.ok("docker network disconnect early web");
    // Process 1 only hears what it listens for, unless it is told from outside.
    let pid = inspect(&rig, "web")["State"]["Pid"].as_i64().expect("a process");
    rig.ok(&format!("kill -KILL {pid}"));
    rig.eventually("it is started again", || inspect(&rig, "web")["RestartCount"] == 1);
    assert_eq!(asked(&rig, "asker", "web"), "web");
    assert_eq!(rig.ok("docker ps --filter name=web --format '{{.Networks}}'"), "late");
}

#[test]
fn a_stopped_container_remembers_what_it_joins() {
    let Some(rig) = rig() else { return };
    rig.ok("docker network create first");
    rig.ok("docker network create second");
    rig.ok(&format!("docker create --name web --network first busybox sh -c '{SERVE}' web"));
    rig.ok("docker network connect second web");
    rig.ok("docker network disconnect first web");
    rig.ok("docker run -d --name asker --network second busybox sleep 600");
    rig.ok("docker start web");
    assert_eq!(asked(&rig, "asker", "web"), "web");
    assert_eq!(networks(&rig, "web").as_object().map(serde_json::Map::len), Some(1));

    rig.ok("docker stop -t 0 web asker");
    rig.ok("docker network rm second");
    let complaint = rig.fails("docker start web", 1);
    assert!(complaint.contains("network second not found"), "{complaint}");
    // One of the same name will do.
    rig.ok("docker network create second");
    rig.ok("docker start web asker");
    assert_eq!(asked(&rig, "asker", "web"), "web");
}

#[test]
fn a_container_has_several_networks_and_one_way_out() {
    let Some(rig) = rig() else { return };
    let port = free_port();
    rig.ok("docker network create --internal cellar");
    rig.ok("docker network create front");
    rig.ok("docker network create -o com.docker.network.driver.mtu=1300 garden");
    serve(
        &rig,
        "web",
        &format!(
            "--network cellar --network name=front,alias=shop,mac-address=02:42:00:00:00:07 \
             --network name=garden,gw-priority=5,link-local-ip=169.254.7.7,\
             driver-opt=com.docker.network.endpoint.ifname=green0 -p {port}:80"
        ),
    );
    let own = networks(&rig, "web");
    assert_eq!((&own["cellar"]["Gateway"], &own["garden"]["GwPriority"]), (&"".into(), &5.into()));
    assert_eq!(own["front"]["MacAddress"], "02:42:00:00:00:07");
    let routes = rig.ok("docker exec web ip route");
    let default = routes.lines().find(|line| line.starts_with("default ")).expect("a way out");
    assert!(default.contains("dev green0"), "{default}");
    let device = rig.ok("docker exec web ip addr show green0");
    assert!(device.contains("mtu 1300") && device.contains("169.254.7.7/16"), "{device}");
    for address in ["127.0.0.1".into(), "[::1]".into(), host_address()] {
        assert_eq!(rig.page(&format!("http://{address}:{port}/i")), "web\n");
    }
    // The ports move to the next best way out, and are given back without one.
    rig.ok("docker network disconnect garden web");
    assert_eq!(rig.page(&format!("http://127.0.0.1:{port}/i")), "web\n");
    rig.ok("docker run -d --name inner --network cellar busybox sleep 600");
    assert_eq!(asked(&rig, "inner", "web"), "web");
    assert!(!rig.ok("docker exec inner ip route").contains("default"));
    rig.ok("docker network disconnect front web");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "an internal network publishes nothing");
}

#[test]
fn networks_are_apart_but_what_is_published_is_for_all() {
    let Some(rig) = rig() else { return };
    let port = free_port();
    rig.ok("docker network create here");
    rig.ok("docker network create there");
    serve(&rig, "web", &format!("--network here -p {port}:80"));
    rig.ok("docker run -d --name asker --network there busybox sleep 600");
    let ip = networks(&rig, "web")["here"]["IPAddress"].as_str().expect("an address").to_owned();
    assert_eq!(asked(&rig, "asker", &format!("{}:{port}", host_address())), "web");
    assert_ne!(rig.run(&format!("docker exec asker timeout 1 wget -qO- http://{ip}/i")).status, 0);
    rig.ok("docker run -d --name guest --network container:web busybox sleep 600");
    assert_eq!(asked(&rig, "guest", "127.0.0.1"), "web");
    assert_eq!(rig.ok("docker exec guest hostname"), "web-host");
    assert_eq!(inspect(&rig, "guest")["NetworkSettings"]["Networks"], serde_json::json!({}));
    let gateway = "docker run --rm --network there --add-host home:host-gateway busybox";
    assert!(rig.ok(&format!("{gateway} wget -qO- http://home:{port}/i")).contains("web"));
}

#[test]
fn links_name_containers_for_one_container_alone() {
    let Some(rig) = rig() else { return };
    serve(&rig, "old", "");
    let line = "docker run --rm --link old:store busybox wget -qO- http://store/i";
    rig.eventually("the server is there", || rig.run(line).status == 0);
    let hosts = rig.ok("docker run --rm --link old:store busybox cat /etc/hosts");
    assert!(hosts.lines().any(|line| line.contains("\tstore ") && line.ends_with(" old")), "{hosts}");
    rig.ok("docker network create linked");
    serve(&rig, "new", "--network linked");
    rig.ok("docker run -d --name asker --network linked --link new:store busybox sleep 600");
    assert_eq!(asked(&rig, "asker", "store"), "new");
    assert!(is_unknown(&rig, "new", "store"));
    rig.ok("docker rm -f old");
    let complaint = rig.fails("docker run --rm --link old busybox true", 125);
    assert!(complaint.contains("could not get container for old: No such container: old"), "{complaint}");
}

#[test]
fn addresses_are_those_asked_for_and_run_out() {
    let Some(rig) = rig() else { return };
    let at = eight_addresses();
    // Room for three: the network's own, the gateway's and the broadcast address are nobody's.
    rig.ok(&format!(
        "docker network create --subnet {}/29 --gateway {} --aux-address a={} --aux-address b={} small",
        at(0),
        at(6),
        at(1),
        at(2)
    ));
    let fixed = at(4);
    rig.ok(&format!("docker run -d --name fixed --network small --ip {fixed} busybox sleep 600"));
    let taken = rig.fails(&format!("docker run --rm --network small --ip {fixed} busybox true"), 125);
    assert!(taken.contains("Address already in use"), "{taken}");
    let outside = rig.fails("docker run --rm --network small --ip 192.0.2.4 busybox true", 125);
    assert!(outside.contains("no configured subnet contains the IP address 192.0.2.4"), "{outside}");
    for (name, expected) in [("one", at(3)), ("two", at(5))] {
        rig.ok(&format!("docker run -d --name {name} --network small busybox sleep 600"));
        assert_eq!(networks(&rig, name)["small"]["IPAddress"], *expected);
    }
    let full = rig.fails("docker run --rm --network small busybox true", 125);
    assert!(full.contains(&format!("no available IPv4 addresses on subnet {}/29", at(0))), "{full}");
    rig.ok("docker rm -f one");
    rig.ok("docker run --rm --network small busybox true");
    let default = rig.fails("docker run --rm --ip 192.0.2.4 busybox true", 125);
    assert!(
        default.contains("user specified IP address is supported on user defined networks only"),
        "{default}"
    );
}

#[test]
fn what_excludes_each_other_is_refused() {
    let Some(rig) = rig() else { return };
    rig.ok("docker network create some");
    rig.ok("docker run -d --name peer busybox sleep 600");
    rig.ok("docker run -d --name on-host --network host busybox sleep 600");
    rig.ok("docker run -d --name alone --network none busybox sleep 600");
    for (flags, words) in [
        ("--network nosuch", "network nosuch not found"),
        (
            "--network some --network host",
            "cannot attach both user-defined and non-user-defined network-modes",
        ),
        ("--network some --network some", "network \"some\" is specified multiple times"),
        ("--network container:nosuch", "No such container: nosuch"),
        ("--network container:peer --hostname x", "conflicting options: hostname and the network mode"),
        ("--network container:peer -p 80:80", "port publishing and the container type network mode"),
        ("--network container:peer --dns 192.0.2.1", "conflicting options: dns and the network mode"),
        ("--network host --link peer", "host type networking can't be used with links"),
        ("--network-alias x", "network-scoped aliases are only supported for user-defined networks"),
        ("--network name=some,colour=red", "invalid field key colour"),
        ("--network name=some,driver-opt=colour=red", "driver option colour is not known"),
        ("--network some --link-local-ip 192.0.2.9", "192.0.2.9 is not a link-local address"),
    ] {
        let complaint = rig.fails(&format!("docker run --rm {flags} busybox true"), 125);
        assert!(complaint.contains(words), "{flags}: {complaint}");
    }
    for (line, words) in [
        ("connect some on-host", "cannot be connected to any other network"),
        ("connect some alone", "networks in private (none) mode"),
        ("connect host peer", "connected to host network"),
        ("disconnect host on-host", "cannot be disconnected from host network"),
    ] {
        let complaint = rig.fails(&format!("docker network {line}"), 1);
        assert!(complaint.contains(words), "{line}: {complaint}");
    }
    rig.ok("docker stop -t 0 peer");
    let complaint = rig.fails("docker run --rm --network container:peer busybox true", 125);
    assert!(complaint.contains("cannot join network of a non running container"), "{complaint}");
    assert_eq!(rig.ok("docker ps -aq").lines().count(), 3);
}

#[test]
fn a_killed_shim_leaves_neither_port_nor_address_nor_name() {
    let Some(rig) = rig() else { return };
    let port = free_port();
    let at = eight_addresses();
    rig.ok(&format!("docker network create --subnet {}/29 fragile", at(0)));
    serve(&rig, "web", &format!("--network fragile -p {port}:80"));
    rig.ok("docker run -d --name asker --network fragile busybox sleep 600");
    assert_eq!(asked(&rig, "asker", "web"), "web");
    let id = inspect(&rig, "web")["Id"].as_str().expect("an id").to_owned();
    kill_shim(&rig, &id);
    rig.eventually("it is known to have ended", || inspect(&rig, "web")["State"]["Status"] == "exited");
    assert!(is_unknown(&rig, "asker", "web"));
    let table = rig.ok("docker network inspect -f '{{.Id}}' fragile");
    let rules = rig.ok(&format!("nft list table ip dhow-{}", &table[..12]));
    assert!(!rules.contains(&format!("{port} :")), "{rules}");
    serve(&rig, "again", &format!("--network fragile -p {port}:80"));
    assert_eq!(rig.page(&format!("http://127.0.0.1:{port}/i")), "again\n");
    assert_eq!(networks(&rig, "again")["fragile"]["IPAddress"], *at(2));
}

/// Kills the process that looks after a container: the one that holds the lock in its run-time folder.
fn kill_shim(rig: &Rig, id: &str) {
    let lock = rig.path("run/containers").join(id).join("lock");
    let holders = std::fs::read_dir("/proc").expect("there is a /proc").flatten().filter(|process| {
        let descriptors = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        descriptors.into_iter().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|path| path == lock))
    });
    let pids: Vec<i32> = holders.filter_map(|process| process.file_name().to_str()?.parse().ok()).collect();
    assert_eq!(pids.len(), 1, "one process holds {}", lock.display());
    kill_process(Pid::from_raw(pids[0]).expect("a process"), Signal::KILL).expect("it can be killed");
}

#[test]
fn commands_that_are_killed_leave_the_next_one_working() {
    let Some(rig) = rig() else { return };
    rig.ok("docker run -d --name web busybox sleep 600");
    // Later and later, until one comes through.
    for (round, delay_us) in (0..).zip((0..).map(|step: u64| step * 1500)).take(40) {
        let done = kill_after(&rig, &format!("docker network create n{round}"), delay_us);
        rig.run(&format!("docker network create n{round}"));
        kill_after(&rig, &format!("docker network connect n{round} web"), delay_us);
        rig.run(&format!("docker network connect n{round} web"));
        assert!(networks(&rig, "web")[format!("n{round}")]["IPAddress"] != "", "round {round}");
        kill_after(&rig, &format!("docker network disconnect n{round} web"), delay_us);
        rig.run(&format!("docker network disconnect n{round} web"));
        kill_after(&rig, &format!("docker network rm n{round}"), delay_us);
        rig.run(&format!("docker network rm n{round}"));
        assert_eq!(rig.ok("docker network ls -q --filter type=custom"), "", "round {round}");
        assert_eq!(rig.ok("docker exec web ls /sys/class/net"), "eth0\nlo", "round {round}");
        if done {
            break;
        }
    }
    rig.ok("docker network prune --force");
    let root = rig.path("root");
    let networks = std::fs::read_dir(rig.path("run/networks")).expect("a folder of networks").flatten();
    let configs =
        networks.filter_map(|network| std::fs::read_to_string(network.path().join("config.json")).ok());
    let left: Vec<String> =
        configs.filter(|config| config.contains(root.to_str().expect("a path"))).collect();
    assert_eq!(left, [""; 0], "what was begun is gone");
}

/// Kills a command after a while; true if it was done before.
fn kill_after(rig: &Rig, line: &str, delay_us: u64) -> bool {
    let mut command = rig.at("").command(line);
    let mut child = command.stdout(std::process::Stdio::null()).spawn().expect("it starts");
    std::thread::sleep(std::time::Duration::from_micros(delay_us));
    let done = child.try_wait().expect("it is a child").is_some();
    let _ = child.kill();
    child.wait().expect("it ends");
    done
}

#[test]
fn unused_networks_are_pruned_with_the_rest() {
    let Some(rig) = rig() else { return };
    rig.ok("docker network create --label keep=yes kept");
    rig.ok("docker network create unused");
    rig.ok("docker network create used");
    rig.ok("docker run -d --name web --network used busybox sleep 600");
    let said = rig.ok("docker system prune --force --filter label!=keep");
    assert!(said.contains("Deleted Networks:\nunused\n"), "{said}");
    let left = rig.ok("docker network ls --filter type=custom --format '{{.Name}}'");
    assert_eq!(left, "kept\nused");
    assert_eq!(inspect(&rig, "used")["Name"], "used");
    assert_eq!(rig.ok("docker network prune --force"), "Deleted Networks:\nkept");
}
