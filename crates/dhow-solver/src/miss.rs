use std::fmt;

use dhow_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::{Fact, FactKind, FactValue, Facts, Tree};

/// Why the solver had to run a vertex instead of reusing a cached result.
///
/// Variants are ordered from the outside in: the first one that applies is the one reported, because a
/// changed instruction makes any comparison of its inputs meaningless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissReason {
    /// The user asked for it to run.
    Refresh,
    /// Nothing like it was ever built here.
    FirstBuild,
    /// It was built, and its result has been removed since.
    Removed,
    /// The instruction says something else.
    Instruction {
        /// What it said.
        old: String,
        /// What it says.
        new: String,
    },
    /// These facts changed; never empty.
    Changed(Vec<Change>),
    /// Only what it builds upon changed, for the reason given there.
    Parent,
}

/// One fact that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A build argument, environment variable or option. Values that may be secret are left out.
    Value {
        /// What sort it is.
        kind: FactKind,
        /// Which one.
        name: String,
        /// What it was; `None` if it was not there or may not be shown.
        old: Option<String>,
        /// What it is; `None` if it is gone or may not be shown.
        new: Option<String>,
    },
    /// A file that was not read before.
    FileAdded(String),
    /// A file that is gone.
    FileRemoved(String),
    /// A file with new content.
    FileContent(String),
    /// A file with the same content and another mode.
    FileMode {
        /// Which file.
        path: String,
        /// Its former `st_mode`.
        old: u32,
        /// Its present `st_mode`.
        new: u32,
    },
    /// A file with the same content and mode that somebody else owns.
    FileOwner {
        /// Which file.
        path: String,
        /// Its former user and group.
        old: (u32, u32),
        /// Its present user and group.
        new: (u32, u32),
    },
    /// Files differ, but the earlier list of them is gone.
    Files,
}

/// How many changed files are named; the rest are counted.
const FILES_SHOWN_MAX: usize = 3;

impl fmt::Display for MissReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MissReason::Refresh => f.write_str("not looked up (--no-cache)"),
            MissReason::FirstBuild => f.write_str("no earlier build of this step"),
            MissReason::Removed => f.write_str("the earlier result was removed"),
            MissReason::Instruction { old, .. } => write!(f, "instruction was `{old}`"),
            MissReason::Parent => f.write_str("what it builds upon changed"),
            MissReason::Changed(changes) => {
                for (index, change) in changes.iter().take(FILES_SHOWN_MAX).enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}{change}")?;
                }
                match changes.len().saturating_sub(FILES_SHOWN_MAX) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Value { kind, name, old, new } => {
                let label = match kind {
                    FactKind::BuildArg => "ARG ",
                    FactKind::Env => "ENV ",
                    _ => "",
                };
                match (old, new) {
                    (Some(old), Some(new)) => write!(f, "{label}{name} {old} -> {new}"),
                    (None, Some(new)) => write!(f, "{label}{name}={new} is new"),
                    (Some(_), None) => write!(f, "{label}{name} is gone"),
                    (None, None) => write!(f, "{label}{name} changed"),
                }
            }
            Change::FileAdded(path) => write!(f, "{path} is new"),
            Change::FileRemoved(path) => write!(f, "{path} is gone"),
            Change::FileContent(path) => write!(f, "{path} changed"),
            Change::FileMode { path, old, new } => {
                write!(f, "mode of {path} {:04o} -> {:04o}", old & 0o7777, new & 0o7777)
            }
            Change::FileOwner { path, old, new } => {
                write!(f, "owner of {path} {}:{} -> {}:{}", old.0, old.1, new.0, new.1)
            }
            Change::Files => f.write_str("files changed"),
        }
    }
}

/// Compares the facts of a vertex with those of the earlier build that is nearest to it.
/// `tree` finds a list of files by its digest.
pub(crate) fn explain(new: &Facts, earlier: &[Facts], tree: &dyn Fn(&Digest) -> Option<Tree>) -> MissReason {
    // The first is the latest, so among equally near ones the latest speaks.
    let Some(old) = earlier.iter().min_by_key(|old| distance(old, new)) else {
        return MissReason::FirstBuild;
    };
    if let Some(reason) = instruction_change(old, new) {
        return reason;
    }
    let mut changes = Vec::new();
    for fact in new.iter().filter(|fact| fact.kind != FactKind::Input) {
        let before = old.find(fact.kind, &fact.name);
        if before != Some(&fact.value) {
            describe(fact, before, tree, &mut changes);
        }
    }
    for fact in old.iter().filter(|fact| fact.kind != FactKind::Input) {
        if new.find(fact.kind, &fact.name).is_none() {
            let old = shown(Some(&fact.value)).or_else(|| Some(String::new()));
            changes.push(Change::Value { kind: fact.kind, name: fact.name.clone(), old, new: None });
        }
    }
    if !changes.is_empty() {
        return MissReason::Changed(changes);
    }
    // Equal facts on equal inputs have an equal key: the record was there and its result is not.
    if distance(old, new) == 0 { MissReason::Removed } else { MissReason::Parent }
}

fn distance(old: &Facts, new: &Facts) -> usize {
    let differs = |a: &Facts, b: &Facts| {
        a.iter().filter(|fact| b.find(fact.kind, &fact.name) != Some(&fact.value)).map(weight).sum::<usize>()
    };
    differs(old, new) + differs(new, old)
}

/// A changed instruction is farther away than any number of changed values.
fn weight(fact: &Fact) -> usize {
    if fact.kind == FactKind::Instruction { 1000 } else { 1 }
}

fn instruction_change(old: &Facts, new: &Facts) -> Option<MissReason> {
    let text = |facts: &Facts| facts.iter().find(|fact| fact.kind == FactKind::Instruction).cloned();
    let (old, new) = (text(old)?, text(new)?);
    if old.value == new.value {
        return None;
    }
    let (old, new) = (shown(Some(&old.value))?, shown(Some(&new.value))?);
    Some(MissReason::Instruction { old, new })
}

fn describe(
    fact: &Fact,
    before: Option<&FactValue>,
    tree: &dyn Fn(&Digest) -> Option<Tree>,
    changes: &mut Vec<Change>,
) {
    if fact.kind == FactKind::Files {
        let load = |value: Option<&FactValue>| match value {
            Some(FactValue::Content(digest)) => tree(digest),
            _ => None,
        };
        return match (load(before), load(Some(&fact.value))) {
            (Some(old), Some(new)) => compare_trees(&old, &new, changes),
            _ => changes.push(Change::Files),
        };
    }
    let (old, new) = (shown(before), shown(Some(&fact.value)));
    changes.push(Change::Value { kind: fact.kind, name: fact.name.clone(), old, new });
}

fn shown(value: Option<&FactValue>) -> Option<String> {
    match value? {
        FactValue::Text(text) => Some(text.clone()),
        FactValue::Content(digest) => Some(format!("{}:{}", digest.algorithm().name(), digest.short())),
        FactValue::Hidden(_) => None,
    }
}

fn compare_trees(old: &Tree, new: &Tree, changes: &mut Vec<Change>) {
    for (path, entry) in new.iter() {
        match old.get(path) {
            None => changes.push(Change::FileAdded(path.to_owned())),
            Some(before) if before.content != entry.content => {
                changes.push(Change::FileContent(path.to_owned()));
            }
            Some(before) if before.mode != entry.mode => {
                changes.push(Change::FileMode { path: path.to_owned(), old: before.mode, new: entry.mode });
            }
            Some(before) => {
                if let (Some(old), Some(new)) = (before.owner, entry.owner)
                    && old != new
                {
                    changes.push(Change::FileOwner { path: path.to_owned(), old, new });
                }
            }
        }
    }
    for (path, _) in old.iter().filter(|(path, _)| new.get(path).is_none()) {
        changes.push(Change::FileRemoved(path.to_owned()));
    }
    if changes.is_empty() {
        changes.push(Change::Files);
    }
}
