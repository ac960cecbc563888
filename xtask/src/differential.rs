//! `cargo xtask differential`: the same Dockerfiles built by docker and by dhow.
//!
//! The cases are in `conformance/build`, each with what docker made of it when it was last asked; the tests of `dhow` compare
//! with that and need no docker. This chore asks docker again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::Context as _;
use dhow_differential::{Case, Judge, Outcome, Tool, cases};

use crate::arguments::DifferentialOptions;
use crate::docker::Docker;
use crate::registry::{Settings, TestRegistry};
use crate::setup::{self, Group};
use crate::{command, paths, test};

/// The test images that cases build upon: small ones.
const BASES: [&str; 4] = ["alpine", "busybox", "mongo", "hello-world"];

/// Compares and says of each case that is not equal what differs. The last line counts.
pub(crate) fn run(options: &DifferentialOptions) -> anyhow::Result<ExitCode> {
    setup::run(&[Group::Images, Group::Differential])?;
    command::run(test::cargo().args(["build", "--quiet", "-p", "dhow"]))?;
    let registry = TestRegistry::start(&Settings::default())?;
    let home = tempfile::Builder::new().prefix("differential-").tempdir_in(paths::target())?;
    let docker = Docker::find_or_start(options.docker.as_deref(), &home.path().join("docker"))?;
    for base in BASES {
        docker.pull(&registry, base)?;
    }
    let docker = Tool::new(|| docker.command(), &BASES, home.path())?;
    let dhow = Dhow::new(&registry, &home.path().join("dhow"))?;
    for base in BASES {
        command::output(dhow.command().args(["pull", "--quiet", base]))?;
    }
    let dhow = Tool::new(|| dhow.command(), &BASES, home.path())?;
    let contest = Contest { docker, dhow, record: options.record };
    let (mut passed, mut failed) = (0, 0);
    for case in cases(&paths::workspace().join("conformance/build"), &options.only)? {
        let start = Instant::now();
        match contest.hold(&case).with_context(|| format!("{} cannot be compared", case.name))? {
            Verdict::Equal => passed += 1,
            Verdict::Recorded(note) => {
                println!("{}: {note}", case.name);
                passed += 1;
            }
            Verdict::Different(lines) => {
                let seconds = start.elapsed().as_secs_f64();
                println!(
                    "FAIL {} ({seconds:.1} s): {}\n     {}",
                    case.name,
                    case.title,
                    lines.join("\n     ")
                );
                failed += 1;
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The built binary with a store of its own.
struct Dhow {
    folder: PathBuf,
}

impl Dhow {
    fn new(registry: &TestRegistry, folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("config.toml"), registry.dhow_config())?;
        Ok(Self { folder: folder.to_owned() })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(paths::target().join("debug/dhow"));
        command.env("DHOW_ROOT", self.folder.join("root")).env("DHOW_RUN", self.folder.join("run"));
        command.env("DHOW_CONFIG", self.folder.join("config.toml"));
        command
    }
}

struct Contest<'a> {
    docker: Tool<'a>,
    dhow: Tool<'a>,
    record: bool,
}

enum Verdict {
    Equal,
    Recorded(&'static str),
    Different(Vec<String>),
}

impl Contest<'_> {
    fn hold(&self, case: &Case) -> anyhow::Result<Verdict> {
        match (&case.judge, &case.recorded) {
            (Judge::Docker, recorded) => {
                let (outcome, _) = build(&self.docker, case)?;
                if !self.record {
                    return self.compare(case, &outcome);
                }
                let is_new = recorded.as_ref().is_none_or(|old| !old.differences(&outcome).is_empty());
                case.record(&outcome)?;
                Ok(if is_new { Verdict::Recorded("recorded") } else { Verdict::Equal })
            }
            (Judge::Reason(_), Some(expected)) => self.compare(case, expected),
            (Judge::Reason(_), None) => {
                case.record(&build(&self.dhow, case)?.0)?;
                Ok(Verdict::Recorded("written down as dhow has it: see whether that is right"))
            }
        }
    }

    fn compare(&self, case: &Case, expected: &Outcome) -> anyhow::Result<Verdict> {
        let (outcome, said) = build(&self.dhow, case)?;
        let mut lines = expected.differences(&outcome);
        lines
            .extend(case.unsaid(&said).into_iter().map(|piece| format!("it does not say `{piece}`: {said}")));
        Ok(if lines.is_empty() { Verdict::Equal } else { Verdict::Different(lines) })
    }
}

fn build(tool: &Tool<'_>, case: &Case) -> anyhow::Result<(Outcome, String)> {
    // A name of its own for each: docker takes folders of one name for one context.
    let scratch = tempfile::Builder::new().prefix("case-").tempdir()?;
    tool.build(case, scratch.path())
}
