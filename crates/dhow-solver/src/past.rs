use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{CacheKey, Facts};

/// What a step was made of, kept beside its result so that a later miss can be explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// The name of its result.
    pub key: CacheKey,
    /// The text of the step.
    pub step: String,
    /// What the result depended on.
    pub facts: Facts,
    /// The steps it was done on.
    pub inputs: Vec<Input>,
}

/// A step that another was done on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The text of the step.
    pub step: String,
    /// The name of its result.
    pub key: CacheKey,
    /// What it depended on, if it is of those that are not recorded by themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Facts>,
}

/// What is known of an earlier attempt at a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Earlier {
    /// It came to a result.
    Known(Past),
    /// It came to a result that has been removed since, with what it was made of.
    Removed(CacheKey),
    /// It came to a result out of this cache elsewhere, which was not fetched because
    /// nobody looked into it. It has no key if what it was made of was not fetched either.
    Elsewhere(Option<CacheKey>, String),
    /// It failed.
    Failed(CacheKey),
}

impl Past {
    /// The same as what another step is done on.
    pub(crate) fn as_input(&self, keep_facts: bool) -> Input {
        Input { step: self.step.clone(), key: self.key, facts: keep_facts.then(|| self.facts.clone()) }
    }
}

/// The change further down that a step ran for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The text of the step that changed.
    pub step: String,
    /// What is the matter with it.
    pub change: StepChange,
}

/// How a step differs from what was in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepChange {
    /// It was not there.
    New,
    /// It is not there any more.
    Gone,
    /// It is there, and differs in this.
    Reason(crate::MissReason),
}

/// As much of a step's text as is told of it in a line about another.
const STEP_CHARS_MAX: usize = 60;

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.step.lines().next().unwrap_or_default();
        let is_whole = line.len() == self.step.len() && line.chars().count() <= STEP_CHARS_MAX;
        let step: String = match is_whole {
            true => line.to_owned(),
            false => line.chars().take(STEP_CHARS_MAX - 1).chain(['…']).collect(),
        };
        match &self.change {
            StepChange::New => write!(f, "{step} is new"),
            StepChange::Gone => write!(f, "{step} is gone"),
            StepChange::Reason(reason @ crate::MissReason::Base { .. }) => reason.fmt(f),
            StepChange::Reason(_) => f.write_str(&step),
        }
    }
}
