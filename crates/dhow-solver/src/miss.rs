use std::fmt;

use dhow_oci::Digest;
use serde::{Deserialize, Serialize};

use crate::past::{Cause, StepChange};
use crate::{CacheKey, Earlier, Fact, FactKind, FactValue, Facts, Input, Past, Tree};

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
    /// It was taken from this cache elsewhere, whose layers were not fetched, and is not found there now.
    Elsewhere {
        /// The cache.
        cache: String,
    },
    /// It is what it was the last time, when it failed.
    Failed,
    /// The instruction says something else.
    Instruction {
        /// What it said.
        old: String,
        /// What it says.
        new: String,
    },
    /// These facts changed; never empty.
    Changed(Vec<Change>),
    /// The name of the image it starts from means another image.
    Base {
        /// The name.
        name: String,
        /// What it meant.
        old: String,
        /// What it means.
        new: String,
    },
    /// Only what it builds upon changed, here if that is known.
    Parent(Option<Box<Cause>>),
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
    /// An option of the same value under another name.
    Renamed {
        /// What it was.
        old: String,
        /// What it is.
        new: String,
    },
    /// Files differ, but the earlier list of them is gone.
    Files,
    /// The same in another order.
    Order,
}

/// How many changed files are named; the rest are counted.
const FILES_SHOWN_MAX: usize = 3;

impl fmt::Display for MissReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MissReason::Refresh => f.write_str("not looked up (--no-cache)"),
            MissReason::FirstBuild => f.write_str("no earlier build of this step"),
            MissReason::Removed => f.write_str("removed by gc"),
            MissReason::Elsewhere { cache } => write!(f, "was only in the cache {cache}"),
            MissReason::Failed => f.write_str("its last run failed"),
            MissReason::Instruction { old, .. } => write!(f, "instruction was `{old}`"),
            MissReason::Base { name, old, new } => write!(f, "base {name} moved {old} -> {new}"),
            MissReason::Parent(None) => f.write_str("what it builds upon changed"),
            MissReason::Parent(Some(cause)) => write!(f, "what it builds upon changed: {cause}"),
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

/// The folder that is read as a whole has no name of its own.
fn path_shown(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
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
                let given = |value: &Option<String>| {
                    value.clone().filter(|it| *kind != FactKind::Option || !it.is_empty())
                };
                match (given(old), given(new)) {
                    (None, Some(new)) if *kind == FactKind::Option => write!(f, "{name} {new} is new"),
                    (Some(old), None) if *kind == FactKind::Option => write!(f, "{name} {old} is gone"),
                    (Some(old), Some(new)) => write!(f, "{label}{name} {old} -> {new}"),
                    (None, Some(new)) => write!(f, "{label}{name}={new} is new"),
                    (Some(_), None) => write!(f, "{label}{name} is gone"),
                    (None, None) => write!(f, "{label}{name} changed"),
                }
            }
            Change::FileAdded(path) => write!(f, "{} is new", path_shown(path)),
            Change::FileRemoved(path) => write!(f, "{} is gone", path_shown(path)),
            Change::FileContent(path) => write!(f, "{} changed", path_shown(path)),
            Change::FileMode { path, old, new } => {
                write!(f, "mode of {} {:04o} -> {:04o}", path_shown(path), old & 0o7777, new & 0o7777)
            }
            Change::FileOwner { path, old, new } => {
                write!(f, "owner of {} {}:{} -> {}:{}", path_shown(path), old.0, old.1, new.0, new.1)
            }
            Change::Renamed { old, new } => {
                let words = || old.split(' ').zip(new.split(' '));
                let same: usize =
                    words().take_while(|(old, new)| old == new).map(|(old, _)| old.len() + 1).sum();
                write!(f, "{old} -> {}", new.get(same..).unwrap_or(new))
            }
            Change::Files => f.write_str("files changed"),
            Change::Order => f.write_str("the order of its variables changed"),
        }
    }
}

/// Where the past is looked up.
pub(crate) struct Archive<'a> {
    /// A list of files by its digest.
    pub tree: &'a dyn Fn(&Digest) -> Option<Tree>,
    /// What an earlier step was made of.
    pub past: &'a dyn Fn(&CacheKey) -> Option<Past>,
    /// The same of a step of the present build.
    pub present: &'a dyn Fn(&CacheKey) -> Option<Past>,
}

/// Steps followed down to the one that changed; longer chains are cut off, not told wrongly.
const CHAIN_MAX: usize = 1000;

/// Compares what a vertex is made of with the earlier attempt that is nearest to it.
pub(crate) fn explain(new: &Past, earlier: &[Earlier], archive: &Archive<'_>) -> MissReason {
    let same = |attempt: &&Earlier| match attempt {
        Earlier::Known(past) => past.key == new.key,
        Earlier::Removed(key) | Earlier::Failed(key) => *key == new.key,
        Earlier::Elsewhere(key, _) => *key == Some(new.key),
    };
    match earlier.iter().find(same) {
        Some(Earlier::Failed(_)) => return MissReason::Failed,
        Some(Earlier::Elsewhere(_, cache)) => return MissReason::Elsewhere { cache: cache.clone() },
        // The record was there and its result is not.
        Some(_) => return MissReason::Removed,
        None => {}
    }
    let known = earlier.iter().filter_map(|attempt| match attempt {
        Earlier::Known(past) => Some(past),
        _ => None,
    });
    // The first is the latest, so among equally near ones the latest speaks.
    match known.min_by_key(|old| distance(&old.facts, &new.facts)) {
        Some(old) => compare(new, old, archive).unwrap_or_else(|| inherited(new, old, archive)),
        None => unknown(earlier),
    }
}

/// The reason when none of the earlier results is known any more. The latest speaks.
fn unknown(earlier: &[Earlier]) -> MissReason {
    let lost = earlier.iter().find_map(|attempt| match attempt {
        Earlier::Removed(_) => Some(MissReason::Removed),
        Earlier::Elsewhere(_, cache) => Some(MissReason::Elsewhere { cache: cache.clone() }),
        Earlier::Known(_) | Earlier::Failed(_) => None,
    });
    lost.unwrap_or(MissReason::FirstBuild)
}

/// How two steps differ in themselves, and not only in what they build upon.
fn compare(new: &Past, old: &Past, archive: &Archive<'_>) -> Option<MissReason> {
    let instruction = |facts: &Facts| facts.find(FactKind::Instruction, "").cloned();
    let (now, before) = (instruction(&new.facts), instruction(&old.facts));
    if now != before {
        // Words that read the same mean something else: by a variable, or the shell.
        let text = |past: &Past, fact: Option<&FactValue>| match new.step == old.step {
            true => shown(fact).unwrap_or_default(),
            false => past.step.clone(),
        };
        let (old, new) = (text(old, before.as_ref()), text(new, now.as_ref()));
        return Some(MissReason::Instruction { old, new });
    }
    if let Some(moved) = base_moved(&new.facts, &old.facts) {
        return Some(moved);
    }
    let mut changes = Vec::new();
    let renamed = renamed(&new.facts, &old.facts);
    // Files of an option that is new, gone or has another name are a part of that.
    let is_told = |fact: &Fact, other: &Facts| {
        let is_of_option = fact.kind == FactKind::Files && other.find(FactKind::Option, &fact.name).is_none();
        let has_option = |facts: &Facts| facts.find(FactKind::Option, &fact.name).is_some();
        is_of_option && (has_option(&new.facts) || has_option(&old.facts))
    };
    for fact in new.facts.iter().filter(|fact| fact.kind != FactKind::Input) {
        let before = old.facts.find(fact.kind, &fact.name);
        match renamed.iter().find(|(_, now)| fact.kind == FactKind::Option && *now == fact.name) {
            Some((was, now)) => changes.push(Change::Renamed { old: was.clone(), new: now.clone() }),
            None if before == Some(&fact.value) || is_told(fact, &old.facts) => {}
            None => describe(fact, before, archive.tree, &mut changes),
        }
    }
    for fact in old.facts.iter().filter(|fact| fact.kind != FactKind::Input) {
        let is_renamed = renamed.iter().any(|(was, _)| fact.kind == FactKind::Option && *was == fact.name);
        let is_gone = new.facts.find(fact.kind, &fact.name).is_none();
        if is_gone && !is_renamed && !is_told(fact, &new.facts) {
            let old = shown(Some(&fact.value)).or_else(|| Some(String::new()));
            changes.push(Change::Value { kind: fact.kind, name: fact.name.clone(), old, new: None });
        }
    }
    if changes.is_empty() && distance(&old.facts, &new.facts) == 0 && old.facts != new.facts {
        changes.push(Change::Order);
    }
    (!changes.is_empty()).then_some(MissReason::Changed(changes))
}

/// Options that have another name and the same value, with the same files: old and new name.
fn renamed(new: &Facts, old: &Facts) -> Vec<(String, String)> {
    let options_missing_in = |facts: &Facts, other: &Facts| -> Vec<Fact> {
        let is_missing =
            |fact: &&Fact| fact.kind == FactKind::Option && other.find(fact.kind, &fact.name).is_none();
        facts.iter().filter(is_missing).cloned().collect()
    };
    let files = |facts: &Facts, name: &str| facts.find(FactKind::Files, name).cloned();
    let mut gone = options_missing_in(old, new);
    let mut renamed = Vec::new();
    for fact in options_missing_in(new, old) {
        let is_it = |was: &Fact| was.value == fact.value && files(old, &was.name) == files(new, &fact.name);
        // Values as short as `true` are alike by chance: the names have to begin alike as well.
        let begins_alike = |was: &Fact| was.name.split(' ').next() == fact.name.split(' ').next();
        if let Some(index) = gone.iter().position(|was| is_it(was) && begins_alike(was)) {
            renamed.push((gone.remove(index).name, fact.name));
        }
    }
    renamed
}

fn base_moved(new: &Facts, old: &Facts) -> Option<MissReason> {
    let base = |facts: &Facts| {
        let fact = facts.iter().find(|fact| fact.kind == FactKind::Base)?;
        Some((fact.name.clone(), shown(Some(&fact.value))?))
    };
    let ((name, new), (_, old)) = (base(new)?, base(old)?);
    (new != old).then_some(MissReason::Base { name, old, new })
}

/// The reason of a step that differs in nothing but what it builds upon.
fn inherited(new: &Past, old: &Past, archive: &Archive<'_>) -> MissReason {
    match cause(new, old, archive) {
        // Right on top of the image there is no step between to speak of.
        Some(Cause { change: StepChange::Reason(base @ MissReason::Base { .. }), step })
            if new.inputs.first().is_some_and(|input| input.step == step && input.facts.is_some()) =>
        {
            base
        }
        cause => MissReason::Parent(cause.map(Box::new)),
    }
}

/// Follows two steps down side by side, to the lowest difference that explains the others.
fn cause(new: &Past, old: &Past, archive: &Archive<'_>) -> Option<Cause> {
    let (mut new, mut old) = (new.clone(), old.clone());
    for _ in 0..CHAIN_MAX {
        let differs = |(new, old): &(&Input, &Input)| new.key != old.key;
        let (now, before) = new.inputs.iter().zip(&old.inputs).find(differs)?;
        let (now, before) = (now.clone(), before.clone());
        if let Some(step) = step_above(&now, &before.key, archive.present) {
            return Some(Cause { step, change: StepChange::New });
        }
        if let Some(step) = step_above(&before, &now.key, archive.past) {
            return Some(Cause { step, change: StepChange::Gone });
        }
        let lower_new = recall(&now, archive.present)?;
        let lower_old = recall(&before, archive.past)?;
        if let Some(reason) = compare(&lower_new, &lower_old, archive) {
            return Some(Cause { step: now.step, change: StepChange::Reason(reason) });
        }
        (new, old) = (lower_new, lower_old);
    }
    None
}

fn recall(input: &Input, past: &dyn Fn(&CacheKey) -> Option<Past>) -> Option<Past> {
    match &input.facts {
        Some(facts) => {
            let (key, step, facts) = (input.key, input.step.clone(), facts.clone());
            Some(Past { key, step, facts, inputs: Vec::new() })
        }
        None => past(&input.key),
    }
}

/// The step right above the one with `key`, if `top` stands on it.
fn step_above(top: &Input, key: &CacheKey, past: &dyn Fn(&CacheKey) -> Option<Past>) -> Option<String> {
    let mut here = top.clone();
    for _ in 0..CHAIN_MAX {
        let below = recall(&here, past)?.inputs.into_iter().next()?;
        if below.key == *key {
            return Some(here.step);
        }
        here = below;
    }
    None
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
        FactValue::Content(_) | FactValue::Hidden(_) => None,
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
