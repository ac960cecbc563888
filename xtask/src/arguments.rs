//! What can be asked for on the command line.

use std::path::PathBuf;

use crate::setup::Group;

/// Shown by `--help` and under every mistake.
pub(crate) const USAGE: &str = "\
usage: cargo xtask <chore>

  setup [--for GROUP,..]   install what this machine lacks (GROUP: images, test, differential, demo, bench;
                           default: images,test)
  images                   make the test images and put them into the test registry, where they stay
  registry [--port N] [--auth USER:PASSWORD] [-- COMMAND..]
                           serve the test images on 127.0.0.1 until Ctrl-C, or while COMMAND runs, which finds the
                           address in DHOW_TEST_REGISTRY and that of a search server in DHOW_TEST_SEARCH
  test                     everything continuous integration runs
  differential [--only WORD] [--docker SOCKET] [--record]
                           build the cases of conformance/build with dhow and with Debian's docker, or that behind
                           SOCKET, and compare; with --record, write down what docker does
  bench [--rounds N] [WORKLOAD..]
                           measure dhow against docker, podman and buildah; without WORKLOAD, all of it, and write
                           docs/benchmarks.md
  demo                     build dhow and walk two tutorials with it";

/// One chore with its options.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chore {
    /// Print the usage.
    Help,
    /// Install missing packages.
    Setup(Vec<Group>),
    /// Make the test images.
    Images,
    /// Serve the test images.
    Registry(RegistryOptions),
    /// Check and test everything.
    Test,
    /// Compare dhow with docker.
    Differential(DifferentialOptions),
    /// Measure dhow and its rivals.
    Bench(BenchOptions),
    /// Show what dhow does.
    Demo,
}

/// What to measure, and how often.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BenchOptions {
    /// Without any, all.
    pub(crate) workloads: Vec<String>,
    /// Turns that count.
    pub(crate) rounds: u32,
}

/// So many that one disturbance moves no median.
const BENCH_ROUNDS: u32 = 7;

/// Which cases to compare, and with whom.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct DifferentialOptions {
    /// Only cases with this in their name.
    pub(crate) only: String,
    /// The socket of a docker that runs; without one, Debian's is started.
    pub(crate) docker: Option<PathBuf>,
    /// Write down what docker does.
    pub(crate) record: bool,
}

/// How to serve the test images by hand.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RegistryOptions {
    /// Port on 127.0.0.1; without one, a free one.
    pub(crate) port: Option<u16>,
    /// Demand these credentials.
    pub(crate) login: Option<Login>,
    /// Serve only while this runs.
    pub(crate) command: Vec<String>,
}

/// A user name and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Login {
    /// Cannot be empty and holds no colon.
    pub(crate) user: String,
    /// May hold anything.
    pub(crate) password: String,
}

impl Chore {
    /// Reads the words after `cargo xtask`.
    pub(crate) fn parse(words: &[String]) -> Result<Self, String> {
        let Some((name, options)) = words.split_first() else { return Ok(Self::Help) };
        match name.as_str() {
            "-h" | "--help" | "help" => Ok(Self::Help),
            "setup" => parse_groups(options).map(Self::Setup),
            "registry" => parse_registry(options).map(Self::Registry),
            "images" => no_options(options, Self::Images),
            "differential" => parse_differential(options).map(Self::Differential),
            "bench" => parse_bench(options).map(Self::Bench),
            "test" => no_options(options, Self::Test),
            "demo" => no_options(options, Self::Demo),
            other => Err(format!("`{other}` is not a chore")),
        }
    }
}

fn no_options(options: &[String], chore: Chore) -> Result<Chore, String> {
    match options.first() {
        None => Ok(chore),
        Some(word) => Err(format!("`{word}` is unexpected here")),
    }
}

fn parse_groups(options: &[String]) -> Result<Vec<Group>, String> {
    let mut groups = Vec::new();
    for (name, value) in pairs(options)? {
        match name {
            "--for" => {
                for word in value.split(',') {
                    groups.push(
                        Group::parse(word).ok_or_else(|| format!("`{word}` is not a group of packages"))?,
                    );
                }
            }
            other => return Err(format!("`{other}` is unexpected here")),
        }
    }
    Ok(if groups.is_empty() { vec![Group::Images, Group::Test] } else { groups })
}

fn parse_registry(options: &[String]) -> Result<RegistryOptions, String> {
    let end = options.iter().position(|word| word == "--").unwrap_or(options.len());
    let command = options.get(end + 1..).unwrap_or_default().to_vec();
    if end < options.len() && command.is_empty() {
        return Err("a command is missing after `--`".to_owned());
    }
    let mut parsed = RegistryOptions { command, ..RegistryOptions::default() };
    for (name, value) in pairs(&options[..end])? {
        match name {
            "--port" => parsed.port = Some(value.parse().map_err(|_| format!("`{value}` is not a port"))?),
            "--auth" => parsed.login = Some(parse_login(value)?),
            other => return Err(format!("`{other}` is unexpected here")),
        }
    }
    Ok(parsed)
}

fn parse_differential(options: &[String]) -> Result<DifferentialOptions, String> {
    let mut options = options.to_vec();
    let count = options.len();
    options.retain(|word| word != "--record");
    let record = options.len() < count;
    let mut parsed = DifferentialOptions { record, ..DifferentialOptions::default() };
    for (name, value) in pairs(&options)? {
        match name {
            "--only" => value.clone_into(&mut parsed.only),
            "--docker" => parsed.docker = Some(value.into()),
            other => return Err(format!("`{other}` is unexpected here")),
        }
    }
    Ok(parsed)
}

fn parse_bench(options: &[String]) -> Result<BenchOptions, String> {
    let mut parsed = BenchOptions { workloads: Vec::new(), rounds: BENCH_ROUNDS };
    let end = options.iter().position(|word| !word.starts_with("--") && word.parse::<u32>().is_err());
    let (options, workloads) = options.split_at(end.unwrap_or(options.len()));
    for (name, value) in pairs(options)? {
        match (name, value.parse()) {
            ("--rounds", Ok(rounds)) if rounds > 0 => parsed.rounds = rounds,
            ("--rounds", _) => return Err(format!("`{value}` is not a number of rounds")),
            (other, _) => return Err(format!("`{other}` is unexpected here")),
        }
    }
    workloads.clone_into(&mut parsed.workloads);
    Ok(parsed)
}

fn parse_login(text: &str) -> Result<Login, String> {
    match text.split_once(':') {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => {
            Ok(Login { user: user.to_owned(), password: password.to_owned() })
        }
        // The text is not repeated: it may hold a password.
        _ => Err("--auth wants USER:PASSWORD".to_owned()),
    }
}

/// Reads `--name value` and `--name=value`; every option of every chore has a value.
fn pairs(options: &[String]) -> Result<Vec<(&str, &str)>, String> {
    let mut pairs = Vec::new();
    let mut words = options.iter();
    while let Some(word) = words.next() {
        match word.split_once('=') {
            Some(pair) => pairs.push(pair),
            None if word.starts_with("--") => {
                let value = words.next().ok_or_else(|| format!("`{word}` wants a value"))?;
                pairs.push((word, value));
            }
            None => return Err(format!("`{word}` is unexpected here")),
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(line: &str, expected: Expect) {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        expected.assert_eq(&match Chore::parse(&words) {
            Ok(chore) => format!("{chore:?}"),
            Err(message) => format!("error: {message}"),
        });
    }

    #[test]
    fn setup_is_for_building_images_and_testing_unless_told_otherwise() {
        check("setup", expect!["Setup([Images, Test])"]);
        check("setup --for demo,bench", expect!["Setup([Demo, Bench])"]);
        check("setup --for=demo", expect!["Setup([Demo])"]);
        check("setup --for lunch", expect!["error: `lunch` is not a group of packages"]);
        check("setup --for", expect!["error: `--for` wants a value"]);
    }

    #[test]
    fn registry_takes_a_command_after_two_dashes() {
        check("registry", expect!["Registry(RegistryOptions { port: None, login: None, command: [] })"]);
        check(
            "registry --port 5000 -- cargo nextest run --workspace",
            expect![[
                r#"Registry(RegistryOptions { port: Some(5000), login: None, command: ["cargo", "nextest", "run", "--workspace"] })"#
            ]],
        );
        check("registry --", expect!["error: a command is missing after `--`"]);
        check("registry --port 70000", expect!["error: `70000` is not a port"]);
    }

    #[test]
    fn a_comparison_may_be_of_some_cases_with_some_docker() {
        check(
            "differential --record --only copy",
            expect![[r#"Differential(DifferentialOptions { only: "copy", docker: None, record: true })"#]],
        );
        check(
            "differential --docker=/run/docker.sock",
            expect![[
                r#"Differential(DifferentialOptions { only: "", docker: Some("/run/docker.sock"), record: false })"#
            ]],
        );
        check("differential copy", expect!["error: `copy` is unexpected here"]);
    }

    #[test]
    fn a_measurement_may_be_of_some_workloads() {
        check("bench", expect!["Bench(BenchOptions { workloads: [], rounds: 7 })"]);
        check(
            "bench --rounds 3 pull push",
            expect![[r#"Bench(BenchOptions { workloads: ["pull", "push"], rounds: 3 })"#]],
        );
        check("bench --rounds 0", expect!["error: `0` is not a number of rounds"]);
    }

    #[test]
    fn a_wrong_login_is_not_repeated() {
        check("registry --auth secret", expect!["error: --auth wants USER:PASSWORD"]);
        check("registry --auth :secret", expect!["error: --auth wants USER:PASSWORD"]);
        check(
            "registry --auth moby:a:b",
            expect![[
                r#"Registry(RegistryOptions { port: None, login: Some(Login { user: "moby", password: "a:b" }), command: [] })"#
            ]],
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        check("imges", expect!["error: `imges` is not a chore"]);
        check("images --fast", expect!["error: `--fast` is unexpected here"]);
        check("registry 5000", expect!["error: `5000` is unexpected here"]);
        check("setup --until now", expect!["error: `--until` is unexpected here"]);
    }
}
