//! What `--cache-from` and `--cache-to` say: `type=registry,ref=...`, comma-separated as in CSV.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use dhow_image::LayerForm;
use dhow_layer::Compression;
use dhow_oci::{Digest, Reference};

use crate::layer_form::{COMPRESSIONS, FormError, SaidForm};

/// The tag of a cache in a folder that holds several.
const TAG_DEFAULT: &str = "latest";

/// Caches elsewhere that a build reads and writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheElsewhere {
    /// Where steps are looked for, in this order.
    pub from: Vec<CacheFrom>,
    /// Where the steps of this build are kept.
    pub to: Vec<CacheTo>,
}

impl CacheElsewhere {
    /// Whether the image is to have a cache in it.
    pub fn is_inline(&self) -> bool {
        self.to.iter().any(|to| to.place == CachePlace::Inline)
    }
}

/// A cache to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheFrom {
    /// A cache, or an image with a cache in it, in a registry.
    Registry(Reference),
    /// A folder.
    Local {
        /// The folder.
        folder: PathBuf,
        /// Which of its caches.
        which: LocalCache,
    },
}

/// One of the caches in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalCache {
    /// By its tag.
    Tag(String),
    /// By its digest.
    Digest(Digest),
}

/// A cache to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheTo {
    /// Where it goes.
    pub place: CachePlace,
    /// Which results go along.
    pub mode: CacheMode,
    /// The shape of the document that lists it.
    pub form: CacheForm,
    /// How its layers are packed.
    pub layers: LayerForm,
    /// Whether a build goes on without it.
    pub ignore_error: bool,
}

/// Where a cache goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CachePlace {
    /// A registry.
    Registry(Reference),
    /// A folder.
    Local {
        /// The folder.
        folder: PathBuf,
        /// The tag it gets there.
        tag: String,
        /// Whether what other caches left in the folder is removed.
        reset: bool,
    },
    /// The configuration of the image.
    Inline,
}

/// Which results a cache has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Those whose layers are in the image.
    #[default]
    Min,
    /// All of them.
    Max,
}

/// The shape of the document that lists a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheForm {
    /// An image manifest, which every registry takes.
    #[default]
    ImageManifest,
    /// An OCI index of layers, as older versions of BuildKit wrote it.
    Index,
    /// The same in Docker's words.
    DockerIndex,
}

/// Why a text does not describe a cache.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheAttributeError {
    /// There is such a type, but not here.
    #[error("caches of type {0} are not supported; dhow knows registry, local and inline")]
    Unsupported(String),
    /// There is no such type.
    #[error("unknown cache type {0:?}; dhow knows registry, local and inline")]
    Type(String),
    /// The type wants it.
    #[error("a cache of type {kind} needs {name}=")]
    Missing {
        /// The type.
        kind: &'static str,
        /// What is missing.
        name: &'static str,
    },
    /// The type has no such attribute.
    #[error("a cache of type {kind} has no attribute {name:?}")]
    Unknown {
        /// The type.
        kind: &'static str,
        /// The attribute.
        name: String,
    },
    /// The value makes no sense.
    #[error("{name}={value}: {why}")]
    Value {
        /// The attribute.
        name: String,
        /// Its value.
        value: String,
        /// What is wrong.
        why: String,
    },
    /// It is not a list of `name=value`.
    #[error("{0:?} is not of the form name=value")]
    Form(String),
}

type Result<T> = std::result::Result<T, CacheAttributeError>;

impl fmt::Display for CacheFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CacheFrom::Registry(reference) => f.write_str(&reference.familiar()),
            CacheFrom::Local { folder, which: LocalCache::Tag(tag) } if tag == TAG_DEFAULT => {
                write!(f, "{}", folder.display())
            }
            CacheFrom::Local { folder, which: LocalCache::Tag(tag) } => {
                write!(f, "{}:{tag}", folder.display())
            }
            CacheFrom::Local { folder, which: LocalCache::Digest(digest) } => {
                write!(f, "{}@{digest}", folder.display())
            }
        }
    }
}

impl fmt::Display for CacheTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            CachePlace::Registry(reference) => f.write_str(&reference.familiar()),
            CachePlace::Local { folder, .. } => write!(f, "{}", folder.display()),
            CachePlace::Inline => f.write_str("the image"),
        }
    }
}

impl FromStr for CacheFrom {
    type Err = CacheAttributeError;

    /// Reads `type=...,...`, or the name of an image or cache in a registry.
    fn from_str(text: &str) -> Result<CacheFrom> {
        let mut attributes = Attributes::parse(text)?;
        let from = match attributes.kind()? {
            Kind::Inline => return Err(only_written("inline")),
            Kind::Registry => {
                attributes.refuse_insecure()?;
                CacheFrom::Registry(attributes.reference()?)
            }
            Kind::Local => {
                let folder = attributes.need("src")?.into();
                let tag = attributes.take("tag").unwrap_or_else(|| TAG_DEFAULT.to_owned());
                let digest = attributes.parsed::<Digest>("digest")?;
                let which = digest.map_or(LocalCache::Tag(tag), LocalCache::Digest);
                CacheFrom::Local { folder, which }
            }
        };
        attributes.end()?;
        Ok(from)
    }
}

fn only_written(kind: &str) -> CacheAttributeError {
    CacheAttributeError::Value {
        name: "type".to_owned(),
        value: kind.to_owned(),
        why: "such a cache is in an image: read it with type=registry".to_owned(),
    }
}

impl FromStr for CacheTo {
    type Err = CacheAttributeError;

    /// Reads `type=...,...`, or the name a cache shall get in a registry.
    fn from_str(text: &str) -> Result<CacheTo> {
        let mut attributes = Attributes::parse(text)?;
        let kind = attributes.kind()?;
        let place = match kind {
            Kind::Inline => CachePlace::Inline,
            Kind::Registry => {
                attributes.refuse_insecure()?;
                CachePlace::Registry(attributes.reference()?)
            }
            Kind::Local => CachePlace::Local {
                folder: attributes.need("dest")?.into(),
                tag: attributes.take("tag").unwrap_or_else(|| TAG_DEFAULT.to_owned()),
                reset: attributes.flag("reset")?.unwrap_or(false),
            },
        };
        let mode = match attributes.take("mode").as_deref() {
            None | Some("min") => CacheMode::Min,
            Some("max") if kind != Kind::Inline => CacheMode::Max,
            Some(value) => {
                let why = if value == "max" {
                    "an image holds the layers it has, which is min"
                } else {
                    "it is min or max"
                };
                return Err(CacheAttributeError::Value {
                    name: "mode".to_owned(),
                    value: value.to_owned(),
                    why: why.to_owned(),
                });
            }
        };
        let form = match kind {
            Kind::Inline => CacheForm::default(),
            _ => attributes.form()?,
        };
        // Layers within an image are packed as those of the image.
        let layers = match kind {
            Kind::Inline => LayerForm::default(),
            _ => attributes.layers(form)?,
        };
        let ignore_error = attributes.flag("ignore-error")?.unwrap_or(false);
        attributes.end()?;
        Ok(CacheTo { place, mode, form, layers, ignore_error })
    }
}

impl CacheTo {
    /// A cache within the image itself.
    pub fn inline() -> CacheTo {
        CacheTo {
            place: CachePlace::Inline,
            mode: CacheMode::Min,
            form: CacheForm::default(),
            layers: LayerForm::default(),
            ignore_error: false,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Registry,
    Local,
    Inline,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Registry => "registry",
            Kind::Local => "local",
            Kind::Inline => "inline",
        }
    }
}

/// Attributes that nobody has asked for yet.
struct Attributes {
    kind: Option<Kind>,
    values: BTreeMap<String, String>,
}

impl Attributes {
    fn parse(text: &str) -> Result<Attributes> {
        let fields = fields(text);
        // A name alone is that of a cache in a registry.
        if let [field] = fields.as_slice()
            && !field.contains('=')
        {
            let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let values = BTreeMap::from([pair("type", "registry"), pair("ref", field)]);
            return Ok(Attributes { kind: None, values });
        }
        let mut values = BTreeMap::new();
        for field in fields {
            let Some((name, value)) = field.split_once('=') else {
                return Err(CacheAttributeError::Form(field));
            };
            values.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
        Ok(Attributes { kind: None, values })
    }

    fn kind(&mut self) -> Result<Kind> {
        let kind = match self.take("type").as_deref() {
            Some("registry") => Kind::Registry,
            Some("local") => Kind::Local,
            Some("inline") => Kind::Inline,
            Some(known @ ("gha" | "s3" | "azblob")) => {
                return Err(CacheAttributeError::Unsupported(known.to_owned()));
            }
            other => return Err(CacheAttributeError::Type(other.unwrap_or_default().to_owned())),
        };
        self.kind = Some(kind);
        Ok(kind)
    }

    fn kind_name(&self) -> &'static str {
        self.kind.map_or("", Kind::name)
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.values.remove(name)
    }

    fn need(&mut self, name: &'static str) -> Result<String> {
        let value = self.take(name).filter(|value| !value.is_empty());
        value.ok_or(CacheAttributeError::Missing { kind: self.kind_name(), name })
    }

    fn parsed<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Result<Option<T>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let parsed = value.parse().map_err(|error: T::Err| bad(name, &value, &error));
        parsed.map(Some)
    }

    fn reference(&mut self) -> Result<Reference> {
        let value = self.need("ref")?;
        let reference: std::result::Result<Reference, _> = value.parse();
        Ok(reference.map_err(|error| bad("ref", &value, &error))?.or_latest())
    }

    fn flag(&mut self, name: &str) -> Result<Option<bool>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_str() {
            "true" | "1" | "t" | "T" | "True" | "TRUE" => Ok(Some(true)),
            "false" | "0" | "f" | "F" | "False" | "FALSE" => Ok(Some(false)),
            _ => Err(bad(name, &value, &"it is true or false")),
        }
    }

    fn refuse_insecure(&mut self) -> Result<()> {
        match self.flag("registry.insecure")? {
            Some(true) => {
                let why = "how a registry is reached is a matter of the configuration file";
                Err(bad("registry.insecure", "true", &why))
            }
            _ => Ok(()),
        }
    }

    fn form(&mut self) -> Result<CacheForm> {
        let is_oci = self.flag("oci-mediatypes")?.unwrap_or(true);
        match (is_oci, self.flag("image-manifest")?) {
            (true, None | Some(true)) => Ok(CacheForm::ImageManifest),
            (true, Some(false)) => Ok(CacheForm::Index),
            (false, None | Some(false)) => Ok(CacheForm::DockerIndex),
            (false, Some(true)) => Err(bad("image-manifest", "true", &"it needs oci-mediatypes=true")),
        }
    }

    fn layers(&mut self, form: CacheForm) -> Result<LayerForm> {
        let said = SaidForm {
            compression: self.take("compression"),
            level: self.parsed("compression-level")?,
            force: self.flag("force-compression")?,
        };
        let layers = said.form().map_err(form_error)?.unwrap_or_default();
        if (form, layers.compression) == (CacheForm::DockerIndex, Compression::Zstd) {
            return Err(bad(
                "compression",
                "zstd",
                &"it needs oci-mediatypes=true: Docker's types know no zstd",
            ));
        }
        Ok(layers)
    }

    /// Nothing may be left over.
    fn end(self) -> Result<()> {
        match self.values.into_keys().next() {
            Some(name) => Err(CacheAttributeError::Unknown { kind: self.kind.map_or("", Kind::name), name }),
            None => Ok(()),
        }
    }
}

fn form_error(error: FormError) -> CacheAttributeError {
    match &error {
        FormError::Unsupported(value) => bad("compression", value, &"it is not supported yet"),
        FormError::Unknown(value) => bad("compression", value, &COMPRESSIONS),
        FormError::Meaningless => bad("compression", "uncompressed", &"it has no levels"),
        FormError::Level { level, .. } => bad("compression-level", &level.to_string(), &error),
    }
}

fn bad(name: &str, value: &str, why: &dyn fmt::Display) -> CacheAttributeError {
    CacheAttributeError::Value { name: name.to_owned(), value: value.to_owned(), why: why.to_string() }
}

/// The fields of one line of CSV.
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("there is always one");
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> String {
        match text.parse::<CacheFrom>() {
            Ok(from) => from.to_string(),
            Err(error) => format!("error: {error}"),
        }
    }

    fn to(text: &str) -> String {
        match text.parse::<CacheTo>() {
            Ok(CacheTo { mode, form, layers, ignore_error, place }) => {
                let LayerForm { compression, level, force } = layers;
                let layers = format!("{compression} {} {force}", level.unwrap_or_default());
                format!("{place:?} {mode:?} {form:?} {layers} {ignore_error}")
            }
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn a_cache_to_read_is_a_name_or_attributes() {
        assert_eq!(from("user/app"), "user/app:latest");
        assert_eq!(from("type=registry,ref=user/app:cache"), "user/app:cache");
        assert_eq!(from("type=local,src=/tmp/a"), "/tmp/a");
        assert_eq!(from("type=local,\"src=/tmp/a,b\",tag=x"), "/tmp/a,b:x");
    }

    #[test]
    fn a_cache_to_write_says_how() {
        let registry = to("type=registry,ref=user/app,mode=max,compression=gzip,ignore-error=true");
        assert!(registry.ends_with("Max ImageManifest gzip 0 false true"), "{registry}");
        assert!(to("type=local,dest=c,image-manifest=false").contains("Min Index"));
        assert!(
            to("type=local,dest=c,oci-mediatypes=false,reset=true").contains("reset: true } Min DockerIndex")
        );
        let packed = to("type=registry,ref=a,compression=zstd,compression-level=19,force-compression=true");
        assert!(packed.ends_with("Min ImageManifest zstd 19 true false"), "{packed}");
        assert!(to("type=inline").starts_with("Inline Min"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (text, error) in [
            (
                "type=gha",
                "error: caches of type gha are not supported; dhow knows registry, local and inline",
            ),
            (
                "type=s3,bucket=b",
                "error: caches of type s3 are not supported; dhow knows registry, local and inline",
            ),
            ("type=x", "error: unknown cache type \"x\"; dhow knows registry, local and inline"),
            ("type=registry", "error: a cache of type registry needs ref="),
            ("type=local", "error: a cache of type local needs dest="),
            ("type=local,dest=a,scope=b", "error: a cache of type local has no attribute \"scope\""),
            ("type=inline,mode=max", "error: mode=max: an image holds the layers it has, which is min"),
            (
                "type=inline,compression=zstd",
                "error: a cache of type inline has no attribute \"compression\"",
            ),
            ("type=local,dest=a,compression=estargz", "error: compression=estargz: it is not supported yet"),
            (
                "type=local,dest=a,compression=lz4",
                "error: compression=lz4: the compressions are uncompressed, gzip and zstd",
            ),
            (
                "type=local,dest=a,compression=uncompressed,compression-level=1",
                "error: compression=uncompressed: it has no levels",
            ),
            (
                "type=local,dest=a,compression=zstd,oci-mediatypes=false",
                "error: compression=zstd: it needs oci-mediatypes=true: Docker's types know no zstd",
            ),
            (
                "type=local,dest=a,oci-mediatypes=false,image-manifest=true",
                "error: image-manifest=true: it needs oci-mediatypes=true",
            ),
            (
                "type=local,dest=a,compression-level=10",
                "error: compression-level=10: levels of gzip are 0 to 9",
            ),
            ("type=local,dest", "error: \"dest\" is not of the form name=value"),
        ] {
            assert_eq!(to(text), error);
        }
        assert_eq!(
            from("type=inline"),
            "error: type=inline: such a cache is in an image: read it with type=registry"
        );
    }
}
