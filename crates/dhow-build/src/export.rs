//! From built stages to what the user asked for.
//!
//! Layers are reworked first (`--squash`, `SOURCE_DATE_EPOCH`), then each output takes the images as they are.
//! Packing, which compresses, happens only where the packed bytes are looked at: an image that merely goes into
//! the store is recorded as it lies.

mod epoch;
mod files;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use dhow_image::{Annotation, AnnotationLevel, Draft, Images, LayoutTarget, PackOptions, Package, PushEvent};
use dhow_layer::Compression;
use dhow_oci::{Descriptor, Digest, History, ImageConfig, Platform, Reference};
use dhow_registry::Client;
use dhow_store::Lease;

use crate::error::{BuildError, ExportError, while_doing};
use crate::event::{BuildEvent, Built};
use crate::output::{ArchiveDest, ImageOutput, LayoutDest, Output, OutputRequest, PackRequest};
use crate::provenance::{Provenance, file_name};
use crate::request::BuildRequest;

pub use epoch::EpochError;
pub(crate) use epoch::{Epoch, NAME as EPOCH};

/// Between an archive and its file.
const BUFFER_BYTES: usize = 1 << 20;
/// The build argument that makes a single platform come out as one of several.
const MULTI_PLATFORM: &str = "BUILDKIT_MULTI_PLATFORM";

/// A stage that was built for one platform.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub platform: Platform,
    pub config: ImageConfig,
    /// Layers and entries of the history that its base image brought.
    pub base_layers: usize,
    pub base_history: usize,
}

/// What exporting needs to know.
pub(crate) struct Export<'a, 'r> {
    pub images: &'a Images,
    pub registry: &'a (dyn Fn() -> &'r Client + Sync),
    pub request: &'a OutputRequest,
    /// Names of images that have none of their own.
    pub names: &'a [Reference],
    /// Whether there is a folder or an entry of an index for each platform.
    pub is_multi: bool,
    pub epoch: Option<i64>,
    /// What is told of how each of them was made.
    pub provenance: Option<&'a Provenance<'a>>,
    pub lease: &'a Lease,
    pub observer: &'a (dyn Fn(BuildEvent<'_>) + Sync),
    pub now: i64,
    /// Tells this build from all others.
    pub build: String,
}

/// What is told of an image that was packed.
struct Told {
    root: Descriptor,
    image: Digest,
}

impl Export<'_, '_> {
    pub(crate) fn run(&self, made: Vec<Made>) -> Result<Built, ExportError> {
        let made = if self.request.squash { self.squashed(made)? } else { made };
        let default = [Output::Image(ImageOutput::default())];
        let outputs = if self.request.outputs.is_empty() { &default[..] } else { &self.request.outputs };
        let mut built = Built::of(&made[0].config, &self.build);
        let mut told = None;
        for output in outputs {
            let one = match output {
                Output::Local { dest, split, delete } => {
                    self.local(&made, dest, split.unwrap_or(self.is_multi), *delete)?;
                    None
                }
                Output::Tar { dest, split } => {
                    self.tar(&made, dest, split.unwrap_or(self.is_multi))?;
                    None
                }
                Output::Layout { dest, docker, names, pack } => {
                    Some(self.layout(&made, dest, *docker, names, pack)?)
                }
                Output::Image(image) => self.image(&made, image, &mut built)?,
            };
            told = told.or(one);
        }
        if let Some(Told { root, image }) = told {
            built.image = image;
            built.descriptor = Some(root);
        }
        Ok(built)
    }

    fn names<'n>(&'n self, own: &'n [Reference]) -> &'n [Reference] {
        if own.is_empty() { self.names } else { own }
    }

    fn say(&self, text: &str) {
        (self.observer)(BuildEvent::Exporting(text));
    }

    fn squashed(&self, made: Vec<Made>) -> Result<Vec<Made>, ExportError> {
        self.say("squashing layers");
        made.into_iter().map(|made| self.squash(made)).collect()
    }

    /// One layer in place of all that are not the base's. The instructions stay in the history, without layers.
    fn squash(&self, mut made: Made) -> Result<Made, ExportError> {
        let stack = &made.config.rootfs.diff_ids;
        let count = stack.len() - made.base_layers;
        if count < 2 {
            return Ok(made);
        }
        let squashed = self.images.squash(stack, made.base_layers, self.lease)?;
        made.config.rootfs.diff_ids.truncate(made.base_layers);
        made.config.history[made.base_history..].iter_mut().for_each(|entry| entry.empty_layer = true);
        let Some(layer) = squashed else { return Ok(made) };
        made.config.rootfs.diff_ids.push(layer.diff_id);
        made.config.history.push(History {
            created: made.config.created.clone(),
            comment: format!("merge of {count} layers"),
            ..History::default()
        });
        Ok(made)
    }

    /// Images to pack or record, with the times that `pack` wants.
    fn drafts(&self, made: &[Made], pack: &PackRequest) -> Result<Vec<Draft>, ExportError> {
        let draft = |made: &Made| {
            let config = self.timed(made, pack)?;
            Ok(Draft { platform: made.platform.clone(), config })
        };
        made.iter().map(draft).collect()
    }

    fn pack(&self, made: &[Made], pack: &PackRequest, names: &[Reference]) -> Result<Package, ExportError> {
        let annotations: Vec<_> = self.request.annotations.iter().chain(&pack.annotations).cloned().collect();
        let options = PackOptions {
            layers: pack.layers.unwrap_or_default(),
            dialect: pack.dialect.unwrap_or_default(),
            annotations,
            index: self.is_multi,
        };
        let drafts = self.drafts(made, pack)?;
        self.say(match options.layers.compression {
            Compression::None => "exporting layers",
            Compression::Gzip | Compression::Zstd => "compressing layers",
        });
        let package =
            self.images.pack(&drafts, &options, self.lease).map_err(while_doing("cannot pack the image"))?;
        let Some(provenance) = self.provenance else { return Ok(package) };
        let images = package.images().iter().enumerate();
        let statements = images.map(|(at, image)| provenance.of_image(at, names, image)).collect();
        Ok(package.attested(statements, &options))
    }

    fn layout(
        &self,
        made: &[Made],
        dest: &LayoutDest,
        docker: bool,
        names: &[Reference],
        pack: &PackRequest,
    ) -> Result<Told, ExportError> {
        let names = self.names(names);
        let package = self.pack(made, pack, names)?;
        self.say(if docker { "exporting to docker image format" } else { "exporting to oci image format" });
        match dest {
            LayoutDest::Archive(dest) => write_archive(dest, &mut |output| {
                self.images.write_layout(&package, names, docker, LayoutTarget::Archive(output))?;
                Ok(())
            })?,
            LayoutDest::Folder(folder) => {
                self.images.write_layout(&package, names, docker, LayoutTarget::Folder(folder))?;
            }
        }
        Ok(told(&package))
    }

    fn tar(&self, made: &[Made], dest: &ArchiveDest, split: bool) -> Result<(), ExportError> {
        self.say("exporting to a tar");
        let trees = self.trees(made, split)?;
        write_archive(dest, &mut |output| files::write_tar(self.images, &trees, self.epoch, output))
    }

    fn local(&self, made: &[Made], dest: &Path, split: bool, delete: bool) -> Result<(), ExportError> {
        self.say(&format!("exporting to {}", dest.display()));
        files::write_folder(self.images, &self.trees(made, split)?, self.epoch, dest, delete)
    }

    fn trees(&self, made: &[Made], split: bool) -> Result<Vec<files::Tree>, ExportError> {
        let made_count = made.len();
        let tree = |(at, made): (usize, &Made)| {
            let folder = made.platform.to_string().replace('/', "_");
            let folder = if split { PathBuf::from(folder) } else { PathBuf::new() };
            let layers = made.config.rootfs.diff_ids.clone();
            let mut tree = files::Tree { folder, layers, beside: None };
            if let Some(provenance) = self.provenance.filter(|provenance| !provenance.request.inline_only) {
                let subjects = tree.subjects(self.images)?;
                // Platforms that share a folder have a file each.
                let is_shared = made_count > 1 && !split;
                let name = file_name(provenance.request, is_shared.then_some(&made.platform));
                if subjects.iter().any(|subject| subject.name == name) {
                    let message = format!(
                        "the result has a file {name} of its own: give the attestation another filename="
                    );
                    return Err(ExportError::Invalid(message));
                }
                tree.beside = Some((name, provenance.of_files(at, &subjects).bytes));
            }
            Ok(tree)
        };
        made.iter().enumerate().map(tree).collect()
    }

    /// An image in the store or in registries. Returns what is known of it once it was packed.
    fn image(
        &self,
        made: &[Made],
        image: &ImageOutput,
        built: &mut Built,
    ) -> Result<Option<Told>, ExportError> {
        let has_notes = !self.request.annotations.is_empty();
        let names_digest = image.name_canonical || image.dangling_prefix.is_some();
        let is_packed = image.push
            || self.is_multi
            || self.request.digest_wanted
            || has_notes
            || names_digest
            || self.provenance.is_some()
            || image.pack.is_particular();
        let names = self.names(&image.names);
        if !is_packed {
            let draft = self.drafts(made, &image.pack)?.remove(0);
            let created = self.images.create(&draft.config, names, self.lease, self.now);
            let created = created.map_err(while_doing("cannot record the image"))?;
            (built.image, built.existed) = (created.id, created.existed);
            return Ok(None);
        }
        let package = self.pack(made, &image.pack, names)?;
        if image.push {
            names.iter().try_for_each(|name| self.push(&package, image, name))?;
        }
        if image.store {
            self.say("exporting to image");
            built.existed = self.keep(&package, image, names)?;
        }
        Ok(Some(told(&package)))
    }

    fn keep(&self, package: &Package, image: &ImageOutput, names: &[Reference]) -> Result<bool, ExportError> {
        let mut repositories: Vec<Reference> = Vec::new();
        if image.push || image.name_canonical {
            repositories.extend(names.iter().cloned());
        }
        if names.is_empty() {
            repositories.extend(image.dangling_prefix.clone());
        }
        // Who pushed without tags has none here either.
        let names = if image.push_by_digest { &[] } else { names };
        let host = Platform::host();
        let kept = self.images.keep(package, names, &repositories, &host, self.lease, self.now);
        Ok(kept.map_err(while_doing("cannot record the image"))?.existed)
    }

    fn push(&self, package: &Package, image: &ImageOutput, name: &Reference) -> Result<(), ExportError> {
        let target = if image.push_by_digest {
            name.with_digest(package.root().digest)
        } else {
            name.clone().or_latest()
        };
        self.say(&format!("pushing {}", name.familiar()));
        let told = |event: &PushEvent| (self.observer)(BuildEvent::Pushing(name, event));
        let client = (self.registry)();
        self.images.push_package(client, package, &target, self.lease, &told)?;
        Ok(())
    }
}

fn told(package: &Package) -> Told {
    let images = package.images();
    // Several images have no ID together but that of their index.
    let image = if images.len() == 1 { images[0].id() } else { package.root().digest };
    Told { root: package.root().clone(), image }
}

/// Whether there is an index, or a folder for each platform, as of several platforms.
pub(crate) fn is_multi(request: &BuildRequest) -> bool {
    let arg = request.build_args.get(MULTI_PLATFORM).map(|value| value.to_ascii_lowercase());
    request.platforms.len() > 1 || arg.is_some_and(|value| matches!(value.as_str(), "1" | "t" | "true"))
}

/// Whether an image comes of it, and not only files.
pub(crate) fn has_image(request: &OutputRequest) -> bool {
    let is_image = |output: &Output| matches!(output, Output::Image(_) | Output::Layout { .. });
    request.outputs.is_empty() || request.outputs.iter().any(is_image)
}

/// Refuses outputs that make no sense, before anything runs. Returns what `SOURCE_DATE_EPOCH` asks for.
pub(crate) fn check(request: &BuildRequest) -> Result<Option<Epoch>, BuildError> {
    check_outputs(request)?;
    let own = request.output.outputs.iter().flat_map(|output| match output {
        Output::Layout { pack, .. } | Output::Image(ImageOutput { pack, .. }) => pack.annotations.as_slice(),
        Output::Local { .. } | Output::Tar { .. } => &[],
    });
    check_annotations(request, request.output.annotations.iter().chain(own))?;
    Ok(Epoch::of(request)?)
}

fn check_outputs(request: &BuildRequest) -> Result<(), ExportError> {
    let outputs = &request.output.outputs;
    let invalid = |message: &str| Err(ExportError::Invalid(message.to_owned()));
    if request.output.squash && request.cache.is_inline() {
        return invalid(
            "a squashed image has not the layers that an inline cache speaks of: use another type",
        );
    }
    let to_stdout = |output: &&Output| {
        matches!(
            output,
            Output::Tar { dest: ArchiveDest::Open(_), .. }
                | Output::Layout { dest: LayoutDest::Archive(ArchiveDest::Open(_)), .. }
        )
    };
    if outputs.iter().filter(to_stdout).count() > 1 {
        return invalid("several outputs cannot all go to standard output");
    }
    let is_docker = |output: &Output| matches!(output, Output::Layout { docker: true, .. });
    if is_multi(request) && outputs.iter().any(is_docker) {
        return invalid("output docker holds one platform: use type=oci for several");
    }
    let is_unnamed = |output: &Output| match output {
        Output::Image(image) => image.push && image.names.is_empty() && request.names.is_empty(),
        _ => false,
    };
    if outputs.iter().any(is_unnamed) {
        return invalid("tag is needed when pushing to registry: add -t NAME");
    }
    let is_tagged = |name: &&Reference| name.tag().is_some_and(|tag| tag != dhow_oci::DEFAULT_TAG);
    let by_digest = |output: &Output| matches!(output, Output::Image(image) if image.push_by_digest && image.names.is_empty());
    if let Some(name) = request.names.iter().find(is_tagged).filter(|_| outputs.iter().any(by_digest)) {
        return invalid(&format!("cannot push {} by digest: it has a tag", name.familiar()));
    }
    let is_joined = |output: &Output| {
        matches!(output, Output::Local { split: Some(false), .. } | Output::Tar { split: Some(false), .. })
    };
    if request.platforms.len() > 1 && outputs.iter().any(is_joined) {
        return invalid(
            "the files of several platforms want folders of their own: leave out platform-split=false",
        );
    }
    Ok(())
}

fn check_annotations<'n>(
    request: &BuildRequest,
    notes: impl Iterator<Item = &'n Annotation>,
) -> Result<(), ExportError> {
    let host = [Platform::host()];
    let platforms = if request.platforms.is_empty() { &host[..] } else { &request.platforms };
    for Annotation { level, platform, key, .. } in notes {
        let has_index = is_multi(request) || request.output.provenance.is_some();
        if !has_index && matches!(level, AnnotationLevel::Index | AnnotationLevel::IndexDescriptor) {
            let message = format!("annotation {key}: an image of a single platform has no index to annotate");
            return Err(ExportError::Invalid(message));
        }
        if let Some(platform) = platform.as_ref().filter(|platform| !platforms.contains(platform)) {
            return Err(ExportError::Invalid(format!("annotation {key}: {platform} is not built")));
        }
    }
    Ok(())
}

/// Writes to where an archive goes. A file appears when it is complete.
fn write_archive(
    dest: &ArchiveDest,
    write: &mut dyn FnMut(&mut dyn Write) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let path = match dest {
        ArchiveDest::Open(file) => {
            let mut output = BufWriter::with_capacity(BUFFER_BYTES, &**file);
            write(&mut output)?;
            return output.flush().map_err(|source| ExportError::Stream { source });
        }
        ArchiveDest::File(path) => path,
    };
    let failed = |source: io::Error| ExportError::Write { path: path.clone(), source };
    if path.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    // A pipe or a device cannot be renamed over.
    let is_special = path.exists() && !path.is_file();
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = if is_special { path.clone() } else { PathBuf::from(name) };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    let mut fill = || {
        let mut output = BufWriter::with_capacity(BUFFER_BYTES, File::create(&temporary).map_err(failed)?);
        write(&mut output)?;
        output.flush().map_err(failed)?;
        if is_special { Ok(()) } else { fs::rename(&temporary, path).map_err(failed) }
    };
    fill().inspect_err(|_| {
        if !is_special {
            // The error is told already, and the file may not even exist.
            let _ = fs::remove_file(&temporary);
        }
    })
}

impl Built {
    fn of(config: &ImageConfig, build: &str) -> Built {
        let bytes = serde_json::to_vec(config).expect("a configuration has only text for keys");
        Built { image: Digest::sha256_of(&bytes), existed: false, build: build.to_owned(), descriptor: None }
    }
}
