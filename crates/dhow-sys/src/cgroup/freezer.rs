//! Holding all processes of a group.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use super::Cgroup;

/// How often it is looked whether all processes are held.
const TRIES: u32 = 500;
const RETRY_DELAY: Duration = Duration::from_millis(2);

/// The file that holds the processes of a group, what to write to it, and where to read that it is so.
struct Freezer {
    control: PathBuf,
    words: [&'static str; 2],
    state: PathBuf,
    is_v2: bool,
}

impl Cgroup {
    /// Whether all processes of the group are held.
    pub fn is_frozen(&self) -> bool {
        self.freezer().is_some_and(|freezer| freezer.is(true))
    }

    /// Holds the processes of the group. False: this host cannot, or there is no group.
    pub fn freeze(&self) -> io::Result<bool> {
        match self.freezer() {
            Some(freezer) => freezer.set(true).map(|()| true),
            None => Ok(false),
        }
    }

    /// Lets them go on.
    pub fn thaw(&self) -> io::Result<()> {
        self.freezer().map_or(Ok(()), |freezer| freezer.set(false))
    }

    /// Lets processes go on that may be held, without waiting for that.
    pub(super) fn let_go(&self) {
        if let Some(freezer) = self.freezer() {
            let [thawed, _] = freezer.words;
            // A group that cannot be let go is noticed by whoever waits for its processes.
            let _ = fs::write(&freezer.control, thawed);
        }
    }

    fn freezer(&self) -> Option<Freezer> {
        let directories = self.directories();
        let (name, directory) = directories.iter().find(|(name, _)| name.is_empty() || *name == "freezer")?;
        let is_v2 = name.is_empty();
        let freezer = match is_v2 {
            true => Freezer {
                control: directory.join("cgroup.freeze"),
                words: ["0", "1"],
                state: directory.join("cgroup.events"),
                is_v2,
            },
            false => Freezer {
                control: directory.join("freezer.state"),
                words: ["THAWED", "FROZEN"],
                state: directory.join("freezer.state"),
                is_v2,
            },
        };
        freezer.control.exists().then_some(freezer)
    }
}

impl Freezer {
    fn is(&self, frozen: bool) -> bool {
        let text = fs::read_to_string(&self.state).unwrap_or_default();
        match self.is_v2 {
            true => text.lines().any(|line| line == format!("frozen {}", u8::from(frozen))),
            false => text.trim() == self.words[usize::from(frozen)],
        }
    }

    fn set(&self, frozen: bool) -> io::Result<()> {
        for _ in 0..TRIES {
            fs::write(&self.control, self.words[usize::from(frozen)])?;
            if self.is(frozen) {
                return Ok(());
            }
            thread::sleep(RETRY_DELAY);
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}
