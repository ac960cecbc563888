//! A shim that dies without a word leaves nothing behind for long.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use dhow_net::{ConnectError, EndpointSpec, NetConfig, Sandbox};
use dhow_sys::netns;

use crate::host::{Host, endpoint, on_host, spec};

/// Tells the child below where its run directory is.
const RUN_DIR_VARIABLE: &str = "DHOW_NET_TEST_RUN_DIR";

fn reconcile(host: &Host) -> Result<usize, ConnectError> {
    dhow_net::reconcile(&host.config.run_dir, None, &|_| true, SystemTime::now())
}

/// Starts this test program again as a shim: it connects the namespace on its standard input and waits.
fn start_shim(host: &Host, netns: std::os::fd::OwnedFd) -> Child {
    let mut shim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::shim", "--nocapture"])
        .env(RUN_DIR_VARIABLE, &host.config.run_dir)
        .stdin(netns)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(shim.stdout.as_mut().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.ends_with("connected")));
    shim
}

#[test]
fn shim() {
    let Some(run_dir) = std::env::var_os(RUN_DIR_VARIABLE) else { return };
    let config = NetConfig::default_bridge(run_dir);
    let spec = spec("doomed", &["8080:80", "90/udp"]);
    let mut sandbox = Sandbox::open(spec.sandbox, std::io::stdin().as_fd()).unwrap();
    let connected = sandbox.connect(&[(config, spec.endpoint)]);
    println!("\n{}", connected.map_or_else(|error| error.to_string(), |()| "connected".into()));
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn what_a_killed_shim_left_is_removed_by_whoever_comes_next() {
    on_host(|host| {
        for by_reconcile in [true, false] {
            let netns = netns::create().unwrap();
            let mut shim = start_shim(host, netns.try_clone().unwrap());
            assert_eq!(host.traces(), (2, 1));
            assert_eq!(reconcile(host).unwrap(), 0, "the living are left alone");
            shim.kill().unwrap();
            shim.wait().unwrap();
            // The container's namespace lives on, so its device does.
            assert_eq!(host.traces(), (2, 1));

            if by_reconcile {
                assert_eq!(reconcile(host).unwrap(), 1);
            } else {
                host.connect("next", &["8080:80"]).sandbox.close().unwrap();
            }
            assert_eq!(host.traces(), (0, 0));
            assert_eq!(reconcile(host).unwrap(), 0);
        }
    });
}

#[test]
fn a_failed_connect_leaves_nothing() {
    on_host(|host| {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(Sandbox::open(spec("a", &[]).sandbox, file.as_fd()).is_err());
        let netns = netns::create().unwrap();
        let mut sandbox = Sandbox::open(spec("a", &["8080:80"]).sandbox, netns.as_fd()).unwrap();
        // The kernel has no device of that name.
        let bad = EndpointSpec { device: Some("not/a/device".into()), ..endpoint("a") };
        assert!(sandbox.connect(&[(host.config.clone(), bad)]).is_err());
        assert_eq!(host.traces(), (0, 0));
        assert_eq!(reconcile(host).unwrap(), 0);
        host.connect("a", &["8080:80"]);
    });
}
