use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;

/// bcrypt is slow on purpose; more at once would only let strangers keep the machine busy.
const CHECKS_AT_ONCE: usize = 2;
/// How many pairs that were right are remembered, so that each need not be checked with every request.
const REMEMBERED_MAX: usize = 1000;
/// Doubles the time of a check with each step.
const COST: u32 = 10;
/// Checked when there is no such user, so that it takes as long.
const NOBODY: &str = "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";

/// Users and their passwords, in the format of Apache's `htpasswd -B`. The file is read again when it has changed.
pub(crate) struct Htpasswd {
    path: PathBuf,
    users: Mutex<Users>,
    remembered: Mutex<HashSet<[u8; 32]>>,
    key: hmac::Key,
    checks: Semaphore,
}

struct Users {
    seen: (SystemTime, u64),
    hashes: HashMap<String, String>,
}

/// Why a file of users cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HtpasswdError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is not understood.
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from one.
        line: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A password or name that cannot be kept.
    #[error("{0}")]
    Password(String),
}

impl Htpasswd {
    pub(crate) fn open(path: &Path) -> Result<Htpasswd, HtpasswdError> {
        let users = read(path)?;
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .expect("the kernel has random bytes");
        Ok(Htpasswd {
            path: path.to_owned(),
            users: Mutex::new(users),
            remembered: Mutex::default(),
            key,
            checks: Semaphore::new(CHECKS_AT_ONCE),
        })
    }

    /// Whether this is the password of this user.
    pub(crate) async fn verify(&self, user: &str, password: &str) -> bool {
        let known = self.hash(user);
        let hash = known.clone().unwrap_or_else(|| NOBODY.to_owned());
        let seal = self.seal(user, password, &hash);
        if known.is_some() && lock(&self.remembered).contains(&seal) {
            return true;
        }
        let _turn = self.checks.acquire().await.expect("it is never closed");
        let password = password.to_owned();
        let check = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false));
        let is_right = check.await.unwrap_or(false) && known.is_some();
        if is_right {
            let mut remembered = lock(&self.remembered);
            if remembered.len() >= REMEMBERED_MAX {
                remembered.clear();
            }
            remembered.insert(seal);
        }
        is_right
    }

    /// What a right pair is remembered by. It has the hash in it: a new password makes another.
    fn seal(&self, user: &str, password: &str, hash: &str) -> [u8; 32] {
        let tag = hmac::sign(&self.key, format!("{user}\0{password}\0{hash}").as_bytes());
        tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }

    fn hash(&self, user: &str) -> Option<String> {
        let mut users = lock(&self.users);
        // A file that is being edited badly must not lock everybody out: the last good one counts.
        if seen(&self.path).is_ok_and(|seen| seen != users.seen)
            && let Ok(new) = read(&self.path)
        {
            *users = new;
        }
        users.hashes.get(user).cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn seen(path: &Path) -> io::Result<(SystemTime, u64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.modified()?, metadata.len()))
}

fn read(path: &Path) -> Result<Users, HtpasswdError> {
    let failed = |source| HtpasswdError::Read { path: path.to_owned(), source };
    let seen = seen(path).map_err(failed)?;
    let text = fs::read_to_string(path).map_err(failed)?;
    let mut hashes = HashMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |problem| HtpasswdError::Line { path: path.to_owned(), line: index + 1, problem };
        let (user, hash) = line.split_once(':').ok_or_else(|| wrong("not NAME:HASH"))?;
        if !["$2a$", "$2b$", "$2y$"].iter().any(|start| hash.starts_with(start)) {
            return Err(wrong(
                "the password is not hashed by bcrypt; `dhow registry htpasswd` and `htpasswd -B` do that",
            ));
        }
        hashes.insert(user.to_owned(), hash.to_owned());
    }
    Ok(Users { seen, hashes })
}

/// A line for a file of users.
pub fn htpasswd_line(user: &str, password: &str) -> Result<String, HtpasswdError> {
    if user.is_empty()
        || user.contains([':', '\n', '\r'])
        || user.starts_with('#')
        || user == "anonymous"
        || user == "*"
    {
        return Err(HtpasswdError::Password(format!("`{user}` cannot be the name of a user")));
    }
    if password.is_empty() || password.len() > 72 {
        return Err(HtpasswdError::Password("a password has 1 to 72 bytes".to_owned()));
    }
    let hash = bcrypt::hash(password, COST).map_err(|error| HtpasswdError::Password(error.to_string()))?;
    Ok(format!("{user}:{hash}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_user_is_known_by_the_password_and_a_new_file_counts_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::write(&path, format!("# who\n{}\n", htpasswd_line("ada", "one").unwrap())).unwrap();
        let users = Htpasswd::open(&path).unwrap();
        assert!(users.verify("ada", "one").await && users.verify("ada", "one").await);
        assert!(!users.verify("ada", "two").await && !users.verify("bob", "one").await);
        fs::write(&path, format!("{}\n", htpasswd_line("ada", "two").unwrap())).unwrap();
        assert!(users.verify("ada", "two").await && !users.verify("ada", "one").await);
        fs::write(&path, "nonsense").unwrap();
        assert!(users.verify("ada", "two").await, "the last good file counts");
    }

    #[test]
    fn a_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::write(&path, "\nada:$apr1$x\n").unwrap();
        let error = Htpasswd::open(&path).err().expect("MD5 is refused").to_string();
        assert!(error.contains("users:2: the password is not hashed by bcrypt"), "{error}");
        for (user, password) in [("", "x"), ("a:b", "x"), ("ada", ""), ("anonymous", "x")] {
            assert!(htpasswd_line(user, password).is_err(), "{user}");
        }
    }
}
