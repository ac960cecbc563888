//! The processes of a container, as ps shows them.

use std::path::PathBuf;
use std::process::Command;

use crate::containers::Containers;
use crate::error::{DiskError, FindError, disk};
use crate::freeze;
use crate::record::State;

/// What ps is asked for when nobody asks for more.
const PS_ARGS: [&str; 1] = ["-ef"];

/// A table of processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// The titles of the columns.
    pub titles: Vec<String>,
    /// The cells of each line.
    pub rows: Vec<Vec<String>>,
}

/// Why there is no table of processes.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It does not run.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// It is between two runs.
    #[error("Container {0} is restarting, wait until the container is running")]
    Restarting(String),
    /// The host has no ps.
    #[error("cannot find ps, which shows processes, in any folder of PATH")]
    NoPs,
    /// ps does not take the arguments.
    #[error("ps: {0}")]
    Ps(String),
    /// Without that column nobody knows which process is whose.
    #[error("couldn't find PID field in ps output")]
    NoPid,
    /// The disk failed us.
    #[error(transparent)]
    Io(#[from] DiskError),
}

impl Containers {
    /// The processes of a running container, as the `ps` in one of `folders` shows them with `args`.
    pub fn top(&self, text: &str, args: &[String], folders: &[PathBuf]) -> Result<Processes, TopError> {
        let container = self.find(text)?;
        match container.state {
            State::Running { .. } => {}
            State::Restarting { .. } => return Err(TopError::Restarting(container.id)),
            _ => return Err(TopError::NotRunning(container.id)),
        }
        let bundle = self.bundle(&container.id);
        let failed = disk("list the processes of", bundle.dir());
        let pids =
            freeze::group(&self.bundle(&container.id)).and_then(|group| group.processes()).map_err(failed)?;
        let ps = folders.iter().map(|folder| folder.join("ps")).find(|path| path.is_file());
        let mut command = Command::new(ps.ok_or(TopError::NoPs)?);
        if args.is_empty() {
            command.args(PS_ARGS)
        } else {
            command.args(args)
        };
        let output = command.output().map_err(|error| TopError::Ps(error.to_string()))?;
        if !output.status.success() {
            return Err(TopError::Ps(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        let processes = processes(&String::from_utf8_lossy(&output.stdout), &pids).ok_or(TopError::NoPid)?;
        self.tell(&container, "top", &[]);
        Ok(processes)
    }
}

/// The lines of the output of ps that are about one of `pids`.
fn processes(output: &str, pids: &[i32]) -> Option<Processes> {
    let mut lines = output.lines();
    let titles: Vec<String> = lines.next()?.split_ascii_whitespace().map(String::from).collect();
    let pid = titles.iter().position(|title| title == "PID")?;
    let cells = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_meant = words.get(pid)?.parse().is_ok_and(|pid| pids.contains(&pid));
        // The last column, a command, may have blanks in it.
        let (cells, rest) = words.split_at(words.len().min(titles.len() - 1));
        is_meant.then(|| cells.iter().map(ToString::to_string).chain([rest.join(" ")]).collect())
    };
    let rows = lines.filter_map(cells).collect();
    Some(Processes { titles, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_container_s_processes_are_kept_and_their_commands_are_whole() {
        let output = "UID PID CMD\nroot 1 init\nroot 12 sh -c  sleep 1\n";
        let found = processes(output, &[12, 13]).unwrap();
        assert_eq!(found.titles, ["UID", "PID", "CMD"]);
        assert_eq!(found.rows, [["root", "12", "sh -c sleep 1"]]);
        assert_eq!(processes("UID CMD\n", &[]), None);
    }
}
