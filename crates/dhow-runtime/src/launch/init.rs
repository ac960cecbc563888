//! Our own process 1 (`--init`): reaps orphans and passes signals on.

use std::os::fd::AsFd;

use dhow_sys::process::{self, Child, CloneNamespaces, Cloned, Ended};
use dhow_sys::signal::{SIGNAL_MAX, SignalSet};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{WaitOptions, WaitStatus};

use super::step::Step;
use crate::StartError;

/// Splits the calling process in two. One goes on as the program; the other never returns: it is process 1 and
/// ends as the program does. `restrict` takes from it what the program may not have either.
pub(super) fn split(restrict: impl FnOnce() -> Result<(), StartError>) -> Result<(), StartError> {
    match process::clone(CloneNamespaces::default()).step("cannot start the program below init")? {
        Cloned::Child => Ok(()),
        Cloned::Parent(program) => {
            if restrict().is_err() {
                // An init with too many rights is worse than none; without one the container ends.
                std::process::exit(1);
            }
            process::continue_alone(program, |program| serve(&program).map_or(1, Ended::code))
        }
    }
}

fn serve(program: &Child) -> Result<Ended, StartError> {
    let all: Vec<i32> = (1..=SIGNAL_MAX).collect();
    let signals = SignalSet::of(&all);
    signals.block().step("cannot block signals")?;
    let arrivals = signals.descriptor().step("cannot receive signals")?;
    loop {
        while let Some(signal) = arrivals.next().step("cannot receive signals")? {
            if signal != rustix::process::Signal::CHILD.as_raw() {
                // The program may have ended just now, which the next lines find out.
                let _ = process::send_signal(program.pidfd.as_fd(), signal);
            }
        }
        if let Some(ended) = reap(program)? {
            return Ok(ended);
        }
        // A SIGCHLD that came since is waiting in the descriptor.
        rustix::event::poll(&mut [PollFd::new(&arrivals, PollFlags::IN)], None)
            .step("cannot wait for signals")?;
    }
}

/// Reaps all that have ended; tells if the program is among them.
fn reap(program: &Child) -> Result<Option<Ended>, StartError> {
    let mut ended = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == program.pid => {
                ended = Some(end_of(status))
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(ended),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).step("cannot wait for processes"),
        }
    }
}

fn end_of(status: WaitStatus) -> Ended {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ended::Exited(code),
        (None, signal) => Ended::Killed(signal.unwrap_or(9)),
    }
}
