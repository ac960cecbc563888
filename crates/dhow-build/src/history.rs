//! What was built here: every build whose Dockerfile was read has a record, whether and however it ends, and one that
//! has something to do can be seen while it does it.
//!
//! It tells what happened to each step and why, keeps the logs of its programs, and is what a later build is
//! compared with. The last [`BUILDS_KEPT`] are kept. A build that has not ended lasts as long as its lease: that
//! of a process that was killed is gone.

mod kin;
mod recorder;

use std::collections::BTreeMap;

use dhow_oci::Digest;
use dhow_solver::{CacheKey, MissReason};
use dhow_store::{Record, Ref, Store};
use serde::{Deserialize, Serialize};

use crate::error::{StoreFailure, while_doing};
use crate::log::StepLog;

pub(crate) use kin::{Attempt, attempts};
pub(crate) use recorder::Recorder;

/// Builds remembered; beyond that the oldest go.
pub const BUILDS_KEPT: usize = 100;

/// The kind of record a build is.
const BUILDS: &str = "build-record";

/// A build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Its id: 25 characters that sort by time.
    pub id: String,
    /// When it began, in microseconds since 1970.
    pub started_us: i64,
    /// When it ended; `None` if it has not, or was killed.
    pub ended_us: Option<i64>,
    /// Whether somebody wanted it to end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_canceled: bool,
    /// The lease that lasts as long as the build does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) lease: String,
    /// How it stands, when the record was read.
    #[serde(skip)]
    pub status: BuildStatus,
    /// What was built and how.
    pub request: RecordedRequest,
    /// The image it made.
    pub image: Option<Digest>,
    /// Why it failed, as the user was told.
    pub error: Option<String>,
    /// Warnings about the Dockerfile, as the user was told.
    pub warnings: Vec<String>,
    /// Its steps, in the order of the Dockerfile; none if it failed before they were known.
    pub steps: Vec<StepRecord>,
}

/// How a build stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BuildStatus {
    /// It is under way.
    Running,
    /// It came to its result.
    #[default]
    Completed,
    /// It failed.
    Failed,
    /// Somebody wanted it to end before it did.
    Canceled,
    /// Its process died before it ended.
    Killed,
}

/// What a build was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedRequest {
    /// The build context, as the user gave it.
    pub context: String,
    /// Name of the Dockerfile.
    pub dockerfile: String,
    /// Tells the Dockerfile from all others on this machine.
    pub identity: String,
    /// The stage that was built, if not the last.
    pub target: Option<String>,
    /// Names for the image.
    pub names: Vec<String>,
    /// Build arguments given; `None` stands for a value that may be a secret.
    pub build_args: BTreeMap<String, Option<String>>,
    /// What the image is to run on, if not this machine.
    #[serde(default)]
    pub platforms: Vec<String>,
    /// Whether the cache was not to be used.
    pub no_cache: bool,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The stage, by its name or number.
    pub stage: String,
    /// Place among the instructions of its stage, from 1.
    pub number: usize,
    /// How many the stage has.
    pub count: usize,
    /// The instruction.
    pub text: String,
    /// Line in the Dockerfile, from 1.
    pub line: usize,
    /// How it ended.
    pub outcome: StepOutcome,
    /// The cache elsewhere that its result was taken from, if its layers were left there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<String>,
    /// Why it ran.
    pub reason: Option<MissReason>,
    /// The name of its result in the cache.
    pub key: Option<CacheKey>,
    /// When it began, in microseconds since 1970.
    pub started_us: Option<i64>,
    /// When it ended.
    pub ended_us: Option<i64>,
    /// The image that ends with it.
    pub image: Option<Digest>,
    /// Bytes of files in the layer it made.
    pub layer_bytes: Option<u64>,
    /// What its program printed, in this build or when it ran.
    pub log: Option<StepLog>,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// Nothing needed it, or the build ended before.
    NotReached,
    /// It is being done.
    Running,
    /// Its result was known.
    Cached,
    /// It was done.
    Done,
    /// It failed.
    Failed,
    /// It was given up because another one failed.
    Canceled,
}

impl StepRecord {
    /// `[2/5] COPY . .`, with the name of the stage if `has_stages`.
    pub fn title(&self, has_stages: bool) -> String {
        let stage = if has_stages { format!("{} ", self.stage) } else { String::new() };
        format!("[{stage}{}/{}] {}", self.number, self.count, self.text)
    }
}

impl BuildRecord {
    /// Notes how it stands, `is_alive` if its lease lasts.
    fn settle(&mut self, is_alive: bool) {
        self.status = match (self.ended_us, &self.error) {
            (Some(_), Some(_)) if self.is_canceled => BuildStatus::Canceled,
            (Some(_), None) => BuildStatus::Completed,
            (Some(_), Some(_)) => BuildStatus::Failed,
            (None, _) if is_alive => BuildStatus::Running,
            (None, _) => BuildStatus::Killed,
        };
        if self.status != BuildStatus::Running {
            self.give_up_steps();
        }
    }

    /// What had begun and heard of no end was left when the build ended.
    fn give_up_steps(&mut self) {
        for step in self.steps.iter_mut().filter(|step| step.started_us.is_some() && step.ended_us.is_none())
        {
            step.outcome = StepOutcome::Canceled;
        }
    }

    /// Whether it has steps of more than one stage.
    pub fn has_stages(&self) -> bool {
        self.steps.iter().any(|step| step.stage != self.steps[0].stage)
    }

    /// The name people know it by: that of its image, or of the folder it was built from.
    pub fn name(&self) -> String {
        match self.request.names.first() {
            Some(name) => {
                name.parse::<dhow_oci::Reference>().map_or_else(|_| name.clone(), |it| it.familiar())
            }
            None => self.request.context.clone(),
        }
    }

    /// The step that `text` means: its number in the list from 1, `STAGE/NUMBER`, or the beginning of its
    /// instruction if only one begins so.
    pub fn step(&self, text: &str) -> Result<&StepRecord, FindStepError> {
        let not_found = || FindStepError::NotFound { text: text.to_owned(), count: self.steps.len() };
        if let Ok(number) = text.parse::<usize>() {
            return number.checked_sub(1).and_then(|index| self.steps.get(index)).ok_or_else(not_found);
        }
        let by_stage = text.rsplit_once('/').and_then(|(stage, number)| {
            let number: usize = number.parse().ok()?;
            self.steps.iter().find(|step| step.stage.eq_ignore_ascii_case(stage) && step.number == number)
        });
        if let Some(step) = by_stage {
            return Ok(step);
        }
        let mut found = self.steps.iter().filter(|step| !text.is_empty() && step.text.starts_with(text));
        match (found.next(), found.next()) {
            (Some(step), None) => Ok(step),
            (Some(_), Some(_)) => Err(FindStepError::Ambiguous { text: text.to_owned() }),
            (None, _) => Err(not_found()),
        }
    }
}

/// Why a text does not name a step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindStepError {
    /// There is no such step.
    #[error(
        "no such step: {text}; the build has {count}, named by number, STAGE/NUMBER or the beginning of the instruction"
    )]
    NotFound {
        /// What was asked for.
        text: String,
        /// How many there are.
        count: usize,
    },
    /// Several begin so.
    #[error("more than one step begins with {text}")]
    Ambiguous {
        /// What was asked for.
        text: String,
    },
}

/// Why a text does not name a build.
#[derive(Debug, thiserror::Error)]
pub enum FindBuildError {
    /// There is no such build.
    #[error("no such build: {0}")]
    NotFound(String),
    /// Several ids begin so.
    #[error("more than one build has an id that starts with {0}")]
    Ambiguous(String),
    /// Nothing was ever built here.
    #[error("no build is recorded")]
    None,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreFailure),
}

/// The builds of a store.
#[derive(Clone, Copy)]
pub struct History<'s> {
    store: &'s Store,
}

impl<'s> History<'s> {
    /// The builds of `store`.
    pub fn new(store: &'s Store) -> History<'s> {
        History { store }
    }

    /// All builds, the latest first.
    pub fn list(&self) -> Result<Vec<BuildRecord>, StoreFailure> {
        let records = self.store.records(BUILDS).latest(BUILDS_KEPT);
        let records = records.map_err(while_doing("cannot read the builds"))?;
        let mut builds: Vec<BuildRecord> = records.iter().filter_map(read).collect();
        for build in &mut builds {
            let is_alive = build.ended_us.is_none()
                && self.store.has_lease(&build.lease).map_err(while_doing("cannot look for a build"))?;
            build.settle(is_alive);
        }
        Ok(builds)
    }

    /// The build that `text` means: nothing or `^0` the latest that is not under way, `^1` the one before, an id or
    /// the beginning of one, or the name or id of an image for the latest build that made it.
    pub fn find(&self, text: Option<&str>) -> Result<BuildRecord, FindBuildError> {
        let mut builds = self.list()?;
        // Sorting is stable: those under way come last, and otherwise the latest first.
        builds.sort_by_key(|build| build.status == BuildStatus::Running);
        let text = text.unwrap_or("^0");
        if let Some(offset) = text.strip_prefix('^').and_then(|offset| offset.parse::<usize>().ok()) {
            return match (builds.is_empty(), builds.into_iter().nth(offset)) {
                (true, _) => Err(FindBuildError::None),
                (_, Some(build)) => Ok(build),
                (_, None) => Err(FindBuildError::NotFound(text.to_owned())),
            };
        }
        let mut with_id = builds.iter().filter(|build| !text.is_empty() && build.id.starts_with(text));
        match (with_id.next(), with_id.next()) {
            (Some(build), None) => return Ok(build.clone()),
            (Some(_), Some(_)) => return Err(FindBuildError::Ambiguous(text.to_owned())),
            (None, _) => {}
        }
        let name = text.parse::<dhow_oci::Reference>().ok().map(|name| name.or_latest().to_string());
        let made = |build: &BuildRecord| {
            name.as_ref().is_some_and(|name| build.request.names.contains(name))
                || build.image.is_some_and(|image| is_short_for(text, &image))
        };
        builds.into_iter().find(made).ok_or_else(|| FindBuildError::NotFound(text.to_owned()))
    }

    /// Forgets a build. Logs that nothing else needs go with the next gc.
    pub fn remove(&self, id: &str) -> Result<(), StoreFailure> {
        self.store.records(BUILDS).remove(id).map(drop).map_err(while_doing("cannot remove a build"))
    }

    /// Keeps a build, and forgets the oldest if there are too many.
    pub(crate) fn put(&self, build: &BuildRecord) -> Result<(), StoreFailure> {
        let mut refs: Vec<Ref> =
            build.steps.iter().filter_map(|step| step.log).map(|log| Ref::Blob(log.blob)).collect();
        refs.sort();
        refs.dedup();
        let body = serde_json::to_string(build).expect("a build has only text for keys");
        let records = self.store.records(BUILDS);
        records
            .put_latest(&build.id, &body, &refs, BUILDS_KEPT)
            .map_err(while_doing("cannot record the build"))
    }
}

/// One that cannot be read was written by another dhow: it is not there for us.
fn read(record: &Record) -> Option<BuildRecord> {
    serde_json::from_str(&record.body).ok()
}

fn is_short_for(text: &str, image: &Digest) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    hex.len() >= 4 && image.hex().starts_with(hex)
}
