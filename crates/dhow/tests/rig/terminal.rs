//! Commands on a pseudo-terminal, typed at.

use std::fs::File;
use std::io::Write;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::process::{Pipe, code};

/// How long a person would wait for an answer.
const ANSWER_SECONDS_MAX: u64 = 60;
const POLL: Duration = Duration::from_millis(5);
const ROWS: NonZero<u16> = NonZero::new(40).unwrap();
const COLUMNS: NonZero<u16> = NonZero::new(120).unwrap();
/// What Ctrl-C sends.
pub(crate) const CTRL_C: &str = "\x03";

/// A command that believes somebody sits in front of it.
pub(crate) struct Terminal {
    child: Child,
    line: String,
    keyboard: File,
    screen: Pipe,
    /// How much of what was said has been waited for.
    seen: usize,
}

impl Terminal {
    pub(super) fn start(command: Command, line: &str) -> Self {
        println!("$ {line}    (on a terminal)");
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("a terminal to use");
        let size = Winsize { ws_row: ROWS.get(), ws_col: COLUMNS.get(), ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("a terminal has a size");
        let name = ptsname(&master, Vec::new()).expect("a terminal has a name");
        let slave = open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
            .expect("the terminal's other side");
        let screen = File::from(master.try_clone().expect("a descriptor"));
        let child = controlled(command, slave)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start `{line}`: {error}"));
        Self { child, line: line.to_owned(), keyboard: master.into(), screen: Pipe::read(screen), seen: 0 }
    }

    /// Types.
    pub(crate) fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("the terminal takes what is typed");
    }

    /// Waits until `text` appears after what was waited for before, and returns everything up to it.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let end = Instant::now() + Duration::from_secs(ANSWER_SECONDS_MAX);
        loop {
            let is_last_look = self.screen.is_over() || Instant::now() > end;
            let screen = self.screen.text();
            let fresh = &screen[self.seen..];
            if let Some(position) = fresh.find(text) {
                let before = fresh[..position].to_owned();
                self.seen += position + text.len();
                return before;
            }
            if is_last_look {
                let ended = self.child.try_wait().expect("it is our child");
                panic!("`{}` never showed `{text}`; status {ended:?}:\n{screen}", self.line);
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until a person would see `text`, whatever part of it was drawn last.
    #[track_caller]
    pub(crate) fn shows(&mut self, text: &str) {
        let end = Instant::now() + Duration::from_secs(ANSWER_SECONDS_MAX);
        loop {
            let is_last_look = self.screen.is_over() || Instant::now() > end;
            let mut screen = vt100::Parser::new(ROWS, COLUMNS, 0);
            screen.process(self.screen.text().as_bytes());
            let seen = screen.screen().contents();
            if seen.contains(text) {
                return;
            }
            assert!(!is_last_look, "`{}` does not show `{text}`:\n{seen}", self.line);
            thread::sleep(POLL);
        }
    }

    /// Waits for the command's end; returns its status and all that was on the screen, with plain line ends.
    #[track_caller]
    pub(crate) fn finish(mut self) -> (i32, String) {
        let end = Instant::now() + Duration::from_secs(ANSWER_SECONDS_MAX);
        loop {
            let ended = self.child.try_wait().expect("it is our child");
            if let Some(status) = ended.filter(|_| self.screen.is_over()) {
                let text = self.screen.text().replace("\r\n", "\n");
                print!("{text}");
                return (code(status), text);
            }
            assert!(Instant::now() < end, "`{}` hangs:\n{}", self.line, self.screen.text());
            thread::sleep(POLL);
        }
    }
}

/// `command` on the terminal `slave`, which controls it: only the process itself can ask for that, so `setsid` does.
fn controlled(command: Command, slave: OwnedFd) -> Command {
    let mut outer = Command::new("setsid");
    outer.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args()).env_clear();
    outer.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        outer.current_dir(folder);
    }
    let copy = || slave.try_clone().expect("a descriptor");
    outer.stdin(copy()).stdout(copy()).stderr(copy());
    outer
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // It may end by itself meanwhile; closing the terminal hangs up on the rest.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
