//! Volumes, bind mounts and temporary file systems, as people write them: `-v` and `--mount`.

use std::collections::BTreeMap;
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
        /// How it is mounted.
        how: BindOptions,
    },
    /// A volume.
    Volume(VolumeMount),
    /// An empty file system in memory.
    Tmpfs {
        /// Such as `size=64m`.
        options: Vec<String>,
    },
    /// The files of an image, to be read only.
    Image {
        /// The image, as the user wrote it.
        image: String,
        /// What of it is shown; empty is all.
        subpath: String,
    },
}

/// How a file or folder of the host is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BindOptions {
    /// Whether mounts made later show on the other side.
    pub propagation: BindPropagation,
    /// What becomes of what is mounted below.
    pub recursion: BindRecursion,
    /// The files are to be given a label that containers may use, one of their own or a common one.
    pub relabel: Option<Relabel>,
}

/// Labels of files, where a security module asks for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Relabel {
    /// For all containers: `z`.
    Shared,
    /// For this container alone: `Z`.
    Own,
}

/// What becomes of what is mounted below a bind mount's source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BindRecursion {
    /// It shows, and is read-only if the mount is.
    #[default]
    Enabled,
    /// It does not show.
    Disabled,
    /// It shows and stays writable in a read-only mount.
    Writable,
    /// It shows and has to be read-only.
    Readonly,
}

/// A volume to be mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeMount {
    /// Its name; `None` is an anonymous one.
    pub name: Option<String>,
    /// Leave an empty one empty instead of filling it from the image.
    pub no_copy: bool,
    /// What of it is shown; empty is all.
    pub subpath: String,
    /// Its driver if it has to be made; empty is `local`.
    pub driver: String,
    /// Its labels if it has to be made.
    pub labels: BTreeMap<String, String>,
    /// What its driver is told if it has to be made.
    pub options: BTreeMap<String, String>,
}

/// Whether mounts made later on one side show on the other, and with the letter `r` what is mounted below, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BindPropagation {
    /// No.
    #[default]
    Rprivate,
    /// No.
    Private,
    /// Those of the host.
    Rslave,
    /// Those of the host.
    Slave,
    /// Both ways.
    Rshared,
    /// Both ways.
    Shared,
}

impl BindPropagation {
    const ALL: [BindPropagation; 6] =
        [Self::Rprivate, Self::Private, Self::Rslave, Self::Slave, Self::Rshared, Self::Shared];

    /// Docker's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rprivate => "rprivate",
            Self::Private => "private",
            Self::Rslave => "rslave",
            Self::Slave => "slave",
            Self::Rshared => "rshared",
            Self::Shared => "shared",
        }
    }

    pub(crate) fn of_word(word: &str) -> Option<BindPropagation> {
        Self::ALL.into_iter().find(|known| known.word() == word)
    }
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
    /// Options of a tmpfs that it does not have.
    #[error("invalid tmpfs option [\"{0}\"]")]
    Tmpfs(String),
    /// A part of a volume or image that is said to lie outside of it.
    #[error("invalid mount config for type \"{0}\": subpath must be a relative path within the {0}")]
    Subpath(&'static str),
    /// Mounts of another system.
    #[error("a mount of type {0} is not for Linux containers of a single host")]
    Foreign(String),
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
    let modes_text = modes;
    let modes = Modes::parse(modes)?;
    let source = match source {
        Some(path) if path.starts_with('/') || path.starts_with('.') || path.starts_with('~') => {
            if modes.no_copy {
                return Err(MountError::Mode(modes_text.into()));
            }
            let (propagation, relabel) = (modes.propagation.unwrap_or_default(), modes.relabel);
            let how = BindOptions { propagation, relabel, ..BindOptions::default() };
            MountSource::Bind { path: absolute(path, folder), create: true, how }
        }
        // What is in a volume is nobody else's business, so nothing is mounted there by others.
        _ if modes.propagation.is_some() => return Err(MountError::Mode(modes_text.into())),
        name => MountSource::Volume(VolumeMount {
            name: name.map(volume_name).transpose()?.map(String::from),
            no_copy: modes.no_copy,
            ..VolumeMount::default()
        }),
    };
    Ok(MountRequest { target: check_target(target)?, readonly: modes.readonly, source })
}

#[derive(Default)]
struct Modes {
    readonly: bool,
    no_copy: bool,
    propagation: Option<BindPropagation>,
    relabel: Option<Relabel>,
}

impl Modes {
    /// Each kind of mode may be said once.
    fn parse(text: &str) -> Result<Modes, MountError> {
        let (mut modes, mut access, mut consistency) = (Modes::default(), 0, 0);
        let (mut copies, mut propagations, mut labels) = (0, 0, 0);
        for mode in text.split(',').filter(|mode| !mode.is_empty()) {
            match mode {
                "ro" | "rw" => {
                    modes.readonly = mode == "ro";
                    access += 1;
                }
                "nocopy" => {
                    modes.no_copy = true;
                    copies += 1;
                }
                "z" | "Z" => {
                    modes.relabel = Some(if mode == "z" { Relabel::Shared } else { Relabel::Own });
                    labels += 1;
                }
                // Hints for Docker Desktop.
                "cached" | "delegated" | "consistent" => consistency += 1,
                word => {
                    let known = BindPropagation::of_word(word);
                    modes.propagation = Some(known.ok_or_else(|| MountError::Mode(text.into()))?);
                    propagations += 1;
                }
            }
        }
        match [access, consistency, copies, propagations, labels].iter().all(|count| *count <= 1) {
            true => Ok(modes),
            false => Err(MountError::Mode(text.into())),
        }
    }
}

/// Reads what `--tmpfs` takes: `target[:options]`.
pub fn parse_tmpfs(text: &str) -> Result<MountRequest, MountError> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let mut options: Vec<String> =
        options.split(',').filter(|option| !option.is_empty()).map(String::from).collect();
    let readonly = options.iter().any(|option| option == "ro");
    options.retain(|option| option != "ro" && option != "rw");
    check_tmpfs(&options)?;
    Ok(MountRequest { target: check_target(target)?, readonly, source: MountSource::Tmpfs { options } })
}

/// What can be said of a tmpfs.
fn check_tmpfs(options: &[String]) -> Result<(), MountError> {
    const WORDS: [&str; 18] = [
        "nosuid",
        "suid",
        "nodev",
        "dev",
        "noexec",
        "exec",
        "sync",
        "async",
        "dirsync",
        "mand",
        "nomand",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "strictatime",
        "defaults",
    ];
    const KEYS: [&str; 7] = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"];
    let is_known = |option: &&String| match option.split_once('=') {
        Some((key, value)) => KEYS.contains(&key) && !value.is_empty(),
        None => WORDS.contains(&option.as_str()),
    };
    match options.iter().find(|option| !is_known(option)) {
        Some(unknown) => Err(MountError::Tmpfs(unknown.clone())),
        None => Ok(()),
    }
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

pub(crate) fn absolute(text: &str, folder: &Path) -> PathBuf {
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
        let bind = |path: &str| {
            let how = BindOptions::default();
            format!("{:?}", MountSource::Bind { path: path.into(), create: true, how })
        };
        assert_eq!(volume("/a:/b"), format!("{} at /b rw", bind("/a")));
        assert_eq!(volume("./src:/app/:ro"), format!("{} at /app ro", bind("/work/src")));
        assert_eq!(volume("../x:/b:cached"), format!("{} at /b rw", bind("/x")));
        let named = |name: Option<&str>, no_copy| {
            let name = name.map(String::from);
            format!("{:?}", MountSource::Volume(VolumeMount { name, no_copy, ..VolumeMount::default() }))
        };
        assert_eq!(volume("data:/b:ro,nocopy"), format!("{} at /b ro", named(Some("data"), true)));
        assert_eq!(volume("/data"), format!("{} at /data rw", named(None, false)));
        assert!(
            volume("/a:/b:Z,rshared")
                .contains("propagation: Rshared, recursion: Enabled, relabel: Some(Own)")
        );
    }

    #[test]
    fn a_wrong_volume_flag_is_told_why() {
        assert_eq!(volume(":/b"), "invalid volume specification: ':/b'");
        assert_eq!(volume("/a:/b:ro:x"), "invalid volume specification: '/a:/b:ro:x'");
        let target = |path: &str| {
            format!("invalid mount path: '{path}' mount path must be absolute and not the root directory")
        };
        assert_eq!(volume("/a:b"), target("b"));
        assert_eq!(volume("/a:/b/.."), target("/b/.."));
        for mode in ["fast", "ro,rw", "z,Z", "rslave,rshared", "nocopy"] {
            assert_eq!(volume(&format!("/a:/b:{mode}")), format!("invalid mode: {mode}"));
        }
        assert_eq!(volume("data:/b:rslave"), "invalid mode: rslave");
        assert!(
            volume("src/x:/b").starts_with("\"src/x\" includes invalid characters for a local volume name")
        );
    }

    #[test]
    fn a_tmpfs_flag_takes_what_tmpfs_knows() {
        let tmpfs = |text: &str| describe(parse_tmpfs(text));
        assert_eq!(tmpfs("/t:size=1m,exec,ro"), "Tmpfs { options: [\"size=1m\", \"exec\"] } at /t ro");
        assert_eq!(tmpfs("/t:fast"), "invalid tmpfs option [\"fast\"]");
        assert_eq!(tmpfs("/t:size="), "invalid tmpfs option [\"size=\"]");
    }
}
