//! The last steps of a process on its way from dhow to the program of the container.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use dhow_sys::capability::{self, Capabilities, Capability, ThreadCapabilities};
use dhow_sys::seccomp::Program;
use dhow_sys::{process, signal, tty};
use oci_spec::runtime::{LinuxCapabilities, Process};
use rustix::fs::{Access, AtFlags, FileType, Mode};
use rustix::process::{Gid, Uid};

use super::step::Step;
use super::user::Identity;
use crate::{MemoryVariable, StartError};

/// The standard descriptors of a process.
#[derive(Debug)]
pub(crate) enum Stdio {
    /// Three files or pipes.
    Files([OwnedFd; 3]),
    /// The program's side of a terminal.
    Terminal(OwnedFd),
}

/// What the process becomes.
pub(crate) struct Target<'a> {
    /// Arguments, environment, limits.
    pub process: &'a Process,
    /// Variables that no file has, set last.
    pub extra_env: &'a [MemoryVariable],
    /// Whom it runs as.
    pub identity: &'a Identity,
    /// Its filter.
    pub seccomp: Option<&'a Program>,
    /// In a user namespace that does not allow to change groups.
    pub fixed_groups: bool,
}

/// Takes the standard descriptors, and nothing else will be inherited.
pub(crate) fn take_stdio(stdio: Stdio) -> Result<(), StartError> {
    rustix::process::setsid().step("cannot create a session")?;
    match stdio {
        Stdio::Files(files) => {
            // One of them may itself be a number below 3 that another wants.
            for (number, file) in files.iter().enumerate() {
                process::set_stdio(file.as_fd(), number as i32).step("cannot set standard descriptors")?;
            }
        }
        Stdio::Terminal(slave) => {
            tty::set_controlling(slave.as_fd()).step("cannot set the controlling terminal")?;
            for number in 0..3 {
                process::set_stdio(slave.as_fd(), number).step("cannot set standard descriptors")?;
            }
        }
    }
    process::close_on_exec_from(3).step("cannot close descriptors")
}

impl Target<'_> {
    /// Gives up all that the configuration does not grant, then calls `last`, and starts the program.
    ///
    /// `last` runs when nothing can go wrong any more except the execution itself.
    pub(crate) fn become_it(&self, last: impl FnOnce() -> Result<(), StartError>) -> StartError {
        let prepared = match self.prepare() {
            Ok(prepared) => prepared,
            Err(error) => return error,
        };
        if let Err(error) = self.restrict().and_then(|()| last()) {
            return error;
        }
        let error = process::execute(&prepared.path, &prepared.args, &prepared.env);
        exec_error(&prepared.path.to_string_lossy(), &error)
    }

    /// What needs the rights that are given up next.
    fn prepare(&self) -> Result<Prepared, StartError> {
        for rlimit in self.process.rlimits().iter().flatten() {
            let name = rlimit.typ().to_string().trim_start_matches("RLIMIT_").to_ascii_lowercase();
            process::set_rlimit(&name, rlimit.soft(), rlimit.hard())
                .step(format_args!("cannot set limit {name}"))?;
        }
        rustix::process::umask(Mode::from_raw_mode(self.process.user().umask().unwrap_or(0o022)));
        if let Some(score) = self.process.oom_score_adj() {
            std::fs::write("/proc/self/oom_score_adj", score.to_string()).step("cannot set oom_score_adj")?;
        }
        if let Some(profile) = self.process.apparmor_profile() {
            std::fs::write("/proc/self/attr/exec", format!("exec {profile}"))
                .step(format_args!("cannot set the AppArmor profile {profile}"))?;
        }
        process::new_session_keyring().step("cannot join a session keyring")?;
        enter_cwd(self.process.cwd())?;
        let env = self.environment();
        let args = self.process.args().clone().unwrap_or_default();
        let path = find_program(args.first().map_or("", String::as_str), &env)?;
        Ok(Prepared { path: c_string(path)?, args: c_strings(args)?, env: c_strings(env)? })
    }

    /// `HOME` is the user's unless the container says otherwise.
    fn environment(&self) -> Vec<String> {
        let mut env = self.process.env().clone().unwrap_or_default();
        for MemoryVariable { name, value } in self.extra_env {
            env.retain(|known| known.split('=').next() != Some(name));
            env.push(format!("{name}={value}"));
        }
        if !env.iter().any(|variable| variable.starts_with("HOME=")) {
            let home = self.identity.home.as_deref().filter(|home| !home.is_empty()).unwrap_or("/");
            env.push(format!("HOME={home}"));
        }
        env
    }

    /// Gives up all that the configuration does not grant.
    pub(crate) fn restrict(&self) -> Result<(), StartError> {
        let no_new_privileges = self.process.no_new_privileges().unwrap_or(false);
        if no_new_privileges {
            rustix::thread::set_no_new_privs(true).step("cannot set no_new_privs")?;
        } else if let Some(program) = self.seccomp {
            // Needs CAP_SYS_ADMIN, which is about to go.
            program.load().step("cannot load the seccomp profile")?;
        }
        let sets = self.capabilities();
        capability::limit_bounding(sets.bounding).step("cannot drop capabilities")?;
        capability::keep_over_user_change(true).step("cannot keep capabilities")?;
        self.change_user()?;
        capability::keep_over_user_change(false).step("cannot keep capabilities")?;
        capability::apply(&sets).step("cannot set capabilities")?;
        if no_new_privileges && let Some(program) = self.seccomp {
            program.load().step("cannot load the seccomp profile")?;
        }
        signal::reset().step("cannot reset signals")
    }

    fn change_user(&self) -> Result<(), StartError> {
        let Identity { uid, gid, groups, .. } = self.identity;
        let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        if !self.fixed_groups {
            rustix::thread::set_thread_groups(&groups).step("cannot set groups")?;
        }
        let gid = Gid::from_raw(*gid);
        rustix::thread::set_thread_res_gid(gid, gid, gid)
            .map_err(no_such_id)
            .step(format_args!("cannot become group {}", gid.as_raw()))?;
        let uid = Uid::from_raw(*uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid)
            .map_err(no_such_id)
            .step(format_args!("cannot become user {}", uid.as_raw()))
    }

    /// Only root gets capabilities to use; others may gain what the bounding set leaves from files.
    fn capabilities(&self) -> ThreadCapabilities {
        let Some(configured) = self.process.capabilities() else { return ThreadCapabilities::default() };
        let root = self.identity.uid == 0;
        let for_root = |set: Capabilities| if root { set } else { Capabilities::default() };
        ThreadCapabilities {
            bounding: set(configured, LinuxCapabilities::bounding),
            effective: for_root(set(configured, LinuxCapabilities::effective)),
            permitted: for_root(set(configured, LinuxCapabilities::permitted)),
            inheritable: set(configured, LinuxCapabilities::inheritable),
            ambient: for_root(set(configured, LinuxCapabilities::ambient)),
        }
    }
}

/// Says what the kernel means: without root a container knows only the ids its user was given.
fn no_such_id(error: rustix::io::Errno) -> io::Error {
    match error {
        rustix::io::Errno::INVAL => {
            io::Error::new(io::ErrorKind::InvalidInput, "the user namespace has no such id")
        }
        error => error.into(),
    }
}

struct Prepared {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

type OciCapabilities = Option<std::collections::HashSet<oci_spec::runtime::Capability>>;

fn set(configured: &LinuxCapabilities, field: fn(&LinuxCapabilities) -> &OciCapabilities) -> Capabilities {
    let names = field(configured).iter().flatten().map(ToString::to_string);
    // Capabilities newer than this program cannot be granted by it.
    names.filter_map(|name| name.parse::<Capability>().ok()).collect()
}

/// Enters the working directory and makes sure that it is inside (CVE-2024-21626): a directory outside, for
/// example one reached through an inherited descriptor in /proc/self/fd, has no path from the root.
fn enter_cwd(cwd: &Path) -> Result<(), StartError> {
    let shown = cwd.display();
    rustix::process::chdir(cwd).step(format_args!("cannot enter working directory {shown}"))?;
    let actual =
        rustix::process::getcwd(Vec::new()).step(format_args!("cannot verify working directory {shown}"))?;
    match actual.to_bytes().first() {
        Some(b'/') => Ok(()),
        _ => Err(StartError::Setup(format!("working directory {shown} is outside of the container"))),
    }
}

/// Finds the program as a shell would, in the container.
fn find_program(name: &str, env: &[String]) -> Result<String, StartError> {
    if name.is_empty() {
        return Err(StartError::Setup("no command specified".into()));
    }
    if name.contains('/') {
        return match executable(name) {
            Ok(()) => Ok(name.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(StartError::NotFound(format!("exec: {name:?}: stat {name}: no such file or directory")))
            }
            Err(error) => Err(exec_failure(name, &error)),
        };
    }
    let path = env.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or_default();
    let candidates = path.split(':').map(|directory| match directory {
        "" => PathBuf::from(".").join(name),
        directory => Path::new(directory).join(name),
    });
    let found =
        candidates.map(|path| path.to_string_lossy().into_owned()).find(|path| executable(path).is_ok());
    found.ok_or_else(|| StartError::NotFound(format!("exec: {name:?}: executable file not found in $PATH")))
}

fn executable(path: &str) -> io::Result<()> {
    let stat = rustix::fs::stat(path)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(rustix::fs::accessat(rustix::fs::CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?)
}

fn exec_failure(name: &str, error: &io::Error) -> StartError {
    StartError::NotExecutable(format!("exec: {name:?}: {}", plain(error)))
}

fn exec_error(path: &str, error: &io::Error) -> StartError {
    let text = format!("exec {path}: {}", plain(error));
    match error.kind() {
        io::ErrorKind::NotFound => StartError::NotFound(text),
        _ => StartError::NotExecutable(text),
    }
}

/// The words of strerror without Rust's number, in lower case as Docker's messages have them.
fn plain(error: &io::Error) -> String {
    let text = match error.kind() {
        io::ErrorKind::IsADirectory => "is a directory".to_string(),
        _ => error.to_string(),
    };
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn c_string(text: String) -> Result<CString, StartError> {
    CString::new(text).map_err(|error| {
        let text = String::from_utf8_lossy(&error.into_vec()).into_owned();
        StartError::Setup(format!("{text:?} contains a nul byte"))
    })
}

fn c_strings(texts: Vec<String>) -> Result<Vec<CString>, StartError> {
    texts.into_iter().map(c_string).collect()
}
