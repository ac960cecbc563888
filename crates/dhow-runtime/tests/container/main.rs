//! Real containers, as root: what a program sees, how it ends, what is left.
//!
//! The test binary is its own helper, so its `main` is ours and not libtest's; it understands a filter,
//! `--list` and `--exact`.

mod again;
mod exec;
mod inside;
mod life;
mod world;

use std::panic::catch_unwind;
use std::time::SystemTime;

use dhow_runtime::shim::{ShimHooks, main_if_requested};

type Test = (&'static str, fn());

fn main() {
    main_if_requested(ShimHooks {
        network: |_| Ok(Box::new(life::MarkerNetwork)),
        told: |request, told| again::mark_told(request, told),
        exited: |request, status| life::mark_exit(request, status),
        now: SystemTime::now,
    });
    let tests: Vec<Test> = [inside::TESTS, life::TESTS, again::TESTS, exec::TESTS].concat();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        // nextest asks a second time for those that are ignored, and none is.
        let listed = if has("--ignored") { &[] } else { &tests[..] };
        listed.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    if !world::is_possible() {
        println!("skipped: needs root and a static busybox at {}", world::BUSYBOX);
        return;
    }
    let exact = has("--exact");
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| {
        filters.is_empty()
            || filters.iter().any(|filter| if exact { *filter == name } else { name.contains(*filter) })
    };
    let failed: Vec<&str> = tests
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .filter_map(|(name, test)| {
            let ok = catch_unwind(test).is_ok();
            println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
            (!ok).then_some(name)
        })
        .collect();
    if !failed.is_empty() {
        println!("\nfailed: {failed:?}");
        std::process::exit(101);
    }
}
