//! `cargo xtask bench`: dhow and its rivals on the same work, in one run, in turns.
//!
//! ```text
//! workloads ── rivals    who takes part, each in a folder of its own
//!          ├── content   what they work on: the same bytes in every run
//!          ├── measure   A B C A B C …: wall time; once more for memory and processor time
//!          └── report    docs/benchmarks.md, and the same as JSON and as a picture
//! ```

mod content;
mod measure;
mod report;
mod rivals;
mod transfer;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};

use crate::arguments::BenchOptions;
use crate::command::{self, step};
use crate::setup::{self, Group};
use crate::{paths, test};
use measure::Measured;
use rivals::Rivals;

/// What a workload gets to work with.
struct Arena<'a> {
    rivals: &'a Rivals,
    /// For what it makes.
    folder: PathBuf,
    /// Where turns take long, there are fewer.
    rounds: u32,
}

/// Something everybody can do.
struct Workload {
    /// As on the command line.
    name: &'static str,
    run: fn(&Arena<'_>) -> anyhow::Result<Vec<Measured>>,
}

const WORKLOADS: &[Workload] = &[
    Workload { name: "pull", run: transfer::pull },
    Workload { name: "push", run: transfer::push },
    Workload { name: "pull-1g", run: transfer::pull_large },
    Workload { name: "registry", run: transfer::registry },
];

/// Measures what is asked for, and writes the report if that is everything.
pub(crate) fn run(options: &BenchOptions) -> anyhow::Result<()> {
    for name in &options.workloads {
        if !WORKLOADS.iter().any(|workload| workload.name == name) {
            let names: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
            bail!("`{name}` is not a workload; there are {}", names.join(", "));
        }
    }
    ensure!(command::is_root(), "docker and its like are measured as root: run this as root");
    step("setup", || setup::run(&[Group::Bench, Group::Images]))?;
    step("building dhow", || command::run(test::cargo().args(["build", "--release", "--package", "dhow"])))?;
    let folder = paths::target().join("bench");
    let rivals = step("rivals", || Rivals::start(&folder))?;
    let mut measured = Vec::new();
    for workload in WORKLOADS {
        if options.workloads.is_empty() || options.workloads.iter().any(|name| name == workload.name) {
            let folder = folder.join(workload.name);
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
            let arena = Arena { rivals: &rivals, folder, rounds: options.rounds };
            let of_this = step(workload.name, || (workload.run)(&arena))?;
            print!("{}", report::tables(&of_this));
            measured.extend(of_this);
        }
    }
    let report = report::write(&measured, &rivals.versions(), options)?;
    println!("bench: written to {}", report.display());
    Ok(())
}
