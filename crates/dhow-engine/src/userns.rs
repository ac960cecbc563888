//! Working without root: as root of a user namespace of one's own.
//!
//! All commands of a user that are alive, and the containers they started, share one namespace: only from
//! inside it may a later command enter or kill what an earlier one started. Nothing holds the namespace but its
//! processes. It is found through them: each command writes itself into the file `userns` of the run-time
//! folder, and running containers are known anyway. When the last one is gone, so is the namespace, and the
//! next command makes another that knows the same ids.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use dhow_sys::process;
use dhow_sys::userns::{self, CreateError, Delegated};
use rustix::fs::FlockOperation;

pub use dhow_sys::userns::IdMap;

/// Most of what is read of the file of members and of the system's tables.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What the kernel and security modules forbid by, the value that forbids, and how to allow.
const OBSTACLES: [(&str, &str, &str); 3] = [
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile that allows dhow userns",
    ),
];

/// Why this user cannot work without root.
#[derive(Debug, thiserror::Error)]
pub enum UserNamespaceError {
    /// The namespace was not made.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The run-time folder cannot be used.
    #[error("cannot use {}: {source}", path.display())]
    Disk {
        /// The folder or a file in it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl UserNamespaceError {
    /// What the user, or the administrator, can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            UserNamespaceError::Create(CreateError::Refused(_)) => {
                let forbids = |(path, value, _): &&(&str, &str, &str)| {
                    fs::read_to_string(path).is_ok_and(|text| text.trim() == *value)
                };
                Some(match OBSTACLES.iter().find(forbids) {
                    Some((path, value, remedy)) => {
                        format!("{path} is {value}: run dhow as root, or allow it with `{remedy}`")
                    }
                    None => "run dhow as root, or let this user create user namespaces".into(),
                })
            }
            UserNamespaceError::Create(CreateError::Delegated(_)) => Some(
                "newuidmap and newgidmap must be set-user-id root; without them, or without this user's lines in \
                 /etc/subuid and /etc/subgid, dhow does with a single id"
                    .into(),
            ),
            _ => None,
        }
    }
}

/// Makes the calling process, which must have a single thread, root of its user's namespace: that of the user's
/// other commands and containers, whose run-time state is in `run`, if any is alive, else a new one. `programs`
/// is where `newuidmap` is looked for. Returns the ids the namespace knows.
pub fn enter(run: &Path, programs: &[PathBuf]) -> Result<IdMap, UserNamespaceError> {
    let disk = |path: &Path| {
        let path = path.to_path_buf();
        move |source| UserNamespaceError::Disk { path, source }
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(run).map_err(disk(run))?;
    let path = run.join("userns");
    let mut members = Members::open(&path).map_err(disk(&path))?;
    let joined = members.alive.iter().any(|(pid, _)| userns::join(*pid))
        || dhow_container::running_inits(run).into_iter().any(userns::join);
    if !joined {
        userns::create(delegated(programs))?;
    }
    members.add_self().map_err(disk(&path))?;
    IdMap::current().map_err(disk(Path::new("/proc/self/uid_map")))
}

/// The living commands of a user, by process id and start time, under lock.
struct Members {
    file: File,
    alive: Vec<(i32, u64)>,
}

impl Members {
    fn open(path: &Path) -> io::Result<Members> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))?;
        let mut text = String::new();
        (&file).take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        let is_alive = |(pid, time): &(i32, u64)| process::start_time(*pid).is_ok_and(|now| now == *time);
        let alive = text.lines().filter_map(parse_member).filter(is_alive).collect();
        Ok(Members { file, alive })
    }

    fn add_self(&mut self) -> io::Result<()> {
        let pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
        self.alive.push((pid, process::start_time(pid)?));
        let text: String = self.alive.iter().map(|(pid, time)| format!("{pid} {time}\n")).collect();
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())
    }
}

fn parse_member(line: &str) -> Option<(i32, u64)> {
    let (pid, time) = line.split_once(' ')?;
    Some((pid.parse().ok()?, time.parse().ok()?))
}

/// The ids this user may hand out, if there are any and the programs that do it.
fn delegated(programs: &[PathBuf]) -> Option<Delegated> {
    let is_here = |name: &str| programs.iter().any(|folder| folder.join(name).is_file());
    if !is_here("newuidmap") || !is_here("newgidmap") {
        return None;
    }
    let uid = rustix::process::geteuid().as_raw();
    let name = user_name(&read("/etc/passwd"), uid);
    let range = |table: &str| first_range(&read(table), name.as_deref(), uid);
    Some(Delegated { uids: range("/etc/subuid")?, gids: range("/etc/subgid")? })
}

/// A table that is missing or unreadable has nothing for us.
fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // What was read before an error is as good as a shorter table.
        let _ = file.take(FILE_BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn user_name(passwd: &str, uid: u32) -> Option<String> {
    let rows = passwd.lines().map(|line| line.split(':').collect::<Vec<&str>>());
    let is_user = |row: &Vec<&str>| row.get(2).and_then(|text| text.parse().ok()) == Some(uid);
    rows.into_iter().find(is_user).map(|row| row[0].to_owned())
}

/// The first line of `/etc/subuid` or `/etc/subgid` for a user, who is there by name or by number.
fn first_range(table: &str, name: Option<&str>, uid: u32) -> Option<(u32, u32)> {
    table.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        if Some(owner) != name && owner.parse() != Ok(uid) {
            return None;
        }
        let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (count > 0).then_some((first, count))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delegated_ids_are_found_by_name_or_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("ada"));
        assert_eq!(user_name(passwd, 7), None);

        let table = "# a remark\nbob:1:2\nada:100000:65536\n1001:300000:10\neve:5:0\n";
        assert_eq!(first_range(table, Some("ada"), 1000), Some((100_000, 65_536)));
        assert_eq!(first_range(table, None, 1001), Some((300_000, 10)));
        assert_eq!(first_range(table, Some("eve"), 1002), None);
        assert_eq!(first_range(table, None, 7), None);
    }

    #[test]
    fn only_the_living_are_members() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("userns");
        fs::write(&path, "nonsense\n1 0\n999999999 5\n").unwrap();
        let mut members = Members::open(&path).unwrap();
        assert_eq!(members.alive, []);
        members.add_self().unwrap();
        drop(members);
        assert_eq!(Members::open(&path).unwrap().alive[0].0, std::process::id() as i32);
    }
}
