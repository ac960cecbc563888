//! `cargo xtask images`: the base images of the tutorials, made from Debian packages.
//!
//! Tests and demonstrations need `python:3.9-slim` and its like, and may not need a public registry. So the images are made
//! here and pushed into a registry on this machine, whose data stays in `target/registry/data`. Layers stay in
//! `target/images`. Neither is made again until a recipe changes, or whom this machine trusts.

mod debian;
mod document;
mod layer;
mod pack;
mod push;
mod recipes;
mod root;

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::registry::{self, Registry};
use crate::{command, paths};
use document::{Document, HistoryLayer};
use layer::{Layer, Workshop};
use push::Pusher;
use recipes::{DEBIAN_SUITE, DECOY_ARCHITECTURE, IMAGES, ImageRecipe, LAYERS};

/// Finished layers by name.
type Layers = BTreeMap<&'static str, Layer>;

/// Makes the images and says so.
pub(crate) fn run() -> anyhow::Result<()> {
    let data = ensure()?;
    println!("images: ready in {}", data.display());
    Ok(())
}

/// Makes sure that the images exist and returns the registry's folder that holds them. That is for reading: serve a copy.
pub(crate) fn ensure() -> anyhow::Result<PathBuf> {
    let folder = paths::target().join("registry");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let (data, key_file) = (folder.join("data"), folder.join("key"));
    // One chore makes images at a time; the others wait and then find them.
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    let workshop = Workshop::open(paths::target().join("images"))?;
    let key = workshop.key(&format!("{LAYERS:?} {IMAGES:?}"));
    if fs::read_to_string(&key_file).is_ok_and(|done| done == key) {
        return Ok(data);
    }
    if !command::is_root() {
        bail!("making images needs root (chroot, overlay mounts): run this as root");
    }
    // Folders made on the way are part of images, whatever the habits of who makes them.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let layers = workshop.layers()?;
    let unfinished = folder.join("data.new");
    for old in [&unfinished, &data] {
        if old.exists() {
            fs::remove_dir_all(old)?;
        }
    }
    let registry = Registry::start(&folder, &unfinished, &registry::Settings::default())?;
    push_all(&registry.address, &layers)?;
    drop(registry);
    fs::rename(&unfinished, &data)?;
    fs::write(&key_file, key)?;
    Ok(data)
}

fn push_all(host: &str, layers: &Layers) -> anyhow::Result<()> {
    let mut pusher = Pusher::new(host);
    let caveat = caveat(&layers["debian"])?;
    for image in IMAGES {
        let bytes = push_image(&mut pusher, image, layers, &caveat)
            .with_context(|| format!("cannot push {:?}", image.names))?;
        println!("    {}: {}, unpacked {}", image.names.join(" "), size(bytes.packed), size(bytes.unpacked));
    }
    Ok(())
}

/// What the labels of stand-ins have to add if their Debian is not the one their recipes are for.
fn caveat(debian: &Layer) -> anyhow::Result<String> {
    let file = debian.tree.join("etc/os-release");
    let release = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let codename =
        release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or("unknown");
    if codename == DEBIAN_SUITE {
        return Ok(String::new());
    }
    let caveat =
        format!(" (made from Debian {codename} with its Python 3, because {DEBIAN_SUITE} could not be had)");
    println!("    stand-ins are labelled:{caveat}");
    Ok(caveat)
}

fn size(bytes: u64) -> String {
    if bytes < 1_000_000 {
        format!("{:.1} kB", bytes as f64 / 1e3)
    } else {
        format!("{:.1} MB", bytes as f64 / 1e6)
    }
}

/// The size of an image.
struct Bytes {
    packed: u64,
    unpacked: u64,
}

/// Pushes `image` under all its names.
fn push_image(
    pusher: &mut Pusher<'_>,
    image: &ImageRecipe,
    layers: &Layers,
    caveat: &str,
) -> anyhow::Result<Bytes> {
    let (mut packed, mut unpacked) = (0, 0);
    for layer in recipes::chain(image.layer) {
        packed += layers[layer.name].packed.size;
        unpacked += layers[layer.name].packed.tar_size;
    }
    for name in image.names {
        let (repository, tag) = name.split_once(':').context("names have a tag")?;
        let own = push_platform(pusher, repository, image, (image.layer, architecture()?), layers, caveat)?;
        match image.decoy {
            None => pusher.manifest(repository, tag, &own)?,
            Some(decoy) => {
                let decoy =
                    push_platform(pusher, repository, image, (decoy, DECOY_ARCHITECTURE), layers, caveat)?;
                for manifest in [&own, &decoy] {
                    pusher.manifest(repository, &manifest.digest(), manifest)?;
                }
                // The decoy comes first: whoever takes the first one without looking is found out.
                let manifests = [(DECOY_ARCHITECTURE, &decoy), (architecture()?, &own)];
                pusher.manifest(repository, tag, &document::index(image.dialect, &manifests))?;
            }
        }
    }
    Ok(Bytes { packed, unpacked })
}

/// Pushes the blobs of `image` with the layers up to `top` as an image for `architecture` and returns its manifest.
fn push_platform(
    pusher: &mut Pusher<'_>,
    repository: &str,
    image: &ImageRecipe,
    (top, architecture): (&str, &str),
    layers: &Layers,
    caveat: &str,
) -> anyhow::Result<Document> {
    let mut stack = Vec::new();
    for recipe in recipes::chain(top) {
        let layer = &layers[recipe.name];
        pusher.file(repository, &layer.packed.digest, &layer.archive)?;
        stack.push(HistoryLayer { packed: layer.packed.clone(), created_by: recipe.created_by });
    }
    let config = document::config(image, architecture, &stack, caveat);
    pusher.document(repository, &config)?;
    Ok(document::manifest(image.dialect, &config, &stack))
}

/// This machine's architecture in image-spec's words.
fn architecture() -> anyhow::Result<&'static str> {
    match env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no images can be made on {other}, only on x86_64 and aarch64"),
    }
}

/// Copies the registry's data to the new folder `to`, to be served and changed there.
pub(crate) fn copy_data(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut cp = std::process::Command::new("cp");
    command::output(cp.args(["--archive", "--reflink=auto"]).args([from, to])).map(drop)
}
