//! Volumes, bind mounts and temporary file systems, as people write them: `-v` and `--mount`.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One mount a user asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountRequest {
    /// Absolute path in the container.
    pub target: String,
    /// Not writable.
    pub readonly: bool,
    /// What is mounted.
    pub source: MountSource,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountSource {
    /// A file or folder of the host.
    Bind {
        /// Absolute path on the host.
        path: PathBuf,
        /// Make a folder if nothing is there.
        create: bool,
        /// Whether mounts made later on the host show in the container.
        propagation: BindPropagation,
    },
    /// A volume.
    Volume {
        /// Its name; `None` is an anonymous one.
        name: Option<String>,
        /// Leave an empty one empty instead of filling it from the image.
        no_copy: bool,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Such as `size=64m`.
        options: Vec<String>,
    },
}

/// Whether mounts made later on the host show in the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BindPropagation {
    /// No.
    #[default]
    Rprivate,
    /// Yes.
    Rslave,
}

/// Why a text does not describe a mount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// Not `[source:]target[:options]`.
    #[error("invalid volume specification: '{0}'")]
    Form(String),
    /// An option nobody knows.
    #[error("invalid mode: {0}")]
    Mode(String),
    /// The target is not a place a mount can be.
    #[error("invalid mount path: '{0}' mount path must be absolute and not the root directory")]
    Target(String),
    /// A name that is neither a path nor a volume's.
    #[error(
        "\"{0}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. \
         If you intended to pass a host directory, use absolute path"
    )]
    Name(String),
    /// `--mount` with a key nobody knows.
    #[error("invalid argument \"{text}\" for \"--mount\" flag: unexpected key '{key}' in '{key}={value}'")]
    Key {
        /// All of it.
        text: String,
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// `--mount` with something missing or wrong.
    #[error("invalid argument \"{text}\" for \"--mount\" flag: {reason}")]
    Mount {
        /// All of it.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// Something this version cannot do.
    #[error("{0} is not supported yet")]
    Unsupported(String),
}

/// Reads what `-v` takes: `[source:]target[:options]`. A relative source starts with a dot and is below `folder`.
pub fn parse_volume(text: &str, folder: &Path) -> Result<MountRequest, MountError> {
    let form = || MountError::Form(text.into());
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, modes) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, modes] => (Some(source), target, modes),
        _ => return Err(form()),
    };
    if target.is_empty() || source == Some("") {
        return Err(form());
    }
    let modes = Modes::parse(modes)?;
    let source = match source {
        None => MountSource::Volume { name: None, no_copy: modes.no_copy },
        Some(path) if path.starts_with('/') || path.starts_with('.') || path.starts_with('~') => {
            MountSource::Bind { path: absolute(path, folder), create: true, propagation: modes.propagation }
        }
        Some(name) => MountSource::Volume { name: Some(volume_name(name)?.into()), no_copy: modes.no_copy },
    };
    Ok(MountRequest { target: check_target(target)?, readonly: modes.readonly, source })
}

#[derive(Default)]
struct Modes {
    readonly: bool,
    no_copy: bool,
    propagation: BindPropagation,
}

impl Modes {
    fn parse(text: &str) -> Result<Modes, MountError> {
        let mut modes = Modes::default();
        for mode in text.split(',').filter(|mode| !mode.is_empty()) {
            match mode {
                "ro" => modes.readonly = true,
                "nocopy" => modes.no_copy = true,
                "rslave" | "slave" => modes.propagation = BindPropagation::Rslave,
                // The defaults; what only matters to SELinux, which is not there; hints for Docker Desktop.
                "rw" | "z" | "Z" | "rprivate" | "private" | "cached" | "delegated" | "consistent" => {}
                "shared" | "rshared" => {
                    return Err(MountError::Unsupported(format!("mount propagation {mode}")));
                }
                _ => return Err(MountError::Mode(text.into())),
            }
        }
        Ok(modes)
    }
}

/// Reads what `--mount` takes: `type=bind,source=/a,target=/b,readonly`.
pub fn parse_mount(text: &str, folder: &Path) -> Result<MountRequest, MountError> {
    let mut fields = MountFields::default();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        fields.set(text, &key.to_ascii_lowercase(), value)?;
    }
    fields.finish(text, folder)
}

#[derive(Default)]
struct MountFields<'a> {
    kind: Option<&'a str>,
    source: Option<&'a str>,
    target: Option<&'a str>,
    readonly: bool,
    no_copy: bool,
    create: bool,
    propagation: BindPropagation,
    tmpfs: Vec<String>,
}

impl<'a> MountFields<'a> {
    fn set(&mut self, text: &str, key: &str, value: Option<&'a str>) -> Result<(), MountError> {
        let wrong = |reason: String| MountError::Mount { text: text.into(), reason };
        let flag = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(value) => Err(wrong(format!("invalid value for '{key}': {value}"))),
        };
        match key {
            "readonly" | "ro" => self.readonly = flag()?,
            "volume-nocopy" => self.no_copy = flag()?,
            "bind-create-src" => self.create = flag()?,
            _ => {
                let value =
                    value.ok_or_else(|| wrong(format!("invalid field '{key}' must be a key=value pair")))?;
                match key {
                    "type" => self.kind = Some(value),
                    "source" | "src" => self.source = Some(value),
                    "target" | "dst" | "destination" => self.target = Some(value),
                    "bind-propagation" if value == "rprivate" || value == "private" => {}
                    "bind-propagation" if value == "rslave" || value == "slave" => {
                        self.propagation = BindPropagation::Rslave;
                    }
                    "bind-recursive" if value == "enabled" => {}
                    "consistency" => {}
                    "tmpfs-size" | "tmpfs-mode" => {
                        self.tmpfs.push(format!("{}={value}", &key["tmpfs-".len()..]))
                    }
                    "volume-driver" if value == "local" => {}
                    "bind-propagation" | "bind-recursive" | "bind-nonrecursive" | "volume-driver"
                    | "volume-opt" | "volume-label" | "volume-subpath" | "image-subpath" => {
                        return Err(MountError::Unsupported(format!("--mount {key}={value}")));
                    }
                    _ => {
                        let (text, key, value) = (text.into(), key.into(), value.into());
                        return Err(MountError::Key { text, key, value });
                    }
                }
            }
        }
        Ok(())
    }

    fn finish(self, text: &str, folder: &Path) -> Result<MountRequest, MountError> {
        let wrong = |reason: &str| MountError::Mount { text: text.into(), reason: reason.into() };
        let target = self.target.ok_or_else(|| wrong("target is required"))?;
        let kind = self.kind.unwrap_or("volume");
        if !self.tmpfs.is_empty() && kind != "tmpfs" {
            return Err(wrong(&format!("cannot mix 'tmpfs-*' options with mount type '{kind}'")));
        }
        let source = match kind {
            "bind" => {
                let source = self.source.ok_or_else(|| wrong("source is required for a bind mount"))?;
                let path = absolute(source, folder);
                MountSource::Bind { path, create: self.create, propagation: self.propagation }
            }
            "volume" => {
                let name = self.source.map(volume_name).transpose()?.map(String::from);
                MountSource::Volume { name, no_copy: self.no_copy }
            }
            "tmpfs" if self.source.is_some() => return Err(wrong("a tmpfs has no source")),
            "tmpfs" => MountSource::Tmpfs { options: self.tmpfs },
            "image" | "npipe" | "cluster" => {
                return Err(MountError::Unsupported(format!("a mount of type {kind}")));
            }
            _ => return Err(wrong(&format!("invalid mount type: {kind}"))),
        };
        Ok(MountRequest { target: check_target(target)?, readonly: self.readonly, source })
    }
}

/// Reads what `--tmpfs` takes: `target[:options]`.
pub fn parse_tmpfs(text: &str) -> Result<MountRequest, MountError> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut options: Vec<String> =
        options.split(',').filter(|option| !option.is_empty()).map(String::from).collect();
    let readonly = options.iter().any(|option| option == "ro");
    options.retain(|option| option != "ro" && option != "rw");
    Ok(MountRequest { target: check_target(target)?, readonly, source: MountSource::Tmpfs { options } })
}

/// A volume's name.
pub(crate) fn volume_name(text: &str) -> Result<&str, MountError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    match first && text.len() > 1 && text.bytes().all(allowed) {
        true => Ok(text),
        false => Err(MountError::Name(text.into())),
    }
}

/// A target in its simplest form.
pub(crate) fn check_target(text: &str) -> Result<String, MountError> {
    let refuse = || MountError::Target(text.into());
    if !text.starts_with('/') {
        return Err(refuse());
    }
    let clean = clean(Path::new(text));
    match clean.to_str() {
        Some("/") | None => Err(refuse()),
        Some(clean) => Ok(clean.into()),
    }
}

fn absolute(text: &str, folder: &Path) -> PathBuf {
    clean(&folder.join(text))
}

/// Without `.`, `..` and doubled slashes, as text: what exists is not asked.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::ParentDir => drop(clean.pop()),
            Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(text: &str) -> String {
        describe(parse_volume(text, Path::new("/work")))
    }

    fn mount(text: &str) -> String {
        describe(parse_mount(text, Path::new("/work")))
    }

    fn describe(parsed: Result<MountRequest, MountError>) -> String {
        match parsed {
            Ok(MountRequest { target, readonly, source }) => {
                let access = if readonly { "ro" } else { "rw" };
                format!("{source:?} at {target} {access}")
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_volume_flag_means_what_its_source_looks_like() {
        let bind = |path: &str| format!("Bind {{ path: {path:?}, create: true, propagation: Rprivate }}");
        assert_eq!(volume("/a:/b"), format!("{} at /b rw", bind("/a")));
        assert_eq!(volume("./src:/app/:ro"), format!("{} at /app ro", bind("/work/src")));
        assert_eq!(volume("../x:/b:z"), format!("{} at /b rw", bind("/x")));
        assert_eq!(volume("data:/b:ro,nocopy"), "Volume { name: Some(\"data\"), no_copy: true } at /b ro");
        assert_eq!(volume("/data"), "Volume { name: None, no_copy: false } at /data rw");
    }

    #[test]
    fn a_wrong_volume_flag_is_told_why() {
        assert_eq!(volume(":/b"), "invalid volume specification: ':/b'");
        assert_eq!(volume("/a:/b:ro:x"), "invalid volume specification: '/a:/b:ro:x'");
        assert_eq!(
            volume("/a:b"),
            "invalid mount path: 'b' mount path must be absolute and not the root directory"
        );
        assert_eq!(
            volume("/a:/b/.."),
            "invalid mount path: '/b/..' mount path must be absolute and not the root directory"
        );
        assert_eq!(volume("/a:/b:fast"), "invalid mode: fast");
        assert!(
            volume("src/x:/b").starts_with("\"src/x\" includes invalid characters for a local volume name")
        );
    }

    #[test]
    fn a_mount_flag_is_read_field_by_field() {
        assert_eq!(
            mount("type=bind,src=/a,dst=/b,ro"),
            "Bind { path: \"/a\", create: false, propagation: Rprivate } at /b ro"
        );
        assert_eq!(
            mount("source=data,target=/b"),
            "Volume { name: Some(\"data\"), no_copy: false } at /b rw"
        );
        assert_eq!(mount("type=tmpfs,target=/t,tmpfs-size=1m"), "Tmpfs { options: [\"size=1m\"] } at /t rw");
        assert_eq!(
            mount("type=bind,target=/b,colour=red"),
            "invalid argument \"type=bind,target=/b,colour=red\" for \"--mount\" flag: \
             unexpected key 'colour' in 'colour=red'"
        );
        assert!(mount("type=bind,src=/a").ends_with("target is required"));
        assert_eq!(mount("type=image,src=x,target=/b"), "a mount of type image is not supported yet");
    }
}
