//! Real containers, as root, in a network namespace of the test's own: their life, and what is left after it.
//!
//! The test binary is its own shim, so its `main` is ours and not libtest's; it understands a filter, `--list` and
//! `--exact`.

mod life;
mod world;

use std::panic::catch_unwind;
use std::time::SystemTime;

use dhow_runtime::shim::{ShimHooks, main_if_requested};
use dhow_sys::process::CloneNamespaces;

fn main() {
    main_if_requested(ShimHooks {
        network: dhow_container::set_up_network,
        told: |request, told| dhow_container::told(request, told, jiff::Timestamp::now),
        exited: |removal, status| dhow_container::exited(removal, status, jiff::Timestamp::now),
        now: SystemTime::now,
    });
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        // nextest asks a second time for those that are ignored, and none is.
        let listed = if has("--ignored") { &[] } else { life::TESTS };
        listed.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    if !world::is_possible() {
        println!("skipped: needs root and a static busybox at {}", world::BUSYBOX);
        return;
    }
    CloneNamespaces::NETWORK.unshare().expect("root may have a network of its own");
    let netns = dhow_sys::netns::current().expect("there is one now");
    dhow_net::connect_loopback(std::os::fd::AsFd::as_fd(&netns)).expect("it has a loopback device");
    let exact = has("--exact");
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| {
        let fits = |filter: &&String| if exact { *filter == name } else { name.contains(filter.as_str()) };
        filters.is_empty() || filters.iter().any(fits)
    };
    let failed: Vec<&str> = life::TESTS
        .iter()
        .filter(|(name, _)| wanted(name))
        .filter_map(|(name, test)| {
            let ok = catch_unwind(test).is_ok();
            println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
            (!ok).then_some(*name)
        })
        .collect();
    if !failed.is_empty() {
        println!("\nfailed: {failed:?}");
        std::process::exit(101);
    }
}
