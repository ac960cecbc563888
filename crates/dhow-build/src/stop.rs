use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, epoll, eventfd};

/// Something that becomes readable when running programs are to be ended: because a step failed, or because
/// whoever asked for the build wants it to end.
pub(crate) struct Stop {
    event: OwnedFd,
    /// Readable when any of its members is.
    both: Option<OwnedFd>,
}

impl Stop {
    /// `outside` is the caller's own sign.
    pub(crate) fn new(outside: Option<BorrowedFd<'_>>) -> io::Result<Stop> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let both = match outside {
            None => None,
            Some(outside) => {
                let both = epoll::create(epoll::CreateFlags::CLOEXEC)?;
                for fd in [event.as_fd(), outside] {
                    epoll::add(&both, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
                }
                Some(both)
            }
        };
        Ok(Stop { event, both })
    }

    /// Ends all programs, running and to come.
    pub(crate) fn now(&self) {
        // The counter cannot overflow by ones in the life of a build, so this cannot fail.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.both.as_ref().unwrap_or(&self.event).as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn is_readable(fd: &impl AsFd) -> bool {
        let no_time = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&no_time)).expect("a poll") == 1
    }

    #[test]
    fn it_is_readable_after_either_sign() {
        let stop = Stop::new(None).expect("a sign");
        assert!(!is_readable(&stop));
        stop.now();
        assert!(is_readable(&stop));
        for from_outside in [true, false] {
            let (reader, writer) = io::pipe().expect("a pipe");
            let stop = Stop::new(Some(reader.as_fd())).expect("a sign");
            assert!(!is_readable(&stop));
            if from_outside {
                drop(writer)
            } else {
                stop.now()
            }
            assert!(is_readable(&stop));
        }
    }
}
