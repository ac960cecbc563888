//! From the text of `-o` and `--annotation` to what is meant.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dhow_image::{Annotation, AnnotationLevel, Dialect};
use dhow_layer::Compression;
use dhow_oci::{Platform, Reference};

use super::{ArchiveDest, Attributes, ImageOutput, LayoutDest, Output, OutputError, PackRequest, split_csv};
use crate::layer_form::{COMPRESSIONS, FormError, SaidForm};

/// Reads the value of `-o`. `stdout` gives standard output when something goes there, and may refuse.
pub fn parse_output(
    text: &str,
    stdout: &mut dyn FnMut() -> Result<ArchiveDest, OutputError>,
) -> Result<Output, OutputError> {
    let fields = split_csv(text)?;
    // A value without an equals sign is a path, or standard output.
    if let [path] = &fields[..]
        && !path.contains('=')
    {
        return match path.as_str() {
            "" => Err(OutputError::new("-o wants a folder, or type=TYPE[,NAME=VALUE]")),
            "-" => Ok(Output::Tar { dest: stdout()?, split: None }),
            path => Ok(Output::Local { dest: PathBuf::from(path), split: None, delete: false }),
        };
    }
    let mut values = BTreeMap::new();
    for field in &fields {
        let Some((key, value)) = field.split_once('=') else {
            return Err(OutputError::new(format!("invalid value {field:?} in output {text:?}"))
                .hint("attributes are written NAME=VALUE and separated by commas"));
        };
        values.insert(lower_case(key.trim()), value.to_owned());
    }
    let Some(kind) = values.remove("type") else {
        return Err(OutputError::new(format!("type is required for output {text:?}"))
            .hint("write -o PATH for a folder, or -o type=local|tar|oci|docker|image|registry,…"));
    };
    output(&kind, Attributes::new(&kind, values), stdout)
}

/// The names of annotations are the user's own; all others are known in lower case.
fn lower_case(key: &str) -> String {
    if key.starts_with("annotation") { key.to_owned() } else { key.to_ascii_lowercase() }
}

fn output(
    kind: &str,
    mut attributes: Attributes,
    stdout: &mut dyn FnMut() -> Result<ArchiveDest, OutputError>,
) -> Result<Output, OutputError> {
    let made = match kind {
        "local" => local(&mut attributes)?,
        "tar" => {
            attributes.refuse("attestation-prefix", None)?;
            let split = attributes.truth("platform-split")?;
            Output::Tar { dest: archive(attributes.take("dest"), stdout)?, split }
        }
        "oci" => layout(&mut attributes, false, stdout)?,
        // Without a place to go it is an image of this engine, as `--load` makes it.
        "docker" => match attributes.take("dest") {
            None => Output::Image(image(&mut attributes, false)?),
            Some(dest) => {
                let mut values = attributes.clone();
                let docker = layout_at(&mut values, true, Some(dest), stdout)?;
                attributes = values;
                docker
            }
        },
        "image" => Output::Image(image(&mut attributes, false)?),
        "registry" => Output::Image(image(&mut attributes, true)?),
        "cacheonly" => return Err(OutputError::new("output type cacheonly is not supported yet")),
        other => {
            return Err(OutputError::new(format!("unknown output type {other:?}"))
                .hint("the types are local, tar, oci, docker, image and registry"));
        }
    };
    attributes.end()?;
    Ok(made)
}

fn local(attributes: &mut Attributes) -> Result<Output, OutputError> {
    attributes.refuse("attestation-prefix", None)?;
    let Some(dest) = attributes.take("dest").filter(|dest| !dest.is_empty()) else {
        return Err(OutputError::new("dest is required for local output"));
    };
    if dest == "-" {
        return Err(OutputError::new("a local output is a folder and cannot go to standard output")
            .hint("use -o type=tar,dest=-"));
    }
    let delete = match attributes.take("mode").as_deref() {
        None | Some("copy") => false,
        Some("delete") => true,
        Some(other) => return Err(attributes.invalid("mode", other, "write copy or delete")),
    };
    let split = attributes.truth("platform-split")?;
    Ok(Output::Local { dest: PathBuf::from(dest), split, delete })
}

fn archive(
    dest: Option<String>,
    stdout: &mut dyn FnMut() -> Result<ArchiveDest, OutputError>,
) -> Result<ArchiveDest, OutputError> {
    match dest.as_deref() {
        None | Some("" | "-") => stdout(),
        Some(path) => Ok(ArchiveDest::File(PathBuf::from(path))),
    }
}

fn layout(
    attributes: &mut Attributes,
    docker: bool,
    stdout: &mut dyn FnMut() -> Result<ArchiveDest, OutputError>,
) -> Result<Output, OutputError> {
    let dest = attributes.take("dest");
    layout_at(attributes, docker, dest, stdout)
}

fn layout_at(
    attributes: &mut Attributes,
    docker: bool,
    dest: Option<String>,
    stdout: &mut dyn FnMut() -> Result<ArchiveDest, OutputError>,
) -> Result<Output, OutputError> {
    let dest = match (attributes.truth("tar")?.unwrap_or(true), dest) {
        (true, dest) => LayoutDest::Archive(archive(dest, stdout)?),
        (false, Some(path)) if path != "-" && !path.is_empty() => LayoutDest::Folder(PathBuf::from(path)),
        (false, _) => return Err(OutputError::new("tar=false wants the folder to write to: add dest=PATH")),
    };
    if attributes.take("context").is_some() {
        return Err(OutputError::new("context of output docker is not supported: dhow has no other engine"));
    }
    let names = latest(attributes.names("name")?);
    Ok(Output::Layout { dest, docker, names, pack: pack(attributes)? })
}

fn latest(names: Vec<Reference>) -> Vec<Reference> {
    names.into_iter().map(Reference::or_latest).collect()
}

fn image(attributes: &mut Attributes, is_registry: bool) -> Result<ImageOutput, OutputError> {
    let push = attributes.truth("push")?;
    if is_registry && push == Some(false) {
        return Err(OutputError::new("output registry without push is nothing: use type=image"));
    }
    let push_by_digest = attributes.truth("push-by-digest")?.unwrap_or(false);
    let push = push.unwrap_or(is_registry || push_by_digest);
    let names = attributes.names("name")?;
    if let Some(tagged) = names.iter().find(|name| push_by_digest && name.tag().is_some()) {
        return Err(OutputError::new(format!("cannot push {} by digest: it has a tag", tagged.familiar())));
    }
    if let Some(digest) = names.iter().find(|name| name.digest().is_some()) {
        return Err(OutputError::new(format!(
            "cannot name an image {}: its digest is not known yet",
            digest.familiar()
        )));
    }
    let store = attributes.truth("store")?.unwrap_or(true);
    if !store && !push {
        return Err(OutputError::new("an image that is neither stored nor pushed is nothing: add push=true"));
    }
    attributes.refuse(
        "registry.insecure",
        Some("say so once in the configuration: [registry.\"HOST\"] location = \"http://HOST\""),
    )?;
    if attributes.truth("unpack")? == Some(false) {
        return Err(OutputError::new("unpack=false is not supported: layers made here are always unpacked"));
    }
    // The wrong spelling is BuildKit's own.
    for key in ["dangling-name-empty-only", "danging-name-empty-only"] {
        if attributes.truth(key)? == Some(false) {
            return Err(OutputError::new(format!(
                "{key}=false is not supported: the dangling name is for images without another"
            )));
        }
    }
    let prefix = attributes.take("dangling-name-prefix");
    let parse = |prefix: String| {
        prefix.parse().map_err(|error| OutputError::new(format!("dangling-name-prefix {prefix}: {error}")))
    };
    Ok(ImageOutput {
        names: if push_by_digest { names } else { latest(names) },
        push,
        push_by_digest,
        store,
        dangling_prefix: prefix.map(parse).transpose()?,
        name_canonical: attributes.truth("name-canonical")?.unwrap_or(false),
        pack: pack(attributes)?,
    })
}

/// The attributes that all images have.
fn pack(attributes: &mut Attributes) -> Result<PackRequest, OutputError> {
    for key in ["oci-artifact", "attestation-inline", "prefer-nondist-layers", "compatibility-version"] {
        attributes.refuse(key, None)?;
    }
    let said = SaidForm {
        compression: attributes.take("compression"),
        level: attributes.number("compression-level")?,
        force: attributes.truth("force-compression")?,
    };
    let form = said.form().map_err(|error| form_error(attributes, error))?;
    let wanted = form.unwrap_or_default().compression;
    let dialect = attributes.truth("oci-mediatypes")?;
    let dialect = dialect.map(|is_oci| if is_oci { Dialect::Oci } else { Dialect::Docker });
    if (dialect, wanted) == (Some(Dialect::Docker), Compression::Zstd) {
        return Err(OutputError::new(
            "compression=zstd wants oci-mediatypes=true: Docker's types know no zstd",
        ));
    }
    let notes = attributes.take_all("annotation");
    let annotations: Result<Vec<Annotation>, OutputError> =
        notes.iter().map(|(key, value)| annotation_attribute(key, value)).collect();
    Ok(PackRequest {
        layers: form,
        dialect,
        rewrite_timestamp: attributes.truth("rewrite-timestamp")?,
        epoch: attributes.number("source-date-epoch")?,
        annotations: annotations?,
    })
}

fn form_error(attributes: &Attributes, error: FormError) -> OutputError {
    match &error {
        FormError::Unsupported(_) => OutputError::new(error.to_string()).hint(COMPRESSIONS),
        FormError::Unknown(name) => attributes.invalid("compression", name, COMPRESSIONS),
        FormError::Meaningless => OutputError::new(error.to_string()),
        FormError::Level { level, .. } => {
            attributes.invalid("compression-level", &level.to_string(), &error.to_string())
        }
    }
}

/// `annotation[-LEVEL][[PLATFORM]].KEY=VALUE`, the attribute of an output.
fn annotation_attribute(name: &str, value: &str) -> Result<Annotation, OutputError> {
    let invalid = || {
        OutputError::new(format!("invalid annotation attribute {name:?}")).hint(
            "write annotation[-manifest|-manifest-descriptor|-index|-index-descriptor][[PLATFORM]].KEY=VALUE",
        )
    };
    let rest = name.strip_prefix("annotation").ok_or_else(invalid)?;
    let end = rest.find(['.', '[']).ok_or_else(invalid)?;
    let level = match &rest[..end] {
        "" => AnnotationLevel::Manifest,
        level => level.strip_prefix('-').and_then(level_of).ok_or_else(invalid)?,
    };
    let (platform, key) = match rest[end..].strip_prefix('[') {
        None => (None, &rest[end + 1..]),
        Some(rest) => {
            let (platform, key) = rest.split_once("].").ok_or_else(invalid)?;
            (Some(platform), key)
        }
    };
    annotation(level, platform, key, value)
}

fn level_of(name: &str) -> Option<AnnotationLevel> {
    match name {
        "manifest" => Some(AnnotationLevel::Manifest),
        "manifest-descriptor" => Some(AnnotationLevel::ManifestDescriptor),
        "index" => Some(AnnotationLevel::Index),
        "index-descriptor" => Some(AnnotationLevel::IndexDescriptor),
        _ => None,
    }
}

fn annotation(
    level: AnnotationLevel,
    platform: Option<&str>,
    key: &str,
    value: &str,
) -> Result<Annotation, OutputError> {
    if key.is_empty() {
        return Err(OutputError::new("an annotation has no name"));
    }
    let platform: Option<Platform> = match platform {
        None => None,
        Some(text) => {
            Some(text.parse().map_err(|error| OutputError::new(format!("annotation {key}: {error}")))?)
        }
    };
    if platform.is_some() && matches!(level, AnnotationLevel::Index | AnnotationLevel::IndexDescriptor) {
        return Err(OutputError::new(format!("annotation {key}: an index is of all platforms")));
    }
    Ok(Annotation { level, platform, key: key.to_owned(), value: value.to_owned() })
}

/// Reads the value of `--annotation`: `[LEVEL[[PLATFORM]],…:]KEY=VALUE`.
pub fn parse_annotation(text: &str) -> Result<Vec<Annotation>, OutputError> {
    let invalid = || {
        OutputError::new(format!("invalid annotation {text:?}"))
            .hint("write [manifest|manifest-descriptor|index|index-descriptor[[PLATFORM]],…:]KEY=VALUE")
    };
    let (name, value) = text.split_once('=').ok_or_else(invalid)?;
    // A key may have a colon itself; then what is before it is no list of levels.
    let levels = name.split_once(':').and_then(|(levels, key)| Some((parse_levels(levels)?, key)));
    let (levels, key) = levels.unwrap_or_else(|| (vec![(AnnotationLevel::Manifest, None)], name));
    levels.into_iter().map(|(level, platform)| annotation(level, platform, key, value)).collect()
}

fn parse_levels(text: &str) -> Option<Vec<(AnnotationLevel, Option<&str>)>> {
    let parse = |part: &'_ str| -> Option<(AnnotationLevel, Option<usize>)> {
        match part.split_once('[') {
            None => Some((level_of(part)?, None)),
            Some((level, rest)) => {
                rest.strip_suffix(']').and(Some((level_of(level)?, Some(level.len() + 1))))
            }
        }
    };
    text.split(',')
        .map(|part| {
            let part = part.trim();
            let (level, start) = parse(part)?;
            Some((level, start.map(|start| &part[start..part.len() - 1])))
        })
        .collect()
}

#[cfg(test)]
mod tests;
