//! Repositories, through the `git` program.
//!
//! What a Dockerfile names may be a stranger's, so git is told to forget what it usually believes: no
//! configuration of the user or the system, no hooks, templates, credential helpers or prompts, no protocols
//! but those that were asked for. Nothing that came from outside can stand where an option stands. Credentials
//! for HTTP travel in the environment, since command lines are for everybody to read, and as a header: git puts
//! a URL with a password onto the command lines of its own helpers. Since git sends such a header wherever a
//! server sends it, it does not follow redirects of a repository with credentials; where the repository is
//! is found out before. SSH works as the user's own does, with its agent, keys and known hosts, and never asks.

use std::fs;
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use dhow_dockerfile::IgnoreRules;
use dhow_registry::{Download, DownloadRequest, Secret, Url};
use dhow_solver::{FactKind, Facts};
use dhow_sys::beneath::{Owner, Root, Time};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::credentials::GitCredential;
use super::git_ref::{GitSource, Protocol, Times};
use super::{Remote, SourceError};
use crate::cache::Step;
use crate::copy::{CopyOptions, Destination};
use crate::error::{StepError, while_doing};
use crate::plan::Layer;
use crate::select::{Modes, SelectError, Source};

/// What is kept of what git says.
const OUTPUT_BYTES_MAX: u64 = 16 << 20;
const COMPLAINT_BYTES_MAX: u64 = 64 << 10;
/// Lines of a complaint that are repeated.
const COMPLAINT_LINES_MAX: usize = 3;

/// What git says when its connection has ended too early.
const UNREADABLE: &str = "Could not read from remote repository";

/// Protocols that leave this machine.
const NETWORK: &str = "http:https:ssh:git";

/// Variables that would make git look elsewhere, run something or ask somebody.
const FORGOTTEN: [&str; 28] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_ASKPASS",
    "GIT_ATTR_SOURCE",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_SYSTEM",
    "GIT_CURL_VERBOSE",
    "GIT_DEFAULT_HASH",
    "GIT_DIR",
    "GIT_EXEC_PATH",
    "GIT_EXTERNAL_DIFF",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_PROXY_COMMAND",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_SSH",
    "GIT_SSL_NO_VERIFY",
    "GIT_TEMPLATE_DIR",
    "GIT_TRACE",
    "GIT_TRACE2",
    "GIT_TRACE_CURL",
    "GIT_TRACE_REDACT",
    "GIT_WORK_TREE",
    "SSH_ASKPASS",
];

/// Settings for every command, above all others.
const SETTINGS: [(&str, &str); 15] = [
    ("advice.detachedHead", "false"),
    ("core.askPass", ""),
    ("core.attributesFile", "/dev/null"),
    ("core.autocrlf", "false"),
    ("core.excludesFile", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.hooksPath", "/dev/null"),
    ("core.symlinks", "true"),
    ("credential.helper", ""),
    ("gc.auto", "0"),
    ("http.lowSpeedLimit", "1000"),
    ("http.lowSpeedTime", "60"),
    ("init.defaultBranch", "main"),
    ("maintenance.auto", "false"),
    ("submodule.recurse", "false"),
];

/// What a server answers with when it is asked for a repository.
const DISCOVERY: &str = "/info/refs";
const DISCOVERY_QUERY: &str = "?service=git-upload-pack";

/// A repository, and what git is told about its server.
struct Access<'a> {
    source: &'a GitSource,
    settings: Vec<(String, String)>,
    /// The agent to ask, if not the user's own.
    agent: Option<&'a Path>,
    /// What complaints must not repeat.
    hidden: Vec<String>,
}

/// Runs git with the arguments that a function gives it.
type Runner<'a> = dyn Fn(&mut dyn FnMut(&mut Command)) -> Result<Vec<u8>, SourceError> + 'a;

/// A commit that a source leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Its name in full.
    pub id: String,
    /// The reference it was found by, in full, if it was.
    pub reference: Option<String>,
}

impl GitSource {
    /// What a checkout of `commit` depends on: nowhere does the URL matter, but where it is written down.
    pub(crate) fn facts(&self, commit: &Commit) -> Facts {
        let mut facts = Facts::new();
        let keeps = self.keep_git_dir == Some(true);
        facts.text(FactKind::Instruction, "", "git checkout");
        facts.text(FactKind::Option, "commit", commit.id.as_str());
        facts.text(FactKind::Option, "folder", self.subdir.display().to_string());
        facts.text(FactKind::Option, "submodules", if self.submodules { "true" } else { "" });
        facts.text(FactKind::Option, "times", self.times.name());
        let kept = if keeps { format!("{} {:?}", self.url, commit.reference) } else { String::new() };
        facts.text(FactKind::Option, "keep-git-dir", kept);
        facts
    }
}

impl Remote<'_> {
    /// Asks the repository which commit is wanted. A commit in full needs no asking.
    pub(crate) fn resolve(&self, source: &GitSource) -> Result<Commit, SourceError> {
        let commit = match source.commit() {
            Some(id) => Commit { id, reference: None },
            None => self.ask(source)?,
        };
        match &source.checksum {
            Some(checksum) if !commit.id.starts_with(checksum.as_str()) => Err(SourceError::Commit {
                source_text: source.to_string(),
                expected: checksum.clone(),
                actual: commit.id,
            }),
            _ => Ok(commit),
        }
    }

    fn ask(&self, source: &GitSource) -> Result<Commit, SourceError> {
        let names: Vec<String> = match source.reference.as_deref() {
            None => vec!["HEAD".to_owned()],
            Some(name) if name == "HEAD" || name.starts_with("refs/") => vec![name.to_owned()],
            // git itself prefers branches.
            Some(name) => ["refs/heads/", "refs/tags/", "refs/"].map(|kind| format!("{kind}{name}")).into(),
        };
        let access = self.access(source)?;
        let mut git = self.git(&access);
        git.args(["ls-remote", "--quiet", "--", &source.url]);
        for name in &names {
            git.args([name.clone(), format!("{name}^{{}}")]);
        }
        let said = self.run_git(git, &access)?;
        let said = String::from_utf8_lossy(&said);
        let find = |wanted: &str| {
            let mut lines = said.lines().filter_map(|line| line.split_once('\t'));
            lines.find(|(_, name)| *name == wanted).map(|(id, _)| id.to_owned())
        };
        for name in names {
            // What an annotated tag is about, else the reference itself.
            if let Some(id) = find(&format!("{name}^{{}}")).or_else(|| find(&name)) {
                let is_id = matches!(id.len(), 40 | 64) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
                if is_id {
                    return Ok(Commit { id, reference: (name != "HEAD").then_some(name) });
                }
            }
        }
        Err(SourceError::Reference {
            url: source.url.clone(),
            name: source.reference.clone().unwrap_or_else(|| "HEAD".to_owned()),
        })
    }

    /// Makes a layer of a commit's files, as old as the commit.
    pub(crate) fn check_out(&self, source: &GitSource, commit: &Commit) -> Result<Step, StepError> {
        let aside = self.aside()?;
        let time = self.fetch_commit(source, commit, aside.path())?;
        let layer = self.aside()?;
        self.copy_checkout(source, time, aside.path(), layer.path())?;
        let frozen = self.images.freeze(layer.key(), self.lease);
        let frozen = frozen.map_err(while_doing("cannot keep the files of the repository"))?;
        let layers = frozen.map(|layer| Layer::of(&layer));
        let created = jiff::Timestamp::from_second(time.seconds).ok();
        Ok(Step {
            layers: layers.into_iter().collect(),
            created: created.map(|created| created.to_string()),
            log: None,
            is_whole: true,
        })
    }

    /// Checks a commit out into an empty folder; returns its time.
    fn fetch_commit(&self, source: &GitSource, commit: &Commit, dir: &Path) -> Result<Time, SourceError> {
        let access = self.access(source)?;
        let git = || {
            let mut git = self.git(&access);
            git.arg("-C").arg(dir);
            git
        };
        let run = |command: &mut dyn FnMut(&mut Command)| {
            let mut git = git();
            command(&mut git);
            self.run_git(git, &access)
        };
        let format = if commit.id.len() == 64 { "sha256" } else { "sha1" };
        run(&mut |git| {
            git.args(["init", "--quiet", "--template=", &format!("--object-format={format}")]);
        })?;
        run(&mut |git| {
            git.args(["remote", "add", "--", "origin", &source.url]);
        })?;
        self.fetch_objects(source, commit, &run)?;
        run(&mut |git| {
            git.args(["checkout", "--quiet", "--force", "--detach", &commit.id, "--"]);
        })?;
        if source.submodules && dir.join(".gitmodules").exists() {
            let update = |depth: Option<&str>| {
                run(&mut |git| {
                    // A repository, wherever it is, may not name folders of this machine.
                    git.env("GIT_ALLOW_PROTOCOL", NETWORK);
                    git.args(["submodule", "--quiet", "update", "--init", "--recursive", "--force"])
                        .args(depth);
                })
            };
            // Some servers give all or nothing.
            if update(Some("--depth=1")).is_err() {
                update(None)?;
            }
        }
        let said = run(&mut |git| {
            git.args(["show", "--no-patch", "--format=%ct", &commit.id, "--"]);
        })?;
        // What only tells of this very fetch.
        for name in ["FETCH_HEAD", "ORIG_HEAD"] {
            let _ = fs::remove_file(dir.join(".git").join(name));
        }
        let _ = fs::remove_dir_all(dir.join(".git/logs"));
        let seconds = String::from_utf8_lossy(&said).trim().parse().unwrap_or(0);
        Ok(Time { seconds, nanoseconds: 0 })
    }

    /// Fetches as little as the server can be talked into: the commit alone, the reference alone, or all.
    fn fetch_objects(
        &self,
        source: &GitSource,
        commit: &Commit,
        run: &Runner<'_>,
    ) -> Result<(), SourceError> {
        let is_here = || {
            run(&mut |git| {
                git.args(["cat-file", "-e", &format!("{}^{{commit}}", commit.id)]);
            })
            .is_ok()
        };
        let fetch = |depth: Option<&str>, specs: &[String]| {
            run(&mut |git| {
                git.args([
                    "fetch",
                    "--quiet",
                    "--no-tags",
                    "--force",
                    "--update-shallow",
                    "--update-head-ok",
                ]);
                git.args(depth).args(["--", "origin"]).args(specs);
            })
        };
        let kept = match (&commit.reference, source.keep_git_dir) {
            (Some(name), Some(true)) => name.clone(),
            _ => "refs/dhow/wanted".to_owned(),
        };
        let mut failure = fetch(Some("--depth=1"), &[format!("{}:{kept}", commit.id)]).err();
        if let (Some(_), Some(name)) = (&failure, &commit.reference) {
            failure = fetch(Some("--depth=1"), &[format!("{name}:{kept}")]).err();
        }
        if failure.is_some() || !is_here() {
            let all = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
            let mut specs: Vec<String> = all.map(str::to_owned).into();
            specs.extend(commit.reference.as_ref().map(|name| format!("{name}:{kept}")));
            fetch(None, &specs)?;
            if !is_here() {
                let url = source.url.clone();
                return Err(SourceError::Reference { url, name: commit.id.clone() });
            }
        }
        Ok(())
    }

    /// Copies what is wanted of a checkout, with the modes and times that git knows of.
    fn copy_checkout(&self, source: &GitSource, time: Time, from: &Path, to: &Path) -> Result<(), StepError> {
        const OPENING: &str = "cannot open the files of the repository";
        let [from, to] = [from, to].map(Root::open);
        let (from, to) = (from.map_err(while_doing(OPENING))?, to.map_err(while_doing(OPENING))?);
        let keeps = source.keep_git_dir == Some(true);
        let excluded = IgnoreRules::from_patterns(if keeps { &[][..] } else { &["**/.git"] }.iter().copied())
            .expect("the pattern is well formed");
        let tree = Source { excluded: Some(&excluded), modes: Modes::Git, ..Source::whole(&from) };
        let subdir = source.subdir.as_os_str();
        let missing = || SourceError::Folder { url: source.url.clone(), path: source.subdir.clone() };
        let instruction = "ADD";
        let found = tree.select_one(Path::new(subdir), "repository");
        let mut found = match found {
            Ok(found) if found.is_dir() => found,
            Ok(_) | Err(SelectError::NotFound { .. }) => return Err(missing().into()),
            Err(source) => return Err(StepError::Select { instruction, source }),
        };
        if source.times == Times::Commit {
            for entry in &mut found.entries {
                entry.stat.st_mtime = time.seconds;
                entry.stat.st_mtime_nsec = 0;
            }
        }
        let options =
            CopyOptions { owner: Some(Owner { uid: 0, gid: 0 }), chmod: None, made_at: time, replace: false };
        let failed = |source| StepError::Copy { instruction, source };
        let destination = Destination::find(&to, "/").map_err(failed)?;
        destination.copy(&from, &found, &options).map_err(failed)
    }

    /// What the server of a repository is to be told.
    fn access<'s>(&'s self, source: &'s GitSource) -> Result<Access<'s>, SourceError> {
        let agent = self.credentials.agent().filter(|_| source.protocol == Protocol::Ssh);
        let mut access = Access { source, settings: Vec::new(), agent, hidden: Vec::new() };
        let Some(credential) = self.credentials.of_repository(source)? else { return Ok(access) };
        let moved = self.moved(source, &credential.authorization)?;
        let GitCredential { authorization, mut scope } = credential;
        if let Some(moved) = moved {
            if scope == source.url {
                scope.clone_from(&moved);
            }
            access.settings.push((format!("url.{moved}.insteadOf"), source.url.clone()));
        }
        let header = format!("Authorization: {}", authorization.expose());
        access.settings.push((format!("http.{scope}.extraHeader"), header));
        access.settings.push((format!("http.{scope}.followRedirects"), "false".to_owned()));
        access.hidden.push(authorization.expose().to_owned());
        access.hidden.extend(source.user_info.iter().map(|user_info| user_info.expose().to_owned()));
        Ok(access)
    }

    /// Where the server sends those who ask for the repository, if that is elsewhere on the same server. A server
    /// that does not answer is left for git to complain about.
    fn moved(&self, source: &GitSource, authorization: &Secret) -> Result<Option<String>, SourceError> {
        let asked = format!("{}{DISCOVERY}{DISCOVERY_QUERY}", source.url);
        let request = DownloadRequest {
            url: &asked,
            authorization: Some(authorization.clone()),
            ..DownloadRequest::default()
        };
        let (Ok(Download::Content(content)), Ok(asked)) = ((self.download)(&request), Url::parse(&asked))
        else {
            return Ok(None);
        };
        let found =
            format!("{}://{}{}", content.url.scheme().name(), content.url.authority(), content.url.path());
        let found = found.strip_suffix(DISCOVERY).unwrap_or(&found).to_owned();
        if !content.url.same_origin(&asked) {
            return Err(SourceError::LeadsAway { url: source.url.clone(), to: found });
        }
        Ok(Some(found).filter(|found| *found != source.url))
    }

    /// The program, made to forget all that is not said here.
    fn git(&self, access: &Access<'_>) -> Command {
        let mut git = Command::new("git");
        for name in FORGOTTEN {
            git.env_remove(name);
        }
        let settings = SETTINGS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let settings: Vec<(String, String)> = settings.chain(access.settings.iter().cloned()).collect();
        if let Some(agent) = access.agent {
            git.env("SSH_AUTH_SOCK", agent);
        }
        git.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (number, (key, value)) in settings.into_iter().enumerate() {
            git.env(format!("GIT_CONFIG_KEY_{number}"), key);
            git.env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        let is_here = access.source.protocol == Protocol::File;
        git.env("GIT_ALLOW_PROTOCOL", if is_here { "file" } else { NETWORK })
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15")
            .env("GIT_SSH_VARIANT", "ssh")
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            .env("LC_ALL", "C")
            // Not in a repository whose configuration would count.
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        git
    }

    /// Runs it to its end, or until the build is to stop; returns what it printed.
    fn run_git(&self, mut git: Command, access: &Access<'_>) -> Result<Vec<u8>, SourceError> {
        let source = access.source;
        let start_failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => SourceError::NoGit { source_text: source.to_string() },
            _ => SourceError::Git { source_text: source.to_string(), why: error.to_string() },
        };
        let mut child = git.spawn().map_err(start_failed)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (said, complaint) = std::thread::scope(|scope| {
            let said = scope.spawn(|| read_some(stdout, OUTPUT_BYTES_MAX));
            let complaint = scope.spawn(|| read_some(stderr, COMPLAINT_BYTES_MAX));
            kill_if_stopped(&mut child, self.stop);
            (said.join().unwrap_or_default(), complaint.join().unwrap_or_default())
        });
        let status = child.wait().map_err(start_failed)?;
        if status.success() {
            return Ok(said);
        }
        let mut why = match shown(&complaint) {
            why if why.is_empty() => format!("git ended with {status}"),
            why => why,
        };
        for hidden in &access.hidden {
            why = why.replace(hidden, "***");
        }
        Err(SourceError::Git { source_text: source.to_string(), why })
    }
}

/// What may help when git says this.
pub(super) fn hint(why: &str) -> Option<String> {
    let says = |word: &str| why.contains(word);
    let text = if says("could not read Username") || says("Authentication failed") || says("error: 403") {
        "give a token with --secret id=GIT_AUTH_TOKEN,env=NAME"
    } else if says("Host key verification failed") {
        "write the server's key down: ssh-keyscan HOST >> ~/.ssh/known_hosts"
    } else if says("Permission denied (publickey") {
        "give an agent or a key with --ssh default[=FILE]"
    } else {
        return None;
    };
    Some(text.to_owned())
}

/// Waits for the end of `child`, and brings it about when there is a sign to stop.
fn kill_if_stopped(child: &mut Child, stop: Option<BorrowedFd<'_>>) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pidfd = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    // Without a descriptor or a sign it is simply waited for.
    let (Some(pidfd), Some(stop)) = (pidfd, stop) else { return };
    loop {
        let mut ends = [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(&stop, PollFlags::IN)];
        match poll(&mut ends, None) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(_) if !ends[1].revents().is_empty() && ends[0].revents().is_empty() => {
                // One that has ended meanwhile needs no end.
                let _ = child.kill();
                return;
            }
            _ => return,
        }
    }
}

/// The first `max` bytes; the rest is read and forgotten, so that nobody waits for a reader.
fn read_some(from: Option<impl Read>, max: u64) -> Vec<u8> {
    let Some(mut from) = from else { return Vec::new() };
    let mut bytes = Vec::new();
    // A pipe that breaks has nothing more to say.
    let _ = from.by_ref().take(max).read_to_end(&mut bytes);
    let _ = io::copy(&mut from, &mut io::sink());
    bytes
}

/// The lines of a complaint that say most, on one line.
fn shown(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("hint:"));
    let lines: Vec<String> = lines
        .map(|line| line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect())
        .collect();
    let first = lines.iter().position(|line| line.starts_with("fatal:") || line.starts_with("error:"));
    // Of a server that does not answer, ssh says why in the line before.
    let first = first.map(|first| match lines[first].contains(UNREADABLE) {
        true => first.saturating_sub(1),
        false => first,
    });
    let lines = &lines[first.unwrap_or(0)..];
    lines[..lines.len().min(COMPLAINT_LINES_MAX)].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_one_line_that_begins_with_what_matters() {
        assert_eq!(shown(b"Cloning\nhint: x\nfatal: a\x1b[1m\nb\nc\nd\n"), "fatal: a [1m; b; c");
        let ssh = b"Warning: x\ng@h: Permission denied (publickey).\nfatal: Could not read from remote repository.\n\nPlease\n";
        let expected =
            "g@h: Permission denied (publickey).; fatal: Could not read from remote repository.; Please";
        assert_eq!(shown(ssh), expected);
        assert_eq!(shown(b""), "");
        assert_eq!(shown(b"odd\n"), "odd");
    }
}
