//! Signals: names, masks and dispositions.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

/// Names by number, 1 to 31.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The highest signal number.
pub const SIGNAL_MAX: i32 = 64;

/// Reads `9`, `KILL`, `SIGKILL`, `kill` or `RTMIN+3`.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=SIGNAL_MAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return Some(index as i32 + 1);
    }
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => libc::SIGRTMIN(),
        (Some(plus), _) => libc::SIGRTMIN() + plus.strip_prefix('+')?.parse::<u8>().ok()? as i32,
        (_, Some("")) => libc::SIGRTMAX(),
        (_, Some(minus)) => libc::SIGRTMAX() - minus.strip_prefix('-')?.parse::<u8>().ok()? as i32,
        _ => match name {
            "CLD" => libc::SIGCHLD,
            "POLL" => libc::SIGIO,
            "IOT" => libc::SIGABRT,
            _ => return None,
        },
    };
    (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number).then_some(number).or(match name {
        "CLD" | "POLL" | "IOT" => Some(number),
        _ => None,
    })
}

/// The name with `SIG`, for the signals that have one.
pub fn name(number: i32) -> Option<String> {
    let index = usize::try_from(number).ok()?.checked_sub(1)?;
    NAMES.get(index).map(|name| format!("SIG{name}"))
}

/// A set of signals by number.
#[derive(Clone, Copy)]
pub struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// The signals `numbers`; those that do not exist are left out.
    pub fn of(numbers: &[i32]) -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: sigemptyset initializes the set it is given, and sigaddset refuses numbers out of range.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for number in numbers {
                libc::sigaddset(set.as_mut_ptr(), *number);
            }
            SignalSet(set.assume_init())
        }
    }

    /// Blocks these signals for the calling thread and those it starts from now on.
    pub fn block(&self) -> io::Result<()> {
        set_mask(libc::SIG_BLOCK, self)
    }

    /// Unblocks these signals for the calling thread.
    pub fn unblock(&self) -> io::Result<()> {
        set_mask(libc::SIG_UNBLOCK, self)
    }

    /// Makes these the only blocked signals of the calling thread.
    pub fn set_blocked(&self) -> io::Result<()> {
        set_mask(libc::SIG_SETMASK, self)
    }

    /// A descriptor that yields these signals, which must be blocked, when they arrive.
    pub fn descriptor(&self) -> io::Result<SignalFd> {
        // SAFETY: the set is initialized; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const self.0, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just returned this descriptor to us and nobody else holds it.
        Ok(SignalFd(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

fn set_mask(how: libc::c_int, set: &SignalSet) -> io::Result<()> {
    // SAFETY: the set is initialized and outlives the call; the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(how, &raw const set.0, ptr::null_mut()) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Signals as a readable descriptor.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl std::os::fd::AsFd for SignalFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl SignalFd {
    /// The next signal that arrived, if any.
    pub fn next(&self) -> io::Result<Option<i32>> {
        const NUMBER_BYTES: usize = 4;
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.0, &mut info) {
            // The signal's number is the first field.
            Ok(bytes) if bytes >= NUMBER_BYTES => {
                Ok(Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]])))
            }
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether a signal does nothing to this process, as `nohup` and shells that start a program in the background ask.
pub fn is_ignored(number: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action nothing changes, and the old one is written to a place of its size.
    let asked = unsafe { libc::sigaction(number, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: the call succeeded, and so wrote the action.
    asked == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// Gives every signal its default action and unblocks all: the state a new program expects.
pub fn reset() -> io::Result<()> {
    for number in 1..=SIGNAL_MAX {
        // SAFETY: the default action runs no code of ours. KILL, STOP and libc's own signals refuse, which
        // is fine: nothing else can have changed them.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    SignalSet::of(&[]).set_blocked()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asked_to_ignore_is_not_ignored() {
        // Rust's runtime ignores this one.
        assert!(is_ignored(libc::SIGPIPE));
        assert!(!is_ignored(libc::SIGUSR2) && !is_ignored(0));
    }

    #[test]
    fn signals_are_known_by_number_and_by_name() {
        for text in ["9", "KILL", "SIGKILL", "sigkill"] {
            assert_eq!(parse(text), Some(9), "{text}");
        }
        assert_eq!(parse("SIGCLD"), Some(libc::SIGCHLD));
        assert_eq!(parse("RTMIN+1"), Some(libc::SIGRTMIN() + 1));
        for text in ["0", "65", "NOPE", "RTMIN+99", "RTMIN-1", ""] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(name(15).as_deref(), Some("SIGTERM"));
        assert_eq!(name(0), None);
    }
}
