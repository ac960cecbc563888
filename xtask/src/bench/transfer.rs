//! Images on their way from and to registries.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::Arena;
use super::content;
use super::measure::{Measured, Turn, measure};
use super::rivals::Tool;
use crate::command;
use crate::registry::{Registry, Settings, choose_port};

const READY_SECONDS_MAX: u64 = 20;
/// Layers, files of each, bytes of each: 200 MB and 1 GB of files.
const MIDDLE: (u32, u32, usize) = (8, 800, 32 << 10);
const LARGE: (u32, u32, usize) = (8, 400, 320 << 10);

/// A pull of 200 MB into an empty store.
pub(crate) fn pull(arena: &Arena<'_>) -> anyhow::Result<Vec<Measured>> {
    pull_of(arena, "pull of 200 MB in 8 layers into an empty store", "middle", MIDDLE, arena.rounds)
}

/// The same of 1 GB.
pub(crate) fn pull_large(arena: &Arena<'_>) -> anyhow::Result<Vec<Measured>> {
    let rounds = arena.rounds.min(3);
    pull_of(arena, "pull of 1 GB in 8 layers into an empty store", "large", LARGE, rounds)
}

fn pull_of(
    arena: &Arena<'_>,
    title: &str,
    name: &str,
    size: (u32, u32, usize),
    rounds: u32,
) -> anyhow::Result<Vec<Measured>> {
    let rivals = arena.rivals;
    let image = image(arena, name, size)?;
    command::output(&mut rivals.dhow.command(&["push", "-q", &image]))?;
    let pull = ["pull", "-q", &image];
    let plain = ["pull", "-q", "--tls-verify=false", &image];
    let turns = [
        Turn {
            who: rivals.dhow.name,
            prepare: Box::new(|| rivals.dhow.forget()),
            work: Box::new(|| rivals.dhow.command(&pull)),
            by_daemon: false,
        },
        Turn {
            who: rivals.docker.name,
            prepare: Box::new(|| forget_images(&rivals.docker)),
            work: Box::new(|| rivals.docker.command(&pull)),
            by_daemon: true,
        },
        Turn {
            who: rivals.podman.name,
            prepare: Box::new(|| rivals.podman.forget()),
            work: Box::new(|| rivals.podman.command(&plain)),
            by_daemon: false,
        },
        Turn {
            who: rivals.buildah.name,
            prepare: Box::new(|| rivals.buildah.forget()),
            work: Box::new(|| rivals.buildah.command(&plain)),
            by_daemon: false,
        },
    ];
    Ok(vec![measure(title, rounds, &turns)?])
}

/// A push of the same 200 MB to an empty registry.
pub(crate) fn push(arena: &Arena<'_>) -> anyhow::Result<Vec<Measured>> {
    let rivals = arena.rivals;
    let image = image(arena, "middle", MIDDLE)?;
    command::output(&mut rivals.dhow.command(&["push", "-q", &image]))?;
    rivals.dhow.forget()?;
    forget_images(&rivals.docker)?;
    for tool in [&rivals.dhow, &rivals.docker] {
        command::output(&mut tool.command(&["pull", "-q", &image]))?;
    }
    command::output(&mut rivals.podman.command(&["pull", "-q", "--tls-verify=false", &image]))?;
    let data = arena.folder.join("empty");
    let port = choose_port(None)?;
    let target = format!("127.0.0.1:{port}/bench/middle:1");
    for tool in [&rivals.dhow, &rivals.docker, &rivals.podman] {
        command::output(&mut tool.command(&["tag", &image, &target]))?;
    }
    let registry = std::cell::RefCell::new(None);
    let empty = || -> anyhow::Result<()> {
        drop(registry.borrow_mut().take());
        remove(&data)?;
        let settings = Settings { port: Some(port), login: None };
        *registry.borrow_mut() = Some(Registry::start(&arena.folder, &data, &settings)?);
        Ok(())
    };
    let turns = [
        Turn {
            who: rivals.dhow.name,
            prepare: Box::new(empty),
            work: Box::new(|| rivals.dhow.command(&["push", "-q", &target])),
            by_daemon: false,
        },
        Turn {
            who: rivals.docker.name,
            prepare: Box::new(empty),
            work: Box::new(|| rivals.docker.command(&["push", "-q", &target])),
            by_daemon: true,
        },
        Turn {
            who: rivals.podman.name,
            prepare: Box::new(empty),
            work: Box::new(|| rivals.podman.command(&["push", "-q", "--tls-verify=false", &target])),
            by_daemon: false,
        },
    ];
    Ok(vec![measure("push of 200 MB that was pulled, to an empty registry", arena.rounds, &turns)?])
}

/// One client, two registries: ours and Debian's.
pub(crate) fn registry(arena: &Arena<'_>) -> anyhow::Result<Vec<Measured>> {
    let rivals = arena.rivals;
    let image = image(arena, "middle", MIDDLE)?;
    let layout = arena.folder.join("layout");
    remove(&layout)?;
    let source = format!("oci:{}:1", layout.display());
    let folder = layout.display().to_string();
    command::output(&mut rivals.dhow.command(&["save", "--format", "oci-dir", "-o", &folder, &image]))?;
    let ports = [choose_port(None)?, choose_port(None)?];
    let targets = ports.map(|port| format!("docker://127.0.0.1:{port}/bench/middle:1"));
    let data = ["ours", "debians"].map(|name| arena.folder.join(name));
    let ours = std::cell::RefCell::new(None);
    let debians = std::cell::RefCell::new(None);
    let start_ours = || -> anyhow::Result<()> {
        drop(ours.borrow_mut().take());
        remove(&data[0])?;
        *ours.borrow_mut() = Some(Server::start(&rivals.dhow, &data[0], ports[0])?);
        Ok(())
    };
    let start_debians = || -> anyhow::Result<()> {
        drop(debians.borrow_mut().take());
        remove(&data[1])?;
        let settings = Settings { port: Some(ports[1]), login: None };
        *debians.borrow_mut() = Some(Registry::start(&arena.folder, &data[1], &settings)?);
        Ok(())
    };
    let copy = |from: &str, to: &str| {
        let mut command = std::process::Command::new("skopeo");
        command.args(["copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false", from, to]);
        command
    };
    let pushes = [
        Turn {
            who: "dhow registry serve",
            prepare: Box::new(start_ours),
            work: Box::new(|| copy(&source, &targets[0])),
            by_daemon: true,
        },
        Turn {
            who: "docker-registry",
            prepare: Box::new(start_debians),
            work: Box::new(|| copy(&source, &targets[1])),
            by_daemon: true,
        },
    ];
    let pushed = measure("a registry takes 200 MB from skopeo", arena.rounds, &pushes)?;
    let out = arena.folder.join("out");
    let sink = format!("dir:{}", out.display());
    let pulls = [
        Turn {
            who: "dhow registry serve",
            prepare: Box::new(|| remove(&out)),
            work: Box::new(|| copy(&targets[0], &sink)),
            by_daemon: true,
        },
        Turn {
            who: "docker-registry",
            prepare: Box::new(|| remove(&out)),
            work: Box::new(|| copy(&targets[1], &sink)),
            by_daemon: true,
        },
    ];
    Ok(vec![pushed, measure("a registry gives 200 MB to skopeo", arena.rounds, &pulls)?])
}

/// `dhow registry serve` for as long as this lives.
struct Server(Child);

impl Server {
    fn start(dhow: &Tool, data: &Path, port: u16) -> anyhow::Result<Self> {
        let address = format!("127.0.0.1:{port}");
        let mut command = dhow.command(&["registry", "serve", "--listen", &address, "--folder"]);
        let child = command.arg(data).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let server = Self(child);
        let end = Instant::now() + Duration::from_secs(READY_SECONDS_MAX);
        while TcpStream::connect(&address).is_err() {
            if Instant::now() > end {
                bail!("`dhow registry serve` does not answer on {address}");
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An image of `layers` layers in dhow's store.
fn image(arena: &Arena<'_>, name: &str, (layers, files, bytes): (u32, u32, usize)) -> anyhow::Result<String> {
    let context = arena.folder.join("context");
    let mut dockerfile = "FROM scratch\n".to_owned();
    for layer in 0..layers {
        let folder = context.join(layer.to_string());
        if !folder.exists() {
            content::folder(&folder, u64::from(layer), files, bytes)?;
        }
        dockerfile += &format!("COPY {layer} /{layer}\n");
    }
    fs::write(context.join("Dockerfile"), dockerfile)?;
    let image = format!("{}/bench/{name}:1", arena.rivals.registry.address());
    let folder = context.display().to_string();
    command::output(&mut arena.rivals.dhow.command(&["build", "-q", "-t", &image, &folder]))
        .context("cannot build what is to travel")?;
    Ok(image)
}

fn forget_images(docker: &Tool) -> anyhow::Result<()> {
    let images = command::output(&mut docker.command(&["images", "-q"]))?;
    let mut ids: Vec<&str> = images.split_whitespace().collect();
    ids.sort_unstable();
    ids.dedup();
    if !ids.is_empty() {
        command::output(&mut docker.command(&[&["rmi", "-f"][..], &ids].concat()))?;
    }
    Ok(())
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
