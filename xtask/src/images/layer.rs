//! Makes layers, each once: a finished one stays in its folder, named by everything that went into it.
//!
//! A script runs in a chroot on an overlay of the layers below, so what it changes is the layer. The mounts live in a mount
//! namespace of their own and are gone with the script, however it ends.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use super::debian::Source;
use super::pack::{self, Packed};
use super::recipes::{self, EPOCH_SECONDS, LayerRecipe, Make};
use super::root;
use crate::command;

/// Change this when the code that follows the recipes changes what comes out.
const METHOD_VERSION: u32 = 1;

/// The parts of a layer's folder.
const TREE: &str = "tree";
const ARCHIVE: &str = "layer.tar.gz";
const FACTS: &str = "layer.json";
const LOG: &str = "log";

/// Runs in its own mount namespace: lower folders, upper folder, work folder, mount point, folder for /mnt, script.
const RUN_ON_OVERLAY: &str = r#"
set -eu
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$4"
mount -t proc proc "$4/proc"
mount --rbind /dev "$4/dev"
mount -t tmpfs tmpfs "$4/tmp"
mount --bind /etc/resolv.conf "$4/etc/resolv.conf"
mount --bind "$5" "$4/mnt"
exec chroot "$4" /bin/sh -c "$6"
"#;

/// Where layers are made and kept.
pub(crate) struct Workshop {
    /// Holds a folder per layer.
    folder: PathBuf,
    /// What machines of this place trust.
    ca_bundle: Vec<u8>,
    done: BTreeMap<&'static str, Layer>,
}

/// A finished layer.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) packed: Packed,
    pub(crate) archive: PathBuf,
    /// What is in it, unpacked.
    pub(crate) tree: PathBuf,
    /// Name of its folder, and its key.
    folder_name: String,
}

impl Workshop {
    /// Opens the workshop in `folder`, which need not exist.
    pub(crate) fn open(folder: PathBuf) -> anyhow::Result<Self> {
        let bundle =
            env::var_os("SSL_CERT_FILE").map_or_else(|| PathBuf::from(root::CA_BUNDLE), PathBuf::from);
        let ca_bundle = fs::read(&bundle).with_context(|| format!("cannot read {}", bundle.display()))?;
        Ok(Self { folder, ca_bundle, done: BTreeMap::new() })
    }

    /// A name for all that decides what `text` comes to on this machine.
    pub(crate) fn key(&self, text: &str) -> String {
        let inputs =
            format!("{METHOD_VERSION} {} {} {text}", env::consts::ARCH, pack::digest(&self.ca_bundle));
        pack::digest(inputs.as_bytes())["sha256:".len()..][..16].to_owned()
    }

    /// All layers, made if they are not there. Layers of former recipes are removed.
    pub(crate) fn layers(mut self) -> anyhow::Result<BTreeMap<&'static str, Layer>> {
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("cannot create {}", self.folder.display()))?;
        for recipe in recipes::LAYERS {
            let layer =
                self.layer(recipe).with_context(|| format!("cannot make the layer {}", recipe.name))?;
            self.done.insert(recipe.name, layer);
        }
        self.sweep()?;
        Ok(self.done)
    }

    fn layer(&self, recipe: &'static LayerRecipe) -> anyhow::Result<Layer> {
        let folder_name = self.folder_name(recipe);
        let folder = self.folder.join(&folder_name);
        if !folder.exists() {
            println!("    making {}", recipe.name);
            let unfinished = self.folder.join(format!("{folder_name}.new"));
            remove(&unfinished)?;
            self.make(recipe, &unfinished)?;
            fs::rename(&unfinished, &folder)?;
        }
        let packed = read_facts(&folder.join(FACTS))?;
        Ok(Layer { packed, archive: folder.join(ARCHIVE), tree: folder.join(TREE), folder_name })
    }

    fn folder_name(&self, recipe: &LayerRecipe) -> String {
        let payload = match recipe.make {
            Make::Payload { on, .. } => Some(on),
            _ => None,
        };
        let below: Vec<_> =
            recipe.parent.into_iter().chain(payload).map(|name| &self.done[name].folder_name).collect();
        format!("{}-{}", recipe.name, self.key(&format!("{:?} {below:?}", recipe.make)))
    }

    fn make(&self, recipe: &LayerRecipe, folder: &Path) -> anyhow::Result<()> {
        let tree = folder.join(TREE);
        fs::create_dir_all(&tree)?;
        fs::set_permissions(&tree, fs::Permissions::from_mode(0o755))?;
        match &recipe.make {
            Make::Debian => self.debian(folder, &tree)?,
            Make::Busybox => root::busybox(&tree, &self.ca_bundle)?,
            Make::Script(script) => {
                let parent = recipe.parent.context("a script needs a layer to run on")?;
                self.run(parent, folder, &tree, None, script)?;
            }
            Make::Files(files) => root::lay(&tree, files)?,
            Make::Payload { on, script, into } => {
                let out = tree.join(into);
                fs::create_dir_all(&out)?;
                let scratch = folder.join("scratch");
                fs::create_dir(&scratch)?;
                self.run(on, folder, &scratch, Some(&out), script)?;
                remove(&scratch)?;
            }
            Make::Program { source, name } => compile(folder, source, &tree.join(name))?,
        }
        root::tidy(&tree)?;
        let packed = pack::pack(&tree, &folder.join(ARCHIVE), EPOCH_SECONDS)?;
        write_facts(&folder.join(FACTS), &packed)
    }

    fn debian(&self, folder: &Path, tree: &Path) -> anyhow::Result<()> {
        let source = Source::choose()?;
        // In a mount namespace of its own: what it mounts is gone with it, even if it is killed.
        let mut command = Command::new("unshare");
        command.args(["--mount", "--fork", "--kill-child", "mmdebstrap"]);
        command.args(["--mode=root", "--format=directory", "--variant=minbase", "--include=ca-certificates"]);
        // The suite is finished and its signature out of date, but still a signature.
        command.arg("--aptopt=Acquire::Check-Valid-Until \"false\"");
        for path in ["doc", "info", "locale", "man"] {
            command.arg(format!("--dpkgopt=path-exclude=/usr/share/{path}/*"));
        }
        command.arg(source.suite).arg(tree).args(source.lines());
        command.env("SOURCE_DATE_EPOCH", EPOCH_SECONDS.to_string());
        logged(&mut command, &folder.join(LOG))?;
        root::trust(tree, &self.ca_bundle)
    }

    /// Runs `script` on the layer called `on` and leaves what it changes in `upper`. It may also write to /mnt, which is `out`.
    fn run(
        &self,
        on: &str,
        folder: &Path,
        upper: &Path,
        out: Option<&Path>,
        script: &str,
    ) -> anyhow::Result<()> {
        let chain = recipes::chain(on);
        // Relative paths, because overlayfs cannot be told of a colon in one.
        let lower: Vec<_> =
            chain.iter().rev().map(|layer| format!("{}/{TREE}", self.done[layer.name].folder_name)).collect();
        let [work, mount_point, nothing] = ["work", "mnt", "nothing"].map(|name| folder.join(name));
        for path in [&work, &mount_point, &nothing] {
            fs::create_dir(path)?;
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "--fork", "--kill-child", "/bin/sh", "-c", RUN_ON_OVERLAY, "sh"]);
        command
            .arg(lower.join(":"))
            .args([upper, &work, &mount_point])
            .arg(out.unwrap_or(&nothing))
            .arg(script);
        command.current_dir(&self.folder).env_clear().envs(proxies()).envs([
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("LANG", "C.UTF-8"),
            ("DEBIAN_FRONTEND", "noninteractive"),
        ]);
        command.env("SOURCE_DATE_EPOCH", EPOCH_SECONDS.to_string());
        logged(&mut command, &folder.join(LOG))?;
        [work, mount_point, nothing].iter().try_for_each(|path| remove(path))
    }

    /// Removes what no recipe names any more, and what was never finished.
    fn sweep(&self) -> anyhow::Result<()> {
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let is_used = self.done.values().any(|layer| entry.file_name() == *layer.folder_name);
            if !is_used && entry.file_type()?.is_dir() {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// The variables that tell programs the way out of this network, if there are any.
fn proxies() -> impl Iterator<Item = (String, String)> {
    env::vars().filter(|(name, _)| {
        ["http_proxy", "https_proxy", "no_proxy"].iter().any(|known| name.eq_ignore_ascii_case(known))
    })
}

/// Runs `command` with its output in `log`, the end of which is part of the error if there is one.
fn logged(command: &mut Command, log: &Path) -> anyhow::Result<()> {
    let file = File::create(log)?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
        let lines: Vec<_> = text.lines().collect();
        bail!("{name} failed ({status}):\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
    }
    Ok(())
}

/// Compiles C without a C library into the smallest static program.
fn compile(folder: &Path, source: &str, program: &Path) -> anyhow::Result<()> {
    let file = folder.join("program.c");
    fs::write(&file, source)?;
    let options = "-static -nostdlib -Os -fno-asynchronous-unwind-tables -fno-stack-protector -s \
                   -Wl,--build-id=none -Wl,-z,noseparate-code";
    let mut gcc = Command::new("gcc");
    command::output(gcc.args(options.split_whitespace()).arg("-o").arg(program).arg(&file)).map(drop)
}

fn write_facts(path: &Path, packed: &Packed) -> anyhow::Result<()> {
    let Packed { diff_id, digest, size, tar_size } = packed;
    let facts = json!({ "diff_id": diff_id, "digest": digest, "size": size, "tar_size": tar_size });
    fs::write(path, facts.to_string()).with_context(|| format!("cannot write {}", path.display()))
}

fn read_facts(path: &Path) -> anyhow::Result<Packed> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let facts: Value = serde_json::from_slice(&text)?;
    let text = |name: &str| facts[name].as_str().map(str::to_owned);
    let read = || {
        Some(Packed {
            diff_id: text("diff_id")?,
            digest: text("digest")?,
            size: facts["size"].as_u64()?,
            tar_size: facts["tar_size"].as_u64()?,
        })
    };
    read().with_context(|| format!("{} is damaged; remove its folder", path.display()))
}

/// Removes a folder and everything in it, if it is there.
fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
