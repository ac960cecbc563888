//! The text of a case.
//!
//! ```text
//! A directory is copied by its contents, not itself.
//! build: --build-arg TO=/dst
//! -- Dockerfile --
//! FROM alpine
//! ARG TO
//! COPY src $TO
//! -- src/run.sh mode=755 --
//! #!/bin/sh
//! -- src/again -> run.sh --
//! == docker ==
//! dir /dst 755
//! ...
//! ```
//! Before the files stand a sentence and fields: `build:` has arguments of a build (one line for each, the last is looked at),
//! `says:` a piece of what a refusal has to say. Where docker is no judge, the outcome's line gives the reason:
//! `== expected: docker 20.10 has no heredocs ==`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::context::ContextFile;
use crate::outcome::Outcome;

/// One behaviour, shown by a build.
#[derive(Debug)]
pub struct Case {
    /// Its path below the folder of cases, without the ending.
    pub name: String,
    path: PathBuf,
    /// What is shown, in a sentence.
    pub title: String,
    /// Arguments of each build, of which the last is looked at.
    pub(crate) builds: Vec<Vec<String>>,
    /// Pieces of the complaint.
    pub(crate) says: Vec<String>,
    pub(crate) files: Vec<ContextFile>,
    /// Whose word counts.
    pub judge: Judge,
    /// The outcome as it is written down, if it is already.
    pub recorded: Option<Outcome>,
    /// The text before the outcome.
    head: String,
}

/// Who knows the right outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judge {
    /// What docker does is right.
    Docker,
    /// Docker is too old or wrong; the outcome was written by hand, for this reason.
    Reason(String),
}

/// All cases below `folder` whose name contains `only`, in order.
pub fn cases(folder: &Path, only: &str) -> anyhow::Result<Vec<Case>> {
    let mut paths = Vec::new();
    find(folder, &mut paths)?;
    paths.sort();
    let name = |path: &Path| {
        let relative = path.strip_prefix(folder).expect("it was found in there");
        relative.with_extension("").to_string_lossy().into_owned()
    };
    let wanted = paths.into_iter().filter(|path| name(path).contains(only));
    wanted.map(|path| Case::read(&path, name(&path))).collect()
}

fn find(folder: &Path, paths: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, paths)?;
        } else if path.extension().is_some_and(|ending| ending == "case") {
            paths.push(path);
        }
    }
    Ok(())
}

impl Case {
    fn read(path: &Path, name: String) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text, name, path).with_context(|| format!("in {}", path.display()))
    }

    fn parse(text: &str, name: String, path: &Path) -> anyhow::Result<Self> {
        let (head, judge, recorded) = split_outcome(text)?;
        let mut case = Self {
            name,
            path: path.to_owned(),
            title: String::new(),
            builds: Vec::new(),
            says: Vec::new(),
            files: Vec::new(),
            judge,
            recorded,
            head: head.to_owned(),
        };
        for line in head.split_inclusive('\n') {
            match (marker(line), case.files.last_mut()) {
                (Some(words), _) => case.files.push(ContextFile::parse(words)?),
                (None, Some(file)) => file.body.push_str(line),
                (None, None) => case.field(line.trim_end())?,
            }
        }
        if case.builds.is_empty() {
            case.builds.push(Vec::new());
        }
        if case.title.is_empty() {
            bail!("there is no sentence that says what this case shows");
        }
        Ok(case)
    }

    fn field(&mut self, line: &str) -> anyhow::Result<()> {
        match line.split_once(": ") {
            Some(("build", words)) => self.builds.push(words.split_whitespace().map(str::to_owned).collect()),
            Some(("says", text)) => self.says.push(text.to_owned()),
            _ if self.builds.is_empty() && self.says.is_empty() => {
                self.title = format!("{} {line}", self.title).trim().to_owned();
            }
            _ => bail!("`{line}` is no field; known are build and says"),
        }
        Ok(())
    }

    /// Writes the outcome into the case's file.
    pub fn record(&self, outcome: &Outcome) -> anyhow::Result<()> {
        let judge = match &self.judge {
            Judge::Docker => "docker".to_owned(),
            Judge::Reason(reason) => format!("expected: {reason}"),
        };
        let text = format!("{}== {judge} ==\n{outcome}", self.head);
        fs::write(&self.path, text).with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// The pieces of the complaint that `said` lacks.
    pub fn unsaid(&self, said: &str) -> Vec<&str> {
        self.says.iter().map(String::as_str).filter(|piece| !said.contains(piece)).collect()
    }
}

/// What stands before the outcome, whose outcome it is, and the outcome.
fn split_outcome(text: &str) -> anyhow::Result<(&str, Judge, Option<Outcome>)> {
    let Some(start) = text.find("\n== ").map(|at| at + 1) else { return Ok((text, Judge::Docker, None)) };
    let (head, rest) = text.split_at(start);
    let (line, outcome) = rest.split_once('\n').unwrap_or((rest, ""));
    let judge = line.strip_prefix("== ").and_then(|line| line.strip_suffix(" =="));
    let judge = match judge.map(|judge| judge.split_once(": ").unwrap_or((judge, ""))) {
        Some(("docker", "")) => Judge::Docker,
        Some(("expected", reason)) if !reason.is_empty() => Judge::Reason(reason.to_owned()),
        _ => bail!("`{line}` should be `== docker ==` or `== expected: REASON ==`"),
    };
    let outcome = (!outcome.is_empty()).then(|| Outcome::written(outcome));
    Ok((head, judge, outcome))
}

/// The words of a line `-- WORDS --`.
fn marker(line: &str) -> Option<&str> {
    line.trim_end_matches('\n').strip_prefix("-- ")?.strip_suffix(" --")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Case> {
        Case::parse(text, "name".to_owned(), Path::new("name.case"))
    }

    #[test]
    fn a_case_is_a_sentence_fields_files_and_an_outcome() {
        let case = parse(
            "It is\nso.\nbuild: --target a\nbuild: .\n-- Dockerfile --\nFROM a\n-- b c --\n== docker ==\nrefused\n",
        )
        .err();
        assert!(case.is_some_and(|error| error.to_string().contains("`c`")));
        let case = parse("It is\nso.\nbuild: --target a\n-- Dockerfile --\nFROM a\n== docker ==\nrefused\n");
        let case = case.unwrap();
        assert_eq!(case.title, "It is so.");
        assert_eq!(case.builds, [["--target", "a"]]);
        assert_eq!(case.files[0].body, "FROM a\n");
        assert_eq!((case.judge, case.recorded.is_some()), (Judge::Docker, true));
    }

    #[test]
    fn docker_is_the_judge_unless_there_is_a_reason() {
        let judge = |line: &str| parse(&format!("So.\n{line}\n")).map(|case| case.judge).ok();
        assert_eq!(judge("-- Dockerfile --"), Some(Judge::Docker));
        assert_eq!(judge("== expected: too old =="), Some(Judge::Reason("too old".to_owned())));
        assert_eq!(judge("== expected =="), None);
    }
}
