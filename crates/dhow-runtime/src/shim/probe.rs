//! Asking a container how it is, from within its shim.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::clients::is_transient;
use super::{ShimHooks, Told, record, rfc3339};
use crate::health::{self, Health, HealthCheck, ProbeResult};
use crate::launch::{Running, Step};
use crate::{Bundle, ExecRequest, RunDir, StartError, exec};

/// How much is read at once.
const READ_BYTES: usize = 4096;
/// The longest answer of the helper that runs a probe.
const REPLY_BYTES_MAX: usize = 64 * 1024;
/// What a probe is said to have ended with that did not end by itself.
const NOT_ENDED: i32 = -1;

/// Looks after the health of one run of a container.
pub(super) struct Doctor {
    check: HealthCheck,
    health: Health,
    born: Instant,
    next: Instant,
    probe: Option<Probe>,
}

/// A probe under way.
struct Probe {
    /// The helper that runs it. Letting go of it ends the probe.
    control: UnixStream,
    output: Option<File>,
    said: Vec<u8>,
    reply: Vec<u8>,
    since_start: Duration,
    start: String,
    deadline: Instant,
}

/// What is needed to ask.
pub(super) struct Patient<'a> {
    pub bundle: &'a Bundle,
    pub run_dir: &'a RunDir,
    pub running: &'a Running,
    pub hooks: ShimHooks,
    pub on_exit: Option<&'a serde_json::Value>,
}

impl Doctor {
    /// For a container that was started just now.
    pub(super) fn new(check: &HealthCheck, bundle: &Bundle) -> Result<Doctor, StartError> {
        let (health, now) = (Health::default(), Instant::now());
        record::write_json(&bundle.health(), &health).step("cannot record the health")?;
        let next = now + health.wait(check, Duration::ZERO);
        Ok(Doctor { check: check.clone(), health, born: now, next, probe: None })
    }

    /// What it waits for.
    pub(super) fn watched(&self) -> [Option<BorrowedFd<'_>>; 2] {
        match &self.probe {
            Some(probe) => [Some(probe.control.as_fd()), probe.output.as_ref().map(AsFd::as_fd)],
            None => [None, None],
        }
    }

    /// When it wants to be called if nothing happens before.
    pub(super) fn deadline(&self) -> Instant {
        self.probe.as_ref().map_or(self.next, |probe| probe.deadline)
    }

    /// Does what there is to do now.
    pub(super) fn turn(&mut self, patient: &Patient<'_>) {
        let now = Instant::now();
        let Some(probe) = &mut self.probe else {
            if now >= self.next {
                self.ask(patient, now);
            }
            return;
        };
        let end = match probe.listen() {
            Some(end) => end,
            None if now >= probe.deadline => {
                let limit = health::duration(self.check.timeout);
                (NOT_ENDED, Some(format!("Health check exceeded timeout ({limit})")))
            }
            None => return,
        };
        let probe = self.probe.take().expect("it was there just now");
        // Who is held cannot answer, and is not to be blamed.
        if end.0 == 0 || !patient.running.cgroup.is_frozen() {
            self.conclude(patient, probe, end);
        }
        self.plan();
    }

    fn ask(&mut self, patient: &Patient<'_>, now: Instant) {
        if patient.running.cgroup.is_frozen() {
            return self.plan();
        }
        let start = rfc3339((patient.hooks.now)());
        let since_start = self.born.elapsed();
        match begin(&self.check, patient) {
            Ok((control, output)) => {
                let deadline = now + self.check.timeout;
                let (said, reply) = Default::default();
                self.probe =
                    Some(Probe { control, output: Some(output), said, reply, since_start, start, deadline });
            }
            Err(error) => {
                let end = rfc3339((patient.hooks.now)());
                let result = ProbeResult { start, end, exit_code: NOT_ENDED, output: error.to_string() };
                self.note(patient, result, since_start);
                self.plan();
            }
        }
    }

    fn conclude(&mut self, patient: &Patient<'_>, probe: Probe, (exit_code, error): (i32, Option<String>)) {
        let output = error.unwrap_or_else(|| health::output(&probe.said));
        let end = rfc3339((patient.hooks.now)());
        self.note(patient, ProbeResult { start: probe.start, end, exit_code, output }, probe.since_start);
    }

    fn note(&mut self, patient: &Patient<'_>, result: ProbeResult, since_start: Duration) {
        let changed = self.health.record(&self.check, result, since_start);
        // On a full disk the record is out of date until the next probe; the container does not have to end for that.
        let _ = record::write_json(&patient.bundle.health(), &self.health);
        if changed && let Some(request) = patient.on_exit {
            (patient.hooks.told)(request, &Told::Health(self.health.status));
        }
    }

    fn plan(&mut self) {
        self.next = Instant::now() + self.health.wait(&self.check, self.born.elapsed());
    }
}

fn begin(check: &HealthCheck, patient: &Patient<'_>) -> Result<(UnixStream, File), StartError> {
    let (ours, theirs) = io::pipe().step("cannot create a pipe")?;
    let stdout = theirs.try_clone().step("cannot create a pipe")?;
    let stdio = [Stdio::null(), stdout.into(), theirs.into()];
    let request = ExecRequest { args: check.args.clone(), ..ExecRequest::default() };
    let control = exec::begin(patient.run_dir, patient.bundle, request, stdio)?;
    control.set_nonblocking(true).step("cannot talk to the helper")?;
    let output = super::serve::nonblocking(ours.into())?;
    Ok((control, File::from(output)))
}

impl Probe {
    /// Hears what there is to hear. An end: its code, or why there is none.
    fn listen(&mut self) -> Option<(i32, Option<String>)> {
        self.read_output();
        loop {
            let mut buffer = [0; READ_BYTES];
            match self.control.read(&mut buffer) {
                Ok(0) => break,
                Ok(bytes) => self.reply.extend_from_slice(&buffer[..bytes]),
                Err(error) if is_transient(&error) => return None,
                Err(_) => break,
            }
            if self.reply.len() > REPLY_BYTES_MAX {
                break;
            }
        }
        self.read_output();
        Some(match exec::end_of(&self.reply) {
            Ok(code) => (code, None),
            Err(error) => (NOT_ENDED, Some(error.to_string())),
        })
    }

    /// Reads all there is and keeps the beginning.
    fn read_output(&mut self) {
        while let Some(file) = &mut self.output {
            let mut buffer = [0; READ_BYTES];
            match file.read(&mut buffer) {
                Ok(bytes @ 1..) => {
                    let room = (health::OUTPUT_BYTES_MAX + 1).saturating_sub(self.said.len());
                    self.said.extend_from_slice(&buffer[..bytes.min(room)]);
                }
                Err(error) if is_transient(&error) => return,
                Ok(0) | Err(_) => self.output = None,
            }
        }
    }
}
