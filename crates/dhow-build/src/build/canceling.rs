//! A build that its caller stops. That it was stopped is written down and told before anything is ended: whoever hears
//! of it may end the whole process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};

use crate::error::{StoreFailure, while_doing};
use crate::stop::Stop;

const WATCHING: &str = "cannot watch for a sign to stop";

/// Does `work`, which is given a sign of its own: it comes after `told`, which is called when `sign` comes.
pub(super) fn watched<T>(
    sign: Option<BorrowedFd<'_>>,
    told: &(dyn Fn() + Sync),
    work: impl FnOnce(Option<BorrowedFd<'_>>) -> T,
) -> Result<T, StoreFailure> {
    let Some(sign) = sign else { return Ok(work(None)) };
    let over = Stop::new(None).map_err(while_doing(WATCHING))?;
    let stop = Stop::new(None).map_err(while_doing(WATCHING))?;
    Ok(thread::scope(|scope| {
        scope.spawn(|| {
            // Unable to watch we cannot hear of it; the work is done all the same.
            if came_before(sign, over.as_fd()).unwrap_or(false) {
                told();
                stop.now();
            }
        });
        let _over = Over(&over);
        work(Some(stop.as_fd()))
    }))
}

/// Ends the watch, also when the work panics.
struct Over<'s>(&'s Stop);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.now();
    }
}

/// Waits for either, and says whether it was `sign` alone.
fn came_before(sign: BorrowedFd<'_>, over: BorrowedFd<'_>) -> io::Result<bool> {
    loop {
        let mut polls = [sign, over].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        match poll(&mut polls, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(polls[1].revents().is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_sign_is_told_before_anything_stops() {
        let (sign, writer) = io::pipe().expect("a pipe");
        let (tell, told) = mpsc::channel();
        let heard = watched(Some(sign.as_fd()), &|| tell.send(()).expect("it is heard"), |stop| {
            drop(writer);
            let stop = stop.expect("a sign");
            poll(&mut [PollFd::from_borrowed_fd(stop, PollFlags::IN)], None).expect("a poll");
            told.try_recv()
        });
        assert_eq!(heard.expect("it was watched"), Ok(()));
    }

    #[test]
    fn work_that_nobody_stops_ends_the_watch() {
        let (sign, _writer) = io::pipe().expect("a pipe");
        let done = watched(Some(sign.as_fd()), &|| panic!("nobody asked"), |stop| stop.is_some());
        assert!(done.expect("it was watched"));
        assert!(watched(None, &|| panic!("nobody asked"), |stop| stop.is_none()).expect("nothing to watch"));
    }
}
