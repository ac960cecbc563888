//! `cargo xtask demo`: walks two tutorials with a freshly built dhow, in a store of its own under `target/demo`.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::command::{self, step};
use crate::http::Request;
use crate::registry::{Registry, Settings, TestRegistry};
use crate::setup::{self, Group};
use crate::{paths, test};

/// Where the images of the tutorials are at home.
const PUBLIC_REGISTRY: &str = "https://registry-1.docker.io/v2/";
const PAGE_SECONDS_MAX: u64 = 20;

/// The containers the walk makes.
const CONTAINERS: [&str; 2] = ["my-python-app", "hello"];

/// Installs, builds and shows.
pub(crate) fn run() -> anyhow::Result<()> {
    ensure!(
        command::is_root(),
        "the demonstration starts containers and sets up their network: run it as root"
    );
    step("setup", || setup::run(&[Group::Demo]))?;
    step("building dhow", || command::run(test::cargo().args(["build", "--release", "--package", "dhow"])))?;
    let folder = paths::target().join("demo");
    let supply = step("base images", || Supply::choose(&folder))?;
    let walk = Walk::begin(&folder, &supply)?;
    walk.python_app(supply.address())?;
    walk.hello_docker()?;
    walk.remove_containers();
    walk.farewell(&supply);
    Ok(())
}

/// Where base images come from, and a registry to push to.
enum Supply {
    /// The public registry can be reached; pushes go to an empty registry of our own.
    Public(Registry),
    /// It cannot: stand-ins are served, and take pushes.
    StandIns(TestRegistry),
}

impl Supply {
    fn choose(folder: &Path) -> anyhow::Result<Self> {
        if is_public_registry_reachable() {
            println!("    docker.io can be reached: base images come from there");
            let folder = folder.join("registry");
            fs::create_dir_all(&folder)?;
            return Ok(Self::Public(Registry::start(&folder, &folder.join("data"), &Settings::default())?));
        }
        println!("    docker.io cannot be reached: base images are stand-ins made from Debian packages");
        setup::run(&[Group::Images])?;
        Ok(Self::StandIns(TestRegistry::start(&Settings::default())?))
    }

    fn address(&self) -> &str {
        match self {
            Self::Public(registry) => &registry.address,
            Self::StandIns(registry) => registry.address(),
        }
    }

    /// What dhow has to be told.
    fn config(&self) -> String {
        match self {
            Self::Public(_) => String::new(),
            Self::StandIns(registry) => registry.dhow_config(),
        }
    }
}

fn is_public_registry_reachable() -> bool {
    // 401 is a success for curl: somebody answers.
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--max-time", "2", "--output", "/dev/null", PUBLIC_REGISTRY]);
    command::output(&mut curl).is_ok()
}

/// The walk: a dhow with a store of its own.
struct Walk {
    dhow: PathBuf,
    folder: PathBuf,
}

impl Drop for Walk {
    fn drop(&mut self) {
        self.remove_containers();
    }
}

impl Walk {
    fn begin(folder: &Path, supply: &Supply) -> anyhow::Result<Self> {
        let walk = Self { dhow: paths::target().join("release/dhow"), folder: folder.to_owned() };
        walk.remove_containers(); // of a walk that was interrupted
        for name in ["root", "run", "empty-root", "empty-run"] {
            let path = folder.join(name);
            if path.exists() {
                fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        fs::create_dir_all(folder)?;
        fs::write(walk.config_file(), supply.config())?;
        Ok(walk)
    }

    /// Tutorial "Working with Docker Images".
    fn python_app(&self, registry: &str) -> anyhow::Result<()> {
        title("A Flask application");
        let app = self.copy_fixture("my-python-app")?;
        let build = ["build", "-t", "my-python-app", "."];
        self.show(&app, &build)?;
        note("Again: nothing has changed, so nothing is done.");
        self.show(&app, &build)?;
        note("Now app.py says \"Hello, dhow!\".");
        replace(&app.join("app.py"), "Hello, Docker!", "Hello, dhow!")?;
        self.show(&app, &build)?;
        self.show(&app, &["images"])?;
        self.show(&app, &["history", "my-python-app"])?;
        let port = free_port(5000)?;
        let publish = format!("{port}:5000");
        self.show(&app, &["run", "-d", "-p", &publish, "--name", CONTAINERS[0], "my-python-app"])?;
        let page = fetch(port)?;
        ensure!(page == "Hello, dhow!", "the page says `{page}`");
        for arguments in
            [&["ps"][..], &["logs", CONTAINERS[0]], &["stop", CONTAINERS[0]], &["rm", CONTAINERS[0]]]
        {
            self.show(&app, arguments)?;
        }
        self.there_and_back(&app, registry)
    }

    fn there_and_back(&self, app: &Path, registry: &str) -> anyhow::Result<()> {
        title("To a registry and back");
        let name = format!("{registry}/demo/my-python-app");
        self.show(app, &["tag", "my-python-app", &name])?;
        self.show(app, &["push", &name])?;
        note("Another store, empty.");
        for arguments in [&["images"][..], &["pull", &name], &["images"]] {
            self.show_with(self.command("empty-"), app, arguments)?;
        }
        Ok(())
    }

    /// Tutorial "Images", with the sample application hello-docker.
    fn hello_docker(&self) -> anyhow::Result<()> {
        title("Python 2, a published port, and a name server that says no");
        let app = self.copy_fixture("hello-docker")?;
        self.show(&app, &["pull", "python:2.7-slim"])?;
        self.show(&app, &["build", "-t", "hello-docker", "."])?;
        self.show(&app, &["container", "run", "--name", CONTAINERS[1], "-d", "-P", "hello-docker"])?;
        self.show(&app, &["port", CONTAINERS[1]])?;
        let output = command::output(self.command("").args(["port", CONTAINERS[1], "80/tcp"]))?;
        let page = fetch(port_in(&output).context("`dhow port` names no port")?)?;
        ensure!(page.starts_with("<h3>Hello World!</h3>"), "the page says `{page}`");
        for arguments in [&["ps"][..], &["rm", "-f", CONTAINERS[1]], &["images"]] {
            self.show(&app, arguments)?;
        }
        Ok(())
    }

    /// Shows a command line as typed in `folder`, then what it does.
    fn show(&self, folder: &Path, arguments: &[&str]) -> anyhow::Result<()> {
        self.show_with(self.command(""), folder, arguments)
    }

    fn show_with(&self, mut command: Command, folder: &Path, arguments: &[&str]) -> anyhow::Result<()> {
        println!("$ dhow {}", arguments.join(" "));
        command::run(command.args(arguments).current_dir(folder))?;
        println!();
        Ok(())
    }

    /// dhow, told which store to use: ours, or the one with a prefix to its name.
    fn command(&self, prefix: &str) -> Command {
        let mut command = Command::new(&self.dhow);
        command.env("DHOW_ROOT", self.folder.join(format!("{prefix}root")));
        command.env("DHOW_RUN", self.folder.join(format!("{prefix}run")));
        command.env("DHOW_CONFIG", self.config_file());
        command
    }

    fn config_file(&self) -> PathBuf {
        self.folder.join("dhow.toml")
    }

    fn copy_fixture(&self, name: &str) -> anyhow::Result<PathBuf> {
        let to = self.folder.join(name);
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        let from = paths::workspace().join("fixtures").join(name);
        command::output(Command::new("cp").arg("-r").args([&from, &to]))?;
        println!("$ cd {name}");
        Ok(to)
    }

    /// Removes our containers, if there are any and whatever their state.
    fn remove_containers(&self) {
        if self.folder.join("root").exists() {
            // Most often there is nothing to remove, which is as good.
            let mut command = self.command("");
            let _ = command
                .args(["rm", "-f"])
                .args(CONTAINERS)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
    }

    fn farewell(&self, supply: &Supply) {
        title("Your turn");
        println!("dhow is {}", self.dhow.display());
        println!("A link to it called `docker` makes it answer to that name.\n");
        println!(
            "The store of this walk:\n  export DHOW_ROOT={0}/root DHOW_RUN={0}/run\n",
            self.folder.display()
        );
        if let Supply::StandIns(_) = supply {
            println!(
                "The stand-ins, in another terminal, which also tells how to use them:\n  cargo xtask registry"
            );
        }
    }
}

fn title(text: &str) {
    println!("\n=== {text} ===\n");
}

fn note(text: &str) {
    println!("# {text}");
}

fn replace(file: &Path, old: &str, new: &str) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(text.contains(old), "{} does not say `{old}`", file.display());
    Ok(fs::write(file, text.replace(old, new))?)
}

/// `wanted` if nobody has it, else any.
fn free_port(wanted: u16) -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, wanted))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)));
    Ok(listener.context("there is no free port")?.local_addr()?.port())
}

/// The port in `0.0.0.0:49153` on the first line.
fn port_in(output: &str) -> Option<u16> {
    output.lines().next()?.rsplit(':').next()?.trim().parse().ok()
}

/// Shows and returns the page at a port of this machine; a server that is only starting is given time.
fn fetch(port: u16) -> anyhow::Result<String> {
    println!("$ curl http://localhost:{port}");
    let end = Instant::now() + Duration::from_secs(PAGE_SECONDS_MAX);
    loop {
        match Request::new("GET", "/").send(&format!("127.0.0.1:{port}")) {
            Ok(response) if response.status == 200 => {
                println!("{}\n", response.body);
                return Ok(response.body);
            }
            Ok(response) => bail!("the page is answered with {}: {}", response.status, response.body),
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_read_from_the_first_line() {
        assert_eq!(port_in("0.0.0.0:49153\n[::]:49153\n"), Some(49153));
        assert_eq!(port_in("[::]:80\n"), Some(80));
        assert_eq!(port_in(""), None);
        assert_eq!(port_in("Error\n"), None);
    }
}
