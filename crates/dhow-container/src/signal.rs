//! Telling running containers something: stop, kill, restart, pause, wait.

use std::fs::File;
use std::io::Read as _;
use std::thread;
use std::time::{Duration, Instant};

use dhow_runtime::{Attached, ExitStatus, StopMeaning, WindowSize};
use dhow_sys::signal;

use crate::containers::Containers;
use crate::error::{DiskError, FindError, SignalError, StartError, disk};
use crate::freeze;
use crate::record::{Container, State};

/// What asks a program to end, unless it or its user says otherwise.
const STOP_SIGNAL: i32 = 15;
const KILL_SIGNAL: i32 = 9;
/// How long a program has to end after it was asked to.
const STOP_TIMEOUT_S: i64 = 10;
/// How long the kernel has to end a program that was killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether a container ended.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// Most of what is read of a note about an exit.
const STATUS_BYTES_MAX: u64 = 1 << 20;

/// How a container is to be stopped.
#[derive(Clone, Debug, Default)]
pub struct StopOptions {
    /// Instead of the container's stop signal.
    pub signal: Option<String>,
    /// Seconds until it is killed, instead of the container's; negative is never.
    pub timeout_s: Option<i64>,
}

impl Containers {
    /// Asks a container's program to end, and makes it if it does not. One that does not run is left alone.
    pub fn stop(&self, text: &str, options: &StopOptions) -> Result<(), SignalError> {
        self.stop_as(self.find(text)?, options, StopMeaning::ForGood)
    }

    /// The same when the host goes down: the container comes back with the host if its policy says so.
    pub fn stop_for_now(&self, container: Container, options: &StopOptions) -> Result<(), SignalError> {
        self.stop_as(container, options, StopMeaning::ForNow)
    }

    fn stop_as(
        &self,
        container: Container,
        options: &StopOptions,
        meaning: StopMeaning,
    ) -> Result<(), SignalError> {
        match container.state {
            State::Running { .. } => {}
            State::Restarting { .. } => {
                self.note_stop(&container.id, meaning)?;
                self.wait_for_shim(&container.id)?;
                self.tell(&container, "stop", &[]);
                return Ok(());
            }
            State::Exited { .. } => return self.wait_for_shim(&container.id).map(drop).map_err(Into::into),
            State::Created | State::Starting => return Ok(()),
        }
        let configured = &container.record.config.stop_signal;
        let number = match options.signal.as_ref().or(Some(configured).filter(|signal| !signal.is_empty())) {
            Some(text) => signal::parse(text).ok_or_else(|| SignalError::Invalid(text.clone()))?,
            None => STOP_SIGNAL,
        };
        let timeout = options.timeout_s.or(container.record.host.stop_timeout_s).unwrap_or(STOP_TIMEOUT_S);
        // Before it may end of it.
        self.note_stop(&container.id, meaning)?;
        self.tell(&container, "kill", &[("signal", number.to_string())]);
        self.send(&container.id, number)?;
        let limit = u64::try_from(timeout).ok().map(Duration::from_secs);
        if !self.ends_within(&container.id, limit)? {
            self.end_by_force_as(&container, meaning)?;
        }
        self.tell(&container, "stop", &[]);
        Ok(())
    }

    /// Sends a signal to a container's program.
    pub fn kill(&self, text: &str, signal: &str) -> Result<(), SignalError> {
        let number = signal::parse(signal).ok_or_else(|| SignalError::Invalid(signal.into()))?;
        let container = self.find(text)?;
        let not_running = || SignalError::NotRunning { name: text.into(), id: container.id.clone() };
        if !container.state.is_up() {
            return Err(not_running());
        }
        // Before it may end of it. With a stop signal of its own, others do not mean the end.
        let configured = &container.record.config.stop_signal;
        let is_end =
            number == KILL_SIGNAL || configured.is_empty() || signal::parse(configured) == Some(number);
        let meaning = if is_end { StopMeaning::ForGood } else { StopMeaning::ByUser };
        self.note_stop(&container.id, meaning)?;
        if matches!(container.state, State::Restarting { .. }) {
            return Ok(());
        }
        self.tell(&container, "kill", &[("signal", number.to_string())]);
        match number {
            KILL_SIGNAL => self.end_by_force(&container),
            _ if self.send(&container.id, number)? => Ok(()),
            _ => Err(not_running()),
        }
    }

    /// Stops and starts a container.
    pub fn restart(&self, text: &str, options: &StopOptions) -> Result<(), RestartError> {
        self.stop(text, options)?;
        self.start(text)?;
        // It may have ended and gone already.
        if let Ok(container) = self.find(text) {
            self.tell(&container, "restart", &[]);
        }
        Ok(())
    }

    /// Holds all processes of a container.
    pub fn pause(&self, text: &str) -> Result<(), SignalError> {
        let container = self.find(text)?;
        match container.state {
            State::Running { paused: true, .. } => return Err(SignalError::AlreadyPaused(container.id)),
            State::Running { .. } => {}
            State::Restarting { .. } => return Err(SignalError::Restarting(container.id)),
            _ => return Err(SignalError::Idle(container.id)),
        }
        match freeze::freeze(&self.bundle(&container.id))
            .map_err(disk("pause the control group of", self.bundle(&container.id).dir()))?
        {
            true => {
                self.tell(&container, "pause", &[]);
                Ok(())
            }
            false => Err(SignalError::NoFreezer(text.into())),
        }
    }

    /// Lets the processes of a container go on.
    pub fn unpause(&self, text: &str) -> Result<(), SignalError> {
        let container = self.find(text)?;
        match container.state {
            State::Running { paused: true, .. } => {
                self.thaw(&container.id)?;
                self.tell(&container, "unpause", &[]);
                Ok(())
            }
            State::Running { .. } => Err(SignalError::NotPaused(container.id)),
            _ => Err(SignalError::Idle(container.id)),
        }
    }

    /// Waits until a container ended and its shim has given everything back. One that was never started counts as
    /// ended, with 0.
    pub fn wait(&self, text: &str) -> Result<i32, FindError> {
        let container = self.find(text)?;
        // Opened now: a container that is removed when it ends leaves its status in this file.
        let lock = File::open(self.run_dir(&container.id).lock());
        if container.state == State::Created {
            return Ok(0);
        }
        if let Some(status) = self.wait_for_shim(&container.id)? {
            return Ok(status.exit_code);
        }
        let mut json = Vec::new();
        let read = lock.and_then(|file| file.take(STATUS_BYTES_MAX).read_to_end(&mut json));
        match read.ok().and_then(|_| serde_json::from_slice::<ExitStatus>(&json).ok()) {
            Some(status) => Ok(status.exit_code),
            None => match self.find(&container.id)?.state {
                State::Exited { status, .. } => Ok(status.exit_code),
                _ => Ok(0),
            },
        }
    }

    /// Waits until a container that was seen to end has given back what the next one may want: its published ports,
    /// and its name if it is to be removed. The rest of tidying up takes longer and nobody waits for it.
    pub fn wait_until_released(&self, id: &str) -> Result<(), FindError> {
        let container = match self.find(id) {
            Ok(container) => container,
            Err(FindError::NotFound(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        if !container.record.host.auto_remove {
            if container.record.host.restart.is_no() && !container.record.port_mappings().is_empty() {
                self.wait_for_shim(id)?;
            }
            return Ok(());
        }
        let run_dir = self.run_dir(id);
        let is_alive = || dhow_runtime::is_alive(&run_dir).map_err(disk("look at", run_dir.dir()));
        while self.records().get(id)?.is_some() && is_alive()? {
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Gives the terminal of a running container another size.
    pub fn resize(&self, text: &str, size: WindowSize) -> Result<(), AttachError> {
        let (container, attached) = self.attach(text)?;
        let socket = self.run_dir(&container.id).socket();
        Ok(attached.resize(size).map_err(disk("write to", &socket))?)
    }

    /// Attaches to a running container; what it says from now on is seen.
    pub fn attach(&self, text: &str) -> Result<(Container, Attached), AttachError> {
        let container = self.find(text)?;
        match container.state {
            State::Running { paused: true, .. } => return Err(AttachError::Paused),
            State::Running { .. } => {}
            State::Restarting { .. } => return Err(AttachError::Restarting),
            _ => return Err(AttachError::NotRunning),
        }
        let run_dir = self.run_dir(&container.id);
        let attached = Attached::connect(&run_dir).map_err(disk("connect to", &run_dir.socket()))?;
        self.tell(&container, "attach", &[]);
        Ok((container, attached))
    }

    /// Tells that somebody left a container by the keys for that.
    pub fn tell_detach(&self, id: &str) {
        if let Ok(container) = self.find(id) {
            self.tell(&container, "detach", &[]);
        }
    }

    /// Tells that the terminal of a container has another size.
    pub fn tell_resize(&self, id: &str, size: WindowSize) {
        if let Ok(container) = self.find(id) {
            let more = [("height", size.rows.to_string()), ("width", size.columns.to_string())];
            self.tell(&container, "resize", &more);
        }
    }

    /// Notes what the end means that is about to come.
    fn note_stop(&self, id: &str, meaning: StopMeaning) -> Result<(), DiskError> {
        let (run_dir, bundle) = (self.run_dir(id), self.bundle(id));
        dhow_runtime::note_stop(&run_dir, &bundle, meaning).map_err(disk("note the stop in", bundle.dir()))
    }

    /// Sends a signal, also to a container that is held. False: it does not run.
    fn send(&self, id: &str, number: i32) -> Result<bool, DiskError> {
        let run_dir = self.run_dir(id);
        let sent =
            dhow_runtime::signal(&run_dir, number).map_err(disk("signal the container of", run_dir.dir()))?;
        // What is held sees no signal.
        self.thaw(id).map(|()| sent)
    }

    fn thaw(&self, id: &str) -> Result<(), DiskError> {
        if !freeze::is_frozen(&self.bundle(id)) {
            return Ok(());
        }
        freeze::thaw(&self.bundle(id)).map_err(disk("resume the control group of", self.bundle(id).dir()))
    }

    /// Kills a container and waits until its shim has given everything back.
    pub(crate) fn end_by_force(&self, container: &Container) -> Result<(), SignalError> {
        self.end_by_force_as(container, StopMeaning::ForGood)
    }

    fn end_by_force_as(&self, container: &Container, meaning: StopMeaning) -> Result<(), SignalError> {
        // Somebody who only wants to remove it may have found the disk full.
        let noted = self.note_stop(&container.id, meaning);
        if !container.record.host.restart.is_no() {
            noted?;
        }
        let deadline = Instant::now() + KILL_TIMEOUT;
        // A container that is being started is not there to be killed yet.
        while Instant::now() < deadline {
            self.send(&container.id, KILL_SIGNAL)?;
            if self.ends_within(&container.id, Some(Duration::from_millis(500)))? {
                return Ok(());
            }
        }
        Err(SignalError::Immortal(container.name.clone()))
    }

    /// Whether the shim of a container is gone before `limit` has passed; without one, waits for it.
    fn ends_within(&self, id: &str, limit: Option<Duration>) -> Result<bool, DiskError> {
        let Some(limit) = limit else { return self.wait_for_shim(id).map(|_| true) };
        let (run_dir, deadline) = (self.run_dir(id), Instant::now() + limit);
        while dhow_runtime::is_alive(&run_dir).map_err(disk("look at", run_dir.dir()))? {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            thread::sleep(POLL_INTERVAL.min(left));
        }
        Ok(true)
    }
}

/// Why a container was not restarted.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// It was not stopped.
    #[error(transparent)]
    Stop(#[from] SignalError),
    /// It was not started again.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Why nobody is attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no such container.
    #[error(transparent)]
    Find(#[from] FindError),
    /// There is nothing to attach to.
    #[error("You cannot attach to a stopped container, start it first")]
    NotRunning,
    /// It is between two runs.
    #[error("You cannot attach to a restarting container, wait until it is running")]
    Restarting,
    /// It says nothing.
    #[error("You cannot attach to a paused container, unpause it first")]
    Paused,
    /// The shim does not answer.
    #[error(transparent)]
    Io(#[from] DiskError),
}
