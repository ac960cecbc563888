//! Writes down what happens during a build, as it happens.

use std::sync::{Mutex, MutexGuard};

use dhow_dockerfile::Diagnostic;
use dhow_solver::CacheKey;

use super::{BuildRecord, RecordedRequest, StepOutcome, StepRecord};
use crate::error::BuildError;
use crate::event::{BuildEvent, Built, StepId, StepInfo};
use crate::facts::is_secret;
use crate::log::StepLog;
use crate::request::BuildRequest;

/// Digits of ids, in the order of their bytes.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const TIME_DIGITS: usize = 10;
const RANDOM_DIGITS: usize = 15;

/// Takes notes of one build.
pub(crate) struct Recorder {
    clock: fn() -> jiff::Timestamp,
    id: String,
    started: jiff::Timestamp,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    dockerfile: String,
    identity: String,
    warnings: Vec<String>,
    steps: Vec<StepRecord>,
}

impl Recorder {
    pub(crate) fn new(clock: fn() -> jiff::Timestamp) -> Recorder {
        let started = clock();
        Recorder { clock, id: id(started), started, notes: Mutex::new(Notes::default()) }
    }

    /// The id of the build.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().expect("no thread panics while it holds the lock")
    }

    /// There is a Dockerfile, and so something to record.
    pub(crate) fn source(&self, dockerfile: &str, identity: &str) {
        let mut notes = self.notes();
        notes.dockerfile = dockerfile.to_owned();
        notes.identity = identity.to_owned();
    }

    pub(crate) fn keyed(&self, id: StepId, key: CacheKey) {
        self.step(id, |step, _| step.key = Some(key));
    }

    /// The log of a step that did not come to a result.
    pub(crate) fn log(&self, id: StepId, log: Option<StepLog>) {
        self.step(id, |step, _| step.log = log);
    }

    fn step(&self, id: StepId, note: impl FnOnce(&mut StepRecord, i64)) {
        let now = (self.clock)().as_microsecond();
        if let Some(step) = self.notes().steps.get_mut(id.0) {
            note(step, now);
        }
    }

    pub(crate) fn event(&self, event: &BuildEvent<'_>) {
        match event {
            BuildEvent::Warning { file, source, diagnostic } => self.warning(diagnostic, file, source),
            BuildEvent::Planned(steps) => self.notes().steps = steps.iter().map(unreached).collect(),
            BuildEvent::Started(id) => self.step(*id, |step, now| {
                step.started_us = Some(now);
                step.outcome = StepOutcome::Done;
            }),
            BuildEvent::Cached(id) | BuildEvent::CachedFrom(id, _) => {
                self.step(*id, |step, _| step.outcome = StepOutcome::Cached);
            }
            BuildEvent::Running(id, reason) => {
                self.step(*id, |step, _| step.reason = Some((*reason).clone()));
            }
            BuildEvent::Finished(id, result) => self.step(*id, |step, now| {
                step.ended_us = Some(now);
                step.image = Some(result.image);
                step.layer_bytes = result.layer_bytes;
                step.log = result.log;
            }),
            BuildEvent::Failed(id) => self.ended(*id, StepOutcome::Failed),
            BuildEvent::GivenUp(id) => self.ended(*id, StepOutcome::Canceled),
            _ => {}
        }
    }

    fn ended(&self, id: StepId, outcome: StepOutcome) {
        self.step(id, |step, now| {
            step.ended_us = Some(now);
            step.outcome = outcome;
        });
    }

    fn warning(&self, diagnostic: &Diagnostic, file: &str, source: &str) {
        self.notes().warnings.push(diagnostic.render(file, source).trim_end().to_owned());
    }

    /// The record of the build, now that it has ended; `None` if it did not even have a Dockerfile.
    pub(crate) fn finish(
        self,
        request: &BuildRequest,
        result: &Result<Built, BuildError>,
    ) -> Option<BuildRecord> {
        let Notes { dockerfile, identity, warnings, mut steps } =
            self.notes.into_inner().expect("no thread panics while it holds the lock");
        if dockerfile.is_empty() {
            return None;
        }
        // What had begun and heard of no end was left when the build failed.
        for step in steps.iter_mut().filter(|step| step.started_us.is_some() && step.ended_us.is_none()) {
            step.outcome = StepOutcome::Canceled;
        }
        let build_args = request.build_args.iter().map(|(name, value)| {
            let value = (!is_secret(name)).then(|| value.clone());
            (name.clone(), value)
        });
        Some(BuildRecord {
            id: self.id,
            started_us: self.started.as_microsecond(),
            ended_us: (self.clock)().as_microsecond(),
            request: RecordedRequest {
                context: request.context.to_string(),
                dockerfile,
                identity,
                target: request.target.clone(),
                names: request.names.iter().map(ToString::to_string).collect(),
                build_args: build_args.collect(),
                platforms: request.platforms.iter().map(ToString::to_string).collect(),
                no_cache: request.no_cache,
            },
            image: result.as_ref().ok().map(|built| built.image),
            error: result.as_ref().err().map(BuildError::report),
            warnings,
            steps,
        })
    }
}

fn unreached(info: &StepInfo) -> StepRecord {
    StepRecord {
        stage: info.stage.clone(),
        number: info.number,
        count: info.count,
        text: info.text.clone(),
        line: info.line,
        outcome: StepOutcome::NotReached,
        reason: None,
        key: None,
        started_us: None,
        ended_us: None,
        image: None,
        layer_bytes: None,
        log: None,
    }
}

/// The time in milliseconds, then random digits.
fn id(started: jiff::Timestamp) -> String {
    let mut random = [0_u8; RANDOM_DIGITS];
    // Without random bytes, which Linux always has once it is up, the time alone still tells builds apart.
    let _ = rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty());
    let millis = started.as_millisecond().unsigned_abs();
    let time = (0..TIME_DIGITS).rev().map(|place| (millis >> (5 * place)) & 31);
    let digits = time.chain(random.into_iter().map(|byte| u64::from(byte & 31)));
    digits.map(|digit| char::from(DIGITS[usize::try_from(digit).expect("five bits")])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_are_told_apart() {
        let at = |millis| id(jiff::Timestamp::from_millisecond(millis).expect("a time"));
        assert_eq!(at(0).len(), TIME_DIGITS + RANDOM_DIGITS);
        assert!(at(1_795_000_000_000) < at(1_795_000_000_001));
        assert!(at(31) < at(32));
        assert_ne!(at(7), at(7));
    }
}
