//! Wall time of commands that take turns.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// One contender's way to do the work.
pub(crate) struct Turn<'a> {
    /// Who does it.
    pub(crate) who: &'a str,
    /// What must be so before each turn; its time does not count.
    pub(crate) prepare: Box<dyn Fn() -> anyhow::Result<()> + 'a>,
    /// The work.
    pub(crate) work: Box<dyn Fn() -> Command + 'a>,
    /// It is done by a daemon: what the command itself needs says nothing.
    pub(crate) by_daemon: bool,
}

/// One contender's results.
pub(crate) struct Result {
    pub(crate) who: String,
    /// Sorted.
    pub(crate) wall: Vec<Duration>,
    pub(crate) resources: Option<Resources>,
}

/// What a command and those it started needed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Resources {
    /// Of the largest process.
    pub(crate) peak_kib: u64,
    /// User and system together.
    pub(crate) processor_seconds: f64,
}

/// A workload's results; the first is dhow's.
pub(crate) struct Measured {
    pub(crate) title: String,
    pub(crate) results: Vec<Result>,
}

impl Result {
    pub(crate) fn median(&self) -> Duration {
        self.wall[self.wall.len() / 2]
    }
}

/// A warm-up, then `rounds` in which everybody has a turn, then one more for the resources.
pub(crate) fn measure(title: &str, rounds: u32, turns: &[Turn<'_>]) -> anyhow::Result<Measured> {
    let mut results: Vec<Result> = turns
        .iter()
        .map(|turn| Result { who: turn.who.to_owned(), wall: Vec::new(), resources: None })
        .collect();
    for round in 0..=rounds {
        for (turn, result) in turns.iter().zip(&mut results) {
            let took = timed(turn, (turn.work)()).with_context(|| format!("{title}: {}", turn.who))?;
            if round > 0 {
                result.wall.push(took);
            }
        }
    }
    for (turn, result) in turns.iter().zip(&mut results) {
        result.wall.sort_unstable();
        if !turn.by_daemon {
            result.resources = Some(resources(turn).with_context(|| format!("{title}: {}", turn.who))?);
        }
    }
    Ok(Measured { title: title.to_owned(), results })
}

fn timed(turn: &Turn<'_>, mut command: Command) -> anyhow::Result<Duration> {
    (turn.prepare)()?;
    let log = tempfile::NamedTempFile::new()?;
    command.stdin(Stdio::null()).stdout(log.reopen()?).stderr(log.reopen()?);
    let start = Instant::now();
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    let took = start.elapsed();
    if !status.success() {
        bail!("{command:?} failed ({status}): {}", fs::read_to_string(log.path())?.trim());
    }
    Ok(took)
}

/// Has GNU time look on.
fn resources(turn: &Turn<'_>) -> anyhow::Result<Resources> {
    let note = tempfile::NamedTempFile::new()?;
    let work = (turn.work)();
    let mut command = Command::new("/usr/bin/time");
    command.args(["--format", "%M %U %S", "--output"]).arg(note.path());
    command.arg(work.get_program()).args(work.get_args());
    for (name, value) in work.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(folder) = work.get_current_dir() {
        command.current_dir(folder);
    }
    timed(turn, command)?;
    read_note(note.path())
}

fn read_note(path: &Path) -> anyhow::Result<Resources> {
    parse_note(&fs::read_to_string(path)?).context("GNU time wrote something else")
}

fn parse_note(text: &str) -> Option<Resources> {
    let mut words = text.lines().last()?.split_whitespace();
    let peak_kib = words.next()?.parse().ok()?;
    let [user, system]: [f64; 2] = [words.next()?.parse().ok()?, words.next()?.parse().ok()?];
    Some(Resources { peak_kib, processor_seconds: user + system })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_kibibytes_and_two_times() {
        let resources = Resources { peak_kib: 31_412, processor_seconds: 1.5 };
        assert_eq!(parse_note("31412 1.25 0.25\n"), Some(resources));
        assert_eq!(parse_note("Command exited with non-zero status 1\n"), None);
    }

    #[test]
    fn everybody_has_as_many_turns_and_preparations_do_not_count() {
        let turn = |who| Turn {
            who,
            prepare: Box::new(|| {
                std::thread::sleep(Duration::from_millis(30));
                Ok(())
            }),
            work: Box::new(|| Command::new("true")),
            by_daemon: true,
        };
        let measured = measure("nothing", 3, &[turn("a"), turn("b")]).unwrap();
        assert!(measured.results.iter().all(|result| result.wall.len() == 3));
        let failing = Turn { work: Box::new(|| Command::new("false")), ..turn("c") };
        assert!(measure("nothing", 1, &[failing]).is_err());
    }
}
