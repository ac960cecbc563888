//! Writes down what happens during a build, as it happens.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

use dhow_dockerfile::Diagnostic;
use dhow_solver::CacheKey;
use dhow_store::{Lease, Store};

use super::{BuildRecord, BuildStatus, History, RecordedRequest, StepOutcome, StepRecord};
use crate::error::BuildError;
use crate::event::{BuildEvent, Built, StepId, StepInfo, StepResult};
use crate::facts::is_secret;
use crate::log::StepLog;
use crate::request::BuildRequest;

/// Digits of ids, in the order of their bytes.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const TIME_DIGITS: usize = 10;
const RANDOM_DIGITS: usize = 15;

/// Takes notes of one build, and keeps them in the store as far as others may want to see them.
pub(crate) struct Recorder<'a> {
    store: &'a Store,
    lease: &'a Lease,
    request: &'a BuildRequest,
    clock: fn() -> jiff::Timestamp,
    id: String,
    started: jiff::Timestamp,
    notes: Mutex<Notes>,
    /// Whether others can see the build by now. Held while notes are written, so that none are by older ones.
    is_seen: Mutex<bool>,
}

#[derive(Default)]
struct Notes {
    dockerfile: String,
    identity: String,
    warnings: Vec<String>,
    steps: Vec<StepRecord>,
    /// When somebody wanted it to end.
    canceled_us: Option<i64>,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(
        store: &'a Store,
        lease: &'a Lease,
        request: &'a BuildRequest,
        clock: fn() -> jiff::Timestamp,
    ) -> Recorder<'a> {
        let started = clock();
        let (notes, is_seen) = Default::default();
        Recorder { store, lease, request, clock, id: id(started), started, notes, is_seen }
    }

    /// The id of the build.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// When it began.
    pub(crate) fn started(&self) -> jiff::Timestamp {
        self.started
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

    /// Of the steps that were found elsewhere only those with these keys were left there.
    pub(crate) fn left_elsewhere(&self, keys: &BTreeSet<CacheKey>) {
        for step in &mut self.notes().steps {
            step.elsewhere = step.elsewhere.take().filter(|_| step.key.is_none_or(|key| keys.contains(&key)));
        }
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
            BuildEvent::Planned(steps) => {
                self.notes().steps = steps.iter().map(unreached).collect();
                if *self.is_seen() {
                    self.save();
                }
            }
            BuildEvent::Started(id) => self.step(*id, |step, now| {
                step.started_us = Some(now);
                step.outcome = StepOutcome::Running;
                // An earlier attempt may have come to more.
                (step.key, step.elsewhere) = (None, None);
            }),
            BuildEvent::Cached(id) => self.step(*id, |step, _| step.outcome = StepOutcome::Cached),
            BuildEvent::CachedFrom(id, cache) => self.step(*id, |step, _| {
                step.outcome = StepOutcome::Cached;
                step.elsewhere = Some((*cache).to_owned());
            }),
            BuildEvent::Running(id, reason) => {
                self.step(*id, |step, _| step.reason = Some((*reason).clone()));
                self.save();
            }
            // Its end is written down with what comes next.
            BuildEvent::Finished(id, result) => self.finished(*id, result),
            BuildEvent::Failed(id) => self.ended(*id, StepOutcome::Failed),
            BuildEvent::GivenUp(id) => self.ended(*id, StepOutcome::Canceled),
            // These take their time, and are told of often.
            BuildEvent::Pulling(..) | BuildEvent::Pushing(..) | BuildEvent::ExportingCache(_)
                if !*self.is_seen() =>
            {
                self.save();
            }
            _ => {}
        }
    }

    /// Somebody wants it to end. That is written down now: the process may not live to tell how it ended.
    pub(crate) fn cancel(&self) {
        self.notes().canceled_us = Some((self.clock)().as_microsecond());
        self.save();
    }

    fn finished(&self, id: StepId, result: &StepResult) {
        self.step(id, |step, now| {
            if step.outcome == StepOutcome::Running {
                step.outcome = StepOutcome::Done;
            }
            step.ended_us = Some(now);
            step.image = Some(result.image);
            step.layer_bytes = result.layer_bytes;
            step.log = result.log;
        });
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
    pub(crate) fn finish(&self, result: &Result<Built, BuildError>) -> Option<BuildRecord> {
        let mut record = self.record()?;
        record.ended_us = Some((self.clock)().as_microsecond());
        record.image = result.as_ref().ok().map(|built| built.image);
        match result {
            // The end that somebody wanted came too late.
            Ok(_) => (record.is_canceled, record.error) = (false, None),
            // What failed because of it is no mistake of its own.
            Err(error) => record.error = record.error.or_else(|| Some(error.report())),
        }
        record.settle(false);
        Some(record)
    }

    /// Lets others see what is known so far. A build that finds all in the cache is over before anybody looks, and
    /// is spared the writing. If it fails, the end of the build, which is kept as well, tells of it.
    fn save(&self) {
        let mut is_seen = self.is_seen();
        if let Some(record) = self.record() {
            *is_seen = History::new(self.store).put(&record).is_ok();
        }
    }

    fn is_seen(&self) -> MutexGuard<'_, bool> {
        self.is_seen.lock().expect("no thread panics while it holds the lock")
    }

    fn record(&self) -> Option<BuildRecord> {
        let notes = self.notes();
        if notes.dockerfile.is_empty() {
            return None;
        }
        let request = self.request;
        let build_args = request.build_args.iter().map(|(name, value)| {
            let value = (!is_secret(name)).then(|| value.clone());
            (name.clone(), value)
        });
        Some(BuildRecord {
            id: self.id.clone(),
            started_us: self.started.as_microsecond(),
            ended_us: notes.canceled_us,
            is_canceled: notes.canceled_us.is_some(),
            lease: self.lease.id().to_owned(),
            status: BuildStatus::Running,
            request: RecordedRequest {
                context: request.context.to_string(),
                dockerfile: notes.dockerfile.clone(),
                identity: notes.identity.clone(),
                target: request.target.clone(),
                names: request.names.iter().map(ToString::to_string).collect(),
                build_args: build_args.collect(),
                platforms: request.platforms.iter().map(ToString::to_string).collect(),
                no_cache: request.no_cache,
            },
            image: None,
            error: notes.canceled_us.map(|_| "canceled".to_owned()),
            warnings: notes.warnings.clone(),
            steps: notes.steps.clone(),
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
        elsewhere: None,
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
    use std::path::PathBuf;

    use dhow_oci::Digest;
    use dhow_solver::MissReason;

    use super::*;

    #[test]
    fn a_build_is_seen_once_it_has_something_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("root")).expect("a store");
        let (lease, request) =
            (store.lease("build").expect("a lease"), BuildRequest::new(PathBuf::from("app")));
        let recorder = Recorder::new(&store, &lease, &request, jiff::Timestamp::now);
        let seen = || History::new(&store).list().expect("builds").pop();
        let [id, next] = [StepId(0), StepId(1)];
        let step =
            |id| StepInfo { id, stage: "0".into(), number: 1, count: 2, text: "RUN x".into(), line: 2 };

        recorder.source("Dockerfile", "/app/Dockerfile");
        recorder.event(&BuildEvent::Planned(&[step(id), step(next)]));
        let result = StepResult { image: Digest::sha256_of(b""), layer_bytes: None, log: None };
        for event in [BuildEvent::Started(id), BuildEvent::Cached(id), BuildEvent::Finished(id, &result)] {
            recorder.event(&event);
        }
        assert_eq!(seen(), None, "all was in the cache so far");

        recorder.event(&BuildEvent::Started(next));
        recorder.event(&BuildEvent::Running(next, &MissReason::FirstBuild));
        let outcomes = |build: &BuildRecord| build.steps.iter().map(|step| step.outcome).collect::<Vec<_>>();
        let build = seen().expect("it runs");
        assert_eq!(build.status, BuildStatus::Running);
        assert_eq!(outcomes(&build), [StepOutcome::Cached, StepOutcome::Running]);

        recorder.cancel();
        let build = seen().expect("it was canceled");
        assert_eq!((build.status, build.error.as_deref()), (BuildStatus::Canceled, Some("canceled")));
        assert_eq!(outcomes(&build), [StepOutcome::Cached, StepOutcome::Canceled]);
        let image = Built {
            image: Digest::sha256_of(b""),
            existed: false,
            build: recorder.id().to_owned(),
            descriptor: None,
        };
        let build = recorder.finish(&Ok(image)).expect("a record");
        assert_eq!((build.status, build.error), (BuildStatus::Completed, None), "the end came too late");
    }

    #[test]
    fn ids_sort_by_time_and_are_told_apart() {
        let at = |millis| id(jiff::Timestamp::from_millisecond(millis).expect("a time"));
        assert_eq!(at(0).len(), TIME_DIGITS + RANDOM_DIGITS);
        assert!(at(1_795_000_000_000) < at(1_795_000_000_001));
        assert!(at(31) < at(32));
        assert_ne!(at(7), at(7));
    }
}
