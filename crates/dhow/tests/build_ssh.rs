//! Repositories by SSH, and keys for the programs of a build, with a real server.

use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use rustix::process::Signal;

use crate::build_sources::repository;
use crate::rig::{Rig, Shell};

const SSHD: &str = "/usr/sbin/sshd";
/// Where a server of its own kind leaves what must not be seen; Debian makes it when a server is started.
const PRIVILEGES: &str = "/run/sshd";

/// An SSH server on 127.0.0.1 that lets in who has `work/ssh/key`, as root.
struct Server {
    port: u16,
}

impl Server {
    /// One; or, with the reason printed, none.
    fn start(rig: &Rig) -> Option<Server> {
        if !Path::new(SSHD).exists() {
            println!("skipped: there is no {SSHD}");
            return None;
        }
        fs::create_dir_all(PRIVILEGES).expect("a folder of the server");
        let dir = rig.context("ssh", &[]);
        fs::create_dir_all(dir.folder()).expect("a folder");
        for (name, phrase) in [("host", ""), ("key", ""), ("locked", "hush9")] {
            keygen(dir.folder(), name, phrase);
        }
        dir.ok("cp key.pub authorized");
        let folder = dir.folder().display();
        dir.write(
            "sshd",
            &format!(
                "HostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n\
                 PidFile none\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPrintMotd no\n"
            ),
        );
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let config = dir.folder().join("sshd");
        // It ends with the process of the test.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let stream = OwnedFd::from(stream);
                let copy = stream.try_clone().expect("a descriptor");
                let mut sshd = Command::new(SSHD);
                sshd.arg("-i").arg("-f").arg(&config).stdin(stream).stdout(copy).stderr(Stdio::null());
                let mut sshd = sshd.spawn().expect("the server starts");
                thread::spawn(move || sshd.wait());
            }
        });
        let public = fs::read_to_string(dir.folder().join("host.pub")).expect("a key");
        let key: Vec<&str> = public.split(' ').take(2).collect();
        dir.write("known", &format!("[127.0.0.1]:{port} {}\n", key.join(" ")));
        dir.write("nobody", "");
        dir.write("config", &format!("Host forge\n  HostName 127.0.0.1\n  Port {port}\n"));
        // What ssh takes for the machine's settings is ours, and seen by this line alone.
        let script = "mount -t tmpfs none /etc/ssh && cp $1 /etc/ssh/ssh_known_hosts && cp ../ssh/config \
                      /etc/ssh/ssh_config && shift && exec \"$@\"";
        dir.write("with", script);
        Some(Server { port })
    }
}

fn keygen(dir: &Path, name: &str, phrase: &str) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-C", name, "-N", phrase, "-f"])
        .arg(dir.join(name))
        .status();
    assert!(made.expect("ssh-keygen starts").success());
}

/// A line for who knows the servers in this file.
fn knowing(known: &str, line: &str) -> String {
    format!("unshare --mount sh ../ssh/with ../ssh/{known} {line}")
}

/// The agents that were started in a folder of this rig.
fn agents(rig: &Rig) -> Vec<PathBuf> {
    let root = fs::canonicalize(rig.path("")).expect("a folder");
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let agents = processes.map(|process| process.path()).filter(|process| {
        fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim_end() == "ssh-agent")
            && fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&root))
    });
    agents.collect()
}

/// Nothing of the agents is left.
#[track_caller]
fn no_agents(rig: &Rig) {
    assert_eq!(agents(rig), Vec::<PathBuf>::new());
    assert_eq!(fs::read_dir(rig.path("run/build-agents")).map_or(0, Iterator::count), 0);
}

#[track_caller]
fn gives(app: &Shell<'_>, line: &str, expected: &str) {
    app.ok(&knowing("known", line));
    assert_eq!(app.ok("docker run --rm app cat /f"), expected, "{line}");
}

#[test]
fn repositories_come_by_ssh_with_the_key_that_is_given() {
    let Some(rig) = Rig::start() else { return };
    let repo = repository(&rig);
    let Some(Server { port }) = Server::start(&rig) else { return };
    let app = rig.context("app", &[("Dockerfile", "")]);
    rig.ok("docker pull -q alpine");
    let (repo, key) = (repo.display(), "--ssh default=../ssh/key");
    let by_url = format!("ssh://root@127.0.0.1:{port}{repo}");
    let by_name = format!("root@forge:{repo}");
    // The server of `forge` is known by its address.
    for (source, expected) in [
        (format!("{by_url}#v1:sub"), "one"),
        (format!("{by_url}?branch=other&subdir=sub&submodules=0"), "two"),
    ] {
        app.ok("docker builder prune -a -f");
        app.write("Dockerfile", &format!("FROM alpine\nADD {source} /\n"));
        gives(&app, &format!("docker build -q -t app {key} ."), expected);
    }
    app.ok("docker builder prune -a -f");
    app.write("Dockerfile", &format!("FROM alpine\nADD {by_name}#v1:sub /\n"));
    gives(&app, &format!("docker build -q -t app {key} ."), "one");
    gives(&app, &format!("docker build -q -t app {key} {by_url}#v1"), "one");
    app.write("Dockerfile", "FROM alpine\nCOPY --from=x sub/f /f\n");
    gives(&app, &format!("docker build -q -t app {key} --build-context x={by_name}#v1 ."), "one");
    no_agents(&rig);

    app.write("Dockerfile", &format!("FROM alpine\nADD {by_url}#main /r\n"));
    for (known, flags, says) in [
        ("known", "", "Hint: give an agent or a key with --ssh default[=FILE]"),
        ("nobody", key, "Hint: write the server's key down: ssh-keyscan HOST >> ~/.ssh/known_hosts"),
        (
            "known",
            "--ssh default=../ssh/locked",
            "is protected by a passphrase, and a build cannot ask for it",
        ),
    ] {
        let said = app.fails(&knowing(known, &format!("docker build -q {flags} .")), 1);
        assert!(said.contains(says), "{said}");
    }
    no_agents(&rig);
}

/// Asks the agent for its keys, or has it sign; prints what it answers.
const ASK: &str = "\
import os, socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.connect(os.environ['SSH_AUTH_SOCK'])
f = s.makefile('rwb')
def ask(kind, body=b''):
    f.write(struct.pack('>IB', len(body) + 1, kind) + body)
    f.flush()
    answer = f.read(struct.unpack('>I', f.read(4))[0])
    return answer[0], answer[1:]
def text(data):
    n = struct.unpack('>I', data[:4])[0]
    return data[4:4 + n], data[4 + n:]
kind, keys = ask(11)
count, keys = struct.unpack('>I', keys[:4])[0], keys[4:]
names = []
for _ in range(count):
    blob, keys = text(keys)
    name, keys = text(keys)
    kind, _ = ask(13, struct.pack('>I', len(blob)) + blob + struct.pack('>I', 4) + b'data' + struct.pack('>I', 0))
    names.append('%s:%d' % (name.decode(), kind))
print(' '.join(names), ask(19)[0])
";

#[test]
fn programs_sign_with_keys_that_they_cannot_have_or_remove() {
    let Some(rig) = Rig::start() else { return };
    let app = rig.context("app", &[("ask.py", ASK)]);
    for name in ["one", "two"] {
        keygen(app.folder(), name, "");
    }
    app.write(
        "Dockerfile",
        "FROM python:3.9-slim\nCOPY ask.py /\nRUN --mount=type=ssh python3 /ask.py >/out\n\
         RUN --mount=type=ssh,id=other python3 /ask.py >>/out\n",
    );
    app.ok("docker build -q -t app --ssh default=one,two --ssh other=two .");
    // A key is listed and signs (14); to remove all is refused (5).
    assert_eq!(app.ok("docker run --rm app cat /out"), "one:14 two:14 5\ntwo:14 5");
    no_agents(&rig);
    // Whoever kills the build kills its agents.
    app.write("Dockerfile", "FROM python:3.9-slim\nRUN --mount=type=ssh touch /tmp/x; sleep 1000\n");
    let building = app.spawn("docker build -q --ssh default=one .");
    rig.eventually("an agent", || !agents(&rig).is_empty());
    building.signal(Signal::KILL);
    building.finish();
    rig.eventually("no agent", || agents(&rig).is_empty());
    app.write("Dockerfile", "FROM alpine\n");
    app.ok("docker build -q --ssh default=one .");
    no_agents(&rig);
}
