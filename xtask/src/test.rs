//! `cargo xtask test`: everything continuous integration runs, in the order in which mistakes are cheapest to find.

use std::env;
use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::command::{output, run as run_command, step};
use crate::registry::{Settings, TestRegistry};
use crate::setup::{self, Group};

/// Seeds the cases of property tests; proptest reads it.
const PROPERTY_SEED: &str = "PROPTEST_RNG_SEED";

/// Checks and tests. The last thing printed is the test runner's own summary.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    step("setup", || setup::run(&[Group::Images, Group::Test]))?;
    step("format", || run_command(cargo().args(["fmt", "--all", "--check"])))?;
    step("clippy", || {
        run_command(cargo().args([
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ]))
    })?;
    let registry = step("images and registry", || TestRegistry::start(&Settings::default()))?;
    step("build", || run_command(cargo().args(["test", "--quiet", "--workspace", "--no-run"])))?;
    println!("==> tests");
    let status = runner().envs(registry.variables()).status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// nextest where it is installed: it runs tests of all crates side by side and counts them together.
fn runner() -> Command {
    let mut command = cargo();
    if output(cargo().args(["nextest", "--version"])).is_ok() {
        command.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
    } else {
        println!("cargo-nextest is not installed; cargo test runs one crate after the other");
        command.args(["test", "--workspace", "--no-fail-fast"]);
    }
    // One commit has one verdict: property tests draw the same cases each time here, and others in
    // every run by hand.
    if env::var_os(PROPERTY_SEED).is_none() {
        command.env(PROPERTY_SEED, "1");
    }
    command
}

/// The cargo that started us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::paths::workspace());
    command
}
