//! A shim that dies without a word leaves nothing behind for long.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use dhow_net::{BridgeEndpoint, NetConfig, reconcile};
use dhow_sys::netns;

use crate::host::{Host, on_host, spec};

/// Tells the child below where its run directory is.
const RUN_DIR_VARIABLE: &str = "DHOW_NET_TEST_RUN_DIR";

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
    let endpoint =
        BridgeEndpoint::connect(&config, &spec("doomed", &["8080:80", "90/udp"]), std::io::stdin().as_fd());
    println!("\n{}", endpoint.as_ref().map_or_else(ToString::to_string, |_| "connected".into()));
    std::thread::sleep(std::time::Duration::from_secs(60));
}

#[test]
fn what_a_killed_shim_left_is_removed_by_whoever_comes_next() {
    on_host(|host| {
        for by_reconcile in [true, false] {
            let netns = netns::create().unwrap();
            let mut shim = start_shim(host, netns.try_clone().unwrap());
            assert_eq!(host.traces(), (2, 1));
            assert_eq!(reconcile(&host.config).unwrap(), 0, "the living are left alone");
            shim.kill().unwrap();
            shim.wait().unwrap();
            // The container's namespace lives on, so its device does.
            assert_eq!(host.traces(), (2, 1));

            if by_reconcile {
                assert_eq!(reconcile(&host.config).unwrap(), 1);
            } else {
                host.connect("next", &["8080:80"]).endpoint.disconnect().unwrap();
            }
            assert_eq!(host.traces(), (0, 0));
            assert_eq!(reconcile(&host.config).unwrap(), 0);
        }
    });
}

#[test]
fn a_failed_connect_leaves_nothing() {
    on_host(|host| {
        let file = std::fs::File::open("/dev/null").unwrap();
        let not_a_netns = BridgeEndpoint::connect(&host.config, &spec("a", &["8080:80"]), file.as_fd());
        assert!(not_a_netns.is_err());
        assert_eq!(host.traces(), (0, 0));
        assert_eq!(reconcile(&host.config).unwrap(), 0);
        host.connect("a", &["8080:80"]);
    });
}
