//! Signals that end a command: what it does is told of them before they do what they do.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use dhow_sys::signal::{self, SignalFd, SignalSet};
use rustix::process::{Signal, getpid, kill_process};

/// Those that ask a command to end.
const ENDING: [Signal; 3] = [Signal::INT, Signal::TERM, Signal::HUP];

/// Catches the signals that end a command while it lasts. Those that came and were not acted upon do what they do when
/// it is dropped.
///
/// To be made before the process has other threads: a signal goes to any thread that does not block it.
pub struct Interrupts {
    signals: SignalSet,
    arrivals: SignalFd,
}

impl Interrupts {
    /// Catches them, but for those that this process ignores.
    pub fn catch() -> io::Result<Interrupts> {
        let heeded = ENDING.map(Signal::as_raw).into_iter().filter(|number| !signal::is_ignored(*number));
        let signals = SignalSet::of(&heeded.collect::<Vec<_>>());
        signals.block()?;
        Ok(Interrupts { signals, arrivals: signals.descriptor()? })
    }

    /// Ends this process by the signal that arrived.
    pub fn end(&self) -> ! {
        let number = self.arrivals.next().ok().flatten().unwrap_or(Signal::INT.as_raw());
        let _ = self.signals.unblock();
        for signal in ENDING.into_iter().filter(|signal| signal.as_raw() == number) {
            // If that should fail, there is the status that a shell has for it.
            let _ = kill_process(getpid(), signal);
        }
        std::process::exit(128 + number)
    }
}

impl AsFd for Interrupts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.arrivals.as_fd()
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        // It fails for signals that do not exist only.
        let _ = self.signals.unblock();
    }
}
