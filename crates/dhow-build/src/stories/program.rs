//! The programs of stories: a handful of commands that read and write files of the mounted layers.

use std::fs;
use std::io::Read as _;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use dhow_runtime::{Bundle, ExitStatus, OnceRequest, OutputStream, RootMount, StartError};
use dhow_snapshot::MountSpec;
use dhow_sys::beneath::{Owner, Root, Time};
use serde_json::Value;

static COUNTER: AtomicU64 = AtomicU64::new(1);

/// Runs what `sh -c` is given, without a shell: commands with `&&` between them.
pub(crate) fn launch_once(
    request: &OnceRequest,
    _: Option<BorrowedFd<'_>>,
    output: &mut dyn FnMut(OutputStream, &[u8]),
) -> Result<ExitStatus, StartError> {
    let config = fs::read(Bundle::new(&request.bundle).config()).expect("a bundle has a configuration");
    let config: Value = serde_json::from_slice(&config).expect("it is JSON");
    let root = match &request.root {
        RootMount::Overlay { lowers, upper, work } => {
            let (upper, work) = (Some(upper.clone()), Some(work.clone()));
            crate::execute::mount(&MountSpec { lowers: lowers.clone(), upper, work, userxattr: false })
        }
        RootMount::Directory(dir) => panic!("a step has layers, not only {}", dir.display()),
    };
    let program = Program { root: root.expect("layers can be mounted"), config };
    let script = program.config["process"]["args"][2].as_str().unwrap_or_default().to_owned();
    for command in script.split("&&") {
        let words: Vec<&str> = command.split_whitespace().collect();
        let exit_code = program.run(&words, output);
        if exit_code != 0 {
            return Ok(ended(exit_code));
        }
    }
    Ok(ended(0))
}

fn ended(exit_code: i32) -> ExitStatus {
    ExitStatus { exit_code, finished_at: String::new(), oom_killed: false, error: None }
}

struct Program {
    root: Root,
    config: Value,
}

impl Program {
    fn run(&self, words: &[&str], output: &mut dyn FnMut(OutputStream, &[u8])) -> i32 {
        let at = |path: &str| PathBuf::from(path.trim_start_matches('/'));
        match words {
            ["true"] => {}
            ["fail"] => return 1,
            ["say", words @ ..] => output(OutputStream::Stdout, format!("{}\n", words.join(" ")).as_bytes()),
            ["write", path, words @ ..] => self.write(path, &format!("{}\n", words.join(" "))),
            ["copy", from, to] => self.write(to, &self.read(from)),
            // Fails unless there is such a file.
            ["need", path] => return i32::from(self.root.try_stat(&at(path)).expect("a look").is_none()),
            ["env", path, names @ ..] => {
                let values: Vec<String> = names.iter().map(|name| self.variable(name)).collect();
                self.write(path, &values.join(" "));
            }
            ["count", path] => self.write(path, &COUNTER.fetch_add(1, Ordering::Relaxed).to_string()),
            ["mode", path, mode] => {
                let mode = u32::from_str_radix(mode, 8).expect("a mode");
                self.root.chmod(&at(path), mode).expect("a mode is set");
            }
            ["own", path, id] => {
                let id = id.parse().expect("an id");
                self.root.chown(&at(path), Owner { uid: id, gid: id }).expect("an owner is set");
            }
            ["old", path, seconds] => {
                let seconds = seconds.parse().expect("a number");
                self.root.set_times(&at(path), Time { seconds, nanoseconds: 0 }).expect("a time is set");
            }
            ["xattr", path, name, value] => {
                self.root.set_xattr(&at(path), name.as_ref(), value.as_bytes()).expect("an attribute is set");
            }
            ["link", path, target] => self.root.symlink(target.as_ref(), &at(path)).expect("a link is made"),
            _ => return 127,
        }
        0
    }

    fn write(&self, path: &str, text: &str) {
        use std::io::Write as _;
        if let Some(path) = self.mounted(path) {
            return fs::write(path, text).expect("it is written");
        }
        let path = Path::new(path.trim_start_matches('/'));
        self.root.mkdirs(path.parent().unwrap_or(Path::new("")), 0o755).expect("folders");
        if self.root.try_stat(path).expect("a look").is_some() {
            self.root.unlink(path).expect("it goes");
        }
        let mut file = self.root.create_file(path, 0o644).expect("a file");
        file.write_all(text.as_bytes()).expect("it is written");
    }

    /// Reads a file of the layers or of a mount.
    fn read(&self, path: &str) -> String {
        if let Some(path) = self.mounted(path) {
            return fs::read_to_string(path).unwrap_or_default();
        }
        let Ok(mut file) = self.root.open_file(Path::new(path.trim_start_matches('/'))) else {
            return String::new();
        };
        let mut text = String::new();
        file.read_to_string(&mut text).expect("text");
        text
    }

    /// Where a file is that is in a folder or file of the host's.
    fn mounted(&self, path: &str) -> Option<PathBuf> {
        let mounts = self.config["mounts"].as_array().into_iter().flatten();
        mounts.filter(|mount| mount["type"] == "bind").find_map(|mount| {
            let source = PathBuf::from(mount["source"].as_str()?);
            let rest = Path::new(path).strip_prefix(mount["destination"].as_str()?).ok()?;
            Some(if rest.as_os_str().is_empty() { source } else { source.join(rest) })
        })
    }

    fn variable(&self, name: &str) -> String {
        let env = self.config["process"]["env"].as_array().cloned().unwrap_or_default();
        let pairs = env.iter().filter_map(Value::as_str).filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(own, _)| *own == name)
            .map(|(_, value)| value.to_owned())
            .next_back()
            .unwrap_or_default()
    }
}
