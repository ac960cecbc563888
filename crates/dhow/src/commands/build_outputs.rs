//! The flags of `build` that say what becomes of the result.

use std::fs::File;
use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ArgAction;
use dhow_engine::{
    ArchiveDest, Built, ImageOutput, LayoutDest, Output, OutputError, OutputRequest, ProvenanceRequest,
    parse_annotation, parse_attestation, parse_output, parse_short_attestation,
};
use dhow_oci::Reference;
use serde_json::{Map, Value, json};

use crate::error::CliError;

#[derive(clap::Args, Debug, Default)]
pub(crate) struct OutputArgs {
    /// What to make: a folder, or type=local|tar|oci|docker|image|registry[,NAME=VALUE] (can be repeated)
    #[arg(short, long = "output", value_name = "OUTPUT")]
    outputs: Vec<String>,
    /// Push the image to where its names say
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true)]
    push: bool,
    /// Keep the image in the store, as without any output
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true)]
    load: bool,
    /// Annotation for the image, [LEVEL[PLATFORM]:]NAME=VALUE (can be repeated)
    #[arg(long = "annotation", value_name = "NAME=VALUE")]
    annotations: Vec<String>,
    /// Write digests and names of the result to this file
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Make one layer of all that the build adds to its base
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true)]
    squash: bool,
    /// Attestation for the image: type=provenance[,mode=min|max][,NAME=VALUE] (can be repeated)
    #[arg(long = "attest", value_name = "ATTESTATION")]
    attestations: Vec<String>,
    /// Short for --attest type=provenance: true, false, or mode=min|max[,NAME=VALUE]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    provenance: Option<String>,
    /// Short for --attest=type=sbom; only `false` is supported yet
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    sbom: Option<String>,
}

impl OutputArgs {
    pub(crate) fn request(&self) -> Result<OutputRequest, CliError> {
        let mut outputs = Vec::new();
        for text in &self.outputs {
            outputs.push(parse_output(text, &mut stdout).map_err(told)?);
        }
        self.add_short_forms(&mut outputs)?;
        let mut annotations = Vec::new();
        for text in &self.annotations {
            annotations.extend(parse_annotation(text).map_err(told)?);
        }
        let digest_wanted = self.metadata_file.is_some();
        let provenance = self.provenance()?;
        Ok(OutputRequest { outputs, annotations, squash: self.squash, provenance, digest_wanted })
    }

    /// `--push` and `--load` are outputs of their own where there is none that they fit to.
    fn add_short_forms(&self, outputs: &mut Vec<Output>) -> Result<(), CliError> {
        if self.push {
            let mut pushed = false;
            for output in outputs.iter_mut() {
                let Output::Image(image) = output else {
                    return Err(CliError::new(
                        "--push and an output that is no image cannot be used together",
                    )
                    .hint("add -o type=registry in place of --push"));
                };
                image.push = true;
                pushed = true;
            }
            if !pushed {
                outputs.push(Output::Image(ImageOutput { push: true, ..ImageOutput::default() }));
            }
        }
        let is_stored = |output: &Output| matches!(output, Output::Image(image) if image.store);
        if self.load && !outputs.iter().any(is_stored) {
            outputs.push(Output::Image(ImageOutput::default()));
        }
        Ok(())
    }

    /// What is to be told of how the image was made. What is said last counts, the short form most.
    fn provenance(&self) -> Result<Option<ProvenanceRequest>, CliError> {
        let mut wanted = None;
        for text in &self.attestations {
            let parsed = parse_attestation(text).map_err(told)?;
            // Turning off another type says nothing about this one.
            if parsed.is_some() || text.contains("type=provenance") {
                wanted = parsed;
            }
        }
        if let Some(text) = &self.sbom {
            parse_short_attestation("sbom", text).map_err(told)?;
        }
        match &self.provenance {
            Some(text) => parse_short_attestation("provenance", text).map_err(told),
            None => Ok(wanted),
        }
    }

    /// Whether standard output is taken by the result itself.
    pub(crate) fn takes_stdout(request: &OutputRequest) -> bool {
        request.outputs.iter().any(|output| {
            matches!(
                output,
                Output::Tar { dest: ArchiveDest::Open(_), .. }
                    | Output::Layout { dest: LayoutDest::Archive(ArchiveDest::Open(_)), .. }
            )
        })
    }

    /// Writes what `--metadata-file` asks for.
    pub(crate) fn write_metadata(
        &self,
        request: &OutputRequest,
        names: &[Reference],
        built: &Built,
    ) -> Result<(), CliError> {
        let Some(path) = &self.metadata_file else { return Ok(()) };
        let mut text = serde_json::to_string_pretty(&metadata(request, names, built))?;
        text.push('\n');
        write_whole(path, text.as_bytes())
    }
}

/// What is known of the result, in buildx's words.
fn metadata(request: &OutputRequest, names: &[Reference], built: &Built) -> Value {
    let mut metadata = Map::new();
    metadata.insert("buildx.build.ref".to_owned(), format!("default/default/{}", built.build).into());
    if let Some(descriptor) = &built.descriptor {
        metadata.insert("containerimage.descriptor".to_owned(), json!(descriptor));
        metadata.insert("containerimage.digest".to_owned(), json!(descriptor.digest));
        if built.image != descriptor.digest {
            metadata.insert("containerimage.config.digest".to_owned(), json!(built.image));
        }
    }
    let own = request.outputs.iter().flat_map(|output| match output {
        Output::Image(ImageOutput { names, .. }) | Output::Layout { names, .. } => names.as_slice(),
        Output::Local { .. } | Output::Tar { .. } => &[],
    });
    let own: Vec<String> = own.map(Reference::to_string).collect();
    let names = if own.is_empty() { names.iter().map(Reference::to_string).collect() } else { own };
    if !names.is_empty() && built.descriptor.is_some() {
        metadata.insert("image.name".to_owned(), names.join(",").into());
    }
    Value::Object(metadata)
}

/// The file appears when it is complete: another program may be waiting for it.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let failed = |error| CliError::new(format!("cannot write {}: {error}", path.display()));
    if path.exists() && !path.is_file() {
        return std::fs::write(path, bytes).map_err(failed);
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let written = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|error| {
        // The error is told already, and the file may not even exist.
        let _ = std::fs::remove_file(&temporary);
        failed(error)
    })
}

fn stdout() -> Result<ArchiveDest, OutputError> {
    let stdout = std::io::stdout();
    if stdout.is_terminal() {
        return Err(OutputError::refused("refusing to write an archive to a terminal")
            .hint("add dest=FILE, or redirect standard output"));
    }
    let owned = stdout.as_fd().try_clone_to_owned();
    let owned =
        owned.map_err(|error| OutputError::refused(format!("cannot use standard output: {error}")))?;
    Ok(ArchiveDest::Open(Arc::new(File::from(owned))))
}

fn told(error: OutputError) -> CliError {
    let hint = error.hint.clone();
    let told = CliError::new(error.to_string());
    match hint {
        Some(hint) => told.hint(hint),
        None => told,
    }
}
