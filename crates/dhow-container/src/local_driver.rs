//! What the driver `local` makes of its options: a folder of ours, one of the host's, or a file system that is mounted
//! while a container uses it. The words are those of mount(8), as in docker.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::ToSocketAddrs as _;
use std::path::{Path, PathBuf};

use dhow_sys::mount::{self, Classic};

use crate::error::{DiskError, VolumeError, disk};
use crate::volume::Volumes;

/// The one driver there is.
pub(crate) const DRIVER: &str = "local";

/// What is behind a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Backing {
    /// A folder in the store.
    #[default]
    Folder,
    /// A folder or file of the host.
    Bind(Bind),
    /// A file system to be mounted.
    Mount(FileSystem),
}

/// A folder of the host that shows as a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bind {
    pub device: PathBuf,
    /// With what is mounted below it.
    pub recursive: bool,
    pub readonly: bool,
}

/// A file system as mount(8) is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileSystem {
    kind: String,
    device: String,
    options: String,
}

/// Why options make no volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VolumeOptionError {
    /// Nobody knows it.
    #[error("invalid option: \"{0}\"")]
    Unknown(String),
    /// It goes with another that was not given.
    #[error("missing required option: \"{0}\"")]
    Missing(&'static str),
    /// A limit that only project quotas could keep.
    #[error("quota size requested but no quota support")]
    Size,
    /// A bind mount of something that is not an absolute path.
    #[error("invalid option \"device\": {0} is not an absolute path")]
    Device(String),
}

impl Backing {
    /// Reads `type`, `device` and `o`.
    pub(crate) fn of(options: &BTreeMap<String, String>) -> Result<Backing, VolumeOptionError> {
        let option = |name: &str| options.get(name).map(String::as_str).filter(|value| !value.is_empty());
        if let Some(unknown) =
            options.keys().find(|key| !["type", "device", "o", "size"].contains(&key.as_str()))
        {
            return Err(VolumeOptionError::Unknown(unknown.clone()));
        }
        if options.contains_key("size") {
            return Err(VolumeOptionError::Size);
        }
        if options.is_empty() {
            return Ok(Backing::Folder);
        }
        let device = option("device").ok_or(VolumeOptionError::Missing("device"))?;
        let kind = option("type").ok_or(VolumeOptionError::Missing("type"))?;
        let words: Vec<&str> = option("o").unwrap_or_default().split(',').collect();
        if kind != "none" && !words.iter().any(|word| matches!(*word, "bind" | "rbind")) {
            let (kind, device) = (kind.to_owned(), device.to_owned());
            return Ok(Backing::Mount(FileSystem { kind, device, options: words.join(",") }));
        }
        let path = Path::new(device);
        if !path.is_absolute() {
            return Err(VolumeOptionError::Device(device.to_owned()));
        }
        if let Some(other) = words.iter().find(|word| !["", "bind", "rbind", "ro", "rw"].contains(word)) {
            return Err(VolumeOptionError::Unknown((*other).to_owned()));
        }
        Ok(Backing::Bind(Bind {
            device: path.into(),
            recursive: words.contains(&"rbind"),
            readonly: words.contains(&"ro"),
        }))
    }
}

impl FileSystem {
    /// NFS wants the address of its server as a number, and nobody but us to look it up.
    fn data(&self) -> io::Result<String> {
        let resolve = |word: &str| match word.strip_prefix("addr=") {
            Some(host) if self.kind.starts_with("nfs") => {
                let first = (host, 0).to_socket_addrs()?.next();
                let address = first.ok_or_else(|| io::Error::other(format!("{host} has no address")))?;
                Ok(format!("addr={}", address.ip()))
            }
            _ => Ok(word.to_owned()),
        };
        let words: io::Result<Vec<String>> =
            self.options.split(',').filter(|word| !word.is_empty()).map(resolve).collect();
        Ok(words?.join(","))
    }
}

impl Volumes<'_> {
    /// Makes a volume's files be where [`Volumes::source`] says. One that is mounted already stays so.
    pub(crate) fn mount(&self, name: &str) -> Result<(), VolumeError> {
        let data = self.data_dir(name);
        let (device, tried) = match self.backing(name)? {
            Backing::Folder => return Ok(()),
            Backing::Bind(bind) => (bind.device.display().to_string(), fs::metadata(&bind.device).map(drop)),
            Backing::Mount(_) if mount::is_mount_point(&data).map_err(disk("look at", &data))? => {
                return Ok(());
            }
            Backing::Mount(system) => {
                let mount = |options: String| {
                    mount::mount_classic(&Classic {
                        source: &system.device,
                        target: &data,
                        kind: &system.kind,
                        options: &options,
                    })
                };
                (system.device.clone(), system.data().and_then(mount))
            }
        };
        tried.map_err(|source| VolumeError::Mount { device, data, source })
    }

    /// Lets go of what [`mount`](Self::mount) mounted.
    pub(crate) fn unmount(&self, name: &str) -> Result<(), DiskError> {
        let data = self.data_dir(name);
        match mount::is_mount_point(&data) {
            Ok(true) => mount::detach(&data).map_err(disk("unmount", &data)),
            // What cannot be looked at is not mounted by us.
            Ok(false) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backing(options: &[(&str, &str)]) -> Result<Backing, String> {
        let options = options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Backing::of(&options).map_err(|error| error.to_string())
    }

    #[test]
    fn options_say_what_is_behind_a_volume() {
        assert_eq!(backing(&[]), Ok(Backing::Folder));
        let bind = |recursive, readonly| Backing::Bind(Bind { device: "/a".into(), recursive, readonly });
        assert_eq!(backing(&[("type", "none"), ("o", "bind"), ("device", "/a")]), Ok(bind(false, false)));
        assert_eq!(backing(&[("type", "none"), ("o", "rbind,ro"), ("device", "/a")]), Ok(bind(true, true)));
        let nfs = FileSystem { kind: "nfs".into(), device: ":/x".into(), options: "addr=h,rw".into() };
        assert_eq!(
            backing(&[("type", "nfs"), ("o", "addr=h,rw"), ("device", ":/x")]),
            Ok(Backing::Mount(nfs))
        );
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert_eq!(backing(&[("colour", "red")]), Err("invalid option: \"colour\"".into()));
        assert_eq!(backing(&[("type", "tmpfs")]), Err("missing required option: \"device\"".into()));
        assert_eq!(backing(&[("device", "/a")]), Err("missing required option: \"type\"".into()));
        assert_eq!(backing(&[("size", "1g")]), Err("quota size requested but no quota support".into()));
    }
}
